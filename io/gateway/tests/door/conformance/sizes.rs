//! Group 9: long messages, many fragments, small pieces, many round trips.

use super::{BINARY, End, TEXT, finish};
use crate::client::{Client, echo_door, frame};
use crate::scale;

const KIB: usize = 1_024;
const MIB: usize = 1_024 * KIB;

/// One message, as fragments of `part` bytes and in pieces of `chop`, and back.
async fn there_and_back(client: &mut Client, first: u8, size: usize, part: usize, chop: usize) {
    let payload = vec![b'*'; size];
    let parts: Vec<&[u8]> = if size == 0 { vec![&[]] } else { payload.chunks(part).collect() };
    let count = parts.len();
    let mut sent = Vec::with_capacity(size + 16 * count);
    for (at, bytes) in parts.into_iter().enumerate() {
        let opcode = if at == 0 { first & 0x0f } else { 0 };
        sent.extend(frame(if at + 1 == count { 0x80 | opcode } else { opcode }, bytes));
    }
    for piece in sent.chunks(chop) {
        client.raw(piece).await;
    }
    let (told, back) = client.frame().await.unwrap_or_else(|| panic!("the end at {size} in {part} and {chop}"));
    assert!(told == first && back == payload, "{size} bytes in {part} and {chop}");
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn cases_9_1_and_9_2_long_messages() {
    let server = echo_door().await;
    for first in [TEXT, BINARY] {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        for size in [64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB, 16 * MIB] {
            there_and_back(&mut client, first, size, size, usize::MAX).await;
        }
        finish(&mut client, End::Fine, "9.1").await;
    }
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn cases_9_3_and_9_4_many_fragments() {
    let server = echo_door().await;
    for first in [TEXT, BINARY] {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        for part in [64, 256, KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB] {
            there_and_back(&mut client, first, 4 * MIB, part, usize::MAX).await;
        }
        finish(&mut client, End::Fine, "9.3").await;
    }
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn cases_9_5_and_9_6_small_pieces() {
    let server = echo_door().await;
    for first in [TEXT, BINARY] {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        for chop in [64, 128, 256, 512, KIB, 2 * KIB] {
            there_and_back(&mut client, first, MIB, MIB, chop).await;
        }
        finish(&mut client, End::Fine, "9.5").await;
    }
}

/// The suite has 1 000 round trips of each size: a scale of 10.
// Proves: GW-35, GW-96
#[tokio::test]
async fn cases_9_7_and_9_8_round_trips() {
    let (server, trips) = (echo_door().await, 100 * scale());
    for first in [TEXT, BINARY] {
        let mut client = Client::open(server.address(), &[], b"").await.unwrap();
        for size in [0, 16, 64, 256, KIB, 4 * KIB] {
            for _ in 0..trips {
                there_and_back(&mut client, first, size, size.max(1), usize::MAX).await;
            }
        }
        finish(&mut client, End::Fine, "9.7").await;
    }
    println!("{trips} round trips of each size");
}

// Proves: GW-35, GW-96
#[tokio::test]
async fn case_10_1_1_fragments_of_1300_bytes() {
    let server = echo_door().await;
    let mut client = Client::open(server.address(), &[], b"").await.unwrap();
    there_and_back(&mut client, TEXT, 65_536, 1_300, usize::MAX).await;
    finish(&mut client, End::Fine, "10.1.1").await;
}
