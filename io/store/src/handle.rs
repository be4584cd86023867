//! Reading one space. Spec: ibgib §12.2, §13.3.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, FrameFacts, Refusal, Sid, TimelineId, Verified};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_sync::negentropy::Ranges;
use sealtide_sync::{BulkItem, IdSum, RangeBound, SagaId, SagaState, Snapshot, SpaceView, TipItem};

use crate::compress::ChunkForm;
use crate::error::Damage;
use crate::index::{ChunkInfo, Index, tip_hash};
use crate::pack::{Pack, Packs, Place};
use crate::plan::{by_address, frames_of, member_frame};
use crate::read;
use crate::run::Unreadable;
use crate::space::SpaceState;
use crate::store::Inner;
use crate::table::{
    Stored, Table, kind_hash, kind_key, last_sid, maker_key, maker_row, member_key, named_key, read_maker,
    read_member_key, read_member_row,
};
use crate::tips::Head;

/// One space in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceInfo {
    /// Which.
    pub space: SpaceId,
    /// When it was made or adopted here, ms since 1970.
    pub created_ms: u64,
    /// Member records.
    pub records: u64,
    /// Bytes of all member records, encoded, and of the chunks that they list, each once.
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
            timelines: state.tips.timelines,
            tips: state.tips.count,
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
///
/// What the disk does not give back is left out of an answer, as if it were not there: [`crate::Store::health`] tells whether that happened.
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

/// Why what an index speaks of cannot be given out.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Damage(#[from] Damage),
    #[error("it is no record: {0}")]
    NoRecord(#[from] Refusal),
}

/// Notes that an answer is without what should be in this pack: [`crate::Store::health`] tells.
fn leave_out(pack: &Pack, place: Place, error: &Broken) {
    pack.left_out.store(true, Ordering::Relaxed);
    tracing::error!(%error, pack = pack.number, offset = place.offset, "a part of the store cannot be read");
}

/// Reads a record where it was at one moment; `None` when it cannot be read. That may be since it was erased meanwhile, so it
/// does not count as damage.
pub(crate) fn load(packs: &Packs, stored: &Stored) -> Option<Verified> {
    let pack = packs.get(&stored.place.pack)?;
    let record = read_as(pack, stored, Verified::from_own_log);
    let told =
        |error| tracing::warn!(%error, pack = pack.number, offset = stored.place.offset, "a record is not there");
    record.map_err(told).ok()
}

/// Reads a record of the log; `Ok(None)` when what is there is damaged, which is logged.
pub(crate) fn load_record(index: &Index, stored: &Stored) -> io::Result<Option<Verified>> {
    load_with(index, stored, Verified::from_own_log)
}

/// As [`load_record`], for one whose sid is known: it is not worked out again.
pub(crate) fn load_record_as(index: &Index, stored: &Stored, sid: Sid) -> io::Result<Option<Verified>> {
    load_with(index, stored, |encoded| Verified::from_own_log_as(encoded, sid))
}

/// Nothing moves while the caller has the index.
fn load_with(
    index: &Index,
    stored: &Stored,
    trust: impl FnOnce(Bytes) -> Result<Verified, Refusal>,
) -> io::Result<Option<Verified>> {
    let Some(pack) = index.packs.get(&stored.place.pack) else { return Ok(None) };
    match read_as(pack, stored, trust) {
        Ok(record) => Ok(Some(record)),
        Err(Broken::Io(error)) => Err(error),
        Err(error) => {
            leave_out(pack, stored.place, &error);
            Ok(None)
        }
    }
}

fn read_as(
    pack: &Pack,
    stored: &Stored,
    trust: impl FnOnce(Bytes) -> Result<Verified, Refusal>,
) -> Result<Verified, Broken> {
    Ok(trust(read_encoded(pack, stored)?)?)
}

/// The encoded bytes of a record: the end of the body of its entry. The checksum of the entry vouches for them, and
/// they were accepted before they were written.
fn read_encoded(pack: &Pack, stored: &Stored) -> Result<Bytes, Broken> {
    let (_, body) = pack.entry(u64::from(stored.place.offset), stored.place.body_len as usize)??;
    let body = Bytes::from(body);
    let start = body.len().saturating_sub(stored.encoded_len as usize);
    Ok(body.slice(start..))
}

/// A member as the bulk stream lists it.
fn bulk_item((sid, Stored { order, place, encoded_len }): (Sid, Stored)) -> BulkItem {
    BulkItem { order, sid, place: Some([place.pack, place.offset, place.body_len, encoded_len]) }
}

impl Inner {
    /// Reads the record `sid`, which lies where `find` says.
    fn load(&self, sid: &Sid, find: impl Fn(&Index) -> Option<Stored>) -> Option<Verified> {
        let how =
            |pack: &Pack, stored: &Stored| read_as(pack, stored, |encoded| Verified::from_own_log_as(encoded, *sid));
        self.read(|index| find(index).map(|stored| (stored.place, stored)), how)
    }

    /// Reads what lies where `find` says. What cannot be read there, and is there still when the index is asked again, is
    /// damaged; meanwhile it may have been given back.
    fn read<K: PartialEq, T>(
        &self,
        find: impl Fn(&Index) -> Option<(Place, K)>,
        how: impl Fn(&Pack, &K) -> Result<T, Broken>,
    ) -> Option<T> {
        let look = || {
            let index = read(&self.index);
            let (place, found) = find(&index)?;
            Some((Arc::clone(index.packs.get(&place.pack)?), place, found))
        };
        let mut at = look()?;
        loop {
            let (pack, place, found) = at;
            let error = match how(&pack, &found) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let now = look()?;
            if now.2 == found {
                leave_out(&pack, place, &error);
                return None;
            }
            at = now;
        }
    }

    /// A whole chunk; hash unchecked.
    pub(crate) fn chunk_content(&self, hash: &ChunkHash) -> Option<Bytes> {
        self.chunk_piece(hash, 0, usize::MAX)
    }

    /// Bytes of a chunk from `offset`, at most `limit`; hash unchecked.
    fn chunk_piece(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        let find = |index: &Index| index.chunk(hash).ok()?.map(|info| (info.place, info));
        let piece = self.read(find, |pack, info| {
            if info.is_compressed() {
                // A transfer asks for one piece after the other.
                let cut = |content: Bytes| {
                    let end = content.len().min((offset as usize).saturating_add(limit));
                    (offset as usize <= end).then(|| content.slice(offset as usize..end))
                };
                if let Some(content) = self.expanded.get(hash) {
                    return Ok(cut(content));
                }
                let content = read_content(pack, info)?;
                if limit < content.len() {
                    self.expanded.keep(*hash, content.clone());
                }
                return Ok(cut(content));
            }
            let Some(left) = info.len.checked_sub(offset) else { return Ok(None) };
            let mut bytes = vec![0; (left as usize).min(limit)];
            pack.file.read_at(info.start() + u64::from(offset), &mut bytes)?;
            Ok(Some(bytes.into()))
        });
        piece?
    }
}

/// The content of a compressed chunk.
fn read_content(pack: &Pack, info: &ChunkInfo) -> io::Result<Bytes> {
    let mut bytes = vec![0; info.stored_len() as usize];
    pack.file.read_at(info.start(), &mut bytes)?;
    let content = ChunkForm { bytes: bytes.into(), compressed: true }.content(info.len as usize);
    let content = content.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is not what its entry says"))?;
    Ok(content.into_owned().into())
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

    /// As [`SpaceHandle::with`]; a run that cannot be read gives nothing, and has told [`crate::run::Health`].
    fn seek<T: Default>(&self, look: impl FnOnce(&Index, &SpaceState) -> Result<T, Unreadable>) -> T {
        self.with(|index, state| look(index, state).unwrap_or_default())
    }

    fn member(&self, index: &Index, sid: &Sid) -> Option<Stored> {
        index.member(index.spaces.get(&self.space)?, sid).ok()?
    }

    /// Counts; `None` when the space was removed.
    pub fn info(&self) -> Option<SpaceInfo> {
        self.with(|_, state| Some(SpaceInfo::of(self.space, state)))
    }

    /// How many members list a chunk, whether or not it is here.
    pub fn lists_of(&self, hash: &ChunkHash) -> u64 {
        self.seek(|index, state| index.references(state, hash))
    }

    /// The tips of a timeline, sorted by address. Reads their records.
    pub fn tips(&self, timeline: &TimelineId) -> Vec<TipItem> {
        self.tip_records(timeline).iter().filter_map(TipItem::of).collect()
    }

    /// The records of the tips of a timeline, sorted by address.
    pub fn tip_records(&self, timeline: &TimelineId) -> Vec<Verified> {
        let heads = self.seek(|index, state| index.tips_of(state, timeline));
        let mut tips: Vec<Verified> = heads.iter().filter_map(|head| self.head(head)).collect();
        tips.sort_by(|a, b| (a.address(), a.sid()).cmp(&(b.address(), b.sid())));
        tips
    }

    /// The sids of the tips of a timeline, in ascending order. Reads no record.
    pub fn tip_sids(&self, timeline: &TimelineId) -> Vec<Sid> {
        let heads = self.seek(|index, state| index.tips_of(state, timeline));
        let mut sids: Vec<Sid> = heads.iter().map(|head| head.sid).collect();
        sids.sort_unstable();
        sids
    }

    fn head(&self, head: &Head) -> Option<Verified> {
        let there = || {
            let pack = Arc::clone(read(&self.inner.index).packs.get(&head.stored.place.pack)?);
            read_as(&pack, &head.stored, |encoded| Verified::from_own_log_as(encoded, head.sid)).ok()
        };
        there().or_else(|| self.record(&head.sid))
    }

    /// Every tip, in ascending order of (timeline, sid).
    fn heads(&self) -> Vec<Head> {
        self.seek(|index, state| {
            let mut heads = Vec::new();
            state.tips.each(&index.runs, state.number, |head| heads.push(head))?;
            Ok(heads)
        })
    }

    /// All tips, sorted by (order, id). Reads the record of every tip: not for large spaces.
    pub fn tip_items(&self) -> Vec<TipItem> {
        let mut tips: Vec<TipItem> = self.heads().iter().filter_map(|head| TipItem::of(&self.head(head)?)).collect();
        tips.sort_by_key(|tip| (tip.order, tip.id));
        tips
    }

    /// All timelines, in ascending order. Reads no record.
    pub fn timeline_ids(&self) -> Vec<TimelineId> {
        let mut ids: Vec<TimelineId> = self.heads().iter().map(|head| head.timeline).collect();
        ids.dedup();
        ids
    }

    /// All timelines with their tips. Reads the record of every tip.
    pub fn timelines(&self) -> Vec<TimelineInfo> {
        self.timeline_ids().into_iter().filter_map(|timeline| self.timeline(timeline)).collect()
    }

    /// The timelines whose first frame has this ib, with their tips.
    pub fn timelines_of(&self, ib: &str) -> Vec<TimelineInfo> {
        let rows = self.seek(|index, state| {
            let front = kind_key(state.number, &kind_hash(ib));
            rows_from(index, Table::Kinds, &state.kinds, (&front, &front), usize::MAX)
        });
        let infos = rows.iter().filter_map(|row| self.timeline(TimelineId(last_sid(row).0)));
        infos.filter(|info| info.tjp.ib() == ib).collect()
    }

    /// One timeline with its tips; none that is not here.
    pub fn timeline(&self, timeline: TimelineId) -> Option<TimelineInfo> {
        let tips = self.tips(&timeline);
        let tjp = tips.first()?.tjp.clone();
        Some(TimelineInfo { timeline, tjp, tips })
    }

    /// The member records with this address, every shape, in ascending order of sid.
    pub fn records_at(&self, address: &Address) -> Vec<Verified> {
        self.by_address(address).iter().filter_map(|sid| self.record(sid)).collect()
    }

    /// The commit stones that name this node as their maker, proven or not, the greatest seq first; at most `limit`.
    pub fn stones_by(&self, node: &NodeId, limit: usize) -> Vec<Sid> {
        self.seek(|index, state| {
            let front = maker_key(state.number, node);
            let rows = rows_from(index, Table::Makers, &state.makers, (&front, &front), limit)?;
            Ok(rows.iter().map(|row| last_sid(row)).collect())
        })
    }

    /// The nodes that commit stones name as their makers, proven or not, with the stone of the greatest seq of each; at
    /// most `limit` nodes.
    pub fn stone_makers(&self, limit: usize) -> Vec<(NodeId, Sid)> {
        self.seek(|index, state| {
            let front = state.number.to_be_bytes();
            let (mut makers, mut from) = (Vec::new(), front.to_vec());
            while makers.len() < limit {
                let rows = rows_from(index, Table::Makers, &state.makers, (&from, &front), 1)?;
                let Some(row) = rows.first() else { break };
                let node = read_maker(row);
                makers.push((node, last_sid(row)));
                // Behind every row of this node: no hash is all ones.
                from = maker_row(state.number, &node, 0, &Sid([0xff; 32])).to_vec();
            }
            Ok(makers)
        })
    }

    /// All commit stones, proven or not.
    pub fn stones(&self) -> Vec<Sid> {
        self.seek(|index, state| {
            let front = state.number.to_be_bytes();
            let rows = rows_from(index, Table::Makers, &state.makers, (&front, &front), usize::MAX)?;
            Ok(rows.iter().map(|row| last_sid(row)).collect())
        })
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
        self.with(|index, state| Some(state.snapshot(&index.runs, &index.packs))).unwrap_or_default()
    }

    fn contains(&self, sid: &Sid) -> bool {
        self.seek(|index, state| index.is_member(state, sid))
    }

    fn record(&self, sid: &Sid) -> Option<Verified> {
        self.inner.load(sid, |index| self.member(index, sid))
    }

    fn encoded(&self, sid: &Sid) -> Option<Bytes> {
        self.inner.read(|index| self.member(index, sid).map(|stored| (stored.place, stored)), read_encoded)
    }

    fn by_address(&self, address: &Address) -> Vec<Sid> {
        self.seek(|index, state| by_address(index, state, address))
    }

    fn frames(&self, timeline: &TimelineId, from: u64, to: u64, limit: usize) -> Vec<Sid> {
        if from > to {
            return Vec::new();
        }
        let found = self.seek(|index, state| frames_of(index, state, timeline, (from, to), limit));
        found.into_iter().map(|(_, sid)| sid).collect()
    }

    fn frame_facts(&self, address: &Address) -> Option<FrameFacts> {
        self.with(|index, state| member_frame(index, state, address)).map(|(_, facts)| facts)
    }

    fn stones_naming(&self, address: &Address) -> Vec<Sid> {
        self.seek(|index, state| {
            let front = named_key(state.number, tip_hash(address));
            let rows = rows_from(index, Table::Named, &state.named, (&front, &front), usize::MAX)?;
            Ok(rows.iter().map(|row| last_sid(row)).collect())
        })
    }

    fn bulk(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<(u64, Sid)> {
        self.bulk_places(after, limit).iter().map(BulkItem::key).collect()
    }

    fn bulk_places(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<BulkItem> {
        self.seek(|index, state| {
            let fresh = state.bulk(&index.records, after, limit).into_iter().map(bulk_item).collect();
            let from = after.map_or((0, [0; 32]), |(order, sid)| (order, sid.0));
            let mut scan = index.runs.scan(Table::Members, &member_key(state.number, from.0, &from.1))?;
            let mut older = || {
                let row = scan.next_of(&state.number.to_be_bytes())?;
                Ok(row.map(read_member_row).map(bulk_item))
            };
            let first = loop {
                match older()? {
                    Some(item) if after.is_some_and(|after| item.key() <= after) => {}
                    first => break first,
                }
            };
            let mut first = Some(first);
            join(fresh, || first.take().map_or_else(&mut older, Ok), limit)
        })
    }

    /// Reads where the listing says; where no such record lies any more, it is looked up.
    fn encoded_at(&self, item: &BulkItem) -> Option<Bytes> {
        let there = item.place.and_then(|[pack, offset, body_len, encoded_len]| {
            let pack = Arc::clone(read(&self.inner.index).packs.get(&pack)?);
            let stored =
                Stored { order: item.order, place: Place { pack: pack.number, offset, body_len }, encoded_len };
            read_encoded(&pack, &stored).ok().filter(|record| !record.is_empty())
        });
        there.or_else(|| self.encoded(&item.sid))
    }

    fn range_sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        if hi <= lo {
            return (0, IdSum::default());
        }
        self.seek(|index, state| {
            let (count, mut sum) = state.sorted(&index.records).sum(lo, hi);
            let key = |bound: &RangeBound| member_key(state.number, bound.order, &bound.id);
            let (older, of_older) = index.runs.sum(Table::Members, &key(lo), &key(hi))?;
            sum.merge(&of_older);
            Ok((count + older, sum))
        })
    }

    fn range_list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        if hi <= lo {
            return Vec::new();
        }
        self.seek(|index, state| {
            let fresh = state.sorted(&index.records).list(lo, hi, limit);
            let mut scan = index.runs.scan(Table::Members, &member_key(state.number, lo.order, &lo.id))?;
            let older = || {
                let row = scan.next_of(&state.number.to_be_bytes())?;
                Ok(row.map(read_member_key).filter(|item| *item < (hi.order, hi.id)))
            };
            join(fresh, older, limit)
        })
    }

    fn has_chunk(&self, hash: &ChunkHash) -> bool {
        // Whoever is told that a chunk is here does not bring it: from now on it must not be freed.
        let there = || matches!(read(&self.inner.index).chunk(hash), Ok(Some(_)));
        there() && {
            self.inner.touched.touch([*hash], (self.inner.config.wall_ms)());
            there()
        }
    }

    fn chunk(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        // Spec: SY-73: a chunk of another space is not there.
        (self.lists_of(hash) > 0).then(|| self.inner.chunk_piece(hash, offset, limit))?
    }

    fn staged(&self, saga: &SagaId) -> Vec<Sid> {
        let index = read(&self.inner.index);
        let Some(txn) = self.staging_txn(&index, saga).and_then(|txn| index.txns.get(&txn)) else { return Vec::new() };
        let mut sids: Vec<Sid> = txn.records.iter().map(|id| index.records.get(*id).sid).collect();
        if let Some(draft) = &txn.draft {
            sids.extend(members(&index, &draft.state).unwrap_or_default());
        }
        sids.sort_unstable();
        sids.dedup();
        sids
    }

    fn staged_record(&self, saga: &SagaId, sid: &Sid) -> Option<Verified> {
        self.inner.load(sid, |index| {
            let txn = index.txns.get(&self.staging_txn(index, saga)?)?;
            if let Some(id) = index.records.find(sid).filter(|id| txn.records.contains(id)) {
                return Some(index.records.get(id).stored());
            }
            index.member(&txn.draft.as_deref()?.state, sid).ok()?
        })
    }
}

impl SpaceHandle {
    fn staging_txn(&self, index: &Index, saga: &SagaId) -> Option<u64> {
        let info = index.sagas.get(saga)?;
        (info.state == SagaState::Staged && info.space == self.space).then_some(info.txn)
    }
}

/// All members of a space or draft.
pub(crate) fn members(index: &Index, state: &SpaceState) -> Result<Vec<Sid>, Unreadable> {
    let mut sids: Vec<Sid> = state.members.iter().map(|(.., id)| index.records.get(*id).sid).collect();
    let front = state.number.to_be_bytes();
    let mut scan = index.runs.scan(Table::Members, &front)?;
    while let Some(row) = scan.next_of(&front)? {
        sids.push(read_member_row(row).0);
    }
    Ok(sids)
}

/// The rows of a table from `from` on that begin with `front`, those in memory too; at most `limit`.
fn rows_from<const N: usize>(
    index: &Index,
    table: Table,
    fresh: &BTreeSet<[u8; N]>,
    (from, front): (&[u8], &[u8]),
    limit: usize,
) -> Result<Vec<[u8; N]>, Unreadable> {
    let behind = fresh.range::<[u8], _>((Bound::Included(from), Bound::Unbounded));
    let fresh = behind.take_while(|row| row.starts_with(front)).take(limit).copied().collect();
    let mut scan = index.runs.scan(table, from)?;
    join(fresh, || Ok(scan.next_of(front)?.and_then(|row| row.first_chunk().copied())), limit)
}

/// The first `limit` items of two sorted lists, the second of which is read as far as it is needed. What both have comes once.
pub(crate) fn join<T: Ord>(
    fresh: Vec<T>,
    mut older: impl FnMut() -> Result<Option<T>, Unreadable>,
    limit: usize,
) -> Result<Vec<T>, Unreadable> {
    let mut fresh = fresh.into_iter().peekable();
    let (mut out, mut ahead) = (Vec::new(), None);
    let mut more = true;
    while out.len() < limit {
        if ahead.is_none() && more {
            ahead = older()?;
            more = ahead.is_some();
        }
        let next = match (&ahead, fresh.peek()) {
            (Some(old), Some(new)) if old < new => ahead.take(),
            // A row may be in memory and in a run: a draft and its space each began the timeline.
            (Some(old), Some(new)) if old == new => {
                ahead = None;
                fresh.next()
            }
            (Some(_), None) => ahead.take(),
            _ => fresh.next(),
        };
        match next {
            Some(item) => out.push(item),
            None => break,
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use sealtide_sync::CommitRequest;

    use super::*;
    use crate::mem::MemDisk;
    use crate::store::{Config, Store};
    use crate::{Unhealthy, conformance};

    /// What is collected between the look at the index and the read is not there; what lies where the index says, and cannot be read, is damage.
    // Proves: SY-67, SY-78
    #[test]
    fn what_was_collected_meanwhile_is_no_damage() {
        let disk = MemDisk::new(1);
        let config = || Config { garbage_bytes: 1, wall_ms: Arc::new(|| 1_700_000_000_000), ..Config::default() };
        let open = || Store::open(Arc::new(disk.clone()), config()).unwrap();
        let (chunks, record) = conformance::binary(1);
        let space = SpaceId::from_bytes([1; 32]);
        let store = open();
        let sid = record.sid();
        let of_record = |index: &Index| index.stored(&sid).ok()?.map(|stored| (stored.place, stored));
        let of_chunk = |index: &Index| index.chunk(&chunks[0].0).ok()?.map(|info| (info.place, info));

        let put = || {
            store.adopt_space(space).unwrap();
            chunks.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
            store.commit(&space, &CommitRequest::local(vec![record.clone()])).unwrap();
        };
        let collect = || {
            if store.remove_space(&space).unwrap() {
                assert_eq!(store.collect().unwrap().records, 1);
            }
        };
        put();
        let late = store.inner.read(of_record, |pack, stored| {
            collect();
            read_encoded(pack, stored)
        });
        assert_eq!((late, store.health()), (None, Ok(())));
        put();
        let tries = Cell::new(0);
        let late = store.inner.read(of_chunk, |pack, info| {
            if tries.replace(tries.get() + 1) == 0 {
                collect();
                put();
            }
            Ok(pack.entry(u64::from(info.place.offset), info.place.body_len as usize)??.0)
        });
        assert_eq!((late.is_some(), tries.get(), store.health()), (true, 2, Ok(())), "it was stored again");

        let broken = store.inner.read(of_chunk, |_, _| Err::<(), _>(io::Error::other("the disk is ill").into()));
        assert!(broken.is_none() && matches!(store.health(), Err(Unhealthy::Pack(_))));
    }
}
