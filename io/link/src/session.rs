//! The handle of a session: who is at the other end, channels, how it ended. The work is in `pump`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::task::AtomicWaker;
use sealtide_identity::{InviteId, LinkAddress, NodeId, RelayHint};
use sealtide_wire::frame::{ErrorCode, FrameType};
use sealtide_wire::handshake::{CertificateTalk, Pins};
use sealtide_wire::rehandshake::Ratchet;
use sealtide_wire::session::{self as wire, ChannelId, OpenError, PathId};
use tokio::sync::{Notify, watch};
use zeroize::Zeroizing;

use crate::channel::{Channel, ChannelWaiters, Parked};
use crate::clock::Clock;
use crate::pipe::Remote;
use crate::punch::Punched;
use crate::routes::{Arrival, News, Route};
use crate::tls;

/// One authenticated, encrypted session with a peer. Cheap to clone. It outlives its connections: without one it is
/// suspended, for ten minutes at most, and goes on where it was.
#[derive(Clone)]
pub struct Session {
    pub(crate) shared: Arc<Shared>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// In order, by either end, after everything was delivered.
    Closed {
        /// The code of CLOSE, 0 for no special reason.
        code: u16,
    },
    /// At once, by either end.
    Aborted {
        /// See [`ErrorCode`]; 3 is a revocation.
        code: u16,
        /// What the end that aborted said; foreign text, escape it before showing.
        text: String,
    },
    /// No path for too long, or the peer has forgotten the session: what it has not acknowledged may not have arrived.
    Lost {
        /// The greatest sequence number of ours that the peer has acknowledged.
        acked: u64,
    },
    /// The peer came back with a new session: it has lost the state of this one.
    Replaced {
        /// The greatest sequence number of ours that the peer has acknowledged.
        acked: u64,
    },
}

/// A session as status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Who is at the other end.
    pub peer: NodeId,
    /// Whether this node dialled.
    pub initiator: bool,
    /// Where the other end of the path is met, or was met last.
    pub remote: Remote,
    /// `direct`, `relay` or `tunnel`: the path that carries the session; none while it is suspended.
    pub path: Option<&'static str>,
    /// Why the path is not direct; none when it is. Spec: link C.12.
    pub why_not_direct: Option<WhyNotDirect>,
    /// Attempts to meet the peer through translators, since the addresses of either end changed.
    pub punches: u32,
    /// Paths of the session.
    pub paths: usize,
    /// Seconds since the path that carries the session was made.
    pub path_age_s: u64,
    /// Changes of the path that carries the session.
    pub switches: u64,
    /// Cipher suite and key exchange group, `SUITE/GROUP`.
    pub suite: String,
    /// Round-trip time in ms; none before the first answer to a PING.
    pub rtt_ms: Option<u32>,
    /// Seconds since the handshake.
    pub age_s: u64,
    /// Bytes of link frames received.
    pub bytes_in: u64,
    /// Bytes of link frames sent.
    pub bytes_out: u64,
    /// Bytes sent and kept, because the peer has not acknowledged them yet.
    pub unacked_bytes: usize,
    /// Open channels of both sides.
    pub channels: usize,
}

/// Why a session has no direct path. Spec: link C.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhyNotDirect {
    /// One is being made, or will be soon.
    Trying,
    /// The settings forbid it.
    Policy,
    /// No address of the peer is known.
    NoAddress,
    /// Nothing answers at its addresses.
    Unreachable,
    /// Both ends are behind translators that do not let a connection through.
    Nat,
    /// What answers shows a certificate that is not the peer's.
    Pin,
    /// The peer does not want one.
    Refused,
    /// Something between the nodes opens the connections.
    Inspected,
}

impl WhyNotDirect {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Trying,
        Self::Policy,
        Self::NoAddress,
        Self::Unreachable,
        Self::Nat,
        Self::Pin,
        Self::Refused,
        Self::Inspected,
    ];

    /// The word that status shows.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Policy => "policy",
            Self::NoAddress => "no_address",
            Self::Unreachable => "unreachable",
            Self::Nat => "nat",
            Self::Pin => "pin",
            Self::Refused => "refused",
            Self::Inspected => "inspected",
        }
    }
}

/// The session is over, or takes no more channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelOpenError {
    /// The session is closing or over.
    #[error("the session is over")]
    Over,
    /// The name has 1 to 255 bytes, the class is 0 to 7.
    #[error("a channel has a name of 1 to 255 bytes and a class of 0 to 7")]
    BadName,
    /// All channels of this side are open.
    #[error("all {0} channels of this side are open")]
    TooMany(usize),
}

/// What the handles and the task of a session share.
pub(crate) struct Shared {
    pub(crate) facts: Facts,
    pub(crate) clock: Clock,
    /// Wakes the task after a handle changed something.
    pub(crate) pump: AtomicWaker,
    /// Wakes who looks after the paths.
    pub(crate) keeper: Notify,
    pub(crate) opened: Notify,
    pub(crate) end: watch::Sender<Option<SessionEnd>>,
    core: Mutex<Core>,
}

/// What the full handshake found out; never changes.
pub(crate) struct Facts {
    pub(crate) session_id: [u8; 16],
    pub(crate) peer: NodeId,
    pub(crate) initiator: bool,
    pub(crate) binding: Zeroizing<[u8; 32]>,
    pub(crate) invite: Option<InviteId>,
    pub(crate) observed: Option<LinkAddress>,
    pub(crate) certificates: CertificateTalk,
}

/// What the one mutex guards. It is held for moments only, never over a wait.
pub(crate) struct Core {
    pub(crate) peer: NodeId,
    pub(crate) session: wire::Session,
    /// Bytes released since the task counted.
    pub(crate) uncounted: u64,
    pub(crate) ratchet: Ratchet,
    pub(crate) pins: Pins,
    /// The attached paths.
    pub(crate) paths: BTreeMap<PathId, Route>,
    /// Attached paths that the task has not taken yet.
    pub(crate) arrivals: Vec<Arrival>,
    /// Paths that the session has left for good and the task has still to end.
    pub(crate) leaving: Vec<PathId>,
    /// How often the session went on by a full handshake.
    pub(crate) resumed: u32,
    pub(crate) suspended_ms: Option<u64>,
    /// Where the last path led, and its cipher suite.
    pub(crate) last_remote: Remote,
    pub(crate) last_suite: &'static str,
    /// Where this end reached the peer last.
    pub(crate) dialled: Option<std::net::SocketAddr>,
    /// Where the peer can be dialled, best first.
    pub(crate) addresses: Vec<LinkAddress>,
    pub(crate) relays: Vec<RelayHint>,
    /// Changes of addresses since the last dial.
    pub(crate) news: News,
    /// The own certificate of the greatest number that the peer was told of.
    pub(crate) announced: u32,
    /// Attempts to meet through translators since the addresses changed, and when the last one began.
    pub(crate) punched: Punched,
    /// What came of the last dial for a direct path.
    pub(crate) why_not_direct: Option<WhyNotDirect>,
    pub(crate) waiters: BTreeMap<ChannelId, Arc<ChannelWaiters>>,
    /// Channels that the peer opened and nobody has accepted yet; at most as many as a side may open.
    pub(crate) incoming: VecDeque<Incoming>,
    /// Channels that were finished and let go: what still comes is dropped.
    pub(crate) orphans: BTreeSet<ChannelId>,
    /// Messages of channels that were full when they came, one each.
    pub(crate) parked: BTreeMap<ChannelId, Parked>,
    /// Replaced by a newer session: reported instead of what the wire says.
    pub(crate) replaced: bool,
    /// The task is to have a fault.
    #[cfg(test)]
    pub(crate) breaks: bool,
}

/// What the state of a session is made from.
pub(crate) struct Start {
    pub(crate) session: wire::Session,
    pub(crate) ratchet: Ratchet,
    pub(crate) pins: Pins,
    pub(crate) addresses: Vec<LinkAddress>,
    pub(crate) relays: Vec<RelayHint>,
    pub(crate) announced: u32,
    pub(crate) remote: Remote,
    pub(crate) suite: &'static str,
}

/// A channel that the peer opened. No handle yet: a handle holds the session.
pub(crate) struct Incoming {
    pub(crate) id: ChannelId,
    pub(crate) class: u8,
    pub(crate) name: String,
    pub(crate) waiters: Arc<ChannelWaiters>,
}

impl Session {
    pub(crate) fn new(facts: Facts, clock: Clock, start: Start) -> Self {
        let Start { session, ratchet, pins, addresses, relays, announced, remote, suite } = start;
        let core = Core {
            peer: facts.peer,
            session,
            uncounted: 0,
            ratchet,
            pins,
            paths: BTreeMap::new(),
            arrivals: Vec::new(),
            leaving: Vec::new(),
            resumed: 0,
            suspended_ms: None,
            last_remote: remote,
            last_suite: suite,
            dialled: None,
            addresses,
            relays,
            news: News::default(),
            announced,
            punched: Punched::default(),
            why_not_direct: None,
            waiters: BTreeMap::new(),
            incoming: VecDeque::new(),
            orphans: BTreeSet::new(),
            parked: BTreeMap::new(),
            replaced: false,
            #[cfg(test)]
            breaks: false,
        };
        let shared = Shared {
            facts,
            clock,
            pump: AtomicWaker::new(),
            keeper: Notify::new(),
            opened: Notify::new(),
            end: watch::Sender::new(None),
            core: Mutex::new(core),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who is at the other end, proven by its node key.
    pub fn peer(&self) -> NodeId {
        self.shared.facts.peer
    }

    /// Whether this node dialled.
    pub fn is_initiator(&self) -> bool {
        self.shared.facts.initiator
    }

    /// The session binding `sb`: equal at both ends, different in every session. Spec: link C.4.5.
    pub fn binding(&self) -> [u8; 32] {
        *self.shared.facts.binding
    }

    /// The invite that was proved in this handshake, at both ends.
    pub fn invite_used(&self) -> Option<InviteId> {
        self.shared.facts.invite
    }

    /// Where the other end of the path is met, or was met last.
    pub fn remote(&self) -> Remote {
        let core = self.shared.core();
        core.active_route().map_or(core.last_remote, |(_, route)| route.remote)
    }

    /// Where the peer says it sees this node; a claim.
    pub fn observed(&self) -> Option<LinkAddress> {
        self.shared.facts.observed
    }

    /// Where the peer can be dialled later, best first, at most 8. Spec: link C.10.
    pub fn peer_addresses(&self) -> Vec<LinkAddress> {
        self.shared.core().addresses.clone()
    }

    /// The relays that the peer is logged in at.
    pub fn peer_relays(&self) -> Vec<RelayHint> {
        self.shared.core().relays.clone()
    }

    /// The session as status shows it.
    pub fn info(&self) -> SessionInfo {
        let core = self.shared.core();
        let stats = core.session.stats();
        let facts = &self.shared.facts;
        let active = core.active_route().map(|(_, route)| route.clone());
        let remote = active.as_ref().map_or(core.last_remote, |route| route.remote);
        let suite = active.as_ref().map_or(core.last_suite, |route| route.suite);
        let is_direct = active.as_ref().is_some_and(|route| route.remote.direct().is_some());
        let now = self.shared.clock.now();
        SessionInfo {
            peer: facts.peer,
            initiator: facts.initiator,
            remote,
            path: active.as_ref().map(|route| route.remote.path_name()),
            why_not_direct: (!is_direct).then(|| core.why_not_direct.unwrap_or(WhyNotDirect::Trying)),
            punches: core.punched.attempts(),
            paths: core.paths.len(),
            path_age_s: active.map_or(0, |route| now.mono_ms.saturating_sub(route.since_ms) / 1000),
            switches: stats.switches,
            suite: format!("{suite}/{}", tls::GROUP_NAME),
            rtt_ms: stats.rtt_ms,
            age_s: stats.age_ms / 1000,
            bytes_in: stats.bytes_received,
            bytes_out: stats.bytes_sent,
            unacked_bytes: stats.unacked_bytes,
            channels: stats.channels,
        }
    }

    /// Whether the session has no path at the moment. It goes on when one is made.
    pub fn is_suspended(&self) -> bool {
        self.shared.core().is_suspended()
    }

    /// Opens a channel; messages can be sent at once. `class` is 0 (control) to 7 (bulk), `name` 1 to 255 bytes.
    ///
    /// # Errors
    /// [`ChannelOpenError`].
    pub fn open(&self, class: u8, name: &str) -> Result<Channel, ChannelOpenError> {
        let mut core = self.shared.core();
        let id = core.session.open(class, name).map_err(|error| match error {
            OpenError::BadName => ChannelOpenError::BadName,
            OpenError::TooMany(count) => ChannelOpenError::TooMany(count),
            _ => ChannelOpenError::Over,
        })?;
        let waiters = Arc::new(ChannelWaiters::default());
        core.waiters.insert(id, waiters.clone());
        drop(core);
        self.shared.pump.wake();
        Ok(Channel::new(self.shared.clone(), waiters, id, class, name))
    }

    /// The next channel that the peer opened; `None` when the session is over and all of them were given.
    pub async fn accept_channel(&self) -> Option<Channel> {
        loop {
            let opened = self.shared.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            let next = self.shared.core().incoming.pop_front();
            if let Some(Incoming { id, class, name, waiters }) = next {
                return Some(Channel::new(self.shared.clone(), waiters, id, class, &name));
            }
            if self.shared.end.borrow().is_some() {
                return None;
            }
            opened.await;
        }
    }

    /// Waits for the end of the session and says what it was.
    pub async fn closed(&self) -> SessionEnd {
        let mut end = self.shared.end.subscribe();
        let found = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        found.expect("the sender lives as long as this handle, and the wait is for a value")
    }

    /// How the session ended, if it has.
    pub fn end(&self) -> Option<SessionEnd> {
        self.shared.end.borrow().clone()
    }

    /// Ends the session in order: everything queued is delivered first.
    pub fn close(&self) {
        let now = self.shared.clock.now();
        self.shared.core().session.close(now, 0);
        self.shared.pump.wake();
    }

    /// Ends the session at once; the peer is told `code`.
    pub fn abort(&self, code: ErrorCode) {
        self.shared.core().session.abort(code, "");
        self.shared.pump.wake();
    }

    /// Whether the session is wanted while no channel is open; without, it closes itself after 5 min. Spec: link C.6.
    pub fn standing_interest(&self, interest: bool) {
        self.shared.core().session.standing_interest(interest);
        self.shared.pump.wake();
    }

    /// Ends a session that cannot end in order: the peer has forgotten it, or refuses this node.
    pub(crate) fn give_up(&self) {
        self.shared.core().session.lost();
        self.shared.pump.wake();
    }

    /// The id of the session, as a re-handshake names it.
    pub(crate) fn id(&self) -> [u8; 16] {
        self.shared.facts.session_id
    }

    /// Tells the peer of a certificate of this node, once each. `make` signs.
    pub(crate) fn announce(&self, epoch: u32, make: impl FnOnce(&CertificateTalk) -> Vec<u8>) {
        let due = |core: &Core| core.announced < epoch;
        if !due(&self.shared.core()) {
            return;
        }
        let payload = make(&self.shared.facts.certificates);
        let mut core = self.shared.core();
        if due(&core) && core.session.send_control(FrameType::CertUpdate, payload.into()).is_ok() {
            core.announced = epoch;
        }
        drop(core);
        self.shared.pump.wake();
    }

    /// Whether the peer has acknowledged the certificate with this number, or never will.
    pub(crate) fn knows_certificate(&self, epoch: u32) -> bool {
        let core = self.shared.core();
        let told = core.announced >= epoch && !core.session.has_unacknowledged(FrameType::CertUpdate);
        told || core.session.state() == wire::SessionState::Closed
    }

    /// Tells the peer where this node is now.
    pub(crate) fn tell_addresses(&self, payload: Vec<u8>) {
        // Of many that wait the newest is kept, so the queue has a place for it, or the session is over.
        let _ = self.shared.core().session.send_control(FrameType::AddrUpdate, payload.into());
        self.shared.pump.wake();
    }

    /// A newer session of the same peer took over.
    pub(crate) fn replace(&self) {
        let mut core = self.shared.core();
        core.replaced = true;
        core.session.lost();
        drop(core);
        self.shared.pump.wake();
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("peer", &self.shared.facts.peer).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
