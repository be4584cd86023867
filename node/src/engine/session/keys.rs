//! What a session does for keystones: connect, the wait for ACCEPT, the last signatures before BYE. Spec: ibgib §12.4

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealtide_identity::SpaceId;
use sealtide_sync::{AbortCode, Control, ControlInput, ControlOutput};
use tokio::sync::mpsc;

use super::sagas::refuse;
use super::{FAREWELL_MS, Worker, lock};
use crate::engine::keystones::{Asks, Connection};
use crate::engine::signatures::{SessionKeys, Signing};
use crate::engine::{Engine, SAGAS_PER_SESSION_MAX, SyncOrder};
use crate::world::{PeerSession, World};

/// The control machine of a session, and its keystones where this node has any. `None`: no proof could be bound to it.
/// Spec: ibgib §12.4
pub(super) fn begin<W: World>(
    engine: &Engine<W>,
    session: &W::Session,
) -> Option<(Control, Option<Arc<SessionKeys>>, Asks)> {
    let (own, peer) = (engine.id(), session.peer());
    let Some(identity) = engine.keystones().identity(&peer) else {
        return Some((Control::new(SAGAS_PER_SESSION_MAX), None, mpsc::unbounded_channel().1));
    };
    let (connection, asks) = Connection::new(own, peer, session.is_initiator(), session.binding()?);
    let mut challenge = [0; 32];
    engine.world().entropy().fill(&mut challenge);
    let keys = SessionKeys::new(engine.keystones().clone(), connection);
    Some((Control::with_identity(SAGAS_PER_SESSION_MAX, identity, challenge), Some(keys), asks))
}

/// Takes the ledger of a space for the saga that begins.
pub(super) async fn begin_signing(keys: Option<Arc<SessionKeys>>, space: SpaceId) -> Option<Signing> {
    match keys {
        Some(keys) => Some(keys.begin(space).await),
        None => None,
    }
}

/// Does what waits for the disk; `None` when it failed without a word.
async fn in_thread<W: World, T: Send + 'static>(
    engine: &Engine<W>,
    work: impl FnOnce(&Engine<W>) -> T + Send + 'static,
) -> Option<T> {
    let engine = engine.clone();
    tokio::task::spawn_blocking(move || work(&engine)).await.ok()
}

impl<W: World> Worker<W> {
    /// Has keystones do something; what comes of it is a fact for the control machine.
    pub(super) fn ask_keystones(&mut self, wish: ControlOutput) {
        let Some(keys) = self.keys.clone() else { return };
        let (keystones, connection) = (keys.keystones().clone(), keys.connection().clone());
        let engine = self.engine.clone();
        self.jobs.spawn(async move {
            match wish {
                ControlOutput::ProofWanted(introduction) => {
                    ControlInput::Proved(keystones.prove(connection, introduction).await)
                }
                ControlOutput::CheckProof { frames, introduction } => {
                    let checked = keystones.check_proof(connection, frames, introduction).await;
                    keys.came();
                    ControlInput::ProofChecked(checked)
                }
                ControlOutput::PeerOwner(first) => {
                    let after = keystones.held(first.clone()).await;
                    ControlInput::AskKeystone { first, after }
                }
                ControlOutput::KeystoneWanted { first, after } => {
                    let peer = connection.peer;
                    let named = in_thread(&engine, move |engine| engine.named_for(&peer)).await.unwrap_or_default();
                    let frames = keystones.frames(connection, first.clone(), after, named).await;
                    ControlInput::Keystone { first, frames }
                }
                ControlOutput::PeerKeystone { first, frames, last } => {
                    let kept = keystones.keep(connection, first, frames, last).await;
                    keys.came();
                    let _ = in_thread(&engine, |engine| engine.look_at_claims()).await;
                    ControlInput::Kept(kept)
                }
                _ => ControlInput::Tick,
            }
        });
    }

    /// Makes a peer that came with an invite a member, and then tells it of the space; where there is no room for it, it is told so
    /// and the session ends. `false`: there is nothing to do.
    pub(super) fn enter_invited(&mut self) -> bool {
        let enters = self.keys.is_some() && self.engine.is_to_be_entered(&self.peer);
        if enters {
            let (engine, peer, entering) = (self.engine.clone(), self.peer, self.entering.clone());
            entering.store(true, Ordering::Relaxed);
            self.jobs.spawn(async move {
                let entered = in_thread(&engine, move |engine| engine.enter_invited(&peer)).await;
                entering.store(false, Ordering::Relaxed);
                match entered {
                    Some(Err(refused)) => ControlInput::Kept(Err(refused)),
                    _ => ControlInput::Tick,
                }
            });
        }
        enters
    }

    /// Asks the peer for keystones that claims on members frames stand in, where some do not count here.
    pub(super) fn ask_for_claims(&self) {
        let Some(keys) = &self.keys else { return };
        for (space, _) in self.engine.known().labels() {
            let (engine, connection) = (self.engine.clone(), keys.connection().clone());
            if self.engine.role(&self.peer, &space).is_some() {
                tokio::spawn(async move { engine.fetch_claims(space, connection).await });
            }
        }
    }

    /// Asks the peer for the keys of nodes whose commits it brought. Spec: ibgib §12.6
    pub(super) fn ask_for_signers(&self, space: SpaceId) {
        let Some(keys) = self.keys.clone() else { return };
        let engine = self.engine.clone();
        let makers = engine.new_signers(&space);
        if makers.is_empty() {
            return;
        }
        tokio::task::spawn_blocking(move || {
            for keystone in engine.unknown_signers(&space, makers) {
                keys.keystones().ask_for_signer(keys.connection(), &keystone);
            }
        });
    }

    /// Opens the last sagas before BYE, where completed ones are not signed yet. `false`: there are none.
    pub(super) fn say_farewell(&mut self) -> bool {
        let Some(keys) = self.keys.clone().filter(|_| self.ready && self.farewell_by.is_none()) else { return false };
        self.dirty.clear();
        self.farewell_by = Some(self.engine.world().now().mono_ms + FAREWELL_MS);
        for space in keys.unsigned() {
            self.order(SyncOrder::of_itself(space), None);
        }
        !self.farewell_is_over()
    }

    pub(super) fn farewell_is_over(&self) -> bool {
        let now = self.engine.world().now().mono_ms;
        self.farewell_by.is_some_and(|by| now >= by || lock(&self.slots).values().all(|slot| slot.running.is_none()))
    }

    /// A saga before both ACCEPTs is refused; but that of a peer which has proved itself is held until its ACCEPT, which
    /// it sent before, is here too. Spec: ibgib §13.2 "Authentication"
    pub(super) fn answer_early(&mut self, channel: <W::Session as PeerSession>::Channel) {
        let room = self.early.len() < SAGAS_PER_SESSION_MAX as usize;
        if self.machine.peer_is_proved() && room {
            self.early.push(channel);
        } else if self.sagas.len() < 4 * SAGAS_PER_SESSION_MAX as usize {
            let text = "a saga before the identities are proved";
            self.sagas.spawn(async move { refuse(&channel, AbortCode::Auth, text).await });
        }
    }
}
