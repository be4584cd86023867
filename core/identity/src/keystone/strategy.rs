//! Hash challenges: from a secret to pool secret, solution and challenge. Spec: ibgib §6.2.

use sealtide_crypto::{ct_eq, sha256_parts, sha512_parts};
use zeroize::Zeroizing;

/// The hash of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algo {
    /// `SHA-256`.
    Sha256,
    /// `SHA-512`.
    Sha512,
}

/// The only type of challenge and solution there is.
pub(crate) const CHALLENGE_TYPE: &str = "hash-reveal-v1";

impl Algo {
    /// Its name in a pool's config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        }
    }

    /// The algorithm of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512].into_iter().find(|algo| algo.name() == name)
    }

    /// Hex digits of one hash.
    pub const fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }

    /// `H` of ibgib §6.2 over the three parts put together: lower-case hex, nothing for nothing.
    fn hash(self, parts: [&str; 3]) -> Zeroizing<String> {
        if parts.iter().all(|part| part.is_empty()) {
            return Zeroizing::default();
        }
        let parts = parts.map(str::as_bytes);
        let hex = &data_encoding::HEXLOWER;
        Zeroizing::new(match self {
            Self::Sha256 => hex.encode(&*Zeroizing::new(sha256_parts(&parts))),
            Self::Sha512 => hex.encode(&*Zeroizing::new(sha512_parts(&parts))),
        })
    }

    /// `rounds` times `H(around ‖ text ‖ around)`.
    fn rounds(self, rounds: u32, start: &str, around: &str) -> Zeroizing<String> {
        let mut text = Zeroizing::new(start.to_owned());
        for _ in 0..rounds {
            text = self.hash([around, &text, around]);
        }
        text
    }
}

/// How the challenges of one pool are derived.
#[derive(Clone, Copy, Debug)]
pub struct Derivation<'a> {
    /// The pool's salt, which is its id.
    pub salt: &'a str,
    /// The hash.
    pub algo: Algo,
    /// How often it is applied at each step.
    pub rounds: u32,
}

impl Derivation<'_> {
    /// The secret of the pool, from the master secret.
    // Spec: SY-17
    pub fn pool_secret(&self, master: &str) -> Zeroizing<String> {
        self.algo.rounds(self.rounds, master, self.salt)
    }

    /// What is revealed for one challenge.
    pub fn solution(&self, pool_secret: &str, challenge_id: &str) -> Zeroizing<String> {
        self.algo.rounds(self.rounds, pool_secret, challenge_id)
    }

    /// What is published for a solution.
    pub fn challenge(&self, solution: &str, challenge_id: &str) -> String {
        std::mem::take(&mut *self.algo.rounds(self.rounds, solution, challenge_id))
    }

    /// Whether a revealed value solves a published challenge.
    // Spec: SY-31
    pub fn solves(&self, solution: &str, challenge_id: &str, hash: &str) -> bool {
        ct_eq(self.challenge(solution, challenge_id).as_bytes(), hash.as_bytes())
    }
}

/// A challenge id as V1 makes it: from the pool's salt, the time in ms and an index. Ours are drawn by chance.
// Spec: SY-17
pub fn v1_challenge_id(salt: &str, ms: &str, index: u64) -> String {
    let hash = sha256_parts(&[salt.as_bytes(), ms.as_bytes(), index.to_string().as_bytes()]);
    data_encoding::HEXLOWER.encode(&hash[..8])
}
