//! The door with TLS of its own: when it opens, what is spoken, certificates that change.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{SupportedKxGroup, aws_lc_rs, verify_tls13_signature};
use rustls::{ClientConfig, NamedGroup};
use sealtide_gateway::{App, Auth, GatewayError, Server, Settings, SettingsError, TlsError, TlsFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, Instant, advance};
use tokio_rustls::TlsConnector;

use crate::client::{Client, Desk, Ready, Still, ask, body, status};

fn write(dir: &Path, name: &str, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Puts a fresh certificate and its key into a folder; the certificate's bytes.
fn certify(dir: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["tides.example".to_owned()]).unwrap();
    write(dir, "key.pem", &made.signing_key.serialize_pem(), 0o600);
    write(dir, "cert.pem", &made.cert.pem(), 0o644);
    made.cert.der().to_vec()
}

fn files(dir: &Path) -> TlsFiles {
    TlsFiles { certificate: dir.join("cert.pem"), key: dir.join("key.pem") }
}

fn settings(dir: &Path) -> Settings {
    Settings { tls: Some(files(dir)), public_host: Some("tides.example".into()), ..Settings::default() }
}

async fn open(at: &str, settings: Settings) -> Result<Server, GatewayError> {
    let app: Arc<dyn App> = Desk::new();
    Server::open(settings, at.parse().unwrap(), Arc::new(Ready), Some(app)).await
}

/// Takes any certificate whose key the other end holds, and remembers it.
#[derive(Debug, Default)]
struct Seen(std::sync::Mutex<Vec<u8>>);

impl rustls::client::danger::ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = end_entity.to_vec();
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        panic!("TLS 1.2 is not spoken")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &rustls_pki_types::CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;

/// A connection that offers these groups, and the certificate that it was shown.
async fn shake(
    at: std::net::SocketAddr,
    groups: &[&'static dyn SupportedKxGroup],
) -> Result<(Stream, Vec<u8>), String> {
    let seen = Arc::new(Seen::default());
    let mut provider = aws_lc_rs::default_provider();
    if !groups.is_empty() {
        provider.kx_groups = groups.to_vec();
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    let stream = TcpStream::connect(at).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("tides.example").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    let shown = seen.0.lock().unwrap().clone();
    Ok((stream, shown))
}

/// A plain port in front of the TLS one, for clients that speak none.
async fn plain(at: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut far, _) = shake(at, &[]).await.unwrap();
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    plain
}

// Proves: GW-48
#[tokio::test]
async fn a_listener_that_counts_as_public_needs_certificate_host_and_bearers() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let good = || settings(dir.path());
    let refusal = async |settings| match open("0.0.0.0:0", settings).await {
        Err(GatewayError::Settings(error)) => error,
        Err(GatewayError::NotLoopback(address)) => SettingsError::NotLoopback(address),
        other => panic!("{:?}", other.err()),
    };
    assert_eq!(
        refusal(Settings { tls: None, ..good() }).await,
        SettingsError::NotLoopback("0.0.0.0:0".parse().unwrap())
    );
    assert_eq!(refusal(Settings { public_host: None, ..good() }).await, SettingsError::NoHost);
    assert_eq!(refusal(Settings { auth: Some(Auth::None), ..good() }).await, SettingsError::OpenToAll);
    assert_eq!(refusal(Settings { echo: true, ..good() }).await, SettingsError::PublicEcho);
    let open = open("0.0.0.0:0", good()).await.unwrap();
    let at = plain(([127, 0, 0, 1], open.address().port()).into()).await;
    // Nobody is somebody there without a credential, and the names of loopback are not its own.
    assert_eq!(status(&ask(at, "GET /version/registry", &["Host: tides.example"], "").await), 401);
    assert_eq!(status(&ask(at, "GET /version/registry", &["Host: localhost"], "").await), 400);
}

// Proves: GW-48
#[tokio::test]
async fn files_that_cannot_be_used_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fault = async || match open("127.0.0.1:0", settings(dir)).await {
        Err(GatewayError::Tls(error)) => error,
        other => panic!("{:?}", other.err()),
    };
    assert!(matches!(fault().await, TlsError::Read { .. }), "nothing there");
    certify(dir);
    let key = std::fs::read_to_string(dir.join("key.pem")).unwrap();
    write(dir, "key.pem", &key, 0o604);
    assert!(matches!(fault().await, TlsError::Exposed(_)));
    for (name, text) in [("key.pem", "no PEM"), ("cert.pem", ""), ("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n")] {
        certify(dir);
        write(dir, name, text, 0o600);
        assert!(matches!(fault().await, TlsError::Empty { .. }), "{name}");
    }
    certify(dir);
    write(dir, "key.pem", &key, 0o600);
    assert!(matches!(fault().await, TlsError::Pair(_)), "another key");
    certify(dir);
    assert!(open("127.0.0.1:0", settings(dir)).await.is_ok());
    write(dir, "key.pem", &std::fs::read_to_string(dir.join("key.pem")).unwrap(), 0o640);
    assert!(open("127.0.0.1:0", settings(dir)).await.is_ok(), "a group may read it");
}

// Proves: GW-5
#[tokio::test]
async fn sessions_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let server = open("127.0.0.1:0", Settings { tls: Some(files(dir.path())), ..Settings::default() }).await.unwrap();
    assert_eq!(server.url(), format!("https://{}", server.address()));
    let at = plain(server.address()).await;
    let host = format!("Host: {}", server.address());
    let answer = ask(at, "GET /api/auth/csrf-token", &[&host], "").await;
    let token = body(&answer)["token"].as_str().unwrap().to_owned();
    // Its own pages are https now.
    let lines = |scheme: &str| {
        let origin = format!("Origin: {scheme}://{}", server.address());
        vec![host.clone(), origin, format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{token}")]
    };
    assert!(Client::open(at, &lines("http"), b"").await.err().unwrap().starts_with("HTTP/1.1 403"));
    let mut client = Client::open(at, &lines("https"), b"").await.unwrap();
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    assert_eq!(client.ask(r#"{"type":"bump"}"#).await["type"], "bump_response");
    drop(server);
    assert_eq!(client.closed().await, Some(1001));
}

#[tokio::test]
async fn groups_and_what_is_no_tls() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let server = open("127.0.0.1:0", settings(dir.path())).await.unwrap();
    let at = server.address();
    let (hybrid, x25519): (&[&'static dyn SupportedKxGroup], &[&'static dyn SupportedKxGroup]) =
        (&[], &[aws_lc_rs::kx_group::X25519]);
    for (groups, wanted) in [(hybrid, NamedGroup::X25519MLKEM768), (x25519, NamedGroup::X25519)] {
        let (stream, _) = shake(at, groups).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), wanted);
        assert_eq!(session.alpn_protocol(), None, "offered none");
    }
    assert!(shake(at, &[aws_lc_rs::kx_group::SECP256R1]).await.is_err());
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: tides.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "plain HTTP is not answered");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_takes_too_long_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let server = open("127.0.0.1:0", settings(dir.path())).await.unwrap();
    let begin = Instant::now();
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    stream.write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    assert_eq!(begin.elapsed().as_secs(), 5);
}

/// New files hold for new connections; faulty ones for none, and running connections keep what they have.
#[tokio::test(start_paused = true)]
async fn certificates_are_read_again_when_they_change() {
    let _still = Still::new();
    let dir = tempfile::tempdir().unwrap();
    let first = certify(dir.path());
    let server = open("127.0.0.1:0", settings(dir.path())).await.unwrap();
    let at = server.address();
    let (mut held, shown) = shake(at, &[]).await.unwrap();
    assert_eq!(shown, first);
    let second = certify(dir.path());
    advance(Duration::from_secs(2)).await;
    assert_eq!(shake(at, &[]).await.unwrap().1, second);
    // One file of two, and one that is no certificate: the last good ones hold.
    let third = certify(dir.path());
    let key = std::fs::read_to_string(dir.path().join("key.pem")).unwrap();
    for bad in ["", "garbage"] {
        write(dir.path(), "key.pem", bad, 0o600);
        advance(Duration::from_secs(2)).await;
        assert_eq!(shake(at, &[]).await.unwrap().1, second);
    }
    std::fs::remove_file(dir.path().join("key.pem")).unwrap();
    advance(Duration::from_secs(2)).await;
    assert_eq!(shake(at, &[]).await.unwrap().1, second);
    write(dir.path(), "key.pem", &key, 0o600);
    advance(Duration::from_secs(2)).await;
    assert_eq!(shake(at, &[]).await.unwrap().1, third);
    held.write_all(b"GET /healthz HTTP/1.1\r\nHost: tides.example\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = held.read_to_string(&mut answer).await;
    // Silence of two seconds and more may have ended it, but no other certificate did.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200"), "{answer}");
}
