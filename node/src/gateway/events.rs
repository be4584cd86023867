//! Events on their way into the audit: whoever serves a request does not wait for a file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::audit::{Audit, AuditEvent};

/// Events that wait; more are counted and lost, and the audit says how many.
const WAITING_MAX: usize = 4_096;

/// The way into the audit. What was given to it is written before it is dropped.
pub(crate) struct Events {
    open: Mutex<Option<Open>>,
    /// Those that the audit was not told of yet.
    lost: Arc<AtomicU64>,
    lost_ever: AtomicU64,
}

struct Open {
    sender: SyncSender<AuditEvent>,
    writer: JoinHandle<()>,
}

impl Events {
    pub(crate) fn new(audit: Arc<Audit>) -> std::io::Result<Self> {
        let (sender, waiting) = sync_channel::<AuditEvent>(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        let write = move || {
            for event in waiting {
                let missing = counted.swap(0, Ordering::Relaxed);
                if missing > 0 {
                    audit.event(&AuditEvent::new("audit:gap", "#FF0000").member("lost", missing));
                }
                audit.event(&event);
            }
        };
        let writer = std::thread::Builder::new().name("gateway-audit".to_owned()).spawn(write)?;
        Ok(Self { open: Mutex::new(Some(Open { sender, writer })), lost, lost_ever: AtomicU64::new(0) })
    }

    /// Takes an event; it is written soon.
    pub(crate) fn note(&self, event: AuditEvent) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|open| open.sender.try_send(event).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.lost_ever.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were lost since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost_ever.load(Ordering::Relaxed)
    }

    /// Writes what waits; what comes later is lost.
    pub(crate) fn close(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Open { sender, writer }) = open {
            drop(sender);
            let _ = writer.join();
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.close();
    }
}
