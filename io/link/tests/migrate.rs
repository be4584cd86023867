//! Sessions whose connections are cut, stall and swallow, under load in both directions.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod harness;

use std::time::Duration;

use harness::chaos::{Chaos, Weather};
use harness::{Node, check_all, node, node_with, send_all, soon, target};
use sealtide_link::Session;

/// Two nodes whose dialler knows only the way through a proxy; the listener knows no way back.
async fn through(chaos_seed: u64) -> (Node, Node, Chaos, Session, Session) {
    let (a, b) = (node(100 + chaos_seed).await, node(200 + chaos_seed).await);
    between(a, b).await
}

async fn between(a: Node, b: Node) -> (Node, Node, Chaos, Session, Session) {
    a.allow(&b);
    b.allow(&a);
    let chaos = Chaos::to(b.address).await;
    let ours = soon(a.link.dial(target(b.id(), &[chaos.address]))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, chaos, ours, theirs)
}

/// Frames intact: numbered messages of random size on `channels` channels in both directions, each exactly once, in
/// order, with equal bytes.
async fn talk(ours: &Session, theirs: &Session, channels: u64, count: u64, bytes_max: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..channels {
        let channel = ours.open((number % 8) as u8, &format!("talk {number}")).unwrap();
        tasks.spawn(send_all(channel.clone(), number, count, bytes_max));
        tasks.spawn(async move {
            check_all(channel, 1000 + number, count, bytes_max).await;
        });
    }
    for _ in 0..channels {
        let channel = soon(theirs.accept_channel()).await.unwrap();
        let number: u64 = channel.name().strip_prefix("talk ").unwrap().parse().unwrap();
        tasks.spawn(send_all(channel.clone(), 1000 + number, count, bytes_max));
        tasks.spawn(async move {
            check_all(channel, number, count, bytes_max).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_followed_by_another_and_no_frame_is_lost() {
    let (a, b, chaos, ours, theirs) = through(1).await;
    let binding = ours.binding();
    let talking = talk(&ours, &theirs, 6, 120, 100_000);
    let cutting = async {
        for _ in 0..8 {
            let before = chaos.bytes();
            while chaos.bytes() < before + (2 << 20) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            chaos.cut();
        }
        std::future::pending::<()>().await;
    };
    soon(async {
        tokio::select! { () = talking => {} () = cutting => {} }
    })
    .await;
    assert_eq!((ours.end(), theirs.end()), (None, None));
    assert_eq!((ours.binding(), theirs.binding()), (binding, binding));
    let (near, far) = (a.link.metrics(), b.link.metrics());
    println!("cuts: {near:?}\n{far:?}");
    assert!(near.suspensions > 0 && near.frames_retransmitted + far.frames_retransmitted > 0);
    assert!(near.rehandshakes_dialled + far.rehandshakes_dialled >= 4);
    assert_eq!((near.handshakes_dialled, near.sessions_lost, far.sessions_lost), (1, 0, 0));
}
