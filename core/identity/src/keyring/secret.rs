//! The secret of one key version: the bytes as they were given, and what is refused at once. Spec: gateway §7.1, §7.2.

use std::fmt;

use data_encoding::HEXLOWER;
use sealtide_crypto::{Entropy, ct_eq, sha256};
use zeroize::{Zeroize, Zeroizing};

/// Bytes of a secret, at least.
const SECRET_BYTES_MIN: usize = 32;
/// Bytes of a secret, at most.
const SECRET_BYTES_MAX: usize = 4096;
/// SHA-256 of secrets that anybody can read: a signing key in the seed's public papers, its default token secret.
const PUBLISHED: [&str; 2] = [
    "1c7888adab1bf31cfde582d4ca2c03f9ab209fe42b0760428862078b5563c256",
    "29b1154f17362b1341414fa60f6aab51ff61612a13c06fd0bb95beebf4efc3d3",
];

/// The secret that the keys of one version come from. Wiped when dropped.
#[derive(Clone)]
pub struct KeySecret {
    bytes: Zeroizing<Vec<u8>>,
    raw: bool,
}

/// Why a secret is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretRefused {
    /// Shorter than 32 bytes.
    #[error("it is shorter than {SECRET_BYTES_MIN} bytes")]
    Short,
    /// Longer than 4 096 bytes.
    #[error("it is longer than {SECRET_BYTES_MAX} bytes")]
    Long,
    /// A byte order mark, a NUL or a line break in it.
    #[error("it holds a byte order mark, a NUL or a line break")]
    Characters,
    /// Not UTF-8.
    #[error("it is no UTF-8 text")]
    NotText,
    /// A secret that was printed for everybody to read.
    #[error("it was published: anybody can sign with it")]
    Published,
}

impl KeySecret {
    /// A secret of the environment: its text as written, nothing trimmed, nothing decoded.
    ///
    /// # Errors
    /// [`SecretRefused`].
    // Spec: GW-45
    pub fn from_text(text: &[u8]) -> Result<Self, SecretRefused> {
        let text = std::str::from_utf8(text).map_err(|_| SecretRefused::NotText)?;
        if text.starts_with('\u{feff}') || text.contains(['\0', '\n', '\r']) {
            return Err(SecretRefused::Characters);
        }
        match text.len() {
            ..SECRET_BYTES_MIN => return Err(SecretRefused::Short),
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => {}
            _ => return Err(SecretRefused::Long),
        }
        if is_published(&sha256(text.as_bytes())) {
            return Err(SecretRefused::Published);
        }
        Ok(Self { bytes: Zeroizing::new(text.as_bytes().to_vec()), raw: false })
    }

    /// A secret of a file: as [`KeySecret::from_text`], but one line end at its end is dropped, since piping adds it.
    ///
    /// # Errors
    /// [`SecretRefused`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, SecretRefused> {
        let text = bytes.strip_suffix(b"\n").map_or(bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
        Self::from_text(text)
    }

    /// A stored key: 32 raw bytes.
    pub fn from_raw(bytes: [u8; 32]) -> Self {
        Self { bytes: Zeroizing::new(bytes.to_vec()), raw: true }
    }

    /// Draws a new raw key.
    pub fn generate(entropy: &mut dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        let secret = Self::from_raw(bytes);
        bytes.zeroize();
        secret
    }

    /// The HMAC key: the bytes as given.
    // Spec: GW-42
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// What the seeds of the pair come from: the raw bytes, or those that 64 lower-case hex digits spell. Any other
    /// secret has no pair.
    // Spec: GW-101
    pub(super) fn pair_material(&self) -> Option<Zeroizing<[u8; 32]>> {
        let mut material = Zeroizing::new([0; 32]);
        if self.raw {
            material.copy_from_slice(&self.bytes);
            return Some(material);
        }
        let decoded = Zeroizing::new(HEXLOWER.decode(&self.bytes).ok()?);
        let bytes: &[u8; 32] = decoded.as_slice().try_into().ok()?;
        material.copy_from_slice(bytes);
        Some(material)
    }

    /// Whether two versions have one secret.
    pub(super) fn is(&self, other: &Self) -> bool {
        ct_eq(&self.bytes, &other.bytes)
    }
}

/// Whether the secret with this SHA-256 stands where anybody can read it.
fn is_published(digest: &[u8; 32]) -> bool {
    PUBLISHED.contains(&HEXLOWER.encode(digest).as_str())
}

impl fmt::Debug for KeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySecret(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: GW-45
    #[test]
    fn key_loading_knows_published_secrets_by_their_digest() {
        for listed in PUBLISHED {
            let digest: [u8; 32] = HEXLOWER.decode(listed.as_bytes()).unwrap().try_into().unwrap();
            assert!(is_published(&digest));
            let mut other = digest;
            other[0] ^= 1;
            assert!(!is_published(&other));
        }
    }
}
