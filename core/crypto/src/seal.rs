//! Secrets at rest: AES-256-GCM-SIV under a key that is random, or made from a passphrase by Argon2id. Spec: ibgib §12.3

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::Entropy;

/// Bytes of the salt of a passphrase.
pub const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

/// What a person types. Wiped when dropped; `Debug` hides it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// Takes over what was typed, without the end of the line.
    pub fn new(text: &str) -> Self {
        Self(text.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Characters of it.
    pub fn len(&self) -> usize {
        self.0.chars().count()
    }

    /// Whether nothing was typed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        crate::ct_eq(self.0.as_bytes(), other.0.as_bytes())
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(secret)")
    }
}

/// What trying one passphrase costs: the parameters of Argon2id (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl PassphraseCost {
    /// 64 MiB, three passes, one lane.
    pub const STANDARD: Self = Self { memory_kib: 64 * 1024, passes: 3, lanes: 1 };

    /// Whether a stored cost is neither a joke nor an attack on this machine.
    pub const fn is_sound(self) -> bool {
        let memory = 19 * 1024 <= self.memory_kib && self.memory_kib <= 512 * 1024;
        memory && 1 <= self.passes && self.passes <= 16 && 1 <= self.lanes && self.lanes <= 4
    }
}

/// Bytes that this key did not seal in this context, or that were changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not sealed with this key, or changed since")]
pub struct NotSealed;

/// A key that seals secrets. Wiped when dropped; `Debug` hides it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealingKey([u8; KEY_BYTES]);

impl SealingKey {
    /// Draws a new key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; KEY_BYTES];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// Makes the key of a passphrase. Takes about 0.2 s and `cost.memory_kib` of memory.
    ///
    /// # Panics
    /// When the cost is not sound.
    pub fn of_passphrase(passphrase: &Passphrase, salt: &[u8; SALT_BYTES], cost: PassphraseCost) -> Self {
        assert!(cost.is_sound(), "the caller looked at the cost");
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_BYTES));
        let params = params.expect("a sound cost is within the bounds of Argon2");
        let mut key = [0; KEY_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.0.as_bytes(), salt, &mut key)
            .expect("salt and key have lengths that Argon2 takes");
        Self(key)
    }

    /// Seals a secret: `nonce 12 ‖ ciphertext ‖ tag 16`. It opens in the same context only.
    pub fn seal(&self, context: &[u8], secret: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        entropy.fill(&mut nonce);
        // Room for everything: a growing vector would leave copies of the secret behind.
        let mut sealed = Vec::with_capacity(NONCE_BYTES + secret.len() + AES_256_GCM_SIV.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(secret);
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut sealed[NONCE_BYTES..],
            )
            .expect("a secret of a few kilobytes can be sealed");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what `seal` made.
    ///
    /// # Errors
    /// [`NotSealed`].
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotSealed> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(NotSealed)?;
        let mut secret = Zeroizing::new(rest.to_vec());
        let opened = self
            .cipher()
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(context), &mut secret)
            .map_err(|_| NotSealed)?
            .len();
        secret.truncate(opened);
        Ok(secret)
    }

    /// Seals this key under another one.
    pub fn wrap(&self, under: &Self, context: &[u8], entropy: &mut dyn Entropy) -> Vec<u8> {
        under.seal(context, &self.0, entropy)
    }

    /// Opens what `wrap` made.
    ///
    /// # Errors
    /// [`NotSealed`]: a wrong passphrase looks like this.
    pub fn unwrap(under: &Self, context: &[u8], wrapped: &[u8]) -> Result<Self, NotSealed> {
        let key = under.open(context, wrapped)?;
        key.as_slice().try_into().map(Self).map_err(|_| NotSealed)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &self.0).expect("the key has the length of the cipher"))
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;

    const CHEAP: PassphraseCost = PassphraseCost { memory_kib: 19 * 1024, passes: 1, lanes: 1 };

    #[test]
    fn what_is_sealed_opens_with_its_key_in_its_context_only() {
        let entropy = &mut SeededEntropy::new(7);
        let (key, other) = (SealingKey::generate(entropy), SealingKey::generate(entropy));
        let sealed = key.seal(b"node.key", b"the secret", entropy);
        assert_eq!(sealed.len(), 12 + 10 + 16);
        assert_eq!(key.open(b"node.key", &sealed).unwrap().as_slice(), b"the secret");
        assert_eq!(other.open(b"node.key", &sealed).err(), Some(NotSealed));
        assert_eq!(key.open(b"identity.key", &sealed).err(), Some(NotSealed));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(b"node.key", &changed).err(), Some(NotSealed), "byte {at}");
            assert_eq!(key.open(b"node.key", &sealed[..at]).err(), Some(NotSealed), "{at} bytes");
        }
        assert_ne!(key.seal(b"node.key", b"the secret", entropy), sealed, "each time with a nonce of its own");
    }

    #[test]
    fn a_passphrase_opens_what_it_wrapped() {
        let entropy = &mut SeededEntropy::new(8);
        let key = SealingKey::generate(entropy);
        let of = |text: &str, salt: u8| SealingKey::of_passphrase(&Passphrase::new(text), &[salt; SALT_BYTES], CHEAP);
        let wrapped = key.wrap(&of("correct horse\n", 1), b"head", entropy);
        let opened = SealingKey::unwrap(&of("correct horse", 1), b"head", &wrapped).unwrap();
        assert_eq!(opened.0, key.0);
        for wrong in [of("correct horsf", 1), of("correct horse", 2), of("", 1)] {
            assert!(SealingKey::unwrap(&wrong, b"head", &wrapped).is_err());
        }
        assert!(SealingKey::unwrap(&of("correct horse", 1), b"tail", &wrapped).is_err());
        let text = format!("{:?} {key:?}", Passphrase::new("correct horse"));
        assert_eq!(text, "Passphrase(secret) SealingKey(secret)");
    }

    /// The third test vector of RFC 9106 §5.3 has a secret and associated data, which are not used here; this one was made
    /// with the reference program: `printf password | argon2 somesaltsomesalt -id -t 3 -k 65536 -p 1 -l 32`.
    #[test]
    fn the_key_of_a_passphrase_is_that_of_argon2id() {
        let key =
            SealingKey::of_passphrase(&Passphrase::new("password"), b"somesaltsomesalt", PassphraseCost::STANDARD);
        assert_eq!(data(&key.0), EXPECTED);
    }

    const EXPECTED: &str = "7664ad4ba1a3c999fcdd0991ffc2270f78302d2383233db5e7befc85d1bb1819";

    fn data(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_stored_cost_has_bounds() {
        assert!(PassphraseCost::STANDARD.is_sound() && CHEAP.is_sound());
        let with = |memory_kib, passes, lanes| PassphraseCost { memory_kib, passes, lanes };
        for cost in [with(8, 3, 1), with(u32::MAX, 3, 1), with(65_536, 0, 1), with(65_536, 99, 1), with(65_536, 3, 64)]
        {
            assert!(!cost.is_sound(), "{cost:?}");
        }
    }
}
