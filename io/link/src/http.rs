//! The one HTTP exchange of a direct path: the upgrade at `/st/v1/link`. Everything else is a 404. Spec: link C.13.
//!
//! Heads are read byte-bounded and strict; what follows a head belongs to the WebSocket and is handed back.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use yawc::WebSocket;

/// The path of the link door.
pub const LINK_PATH: &str = "/st/v1/link";
/// Bytes of a request or response head, the final empty line included. Spec: link C.12.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header lines in a head. Spec: link C.12.
pub const HEADERS_MAX: usize = 32;

/// What every request gets that is not a proper upgrade of a peer: no server name, no body, no hint.
// Spec: LK-67
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Why the HTTP exchange led to no WebSocket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum UpgradeError {
    /// The connection broke.
    #[error("the connection broke during the upgrade: {0}")]
    Io(#[from] std::io::Error),
    /// The head is too long, has too many headers or is no HTTP.
    #[error("the other end does not speak HTTP/1.1")]
    Head,
    /// A request that is not for us; it was answered with 404.
    #[error("a request that is no link upgrade")]
    NotFound,
    /// The server did not upgrade.
    #[error("the other end answered the upgrade with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The answer lacks the proof that a WebSocket server made it.
    #[error("the other end's upgrade answer is wrong")]
    Answer,
}

/// Asks for the upgrade at the link door; returns the bytes that followed the answer.
pub(crate) async fn request_upgrade<S>(stream: &mut S, host: &str) -> Result<Vec<u8>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    request_upgrade_at(stream, LINK_PATH, host).await
}

/// Asks for the upgrade at `path`; returns the bytes that followed the answer.
pub(crate) async fn request_upgrade_at<S>(stream: &mut S, path: &str, host: &str) -> Result<Vec<u8>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|e| std::io::Error::other(e.to_string()))?;
    let key = base64(&nonce);
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;

    let (head, rest) = read_head(stream).await?;
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut lines);
    match response.parse(&head) {
        Ok(httparse::Status::Complete(_)) if response.version == Some(1) => {}
        _ => return Err(UpgradeError::Head),
    }
    let status = response.code.unwrap_or(0);
    if status != 101 {
        return Err(UpgradeError::Status { status });
    }
    let headers = header_map(response.headers)?;
    let expected = upgrade_request(&key).and_then(|r| accept_of(&r)).ok_or(UpgradeError::Answer)?;
    let accepted = single(&headers, "sec-websocket-accept").is_some_and(|found| found == expected)
        && has_token(&headers, "upgrade", "websocket")
        && has_token(&headers, "connection", "upgrade")
        && !headers.contains_key("sec-websocket-extensions")
        && !headers.contains_key("sec-websocket-protocol");
    if accepted { Ok(rest) } else { Err(UpgradeError::Answer) }
}

/// Answers one request: 101 when it is a link upgrade and `peer_has_certificate`, else 404. Returns the bytes
/// that followed the request.
pub(crate) async fn answer_upgrade<S>(stream: &mut S, peer_has_certificate: bool) -> Result<Vec<u8>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    answer_upgrade_at(stream, LINK_PATH, peer_has_certificate).await
}

/// The same for the door at `path`; `welcome`: what the door knows of the peer so far is enough.
pub(crate) async fn answer_upgrade_at<S>(stream: &mut S, path: &str, welcome: bool) -> Result<Vec<u8>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    answer_with_headers(stream, path, welcome).await.map(|(_, rest)| rest)
}

/// The same; with the headers of the request.
pub(crate) async fn answer_with_headers<S>(
    stream: &mut S,
    path: &str,
    welcome: bool,
) -> Result<(HeaderMap, Vec<u8>), UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (accept, rest) = match read_head(stream).await {
        Ok((head, rest)) => (welcome.then(|| accept_at(path, &head)).flatten(), rest),
        Err(UpgradeError::Head) => (None, Vec::new()),
        Err(error) => return Err(error),
    };
    let Some((accept, headers)) = accept else {
        stream.write_all(NOT_FOUND).await?;
        stream.shutdown().await?;
        return Err(UpgradeError::NotFound);
    };
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok((headers, rest))
}

/// The accept value and the headers for a request head that is a proper upgrade at `path`.
fn accept_at(path: &str, head: &[u8]) -> Option<(String, HeaderMap)> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return None,
    }
    if parsed.version != Some(1) || parsed.method != Some("GET") || parsed.path != Some(path) {
        return None;
    }
    let headers = header_map(parsed.headers).ok()?;
    let key = single(&headers, "sec-websocket-key")?;
    let proper = single(&headers, "host").is_some()
        && has_token(&headers, "upgrade", "websocket")
        && has_token(&headers, "connection", "upgrade")
        && single(&headers, "sec-websocket-version") == Some("13")
        && is_key(key)
        && !headers.contains_key("content-length")
        && !headers.contains_key("transfer-encoding");
    if !proper {
        return None;
    }
    let accept = accept_of(&upgrade_request(key)?)?;
    Some((accept, headers))
}

/// Reads up to the empty line that ends a head. Both parts are bounded by [`HEAD_BYTES_MAX`] and one read.
async fn read_head<S>(stream: &mut S) -> Result<(Vec<u8>, Vec<u8>), UpgradeError>
where
    S: AsyncRead + Unpin,
{
    let mut head = Vec::with_capacity(1024);
    loop {
        let searched = head.len().saturating_sub(3);
        let mut chunk = [0; 1024];
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(UpgradeError::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        head.extend_from_slice(&chunk[..read]);
        if let Some(at) = head[searched..].windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = head.split_off(searched + at + 4);
            if head.len() > HEAD_BYTES_MAX {
                return Err(UpgradeError::Head);
            }
            return Ok((head, rest));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(UpgradeError::Head);
        }
    }
}

fn header_map(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, UpgradeError> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| UpgradeError::Head)?;
        let value = HeaderValue::from_bytes(line.value).map_err(|_| UpgradeError::Head)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The value of a header that occurs exactly once and is visible ASCII.
fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    let value = all.next()?.to_str().ok()?;
    all.next().is_none().then_some(value.trim())
}

fn has_token(headers: &HeaderMap, name: &str, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(token))
}

/// Whether `key` is 16 bytes in base64.
fn is_key(key: &str) -> bool {
    let bytes = key.as_bytes();
    bytes.len() == 24
        && bytes.ends_with(b"==")
        && bytes[..22].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// The request that yawc computes the accept value from: it owns the WebSocket rules (and the SHA-1 in them).
fn upgrade_request(key: &str) -> Option<Request<()>> {
    Request::builder()
        .method(Method::GET)
        .uri(LINK_PATH)
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", key)
        .body(())
        .ok()
}

fn accept_of(request: &Request<()>) -> Option<String> {
    let (answer, _upgrade) = WebSocket::upgrade(request.clone()).ok()?;
    Some(answer.headers().get("sec-websocket-accept")?.to_str().ok()?.to_owned())
}

/// Base64 with padding of the 16 bytes of a WebSocket key.
fn base64(bytes: &[u8; 16]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(24);
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text.push_str("==");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept_for(head: &[u8]) -> Option<String> {
        accept_at(LINK_PATH, head).map(|(accept, _)| accept)
    }

    const GOOD: &str = "GET /st/v1/link HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    #[test]
    fn accept_is_that_of_rfc6455() {
        assert_eq!(accept_for(GOOD.as_bytes()).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(base64(b"the sample nonce"), "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn requests_that_are_no_upgrade_are_refused() {
        for (from, to) in [
            ("GET", "POST"),
            ("/st/v1/link", "/st/v1/relay"),
            ("/st/v1/link", "/st/v1/link?x"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("Host: 127.0.0.1\r\n", ""),
            ("Upgrade: websocket\r\n", ""),
            ("Connection: Upgrade", "Connection: close"),
            ("Version: 13", "Version: 8"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="),
            ("Host:", "Content-Length: 4\r\nHost:"),
            ("Host:", "Transfer-Encoding: chunked\r\nHost:"),
            ("Host:", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost:"),
        ] {
            let bad = GOOD.replacen(from, to, 1);
            assert_ne!(bad, GOOD);
            assert_eq!(accept_for(bad.as_bytes()), None, "{from} → {to}");
        }
    }

    #[tokio::test]
    async fn both_ends_meet_and_bytes_behind_the_head_survive() {
        let (mut client, mut server) = tokio::io::duplex(64 * 1024);
        let serve = tokio::spawn(async move {
            let rest = answer_upgrade(&mut server, true).await.unwrap();
            server.write_all(b"early").await.unwrap();
            (rest, server)
        });
        let mut rest = request_upgrade(&mut client, "127.0.0.1:1").await.unwrap();
        while rest.len() < 5 {
            let mut more = [0; 5];
            let read = client.read(&mut more).await.unwrap();
            rest.extend_from_slice(&more[..read]);
        }
        assert_eq!(rest, b"early");
        assert!(serve.await.unwrap().0.is_empty());

        let (mut client, mut server) = tokio::io::duplex(64 * 1024);
        client.write_all(GOOD.as_bytes()).await.unwrap();
        client.write_all(b"\x82\x01x").await.unwrap();
        assert_eq!(answer_upgrade(&mut server, true).await.unwrap(), b"\x82\x01x");
    }

    #[tokio::test]
    async fn long_heads_and_many_headers_end_in_404() {
        for head in [
            format!("GET /st/v1/link HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX)),
            GOOD.replacen("Host:", &format!("{}Host:", "X: y\r\n".repeat(40)), 1),
            "\u{1}\u{2}\r\n\r\n".to_owned(),
        ] {
            let (mut client, mut server) = tokio::io::duplex(64 * 1024);
            client.write_all(head.as_bytes()).await.unwrap();
            assert!(matches!(answer_upgrade(&mut server, true).await, Err(UpgradeError::NotFound)));
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, NOT_FOUND);
        }
    }
}
