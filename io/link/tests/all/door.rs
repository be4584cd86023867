//! The link door among strangers: limits, floods, bystanders, invites, addresses and the order of dials.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::raw::{AnyDates, Raw, TestCertificate};
use crate::harness::{Node, key, node, node_with, pair, soon, target};
use bytes::Bytes;
use sealtide_crypto::SeededEntropy;
use sealtide_identity::{InviteSecret, LinkAddress};
use sealtide_link::{DialError, Limits, Remote, Session};
use sealtide_wire::frame::HEADER_BYTES;
use sealtide_wire::handshake::{Initiator, Proof, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

/// Answers every message on every channel with itself.
fn echo(session: Session) {
    tokio::spawn(async move {
        while let Some(channel) = session.accept_channel().await {
            tokio::spawn(async move {
                while let Ok(Some(message)) = channel.recv().await {
                    channel.release(message.len() as u64);
                    if channel.send(message).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// A connection from another address of loopback.
async fn connect_from(source: &str, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0))?;
    socket.connect(address).await
}

// Proves: LK-65
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_preauth() {
    let limits = Limits { unproven_total: 64, ..Limits::default() };
    let door = node_with(1, |config| {
        config.limits = limits;
        config.limits_loopback = true;
    })
    .await;
    let friend = node(2).await;
    door.allow(&friend);
    friend.allow(&door);
    let session = friend.dial(&door).await;
    echo(soon(door.link.accept()).await.unwrap());
    let channel = session.open(1, "echo").unwrap();

    // Half-open TLS, slow heads and garbage, from 40 sources with 20 connections each.
    let mut held = Vec::new();
    for number in 0..800u32 {
        let source = format!("127.0.1.{}", 1 + number % 40);
        let mut tcp = connect_from(&source, door.address).await.unwrap();
        match number % 3 {
            0 => {}
            1 => tcp.write_all(&[0x16, 3, 1]).await.unwrap(),
            _ => {
                let _closed_already = tcp.write_all(&[0xff; 300]).await;
            }
        }
        held.push(tcp);
        if number % 50 == 0 {
            let message = Bytes::from(number.to_be_bytes().to_vec());
            channel.send(message.clone()).await.unwrap();
            assert_eq!(soon(channel.recv()).await, Ok(Some(message)), "the session goes on");
            channel.release(4);
        }
    }
    // The total was reached, and a newcomer still gets in: it takes the place of one that does nothing.
    let newcomer = node(3).await;
    door.allow(&newcomer);
    soon(newcomer.link.dial(door.target())).await.unwrap();
    let metrics = door.link.metrics();
    assert!(metrics.evicted >= 300, "{metrics:?}");
    assert_eq!(metrics.handshakes_accepted, 2);
    assert_eq!(session.end(), None);
}

// Proves: LK-106
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_loopback() {
    let (off, on) = (node(1).await, node_with(2, |config| config.limits_loopback = true).await);
    for door in [&off, &on] {
        for _ in 0..80 {
            drop(TcpStream::connect(door.address).await.unwrap());
        }
        // Connections are taken in order, so a full handshake shows that all were seen.
        let other = node(3).await;
        door.allow(&other);
        let taken = soon(other.link.dial(door.target())).await;
        assert_eq!(taken.is_ok(), !std::ptr::eq(door, &on), "{taken:?}");
    }
    assert_eq!(off.link.metrics().rejected_rate, 0, "off for loopback");
    assert!(on.link.metrics().rejected_rate >= 25, "on when switched on: {:?}", on.link.metrics());
}

/// One attack: a HELLO with a wrong knock, or a right one and then a signature that does not verify.
async fn attack(door: &Node, wrong_knock: bool) {
    let shown = TestCertificate::new();
    let Ok(mut raw) = Raw::dial(door.address, &shown).await else { return };
    let local = shown.local_end(&key(66));
    let peer = if wrong_knock { local.id() } else { door.id() };
    let connection = raw.connection(&shown);
    let (mut initiator, hello) =
        Initiator::start(local, peer, Proof::Key, connection, None, &mut SeededEntropy::new(1));
    if raw.send(&[hello]).await.is_err() || wrong_knock {
        return;
    }
    let Some(challenge) = raw.frame().await else { return };
    let Ok(Step::Send(mut frames)) = initiator.handle(&challenge, &raw, &AnyDates) else { return };
    frames[0][HEADER_BYTES + 3000] ^= 1;
    let _closed_already = raw.send(&frames).await;
    let _refused = raw.frame().await;
}

// Proves: LK-105
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ban_bystander() {
    let door = node_with(1, |config| config.limits_loopback = true).await;
    let friend = node(2).await;
    door.allow(&friend);
    let attacker = tokio::spawn({
        let door = door.clone();
        async move {
            let mut attacks = tokio::task::JoinSet::new();
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            for number in 0.. {
                tick.tick().await;
                let door = door.clone();
                attacks.spawn(async move { attack(&door, number % 2 == 0).await });
                while attacks.try_join_next().is_some() {}
            }
        }
    });
    // Until the source is slow.
    while door.link.metrics().slowed == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let began = Instant::now();
    let session = soon(friend.link.dial(door.target())).await.unwrap();
    // The promise itself is a time: 5 s.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    attacker.abort();
    let metrics = door.link.metrics();
    assert!(metrics.wrong_knocks >= 5 && metrics.bad_proofs >= 5, "{metrics:?}");
    assert_eq!(session.end(), None);
}

// Proves: LK-100
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invite_race() {
    const HOLDERS: u64 = 64;
    let issuer = node(1).await;
    let (id, secret) = ([7; 16], InviteSecret::from_bytes([8; 32]));
    issuer.door.invites.lock().unwrap().insert(id, (secret.clone(), 1));
    let mut dials = tokio::task::JoinSet::new();
    for number in 0..HOLDERS {
        let holder = node(100 + number).await;
        let mut target = issuer.target();
        target.invite = Some((id, secret.clone()));
        dials.spawn(async move { holder.link.dial(target).await.map(|session| session.invite_used()) });
    }
    let (mut enrolled, mut refused) = (0, 0);
    while let Some(done) = soon(dials.join_next()).await {
        match done.unwrap() {
            Ok(invite) => {
                assert_eq!(invite, Some(id));
                enrolled += 1;
            }
            Err(DialError::Refused) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((enrolled, refused), (1, HOLDERS - 1));
    assert_eq!(issuer.door.allowed.lock().unwrap().len(), 1);
    assert_eq!(soon(issuer.link.accept()).await.unwrap().invite_used(), Some(id));

    let mut wrong = issuer.target();
    wrong.invite = Some((id, InviteSecret::from_bytes([9; 32])));
    let error = soon(node(300).await.link.dial(wrong)).await.unwrap_err();
    assert!(matches!(error, DialError::Refused), "{error}");
}

// Proves: LK-107
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loopback_addr() {
    let (a, b, ours, theirs) = pair().await;
    let told = |socket| LinkAddress { source: 4, socket };
    assert_eq!(a.link.announce(), [told(a.address)]);
    assert_eq!(theirs.peer_addresses(), [told(a.address)], "over a loopback path loopback is taken");
    assert_eq!(ours.peer_addresses(), [told(b.address)]);
    let back = soon(b.link.dial(crate::harness::DialTarget {
        node: a.id(),
        addresses: theirs.peer_addresses(),
        relays: Vec::new(),
        invite: None,
    }))
    .await;
    assert_eq!(back.unwrap().binding(), theirs.binding(), "the session that stands");

    // One listener for both families.
    let both = a.link.listen("[::]:0".parse().unwrap()).await.unwrap();
    for host in ["127.0.0.1", "::1"] {
        let tcp = TcpStream::connect(SocketAddr::new(host.parse().unwrap(), both.port())).await;
        assert!(tcp.is_ok() || host == "::1", "{host}: {tcp:?}");
    }
    assert!(a.link.announce().iter().all(|address| address.socket.port() == both.port() || address.source == 4));
}

/// Behind a forwarded port or a proxy a node tells where it is reached, not where it listens, and nothing as long as it
/// does not listen.
// Proves: LK-107
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_addresses() {
    let outside: SocketAddr = "192.0.2.1:443".parse().unwrap();
    let (a, b) = (node_with(1, |config| config.announce = vec![outside]).await, node(2).await);
    a.allow(&b);
    b.allow(&a);
    let session = b.dial(&a).await;
    let told = |socket| LinkAddress { source: 4, socket };
    assert_eq!(a.link.announce(), [told(outside)]);
    assert!(session.peer_addresses().contains(&told(outside)), "{:?}", session.peer_addresses());
    assert!(!session.peer_addresses().contains(&told(a.address)), "{:?}", session.peer_addresses());
    a.link.shutdown().await;
    assert!(a.link.announce().is_empty());
}

type DoorLog = Arc<Mutex<Vec<(u16, &'static str)>>>;

/// Until the door at `port` is ready.
async fn ready(log: DoorLog, port: u16) {
    while !log.lock().unwrap().contains(&(port, "ready")) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A door that upgrades whoever comes, once `turn` has come, and then only listens; reports when a HELLO came and when
/// it was hung up on.
async fn silent_door(log: DoorLog, turn: impl Future<Output = ()> + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        turn.await;
        let mut raw = Raw::accept(tcp, &TestCertificate::new()).await.unwrap();
        log.lock().unwrap().push((address.port(), "ready"));
        while raw.frame().await.is_some() {
            log.lock().unwrap().push((address.port(), "hello"));
        }
        log.lock().unwrap().push((address.port(), "gone"));
    });
    address
}

// Proves: LK-110
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dial_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let real = node(1).await;
    let limits = Limits { hello_deadline: Duration::from_millis(700), ..Limits::default() };
    let dialler = node_with(2, |config| config.limits = limits).await;
    real.allow(&dialler);
    // They become ready one after the other, however busy the machine is.
    let first = silent_door(log.clone(), async {}).await;
    let second = silent_door(log.clone(), ready(log.clone(), first.port())).await;
    let through = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let third = through.local_addr().unwrap();
    let (turn, to) = (ready(log.clone(), second.port()), real.address);
    tokio::spawn(async move {
        let (mut near, _) = through.accept().await.unwrap();
        turn.await;
        let mut far = TcpStream::connect(to).await.unwrap();
        tokio::io::copy_bidirectional(&mut near, &mut far).await
    });
    let counts = real.link.clone();
    let last = silent_door(log.clone(), async move {
        while counts.metrics().tls_pq == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // For the answer to the upgrade; the two silent doors take far longer.
        tokio::time::sleep(Duration::from_millis(200)).await;
    })
    .await;
    let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
    let addresses = [nobody, first, second, third, last];
    let session = soon(dialler.link.dial(target(real.id(), &addresses))).await.unwrap();
    assert_eq!(session.remote(), Remote::Direct(third));
    // All others are closed after success.
    soon(async {
        while log.lock().unwrap().iter().filter(|(_, what)| *what == "gone").count() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let log = log.lock().unwrap().clone();
    let of =
        |door: SocketAddr| log.iter().filter(|(port, _)| *port == door.port()).map(|(_, w)| *w).collect::<Vec<_>>();
    assert_eq!(of(first), ["ready", "hello", "gone"]);
    assert_eq!(of(second), ["ready", "hello", "gone"]);
    assert_eq!(of(last), ["ready", "gone"], "it was ready and never asked");
    let at = |door: SocketAddr, what| log.iter().position(|entry| *entry == (door.port(), what)).unwrap();
    assert!(at(first, "gone") < at(second, "gone"));
    assert!(at(first, "hello") < at(second, "hello"), "one at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dial_errors_tell_what_is_wrong() {
    let (a, b) = (node(1).await, node(2).await);
    let refused = soon(a.link.dial(b.target())).await.unwrap_err();
    assert!(matches!(refused, DialError::Refused), "{refused}");
    let wrong = soon(a.link.dial(target(node(3).await.id(), &[b.address]))).await.unwrap_err();
    assert_eq!(wrong, DialError::NoAnswer);
    assert!(wrong.to_string().contains("another node answers there, or it is overloaded"), "{wrong}");
    let nobody = soon(a.link.dial(target(b.id(), &["127.0.0.1:1".parse().unwrap()]))).await.unwrap_err();
    assert!(matches!(&nobody, DialError::Unreachable { tried, .. } if tried.len() == 1), "{nobody}");
    let nowhere = soon(a.link.dial(target(b.id(), &[]))).await.unwrap_err();
    assert!(nowhere.to_string().contains("no address is known"), "{nowhere}");

    // A web server of another kind.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut request = [0; 100];
        let _hello = tcp.read(&mut request).await;
        let _answered = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    });
    let other = soon(a.link.dial(target(b.id(), &[address]))).await.unwrap_err();
    assert!(matches!(other, DialError::Unreachable { .. }), "{other}");
}

/// Waits for the counts of busy answers and of wrong knocks: the door counts when the connection has ended.
async fn counted(door: &Node, expected: (u64, u64)) {
    soon(async {
        while (door.link.metrics().busy, door.link.metrics().wrong_knocks) != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_door_says_so_to_whoever_knocks_right() {
    // Nothing may wait, so every handshake finds the queue full.
    let full = node_with(1, |config| config.limits.proofs_waiting = 0).await;
    let friend = node(2).await;
    full.allow(&friend);
    assert_eq!(soon(friend.link.dial(full.target())).await.unwrap_err(), DialError::Busy);
    counted(&full, (1, 0)).await;
    // A wrong knock is seen all the same, takes no place in the queue, and gets not a byte.
    let stranger = soon(friend.link.dial(target(node(3).await.id(), &[full.address]))).await.unwrap_err();
    assert_eq!(stranger, DialError::NoAnswer);
    counted(&full, (1, 1)).await;

    // A disk that hangs: one handshake at work, one waits, one is turned away.
    let slow = node_with(4, |config| (config.limits.proofs_at_once, config.limits.proofs_waiting) = (1, 1)).await;
    let mut friends = Vec::new();
    for seed in 5..8 {
        let friend = node(seed).await;
        slow.allow(&friend);
        friends.push(friend);
    }
    slow.door.hangs.store(true, Ordering::Relaxed);
    let mut dials = tokio::task::JoinSet::new();
    for friend in &friends {
        let (link, target) = (friend.link.clone(), slow.target());
        dials.spawn(async move { link.dial(target).await.map(|session| session.peer()) });
    }
    assert_eq!(soon(dials.join_next()).await.unwrap().unwrap(), Err(DialError::Busy));
    slow.door.hangs.store(false, Ordering::Relaxed);
    // With one place to wait, the steps of the others can get in each other's way, and they are told the same.
    while let Some(done) = soon(dials.join_next()).await {
        let done = done.unwrap();
        assert!(matches!(&done, Err(DialError::Busy)) || done == Ok(slow.id()), "{done:?}");
    }
    for friend in &friends {
        assert_eq!(soon(friend.link.dial(slow.target())).await.unwrap().peer(), slow.id(), "it was for a moment only");
    }
}
