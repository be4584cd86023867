//! Two nodes, a TLS connection between them, and somebody on the way who may change every frame.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sealtide_crypto::{Entropy, Seed, SeededEntropy, SigningKey, hmac_sha256};
use sealtide_identity::{Invite, InviteId, InviteSecret, NodeId, Role, SpaceId};
use sealtide_wire::handshake::{
    Admission, Binding, CertificateCheck, CertificateFacts, CertificateRejected, Connection, Continuation, Established,
    Exporter, HandshakeError, Initiator, LocalEnd, Operations, PipeKind, Proof, Refused, Responder, Step,
};

#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
pub(crate) fn scale() -> usize {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// The exporter of one TLS connection.
#[derive(Clone, Copy)]
pub(crate) struct Tls(pub(crate) [u8; 32]);

impl Exporter for Tls {
    fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.0, &[label.as_bytes(), &[0], context])
    }
}

/// Stands in for X.509: a test certificate is `"X509" | not_before u64 | not_after u64 | filling`.
pub(crate) struct TestCertificates;

impl CertificateCheck for TestCertificates {
    fn dates(&self, der: &[u8]) -> Result<(u64, u64), CertificateRejected> {
        let rejected = CertificateRejected("not a test certificate");
        let dates = der.strip_prefix(b"X509").ok_or(rejected)?;
        let (not_before, rest) = dates.split_first_chunk::<8>().ok_or(rejected)?;
        let (not_after, _) = rest.split_first_chunk::<8>().ok_or(rejected)?;
        Ok((u64::from_be_bytes(*not_before), u64::from_be_bytes(*not_after)))
    }
}

pub(crate) fn certificate(filling: u8, not_before: u64, not_after: u64) -> CertificateFacts {
    let mut der = b"X509".to_vec();
    der.extend(not_before.to_be_bytes());
    der.extend(not_after.to_be_bytes());
    der.resize(355, filling);
    CertificateFacts::new(der, not_before, not_after)
}

pub(crate) fn node(seed: u8) -> LocalEnd {
    let key = SigningKey::from_seed(&Seed::from_bytes([seed; 32]));
    LocalEnd::new(Arc::new(key), certificate(seed, 1_800_000_000, 1_800_086_700))
}

/// What the responding node remembers.
#[derive(Default)]
pub(crate) struct Book {
    pub(crate) allowed: RefCell<BTreeSet<NodeId>>,
    pub(crate) invites: RefCell<BTreeMap<InviteId, Invite>>,
    pub(crate) now_ms: u64,
    pub(crate) session: Option<([u8; 16], u64)>,
    pub(crate) token: Option<InviteSecret>,
}

impl Book {
    pub(crate) fn invite(&self, id: u8, secret: u8, uses_left: u32) {
        let invite = Invite {
            id: [id; 16],
            secret: InviteSecret::from_bytes([secret; 32]),
            space: SpaceId::from_bytes([9; 32]),
            role: Role::Write,
            expires_ms: 1_000,
            uses_left,
            enrolled: Vec::new(),
            refused: Vec::new(),
        };
        self.invites.borrow_mut().insert(invite.id, invite);
    }
}

impl Admission for Book {
    fn allowed(&self, peer: &NodeId) -> bool {
        self.allowed.borrow().contains(peer)
    }

    fn invite_secret(&self, invite: &InviteId) -> Option<InviteSecret> {
        self.invites.borrow().get(invite).map(|invite| invite.secret.clone())
    }

    fn enrol(&self, invite: &InviteId, peer: &NodeId) -> Result<(), Refused> {
        let mut invites = self.invites.borrow_mut();
        let invite = invites.get_mut(invite).ok_or(Refused)?;
        invite.enrol(*peer, self.now_ms).map_err(|_| Refused)?;
        self.allowed.borrow_mut().insert(*peer);
        Ok(())
    }

    fn continues(&self, _: &NodeId, session_id: &[u8; 16]) -> Option<u64> {
        self.session.and_then(|(id, rx_next)| (id == *session_id).then_some(rx_next))
    }

    fn relay_token(&self) -> Option<InviteSecret> {
        self.token.clone()
    }
}

pub(crate) fn connection(kind: PipeKind, cb: u8) -> Connection {
    let binding = Binding::channel(kind, [cb; 32], [0xC1; 32], [0x51; 32]).expect("both certificates");
    Connection { binding, remote: None }
}

/// One handshake to be played.
pub(crate) struct Scene {
    pub(crate) initiator: Arc<LocalEnd>,
    pub(crate) responder: Arc<LocalEnd>,
    /// The id that the initiator dials.
    pub(crate) dialled: NodeId,
    pub(crate) initiator_sees: Connection,
    pub(crate) responder_sees: Connection,
    pub(crate) initiator_tls: Tls,
    pub(crate) responder_tls: Tls,
    pub(crate) proof: Proof,
    pub(crate) offer: Option<Continuation>,
    pub(crate) book: Book,
    pub(crate) seed: u64,
}

impl Scene {
    /// Node 1 dials node 2, which allows it, over a direct path.
    pub(crate) fn new() -> Self {
        Self::between(node(1), node(2))
    }

    pub(crate) fn between(initiator: LocalEnd, responder: LocalEnd) -> Self {
        let book = Book::default();
        book.allowed.borrow_mut().insert(initiator.id());
        Self {
            dialled: responder.id(),
            initiator: Arc::new(initiator),
            responder: Arc::new(responder),
            initiator_sees: connection(PipeKind::Direct, 7),
            responder_sees: connection(PipeKind::Direct, 7),
            initiator_tls: Tls([7; 32]),
            responder_tls: Tls([7; 32]),
            proof: Proof::Key,
            offer: None,
            book,
            seed: 1,
        }
    }

    pub(crate) fn edit_initiator(&mut self, edit: impl FnOnce(&mut LocalEnd)) {
        edit(Arc::make_mut(&mut self.initiator));
    }

    pub(crate) fn edit_responder(&mut self, edit: impl FnOnce(&mut LocalEnd)) {
        edit(Arc::make_mut(&mut self.responder));
    }

    pub(crate) fn start(&self, entropy: &mut dyn Entropy) -> (Initiator, Vec<u8>) {
        let (local, sees) = (self.initiator.clone(), self.initiator_sees.clone());
        Initiator::start(local, self.dialled, self.proof.clone(), sees, self.offer, entropy)
    }

    pub(crate) fn answer(&self) -> Responder {
        Responder::new(self.responder.clone(), self.responder_sees.clone())
    }

    pub(crate) fn play(&self) -> Played {
        self.play_against(|_, _| {})
    }

    /// Plays the handshake; `tamper` sees every frame on its way, with its number 0 to 4 in the order of the
    /// transcript, and may change it.
    pub(crate) fn play_against(&self, tamper: impl FnMut(usize, &mut Vec<u8>)) -> Played {
        self.play_with(self.answer(), tamper)
    }

    pub(crate) fn play_with(&self, mut r: Responder, mut tamper: impl FnMut(usize, &mut Vec<u8>)) -> Played {
        let mut entropy = SeededEntropy::new(self.seed);
        let (mut i, hello) = self.start(&mut entropy);
        let mut played = Played::default();
        let mut to_responder = vec![hello];
        while !to_responder.is_empty() {
            let mut to_initiator = Vec::new();
            for mut frame in std::mem::take(&mut to_responder) {
                tamper(played.sent.len(), &mut frame);
                played.sent.push(frame.clone());
                let step = r.handle(&frame, &self.responder_tls, &TestCertificates, &self.book, &mut entropy);
                if let Some(error) = take_step(step, &mut to_initiator, &mut played.responder) {
                    to_initiator.extend(error);
                    break;
                }
            }
            for mut frame in to_initiator {
                tamper(played.sent.len(), &mut frame);
                played.sent.push(frame.clone());
                let step = i.handle(&frame, &self.initiator_tls, &TestCertificates);
                if let Some(error) = take_step(step, &mut to_responder, &mut played.initiator) {
                    played.initiator_error_frame = error;
                    to_responder.clear();
                    break;
                }
            }
        }
        played.operations = r.operations();
        played
    }
}

/// Notes a step; gives what to write when it failed.
#[expect(clippy::option_option, reason = "failed or not, and with or without a frame")]
fn take_step(step: Result<Step, HandshakeError>, out: &mut Vec<Vec<u8>>, end: &mut End) -> Option<Option<Vec<u8>>> {
    match step {
        Ok(Step::Wait) => None,
        Ok(Step::Send(frames)) => {
            out.extend(frames);
            None
        }
        Ok(Step::Done { send, established }) => {
            out.extend(send);
            *end = End::Done(established);
            None
        }
        Ok(Step::LoggedIn { send, login }) => {
            out.extend(send);
            *end = End::LoggedIn(login);
            None
        }
        Err(error) => {
            let reply = error.reply();
            *end = End::Failed(error);
            Some(reply)
        }
    }
}

/// How one end came out.
#[derive(Debug, Default)]
pub(crate) enum End {
    /// Still waits: the other end closed without a byte.
    #[default]
    Waiting,
    Done(Box<Established>),
    LoggedIn(Box<sealtide_wire::handshake::RelayLogin>),
    Failed(HandshakeError),
}

impl End {
    pub(crate) fn done(&self) -> &Established {
        match self {
            Self::Done(established) => established,
            other => panic!("not established: {other:?}"),
        }
    }

    pub(crate) fn error(&self) -> &HandshakeError {
        match self {
            Self::Failed(error) => error,
            other => panic!("did not fail: {other:?}"),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Played {
    pub(crate) initiator: End,
    pub(crate) responder: End,
    /// All frames as they arrived.
    pub(crate) sent: Vec<Vec<u8>>,
    /// What the initiator wrote before it gave up.
    pub(crate) initiator_error_frame: Option<Vec<u8>>,
    pub(crate) operations: Operations,
}

impl Played {
    /// Whether the initiator was told ERROR 3 and nothing else.
    pub(crate) fn was_refused_uniformly(&self) -> bool {
        let last = self.sent.last().map(Vec::as_slice);
        last == Some(&[0x0E, 0, 0, 0, 0, 0, 0, 2, 0, 3])
            && matches!(self.initiator, End::Failed(HandshakeError::Peer(_)))
    }
}
