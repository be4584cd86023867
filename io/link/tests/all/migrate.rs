//! Sessions that outlive their connections: cuts, stalls and black holes under load, suspension, peers that forget.

use std::time::Duration;

use crate::harness::chaos::{Chaos, Weather};
use crate::harness::{Node, check_all, key, node_with, send_all, soon, talk, until, wired};
use bytes::Bytes;
use sealtide_identity::RelayHint;
use sealtide_link::{Admit, LinkConfig, Relay, RelayConfig, Session, SessionEnd};
use tokio::time::sleep;

fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1u64).max(1)
}

/// Talks in both directions while `harm` is done again and again, each time that as many bytes have passed.
async fn talk_through(ours: &Session, theirs: &Session, chaos: &Chaos, every: u64, harm: impl Fn(u64)) {
    let harming = async {
        for round in 0.. {
            let before = chaos.bytes();
            while chaos.bytes() < before + every {
                sleep(Duration::from_millis(1)).await;
            }
            harm(round);
        }
    };
    let talking = talk(ours, theirs, 6, 120 * scale(), 100_000);
    tokio::time::timeout(Duration::from_secs(60 * scale()), async {
        tokio::select! { () = talking => {} () = harming => {} }
    })
    .await
    .expect("the talk does not end");
}

// Proves: LK-35
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrate_load() {
    let (a, b, chaos, ours, theirs) = wired(100, |_| {}).await;
    let binding = ours.binding();
    talk_through(&ours, &theirs, &chaos, 4 << 20, |_| chaos.cut()).await;
    let dialled = || a.link.metrics().rehandshakes_dialled;
    until("the last path is known at both ends", || dialled() == b.link.metrics().rehandshakes_accepted).await;
    let (near, far) = (a.link.metrics(), b.link.metrics());
    println!("{} cuts, {} frames sent again", near.suspensions, near.frames_retransmitted + far.frames_retransmitted);
    assert!(near.suspensions >= 5 && near.frames_retransmitted + far.frames_retransmitted > 0, "{near:?}");
    assert!(near.rehandshakes_dialled >= 5);
    assert_eq!((near.handshakes_dialled, near.sessions_lost, far.sessions_lost), (1, 0, 0), "no full handshake");
    // Spec: LK-96
    assert_eq!((ours.binding(), theirs.binding()), (binding, binding));
    assert_eq!((ours.end(), theirs.end()), (None, None));
}

fn impatient(config: &mut LinkConfig) {
    (config.session.busy_ms, config.session.pong_ms, config.session.progress_ms) = (100, 100, 400);
}

// Proves: LK-38, LK-39
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalls_and_black_holes_are_left() {
    let storms = [
        Weather::Stalled,
        Weather::Swallowed { to_listener: true, to_dialler: true },
        Weather::Swallowed { to_listener: true, to_dialler: false },
        Weather::Swallowed { to_listener: false, to_dialler: true },
    ];
    for weather in storms {
        let (a, b, chaos, ours, theirs) = wired(110, impatient).await;
        // Once, in the middle.
        let harmed = std::sync::atomic::AtomicBool::new(false);
        talk_through(&ours, &theirs, &chaos, 4 << 20, |_| {
            if !harmed.swap(true, std::sync::atomic::Ordering::Relaxed) {
                chaos.weather(weather);
            }
        })
        .await;
        let (near, far) = (a.link.metrics(), b.link.metrics());
        assert!(near.rehandshakes_dialled >= 1, "{weather:?}: {near:?}");
        assert_eq!((near.sessions_lost, far.sessions_lost, near.handshakes_dialled), (0, 0, 1), "{weather:?}");
    }
}

/// A direct path falls silent, its session goes to a relay, and then the silent path ends behind its back: that one is gone is a reason
/// to look for another.
// Proves: LK-37
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_direct_way_that_is_back_is_taken_again() {
    let relay = RelayConfig::new(key(99), Admit::Open);
    let relay = Relay::open(relay, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let hint = RelayHint { relay: relay.id(), url: format!("wss://{}", relay.address()) };
    let (a, b, chaos, ours, theirs) = wired(150, impatient).await;
    [&a, &b].into_iter().for_each(|node| node.link.use_relay(&hint, None));
    let is_up = |node: &Node| node.link.relays().iter().all(|relay| relay.up);
    until("both are logged in", || is_up(&a) && is_up(&b)).await;
    assert_eq!(ours.info().path, Some("direct"));
    chaos.open(false);
    chaos.weather(Weather::Swallowed { to_listener: true, to_dialler: true });
    until("the relay carries the session", || ours.info().path == Some("relay")).await;
    until("the silent path is gone", || ours.info().paths == 1 && theirs.info().paths == 1).await;
    chaos.open(true);
    until("the direct way is taken", || ours.info().path == Some("direct")).await;
    assert_eq!((ours.end(), theirs.end()), (None, None));
}

// Proves: LK-40
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_resume() {
    let (a, _b, chaos, ours, theirs) = wired(120, |_| {}).await;
    chaos.open(false);
    chaos.cut();
    until("suspended at both ends", || ours.is_suspended() && theirs.is_suspended()).await;
    let info = ours.info();
    assert_eq!((info.path, info.paths), (None, 0));
    assert_eq!(info.why_not_direct.map(|why| why.word()), Some("trying"));
    // What is sent meanwhile waits, and no more of it than the buffers hold.
    let (channel, sent) = (ours.open(3, "bulk").unwrap(), 200);
    let sending = tokio::spawn(send_all(channel.clone(), 9, sent, 100_000));
    until("a dial failed", || ours.info().why_not_direct.map(|why| why.word()) == Some("unreachable")).await;
    assert!(!sending.is_finished(), "ten megabytes do not fit");
    chaos.open(true);
    let other = soon(theirs.accept_channel()).await.unwrap();
    soon(check_all(other, 9, sent, 100_000)).await;
    soon(sending).await.unwrap();
    assert_eq!((a.link.metrics().suspensions, a.link.metrics().sessions_lost), (1, 0));
    assert_eq!((ours.info().path, ours.info().why_not_direct), (Some("direct"), None));
}

/// Both ends of a channel over which forty messages went, each of them acknowledged: 41 frames with the one that opened it.
async fn forty(ours: &Session, theirs: &Session) -> [sealtide_link::Channel; 2] {
    let channel = ours.open(1, "notes").unwrap();
    for n in 0..40u8 {
        channel.send(Bytes::from(vec![n])).await.unwrap();
    }
    let other = soon(theirs.accept_channel()).await.unwrap();
    for _ in 0..40 {
        soon(other.recv()).await.unwrap().unwrap();
    }
    until("acknowledged", || ours.info().unacked_bytes == 0).await;
    [channel, other]
}

// Proves: LK-41
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn suspend_expire() {
    let (a, b, chaos, ours, theirs) = wired(130, |config| config.session.suspend_ms = 300).await;
    let [channel, _other] = forty(&ours, &theirs).await;
    chaos.open(false);
    chaos.cut();
    channel.send(Bytes::from_static(b"never arrives")).await.unwrap();
    assert!(matches!(soon(ours.closed()).await, SessionEnd::Lost { acked: 41.. }), "{:?}", ours.end());
    assert!(matches!(soon(theirs.closed()).await, SessionEnd::Lost { .. }));
    assert!(channel.send(Bytes::new()).await.is_err());
    assert_eq!((a.link.metrics().sessions_lost, b.link.metrics().sessions_lost), (1, 1));
    chaos.open(true);
    let again = soon(a.link.dial(crate::harness::target(b.id(), &[chaos.address]))).await.unwrap();
    assert_ne!(again.binding(), ours.binding());
}

// Proves: LK-34
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peer_restart() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 140..148 {
        let (a, b, chaos, ours, theirs) = wired(seed, |_| {}).await;
        orders.insert(a.id() < b.id());
        let _channels = forty(&ours, &theirs).await;
        // The same key in a new process, in the same place.
        let reborn = node_with(seed + 1, |_| {}).await;
        reborn.allow(&a);
        chaos.lead_to(reborn.address);
        chaos.cut();
        assert!(matches!(soon(ours.closed()).await, SessionEnd::Replaced { acked: 41.. }), "{:?}", ours.end());
        let next = soon(a.link.accept()).await.unwrap();
        let there = soon(reborn.link.accept()).await.unwrap();
        assert_eq!(next.binding(), there.binding());
        assert_ne!(next.binding(), ours.binding());
        let metrics = (a.link.metrics(), reborn.link.metrics());
        assert_eq!((metrics.0.handshakes_dialled, metrics.1.rehandshakes_accepted), (2, 0));
    }
    assert_eq!(orders.len(), 2, "both orders of the ids");
}

// Proves: LK-96
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_binding_stays_over_extension_1() {
    // The certificates that the dialler pinned are gone when it comes back.
    let (a, b, chaos, ours, theirs) = wired(160, |config| {
        config.ages.certificate = Duration::from_millis(150);
        config.ages.certificate_spread = Duration::ZERO;
        config.ages.certificate_grace = Duration::from_millis(50);
    })
    .await;
    let binding = ours.binding();
    chaos.open(false);
    chaos.cut();
    let (near, far) = (a.link.metrics().certificates, b.link.metrics().certificates);
    until("three certificates at each end", || {
        a.link.metrics().certificates >= near + 3 && b.link.metrics().certificates >= far + 3
    })
    .await;
    chaos.open(true);
    soon(talk(&ours, &theirs, 2, 10, 50_000)).await;
    assert_eq!((ours.binding(), theirs.binding()), (binding, binding));
    let metrics = a.link.metrics();
    assert_eq!(metrics.sessions_continued, 1, "{metrics:?}");
    assert_eq!((metrics.sessions, metrics.sessions_lost, metrics.sessions_replaced), (1, 0, 0));
}
