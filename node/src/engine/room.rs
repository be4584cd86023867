//! A space as one peer's saga sees it: what is in the space, and what that peer brought and this node holds back.
//!
//! Held records are no part of the space: nobody else sees them, no tip moves by them. But the peer that brought them has
//! them, so the sets of the two are compared with them, and what grows from them is merged alike on both sides. Spec:
//! ibgib §12.5; sync §13

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sealtide_crypto::sha256_parts;
use sealtide_ibgib::{Address, ChunkHash, FrameFacts, Manifest, Sid, TimelineId, Verified, settle_tips};
use sealtide_identity::authorship::COMMIT_IB;
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::SpaceHandle;
use sealtide_sync::negentropy::{Ranges, Run};
use sealtide_sync::{BulkItem, IdSum, RangeBound, SagaId, Snapshot, SpaceView, TipItem, TipSet};

/// The ib of frames that are releases: their second content is a tar. Spec: releases §5
pub(crate) const RELEASE_IB: &str = "channel";

/// The space of the store in which lies what is held of a space from one peer. It has no label, so nobody lists it.
pub(super) fn held_space(space: &SpaceId, peer: &NodeId) -> SpaceId {
    SpaceId::from_bytes(sha256_parts(&[b"sealtide/held/1\0", space.as_bytes(), peer.as_bytes()]))
}

/// Whether what lists some chunks is the tar of a release and nothing else, as far as these records tell.
pub(crate) fn only_releases_need(lists: &[Verified], records: &mut dyn Iterator<Item = Verified>) -> bool {
    let mut tars: BTreeSet<Address> = lists.iter().map(|record| record.address().clone()).collect();
    let (mut frames, mut manifests) = (Vec::new(), Vec::new());
    for record in records {
        match record.relations() {
            names if names.contains_key("bin") => frames.push(record),
            names if names.contains_key("page") => manifests.push(record),
            _ => {}
        }
    }
    // A page belongs to its manifest.
    for manifest in &manifests {
        if manifest.relations()["page"].iter().any(|page| tars.contains(page)) {
            tars.insert(manifest.address().clone());
        }
    }
    let mut any = false;
    for frame in &frames {
        let contents = &frame.relations()["bin"];
        match contents.iter().position(|content| tars.contains(content)) {
            None => {}
            Some(1) if frame.address().ib() == RELEASE_IB && contents.len() == 2 => any = true,
            Some(_) => return false,
        }
    }
    any
}

/// A space, and what is held of it from one peer.
#[derive(Clone)]
pub(crate) struct Room {
    space: SpaceHandle,
    held: Option<Arc<Held>>,
}

/// Records that are held: what of them must be known to compare sets. The records themselves lie in the store.
pub(super) struct Held {
    records: SpaceHandle,
    /// What lay aside when it was read: a space of that age with so many records.
    state: Aside,
    items: BTreeMap<Sid, u64>,
    ordered: BTreeSet<(u64, Sid)>,
    by_address: BTreeMap<Address, BTreeSet<Sid>>,
    facts: BTreeMap<Address, FrameFacts>,
    frames: BTreeMap<TimelineId, FramesByCounter>,
    /// Commit stones by the tips that they name.
    naming: BTreeMap<Address, BTreeSet<Sid>>,
    /// The last snapshot, and the one of the space that it was made of.
    snapshot: Mutex<Option<Overlaid>>,
}

/// When a space that holds records was made, and how many there are.
type Aside = (u64, u64);

/// The addresses of frames of one timeline by counter and sid.
type FramesByCounter = BTreeMap<(u64, Sid), Address>;

/// A snapshot of a space, and what it is with what is held.
type Overlaid = (Arc<Snapshot>, Arc<Snapshot>);

impl Room {
    /// A space, and what is held of it from one peer.
    pub(super) fn new(space: SpaceHandle, held: Option<Arc<Held>>) -> Self {
        Self { space, held }
    }

    /// The space without what is held.
    pub(super) fn space(&self) -> &SpaceHandle {
        &self.space
    }

    /// Records that a saga has staged and that list one of these chunks.
    pub(super) fn listing(&self, saga: &SagaId, chunks: &BTreeSet<ChunkHash>) -> Vec<Verified> {
        let lists = |record: &Verified| Manifest::chunks_listed(record).iter().any(|it| chunks.contains(&it.hash));
        let staged = self.space.staged(saga).into_iter();
        staged.filter_map(|sid| self.space.staged_record(saga, &sid)).filter(lists).collect()
    }

    /// Whether what is held was read for another room, and not for this one.
    #[cfg(test)]
    pub(crate) fn has_read_of(&self, other: &Self) -> bool {
        self.held.as_ref().zip(other.held.as_ref()).is_some_and(|(held, other)| Arc::ptr_eq(held, other))
    }

    /// Whether frames of a timeline are held.
    pub(super) fn holds(&self, timeline: &TimelineId) -> bool {
        self.held.as_ref().is_some_and(|held| held.frames.contains_key(timeline))
    }
}

impl Held {
    /// Reads what lies aside and is not in the space.
    pub(super) fn of(records: SpaceHandle, space: &SpaceHandle) -> Self {
        let mut held = Self {
            records: records.clone(),
            // Asked before: what comes meanwhile makes this an old one.
            state: state_of(&records),
            items: BTreeMap::new(),
            ordered: BTreeSet::new(),
            by_address: BTreeMap::new(),
            facts: BTreeMap::new(),
            frames: BTreeMap::new(),
            naming: BTreeMap::new(),
            snapshot: Mutex::default(),
        };
        for (order, sid) in records.bulk(None, usize::MAX) {
            if space.contains(&sid) {
                continue;
            }
            let Some(record) = records.record(&sid) else { continue };
            held.items.insert(sid, order);
            held.ordered.insert((order, sid));
            held.by_address.entry(record.address().clone()).or_default().insert(sid);
            match record.frame_ref() {
                Some(facts) => {
                    let frames = held.frames.entry(facts.timeline).or_default();
                    frames.insert((facts.n, sid), record.address().clone());
                    held.facts.entry(record.address().clone()).or_insert_with(|| facts.clone());
                }
                None if record.address().ib() == COMMIT_IB => {
                    for tip in record.relations().get("tip").into_iter().flatten() {
                        held.naming.entry(tip.clone()).or_default().insert(sid);
                    }
                }
                None => {}
            }
        }
        held
    }

    /// Whether it is still what lies aside. What came into the space since does no harm here, and is told apart by whoever moves it.
    pub(super) fn is_of(&self, records: &SpaceHandle) -> bool {
        self.state == state_of(records)
    }

    /// Whether anything is held.
    pub(super) fn is_any(&self) -> bool {
        !self.items.is_empty()
    }

    /// How many records are held.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// A held frame as a tip.
    fn tip(&self, address: &Address, sid: Sid) -> Option<TipItem> {
        let (facts, order) = (self.facts.get(address)?, *self.items.get(&sid)?);
        let id = TipItem::id_of(&facts.tjp, address, &sid);
        let (tjp, tip) = (facts.tjp.clone(), address.clone());
        Some(TipItem { order, id, timeline: facts.timeline, tjp, tip, sid, n: facts.n })
    }

    /// The snapshot of a space with what is held.
    fn over(&self, base: &Arc<Snapshot>, space: &SpaceHandle) -> Arc<Snapshot> {
        let mut last = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, made)) = last.as_ref()
            && Arc::ptr_eq(of, base)
        {
            return made.clone();
        }
        let mut made = Snapshot::clone(base);
        let (mut timelines, mut added, mut gone) = (BTreeMap::new(), Vec::new(), Vec::new());
        self.items.keys().filter(|sid| !space.contains(sid)).for_each(|sid| made.item_summary.add(sid.as_bytes()));
        for (timeline, frames) in &self.frames {
            let before: Vec<TipItem> = space.tips(timeline);
            let known: Vec<Address> = before.iter().map(|tip| tip.tip.clone()).collect();
            let by_address: BTreeMap<&Address, Sid> =
                frames.iter().map(|((_, sid), address)| (address, *sid)).collect();
            let new: Vec<Address> = by_address.keys().map(|address| (*address).clone()).collect();
            let mut load = |address: &Address| match by_address.contains_key(address) {
                true => self.facts.get(address).cloned(),
                false => space.frame_facts(address),
            };
            let after: BTreeSet<Address> = settle_tips(&known, &new, &mut load).into_iter().collect();
            let (mut left, covered): (Vec<_>, Vec<_>) = before.into_iter().partition(|tip| after.contains(&tip.tip));
            covered.iter().for_each(|tip| made.tip_summary.sub(&tip.id));
            gone.extend(covered.iter().map(|tip| (tip.order, tip.id)));
            let added_here = after.iter().filter(|tip| !known.contains(tip));
            for tip in added_here.filter_map(|tip| self.tip(tip, *by_address.get(tip)?)) {
                made.tip_summary.add(&tip.id);
                added.push((tip.order, tip.id));
                left.push(tip);
            }
            left.sort_by_key(|tip| tip.id);
            timelines.insert(*timeline, left);
        }
        let (added, gone) = (Run::new(added), Run::new(gone));
        made.tips = Arc::new(HeldTips { space: Arc::clone(&base.tips), timelines, added, gone });
        let made = Arc::new(made);
        *last = Some((base.clone(), made.clone()));
        made
    }

    fn in_range(&self, lo: &RangeBound, hi: &RangeBound) -> impl Iterator<Item = (u64, [u8; 32])> {
        let (lo, hi) = ((lo.order, Sid(lo.id)), (hi.order, Sid(hi.id)));
        let range = (lo < hi).then(|| self.ordered.range(lo..hi));
        range.into_iter().flatten().map(|(order, sid)| (*order, sid.0))
    }
}

fn state_of(records: &SpaceHandle) -> Aside {
    records.info().map_or((0, 0), |info| (info.created_ms, info.records))
}

/// The tips of a space with what is held: tips that are held take the place of those of the space below them.
#[derive(Debug)]
struct HeldTips {
    space: Arc<dyn TipSet>,
    /// All tips of the timelines of which frames are held, in ascending order of id.
    timelines: BTreeMap<TimelineId, Vec<TipItem>>,
    /// The tips that are held.
    added: Run,
    /// The tips of the space that are none with what is held.
    gone: Run,
}

impl Ranges for HeldTips {
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        let (count, mut sum) = self.space.sum(lo, hi);
        let ((more, of_added), (less, of_gone)) = (self.added.sum(lo, hi), self.gone.sum(lo, hi));
        sum.merge(&of_added);
        sum.sub(&of_gone.0);
        ((count + more).saturating_sub(less), sum)
    }

    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        // As many more as may be gone.
        let mut there = self.space.list(lo, hi, limit.saturating_add(self.gone.len()));
        there.retain(|item| self.gone.items().binary_search(item).is_err());
        joined(there, self.added.list(lo, hi, limit).into_iter(), limit)
    }
}

impl TipSet for HeldTips {
    fn of(&self, timeline: &TimelineId) -> Vec<TipItem> {
        self.timelines.get(timeline).cloned().unwrap_or_else(|| self.space.of(timeline))
    }

    fn with_id(&self, id: &[u8; 32]) -> Option<TipItem> {
        let held = self.timelines.values().flatten().find(|tip| tip.id == *id);
        let there = || self.space.with_id(id).filter(|tip| !self.timelines.contains_key(&tip.timeline));
        held.cloned().or_else(there)
    }

    fn diverged(&self) -> BTreeSet<TimelineId> {
        let there = self.space.diverged().into_iter().filter(|timeline| !self.timelines.contains_key(timeline));
        let held = self.timelines.iter().filter(|(_, tips)| tips.len() > 1).map(|(timeline, _)| *timeline);
        there.chain(held).collect()
    }
}

/// Two sorted lists as one, at most `limit`.
fn joined<T: Ord>(mut one: Vec<T>, other: impl Iterator<Item = T>, limit: usize) -> Vec<T> {
    one.extend(other);
    one.sort_unstable();
    one.dedup();
    one.truncate(limit);
    one
}

impl SpaceView for Room {
    fn snapshot(&self) -> Arc<Snapshot> {
        let base = self.space.snapshot();
        self.held.as_ref().map_or_else(|| base.clone(), |held| held.over(&base, &self.space))
    }

    fn contains(&self, sid: &Sid) -> bool {
        self.space.contains(sid) || self.held.as_ref().is_some_and(|held| held.items.contains_key(sid))
    }

    fn record(&self, sid: &Sid) -> Option<Verified> {
        self.space.record(sid).or_else(|| self.held.as_ref()?.records.record(sid))
    }

    fn encoded(&self, sid: &Sid) -> Option<Bytes> {
        self.space.encoded(sid).or_else(|| self.held.as_ref()?.records.encoded(sid))
    }

    fn by_address(&self, address: &Address) -> Vec<Sid> {
        let there = self.space.by_address(address);
        let more = self.held.iter().filter_map(|held| held.by_address.get(address)).flatten().copied();
        joined(there, more, usize::MAX)
    }

    fn frames(&self, timeline: &TimelineId, from: u64, to: u64, limit: usize) -> Vec<Sid> {
        let there = self.space.frames(timeline, from, to, limit);
        let Some(frames) = self.held.as_ref().and_then(|held| held.frames.get(timeline)) else { return there };
        let counter = |sid: &Sid| self.space.record(sid).and_then(|record| record.frame_ref().map(|facts| facts.n));
        let there: Vec<(u64, Sid)> = there.into_iter().filter_map(|sid| Some((counter(&sid)?, sid))).collect();
        let more = frames.keys().filter(|(n, _)| (from..=to).contains(n)).copied();
        joined(there, more, limit).into_iter().map(|(_, sid)| sid).collect()
    }

    fn frame_facts(&self, address: &Address) -> Option<FrameFacts> {
        self.space.frame_facts(address).or_else(|| self.held.as_ref()?.facts.get(address).cloned())
    }

    fn stones_naming(&self, address: &Address) -> Vec<Sid> {
        let there = self.space.stones_naming(address);
        let more = self.held.iter().filter_map(|held| held.naming.get(address)).flatten().copied();
        joined(there, more, usize::MAX)
    }

    fn bulk(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<(u64, Sid)> {
        self.bulk_places(after, limit).iter().map(BulkItem::key).collect()
    }

    fn bulk_places(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<BulkItem> {
        let there = self.space.bulk_places(after, limit);
        let Some(held) = &self.held else { return there };
        let from = after.map_or(Unbounded, Excluded);
        joined(there, held.ordered.range((from, Unbounded)).take(limit).copied().map(BulkItem::from), limit)
    }

    fn encoded_at(&self, item: &BulkItem) -> Option<Bytes> {
        self.space.encoded_at(item).or_else(|| self.held.as_ref()?.records.encoded(&item.sid))
    }

    fn range_sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        let (mut count, mut sum) = self.space.range_sum(lo, hi);
        let held = self.held.iter().flat_map(|held| held.in_range(lo, hi));
        for (_, id) in held.filter(|(_, id)| !self.space.contains(&Sid(*id))) {
            sum.add(&id);
            count += 1;
        }
        (count, sum)
    }

    fn range_list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        let there = self.space.range_list(lo, hi, limit);
        match &self.held {
            None => there,
            Some(held) => joined(there, held.in_range(lo, hi), limit),
        }
    }

    fn has_chunk(&self, hash: &ChunkHash) -> bool {
        self.space.has_chunk(hash)
    }

    /// Only what belongs to the tars of releases, which whoever follows may have given up. Spec: releases §6
    fn may_lack(&self, saga: &SagaId, chunks: &BTreeSet<ChunkHash>) -> bool {
        let staged = self.space.staged(saga).into_iter();
        let mut staged = staged.filter_map(|sid| self.space.staged_record(saga, &sid));
        only_releases_need(&self.listing(saga, chunks), &mut staged)
    }

    fn chunk(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        self.space.chunk(hash, offset, limit).or_else(|| self.held.as_ref()?.records.chunk(hash, offset, limit))
    }

    fn staged(&self, saga: &SagaId) -> Vec<Sid> {
        self.space.staged(saga)
    }

    fn staged_record(&self, saga: &SagaId, sid: &Sid) -> Option<Verified> {
        self.space.staged_record(saga, sid)
    }
}
