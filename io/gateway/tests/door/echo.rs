//! What a conformance suite looks for: echo, fragments, control frames, closing, compression.

use crate::client::{Client, echo_door, frame};

async fn client() -> (sealtide_gateway::Server, Client) {
    let server = echo_door().await;
    let client = Client::open(server.address(), &[], b"").await.unwrap();
    (server, client)
}

// Proves: GW-96, GW-35
#[tokio::test]
async fn messages_come_back_with_their_opcode() {
    let (_server, mut client) = client().await;
    assert!(client.head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20, (16 << 20) - 1, 16 << 20] {
        for first in [0x81, 0x82] {
            client.raw(&frame(first, &vec![b'*'; length])).await;
            assert_eq!(client.frame().await.unwrap(), (first, vec![b'*'; length]));
        }
    }
    // The header of one more byte is enough.
    client.raw(&[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1, 1, 2, 3, 4]).await;
    assert_eq!(client.closed().await, Some(1009));
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn fragments_with_pings_between_them_and_pongs_that_nobody_asked_for() {
    let (_server, mut client) = client().await;
    let parts =
        [frame(0x01, b"frag"), frame(0x89, b"ping"), frame(0x8a, b"?"), frame(0x00, b"men"), frame(0x80, b"ts")];
    for byte in parts.concat() {
        client.raw(&[byte]).await;
    }
    assert_eq!(client.frame().await.unwrap(), (0x8a, b"ping".to_vec()));
    assert_eq!(client.frame().await.unwrap(), (0x81, b"fragments".to_vec()));
    client.raw(&frame(0x89, &[7; 125])).await;
    assert_eq!(client.frame().await.unwrap(), (0x8a, vec![7; 125]));
}

// Proves: GW-34, GW-35, GW-40, GW-96
#[tokio::test]
async fn faults_close_with_their_code() {
    let mut unmasked = frame(0x81, b"a");
    unmasked[1] &= 0x7f;
    let cases: [(Vec<u8>, Option<u16>); 13] = [
        (unmasked, Some(1002)),
        (frame(0x83, b""), Some(1002)),
        (frame(0xc1, b"a"), Some(1002)),
        (frame(0xa1, b"a"), Some(1002)),
        (frame(0x89, &[0; 126]), Some(1002)),
        (frame(0x80, b"a"), Some(1002)),
        ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), Some(1002)),
        (frame(0x81, &[0xff]), Some(1007)),
        (frame(0x88, &[0x03]), Some(1002)),
        (frame(0x88, &[0x03, 0xed]), Some(1002)),
        (frame(0x88, &[0x03, 0xe8, 0xff]), Some(1007)),
        (frame(0x88, &[0x0f, 0xa0, b'b', b'y', b'e']), Some(4000)),
        (frame(0x88, b""), None),
    ];
    let server = echo_door().await;
    for (bytes, code) in cases {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        // What follows a fault is not answered.
        client.raw(&[bytes.clone(), frame(0x81, b"after")].concat()).await;
        let (first, payload) = client.frame().await.unwrap();
        let told = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
        assert_eq!((first, told), (0x88, code), "{bytes:?}");
        assert_eq!(client.frame().await, None);
    }
}

// Proves: GW-37, GW-39, GW-96
#[tokio::test]
async fn compressed_messages_come_back_compressed() {
    let server = echo_door().await;
    let offer =
        ["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits=10".to_owned()];
    let mut client = Client::open(server.address(), &offer, b"").await.unwrap();
    let answer =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10";
    assert!(client.head.contains(answer), "{}", client.head);
    // "Hello", as RFC 7692 compresses it.
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for _ in 0..2 {
        client.raw(&frame(0xc1, &hello)).await;
        let (first, payload) = client.frame().await.unwrap();
        assert_eq!(first, 0xc1);
        // What came back is taken for a message again.
        client.raw(&frame(0xc1, &payload)).await;
        assert_eq!(client.frame().await.unwrap(), (0xc1, payload));
    }
    client.raw(&frame(0xc2, &[0xff; 8])).await;
    assert_eq!(client.closed().await, Some(1007));
}

// Proves: GW-99
#[tokio::test]
async fn pipelined_upgrade() {
    let server = echo_door().await;
    let early = frame(0x81, b"early");
    let mut client = Client::open(server.address(), &[], &early).await.unwrap();
    assert_eq!(client.frame().await.unwrap(), (0x81, b"early".to_vec()));
    // Behind a head that is refused they are nothing.
    let refused = Client::open(server.address(), &["Content-Length: 11".to_owned()], &early).await;
    assert!(refused.err().unwrap().starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn the_echo_has_health_and_nothing_else() {
    let server = echo_door().await;
    for (path, status) in [
        ("/health", "200"),
        ("/healthz", "200"),
        ("/readyz", "200"),
        ("/version/registry", "404"),
        ("/api/auth/csrf-token", "404"),
        ("/metrics", "404"),
    ] {
        let answer = crate::client::ask(server.address(), &format!("GET {path}"), &[], "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_door_that_closes_says_so() {
    let (server, mut client) = client().await;
    drop(server);
    assert_eq!(client.closed().await, Some(1001));
}

// Proves: GW-36
#[tokio::test(start_paused = true)]
async fn keepalive() {
    let (_server, mut client) = client().await;
    let begin = tokio::time::Instant::now();
    // A ping after half a minute; nobody answers, and after a minute nobody is there any more.
    assert_eq!(client.frame().await.unwrap(), (0x89, Vec::new()));
    assert_eq!(begin.elapsed().as_secs(), 30);
    while let Some((first, _)) = client.frame().await {
        assert_eq!(first, 0x89);
    }
    assert_eq!(begin.elapsed().as_secs(), 60);
    let (_server, mut answering) = self::client().await;
    let begin = tokio::time::Instant::now();
    for _ in 0..10 {
        assert_eq!(answering.frame().await.unwrap().0, 0x89);
        answering.raw(&frame(0x8a, b"")).await;
    }
    assert_eq!(begin.elapsed().as_secs(), 300);
}
