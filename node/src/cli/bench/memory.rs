//! How much memory a bench takes, and a limit that the kernel keeps. Spec: SY-44
//!
//! The limit is `RLIMIT_DATA`: it counts every page that the process may write and shares with nobody, whether it lies in
//! memory or not, and needs no rights. A cgroup would count the page cache too, which the limit of ibgib §14 does not mean.
//! A process that asks for more is ended by its allocator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::failure::Failure;

/// How often the anonymous memory is looked at.
const EVERY: Duration = Duration::from_millis(10);

/// From now on this process gets at most so many bytes.
pub(super) fn limit(bytes: u64) -> Result<(), Failure> {
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Data, limit).map_err(|error| Failure::failed("bench", format!("no limit of memory: {error}")))
}

/// Bytes of anonymous memory that this process has in use: resident, backed by no file.
pub(super) fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Watches the anonymous memory of this process: the kernel keeps a peak only of all that is resident, files included.
pub(super) struct Watch {
    peak: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start() -> Self {
        let (peak, over) = (Arc::new(AtomicU64::new(anonymous())), Arc::new(AtomicBool::new(false)));
        let (seen, ends) = (Arc::clone(&peak), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                seen.fetch_max(anonymous(), Ordering::Relaxed);
                std::thread::sleep(EVERY);
            }
        });
        Self { peak, over, thread: Some(thread) }
    }

    /// The most so far, in bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak.fetch_max(anonymous(), Ordering::Relaxed).max(self.peak.load(Ordering::Relaxed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
