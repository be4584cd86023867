//! Paths and certificates grow old and are followed by others, under load and without a pause.

use std::time::Duration;

use crate::harness::{doorless, node_with, soon, talk, target, until, wired};
use sealtide_link::{DialError, LinkConfig, PathPolicy, WhyNotDirect};

/// Talks again and again until something holds.
async fn talk_until(ours: &sealtide_link::Session, theirs: &sealtide_link::Session, done: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(90), async {
        while !done() {
            talk(ours, theirs, 4, 20, 60_000).await;
            // The channels of both ends are over before the next ones take their numbers.
            until("channels ended", || ours.info().channels + theirs.info().channels == 0).await;
        }
    })
    .await
    .expect("it never holds");
}

// Proves: LK-49
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn path_age() {
    let age = Duration::from_millis(2_000);
    let (a, b, _chaos, ours, theirs) = wired(200, |config| config.ages.path = age).await;
    let switches = || a.link.metrics().path_switches.min(b.link.metrics().path_switches);
    talk_until(&ours, &theirs, || switches() >= 3).await;
    let (near, far) = (a.link.metrics(), b.link.metrics());
    println!("{near:?}\n{far:?}");
    // Made before break: never without a path, and at most two at a time.
    assert_eq!((near.suspensions, far.suspensions, near.handshakes_dialled), (0, 0, 1));
    assert!(near.rehandshakes_dialled >= 3 && far.rehandshakes_accepted >= 3);
    until("the old path ended", || ours.info().paths <= 2).await;
    assert_eq!((near.sessions_lost, far.sessions_lost), (0, 0));
}

fn quick_certificates(config: &mut LinkConfig) {
    config.ages.certificate = Duration::from_millis(250);
    config.ages.certificate_spread = Duration::from_millis(50);
    config.ages.path = Duration::from_millis(2_000);
}

// Proves: LK-47
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation() {
    let (a, b, _chaos, ours, theirs) = wired(210, quick_certificates).await;
    talk_until(&ours, &theirs, || a.link.metrics().certificates >= 10 && b.link.metrics().certificates >= 10).await;
    let (near, far) = (a.link.metrics(), b.link.metrics());
    println!("{near:?}\n{far:?}");
    assert!(near.rehandshakes_dialled >= 1, "new paths were made meanwhile");
    assert_eq!((near.rehandshakes_failed, far.rehandshakes_rejected), (0, 0), "no failed dial");
    assert_eq!((near.handshakes_dialled, near.sessions_continued), (1, 0), "the pins sufficed");
    assert_eq!((near.suspensions, near.sessions_lost, far.sessions_lost), (0, 0, 0));
}

// Proves: LK-48
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_offline() {
    let (a, b, chaos, ours, theirs) = wired(220, |config| {
        quick_certificates(config);
        config.ages.certificate_grace = Duration::from_millis(50);
    })
    .await;
    chaos.open(false);
    chaos.cut();
    let before = b.link.metrics().certificates;
    until("rotations while the peer is away", || b.link.metrics().certificates >= before + 4).await;
    chaos.open(true);
    soon(talk(&ours, &theirs, 2, 10, 50_000)).await;
    assert_eq!(a.link.metrics().sessions_lost + b.link.metrics().sessions_lost, 0);
    assert!(a.link.metrics().sessions_continued >= 1, "by a full handshake: the pins were old");
}

/// A machine that slept for more than a day, on systems whose clock goes on meanwhile.
// Proves: LK-47
#[tokio::test]
async fn a_node_that_woke_after_the_end_of_its_certificate_keeps_its_paths() {
    let sleeper = doorless(225, |_| {});
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(25 * 3600)).await;
    tokio::time::resume();
    let other = node_with(226, |_| {}).await;
    sleeper.allow(&other);
    other.allow(&sleeper);
    let ours = soon(sleeper.dial(&other)).await;
    let theirs = soon(other.link.accept()).await.unwrap();
    soon(talk(&ours, &theirs, 2, 10, 50_000)).await;
    let metrics = sleeper.link.metrics();
    assert_eq!((metrics.suspensions, metrics.rehandshakes_dialled, ours.info().paths), (0, 0, 1), "{metrics:?}");
}

// Proves: LK-69
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_relay_only_makes_and_takes_no_direct_path() {
    let hidden = doorless(230, |config| config.policy = PathPolicy::RelayOnly);
    let open = node_with(231, |_| {}).await;
    hidden.allow(&open);
    open.allow(&hidden);
    let none = soon(hidden.link.dial(open.target())).await.unwrap_err();
    assert!(matches!(&none, DialError::Unreachable { tried } if tried.is_empty()), "{none}");
    assert_eq!(open.link.metrics().accepted, 0, "not even a connection");

    let closed = node_with(232, |config| config.policy = PathPolicy::RelayOnly).await;
    closed.allow(&open);
    open.allow(&closed);
    soon(open.link.dial(target(closed.id(), &[closed.address]))).await.unwrap_err();
    let metrics = closed.link.metrics();
    assert_eq!((metrics.tls_pq, metrics.sessions, metrics.bytes_sent), (0, 0, 0), "{metrics:?}");
}

// Proves: LK-68
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_says_why_there_is_no_direct_path() {
    let (a, b, chaos, ours, _theirs) = wired(240, |_| {}).await;
    assert_eq!(ours.info().why_not_direct, None);
    chaos.open(false);
    chaos.cut();
    until("trying, then unreachable", || ours.info().why_not_direct == Some(WhyNotDirect::Unreachable)).await;
    // Another node in the place of the peer: its certificate is not pinned, and it does not know the knock.
    let other = node_with(249, |_| {}).await;
    chaos.lead_to(other.address);
    chaos.open(true);
    until("pin", || ours.info().why_not_direct == Some(WhyNotDirect::Pin)).await;
    assert_eq!(other.link.metrics().wrong_knocks, 1);
    // The peer again, which does not want this node any more.
    b.door.allowed.lock().unwrap().remove(&a.id());
    chaos.lead_to(b.address);
    soon(ours.closed()).await;
    assert_eq!(ours.info().why_not_direct, Some(WhyNotDirect::Refused));
}
