//! Plain TLS to compare with: tokio-rustls over TCP on loopback, with the suites, the group and the certificates of links.

use std::io;
use std::net::SocketAddr;

use sealtide_crypto::Now;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls::{self, Credentials, LiveCredentials};

/// Makes connections of plain TLS. One certificate at each end, made once.
#[derive(Debug)]
pub struct PlainTls {
    client: Credentials,
    server: Credentials,
    listener: TcpListener,
}

impl PlainTls {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// When the port or a certificate is not to be had.
    pub async fn new(now: Now) -> io::Result<Self> {
        let credentials = || {
            LiveCredentials::make(now, crate::rotation::Ages::default())
                .map(|live| live.current(now))
                .map_err(io::Error::other)
        };
        let (client, server) = (credentials()?, credentials()?);
        Ok(Self { client, server, listener: TcpListener::bind(("127.0.0.1", 0)).await? })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The next connection, with its TLS done; no certificate is asked for: what the HTTPS port of an operator does.
    ///
    /// # Errors
    /// Whatever the connection fails with; the port stays open.
    pub async fn accept(&self) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        let (tcp, _) = self.listener.accept().await?;
        tcp.set_nodelay(true)?;
        let config = tls::relay_server_config(&self.server.certificate).map_err(io::Error::other)?;
        TlsAcceptor::from(config).accept(tcp).await
    }

    /// Both ends of a new connection after its handshake: the dialler's first.
    ///
    /// # Errors
    /// Whatever the connection fails with.
    pub async fn pair(
        &self,
    ) -> io::Result<(
        impl AsyncRead + AsyncWrite + Send + Unpin + use<>,
        impl AsyncRead + AsyncWrite + Send + Unpin + use<>,
    )> {
        let address = self.listener.local_addr()?;
        let dial = async {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let connector = TlsConnector::from(self.client.client.clone());
            connector.connect(rustls_pki_types::ServerName::IpAddress(address.ip().into()), tcp).await
        };
        let accept = async {
            let (tcp, _) = self.listener.accept().await?;
            tcp.set_nodelay(true)?;
            TlsAcceptor::from(self.server.server.clone()).accept(tcp).await
        };
        tokio::try_join!(dial, accept)
    }
}
