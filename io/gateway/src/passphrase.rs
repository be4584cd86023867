//! A passphrase as it is kept: what it cost to try it, and something that only it opens. Spec: gateway §1.4 (b).
//!
//! ```text
//! argon2id:KiB:passes:lanes:salt:sealed        numbers in decimal, the rest in lower-case hex
//! ```

use std::fmt;

use data_encoding::HEXLOWER;
use sealtide_crypto::{Entropy, Passphrase, PassphraseCost, SALT_BYTES, SealingKey};

/// What is sealed is empty: only whether it opens counts.
const CONTEXT: &[u8] = b"sealtide-gw-sign-in";
/// First word of the text.
const KIND: &str = "argon2id";

/// Tells the right passphrase from others, and is no way back to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    cost: PassphraseCost,
    salt: [u8; SALT_BYTES],
    sealed: Vec<u8>,
}

impl Verifier {
    /// Of a passphrase; takes as long as trying it.
    pub fn make(passphrase: &Passphrase, cost: PassphraseCost, entropy: &mut dyn Entropy) -> Self {
        let mut salt = [0; SALT_BYTES];
        entropy.fill(&mut salt);
        let sealed = SealingKey::of_passphrase(passphrase, &salt, cost).seal(CONTEXT, &[], entropy);
        Self { cost, salt, sealed }
    }

    /// Whether this is the passphrase. Takes about 0.2 s and the memory of its cost.
    pub fn admits(&self, passphrase: &Passphrase) -> bool {
        SealingKey::of_passphrase(passphrase, &self.salt, self.cost).open(CONTEXT, &self.sealed).is_ok()
    }

    /// One that no passphrase opens and that takes as long as any other: for names that nobody has.
    pub fn nobody() -> Self {
        Self { cost: PassphraseCost::STANDARD, salt: [0; SALT_BYTES], sealed: vec![0; 28] }
    }

    /// Reads the text; none for any other form, and for a cost that is a joke or an attack.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [KIND, memory, passes, lanes, salt, sealed] = parts.as_slice() else { return None };
        let cost = PassphraseCost {
            memory_kib: memory.parse().ok()?,
            passes: passes.parse().ok()?,
            lanes: lanes.parse().ok()?,
        };
        let salt = HEXLOWER.decode(salt.as_bytes()).ok()?.try_into().ok()?;
        let sealed = HEXLOWER.decode(sealed.as_bytes()).ok().filter(|sealed| sealed.len() == 28)?;
        cost.is_sound().then_some(Self { cost, salt, sealed })
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PassphraseCost { memory_kib, passes, lanes } = self.cost;
        let (salt, sealed) = (HEXLOWER.encode(&self.salt), HEXLOWER.encode(&self.sealed));
        write!(f, "{KIND}:{memory_kib}:{passes}:{lanes}:{salt}:{sealed}")
    }
}

#[cfg(test)]
mod tests {
    use sealtide_crypto::SeededEntropy;

    use super::*;

    #[test]
    fn the_passphrase_is_admitted_and_no_other() {
        let cheap = PassphraseCost { memory_kib: 19 * 1024, passes: 1, lanes: 1 };
        let right = Passphrase::new("four random words here");
        let made = Verifier::make(&right, cheap, &mut SeededEntropy::new(1));
        let text = made.to_string();
        let read = Verifier::parse(&text).unwrap();
        assert_eq!(read, made);
        assert!(read.admits(&right) && !read.admits(&Passphrase::new("four random words")));
        assert!(!text.contains("random"));
        assert!(!Verifier::nobody().admits(&right));
        for bad in
            ["", "argon2id:1:1:1:00:00", &text.replace("19456", "1024"), &text[..text.len() - 2], &text.to_uppercase()]
        {
            assert_eq!(Verifier::parse(bad), None, "{bad}");
        }
    }
}
