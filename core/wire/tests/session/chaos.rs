//! Paths that die, change and come back at any moment, both directions at once.

use std::collections::BTreeMap;

use bytes::Bytes;
use sealtide_wire::frame::FrameType;
use sealtide_wire::session::{ChannelId, Event, PathId, SendError, SessionLimits, SessionState, Terms};

use crate::pair::{Dice, Pair, scale};

const FRAMES: u64 = 200;

/// What one end wants to say and has heard.
struct Talk {
    channels: Vec<ChannelId>,
    left: u64,
    sent: BTreeMap<ChannelId, Vec<Bytes>>,
    heard: BTreeMap<ChannelId, Vec<Bytes>>,
    controls_sent: Vec<Bytes>,
    controls_heard: Vec<Bytes>,
}

struct Chaos {
    pair: Pair,
    dice: Dice,
    talks: [Talk; 2],
    next_path: u32,
    /// A path being made: each end's `rx_next` as it was when its re-handshake began.
    making: Option<[u64; 2]>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let terms = Terms { session_credit: 4_000, channel_credit: 1_500, ..Terms::default() };
        let limits = SessionLimits { data_payload_bytes: 100, ..SessionLimits::default() };
        let mut pair = Pair::new(terms, limits);
        let talks = [0, 1].map(|end| Talk {
            channels: [0, 3, 7].map(|class| pair.ends[end].open(class, &format!("chaos/{class}")).unwrap()).to_vec(),
            left: FRAMES,
            sent: BTreeMap::new(),
            heard: BTreeMap::new(),
            controls_sent: Vec::new(),
            controls_heard: Vec::new(),
        });
        Self { pair, dice: Dice::new(seed), talks, next_path: 1, making: None }
    }

    fn step(&mut self) {
        let end = self.dice.below(2) as usize;
        match self.dice.below(100) {
            0..20 => self.say(end),
            20..45 => {
                let frames = self.dice.below(12) as usize;
                self.pair.write(end, frames);
            }
            45..80 => self.deliver_some(end),
            80..83 => {
                if let Some(path) = self.any_path() {
                    self.pair.cut(path);
                }
            }
            83..86 => self.notice_a_cut(end),
            86..90 => self.make_path(),
            90..94 => {
                if let Some(path) = self.any_path() {
                    self.pair.ends[end].switch(self.pair.now, path);
                }
            }
            94..97 => self.lose_an_ack(end),
            _ => {
                self.pair.now.mono_ms += self.dice.below(40);
                self.pair.tick();
            }
        }
        self.listen();
    }

    fn say(&mut self, end: usize) {
        let talk = &mut self.talks[end];
        if talk.left == 0 {
            return;
        }
        if self.dice.one_in(12) {
            let payload = Bytes::from(format!("certificate {}", talk.controls_sent.len()));
            if self.pair.ends[end].send_control(FrameType::CertUpdate, payload.clone()).is_ok() {
                talk.controls_sent.push(payload);
            }
            return;
        }
        let channel = talk.channels[self.dice.below(3) as usize];
        // Up to six frames of 100 bytes, often exactly at the border of one.
        let len = if self.dice.one_in(4) { self.dice.below(4) * 100 } else { self.dice.below(600) };
        let message: Bytes = (0..len).map(|at| (at ^ talk.left) as u8).collect();
        match self.pair.ends[end].send(channel, message.clone()) {
            Ok(()) => {
                talk.sent.entry(channel).or_default().push(message);
                talk.left = talk.left.saturating_sub(len.div_ceil(100).max(1));
            }
            Err(SendError::WouldBlock(back)) => assert_eq!(back, message),
            Err(error) => panic!("{error}"),
        }
    }

    fn deliver_some(&mut self, from: usize) {
        if let Some(path) = self.any_path() {
            for _ in 0..self.dice.below(12) {
                self.pair.deliver(path, from);
            }
        }
    }

    fn any_path(&mut self) -> Option<PathId> {
        let live: Vec<PathId> = self.pair.pipes.iter().filter(|(_, pipe)| !pipe.cut).map(|(id, _)| *id).collect();
        (!live.is_empty()).then(|| live[self.dice.below(live.len() as u64) as usize])
    }

    /// One end learns of one cut; the other may go on writing into it.
    fn notice_a_cut(&mut self, end: usize) {
        let cut = self.pair.pipes.iter().find(|(id, pipe)| pipe.cut && self.pair.attached[end].contains(id));
        if let Some(path) = cut.map(|(id, _)| *id) {
            self.pair.tell_lost(end, path);
        }
    }

    /// At most two live paths. What the ends know of each other is old by the time the path is attached.
    fn make_path(&mut self) {
        let Some(known) = self.making.take() else {
            self.making = Some([self.pair.ends[0].rx_next(), self.pair.ends[1].rx_next()]);
            return;
        };
        if self.pair.pipes.values().filter(|pipe| !pipe.cut).count() >= 2 {
            return;
        }
        let path = PathId(self.next_path);
        self.next_path += 1;
        self.pair.pipes.insert(path, crate::pair::Pipe { room: usize::MAX, ..Default::default() });
        for end in [0, 1] {
            self.pair.ends[end].attach(self.pair.now, path, known[1 - end]).unwrap();
            self.pair.attached[end].insert(path);
        }
    }

    fn lose_an_ack(&mut self, from: usize) {
        for pipe in self.pair.pipes.values_mut() {
            let ack = pipe.queues[from].iter().position(|frame| frame[0] == FrameType::Ack.code());
            if let Some(at) = ack {
                pipe.queues[from].remove(at);
            }
        }
    }

    /// Takes events, reads everything, closes pipes that an end has given up.
    fn listen(&mut self) {
        for end in [0, 1] {
            for event in self.pair.take_events(end) {
                match event {
                    Event::Control { kind, payload } => {
                        assert_eq!(kind, FrameType::CertUpdate);
                        self.talks[end].controls_heard.push(payload);
                    }
                    Event::PathFailed { path, .. } => self.pair.cut(path),
                    Event::Aborted { .. } | Event::Lost { .. } | Event::PeerClosed { .. } => panic!("{event:?}"),
                    _ => {}
                }
            }
            assert!(self.pair.errors[end].is_empty(), "{:?}", self.pair.errors[end]);
            for channel in self.talks[1 - end].channels.clone() {
                let messages = self.pair.drain(end, channel);
                self.talks[end].heard.entry(channel).or_default().extend(messages);
            }
        }
    }

    /// Ends the faults, lets everything flow, and compares.
    fn check(mut self, seed: u64) {
        for path in self.pair.pipes.keys().copied().collect::<Vec<_>>() {
            self.pair.lose(path);
        }
        self.making = Some([self.pair.ends[0].rx_next(), self.pair.ends[1].rx_next()]);
        self.make_path();
        for _ in 0..2_000 {
            self.pair.settle();
            self.pair.now.mono_ms += 30;
            self.pair.tick();
            self.listen();
            for end in [0, 1] {
                self.say(end);
            }
        }
        for end in [0, 1] {
            let (from, to) = (&self.talks[end], &self.talks[1 - end]);
            assert_eq!(from.left, 0, "seed {seed}: end {end} is stuck");
            for channel in &from.channels {
                assert!(from.sent.get(channel) == to.heard.get(channel), "seed {seed}: {channel:?} of end {end}");
            }
            assert_eq!(from.controls_sent, to.controls_heard, "seed {seed}");
            assert_eq!(self.pair.ends[end].state(), SessionState::Open);
            assert_eq!(self.pair.ends[end].stats().unacked_frames, 0, "seed {seed}");
        }
    }
}

// Proves: LK-37, and the order of control frames of LK-97
#[test]
fn migrate_chaos() {
    let (mut switches, mut repeated, mut duplicates) = (0, 0, 0);
    for seed in 0..100 * scale() {
        let mut chaos = Chaos::new(seed);
        let mut steps = 0;
        while chaos.talks.iter().any(|talk| talk.left > 0) && steps < 20_000 {
            chaos.step();
            steps += 1;
        }
        for end in &chaos.pair.ends {
            let stats = end.stats();
            switches += stats.switches;
            repeated += stats.frames_retransmitted;
            duplicates += stats.frames_duplicate;
        }
        chaos.check(seed);
    }
    // A model in which nothing happens proves nothing.
    assert!(switches > 1_000 && repeated > 1_000 && duplicates > 100, "{switches} {repeated} {duplicates}");
}
