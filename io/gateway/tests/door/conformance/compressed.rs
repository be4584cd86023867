//! Groups 12 and 13: compressed messages of five kinds of data, in many sizes, under every offer of the suite.
//!
//! The suite sends 1 000 messages of each size; here it is 5 times the scale. The data is made, not copied: what counts
//! is that one kind shrinks well, one badly, and one is no text.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::{BINARY, End, TEXT, finish};
use crate::client::{Client, echo_door, frame};
use crate::scale;

/// Bytes of a message, and of the fragments in which it is sent (0: in one).
const SHAPES: [(usize, usize); 18] = [
    (16, 0),
    (64, 0),
    (256, 0),
    (1_024, 0),
    (4_096, 0),
    (8_192, 0),
    (16_384, 0),
    (32_768, 0),
    (65_536, 0),
    (131_072, 0),
    (8_192, 256),
    (16_384, 256),
    (32_768, 256),
    (65_536, 256),
    (131_072, 256),
    (131_072, 1_024),
    (131_072, 4_096),
    (131_072, 32_768),
];

const OFFER: &str = "permessage-deflate; client_no_context_takeover; client_max_window_bits";

/// A kind of data: its number, its opcode, and as much of it as is asked for.
struct Data {
    number: &'static str,
    first: u8,
    bytes: Vec<u8>,
}

fn data() -> [Data; 5] {
    let size = 400_000;
    let random = |count: usize| -> Vec<u8> {
        (0..count.div_ceil(32) as u64).flat_map(|at| sealtide_crypto::sha256(&at.to_be_bytes())).take(count).collect()
    };
    let until = |make: &dyn Fn(usize) -> String| -> Vec<u8> {
        let mut text = String::new();
        for at in 0.. {
            text.push_str(&make(at));
            if text.len() >= size {
                break;
            }
        }
        text.into_bytes()
    };
    let words = ["Habe", "nun", "ach", "Philosophie", "Juristerei", "und", "Medizin", "und", "leider", "auch"];
    let picture: Vec<u8> = random(size).iter().enumerate().map(|(at, noise)| (at / 512) as u8 ^ (noise & 1)).collect();
    [
        Data {
            number: "12.1",
            first: TEXT,
            bytes: until(&|at| format!(r#"{{"id":{at},"name":"part {at}","on":{}}},"#, at % 3 == 0)),
        },
        Data { number: "12.2", first: BINARY, bytes: picture },
        Data { number: "12.3", first: BINARY, bytes: until(&|at| format!("{} ", words[at * at % 7 + at % 4])) },
        Data {
            number: "12.4",
            first: TEXT,
            bytes: until(&|at| format!("<li class=\"entry\"><a href=\"/p/{at}\">Page {at}</a></li>\n")),
        },
        Data { number: "12.5", first: BINARY, bytes: random(size) },
    ]
}

fn pack(message: &[u8], window: u8) -> Vec<u8> {
    let mut state = Compress::new_with_window_bits(Compression::default(), false, window);
    let mut out = Vec::with_capacity(message.len() + message.len() / 2 + 64);
    state.compress_vec(message, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "all of it fits");
    out.truncate(out.len() - 4);
    out
}

/// Inflates with no larger a window than was agreed; a server that uses more cannot be read.
fn unpack(payload: &[u8], window: u8, size: usize) -> Vec<u8> {
    let mut state = Decompress::new_with_window_bits(false, window);
    let mut out = Vec::with_capacity(size + 64);
    let input = [payload, &[0, 0, 0xff, 0xff]].concat();
    state.decompress_vec(&input, &mut out, FlushDecompress::Sync).unwrap();
    assert_eq!(state.total_in() as usize, input.len());
    out
}

/// Sends so many messages of a shape, each other bytes, and takes them back.
async fn trips(
    client: &mut Client,
    data: &Data,
    (size, part): (usize, usize),
    window: u8,
    count: usize,
) -> (usize, usize) {
    let (mut plain, mut packed) = (0, 0);
    for at in 0..count {
        let begin = at * 997 % (data.bytes.len() - size);
        let message = &data.bytes[begin..begin + size];
        // Cut where the text was made of ASCII only: every slice is text.
        let sent = pack(message, 15);
        let parts: Vec<&[u8]> = sent.chunks(if part == 0 { usize::MAX } else { part }).collect();
        let mut bytes = Vec::new();
        for (at, payload) in parts.iter().enumerate() {
            let opcode = if at == 0 { data.first & 0x0f | 0x40 } else { 0 };
            bytes.extend(frame(if at + 1 == parts.len() { opcode | 0x80 } else { opcode }, payload));
        }
        client.raw(&bytes).await;
        let what = format!("case {} of {size} bytes in {part}", data.number);
        let (first, payload) = client.frame().await.unwrap_or_else(|| panic!("{what}: the end"));
        assert_eq!(first, data.first | 0x40, "{what}");
        assert!(unpack(&payload, window, size) == message, "{what}");
        (plain, packed) = (plain + size, packed + payload.len());
    }
    (plain, packed)
}

// Proves: GW-35, GW-37, GW-96
#[tokio::test]
async fn group_12_compressed_messages() {
    let (server, count) = (echo_door().await, 5 * scale());
    for data in data() {
        let offer = [format!("Sec-WebSocket-Extensions: {OFFER}")];
        let mut client = Client::open(server.address(), &offer, b"").await.unwrap();
        let (mut plain, mut packed) = (0, 0);
        for shape in SHAPES {
            let (more, less) = trips(&mut client, &data, shape, 15, count).await;
            (plain, packed) = (plain + more, packed + less);
        }
        println!("{}: {count} of each size, {plain} bytes became {packed}", data.number);
        assert!(data.number == "12.5" || packed * 3 < plain * 2, "{}", data.number);
        finish(&mut client, End::Fine, data.number).await;
    }
}

// Proves: GW-35, GW-37, GW-96
#[tokio::test]
async fn group_13_offers() {
    let (server, count) = (echo_door().await, scale());
    let [json, ..] = data();
    let bits = |bits: u8| format!("{OFFER}; server_max_window_bits={bits}");
    let both = |offer: &str| format!("{offer}; server_no_context_takeover");
    let offers = [
        ("13.1", OFFER.to_owned(), 15),
        ("13.2", both(OFFER), 15),
        ("13.3", bits(9), 9),
        ("13.4", bits(15), 15),
        ("13.5", both(&bits(9)), 9),
        ("13.6", both(&bits(15)), 15),
        ("13.7", format!("{}, {}, {OFFER}", both(&bits(9)), both(OFFER)), 9),
    ];
    for (number, offer, window) in offers {
        let lines = [format!("Sec-WebSocket-Extensions: {offer}")];
        let mut client = Client::open(server.address(), &lines, b"").await.unwrap();
        let head = client.head.to_lowercase();
        let answer = head.lines().find(|line| line.starts_with("sec-websocket-extensions:")).unwrap_or_default();
        assert!(answer.contains("server_no_context_takeover; client_no_context_takeover"), "{number}: {answer}");
        assert_eq!(answer.contains("server_max_window_bits=9"), window == 9, "{number}: {answer}");
        for shape in SHAPES {
            trips(&mut client, &json, shape, window, count).await;
        }
        finish(&mut client, End::Fine, number).await;
    }
}
