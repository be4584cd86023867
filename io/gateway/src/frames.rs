//! Messages out of frames, as RFC 6455 and RFC 7692 have it, with the bounds of gateway §2 and §6.
//!
//! yawc's codec reads and writes frames; its streams are not used: they decide about compression for a connection as a
//! whole, bound neither ratio nor fragments, and do not tell which close code a fault calls for. What the codec does
//! not look at (reserved bits, lengths written too long, fragments out of turn) is looked at before it sees a header.

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder as _, Encoder as _};
use yawc::codec::{Decoder, Encoder};
use yawc::frame::{Frame, OpCode};

use crate::deflate::{InflateError, deflate, inflate};
use crate::extensions::Deflate;
use crate::metrics::Spread;
use crate::spoken::{Spoken, WINDOW_BITS};
use crate::text::TextCheck;

/// Payload bytes of a control frame.
const CONTROL_BYTES_MAX: u8 = 125;

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// Done.
    pub const NORMAL: Self = Self(1000);
    /// The gateway stops.
    pub const AWAY: Self = Self(1001);
    /// A rule of RFC 6455 or 7692 was broken.
    pub const PROTOCOL: Self = Self(1002);
    /// Not the text or the compressed data that it says it is.
    pub const INVALID: Self = Self(1007);
    /// A rule of ours was broken: too often, too many fragments.
    pub const POLICY: Self = Self(1008);
    /// A message is too long.
    pub const TOO_BIG: Self = Self(1009);
    /// The time of the session is over.
    pub const EXPIRED: Self = Self(4401);
    /// The subprotocol is not spoken any more.
    pub const WITHDRAWN: Self = Self(4409);
}

/// Bounds of what a client sends.
#[derive(Clone, Copy, Debug)]
pub struct FrameLimits {
    /// Bytes of a message, before and after inflation; the limit itself is taken.
    pub message_bytes: usize,
    /// Fragments of a message.
    pub fragments: usize,
    /// How many times its size a message may inflate to, beyond 64 KiB.
    pub ratio: usize,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole text message.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// To be answered with the same bytes.
    Ping(Bytes),
    /// The other end is there.
    Pong,
    /// The other end is done; its code, if it gave one.
    Close(Option<CloseCode>),
}

/// Puts frames of a client together.
pub struct Receiver {
    decoder: Decoder,
    limits: FrameLimits,
    deflate: bool,
    header: Option<Header>,
    partial: Option<Partial>,
    /// Of the text in the frame under way.
    text: TextCheck,
    inflate_refused: bool,
}

/// What was read of a frame whose payload has not come whole.
#[derive(Clone, Copy)]
struct Header {
    is_compressed: bool,
    /// Whether the payload is text as it stands.
    is_plain_text: bool,
    mask: [u8; 4],
    /// Bytes of the payload that were looked at while the rest was awaited.
    looked_at: usize,
}

/// A message of which more is to come.
struct Partial {
    is_text: bool,
    is_compressed: bool,
    bytes: Vec<u8>,
    fragments: usize,
    text: TextCheck,
}

impl Receiver {
    /// For a connection on which `deflate` was agreed, or nothing.
    pub fn new(limits: FrameLimits, deflate: bool) -> Self {
        // The codec refuses a payload that is equal to its limit.
        let decoder = Decoder::new(yawc::Role::Server, limits.message_bytes + 1);
        Self {
            decoder,
            limits,
            deflate,
            header: None,
            partial: None,
            text: TextCheck::default(),
            inflate_refused: false,
        }
    }

    /// Whether the last message did not inflate within the bounds.
    pub fn inflate_refused(&self) -> bool {
        self.inflate_refused
    }

    /// The next event in `buffer`, which is shortened by it; `None` asks for more bytes.
    ///
    /// # Errors
    /// The code with which the connection is to be closed.
    // Spec: GW-34, GW-35, GW-40
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, CloseCode> {
        loop {
            if self.header.is_none() {
                self.header = self.check_header(buffer)?;
            }
            let Some(header) = self.header else { return Ok(None) };
            let frame = self.decoder.decode(buffer).map_err(|error| match error {
                yawc::WebSocketError::FrameTooLarge => CloseCode::TOO_BIG,
                _ => CloseCode::PROTOCOL,
            })?;
            let Some(frame) = frame else {
                self.look_ahead(header, buffer)?;
                return Ok(None);
            };
            self.header = None;
            if let Some(event) = self.take(frame, header)? {
                return Ok(Some(event));
            }
        }
    }

    /// Text is refused at its first impossible byte, not at the end of a frame of megabytes.
    fn look_ahead(&mut self, header: Header, payload: &[u8]) -> Result<(), CloseCode> {
        if !header.is_plain_text {
            return Ok(());
        }
        let masked = payload.iter().enumerate().skip(header.looked_at);
        let piece: Vec<u8> = masked.map(|(at, byte)| byte ^ header.mask[at % 4]).collect();
        self.header = Some(Header { looked_at: payload.len(), ..header });
        self.text.piece(&piece).map_err(|_| CloseCode::INVALID)
    }

    /// Looks at a header as far as it has come; `None` asks for more of it.
    fn check_header(&mut self, buffer: &[u8]) -> Result<Option<Header>, CloseCode> {
        let &[first, second, ref rest @ ..] = buffer else { return Ok(None) };
        let (is_final, is_compressed, opcode) = (first & 0x80 != 0, first & 0x40 != 0, first & 0x0f);
        let (is_masked, length) = (second & 0x80 != 0, second & 0x7f);
        let in_turn = match opcode {
            0 => self.partial.is_some(),
            1 | 2 => self.partial.is_none(),
            8..=10 => is_final && length <= CONTROL_BYTES_MAX,
            _ => false,
        };
        let may_be_compressed = self.deflate && matches!(opcode, 1 | 2);
        if !in_turn || !is_masked || first & 0x30 != 0 || is_compressed && !may_be_compressed {
            return Err(CloseCode::PROTOCOL);
        }
        let (length, rest) = match (length, rest) {
            (126, &[high, low, ref rest @ ..]) => (u64::from(u16::from_be_bytes([high, low])), rest),
            (127, &[a, b, c, d, e, f, g, h, ref rest @ ..]) => (u64::from_be_bytes([a, b, c, d, e, f, g, h]), rest),
            (126 | 127, _) => return Ok(None),
            (length, rest) => (u64::from(length), rest),
        };
        let shortest = match second & 0x7f {
            126 => 126,
            127 => 1 << 16,
            _ => 0,
        };
        if length < shortest || length >> 63 == 1 {
            return Err(CloseCode::PROTOCOL);
        }
        if opcode <= 2 {
            self.check_bounds(length)?;
        }
        let &[a, b, c, d, ..] = rest else { return Ok(None) };
        let is_plain_text = match &self.partial {
            Some(partial) => opcode == 0 && partial.is_text && !partial.is_compressed,
            None => opcode == 1 && !is_compressed,
        };
        // A control frame between fragments leaves what is known of the text before it alone.
        self.text = self.partial.as_ref().map_or_else(TextCheck::default, |partial| partial.text);
        Ok(Some(Header { is_compressed, is_plain_text, mask: [a, b, c, d], looked_at: 0 }))
    }

    /// Refuses a frame that would make the message too long, or of too many parts, before its payload comes.
    fn check_bounds(&self, length: u64) -> Result<(), CloseCode> {
        let (bytes, fragments) =
            self.partial.as_ref().map_or((0, 0), |partial| (partial.bytes.len(), partial.fragments));
        if length > (self.limits.message_bytes - bytes) as u64 {
            return Err(CloseCode::TOO_BIG);
        }
        if fragments >= self.limits.fragments { Err(CloseCode::POLICY) } else { Ok(()) }
    }

    fn take(&mut self, frame: Frame, header: Header) -> Result<Option<Event>, CloseCode> {
        let is_final = frame.is_fin();
        let (opcode, payload) = (frame.opcode(), frame.into_payload());
        match opcode {
            OpCode::Ping => return Ok(Some(Event::Ping(payload))),
            OpCode::Pong => return Ok(Some(Event::Pong)),
            OpCode::Close => return read_close(&payload).map(|code| Some(Event::Close(code))),
            OpCode::Text | OpCode::Binary | OpCode::Continuation => {}
        }
        let mut partial = self.partial.take().unwrap_or(Partial {
            is_text: opcode == OpCode::Text,
            is_compressed: header.is_compressed,
            bytes: Vec::new(),
            fragments: 0,
            text: TextCheck::default(),
        });
        partial.fragments += 1;
        if partial.bytes.is_empty() && is_final {
            partial.bytes = payload.into();
            return self.whole(partial).map(Some);
        }
        if header.is_plain_text && !is_final {
            self.text.piece(&payload[header.looked_at..]).map_err(|_| CloseCode::INVALID)?;
        }
        partial.bytes.extend_from_slice(&payload);
        if !is_final {
            partial.text = self.text;
            self.partial = Some(partial);
            return Ok(None);
        }
        self.whole(partial).map(Some)
    }

    fn whole(&mut self, partial: Partial) -> Result<Event, CloseCode> {
        let bytes = if partial.is_compressed {
            let inflated = inflate(&partial.bytes, self.limits.message_bytes, self.limits.ratio);
            self.inflate_refused = inflated.is_err();
            inflated.map_err(|error| match error {
                InflateError::TooLong => CloseCode::TOO_BIG,
                InflateError::Broken => CloseCode::INVALID,
            })?
        } else {
            partial.bytes
        };
        if partial.is_text {
            String::from_utf8(bytes).map(Event::Text).map_err(|_| CloseCode::INVALID)
        } else {
            Ok(Event::Binary(bytes))
        }
    }
}

fn read_close(payload: &[u8]) -> Result<Option<CloseCode>, CloseCode> {
    let &[high, low, ref reason @ ..] = payload else {
        return if payload.is_empty() { Ok(None) } else { Err(CloseCode::PROTOCOL) };
    };
    let code = u16::from_be_bytes([high, low]);
    let is_sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    match (is_sendable, std::str::from_utf8(reason)) {
        (false, _) => Err(CloseCode::PROTOCOL),
        (true, Err(_)) => Err(CloseCode::INVALID),
        (true, Ok(_)) => Ok(Some(CloseCode(code))),
    }
}

/// Whether a message may be compressed: what an attacker can watch shrink must hold no secret. Spec: gateway §6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// Holds, or may hold, something secret: never compressed.
    #[default]
    Secret,
    /// Anybody may read it.
    Public,
    /// Signed, and anybody may read it.
    Signed,
}

/// Writes messages of the server.
pub struct Sender {
    encoder: Encoder,
    deflate: Option<Deflate>,
    bytes_min: usize,
    always: bool,
    /// What is left of messages that were compressed, as a part of them.
    ratios: Option<Spread>,
}

impl Sender {
    /// For a connection on which `deflate` was agreed, or nothing; messages below `bytes_min` go plain.
    pub fn new(deflate: Option<Deflate>, bytes_min: usize) -> Self {
        Self { encoder: Encoder::new(yawc::Role::Server), deflate, bytes_min, always: false, ratios: None }
    }

    /// Counts what compression brings.
    #[must_use]
    pub fn counting(self, ratios: Spread) -> Self {
        Self { ratios: Some(ratios), ..self }
    }

    /// Compresses whatever is sent, of any length: what a conformance suite wants to see.
    pub fn for_echo(deflate: Option<Deflate>) -> Self {
        Self { always: true, ..Self::new(deflate, 0) }
    }

    /// Appends a text message.
    pub fn text(&mut self, text: &str, class: Class, out: &mut BytesMut) {
        self.data(OpCode::Text, text.as_bytes(), class, out);
    }

    /// Appends a binary message.
    pub fn binary(&mut self, bytes: &[u8], class: Class, out: &mut BytesMut) {
        self.data(OpCode::Binary, bytes, class, out);
    }

    /// The frame of a message that many hear; nothing is copied.
    pub(crate) fn spoken(&self, spoken: &Spoken) -> Bytes {
        let window = self.deflate.map(|agreed| agreed.server_max_window_bits.unwrap_or(WINDOW_BITS));
        let packs = window == Some(WINDOW_BITS) && spoken.len() >= self.bytes_min;
        if packs { spoken.packed().clone() } else { spoken.plain().clone() }
    }

    /// Appends a ping.
    pub fn ping(&mut self, out: &mut BytesMut) {
        self.put(Frame::ping(Bytes::new()), out);
    }

    /// Appends the answer to a ping.
    pub fn pong(&mut self, payload: Bytes, out: &mut BytesMut) {
        self.put(Frame::pong(payload), out);
    }

    /// Appends a close frame; without a code an empty one.
    pub fn close(&mut self, code: Option<CloseCode>, out: &mut BytesMut) {
        match code {
            Some(CloseCode(code)) => self.put(Frame::close(yawc::close::CloseCode::from(code), []), out),
            None => out.extend_from_slice(&[0x88, 0]),
        }
    }

    // Spec: GW-38
    fn data(&mut self, opcode: OpCode, bytes: &[u8], class: Class, out: &mut BytesMut) {
        let worth = class != Class::Secret && bytes.len() >= self.bytes_min;
        let packed = self
            .deflate
            .filter(|_| worth)
            .map(|agreed| deflate(bytes, agreed.server_max_window_bits.unwrap_or(WINDOW_BITS)));
        let packed = packed.filter(|packed| self.always || packed.len() < bytes.len());
        if let (Some(packed), Some(ratios)) = (&packed, &self.ratios) {
            ratios.observe(packed.len() as f64 / bytes.len().max(1) as f64);
        }
        let start = out.len();
        let payload = Bytes::copy_from_slice(packed.as_deref().unwrap_or(bytes));
        let frame = if opcode == OpCode::Text { Frame::text(payload) } else { Frame::binary(payload) };
        self.put(frame, out);
        if packed.is_some() {
            // RSV1 says that the message is compressed.
            out[start] |= 0x40;
        }
    }

    fn put(&mut self, frame: Frame, out: &mut BytesMut) {
        // Only memory could make it fail, and that aborts.
        let _infallible = self.encoder.encode(frame, out);
    }
}
