//! Links over connections that misbehave: nothing hangs, nothing is delivered wrong.

use std::time::Duration;

use crate::harness::scripted::{Chaos, Fault, From, Manner, Script};
use crate::harness::{Node, check_all, node, send_all, soon, target};
use sealtide_link::Session;

/// Two nodes with a session through a proxy.
async fn through(manner: Manner) -> (Node, Node, Chaos, Session, Session) {
    let (a, b) = (node(1).await, node(2).await);
    a.allow(&b);
    b.allow(&a);
    let chaos = Chaos::start(b.address, manner).await;
    let ours = soon(a.link.dial(target(b.id(), &[chaos.address]))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, chaos, ours, theirs)
}

/// A session over a long way: how long the handshake takes is printed, not judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_distant_peer_takes_few_round_trips() {
    for ms in [10, 50] {
        let delay = Duration::from_millis(ms);
        let began = tokio::time::Instant::now();
        let (_a, _b, _chaos, ours, theirs) = through(Manner { delay, ..Manner::default() }).await;
        // Whole round trips only: what this machine computes meanwhile is no part of the claim.
        let trips = began.elapsed().as_millis() / (2 * u128::from(ms)).max(1);
        println!("chaos: full handshake at {} ms took {:?}", 2 * ms, began.elapsed());
        assert!(trips >= 3, "TLS, upgrade and proof wait for each other: {trips}");
        let channel = ours.open(1, "x").unwrap();
        let sending = tokio::spawn(send_all(channel, 3, 50, 10_000));
        let other = soon(theirs.accept_channel()).await.unwrap();
        soon(check_all(other, 3, 50, 10_000)).await;
        soon(sending).await.unwrap();
    }
}

// Proves: LK-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_duplex_saturation_over_tiny_buffers() {
    const CHANNELS: u64 = 64;
    let manner = Manner { buffer_bytes: Some(4096), ..Manner::default() };
    let (_a, _b, chaos, ours, theirs) = through(manner).await;
    let mut tasks = Vec::new();
    for (from, to, base) in [(&ours, &theirs, 0), (&theirs, &ours, 1000)] {
        for number in 0..CHANNELS {
            tasks.push(tokio::spawn(send_all(
                from.open(1 + (number % 7) as u8, &format!("{}", base + number)).unwrap(),
                base + number,
                6,
                30_000,
            )));
        }
        let to = to.clone();
        tasks.push(tokio::spawn(async move {
            let mut checks = Vec::new();
            for _ in 0..CHANNELS {
                let channel = to.accept_channel().await.unwrap();
                let seed = channel.name().parse().unwrap();
                checks.push(tokio::spawn(check_all(channel, seed, 6, 30_000)));
            }
            for check in checks {
                check.await.unwrap();
            }
        }));
    }
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(240), task).await.expect("a deadlock").unwrap();
    }
    assert!(chaos.passed() > 2 * CHANNELS * 6 * 10_000);
}

/// Answers to PINGs that come later than they are waited for demote no path over which bytes come all the while.
// Proves: LK-59
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_flap() {
    let hasty = |config: &mut sealtide_link::LinkConfig| {
        config.terms.ping_ms = 1_000;
        // A round trip takes 300 ms: every answer is late, and two of them would end the path.
        config.session.pong_ms = 200;
    };
    let (a, b) = (crate::harness::node_with(1, hasty).await, crate::harness::node_with(2, hasty).await);
    a.allow(&b);
    b.allow(&a);
    let manner = Manner { delay: Duration::from_millis(150), ..Manner::default() };
    let chaos = Chaos::start(b.address, manner).await;
    let ours = soon(a.link.dial(target(b.id(), &[chaos.address]))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    let (there, back) = (ours.open(1, "there").unwrap(), theirs.open(1, "back").unwrap());
    let (far, near) = (soon(theirs.accept_channel()).await.unwrap(), soon(ours.accept_channel()).await.unwrap());
    // A message each way every 20 ms, for twenty rounds of PINGs.
    let (ticks, mut pace) = (1_000, tokio::time::interval(Duration::from_millis(20)));
    let sending = async {
        for _ in 0..ticks {
            pace.tick().await;
            there.send(bytes::Bytes::from_static(b"tick")).await.unwrap();
            back.send(bytes::Bytes::from_static(b"tock")).await.unwrap();
        }
    };
    let receiving = async {
        for _ in 0..ticks {
            far.recv().await.unwrap().unwrap();
            near.recv().await.unwrap().unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(120), async { tokio::join!(sending, receiving) }).await.unwrap();
    for node in [&a, &b] {
        let counters = node.link.metrics();
        assert_eq!(
            (counters.path_switches, counters.suspensions, counters.rehandshakes_dialled),
            (0, 0, 0),
            "{counters:?}"
        );
    }
}

/// A connection that ends in the middle of a transfer costs nothing: the session goes on over a new one, and everything
/// arrives once, in order, in both directions.
// Proves: LK-36
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_in_a_transfer_costs_nothing() {
    for fault in [Fault::Cut, Fault::Reset, Fault::HalfClose(From::Listener), Fault::HalfClose(From::Dialler)] {
        for counted in [From::Dialler, From::Listener] {
            let script = Some(Script { counted, bytes: 60_000, fault });
            let (_a, _b, chaos, ours, theirs) = through(Manner { script, ..Manner::default() }).await;
            let mut tasks = Vec::new();
            for (from, to, seed) in [(&ours, &theirs, 1), (&theirs, &ours, 2)] {
                tasks.push(tokio::spawn(send_all(from.open(1, "bulk").unwrap(), seed, 40, 9_000)));
                let to = to.clone();
                tasks.push(tokio::spawn(async move {
                    let channel = to.accept_channel().await.unwrap();
                    check_all(channel, seed, 40, 9_000).await;
                }));
            }
            for task in tasks {
                soon(task).await.unwrap();
            }
            assert_eq!(chaos.faults(), 1, "{fault:?}");
            assert_eq!((ours.end(), theirs.end()), (None, None), "{fault:?}");
        }
    }
}

/// Faults in the handshake, by seed: a dial ends with an error or a session, and never brings two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_in_the_handshake_end_the_dial() {
    let seeds = 8 * std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut outcomes = (0, 0);
    for seed in 0..seeds {
        let (a, b) = (node(1).await, node(2).await);
        a.allow(&b);
        b.allow(&a);
        // TLS, upgrade and the four messages are about 20 KB both ways.
        let script = Some(Script::seeded(seed, 14_000));
        let chaos = Chaos::start(b.address, Manner { script, ..Manner::default() }).await;
        match soon(a.link.dial(target(b.id(), &[chaos.address]))).await {
            Ok(_) => outcomes.0 += 1,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                outcomes.1 += 1;
            }
        }
        assert!(a.link.sessions().len() <= 1 && b.link.sessions().len() <= 1, "seed {seed}: {script:?}");
    }
    println!("chaos: {} dials met a fault in time, {} were through before", outcomes.1, outcomes.0);
    assert!(outcomes.1 > 0);
}
