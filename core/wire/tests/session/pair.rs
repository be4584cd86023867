//! Two sessions, the pipes between them, and a clock that only tests move.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sealtide_crypto::{Entropy, Now, SeededEntropy};
use sealtide_wire::frame::{FrameType, Header};
use sealtide_wire::session::{
    ChannelId, Event, PathId, Scope, Session, SessionConfig, SessionError, SessionLimits, Terms, Transmit,
};

/// The size of long tests, from `SEALTIDE_TEST_SCALE`.
#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment, the core takes nothing")]
pub(crate) fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Seeded chance.
pub(crate) struct Dice(SeededEntropy);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    /// A number from 0 to below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_be_bytes(bytes) % end
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A pipe with two directions; index 0 carries what end 0 sent.
#[derive(Default)]
pub(crate) struct Pipe {
    pub(crate) queues: [VecDeque<Bytes>; 2],
    /// Bytes that fit into one direction before its writer has to wait.
    pub(crate) room: usize,
    /// Bytes are taken and lost.
    pub(crate) black_hole: [bool; 2],
    /// Both directions are dead.
    pub(crate) cut: bool,
}

pub(crate) struct Pair {
    pub(crate) now: Now,
    pub(crate) ends: [Session; 2],
    pub(crate) pipes: BTreeMap<PathId, Pipe>,
    /// Paths that an end still uses.
    pub(crate) attached: [BTreeSet<PathId>; 2],
    pub(crate) events: [VecDeque<Event>; 2],
    pub(crate) errors: [Vec<SessionError>; 2],
}

pub(crate) const P0: PathId = PathId(0);
pub(crate) const P1: PathId = PathId(1);

pub(crate) fn config(initiator: bool, terms: Terms, limits: SessionLimits) -> SessionConfig {
    SessionConfig { initiator, ours: terms, theirs: terms, limits, jitter_seed: 7 + u64::from(initiator) }
}

impl Pair {
    /// Two ends without a path.
    pub(crate) fn detached(terms: Terms, limits: SessionLimits) -> Self {
        let now = Now { mono_ms: 1_000, wall_ms: 0 };
        let end = |initiator| Session::new(now, config(initiator, terms, limits));
        Self {
            now,
            ends: [end(true), end(false)],
            pipes: BTreeMap::new(),
            attached: Default::default(),
            events: Default::default(),
            errors: Default::default(),
        }
    }

    /// Two ends with path 0.
    pub(crate) fn new(terms: Terms, limits: SessionLimits) -> Self {
        let mut pair = Self::detached(terms, limits);
        pair.attach(P0);
        pair
    }

    pub(crate) fn standard() -> Self {
        Self::new(Terms::default(), SessionLimits::default())
    }

    /// Makes a pipe and attaches it at both ends.
    pub(crate) fn attach(&mut self, path: PathId) {
        self.pipes.insert(path, Pipe { room: usize::MAX, ..Pipe::default() });
        let next = [self.ends[0].rx_next(), self.ends[1].rx_next()];
        for end in [0, 1] {
            self.ends[end].attach(self.now, path, next[1 - end]).unwrap();
            self.attached[end].insert(path);
        }
        self.collect();
    }

    /// Cuts a pipe, with everything in it; the ends are told by `tell_lost`.
    pub(crate) fn cut(&mut self, path: PathId) {
        let pipe = self.pipes.get_mut(&path).unwrap();
        pipe.cut = true;
        pipe.queues = Default::default();
    }

    pub(crate) fn tell_lost(&mut self, end: usize, path: PathId) {
        if self.attached[end].remove(&path) {
            self.ends[end].path_lost(self.now, path);
        }
        self.collect();
    }

    /// Cuts a pipe and tells both ends.
    pub(crate) fn lose(&mut self, path: PathId) {
        self.cut(path);
        self.tell_lost(0, path);
        self.tell_lost(1, path);
    }

    /// Lets an end write up to `frames` frames into its pipes; returns how many it wrote.
    pub(crate) fn write(&mut self, end: usize, frames: usize) -> usize {
        let mut written = 0;
        for path in self.attached[end].clone() {
            while written < frames {
                let pipe = self.pipes.get_mut(&path).unwrap();
                let used: usize = pipe.queues[end].iter().map(Bytes::len).sum();
                let Some(transmit) = self.ends[end].poll_transmit(self.now, path, pipe.room.saturating_sub(used))
                else {
                    break;
                };
                written += 1;
                if !pipe.cut && !pipe.black_hole[end] {
                    pipe.queues[end].push_back(join(&transmit));
                }
            }
        }
        self.collect();
        written
    }

    /// Takes one frame that `from` wrote out of a pipe and hands it to the other end.
    pub(crate) fn deliver(&mut self, path: PathId, from: usize) -> bool {
        let Some(bytes) = self.pipes.get_mut(&path).and_then(|pipe| pipe.queues[from].pop_front()) else {
            return false;
        };
        let to = 1 - from;
        if self.attached[to].contains(&path) {
            self.feed(to, path, &bytes);
        }
        true
    }

    /// Hands the bytes of one frame to an end.
    pub(crate) fn feed(&mut self, to: usize, path: PathId, bytes: &Bytes) {
        let header = Header::parse(bytes, u32::MAX).unwrap().unwrap();
        let result = self.ends[to].handle_frame(self.now, path, header, &bytes[header.bytes()..]);
        if let Err(error) = result {
            if error.scope() == Scope::Path {
                self.attached[to].remove(&path);
            }
            self.errors[to].push(error);
        }
        self.collect();
    }

    /// Writes and delivers until nothing moves; returns the frames delivered.
    pub(crate) fn settle(&mut self) -> usize {
        let mut moved = 0;
        loop {
            let written = self.write(0, 64) + self.write(1, 64);
            let mut delivered = 0;
            for path in self.pipes.keys().copied().collect::<Vec<_>>() {
                for from in [0, 1] {
                    while self.deliver(path, from) {
                        delivered += 1;
                    }
                }
            }
            moved += delivered;
            if written + delivered == 0 {
                return moved;
            }
        }
    }

    /// Moves the clock by steps of the ends' own timeouts, settling at each.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        loop {
            self.settle();
            let next = self.ends.iter().filter_map(Session::next_timeout).min().unwrap_or(u64::MAX).min(end);
            assert!(next > self.now.mono_ms || next == end, "a timeout that was handled comes again");
            self.now.mono_ms = next.max(self.now.mono_ms);
            self.tick();
            if self.now.mono_ms >= end {
                self.settle();
                return;
            }
        }
    }

    /// Tells both ends the time.
    pub(crate) fn tick(&mut self) {
        for end in [0, 1] {
            if self.ends[end].next_timeout().is_some_and(|at| at <= self.now.mono_ms) {
                self.ends[end].handle_timeout(self.now);
            }
        }
        self.collect();
    }

    /// The events of an end, taken.
    pub(crate) fn take_events(&mut self, end: usize) -> Vec<Event> {
        self.events[end].drain(..).collect()
    }

    /// Receives every whole message that is there, and releases it.
    pub(crate) fn drain(&mut self, end: usize, channel: ChannelId) -> Vec<Bytes> {
        let mut messages = Vec::new();
        while let Ok(Some(message)) = self.ends[end].recv(channel) {
            self.ends[end].release(channel, message.len() as u64);
            messages.push(message);
        }
        messages
    }

    fn collect(&mut self) {
        for end in [0, 1] {
            while let Some(event) = self.ends[end].poll_event() {
                if let Event::PathFailed { path, .. } = event {
                    self.attached[end].remove(&path);
                }
                self.events[end].push_back(event);
            }
        }
    }
}

/// The bytes of a frame as a driver would write them.
pub(crate) fn join(transmit: &Transmit) -> Bytes {
    [transmit.head.as_ref(), &transmit.payload].concat().into()
}

/// A frame made by hand.
pub(crate) fn raw(kind: FrameType, flags: u8, channel: u16, seq: Option<u64>, payload: &[u8]) -> Bytes {
    let mut bytes = Vec::new();
    Header { kind, flags, channel, len: payload.len() as u32, seq }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes.into()
}

/// The channels that the peer opened, in order.
pub(crate) fn opened(events: &[Event]) -> Vec<ChannelId> {
    events
        .iter()
        .filter_map(|event| match event {
            Event::ChannelOpened { channel, .. } => Some(*channel),
            _ => None,
        })
        .collect()
}
