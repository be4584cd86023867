//! The logins of a node at its relays: kept up, and opened circuits over. Spec: link C.5.

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::task::AtomicWaker;
use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};
use sealtide_wire::relay::{CircuitNumber, CircuitState, ClientEvent, GoAwayCode, RelayClient};
use tokio::io::AsyncWrite;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
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
/// Tasks that wait for one direction of a circuit.
const WAITING_MAX: usize = 4;
/// Offered circuits of one login about whose openers this node's memory is asked at one time. More are refused.
const QUESTIONS_MAX: usize = 64;
/// How often what a relay sees anew is told to peers, at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);
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
    /// Whether the login is bound to its TLS connection: 1 is yes, 0 is a relay whose TLS ends in a proxy.
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
    /// Its TLS ends in a proxy.
    bind0: bool,
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

/// Who waits for a circuit.
#[derive(Default)]
pub(super) struct Wakers {
    pub(super) read: Waiting,
    pub(super) write: Waiting,
}

/// Tasks that wait for one direction of a circuit. The TLS above reads while it writes and the other way round, so the task
/// of the last poll is not always the only one: each is kept until something happens.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<Waker>);

impl Waiting {
    /// Has the task of `waker` woken at the next change.
    pub(super) fn add(&mut self, waker: &Waker) {
        if self.0.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        // Woken too early it polls again, and is kept again.
        if self.0.len() >= WAITING_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.wake();
        }
        self.0.push_back(waker.clone());
    }

    fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl LiveCore {
    /// Something happened to the circuit `number`.
    pub(super) fn wake(&mut self, number: CircuitNumber) {
        if let Some(wakers) = self.wakers.get_mut(&number) {
            wakers.wake();
        }
    }
}

impl Wakers {
    fn wake(&mut self) {
        self.read.wake();
        self.write.wake();
    }
}

impl Live {
    pub(super) fn new(client: RelayClient) -> Self {
        let core = LiveCore { client, wakers: BTreeMap::new(), gone: false };
        Self { core: Mutex::new(core), pump: AtomicWaker::new() }
    }

    pub(super) fn core(&self) -> MutexGuard<'_, LiveCore> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Accounts {
    /// The account at `relay`, made and started when there is none.
    pub(crate) fn account(
        &self,
        node: &Arc<Node>,
        relay: &RelayHint,
        bind0: bool,
        token: Option<InviteSecret>,
    ) -> Arc<Account> {
        let mut all = self.all.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(known) = all.iter().find(|account| account.relay.relay == relay.relay) {
            return known.clone();
        }
        let (live, status) = (watch::Sender::new(None), Mutex::default());
        let account = Arc::new(Account { relay: relay.clone(), bind0, token, live, status, mapped: Mutex::default() });
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
            RelayState {
                relay: account.relay.clone(),
                up,
                why_not: why_not.filter(|_| !up),
                observed,
                bind: u8::from(!account.bind0),
            }
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
        let account = node.relays.account(&node, &relay, false, None);
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
                core.wakers.entry(number).or_default().read.add(cx.waker());
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
            let login = timeout(
                node.limits.handshake_deadline,
                log_in(&node, &account.relay, account.bind0, account.token.clone()),
            );
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
            let seen_from = path.remote.direct().filter(|_| listens).map(|remote| remote.ip());
            let seen = login.observed.zip(seen_from);
            account.set_mapped(seen.and_then(|(seen, relay)| address::observed_by_relay(seen, relay)));
            let mut client = RelayClient::new(limits);
            let live = {
                // Held until the login is seen, so that no change of it passes by unheard.
                let allows = node.relays.allows();
                allows.iter().for_each(|(id, seconds)| client.allow(*id, *seconds));
                let live = Arc::new(Live::new(client));
                account.live.send_replace(Some(live.clone()));
                live
            };
            node.tell_addresses();
            tracing::info!(relay = account.relay.relay.short(), "link: logged in at a relay");
            let mut pump =
                Pump::new(node.clone(), account.clone(), live, path, Told { ping_ms: limits.ping_ms, seen_from });
            let result = poll_fn(|cx| pump.poll(cx)).await;
            let why = match (pump.go_away, result) {
                (Some((code, ..)), _) => sent_away(code).to_owned(),
                (None, Err(error)) => error.to_string(),
                (None, Ok(())) => "the relay ended the login".to_owned(),
            };
            tracing::info!(relay = account.relay.relay.short(), "link: login at a relay over: {why}");
            account.live.send_replace(None);
            account.set_status(Some(why), None);
            away(pump.go_away)
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

/// What a relay means by sending a node away.
const fn sent_away(code: GoAwayCode) -> &'static str {
    match code {
        GoAwayCode::Draining => "the relay stops for a while",
        GoAwayCode::Replaced => "another login with the key of this node took over",
        GoAwayCode::DuplicateIdentity => "two machines log in with the key of this node",
        GoAwayCode::NotAdmitted => "the relay lets this node in no longer",
    }
}

/// How long to stay away after a login that is over. A relay that breaks off loses all its nodes at once, and must not get
/// them back at once.
// Spec: LK-63
fn away(go_away: Option<(GoAwayCode, Duration, Instant)>) -> Duration {
    match go_away {
        Some((GoAwayCode::Draining, wait, at)) => (at + wait).saturating_duration_since(Instant::now()),
        Some((_, wait, _)) => wait.max(SENT_AWAY),
        None => Duration::from_millis(random_below(SPREAD_MS)),
    }
}

/// What a login is pumped by.
struct Told {
    ping_ms: u32,
    seen_from: Option<IpAddr>,
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
    questions: Arc<Semaphore>,
    /// The address of the relay, when this login left from the listening port: then what it sees is where peers may dial.
    seen_from: Option<IpAddr>,
    /// When peers were told last that the relay sees this node elsewhere.
    told_at: Option<Instant>,
}

impl Pump {
    fn new(node: Arc<Node>, account: Arc<Account>, live: Arc<Live>, path: Path, told: Told) -> Self {
        let Told { ping_ms, seen_from } = told;
        let ping = Duration::from_millis(u64::from(ping_ms.clamp(1_000, 3_600_000)));
        let heard = Instant::now();
        let timer = Box::pin(sleep_until(heard + ping));
        let (out, unflushed, pinged, go_away) = (BytesMut::new(), false, false, None);
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
                Message::Ping(payload) => {
                    if self.out.len() > 2 * BATCH_BYTES {
                        return Err(io::Error::other("more WebSocket pings than answers were taken"));
                    }
                    self.path.framing.pong(payload, &mut self.out);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a thousand nodes do when their relay is gone from one moment to the next.
    // Proves: LK-63
    #[tokio::test(start_paused = true)]
    async fn nodes_of_a_relay_that_broke_off_come_back_one_after_the_other() {
        let mut when: Vec<_> = (0..1_000).map(|_| away(None)).collect();
        when.sort_unstable();
        assert!(when[999] - when[0] >= Duration::from_secs(5), "{when:?}");
        let busiest = when.iter().map(|at| when.iter().filter(|b| (*at..*at + BUSY).contains(*b)).count()).max();
        assert!(busiest < Some(60), "{busiest:?} within {BUSY:?}");
        let now = Instant::now();
        let told = away(Some((GoAwayCode::Draining, Duration::from_secs(3), now)));
        assert_eq!(told, Duration::from_secs(3), "who was told when comes then");
        assert_eq!(away(Some((GoAwayCode::NotAdmitted, Duration::ZERO, now))), SENT_AWAY);
    }

    const BUSY: Duration = Duration::from_millis(100);
}
