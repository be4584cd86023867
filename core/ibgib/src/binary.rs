//! Binaries: one record up to 512 KiB, above that a manifest of chunks. Spec: ibgib §15.

use std::fmt;
use std::io::Read;

use bytes::Bytes;

use crate::{Address, Verified};

/// Bytes of a binary that still stands in one record.
pub const BIN_INLINE_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the smallest chunk, except the last of a binary.
pub const CHUNK_BYTES_MIN: u32 = 256 * 1024;
/// Bytes of the largest chunk.
pub const CHUNK_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Entries of one list of chunks or pages, at most.
pub const CHUNKS_PER_LIST_MAX: usize = 4096;

/// BLAKE3-256 of a chunk: the name it is stored under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkHash(pub [u8; 32]);

impl fmt::Display for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One chunk of a binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Bytes, 1 to [`CHUNK_BYTES_MAX`].
    pub length: u32,
    /// BLAKE3-256 of them.
    pub hash: ChunkHash,
}

/// A binary above [`BIN_INLINE_BYTES_MAX`]: its size, whole hash and chunks in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Bytes of the whole.
    pub size: u64,
    /// BLAKE3-256 of the whole.
    pub hash: [u8; 32],
    /// The chunks in order; their lengths add up to `size`.
    pub chunks: Vec<ChunkRef>,
}

impl Manifest {
    /// Cuts what `source` gives by FastCDC (2020, normalisation 1, 256 KiB / 1 MiB / 4 MiB) and hands each chunk
    /// to `keep` as it is cut.
    ///
    /// # Errors
    /// What reading or keeping reports.
    pub fn cut(
        source: &mut dyn Read,
        keep: &mut dyn FnMut(ChunkRef, &[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        let _ = (source, keep);
        todo!()
    }

    /// The records of this manifest: pages first when there are more than 4 096 chunks, the manifest record last.
    pub fn records(&self) -> Vec<Verified> {
        todo!()
    }

    /// Reads a manifest record; `page` loads page records by address.
    ///
    /// # Errors
    /// [`ManifestError`]: not a manifest, a page missing, sums that do not fit.
    pub fn read(record: &Verified, page: &mut dyn FnMut(&Address) -> Option<Verified>) -> Result<Self, ManifestError> {
        let _ = (record, page);
        todo!()
    }

    /// The chunks that this one record (manifest or page) lists itself; empty for any other record.
    pub fn chunks_listed(record: &Verified) -> Vec<ChunkRef> {
        let _ = record;
        todo!()
    }
}

/// The record of a binary of at most [`BIN_INLINE_BYTES_MAX`] bytes.
///
/// # Panics
/// When there are more bytes: a bug of the caller.
pub fn binary_record(bytes: Bytes) -> Verified {
    let _ = bytes;
    todo!()
}

/// The bytes of a one-record binary; `None` when the record is a manifest or no binary.
pub fn read_binary(record: &Verified) -> Option<Bytes> {
    let _ = record;
    todo!()
}

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// The record is no manifest.
    #[error("{0} is not the manifest of a binary")]
    NotManifest(Address),
    /// A page that the manifest names is not there.
    #[error("page {0} of the manifest is missing")]
    PageMissing(Address),
    /// Sizes do not add up.
    #[error("the sizes in manifest {0} do not add up")]
    BadSum(Address),
}
