//! One node: a disk, a store, an engine. It crashes and comes back with what the crash left on its disk.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_identity::{Grant, NodeId, Role, SpaceId};
use sealtide_node::engine::keystones::Keystones;
use sealtide_node::engine::{Engine, Event};
use sealtide_node::world::PeerSession;
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, Peer, SpaceLabel, Store};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use crate::dice::Dice;
use crate::guard;
use crate::net::SimSession;
use crate::trace::Trace;
use crate::world::{Faults, Promises, SimWorld, members};

/// Small packs, so that a run goes over several.
const PACK_BYTES: u64 = 256 * 1024;
/// Small too, so that much of what sagas stage is put together ahead of their commits.
const DRAFT_RECORDS: usize = 3;

/// Broken promises found while a run goes on. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Broken(Arc<Mutex<Vec<String>>>);

impl Broken {
    /// Adds one.
    pub fn add(&self, what: String) {
        guard(&self.0).push(what);
    }

    /// The first one.
    pub fn first(&self) -> Option<String> {
        guard(&self.0).first().cloned()
    }
}

/// The wall clock of a node, ms since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Opens the keeper of keystones of a node at each of its starts: what it holds lies in the store.
pub trait Keeper: Send + Sync {
    /// The keeper over what is in the store now.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open(&self, store: &Store, clock: WallClock) -> Result<Arc<dyn Keystones>, String>;
}

/// A keeper that lives through every crash.
pub struct Lasting(pub Arc<dyn Keystones>);

impl Keeper for Lasting {
    fn open(&self, _: &Store, _: WallClock) -> Result<Arc<dyn Keystones>, String> {
        Ok(self.0.clone())
    }
}

/// A simulated node. Clones are the same node.
#[derive(Clone)]
pub struct SimNode(Arc<Inner>);

struct Inner {
    name: String,
    id: NodeId,
    trace: Trace,
    broken: Broken,
    dice: Mutex<Dice>,
    keeper: Arc<dyn Keeper>,
    state: Mutex<State>,
    /// Tells who waits that it is up, in the order of asking.
    up: Notify,
}

#[derive(Default)]
struct State {
    running: Option<Running>,
    promises: Promises,
    faults: Option<Faults>,
    /// Longest time that it stays away after a crash, ms.
    away_ms: u64,
    crashes: u64,
    /// What the node starts on after the next crash, in place of what the crash left.
    backup: Option<MemDisk>,
}

struct Running {
    world: SimWorld,
    engine: Engine<SimWorld>,
    sessions: Vec<SimSession>,
    tasks: Vec<JoinHandle<()>>,
}

impl SimNode {
    /// A node that has not started.
    pub fn new(name: &str, id: NodeId, dice: Dice, trace: &Trace, broken: &Broken, keeper: Arc<dyn Keeper>) -> Self {
        Self(Arc::new(Inner {
            name: name.to_owned(),
            id,
            trace: trace.clone(),
            broken: broken.clone(),
            dice: Mutex::new(dice),
            keeper,
            state: Mutex::default(),
            up: Notify::new(),
        }))
    }

    /// Its node id.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// What it is called in the trace.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How often it has crashed.
    pub fn crashes(&self) -> u64 {
        guard(&self.0.state).crashes
    }

    /// Opens the store on `disk` and begins.
    ///
    /// # Errors
    /// What the store says.
    pub fn start(&self, disk: MemDisk) -> Result<(), String> {
        let (seed, skew_ms) = {
            let mut dice = guard(&self.0.dice);
            (dice.split(), dice.below(120_000))
        };
        let world = SimWorld::new(&self.0.name, disk.clone(), skew_ms, seed, &self.0.trace);
        let clock = world.clone();
        let wall_ms: WallClock = Arc::new(move || sealtide_node::world::World::now(&clock).wall_ms);
        let config = Config {
            pack_bytes: PACK_BYTES,
            draft_records: DRAFT_RECORDS,
            wall_ms: wall_ms.clone(),
            ..Config::default()
        };
        let store = Store::open(Arc::new(disk), config).map_err(|error| format!("cannot open its store: {error}"))?;
        let keystones = self.0.keeper.open(&store, wall_ms)?;
        let engine = Engine::with_keystones(world.clone(), store, self.0.id, keystones);
        let mut state = guard(&self.0.state);
        if let Some(faults) = state.faults {
            world.set_faults(faults);
        }
        let tasks = vec![self.watch_events(&engine), self.watch_crash(&world)];
        state.running = Some(Running { world, engine, sessions: Vec::new(), tasks });
        drop(state);
        self.0.up.notify_waiters();
        Ok(())
    }

    /// Begins to know a space: its label and who may do what.
    pub fn share(&self, space: SpaceId, grants: &[(NodeId, Role)]) {
        let Some(engine) = self.engine() else { return };
        let label = SpaceLabel { name: "space".to_owned(), kind: "data".to_owned(), dir: None };
        engine.known().put_label(&space, Some(&label)).expect("the facts can be written");
        for (node, role) in grants {
            let grant = Grant { space, node: *node, role: *role, since_ms: 0, invite: None };
            engine.known().put_grant(&grant).expect("the facts can be written");
            if *node != self.0.id {
                let peer = Peer::new(*node, sealtide_node::world::World::now(engine.world()));
                engine.store().facts().put_peer(&peer).expect("the facts can be written");
            }
        }
        engine.grants_changed();
    }

    /// The engine, while the node is up.
    pub fn engine(&self) -> Option<Engine<SimWorld>> {
        guard(&self.0.state).running.as_ref().map(|running| running.engine.clone())
    }

    /// The world, while the node is up.
    pub fn world(&self) -> Option<SimWorld> {
        guard(&self.0.state).running.as_ref().map(|running| running.world.clone())
    }

    /// Waits until the node is up.
    pub async fn up(&self) -> Engine<SimWorld> {
        loop {
            let up = self.0.up.notified();
            if let Some(engine) = self.engine() {
                return engine;
            }
            up.await;
        }
    }

    /// Takes the node down and puts its store back to an earlier copy. What it had promised since is not promised any more.
    pub fn restore(&self, backup: MemDisk) {
        let Some(world) = self.world().filter(|world| !world.is_dead()) else { return };
        guard(&self.0.state).backup = Some(backup);
        world.crash("and is put back to a backup");
    }

    /// Decides how writes go wrong, and how long the node stays away after a crash, from now on.
    pub fn set_faults(&self, faults: Faults, away_ms: u64) {
        let mut state = guard(&self.0.state);
        state.faults = Some(Faults { crash_in: None, ..faults });
        state.away_ms = away_ms;
        if let Some(running) = &state.running {
            running.world.set_faults(faults);
        }
    }

    /// Gives a session to the engine; `false` while the node is down.
    pub fn attach(&self, session: SimSession) -> bool {
        let mut state = guard(&self.0.state);
        let Some(running) = state.running.as_mut().filter(|running| !running.world.is_dead()) else {
            drop(state);
            session.close();
            return false;
        };
        running.sessions.retain(|session| !session.is_over());
        running.tasks.retain(|task| !task.is_finished());
        running.sessions.push(session.clone());
        running.tasks.push(running.engine.attach(session));
        true
    }

    /// The sessions that this node has not seen the end of.
    pub fn sessions(&self) -> Vec<SimSession> {
        let mut state = guard(&self.0.state);
        let Some(running) = &mut state.running else { return Vec::new() };
        running.sessions.retain(|session| !session.is_over());
        running.sessions.clone()
    }

    fn watch_events(&self, engine: &Engine<SimWorld>) -> JoinHandle<()> {
        let (mut events, trace, name) = (engine.subscribe(), self.0.trace.clone(), self.0.name.clone());
        tokio::spawn(async move {
            loop {
                match events.recv().await {
                    Ok(Event::Progress(_) | Event::PeerSpaces(..)) => {}
                    Ok(Event::Changed { origin, timelines, .. }) => {
                        trace.note(&name, format_args!("moves {} timelines, brought by {origin:?}", timelines.len()));
                    }
                    Ok(event) => trace.note(&name, format_args!("{event:?}")),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        })
    }

    fn watch_crash(&self, world: &SimWorld) -> JoinHandle<()> {
        let (node, world) = (self.clone(), world.clone());
        tokio::spawn(async move {
            world.crashed().await;
            // A task of its own: this one is among those that end with the node.
            tokio::spawn(async move { node.come_back(&world).await });
        })
    }

    async fn come_back(&self, world: &SimWorld) {
        let (running, away_ms) = {
            let mut state = guard(&self.0.state);
            state.crashes += 1;
            (state.running.take(), state.away_ms)
        };
        if let Some(running) = running {
            running.sessions.iter().for_each(SimSession::cut);
            running.tasks.iter().for_each(JoinHandle::abort);
        }
        let away = guard(&self.0.dice).below(away_ms + 1);
        tokio::time::sleep(Duration::from_millis(away)).await;
        let backup = guard(&self.0.state).backup.take();
        let restored = backup.is_some();
        let image = backup.or_else(|| world.image()).expect("a crash leaves an image");
        if let Err(error) = self.start(image) {
            self.0.broken.add(format!("{} {error}", self.0.name));
            return;
        }
        if restored {
            guard(&self.0.state).promises = Promises::default();
        } else {
            self.look_back(&world.promises());
        }
        self.0.trace.note(&self.0.name, format_args!("is back"));
    }

    /// What was promised before the crash must hold after it. Proves SY-48 for every crash of every run.
    fn look_back(&self, before: &Promises) {
        let Some(engine) = self.engine() else { return };
        let mut promises = std::mem::take(&mut guard(&self.0.state).promises);
        promises.durable.extend(before.durable.clone());
        for (space, durable) in &mut promises.durable {
            let members = members(engine.store(), space);
            if let Some(lost) = durable.difference(&members).next() {
                self.0.broken.add(format!("{}: {lost} was durable and is gone after a crash", self.0.name));
            }
            let mut explained: BTreeSet<_> = durable.clone();
            let whole = before.asked.iter().filter(|(of, sids)| of == space && sids.is_subset(&members));
            whole.for_each(|(_, sids)| explained.extend(sids));
            if let Some(part) = members.difference(&explained).next() {
                self.0.broken.add(format!("{}: {part} is part of a commit that is not whole", self.0.name));
            }
            // Opening made durable what it found.
            *durable = members;
        }
        guard(&self.0.state).promises = promises;
    }
}
