//! One direct path: TLS, the upgrade, and link frames in messages. The handshake reads frame by frame; afterwards
//! the session's task takes the parts over.

use std::io;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use sealtide_wire::frame::{FrameError, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificate::NodeCertificate;
use crate::http::{self, UpgradeError};
use crate::stream::{SecureError, SecureStream};
use crate::tls::Credentials;
use crate::websocket::{End, Message, MessageError, MessageReader, MessageWriter};

/// How long the end of a refused connection may take.
const LINGER: std::time::Duration = std::time::Duration::from_millis(500);

/// A secure channel that speaks link frames.
pub(crate) struct Path {
    pub(crate) stream: SecureStream,
    pub(crate) remote: SocketAddr,
    /// The certificate that this end showed.
    pub(crate) certificate: NodeCertificate,
    pub(crate) reader: MessageReader,
    pub(crate) writer: MessageWriter,
    /// Received bytes that are no whole message yet.
    pub(crate) received: BytesMut,
    /// Frames of the last message that were not taken yet.
    pub(crate) message: Bytes,
}

/// Why a path does not come about, or no longer gives frames.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum PathError {
    #[error("{0}")]
    Connect(io::Error),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Secure(#[from] SecureError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error("not a link message: {0}")]
    Message(#[from] MessageError),
    #[error("not a link frame: {0}")]
    Frame(#[from] FrameError),
    #[error("the peer closed the connection")]
    Closed,
    #[error("a frame that is cut by the end of its message")]
    CutFrame,
    #[error("more bytes than are taken before the first frame")]
    TooMuch,
}

impl Path {
    /// TLS and upgrade from the dialling end; nothing of ours but the certificate has been shown then.
    pub(crate) async fn dial(tcp: TcpStream, remote: SocketAddr, shown: &Credentials) -> Result<Self, PathError> {
        let mut stream = SecureStream::connect(tcp, shown.client.clone(), remote.ip()).await?;
        let early = http::request_upgrade(&mut stream, &remote.to_string()).await?;
        Ok(Self::new(stream, remote, shown.certificate.clone(), End::Client, &early))
    }

    /// The listening end after TLS: answers one HTTP request.
    pub(crate) async fn answer(
        mut stream: SecureStream,
        remote: SocketAddr,
        certificate: NodeCertificate,
    ) -> Result<Self, PathError> {
        let shown = stream.peer_fingerprint().is_some();
        let early = http::answer_upgrade(&mut stream, shown).await?;
        Ok(Self::new(stream, remote, certificate, End::Server, &early))
    }

    fn new(stream: SecureStream, remote: SocketAddr, certificate: NodeCertificate, end: End, early: &[u8]) -> Self {
        Self {
            stream,
            remote,
            certificate,
            reader: MessageReader::new(end),
            writer: MessageWriter::new(end),
            received: BytesMut::from(early),
            message: Bytes::new(),
        }
    }

    /// The next whole frame of a handshake. `bytes_max` bounds what is held while it is not whole.
    pub(crate) async fn frame(&mut self, payload_max: u32, bytes_max: usize) -> Result<Bytes, PathError> {
        loop {
            if !self.message.is_empty() {
                let header = Header::parse(&self.message, payload_max)?.ok_or(PathError::CutFrame)?;
                if self.message.len() < header.frame_bytes() {
                    return Err(PathError::CutFrame);
                }
                return Ok(self.message.split_to(header.frame_bytes()));
            }
            match self.reader.next(&mut self.received)? {
                Some(Message::Frames(frames)) => {
                    if frames.len() > bytes_max {
                        return Err(PathError::TooMuch);
                    }
                    self.message = frames;
                }
                // Not answered: before the knock no byte is sent, and no handshake of ours pings.
                Some(Message::Ping(_) | Message::Pong) => {}
                Some(Message::Close) => return Err(PathError::Closed),
                None => self.read_some(bytes_max).await?,
            }
        }
    }

    /// Writes whole handshake frames, in one message.
    pub(crate) async fn send(&mut self, frames: &[Vec<u8>]) -> Result<(), PathError> {
        let mut out = BytesMut::new();
        self.writer.frames(Bytes::from(frames.concat()), &mut out);
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Ends the connection in order, so that what was written last is not lost to a reset. True when the peer has
    /// ended its direction too.
    pub(crate) async fn hang_up(&mut self) -> bool {
        let end = async {
            self.stream.shutdown().await?;
            let mut sink = [0; 1024];
            while self.stream.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        matches!(tokio::time::timeout(LINGER, end).await, Ok(Ok(())))
    }

    async fn read_some(&mut self, bytes_max: usize) -> Result<(), PathError> {
        let room = bytes_max.saturating_sub(self.received.len()).min(4096);
        if room == 0 {
            return Err(PathError::TooMuch);
        }
        let mut chunk = [0; 4096];
        let read = self.stream.read(&mut chunk[..room]).await?;
        if read == 0 {
            return Err(PathError::Closed);
        }
        self.received.extend_from_slice(&chunk[..read]);
        Ok(())
    }
}
