//! The session of a link: what two nodes share over all their paths. Spec: link C.9, C.11.
//!
//! ```text
//! NEW ── attach ──▶ OPEN ⇄ SUSPENDED (no usable path) ── suspend_ms ──▶ CLOSED (Lost)
//!                    └── close ──▶ CLOSING ── acknowledged ──▶ CLOSED
//! ```
//!
//! A session takes frames (`handle_frame`), time (`handle_timeout`) and the wishes of the layer above, and gives
//! frames (`poll_transmit`, one path at a time) and facts (`poll_event`). After each call poll both until they are
//! empty, then sleep until `next_timeout`. It does not know what a path is made of.
//!
//! Numbered frames are kept until acknowledged (`outbox`), so a path can die or change at any moment: the next one
//! starts at the last number that the peer is known to have. The receiver takes numbers in order only (`inbox`).
//! Channels carry messages under credit (`inflow`, `outflow`, `credit`); the scheduler shares the path among them.

mod alive;
mod channel;
mod config;
mod credit;
mod event;
mod handle;
mod inbox;
mod inflow;
mod outbox;
mod outflow;
mod path;
mod policy;
mod transmit;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sealtide_crypto::Now;

pub use config::{DATA_PAYLOAD_BYTES, QUANTUM_BYTES, SessionConfig, SessionLimits, Terms, window_of};
pub use policy::{PathHealth, PathPolicy, PathView, choose};

pub use event::{
    AttachError, ChannelId, ControlError, Event, Fragment, Head, OpenError, PathFailure, PathId, RecvError, Scope,
    SendError, SessionError, SessionState, SessionStats, Transmit,
};

use channel::Channel;
use credit::{Allowance, Window};
use inbox::Inbox;
use outbox::{Outbox, Sequenced};
use path::Path;

use crate::frame::{ErrorCode, FrameType, Notice};

/// Control frames of the layer above that wait to be numbered.
const CONTROL_QUEUE: usize = 16;

/// However often the peer asks to be pinged, not more often than this, in milliseconds.
const PING_MS_MIN: u64 = 1_000;

/// One end of a session.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    /// The last time that any call brought, in milliseconds.
    now: u64,
    born: u64,
    jitter: u64,
    outbox: Outbox,
    inbox: Inbox,
    paths: BTreeMap<PathId, Path>,
    active: Option<PathId>,
    /// The last path was lost at this time.
    suspended: Option<u64>,
    attached_once: bool,
    /// When frames on the active path began to be outstanding.
    outstanding_since: u64,
    /// When an ACK last brought news, or frames began to be outstanding.
    progress_since: u64,
    /// DATA bytes over all channels: granted to the peer, and to us.
    window: Window,
    allowance: Allowance,
    hold_credit: bool,
    channels: BTreeMap<u16, Channel>,
    next_channel: u16,
    /// Channels opened by us, and by the peer, that have not ended in both directions.
    open_ours: usize,
    open_theirs: usize,
    idle_since: Option<u64>,
    interest: bool,
    /// Channels with something to send: class 0, and the rest in turn.
    urgent: VecDeque<u16>,
    ring: VecDeque<u16>,
    /// Channels whose CREDIT or RESET is due.
    credits: VecDeque<u16>,
    resets: VecDeque<u16>,
    control: VecDeque<Sequenced>,
    closing: Option<Closing>,
    over: Option<Over>,
    events: VecDeque<Event>,
    stats: SessionStats,
}

/// Our CLOSE on its way.
#[derive(Debug)]
struct Closing {
    code: u16,
    deadline: u64,
    /// The number of the CLOSE frame once it has one.
    seq: Option<u64>,
}

/// How the session ended.
#[derive(Debug)]
enum Over {
    /// The peer's CLOSE came; ACKs still leave.
    ClosedByPeer,
    /// Nothing leaves any more.
    Silent,
    /// ABORT leaves once on every path.
    Aborting(Notice),
}

impl Session {
    /// A session right after the full handshake; `attach` its first path next.
    pub fn new(now: Now, config: SessionConfig) -> Self {
        Self {
            config,
            now: now.mono_ms,
            born: now.mono_ms,
            jitter: config.jitter_seed | 1,
            outbox: Outbox::new(),
            inbox: Inbox::new(),
            paths: BTreeMap::new(),
            active: None,
            suspended: None,
            attached_once: false,
            outstanding_since: now.mono_ms,
            progress_since: now.mono_ms,
            window: Window::new(config.ours.session_credit),
            allowance: Allowance::new(config.theirs.session_credit),
            hold_credit: false,
            channels: BTreeMap::new(),
            next_channel: if config.initiator { 1 } else { 2 },
            open_ours: 0,
            open_theirs: 0,
            idle_since: Some(now.mono_ms),
            interest: false,
            urgent: VecDeque::new(),
            ring: VecDeque::new(),
            credits: VecDeque::new(),
            resets: VecDeque::new(),
            control: VecDeque::new(),
            closing: None,
            over: None,
            events: VecDeque::new(),
            stats: SessionStats::default(),
        }
    }

    /// Adds a path that finished its handshake. `peer_rx_next` is the peer's next expected number: 1 in a new session,
    /// else from the re-handshake or extension 1. The first path, and any path of a suspended session, becomes
    /// active; else it is a standby until `switch`.
    ///
    /// # Errors
    /// [`AttachError`]: close the path; the session is unchanged.
    pub fn attach(&mut self, now: Now, path: PathId, peer_rx_next: u64) -> Result<(), AttachError> {
        self.now = now.mono_ms;
        if self.over.is_some() {
            return Err(AttachError::Over);
        }
        if self.paths.contains_key(&path) {
            return Err(AttachError::InUse(path));
        }
        // A smaller number than the last ACK only means that ACKs went on while the path was being made.
        let sent = self.outbox.written();
        if peer_rx_next > sent {
            return Err(AttachError::OutOfRange { next: peer_rx_next, sent });
        }
        self.acknowledged(peer_rx_next);
        let interval = self.interval(true);
        self.paths.insert(path, Path::new(self.now, interval));
        if !std::mem::replace(&mut self.attached_once, true) {
            self.active = Some(path);
        } else if self.active.is_none() {
            self.take(path);
        }
        Ok(())
    }

    /// The pipe of a path reported an error or its end: it is never used again, what it held is repeated elsewhere.
    pub fn path_lost(&mut self, now: Now, path: PathId) {
        self.now = now.mono_ms;
        self.detach(path);
    }

    /// Bytes came on the path that are no whole frame yet: it is alive. `handle_frame` says so by itself.
    pub fn path_alive(&mut self, now: Now, path: PathId) {
        self.now = now.mono_ms;
        if let Some(path) = self.paths.get_mut(&path) {
            path.hear(self.now);
        }
    }

    /// Sends sequenced frames over `path` from now on. `false` when it is not attached.
    pub fn switch(&mut self, now: Now, path: PathId) -> bool {
        self.now = now.mono_ms;
        if self.over.is_some() || !self.paths.contains_key(&path) {
            return false;
        }
        if self.active != Some(path) {
            self.take(path);
        }
        true
    }

    /// The next thing to tell; poll until none after each call that changes the session.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Sends a CERT_UPDATE, ADDR_UPDATE or PUNCH, in order with everything else, once. An ADDR_UPDATE says all that an earlier
    /// one said: it takes the place of one that still waits to be numbered, as in a session without a path.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn send_control(&mut self, kind: FrameType, payload: Bytes) -> Result<(), ControlError> {
        if self.is_ending() {
            return Err(ControlError::Over);
        }
        let sendable = matches!(kind, FrameType::CertUpdate | FrameType::AddrUpdate | FrameType::Punch);
        if !sendable || payload.len() > self.config.theirs.max_payload as usize {
            return Err(ControlError::NotSendable);
        }
        let outdated = |frame: &Sequenced| kind == FrameType::AddrUpdate && frame.kind == kind;
        if let Some(waiting) = self.control.iter_mut().find(|frame| outdated(frame)) {
            waiting.payload = payload;
            return Ok(());
        }
        if self.control.len() >= CONTROL_QUEUE {
            return Err(ControlError::WouldBlock);
        }
        self.control.push_back(Sequenced::new(kind, 0, payload));
        Ok(())
    }

    /// Ends the session in order: CLOSE follows everything queued.
    pub fn close(&mut self, now: Now, code: u16) {
        self.now = now.mono_ms;
        if self.is_ending() {
            return;
        }
        if !self.attached_once {
            self.end(Over::Silent, Event::Closed);
            return;
        }
        let deadline = self.now.saturating_add(self.config.limits.close_ms);
        self.closing = Some(Closing { code, deadline, seq: None });
    }

    /// Ends the session now; ABORT is the next thing `poll_transmit` gives for every path.
    pub fn abort(&mut self, code: ErrorCode, text: &str) {
        let notice = Notice::with_text(code, text);
        let event = Event::Aborted { code: notice.code, text: notice.text.clone() };
        self.end(Over::Aborting(notice), event);
    }

    /// The peer does not know the session any more: reports `Event::Lost`.
    pub fn lost(&mut self) {
        let event = Event::Lost { acked: self.outbox.base() - 1 };
        self.end(Over::Silent, event);
    }

    /// Withholds CREDIT while `hold`, for the node-wide limit of received bytes. Spec: link C.12.
    pub fn hold_credit(&mut self, hold: bool) {
        self.hold_credit = hold;
    }

    /// Whether a CREDIT waits to leave: what reading and releasing give the driver to write.
    pub fn credit_is_due(&self) -> bool {
        !self.hold_credit && (self.window.due().is_some() || !self.credits.is_empty())
    }

    /// Whether CREDIT is withheld.
    pub fn holds_credit(&self) -> bool {
        self.hold_credit
    }

    /// Whether something wants the session even while no channel is open; without it the session closes itself
    /// after `idle_ms` with code 0. Spec: link C.6.
    pub fn standing_interest(&mut self, interest: bool) {
        self.interest = interest;
    }

    /// The next sequence number expected from the peer, for a re-handshake.
    pub fn rx_next(&self) -> u64 {
        self.inbox.next()
    }

    /// The number of the first frame that a new path will carry, `tx_from` of a re-handshake. Spec: link C.8.
    pub fn tx_from(&self, peer_rx_next: u64) -> u64 {
        self.outbox.base().max(peer_rx_next)
    }

    /// The path that carries our sequenced frames.
    pub fn active_path(&self) -> Option<PathId> {
        self.active
    }

    /// The paths attached.
    pub fn paths(&self) -> impl Iterator<Item = PathId> + '_ {
        self.paths.keys().copied()
    }

    /// How a path does; none when it is not attached.
    pub fn path_health(&self, path: PathId) -> Option<PathHealth> {
        let path = self.paths.get(&path)?;
        Some(PathHealth { rtt_ms: path.least_ms(), answered: path.answered, suspect: path.is_suspect() })
    }

    /// Sends a PING on a path soon, whatever its interval.
    pub fn probe(&mut self, path: PathId) {
        if let Some(path) = self.paths.get_mut(&path) {
            path.ping = true;
        }
    }

    /// Whether neither end has numbered frames under way on a path: it may be closed without repeating any.
    pub fn is_drained(&self, path: PathId) -> bool {
        self.active != Some(path) && self.paths.get(&path).is_none_or(|path| path.peer_ended && path.end.is_none())
    }

    /// Whether a control frame of this kind waits, or has not been acknowledged by the peer.
    pub fn has_unacknowledged(&self, kind: FrameType) -> bool {
        self.control.iter().any(|frame| frame.kind == kind) || self.outbox.holds(kind)
    }

    /// Smoothed round-trip time of a path in milliseconds; none before its first PONG.
    pub fn path_rtt_ms(&self, path: PathId) -> Option<u64> {
        self.paths.get(&path)?.rtt_ms()
    }

    /// What the session is up to.
    pub fn state(&self) -> SessionState {
        match (&self.over, &self.closing) {
            (Some(_), _) => SessionState::Closed,
            (None, Some(_)) => SessionState::Closing,
            (None, None) if !self.attached_once => SessionState::New,
            (None, None) if self.active.is_none() => SessionState::Suspended,
            (None, None) => SessionState::Open,
        }
    }

    /// Counters.
    pub fn stats(&self) -> SessionStats {
        let rtt = self.active.and_then(|active| self.path_rtt_ms(active));
        SessionStats {
            rtt_ms: rtt.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)),
            frames_numbered: self.outbox.written() - 1,
            frames_delivered: self.inbox.next() - 1,
            unacked_frames: self.outbox.len(),
            unacked_bytes: self.outbox.bytes(),
            unread_bytes: self.window.held(),
            unreleased_bytes: self
                .channels
                .values()
                .map(|channel| channel.inflow.window.held() - channel.inflow.unread())
                .sum(),
            age_ms: self.now - self.born,
            channels: self.open_ours + self.open_theirs,
            ..self.stats
        }
    }

    /// Whether nothing new may be sent.
    fn is_ending(&self) -> bool {
        self.over.is_some() || self.closing.is_some()
    }

    /// The session is over: nothing is kept to be repeated; what was received can still be read.
    fn end(&mut self, over: Over, event: Event) {
        if self.over.is_some() {
            return;
        }
        self.over = Some(over);
        self.suspended = None;
        self.outbox.discard();
        (self.urgent, self.ring) = (VecDeque::new(), VecDeque::new());
        (self.credits, self.resets) = (VecDeque::new(), VecDeque::new());
        self.control = VecDeque::new();
        for channel in self.channels.values_mut() {
            channel.outflow.clear();
        }
        self.events.push_back(event);
    }

    /// Makes an attached path the active one. Spec: link C.9.2 rule 3.
    fn take(&mut self, path: PathId) {
        let from = self.active.replace(path);
        if let Some(old) = from.and_then(|from| self.paths.get_mut(&from)) {
            old.end = Some(self.outbox.cursor());
        }
        if let Some(new) = self.paths.get_mut(&path) {
            new.end = None;
            // The ACK that was to leave on the path left may never arrive.
            new.ack = true;
        }
        self.suspended = None;
        self.outbox.rewind();
        self.stats.switches += 1;
        self.events.push_back(Event::Switched { from, to: path });
    }

    /// Forgets a path; the best standby follows it, or the session is suspended.
    fn detach(&mut self, path: PathId) {
        if self.paths.remove(&path).is_none() {
            return;
        }
        self.inbox.forget_path(path);
        if self.active != Some(path) || self.over.is_some() {
            return;
        }
        self.active = None;
        if let Some(standby) = self.best_standby() {
            self.take(standby);
        } else if self.closing.as_ref().is_some_and(|closing| closing.seq == Some(self.outbox.base())) {
            // The peer has everything, and ends its paths as soon as it has our CLOSE: only its last ACK is missing.
            self.end(Over::Silent, Event::Closed);
        } else {
            self.suspended = Some(self.now);
            self.events.push_back(Event::Suspended);
        }
    }

    /// The path to go to when the active one is left: not suspect, then the fastest.
    fn best_standby(&self) -> Option<PathId> {
        self.paths
            .iter()
            .filter(|(id, _)| self.active != Some(**id))
            .min_by_key(|(_, path)| (path.is_suspect(), path.rtt_ms().unwrap_or(u64::MAX)))
            .map(|(id, _)| *id)
    }

    /// Everything below `next` has arrived.
    fn acknowledged(&mut self, next: u64) {
        if self.outbox.acknowledge(next) {
            self.progress_since = self.now;
        }
        if let Some(Closing { seq: Some(seq), .. }) = self.closing
            && seq < next
        {
            self.end(Over::Silent, Event::Closed);
        }
    }

    /// Silence before a PING, ±20 %. Spec: link C.11.
    fn interval(&mut self, in_use: bool) -> u64 {
        let base = if in_use {
            u64::from(self.config.ours.ping_ms.min(self.config.theirs.ping_ms)).max(PING_MS_MIN)
        } else {
            self.config.limits.standby_ping_ms
        };
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        base - base / 5 + self.jitter % (base * 2 / 5 + 1)
    }
}
