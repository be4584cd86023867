//! Nodes that meet at a relay: real sockets, real TLS, circuits instead of addresses.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::harness::relay::RawLogin;
use crate::harness::{Door, check_all, key, send_all, soon, talk, until};
use sealtide_identity::{InviteSecret, NodeId, RelayHint};
use sealtide_link::{Admit, DialTarget, Link, LinkConfig, Relay, RelayConfig, Remote, Session};
use sealtide_wire::relay::{CircuitEnd, CircuitNumber, GoAwayCode, RelayFrame};

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

/// What a peer says is a hint: it takes room for a while, and no place that is needed.
#[tokio::test(start_paused = true)]
async fn relays_that_peers_name_are_left_again() {
    let node = guest(1);
    let nowhere = |id: u8| RelayHint { relay: NodeId::from_bytes([id; 32]), url: "wss://127.0.0.1:1".to_owned() };
    node.link.use_relay(&nowhere(0), None);
    let mut dials = tokio::task::JoinSet::new();
    for id in 1..=70 {
        let link = node.link.clone();
        dials.spawn(async move { link.dial(target(NodeId::from_bytes([100 + id; 32]), &nowhere(id))).await.is_err() });
    }
    assert!(dials.join_all().await.into_iter().all(|failed| failed));
    assert_eq!(node.link.relays().len(), 1 + 64, "each is a login that is tried");
    assert!(node.link.dial(target(NodeId::from_bytes([199; 32]), &nowhere(99))).await.is_err());
    let relays = node.link.relays();
    assert!(
        relays.len() == 1 + 64 && relays.iter().any(|state| state.relay == nowhere(99)),
        "one that is not used made way"
    );
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    let left: Vec<_> = node.link.relays().into_iter().map(|state| state.relay).collect();
    assert_eq!(left, [nowhere(0)], "what the settings name is tried for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_url_that_a_peer_named_is_in_nobodys_way() {
    let token = InviteSecret::from_bytes([7; 32]);
    let (_open, hint) = relay(Admit::Open, None).await;
    let mut config = RelayConfig::new(key(97), Admit::Token(Default::default()));
    config.token = Some(token.clone());
    let asking = Relay::open(config, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (a, b) = (guest(1), guest(2));
    a.door.allowed.lock().unwrap().insert(b.link.id());
    b.door.allowed.lock().unwrap().insert(a.link.id());
    b.link.use_relay(&hint, None);
    logged_in(&b.link).await;
    for (peer, relay) in [(8, hint.relay), (9, asking.id())] {
        let (link, wrong) = (a.link.clone(), RelayHint { relay, url: "wss://127.0.0.1:1".to_owned() });
        tokio::spawn(async move { link.dial(target(NodeId::from_bytes([peer; 32]), &wrong)).await.is_err() });
    }
    until("the wrong ones are tried", || a.link.relays().iter().filter(|state| state.why_not.is_some()).count() == 2)
        .await;

    let ours = soon(a.link.dial(target(b.link.id(), &hint))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    assert_eq!((ours.info().path, theirs.peer_relays()), (Some("relay"), vec![]), "others are not told of it");
    assert!(a.link.meeting_points().contains(&hint), "it is met there now");
    let asked = RelayHint { relay: asking.id(), url: format!("wss://{}", asking.address()) };
    a.link.use_relay(&asked, Some(token));
    until("logged in with the token", || a.link.relays().iter().any(|state| state.relay == asked && state.up)).await;
    assert_eq!(
        a.link.relays().iter().filter(|state| state.relay.relay == asking.id()).count(),
        1,
        "the other gave way"
    );
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
        let config = crate::harness::raw::client(crate::harness::raw::hybrid(), None);
        let mut tls = crate::harness::raw::Raw::tls(relay.address(), config).await.unwrap();
        tls.write_all(crate::harness::raw::upgrade(path).as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _end = soon(tls.read_to_string(&mut answer)).await;
        assert_eq!(answer, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "{path}");
    }
}

/// What a relay that stops says last is written, also to a node that reads late.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_words_of_a_relay_arrive() {
    let mut config = RelayConfig::new(key(99), Admit::Open);
    config.settings.drain_ms = 1;
    // All that is sent has room at the relay, however little the system takes: else the sender would be held up.
    config.settings.waiting_per_node = 4 << 20;
    config.last_words = std::time::Duration::from_secs(60);
    let relay = Relay::open(config, "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let hint = RelayHint { relay: relay.id(), url: format!("wss://{}", relay.address()) };
    let (key_a, key_b) = (key(1), key(2));
    let mut a = soon(RawLogin::connect(&hint, relay.address(), &key_a)).await.unwrap();
    let mut b = soon(RawLogin::connect(&hint, relay.address(), &key_b)).await.unwrap();
    let (one, two) = (CircuitNumber::new(1).unwrap(), CircuitNumber::new(2).unwrap());
    let target = NodeId::of(key_b.public());
    a.say(&RelayFrame::Open { circuit: one, target, show_address: false }).await;
    assert!(matches!(hear(&mut b).await, Some(RelayFrame::Incoming { .. })));
    b.say(&RelayFrame::Accept { circuit: two }).await;
    b.say(&RelayFrame::Credit { circuit: two, increment: 1 << 20 }).await;
    assert!(matches!(hear(&mut a).await, Some(RelayFrame::Accept { .. })));
    assert!(matches!(hear(&mut a).await, Some(RelayFrame::Credit { .. })));
    // More than any buffer on the way to a node that does not read takes.
    let sent = 1_200_000 / 16_000;
    for _ in 0..sent {
        a.say(&RelayFrame::Data { circuit: one, payload: vec![7; 16_000].into() }).await;
    }
    soon(async {
        while relay.stats().bytes_in < sent * 16_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(relay.stats().waiting_bytes > 0, "something waits");
    let stopping = tokio::spawn({
        let relay = relay.clone();
        async move { relay.drain().await }
    });
    assert!(matches!(hear(&mut a).await, Some(RelayFrame::GoAway { code: GoAwayCode::Draining, .. })));
    while let Some(frame) = hear(&mut a).await {
        // Its circuit ends with the time of the relay, and then its login.
        assert_eq!(frame, RelayFrame::Close { circuit: one, why: CircuitEnd::Draining });
    }
    let mut heard = Vec::new();
    while let Some(frame) = hear(&mut b).await {
        heard.push(frame);
    }
    assert_eq!(heard.iter().filter(|frame| matches!(frame, RelayFrame::Data { .. })).count() as u64, sent);
    assert!(heard.iter().any(|frame| matches!(frame, RelayFrame::GoAway { code: GoAwayCode::Draining, .. })));
    assert_eq!(heard.last(), Some(&RelayFrame::Close { circuit: two, why: CircuitEnd::Draining }));
    soon(stopping).await.unwrap();
}

/// Pairs that talk over one relay while it goes away, in order or from one moment to the next, and comes back: all go on,
/// and every message arrives once, in order.
// Proves: LK-63
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_restart() {
    for in_order in [true, false] {
        let mut config = RelayConfig::new(key(98), Admit::Open);
        config.settings.drain_ms = 100;
        config.settings.reconnect_ms = (0, 500);
        let first = Relay::open(config.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (id, address) = (first.id(), first.address());
        let hint = RelayHint { relay: id, url: format!("wss://{address}") };
        let mut pairs = Vec::new();
        for n in 0..4 {
            pairs.push(pair_of(100 + 2 * n, std::slice::from_ref(&hint)).await);
        }
        let mut talking = tokio::task::JoinSet::new();
        for (_, _, ours, theirs) in &pairs {
            let (ours, theirs) = (ours.clone(), theirs.clone());
            talking.spawn(async move { talk(&ours, &theirs, 4, 150, 60_000).await });
        }
        until("bytes flow", || first.stats().bytes_out > 1_000_000).await;
        if in_order {
            patiently(first.drain()).await;
        } else {
            first.stop();
        }
        let second = patiently(async {
            loop {
                match Relay::open(config.clone(), address).await {
                    Ok(relay) => break relay,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        patiently(async {
            while let Some(talked) = talking.join_next().await {
                talked.unwrap();
            }
        })
        .await;
        assert!(second.stats().bytes_out > 0 && second.stats().circuits >= 4, "over the relay that came back");
        for (_, _, ours, theirs) in &pairs {
            assert_eq!(ours.binding(), theirs.binding(), "the session is the same");
        }
        println!("in order: {in_order}; {} bytes before, {} after", first.stats().bytes_out, second.stats().bytes_out);
    }
}

/// Nodes that have no way but relays, at two of them: when the one that carries the session goes, the other one does.
// Proves: LK-64
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_failover() {
    let (mut relays, mut hints) = (Vec::new(), Vec::new());
    for seed in [96, 97] {
        let config = RelayConfig::new(key(seed), Admit::Open);
        let relay = Relay::open(config, "127.0.0.1:0".parse().unwrap()).await.unwrap();
        hints.push(RelayHint { relay: relay.id(), url: format!("wss://{}", relay.address()) });
        relays.push(relay);
    }
    let (_a, _b, ours, theirs) = pair_of(110, &hints).await;
    let Remote::Relay { relay: first } = ours.remote() else { panic!("{:?}", ours.remote()) };
    let (carries, other) = if first == relays[0].id() { (&relays[0], &relays[1]) } else { (&relays[1], &relays[0]) };
    let talking = tokio::spawn({
        let (ours, theirs) = (ours.clone(), theirs.clone());
        async move { talk(&ours, &theirs, 4, 200, 60_000).await }
    });
    until("bytes flow", || carries.stats().bytes_out > 1_000_000).await;
    carries.stop();
    patiently(talking).await.unwrap();
    assert!(other.stats().bytes_out > 0);
    assert_eq!(
        (ours.remote(), theirs.remote()),
        (Remote::Relay { relay: other.id() }, Remote::Relay { relay: other.id() })
    );
}

/// Two nodes that allow each other, logged in at all of `hints`, with a session over one.
async fn pair_of(seed: u64, hints: &[RelayHint]) -> (Guest, Guest, Session, Session) {
    let (a, b) = (guest(seed), guest(seed + 1));
    a.door.allowed.lock().unwrap().insert(b.link.id());
    b.door.allowed.lock().unwrap().insert(a.link.id());
    for hint in hints {
        a.link.use_relay(hint, None);
        b.link.use_relay(hint, None);
    }
    logged_in(&a.link).await;
    logged_in(&b.link).await;
    let relays = hints.to_vec();
    let ours = soon(a.link.dial(DialTarget { relays, ..target(b.link.id(), &hints[0]) })).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, ours, theirs)
}

/// For what waits for back-offs on a loaded machine; no claim about speed.
async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(std::time::Duration::from_secs(150), work).await.expect("did not happen within 150 s")
}

/// The next frame, but for the one that tells a node where it is seen.
async fn hear(login: &mut RawLogin) -> Option<RelayFrame> {
    loop {
        match soon(login.hear()).await {
            Some(RelayFrame::Observed { .. }) => {}
            frame => return frame,
        }
    }
}
