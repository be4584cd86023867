//! What can go wrong, one enum per operation.

use std::io;

use sealtide_ibgib::{ChunkHash, Sid, TimelineId};
use sealtide_identity::SpaceId;
use sealtide_sync::{Misfit, SagaState};

use crate::run::Unreadable;

/// Bytes on disk that are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file} is damaged at byte {offset}: {what}")]
pub struct Damage {
    /// Name of the file below the store's directory.
    pub file: String,
    /// Where in the file.
    pub offset: u64,
    /// What does not fit.
    pub what: String,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {0} is in use by another process")]
    Locked(String),
    /// The place cannot be written to.
    #[error("the store in {place} cannot be written to: {source}")]
    ReadOnly {
        /// Where.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// Made by a newer version, or no store.
    #[error("{file} says `{found}`: not a store of this version")]
    Version {
        /// The format file.
        file: String,
        /// Its first line, at most 64 characters.
        found: String,
    },
    /// Committed bytes are missing or changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The file of the small facts cannot be used.
    #[error("{file} cannot be used: {what}")]
    Facts {
        /// Its name.
        file: &'static str,
        /// What redb says.
        what: String,
    },
    /// The disk reports an error.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with a store that is open. Reads leave out what they cannot read: until it is opened again, an answer that something is
/// not there may mean that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unhealthy {
    /// A run of the index is not what was written. Nothing more is written.
    #[error("a part of the index was damaged: open the store again, which makes it anew from the packs")]
    Index,
    /// An earlier write failed, so what is durable is unknown. Nothing more is written.
    #[error("an earlier write failed: look at the disk, then open the store again")]
    Write,
    /// A record or chunk of this pack could not be read. [`crate::Store::verify`] tells which.
    #[error("a record or chunk in pack {0} could not be read: look at the disk, and verify the store")]
    Pack(u32),
}

/// Why something was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No room on the disk: nothing was changed, the store goes on.
    #[error("no space left on the disk")]
    DiskFull,
    /// The disk reports an error; nothing was changed.
    #[error("the disk failed: {0}")]
    Io(#[from] io::Error),
    /// An earlier sync failed, so what is durable is unknown; or a run of the index is damaged. Nothing more is written
    /// until the store is opened again.
    #[error("an earlier write or read failed; the store must be opened again")]
    Failed,
    /// There is no such space here.
    #[error("there is no space {0}")]
    NoSpace(SpaceId),
    /// The saga is over, or belongs to another space.
    #[error("the saga cannot be used: it is {0:?}")]
    SagaEnded(SagaState),
    /// Bytes that do not have the hash they are stored under, or a length out of bounds.
    #[error("chunk {0} does not have its hash or length")]
    BadChunk(ChunkHash),
    /// The file system cannot give back the room of a part of a file.
    #[error("the file system of the store cannot free parts of files")]
    NoHoles,
    /// More bytes in one call than a pack can take.
    #[error("{0} bytes are too much for one write")]
    TooLarge(u64),
}

/// Why a commit did not happen; nothing of it is visible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A timeline moved since the committer looked, and the commit was strict.
    #[error("the tips of timeline {0} have moved")]
    TipMoved(TimelineId),
    /// A record to commit was not staged by this saga.
    #[error("record {0} was not staged")]
    NotStaged(Sid),
    /// A record to commit lists a chunk that is not stored here, or not any more.
    #[error("chunk {0} is not here")]
    NoChunk(ChunkHash),
    /// No peer would take the space with these records. The store does not look for it: whoever makes records does, before
    /// they are signed.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// As for other writes.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a space was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The record is not the first frame of a `space` timeline.
    #[error("{0} is not the first frame of a space")]
    NotSpace(String),
    /// It exists.
    #[error("space {0} exists")]
    Exists(SpaceId),
    /// As for other writes.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<Unreadable> for StoreError {
    fn from(_: Unreadable) -> Self {
        Self::Failed
    }
}

impl From<Unreadable> for CommitError {
    fn from(error: Unreadable) -> Self {
        Self::Store(error.into())
    }
}

impl From<StoreError> for CreateError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// Sorts an error of a write.
pub(crate) fn write_error(error: io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::DiskFull,
        _ => StoreError::Io(error),
    }
}
