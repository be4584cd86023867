//! Dialling: many addresses at once up to the upgrade, one HELLO at a time. Spec: link C.10.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealtide_identity::{InviteId, InviteSecret, LinkAddress, NodeId, RELAY_COUNT_MAX, RelayHint};
use sealtide_wire::frame::ErrorCode;
use sealtide_wire::handshake::{HandshakeError, PipeKind, Proof};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::address;
use crate::connect::connect;
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::Remote;
use crate::proof::{self, ProofError};
use crate::registry::Yield;
use crate::relay;
use crate::session::Session;
use crate::tunnel;

/// Between the starts of two parallel dials. Spec: link C.10.
pub(crate) const STAGGER: Duration = Duration::from_millis(50);
/// How long direct addresses are tried before a relay is.
pub(crate) const HEAD_START: Duration = Duration::from_millis(250);
/// How long the session of the handshake that goes first is waited for.
const CROSSING: Duration = Duration::from_secs(3);

/// Whom to dial, where, and with which invite.
#[derive(Clone, Debug)]
pub struct DialTarget {
    /// Who must answer.
    pub node: NodeId,
    /// Where it may be; sorted and cut to 8 by [`crate::Link::dial`].
    pub addresses: Vec<LinkAddress>,
    /// Relays that lead to it.
    pub relays: Vec<RelayHint>,
    /// The invite that lets this node in, from a ticket.
    pub invite: Option<(InviteId, InviteSecret)>,
}

/// Why a dial led to no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// No address led to anything that speaks the link protocol.
    #[error("{}", list_tried(.tried))]
    Unreachable {
        /// Each address or relay with what went wrong there.
        tried: Vec<(Remote, String)>,
    },
    /// TLS is inspected on the way to every address that answered: a direct path cannot pass there. A path through a
    /// relay can.
    #[error("TLS is inspected on the way (the certificate there was issued by {issuer:?}); {}", list_tried(.tried))]
    Inspected {
        /// Who issued the certificate that was shown instead of the peer's; foreign text.
        issuer: String,
        /// Each address with what went wrong there.
        tried: Vec<(Remote, String)>,
    },
    /// The peer proved itself and does not let this node in, or the invite does not.
    #[error("it refused this node")]
    Refused,
    /// Something answered and proved itself, but it is not the node that was dialled, or something stands between.
    #[error("what answers there is another node")]
    WrongPeer,
    /// Something took the knock and hung up. Another node does that, and so does this one when it has more
    /// connections than places: from outside they look the same (link C.4.2).
    #[error("it closed the connection without an answer: another node answers there, or it is overloaded")]
    NoAnswer,
    /// The peer speaks another version of the protocol.
    #[error("it speaks another version of the link protocol")]
    Version,
    /// The peer has too much to do, or too many sessions; try again later.
    #[error("it is busy")]
    Busy,
    /// Something answered and then fell silent.
    #[error("it did not answer in time")]
    Timeout,
    /// The peer, or what poses as it, broke the protocol.
    #[error("it broke the link protocol: {reason}")]
    Protocol {
        /// What it did.
        reason: String,
    },
    /// The link was shut down.
    #[error("the link is shut down")]
    Closed,
}

fn list_tried(tried: &[(Remote, String)]) -> String {
    if tried.is_empty() {
        return "no address is known".to_owned();
    }
    tried.iter().map(|(address, why)| format!("{address}: {why}")).collect::<Vec<_>>().join("; ")
}

/// One round over the addresses of `target`.
// Spec: LK-110
pub(crate) async fn dial(node: &Arc<Node>, target: DialTarget) -> Result<Session, DialError> {
    let peer = target.node;
    if *node.stop.borrow() {
        return Err(DialError::Closed);
    }
    if let Some(session) = node.registry.session(&peer) {
        return Ok(session);
    }
    let mut addresses = target.addresses;
    if !node.policy.permits(PipeKind::Direct) {
        addresses.clear();
    }
    address::in_dial_order(&mut addresses);
    if !node.policy.permits(PipeKind::Direct) {
        addresses.clear();
    }
    let deadline = Instant::now() + node.limits.handshake_deadline;
    let mut round = Round {
        node: node.clone(),
        peer,
        dials: JoinSet::new(),
        tried: Vec::new(),
        inspected: None,
        worst: None,
        answered: false,
    };
    for (index, address) in addresses.iter().enumerate() {
        round.dials.spawn(reach(node.clone(), address.socket, STAGGER * u32::try_from(index).unwrap_or(0)));
    }
    let told = target.relays.into_iter().take(RELAY_COUNT_MAX).collect();
    for hint in node.with_relays_behind_proxies(told) {
        let delay = if addresses.is_empty() { Duration::ZERO } else { HEAD_START };
        meet(node, &mut round.dials, hint, peer, delay);
    }
    let proof = target.invite.map_or(Proof::Key, |(id, secret)| Proof::Invite(id, secret));
    let outcome = timeout_at(deadline, round.run(&proof)).await;
    match outcome {
        Ok(result) => result,
        // Addresses that swallow packets fail by time only.
        Err(_) if !round.answered => Err(round.unreachable()),
        Err(_) => Err(DialError::Timeout),
    }
}

struct Round {
    node: Arc<Node>,
    peer: NodeId,
    dials: JoinSet<(Remote, Result<Path, PathError>)>,
    tried: Vec<(Remote, String)>,
    /// Who inspects TLS on the way to an address.
    inspected: Option<String>,
    /// The first failure of something that answered.
    worst: Option<DialError>,
    /// Whether anything went as far as the upgrade.
    answered: bool,
}

impl Round {
    async fn run(&mut self, proof: &Proof) -> Result<Session, DialError> {
        let mut ready: VecDeque<Path> = VecDeque::new();
        loop {
            let path = match ready.pop_front() {
                Some(path) => path,
                None => match self.dials.join_next().await {
                    Some(Ok((_, Ok(path)))) => path,
                    Some(Ok((address, Err(error)))) => {
                        self.not_reached(address, &error);
                        continue;
                    }
                    Some(Err(_)) => continue,
                    None => return Err(self.failure()),
                },
            };
            // One HELLO at a time; who becomes ready meanwhile waits for its turn, or is dropped after success.
            let address = path.remote;
            self.answered = true;
            let result = {
                let node = self.node.clone();
                let attempt = proof::initiate(&node, path, self.peer, proof.clone(), None);
                tokio::pin!(attempt);
                loop {
                    tokio::select! {
                        result = &mut attempt => break result,
                        Some(joined) = self.dials.join_next() => match joined {
                            Ok((_, Ok(path))) => ready.push_back(path),
                            Ok((address, Err(error))) => self.not_reached(address, &error),
                            Err(_) => {}
                        },
                        () = node.stopped() => return Err(DialError::Closed),
                    }
                }
            };
            let result = match result {
                Ok(proven) => self.node.establish(proven).await.map(|opened| opened.session),
                Err(error) => Err(error),
            };
            match result {
                Ok(session) => return Ok(session),
                Err(error) => {
                    if let Some(session) = self.judge(address, error).await? {
                        return Ok(session);
                    }
                }
            }
        }
    }

    /// What a failed handshake means: the end of the dial, another session, or the next address.
    async fn judge(&mut self, address: Remote, error: ProofError) -> Result<Option<Session>, DialError> {
        self.tried.push((address, error.to_string()));
        let found = match error {
            ProofError::Yield(Yield::Duplicate) => return self.crossing().await,
            ProofError::Yield(Yield::Closed) => return Err(DialError::Closed),
            ProofError::Yield(Yield::Full) | ProofError::Busy => DialError::Busy,
            ProofError::Handshake(HandshakeError::Peer(notice)) => match ErrorCode::from_code(notice.code) {
                Some(ErrorCode::Duplicate) => return self.crossing().await,
                Some(ErrorCode::Refused) => return Err(DialError::Refused),
                _ if is_busy(notice.code) => DialError::Busy,
                _ => DialError::Protocol { reason: notice.to_string() },
            },
            // Nobody's word, so it ends nothing: the peer may be at the next address. A busy one says so before its proof.
            ProofError::Handshake(HandshakeError::Unproven { code }) if is_busy(code) => DialError::Busy,
            ProofError::Handshake(HandshakeError::Unproven { .. }) => DialError::NoAnswer,
            ProofError::Handshake(HandshakeError::Version { .. }) => DialError::Version,
            ProofError::NoAnswer => DialError::NoAnswer,
            ProofError::Handshake(HandshakeError::WrongPeer { .. }) => DialError::WrongPeer,
            // A middleman that ends the TLS on both sides looks like this: the proof is of another connection.
            ProofError::Handshake(HandshakeError::BadProof { .. }) => DialError::WrongPeer,
            ProofError::Handshake(HandshakeError::Certificate(_)) => DialError::WrongPeer,
            ProofError::Handshake(other) => DialError::Protocol { reason: other.to_string() },
            ProofError::Silent => DialError::Timeout,
            // The peer may have hung up because its own dial got through.
            ProofError::Path(_) | ProofError::Binding(_) | ProofError::Rehandshake(_) | ProofError::Policy => {
                return Ok(self.node.registry.session(&self.peer));
            }
        };
        self.worst.get_or_insert(found);
        Ok(None)
    }

    /// The peer's own dial goes first: its session is the one.
    async fn crossing(&self) -> Result<Option<Session>, DialError> {
        // It goes first there and is turned away here: the next dial finds nothing in its way.
        if self.node.registry.is_reserved(&self.peer) {
            return Err(DialError::Busy);
        }
        let waiting = timeout(CROSSING, self.node.registry.wait_for(&self.peer));
        waiting.await.map(Some).map_err(|_| DialError::Timeout)
    }

    fn not_reached(&mut self, address: Remote, error: &PathError) {
        self.tried.push((address, error.to_string()));
        self.inspected = self.inspected.take().or_else(|| error.inspected_by());
    }

    fn failure(&mut self) -> DialError {
        match self.worst.take() {
            Some(worst) => worst,
            None => self.unreachable(),
        }
    }

    fn unreachable(&mut self) -> DialError {
        self.node.counters.unreachable.add(1);
        let tried = std::mem::take(&mut self.tried);
        match self.inspected.take() {
            Some(issuer) => DialError::Inspected { issuer, tried },
            None => DialError::Unreachable { tried },
        }
    }
}

/// Whether whoever gave up with this code may take the same dial later.
fn is_busy(code: u16) -> bool {
    let code = ErrorCode::from_code(code);
    matches!(code, Some(ErrorCode::Busy | ErrorCode::Limit | ErrorCode::Rate | ErrorCode::GoingAway))
}

/// Dials over a meeting point, where the settings permit that: the peer's own tunnel, which goes by its id, or a relay.
pub(crate) fn meet(
    node: &Arc<Node>,
    dials: &mut JoinSet<(Remote, Result<Path, PathError>)>,
    hint: RelayHint,
    peer: NodeId,
    delay: Duration,
) {
    if hint.relay == peer {
        if node.policy.permits(PipeKind::Tunnel) {
            dials.spawn(tunnel::reach(node.clone(), hint, delay));
        }
    } else if node.policy.permits(PipeKind::Relay) {
        dials.spawn(relay::reach(node.clone(), hint, peer, delay));
    }
}

/// TCP, TLS and upgrade at one address: what a host that is no node gets to see of a dial.
pub(crate) async fn reach(node: Arc<Node>, address: SocketAddr, delay: Duration) -> (Remote, Result<Path, PathError>) {
    let remote = Remote::Direct(address);
    sleep(delay).await;
    let path = async {
        let deadline = Instant::now() + node.limits.handshake_deadline;
        let ip = address.ip().to_canonical().to_string();
        let tcp = connect(&ip, address.port(), &node.proxy, deadline).await.map_err(PathError::Connect)?;
        let shown = node.credentials.current(node.clock.now());
        let path = Path::dial(tcp.into(), remote, &shown).await?;
        node.counters.tls_pq.add(1);
        Ok(path)
    };
    (remote, path.await)
}
