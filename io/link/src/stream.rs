//! The secure channel of a path: TLS 1.3 over its pipe, and the facts that the handshake is bound to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::{CommonState, Connection as TlsConnection};
use rustls_pki_types::ServerName;
use sealtide_crypto::sha256;
use sealtide_wire::handshake::{Binding, BindingError, Connection, Exporter, PipeKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::pipe::{Pipe, Remote};
use crate::tls;
use crate::tls_stream::TlsStream;

/// Bytes that the kernel takes before it calls a socket full, so that a control frame does not wait behind megabytes.
/// Spec: link C.9.4.
const NOTSENT_BYTES: u32 = 128 * 1024;
/// How long the kernel keeps an unanswered connection. Spec: link C.11.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// TLS over a pipe with the peer's end verified to hold the key of the certificate it showed.
pub(crate) struct SecureStream(TlsStream<Pipe>);

/// Why no secure channel came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SecureError {
    /// The pipe or TLS failed.
    #[error("no TLS connection: {0}")]
    Io(#[from] io::Error),
    /// The group that was negotiated is not the post-quantum one.
    #[error("the TLS connection uses another key exchange than {}", tls::GROUP_NAME)]
    Group,
}

impl SecureStream {
    /// The dialling end.
    pub(crate) async fn connect(pipe: Pipe, config: Arc<rustls::ClientConfig>) -> Result<Self, SecureError> {
        // An address as the name: no SNI is sent. Spec: link C.2
        let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        Self::connect_to(pipe, config, name).await
    }

    /// The dialling end, to a host that may have a name: then it is sent.
    pub(crate) async fn connect_to(
        pipe: Pipe,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, SecureError> {
        Self::connect_outer(pipe, config, name).await?.checked()
    }

    /// The dialling end of a TLS that nothing rests on but what the configuration checks: that of a login with bind 0. Any
    /// key exchange. Spec: link C.2.
    pub(crate) async fn connect_outer(
        pipe: Pipe,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, SecureError> {
        pipe.tcp().iter().for_each(|tcp| tune(tcp));
        let (pipe, tls) = TlsConnector::from(config).connect(name, pipe).await?.into_inner();
        Ok(Self(TlsStream::new(pipe, TlsConnection::Client(tls))))
    }

    /// The listening end.
    pub(crate) async fn accept(pipe: Pipe, config: Arc<rustls::ServerConfig>) -> Result<Self, SecureError> {
        Self::accept_outer(pipe, config).await?.checked()
    }

    /// The listening end of a TLS that nothing rests on, see [`Self::connect_outer`].
    pub(crate) async fn accept_outer(pipe: Pipe, config: Arc<rustls::ServerConfig>) -> Result<Self, SecureError> {
        pipe.tcp().iter().for_each(|tcp| tune(tcp));
        let (pipe, tls) = TlsAcceptor::from(config).accept(pipe).await?.into_inner();
        Ok(Self(TlsStream::new(pipe, TlsConnection::Server(tls))))
    }

    // Spec: LK-5
    fn checked(self) -> Result<Self, SecureError> {
        let state = self.state();
        let group = state.negotiated_key_exchange_group().map(|group| group.name());
        if group != Some(tls::GROUP) || state.protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3) {
            return Err(SecureError::Group);
        }
        Ok(self)
    }

    /// The peer's certificate; `None` when it showed none.
    pub(crate) fn peer_certificate(&self) -> Option<&[u8]> {
        self.state().peer_certificates().and_then(<[_]>::first).map(AsRef::as_ref)
    }

    /// SHA-256 of the peer's certificate; `None` when it showed none.
    pub(crate) fn peer_fingerprint(&self) -> Option<[u8; 32]> {
        self.peer_certificate().map(sha256)
    }

    /// What the full handshake is bound to; `own` is the fingerprint of the certificate this end showed.
    ///
    /// # Errors
    /// [`BindingError`] when the peer showed no certificate.
    pub(crate) fn connection(&self, own: [u8; 32], remote: Remote) -> Result<Connection, BindingError> {
        let peer = self.peer_fingerprint().unwrap_or([0; 32]);
        let (fp_client, fp_server) = if self.is_client() { (own, peer) } else { (peer, own) };
        let cb = self.export_bytes(tls::CHANNEL_BINDING_LABEL, &[]);
        Ok(Connection { binding: Binding::channel(remote.kind(), cb, fp_client, fp_server)?, remote: remote.direct() })
    }

    /// What a login at a relay is bound to; `own` is the fingerprint of the relay's certificate at the relay, and zeros
    /// at the node, which shows none.
    ///
    /// # Errors
    /// [`BindingError`] when the relay showed no certificate.
    pub(crate) fn login_connection(&self, own: [u8; 32], remote: SocketAddr) -> Result<Connection, BindingError> {
        let shown = if self.is_client() { self.peer_fingerprint().unwrap_or([0; 32]) } else { own };
        let cb = self.export_bytes(tls::CHANNEL_BINDING_LABEL, &[]);
        let binding = Binding::channel(PipeKind::RelayControl, cb, [0; 32], shown)?;
        // Where it sees the other end, the relay tells; the node has nothing to tell the relay. Spec: LK-102
        Ok(Connection { binding, remote: (!self.is_client()).then_some(remote) })
    }

    /// Drops what the system has not sent yet when the connection is dropped, and tells the peer by a reset. Pipes
    /// other than TCP hold nothing after they are dropped.
    pub(crate) fn reset_on_drop(&self) {
        let _bytes_may_follow = self.0.socket().tcp().map(TcpStream::set_zero_linger);
    }

    /// See [`TlsStream::poll_discard`].
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_discard(cx)
    }

    /// The address of this machine that a direct path uses.
    pub(crate) fn local_ip(&self) -> Option<std::net::IpAddr> {
        self.0.socket().tcp().and_then(|tcp| tcp.local_addr().ok()).map(|local| local.ip().to_canonical())
    }

    /// Whether this is the dialling end.
    pub(crate) fn is_client(&self) -> bool {
        matches!(self.0.tls(), TlsConnection::Client(_))
    }

    /// The suite as the TLS registry names it.
    pub(crate) fn suite(&self) -> &'static str {
        match self.state().negotiated_cipher_suite().map(|suite| suite.suite()) {
            Some(rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256) => "TLS_CHACHA20_POLY1305_SHA256",
            _ => "TLS_AES_256_GCM_SHA384",
        }
    }

    fn state(&self) -> &CommonState {
        self.0.tls()
    }

    fn export_bytes(&self, label: &[u8], context: &[u8]) -> [u8; 32] {
        let exported = match self.0.tls() {
            TlsConnection::Client(tls) => tls.export_keying_material([0; 32], label, Some(context)),
            TlsConnection::Server(tls) => tls.export_keying_material([0; 32], label, Some(context)),
        };
        exported.expect("the TLS handshake is over, and 32 bytes are within every limit")
    }
}

impl Exporter for SecureStream {
    fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        self.export_bytes(label.as_bytes(), context)
    }
}

impl AsyncRead for SecureStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SecureStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Socket settings of links. Each is an improvement only, so a system that lacks one goes on without it.
fn tune(tcp: &TcpStream) {
    let _slower_only = tcp.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let socket = socket2::SockRef::from(tcp);
        let _slower_only = socket.set_tcp_notsent_lowat(NOTSENT_BYTES);
        let _later_only = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    }
}
