//! Nodes with real identities: what both hold of each other's keystones after a commit, and power that fails at every
//! write of a signed saga.

#![expect(clippy::print_stdout, reason = "says what it ran, as every long test does")]

use std::sync::Arc;
use std::time::Duration;

use sealtide_crypto::sha512_parts;
use sealtide_ibgib::{Address, Stamp, Verified, space_genesis};
use sealtide_identity::keystone::{Class, Frame, SessionScope, Standing};
use sealtide_identity::members::{Member, Members};
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_node::engine::Engine;
use sealtide_node::world::World;
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::identities::{RealKeeper, whole_chain};
use sealtide_sim::model::Model;
use sealtide_sim::net::Weather;
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_sim::world::SimWorld;
use sealtide_sync::SpaceView;
use tokio::time::sleep;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two nodes with identities.
fn nodes(seed: u64) -> (Cluster, [RealKeeper; 2]) {
    let mut keepers = Vec::new();
    let cluster = Cluster::with_keepers(2, seed, false, |dice| {
        let keeper = RealKeeper::new(dice.word());
        keepers.push(keeper.clone());
        (keeper.id(), Arc::new(keeper))
    });
    (cluster, keepers.try_into().ok().unwrap())
}

/// Two nodes with identities that share a space.
fn two(seed: u64) -> (Cluster, [RealKeeper; 2], SpaceId) {
    let (cluster, keepers) = nodes(seed);
    let space = cluster.space(1);
    (cluster, keepers, space)
}

/// Two nodes with identities, and a space of the first one that goes by members frames: the second may write.
fn two_members(seed: u64) -> (Cluster, [RealKeeper; 2], SpaceId) {
    let (cluster, keepers) = nodes(seed);
    let [admin, writer] = [0, 1].map(|node: usize| cluster.nodes[node].id());
    let stamp = Stamp { ms: 1_767_225_600_000 };
    let first = space_genesis("space", "data", &admin.to_string(), stamp, &format!("{:064x}", 1));
    let digit = |at: usize| u8::from_str_radix(&first.address().gib()[2 * at..][..2], 16).unwrap();
    let space = SpaceId::from_bytes(std::array::from_fn(digit));
    let engine = cluster.engine(0);
    let founder = engine.first_members(space).unwrap().unwrap();
    let mut list = Members::read(&founder).unwrap();
    let device = keepers[1].identities().device().unwrap();
    list.insert(Member { keystone: device, nodes: [writer].into(), role: Role::Write, since_ms: stamp.ms });
    let next = list.next_frame(&founder, engine_stamp(&cluster)).unwrap();
    keepers[0].identities().post(next.address()).unwrap();
    assert_eq!(engine.create_space_with(first, vec![founder, next]).unwrap(), space);
    cluster.engine(1).store().adopt_space(space).unwrap();
    let grants = [(admin, Role::Admin), (writer, Role::Write)];
    cluster.nodes.iter().for_each(|node| node.share(space, &grants));
    (cluster, keepers, space)
}

fn engine_stamp(cluster: &Cluster) -> Stamp {
    Stamp { ms: cluster.engine(0).world().now().wall_ms }
}

/// The first node makes one more node a member, unless it goes down over it.
async fn admit(cluster: &Cluster, keepers: &[RealKeeper; 2], space: SpaceId, number: u8, model: &mut Model) {
    let engine = cluster.nodes[0].up().await;
    let Some(members) = engine.members(&space) else { return };
    let mut list = members.newest.members.clone();
    let keystone = Address::of("keystone", &format!("{number:064X}")).unwrap();
    let nodes = [NodeId::from_bytes([number; 32])].into();
    list.insert(Member { keystone, nodes, role: Role::Read, since_ms: u64::from(number) });
    let next = list.next_frame(&members.newest.frame, engine_stamp(cluster)).unwrap();
    if keepers[0].identities().post(next.address()).is_err() {
        return;
    }
    commit(&engine, space, next, model).await;
}

/// A new document of a node; `None` when the node went down over it.
async fn document(cluster: &Cluster, node: usize, space: SpaceId, seed: u64, model: &mut Model) -> Option<Verified> {
    let stamp = Stamp { ms: 1_767_225_600_000 + seed };
    let record = Author::new(Dice::new(seed), cluster.nodes[node].id()).document(stamp);
    let engine = cluster.nodes[node].up().await;
    commit(&engine, space, record, model).await
}

async fn commit(engine: &Engine<SimWorld>, space: SpaceId, record: Verified, model: &mut Model) -> Option<Verified> {
    model.made(std::slice::from_ref(&record));
    let world = engine.world().clone();
    let done = tokio::select! {
        biased;
        done = engine.commit_local(space, vec![record.clone()]) => done.is_ok(),
        () = world.crashed() => false,
    };
    if done {
        model.acknowledged(std::slice::from_ref(&record));
    }
    done.then_some(record)
}

/// The session keystones that the frames of a device authorise for a peer's device, with the frame's n.
fn sessions(device: &[Frame], peer: &Address) -> Vec<(u64, Address)> {
    let scoped = device.iter().filter_map(|frame| {
        let claim = frame.claim()?;
        let scope = SessionScope::parse(claim.scope.as_deref()?)?;
        (claim.verb == "sync" && scope.peer == *peer).then(|| (frame.facts().n, claim.target_address().unwrap()))
    });
    scoped.collect()
}

/// The ids that the claim of a session's frame demands, worked out from the words of ibgib §12.4: with t = 8 and k = 2.
fn demanded(before: &Frame, target: &str) -> Vec<String> {
    let ids: Vec<String> = before.pool("connect").unwrap().ids().map(|id| id.to_string()).collect();
    let digest = sha512_parts(&[b"sealtide/demand/1\0", target.as_bytes()]);
    let mut found: Vec<usize> = Vec::new();
    for block in 0u32.. {
        for word in sha512_parts(&[&digest, &block.to_be_bytes()]).chunks_exact(2) {
            let position = usize::from(u16::from_be_bytes([word[0], word[1]])) % 8;
            if found.len() < 2 && !found.contains(&position) {
                found.push(position);
            }
        }
        if found.len() == 2 {
            break;
        }
    }
    found.into_iter().map(|position| ids[position].clone()).collect()
}

/// SC-1 over the driver with real keystones: A has records, B nothing. Afterwards both hold I1, which authorises S for B,
/// and J1, which authorises R for A, and S and R whole: first frame, connect, opening, closing. Neither asked the other for
/// challenges: the two had never met, and the demands follow from the target.
/// Proves: SY-33, SY-35, SY-88
#[test]
fn sc_1_leaves_both_authorisations_and_both_sessions_whole_on_both_sides() {
    in_virtual_time(async {
        let (mut cluster, keepers, space) = two(1);
        let mut model = Model::default();
        for number in 0..3 {
            document(&cluster, 0, space, number, &mut model).await.unwrap();
        }
        let devices = [0, 1].map(|node: usize| keepers[node].identities().device().unwrap());
        for (node, keeper) in keepers.iter().enumerate() {
            let frames = whole_chain(&keeper.identities(), &devices[node]).unwrap();
            assert_eq!(frames.len(), 1, "I and J before they meet");
        }
        cluster.keep_connected(0, 1);
        cluster.settle(60_000).await.unwrap();
        cluster.check_agreement(&space).unwrap();
        for holder in &keepers {
            let held = holder.identities();
            for (own, peer) in [(0, 1), (1, 0)] {
                let device = whole_chain(&held, &devices[own]).unwrap();
                assert_eq!(device.len(), 2, "one frame more: I1, J1");
                let authorised = sessions(&device, &devices[peer]);
                let [(1, first)] = authorised.as_slice() else { panic!("{authorised:?}") };
                let session = whole_chain(&held, first).unwrap();
                assert_eq!(session.len(), 4, "n = 3 after the first saga");
                assert_eq!(Standing::first(session[0].clone()).unwrap().class(), Class::Session);
                let verbs: Vec<_> = session.iter().map(|frame| frame.claim().map(|claim| claim.verb.clone())).collect();
                let [connect, sync] = ["connect", "sync"].map(|verb| Some(verb.to_owned()));
                assert_eq!(verbs, [None, connect, sync.clone(), sync]);
                let on_the_other = whole_chain(&keepers[peer].identities(), first).unwrap();
                let addresses =
                    |frames: &[Frame]| frames.iter().map(|frame| frame.address().clone()).collect::<Vec<_>>();
                assert_eq!(addresses(&session), addresses(&on_the_other), "the same frames on both sides");
            }
        }
    });
}

/// Each frame of S spends exactly the two challenges that its claim demands, and puts two new ones in their place.
/// Proves: SY-33, SY-88
#[test]
fn exactly_the_demanded_challenges_are_spent() {
    in_virtual_time(async {
        let (cluster, keepers, space) = two(2);
        let mut model = Model::default();
        // Three connections with a saga each: connect, opening, closing.
        for round in 0..3 {
            document(&cluster, 0, space, 10 + round, &mut model).await.unwrap();
            let [near, _] = cluster.connect(0, 1).unwrap();
            sleep(ms(5_000)).await;
            near.cut();
            sleep(ms(100)).await;
        }
        let devices = [0, 1].map(|node: usize| keepers[node].identities().device().unwrap());
        for (own, peer) in [(0, 1), (1, 0)] {
            let held = keepers[peer].identities();
            let device = whole_chain(&held, &devices[own]).unwrap();
            let authorised = sessions(&device, &devices[peer]);
            assert_eq!(authorised.len(), 1, "the session is used again");
            let frames = whole_chain(&held, &authorised[0].1).unwrap();
            assert_eq!(frames.len(), 10, "n = 3 after the first saga, 3 more for each connection with a saga");
            for pair in frames.windows(2) {
                let [before, after] = pair else { unreachable!() };
                let ids = |frame: &Frame| -> Vec<String> {
                    frame.pool("connect").unwrap().ids().map(|id| id.to_string()).collect()
                };
                let (was, is) = (ids(before), ids(after));
                let spent: Vec<_> = was.iter().filter(|id| !is.contains(id)).cloned().collect();
                let proof = &after.proofs[0];
                let solved: Vec<String> = proof.solutions.iter().map(|solution| solution.id.to_string()).collect();
                let asked = demanded(before, &after.claim().unwrap().target);
                assert_eq!(proof.demanded.iter().map(ToString::to_string).collect::<Vec<_>>(), asked);
                let sorted = |mut ids: Vec<String>| {
                    ids.sort();
                    ids
                };
                assert_eq!(sorted(solved), sorted(asked.clone()), "solved");
                assert_eq!(sorted(spent), sorted(asked), "spent");
                assert_eq!(is.len(), 8, "topped up");
            }
        }
    });
}

/// What two nodes do until both have what the other made: connect, a signed saga, another one, a new connection.
async fn story(cluster: &mut Cluster, space: SpaceId, model: &mut Model) {
    document(cluster, 0, space, 1, model).await;
    document(cluster, 1, space, 2, model).await;
    cluster.keep_connected(0, 1);
    sleep(ms(1_500)).await;
    document(cluster, 0, space, 3, model).await;
    sleep(ms(1_500)).await;
    document(cluster, 1, space, 4, model).await;
    cluster.nodes[0].sessions().iter().for_each(|session| session.cut());
    cluster.nudge();
    sleep(ms(3_000)).await;
}

/// As [`story`], in a space whose members change meanwhile.
async fn story_of_members(cluster: &mut Cluster, keepers: &[RealKeeper; 2], space: SpaceId, model: &mut Model) {
    document(cluster, 0, space, 1, model).await;
    cluster.keep_connected(0, 1);
    sleep(ms(1_500)).await;
    admit(cluster, keepers, space, 7, model).await;
    document(cluster, 1, space, 2, model).await;
    sleep(ms(1_500)).await;
    document(cluster, 0, space, 3, model).await;
    admit(cluster, keepers, space, 8, model).await;
    cluster.nodes[0].sessions().iter().for_each(|session| session.cut());
    cluster.nudge();
    sleep(ms(3_000)).await;
}

/// Both ends name the same members.
fn same_members(cluster: &Cluster, space: SpaceId) -> Result<(), String> {
    let of = |node: usize| cluster.engine(node).members(&space).map(|members| members.newest.frame.address().clone());
    match (of(0), of(1)) {
        (Some(left), Some(right)) if left == right => Ok(()),
        (left, right) => Err(format!("the members are {left:?} and {right:?}")),
    }
}

/// Nothing that was shown is signed twice, and both ends agree in the end.
async fn aftermath(cluster: &Cluster, keepers: &[RealKeeper; 2], space: SpaceId, model: &Model) -> Result<(), String> {
    for node in &cluster.nodes {
        node.up().await;
    }
    cluster.nudge();
    cluster.settle(200_000).await?;
    cluster.check_agreement(&space)?;
    for node in 0..2 {
        model.check(cluster.engine(node).store(), &space)?;
        for holder in keepers {
            let held = holder.identities();
            let device = keepers[node].identities().device().ok_or("no device")?;
            let frames = whole_chain(&held, &device)?;
            let peer = keepers[1 - node].identities().device().ok_or("no device")?;
            for (_, session) in sessions(&frames, &peer) {
                // Frames that were made and not shown before the power failed may be with their maker only.
                whole_chain(&held, &session)?;
            }
        }
    }
    cluster.verify()
}

/// The power of either node fails at every write of its disk in turn, those of the identity store included.
/// Proves: SY-25, SY-48
#[test]
fn power_that_fails_at_any_write_of_signed_sagas() {
    power_fails_at_every_write(false);
}

/// The same where members frames say who may write, and change: no frame is held, and none lost.
/// Proves: SY-48, SY-102
#[test]
fn power_that_fails_at_any_write_while_members_change() {
    power_fails_at_every_write(true);
}

async fn play(members: bool, cluster: &mut Cluster, keepers: &[RealKeeper; 2], space: SpaceId, model: &mut Model) {
    match members {
        true => story_of_members(cluster, keepers, space, model).await,
        false => story(cluster, space, model).await,
    }
}

async fn end(
    members: bool,
    cluster: &Cluster,
    keepers: &[RealKeeper; 2],
    space: SpaceId,
    model: &Model,
) -> Result<(), String> {
    aftermath(cluster, keepers, space, model).await?;
    if members { same_members(cluster, space) } else { Ok(()) }
}

fn power_fails_at_every_write(members: bool) {
    let (mut runs, mut crashes) = (0, 0);
    for seed in 40..40 + scale() {
        let [more, down] = power_fails_with(members, seed);
        (runs, crashes) = (runs + more, crashes + down);
    }
    println!("{runs} runs, {crashes} with a crash");
    assert!(crashes * 10 >= runs * 9, "{crashes} of {runs}");
}

fn power_fails_with(members: bool, seed: u64) -> [u64; 2] {
    let begin = || if members { two_members(seed) } else { two(seed) };
    let calls_of = |victim: usize| {
        in_virtual_time(async move {
            let (mut cluster, keepers, space) = begin();
            let mut model = first_model(&cluster, space);
            let before = cluster.nodes[victim].world().unwrap().disk().calls();
            play(members, &mut cluster, &keepers, space, &mut model).await;
            let calls = cluster.nodes[victim].world().unwrap().disk().calls() - before;
            end(members, &cluster, &keepers, space, &model).await.unwrap();
            calls
        })
    };
    let (mut runs, mut crashes) = (0, 0);
    for victim in 0..2 {
        let calls = calls_of(victim);
        assert!(calls > 40, "{calls}");
        for call in 1..=calls {
            runs += 1;
            crashes += in_virtual_time(async move {
                let (mut cluster, keepers, space) = begin();
                cluster.set_forecast(|_| Weather { latency_ms: 2, ..Weather::default() });
                let mut model = first_model(&cluster, space);
                let world = cluster.nodes[victim].world().unwrap();
                let at = world.disk().calls() + call;
                world.disk().fail_from(Some(at));
                // The disk takes nothing from this call on; the node is off as soon as it has been asked.
                tokio::spawn(async move {
                    while world.disk().calls() < at {
                        sleep(ms(1)).await;
                    }
                    world.crash("as the power fails");
                });
                play(members, &mut cluster, &keepers, space, &mut model).await;
                let crashed = cluster.nodes[victim].crashes();
                if let Some(world) = cluster.nodes[victim].world().filter(|_| crashed == 0) {
                    world.disk().fail_from(None);
                }
                let after = end(members, &cluster, &keepers, space, &model).await;
                after.unwrap_or_else(|what| {
                    panic!("seed {seed}, node {victim}, write {call}: {what}\n{}", cluster.trace.text())
                });
                u64::from(crashed > 0)
            });
        }
    }
    [runs, crashes]
}

/// A model that knows the first frame of a space.
fn first_model(cluster: &Cluster, space: SpaceId) -> Model {
    let mut model = Model::default();
    let view = cluster.engine(0).store().view(&space).unwrap();
    let first: Vec<Verified> = view.bulk(None, usize::MAX).iter().filter_map(|(_, sid)| view.record(sid)).collect();
    model.made(&first);
    model.acknowledged(&first);
    model
}
