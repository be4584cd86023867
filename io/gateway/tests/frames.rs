//! What RFC 6455 (sections 4 to 7) and RFC 7692 say of frames, case by case.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

use bytes::BytesMut;
use proptest::prelude::*;
use sealtide_gateway::{Class, CloseCode, Deflate, Event, FrameLimits, Receiver, Sender};

const LIMITS: FrameLimits = FrameLimits { message_bytes: 65_536, fragments: 1_024, ratio: 200 };

/// A masked frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// All events of some bytes, in pieces of `step`.
fn receive(limits: FrameLimits, deflate: bool, bytes: &[u8], step: usize) -> Result<Vec<Event>, CloseCode> {
    let mut receiver = Receiver::new(limits, deflate);
    let (mut buffer, mut events) = (BytesMut::new(), Vec::new());
    for piece in bytes.chunks(step.max(1)) {
        buffer.extend_from_slice(piece);
        while let Some(event) = receiver.next(&mut buffer)? {
            events.push(event);
        }
    }
    Ok(events)
}

fn check(bytes: &[u8], wanted: Result<Vec<Event>, CloseCode>) {
    for step in [1, 2, 7, 4_096, usize::MAX] {
        assert_eq!(receive(LIMITS, false, bytes, step), wanted, "pieces of {step}");
    }
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

// Proves: GW-35
#[test]
fn messages_fragments_and_control_frames_between_them() {
    check(&frame(0x81, b"Hello"), Ok(vec![text("Hello")]));
    check(&frame(0x81, b""), Ok(vec![text("")]));
    check(&frame(0x82, &[0xff, 0]), Ok(vec![Event::Binary(vec![0xff, 0])]));
    for length in [125, 126, 127, 128, 65_535, 65_536] {
        check(&frame(0x82, &vec![7; length]), Ok(vec![Event::Binary(vec![7; length])]));
    }
    let parts =
        [frame(0x01, b"Hel"), frame(0x89, b"p"), frame(0x00, b""), frame(0x8a, b""), frame(0x80, b"lo")].concat();
    check(&parts, Ok(vec![Event::Ping(b"p".as_slice().into()), Event::Pong, text("Hello")]));
    check(&frame(0x89, &[7; 125]), Ok(vec![Event::Ping(vec![7; 125].into())]));
    let many: Vec<u8> = (0..3).flat_map(|_| frame(0x89, b"x")).collect();
    check(&many, Ok(vec![Event::Ping(b"x".as_slice().into()); 3]));
    // A character cut by a fragment is whole in the end.
    check(&[frame(0x01, &[0xce]), frame(0x80, &[0xba])].concat(), Ok(vec![text("κ")]));
}

// Proves: GW-35, GW-40
#[test]
fn what_breaks_the_framing_ends_with_1002() {
    let mut unmasked = frame(0x81, b"a");
    unmasked[1] &= 0x7f;
    let broken = [
        unmasked,
        frame(0xc1, b"a"),
        frame(0xa1, b"a"),
        frame(0x91, b"a"),
        frame(0xc9, b"a"),
        frame(0x80, b"a"),
        frame(0x00, b"a"),
        [frame(0x01, b"a"), frame(0x81, b"b")].concat(),
        [frame(0x01, b"a"), frame(0xc0, b"b")].concat(),
        [frame(0x01, b"a"), frame(0x02, b"b")].concat(),
        frame(0x09, b"a"),
        frame(0x08, b""),
        frame(0x89, &[7; 126]),
        frame(0x8a, &[7; 126]),
        frame(0x88, &[3; 126]),
        vec![0x82, 0x80 | 126, 0, 125],
        vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        vec![0x82, 0x80 | 127, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in broken {
        check(&bytes, Err(CloseCode::PROTOCOL));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&frame(0x80 | opcode, b""), Err(CloseCode::PROTOCOL));
    }
    // RSV1 where compression was agreed: not on control frames, not on continuations.
    for bytes in [frame(0xc9, b""), [frame(0x01, b"a"), frame(0xc0, b"b")].concat(), frame(0xa1, b""), frame(0x91, b"")]
    {
        assert_eq!(receive(LIMITS, true, &bytes, 1), Err(CloseCode::PROTOCOL));
    }
}

// Proves: GW-34
#[test]
fn text_that_is_no_utf8_ends_with_1007() {
    for bad in [
        &[0xff][..],
        &[0xc0, 0x80],
        &[0xed, 0xa0, 0x80],
        &[0xf4, 0x90, 0x80, 0x80],
        &[0xce],
        &[0xe2, 0x82],
        &[0xf8, 0x88, 0x80, 0x80, 0x80],
    ] {
        check(&frame(0x81, bad), Err(CloseCode::INVALID));
        check(&[frame(0x01, b"fine"), frame(0x80, bad)].concat(), Err(CloseCode::INVALID));
        check(&frame(0x82, bad), Ok(vec![Event::Binary(bad.to_vec())]));
    }
    check(&frame(0x81, "\u{0}\u{7f}\u{ffff}\u{10ffff}".as_bytes()), Ok(vec![text("\u{0}\u{7f}\u{ffff}\u{10ffff}")]));
}

// Proves: GW-34
#[test]
fn frames() {
    for bytes in [1_024, 65_536, 1 << 20] {
        let limits = FrameLimits { message_bytes: bytes, ..LIMITS };
        let whole = |length: usize| receive(limits, false, &frame(0x82, &vec![1; length]), 8_192);
        assert_eq!(whole(bytes).unwrap().len(), 1);
        assert_eq!(whole(bytes + 1), Err(CloseCode::TOO_BIG));
        let halves = |second: usize| [frame(0x02, &vec![1; bytes / 2]), frame(0x80, &vec![1; second])].concat();
        assert!(receive(limits, false, &halves(bytes / 2), 8_192).is_ok());
        assert_eq!(receive(limits, false, &halves(bytes / 2 + 1), 8_192), Err(CloseCode::TOO_BIG));
    }
    // A length that is only claimed costs nothing and is refused at once.
    assert_eq!(
        receive(LIMITS, false, &[0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], 1),
        Err(CloseCode::TOO_BIG)
    );
    let fragments = |count: usize| -> Vec<u8> {
        let first = if count == 1 { 0x82 } else { 0x02 };
        let middle = (2..count).flat_map(|_| frame(0x00, b""));
        let last = (1..count.min(2)).flat_map(|_| frame(0x80, b""));
        frame(first, b"").into_iter().chain(middle).chain(last).collect()
    };
    assert_eq!(receive(LIMITS, false, &fragments(1_024), 4_096).unwrap().len(), 1);
    assert_eq!(receive(LIMITS, false, &fragments(1_025), 4_096), Err(CloseCode::POLICY));
}

// Proves: GW-35
#[test]
fn close_frames() {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
    check(&frame(0x88, b""), Ok(vec![Event::Close(None)]));
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999] {
        check(&close(code, b"why"), Ok(vec![Event::Close(Some(CloseCode(code)))]));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        check(&close(code, b""), Err(CloseCode::PROTOCOL));
    }
    check(&frame(0x88, b"x"), Err(CloseCode::PROTOCOL));
    check(&close(1000, &[0xff]), Err(CloseCode::INVALID));
    check(&close(1000, &[b'x'; 123]), Ok(vec![Event::Close(Some(CloseCode::NORMAL))]));
}

fn agreed() -> Option<Deflate> {
    Some(Deflate { server_max_window_bits: None })
}

/// A server frame: its first byte and its payload.
fn sent(sender: &mut Sender, message: &str, class: Class) -> (u8, Vec<u8>) {
    let mut out = BytesMut::new();
    sender.text(message, class, &mut out);
    assert_eq!(out[1] & 0x80, 0, "a server does not mask");
    let head = match out[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    (out[0], out[head..].to_vec())
}

// Proves: GW-38, GW-41
#[test]
fn deflate_policy() {
    let registry = (0..41).map(|at| format!(r#"{{"id":"component:part-{at}","type":"component","currentVersion":"1.{at}.0","displayName":"Part {at}","updateStrategy":"linked-to-parent","parentVersionId":"global:main","displayInUi":true,"files":[]}}"#)).collect::<Vec<_>>().join(",");
    let sender = &mut Sender::new(agreed(), 256);
    let (first, payload) = sent(sender, &registry, Class::Public);
    assert_eq!(first, 0xc1);
    println!("{} bytes of a registry become {}", registry.len(), payload.len());
    assert!(payload.len() * 10 <= registry.len() * 4);
    let received = receive(LIMITS, true, &frame(0xc1, &payload), 100).unwrap();
    assert_eq!(received, [text(&registry)]);
    for (message, class) in [(registry.as_str(), Class::Secret), (&registry[..255], Class::Public)] {
        assert_eq!(sent(sender, message, class), (0x81, message.as_bytes().to_vec()));
    }
    assert_eq!(sent(sender, &registry[..256], Class::Signed).0, 0xc1);
    let noise = data_encoding::BASE64
        .encode(&(0..20u64).flat_map(|at| sealtide_crypto::sha256(&at.to_be_bytes())).collect::<Vec<_>>());
    let small = sent(&mut Sender::new(agreed(), 1), "x", Class::Public);
    assert_eq!(small, (0x81, b"x".to_vec()), "what would grow goes plain");
    assert!(sent(sender, &noise, Class::Public).1.len() < noise.len() + 1);
    assert_eq!(sent(&mut Sender::new(None, 256), &registry, Class::Public).0, 0x81);
    assert_eq!(Class::default(), Class::Secret);
    // No context is carried over: one message twice is twice the same bytes.
    assert_eq!(sent(sender, &registry, Class::Public), sent(sender, &registry, Class::Public));
}

// Proves: GW-39, GW-40
#[test]
fn compressed_messages() {
    let pack = |message: &str| sent(&mut Sender::for_echo(agreed()), message, Class::Public).1;
    let packed = pack("Hello, Hello, Hello");
    assert_eq!(receive(LIMITS, true, &frame(0xc1, &packed), 3).unwrap(), [text("Hello, Hello, Hello")]);
    let (head, tail) = packed.split_at(5);
    let parts = [frame(0x41, head), frame(0x89, b""), frame(0x80, tail)].concat();
    assert_eq!(receive(LIMITS, true, &parts, 3).unwrap()[1], text("Hello, Hello, Hello"));
    assert_eq!(receive(LIMITS, true, &frame(0xc1, &pack("")), 3).unwrap(), [text("")]);
    // Compressed and plain messages may take turns.
    let mixed = [frame(0x81, b"plain"), frame(0xc1, &packed), frame(0x82, b"")].concat();
    assert_eq!(receive(LIMITS, true, &mixed, 5).unwrap().len(), 3);
    assert_eq!(receive(LIMITS, true, &frame(0xc1, &pack(&"a".repeat(65_537))), 64), Err(CloseCode::TOO_BIG));
    assert_eq!(receive(LIMITS, true, &frame(0xc1, &[0xff; 9]), 64), Err(CloseCode::INVALID));
    let bytes = flate(&[0xff, 0xfe]);
    assert_eq!(receive(LIMITS, true, &frame(0xc1, &bytes), 64), Err(CloseCode::INVALID), "text after all");
    assert_eq!(receive(LIMITS, true, &frame(0xc2, &bytes), 64).unwrap(), [Event::Binary(vec![0xff, 0xfe])]);
}

fn flate(bytes: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    Sender::for_echo(agreed()).binary(bytes, Class::Public, &mut out);
    out[2..].to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000 * scale()))]

    #[test]
    fn nothing_foreign_panics_and_pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..300), deflate: bool, step in 1usize..50) {
        let limits = FrameLimits { message_bytes: 4_096, fragments: 8, ratio: 20 };
        prop_assert_eq!(receive(limits, deflate, &bytes, step), receive(limits, deflate, &bytes, usize::MAX));
    }

    /// The same with headers that make sense, so that more than the first byte is reached.
    #[test]
    fn streams_of_frames(frames in prop::collection::vec((0u8..16, 0u8..8, any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..12), deflate: bool, step in 1usize..50) {
        let limits = FrameLimits { message_bytes: 600, fragments: 4, ratio: 20 };
        let bytes: Vec<u8> = frames.iter().flat_map(|(opcode, reserved, is_final, payload)| {
            let opcode = [0, 1, 2, 0, 1, 2, 8, 9, 10, 0, 0, 1, 2, 9, 1, 2][*opcode as usize];
            let reserved = if *reserved == 0 { 0x40 } else { 0 };
            let payload = if opcode >= 8 { &payload[..payload.len().min(125)] } else { payload };
            frame(if *is_final || opcode >= 8 { 0x80 } else { 0 } | reserved | opcode, payload)
        }).collect();
        prop_assert_eq!(receive(limits, deflate, &bytes, step), receive(limits, deflate, &bytes, usize::MAX));
    }
}

fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
