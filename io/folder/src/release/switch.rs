//! One directory takes the place of another in one step.
//!
//! ```text
//! parent/NAME             what is installed
//! parent/.NAME.next       being unpacked; a crash leaves it, the next install discards it
//! parent/.NAME.previous   what was installed before
//! ```
//!
//! The step is the exchange of NAME and .NAME.next. A crash right behind it leaves the version before under `.next`: who
//! remembers the [`identity`] of what was unpacked, and of what stood there, knows both again and ends what was begun. What nobody
//! remembers is never removed: it is put aside as `.NAME.next-N`.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::ReleaseError;

/// What the name of the version before ends with; it begins with a dot.
pub const PREVIOUS_SUFFIX: &str = ".previous";
/// What the name of a version that is being unpacked ends with.
const NEXT_SUFFIX: &str = ".next";
/// Directories that are put aside beside a target, at most.
const ASIDE_MAX: u32 = 99;

/// What stands at a target before an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing, or an empty directory.
    Nothing,
    /// Something.
    Something,
}

/// What stands at a target. Changes nothing.
///
/// # Errors
/// [`ReleaseError`]: a target that is no directory.
pub fn look(target: &Path) -> Result<Installed, ReleaseError> {
    match fs::symlink_metadata(target) {
        Ok(stat) if stat.is_dir() => Ok(if is_empty(target)? { Installed::Nothing } else { Installed::Something }),
        Ok(_) => Err(ReleaseError::Occupied(target.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Installed::Nothing),
        Err(error) => Err(ReleaseError::io(target)(error)),
    }
}

/// Makes the empty directory that is unpacked into. Tells where something was put that stood there already: it is not known to be
/// of an install, so it is kept.
///
/// # Errors
/// [`ReleaseError`]: a target whose parent cannot be written.
pub fn begin(target: &Path) -> Result<(PathBuf, Option<PathBuf>), ReleaseError> {
    let next = beside(target, NEXT_SUFFIX)?;
    if let Some(parent) = next.parent() {
        fs::create_dir_all(parent).map_err(ReleaseError::io(parent))?;
    }
    // An empty one is nobody's loss.
    let aside = if fs::remove_dir(&next).is_ok() { None } else { put_aside(&next)? };
    fs::create_dir(&next).map_err(ReleaseError::io(&next))?;
    Ok((next, aside))
}

/// Removes what a crash left half unpacked beside a target, if it is the directory of this [`identity`].
pub fn discard(target: &Path, unpacked: u64) {
    if let Ok(next) = beside(target, NEXT_SUFFIX)
        && identity(&next).is_ok_and(|found| found == unpacked)
    {
        // What cannot be removed is put aside by the next that begins.
        let _ = fs::remove_dir_all(next);
    }
}

/// Where the version before stands.
///
/// # Errors
/// [`ReleaseError::Io`] for a target without a name.
pub fn previous_of(target: &Path) -> Result<PathBuf, ReleaseError> {
    beside(target, PREVIOUS_SUFFIX)
}

/// Puts `next` in the place of `target`; what stood there has the name of `next` from then on, until [`keep_previous`]. Whoever looks
/// sees the old directory or the new one, whole.
///
/// # Errors
/// [`ReleaseError`]; then the target is as it was.
pub fn switch(next: &Path, target: &Path) -> Result<(), ReleaseError> {
    match renameat_with(CWD, next, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOENT) => renameat_with(CWD, next, CWD, target, RenameFlags::NOREPLACE)
            .map_err(|error| ReleaseError::io(target)(error.into())),
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            Err(ReleaseError::NoExchange(target.to_owned()))
        }
        Err(error) => Err(ReleaseError::io(target)(error.into())),
    }
}

/// What tells a directory from every other beside it, whatever it is called: its inode. The number of its device may be another
/// after the machine started anew.
///
/// # Errors
/// [`ReleaseError::Io`].
pub fn identity(dir: &Path) -> Result<u64, ReleaseError> {
    fs::symlink_metadata(dir).map(|stat| stat.ino()).map_err(ReleaseError::io(dir))
}

/// Behind a [`switch`], what stood at the target becomes the version before, unless there is nothing in it; the one before that is
/// removed, and what of it cannot be removed stays aside as `.NAME.previous-N`. `was` is the [`identity`] of what stood there:
/// anything else is left alone.
///
/// # Errors
/// [`ReleaseError::Io`]; the target is the new version all the same.
pub fn keep_previous(target: &Path, was: Option<u64>) -> Result<(), ReleaseError> {
    let (next, previous) = (beside(target, NEXT_SUFFIX)?, previous_of(target)?);
    match identity(&next) {
        Ok(found) if was.is_none_or(|was| was == found) => {}
        _ => return Ok(()),
    }
    if is_empty(&next)? {
        return fs::remove_dir(&next).map_err(ReleaseError::io(&next));
    }
    let older = put_aside(&previous)?;
    fs::rename(&next, &previous).map_err(ReleaseError::io(&previous))?;
    sync(target)?;
    older.map_or(Ok(()), |older| fs::remove_dir_all(&older).map_err(ReleaseError::io(&older)))
}

/// Gives what stands at `path` another name beside it, and tells which, if anything stands there.
fn put_aside(path: &Path) -> Result<Option<PathBuf>, ReleaseError> {
    for number in 1..=ASIDE_MAX {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!("-{number}"));
        match renameat_with(CWD, path, CWD, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Some(aside.into())),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(ReleaseError::io(path)(error.into())),
        }
    }
    Err(ReleaseError::io(path)(io::ErrorKind::AlreadyExists.into()))
}

fn is_empty(dir: &Path) -> Result<bool, ReleaseError> {
    Ok(fs::read_dir(dir).map_err(ReleaseError::io(dir))?.next().is_none())
}

fn beside(target: &Path, suffix: &str) -> Result<PathBuf, ReleaseError> {
    let name = target.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| ReleaseError::io(target)(io::ErrorKind::InvalidFilename.into()))?;
    Ok(target.with_file_name(format!(".{name}{suffix}")))
}

/// The names at and beside a target are on the disk as they are now.
///
/// # Errors
/// [`ReleaseError::Io`].
pub fn sync(target: &Path) -> Result<(), ReleaseError> {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(ReleaseError::io(parent))
}
