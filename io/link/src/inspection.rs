//! What gives a TLS-inspecting proxy away: the certificate at the other end was issued by somebody, and a node's own
//! never is. Spec: link C.2, C.12 (`inspected`).

use std::io;

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificate::{CertificateFacts, FormError};

/// Characters of an issuer's name that are shown.
const ISSUER_MAX: usize = 80;

/// The certificate at the other end is not of the form that nodes show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{form}")]
pub(crate) struct ForeignCertificate {
    form: FormError,
    /// Who issued it, when that is not whom it is for.
    issuer: Option<String>,
}

impl ForeignCertificate {
    /// Checks the form of a certificate and of what comes with it.
    ///
    /// # Errors
    /// What is wrong with it, and who issued it.
    pub(crate) fn check(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>]) -> Result<(), Self> {
        let form = if rest.is_empty() { CertificateFacts::read(leaf) } else { Err(FormError::Chain) };
        form.map(drop).map_err(|form| Self { form, issuer: issuer(leaf) })
    }

    /// Who stands between, when a TLS connection failed because of a certificate that was issued by somebody. Another
    /// server at the address, with a certificate from an authority, looks the same.
    pub(crate) fn issuer_in(error: &io::Error) -> Option<String> {
        let tls: &rustls::Error = error.get_ref()?.downcast_ref()?;
        let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = tls else { return None };
        other.0.downcast_ref::<Self>()?.issuer.clone()
    }
}

fn issuer(leaf: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    if certificate.issuer().as_raw() == certificate.subject().as_raw() {
        return None;
    }
    let name: String = certificate.issuer().to_string();
    let name: String = name.chars().filter(|c| !c.is_control()).take(ISSUER_MAX).collect();
    Some(if name.is_empty() { "an issuer without a name".to_owned() } else { name })
}
