//! One session: the control channel, which spaces both share, and when a saga starts. Spec: ibgib §13.2, §13.9.

mod keys;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_sync::negentropy::Splitter;
use sealtide_sync::{
    AbortCode, Contexts, Control, ControlInput, ControlOutput, Direction, Limits, OpenHead, Saga, SagaConfig, SagaId,
    SagaOutcome, SagaState, Scope,
};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::engine::keystones::{Ask, Asks};
use crate::engine::saga_task::SagaTask;
use crate::engine::signatures::{SessionKeys, Signing};
use crate::engine::{Command, Engine, Event, SAGAS_PER_SESSION_MAX, SagaReport, SyncOrder};
use crate::known::OpenSaga;
use crate::world::{ChannelGone, PeerChannel, PeerSession, World};

use self::keys::{begin, begin_signing};

const CONTROL: &str = "sts/1/control";
const SAGA: &str = "sts/1";
/// Spec: ibgib §13.8, HELLO to the first saga.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// How long a look at the folder may hold back the answer to OPEN; the opener waits for 120 s. Spec: ibgib §13.8
const FRESH_WAIT: Duration = Duration::from_secs(60);
/// A saga starts this long after the last change … Spec: ibgib §13.9.
const QUIET_MS: u64 = 150;
/// … and at the latest this long after the first.
const QUIET_MAX_MS: u64 = 1000;
/// What a node that cannot take a saga now tells its peer to wait.
const BUSY_RETRY_MS: u64 = 100;
/// How long to wait before a failed saga is tried again.
const RETRY_MS: u64 = 2000;
/// How long to wait for room on a disk.
const DISK_RETRY_MS: u64 = 10_000;
/// Control messages that may wait for a peer that does not read; until some have left nothing of it is read either.
const OUTBOX_MAX: usize = 64;
/// How long the last sagas, which sign what is not signed yet, may take before BYE.
const FAREWELL_MS: u64 = 5000;
/// How long the last control messages may take to leave.
const FLUSH: Duration = Duration::from_secs(2);

/// The one saga that may run for a space and this peer.
struct Running {
    /// Tells the saga that holds the slot from one that lost it to a crossing OPEN.
    serial: u64,
    mine: bool,
    /// What was ordered, where this side opened it and no other saga can stand for it.
    order: Option<SyncOrder>,
    cancel: watch::Sender<bool>,
    waiters: Vec<oneshot::Sender<SagaReport>>,
}

/// A saga task is over: (space, serial of the slot it was given, outcome).
type Ended = (SpaceId, u64, SagaOutcome);

#[derive(Default)]
struct Slot {
    running: Option<Running>,
    serial: u64,
    again: bool,
    order: Option<SyncOrder>,
    waiters: Vec<oneshot::Sender<SagaReport>>,
}

type Slots = Arc<Mutex<BTreeMap<SpaceId, Slot>>>;

/// Serves one session until it ends.
pub(crate) async fn run<W: World>(engine: &Engine<W>, session: W::Session, inbox: mpsc::UnboundedReceiver<Command>) {
    let Some((machine, keys, asks)) = begin(engine, &session) else {
        tracing::warn!(peer = session.peer().short(), "a session without a binding cannot carry proofs");
        return session.close();
    };
    let control = tokio::time::timeout(HELLO_WAIT, control_channel(&session)).await;
    if let Ok(Ok(channel)) = control {
        let (ended_tx, ended) = mpsc::unbounded_channel();
        let worker = Worker {
            engine: engine.clone(),
            peer: session.peer(),
            session: session.clone(),
            machine,
            channel,
            slots: Slots::default(),
            sagas: JoinSet::new(),
            ended_tx,
            dirty: BTreeMap::new(),
            wake_at: None,
            ready: false,
            greeted: false,
            outbox: VecDeque::new(),
            answering: Arc::new(Semaphore::new(SAGAS_PER_SESSION_MAX as usize)),
            closing: false,
            keys,
            asks,
            jobs: JoinSet::new(),
            early: Vec::new(),
            farewell_by: None,
        };
        worker.run(inbox, ended).await;
    }
    session.close();
}

async fn control_channel<S: PeerSession>(session: &S) -> Result<S::Channel, ChannelGone> {
    if session.is_initiator() {
        return session.open(0, CONTROL).await;
    }
    match session.accept().await {
        Some(channel) if channel.name() == CONTROL => Ok(channel),
        _ => Err(ChannelGone),
    }
}

struct Worker<W: World> {
    engine: Engine<W>,
    peer: NodeId,
    session: W::Session,
    machine: Control,
    channel: <W::Session as PeerSession>::Channel,
    slots: Slots,
    sagas: JoinSet<()>,
    ended_tx: mpsc::UnboundedSender<Ended>,
    /// Spaces that changed: (first change, last change) in mono_ms.
    dirty: BTreeMap<SpaceId, (u64, u64)>,
    wake_at: Option<u64>,
    ready: bool,
    /// Whether the sagas of a fresh session were opened.
    greeted: bool,
    /// Control messages that wait for room.
    outbox: VecDeque<Bytes>,
    /// Room for sagas that the peer opens.
    answering: Arc<Semaphore>,
    /// Whether the session is over, so that no saga starts any more.
    closing: bool,
    /// Where this node has identities.
    keys: Option<Arc<SessionKeys>>,
    /// What keystones wish of the control channel.
    asks: Asks,
    /// What keystones were asked for; each ends with a fact for the control machine.
    jobs: JoinSet<ControlInput>,
    /// Sagas of a peer that has proved itself and whose ACCEPT is still under way.
    early: Vec<<W::Session as PeerSession>::Channel>,
    /// Until when the last sagas before BYE may run.
    farewell_by: Option<u64>,
}

impl<W: World> Worker<W> {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>, mut ended: mpsc::UnboundedReceiver<Ended>) {
        let mut events = self.engine.subscribe();
        let mut grants = self.engine.grants_watch();
        self.feed(ControlInput::Start);
        loop {
            if self.perform().await.is_err() {
                break;
            }
            if self.farewell_is_over() {
                self.feed(ControlInput::Bye);
                let _ = self.perform().await;
                break;
            }
            self.open_due();
            self.reap();
            let wake_at = self.next_wake();
            // In a fixed order, what is rare first: nothing starves, and a simulation can repeat every step.
            tokio::select! {
                biased;
                Some((space, serial, outcome)) = ended.recv() => self.saga_ended(space, serial, outcome),
                command = inbox.recv() => match command {
                    Some(Command::Sync(order, waiter)) => self.order(order, waiter),
                    Some(Command::Cancel(space)) => self.cancel(space),
                    Some(Command::Close) if self.say_farewell() => {}
                    Some(Command::Close) | None => {
                        self.feed(ControlInput::Bye);
                        let _ = self.perform().await;
                        break;
                    }
                },
                Some(ask) = self.asks.recv() => match ask {
                    Ask::Keystone(first, after) => self.feed(ControlInput::AskKeystone { first, after }),
                    Ask::End(refused) => self.feed(ControlInput::Kept(Err(refused))),
                    Ask::Broken => {
                        self.feed(ControlInput::Bye);
                        let _ = self.perform().await;
                        break;
                    }
                },
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => match done {
                    Ok(input) => self.feed(input),
                    Err(error) => {
                        tracing::error!(%error, peer = self.peer.short(), "keystones failed without a word");
                        break;
                    }
                },
                Ok(()) = grants.changed() => self.tell_spaces(),
                event = events.recv() => match event {
                    Ok(Event::Changed { space, origin, .. }) if origin != Some(self.peer) => self.mark(space),
                    Err(broadcast::error::RecvError::Lagged(_)) => self.mark_all(),
                    _ => {}
                },
                () = sleep_until(&self.engine, wake_at) => self.tick(),
                sent = self.channel.send(self.outbox.front().cloned().unwrap_or_default()), if !self.outbox.is_empty() => {
                    if sent.is_err() {
                        break;
                    }
                    self.outbox.pop_front();
                }
                message = self.channel.recv(), if self.outbox.len() < OUTBOX_MAX && !self.machine.is_full() => match message {
                    Ok(Some(message)) => {
                        self.channel.release(message.len() as u64);
                        self.feed(ControlInput::Message(message));
                    }
                    Ok(None) | Err(_) => break,
                },
                channel = self.session.accept() => match channel {
                    Some(channel) => self.answer(channel),
                    None => break,
                },
            }
        }
        self.closing = true;
        let _ = tokio::time::timeout(FLUSH, async {
            for message in std::mem::take(&mut self.outbox) {
                if self.channel.send(message).await.is_err() {
                    break;
                }
            }
        })
        .await;
        // The sagas see the end of their channels; each of them reports before it goes.
        self.session.close();
        while self.sagas.join_next().await.is_some() {}
        while let Ok((space, serial, outcome)) = ended.try_recv() {
            self.saga_ended(space, serial, outcome);
        }
        if let Some(keys) = &self.keys {
            keys.keystones().ended(keys.connection());
        }
    }

    /// Lets go of sagas that are over; a session may live for months.
    fn reap(&mut self) {
        while let Some(ended) = self.sagas.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, peer = self.peer.short(), "a saga failed without a word");
            }
        }
    }

    /// A wake-up is used once: without this, one in the past would come again and again.
    fn tick(&mut self) {
        let now = self.engine.world().now().mono_ms;
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            self.feed(ControlInput::Tick);
        }
    }

    fn feed(&mut self, input: ControlInput) {
        self.machine.handle(self.engine.world().now(), input);
    }

    /// Performs the wishes of the control machine. An error ends the session.
    async fn perform(&mut self) -> Result<(), ChannelGone> {
        while let Some(wish) = self.machine.poll() {
            match wish {
                ControlOutput::Send(message) => self.outbox.push_back(message),
                ControlOutput::Ready(_) => {
                    self.ready = true;
                    if let Some(entry) = self.engine.lock().peers.get_mut(&self.peer) {
                        entry.ready = true;
                    }
                    self.settle_interrupted();
                    self.tell_spaces();
                    self.engine.emit(Event::PeerReady(self.peer));
                    for channel in std::mem::take(&mut self.early) {
                        self.answer(channel);
                    }
                }
                ControlOutput::PeerSpaces(offers) => {
                    if let Some(entry) = self.engine.lock().peers.get_mut(&self.peer) {
                        entry.offers.clone_from(&offers);
                    }
                    self.engine.emit(Event::PeerSpaces(self.peer, offers));
                    if self.session.is_initiator() && !self.greeted {
                        self.greeted = true;
                        self.mark_all_now();
                    }
                }
                ControlOutput::StatusWanted(sagas) => {
                    let states = sagas.into_iter().map(|saga| (saga, self.engine.store().saga_state(&saga))).collect();
                    self.feed(ControlInput::Status(states));
                }
                ControlOutput::PeerStatus(states) => self.finish_interrupted(states).await,
                ControlOutput::WakeAt(at) => self.wake_at = Some(at),
                wish @ (ControlOutput::ProofWanted(_)
                | ControlOutput::CheckProof { .. }
                | ControlOutput::PeerOwner(_)
                | ControlOutput::KeystoneWanted { .. }
                | ControlOutput::PeerKeystone { .. }) => self.ask_keystones(wish),
                ControlOutput::Bye => return Err(ChannelGone),
                ControlOutput::Failed(code, text) => {
                    tracing::warn!(peer = self.peer.short(), ?code, text, "the session cannot sync");
                    return Err(ChannelGone);
                }
            }
        }
        Ok(())
    }

    fn tell_spaces(&mut self) {
        if self.ready {
            let offers = self.engine.offers_for(&self.peer, self.session.invite());
            self.feed(ControlInput::Spaces(offers));
        }
    }

    // --- when a saga starts ---

    fn mark(&mut self, space: SpaceId) {
        let now = self.engine.world().now().mono_ms;
        self.dirty.entry(space).and_modify(|(_, last)| *last = now).or_insert((now, now));
    }

    fn mark_all(&mut self) {
        for space in self.shared() {
            self.mark(space);
        }
    }

    /// As `mark_all`, without waiting for quiet.
    fn mark_all_now(&mut self) {
        for space in self.shared() {
            self.dirty.insert(space, (0, 0));
        }
    }

    /// The spaces that both nodes have granted to each other.
    fn shared(&self) -> Vec<SpaceId> {
        let offers = self.engine.offers(&self.peer);
        offers.iter().map(|offer| offer.space).filter(|space| self.direction(space).is_some()).collect()
    }

    /// The way records may flow between the two, seen from this node as opener; `None` when nothing may.
    fn direction(&self, space: &SpaceId) -> Option<Direction> {
        let held = self.engine.is_paused(space) || self.engine.is_reading(space);
        if held || self.engine.store().view(space).is_none() {
            return None;
        }
        let theirs = self.engine.role(&self.peer, space)?;
        let mine = self.engine.offers(&self.peer).into_iter().find(|offer| offer.space == *space)?.role;
        match (mine > Role::Read, theirs > Role::Read) {
            (true, true) => Some(Direction::Both),
            (true, false) => Some(Direction::Push),
            (false, true) => Some(Direction::Pull),
            (false, false) => None,
        }
    }

    fn next_wake(&self) -> Option<u64> {
        // Before both HELLOs no saga may be opened, so there is nothing to wake up for; where as many run as may, the
        // end of one of them wakes.
        let may_open = self.ready && self.room() > 0 && self.farewell_by.is_none();
        let due = self.dirty.values().map(|span| due_at(*span)).min().filter(|_| may_open);
        [due, self.wake_at, self.farewell_by].into_iter().flatten().min()
    }

    /// How many more sagas this side may open.
    fn room(&self) -> usize {
        let slots = lock(&self.slots);
        let mine = slots.values().filter(|slot| slot.running.as_ref().is_some_and(|running| running.mine)).count();
        (SAGAS_PER_SESSION_MAX as usize).saturating_sub(mine)
    }

    /// Opens the sagas whose time has come.
    fn open_due(&mut self) {
        if !self.ready || self.farewell_by.is_some() {
            return;
        }
        let now = self.engine.world().now().mono_ms;
        let due: Vec<SpaceId> =
            self.dirty.iter().filter(|(_, span)| due_at(**span) <= now).map(|(space, _)| *space).collect();
        for space in due.into_iter().take(self.room()) {
            self.dirty.remove(&space);
            self.order(SyncOrder::of_itself(space), None);
        }
    }

    fn order(&mut self, order: SyncOrder, waiter: Option<oneshot::Sender<SagaReport>>) {
        let Some(allowed) = self.direction(&order.space).filter(|_| !self.closing) else { return };
        let mut slots = lock(&self.slots);
        let slot = slots.entry(order.space).or_default();
        if slot.running.is_some() {
            slot.again = true;
            if order.is_special() {
                slot.order = Some(order);
            }
            slot.waiters.extend(waiter);
            return;
        }
        let (cancel, cancelled) = watch::channel(false);
        let mut waiters: Vec<_> = slot.waiters.drain(..).collect();
        waiters.extend(waiter);
        slot.serial += 1;
        let serial = slot.serial;
        let special = Some(order).filter(SyncOrder::is_special);
        slot.running = Some(Running { serial, mine: true, order: special, cancel, waiters });
        drop(slots);
        let direction = narrow(order.direction, allowed);
        self.spawn_opener(order, direction, serial, cancelled);
    }

    fn cancel(&mut self, space: SpaceId) {
        if let Some(running) = lock(&self.slots).get(&space).and_then(|slot| slot.running.as_ref()) {
            let _ = running.cancel.send(true);
        }
    }

    fn spawn_opener(&mut self, order: SyncOrder, direction: Direction, serial: u64, cancel: watch::Receiver<bool>) {
        let (engine, session, ended) = (self.engine.clone(), self.session.clone(), self.ended_tx.clone());
        let agreed = Agreed { zstd: self.machine.zstd(), recon: self.machine.recon() };
        let (keys, last) = (self.keys.clone(), self.farewell_by.is_some());
        self.began(order.space);
        self.sagas.spawn(async move {
            let signing = begin_signing(keys, order.space).await;
            let outcome = open_saga(&engine, &session, order, direction, agreed, cancel, signing, last).await;
            let _ = ended.send((order.space, serial, outcome));
        });
    }

    /// Answers a saga channel that the peer opened.
    fn answer(&mut self, channel: <W::Session as PeerSession>::Channel) {
        if channel.name() == SAGA && !self.ready && self.keys.is_some() {
            return self.answer_early(channel);
        }
        if channel.name() != SAGA || !self.ready {
            channel.finish();
            return;
        }
        let Ok(room) = self.answering.clone().try_acquire_owned() else {
            // Spec: ibgib §13.6. A peer that goes on all the same gets no answer.
            if self.sagas.len() < 4 * SAGAS_PER_SESSION_MAX as usize {
                self.sagas.spawn(async move { refuse(&channel, AbortCode::Busy, "too many sagas at once").await });
            }
            return;
        };
        let (engine, peer, slots, ended) = (self.engine.clone(), self.peer, self.slots.clone(), self.ended_tx.clone());
        let agreed = Agreed { zstd: self.machine.zstd(), recon: self.machine.recon() };
        let keys = self.keys.clone();
        self.sagas.spawn(async move {
            if let Some(end) = answer_saga(&engine, peer, channel, &slots, agreed, keys).await {
                let _ = ended.send(end);
            }
            drop(room);
        });
    }

    fn began(&self, space: SpaceId) {
        self.engine.lock().spaces.entry((self.peer, space)).or_default().running = true;
        self.engine.emit(Event::SagaBegan { space, peer: self.peer });
    }

    fn saga_ended(&mut self, space: SpaceId, serial: u64, outcome: SagaOutcome) {
        let (waiters, again, order) = {
            let mut slots = lock(&self.slots);
            let slot = slots.entry(space).or_default();
            if slot.running.as_ref().is_none_or(|running| running.serial != serial) {
                // It lost its slot to a crossing OPEN, which goes on and has taken over whoever waits.
                return;
            }
            let running = slot.running.take();
            (
                running.map(|running| running.waiters).unwrap_or_default(),
                std::mem::take(&mut slot.again),
                slot.order.take(),
            )
        };
        let now = self.engine.world().now();
        let follow = match &outcome {
            SagaOutcome::Committed { again: moved, .. } => again || *moved,
            SagaOutcome::Aborted { .. } => again,
            SagaOutcome::Interrupted { .. } => false,
        };
        let retry = retry_after(&outcome);
        if matches!(outcome, SagaOutcome::Committed { received: 1.., .. }) {
            self.ask_for_signers(space);
        }
        let report = SagaReport { space, peer: self.peer, outcome, again: follow };
        self.note(&report, now.wall_ms);
        for waiter in waiters {
            let _ = waiter.send(report.clone());
        }
        self.engine.emit(Event::SagaEnded(report));
        if let Some(order) = order {
            self.order(order, None);
        } else if let Some(wait) = retry {
            // Also when "again" is set: who failed waits before it tries again.
            let at = now.mono_ms + wait;
            self.dirty.insert(space, (at.saturating_sub(QUIET_MAX_MS), at.saturating_sub(QUIET_MS)));
        } else if follow {
            self.dirty.insert(space, (0, 0));
        }
    }

    fn note(&self, report: &SagaReport, wall_ms: u64) {
        let mut state = self.engine.lock();
        let known = state.spaces.entry((self.peer, report.space)).or_default();
        known.running = false;
        known.in_step = report.in_step() && !self.dirty.contains_key(&report.space);
        match &report.outcome {
            SagaOutcome::Committed { .. } => {
                known.synced_ms = Some(wall_ms);
                known.last_error = None;
            }
            SagaOutcome::Aborted { code: AbortCode::Busy, .. } => {}
            SagaOutcome::Aborted { code, text, .. } => known.last_error = Some(format!("{code:?}: {text}")),
            SagaOutcome::Interrupted { .. } => known.last_error = Some("the connection was cut".to_owned()),
        }
    }

    // --- sagas that a cut left open ---

    /// Asks the peer what became of sagas whose COMMIT was under way when the link was lost. Spec: ibgib §14.4.
    fn settle_interrupted(&mut self) {
        let spaces = self.engine.store().spaces();
        let open = spaces.iter().filter_map(|info| self.engine.known().open_saga(&self.peer, &info.space));
        let asked: Vec<SagaId> = open.filter(|open| open.commit_sent).map(|open| open.saga).collect();
        if !asked.is_empty() {
            self.feed(ControlInput::AskStatus(asked));
        }
    }

    async fn finish_interrupted(&mut self, states: Vec<(SagaId, SagaState)>) {
        let known = self.engine.known();
        let spaces = self.engine.store().spaces();
        let open: Vec<_> = spaces.iter().filter_map(|info| known.open_saga(&self.peer, &info.space)).collect();
        for (saga, state) in states {
            let Some(open) = open.iter().find(|open| open.saga == saga) else { continue };
            let allowed = self.engine.role(&self.peer, &open.space) >= Some(Role::Write);
            if allowed && state == SagaState::Committed && self.engine.store().saga_state(&saga) == SagaState::Staged {
                let request = sealtide_sync::CommitRequest {
                    saga: Some(saga),
                    staged: None,
                    records: Vec::new(),
                    expected: Vec::new(),
                    strict: false,
                };
                match self.engine.world().commit(self.engine.store(), open.space, request).await {
                    Ok(result) => self.engine.committed(open.space, Some(self.peer), &result),
                    Err(error) => tracing::warn!(%error, "a saga that the peer committed could not be finished"),
                }
            }
            let _ = known.clear_open_saga(&self.peer, &open.space);
        }
    }
}

/// Opens one saga and drives it. A saga of this pair that a cut interrupted is resumed under its old id.
#[expect(clippy::too_many_arguments, reason = "one call site")]
async fn open_saga<W: World>(
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
    let Some(view) = engine.store().view(&order.space) else { return lost };
    // A process that ended right after the commit left the note behind; that saga is over.
    let unfinished = |saga: &SagaId| matches!(engine.store().saga_state(saga), SagaState::Staged | SagaState::Unknown);
    let open = engine.known().open_saga(&peer, &order.space);
    let open = open.filter(|open| !open.commit_sent && unfinished(&open.saga));
    let saga_id = open.map_or_else(|| engine.new_saga_id(), |open| open.saga);
    let Ok(channel) = session.open(3, SAGA).await else { return lost };
    let contexts = signing.as_ref().map(|signing| signing.contexts(last));
    let config = SagaConfig { fresh: order.fresh, ..config(engine, saga_id, order.space, peer, agreed, contexts) };
    let saga = Saga::open(engine.world().now(), config, Scope::All, direction, order.strategy, &view);
    drive(engine, peer, order.space, saga_id, view, cancel, &channel, saga, None, signing).await
}

/// Answers one saga: reads OPEN, looks whether the slot is free, drives it. `None` when it was refused.
async fn answer_saga<W: World>(
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
    let view = engine.store().view(&space).filter(|_| engine.role(&peer, &space).is_some());
    let Some(view) = view else {
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
    let (serial, cancelled) = match take_slot(slots, space, engine.id() < peer) {
        Some(taken) => taken,
        None => {
            refuse(&channel, AbortCode::Busy, "a saga of this space is running").await;
            if let (Some(keys), Some(sig)) = (keys, Saga::peek_signature(&open)) {
                keys.unseen(sig).await;
            }
            return None;
        }
    };
    engine.lock().spaces.entry((peer, space)).or_default().running = true;
    engine.emit(Event::SagaBegan { space, peer });
    let signing = begin_signing(keys, space).await;
    let contexts = signing.as_ref().map(|signing| signing.contexts(false));
    let saga = Saga::answer(engine.world().now(), config(engine, saga_id, space, peer, agreed, contexts), &view);
    let outcome = drive(engine, peer, space, saga_id, view, cancelled, &channel, saga, Some(open), signing).await;
    Some((space, serial, outcome))
}

/// Takes the slot for an incoming saga. When an own OPEN is under way at the same time, the one of the smaller node
/// id stays: `mine_wins`. Spec: ibgib §13.9.
fn take_slot(slots: &Slots, space: SpaceId, mine_wins: bool) -> Option<(u64, watch::Receiver<bool>)> {
    let mut slots = lock(slots);
    let slot = slots.entry(space).or_default();
    let mut waiters: Vec<_> = slot.waiters.drain(..).collect();
    match &mut slot.running {
        None => {}
        // The own OPEN stays, or the peer opened a second one: it is told `busy` and opens again by itself. If this
        // side did so too, the two would cross for ever.
        Some(running) if !running.mine || mine_wins => {
            slot.waiters = waiters;
            return None;
        }
        // The own OPEN will be answered with `busy`: its slot and whoever waits for it go to the peer's saga.
        Some(running) => {
            slot.again = true;
            waiters.append(&mut running.waiters);
            // Nor can it stand for an order of its own kind: that one follows, with whoever waits.
            if let Some(order) = running.order.take() {
                slot.order = Some(order);
                slot.waiters = std::mem::take(&mut waiters);
            }
        }
    }
    let (cancel, cancelled) = watch::channel(false);
    slot.serial += 1;
    slot.running = Some(Running { serial: slot.serial, mine: false, order: None, cancel, waiters });
    Some((slot.serial, cancelled))
}

#[expect(clippy::too_many_arguments, reason = "one call site each for opener and answerer")]
async fn drive<W: World, C: PeerChannel>(
    engine: &Engine<W>,
    peer: NodeId,
    space: SpaceId,
    saga_id: SagaId,
    view: sealtide_store::SpaceHandle,
    cancel: watch::Receiver<bool>,
    channel: &C,
    mut saga: Saga,
    first: Option<Bytes>,
    signing: Option<Signing>,
) -> SagaOutcome {
    let known = engine.known();
    let keys = signing.as_ref().map(|signing| signing.keys.clone());
    let task = SagaTask { engine: engine.clone(), peer, space, saga: saga_id, view, cancel, keys };
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
    if let Err(error) = noted {
        tracing::warn!(%error, "the journal of sagas could not be written");
    }
    outcome
}

async fn refuse<C: PeerChannel>(channel: &C, code: AbortCode, text: &str) {
    let retry = if code == AbortCode::Busy { BUSY_RETRY_MS } else { 0 };
    let _ = tokio::time::timeout(Duration::from_secs(5), channel.send(Saga::refusal(code, text, retry))).await;
    channel.finish();
}

/// Features of `sts/1` that both HELLOs offer.
#[derive(Clone, Copy, Debug)]
struct Agreed {
    zstd: bool,
    recon: bool,
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
    }
}

/// How long to wait before a saga that ended so is tried again by itself; `None`: not before something changes.
fn retry_after(outcome: &SagaOutcome) -> Option<u64> {
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

fn narrow(wanted: Option<Direction>, allowed: Direction) -> Direction {
    match (wanted, allowed) {
        (Some(wanted), Direction::Both) => wanted,
        _ => allowed,
    }
}

fn due_at((first, last): (u64, u64)) -> u64 {
    (last + QUIET_MS).min(first + QUIET_MAX_MS)
}

fn lock(slots: &Slots) -> std::sync::MutexGuard<'_, BTreeMap<SpaceId, Slot>> {
    slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn sleep_until<W: World>(engine: &Engine<W>, at: Option<u64>) {
    match at {
        Some(at) => {
            let now = engine.world().now().mono_ms;
            tokio::time::sleep(Duration::from_millis(at.saturating_sub(now))).await;
        }
        None => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

    /// A slot whose saga this node opened, with somebody waiting for it.
    fn opened() -> (Slots, watch::Receiver<bool>, oneshot::Receiver<SagaReport>) {
        let (cancel, cancelled) = watch::channel(false);
        let (waiter, report) = oneshot::channel();
        let running = Running { serial: 1, mine: true, order: None, cancel, waiters: vec![waiter] };
        let slot = Slot { running: Some(running), serial: 1, ..Slot::default() };
        (Arc::new(Mutex::new(BTreeMap::from([(SPACE, slot)]))), cancelled, report)
    }

    #[test]
    fn of_two_crossing_opens_one_stays_and_nobody_who_waits_is_forgotten() {
        let (slots, _cancelled, mut report) = opened();
        assert!(take_slot(&slots, SPACE, true).is_none(), "the own one stays");
        assert!(lock(&slots)[&SPACE].running.as_ref().is_some_and(|running| running.mine));

        let (serial, _) = take_slot(&slots, SPACE, false).expect("the slot goes to the peer's");
        assert_eq!(serial, 2, "the end of the own saga is told from that of the peer's");
        let waiting = lock(&slots)[&SPACE].running.as_ref().map(|running| (running.mine, running.waiters.len()));
        assert_eq!(waiting, Some((false, 1)));
        assert!(take_slot(&slots, SPACE, false).is_none(), "a second one of the peer finds it taken");
        assert_eq!(report.try_recv().err(), Some(oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn a_crossing_saga_does_not_stand_for_an_order_of_its_own_kind() {
        let (slots, _cancelled, mut report) = opened();
        let order = SyncOrder { fresh: true, ..SyncOrder::of_itself(SPACE) };
        lock(&slots).get_mut(&SPACE).and_then(|slot| slot.running.as_mut()).expect("it runs").order = Some(order);
        take_slot(&slots, SPACE, false).expect("the slot goes to the peer's");
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
