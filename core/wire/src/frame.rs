//! The frame header that every link message has, and the error codes. Spec: link C.9.1, C.12.
//!
//! ```text
//! 0 type u8 | 1 flags u8 | 2 channel u16 | 4 len u32 (payload) | [8 seq u64, only types 10–1F] | payload
//! ```
//!
//! All integers are big-endian. `len` counts the payload alone, neither the header nor the sequence number.

use std::fmt;

/// Bytes of the header of a frame without a sequence number.
pub const HEADER_BYTES: usize = 8;
/// Bytes of the sequence number that follows the header of types 10–1F.
pub const SEQ_BYTES: usize = 8;
/// The payload limit that this node announces, and the most it ever sends whatever the peer announces.
pub const PAYLOAD_BYTES_MAX: u32 = 65_536;
/// The most text an ERROR or ABORT frame carries, in bytes.
pub const NOTICE_TEXT_BYTES_MAX: usize = 120;

/// What a frame is. Spec: link C.9.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FrameType {
    /// First message of the full handshake.
    Hello = 0x01,
    /// Second message: the responder proves itself.
    Challenge = 0x02,
    /// Third message: the initiator proves itself.
    Response = 0x03,
    /// Last message of each side.
    Established = 0x04,
    /// Asks for a PONG with the same 16 bytes.
    Ping = 0x05,
    /// Echo of a PING.
    Pong = 0x06,
    /// Every sequence number below the one inside has arrived.
    Ack = 0x07,
    /// Sequenced frames pause on this path.
    PathEnd = 0x08,
    /// Ignored.
    Padding = 0x09,
    /// The path fails, with a code.
    Error = 0x0E,
    /// The session ends, with a code.
    Abort = 0x0F,
    /// Bytes of a channel.
    Data = 0x10,
    /// An absolute byte limit of a channel or, on channel 0, of the session.
    Credit = 0x11,
    /// A channel ends early.
    Reset = 0x12,
    /// A new certificate of the sender.
    CertUpdate = 0x13,
    /// New addresses of the sender.
    AddrUpdate = 0x14,
    /// Start of a punching attempt.
    Punch = 0x15,
    /// Orderly end of the session.
    Close = 0x16,
    /// Re-handshake: the dialler wants to add a path.
    RehandshakeRequest = 0x30,
    /// Re-handshake: the listener agrees.
    RehandshakeResponse = 0x31,
    /// Re-handshake: the dialler has committed.
    RehandshakeComplete = 0x32,
    /// Re-handshake: the listener does not agree.
    RehandshakeReject = 0x33,
}

impl FrameType {
    /// Every type there is, in the order of the codes.
    pub const ALL: [Self; 22] = [
        Self::Hello,
        Self::Challenge,
        Self::Response,
        Self::Established,
        Self::Ping,
        Self::Pong,
        Self::Ack,
        Self::PathEnd,
        Self::Padding,
        Self::Error,
        Self::Abort,
        Self::Data,
        Self::Credit,
        Self::Reset,
        Self::CertUpdate,
        Self::AddrUpdate,
        Self::Punch,
        Self::Close,
        Self::RehandshakeRequest,
        Self::RehandshakeResponse,
        Self::RehandshakeComplete,
        Self::RehandshakeReject,
    ];

    /// The type of a code; `None` for a code without a meaning.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == code)
    }

    /// The byte on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether frames of this type carry a sequence number and are kept until acknowledged.
    pub const fn is_sequenced(self) -> bool {
        matches!(self as u8, 0x10..=0x1F)
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: FrameType,
    /// Bits whose meaning depends on the type.
    pub flags: u8,
    /// The channel, 0 where the type has none.
    pub channel: u16,
    /// Bytes of the payload.
    pub len: u32,
    /// The sequence number, present exactly for the sequenced types; starts at 1.
    pub seq: Option<u64>,
}

impl Header {
    /// The header of a frame without flags, channel and sequence number.
    pub const fn plain(kind: FrameType, len: u32) -> Self {
        Self { kind, flags: 0, channel: 0, len, seq: None }
    }

    /// Reads the header at the start of `bytes`. `Ok(None)`: more bytes are needed, at most 16 in all.
    ///
    /// A wrong type or length is reported as soon as its bytes are there, so a reader never buffers for it.
    ///
    /// # Errors
    /// [`FrameError`]: the path is to be closed.
    pub fn parse(bytes: &[u8], payload_bytes_max: u32) -> Result<Option<Self>, FrameError> {
        let Some(&code) = bytes.first() else { return Ok(None) };
        let kind = FrameType::from_code(code).ok_or(FrameError::UnknownType(code))?;
        let Some((fixed, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [_, flags, channel_high, channel_low, len @ ..] = *fixed;
        let len = u32::from_be_bytes(len);
        if len > payload_bytes_max {
            return Err(FrameError::TooLong { kind, len, max: payload_bytes_max });
        }
        let seq = if kind.is_sequenced() {
            let Some((seq, _)) = rest.split_first_chunk::<SEQ_BYTES>() else { return Ok(None) };
            let seq = u64::from_be_bytes(*seq);
            if seq == 0 {
                return Err(FrameError::SequenceZero(kind));
            }
            Some(seq)
        } else {
            None
        };
        Ok(Some(Self { kind, flags, channel: u16::from_be_bytes([channel_high, channel_low]), len, seq }))
    }

    /// Bytes of the header with its sequence number: 8 or 16.
    pub const fn bytes(&self) -> usize {
        if self.kind.is_sequenced() { HEADER_BYTES + SEQ_BYTES } else { HEADER_BYTES }
    }

    /// Bytes of the whole frame, payload included.
    pub const fn frame_bytes(&self) -> usize {
        self.bytes() + self.len as usize
    }

    /// Appends the header to `out`. A sequenced type without a number is written with 0, which no reader takes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind.code());
        out.push(self.flags);
        out.extend_from_slice(&self.channel.to_be_bytes());
        out.extend_from_slice(&self.len.to_be_bytes());
        if self.kind.is_sequenced() {
            out.extend_from_slice(&self.seq.unwrap_or(0).to_be_bytes());
        }
    }
}

/// One whole frame, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its payload, `header.len` bytes.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the first whole frame off `bytes`, with the bytes behind it. `Ok(None)`: more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]: the path is to be closed.
    pub fn split(bytes: &'a [u8], payload_bytes_max: u32) -> Result<Option<(Self, &'a [u8])>, FrameError> {
        let Some(header) = Header::parse(bytes, payload_bytes_max)? else { return Ok(None) };
        if bytes.len() < header.frame_bytes() {
            return Ok(None);
        }
        let (frame, rest) = bytes.split_at(header.frame_bytes());
        Ok(Some((Self { header, payload: &frame[header.bytes()..] }, rest)))
    }

    /// Reads bytes that must be exactly one frame.
    ///
    /// # Errors
    /// [`FrameError`], also for missing or surplus bytes.
    pub fn whole(bytes: &'a [u8], payload_bytes_max: u32) -> Result<Self, FrameError> {
        match Self::split(bytes, payload_bytes_max)? {
            Some((frame, [])) => Ok(frame),
            _ => Err(FrameError::NotOneFrame),
        }
    }
}

/// Writes a frame without flags, channel and sequence number: handshake, PING, ACK and their like.
///
/// # Panics
/// When the payload has 2^32 bytes or more; callers bound theirs.
pub fn plain_frame(kind: FrameType, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("payloads are bounded far below 4 GiB");
    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len());
    Header::plain(kind, len).write(&mut out);
    out.extend_from_slice(payload);
    out
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first byte names no type.
    #[error("unknown frame type {0:#04x}")]
    UnknownType(u8),
    /// The payload is longer than announced as acceptable.
    #[error("{kind:?} frame of {len} bytes, at most {max} are taken")]
    TooLong {
        /// The type.
        kind: FrameType,
        /// Its payload length.
        len: u32,
        /// The limit in force.
        max: u32,
    },
    /// Sequence numbers start at 1.
    #[error("{0:?} frame with sequence number 0")]
    SequenceZero(FrameType),
    /// Not exactly one whole frame.
    #[error("not exactly one whole frame")]
    NotOneFrame,
}

/// The codes of ERROR, ABORT, RESET and CLOSE. Spec: link C.12. Code 9 is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum ErrorCode {
    /// The peer speaks another version.
    Version = 1,
    /// Bytes break a layout.
    Malformed = 2,
    /// Not allowed; says nothing more.
    Refused = 3,
    /// A deadline passed.
    Timeout = 4,
    /// Too much to do at the moment.
    Busy = 5,
    /// Too often.
    Rate = 6,
    /// A limit was reached.
    Limit = 7,
    /// Another handshake or login of the same pair goes on.
    Duplicate = 8,
    /// A rule of the protocol was broken.
    Protocol = 10,
    /// A fault of the sender's own.
    Internal = 11,
    /// The sender is shutting down.
    GoingAway = 12,
}

impl ErrorCode {
    /// Every code with a meaning.
    pub const ALL: [Self; 11] = [
        Self::Version,
        Self::Malformed,
        Self::Refused,
        Self::Timeout,
        Self::Busy,
        Self::Rate,
        Self::Limit,
        Self::Duplicate,
        Self::Protocol,
        Self::Internal,
        Self::GoingAway,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The meaning of a number; `None` when this node knows none.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u16 == code)
    }
}

/// What an ERROR or ABORT frame says: a code, known or not, and a short text.
#[derive(Clone, PartialEq, Eq)]
pub struct Notice {
    /// The number, see [`ErrorCode::from_code`].
    pub code: u16,
    /// At most 120 bytes; empty before authentication.
    pub text: String,
}

impl Notice {
    /// A notice without text.
    pub const fn new(code: ErrorCode) -> Self {
        Self { code: code.code(), text: String::new() }
    }

    /// A notice with text, cut at 120 bytes on a character boundary.
    pub fn with_text(code: ErrorCode, text: &str) -> Self {
        Self { code: code.code(), text: text[..text.floor_char_boundary(NOTICE_TEXT_BYTES_MAX)].to_owned() }
    }

    /// The whole frame; `kind` is [`FrameType::Error`] or [`FrameType::Abort`].
    pub fn frame(&self, kind: FrameType) -> Vec<u8> {
        let mut payload = self.code.to_be_bytes().to_vec();
        payload.extend_from_slice(self.text.as_bytes());
        plain_frame(kind, &payload)
    }

    /// Reads the payload; `None` when it is too short, too long, or no UTF-8.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (code, text) = payload.split_first_chunk::<2>()?;
        if text.len() > NOTICE_TEXT_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?.to_owned();
        Some(Self { code: u16::from_be_bytes(*code), text })
    }
}

impl fmt::Display for Notice {
    /// Writes the text escaped: it comes from the peer and may land in a log or on a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ErrorCode::from_code(self.code) {
            Some(known) => write!(f, "{known:?} ({})", self.code)?,
            None => write!(f, "code {}", self.code)?,
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text.escape_debug()) }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Notice({self})")
    }
}
