//! Bodies of the fuzz targets, shared with the property tests: they panic when a promise is broken.

use std::net::SocketAddr;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use crate::deflate::{deflate, inflate};
use crate::extensions::Deflate;
use crate::frames::{CloseCode, Event, FrameLimits, Receiver};
use crate::handshake::{Caller, Facts, Head, judge};
use crate::ladder::{KeyFacts, Offer, Rung};
use crate::session::read_object;
use crate::settings::{Door, Settings};
use crate::token::{Admission, AdmissionLimits};

/// Header lines of one head, at most; hyper takes no more.
const LINES_MAX: usize = 64;

/// Lines of text as a request head: the first is the target, the others are headers. Whatever stands there, nobody gets in
/// without a token, and nothing is taken.
pub fn head(input: &[u8]) {
    let (first, rest) = split_line(input);
    let uri = std::str::from_utf8(first).ok().and_then(|text| text.parse::<Uri>().ok());
    let uri = uri.unwrap_or_else(|| Uri::from_static("/version/ws"));
    let headers = headers(rest);
    let head = Head { method: &Method::GET, version: Version::HTTP_11, uri: &uri, headers: &headers };
    let tcp: SocketAddr = ([127, 0, 0, 1], 50_000).into();
    for door in doors() {
        let limits = AdmissionLimits {
            token_ttl_ms: 1_000,
            tokens: 1,
            tokens_per_source: 1,
            sessions: 1,
            sessions_per_source: 1,
        };
        let admission = Admission::new(limits);
        let keys = KeyFacts { ledger: 2, loaded: 2, v1_counts: true };
        let facts = Facts { door: &door, tcp, admission: &admission, keys, mono_ms: 0, rate: &|_| true };
        let judged = judge(&head, &facts);
        assert!(!judged.is_ok_and(|grant| grant.token.is_some()), "nobody issued a token");
        assert_eq!(admission.counts(), (0, 0));
        if let Ok(caller) = Caller::of(&door, tcp, &head) {
            assert!(door.matched_host(&caller.host).is_some(), "the matched host is ours: {:?}", caller.host);
            assert!(!caller.origin_allowed || caller.origin.is_some());
            assert!(caller.peer.is_proxy || caller.peer.client == tcp.ip(), "nobody else names a client");
        }
    }
}

/// A door for one machine, one behind a proxy, and the echo.
fn doors() -> [Door; 3] {
    let behind = Settings {
        public_host: Some("tides.example".to_owned()),
        trusted_proxies: vec![ipnet::IpNet::from(std::net::IpAddr::from([127, 0, 0, 1]))],
        use_forwarded_host: true,
        allow_query_token: true,
        ..Settings::default()
    };
    [Settings::default(), behind, Settings { echo: true, ..Settings::default() }]
        .map(|settings| Door::new(settings, ([127, 0, 0, 1], 8_443).into()).expect("these settings go together"))
}

fn headers(mut rest: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut lines = 0;
    while !rest.is_empty() && lines < LINES_MAX {
        let (line, after) = split_line(rest);
        (rest, lines) = (after, lines + 1);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn split_line(input: &[u8]) -> (&[u8], &[u8]) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&input[..end], &input[end + 1..]),
        None => (input, &[]),
    }
}

/// A stream of frames: the first byte says what was agreed and in which pieces it comes, which must not matter.
pub fn frames(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let (is_deflate, step) = (first & 1 != 0, usize::from(first >> 1) + 1);
    let limits = FrameLimits { message_bytes: 4_096, fragments: 8, ratio: 20 };
    let receive = |step: usize| -> Result<Vec<Event>, CloseCode> {
        let mut receiver = Receiver::new(limits, is_deflate);
        let (mut buffer, mut events) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            while let Some(event) = receiver.next(&mut buffer)? {
                events.push(event);
            }
        }
        Ok(events)
    };
    let whole = receive(usize::MAX);
    assert_eq!(whole, receive(step));
    for event in whole.iter().flatten() {
        let length = match event {
            Event::Text(text) => text.len(),
            Event::Binary(bytes) => bytes.len(),
            Event::Ping(bytes) => bytes.len(),
            Event::Pong | Event::Close(_) => 0,
        };
        assert!(length <= limits.message_bytes);
    }
}

/// Any bytes as a compressed message, within its bounds; and as a message, through and back.
pub fn compressed(input: &[u8]) {
    let (bytes_max, ratio) = (16_384, 200);
    if let Ok(message) = inflate(input, bytes_max, ratio) {
        assert!(message.len() <= bytes_max);
    }
    for window in [9, 15] {
        assert_eq!(inflate(&deflate(input, window), input.len(), usize::MAX).as_deref(), Ok(input));
    }
}

/// Lines of `Sec-WebSocket-Protocol` and of `Sec-WebSocket-Extensions`: what is selected was offered, and no token is.
pub fn offers(input: &[u8]) {
    let mut headers = HeaderMap::new();
    let (first, second) = split_line(input);
    for (name, line) in [("sec-websocket-protocol", first), ("sec-websocket-extensions", second)] {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(name, value);
        }
    }
    if let Some(agreed) = Deflate::negotiate(&headers) {
        assert!(agreed.server_max_window_bits.is_none_or(|bits| (9..=15).contains(&bits)));
        assert!(second.windows(18).any(|piece| piece == b"permessage-deflate"));
    }
    let Ok(offer) = Offer::read(&headers) else { return };
    let spoken = [Rung::V1, Rung::V2].into();
    for keys in [
        KeyFacts { ledger: 1, loaded: 1, v1_counts: true },
        KeyFacts { ledger: 2, loaded: 2, v1_counts: true },
        KeyFacts { ledger: 2, loaded: 2, v1_counts: false },
    ] {
        if let Ok(selected) = offer.select(&spoken, Rung::V1, true, &keys)
            && let Some(name) = selected.name
        {
            let offered = first.split(|byte| *byte == b',').any(|one| one.trim_ascii() == name.as_bytes());
            assert!(offered && !name.starts_with("tes-token."), "{name}");
        }
    }
}

/// Any text as a message of a client: what is taken is an object that is written and read as the same.
pub fn message(input: &[u8]) {
    use sealtide_ibgib::json::{Js, write};

    let Ok(text) = std::str::from_utf8(input) else { return };
    let Some(object) = read_object(text) else { return };
    let written = write(&Js::Object(object.clone())).expect("what was read can be written");
    let again = read_object(&written).expect("what was written can be read");
    assert_eq!(write(&Js::Object(again)).as_deref(), Some(written.as_str()));
    let _ = sealtide_releases::BumpRequest::read(&object, &["type", "id"], None);
}
