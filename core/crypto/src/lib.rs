//! Typed keys, hybrid-ready signatures and hashes with named domains.
//!
//! This is the only crate of the workspace that names a crypto library. Nothing here reads a clock or a file;
//! chance comes in as [`Entropy`]. The one exception is hedged ML-DSA signing, which draws its own randomness
//! inside the library (so signature bytes are never compared, only verified).

mod ed25519;
mod hash;
mod label;
mod now;
mod seal;
mod sign;

pub use ed25519::{
    ED25519_PUBLIC_KEY_BYTES, ED25519_SIGNATURE_BYTES, Ed25519KeyRejected, Ed25519PublicKey, Ed25519SigningKey,
};
pub use hash::{
    Blake3, DeriveContext, Sha256, blake3, blake3_derive, ct_eq, hkdf_expand_sha256, hkdf_extract_sha256, hkdf_sha512,
    hmac_sha256, sha256, sha256_parts, sha512, sha512_parts,
};
pub use label::{GatewayContext, Label, signed_message};
pub use now::{Entropy, Now, SeededEntropy};
pub use seal::{NotSealed, Passphrase, PassphraseCost, SALT_BYTES, SealingKey};
pub use sign::{
    BadSignature, KeyRejected, PUBLIC_KEY_BYTES, PublicKey, SEED_BYTES, SIGNATURE_BYTES, Seed, Signature, SigningKey,
};
