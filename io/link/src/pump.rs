//! The task of a session: the only one that touches its sockets. Spec: link C.9.
//!
//! It owns every path of its session ([`Lane`]); new ones arrive from a handshake, lost ones are dropped while the
//! session goes on. Who makes new ones is the keeper.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use sealtide_crypto::Now;
use sealtide_wire::frame::{ErrorCode, FrameType};
use sealtide_wire::rehandshake::Punch;
use sealtide_wire::session::{Event, PathFailure, PathId};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::address;
use crate::certificate::PeerCertificates;
use crate::channel::ChannelWaiters;
use crate::lane::{LINGER, Lane};
use crate::node::Node;
use crate::punch;
use crate::session::{Core, Incoming, Session, SessionEnd, Shared};

/// Turns of the loop before other tasks get the thread.
const TURNS_MAX: u32 = 16;

pub(crate) struct Pump {
    node: Arc<Node>,
    session: Session,
    lanes: Vec<Lane>,
    timer: Pin<Box<Sleep>>,
    end: Option<SessionEnd>,
    /// When the last frames have had their time; means something once there is an end.
    linger_until: Instant,
    counted: Counted,
}

/// What this session has added to the node's counters.
#[derive(Clone, Copy, Default)]
struct Counted {
    bytes_sent: u64,
    bytes_received: u64,
    frames_sent: u64,
    frames_received: u64,
    frames_retransmitted: u64,
    frames_duplicate: u64,
    frames_numbered: u64,
    frames_delivered: u64,
    held: u64,
    paths: u64,
}

impl Pump {
    pub(crate) fn new(node: Arc<Node>, session: Session) -> Self {
        Self {
            node,
            session,
            lanes: Vec::new(),
            timer: Box::pin(sleep_until(Instant::now())),
            end: None,
            linger_until: Instant::now(),
            counted: Counted::default(),
        }
    }

    /// Runs until the session is over, then ends its connections.
    pub(crate) async fn run(mut self) {
        // A fault of this code ends the session in which it shows, and that session only; and it does end, since those
        // who wait for it would wait for ever.
        if AssertUnwindSafe(poll_fn(|cx| self.poll(cx))).catch_unwind().await.is_err() {
            self.broke();
        }
        self.report_end();
        let aborted = matches!(self.end, Some(SessionEnd::Aborted { .. }));
        let until = if aborted { self.linger_until } else { Instant::now() + LINGER };
        let parting = std::mem::take(&mut self.lanes).into_iter().map(|lane| lane.part(until, aborted));
        futures_util::future::join_all(parting).await;
        self.uncount();
    }

    /// The work stopped halfway: no byte of it is written any more, and the session is lost for its handles too.
    fn broke(&mut self) {
        tracing::error!(peer = self.session.peer().short(), "link: a fault in the task of a session; it ends");
        self.lanes.clear();
        let mut core = self.session.shared.core();
        core.session.lost();
        let told = std::iter::from_fn(|| core.session.poll_event());
        let acked = told.filter_map(|event| if let Event::Lost { acked } = event { Some(acked) } else { None }).last();
        core.paths.clear();
        self.end.get_or_insert(SessionEnd::Lost { acked: acked.unwrap_or(0) });
    }

    /// One wake-up. Ready when the session is over and nothing remains to be written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.session.shared.clone();
        shared.pump.register(cx.waker());
        for _ in 0..TURNS_MAX {
            let now = shared.clock.now();
            self.advance(&shared, now);
            let moved = self.exchange(cx, &shared, now);
            if self.is_done(&shared, now) {
                self.count(&shared);
                return Poll::Ready(());
            }
            if !moved {
                self.count(&shared);
                return if self.arm(cx, &shared) { self.again(cx) } else { Poll::Pending };
            }
        }
        self.count(&shared);
        self.again(cx)
    }

    /// The session is over and its last frames are written, or have had their time.
    fn is_done(&mut self, shared: &Shared, now: Now) -> bool {
        if self.end.is_none() {
            return false;
        }
        if Instant::now() >= self.linger_until {
            return true;
        }
        let mut core = shared.core();
        self.lanes.iter_mut().for_each(|lane| lane.fill(&mut core, now));
        self.lanes.iter().all(Lane::is_written)
    }

    fn again(&self, cx: &Context<'_>) -> Poll<()> {
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// New paths, time, events, the choice among the paths, and frames to write.
    fn advance(&mut self, shared: &Arc<Shared>, now: Now) {
        let mut core = shared.core();
        #[cfg(test)]
        assert!(!core.breaks, "the fault of a test");
        for arrival in std::mem::take(&mut core.arrivals) {
            let mut lane = Lane::new(arrival.id, arrival.path, &arrival.first, self.node.padding, now);
            lane.deaf = self.end.is_some();
            // Most sessions have one.
            self.lanes.reserve_exact(1);
            self.lanes.push(lane);
        }
        if core.session.next_timeout().is_some_and(|at| at <= now.mono_ms) {
            core.session.handle_timeout(now);
            // A timer means that little happened.
            self.lanes.iter_mut().for_each(Lane::rest);
        }
        if self.end.is_none() {
            if now.mono_ms >= core.pins.end() {
                // The peer has not renewed its proof. Spec: LK-104
                core.session.abort(ErrorCode::Timeout, "the certificates of the peer have ended");
            }
            for path in core.old_paths(now) {
                core.session.path_lost(now, path);
                self.retire(&mut core, path);
            }
            core.choose_path(now, self.node.policy);
            for path in core.spare_paths(now) {
                core.session.path_lost(now, path);
                self.retire(&mut core, path);
            }
        }
        core.session.hold_credit(self.node.counters.bytes_held.get() > self.node.limits.bytes_held);
        self.events(shared, &mut core);
        self.lanes.iter_mut().for_each(|lane| lane.fill(&mut core, now));
        self.events(shared, &mut core);
    }

    fn exchange(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>, now: Now) -> bool {
        let mut moved = false;
        let mut lost = Vec::new();
        for lane in &mut self.lanes {
            match lane.exchange(cx, shared, now) {
                Ok(lane_moved) => moved |= lane_moved,
                Err(error) => {
                    tracing::debug!(peer = shared.facts.peer.short(), path = lane.id.0, "link: path lost: {error}");
                    lost.push(lane.id);
                }
            }
        }
        let mut core = shared.core();
        for path in lost {
            moved = true;
            core.session.path_lost(now, path);
            self.forget(&mut core, path);
        }
        self.events(shared, &mut core);
        let leaving: Vec<PathId> = self.lanes.iter().filter(|lane| lane.leaves).map(|lane| lane.id).collect();
        for path in leaving {
            moved = true;
            self.retire(&mut core, path);
        }
        moved
    }

    /// The path is gone with whatever was on it.
    fn forget(&mut self, core: &mut Core, path: PathId) {
        core.paths.remove(&path);
        // It need not be the active one to leave a need behind: a direct path that stalled is gone after its session went to a relay.
        self.session.shared.keeper.notify_one();
        self.lanes.retain(|lane| lane.id != path);
    }

    /// The path ends in order, beside the session.
    fn retire(&mut self, core: &mut Core, path: PathId) {
        core.paths.remove(&path);
        self.session.shared.keeper.notify_one();
        if let Some(at) = self.lanes.iter().position(|lane| lane.id == path) {
            let lane = self.lanes.swap_remove(at);
            tokio::spawn(lane.part(Instant::now() + LINGER, false));
        }
    }

    /// Passes on what the session tells.
    fn events(&mut self, shared: &Arc<Shared>, core: &mut Core) {
        while let Some(event) = core.session.poll_event() {
            match event {
                Event::ChannelOpened { channel, class, name } => {
                    let waiters = Arc::new(ChannelWaiters::default());
                    core.orphans.remove(&channel);
                    core.parked.remove(&channel);
                    if let Some(old) = core.waiters.insert(channel, waiters.clone()) {
                        old.wake_all();
                    }
                    core.incoming.push_back(Incoming { id: channel, class, name, waiters });
                    shared.opened.notify_waiters();
                }
                Event::Readable { channel } if core.orphans.contains(&channel) => core.drain_orphan(channel),
                Event::Readable { channel } => {
                    if let Some(waiters) = core.waiters.get(&channel) {
                        waiters.readable.notify_waiters();
                    }
                }
                Event::Writable { channel } => {
                    core.unpark(channel);
                    if let Some(waiters) = core.waiters.get(&channel) {
                        waiters.writable.notify_waiters();
                    }
                }
                Event::ChannelEnded { channel, .. } if core.orphans.contains(&channel) => core.drain_orphan(channel),
                Event::ChannelEnded { channel, code } => {
                    if code.is_some() {
                        core.parked.remove(&channel);
                    }
                    if let Some(waiters) = core.waiters.get(&channel) {
                        waiters.wake_all();
                    }
                }
                Event::Control { kind, payload } => self.control(shared, core, kind, &payload),
                Event::PathFailed { path, why } => {
                    tracing::debug!(peer = shared.facts.peer.short(), path = path.0, ?why, "link: path given up");
                    match why {
                        // The peer ends it; what it said last is read already.
                        PathFailure::PeerError(_) => self.retire(core, path),
                        _ => self.forget(core, path),
                    }
                }
                Event::Suspended => {
                    self.node.counters.suspensions.add(1);
                    core.suspended_ms = Some(shared.clock.now().mono_ms);
                    shared.keeper.notify_one();
                }
                Event::Switched { from, to } => {
                    self.node.counters.path_switches.add(1);
                    core.suspended_ms = None;
                    tracing::debug!(peer = shared.facts.peer.short(), ?from, ?to, "link: path switched");
                    shared.keeper.notify_one();
                }
                Event::PathSuspect { .. } => shared.keeper.notify_one(),
                Event::PeerClosed { code } => self.over(core, SessionEnd::Closed { code }),
                Event::Closed => self.over(core, SessionEnd::Closed { code: 0 }),
                Event::Aborted { code, text } => self.over(core, SessionEnd::Aborted { code, text }),
                Event::Lost { acked } => self.over(core, SessionEnd::Lost { acked }),
                _ => {}
            }
        }
    }

    /// A frame of the layer of certificates and addresses.
    fn control(&self, shared: &Arc<Shared>, core: &mut Core, kind: FrameType, payload: &Bytes) {
        let now = shared.clock.now();
        let result = match kind {
            FrameType::CertUpdate => {
                let pinned = shared.facts.certificates.check(payload, &PeerCertificates);
                let pinned = pinned.and_then(|pin| core.pins.add(now, pin));
                if pinned.is_ok() {
                    self.ask_again(shared);
                }
                pinned.map_err(|error| error.to_string())
            }
            FrameType::AddrUpdate => match address::read_update(payload) {
                Ok((told, relays)) => {
                    core.told(&told, relays);
                    shared.keeper.notify_one();
                    Ok(())
                }
                Err(rule) => Err(rule.to_owned()),
            },
            FrameType::Punch => match Punch::read(payload) {
                Ok(told) => {
                    punch::follow(&self.node, &self.session, core, told);
                    Ok(())
                }
                Err(rule) => Err(rule.to_owned()),
            },
            _ => Ok(()),
        };
        if let Err(why) = result {
            tracing::info!(peer = shared.facts.peer.short(), "link: {kind:?}: {why}");
            core.session.abort(ErrorCode::Protocol, "");
        }
    }

    /// A renewed proof is a moment to ask whether the peer is still let in. Spec: link C.6.
    fn ask_again(&self, shared: &Arc<Shared>) {
        let (node, shared) = (self.node.clone(), shared.clone());
        tokio::task::spawn_blocking(move || {
            if !node.admission.allowed(&shared.facts.peer) {
                shared.core().session.abort(ErrorCode::Refused, "");
                shared.pump.wake();
            }
        });
    }

    fn over(&mut self, core: &mut Core, end: SessionEnd) {
        self.lanes.iter_mut().for_each(|lane| lane.deaf = true);
        let end = match end {
            SessionEnd::Lost { acked } if core.replaced => SessionEnd::Replaced { acked },
            end => end,
        };
        if self.end.is_none() {
            self.end = Some(end);
            self.linger_until = Instant::now() + LINGER;
        }
    }

    /// Sets the timer; true when it has run out already.
    fn arm(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>) -> bool {
        let now = shared.clock.now();
        let next = {
            let core = shared.core();
            let next = core.session.next_timeout().unwrap_or(u64::MAX);
            let cell = self.lanes.iter().map(Lane::next_cell_ms).min().unwrap_or(u64::MAX);
            if self.end.is_some() { next } else { next.min(cell).min(core.pins.end()).min(core.next_look()) }
        };
        // One more, since both clocks are cut to whole milliseconds.
        let wait = Duration::from_millis(next.saturating_sub(now.mono_ms).saturating_add(1).min(3_600_000));
        let at = Instant::now() + wait;
        self.timer.as_mut().reset(if self.end.is_some() { at.min(self.linger_until) } else { at });
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn report_end(&mut self) {
        let shared = &self.session.shared;
        let end = self.end.clone().unwrap_or(SessionEnd::Lost { acked: 0 });
        match end {
            SessionEnd::Lost { .. } => self.node.counters.sessions_lost.add(1),
            SessionEnd::Replaced { .. } => self.node.counters.sessions_replaced.add(1),
            _ => {}
        }
        tracing::info!(peer = shared.facts.peer.short(), ?end, "link: session over");
        self.node.registry.remove(&self.session);
        self.node.counters.sessions.sub(1);
        shared.end.send_replace(Some(end));
        shared.opened.notify_waiters();
        let mut core = shared.core();
        core.arrivals.clear();
        core.parked.clear();
        for waiters in core.waiters.values() {
            waiters.wake_all();
        }
    }

    /// Adds what happened since the last time to the counters of the node.
    fn count(&mut self, shared: &Shared) {
        let stats = {
            let mut core = shared.core();
            core.uncounted = 0;
            core.session.stats()
        };
        let (counters, before) = (&self.node.counters, self.counted);
        counters.bytes_sent.add(stats.bytes_sent - before.bytes_sent);
        counters.bytes_received.add(stats.bytes_received - before.bytes_received);
        counters.frames_sent.add(stats.frames_sent - before.frames_sent);
        counters.frames_received.add(stats.frames_received - before.frames_received);
        counters.frames_retransmitted.add(stats.frames_retransmitted - before.frames_retransmitted);
        counters.frames_duplicate.add(stats.frames_duplicate - before.frames_duplicate);
        counters.frames_numbered.add(stats.frames_numbered - before.frames_numbered);
        counters.frames_delivered.add(stats.frames_delivered - before.frames_delivered);
        let (held, paths) = (stats.unread_bytes + stats.unreleased_bytes, self.lanes.len() as u64);
        counters.bytes_held.add(held.saturating_sub(before.held));
        counters.bytes_held.sub(before.held.saturating_sub(held));
        counters.paths.add(paths.saturating_sub(before.paths));
        counters.paths.sub(before.paths.saturating_sub(paths));
        self.counted = Counted {
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            frames_sent: stats.frames_sent,
            frames_received: stats.frames_received,
            frames_retransmitted: stats.frames_retransmitted,
            frames_duplicate: stats.frames_duplicate,
            frames_numbered: stats.frames_numbered,
            frames_delivered: stats.frames_delivered,
            held,
            paths,
        };
    }

    fn uncount(&mut self) {
        self.node.counters.bytes_held.sub(self.counted.held);
        self.node.counters.paths.sub(self.counted.paths);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
    use sealtide_identity::{InviteId, InviteSecret, LinkAddress, NodeId};
    use sealtide_wire::handshake::{Admission, Refused};

    use super::*;
    use crate::channel::ChannelClosed;
    use crate::{DialTarget, Link, LinkConfig};

    struct Everyone;

    impl Admission for Everyone {
        fn allowed(&self, _: &NodeId) -> bool {
            true
        }

        fn invite_secret(&self, _: &InviteId) -> Option<InviteSecret> {
            None
        }

        fn enrol(&self, _: &InviteId, _: &NodeId) -> Result<(), Refused> {
            Err(Refused)
        }
    }

    fn link(seed: u64) -> Link {
        let key = Arc::new(SigningKey::from_seed(&Seed::generate(&mut SeededEntropy::new(seed))));
        let id = NodeId::of(key.public());
        Link::new(LinkConfig::new(key, id), Arc::new(Everyone)).unwrap()
    }

    /// Two nodes with a session, the dialler's end first.
    pub(crate) async fn pair() -> (Link, Link, Session, Session) {
        let (a, b) = (link(1), link(2));
        let ours = a.dial(target(&b).await).await.unwrap();
        let theirs = b.accept().await.unwrap();
        (a, b, ours, theirs)
    }

    async fn target(listener: &Link) -> DialTarget {
        let socket = listener.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addresses = vec![LinkAddress { source: 4, socket }];
        DialTarget { node: listener.id(), addresses, relays: Vec::new(), invite: None }
    }

    /// Whoever waits hears the end of a session whose task has a fault, and the same two nodes begin a new one.
    #[tokio::test]
    async fn a_fault_in_the_task_of_a_session_ends_it_as_lost() {
        let (a, b) = (link(1), link(2));
        let target = target(&b).await;
        let ours = a.dial(target.clone()).await.unwrap();
        let theirs = b.accept().await.unwrap();
        let channel = ours.open(3, "x").unwrap();
        channel.send(Bytes::from_static(b"hello")).await.unwrap();
        let far = theirs.accept_channel().await.unwrap();
        assert_eq!(far.recv().await.unwrap().unwrap(), b"hello"[..]);

        ours.shared.core().breaks = true;
        // One waits for a message, one until a full channel takes one more, and one opens what nobody will serve.
        let full = async { while channel.send(Bytes::from(vec![0; 100_000])).await.is_ok() {} };
        let ((), read, end, next) = tokio::join!(full, channel.recv(), ours.closed(), ours.accept_channel());
        assert_eq!(read, Err(ChannelClosed::SessionOver));
        assert!(matches!(end, SessionEnd::Lost { .. }) && next.is_none(), "{end:?}");
        assert!(ours.open(3, "y").is_err() && a.session(&b.id()).is_none() && ours.info().paths == 0);

        let again = a.dial(target).await.unwrap();
        assert!(!again.is_same(&ours));
        assert!(matches!(theirs.closed().await, SessionEnd::Replaced { .. }));
        b.accept().await.unwrap();
        again.open(3, "z").unwrap().send(Bytes::from_static(b"again")).await.unwrap();
    }
}
