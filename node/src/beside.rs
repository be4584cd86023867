//! Files that appear whole or not at all: written beside their place, and put there in the end.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::failpoint;

/// Bytes of a name that are part of the name beside it: together they are a name that every file system takes.
const NAME_BYTES: usize = 100;

/// A file that is not finished. It is gone when this is, unless it took its place.
pub(crate) struct Beside {
    path: PathBuf,
    place: PathBuf,
    /// Held, so that no other file gets its inode.
    file: File,
}

impl Beside {
    /// Begins a file of this mode. One that a process left that was killed is removed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn begin(place: &Path, mode: u32) -> io::Result<(Self, File)> {
        let name =
            place.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "that is no name for a file"))?;
        let name = name.to_string_lossy();
        let name = &name[..name.floor_char_boundary(NAME_BYTES)];
        let path = place.with_file_name(format!(".{name}.unfinished"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        Ok((Self { path, place: place.to_owned(), file: file.try_clone()? }, file))
    }

    /// As [`Beside::begin`], to take the place of what may stand there: where that is a link, of what it leads to. A file that stands
    /// there gives its mode.
    ///
    /// # Errors
    /// As [`Beside::begin`], and when something else than a file stands there.
    pub(crate) fn over(place: &Path, mode: u32) -> io::Result<(Self, File)> {
        let old = match fs::metadata(place) {
            Err(error) if error.kind() == ErrorKind::NotFound && place.symlink_metadata().is_err() => {
                return Self::begin(place, mode);
            }
            old => old?,
        };
        if !old.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "is there, and is no file"));
        }
        let (beside, file) = Self::begin(&fs::canonicalize(place)?, 0o600)?;
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
        Ok((beside, file))
    }

    /// Puts the file in its place, where nothing may stand.
    ///
    /// # Errors
    /// `AlreadyExists` when something stands there.
    pub(crate) fn place(self) -> io::Result<()> {
        self.check()?;
        // Unlike a rename a link never takes the place of a file that came in between.
        let linked = match failpoint::fails("hard_link") {
            true => Err(ErrorKind::PermissionDenied.into()),
            false => fs::hard_link(&self.path, &self.place),
        };
        match linked {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => rename_new(&self.path, &self.place),
            linked => linked,
        }
    }

    /// Puts the file in its place, whatever file stands there.
    ///
    /// # Errors
    /// As the disk reports.
    pub(crate) fn replace(self) -> io::Result<()> {
        self.check()?;
        fs::rename(&self.path, &self.place)
    }

    /// Whether this is still the file that was begun: another command may have been given the same place.
    fn check(&self) -> io::Result<()> {
        let (meta, ours) = (self.path.symlink_metadata()?, self.file.metadata()?);
        let is_ours = (meta.dev(), meta.ino()) == (ours.dev(), ours.ino());
        is_ours.then_some(()).ok_or_else(|| io::Error::other("somebody else writes it at the same time"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if self.check().is_ok() {
            let _ = fs::remove_file(&self.path);
        }
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// Renames, on a file system that has no links (vfat, exFAT), onto nothing that stands there.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // It knows no flags either: look first. The gap between is the best it offers.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => match to.symlink_metadata() {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        renamed => Ok(renamed?),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("x".repeat(255));
        let names = || fs::read_dir(dir.path()).unwrap().count();
        drop(Beside::begin(&place, 0o600).unwrap());
        assert_eq!(names(), 0);
        let put = |text: &str| {
            let (beside, mut file) = Beside::begin(&place, 0o600).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            beside.place().map_err(|error| error.kind())
        };
        assert_eq!((put("first"), put("second")), (Ok(()), Err(ErrorKind::AlreadyExists)));
        assert_eq!((fs::read_to_string(&place).unwrap().as_str(), names()), ("first", 1));
        // Where there are no links, nothing is taken the place of either.
        let (from, free) = (dir.path().join("from"), dir.path().join("free"));
        fs::write(&from, "third").unwrap();
        assert_eq!(rename_new(&from, &place).unwrap_err().kind(), ErrorKind::AlreadyExists);
        rename_new(&from, &free).unwrap();
        assert_eq!((fs::read_to_string(&place).unwrap().as_str(), names()), ("first", 2));
    }

    #[test]
    fn what_stands_there_stays_until_the_end_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        let (beside, mut file) = Beside::over(&link, 0o600).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "old");
        beside.replace().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "new");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o777, 0o640);
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert!(Beside::over(dir.path(), 0o600).is_err() && Beside::over(Path::new("/dev/null"), 0o600).is_err());
        // Two that write one file: the first has lost it, and says so.
        let (first, _) = Beside::begin(&real, 0o600).unwrap();
        let (second, _) = Beside::begin(&real, 0o600).unwrap();
        assert!(first.replace().is_err());
        second.replace().unwrap();
    }
}
