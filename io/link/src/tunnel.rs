//! Paths through a gateway door: the TLS of the peers in the binary messages of a WebSocket that somebody else may open
//! and close, an HTTPS port, a reverse proxy. Nothing rests on the TLS around it. Spec: link C.13.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls_pki_types::ServerName;
use sealtide_identity::RelayHint;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsConnector;

use crate::connect::connect;
use crate::http;
use crate::limits::Source;
use crate::listen;
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::{Pipe, Remote};
use crate::proxy::host_text;
use crate::relay::place_of;
use crate::tls;
use crate::websocket::{End, Message, MessageReader, MessageWriter};

/// The path of the tunnel at a gateway door.
pub const TUNNEL_PATH: &str = "/st/v1/tunnel";
/// Bytes of one message that is sent.
const CHUNK_BYTES: usize = 16 * 1024;
/// Bytes asked for in one read.
const READ_BYTES: usize = 32 * 1024;
/// WebSocket pings of a proxy that wait for their answer.
const PONGS_MAX: u32 = 16;

/// A byte stream in binary messages.
pub(crate) struct Messages<S> {
    stream: S,
    reader: MessageReader,
    writer: MessageWriter,
    received: BytesMut,
    /// What is left of the last message.
    ready: Bytes,
    /// Encoded and not taken by the stream yet.
    out: BytesMut,
    pongs: u32,
    closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Messages<S> {
    /// Over a stream that was upgraded, with the bytes that came behind the answer.
    pub(crate) fn new(stream: S, end: End, early: &[u8]) -> Self {
        Self {
            stream,
            reader: MessageReader::new(end),
            writer: MessageWriter::new(end),
            received: BytesMut::from(early),
            ready: Bytes::new(),
            out: BytesMut::new(),
            pongs: 0,
            closed: false,
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out.advance(written),
            }
        }
        self.pongs = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Messages<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.ready.is_empty() && !this.closed {
            match this.reader.next(&mut this.received).map_err(io::Error::other)? {
                Some(Message::Frames(bytes)) => this.ready = bytes,
                Some(Message::Ping(payload)) => {
                    this.pongs += 1;
                    if this.pongs > PONGS_MAX {
                        return Poll::Ready(Err(io::Error::other("more WebSocket pings than answers were taken")));
                    }
                    this.writer.pong(payload, &mut this.out);
                    // Reading never waits for writing; what does not leave now leaves with the next message.
                    if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                        return Poll::Ready(Err(error));
                    }
                }
                Some(Message::Pong) => {}
                Some(Message::Close) => this.closed = true,
                None => {
                    this.received.reserve(READ_BYTES);
                    let read = tokio_util::io::poll_read_buf(Pin::new(&mut this.stream), cx, &mut this.received);
                    if ready!(read)? == 0 {
                        this.closed = true;
                    }
                }
            }
        }
        let taken = this.ready.len().min(buf.remaining());
        buf.put_slice(&this.ready.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Messages<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let taken = data.len().min(CHUNK_BYTES);
        if taken > 0 {
            let this = &mut *self;
            this.writer.frames(Bytes::copy_from_slice(&data[..taken]), &mut this.out);
            if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A tunnel to the door at the URL of `hint`, and the TLS of a path in it.
pub(crate) async fn reach(node: Arc<Node>, hint: RelayHint, delay: Duration) -> (Remote, Result<Path, PathError>) {
    let mut remote = Remote::Tunnel(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
    sleep(delay).await;
    let path = async {
        let bad = |text: &str| PathError::Io(io::Error::other(text.to_owned()));
        let (host, port, http_path) =
            place_of(&hint.url, TUNNEL_PATH).ok_or_else(|| bad("the URL of the tunnel is malformed"))?;
        let deadline = Instant::now() + node.limits.handshake_deadline;
        let tcp = connect(&host, port, &node.proxy, deadline).await.map_err(PathError::Connect)?;
        let _slower_without = tcp.set_nodelay(true);
        remote = Remote::Tunnel(tcp.peer_addr()?);
        let name = match host.parse::<IpAddr>() {
            Ok(ip) => ServerName::IpAddress(ip.into()),
            Err(_) => ServerName::try_from(host.clone()).map_err(|_| bad("the host of the tunnel is no name"))?,
        };
        let config = tls::tunnel_client_config().map_err(|error| bad(&error.to_string()))?;
        let mut outer = TlsConnector::from(config).connect(name, tcp).await?;
        let authority = if port == 443 { host_text(&host).to_string() } else { format!("{}:{port}", host_text(&host)) };
        let early = http::request_upgrade_at(&mut outer, &http_path, &authority).await?;
        let shown = node.credentials.current(node.clock.now());
        let pipe = Pipe::other(Messages::new(outer, End::Client, &early));
        let path = Path::dial(pipe, remote, &shown).await?;
        node.counters.tls_pq.add(1);
        Ok(path)
    };
    let path = path.await;
    (remote, path)
}

/// The listening end: a stream that a gateway door has upgraded for whoever stands at `client`.
pub(crate) fn answer<S>(node: &Arc<Node>, stream: S, client: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Behind a proxy of the operator every source counts, loopback too.
    match node.gate.enter(Source::of(client, true)) {
        Ok((place, evicted)) => {
            let pipe = Pipe::other(Messages::new(stream, End::Server, &[]));
            tokio::spawn(listen::greet(node.clone(), pipe, Remote::Tunnel(client), place, evicted));
        }
        Err(turned) => {
            node.counters.rejected_rate.add(1);
            node.log.failure("tunnel", Remote::Tunnel(client), &turned);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_through_messages_both_ways_and_end() {
        let (near, far) = tokio::io::duplex(1_000);
        let (mut near, mut far) = (Messages::new(near, End::Client, &[]), Messages::new(far, End::Server, &[]));
        let sent: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let (there, back) = (sent.clone(), sent.clone());
        let dialler = async {
            near.write_all(&there).await.unwrap();
            near.flush().await.unwrap();
            let mut got = vec![0; back.len()];
            near.read_exact(&mut got).await.unwrap();
            near.shutdown().await.unwrap();
            got
        };
        let listener = async {
            let mut got = vec![0; sent.len()];
            far.read_exact(&mut got).await.unwrap();
            far.write_all(&got).await.unwrap();
            far.flush().await.unwrap();
            assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
            got
        };
        let (back, there) = tokio::join!(dialler, listener);
        assert!(back == sent && there == sent);
    }

    #[tokio::test]
    async fn what_is_no_binary_message_ends_the_tunnel_and_pings_are_answered() {
        let (mut near, far) = tokio::io::duplex(1_000);
        let mut far = Messages::new(far, End::Server, &[]);
        // A ping with mask zero, then a text message.
        near.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'x', 0x81, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
        assert!(far.read(&mut [0; 1]).await.is_err());
        let mut pong = [0; 3];
        near.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 1, b'x']);
    }
}
