//! Files that go to the disk while they are written, so that whoever waits for the last byte does not wait for all of them.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::guard;

/// Bytes that are written before the disk is set to work on them.
const BEHIND_BYTES: u64 = 32 * 1024 * 1024;

/// A file, and how far the disk was set to work on it.
#[derive(Debug)]
pub(crate) struct WriteBehind {
    syncing: Arc<Syncing>,
    begun: AtomicU64,
    is_busy: Arc<AtomicBool>,
}

/// One sync at a time. The system tells a failed write to one sync only, whoever called it, and a later one succeeds: so
/// a failure is kept, and every later sync fails too.
#[derive(Debug)]
struct Syncing {
    file: File,
    failed: Mutex<Option<io::ErrorKind>>,
}

impl Syncing {
    fn sync(&self) -> io::Result<()> {
        let mut failed = guard(&self.failed);
        if let Some(kind) = *failed {
            return Err(kind.into());
        }
        self.file.sync_data().inspect_err(|error| *failed = Some(error.kind()))
    }
}

impl WriteBehind {
    /// A file of `len` bytes that are on the disk.
    pub(crate) fn new(file: File, len: u64) -> Self {
        let syncing = Arc::new(Syncing { file, failed: Mutex::new(None) });
        Self { syncing, begun: AtomicU64::new(len), is_busy: Arc::default() }
    }

    pub(crate) fn file(&self) -> &File {
        &self.syncing.file
    }

    /// The file has `len` bytes now. Where enough of them wait, a thread of its own brings them to the disk meanwhile.
    pub(crate) fn grew(&self, len: u64) {
        if len.saturating_sub(self.begun.load(Ordering::Relaxed)) < BEHIND_BYTES
            || self.is_busy.swap(true, Ordering::AcqRel)
        {
            return;
        }
        self.begun.store(len, Ordering::Relaxed);
        let (syncing, is_busy) = (Arc::clone(&self.syncing), Arc::clone(&self.is_busy));
        let work = move || {
            // A failure is told to whoever waits for the bytes.
            let _ = syncing.sync();
            is_busy.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().spawn(work).is_err() {
            self.is_busy.store(false, Ordering::Release);
        }
    }

    /// Everything that was written is on the disk when this returns.
    ///
    /// # Errors
    /// What the disk says of any write since the file was opened.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.syncing.sync()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::fd::OwnedFd;

    use super::*;

    /// A file that cannot be synced: whoever tries leaves a failure.
    fn pipe() -> (WriteBehind, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (WriteBehind::new(File::from(OwnedFd::from(reader)), 0), writer)
    }

    fn failed(file: &WriteBehind) -> bool {
        while file.is_busy.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        guard(&file.syncing.failed).is_some()
    }

    #[test]
    fn the_disk_is_set_to_work_once_enough_is_written() {
        let (file, _writer) = pipe();
        file.grew(BEHIND_BYTES - 1);
        assert!(!failed(&file), "nobody synced");
        file.grew(BEHIND_BYTES);
        assert!(failed(&file), "a thread synced, with nobody waiting");
        // What was begun counts: the next sync begins as many bytes later.
        *guard(&file.syncing.failed) = None;
        file.grew(2 * BEHIND_BYTES - 1);
        assert!(!failed(&file));
        file.grew(2 * BEHIND_BYTES);
        assert!(failed(&file));
    }

    #[test]
    fn a_failure_is_told_to_everybody_who_syncs_later() {
        let (pipe, _writer) = pipe();
        let first = pipe.sync().unwrap_err().kind();
        assert_eq!(*guard(&pipe.syncing.failed), Some(first));
        // Also where the disk would say that all is well by now.
        let file = WriteBehind::new(tempfile::tempfile().unwrap(), 0);
        file.sync().unwrap();
        *guard(&file.syncing.failed) = Some(io::ErrorKind::StorageFull);
        for _ in 0..2 {
            assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
}
