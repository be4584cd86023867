//! The tips of a space: what changed since the last run in memory, the rest in runs. Spec: ibgib §13.3; store, "Tips"
//!
//! A tip is added by one move and taken away by another. A run that has only one of the two says so with a count of 1 or
//! −1, and the counts of all runs and of the memory add up. The addresses of a tip stand in its record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use sealtide_ibgib::{Sid, TimelineId};
use sealtide_sync::negentropy::{Ranges, Run};
use sealtide_sync::{IdSum, RangeBound, TipItem, TipSet};

use crate::handle::{join, load};
use crate::pack::Packs;
use crate::run::Unreadable;
use crate::runs::Runs;
use crate::table::{Stored, Table, head_key, read_head_row, read_member_key, read_tip_place, tip_key, tip_place_key};

/// One tip, as far as the tables know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) timeline: TimelineId,
    pub(crate) sid: Sid,
    /// The level-0 id.
    pub(crate) id: [u8; 32],
    pub(crate) stored: Stored,
}

/// What a tip of the memory is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) id: [u8; 32],
    pub(crate) stored: Stored,
    /// −1: a tip of a run that is none any more.
    pub(crate) gone: bool,
}

/// The tips that came or went since the last run.
#[derive(Debug, Default)]
pub(crate) struct FreshTips {
    pub(crate) changes: BTreeMap<(TimelineId, Sid), Change>,
    /// Made when first asked for after a change.
    sorted: OnceLock<Sorted>,
    by_id: OnceLock<Vec<([u8; 32], Stored)>>,
}

/// The changes by (order key, id).
#[derive(Debug, Default)]
struct Sorted {
    added: Run,
    gone: Run,
}

impl Clone for FreshTips {
    fn clone(&self) -> Self {
        Self { changes: self.changes.clone(), ..Self::default() }
    }
}

impl FreshTips {
    fn change(&mut self, head: Head, gone: bool) {
        (self.sorted, self.by_id) = Default::default();
        let change = Change { id: head.id, stored: head.stored, gone };
        let key = (head.timeline, head.sid);
        // What came and went since the last run never was.
        if self.changes.get(&key).is_some_and(|there| there.gone != gone) {
            self.changes.remove(&key);
        } else {
            self.changes.insert(key, change);
        }
    }

    /// All changes, in ascending order of (timeline, sid); `true` for tips that are gone.
    pub(crate) fn heads(&self) -> impl Iterator<Item = (Head, bool)> {
        self.changes.iter().map(|((timeline, sid), change)| {
            (Head { timeline: *timeline, sid: *sid, id: change.id, stored: change.stored }, change.gone)
        })
    }

    fn of(&self, timeline: &TimelineId) -> impl Iterator<Item = (&Sid, &Change)> {
        let range = (*timeline, Sid([0; 32]))..=(*timeline, Sid([0xff; 32]));
        self.changes.range(range).map(|((_, sid), change)| (sid, change))
    }

    fn sorted(&self) -> &Sorted {
        self.sorted.get_or_init(|| {
            let items = |gone: bool| {
                let some = self.changes.values().filter(|change| change.gone == gone);
                Run::new(some.map(|change| (change.stored.order, change.id)).collect())
            };
            Sorted { added: items(false), gone: items(true) }
        })
    }

    /// Where the record of the tip with this id lies, if it came since the last run.
    fn with_id(&self, id: &[u8; 32]) -> Option<Stored> {
        let by_id = self.by_id.get_or_init(|| {
            let added = self.changes.values().filter(|change| !change.gone);
            let mut by_id: Vec<_> = added.map(|change| (change.id, change.stored)).collect();
            by_id.sort_unstable_by_key(|(id, _)| *id);
            by_id
        });
        let at = by_id.binary_search_by_key(id, |(id, _)| *id).ok()?;
        Some(by_id[at].1)
    }
}

/// The tips of one space, now.
#[derive(Debug, Default)]
pub(crate) struct Tips {
    /// Shared with the snapshots that were taken since the last change.
    pub(crate) fresh: Arc<FreshTips>,
    /// Timelines that have several tips.
    pub(crate) diverged: Arc<BTreeSet<TimelineId>>,
    pub(crate) count: u64,
    pub(crate) timelines: u64,
}

impl Tips {
    /// The tips of a timeline, in ascending order of sid. `number` stands for the space in the tables.
    pub(crate) fn of(&self, runs: &Runs, number: u32, timeline: &TimelineId) -> Result<Vec<Head>, Unreadable> {
        heads(&self.fresh, runs, number, timeline)
    }

    /// Changes the tips of a timeline: `gone` are some of `before`, all tips that it has.
    pub(crate) fn change(&mut self, timeline: &TimelineId, before: usize, gone: &[Head], added: &[Head]) {
        let fresh = Arc::make_mut(&mut self.fresh);
        gone.iter().for_each(|head| fresh.change(*head, true));
        added.iter().for_each(|head| fresh.change(*head, false));
        let after = before + added.len() - gone.len();
        self.count = self.count + added.len() as u64 - gone.len() as u64;
        self.timelines = self.timelines + u64::from(after > 0) - u64::from(before > 0);
        if after > 1 && before <= 1 {
            Arc::make_mut(&mut self.diverged).insert(*timeline);
        } else if after <= 1 && before > 1 {
            Arc::make_mut(&mut self.diverged).remove(timeline);
        }
    }

    /// Takes over the tips of a draft. Of the `common` timelines both have some.
    pub(crate) fn join(&mut self, draft: Self, common: &BTreeSet<TimelineId>) {
        if self.fresh.changes.is_empty() {
            self.fresh = draft.fresh;
        } else {
            let fresh = Arc::make_mut(&mut self.fresh);
            draft.fresh.heads().for_each(|(head, gone)| fresh.change(head, gone));
        }
        self.count += draft.count;
        self.timelines += draft.timelines - common.len() as u64;
        Arc::make_mut(&mut self.diverged).extend(draft.diverged.iter().chain(common).copied());
    }

    /// The tips as they are now, to be kept. `number` stands for the space in the tables.
    pub(crate) fn now(&self, runs: &Runs, packs: &Packs, number: u32) -> TipsThen {
        let (fresh, diverged) = (Arc::clone(&self.fresh), Arc::clone(&self.diverged));
        TipsThen { number, runs: runs.clone(), packs: packs.clone(), fresh, diverged }
    }

    /// Forgets what a run has now.
    pub(crate) fn forget_sealed(&mut self) {
        self.fresh = Arc::default();
    }

    /// Calls `take` with every tip, in ascending order of (timeline, sid).
    pub(crate) fn each(&self, runs: &Runs, number: u32, mut take: impl FnMut(Head)) -> Result<(), Unreadable> {
        let mut fresh = self.fresh.heads().peekable();
        let mut scan = runs.scan(Table::Heads, &number.to_be_bytes())?;
        while let Some(row) = scan.next_of(&number.to_be_bytes())? {
            let head = read_head_row(row);
            let key = |head: &Head| (head.timeline, head.sid);
            while let Some((added, _)) = fresh.next_if(|(there, _)| key(there) < key(&head)) {
                take(added);
            }
            let gone = fresh.next_if(|(there, _)| key(there) == key(&head)).is_some();
            if !gone {
                take(head);
            }
        }
        fresh.for_each(|(added, _)| take(added));
        Ok(())
    }
}

/// The tips of a timeline, in ascending order of sid.
fn heads(fresh: &FreshTips, runs: &Runs, number: u32, timeline: &TimelineId) -> Result<Vec<Head>, Unreadable> {
    let key = head_key(number, timeline);
    let mut scan = runs.scan(Table::Heads, &key)?;
    let mut heads = Vec::new();
    while let Some(row) = scan.next_of(&key)? {
        heads.push(read_head_row(row));
    }
    // In a timeline of very many tips as many may be gone: one pass for all.
    let gone: BTreeSet<&Sid> = fresh.of(timeline).filter(|(_, change)| change.gone).map(|(sid, _)| sid).collect();
    if !gone.is_empty() {
        heads.retain(|head| !gone.contains(&head.sid));
    }
    let added = fresh.of(timeline).filter(|(_, change)| !change.gone);
    heads.extend(added.map(|(sid, change)| Head {
        timeline: *timeline,
        sid: *sid,
        id: change.id,
        stored: change.stored,
    }));
    heads.sort_unstable_by_key(|head| head.sid);
    Ok(heads)
}

/// The tips of a space at one moment. Runs and packs are never changed, so it needs nothing of the store.
#[derive(Debug)]
pub(crate) struct TipsThen {
    number: u32,
    runs: Runs,
    packs: Packs,
    fresh: Arc<FreshTips>,
    diverged: Arc<BTreeSet<TimelineId>>,
}

impl TipsThen {
    fn key(&self, bound: &RangeBound) -> [u8; 44] {
        tip_key(self.number, bound.order, &bound.id)
    }

    fn item(&self, stored: &Stored) -> Option<TipItem> {
        TipItem::of(&load(&self.packs, stored)?)
    }

    fn stored(&self, id: &[u8; 32]) -> Result<Option<Stored>, Unreadable> {
        let key = tip_place_key(self.number, id);
        let mut scan = self.runs.scan(Table::TipPlaces, &key)?;
        Ok(scan.next_of(&key)?.map(read_tip_place))
    }

    fn list_all(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Result<Vec<(u64, [u8; 32])>, Unreadable> {
        let Sorted { added, gone } = self.fresh.sorted();
        let mut scan = self.runs.scan(Table::Tips, &self.key(lo))?;
        let end = (hi.order, hi.id);
        let is_gone = |(order, id): &(u64, [u8; 32])| gone.items().binary_search(&(*order, *id)).is_ok();
        let older = || loop {
            let item = scan.next_of(&self.number.to_be_bytes())?.map(read_member_key).filter(|item| *item < end);
            if item.as_ref().is_none_or(|item| !is_gone(item)) {
                return Ok(item);
            }
        };
        join(added.list(lo, hi, limit), older, limit)
    }
}

impl Ranges for TipsThen {
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        if hi <= lo {
            return (0, IdSum::default());
        }
        let Ok((mut count, mut sum)) = self.runs.sum(Table::Tips, &self.key(lo), &self.key(hi)) else {
            return (0, IdSum::default());
        };
        let Sorted { added, gone } = self.fresh.sorted();
        let ((plus, of_added), (minus, of_gone)) = (added.sum(lo, hi), gone.sum(lo, hi));
        count = (count + plus).saturating_sub(minus);
        sum.merge(&of_added);
        sum.sub(&of_gone.0);
        (count, sum)
    }

    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        if hi <= lo {
            return Vec::new();
        }
        self.list_all(lo, hi, limit).unwrap_or_default()
    }
}

impl TipSet for TipsThen {
    fn of(&self, timeline: &TimelineId) -> Vec<TipItem> {
        let heads = heads(&self.fresh, &self.runs, self.number, timeline).unwrap_or_default();
        let mut tips: Vec<TipItem> = heads.iter().filter_map(|head| self.item(&head.stored)).collect();
        tips.sort_by_key(|tip| tip.id);
        tips
    }

    fn with_id(&self, id: &[u8; 32]) -> Option<TipItem> {
        let stored = match self.fresh.with_id(id) {
            Some(stored) => stored,
            None => self.stored(id).ok()??,
        };
        let tip = self.item(&stored)?;
        let gone = self.fresh.changes.get(&(tip.timeline, tip.sid)).is_some_and(|change| change.gone);
        (!gone).then_some(tip)
    }

    fn diverged(&self) -> BTreeSet<TimelineId> {
        BTreeSet::clone(&self.diverged)
    }
}
