//! What goes into a handshake and what comes out of it: the two ends, the TLS connection, the result.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use sealtide_crypto::{PublicKey, SigningKey, sha256};
use sealtide_identity::{InviteId, InviteSecret, LearnedFrom, LinkAddress, NodeId, RelayHint};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::frame::PAYLOAD_BYTES_MAX;

/// The most bytes of DER that a node certificate has. Spec: link C.7.
pub const CERTIFICATE_BYTES_MAX: usize = 1_024;
/// The longest life of a node certificate: 24 h 10 min. Spec: link C.7.
pub const CERTIFICATE_SECONDS_MAX: u64 = 87_000;

/// What lies under the TLS connection; both ends know it from where they met. Spec: link C.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum PipeKind {
    /// A circuit through a relay.
    Relay = 1,
    /// TCP, TLS, WebSocket.
    Direct = 2,
    /// A node's login at a relay.
    RelayControl = 3,
    /// A WebSocket to the gateway door of a node.
    Tunnel = 4,
}

impl PipeKind {
    /// Every kind, in the order of the codes.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Direct, Self::RelayControl, Self::Tunnel];

    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The kind of a code; `None` for a code without a meaning.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }
}

/// The facts of the TLS connection that both signatures cover. Spec: link C.4.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    kind: PipeKind,
    bind: bool,
    cb: [u8; 32],
    fp_client: [u8; 32],
    fp_server: [u8; 32],
}

impl Binding {
    /// Bound to a TLS connection that ends in the two nodes.
    ///
    /// `cb` is the exporter with label `EXPORTER-Channel-Binding`, empty context, 32 bytes; the fingerprints are
    /// SHA-256 of the leaf certificates' DER, 32 zeros where an end showed none.
    ///
    /// # Errors
    /// [`BindingError::MissingCertificate`]: kinds 1, 2 and 4 need both certificates, kind 3 the server's.
    pub fn channel(
        kind: PipeKind,
        cb: [u8; 32],
        fp_client: [u8; 32],
        fp_server: [u8; 32],
    ) -> Result<Self, BindingError> {
        let client_missing = fp_client == [0; 32] && kind != PipeKind::RelayControl;
        if client_missing || fp_server == [0; 32] {
            return Err(BindingError::MissingCertificate(kind));
        }
        Ok(Self { kind, bind: true, cb, fp_client, fp_server })
    }

    /// Bind 0: a relay login through something that ends the TLS; only where the relay address or the
    /// configuration says so, and with a WebPKI certificate checked by the driver. Spec: LK-19.
    pub const fn relay_without_channel() -> Self {
        Self { kind: PipeKind::RelayControl, bind: false, cb: [0; 32], fp_client: [0; 32], fp_server: [0; 32] }
    }

    /// What lies under the TLS connection.
    pub const fn kind(&self) -> PipeKind {
        self.kind
    }

    /// Whether the handshake is bound to the TLS connection; false is bind 0.
    pub const fn is_bound(&self) -> bool {
        self.bind
    }

    pub(crate) const fn cb(&self) -> &[u8; 32] {
        &self.cb
    }

    pub(crate) const fn fp_client(&self) -> &[u8; 32] {
        &self.fp_client
    }

    pub(crate) const fn fp_server(&self) -> &[u8; 32] {
        &self.fp_server
    }
}

/// A TLS connection that no handshake can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindingError {
    /// An end showed no certificate where both must.
    #[error("a {0:?} connection without the certificates that its handshake is bound to")]
    MissingCertificate(PipeKind),
}

/// One TLS connection as its driver knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What the signatures are bound to.
    pub binding: Binding,
    /// The remote address of the socket; `None` where a relay or a proxy is in between. It is told to the peer, and
    /// it decides whether loopback addresses of the peer are taken.
    pub remote: Option<SocketAddr>,
}

/// One end on one connection: what both roles carry along.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) local: Arc<LocalEnd>,
    pub(super) connection: Connection,
}

impl Link {
    pub(super) fn binding(&self) -> &Binding {
        &self.connection.binding
    }

    pub(super) fn kind(&self) -> PipeKind {
        self.connection.binding.kind
    }

    /// Where the peer is seen from here, to be told to it.
    pub(super) fn observed(&self) -> Option<LinkAddress> {
        let at_relay = self.kind() == PipeKind::RelayControl;
        let source = if at_relay { LinkAddress::RELAY_OBSERVED } else { LinkAddress::PEER_OBSERVED };
        self.connection.remote.map(|socket| LinkAddress { source, socket })
    }

    /// Whether the peer is on this machine: a direct path with a loopback address at the other end.
    fn is_over_loopback(&self) -> bool {
        let remote = self.connection.remote.map(|socket| socket.ip().to_canonical());
        self.kind() == PipeKind::Direct && remote.is_some_and(|ip| ip.is_loopback())
    }
}

/// Those of the peer's addresses that may be dialled; the others are dropped without a word. Spec: LK-107.
pub(super) fn dialable(addresses: &[LinkAddress], link: &Link) -> Vec<LinkAddress> {
    let learned = LearnedFrom::Peer { over_loopback: link.is_over_loopback() };
    addresses.iter().filter(|address| address.may_be_dialled(learned)).copied().collect()
}

/// The exporter of the TLS connection (RFC 8446, section 7.5), 32 bytes.
pub trait Exporter {
    /// Derives 32 bytes for `label` and `context`.
    fn export(&self, label: &str, context: &[u8]) -> [u8; 32];
}

/// A node certificate with what its DER says. Spec: link C.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the DER.
    pub fingerprint: [u8; 32],
    /// Start, seconds since 1970.
    pub not_before: u64,
    /// End, seconds since 1970.
    pub not_after: u64,
    /// The certificate, at most 1 024 bytes.
    pub der: Vec<u8>,
}

impl CertificateFacts {
    /// Takes a certificate with the dates that its DER holds.
    pub fn new(der: Vec<u8>, not_before: u64, not_after: u64) -> Self {
        Self { fingerprint: sha256(&der), not_before, not_after, der }
    }
}

/// Reads the certificate of a peer; lives outside because it needs an X.509 parser.
pub trait CertificateCheck {
    /// Checks the form (exactly one certificate, P-256, self-signed) and gives the dates `(not_before, not_after)`
    /// of the DER in seconds since 1970. Lifetime, fingerprint and size are checked by the handshake.
    ///
    /// # Errors
    /// [`CertificateRejected`] names the rule for the log.
    fn dates(&self, der: &[u8]) -> Result<(u64, u64), CertificateRejected>;
}

/// A certificate that is not of the form of link C.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("certificate: {0}")]
pub struct CertificateRejected(pub &'static str);

/// What the responding node answers about a peer, at once and durably.
pub trait Admission {
    /// Whether this id is let in without an invite.
    fn allowed(&self, peer: &NodeId) -> bool;

    /// The secret of an invite that this node knows, live or not. `None` costs the peer the same time.
    fn invite_secret(&self, invite: &InviteId) -> Option<InviteSecret>;

    /// Takes one use and enrols `peer`, in one durable transaction; success without a second use when the same
    /// invite enrolled this peer before. Called after every other check. Spec: LK-4, LK-100.
    ///
    /// # Errors
    /// [`Refused`] whatever the reason: expired, used up, revoked, lost a race, or the store failed.
    fn enrol(&self, invite: &InviteId, peer: &NodeId) -> Result<(), Refused>;

    /// The number this node expects next in a session that it still has with `peer`; `None`: it has it not.
    fn continues(&self, peer: &NodeId, session_id: &[u8; 16]) -> Option<u64> {
        let _ = (peer, session_id);
        None
    }

    /// The admission token of a relay, kind 3 only.
    fn relay_token(&self) -> Option<InviteSecret> {
        None
    }
}

/// The peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refused")]
pub struct Refused;

/// What one end offers for the session. Spec: link C.4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Capability bits; none is defined yet. They are in HELLO or CHALLENGE and again in ESTABLISHED.
    pub caps: u32,
    /// Idle milliseconds after which this end sends a PING.
    pub ping_ms: u32,
    /// The largest frame payload this end takes; 8 192 to 65 536.
    pub max_payload: u32,
    /// First limit of the session, in bytes.
    pub session_credit: u64,
    /// First limit of each channel, in bytes.
    pub channel_credit: u32,
    /// This end accepts direct paths.
    pub accepts_direct: bool,
    /// This end keeps the relay path in standby.
    pub keeps_relay: bool,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            caps: 0,
            ping_ms: 15_000,
            max_payload: PAYLOAD_BYTES_MAX,
            session_credit: 16 << 20,
            channel_credit: 256 << 10,
            accepts_direct: true,
            keeps_relay: false,
        }
    }
}

/// This node, as it shows itself in handshakes.
#[derive(Clone, Debug)]
pub struct LocalEnd {
    key: Arc<SigningKey>,
    id: NodeId,
    /// The certificate that this node uses on direct paths, listening and dialling.
    pub certificate: CertificateFacts,
    /// The number of that certificate; grows with each rotation.
    pub cert_epoch: u32,
    /// Where this node listens; the first 8 are told.
    pub addresses: Vec<LinkAddress>,
    /// The relays that this node is logged in at; the first 4 are told.
    pub relays: Vec<RelayHint>,
    /// What this node offers.
    pub terms: Terms,
}

impl LocalEnd {
    /// A node without addresses and relays, with the default terms and certificate epoch 1.
    pub fn new(key: Arc<SigningKey>, certificate: CertificateFacts) -> Self {
        let id = NodeId::of(key.public());
        let terms = Terms::default();
        Self { key, id, certificate, cert_epoch: 1, addresses: Vec::new(), relays: Vec::new(), terms }
    }

    /// The id of this node.
    pub const fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn key(&self) -> &SigningKey {
        &self.key
    }
}

/// The certificate that a peer uses on direct paths, proven to be the peer's. Spec: link C.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// SHA-256 of the DER.
    pub fingerprint: [u8; 32],
    /// The number the peer gave it.
    pub epoch: u32,
    /// How long the pin holds, in seconds from receipt on the monotonic clock.
    pub lifetime_seconds: u64,
}

/// The secret that the next path of the session is attached with (`rs_0`). Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct ResumeSecret([u8; 32]);

impl ResumeSecret {
    pub(crate) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ResumeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeSecret(…)")
    }
}

/// An older session that goes on: extension 1. Spec: link C.4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Which session.
    pub session_id: [u8; 16],
    /// The sequence number that the end which says this expects next.
    pub rx_next: u64,
}

/// A finished handshake between two nodes: everything was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Who is at the other end.
    pub peer: NodeId,
    /// The key that the peer proved.
    pub peer_key: PublicKey,
    /// Whether this end is the initiator.
    pub initiator: bool,
    /// What lies under the TLS connection.
    pub kind: PipeKind,
    /// The id of the new session; dropped when `continued` is set.
    pub session_id: [u8; 16],
    /// The session binding, the one channel binding that the layers above use; dropped when `continued` is set.
    pub sb: [u8; 32],
    /// The secret of epoch 0.
    pub resume_secret: ResumeSecret,
    /// What the peer offers.
    pub peer_terms: Terms,
    /// The peer's certificate for direct paths.
    pub pin: Pin,
    /// Where the peer listens, only addresses that may be dialled (link C.10).
    pub addresses: Vec<LinkAddress>,
    /// Where the peer sees this node, a claim.
    pub observed: Option<LinkAddress>,
    /// The relays the peer is logged in at.
    pub relays: Vec<RelayHint>,
    /// The invite that was proved, at both ends.
    pub invite: Option<InviteId>,
    /// The older session that goes on, as the peer stated it; `None`: a new session.
    pub continued: Option<Continuation>,
}

/// What a relay grants a node: extension 2. Spec: link C.4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Circuits at one time.
    pub max_circuits: u16,
    /// First credit of a circuit, in bytes.
    pub credit: u32,
    /// Rate, in bytes per second.
    pub rate_bytes_s: u64,
    /// Burst, in bytes.
    pub burst: u32,
    /// Idle milliseconds before a ping.
    pub ping_ms: u32,
}

/// A finished login at a relay (kind 3): no session, no binding, no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLogin {
    /// Who is at the other end.
    pub peer: NodeId,
    /// Whether this end is the node; false at the relay.
    pub initiator: bool,
    /// The number the relay gave the login.
    pub session_id: [u8; 16],
    /// What the other end offers.
    pub peer_terms: Terms,
    /// What the relay grants; `None` at the relay.
    pub limits: Option<RelayLimits>,
    /// Where the relay sees this node.
    pub observed: Option<LinkAddress>,
    /// Whether the relay's token was proved.
    pub token: bool,
}

/// What to do after a frame was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the next frame is awaited.
    Wait,
    /// Write these whole frames, in order.
    Send(Vec<Vec<u8>>),
    /// Write these whole frames, if any; then the session begins.
    Done {
        /// Frames to write first.
        send: Vec<Vec<u8>>,
        /// The result.
        established: Box<Established>,
    },
    /// Write these whole frames, if any; then relay frames begin.
    LoggedIn {
        /// Frames to write first.
        send: Vec<Vec<u8>>,
        /// The result.
        login: Box<RelayLogin>,
    },
}
