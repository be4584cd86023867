//! Two signatures over one content, ML-DSA-87 and Ed25519: made by a pair, checked against the keys that the verifier
//! holds. Spec: gateway §7.3.

use sealtide_crypto::{Ed25519PublicKey, Label, PublicKey};

use super::keys::kid;
use super::{Algorithm, Pair, PublicKeyEntry, RecordSignature};

impl Pair {
    /// Both signatures, ML-DSA-87 first.
    pub fn sign(&self, label: Label, content: &[u8]) -> Vec<RecordSignature> {
        let ml_dsa = self.ml_dsa.sign(label, content);
        let ed25519 = self.ed25519.sign(label, content);
        vec![
            RecordSignature {
                kid: kid(self.ml_dsa.public().as_bytes()),
                algorithm: Algorithm::MlDsa87,
                signature: ml_dsa.as_bytes().to_vec(),
            },
            RecordSignature {
                kid: kid(self.ed25519.public().as_bytes()),
                algorithm: Algorithm::Ed25519,
                signature: ed25519.to_vec(),
            },
        ]
    }
}

/// The public keys of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicPair([NamedKey; 2]);

/// One of the two: which algorithm counts is said here, never by what is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedKey {
    algorithm: Algorithm,
    kid: String,
    public_key: Vec<u8>,
}

/// Why a content is not signed by a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairRefused {
    /// Not exactly one entry for each key, in their order.
    #[error("it must have exactly two signatures, ML-DSA-87 and Ed25519, by keys of one pair")]
    Entries,
    /// A signature does not verify.
    #[error("its {0} signature does not verify")]
    Signature(&'static str),
}

impl PublicPair {
    /// The pair of these keys: ML-DSA-87, then Ed25519. `None` for anything else, and for keys that no library takes.
    pub fn of(ml_dsa: &[u8], ed25519: &[u8]) -> Option<Self> {
        PublicKey::parse(ml_dsa).ok()?;
        Ed25519PublicKey::parse(ed25519).ok()?;
        let key = |algorithm, bytes: &[u8]| NamedKey { algorithm, kid: kid(bytes), public_key: bytes.to_vec() };
        Some(Self([key(Algorithm::MlDsa87, ml_dsa), key(Algorithm::Ed25519, ed25519)]))
    }

    /// The pair of a version among the entries of a ledger record.
    pub fn of_entries(entries: &[&PublicKeyEntry]) -> Option<Self> {
        match entries {
            [first, second] if (first.algorithm, second.algorithm) == (Algorithm::MlDsa87, Algorithm::Ed25519) => {
                Self::of(&first.public_key, &second.public_key)
            }
            _ => None,
        }
    }

    /// Algorithm, name and bytes of each key, ML-DSA-87 first.
    pub fn keys(&self) -> impl Iterator<Item = (Algorithm, &str, &[u8])> {
        self.0.iter().map(|key| (key.algorithm, key.kid.as_str(), key.public_key.as_slice()))
    }

    /// Whether one of its keys has this name.
    pub fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid == kid)
    }

    /// Checks that both keys signed `content`, each once and in order.
    ///
    /// # Errors
    /// [`PairRefused`].
    // Spec: GW-103
    pub fn verify(&self, label: Label, content: &[u8], signatures: &[RecordSignature]) -> Result<(), PairRefused> {
        let names = |entry: &RecordSignature, key: &NamedKey| entry.kid == key.kid && entry.algorithm == key.algorithm;
        if signatures.len() != 2 || !signatures.iter().zip(&self.0).all(|(entry, key)| names(entry, key)) {
            return Err(PairRefused::Entries);
        }
        let [ml_dsa, ed25519] = &self.0;
        let holds = PublicKey::parse(&ml_dsa.public_key)
            .is_ok_and(|key| key.verify(label, content, &signatures[0].signature).is_ok());
        if !holds {
            return Err(PairRefused::Signature(Algorithm::MlDsa87.name()));
        }
        let holds = Ed25519PublicKey::parse(&ed25519.public_key)
            .is_ok_and(|key| key.verify(label, content, &signatures[1].signature).is_ok());
        if holds { Ok(()) } else { Err(PairRefused::Signature(Algorithm::Ed25519.name())) }
    }
}
