//! Release bundles through the door: the list, a bundle, its manifest, the head of a channel; and one that is put. Spec:
//! gateway §1.2 E13, E14, E15, E20, §9.5.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::app::App;
use crate::body::{AnswerBody, FileBody};
use crate::refusal::Code;
use crate::routes::{Answer, json};

/// Bundles in one page.
pub const PAGE_MAX: usize = 1000;
/// Bytes of a name or version in a path, at most.
const WORD_BYTES_MAX: usize = 192;
/// What a bundle is.
const BUNDLE_TYPE: &str = "application/vnd.sealtide.bundle";
/// Bytes of a bundle that is put, at most.
pub const BUNDLE_BYTES_MAX: u64 = 16 << 30;
/// How long a body may stand still.
const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// Pieces that wait for the disk.
const PIECES: usize = 4;

/// Bundles behind the door. Everything here may wait for the disk.
pub trait BundleShelf: Send + Sync {
    /// A bundle whose manifest counts.
    ///
    /// # Errors
    /// [`Code::NotFound`], [`Code::BundleExpired`], [`Code::BundleInvalid`].
    fn open(&self, name: &str, version: &str) -> Result<ServedBundle, Code>;
    /// A page of those whose key (`v1/kiosk/1.0.0`) begins with `prefix` and comes after `cursor`, as JSON text.
    ///
    /// # Errors
    /// [`Code::StorageError`].
    fn page(&self, prefix: &str, tier: Option<&str>, cursor: &str, limit: usize) -> Result<String, Code>;
    /// The newest head of a channel, as JSON text.
    ///
    /// # Errors
    /// [`Code::NotFound`].
    fn head(&self, name: &str, channel: &str) -> Result<String, Code>;
}

/// Takes bundles that are put. Everything here may wait for the disk.
pub trait BundleIntake: Send + Sync {
    /// A new file for the body of one. It is the caller's to remove.
    ///
    /// # Errors
    /// [`Code::StateConflict`] when the bundle is there already, [`Code::Overload`] while another is put.
    fn scratch(&self, name: &str, version: &str) -> Result<IntakeFile, Code>;
    /// Publishes what was written there; durable when this returns. The manifest with its signatures, as JSON text.
    ///
    /// # Errors
    /// [`Code::StateConflict`], [`Code::InvalidField`] when it is another than the path says, [`Code::BundleInvalid`],
    /// [`Code::StorageError`].
    fn take(&self, name: &str, version: &str, path: &Path) -> Result<String, Code>;
}

/// A file for a body, and what goes when it is not needed any more.
pub struct IntakeFile {
    /// Open for writing, and empty.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    /// Whatever is to be held as long as the file is in use.
    pub held: Box<dyn Send>,
}

impl Drop for IntakeFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl std::fmt::Debug for IntakeFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntakeFile({})", self.path.display())
    }
}

/// A bundle that may be sent.
#[derive(Debug)]
pub struct ServedBundle {
    /// The file.
    pub file: File,
    /// Bytes of it.
    pub size: u64,
    /// Where its payload begins.
    pub payload_at: u64,
    /// BLAKE3-256 of the payload.
    pub payload_hash: [u8; 32],
    /// The class of its tier.
    pub class: &'static str,
    /// The manifest with its signatures, as JSON text.
    pub manifest: String,
}

/// What a path below `/bundle` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BundlePath {
    Page,
    Bundle { name: String, version: String },
    Manifest { name: String, version: String },
    Head { name: String, channel: String },
}

impl BundlePath {
    /// `None` for any other path; nothing in it is decoded.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/bundle")?;
        if rest.is_empty() {
            return Some(Self::Page);
        }
        let words: Vec<&str> = rest.strip_prefix('/')?.split('/').collect();
        let plain = |word: &&str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+-".contains(&byte);
            !word.is_empty() && word.len() <= WORD_BYTES_MAX && word.bytes().all(letter)
        };
        if !words.iter().all(plain) {
            return None;
        }
        let owned = |word: &str| word.to_owned();
        match words.as_slice() {
            [name, version] => Some(Self::Bundle { name: owned(name), version: owned(version) }),
            [name, "head", channel] => Some(Self::Head { name: owned(name), channel: owned(channel) }),
            [name, version, "manifest"] => Some(Self::Manifest { name: owned(name), version: owned(version) }),
            _ => None,
        }
    }
}

/// Answers a request for one of these paths, on a thread that may wait for the disk.
pub(crate) async fn serve(app: Arc<dyn App>, path: BundlePath, query: String) -> Result<Answer, Code> {
    tokio::task::spawn_blocking(move || {
        let shelf = app.bundles().ok_or(Code::NotFound)?;
        match path {
            BundlePath::Page => page(shelf, &query),
            BundlePath::Bundle { name, version } => shelf.open(&name, &version).map(bundle),
            BundlePath::Manifest { name, version } => {
                let served = shelf.open(&name, &version)?;
                let mut answer = json(StatusCode::OK, &served.manifest);
                answer.headers_mut().insert("tes-storage-class", HeaderValue::from_static(served.class));
                Ok(answer)
            }
            BundlePath::Head { name, channel } => {
                let mut answer = json(StatusCode::OK, &shelf.head(&name, &channel)?);
                answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                Ok(answer)
            }
        }
    })
    .await
    .map_err(|_| Code::StorageError)?
}

/// Writes a body to the disk and hands it over. Who asks may do so, and has given a token.
pub(crate) async fn put(
    app: Arc<dyn App>,
    (name, version): (String, String),
    request: Request<Incoming>,
) -> Result<Answer, Code> {
    let media = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media != BUNDLE_TYPE && media != "application/octet-stream" {
        return Err(Code::UnsupportedMedia);
    }
    let body = request.into_body();
    if body.size_hint().lower() > BUNDLE_BYTES_MAX {
        return Err(Code::PayloadTooLarge);
    }
    let (pieces, written) = mpsc::channel(PIECES);
    let work = tokio::task::spawn_blocking(move || {
        let intake = app.bundle_intake().ok_or(Code::NotFound)?;
        let mut made = intake.scratch(&name, &version)?;
        write_pieces(&mut made.file, written)?;
        intake.take(&name, &version, &made.path)
    });
    let read = read_pieces(body, pieces).await;
    let taken = work.await.map_err(|_| Code::StorageError)?;
    // Who stopped in the middle put nothing, whatever was made of the part that came.
    let manifest = read.and(taken)?;
    Ok(json(StatusCode::CREATED, &manifest))
}

/// A piece of a body; none is its proper end.
type Piece = Option<Bytes>;

/// Passes a body on. That the receiver is gone is no failure here: it says why itself.
async fn read_pieces(mut body: Incoming, pieces: mpsc::Sender<Piece>) -> Result<(), Code> {
    let mut size = 0;
    loop {
        let frame = timeout(PIECE_WITHIN, body.frame()).await.map_err(|_| Code::BundleInvalid)?;
        let Some(frame) = frame else {
            let _ = pieces.send(None).await;
            return Ok(());
        };
        let Ok(bytes) = frame.map_err(|_| Code::BundleInvalid)?.into_data() else { continue };
        size += bytes.len() as u64;
        if size > BUNDLE_BYTES_MAX {
            return Err(Code::PayloadTooLarge);
        }
        if pieces.send(Some(bytes)).await.is_err() {
            return Ok(());
        }
    }
}

fn write_pieces(file: &mut File, mut pieces: mpsc::Receiver<Piece>) -> Result<(), Code> {
    let storage = |_: io::Error| Code::StorageError;
    loop {
        match pieces.blocking_recv() {
            Some(Some(bytes)) => file.write_all(&bytes).map_err(storage)?,
            Some(None) => return file.flush().map_err(storage),
            // The body broke off.
            None => return Err(Code::BundleInvalid),
        }
    }
}

fn bundle(served: ServedBundle) -> Answer {
    let ServedBundle { file, size, payload_at, payload_hash, class, .. } = served;
    let mut answer = Response::new(AnswerBody::File(FileBody::new(file, size, payload_at, payload_hash)));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BUNDLE_TYPE));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert("tes-storage-class", HeaderValue::from_static(class));
    answer
}

/// `prefix`, `tier` and `cursor`, each once.
fn page(shelf: &dyn BundleShelf, query: &str) -> Result<Answer, Code> {
    let (mut prefix, mut tier, mut cursor) = (None, None, None);
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or(Code::InvalidField)?;
        let place = match name {
            "prefix" => &mut prefix,
            "tier" => &mut tier,
            "cursor" => &mut cursor,
            _ => return Err(Code::InvalidField),
        };
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+-/".contains(&byte);
        if place.is_some() || value.len() > 2 * WORD_BYTES_MAX || !value.bytes().all(letter) {
            return Err(Code::InvalidField);
        }
        *place = Some(value);
    }
    let text = shelf.page(prefix.unwrap_or_default(), tier, cursor.unwrap_or_default(), PAGE_MAX)?;
    Ok(json(StatusCode::OK, &text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_plain() {
        let bundle =
            |name: &str, version: &str| BundlePath::Bundle { name: name.to_owned(), version: version.to_owned() };
        assert_eq!(BundlePath::of("/bundle"), Some(BundlePath::Page));
        assert_eq!(BundlePath::of("/bundle/kiosk/1.0.0"), Some(bundle("kiosk", "1.0.0")));
        assert_eq!(BundlePath::of("/bundle/kiosk/1.0.0~lts"), Some(bundle("kiosk", "1.0.0~lts")));
        assert!(matches!(BundlePath::of("/bundle/kiosk/head/stable"), Some(BundlePath::Head { .. })));
        assert!(matches!(BundlePath::of("/bundle/kiosk/1.0.0/manifest"), Some(BundlePath::Manifest { .. })));
        for bad in ["/bundles", "/bundle/", "/bundle/kiosk", "/bundle/a/b/c", "/bundle/a%2f/b", "/bundle/a//manifest"] {
            assert_eq!(BundlePath::of(bad), None, "{bad}");
        }
        // Two points are a name like any other: no file is opened by it.
        assert_eq!(BundlePath::of("/bundle/../x"), Some(bundle("..", "x")));
    }
}
