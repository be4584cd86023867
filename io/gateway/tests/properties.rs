//! The fuzz targets of the door in every run: random input, and what is mutated out of good input.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use sealtide_gateway::fuzzing;

const HEAD: &str = "/version/ws?csrf=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
Host: 127.0.0.1:8443
Upgrade: websocket
Connection: keep-alive, Upgrade
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Origin: http://127.0.0.1:8443
X-Forwarded-For: 192.0.2.1, 127.0.0.1, [2001:db8::1]:80
X-Forwarded-Host: tides.example
Forwarded: for=\"[2001:db8::1]\";proto=https
Authorization: Bearer x
Sec-WebSocket-Protocol: tes-ui-v1, tes-token.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=\"15\"";

const OFFERS: &str = "tes-ui-v2, tes-ui-v1, tes-token.AAAA, tes-subproto-v1, other
permessage-deflate; server_max_window_bits=9; client_max_window_bits, permessage-deflate";

const MESSAGE: &str = r#"{"type":"bump","id":"x","scope":"minor","entityId":"a","cascade":true,"dryRun":false,"keyVersion":"v2","a":[{"b":[1e3,null,"\ud83d\ude00"]}]}"#;

/// Frames that make sense: a text in three fragments with a ping between them, compressed data, a close.
fn stream() -> Vec<u8> {
    let masked = |first: u8, payload: &[u8]| {
        let mask = [0x37, 0xfa, 0x21, 0x3d];
        let body = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [first, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(body).collect::<Vec<u8>>()
    };
    [
        vec![7],
        masked(0x01, "κόσ".as_bytes()),
        masked(0x89, b"ping"),
        masked(0x00, &"με".as_bytes()[..1]),
        masked(0x80, &"με".as_bytes()[1..]),
        masked(0xc1, &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
        masked(0x88, &[0x03, 0xe8, b'x']),
    ]
    .concat()
}

/// `good` with some bytes set, taken out, or doubled.
fn mutated(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..3), 0..6).prop_map(move |changes| {
        let mut bytes = good.clone();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 if bytes.len() > 1 => {
                    bytes.remove(at);
                }
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

fn input(good: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..300), 3 => mutated(good)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000 * scale()))]

    #[test]
    fn heads(bytes in input(HEAD.as_bytes().to_vec())) {
        fuzzing::head(&bytes);
    }

    #[test]
    fn frames(bytes in input(stream())) {
        fuzzing::frames(&bytes);
    }

    #[test]
    fn compressed(bytes in input(vec![0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00])) {
        fuzzing::compressed(&bytes);
    }

    #[test]
    fn offers(bytes in input(OFFERS.as_bytes().to_vec())) {
        fuzzing::offers(&bytes);
    }

    #[test]
    fn messages(bytes in input(MESSAGE.as_bytes().to_vec())) {
        fuzzing::message(&bytes);
    }
}

/// What the mutations start from is good: the properties see more than refusals.
#[test]
fn the_seeds_are_good() {
    use bytes::BytesMut;
    use sealtide_gateway::{FrameLimits, Receiver};

    let mut receiver = Receiver::new(FrameLimits { message_bytes: 4_096, fragments: 8, ratio: 20 }, true);
    let (mut buffer, mut events) = (BytesMut::from(&stream()[1..]), 0);
    while receiver.next(&mut buffer).unwrap().is_some() {
        events += 1;
    }
    assert_eq!(events, 4);
    assert!(MESSAGE.parse::<serde_json::Value>().is_ok());
}

fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
