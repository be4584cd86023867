//! Relays in the hands of somebody else: what they do to circuits, whom they pretend to be, what they learn.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::raw::{AnyDates, TestCertificate};
use crate::harness::relay::{EvilRelay, Harm};
use crate::harness::{Node, check_all, doorless, key, node_with, send_all, soon, until};
use bytes::Bytes;
use sealtide_crypto::{Entropy, SeededEntropy};
use sealtide_identity::{LinkAddress, NodeId, RelayHint};
use sealtide_link::{DialError, DialTarget, ErrorCode, LinkConfig, PathPolicy, Session, WhyNotDirect};
use sealtide_wire::frame::{FrameType, Notice};
use sealtide_wire::handshake::Initiator;
use sealtide_wire::relay::{CircuitEnd, CircuitNumber, GoAwayCode, RelayFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1u64).max(1)
}

fn patient(config: &mut LinkConfig) {
    config.limits.accepts_burst = 1_000_000;
    config.limits.failures_per_minute = 1_000_000;
}

fn over(node: NodeId, relay: &RelayHint) -> DialTarget {
    DialTarget { node, addresses: Vec::new(), relays: vec![relay.clone()], invite: None }
}

async fn logged_in(node: &Node, relay: &RelayHint) {
    node.link.use_relay(relay, None);
    until("logged in", || node.link.relays().iter().all(|relay| relay.up)).await;
}

/// Seeded numbers.
struct Dice(SeededEntropy);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        let mut random = [0; 8];
        self.0.fill(&mut random);
        u64::from_be_bytes(random) % bound
    }
}

/// Does to one R_DATA of a direction, the `at`th, what the seed says.
fn harm(seed: u64, done: Arc<AtomicU64>) -> Harm {
    let mut dice = Dice(SeededEntropy::new(seed));
    let (at, what) = (dice.below(24), dice.below(6));
    let (mut count, mut held, mut earlier) = (0, None::<Bytes>, Vec::<Bytes>::new());
    Box::new(move |payload| {
        count += 1;
        if let Some(held) = held.take() {
            return vec![payload, held];
        }
        if count != at + 1 {
            earlier.push(payload.clone());
            return vec![payload];
        }
        done.fetch_add(1, Ordering::Relaxed);
        match what {
            0 => {
                let mut altered = payload.to_vec();
                let bit = dice.below(8 * altered.len() as u64) as usize;
                altered[bit / 8] ^= 1 << (bit % 8);
                vec![altered.into()]
            }
            1 => Vec::new(),
            2 => {
                let old = earlier.get(dice.below(earlier.len().max(1) as u64) as usize).cloned();
                old.into_iter().chain([payload]).collect()
            }
            3 => {
                held = Some(payload);
                Vec::new()
            }
            4 => vec![payload.clone(), payload],
            _ => {
                let kept = 1 + dice.below(payload.len() as u64) as usize;
                vec![payload.slice(..kept.min(payload.len() - 1).max(1))]
            }
        }
    })
}

/// Real sessions over real sockets: what a relay does to the bytes of a circuit ends that path at most. The session goes on
/// over the next circuit, and every message arrives once, in order, with equal bytes. (Ten thousand cases of the same harm
/// in memory: `evil_relay_in_memory`.)
// Proves: LK-21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evil_relay() {
    const PAIRS: u64 = 40;
    let rounds = 5 * scale();
    let (first, done) = (Arc::new(Mutex::new(BTreeMap::<(NodeId, NodeId), u64>::new())), Arc::new(AtomicU64::new(0)));
    let (plan, count) = (first.clone(), done.clone());
    let relay = EvilRelay::open(
        key(900),
        Box::new(move |from, to| match plan.lock().unwrap().remove(&(from, to)) {
            Some(seed) => harm(seed, count.clone()),
            None => Box::new(|payload| vec![payload]),
        }),
    )
    .await;
    let mut tasks = tokio::task::JoinSet::new();
    for pair in 0..PAIRS {
        let (relay, plan) = (relay.clone(), first.clone());
        tasks.spawn(async move {
            let (a, b) = (doorless(1000 + 2 * pair, patient), doorless(1001 + 2 * pair, patient));
            a.allow(&b);
            b.allow(&a);
            logged_in(&b, &relay.hint).await;
            logged_in(&a, &relay.hint).await;
            for round in 0..rounds {
                let seed = pair * 1_000_000 + round;
                // The first circuit of the case is harmed in both directions, the later ones are not.
                plan.lock().unwrap().extend([((a.id(), b.id()), 2 * seed), ((b.id(), a.id()), 2 * seed + 1)]);
                let ours = loop {
                    // A handshake that was harmed comes to nothing, and is made anew.
                    match a.link.dial(over(b.id(), &relay.hint)).await {
                        Ok(session) => break session,
                        Err(_) => tokio::task::yield_now().await,
                    }
                };
                let theirs = b.link.accept().await.unwrap();
                let theirs = newest(&b, theirs, &ours).await;
                talk(&ours, &theirs).await;
                ours.close();
                until("both ends closed", || b.link.session(&a.id()).is_none() && a.link.session(&b.id()).is_none())
                    .await;
            }
        });
    }
    tokio::time::timeout(Duration::from_secs(240 * scale()), async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await
    .expect("a session did not recover");
    let done = done.load(Ordering::Relaxed);
    println!("{} sessions, {done} circuits harmed", PAIRS * rounds);
    assert!(done >= PAIRS * rounds, "each session was harmed once at least, on average");
}

/// Of the sessions that the peer accepted the one that the dialler has: an earlier one may have lost its other end.
async fn newest(b: &Node, mut theirs: Session, ours: &Session) -> Session {
    while theirs.binding() != ours.binding() {
        theirs = b.link.accept().await.unwrap();
    }
    theirs
}

/// Messages both ways, each exactly once, in order, with equal bytes.
async fn talk(ours: &Session, theirs: &Session) {
    let (near, back) = (ours.open(3, "bulk").unwrap(), ours.open(2, "back").unwrap());
    let (far, far_back) = (theirs.accept_channel().await.unwrap(), theirs.accept_channel().await.unwrap());
    let sizes = (40, 20_000);
    tokio::join!(
        send_all(near, 1, sizes.0, sizes.1),
        send_all(far_back, 2, sizes.0, sizes.1),
        check_all(far, 1, sizes.0, sizes.1),
        check_all(back, 2, sizes.0, sizes.1)
    );
}

/// A listener that ends TLS with its own certificate, writes down what comes inside, and refuses.
async fn trap(certificate: TestCertificate, at: IpAddr) -> (SocketAddr, Arc<Mutex<Vec<u8>>>, Arc<AtomicU64>) {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, came) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
    let (writes, counts) = (heard.clone(), came.clone());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counts.fetch_add(1, Ordering::Relaxed);
            let config = crate::harness::raw::server(crate::harness::raw::hybrid(), &certificate);
            let writes = writes.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = tokio_rustls::TlsAcceptor::from(config).accept(tcp).await else { return };
                let Ok(head) = crate::harness::raw::read_head(&mut tls).await else { return };
                let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
                let request = http::Request::builder()
                    .header("sec-websocket-version", "13")
                    .header("sec-websocket-key", key)
                    .body(())
                    .unwrap();
                let (answer, _) = yawc::WebSocket::upgrade(request).unwrap();
                let accept = answer.headers()["sec-websocket-accept"].to_str().unwrap().to_owned();
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\n"
                );
                if tls.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                let mut bytes = [0; 4096];
                while let Ok(read) = tls.read(&mut bytes).await
                    && read > 0
                {
                    writes.lock().unwrap().extend_from_slice(&bytes[..read]);
                    // To the first, the knock, it says what would end a dial and a session if the peer said it.
                    let refusal = refusal(ErrorCode::Refused);
                    let message = [&[0x82, refusal.len() as u8], &refusal[..]].concat();
                    let _gone = tls.write_all(&message).await;
                }
            });
        }
    });
    (address, heard, came)
}

/// The address by which this machine would leave; nothing is sent.
fn lan_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

/// A relay has its own address taken for that of a node: whoever dials there meets its certificate, which nobody pinned.
/// Nothing of the session goes there, and the session stays where it is.
// Proves: LK-22
#[tokio::test(flavor = "multi_thread")]
async fn evil_relay_direct() {
    let relay = EvilRelay::honest(key(901)).await;
    // Over a relay nobody takes a loopback address from a peer: the trap stands at the address of this machine, if it has one.
    let lan = lan_address();
    let (address, heard, came) =
        trap(TestCertificate::new(), lan.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())).await;
    // B tells the address that the relay made it believe.
    let b = node_with(21, |config| config.announce = vec![address]).await;
    let a = doorless(22, |_| {});
    a.allow(&b);
    b.allow(&a);
    logged_in(&b, &relay.hint).await;
    // And the ticket of B names it, too.
    let named = LinkAddress { source: LinkAddress::RELAY_OBSERVED, socket: address };
    let ours = soon(a.link.dial(DialTarget { addresses: vec![named], ..over(b.id(), &relay.hint) })).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    soon(talk(&ours, &theirs)).await;
    until("the false address was dialled", || came.load(Ordering::Relaxed) > 0).await;
    if lan.is_some() {
        until("and came to nothing", || {
            ours.info().why_not_direct.is_some_and(|why| why != WhyNotDirect::Trying && why != WhyNotDirect::NoAddress)
        })
        .await;
    } else {
        println!("this machine has no address but loopback: only the dial by ticket is shown");
    }
    soon(talk(&ours, &theirs)).await;
    assert_eq!((ours.info().path, theirs.info().path), (Some("relay"), Some("relay")));
    // At most knocks, which says nothing to whoever cannot prove the id of B: no proof, no frame of a session.
    let heard = heard.lock().unwrap().len();
    let knocks = usize::try_from(came.load(Ordering::Relaxed)).unwrap();
    assert!(heard <= knocks * 100, "{heard} bytes were told to a stranger in {knocks} connections");
    assert_eq!((ours.end(), theirs.end()), (None, None), "what the trap says is not the word of B");
}

/// A relay that takes the circuit itself and says at once that B refuses, or that another handshake goes first: a dial comes
/// to nothing, and a session stays and is dialled for again.
#[tokio::test(flavor = "multi_thread")]
async fn evil_relay_refuses() {
    let relay = EvilRelay::honest(key(906)).await;
    let (a, b, c) = (doorless(71, |_| {}), doorless(72, |_| {}), doorless(73, |_| {}));
    a.allow(&b);
    b.allow(&a);
    for node in [&a, &b, &c] {
        logged_in(node, &relay.hint).await;
    }
    let ours = soon(a.link.dial(over(b.id(), &relay.hint))).await.unwrap();
    let (mut opens, mut data) = relay.catch();
    for code in [ErrorCode::Refused, ErrorCode::Duplicate, ErrorCode::Busy] {
        let dial = async { c.link.dial(over(b.id(), &relay.hint)).await.unwrap_err() };
        let answer = async {
            let (opener, circuit, _) = opens.recv().await.unwrap();
            relay.say(&opener, RelayFrame::Accept { circuit });
            CaughtPipe::new(relay.clone(), opener, circuit, &mut data).respond(&refusal(code)).await
        };
        let expected = if code == ErrorCode::Busy { DialError::Busy } else { DialError::NoAnswer };
        assert_eq!(soon(async { tokio::join!(dial, answer) }).await.0, expected);
    }

    let first = |frame: &RelayFrame| matches!(frame, RelayFrame::Open { target, .. } if *target == b.id());
    let Some(RelayFrame::Open { circuit, .. }) = relay.told().into_iter().find(first) else { panic!("A opened one") };
    relay.say(&a.id(), RelayFrame::Close { circuit, why: CircuitEnd::Unreachable });
    for _ in 0..2 {
        // A dials again after the first refusal. B notices later that its end is silent.
        let of_a = async {
            loop {
                let (opener, circuit, _) = opens.recv().await.unwrap();
                if opener == a.id() {
                    return (opener, circuit);
                }
            }
        };
        let (opener, circuit) = soon(of_a).await;
        relay.say(&opener, RelayFrame::Accept { circuit });
        soon(CaughtPipe::new(relay.clone(), opener, circuit, &mut data).respond(&refusal(ErrorCode::Refused))).await;
    }
    assert!(ours.end().is_none() && ours.is_suspended());
}

/// Openers cost a relay nothing: with circuits in their names that knock and fall silent it takes the places of circuits at
/// its own login, and none of the door.
#[tokio::test(flavor = "multi_thread")]
async fn evil_relay_fills_no_door() {
    let relay = EvilRelay::honest(key(907)).await;
    let b = node_with(81, |config| config.limits.unproven_total = 1).await;
    let (a, c) = (doorless(82, |_| {}), doorless(83, |_| {}));
    b.allow(&a);
    b.allow(&c);
    c.allow(&b);
    logged_in(&b, &relay.hint).await;
    let (_opens, mut data) = relay.catch();
    let circuit = CircuitNumber::new(2).unwrap();
    relay.say(&b.id(), RelayFrame::Incoming { circuit, opener: a.id(), address: None });
    until("B takes the circuit", || relay.told().contains(&RelayFrame::Accept { circuit })).await;
    let mut pipe = CaughtPipe::new(relay.clone(), b.id(), circuit, &mut data);
    let (mut tls, _) = soon(pipe.knock(b.id())).await;
    let challenge = soon(pipe.drive(&mut tls, |_, plain| !plain.is_empty())).await;
    assert_eq!(challenge[0], FrameType::Challenge.code(), "the knock was right, so nobody takes its place");
    assert!(soon(c.link.dial(b.target())).await.is_ok());
}

/// While an invite lives, any number of strangers may come over a relay: none takes the place of a peer.
#[tokio::test(flavor = "multi_thread")]
async fn guests_stand_in_no_peers_way() {
    let relay = EvilRelay::honest(key(908)).await;
    let (a, b) = (doorless(84, |_| {}), doorless(85, |_| {}));
    b.allow(&a);
    b.link.relay_allows(BTreeMap::from([(NodeId::from_bytes([0; 32]), 600)]));
    logged_in(&b, &relay.hint).await;
    let _caught = relay.catch();
    let incoming = |number: u32, opener: NodeId| {
        let circuit = CircuitNumber::new(2 * number).unwrap();
        relay.say(&b.id(), RelayFrame::Incoming { circuit, opener, address: None });
        circuit
    };
    let circuit = incoming(1, a.id());
    until("B takes the circuit", || relay.told().contains(&RelayFrame::Accept { circuit })).await;
    let closed = || {
        let told = relay.told().into_iter();
        let closed = told.filter_map(|frame| match frame {
            RelayFrame::Close { circuit, .. } => Some(circuit),
            _ => None,
        });
        closed.collect::<Vec<_>>()
    };
    for number in 2..2 + 70 {
        let circuit = incoming(number, NodeId::from_bytes([number as u8; 32]));
        until("B takes it", || relay.told().contains(&RelayFrame::Accept { circuit })).await;
    }
    until("the first guests make way for others", || closed().len() == 6).await;
    assert!(!closed().contains(&circuit), "the peer's waits");
}

fn refusal(code: ErrorCode) -> Vec<u8> {
    Notice::new(code).frame(FrameType::Error)
}

/// A relay can neither open circuits in the name of a node nor answer for one.
// Proves: LK-23
#[tokio::test(flavor = "multi_thread")]
async fn evil_relay_impersonate() {
    let relay = EvilRelay::honest(key(902)).await;
    let (a, b) = (doorless(31, |_| {}), doorless(32, patient));
    a.allow(&b);
    b.allow(&a);
    logged_in(&a, &relay.hint).await;
    logged_in(&b, &relay.hint).await;
    let (mut opens, mut data) = relay.catch();

    // It says that A opened a circuit to B, and proves what it can: its own key.
    let circuit = CircuitNumber::new(2).unwrap();
    relay.say(&b.id(), RelayFrame::Incoming { circuit, opener: a.id(), address: None });
    let taken = RelayFrame::Accept { circuit };
    until("B takes the circuit, for A is welcome", || relay.told().contains(&taken)).await;
    let mut pipe = CaughtPipe::new(relay.clone(), b.id(), circuit, &mut data);
    let end = soon(pipe.initiate(b.id())).await;
    assert_eq!(end, "refused", "B takes nobody for A who is not");
    assert!(b.link.session(&a.id()).is_none() && b.link.session(&NodeId::of(relay.key.public())).is_none());
    drop(pipe);

    // A opens a circuit to B, and the relay answers itself.
    let dialling = tokio::spawn({
        let (link, target) = (a.link.clone(), over(b.id(), &relay.hint));
        async move { link.dial(target).await }
    });
    let (opener, circuit, target) = soon(opens.recv()).await.unwrap();
    assert_eq!((opener, target), (a.id(), b.id()));
    relay.say(&a.id(), RelayFrame::Accept { circuit });
    let mut pipe = CaughtPipe::new(relay.clone(), a.id(), circuit, &mut data);
    // A CHALLENGE of its own, or a word instead of one, is all that it can make: the right layout, the wrong key.
    let heard = soon(pipe.respond(&[0x02, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0])).await;
    assert!(soon(dialling).await.unwrap().is_err(), "A knows whom it dialled");
    // HELLO holds no id of A; RESPONSE, which does, was never sent.
    assert!(!heard.windows(32).any(|window| window == a.id().as_bytes()));
    assert!(heard.len() < 200, "{} bytes", heard.len());
}

/// The relay's end of a circuit that it caught, with a TLS of its own on it.
struct CaughtPipe<'a> {
    relay: EvilRelay,
    node: NodeId,
    circuit: CircuitNumber,
    data: &'a mut tokio::sync::mpsc::UnboundedReceiver<(NodeId, RelayFrame)>,
}

impl<'a> CaughtPipe<'a> {
    fn new(
        relay: EvilRelay,
        node: NodeId,
        circuit: CircuitNumber,
        data: &'a mut tokio::sync::mpsc::UnboundedReceiver<(NodeId, RelayFrame)>,
    ) -> Self {
        Self { relay, node, circuit, data }
    }

    fn write(&self, bytes: &[u8]) {
        for payload in bytes.chunks(16_000) {
            let payload = Bytes::copy_from_slice(payload);
            self.relay.say(&self.node, RelayFrame::Data { circuit: self.circuit, payload });
        }
    }

    async fn read(&mut self) -> Option<Bytes> {
        loop {
            match self.data.recv().await? {
                (node, RelayFrame::Data { circuit, payload }) if (node, circuit) == (self.node, self.circuit) => {
                    return Some(payload);
                }
                (node, RelayFrame::Close { circuit, .. }) if (node, circuit) == (self.node, self.circuit) => {
                    return None;
                }
                _ => {}
            }
        }
    }

    /// Moves TLS on until `done` says so; the plaintext that came.
    async fn drive<D>(
        &mut self,
        tls: &mut rustls::ConnectionCommon<D>,
        mut done: impl FnMut(&mut rustls::ConnectionCommon<D>, &mut Vec<u8>) -> bool,
    ) -> Vec<u8>
    where
        D: rustls::SideData,
    {
        let mut plain = Vec::new();
        loop {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            self.write(&out);
            if done(tls, &mut plain) {
                return plain;
            }
            let wait = tokio::time::timeout(Duration::from_secs(20), self.read());
            let Ok(Some(bytes)) = wait.await else { return plain };
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).unwrap();
                if tls.process_new_packets().is_err() {
                    return plain;
                }
                let _end = std::io::Read::read_to_end(&mut tls.reader(), &mut plain);
            }
        }
    }

    /// As the node that opened the circuit: TLS, and a HELLO with the key of the relay.
    async fn knock(&mut self, target: NodeId) -> (rustls::ClientConnection, Initiator) {
        use sealtide_wire::handshake::{Binding, Connection, PipeKind, Proof};
        let shown = TestCertificate::new();
        let name = rustls_pki_types::ServerName::try_from("node.invalid").unwrap();
        let config = crate::harness::raw::client(crate::harness::raw::hybrid(), Some(&shown));
        let mut tls = rustls::ClientConnection::new(config, name).unwrap();
        self.drive(&mut tls, |tls, _| !tls.is_handshaking()).await;
        let fp_server = sealtide_crypto::sha256(&tls.peer_certificates().unwrap()[0]);
        let cb = tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).unwrap();
        let binding = Binding::channel(PipeKind::Relay, cb, shown.fingerprint(), fp_server).unwrap();
        let connection = Connection { binding, remote: None };
        let entropy = &mut SeededEntropy::new(8);
        let local = shown.local_end(&self.relay.key);
        let (initiator, hello) = Initiator::start(local, target, Proof::Key, connection, None, entropy);
        std::io::Write::write_all(&mut tls.writer(), &hello).unwrap();
        (tls, initiator)
    }

    /// As the node that opened the circuit: the whole handshake, with the key of the relay.
    async fn initiate(&mut self, target: NodeId) -> &'static str {
        use sealtide_wire::handshake::Step;
        let (mut tls, mut initiator) = self.knock(target).await;
        loop {
            let mut frame = Vec::new();
            let plain = self
                .drive(&mut tls, |_, plain| {
                    let whole = sealtide_wire::frame::Frame::split(plain, 65_536).ok().flatten().is_some();
                    if whole {
                        frame.clone_from(plain);
                    }
                    whole
                })
                .await;
            if frame.is_empty() {
                return if plain.is_empty() { "closed" } else { "cut" };
            }
            let exporter = Exported(&tls);
            let step = initiator.handle(&frame, &exporter, &AnyDates);
            match step {
                Ok(Step::Send(frames)) => std::io::Write::write_all(&mut tls.writer(), &frames.concat()).unwrap(),
                Ok(Step::Done { .. }) => return "let in",
                Ok(_) => {}
                Err(sealtide_wire::handshake::HandshakeError::Peer(_)) => return "refused",
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// As the node that was asked for, with this for a CHALLENGE: everything that the opener says.
    async fn respond(&mut self, answer: &[u8]) -> Vec<u8> {
        use sealtide_wire::handshake::{Binding, Connection, PipeKind, Responder};
        let shown = TestCertificate::new();
        let config = crate::harness::raw::server(crate::harness::raw::hybrid(), &shown);
        let mut tls = rustls::ServerConnection::new(config).unwrap();
        let hello = self.drive(&mut tls, |tls, plain| !tls.is_handshaking() && plain.len() >= 80).await;
        let fp_client = sealtide_crypto::sha256(&tls.peer_certificates().unwrap()[0]);
        let cb = tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", Some(&[])).unwrap();
        let binding = Binding::channel(PipeKind::Relay, cb, fp_client, shown.fingerprint()).unwrap();
        let local = shown.local_end(&self.relay.key);
        let responder = Responder::new(local, Connection { binding, remote: None });
        assert!(!responder.is_knock(&hello), "the knock is for B");
        std::io::Write::write_all(&mut tls.writer(), answer).unwrap();
        let more = self.drive(&mut tls, |_, _| false).await;
        [hello, more].concat()
    }
}

struct Exported<'a>(&'a rustls::ClientConnection);

impl sealtide_wire::handshake::Exporter for Exported<'_> {
    fn export(&self, label: &str, context: &[u8]) -> [u8; 32] {
        self.0.export_keying_material([0; 32], label.as_bytes(), Some(context)).unwrap()
    }
}

/// What a node says to a relay names neither its addresses nor its certificate, whatever it does there.
// Proves: LK-102
#[tokio::test(flavor = "multi_thread")]
async fn kind3_leak() {
    let relay = EvilRelay::honest(key(903)).await;
    let lan: SocketAddr = "192.168.77.3:7443".parse().unwrap();
    let (a, b) = (node_with(41, |config| config.announce = vec![lan]).await, node_with(42, |_| {}).await);
    a.allow(&b);
    b.allow(&a);
    logged_in(&a, &relay.hint).await;
    logged_in(&b, &relay.hint).await;
    let ours = soon(a.link.dial(over(b.id(), &relay.hint))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    soon(talk(&ours, &theirs)).await;
    let heard = relay.heard();
    assert!(heard.len() > 500_000, "the relay wrote down logins and circuits: {} bytes", heard.len());
    let has = |wanted: &[u8]| heard.windows(wanted.len()).any(|window| window == wanted);
    assert!(has(b.id().as_bytes()), "the target that A names");
    assert!(!has(&[192, 168, 77, 3]), "the LAN address");
    assert!(!has(&LinkAddress { source: 4, socket: b.address }.to_bytes()[2..]), "where the node listens");
    // In every certificate of a node: its name, and the numbers of its curve.
    assert!(!has(b"node.invalid") && !has(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07]), "a certificate");
}

/// A relay that goes away names others: nobody that the node does not know already is dialled for it.
// Proves: LK-103
#[tokio::test(flavor = "multi_thread")]
async fn goaway_steer() {
    let relay = EvilRelay::honest(key(904)).await;
    let (address, _, came) = trap(TestCertificate::new(), std::net::Ipv4Addr::LOCALHOST.into()).await;
    let a = doorless(51, |_| {});
    logged_in(&a, &relay.hint).await;
    let named = RelayHint { relay: NodeId::from_bytes([9; 32]), url: format!("wss://{address}") };
    for round in 1..=3 {
        let go_away =
            RelayFrame::GoAway { code: GoAwayCode::Draining, reconnect_ms: 0, relays: vec![named.clone(); 4] };
        relay.say(&a.id(), go_away);
        relay.drop_login(&a.id());
        until("it is back at the relay that it knows", || relay.logins() > round).await;
    }
    assert_eq!(came.load(Ordering::Relaxed), 0, "the named relay was dialled");
    assert_eq!(a.link.relays().len(), 1);
}

/// Where a relay claims to see a node, again and again elsewhere: what peers are told of it is bounded and never leads into
/// their own machines or networks.
// Proves: LK-24
#[tokio::test(flavor = "multi_thread")]
async fn evil_observed() {
    let relay = EvilRelay::honest(key(905)).await;
    let a = node_with(61, |config| config.policy = PathPolicy::default()).await;
    logged_in(&a, &relay.hint).await;
    let mut last = None;
    for n in 0..1_000u32 {
        let ip: IpAddr = match n % 5 {
            0 => [127, 0, (n >> 8) as u8, n as u8].into(),
            1 => [10, 0, (n >> 8) as u8, n as u8].into(),
            2 => [224, 0, (n >> 8) as u8, n as u8].into(),
            3 => std::net::Ipv6Addr::LOCALHOST.into(),
            _ => [203, 0, 113, n as u8].into(),
        };
        let address = LinkAddress { source: LinkAddress::RELAY_OBSERVED, socket: (ip, 7443).into() };
        relay.say(&a.id(), RelayFrame::Observed { address });
        last = Some(address);
    }
    until("the last claim arrived", || a.link.relays()[0].observed == last).await;
    let told = a.link.announce();
    assert!(told.len() <= 2, "one address for each relay beside the own: {told:?}");
    let claimed = |address: &LinkAddress| address.source == LinkAddress::RELAY_OBSERVED;
    let private = told.iter().filter(|address| claimed(address)).any(|address| match address.socket.ip() {
        std::net::IpAddr::V4(four) => four.is_loopback() || four.is_multicast(),
        std::net::IpAddr::V6(six) => six.is_loopback(),
    });
    assert!(!private, "{told:?}");
}
