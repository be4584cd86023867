//! The run of one seed: random changes under cuts, crashes and full disks; then everything heals, and all must agree.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_identity::{Role, SpaceId};
use sealtide_node::world::World;
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, Store};

use crate::author::Author;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::guard;
use crate::identities::{RealKeeper, whole_chain};
use crate::model::Model;
use crate::net::Weather;
use crate::signers::Signers;
use crate::world::Faults;

/// Virtual time that may pass between the end of all faults and the last message.
pub const QUIET_WITHIN_MS: u64 = 150_000;

/// What a run did; equal for equal seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Nodes.
    pub nodes: usize,
    /// Records that were acknowledged, in all spaces.
    pub acknowledged: usize,
    /// Sessions that were cut.
    pub cuts: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Messages on saga channels.
    pub messages: u64,
    /// Virtual ms of the whole run.
    pub total_ms: u64,
    /// Virtual ms from the end of all faults to the last message.
    pub settled_ms: u64,
    /// The digest of the members of each space at the end.
    pub digests: Vec<[u8; 32]>,
    /// Times that a node was put back to an earlier copy of its store.
    pub restores: u64,
    /// Records that were reported durable and went with that, since nobody else had them.
    pub forgotten: u64,
    /// Frames that are proven to be by who they say, and frames that say it; nothing without signers.
    pub authors: (u64, u64),
}

/// What the nodes of a run have of keystones.
#[derive(Clone, Copy)]
pub enum Keys<'a> {
    /// Nothing.
    None,
    /// Keys that sign commits.
    Signers(&'a Signers),
    /// Identities; one of the nodes is put back to an earlier copy of its store now and then.
    Restored,
}

/// One space and what must be in it.
type Shared = Vec<(SpaceId, Arc<Mutex<Model>>)>;

/// Whether nothing goes wrong for a while: a node that was put back is asking its peers what they have seen of it, and a
/// fork is ruled out only when those that saw most can answer. Clones are the same.
#[derive(Clone, Debug, Default)]
struct Calm(Arc<AtomicBool>);

impl Calm {
    fn is_now(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn begin(&self, cluster: &Cluster) {
        self.0.store(true, Ordering::Relaxed);
        for node in &cluster.nodes {
            node.set_faults(Faults { delay_ms: 2, crash_in: None }, 500);
            for session in node.sessions() {
                session.weather(|weather| weather.cut_after = None);
            }
        }
    }

    fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The node that is put back.
struct Victim {
    number: usize,
    keeper: RealKeeper,
    /// How often, and how many records went with it.
    restored: Arc<Mutex<(u64, u64)>>,
    calm: Calm,
}

/// What a run may do.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rounds: u64,
    pause_ms: u64,
    cuts: bool,
    crashes: bool,
    full_disks: bool,
    large: bool,
}

/// Plays one seed; with keys every local commit is signed, and in the end whose the frames are is looked at.
///
/// # Errors
/// The promise that was broken.
pub async fn play(
    seed: u64,
    whole_trace: bool,
    keys: Keys<'_>,
    report: impl FnOnce(&Cluster),
) -> Result<Outcome, String> {
    let mut dice = Dice::new(seed);
    let count = dice.between(2, 4) as usize;
    let mut keepers = Vec::new();
    let mut cluster = match keys {
        Keys::None => Cluster::new(count, dice.word(), whole_trace),
        Keys::Signers(signers) => Cluster::with_keystones(count, dice.word(), whole_trace, |id| signers.keeper(id)),
        Keys::Restored => Cluster::with_keepers(count, dice.word(), whole_trace, |dice| {
            let keeper = RealKeeper::new(dice.word());
            keepers.push(keeper.clone());
            (keeper.id(), Arc::new(keeper))
        }),
    };
    report(&cluster);
    let shape = Shape {
        rounds: dice.between(2, 8),
        pause_ms: *dice.pick(&[20, 300, 1500]).unwrap_or(&300),
        cuts: !dice.one_in(5),
        crashes: dice.one_in(2),
        full_disks: dice.one_in(4),
        large: dice.one_in(16),
    };
    // A reader could come to hold what nobody else has any more, and may not give it back.
    let roles = if matches!(keys, Keys::Restored) { vec![Role::Admin; count] } else { roles(&mut dice, count) };
    let shared = spaces(&mut dice, &cluster, &roles);
    cluster.trace.note("·", format_args!("{count} nodes, {roles:?}, {} spaces, {shape:?}", shared.len()));
    let calm = Calm::default();
    set_storm(&mut dice, &cluster, shape, &calm);
    draw_lines(&mut dice, &mut cluster, &roles);

    let chance = dice.split();
    let mut people = vec![tokio::spawn(accidents(cluster.clone(), shape, chance, calm.clone()))];
    let restored = Arc::new(Mutex::new((0, 0)));
    if matches!(keys, Keys::Restored) {
        let number = dice.below(count as u64) as usize;
        let victim = Victim { number, keeper: keepers[number].clone(), restored: restored.clone(), calm };
        people.push(tokio::spawn(backups(cluster.clone(), victim, shared.clone(), shape, dice.split())));
    }
    for node in (0..count).filter(|node| roles[*node] > Role::Read) {
        people.push(tokio::spawn(person(cluster.clone(), node, shared.clone(), shape, dice.split())));
    }
    for task in people {
        task.await.map_err(|error| format!("a task of the scenario failed: {error}"))?;
    }

    heal(&cluster).await;
    tokio::spawn(persons_word(keepers.clone(), cluster.clone()));
    let settled_ms = cluster.settle(QUIET_WITHIN_MS + 30_000).await?;
    if settled_ms > QUIET_WITHIN_MS {
        return Err(format!("it took {settled_ms} ms to settle"));
    }
    let (mut digests, mut proven, mut named) = (Vec::new(), 0, 0);
    for (space, model) in &shared {
        cluster.check_agreement(space)?;
        let model = guard(model).clone();
        for node in &cluster.nodes {
            let engine = node.engine().ok_or("a node is down")?;
            model.check(engine.store(), space).map_err(|what| format!("{}: {what}", node.name()))?;
        }
        digests.push(digest(&cluster, space));
        if let (Keys::Signers(signers), Some(view)) = (keys, cluster.engine(0).store().view(space)) {
            let (more, of) = signers.check(&cluster, &view)?;
            (proven, named) = (proven + more, named + of);
        }
    }
    cluster.verify()?;
    check_devices(&keepers)?;
    let counts = cluster.traffic.counts();
    let (restores, forgotten) = *guard(&restored);
    Ok(Outcome {
        nodes: count,
        acknowledged: shared.iter().map(|(_, model)| guard(model).acknowledged_count()).sum(),
        cuts: counts.cuts,
        crashes: cluster.nodes.iter().map(crate::node::SimNode::crashes).sum(),
        messages: counts.messages,
        total_ms: cluster.trace.elapsed_ms(),
        settled_ms,
        digests,
        restores,
        forgotten,
        authors: (proven, named),
    })
}

fn digest(cluster: &Cluster, space: &SpaceId) -> [u8; 32] {
    let sids = crate::world::members(cluster.engine(0).store(), space);
    let bytes: Vec<&[u8]> = sids.iter().map(|sid| sid.as_bytes().as_slice()).collect();
    sealtide_crypto::sha256_parts(&bytes)
}

/// Everybody may do everything; now and then the last node may only read.
fn roles(dice: &mut Dice, count: usize) -> Vec<Role> {
    let mut roles = vec![Role::Admin; count];
    if count > 2 && dice.one_in(5) {
        roles[count - 1] = Role::Read;
    }
    roles
}

fn spaces(dice: &mut Dice, cluster: &Cluster, roles: &[Role]) -> Shared {
    let count = if dice.one_in(4) { 2 } else { 1 };
    (0..count)
        .map(|_| {
            let space = cluster.space_with(dice.word(), roles);
            let mut model = Model::default();
            let view = cluster.engine(0).store().view(&space).expect("it was just made");
            let first: Vec<_> = crate::world::members(cluster.engine(0).store(), &space)
                .iter()
                .filter_map(|sid| sealtide_sync::SpaceView::record(&view, sid))
                .collect();
            model.made(&first);
            model.acknowledged(&first);
            (space, Arc::new(Mutex::new(model)))
        })
        .collect()
}

/// A tree that joins all, and perhaps some lines more. Who may only read hangs on one line.
fn draw_lines(dice: &mut Dice, cluster: &mut Cluster, roles: &[Role]) {
    let count = roles.len();
    for node in 1..count {
        let other = dice.below(node as u64) as usize;
        let (from, to) = if dice.one_in(2) { (node, other) } else { (other, node) };
        cluster.keep_connected(from, to);
    }
    for (node, role) in roles.iter().enumerate().skip(2) {
        let other = dice.below(node as u64) as usize;
        let there = cluster.edges.iter().any(|edge| [(node, other), (other, node)].contains(edge));
        if dice.one_in(2) && !there && *role > Role::Read {
            cluster.keep_connected(node, other);
        }
    }
}

fn set_storm(dice: &mut Dice, cluster: &Cluster, shape: Shape, calm: &Calm) {
    let latency_ms = *dice.pick(&[0, 2, 30, 200]).unwrap_or(&2);
    let calm = calm.clone();
    cluster.set_forecast(move |dice| Weather {
        latency_ms,
        jitter_ms: dice.below(latency_ms + 1),
        cut_after: (shape.cuts && !dice.one_in(3)).then(|| dice.between(2, 60)).filter(|_| !calm.is_now()),
        notice_ms: if dice.one_in(4) { 3000 } else { 0 },
        saga_rate: [None; 2],
    });
    for node in &cluster.nodes {
        let delay_ms = *dice.pick(&[0, 5, 40]).unwrap_or(&5);
        let crash_in = (shape.crashes && dice.one_in(2)).then(|| dice.between(1, 12));
        node.set_faults(Faults { delay_ms, crash_in }, 2500);
    }
}

/// Somebody at a node, who changes things.
async fn person(cluster: Cluster, number: usize, shared: Shared, shape: Shape, mut dice: Dice) {
    let node = &cluster.nodes[number];
    let mut author = Author::new(dice.split(), node.id());
    author.large = shape.large;
    for _ in 0..shape.rounds {
        tokio::time::sleep(Duration::from_millis(dice.below(shape.pause_ms + 1))).await;
        let engine = node.up().await;
        let Some((space, model)) = dice.pick(&shared) else { return };
        let Some(view) = engine.store().view(space) else { continue };
        let change = author.change(&view, engine.world().now().wall_ms);
        guard(model).made(&change.records);
        let put = change.chunks.iter().try_for_each(|(hash, bytes)| engine.store().put_chunk(*hash, bytes));
        if let Err(error) = put {
            cluster.trace.note(node.name(), format_args!("cannot put a chunk: {error}"));
            continue;
        }
        let work = engine.commit_local(*space, change.records.clone());
        let done = tokio::select! {
            biased;
            done = work => done.map_err(|error| error.to_string()),
            () = engine.world().crashed() => Err("the node crashed".to_owned()),
        };
        let (what, records) = (change.what, change.records.len());
        match done {
            Ok(_) => {
                guard(model).acknowledged(&change.records);
                cluster.trace.note(node.name(), format_args!("{what} of {records} records"));
            }
            Err(error) => cluster.trace.note(node.name(), format_args!("{what} failed: {error}")),
        }
    }
}

/// What goes wrong from outside: the power, the disk, the line.
async fn accidents(cluster: Cluster, shape: Shape, mut dice: Dice, calm: Calm) {
    for _ in 0..shape.rounds {
        tokio::time::sleep(Duration::from_millis(dice.below(shape.pause_ms * 2 + 1))).await;
        if calm.is_now() {
            continue;
        }
        let Some(node) = dice.pick(&cluster.nodes) else { return };
        match dice.below(8) {
            0 | 1 if shape.crashes => {
                if let Some(world) = node.world() {
                    world.crash("by accident");
                }
            }
            2 | 3 if shape.full_disks => {
                let Some(world) = node.world() else { continue };
                let room = dice.below(3000);
                world.disk().set_capacity(Some(world.disk().used() + room));
                cluster.trace.note(node.name(), format_args!("has {room} bytes left"));
                tokio::time::sleep(Duration::from_millis(dice.below(2000))).await;
                world.disk().set_capacity(None);
                cluster.trace.note(node.name(), format_args!("has room again"));
            }
            4 if shape.full_disks => {
                if let Some(world) = node.world() {
                    world.disk().fail_next_sync();
                }
            }
            5 | 6 if shape.cuts => {
                if let Some(session) = dice.pick(&node.sessions()) {
                    session.cut();
                    cluster.trace.note(node.name(), format_args!("loses a line"));
                }
            }
            _ => {}
        }
    }
}

/// Keeps a copy of the store of one node, and puts the node back to it, some time later and more than once.
async fn backups(cluster: Cluster, victim: Victim, shared: Shared, shape: Shape, mut dice: Dice) {
    let node = &cluster.nodes[victim.number];
    let mut copy: Option<MemDisk> = None;
    for _ in 0..shape.rounds + 2 {
        tokio::time::sleep(Duration::from_millis(dice.below(shape.pause_ms * 2 + 200))).await;
        for node in &cluster.nodes {
            node.up().await;
        }
        let (false, Some(world)) = (cluster.nodes.iter().any(|node| node.engine().is_none()), node.world()) else {
            continue;
        };
        if world.is_dead() {
            continue;
        }
        let Some(backup) = copy.take().filter(|_| !dice.one_in(3)) else {
            copy = Some(world.disk().copy());
            cluster.trace.note(node.name(), format_args!("is backed up"));
            continue;
        };
        let gone = forget(&cluster, victim.number, &backup, &shared);
        cluster.trace.note(node.name(), format_args!("{gone} records are nowhere but here"));
        victim.calm.begin(&cluster);
        node.restore(backup.copy());
        ask_around(&cluster, &victim).await;
        let mut restored = guard(&victim.restored);
        *restored = (restored.0 + 1, restored.1 + gone as u64);
        copy = Some(backup).filter(|_| dice.one_in(2));
    }
}

/// Gives a node that was put back the time to hear what its peers have seen of it.
async fn ask_around(cluster: &Cluster, victim: &Victim) {
    tokio::time::sleep(Duration::from_millis(1)).await;
    cluster.nodes[victim.number].up().await;
    for _ in 0..80 {
        cluster.nudge();
        tokio::time::sleep(Duration::from_millis(250)).await;
        if victim.keeper.identities().doubt().is_none() {
            break;
        }
    }
    victim.calm.end();
}

/// Works out by hand what survives when a node is put back: what the copy has, and what any other node has.
fn forget(cluster: &Cluster, victim: usize, backup: &MemDisk, shared: &Shared) -> usize {
    let copy = Store::open(Arc::new(backup.copy()), Config::default());
    let others = cluster.nodes.iter().enumerate().filter(|(number, _)| *number != victim);
    let others: Vec<Store> =
        others.filter_map(|(_, node)| node.engine()).map(|engine| engine.store().clone()).chain(copy.ok()).collect();
    let gone = shared.iter().map(|(space, model)| {
        let held = others.iter().flat_map(|store| crate::world::members(store, space)).collect();
        guard(model).forget_all_but(&held)
    });
    gone.sum()
}

/// Where no peer can vouch for a node that was put back, since none has ever seen a frame of it, a person does.
async fn persons_word(keepers: Vec<RealKeeper>, cluster: Cluster) {
    tokio::time::sleep(Duration::from_secs(30)).await;
    for (keeper, node) in keepers.iter().zip(&cluster.nodes) {
        if keeper.settle_doubt() {
            cluster.trace.note(node.name(), format_args!("is believed by a person"));
        }
    }
}

/// No device keystone is forked or broken anywhere, whatever was put back.
fn check_devices(keepers: &[RealKeeper]) -> Result<(), String> {
    for device in keepers.iter().filter_map(|keeper| keeper.identities().device()) {
        for held in keepers.iter().map(RealKeeper::identities) {
            if !held.frames_of(&device).is_empty() {
                whole_chain(&held, &device)?;
            }
        }
    }
    Ok(())
}

/// No more faults. Nodes that are down come back by themselves.
async fn heal(cluster: &Cluster) {
    cluster.trace.note("·", format_args!("everything heals"));
    cluster.set_forecast(|_| Weather { latency_ms: 5, ..Weather::default() });
    for node in &cluster.nodes {
        node.up().await;
        node.set_faults(Faults { delay_ms: 2, crash_in: None }, 500);
        for session in node.sessions() {
            session.weather(|weather| weather.cut_after = None);
        }
    }
    cluster.nudge();
}
