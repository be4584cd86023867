//! Release bundles through the door: the list, a bundle, its manifest, the head of a channel. Spec: gateway §1.2 E14, E15,
//! E20, §9.5.

use std::fs::File;
use std::sync::Arc;

use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::app::App;
use crate::body::{AnswerBody, DownloadPlace, Payload};
use crate::refusal::Code;
use crate::routes::{Answer, json};
use crate::server::Shared;

/// Bundles in one page.
pub const PAGE_MAX: usize = 1000;
/// Bytes of a name or version in a path, at most.
const WORD_BYTES_MAX: usize = 192;
/// What a bundle is.
const BUNDLE_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.sealtide.bundle");

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

/// Answers a request for one of these paths, on a thread that may wait for the disk. A bundle takes a place among the downloads.
pub(crate) async fn serve(shared: &Shared, app: Arc<dyn App>, path: BundlePath, query: String) -> Result<Answer, Code> {
    let place = matches!(path, BundlePath::Bundle { .. }).then(|| shared.download()).transpose()?;
    tokio::task::spawn_blocking(move || {
        let shelf = app.bundles().ok_or(Code::NotFound)?;
        match path {
            BundlePath::Page => page(shelf, &query),
            BundlePath::Bundle { name, version } => shelf.open(&name, &version).map(|served| bundle(served, place)),
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

fn bundle(served: ServedBundle, place: Option<DownloadPlace>) -> Answer {
    let ServedBundle { file, size, payload_at, payload_hash, class, .. } = served;
    let mut answer = Response::new(AnswerBody::file(Payload::new(file, size, payload_at, payload_hash), place));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, BUNDLE_TYPE);
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
