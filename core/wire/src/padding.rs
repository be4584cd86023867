//! How much PADDING follows what leaves in one go, and when it leaves, so that sizes and times tell little. Spec: link C.14.

use crate::frame::{FrameType, HEADER_BYTES, plain_frame};

/// Bytes of one PADDING frame with its header, at most: the smallest `max_payload` that a peer may have. Spec: link C.4.5.
const FRAME_BYTES_MAX: usize = 8_192;
/// Bytes of frames in one cell of a constant rate.
pub const CELL_BYTES: usize = 1_024;
/// Bytes of DATA in one frame at a constant rate: header, number and an ACK fit into the cell with it.
pub const CELL_DATA_BYTES: u32 = 976;
/// The bounds of a constant rate, in bytes per second.
const RATE_MIN: u32 = 4_096;
const RATE_MAX: u32 = 100_000_000;
/// How far the cells that should have left are caught up.
const LAG_NS: u64 = 100_000_000;

/// What is added to what leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// Nothing.
    #[default]
    Off,
    /// Every flush is rounded up to the next Padmé size: at most 12 % more and a frame, and a size of `L` bytes tells
    /// O(log log L) bits.
    Padme,
    /// Cells of [`CELL_BYTES`] leave at this rate, in bytes per second, whether there is anything to say or not.
    Constant(u32),
}

impl Padding {
    /// Reads the word of settings: `off`, `padme`, or `constant:` and a rate of 4,096 to 100,000,000 bytes per second.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "off" => Some(Self::Off),
            "padme" => Some(Self::Padme),
            _ => {
                let rate: u32 = word.strip_prefix("constant:")?.parse().ok()?;
                (RATE_MIN..=RATE_MAX).contains(&rate).then_some(Self::Constant(rate))
            }
        }
    }

    /// Bytes of PADDING frames after `flush` bytes of other frames: none, or at least a header.
    // Spec: LK-66
    pub fn after(self, flush: usize) -> usize {
        if self != Self::Padme || flush == 0 {
            return 0;
        }
        match padme(flush) - flush {
            0 => 0,
            room if room >= HEADER_BYTES => room,
            _ => padme(flush + HEADER_BYTES) - flush,
        }
    }
}

/// When the cells of one path leave.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    cell_ns: u64,
    next_ns: u64,
}

impl Pace {
    /// The cells of a path that begins now, at `rate` bytes per second.
    pub fn new(rate: u32, now_ms: u64) -> Self {
        let cell_ns = CELL_BYTES as u64 * 1_000_000_000 / u64::from(rate.max(1));
        Self { cell_ns, next_ns: now_ms * 1_000_000 }
    }

    /// Whether a cell is to leave. Cells that could not leave in their time follow at once, those of a tenth of a second
    /// at most.
    pub fn is_due(&mut self, now_ms: u64) -> bool {
        let now_ns = now_ms * 1_000_000;
        self.next_ns = self.next_ns.max(now_ns.saturating_sub(LAG_NS));
        now_ns >= self.next_ns
    }

    /// So many cells have left.
    pub fn left(&mut self, cells: usize) {
        self.next_ns += cells as u64 * self.cell_ns;
    }

    /// When the next cell leaves, in ms.
    pub fn next_ms(&self) -> u64 {
        self.next_ns.div_ceil(1_000_000)
    }
}

/// Bytes of PADDING that fill the last cell of `len` bytes of frames: none, or at least a header. What is longer than a
/// cell, a certificate for instance, takes several at once.
// Spec: LK-66
pub fn cell_padding(len: usize) -> usize {
    let room = len.next_multiple_of(CELL_BYTES).max(CELL_BYTES) - len;
    if (1..HEADER_BYTES).contains(&room) { room + CELL_BYTES } else { room }
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
        for (len, size) in
            [(1, 1), (2, 2), (7, 7), (8, 8), (9, 10), (15, 16), (100, 104), (1_000, 1_024), (1_025, 1_088)]
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
        assert_eq!(Padding::Constant(64_000).after(100), 0, "cells are filled, not rounded");
        assert_eq!(Padding::Padme.after(0), 0, "nothing leaves because of padding alone");
    }

    // Proves: LK-66
    #[test]
    fn padding_at_a_constant_rate_keeps_it_within_two_percent() {
        for rate in [4_096, 64_000, 1_000_000, 5_000_000] {
            let mut pace = Pace::new(rate, 7);
            let (mut now_ms, mut bytes, mut seed) = (7, 0u64, 1u64);
            // The task wakes late, by up to 20 ms, and now and then a certificate takes six cells at once.
            while now_ms < 60_007 {
                while pace.is_due(now_ms) {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let cells = if seed >> 57 == 0 { 6 } else { 1 };
                    pace.left(cells);
                    bytes += (cells * CELL_BYTES) as u64;
                }
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                now_ms = pace.next_ms().max(now_ms + 1) + (seed >> 33) % 20;
            }
            let expected = u64::from(rate) * (now_ms - 7) / 1000;
            // What is under way at either end is no part of the rate.
            let slack = expected * 2 / 100 + 6 * CELL_BYTES as u64;
            assert!(bytes.abs_diff(expected) <= slack, "{rate}: {bytes} instead of {expected}");
        }
        // A path that stood still does not burst.
        let mut pace = Pace::new(64_000, 0);
        let mut cells = 0;
        while pace.is_due(60_000) {
            pace.left(1);
            cells += 1;
        }
        assert!(cells <= 8, "{cells}");
    }

    // Proves: LK-66
    #[test]
    fn padding_fills_cells() {
        for len in 0..10_000 {
            let added = cell_padding(len);
            assert!(added == 0 || added >= HEADER_BYTES, "{len}");
            assert!((len + added).is_multiple_of(CELL_BYTES) && len + added > 0, "{len}");
            assert!(added < CELL_BYTES + HEADER_BYTES || len == 0, "{len}: {added}");
        }
    }

    #[test]
    fn padding_words() {
        assert_eq!(Padding::from_word("off"), Some(Padding::Off));
        assert_eq!(Padding::from_word("padme"), Some(Padding::Padme));
        assert_eq!(Padding::from_word("constant:64000"), Some(Padding::Constant(64_000)));
        for bad in ["", "constant", "constant:", "constant:-1", "constant:4095", "constant:100000001", "Padme"] {
            assert_eq!(Padding::from_word(bad), None, "{bad}");
        }
    }
}
