//! Channels: messages, ends, numbers, shares of the path, and what a full buffer does.

use std::collections::BTreeMap;

use bytes::Bytes;
use sealtide_wire::frame::FrameType;
use sealtide_wire::session::{ChannelId, Event, OpenError, RecvError, SendError, SessionLimits, SessionState, Terms};

use crate::pair::{Dice, P0, Pair, Pipe, join, opened, scale};

/// Sends until the channel refuses; returns the messages taken.
fn fill(pair: &mut Pair, end: usize, channel: ChannelId, message: &Bytes) -> usize {
    let mut taken = 0;
    loop {
        match pair.ends[end].send(channel, message.clone()) {
            Ok(()) => taken += 1,
            Err(SendError::WouldBlock(back)) => {
                assert_eq!(back.len(), message.len());
                return taken;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn messages_arrive_whole_and_in_order() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "echo").unwrap();
    let lens = [0, 1, 16_320, 16_321, 0, 60_000, 7];
    let messages: Vec<Bytes> = lens.iter().map(|&len| Bytes::from(vec![len as u8; len])).collect();
    let mut got = Vec::new();
    for message in &messages {
        pair.ends[0].send(channel, message.clone()).unwrap();
        pair.settle();
        got.extend(pair.drain(1, channel));
    }
    assert_eq!(got, messages);
    let events = pair.take_events(1);
    assert_eq!(events[0], Event::ChannelOpened { channel, class: 3, name: "echo".into() });
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Readable { .. })).count(), lens.len());
    // And back on the same channel.
    pair.ends[1].send(channel, Bytes::from_static(b"answer")).unwrap();
    pair.settle();
    assert_eq!(pair.drain(0, channel), [Bytes::from_static(b"answer")]);
}

#[test]
fn payloads_of_the_default_size_are_cut_without_copying() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "bulk").unwrap();
    pair.settle();
    let message = Bytes::from(vec![5; 40_000]);
    pair.ends[0].send(channel, message.clone()).unwrap();
    let mut at = 0;
    while let Some(transmit) = pair.ends[0].poll_transmit(pair.now, P0, usize::MAX) {
        assert_eq!(transmit.payload.as_ptr(), message[at..].as_ptr());
        at += transmit.payload.len();
        assert!(transmit.frame_bytes() <= 16_336);
    }
    assert_eq!(at, 40_000);
}

// Proves: LK-42
#[test]
fn sndbuf_limit() {
    let limits = SessionLimits { send_buffer_bytes: 1 << 20, ..SessionLimits::default() };
    let mut pair = Pair::new(Terms { channel_credit: 64 << 20, session_credit: 64 << 20, ..Terms::default() }, limits);
    let channels: Vec<ChannelId> = (1..=7).map(|class| pair.ends[0].open(class, "bulk").unwrap()).collect();
    // Frames are written and never acknowledged.
    let message = Bytes::from(vec![9; 300_000]);
    let frame_bytes = 16_320 + 64;
    let mut taken = 0;
    for _ in 0..40 {
        for &channel in &channels {
            taken += fill(&mut pair, 0, channel, &message);
        }
        pair.write(0, 10_000);
        assert!(pair.ends[0].stats().unacked_bytes <= limits.send_buffer_bytes + frame_bytes);
    }
    let stats = pair.ends[0].stats();
    assert!(stats.unacked_bytes > limits.send_buffer_bytes - (64 << 10), "the buffer is used: {stats:?}");
    assert!(taken <= 4 + channels.len(), "writers wait: {taken} messages of 300 KB taken");
    // A full buffer still takes a control frame.
    pair.ends[0].send_control(FrameType::AddrUpdate, Bytes::from_static(b"new address")).unwrap();
    assert_eq!(pair.write(0, 10_000), 1);
    assert!(pair.ends[0].stats().unacked_bytes <= limits.send_buffer_bytes + frame_bytes);
    // When ACKs come, nothing was dropped and the writers are told.
    pair.take_events(0);
    let mut arrived = 0;
    for _ in 0..1_000 {
        pair.settle();
        arrived += channels.iter().map(|&channel| pair.drain(1, channel).len()).sum::<usize>();
        pair.pass(25);
    }
    assert_eq!(arrived, taken);
    let events = pair.take_events(0);
    assert!(channels.iter().all(|&channel| events.contains(&Event::Writable { channel })), "{events:?}");
}

#[test]
fn a_channel_queues_one_message_or_a_few_small_ones() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "queue").unwrap();
    assert_eq!(fill(&mut pair, 0, channel, &Bytes::from(vec![0; 1 << 20])), 1);
    let other = pair.ends[0].open(3, "small").unwrap();
    assert_eq!(fill(&mut pair, 0, other, &Bytes::from(vec![0; 2_048])), 128);
    let empty = pair.ends[0].open(3, "empty").unwrap();
    assert_eq!(fill(&mut pair, 0, empty, &Bytes::new()), 256);
}

// Proves: LK-44
#[test]
fn channel_isolation() {
    let mut pair = Pair::standard();
    let stuck: Vec<ChannelId> = (0..8).map(|_| pair.ends[0].open(1, "nobody reads").unwrap()).collect();
    let live = pair.ends[0].open(7, "somebody reads").unwrap();
    let message = Bytes::from(vec![1; 100_000]);
    let (mut sent, mut arrived, mut most) = (0, 0, 0);
    while arrived < 300 {
        for &channel in &stuck {
            fill(&mut pair, 0, channel, &message);
        }
        sent += fill(&mut pair, 0, live, &message);
        let moved = pair.settle();
        let got = pair.drain(1, live).len();
        arrived += got;
        let stats = pair.ends[1].stats();
        most = most.max(stats.unread_bytes + stats.unreleased_bytes);
        assert!(moved > 0 || got > 0, "stalled after {arrived} of {sent}");
    }
    let windows = 9 * u64::from(Terms::default().channel_credit);
    assert!(most <= windows, "{most} bytes held");
    for channel in stuck {
        assert_eq!(pair.drain(1, channel).len(), 2, "what fits the window has arrived");
    }
}

// Proves: LK-45, the part without sockets
#[test]
fn full_duplex_saturation() {
    for seed in 0..5 * scale() {
        let terms = Terms { session_credit: 256 << 10, channel_credit: 16 << 10, ..Terms::default() };
        let limits =
            SessionLimits { data_payload_bytes: 1_024, send_buffer_bytes: 256 << 10, ..SessionLimits::default() };
        let mut pair = Pair::new(terms, limits);
        pair.pipes.insert(P0, Pipe { room: 4_096, ..Pipe::default() });
        let mut dice = Dice::new(seed);
        let mut channels: [Vec<ChannelId>; 2] = Default::default();
        for end in [0, 1] {
            channels[end] = (0..32).map(|at| pair.ends[end].open(at % 8, "both ways").unwrap()).collect();
        }
        let all: Vec<ChannelId> = channels.concat();
        // Every channel carries 24 messages each way, each of which fits its window.
        let mut left: [BTreeMap<ChannelId, u32>; 2] = [0, 1].map(|_| all.iter().map(|&id| (id, 24)).collect());
        let mut arrived = [0; 2];
        let mut quiet = 0;
        while arrived != [64 * 24; 2] {
            let mut moved = 0;
            for end in [0, 1] {
                for (&channel, left) in &mut left[end] {
                    if *left > 0 && pair.ends[end].send(channel, vec![0; dice.below(8_000) as usize].into()).is_ok() {
                        *left -= 1;
                        moved += 1;
                    }
                }
                moved += pair.write(end, 8);
                for _ in 0..dice.below(8) {
                    moved += usize::from(pair.deliver(P0, end));
                }
                // Readers are slow and come in any order.
                for _ in 0..8 {
                    let channel = all[dice.below(64) as usize];
                    let got = pair.drain(end, channel).len();
                    arrived[end] += got;
                    moved += got;
                }
            }
            pair.now.mono_ms += 1;
            pair.tick();
            quiet = if moved == 0 { quiet + 1 } else { 0 };
            assert!(quiet < 2_000, "seed {seed}: nothing moves, {arrived:?} of {} arrived", 64 * 24);
        }
    }
}

/// The channels of the next `frames` DATA frames of end 0, with their payload lengths.
fn next_data(pair: &mut Pair, frames: usize) -> Vec<(u16, usize)> {
    let mut found = Vec::new();
    while found.len() < frames {
        let Some(transmit) = pair.ends[0].poll_transmit(pair.now, P0, usize::MAX) else { break };
        let bytes = join(&transmit);
        if bytes[0] == FrameType::Data.code() {
            found.push((u16::from_be_bytes([bytes[2], bytes[3]]), transmit.payload.len()));
        }
        pair.pipes.get_mut(&P0).unwrap().queues[0].push_back(bytes);
    }
    found
}

// Proves: LK-46, the part without sockets
#[test]
fn priority_latency() {
    let mut pair = Pair::standard();
    let bulk: Vec<ChannelId> = (0..16).map(|_| pair.ends[0].open(7, "sts/1").unwrap()).collect();
    let control = pair.ends[0].open(0, "sts/1/control").unwrap();
    pair.settle();
    for &channel in &bulk {
        fill(&mut pair, 0, channel, &Bytes::from(vec![0; 1 << 20]));
    }
    next_data(&mut pair, 5);
    pair.ends[0].send(control, Bytes::from_static(b"now")).unwrap();
    assert_eq!(next_data(&mut pair, 1), [(control.0, 3)]);
}

#[test]
fn classes_share_by_weight_and_equals_share_equally() {
    let wide = Terms { session_credit: 1 << 40, channel_credit: 1 << 30, ..Terms::default() };
    let limits = SessionLimits { send_buffer_bytes: 1 << 30, ..SessionLimits::default() };
    let mut pair = Pair::new(wide, limits);
    let ids: Vec<u16> = [1, 4, 7, 7].iter().map(|&class| pair.ends[0].open(class, "share").unwrap().0).collect();
    pair.settle();
    for &id in &ids {
        fill(&mut pair, 0, ChannelId(id), &Bytes::from(vec![0; 64 << 20]));
    }
    let mut bytes: BTreeMap<u16, usize> = BTreeMap::new();
    for (channel, len) in next_data(&mut pair, 1_300) {
        *bytes.entry(channel).or_default() += len;
    }
    let share = |at: usize| bytes[&ids[at]] as f64 / bytes[&ids[3]] as f64;
    assert!((6.5..7.5).contains(&share(0)), "{bytes:?}");
    assert!((3.6..4.4).contains(&share(1)), "{bytes:?}");
    assert!((0.9..1.1).contains(&share(2)), "{bytes:?}");
}

#[test]
fn a_finished_channel_can_be_read_to_its_end() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "end").unwrap();
    pair.ends[0].send(channel, Bytes::from_static(b"last")).unwrap();
    pair.ends[0].finish(channel);
    assert_eq!(pair.ends[0].send(channel, Bytes::new()), Err(SendError::Closed));
    pair.settle();
    assert!(pair.take_events(1).contains(&Event::ChannelEnded { channel, code: None }));
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"last")]);
    assert_eq!(pair.ends[1].recv(channel), Err(RecvError::Ended));
    pair.ends[1].send(channel, Bytes::from_static(b"and back")).unwrap();
    pair.ends[1].finish(channel);
    pair.settle();
    assert_eq!(pair.ends[0].recv(channel), Ok(Some(Bytes::from_static(b"and back"))));
    assert_eq!(pair.ends[0].recv(channel), Err(RecvError::Ended));
    assert_eq!(pair.ends[0].recv(channel), Err(RecvError::Closed), "forgotten");
    assert_eq!([0, 1].map(|end| pair.ends[end].stats().channels), [0, 0]);
}

#[test]
fn a_reset_ends_both_directions_and_gives_all_credit_back() {
    for by in [0, 1] {
        let mut pair = Pair::standard();
        let channel = pair.ends[0].open(3, "reset").unwrap();
        for end in [0, 1] {
            pair.settle();
            pair.ends[end].send(channel, Bytes::from(vec![0; 200_000])).unwrap();
        }
        pair.settle();
        pair.ends[0].send(channel, Bytes::from(vec![0; 200_000])).unwrap();
        pair.write(0, 2);
        pair.take_events(1 - by);
        pair.ends[by].reset(channel, 77);
        assert_eq!(pair.ends[by].recv(channel), Err(RecvError::Closed));
        pair.settle();
        let events = pair.take_events(1 - by);
        assert!(events.contains(&Event::ChannelEnded { channel, code: Some(77) }), "{events:?}");
        for end in [0, 1] {
            let stats = pair.ends[end].stats();
            assert_eq!((stats.channels, stats.unread_bytes), (0, 0), "end {end} after a reset by {by}");
            assert!(matches!(pair.ends[end].send(channel, Bytes::new()), Err(SendError::Closed)));
        }
    }
}

#[test]
fn a_channel_reset_before_it_left_never_was() {
    let mut pair = Pair::standard();
    pair.settle();
    let channel = pair.ends[0].open(3, "never").unwrap();
    pair.ends[0].reset(channel, 1);
    assert_eq!(pair.settle(), 0);
    assert_eq!(pair.ends[0].stats().channels, 0);
}

#[test]
fn numbers_go_round_past_channels_in_use() {
    let mut pair = Pair::standard();
    let kept = pair.ends[1].open(3, "kept").unwrap();
    pair.settle();
    for round in 0..33_000u32 {
        let channel = pair.ends[1].open(3, "short").unwrap();
        assert!(channel.0 != 0 && channel.0.is_multiple_of(2) && channel != kept, "round {round}: {channel:?}");
        pair.ends[1].finish(channel);
        pair.settle();
        pair.ends[0].reset(channel, 0);
        pair.settle();
        pair.take_events(0);
        pair.take_events(1);
    }
    assert_eq!(pair.ends.each_ref().map(|end| (end.state(), end.stats().channels)), [(SessionState::Open, 1); 2]);
}

#[test]
fn each_side_has_its_own_limit_of_channels() {
    let mut pair = Pair::standard();
    let channels: Vec<ChannelId> = (0..256).map(|_| pair.ends[0].open(3, "many").unwrap()).collect();
    assert_eq!(pair.ends[0].open(3, "many"), Err(OpenError::TooMany(256)));
    assert_eq!(pair.ends[0].open(8, "class"), Err(OpenError::BadName));
    assert_eq!(pair.ends[0].open(3, ""), Err(OpenError::BadName));
    pair.settle();
    assert_eq!(opened(&pair.take_events(1)), channels);
    assert!(pair.ends[1].open(3, "other side").is_ok());
    // An end at both sides makes room at once, whether or not the reader has come for it.
    pair.ends[0].finish(channels[0]);
    pair.ends[1].finish(channels[0]);
    pair.settle();
    pair.ends[0].open(3, "again").unwrap();
    pair.settle();
    assert!(pair.errors[1].is_empty(), "{:?}", pair.errors[1]);
}
