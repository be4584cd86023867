//! Several nodes, and the sessions between them: who dials whom, and dials again after a cut.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_link::Backoff;
use sealtide_node::engine::Engine;
use sealtide_node::engine::keystones::{Keystones, NoKeystones};
use sealtide_store::mem::MemDisk;
use sealtide_sync::SpaceView;
use tokio::sync::Notify;

use crate::dice::Dice;
use crate::guard;
use crate::net::{SimSession, Traffic, Weather, connect};
use crate::node::{Broken, Keeper, Lasting, SimNode};
use crate::trace::Trace;
use crate::world::{SimWorld, members};

/// A saga may follow a failed one this late, so a run that is quiet for longer is over.
const QUIET_MS: u64 = 12_000;

/// Makes the weather of the next session.
pub type Forecast = Box<dyn FnMut(&mut Dice) -> Weather + Send>;

/// Some nodes and the lines between them. Clones are the same nodes.
#[derive(Clone)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<SimNode>,
    /// Who dials whom, by place in `nodes`.
    pub edges: Vec<(usize, usize)>,
    /// What goes over all lines.
    pub traffic: Traffic,
    /// What happens.
    pub trace: Trace,
    /// What must not happen.
    pub broken: Broken,
    dice: Arc<Mutex<Dice>>,
    forecast: Arc<Mutex<Forecast>>,
    /// Diallers wait no longer.
    nudge: Arc<Notify>,
}

impl Cluster {
    /// `count` nodes with empty disks, started, and no lines yet.
    pub fn new(count: usize, seed: u64, whole_trace: bool) -> Self {
        Self::with_keystones(count, seed, whole_trace, |_| Arc::new(NoKeystones))
    }

    /// As [`Cluster::new`], with a keeper of keystones for each node.
    pub fn with_keystones(
        count: usize,
        seed: u64,
        whole_trace: bool,
        mut keystones: impl FnMut(NodeId) -> Arc<dyn Keystones>,
    ) -> Self {
        Self::with_keepers(count, seed, whole_trace, |dice| {
            let mut id = [0; 32];
            sealtide_crypto::Entropy::fill(dice, &mut id);
            let id = NodeId::from_bytes(id);
            (id, Arc::new(Lasting(keystones(id))))
        })
    }

    /// As [`Cluster::new`], with whatever keeps the keystones of each node, and its id.
    pub fn with_keepers(
        count: usize,
        seed: u64,
        whole_trace: bool,
        mut keeper: impl FnMut(&mut Dice) -> (NodeId, Arc<dyn Keeper>),
    ) -> Self {
        let mut dice = Dice::new(seed);
        let (trace, broken) = (Trace::new(whole_trace), Broken::default());
        let nodes = (0..count).map(|number| {
            let (id, keeper) = keeper(&mut dice);
            let name = char::from(b'A' + number as u8).to_string();
            let node = SimNode::new(&name, id, dice.split(), &trace, &broken, keeper);
            if let Err(error) = node.start(MemDisk::new(dice.word())) {
                broken.add(format!("{name} {error}"));
            }
            node
        });
        let nodes = nodes.collect();
        let dice = Arc::new(Mutex::new(dice));
        let forecast: Arc<Mutex<Forecast>> = Arc::new(Mutex::new(Box::new(|_| Weather::default())));
        Self {
            nodes,
            edges: Vec::new(),
            traffic: Traffic::default(),
            trace,
            broken,
            dice,
            forecast,
            nudge: Arc::default(),
        }
    }

    /// The engine of a node that is up.
    pub fn engine(&self, number: usize) -> Engine<SimWorld> {
        self.nodes[number].engine().expect("the node is up")
    }

    /// A space with its first frame at the first node, known to all; everybody may do everything.
    pub fn space(&self, number: u64) -> SpaceId {
        let roles = vec![Role::Admin; self.nodes.len()];
        self.space_with(number, &roles)
    }

    /// As [`Cluster::space`], with the role that each node has at all the others.
    pub fn space_with(&self, number: u64, roles: &[Role]) -> SpaceId {
        let stamp = sealtide_ibgib::Stamp { ms: 1_767_225_600_000 };
        let by = self.nodes[0].id().to_string();
        let first = sealtide_ibgib::space_genesis("space", "data", &by, stamp, &format!("{number:064x}"));
        let space = self.engine(0).store().create_space(first).expect("the space is new");
        let grants: Vec<_> = self.nodes.iter().map(SimNode::id).zip(roles.iter().copied()).collect();
        for (place, node) in self.nodes.iter().enumerate() {
            if place > 0 {
                self.engine(place).store().adopt_space(space).expect("the disk is empty");
            }
            node.share(space, &grants);
        }
        space
    }

    /// Decides what sessions will be like from now on.
    pub fn set_forecast(&self, forecast: impl FnMut(&mut Dice) -> Weather + Send + 'static) {
        *guard(&self.forecast) = Box::new(forecast);
    }

    /// A session between two nodes, once; `None` when one is down.
    pub fn connect(&self, from: usize, to: usize) -> Option<[SimSession; 2]> {
        let (weather, dice) = {
            let mut dice = guard(&self.dice);
            let weather = (guard(&self.forecast))(&mut dice);
            (weather, dice.split())
        };
        let (dialler, listener) = (&self.nodes[from], &self.nodes[to]);
        dialler.engine().and(listener.engine())?;
        let ends = connect([dialler.id(), listener.id()], weather, dice, &self.traffic);
        let both = listener.attach(ends[1].clone()) && dialler.attach(ends[0].clone());
        both.then_some(ends)
    }

    /// Keeps a session open: dials when there is none, with growing pauses.
    pub fn keep_connected(&mut self, from: usize, to: usize) {
        self.edges.push((from, to));
        let (cluster, mut dice) = (self.clone(), guard(&self.dice).split());
        tokio::spawn(async move {
            let mut backoff = Backoff::new();
            loop {
                cluster.nodes[from].up().await;
                if let Some([session, _]) = cluster.connect(from, to) {
                    session.over().await;
                    backoff = Backoff::new();
                }
                let nudged = tokio::time::timeout(backoff.next_wait(&mut dice), cluster.nudge.notified()).await;
                if nudged.is_ok() {
                    backoff = Backoff::new();
                }
            }
        });
    }

    /// Ends all pauses of diallers: the network is back.
    pub fn nudge(&self) {
        self.nudge.notify_waiters();
    }

    /// Waits until nothing moves any more. Returns how long it took from now to the last message, ms of virtual time.
    ///
    /// # Errors
    /// When it does not become quiet within `limit_ms`, or a promise was broken.
    pub async fn settle(&self, limit_ms: u64) -> Result<u64, String> {
        let begin = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            if let Some(broken) = self.broken.first() {
                return Err(broken);
            }
            let last = self.traffic.counts().last.unwrap_or(begin).max(begin);
            let busy = self.busy();
            if busy.is_none() && last.elapsed() >= Duration::from_millis(QUIET_MS) {
                return Ok((last - begin).as_millis() as u64);
            }
            if begin.elapsed() >= Duration::from_millis(limit_ms) {
                return Err(format!("not quiet after {limit_ms} ms: {}", busy.unwrap_or_else(|| "sagas go on".into())));
            }
        }
    }

    /// What is not at rest, if anything.
    fn busy(&self) -> Option<String> {
        for (from, to) in &self.edges {
            for (this, other) in [(from, to), (to, from)] {
                let (node, peer) = (&self.nodes[*this], &self.nodes[*other]);
                let Some(engine) = node.engine() else { return Some(format!("{} is down", node.name())) };
                if !engine.peers().contains(&(peer.id(), true)) {
                    return Some(format!("{} has no session with {}", node.name(), peer.name()));
                }
                for info in engine.store().spaces() {
                    let known = engine.peer_spaces(&info.space);
                    if known.iter().any(|(id, space)| *id == peer.id() && space.running) {
                        return Some(format!("{} runs a saga with {}", node.name(), peer.name()));
                    }
                }
            }
        }
        None
    }

    /// Whether all nodes hold the same, whole store; each says of its peers that they are in step.
    ///
    /// # Errors
    /// What differs.
    pub fn check_agreement(&self, space: &SpaceId) -> Result<(), String> {
        let first = self.engine(0);
        let (sids, tips) = (members(first.store(), space), tips_of(&first, space));
        for node in &self.nodes {
            let engine = node.engine().ok_or("a node is down")?;
            let own = members(engine.store(), space);
            if own != sids {
                let (less, more) = (sids.difference(&own).count(), own.difference(&sids).count());
                let views = [&first, &engine].map(|engine| engine.store().view(space));
                let record = |sid| views.iter().flatten().find_map(|view| view.record(sid));
                let differing = own.symmetric_difference(&sids).take(5).filter_map(record);
                let which: Vec<String> = differing.map(|record| record.address().to_string()).collect();
                let name = node.name();
                return Err(format!("{name} has {more} records more and {less} less than the first node: {which:?}"));
            }
            if tips_of(&engine, space) != tips {
                return Err(format!("{} has other tips than the first node", node.name()));
            }
        }
        for (from, to) in &self.edges {
            for (this, other) in [(from, to), (to, from)] {
                let (engine, peer) = (self.engine(*this), &self.nodes[*other]);
                let known = engine.peer_spaces(space).into_iter().find(|(id, _)| *id == peer.id());
                if !known.is_some_and(|(_, known)| known.in_step) {
                    let name = self.nodes[*this].name();
                    return Err(format!("{name} does not know that {} is in step", peer.name()));
                }
            }
        }
        Ok(())
    }

    /// Checks every byte of every store.
    ///
    /// # Errors
    /// What is damaged.
    pub fn verify(&self) -> Result<(), String> {
        for node in &self.nodes {
            let engine = node.engine().ok_or("a node is down")?;
            let report = engine.store().verify(&mut |_, _| {}).map_err(|error| error.to_string())?;
            if let Some(bad) = report.bad.first() {
                return Err(format!("{}: {bad}", node.name()));
            }
        }
        Ok(())
    }
}

fn tips_of(engine: &Engine<SimWorld>, space: &SpaceId) -> Vec<[u8; 32]> {
    let view = engine.store().view(space);
    view.map(|view| view.tip_items().iter().map(|tip| tip.id).collect()).unwrap_or_default()
}
