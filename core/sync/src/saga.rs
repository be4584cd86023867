//! One run of the sync protocol over one space: all of it becomes visible, or nothing. Spec: ibgib §13–14.
//!
//! ```text
//! opener   OPENING → RECONCILING → TRANSFERRING → STAGED → COMMITTING → DONE
//! answerer OPENING → RECONCILING → TRANSFERRING → STAGED → COMMITTING → DONE     (any → ABORTED)
//! ```

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_ibgib::{Address, ChunkHash, Verified};
use sealtide_identity::{NodeId, Role, SpaceId};

use crate::{AbortCode, CommitRequest, CommitResult, SpaceView};

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
    /// Merge where possible; until merges exist, both tips are kept and listed as a conflict.
    Optimistic,
    /// The opener's tip wins.
    Ours,
    /// The answerer's tip wins.
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
    /// Bounds.
    pub limits: Limits,
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
    /// The peer's role changed (a grant was revoked: `None`).
    PeerRole(Option<Role>),
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
    /// Commit, then say [`SagaInput::Committed`], [`SagaInput::TipMoved`] or [`SagaInput::StoreFailed`].
    Commit(CommitRequest),
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
pub struct Saga {}

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
        let _ = (now, config, scope, direction, strategy, view);
        todo!()
    }

    /// Reads the space and the saga id of an OPEN, so that the driver can look up view and role.
    ///
    /// # Errors
    /// [`crate::MessageError`] when the message is no OPEN.
    pub fn peek_open(message: &[u8]) -> Result<(SagaId, SpaceId), crate::MessageError> {
        let _ = message;
        todo!()
    }

    /// Answers a saga; the first message (OPEN) is then handed in by `handle`.
    pub fn answer(now: Now, config: SagaConfig, view: &dyn SpaceView) -> Self {
        let _ = (now, config, view);
        todo!()
    }

    /// The ABORT message with which a driver refuses an OPEN without making a saga (`busy`, `not_allowed`).
    pub fn refusal(code: AbortCode, text: &str, retry_after_ms: u64) -> Bytes {
        let _ = (code, text, retry_after_ms);
        todo!()
    }

    /// Takes a fact.
    pub fn handle(&mut self, now: Now, input: SagaInput, view: &dyn SpaceView) {
        let _ = (now, input, view);
        todo!()
    }

    /// The next wish; call until `None` after every `handle`. Reads payload lazily, so call it only as fast as
    /// the channel takes messages: that is the back-pressure.
    pub fn poll(&mut self, view: &dyn SpaceView) -> Option<SagaOutput> {
        let _ = view;
        todo!()
    }
}
