//! The side that dialled: the TLS client.
//!
//! ```text
//! start ──HELLO──▶ AwaitChallenge ──RESPONSE, ESTABLISHED──▶ AwaitEstablished ──▶ Over
//! ```

use std::sync::Arc;

use sealtide_crypto::{Entropy, Label, PublicKey};
use sealtide_identity::{InviteId, InviteSecret, NodeId};

use super::ends::{Link, dialable};
use super::established::Message;
use super::message::{Challenge, Claim, Hello, Response};
use super::signed::{
    CertificateScope, Side, initiator_content, invite_tag, responder_content, resume_secret, session_binding, to_tag,
};
use super::{
    CertificateCheck, Connection, Continuation, Established, Exporter, HandshakeError, LocalEnd, PipeKind, RelayLogin,
    Step,
};
use crate::frame::FrameType;

/// What the initiator proves besides its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: the responder knows the id.
    Key,
    /// It holds the secret of an invite. Not on kind 3, where it is malformed.
    Invite(InviteId, InviteSecret),
    /// It holds the token of the relay. Kind 3 only, elsewhere it is malformed.
    RelayToken(InviteSecret),
}

/// The initiator of one handshake.
#[derive(Debug)]
pub struct Initiator {
    link: Link,
    peer: NodeId,
    proof: Proof,
    offer: Option<Continuation>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    AwaitChallenge {
        hello: Vec<u8>,
    },
    AwaitEstablished {
        /// HELLO, CHALLENGE, RESPONSE and the own ESTABLISHED, as sent.
        transcript: Vec<u8>,
        /// What CHALLENGE said.
        caps: u32,
        session_id: [u8; 16],
        key: PublicKey,
        /// `None` on kind 3.
        sb: Option<[u8; 32]>,
    },
    Over,
}

impl Initiator {
    /// Begins: gives the HELLO frame to write. `offer` names an older session of the same two nodes to go on with;
    /// it is not sent on kind 3.
    pub fn start(
        local: Arc<LocalEnd>,
        peer: NodeId,
        proof: Proof,
        connection: Connection,
        offer: Option<Continuation>,
        entropy: &mut dyn Entropy,
    ) -> (Self, Vec<u8>) {
        let link = Link { local, connection };
        let binding = link.binding();
        let mut nonce = [0; 32];
        entropy.fill(&mut nonce);
        let hello = Hello {
            kind: binding.kind(),
            bind: binding.is_bound(),
            nonce,
            to_tag: to_tag(&peer, binding, &nonce),
            caps: link.local.terms.caps,
        };
        let hello = hello.frame();
        let state = State::AwaitChallenge { hello: hello.clone() };
        (Self { link, peer, proof, offer, state }, hello)
    }

    /// Takes one whole frame.
    ///
    /// # Errors
    /// [`HandshakeError`]: write [`HandshakeError::reply`] and close.
    pub fn handle(
        &mut self,
        frame: &[u8],
        exporter: &dyn Exporter,
        certificates: &dyn CertificateCheck,
    ) -> Result<Step, HandshakeError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitChallenge { hello } => self.take_challenge(hello, frame, exporter),
            State::AwaitEstablished { transcript, caps, session_id, key, sb } => {
                let message = Message::parse(frame)?;
                let transcript = [&transcript, frame].concat();
                match sb {
                    Some(sb) => {
                        let scope = CertificateScope {
                            session_id,
                            side: Side::Responder,
                            signer: self.peer,
                            audience: self.link.local.id(),
                            sb,
                        };
                        self.finish(&message, &scope, &key, caps, &transcript, exporter, certificates)
                    }
                    None => self.finish_at_relay(&message, session_id, caps),
                }
            }
            State::Over => Err(HandshakeError::Over),
        }
    }

    /// Whether the responder has proved its id. From then on this handshake takes part in the tie-break (link C.6).
    pub const fn peer_is_proven(&self) -> bool {
        matches!(self.state, State::AwaitEstablished { .. })
    }

    /// The id that was dialled.
    pub const fn peer(&self) -> NodeId {
        self.peer
    }

    fn take_challenge(
        &mut self,
        hello: Vec<u8>,
        frame: &[u8],
        exporter: &dyn Exporter,
    ) -> Result<Step, HandshakeError> {
        let challenge = Challenge::parse(frame)?;
        let binding = self.link.binding();
        if challenge.bind != binding.is_bound() {
            return Err(HandshakeError::Malformed { frame: FrameType::Challenge, rule: "the other bind" });
        }
        // The id first: a stranger's signature is not worth checking.
        let found = NodeId::of(&challenge.key);
        if found != self.peer {
            return Err(HandshakeError::WrongPeer { expected: self.peer, found });
        }
        // Spec: LK-8, LK-9, LK-10, LK-11
        let content = responder_content(binding, &self.peer, &hello, Challenge::signed_part(frame));
        challenge
            .key
            .verify(Label::LinkResponder, &content, &challenge.signature)
            .map_err(|_| HandshakeError::BadProof { frame: FrameType::Challenge })?;

        let response = self.response(&hello, frame);
        let mut transcript = [&hello, frame, &response].concat();
        let session_id = challenge.session_id;
        let (sb, established) = self.established(session_id, &transcript, exporter);
        transcript.extend_from_slice(&established);
        self.state = State::AwaitEstablished { transcript, caps: challenge.caps, session_id, key: challenge.key, sb };
        Ok(Step::Send(vec![response, established]))
    }

    fn response(&self, hello: &[u8], challenge: &[u8]) -> Vec<u8> {
        let local = &self.link.local;
        let claim = match &self.proof {
            Proof::Key => Claim::Key,
            Proof::Invite(invite, _) => Claim::Invite(*invite),
            Proof::RelayToken(_) => Claim::RelayToken,
        };
        let sign = |part: &[u8]| {
            let content = initiator_content(self.link.binding(), &local.id(), &self.peer, hello, challenge, part);
            local.key().sign(Label::LinkInitiator, &content)
        };
        let tag = |part: &[u8]| match &self.proof {
            Proof::Key => None,
            Proof::Invite(_, secret) | Proof::RelayToken(secret) => Some(invite_tag(secret, hello, challenge, part)),
        };
        Response::build(claim, local.key().public(), sign, tag)
    }

    /// The own ESTABLISHED, with the session binding (none on kind 3). `transcript` ends with RESPONSE.
    fn established(
        &self,
        session_id: [u8; 16],
        transcript: &[u8],
        exporter: &dyn Exporter,
    ) -> (Option<[u8; 32]>, Vec<u8>) {
        let (local, side) = (&self.link.local, Side::Initiator);
        if self.link.kind() == PipeKind::RelayControl {
            return (None, Message::at_relay(local, session_id, side, None, None).frame());
        }
        let sb = session_binding(exporter, transcript);
        let scope = CertificateScope { session_id, side, signer: local.id(), audience: self.peer, sb };
        (Some(sb), Message::between_nodes(local, &scope, self.link.observed(), self.offer).frame())
    }

    #[expect(clippy::too_many_arguments, reason = "the last step needs what all steps before it found")]
    fn finish(
        &self,
        message: &Message,
        scope: &CertificateScope,
        key: &PublicKey,
        caps: u32,
        transcript: &[u8],
        exporter: &dyn Exporter,
        certificates: &dyn CertificateCheck,
    ) -> Result<Step, HandshakeError> {
        let pin = message.verify(scope, key, caps, certificates)?;
        let offered = self.offer.map(|offer| offer.session_id);
        if message.continuation.is_some() && message.continuation.map(|answer| answer.session_id) != offered {
            let rule = "goes on with a session that was not offered";
            return Err(HandshakeError::Malformed { frame: FrameType::Established, rule });
        }
        let established = Established {
            peer: self.peer,
            peer_key: key.clone(),
            initiator: true,
            kind: self.link.kind(),
            session_id: scope.session_id,
            sb: scope.sb,
            resume_secret: resume_secret(exporter, transcript),
            peer_terms: message.terms,
            pin,
            addresses: dialable(&message.addresses, &self.link),
            observed: message.observed,
            relays: message.relays.clone(),
            invite: match &self.proof {
                Proof::Invite(invite, _) => Some(*invite),
                _ => None,
            },
            continued: message.continuation,
        };
        Ok(Step::Done { send: Vec::new(), established: Box::new(established) })
    }

    fn finish_at_relay(&self, message: &Message, session_id: [u8; 16], caps: u32) -> Result<Step, HandshakeError> {
        message.verify_at_relay(session_id, Side::Responder, caps)?;
        let login = RelayLogin {
            peer: self.peer,
            initiator: true,
            session_id,
            peer_terms: message.terms,
            limits: message.limits,
            observed: message.observed,
            token: matches!(self.proof, Proof::RelayToken(_)),
        };
        Ok(Step::LoggedIn { send: Vec::new(), login: Box::new(login) })
    }
}
