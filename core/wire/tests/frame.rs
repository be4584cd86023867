//! The frame header and the error codes. Spec: link C.9.1, C.12.

use proptest::prelude::*;
use sealtide_wire::frame::{ErrorCode, Frame, FrameError, FrameType, Header, Notice, plain_frame};

#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

#[test]
fn types_are_those_of_the_table() {
    let table =
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0E, 0x0F, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x30, 0x31, 0x32, 0x33];
    assert_eq!(FrameType::ALL.map(FrameType::code), table);
    for code in 0..=255 {
        let kind = FrameType::from_code(code);
        assert_eq!(kind.is_some(), table.contains(&code), "{code:#04x}");
        assert!(kind.is_none_or(|kind| kind.is_sequenced() == (code >> 4 == 1)), "{code:#04x}");
    }
}

#[test]
fn error_codes_are_those_of_the_table() {
    assert_eq!(ErrorCode::ALL.map(ErrorCode::code), [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12]);
    assert_eq!(ErrorCode::from_code(9), None, "9 is reserved");
    assert_eq!(ErrorCode::from_code(3), Some(ErrorCode::Refused));
}

#[test]
fn header_byte_for_byte() {
    let data = Header { kind: FrameType::Data, flags: 5, channel: 0x0102, len: 3, seq: Some(0x0A0B) };
    let mut bytes = Vec::new();
    data.write(&mut bytes);
    assert_eq!(bytes, [0x10, 5, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x0A, 0x0B]);
    assert_eq!((data.bytes(), data.frame_bytes()), (16, 19));
    assert_eq!(plain_frame(FrameType::Ack, &[1, 2]), [7, 0, 0, 0, 0, 0, 0, 2, 1, 2]);
}

#[test]
fn frames_arrive_in_pieces() {
    let mut bytes = plain_frame(FrameType::Ping, &[7; 16]);
    bytes.extend(plain_frame(FrameType::Padding, &[]));
    for cut in 0..24 {
        assert_eq!(Frame::split(&bytes[..cut], 65_536), Ok(None), "{cut} bytes");
    }
    let (first, rest) = Frame::split(&bytes, 65_536).unwrap().unwrap();
    assert_eq!((first.header.kind, first.payload), (FrameType::Ping, &[7; 16][..]));
    let (second, rest) = Frame::split(rest, 65_536).unwrap().unwrap();
    assert_eq!((second.header.kind, second.payload.len(), rest.len()), (FrameType::Padding, 0, 0));
    assert_eq!(Frame::whole(&bytes, 65_536), Err(FrameError::NotOneFrame));
    assert_eq!(Frame::whole(&bytes[..24], 65_536).unwrap(), first);
}

#[test]
fn wrong_headers_are_refused_early() {
    for code in [0x00, 0x0A, 0x17, 0x1F, 0x20, 0x2F, 0x34, 0xFF] {
        assert_eq!(Header::parse(&[code], 65_536), Err(FrameError::UnknownType(code)));
    }
    let header = [0x10, 0, 0, 1, 0, 1, 0, 1];
    let too_long = FrameError::TooLong { kind: FrameType::Data, len: 65_537, max: 65_536 };
    assert_eq!(Header::parse(&header, 65_536), Err(too_long), "before the sequence number is there");
    assert_eq!(Header::parse(&header, 65_537), Ok(None));
    let zero = [0x10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(Header::parse(&zero, 65_536), Err(FrameError::SequenceZero(FrameType::Data)));
}

#[test]
fn notices() {
    let notice = Notice::with_text(ErrorCode::Protocol, &"ä".repeat(100));
    assert_eq!(notice.text.len(), 120);
    let frame = notice.frame(FrameType::Abort);
    let payload = Frame::whole(&frame, 65_536).unwrap().payload;
    assert_eq!(Notice::parse(payload), Some(notice));
    assert_eq!(Notice::with_text(ErrorCode::Protocol, &format!("x{}", "ä".repeat(100))).text.len(), 119);
    assert_eq!(Notice::parse(&[0]), None);
    assert_eq!(Notice::parse(&[0, 3, 0xFF]), None, "no UTF-8");
    assert_eq!(Notice::parse(&[&[0, 3][..], &[b'x'; 121]].concat()), None, "too long");
    let unknown = Notice::parse(&[9, 9]).unwrap();
    assert_eq!((unknown.code, ErrorCode::from_code(unknown.code)), (0x0909, None));
    let shown = Notice { code: 3, text: "\u{1b}[2J\nx".into() }.to_string();
    assert!(!shown.contains('\u{1b}') && !shown.contains('\n'), "{shown:?}");
}

prop_compose! {
    fn any_frame()(
        index in 0..FrameType::ALL.len(),
        flags in any::<u8>(),
        channel in any::<u16>(),
        seq in 1u64..,
        payload in prop::collection::vec(any::<u8>(), 0..200),
    ) -> (Header, Vec<u8>) {
        let kind = FrameType::ALL[index];
        let seq = kind.is_sequenced().then_some(seq);
        (Header { kind, flags, channel, len: payload.len() as u32, seq }, payload)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000 * scale()) })]

    #[test]
    fn frames_round_trip(frames in prop::collection::vec(any_frame(), 0..6)) {
        let mut bytes = Vec::new();
        for (header, payload) in &frames {
            header.write(&mut bytes);
            bytes.extend_from_slice(payload);
        }
        let mut rest = &bytes[..];
        for (header, payload) in &frames {
            let (frame, after) = Frame::split(rest, 200).unwrap().expect("a whole frame");
            prop_assert_eq!(frame.header, *header);
            prop_assert_eq!(frame.payload, payload.as_slice());
            rest = after;
        }
        prop_assert!(rest.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000 * scale()) })]

    // Proves: LK-28
    #[test]
    fn fuzz_frame(mut bytes in prop::collection::vec(any::<u8>(), 0..64), code in any::<u8>(), short in any::<bool>()) {
        if let Some(first) = bytes.first_mut() {
            *first = code % 0x18;
        }
        if short && bytes.len() > 8 {
            bytes[4..8].copy_from_slice(&[0, 0, 0, code % 40]);
        }
        let _ = Notice::parse(&bytes);
        match Frame::split(&bytes, 65_536) {
            Ok(Some((frame, rest))) => {
                let mut again = Vec::new();
                frame.header.write(&mut again);
                again.extend_from_slice(frame.payload);
                again.extend_from_slice(rest);
                prop_assert_eq!(again, bytes);
            }
            Ok(None) => {
                // More bytes always lead to a decision: a frame is never larger than its limit says.
                bytes.resize(65_536 + 16, 0);
                bytes[15] |= 1;
                prop_assert!(!matches!(Frame::split(&bytes, 65_536), Ok(None)));
            }
            Err(_) => {}
        }
    }
}
