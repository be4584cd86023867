//! What lies below the TLS of a path, and where it leads. Spec: link C.1.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use sealtide_identity::NodeId;
use sealtide_wire::handshake::PipeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A byte stream of another make than TCP: a circuit through a relay, a tunnel.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// The bytes below the TLS. TCP is named, so that the direct path pays nothing for the others.
pub(crate) enum Pipe {
    /// The direct path.
    Tcp(TcpStream),
    /// A circuit or a tunnel.
    Other(Box<dyn ByteStream>),
}

impl Pipe {
    /// A pipe over anything that carries bytes.
    pub(crate) fn other(stream: impl ByteStream + 'static) -> Self {
        Self::Other(Box::new(stream))
    }

    /// The socket of a direct path.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Other(_) => None,
        }
    }
}

impl From<TcpStream> for Pipe {
    fn from(tcp: TcpStream) -> Self {
        Self::Tcp(tcp)
    }
}

/// Where the other end of a path is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remote {
    /// The remote address of the TCP connection.
    Direct(SocketAddr),
    /// A circuit through this relay.
    Relay {
        /// The node id of the relay.
        relay: NodeId,
    },
    /// A WebSocket tunnel: the address of the door, or of whom came through ours.
    Tunnel(SocketAddr),
}

impl Remote {
    /// The pipe that this is the end of.
    pub const fn kind(&self) -> PipeKind {
        match self {
            Self::Direct(_) => PipeKind::Direct,
            Self::Relay { .. } => PipeKind::Relay,
            Self::Tunnel(_) => PipeKind::Tunnel,
        }
    }

    /// The remote address of a direct path, the only one that says where the peer is.
    pub const fn direct(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(address) => Some(*address),
            Self::Relay { .. } | Self::Tunnel(_) => None,
        }
    }

    /// The word that status shows: `direct`, `relay` or `tunnel`.
    pub const fn path_name(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Relay { .. } => "relay",
            Self::Tunnel(_) => "tunnel",
        }
    }

    /// The same with IPv4 addresses out of their IPv6 form.
    pub(crate) fn canonical(self) -> Self {
        let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        match self {
            Self::Direct(address) => Self::Direct(plain(address)),
            Self::Tunnel(address) => Self::Tunnel(plain(address)),
            Self::Relay { .. } => self,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) | Self::Tunnel(address) => address.fmt(f),
            Self::Relay { relay } => write!(f, "relay {}", relay.short()),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Other(other) => Pin::new(other).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, data),
            Self::Other(other) => Pin::new(other).poll_write(cx, data),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Other(other) => Pin::new(other).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Other(other) => other.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Other(other) => Pin::new(other).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Other(other) => Pin::new(other).poll_shutdown(cx),
        }
    }
}
