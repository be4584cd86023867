//! The task of one login at a relay.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sealtide_identity::{LinkAddress, NodeId};
use sealtide_wire::relay::{CircuitNumber, ClientEvent, GoAwayCode};
use tokio::io::AsyncWrite as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};

use super::circuit::Circuit;
use super::client::{Account, Use};
use super::live::Live;
use super::login::source_address;
use crate::address;
use crate::clock::random_below;
use crate::limits::Source;
use crate::listen;
use crate::node::Node;
use crate::outgoing::Outgoing;
use crate::path::{Path, READ_BYTES};
use crate::pipe::{Pipe, Remote};
use crate::websocket::Message;

/// Bytes gathered for one write.
const BATCH_BYTES: usize = 128 * 1024;
/// Offered circuits of one login about whose openers this node's memory is asked at one time. More are refused.
const QUESTIONS_MAX: usize = 64;
/// How often what a relay sees anew is told to peers, at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Turns of the loop before other tasks get the thread.
const TURNS_MAX: u32 = 16;

/// What a login is pumped by.
pub(super) struct Told {
    pub(super) ping_ms: u32,
    pub(super) seen_from: Option<IpAddr>,
}

/// The task of one login: the only one that touches its socket.
pub(super) struct Pump {
    node: Arc<Node>,
    account: Arc<Account>,
    live: Arc<Live>,
    path: Path,
    out: Outgoing,
    unflushed: bool,
    ping: Duration,
    timer: Pin<Box<Sleep>>,
    /// When the last byte came.
    heard: Instant,
    pinged: bool,
    pub(super) go_away: Option<(GoAwayCode, Duration, Instant)>,
    questions: Arc<Semaphore>,
    /// The address of the relay, when this login left from the listening port: then what it sees is where peers may dial.
    seen_from: Option<IpAddr>,
    /// When peers were told last that the relay sees this node elsewhere.
    told_at: Option<Instant>,
}

impl Pump {
    pub(super) fn new(node: Arc<Node>, account: Arc<Account>, live: Arc<Live>, path: Path, told: Told) -> Self {
        let Told { ping_ms, seen_from } = told;
        let ping = Duration::from_millis(u64::from(ping_ms.clamp(1_000, 3_600_000)));
        let heard = Instant::now();
        let timer = Box::pin(sleep_until(heard + ping));
        let (out, unflushed, pinged, go_away) = (Outgoing::default(), false, false, None);
        let questions = Arc::new(Semaphore::new(QUESTIONS_MAX));
        Self {
            node,
            account,
            live,
            path,
            out,
            unflushed,
            ping,
            timer,
            heard,
            pinged,
            go_away,
            questions,
            seen_from,
            told_at: None,
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.live.pump.register(cx.waker());
        for _ in 0..TURNS_MAX {
            let wrote = self.write(cx)?;
            let read = self.read(cx)?;
            self.events();
            if !wrote && !read {
                if self.path.is_calm() {
                    self.let_go();
                }
                return self.arm(cx);
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks whether the relay still lives. Spec: link C.11.
    fn arm(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let due = self.heard + if self.pinged { self.ping + Duration::from_secs(10) } else { self.ping };
            self.timer.as_mut().reset(due);
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.path.calm();
            self.let_go();
            if self.pinged {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.pinged = true;
            self.live.core().client.ping(random_below(u64::MAX).to_be_bytes());
            cx.waker().wake_by_ref();
        }
    }

    /// A login that is idle holds no buffers.
    fn let_go(&mut self) {
        self.path.let_go();
        if self.out.is_empty() {
            self.out = Outgoing::default();
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.out.is_empty() {
            let mut core = self.live.core();
            while self.out.len() < BATCH_BYTES {
                let Some(message) = core.client.transmit() else { break };
                self.path.framing.message(&message.head, message.payload, &mut self.out);
            }
        }
        let before = self.out.len();
        self.unflushed |= before > 0;
        if self.out.poll_write(cx, &mut self.path.stream)?.is_ready() && self.unflushed {
            self.unflushed = Pin::new(&mut self.path.stream).poll_flush(cx)?.is_pending();
        }
        Ok(self.out.len() < before)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = self.take_messages()?;
        match self.path.poll_fill(cx, READ_BYTES)? {
            Poll::Ready(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(_) => {
                (moved, self.heard, self.pinged) = (true, Instant::now(), false);
                self.take_messages()?;
            }
            Poll::Pending => {}
        }
        Ok(moved)
    }

    fn take_messages(&mut self) -> io::Result<bool> {
        let mut moved = false;
        while let Some(message) = self.path.framing.next(&mut self.path.received).map_err(io::Error::other)? {
            moved = true;
            match message {
                // Copied: a slice would keep the whole read buffer alive.
                Message::Frames(frame) => {
                    let frame = bytes::Bytes::copy_from_slice(&frame);
                    self.live.core().client.message(&frame).map_err(io::Error::other)?;
                }
                Message::Ping(payload) => {
                    if self.out.len() > 2 * BATCH_BYTES {
                        return Err(io::Error::other("more WebSocket pings than answers were taken"));
                    }
                    self.path.framing.pong(payload, self.out.tail());
                }
                Message::Pong => {}
                Message::Close => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(moved)
    }

    /// The relay says where it sees this node. What peers are told of it follows at most once in a while: each change of it
    /// has all of them dial.
    // Spec: LK-24
    fn seen_at(&mut self, seen: LinkAddress) {
        self.account.set_status(None, Some(seen));
        let told = self.seen_from.and_then(|relay| address::observed_by_relay(seen, relay));
        let now = Instant::now();
        if told == self.account.mapped() || self.told_at.is_some_and(|at| now < at + TOLD_EVERY) {
            return;
        }
        self.told_at = Some(now);
        self.account.set_mapped(told);
        self.node.tell_addresses();
    }

    fn events(&mut self) {
        loop {
            let mut core = self.live.core();
            let Some(event) = core.client.poll_event() else { return };
            match event {
                ClientEvent::Circuit(number) => {
                    core.wake(number);
                }
                ClientEvent::Incoming { circuit, opener, .. } => {
                    let Ok(question) = self.questions.clone().try_acquire_owned() else {
                        core.client.refuse(circuit);
                        continue;
                    };
                    drop(core);
                    let (node, account, live) = (self.node.clone(), self.account.clone(), self.live.clone());
                    tokio::spawn(incoming(node, account, live, circuit, opener, question));
                }
                ClientEvent::Observed(address) => {
                    drop(core);
                    self.seen_at(address);
                }
                ClientEvent::GoAway { code, reconnect_ms } => {
                    let wait = Duration::from_millis(u64::from(reconnect_ms).min(60_000));
                    self.go_away = Some((code, wait, Instant::now()));
                }
                _ => {}
            }
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let mut core = self.live.core();
        core.client.lost();
        core.gone = true;
        std::mem::take(&mut core.wakers).into_values().for_each(|mut wakers| wakers.wake());
    }
}

/// Somebody opened a circuit to this node. Strangers are not told that it is here, unless an invite lives.
async fn incoming(
    node: Arc<Node>,
    account: Arc<Account>,
    live: Arc<Live>,
    number: CircuitNumber,
    opener: NodeId,
    question: OwnedSemaphorePermit,
) {
    let admission = node.admission.clone();
    let known = tokio::task::spawn_blocking(move || admission.allowed(&opener)).await.unwrap_or(false);
    drop(question);
    let permits = node.policy.permits(sealtide_wire::handshake::PipeKind::Relay);
    let wanted = permits && (known || node.relays.expects_guests());
    let place = wanted.then(|| account.gate(known).enter(Source::of(source_address(&opener), true)));
    let Some(Ok((place, evicted))) = place else {
        live.core().client.refuse(number);
        live.pump.wake();
        return;
    };
    live.core().client.accept(number);
    live.pump.wake();
    let circuit = Circuit::new(live, number, Some(Use::of(&account)));
    let remote = Remote::Relay { relay: account.relay.relay };
    listen::greet(node, Pipe::other(circuit), remote, place, evicted).await;
}
