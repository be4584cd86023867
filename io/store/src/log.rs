//! The writing end of the log: one pack is open, the others are sealed. Spec: store, "Packs".

use std::sync::Arc;

use crate::disk::Disk;
use crate::entry::{Builder, Entry};
use crate::error::{StoreError, write_error};
use crate::merge::Merge;
use crate::pack::{PACK_HEAD_BYTES, Pack};

/// Appends entries to the open pack.
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    pub(crate) active: Arc<Pack>,
    /// Bytes of the open pack.
    pub(crate) len: u64,
    /// Bytes after which the open pack is sealed.
    pub(crate) pack_bytes: u64,
    /// A failed append could not be taken back, or a sync failed.
    pub(crate) failed: bool,
    /// Runs that are being merged, a step with every append.
    pub(crate) merge: Option<Merge>,
    /// Whether the runs should be looked at for the next merge.
    pub(crate) merge_due: bool,
    /// How many records were in memory when the last try to write a run failed; 0 after one that did not.
    pub(crate) run_failed_at: u64,
}

impl Log {
    pub(crate) fn new(disk: Arc<dyn Disk>, active: Arc<Pack>, len: u64, pack_bytes: u64) -> Self {
        Self { disk, active, len, pack_bytes, failed: false, merge: None, merge_due: true, run_failed_at: 0 }
    }

    /// A builder for entries that [`Log::append`] takes next.
    pub(crate) fn builder(&self) -> Builder {
        Builder::new(self.active.key, self.len)
    }

    /// Appends what was built: all of it, or nothing.
    pub(crate) fn append(&mut self, built: &Builder) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        let end = self.len + built.bytes.len() as u64;
        if end > u64::from(u32::MAX) {
            return Err(StoreError::TooLarge(built.bytes.len() as u64));
        }
        if let Err(error) = self.active.file.append(&built.bytes) {
            if self.active.file.truncate(self.len).is_err() {
                self.failed = true;
            }
            return Err(write_error(error));
        }
        self.len = end;
        Ok(())
    }

    /// Whether the open pack should be sealed before more is written.
    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.pack_bytes && self.len > PACK_HEAD_BYTES
    }

    /// Seals the open pack and opens the next one. When the disk has no room for that, the
    /// pack stays open: it may grow beyond its size.
    pub(crate) fn roll(&mut self) -> Result<Arc<Pack>, StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        let next = self.active.number + 1;
        // The next pack comes first: once the seal is written, nothing may stand behind it.
        let pack = match Pack::create(&*self.disk, next) {
            Ok(pack) => Arc::new(pack),
            Err(error) => {
                let _ = self.disk.remove(&crate::pack::pack_name(next));
                return Err(write_error(error));
            }
        };
        let mut seal = self.builder();
        seal.push(&Entry::Seal);
        if let Err(error) = self.append(&seal) {
            let _ = self.disk.remove(&crate::pack::pack_name(next));
            return Err(error);
        }
        if let Err(error) = self.active.file.sync() {
            self.failed = true;
            return Err(write_error(error));
        }
        self.active = Arc::clone(&pack);
        self.len = PACK_HEAD_BYTES;
        Ok(pack)
    }
}
