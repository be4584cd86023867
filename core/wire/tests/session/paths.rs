//! Numbers, gaps, duplicates, lost paths, suspension, close and abort.

use bytes::Bytes;
use sealtide_wire::frame::{ErrorCode, FrameType};
use sealtide_wire::handshake::{Pin, Pins};
use sealtide_wire::session::{
    AttachError, Event, OpenError, PathId, SendError, SessionError, SessionLimits, SessionState, Terms,
};

use crate::pair::{Dice, P0, P1, Pair, opened, raw, scale};

// Proves: LK-43
#[test]
fn seq_rules() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "echo").unwrap();
    pair.ends[0].send(channel, Bytes::from_static(b"one")).unwrap();
    pair.settle();
    // The opening frame and the message were 1 and 2: again, they are dropped and counted.
    let opening = raw(FrameType::Data, 4, 1, Some(1), b"\x03\x04echo");
    pair.feed(1, P0, &opening);
    pair.feed(1, P0, &raw(FrameType::Data, 1, 1, Some(2), b"other"));
    assert_eq!(pair.ends[1].stats().frames_duplicate, 2);
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"one")]);
    // A number out of order closes the path, not the session.
    let before = pair.ends[1].rx_next();
    pair.feed(1, P0, &raw(FrameType::Data, 1, 1, Some(before + 1), b"gap"));
    assert_eq!(pair.errors[1], [SessionError::SequenceGap { expected: before, found: before + 1 }]);
    assert_eq!(pair.ends[1].state(), SessionState::Suspended);
    assert!(pair.take_events(1).contains(&Event::Suspended));
    pair.feed(1, P0, &raw(FrameType::Data, 1, 1, Some(before), b"late"));
    assert_eq!(pair.errors[1].last(), Some(&SessionError::UnknownPath));
    // Another path goes on where it stopped.
    pair.lose(P0);
    pair.attach(P1);
    pair.ends[0].send(channel, Bytes::from_static(b"two")).unwrap();
    pair.settle();
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"two")]);
}

#[test]
fn acks_leave_by_count_by_bytes_and_by_time() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "acks").unwrap();
    pair.settle();
    pair.pass(25);
    assert_eq!(pair.ends[0].stats().unacked_frames, 0, "the opening was acknowledged after 25 ms");
    let send = |pair: &mut Pair, len: usize| pair.ends[0].send(channel, vec![0; len].into()).unwrap();
    for _ in 0..31 {
        send(&mut pair, 1);
    }
    pair.settle();
    assert_eq!(pair.ends[0].stats().unacked_frames, 31);
    send(&mut pair, 1);
    pair.settle();
    assert_eq!(pair.ends[0].stats().unacked_frames, 0, "32 frames");
    send(&mut pair, 60_000);
    pair.settle();
    assert_eq!(pair.ends[0].stats().unacked_frames, 4);
    send(&mut pair, 6_000);
    pair.settle();
    assert_eq!(pair.ends[0].stats().unacked_frames, 0, "64 KiB");
    send(&mut pair, 1);
    pair.settle();
    pair.now.mono_ms += 24;
    pair.tick();
    pair.settle();
    assert_eq!(pair.ends[0].stats().unacked_frames, 1);
    pair.now.mono_ms += 1;
    pair.tick();
    pair.settle();
    assert_eq!(pair.ends[0].stats().unacked_frames, 0, "25 ms");
}

#[test]
fn an_ack_of_what_was_never_sent_ends_the_session() {
    let mut pair = Pair::standard();
    pair.settle();
    pair.feed(0, P0, &raw(FrameType::Ack, 0, 0, None, &2u64.to_be_bytes()));
    assert_eq!(pair.errors[0], [SessionError::AckOfUnsent { next: 2, sent: 1 }]);
    assert_eq!(pair.ends[0].state(), SessionState::Closed);
    pair.settle();
    let aborted = |event: &Event| matches!(event, Event::Aborted { code: 10, .. });
    assert!(pair.take_events(0).iter().any(aborted) && pair.take_events(1).iter().any(aborted));
    assert_eq!(pair.ends[0].attach(pair.now, P1, 1), Err(AttachError::Over));
}

#[test]
fn a_path_for_another_session_is_not_attached() {
    let mut pair = Pair::standard();
    assert_eq!(pair.ends[0].attach(pair.now, P0, 1), Err(AttachError::InUse(P0)));
    assert_eq!(pair.ends[0].attach(pair.now, P1, 9), Err(AttachError::OutOfRange { next: 9, sent: 1 }));
    assert_eq!(pair.ends[0].paths().collect::<Vec<PathId>>(), [P0]);
}

#[test]
fn a_planned_switch_ends_the_run_on_the_old_path() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "move").unwrap();
    pair.ends[0].send(channel, Bytes::from_static(b"before")).unwrap();
    pair.settle();
    pair.attach(P1);
    assert_eq!(pair.ends[0].active_path(), Some(P0), "a second path is a standby");
    assert!(pair.ends[0].switch(pair.now, P1));
    pair.write(0, 0);
    assert_eq!(pair.take_events(0).last(), Some(&Event::Switched { from: Some(P0), to: P1 }));
    pair.ends[0].send(channel, Bytes::from_static(b"after")).unwrap();
    pair.write(0, 64);
    let kinds: Vec<u8> = pair.pipes[&P0].queues[0].iter().map(|frame| frame[0]).collect();
    assert!(kinds.contains(&FrameType::PathEnd.code()), "{kinds:?}");
    assert!(!kinds.contains(&FrameType::Data.code()), "{kinds:?}");
    pair.settle();
    assert_eq!(pair.drain(1, channel), ["before", "after"].map(Bytes::from));
    assert_eq!(pair.ends[1].active_path(), Some(P0), "each direction switches on its own");
}

#[test]
fn duplicates_are_acknowledged_when_the_first_ack_was_lost() {
    let mut pair = Pair::standard();
    pair.attach(P1);
    let channel = pair.ends[0].open(3, "twice").unwrap();
    pair.settle();
    pair.pass(1_000);
    // What the peer says on the first path is lost, its ACK too; nothing but duplicates comes on the second.
    pair.pipes.get_mut(&P0).unwrap().black_hole = [false, true];
    pair.ends[0].send(channel, Bytes::from_static(b"once")).unwrap();
    pair.settle();
    pair.pass(100);
    assert_eq!(pair.ends[0].stats().unacked_frames, 1);
    assert!(pair.ends[0].switch(pair.now, P1));
    pair.settle();
    assert_eq!(pair.ends[1].stats().frames_duplicate, 1);
    pair.pass(25);
    assert_eq!(pair.ends[0].stats().unacked_frames, 0);
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"once")]);
}

// Proves: LK-41
#[test]
fn suspend_expire() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "lost").unwrap();
    pair.settle();
    pair.pass(25);
    pair.ends[0].send(channel, Bytes::from_static(b"never acknowledged")).unwrap();
    pair.write(0, 64);
    pair.lose(P0);
    assert_eq!(pair.ends[0].state(), SessionState::Suspended);
    pair.take_events(0);
    pair.pass(599_999);
    assert_eq!(pair.take_events(0), []);
    pair.pass(1);
    assert_eq!(pair.take_events(0), [Event::Lost { acked: 1 }]);
    assert_eq!(pair.ends[0].state(), SessionState::Closed);
    assert_eq!(pair.ends[0].send(channel, Bytes::new()), Err(SendError::Over));
    assert_eq!(pair.ends[0].open(3, "more"), Err(OpenError::Over));
}

#[test]
fn a_suspended_session_resumes_with_everything() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "resume").unwrap();
    pair.settle();
    pair.ends[0].send(channel, Bytes::from(vec![7; 100_000])).unwrap();
    pair.write(0, 3);
    pair.lose(P0);
    pair.pass(300_000);
    pair.attach(P1);
    assert!(pair.take_events(0).contains(&Event::Switched { from: None, to: P1 }));
    pair.settle();
    assert_eq!(pair.drain(1, channel), [Bytes::from(vec![7; 100_000])]);
    assert!(pair.ends[0].stats().frames_retransmitted >= 3);
}

// Proves: LK-97, the part of the session
#[test]
fn a_control_frame_cut_between_write_and_ack_arrives_once() {
    for delivered in [false, true] {
        let mut pair = Pair::standard();
        pair.settle();
        let update = Bytes::from_static(b"certificate");
        pair.ends[0].send_control(FrameType::CertUpdate, update.clone()).unwrap();
        pair.write(0, 64);
        if delivered {
            while pair.deliver(P0, 0) {}
        }
        pair.lose(P0);
        pair.attach(P1);
        pair.settle();
        let control = Event::Control { kind: FrameType::CertUpdate, payload: update };
        assert_eq!(pair.take_events(1).iter().filter(|event| **event == control).count(), 1);
    }
    let mut pair = Pair::standard();
    assert!(pair.ends[0].send_control(FrameType::Data, Bytes::new()).is_err());
}

#[test]
fn close_comes_after_everything_queued() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "last words").unwrap();
    pair.ends[0].send(channel, Bytes::from(vec![1; 50_000])).unwrap();
    pair.ends[0].close(pair.now, 12);
    assert_eq!(pair.ends[0].state(), SessionState::Closing);
    assert_eq!(pair.ends[0].send(channel, Bytes::new()), Err(SendError::Over));
    pair.settle();
    assert_eq!(pair.take_events(0), [Event::Closed]);
    assert!(pair.take_events(1).contains(&Event::PeerClosed { code: 12 }));
    assert_eq!(pair.ends.each_ref().map(|end| end.state()), [SessionState::Closed; 2]);
    assert_eq!(pair.drain(1, channel), [Bytes::from(vec![1; 50_000])], "what came before can be read");
    assert_eq!((pair.ends[0].next_timeout(), pair.ends[1].next_timeout()), (None, None));
}

#[test]
fn a_close_that_nobody_acknowledges_is_a_loss() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "unheard").unwrap();
    pair.ends[0].send(channel, Bytes::from_static(b"unheard")).unwrap();
    pair.pipes.get_mut(&P0).unwrap().black_hole = [true; 2];
    pair.ends[0].close(pair.now, 0);
    pair.pass(SessionLimits::default().close_ms);
    assert_eq!(pair.take_events(0).last(), Some(&Event::Lost { acked: 0 }));
}

#[test]
fn a_path_that_ends_right_after_close_is_an_orderly_end() {
    let mut pair = Pair::standard();
    pair.settle();
    pair.ends[0].close(pair.now, 0);
    pair.write(0, 64);
    pair.deliver(P0, 0);
    // The peer has CLOSE and hangs up; its ACK is lost.
    pair.lose(P0);
    assert_eq!(pair.take_events(0), [Event::Closed]);
    assert_eq!(pair.take_events(1), [Event::PeerClosed { code: 0 }]);
}

#[test]
fn abort_reaches_the_peer_on_every_path() {
    let mut pair = Pair::standard();
    pair.attach(P1);
    pair.settle();
    pair.ends[0].abort(ErrorCode::Refused, "revoked");
    assert_eq!(pair.write(0, 64), 2);
    pair.settle();
    let aborted = Event::Aborted { code: 3, text: "revoked".into() };
    assert_eq!(pair.take_events(0), std::slice::from_ref(&aborted));
    assert_eq!(pair.take_events(1), [aborted]);
}

/// What a laptop tells that went through many networks without meeting its peer.
#[test]
fn of_addresses_that_wait_the_newest_is_told() {
    let mut pair = Pair::standard();
    pair.settle();
    pair.lose(P0);
    pair.ends[0].send_control(FrameType::CertUpdate, Bytes::from_static(b"new certificate")).unwrap();
    for n in 0..40 {
        pair.ends[0].send_control(FrameType::AddrUpdate, Bytes::copy_from_slice(&[n])).unwrap();
    }
    pair.take_events(1);
    pair.attach(P1);
    pair.settle();
    let told = pair.take_events(1).into_iter().filter_map(|event| match event {
        Event::Control { kind, payload } => Some((kind, payload)),
        _ => None,
    });
    let cert = (FrameType::CertUpdate, Bytes::from_static(b"new certificate"));
    assert_eq!(told.collect::<Vec<_>>(), [cert, (FrameType::AddrUpdate, Bytes::from_static(&[39]))]);
}

#[test]
fn an_idle_session_closes_itself_unless_it_is_wanted() {
    let mut pair = Pair::standard();
    pair.ends[0].standing_interest(true);
    pair.ends[1].standing_interest(true);
    pair.pass(600_000);
    assert_eq!(pair.ends[0].state(), SessionState::Open);
    let channel = pair.ends[0].open(3, "short").unwrap();
    pair.settle();
    pair.ends[0].standing_interest(false);
    pair.pass(400_000);
    assert_eq!(pair.ends[0].state(), SessionState::Open, "a channel is open");
    pair.ends[0].reset(channel, 0);
    pair.settle();
    pair.pass(299_000);
    assert_eq!(pair.ends[0].state(), SessionState::Open);
    pair.pass(2_000);
    assert_eq!(pair.ends[0].state(), SessionState::Closed);
    assert!(pair.take_events(1).contains(&Event::PeerClosed { code: 0 }));
}

#[test]
fn both_ends_may_close_at_once() {
    let mut pair = Pair::new(Terms::default(), SessionLimits::default());
    pair.settle();
    pair.ends[0].close(pair.now, 1);
    pair.ends[1].close(pair.now, 2);
    pair.write(0, 64);
    pair.write(1, 64);
    pair.settle();
    assert_eq!(pair.take_events(0), [Event::PeerClosed { code: 2 }]);
    assert_eq!(pair.take_events(1), [Event::PeerClosed { code: 1 }]);
    assert!(opened(&pair.take_events(0)).is_empty());
}

/// A cut at any moment between the write of CERT_UPDATE and its ACK: the pin arrives once, the session lives.
// Proves: LK-97
#[test]
fn cert_update_switch() {
    let mut repeated = 0;
    for seed in 0..1_000 * scale() {
        let mut dice = Dice::new(seed);
        let mut pair = Pair::standard();
        let channel = pair.ends[0].open(3, "load").unwrap();
        let mut pins = Pins::new(pair.now, Pin { fingerprint: [1; 32], epoch: 1, lifetime_seconds: 3_600 });
        let before = dice.below(4);
        for _ in 0..before {
            // A channel takes one long message before the first is on its way.
            if pair.ends[0].send(channel, vec![1; dice.below(40_000) as usize].into()).is_err() {
                break;
            }
        }
        let update = Bytes::copy_from_slice(&[2; 5_000]);
        pair.ends[0].send_control(FrameType::CertUpdate, update.clone()).unwrap();
        for cut in 1..=1 + dice.below(3) as u32 {
            // Some frames are written, some of them arrive, some ACKs come back.
            pair.write(0, dice.below(12) as usize);
            let path = PathId(cut - 1);
            for _ in 0..dice.below(12) {
                pair.deliver(path, 0);
            }
            pair.write(1, dice.below(4) as usize);
            for _ in 0..dice.below(4) {
                pair.deliver(path, 1);
            }
            pair.lose(path);
            pair.attach(PathId(cut));
        }
        pair.pass(1_000);
        let mut arrived = 0;
        for event in pair.take_events(1) {
            match event {
                Event::Control { kind: FrameType::CertUpdate, payload } => {
                    assert_eq!(payload, update);
                    pins.add(pair.now, Pin { fingerprint: [2; 32], epoch: 2, lifetime_seconds: 3_600 }).unwrap();
                    arrived += 1;
                }
                Event::Aborted { .. } | Event::Lost { .. } => panic!("seed {seed}: {event:?}"),
                _ => {}
            }
        }
        assert_eq!(arrived, 1, "seed {seed}");
        assert!(pins.holds(pair.now, &[1; 32]) && pins.holds(pair.now, &[2; 32]));
        assert!(!pair.ends[0].has_unacknowledged(FrameType::CertUpdate), "seed {seed}");
        assert_eq!([pair.ends[0].state(), pair.ends[1].state()], [SessionState::Open; 2]);
        repeated += pair.ends[0].stats().frames_retransmitted;
    }
    assert!(repeated > 1_000, "{repeated}");
}

/// A path that both ends have left for a newer one is drained at both; one that still carries is not.
#[test]
fn a_path_is_drained_when_both_ends_have_left_it() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "load").unwrap();
    pair.ends[0].send(channel, Bytes::from_static(b"one")).unwrap();
    pair.settle();
    pair.attach(P1);
    assert!(!pair.ends[0].is_drained(P0) && !pair.ends[1].is_drained(P0));
    pair.ends[0].switch(pair.now, P1);
    pair.settle();
    assert!(!pair.ends[0].is_drained(P0), "the peer may still send on it");
    assert!(!pair.ends[1].is_drained(P0), "it is the active one here");
    pair.ends[1].switch(pair.now, P1);
    pair.settle();
    assert!(pair.ends[0].is_drained(P0) && pair.ends[1].is_drained(P0));
    // The peer comes back to it.
    pair.ends[0].switch(pair.now, P0);
    pair.ends[0].send(channel, Bytes::from_static(b"two")).unwrap();
    pair.settle();
    assert!(!pair.ends[1].is_drained(P0));
    assert_eq!(pair.drain(1, channel).len(), 2);
}
