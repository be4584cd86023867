//! One message through deflate and back, bounded while it runs. Spec: gateway §6, RFC 7692 §7.2.
//!
//! No context is carried over, so every message has a state of its own and no idle connection holds any.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a sync flush ends with; senders cut it off.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Bytes of output up to which no ratio is asked for.
const RATIO_FREE_BYTES: usize = 64 * 1024;
/// Bytes by which output grows.
const STEP: usize = 16 * 1024;

/// Why a message did not inflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InflateError {
    /// It would be longer than a message may be, or too many times its size.
    TooLong,
    /// It is no deflate stream.
    Broken,
}

/// Compresses a message; `window_bits` is 9 to 15.
pub(crate) fn deflate(message: &[u8], window_bits: u8) -> Vec<u8> {
    let mut state = Compress::new_with_window_bits(Compression::fast(), false, window_bits);
    let mut out = Vec::with_capacity(message.len() / 2 + 64);
    loop {
        let rest = message.get(state.total_in() as usize..).unwrap_or_default();
        let before = out.len();
        let status = state.compress_vec(rest, &mut out, FlushCompress::Sync);
        let is_done = state.total_in() as usize == message.len() && out.len() < out.capacity();
        if status.is_err() || is_done || (out.len() == before && out.len() < out.capacity()) {
            break;
        }
        out.reserve(STEP);
    }
    if out.ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
    }
    if out.is_empty() {
        // An empty stored block: what an empty message is.
        out.push(0);
    }
    out
}

/// Inflates a message to at most `bytes_max`, and beyond 64 KiB to at most `ratio_max` times its size.
// Spec: GW-39
pub(crate) fn inflate(message: &[u8], bytes_max: usize, ratio_max: usize) -> Result<Vec<u8>, InflateError> {
    let mut state = Decompress::new(false);
    let input = [message, &TAIL].concat();
    let bound = bytes_max.min(RATIO_FREE_BYTES.max(message.len().saturating_mul(ratio_max)));
    let mut out = Vec::new();
    loop {
        if out.len() == out.capacity() {
            // One byte above the bound tells that there is more.
            let more = STEP.min(bound + 1 - out.len());
            out.reserve_exact(more);
        }
        let (taken, made) = (state.total_in(), out.len());
        let rest = &input[taken as usize..];
        let status = state.decompress_vec(rest, &mut out, FlushDecompress::Sync).map_err(|_| InflateError::Broken)?;
        if out.len() > bound {
            return Err(InflateError::TooLong);
        }
        let left = input.len() - state.total_in() as usize;
        match status {
            // A final block may end the stream; only the tail of the flush may follow.
            Status::StreamEnd => return if left <= TAIL.len() + 1 { Ok(out) } else { Err(InflateError::Broken) },
            _ if left == 0 && out.len() < out.capacity() => return Ok(out),
            _ if state.total_in() == taken && out.len() == made && out.len() < out.capacity() => {
                return Err(InflateError::Broken);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        (0..length.div_ceil(32) as u64).flat_map(|at| sealtide_crypto::sha256(&at.to_be_bytes())).take(length).collect()
    }

    #[test]
    fn messages_of_all_sizes_come_back() {
        for length in [0, 1, 2, 255, 256, 4_095, 65_535, 65_536, 300_000] {
            for message in [vec![b'a'; length], noise(length)] {
                for window in [9, 12, 15] {
                    let packed = deflate(&message, window);
                    assert!(!packed.ends_with(&TAIL) || message.len() > 4);
                    assert_eq!(
                        inflate(&packed, 1 << 20, usize::MAX).unwrap(),
                        message,
                        "{length} bytes, window {window}"
                    );
                }
            }
        }
        // The examples of RFC 7692, section 7.2.3.
        assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 100, 200).unwrap(), b"Hello");
        assert_eq!(
            inflate(&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], 100, 200).unwrap(),
            b"Hello"
        );
        assert_eq!(inflate(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], 100, 200).unwrap(), b"Hello");
        assert_eq!(inflate(&[0x00], 100, 200).unwrap(), b"");
    }

    // Proves: GW-39
    #[test]
    fn inflate_bomb() {
        let bomb = deflate(&vec![0; 64 << 20], 15);
        assert!(bomb.len() < 1_000_000, "{} bytes", bomb.len());
        assert_eq!(inflate(&bomb, 65_536, usize::MAX), Err(InflateError::TooLong));
        assert_eq!(inflate(&bomb, 16 << 20, 200), Err(InflateError::TooLong));
        let exact = deflate(&vec![7; 65_536], 15);
        assert_eq!(inflate(&exact, 65_536, 200).unwrap().len(), 65_536, "the limit itself is taken");
        assert_eq!(inflate(&exact, 65_535, 200), Err(InflateError::TooLong));
        let steep = deflate(&vec![7; 200_000], 15);
        let within = |ratio| inflate(&steep, 1 << 20, ratio).map(|out| out.len());
        assert_eq!((within(200), within(50)), (Ok(200_000), Err(InflateError::TooLong)), "{} bytes", steep.len());
    }

    #[test]
    fn what_is_no_deflate_stream_is_refused() {
        assert_eq!(inflate(&[0xff; 40], 65_536, 200), Err(InflateError::Broken));
        assert_eq!(inflate(&[0x07], 65_536, 200), Err(InflateError::Broken));
        let mut trailing = vec![0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        trailing.extend(noise(40));
        assert_eq!(inflate(&trailing, 65_536, 200), Err(InflateError::Broken));
        for seed in 0..2_000u64 {
            let _ = inflate(&noise(seed as usize % 300)[..], 4_096, 200);
        }
    }
}
