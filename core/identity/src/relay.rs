//! Relays: how a ticket names one, and the text that `relay run` prints. Spec: link C.3.

use std::str::FromStr;

use crate::read::Reader;
use crate::text::{decode_text, encode_text};
use crate::{InviteSecret, NodeId, TicketError};

/// The most bytes of a relay's URL.
pub const RELAY_URL_BYTES_MAX: usize = 200;
/// The most relays of one node in a ticket, ESTABLISHED or ADDR_UPDATE.
pub const RELAY_COUNT_MAX: usize = 4;

const PREFIX: &str = "str1";
const VERSION: u8 = 1;
const FLAG_TOKEN: u8 = 1;
const FLAG_BIND0: u8 = 2;

/// A relay that a ticket names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayHint {
    /// The relay's node id.
    pub relay: NodeId,
    /// `wss://host[:port][/path]`, ≤ 200 bytes.
    pub url: String,
}

impl RelayHint {
    /// Whether the URL is `wss://host[:port][/path]` in visible ASCII, at most 200 bytes, without user, query and
    /// fragment.
    pub fn has_valid_url(&self) -> bool {
        is_relay_url(&self.url)
    }

    /// Appends `relay_id 32 | url var8`. The URL must be valid.
    pub fn write(&self, out: &mut Vec<u8>) {
        debug_assert!(self.has_valid_url(), "callers leave out relays with an invalid URL");
        out.extend_from_slice(self.relay.as_bytes());
        out.push(self.url.len() as u8);
        out.extend_from_slice(self.url.as_bytes());
    }

    /// Reads `relay_id 32 | url var8` strictly.
    ///
    /// # Errors
    /// [`TicketError::Malformed`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, TicketError> {
        let relay = NodeId::from_bytes(reader.array()?);
        let url = reader.var8(RELAY_URL_BYTES_MAX)?;
        let url = std::str::from_utf8(url).ok().filter(|url| is_relay_url(url));
        let url = url.ok_or(TicketError::Malformed("the URL of a relay is not wss://host[:port][/path]"))?.to_owned();
        Ok(Self { relay, url })
    }
}

/// What `relay run` prints. Text form `str1…`. With a token the text is a secret. Spec: link C.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// The relay.
    pub relay: RelayHint,
    /// Flag 2.
    pub bind0: bool,
    /// Flag 1: the admission token.
    pub token: Option<InviteSecret>,
}

impl RelayAddress {
    /// The text form. The URL must be valid ([`RelayHint::has_valid_url`]); nobody reads the text otherwise.
    pub fn encode(&self) -> String {
        let token_flag = if self.token.is_some() { FLAG_TOKEN } else { 0 };
        let bind_flag = if self.bind0 { FLAG_BIND0 } else { 0 };
        let mut bytes = vec![VERSION, token_flag | bind_flag];
        self.relay.write(&mut bytes);
        if let Some(token) = &self.token {
            bytes.extend_from_slice(token.expose());
        }
        encode_text(PREFIX, &bytes)
    }

    /// Reads the text form strictly.
    ///
    /// # Errors
    /// [`TicketError`]; a typing error is told apart from a malformed address.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        let bytes = decode_text(PREFIX, text)?;
        let mut reader = Reader::new(&bytes);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(TicketError::Version(version));
        }
        let flags = reader.u8()?;
        if flags & !(FLAG_TOKEN | FLAG_BIND0) != 0 {
            return Err(TicketError::Malformed("unknown flag"));
        }
        let relay = RelayHint::read(&mut reader)?;
        let token = if flags & FLAG_TOKEN == 0 { None } else { Some(InviteSecret::from_bytes(reader.array()?)) };
        reader.end()?;
        Ok(Self { relay, bind0: flags & FLAG_BIND0 != 0, token })
    }
}

impl FromStr for RelayAddress {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        Self::decode(text)
    }
}

fn is_relay_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("wss://") else { return false };
    let visible = rest.bytes().all(|byte| byte.is_ascii_graphic() && !b"@?#\\\"<>`{}|^".contains(&byte));
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    url.len() <= RELAY_URL_BYTES_MAX && visible && is_authority(authority)
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn is_authority(authority: &str) -> bool {
    let (host_is_good, port) = match authority.strip_prefix('[') {
        Some(bracketed) => match bracketed.split_once(']') {
            Some((host, port)) => (host.parse::<std::net::Ipv6Addr>().is_ok(), port),
            None => return false,
        },
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let named = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
            (named && !host.is_empty(), port)
        }
    };
    let port_is_good = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port != 0)
        });
    host_is_good && port_is_good
}
