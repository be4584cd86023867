//! Chance, for whoever makes records and keys.

use sealtide_crypto::Entropy;

/// Random bytes of the operating system: what a running program hands to whatever takes an [`Entropy`].
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random bytes once it is up");
    }
}
