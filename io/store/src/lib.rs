//! The embedded store: records, tips and chunks in append-only packs, small facts in redb. Spec: `spec/store.md`.
//!
//! The log is the truth. Records and chunks are appended, then a commit entry makes a transaction visible with one
//! sync; a record without a commit entry behind it does not exist. The index is rebuilt from the log: in memory for the
//! open pack, in sorted runs on disk for the sealed ones.
//!
//! * [`Store`] opens a home, stages, commits and tells subscribers;
//! * [`SpaceHandle`] reads one space and is the [`sealtide_sync::SpaceView`] of a saga;
//! * [`Facts`] are peers, grants, invites, settings and local names;
//! * [`Disk`] is the seam below, [`mem::MemDisk`] a disk that can fail and crash;
//! * [`conformance`] is the list of promises that every backend must pass.

mod behind;
mod cache;
mod collect;
mod compress;
pub mod conformance;
mod disk;
mod draft;
mod durable;
mod entropy;
mod entry;
mod erase;
mod error;
mod facts;
mod filter;
mod handle;
mod index;
mod log;
pub mod mem;
mod merge;
mod moving;
mod open;
mod pack;
mod plan;
mod run;
mod runs;
mod seal;
mod snapshot;
mod space;
mod staged;
mod state;
mod store;
mod table;
mod tips;
mod verify;

pub use collect::{Collected, Collecting, GivenUp};
pub use disk::{Disk, DiskFile, FACTS_FILE, FsDisk};
pub use entropy::OsEntropy;
pub use error::{CommitError, CreateError, Damage, OpenError, StoreError, Unhealthy};
pub use facts::{EnrolError, Facts, FactsError, Peer, SpaceLabel};
pub use handle::{SpaceHandle, SpaceInfo, TimelineInfo};
pub use snapshot::{Snapshot, SnapshotPack};
pub use staged::StagedSaga;
pub use store::{Config, Event, Store, Underway};
pub use verify::VerifyReport;

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Locks; a panic of another holder does not spread: what is shared here is changed in steps that cannot panic.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
