//! A release bundle that somebody brings: `PUT /bundle/{name}/{version}`. Spec: gateway §1.2 E13.
//!
//! ```text
//! role, origin, length, token ──▶ file (bounded, piece by piece) ──▶ BundleTaker::take: verified, durable, told ──▶ 201
//! ```
//!
//! One comes at a time. What is not taken is removed, whatever the reason.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::app::App;
use crate::handshake::single;
use crate::refusal::Code;
use crate::routes::{Answer, json, unstored};
use crate::server::Shared;

/// Pieces that wait for the disk.
const PIECES: usize = 4;

/// Takes release bundles. Everything here may wait for the disk.
pub trait BundleTaker: Send + Sync {
    /// The place for a bundle that comes. It is the caller's until the [`UploadPlace`] is dropped, and then it is empty.
    ///
    /// # Errors
    /// [`Code::Overload`] while another one comes, [`Code::StorageError`].
    fn place(&self) -> Result<UploadPlace, Code>;
    /// Verifies the whole file that was brought for a name and a version, and publishes it: durable when this returns. The
    /// manifest comes back, as JSON text.
    ///
    /// # Errors
    /// [`Code::InvalidField`] for another name or version than the manifest's, [`Code::StateConflict`] for a version that is out,
    /// [`Code::BundleInvalid`] for a hash, signature, key, `seq` or `prev` that is not what it must be.
    fn take(&self, upload: &Upload<'_>) -> Result<String, Code>;
}

/// A bundle that has come, as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// The app, as the path says.
    pub name: &'a str,
    /// `1.0.0`, or `1.0.0~lts` for another channel.
    pub version: &'a str,
    /// The file; nothing of it is verified.
    pub file: &'a Path,
    /// Who brings it; none: somebody on this machine without a bearer.
    pub by: Option<&'a str>,
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
pub struct UploadPlace {
    path: PathBuf,
    // Frees the one place.
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl UploadPlace {
    /// At a path, for whoever has the turn.
    pub fn new(path: PathBuf, turn: tokio::sync::OwnedMutexGuard<()>) -> Self {
        Self { path, _turn: turn }
    }
}

impl Drop for UploadPlace {
    fn drop(&mut self) {
        // A file that stays is written over by the next one.
        let _ = fs::remove_file(&self.path);
    }
}

/// Receives, verifies and publishes. Whoever calls this has looked at role, origin and token.
// Spec: GW-72
pub(crate) async fn serve(
    shared: &Shared,
    app: Arc<dyn App>,
    by: Option<String>,
    (name, version): (String, String),
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    let place = on_disk(&app, |taker| taker.place()).await?;
    let place = receive(shared, request.into_body(), place).await?;
    let manifest = on_disk(&app, move |taker| {
        let upload = Upload { name: &name, version: &version, file: &place.path, by: by.as_deref() };
        taker.take(&upload)
    });
    Ok(unstored(json(StatusCode::CREATED, &manifest.await?)))
}

/// The length that a request names, if it may be that long.
///
/// # Errors
/// [`Code::PayloadTooLarge`], [`Code::InvalidField`] for a length that is none, or that is missing where no pieces are told.
pub(crate) fn check_length(headers: &http::HeaderMap, bytes_max: u64) -> Result<(), Code> {
    match single(headers, "content-length") {
        Some(length) => match length.parse::<u64>() {
            Ok(0) | Err(_) => Err(Code::InvalidField),
            Ok(length) if length > bytes_max => Err(Code::PayloadTooLarge),
            Ok(_) => Ok(()),
        },
        None if headers.contains_key(header::TRANSFER_ENCODING) => Ok(()),
        None => Err(Code::InvalidField),
    }
}

/// Writes a body to a file, as fast as the disk takes it. A piece may be so late, and the whole too.
async fn receive(shared: &Shared, mut body: Incoming, place: UploadPlace) -> Result<UploadPlace, Code> {
    let settings = &shared.door.settings;
    let patience = Duration::from_millis(settings.idle_timeout_ms.max(1));
    let end = Instant::now() + Duration::from_millis(settings.upload_timeout_ms);
    let (send, pieces) = mpsc::channel(PIECES);
    // The place stays with whoever writes: a caller that goes away leaves it to nobody else before that is done.
    let writing = tokio::task::spawn_blocking(move || write(&place.path, pieces).map(|()| place));
    let mut left = settings.bundle_bytes_max;
    let received = async {
        while let Some(frame) = timeout(patience, body.frame()).await.map_err(|_| Code::InvalidField)? {
            // A caller that goes away in the middle is told nothing any more.
            let Ok(piece) = frame.map_err(|_| Code::InvalidField)?.into_data() else { continue };
            left = left.checked_sub(piece.len() as u64).ok_or(Code::PayloadTooLarge)?;
            // When nobody takes pieces any more the writing has failed, and says so itself.
            if send.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let received = timeout_at(end, received).await.unwrap_or(Err(Code::InvalidField));
    drop(send);
    let written = writing.await.map_err(|_| Code::StorageError)?;
    received?;
    written.map_err(|error| {
        tracing::warn!(%error, "a bundle that came was not written");
        Code::StorageError
    })
}

fn write(path: &Path, mut pieces: mpsc::Receiver<Bytes>) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece)?;
    }
    Ok(())
}

/// Asks the taker on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    app: &Arc<dyn App>,
    ask: impl FnOnce(&dyn BundleTaker) -> Result<T, Code> + Send + 'static,
) -> Result<T, Code> {
    let app = app.clone();
    let work = move || app.bundle_taker().map_or(Err(Code::NotFound), ask);
    tokio::task::spawn_blocking(work).await.map_err(|_| Code::StorageError)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_length_is_told_and_bounded() {
        let check = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            check_length(&headers, 10)
        };
        assert_eq!(check("content-length", "10"), Ok(()));
        assert_eq!(check("transfer-encoding", "chunked"), Ok(()));
        assert_eq!(check("content-length", "11"), Err(Code::PayloadTooLarge));
        for wrong in ["0", "ten", "-1", "99999999999999999999"] {
            assert_eq!(check("content-length", wrong), Err(Code::InvalidField), "{wrong}");
        }
        assert_eq!(check("accept", "x"), Err(Code::InvalidField), "a body without a length");
    }
}
