//! The logins of a node at its relays: kept up, and opened circuits over. Spec: link C.5.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};
use sealtide_wire::relay::{CircuitNumber, CircuitState, ClientEvent, GoAwayCode, RelayClient};
use tokio::io::AsyncWrite;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::circuit::Circuit;
use super::login::{log_in, source_address};
use crate::address;
use crate::backoff::Backoff;
use crate::clock::{SystemEntropy, random_below};
use crate::limits::Source;
use crate::listen;
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::{Pipe, Remote};
use crate::websocket::Message;

/// Nodes whose relay broke off come back spread over this time, so that they do not come all at once.
const SPREAD_MS: u64 = 6_000;
/// After being sent away for a reason that time alone does not heal.
const SENT_AWAY: Duration = Duration::from_secs(60);
/// Bytes gathered for one write.
const BATCH_BYTES: usize = 128 * 1024;
/// Turns of the loop before other tasks get the thread.
const TURNS_MAX: u32 = 16;

/// A login as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayState {
    /// The relay.
    pub relay: RelayHint,
    /// Whether this node is logged in now.
    pub up: bool,
    /// Why not, when it is not.
    pub why_not: Option<String>,
    /// Where the relay sees this node.
    pub observed: Option<LinkAddress>,
    /// Whether the login is bound to its TLS connection: 1 is yes.
    pub bind: u8,
}

/// All accounts of a node.
#[derive(Default)]
pub(crate) struct Accounts {
    all: Mutex<Vec<Arc<Account>>>,
    /// What each relay is asked to let in: ids with seconds; zeros for guests.
    allows: Mutex<BTreeMap<NodeId, u32>>,
}

/// One relay that this node logs in at.
pub(crate) struct Account {
    relay: RelayHint,
    token: Option<InviteSecret>,
    live: watch::Sender<Option<Arc<Live>>>,
    status: Mutex<(Option<String>, Option<LinkAddress>)>,
    /// Where the relay sees the listening port of this node, as far as that is believed.
    mapped: Mutex<Option<LinkAddress>>,
}

/// A login that stands.
pub(crate) struct Live {
    core: Mutex<LiveCore>,
    pub(super) pump: AtomicWaker,
}

pub(super) struct LiveCore {
    pub(super) client: RelayClient,
    pub(super) wakers: BTreeMap<CircuitNumber, Wakers>,
    gone: bool,
}

#[derive(Default)]
pub(super) struct Wakers {
    pub(super) read: Option<Waker>,
    pub(super) write: Option<Waker>,
}

impl Live {
    pub(super) fn core(&self) -> MutexGuard<'_, LiveCore> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Accounts {
    /// The account at `relay`, made and started when there is none.
    pub(crate) fn account(&self, node: &Arc<Node>, relay: &RelayHint, token: Option<InviteSecret>) -> Arc<Account> {
        let mut all = self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(known) = all.iter().find(|account| account.relay.relay == relay.relay) {
            return known.clone();
        }
        let (live, status) = (watch::Sender::new(None), Mutex::default());
        let account = Arc::new(Account { relay: relay.clone(), token, live, status, mapped: Mutex::default() });
        all.push(account.clone());
        tokio::spawn(keep(node.clone(), account.clone()));
        account
    }

    fn list(&self) -> Vec<Arc<Account>> {
        self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// The relays that this node is logged in at now.
    pub(crate) fn up(&self) -> Vec<RelayHint> {
        self.list().iter().filter(|account| account.live.borrow().is_some()).map(|a| a.relay.clone()).collect()
    }

    /// Where relays see the listening port of this node; without doubles.
    pub(crate) fn mapped(&self) -> Vec<LinkAddress> {
        let seen = self.list().into_iter().filter_map(|account| account.mapped());
        seen.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    pub(crate) fn states(&self) -> Vec<RelayState> {
        let state = |account: &Arc<Account>| {
            let up = account.live.borrow().is_some();
            let (why_not, observed) = account.status.lock().unwrap_or_else(|p| p.into_inner()).clone();
            RelayState { relay: account.relay.clone(), up, why_not: why_not.filter(|_| !up), observed, bind: 1 }
        };
        self.list().iter().map(state).collect()
    }

    /// Whom the relays are to let in for this node, from now on and at every login.
    pub(crate) fn set_allows(&self, allows: BTreeMap<NodeId, u32>) {
        let gone: Vec<_> = {
            let mut present = self.allows();
            let old = std::mem::replace(&mut *present, allows.clone());
            old.into_keys().filter(|id| !allows.contains_key(id)).collect()
        };
        for account in self.list() {
            let Some(live) = account.live.borrow().clone() else { continue };
            let mut core = live.core();
            // First who is let in: a guest that becomes a peer must not lose its login in between.
            allows.iter().for_each(|(id, seconds)| core.client.allow(*id, *seconds));
            gone.iter().for_each(|id| core.client.allow(*id, 0));
            drop(core);
            live.pump.wake();
        }
    }

    /// Whether strangers may open circuits to this node: an invite lives.
    fn expects_guests(&self) -> bool {
        self.allows().contains_key(&NodeId::from_bytes([0; 32]))
    }

    fn allows(&self) -> MutexGuard<'_, BTreeMap<NodeId, u32>> {
        self.allows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Account {
    fn set_status(&self, why_not: Option<String>, observed: Option<LinkAddress>) {
        *self.status.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = (why_not, observed);
    }

    fn mapped(&self) -> Option<LinkAddress> {
        *self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set_mapped(&self, seen: Option<LinkAddress>) {
        *self.mapped.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = seen;
    }

    /// The login, waited for.
    async fn login(&self) -> Option<Arc<Live>> {
        let mut live = self.live.subscribe();
        live.wait_for(Option::is_some).await.ok().and_then(|live| live.clone())
    }
}

/// A circuit to `peer` and the TLS of a path over it.
pub(crate) async fn reach(
    node: Arc<Node>,
    relay: RelayHint,
    peer: NodeId,
    delay: Duration,
) -> (Remote, Result<Path, PathError>) {
    let remote = Remote::Relay { relay: relay.relay };
    sleep(delay).await;
    let path = async {
        let account = node.relays.account(&node, &relay, None);
        let gone = || PathError::Io(io::Error::other("the relay lets no circuit through"));
        let deadline = node.limits.handshake_deadline;
        let live = timeout(deadline, account.login()).await.ok().flatten().ok_or_else(|| {
            let why = account.status.lock().unwrap_or_else(|p| p.into_inner()).0.clone();
            PathError::Io(io::Error::other(why.unwrap_or_else(|| "no login at the relay".to_owned())))
        })?;
        let number = live.core().client.open(peer).ok_or_else(gone)?;
        // From here on the circuit ends when it is dropped.
        let circuit = Circuit::new(live.clone(), number);
        live.pump.wake();
        timeout(deadline, poll_fn(|cx| live.poll_open(cx, number))).await.map_err(|_| gone())??;
        let shown = node.credentials.current(node.clock.now());
        let path = Path::dial(Pipe::other(circuit), remote, &shown).await?;
        node.counters.tls_pq.add(1);
        Ok(path)
    };
    (remote, path.await)
}

impl Live {
    fn poll_open(&self, cx: &mut Context<'_>, number: CircuitNumber) -> Poll<Result<(), PathError>> {
        let mut core = self.core();
        match core.client.state(number) {
            Some(CircuitState::Open) => Poll::Ready(Ok(())),
            Some(CircuitState::Opening) if !core.gone => {
                core.wakers.entry(number).or_default().read = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(CircuitState::Over(why)) => {
                Poll::Ready(Err(PathError::Io(io::Error::other(format!("the relay says: {why:?}")))))
            }
            _ => Poll::Ready(Err(PathError::Closed)),
        }
    }
}

/// Keeps one login up until the link is shut down.
async fn keep(node: Arc<Node>, account: Arc<Account>) {
    let mut backoff = Backoff::new();
    loop {
        let work = async {
            let login = timeout(node.limits.handshake_deadline, log_in(&node, &account.relay, account.token.clone()));
            let (path, login, listens) = match login.await {
                Ok(Ok(done)) => done,
                Ok(Err(error)) => {
                    tracing::info!(relay = account.relay.relay.short(), "link: no login at a relay: {error}");
                    account.set_status(Some(error.to_string()), None);
                    return backoff.next_wait(&mut SystemEntropy);
                }
                Err(_) => {
                    account.set_status(Some("it did not answer in time".to_owned()), None);
                    return backoff.next_wait(&mut SystemEntropy);
                }
            };
            let Some(limits) = login.limits else { return SENT_AWAY };
            backoff.reset();
            account.set_status(None, login.observed);
            let relay_ip = path.remote.direct().map(|remote| remote.ip());
            let seen = login.observed.filter(|_| listens).zip(relay_ip);
            account.set_mapped(seen.and_then(|(seen, relay)| address::observed_by_relay(seen, relay)));
            let mut client = RelayClient::new(limits);
            node.relays.allows().iter().for_each(|(id, seconds)| client.allow(*id, *seconds));
            let core = Mutex::new(LiveCore { client, wakers: BTreeMap::new(), gone: false });
            let live = Arc::new(Live { core, pump: AtomicWaker::new() });
            account.live.send_replace(Some(live.clone()));
            node.tell_addresses();
            tracing::info!(relay = account.relay.relay.short(), "link: logged in at a relay");
            let began = Instant::now();
            let mut pump = Pump::new(node.clone(), account.clone(), live, path, limits.ping_ms);
            let result = poll_fn(|cx| pump.poll(cx)).await;
            let why = result.err().map_or_else(|| "the relay ended the login".to_owned(), |error| error.to_string());
            tracing::info!(relay = account.relay.relay.short(), "link: login at a relay over: {why}");
            account.live.send_replace(None);
            account.set_status(Some(why), None);
            pump.after(began)
        };
        let wait = tokio::select! {
            wait = work => wait,
            () = node.stopped() => Duration::ZERO,
        };
        account.live.send_replace(None);
        account.set_mapped(None);
        tokio::select! {
            () = sleep(wait) => {}
            () = node.stopped() => return,
        }
        if *node.stop.borrow() {
            return;
        }
    }
}

/// The task of one login: the only one that touches its socket.
struct Pump {
    node: Arc<Node>,
    account: Arc<Account>,
    live: Arc<Live>,
    path: Path,
    out: BytesMut,
    unflushed: bool,
    ping: Duration,
    timer: Pin<Box<Sleep>>,
    /// When the last byte came.
    heard: Instant,
    pinged: bool,
    go_away: Option<(GoAwayCode, Duration, Instant)>,
}

impl Pump {
    fn new(node: Arc<Node>, account: Arc<Account>, live: Arc<Live>, path: Path, ping_ms: u32) -> Self {
        let ping = Duration::from_millis(u64::from(ping_ms.clamp(1_000, 3_600_000)));
        let heard = Instant::now();
        let timer = Box::pin(sleep_until(heard + ping));
        let (out, unflushed, pinged, go_away) = (BytesMut::new(), false, false, None);
        Self { node, account, live, path, out, unflushed, ping, timer, heard, pinged, go_away }
    }

    /// How long to stay away.
    fn after(&self, _began: Instant) -> Duration {
        match self.go_away {
            Some((GoAwayCode::Draining, wait, at)) => (at + wait).saturating_duration_since(Instant::now()),
            Some((_, wait, _)) => wait.max(SENT_AWAY),
            None => Duration::from_millis(random_below(SPREAD_MS)),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.live.pump.register(cx.waker());
        for _ in 0..TURNS_MAX {
            let wrote = self.write(cx)?;
            let read = self.read(cx)?;
            self.events();
            if !wrote && !read {
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
            if self.pinged {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.pinged = true;
            self.live.core().client.ping(random_below(u64::MAX).to_be_bytes());
            cx.waker().wake_by_ref();
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        if self.out.is_empty() {
            let mut core = self.live.core();
            while self.out.len() < BATCH_BYTES {
                let Some(message) = core.client.transmit() else { break };
                self.path.framing.frames(message, &mut self.out);
            }
        }
        let mut moved = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.path.stream).poll_write(cx, &self.out)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.out.advance(written);
                    (moved, self.unflushed) = (true, true);
                }
                Poll::Pending => return Ok(moved),
            }
        }
        if self.unflushed && Pin::new(&mut self.path.stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(moved)
    }

    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = self.take_messages()?;
        self.path.received.reserve(64 * 1024);
        match tokio_util::io::poll_read_buf(Pin::new(&mut self.path.stream), cx, &mut self.path.received)? {
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
                Message::Ping(payload) => self.path.framing.pong(payload, &mut self.out),
                Message::Pong => {}
                Message::Close => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(moved)
    }

    fn events(&mut self) {
        loop {
            let mut core = self.live.core();
            let Some(event) = core.client.poll_event() else { return };
            match event {
                ClientEvent::Circuit(number) => {
                    if let Some(wakers) = core.wakers.get_mut(&number) {
                        wakers.read.take().into_iter().chain(wakers.write.take()).for_each(Waker::wake);
                    }
                }
                ClientEvent::Incoming { circuit, opener, .. } => {
                    drop(core);
                    tokio::spawn(incoming(self.node.clone(), self.account.clone(), self.live.clone(), circuit, opener));
                }
                ClientEvent::Observed(address) => self.account.set_status(None, Some(address)),
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
        for wakers in std::mem::take(&mut core.wakers).into_values() {
            wakers.read.into_iter().chain(wakers.write).for_each(Waker::wake);
        }
    }
}

/// Somebody opened a circuit to this node. Strangers are not told that it is here, unless an invite lives.
async fn incoming(node: Arc<Node>, account: Arc<Account>, live: Arc<Live>, number: CircuitNumber, opener: NodeId) {
    let admission = node.admission.clone();
    let known = tokio::task::spawn_blocking(move || admission.allowed(&opener)).await.unwrap_or(false);
    let permits = node.policy.permits(sealtide_wire::handshake::PipeKind::Relay);
    let place = node.gate.enter(Source::of(source_address(&opener), true));
    let (true, Ok((place, evicted))) = (permits && (known || node.relays.expects_guests()), place) else {
        live.core().client.refuse(number);
        live.pump.wake();
        return;
    };
    live.core().client.accept(number);
    live.pump.wake();
    let circuit = Circuit::new(live, number);
    let remote = Remote::Relay { relay: account.relay.relay };
    listen::greet(node, Pipe::other(circuit), remote, place, evicted).await;
}
