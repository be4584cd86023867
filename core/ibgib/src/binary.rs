//! Binaries: one record up to 512 KiB, above that a manifest of chunks. Spec: ibgib §15.

use std::fmt;
use std::io::{self, Read};

use bytes::Bytes;
use data_encoding::HEXLOWER;
use fastcdc::v2020::{Normalization, cut, select_masks};
use sealtide_crypto::{Blake3, blake3, sha256};
use serde_json::{Value, json};

use crate::{Address, Data, Object, Relations, Verified, stone};

/// Bytes of a binary that still stands in one record.
pub const BIN_INLINE_BYTES_MAX: usize = 512 * 1024;
/// Bytes of the smallest chunk that our cutter makes, except the last of a binary.
pub const CHUNK_BYTES_MIN: u32 = 256 * 1024;
/// Bytes of a chunk as our cutter aims at.
pub const CHUNK_BYTES_AVERAGE: u32 = 1024 * 1024;
/// Bytes of the largest chunk.
pub const CHUNK_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Entries of one list of chunks or pages, at most.
pub const CHUNKS_PER_LIST_MAX: usize = 4096;

/// The ib of a page of a manifest.
const PAGE_IB: &str = "binpage";
/// Bytes that the cutter looks at: two of the largest chunks, so that what is left over is moved seldom.
const WINDOW_BYTES: usize = 4 * CHUNK_BYTES_MAX as usize;

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

impl ChunkRef {
    /// Whether `bytes` are this chunk.
    ///
    /// # Errors
    /// [`ChunkError`]: another length or another hash.
    pub fn check(&self, bytes: &[u8]) -> Result<(), ChunkError> {
        if bytes.len() != self.length as usize {
            return Err(ChunkError::WrongLength { chunk: self.hash, expected: self.length, found: bytes.len() as u64 });
        }
        if blake3(bytes) != self.hash.0 { Err(ChunkError::WrongHash { chunk: self.hash }) } else { Ok(()) }
    }
}

/// Bytes that are not the chunk they were given for. Spec: SY-66.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// They are more or fewer.
    #[error("chunk {chunk} has {found} bytes, not {expected}")]
    WrongLength {
        /// The chunk asked for.
        chunk: ChunkHash,
        /// Its bytes.
        expected: u32,
        /// The bytes that came.
        found: u64,
    },
    /// They are other bytes.
    #[error("chunk {chunk} has another hash")]
    WrongHash {
        /// The chunk asked for.
        chunk: ChunkHash,
    },
}

/// A chunk as [`Manifest::cut`] cut it: its bytes have its hash, so nobody needs to look again.
#[derive(Clone, Debug)]
pub struct CutChunk {
    chunk: ChunkRef,
    bytes: Bytes,
}

impl CutChunk {
    /// Its hash and length.
    pub fn chunk(&self) -> ChunkRef {
        self.chunk
    }

    /// Its content. Keeps all of the window alive that it was cut from.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
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
    /// to `keep` as it is cut. Holds 16 MiB, whatever the size, and what `keep` keeps; hashes every byte twice (chunk and whole) and
    /// copies none but the few left over when the window moves on.
    ///
    /// The result makes records only above [`BIN_INLINE_BYTES_MAX`]; a shorter binary is a [`binary_record`].
    ///
    /// # Errors
    /// What reading or keeping reports; `FileTooLarge` for more chunks than a manifest can list.
    // Spec: SY-65
    pub fn cut(source: &mut dyn Read, keep: &mut dyn FnMut(CutChunk) -> io::Result<()>) -> io::Result<Self> {
        let (mut whole, mut size, mut chunks) = (Blake3::new(), 0, Vec::new());
        let (mut window, mut more) = (Bytes::new(), true);
        loop {
            if more && window.len() < CHUNK_BYTES_MAX as usize {
                let mut next = Vec::with_capacity(WINDOW_BYTES);
                next.extend_from_slice(&window);
                let room = WINDOW_BYTES - next.len();
                source.take(room as u64).read_to_end(&mut next)?;
                more = next.len() == WINDOW_BYTES;
                window = next.into();
            }
            if window.is_empty() {
                return Ok(Self { size, hash: whole.finish(), chunks });
            }
            if chunks.len() == CHUNKS_PER_LIST_MAX * CHUNKS_PER_LIST_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            let bytes = window.split_to(next_cut(&window));
            let chunk = ChunkRef { length: bytes.len() as u32, hash: ChunkHash(blake3(&bytes)) };
            whole.update(&bytes);
            size += bytes.len() as u64;
            chunks.push(chunk);
            keep(CutChunk { chunk, bytes })?;
        }
    }

    /// The records of this manifest: pages first when there are more than 4 096 chunks, the manifest record last.
    ///
    /// # Panics
    /// When this is no manifest (512 KiB or less, sizes that do not add up, too many chunks): a bug of the caller.
    // Spec: SY-107
    pub fn records(&self) -> Vec<Verified> {
        let total: u64 = self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        assert!(self.size == total && total > BIN_INLINE_BYTES_MAX as u64, "a manifest is for large binaries, in full");
        let hash = HEXLOWER.encode(&self.hash);
        let mut bin = Object::new();
        bin.insert("v".to_owned(), json!(2));
        bin.insert("size".to_owned(), json!(self.size));
        bin.insert("hash".to_owned(), json!(hash));
        let (mut records, mut relations) = (Vec::new(), Relations::new());
        if self.chunks.len() <= CHUNKS_PER_LIST_MAX {
            bin.insert("chunks".to_owned(), list(&self.chunks));
        } else {
            let mut entries = Vec::new();
            for chunks in self.chunks.chunks(CHUNKS_PER_LIST_MAX) {
                let size: u64 = chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
                let page = stone(PAGE_IB, Data::Json(json!({ "chunks": list(chunks) })), Relations::new());
                entries.push(json!([size, page.address().as_str()]));
                relations.entry("page".to_owned()).or_default().push(page.address().clone());
                records.push(page);
            }
            bin.insert("pages".to_owned(), Value::Array(entries));
        }
        records.push(stone(&format!("bin {hash} "), Data::Json(json!({ "bin": bin })), relations));
        records
    }

    /// Reads a manifest record; `page` loads page records by address.
    ///
    /// # Errors
    /// [`ManifestError`]: not a manifest, a page missing, sums that do not fit.
    // Spec: SY-107
    pub fn read(record: &Verified, page: &mut dyn FnMut(&Address) -> Option<Verified>) -> Result<Self, ManifestError> {
        let address = || record.address().clone();
        let head = Head::of(record).ok_or_else(|| ManifestError::NotManifest(address()))?;
        let chunks = match head.list {
            List::Chunks(chunks) => chunks,
            List::Pages(pages) => {
                let mut all = Vec::new();
                for (size, name) in pages {
                    let found = page(&name).ok_or_else(|| ManifestError::PageMissing(name.clone()))?;
                    let chunks = page_chunks(&found).ok_or_else(|| ManifestError::PageMissing(name.clone()))?;
                    if total(&chunks) != size {
                        return Err(ManifestError::BadSum(address()));
                    }
                    all.extend(chunks);
                }
                all
            }
        };
        if total(&chunks) != head.size {
            return Err(ManifestError::BadSum(address()));
        }
        Ok(Self { size: head.size, hash: head.hash, chunks })
    }

    /// The chunks that this one record (manifest or page) lists itself; empty for any other record.
    pub fn chunks_listed(record: &Verified) -> Vec<ChunkRef> {
        match Head::of(record) {
            Some(Head { list: List::Chunks(chunks), .. }) => chunks,
            Some(_) => Vec::new(),
            None => page_chunks(record).unwrap_or_default(),
        }
    }

    /// Puts the binary together: asks `load` for each chunk in order, checks it and hands it to `write`. Only when
    /// this returns `Ok` is what was written the binary; until then nobody may see it.
    ///
    /// # Errors
    /// [`AssembleError`]; what was written up to then is to be thrown away.
    // Spec: SY-66
    pub fn assemble(
        &self,
        load: &mut dyn FnMut(&ChunkRef) -> io::Result<Bytes>,
        write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), AssembleError> {
        let mut whole = Blake3::new();
        for chunk in &self.chunks {
            let bytes = load(chunk)?;
            chunk.check(&bytes)?;
            whole.update(&bytes);
            write(&bytes)?;
        }
        if whole.finish() == self.hash { Ok(()) } else { Err(AssembleError::WrongWhole(ChunkHash(self.hash))) }
    }
}

/// The record of a binary of at most [`BIN_INLINE_BYTES_MAX`] bytes.
///
/// # Panics
/// When there are more bytes: a bug of the caller.
pub fn binary_record(bytes: Bytes) -> Verified {
    assert!(bytes.len() <= BIN_INLINE_BYTES_MAX, "a binary of {} bytes needs a manifest", bytes.len());
    let ib = format!("bin {} ", HEXLOWER.encode(&sha256(&bytes)));
    stone(&ib, Data::Bytes(bytes), Relations::new())
}

/// The bytes of a one-record binary; `None` when the record is a manifest or no binary.
pub fn read_binary(record: &Verified) -> Option<Bytes> {
    match record.data() {
        Data::Bytes(bytes) if hash_in_ib(record).is_some() => Some(bytes),
        _ => None,
    }
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

/// Why a binary could not be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// Loading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A chunk is not what the manifest names.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// Every chunk is right, but together they are not the binary that the manifest promises.
    #[error("the binary {0} has another hash when put together")]
    WrongWhole(ChunkHash),
}

/// Bytes of the next chunk of `bytes`, which reach at least as far as the largest chunk or to the end.
fn next_cut(bytes: &[u8]) -> usize {
    let [min, average, max] = [CHUNK_BYTES_MIN, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX].map(|bytes| bytes as usize);
    let (strict, loose) = select_masks(average, Normalization::Level1);
    cut(bytes, min, average, max, strict, loose, strict << 1, loose << 1).1
}

fn total(chunks: &[ChunkRef]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
}

fn list(chunks: &[ChunkRef]) -> Value {
    chunks.iter().map(|chunk| json!([chunk.length, chunk.hash.to_string()])).collect()
}

/// The data of a manifest record.
struct Head {
    size: u64,
    hash: [u8; 32],
    list: List,
}

enum List {
    Chunks(Vec<ChunkRef>),
    Pages(Vec<(u64, Address)>),
}

impl Head {
    /// Strict acceptance has judged the form already; whatever still does not fit is no manifest.
    fn of(record: &Verified) -> Option<Self> {
        let named = hash_in_ib(record)?;
        let data = record.object()?;
        let bin = data.get("bin")?.as_object()?;
        let hash = hash(bin.get("hash")?)?;
        let list = match (bin.get("chunks"), bin.get("pages")) {
            (Some(chunks), None) => List::Chunks(chunk_list(chunks)?),
            (None, Some(pages)) => List::Pages(page_list(pages)?),
            _ => return None,
        };
        let fits = bin.get("v")?.as_u64() == Some(2) && hash == named;
        fits.then_some(Self { size: bin.get("size")?.as_u64()?, hash, list })
    }
}

/// The hash in the ib of a binary of ours: `bin <hash> `.
fn hash_in_ib(record: &Verified) -> Option<[u8; 32]> {
    let hex = record.address().ib().strip_prefix("bin ")?.strip_suffix(' ')?;
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

fn page_chunks(record: &Verified) -> Option<Vec<ChunkRef>> {
    if record.address().ib() != PAGE_IB {
        return None;
    }
    chunk_list(record.object()?.get("chunks")?)
}

fn chunk_list(value: &Value) -> Option<Vec<ChunkRef>> {
    let entries = entries(value)?;
    let chunk = |entry: &Value| match entry.as_array()?.as_slice() {
        [length, name] => {
            let length = length.as_u64().filter(|length| (1..=u64::from(CHUNK_BYTES_MAX)).contains(length))?;
            Some(ChunkRef { length: length as u32, hash: ChunkHash(hash(name)?) })
        }
        _ => None,
    };
    entries.iter().map(chunk).collect()
}

fn page_list(value: &Value) -> Option<Vec<(u64, Address)>> {
    let entries = entries(value)?;
    let page = |entry: &Value| match entry.as_array()?.as_slice() {
        [size, name] => Some((size.as_u64()?, Address::parse(name.as_str()?).ok()?)),
        _ => None,
    };
    entries.iter().map(page).collect()
}

fn entries(value: &Value) -> Option<&Vec<Value>> {
    value.as_array().filter(|entries| (1..=CHUNKS_PER_LIST_MAX).contains(&entries.len()))
}

fn hash(value: &Value) -> Option<[u8; 32]> {
    HEXLOWER.decode(value.as_str()?.as_bytes()).ok()?.try_into().ok()
}
