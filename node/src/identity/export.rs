//! Frames of a keystone as a file: what recovery on another machine starts from. All of it is public.
//!
//! ```text
//! "sealtide frames 1" 0A, then for each frame: length u32 big-endian, encoded record (spec/ibgib-data.md)
//! ```

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bytes::Bytes;
use sealtide_ibgib::Verified;

/// The first line.
const HEAD: &[u8] = b"sealtide frames 1\n";
/// Bytes of a file, at most: more than a thousand frames of an owner.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Frames of a file, at most.
const FRAMES_MAX: usize = 16_384;

/// A file of frames that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameFileError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is larger than 256 MiB or holds more than 16 384 frames.
    #[error("too large for a file of keystone frames")]
    TooLarge,
    /// It is none.
    #[error("not a file of keystone frames")]
    NotFrames,
    /// One frame is damaged or foreign.
    #[error("frame {0} of the file is damaged")]
    Frame(usize),
}

/// Writes frames into a new file.
///
/// # Errors
/// When the file is there already or cannot be written.
pub fn write_frames(path: &Path, frames: &[Verified]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(&encode_frames(frames))?;
    file.sync_all()
}

/// Frames as a file holds them.
pub(crate) fn encode_frames(frames: &[Verified]) -> Vec<u8> {
    let mut bytes = HEAD.to_vec();
    for frame in frames {
        let encoded = frame.encoded();
        bytes.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
        bytes.extend_from_slice(encoded);
    }
    bytes
}

/// Reads frames from a file; every record was accepted, no rule of keystones was looked at.
///
/// # Errors
/// [`FrameFileError`].
pub fn read_frames(path: &Path) -> Result<Vec<Verified>, FrameFileError> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(FrameFileError::TooLarge);
    }
    parse_frames(&fs::read(path)?.into())
}

/// Reads what [`encode_frames`] wrote.
///
/// # Errors
/// [`FrameFileError`].
pub(crate) fn parse_frames(bytes: &Bytes) -> Result<Vec<Verified>, FrameFileError> {
    let mut rest = bytes.strip_prefix(HEAD).map(|rest| bytes.slice_ref(rest)).ok_or(FrameFileError::NotFrames)?;
    let mut frames = Vec::new();
    while !rest.is_empty() {
        if frames.len() >= FRAMES_MAX {
            return Err(FrameFileError::TooLarge);
        }
        let damaged = || FrameFileError::Frame(frames.len() + 1);
        let head = rest.first_chunk::<4>().ok_or_else(damaged)?;
        let length = u32::from_be_bytes(*head) as usize;
        if rest.len() - 4 < length {
            return Err(damaged());
        }
        let record = rest.slice(4..4 + length);
        rest = rest.slice(4 + length..);
        let accepted = Verified::accept(record).map_err(|_| damaged())?;
        frames.push(accepted);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sealtide_ibgib::{Object, Relations, Stamp, genesis};

    use super::*;

    fn frame(name: &str) -> Verified {
        let mut data = Object::new();
        data.insert("name".to_owned(), name.into());
        genesis("keystone", data, Relations::new(), Stamp { ms: 1 }, &"0".repeat(64))
    }

    #[test]
    fn frames_travel_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.frames");
        let frames = [frame("a"), frame("b")];
        write_frames(&path, &frames).unwrap();
        let read = read_frames(&path).unwrap();
        assert_eq!(read.iter().map(Verified::sid).collect::<Vec<_>>(), frames.map(|frame| frame.sid()));
        assert_eq!(write_frames(&path, &read).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut bytes = fs::read(&path).unwrap();
        bytes.pop();
        assert!(matches!(parse_frames(&bytes.into()), Err(FrameFileError::Frame(2))));
        assert!(matches!(parse_frames(&Bytes::from_static(b"words")), Err(FrameFileError::NotFrames)));
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_nothing_panics(tail in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..900) {
            let mut bytes = HEAD.to_vec();
            let encoded = frame("a").encoded().to_vec();
            bytes.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&encoded);
            bytes.truncate(cut);
            bytes.extend_from_slice(&tail);
            let _ = parse_frames(&bytes.into());
        }
    }
}
