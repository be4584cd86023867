//! The task of a session: the only one that touches its socket. Reading never waits for writing. Spec: link C.9.4.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use sealtide_crypto::Now;
use sealtide_identity::LinkAddress;
use sealtide_wire::frame::{FrameType, Header, Notice, PAYLOAD_BYTES_MAX};
use sealtide_wire::session::{Event, PathId, Scope, SessionError};
use tokio::io::AsyncWrite;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::address;
use crate::channel::ChannelWaiters;
use crate::node::Node;
use crate::path::Path;
use crate::session::{Core, Incoming, Session, SessionEnd, Shared};
use crate::websocket::{MESSAGE_BYTES_MAX, Message};

/// The first and only path of a session, until sessions outlive their paths.
pub(crate) const FIRST_PATH: PathId = PathId(0);
/// Bytes handed to TLS in one go: the bounds between which the batch adapts to what the socket takes.
const BATCH_BYTES_MIN: usize = 64 * 1024;
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Bytes read from TLS in one go.
const READ_BYTES: usize = 256 * 1024;
/// Turns of the loop before other tasks get the thread.
const TURNS_MAX: u32 = 16;
/// How long the last frames and the end of TLS may take.
const LINGER: Duration = Duration::from_secs(1);
/// WebSocket pings that wait for their answer; links send none, so more is an attack.
const PONGS_MAX: u32 = 16;

pub(crate) struct Pump {
    node: Arc<Node>,
    session: Session,
    path: Path,
    /// Encoded messages that TLS has not taken yet.
    out: BytesMut,
    /// Frames are gathered here before they become a message.
    gather: BytesMut,
    batch: usize,
    unflushed: bool,
    pongs_waiting: u32,
    timer: Pin<Box<Sleep>>,
    /// On the monotonic clock, ms: the certificates of this path are good no longer.
    too_old_ms: u64,
    end: Option<SessionEnd>,
    /// When the last frames have had their time; means something once there is an end.
    linger_until: Instant,
    /// Nothing of the peer is taken any more.
    deaf: bool,
    broken: bool,
    counted: Counted,
}

/// What this session has added to the node's counters.
#[derive(Clone, Copy, Default)]
struct Counted {
    bytes_sent: u64,
    bytes_received: u64,
    frames_sent: u64,
    frames_received: u64,
    held: u64,
}

impl Pump {
    /// `first` are whole frames to write before those of the session.
    pub(crate) fn new(node: Arc<Node>, session: Session, path: Path, first: &[Vec<u8>], too_old_ms: u64) -> Self {
        let mut pump = Self {
            node,
            session,
            path,
            out: BytesMut::new(),
            gather: BytesMut::new(),
            batch: BATCH_BYTES_MIN,
            unflushed: false,
            pongs_waiting: 0,
            timer: Box::pin(sleep_until(Instant::now())),
            too_old_ms,
            end: None,
            linger_until: Instant::now(),
            deaf: false,
            broken: false,
            counted: Counted::default(),
        };
        if !first.is_empty() {
            pump.path.framing.frames(Bytes::from(first.concat()), &mut pump.out);
        }
        pump
    }

    /// Runs until the session is over, then ends the connection.
    pub(crate) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
        self.report_end();
        let aborted = matches!(self.end, Some(SessionEnd::Aborted { .. }));
        let mut in_order = false;
        if !self.broken {
            let until = if aborted { self.linger_until } else { Instant::now() + LINGER };
            self.path.framing.close(&mut self.out);
            let last = async {
                poll_fn(|cx| self.poll_drain(cx)).await?;
                io::Result::Ok(self.path.hang_up().await)
            };
            in_order = matches!(tokio::time::timeout_at(until, last).await, Ok(Ok(true)));
        }
        // What the system still holds for a slow peer must not reach one that was cut off. Spec: LK-104
        if aborted && !in_order {
            self.path.stream.reset_on_drop();
        }
        self.uncount();
    }

    /// One wake-up. Ready when nothing remains to be written and the session is over, or the path broke.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.session.shared.clone();
        shared.pump.register(cx.waker());
        for _ in 0..TURNS_MAX {
            let now = shared.clock.now();
            self.advance(&shared, now);
            let moved = self.exchange(cx, &shared, now);
            let moved = moved.unwrap_or_else(|error| {
                tracing::debug!(peer = shared.facts.peer.short(), "link: path lost: {error}");
                self.broken = true;
                let mut core = shared.core();
                core.session.path_lost(now, FIRST_PATH);
                self.events(&shared, &mut core);
                true
            });
            if self.broken || self.is_done(&shared, now) {
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
            self.broken = true;
            return true;
        }
        if self.out.is_empty() && !self.unflushed {
            self.fill(&mut shared.core(), now);
        }
        self.out.is_empty() && !self.unflushed
    }

    fn again(&self, cx: &Context<'_>) -> Poll<()> {
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Time, events, and frames to write.
    fn advance(&mut self, shared: &Arc<Shared>, now: Now) {
        let mut core = shared.core();
        if core.session.next_timeout().is_some_and(|at| at <= now.mono_ms) {
            core.session.handle_timeout(now);
            // A timer means that little happened: idle sessions hold no buffers.
            if self.path.received.is_empty() && self.out.is_empty() {
                self.path.received = BytesMut::new();
                (self.out, self.gather) = (BytesMut::new(), BytesMut::new());
            }
        }
        if now.mono_ms >= self.too_old_ms && self.end.is_none() {
            core.session.lost();
        }
        core.session.hold_credit(self.node.counters.bytes_held.get() > self.node.limits.bytes_held);
        self.events(shared, &mut core);
        if self.out.is_empty() && !self.unflushed {
            self.fill(&mut core, now);
            self.events(shared, &mut core);
        }
    }

    /// Gathers frames into messages until a batch is full.
    fn fill(&mut self, core: &mut Core, now: Now) {
        while self.out.len() < self.batch {
            while let Some(frame) = core.session.poll_transmit(now, FIRST_PATH, MESSAGE_BYTES_MAX - self.gather.len()) {
                self.gather.extend_from_slice(frame.head.as_ref());
                self.gather.extend_from_slice(&frame.payload);
                // Less room than this may stop a frame that a new message could take.
                if self.gather.len() + 32 > MESSAGE_BYTES_MAX {
                    break;
                }
            }
            if self.gather.is_empty() {
                return;
            }
            self.path.framing.frames(self.gather.split().freeze(), &mut self.out);
        }
    }

    fn exchange(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>, now: Now) -> io::Result<bool> {
        let wrote = self.write(cx)?;
        let read = self.read(cx, shared, now)?;
        Ok(wrote || read)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.path.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    (moved, self.unflushed) = (true, true);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    self.batch = (self.batch / 2).max(BATCH_BYTES_MIN);
                    return Ok(moved);
                }
            }
        }
        if self.unflushed {
            match Pin::new(&mut self.path.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => {
                    (moved, self.unflushed, self.pongs_waiting) = (true, false, 0);
                    self.batch = (self.batch * 2).min(BATCH_BYTES_MAX);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {}
            }
        }
        Ok(moved)
    }

    fn read(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>, now: Now) -> io::Result<bool> {
        if self.deaf {
            return Ok(false);
        }
        // What the handshake left behind comes first.
        let mut moved = self.take_messages(shared, now)?;
        let mut ended = Ok(());
        while !self.deaf && self.path.received.len() < READ_BYTES {
            if self.path.received.capacity() - self.path.received.len() < READ_BYTES / 4 {
                self.path.received.reserve(READ_BYTES);
            }
            let stream = Pin::new(&mut self.path.stream);
            match tokio_util::io::poll_read_buf(stream, cx, &mut self.path.received) {
                Poll::Ready(Ok(0)) => {
                    ended = Err(io::ErrorKind::UnexpectedEof.into());
                    break;
                }
                Poll::Ready(Ok(_)) => moved = true,
                Poll::Ready(Err(error)) => {
                    ended = Err(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        if moved {
            shared.core().session.path_alive(now, FIRST_PATH);
            self.take_messages(shared, now)?;
        }
        // The last words of a peer count, whatever comes behind them.
        if self.deaf { Ok(true) } else { ended.map(|()| moved) }
    }

    fn take_messages(&mut self, shared: &Arc<Shared>, now: Now) -> io::Result<bool> {
        let mut moved = false;
        let mut core = shared.core();
        let mut message = std::mem::take(&mut self.path.message);
        while !self.deaf {
            if !message.is_empty() {
                moved = true;
                self.take_frames(&mut core, now, &mut message)?;
                self.events(shared, &mut core);
                continue;
            }
            match self.path.framing.next(&mut self.path.received).map_err(io::Error::other)? {
                Some(Message::Frames(frames)) => message = frames,
                Some(Message::Ping(payload)) => {
                    self.pongs_waiting += 1;
                    if self.pongs_waiting > PONGS_MAX {
                        return Err(io::Error::other("more WebSocket pings than answers were taken"));
                    }
                    self.path.framing.pong(payload, &mut self.out);
                }
                Some(Message::Pong) => {}
                Some(Message::Close) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => break,
            }
        }
        self.events(shared, &mut core);
        Ok(moved)
    }

    fn take_frames(&mut self, core: &mut Core, now: Now, message: &mut Bytes) -> io::Result<()> {
        while !message.is_empty() && !self.deaf {
            let header = Header::parse(message, PAYLOAD_BYTES_MAX).map_err(io::Error::other)?;
            let header = header.filter(|header| header.frame_bytes() <= message.len());
            let header = header.ok_or_else(|| io::Error::other("a frame that is cut by the end of its message"))?;
            let mut frame = message.split_to(header.frame_bytes());
            frame.advance(header.bytes());
            // Kept slices would keep the whole read buffer alive: what may wait is copied, so that memory is what
            // the windows say.
            let payload = if header.kind == FrameType::Data { Bytes::copy_from_slice(&frame) } else { frame };
            if let Err(error) = core.session.handle_frame(now, FIRST_PATH, header, payload) {
                self.offence(error)?;
            }
        }
        Ok(())
    }

    /// The peer broke a rule. ABORT comes out of the session by itself; ERROR is ours to write.
    fn offence(&mut self, error: SessionError) -> io::Result<()> {
        self.deaf = true;
        if matches!(error, SessionError::Over) {
            return Ok(());
        }
        tracing::info!(peer = self.session.peer().short(), "link: the peer broke a rule: {error}");
        if error.scope() == Scope::Path {
            let frame = Notice::new(error.code()).frame(FrameType::Error);
            self.path.framing.frames(Bytes::from(frame), &mut self.out);
        }
        Ok(())
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
                Event::Control { kind: FrameType::AddrUpdate, payload } => {
                    if let Some(addresses) = addresses_of(&payload, shared.facts.remote.direct()) {
                        core.addresses = addresses;
                    }
                }
                // New certificates matter once paths can be added to a session.
                Event::Control { .. } => {}
                // With one path and no re-handshake there is nothing to wait for.
                Event::Suspended | Event::PathFailed { .. } => core.session.lost(),
                Event::PathSuspect { .. } | Event::Switched { .. } => {}
                Event::PeerClosed { code } => self.over(core, SessionEnd::Closed { code }),
                Event::Closed => self.over(core, SessionEnd::Closed { code: 0 }),
                Event::Aborted { code, text } => self.over(core, SessionEnd::Aborted { code, text }),
                Event::Lost { acked } => self.over(core, SessionEnd::Lost { acked }),
                _ => {}
            }
        }
    }

    fn over(&mut self, core: &Core, end: SessionEnd) {
        self.deaf = true;
        let end = if core.replaced { SessionEnd::Replaced } else { end };
        if self.end.is_none() {
            self.end = Some(end);
            self.linger_until = Instant::now() + LINGER;
        }
    }

    /// Sets the timer; true when it has run out already.
    fn arm(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>) -> bool {
        let now = shared.clock.now();
        let next = shared.core().session.next_timeout().unwrap_or(u64::MAX).min(self.too_old_ms);
        // One more, since both clocks are cut to whole milliseconds.
        let wait = Duration::from_millis(next.saturating_sub(now.mono_ms).saturating_add(1).min(3_600_000));
        let at = Instant::now() + wait;
        self.timer.as_mut().reset(if self.end.is_some() { at.min(self.linger_until) } else { at });
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.path.stream).poll_write(cx, &self.out))?;
            self.out.advance(written);
        }
        Pin::new(&mut self.path.stream).poll_flush(cx)
    }

    fn report_end(&mut self) {
        let shared = &self.session.shared;
        let end = self.end.clone().unwrap_or(SessionEnd::Lost { acked: 0 });
        match end {
            SessionEnd::Lost { .. } => self.node.counters.sessions_lost.add(1),
            SessionEnd::Replaced => self.node.counters.sessions_replaced.add(1),
            _ => {}
        }
        tracing::info!(peer = shared.facts.peer.short(), ?end, "link: session over");
        self.node.registry.remove(&self.session);
        self.node.counters.sessions.sub(1);
        shared.end.send_replace(Some(end));
        shared.opened.notify_waiters();
        let mut core = shared.core();
        core.parked.clear();
        for waiters in core.waiters.values() {
            waiters.wake_all();
        }
    }

    /// Adds what happened since the last time to the counters of the node.
    fn count(&mut self, shared: &Shared) {
        let stats = shared.core().session.stats();
        let counters = &self.node.counters;
        counters.bytes_sent.add(stats.bytes_sent - self.counted.bytes_sent);
        counters.bytes_received.add(stats.bytes_received - self.counted.bytes_received);
        counters.frames_sent.add(stats.frames_sent - self.counted.frames_sent);
        counters.frames_received.add(stats.frames_received - self.counted.frames_received);
        let held = stats.unread_bytes + stats.unreleased_bytes;
        counters.bytes_held.add(held.saturating_sub(self.counted.held));
        counters.bytes_held.sub(self.counted.held.saturating_sub(held));
        self.counted = Counted {
            bytes_sent: stats.bytes_sent,
            bytes_received: stats.bytes_received,
            frames_sent: stats.frames_sent,
            frames_received: stats.frames_received,
            held,
        };
    }

    fn uncount(&mut self) {
        self.node.counters.bytes_held.sub(self.counted.held);
    }
}

/// The addresses in ADDR_UPDATE; `None` when it is malformed. Spec: link C.10.
fn addresses_of(payload: &[u8], met: Option<std::net::SocketAddr>) -> Option<Vec<LinkAddress>> {
    let (&count, rest) = payload.split_first()?;
    if usize::from(count) > address::ADDRESSES_MAX {
        return None;
    }
    let told: Option<Vec<_>> = (0..usize::from(count))
        .map(|index| LinkAddress::from_bytes(rest.get(index * 20..index * 20 + 20)?.try_into().ok()?))
        .collect();
    let over_loopback = met.is_some_and(|met| met.ip().to_canonical().is_loopback());
    let told: Vec<_> = told?.into_iter().filter(|a| over_loopback || !a.socket.ip().is_loopback()).collect();
    Some(address::of_peer(&told, met))
}
