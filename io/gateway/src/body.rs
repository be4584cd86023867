//! The body of an answer: a text, or a file that is sent as it is read.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use sealtide_crypto::Blake3;
use tokio::sync::mpsc;

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for a connection.
const PIECES: usize = 2;

/// What is sent.
pub(crate) enum AnswerBody {
    /// A text.
    Text(Full<Bytes>),
    /// A file.
    File(FileBody),
    /// What is made while it is sent.
    Produced(ProducedBody),
}

/// Bytes from a thread that makes them, as fast as the connection takes them.
pub(crate) struct ProducedBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    size: Option<u64>,
}

impl AnswerBody {
    /// What `produce` writes; when it fails the connection is broken.
    pub(crate) fn produced(
        size: Option<u64>,
        produce: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (send, pieces) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            let mut writer = BufWriter::with_capacity(PIECE, Pieces(send.clone()));
            if let Err(error) = produce(&mut writer).and_then(|()| writer.flush()) {
                let _ = send.blocking_send(Err(error));
            }
        });
        Self::Produced(ProducedBody { pieces, size })
    }
}

/// The way of produced bytes to their connection.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file, read by a thread that is as fast as the connection.
pub(crate) struct FileBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl FileBody {
    /// Sends `size` bytes of `file`. What stands from `payload_at` on must have the BLAKE3-256 `hash`: the last piece is held
    /// back until that is known, and the connection is broken when it is not so.
    // Spec: gateway §9.5
    pub(crate) fn new(file: File, size: u64, payload_at: u64, hash: [u8; 32]) -> Self {
        let (send, pieces) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = read(file, size, payload_at, hash, &send) {
                let _ = send.blocking_send(Err(error));
            }
        });
        Self { pieces, left: size }
    }
}

fn read(
    mut file: File,
    size: u64,
    payload_at: u64,
    wanted: [u8; 32],
    send: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let (mut hash, mut at) = (Blake3::new(), 0);
    while at < size {
        // A piece ends where the payload begins, so that only that is hashed.
        let end = if at < payload_at { payload_at } else { size };
        let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; most];
        file.read_exact(&mut piece)?;
        if at >= payload_at {
            hash.update(&piece);
        }
        at += most as u64;
        if at == size && std::mem::take(&mut hash).finish() != wanted {
            return Err(io::Error::other("the bundle is damaged"));
        }
        if send.blocking_send(Ok(piece.into())).is_err() {
            // Nobody listens any more.
            return Ok(());
        }
    }
    Ok(())
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Text(text) => Pin::new(text).poll_frame(cx).map_err(|never| match never {}),
            Self::Produced(made) => made.pieces.poll_recv(cx).map(|piece| {
                Some(piece?.map(|piece| {
                    made.size = made.size.map(|size| size.saturating_sub(piece.len() as u64));
                    Frame::data(piece)
                }))
            }),
            Self::File(file) => file.pieces.poll_recv(cx).map(|piece| {
                Some(piece?.map(|piece| {
                    file.left = file.left.saturating_sub(piece.len() as u64);
                    Frame::data(piece)
                }))
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::File(file) => SizeHint::with_exact(file.left),
            Self::Produced(made) => made.size.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::File(file) => file.left == 0,
            Self::Produced(made) => made.size == Some(0),
        }
    }
}

impl Default for AnswerBody {
    fn default() -> Self {
        Self::Text(Full::default())
    }
}

impl<T: Into<Bytes>> From<T> for AnswerBody {
    fn from(text: T) -> Self {
        Self::Text(Full::new(text.into()))
    }
}
