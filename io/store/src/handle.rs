//! Reading one space. Spec: ibgib §12.2, §13.3.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, FrameFacts, Sid, TimelineId, Verified};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_sync::{IdSum, Level, RangeBound, SagaId, SagaState, Snapshot, SpaceView, TipItem};

use crate::entry::HEAD_BYTES;
use crate::index::{Index, Rec, address_hash, tip_hash};
use crate::pack::Pack;
use crate::plan::member_frame;
use crate::space::SpaceState;
use crate::store::Inner;
use crate::{read, write};

/// Bytes in front of the content in the body of a chunk entry: length and hash.
const CHUNK_LINE_BYTES: usize = 36;

/// One space in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceInfo {
    /// Which.
    pub space: SpaceId,
    /// When it was made or adopted here, ms since 1970.
    pub created_ms: u64,
    /// Member records.
    pub records: u64,
    /// Bytes of all member records, encoded, without chunks.
    pub bytes: u64,
    /// Timelines.
    pub timelines: u64,
    /// Tips: more than timelines while some are diverged.
    pub tips: u64,
}

impl SpaceInfo {
    pub(crate) fn of(space: SpaceId, state: &SpaceState) -> Self {
        Self {
            space,
            created_ms: state.created_ms,
            records: state.len(),
            bytes: state.bytes,
            timelines: state.timeline_count(),
            tips: state.tip_count(),
        }
    }
}

/// One timeline of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimelineInfo {
    /// Which.
    pub timeline: TimelineId,
    /// Its first frame.
    pub tjp: Address,
    /// Its tips, sorted by address; several while it is diverged.
    pub tips: Vec<TipItem>,
}

/// Read access to one space of a store; stays usable, and empty, when the space is removed.
#[derive(Clone)]
pub struct SpaceHandle {
    inner: Arc<Inner>,
    space: SpaceId,
}

impl std::fmt::Debug for SpaceHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SpaceHandle({})", self.space)
    }
}

/// Reads a record of the log; `Ok(None)` when what is there is damaged, which is logged.
pub(crate) fn load_record(index: &Index, id: u32) -> io::Result<Option<Verified>> {
    let rec = index.records.get(id);
    match index.packs.get(&rec.place.pack) {
        Some(pack) => read_record(pack, rec),
        None => Ok(None),
    }
}

fn read_record(pack: &Pack, rec: &Rec) -> io::Result<Option<Verified>> {
    let offset = u64::from(rec.place.offset);
    let body = match pack.entry(offset, rec.place.body_len as usize)? {
        Ok((_, body)) => Bytes::from(body),
        Err(damage) => {
            tracing::error!(%damage, "a record cannot be read");
            return Ok(None);
        }
    };
    let start = body.len().saturating_sub(rec.encoded_len as usize);
    // The checksum of the entry vouches for the bytes, and they were accepted before they were written.
    match Verified::trusted(body.slice(start..)) {
        Ok(record) => Ok(Some(record)),
        Err(refusal) => {
            tracing::error!(sid = %rec.sid, %refusal, "a stored record is no record");
            Ok(None)
        }
    }
}

impl Inner {
    fn load(&self, find: impl FnOnce(&Index) -> Option<u32>) -> Option<Verified> {
        let (pack, rec) = {
            let index = read(&self.index);
            let rec = index.records.get(find(&index)?);
            (Arc::clone(index.packs.get(&rec.place.pack)?), rec.clone())
        };
        let record = read_record(&pack, &rec);
        record.unwrap_or_else(|error| {
            tracing::error!(%error, sid = %rec.sid, "a record cannot be read");
            None
        })
    }

    /// Bytes of a chunk from `offset`, at most `limit`; hash unchecked.
    pub(crate) fn chunk_piece(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        let (pack, info) = {
            let index = read(&self.index);
            let info = *index.chunks.get(hash)?;
            (Arc::clone(index.packs.get(&info.place.pack)?), info)
        };
        let mut bytes = vec![0; (info.len.checked_sub(offset)? as usize).min(limit)];
        let start = u64::from(info.place.offset) + (HEAD_BYTES + CHUNK_LINE_BYTES) as u64 + u64::from(offset);
        match pack.file.read_at(start, &mut bytes) {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                tracing::error!(%error, chunk = %hash, "a chunk cannot be read");
                None
            }
        }
    }
}

impl SpaceHandle {
    pub(crate) fn new(inner: Arc<Inner>, space: SpaceId) -> Self {
        Self { inner, space }
    }

    /// Which space.
    pub fn id(&self) -> SpaceId {
        self.space
    }

    fn with<T: Default>(&self, look: impl FnOnce(&Index, &SpaceState) -> T) -> T {
        let index = read(&self.inner.index);
        index.spaces.get(&self.space).map(|state| look(&index, state)).unwrap_or_default()
    }

    fn member(&self, index: &Index, sid: &Sid) -> Option<u32> {
        let state = index.spaces.get(&self.space)?;
        index.records.find(sid).filter(|id| state.is_member(index.records.get(*id), *id))
    }

    /// Counts; `None` when the space was removed.
    pub fn info(&self) -> Option<SpaceInfo> {
        self.with(|_, state| Some(SpaceInfo::of(self.space, state)))
    }

    /// The tips of a timeline, sorted by address.
    pub fn tips(&self, timeline: &TimelineId) -> Vec<TipItem> {
        self.with(|index, state| {
            let timeline = index.timelines.find(timeline);
            timeline.map(|id| state.tips_of(id).into_iter().cloned().collect()).unwrap_or_default()
        })
    }

    /// All tips, sorted by (order, id).
    pub fn tip_items(&self) -> Vec<TipItem> {
        self.with(|_, state| state.tips().cloned().collect())
    }

    /// All timelines with their tips.
    pub fn timelines(&self) -> Vec<TimelineInfo> {
        self.with(|index, state| {
            let info = |id| {
                let tips: Vec<TipItem> = state.tips_of(id).into_iter().cloned().collect();
                let tjp = tips.first()?.tjp.clone();
                Some(TimelineInfo { timeline: index.timelines.get(id), tjp, tips })
            };
            state.timelines().filter_map(info).collect()
        })
    }

    /// The member records with this address, every shape, in ascending order of sid.
    pub fn records_at(&self, address: &Address) -> Vec<Verified> {
        self.by_address(address).iter().filter_map(|sid| self.record(sid)).collect()
    }

    /// The commit stones that name this node as their maker, proven or not, the greatest seq first; at most `limit`.
    pub fn stones_by(&self, node: &NodeId, limit: usize) -> Vec<Sid> {
        self.with(|index, state| state.stones_by(*node).take(limit).map(|id| index.records.get(id).sid).collect())
    }

    /// The nodes that commit stones name as their makers, proven or not, with the stone of the greatest seq of each; at
    /// most `limit` nodes.
    pub fn stone_makers(&self, limit: usize) -> Vec<(NodeId, Sid)> {
        self.with(|index, state| {
            state.stone_makers().take(limit).map(|(node, id)| (node, index.records.get(id).sid)).collect()
        })
    }

    /// All commit stones, proven or not.
    pub fn stones(&self) -> Vec<Sid> {
        self.with(|index, state| state.stones().map(|id| index.records.get(id).sid).collect())
    }

    /// Frames of a timeline that no tip reaches through `past`: the ones that merges and settlements left aside.
    /// They stay readable. Reads every frame of the timeline.
    pub fn orphans(&self, timeline: &TimelineId) -> Vec<Sid> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<Address> = self.tips(timeline).into_iter().map(|tip| tip.tip).collect();
        while let Some(address) = next.pop() {
            let found = self.with(|index, state| member_frame(index, state, &address));
            if let Some((sid, facts)) = found
                && reached.insert(sid)
            {
                next.extend(facts.past);
            }
        }
        let all = self.frames(timeline, 0, u64::MAX, usize::MAX);
        all.into_iter().filter(|sid| !reached.contains(sid)).collect()
    }
}

impl SpaceView for SpaceHandle {
    fn snapshot(&self) -> Arc<Snapshot> {
        if let Some(snapshot) = self.with(|_, state| state.cached_snapshot()) {
            return snapshot;
        }
        let mut index = write(&self.inner.index);
        index.spaces.get_mut(&self.space).map(SpaceState::make_snapshot).unwrap_or_default()
    }

    fn contains(&self, sid: &Sid) -> bool {
        self.member(&read(&self.inner.index), sid).is_some()
    }

    fn record(&self, sid: &Sid) -> Option<Verified> {
        self.inner.load(|index| self.member(index, sid))
    }

    fn by_address(&self, address: &Address) -> Vec<Sid> {
        self.with(|index, state| {
            let ids = state.by_address(&index.records, &address_hash(address));
            ids.into_iter().map(|id| index.records.get(id).sid).collect()
        })
    }

    fn frames(&self, timeline: &TimelineId, from: u64, to: u64, limit: usize) -> Vec<Sid> {
        self.with(|index, state| {
            let timeline = index.timelines.find(timeline);
            timeline.map(|id| state.frames(&index.records, id, from, to, limit)).unwrap_or_default()
        })
    }

    fn frame_facts(&self, address: &Address) -> Option<FrameFacts> {
        self.with(|index, state| member_frame(index, state, address)).map(|(_, facts)| facts)
    }

    fn stones_naming(&self, address: &Address) -> Vec<Sid> {
        self.with(|index, state| state.stones_naming(tip_hash(address)).map(|id| index.records.get(id).sid).collect())
    }

    fn bulk(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<(u64, Sid)> {
        self.with(|index, state| state.bulk(&index.records, after, limit))
    }

    fn range_sum(&self, level: Level, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        self.with(|index, state| state.range_sum(&index.records, level, lo, hi))
    }

    fn range_list(&self, level: Level, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        self.with(|index, state| state.range_list(&index.records, level, lo, hi, limit))
    }

    fn has_chunk(&self, hash: &ChunkHash) -> bool {
        read(&self.inner.index).chunks.contains_key(hash)
    }

    fn chunk(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        // Spec: SY-73: a chunk of another space is not there.
        self.with(|_, state| state.chunks.contains_key(hash)).then(|| self.inner.chunk_piece(hash, offset, limit))?
    }

    fn staged(&self, saga: &SagaId) -> Vec<Sid> {
        let index = read(&self.inner.index);
        let Some(txn) = self.staging_txn(&index, saga) else { return Vec::new() };
        let ids = index.txns.get(&txn).map(|txn| &txn.records).into_iter().flatten();
        let mut sids: Vec<Sid> = ids.map(|id| index.records.get(*id).sid).collect();
        sids.sort_unstable();
        sids
    }

    fn staged_record(&self, saga: &SagaId, sid: &Sid) -> Option<Verified> {
        self.inner.load(|index| {
            let txn = self.staging_txn(index, saga)?;
            index.records.find(sid).filter(|id| index.txns.get(&txn).is_some_and(|txn| txn.records.contains(id)))
        })
    }
}

impl SpaceHandle {
    fn staging_txn(&self, index: &Index, saga: &SagaId) -> Option<u64> {
        let info = index.sagas.get(saga)?;
        (info.state == SagaState::Staged && info.space == self.space).then_some(info.txn)
    }
}
