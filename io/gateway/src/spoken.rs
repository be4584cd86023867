//! A message that many sessions hear: its frames are built once, and every session writes the same bytes.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::deflate::deflate;

/// First byte of a whole text message.
const TEXT: u8 = 0x81;
/// Says that the message is compressed.
const RSV1: u8 = 0x40;
/// The window that every client has that did not ask for a smaller one.
pub(crate) const WINDOW_BITS: u8 = 15;

/// A text message for everybody. It is public: nothing secret is said to all.
#[derive(Debug)]
pub(crate) struct Spoken {
    text: String,
    plain: Bytes,
    packed: OnceLock<Option<Bytes>>,
}

impl Spoken {
    pub(crate) fn new(text: String) -> Self {
        let plain = framed(TEXT, text.as_bytes());
        Self { text, plain, packed: OnceLock::new() }
    }

    /// Bytes of the message.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }

    /// The frame as it is.
    pub(crate) fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The frame for clients that take compressed messages; the plain one where that is no longer.
    pub(crate) fn packed(&self) -> &Bytes {
        let pack = || {
            let packed = deflate(self.text.as_bytes(), WINDOW_BITS);
            (packed.len() < self.text.len()).then(|| framed(TEXT | RSV1, &packed))
        };
        self.packed.get_or_init(pack).as_ref().unwrap_or(&self.plain)
    }
}

/// A frame of a server: not masked, its length written as short as it goes. Spec: RFC 6455 §5.2.
fn framed(first: u8, payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    frame.push(first);
    match payload.len() {
        length @ 0..=125 => frame.push(u8::try_from(length).unwrap_or(125)),
        length => match u16::try_from(length) {
            Ok(length) => {
                frame.push(126);
                frame.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        },
    }
    frame.extend_from_slice(payload);
    frame.into()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::frames::{Class, Sender};

    #[test]
    fn what_all_hear_is_what_each_would_have_been_sent() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536, 100_000] {
            for text in ["a".repeat(length), (0..length).map(|at| char::from(b'a' + (at * at % 23) as u8)).collect()] {
                let spoken = Spoken::new(text.clone());
                for deflate in [None, Some(crate::Deflate { server_max_window_bits: None })] {
                    let (mut sender, mut out) = (Sender::new(deflate, 256), BytesMut::new());
                    sender.text(&text, Class::Public, &mut out);
                    assert_eq!(sender.spoken(&spoken)[..], out[..], "{length} bytes, {deflate:?}");
                }
            }
        }
    }
}
