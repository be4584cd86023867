//! The certificate authorities that this node believes where a relay's TLS ends in a proxy: those that its operator names, and
//! nobody else. Spec: link C.4.1, bind 0.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Named authorities. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots(Arc<RootCertStore>);

/// Why a file names no authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootsError {
    /// It is damaged.
    #[error("not in PEM form")]
    Pem,
    /// It holds no certificate that can be used.
    #[error("no certificate of an authority")]
    Empty,
}

impl Roots {
    /// The certificates of a file in PEM form. Those that are of no use are left out.
    ///
    /// # Errors
    /// [`RootsError`].
    pub fn read(pem: &[u8]) -> Result<Self, RootsError> {
        let found: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| RootsError::Pem)?;
        let mut store = RootCertStore::empty();
        let (used, _) = store.add_parsable_certificates(found);
        if used == 0 { Err(RootsError::Empty) } else { Ok(Self(Arc::new(store))) }
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_authorities_is_refused() {
        assert_eq!(Roots::read(b"").unwrap_err(), RootsError::Empty);
        assert_eq!(Roots::read(b"-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap_err(), RootsError::Pem);
    }
}
