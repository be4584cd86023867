//! One end of a connection driven by hand: any TLS configuration, frames as the test likes.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use sealtide_crypto::{SigningKey, sha256};
use sealtide_link::LINK_PATH;
use sealtide_wire::frame::Frame as LinkFrame;
use sealtide_wire::handshake::{
    Binding, CertificateCheck, CertificateFacts, CertificateRejected, Connection, Exporter, LocalEnd, PipeKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use tokio_util::codec::{Decoder as _, Encoder as _};
use yawc::codec::{Decoder, Encoder};
use yawc::frame::Frame;

/// A self-signed P-256 certificate, valid for 24 h, with its key.
pub struct TestCertificate {
    pub der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    not_before: u64,
    not_after: u64,
}

impl TestCertificate {
    pub fn new() -> Self {
        let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap();
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.not_before = now;
        params.not_after = now + time::Duration::hours(24);
        let der = params.self_signed(&pair).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let not_before = now.unix_timestamp() as u64;
        Self { der, key, not_before, not_after: not_before + 24 * 3600 }
    }

    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&self.der)
    }

    /// The end of a node that holds `key` and names this certificate in ESTABLISHED.
    pub fn local_end(&self, key: &Arc<SigningKey>) -> Arc<LocalEnd> {
        let facts = CertificateFacts::new(self.der.to_vec(), self.not_before, self.not_after);
        Arc::new(LocalEnd::new(key.clone(), facts))
    }
}

pub fn provider(groups: Vec<&'static dyn SupportedKxGroup>) -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
}

/// A client that believes any server; with or without a certificate of its own.
pub fn client(groups: Vec<&'static dyn SupportedKxGroup>, shown: Option<&TestCertificate>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything));
    Arc::new(match shown {
        Some(shown) => builder.with_client_auth_cert(vec![shown.der.clone()], shown.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

/// A server that believes any client.
pub fn server(groups: Vec<&'static dyn SupportedKxGroup>, shown: &TestCertificate) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider(groups))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Anything))
        .with_single_cert(vec![shown.der.clone()], shown.key.clone_key())
        .unwrap();
    Arc::new(config)
}

pub fn hybrid() -> Vec<&'static dyn SupportedKxGroup> {
    vec![aws_lc_rs::kx_group::X25519MLKEM768]
}

/// A connection that speaks link frames, driven by the test.
pub struct Raw {
    pub tls: TlsStream<TcpStream>,
    decoder: Decoder,
    encoder: Encoder,
    received: BytesMut,
    message: Bytes,
}

impl Raw {
    pub async fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        Ok(TlsConnector::from(config).connect(name, tcp).await?.into())
    }

    /// TLS and upgrade, showing `shown`.
    pub async fn dial(address: SocketAddr, shown: &TestCertificate) -> std::io::Result<Self> {
        let mut tls = Self::tls(address, client(hybrid(), Some(shown))).await?;
        tls.write_all(upgrade(LINK_PATH).as_bytes()).await?;
        let head = read_head(&mut tls).await?;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Ok(Self::new(tls, yawc::Role::Client))
    }

    /// The listening end: TLS and the answer to the upgrade.
    pub async fn accept(tcp: TcpStream, shown: &TestCertificate) -> std::io::Result<Self> {
        let mut tls: TlsStream<TcpStream> = TlsAcceptor::from(server(hybrid(), shown)).accept(tcp).await?.into();
        let head = read_head(&mut tls).await?;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let request = http::Request::builder()
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", key)
            .body(())
            .unwrap();
        let (answer, _) = yawc::WebSocket::upgrade(request).unwrap();
        let accept = answer.headers()["sec-websocket-accept"].to_str().unwrap().to_owned();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        tls.write_all(answer.as_bytes()).await?;
        Ok(Self::new(tls, yawc::Role::Server))
    }

    pub fn new(tls: TlsStream<TcpStream>, role: yawc::Role) -> Self {
        let (decoder, encoder) = (Decoder::new(role, 70_000), Encoder::new(role));
        Self { tls, decoder, encoder, received: BytesMut::new(), message: Bytes::new() }
    }

    pub async fn send(&mut self, frames: &[Vec<u8>]) -> std::io::Result<()> {
        self.send_bytes(frames.concat()).await
    }

    pub async fn send_bytes(&mut self, payload: Vec<u8>) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        self.encoder.encode(Frame::binary(payload), &mut out).unwrap();
        self.tls.write_all(&out).await?;
        self.tls.flush().await
    }

    /// The next link frame; `None` when the peer closed.
    pub async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Ok(Some((_, rest))) = LinkFrame::split(&self.message, 65_536) {
                let length = self.message.len() - rest.len();
                return Some(self.message.split_to(length));
            }
            self.message = self.message().await?;
        }
    }

    /// The next whole message; `None` when the peer closed.
    pub async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.received).unwrap() {
                if frame.opcode() == yawc::frame::OpCode::Close {
                    return None;
                }
                return Some(frame.into_payload());
            }
            if self.tls.read_buf(&mut self.received).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// The same connection in two halves, for whole messages both ways at once.
    pub fn into_halves(self) -> (MessagesIn, MessagesOut) {
        let (reading, writing) = tokio::io::split(self.tls);
        let reading = MessagesIn { tls: reading, decoder: self.decoder, received: self.received };
        (reading, MessagesOut { tls: writing, encoder: self.encoder })
    }

    /// What the handshake is bound to; `own` is the certificate this end showed.
    pub fn connection(&self, own: &TestCertificate) -> Connection {
        self.connection_of(PipeKind::Direct, own)
    }

    /// The same of a login at a relay, where only the relay shows a certificate.
    pub fn login_connection(&self, own: &TestCertificate) -> Connection {
        self.connection_of(PipeKind::RelayControl, own)
    }

    fn connection_of(&self, kind: PipeKind, own: &TestCertificate) -> Connection {
        let peer = self.tls.get_ref().1.peer_certificates().map_or([0; 32], |shown| sha256(&shown[0]));
        let client = matches!(self.tls, TlsStream::Client(_));
        let own = if client && kind == PipeKind::RelayControl { [0; 32] } else { own.fingerprint() };
        let (fp_client, fp_server) = if client { (own, peer) } else { (peer, own) };
        let cb = self.export("EXPORTER-Channel-Binding", &[]);
        Connection {
            binding: Binding::channel(kind, cb, fp_client, fp_server).unwrap(),
            remote: Some("127.0.0.1:1".parse().unwrap()),
        }
    }
}

/// The receiving half of a [`Raw`].
pub struct MessagesIn {
    tls: ReadHalf<TlsStream<TcpStream>>,
    decoder: Decoder,
    received: BytesMut,
}

impl MessagesIn {
    /// The next whole message; `None` when the peer closed.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.received).unwrap() {
                if frame.opcode() == yawc::frame::OpCode::Close {
                    return None;
                }
                return Some(frame.into_payload());
            }
            if self.tls.read_buf(&mut self.received).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// The sending half of a [`Raw`].
pub struct MessagesOut {
    tls: WriteHalf<TlsStream<TcpStream>>,
    encoder: Encoder,
}

impl MessagesOut {
    pub async fn send(&mut self, payload: Bytes) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        self.encoder.encode(Frame::binary(payload), &mut out).unwrap();
        self.tls.write_all(&out).await?;
        self.tls.flush().await
    }
}

impl Exporter for Raw {
    fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        match &self.tls {
            TlsStream::Client(tls) => tls.get_ref().1.export_keying_material([0; 32], label.as_bytes(), Some(context)),
            TlsStream::Server(tls) => tls.get_ref().1.export_keying_material([0; 32], label.as_bytes(), Some(context)),
        }
        .unwrap()
    }
}

/// Takes every certificate, with the dates that the test certificate of this second has.
pub struct AnyDates;

impl CertificateCheck for AnyDates {
    fn dates(&self, der: &[u8]) -> Result<(u64, u64), CertificateRejected> {
        use x509_parser::prelude::FromDer;
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(der).unwrap();
        let validity = parsed.validity();
        Ok((validity.not_before.timestamp() as u64, validity.not_after.timestamp() as u64))
    }
}

pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Reads byte by byte, so that nothing behind the head is lost.
pub async fn read_head<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

#[derive(Debug)]
struct Anything;

impl ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Anything {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}
