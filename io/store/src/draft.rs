//! Drafts: what a large saga stages is put together ahead of its commit, so that it need not stay in memory and the commit
//! moves none of it. Spec: store, "Drafts".

use sealtide_ibgib::ChunkHash;
use sealtide_identity::SpaceId;
use sealtide_sync::CommitRequest;

use crate::entry::Entry;
use crate::error::{CommitError, StoreError};
use crate::handle::members;
use crate::log::Log;
use crate::moving::Moving;
use crate::plan::{Asked, Plan, txn_of};
use crate::space::SpaceState;
use crate::store::{Batch, Store};
use crate::{guard, read};

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
}

impl Store {
    /// Puts what a saga has staged into its draft. Spec: store, "Drafts".
    pub(crate) fn draft(&self, log: &mut Log, txn: u64, space: &SpaceId) -> Result<(), StoreError> {
        let facts = guard(&self.inner.staged_facts).remove(&txn).unwrap_or_default();
        let none = CommitRequest { saga: None, staged: None, records: vec![], expected: vec![], strict: false };
        let mut moving = Moving::new(log, &self.inner, Some(txn));
        let (plan, listed) = {
            let index = read(&self.inner.index);
            let empty = SpaceState::default();
            let staged = index.txns.get(&txn);
            let state = staged.and_then(|staged| staged.draft.as_deref()).map_or(&empty, |draft| &draft.state);
            let asked = Asked { index: &index, txn, state, draft: None, request: &none, frames: &[], facts };
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
            let records = staged.into_iter().flat_map(|staged| &staged.records);
            let listed: Vec<ChunkHash> =
                records.filter_map(|id| index.chunk_lists.get(id)).flatten().copied().collect();
            (plan, listed)
        };
        let (log, tips_moved, moves) = moving.end(txn);
        let mut batch = Batch::new(log);
        batch.moves(txn, tips_moved);
        batch.push(Entry::Draft { txn, space: *space, moves, dropped: false });
        let (items, tips) = (plan.items, plan.tips);
        self.append_with(log, batch, |index| {
            if let Some(draft) = index.txns.get_mut(&txn).and_then(|staged| staged.draft.as_mut()) {
                (draft.state.item_summary, draft.state.tip_summary) = (items, tips);
            }
        })?;
        self.inner.touched.listed(&listed);
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
            let state = draft.map(|(fresh, draft)| (txn, fresh, request.staged.is_none() && !draft.overlaps));
            Ok::<_, CommitError>(state)
        };
        let Some((txn, fresh, whole)) = drafted()? else { return Ok(false) };
        if whole && fresh > 0 {
            self.draft(log, txn, space)?;
        }
        let Some((txn, _, whole)) = drafted()? else { return Ok(false) };
        if whole {
            return Ok(true);
        }
        let sids = {
            let index = read(&self.inner.index);
            let draft = index.txns.get(&txn).and_then(|staged| staged.draft.as_deref());
            draft.map_or(Ok(Vec::new()), |draft| members(&index, &draft.state))?
        };
        let mut batch = Batch::new(log);
        batch.lists(&sids, |sids| Entry::Known { txn, sids });
        batch.push(Entry::Draft { txn, space: *space, moves: 0, dropped: true });
        self.append(log, batch)?;
        Ok(false)
    }
}
