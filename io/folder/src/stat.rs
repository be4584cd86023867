//! What the file system says about a path, and what is known to stand there.

use std::time::SystemTime;

use rustix::fs::{FileType, Statx, StatxTimestamp};
use sealtide_ibgib::{FileKind, Sid, TimelineId};

/// The facts that tell, without reading, whether a path was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// File, symbolic link or directory.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, ns since 1970.
    pub mtime_ns: i64,
    /// Last change of the content or of the inode, ns since 1970.
    pub ctime_ns: i64,
    /// Birth of the inode, ns since 1970; 0 where the file system does not keep it.
    pub born_ns: i64,
    /// Number of the inode.
    pub inode: u64,
    /// Number of the file system.
    pub dev: u64,
    /// Whether the owner may execute the file.
    pub exec: bool,
    /// Looked at so soon after the last change that a further change could carry the same times: such an entry is
    /// read again by the next scan.
    pub racy: bool,
}

impl Stat {
    /// Whether `later` shows the same untouched thing.
    pub fn is_same(&self, later: &Self) -> bool {
        self.ctime_ns == later.ctime_ns && self.is_same_but_moved(later)
    }

    /// Whether `later` shows the same thing, perhaps under another name: a rename moves the ctime.
    pub(crate) fn is_same_but_moved(&self, later: &Self) -> bool {
        if self.kind == FileKind::Dir {
            return later.kind == FileKind::Dir;
        }
        self.is_same_inode(later)
            && self.size == later.size
            && self.mtime_ns == later.mtime_ns
            && self.exec == later.exec
    }

    /// Whether both are the same inode of the same kind.
    pub(crate) fn is_same_inode(&self, other: &Self) -> bool {
        self.kind == other.kind && self.inode == other.inode && self.dev == other.dev
    }

    /// Modification time, ms since 1970, rounded down.
    pub fn mtime_ms(&self) -> i64 {
        self.mtime_ns.div_euclid(NS_PER_MS)
    }

    /// Marks the stat when `now` is so near to the last change that another could hide behind the same ctime.
    pub(crate) fn observed(mut self, now: SystemTime) -> Self {
        let now_ns = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let settled_ns = i128::from(self.ctime_ns) + i128::from(RACY_NS);
        self.racy = self.kind != FileKind::Dir && i128::try_from(now_ns).unwrap_or(i128::MAX) < settled_ns;
        self
    }
}

/// What stands at a path: a tip of a timeline, as it was when it was recorded or checked out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The timeline that owns the path here.
    pub timeline: TimelineId,
    /// The tip of it that stands here.
    pub sid: Sid,
    /// How the path looked then.
    pub stat: Stat,
    /// BLAKE3-256 of the bytes of a file or of the target of a link; zeros for a directory.
    pub content: [u8; 32],
}

/// A look at one path, never through a symbolic link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// Nothing there, or no directory above it.
    Nothing,
    /// A file, link or directory, and its permission bits.
    Seen(Stat, u32),
    /// A device, socket or pipe.
    Special,
}

impl Look {
    pub(crate) fn of(raw: &Statx) -> Self {
        let mode = u32::from(raw.stx_mode);
        let kind = match FileType::from_raw_mode(mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Symlink => FileKind::Symlink,
            FileType::Directory => FileKind::Dir,
            _ => return Self::Special,
        };
        let stat = Stat {
            kind,
            size: if kind == FileKind::Dir { 0 } else { raw.stx_size },
            mtime_ns: ns(&raw.stx_mtime),
            ctime_ns: ns(&raw.stx_ctime),
            born_ns: ns(&raw.stx_btime),
            inode: raw.stx_ino,
            dev: u64::from(raw.stx_dev_major) << 32 | u64::from(raw.stx_dev_minor),
            exec: kind == FileKind::File && mode & 0o100 != 0,
            racy: false,
        };
        Self::Seen(stat, mode & 0o7777)
    }

    pub(crate) fn stat(&self) -> Option<Stat> {
        match self {
            Self::Seen(stat, _) => Some(*stat),
            Self::Nothing | Self::Special => None,
        }
    }
}

fn ns(time: &StatxTimestamp) -> i64 {
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
}

/// Nanoseconds of a foreign time in ms, drawn into the range that file systems and `i64` can hold (1970 to 2255).
pub(crate) fn mtime_ns_of(mtime_ms: i64) -> i64 {
    mtime_ms.clamp(0, 9_000_000_000_000) * NS_PER_MS
}

const NS_PER_MS: i64 = 1_000_000;
/// Older kernels stamp inodes once per tick, 10 ms at most; doubled.
const RACY_NS: i64 = 20_000_000;
