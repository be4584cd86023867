//! The driver of one saga over one channel: performs its wishes, feeds it facts, has no opinions.

use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealtide_ibgib::ChunkHash;
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_store::{CommitError, FactsError, StoreError};
use sealtide_sync::{CommitRequest, Saga, SagaId, SagaInput, SagaOutcome, SagaOutput, SpaceView};
use tokio::sync::watch;

use crate::engine::room::Room;
use crate::engine::signatures::SessionKeys;
use crate::engine::{Engine, Event, Progress};
use crate::failpoint;
use crate::known::{Absence, Known, OpenSaga};
use crate::world::{ChannelGone, PeerChannel, Staged, World};

/// A saga that has staged this many bytes writes its id down, so that it is resumed even after a kill.
const NOTE_BYTES: u64 = 1024 * 1024;
/// How long the last messages of a saga may take to leave.
const FLUSH: Duration = Duration::from_secs(5);
/// The same for an abort: the peer learns it from the end of the channel just as well. Spec: SY-101
const FLUSH_ABORT: Duration = Duration::from_millis(500);

/// What one saga runs on.
pub(crate) struct SagaTask<W: World> {
    pub(crate) engine: Engine<W>,
    pub(crate) peer: NodeId,
    pub(crate) space: SpaceId,
    pub(crate) saga: SagaId,
    /// The space as this peer's saga sees it.
    pub(crate) room: Room,
    /// Turns true when the saga shall stop.
    pub(crate) cancel: watch::Receiver<bool>,
    /// With keystones: who signs and checks.
    pub(crate) keys: Option<Arc<SessionKeys>>,
}

/// What the driver waited for.
enum Step {
    Input(SagaInput),
    Sent(Result<(), ChannelGone>),
    /// Everything up to a ticket is in the store, not durable yet.
    Staged(u64),
}

/// A signature that is made or checked.
type SigWork = Pin<Box<dyn Future<Output = SagaInput> + Send>>;

/// A write of the store up to a ticket.
type Writing = Pin<Box<dyn Future<Output = (u64, Result<(), StoreError>)> + Send>>;

/// What was received and waits for the store, which takes all of it in one call: while it writes, the saga looks at what
/// comes next. No more can wait than the channel gives credit for.
#[derive(Default)]
struct Waiting {
    ticket: u64,
    staged: Staged,
}

impl Waiting {
    fn add(&mut self, ticket: u64, staged: Staged) {
        self.ticket = ticket;
        self.staged.records.extend(staged.records);
        self.staged.chunks.extend(staged.chunks);
    }

    fn is_empty(&self) -> bool {
        self.staged.records.is_empty() && self.staged.chunks.is_empty()
    }
}

impl<W: World> SagaTask<W> {
    /// Runs the saga to its end. `first` is the OPEN of an answered saga.
    pub(crate) async fn run<C: PeerChannel>(self, channel: &C, saga: &mut Saga, first: Option<Bytes>) -> SagaOutcome {
        let mut outbox: Option<Bytes> = None;
        let mut wake_at: Option<u64> = None;
        let (mut staged, mut durable) = (0u64, 0u64);
        let (mut staged_bytes, mut noted) = (0u64, false);
        let mut waiting = Waiting::default();
        let mut staging: Option<Writing> = None;
        let mut syncing: Option<Writing> = None;
        let mut sig_work: Option<SigWork> = None;
        // A channel that ended goes on saying so; what is still to be checked has its turn all the same.
        let mut gone = false;
        let mut grants = self.engine.grants_watch();
        let mut cancel = self.cancel.clone();
        let mut send_first = false;
        if let Some(open) = first {
            saga.handle(self.engine.world().now(), SagaInput::Message(open), &self.room);
        }
        loop {
            if saga.is_over() {
                // A message that waits for room would keep the saga here as long as the peer stalls.
                outbox = None;
            }
            // With a full channel only what needs no room is performed, or two peers that both send would wait for ever.
            while let Some(wish) = if outbox.is_none() { saga.poll(&self.room) } else { saga.poll_local() } {
                match wish {
                    SagaOutput::Send(message) => outbox = Some(message),
                    SagaOutput::Release(bytes) => channel.release(bytes),
                    SagaOutput::WakeAt(at) => wake_at = Some(at),
                    SagaOutput::Progress { done_items, all_items, done_bytes, all_bytes } => {
                        let (items, bytes) = ((done_items, all_items), (done_bytes, all_bytes));
                        self.engine.emit(Event::Progress(Progress {
                            space: self.space,
                            peer: self.peer,
                            items,
                            bytes,
                        }));
                    }
                    SagaOutput::Stage { ticket, records, chunks } => {
                        failpoint::hit("saga_stage");
                        let received = Staged { records, chunks };
                        let bytes = received.bytes();
                        if let Err(over) = self.engine.charge(&self.saga, &self.space, bytes) {
                            self.feed(saga, SagaInput::OverQuota(over.to_string()));
                            continue;
                        }
                        waiting.add(ticket, received);
                        staged_bytes += bytes;
                        if !noted && staged_bytes >= NOTE_BYTES {
                            noted = true;
                            self.note();
                        }
                    }
                    SagaOutput::Lack(chunks) => {
                        if let Err(error) = self.note_lack(&chunks) {
                            self.feed(saga, SagaInput::StoreFailed(error.to_string()));
                        }
                    }
                    SagaOutput::Sign { target, .. } => {
                        sig_work = self.keys.clone().map(|keys| Box::pin(keys.sign(target)) as SigWork);
                    }
                    SagaOutput::CheckSig { target, sig, .. } => {
                        sig_work = self.keys.clone().map(|keys| Box::pin(keys.check(target, sig)) as SigWork);
                    }
                    SagaOutput::Commit(request) => {
                        let input = self.commit(request).await;
                        self.feed(saga, input);
                    }
                    SagaOutput::Done(outcome) => {
                        // What the store has begun it ends, or a saga that is over would stage. What was received before
                        // a cut need not be sent again.
                        let cut = matches!(outcome, SagaOutcome::Interrupted { .. });
                        let last = (cut && !waiting.is_empty()).then(|| self.stage(&mut waiting));
                        for write in staging.take().into_iter().chain(last) {
                            if let (_, Err(error)) = write.await {
                                tracing::warn!(%error, "what came at the end of a saga was not kept");
                            }
                        }
                        let patience = if matches!(outcome, SagaOutcome::Aborted { .. }) { FLUSH_ABORT } else { FLUSH };
                        let flush = async {
                            if let Some(message) = outbox.take() {
                                let _ = channel.send(message).await;
                            }
                        };
                        // Without the finish the channel is reset when it is dropped, and what is queued goes with it.
                        if tokio::time::timeout(patience, flush).await.is_ok() {
                            channel.finish();
                        }
                        return outcome;
                    }
                }
            }
            if staging.is_none() && !waiting.is_empty() && !saga.is_over() {
                staging = Some(self.stage(&mut waiting));
            }
            if syncing.is_none() && staged > durable {
                let (engine, upto) = (self.engine.clone(), staged);
                syncing = Some(Box::pin(async move { (upto, engine.world().sync(engine.store()).await) }));
            }
            // In a fixed order, what is rare first; sending and receiving take turns at being asked first, so that
            // neither starves. A simulation can repeat every step.
            send_first = !send_first;
            let send = || channel.send(outbox.clone().unwrap_or_default());
            let (may_send, waits) = (outbox.is_some(), outbox.is_some() && !send_first);
            let step = tokio::select! {
                biased;
                Ok(()) = cancel.changed() => Step::Input(SagaInput::Cancel),
                Ok(()) = grants.changed() => Step::Input(SagaInput::PeerRole(self.engine.role(&self.peer, &self.space))),
                () = self.sleep_until(wake_at) => {
                    wake_at = None;
                    Step::Input(SagaInput::Tick)
                }
                input = look(&mut sig_work) => {
                    sig_work = None;
                    Step::Input(input)
                }
                (upto, result) = wait(&mut staging) => {
                    staging = None;
                    match result {
                        Ok(()) => Step::Staged(upto),
                        Err(error) => Step::Input(SagaInput::StoreFailed(error.to_string())),
                    }
                }
                (upto, result) = wait(&mut syncing) => {
                    syncing = None;
                    Step::Input(match result {
                        Ok(()) => {
                            durable = upto;
                            failpoint::hit("saga_durable");
                            SagaInput::Durable(upto)
                        }
                        Err(error) => SagaInput::StoreFailed(error.to_string()),
                    })
                }
                sent = send(), if may_send && send_first => Step::Sent(sent),
                message = channel.recv(), if !gone => Step::Input(match message {
                    Ok(Some(message)) => SagaInput::Message(message),
                    Ok(None) | Err(_) => SagaInput::ChannelLost,
                }),
                sent = send(), if waits => Step::Sent(sent),
            };
            let input = match step {
                Step::Input(input) => input,
                Step::Staged(upto) => {
                    staged = upto;
                    continue;
                }
                Step::Sent(sent) => {
                    outbox = None;
                    match sent {
                        Ok(()) => continue,
                        Err(ChannelGone) => SagaInput::ChannelLost,
                    }
                }
            };
            gone |= matches!(input, SagaInput::ChannelLost);
            self.feed(saga, input);
        }
    }

    fn stage(&self, waiting: &mut Waiting) -> Writing {
        let (engine, space, saga) = (self.engine.clone(), self.space, self.saga);
        let Waiting { ticket, staged } = std::mem::take(waiting);
        Box::pin(async move { (ticket, engine.world().stage(engine.store(), space, saga, staged).await) })
    }

    fn note(&self) {
        let open = OpenSaga { space: self.space, saga: self.saga, commit_sent: false };
        if let Err(error) = Known::of(self.engine.store()).note_open_saga(&self.peer, &open) {
            tracing::warn!(%error, "the id of a long saga could not be written down");
        }
    }

    /// Writes down what the peer did not have, so that it is not taken for damage.
    fn note_lack(&self, chunks: &BTreeSet<ChunkHash>) -> Result<(), FactsError> {
        let lack = self.room.listing(&self.saga, chunks);
        tracing::info!(peer = self.peer.short(), chunks = chunks.len(), "contents of old releases stay away");
        self.engine.known().change_absences(&self.space, |absences| {
            absences.extend(lack.iter().map(|record| (record.sid(), Absence::NeverCame)));
        })
    }

    fn feed(&self, saga: &mut Saga, input: SagaInput) {
        saga.handle(self.engine.world().now(), input, &self.room);
    }

    async fn commit(&self, request: CommitRequest) -> SagaInput {
        // The grants are asked again right before the commit: a revocation during the saga must win.
        let role = self.engine.role(&self.peer, &self.space);
        let brings =
            || request.staged.as_ref().map_or(!self.room.staged(&self.saga).is_empty(), |list| !list.is_empty());
        if role.is_none() || role < Some(Role::Write) && brings() {
            return SagaInput::PeerRole(None);
        }
        if self.engine.store().view(&self.space).is_none() {
            return SagaInput::StoreFailed("the space was removed".to_owned());
        }
        failpoint::hit("saga_commit");
        let connection = self.keys.as_ref().map(|keys| keys.connection().clone());
        match self.engine.commit_received(&self.room, self.peer, self.saga, request, connection).await {
            Ok(result) => {
                failpoint::hit("saga_committed");
                self.engine.committed(self.space, Some(self.peer), &result);
                SagaInput::Committed(result)
            }
            Err(CommitError::TipMoved { .. }) => SagaInput::TipMoved,
            Err(error) => SagaInput::StoreFailed(error.to_string()),
        }
    }

    async fn sleep_until(&self, at: Option<u64>) {
        match at {
            Some(at) => {
                let now = self.engine.world().now().mono_ms;
                tokio::time::sleep(Duration::from_millis(at.saturating_sub(now))).await;
            }
            None => pending().await,
        }
    }
}

async fn look(work: &mut Option<SigWork>) -> SagaInput {
    match work {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn wait(writing: &mut Option<Writing>) -> (u64, Result<(), StoreError>) {
    match writing {
        Some(future) => future.await,
        None => pending().await,
    }
}
