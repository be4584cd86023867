//! Two links in one process over loopback: sessions, channels and how they end.

use std::time::Duration;

use crate::harness::{check_all, node, pair, send_all, soon};
use bytes::Bytes;
use sealtide_link::{ChannelClosed, LinkConfig, Padding, Remote, Session, SessionEnd, TrySendError};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_know_each_other_and_agree_on_the_binding() {
    let (a, b, ours, theirs) = pair().await;
    assert_eq!((ours.peer(), theirs.peer()), (b.id(), a.id()));
    assert!(ours.is_initiator() && !theirs.is_initiator());
    assert_eq!(ours.binding(), theirs.binding());
    assert_ne!(ours.binding(), [0; 32]);
    assert_eq!(ours.invite_used(), None);
    assert_eq!(ours.remote(), Remote::Direct(b.address));
    let info = &a.link.sessions()[0];
    assert_eq!((info.peer, info.path), (b.id(), Some("direct")));
    assert_eq!(info.suite, "TLS_AES_256_GCM_SHA384/X25519MLKEM768");
    let again = a.dial(&b).await;
    assert_eq!(again.binding(), ours.binding(), "the session that stands is used");
    assert_eq!(a.link.metrics().handshakes_dialled, 1);
    assert_eq!(b.link.metrics().handshakes_accepted, 1);
    assert_eq!(b.link.metrics().tls_pq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_size_arrive_in_order_both_ways() {
    let (_a, _b, ours, theirs) = pair().await;
    let channel = ours.open(3, "sts/1").unwrap();
    let sender = tokio::spawn(send_all(channel.clone(), 7, 200, 100_000));
    let receiver = tokio::spawn(check_all(channel, 8, 200, 100_000));
    let other = soon(theirs.accept_channel()).await.unwrap();
    assert_eq!((other.class(), other.name()), (3, "sts/1"));
    let back = tokio::spawn(send_all(other.clone(), 8, 200, 100_000));
    soon(check_all(other, 7, 200, 100_000)).await;
    soon(receiver).await.unwrap();
    soon(back).await.unwrap();
    soon(sender).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_and_window_filling_messages() {
    let (_a, _b, ours, theirs) = pair().await;
    let channel = ours.open(0, "control").unwrap();
    channel.send(Bytes::new()).await.unwrap();
    channel.send(Bytes::from(vec![5; 256 * 1024])).await.unwrap();
    let other = soon(theirs.accept_channel()).await.unwrap();
    assert_eq!(soon(other.recv()).await, Ok(Some(Bytes::new())));
    let whole = soon(other.recv()).await.unwrap().unwrap();
    assert_eq!(whole.len(), 256 * 1024);
    other.release(whole.len() as u64);
    let big = tokio::spawn(async move {
        channel.send(Bytes::from(vec![6; 700_000])).await.unwrap();
        channel
    });
    assert_eq!(soon(other.recv()).await, Err(ChannelClosed::TooLarge { window: 256 * 1024 }));
    let mut length = 0;
    loop {
        let piece = soon(other.recv_fragment()).await.unwrap().unwrap();
        length += piece.bytes.len();
        other.release(piece.bytes.len() as u64);
        if piece.end {
            break;
        }
    }
    assert_eq!(length, 700_000);
    soon(big).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_delivers_what_was_sent_and_tells_both_ends() {
    let (a, b, ours, theirs) = pair().await;
    let channel = ours.open(2, "notes").unwrap();
    for n in 0..50u8 {
        channel.send(Bytes::from(vec![n; 1000])).await.unwrap();
    }
    ours.close();
    let other = soon(theirs.accept_channel()).await.unwrap();
    for n in 0..50u8 {
        let message = soon(other.recv()).await.unwrap().unwrap();
        assert_eq!(message, vec![n; 1000]);
    }
    assert_eq!(soon(ours.closed()).await, SessionEnd::Closed { code: 0 });
    assert_eq!(soon(theirs.closed()).await, SessionEnd::Closed { code: 0 });
    assert_eq!(soon(other.recv()).await, Err(ChannelClosed::SessionOver));
    assert!(channel.send(Bytes::new()).await.is_err());
    assert!(soon(theirs.accept_channel()).await.is_none());
    assert!(a.link.session(&b.id()).is_none() && b.link.session(&a.id()).is_none());
    assert_eq!(a.link.metrics().sessions, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_peer_is_cut_off_and_does_not_come_back() {
    let (a, b, ours, theirs) = pair().await;
    b.door.allowed.lock().unwrap().clear();
    b.link.revoke(&a.id());
    assert!(matches!(soon(theirs.closed()).await, SessionEnd::Aborted { code: 3, .. }));
    assert!(matches!(soon(ours.closed()).await, SessionEnd::Aborted { code: 3, .. }));
    let refused = soon(a.link.dial(b.target())).await.unwrap_err();
    assert!(matches!(refused, sealtide_link::DialError::Refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_lost_its_state_replaces_its_session() {
    let (a, b, _ours, theirs) = pair().await;
    // The same node key in a new process.
    let reborn = node(1).await;
    assert_eq!(reborn.id(), a.id());
    reborn.allow(&b);
    let again = reborn.dial(&b).await;
    assert_eq!(soon(theirs.closed()).await, SessionEnd::Replaced { acked: 0 });
    let standing = soon(b.link.accept()).await.unwrap();
    assert_eq!(standing.binding(), again.binding());
    assert_eq!(b.link.session(&a.id()).unwrap().binding(), again.binding());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_dials_lead_to_one_session() {
    for round in 0..8 {
        let (a, b) = (node(10 + round).await, node(30 + round).await);
        a.allow(&b);
        b.allow(&a);
        let (ours, theirs) = soon(async { tokio::join!(a.link.dial(b.target()), b.link.dial(a.target())) }).await;
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
        let (at_a, at_b) = (a.link.session(&b.id()).unwrap(), b.link.session(&a.id()).unwrap());
        assert_eq!(at_a.binding(), at_b.binding(), "round {round}");
        assert_eq!(at_a.end(), None);
        assert_eq!((ours.binding(), theirs.binding()), (at_a.binding(), at_a.binding()), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_sessions_in_order_and_closes_the_door() {
    let (a, b, ours, theirs) = pair().await;
    soon(b.link.shutdown()).await;
    assert_eq!(soon(ours.closed()).await, SessionEnd::Closed { code: 0 });
    assert_eq!(soon(theirs.closed()).await, SessionEnd::Closed { code: 0 });
    assert!(soon(b.link.accept()).await.is_none());
    let gone = soon(a.link.dial(b.target())).await.unwrap_err();
    assert!(matches!(gone, sealtide_link::DialError::Unreachable { .. }), "{gone}");
}

// Proves: LK-45
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_duplex_saturation() {
    const CHANNELS: u64 = 64;
    const COUNT: u64 = 12;
    const BYTES_MAX: u64 = 120_000;
    let (_a, _b, ours, theirs) = pair().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CHANNELS {
        let channel = ours.open((number % 8) as u8, &format!("bulk {number}")).unwrap();
        tasks.spawn(send_all(channel.clone(), number, COUNT, BYTES_MAX));
        tasks.spawn(async move {
            check_all(channel, 1000 + number, COUNT, BYTES_MAX).await;
        });
    }
    for _ in 0..CHANNELS {
        let channel = soon(theirs.accept_channel()).await.unwrap();
        let number: u64 = channel.name().strip_prefix("bulk ").unwrap().parse().unwrap();
        tasks.spawn(send_all(channel.clone(), 1000 + number, COUNT, BYTES_MAX));
        tasks.spawn(async move {
            check_all(channel, number, COUNT, BYTES_MAX).await;
        });
    }
    soon(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_and_try_send_keep_order_and_finish() {
    let (_a, _b, ours, theirs) = pair().await;
    let channel = ours.open(4, "sts/1").unwrap();
    let sender = tokio::spawn(async move {
        for n in 0..60u8 {
            channel.ready().await.unwrap();
            channel.try_send(Bytes::from(vec![n; 300_000])).unwrap();
        }
        // The last one may still wait: it goes first all the same.
        channel.finish();
    });
    let other = soon(theirs.accept_channel()).await.unwrap();
    for n in 0..60u8 {
        let message = soon(other.recv()).await.unwrap().unwrap();
        assert_eq!((message.len(), message[0], message[299_999]), (300_000, n, n));
        other.release(300_000);
    }
    assert_eq!(soon(other.recv()).await, Ok(None));
    soon(sender).await.unwrap();
    other.finish();
    assert_eq!(other.try_send(Bytes::new()), Err(TrySendError::Closed(ChannelClosed::Closed)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_channel_takes_one_message_more_and_gives_the_next_back() {
    let (_a, _b, ours, theirs) = pair().await;
    let channel = ours.open(4, "small").unwrap();
    let big = Bytes::from(vec![7; 300_000]);
    let mut taken = 0;
    // Nobody reads: the window, the queue and the place behind it fill up.
    let back = loop {
        match channel.try_send(big.clone()) {
            Ok(()) => taken += 1,
            Err(TrySendError::Full(back)) => break back,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(back, big);
    assert!((2..=3).contains(&taken), "{taken}");
    ours.abort(sealtide_link::ErrorCode::GoingAway);
    assert_eq!(soon(channel.ready()).await, Err(ChannelClosed::SessionOver));
    assert!(matches!(soon(theirs.closed()).await, SessionEnd::Aborted { code: 12, .. }));
}

/// Each end is told where the other sees it, and IPv4 over a door for both families is IPv4.
// Proves: LK-51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn observed_addr() {
    for (bound, dialled) in
        [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")]
    {
        let (a, b) = (crate::harness::doorless(1, |_| {}), crate::harness::doorless(2, |_| {}));
        a.allow(&b);
        b.allow(&a);
        let door = b.link.listen(bound.parse().unwrap()).await.unwrap();
        let address = std::net::SocketAddr::new(dialled.parse().unwrap(), door.port());
        let ours = soon(a.link.dial(crate::harness::target(b.id(), &[address]))).await.unwrap();
        let theirs = soon(b.link.accept()).await.unwrap();
        let seen = theirs.remote().direct().unwrap();
        assert_eq!(seen.ip(), address.ip(), "{bound}");
        let told = ours.observed().unwrap();
        assert_eq!((told.source, told.socket), (sealtide_identity::LinkAddress::PEER_OBSERVED, seen), "{bound}");
        assert_eq!(theirs.observed().map(|told| told.socket), Some(address), "{bound}");
    }
}

/// Two nodes that pad, with a session, the dialler's end first.
async fn padded_pair(padding: Padding) -> (crate::harness::Node, crate::harness::Node, Session, Session) {
    let padded = |config: &mut LinkConfig| config.padding = padding;
    let (a, b) = (crate::harness::node_with(1, padded).await, crate::harness::node_with(2, padded).await);
    a.allow(&b);
    b.allow(&a);
    let ours = a.dial(&b).await;
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, ours, theirs)
}

/// At a constant rate a session talks, and an idle one goes on sending.
// Proves: LK-66
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding_at_a_constant_rate() {
    let (a, b, ours, theirs) = padded_pair(Padding::Constant(20_000_000)).await;
    soon(crate::harness::talk(&ours, &theirs, 4, 50, 50_000)).await;
    // Nobody says anything any more.
    let before = b.link.metrics().frames_received;
    crate::harness::until("cells go on", || b.link.metrics().frames_received > before + 1_000).await;
    assert!(a.link.metrics().frames_sent < before, "they are no frames of the session");
    ours.close();
    assert_eq!(soon(theirs.closed()).await, SessionEnd::Closed { code: 0 });
}

/// With padding everything arrives as without, and the peer gets more frames than the session sent.
// Proves: LK-66
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding() {
    let (a, b, ours, theirs) = padded_pair(Padding::Padme).await;
    soon(crate::harness::talk(&ours, &theirs, 4, 100, 50_000)).await;
    let (near, far) = (a.link.metrics(), b.link.metrics());
    assert!(far.frames_received > near.frames_sent && near.frames_received > far.frames_sent, "{near:?} {far:?}");
    // At most 12 % and a frame for each flush, of which there are no more than frames.
    for (sent, received, frames) in [
        (near.bytes_sent, far.bytes_received, near.frames_sent),
        (far.bytes_sent, near.bytes_received, far.frames_sent),
    ] {
        assert!(received <= sent + sent * 12 / 100 + 16 * frames, "{sent} {received} {frames}");
    }
}
