//! Deterministic merges: one frame out of two tips of a timeline, the same on every node. Spec: ibgib §16, merge.md.
//!
//! No clock and no chance take part, and the order in which the tips are given does not matter.

mod base;
mod file;
mod members;
mod text;
mod value;

use std::collections::{BTreeMap, VecDeque};

use serde_json::json;

use self::base::common_frames;
use self::members::MEMBERS_IB;
use self::text::Places;
pub use self::text::{MergedText, merge_text};
use self::value::{Choice, choose, merge_objects, merge_relations};
use crate::latest::winner_order;
use crate::{Address, Data, FILE_IB, FrameFacts, Object, Refusal, Relations, Verified};

/// Tips of one timeline that [`merge_all`] looks at, at most. More than a few only ever stand beside each other when
/// somebody wants it so.
pub const TIPS_MERGED_MAX: usize = 16;

/// Members of the data that a merge sets itself.
const OWN_MEMBERS: [&str; 6] = ["n", "timestamp", "timestampMs", "uuid", "isTjp", "graft"];

/// How two tips become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MergeStrategy {
    /// Every edit is kept where that is possible.
    Optimistic,
    /// The same, compared with G alone where there are several newest common frames. A version of 2026-11-30 merged so: its frames are
    /// known by it, and none is made by it.
    OneBase,
    /// As [`MergeStrategy::OneBase`], with the changes of texts where the walk of ibgib §16.2 meets them. Versions before merged so.
    Earlier,
    /// This tip, of the node that opened the saga, wins whole.
    Ours(Address),
    /// This tip, of the other node, wins whole.
    Theirs(Address),
}

impl MergeStrategy {
    /// The word in `data.graft.strategy`.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Optimistic | Self::OneBase | Self::Earlier => "optimistic",
            Self::Ours(_) => "ours",
            Self::Theirs(_) => "theirs",
        }
    }
}

/// Why two tips stay two.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoMerge {
    /// One is an ancestor of the other, or they are the same: the newer one is the tip.
    #[error("one of the tips is an ancestor of the other")]
    FastForward,
    /// They are not two frames of one timeline.
    #[error("not two frames of one timeline")]
    OtherTimeline,
    /// A keystone or another timeline that only grows: divergence there is equivocation.
    #[error("a stone timeline never merges")]
    StoneTimeline,
    /// A timeline of ib `members`, and a strategy that takes one side whole: who may do what is merged by rule alone.
    #[error("members are merged by rule alone")]
    Members,
    /// No frame is behind both, or it is further away than a million frames.
    #[error("no_common_frame")]
    NoCommonFrame,
    /// One of the three is no frame that a folder can read.
    #[error("not a frame of a folder")]
    NotAFile,
    /// The strategy names neither of the tips.
    #[error("the strategy names another frame")]
    NoSuchTip,
    /// The merged record would be refused: mostly `too_large`.
    #[error("the merged record would be refused: {0}")]
    Refused(#[from] Refusal),
}

/// Merges two tips of one timeline. `load` gives any record of the space that is JSON ([`crate::Reader::Json`]).
///
/// # Errors
/// [`NoMerge`]: both tips stay.
// Spec: SY-58, SY-59, SY-62, SY-63, SY-64
pub fn merge_tips(
    (left, right): (&Verified, &Verified),
    strategy: &MergeStrategy,
    load: &mut dyn FnMut(&Address) -> Option<Verified>,
) -> Result<Verified, NoMerge> {
    merge_within((left, right), strategy, load, &mut BASES_MERGED_MAX.clone())
}

/// Newest common frames that one merge merges before it compares with them, at most; where that is not enough G is taken alone.
const BASES_MERGED_MAX: u32 = 64;

/// As [`merge_tips`], with so many merges of common frames left.
fn merge_within(
    (left, right): (&Verified, &Verified),
    strategy: &MergeStrategy,
    load: &mut dyn FnMut(&Address) -> Option<Verified>,
    left_over: &mut u32,
) -> Result<Verified, NoMerge> {
    let (left_facts, right_facts) = left.frame_ref().zip(right.frame_ref()).ok_or(NoMerge::OtherTimeline)?;
    if left_facts.tjp != right_facts.tjp {
        return Err(NoMerge::OtherTimeline);
    }
    let common = common_frames((left, left_facts), (right, right_facts), load)?;
    let (base, others) = common.split_first().ok_or(NoMerge::NoCommonFrame)?;
    if [left, right].iter().any(|tip| tip.address() == base.address()) {
        return Err(NoMerge::FastForward);
    }
    refuse_stones([left, right, base], &left_facts.tjp, load)?;
    if matches!(strategy, MergeStrategy::Ours(_) | MergeStrategy::Theirs(_)) && left_facts.tjp.ib() == MEMBERS_IB {
        return Err(NoMerge::Members);
    }
    let (left, right) = ((left, left_facts), (right, right_facts));
    let newer = winner_order((left.0.address(), left.1), (right.0.address(), right.1)).is_gt();
    let (newer, older) = if newer { (left, right) } else { (right, left) };
    match strategy {
        MergeStrategy::Optimistic => {
            let merged = merge_bases(base, others, load, left_over);
            Ok(optimistic((base, &merged), newer, older, Places::Settled)?)
        }
        MergeStrategy::OneBase => Ok(optimistic((base, base), newer, older, Places::Settled)?),
        MergeStrategy::Earlier => Ok(optimistic((base, base), newer, older, Places::AsMet)?),
        MergeStrategy::Ours(winner) | MergeStrategy::Theirs(winner) => {
            let winner = [newer.0, older.0].into_iter().find(|tip| tip.address() == winner);
            let winner = winner.ok_or(NoMerge::NoSuchTip)?;
            let (data, relations) = (winner.object().unwrap_or_default(), winner.relations().clone());
            let merged = Merged { data, relations, ib: winner.address().ib().to_owned(), conflicts: 0 };
            Ok(merged.finish(base, winner, newer, older, strategy)?)
        }
    }
}

/// What two tips are compared with: their newest common frames, merged. Where each side merged what the other made, at the same time, one
/// of them alone lacks what stands in the other, and both sides would seem to have added it.
fn merge_bases(
    base: &Verified,
    others: &[Verified],
    load: &mut dyn FnMut(&Address) -> Option<Verified>,
    left_over: &mut u32,
) -> Verified {
    let mut made: BTreeMap<Address, Verified> = BTreeMap::new();
    let mut merged = base.clone();
    for next in others {
        let Some(rest) = left_over.checked_sub(1) else { break };
        *left_over = rest;
        let mut load = |address: &Address| made.get(address).cloned().or_else(|| load(address));
        let Ok(both) = merge_within((&merged, next), &MergeStrategy::Optimistic, &mut load, left_over) else {
            continue;
        };
        made.insert(both.address().clone(), both.clone());
        merged = both;
    }
    merged
}

/// Spec: ibgib §1.6
fn refuse_stones(
    frames: [&Verified; 3],
    first: &Address,
    load: &mut dyn FnMut(&Address) -> Option<Verified>,
) -> Result<(), NoMerge> {
    let first = load(first);
    for frame in frames.into_iter().chain(&first) {
        let ancestors = frame.relations().get("ancestor").map_or(&[][..], Vec::as_slice);
        if ancestors.iter().any(|ancestor| ancestor.as_str() == "keystone^gib") {
            return Err(NoMerge::StoneTimeline);
        }
    }
    Ok(())
}

/// A tip and what it is in its timeline.
type Tip<'a> = (&'a Verified, &'a FrameFacts);

/// What a merge takes along: how texts are matched, and how many conflicts there were so far.
struct Tally {
    places: Places,
    conflicts: u64,
}

/// Merges what both made of `base`; `named` is the frame that the result names as such.
fn optimistic(
    (named, base): (&Verified, &Verified),
    winner: Tip<'_>,
    loser: Tip<'_>,
    places: Places,
) -> Result<Verified, NoMerge> {
    let records = [base, winner.0, loser.0];
    let ibs = records.map(|record| record.address().ib());
    let mut tally = Tally { places, conflicts: 0 };
    let ib = match choose(ibs[0], ibs[1], ibs[2]) {
        Choice::Winner => ibs[1],
        Choice::Loser => ibs[2],
        Choice::Both => {
            tally.conflicts += 1;
            ibs[1]
        }
    };
    let files = ibs == [FILE_IB; 3];
    let lists = ibs == [MEMBERS_IB; 3];
    let by_rule: &[&str] = match ib {
        _ if files => &file::MEMBERS,
        _ if lists => &members::MEMBERS,
        "space" | "doc" => &["by"],
        _ => &[],
    };
    let except = [&OWN_MEMBERS, by_rule].concat();
    let objects = records.map(|record| record.object().unwrap_or_default());
    let mut data = merge_objects(&objects[0], &objects[1], &objects[2], &except, &mut tally);
    let apart: &[&str] = if files { &[file::RELATION] } else { &[] };
    let mut relations = merge_relations(base.relations(), winner.0.relations(), loser.0.relations(), apart);
    if files {
        file::merge_files(records, &mut data, &mut relations, &mut tally)?;
    } else if lists {
        members::merge_members(&objects, &mut data);
    } else if let Some(by) = objects[1].get("by").filter(|_| by_rule.contains(&"by")) {
        data.insert("by".to_owned(), by.clone());
    }
    let dna = [winner.0, loser.0].map(|tip| tip.relations().get("dna").map_or(&[][..], Vec::as_slice));
    let added = dna[1].iter().filter(|address| !dna[0].contains(address));
    let dna: Vec<Address> = dna[0].iter().chain(added).cloned().collect();
    if !dna.is_empty() {
        relations.insert("dna".to_owned(), dna);
    }
    let merged = Merged { data, relations, ib: ib.to_owned(), conflicts: tally.conflicts };
    Ok(merged.finish(named, winner.0, winner, loser, &MergeStrategy::Optimistic)?)
}

/// The content of a merge frame, before its place in the timeline.
struct Merged {
    data: Object,
    relations: Relations,
    ib: String,
    conflicts: u64,
}

impl Merged {
    /// Puts the frame behind `newer`, with `older` as its orphan. What is never merged comes from `winner`.
    fn finish(
        mut self,
        base: &Verified,
        winner: &Verified,
        newer: Tip<'_>,
        older: Tip<'_>,
        strategy: &MergeStrategy,
    ) -> Result<Verified, Refusal> {
        OWN_MEMBERS.iter().for_each(|name| _ = self.data.shift_remove(*name));
        let n = newer.1.n.checked_add(1).ok_or(Refusal::BadN)?;
        self.data.insert("n".to_owned(), json!(n));
        self.data.insert("graft".to_owned(), json!({"conflicts": self.conflicts, "strategy": strategy.as_str()}));
        let later = if older.1.stamp > newer.1.stamp { older.0 } else { newer.0 };
        for (name, from) in [("uuid", winner), ("timestamp", later), ("timestampMs", later)] {
            if let Some(value) = from.object().and_then(|mut data| data.shift_remove(name)) {
                self.data.insert(name.to_owned(), value);
            }
        }
        for name in ["ancestor", "tjp"] {
            match winner.relations().get(name) {
                Some(list) => self.relations.insert(name.to_owned(), list.clone()),
                None => self.relations.remove(name),
            };
        }
        for (name, frame) in [("past", newer.0), ("graftorphan", older.0), ("graftbase", base)] {
            self.relations.insert(name.to_owned(), vec![frame.address().clone()]);
        }
        Verified::make(&self.ib, Data::Json(self.data.into()), self.relations)
    }
}

/// How many conflicts a merge frame counts; `None` when the record is no merge frame.
pub fn merge_conflicts(record: &Verified) -> Option<u64> {
    record.relations().get("graftorphan").filter(|orphans| !orphans.is_empty())?;
    record.object()?.get("graft")?.get("conflicts")?.as_u64()
}

/// What [`merge_all`] made of the tips of a timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MergedAll {
    /// The merge frames, in the order in which they were made: a later one may follow an earlier one.
    pub frames: Vec<Verified>,
    /// The tips that are left, in no particular order.
    pub tips: Vec<Verified>,
}

/// Merges all tips of one timeline by [`MergeStrategy::Optimistic`]: the two with the smallest gibs first, then the
/// result with the next; a tip that merges with none of the others stays. Of more than [`TIPS_MERGED_MAX`] tips only
/// those with the smallest gibs are looked at.
pub fn merge_all(tips: Vec<Verified>, load: &mut dyn FnMut(&Address) -> Option<Verified>) -> MergedAll {
    let mut sorted = tips;
    sorted.sort_by(|left, right| (left.address().gib(), left.address()).cmp(&(right.address().gib(), right.address())));
    sorted.dedup_by(|left, right| left.address() == right.address());
    let mut merged = MergedAll { frames: Vec::new(), tips: sorted.split_off(sorted.len().min(TIPS_MERGED_MAX)) };
    let mut made: BTreeMap<Address, Verified> = BTreeMap::new();
    let mut open = VecDeque::from(sorted);
    while let Some(tip) = open.pop_front() {
        let partner = open.iter().enumerate().find_map(|(place, other)| {
            let mut load = |address: &Address| made.get(address).cloned().or_else(|| load(address));
            Some((place, merge_tips((&tip, other), &MergeStrategy::Optimistic, &mut load).ok()?))
        });
        match partner {
            Some((place, frame)) => {
                open.remove(place);
                made.insert(frame.address().clone(), frame.clone());
                merged.frames.push(frame.clone());
                open.push_front(frame);
            }
            None => merged.tips.push(tip),
        }
    }
    merged
}
