//! Writes the content of one item, and remembers what must reach the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sealtide_crypto::blake3;
use sealtide_ibgib::{Content, FileKind, Manifest};

use crate::hands::{Fail, HALF_WRITTEN, Hands};
use crate::path::split;
use crate::root::{Root, finish_file, is_no_way, look_fd, mode_with_exec};
use crate::{Binary, ContentSource, FolderError, SkipReason, Stat};

/// A content that is ready to be written.
pub(crate) enum Ready {
    Bytes(Bytes),
    Chunks(Manifest),
    Target(String),
}

impl Ready {
    pub(crate) fn load(content: &Content, source: &dyn ContentSource) -> Result<Self, Fail> {
        Ok(match content {
            Content::Text(text) => Self::Bytes(Bytes::copy_from_slice(text.as_bytes())),
            Content::Target(target) => Self::Target(target.clone()),
            Content::Bin(address) => match source.binary(address).map_err(unloadable)? {
                Binary::Bytes(bytes) => Self::Bytes(bytes),
                Binary::Chunks(manifest) => Self::Chunks(manifest),
            },
            Content::None => return Err(Fail::Skip(SkipReason::Content("there is none".to_owned()))),
        })
    }

    pub(crate) fn kind(&self) -> FileKind {
        match self {
            Self::Bytes(_) | Self::Chunks(_) => FileKind::File,
            Self::Target(_) => FileKind::Symlink,
        }
    }

    /// BLAKE3-256, as in [`crate::Placed`].
    pub(crate) fn hash(&self) -> [u8; 32] {
        match self {
            Self::Bytes(bytes) => blake3(bytes),
            Self::Chunks(manifest) => manifest.hash,
            Self::Target(target) => blake3(target.as_bytes()),
        }
    }
}

fn unloadable(problem: io::Error) -> Fail {
    Fail::Skip(SkipReason::Content(problem.to_string()))
}

/// What was written and is not on disk yet.
#[derive(Default)]
pub(crate) struct Unsynced {
    files: Vec<File>,
    files_count: usize,
    dirs: BTreeSet<String>,
    devs: BTreeMap<u64, String>,
    /// Bytes written.
    pub(crate) bytes: u64,
}

impl Unsynced {
    fn add(&mut self, path: &str, file: Option<File>, stat: &Stat) {
        self.files_count += usize::from(file.is_some());
        if self.files.len() < SYNC_SINGLY_MAX {
            self.files.extend(file);
        }
        self.touch(path, stat.dev);
    }

    /// Notes that the directory of `path` was changed.
    pub(crate) fn touch(&mut self, path: &str, dev: u64) {
        let (dir, _) = split(path);
        if self.dirs.len() <= SYNC_SINGLY_MAX && !self.dirs.contains(dir) {
            self.dirs.insert(dir.to_owned());
        }
        self.devs.entry(dev).or_insert_with(|| dir.to_owned());
    }

    /// Brings everything to disk: few files one by one, many by one sync of their file system.
    pub(crate) fn sync(self, root: &Root) -> Result<(), FolderError> {
        let sync = || -> io::Result<()> {
            if self.files_count <= SYNC_SINGLY_MAX && self.dirs.len() <= SYNC_SINGLY_MAX {
                self.files.iter().try_for_each(rustix::fs::fsync)?;
                return self.dirs.iter().try_for_each(|dir| Ok(rustix::fs::fsync(&*nearest(root, dir)?)?));
            }
            self.devs.values().try_for_each(|dir| Ok(rustix::fs::syncfs(&*nearest(root, dir)?)?))
        };
        sync().map_err(|source| FolderError::Sync { source })
    }
}

/// The directory, or when it is gone the nearest one above it: then that is what changed.
fn nearest(root: &Root, dir: &str) -> io::Result<Arc<OwnedFd>> {
    match root.dir(dir) {
        Err(problem) if is_no_way(&problem) && !dir.is_empty() => nearest(root, split(dir).0),
        other => other,
    }
}

impl Hands<'_> {
    /// Makes `at` with a content, permission bits and time. The last thing it does is to give the file its own bits.
    pub(crate) fn write(
        &mut self,
        at: &str,
        ready: &Ready,
        mode: u32,
        mtime_ns: i64,
        source: &dyn ContentSource,
        unsynced: &mut Unsynced,
    ) -> Result<Stat, Fail> {
        self.step("create")?;
        if let Ready::Target(target) = ready {
            self.root.make_link(target, at).map_err(|problem| occupied(problem, at))?;
            self.step("link_made")?;
            self.root.set_mtime(at, mtime_ns)?;
            let stat = self.root.look(at)?.stat().ok_or_else(|| Fail::Dirty(at.to_owned()))?;
            unsynced.add(at, None, &stat);
            return Ok(stat);
        }
        let mut file = self.root.create_file(at, HALF_WRITTEN).map_err(|problem| occupied(problem, at))?;
        let filled = self.fill(&mut file, ready, source, unsynced);
        match filled.and_then(|()| Ok(finish_file(&file, mode, mtime_ns)?)) {
            Ok(stat) => {
                unsynced.add(at, Some(file), &stat);
                Ok(stat)
            }
            Err(Fail::Stopped) => Err(Fail::Stopped),
            // Half a file must not stay, and by its permission bits not every file system tells it from a whole one.
            Err(fail) => {
                self.remove_own(at, &file)?;
                Err(fail)
            }
        }
    }

    fn fill(
        &mut self,
        file: &mut File,
        ready: &Ready,
        source: &dyn ContentSource,
        unsynced: &mut Unsynced,
    ) -> Result<(), Fail> {
        self.step("write")?;
        match ready {
            Ready::Target(_) => {}
            Ready::Bytes(bytes) => {
                file.write_all(bytes)?;
                unsynced.bytes += bytes.len() as u64;
            }
            Ready::Chunks(manifest) => self.write_chunks(file, manifest, source, unsynced)?,
        }
        self.step("finish")
    }

    /// Removes an open file where it still stands at a path.
    fn remove_own(&self, at: &str, file: &File) -> io::Result<()> {
        let (own, seen) = (look_fd(file)?.stat(), self.root.look(at)?.stat());
        match own.zip(seen) {
            Some((own, seen)) if own.is_same_inode(&seen) => self.root.remove_file(at),
            _ => Ok(()),
        }
    }

    /// Writes a chunk while the next ones are loaded and checked by a thread.
    fn write_chunks(
        &mut self,
        file: &mut File,
        manifest: &Manifest,
        source: &dyn ContentSource,
        unsynced: &mut Unsynced,
    ) -> Result<(), Fail> {
        let (loaded, chunks) = sync_channel(CHUNKS_AHEAD);
        std::thread::scope(|scope| {
            // The channel lives as long as this closure, so that the thread ends when the writing stops.
            let chunks = chunks;
            scope.spawn(move || {
                for chunk in &manifest.chunks {
                    let bytes = source.chunk(&chunk.hash);
                    let is_last = bytes.is_err();
                    if loaded.send(bytes).is_err() || is_last {
                        break;
                    }
                }
            });
            for chunk in &manifest.chunks {
                let bytes =
                    chunks.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(unloadable)?;
                if bytes.len() as u64 != u64::from(chunk.length) {
                    let problem = format!("chunk {} has {} bytes, not {}", chunk.hash, bytes.len(), chunk.length);
                    return Err(Fail::Skip(SkipReason::Content(problem)));
                }
                self.step("chunk")?;
                file.write_all(&bytes)?;
                unsynced.bytes += bytes.len() as u64;
            }
            Ok(())
        })
    }
}

fn occupied(problem: io::Error, path: &str) -> Fail {
    match problem.kind() {
        io::ErrorKind::AlreadyExists => Fail::Dirty(path.to_owned()),
        _ => problem.into(),
    }
}

/// The bits that this process gives to a new file.
pub(crate) fn mode_of_new(exec: bool) -> u32 {
    mode_with_exec(0o666 & !umask(), exec)
}

/// The file mode creation mask, as it was when first asked for. Reading it by the system call would mean to change it for a
/// moment, for all threads.
fn umask() -> u32 {
    static UMASK: OnceLock<u32> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o022)
    })
}

/// Chunks that wait to be written, at most.
const CHUNKS_AHEAD: usize = 2;
/// Files or directories up to which each is synced by itself.
const SYNC_SINGLY_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Nothing tells what was not synced from what was, but that a pipe, and a directory of such a file system, cannot be synced: whoever
    /// tries is told so.
    #[test]
    fn what_was_written_goes_to_the_disk() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        let pipe = || vec![File::from(OwnedFd::from(reader.try_clone().expect("another")))];
        let place = tempfile::tempdir().expect("a directory");
        let root = Root::open(place.path()).expect("it is there");
        let synced = |unsynced: Unsynced, root: &Root| matches!(unsynced.sync(root), Ok(()));
        let top = || BTreeSet::from([String::new()]);
        assert!(synced(Unsynced { dirs: top(), ..Unsynced::default() }, &root));
        assert!(!synced(Unsynced { files: pipe(), files_count: 1, ..Unsynced::default() }, &root), "a file");
        if cfg!(target_os = "linux") {
            let root = Root::open(Path::new("/proc/self")).expect("it is there");
            assert!(!synced(Unsynced { dirs: top(), ..Unsynced::default() }, &root), "a directory");
        }
    }
}
