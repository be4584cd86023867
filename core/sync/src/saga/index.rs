//! What a saga has received, as far as it must remember: which records, which references are still missing, and what
//! the tips will be. The records themselves are in the store, staged. Spec: ibgib §14.2, SY-51

use std::collections::BTreeMap;

use sealtide_crypto::{Sha256, sha256};
use sealtide_ibgib::{Address, FrameFacts, Sid, TimelineId, Verified, order_key};

use super::Fault;
use super::ascending::{Ascending, Spread};
use super::heads::{Head, Heads};
use crate::scope::Scoped;
use crate::{AbortCode, SetSummary, SpaceView, TipItem};

/// Stands for an address: the first 16 bytes of its SHA-256, so half the memory, and nobody finds two addresses with the same. In front of
/// that the order key, but for the bits that depend on the record: a bulk stream comes in that order, and what comes next then belongs
/// next to what came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64, [u8; 16]);

impl Key {
    pub(super) fn of(address: &Address) -> Self {
        Self::with(order_key(address, true), address)
    }

    pub(super) fn of_record(record: &Verified) -> Self {
        Self::with(record.order_key(), record.address())
    }

    fn with(order: u64, address: &Address) -> Self {
        let digest = sha256(address.as_str().as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        // Without the top bit (no frame) and the lowest (no key is the greatest number).
        Self(order << 1 >> 2, key)
    }
}

impl Spread for (Key, Sid) {
    fn spread(&self) -> u64 {
        self.0.0
    }
}

impl Spread for Place {
    fn spread(&self) -> u64 {
        self.0
    }
}

/// A timeline, in the order of a bulk stream: by its order key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(pub(super) u64, pub(super) TimelineId);

impl Place {
    fn of(order: u64, timeline: TimelineId) -> Self {
        Self(order, timeline)
    }
}

/// A reference to something that is neither here nor received.
#[derive(Clone, Debug)]
pub(super) struct Missing {
    pub(super) address: Address,
    /// How often it was asked for by address.
    pub(super) tries: u8,
    /// The timeline and counter of the frame whose past it is.
    pub(super) child: Option<(Place, u64)>,
}

impl Missing {
    /// About as many bytes of memory does it take.
    fn bytes(&self) -> usize {
        160 + self.address.as_str().len()
    }
}

/// The frames received of one timeline. A large saga brings millions of timelines, nearly all with one head: no texts, and
/// no room for more.
#[derive(Debug)]
pub(super) struct Timeline {
    /// What it takes to move it.
    pub(super) kind: Kind,
    /// Received frames that no received frame has as ancestor.
    pub(super) heads: Heads,
    /// The lowest counter asked for or received.
    pub(super) low: u64,
    /// How many times frames further down were asked for.
    pub(super) steps: u8,
}

/// Timelines by what it takes to move them. Spec: ibgib §12.5
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The timeline of the space itself.
    Space,
    /// Who may do what.
    Members,
    Ordinary,
}

/// Everything received in this saga, this run and earlier ones.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Sids by address, with the counter of frames; [`NO_FRAME`] for others.
    records: Ascending<(Key, Sid), u64>,
    pub(super) missing: BTreeMap<Key, Missing>,
    /// About as many bytes of memory does that take.
    pub(super) missing_bytes: usize,
    /// Counters that frames must have once they come, because a frame above them came first.
    expected: BTreeMap<Key, u64>,
    /// Frames that a received frame has as parent, and the greatest counter of such a frame.
    covered: BTreeMap<Key, u64>,
    pub(super) timelines: Ascending<Place, Timeline>,
    /// Manifests with pages: their sums are checked at the end.
    pub(super) paged: Vec<Sid>,
    /// Pages.
    pub(super) pages: BTreeMap<Address, Sid>,
    /// Bytes of the records.
    pub(super) bytes: u64,
    /// Summary of the records.
    pub(super) summary: SetSummary,
    /// Summary of the heads of all timelines.
    pub(super) heads: SetSummary,
}

/// The counter of what is no frame.
const NO_FRAME: u64 = u64::MAX;
const SID_MIN: Sid = Sid([0; 32]);
const SID_MAX: Sid = Sid([0xff; 32]);

impl Index {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(super) fn holds(&self, key: Key, sid: Sid) -> bool {
        self.records.contains(&(key, sid))
    }

    pub(super) fn holds_tip(&self, tip: &Address, sid: &Sid) -> bool {
        self.records.contains(&(Key::of(tip), *sid))
    }

    /// The records received with this address, and the counters of those that are frames.
    pub(super) fn shapes(&self, key: Key) -> impl Iterator<Item = (Sid, Option<u64>)> {
        let found = self.records.range((key, SID_MIN), (key, SID_MAX)).into_iter();
        found.map(|((_, sid), n)| (sid, Some(*n).filter(|n| *n != NO_FRAME)))
    }

    /// All sids, ascending.
    pub(super) fn sids(&self) -> Vec<Sid> {
        let mut sids: Vec<_> = self.records.iter().map(|((_, sid), _)| *sid).collect();
        sids.sort_unstable();
        sids
    }

    /// Takes a record in, under the key of its address: checks its counter against the frames around it and notes what it refers to.
    pub(super) fn add(
        &mut self,
        key: Key,
        record: &Verified,
        scoped: &mut Scoped,
        view: &dyn SpaceView,
    ) -> Result<(), Fault> {
        let frame = record.frame_ref();
        if let Some(frame) = frame {
            self.check_counter(key, frame, scoped, view)?;
            self.settle(key, frame, record);
        }
        if self.records.get_or_make((key, record.sid()), || frame.map_or(NO_FRAME, |frame| frame.n)).1 {
            self.summary.add(record.sid().as_bytes());
        }
        self.bytes += record.encoded().len() as u64;
        self.found(key);
        self.note_links(record, scoped, view);
        let ib = record.address().ib();
        if ib == "binpage" {
            self.pages.insert(record.address().clone(), record.sid());
        } else if ib.starts_with("bin ") && record.relations().contains_key("page") {
            self.paged.push(record.sid());
        }
        Ok(())
    }

    /// A reference turned out to be here: another saga may have brought it meanwhile.
    pub(super) fn found(&mut self, key: Key) {
        if let Some(missing) = self.missing.remove(&key) {
            self.missing_bytes -= missing.bytes();
        }
    }

    fn miss(&mut self, key: Key, address: &Address) -> &mut Missing {
        self.missing.entry(key).or_insert_with(|| {
            let missing = Missing { address: address.clone(), tries: 0, child: None };
            self.missing_bytes += missing.bytes();
            missing
        })
    }

    /// Notes that a peer's tip is needed.
    pub(super) fn need(&mut self, address: &Address) {
        let key = Key::of(address);
        if self.shapes(key).next().is_none() {
            self.miss(key, address);
        }
    }

    /// Begins a timeline of which frames from `low` up are asked for.
    pub(super) fn begin(&mut self, tjp: &Address, low: u64) {
        let place = Place::of(order_key(tjp, true), tjp.timeline_id());
        let (timeline, _) = self.timelines.get_or_make(place, || Timeline::new(tjp, low));
        timeline.low = timeline.low.min(low);
    }

    /// SHA-256 over the sids in ascending order.
    pub(super) fn root(sids: &[Sid]) -> [u8; 32] {
        let mut hasher = Sha256::new();
        sids.iter().for_each(|sid| hasher.update(sid.as_bytes()));
        hasher.finish()
    }

    /// The tips of a timeline after the commit: those at OPEN and the received heads, without those that a received
    /// frame has as ancestor. The same as `settle_tips`, since everything received is closed. Sorted by sid.
    pub(super) fn tips_after(&self, timeline: &Timeline, before: &[TipItem]) -> Vec<Head> {
        let stays = |tip: &&TipItem| self.covered.get(&Key::of(&tip.tip)) <= Some(&tip.n);
        let stays = before.iter().filter(stays).map(|tip| Head { sid: tip.sid, id: tip.id });
        let mut tips: Vec<Head> = stays.chain(timeline.heads.iter()).collect();
        tips.sort_by_key(|tip| tip.sid);
        tips.dedup_by_key(|tip| tip.sid);
        tips
    }

    /// Spec: SY-14 `bad_n`, as far as it needs other frames.
    fn check_counter(
        &mut self,
        key: Key,
        frame: &FrameFacts,
        scoped: &Scoped,
        view: &dyn SpaceView,
    ) -> Result<(), Fault> {
        let bad = || Fault::new(AbortCode::BadRecord, "bad_n");
        if self.expected.remove(&key).is_some_and(|n| n != frame.n) {
            return Err(bad());
        }
        let Some(parent) = frame.past.last() else {
            return if frame.n == 0 { Ok(()) } else { Err(bad()) };
        };
        let before = frame.n.checked_sub(1).ok_or_else(bad)?;
        if !scoped.follows("past") {
            return Ok(());
        }
        let parent_key = Key::of(parent);
        let received = self.shapes(parent_key).find_map(|(_, n)| n);
        match received.or_else(|| view.frame_facts(parent).map(|facts| facts.n)) {
            Some(n) if n == before => Ok(()),
            Some(_) => Err(bad()),
            None if *self.expected.entry(parent_key).or_insert(before) == before => Ok(()),
            None => Err(bad()),
        }
    }

    /// Keeps the heads of the timeline.
    fn settle(&mut self, key: Key, frame: &FrameFacts, record: &Verified) {
        let place = Place::of(record.order_key(), frame.timeline);
        let (timeline, _) = self.timelines.get_or_make(place, || Timeline::new(&frame.tjp, frame.n));
        timeline.low = timeline.low.min(frame.n);
        for parent in frame.past.iter().chain(&frame.orphans) {
            let child = self.covered.entry(Key::of(parent)).or_default();
            *child = frame.n.max(*child);
            // An ancestor is one along a falling counter; whoever invents counters covers nothing.
            let parent = Key::of(parent);
            for ((_, sid), n) in self.records.range((parent, SID_MIN), (parent, SID_MAX)) {
                if *n < frame.n
                    && let Some(head) = timeline.heads.remove(&sid)
                {
                    self.heads.sub(&head.id);
                }
            }
        }
        if self.covered.get(&key) <= Some(&frame.n) {
            let (tip, sid) = (record.address(), record.sid());
            let id = TipItem::id_of(&frame.tjp, tip, &sid);
            if timeline.heads.insert(Head { sid, id }) {
                self.heads.add(&id);
            }
        }
    }

    fn note_links(&mut self, record: &Verified, scoped: &mut Scoped, view: &dyn SpaceView) {
        let past = record.frame_ref().map(|frame| (Place::of(record.order_key(), frame.timeline), frame.n));
        for (name, links) in record.relations() {
            if !scoped.follows(name) {
                continue;
            }
            for link in links.iter().filter(|link| !link.is_primitive()) {
                let key = Key::of(link);
                if self.shapes(key).next().is_some() || scoped.knows(view, link) {
                    continue;
                }
                let child = past.filter(|_| name == "past");
                let missing = self.miss(key, link);
                missing.child = missing.child.or(child);
            }
        }
    }
}

impl Kind {
    /// Of the timeline with this first frame.
    fn of(tjp: &Address) -> Self {
        match tjp.ib() {
            "space" => Self::Space,
            "members" => Self::Members,
            _ => Self::Ordinary,
        }
    }
}

impl Timeline {
    fn new(tjp: &Address, low: u64) -> Self {
        Self { kind: Kind::of(tjp), heads: Heads::default(), low, steps: 0 }
    }
}
