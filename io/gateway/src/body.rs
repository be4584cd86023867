//! The body of an answer: a text, or what is read from the disk as it is sent.
//!
//! Each piece is read on a thread that may wait for the disk, and no thread waits for whoever takes the pieces: a reader that is slow
//! costs memory for two of them, and a place among the downloads.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use sealtide_crypto::Blake3;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;
/// Pieces that wait for a connection.
const PIECES: usize = 1;

/// What is sent.
pub(crate) enum AnswerBody {
    /// A text.
    Text(Full<Bytes>),
    /// What is read while it is sent.
    Pieces(PiecesBody),
}

/// A place among the downloads; the body that has one keeps it until its end.
pub(crate) type DownloadPlace = OwnedSemaphorePermit;

/// What gives the pieces of a body, none at the end. It may wait for the disk.
trait Source: Send + 'static {
    fn next(&mut self) -> io::Result<Option<Bytes>>;
}

/// Pieces as fast as the connection takes them.
pub(crate) struct PiecesBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    /// What is still to come, where that is known.
    left: Option<u64>,
}

impl AnswerBody {
    /// What can be read from `content`, of this size when it is known; when a read fails the connection is broken.
    pub(crate) fn read(content: Box<dyn Read + Send>, size: Option<u64>, place: DownloadPlace) -> Self {
        Self::Pieces(PiecesBody::new(content, size, Some(place)))
    }

    /// A file whose payload is checked on its way.
    pub(crate) fn file(payload: Payload, place: Option<DownloadPlace>) -> Self {
        let size = payload.size;
        Self::Pieces(PiecesBody::new(payload, Some(size), place))
    }
}

impl PiecesBody {
    fn new(mut source: impl Source, size: Option<u64>, place: Option<DownloadPlace>) -> Self {
        let (send, pieces) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            let _place = place;
            // Nothing is read that there is no room for, nor when nobody listens any more.
            while let Ok(room) = send.reserve().await {
                let read = tokio::task::spawn_blocking(move || {
                    let piece = source.next();
                    (source, piece)
                });
                let piece;
                (source, piece) = match read.await {
                    Ok(read) => read,
                    Err(error) => return room.send(Err(io::Error::other(error))),
                };
                match piece {
                    Ok(None) => return,
                    Ok(Some(piece)) => room.send(Ok(piece)),
                    Err(error) => return room.send(Err(error)),
                }
            }
        });
        Self { pieces, left: size }
    }
}

impl Source for Box<dyn Read + Send> {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let mut piece = Vec::with_capacity(PIECE);
        self.take(PIECE as u64).read_to_end(&mut piece)?;
        Ok(Some(Bytes::from(piece)).filter(|piece| !piece.is_empty()))
    }
}

/// A file with a payload that must be what its manifest says.
pub(crate) struct Payload {
    file: File,
    size: u64,
    at: u64,
    payload_at: u64,
    hash: Blake3,
    wanted: [u8; 32],
}

impl Payload {
    /// `size` bytes of `file`. What stands from `payload_at` on must have the BLAKE3-256 `hash`: the last piece is held
    /// back until that is known, and the connection is broken when it is not so.
    // Spec: gateway §9.5
    pub(crate) fn new(file: File, size: u64, payload_at: u64, hash: [u8; 32]) -> Self {
        Self { file, size, at: 0, payload_at, hash: Blake3::new(), wanted: hash }
    }
}

impl Source for Payload {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.at == self.size {
            return Ok(None);
        }
        if self.at == 0 {
            self.file.seek(SeekFrom::Start(0))?;
        }
        // A piece ends where the payload begins, so that only that is hashed.
        let end = if self.at < self.payload_at { self.payload_at } else { self.size };
        let most = usize::try_from(end - self.at).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; most];
        self.file.read_exact(&mut piece)?;
        if self.at >= self.payload_at {
            self.hash.update(&piece);
        }
        self.at += most as u64;
        if self.at == self.size && std::mem::take(&mut self.hash).finish() != self.wanted {
            return Err(io::Error::other("the bundle is damaged"));
        }
        Ok(Some(piece.into()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut *self {
            Self::Text(text) => Pin::new(text).poll_frame(cx).map_err(|never| match never {}),
            Self::Pieces(made) => made.pieces.poll_recv(cx).map(|piece| {
                Some(piece?.map(|piece| {
                    made.left = made.left.map(|left| left.saturating_sub(piece.len() as u64));
                    Frame::data(piece)
                }))
            }),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => text.size_hint(),
            Self::Pieces(made) => made.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_end_stream(),
            Self::Pieces(made) => made.left == Some(0),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    /// Whoever takes nothing holds no thread: the only one there is sends the bodies of others meanwhile.
    #[test]
    fn a_reader_that_waits_holds_a_place_and_no_thread() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().max_blocking_threads(1).build().unwrap();
        let content = vec![7; 5 * PIECE + 1];
        let places = Arc::new(Semaphore::new(2));
        let body = || {
            let place = places.clone().try_acquire_owned().unwrap();
            let size = Some(content.len() as u64);
            AnswerBody::read(Box::new(io::Cursor::new(content.clone())), size, place)
        };
        let read = runtime.block_on(async {
            let slow = body();
            // The first piece is read when this one waits for a thread, and nobody takes it.
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            let read =
                tokio::time::timeout(Duration::from_secs(60), body().collect()).await.expect("it waits for the other");
            assert_eq!(places.available_permits(), 1, "the slow one has its place");
            drop(slow);
            read
        });
        assert_eq!(read.unwrap().to_bytes(), content);
    }
}
