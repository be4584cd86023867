//! The contexts of a saga that keystones sign: OPEN, OPEN_ACK, COMMIT, COMMIT_ACK. What exactly is signed, and the
//! message that waits while the driver signs or checks. Spec: ibgib §12.4

use bytes::Bytes;
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::keystone::context_target;

use super::signing::Ledger;
use super::{Fault, Phase, Saga, SagaOutput, Side};
use crate::message::{Open, OpenAck};
use crate::{AbortCode, Message};

/// What a saga needs to know to sign and to demand signatures; only where both nodes have keystones.
#[derive(Clone, Debug)]
pub struct Contexts {
    /// The sagas of this space on this connection so far. Nothing else of the space may run until this saga is over.
    pub ledger: Ledger,
    /// The newest `members` frame that counts of the space that this node holds: it goes by it.
    pub members: Option<Address>,
    /// Whether BYE follows: what is not signed yet is signed by this saga. For the opener.
    pub last: bool,
}

/// Which message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextKind {
    /// OPEN.
    Open,
    /// OPEN_ACK.
    OpenAck,
    /// COMMIT.
    Commit,
    /// COMMIT_ACK.
    CommitAck,
}

/// What a saga means for the [`Ledger`] of its space; to be asked when it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// It did not complete: the ledger stays as it was.
    Same,
    /// It completed.
    Completed(Ledger),
    /// COMMIT was sent or received, and what became of it at the peer is not known: the two ledgers may differ from here
    /// on, so the connection must end.
    Unknown,
}

/// What a saga waits for; other messages of the peer wait with it.
#[derive(Debug)]
pub(super) enum Pending {
    /// The driver signs a message of this side.
    Sign,
    /// The driver checks the signature of this message.
    Check(Box<Message>, Bytes),
}

/// The claim target of the frame that signs a context: `message` is without its signature.
pub(super) fn target(chain: &[u8; 32], message: &Message) -> String {
    let bytes = message.encode();
    context_target(bytes[0], chain, &bytes[1..])
}

/// A signed message taken apart: which context, without its signature, and the signature.
fn take_apart(message: &Message) -> Option<(ContextKind, Message, Option<Verified>)> {
    Some(match message {
        Message::Open(open) => (ContextKind::Open, Message::Open(Open { sig: None, ..open.clone() }), open.sig.clone()),
        Message::OpenAck(ack) => {
            (ContextKind::OpenAck, Message::OpenAck(OpenAck { sig: None, ..ack.clone() }), ack.sig.clone())
        }
        Message::Commit(commit, sig) => (ContextKind::Commit, Message::Commit(*commit, None), sig.clone()),
        Message::CommitAck(commit, sig) => (ContextKind::CommitAck, Message::CommitAck(*commit, None), sig.clone()),
        _ => return None,
    })
}

/// A due signature that is missing, or one that is not due.
pub(super) fn auth(text: &str) -> Fault {
    Fault::new(AbortCode::Auth, text)
}

impl Saga {
    /// Has the driver sign a message of this side; what the peer says meanwhile waits.
    pub(super) fn sign(&mut self, what: ContextKind, message: &Message) {
        let Some(contexts) = &self.config.contexts else { return };
        let target = target(contexts.ledger.chain(), message);
        self.pending = Some(Pending::Sign);
        self.out.push(SagaOutput::Sign { what, target });
    }

    /// Looks at the signature of a message before anything else is done with it. `true`: the driver was asked to check
    /// it, and the message waits.
    pub(super) fn check_first(&mut self, message: &Message, bytes: &Bytes) -> Result<bool, Fault> {
        let Some((what, plain, sig)) = take_apart(message) else { return Ok(false) };
        let Some(contexts) = &self.config.contexts else {
            let members = match message {
                Message::Open(open) => open.members.is_some(),
                Message::OpenAck(ack) => ack.members.is_some(),
                _ => false,
            };
            // Spec: SY-91
            let fault = || Fault::protocol("keystones were not agreed on");
            return if members || sig.is_some() { Err(fault()) } else { Ok(false) };
        };
        // Spec: SY-33, SY-34
        let due = match (&self.phase, what) {
            (Phase::AwaitOpen, ContextKind::Open) | (Phase::AwaitAck(_), ContextKind::OpenAck) => {
                contexts.ledger.opening_due()
            }
            (Phase::Committing(committing), ContextKind::CommitAck) => committing.is_signed(),
            // Its opener decides; a missing one is looked at when it is known what the saga moved.
            (Phase::Running(run), ContextKind::Commit) if run.terms.side == Side::Answerer => sig.is_some(),
            // Out of place: whoever takes it says so.
            _ => return Ok(false),
        };
        match sig {
            None if due => Err(auth("a signature that is due is missing")),
            Some(_) if !due => Err(auth("a signature that is not due")),
            None => Ok(false),
            Some(sig) => {
                let target = target(contexts.ledger.chain(), &plain);
                self.pending = Some(Pending::Check(Box::new(message.clone()), bytes.clone()));
                self.out.push(SagaOutput::CheckSig { what, target, sig });
                Ok(true)
            }
        }
    }

    /// What this saga means for the ledger that it was given; final when it is done.
    pub fn chain(&self) -> Chain {
        self.chain
    }

    /// The signature that an OPEN carries: a driver that refuses the OPEN unseen shows it to whoever keeps the frames of
    /// the peer's session keystone, since the next one builds on it.
    pub fn peek_signature(message: &Bytes) -> Option<Verified> {
        match Message::decode(message) {
            Ok(Message::Open(open)) => open.sig,
            _ => None,
        }
    }
}
