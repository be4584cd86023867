//! The side that was dialled: the TLS server.
//!
//! ```text
//! AwaitHello ──CHALLENGE──▶ AwaitResponse ──▶ AwaitEstablished ──ESTABLISHED──▶ Over
//! ```

use std::sync::Arc;

use sealtide_crypto::{Entropy, Label, PublicKey, ct_eq};
use sealtide_identity::{InviteId, InviteSecret, NodeId};

use super::ends::{Link, dialable};
use super::established::Message;
use super::message::{Challenge, Claim, Hello, Response};
use super::signed::{
    CertificateScope, Side, initiator_content, invite_tag, responder_content, resume_secret, session_binding, to_tag,
};
use super::{
    Admission, CertificateCheck, Connection, Continuation, Established, Exporter, HandshakeError, LocalEnd, PipeKind,
    RelayLimits, RelayLogin, Step,
};
use crate::frame::FrameType;

/// How often a responder did costly work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// ML-DSA signatures made.
    pub signed: u32,
    /// ML-DSA signatures checked.
    pub verified: u32,
    /// HMACs computed.
    pub macs: u32,
    /// Questions to the node's memory: ids and invites.
    pub lookups: u32,
}

/// The responder of one handshake.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Responder {
    link: Link,
    /// Present at a relay.
    limits: Option<RelayLimits>,
    pub(super) state: State,
    operations: Operations,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) enum State {
    AwaitHello,
    AwaitResponse {
        hello: Vec<u8>,
        challenge: Vec<u8>,
        /// What HELLO said.
        caps: u32,
        session_id: [u8; 16],
    },
    AwaitEstablished {
        /// HELLO, CHALLENGE and RESPONSE, as sent.
        transcript: Vec<u8>,
        caps: u32,
        session_id: [u8; 16],
        proven: Proven,
    },
    Over,
}

/// What a verified RESPONSE showed.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct Proven {
    peer: NodeId,
    key: PublicKey,
    claim: Claim,
}

impl Responder {
    /// Awaits HELLO on kinds 1, 2 and 4; on kind 3 every knock is wrong.
    pub fn new(local: Arc<LocalEnd>, connection: Connection) -> Self {
        Self {
            link: Link { local, connection },
            limits: None,
            state: State::AwaitHello,
            operations: Operations::default(),
        }
    }

    /// Awaits HELLO at a relay, kind 3, which grants `limits` to every node that it lets in; on another kind every
    /// knock is wrong.
    pub fn relay(local: Arc<LocalEnd>, connection: Connection, limits: RelayLimits) -> Self {
        Self { limits: Some(limits), ..Self::new(local, connection) }
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
        admission: &dyn Admission,
        entropy: &mut dyn Entropy,
    ) -> Result<Step, HandshakeError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::AwaitHello => self.take_hello(frame, entropy),
            State::AwaitResponse { hello, challenge, caps, session_id } => {
                let proven = self.take_response(&hello, &challenge, frame, admission, entropy)?;
                let transcript = [&hello, &challenge, frame].concat();
                self.state = State::AwaitEstablished { transcript, caps, session_id, proven };
                Ok(Step::Wait)
            }
            State::AwaitEstablished { transcript, caps, session_id, proven } => {
                let message = Message::parse(frame)?;
                if self.link.kind() == PipeKind::RelayControl {
                    message.verify_at_relay(session_id, Side::Initiator, caps)?;
                    return self.admit_at_relay(&message, session_id, &proven, admission);
                }
                let (side, audience) = (Side::Initiator, self.link.local.id());
                let sb = session_binding(exporter, &transcript);
                let scope = CertificateScope { session_id, side, signer: proven.peer, audience, sb };
                self.operations.verified += 1;
                let pin = message.verify(&scope, &proven.key, caps, certificates)?;
                let invite = self.admit(&proven, admission)?;
                let (reply, continued) = self.established(&scope, &message, admission);
                let resume_secret = resume_secret(exporter, &[&transcript, frame, &reply].concat());
                let established = Established {
                    peer: proven.peer,
                    peer_key: proven.key,
                    initiator: false,
                    kind: self.link.kind(),
                    session_id,
                    sb,
                    resume_secret,
                    peer_terms: message.terms,
                    pin,
                    addresses: dialable(&message.addresses, &self.link),
                    observed: message.observed,
                    relays: message.relays,
                    invite,
                    continued,
                };
                Ok(Step::Done { send: vec![reply], established: Box::new(established) })
            }
            State::Over => Err(HandshakeError::Over),
        }
    }

    /// The initiator, from a verified RESPONSE to the end of the handshake: while it is there, this handshake takes
    /// part in the tie-break (link C.6).
    pub const fn proven_peer(&self) -> Option<NodeId> {
        match &self.state {
            State::AwaitEstablished { proven, .. } => Some(proven.peer),
            _ => None,
        }
    }

    /// Whether `frame` is a HELLO whose knock fits this node and this connection. Costs one HMAC, and is the only
    /// question that is answered before there is time for a signature (link C.12).
    pub fn is_knock(&self, frame: &[u8]) -> bool {
        Hello::parse(frame).is_some_and(|hello| self.fits(&hello))
    }

    /// What this handshake has cost so far.
    pub const fn operations(&self) -> Operations {
        self.operations
    }

    fn fits(&self, hello: &Hello) -> bool {
        let binding = self.link.binding();
        let knows_us = ct_eq(&hello.to_tag, &to_tag(&self.link.local.id(), binding, &hello.nonce));
        let door_fits = self.limits.is_some() == (binding.kind() == PipeKind::RelayControl);
        knows_us && door_fits && hello.kind == binding.kind() && hello.bind == binding.is_bound()
    }

    fn take_hello(&mut self, frame: &[u8], entropy: &mut dyn Entropy) -> Result<Step, HandshakeError> {
        // Spec: LK-13, LK-19
        let hello = Hello::parse(frame).ok_or(HandshakeError::WrongKnock)?;
        self.operations.macs += 1;
        if !self.fits(&hello) {
            return Err(HandshakeError::WrongKnock);
        }
        let (local, binding) = (&self.link.local, self.link.binding());
        let (mut nonce, mut session_id) = ([0; 32], [0; 16]);
        entropy.fill(&mut nonce);
        entropy.fill(&mut session_id);
        self.operations.signed += 1;
        let sign =
            |part: &[u8]| local.key().sign(Label::LinkResponder, &responder_content(binding, &local.id(), frame, part));
        let public = local.key().public();
        let challenge = Challenge::build(binding.is_bound(), &nonce, &session_id, local.terms.caps, public, sign);
        let hello_caps = hello.caps;
        self.state =
            State::AwaitResponse { hello: frame.to_vec(), challenge: challenge.clone(), caps: hello_caps, session_id };
        Ok(Step::Send(vec![challenge]))
    }

    /// Does the whole work of checking RESPONSE before it decides, so that the time of a refusal does not tell its
    /// reason. Spec: LK-15.
    fn take_response(
        &mut self,
        hello: &[u8],
        challenge: &[u8],
        frame: &[u8],
        admission: &dyn Admission,
        entropy: &mut dyn Entropy,
    ) -> Result<Proven, HandshakeError> {
        let response = Response::parse(frame, self.link.kind())?;
        let (local, binding) = (&self.link.local, self.link.binding());
        let peer = NodeId::of(&response.key);

        let signed = Response::signed_part(frame);
        let content = initiator_content(binding, &peer, &local.id(), hello, challenge, signed);
        self.operations.verified += 1;
        let signature_fits = response.key.verify(Label::LinkInitiator, &content, &response.signature).is_ok();

        let mut random = [0; 32];
        entropy.fill(&mut random);
        let secret = expected_secret(response.claim, admission);
        let secret_known = secret.is_some();
        let secret = secret.unwrap_or_else(|| InviteSecret::from_bytes(random));
        self.operations.lookups += 1;
        self.operations.macs += 1;
        let expected = invite_tag(&secret, hello, challenge, Response::tagged_part(frame));
        let tag_fits = ct_eq(&expected, &response.tag) && secret_known;

        self.operations.lookups += 1;
        let allowed = admission.allowed(&peer);

        let refuse = |peer, reason| Err(HandshakeError::NotAdmitted { peer, reason });
        if !signature_fits {
            return Err(HandshakeError::BadProof { frame: FrameType::Response });
        }
        if peer == local.id() {
            return refuse(Some(peer), "this node itself");
        }
        match response.claim {
            Claim::Key if !allowed => refuse(Some(peer), "neither allowed nor invited"),
            Claim::Invite(_) | Claim::RelayToken if !tag_fits => {
                refuse(None, "an unknown invite or token, or a wrong secret")
            }
            claim => Ok(Proven { peer, key: response.key, claim }),
        }
    }

    /// The last question before ESTABLISHED: takes the use of an invite, or looks again whether the id is allowed.
    fn admit(&mut self, proven: &Proven, admission: &dyn Admission) -> Result<Option<InviteId>, HandshakeError> {
        let refused = |reason| HandshakeError::NotAdmitted { peer: Some(proven.peer), reason };
        match proven.claim {
            // Spec: LK-4, LK-100
            Claim::Invite(invite) => {
                admission.enrol(&invite, &proven.peer).map_err(|_| refused("the invite lets nobody in"))?;
                Ok(Some(invite))
            }
            Claim::RelayToken => Ok(None),
            Claim::Key if admission.allowed(&proven.peer) => Ok(None),
            Claim::Key => Err(refused("no longer allowed")),
        }
    }

    fn admit_at_relay(
        &mut self,
        message: &Message,
        session_id: [u8; 16],
        proven: &Proven,
        admission: &dyn Admission,
    ) -> Result<Step, HandshakeError> {
        self.admit(proven, admission)?;
        let reply = Message::at_relay(&self.link.local, session_id, Side::Responder, self.link.observed(), self.limits);
        let login = RelayLogin {
            peer: proven.peer,
            initiator: false,
            session_id,
            peer_terms: message.terms,
            limits: None,
            observed: message.observed,
            token: proven.claim == Claim::RelayToken,
        };
        Ok(Step::LoggedIn { send: vec![reply.frame()], login: Box::new(login) })
    }

    /// The own ESTABLISHED, and the session that goes on if this node still has the one that was offered.
    fn established(
        &mut self,
        theirs: &CertificateScope,
        message: &Message,
        admission: &dyn Admission,
    ) -> (Vec<u8>, Option<Continuation>) {
        let peer = theirs.signer;
        let answer = message.continuation.and_then(|offer| {
            let rx_next = admission.continues(&peer, &offer.session_id)?;
            Some(Continuation { rx_next, ..offer })
        });
        let ours = CertificateScope {
            side: Side::Responder,
            signer: theirs.audience,
            audience: theirs.signer,
            ..theirs.clone()
        };
        self.operations.signed += 1;
        let reply = Message::between_nodes(&self.link.local, &ours, self.link.observed(), answer).frame();
        (reply, answer.and(message.continuation))
    }
}

/// The secret that the claim is checked with. One question is asked whatever the claim, so that its kind costs
/// nothing either.
fn expected_secret(claim: Claim, admission: &dyn Admission) -> Option<InviteSecret> {
    match claim {
        Claim::Invite(invite) => admission.invite_secret(&invite),
        Claim::RelayToken => admission.relay_token(),
        Claim::Key => {
            let _ = admission.invite_secret(&[0; 16]);
            None
        }
    }
}
