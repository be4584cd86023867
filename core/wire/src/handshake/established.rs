//! The layout of ESTABLISHED, and its checks. Spec: link C.4.5.

use sealtide_crypto::PublicKey;
use sealtide_identity::{
    ADDRESS_COUNT_MAX, LinkAddress, RELAY_COUNT_MAX, ReadError, Reader, RelayHint, TicketError, read_address,
    read_addresses, read_relays,
};

use super::certificate::CertificatePart;
use super::message::expect_frame;
use super::signed::{CertificateScope, Side};
use super::{CertificateCheck, Continuation, HandshakeError, LocalEnd, Pin, PinError, RelayLimits, Terms};
use crate::frame::{FrameType, PAYLOAD_BYTES_MAX, plain_frame};

const FLAG_DIRECT: u8 = 1;
const FLAG_KEEPS_RELAY: u8 = 2;
/// Goes on with an older session.
const EXTENSION_CONTINUE: u16 = 1;
/// What a relay grants.
const EXTENSION_RELAY_LIMITS: u16 = 2;
/// Unknown extensions with this bit are an error, the others are passed over.
const EXTENSION_CRITICAL: u16 = 0x8000;
/// The least payload limit that is taken: a CERT_UPDATE must fit.
const PAYLOAD_BYTES_MIN: u32 = 8_192;
/// The range of ping intervals that is taken, in milliseconds.
const PING_MS: std::ops::RangeInclusive<u32> = 1_000..=3_600_000;

/// Last message of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) session_id: [u8; 16],
    pub(super) role: u8,
    pub(super) terms: Terms,
    pub(super) certificate: CertificatePart,
    pub(super) addresses: Vec<LinkAddress>,
    pub(super) observed: Option<LinkAddress>,
    pub(super) relays: Vec<RelayHint>,
    pub(super) continuation: Option<Continuation>,
    pub(super) limits: Option<RelayLimits>,
}

impl Message {
    /// The message that `local` sends between nodes, its certificate signed for `scope`.
    pub(super) fn between_nodes(
        local: &LocalEnd,
        scope: &CertificateScope,
        observed: Option<LinkAddress>,
        continuation: Option<Continuation>,
    ) -> Self {
        let certificate = CertificatePart::signed(local.key(), local.cert_epoch, &local.certificate, scope);
        Self {
            session_id: scope.session_id,
            role: scope.side as u8,
            terms: local.terms,
            certificate,
            addresses: local.addresses.iter().filter(|address| is_writable(address)).copied().collect(),
            observed: observed.filter(is_writable),
            relays: local.relays.iter().filter(|relay| relay.has_valid_url()).cloned().collect(),
            continuation,
            limits: None,
        }
    }

    /// The message of a relay login: no certificate, no addresses, no credit.
    pub(super) fn at_relay(
        local: &LocalEnd,
        session_id: [u8; 16],
        side: Side,
        observed: Option<LinkAddress>,
        limits: Option<RelayLimits>,
    ) -> Self {
        Self {
            session_id,
            role: side as u8,
            terms: Terms { session_credit: 0, channel_credit: 0, ..local.terms },
            certificate: CertificatePart::default(),
            addresses: Vec::new(),
            observed: observed.filter(is_writable),
            relays: Vec::new(),
            continuation: None,
            limits,
        }
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let Terms { caps, ping_ms, max_payload, session_credit, channel_credit, accepts_direct, keeps_relay } =
            self.terms;
        let direct = if accepts_direct { FLAG_DIRECT } else { 0 };
        let relay = if keeps_relay { FLAG_KEEPS_RELAY } else { 0 };
        let mut out = self.session_id.to_vec();
        out.extend_from_slice(&[self.role, direct | relay]);
        out.extend_from_slice(&caps.to_be_bytes());
        out.extend_from_slice(&ping_ms.to_be_bytes());
        out.extend_from_slice(&max_payload.to_be_bytes());
        out.extend_from_slice(&session_credit.to_be_bytes());
        out.extend_from_slice(&channel_credit.to_be_bytes());
        self.certificate.write(&mut out);
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESS_COUNT_MAX)];
        out.push(addresses.len() as u8);
        addresses.iter().for_each(|address| out.extend_from_slice(&address.to_bytes()));
        out.push(u8::from(self.observed.is_some()));
        self.observed.iter().for_each(|address| out.extend_from_slice(&address.to_bytes()));
        let relays = &self.relays[..self.relays.len().min(RELAY_COUNT_MAX)];
        out.push(relays.len() as u8);
        relays.iter().for_each(|relay| relay.write(&mut out));
        let extensions = self.extensions();
        out.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        out.extend_from_slice(&extensions);
        plain_frame(FrameType::Established, &out)
    }

    fn extensions(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut write = |kind: u16, value: &[u8]| {
            out.extend_from_slice(&kind.to_be_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value);
        };
        if let Some(Continuation { session_id, rx_next }) = self.continuation {
            write(EXTENSION_CONTINUE, &[&session_id[..], &rx_next.to_be_bytes()].concat());
        }
        if let Some(RelayLimits { max_circuits, credit, rate_bytes_s, burst, ping_ms }) = self.limits {
            let value = [
                &max_circuits.to_be_bytes()[..],
                &credit.to_be_bytes(),
                &rate_bytes_s.to_be_bytes(),
                &burst.to_be_bytes(),
                &ping_ms.to_be_bytes(),
            ];
            write(EXTENSION_RELAY_LIMITS, &value.concat());
        }
        out
    }

    pub(super) fn parse(frame: &[u8]) -> Result<Self, HandshakeError> {
        let payload = expect_frame(frame, FrameType::Established)?;
        Self::parse_payload(payload).map_err(fail)
    }

    fn parse_payload(payload: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader::new(payload);
        let session_id = reader.array().map_err(ReadError::rule)?;
        let role = reader.u8().map_err(ReadError::rule)?;
        let terms = read_terms(&mut reader)?;
        let certificate = CertificatePart::read(&mut reader).map_err(ReadError::rule)?;
        let addresses = read_addresses(&mut reader).map_err(ticket_rule)?;
        let observed = match reader.u8().map_err(ReadError::rule)? {
            0 => None,
            1 => Some(read_address(&mut reader).map_err(ticket_rule)?),
            _ => return Err("has_observed is neither 0 nor 1"),
        };
        let relays = read_relays(&mut reader).map_err(ticket_rule)?;
        let extensions = reader.var16(usize::from(u16::MAX)).map_err(ReadError::rule)?;
        reader.end().map_err(ReadError::rule)?;
        let (continuation, limits) = read_extensions(extensions)?;
        Ok(Self { session_id, role, terms, certificate, addresses, observed, relays, continuation, limits })
    }

    /// Checks everything that must hold before the certificate is pinned, and pins it. Spec: LK-16.
    pub(super) fn verify(
        &self,
        scope: &CertificateScope,
        key: &PublicKey,
        caps: u32,
        certificates: &dyn CertificateCheck,
    ) -> Result<Pin, HandshakeError> {
        self.check_frame_of(scope.session_id, scope.side, caps)?;
        if self.limits.is_some() {
            return Err(fail("relay limits between nodes"));
        }
        self.certificate.verify(scope, key, certificates).map_err(|error| match error {
            PinError::Certificate(rejected) => rejected.into(),
            _ => HandshakeError::BadProof { frame: FrameType::Established },
        })
    }

    /// Checks the message of a relay login: nothing may be in it that binds or tells where the sender is.
    pub(super) fn verify_at_relay(&self, session_id: [u8; 16], side: Side, caps: u32) -> Result<(), HandshakeError> {
        self.check_frame_of(session_id, side, caps)?;
        let empty = self.certificate == CertificatePart::default()
            && self.terms.session_credit == 0
            && self.terms.channel_credit == 0
            && self.addresses.is_empty()
            && self.relays.is_empty()
            && self.continuation.is_none();
        if !empty {
            return Err(fail("a relay login with a certificate, addresses or credit"));
        }
        if self.limits.is_some() != (side == Side::Responder) {
            return Err(fail("relay limits on the wrong side"));
        }
        Ok(())
    }

    fn check_frame_of(&self, session_id: [u8; 16], side: Side, caps: u32) -> Result<(), HandshakeError> {
        if self.session_id != session_id {
            return Err(fail("another session id"));
        }
        if self.role != side as u8 {
            return Err(fail("the other role"));
        }
        if self.terms.caps != caps {
            return Err(fail("other capabilities than in the signed messages"));
        }
        Ok(())
    }
}

fn read_terms(reader: &mut Reader<'_>) -> Result<Terms, &'static str> {
    let flags = reader.u8().map_err(ReadError::rule)?;
    if flags & !(FLAG_DIRECT | FLAG_KEEPS_RELAY) != 0 {
        return Err("unknown flag");
    }
    let caps = reader.u32().map_err(ReadError::rule)?;
    let ping_ms = reader.u32().map_err(ReadError::rule)?;
    let max_payload = reader.u32().map_err(ReadError::rule)?;
    let session_credit = reader.u64().map_err(ReadError::rule)?;
    let channel_credit = reader.u32().map_err(ReadError::rule)?;
    if !PING_MS.contains(&ping_ms) {
        return Err("a ping interval below 1 s or above 1 h");
    }
    if max_payload < PAYLOAD_BYTES_MIN {
        return Err("a payload limit below 8 192 bytes");
    }
    Ok(Terms {
        caps,
        ping_ms,
        max_payload: max_payload.min(PAYLOAD_BYTES_MAX),
        session_credit,
        channel_credit,
        accepts_direct: flags & FLAG_DIRECT != 0,
        keeps_relay: flags & FLAG_KEEPS_RELAY != 0,
    })
}

fn read_extensions(bytes: &[u8]) -> Result<(Option<Continuation>, Option<RelayLimits>), &'static str> {
    let (mut continuation, mut limits) = (None, None);
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        let kind = reader.u16().map_err(ReadError::rule)?;
        let value = reader.var16(usize::from(u16::MAX)).map_err(ReadError::rule)?;
        let twice = match kind {
            EXTENSION_CONTINUE => continuation.replace(read_continuation(value).map_err(ReadError::rule)?).is_some(),
            EXTENSION_RELAY_LIMITS => limits.replace(read_limits(value).map_err(ReadError::rule)?).is_some(),
            critical if critical & EXTENSION_CRITICAL != 0 => return Err("an unknown critical extension"),
            _ => false,
        };
        if twice {
            return Err("an extension twice");
        }
    }
    Ok((continuation, limits))
}

fn read_continuation(value: &[u8]) -> Result<Continuation, ReadError> {
    let mut reader = Reader::new(value);
    let continuation = Continuation { session_id: reader.array()?, rx_next: reader.u64()? };
    reader.end().map(|()| continuation)
}

fn read_limits(value: &[u8]) -> Result<RelayLimits, ReadError> {
    let mut reader = Reader::new(value);
    let limits = RelayLimits {
        max_circuits: reader.u16()?,
        credit: reader.u32()?,
        rate_bytes_s: reader.u64()?,
        burst: reader.u32()?,
        ping_ms: reader.u32()?,
    };
    reader.end().map(|()| limits)
}

/// Whether a strict reader takes the address.
fn is_writable(address: &LinkAddress) -> bool {
    LinkAddress::from_bytes(&address.to_bytes()).is_some()
}

pub(super) fn ticket_rule(error: TicketError) -> &'static str {
    match error {
        TicketError::Malformed(rule) => rule,
        _ => "no address or relay",
    }
}

const fn fail(rule: &'static str) -> HandshakeError {
    HandshakeError::Malformed { frame: FrameType::Established, rule }
}
