//! The pages of the dashboard: files that were built from `web/dashboard` and are part of the binary.
//!
//! They are public and say nothing of the node: everything they show comes through [`crate::console`]. A build without
//! them serves one plain page that says how to get them. Builds with debug assertions read them from the checkout.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rust_embed::RustEmbed;

use crate::body::AnswerBody;
use crate::refusal::Code;
use crate::routes::Answer;

/// Where the pages are.
const ROOT: &str = "/dashboard/";
/// What a page may load, and from where: its own files and answers, nothing else. No script or style in a page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
/// Files whose name has a hash of their content.
const HASHED: &str = "assets/";
/// Bytes from which a text is worth compressing.
const GZIP_MIN: usize = 1_024;
/// What stands in for the pages where they were not built.
const PLAIN: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Sealtide</title>\
                     <h1>The dashboard is not part of this build</h1>\
                     <p>The node works without it: <code>sealtide status</code> and <code>sealtide --help</code> do \
                     everything that the pages do.</p>\
                     <p>To get it, install Node 20 or newer and npm, then run <code>make build</code> in the \
                     checkout: it builds <code>web/dashboard</code> and puts it into the binary.</p></html>\n";

#[derive(RustEmbed)]
#[folder = "../../web/dashboard/dist"]
#[allow_missing = true]
struct Pages;

/// Answers a request for a page, or for the way there; `None` for every other path.
pub(crate) fn serve(request: &Request<Incoming>) -> Option<Result<Answer, Code>> {
    let path = request.uri().path();
    let is_way = path == "/" || path == "/dashboard";
    let file = path.strip_prefix(ROOT);
    if !is_way && file.is_none() {
        return None;
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Some(Err(Code::Method));
    }
    Some(match file {
        // Relative, for a proxy that serves the door under a prefix.
        None => Ok(moved()),
        Some(file) => page(file, takes_gzip(request.headers())).ok_or(Code::NotFound),
    })
}

fn moved() -> Answer {
    let mut answer = Response::new(AnswerBody::default());
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("dashboard/"));
    answer
}

fn page(file: &str, gzip: bool) -> Option<Answer> {
    let file = if file.is_empty() { "index.html" } else { file };
    let (bytes, media) = match Pages::get(file) {
        Some(found) => (Bytes::from(found.data.into_owned()), found.metadata.mimetype().to_owned()),
        None if file == "index.html" => (Bytes::from_static(PLAIN.as_bytes()), "text/html".to_owned()),
        None => return None,
    };
    let is_text = media.starts_with("text/") || media.contains("javascript") || media.contains("svg");
    let packed = (gzip && is_text && bytes.len() >= GZIP_MIN).then(|| packed(&bytes)).flatten();
    let is_packed = packed.is_some();
    let mut answer = Response::new(AnswerBody::from(packed.unwrap_or(bytes)));
    let headers = answer.headers_mut();
    let media = if media.starts_with("text/") { format!("{media}; charset=utf-8") } else { media };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&media).ok()?);
    if is_packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let kept = if file.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    for (name, value) in [
        (header::CACHE_CONTROL, kept),
        (header::VARY, "accept-encoding"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(answer)
}

fn packed(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|coding| coding.trim() == "gzip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_the_pages() {
        for path in ["../package.json", "..%2fpackage.json", "/etc/passwd", "assets/../../package.json", "nothing.js"] {
            assert!(page(path, false).is_none(), "{path}");
        }
        let answer = page("", false).unwrap();
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    }
}
