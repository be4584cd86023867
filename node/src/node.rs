//! The node: one home, its store, its engine, its doors and its folders.

mod contents;
mod devices;
mod door;
mod peers;
mod program;
mod ready;
mod registry;
mod relays;
mod spaces;
#[cfg(test)]
mod tests;
mod whereabouts;

pub use program::Document;
pub(crate) use relays::BEHIND_PROXIES;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sealtide_gateway::{Behind, KeyChange, Notice, Server, SettingsError, TunnelStream, Tunnels};
use sealtide_ibgib::{Stamp, TimelineId};
use sealtide_identity::{LinkAddress, NodeId, Role, SpaceId};
use sealtide_link::{Backoff, DialError, DialTarget, Link, LinkConfig, Session};
use sealtide_store::Store;
use sealtide_sync::SpaceView;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use zeroize::Zeroizing;

use crate::audit::{Audit, AuditEvent};
use crate::commands::target::DOC_IB;
use crate::config::Config;
use crate::console::{HostConsole, NodeApp, Recent};
use crate::control::Host;
use crate::engine::{Engine, Event};
use crate::failure::{Exit, Failure};
use crate::gateway::{CODE_MS, Desk, Prove, Replacement, SignInCodes, replace_lost};
use crate::home::{Home, Identity};
use crate::identity::{Identities, Parts, machine_marker};
use crate::known::Known;
use crate::real::{RealWorld, now};
use crate::seal::SecretFile;
use crate::share::Share;
use crate::world::OsEntropy;

use door::Door;

/// Notices that wait for the door.
const NOTICES: usize = 64;

/// How often a dial under way is told to give way.
const GIVE_WAY_AGAIN: Duration = Duration::from_millis(20);

/// A node in this process. Cheap to clone.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    home: Home,
    identity: Identity,
    config: Config,
    store: Store,
    engine: Engine<RealWorld>,
    link: Link,
    door: Arc<Door>,
    /// Held while it is worked out whom relays let in and they are told, so that what is newer is told last.
    relays_told: Mutex<()>,
    audit: Arc<Audit>,
    identities: Identities,
    doors: Mutex<Doors>,
    /// Keys and registry of this home, once somebody asked for them.
    desk: OnceLock<Arc<Desk>>,
    /// Held while they are opened.
    opening: Mutex<()>,
    /// What keys and registry tell the door.
    notices: broadcast::Sender<Notice>,
    /// Codes with which browsers sign in.
    codes: Mutex<SignInCodes>,
    recent: Recent,
    /// The registry that several nodes have, where this home shares or follows one.
    registry: registry::RegistrySlot,
    /// Read while contents of releases are unpacked or copied, written while some are given up.
    contents: RwLock<()>,
    /// Held while a peer is asked for contents.
    fetching: tokio::sync::Mutex<()>,
    /// Held while a release is made: its number is one more than that of the one before.
    publishing: tokio::sync::Mutex<()>,
    installing: contents::Installing,
    /// Held while a document is put: its version is made on the one before.
    putting: tokio::sync::Mutex<()>,
    shares: Mutex<BTreeMap<SpaceId, Share>>,
    document_conflicts: Mutex<DocumentConflicts>,
    /// Held by whatever does the work of a command on the disk.
    at_work: Arc<()>,
    /// Folders that could not be opened, and why.
    unopened: Mutex<BTreeMap<SpaceId, String>>,
    /// Held while it is looked whether a space is here, and it is begun.
    beginning: Mutex<()>,
    /// Held while it is looked whether a directory may be that of a space, and noted as that.
    keeping: Mutex<()>,
    /// Peers that a dialling task looks after.
    dialled: Mutex<BTreeMap<NodeId, Arc<Dialling>>>,
    /// Peers whose session came as far as sagas.
    met: Mutex<BTreeSet<NodeId>>,
    /// The binding of the newest session with each peer.
    welcomed: Mutex<BTreeMap<NodeId, [u8; 32]>>,
    why_not: Mutex<BTreeMap<NodeId, String>>,
    /// Held while the row of a peer is read and written.
    peers: Mutex<()>,
    stop: watch::Sender<bool>,
    started_ms: u64,
}

/// What was found in the documents of each space.
pub(crate) type DocumentConflicts = BTreeMap<SpaceId, DocumentLook>;

/// A look through the documents of a space.
pub(crate) struct DocumentLook {
    /// When the space was made, and how many records it had.
    pub(crate) state: (u64, u64),
    pub(crate) found: Arc<[serde_json::Value]>,
    pub(crate) at: Instant,
    pub(crate) took: Duration,
}

#[derive(Default)]
struct Doors {
    listen: Vec<SocketAddr>,
    gateway: Option<Server>,
    serving: bool,
    /// Whether all that this process opens is open.
    open: bool,
}

/// What comes through the tunnel of the gateway door belongs to the link.
struct LinkTunnels(Link);

impl Tunnels for LinkTunnels {
    fn open(&self, stream: TunnelStream, client: SocketAddr) {
        self.0.accept_tunnel(stream, client);
    }
}

/// The task that keeps a session with one peer.
#[derive(Default)]
struct Dialling {
    /// Dial now.
    wake: Notify,
    /// A dial under way ends.
    give_way: Notify,
    /// Held while the task dials, or while somebody keeps it from that.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Node {
    /// Opens the store of a home. No door opens and nothing is dialled yet.
    ///
    /// # Errors
    /// As [`Home::identity`] and [`Home::open_store`].
    pub fn open(home: Home, config: Config) -> Result<Self, Failure> {
        let identity = home.identity()?;
        let store = home.open_store()?;
        let identities = open_identities(&home, identity.clone(), store.clone())?;
        if let Some(doubt) = identities.doubt() {
            tracing::warn!(%doubt, "nothing is signed until a peer tells what it holds");
        }
        let keystones = Arc::new(identities.clone());
        let engine = Engine::with_keystones(RealWorld, store.clone(), identity.id, keystones);
        engine.set_quotas(config.quotas());
        let mut link_config = LinkConfig::new(identity.key.clone(), identity.id);
        link_config.announce = config.addresses("link", "announce");
        link_config.policy = config.path_policy();
        link_config.padding = config.padding();
        link_config.tunnel = config.tunnel().map(|(url, _)| url);
        link_config.proxy = crate::proxy::settings(&config);
        link_config.relay_roots = config.relay_authorities()?;
        let door = Arc::new(Door { known: Known::of(&store), engine: engine.clone(), enrolled: Notify::new() });
        let link = Link::new(link_config, door.clone()).map_err(|error| Failure::failed("link", error.to_string()))?;
        let audit = Arc::new(Audit::open(&home, store.clone(), identity.clone())?);
        let (stop, _) = watch::channel(false);
        let inner = Inner {
            home,
            identity,
            config,
            store,
            engine,
            link,
            door,
            relays_told: Mutex::default(),
            audit,
            identities,
            doors: Mutex::default(),
            desk: OnceLock::new(),
            opening: Mutex::default(),
            notices: broadcast::Sender::new(NOTICES),
            codes: Mutex::default(),
            recent: Recent::default(),
            registry: registry::RegistrySlot::default(),
            contents: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
            publishing: tokio::sync::Mutex::default(),
            installing: contents::Installing::default(),
            putting: tokio::sync::Mutex::default(),
            shares: Mutex::default(),
            document_conflicts: Mutex::default(),
            at_work: Arc::default(),
            unopened: Mutex::default(),
            beginning: Mutex::default(),
            keeping: Mutex::default(),
            dialled: Mutex::default(),
            met: Mutex::default(),
            welcomed: Mutex::default(),
            why_not: Mutex::default(),
            peers: Mutex::default(),
            stop,
            started_ms: now().wall_ms,
        };
        let node = Self(Arc::new(inner));
        node.forget_unfinished();
        let kept: Vec<SpaceId> = node.shared_dirs().into_iter().map(|(space, _)| space).collect();
        node.home().rename_folder_states(&kept);
        Ok(node)
    }

    /// The home.
    pub fn home(&self) -> &Home {
        &self.0.home
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The own id.
    pub fn id(&self) -> NodeId {
        self.0.identity.id
    }

    /// The store: to read. Changes go through [`Engine::commit_local`], which signs them and tells peers and folders.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What this node knows for itself.
    pub fn known(&self) -> Known {
        Known::of(self.store())
    }

    /// Keystones of this node and of those it met.
    pub fn identities(&self) -> &Identities {
        &self.0.identities
    }

    /// Who this node is, or whom it speaks for, changed: what rests on it is looked at again at once.
    pub(crate) fn identities_changed(&self) {
        self.identities().enforce();
        // Whoever is left hears the news in the HELLO of the next session.
        for (peer, _) in self.engine().peers() {
            self.engine().close(&peer);
        }
    }

    /// A person says that this home may sign although its store may be an old one (`--offline-sign`). Audited.
    ///
    /// # Errors
    /// When the key file cannot be written.
    pub fn offline_sign(&self) -> Result<(), Failure> {
        let Some(doubt) = self.identities().doubt() else { return Ok(()) };
        let settled = marker(self.home()).map(|marker| self.identities().settle_doubt(marker))?;
        settled.map_err(|error| Failure::failed("identity", error.to_string()))?;
        self.audit().note("offline_sign", &[("doubt", doubt.code())]);
        Ok(())
    }

    /// The spaces that people see: all but those of the audit, of the identities and of apps.
    pub fn spaces(&self) -> Vec<SpaceId> {
        let mut labels = self.known().labels();
        labels.retain(|(space, label)| !spaces::is_hidden(label) && self.store().view(space).is_some());
        labels.sort_by(|(_, left), (_, right)| left.name.cmp(&right.name));
        labels.into_iter().map(|(space, _)| space).collect()
    }

    /// Whether a space is here.
    pub fn has_space(&self, space: &SpaceId) -> bool {
        self.store().view(space).is_some()
    }

    /// What a space is called here; its id when it has no name.
    pub fn label(&self, space: &SpaceId) -> String {
        self.known().label(space).map_or_else(|| space.to_string(), |label| label.name)
    }

    /// The engine.
    pub fn engine(&self) -> &Engine<RealWorld> {
        &self.0.engine
    }

    /// The link.
    pub fn link(&self) -> &Link {
        &self.0.link
    }

    /// The audit lines.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// The audit, to be kept.
    pub(crate) fn shared_audit(&self) -> &Arc<Audit> {
        &self.0.audit
    }

    /// What happened of late.
    pub(crate) fn recent(&self) -> &Recent {
        &self.0.recent
    }

    /// When this process opened the node, ms since 1970.
    pub fn started_ms(&self) -> u64 {
        self.0.started_ms
    }

    // --- doors ---

    /// Opens the link door and serves whoever comes. Port 0 takes the port of the last time, or a free one.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, Failure> {
        let wanted = self.remembered_port(address);
        let mut opened = self.link().listen(wanted).await;
        if opened.is_err() && wanted != address {
            opened = self.link().listen(address).await;
        }
        let bound = opened.map_err(|error| {
            Failure::failed("listen", error.to_string()).hint("choose another port with --listen ADDR:PORT")
        })?;
        let _ = self.known().put_setting(&port_key(address.ip()), Some(&bound.port().to_string()));
        lock(&self.0.doors).listen.push(bound);
        Ok(bound)
    }

    fn remembered_port(&self, address: SocketAddr) -> SocketAddr {
        if address.port() != 0 {
            return address;
        }
        SocketAddr::new(address.ip(), self.last_port(address.ip()).unwrap_or(0))
    }

    /// The port of the last time that this node listened there.
    pub(crate) fn last_port(&self, ip: IpAddr) -> Option<u16> {
        self.known().setting(&port_key(ip)).and_then(|port| port.parse().ok())
    }

    /// Opens the gateway door: the dashboard, health and figures, and keys and registry where this home has them. With the
    /// setting `gateway.app` they are made when there are none, as `gateway run` does in a process of its own.
    ///
    /// # Errors
    /// When the address cannot be listened on, or not without TLS; as [`Desk::open`].
    pub async fn open_gateway(&self, address: SocketAddr) -> Result<SocketAddr, Failure> {
        let probe = Arc::new(crate::commands::status::NodeProbe(self.clone()));
        let failed = |error: sealtide_gateway::GatewayError| Failure::failed("gateway", error.to_string());
        let tunnels = self.config().tunnel();
        let tunnels = tunnels.map(|(_, door)| (door, Arc::new(LinkTunnels(self.link().clone())) as Arc<dyn Tunnels>));
        let is_wanted = self.config().is_on("gateway", "app");
        if is_wanted {
            self.desk(true)?;
        } else if Desk::exists(self.store())
            && let Err(failure) = self.desk(false)
        {
            // A key that is lost must not keep folders from being synced.
            tracing::warn!(%failure, "the door is open without keys and registry");
        }
        let behind = Behind {
            app: Some(Arc::new(NodeApp::new(self.clone())?)),
            console: Some(HostConsole::new(Host::Node(self.clone()))),
            tunnels,
        };
        let settings = self.config().gateway(self.home())?.door;
        let server = Server::open_with(settings, address, probe, behind).await.map_err(failed)?;
        let bound = server.address();
        lock(&self.0.doors).gateway = Some(server);
        Ok(bound)
    }

    /// Keys and registry of this home. Where there are none yet they are made, when `may_begin`.
    ///
    /// # Errors
    /// As [`Desk::open`]; exit 1 when there are none.
    pub fn desk(&self, may_begin: bool) -> Result<Arc<Desk>, Failure> {
        let _alone = lock(&self.0.opening);
        if let Some(desk) = self.0.desk.get() {
            return Ok(desk.clone());
        }
        if !may_begin && !Desk::exists(self.store()) {
            return Err(Failure::failed("no_keys", "there are no signing keys in this home yet")
                .hint("`sealtide gateway run` or `sealtide keys new` makes them"));
        }
        let (store, identity, audit) = (self.store().clone(), self.0.identity.clone(), self.0.audit.clone());
        let settings = self.config().gateway(self.home())?.desk;
        let (desk, told) = Desk::open(self.home(), store, identity, audit, settings)?;
        told.iter().for_each(|line| tracing::warn!("{line}"));
        self.pass_on_notices(&desk);
        self.watch_desk(&desk);
        Ok(self.0.desk.get_or_init(|| desk).clone())
    }

    fn pass_on_notices(&self, desk: &Desk) {
        let (mut told, notices, mut stop) = (desk.subscribe(), self.0.notices.clone(), self.stopping());
        tokio::spawn(async move {
            loop {
                let notice = tokio::select! {
                    notice = told.recv() => notice,
                    _ = stop.wait_for(|stopped| *stopped) => return,
                };
                let _ = match notice {
                    Ok(notice) => notices.send(notice),
                    // What was missed may have been about keys.
                    Err(RecvError::Lagged(_)) => notices.send(Notice::KeysMoved),
                    Err(RecvError::Closed) => return,
                };
            }
        });
    }

    /// What keys and registry tell the door, from now on; they may be opened later.
    pub(crate) fn notices(&self) -> broadcast::Receiver<Notice> {
        self.0.notices.subscribe()
    }

    /// Draws a one-time code for a browser of this machine: the code, the address of the door, and the code's life in
    /// milliseconds. None where no door is open.
    pub(crate) fn sign_in_code(&self) -> Option<(Zeroizing<String>, String, u64)> {
        let url = self.gateway_url()?;
        let code = lock(&self.0.codes).draw(now().mono_ms, &mut OsEntropy);
        self.audit().event(&AuditEvent::normal("access:code_drawn"));
        Some((code, url, CODE_MS))
    }

    /// Takes such a code: true once for each.
    pub(crate) fn take_sign_in_code(&self, code: &str) -> bool {
        lock(&self.0.codes).take(code, now().mono_ms)
    }

    /// Replaces the signing key, whether or not its secret is still here.
    ///
    /// # Errors
    /// As the keys report, and what `prove` refuses.
    pub(crate) fn replace_key(&self, order: &Replacement, prove: Prove<'_>) -> Result<KeyChange, Failure> {
        let _alone = lock(&self.0.opening);
        if let Some(desk) = self.0.desk.get() {
            return desk.clone().replace(order, prove);
        }
        let grace_ms = self.config().gateway(self.home())?.desk.policy.grace_ms;
        replace_lost(self.home(), self.store(), &self.0.identity, grace_ms, order, prove)
    }

    /// One document at a time.
    pub(crate) fn putting(&self) -> &tokio::sync::Mutex<()> {
        &self.0.putting
    }

    /// One release at a time.
    pub(crate) fn publishing(&self) -> &tokio::sync::Mutex<()> {
        &self.0.publishing
    }

    /// Keys and registry, when they are open.
    pub fn open_desk(&self) -> Option<Arc<Desk>> {
        self.0.desk.get().cloned()
    }

    /// As [`Node::open_desk`], not cloned.
    pub(crate) fn desk_if_open(&self) -> Option<&Arc<Desk>> {
        self.0.desk.get()
    }

    /// Where the link door listens.
    pub fn listening(&self) -> Vec<SocketAddr> {
        lock(&self.0.doors).listen.clone()
    }

    /// The base of the addresses of the gateway door.
    pub fn gateway_url(&self) -> Option<String> {
        lock(&self.0.doors).gateway.as_ref().map(Server::url)
    }

    /// Gives the gateway door other settings.
    pub(crate) fn reload_gateway(&self, settings: sealtide_gateway::Settings) -> Result<(), SettingsError> {
        lock(&self.0.doors).gateway.as_ref().map_or(Ok(()), |server| server.reload(settings))
    }

    /// Where the gateway door listens.
    pub fn gateway(&self) -> Option<SocketAddr> {
        lock(&self.0.doors).gateway.as_ref().map(Server::address)
    }

    /// Begins to serve: takes sessions in, dials known peers, opens the folders. Does nothing the second time. What it begins goes on
    /// in tasks and threads that hold the node, until [`Node::shutdown`]: that ends them in order, and is for the owner to call before
    /// the runtime ends.
    ///
    /// # Errors
    /// When a shared folder cannot be opened it is listed as failed; the node serves the others.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and I/O, which stays as long as the node serves.
    pub fn serve(&self) -> Result<(), Failure> {
        if std::mem::replace(&mut lock(&self.0.doors).serving, true) {
            return Ok(());
        }
        self.tidy_store();
        self.answer_contents();
        self.accept_sessions();
        self.use_relays_of_tickets();
        self.keep_relays_told();
        self.watch_grants();
        self.watch_for_owner();
        self.enter_owner_late();
        Recent::watch(self);
        self.open_shares();
        crate::releases::keep_fresh(self);
        crate::releases::keep_complete(self);
        self.keep_registry();
        for peer in self.known().peers() {
            if !peer.revoked {
                self.look_after(peer.node);
            }
        }
        Ok(())
    }

    fn accept_sessions(&self) {
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(session) = node.link().accept().await {
                node.welcome(session);
            }
        });
    }

    /// Takes a session into service and writes down what it tells of the peer. A session that serves already, because
    /// a dial came upon the one that the peer opened, is let be.
    pub fn welcome(&self, session: Session) {
        let peer = session.peer();
        if lock(&self.0.welcomed).insert(peer, session.binding()) == Some(session.binding()) {
            return;
        }
        if !self.note_met(&session) {
            // It was let in a moment before it was thrown out.
            session.close();
            return;
        }
        lock(&self.0.why_not).remove(&peer);
        if let Some(invite) = session.invite_used() {
            if self.known().is_device_invite(&invite) {
                self.let_device_in(peer, invite);
            }
            self.audit().note("peer_enrolled", &[("peer", &peer.to_string()), ("invite", &hex(&invite))]);
            self.engine().grants_changed();
        }
        self.tell_relays();
        self.audit().note("session_opened", &[("peer", &peer.to_string())]);
        self.engine().attach(session);
        self.look_after(peer);
    }

    fn watch_grants(&self) {
        let node = self.clone();
        let mut events = self.engine().subscribe();
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(Event::PeerSpaces(peer, offers)) => node.keep_roles(peer, &offers),
                    Ok(Event::PeerReady(peer)) => {
                        lock(&node.0.met).insert(peer);
                        node.delegate_to_device(peer);
                    }
                    // The invite by which it came may have its use again, of which relays are told.
                    Ok(Event::PeerFailed(..)) => node.invites_changed(),
                    Ok(Event::PeerGone(peer)) => node.audit().note("session_closed", &[("peer", &peer.to_string())]),
                    Ok(Event::Changed { space, timelines, .. }) => node.look_for_signals(&space, &timelines),
                    Ok(Event::MemberRemoved { space, peer }) => node.part_from(space, peer),
                    Ok(Event::Held { space, peer }) => {
                        node.audit().note("writer_held", &[("space", &space.to_string()), ("peer", &peer.to_string())])
                    }
                    Ok(_) => {}
                    // Offers may be among what was missed.
                    Err(RecvError::Lagged(_)) => {
                        for (peer, _) in node.engine().peers() {
                            node.keep_roles(peer, &node.engine().offers(&peer));
                        }
                    }
                    Err(RecvError::Closed) => break,
                }
            }
        });
    }

    /// Documents that moved may be signals of supervisors, on which keys are changed.
    fn look_for_signals(&self, space: &SpaceId, timelines: &[TimelineId]) {
        let (Some(desk), Some(view)) = (self.open_desk(), self.store().view(space)) else { return };
        let tips = timelines.iter().flat_map(|timeline| view.tips(timeline)).filter(|tip| tip.tip.ib() == DOC_IB);
        let moved = tips.filter_map(|tip| view.record(&tip.sid));
        let signals: Vec<serde_json::Value> =
            moved.filter_map(|record| record.object()?.get("doc").filter(|doc| doc.is_object()).cloned()).collect();
        if !signals.is_empty() {
            // A change of keys waits for the disk.
            tokio::task::spawn_blocking(move || signals.iter().for_each(|signal| desk.honour(signal)));
        }
    }

    /// A peer is no member of a space any more. Its sagas there have ended; where nothing else is shared, so does its
    /// session, at once.
    fn part_from(&self, space: SpaceId, peer: NodeId) {
        self.audit().note("member_removed", &[("space", &space.to_string()), ("peer", &peer.to_string())]);
        if !self.engine().grants().iter().any(|grant| grant.node == peer) {
            self.link().revoke(&peer);
        }
    }

    /// The own role in a space that somebody else administers follows what its admin offers, where no members frame says
    /// it.
    fn keep_roles(&self, peer: NodeId, offers: &[sealtide_sync::SpaceOffer]) {
        for offer in offers.iter().filter(|offer| self.engine().members(&offer.space).is_none()) {
            let (space, mine) = (offer.space, self.engine().role(&self.id(), &offer.space));
            let by_admin = self.engine().role(&peer, &space) == Some(Role::Admin);
            if self.has_space(&space) && by_admin && mine.is_some_and(|role| role != offer.role && role != Role::Admin)
            {
                let _ = self.grant(space, self.id(), offer.role);
            }
        }
    }

    // --- dialling ---

    /// Keeps a session with a peer open: dials when there is none, with growing pauses.
    pub fn look_after(&self, peer: NodeId) {
        let dialling = {
            let mut dialled = lock(&self.0.dialled);
            if dialled.contains_key(&peer) {
                return;
            }
            let dialling = Arc::<Dialling>::default();
            dialled.insert(peer, dialling.clone());
            dialling
        };
        let node = self.clone();
        tokio::spawn(async move {
            let mut stop = node.0.stop.subscribe();
            tokio::select! {
                () = node.keep_dialling(peer, &dialling) => {}
                _ = stop.wait_for(|stopped| *stopped) => {}
            }
            lock(&node.0.dialled).remove(&peer);
        });
    }

    async fn keep_dialling(&self, peer: NodeId, dialling: &Dialling) {
        let mut backoff = Backoff::new();
        loop {
            let Some(known) = self.known().peer(&peer).filter(|known| !known.revoked) else { return };
            if let Some(session) = self.link().session(&peer) {
                self.follow(&session).await;
                // A peer that refuses each session is not asked again at once.
                if lock(&self.0.met).remove(&peer) {
                    backoff = Backoff::new();
                }
            } else if known.addresses.is_empty() && known.relays.is_empty() {
                self.set_why_not(peer, "no_address");
            } else {
                let _turn = dialling.turn.lock().await;
                // Whoever had the turn may have opened one.
                if self.link().session(&peer).is_some() {
                    continue;
                }
                self.set_why_not(peer, "trying");
                let target = DialTarget { node: peer, addresses: known.addresses, relays: known.relays, invite: None };
                let dialled = tokio::select! {
                    dialled = self.link().dial(target) => dialled,
                    () = dialling.give_way.notified() => continue,
                };
                match dialled {
                    Ok(session) => {
                        self.welcome(session);
                        continue;
                    }
                    Err(error) => self.set_why_not(peer, why_not(&error)),
                }
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next_wait(&mut OsEntropy)) => {}
                () = dialling.wake.notified() => backoff = Backoff::new(),
            }
        }
    }

    /// Dials a peer now, if there is no session.
    pub fn nudge(&self, peer: &NodeId) {
        if let Some(dialling) = lock(&self.0.dialled).get(peer) {
            dialling.wake.notify_one();
        }
    }

    /// Keeps the own task from dialling a peer, as long as the guard lives; a dial under way ends first.
    pub(crate) async fn hold_dialling(&self, peer: &NodeId) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let dialling = lock(&self.0.dialled).get(peer).cloned()?;
        let turn = dialling.turn.clone().lock_owned();
        tokio::pin!(turn);
        loop {
            dialling.give_way.notify_waiters();
            tokio::select! {
                turn = &mut turn => return Some(turn),
                // It may have begun another dial in between.
                () = tokio::time::sleep(GIVE_WAY_AGAIN) => {}
            }
        }
    }

    fn set_why_not(&self, peer: NodeId, why: &str) {
        lock(&self.0.why_not).insert(peer, why.to_owned());
    }

    /// Why there is no direct path to a peer, in the words of link C.12.
    pub fn why_not_direct(&self, peer: &NodeId) -> Option<String> {
        lock(&self.0.why_not).get(peer).cloned()
    }

    // --- the end ---

    /// Turns true when the node is asked to stop.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.0.stop.subscribe()
    }

    /// Asks the node to stop.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
    }

    /// Ends sessions, folders and doors in order, and writes what is to be written.
    pub async fn shutdown(&self) {
        self.stop();
        self.set_doors_open(false);
        let shares: Vec<Share> = std::mem::take(&mut *self.shares()).into_values().collect();
        let stopped = tokio::task::spawn_blocking(move || shares.iter().for_each(Share::stop));
        let _ = stopped.await;
        for (peer, _) in self.engine().peers() {
            self.engine().close(&peer);
        }
        let _ = tokio::time::timeout(Duration::from_secs(3), self.link().shutdown()).await;
        lock(&self.0.doors).gateway = None;
        // What waits for the audit is written before its last checkpoint.
        if let Some(desk) = self.0.desk.get() {
            desk.close();
        }
        self.audit().checkpoint();
        let store = self.store().clone();
        let _ = tokio::task::spawn_blocking(move || store.sync()).await;
    }
}

/// Opens the identities of a home; the device keystone is made when there is none.
///
/// # Errors
/// Exit 6 when others can read the key file, 1 when it is damaged or cannot be written.
pub fn open_identities(home: &Home, node: Identity, store: Store) -> Result<Identities, Failure> {
    let parts = Parts {
        node,
        store,
        place: Box::new(SecretFile::new(home.identity_key_path(), home.seal()?)),
        marker: marker(home)?,
        clock: Arc::new(|| Stamp { ms: now().wall_ms }),
    };
    Identities::open(parts).map_err(|error| match &error {
        crate::identity::OpenError::KeyFile(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::Refused, "key_exposed", error.to_string())
                .hint(format!("chmod 600 {}", home.identity_key_path().display()))
        }
        _ => Failure::failed("identity", error.to_string()),
    })
}

fn marker(home: &Home) -> Result<[u8; 32], Failure> {
    machine_marker(home.root()).map_err(|error| Failure::failed("home", error.to_string()))
}

/// Addresses of the link door for a ticket.
pub fn ticket_addresses(node: &Node) -> Vec<LinkAddress> {
    let mut addresses = node.link().announce();
    addresses.truncate(8);
    addresses
}

/// The exit code of a dial that failed.
pub fn dial_failure(peer: &NodeId, error: &DialError) -> Failure {
    let who = peer.short();
    match error {
        DialError::Refused => Failure::new(
            Exit::Refused,
            "refused",
            format!(
                "node {who} refused: the ticket is expired, used up or revoked, its space has no room for one more member, \
                 or this node is not allowed"
            ),
        )
        .hint("ask for a new ticket: `sealtide ticket new` on the other machine"),
        DialError::WrongPeer => Failure::new(
            Exit::Refused,
            "wrong_peer",
            format!("who answered is not node {who}: its identity or certificate does not fit"),
        )
        .hint("something between the two machines answers in its place; `sealtide doctor` tells more"),
        DialError::NoAnswer => {
            Failure::new(Exit::Refused, "no_answer", format!("node {who} was asked for, and {error}"))
                .hint("compare the ticket with the other machine (`sealtide ticket new`), or try again in a minute")
        }
        DialError::Inspected { .. } => {
            Failure::new(Exit::NoRoute, "inspected", format!("node {who} cannot be reached: {error}"))
                .hint("a proxy opens TLS on the way; have these addresses exempted, or meet through a relay")
        }
        DialError::Version => Failure::failed("version", format!("node {who} speaks another version of the protocol"))
            .hint("update sealtide on both machines"),
        other => Failure::new(Exit::NoRoute, "no_route", format!("node {who} cannot be reached: {other}"))
            .hint("is `sealtide up` running there, and is its port open? `sealtide doctor TICKET` looks"),
    }
}

fn why_not(error: &DialError) -> &'static str {
    match error {
        DialError::Refused | DialError::NoAnswer => "refused",
        DialError::WrongPeer => "pin",
        DialError::Inspected { .. } => "inspected",
        _ => "unreachable",
    }
}

/// Does what waits for the disk on a thread that may.
async fn off<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| match error.is_cancelled() {
        // The process is on its way out.
        true => Failure::new(Exit::Interrupted, "stopping", "the node is stopping"),
        false => Failure::failed("node", error.to_string()),
    })?
}

fn port_key(ip: IpAddr) -> String {
    format!("port/{ip}")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
