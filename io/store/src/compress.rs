//! Contents of chunks, smaller on disk. Spec: store, "Entries".
//!
//! What is written costs more than what is computed: a disk that syncs takes 200 to 500 MB a second, zstd at this level
//! gives more than that on one core, and twice as much where it finds nothing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Mutex;

use bytes::Bytes;
use sealtide_ibgib::{CHUNK_BYTES_MAX, ChunkHash};
use zstd::bulk::{Compressor, Decompressor};

use crate::guard;

/// The fastest of the usual levels.
const LEVEL: i32 = 1;
/// A form that saves less than this part of the content is not worth reading.
const SAVED_PART_MIN: usize = 16;

/// Chunks that are kept expanded: one for each of two transfers at once, at most 4 MiB each.
const EXPANDED_KEPT: usize = 2;

thread_local! {
    // Contexts have up to a MiB of tables: making them takes longer than a small chunk.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// A content as it stands in a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChunkForm<'a> {
    /// The content, or a zstd frame of it that is shorter.
    pub(crate) bytes: Cow<'a, [u8]>,
    /// Which of the two.
    pub(crate) compressed: bool,
}

impl<'a> ChunkForm<'a> {
    /// The form of a content that is written: the same content gives the same bytes.
    pub(crate) fn of(content: &'a [u8]) -> Self {
        let room = content.len() - content.len() / SAVED_PART_MIN;
        match compress(content, room) {
            Some(bytes) => Self { bytes: bytes.into(), compressed: true },
            None => Self { bytes: content.into(), compressed: false },
        }
    }

    /// The content, which has `len` bytes; `None` when these bytes are no form of one.
    pub(crate) fn content(self, len: usize) -> Option<Cow<'a, [u8]>> {
        if self.compressed {
            expand(&self.bytes, len).map(Cow::Owned)
        } else {
            Some(self.bytes).filter(|bytes| bytes.len() == len)
        }
    }
}

/// Chunks that were read in pieces last, so that each is expanded once.
#[derive(Debug, Default)]
pub(crate) struct Expanded(Mutex<VecDeque<(ChunkHash, Bytes)>>);

impl Expanded {
    pub(crate) fn get(&self, hash: &ChunkHash) -> Option<Bytes> {
        let kept = guard(&self.0);
        kept.iter().find(|(kept, _)| kept == hash).map(|(_, content)| content.clone())
    }

    pub(crate) fn keep(&self, hash: ChunkHash, content: Bytes) {
        let mut kept = guard(&self.0);
        if kept.len() == EXPANDED_KEPT {
            kept.pop_front();
        }
        kept.push_back((hash, content));
    }
}

/// At most `room` bytes; `None` when they do not hold it.
fn compress(content: &[u8], room: usize) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL).ok()?),
        };
        let mut out = Vec::with_capacity(room);
        compressor.compress_to_buffer(content, &mut out).ok()?;
        Some(out)
    })
}

fn expand(bytes: &[u8], len: usize) -> Option<Vec<u8>> {
    if len > CHUNK_BYTES_MAX as usize {
        return None;
    }
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new().ok()?),
        };
        let mut out = Vec::with_capacity(len);
        decompressor.decompress_to_buffer(bytes, &mut out).ok()?;
        (out.len() == len).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_comes_back_from_either_form() {
        let text = b"all the same ".repeat(40_000);
        let noise: Vec<u8> = (0..20_000_u64).flat_map(|n| sealtide_crypto::blake3(&n.to_le_bytes())).collect();
        for (content, compressed) in [(&text, true), (&noise, false), (&vec![7], false)] {
            let stored = ChunkForm::of(content);
            assert_eq!(stored.compressed, compressed);
            assert!(stored.bytes.len() < content.len() || !compressed);
            assert_eq!(ChunkForm::of(content), stored);
            assert_eq!(stored.clone().content(content.len()).as_deref(), Some(content.as_slice()));
            for wrong in [0, content.len() - 1, content.len() + 1, CHUNK_BYTES_MAX as usize + 1] {
                assert_eq!(stored.clone().content(wrong), None, "{wrong}");
            }
        }
        let whole = ChunkForm::of(&text).bytes;
        let cut = ChunkForm { bytes: whole[..whole.len() / 2].to_vec().into(), compressed: true };
        assert_eq!(cut.content(text.len()), None);
    }
}
