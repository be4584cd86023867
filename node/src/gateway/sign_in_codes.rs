//! One-time codes with which a browser signs in as an admin: drawn for whoever may use the commands of this home.
//!
//! Memory only: a restart voids them. The table knows their SHA-256.

use std::collections::VecDeque;

use data_encoding::BASE64URL_NOPAD;
use sealtide_crypto::{Entropy, ct_eq, sha256};
use zeroize::Zeroizing;

/// Life of a code in milliseconds.
pub(crate) const CODE_MS: u64 = 300_000;
/// Codes that wait, at most; the oldest goes for a new one.
const CODES_MAX: usize = 16;

/// Codes that wait to be used.
#[derive(Default)]
pub(crate) struct SignInCodes(VecDeque<([u8; 32], u64)>);

impl SignInCodes {
    /// Draws a code.
    pub(crate) fn draw(&mut self, mono_ms: u64, entropy: &mut dyn Entropy) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut_slice());
        let code = Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice()));
        if self.0.len() >= CODES_MAX {
            self.0.pop_front();
        }
        self.0.push_back((sha256(code.as_bytes()), mono_ms + CODE_MS));
        code
    }

    /// Takes a code: true once for each, within its life.
    pub(crate) fn take(&mut self, code: &str, mono_ms: u64) -> bool {
        self.0.retain(|(_, ends)| mono_ms < *ends);
        let digest = sha256(code.as_bytes());
        let found = self.0.iter().position(|(own, _)| ct_eq(own, &digest));
        found.and_then(|at| self.0.remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use sealtide_crypto::SeededEntropy;

    use super::*;

    #[test]
    fn a_code_is_good_once_and_for_five_minutes() {
        let (mut codes, mut entropy) = (SignInCodes::default(), SeededEntropy::new(1));
        let first = codes.draw(0, &mut entropy);
        let second = codes.draw(10, &mut entropy);
        assert!(!codes.take("", 20) && !codes.take(&first.to_uppercase(), 20));
        assert!(codes.take(&first, 20) && !codes.take(&first, 20));
        assert!(!codes.take(&second, 10 + CODE_MS), "its time is over");
        let oldest = codes.draw(0, &mut entropy);
        for _ in 0..CODES_MAX {
            codes.draw(0, &mut entropy);
        }
        assert!(!codes.take(&oldest, 1), "bounded");
    }
}
