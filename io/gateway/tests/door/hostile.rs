//! Every hostile behaviour in turn, beside a healthy client that keeps getting its pongs.
//!
//! The whole list runs twice: what the second round leaves behind in descriptors and memory beyond the first is lost.

use std::net::SocketAddr;
use std::time::Duration;

use sealtide_gateway::Server;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, Desk, ask, connect, door, frame, status, token};
use crate::scale;

const PING: &str = r#"{"type":"ping"}"#;
/// Far above the second that a user would notice, so that a loaded machine is no failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that a message to this door may have.
const MESSAGE: usize = 65_536;

struct Healthy(Client);

impl Healthy {
    async fn pong(&mut self, what: &str) {
        let told = timeout(PATIENCE, self.0.ask(PING)).await;
        assert_eq!(told.unwrap_or_else(|_| panic!("no pong beside {what}"))["type"], "pong", "beside {what}");
    }
}

/// Sessions that say something and then nothing.
async fn sessions(at: SocketAddr, count: usize, bytes: &[u8]) -> Vec<Client> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut client = Client::enter(at, "tes-ui-v1").await;
        let _ = timeout(Duration::from_millis(1), client.try_raw(bytes)).await;
        held.push(client);
    }
    held
}

/// Connections that say something and then nothing.
async fn connections(at: SocketAddr, count: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = connect([127, 0, 0, 1].into(), at).await;
        let _ = timeout(Duration::from_millis(1), stream.write_all(bytes)).await;
        held.push(stream);
    }
    held
}

/// What was sent as a bomb: so many zeros, packed.
fn bomb() -> Vec<u8> {
    let mut state = flate2::Compress::new(flate2::Compression::best(), false);
    let (mut packed, zeros) = (Vec::with_capacity(1 << 20), vec![0; 1 << 20]);
    for _ in 0..32 {
        state.compress_vec(&zeros, &mut packed, flate2::FlushCompress::Sync).unwrap();
    }
    packed.truncate(MESSAGE);
    packed
}

async fn round(at: SocketAddr, healthy: &mut Healthy) {
    let count = 20;
    let upgrade = format!(
        "GET /version/ws HTTP/1.1\r\nHost: {at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    );
    let asking = format!("GET /version/registry HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let body = format!(
        "POST /version/bump HTTP/1.1\r\nHost: {at}\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{{"
    );
    let heads: [(&str, Vec<u8>); 9] = [
        ("silence", Vec::new()),
        ("half a head", upgrade.clone().into_bytes()),
        ("a head without end", format!("{upgrade}X: {}", "a".repeat(100_000)).into_bytes()),
        ("a thousand lines", format!("{upgrade}{}", "X: y\r\n".repeat(1_000)).into_bytes()),
        ("TLS where there is none", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 500]].concat()),
        ("no HTTP at all", vec![0xff; 5_000]),
        ("a preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("a body that does not come", body.into_bytes()),
        ("questions whose answers nobody takes", asking.repeat(2_000).into_bytes()),
    ];
    for (what, bytes) in heads {
        let held = connections(at, count, &bytes).await;
        healthy.pong(what).await;
        drop(held);
        healthy.pong(what).await;
    }
    let deflate = "Sec-WebSocket-Extensions: permessage-deflate".to_owned();
    let deep = "[".repeat(60_000);
    let sessions_that: [(&str, Vec<u8>); 11] = [
        ("a length that is only claimed", vec![0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
        ("a message that does not end", frame(0x02, &vec![7; MESSAGE - 1])),
        ("fragments without end", [frame(0x02, b""), frame(0x00, b"").repeat(5_000)].concat()),
        ("pings without end", frame(0x89, &[7; 125]).repeat(2_000)),
        ("pongs without end", frame(0x8a, &[7; 125]).repeat(2_000)),
        ("text that is none", frame(0x81, &[0xff; 1_000])),
        ("frames of no kind", frame(0xb7, &[7; 100])),
        ("JSON that is deep", frame(0x81, deep.as_bytes())),
        ("refreshes that nobody reads", frame(0x81, br#"{"type":"refresh"}"#).repeat(3_000)),
        ("tokens that are none", frame(0x82, &[b"\x01".as_slice(), &[b'A'; 43]].concat()).repeat(100)),
        ("a close, and more behind it", [frame(0x88, &[3, 0xe8]), vec![0xff; 50_000]].concat()),
    ];
    for (what, bytes) in sessions_that {
        let held = sessions(at, count, &bytes).await;
        healthy.pong(what).await;
        drop(held);
        healthy.pong(what).await;
    }
    let bomb = frame(0xc2, &bomb());
    for _ in 0..count {
        let lines = [format!("X-TES-WS-CSRF-Token: {}", token(at).await), deflate.clone()];
        let mut client = Client::open(at, &lines, b"").await.unwrap();
        client.raw(&bomb).await;
        assert_eq!(client.closed().await, Some(1009));
        healthy.pong("a bomb").await;
    }
    for _ in 0..10 * count {
        let wrong = [format!("X-TES-WS-CSRF-Token: {}", "A".repeat(43))];
        assert!(Client::open(at, &wrong, b"").await.is_err());
        assert_eq!(status(&ask(at, "GET /api/auth/csrf-token", &["Origin: http://evil.example"], "").await), 403);
    }
    healthy.pong("tokens that nobody issued").await;
    // Connections that end in a reset instead of an end.
    for held in connections(at, count, &[]).await {
        held.set_zero_linger().unwrap();
    }
    healthy.pong("resets").await;
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Resident memory in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Waits until nobody but the healthy client is there.
async fn alone(server: &Server, healthy: &mut Healthy, wanted: usize) {
    let begin = std::time::Instant::now();
    while descriptors() > wanted || server.counts().1 > 1 {
        healthy.pong("what goes").await;
        let left = (descriptors(), server.counts().1);
        assert!(begin.elapsed() < PATIENCE, "descriptors and sessions: {left:?} instead of {wanted} and 1");
    }
}

// Proves: GW-86, GW-100
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_healthy_client_gets_its_pongs_beside_everything_hostile() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let mut healthy = Healthy(Client::enter(at, "tes-ui-v1").await);
    healthy.pong("nobody").await;
    let before = descriptors();
    round(at, &mut healthy).await;
    alone(&server, &mut healthy, before).await;
    let after_first = resident();
    for _ in 0..scale() {
        round(at, &mut healthy).await;
        alone(&server, &mut healthy, before).await;
    }
    let after_all = resident();
    println!("{before} descriptors; {after_first} KiB after one round, {after_all} KiB after {} more", scale());
    assert!(after_all < after_first + 16 * 1_024, "{after_first} KiB became {after_all} KiB");
}
