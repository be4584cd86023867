//! Frames of a shared folder, ib `file`: one timeline per path. Spec: ibgib §12.7.

use crate::{Address, Object, Relations, Stamp, Verified};

/// The ib of every file frame.
pub const FILE_IB: &str = "file";
/// Bytes of a text as canonical JSON, at most, to stand inline in a frame.
pub const TEXT_JSON_BYTES_MAX: usize = 256 * 1024;

/// What a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A symbolic link, stored as a link.
    Symlink,
    /// A directory that was found empty.
    Dir,
}

/// The content of a live path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text that stands in the frame.
    Text(String),
    /// The target of a symbolic link.
    Target(String),
    /// The address of a binary record or manifest.
    Bin(Address),
    /// None: a directory, or a deletion.
    None,
}

/// One version of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFrame {
    /// UTF-8, `/` between names, ≤ 1 024 bytes, each name 1–255 bytes, no `.`, `..` or NUL.
    pub path: String,
    /// File, symlink or empty directory.
    pub kind: FileKind,
    /// Whether the file may be executed.
    pub exec: bool,
    /// Modification time, ms since 1970.
    pub mtime: i64,
    /// The node id (`stn1…`) that made the change.
    pub by: String,
    /// The content; `None` for directories and deletions.
    pub content: Content,
    /// Whether this frame says that the path is gone.
    pub deleted: bool,
    /// Only in a yield frame: the first frame of the timeline that owns the path.
    pub yielded: Option<Address>,
}

impl FileFrame {
    /// Reads a frame with ib `file` by the table of ibgib §12.7.
    ///
    /// # Errors
    /// [`FileFrameError`] with the member that breaks a rule.
    pub fn read(record: &Verified) -> Result<Self, FileFrameError> {
        let _ = record;
        todo!()
    }

    /// The members and relations for `genesis` or `evolve`.
    ///
    /// # Errors
    /// [`FileFrameError`] when a member breaks the table (a path over 1 024 bytes, for instance).
    pub fn parts(&self) -> Result<(Object, Relations), FileFrameError> {
        todo!()
    }

    /// Whether both frames hold the same kind, exec and content (path, mtime and by may differ).
    pub fn same_content(&self, other: &Self) -> bool {
        let _ = other;
        todo!()
    }

    /// Makes the first frame of a new path.
    ///
    /// # Errors
    /// As [`FileFrame::parts`].
    pub fn genesis(&self, stamp: Stamp, uuid: &str) -> Result<Verified, FileFrameError> {
        let _ = (stamp, uuid);
        todo!()
    }

    /// Makes the next frame of a path.
    ///
    /// # Errors
    /// As [`FileFrame::parts`].
    pub fn evolve(&self, prev: &Verified, stamp: Stamp) -> Result<Verified, FileFrameError> {
        let _ = (prev, stamp);
        todo!()
    }
}

/// The text of `bytes` when they may stand inline: valid UTF-8, no control characters but TAB, LF and CR,
/// at most [`TEXT_JSON_BYTES_MAX`] bytes as canonical JSON. Spec: ibgib §12.7.
pub fn inline_text(bytes: &[u8]) -> Option<&str> {
    let _ = bytes;
    todo!()
}

/// The clock-free yield frame that ends `loser` (the tip of the other timeline) in favour of the timeline that
/// begins with `owner_first`: every node computes the same address. Spec: ibgib §12.7.
///
/// # Errors
/// [`FileFrameError`] when `loser` is no live file frame.
pub fn yield_frame(loser: &Verified, owner_first: &Address) -> Result<Verified, FileFrameError> {
    let _ = (loser, owner_first);
    todo!()
}

/// A frame that breaks the table of ibgib §12.7.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file frame: {member} {problem}")]
pub struct FileFrameError {
    /// The member at fault, `data.path` for instance.
    pub member: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}
