//! Ed25519 (RFC 8032), strict: one encoding for each key and each signature, nothing of small order.
//!
//! It signs two kinds of messages and no others: the 112 bytes of [`crate::signed_message`], beside an ML-DSA-87
//! signature of the same bytes; and what the gateway signs with Ed25519 alone, which has a prefix of its own
//! ([`crate::GatewayContext`]). Spec: gateway §7.3, §7.4.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, ParsedPublicKey};

use crate::label::gateway_message;
use crate::{BadSignature, GatewayContext, Label, Seed, signed_message};

/// Bytes of an Ed25519 public key.
pub const ED25519_PUBLIC_KEY_BYTES: usize = 32;
/// Bytes of an Ed25519 signature.
pub const ED25519_SIGNATURE_BYTES: usize = 64;

/// A secret Ed25519 key.
pub struct Ed25519SigningKey {
    pair: Ed25519KeyPair,
    public: Ed25519PublicKey,
}

impl Ed25519SigningKey {
    /// Expands a seed into the key pair it stands for.
    pub fn from_seed(seed: &Seed) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose()).expect("any 32 bytes are a seed");
        let public = Ed25519PublicKey::parse(pair.public_key().as_ref()).expect("the library's own public key");
        Self { pair, public }
    }

    /// The public half.
    pub fn public(&self) -> &Ed25519PublicKey {
        &self.public
    }

    /// Signs the 112 bytes that stand for `content` under `label`.
    pub fn sign(&self, label: Label, content: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        self.raw(&signed_message(label, content))
    }

    /// Signs `payload` for one use of the gateway.
    pub fn sign_alone(&self, context: GatewayContext, payload: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        self.raw(&gateway_message(context, payload))
    }

    fn raw(&self, message: &[u8]) -> [u8; ED25519_SIGNATURE_BYTES] {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().expect("Ed25519 signatures have one length")
    }
}

impl fmt::Debug for Ed25519SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ed25519SigningKey(secret)")
    }
}

/// A public Ed25519 key in its one canonical encoding, not of small order.
#[derive(Clone)]
pub struct Ed25519PublicKey {
    bytes: [u8; ED25519_PUBLIC_KEY_BYTES],
    parsed: std::sync::Arc<ParsedPublicKey>,
}

impl Ed25519PublicKey {
    /// Takes a key from its 32 bytes.
    ///
    /// # Errors
    /// [`Ed25519KeyRejected`] for another length, an encoding that is not canonical, or a point of small order.
    // Spec: GW-44
    pub fn parse(bytes: &[u8]) -> Result<Self, Ed25519KeyRejected> {
        let bytes: [u8; ED25519_PUBLIC_KEY_BYTES] = bytes.try_into().map_err(|_| Ed25519KeyRejected)?;
        if !is_good_point(&bytes) {
            return Err(Ed25519KeyRejected);
        }
        let parsed = ParsedPublicKey::new(&ED25519, bytes).map_err(|_| Ed25519KeyRejected)?;
        Ok(Self { bytes, parsed: parsed.into() })
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; ED25519_PUBLIC_KEY_BYTES] {
        &self.bytes
    }

    /// Checks a signature over the 112 bytes that stand for `content` under `label`.
    ///
    /// # Errors
    /// [`BadSignature`], whatever the reason.
    pub fn verify(&self, label: Label, content: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.raw(&signed_message(label, content), signature)
    }

    /// Checks a signature over `payload` for one use of the gateway.
    ///
    /// # Errors
    /// [`BadSignature`], whatever the reason.
    pub fn verify_alone(&self, context: GatewayContext, payload: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        self.raw(&gateway_message(context, payload), signature)
    }

    fn raw(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let signature: &[u8; ED25519_SIGNATURE_BYTES] = signature.try_into().map_err(|_| BadSignature)?;
        let (point, scalar) = signature.split_at(32);
        let point: &[u8; 32] = point.try_into().expect("half of 64 bytes");
        if !is_good_point(point) || !is_below(scalar, &GROUP_ORDER) {
            return Err(BadSignature);
        }
        self.parsed.verify_sig(message, signature).map_err(|_| BadSignature)
    }
}

impl PartialEq for Ed25519PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Ed25519PublicKey {}

impl fmt::Debug for Ed25519PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Ed25519PublicKey({:02x}{:02x}{:02x}{:02x}…)",
            self.bytes[0], self.bytes[1], self.bytes[2], self.bytes[3]
        )
    }
}

/// Bytes that are no Ed25519 public key that may be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a canonical Ed25519 public key of {ED25519_PUBLIC_KEY_BYTES} bytes")]
pub struct Ed25519KeyRejected;

/// Whether an encoding is canonical and none of the eight points of small order. Public bytes: no care for time.
fn is_good_point(encoded: &[u8; 32]) -> bool {
    let mut y = *encoded;
    y[31] &= 0x7f;
    is_below(&y, &FIELD_PRIME) && !SMALL_ORDER.contains(&y)
}

/// Little-endian comparison.
fn is_below(left: &[u8], right: &[u8; 32]) -> bool {
    left.iter().rev().lt(right.iter().rev())
}

/// 2^255 − 19, little-endian.
const FIELD_PRIME: [u8; 32] = {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed;
    bytes[31] = 0x7f;
    bytes
};

/// The order of the base point, little-endian.
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

/// The y coordinates of the points whose order divides eight: 0, 1, −1 and those of order eight.
const SMALL_ORDER: [[u8; 32]; 5] = [
    [0; 32],
    {
        let mut one = [0; 32];
        one[0] = 1;
        one
    },
    {
        let mut minus_one = FIELD_PRIME;
        minus_one[0] = 0xec;
        minus_one
    },
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf,
        0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20,
        0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
];
