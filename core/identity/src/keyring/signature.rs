//! How signatures are written: one spelling each, checked before any key is asked. Spec: gateway §7.4.

use data_encoding::{BASE64, HEXLOWER};
use sealtide_crypto::{ED25519_SIGNATURE_BYTES, SIGNATURE_BYTES};

/// An algorithm of the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// HMAC with SHA-256: proves to holders of the secret only.
    HmacSha256,
    /// Ed25519: publicly verifiable, classical.
    Ed25519,
    /// ML-DSA-87: publicly verifiable, post-quantum.
    MlDsa87,
}

impl Algorithm {
    /// Its name in answers, ledgers and manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha256 => "HMAC-SHA256",
            Self::Ed25519 => "Ed25519",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// The algorithm of a name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::HmacSha256, Self::Ed25519, Self::MlDsa87].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// An HMAC as text: 64 lower-case hex digits.
pub fn encode_hmac(mac: &[u8; 32]) -> String {
    HEXLOWER.encode(mac)
}

/// Reads an HMAC; upper case is refused.
pub fn decode_hmac(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// A signature as text: standard base64 with padding.
pub fn encode_signature(signature: &[u8]) -> String {
    BASE64.encode(signature)
}

/// Reads a signature of one algorithm: strict base64 of exactly its length.
pub fn decode_signature(algorithm: Algorithm, text: &str) -> Option<Vec<u8>> {
    let length = match algorithm {
        Algorithm::HmacSha256 => return decode_hmac(text).map(Vec::from),
        Algorithm::Ed25519 => ED25519_SIGNATURE_BYTES,
        Algorithm::MlDsa87 => SIGNATURE_BYTES,
    };
    let fits = text.len() == length.div_ceil(3) * 4;
    fits.then(|| BASE64.decode(text.as_bytes()).ok()).flatten().filter(|bytes| bytes.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: GW-44
    #[test]
    fn one_spelling_for_each_signature() {
        let hmac = encode_hmac(&[0xab; 32]);
        assert_eq!(decode_hmac(&hmac), Some([0xab; 32]));
        assert_eq!(decode_hmac(&hmac.to_uppercase()), None);
        assert_eq!(decode_hmac(&hmac[1..]), None);
        for (algorithm, length) in [(Algorithm::Ed25519, 64), (Algorithm::MlDsa87, 4627)] {
            let text = encode_signature(&vec![7; length]);
            assert_eq!(decode_signature(algorithm, &text), Some(vec![7; length]));
            assert_eq!(decode_signature(algorithm, text.trim_end_matches('=')), None);
            assert_eq!(decode_signature(algorithm, &format!("{text}\n")), None);
            assert_eq!(decode_signature(algorithm, &encode_signature(&vec![7; length + 1])), None);
            assert_eq!(decode_signature(algorithm, &encode_signature(&vec![7; length - 1])), None);
            // The last digit before the padding has bits that say nothing: they must be zero.
            let padding = text.bytes().filter(|byte| *byte == b'=').count();
            let mut odd = text.clone().into_bytes();
            let last = odd.len() - padding - 1;
            odd[last] += 1;
            assert!(padding == 0 || decode_signature(algorithm, std::str::from_utf8(&odd).unwrap()).is_none());
        }
        assert_eq!(Algorithm::named("HS256"), None);
    }
}
