//! TLS as both ends of a link speak it: 1.3 only, one post-quantum group, nothing that resumes. Spec: link C.2.

use std::sync::{Arc, Mutex, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as TlsCertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, NamedGroup,
    OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use sealtide_crypto::Now;

use crate::certificate::{CertificateError, NodeCertificate};
use crate::clock::random_below;
use crate::inspection::ForeignCertificate;
use crate::roots::Roots;
use crate::rotation::Ages;

/// The one key exchange group of links. Spec: link C.2.
pub const GROUP: NamedGroup = NamedGroup::X25519MLKEM768;
/// The name of [`GROUP`] as status and metrics show it.
pub const GROUP_NAME: &str = "X25519MLKEM768";
/// ALPN is visible on the wire, so it is the one that every web server has.
const ALPN: &[u8] = b"http/1.1";
/// Label of the channel binding (RFC 9266); the context is empty. Spec: link C.4.1.
pub(crate) const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// The cryptography of all links: two suites, one group, P-256 signatures.
// Spec: LK-5
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
                aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            ..aws_lc_rs::default_provider()
        })
    })
}

/// A certificate with the configurations that show it. One connection uses one of them from begin to end.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) certificate: NodeCertificate,
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    renew_at_ms: u64,
}

impl Credentials {
    fn make(epoch: u32, now: Now, ages: &Ages) -> Result<Self, CertificateError> {
        let certificate = NodeCertificate::make(epoch, now)?;
        let client = client_config(&certificate)?;
        let server = server_config(&certificate)?;
        let spread = millis(ages.certificate_spread);
        let age_ms = millis(ages.certificate).saturating_sub(spread) + random_below(spread.saturating_mul(2));
        Ok(Self { certificate, client, server, renew_at_ms: now.mono_ms.saturating_add(age_ms) })
    }
}

fn millis(age: std::time::Duration) -> u64 {
    u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
}

/// The credentials that handshakes show, and those that follow. Changing them does not touch running connections.
/// Spec: link C.7.
#[derive(Debug)]
pub(crate) struct LiveCredentials {
    ages: Ages,
    inner: Mutex<Live>,
}

#[derive(Debug)]
struct Live {
    current: Credentials,
    /// Told to the sessions, shown to nobody yet.
    next: Option<Credentials>,
}

impl Live {
    fn newest(&self) -> &Credentials {
        self.next.as_ref().unwrap_or(&self.current)
    }
}

impl LiveCredentials {
    pub(crate) fn make(now: Now, ages: Ages) -> Result<Self, CertificateError> {
        let current = Credentials::make(1, now, &ages)?;
        Ok(Self { ages, inner: Mutex::new(Live { current, next: None }) })
    }

    /// The credentials that a handshake shows now. Those whose use has ended, as after a sleep of the machine, are followed by the next at
    /// once: no path that shows them would live.
    pub(crate) fn current(&self, now: Now) -> Credentials {
        let mut live = self.lock();
        let is_over = |shown: &Credentials| now.mono_ms >= shown.certificate.good_until_ms();
        if is_over(&live.current) {
            let newest = live.newest().certificate.epoch();
            let told = live.next.take().filter(|next| !is_over(next));
            match told.map_or_else(|| Credentials::make(newest + 1, now, &self.ages), Ok) {
                Ok(next) => live.current = next,
                Err(error) => tracing::warn!("link: the certificate could not be renewed: {error}"),
            }
        }
        live.current.clone()
    }

    /// Those with the greatest number, shown or not.
    pub(crate) fn newest(&self) -> Credentials {
        self.lock().newest().clone()
    }

    /// When the next are due, on the monotonic clock in ms: at their age; and at once where the wall clock is past their end, as after a
    /// sleep of the machine on systems where the other clock stands still meanwhile.
    pub(crate) fn renew_ms(&self, now: Now) -> u64 {
        let current = &self.lock().current;
        let is_over = now.wall_ms / 1_000 > current.certificate.not_after_s();
        if is_over { now.mono_ms } else { current.renew_at_ms }
    }

    /// When the next ones, prepared at `now`, are shown at the latest, on the monotonic clock in ms: after the grace, or when the use of
    /// those that are shown ends.
    pub(crate) fn switch_ms(&self, now: Now) -> u64 {
        let graced = now.mono_ms.saturating_add(millis(self.ages.certificate_grace));
        graced.min(self.lock().current.certificate.good_until_ms())
    }

    /// Makes the next ones.
    ///
    /// # Errors
    /// [`CertificateError`]; the old ones serve on, they are good for 8 h more.
    pub(crate) fn prepare(&self, now: Now) -> Result<Credentials, CertificateError> {
        let mut live = self.lock();
        let next = Credentials::make(live.newest().certificate.epoch() + 1, now, &self.ages)?;
        live.next = Some(next.clone());
        Ok(next)
    }

    /// From now on handshakes show the next ones. The old key goes with its last connection.
    pub(crate) fn switch(&self) {
        let mut live = self.lock();
        if let Some(next) = live.next.take() {
            live.current = next;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The configuration of the dialling side, showing `certificate`.
///
/// # Errors
/// Only when the library refuses the fixed parameters.
// Spec: LK-5
pub(crate) fn client_config(certificate: &NodeCertificate) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Accepted::Form))
        .with_client_cert_resolver(Arc::new(Shown(certificate.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// The configuration of the link door, showing `certificate`. A client certificate is asked for, not required:
/// what comes without one is answered like any small web site would.
///
/// # Errors
/// Only when the library refuses the fixed parameters.
// Spec: LK-5, LK-67
pub(crate) fn server_config(certificate: &NodeCertificate) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(Accepted::Form))
        .with_cert_resolver(Arc::new(Shown(certificate.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The dialling side of a relay login: no certificate of its own, and any of the relay, whose node key says who it is.
///
/// # Errors
/// Only when the library refuses the fixed parameters.
pub(crate) fn relay_client_config() -> Result<Arc<ClientConfig>, Error> {
    unnamed_client_config(provider().clone())
}

/// The TLS around a tunnel, which ends wherever the operator's HTTPS ends: any key exchange and any certificate, since the
/// TLS of the peers lies inside. Spec: link C.2, kind 4.
///
/// # Errors
/// Only when the library refuses the fixed parameters.
pub(crate) fn tunnel_client_config() -> Result<Arc<ClientConfig>, Error> {
    unnamed_client_config(Arc::new(aws_lc_rs::default_provider()))
}

/// The dialling side of a login with bind 0, whose TLS ends in a proxy: its certificate must be good for the dialled name by
/// one of `roots`. Any key exchange, since the ids of both ends are proved inside. Spec: link C.4.1.
///
/// # Errors
/// When `roots` cannot be used.
// Spec: LK-101
pub(crate) fn outer_client_config(roots: &Roots) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.store(), provider.clone())
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Shows no certificate and takes any.
fn unnamed_client_config(provider: Arc<CryptoProvider>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Accepted::Any))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// The relay door: asks for no certificate. Spec: LK-5
///
/// # Errors
/// Only when the library refuses the fixed parameters.
pub(crate) fn relay_server_config(certificate: &NodeCertificate) -> Result<Arc<ServerConfig>, Error> {
    unasking_server_config(provider().clone(), certificate)
}

/// The relay door behind a proxy that ends the TLS of nodes: proxies may lack the post-quantum group.
///
/// # Errors
/// Only when the library refuses the fixed parameters.
pub(crate) fn outer_server_config(certificate: &NodeCertificate) -> Result<Arc<ServerConfig>, Error> {
    unasking_server_config(Arc::new(aws_lc_rs::default_provider()), certificate)
}

fn unasking_server_config(
    provider: Arc<CryptoProvider>,
    certificate: &NodeCertificate,
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Shown(certificate.certified_key())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Always the one certificate, whatever names or issuers the peer asks for.
#[derive(Debug)]
struct Shown(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        schemes.contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Shown {
    fn resolve(&self, hello: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
        hello.signature_schemes().contains(&SignatureScheme::ECDSA_NISTP256_SHA256).then(|| self.0.clone())
    }
}

/// Which certificates a peer may show. That it holds the key is checked of each; who it is, the handshake inside proves.
/// No name, no date, no authority. Spec: link C.2.
#[derive(Clone, Copy, Debug)]
enum Accepted {
    /// Any: what stands in front of a relay has its own.
    Any,
    /// Those of the form that nodes make.
    Form,
}

impl Accepted {
    fn check(self, end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        match self {
            Self::Any => Ok(()),
            Self::Form => ForeignCertificate::check(end_entity, intermediates)
                .map_err(|error| Error::InvalidCertificate(TlsCertificateError::Other(OtherError(Arc::new(error))))),
        }
    }

    fn schemes(self) -> Vec<SignatureScheme> {
        match self {
            Self::Any => algorithms().supported_schemes(),
            Self::Form => vec![SignatureScheme::ECDSA_NISTP256_SHA256],
        }
    }

    fn signature(
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, algorithms())
    }

    fn tls12() -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }
}

impl ServerCertVerifier for Accepted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Accepted {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Self::signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

fn algorithms() -> &'static WebPkiSupportedAlgorithms {
    &provider().signature_verification_algorithms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_certificate_is_due_around_the_16th_hour_and_shown_after_the_switch() {
        let hour = 3_600_000;
        let now = Now { mono_ms: 5 * hour, wall_ms: 1_795_000_000_000 };
        let live = LiveCredentials::make(now, Ages::default()).unwrap();
        assert!((20 * hour..22 * hour).contains(&live.renew_ms(now)), "15 to 17 h after it was made");
        let woken = Now { mono_ms: 6 * hour, wall_ms: now.wall_ms + 30 * hour };
        assert_eq!(live.renew_ms(woken), 6 * hour, "at once after a sleep");
        let first = live.current(now).certificate;
        let later = Now { mono_ms: 21 * hour, wall_ms: 0 };
        let next = live.prepare(later).unwrap().certificate;
        assert_eq!((first.epoch(), next.epoch()), (1, 2));
        assert_eq!(next.good_until_ms(), (21 + 24) * hour, "whatever the wall clock says");
        assert_eq!(live.current(later).certificate.fingerprint(), first.fingerprint(), "not shown yet");
        assert_eq!(live.newest().certificate.fingerprint(), next.fingerprint());
        live.switch();
        assert_eq!(live.current(later).certificate.fingerprint(), next.fingerprint());
        assert!(live.renew_ms(later) >= 36 * hour);
    }

    #[test]
    fn a_certificate_whose_use_has_ended_is_not_shown() {
        let hour = 3_600_000;
        let at = |hours| Now { mono_ms: hours * hour, wall_ms: 1_795_000_000_000 + hours * hour };
        let live = LiveCredentials::make(at(0), Ages::default()).unwrap();
        let before = Now { mono_ms: 24 * hour - 1, wall_ms: 0 };
        assert_eq!(live.switch_ms(at(16)), 16 * hour + hour / 2, "the grace");
        assert_eq!(
            live.switch_ms(Now { mono_ms: 24 * hour - 60_000, wall_ms: 0 }),
            24 * hour,
            "no longer than the old one is good"
        );
        assert_eq!(live.current(before).certificate.epoch(), 1);
        let told = live.prepare(before).unwrap();
        assert_eq!(
            live.current(at(24)).certificate.fingerprint(),
            told.certificate.fingerprint(),
            "the one that was told"
        );
        let made = live.current(at(60)).certificate;
        assert_eq!((made.epoch(), made.good_until_ms()), (3, 84 * hour), "one of now, when none was told");
        let _told_before_a_sleep = live.prepare(at(61)).unwrap();
        let made = live.current(at(100)).certificate;
        assert_eq!((made.epoch(), made.good_until_ms()), (5, 124 * hour), "one of now, when that is over too");
        live.switch();
        assert_eq!(live.current(at(100)).certificate.fingerprint(), made.fingerprint(), "nothing is left to switch to");
    }
}
