//! What one saga may see of a space: all of it, or the dependency graph of some roots. Spec: ibgib §13.3, SY-72, SY-73
//!
//! Taken once, at OPEN. Everything that is served goes through here, so that a peer gets nothing outside the scope.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, FrameFacts, Manifest, Sid, TimelineId, Verified};
use sealtide_identity::authorship::COMMIT_IB;

use crate::{BulkItem, Facts, Scope, SetSummary, Snapshot, SpaceView, TipItem, negentropy, negentropy::Run};

impl Facts {
    /// The facts of two sets. Spec: ibgib §13.2
    pub fn of(tips: &SetSummary, items: &SetSummary) -> Self {
        Self {
            tip_count: tips.count,
            tip_fingerprint: negentropy::fingerprint(&tips.sum, tips.count),
            tip_digest: tips.lanes.digest(),
            item_count: items.count,
            item_fingerprint: negentropy::fingerprint(&items.sum, items.count),
            item_digest: items.lanes.digest(),
        }
    }
}

/// The part of a space that one saga is about, as it was at OPEN.
#[derive(Debug)]
pub(crate) struct Scoped {
    /// The whole space at OPEN: tells whether it moved since.
    space: Arc<Snapshot>,
    /// Tips and summaries of the scope; the same as `space` for scope `all`.
    snapshot: Arc<Snapshot>,
    roots: Option<Roots>,
}

/// The dependency graph of some roots, in memory.
#[derive(Debug, Default)]
struct Roots {
    roots: Vec<Address>,
    live: bool,
    skipped: BTreeSet<String>,
    items: BTreeSet<(u64, Sid)>,
    sids: BTreeSet<Sid>,
    chunks: BTreeSet<ChunkHash>,
    timelines: BTreeSet<TimelineId>,
    /// Whether members joined the graph after OPEN because something received refers to them.
    adopted: bool,
}

impl Scoped {
    /// Takes the snapshot.
    pub(crate) fn take(scope: &Scope, view: &dyn SpaceView) -> Self {
        let space = view.snapshot();
        let (snapshot, roots) = match scope {
            Scope::All => (space.clone(), None),
            Scope::Roots { roots, live, skipped } => {
                let mut graph = Roots {
                    roots: roots.clone(),
                    live: *live,
                    skipped: skipped.iter().cloned().collect(),
                    ..Roots::default()
                };
                graph.walk(roots.clone(), view);
                (Arc::new(graph.snapshot(view)), Some(graph))
            }
        };
        Self { space, snapshot, roots }
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(crate) fn facts(&self) -> Facts {
        Facts::of(&self.snapshot.tip_summary, &self.snapshot.item_summary)
    }

    /// Whether the space changed since OPEN, so that what this side computes from its snapshot is not the whole truth.
    pub(crate) fn moved(&self, view: &dyn SpaceView) -> bool {
        let now = view.snapshot();
        let same = Arc::ptr_eq(&now, &self.space)
            || now.item_summary == self.space.item_summary && now.tip_summary == self.space.tip_summary;
        !same || self.roots.as_ref().is_some_and(|roots| roots.adopted)
    }

    /// Whether the scope is the whole space.
    pub(crate) fn is_whole(&self) -> bool {
        self.roots.is_none()
    }

    /// The roots of a scope whose graph is what they refer to.
    pub(crate) fn frozen_roots(&self) -> Option<&[Address]> {
        self.roots.as_ref().filter(|roots| !roots.live).map(|roots| &roots.roots[..])
    }

    pub(crate) fn follows(&self, relation: &str) -> bool {
        self.roots.as_ref().is_none_or(|roots| !roots.skipped.contains(relation))
    }

    pub(crate) fn contains(&self, view: &dyn SpaceView, sid: &Sid) -> bool {
        match &self.roots {
            None => view.contains(sid),
            Some(roots) => roots.sids.contains(sid),
        }
    }

    /// Whether a reference is satisfied here. In scope `roots` members of the space that the graph did not reach so
    /// far join it now.
    pub(crate) fn knows(&mut self, view: &dyn SpaceView, address: &Address) -> bool {
        let members = view.by_address(address);
        match &mut self.roots {
            None => !members.is_empty(),
            Some(_) if members.is_empty() => false,
            Some(roots) => {
                if !members.iter().any(|sid| roots.sids.contains(sid)) {
                    roots.adopted = true;
                    roots.walk(vec![address.clone()], view);
                }
                true
            }
        }
    }

    pub(crate) fn record(&self, view: &dyn SpaceView, sid: &Sid) -> Option<Verified> {
        self.serves(sid).then(|| view.record(sid))?
    }

    /// Whether a member may be served.
    fn serves(&self, sid: &Sid) -> bool {
        self.roots.as_ref().is_none_or(|roots| roots.sids.contains(sid))
    }

    /// Whether a bulk stream has to leave records out: see [`Scoped::is_newer`].
    pub(crate) fn has_newer(&self, view: &dyn SpaceView) -> bool {
        self.roots.is_none() && self.moved(view)
    }

    pub(crate) fn by_address(&self, view: &dyn SpaceView, address: &Address) -> Vec<Sid> {
        let mut sids = view.by_address(address);
        sids.retain(|sid| self.contains(view, sid));
        sids
    }

    /// The commit stones of the scope that name a frame, by accident also others.
    pub(crate) fn stones_naming(&self, view: &dyn SpaceView, address: &Address) -> Vec<Sid> {
        let mut sids = view.stones_naming(address);
        sids.retain(|sid| self.contains(view, sid));
        sids
    }

    pub(crate) fn frames(&self, view: &dyn SpaceView, range: (TimelineId, u64, u64)) -> Vec<Sid> {
        let mut sids = view.frames(&range.0, range.1, range.2, FRAMES_MAX);
        sids.retain(|sid| self.contains(view, sid));
        sids
    }

    pub(crate) fn bulk(&self, view: &dyn SpaceView, after: Option<(u64, Sid)>, limit: usize) -> Vec<BulkItem> {
        use std::ops::Bound::{Excluded, Unbounded};
        match &self.roots {
            None => view.bulk_places(after, limit),
            Some(roots) => {
                let from = after.map_or(Unbounded, Excluded);
                roots.items.range((from, Unbounded)).take(limit).copied().map(BulkItem::from).collect()
            }
        }
    }

    /// The encoded bytes of a record that [`Scoped::bulk`] listed.
    pub(crate) fn encoded_at(&self, view: &dyn SpaceView, item: &BulkItem) -> Option<Bytes> {
        self.serves(&item.sid).then(|| view.encoded_at(item))?
    }

    pub(crate) fn chunk(&self, view: &dyn SpaceView, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        match &self.roots {
            Some(roots) if !roots.chunks.contains(hash) => None,
            _ => view.chunk(hash, offset, limit),
        }
    }

    /// The tips of a timeline at OPEN.
    pub(crate) fn tips_of(&self, timeline: &TimelineId) -> Vec<TipItem> {
        self.snapshot.tips.of(timeline)
    }

    /// The timelines that had several tips at OPEN.
    pub(crate) fn diverged(&self) -> BTreeSet<TimelineId> {
        self.snapshot.tips.diverged()
    }

    /// Whether the tips of the scope are those of the space, and everything behind them is in it.
    pub(crate) fn is_closed_behind(&self) -> bool {
        self.roots.as_ref().is_none_or(|roots| roots.live && roots.skipped.is_empty())
    }

    /// Whether a record joined the space after OPEN, as far as its counter tells, or the counter of a frame that it
    /// signs: left out of a bulk stream, so that the stream is the set that the facts describe.
    pub(crate) fn is_newer(&self, view: &dyn SpaceView, record: &Verified) -> bool {
        let newer = |frame: &FrameFacts| self.tips_of(&frame.timeline).iter().map(|tip| tip.n).max() < Some(frame.n);
        let signed = || tips_signed(record).first().and_then(|tip| view.frame_facts(tip));
        // Mostly nothing moved, and then no record has to be looked at.
        self.has_newer(view) && record.frame_ref().map_or_else(|| signed().is_some_and(|frame| newer(&frame)), newer)
    }

    /// The tip with this level-0 id.
    pub(crate) fn tip(&self, id: &[u8; 32]) -> Option<TipItem> {
        self.snapshot.tips.with_id(id)
    }

    /// Level 1 of a scope that is not the whole space, as a run in memory.
    pub(crate) fn item_run(&self) -> Option<Run> {
        self.roots.as_ref().map(|roots| Run::new(roots.items.iter().map(|(order, sid)| (*order, sid.0)).collect()))
    }
}

/// The tips that a commit stone names, without a look at its form or signature; none for other records.
pub(crate) fn tips_signed(record: &Verified) -> &[Address] {
    let is_stone = record.address().ib() == COMMIT_IB && record.frame_ref().is_none();
    let tips = record.relations().get("tip").filter(|_| is_stone);
    tips.map(Vec::as_slice).unwrap_or_default()
}

/// Frames of one WANT of ranges, diverged ones included.
const FRAMES_MAX: usize = 65_536;

impl Roots {
    fn walk(&mut self, from: Vec<Address>, view: &dyn SpaceView) {
        let mut open = from;
        while let Some(address) = open.pop() {
            for sid in view.by_address(&address) {
                self.take(sid, view, &mut open);
            }
        }
    }

    fn take(&mut self, sid: Sid, view: &dyn SpaceView, open: &mut Vec<Address>) {
        if self.sids.contains(&sid) {
            return;
        }
        let Some(record) = view.record(&sid) else { return };
        self.sids.insert(sid);
        self.items.insert((record.order_key(), sid));
        self.chunks.extend(Manifest::chunks_listed(&record).iter().map(|chunk| chunk.hash));
        let followed = record.relations().iter().filter(|(name, _)| !self.skipped.contains(*name));
        open.extend(followed.flat_map(|(_, links)| links).filter(|link| !link.is_primitive()).cloned());
        if let Some(frame) = record.frame().filter(|_| self.live)
            && self.timelines.insert(frame.timeline)
        {
            for newer in view.frames(&frame.timeline, 0, u64::MAX, usize::MAX) {
                self.take(newer, view, open);
            }
        }
    }

    fn snapshot(&self, view: &dyn SpaceView) -> Snapshot {
        let mut item_summary = SetSummary::default();
        let mut tips = BTreeMap::new();
        let mut covered = BTreeMap::new();
        for sid in &self.sids {
            item_summary.add(sid.as_bytes());
            let Some(record) = view.record(sid) else { continue };
            if let (Some(tip), Some(frame)) = (TipItem::of(&record), record.frame()) {
                for parent in frame.past.into_iter().chain(frame.orphans) {
                    let child: &mut u64 = covered.entry(parent).or_default();
                    *child = frame.n.max(*child);
                }
                tips.insert(tip.tip.clone(), tip);
            }
        }
        let tips = tips.into_values().filter(|tip| covered.get(&tip.tip) <= Some(&tip.n)).collect();
        Snapshot { item_summary, ..Snapshot::of_tips(tips) }
    }
}
