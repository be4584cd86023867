//! Drafts: what a large saga stages is put together ahead of its commit, so that it need not stay in memory and the commit
//! moves none of it. Spec: store, "Drafts".

use std::collections::BTreeSet;

use sealtide_ibgib::TimelineId;
use sealtide_identity::SpaceId;
use sealtide_sync::CommitRequest;

use crate::entry::{DraftStep, Entry};
use crate::error::{CommitError, StoreError};
use crate::handle::{load_record_as, members};
use crate::log::Log;
use crate::moving::Moving;
use crate::plan::{Asked, Plan, Settle, txn_of};
use crate::space::SpaceState;
use crate::store::{Batch, Store};
use crate::{guard, read};

/// A timeline of a draft that has more tips is settled at the commit.
const TIPS_MAX: usize = 64;
/// Records that are taken out of a draft by one entry.
const SIDS_AT_ONCE: usize = 1024;

/// What a large saga has staged, put together ahead of its commit: a space of its own that no reader sees. So it need not stay
/// in memory: its rows go into runs under its own number, and become those of the space by one line. Spec: store, "Drafts".
#[derive(Debug)]
pub(crate) struct Draft {
    /// The space that it is for.
    pub(crate) space: SpaceId,
    pub(crate) state: SpaceState,
    /// The first pack whose run may have rows of it.
    pub(crate) first_pack: u32,
    /// Whether some of it may be members of the space: then it cannot become part of it as it is.
    pub(crate) overlaps: bool,
    /// Timelines whose tips are those of an earlier step: they are settled when the commit comes.
    pub(crate) unsettled: BTreeSet<TimelineId>,
}

impl Store {
    /// Puts what a saga has staged into its draft; with the tips of all its timelines when it `is_last`. Spec: store, "Drafts".
    pub(crate) fn draft(&self, log: &mut Log, txn: u64, space: &SpaceId, is_last: bool) -> Result<(), StoreError> {
        let facts = guard(&self.inner.staged_facts).remove(&txn).unwrap_or_default();
        let none = CommitRequest::local(vec![]);
        let mut moving = Moving::new(log, &self.inner, Some(txn));
        let plan = {
            let index = read(&self.inner.index);
            let (empty, all_settled) = (SpaceState::default(), BTreeSet::new());
            let draft = index.txns.get(&txn).and_then(|staged| staged.draft.as_deref());
            let state = draft.map_or(&empty, |draft| &draft.state);
            let unsettled = draft.map_or(&all_settled, |draft| &draft.unsettled);
            let tips_max = self.inner.config.draft_records.min(TIPS_MAX);
            let settle = if is_last { Settle::AlsoThese(unsettled) } else { Settle::NotThese(unsettled, tips_max) };
            let asked = Asked { index: &index, txn, state, draft: None, request: &none, frames: &[], facts, settle };
            let plan = Plan::of(asked, &mut |part| moving.take(part)).map_err(|error| match error {
                CommitError::Store(error) => error,
                other => {
                    tracing::error!(%other, "what was staged cannot be put together");
                    StoreError::Failed
                }
            })?;
            if index.runs.health.is_damaged() {
                return Err(StoreError::Failed);
            }
            moving.write(txn)?;
            plan
        };
        let (log, tips_moved, moves) = moving.end(txn);
        let mut batch = Batch::new(log);
        batch.moves(txn, tips_moved);
        let step = if is_last { DraftStep::Settle { moves } } else { DraftStep::Grow { moves, later: plan.later } };
        batch.push(Entry::Draft { txn, space: *space, step });
        let (items, tips) = (plan.items, plan.tips);
        self.append_with(log, batch, |index| {
            if let Some(draft) = index.txns.get_mut(&txn).and_then(|staged| staged.draft.as_mut()) {
                (draft.state.item_summary, draft.state.tip_summary) = (items, tips);
            }
        })?;
        Ok(())
    }

    /// Makes the draft of a saga ready for its commit: complete, where it can become part of the space as it is; taken apart, where
    /// only some of it is asked for or some of it is there already. Whether it can.
    pub(crate) fn ready_draft(
        &self,
        log: &mut Log,
        space: &SpaceId,
        request: &CommitRequest,
    ) -> Result<bool, CommitError> {
        let drafted = || {
            let index = read(&self.inner.index);
            let txn = txn_of(&index, space, request)?;
            let draft = index.txns.get(&txn).and_then(|staged| Some((staged.records.len(), staged.draft.as_deref()?)));
            let state = draft.map(|(fresh, draft)| {
                let is_due = fresh > 0 || !draft.unsettled.is_empty();
                (txn, is_due, request.staged.is_none() && !draft.overlaps)
            });
            Ok::<_, CommitError>(state)
        };
        let Some((txn, is_due, whole)) = drafted()? else { return Ok(false) };
        if whole && is_due {
            self.draft(log, txn, space, true)?;
        }
        let Some((txn, is_due, whole)) = drafted()? else { return Ok(false) };
        if whole && !is_due {
            return Ok(true);
        }
        let sids = {
            let index = read(&self.inner.index);
            let draft = index.txns.get(&txn).and_then(|staged| staged.draft.as_deref());
            draft.map_or(Ok(Vec::new()), |draft| members(&index, &draft.state))?
        };
        // A list at a time: readers wait while one is taken in. Until the draft is dropped its records are in both, which is as good.
        for sids in sids.chunks(SIDS_AT_ONCE) {
            for sid in sids {
                let index = read(&self.inner.index);
                let stored = index.stored(sid)?.ok_or(CommitError::NotStaged(*sid))?;
                let record = load_record_as(&index, &stored, *sid).map_err(StoreError::Io)?;
                record.ok_or(CommitError::NotStaged(*sid))?;
            }
            let mut batch = Batch::new(log);
            batch.push(Entry::Known { txn, sids: sids.to_vec() });
            self.append(log, batch)?;
        }
        let mut batch = Batch::new(log);
        batch.push(Entry::Draft { txn, space: *space, step: DraftStep::Drop });
        self.append(log, batch)?;
        Ok(false)
    }
}
