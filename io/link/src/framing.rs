//! How link frames lie in the bytes of a path: in WebSocket messages (kinds 2 and 3), or back to back (kinds 1 and
//! 4). Spec: link C.1.

use bytes::{Bytes, BytesMut};
use sealtide_wire::frame::{Header, PAYLOAD_BYTES_MAX};

use crate::websocket::{End, Message, MessageError, MessageReader, MessageWriter};

/// One of the two forms, with the state that it needs.
pub(crate) enum Framing {
    /// Whole frames in binary messages.
    Messages {
        /// Splits what arrives.
        reader: MessageReader,
        /// Puts together what leaves.
        writer: MessageWriter,
    },
    /// Frames back to back, nothing between them.
    Bare,
}

impl Framing {
    /// The form with messages, of one end.
    pub(crate) fn messages(end: End) -> Self {
        Self::Messages { reader: MessageReader::new(end), writer: MessageWriter::new(end) }
    }

    /// The next message, or all whole frames at the begin of `buffer`, which is shortened by them; `None` asks for
    /// more bytes. A broken frame header is handed over too: whoever parses the frames names what is wrong.
    pub(crate) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Message>, MessageError> {
        match self {
            Self::Messages { reader, .. } => reader.next(buffer),
            Self::Bare => {
                let whole = whole_frames(buffer);
                Ok((whole > 0).then(|| Message::Frames(buffer.split_to(whole).freeze())))
            }
        }
    }

    /// Appends whole frames, as one message of at most [`crate::MESSAGE_BYTES_MAX`] where there are messages.
    pub(crate) fn frames(&mut self, frames: Bytes, out: &mut BytesMut) {
        match self {
            Self::Messages { writer, .. } => writer.frames(frames, out),
            Self::Bare => out.extend_from_slice(&frames),
        }
    }

    /// Answers a WebSocket ping.
    pub(crate) fn pong(&mut self, payload: Bytes, out: &mut BytesMut) {
        if let Self::Messages { writer, .. } = self {
            writer.pong(payload, out);
        }
    }

    /// Says that nothing follows, where the end of TLS is not the only sign of it.
    pub(crate) fn close(&mut self, out: &mut BytesMut) {
        if let Self::Messages { writer, .. } = self {
            writer.close(out);
        }
    }
}

/// Bytes of the whole frames at the begin of `buffer`; all of them when a header is broken.
fn whole_frames(buffer: &[u8]) -> usize {
    let mut whole = 0;
    loop {
        match Header::parse(&buffer[whole..], PAYLOAD_BYTES_MAX) {
            Ok(Some(header)) if header.frame_bytes() <= buffer.len() - whole => whole += header.frame_bytes(),
            Ok(_) => return whole,
            Err(_) if whole == 0 => return buffer.len(),
            Err(_) => return whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use sealtide_wire::frame::{ErrorCode, FrameType, Notice};

    use super::*;

    fn next(buffer: &mut BytesMut) -> Option<Bytes> {
        match Framing::Bare.next(buffer).unwrap() {
            Some(Message::Frames(frames)) => Some(frames),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bare_frames_are_given_whole_however_they_arrive() {
        let one = Notice::new(ErrorCode::Refused).frame(FrameType::Error);
        let bytes = [&one[..], &one, &one[..one.len() - 1]].concat();
        for step in 1..bytes.len() {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(frames) = next(&mut buffer) {
                    assert_eq!(frames.len() % one.len(), 0);
                    found.extend_from_slice(&frames);
                }
            }
            assert_eq!(found, [&one[..], &one].concat());
            assert_eq!(buffer, one[..one.len() - 1]);
        }
    }

    #[test]
    fn a_broken_header_is_handed_over_after_the_frames_before_it() {
        let one = Notice::new(ErrorCode::Refused).frame(FrameType::Error);
        let mut buffer = BytesMut::from(&[&one[..], &[0xff; 8]].concat()[..]);
        assert_eq!(next(&mut buffer).unwrap(), one);
        assert_eq!(next(&mut buffer).unwrap(), [0xff; 8][..]);
        assert_eq!(next(&mut buffer), None);
    }
}
