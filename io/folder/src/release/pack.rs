//! A directory becomes a payload.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bytes::Bytes;
use sealtide_crypto::Blake3;
use sealtide_releases::bundle::ReleaseFile;
use zstd::zstd_safe::CParameter;

use super::tape::{END, header, padding};
use super::{Listed, ReleaseError, ReleaseProgress};

/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// The level of compression. Another level makes other bytes of the same files.
const LEVEL: i32 = 3;
/// Threads that compress. The bytes do not depend on how many, but on whether there are any.
const THREADS: u32 = 2;
/// Bytes of a block, at most. In full blocks of 128 KiB these threads look for places to split them, which takes a third of
/// their time where little can be compressed, and finds nothing there; in programs it saves half a percent at most.
const BLOCK_BYTES: u32 = 64 * 1024;

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

/// Packs the listed files of `dir`: compressed into `payload`, and as they are, a plain tar, piece by piece into `plain`. The same
/// files make the same bytes in both.
///
/// # Errors
/// [`ReleaseError`]; what was written is worth nothing then.
// Spec: GW-72
pub fn pack(
    dir: &Path,
    list: &[Listed],
    payload: &mut dyn Write,
    plain: &mut dyn FnMut(Bytes) -> io::Result<()>,
    progress: &mut dyn FnMut(ReleaseProgress),
) -> Result<Packed, ReleaseError> {
    let written = |error| ReleaseError::io("the payload")(error);
    let mut counted = Counted { inner: payload, hash: Blake3::new(), size: 0 };
    let mut zstd = zstd::Encoder::new(&mut counted, LEVEL).map_err(written)?;
    let parameters = [CParameter::NbWorkers(THREADS), CParameter::MaxBlockSize(BLOCK_BYTES)];
    parameters.into_iter().try_for_each(|parameter| zstd.set_parameter(parameter)).map_err(written)?;
    let mut tape = Tape { piece: Vec::with_capacity(PIECE), zstd: &mut zstd, plain };
    let mut files = Vec::with_capacity(list.len());
    let mut told = ReleaseProgress::default();
    for listed in list {
        let path = dir.join(&listed.path);
        let before = header(&listed.path, listed.size, listed.executable).map_err(ReleaseError::io(&path))?;
        tape.write_all(&before).map_err(written)?;
        let mut file = File::open(&path).map_err(ReleaseError::io(&path))?;
        let (mut hash, mut size) = (Blake3::new(), 0);
        loop {
            let (piece, room) = tape.room().map_err(written)?;
            let from = piece.len();
            // One byte more than is left, so that a file that grows is noticed.
            let most = (room as u64).min(listed.size - size + 1);
            let read = (&mut file).take(most).read_to_end(piece).map_err(ReleaseError::io(&path))? as u64;
            size += read;
            if size > listed.size || read == 0 {
                break;
            }
            hash.update(&piece[from..]);
            told.bytes += read;
            progress(told);
        }
        if size != listed.size {
            return Err(ReleaseError::Changed(path));
        }
        tape.write_all(padding(size)).map_err(written)?;
        told.files += 1;
        let Listed { path, executable, .. } = listed.clone();
        files.push(ReleaseFile { path, hash: hash.finish(), size, executable });
    }
    tape.write_all(&END).and_then(|()| tape.flush()).map_err(written)?;
    zstd.finish().and_then(Write::flush).map_err(written)?;
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

/// The plain tar on its way to two places, in pieces of one size.
struct Tape<'a, W: Write> {
    piece: Vec<u8>,
    zstd: &'a mut zstd::Encoder<'static, W>,
    plain: &'a mut dyn FnMut(Bytes) -> io::Result<()>,
}

impl<W: Write> Tape<'_, W> {
    /// What the next bytes go behind, and how many: at least one.
    fn room(&mut self) -> io::Result<(&mut Vec<u8>, usize)> {
        if self.piece.len() >= PIECE {
            self.hand_over()?;
        }
        let room = PIECE - self.piece.len();
        Ok((&mut self.piece, room))
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE)));
        (self.plain)(piece.clone())?;
        self.zstd.write_all(&piece)
    }
}

impl<W: Write> Write for Tape<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (piece, room) = self.room()?;
        let most = room.min(bytes.len());
        piece.extend_from_slice(&bytes[..most]);
        Ok(most)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.hand_over()?;
        }
        self.zstd.flush()
    }
}
