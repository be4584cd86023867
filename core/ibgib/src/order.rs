//! The order key: a timeline is one neighbourhood. Spec: ibgib §12.2.1.

use sealtide_crypto::sha256;

use crate::Address;

/// The order key of a record: from the last segment of its gib, with the top bit set when it is in no timeline.
///
/// All frames of a timeline, the first included, share one key. Never `u64::MAX`.
// Spec: SY-12
pub fn order_key(address: &Address, in_timeline: bool) -> u64 {
    let gib = address.gib();
    let segment = gib.rsplit_once('.').map_or(gib, |(_, last)| last);
    let is_hash = segment.len() == 64 && segment.bytes().all(|byte| byte.is_ascii_hexdigit());
    let first = if is_hash { u64::from_str_radix(&segment[..16], 16).ok() } else { None };
    let first = first.unwrap_or_else(|| {
        let digest = sha256(segment.as_bytes());
        digest[..8].iter().fold(0, |key, byte| key << 8 | u64::from(*byte))
    });
    let key = first >> 1 | if in_timeline { 0 } else { 1 << 63 };
    key.min(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-12
    #[test]
    fn never_the_largest() {
        let address = Address::of("x", &"F".repeat(64)).unwrap();
        assert_eq!(order_key(&address, false), u64::MAX - 1);
        assert_eq!(order_key(&address, true), u64::MAX >> 1);
    }

    #[test]
    fn a_segment_that_is_no_long_hash_is_hashed() {
        let address = Address::of("x", "0123456789abcdef0123456789ABCDEF").unwrap();
        let digest = sha256(b"0123456789abcdef0123456789ABCDEF");
        let expected = u64::from_be_bytes(digest[..8].try_into().unwrap()) >> 1;
        assert_eq!(order_key(&address, true), expected);
    }
}
