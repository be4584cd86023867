//! The cases of the Autobahn test suite, by their numbers, driven byte by byte over a socket against the echo.
//!
//! Every case of groups 1 to 7 runs three times: in one piece, frame by frame, and octet by octet, which covers the
//! chopping that the suite prescribes for some. What comes back must be exactly what the table says, and then the end.

mod compressed;
mod frames;
mod sizes;

use std::net::SocketAddr;

use crate::client::{Client, echo_door, frame};

/// A frame of the server: its first byte and its payload.
type Frame = (u8, Vec<u8>);

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// First bytes of frames that are not the last of their message.
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const ENDS: u8 = 0x80;

/// How a case ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The server closes with this code; what was sent behind the fault is not answered.
    Code(u16),
    /// The server answers an empty close with an empty one.
    Empty,
    /// Nothing is wrong: a close of the client is answered with its own code.
    Fine,
}

/// What is sent and what must come back.
struct Case {
    number: &'static str,
    sent: Vec<Vec<u8>>,
    back: Vec<Frame>,
    end: End,
}

/// A case at whose end the connection still stands.
fn fine(number: &'static str, sent: &[Vec<u8>], back: &[(u8, &[u8])]) -> Case {
    ends(number, sent, back, End::Fine)
}

/// A case that breaks a rule of RFC 6455.
fn fails(number: &'static str, sent: &[Vec<u8>], back: &[(u8, &[u8])]) -> Case {
    ends(number, sent, back, End::Code(1002))
}

fn ends(number: &'static str, sent: &[Vec<u8>], back: &[(u8, &[u8])], end: End) -> Case {
    let back = back.iter().map(|(first, payload)| (*first, payload.to_vec())).collect();
    Case { number, sent: sent.to_vec(), back, end }
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason].concat())
}

async fn run(cases: &[Case]) {
    let server = echo_door().await;
    for case in cases {
        let whole = case.sent.concat();
        let octets: Vec<Vec<u8>> = whole.iter().map(|byte| vec![*byte]).collect();
        for (how, pieces) in [("whole", &vec![whole.clone()]), ("frames", &case.sent), ("octets", &octets)] {
            if pieces.len() <= 2_000 {
                drive(server.address(), case, pieces, how).await;
            }
        }
    }
    println!("{} cases", cases.len());
}

async fn drive(at: SocketAddr, case: &Case, pieces: &[Vec<u8>], how: &str) {
    let what = format!("case {} ({how})", case.number);
    let mut client = Client::open(at, &[], b"").await.unwrap();
    for piece in pieces {
        client.raw(piece).await;
    }
    for wanted in &case.back {
        let got = client.frame().await.unwrap_or_else(|| panic!("{what}: the end instead of {:#x}", wanted.0));
        assert!(got == *wanted, "{what}: {:#x} of {} bytes instead of {:#x}", got.0, got.1.len(), wanted.0);
    }
    finish(&mut client, case.end, &what).await;
}

/// The close frame, and nothing behind it but the end.
async fn finish(client: &mut Client, end: End, what: &str) {
    if end == End::Fine {
        client.raw(&close(1000, b"")).await;
    }
    let (first, payload) = client.frame().await.unwrap_or_else(|| panic!("{what}: no close frame"));
    let told = payload.get(..2).map(|code| u16::from_be_bytes([code[0], code[1]]));
    let wanted = match end {
        End::Code(code) => Some(code),
        End::Empty => None,
        End::Fine => Some(1000),
    };
    assert_eq!((first, told), (CLOSE, wanted), "{what}");
    assert_eq!(client.frame().await, None, "{what}: something behind the close");
}
