//! The layouts of the four messages. Spec: link C.8.

use sealtide_identity::{ReadError, Reader};

use super::RehandshakeError;
use crate::frame::{Frame, FrameType, HEADER_BYTES, plain_frame};
use crate::handshake::PipeKind;
use crate::session::PathId;

/// Bytes of the payload of REQUEST, the largest of the four.
pub const REQUEST_PAYLOAD_BYTES: u32 = 98;
/// Bytes of the tag that ends the first three.
const TAG_BYTES: usize = 32;

/// First message: the dialler wants to add a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub(super) session_id: [u8; 16],
    pub(super) epoch: u32,
    pub(super) path: PathId,
    pub(super) kind: PipeKind,
    pub(super) nonce: [u8; 32],
    pub(super) rx_next: u64,
    pub(super) tag: [u8; TAG_BYTES],
}

impl Request {
    /// Reads a whole frame.
    ///
    /// # Errors
    /// [`RehandshakeError::Malformed`] or [`RehandshakeError::Unexpected`].
    pub fn read(frame: &[u8]) -> Result<Self, RehandshakeError> {
        let kind = FrameType::RehandshakeRequest;
        let payload = expect_frame(frame, kind)?;
        let malformed = |error: ReadError| RehandshakeError::Malformed { frame: kind, rule: error.rule() };
        let mut reader = Reader::new(payload);
        let session_id = reader.array().map_err(malformed)?;
        let epoch = reader.u32().map_err(malformed)?;
        let path = PathId(reader.u32().map_err(malformed)?);
        let pipe = PipeKind::from_code(reader.u8().map_err(malformed)?)
            .ok_or(RehandshakeError::Malformed { frame: kind, rule: "an unknown kind of path" })?;
        no_flags(reader.u8().map_err(malformed)?, kind)?;
        let nonce = reader.array().map_err(malformed)?;
        let rx_next = reader.u64().map_err(malformed)?;
        let tag = reader.array().map_err(malformed)?;
        reader.end().map_err(malformed)?;
        Ok(Self { session_id, epoch, path, kind: pipe, nonce, rx_next, tag })
    }

    /// The session that the path is for.
    pub fn session_id(&self) -> [u8; 16] {
        self.session_id
    }

    /// The number of the path that it asks for.
    pub fn path(&self) -> PathId {
        self.path
    }

    /// The payload without its tag.
    pub(super) fn untagged(&self) -> Vec<u8> {
        let mut out = self.session_id.to_vec();
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.path.0.to_be_bytes());
        out.extend_from_slice(&[self.kind.code(), 0]);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.rx_next.to_be_bytes());
        out
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        [&self.untagged()[..], &self.tag].concat()
    }
}

/// Second message: the listener agrees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) session_id: [u8; 16],
    pub(super) epoch: u32,
    pub(super) path: PathId,
    pub(super) nonce: [u8; 32],
    pub(super) rx_next: u64,
    pub(super) tag: [u8; TAG_BYTES],
}

impl Response {
    pub(super) fn read(frame: &[u8]) -> Result<Self, RehandshakeError> {
        let kind = FrameType::RehandshakeResponse;
        let payload = expect_frame(frame, kind)?;
        let malformed = |error: ReadError| RehandshakeError::Malformed { frame: kind, rule: error.rule() };
        let mut reader = Reader::new(payload);
        let session_id = reader.array().map_err(malformed)?;
        let epoch = reader.u32().map_err(malformed)?;
        let path = PathId(reader.u32().map_err(malformed)?);
        no_flags(reader.u8().map_err(malformed)?, kind)?;
        no_flags(reader.u8().map_err(malformed)?, kind)?;
        let nonce = reader.array().map_err(malformed)?;
        let rx_next = reader.u64().map_err(malformed)?;
        let tag = reader.array().map_err(malformed)?;
        reader.end().map_err(malformed)?;
        Ok(Self { session_id, epoch, path, nonce, rx_next, tag })
    }

    pub(super) fn untagged(&self) -> Vec<u8> {
        let mut out = self.session_id.to_vec();
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.path.0.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&self.nonce);
        out.extend_from_slice(&self.rx_next.to_be_bytes());
        out
    }

    pub(super) fn payload(&self) -> Vec<u8> {
        [&self.untagged()[..], &self.tag].concat()
    }
}

/// Third message: the dialler has committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complete {
    pub(super) session_id: [u8; 16],
    pub(super) path: PathId,
    /// The dialler's role in the session: 1 initiator, 2 responder.
    pub(super) role: u8,
    pub(super) tx_from: u64,
    pub(super) tag: [u8; TAG_BYTES],
}

impl Complete {
    pub(super) fn read(frame: &[u8]) -> Result<Self, RehandshakeError> {
        let kind = FrameType::RehandshakeComplete;
        let payload = expect_frame(frame, kind)?;
        let malformed = |error: ReadError| RehandshakeError::Malformed { frame: kind, rule: error.rule() };
        let mut reader = Reader::new(payload);
        let session_id = reader.array().map_err(malformed)?;
        let path = PathId(reader.u32().map_err(malformed)?);
        let role = reader.u8().map_err(malformed)?;
        let tx_from = reader.u64().map_err(malformed)?;
        let tag = reader.array().map_err(malformed)?;
        reader.end().map_err(malformed)?;
        Ok(Self { session_id, path, role, tx_from, tag })
    }

    pub(super) fn untagged(&self) -> Vec<u8> {
        let mut out = self.session_id.to_vec();
        out.extend_from_slice(&self.path.0.to_be_bytes());
        out.push(self.role);
        out.extend_from_slice(&self.tx_from.to_be_bytes());
        out
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        plain_frame(FrameType::RehandshakeComplete, &[&self.untagged()[..], &self.tag].concat())
    }
}

/// The listener does not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reject {
    pub(super) code: u16,
    pub(super) retry_ms: u32,
}

impl Reject {
    pub(super) fn read(frame: &[u8]) -> Result<Self, RehandshakeError> {
        let kind = FrameType::RehandshakeReject;
        let payload = expect_frame(frame, kind)?;
        let malformed = |error: ReadError| RehandshakeError::Malformed { frame: kind, rule: error.rule() };
        let mut reader = Reader::new(payload);
        let reject = Self { code: reader.u16().map_err(malformed)?, retry_ms: reader.u32().map_err(malformed)? };
        reader.end().map_err(malformed)?;
        Ok(reject)
    }

    pub(super) fn frame(&self) -> Vec<u8> {
        let payload = [&self.code.to_be_bytes()[..], &self.retry_ms.to_be_bytes()].concat();
        plain_frame(FrameType::RehandshakeReject, &payload)
    }
}

/// Reads exactly one frame of the awaited type, without flags and channel.
pub(super) fn expect_frame(bytes: &[u8], expected: FrameType) -> Result<&[u8], RehandshakeError> {
    let malformed = |rule| RehandshakeError::Malformed { frame: expected, rule };
    let frame = Frame::whole(bytes, REQUEST_PAYLOAD_BYTES + HEADER_BYTES as u32)
        .map_err(|_| malformed("not exactly one whole re-handshake frame"))?;
    if frame.header.kind != expected {
        return Err(RehandshakeError::Unexpected { expected, found: frame.header.kind });
    }
    if frame.header.flags != 0 || frame.header.channel != 0 {
        return Err(malformed("flags or channel in the header"));
    }
    Ok(frame.payload)
}

fn no_flags(found: u8, frame: FrameType) -> Result<(), RehandshakeError> {
    if found == 0 { Ok(()) } else { Err(RehandshakeError::Malformed { frame, rule: "a flag or status" }) }
}
