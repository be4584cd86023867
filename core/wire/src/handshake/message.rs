//! The layouts of HELLO, CHALLENGE and RESPONSE. Spec: link C.4.2, C.4.3.

use sealtide_crypto::{PUBLIC_KEY_BYTES, PublicKey, SIGNATURE_BYTES, Signature};
use sealtide_identity::{InviteId, ReadError, Reader};

use super::{HandshakeError, PipeKind};
use crate::frame::{Frame, FrameType, HEADER_BYTES, plain_frame};

/// The version of the handshake.
const VERSION: u8 = 1;
/// ML-DSA-87, the only algorithm.
const ALG_ML_DSA_87: u8 = 1;
/// HELLO and CHALLENGE: not bound to the TLS connection.
const FLAG_BIND0: u16 = 2;
/// HELLO and CHALLENGE: the sender would like padding.
const FLAG_PADDING: u16 = 4;
/// RESPONSE: an invite is proved.
const FLAG_INVITE: u16 = 1;
/// RESPONSE: a relay's token is proved.
const FLAG_TOKEN: u16 = 2;
/// Bytes of the tag at the end of RESPONSE.
const TAG_BYTES: usize = 32;
/// Bytes of a signature with its length.
const SIGNATURE_FIELD_BYTES: usize = 2 + SIGNATURE_BYTES;

/// Reads exactly one handshake frame of the awaited type, without flags and channel. Whoever sends ESTABLISHED has proved
/// who it is with the message before; an ERROR in the place of another message is that of a stranger.
pub(super) fn expect_frame(bytes: &[u8], expected: FrameType) -> Result<&[u8], HandshakeError> {
    let malformed = |rule| HandshakeError::Malformed { frame: expected, rule };
    let frame = Frame::whole(bytes, super::HANDSHAKE_PAYLOAD_BYTES_MAX)
        .map_err(|_| malformed("not exactly one whole handshake frame"))?;
    if frame.header.kind == FrameType::Error {
        let notice = crate::frame::Notice::parse(frame.payload).ok_or(malformed("an ERROR frame without a code"))?;
        return Err(match expected {
            FrameType::Established => HandshakeError::Peer(notice),
            _ => HandshakeError::Unproven { code: notice.code },
        });
    }
    if frame.header.kind != expected {
        return Err(HandshakeError::Unexpected { expected, found: frame.header.kind });
    }
    if frame.header.flags != 0 || frame.header.channel != 0 {
        return Err(malformed("flags or channel in the header"));
    }
    Ok(frame.payload)
}

/// First message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) kind: PipeKind,
    pub(super) bind: bool,
    pub(super) nonce: [u8; 32],
    pub(super) to_tag: [u8; 32],
    pub(super) caps: u32,
}

impl Hello {
    pub(super) fn frame(&self) -> Vec<u8> {
        let mut payload = vec![VERSION, self.kind.code()];
        payload.extend_from_slice(&bind_flag(self.bind).to_be_bytes());
        payload.extend_from_slice(&self.nonce);
        payload.extend_from_slice(&self.to_tag);
        payload.extend_from_slice(&self.caps.to_be_bytes());
        plain_frame(FrameType::Hello, &payload)
    }

    /// Reads a frame; `None` for everything that is no HELLO of this version, since no reason is ever told.
    pub(super) fn parse(frame: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(expect_frame(frame, FrameType::Hello).ok()?);
        let version = reader.u8().ok()?;
        let kind = PipeKind::from_code(reader.u8().ok()?)?;
        let bind = read_bind(reader.u16().ok()?)?;
        let hello =
            Self { kind, bind, nonce: reader.array().ok()?, to_tag: reader.array().ok()?, caps: reader.u32().ok()? };
        reader.end().ok()?;
        (version == VERSION).then_some(hello)
    }
}

/// Second message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) bind: bool,
    pub(super) nonce: [u8; 32],
    pub(super) session_id: [u8; 16],
    pub(super) caps: u32,
    pub(super) key: PublicKey,
    pub(super) signature: Vec<u8>,
}

impl Challenge {
    /// Writes the frame; `sign` gets the bytes before the length of the signature.
    pub(super) fn build(
        bind: bool,
        nonce: &[u8; 32],
        session_id: &[u8; 16],
        caps: u32,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Signature,
    ) -> Vec<u8> {
        let mut payload = vec![VERSION, 0];
        payload.extend_from_slice(&bind_flag(bind).to_be_bytes());
        payload.extend_from_slice(nonce);
        payload.extend_from_slice(session_id);
        payload.extend_from_slice(&caps.to_be_bytes());
        write_key(&mut payload, key);
        // The length in the header that is signed is the final one.
        let before = payload.len();
        payload.resize(before + SIGNATURE_FIELD_BYTES, 0);
        let mut frame = plain_frame(FrameType::Challenge, &payload);
        frame.truncate(HEADER_BYTES + before);
        let signature = sign(&frame);
        write_signature(&mut frame, &signature);
        frame
    }

    pub(super) fn parse(frame: &[u8]) -> Result<Self, HandshakeError> {
        let fail = |rule| HandshakeError::Malformed { frame: FrameType::Challenge, rule };
        let read = |error: ReadError| fail(error.rule());
        let mut reader = Reader::new(expect_frame(frame, FrameType::Challenge)?);
        let version = reader.u8().map_err(read)?;
        if version != VERSION {
            return Err(HandshakeError::Version { found: version });
        }
        if reader.u8().map_err(read)? != 0 {
            return Err(fail("status is not 0"));
        }
        let bind = read_bind(reader.u16().map_err(read)?).ok_or(fail("unknown flag"))?;
        let nonce = reader.array().map_err(read)?;
        let session_id = reader.array().map_err(read)?;
        let caps = reader.u32().map_err(read)?;
        let key = read_key(&mut reader).map_err(fail)?;
        let signature = read_signature(&mut reader).map_err(fail)?;
        reader.end().map_err(read)?;
        Ok(Self { bind, nonce, session_id, caps, key, signature })
    }

    /// The part of a parsed frame that its signature covers.
    pub(super) fn signed_part(frame: &[u8]) -> &[u8] {
        &frame[..frame.len() - SIGNATURE_FIELD_BYTES]
    }
}

/// What RESPONSE says it proves besides the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    Key,
    Invite(InviteId),
    RelayToken,
}

/// Third message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) claim: Claim,
    pub(super) key: PublicKey,
    pub(super) signature: Vec<u8>,
    pub(super) tag: [u8; TAG_BYTES],
}

impl Response {
    /// Writes the frame; `sign` gets the payload before the length of the signature, `tag` the payload before the
    /// tag, which is zeros when it gives none.
    pub(super) fn build(
        claim: Claim,
        key: &PublicKey,
        sign: impl FnOnce(&[u8]) -> Signature,
        tag: impl FnOnce(&[u8]) -> Option<[u8; TAG_BYTES]>,
    ) -> Vec<u8> {
        let (flags, invite) = match claim {
            Claim::Key => (0, [0; 16]),
            Claim::Invite(invite) => (FLAG_INVITE, invite),
            Claim::RelayToken => (FLAG_TOKEN, [0; 16]),
        };
        let mut payload = flags.to_be_bytes().to_vec();
        payload.extend_from_slice(&invite);
        write_key(&mut payload, key);
        let signature = sign(&payload);
        write_signature(&mut payload, &signature);
        let tag = tag(&payload).unwrap_or([0; TAG_BYTES]);
        payload.extend_from_slice(&tag);
        plain_frame(FrameType::Response, &payload)
    }

    pub(super) fn parse(frame: &[u8], kind: PipeKind) -> Result<Self, HandshakeError> {
        let fail = |rule| HandshakeError::Malformed { frame: FrameType::Response, rule };
        let read = |error: ReadError| fail(error.rule());
        let mut reader = Reader::new(expect_frame(frame, FrameType::Response)?);
        let flags = reader.u16().map_err(read)?;
        let invite: InviteId = reader.array().map_err(read)?;
        let at_relay = kind == PipeKind::RelayControl;
        let claim = match flags {
            0 => Claim::Key,
            FLAG_INVITE if !at_relay => Claim::Invite(invite),
            FLAG_TOKEN if at_relay => Claim::RelayToken,
            _ => return Err(fail("flags that do not fit")),
        };
        if !matches!(claim, Claim::Invite(_)) && invite != [0; 16] {
            return Err(fail("an invite id without its flag"));
        }
        let key = read_key(&mut reader).map_err(fail)?;
        let signature = read_signature(&mut reader).map_err(fail)?;
        let tag = reader.array().map_err(read)?;
        reader.end().map_err(read)?;
        if claim == Claim::Key && tag != [0; TAG_BYTES] {
            return Err(fail("a tag without its flag"));
        }
        Ok(Self { claim, key, signature, tag })
    }

    /// The part of a parsed frame's payload that its signature covers.
    pub(super) fn signed_part(frame: &[u8]) -> &[u8] {
        &frame[HEADER_BYTES..frame.len() - TAG_BYTES - SIGNATURE_FIELD_BYTES]
    }

    /// The part of a parsed frame's payload that its tag covers.
    pub(super) fn tagged_part(frame: &[u8]) -> &[u8] {
        &frame[HEADER_BYTES..frame.len() - TAG_BYTES]
    }
}

const fn bind_flag(bind: bool) -> u16 {
    if bind { 0 } else { FLAG_BIND0 }
}

/// The bind of a flags field; `None` for an unnamed flag. The wish for padding is read and not acted on.
const fn read_bind(flags: u16) -> Option<bool> {
    if flags & !(FLAG_BIND0 | FLAG_PADDING) != 0 { None } else { Some(flags & FLAG_BIND0 == 0) }
}

fn write_key(out: &mut Vec<u8>, key: &PublicKey) {
    out.push(ALG_ML_DSA_87);
    out.extend_from_slice(&(PUBLIC_KEY_BYTES as u16).to_be_bytes());
    out.extend_from_slice(key.as_bytes());
}

fn write_signature(out: &mut Vec<u8>, signature: &Signature) {
    out.extend_from_slice(&(SIGNATURE_BYTES as u16).to_be_bytes());
    out.extend_from_slice(signature.as_bytes());
}

fn read_key(reader: &mut Reader<'_>) -> Result<PublicKey, &'static str> {
    if reader.u8().map_err(ReadError::rule)? != ALG_ML_DSA_87 {
        return Err("an algorithm other than ML-DSA-87");
    }
    let bytes = reader.var16(PUBLIC_KEY_BYTES).map_err(ReadError::rule)?;
    PublicKey::parse(bytes).map_err(|_| "no ML-DSA-87 public key")
}

fn read_signature(reader: &mut Reader<'_>) -> Result<Vec<u8>, &'static str> {
    let bytes = reader.var16(SIGNATURE_BYTES).map_err(ReadError::rule)?;
    if bytes.len() == SIGNATURE_BYTES { Ok(bytes.to_vec()) } else { Err("a signature of another length") }
}
