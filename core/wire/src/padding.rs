//! How much PADDING follows what leaves in one go, so that its size tells little. Spec: link C.14.

use crate::frame::{FrameType, HEADER_BYTES, plain_frame};

/// Bytes of one PADDING frame with its header, at most: the smallest `max_payload` that a peer may have. Spec: link C.4.5.
const FRAME_BYTES_MAX: usize = 8_192;

/// What is added to what leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Nothing.
    #[default]
    Off,
    /// Every flush is rounded up to the next Padmé size: at most 12 % more and a frame, and a size of `L` bytes tells
    /// O(log log L) bits.
    Padme,
}

impl Padding {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Off, Self::Padme];

    /// The word of settings.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Padme => "padme",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|padding| padding.word() == word)
    }

    /// Bytes of PADDING frames after `flush` bytes of other frames: none, or at least a header.
    // Spec: LK-66
    pub fn after(self, flush: usize) -> usize {
        if self == Self::Off || flush == 0 {
            return 0;
        }
        match padme(flush) - flush {
            0 => 0,
            room if room >= HEADER_BYTES => room,
            _ => padme(flush + HEADER_BYTES) - flush,
        }
    }
}

/// The smallest Padmé size that holds `len` bytes: of a number with `e + 1` binary digits all but the first `⌊log₂ e⌋ + 2`
/// digits are zero.
pub fn padme(len: usize) -> usize {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.checked_ilog2().map_or(0, |log| log + 1);
    let mask = (1usize << exponent.saturating_sub(kept)) - 1;
    len.saturating_add(mask) & !mask
}

/// PADDING frames of `bytes` bytes together, one after the other, each as a whole; `bytes` is 0 or at least a header.
pub fn padding_frames(mut bytes: usize) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        if bytes < HEADER_BYTES {
            return None;
        }
        let mut len = bytes.min(FRAME_BYTES_MAX);
        // What is left must hold a frame, or be nothing.
        if (1..HEADER_BYTES).contains(&(bytes - len)) {
            len -= HEADER_BYTES;
        }
        bytes -= len;
        Some(plain_frame(FrameType::Padding, &vec![0; len - HEADER_BYTES]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Header;

    // Proves: LK-66
    #[test]
    fn padding_sizes_are_those_of_padme() {
        // As published: the exponent of 9 is 3, of which 2 bits are kept.
        for (len, size) in [(1, 1), (2, 2), (7, 7), (8, 8), (9, 10), (15, 16), (100, 104), (1_000, 1_024), (1_025, 1_088)]
        {
            assert_eq!(padme(len), size, "{len}");
        }
        let mut sizes = std::collections::BTreeSet::new();
        for len in 1..200_000 {
            let size = padme(len);
            assert!(size >= len && padme(size) == size, "{len}");
            assert!((size - len) * 100 <= len * 12, "{len}: {size}");
            sizes.insert(size);
        }
        // O(log log) bits: some hundred sizes for two hundred thousand lengths.
        assert!(sizes.len() < 400, "{}", sizes.len());
    }

    // Proves: LK-66
    #[test]
    fn padding_of_a_flush_fits_frames_and_costs_little() {
        for flush in 1..100_000 {
            let added = Padding::Padme.after(flush);
            assert_eq!(padme(flush + added), flush + added, "{flush}");
            assert!(added == 0 || added >= HEADER_BYTES, "{flush}: {added}");
            assert!(added * 100 <= (flush + HEADER_BYTES) * 12 + HEADER_BYTES * 100, "{flush}: {added}");
            let frames: Vec<_> = padding_frames(added).collect();
            assert_eq!(frames.iter().map(Vec::len).sum::<usize>(), added, "{flush}");
            for frame in frames {
                let header = Header::parse(&frame, 8_192).unwrap().unwrap();
                assert_eq!((header.kind, header.frame_bytes()), (FrameType::Padding, frame.len()));
            }
        }
        assert_eq!(Padding::Off.after(100), 0);
        assert_eq!(Padding::Padme.after(0), 0, "nothing leaves because of padding alone");
    }
}
