//! One run of the sync protocol over one space: all of it becomes visible, or nothing. Spec: ibgib §13–14.
//!
//! ```text
//! opener   OPENING → RECONCILING → TRANSFERRING → STAGED → COMMITTING → DONE
//! answerer OPENING → RECONCILING → TRANSFERRING → STAGED → COMMITTING → DONE     (any → ABORTED)
//! ```

mod ascending;
mod check;
mod clock;
mod commit;
mod contexts;
mod heads;
mod index;
mod items;
mod merging;
mod opening;
mod outbox;
mod receive;
mod reconcile;
mod run;
mod salted;
mod serve;
mod signing;
mod wants;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_ibgib::{Address, ChunkHash, Verified};
use sealtide_identity::{NodeId, Role, SpaceId};

use self::clock::Clock;
use self::commit::Committing;
use self::contexts::Pending;
pub use self::contexts::{Chain, ContextKind, Contexts};
use self::opening::{Answering, AwaitAck};
use self::outbox::Outbox;
use self::run::Run;
pub use self::signing::Ledger;
use crate::message::Open;
use crate::negentropy::Splitter;
use crate::{AbortCode, CommitRequest, CommitResult, Message, MessageError, Refused, SpaceView};

/// Which saga: 32 bytes chosen by the opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SagaId(pub [u8; 32]);

/// Which way records flow, seen from the opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Opener to answerer.
    Push,
    /// Answerer to opener.
    Pull,
    /// Both ways.
    Both,
}

/// What happens to tips that diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Refuse.
    Abort,
    /// Merge where possible; where not, both tips are kept.
    Optimistic,
    /// The opener's tip wins whole.
    Ours,
    /// The answerer's tip wins whole.
    Theirs,
}

/// How the difference is found. Spec: ibgib §13.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing differs.
    Equal,
    /// From the tips that differ.
    Walk,
    /// By the items themselves.
    Recon,
    /// One side is empty.
    Bulk,
}

/// Which records a saga is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every member of the space.
    All,
    /// The dependency graph of some roots.
    Roots {
        /// First frames or stones, at most 1 024.
        roots: Vec<Address>,
        /// Whether newer frames of timelines met are followed too.
        live: bool,
        /// Relation names that are not followed, at most 64.
        skipped: Vec<String>,
    },
}

/// Sizes and counts that bound what a peer can make this node hold. Spec: ibgib §13.2.1, §13.8.
#[derive(Clone, Debug)]
pub struct Limits {
    /// WANTs open at once in a direction.
    pub wants_open_max: usize,
    /// Bytes after which a BATCH is closed.
    pub batch_bytes: usize,
    /// Records after which a BATCH is closed.
    pub batch_records: usize,
    /// Milliseconds without progress before the saga is aborted.
    pub idle_ms: u64,
    /// Milliseconds a staged saga waits for COMMIT.
    pub commit_wait_ms: u64,
    /// Milliseconds a WANT may go without any answer.
    pub want_wait_ms: u64,
    /// Bytes a saga may stage.
    pub staged_bytes_max: u64,
    /// Bytes of memory for what the peer names and has not brought: its tips, ids, references; for references the bytes of the records
    /// that came are added, up to four times that.
    pub named_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wants_open_max: 16,
            batch_bytes: 256 * 1024,
            batch_records: 1024,
            idle_ms: 120_000,
            commit_wait_ms: 600_000,
            want_wait_ms: 30_000,
            staged_bytes_max: u64::MAX,
            named_bytes_max: 1 << 30,
        }
    }
}

/// What a saga is about; fixed when it begins.
#[derive(Clone, Debug)]
pub struct SagaConfig {
    /// Which saga.
    pub saga: SagaId,
    /// Which space.
    pub space: SpaceId,
    /// The peer, as the link proved it.
    pub peer: NodeId,
    /// The peer's role in the space at this node; `None` refuses everything.
    pub peer_role: Option<Role>,
    /// Whether this node offers zstd, and the peer too.
    pub zstd: bool,
    /// Whether this node offers level 1 of the reconciliation, and the peer too.
    pub recon: bool,
    /// How messages of the reconciliation are made: the default, except in tests.
    pub splitter: Splitter,
    /// Bounds.
    pub limits: Limits,
    /// What is signed; `None` where keystones are off.
    pub contexts: Option<Contexts>,
    /// Whether the opener asks the answerer to take in first what changed outside its store.
    pub fresh: bool,
    /// Whether records may come without chunks that the peer does not have either, where [`SpaceView::may_lack`] says so
    /// in the end.
    pub may_lack: bool,
}

/// What a driver must know of an OPEN before it makes a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHead {
    /// Which saga.
    pub saga: SagaId,
    /// Which space.
    pub space: SpaceId,
    /// Whether this node should take in first what changed outside its store, a folder for instance.
    pub fresh: bool,
}

/// Facts for a saga.
#[derive(Debug)]
pub enum SagaInput {
    /// A whole message arrived on the saga channel.
    Message(Bytes),
    /// Everything staged up to and including this ticket (see [`SagaOutput::Stage`]) is durable.
    Durable(u64),
    /// The commit asked for is durable and visible.
    Committed(CommitResult),
    /// The commit was refused because a tip moved (strategy abort).
    TipMoved,
    /// The store failed; the text is for the report.
    StoreFailed(String),
    /// What is to be staged is more than this node takes; the text says which bound, and what to do. Spec: SY-68
    OverQuota(String),
    /// The peer's role changed (a grant was revoked: `None`).
    PeerRole(Option<Role>),
    /// The answer to [`SagaOutput::Sign`]: the frame, durable, or why there is none.
    Signed(Result<Verified, Refused>),
    /// The answer to [`SagaOutput::CheckSig`].
    SigChecked(Result<(), Refused>),
    /// Stop: the user cancels, or the node goes down.
    Cancel,
    /// The channel or the link is gone.
    ChannelLost,
    /// Time passed.
    Tick,
}

/// Wishes of a saga, to be performed in order.
#[derive(Debug)]
pub enum SagaOutput {
    /// Send this message on the saga channel.
    Send(Bytes),
    /// Append these records and whole, verified chunks to the log under this saga; later say
    /// [`SagaInput::Durable`] with the ticket (one sync may cover many tickets).
    Stage {
        /// Grows by one with each `Stage`.
        ticket: u64,
        /// Records that passed strict acceptance.
        records: Vec<Verified>,
        /// Chunks whose hash was checked.
        chunks: Vec<(ChunkHash, Bytes)>,
    },
    /// Give this many bytes of channel credit back.
    Release(u64),
    /// The peer does not have these chunks, and the commit that is asked for next goes without them: write down, durably,
    /// that what lists them is not whole here.
    Lack(BTreeSet<ChunkHash>),
    /// Commit, then say [`SagaInput::Committed`], [`SagaInput::TipMoved`], [`SagaInput::StoreFailed`], or
    /// [`SagaInput::PeerRole`] with `None` when the grant is gone.
    Commit(CommitRequest),
    /// Have the session keystone of this node sign: a frame with claim verb `sync` and this target (64 hex digits),
    /// durable before it is said with [`SagaInput::Signed`]. One of `Sign` and `CheckSig` is open at a time.
    Sign {
        /// Which message it is for.
        what: ContextKind,
        /// The claim target.
        target: String,
    },
    /// Check that `sig` is the next frame of the peer's session keystone with this claim target, then say
    /// [`SagaInput::SigChecked`].
    CheckSig {
        /// Which message it came with.
        what: ContextKind,
        /// The claim target that it must have.
        target: String,
        /// The frame.
        sig: Verified,
    },
    /// Call with [`SagaInput::Tick`] at this `mono_ms`; a later one replaces it.
    WakeAt(u64),
    /// How far it is, for people: items and bytes done and expected in this run (expected 0 while unknown).
    Progress {
        /// Records and chunks received and sent so far.
        done_items: u64,
        /// All that are known to be moved.
        all_items: u64,
        /// Bytes of them.
        done_bytes: u64,
        /// Bytes of all, as far as known.
        all_bytes: u64,
    },
    /// The saga is over; drop the machine and close the channel after everything before this was performed.
    Done(SagaOutcome),
}

/// How a saga ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SagaOutcome {
    /// Both sides agree; the counts are of this run.
    Committed {
        /// How it was found.
        mode: Mode,
        /// Records received.
        received: u64,
        /// Records sent.
        sent: u64,
        /// Whether a tip moved meanwhile, so another saga should follow at once.
        again: bool,
    },
    /// Nothing of it became visible here.
    Aborted {
        /// Why.
        code: AbortCode,
        /// Whether the peer aborted, rather than this node.
        by_peer: bool,
        /// For people.
        text: String,
        /// Wait this long before trying again.
        retry_after_ms: u64,
    },
    /// The channel was lost; the journal is kept, and a new saga with the same id resumes. `commit_sent` tells that
    /// the outcome at the peer must be asked for with STATUS.
    Interrupted {
        /// Whether COMMIT had been sent or received.
        commit_sent: bool,
    },
}

/// One run of the protocol, either end.
#[derive(Debug)]
pub struct Saga {
    config: SagaConfig,
    phase: Phase,
    out: Outbox,
    clock: Clock,
    /// What the driver was asked to sign or to check.
    pending: Option<Pending>,
    /// What the peer said meanwhile; the credit of the channel bounds it.
    waiting: VecDeque<Bytes>,
    /// Whether the channel was lost while the signature of COMMIT_ACK was being checked.
    lost: bool,
    chain: Chain,
}

/// Where a saga stands. RECONCILING, TRANSFERRING and STAGED overlap, because each side may receive and serve at its
/// own pace: they are one phase whose halves know their own step.
#[derive(Debug)]
enum Phase {
    /// Opener: OPEN was sent.
    AwaitAck(Box<AwaitAck>),
    /// Answerer: nothing came yet.
    AwaitOpen,
    /// Answerer: OPEN_ACK is being signed.
    Answering(Box<Answering>),
    /// OPEN_ACK was sent or received.
    Running(Box<Run>),
    /// COMMIT was sent or received.
    Committing(Box<Committing>),
    /// Nothing comes in any more.
    Over,
}

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Opener,
    Answerer,
}

/// Why a saga ends before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    code: AbortCode,
    text: String,
}

impl Fault {
    fn new(code: AbortCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    fn protocol(text: &str) -> Self {
        Self::new(AbortCode::Protocol, text)
    }
}

impl From<MessageError> for Fault {
    fn from(error: MessageError) -> Self {
        Self::new(error.code, error.text)
    }
}

/// What every step needs besides its own state.
struct Context<'a> {
    config: &'a SagaConfig,
    out: &'a mut Outbox,
    clock: &'a mut Clock,
    view: &'a dyn SpaceView,
}

/// One text for a space that does not exist and for one without a grant. Spec: SY-100
const NOT_ALLOWED: &str = "no such space, or no right to do this in it";

impl Saga {
    /// Opens a saga: OPEN goes out. With staged records of the same saga id in the view it resumes.
    pub fn open(
        now: Now,
        config: SagaConfig,
        scope: Scope,
        direction: Direction,
        strategy: Strategy,
        view: &dyn SpaceView,
    ) -> Self {
        let mut saga = Self::new(now, config, Phase::Over);
        if saga.config.peer_role.is_none() {
            saga.out.finish(SagaOutcome::Aborted {
                code: AbortCode::NotAllowed,
                by_peer: false,
                text: NOT_ALLOWED.to_owned(),
                retry_after_ms: 0,
            });
            return saga;
        }
        let context = &mut Context { config: &saga.config, out: &mut saga.out, clock: &mut saga.clock, view };
        let mut opening = AwaitAck::new(context, scope, direction, strategy);
        if saga.config.contexts.as_ref().is_some_and(|contexts| contexts.ledger.opening_due()) {
            saga.sign(ContextKind::Open, &opening.message());
        } else {
            opening.send(&mut saga.out, None);
        }
        saga.phase = Phase::AwaitAck(Box::new(opening));
        saga.arm();
        saga
    }

    fn new(now: Now, config: SagaConfig, phase: Phase) -> Self {
        Self {
            config,
            phase,
            out: Outbox::default(),
            clock: Clock::new(now),
            pending: None,
            waiting: VecDeque::new(),
            lost: false,
            chain: Chain::Same,
        }
    }

    /// Reads what an OPEN is about, so that the driver can look up view and role.
    ///
    /// # Errors
    /// [`crate::MessageError`] when the message is no OPEN.
    pub fn peek_open(message: &[u8]) -> Result<OpenHead, MessageError> {
        match Message::decode(&Bytes::copy_from_slice(message))? {
            Message::Open(Open { saga, space, flags, .. }) => {
                Ok(OpenHead { saga, space, fresh: flags & Open::FRESH != 0 })
            }
            _ => Err(MessageError::bad("a saga channel begins with OPEN")),
        }
    }

    /// Answers a saga; the first message (OPEN) is then handed in by `handle`.
    pub fn answer(now: Now, config: SagaConfig, view: &dyn SpaceView) -> Self {
        let _ = view;
        let mut saga = Self::new(now, config, Phase::AwaitOpen);
        saga.arm();
        saga
    }

    /// The ABORT message with which a driver refuses an OPEN without making a saga (`busy`, `not_allowed`). The text
    /// of `not_allowed` is always the same, so that an unknown space cannot be told from a forbidden one.
    pub fn refusal(code: AbortCode, text: &str, retry_after_ms: u64) -> Bytes {
        let text = if code == AbortCode::NotAllowed { NOT_ALLOWED } else { text }.to_owned();
        Message::Abort { code, text, retry_after_ms }.encode()
    }

    /// Takes a fact.
    pub fn handle(&mut self, now: Now, input: SagaInput, view: &dyn SpaceView) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.clock.step(now, &self.out);
        if let Err(fault) = self.take(input, view).and_then(|()| self.go_on(view)) {
            self.abort(fault);
        }
        self.arm();
    }

    /// Does what has become possible, and takes the messages that waited for a signature.
    fn go_on(&mut self, view: &dyn SpaceView) -> Result<(), Fault> {
        self.advance(view)?;
        while self.pending.is_none()
            && let Some(bytes) = self.waiting.pop_front()
        {
            self.message(bytes, view)?;
            self.advance(view)?;
        }
        if std::mem::take(&mut self.lost) && !self.is_over() {
            self.channel_lost();
        }
        Ok(())
    }

    /// The next wish; call until `None` after every `handle`. Reads payload lazily, so call it only as fast as
    /// the channel takes messages: that is the back-pressure.
    pub fn poll(&mut self, view: &dyn SpaceView) -> Option<SagaOutput> {
        if let Some(wish) = self.out.poll_eager() {
            return Some(wish);
        }
        if let Phase::Running(run) = &mut self.phase {
            let context = &mut Context { config: &self.config, out: &mut self.out, clock: &mut self.clock, view };
            if let Some(message) = run.next_message(context) {
                return Some(self.out.sent(message.encode()));
            }
        }
        self.out.poll_done()
    }

    /// As [`Saga::poll`], but never gives a [`SagaOutput::Send`]: for a driver whose channel is full and which must
    /// go on staging and giving credit back, or two peers that both send would wait for each other.
    pub fn poll_local(&mut self) -> Option<SagaOutput> {
        self.out.poll_local()
    }

    /// Whether it takes no facts any more: what is left to perform is its last word and [`SagaOutput::Done`]. A driver
    /// whose channel is full then drops the message that waits, since nothing else makes the last word possible.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    fn take(&mut self, input: SagaInput, view: &dyn SpaceView) -> Result<(), Fault> {
        match input {
            SagaInput::Message(bytes) => self.message(bytes, view),
            SagaInput::Durable(ticket) => {
                self.clock.progress();
                self.clock.answered();
                if let Phase::Running(run) = &mut self.phase {
                    run.receive.durable(&mut self.out, ticket);
                }
                Ok(())
            }
            SagaInput::Committed(result) => self.committed(&result, view),
            SagaInput::TipMoved => Err(Fault::new(AbortCode::TipMoved, "a tip moved while the saga ran")),
            SagaInput::StoreFailed(text) => Err(Fault::new(AbortCode::Disk, text)),
            SagaInput::OverQuota(text) => Err(Fault::new(AbortCode::Limit, text)),
            SagaInput::PeerRole(role) => {
                self.config.peer_role = role;
                if matches!(&self.phase, Phase::Committing(committing) if committing.has_stored()) {
                    return Ok(());
                }
                // Also instead of an answer to `Commit`: a driver asks for the grant once more before it commits.
                match role {
                    None => Err(Fault::new(AbortCode::Revoked, "the grant was taken back")),
                    Some(_) => Ok(()),
                }
            }
            SagaInput::Signed(result) => self.signed(result, view),
            SagaInput::SigChecked(result) => match self.pending.take() {
                Some(Pending::Check(message, bytes)) => {
                    result.map_err(|Refused { code, text }| Fault::new(code, text))?;
                    self.clock.progress();
                    self.process(*message, &bytes, view)
                }
                other => {
                    self.pending = other;
                    Ok(())
                }
            },
            SagaInput::Cancel => match &self.phase {
                // After COMMIT the outcome is not this side's any more. Spec: ibgib §14.4
                Phase::Committing(committing) if committing.is_sent() => Ok(()),
                _ => Err(Fault::new(AbortCode::Cancelled, "cancelled")),
            },
            SagaInput::ChannelLost => {
                self.channel_lost();
                Ok(())
            }
            SagaInput::Tick => self.tick(),
        }
    }

    fn message(&mut self, bytes: Bytes, view: &dyn SpaceView) -> Result<(), Fault> {
        if matches!(&self.phase, Phase::Committing(committing) if committing.in_store()) {
            // The store has the last word now; nothing that the peer says can change it.
            return Ok(());
        }
        self.clock.progress();
        if self.pending.is_some() {
            self.waiting.push_back(bytes);
            return Ok(());
        }
        let message = Message::decode(&bytes)?;
        let size = bytes.len() as u64;
        match message {
            Message::Unknown(_) => {
                self.out.release(size);
                return Ok(());
            }
            Message::Abort { code, text, retry_after_ms } => {
                self.end(SagaOutcome::Aborted { code, by_peer: true, text, retry_after_ms });
                return Ok(());
            }
            _ => {}
        }
        if self.check_first(&message, &bytes)? {
            return Ok(());
        }
        self.process(message, &bytes, view)
    }

    fn process(&mut self, message: Message, bytes: &Bytes, view: &dyn SpaceView) -> Result<(), Fault> {
        let size = bytes.len() as u64;
        let context = &mut Context { config: &self.config, out: &mut self.out, clock: &mut self.clock, view };
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::AwaitAck(waiting) => {
                self.phase = Phase::Running(Box::new(waiting.acknowledged(context, message, bytes)?));
            }
            Phase::AwaitOpen => {
                let answering = opening::answer(context, message, bytes)?;
                if self.config.contexts.as_ref().is_some_and(|contexts| contexts.ledger.opening_due()) {
                    let ack = answering.message();
                    self.phase = Phase::Answering(Box::new(answering));
                    self.sign(ContextKind::OpenAck, &ack);
                } else {
                    self.phase = Phase::Running(Box::new(answering.send(context, None)?));
                }
            }
            Phase::Running(mut run) => {
                self.phase = match run.message(context, message, bytes)? {
                    false => Phase::Running(run),
                    // The answerer was told to commit.
                    true => Phase::Committing(Box::new(run.into_committing(context)?)),
                };
                return Ok(());
            }
            Phase::Committing(mut committing) => {
                let step = committing.message(context, message, bytes);
                self.phase = Phase::Committing(committing);
                step?;
            }
            // Whoever is in it waits for a signature, and messages wait too.
            Phase::Answering(_) | Phase::Over => {}
        }
        self.out.release(size);
        Ok(())
    }

    /// Does what has become possible, whatever it was that came in.
    fn advance(&mut self, view: &dyn SpaceView) -> Result<(), Fault> {
        let context = &mut Context { config: &self.config, out: &mut self.out, clock: &mut self.clock, view };
        if let Phase::Running(run) = &mut self.phase
            && run.advance(context)?
            && let Phase::Running(run) = std::mem::replace(&mut self.phase, Phase::Over)
        {
            self.phase = Phase::Committing(Box::new(run.into_committing(context)?));
        }
        if let Phase::Committing(committing) = &mut self.phase {
            if let Some(outcome) = committing.outcome() {
                self.end(outcome);
            } else if self.pending.is_none()
                && let Some((what, message)) = committing.to_sign()
            {
                self.sign(what, &message);
            }
        }
        Ok(())
    }

    /// The driver signed, or could not.
    fn signed(&mut self, result: Result<Verified, Refused>, view: &dyn SpaceView) -> Result<(), Fault> {
        if !matches!(self.pending, Some(Pending::Sign)) {
            return Ok(());
        }
        self.pending = None;
        self.clock.progress();
        let sig = match result {
            Ok(sig) => sig,
            Err(Refused { code, text }) => {
                let Phase::Committing(committing) = &mut self.phase else { return Err(Fault::new(code, text)) };
                if !committing.has_stored() {
                    return Err(Fault::new(code, text));
                }
                // It is visible here. The peer is told that nothing comes, and another saga brings both together.
                self.out.send(&Message::Abort { code, text, retry_after_ms: 0 });
                committing.give_up_ack();
                return Ok(());
            }
        };
        let context = &mut Context { config: &self.config, out: &mut self.out, clock: &mut self.clock, view };
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::AwaitAck(mut opening) => {
                opening.send(context.out, Some(sig));
                self.phase = Phase::AwaitAck(opening);
            }
            Phase::Answering(answering) => {
                self.phase = Phase::Running(Box::new(answering.send(context, Some(sig))?));
            }
            Phase::Committing(mut committing) => {
                committing.send(context, Some(sig));
                self.phase = Phase::Committing(committing);
            }
            other => self.phase = other,
        }
        Ok(())
    }

    fn committed(&mut self, result: &CommitResult, view: &dyn SpaceView) -> Result<(), Fault> {
        if let Phase::Committing(committing) = &mut self.phase {
            let context = &mut Context { config: &self.config, out: &mut self.out, clock: &mut self.clock, view };
            committing.committed(context, result);
        }
        Ok(())
    }

    fn channel_lost(&mut self) {
        self.out.drop_sends();
        let commit_sent = match &mut self.phase {
            // What the store was asked for it will do; its answer is the outcome. The answer to the peer is lost.
            Phase::Committing(committing) if committing.in_store() => {
                committing.lose_ack();
                return self.out.mute();
            }
            // The answer is here; the channel ended in order behind it.
            Phase::Committing(committing) if committing.awaits_ack() && self.pending.is_some() => {
                self.lost = true;
                return;
            }
            Phase::Committing(committing) => committing.is_sent(),
            _ => false,
        };
        self.end(SagaOutcome::Interrupted { commit_sent });
    }

    fn tick(&mut self) -> Result<(), Fault> {
        self.clock.fired();
        let late = match &self.phase {
            Phase::AwaitAck(_) | Phase::AwaitOpen | Phase::Answering(_) => self.clock.idle_over(&self.config.limits),
            Phase::Running(run) => run.late(&self.config.limits, &self.clock),
            Phase::Committing(_) | Phase::Over => None,
        };
        late.map_or(Ok(()), |text| Err(Fault::new(AbortCode::Timeout, text)))
    }

    /// Asks to be woken when the next time limit may be over. Spec: ibgib §13.8
    fn arm(&mut self) {
        let limits = &self.config.limits;
        let deadline = match &self.phase {
            Phase::AwaitAck(_) | Phase::AwaitOpen | Phase::Answering(_) => Some(self.clock.next_look(limits)),
            Phase::Running(run) => Some(run.deadline(limits, &self.clock)),
            Phase::Committing(_) | Phase::Over => None,
        };
        if let Some(deadline) = deadline {
            self.clock.arm(deadline, &mut self.out);
        }
    }

    fn abort(&mut self, fault: Fault) {
        let Fault { code, text } = fault;
        self.out.drop_sends();
        self.out.send(&Message::Abort { code, text: text.clone(), retry_after_ms: 0 });
        // An opener that sent COMMIT does not know what became of it. Spec: ibgib §14.4
        let unknown = code == AbortCode::Protocol && matches!(&self.phase, Phase::Committing(c) if c.awaits_ack());
        self.end(match unknown {
            true => SagaOutcome::Interrupted { commit_sent: true },
            false => SagaOutcome::Aborted { code, by_peer: false, text, retry_after_ms: 0 },
        });
    }

    fn end(&mut self, outcome: SagaOutcome) {
        if let Phase::Committing(committing) = &self.phase {
            self.chain = committing.chain(&outcome);
        }
        self.phase = Phase::Over;
        self.pending = None;
        self.waiting.clear();
        self.out.finish(outcome);
    }
}
