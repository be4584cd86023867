//! The link of one node: its doors, its dials and its sessions.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use sealtide_crypto::SigningKey;
use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};
use sealtide_wire::frame::ErrorCode;
use sealtide_wire::handshake::{Admission, Terms};
use sealtide_wire::padding::{CELL_DATA_BYTES, Padding};
use sealtide_wire::session::{PathPolicy, SessionLimits};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};

use crate::attach;
use crate::certificate::CertificateError;
use crate::clock::Clock;
use crate::dial::{self, DialError, DialTarget};
use crate::limits::{Gate, Limits};
use crate::listen::{self, ListenError};
use crate::metrics::{Counters, LinkMetrics};
use crate::node::Node;
use crate::probe::{self, Probe};
use crate::proof::Workers;
use crate::proxy::ProxySettings;
use crate::punch::Punches;
use crate::quiet_log::QuietLog;
use crate::registry::{Registry, Reservation};
use crate::relay::{self, Accounts, RelayCheck, RelayState};
use crate::roots::Roots;
use crate::rotation::Ages;
use crate::session::{Session, SessionInfo};
use crate::tls::LiveCredentials;
use crate::tunnel;

/// Everything a link is made from. Nothing of it touches a disk.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The node key.
    pub key: Arc<SigningKey>,
    /// The id of that key.
    pub id: NodeId,
    /// What strangers may cost.
    pub limits: Limits,
    /// Whether the limits per source hold for loopback sources too: for public doors behind a proxy, and for tests.
    pub limits_loopback: bool,
    /// Whether logs show whole addresses.
    pub log_addresses: bool,
    /// Where this node is reached from outside, when that is not where it listens: behind a forwarded port or a proxy.
    /// Told to peers instead of the addresses of the listeners; empty where those are right.
    pub announce: Vec<SocketAddr>,
    /// Through which proxy this node dials.
    pub proxy: ProxySettings,
    /// What this node offers in handshakes.
    pub terms: Terms,
    /// Limits and times of each session.
    pub session: SessionLimits,
    /// Which paths are used.
    pub policy: PathPolicy,
    /// `wss://…` under which this node's gateway door is reached from outside: told to peers, who come through it when
    /// nothing else leads here.
    pub tunnel: Option<String>,
    /// What is added to what leaves, so that sizes tell little.
    pub padding: Padding,
    /// When paths and certificates are renewed.
    pub ages: Ages,
    /// Who vouches for proxies that end the TLS in front of relays; without it no relay is reached by bind 0.
    pub relay_roots: Option<Roots>,
}

impl LinkConfig {
    /// The defaults of link C.12 for the node `id`, which is that of `key`.
    pub fn new(key: Arc<SigningKey>, id: NodeId) -> Self {
        Self {
            key,
            id,
            limits: Limits::default(),
            limits_loopback: false,
            log_addresses: false,
            announce: Vec::new(),
            proxy: ProxySettings::default(),
            terms: Terms::default(),
            session: SessionLimits::default(),
            policy: PathPolicy::default(),
            tunnel: None,
            padding: Padding::default(),
            ages: Ages::default(),
            relay_roots: None,
        }
    }
}

/// The link of one node. Cheap to clone; lives until [`Link::shutdown`].
#[derive(Clone)]
pub struct Link {
    node: Arc<Node>,
    accepted: Arc<tokio::sync::Mutex<mpsc::Receiver<Session>>>,
}

impl Link {
    /// Makes a link with its first certificate; opens nothing yet. `admission` decides about peers, at once and
    /// durably; it is asked on threads for blocking work.
    ///
    /// # Errors
    /// [`CertificateError`].
    ///
    /// # Panics
    /// When `config.id` is not the id of `config.key`.
    pub fn new(config: LinkConfig, admission: Arc<dyn Admission + Send + Sync>) -> Result<Self, CertificateError> {
        let clock = Clock::start();
        let id = config.id;
        assert_eq!(id, NodeId::of(config.key.public()), "a node id is that of its key");
        let (accepted, queue) = mpsc::channel(config.limits.sessions.max(1));
        let node = Node {
            key: config.key,
            id,
            limits: config.limits,
            limits_loopback: config.limits_loopback,
            terms: config.terms,
            session_limits: session_limits(config.session, config.padding),
            admission,
            credentials: LiveCredentials::make(clock.now(), config.ages)?,
            clock,
            gate: Gate::new(config.limits),
            workers: Workers::new(&config.limits),
            registry: Registry::new(id, config.limits.sessions),
            counters: Counters::default(),
            log: QuietLog::new(config.log_addresses),
            accepted,
            stop: watch::Sender::new(false),
            listeners: Mutex::default(),
            announce: config.announce,
            proxy: config.proxy,
            relays: Accounts::default(),
            relay_roots: config.relay_roots,
            punches: Punches::default(),
            policy: config.policy,
            tunnel: config.tunnel,
            padding: config.padding,
            ages: config.ages,
            tended: AtomicBool::new(false),
        };
        Ok(Self { node: Arc::new(node), accepted: Arc::new(tokio::sync::Mutex::new(queue)) })
    }

    /// When the certificate that handshakes show ends, in seconds since 1970. The next one takes its place hours before.
    /// Spec: link C.7.
    pub fn certificate_ends_s(&self) -> u64 {
        self.node.credentials.current(self.node.clock.now()).certificate.not_after_s()
    }

    /// The id of this node.
    pub fn id(&self) -> NodeId {
        self.node.id
    }

    /// Opens a door at `address`, port 0 for a free one, `[::]` for both families; gives the address it got.
    ///
    /// # Errors
    /// [`ListenError`].
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        if *self.node.stop.borrow() {
            return Err(ListenError::Closed);
        }
        let (listener, bound) = listen::bind(address)?;
        self.node.listeners().push(bound);
        self.node.tend();
        self.node.tell_addresses();
        tokio::spawn(listen::serve(self.node.clone(), listener));
        Ok(bound)
    }

    /// Connects to a peer, or gives the session that stands already. One round over its addresses; when to dial
    /// again is the caller's, see [`crate::Backoff`].
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn dial(&self, target: DialTarget) -> Result<Session, DialError> {
        dial::dial(&self.node, target).await
    }

    /// Looks how far a dial to `host` (a name, or an address without brackets) and `port` gets, through the proxy that
    /// applies. Nothing is proved: the other end sees a dial that ends at the upgrade.
    pub async fn probe(&self, host: &str, port: u16) -> Probe {
        probe::probe(&self.node, host, port).await
    }

    /// Through which proxy this node dials.
    pub fn proxy(&self) -> &ProxySettings {
        &self.node.proxy
    }

    /// Logs in at a relay and stays so; peers that name it are reached over it, and reach this node.
    pub fn use_relay(&self, relay: &RelayHint, token: Option<InviteSecret>) {
        self.node.relays.stay(&self.node, relay, false, token);
    }

    /// The same for a relay whose TLS ends in a proxy (bind 0): its address says so, or a ticket. Never tried where that is
    /// not said. Spec: link C.4.1.
    pub fn use_relay_behind_proxy(&self, relay: &RelayHint, token: Option<InviteSecret>) {
        self.node.relays.stay(&self.node, relay, true, token);
    }

    /// Logs in at a relay once and hangs up, to see whether that is possible. Where this node keeps a login there, that one is
    /// looked at instead: a second would end it. The failure is told in words.
    ///
    /// # Errors
    /// Why there is no login.
    pub async fn check_relay(
        &self,
        relay: &RelayHint,
        bind0: bool,
        token: Option<InviteSecret>,
    ) -> Result<RelayCheck, String> {
        relay::check(&self.node, relay, bind0, token).await
    }

    /// Over what peers reach this node without its address, as tickets tell it: its tunnel, then its relays, whether they
    /// are logged in at or not, then those of others over which it is met now.
    pub fn meeting_points(&self) -> Vec<RelayHint> {
        let tunnel = self.node.tunnel.iter().map(|url| RelayHint { relay: self.node.id, url: url.clone() });
        tunnel.chain(self.node.relays.meeting_points()).collect()
    }

    /// The relays where this node is logged in because peers named them, for as long as they are used or [held](Self::hold_relays).
    pub fn borrowed_relays(&self) -> Vec<RelayHint> {
        self.node.relays.borrowed()
    }

    /// Stays logged in at these relays until it is called again without them: others were told to come there. Half as many are held as
    /// can be borrowed, the first ones. Spec: link C.5.
    pub fn hold_relays(&self, relays: &[RelayHint]) {
        self.node.relays.hold(&self.node, relays);
    }

    /// Takes a stream that a gateway door has upgraded at [`crate::TUNNEL_PATH`] for whoever stands at `client`.
    pub fn accept_tunnel(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, client: SocketAddr) {
        self.node.tend();
        tunnel::answer(&self.node, stream, client);
    }

    /// Whom the relays are to let in for this node, in seconds from each login on; the id of zeros stands for guests,
    /// and whoever comes over a relay is then heard. Replaces what was said before. Spec: link C.5.
    pub fn relay_allows(&self, allows: std::collections::BTreeMap<NodeId, u32>) {
        self.node.relays.set_allows(allows);
    }

    /// The logins at relays as status shows them.
    pub fn relays(&self) -> Vec<RelayState> {
        self.node.relays.states()
    }

    /// The next session that a peer opened; `None` after [`Link::shutdown`].
    pub async fn accept(&self) -> Option<Session> {
        let mut queue = self.accepted.lock().await;
        tokio::select! {
            biased;
            () = self.node.stopped() => None,
            session = queue.recv() => session,
        }
    }

    /// The session with `peer`, if one stands.
    pub fn session(&self, peer: &NodeId) -> Option<Session> {
        self.node.registry.session(peer)
    }

    /// Makes one more path of `session` now, as is done by itself for one that grows old.
    ///
    /// # Errors
    /// Why there is none, in a word as status shows it.
    pub async fn further_path(&self, session: &Session) -> Result<(), &'static str> {
        attach::dial(&self.node, session, true).await.map_err(|failure| failure.why().word())
    }

    /// Keeps the next session with `peer` for a dial of this node, as long as the reservation lives. A dial that meets
    /// one of the peer's then ends with [`DialError::Busy`], and the next one goes through.
    pub fn reserve(&self, peer: &NodeId) -> Reservation {
        self.node.registry.reserve(peer)
    }

    /// Every session as status shows it.
    pub fn sessions(&self) -> Vec<SessionInfo> {
        self.node.registry.sessions().iter().map(Session::info).collect()
    }

    /// Ends everything with `peer` at once. The admission must refuse it already, or it comes back. Spec: link C.6.
    pub fn revoke(&self, peer: &NodeId) {
        self.node.registry.stop_handshakes(peer);
        if let Some(session) = self.node.registry.session(peer) {
            session.abort(ErrorCode::Refused);
        }
    }

    /// Where the doors of this node are, as peers and tickets are told, at most 8. Spec: link C.10.
    pub fn announce(&self) -> Vec<LinkAddress> {
        self.node.announce()
    }

    /// The counters.
    pub fn metrics(&self) -> LinkMetrics {
        self.node.counters.read()
    }

    /// Closes the doors, ends the sessions in order and waits for them.
    pub async fn shutdown(&self) {
        self.node.stop.send_replace(true);
        self.node.listeners().clear();
        let sessions = self.node.registry.close();
        for session in &sessions {
            // Who cannot be told is not waited for.
            if session.is_suspended() { session.give_up() } else { session.close() }
        }
        for session in &sessions {
            session.closed().await;
        }
    }
}

/// At a constant rate each frame fits into a cell.
fn session_limits(mut limits: SessionLimits, padding: Padding) -> SessionLimits {
    if matches!(padding, Padding::Constant(_)) {
        limits.data_payload_bytes = limits.data_payload_bytes.min(CELL_DATA_BYTES);
    }
    limits
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("id", &self.node.id).finish_non_exhaustive()
    }
}
