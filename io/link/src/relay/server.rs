//! The door of a relay. It has a node key of its own and no session with anybody. Spec: link C.5.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use sealtide_crypto::SigningKey;
use sealtide_identity::{InviteId, InviteSecret, NodeId};
use sealtide_wire::handshake::{Admission, CertificateFacts, LocalEnd, Refused};
use sealtide_wire::relay::{Admit, Gate as ReadGate, Hub, LoginId, Output, RelaySettings, RelayStats};
use tokio::io::AsyncWrite as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::login::{Desk, answer};
use super::proxies::Proxies;
use crate::certificate::CertificateError;
use crate::clock::{Clock, SystemEntropy};
use crate::limits::{Gate, Limits, Source};
use crate::listen::{ListenError, bind};
use crate::outgoing::Outgoing;
use crate::path::Path;
use crate::pipe::Remote;
use crate::proof::Workers;
use crate::quiet_log::QuietLog;
use crate::tls::LiveCredentials;
use crate::websocket::Message;

/// Bytes gathered for one write.
const BATCH_BYTES: usize = 64 * 1024;
/// Bytes of one node that are taken before the next node's turn.
const QUANTUM_BYTES: usize = 64 * 1024;
/// Bytes read in one go: what a node that is held up may leave unread here.
const READ_BYTES: usize = 64 * 1024;
/// The longest time that a probe takes.
const PROBE: Duration = Duration::from_secs(3);

/// What a relay is made from.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// The node key of the relay.
    pub key: Arc<SigningKey>,
    /// Who is let in.
    pub admit: Admit,
    /// The token of the address, with [`Admit::Token`].
    pub token: Option<InviteSecret>,
    /// The limits of nodes that are let in.
    pub settings: RelaySettings,
    /// What strangers may cost.
    pub limits: Limits,
    /// Whether the limits per source hold for loopback sources too.
    pub limits_loopback: bool,
    /// Whether logs show whole addresses.
    pub log_addresses: bool,
    /// Whether nodes come through a proxy that ends their TLS, so that logins cannot be bound to it. Then only such logins
    /// are taken, else only bound ones. Spec: link C.4.1.
    pub bind0: bool,
    /// Whose `X-Forwarded-For` is believed.
    pub proxies: Proxies,
    /// How long a relay that stops waits for what it said last to be written.
    pub last_words: Duration,
}

impl RelayConfig {
    /// A relay with the key `key` that lets in whom `admit` says, with the defaults of link C.5 and C.12.
    pub fn new(key: Arc<SigningKey>, admit: Admit) -> Self {
        Self {
            key,
            admit,
            token: None,
            settings: RelaySettings::default(),
            limits: Limits::default(),
            limits_loopback: false,
            log_addresses: false,
            bind0: false,
            proxies: Proxies::default(),
            last_words: Duration::from_secs(5),
        }
    }
}

/// A running relay. Cheap to clone.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    config: RelayConfig,
    local: Arc<LocalEnd>,
    address: SocketAddr,
    clock: Clock,
    credentials: LiveCredentials,
    gate: Arc<Gate>,
    workers: Workers,
    log: QuietLog,
    state: Mutex<State>,
    timers: Notify,
    stop: watch::Sender<bool>,
    drained: watch::Sender<bool>,
    /// Connections that have logged in and are not closed yet.
    logins: watch::Sender<usize>,
}

struct State {
    hub: Hub,
    wakers: BTreeMap<LoginId, Arc<AtomicWaker>>,
    last: u64,
    armed_ms: Option<u64>,
}

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Relay {
    /// Opens the door at `address`; port 0 for a free one.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn open(config: RelayConfig, address: SocketAddr) -> Result<Self, RelayError> {
        let clock = Clock::start();
        let (listener, address) = bind(address)?;
        let local = Arc::new(LocalEnd::new(config.key.clone(), CertificateFacts::new(Vec::new(), 0, 0)));
        let state = State {
            hub: Hub::new(config.settings, config.admit.clone()),
            wakers: BTreeMap::new(),
            last: 0,
            armed_ms: None,
        };
        let inner = Arc::new(Inner {
            local,
            address,
            clock,
            credentials: LiveCredentials::make(clock.now(), crate::rotation::Ages::default())?,
            gate: Gate::new(config.limits),
            workers: Workers::new(&config.limits),
            log: QuietLog::new(config.log_addresses),
            state: Mutex::new(state),
            timers: Notify::new(),
            stop: watch::Sender::new(false),
            drained: watch::Sender::new(false),
            logins: watch::Sender::new(0),
            config,
        });
        tokio::spawn(accept(inner.clone(), listener));
        tokio::spawn(tick(inner.clone()));
        Ok(Self(inner))
    }

    /// The node id of the relay.
    pub fn id(&self) -> NodeId {
        self.0.local.id()
    }

    /// Where the door is.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// What it does, in numbers.
    pub fn stats(&self) -> RelayStats {
        self.0.state().hub.stats()
    }

    /// Tells every node to come back later, lets circuits end for a while, writes what was said last and closes the door.
    pub async fn drain(&self) {
        let now = self.0.clock.now();
        self.0.act(|hub| hub.drain(now, &mut SystemEntropy));
        let mut drained = self.0.drained.subscribe();
        drop(drained.wait_for(|drained| *drained).await);
        self.0.act(Hub::dismiss);
        let mut logins = self.0.logins.subscribe();
        // Each login ends by itself when everything is written. Who does not read is not waited for without end.
        drop(timeout(self.0.config.last_words, logins.wait_for(|logins| *logins == 0)).await);
        self.stop();
    }

    /// Closes the door and every connection at once.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Changes the hub and does what it wishes.
    fn act<T>(self: &Arc<Self>, change: impl FnOnce(&mut Hub) -> T) -> T {
        let mut state = self.state();
        let result = change(&mut state.hub);
        while let Some(output) = state.hub.poll() {
            match output {
                Output::Wake(id) => {
                    if let Some(waker) = state.wakers.get(&id) {
                        waker.wake();
                    }
                }
                Output::Probe { login, address } => drop(tokio::spawn(probe(self.clone(), login, address.socket))),
                Output::DuplicateIdentity(node) => {
                    tracing::error!(node = node.short(), "relay: two machines use one node key; both are sent away");
                }
                Output::Drained => drop(self.drained.send_replace(true)),
                _ => {}
            }
        }
        let next = state.hub.next_timeout();
        if next.is_some_and(|at| state.armed_ms.is_none_or(|armed| at < armed)) {
            self.timers.notify_one();
        }
        result
    }

    async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        let _either_way = stop.wait_for(|stop| *stop).await;
    }
}

/// Lets in whom the hub knows.
struct Desktop(Arc<Inner>);

impl Admission for Desktop {
    fn allowed(&self, peer: &NodeId) -> bool {
        let now = self.0.clock.now();
        self.0.state().hub.admits(now, peer)
    }

    fn invite_secret(&self, _invite: &InviteId) -> Option<InviteSecret> {
        None
    }

    fn enrol(&self, _invite: &InviteId, _peer: &NodeId) -> Result<(), Refused> {
        Err(Refused)
    }

    fn relay_token(&self) -> Option<InviteSecret> {
        self.0.config.token.clone()
    }
}

async fn tick(relay: Arc<Inner>) {
    loop {
        let now = relay.clock.now();
        relay.act(|hub| hub.handle_timeout(now));
        let next = {
            let mut state = relay.state();
            state.armed_ms = state.hub.next_timeout();
            state.armed_ms
        };
        let wait = next.map_or(3_600_000, |at| at.saturating_sub(now.mono_ms).min(3_600_000) + 1);
        tokio::select! {
            () = sleep(Duration::from_millis(wait)) => {}
            () = relay.timers.notified() => {}
            () = relay.stopped() => return,
        }
    }
}

async fn probe(relay: Arc<Inner>, login: LoginId, address: SocketAddr) {
    let began = Instant::now();
    let open = matches!(timeout(PROBE, TcpStream::connect(address)).await, Ok(Ok(_)));
    let ms = u16::try_from(began.elapsed().as_millis()).unwrap_or(u16::MAX);
    relay.act(|hub| hub.probed(login, address.port(), open, ms));
}

async fn accept(relay: Arc<Inner>, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = relay.stopped() => return,
        };
        match accepted {
            Ok((tcp, remote)) => {
                // A proxy is not a source: whom it speaks for is known later.
                let is_proxy = relay.config.proxies.trust(remote.ip());
                let source =
                    if is_proxy { Source::unlimited(remote) } else { Source::of(remote, relay.config.limits_loopback) };
                match relay.gate.enter(source) {
                    Ok((place, evicted)) => {
                        let relay = relay.clone();
                        tokio::spawn(async move {
                            tokio::select! {
                                () = greet(&relay, tcp, remote, place) => {}
                                Ok(()) = evicted => {}
                                () = relay.stopped() => {}
                            }
                        });
                    }
                    Err(turned) => relay.log.failure("turned", Remote::Direct(remote), &turned),
                }
            }
            Err(error) => {
                tracing::warn!("relay: accepting a connection failed: {error}");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn greet(relay: &Arc<Inner>, tcp: TcpStream, remote: SocketAddr, place: crate::limits::Place) {
    let desktop = Desktop(relay.clone());
    let desk = Desk {
        local: relay.local.clone(),
        granted: relay.config.settings.granted(),
        admission: &desktop,
        workers: &relay.workers,
        limits: &relay.config.limits,
        bind0: relay.config.bind0,
        proxies: &relay.config.proxies,
        gate: &relay.gate,
        limits_loopback: relay.config.limits_loopback,
    };
    let shown = relay.credentials.current(relay.clock.now());
    let whole = answer(&desk, tcp.into(), remote, shown, &place);
    let (path, login, seen) = match timeout(relay.config.limits.handshake_deadline, whole).await {
        Ok(Ok(done)) => done,
        Ok(Err(error)) => return relay.log.failure("login", Remote::Direct(remote), &error),
        Err(_) => return relay.log.failure("silent", Remote::Direct(remote), &"nothing came for too long"),
    };
    drop(place);
    let waker = Arc::new(AtomicWaker::new());
    let id = {
        let mut state = relay.state();
        state.last += 1;
        let id = LoginId(state.last);
        relay.logins.send_modify(|logins| *logins += 1);
        state.wakers.insert(id, waker.clone());
        id
    };
    let now = relay.clock.now();
    let address = sealtide_identity::LinkAddress {
        source: sealtide_identity::LinkAddress::RELAY_OBSERVED,
        socket: SocketAddr::new(seen.ip().to_canonical(), seen.port()),
    };
    let (node, token) = (login.peer, login.token);
    if relay.act(|hub| hub.logged_in(now, id, node, Some(address), token, &mut SystemEntropy)) {
        tracing::info!(node = node.short(), "relay: login");
        let timer = Box::pin(sleep_until(Instant::now()));
        let mut pump =
            Pump { relay: relay.clone(), id, waker, path, out: Outgoing::default(), unflushed: false, timer };
        let ended = tokio::select! {
            ended = poll_fn(|cx| pump.poll(cx)) => ended,
            () = relay.stopped() => Ok(()),
        };
        match ended {
            Ok(()) => drop(pump.path.hang_up().await),
            Err(error) => tracing::debug!(node = node.short(), "relay: login over: {error}"),
        }
    }
    relay.act(|hub| hub.lost(id));
    relay.state().wakers.remove(&id);
    relay.logins.send_modify(|logins| *logins -= 1);
}

/// The task of one login.
struct Pump {
    relay: Arc<Inner>,
    id: LoginId,
    waker: Arc<AtomicWaker>,
    path: Path,
    out: Outgoing,
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
}

/// What the messages that have come led to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// All whole messages are taken.
    All,
    /// Others have their turn first.
    Enough,
    /// The next one is not taken before this time on the monotonic clock, ms.
    Until(u64),
    /// The next one is not taken before the hub wakes this task.
    Held,
}

impl Pump {
    /// Ready when the hub has ended the login and everything is written.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waker.register(cx.waker());
        let mut bytes = 0;
        loop {
            let wrote = self.write(cx)?;
            if self.out.is_empty() && !self.unflushed && self.relay.state().hub.is_over(self.id) {
                return Poll::Ready(Ok(()));
            }
            match self.take_messages(&mut bytes)? {
                Taken::All => match self.path.poll_fill(cx, READ_BYTES)? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Poll::Ready(_) => continue,
                    // An idle login holds no buffer.
                    Poll::Pending => self.path.let_go(),
                },
                Taken::Enough => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Taken::Until(at_ms) => {
                    let wait = at_ms.saturating_sub(self.relay.clock.now().mono_ms) + 1;
                    self.timer.as_mut().reset(Instant::now() + Duration::from_millis(wait));
                    if self.timer.as_mut().poll(cx).is_ready() {
                        continue;
                    }
                }
                Taken::Held => {}
            }
            if !wrote {
                return Poll::Pending;
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            if self.out.is_empty() {
                let (now, id) = (self.relay.clock.now(), self.id);
                let Self { relay, path, out, .. } = self;
                relay.act(|hub| {
                    while out.len() < BATCH_BYTES
                        && let Some(message) = hub.transmit(now, id)
                    {
                        path.framing.message(&[], message, out);
                    }
                });
            }
            if self.out.is_empty() {
                break;
            }
            let before = self.out.len();
            self.unflushed = true;
            let written = self.out.poll_write(cx, &mut self.path.stream)?;
            moved |= self.out.len() < before;
            if written.is_pending() {
                return Ok(moved);
            }
        }
        self.out = Outgoing::default();
        if self.unflushed && Pin::new(&mut self.path.stream).poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(moved)
    }

    /// Hands the hub the messages that have come whole, as far as it lets this login and until there are enough `bytes`.
    fn take_messages(&mut self, bytes: &mut usize) -> io::Result<Taken> {
        let (now, id) = (self.relay.clock.now(), self.id);
        let Self { relay, path, out, .. } = self;
        relay.act(|hub| {
            loop {
                match hub.gate(now, id) {
                    ReadGate::Open => {}
                    ReadGate::Until(at_ms) => return Ok(Taken::Until(at_ms)),
                    ReadGate::Closed => return Ok(Taken::Held),
                }
                if *bytes >= QUANTUM_BYTES {
                    return Ok(Taken::Enough);
                }
                *bytes += match path.framing.next(&mut path.received).map_err(io::Error::other)? {
                    Some(Message::Frames(frame)) => {
                        hub.message(now, id, &frame).map_err(io::Error::other)?;
                        frame.len()
                    }
                    Some(Message::Ping(payload)) => {
                        if out.len() > BATCH_BYTES {
                            return Err(io::Error::other("more WebSocket pings than answers were taken"));
                        }
                        path.framing.pong(payload, out.tail());
                        64
                    }
                    Some(Message::Pong) => 0,
                    Some(Message::Close) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    None => return Ok(Taken::All),
                };
            }
        })
    }
}
