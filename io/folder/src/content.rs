//! Reads one path: what it holds, in the form in which it is recorded.

use std::io::{self, Read};
use std::time::SystemTime;

use bytes::Bytes;
use sealtide_crypto::{Blake3, blake3};
use sealtide_ibgib::{BIN_INLINE_BYTES_MAX, CutChunk, FileKind, Manifest, inline_text};

use crate::root::{Root, is_no_way, look_fd};
use crate::{SkipReason, Stat};

/// What a scan found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A regular file.
    File {
        /// Its bytes, or where they went.
        content: FoundContent,
        /// Whether the owner may execute it.
        exec: bool,
        /// Modification time, ms since 1970.
        mtime_ms: i64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points, as written.
        target: String,
        /// Modification time of the link itself, ms since 1970.
        mtime_ms: i64,
    },
    /// A directory with nothing in it.
    Dir {
        /// Modification time, ms since 1970.
        mtime_ms: i64,
    },
    /// Nothing any more.
    Gone,
}

/// The bytes of a file, sorted by how they are recorded. Spec: ibgib §12.7, §15.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundContent {
    /// Text that stands in the frame.
    Text(String),
    /// A binary of one record, at most [`BIN_INLINE_BYTES_MAX`] bytes.
    Small(Bytes),
    /// A binary of chunks; they were handed to `keep` while the file was read.
    Large(Manifest),
}

impl Found {
    /// Bytes that this value holds in memory, roughly.
    pub(crate) fn bytes_held(&self) -> usize {
        match self {
            Self::File { content: FoundContent::Text(text), .. } => text.len(),
            Self::File { content: FoundContent::Small(bytes), .. } => bytes.len(),
            Self::File { content: FoundContent::Large(manifest), .. } => manifest.chunks.len() * 40,
            Self::Symlink { target, .. } => target.len(),
            Self::Dir { .. } | Self::Gone => 0,
        }
    }
}

/// A path that was read, unchanged from before to after.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) found: Found,
    pub(crate) content: [u8; 32],
    pub(crate) stat: Stat,
}

/// Why a path could not be read.
#[derive(Debug)]
pub(crate) enum ReadProblem {
    Skip(SkipReason),
    Keep(io::Error),
}

impl From<io::Error> for ReadProblem {
    fn from(problem: io::Error) -> Self {
        // What vanishes or turns into something else between two looks is being changed.
        let moving = is_no_way(&problem);
        Self::Skip(if moving { SkipReason::Changing } else { SkipReason::Unreadable(problem.to_string()) })
    }
}

/// Receives the chunks of large files.
pub(crate) type Keep<'a> = &'a mut dyn FnMut(CutChunk) -> io::Result<()>;

/// Reads a path that `before` was seen at. `keep` receives the chunks of a large file.
pub(crate) fn read(root: &Root, path: &str, before: &Stat, keep: Keep<'_>) -> Result<Taken, ReadProblem> {
    let mtime_ms = before.mtime_ms();
    let (found, content) = match before.kind {
        FileKind::Dir => return Ok(Taken { found: Found::Dir { mtime_ms }, content: [0; 32], stat: *before }),
        FileKind::Symlink => {
            let target =
                String::from_utf8(root.read_link(path)?).map_err(|_| ReadProblem::Skip(SkipReason::TargetNotUtf8))?;
            let content = blake3(target.as_bytes());
            (Found::Symlink { target, mtime_ms }, content)
        }
        FileKind::File => {
            let (content, hash) = read_file(root, path, before, keep)?;
            (Found::File { content, exec: before.exec, mtime_ms }, hash)
        }
    };
    match root.look(path)?.stat() {
        Some(after) if before.is_same(&after) => Ok(Taken { found, content, stat: after.observed(SystemTime::now()) }),
        _ => Err(ReadProblem::Skip(SkipReason::Changing)),
    }
}

/// BLAKE3-256 of what stands at a path, as in [`crate::Placed`].
pub(crate) fn hash(root: &Root, path: &str, kind: FileKind) -> io::Result<[u8; 32]> {
    match kind {
        FileKind::Dir => Ok([0; 32]),
        FileKind::Symlink => Ok(blake3(&root.read_link(path)?)),
        FileKind::File => {
            let mut file = root.open_file(path)?;
            let mut hasher = Blake3::new();
            let mut piece = vec![0; 256 * 1024];
            loop {
                match file.read(&mut piece)? {
                    0 => return Ok(hasher.finish()),
                    length => hasher.update(&piece[..length]),
                }
            }
        }
    }
}

fn read_file(root: &Root, path: &str, before: &Stat, keep: Keep<'_>) -> Result<(FoundContent, [u8; 32]), ReadProblem> {
    let file = root.open_file(path)?;
    let is_same = || look_fd(&file).map(|look| look.stat().is_some_and(|stat| before.is_same(&stat)));
    if !is_same()? {
        return Err(ReadProblem::Skip(SkipReason::Changing));
    }
    if before.size > BIN_INLINE_BYTES_MAX as u64 {
        let mut refused = None;
        let mut changed = false;
        let cut = Manifest::cut(&mut (&file).take(before.size + 1), &mut |chunk| {
            // The chunks of a file that is written while it is read are of no version: none is kept once that shows.
            if !is_same()? {
                changed = true;
                return Err(io::ErrorKind::Interrupted.into());
            }
            keep(chunk).map_err(|problem| {
                let again = io::Error::from(problem.kind());
                refused = Some(problem);
                again
            })
        });
        return match (cut, refused) {
            _ if changed => Err(ReadProblem::Skip(SkipReason::Changing)),
            (_, Some(problem)) => Err(ReadProblem::Keep(problem)),
            // A file that shrank while it was read: the look afterwards would say the same.
            (Ok(manifest), None) if manifest.size != before.size => Err(ReadProblem::Skip(SkipReason::Changing)),
            (Ok(manifest), None) => {
                let hash = manifest.hash;
                Ok((FoundContent::Large(manifest), hash))
            }
            (Err(problem), None) => Err(problem.into()),
        };
    }
    // One byte more than seen, so that a file that grows is noticed and never read without bound.
    let mut bytes = Vec::with_capacity(usize::try_from(before.size + 1).unwrap_or(0));
    file.take(before.size + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != before.size {
        return Err(ReadProblem::Skip(SkipReason::Changing));
    }
    let hash = blake3(&bytes);
    if inline_text(&bytes).is_none() {
        return Ok((FoundContent::Small(bytes.into()), hash));
    }
    let text = String::from_utf8(bytes).map_err(|_| ReadProblem::Skip(SkipReason::Changing))?;
    Ok((FoundContent::Text(text), hash))
}
