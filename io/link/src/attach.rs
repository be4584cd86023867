//! Adding a path to a session that stands: the re-handshake over a connection, and what follows when it does not do.
//! Spec: link C.8, C.10.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sealtide_identity::{InviteId, InviteSecret, NodeId};
use sealtide_wire::frame::ErrorCode;
use sealtide_wire::handshake::{Admission, Continuation, HandshakeError, PipeKind, Proof, Refused};
use sealtide_wire::rehandshake::{
    DialStep, Dialler, Listener, REQUEST_PAYLOAD_BYTES, RehandshakeError, RejectCode, Request,
};
use sealtide_wire::session::{PathId, SessionState};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use crate::clock::SystemEntropy;
use crate::dial;
use crate::limits::Place;
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::Remote;
use crate::proof::{self, ProofError};
use crate::registry::Registry;
use crate::relay;
use crate::routes::NewPath;
use crate::session::{Core, Session, WhyNotDirect};
use crate::tunnel;

/// How long one connection may take to answer REQUEST before the next is used. Spec: link C.8.
const ANSWER: Duration = Duration::from_secs(3);
/// What one message of a re-handshake may hold.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Why no path was added.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The settings forbid it.
    Policy,
    /// No address is known.
    NoAddress,
    /// Nothing spoke the link protocol there.
    Unreachable,
    /// Both ends are behind translators, and dialling each other at one moment led to nothing.
    Nat,
    /// Something answered, and it was not the peer, or did not agree.
    NotAgreed(WhyNotDirect),
    /// Another attempt goes on, at either end.
    Busy(Duration),
    /// The session is over: the peer refuses this node, or has forgotten the session and a new one took its place.
    Over,
}

impl Failure {
    /// What status shows.
    pub(crate) fn why(&self) -> WhyNotDirect {
        match self {
            Self::Policy => WhyNotDirect::Policy,
            Self::NoAddress => WhyNotDirect::NoAddress,
            Self::Unreachable => WhyNotDirect::Unreachable,
            Self::Nat => WhyNotDirect::Nat,
            Self::NotAgreed(why) => *why,
            Self::Busy(_) => WhyNotDirect::Trying,
            Self::Over => WhyNotDirect::Refused,
        }
    }

    /// How long the peer wants to be left alone.
    pub(crate) fn wait(&self) -> Duration {
        match self {
            Self::Busy(wait) => *wait,
            _ => Duration::ZERO,
        }
    }
}

/// One round over the addresses of the peer of `session`: all are dialled up to the upgrade, one REQUEST goes out at a
/// time. With `renews` a successor of the path that carries the session is wanted.
// Spec: LK-110
pub(crate) async fn dial(node: &Arc<Node>, session: &Session, renews: bool) -> Result<(), Failure> {
    let (mut addresses, mut relays) = {
        let core = session.shared.core();
        let wanted = |kind| core.wants(session.shared.clock.now(), kind, renews);
        let addresses = if wanted(PipeKind::Direct) { core.dial_list() } else { Vec::new() };
        let mut relays = node.with_relays_behind_proxies(core.relays.clone());
        relays.retain(|hint| wanted(if hint.relay == session.peer() { PipeKind::Tunnel } else { PipeKind::Relay }));
        (addresses, relays)
    };
    let tunnels = node.policy.permits(PipeKind::Tunnel);
    relays.retain(|hint| if hint.relay == session.peer() { tunnels } else { node.policy.permits(PipeKind::Relay) });
    if !node.policy.permits(PipeKind::Direct) {
        addresses.clear();
        if relays.is_empty() {
            return Err(Failure::Policy);
        }
    }
    if addresses.is_empty() && relays.is_empty() {
        return Err(Failure::NoAddress);
    }
    let mut dials = JoinSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let delay = dial::STAGGER * u32::try_from(index).unwrap_or(0);
        dials.spawn(dial::reach(node.clone(), *address, delay));
    }
    for hint in relays {
        let delay = if addresses.is_empty() { Duration::ZERO } else { dial::HEAD_START };
        dial::meet(node, &mut dials, hint, session.peer(), delay);
    }
    let deadline = tokio::time::Instant::now() + node.limits.handshake_deadline;
    let mut failure = Failure::Unreachable;
    let round = async {
        while let Some(joined) = dials.join_next().await {
            let Ok((remote, Ok(path))) = joined else { continue };
            match add(node, session, path, remote).await {
                Ok(()) => return Ok(()),
                Err(over @ Failure::Over) => return Err(over),
                Err(other) => failure = other,
            }
        }
        Err(std::mem::replace(&mut failure, Failure::Unreachable))
    };
    timeout_at(deadline, round).await.unwrap_or(Err(Failure::Unreachable))
}

/// Makes a connection a path of the session: by the re-handshake, else by a full handshake that offers to go on.
async fn add(node: &Arc<Node>, session: &Session, path: Path, remote: Remote) -> Result<(), Failure> {
    match request(node, session, path, None).await {
        Ok(()) => {
            node.counters.rehandshakes_dialled.add(1);
            Ok(())
        }
        Err(Asked::Unpinned(path)) => full(node, session, *path).await,
        Err(Asked::Forgotten) => {
            let (_, path) = match remote {
                Remote::Direct(address) => dial::reach(node.clone(), address, Duration::ZERO).await,
                Remote::Relay { relay } => {
                    let known = node.with_relays_behind_proxies(session.shared.core().relays.clone());
                    let hint = known.into_iter().find(|hint| hint.relay == relay).ok_or(Failure::Unreachable)?;
                    relay::reach(node.clone(), hint, session.peer(), Duration::ZERO).await
                }
                Remote::Tunnel(_) => {
                    let peer = session.peer();
                    let known = session.shared.core().relays.iter().find(|hint| hint.relay == peer).cloned();
                    tunnel::reach(node.clone(), known.ok_or(Failure::Unreachable)?, Duration::ZERO).await
                }
            };
            full(node, session, path.map_err(|_| Failure::Unreachable)?).await
        }
        Err(Asked::Failed(failure)) => {
            node.counters.rehandshakes_failed.add(1);
            Err(failure)
        }
    }
}

/// What came of a REQUEST that made no path.
enum Asked {
    /// The certificate shown is not pinned; nothing was sent.
    Unpinned(Box<Path>),
    /// The peer has other secrets, or not the session.
    Forgotten,
    Failed(Failure),
}

impl From<PathError> for Asked {
    fn from(_: PathError) -> Self {
        Self::Failed(Failure::Unreachable)
    }
}

/// A dialler that gives its turn back however it ends.
struct Turn<'a> {
    session: &'a Session,
    dialler: Dialler,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.dialler.abandon(&mut self.session.shared.core().ratchet);
    }
}

/// Makes a connection a path of the session by the re-handshake alone, with the number that PUNCH announced.
pub(crate) async fn add_punched(
    node: &Arc<Node>,
    session: &Session,
    path: Path,
    number: PathId,
) -> Result<(), Failure> {
    match request(node, session, path, Some(number)).await {
        Ok(()) => {
            node.counters.rehandshakes_dialled.add(1);
            Ok(())
        }
        Err(Asked::Failed(failure)) => Err(failure),
        Err(Asked::Unpinned(_) | Asked::Forgotten) => Err(Failure::NotAgreed(WhyNotDirect::Pin)),
    }
}

async fn request(node: &Arc<Node>, session: &Session, mut path: Path, number: Option<PathId>) -> Result<(), Asked> {
    let not_agreed = |why| Asked::Failed(Failure::NotAgreed(why));
    let connection = path.stream.connection(path.certificate.fingerprint(), path.remote);
    let binding = connection.map_err(|_| not_agreed(WhyNotDirect::Inspected))?.binding;
    let (mut turn, frame) = {
        let mut core = session.shared.core();
        // Spec: LK-17
        let shown = path.stream.peer_fingerprint().unwrap_or_default();
        if !core.pins.holds(session.shared.clock.now(), &shown) {
            return Err(Asked::Unpinned(Box::new(path)));
        }
        let rx_next = core.session.rx_next();
        let started = match number {
            Some(number) => Dialler::start_on(&mut core.ratchet, &binding, number, rx_next, &mut SystemEntropy),
            None => Dialler::start(&mut core.ratchet, &binding, rx_next, &mut SystemEntropy),
        };
        let (dialler, frame) = started.map_err(|_| Asked::Failed(Failure::Busy(Duration::ZERO)))?;
        (Turn { session, dialler }, frame)
    };
    let began = tokio::time::Instant::now();
    path.send(&[frame]).await?;
    loop {
        let answer = timeout(ANSWER, path.frame(REQUEST_PAYLOAD_BYTES, MESSAGE_BYTES_MAX)).await;
        let frame = answer.map_err(|_| not_agreed(WhyNotDirect::Unreachable))??;
        let again = {
            let mut core = session.shared.core();
            let Core { ratchet, session: wire, .. } = &mut *core;
            let tx_from = |next| wire.tx_from(next);
            let step = turn.dialler.handle(ratchet, &frame, &path.stream, &tx_from, &mut SystemEntropy);
            match step.map_err(judge)? {
                DialStep::Send(frame) => frame,
                DialStep::Done { complete, attachment } => {
                    let new = NewPath { path, dialled: true, first: vec![complete], age_max_ms: node.path_age_ms() };
                    core.attach(session.shared.clock.now(), attachment, new)
                        .map_err(|_| Asked::Failed(Failure::Unreachable))?;
                    drop(core);
                    session.shared.pump.wake();
                    let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                    node.counters.rehandshake_us.add(took);
                    return Ok(());
                }
            }
        };
        path.send(&[again]).await?;
    }
}

fn judge(error: RehandshakeError) -> Asked {
    match error {
        RehandshakeError::Rejected { code, retry_ms } => match RejectCode::from_code(code) {
            Some(RejectCode::Unknown | RejectCode::Epoch | RejectCode::BadTag) => Asked::Forgotten,
            _ => Asked::Failed(Failure::Busy(Duration::from_millis(u64::from(retry_ms).min(60_000)))),
        },
        RehandshakeError::Yielded => Asked::Failed(Failure::Busy(Duration::ZERO)),
        RehandshakeError::Exhausted => Asked::Forgotten,
        _ => Asked::Failed(Failure::NotAgreed(WhyNotDirect::Inspected)),
    }
}

/// The full handshake, offering to go on with the session. Spec: link C.4.5, extension 1.
async fn full(node: &Arc<Node>, session: &Session, path: Path) -> Result<(), Failure> {
    let proven = match proof::initiate(node, path, session.peer(), Proof::Key, Some(session)).await {
        Ok(proven) => proven,
        // The word of the peer, which has proved itself: that of a stranger is another error.
        Err(ProofError::Handshake(HandshakeError::Peer(notice)))
            if ErrorCode::from_code(notice.code) == Some(ErrorCode::Refused) =>
        {
            session.shared.core().why_not_direct = Some(WhyNotDirect::Refused);
            session.give_up();
            return Err(Failure::Over);
        }
        Err(ProofError::Yield(_) | ProofError::Busy) => return Err(Failure::Busy(Duration::ZERO)),
        Err(ProofError::NoAnswer | ProofError::Handshake(_)) => return Err(Failure::NotAgreed(WhyNotDirect::Pin)),
        Err(_) => return Err(Failure::Unreachable),
    };
    // A task of its own: a new session ends the old one, and with it the keeper that waits here.
    let node = node.clone();
    let opening = tokio::spawn(async move {
        let opened = node.establish(proven).await.ok()?;
        if opened.is_new {
            // The peer has forgotten the old session. Whoever serves sessions hears of the new one as of any other.
            node.hand_over(opened.session);
        }
        Some(opened.is_new)
    });
    match opening.await {
        Ok(Some(false)) => Ok(()),
        Ok(Some(true)) => Err(Failure::Over),
        _ => Err(Failure::Unreachable),
    }
}

/// A listener that gives its turn back however it ends.
struct Candidate<'a> {
    session: &'a Session,
    listener: Option<Listener>,
}

impl Drop for Candidate<'_> {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abandon(&mut self.session.shared.core().ratchet);
        }
    }
}

/// The listening end, on a path whose first frame was REQUEST.
pub(crate) async fn respond(node: &Arc<Node>, mut path: Path, frame: Bytes, place: &Place) -> Result<(), ProofError> {
    let mut request = Request::read(&frame)?;
    let Some(session) = node.registry.by_id(&request.session_id()) else {
        return Err(reject(node, path, RejectCode::Unknown).await);
    };
    let binding = path.stream.connection(path.certificate.fingerprint(), path.remote)?.binding;
    let (admission, peer) = (node.admission.clone(), session.peer());
    let allowed = tokio::task::spawn_blocking(move || admission.allowed(&peer)).await.unwrap_or(false);
    // Spec: LK-17, LK-104
    let shown = path.stream.peer_fingerprint().unwrap_or_default();
    let pinned = session.shared.core().pins.holds(session.shared.clock.now(), &shown);
    if !allowed || !pinned || !node.policy.permits(path.remote.kind()) {
        return Err(reject(node, path, RejectCode::Unknown).await);
    }
    // It holds a key that the peer has proved: no newcomer takes its place, and it is not slowed.
    let _no_delay = place.knocked();
    let mut asked = 0;
    let (mut candidate, response) = loop {
        asked += 1;
        let answered = {
            let mut core = session.shared.core();
            let over = matches!(core.session.state(), SessionState::Closed);
            let rx_next = core.session.rx_next();
            if over {
                Err(RehandshakeError::Refused(RejectCode::Unknown))
            } else {
                let answered =
                    Listener::answer(&mut core.ratchet, &binding, &request, rx_next, &path.stream, &mut SystemEntropy);
                answered.map(|(listener, frame)| (Candidate { session: &session, listener: Some(listener) }, frame))
            }
        };
        match answered {
            Ok(answered) => break answered,
            Err(RehandshakeError::Refused(code @ RejectCode::Epoch)) if asked == 1 => {
                path.send(&[code.frame()]).await?;
                let frame = path.frame(REQUEST_PAYLOAD_BYTES, MESSAGE_BYTES_MAX).await?;
                request = Request::read(&frame)?;
            }
            Err(RehandshakeError::Refused(code)) => {
                if code == RejectCode::BadTag {
                    node.counters.bad_proofs.add(1);
                    place.failed();
                }
                return Err(reject(node, path, code).await);
            }
            Err(error) => return Err(error.into()),
        }
    };
    path.send(&[response]).await?;
    let frame = path.frame(REQUEST_PAYLOAD_BYTES, MESSAGE_BYTES_MAX).await?;
    let listener = candidate.listener.take().expect("it was put there above");
    place.proved();
    {
        let mut core = session.shared.core();
        let attachment = listener.complete(&mut core.ratchet, &frame)?;
        let new = NewPath { path, dialled: false, first: Vec::new(), age_max_ms: node.path_age_ms() };
        core.attach(session.shared.clock.now(), attachment, new).map_err(|_| ProofError::NoAnswer)?;
    }
    node.counters.rehandshakes_accepted.add(1);
    session.shared.pump.wake();
    session.shared.keeper.notify_one();
    Ok(())
}

async fn reject(node: &Node, mut path: Path, code: RejectCode) -> ProofError {
    node.counters.rehandshakes_rejected.add(1);
    let _gone_already = path.send(&[code.frame()]).await;
    path.hang_up().await;
    RehandshakeError::Refused(code).into()
}

/// The admission of the node, and what the link itself knows: which sessions stand.
pub(crate) struct Doorkeeper {
    pub(crate) admission: Arc<dyn Admission + Send + Sync>,
    pub(crate) registry: Arc<Registry>,
}

impl Admission for Doorkeeper {
    fn allowed(&self, peer: &NodeId) -> bool {
        self.admission.allowed(peer)
    }

    fn invite_secret(&self, invite: &InviteId) -> Option<InviteSecret> {
        self.admission.invite_secret(invite)
    }

    fn enrol(&self, invite: &InviteId, peer: &NodeId) -> Result<(), Refused> {
        self.admission.enrol(invite, peer)
    }

    fn continues(&self, peer: &NodeId, session_id: &[u8; 16]) -> Option<u64> {
        let session = self.registry.session(peer).filter(|session| session.id() == *session_id)?;
        let core = session.shared.core();
        (core.session.state() != SessionState::Closed).then(|| core.session.rx_next())
    }

    fn relay_token(&self) -> Option<InviteSecret> {
        self.admission.relay_token()
    }
}

/// What a full handshake offers to go on with.
pub(crate) fn offer(session: &Session) -> Continuation {
    Continuation { session_id: session.id(), rx_next: session.shared.core().session.rx_next() }
}
