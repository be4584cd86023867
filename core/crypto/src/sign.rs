//! ML-DSA-87 (FIPS 204), always over the 112-byte message of [`crate::signed_message`], always with the empty context.

use std::fmt;

use aws_lc_rs::signature::{KeyPair, ML_DSA_87, ML_DSA_87_SIGNING, ParsedPublicKey, PqdsaKeyPair};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Entropy, Label, signed_message};

/// Bytes of an ML-DSA-87 public key. Spec: LK-1.
pub const PUBLIC_KEY_BYTES: usize = 2592;
/// Bytes of an ML-DSA-87 signature. Spec: LK-1.
pub const SIGNATURE_BYTES: usize = 4627;
/// Bytes of the seed that a signing key is made from. Spec: LK-1.
pub const SEED_BYTES: usize = 32;

/// The 32 random bytes that a signing key is made from: what is kept in the key file. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; SEED_BYTES]);

impl Seed {
    /// Draws a new seed.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; SEED_BYTES];
        entropy.fill(&mut bytes);
        Self(bytes)
    }

    /// Takes over stored bytes.
    pub fn from_bytes(bytes: [u8; SEED_BYTES]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for the key file only.
    pub fn expose(&self) -> &[u8; SEED_BYTES] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// A secret ML-DSA-87 key.
pub struct SigningKey {
    pair: PqdsaKeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// Expands a seed into the key pair it stands for.
    pub fn from_seed(seed: &Seed) -> Self {
        let pair = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, seed.expose()).expect("any 32 bytes are a seed");
        let public = PublicKey::parse(pair.public_key().as_ref()).expect("the library's own public key");
        Self { pair, public }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `content` under `label`. Hedged: two signatures of one content differ. Spec: link C.4.4.
    pub fn sign(&self, label: Label, content: &[u8]) -> Signature {
        let mut bytes = vec![0; SIGNATURE_BYTES];
        let length = self.pair.sign(&signed_message(label, content), &mut bytes).expect("signing 112 bytes");
        assert_eq!(length, SIGNATURE_BYTES, "ML-DSA-87 signatures have one length");
        Signature(bytes)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(secret)")
    }
}

/// A public ML-DSA-87 key, parsed once so that verifying does not parse it again. Clones share it: a session holds several.
#[derive(Clone)]
pub struct PublicKey(std::sync::Arc<ParsedPublicKey>);

impl PublicKey {
    /// Takes a key from its 2 592 bytes.
    ///
    /// # Errors
    /// [`KeyRejected`] for another length or for bytes the library refuses.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyRejected> {
        if bytes.len() != PUBLIC_KEY_BYTES {
            return Err(KeyRejected);
        }
        let parsed = ParsedPublicKey::new(&ML_DSA_87, bytes).map_err(|_| KeyRejected)?;
        Ok(Self(parsed.into()))
    }

    /// The 2 592 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref().as_ref()
    }

    /// Checks that `signature` was made by this key over `content` under `label`.
    ///
    /// # Errors
    /// [`BadSignature`], whatever the reason.
    pub fn verify(&self, label: Label, content: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.0.verify_sig(&signed_message(label, content), signature).map_err(|_| BadSignature)
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, fourth, ..] = self.as_bytes() else { return f.write_str("PublicKey") };
        write!(f, "PublicKey({first:02x}{second:02x}{third:02x}{fourth:02x}…)")
    }
}

/// An ML-DSA-87 signature, 4 627 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// The 4 627 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({} bytes)", self.0.len())
    }
}

/// Bytes that are no ML-DSA-87 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an ML-DSA-87 public key of {PUBLIC_KEY_BYTES} bytes")]
pub struct KeyRejected;

/// A signature that was not made by this key over this content under this label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;
