//! Meeting through two translators: both ends dial each other at one moment, from the ports where they listen, so that
//! each translator takes the other's connection for the answer to its own. Spec: link C.10.
//!
//! ```text
//! leads: the smaller id                       follows: the greater id
//! PUNCH over the session  ──────────────────▶
//! half a round trip later: dial               at once: dial
//!        └──────────── one TCP connection, whoever it belongs to ───────────┘
//! TLS client, REQUEST with the announced number   TLS server, refuses every other number
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sealtide_crypto::Now;
use sealtide_identity::LinkAddress;
use sealtide_wire::frame::FrameType;
use sealtide_wire::handshake::PipeKind;
use sealtide_wire::rehandshake::{Punch, Request};
use sealtide_wire::session::PathId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::attach::{self, Failure};
use crate::clock::random_below;
use crate::limits::{Place, Source};
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::Remote;
use crate::port;
use crate::proof::{self, ProofError};
use crate::session::{Core, Session, WhyNotDirect};
use crate::stream::SecureStream;

/// How long one attempt dials.
const PATIENCE: Duration = Duration::from_secs(5);
/// After a connection that is not answered the next one is begun.
const SILENCE: Duration = Duration::from_millis(1500);
/// After a refused connection the next one is begun at random within this, in ms: a fixed pause keeps both ends in step.
const PAUSE_MS: (u64, u64) = (10, 40);
/// Attempts until the pause between them is long.
const QUICK_ATTEMPTS: u32 = 3;
/// The long pause.
const LONG_PAUSE_MS: u64 = 600_000;
/// Between two attempts that a peer leads, at least.
const FOLLOW_PAUSE_MS: u64 = 5_000;

/// What one session has tried, since the addresses of either end changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Punched {
    attempts: u32,
    last_ms: Option<u64>,
    failed: bool,
}

impl Punched {
    /// A network changed: what was tried means nothing any more. How often a peer may lead is not forgotten.
    pub(crate) fn forget(&mut self) {
        (self.attempts, self.failed) = (0, false);
    }

    /// Attempts of either end since then.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Whether an attempt led to nothing.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    // Spec: LK-55
    fn may_lead(&self, now: Now) -> bool {
        self.attempts < QUICK_ATTEMPTS || self.last_ms.is_none_or(|last| now.mono_ms >= last + LONG_PAUSE_MS)
    }

    fn may_follow(&self, now: Now) -> bool {
        self.last_ms.is_none_or(|last| now.mono_ms >= last + FOLLOW_PAUSE_MS)
    }

    fn begin(&mut self, now: Now) {
        self.attempts = self.attempts.saturating_add(1);
        self.last_ms = Some(now.mono_ms);
    }
}

/// Addresses that are dialled at the moment, with whoever wants a connection that comes from there.
#[derive(Default)]
pub(crate) struct Punches {
    waiting: Mutex<BTreeMap<SocketAddr, mpsc::Sender<(TcpStream, SocketAddr)>>>,
}

impl Punches {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, mpsc::Sender<(TcpStream, SocketAddr)>>> {
        self.waiting.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A connection that arrived at a listener goes to the attempt that dials its other end; `None` then.
    pub(crate) fn claim(&self, tcp: TcpStream, remote: SocketAddr) -> Option<TcpStream> {
        let place = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let Some(wanted) = self.waiting().get(&place).cloned() else { return Some(tcp) };
        wanted.try_send((tcp, place)).err().map(|refused| match refused {
            mpsc::error::TrySendError::Full((tcp, _)) | mpsc::error::TrySendError::Closed((tcp, _)) => tcp,
        })
    }
}

/// Takes its addresses out again however the attempt ends.
struct Claim<'a> {
    punches: &'a Punches,
    addresses: Vec<SocketAddr>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut waiting = self.punches.waiting();
        self.addresses.iter().for_each(|address| drop(waiting.remove(address)));
    }
}

/// Whether this node should lead an attempt with the peer of `session` now.
pub(crate) fn is_due(node: &Node, session: &Session) -> bool {
    // A port that depends on who is asked cannot be told to a third.
    let seen = node.mapped();
    let varies = |four: bool| seen.iter().filter(|seen| seen.socket.is_ipv4() == four).count() > 1;
    let core = session.shared.core();
    node.id < session.peer()
        && node.policy.permits(PipeKind::Direct)
        && !seen.is_empty()
        && !varies(true)
        && !varies(false)
        && !places(node, &core.addresses).is_empty()
        && core.punched.may_lead(session.shared.clock.now())
}

/// Those of the peer's addresses that a translator shows, and from where they are dialled.
fn places(node: &Node, told: &[LinkAddress]) -> Vec<(SocketAddr, SocketAddr)> {
    let listeners = node.listeners().clone();
    let shown = told.iter().filter(|told| told.source == LinkAddress::RELAY_OBSERVED);
    let straight = shown
        .filter(|told| matches!(node.proxy.proxy_for(&told.socket.ip().to_string(), told.socket.port()), Ok(None)));
    straight.filter_map(|told| Some((port::place(&listeners, told.socket.ip())?, told.socket))).collect()
}

/// Leads one attempt: announces it, dials, and makes what comes about a path of the session.
// Spec: LK-54
pub(crate) async fn lead(node: &Arc<Node>, session: &Session) -> Result<(), Failure> {
    let shared = &session.shared;
    let (targets, number, rtt_ms) = {
        let mut core = shared.core();
        let number = core.ratchet.reserve_path().map_err(|_| Failure::Over)?;
        let told = Punch { path: number, start_in_ms: 0, addresses: node.mapped() };
        let sent = core.session.send_control(FrameType::Punch, told.payload().into());
        sent.map_err(|_| Failure::Busy(Duration::ZERO))?;
        core.punched.begin(shared.clock.now());
        (places(node, &core.addresses), number, core.session.stats().rtt_ms.unwrap_or(0))
    };
    shared.pump.wake();
    node.counters.punches.add(1);
    tracing::debug!(peer = session.peer().short(), path = number.0, "link: meeting through translators");
    sleep(Duration::from_millis(u64::from(rtt_ms / 2).min(2_000))).await;
    let met = meet(node, targets, true).await;
    let made = match met {
        Some((tcp, address)) => finish(node, session, tcp, address, number).await,
        None => Err(Failure::Nat),
    };
    if made.is_err() {
        shared.core().punched.failed = true;
    }
    made
}

async fn finish(
    node: &Arc<Node>,
    session: &Session,
    tcp: TcpStream,
    address: SocketAddr,
    number: PathId,
) -> Result<(), Failure> {
    let shown = node.credentials.current(node.clock.now());
    let dial = Path::dial(tcp.into(), Remote::Direct(address), &shown);
    let path = timeout(node.limits.handshake_deadline, dial).await;
    let path = path.map_err(|_| Failure::Nat)?.map_err(|_| Failure::Nat)?;
    node.counters.tls_pq.add(1);
    attach::add_punched(node, session, path, number).await
}

/// The peer leads an attempt: dials its addresses at once and serves what comes about, in a task of its own. Too early,
/// not permitted, or led by the wrong end: passed over.
// Spec: LK-24
pub(crate) fn follow(node: &Arc<Node>, session: &Session, core: &mut Core, told: Punch) {
    let now = session.shared.clock.now();
    let permitted = session.peer() < node.id && node.policy.permits(PipeKind::Direct) && core.punched.may_follow(now);
    let listeners = node.listeners().clone();
    let place = |told: &LinkAddress| Some((port::place(&listeners, told.socket.ip())?, told.socket));
    let targets: Vec<_> = told.addresses.iter().filter_map(place).collect();
    if !permitted || targets.is_empty() || node.mapped().is_empty() {
        return;
    }
    core.punched.begin(now);
    node.counters.punches.add(1);
    let (node, session) = (node.clone(), session.clone());
    tokio::spawn(async move {
        let work = async {
            sleep(Duration::from_millis(u64::from(told.start_in_ms).min(5_000))).await;
            let Some((tcp, address)) = meet(&node, targets, false).await else { return false };
            let served = serve(&node, &session, tcp, address, told.path);
            matches!(timeout(node.limits.handshake_deadline, served).await, Ok(Ok(())))
        };
        let made = tokio::select! {
            made = work => made,
            _ = session.closed() => return,
            () = node.stopped() => return,
        };
        let mut core = session.shared.core();
        if !made && !core.paths.values().any(|route| !route.is_relayed()) {
            core.punched.failed = true;
            core.why_not_direct = Some(WhyNotDirect::Nat);
        }
    });
}

/// The listening end on a connection that was met: as at the door, and REQUEST must name the path that was announced.
async fn serve(
    node: &Arc<Node>,
    session: &Session,
    tcp: TcpStream,
    address: SocketAddr,
    number: PathId,
) -> Result<(), ProofError> {
    let (place, _evicted): (Place, _) =
        node.gate.enter(Source::of(address, node.limits_loopback)).map_err(|_| ProofError::Busy)?;
    let shown = node.credentials.current(node.clock.now());
    let stream = SecureStream::accept(tcp.into(), shown.server.clone()).await.map_err(PathError::from)?;
    node.counters.tls_pq.add(1);
    let path = Path::answer(stream, Remote::Direct(address), shown.certificate).await?;
    let (path, frame) = proof::first_frame(node, path).await?;
    let request = Request::read(&frame)?;
    if request.session_id() != session.id() || request.path() != number {
        return Err(ProofError::NoAnswer);
    }
    attach::respond(node, path, frame, &place).await
}

/// Dials every target from its place until one connection stands, for [`PATIENCE`] at most. With `claims` a connection
/// that arrives at the listener from a target counts as well: the other end is a TLS server already.
async fn meet(node: &Node, targets: Vec<(SocketAddr, SocketAddr)>, claims: bool) -> Option<(TcpStream, SocketAddr)> {
    let (arrived, mut arrivals) = mpsc::channel(1);
    let addresses: Vec<_> = targets.iter().map(|(_, address)| *address).filter(|_| claims).collect();
    node.punches.waiting().extend(addresses.iter().map(|address| (*address, arrived.clone())));
    let _claim = Claim { punches: &node.punches, addresses };
    let mut dials = JoinSet::new();
    for (from, address) in targets {
        dials.spawn(knock(from, address));
    }
    let first = async {
        loop {
            tokio::select! {
                Some(dialled) = dials.join_next() => if let Ok(Some(met)) = dialled { return Some(met) },
                Some(met) = arrivals.recv() => return Some(met),
                else => return None,
            }
        }
    };
    timeout(PATIENCE, first).await.ok().flatten()
}

/// Connections from one place to another, one after the other, until one stands.
async fn knock(from: SocketAddr, address: SocketAddr) -> Option<(TcpStream, SocketAddr)> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        match timeout(SILENCE, port::connect_from(from, address)).await {
            Ok(Ok(tcp)) => return Some((tcp, address)),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Unsupported => return None,
            Ok(Err(_)) => {
                let (least, most) = PAUSE_MS;
                sleep(Duration::from_millis(least + random_below(most - least + 1))).await;
            }
            Err(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mono_ms: u64) -> Now {
        Now { mono_ms, wall_ms: 0 }
    }

    // Proves: LK-55
    #[test]
    fn after_three_attempts_the_pause_is_long_until_an_address_changes() {
        let mut punched = Punched::default();
        for attempt in 0..3 {
            assert!(punched.may_lead(at(attempt * 100)), "attempt {attempt}");
            punched.begin(at(attempt * 100));
        }
        assert!(!punched.may_lead(at(300)));
        assert!(!punched.may_lead(at(200 + LONG_PAUSE_MS - 1)));
        assert!(punched.may_lead(at(200 + LONG_PAUSE_MS)));
        punched.failed = true;
        punched.forget();
        assert!(punched.may_lead(at(300)) && !punched.has_failed(), "the network changed");
    }

    // Proves: LK-24
    #[test]
    fn a_peer_leads_no_more_than_one_attempt_in_five_seconds() {
        let mut punched = Punched::default();
        assert!(punched.may_follow(at(0)));
        punched.begin(at(0));
        punched.forget();
        assert!(!punched.may_follow(at(4_999)), "an ADDR_UPDATE does not shorten it");
        assert!(punched.may_follow(at(5_000)));
    }

    #[tokio::test]
    async fn a_connection_from_a_place_that_is_dialled_goes_to_the_attempt() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let punches = Punches::default();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, remote) = listener.accept().await.unwrap();
        let far = punches.claim(far, remote).expect("nobody wants it");
        let (tell, mut told) = mpsc::channel(1);
        punches.waiting().insert(remote, tell);
        assert!(punches.claim(far, remote).is_none());
        assert_eq!(told.recv().await.unwrap().1, near.local_addr().unwrap());
        drop(Claim { punches: &punches, addresses: vec![remote] });
        assert!(punches.waiting().is_empty());
    }
}
