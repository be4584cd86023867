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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    /// More than the queue holds, faster than a file is written.
    // Proves: GW-78
    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        home.init().unwrap();
        let audit = Audit::open(&home, home.open_store().unwrap(), home.identity().unwrap()).unwrap();
        let audit = Arc::new(audit);
        let events = Events::new(audit.clone()).unwrap();
        let mut given = 0_u64;
        while events.lost() == 0 {
            events.note(AuditEvent::normal("one:of:many"));
            given += 1;
        }
        let is_told = || {
            let lines = crate::audit::since(audit.dir(), 0, usize::MAX).unwrap();
            let lines: Vec<serde_json::Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            lines.into_iter().find(|line| line["[TES_EVENT]"] == "audit:gap")
        };
        // The next one that fits brings the word about those before it that did not.
        let gap = loop {
            events.note(AuditEvent::normal("one:more"));
            given += 1;
            if let Some(gap) = is_told() {
                break gap;
            }
            std::thread::yield_now();
        };
        let lost: u64 = gap["lost"].as_str().unwrap().parse().unwrap();
        assert!(lost > 0 && gap["hsl"] == "#FF0000", "{gap}");
        events.close();
        let written = crate::audit::since(audit.dir(), 0, usize::MAX).unwrap().len() as u64;
        assert!(written >= given - events.lost(), "{written} of {given}, {} lost", events.lost());
    }
}
