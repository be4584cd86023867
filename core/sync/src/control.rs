//! The control channel of a session: versions, the spaces on offer, outcomes of earlier sagas. Spec: ibgib §13.2.

mod connect;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::{Role, SpaceId};

use self::connect::Connect;
pub use self::connect::{Introduction, OwnIdentity, Proof};
use crate::message::{HelloIdentity, SPACES_MAX, STATUS_MAX};
use crate::{AbortCode, Message, MessageError, Refused, SagaId};

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
    /// The answer to [`ControlOutput::ProofWanted`]; what it says was durable before.
    Proved(Result<Proof, Refused>),
    /// The answer to [`ControlOutput::CheckProof`].
    ProofChecked(Result<(), Refused>),
    /// The answer to [`ControlOutput::PeerKeystone`].
    Kept(Result<(), Refused>),
    /// The answer to [`ControlOutput::KeystoneWanted`]: frames in order of n, voided branches last; none when the peer
    /// may not have them or there are none.
    Keystone {
        /// First frame of the keystone.
        first: Address,
        /// Its frames.
        frames: Vec<Verified>,
    },
    /// Ask the peer for frames of a keystone: the answer to [`ControlOutput::PeerOwner`], and at any time after HELLO.
    AskKeystone {
        /// First frame of the keystone.
        first: Address,
        /// The greatest n that is held.
        after: Option<u64>,
    },
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
    /// Prove to this peer who this node is: answer with [`ControlInput::Proved`]. Spec: ibgib §12.4
    ProofWanted(Introduction),
    /// Check the peer's proof: answer with [`ControlInput::ProofChecked`]. The keystones it rests on were kept before.
    CheckProof {
        /// Frames of the peer's session keystone, the connect frame last; older ones may be held already.
        frames: Vec<Verified>,
        /// What it is about.
        introduction: Introduction,
    },
    /// The peer names this keystone as its owner's: answer with [`ControlInput::AskKeystone`], also when all is held.
    PeerOwner(Address),
    /// The peer wants frames of a keystone, those with a greater n than `after`. Whether it may have them is the
    /// driver's rule. Answer with [`ControlInput::Keystone`].
    KeystoneWanted {
        /// First frame of the keystone.
        first: Address,
        /// What the peer holds.
        after: Option<u64>,
    },
    /// Frames of a keystone: its peer's device keystone, or what was asked for. Check, keep, and answer with
    /// [`ControlInput::Kept`]; the next part comes after that.
    PeerKeystone {
        /// First frame of the keystone.
        first: Address,
        /// Frames, possibly none.
        frames: Vec<Verified>,
        /// Whether the answer ends here.
        last: bool,
    },
    /// Call with [`ControlInput::Tick`] at this `mono_ms`.
    WakeAt(u64),
    /// The peer said BYE.
    Bye,
    /// The session must not be used for `sts/1` any more; ABORT was already put out.
    Failed(AbortCode, String),
}

/// The control machine of one session.
///
/// ```text
/// NEW --Start--> GREETING --peer's HELLO--> READY --BYE--> OVER       (any --error, 10 s--> OVER)
/// with keystones:  GREETING --peer's HELLO--> PROVING --ACCEPT of both--> READY
/// ```
#[derive(Debug)]
pub struct Control {
    max_sagas: u32,
    peer_max_sagas: u32,
    state: State,
    out: VecDeque<ControlOutput>,
    /// The own spaces, held back until the peer's HELLO is here.
    spaces: Option<Vec<SpaceOffer>>,
    /// The part of the peer's list that has come so far.
    peer_spaces: Vec<SpaceOffer>,
    asked: BTreeSet<SagaId>,
    zstd: bool,
    recon: bool,
    /// With identities only.
    connect: Option<Connect>,
    /// Whether the peer, unlike this node, has identities: it is about to refuse.
    peer_demands: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Greeting { deadline_ms: u64 },
    Proving { deadline_ms: u64, last_ms: u64 },
    Ready,
    Over,
}

/// Milliseconds from the start to the peer's HELLO and CHALLENGE, with keystones from there to its ACCEPT; anew from each part of a keystone
/// that brings frames. Spec: ibgib §13.8.
const HANDSHAKE_MS: u64 = 10_000;
/// The same in all, however much comes.
const HANDSHAKE_MS_MAX: u64 = 600_000;
/// Bytes of keystones and proofs for which the peer gets a millisecond more to say ACCEPT: it may have a slow line.
const KEYSTONE_BYTES_PER_MS: u64 = 64;
/// Spaces that one peer may offer.
const PEER_SPACES_MAX: usize = 4096;
/// Sagas asked about at once.
const ASKED_MAX: usize = 65_536;
const VERSION: u64 = 1;
/// Feature bit 0, set when this node has identities.
const FEATURE_KEYSTONE: u64 = 1;
/// Feature bit 1.
const FEATURE_ZSTD: u64 = 2;
/// Feature bit 2: level 1 and `salted`.
const FEATURE_RECON: u64 = 4;

impl Control {
    /// A machine that has not started. `max_sagas` is what this node allows the peer.
    pub fn new(max_sagas: u32) -> Self {
        Self {
            max_sagas,
            peer_max_sagas: 0,
            state: State::New,
            out: VecDeque::new(),
            spaces: None,
            peer_spaces: Vec::new(),
            asked: BTreeSet::new(),
            zstd: false,
            recon: false,
            connect: None,
            peer_demands: false,
        }
    }

    /// As [`Control::new`], in a node whose identities exist: peers must prove theirs. `challenge` is chance, fresh for
    /// each connection. Spec: SY-91
    pub fn with_identity(max_sagas: u32, own: OwnIdentity, challenge: [u8; 32]) -> Self {
        Self { connect: Some(Connect::new(own, challenge)), ..Self::new(max_sagas) }
    }

    /// Takes a fact.
    pub fn handle(&mut self, now: Now, input: ControlInput) {
        if self.state == State::Over {
            return;
        }
        match input {
            ControlInput::Start => self.start(now),
            ControlInput::Message(bytes) => {
                if let Err(error) = Message::decode(&bytes).and_then(|message| self.message(now, message)) {
                    self.fail(error);
                }
            }
            ControlInput::Spaces(list) => {
                self.spaces = Some(list);
                self.send_spaces();
            }
            ControlInput::AskStatus(sagas) => self.ask(&sagas),
            ControlInput::Status(answer) => {
                for part in answer.chunks(STATUS_MAX) {
                    self.send(&Message::Status { ask: Vec::new(), answer: part.to_vec() });
                }
            }
            ControlInput::Proved(proof) => self.proved(now, proof),
            ControlInput::ProofChecked(result) => self.proof_checked(result),
            ControlInput::Kept(result) => self.kept(now, result),
            ControlInput::Keystone { first, frames } => self.answer_keystone(now, &first, &frames),
            ControlInput::AskKeystone { first, after } => self.ask_keystone(first, after),
            ControlInput::Bye => {
                self.send(&Message::Bye);
                self.state = State::Over;
            }
            ControlInput::Tick => self.tick(now),
        }
    }

    /// The next wish; call until `None` after every `handle`.
    pub fn poll(&mut self) -> Option<ControlOutput> {
        self.out.pop_front()
    }

    /// Whether both sides offer zstd; known from [`ControlOutput::Ready`] on.
    pub fn zstd(&self) -> bool {
        self.zstd
    }

    /// Whether both sides offer level 1 of the reconciliation; known from [`ControlOutput::Ready`] on.
    pub fn recon(&self) -> bool {
        self.recon
    }

    /// Whether the peer has proved who it is; always so without identities. Its sagas may come before its ACCEPT does,
    /// since channels do not wait for each other.
    pub fn peer_is_proved(&self) -> bool {
        self.connect.as_ref().is_none_or(|connect| connect.accept_sent)
    }

    /// Whether keystones are on.
    pub fn has_keystones(&self) -> bool {
        self.connect.is_some()
    }

    /// Whether the driver should read no more of the control channel until it has kept what it was given.
    pub fn is_full(&self) -> bool {
        self.connect.as_ref().is_some_and(Connect::is_full)
    }

    fn start(&mut self, now: Now) {
        if self.state != State::New {
            return;
        }
        let deadline_ms = now.mono_ms + HANDSHAKE_MS;
        self.state = State::Greeting { deadline_ms };
        let features = FEATURE_ZSTD | FEATURE_RECON;
        let (features, identity) = match &self.connect {
            Some(connect) => (features | FEATURE_KEYSTONE, connect.hello()),
            None => (features, HelloIdentity::default()),
        };
        self.send(&Message::Hello { versions: vec![VERSION], features, max_sagas: self.max_sagas, identity });
        if let Some(challenge) = self.connect.as_ref().map(|connect| connect.challenge) {
            self.send(&Message::Challenge(challenge));
        }
        self.out.push_back(ControlOutput::WakeAt(deadline_ms));
    }

    fn tick(&mut self, now: Now) {
        if let State::Greeting { deadline_ms } | State::Proving { deadline_ms, .. } = self.state {
            let text = if matches!(self.state, State::Proving { .. }) { "no ACCEPT" } else { "no HELLO" };
            if now.mono_ms < deadline_ms {
                self.out.push_back(ControlOutput::WakeAt(deadline_ms));
            } else {
                self.fail(MessageError { code: AbortCode::Timeout, text });
            }
        }
    }

    /// Keystones of years are long: as long as they move, the end of the time does, to a bound.
    fn prolong(&mut self, now: Now, by_ms: u64) {
        if let State::Proving { deadline_ms, last_ms } = &mut self.state {
            *deadline_ms = (now.mono_ms + HANDSHAKE_MS + by_ms).max(*deadline_ms).min(*last_ms);
        }
    }

    fn message(&mut self, now: Now, message: Message) -> Result<(), MessageError> {
        match (self.state, message) {
            (_, Message::Unknown(_)) => {}
            (State::Greeting { deadline_ms }, Message::Hello { versions, features, max_sagas, identity }) => {
                // Spec: SY-75
                if !versions.contains(&VERSION) {
                    return Err(MessageError::bad("no common version of sts"));
                }
                self.zstd = features & FEATURE_ZSTD != 0;
                self.recon = features & FEATURE_RECON != 0;
                self.peer_max_sagas = max_sagas;
                let peer_has_keystones = features & FEATURE_KEYSTONE != 0;
                if self.connect.is_none() {
                    self.peer_demands = peer_has_keystones;
                    self.ready();
                } else if !peer_has_keystones {
                    // Spec: SY-91
                    let text = "a node without identities; this one has them";
                    return Err(MessageError { code: AbortCode::Auth, text });
                } else {
                    let last_ms = deadline_ms - HANDSHAKE_MS + HANDSHAKE_MS_MAX;
                    self.state = State::Proving { deadline_ms, last_ms };
                    self.meet(identity)?;
                }
            }
            (State::Ready, Message::Spaces { list, last }) => self.take_spaces(list, last)?,
            (State::Ready, Message::Status { ask, answer }) => self.take_status(ask, answer)?,
            // The peer's refusal is under way.
            (State::Ready, Message::Challenge(_)) if std::mem::take(&mut self.peer_demands) => {}
            (
                State::Proving { .. } | State::Ready,
                message @ (Message::Challenge(_)
                | Message::Proof(_)
                | Message::Accept
                | Message::AskKeystone { .. }
                | Message::Keystone { .. }),
            ) => self.keystone_message(now, message)?,
            (State::Ready, Message::Bye) => {
                self.out.push_back(ControlOutput::Bye);
                self.state = State::Over;
            }
            (_, Message::Abort { code, text, .. }) => {
                self.out.push_back(ControlOutput::Failed(code, text));
                self.state = State::Over;
            }
            _ => return Err(MessageError::bad("not expected now on the control channel")),
        }
        Ok(())
    }

    fn ready(&mut self) {
        self.state = State::Ready;
        self.out.push_back(ControlOutput::Ready(self.peer_max_sagas));
        self.send_spaces();
    }

    fn take_spaces(&mut self, list: Vec<SpaceOffer>, last: bool) -> Result<(), MessageError> {
        if self.peer_spaces.len() + list.len() > PEER_SPACES_MAX {
            return Err(MessageError::limit("too many spaces"));
        }
        if list.is_empty() && !last {
            return Err(MessageError::bad("an empty part of SPACES"));
        }
        self.peer_spaces.extend(list);
        if last {
            self.out.push_back(ControlOutput::PeerSpaces(std::mem::take(&mut self.peer_spaces)));
        }
        Ok(())
    }

    fn take_status(&mut self, ask: Vec<SagaId>, answer: Vec<(SagaId, SagaState)>) -> Result<(), MessageError> {
        for (saga, _) in &answer {
            if !self.asked.remove(saga) {
                return Err(MessageError::bad("a STATUS that was not asked for"));
            }
        }
        if !ask.is_empty() {
            self.out.push_back(ControlOutput::StatusWanted(ask));
        }
        if !answer.is_empty() {
            self.out.push_back(ControlOutput::PeerStatus(answer));
        }
        Ok(())
    }

    fn ask(&mut self, sagas: &[SagaId]) {
        let new: Vec<_> = sagas.iter().copied().filter(|saga| !self.asked.contains(saga)).collect();
        let room = ASKED_MAX - self.asked.len();
        for part in new[..new.len().min(room)].chunks(STATUS_MAX) {
            self.asked.extend(part);
            self.send(&Message::Status { ask: part.to_vec(), answer: Vec::new() });
        }
    }

    fn send_spaces(&mut self) {
        if self.state != State::Ready {
            return;
        }
        let Some(list) = self.spaces.take() else { return };
        if list.is_empty() {
            self.send(&Message::Spaces { list, last: true });
            return;
        }
        let parts = list.len().div_ceil(SPACES_MAX);
        for (part, offers) in list.chunks(SPACES_MAX).enumerate() {
            self.send(&Message::Spaces { list: offers.to_vec(), last: part + 1 == parts });
        }
    }

    fn send(&mut self, message: &Message) {
        self.out.push_back(ControlOutput::Send(message.encode()));
    }

    fn fail(&mut self, error: MessageError) {
        self.refuse(Refused { code: error.code, text: error.text.to_owned() });
    }

    fn refuse(&mut self, refused: Refused) {
        let Refused { code, text } = refused;
        self.send(&Message::Abort { code, text: text.clone(), retry_after_ms: 0 });
        self.out.push_back(ControlOutput::Failed(code, text));
        self.state = State::Over;
    }
}
