//! Sagas that a cut left open. Spec: ibgib §14.4

use sealtide_identity::Role;
use sealtide_sync::{ControlInput, SagaId, SagaState};

use super::Worker;
use crate::world::World;

impl<W: World> Worker<W> {
    /// Asks the peer what became of sagas whose COMMIT was under way when the link was lost. Spec: ibgib §14.4.
    pub(super) fn settle_interrupted(&mut self) {
        let spaces = self.engine.store().spaces();
        let open = spaces.iter().filter_map(|info| self.engine.known().open_saga(&self.peer, &info.space));
        let asked: Vec<SagaId> = open.filter(|open| open.commit_sent).map(|open| open.saga).collect();
        if !asked.is_empty() {
            self.feed(ControlInput::AskStatus(asked));
        }
    }

    pub(super) async fn finish_interrupted(&mut self, states: Vec<(SagaId, SagaState)>) {
        let known = self.engine.known();
        let spaces = self.engine.store().spaces();
        let open: Vec<_> = spaces.iter().filter_map(|info| known.open_saga(&self.peer, &info.space)).collect();
        for (saga, state) in states {
            let Some(open) = open.iter().find(|open| open.saga == saga) else { continue };
            let allowed = self.engine.role(&self.peer, &open.space) >= Some(Role::Write);
            let store = self.engine.store();
            if allowed && state == SagaState::Committed && store.saga_state(&saga) == SagaState::Staged {
                let request = sealtide_sync::CommitRequest::of_saga(saga);
                let Some(room) = self.engine.room(&open.space, &self.peer).await else { continue };
                let connection = self.keys.as_ref().map(|keys| keys.connection().clone());
                match self.engine.commit_received(&room, self.peer, saga, request, connection).await {
                    Ok(result) => self.engine.committed(open.space, Some(self.peer), &result),
                    Err(error) => {
                        // The note stays: a disk may have room by the next session.
                        tracing::warn!(%error, "a saga that the peer committed could not be finished");
                        continue;
                    }
                }
            }
            if !self.engine.is_at_work(&saga) {
                // Without its note nobody comes back to what is staged.
                if store.saga_state(&saga) == SagaState::Staged
                    && let Err(error) = store.abort(&saga)
                {
                    tracing::warn!(%error, "what a saga has staged that the peer did not commit stays for now");
                }
                self.engine.quotas().end(store, &saga);
            }
            let _ = known.clear_open_saga(&self.peer, &open.space);
        }
    }
}
