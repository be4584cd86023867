//! UTF-8 that arrives in pieces: what can never become text is refused before the rest of it comes. Spec: RFC 6455 §8.1.

/// Looks at the bytes of one text message as they come; a character may be cut between two pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextCheck {
    /// The begin of a character whose end has not come.
    begun: [u8; 4],
    length: usize,
}

/// No continuation makes text of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotText;

impl TextCheck {
    /// Takes the next piece.
    pub(crate) fn piece(&mut self, mut bytes: &[u8]) -> Result<(), NotText> {
        while self.length > 0 {
            let Some((&byte, rest)) = bytes.split_first() else { return Ok(()) };
            (self.begun[self.length], bytes) = (byte, rest);
            self.length += 1;
            match std::str::from_utf8(&self.begun[..self.length]) {
                Ok(_) => self.length = 0,
                // Four bytes are a character or an error, so that there is always room for one more.
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(NotText),
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let begun = &bytes[error.valid_up_to()..];
                self.begun[..begun.len()].copy_from_slice(begun);
                self.length = begun.len();
                Ok(())
            }
            Err(_) => Err(NotText),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether pieces of `step` bytes are refused, and after how many bytes.
    fn refused_after(bytes: &[u8], step: usize) -> Option<usize> {
        let mut check = TextCheck::default();
        bytes.chunks(step).enumerate().find(|(_, piece)| check.piece(piece).is_err()).map(|(at, _)| (at + 1) * step)
    }

    #[test]
    fn a_byte_that_cannot_be_is_refused_when_it_comes() {
        let good = "κόσμε\u{10ffff}".as_bytes();
        assert!((1..20).all(|step| refused_after(good, step).is_none()));
        for (bad, at) in [
            (&[b'a', 0xff][..], 2),
            (&[0xc0, 0x80], 1),
            (&[0xed, 0xa0, 0x80], 2),
            (&[0xf4, 0x90, 0x80, 0x80], 2),
            (&[0xce, b'a'], 2),
            (&[0xf0, 0x9f, 0x98, b'a'], 4),
        ] {
            assert_eq!(refused_after(bad, 1), Some(at), "{bad:?}");
        }
    }

    proptest! {
        /// Pieces are refused exactly when some prefix can be no text.
        #[test]
        fn pieces_and_whole_agree(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..0xf5, Just(b'a')], 0..40), step in 1usize..9) {
            let hopeless = std::str::from_utf8(&bytes).is_err_and(|error| error.error_len().is_some());
            prop_assert_eq!(refused_after(&bytes, step).is_some(), hopeless);
        }
    }
}
