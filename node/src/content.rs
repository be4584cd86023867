//! Large contents in the store: written as they come, read piece by piece.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, spawn};

use bytes::{Buf, Bytes};
use sealtide_ibgib::{
    Address, BIN_INLINE_BYTES_MAX, ChunkRef, Content, CutChunk, Manifest, Verified, binary_record, inline_text,
    read_binary,
};
use sealtide_store::{SpaceHandle, Store, StoreError};
use sealtide_sync::SpaceView;

use crate::failure::{Exit, Failure};

/// Bytes that go from the writer to the thread that cuts at once.
const PIECE: usize = 1024 * 1024;
/// Pieces that wait for that thread.
const PIECES: usize = 16;
/// Chunks that wait to be stored.
const CHUNKS: usize = 8;

/// Stores chunks in a thread of its own, while whoever cuts them goes on. The thread is there from the first chunk on.
pub(crate) struct ChunkKeeper {
    store: Store,
    thread: Option<KeepingThread>,
}

struct KeepingThread {
    chunks: SyncSender<CutChunk>,
    kept: JoinHandle<Result<(), StoreError>>,
}

impl ChunkKeeper {
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone(), thread: None }
    }

    /// Takes a chunk over. That it is stored is known from [`ChunkKeeper::finish`] alone.
    ///
    /// # Errors
    /// When the store failed before; `finish` says why.
    pub(crate) fn keep(&mut self, chunk: CutChunk) -> io::Result<()> {
        let thread = self.thread.get_or_insert_with(|| {
            let (chunks, taken) = sync_channel::<CutChunk>(CHUNKS);
            let store = self.store.clone();
            let kept = spawn(move || taken.iter().try_for_each(|chunk| store.put_cut(&chunk)));
            KeepingThread { chunks, kept }
        });
        thread.chunks.send(chunk).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until every chunk is stored.
    ///
    /// # Errors
    /// What the store said.
    pub(crate) fn finish(self) -> io::Result<()> {
        let Some(KeepingThread { chunks, kept }) = self.thread else { return Ok(()) };
        drop(chunks);
        let kept = kept.join().map_err(|_| io::Error::other("the thread that stores chunks ended"))?;
        kept.map_err(io::Error::other)
    }
}

/// Takes a content in: its chunks go to the store while it is written, its records come at the end.
pub(crate) struct ContentWriter {
    piece: Vec<u8>,
    pieces: Option<SyncSender<Bytes>>,
    cutter: JoinHandle<io::Result<Vec<Verified>>>,
}

impl ContentWriter {
    pub(crate) fn new(store: Store) -> Self {
        let (pieces, taken) = sync_channel(PIECES);
        let cutter = spawn(move || cut(&store, &mut Pieces { taken, piece: Bytes::new() }));
        Self { piece: Vec::with_capacity(PIECE), pieces: Some(pieces), cutter }
    }

    fn hand_over(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.push(piece.into())
    }

    /// Takes a piece as it is, behind all that was written.
    pub(crate) fn push(&mut self, piece: Bytes) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.hand_over()?;
        }
        let pieces = self.pieces.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        // The thread is gone when the store failed; what it says comes at the end.
        pieces.send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// The records of the content; the last one is the content itself.
    pub(crate) fn finish(mut self) -> io::Result<Vec<Verified>> {
        let handed = if self.piece.is_empty() { Ok(()) } else { self.hand_over() };
        self.pieces = None;
        let records = self.cutter.join().map_err(|_| io::Error::other("the thread that stores a content ended"))??;
        handed.map(|()| records)
    }
}

impl Write for ContentWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (PIECE - self.piece.len()).min(bytes.len());
        self.piece.extend_from_slice(&bytes[..room]);
        if self.piece.len() == PIECE {
            self.hand_over()?;
        }
        Ok(room)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Stores a content that is in memory.
pub(crate) fn store_bytes(store: &Store, bytes: &[u8]) -> io::Result<Vec<Verified>> {
    cut(store, &mut &bytes[..])
}

/// Stores what a source gives, up to its end, in the form in which a file has it; the records go before its frame.
pub(crate) fn store_file(store: &Store, source: &mut dyn Read) -> io::Result<(Content, Vec<Verified>)> {
    let begin = begin_of(source)?;
    if inline_text(&begin).is_some() {
        let text = String::from_utf8(begin).map_err(io::Error::other)?;
        return Ok((Content::Text(text), Vec::new()));
    }
    let records = cut_from(store, begin, source)?;
    let address = records.last().ok_or(io::ErrorKind::InvalidData)?.address().clone();
    Ok((Content::Bin(address), records))
}

fn cut(store: &Store, source: &mut dyn Read) -> io::Result<Vec<Verified>> {
    let begin = begin_of(source)?;
    cut_from(store, begin, source)
}

/// All of a content that goes into one record, or one byte more than that.
fn begin_of(source: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut begin = Vec::new();
    source.take(BIN_INLINE_BYTES_MAX as u64 + 1).read_to_end(&mut begin)?;
    Ok(begin)
}

fn cut_from(store: &Store, begin: Vec<u8>, source: &mut dyn Read) -> io::Result<Vec<Verified>> {
    if begin.len() <= BIN_INLINE_BYTES_MAX {
        return Ok(vec![binary_record(begin.into())]);
    }
    let mut keeper = ChunkKeeper::new(store);
    let manifest = Manifest::cut(&mut Read::chain(begin.as_slice(), source), &mut |chunk| keeper.keep(chunk));
    // A store that failed says why.
    keeper.finish()?;
    Ok(manifest?.records())
}

/// What comes from a [`ContentWriter`], as a reader.
struct Pieces {
    taken: Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            // A writer that is gone has written all.
            self.piece = self.taken.recv().unwrap_or_default();
        }
        let most = self.piece.len().min(bytes.len());
        self.piece.copy_to_slice(&mut bytes[..most]);
        Ok(most)
    }
}

/// Reads a content of the store from its begin to its end.
pub(crate) struct ContentReader {
    store: Store,
    chunks: std::vec::IntoIter<ChunkRef>,
    piece: Bytes,
    size: u64,
}

impl ContentReader {
    /// Bytes of the whole content.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// What comes next, in one piece; none at the end.
    ///
    /// # Errors
    /// Exit 5 when a chunk is not here.
    pub(crate) fn next_piece(&mut self) -> Result<Option<Bytes>, Failure> {
        if !self.piece.is_empty() {
            return Ok(Some(std::mem::take(&mut self.piece)));
        }
        let Some(ChunkRef { hash, .. }) = self.chunks.next() else { return Ok(None) };
        let lost = || Failure::new(Exit::Verification, "missing", format!("chunk {hash} is missing in the store"));
        self.store.read_chunk(&hash).map(Some).ok_or_else(lost)
    }

    /// The content at an address.
    ///
    /// # Errors
    /// Exit 5 when a record of it is not here.
    pub(crate) fn open(store: &Store, view: &SpaceHandle, address: &Address) -> Result<Self, Failure> {
        let record = |address: &Address| view.by_address(address).iter().find_map(|sid| view.record(sid));
        let missing = || Failure::new(Exit::Verification, "missing", format!("{address} is missing in the store"));
        let found = record(address).ok_or_else(missing)?;
        if let Some(piece) = read_binary(&found) {
            let size = piece.len() as u64;
            return Ok(Self { store: store.clone(), chunks: Vec::new().into_iter(), piece, size });
        }
        let manifest = Manifest::read(&found, &mut |page| record(page))
            .map_err(|error| Failure::failed("manifest", error.to_string()))?;
        let (size, chunks) = (manifest.size, manifest.chunks.into_iter());
        Ok(Self { store: store.clone(), chunks, piece: Bytes::new(), size })
    }
}

impl Read for ContentReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            self.piece = self.next_piece().map_err(io::Error::other)?.unwrap_or_default();
        }
        let most = self.piece.len().min(bytes.len());
        self.piece.copy_to_slice(&mut bytes[..most]);
        Ok(most)
    }
}
