//! One directory takes the place of another in one step.
//!
//! ```text
//! parent/NAME             what is installed
//! parent/.NAME.next       being unpacked; a crash leaves it, the next install begins it anew
//! parent/.NAME.previous   what was installed before
//! ```
//!
//! The step is the exchange of NAME and .NAME.next. A crash right behind it leaves the version before under `.next`: who
//! remembers the [`identity`] of what was unpacked knows it again, and [`settle`] ends what was begun.

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

/// What stands at a target before an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// Nothing, or an empty directory.
    Nothing,
    /// Something.
    Something,
}

/// Makes the empty directory that is unpacked into, and tells what stands at the target.
///
/// # Errors
/// [`ReleaseError`]: a target that is no directory, or whose parent cannot be written.
pub fn begin(target: &Path) -> Result<(PathBuf, Installed), ReleaseError> {
    let next = beside(target, NEXT_SUFFIX)?;
    let installed = match fs::symlink_metadata(target) {
        Ok(stat) if stat.is_dir() => {
            let is_empty = fs::read_dir(target).map_err(ReleaseError::io(target))?.next().is_none();
            if is_empty { Installed::Nothing } else { Installed::Something }
        }
        Ok(_) => return Err(ReleaseError::Occupied(target.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Installed::Nothing,
        Err(error) => return Err(ReleaseError::io(target)(error)),
    };
    remove(&next)?;
    if let Some(parent) = next.parent() {
        fs::create_dir_all(parent).map_err(ReleaseError::io(parent))?;
    }
    fs::create_dir(&next).map_err(ReleaseError::io(&next))?;
    Ok((next, installed))
}

/// Where the version before stands.
///
/// # Errors
/// [`ReleaseError::Io`] for a target without a name.
pub fn previous_of(target: &Path) -> Result<PathBuf, ReleaseError> {
    beside(target, PREVIOUS_SUFFIX)
}

/// Puts `next` in the place of `target`; what stood there becomes the version before, and the one before that is removed.
/// Whoever looks sees the old directory or the new one, whole.
///
/// # Errors
/// [`ReleaseError`]; then the target is as it was, or is the new version already.
pub fn switch(next: &Path, target: &Path) -> Result<(), ReleaseError> {
    let previous = previous_of(target)?;
    match renameat_with(CWD, next, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => {
            sync_parent(target)?;
            // `next` holds what was installed now.
            keep_previous(next, &previous)?;
        }
        Err(rustix::io::Errno::NOENT) => {
            match renameat_with(CWD, next, CWD, target, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(error) => return Err(ReleaseError::io(target)(error.into())),
            };
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::OPNOTSUPP) => {
            return Err(ReleaseError::NoExchange(target.to_owned()));
        }
        Err(error) => return Err(ReleaseError::io(target)(error.into())),
    }
    sync_parent(target)
}

/// What tells a directory from every other on this machine, whatever it is called: its device and inode.
///
/// # Errors
/// [`ReleaseError::Io`].
pub fn identity(dir: &Path) -> Result<(u64, u64), ReleaseError> {
    let stat = fs::symlink_metadata(dir).map_err(ReleaseError::io(dir))?;
    Ok((stat.dev(), stat.ino()))
}

/// Ends a [`switch`] that a crash cut off: whether the directory of this [`identity`] is what stands at `target`. Then what stood there
/// before is the version before.
///
/// # Errors
/// [`ReleaseError::Io`].
pub fn settle(target: &Path, unpacked: (u64, u64)) -> Result<bool, ReleaseError> {
    match identity(target) {
        Ok(found) if found == unpacked => {}
        _ => return Ok(false),
    }
    let next = beside(target, NEXT_SUFFIX)?;
    if next.is_dir() {
        keep_previous(&next, &previous_of(target)?)?;
    }
    sync_parent(target)?;
    Ok(true)
}

/// What stood at the target, `next` by now, becomes the version before, unless there is nothing in it.
fn keep_previous(next: &Path, previous: &Path) -> Result<(), ReleaseError> {
    let was_empty = fs::read_dir(next).map_err(ReleaseError::io(next))?.next().is_none();
    if was_empty {
        return remove(next);
    }
    remove(previous)?;
    fs::rename(next, previous).map_err(ReleaseError::io(previous))
}

fn beside(target: &Path, suffix: &str) -> Result<PathBuf, ReleaseError> {
    let name = target.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| ReleaseError::io(target)(io::ErrorKind::InvalidFilename.into()))?;
    Ok(target.with_file_name(format!(".{name}{suffix}")))
}

fn remove(dir: &Path) -> Result<(), ReleaseError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ReleaseError::io(dir)(error)),
        _ => Ok(()),
    }
}

fn sync_parent(target: &Path) -> Result<(), ReleaseError> {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(ReleaseError::io(parent))
}
