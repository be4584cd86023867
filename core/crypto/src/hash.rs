//! Hashes and keyed hashes. Thin: the names say the algorithm, the callers name the domain.

use hmac::{KeyInit, Mac};
use sha2::Digest;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    sha2::Sha256::digest(bytes).into()
}

/// SHA-256 of all `parts`, one after the other, with nothing between.
pub fn sha256_parts(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

/// SHA-512 of `bytes`.
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    sha2::Sha512::digest(bytes).into()
}

/// SHA-512 of all `parts`, one after the other, with nothing between.
pub fn sha512_parts(parts: &[&[u8]]) -> [u8; 64] {
    let mut hasher = sha2::Sha512::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// BLAKE3-256 of `bytes`.
pub fn blake3(bytes: &[u8]) -> [u8; 32] {
    *::blake3::hash(bytes).as_bytes()
}

/// Fills `out` from BLAKE3 in derive-key mode with `context` over `material`.
pub fn blake3_derive(context: &'static str, material: &[u8], out: &mut [u8]) {
    let mut hasher = ::blake3::Hasher::new_derive_key(context);
    hasher.update(material);
    hasher.finalize_xof().fill(out);
}

/// A context of BLAKE3's derive-key mode, hashed already: whoever derives from many small pieces under one context would
/// otherwise spend as much on the context as on the pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeriveContext([u8; 32]);

impl DeriveContext {
    /// Hashes a context.
    pub fn of(context: &'static str) -> Self {
        Self(::blake3::hazmat::hash_derive_key_context(context))
    }

    /// A context whose hash is written down; it must be that of [`DeriveContext::of`].
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As [`blake3_derive`].
    pub fn derive(&self, material: &[u8], out: &mut [u8]) {
        let mut hasher = <::blake3::Hasher as ::blake3::hazmat::HasherExt>::new_from_context_key(&self.0);
        hasher.update(material);
        hasher.finalize_xof().fill(out);
    }
}

/// HMAC-SHA256 of all `parts`, one after the other.
pub fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// HKDF-Extract with SHA-256 (RFC 5869, section 2.2).
pub fn hkdf_extract_sha256(salt: &[u8], ikm: &[u8]) -> [u8; 32] {
    hmac_sha256(salt, &[ikm])
}

/// The first 32 bytes of HKDF-Expand with SHA-256 (RFC 5869, section 2.3).
pub fn hkdf_expand_sha256(prk: &[u8; 32], info: &[&[u8]]) -> [u8; 32] {
    let mut parts = info.to_vec();
    parts.push(&[1]);
    hmac_sha256(prk, &parts)
}

/// The first 32 bytes of HKDF with SHA-512 (RFC 5869): extract with `salt` from `ikm`, expand with `info`.
pub fn hkdf_sha512(ikm: &[u8], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut prk = hmac_sha512(salt, &[ikm]);
    let mut block = hmac_sha512(&prk, &[info, &[1]]);
    let mut out = [0; 32];
    out.copy_from_slice(&block[..32]);
    prk.zeroize();
    block.zeroize();
    out
}

fn hmac_sha512(key: &[u8], parts: &[&[u8]]) -> [u8; 64] {
    let mut mac = hmac::Hmac::<sha2::Sha512>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether two byte strings are equal, in a time that depends on their lengths only.
pub fn ct_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// SHA-256 of bytes that arrive piece by piece.
#[derive(Clone, Default)]
pub struct Sha256(sha2::Sha256);

impl Sha256 {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything appended.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// BLAKE3-256 of bytes that arrive piece by piece.
#[derive(Clone, Default)]
pub struct Blake3(::blake3::Hasher);

impl Blake3 {
    /// Starts with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of everything appended.
    pub fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}
