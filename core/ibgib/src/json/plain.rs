//! Bytes that stand in a JSON string as they are, eight at a time.

const ONES: u64 = u64::from_le_bytes([1; 8]);
const TOPS: u64 = u64::from_le_bytes([0x80; 8]);

/// How many bytes at the front are neither `"` nor `\` nor below 0x20: what a JSON string holds without an escape.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (position, word) in words.iter().enumerate() {
        let found = special(u64::from_le_bytes(*word));
        if found != 0 {
            return position * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let all = bytes.len() - rest.len();
    all + rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F)).unwrap_or(rest.len())
}

/// The top bit of the first byte that is special, and perhaps of some behind it; 0 when none is.
fn special(word: u64) -> u64 {
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero(word ^ (ONES * u64::from(b'"')));
    let backslash = zero(word ^ (ONES * u64::from(b'\\')));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & TOPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_length_is_that_of_a_byte_by_byte_look() {
        let slow =
            |bytes: &[u8]| bytes.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F)).unwrap_or(bytes.len());
        for length in 0..40 {
            for at in 0..length {
                for byte in 0..=255 {
                    for other in [b'a', 0x20, 0x21, 0x23, 0x5B, 0x5D, 0x7F, 0x80, 0xA2, 0xDC, 0xFF] {
                        let mut bytes = vec![other; length];
                        bytes[at] = byte;
                        assert_eq!(plain_length(&bytes), slow(&bytes), "{byte} at {at} of {length} times {other}");
                    }
                }
            }
        }
    }
}
