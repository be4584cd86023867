//! The control channel of a session: versions, the spaces on offer, outcomes of earlier sagas. Spec: ibgib §13.2.

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_identity::{Role, SpaceId};

use crate::{AbortCode, SagaId};

/// One entry of SPACES: a space that the receiver has a grant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceOffer {
    /// Which space.
    pub space: SpaceId,
    /// The name its owner gave it, ≤ 64 bytes; a hint.
    pub name: String,
    /// `folder` or `data`.
    pub kind: String,
    /// The role of the receiver of the offer.
    pub role: Role,
    /// Whether an invite that the receiver used names this space.
    pub invited: bool,
    /// How many tips.
    pub tip_count: u64,
    /// Fingerprint of level 0.
    pub tip_fingerprint: [u8; 16],
}

/// What became of a saga. Spec: ibgib §13.2 STATUS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SagaState {
    /// Never heard of it.
    Unknown,
    /// Open.
    Open,
    /// Staged, not committed.
    Staged,
    /// Committed.
    Committed,
    /// Aborted.
    Aborted,
}

/// Facts for the control machine.
#[derive(Debug)]
pub enum ControlInput {
    /// The session is open: HELLO goes out.
    Start,
    /// A whole message arrived on the control channel.
    Message(Bytes),
    /// The own spaces changed (or the first list): SPACES goes out.
    Spaces(Vec<SpaceOffer>),
    /// Ask what became of these sagas.
    AskStatus(Vec<SagaId>),
    /// The answer to [`ControlOutput::StatusWanted`].
    Status(Vec<(SagaId, SagaState)>),
    /// End `sts/1` in order.
    Bye,
    /// Time passed.
    Tick,
}

/// Wishes of the control machine.
#[derive(Debug, PartialEq, Eq)]
pub enum ControlOutput {
    /// Send this message on the control channel.
    Send(Bytes),
    /// Both HELLOs agreed: sagas may open. The number is the peer's `max_sagas`.
    Ready(u32),
    /// The peer's list of spaces, whole, replaces the one before.
    PeerSpaces(Vec<SpaceOffer>),
    /// The peer asks what became of these sagas: answer with [`ControlInput::Status`].
    StatusWanted(Vec<SagaId>),
    /// What the peer says of sagas we asked about.
    PeerStatus(Vec<(SagaId, SagaState)>),
    /// Call with [`ControlInput::Tick`] at this `mono_ms`.
    WakeAt(u64),
    /// The peer said BYE.
    Bye,
    /// The session must not be used for `sts/1` any more; ABORT was already put out.
    Failed(AbortCode, String),
}

/// The control machine of one session.
#[derive(Debug)]
pub struct Control {}

impl Control {
    /// A machine that has not started. `max_sagas` is what this node allows the peer.
    pub fn new(max_sagas: u32) -> Self {
        let _ = max_sagas;
        todo!()
    }

    /// Takes a fact.
    pub fn handle(&mut self, now: Now, input: ControlInput) {
        let _ = (now, input);
        todo!()
    }

    /// The next wish; call until `None` after every `handle`.
    pub fn poll(&mut self) -> Option<ControlOutput> {
        todo!()
    }
}
