//! The short-lived TLS certificate of this node, and the form that a peer's must have. Spec: link C.7.

use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber,
};
use rustls::SignatureScheme;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sealtide_crypto::{Now, sha256};
use sealtide_wire::handshake::{CertificateCheck, CertificateRejected};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroize;

use crate::tls;

/// Bytes of the largest certificate that is accepted. Spec: link C.7.
pub(crate) const CERTIFICATE_BYTES_MAX: usize = 1024;
/// Seconds that a certificate is valid from the moment it is made. Spec: link C.7.
pub(crate) const CERTIFICATE_VALID_S: u64 = 24 * 3600;
/// Seconds by which its start lies in the past, for clocks that differ.
const CERTIFICATE_EARLY_S: u64 = 300;

/// One certificate of this node with its key: what a handshake shows and what ESTABLISHED names.
///
/// The key exists only inside rustls' signer; dropping the last reference erases it.
#[derive(Clone)]
pub(crate) struct NodeCertificate {
    epoch: u32,
    not_before_s: u64,
    not_after_s: u64,
    /// On the monotonic clock, ms: no path that shows it lives longer.
    good_until_ms: u64,
    fingerprint: [u8; 32],
    key: Arc<rustls::sign::CertifiedKey>,
}

impl NodeCertificate {
    /// Makes a new P-256 key and a self-signed certificate that is valid for 24 h from `now`. Its dates come from
    /// the wall clock, its use ends by the monotonic one.
    ///
    /// # Errors
    /// [`CertificateError`] when a library refuses, which says that the machine has no usable randomness.
    pub(crate) fn make(epoch: u32, now: Now) -> Result<Self, CertificateError> {
        let wall_s = now.wall_ms / 1000;
        let not_before_s = wall_s.saturating_sub(CERTIFICATE_EARLY_S);
        let not_after_s = wall_s + CERTIFICATE_VALID_S;
        let mut pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.not_before = instant(not_before_s)?;
        params.not_after = instant(not_after_s)?;
        params.serial_number = Some(serial()?);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::DnsName("node.invalid".try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&pair)?;

        // Both copies of the key outside the signer are wiped. Spec: LK-18
        let mut secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signer = rustls::crypto::aws_lc_rs::sign::any_ecdsa_type(&secret);
        secret.zeroize();
        pair.zeroize();
        let signer = signer?;
        let der = certificate.der().clone();
        let fingerprint = sha256(&der);
        let key = Arc::new(rustls::sign::CertifiedKey::new(vec![der], signer));
        let good_until_ms = now.mono_ms.saturating_add(CERTIFICATE_VALID_S * 1000);
        Ok(Self { epoch, not_before_s, not_after_s, good_until_ms, fingerprint, key })
    }

    /// The number of this certificate at this node; grows with each renewal.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// When its use ends, on the monotonic clock, in ms.
    pub(crate) fn good_until_ms(&self) -> u64 {
        self.good_until_ms
    }

    /// When it ends, in seconds since 1970.
    pub(crate) fn not_after_s(&self) -> u64 {
        self.not_after_s
    }

    /// SHA-256 of the DER.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The DER bytes, at most [`CERTIFICATE_BYTES_MAX`].
    pub(crate) fn der(&self) -> &[u8] {
        &self.key.cert[0]
    }

    /// What ESTABLISHED and CERT_UPDATE say of it.
    pub(crate) fn facts(&self) -> sealtide_wire::handshake::CertificateFacts {
        sealtide_wire::handshake::CertificateFacts::new(self.der().to_vec(), self.not_before_s, self.not_after_s)
    }

    /// The certificate with its signer, for rustls.
    pub(crate) fn certified_key(&self) -> Arc<rustls::sign::CertifiedKey> {
        self.key.clone()
    }
}

impl std::fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeCertificate").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What the DER of a well-formed certificate says. Only [`CertificateFacts::read`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFacts {
    /// Start of validity, Unix seconds.
    pub(crate) not_before_s: u64,
    /// End of validity, Unix seconds.
    pub(crate) not_after_s: u64,
}

impl CertificateFacts {
    /// Checks the form: P-256, self-signed, at most 1,024 bytes, nothing behind it. Dates are read, not judged.
    ///
    /// # Errors
    /// [`FormError`], one variant per rule.
    // Spec: link C.7
    pub(crate) fn read(der: &[u8]) -> Result<Self, FormError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(FormError::TooLong { bytes: der.len() });
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| FormError::Malformed)?;
        if !rest.is_empty() {
            return Err(FormError::Malformed);
        }
        let key = certificate.public_key();
        let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
        if key.algorithm.algorithm.to_id_string() != OID_EC_PUBLIC_KEY || curve.as_deref() != Some(OID_P256) {
            return Err(FormError::NotP256);
        }
        if certificate.signature_algorithm.algorithm.to_id_string() != OID_ECDSA_SHA256
            || certificate.tbs_certificate.signature.algorithm.to_id_string() != OID_ECDSA_SHA256
            || certificate.issuer().as_raw() != certificate.subject().as_raw()
        {
            return Err(FormError::NotSelfSigned);
        }
        let tbs: &[u8] = certificate.tbs_certificate.as_ref();
        let signature: &[u8] = &certificate.signature_value.data;
        let by_itself = tls::provider()
            .signature_verification_algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| algorithm.verify_signature(&key.subject_public_key.data, tbs, signature).is_ok());
        if !by_itself {
            return Err(FormError::NotSelfSigned);
        }
        let validity = certificate.validity();
        let seconds = |t: i64| u64::try_from(t).map_err(|_| FormError::Malformed);
        Ok(Self {
            not_before_s: seconds(validity.not_before.timestamp())?,
            not_after_s: seconds(validity.not_after.timestamp())?,
        })
    }
}

/// Reads the certificate of a peer in CERT_UPDATE.
pub(crate) struct PeerCertificates;

impl CertificateCheck for PeerCertificates {
    fn dates(&self, der: &[u8]) -> Result<(u64, u64), CertificateRejected> {
        let facts = CertificateFacts::read(der).map_err(|_| CertificateRejected("not of the accepted form"))?;
        Ok((facts.not_before_s, facts.not_after_s))
    }
}

/// Why this node could not make a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The certificate library refused.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// The TLS library refused the key.
    #[error("cannot load the certificate's key: {0}")]
    Key(#[from] rustls::Error),
    /// The system clock is outside the range of certificates.
    #[error("the system clock ({wall_s} s) is outside the range of certificates")]
    Clock {
        /// Unix seconds.
        wall_s: u64,
    },
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why a certificate of a peer is not of the one accepted form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FormError {
    /// Larger than any certificate of ours.
    #[error("certificate of {bytes} bytes, at most {CERTIFICATE_BYTES_MAX} are accepted")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
    /// Not one DER certificate and nothing else.
    #[error("not a DER certificate")]
    Malformed,
    /// Another key than P-256.
    #[error("the certificate's key is not P-256")]
    NotP256,
    /// Issuer, subject or signature are another's.
    #[error("the certificate is not signed by itself")]
    NotSelfSigned,
    /// A chain instead of one certificate.
    #[error("more than one certificate")]
    Chain,
}

const OID_EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const OID_P256: &str = "1.2.840.10045.3.1.7";
const OID_ECDSA_SHA256: &str = "1.2.840.10045.4.3.2";

fn instant(wall_s: u64) -> Result<OffsetDateTime, CertificateError> {
    let seconds = i64::try_from(wall_s).map_err(|_| CertificateError::Clock { wall_s })?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| CertificateError::Clock { wall_s })
}

/// 16 random bytes that are a positive number of exactly 16 bytes.
fn serial() -> Result<SerialNumber, CertificateError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    bytes[0] = (bytes[0] & 0x3f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_795_000_000;
    const NOW: Now = Now { mono_ms: 7, wall_ms: NOW_S * 1000 };

    #[test]
    fn own_certificate_has_the_accepted_form_and_dates() {
        let made = NodeCertificate::make(3, NOW).unwrap();
        let facts = CertificateFacts::read(made.der()).unwrap();
        assert_eq!(facts, CertificateFacts { not_before_s: NOW_S - 300, not_after_s: NOW_S + 86_400 });
        assert_eq!(made.good_until_ms(), 86_400_007);
        assert!(made.der().len() < 400, "{} bytes", made.der().len());
        assert_eq!(made.fingerprint(), sha256(made.der()));
        let (_, parsed) = X509Certificate::from_der(made.der()).unwrap();
        assert_eq!(parsed.raw_serial().len(), 16);
        assert_eq!(parsed.subject().iter().count(), 0, "no name of ours in the certificate");
        assert!(!String::from_utf8_lossy(made.der()).to_lowercase().contains("sealtide"));
    }

    #[test]
    fn other_forms_are_refused() {
        let good = NodeCertificate::make(0, NOW).unwrap();
        let mut tail = good.der().to_vec();
        tail.push(0);
        assert_eq!(CertificateFacts::read(&tail), Err(FormError::Malformed));
        assert_eq!(CertificateFacts::read(&[0x30; 1025]), Err(FormError::TooLong { bytes: 1025 }));
        let mut flipped = good.der().to_vec();
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert!(CertificateFacts::read(&flipped).is_err());

        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let ed25519 = CertificateParams::default().self_signed(&other).unwrap();
        assert_eq!(CertificateFacts::read(ed25519.der()), Err(FormError::NotP256));

        let issuer_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let issuer = rcgen::Issuer::new(CertificateParams::default(), &issuer_key);
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let leaf = CertificateParams::default().signed_by(&leaf_key, &issuer).unwrap();
        assert_eq!(CertificateFacts::read(leaf.der()), Err(FormError::NotSelfSigned));
    }
}
