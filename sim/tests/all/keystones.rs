//! Nodes with identities: they prove themselves before anything else, and sagas are signed.

use std::sync::Arc;
use std::time::Duration;

use sealtide_ibgib::Stamp;
use sealtide_identity::keystone::context_target;
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_node::engine::Event;
use sealtide_node::engine::keystones::{Connection, Keystones, NoKeystones};
use sealtide_node::world::{PeerChannel, PeerSession, World};
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::control_end::ControlEnd;
use sealtide_sim::dice::Dice;
use sealtide_sim::keystones::{Lie, PlainKeystones};
use sealtide_sim::net::{SAGA, Weather, connect};
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_sim::world::members;
use sealtide_sync::message::{HelloIdentity, Open};
use sealtide_sync::{
    AbortCode, ControlInput, Direction, Facts, Message, SagaId, SagaOutcome, Scope, SpaceView, Strategy,
};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::{sleep, timeout};

const STAMP: Stamp = Stamp { ms: 1_767_225_600_000 };

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Two nodes with identities that know each other and a space.
fn two(seed: u64) -> (Cluster, [PlainKeystones; 2], SpaceId) {
    let mut keys = Vec::new();
    let cluster = Cluster::with_keystones(2, seed, false, |id| {
        keys.push(PlainKeystones::new(id));
        Arc::new(keys[keys.len() - 1].clone())
    });
    let space = cluster.space(1);
    (cluster, keys.try_into().ok().unwrap(), space)
}

async fn commit(cluster: &Cluster, node: usize, space: SpaceId, seed: u64) {
    let record = Author::new(Dice::new(seed), cluster.nodes[node].id()).document(STAMP);
    cluster.engine(node).commit_local(space, vec![record]).await.unwrap();
}

fn ready(cluster: &Cluster, node: usize) -> bool {
    cluster.engine(node).peers().iter().any(|(_, ready)| *ready)
}

/// The greatest n of both session keystones, which both nodes agree on.
fn both_n(cluster: &Cluster, keys: &[PlainKeystones; 2]) -> [u64; 2] {
    [(0, 1), (1, 0)].map(|(this, other): (usize, usize)| {
        let own = keys[this].own_n(&cluster.nodes[other].id()).unwrap();
        assert_eq!(keys[other].peer_n(&cluster.nodes[this].id()), Some(own), "all frames arrived");
        own
    })
}

/// Proves: SY-32, SY-33
#[test]
fn connect_both_ways_and_count_the_frames() {
    in_virtual_time(async {
        let (mut cluster, keys, space) = two(1);
        commit(&cluster, 0, space, 10).await;
        cluster.keep_connected(0, 1);
        cluster.settle(60_000).await.unwrap();
        assert_eq!(both_n(&cluster, &keys), [3, 3], "connect, opening, closing");
        for round in 0..50 {
            commit(&cluster, round % 2, space, 20 + round as u64).await;
            sleep(ms(1500)).await;
        }
        cluster.settle(60_000).await.unwrap();
        cluster.check_agreement(&space).unwrap();
        assert_eq!(both_n(&cluster, &keys), [3, 3], "nothing is signed in between");
        // An orderly end signs what is left; the next connection and its first saga are three more.
        let peer = cluster.nodes[1].id();
        cluster.engine(0).close(&peer);
        cluster.settle(60_000).await.unwrap();
        assert_eq!(both_n(&cluster, &keys), [7, 7]);
    });
}

/// A reader meets a writer that commits once more at some moment while the saga opens: the writer's space moves, and the reader has
/// everything within seconds all the same.
/// Proves: SY-101
#[test]
fn a_reader_meets_a_writer_that_goes_on() {
    for (wait_ms, dialler) in (0..240).step_by(4).flat_map(|wait_ms| [(wait_ms, 0), (wait_ms, 1)]) {
        in_virtual_time(async {
            let mut cluster = Cluster::with_keystones(2, wait_ms, false, |id| {
                Arc::new(PlainKeystones::new(id)) as Arc<dyn Keystones>
            });
            let space = cluster.space_with(1, &[Role::Admin, Role::Read]);
            commit(&cluster, 0, space, 10).await;
            cluster.keep_connected(dialler, 1 - dialler);
            cluster.settle(20_000).await.unwrap();
            // Both have something by now, so the next saga goes from tip to tip.
            cluster.engine(1).close(&cluster.nodes[0].id());
            while cluster.engine(1).peers().iter().any(|(_, ready)| *ready) {
                sleep(ms(1)).await;
            }
            commit(&cluster, 0, space, 11).await;
            while !ready(&cluster, 1) {
                sleep(ms(1)).await;
            }
            sleep(ms(wait_ms)).await;
            commit(&cluster, 0, space, 12).await;
            let took = cluster.settle(20_000).await;
            assert!(took.is_ok(), "{wait_ms} ms, node {dialler} dials: {took:?}");
            let records = |node: usize| members(&cluster.engine(node).store().clone(), &space);
            assert_eq!(records(1), records(0), "{wait_ms} ms, node {dialler} dials");
        });
    }
}

/// The sagas of node 0 that ended well since the last time.
fn committed(events: &mut Receiver<Event>) -> u64 {
    let mut count = 0;
    loop {
        match events.try_recv() {
            Ok(Event::SagaEnded(report)) => {
                let fine = match &report.outcome {
                    SagaOutcome::Committed { .. } => true,
                    SagaOutcome::Aborted { code: AbortCode::Busy, .. } => false,
                    other => panic!("{other:?}"),
                };
                count += u64::from(fine);
            }
            Ok(_) => {}
            Err(TryRecvError::Lagged(missed)) => panic!("{missed} events were missed"),
            Err(_) => return count,
        }
    }
}

/// An edit in every second for an hour of virtual time, at both nodes in turn: the first saga is signed when it opens and
/// when it closes, the others about once in ten minutes.
/// Proves: SY-33
#[test]
fn an_hour_of_live_editing_adds_at_most_eight_frames_a_side() {
    in_virtual_time(async {
        let (mut cluster, keys, space) = two(33);
        cluster.keep_connected(0, 1);
        cluster.settle(60_000).await.unwrap();
        assert_eq!(both_n(&cluster, &keys), [3, 3], "connect, opening, closing");
        let (mut events, mut sagas) = (cluster.engine(0).subscribe(), 0);
        for second in 0..3600 {
            commit(&cluster, second % 2, space, 100 + second as u64).await;
            sleep(ms(1000)).await;
            sagas += committed(&mut events);
        }
        let after = both_n(&cluster, &keys);
        println!("{sagas} sagas in an hour: n = {after:?}");
        assert!(sagas >= 3500, "{sagas}");
        assert!(after.iter().all(|n| (3 + 5..=3 + 8).contains(n)), "{after:?}");
        cluster.settle(60_000).await.unwrap();
        cluster.check_agreement(&space).unwrap();
    });
}

/// Sixteen spaces at once share S and R: two frames for the first saga of each, then one for each signed context.
/// Proves: SY-33
#[test]
fn sixteen_spaces_at_once_count_each_for_itself() {
    in_virtual_time(async {
        let (mut cluster, keys, first) = two(16);
        let spaces: Vec<SpaceId> = std::iter::once(first).chain((2..=16).map(|number| cluster.space(number))).collect();
        for (number, space) in spaces.iter().enumerate() {
            commit(&cluster, number % 2, *space, 10 + number as u64).await;
        }
        cluster.keep_connected(0, 1);
        cluster.settle(60_000).await.unwrap();
        let opened = 1 + 2 * 16;
        assert_eq!(both_n(&cluster, &keys), [opened; 2], "connect, then opening and closing of each space");
        // Eleven minutes, an edit of each space in every ten seconds: one signature of each, when ten minutes are over.
        for round in 0..66u64 {
            for (number, space) in spaces.iter().enumerate() {
                commit(&cluster, (number + round as usize) % 2, *space, 1000 * round + number as u64).await;
            }
            sleep(ms(10_000)).await;
        }
        cluster.settle(60_000).await.unwrap();
        assert_eq!(both_n(&cluster, &keys), [opened + 16; 2]);
        for space in &spaces {
            cluster.check_agreement(space).unwrap();
        }
        // An orderly end signs what is left of each.
        let peer = cluster.nodes[1].id();
        cluster.engine(0).close(&peer);
        let signed = async {
            let own = cluster.nodes[0].id();
            while keys[1].peer_n(&own) < Some(opened + 32) {
                sleep(ms(1)).await;
            }
        };
        timeout(ms(2000), signed).await.expect("all frames arrived");
    });
}

/// By count: after 1,024 sagas the next one is signed, however little time has passed.
/// Proves: SY-33
#[test]
fn the_saga_after_1024_unsigned_ones_is_signed() {
    in_virtual_time(async {
        let (mut cluster, keys, space) = two(24);
        cluster.keep_connected(0, 1);
        cluster.settle(60_000).await.unwrap();
        let (mut events, mut sagas) = (cluster.engine(0).subscribe(), 0);
        let mut signed_at = None;
        for round in 0..1100u64 {
            commit(&cluster, (round % 2) as usize, space, 100 + round).await;
            sleep(ms(400)).await;
            sagas += committed(&mut events);
            if signed_at.is_none() && keys[0].own_n(&cluster.nodes[1].id()) == Some(4) {
                signed_at = Some(sagas);
            }
        }
        assert_eq!(both_n(&cluster, &keys), [4, 4]);
        // Those of the time before the first edit count too: there was one, the first of all, which was signed.
        assert!(signed_at.is_some_and(|sagas| (1024..=1026).contains(&sagas)), "{signed_at:?}");
    });
}

/// A peer that proved itself and then leaves out a signature that is due.
/// Proves: SY-33
#[test]
fn an_open_without_the_signature_that_is_due_is_refused() {
    in_virtual_time(async {
        let (cluster, keys, space) = two(8);
        let ids = [cluster.nodes[1].id(), cluster.nodes[0].id()];
        for signs in [false, true] {
            let [mine, theirs] = connect(ids, Weather::default(), Dice::new(8), &cluster.traffic);
            let binding = mine.binding().unwrap();
            assert!(cluster.nodes[0].attach(theirs));
            let control = mine.open(0, "sts/1/control").await.unwrap();
            let connection = Connection::unattended(ids[0], ids[1], true, binding);
            let mut end = ControlEnd::new(Arc::new(keys[1].clone()), connection.clone(), [7; 32]);
            let now = || cluster.nodes[0].world().unwrap().now();
            end.take(now(), ControlInput::Start).await;
            while !end.is_ready() {
                while let Some(message) = end.next_message() {
                    control.send(message).await.unwrap();
                }
                let message = timeout(ms(5000), control.recv()).await.unwrap().unwrap().unwrap();
                end.take(now(), ControlInput::Message(message)).await;
            }
            while let Some(message) = end.next_message() {
                control.send(message).await.unwrap();
            }
            let saga = mine.open(3, SAGA).await.unwrap();
            let store = cluster.engine(1).store().clone();
            let view = store.view(&space).unwrap();
            let snapshot = view.snapshot();
            let facts = Facts::of(&snapshot.tip_summary, &snapshot.item_summary);
            let open = Open {
                saga: SagaId([u8::from(signs); 32]),
                space,
                scope: Scope::All,
                direction: Direction::Both,
                strategy: Strategy::Optimistic,
                facts,
                flags: 0,
                resume: None,
                members: None,
                sig: None,
            };
            let sig = if signs {
                let plain = Message::Open(open.clone()).encode();
                let target = context_target(plain[0], &[0; 32], &plain[1..]);
                Some(keys[1].sign(connection, target).await.unwrap())
            } else {
                None
            };
            saga.send(Message::Open(Open { sig, ..open }).encode()).await.unwrap();
            let answer = timeout(ms(5000), saga.recv()).await.unwrap().unwrap().unwrap();
            match Message::decode(&answer) {
                Ok(Message::Abort { code: AbortCode::Auth, .. }) => assert!(!signs),
                Ok(Message::OpenAck(ack)) => assert!(signs && ack.sig.is_some()),
                other => panic!("{other:?}"),
            }
            mine.close();
            sleep(ms(100)).await;
        }
    });
}

/// Proves: SY-32, SY-89
#[test]
fn a_wrong_proof_is_refused() {
    for (seed, lie) in [Lie::Binding, Lie::Challenge, Lie::Role, Lie::Device].into_iter().enumerate() {
        for liar in 0..2 {
            in_virtual_time(async move {
                let (cluster, keys, space) = two(seed as u64);
                commit(&cluster, 0, space, 10).await;
                keys[liar].lie(lie);
                let [session, _] = cluster.connect(0, 1).unwrap();
                timeout(ms(15_000), session.over()).await.expect("the session ends");
                sleep(ms(100)).await;
                assert!(!ready(&cluster, 0) && !ready(&cluster, 1), "{lie:?}");
                let refusals = || [(0, 1), (1, 0)].map(|(at, of)| cluster.engine(at).refusal(&cluster.nodes[of].id()));
                let told = refusals();
                assert!(told[0].is_some() && told[0] == told[1], "both know why: {told:?}");
                keys[liar].lie(Lie::None);
                cluster.connect(0, 1).unwrap();
                sleep(ms(1000)).await;
                assert!(ready(&cluster, 0) && ready(&cluster, 1), "the truth is believed");
                assert_eq!(refusals(), [None, None]);
            });
        }
    }
}

/// Two hubs of some years meet for the first time: neither waits with reading until the other has read all that it says.
// Proves: SY-55
#[test]
fn nodes_with_long_keystones_meet() {
    in_virtual_time(async {
        let cluster = Cluster::with_keystones(2, 4, false, |id| Arc::new(PlainKeystones::of_age(id, 80)));
        cluster.space(1);
        cluster.connect(0, 1).unwrap();
        sleep(ms(5000)).await;
        assert!(ready(&cluster, 0) && ready(&cluster, 1));
    });
}

/// Proves: SY-34
#[test]
fn a_wrong_signature_ends_the_saga_and_nothing_arrives() {
    in_virtual_time(async {
        let (cluster, keys, space) = two(3);
        commit(&cluster, 0, space, 10).await;
        keys[0].lie(Lie::Target);
        cluster.connect(0, 1).unwrap();
        sleep(ms(5000)).await;
        assert!(ready(&cluster, 0));
        let known = cluster.engine(1).peer_spaces(&space);
        assert!(known.iter().any(|(_, known)| known.last_error.as_ref().is_some_and(|text| text.contains("(auth)"))));
        assert!(cluster.check_agreement(&space).is_err());
    });
}

/// Proves: SY-91
#[test]
fn a_node_with_identities_refuses_one_without() {
    for with in 0..2 {
        in_virtual_time(async move {
            let mut number = 0;
            let cluster = Cluster::with_keystones(2, 5, false, |id: NodeId| {
                number += 1;
                if number - 1 == with { Arc::new(PlainKeystones::new(id)) } else { Arc::new(NoKeystones) }
            });
            let [session, _] = cluster.connect(0, 1).unwrap();
            timeout(ms(15_000), session.over()).await.expect("the session ends");
            assert!(!ready(&cluster, with));
        });
    }
}

#[test]
fn without_a_binding_nothing_is_proved() {
    in_virtual_time(async {
        let (cluster, keys, _) = two(6);
        let ids = [cluster.nodes[0].id(), cluster.nodes[1].id()];
        let [mine, theirs] = connect(ids, Weather::default(), Dice::new(6), &cluster.traffic);
        assert!(cluster.nodes[0].attach(mine.unbound()));
        timeout(ms(100), theirs.over()).await.expect("the session is given up at once");
        assert!(!ready(&cluster, 0));
        assert_eq!(keys[0].own_n(&ids[1]), None, "nothing was signed");
    });
}

/// A peer that opens a saga before it has proved who it is.
/// Proves: SY-32
#[test]
fn a_saga_before_accept_is_refused() {
    in_virtual_time(async {
        let (cluster, _, _) = two(7);
        let ids = [cluster.nodes[1].id(), cluster.nodes[0].id()];
        let [mine, theirs] = connect(ids, Weather::default(), Dice::new(7), &cluster.traffic);
        assert!(cluster.nodes[0].attach(theirs));
        let control = mine.open(0, "sts/1/control").await.unwrap();
        let keystone = PlainKeystones::new(ids[0]).identity(&ids[1]).map(|own| own.keystone);
        let identity = HelloIdentity { keystone, ..HelloIdentity::default() };
        let hello = Message::Hello { versions: vec![1], features: 3, max_sagas: 1, identity };
        control.send(hello.encode()).await.unwrap();
        control.send(Message::Challenge([1; 32]).encode()).await.unwrap();
        let saga = mine.open(3, SAGA).await.unwrap();
        let answer = timeout(ms(5000), saga.recv()).await.unwrap().unwrap().unwrap();
        assert!(matches!(Message::decode(&answer), Ok(Message::Abort { code: AbortCode::Auth, .. })));
        // Nothing more comes of it: after 10 s without a proof the session is over.
        timeout(ms(13_000), mine.over()).await.expect("the time for the proof is over");
        assert!(!ready(&cluster, 0));
    });
}

/// Proves: SY-34
#[test]
fn fifty_cuts_between_nodes_with_identities() {
    for seed in 0..4 * scale() {
        in_virtual_time(async move {
            let (mut cluster, keys, space) = two(100 + seed);
            cluster.set_forecast(|dice| Weather {
                latency_ms: 2,
                jitter_ms: dice.below(20),
                notice_ms: 30,
                ..Weather::default()
            });
            cluster.keep_connected(0, 1);
            let mut dice = Dice::new(seed);
            for round in 0..50 {
                commit(&cluster, round % 2, space, 1000 * seed + round as u64).await;
                sleep(ms(dice.between(1, 400))).await;
                cluster.nodes[0].sessions().iter().for_each(|session| session.cut());
                cluster.nudge();
            }
            cluster.nudge();
            cluster.settle(600_000).await.unwrap();
            cluster.check_agreement(&space).unwrap();
            let [a, b] = both_n(&cluster, &keys);
            println!("seed {seed}: n = {a} and {b} after {} cuts", cluster.traffic.counts().cuts);
        });
    }
}
