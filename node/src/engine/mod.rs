//! The engine: every session with a peer, and the sagas that run over them. It knows spaces, grants and the store;
//! it knows nothing of folders, sockets or the command line.
//!
//! Main path: [`Engine::attach`] takes a session → `session.rs` keeps its control channel and decides when a saga
//! starts → `saga_task.rs` drives one saga over one channel.

mod admission;
pub mod authorship;
pub(crate) mod contents;
pub(crate) mod histories;
pub mod holds;
pub mod keystones;
pub mod members;
pub mod quota;
mod room;
mod saga_task;
mod session;
mod signatures;
mod turns;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard};

use sealtide_ibgib::TimelineId;
use sealtide_identity::{InviteId, NodeId, SpaceId};
use sealtide_store::Store;
use sealtide_sync::{CommitResult, Direction, SagaId, SagaOutcome, SpaceOffer, SpaceView, Strategy};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

pub(crate) use crate::engine::room::{RELEASE_IB, only_releases_need};

use crate::engine::authorship::Stones;
use crate::engine::keystones::{Keystones, NoKeystones};
use crate::known::Known;
use crate::world::{PeerChannel, PeerSession, World};

/// Sagas that one session may run at once. Spec: ibgib §13.2.1.
const SAGAS_PER_SESSION_MAX: u32 = 16;
/// Channels of one name that wait for whoever serves them.
const CHANNELS_WAITING_MAX: usize = 16;
/// Peers of which it is kept why they could not sync.
const REFUSALS_MAX: usize = 1024;
/// Events a slow subscriber may fall behind before it misses some.
const EVENTS_MAX: usize = 4096;

/// What happens in the engine, for folders, status and people.
#[derive(Clone, Debug)]
pub enum Event {
    /// A session is open and both HELLOs agreed.
    PeerReady(NodeId),
    /// A session with a peer cannot sync, in the words of whichever of the two found so; it ends.
    PeerFailed(NodeId, String),
    /// The session with a peer ended.
    PeerGone(NodeId),
    /// The peer told which spaces it offers.
    PeerSpaces(NodeId, Vec<SpaceOffer>),
    /// Tips of a space moved and are durable; `origin` is the peer whose saga brought them, `None` for a local change.
    Changed {
        /// Which space.
        space: SpaceId,
        /// Who brought it.
        origin: Option<NodeId>,
        /// The timelines whose tips moved.
        timelines: Arc<[TimelineId]>,
    },
    /// A saga began.
    SagaBegan {
        /// Which space.
        space: SpaceId,
        /// With whom.
        peer: NodeId,
    },
    /// How far a saga is.
    Progress(Progress),
    /// A saga ended.
    SagaEnded(SagaReport),
    /// What a peer brought is held. Spec: ibgib §12.5
    Held {
        /// Which space.
        space: SpaceId,
        /// Who brought it.
        peer: NodeId,
    },
    /// A peer that is connected was a member of a space and is not any more.
    MemberRemoved {
        /// Which space.
        space: SpaceId,
        /// Who.
        peer: NodeId,
    },
}

/// How far a saga is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Which space.
    pub space: SpaceId,
    /// With whom.
    pub peer: NodeId,
    /// Records and chunks done and known.
    pub items: (u64, u64),
    /// Bytes done and known.
    pub bytes: (u64, u64),
}

/// How a saga ended.
#[derive(Clone, Debug)]
pub struct SagaReport {
    /// Which space.
    pub space: SpaceId,
    /// With whom.
    pub peer: NodeId,
    /// The outcome at this node.
    pub outcome: SagaOutcome,
    /// Whether another one of this space and peer follows at once.
    pub again: bool,
}

impl SagaReport {
    /// Whether both nodes held the same records when it ended, and nothing is known to have changed since.
    pub fn in_step(&self) -> bool {
        matches!(self.outcome, SagaOutcome::Committed { again: false, .. }) && !self.again
    }
}

/// What a `sync` asks for.
#[derive(Clone, Copy, Debug)]
pub struct SyncOrder {
    /// Which space.
    pub space: SpaceId,
    /// Which way; `None` takes what the roles allow.
    pub direction: Option<Direction>,
    /// What happens to tips that diverged.
    pub strategy: Strategy,
    /// Whether the peer looks at its folder before it answers: a person asked, and "in step" is to be true.
    pub fresh: bool,
}

impl SyncOrder {
    /// A saga that starts by itself: whatever the roles allow, merging.
    pub const fn of_itself(space: SpaceId) -> Self {
        Self { space, direction: None, strategy: Strategy::Optimistic, fresh: false }
    }

    /// Whether a saga that runs already cannot stand for this one.
    pub(crate) fn is_special(&self) -> bool {
        self.fresh || self.direction.is_some() || self.strategy != Strategy::Optimistic
    }
}

/// What is said of a space that a connected peer does not offer.
pub(crate) const NOT_SHARED: &str = "the other node does not share this space with this node, or not any more";

/// What is known of one space at one peer.
#[derive(Clone, Debug, Default)]
pub struct PeerSpace {
    /// Whether a saga runs now.
    pub running: bool,
    /// Whether the last saga left both in step and nothing changed here since.
    pub in_step: bool,
    /// When the last saga ended well, ms since 1970.
    pub synced_ms: Option<u64>,
    /// Why the last saga failed, if it did.
    pub last_error: Option<String>,
}

pub(crate) enum Command {
    Sync(SyncOrder, Option<oneshot::Sender<SagaReport>>),
    Cancel(SpaceId),
    Close,
}

/// One session as the rest of the engine sees it.
pub(crate) struct PeerEntry {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) offers: Vec<SpaceOffer>,
    pub(crate) ready: bool,
    serial: u64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) peers: BTreeMap<NodeId, PeerEntry>,
    /// What is known of each space at each peer: asked by space at every commit and for every look at the status.
    pub(crate) spaces: BTreeMap<(SpaceId, NodeId), PeerSpace>,
    /// Why the last session with a peer ended before it was ready; gone when one is.
    pub(crate) refusals: BTreeMap<NodeId, String>,
    /// Spaces that are paused: no saga is opened or answered.
    pub(crate) paused: std::collections::BTreeSet<SpaceId>,
    /// Spaces whose folder is being read for the first time: "in step" would not be true yet, so sagas wait.
    pub(crate) reading: std::collections::BTreeSet<SpaceId>,
    /// Who keeps the folder of a space, and can be asked to look at it now.
    folders: BTreeMap<SpaceId, mpsc::UnboundedSender<oneshot::Sender<()>>>,
    turns: turns::Turns,
    serial: u64,
}

/// A space at every peer.
fn at_peers(space: &SpaceId) -> RangeInclusive<(SpaceId, NodeId)> {
    (*space, NodeId::from_bytes([0; 32]))..=(*space, NodeId::from_bytes([0xff; 32]))
}

/// A channel that a peer opened, and the peer.
pub type PeerChannelOf<W> = (NodeId, <<W as World>::Session as PeerSession>::Channel);

struct Inner<W: World> {
    world: W,
    store: Store,
    id: NodeId,
    keystones: Arc<dyn Keystones>,
    stones: Stones,
    rolls: members::Rolls,
    holding: holds::Holding,
    quotas: quota::Quotas,
    state: Mutex<State>,
    /// Who serves channels that are no sagas, by their names.
    servers: Mutex<BTreeMap<&'static str, mpsc::Sender<PeerChannelOf<W>>>>,
    events: broadcast::Sender<Event>,
    /// Goes up with every change of grants, so that open sagas look again.
    grants_version: watch::Sender<u64>,
}

/// Runs sessions and sagas over one store. Cheap to clone.
pub struct Engine<W: World>(Arc<Inner<W>>);

impl<W: World> Clone for Engine<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: World> Engine<W> {
    /// An engine without sessions, in a node without identities.
    pub fn new(world: W, store: Store, id: NodeId) -> Self {
        Self::with_keystones(world, store, id, Arc::new(NoKeystones))
    }

    /// An engine without sessions. Where there are identities, sessions prove theirs and sagas are signed.
    pub fn with_keystones(world: W, store: Store, id: NodeId, keystones: Arc<dyn Keystones>) -> Self {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (grants_version, _) = watch::channel(0);
        Self(Arc::new(Inner {
            world,
            store,
            id,
            keystones,
            stones: Stones::default(),
            rolls: members::Rolls::default(),
            holding: holds::Holding::default(),
            quotas: quota::Quotas::default(),
            state: Mutex::default(),
            servers: Mutex::default(),
            events,
            grants_version,
        }))
    }

    /// The world it runs in.
    pub fn world(&self) -> &W {
        &self.0.world
    }

    /// The store it serves: to read. Whoever commits there signs nothing and tells nobody; [`Engine::commit_local`] does both.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// What this node knows for itself.
    pub fn known(&self) -> Known {
        Known::of(self.store())
    }

    /// The own node id.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    pub(crate) fn quotas(&self) -> &quota::Quotas {
        &self.0.quotas
    }

    fn stones(&self) -> &Stones {
        &self.0.stones
    }

    pub(crate) fn keystones(&self) -> &Arc<dyn Keystones> {
        &self.0.keystones
    }

    /// Everything that happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Takes over a session and serves it until it ends. A newer session of the same peer replaces the older.
    pub fn attach(&self, session: W::Session) -> tokio::task::JoinHandle<()> {
        let peer = session.peer();
        let (commands, inbox) = mpsc::unbounded_channel();
        let serial = {
            let mut state = self.lock();
            state.serial += 1;
            let serial = state.serial;
            let entry = PeerEntry { commands, offers: Vec::new(), ready: false, serial };
            if let Some(older) = state.peers.insert(peer, entry) {
                let _ = older.commands.send(Command::Close);
            }
            serial
        };
        let engine = self.clone();
        tokio::spawn(async move {
            session::run(&engine, session, inbox).await;
            engine.detach(peer, serial);
        })
    }

    fn detach(&self, peer: NodeId, serial: u64) {
        {
            let mut state = self.lock();
            if state.peers.get(&peer).is_none_or(|entry| entry.serial != serial) {
                return;
            }
            state.peers.remove(&peer);
            state.turns.end_all(&peer);
            for (_, space) in state.spaces.iter_mut().filter(|((_, node), _)| *node == peer) {
                space.running = false;
            }
        }
        self.forget_read(&peer);
        self.emit(Event::PeerGone(peer));
    }

    /// Peers with an open session, and whether both HELLOs agreed.
    pub fn peers(&self) -> Vec<(NodeId, bool)> {
        self.lock().peers.iter().map(|(id, entry)| (*id, entry.ready)).collect()
    }

    /// What a connected peer offers.
    pub fn offers(&self, peer: &NodeId) -> Vec<SpaceOffer> {
        self.lock().peers.get(peer).map(|entry| entry.offers.clone()).unwrap_or_default()
    }

    /// Takes in what a connected peer offers. Who took this node's access away says so by offering a space no more.
    fn note_offers(&self, peer: NodeId, offers: &[SpaceOffer]) {
        let mut state = self.lock();
        if let Some(entry) = state.peers.get_mut(&peer) {
            entry.offers = offers.to_vec();
        }
        for ((space, _), known) in state.spaces.iter_mut().filter(|((_, node), _)| *node == peer) {
            if !offers.iter().any(|offer| offer.space == *space) {
                known.in_step = false;
                known.last_error = Some(NOT_SHARED.to_owned());
            } else if known.last_error.as_deref() == Some(NOT_SHARED) {
                known.last_error = None;
            }
        }
    }

    /// Why the last session with a peer could not sync, where no later one could.
    pub fn refusal(&self, peer: &NodeId) -> Option<String> {
        self.lock().refusals.get(peer).cloned()
    }

    fn note_refusal(&self, peer: NodeId, why: &str) {
        let mut state = self.lock();
        // Strangers come and go, each under a name of its own.
        if state.refusals.len() < REFUSALS_MAX || state.refusals.contains_key(&peer) {
            state.refusals.insert(peer, why.to_owned());
        }
    }

    /// What is known of a space at each peer met since start.
    pub fn peer_spaces(&self, space: &SpaceId) -> Vec<(NodeId, PeerSpace)> {
        let state = self.lock();
        state.spaces.range(at_peers(space)).map(|((_, peer), known)| (*peer, known.clone())).collect()
    }

    /// Tells everybody what a commit moved, if anything.
    pub(crate) fn committed(&self, space: SpaceId, origin: Option<NodeId>, result: &CommitResult) {
        if !result.moved.is_empty() {
            if let Some(peer) = origin.filter(|_| result.moved.iter().any(|(_, _, after)| after.len() > 1)) {
                let now = self.world().now().mono_ms;
                self.lock().turns.contended(space, &peer, now);
            }
            self.look_at_members(&space, result.moved.iter().map(|(timeline, ..)| *timeline));
            self.changed(space, origin, result.moved.iter().map(|(timeline, ..)| *timeline).collect());
            self.review_held_soon(space);
        }
    }

    fn changed(&self, space: SpaceId, origin: Option<NodeId>, timelines: Arc<[TimelineId]>) {
        {
            let mut state = self.lock();
            let others = state.spaces.range_mut(at_peers(&space)).filter(|((_, peer), _)| Some(*peer) != origin);
            others.for_each(|(_, known)| known.in_step = false);
        }
        self.emit(Event::Changed { space, origin, timelines });
    }

    /// Opens a saga with one peer. The receiver gets the report of the saga that answers the order; it is dropped
    /// when the peer is not connected or does not share the space.
    pub fn sync(&self, peer: &NodeId, order: SyncOrder) -> oneshot::Receiver<SagaReport> {
        let (done, report) = oneshot::channel();
        if let Some(entry) = self.lock().peers.get(peer) {
            let _ = entry.commands.send(Command::Sync(order, Some(done)));
        }
        report
    }

    /// Cancels the sagas of a space.
    pub fn cancel(&self, space: SpaceId) {
        for entry in self.lock().peers.values() {
            let _ = entry.commands.send(Command::Cancel(space));
        }
    }

    /// Stops opening and answering sagas of a space, or goes on.
    pub fn pause(&self, space: SpaceId, paused: bool) {
        {
            let mut state = self.lock();
            if paused {
                state.paused.insert(space)
            } else {
                state.paused.remove(&space)
            };
        }
        if paused {
            self.cancel(space);
        } else {
            self.changed(space, None, Arc::default());
        }
    }

    /// Holds sagas of a space back (peers are told `busy`) while its folder is read for the first time, or goes on.
    pub fn reading(&self, space: SpaceId, reading: bool) {
        {
            let mut state = self.lock();
            if reading {
                state.reading.insert(space)
            } else {
                state.reading.remove(&space)
            };
        }
        if !reading {
            self.changed(space, None, Arc::default());
        }
    }

    /// From now on the caller keeps the folder of `space`: each sender that comes is to be dropped or answered when the
    /// folder was looked at as it stood when it came, and what had changed is committed.
    pub fn keep_folder(&self, space: SpaceId) -> mpsc::UnboundedReceiver<oneshot::Sender<()>> {
        let (wishes, inbox) = mpsc::unbounded_channel();
        self.lock().folders.insert(space, wishes);
        inbox
    }

    /// Waits until what changed in the folder of `space` is committed; at once where no folder is kept.
    pub(crate) async fn freshen(&self, space: &SpaceId) {
        let (done, looked) = oneshot::channel();
        let asked = self.lock().folders.get(space).is_some_and(|folder| folder.send(done).is_ok());
        if asked {
            let _ = looked.await;
        }
    }

    pub(crate) fn is_reading(&self, space: &SpaceId) -> bool {
        self.lock().reading.contains(space)
    }

    /// Whether a space is paused.
    pub fn is_paused(&self, space: &SpaceId) -> bool {
        self.lock().paused.contains(space)
    }

    /// To be called after grants changed in the store: offers go out again, open sagas look again.
    pub fn grants_changed(&self) {
        self.0.grants_version.send_modify(|version| *version += 1);
    }

    /// From now on the caller serves the channels of this name that peers open in sessions that are ready. A few wait for it; more
    /// are ended at once.
    pub fn serve_channels(&self, name: &'static str) -> mpsc::Receiver<PeerChannelOf<W>> {
        let (serve, channels) = mpsc::channel(CHANNELS_WAITING_MAX);
        self.0.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name, serve);
        channels
    }

    /// Hands a channel that is no saga to whoever serves its name; without anybody, or with too many that wait, it ends.
    pub(crate) fn hand_channel(&self, peer: NodeId, channel: <W::Session as PeerSession>::Channel) {
        let servers = self.0.servers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let refused = match servers.get(channel.name()) {
            Some(serve) => serve.try_send((peer, channel)).err().map(|refused| refused.into_inner().1),
            None => Some(channel),
        };
        if let Some(channel) = refused {
            channel.finish();
        }
    }

    /// Ends the session with a peer in order.
    pub fn close(&self, peer: &NodeId) {
        if let Some(entry) = self.lock().peers.get(peer) {
            let _ = entry.commands.send(Command::Close);
        }
    }

    /// The spaces where a peer has a role; the one that `invite` lets into is marked, or all where it is for a device.
    pub(crate) async fn offers_for(&self, peer: &NodeId, invite: Option<InviteId>) -> Vec<SpaceOffer> {
        let is_for_device = invite.is_some_and(|id| self.known().is_device_invite(&id));
        let invited = invite.and_then(|id| self.known().invite(&id)).map(|invite| invite.space);
        let mut offers = Vec::new();
        for (space, label) in self.known().labels() {
            let Some(role) = self.role(peer, &space) else { continue };
            let Some(room) = self.room(&space, peer).await else { continue };
            let snapshot = room.snapshot();
            offers.push(SpaceOffer {
                space,
                name: label.name,
                kind: label.kind,
                role,
                invited: is_for_device || invited == Some(space),
                tip_count: snapshot.tip_summary.count,
                tip_fingerprint: snapshot.tip_summary.fingerprint(),
            });
        }
        offers
    }

    /// Begins a saga of a space with a peer; the wait in ms when it is another peer's turn. Spec: sync §5
    pub(crate) fn take_turn(&self, space: SpaceId, peer: NodeId) -> Result<(), u64> {
        let now = self.world().now().mono_ms;
        let taken = self.lock().turns.take(space, peer, now);
        taken.map_err(|spread_ms| {
            let mut chance = [0; 8];
            self.world().entropy().fill(&mut chance);
            turns::wait_ms(u64::from_le_bytes(chance), spread_ms)
        })
    }

    /// Begins a saga of a space with a peer, whoever's turn it is.
    pub(crate) fn begin_turn(&self, space: SpaceId, peer: NodeId) {
        let now = self.world().now().mono_ms;
        self.lock().turns.begin(space, peer, now);
    }

    /// The saga of a space with a peer is over.
    pub(crate) fn end_turn(&self, space: &SpaceId, peer: &NodeId) {
        self.lock().turns.end(space, peer);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn emit(&self, event: Event) {
        // Nobody listening is no error.
        let _ = self.0.events.send(event);
    }

    pub(crate) fn new_saga_id(&self) -> SagaId {
        let mut id = [0; 32];
        self.world().entropy().fill(&mut id);
        SagaId(id)
    }

    pub(crate) fn grants_watch(&self) -> watch::Receiver<u64> {
        self.0.grants_version.subscribe()
    }
}
