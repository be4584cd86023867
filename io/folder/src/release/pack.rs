//! A directory becomes a payload.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sealtide_crypto::Blake3;
use sealtide_releases::bundle::ReleaseFile;

use super::tape::{END, header, padding};
use super::{Listed, ReleaseError, ReleaseProgress};

/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// The level of compression. Another level makes other bytes of the same files.
const LEVEL: i32 = 3;
/// Threads that compress. The bytes do not depend on how many, but on whether there are any.
const THREADS: u32 = 2;

/// A payload, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The files, with their hashes.
    pub files: Vec<ReleaseFile>,
    /// Bytes of all files.
    pub unpacked_size: u64,
    /// BLAKE3-256 of the payload.
    pub hash: [u8; 32],
    /// Bytes of the payload.
    pub size: u64,
}

/// Packs the listed files of `dir`: compressed into `payload`, and as they are, a plain tar, into `plain`. The same files make
/// the same bytes in both.
///
/// # Errors
/// [`ReleaseError`]; what was written is worth nothing then.
// Spec: GW-72
pub fn pack(
    dir: &Path,
    list: &[Listed],
    payload: &mut dyn Write,
    plain: &mut dyn Write,
    progress: &mut dyn FnMut(ReleaseProgress),
) -> Result<Packed, ReleaseError> {
    let written = ReleaseError::io("the payload");
    let mut counted = Counted { inner: payload, hash: Blake3::new(), size: 0 };
    let mut zstd = zstd::Encoder::new(&mut counted, LEVEL).map_err(written)?;
    zstd.multithread(THREADS).map_err(ReleaseError::io("the payload"))?;
    let mut both = Both { first: &mut zstd, second: plain };
    let mut files = Vec::with_capacity(list.len());
    let (mut told, mut piece) = (ReleaseProgress::default(), vec![0; PIECE]);
    for listed in list {
        let path = dir.join(&listed.path);
        let before = header(&listed.path, listed.size, listed.executable).map_err(ReleaseError::io(&path))?;
        both.write_all(&before).map_err(ReleaseError::io("the payload"))?;
        let mut file = File::open(&path).map_err(ReleaseError::io(&path))?;
        let (mut hash, mut size) = (Blake3::new(), 0);
        loop {
            let read = file.read(&mut piece).map_err(ReleaseError::io(&path))?;
            size += read as u64;
            if size > listed.size || read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            both.write_all(&piece[..read]).map_err(ReleaseError::io("the payload"))?;
            told.bytes += read as u64;
            progress(told);
        }
        if size != listed.size {
            return Err(ReleaseError::Changed(path));
        }
        both.write_all(padding(size)).map_err(ReleaseError::io("the payload"))?;
        told.files += 1;
        let Listed { path, executable, .. } = listed.clone();
        files.push(ReleaseFile { path, hash: hash.finish(), size, executable });
    }
    both.write_all(&END).and_then(|()| both.flush()).map_err(ReleaseError::io("the payload"))?;
    zstd.finish().and_then(Write::flush).map_err(ReleaseError::io("the payload"))?;
    Ok(Packed { files, unpacked_size: told.bytes, hash: counted.hash.finish(), size: counted.size })
}

/// Counts and hashes what goes through.
struct Counted<'a> {
    inner: &'a mut dyn Write,
    hash: Blake3,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the same to two places.
struct Both<'a, W> {
    first: W,
    second: &'a mut dyn Write,
}

impl<W: Write> Write for Both<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.first.write_all(bytes)?;
        self.second.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.first.flush()?;
        self.second.flush()
    }
}
