//! What the journal of a check-out says: every step of a batch, written before the first of them is taken.

use minicbor::{Decode, Encode};
use sealtide_ibgib::FileKind;

use crate::Stat;

/// The journal while a batch is under way.
#[derive(Debug, Encode, Decode)]
pub(crate) enum Journal {
    /// Steps of a batch may have been taken: after a crash all are taken back, last first.
    #[n(0)]
    Doing(#[n(0)] Vec<Step>),
    /// The batch stands and is in the cache: after a crash what was put aside is removed.
    #[n(1)]
    Sweeping(#[n(0)] Vec<Step>),
}

/// One step of a batch, with all that is needed to take it back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) enum Step {
    /// Makes a directory that was missing, for something below it or for its own sake.
    #[n(0)]
    MakeDir {
        #[n(0)]
        path: String,
    },
    /// Makes a file or link as `temp`, then gives it its name; older versions made it under that from the start.
    #[n(1)]
    Create {
        #[n(0)]
        path: String,
        #[n(1)]
        new: New,
        #[n(2)]
        temp: Option<String>,
    },
    /// Makes a file or link as `temp`, then swaps it with what stands at `path`.
    #[n(2)]
    Replace {
        #[n(0)]
        path: String,
        #[n(1)]
        temp: String,
        #[n(2)]
        new: New,
        #[n(3)]
        old: Old,
    },
    /// Puts a file or link aside, to remove it or to place it elsewhere.
    #[n(3)]
    Lift {
        #[n(0)]
        path: String,
        #[n(1)]
        temp: String,
        #[n(2)]
        old: Old,
    },
    /// Places what was lifted.
    #[n(4)]
    Place {
        #[n(0)]
        temp: String,
        #[n(1)]
        path: String,
        #[n(2)]
        old: Old,
    },
    /// Renames in one step, where nothing stands in the way.
    #[n(5)]
    Rename {
        #[n(0)]
        from: String,
        #[n(1)]
        to: String,
        #[n(2)]
        old: Old,
    },
    /// Removes a directory that holds nothing but empty directories; `kept` when a placement stood for it.
    #[n(6)]
    RemoveDir {
        #[n(0)]
        path: String,
        #[n(1)]
        kept: bool,
    },
    /// Leaves a directory that stood for itself: the sweep removes it when nothing is in it then.
    #[n(8)]
    LeaveDir {
        #[n(0)]
        path: String,
    },
    /// Makes a file executable or not, which it was not before.
    #[n(7)]
    SetExec {
        #[n(0)]
        path: String,
        #[n(1)]
        exec: bool,
        #[n(2)]
        old: Old,
    },
}

/// How to know something that a batch made: see `Hands::is_ours`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct New {
    /// The modification time that the finished file carries.
    #[n(0)]
    pub(crate) mtime_ns: i64,
    /// BLAKE3-256 of the target of a link; `None` for a file.
    #[n(1)]
    pub(crate) link: Option<[u8; 32]>,
    /// Whether the file may be executed.
    #[n(2)]
    pub(crate) exec: bool,
}

/// What stood at a path before, as the cache knew it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Old {
    #[n(0)]
    is_link: bool,
    #[n(1)]
    size: u64,
    #[n(2)]
    mtime_ns: i64,
    #[n(3)]
    inode: u64,
    #[n(4)]
    dev: u64,
    #[n(5)]
    exec: bool,
    #[n(6)]
    born_ns: i64,
}

impl Old {
    /// Takes the facts of a file or link.
    pub(crate) fn of(stat: &Stat) -> Self {
        let Stat { kind, size, mtime_ns, inode, dev, exec, born_ns, .. } = *stat;
        Self { is_link: kind == FileKind::Symlink, size, mtime_ns, inode, dev, exec, born_ns }
    }

    /// Whether `stat` shows this very inode, changed or not. The birth tells it from one that got the number when
    /// this one was gone.
    pub(crate) fn is_inode(&self, stat: &Stat) -> bool {
        stat.kind == self.kind() && stat.inode == self.inode && stat.dev == self.dev && stat.born_ns == self.born_ns
    }

    /// Whether the file could be executed.
    pub(crate) fn exec(&self) -> bool {
        self.exec
    }

    /// Whether `stat` shows this very inode, unchanged but perhaps renamed.
    pub(crate) fn is_unchanged(&self, stat: &Stat) -> bool {
        self.is_inode(stat) && stat.size == self.size && stat.mtime_ns == self.mtime_ns && stat.exec == self.exec
    }

    fn kind(&self) -> FileKind {
        if self.is_link { FileKind::Symlink } else { FileKind::File }
    }
}
