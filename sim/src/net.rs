//! A session between two nodes in memory: channels with credit windows, latency, an end in order and an end by force.
//!
//! It keeps the promises of the link that the driver relies on, and no more: messages of one channel arrive in order,
//! channels do not wait for each other, a sender has at most one window of bytes under way, a cut loses what has not
//! been received, and the two ends may see the cut at different times.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sealtide_crypto::Entropy;
use sealtide_identity::NodeId;
use sealtide_node::world::{ChannelGone, PeerChannel, PeerSession};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::dice::Dice;
use crate::guard;

/// The name of saga channels.
pub const SAGA: &str = "sts/1";
/// Bytes that may be under way on a saga channel. Spec: ibgib §13.2.
pub const SAGA_WINDOW: u64 = 4 * 1024 * 1024;
/// Bytes that may be under way on the control channel.
pub const CONTROL_WINDOW: u64 = 1024 * 1024;

/// How a link behaves.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Shortest way, ms.
    pub latency_ms: u64,
    /// What is added at random, ms.
    pub jitter_ms: u64,
    /// Messages after which the link is cut.
    pub cut_after: Option<u64>,
    /// Milliseconds that an end may need to see a cut.
    pub notice_ms: u64,
    /// Bytes per second of saga channels, by the end that sends.
    pub saga_rate: [Option<u64>; 2],
}

impl Default for Weather {
    fn default() -> Self {
        Self { latency_ms: 1, jitter_ms: 0, cut_after: None, notice_ms: 0, saga_rate: [None; 2] }
    }
}

/// What went over all links of a run. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<Counts>>);

/// Counters of messages on saga channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: u64,
    /// When the last one was sent.
    pub last: Option<Instant>,
    /// Most bytes that were under way in one direction of one channel.
    pub peak: u64,
    /// Links that were cut.
    pub cuts: u64,
}

impl Traffic {
    /// The counters now.
    pub fn counts(&self) -> Counts {
        *guard(&self.0)
    }
}

/// One end of a session. Clones are the same end.
#[derive(Clone)]
pub struct SimSession {
    link: Arc<Link>,
    end: usize,
    /// Whether the link gives a binding.
    bound: bool,
}

/// One end of a channel.
pub struct SimChannel {
    link: Arc<Link>,
    end: usize,
    index: usize,
    name: String,
    finished: AtomicBool,
}

struct Link {
    ids: [NodeId; 2],
    binding: [u8; 32],
    traffic: Traffic,
    state: Mutex<LinkState>,
    /// Something changed, for whoever waits on any part of the link.
    changed: Notify,
}

struct LinkState {
    weather: Weather,
    dice: Dice,
    sent: u64,
    /// When each end sees that the session is over.
    over_at: [Option<Instant>; 2],
    /// Cut: nothing arrives any more.
    lost: bool,
    channels: Vec<ChannelState>,
    /// Channels that an end has not accepted yet.
    incoming: [VecDeque<(Instant, usize)>; 2],
}

struct ChannelState {
    window: u64,
    saga: bool,
    /// By the end that sends.
    ways: [Way; 2],
}

/// One direction of a channel.
struct Way {
    queue: VecDeque<(Instant, Bytes)>,
    /// Sent, and not given back.
    used: u64,
    /// When the last message arrives.
    last: Instant,
    /// When the receiver sees the end in order.
    finished: Option<Instant>,
    /// When both ends see that it was given up.
    reset: Option<Instant>,
    /// The receiver has let go: what comes is dropped.
    dropped: bool,
}

impl Way {
    fn new(now: Instant) -> Self {
        Self { queue: VecDeque::new(), used: 0, last: now, finished: None, reset: None, dropped: false }
    }
}

/// Makes a session; the first end is the one that dialled.
pub fn connect(ids: [NodeId; 2], weather: Weather, dice: Dice, traffic: &Traffic) -> [SimSession; 2] {
    let mut binding = [0; 32];
    Entropy::fill(&mut dice.clone().split(), &mut binding);
    let state = LinkState {
        weather,
        dice,
        sent: 0,
        over_at: [None; 2],
        lost: false,
        channels: Vec::new(),
        incoming: Default::default(),
    };
    let link =
        Arc::new(Link { ids, binding, traffic: traffic.clone(), state: Mutex::new(state), changed: Notify::new() });
    [0, 1].map(|end| SimSession { link: link.clone(), end, bound: true })
}

fn passed(at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| at <= now)
}

impl LinkState {
    fn over(&self, end: usize, now: Instant) -> bool {
        passed(self.over_at[end], now)
    }

    /// When something that leaves now behind `last` arrives.
    fn arrival(&mut self, last: Instant) -> Instant {
        let way = self.weather.latency_ms + self.dice.below(self.weather.jitter_ms + 1);
        last.max(Instant::now() + Duration::from_millis(way))
    }

    fn cut(&mut self, traffic: &Traffic) {
        if self.lost {
            return;
        }
        guard(&traffic.0).cuts += 1;
        self.lost = true;
        let now = Instant::now();
        for end in 0..2 {
            let late = if self.dice.one_in(2) { self.dice.below(self.weather.notice_ms + 1) } else { 0 };
            let seen = now + Duration::from_millis(late);
            self.over_at[end] = Some(self.over_at[end].map_or(seen, |at| at.min(seen)));
        }
        for way in self.channels.iter_mut().flat_map(|channel| &mut channel.ways) {
            way.queue.clear();
        }
        self.incoming.iter_mut().for_each(VecDeque::clear);
    }
}

impl Link {
    /// Asks again whenever something changed, or at the time that `look` names.
    async fn wait<T>(&self, mut look: impl FnMut(&mut LinkState, Instant) -> Result<T, Option<Instant>>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let found = look(&mut guard(&self.state), Instant::now());
            match found {
                Ok(found) => return found,
                Err(None) => changed.await,
                Err(Some(at)) => _ = timeout_at(at, changed).await,
            }
        }
    }

    fn change(&self, work: impl FnOnce(&mut LinkState)) {
        work(&mut guard(&self.state));
        self.changed.notify_waiters();
    }
}

fn earliest(times: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    times.into_iter().flatten().min()
}

impl SimSession {
    /// The same end over a link that gives no binding.
    pub fn unbound(&self) -> Self {
        Self { bound: false, ..self.clone() }
    }

    /// Cuts the link now: what is under way is lost.
    pub fn cut(&self) {
        self.link.change(|state| state.cut(&self.link.traffic));
    }

    /// Changes the weather from now on.
    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        self.link.change(|state| change(&mut state.weather));
    }

    /// Whether this end has seen the end of the session.
    pub fn is_over(&self) -> bool {
        guard(&self.link.state).over(self.end, Instant::now())
    }

    /// Waits until this end sees the end of the session.
    pub async fn over(&self) {
        let end = self.end;
        let look = |state: &mut LinkState, now| if state.over(end, now) { Ok(()) } else { Err(state.over_at[end]) };
        self.link.wait(look).await;
    }
}

impl PeerSession for SimSession {
    type Channel = SimChannel;

    fn peer(&self) -> NodeId {
        self.link.ids[1 - self.end]
    }

    fn is_initiator(&self) -> bool {
        self.end == 0
    }

    fn binding(&self) -> Option<[u8; 32]> {
        self.bound.then_some(self.link.binding)
    }

    async fn open(&self, _class: u8, name: &str) -> Result<SimChannel, ChannelGone> {
        let mut index = Err(ChannelGone);
        self.link.change(|state| {
            let now = Instant::now();
            if state.over(self.end, now) {
                return;
            }
            let saga = name == SAGA;
            let window = if saga { SAGA_WINDOW } else { CONTROL_WINDOW };
            let last = state.incoming[1 - self.end].back().map_or(now, |(at, _)| *at);
            let at = state.arrival(last);
            state.channels.push(ChannelState { window, saga, ways: [Way::new(at), Way::new(at)] });
            if !state.lost {
                state.incoming[1 - self.end].push_back((at, state.channels.len() - 1));
            }
            index = Ok(state.channels.len() - 1);
        });
        Ok(self.channel(index?, name))
    }

    async fn accept(&self) -> Option<SimChannel> {
        let end = self.end;
        let taken = self.link.wait(|state, now| {
            if state.over(end, now) {
                return Ok(None);
            }
            let next = state.incoming[end].front().map(|(at, _)| *at);
            match state.incoming[end].pop_front_if(|(at, _)| *at <= now) {
                Some((_, index)) => Ok(Some((index, state.channels[index].saga))),
                None => Err(earliest([next, state.over_at[end]])),
            }
        });
        let (index, saga) = taken.await?;
        Some(self.channel(index, if saga { SAGA } else { "sts/1/control" }))
    }

    fn close(&self) {
        self.link.change(|state| {
            let now = Instant::now();
            if state.over_at[self.end].is_none_or(|at| at > now) {
                state.over_at[self.end] = Some(now);
            }
            // The peer gets everything that was sent, then sees the end.
            if state.over_at[1 - self.end].is_none() {
                let last = state.channels.iter().map(|channel| channel.ways[self.end].last).max();
                state.over_at[1 - self.end] = Some(state.arrival(last.unwrap_or(now)) + Duration::from_millis(1));
            }
        });
    }
}

impl SimSession {
    fn channel(&self, index: usize, name: &str) -> SimChannel {
        let (link, name) = (self.link.clone(), name.to_owned());
        SimChannel { link, end: self.end, index, name, finished: AtomicBool::new(false) }
    }
}

impl SimChannel {
    /// What keeps a message from leaving: `Ok(None)` when nothing does.
    fn refusal(&self, state: &LinkState, now: Instant, size: u64) -> Result<bool, ChannelGone> {
        let channel = &state.channels[self.index];
        let way = &channel.ways[self.end];
        if state.over(self.end, now) || passed(way.reset, now) || self.finished.load(Ordering::Relaxed) {
            return Err(ChannelGone);
        }
        Ok(!way.dropped && way.used > 0 && way.used + size > channel.window)
    }

    fn put(&self, state: &mut LinkState, message: Bytes) {
        let size = message.len() as u64;
        let last = state.channels[self.index].ways[self.end].last;
        let mut at = state.arrival(last);
        let channel = &mut state.channels[self.index];
        if channel.saga
            && let Some(rate) = state.weather.saga_rate[self.end]
        {
            at = at.max(last + Duration::from_micros(size * 1_000_000 / rate));
        }
        let way = &mut channel.ways[self.end];
        if !way.dropped {
            way.used += size;
            way.last = at;
            if !state.lost {
                way.queue.push_back((at, message));
            }
        }
        state.sent += 1;
        if channel.saga {
            let mut counts = guard(&self.link.traffic.0);
            counts.messages += 1;
            counts.bytes += size;
            counts.last = Some(Instant::now());
            counts.peak = counts.peak.max(way.used);
        }
        if state.weather.cut_after.is_some_and(|after| state.sent >= after) {
            state.cut(&self.link.traffic);
        }
    }
}

impl PeerChannel for SimChannel {
    fn name(&self) -> &str {
        &self.name
    }

    async fn send(&self, message: Bytes) -> Result<(), ChannelGone> {
        let size = message.len() as u64;
        let sent = self.link.wait(|state, now| match self.refusal(state, now, size) {
            Err(gone) => Ok(Err(gone)),
            Ok(false) => {
                self.put(state, message.clone());
                Ok(Ok(()))
            }
            Ok(true) => Err(earliest([state.over_at[self.end], state.channels[self.index].ways[self.end].reset])),
        });
        sent.await?;
        self.link.changed.notify_waiters();
        Ok(())
    }

    async fn recv(&self) -> Result<Option<Bytes>, ChannelGone> {
        let look = |state: &mut LinkState, now| {
            if state.over(self.end, now) {
                return Ok(Err(ChannelGone));
            }
            let over = state.over_at[self.end];
            let way = &mut state.channels[self.index].ways[1 - self.end];
            if passed(way.reset, now) {
                return Ok(Err(ChannelGone));
            }
            if let Some((_, message)) = way.queue.pop_front_if(|(at, _)| *at <= now) {
                return Ok(Ok(Some(message)));
            }
            if way.queue.is_empty() && passed(way.finished, now) {
                return Ok(Ok(None));
            }
            let next = way.queue.front().map(|(at, _)| *at);
            Err(earliest([next, over, way.reset, way.finished.filter(|at| *at > now)]))
        };
        self.link.wait(look).await
    }

    fn release(&self, bytes: u64) {
        self.link.change(|state| {
            let way = &mut state.channels[self.index].ways[1 - self.end];
            way.used = way.used.saturating_sub(bytes);
        });
    }

    fn finish(&self) {
        self.finished.store(true, Ordering::Relaxed);
        self.link.change(|state| {
            let last = state.channels[self.index].ways[self.end].last;
            let at = state.arrival(last);
            if !state.lost {
                state.channels[self.index].ways[self.end].finished.get_or_insert(at);
            }
        });
    }
}

impl Drop for SimChannel {
    fn drop(&mut self) {
        self.link.change(|state| {
            let at = state.arrival(Instant::now());
            let lost = state.lost;
            let ways = &mut state.channels[self.index].ways;
            let back = &mut ways[1 - self.end];
            back.dropped = true;
            back.queue.clear();
            if !self.finished.load(Ordering::Relaxed) && !lost {
                ways.iter_mut().for_each(|way| _ = way.reset.get_or_insert(at));
            }
        });
    }
}
