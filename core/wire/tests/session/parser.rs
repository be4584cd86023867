//! Foreign frames: any bytes, in any state, are an answer and never a panic.

use bytes::Bytes;
use proptest::prelude::*;
use sealtide_wire::frame::{FrameType, Header};
use sealtide_wire::session::{Event, PathId, Scope, SessionError, SessionState};

use crate::pair::{P0, Pair, raw, scale};

fn frame() -> impl Strategy<Value = (u8, u8, u16, bool, Vec<u8>)> {
    let kind = prop_oneof![8 => 0x05u8..=0x16, 1 => any::<u8>()];
    let flags = prop_oneof![4 => Just(0u8), 4 => 0u8..8, 1 => any::<u8>()];
    let channel = prop_oneof![1 => Just(0u16), 8 => 1u16..6, 1 => any::<u16>()];
    let opening = (0u8..9, 0usize..6, proptest::collection::vec(any::<u8>(), 0..8))
        .prop_map(|(class, len, rest)| [&[class, len as u8][..], &b"name!"[..len.min(5)], &rest].concat());
    let number = (0u64..1 << 20).prop_map(|number| number.to_be_bytes().to_vec());
    let payload = prop_oneof![
        3 => proptest::collection::vec(any::<u8>(), 0..40),
        3 => opening,
        2 => number,
        1 => Just(vec![0; 2]),
        1 => Just(vec![0; 16]),
    ];
    (kind, flags, channel, proptest::bool::weighted(0.05), payload)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000 * scale() as u32, ..ProptestConfig::default() })]

    // Proves: LK-28, the frames of a session: 1,000 sessions of 20 frames
    #[test]
    fn session_twin(frames in proptest::collection::vec(frame(), 20)) {
        let mut pair = Pair::standard();
        let mut mine: Vec<_> = (0..2).map(|class| pair.ends[1].open(class, "mine").unwrap()).collect();
        for &channel in &mine {
            pair.ends[1].send(channel, Bytes::from_static(b"hello")).unwrap();
        }
        pair.write(1, 64);
        let mut path = 1;
        for (code, flags, channel, gap, payload) in frames {
            let Some(kind) = FrameType::from_code(code) else { continue };
            let seq = kind.is_sequenced().then(|| pair.ends[1].rx_next() + u64::from(gap));
            if pair.attached[1].is_empty() {
                let id = PathId(path);
                path += 1;
                let attached = pair.ends[1].attach(pair.now, id, 1).is_ok();
                prop_assert_eq!(attached, pair.ends[1].state() != SessionState::Closed);
                pair.pipes.insert(id, Default::default());
                pair.attached[1].insert(id);
            }
            let at = *pair.attached[1].first().unwrap();
            let before = pair.ends[1].rx_next();
            pair.errors[1].clear();
            pair.feed(1, at, &raw(kind, flags, channel, seq, &payload));
            if let Some(SessionError::SequenceGap { .. }) = pair.errors[1].last() {
                prop_assert_eq!(pair.ends[1].rx_next(), before);
            }
            // The layer above does what it does.
            for event in pair.take_events(1) {
                match event {
                    Event::ChannelOpened { channel, .. } => mine.push(channel),
                    Event::Aborted { text, .. } => prop_assert!(text.len() <= 120),
                    _ => {}
                }
            }
            for &channel in &mine {
                pair.drain(1, channel);
            }
            pair.write(1, 64);
            pair.now.mono_ms += 7;
            pair.tick();
            let stats = pair.ends[1].stats();
            prop_assert!(stats.unread_bytes <= 2_000 && stats.channels <= 64);
        }
    }
}

/// Each rule of a channel frame, broken once.
#[test]
fn channel_rules() {
    let cases: [(&str, u8, u16, &[u8]); 13] = [
        ("channel 0", 4, 0, b"\x03\x01x"),
        ("unknown flag", 8, 1, b""),
        ("not open", 1, 7, b"hello"),
        ("number of the other side", 4, 2, b"\x03\x01x"),
        ("no class", 4, 3, b""),
        ("class 8", 4, 3, b"\x08\x01x"),
        ("empty name", 4, 3, b"\x03\x00"),
        ("name too short", 4, 3, b"\x03\x02x"),
        ("name no UTF-8", 4, 3, b"\x03\x01\xFF"),
        ("opened twice", 4, 1, b"\x03\x01x"),
        ("says nothing", 0, 1, b""),
        ("ends inside a message", 2, 1, b"half"),
        ("ends inside an older message", 2, 5, b""),
    ];
    for (name, flags, channel, payload) in cases {
        let mut pair = Pair::standard();
        pair.feed(1, P0, &raw(FrameType::Data, 4, 1, Some(1), b"\x03\x01x"));
        pair.feed(1, P0, &raw(FrameType::Data, 4, 5, Some(2), b"\x03\x01xhalf"));
        assert!(pair.errors[1].is_empty());
        pair.feed(1, P0, &raw(FrameType::Data, flags, channel, Some(3), payload));
        let scopes: Vec<Scope> = pair.errors[1].iter().map(SessionError::scope).collect();
        assert_eq!(scopes, [Scope::Session], "{name}");
        assert_eq!(pair.ends[1].state(), SessionState::Closed, "{name}");
    }
}

/// A frame that carries no number costs its path only.
#[test]
fn malformed_plain_frames_close_the_path() {
    let cases: [(FrameType, u8, u16, &[u8]); 8] = [
        (FrameType::Ping, 0, 0, &[0; 15]),
        (FrameType::Pong, 0, 0, &[0; 17]),
        (FrameType::Ack, 0, 0, &[0; 7]),
        (FrameType::PathEnd, 0, 0, &[0; 9]),
        (FrameType::Ping, 1, 0, &[0; 16]),
        (FrameType::Ping, 0, 1, &[0; 16]),
        (FrameType::Hello, 0, 0, &[0; 72]),
        (FrameType::Error, 0, 0, &[0; 1]),
    ];
    for (kind, flags, channel, payload) in cases {
        let mut pair = Pair::standard();
        pair.feed(1, P0, &raw(kind, flags, channel, None, payload));
        assert_eq!(pair.errors[1].len(), 1, "{kind:?}");
        assert_eq!(pair.ends[1].state(), SessionState::Suspended, "{kind:?}");
    }
    let mut pair = Pair::standard();
    let header = Header::plain(FrameType::Padding, 65_537);
    let result = pair.ends[1].handle_frame(pair.now, P0, header, &[0; 65_537]);
    assert_eq!(result, Err(SessionError::Malformed(FrameType::Padding)));
}

#[test]
fn an_error_frame_gives_up_its_path() {
    let mut pair = Pair::standard();
    pair.feed(1, P0, &raw(FrameType::Error, 0, 0, None, b"\x00\x0Agone"));
    assert_eq!(pair.ends[1].state(), SessionState::Suspended);
    assert!(pair.errors[1].is_empty());
}
