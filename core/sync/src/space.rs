//! What a saga needs of the storage of one space. Reads are answered at once from local storage; everything that
//! must be durable is a wish of the saga, performed by the driver.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, FrameFacts, Sid, TimelineId, Verified};

use crate::{IdSum, SagaId, SetSummary, TipList, TipSet};

/// One of the two sets that two nodes reconcile. Spec: ibgib §13.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Level 0: one item for each tip, id [`TipItem::id`], order key of the timeline.
    Tips,
    /// Level 1: one item for each member record, id = sid, order key of the record.
    Items,
}

/// A place in a set that is sorted by (order key, id), between two items: everything below it is less than
/// (`order`, `id`), everything from it on is not. Ids compare as 32 bytes, most significant first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RangeBound {
    /// Order key. No item has the key `u64::MAX`.
    pub order: u64,
    /// Id.
    pub id: [u8; 32],
}

impl RangeBound {
    /// Below every item.
    pub const START: Self = Self { order: 0, id: [0; 32] };
    /// Above every item.
    pub const END: Self = Self { order: u64::MAX, id: [0; 32] };
}

/// One tip of one timeline, as level 0 of the reconciliation sees it. Spec: ibgib §13.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TipItem {
    /// Order key of the timeline.
    pub order: u64,
    /// SHA-256("sealtide/tip/1" 00 ‖ lp(TJP address) ‖ lp(tip address) ‖ tip sid).
    pub id: [u8; 32],
    /// The timeline.
    pub timeline: TimelineId,
    /// The address of its first frame.
    pub tjp: Address,
    /// The address of the tip.
    pub tip: Address,
    /// The strong id of the tip.
    pub sid: Sid,
    /// `data.n` of the tip.
    pub n: u64,
}

impl TipItem {
    /// The level-0 id of a tip. Spec: ibgib §13.3.
    pub fn id_of(tjp: &Address, tip: &Address, sid: &Sid) -> [u8; 32] {
        let (tjp, tip) = (tjp.as_str().as_bytes(), tip.as_str().as_bytes());
        sealtide_crypto::sha256_parts(&[
            b"sealtide/tip/1\0",
            &(tjp.len() as u64).to_be_bytes(),
            tjp,
            &(tip.len() as u64).to_be_bytes(),
            tip,
            sid.as_bytes(),
        ])
    }

    /// The item of a frame; `None` when the record is in no timeline.
    pub fn of(record: &Verified) -> Option<Self> {
        let frame = record.frame()?;
        Some(Self {
            order: record.order_key(),
            id: Self::id_of(&frame.tjp, record.address(), &record.sid()),
            timeline: frame.timeline,
            tjp: frame.tjp,
            tip: record.address().clone(),
            sid: record.sid(),
            n: frame.n,
        })
    }
}

/// The committed state of a space at one moment: made by the store, shared by the sagas that began on it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// All tips.
    pub tips: Arc<dyn TipSet>,
    /// Summary of level 0, over the ids of `tips`.
    pub tip_summary: SetSummary,
    /// Summary of level 1, over the sids of all member records.
    pub item_summary: SetSummary,
}

impl Snapshot {
    /// The snapshot with these tips, and no members yet.
    pub fn of_tips(tips: Vec<TipItem>) -> Self {
        let mut tip_summary = SetSummary::default();
        tips.iter().for_each(|tip| tip_summary.add(&tip.id));
        Self { tips: Arc::new(TipList::new(tips)), tip_summary, item_summary: SetSummary::default() }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::of_tips(Vec::new())
    }
}

/// A member as the bulk stream lists it. What it is and where it sorts is order key and sid: the place says nothing about that.
#[derive(Clone, Copy, Debug)]
pub struct BulkItem {
    /// The order key.
    pub order: u64,
    /// Which record.
    pub sid: Sid,
    /// Where it lies, in numbers that mean something to the view alone: a stream of millions then needs no look-up of each.
    pub place: Option<[u32; 4]>,
}

impl BulkItem {
    /// What sorts the stream.
    pub fn key(&self) -> (u64, Sid) {
        (self.order, self.sid)
    }
}

impl PartialEq for BulkItem {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for BulkItem {}

impl PartialOrd for BulkItem {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for BulkItem {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl From<(u64, Sid)> for BulkItem {
    fn from((order, sid): (u64, Sid)) -> Self {
        Self { order, sid, place: None }
    }
}

/// Read access to one space, for one saga. Everything answers about committed members of this space, except the
/// `staged_*` methods, which answer about what this saga has staged.
///
/// No answer is an error: what a store cannot read it leaves out, as if it were not there, and tells in a way of its own
/// (`Store::health`). Whoever draws conclusions from what is not there asks that first.
pub trait SpaceView {
    /// The state right now.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// Whether the record is a member.
    fn contains(&self, sid: &Sid) -> bool;
    /// A member record.
    fn record(&self, sid: &Sid) -> Option<Verified>;
    /// The encoded bytes of a member record. A store need not read them as a record.
    fn encoded(&self, sid: &Sid) -> Option<Bytes> {
        self.record(sid).map(|record| record.encoded().clone())
    }
    /// The members with this address: every shape, at most three.
    fn by_address(&self, address: &Address) -> Vec<Sid>;
    /// All member frames of the timeline with `from ≤ n ≤ to`, in order of n; at most `limit`.
    fn frames(&self, timeline: &TimelineId, from: u64, to: u64, limit: usize) -> Vec<Sid>;
    /// The facts of a member frame.
    fn frame_facts(&self, address: &Address) -> Option<FrameFacts>;
    /// The member commit stones that have this address among their tips; by accident of a hash also others.
    /// Spec: ibgib §12.6
    fn stones_naming(&self, address: &Address) -> Vec<Sid>;
    /// Members after `after` in (order key, sid) order, at most `limit`: the bulk stream.
    fn bulk(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<(u64, Sid)>;
    /// As [`SpaceView::bulk`], with where each lies. A view that does not know says nothing of that.
    fn bulk_places(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<BulkItem> {
        self.bulk(after, limit).into_iter().map(BulkItem::from).collect()
    }
    /// As [`SpaceView::encoded`], of a record that [`SpaceView::bulk_places`] listed a moment ago.
    fn encoded_at(&self, item: &BulkItem) -> Option<Bytes> {
        self.encoded(&item.sid)
    }
    /// How many members are in `lo ≤ (order key, sid) < hi`, and the sum of their sids modulo 2²⁵⁶; nothing when
    /// `hi ≤ lo`. This is level 1; level 0 is in the snapshot. Answers about the space right now, like everything here;
    /// called a few hundred times for each message of a reconciliation, so it should not read the whole range. Spec:
    /// ibgib §13.3.
    fn range_sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum);
    /// The first `limit` members in `lo ≤ (order key, sid) < hi`, in ascending order of (order key, sid).
    fn range_list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])>;
    /// Whether the whole chunk is stored on this node, in whatever space.
    fn has_chunk(&self, hash: &ChunkHash) -> bool;
    /// Up to `limit` bytes of a chunk from `offset`, only if a manifest or page that is a member lists it. Not checked against the hash:
    /// whoever receives all pieces of it checks the whole, as a saga does before it stages it.
    fn chunk(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes>;
    /// Whether what `saga` has staged may become part of the space without these chunks, because nothing needs them that
    /// could not do without. Asked at the end, where [`crate::SagaConfig::may_lack`] is set. Spec: sync §4
    fn may_lack(&self, saga: &SagaId, chunks: &BTreeSet<ChunkHash>) -> bool {
        let _ = (saga, chunks);
        false
    }
    /// What `saga` has staged and not committed, after a cut or a restart: sids in ascending order.
    fn staged(&self, saga: &SagaId) -> Vec<Sid>;
    /// A record staged by `saga`.
    fn staged_record(&self, saga: &SagaId, sid: &Sid) -> Option<Verified>;
}

/// A commit: everything a saga staged (or `records` of a local change) becomes visible at once, or nothing.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    /// The saga whose staged records become members; `None` for a local change.
    pub saga: Option<SagaId>,
    /// Of the staged records, only these (sorted); `None` takes all. Empty and `None` for a local change.
    pub staged: Option<Vec<Sid>>,
    /// Further records, appended with the commit: those of a local change.
    pub records: Vec<Verified>,
    /// The tips of each timeline as the committer saw them (level-0 snapshot). When a timeline has moved since and
    /// `strict` is set, nothing is committed. Timelines not listed are not checked.
    pub expected: Vec<(TimelineId, Vec<Sid>)>,
    /// Refuse (`TipMoved`) instead of keeping both tips when a timeline moved. Spec: ibgib §14.3.
    pub strict: bool,
}

impl CommitRequest {
    /// A local change, whatever else happened meanwhile.
    pub fn local(records: Vec<Verified>) -> Self {
        Self { saga: None, staged: None, records, expected: Vec::new(), strict: false }
    }

    /// A local change that happens only where these timelines have these tips, in whatever order; none: where the timeline is not there.
    pub fn local_if(records: Vec<Verified>, expected: Vec<(TimelineId, Vec<Sid>)>) -> Self {
        Self { expected, strict: true, ..Self::local(records) }
    }

    /// All that a saga staged, whatever else happened meanwhile.
    pub fn of_saga(saga: SagaId) -> Self {
        Self { saga: Some(saga), ..Self::local(Vec::new()) }
    }
}

/// What a commit did. Tips after a commit are the frames of a timeline that no other member frame has as ancestor,
/// so the result does not depend on the order of commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitResult {
    /// Timelines whose tips changed: (timeline, tips before, tips after).
    pub moved: Vec<(TimelineId, Vec<Sid>, Vec<Sid>)>,
    /// How many records became members that were none.
    pub new_records: u64,
}
