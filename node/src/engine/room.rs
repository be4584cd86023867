//! A space as one peer's saga sees it: what is in the space, and what that peer brought and this node holds back.
//!
//! Held records are no part of the space: nobody else sees them, no tip moves by them. But the peer that brought them has
//! them, so the sets of the two are compared with them, and what grows from them is merged alike on both sides. Spec:
//! ibgib §12.5; sync §13

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use sealtide_crypto::sha256_parts;
use sealtide_ibgib::{Address, ChunkHash, FrameFacts, Manifest, Sid, TimelineId, Verified, settle_tips};
use sealtide_identity::authorship::COMMIT_IB;
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::{SpaceHandle, Store};
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
struct Held {
    records: SpaceHandle,
    items: BTreeMap<Sid, (u64, Address)>,
    by_address: BTreeMap<Address, BTreeSet<Sid>>,
    frames: BTreeMap<TimelineId, FramesByCounter>,
    /// Commit stones by the tips that they name.
    naming: BTreeMap<Address, BTreeSet<Sid>>,
    /// The last snapshot, and the one of the space that it was made of.
    snapshot: Mutex<Option<Overlaid>>,
}

/// Frames of one timeline by counter and sid.
type FramesByCounter = BTreeMap<(u64, Sid), (Address, FrameFacts)>;

/// A snapshot of a space, and what it is with what is held.
type Overlaid = (Arc<Snapshot>, Arc<Snapshot>);

impl Room {
    /// The space at `store` with what is held of it from `peer`.
    pub(crate) fn of(store: &Store, space: &SpaceId, peer: &NodeId) -> Option<Self> {
        let view = store.view(space)?;
        let held = store.view(&held_space(space, peer)).and_then(|records| Held::of(records, &view));
        Some(Self { space: view, held: held.map(Arc::new) })
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

    /// Whether frames of a timeline are held.
    pub(super) fn holds(&self, timeline: &TimelineId) -> bool {
        self.held.as_ref().is_some_and(|held| held.frames.contains_key(timeline))
    }
}

impl Held {
    /// `None` where nothing is left that is not in the space.
    fn of(records: SpaceHandle, space: &SpaceHandle) -> Option<Self> {
        let mut held = Self {
            records: records.clone(),
            items: BTreeMap::new(),
            by_address: BTreeMap::new(),
            frames: BTreeMap::new(),
            naming: BTreeMap::new(),
            snapshot: Mutex::default(),
        };
        for (order, sid) in records.bulk(None, usize::MAX) {
            if space.contains(&sid) {
                continue;
            }
            let Some(record) = records.record(&sid) else { continue };
            held.items.insert(sid, (order, record.address().clone()));
            held.by_address.entry(record.address().clone()).or_default().insert(sid);
            match record.frame_ref() {
                Some(facts) => {
                    let frames = held.frames.entry(facts.timeline).or_default();
                    frames.insert((facts.n, sid), (record.address().clone(), facts.clone()));
                }
                None if record.address().ib() == COMMIT_IB => {
                    for tip in record.relations().get("tip").into_iter().flatten() {
                        held.naming.entry(tip.clone()).or_default().insert(sid);
                    }
                }
                None => {}
            }
        }
        (!held.items.is_empty()).then_some(held)
    }

    fn facts(&self, address: &Address) -> Option<FrameFacts> {
        let sids = self.by_address.get(address)?;
        let frames = self.frames.values().flatten();
        frames.filter(|((_, sid), _)| sids.contains(sid)).map(|(_, (_, facts))| facts.clone()).next()
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
            let by_address: BTreeMap<&Address, (&FrameFacts, Sid)> =
                frames.iter().map(|((_, sid), (address, facts))| (address, (facts, *sid))).collect();
            let new: Vec<Address> = by_address.keys().map(|address| (*address).clone()).collect();
            let mut load = |address: &Address| match by_address.get(address) {
                Some((facts, _)) => Some((*facts).clone()),
                None => space.frame_facts(address),
            };
            let after: BTreeSet<Address> = settle_tips(&known, &new, &mut load).into_iter().collect();
            let (mut left, covered): (Vec<_>, Vec<_>) = before.into_iter().partition(|tip| after.contains(&tip.tip));
            covered.iter().for_each(|tip| made.tip_summary.sub(&tip.id));
            gone.extend(covered.iter().map(|tip| (tip.order, tip.id)));
            let sids = after.iter().filter(|tip| !known.contains(tip)).filter_map(|tip| by_address.get(tip));
            for tip in sids.filter_map(|(_, sid)| TipItem::of(&self.records.record(sid)?)) {
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
        let mut items: Vec<(u64, [u8; 32])> = self.items.iter().map(|(sid, (order, _))| (*order, sid.0)).collect();
        items.retain(|item| (lo.order, lo.id) <= *item && *item < (hi.order, hi.id));
        items.sort_unstable();
        items.into_iter()
    }
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
        self.space.frame_facts(address).or_else(|| self.held.as_ref()?.facts(address))
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
        let more = held.items.iter().map(|(sid, (order, _))| (*order, *sid));
        let more = more.filter(|item| after.is_none_or(|after| *item > after));
        joined(there, more.map(BulkItem::from), limit)
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
