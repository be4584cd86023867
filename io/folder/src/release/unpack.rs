//! A payload becomes a directory, or is only looked at.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sealtide_crypto::Blake3;
use sealtide_releases::bundle::{ReleaseFile, check_files};

use super::tape::{END, header, padding};
use super::{ReleaseError, ReleaseProgress};

/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// The largest window of a frame: 2^27 bytes, what a decoder holds in memory. Level 3 needs far less.
const WINDOW_LOG_MAX: u32 = 27;

/// The plain tar of a payload; one zstd frame, and nothing behind it.
pub struct Plain<R: BufRead>(zstd::Decoder<'static, R>);

/// Decompresses a payload. [`Plain::finish`] tells whether something stands behind the frame.
///
/// # Errors
/// [`ReleaseError::Compression`].
pub fn decompress<R: BufRead>(payload: R) -> Result<Plain<R>, ReleaseError> {
    let mut decoder = zstd::Decoder::with_buffer(payload).map_err(ReleaseError::Compression)?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(ReleaseError::Compression)?;
    Ok(Plain(decoder))
}

impl<R: BufRead> Plain<R> {
    /// Tells whether the payload ends where its frame does.
    ///
    /// # Errors
    /// [`ReleaseError::Trailing`].
    pub fn finish(mut self) -> Result<(), ReleaseError> {
        // Drives the decoder over the end of its frame.
        let more = self.0.read(&mut [0]).map_err(ReleaseError::Compression)?;
        let mut rest = self.0.finish();
        let behind = rest.fill_buf().map_err(ReleaseError::Compression)?.len();
        if more + behind > 0 { Err(ReleaseError::Trailing) } else { Ok(()) }
    }
}

impl<R: BufRead> Read for Plain<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

/// Unpacks into `to`, a directory that exists, is empty, and that nobody else writes to. The files are on disk when this
/// returns. Nothing in `plain` can make more than the listed files of the listed sizes.
///
/// # Errors
/// [`ReleaseError`]; what stands in `to` is worth nothing then.
// Spec: GW-77
pub fn unpack(
    files: &[ReleaseFile],
    plain: &mut dyn Read,
    to: &Path,
    progress: &mut dyn FnMut(ReleaseProgress),
) -> Result<(), ReleaseError> {
    walk(files, plain, Some(to), progress)?;
    let dir = File::open(to).map_err(ReleaseError::io(to))?;
    rustix::fs::syncfs(&dir).map_err(|error| ReleaseError::Io { path: to.to_owned(), source: error.into() })
}

/// Looks whether a payload holds the listed files and nothing else; writes nothing.
///
/// # Errors
/// [`ReleaseError`].
pub fn check(
    files: &[ReleaseFile],
    plain: &mut dyn Read,
    progress: &mut dyn FnMut(ReleaseProgress),
) -> Result<(), ReleaseError> {
    walk(files, plain, None, progress)
}

fn walk(
    files: &[ReleaseFile],
    plain: &mut dyn Read,
    to: Option<&Path>,
    progress: &mut dyn FnMut(ReleaseProgress),
) -> Result<(), ReleaseError> {
    check_files(files)?;
    let (mut told, mut piece) = (ReleaseProgress::default(), vec![0; PIECE]);
    for file in files {
        let before = header(&file.path, file.size, file.executable).map_err(ReleaseError::Compression)?;
        expect(plain, &before, &file.path)?;
        let mut out = to.map(|to| create(to, file)).transpose()?;
        let (mut hash, mut left) = (Blake3::new(), file.size);
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = plain.read(&mut piece[..most]).map_err(ReleaseError::Compression)?;
            if read == 0 {
                return Err(ReleaseError::Tar(format!("{}, where it ends too early", file.path)));
            }
            hash.update(&piece[..read]);
            if let Some(out) = &mut out {
                out.write_all(&piece[..read]).map_err(ReleaseError::io(&file.path))?;
            }
            left -= read as u64;
            told.bytes += read as u64;
            progress(told);
        }
        if hash.finish() != file.hash {
            return Err(ReleaseError::Hash(file.path.clone()));
        }
        expect(plain, padding(file.size), &file.path)?;
        told.files += 1;
    }
    expect(plain, &END, "its end")?;
    match plain.read(&mut [0]).map_err(ReleaseError::Compression)? {
        0 => Ok(()),
        _ => Err(ReleaseError::Tar("its end, behind which more follows".to_owned())),
    }
}

/// Reads exactly these bytes.
fn expect(plain: &mut dyn Read, wanted: &[u8], place: &str) -> Result<(), ReleaseError> {
    let mut found = vec![0; wanted.len()];
    let other = || ReleaseError::Tar(place.to_owned());
    match plain.read_exact(&mut found) {
        Ok(()) if found == wanted => Ok(()),
        Ok(()) => Err(other()),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(other()),
        Err(error) => Err(ReleaseError::Compression(error)),
    }
}

/// Makes a file below `to`. `to` itself is never made: when it is gone, somebody took it away, and what was unpacked before with it.
fn create(to: &Path, file: &ReleaseFile) -> Result<File, ReleaseError> {
    let path = to.join(&file.path);
    let mode = if file.executable { 0o755 } else { 0o644 };
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create_dirs(to, &file.path)?,
        opened => return opened.map_err(ReleaseError::io(&path)),
    }
    options.open(&path).map_err(ReleaseError::io(&path))
}

/// Makes the directories above a file, below `to`.
fn create_dirs(to: &Path, path: &str) -> Result<(), ReleaseError> {
    for (end, _) in path.match_indices('/') {
        let dir = to.join(&path[..end]);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(ReleaseError::io(&dir)(error)),
            _ => {}
        }
    }
    Ok(())
}
