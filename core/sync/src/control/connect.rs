//! Connect: both nodes prove on the control channel whose devices they are, before any saga. Spec: ibgib §12.4, §13.2
//!
//! ```text
//! each side: HELLO, CHALLENGE → KEYSTONE … of its own device keystone, PROOF → (06 for the peer's owner) → ACCEPT
//! ```
//!
//! The machine knows the order and the bounds. What a proof is, which frames are valid and who may ask for which
//! keystone is the driver's business.

use std::collections::VecDeque;

use sealtide_crypto::Now;
use sealtide_ibgib::{Address, Verified};

use super::{Control, ControlOutput, KEYSTONE_BYTES_PER_MS, State};
use crate::message::{HelloIdentity, KEYSTONE_FRAMES_MAX};
use crate::{Message, MessageError, Refused};

/// Who this node is, for HELLO.
#[derive(Clone, Debug)]
pub struct OwnIdentity {
    /// First frame of the own device keystone.
    pub keystone: Address,
    /// First frame of its owner's.
    pub owner: Option<Address>,
    /// The newest frame held of the device keystone last seen with the peer's node id, and its n.
    pub known: Option<(Address, u64)>,
}

/// What the peer said of itself, and both challenges: what a proof is about, besides what the link knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The challenge that this node sent.
    pub own_challenge: [u8; 32],
    /// The challenge that the peer sent.
    pub peer_challenge: [u8; 32],
    /// First frame of the peer's device keystone.
    pub peer_keystone: Address,
    /// First frame of the keystone that the peer calls its owner's.
    pub peer_owner: Option<Address>,
    /// The newest frame that the peer holds of the device keystone it last saw with this node's id, and its n.
    pub peer_known: Option<(Address, u64)>,
}

/// The own proof.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// Frames of the own device keystone that the peer does not know yet, in order; with the one that authorises the
    /// session keystone.
    pub device: Vec<Verified>,
    /// Frames of the own session keystone, the connect frame last.
    pub session: Vec<Verified>,
}

/// Bytes of the frames of one KEYSTONE or PROOF; a single frame may be larger. The receiver's time begins anew with each message that has come
/// whole, so it has to be there well within [`HANDSHAKE_MS`](super::HANDSHAKE_MS), also at [`KEYSTONE_BYTES_PER_MS`].
const FRAMES_BYTES: usize = 256 * 1024;
/// Questions of one side that wait for an answer.
const QUESTIONS_MAX: usize = 16;
/// Parts of keystones that wait for the driver before it should stop reading.
const KEEPS_MAX: usize = 4;

/// One part of an answer: frames of a keystone and whether they are the last.
type Part = (Address, Vec<Verified>, bool);

/// Where connect stands.
#[derive(Debug)]
pub(super) struct Connect {
    own: OwnIdentity,
    pub(super) challenge: [u8; 32],
    hello: Option<HelloIdentity>,
    peer_challenge: Option<[u8; 32]>,
    /// Whether the frames of the peer's device keystone have all come.
    device_came: bool,
    /// Whether the peer's owner need not be waited for any more.
    owner_came: bool,
    /// The peer's proof, until it is checked.
    proof: Option<Vec<Verified>>,
    proof_came: bool,
    proof_sent: bool,
    /// Whether the peer's proof was good: ACCEPT was sent.
    pub(super) accept_sent: bool,
    accepted: bool,
    /// Keystones that the peer was asked for.
    asked: Vec<Address>,
    /// Questions of the peer that wait for the driver.
    questions: Vec<Address>,
    keeps: VecDeque<Part>,
    keeping: bool,
    /// When all that was sent has arrived, over a slow line; monotonic ms.
    sent_ms: u64,
}

impl Connect {
    pub(super) fn new(own: OwnIdentity, challenge: [u8; 32]) -> Self {
        Self {
            own,
            challenge,
            hello: None,
            peer_challenge: None,
            device_came: false,
            owner_came: false,
            proof: None,
            proof_came: false,
            proof_sent: false,
            accept_sent: false,
            accepted: false,
            asked: Vec::new(),
            questions: Vec::new(),
            keeps: VecDeque::new(),
            keeping: false,
            sent_ms: 0,
        }
    }

    pub(super) fn hello(&self) -> HelloIdentity {
        let OwnIdentity { keystone, owner, known } = self.own.clone();
        HelloIdentity { keystone: Some(keystone), owner, known }
    }

    pub(super) fn is_full(&self) -> bool {
        self.keeps.len() >= KEEPS_MAX
    }

    fn introduction(&self) -> Option<Introduction> {
        let hello = self.hello.clone()?;
        Some(Introduction {
            own_challenge: self.challenge,
            peer_challenge: self.peer_challenge?,
            peer_keystone: hello.keystone?,
            peer_owner: hello.owner,
            peer_known: hello.known,
        })
    }

    fn peer_owner(&self) -> Option<&Address> {
        self.hello.as_ref()?.owner.as_ref()
    }

    /// Whether these frames of a keystone were asked for, or are those that come unasked.
    fn admit(&mut self, first: &Address, last: bool) -> Result<(), MessageError> {
        let of_device = self.hello.as_ref().and_then(|hello| hello.keystone.as_ref()) == Some(first);
        if of_device && !self.device_came {
            self.device_came = last;
            return Ok(());
        }
        let place = self.asked.iter().position(|asked| asked == first);
        let place = place.ok_or(MessageError::bad("a KEYSTONE that was not asked for"))?;
        if last {
            self.asked.swap_remove(place);
        }
        Ok(())
    }
}

impl Control {
    /// The peer's HELLO, in a node that has identities.
    pub(super) fn meet(&mut self, hello: HelloIdentity) -> Result<(), MessageError> {
        let Some(connect) = &mut self.connect else { return Ok(()) };
        if hello.keystone.is_none() {
            return Err(MessageError::bad("a HELLO that names no keystone"));
        }
        connect.owner_came = hello.owner.is_none();
        let owner = hello.owner.clone();
        connect.hello = Some(hello);
        self.out.extend(owner.map(ControlOutput::PeerOwner));
        Ok(())
    }

    /// A message that belongs to keystones.
    pub(super) fn keystone_message(&mut self, now: Now, message: Message) -> Result<(), MessageError> {
        let proving = matches!(self.state, State::Proving { .. });
        let Some(connect) = &mut self.connect else {
            return Err(MessageError::bad("keystones were not agreed on"));
        };
        if proving && connect.peer_challenge.is_none() && !matches!(message, Message::Challenge(_)) {
            return Err(MessageError::bad("CHALLENGE comes right after HELLO"));
        }
        match message {
            Message::Challenge(bytes) if proving && connect.peer_challenge.is_none() => {
                connect.peer_challenge = Some(bytes);
                let wanted = connect.introduction().map(ControlOutput::ProofWanted);
                self.out.extend(wanted);
                self.prolong(now, 0);
            }
            Message::Keystone { first, frames, last } => {
                if frames.is_empty() && !last {
                    return Err(MessageError::bad("an empty part of a KEYSTONE"));
                }
                connect.admit(&first, last)?;
                connect.keeps.push_back((first, frames, last));
                self.keep_next();
            }
            Message::Proof(frames) if proving && connect.device_came && !connect.proof_came => {
                if frames.is_empty() {
                    return Err(MessageError::bad("a PROOF of nothing"));
                }
                connect.proof_came = true;
                connect.proof = Some(frames);
                self.check_proof();
            }
            Message::Accept if proving && connect.proof_sent && !connect.accepted => {
                connect.accepted = true;
                self.connected();
            }
            Message::AskKeystone { first, after } => {
                if connect.questions.len() >= QUESTIONS_MAX {
                    return Err(MessageError::limit("too many questions for keystones"));
                }
                connect.questions.push(first.clone());
                self.out.push_back(ControlOutput::KeystoneWanted { first, after });
            }
            _ => return Err(MessageError::bad("not expected now on the control channel")),
        }
        Ok(())
    }

    /// The driver made the proof.
    pub(super) fn proved(&mut self, now: Now, proof: Result<Proof, Refused>) {
        let proof = match proof {
            Ok(proof) => proof,
            Err(refused) => return self.refuse(refused),
        };
        let Some(connect) = &mut self.connect else { return };
        if !matches!(self.state, State::Proving { .. }) || connect.proof_sent {
            return;
        }
        connect.proof_sent = true;
        let first = connect.own.keystone.clone();
        self.send_keystone(now, &first, &proof.device);
        // The newest that fit; the peer asks for older ones that it does not hold.
        let (mut from, mut bytes) = (proof.session.len(), 0);
        for (place, frame) in proof.session.iter().enumerate().rev().take(KEYSTONE_FRAMES_MAX) {
            bytes += frame.encoded().len();
            if bytes > FRAMES_BYTES && from < proof.session.len() {
                break;
            }
            from = place;
        }
        self.prolong_for(now, bytes as u64);
        self.send(&Message::Proof(proof.session[from..].to_vec()));
    }

    /// The driver checked the peer's proof.
    pub(super) fn proof_checked(&mut self, result: Result<(), Refused>) {
        if let Err(refused) = result {
            return self.refuse(refused);
        }
        let Some(connect) = &mut self.connect else { return };
        if !matches!(self.state, State::Proving { .. }) || connect.accept_sent {
            return;
        }
        connect.accept_sent = true;
        self.send(&Message::Accept);
        self.connected();
    }

    /// The driver kept a part of a keystone.
    pub(super) fn kept(&mut self, now: Now, result: Result<(), Refused>) {
        if let Err(refused) = result {
            return self.refuse(refused);
        }
        let Some(connect) = &mut self.connect else { return };
        connect.keeping = false;
        if let Some((first, frames, last)) = connect.keeps.pop_front() {
            connect.owner_came |= last && connect.peer_owner() == Some(&first);
            if !frames.is_empty() {
                self.prolong(now, 0);
            }
        }
        self.keep_next();
        self.check_proof();
    }

    /// The driver wants frames of a keystone.
    pub(super) fn ask_keystone(&mut self, first: Address, after: Option<u64>) {
        let Some(connect) = &mut self.connect else { return };
        if connect.hello.is_none() || connect.asked.contains(&first) || connect.asked.len() >= QUESTIONS_MAX {
            return;
        }
        connect.asked.push(first.clone());
        self.send(&Message::AskKeystone { first, after });
    }

    /// The driver answers a question of the peer.
    pub(super) fn answer_keystone(&mut self, now: Now, first: &Address, frames: &[Verified]) {
        let Some(connect) = &mut self.connect else { return };
        if let Some(place) = connect.questions.iter().position(|asked| asked == first) {
            connect.questions.swap_remove(place);
            self.send_keystone(now, first, frames);
        }
    }

    /// One part at a time, in order.
    fn keep_next(&mut self) {
        let Some(connect) = &mut self.connect else { return };
        if connect.keeping {
            return;
        }
        if let Some((first, frames, last)) = connect.keeps.front().cloned() {
            connect.keeping = true;
            self.out.push_back(ControlOutput::PeerKeystone { first, frames, last });
        }
    }

    /// Has the peer's proof checked when everything that it rests on was kept.
    fn check_proof(&mut self) {
        let Some(connect) = &mut self.connect else { return };
        if !connect.keeps.is_empty() || !connect.owner_came {
            return;
        }
        if let Some(frames) = connect.proof.take()
            && let Some(introduction) = connect.introduction()
        {
            self.out.push_back(ControlOutput::CheckProof { frames, introduction });
        }
    }

    fn connected(&mut self) {
        if self.connect.as_ref().is_some_and(|connect| connect.accept_sent && connect.accepted) {
            self.ready();
        }
    }

    /// As [`Control::prolong`], for what goes out behind all that is queued.
    fn prolong_for(&mut self, now: Now, bytes: u64) {
        let Some(connect) = &mut self.connect else { return };
        connect.sent_ms = connect.sent_ms.max(now.mono_ms).saturating_add(bytes / KEYSTONE_BYTES_PER_MS);
        let by_ms = connect.sent_ms - now.mono_ms;
        self.prolong(now, by_ms);
    }

    fn send_keystone(&mut self, now: Now, first: &Address, frames: &[Verified]) {
        self.prolong_for(now, bytes_of(frames));
        let parts = parts(frames);
        let count = parts.len();
        for (place, part) in parts.into_iter().enumerate() {
            let last = place + 1 == count;
            self.send(&Message::Keystone { first: first.clone(), frames: part.to_vec(), last });
        }
    }
}

fn bytes_of(frames: &[Verified]) -> u64 {
    frames.iter().map(|frame| frame.encoded().len() as u64).sum()
}

/// Frames in parts that fit a message; one empty part when there are none.
fn parts(frames: &[Verified]) -> Vec<&[Verified]> {
    let (mut parts, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (place, frame) in frames.iter().enumerate() {
        let size = frame.encoded().len() + 8;
        if place > from && (bytes + size > FRAMES_BYTES || place - from >= KEYSTONE_FRAMES_MAX) {
            parts.push(&frames[from..place]);
            (from, bytes) = (place, 0);
        }
        bytes += size;
    }
    parts.push(&frames[from..]);
    parts
}
