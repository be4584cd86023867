//! One saga: opened or answered, driven, and what is left of it. Spec: ibgib §13.9, §14

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealtide_identity::{NodeId, SpaceId};
use sealtide_sync::negentropy::Splitter;
use sealtide_sync::{
    AbortCode, Contexts, Direction, Limits, OpenHead, Saga, SagaConfig, SagaId, SagaOutcome, SagaState, Scope,
};
use tokio::sync::watch;

use super::keys::begin_signing;
use super::{Ended, HELLO_WAIT, Running, SAGA, Slots, lock};
use crate::engine::room::Room;
use crate::engine::saga_task::SagaTask;
use crate::engine::signatures::{SessionKeys, Signing};
use crate::engine::{Engine, Event, SyncOrder};
use crate::known::OpenSaga;
use crate::world::{PeerChannel, PeerSession, World};

/// How long a look at the folder may hold back the answer to OPEN; the opener waits for 120 s. Spec: ibgib §13.8
const FRESH_WAIT: Duration = Duration::from_secs(60);
/// What a node that cannot take a saga now tells its peer to wait.
const BUSY_RETRY_MS: u64 = 100;
/// How long to wait before a failed saga is tried again.
const RETRY_MS: u64 = 2000;
/// How long to wait for room on a disk.
const DISK_RETRY_MS: u64 = 10_000;

/// Opens one saga and drives it. A saga of this pair that a cut interrupted is resumed under its old id.
#[expect(clippy::too_many_arguments, reason = "one call site")]
pub(super) async fn open_saga<W: World>(
    engine: &Engine<W>,
    session: &W::Session,
    order: SyncOrder,
    direction: Direction,
    agreed: Agreed,
    cancel: watch::Receiver<bool>,
    signing: Option<Signing>,
    last: bool,
) -> SagaOutcome {
    let lost = SagaOutcome::Interrupted { commit_sent: false };
    let peer = session.peer();
    let Some(room) = engine.room(&order.space, &peer).await else { return lost };
    // A process that ended right after the commit left the note behind; that saga is over.
    let unfinished = |saga: &SagaId| matches!(engine.store().saga_state(saga), SagaState::Staged | SagaState::Unknown);
    let open = engine.known().open_saga(&peer, &order.space);
    let open = open.filter(|open| !open.commit_sent && unfinished(&open.saga));
    let saga_id = open.map_or_else(|| engine.new_saga_id(), |open| open.saga);
    let Ok(channel) = session.open(3, SAGA).await else { return lost };
    let members = engine.members_frame(&order.space);
    let contexts = signing.as_ref().map(|signing| signing.contexts(last, members));
    let config = SagaConfig { fresh: order.fresh, ..config(engine, saga_id, order.space, peer, agreed, contexts) };
    let saga = Saga::open(engine.world().now(), config, Scope::All, direction, order.strategy, &room);
    drive(engine, peer, saga_id, room, cancel, &channel, saga, None, signing).await
}

/// Answers one saga: reads OPEN, looks whether the slot is free, drives it. `None` when it was refused.
pub(super) async fn answer_saga<W: World>(
    engine: &Engine<W>,
    peer: NodeId,
    channel: <W::Session as PeerSession>::Channel,
    slots: &Slots,
    agreed: Agreed,
    keys: Option<Arc<SessionKeys>>,
) -> Option<Ended> {
    let open = tokio::time::timeout(HELLO_WAIT, channel.recv()).await.ok()?.ok()??;
    let OpenHead { saga: saga_id, space, fresh } = match Saga::peek_open(&open) {
        Ok(head) => head,
        Err(error) => {
            refuse(&channel, AbortCode::Protocol, &error.to_string()).await;
            return None;
        }
    };
    // A space that does not exist and one that is forbidden get the same answer.
    let room = match engine.role(&peer, &space) {
        Some(_) => engine.room(&space, &peer).await,
        None => None,
    };
    let Some(room) = room else {
        refuse(&channel, AbortCode::NotAllowed, "no such space, or no grant for it").await;
        return None;
    };
    if engine.is_paused(&space) {
        refuse(&channel, AbortCode::Cancelled, "the space is paused at the other node").await;
        return None;
    }
    if engine.is_reading(&space) {
        refuse(&channel, AbortCode::Busy, "the folder of this space is being read").await;
        return None;
    }
    // A folder that takes longer goes on looking, and the opener asks again.
    if fresh && tokio::time::timeout(FRESH_WAIT, engine.freshen(&space)).await.is_err() {
        refuse(&channel, AbortCode::Busy, "the folder of this space is being read").await;
        return None;
    }
    let taken = take_slot(slots, space, engine.id() < peer, || engine.take_turn(space, peer));
    let (serial, cancelled) = match taken {
        Ok(taken) => taken,
        Err(wait) => {
            refuse_until(&channel, AbortCode::Busy, "a saga of this space is running", wait).await;
            if let (Some(keys), Some(sig)) = (keys, Saga::peek_signature(&open)) {
                keys.unseen(sig).await;
            }
            return None;
        }
    };
    engine.lock().spaces.entry((space, peer)).or_default().running = true;
    engine.emit(Event::SagaBegan { space, peer });
    let signing = begin_signing(keys, space).await;
    let members = engine.members_frame(&space);
    let contexts = signing.as_ref().map(|signing| signing.contexts(false, members));
    let saga = Saga::answer(engine.world().now(), config(engine, saga_id, space, peer, agreed, contexts), &room);
    let outcome = drive(engine, peer, saga_id, room, cancelled, &channel, saga, Some(open), signing).await;
    Some((space, serial, outcome))
}

/// Takes the slot for an incoming saga. When an own OPEN is under way at the same time, the one of the smaller node
/// id stays: `mine_wins`. `turn` takes the turn, for an OPEN only that finds the slot free: a refused one takes nothing,
/// or a peer could renew the turn of the saga that it has running and keep all others waiting.
///
/// # Errors
/// Within how many ms the peer should ask again.
fn take_slot(
    slots: &Slots,
    space: SpaceId,
    mine_wins: bool,
    turn: impl FnOnce() -> Result<(), u64>,
) -> Result<(u64, watch::Receiver<bool>), u64> {
    let mut slots = lock(slots);
    let slot = slots.entry(space).or_default();
    // The own OPEN stays, or the peer opened a second one: it is told `busy` and opens again by itself. If this side did
    // so too, the two would cross for ever.
    if slot.running.as_ref().is_some_and(|running| !running.mine || mine_wins) {
        return Err(BUSY_RETRY_MS);
    }
    turn()?;
    let mut waiters: Vec<_> = slot.waiters.drain(..).collect();
    // The own OPEN will be answered with `busy`: its slot and whoever waits for it go to the peer's saga.
    if let Some(running) = &mut slot.running {
        slot.again = true;
        waiters.append(&mut running.waiters);
        // Nor can it stand for an order of its own kind: that one follows, with whoever waits.
        if let Some(order) = running.order.take() {
            slot.order = Some(order);
            slot.waiters = std::mem::take(&mut waiters);
        }
    }
    let (cancel, cancelled) = watch::channel(false);
    slot.serial += 1;
    slot.running = Some(Running { serial: slot.serial, mine: false, order: None, cancel, waiters });
    Ok((slot.serial, cancelled))
}

#[expect(clippy::too_many_arguments, reason = "one call site each for opener and answerer")]
async fn drive<W: World, C: PeerChannel>(
    engine: &Engine<W>,
    peer: NodeId,
    saga_id: SagaId,
    room: Room,
    cancel: watch::Receiver<bool>,
    channel: &C,
    mut saga: Saga,
    first: Option<Bytes>,
    signing: Option<Signing>,
) -> SagaOutcome {
    let (known, space) = (engine.known(), room.space().id());
    let keys = signing.as_ref().map(|signing| signing.keys.clone());
    // The peer makes up the id.
    if !engine.quotas().begin(engine.store(), saga_id, peer, space) {
        let (code, text) = (AbortCode::Busy, "a saga with this id is running");
        refuse(channel, code, text).await;
        if let Some(signing) = signing {
            signing.end(saga.chain());
        }
        return SagaOutcome::Aborted { code, by_peer: false, text: text.to_owned(), retry_after_ms: BUSY_RETRY_MS };
    }
    give_up_replaced(engine, &peer, &space, &saga_id);
    let task = SagaTask { engine: engine.clone(), peer, space, saga: saga_id, room, cancel, keys };
    let outcome = task.run(channel, &mut saga, first).await;
    if let Some(signing) = signing {
        signing.end(saga.chain());
    }
    let noted = match &outcome {
        SagaOutcome::Interrupted { commit_sent } => {
            known.note_open_saga(&peer, &OpenSaga { space, saga: saga_id, commit_sent: *commit_sent })
        }
        SagaOutcome::Committed { .. } => known.clear_open_saga(&peer, &space),
        SagaOutcome::Aborted { code, .. } => {
            // After `busy` or a timeout what was staged is still good, and so is the note of it; everything else starts
            // from nothing. The note may be that of another saga of this pair, which goes on.
            if matches!(code, AbortCode::Busy | AbortCode::Timeout | AbortCode::Cancelled) {
                Ok(())
            } else {
                let _ = engine.store().abort(&saga_id);
                match known.open_saga(&peer, &space) {
                    Some(open) if open.saga == saga_id => known.clear_open_saga(&peer, &space),
                    _ => Ok(()),
                }
            }
        }
    };
    engine.quotas().end(engine.store(), &saga_id);
    if let Err(error) = noted {
        tracing::warn!(%error, "the journal of sagas could not be written");
    }
    outcome
}

/// A pair goes on with the saga that is noted. Where it begins another one, nobody comes back to what that has staged: it would count
/// against the quotas, and keep its room, until it is too old. One whose COMMIT is out is settled first. Spec: node §1
fn give_up_replaced<W: World>(engine: &Engine<W>, peer: &NodeId, space: &SpaceId, saga: &SagaId) {
    let Some(open) = engine.known().open_saga(peer, space) else { return };
    let is_nobodys = open.saga != *saga && !open.commit_sent && !engine.is_at_work(&open.saga);
    if !is_nobodys || engine.store().saga_state(&open.saga) != SagaState::Staged {
        return;
    }
    if let Err(error) = engine.store().abort(&open.saga) {
        tracing::warn!(%error, "what a saga has staged that is not gone on with stays for now");
    }
    engine.quotas().end(engine.store(), &open.saga);
}

pub(super) async fn refuse<C: PeerChannel>(channel: &C, code: AbortCode, text: &str) {
    refuse_until(channel, code, text, if code == AbortCode::Busy { BUSY_RETRY_MS } else { 0 }).await;
}

async fn refuse_until<C: PeerChannel>(channel: &C, code: AbortCode, text: &str, retry: u64) {
    let _ = tokio::time::timeout(Duration::from_secs(5), channel.send(Saga::refusal(code, text, retry))).await;
    channel.finish();
}

/// Features of `sts/1` that both HELLOs offer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) zstd: bool,
    pub(super) recon: bool,
}

fn config<W: World>(
    engine: &Engine<W>,
    saga: SagaId,
    space: SpaceId,
    peer: NodeId,
    agreed: Agreed,
    contexts: Option<Contexts>,
) -> SagaConfig {
    SagaConfig {
        saga,
        space,
        peer,
        peer_role: engine.role(&peer, &space),
        zstd: agreed.zstd,
        recon: agreed.recon,
        splitter: Splitter::default(),
        limits: Limits::default(),
        contexts,
        fresh: false,
        // A file whose content does not come must not come either. Releases go without old contents: `Room::may_lack`.
        may_lack: engine.known().label(&space).is_some_and(|label| label.kind == "data" && label.dir.is_none()),
    }
}

/// How long to wait before a saga that ended so is tried again by itself; `None`: not before something changes.
pub(super) fn retry_after(outcome: &SagaOutcome) -> Option<u64> {
    match outcome {
        SagaOutcome::Committed { .. } => None,
        SagaOutcome::Aborted { code: AbortCode::Busy | AbortCode::TipMoved, retry_after_ms, .. } => {
            Some((*retry_after_ms).clamp(20, 10_000))
        }
        SagaOutcome::Aborted { code: AbortCode::Incomplete | AbortCode::Timeout, .. } => Some(RETRY_MS),
        // Room may come back, here or there, without a change that would start a saga.
        SagaOutcome::Aborted { code: AbortCode::Disk, .. } => Some(DISK_RETRY_MS),
        SagaOutcome::Aborted { .. } => None,
        // Of a session that is over nobody asks; in one that lives the peer dropped the channel.
        SagaOutcome::Interrupted { .. } => Some(RETRY_MS),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::super::Slot;
    use super::*;
    use crate::engine::SagaReport;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

    /// A slot whose saga this node opened, with somebody waiting for it.
    fn opened() -> (Slots, watch::Receiver<bool>, oneshot::Receiver<SagaReport>) {
        let (cancel, cancelled) = watch::channel(false);
        let (waiter, report) = oneshot::channel();
        let running = Running { serial: 1, mine: true, order: None, cancel, waiters: vec![waiter] };
        let slot = Slot { running: Some(running), serial: 1, ..Slot::default() };
        (Arc::new(Mutex::new(BTreeMap::from([(SPACE, slot)]))), cancelled, report)
    }

    /// Else a peer keeps its turn for ever: with every OPEN it would begin anew.
    fn no_turn() -> Result<(), u64> {
        panic!("an OPEN that finds no slot took a turn")
    }

    #[test]
    fn of_two_crossing_opens_one_stays_and_nobody_who_waits_is_forgotten() {
        let (slots, _cancelled, mut report) = opened();
        assert!(take_slot(&slots, SPACE, true, no_turn).is_err(), "the own one stays");
        assert!(lock(&slots)[&SPACE].running.as_ref().is_some_and(|running| running.mine));

        assert_eq!(take_slot(&slots, SPACE, false, || Err(7)).err(), Some(7), "another peer's turn");
        assert!(
            lock(&slots)[&SPACE].running.as_ref().is_some_and(|running| running.mine && running.waiters.len() == 1)
        );
        let (serial, _) = take_slot(&slots, SPACE, false, || Ok(())).expect("the slot goes to the peer's");
        assert_eq!(serial, 2, "the end of the own saga is told from that of the peer's");
        let waiting = lock(&slots)[&SPACE].running.as_ref().map(|running| (running.mine, running.waiters.len()));
        assert_eq!(waiting, Some((false, 1)));
        assert!(take_slot(&slots, SPACE, false, no_turn).is_err(), "a second one of the peer finds it taken");
        assert_eq!(report.try_recv().err(), Some(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn a_crossing_saga_does_not_stand_for_an_order_of_its_own_kind() {
        let (slots, _cancelled, mut report) = opened();
        let order = SyncOrder { fresh: true, ..SyncOrder::of_itself(SPACE) };
        lock(&slots).get_mut(&SPACE).and_then(|slot| slot.running.as_mut()).expect("it runs").order = Some(order);
        take_slot(&slots, SPACE, false, || Ok(())).expect("the slot goes to the peer's");
        let slots = lock(&slots);
        let slot = &slots[&SPACE];
        assert!(slot.again && slot.order.is_some_and(|order| order.fresh), "the order follows");
        assert_eq!(slot.waiters.len(), 1, "and so does who waits");
        assert_eq!(report.try_recv().err(), Some(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn no_saga_that_failed_is_tried_again_at_once() {
        let aborted =
            |code, retry_after_ms| SagaOutcome::Aborted { code, by_peer: true, text: String::new(), retry_after_ms };
        assert_eq!(retry_after(&aborted(AbortCode::Busy, 0)), Some(20));
        assert_eq!(retry_after(&aborted(AbortCode::TipMoved, u64::MAX)), Some(10_000), "no peer may stop it for ever");
        for code in [AbortCode::NotAllowed, AbortCode::Divergence, AbortCode::Protocol, AbortCode::BadRecord] {
            assert_eq!(retry_after(&aborted(code, 1)), None, "{code:?} does not go away by itself");
        }
        for code in [AbortCode::Incomplete, AbortCode::Timeout, AbortCode::Disk] {
            assert!(retry_after(&aborted(code, 0)).is_some_and(|wait| wait >= RETRY_MS), "{code:?}");
        }
        assert_eq!(retry_after(&SagaOutcome::Interrupted { commit_sent: false }), Some(RETRY_MS));
    }
}
