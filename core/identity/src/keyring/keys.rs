//! The keys of one version, all from one secret. Spec: gateway §7.2 to §7.4.

use std::fmt;

use data_encoding::HEXLOWER;
use sealtide_crypto::{
    Ed25519SigningKey, GatewayContext, Label, Seed, SigningKey, ct_eq, hkdf_expand_sha256, hkdf_extract_sha256,
    hmac_sha256, sha256,
};
use zeroize::Zeroizing;

use super::{Algorithm, KeySecret, KeyVersion, decode_hmac, encode_hmac, encode_signature};

/// The ML-DSA-87 and the Ed25519 key of one version.
pub struct Pair {
    /// Post-quantum.
    pub ml_dsa: SigningKey,
    /// Classical, small.
    pub ed25519: Ed25519SigningKey,
}

/// A public key as the ledger and the key list name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeyEntry {
    /// Whose.
    pub version: KeyVersion,
    /// Of which algorithm; never HMAC.
    pub algorithm: Algorithm,
    /// First 16 hex digits of the SHA-256 of the key.
    pub kid: String,
    /// The key.
    pub public_key: Vec<u8>,
}

/// The keys of one version. The secret is wiped when this is dropped.
pub struct VersionKeys {
    version: KeyVersion,
    secret: KeySecret,
    pair: Option<Pair>,
}

impl VersionKeys {
    /// Derives the keys of `version` from its secret.
    // Spec: GW-101
    pub fn derive(version: KeyVersion, secret: KeySecret) -> Self {
        let pair = secret.pair_material().map(|material| {
            let extracted = Zeroizing::new(hkdf_extract_sha256(&[], material.as_slice()));
            let seed = |algorithm: &str| {
                let info = format!("sealtide/gw/{algorithm}/{version}");
                Seed::from_bytes(*Zeroizing::new(hkdf_expand_sha256(&extracted, &[info.as_bytes()])))
            };
            Pair {
                ml_dsa: SigningKey::from_seed(&seed("mldsa87")),
                ed25519: Ed25519SigningKey::from_seed(&seed("ed25519")),
            }
        });
        Self { version, secret, pair }
    }

    /// Which version.
    pub fn version(&self) -> KeyVersion {
        self.version
    }

    /// The pair, when the secret has one.
    pub fn pair(&self) -> Option<&Pair> {
        self.pair.as_ref()
    }

    /// The secret, for the comparison of versions and for the key file.
    pub(super) fn secret(&self) -> &KeySecret {
        &self.secret
    }

    /// HMAC-SHA256 over `payload`, as text.
    pub fn hmac(&self, payload: &[u8]) -> String {
        encode_hmac(&hmac_sha256(self.secret.expose(), &[payload]))
    }

    /// Whether `text` is the HMAC of `payload`; compared in constant time.
    pub fn hmac_verifies(&self, payload: &[u8], text: &str) -> bool {
        let mac = hmac_sha256(self.secret.expose(), &[payload]);
        decode_hmac(text).is_some_and(|given| ct_eq(&given, &mac))
    }

    /// Ed25519 over `payload` for one use, as text; `None` without a pair.
    pub fn ed25519(&self, context: GatewayContext, payload: &[u8]) -> Option<String> {
        self.pair.as_ref().map(|pair| encode_signature(&pair.ed25519.sign_alone(context, payload)))
    }

    /// The name of the HMAC key: first 16 hex digits of HMAC(key, `sealtide-gw-kid` 00 `vN`).
    pub fn hmac_kid(&self) -> String {
        let mac = hmac_sha256(self.secret.expose(), &[b"sealtide-gw-kid\0", self.version.to_string().as_bytes()]);
        HEXLOWER.encode(&mac[..8])
    }

    /// The public keys: ML-DSA-87, then Ed25519. Empty without a pair.
    pub fn public_keys(&self) -> Vec<PublicKeyEntry> {
        let Some(pair) = &self.pair else { return Vec::new() };
        let entry = |algorithm, bytes: &[u8]| PublicKeyEntry {
            version: self.version,
            algorithm,
            kid: kid(bytes),
            public_key: bytes.to_vec(),
        };
        vec![
            entry(Algorithm::MlDsa87, pair.ml_dsa.public().as_bytes()),
            entry(Algorithm::Ed25519, pair.ed25519.public().as_bytes()),
        ]
    }

    /// Signs and verifies a probe with every key, and compares the public keys with `told`. Spec: gateway §7.7 step 3.
    pub(super) fn probe(&self, told: &[PublicKeyEntry]) -> bool {
        let probe = format!("sealtide probe {}", self.version);
        let told = told.iter().filter(|entry| entry.version == self.version);
        let keys_fit = self.public_keys().iter().eq(told);
        let pair_works = self.pair.as_ref().is_none_or(|pair| {
            let signature = pair.ml_dsa.sign(Label::KeysRotate, probe.as_bytes());
            let alone = pair.ed25519.sign_alone(GatewayContext::Bump, probe.as_bytes());
            pair.ml_dsa.public().verify(Label::KeysRotate, probe.as_bytes(), signature.as_bytes()).is_ok()
                && pair.ed25519.public().verify_alone(GatewayContext::Bump, probe.as_bytes(), &alone).is_ok()
        });
        keys_fit && pair_works && self.hmac_verifies(probe.as_bytes(), &self.hmac(probe.as_bytes()))
    }
}

impl fmt::Debug for VersionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VersionKeys({}, secret)", self.version)
    }
}

/// The name of a public key.
pub(super) fn kid(public_key: &[u8]) -> String {
    HEXLOWER.encode(&sha256(public_key)[..8])
}
