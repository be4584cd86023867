//! One entry of a pack as bytes: a head of 20 bytes and a body. Spec: store, "Entries".
//!
//! ```text
//! magic "STE" | kind u8 | body length u32 | head check 4 | body check 8 | body
//! ```
//!
//! Both checks are keyed with the secret of the pack and bound to the offset, so no bytes inside a body can pass
//! for an entry. All numbers are little-endian.

use std::borrow::Cow;

use sealtide_crypto::Blake3;
use sealtide_ibgib::{ChunkHash, Sid, TimelineId};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_sync::{IdSum, LtHash, SagaId, SetSummary};

use crate::compress::ChunkForm;
use crate::pack::Place;

/// Bytes of the head.
pub(crate) const HEAD_BYTES: usize = 20;
/// Bytes of the largest body: a chunk of 4 MiB or a record with its chunk list, with room.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The first bytes of every entry.
pub(crate) const MAGIC: [u8; 3] = *b"STE";
/// The `n` of a record that is in no timeline.
const NO_FRAME: u64 = u64::MAX;
/// Set in the count of chunks of a commit stone: what it says follows.
const STONE: u32 = 1 << 31;
/// Bytes of the lanes of a set digest.
const LANES_BYTES: usize = 2048;
/// The saga field of a local change.
const NO_SAGA: [u8; 32] = [0; 32];

/// The secret of one pack.
#[derive(Clone, Copy)]
pub(crate) struct PackKey(pub(crate) [u8; 32]);

impl std::fmt::Debug for PackKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PackKey(…)")
    }
}

impl PackKey {
    fn check(&self, offset: u64, parts: [&[u8]; 2]) -> [u8; 32] {
        let mut hasher = Blake3::new();
        hasher.update(&self.0);
        hasher.update(&offset.to_le_bytes());
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finish()
    }

    /// The check of the head of a record's entry and all that stands in front of the record, for that of the body is lost
    /// with the record.
    pub(crate) fn line_check(&self, offset: u64, front: &[u8]) -> [u8; 8] {
        let mut out = [0; 8];
        out.copy_from_slice(&self.check(offset, [b"erased", front])[..8]);
        out
    }
}

/// What the head of an entry says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) kind: u8,
    pub(crate) body_len: usize,
    body_check: [u8; 8],
}

impl Head {
    /// Reads and checks a head; `None` when no entry begins here.
    pub(crate) fn read(key: &PackKey, offset: u64, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEAD_BYTES] = bytes.get(..HEAD_BYTES)?.try_into().ok()?;
        let body_len = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        if bytes[..3] != MAGIC || body_len > BODY_BYTES_MAX {
            return None;
        }
        if key.check(offset, [&bytes[..8], &[]])[..4] != bytes[8..12] {
            return None;
        }
        let body_check = bytes[12..20].try_into().ok()?;
        Some(Self { kind: bytes[3], body_len, body_check })
    }

    /// Whether a chunk stands here, in either form.
    pub(crate) fn is_chunk(&self) -> bool {
        matches!(self.kind, KIND_CHUNK | KIND_CHUNK_COMPRESSED)
    }

    /// Whether `body` is the body that was written under this head.
    pub(crate) fn fits(&self, key: &PackKey, offset: u64, body: &[u8]) -> bool {
        key.check(offset, [&[self.kind], body])[..8] == self.body_check
    }
}

/// Builds consecutive entries that will be appended at `base`.
pub(crate) struct Builder {
    key: PackKey,
    base: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Builder {
    pub(crate) fn new(key: PackKey, base: u64) -> Self {
        Self { key, base, bytes: Vec::new() }
    }

    /// Appends one entry; gives its offset in the pack and the length of its body.
    pub(crate) fn push(&mut self, entry: &Entry<'_>) -> (u64, usize) {
        let start = self.bytes.len();
        let offset = self.base + start as u64;
        self.bytes.extend_from_slice(&MAGIC);
        self.bytes.push(entry.kind());
        self.bytes.resize(start + HEAD_BYTES, 0);
        entry.write(&mut self.bytes);
        let body_len = self.bytes.len() - start - HEAD_BYTES;
        let (head, body) = self.bytes[start..].split_at_mut(HEAD_BYTES);
        head[4..8].copy_from_slice(&(body_len as u32).to_le_bytes());
        let head_check = self.key.check(offset, [&head[..8], &[]]);
        head[8..12].copy_from_slice(&head_check[..4]);
        let body_check = self.key.check(offset, [&head[3..4], body]);
        head[12..20].copy_from_slice(&body_check[..8]);
        (offset, body_len)
    }
}

/// What the index needs of a record, written in front of it so that opening parses no JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordLine {
    pub(crate) sid: Sid,
    pub(crate) order: u64,
    /// Timeline and counter of a frame.
    pub(crate) frame: Option<(TimelineId, u64)>,
    /// First 16 bytes of SHA-256 of the address.
    pub(crate) address: [u8; 16],
    /// The chunks that the record lists itself.
    pub(crate) chunks: Vec<ChunkHash>,
    /// What a commit stone says; `None` for everything else.
    pub(crate) stone: Option<StoneLine>,
}

/// What the index needs of a commit stone. Spec: ibgib §12.6
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoneLine {
    /// The node that it names, proven or not.
    pub(crate) by: NodeId,
    pub(crate) seq: u64,
    /// First 8 bytes of SHA-256 of the address of each tip.
    pub(crate) tips: Vec<u64>,
}

/// One tip after a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TipLine {
    pub(crate) sid: Sid,
    pub(crate) n: u64,
    pub(crate) address: String,
}

/// What a commit changes in the tips of one timeline. Large changes come as several of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) timeline: TimelineId,
    pub(crate) order: u64,
    pub(crate) tjp: String,
    pub(crate) removed: Vec<Sid>,
    pub(crate) added: Vec<TipLine>,
}

/// The entry that makes a transaction visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitLine {
    pub(crate) txn: u64,
    pub(crate) space: SpaceId,
    pub(crate) saga: Option<SagaId>,
    pub(crate) wall_ms: u64,
    /// Bytes of this pack that were known durable when the entry was written.
    pub(crate) durable: u64,
    /// The commit makes the space: both or none.
    pub(crate) creates: bool,
    /// Records staged under `txn`.
    pub(crate) staged: u64,
    /// The draft of `txn` becomes part of the space, beside what was staged since.
    pub(crate) joins: bool,
    /// `Take` entries name the staged records that count; otherwise all do.
    pub(crate) only_taken: bool,
    pub(crate) taken: u64,
    pub(crate) moves: u64,
    /// Counts and digests of the space after the commit.
    pub(crate) items: u64,
    pub(crate) tips: u64,
    pub(crate) item_digest: [u8; 32],
    pub(crate) tip_digest: [u8; 32],
}

/// A record that was given up: what stood in front of it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ErasedLine {
    pub(crate) sid: Sid,
    pub(crate) place: Place,
    /// Bytes of the record, at the end of the body.
    pub(crate) encoded_len: u32,
    pub(crate) line_check: [u8; 8],
}

/// What becomes of the draft of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DraftStep {
    /// What is staged so far becomes part of it, with the last `moves` tip moves in front of this. Tips of the timelines `later` are
    /// settled later.
    Grow { moves: u64, later: Vec<TimelineId> },
    /// As `Grow`; and the tips of all timelines are settled now.
    Settle { moves: u64 },
    /// There is no draft any more: what was in it is staged again, record by record.
    Drop,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    /// An empty space exists from here on.
    Space { space: SpaceId, wall_ms: u64 },
    /// A space and its membership are gone.
    Remove { space: SpaceId },
    /// A saga begins to stage under `txn`.
    Saga { txn: u64, space: SpaceId, saga: SagaId, wall_ms: u64 },
    /// A record, staged by `txn`.
    Record { txn: u64, line: RecordLine, encoded: &'a [u8], encoded_len: u32 },
    /// Records that an earlier entry holds, staged by `txn` too.
    Known { txn: u64, sids: Vec<Sid> },
    /// A chunk: its content, or a zstd frame of it.
    Chunk { hash: ChunkHash, stored: ChunkForm<'a>, content_len: u32 },
    /// A step of the draft of `txn`.
    Draft { txn: u64, space: SpaceId, step: DraftStep },
    /// Staged records that the next commit of `txn` takes.
    Take { txn: u64, sids: Vec<Sid> },
    /// Tip moves of the next commit of `txn`.
    Moves { txn: u64, moves: Vec<Move> },
    /// A transaction becomes visible.
    Commit(CommitLine),
    /// A saga ended without a commit; its staged records are dropped.
    Abort { txn: u64, space: SpaceId, saga: SagaId, wall_ms: u64 },
    /// The store was closed when this many bytes of the pack were durable.
    Mark { durable: u64 },
    /// The pack is full; nothing follows.
    Seal,
    /// Chunks that nobody needs any more, with the places of their entries: the room of those may be given back.
    Free { chunks: Vec<(ChunkHash, Place)> },
    /// Records that no space has any more: the room of what they say may be given back.
    Erase { records: Vec<ErasedLine> },
    /// The summaries of a space at this place: spares the next open to count what lies before.
    Sums { space: SpaceId, items: SetSummary, tips: SetSummary },
}

/// What is said of an entry that has its checks and cannot be read.
pub(crate) const UNKNOWN_ENTRY: &str = "an entry that this version does not know: a newer sealtide wrote it";

/// Kind byte of commits.
pub(crate) const KIND_COMMIT: u8 = 9;
/// Kind byte of marks.
pub(crate) const KIND_MARK: u8 = 11;
/// Kind byte of chunks.
pub(crate) const KIND_CHUNK: u8 = 6;
/// Kind byte of chunks that are compressed.
pub(crate) const KIND_CHUNK_COMPRESSED: u8 = 15;
/// Kind byte of lists of freed chunks.
pub(crate) const KIND_FREE: u8 = 14;
/// Kind byte of records.
pub(crate) const KIND_RECORD: u8 = 4;
/// Kind byte of lists of erased records.
pub(crate) const KIND_ERASE: u8 = 16;
/// Bytes in front of the content in the body of a chunk entry: length and hash.
pub(crate) const CHUNK_LINE_BYTES: usize = 36;
/// Kind byte of what goes on with a draft.
const KIND_DRAFT: u8 = 17;
/// Kind byte of the seal.
pub(crate) const KIND_SEAL: u8 = 12;

impl<'a> Entry<'a> {
    /// The entry of a chunk, in the form that takes less room.
    pub(crate) fn chunk(hash: ChunkHash, content: &'a [u8]) -> Self {
        Self::Chunk { hash, stored: ChunkForm::of(content), content_len: content.len() as u32 }
    }

    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Space { .. } => 1,
            Self::Remove { .. } => 2,
            Self::Saga { .. } => 3,
            Self::Record { .. } => KIND_RECORD,
            Self::Known { .. } => 5,
            Self::Chunk { stored, .. } => {
                if stored.compressed {
                    KIND_CHUNK_COMPRESSED
                } else {
                    KIND_CHUNK
                }
            }
            Self::Take { .. } => 7,
            Self::Moves { .. } => 8,
            Self::Commit(_) => KIND_COMMIT,
            Self::Abort { .. } => 10,
            Self::Mark { .. } => KIND_MARK,
            Self::Seal => KIND_SEAL,
            Self::Sums { .. } => 13,
            Self::Free { .. } => KIND_FREE,
            Self::Erase { .. } => KIND_ERASE,
            Self::Draft { .. } => KIND_DRAFT,
        }
    }

    /// The body.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        self.write_slim(out);
        match self {
            Self::Record { encoded, .. } => out.extend_from_slice(encoded),
            Self::Chunk { stored, .. } => out.extend_from_slice(&stored.bytes),
            _ => {}
        }
    }

    /// The body without the payload of records and chunks.
    pub(crate) fn write_slim(&self, out: &mut Vec<u8>) {
        match self {
            Self::Space { space, wall_ms } => {
                out.extend_from_slice(space.as_bytes());
                put64(out, *wall_ms);
            }
            Self::Remove { space } => out.extend_from_slice(space.as_bytes()),
            Self::Saga { txn, space, saga, wall_ms } | Self::Abort { txn, space, saga, wall_ms } => {
                put64(out, *txn);
                out.extend_from_slice(space.as_bytes());
                out.extend_from_slice(&saga.0);
                put64(out, *wall_ms);
            }
            Self::Record { txn, line, encoded_len, .. } => {
                put64(out, *txn);
                put32(out, *encoded_len);
                put_line(out, line);
            }
            Self::Chunk { hash, content_len, .. } => {
                put32(out, *content_len);
                out.extend_from_slice(&hash.0);
            }
            Self::Known { txn, sids } | Self::Take { txn, sids } => {
                put64(out, *txn);
                put_sids(out, sids);
            }
            Self::Moves { txn, moves } => {
                put64(out, *txn);
                put32(out, moves.len() as u32);
                moves.iter().for_each(|change| put_move(out, change));
            }
            Self::Commit(commit) => put_commit(out, commit),
            Self::Free { chunks } => {
                put32(out, chunks.len() as u32);
                for (hash, place) in chunks {
                    out.extend_from_slice(&hash.0);
                    put_place(out, *place);
                }
            }
            Self::Erase { records } => {
                put32(out, records.len() as u32);
                for record in records {
                    out.extend_from_slice(&record.sid.0);
                    put_place(out, record.place);
                    put32(out, record.encoded_len);
                    out.extend_from_slice(&record.line_check);
                }
            }
            Self::Draft { txn, space, step } => {
                put64(out, *txn);
                out.extend_from_slice(space.as_bytes());
                let (moves, kind) = match step {
                    DraftStep::Grow { moves, later } => (*moves, if later.is_empty() { 0 } else { 2 }),
                    DraftStep::Drop => (0, 1),
                    DraftStep::Settle { moves } => (*moves, 3),
                };
                put64(out, moves);
                out.push(kind);
                if let DraftStep::Grow { later, .. } = step
                    && !later.is_empty()
                {
                    put_timelines(out, later.iter());
                }
            }
            Self::Mark { durable } => put64(out, *durable),
            Self::Seal => {}
            Self::Sums { space, items, tips } => {
                out.extend_from_slice(space.as_bytes());
                put_summary(out, items);
                put_summary(out, tips);
            }
        }
    }

    /// Reads a whole body.
    pub(crate) fn read(kind: u8, body: &'a [u8]) -> Option<Self> {
        let mut cut = Cut(body);
        let mut entry = Self::read_slim(kind, &mut cut)?;
        match &mut entry {
            Self::Record { encoded, encoded_len, .. } => *encoded = cut.take(*encoded_len as usize)?,
            Self::Chunk { stored, content_len, .. } => {
                let len = if stored.compressed { cut.0.len() } else { *content_len as usize };
                stored.bytes = cut.take(len)?.into();
            }
            _ => {}
        }
        cut.0.is_empty().then_some(entry)
    }

    /// Reads a body without the payload of records and chunks, and leaves what follows.
    pub(crate) fn read_slim(kind: u8, cut: &mut Cut<'a>) -> Option<Self> {
        Some(match kind {
            1 => Self::Space { space: cut.space()?, wall_ms: cut.u64()? },
            2 => Self::Remove { space: cut.space()? },
            3 => Self::Saga { txn: cut.u64()?, space: cut.space()?, saga: SagaId(cut.id()?), wall_ms: cut.u64()? },
            KIND_RECORD => {
                let txn = cut.u64()?;
                let encoded_len = cut.u32()?;
                Self::Record { txn, line: read_line(cut)?, encoded: &[], encoded_len }
            }
            5 => Self::Known { txn: cut.u64()?, sids: cut.sids()? },
            KIND_CHUNK | KIND_CHUNK_COMPRESSED => {
                let content_len = cut.u32()?;
                let stored = ChunkForm { bytes: Cow::default(), compressed: kind == KIND_CHUNK_COMPRESSED };
                Self::Chunk { hash: ChunkHash(cut.id()?), stored, content_len }
            }
            7 => Self::Take { txn: cut.u64()?, sids: cut.sids()? },
            KIND_DRAFT => {
                let (txn, space, moves) = (cut.u64()?, cut.space()?, cut.u64()?);
                let step = match cut.u8()? {
                    0 => DraftStep::Grow { moves, later: Vec::new() },
                    1 => DraftStep::Drop,
                    2 => DraftStep::Grow { moves, later: cut.timelines()? },
                    3 => DraftStep::Settle { moves },
                    _ => return None,
                };
                Self::Draft { txn, space, step }
            }
            8 => {
                let txn = cut.u64()?;
                let count = cut.u32()?;
                let moves = (0..count).map(|_| read_move(cut)).collect::<Option<_>>()?;
                Self::Moves { txn, moves }
            }
            KIND_COMMIT => Self::Commit(read_commit(cut)?),
            10 => Self::Abort { txn: cut.u64()?, space: cut.space()?, saga: SagaId(cut.id()?), wall_ms: cut.u64()? },
            KIND_MARK => Self::Mark { durable: cut.u64()? },
            KIND_SEAL => Self::Seal,
            KIND_FREE => {
                let count = cut.u32()?;
                let mut freed = || {
                    let hash = ChunkHash(cut.id()?);
                    Some((hash, read_place(cut)?))
                };
                Self::Free { chunks: (0..count).map(|_| freed()).collect::<Option<_>>()? }
            }
            KIND_ERASE => {
                let count = cut.u32()?;
                let mut erased = || {
                    let (sid, place, encoded_len) = (Sid(cut.id()?), read_place(cut)?, cut.u32()?);
                    Some(ErasedLine { sid, place, encoded_len, line_check: cut.take(8)?.try_into().ok()? })
                };
                Self::Erase { records: (0..count).map(|_| erased()).collect::<Option<_>>()? }
            }
            13 => Self::Sums { space: cut.space()?, items: read_summary(cut)?, tips: read_summary(cut)? },
            _ => return None,
        })
    }
}

pub(crate) fn put32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

pub(crate) fn put64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_place(out: &mut Vec<u8>, place: Place) {
    [place.pack, place.offset, place.body_len].iter().for_each(|number| put32(out, *number));
}

fn read_place(cut: &mut Cut<'_>) -> Option<Place> {
    Some(Place { pack: cut.u32()?, offset: cut.u32()?, body_len: cut.u32()? })
}

pub(crate) fn put_timelines<'a>(out: &mut Vec<u8>, timelines: impl ExactSizeIterator<Item = &'a TimelineId>) {
    put32(out, timelines.len() as u32);
    timelines.for_each(|timeline| out.extend_from_slice(&timeline.0));
}

pub(crate) fn put_sids(out: &mut Vec<u8>, sids: &[Sid]) {
    put32(out, sids.len() as u32);
    sids.iter().for_each(|sid| out.extend_from_slice(&sid.0));
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_move(out: &mut Vec<u8>, change: &Move) {
    out.extend_from_slice(&change.timeline.0);
    put64(out, change.order);
    put_text(out, &change.tjp);
    put_sids(out, &change.removed);
    put32(out, change.added.len() as u32);
    for tip in &change.added {
        out.extend_from_slice(&tip.sid.0);
        put64(out, tip.n);
        put_text(out, &tip.address);
    }
}

pub(crate) fn read_move(cut: &mut Cut<'_>) -> Option<Move> {
    let timeline = TimelineId(cut.id()?);
    let order = cut.u64()?;
    let tjp = cut.text()?;
    let removed = cut.sids()?;
    let count = cut.u32()?;
    let added = (0..count)
        .map(|_| Some(TipLine { sid: Sid(cut.id()?), n: cut.u64()?, address: cut.text()? }))
        .collect::<Option<_>>()?;
    Some(Move { timeline, order, tjp, removed, added })
}

pub(crate) fn read_line(cut: &mut Cut<'_>) -> Option<RecordLine> {
    let sid = Sid(cut.id()?);
    let order = cut.u64()?;
    let timeline = TimelineId(cut.id()?);
    let n = cut.u64()?;
    let address = cut.take(16)?.try_into().ok()?;
    let count = cut.u32()?;
    let chunks = (0..count & !STONE).map(|_| Some(ChunkHash(cut.id()?))).collect::<Option<_>>()?;
    let stone = if count & STONE == 0 { None } else { Some(read_stone(cut)?) };
    Some(RecordLine { sid, order, frame: (n != NO_FRAME).then_some((timeline, n)), address, chunks, stone })
}

fn read_stone(cut: &mut Cut<'_>) -> Option<StoneLine> {
    let (by, seq, count) = (NodeId::from_bytes(cut.id()?), cut.u64()?, cut.u32()?);
    let tips = (0..count).map(|_| cut.u64()).collect::<Option<_>>()?;
    Some(StoneLine { by, seq, tips })
}

pub(crate) fn put_line(out: &mut Vec<u8>, line: &RecordLine) {
    out.extend_from_slice(&line.sid.0);
    put64(out, line.order);
    let (timeline, n) = line.frame.map_or(([0; 32], NO_FRAME), |(timeline, n)| (timeline.0, n));
    out.extend_from_slice(&timeline);
    put64(out, n);
    out.extend_from_slice(&line.address);
    put32(out, line.chunks.len() as u32 | if line.stone.is_some() { STONE } else { 0 });
    line.chunks.iter().for_each(|chunk| out.extend_from_slice(&chunk.0));
    if let Some(stone) = &line.stone {
        out.extend_from_slice(stone.by.as_bytes());
        put64(out, stone.seq);
        put32(out, stone.tips.len() as u32);
        stone.tips.iter().for_each(|tip| put64(out, *tip));
    }
}

pub(crate) fn put_summary(out: &mut Vec<u8>, summary: &SetSummary) {
    put64(out, summary.count);
    out.extend_from_slice(&summary.sum.0);
    out.extend_from_slice(&summary.lanes.to_bytes());
}

fn put_commit(out: &mut Vec<u8>, commit: &CommitLine) {
    put64(out, commit.txn);
    out.extend_from_slice(commit.space.as_bytes());
    out.extend_from_slice(&commit.saga.map_or(NO_SAGA, |saga| saga.0));
    let flags = u64::from(commit.only_taken) | u64::from(commit.creates) << 1 | u64::from(commit.joins) << 2;
    for number in [commit.wall_ms, commit.durable, commit.staged, flags, commit.taken] {
        put64(out, number);
    }
    for number in [commit.moves, commit.items, commit.tips] {
        put64(out, number);
    }
    out.extend_from_slice(&commit.item_digest);
    out.extend_from_slice(&commit.tip_digest);
}

fn read_commit(cut: &mut Cut<'_>) -> Option<CommitLine> {
    let txn = cut.u64()?;
    let space = cut.space()?;
    let saga = Some(cut.id()?).filter(|saga| *saga != NO_SAGA).map(SagaId);
    let (wall_ms, durable, staged) = (cut.u64()?, cut.u64()?, cut.u64()?);
    let flags = cut.u64().filter(|flags| *flags < 8)?;
    let (taken, moves, items, tips) = (cut.u64()?, cut.u64()?, cut.u64()?, cut.u64()?);
    let (item_digest, tip_digest) = (cut.id()?, cut.id()?);
    let commit = CommitLine {
        txn,
        space,
        saga,
        wall_ms,
        durable,
        creates: flags & 2 != 0,
        joins: flags & 4 != 0,
        staged,
        only_taken: flags & 1 != 0,
        taken,
        moves,
        items,
        tips,
        item_digest,
        tip_digest,
    };
    Some(commit)
}

pub(crate) fn read_summary(cut: &mut Cut<'_>) -> Option<SetSummary> {
    let (count, sum) = (cut.u64()?, IdSum(cut.id()?));
    Some(SetSummary { count, sum, lanes: LtHash::from_bytes(cut.take(LANES_BYTES)?)? })
}

/// Reads from the front of some bytes.
pub(crate) struct Cut<'a>(pub(crate) &'a [u8]);

impl<'a> Cut<'a> {
    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn id(&mut self) -> Option<[u8; 32]> {
        self.take(32)?.try_into().ok()
    }

    pub(crate) fn space(&mut self) -> Option<SpaceId> {
        self.id().map(SpaceId::from_bytes)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        let len = self.u32()? as usize;
        String::from_utf8(self.take(len)?.to_vec()).ok()
    }

    pub(crate) fn timelines(&mut self) -> Option<Vec<TimelineId>> {
        let count = self.u32()?;
        (0..count).map(|_| self.id().map(TimelineId)).collect()
    }

    pub(crate) fn sids(&mut self) -> Option<Vec<Sid>> {
        let count = self.u32()? as usize;
        let bytes = self.take(count.checked_mul(32)?)?;
        Some(bytes.chunks_exact(32).map(|sid| Sid(sid.try_into().expect("pieces of 32 bytes"))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Entry<'static>> {
        let space = SpaceId::from_bytes([7; 32]);
        let line = RecordLine {
            sid: Sid([1; 32]),
            order: 5,
            frame: Some((TimelineId([2; 32]), 3)),
            address: [4; 16],
            chunks: vec![ChunkHash([9; 32])],
            stone: None,
        };
        let stone = RecordLine { frame: None, chunks: Vec::new(), ..line.clone() };
        let says = StoneLine { by: NodeId::from_bytes([6; 32]), seq: 4, tips: vec![7, 8] };
        let signed = RecordLine { stone: Some(says), ..stone.clone() };
        let tip = TipLine { sid: Sid([8; 32]), n: 4, address: "a^b".to_owned() };
        let change = Move {
            timeline: TimelineId([2; 32]),
            order: 5,
            tjp: "t^x".to_owned(),
            removed: vec![Sid([1; 32])],
            added: vec![tip],
        };
        let commit = CommitLine {
            txn: 1,
            space,
            saga: Some(SagaId([3; 32])),
            wall_ms: 2,
            durable: 3,
            creates: true,
            staged: 4,
            joins: true,
            only_taken: true,
            taken: 5,
            moves: 6,
            items: 7,
            tips: 8,
            item_digest: [1; 32],
            tip_digest: [2; 32],
        };
        let mut items = SetSummary::default();
        items.add(&[1; 32]);
        let place = Place { pack: 1, offset: 2, body_len: 3 };
        vec![
            Entry::Space { space, wall_ms: 1 },
            Entry::Remove { space },
            Entry::Saga { txn: 1, space, saga: SagaId([3; 32]), wall_ms: 2 },
            Entry::Record { txn: 1, line, encoded: b"record", encoded_len: 6 },
            Entry::Record { txn: 1, line: stone, encoded: b"", encoded_len: 0 },
            Entry::Record { txn: 1, line: signed, encoded: b"commit", encoded_len: 6 },
            Entry::Known { txn: 1, sids: vec![Sid([1; 32]), Sid([2; 32])] },
            Entry::Chunk { hash: ChunkHash([5; 32]), stored: ChunkForm::of(b"chunk"), content_len: 5 },
            Entry::Chunk { hash: ChunkHash([6; 32]), stored: ChunkForm::of(&[1; 500]), content_len: 500 },
            Entry::Take { txn: 1, sids: vec![Sid([1; 32])] },
            Entry::Draft { txn: 1, space, step: DraftStep::Grow { moves: 2, later: Vec::new() } },
            Entry::Draft { txn: 1, space, step: DraftStep::Grow { moves: 2, later: vec![TimelineId([8; 32])] } },
            Entry::Draft { txn: 1, space, step: DraftStep::Settle { moves: 2 } },
            Entry::Draft { txn: 1, space, step: DraftStep::Drop },
            Entry::Moves { txn: 1, moves: vec![change.clone(), change] },
            Entry::Commit(commit.clone()),
            Entry::Commit(CommitLine { saga: None, joins: false, only_taken: false, ..commit }),
            Entry::Abort { txn: 1, space, saga: SagaId([3; 32]), wall_ms: 2 },
            Entry::Mark { durable: 77 },
            Entry::Seal,
            Entry::Sums { space, items, tips: SetSummary::default() },
            Entry::Free { chunks: vec![(ChunkHash([5; 32]), place)] },
            Entry::Erase { records: vec![ErasedLine { sid: Sid([1; 32]), place, encoded_len: 7, line_check: [3; 8] }] },
        ]
    }

    #[test]
    fn every_entry_comes_back() {
        let key = PackKey([1; 32]);
        let mut builder = Builder::new(key, 64);
        for entry in samples() {
            let (offset, body_len) = builder.push(&entry);
            let at = (offset - 64) as usize;
            let head = Head::read(&key, offset, &builder.bytes[at..]).unwrap();
            let body = &builder.bytes[at + HEAD_BYTES..];
            assert_eq!((head.kind, head.body_len, body.len()), (entry.kind(), body_len, body_len));
            assert!(head.fits(&key, offset, body));
            assert_eq!(Entry::read(head.kind, body).as_ref(), Some(&entry));
        }
    }

    #[test]
    fn an_entry_counts_only_at_its_place_under_its_key_and_unchanged() {
        let key = PackKey([1; 32]);
        let accepted = |key: &PackKey, offset: u64, bytes: &[u8]| {
            Head::read(key, offset, bytes).is_some_and(|head| {
                bytes.len() == HEAD_BYTES + head.body_len && head.fits(key, offset, &bytes[HEAD_BYTES..])
            })
        };
        for entry in samples() {
            let mut builder = Builder::new(key, 100);
            builder.push(&entry);
            assert!(accepted(&key, 100, &builder.bytes));
            assert!(!accepted(&key, 101, &builder.bytes));
            assert!(!accepted(&PackKey([2; 32]), 100, &builder.bytes));
            for at in 0..builder.bytes.len() {
                let mut flipped = builder.bytes.clone();
                flipped[at] ^= 1;
                assert!(!accepted(&key, 100, &flipped), "{entry:?} byte {at}");
            }
        }
    }

    #[test]
    fn cut_or_padded_bodies_are_refused() {
        // Where a compressed chunk ends the head of its entry says, which is checked.
        for entry in samples().into_iter().filter(|entry| entry.kind() != KIND_CHUNK_COMPRESSED) {
            let mut body = Vec::new();
            entry.write(&mut body);
            for len in 0..body.len() {
                assert_eq!(Entry::read(entry.kind(), &body[..len]), None, "{entry:?} cut to {len}");
            }
            body.push(0);
            assert_eq!(Entry::read(entry.kind(), &body), None);
        }
        assert_eq!(Entry::read(99, &[]), None);
    }
}
