//! The merge frames that a side adds to what it received. Both sides of a saga in both directions hold the same
//! records when they stage, so both make the same frames. Spec: ibgib §16, merge §6

use std::cell::Cell;
use std::collections::BTreeMap;

use sealtide_ibgib::{
    Address, MergeStrategy, MergedAll, Reader, TIPS_MERGED_MAX, TimelineId, Verified, merge_all, merge_tips, pick_shape,
};

use super::commit::{Changes, Moving, TipsAfter};
use super::index::Key;
use super::run::Run;
use super::{Context, Direction, Side, Strategy};
use crate::TipItem;

/// Merge frames of one saga, at most; the next one goes on.
const FRAMES_MAX: usize = 4096;
/// Bytes of records read for merges in one saga, after which no further timeline is looked at.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a saga merges.
#[derive(Debug, Default)]
pub(super) struct Merges {
    /// The frames, earlier ones first.
    pub(super) frames: Vec<Verified>,
    /// Whether another saga should follow: more is to be merged.
    pub(super) again: bool,
}

impl Run {
    /// Whether both sides make the same merge frames, so that the facts after the saga hold them. With `ours` and
    /// `theirs` a side may not be able to tell whose a tip is, and leaves the merge to the other.
    pub(super) fn merges_alike(&self) -> bool {
        self.terms.direction == Direction::Both && self.terms.strategy == Strategy::Optimistic
    }

    /// Merges every timeline that has several tips, those that had them before included, and puts the tips that are
    /// left into `after`; `changes` tells which others move. Only in direction both: a merge frame that cannot be given back would stay with a reader for
    /// ever, and differ from what the writers make of more tips. Spec: SY-36, SY-61, SY-64
    pub(super) fn merge(&self, context: &Context<'_>, changes: &Changes, after: &mut TipsAfter) -> Merges {
        let mut merges = Merges::default();
        let both = self.terms.direction == Direction::Both;
        if !both || self.terms.strategy == Strategy::Abort || !self.scoped.is_closed_behind() {
            return merges;
        }
        let mut diverged: BTreeMap<TimelineId, Vec<TipItem>> =
            after.iter().map(|(id, moving)| (*id, moving.after.clone())).collect();
        let others = self.scoped.diverged().into_iter().filter(|id| !after.contains_key(id) && !changes.moves(id));
        diverged.extend(others.map(|id| (id, self.tips_before(&id))));
        let read = Cell::new(0);
        for (id, tips) in diverged {
            let Some(tjp) = tips.first().map(|tip| tip.tjp.clone()) else { continue };
            if read.get() > BYTES_MAX || merges.frames.len() + TIPS_MERGED_MAX > FRAMES_MAX {
                merges.again = !merges.frames.is_empty();
                break;
            }
            let merged = self.merge_timeline(context, &tjp, &tips, &read);
            if !merged.frames.is_empty() {
                let mut left: Vec<TipItem> = merged.tips.iter().filter_map(TipItem::of).collect();
                left.sort_by_key(|tip| tip.sid);
                let moving = after.entry(id);
                moving.or_insert_with(|| Moving { before: tips, after: Vec::new() }).after = left;
                merges.frames.extend(merged.frames);
            }
        }
        merges
    }

    fn merge_timeline(&self, context: &Context<'_>, tjp: &Address, tips: &[TipItem], read: &Cell<usize>) -> MergedAll {
        let mut load = |address: &Address| {
            let record = self.load(context, address)?;
            read.set(read.get() + record.encoded().len());
            Some(record)
        };
        let Some(records) = tips.iter().map(|tip| load(&tip.tip)).collect::<Option<Vec<Verified>>>() else {
            return MergedAll::default();
        };
        if self.terms.strategy == Strategy::Optimistic {
            return merge_all(records, &mut load);
        }
        // Spec: SY-64
        let ([left, right], own) = (&records[..], self.tips_before(&tjp.timeline_id())) else {
            return MergedAll::default();
        };
        let is_own = |tip: &Verified| own.iter().any(|own| own.tip == *tip.address());
        let (own, other) = match (is_own(left), is_own(right)) {
            (true, false) => (left, right),
            (false, true) => (right, left),
            _ => return MergedAll::default(),
        };
        let (opener, answerer) = if self.terms.side == Side::Opener { (own, other) } else { (other, own) };
        let strategy = match self.terms.strategy {
            Strategy::Ours => MergeStrategy::Ours(opener.address().clone()),
            _ => MergeStrategy::Theirs(answerer.address().clone()),
        };
        match merge_tips((left, right), &strategy, &mut load) {
            Ok(frame) => MergedAll { frames: vec![frame.clone()], tips: vec![frame] },
            Err(_) => MergedAll::default(),
        }
    }

    /// A record that was received or is a member.
    fn load(&self, context: &Context<'_>, address: &Address) -> Option<Verified> {
        let (view, saga) = (context.view, &context.config.saga);
        let received = self.receive.index.shapes(Key::of(address));
        let received = received.filter_map(|(sid, _)| view.staged_record(saga, &sid));
        let members = view.by_address(address).into_iter().filter_map(|sid| view.record(&sid));
        let shapes: Vec<Verified> = received.chain(members).collect();
        pick_shape(Reader::Json, &shapes).cloned()
    }
}
