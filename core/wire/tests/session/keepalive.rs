//! Silence: pings, suspicion, failure, standby, sleep. Spec: link C.11.

use bytes::Bytes;
use sealtide_wire::frame::FrameType;
use sealtide_wire::session::{Event, PathFailure, SessionState};

use crate::pair::{P0, P1, Pair, raw};

fn quiet_pair() -> Pair {
    let mut pair = Pair::standard();
    for end in [0, 1] {
        pair.ends[end].standing_interest(true);
    }
    pair.settle();
    pair
}

fn black_hole(pair: &mut Pair, path: sealtide_wire::session::PathId) {
    let pipe = pair.pipes.get_mut(&path).unwrap();
    pipe.black_hole = [true; 2];
    pipe.queues = Default::default();
}

#[test]
fn an_idle_path_is_pinged_and_stays_up() {
    let mut pair = quiet_pair();
    let before = pair.ends[0].stats().frames_received;
    pair.pass(3_600_000);
    assert_eq!(pair.ends.each_ref().map(|end| end.state()), [SessionState::Open; 2]);
    assert!(pair.take_events(0).is_empty() && pair.take_events(1).is_empty());
    // One PING, PONG and ACK in each 12 to 18 s.
    let frames = pair.ends[0].stats().frames_received - before;
    assert!((200..=900).contains(&frames), "{frames} frames in an hour");
    assert_eq!(pair.ends[0].stats().rtt_ms, Some(0));
}

#[test]
fn a_silent_idle_path_fails_within_28_s() {
    let mut pair = quiet_pair();
    black_hole(&mut pair, P0);
    let start = pair.now.mono_ms;
    while !pair.events[0].contains(&Event::PathFailed { path: P0, why: PathFailure::Silent }) {
        pair.pass(100);
        assert!(pair.now.mono_ms - start <= 28_100, "{:?}", pair.events[0]);
    }
    assert!(pair.now.mono_ms - start >= 22_000, "two PINGs have 5 s each");
    assert_eq!(pair.events[0][0], Event::PathSuspect { path: P0 });
    assert_eq!(pair.ends[0].state(), SessionState::Suspended);
}

#[test]
fn a_silent_busy_path_gives_way_to_the_standby_within_3_s() {
    let mut pair = quiet_pair();
    pair.attach(P1);
    pair.pass(1_000);
    let channel = pair.ends[0].open(3, "busy").unwrap();
    pair.settle();
    pair.pass(1_000);
    black_hole(&mut pair, P0);
    pair.ends[0].send(channel, Bytes::from_static(b"on its way")).unwrap();
    pair.pass(1_499);
    assert!(pair.take_events(0).is_empty());
    pair.pass(1);
    assert_eq!(pair.take_events(0), [Event::PathSuspect { path: P0 }]);
    pair.pass(1_499);
    assert_eq!(pair.drain(1, channel).len(), 0);
    pair.pass(1);
    assert_eq!(pair.take_events(0), [Event::Switched { from: Some(P0), to: P1 }]);
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"on its way")]);
    // The path left is given up in the end.
    pair.pass(30_000);
    assert!(pair.take_events(0).contains(&Event::PathFailed { path: P0, why: PathFailure::Silent }));
    assert_eq!(pair.ends[0].active_path(), Some(P1));
}

#[test]
fn a_silent_busy_path_without_a_standby_has_ten_seconds() {
    let mut pair = quiet_pair();
    let channel = pair.ends[0].open(3, "alone").unwrap();
    pair.settle();
    pair.pass(1_000);
    black_hole(&mut pair, P0);
    pair.ends[0].send(channel, Bytes::from_static(b"x")).unwrap();
    pair.pass(11_400);
    assert_eq!(pair.ends[0].state(), SessionState::Open);
    pair.pass(200);
    assert_eq!(pair.ends[0].state(), SessionState::Suspended);
}

// Proves: LK-59, the part of the session
#[test]
fn no_flap() {
    let mut pair = quiet_pair();
    pair.attach(P1);
    let channel = pair.ends[0].open(3, "steady").unwrap();
    pair.take_events(0);
    // Data and ACKs flow for two minutes, every PONG is lost.
    for _ in 0..600 {
        pair.ends[0].send(channel, Bytes::from_static(b"tick")).unwrap();
        for end in [0, 1] {
            pair.write(end, 64);
            for pipe in pair.pipes.values_mut() {
                pipe.queues[end].retain(|frame| frame[0] != FrameType::Pong.code());
            }
        }
        for from in [0, 1] {
            while pair.deliver(P0, from) {}
            while pair.deliver(P1, from) {}
        }
        pair.now.mono_ms += 200;
        pair.tick();
        pair.drain(1, channel);
    }
    assert_eq!(pair.ends[0].active_path(), Some(P0));
    let moved = |event: &Event| matches!(event, Event::Switched { .. } | Event::PathFailed { path: P0, .. });
    assert!(!pair.take_events(0).iter().any(moved));
}

#[test]
fn bytes_without_progress_are_no_path() {
    let mut pair = quiet_pair();
    pair.attach(P1);
    let channel = pair.ends[0].open(3, "stalled").unwrap();
    pair.settle();
    pair.pass(1_000);
    pair.take_events(0);
    pair.pipes.get_mut(&P0).unwrap().black_hole = [true, false];
    pair.ends[0].send(channel, Bytes::from_static(b"stuck in a proxy")).unwrap();
    let start = pair.now.mono_ms;
    while pair.ends[0].active_path() == Some(P0) {
        // Something always comes back.
        pair.feed(0, P0, &raw(FrameType::Padding, 0, 0, None, b"..."));
        pair.pass(500);
        assert!(pair.now.mono_ms - start <= 12_000);
    }
    assert!(pair.take_events(0).contains(&Event::PathFailed { path: P0, why: PathFailure::NoProgress }));
    pair.settle();
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"stuck in a proxy")]);
}

#[test]
fn after_sleep_every_path_is_suspect_and_gets_a_chance() {
    let mut pair = quiet_pair();
    pair.attach(P1);
    pair.settle();
    pair.take_events(0);
    pair.now.mono_ms += 3_600_000;
    pair.tick();
    let suspects = [P0, P1].map(|path| Event::PathSuspect { path });
    assert_eq!(pair.take_events(0), suspects);
    pair.pass(60_000);
    assert!(pair.take_events(0).is_empty(), "both answered");
    assert_eq!(pair.ends[0].state(), SessionState::Open);
}

#[test]
fn the_round_trip_is_measured() {
    let mut pair = Pair::standard();
    pair.write(0, 64);
    pair.now.mono_ms += 40;
    pair.settle();
    assert_eq!(pair.ends[0].stats().rtt_ms, Some(40));
    assert_eq!(pair.ends[0].path_rtt_ms(P0), Some(40));
    assert_eq!(pair.ends[0].stats().age_ms, 40);
}

/// A proxy that ends connections after 60 s without a byte in a direction: an idle session stays up for ten minutes.
// Proves: LK-58
#[test]
fn idle_proxy() {
    let mut pair = Pair::standard();
    pair.ends.iter_mut().for_each(|end| end.standing_interest(true));
    pair.settle();
    let start = pair.now.mono_ms;
    let mut last = [(0, start); 2];
    while pair.now.mono_ms < start + 600_000 {
        pair.pass(500);
        for end in [0, 1] {
            let sent = pair.ends[end].stats().frames_sent;
            if sent != last[end].0 {
                last[end] = (sent, pair.now.mono_ms);
            }
            assert!(pair.now.mono_ms - last[end].1 < 60_000, "end {end} is silent for a minute");
        }
    }
    assert!(pair.ends.iter().all(|end| end.active_path() == Some(P0)));
    let sent = pair.ends[0].stats().frames_sent;
    assert!(sent < 200, "{sent} frames in ten idle minutes");
}
