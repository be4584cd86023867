//! The directory, reached only through descriptors: no step ever follows a symbolic link, so no path leads out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, Timespec, Timestamps};
use rustix::io::Errno;
use sealtide_ibgib::FileKind;

use crate::path::split;
use crate::stat::{Look, Stat};

/// An open directory tree.
pub(crate) struct Root {
    path: PathBuf,
    top: Arc<OwnedFd>,
    dirs: RefCell<HashMap<String, Arc<OwnedFd>>>,
    /// Acts as a file system that knows no flags of `renameat2`.
    pub(crate) plain_renames: bool,
    /// Acts as a file system that takes names of different case for one.
    pub(crate) one_case: bool,
}

impl Root {
    /// Opens the directory at `path`; the path itself may lead through links.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self {
            path: path.to_owned(),
            top: Arc::new(top),
            dirs: RefCell::default(),
            plain_renames: false,
            one_case: false,
        })
    }

    /// The same tree with its own memory of directories, for another thread.
    pub(crate) fn twin(&self) -> Self {
        let (path, top) = (self.path.clone(), Arc::clone(&self.top));
        Self { path, top, dirs: RefCell::default(), plain_renames: self.plain_renames, one_case: self.one_case }
    }

    /// Forgets open directories: some may have been moved or removed.
    pub(crate) fn refresh(&self) {
        self.dirs.borrow_mut().clear();
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn top(&self) -> &OwnedFd {
        &self.top
    }

    /// The (file system, inode) of the open directory.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        identity_of(look_fd(&*self.top)?)
    }

    /// When the open directory was made, ns since 1970; 0 where the file system does not keep it.
    pub(crate) fn born_ns(&self) -> io::Result<i64> {
        Ok(look_fd(&*self.top)?.stat().map_or(0, |stat| stat.born_ns))
    }

    /// The file system of a directory in the tree; none when it is no directory.
    pub(crate) fn dev_of(&self, path: &str) -> io::Result<Option<u64>> {
        if path.is_empty() {
            return self.identity().map(|(dev, _)| Some(dev));
        }
        let stat = self.look(path)?.stat();
        Ok(stat.filter(|stat| stat.kind == FileKind::Dir).map(|stat| stat.dev))
    }

    /// Whether something is mounted at a directory in the tree; none when it is no directory.
    pub(crate) fn is_mount(&self, path: &str) -> io::Result<Option<bool>> {
        let Some(here) = self.dev_of(path)? else { return Ok(None) };
        let above = self.dev_of(split(path).0)?;
        Ok(Some(above != Some(here) || is_mount_root(&*self.dir(path)?)?))
    }

    /// Whether the path still names the open directory.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        let now = match rustix::fs::statx(rustix::fs::CWD, &self.path, AtFlags::empty(), WANTED) {
            Ok(raw) => Look::of(&raw),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            Err(problem) => return Err(problem.into()),
        };
        Ok(identity_of(now).ok() == self.identity().ok())
    }

    /// An open directory of the tree; the empty path is the top.
    pub(crate) fn dir(&self, path: &str) -> io::Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(Arc::clone(&self.top));
        }
        if let Some(known) = self.dirs.borrow().get(path) {
            return Ok(Arc::clone(known));
        }
        let (above, name) = split(path);
        let above = self.dir(above)?;
        let opened = Arc::new(open_dir(&*above, &*self.answering(&above, name))?);
        let mut dirs = self.dirs.borrow_mut();
        if dirs.len() >= OPEN_DIRS_MAX {
            dirs.clear();
        }
        dirs.insert(path.to_owned(), Arc::clone(&opened));
        Ok(opened)
    }

    /// Looks at a path without following links.
    pub(crate) fn look(&self, path: &str) -> io::Result<Look> {
        let (dir, name) = split(path);
        match self.dir(dir) {
            Ok(dir) => look_at(&*dir, &*self.answering(&dir, name)),
            Err(problem) if is_no_way(&problem) => Ok(Look::Nothing),
            Err(problem) => Err(problem),
        }
    }

    /// The name in a directory that answers to another.
    fn answering<'n>(&self, dir: &OwnedFd, name: &'n str) -> Cow<'n, str> {
        let names = if self.one_case { entries(dir).unwrap_or_default() } else { Vec::new() };
        let mut names = names.into_iter().filter_map(|(name, _)| name.into_string().ok());
        names.find(|other| other.to_lowercase() == name.to_lowercase()).map_or(Cow::Borrowed(name), Cow::Owned)
    }

    /// Opens a regular file for reading. A pipe that was put there meanwhile does not block.
    pub(crate) fn open_file(&self, path: &str) -> io::Result<File> {
        let (dir, name) = split(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.dir(dir)?, name, flags, Mode::empty())?.into())
    }

    /// Makes a file that did not exist.
    pub(crate) fn create_file(&self, path: &str, mode: u32) -> io::Result<File> {
        let (dir, name) = split(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&*self.dir(dir)?, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    pub(crate) fn make_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = split(path);
        let dir = self.dir(dir)?;
        Ok(rustix::fs::mkdirat(&*dir, &*self.answering(&dir, name), Mode::from_raw_mode(0o777))?)
    }

    /// Makes the directories above `path` that are missing.
    pub(crate) fn make_parents(&self, path: &str) -> io::Result<()> {
        let (dir, _) = split(path);
        if dir.is_empty() || self.dir(dir).is_ok() {
            return Ok(());
        }
        self.make_parents(dir)?;
        match self.make_dir(dir) {
            Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    pub(crate) fn remove_dir(&self, path: &str) -> io::Result<()> {
        let (dir, name) = split(path);
        let dir = self.dir(dir)?;
        rustix::fs::unlinkat(&*dir, &*self.answering(&dir, name), AtFlags::REMOVEDIR)?;
        self.refresh();
        Ok(())
    }

    /// Removes a directory that holds nothing but empty directories.
    pub(crate) fn remove_empty_tree(&self, path: &str) -> io::Result<()> {
        for (name, _) in entries(&*self.dir(path)?)? {
            let name = name.into_string().map_err(|_| Errno::NOTEMPTY)?;
            let below = format!("{path}/{name}");
            match self.look(&below)? {
                Look::Seen(stat, _) if stat.kind == FileKind::Dir => self.remove_empty_tree(&below)?,
                Look::Nothing => {}
                _ => return Err(Errno::NOTEMPTY.into()),
            }
        }
        self.remove_dir(path)
    }

    pub(crate) fn remove_file(&self, path: &str) -> io::Result<()> {
        let (dir, name) = split(path);
        Ok(rustix::fs::unlinkat(&*self.dir(dir)?, name, AtFlags::empty())?)
    }

    pub(crate) fn make_link(&self, target: &str, path: &str) -> io::Result<()> {
        let (dir, name) = split(path);
        Ok(rustix::fs::symlinkat(target, &*self.dir(dir)?, name)?)
    }

    /// The target of a symbolic link, as bytes.
    pub(crate) fn read_link(&self, path: &str) -> io::Result<Vec<u8>> {
        let (dir, name) = split(path);
        Ok(rustix::fs::readlinkat(&*self.dir(dir)?, name, Vec::new())?.into_bytes())
    }

    /// Sets the modification time of a path itself, also of a link.
    pub(crate) fn set_mtime(&self, path: &str, mtime_ns: i64) -> io::Result<()> {
        let (dir, name) = split(path);
        Ok(rustix::fs::utimensat(&*self.dir(dir)?, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Makes a file executable or not, for all who may read it.
    pub(crate) fn set_exec(&self, path: &str, exec: bool) -> io::Result<()> {
        let file = self.open_file(path)?;
        match look_fd(&file)? {
            Look::Seen(stat, mode) if stat.kind == FileKind::File => {
                Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode_with_exec(mode, exec)))?)
            }
            _ => Err(Errno::INVAL.into()),
        }
    }

    /// Renames; refuses with `AlreadyExists` when something stands at `to`.
    pub(crate) fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        match self.rename_with(from, to, RenameFlags::NOREPLACE) {
            // The file system knows no flags: look first. The gap between is the best it offers.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match self.look(to)? {
                Look::Nothing => Ok(self.rename_with(from, to, RenameFlags::empty())?),
                _ => Err(Errno::EXIST.into()),
            },
            other => Ok(other?),
        }
    }

    /// Renames over whatever file stands at `to`.
    pub(crate) fn rename_over(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(self.rename_with(from, to, RenameFlags::empty())?)
    }

    /// Swaps two paths in one step; false where the file system cannot.
    pub(crate) fn exchange(&self, left: &str, right: &str) -> io::Result<bool> {
        match self.rename_with(left, right, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
            Err(problem) => Err(problem.into()),
        }
    }

    fn rename_with(&self, from: &str, to: &str, flags: RenameFlags) -> rustix::io::Result<()> {
        if self.plain_renames && !flags.is_empty() {
            return Err(Errno::INVAL);
        }
        let ((from_dir, from), (to_dir, to)) = (split(from), split(to));
        let errno = |problem: io::Error| Errno::from_io_error(&problem).unwrap_or(Errno::IO);
        let (from_dir, to_dir) = (self.dir(from_dir).map_err(errno)?, self.dir(to_dir).map_err(errno)?);
        rustix::fs::renameat_with(&*from_dir, from, &*to_dir, to, flags)
    }
}

/// Opens a directory below another one; a link is refused with `NOTDIR`.
pub(crate) fn open_dir(above: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(above, name, flags, Mode::empty())
}

/// The names in a directory with their kinds where the file system tells them, without `.` and `..`, sorted.
pub(crate) fn entries(dir: impl AsFd) -> io::Result<Vec<(std::ffi::CString, rustix::fs::FileType)>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    names.sort_unstable_by(|left, right| left.0.cmp(&right.0));
    Ok(names)
}

/// Looks at a name in an open directory without following links.
pub(crate) fn look_at(dir: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Look> {
    match rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, WANTED) {
        Ok(raw) => Ok(Look::of(&raw)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Look::Nothing),
        Err(problem) => Err(problem.into()),
    }
}

/// Looks at an open file.
pub(crate) fn look_fd(file: impl AsFd) -> io::Result<Look> {
    Ok(Look::of(&rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, WANTED)?))
}

/// Whether something is mounted at an open directory, as far as the system tells: it may be another place of the same file system.
pub(crate) fn is_mount_root(dir: impl AsFd) -> io::Result<bool> {
    let raw = rustix::fs::statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok((raw.stx_attributes & raw.stx_attributes_mask).contains(StatxAttributes::MOUNT_ROOT))
}

/// Sets permission bits and modification time of an open file.
pub(crate) fn finish_file(file: &File, mode: u32, mtime_ns: i64) -> io::Result<Stat> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    rustix::fs::futimens(file, &times(mtime_ns))?;
    look_fd(file)?.stat().ok_or_else(|| io::Error::other("a new file is no file"))
}

/// `mode` with the execute bits on wherever the read bits are, or with all of them off.
pub(crate) fn mode_with_exec(mode: u32, exec: bool) -> u32 {
    if exec { mode | (mode & 0o444) >> 2 } else { mode & !0o111 }
}

/// Whether a path cannot exist because something above it is missing or is no directory.
pub(crate) fn is_no_way(problem: &io::Error) -> bool {
    matches!(Errno::from_io_error(problem), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

fn identity_of(look: Look) -> io::Result<(u64, u64)> {
    look.stat().map(|stat| (stat.dev, stat.inode)).ok_or_else(|| Errno::NOTDIR.into())
}

fn times(mtime_ns: i64) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let (tv_sec, tv_nsec) = (mtime_ns.div_euclid(1_000_000_000), mtime_ns.rem_euclid(1_000_000_000));
    Timestamps { last_access: omit, last_modification: Timespec { tv_sec, tv_nsec } }
}

const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);
/// Directories kept open at once.
const OPEN_DIRS_MAX: usize = 128;
