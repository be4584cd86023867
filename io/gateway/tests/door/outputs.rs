//! What leaves the door: refusals that tell nothing apart, bodies without insides, frames without secrets.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;
use sealtide_gateway::Server;
use tokio::time::{Duration, advance};

use crate::client::{Client, Desk, Still, ask, ask_from, body, door, frame, status, token};
use crate::scale;

/// Everything of an answer but the time of day.
fn undated(answer: &str) -> String {
    answer.lines().filter(|line| !line.to_lowercase().starts_with("date:")).collect::<Vec<_>>().join("\n")
}

/// Every reason for which a token can be refused, over a socket, gives the same bytes.
// Proves: GW-23, GW-14
#[tokio::test(start_paused = true)]
async fn token_refusal_uniform() {
    let _still = Still::new();
    let server = door(&Desk::new(), |settings| settings.allow_query_token = true).await;
    let at = server.address();
    let elsewhere: IpAddr = [127, 0, 0, 9].into();
    let fetched = async |from: IpAddr, purpose: &str| {
        let answer = ask_from(from, at, &format!("GET /api/auth/csrf-token?purpose={purpose}"), &[], "").await;
        body(&answer)["token"].as_str().unwrap().to_owned()
    };
    let here: IpAddr = [127, 0, 0, 1].into();
    let expired = fetched(here, "ws").await;
    advance(Duration::from_millis(300_000)).await;
    let used = fetched(here, "ws").await;
    let carried = |token: &str| vec![format!("X-TES-WS-CSRF-Token: {token}")];
    let open = Client::open(at, &carried(&used), b"").await.unwrap();
    let twice = fetched(here, "ws").await;
    let cases = [
        ("missing", vec![]),
        ("malformed", carried("short")),
        ("padded", carried(&format!("{twice}="))),
        ("unknown", carried(&"A".repeat(43))),
        ("expired", carried(&expired)),
        ("used", carried(&used)),
        ("purpose", carried(&fetched(here, "http").await)),
        ("source", carried(&fetched(elsewhere, "ws").await)),
        ("two", [carried(&twice), vec![format!("Sec-WebSocket-Protocol: tes-token.{twice}")]].concat()),
    ];
    for accept in ["*/*", "application/json"] {
        let mut answers = BTreeSet::new();
        for (why, lines) in &cases {
            let more = ["X-Request-ID: the-same-for-all".to_owned(), format!("Accept: {accept}")];
            let lines = [lines.as_slice(), &more].concat();
            let refused = Client::open(at, &lines, b"").await.err().unwrap_or_else(|| panic!("{why} gets in"));
            assert!(refused.starts_with("HTTP/1.1 403"), "{why}: {refused}");
            for token in [&expired, &used, &twice] {
                assert!(!refused.contains(token.as_str()), "{why}");
            }
            answers.insert(undated(&refused));
        }
        assert_eq!(answers.len(), 1, "{answers:#?}");
    }
    drop(open);
    assert!(Client::open(at, &carried(&twice), b"").await.is_ok(), "two carriers did not use it up");
}

/// Over a socket: header, subprotocol, query; two of them; and what the 101 says of the one that is no subprotocol.
// Proves: GW-13
#[tokio::test]
async fn token_carriers_over_a_socket() {
    async fn open(server: &Server, query: &str, lines: &[String]) -> Result<String, u16> {
        let at = server.address();
        let more: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!(
            "GET /version/ws{query} HTTP/1.1\r\nHost: {at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        let head = crate::client::head_of(at, &request).await;
        if status(&head) == 101 { Ok(head) } else { Err(status(&head)) }
    }
    for query_too in [false, true] {
        let server = door(&Desk::new(), |settings| settings.allow_query_token = query_too).await;
        let at = server.address();
        let fresh = async || token(at).await;
        let header = |token: &str| format!("X-TES-WS-CSRF-Token: {token}");
        let offer = |token: &str| format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{token}");
        assert!(open(&server, "", &[header(&fresh().await)]).await.is_ok());
        let one = fresh().await;
        let head = open(&server, "", &[offer(&one)]).await.unwrap();
        let selected = head.to_lowercase();
        assert!(selected.contains("sec-websocket-protocol: tes-ui-v1\r\n") && !head.contains(&one), "{head}");
        let alone = fresh().await;
        let head = open(&server, "", &[format!("Sec-WebSocket-Protocol: tes-token.{alone}")]).await.unwrap();
        assert!(!head.to_lowercase().contains("sec-websocket-protocol"), "a carrier is no offer: {head}");
        let query = open(&server, &format!("?csrf={}", fresh().await), &[]).await;
        assert_eq!(query.err(), if query_too { None } else { Some(403) });
        let (one, two) = (fresh().await, fresh().await);
        for lines in
            [vec![header(&one), offer(&two)], vec![header(&one), header(&two)], vec![header(&one), offer(&one)]]
        {
            assert_eq!(open(&server, "", &lines).await.err(), Some(403));
        }
        let both = open(&server, &format!("?csrf={two}"), &[header(&one)]).await;
        assert_eq!(both.err(), if query_too { Some(403) } else { None }, "a query that is off is none");
    }
}

/// Guesses at a secret change no length: the secret is in no frame, compressed or not.
// Proves: GW-38, GW-41
#[tokio::test]
async fn no_secret_in_frames() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let (own, later) = (token(at).await, token(at).await);
    let lines = [
        format!("X-TES-WS-CSRF-Token: {own}"),
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".to_owned(),
    ];
    let mut client = Client::open(at, &lines, b"").await.unwrap();
    // The key's text, and both tokens: the one of this session and one that is out.
    let secrets = ["a1".repeat(32), own.clone(), later.clone()];
    for request in ["refresh", "bump\",\"dryRun\":true,\"entityId\":\"api:sample"] {
        for secret in &secrets {
            let mut sizes = BTreeSet::new();
            for right in [true, false] {
                for length in [4, 8, 16, 32] {
                    // A wrong guess of the same letters: reversed.
                    let guess: String = secret.chars().take(length).collect();
                    let guess = if right { guess } else { guess.chars().rev().collect() };
                    let id = format!("{guess:.<64}");
                    client.send(&format!(r#"{{"type":"{request}","id":"{id}"}}"#)).await;
                    let (first, payload) = client.frame().await.unwrap();
                    assert_eq!(first, 0xc1, "compressed: that is what could tell");
                    let text = inflate(&payload);
                    assert!(text.contains(&id) && secrets.iter().all(|secret| !text.contains(secret)), "{text}");
                    sizes.insert((length, payload.len() / 8));
                }
            }
            // Lengths in classes of eight bytes: as many as there are lengths of guesses, or the two next to each other.
            let spread = |length| {
                let classes: Vec<usize> = sizes.iter().filter(|(at, _)| *at == length).map(|(_, size)| *size).collect();
                classes.iter().max().unwrap() - classes.iter().min().unwrap()
            };
            assert!([4, 8, 16, 32].into_iter().all(|length| spread(length) <= 1), "{request}: {sizes:?}");
        }
    }
    // What answers a renewal goes plain, however long, and says nothing of the token.
    let id = "x".repeat(64);
    client.send(&format!(r#"{{"type":"renew","id":"{id}","token":"{later}"}}"#)).await;
    let (first, payload) = client.frame().await.unwrap();
    let text = String::from_utf8(payload).unwrap();
    assert!(first == 0x81 && text.contains("renewed") && !text.contains(&later), "{text}");
    client.raw(&frame(0x82, &[b"\x01", later.as_bytes()].concat())).await;
    assert_eq!(client.frame().await.unwrap().0, 0x81);
}

fn inflate(payload: &[u8]) -> String {
    let mut out = Vec::with_capacity(1 << 20);
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut state = flate2::Decompress::new(false);
    state.decompress_vec(&input, &mut out, flate2::FlushDecompress::Sync).unwrap();
    String::from_utf8(out).unwrap()
}

/// Paths of E1 to E22, aliases, and what is none.
const PATHS: [&str; 30] = [
    "/health",
    "/version/health",
    "/api/dev/version-ws/health",
    "/api/auth/csrf-token",
    "/version/ws",
    "/api/dev/version-ws",
    "/version/bump",
    "/api/dev/bump-version",
    "/version/registry",
    "/api/dev/versions",
    "/version/keys",
    "/version/verify",
    "/admin/rotate",
    "/admin/rollback",
    "/admin/force",
    "/bundle/app/1.0.0",
    "/bundle/app/1.0.0/manifest",
    "/bundle",
    "/metrics",
    "/api/lifecycle/export",
    "/admin/audit",
    "/healthz",
    "/readyz",
    "/bundle/app/head/stable",
    "/version/keys/ledger",
    "/st/v1/tunnel",
    "/",
    "/../../etc/passwd",
    "/version/%2e%2e/%00",
    "/bundle/../../HOME/gateway.key",
];

/// Stands in everything that is sent, and in nothing that comes back.
const MARK: &str = "zQ9marked";

/// What no answer may show: paths of files, names of types, words of parsers.
const INSIDES: [&str; 22] = [
    ".rs",
    "src/",
    "/root",
    "/home",
    "/tmp",
    "panicked",
    "backtrace",
    "thread '",
    "unwrap",
    "serde",
    "expected",
    " line ",
    "column",
    "Err(",
    "Error {",
    "None",
    "invalid type",
    "EOF",
    "os error",
    "::",
    "utf-8",
    "hyper",
];

fn bodies() -> impl Strategy<Value = String> {
    let object = prop::collection::vec(
        (
            prop::sample::select(vec![
                "scope",
                "type",
                "entityId",
                "entity",
                "cascade",
                "dryRun",
                "keyVersion",
                "crypto",
                "to",
                "expect",
                "payload",
                "signature",
                "x",
            ]),
            prop::sample::select(vec![
                "\"patch\"",
                "\"huge\"",
                "null",
                "true",
                "1e999",
                "[]",
                "{\"a\":1}",
                "\"zQ9marked\"",
                "\"v2\"",
                "\"ed25519\"",
                "\"../../etc/passwd\"",
                "\"\\ud800\"",
                "-0",
                "9007199254740993",
            ]),
        ),
        0..5,
    )
    .prop_map(|members| {
        let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    prop_oneof![
        4 => object,
        1 => "[ -~]{0,80}".prop_map(|text| format!("{text}{MARK}")),
        1 => Just(format!("{{\"a\":{}", "[".repeat(5_000))),
        1 => Just(String::new()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400 * scale() as u32))]

    /// Whatever is asked: an answer with a known code, nothing of what was sent, nothing of how it is made.
    // Proves: GW-87
    #[test]
    fn bodies_show_no_insides(
        path in prop::sample::select(PATHS.as_slice()),
        method in prop::sample::select(vec!["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"]),
        query in prop::sample::select(vec!["", "?purpose=zQ9marked", "?purpose=ws", "?csrf=zQ9marked", "?since=x", "?cursor=zQ9marked&limit=-1"]),
        lines in prop::collection::vec(prop::sample::select(vec![
            "Content-Type: application/json", "Content-Type: text/plain; zQ9marked", "Authorization: Bearer zQ9marked", "Authorization: zQ9marked",
            "Origin: http://zQ9marked", "Host: zQ9marked", "X-CSRF-Token: zQ9marked", "X-Key-Version: zQ9marked", "Idempotency-Key: zQ9marked",
            "X-Request-ID: {zQ9marked}", "Accept: application/json", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol: zQ9marked", "X-TES-WS-CSRF-Token: zQ9marked",
            "Forwarded: for=zQ9marked", "X-Forwarded-For: zQ9marked", "If-None-Match: zQ9marked", "Transfer-Encoding: chunked", "Expect: 100-continue",
        ]), 0..7),
        text in bodies(),
        with_token: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let server = door(&Desk::new(), |settings| settings.handshake_timeout_ms = 1_000).await;
            let at = server.address();
            let own = format!("X-CSRF-Token: {}", token(at).await);
            let lines: Vec<&str> = if with_token { lines.iter().copied().filter(|line| !line.starts_with("X-CSRF")).chain([own.as_str()]).collect() } else { lines };
            ask(at, &format!("{method} {path}{query}"), &lines, &text).await
        });
        check_refusal(&answer);
    }
}

fn check_refusal(answer: &str) {
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    if head.is_empty() || status(head) < 400 {
        return;
    }
    // What hyper refuses before it is a request has no body.
    assert!(!answer.contains(MARK), "{answer}");
    for inside in INSIDES {
        assert!(!text.contains(inside), "{inside:?} in {answer}");
    }
    if text.starts_with('{') {
        let told: serde_json::Value = serde_json::from_str(text).unwrap();
        let members: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(members, ["success", "error", "code", "hsl", "requestId"], "{answer}");
        assert!(
            told["code"]
                .as_str()
                .unwrap()
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'0'..=b'9'))
        );
    } else {
        assert!(text.len() < 80 && text.lines().count() <= 1, "{answer}");
    }
}
