//! One path: TLS over its pipe, on TCP the upgrade, and link frames. The handshake reads frame by frame; afterwards
//! the session's task takes the parts over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use sealtide_wire::frame::{FrameError, Header};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use crate::certificate::NodeCertificate;
use crate::framing::Framing;
use crate::http::{self, UpgradeError};
use crate::inspection::ForeignCertificate;
use crate::pipe::{Pipe, Remote};
use crate::stream::{SecureError, SecureStream};
use crate::tls::Credentials;
use crate::websocket::{End, Message, MessageError};

/// Bytes read from TLS in one go.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// As long as little comes: most sessions say a few words and rest, and a large buffer that is given back leaves holes
/// between what thousands of sessions keep.
const READ_BYTES_MIN: usize = 8 * 1024;
/// How long the end of a refused connection may take.
const LINGER: std::time::Duration = std::time::Duration::from_millis(500);

/// A secure channel that speaks link frames.
pub(crate) struct Path {
    pub(crate) stream: SecureStream,
    pub(crate) remote: Remote,
    /// The certificate that this end showed.
    pub(crate) certificate: NodeCertificate,
    pub(crate) framing: Framing,
    /// Received bytes that are no whole message yet.
    pub(crate) received: BytesMut,
    /// Frames of the last message that were not taken yet.
    pub(crate) message: Bytes,
    /// Room for one read: it follows what comes.
    room: usize,
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

impl PathError {
    /// Who inspects TLS on the way, as far as the certificate there says.
    pub(crate) fn inspected_by(&self) -> Option<String> {
        match self {
            Self::Secure(SecureError::Io(error)) => ForeignCertificate::issuer_in(error),
            _ => None,
        }
    }
}

impl Path {
    /// TLS, and on a direct path the upgrade, from the dialling end; nothing of ours but the certificate has been
    /// shown then.
    pub(crate) async fn dial(pipe: Pipe, remote: Remote, shown: &Credentials) -> Result<Self, PathError> {
        let mut stream = SecureStream::connect(pipe, shown.client.clone()).await?;
        let (framing, early) = match remote {
            Remote::Direct(address) => {
                let early = http::request_upgrade(&mut stream, &address.to_string()).await?;
                (Framing::messages(End::Client), early)
            }
            Remote::Relay { .. } | Remote::Tunnel(_) => (Framing::Bare, Vec::new()),
        };
        Ok(Self::over(stream, remote, shown.certificate.clone(), framing, &early))
    }

    /// The listening end after TLS: on a direct path it answers one HTTP request. Whether the peer showed a
    /// certificate is looked at here for direct paths, and by [`SecureStream::connection`] for the others.
    pub(crate) async fn answer(
        mut stream: SecureStream,
        remote: Remote,
        certificate: NodeCertificate,
    ) -> Result<Self, PathError> {
        let (framing, early) = match remote {
            Remote::Direct(_) => {
                let shown = stream.peer_fingerprint().is_some();
                (Framing::messages(End::Server), http::answer_upgrade(&mut stream, shown).await?)
            }
            Remote::Relay { .. } | Remote::Tunnel(_) => (Framing::Bare, Vec::new()),
        };
        Ok(Self::over(stream, remote, certificate, framing, &early))
    }

    /// A stream that is ready, with bytes that came early.
    pub(crate) fn over(
        stream: SecureStream,
        remote: Remote,
        certificate: NodeCertificate,
        framing: Framing,
        early: &[u8],
    ) -> Self {
        let (received, message) = (BytesMut::from(early), Bytes::new());
        Self { stream, remote, certificate, framing, received, message, room: READ_BYTES_MIN }
    }

    /// One read into `received`, of at most `bytes_max` where much comes; gives how many bytes came, 0 at the end.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, bytes_max: usize) -> Poll<io::Result<usize>> {
        if self.received.capacity() - self.received.len() < self.room / 4 {
            self.received.reserve(self.room);
        }
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.received))?;
        if read >= self.room / 2 {
            self.room = (self.room * 4).min(bytes_max);
        }
        Poll::Ready(Ok(read))
    }

    /// Whether little came of late.
    pub(crate) fn is_calm(&self) -> bool {
        self.room == READ_BYTES_MIN
    }

    /// Reads small pieces from now on.
    pub(crate) fn calm(&mut self) {
        self.room = READ_BYTES_MIN;
    }

    /// Gives the buffer back when nothing is in it.
    pub(crate) fn let_go(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
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
            match self.framing.next(&mut self.received)? {
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

    /// Writes whole handshake frames, in one message where there are messages.
    pub(crate) async fn send(&mut self, frames: &[Vec<u8>]) -> Result<(), PathError> {
        let mut out = BytesMut::new();
        self.framing.frames(Bytes::from(frames.concat()), &mut out);
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// Ends the connection in order, so that what was written last is not lost to a reset. True when the peer has
    /// ended its direction too.
    pub(crate) async fn hang_up(&mut self) -> bool {
        let end = async {
            self.stream.shutdown().await?;
            std::future::poll_fn(|cx| self.stream.poll_discard(cx)).await
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

#[cfg(test)]
mod tests {
    use sealtide_crypto::Now;
    use sealtide_identity::NodeId;
    use sealtide_wire::frame::{ErrorCode, FrameType, Notice, PAYLOAD_BYTES_MAX};
    use sealtide_wire::handshake::Exporter as _;

    use super::*;
    use crate::rotation::Ages;
    use crate::tls::LiveCredentials;

    /// Both ends of a path of the kind of `remote`, over a pipe in memory.
    async fn ends(remote: Remote) -> (Path, Path) {
        let now = Now { mono_ms: 0, wall_ms: 1_795_000_000_000 };
        let (ours, theirs) = (
            LiveCredentials::make(now, Ages::default()).unwrap(),
            LiveCredentials::make(now, Ages::default()).unwrap(),
        );
        let (ours, theirs) = (ours.current(now), theirs.current(now));
        let (near, far) = tokio::io::duplex(3_000);
        let accept = async {
            let stream = SecureStream::accept(Pipe::other(far), theirs.server).await?;
            Path::answer(stream, remote, theirs.certificate).await
        };
        let (dialled, accepted) = tokio::join!(Path::dial(Pipe::other(near), remote, &ours), accept);
        (dialled.unwrap(), accepted.unwrap())
    }

    #[tokio::test]
    async fn a_path_of_every_kind_carries_frames_over_any_pipe() {
        let address = "127.0.0.1:1".parse().unwrap();
        let relay = NodeId::from_bytes([7; 32]);
        for remote in [Remote::Direct(address), Remote::Relay { relay }, Remote::Tunnel(address)] {
            let (mut dialled, mut accepted) = ends(remote).await;
            let one = Notice::new(ErrorCode::Busy).frame(FrameType::Error);
            let large = [&[FrameType::Padding.code(), 0, 0, 0, 0, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
            dialled.send(&[one.clone(), one.clone()]).await.unwrap();
            for _ in 0..2 {
                assert_eq!(accepted.frame(PAYLOAD_BYTES_MAX, 4096).await.unwrap(), one);
            }
            let (sent, got) =
                tokio::join!(accepted.send(std::slice::from_ref(&large)), dialled.frame(PAYLOAD_BYTES_MAX, 70_000));
            sent.unwrap();
            assert_eq!(got.unwrap(), large);

            let (ours, theirs) = (dialled.certificate.fingerprint(), accepted.certificate.fingerprint());
            let bound = dialled.stream.connection(ours, remote).unwrap();
            assert_eq!(bound.binding, accepted.stream.connection(theirs, remote).unwrap().binding);
            assert_eq!((bound.binding.kind(), bound.remote), (remote.kind(), remote.direct()));
            assert_eq!(dialled.stream.export("x", b"y"), accepted.stream.export("x", b"y"));
        }
    }

    #[tokio::test]
    async fn a_frame_that_never_ends_is_bounded_on_a_bare_path() {
        let (mut dialled, mut accepted) = ends(Remote::Relay { relay: NodeId::from_bytes([7; 32]) }).await;
        let begin = [[&[FrameType::Padding.code(), 0, 0, 0, 0, 0, 0xff, 0xff][..], &[0; 5_000]].concat()];
        let (_, got) = tokio::join!(dialled.send(&begin), accepted.frame(PAYLOAD_BYTES_MAX, 4096));
        assert!(matches!(got, Err(PathError::TooMuch)), "{got:?}");
    }
}
