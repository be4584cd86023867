//! A message that would inflate to gigabytes: closed with 1009, and the memory of the process hardly moves.
//!
//! A test of its own process: peak memory belongs to a process as a whole.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]
#![cfg(target_os = "linux")]

use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress};
use sealtide_gateway::{Probe, Sample, Server, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Growth of peak memory in KiB.
const GROWTH_KIB: usize = 8 * 1_024;
/// Bytes of a message to the door of this test: those of the echo would be 16 MiB.
const MESSAGE: usize = 1 << 20;

struct Ready;

impl Probe for Ready {
    fn ready(&self) -> Result<(), String> {
        Ok(())
    }

    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }
}

/// A masked frame of a compressed binary message; the mask is zero.
fn frame(payload: &[u8]) -> Vec<u8> {
    [&[0xc2, 0xff], (payload.len() as u64).to_be_bytes().as_slice(), &[0; 4], payload].concat()
}

/// Zeros, packed piece by piece so that this side needs no memory either: 1 000 to 1.
fn bomb(bytes: usize) -> Vec<u8> {
    let mut state = Compress::new(Compression::best(), false);
    let (mut packed, zeros) = (Vec::with_capacity(MESSAGE), vec![0; 1 << 16]);
    while packed.len() < bytes {
        state.compress_vec(&zeros, &mut packed, FlushCompress::None).unwrap();
    }
    packed.truncate(bytes);
    packed
}

/// Peak of resident memory in KiB since it was last reset.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

async fn upgraded(at: std::net::SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {at}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    stream
}

// Proves: GW-39
#[tokio::test]
async fn inflate_bomb() {
    let settings = Settings { echo: true, max_message_bytes: Some(MESSAGE), ..Settings::default() };
    let server = Server::open(settings, "127.0.0.1:0".parse().unwrap(), Arc::new(Ready), None).await.unwrap();
    let sent = frame(&bomb(MESSAGE - 1_024));
    // A million packed bytes, near a thousand million behind them; the first goes before anything is counted.
    for round in 0..4 {
        if round == 1 {
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
        }
        let before = peak();
        let mut stream = upgraded(server.address()).await;
        stream.write_all(&sent).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [0x88, 2, 0x03, 0xf1], "1009");
        let grown = peak() - before;
        println!("round {round}: peak memory grew by {grown} KiB to {} KiB", peak());
        assert!(grown < GROWTH_KIB, "{grown} KiB");
    }
}
