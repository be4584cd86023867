//! Nodes with identities: they prove themselves before anything else, and sagas are signed.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the first error ends them")]

use std::sync::Arc;
use std::time::Duration;

use sealtide_ibgib::Stamp;
use sealtide_identity::{NodeId, SpaceId};
use sealtide_node::engine::keystones::{Keystones, NoKeystones};
use sealtide_node::world::{PeerChannel, PeerSession};
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::keystones::{Lie, PlainKeystones};
use sealtide_sim::net::{SAGA, Weather, connect};
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_sync::message::HelloIdentity;
use sealtide_sync::{AbortCode, Message};
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
                keys[liar].lie(Lie::None);
                cluster.connect(0, 1).unwrap();
                sleep(ms(1000)).await;
                assert!(ready(&cluster, 0) && ready(&cluster, 1), "the truth is believed");
            });
        }
    }
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
        assert!(known.iter().any(|(_, known)| known.last_error.as_ref().is_some_and(|text| text.contains("Auth"))));
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
