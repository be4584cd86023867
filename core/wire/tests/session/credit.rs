//! Credit: what may be sent, what is held, and that nobody stalls. Spec: link C.9.3.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use sealtide_wire::frame::FrameType;
use sealtide_wire::session::{
    ChannelId, Event, Fragment, RecvError, SendError, SessionError, SessionLimits, SessionState, Terms,
};

use crate::pair::{P0, Pair, raw, scale};

const MIB: usize = 1 << 20;

#[derive(Clone, Debug)]
enum Act {
    Send { channel: usize, len: usize },
    Read { channel: usize },
    Release { channel: usize },
    Write { frames: usize },
    Deliver { frames: usize },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0..6usize, 0..=WINDOW as usize).prop_map(|(channel, len)| Act::Send { channel, len }),
        3 => (0..6usize).prop_map(|channel| Act::Read { channel }),
        2 => (0..6usize).prop_map(|channel| Act::Release { channel }),
        2 => (0..20usize).prop_map(|frames| Act::Write { frames }),
        2 => (0..20usize).prop_map(|frames| Act::Deliver { frames }),
    ]
}

/// Small, so that limits are met all the time; the session has less than its channels together.
const WINDOW: u32 = 600;
const SESSION_WINDOW: u64 = 1_000;

struct Model {
    pair: Pair,
    channels: Vec<ChannelId>,
    sent: BTreeMap<ChannelId, Vec<usize>>,
    heard: BTreeMap<ChannelId, Vec<usize>>,
    held: BTreeMap<ChannelId, u64>,
}

impl Model {
    fn new() -> Self {
        let terms = Terms { session_credit: SESSION_WINDOW, channel_credit: WINDOW, ..Terms::default() };
        let limits = SessionLimits { data_payload_bytes: 70, queue_bytes: 100, ..SessionLimits::default() };
        let mut pair = Pair::new(terms, limits);
        let channels = (0..6).map(|class| pair.ends[0].open(class, "credit").unwrap()).collect();
        pair.settle();
        Self { pair, channels, sent: BTreeMap::new(), heard: BTreeMap::new(), held: BTreeMap::new() }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Send { channel, len } => {
                let channel = self.channels[channel];
                match self.pair.ends[0].send(channel, vec![0; len].into()) {
                    Ok(()) => self.sent.entry(channel).or_default().push(len),
                    Err(SendError::WouldBlock(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            Act::Read { channel } => self.read(self.channels[channel]),
            Act::Release { channel } => self.release(self.channels[channel]),
            Act::Write { frames } => {
                self.pair.write(0, frames);
                self.pair.write(1, frames);
            }
            Act::Deliver { frames } => {
                for _ in 0..frames {
                    self.pair.deliver(P0, 0);
                    self.pair.deliver(P0, 1);
                }
            }
        }
        self.check();
    }

    fn read(&mut self, channel: ChannelId) {
        if let Some(message) = self.pair.ends[1].recv(channel).unwrap() {
            self.heard.entry(channel).or_default().push(message.len());
            *self.held.entry(channel).or_default() += message.len() as u64;
        }
    }

    fn release(&mut self, channel: ChannelId) {
        let held = self.held.insert(channel, 0).unwrap_or(0);
        self.pair.ends[1].release(channel, held);
    }

    fn check(&self) {
        for end in [0, 1] {
            assert!(self.pair.errors[end].is_empty(), "{:?}", self.pair.errors[end]);
        }
        let stats = self.pair.ends[1].stats();
        assert!(stats.unread_bytes <= SESSION_WINDOW, "{stats:?}");
        assert!(stats.unread_bytes + stats.unreleased_bytes <= 6 * u64::from(WINDOW), "{stats:?}");
        // Every message of the peer arrives in order.
        for (channel, heard) in &self.heard {
            assert!(self.sent[channel].starts_with(heard));
        }
    }

    /// Readers that read and release get everything: nothing stalls.
    fn finish(mut self) {
        for _ in 0..400 {
            self.pair.settle();
            self.pair.now.mono_ms += 25;
            self.pair.tick();
            for channel in self.channels.clone() {
                self.release(channel);
                self.read(channel);
            }
            self.check();
        }
        for (channel, sent) in &self.sent {
            assert_eq!(self.heard.get(channel), Some(sent), "{channel:?} stalled");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000 * scale() as u32, ..ProptestConfig::default() })]

    // Proves: LK-109
    #[test]
    fn credit_rules(acts in proptest::collection::vec(act(), 1..120)) {
        let mut model = Model::new();
        for act in &acts {
            model.act(act);
        }
        model.finish();
    }
}

// Proves: LK-109
#[test]
fn credit_rules_messages_of_one_mib_on_a_saga_channel() {
    let mut pair = Pair::standard();
    for (name, fits) in [("sts/1", 4), ("sts/1/control", 1), ("other", 0)] {
        let channel = pair.ends[0].open(3, name).unwrap();
        pair.settle();
        // Both ends raised their windows, and nothing is released: exactly the window fits, both ways.
        for from in [0, 1] {
            let mut arrived = 0;
            for _ in 0..6 {
                let _ = pair.ends[from].send(channel, Bytes::from(vec![1; MIB]));
                pair.settle();
                match pair.ends[1 - from].recv(channel) {
                    Ok(Some(message)) => {
                        assert_eq!(message.len(), MIB);
                        arrived += 1;
                    }
                    Ok(None) => {}
                    Err(error) => assert!(fits == 0 && matches!(error, RecvError::TooLarge { .. }), "{error}"),
                }
            }
            assert_eq!(arrived, fits, "{name} from {from}");
        }
        pair.ends[0].reset(channel, 0);
        pair.settle();
    }
}

// Proves: LK-109
#[test]
fn credit_rules_a_message_as_large_as_the_window_on_a_partly_used_one() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "window").unwrap();
    for used in [1, 100_000, 131_071, 131_072, 131_073, 262_143, 262_144] {
        for len in [used, 262_144] {
            pair.ends[0].send(channel, Bytes::from(vec![1; len])).unwrap();
            pair.settle();
            let mut got = pair.drain(1, channel);
            pair.settle();
            got.extend(pair.drain(1, channel));
            assert_eq!(got.iter().map(Bytes::len).collect::<Vec<_>>(), [len], "after {used} used");
        }
    }
}

// Proves: LK-109
#[test]
fn credit_rules_half_read_messages_on_64_channels_stall_nobody() {
    // What the half-read messages hold together is twice the session's window.
    let terms = Terms { session_credit: 2 << 20, ..Terms::default() };
    let mut pair = Pair::new(terms, SessionLimits::default());
    let channels: Vec<ChannelId> = (0..64).map(|_| pair.ends[0].open(3, "half").unwrap()).collect();
    pair.settle();
    for &channel in &channels {
        assert_eq!(pair.ends[1].recv(channel), Ok(None), "a reader waits on each");
    }
    let held = Bytes::from(vec![1; 200_000]);
    for &channel in &channels {
        pair.ends[0].send(channel, held.clone()).unwrap();
        pair.settle();
        assert!(pair.ends[1].recv(channel).unwrap().is_some());
        pair.ends[0].send(channel, held.clone()).unwrap();
        pair.settle();
        assert_eq!(pair.ends[1].recv(channel), Ok(None), "the reader waits for the second message");
    }
    // 62 KiB of each second message have arrived, and no more can before the first are released.
    let other = pair.ends[0].open(3, "free").unwrap();
    for _ in 0..100 {
        pair.ends[0].send(other, held.clone()).unwrap();
        pair.settle();
        assert_eq!(pair.drain(1, other).len(), 1);
    }
    let stats = pair.ends[1].stats();
    assert!(stats.unread_bytes + stats.unreleased_bytes <= 65 * 262_144, "{stats:?}");
    for &channel in &channels {
        pair.ends[1].release(channel, held.len() as u64);
    }
    pair.settle();
    for &channel in &channels {
        assert_eq!(pair.drain(1, channel), std::slice::from_ref(&held));
    }
}

// Proves: LK-109
#[test]
fn credit_rules_a_sender_above_a_limit_is_aborted() {
    let open = b"\x03\x01x";
    let window = Terms::default().channel_credit as usize;
    // The channel's limit.
    let mut pair = Pair::standard();
    pair.settle();
    pair.feed(1, P0, &raw(FrameType::Data, 4, 1, Some(1), open));
    let mut left = window - open.len();
    let mut seq = 2;
    while left > 0 {
        let len = left.min(60_000);
        pair.feed(1, P0, &raw(FrameType::Data, 0, 1, Some(seq), &vec![0; len]));
        (left, seq) = (left - len, seq + 1);
    }
    assert!(pair.errors[1].is_empty());
    pair.feed(1, P0, &raw(FrameType::Data, 0, 1, Some(seq), b"+"));
    let above = SessionError::AboveCredit { channel: 1, received: window as u64 + 1, limit: window as u64 };
    assert_eq!(pair.errors[1], [above]);
    assert_eq!(pair.ends[1].state(), SessionState::Closed);
    pair.settle();
    assert!(pair.take_events(0).iter().any(|event| matches!(event, Event::Aborted { code: 10, .. })));
    // The session's limit.
    let terms = Terms { session_credit: 100, ..Terms::default() };
    let mut pair = Pair::new(terms, SessionLimits::default());
    pair.feed(1, P0, &raw(FrameType::Data, 4, 1, Some(1), open));
    pair.feed(1, P0, &raw(FrameType::Data, 0, 1, Some(2), &[0; 98]));
    assert_eq!(pair.errors[1], [SessionError::AboveCredit { channel: 0, received: 101, limit: 100 }]);
}

#[test]
fn a_message_above_the_window_is_read_by_fragments() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "large").unwrap();
    pair.ends[0].send(channel, Bytes::from(vec![3; 3 * MIB])).unwrap();
    pair.settle();
    assert_eq!(pair.ends[1].recv(channel), Err(RecvError::TooLarge { window: 262_144 }));
    let mut got = 0;
    loop {
        match pair.ends[1].recv_fragment(channel).unwrap() {
            Some(Fragment { bytes, end }) => {
                got += bytes.len();
                pair.ends[1].release(channel, bytes.len() as u64);
                if end {
                    break;
                }
            }
            None => {
                pair.take_events(1);
                assert!(pair.settle() > 0, "stalled after {got}");
                assert!(pair.take_events(1).contains(&Event::Readable { channel }));
            }
        }
    }
    assert_eq!(got, 3 * MIB);
    pair.ends[0].send(channel, Bytes::from_static(b"next")).unwrap();
    pair.settle();
    assert_eq!(pair.drain(1, channel), [Bytes::from_static(b"next")]);
}

#[test]
fn withheld_credit_stops_the_peer_until_it_is_given() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "node limit").unwrap();
    pair.ends[1].hold_credit(true);
    let mut taken = 0;
    for _ in 0..10 {
        taken += usize::from(pair.ends[0].send(channel, Bytes::from(vec![0; 100_000])).is_ok());
        pair.settle();
        pair.drain(1, channel);
    }
    assert_eq!(taken, 5, "the first window and a queue");
    pair.ends[1].hold_credit(false);
    pair.settle();
    assert!(pair.ends[0].send(channel, Bytes::from(vec![0; 100_000])).is_ok());
}

#[test]
fn a_flood_of_empty_messages_takes_no_memory_and_no_turn() {
    let mut pair = Pair::standard();
    let channel = pair.ends[0].open(3, "empty").unwrap();
    let mut sent = 0;
    for _ in 0..200 {
        while pair.ends[0].send(channel, Bytes::new()).is_ok() {
            sent += 1;
        }
        pair.settle();
    }
    assert_eq!(pair.ends[1].stats().unread_bytes, 0);
    assert_eq!(pair.drain(1, channel).len(), sent);
}
