//! Tickets, invites and relay addresses. Spec: link C.3.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{NodeId, Role, SpaceId};

/// Which invite: 16 random bytes.
pub type InviteId = [u8; 16];

/// The secret of an invite, 32 random bytes; wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 32]);

impl InviteSecret {
    /// Takes the bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// An address of a link listener, 20 bytes on the wire: family, source, IPv4-mapped ip, port. Spec: link C.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    /// Where it is known from: 1 interface, 2 relay-observed, 3 port mapping, 4 configured, 5 peer-observed.
    pub source: u8,
    /// The socket address; IPv4 stays IPv4 here.
    pub socket: std::net::SocketAddr,
}

impl LinkAddress {
    /// The 20 bytes.
    pub fn to_bytes(&self) -> [u8; 20] {
        todo!()
    }

    /// Reads the 20 bytes strictly; `None` when malformed.
    pub fn from_bytes(bytes: &[u8; 20]) -> Option<Self> {
        let _ = bytes;
        todo!()
    }
}

/// A relay that a ticket names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayHint {
    /// The relay's node id.
    pub relay: NodeId,
    /// `wss://host[:port][/path]`, ≤ 200 bytes.
    pub url: String,
}

/// What a user copies to the other machine. Text form `stt1…`. Spec: link C.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The issuer.
    pub node: NodeId,
    /// Unix seconds, 0 = never (only without invite). A hint: the issuer decides.
    pub expires: u64,
    /// The invite, if it is more than a pointer.
    pub invite: Option<(InviteId, InviteSecret)>,
    /// Flag 2, a hint.
    pub single_use: bool,
    /// Flag 4.
    pub relay_only: bool,
    /// Flag 8: its relays are reached with bind 0.
    pub relays_bind0: bool,
    /// At most 4.
    pub relays: Vec<RelayHint>,
    /// At most 8.
    pub addresses: Vec<LinkAddress>,
}

impl Ticket {
    /// The text form.
    pub fn encode(&self) -> String {
        todo!()
    }

    /// Reads the text form strictly.
    ///
    /// # Errors
    /// [`TicketError`]; a typing error is told apart from a malformed ticket.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        let _ = text;
        todo!()
    }
}

/// Why a text is no ticket or relay address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// The text form is wrong.
    #[error(transparent)]
    Text(#[from] crate::TextError),
    /// A version this node does not know.
    #[error("made by a newer version (format {0}); update sealtide")]
    Version(u8),
    /// The bytes break the layout.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// What `relay run` prints. Text form `str1…`. Spec: link C.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// The relay.
    pub relay: RelayHint,
    /// Flag 2.
    pub bind0: bool,
    /// Flag 1: the admission token.
    pub token: Option<InviteSecret>,
}

/// An invite, a record at the issuer: only this record decides. Spec: link C.3, C.4.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Which one.
    pub id: InviteId,
    /// Its secret.
    pub secret: InviteSecret,
    /// The space it lets into.
    pub space: SpaceId,
    /// The role it gives.
    pub role: Role,
    /// End, ms since 1970.
    pub expires_ms: u64,
    /// Uses left; 0 = used up (the record stays as long as a node that it enrolled).
    pub uses_left: u32,
    /// Who was enrolled by it.
    pub enrolled: Vec<NodeId>,
}

impl Invite {
    /// Takes one use for `node` and enrols it; the same node again succeeds without a second use, also when used up.
    ///
    /// # Errors
    /// [`InviteRefused`]; on the wire all of them are ERROR 3.
    pub fn enrol(&mut self, node: NodeId, now_ms: u64) -> Result<(), InviteRefused> {
        let _ = (node, now_ms);
        todo!()
    }
}

/// Why an invite lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefused {
    /// Its time is over.
    #[error("the invite has expired")]
    Expired,
    /// No uses left.
    #[error("the invite is used up")]
    UsedUp,
}
