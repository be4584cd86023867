//! The seam between the store and a disk: a handful of calls over append-only files. Everything that can go wrong
//! with a disk goes wrong behind this trait, so tests can stage it (see [`crate::mem`]).

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::behind::WriteBehind;

/// A place with named files. Names are relative, with `/` between parts.
pub trait Disk: Debug + Send + Sync + 'static {
    /// Where this is, for messages.
    fn place(&self) -> String;
    /// Takes the place for this process until the guard is dropped; `None` when somebody else has it.
    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>>;
    /// The names of the files in a folder, sorted; empty when there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Makes a new, empty file and the folder it is in; an error when it exists. Its name is durable after
    /// [`Disk::sync_folder`].
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// 32 bytes that nobody can foresee.
    fn random(&self) -> io::Result<[u8; 32]>;
    /// The file that redb keeps the small facts in. `anew` empties it first, or makes it.
    fn facts(&self, anew: bool) -> io::Result<Box<dyn redb::StorageBackend>>;
    /// Bytes that this process may still write, as far as known.
    fn room(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

/// One append-only file. There is one writer; readers may read what was appended at any time.
pub trait DiskFile: Debug + Send + Sync {
    /// Writes at the end; after an error some of the bytes may be there.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;
    /// Fills `out` from `offset`.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    /// Bytes in the file.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Makes all that was appended durable.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Gives the room of `len` bytes from `offset` back to the disk; they read as zeros from now on, and the length of
    /// the file stays. Durable after [`DiskFile::sync`]. [`io::ErrorKind::Unsupported`] where files cannot have holes.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;
}

/// Name of the file with the small facts.
pub const FACTS_FILE: &str = "facts.redb";
const LOCK_FILE: &str = "lock";

/// A directory of the file system. Directories are made with mode 0700, files with 0600.
#[derive(Debug)]
pub struct FsDisk {
    root: PathBuf,
}

impl FsDisk {
    /// Uses `root`, which is made when it is not there.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn new(root: impl Into<PathBuf>) -> io::Result<Self> {
        let root = root.into();
        make_folder(&root)?;
        Ok(Self { root })
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Disk for FsDisk {
    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let path = self.root.join(LOCK_FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(name);
        if let Some(folder) = path.parent()
            && !folder.is_dir()
        {
            make_folder(folder)?;
            File::open(&self.root)?.sync_all()?;
        }
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(FsFile { file: WriteBehind::new(file, 0), len: AtomicU64::new(0), writing: Mutex::new(()) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.root.join(name))?;
        let len = file.metadata()?.len();
        let file = WriteBehind::new(file, len);
        Ok(Arc::new(FsFile { file, len: AtomicU64::new(len), writing: Mutex::new(()) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.root.join(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        File::open(self.root.join(folder))?.sync_all()
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        let mut out = [0; 32];
        getrandom::fill(&mut out).map_err(io::Error::other)?;
        Ok(out)
    }

    fn facts(&self, anew: bool) -> io::Result<Box<dyn redb::StorageBackend>> {
        let path = self.root.join(FACTS_FILE);
        let file = OpenOptions::new().read(true).write(true).create(anew).truncate(anew).mode(0o600).open(path)?;
        let backend = redb::backends::FileBackend::new(file).map_err(io::Error::other)?;
        Ok(Box::new(backend))
    }

    fn room(&self) -> io::Result<u64> {
        let told = rustix::fs::statvfs(&self.root)?;
        Ok(told.f_bavail.saturating_mul(told.f_frsize))
    }
}

#[derive(Debug)]
struct FsFile {
    file: WriteBehind,
    /// Where the next append goes. Kept here, not asked of the file: a failed append may have left bytes behind it.
    len: AtomicU64,
    writing: Mutex<()>,
}

impl DiskFile for FsFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let _writing = crate::guard(&self.writing);
        let at = self.len.load(Ordering::Acquire);
        self.file.file().write_all_at(bytes, at)?;
        let len = at + bytes.len() as u64;
        self.len.store(len, Ordering::Release);
        self.file.grew(len);
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.file().read_exact_at(out, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.file().metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _writing = crate::guard(&self.writing);
        self.file.file().set_len(len)?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(self.file.file(), flags, offset, len)?)
    }

    #[cfg(not(target_os = "linux"))]
    fn punch(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::os::fd::OwnedFd;

    use super::*;

    /// Nothing tells a file that was not synced from one that was, but that a pipe cannot be synced: whoever tries is told so.
    #[test]
    fn a_file_that_is_synced_goes_to_the_disk() {
        let (reader, _writer) = io::pipe().unwrap();
        let file = WriteBehind::new(File::from(OwnedFd::from(reader)), 0);
        let file = FsFile { file, len: AtomicU64::new(0), writing: Mutex::new(()) };
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    /// The same for a folder: those of this file system cannot be synced.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_folder_that_is_synced_goes_to_the_disk() {
        let disk = FsDisk { root: "/proc".into() };
        assert_eq!(disk.sync_folder("self").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
