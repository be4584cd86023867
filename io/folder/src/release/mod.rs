//! A directory and a release of it: pack, unpack, and the switch from one installed version to the next.
//! Spec: gateway §9.1, §9.5.
//!
//! ```text
//! directory ──pack──▶ tar (regular files only, in the order of their paths) ──zstd──▶ payload
//! payload ──unzstd──▶ tar ──unpack──▶ new directory beside the target ──switch──▶ target; what was there stays beside it
//! ```
//!
//! The tar of a list of files is one byte sequence: the headers are computed from the list, and unpacking compares instead
//! of parsing. So nothing that stands in a foreign tar can ask for anything.

mod list;
mod pack;
mod switch;
mod tape;
mod unpack;

pub use list::{Listed, list_files};
pub use pack::{Packed, pack};
pub use switch::{
    Installed, PREVIOUS_SUFFIX, begin, discard, identity, keep_previous, look, previous_of, switch, sync,
};
pub use unpack::{Plain, check, decompress, unpack};

pub(crate) use tape::{END, header, padding};

use std::io;
use std::path::PathBuf;

/// How far a pack or an unpack is: files and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleaseProgress {
    /// Files that are done.
    pub files: u64,
    /// Bytes of them, and of the one in hand.
    pub bytes: u64,
}

/// Why a release could not be packed, checked, unpacked or switched to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReleaseError {
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is neither a file nor a directory; a release has nothing else.
    #[error("{} is a {kind}; a release has files and directories only", path.display())]
    Kind {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A name that is not UTF-8.
    #[error("{} is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// A list that cannot be released.
    #[error("{0}")]
    Files(#[from] sealtide_releases::bundle::FilesRefused),
    /// A file that changed while it was packed.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// The payload is no zstd frame, or a broken one.
    #[error("the payload cannot be decompressed: {0}")]
    Compression(io::Error),
    /// The payload goes on after its end.
    #[error("something stands behind the payload")]
    Trailing,
    /// The tar is not the one of the list.
    #[error("the payload does not hold what the manifest lists: at {0}")]
    Tar(String),
    /// A file with other bytes than the manifest says.
    #[error("{0} is not the file that the manifest lists: its hash differs")]
    Hash(String),
    /// The target is something that was not put there by a release.
    #[error("{} exists, and no release put it there", .0.display())]
    Occupied(PathBuf),
    /// The file system cannot exchange two directories in one step.
    #[error("the file system of {} cannot exchange two directories in one step", .0.display())]
    NoExchange(PathBuf),
}

impl ReleaseError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
