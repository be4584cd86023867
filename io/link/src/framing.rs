//! How link frames lie in the bytes of a path: in WebSocket messages (kinds 2 and 3), or back to back (kinds 1 and
//! 4). Spec: link C.1.

use bytes::{Bytes, BytesMut};
use sealtide_wire::frame::{Header, PAYLOAD_BYTES_MAX};
use sealtide_wire::session::Transmit;

use crate::outgoing::Outgoing;
use crate::websocket::{End, Mask, Message, MessageError, MessageReader, MessageWriter};

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

    /// As [`Framing::frames`], for frames as the session gives them: `bytes` together, and none of them is left in `frames`.
    /// Where nothing masks, large payloads are not copied.
    pub(crate) fn gathered(&mut self, frames: &mut Vec<Transmit>, bytes: usize, out: &mut Outgoing) {
        let mut mask = self.begin(bytes, out);
        frames.drain(..).for_each(|frame| put(&mut mask, frame.head.as_ref(), frame.payload, out));
    }

    /// Appends one message of `head` and `payload`, of at most [`crate::MESSAGE_BYTES_MAX`] together. Where nothing masks, a
    /// large payload is not copied.
    pub(crate) fn message(&mut self, head: &[u8], payload: Bytes, out: &mut Outgoing) {
        let mut mask = self.begin(head.len() + payload.len(), out);
        put(&mut mask, head, payload, out);
    }

    fn begin(&self, bytes: usize, out: &mut Outgoing) -> Option<Mask> {
        match self {
            Self::Messages { writer, .. } => writer.begin(bytes, out.tail()),
            Self::Bare => None,
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

/// Appends the next bytes of a message.
fn put(mask: &mut Option<Mask>, head: &[u8], payload: Bytes, out: &mut Outgoing) {
    match mask {
        Some(mask) => {
            mask.append(head, out.tail());
            mask.append(&payload, out.tail());
        }
        None => {
            out.tail().extend_from_slice(head);
            out.push(payload);
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
    use std::io::IoSlice;

    use sealtide_crypto::Now;
    use sealtide_wire::frame::{ErrorCode, FrameType, Notice};
    use sealtide_wire::session::{PathId, Session, SessionConfig, SessionLimits, Terms};

    use super::*;
    use crate::outgoing::SLICES;
    use crate::websocket::MESSAGE_BYTES_MAX;

    fn next(buffer: &mut BytesMut) -> Option<Bytes> {
        match Framing::Bare.next(buffer).unwrap() {
            Some(Message::Frames(frames)) => Some(frames),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    fn frames(sizes: &[usize]) -> (Vec<Transmit>, Vec<u8>) {
        let (ours, theirs, limits) = (Terms::default(), Terms::default(), SessionLimits::default());
        let config = SessionConfig { initiator: true, ours, theirs, limits, jitter_seed: 1 };
        let now = Now { mono_ms: 0, wall_ms: 0 };
        let mut session = Session::new(now, config);
        session.attach(now, PathId(1), 0).unwrap();
        let channel = session.open(3, "x").unwrap();
        let (mut all, mut bytes) = (Vec::new(), Vec::new());
        for (at, size) in sizes.iter().enumerate() {
            session.send(channel, vec![at as u8; *size].into()).unwrap();
            while let Some(frame) = session.poll_transmit(now, PathId(1), MESSAGE_BYTES_MAX) {
                bytes.extend_from_slice(frame.head.as_ref());
                bytes.extend_from_slice(&frame.payload);
                all.push(frame);
            }
        }
        (all, bytes)
    }

    /// The same bytes as one message of yawc, whichever end writes them and whether they are copied or not.
    #[test]
    fn gathered_frames_are_one_message() {
        for (ours, theirs) in [(End::Client, End::Server), (End::Server, End::Client)] {
            for sizes in [&[1usize, 3, 30_000, 5, 2_047, 2_048][..], &[0], &[60_000], &[7; 40]] {
                let (mut gathered, expected) = frames(sizes);
                let mut out = Outgoing::default();
                Framing::messages(ours).gathered(&mut gathered, expected.len(), &mut out);
                assert!(gathered.is_empty());
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = out.slices(&mut slices);
                let written: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect();
                assert_eq!(written.len(), out.len());
                let mut received = BytesMut::from(&written[..]);
                let found = Framing::messages(theirs).next(&mut received).unwrap();
                assert_eq!(found, Some(Message::Frames(expected.into())));
                assert!(received.is_empty());
            }
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
