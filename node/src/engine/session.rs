//! One session: the control channel, which spaces both share, and when a saga starts. Spec: ibgib §13.2, §13.9.

mod interrupted;
mod keys;
mod sagas;

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_sync::{AbortCode, Control, ControlInput, ControlOutput, Direction, SagaOutcome};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::engine::keystones::{Ask, Asks};
use crate::engine::signatures::SessionKeys;
use crate::engine::{Command, Engine, Event, SAGAS_PER_SESSION_MAX, SagaReport, SyncOrder};
use crate::world::{ChannelGone, PeerChannel, PeerSession, World};

use self::keys::{begin, begin_signing};
use self::sagas::{Agreed, answer_saga, open_saga, refuse, retry_after};

const CONTROL: &str = "sts/1/control";
const SAGA: &str = "sts/1";
/// Spec: ibgib §13.8, HELLO to the first saga.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// A saga starts this long after the last change … Spec: ibgib §13.9.
const QUIET_MS: u64 = 150;
/// … and at the latest this long after the first.
const QUIET_MAX_MS: u64 = 1000;
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
            introduction: 0,
            answered: false,
            answering: Arc::new(Semaphore::new(SAGAS_PER_SESSION_MAX as usize)),
            closing: false,
            keys,
            asks,
            jobs: JoinSet::new(),
            entering: Arc::default(),
            early: Vec::new(),
            farewell_by: None,
            refused: false,
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
    /// The messages at its front that are, or stand before, the proof of who this node is and the first keystone that the peer asked for.
    introduction: usize,
    /// Whether the peer was answered with a keystone.
    answered: bool,
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
    /// Whether the peer is being made a member: what comes of that decides which spaces it is told of.
    entering: Arc<AtomicBool>,
    /// Sagas of a peer that has proved itself and whose ACCEPT is still under way.
    early: Vec<<W::Session as PeerSession>::Channel>,
    /// Until when the last sagas before BYE may run.
    farewell_by: Option<u64>,
    /// Whether this side told the peer why it ends the session.
    refused: bool,
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
                    Ok(input) => {
                        // Once each, so that it is no way to fill the memory.
                        let introduces = match &input {
                            ControlInput::Proved(_) => true,
                            ControlInput::Keystone { .. } => !std::mem::replace(&mut self.answered, true),
                            _ => false,
                        };
                        self.feed(input);
                        if introduces {
                            if self.perform().await.is_err() {
                                break;
                            }
                            self.introduction = self.outbox.len();
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, peer = self.peer.short(), "keystones failed without a word");
                        break;
                    }
                },
                Ok(()) = grants.changed(), if !self.entering.load(Ordering::Relaxed) => self.tell_spaces().await,
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
                    self.introduction = self.introduction.saturating_sub(1);
                }
                message = self.channel.recv(), if self.reads() => match message {
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
                    return;
                }
            }
            // The end of a session overtakes what is under way: who is to read why ends it first.
            while self.refused
                && let Ok(Some(message)) = self.channel.recv().await
            {
                self.channel.release(message.len() as u64);
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

    /// Whether the peer is listened to. Both sides say who they are at once, and that may be long: whoever waited until it has left would
    /// wait for a peer that waits too.
    fn reads(&self) -> bool {
        self.outbox.len() < OUTBOX_MAX + self.introduction && !self.machine.is_full()
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
                    {
                        let mut state = self.engine.lock();
                        state.refusals.remove(&self.peer);
                        if let Some(entry) = state.peers.get_mut(&self.peer) {
                            entry.ready = true;
                        }
                    }
                    self.settle_interrupted();
                    if !self.enter_invited() {
                        self.tell_spaces().await;
                    }
                    self.ask_for_claims();
                    self.engine.emit(Event::PeerReady(self.peer));
                    for channel in std::mem::take(&mut self.early) {
                        self.answer(channel);
                    }
                }
                ControlOutput::PeerSpaces(offers) => {
                    self.engine.note_offers(self.peer, &offers);
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
                    // What this node refuses is told to the peer yet.
                    self.refused = !self.outbox.is_empty();
                    if let Some(keys) =
                        self.keys.as_ref().filter(|_| code == AbortCode::IdentityForked && !self.refused)
                    {
                        keys.keystones().refused_as_forked(keys.connection());
                    }
                    self.engine.note_refusal(self.peer, &text);
                    self.engine.emit(Event::PeerFailed(self.peer, text));
                    return Err(ChannelGone);
                }
            }
        }
        Ok(())
    }

    async fn tell_spaces(&mut self) {
        if self.ready {
            let offers = self.engine.offers_for(&self.peer, self.session.invite()).await;
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
            // Who has no part in the space takes no turn from those who do: of every change all sessions hear.
            if self.direction(&space).is_none() {
                self.dirty.remove(&space);
                continue;
            }
            if lock(&self.slots).get(&space).is_none_or(|slot| slot.running.is_none())
                && let Err(wait) = self.engine.take_turn(space, self.peer)
            {
                self.open_later(space, now + wait);
                continue;
            }
            self.dirty.remove(&space);
            self.order(SyncOrder::of_itself(space), None);
        }
    }

    /// Opens a saga at this time, whatever changes until then.
    fn open_later(&mut self, space: SpaceId, at: u64) {
        self.dirty.insert(space, (at.saturating_sub(QUIET_MAX_MS), at.saturating_sub(QUIET_MS)));
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
        self.engine.begin_turn(order.space, self.peer);
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
        if !self.ready {
            return channel.finish();
        }
        if channel.name() != SAGA {
            return self.engine.hand_channel(self.peer, channel);
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
        self.engine.lock().spaces.entry((space, self.peer)).or_default().running = true;
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
            // Together with the slot, or this would be the end of the turn of whoever takes the slot next.
            self.engine.end_turn(&space, &self.peer);
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
            self.open_later(space, now.mono_ms + wait);
        } else if follow {
            self.dirty.insert(space, (0, 0));
        }
    }

    fn note(&self, report: &SagaReport, wall_ms: u64) {
        let mut state = self.engine.lock();
        let known = state.spaces.entry((report.space, self.peer)).or_default();
        known.running = false;
        known.in_step = report.in_step() && !self.dirty.contains_key(&report.space);
        match &report.outcome {
            SagaOutcome::Committed { .. } => {
                known.synced_ms = Some(wall_ms);
                known.last_error = None;
            }
            SagaOutcome::Aborted { code: AbortCode::Busy, .. } => {}
            SagaOutcome::Aborted { code, by_peer, text, .. } => {
                let who = if *by_peer { "the other node" } else { "here" };
                known.last_error = Some(format!("{who}: {text} ({code})"));
            }
            SagaOutcome::Interrupted { .. } => known.last_error = Some("the connection was cut".to_owned()),
        }
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
