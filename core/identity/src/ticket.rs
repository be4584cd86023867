//! Tickets: what a user copies to the other machine. Spec: link C.3.

use std::str::FromStr;

use crate::address::{ADDRESS_COUNT_MAX, LearnedFrom, LinkAddress};
use crate::read::{ReadError, Reader};
use crate::relay::{RELAY_COUNT_MAX, RelayHint};
use crate::text::{decode_text, encode_text};
use crate::{InviteId, InviteSecret, NodeId};

const PREFIX: &str = "stt1";
const VERSION: u8 = 1;
const FLAG_INVITE: u8 = 1;
const FLAG_SINGLE_USE: u8 = 2;
const FLAG_RELAY_ONLY: u8 = 4;
const FLAG_RELAYS_BIND0: u8 = 8;
const FLAG_DEVICE: u8 = 16;

/// What a user copies to the other machine. Text form `stt1…`; with an invite inside it is to be treated like a
/// password. Spec: link C.3.
///
/// ```text
/// version u8 = 1 | flags u8 | node_id 32 | expires u64 | [invite_id 16 | secret 32]
/// | n_relays u8 (0..4) × { relay_id 32 | url var8 } | n_addrs u8 (0..8) × address 20
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The issuer.
    pub node: NodeId,
    /// Unix seconds, 0 = never (only without invite). A hint: the issuer decides.
    pub expires: u64,
    /// The invite, if it is more than a pointer.
    pub invite: Option<(InviteId, InviteSecret)>,
    /// Flag 2, a hint; only with an invite.
    pub single_use: bool,
    /// Flag 4.
    pub relay_only: bool,
    /// Flag 8: its relays are reached with bind 0.
    pub relays_bind0: bool,
    /// Flag 16, a hint; only with an invite: for another device of whoever made it, into every space that the issuer lets it.
    pub device: bool,
    /// At most 4.
    pub relays: Vec<RelayHint>,
    /// At most 8.
    pub addresses: Vec<LinkAddress>,
}

impl Ticket {
    /// The text form. Relays and addresses are hints: what is beyond 4 and 8, and what no reader would take (a relay
    /// with an invalid URL, an address without a known source), is left out. With an invite, `expires` 0 is written
    /// as the last second there is, since 0 is kept for pointers.
    pub fn encode(&self) -> String {
        encode_text(PREFIX, &self.to_bytes())
    }

    fn to_bytes(&self) -> Vec<u8> {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(self.invite.is_some(), FLAG_INVITE)
            | flag(self.invite.is_some() && self.single_use, FLAG_SINGLE_USE)
            | flag(self.relay_only, FLAG_RELAY_ONLY)
            | flag(self.relays_bind0, FLAG_RELAYS_BIND0)
            | flag(self.invite.is_some() && self.device, FLAG_DEVICE);
        let expires = if self.invite.is_some() && self.expires == 0 { u64::MAX } else { self.expires };
        let mut out = vec![VERSION, flags];
        out.extend_from_slice(self.node.as_bytes());
        out.extend_from_slice(&expires.to_be_bytes());
        if let Some((id, secret)) = &self.invite {
            out.extend_from_slice(id);
            out.extend_from_slice(secret.expose());
        }
        let relays: Vec<_> = self.relays.iter().filter(|relay| relay.has_valid_url()).take(RELAY_COUNT_MAX).collect();
        out.push(relays.len() as u8);
        relays.iter().for_each(|relay| relay.write(&mut out));
        let addresses = self.addresses.iter().map(LinkAddress::to_bytes);
        let addresses: Vec<_> =
            addresses.filter(|bytes| LinkAddress::from_bytes(bytes).is_some()).take(ADDRESS_COUNT_MAX).collect();
        out.push(addresses.len() as u8);
        addresses.iter().for_each(|bytes| out.extend_from_slice(bytes));
        out
    }

    /// Reads the text form strictly. `expires` and `single_use` are for show: the issuer decides. Spec: LK-3.
    ///
    /// # Errors
    /// [`TicketError`]; a typing error is told apart from a malformed ticket.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        Self::from_bytes(&decode_text(PREFIX, text)?)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        // Spec: LK-3
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(TicketError::Version(version));
        }
        let flags = reader.u8()?;
        if flags & !(FLAG_INVITE | FLAG_SINGLE_USE | FLAG_RELAY_ONLY | FLAG_RELAYS_BIND0 | FLAG_DEVICE) != 0 {
            return Err(TicketError::Malformed("unknown flag"));
        }
        let has_invite = flags & FLAG_INVITE != 0;
        if !has_invite && flags & FLAG_SINGLE_USE != 0 {
            return Err(TicketError::Malformed("single use without an invite"));
        }
        if !has_invite && flags & FLAG_DEVICE != 0 {
            return Err(TicketError::Malformed("for a device without an invite"));
        }
        let node = NodeId::from_bytes(reader.array()?);
        let expires = reader.u64()?;
        if has_invite && expires == 0 {
            return Err(TicketError::Malformed("an invite without an end"));
        }
        let invite = if has_invite { Some((reader.array()?, InviteSecret::from_bytes(reader.array()?))) } else { None };
        let relays = read_relays(&mut reader)?;
        let addresses = read_addresses(&mut reader)?;
        reader.end()?;
        Ok(Self {
            node,
            expires,
            invite,
            single_use: flags & FLAG_SINGLE_USE != 0,
            relay_only: flags & FLAG_RELAY_ONLY != 0,
            relays_bind0: flags & FLAG_RELAYS_BIND0 != 0,
            device: flags & FLAG_DEVICE != 0,
            relays,
            addresses,
        })
    }

    /// The addresses that may be dialled, loopback included. Spec: link C.10.
    pub fn dialable(&self) -> impl Iterator<Item = &LinkAddress> {
        self.addresses.iter().filter(|address| address.may_be_dialled(LearnedFrom::Ticket))
    }
}

/// Reads `n_relay u8 × { relay_id 32 | url var8 }`, at most 4.
///
/// # Errors
/// [`TicketError::Malformed`].
pub fn read_relays(reader: &mut Reader<'_>) -> Result<Vec<RelayHint>, TicketError> {
    let count = usize::from(reader.u8()?);
    if count > RELAY_COUNT_MAX {
        return Err(TicketError::Malformed("more than 4 relays"));
    }
    (0..count).map(|_| RelayHint::read(reader)).collect()
}

/// Reads `n_addr u8 × address 20`, at most 8.
///
/// # Errors
/// [`TicketError::Malformed`].
pub fn read_addresses(reader: &mut Reader<'_>) -> Result<Vec<LinkAddress>, TicketError> {
    let count = usize::from(reader.u8()?);
    if count > ADDRESS_COUNT_MAX {
        return Err(TicketError::Malformed("more than 8 addresses"));
    }
    (0..count).map(|_| read_address(reader)).collect()
}

/// Reads one address of 20 bytes.
///
/// # Errors
/// [`TicketError::Malformed`].
pub fn read_address(reader: &mut Reader<'_>) -> Result<LinkAddress, TicketError> {
    LinkAddress::from_bytes(&reader.array()?).ok_or(TicketError::Malformed("an address breaks its layout"))
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        Self::decode(text)
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

impl From<ReadError> for TicketError {
    fn from(error: ReadError) -> Self {
        Self::Malformed(error.rule())
    }
}
