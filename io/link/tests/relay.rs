//! Nodes that meet at a relay: real sockets, real TLS, circuits instead of addresses.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;

use harness::{Door, check_all, key, send_all, soon};
use sealtide_identity::{InviteSecret, NodeId, RelayHint};
use sealtide_link::{Admit, DialTarget, Link, LinkConfig, Relay, RelayConfig, Remote, Session};

struct Guest {
    link: Link,
    door: Arc<Door>,
}

/// A node that listens nowhere.
fn guest(seed: u64) -> Guest {
    let key = key(seed);
    let door = Arc::new(Door::default());
    let link = Link::new(LinkConfig::new(key.clone(), NodeId::of(key.public())), door.clone()).unwrap();
    Guest { link, door }
}

async fn relay(admit: Admit, token: Option<InviteSecret>) -> (Relay, RelayHint) {
    let mut config = RelayConfig::new(key(99), admit);
    config.token = token;
    let relay = Relay::open(config, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let hint = RelayHint { relay: relay.id(), url: format!("wss://{}", relay.address()) };
    (relay, hint)
}

fn target(node: NodeId, relay: &RelayHint) -> DialTarget {
    DialTarget { node, addresses: Vec::new(), relays: vec![relay.clone()], invite: None }
}

async fn logged_in(link: &Link) {
    soon(async {
        while !link.relays().iter().all(|relay| relay.up) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Two nodes that allow each other, with a session over the relay.
async fn pair(hint: &RelayHint) -> (Guest, Guest, Session, Session) {
    let (a, b) = (guest(1), guest(2));
    a.door.allowed.lock().unwrap().insert(b.link.id());
    b.door.allowed.lock().unwrap().insert(a.link.id());
    b.link.use_relay(hint, None);
    logged_in(&b.link).await;
    let ours = soon(a.link.dial(target(b.link.id(), hint))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, ours, theirs)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_over_a_relay_carries_messages_both_ways() {
    let (relay, hint) = relay(Admit::Open, None).await;
    let (_a, b, ours, theirs) = pair(&hint).await;
    assert_eq!(ours.remote(), Remote::Relay { relay: relay.id() });
    assert_eq!((ours.peer(), ours.info().path), (b.link.id(), Some("relay")));
    assert_eq!(ours.binding(), theirs.binding());
    let (near, back) = (ours.open(3, "bulk").unwrap(), ours.open(2, "back").unwrap());
    let (far, far_back) = (soon(theirs.accept_channel()).await.unwrap(), soon(theirs.accept_channel()).await.unwrap());
    let (_, _, there, here) = soon(async {
        tokio::join!(
            send_all(near, 1, 300, 60_000),
            send_all(far_back, 2, 300, 60_000),
            check_all(far, 1, 300, 60_000),
            check_all(back, 2, 300, 60_000)
        )
    })
    .await;
    let stats = relay.stats();
    assert_eq!((stats.nodes, stats.circuits), (2, 1));
    assert!(stats.bytes_out >= there + here);
}

// Proves: LK-26, LK-108
#[tokio::test(flavor = "multi_thread")]
async fn relay_admission_and_guests() {
    let (b, stranger) = (guest(2), guest(3));
    let (_relay, hint) = relay(Admit::AllowList([b.link.id()].into()), None).await;
    b.link.use_relay(&hint, None);
    logged_in(&b.link).await;
    let refused = soon(stranger.link.dial(target(b.link.id(), &hint))).await;
    assert!(refused.is_err(), "nobody expects guests");
    // An invite lives: strangers reach this node, and nothing but the invite lets them in.
    let (invite, secret) = ([4; 16], InviteSecret::from_bytes([5; 32]));
    b.door.invites.lock().unwrap().insert(invite, (secret.clone(), 1));
    b.link.relay_allows(BTreeMap::from([(NodeId::from_bytes([0; 32]), 600)]));
    let joiner = guest(4);
    let mut wanted = target(b.link.id(), &hint);
    wanted.invite = Some((invite, secret));
    let session = soon(async {
        loop {
            match joiner.link.dial(wanted.clone()).await {
                Ok(session) => break session,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert_eq!((session.peer(), session.invite_used()), (b.link.id(), Some(invite)));
}

// Proves: LK-25, LK-26
#[tokio::test(flavor = "multi_thread")]
async fn relay_login_needs_the_token_or_the_right_relay() {
    let token = InviteSecret::from_bytes([7; 32]);
    let (relay, hint) = relay(Admit::Token(Default::default()), Some(token.clone())).await;
    let (with, wrong) = (guest(1), guest(2));
    wrong.link.use_relay(&hint, Some(InviteSecret::from_bytes([8; 32])));
    with.link.use_relay(&hint, Some(token.clone()));
    logged_in(&with.link).await;
    soon(async {
        while wrong.link.relays()[0].why_not.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // Who dials another id than answers there learns nothing and tells nothing.
    let misled = guest(3);
    misled.link.use_relay(&RelayHint { relay: NodeId::from_bytes([1; 32]), url: hint.url.clone() }, Some(token));
    soon(async {
        while misled.link.relays()[0].why_not.is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(relay.stats().nodes, 1);
}

// Proves: LK-67, the relay door: a scanner sees a small web site
#[tokio::test]
async fn the_door_answers_everything_else_with_404() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (relay, _) = relay(Admit::Open, None).await;
    for path in ["/", "/st/v1/link", "/metrics"] {
        let config = harness::raw::client(harness::raw::hybrid(), None);
        let mut tls = harness::raw::Raw::tls(relay.address(), config).await.unwrap();
        tls.write_all(harness::raw::upgrade(path).as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _end = soon(tls.read_to_string(&mut answer)).await;
        assert_eq!(answer, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "{path}");
    }
}
