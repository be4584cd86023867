//! Link frames in WebSocket messages: whole frames, several in one binary message. Spec: link C.1, C.12.
//!
//! yawc's codec reads and writes the frames; the stream types of yawc are not used, because they write one message
//! at a time. Here the pump gathers many messages in one buffer and hands TLS one large slice.
//!
//! What yawc does not do for us is done before it sees a header: it takes any reserved bit that a compression
//! extension could own, fragments, and long Close and Pong frames. A link refuses all of them.

use bytes::{Bytes, BytesMut};
use sealtide_crypto::Entropy as _;
use tokio_util::codec::{Decoder as _, Encoder as _};
use yawc::codec::{Decoder, Encoder};
use yawc::frame::{Frame, OpCode};

use crate::clock::SystemEntropy;

/// Payload bytes of one message. Spec: link C.12.
pub const MESSAGE_BYTES_MAX: usize = 66_000;
/// Payload bytes of a WebSocket control frame (RFC 6455).
const CONTROL_BYTES_MAX: u8 = 125;

/// Which end of the WebSocket this is; it decides who masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The dialler.
    Client,
    /// The listener.
    Server,
}

/// What arrived in one WebSocket frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A binary message: whole link frames.
    Frames(Bytes),
    /// A ping, to be answered with the same bytes.
    Ping(Bytes),
    /// An answer to a ping. Links send none, so it means nothing.
    Pong,
    /// The other end is done.
    Close,
}

/// A WebSocket frame that a link does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum MessageError {
    /// A reserved bit is set; no extension was agreed.
    #[error("a reserved bit is set")]
    ReservedBit,
    /// Fragments and text are not used on links.
    #[error("a fragment, a text message or an unknown kind")]
    Kind,
    /// A client must mask, a server must not.
    #[error("masked by the wrong end")]
    Mask,
    /// A message above 66,000 bytes or a control frame above 125.
    #[error("a message above its limit")]
    TooLong,
    /// Anything else that breaks RFC 6455.
    #[error("broken framing")]
    Framing,
}

/// Splits received bytes into messages.
pub(crate) struct MessageReader {
    decoder: Decoder,
    end: End,
    header_seen: bool,
}

impl MessageReader {
    pub(crate) fn new(end: End) -> Self {
        // yawc refuses a payload that is equal to its limit.
        Self { decoder: Decoder::new(role(end), MESSAGE_BYTES_MAX + 1), end, header_seen: false }
    }

    /// The next whole message in `buffer`, which is shortened by it; `None` asks for more bytes.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, MessageError> {
        if !self.header_seen {
            let &[first, second, ..] = &buffer[..] else { return Ok(None) };
            self.check_header(first, second)?;
            self.header_seen = true;
        }
        let Some(frame) = self.decoder.decode(buffer).map_err(|error| match error {
            yawc::WebSocketError::FrameTooLarge | yawc::WebSocketError::PingFrameTooLarge => MessageError::TooLong,
            _ => MessageError::Framing,
        })?
        else {
            return Ok(None);
        };
        self.header_seen = false;
        Ok(Some(match frame.opcode() {
            OpCode::Binary => Message::Frames(frame.into_payload()),
            OpCode::Ping => Message::Ping(frame.into_payload()),
            OpCode::Pong => Message::Pong,
            OpCode::Close => Message::Close,
            OpCode::Text | OpCode::Continuation => return Err(MessageError::Kind),
        }))
    }

    fn check_header(&self, first: u8, second: u8) -> Result<(), MessageError> {
        const FIN: u8 = 0x80;
        const RESERVED: u8 = 0x70;
        const MASKED: u8 = 0x80;
        if first & RESERVED != 0 {
            return Err(MessageError::ReservedBit);
        }
        if first & FIN == 0 {
            return Err(MessageError::Kind);
        }
        if (second & MASKED != 0) != (self.end == End::Server) {
            return Err(MessageError::Mask);
        }
        match first & 0x0f {
            2 => Ok(()),
            8..=10 if second & 0x7f <= CONTROL_BYTES_MAX => Ok(()),
            8..=10 => Err(MessageError::TooLong),
            _ => Err(MessageError::Kind),
        }
    }
}

/// Puts messages behind each other in one buffer.
pub(crate) struct MessageWriter {
    encoder: Encoder,
    end: End,
}

impl MessageWriter {
    pub(crate) fn new(end: End) -> Self {
        Self { encoder: Encoder::new(role(end)), end }
    }

    /// Appends one binary message. `frames` is at most [`MESSAGE_BYTES_MAX`] long.
    pub(crate) fn frames(&mut self, frames: Bytes, out: &mut BytesMut) {
        debug_assert!(frames.len() <= MESSAGE_BYTES_MAX);
        self.put(Frame::binary(frames), out);
    }

    /// Begins a binary message of `len` bytes, at most [`MESSAGE_BYTES_MAX`], that the caller appends: through the mask
    /// where this end masks, as they are where it does not.
    pub(crate) fn begin(&self, len: usize, out: &mut BytesMut) -> Option<Mask> {
        const BINARY: u8 = 0x82;
        debug_assert!(len <= MESSAGE_BYTES_MAX);
        let mask = (self.end == End::Client).then(Mask::random);
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len @ 0..=125), _) => out.extend_from_slice(&[BINARY, masked | len]),
            (_, Ok(len)) => {
                out.extend_from_slice(&[BINARY, masked | 126]);
                out.extend_from_slice(&len.to_be_bytes());
            }
            _ => {
                out.extend_from_slice(&[BINARY, masked | 127]);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        if let Some(mask) = &mask {
            out.extend_from_slice(&mask.key);
            out.reserve(len);
        }
        mask
    }

    /// Answers a ping.
    pub(crate) fn pong(&mut self, payload: Bytes, out: &mut BytesMut) {
        self.put(Frame::pong(payload), out);
    }

    /// Says that nothing follows.
    pub(crate) fn close(&mut self, out: &mut BytesMut) {
        self.put(Frame::close(yawc::close::CloseCode::Normal, []), out);
    }

    fn put(&mut self, frame: Frame, out: &mut BytesMut) {
        // Only memory could make it fail, and that aborts.
        let _infallible = self.encoder.encode(frame, out);
    }
}

/// The mask of one message, with where in the key its next byte is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mask {
    key: [u8; 4],
    at: usize,
}

impl Mask {
    /// Bytes that are copied before they are masked: few enough to lie in the nearest cache.
    const BLOCK_BYTES: usize = 8 * 1024;

    fn random() -> Self {
        let mut key = [0; 4];
        SystemEntropy.fill(&mut key);
        Self { key, at: 0 }
    }

    /// Appends the next bytes of the message, masked.
    pub(crate) fn append(&mut self, bytes: &[u8], out: &mut BytesMut) {
        for block in bytes.chunks(Self::BLOCK_BYTES) {
            let start = out.len();
            out.extend_from_slice(block);
            self.apply(&mut out[start..]);
        }
    }

    fn apply(&mut self, bytes: &mut [u8]) {
        let mut key = self.key;
        key.rotate_left(self.at);
        self.at = (self.at + bytes.len()) % key.len();
        let word = u64::from(u32::from_ne_bytes(key));
        let word = word << 32 | word;
        let mut words = bytes.chunks_exact_mut(8);
        for chunk in &mut words {
            let plain = u64::from_ne_bytes(chunk.try_into().expect("the chunks have 8 bytes"));
            chunk.copy_from_slice(&(plain ^ word).to_ne_bytes());
        }
        for (byte, key) in words.into_remainder().iter_mut().zip(key.iter().cycle()) {
            *byte ^= key;
        }
    }
}

fn role(end: End) -> yawc::Role {
    match end {
        End::Client => yawc::Role::Client,
        End::Server => yawc::Role::Server,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(end: End, bytes: &[u8], step: usize) -> Result<Vec<Message>, MessageError> {
        let mut reader = MessageReader::new(end);
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for piece in bytes.chunks(step.max(1)) {
            buffer.extend_from_slice(piece);
            while let Some(message) = reader.next(&mut buffer)? {
                found.push(message);
            }
        }
        Ok(found)
    }

    #[test]
    fn largest_message_passes_and_one_byte_more_does_not() {
        for end in [End::Client, End::Server] {
            let other = if end == End::Client { End::Server } else { End::Client };
            let mut out = BytesMut::new();
            MessageWriter::new(other).frames(Bytes::from(vec![7; MESSAGE_BYTES_MAX]), &mut out);
            let found = read_all(end, &out, 4096).unwrap();
            assert_eq!(found, [Message::Frames(Bytes::from(vec![7; MESSAGE_BYTES_MAX]))]);
            let mut long = BytesMut::new();
            MessageWriter::new(other).put(Frame::binary(vec![7; MESSAGE_BYTES_MAX + 1]), &mut long);
            assert_eq!(read_all(end, &long, 4096), Err(MessageError::TooLong));
        }
    }

    #[test]
    fn what_links_do_not_use_is_refused_at_the_header() {
        for (bytes, error) in [
            ([0xc2u8, 0x01], MessageError::ReservedBit),
            ([0xa2, 0x01], MessageError::ReservedBit),
            ([0x02, 0x01], MessageError::Kind),
            ([0x80, 0x01], MessageError::Kind),
            ([0x81, 0x01], MessageError::Kind),
            ([0x83, 0x01], MessageError::Kind),
            ([0x82, 0x81], MessageError::Mask),
            ([0x88, 126], MessageError::TooLong),
            ([0x8a, 127], MessageError::TooLong),
        ] {
            assert_eq!(read_all(End::Client, &bytes, 2), Err(error), "{bytes:02x?}");
        }
        assert_eq!(read_all(End::Server, &[0x82, 0x01, 0], 3), Err(MessageError::Mask));
        assert_eq!(
            read_all(End::Client, &[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255], 3),
            Err(MessageError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(sizes in proptest::collection::vec(0usize..3000, 0..8), step in 1usize..700, masked: bool) {
            let (end, other) = if masked { (End::Server, End::Client) } else { (End::Client, End::Server) };
            let mut writer = MessageWriter::new(other);
            let mut out = BytesMut::new();
            let mut expected = Vec::new();
            for (index, size) in sizes.iter().enumerate() {
                let payload = Bytes::from(vec![index as u8; *size]);
                writer.frames(payload.clone(), &mut out);
                expected.push(Message::Frames(payload));
            }
            writer.pong(Bytes::from_static(b"12345678"), &mut out);
            expected.push(Message::Pong);
            writer.close(&mut out);
            expected.push(Message::Close);
            prop_assert_eq!(read_all(end, &out, step).unwrap(), expected);
        }

        #[test]
        fn masks_go_on_across_pieces(sizes in proptest::collection::vec(0usize..20_000, 0..4), step in 1usize..70_000) {
            let whole: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|at| (at * 31 % 251) as u8).collect();
            prop_assume!(whole.len() <= MESSAGE_BYTES_MAX);
            let (mut out, mut rest) = (BytesMut::new(), &whole[..]);
            let mut mask = MessageWriter::new(End::Client).begin(whole.len(), &mut out).unwrap();
            for size in sizes {
                let (piece, others) = rest.split_at(size);
                mask.append(piece, &mut out);
                rest = others;
            }
            prop_assert_eq!(read_all(End::Server, &out, step).unwrap(), [Message::Frames(whole.into())]);
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
            let _ = read_all(End::Client, &bytes, step);
            let _ = read_all(End::Server, &bytes, step);
        }
    }
}
