//! Bounds of heads, times, sources and rates, from addresses of this machine that rates hold for.

use std::net::{IpAddr, SocketAddr};

use sealtide_gateway::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant, advance, sleep};

use crate::client::{Client, Desk, Still, ask_from, body, connect, door, frame, status};

fn source(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

async fn token(from: IpAddr, at: SocketAddr) -> Result<String, u16> {
    let answer = ask_from(from, at, "GET /api/auth/csrf-token", &[], "").await;
    if status(&answer) == 200 { Ok(body(&answer)["token"].as_str().unwrap().to_owned()) } else { Err(status(&answer)) }
}

async fn enter(from: IpAddr, at: SocketAddr) -> Result<Client, String> {
    let token = token(from, at).await.map_err(|status| status.to_string())?;
    Client::open_from(from, at, &[format!("X-TES-WS-CSRF-Token: {token}")], b"").await
}

/// A door on which rates hold, and all but the one under test are off.
async fn limited(change: impl FnOnce(&mut sealtide_gateway::Settings)) -> Server {
    door(&Desk::new(), |settings| {
        settings.limits_loopback = true;
        (settings.tokens_per_second, settings.upgrades_per_second) = (0, 0);
        (settings.requests_per_second, settings.messages_per_second) = (0, 0);
        change(settings);
    })
    .await
}

// Proves: GW-86
#[tokio::test]
async fn limits() {
    let server = limited(|settings| {
        settings.sessions_per_source = Some(2);
        settings.tokens_per_source = Some(3);
    })
    .await;
    let at = server.address();
    // Places: two for each source, and another source has its own.
    let mut held = Vec::new();
    for last in [2, 3] {
        for _ in 0..2 {
            held.push(enter(source(last), at).await.unwrap());
        }
        let refused = enter(source(last), at).await.err().unwrap();
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    }
    // Tokens that wait: the one of the refusal above, and two more.
    for last in [2, 3] {
        assert!(token(source(last), at).await.is_ok() && token(source(last), at).await.is_ok());
        assert_eq!(token(source(last), at).await.err(), Some(429));
    }
    assert!(enter(source(4), at).await.is_ok());
}

/// A bucket holds what two seconds bring; the clock stands still.
// Proves: GW-86, GW-95
#[tokio::test(start_paused = true)]
async fn rates_are_counted_by_source() {
    let _still = Still::new();
    let tokens = limited(|settings| settings.tokens_per_second = 2).await;
    let upgrades = limited(|settings| settings.upgrades_per_second = 2).await;
    let requests = limited(|settings| settings.requests_per_second = 2).await;
    for last in [2, 3] {
        let from = source(last);
        for _ in 0..4 {
            assert!(token(from, tokens.address()).await.is_ok());
            assert!(enter(from, upgrades.address()).await.is_ok());
            assert_eq!(status(&ask_from(from, requests.address(), "GET /version/registry", &[], "").await), 200);
        }
        assert_eq!(token(from, tokens.address()).await.err(), Some(429));
        assert!(enter(from, upgrades.address()).await.err().unwrap().starts_with("HTTP/1.1 429"));
        let refused = ask_from(from, requests.address(), "GET /version/registry", &[], "").await;
        assert!(status(&refused) == 429 && refused.to_lowercase().contains("retry-after: 1"), "{refused}");
    }
    advance(Duration::from_millis(500)).await;
    assert!(token(source(2), tokens.address()).await.is_ok(), "half a second brings one");
    assert_eq!(token(source(2), tokens.address()).await.err(), Some(429));
}

/// Pings are counted as messages are: they cost the same.
// Proves: GW-86
#[tokio::test(start_paused = true)]
async fn messages_of_a_session_are_counted() {
    let _still = Still::new();
    for (first, payload) in [(0x81, br#"{"type":"ping"}"#.as_slice()), (0x89, b"x")] {
        let server = limited(|settings| settings.messages_per_second = 3).await;
        let mut client = enter(source(2), server.address()).await.unwrap();
        for _ in 0..6 {
            client.raw(&frame(first, payload)).await;
            assert!(matches!(client.frame().await.unwrap().0, 0x81 | 0x8a));
        }
        client.raw(&frame(first, payload)).await;
        assert_eq!(client.closed().await, Some(1008));
        let free = door(&Desk::new(), |settings| settings.messages_per_second = 3).await;
        let mut client = Client::enter(free.address(), "tes-ui-v1").await;
        for _ in 0..20 {
            client.raw(&frame(first, payload)).await;
            assert!(matches!(client.frame().await.unwrap().0, 0x81 | 0x8a), "no rates on this machine");
        }
    }
}

/// Sends `text` byte by byte, one each second, until the other end closes; the seconds that took.
async fn drip(at: SocketAddr, text: &str) -> u64 {
    let begin = Instant::now();
    let (mut reading, mut writing) = connect(source(1), at).await.into_split();
    let drip = async {
        for byte in text.bytes().cycle() {
            if writing.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        _ = reading.read_to_end(&mut answer) => {}
        () = drip => {}
    }
    begin.elapsed().as_secs()
}

// Proves: GW-86
#[tokio::test(start_paused = true)]
async fn slow_heads_and_silence_are_ended() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let slow = drip(at, "GET /health HTTP/1.1\r\nX: ").await;
    assert!((5..=6).contains(&slow), "{slow} s");
    // Nothing at all, and nothing after an answer.
    for before in ["", "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let begin = Instant::now();
        let mut stream = connect(source(1), at).await;
        stream.write_all(before.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let still = Still::new();
        while !before.is_empty() && !answer.ends_with(b"}") {
            stream.read_buf(&mut answer).await.unwrap();
        }
        drop(still);
        let _ = stream.read_to_end(&mut answer).await;
        let taken = begin.elapsed().as_secs();
        assert!((5..=10).contains(&taken), "{taken} s after {before:?}");
        assert_eq!(answer.starts_with(b"HTTP/1.1 200"), !before.is_empty());
    }
    // A body that does not come.
    let text = format!(
        "POST /version/bump HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n"
    );
    let (begin, mut stream) = (Instant::now(), connect(source(1), at).await);
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 4") && begin.elapsed().as_secs() <= 20, "{answer:?}");
}

/// Answers that nobody takes: the connection is given up, so that its place comes back.
// Proves: GW-86
#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_is_given_up() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let mut deaf = connect(source(1), at).await;
    let request = format!("GET /version/registry HTTP/1.1\r\nHost: {at}\r\n\r\n").repeat(64);
    let begin = Instant::now();
    // Writing ends in an error when the other end has gone.
    while deaf.write_all(request.as_bytes()).await.is_ok() {}
    let taken = begin.elapsed().as_secs();
    assert!((60..=180).contains(&taken), "{taken} s");
    let still = Still::new();
    let mut session = Client::enter(at, "tes-ui-v1").await;
    drop(still);
    let begin = Instant::now();
    while session.try_raw(&frame(0x81, br#"{"type":"refresh"}"#).repeat(64)).await.is_ok() {}
    let taken = begin.elapsed().as_secs();
    assert!((60..=180).contains(&taken), "{taken} s");
}
