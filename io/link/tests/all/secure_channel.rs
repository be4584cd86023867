//! What the TLS of a link takes and gives, and what a middleman cannot do.

use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::harness::raw::{AnyDates, Raw, TestCertificate, client, hybrid, read_head, server, upgrade};
use crate::harness::{key, node, soon, target};
use rustls::crypto::aws_lc_rs::kx_group;
use sealtide_crypto::{SeededEntropy, hmac_sha256};
use sealtide_identity::NodeId;
use sealtide_link::DialError;
use sealtide_wire::frame::{ErrorCode, FrameType, HEADER_BYTES, Notice};
use sealtide_wire::handshake::{Initiator, Proof, Responder, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsStream};

// Proves: LK-5
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_policy() {
    let own = TestCertificate::new();
    let door = node(1).await;
    for groups in [vec![kx_group::X25519], vec![kx_group::SECP256R1], vec![kx_group::X25519, kx_group::SECP384R1]] {
        let refused = soon(Raw::tls(door.address, client(groups, Some(&own)))).await;
        assert!(refused.is_err(), "the door takes X25519MLKEM768 only");
    }
    // One that prefers another group but has ours is asked for ours.
    let mut config = (*client(vec![kx_group::X25519, kx_group::X25519MLKEM768], Some(&own))).clone();
    config.enable_early_data = true;
    let mut tls = soon(Raw::tls(door.address, Arc::new(config))).await.unwrap();
    tls.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    soon(read_head(&mut tls)).await.unwrap();
    let TlsStream::Client(stream) = &mut tls else { panic!("a client") };
    let state = stream.get_mut().1;
    assert_eq!(state.negotiated_key_exchange_group().unwrap().name(), sealtide_link::GROUP);
    assert_eq!(state.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(state.tls13_tickets_received(), 0, "no tickets");
    assert!(state.early_data().is_none(), "no 0-RTT");

    // The dialler refuses a server without the group, and one whose certificate is not of the form.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plain = server(vec![kx_group::X25519], &own);
    let serve = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        TlsAcceptor::from(plain).accept(tcp).await.is_err()
    });
    let error = soon(door.link.dial(target(NodeId::of(key(9).public()), &[address]))).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
    assert!(serve.await.unwrap());

    // TLS 1.2 is not even built in; an independent client is told so.
    if let Some(output) = openssl(&["s_client", "-tls1_2", "-connect", &door.address.to_string()]) {
        assert!(output.contains("alert"), "{output}");
        assert!(!output.contains("BEGIN CERTIFICATE"), "{output}");
    }
    assert_eq!(door.link.metrics().tls_pq, 1);
}

// Proves: LK-67
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_surface() {
    let door = node(1).await;
    let shown = TestCertificate::new();
    let requests = [
        upgrade("/st/v1/link"),
        upgrade("/st/v1/relay"),
        upgrade("/"),
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "POST /st/v1/link HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ];
    let mut answers = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        for own in [None, Some(&shown)] {
            if own.is_some() && index == 0 {
                continue;
            }
            let mut tls = soon(Raw::tls(door.address, client(hybrid(), own))).await.unwrap();
            let leaf = tls.get_ref().1.peer_certificates().unwrap()[0].clone();
            assert!(!String::from_utf8_lossy(&leaf).to_lowercase().contains("sealtide"));
            tls.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            soon(tls.read_to_string(&mut answer)).await.unwrap();
            answers.push(answer);
        }
    }
    for answer in &answers {
        assert_eq!(answer, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    assert_eq!(door.link.metrics().not_found, answers.len() as u64);

    // Scanners of the machine: with the group they see a plain 404, without it an alert.
    let url = format!("https://{}/st/v1/link", door.address);
    let curl = run("curl", &["-k", "-s", "-i", "--max-time", "5", &url]).await;
    if let Some(output) = curl {
        assert!(output.is_empty() || output.starts_with("HTTP/1.1 404 "), "{output}");
        assert!(!output.to_lowercase().contains("server:") && !output.to_lowercase().contains("sealtide"), "{output}");
    }
    if let Some(output) = openssl(&["s_client", "-connect", &door.address.to_string()]) {
        assert!(!output.to_lowercase().contains("sealtide"), "{output}");
    }
}

/// What the program prints; `None` when this machine has it not.
async fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new(program);
    let output = command.args(arguments).stdin(Stdio::null()).output().await.ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn openssl(arguments: &[&str]) -> Option<String> {
    let arguments: Vec<_> = arguments.iter().map(|a| (*a).to_owned()).collect();
    // In place: the door runs on the other threads of the runtime.
    tokio::task::block_in_place(|| {
        let output = Command::new("openssl").args(arguments).stdin(Stdio::null()).output().ok()?;
        Some([output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat())
    })
}

/// How the middleman treats HELLO.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Forward {
    AsIs,
    /// With a knock of his own, so that the node answers: he knows its id.
    WithOwnKnock,
}

// Proves: LK-8
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mitm_forward() {
    for forward in [Forward::AsIs, Forward::WithOwnKnock] {
        let (victim, real) = (node(1).await, node(2).await);
        victim.allow(&real);
        real.allow(&victim);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let middle = listener.local_addr().unwrap();
        let (real_address, real_id) = (real.address, real.id());
        let man = tokio::spawn(async move {
            let (left, right) = (TestCertificate::new(), TestCertificate::new());
            let (tcp, _) = listener.accept().await.unwrap();
            let mut toward_victim = TlsAcceptor::from(server(hybrid(), &left)).accept(tcp).await.unwrap();
            let mut toward_real = Raw::tls(real_address, client(hybrid(), Some(&right))).await.unwrap();
            if forward == Forward::WithOwnKnock {
                let request = read_head(&mut toward_victim).await.unwrap();
                toward_real.write_all(request.as_bytes()).await.unwrap();
                let answer = read_head(&mut toward_real).await.unwrap();
                toward_victim.write_all(answer.as_bytes()).await.unwrap();
                // 2 bytes of header, 4 of mask, one HELLO.
                let mut message = [0; 6 + HEADER_BYTES + 72];
                toward_victim.read_exact(&mut message).await.unwrap();
                let mask = [message[2], message[3], message[4], message[5]];
                let hello = &mut message[6..];
                let apply = |bytes: &mut [u8]| bytes.iter_mut().zip(mask.iter().cycle()).for_each(|(b, m)| *b ^= m);
                apply(hello);
                let TlsStream::Client(tls) = &toward_real else { panic!("a client") };
                let cb = tls.get_ref().1.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).unwrap();
                let nonce = &hello[HEADER_BYTES + 4..HEADER_BYTES + 36];
                let tag = hmac_sha256(real_id.as_bytes(), &[b"sealtide-link-v1 to", &cb, nonce]);
                hello[HEADER_BYTES + 36..HEADER_BYTES + 68].copy_from_slice(&tag);
                apply(hello);
                toward_real.write_all(&message).await.unwrap();
            }
            let _cut = copy_bidirectional(&mut toward_victim, &mut toward_real).await;
        });
        let error = soon(victim.link.dial(target(real.id(), &[middle]))).await.unwrap_err();
        // A forwarded knock is wrong there, and a wrong knock is answered by nothing.
        let expected = if forward == Forward::AsIs { DialError::NoAnswer } else { DialError::WrongPeer };
        assert_eq!(error, expected, "{forward:?}");
        assert!(real.link.sessions().is_empty() && victim.link.sessions().is_empty());
        let metrics = real.link.metrics();
        assert_eq!(metrics.wrong_knocks, u64::from(forward == Forward::AsIs), "{forward:?}: the forwarded knock");
        drop((victim, real));
        man.abort();
    }
}

/// An initiator by hand: `shown` in TLS, `named` in ESTABLISHED. Gives the last frame of the node.
async fn initiate(
    door: &crate::harness::Node,
    key_seed: u64,
    shown: &TestCertificate,
    named: &TestCertificate,
) -> Option<bytes::Bytes> {
    let mut raw = Raw::dial(door.address, shown).await.unwrap();
    let local = named.local_end(&key(key_seed));
    let connection = raw.connection(shown);
    let mut entropy = SeededEntropy::new(5);
    let (mut initiator, hello) = Initiator::start(local, door.id(), Proof::Key, connection, None, &mut entropy);
    raw.send(&[hello]).await.unwrap();
    let challenge = raw.frame().await.unwrap();
    let Step::Send(frames) = initiator.handle(&challenge, &raw, &AnyDates).unwrap() else { panic!("RESPONSE") };
    raw.send(&frames).await.unwrap();
    raw.frame().await
}

// Proves: LK-17
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pin_direct() {
    let door = node(1).await;
    door.door.allowed.lock().unwrap().insert(NodeId::of(key(2).public()));
    let (shown, other) = (TestCertificate::new(), TestCertificate::new());

    let answer = soon(initiate(&door, 2, &shown, &other)).await.unwrap();
    assert_eq!(answer[0], FrameType::Error.code());
    assert_eq!(Notice::parse(&answer[HEADER_BYTES..]).unwrap(), Notice::new(ErrorCode::Refused));
    assert!(door.link.sessions().is_empty());

    let answer = soon(initiate(&door, 2, &shown, &shown)).await.unwrap();
    assert_eq!(answer[0], FrameType::Established.code(), "the same, with the certificate of the connection");

    // The other way: a node that names another certificate than it shows.
    for honest in [false, true] {
        let dialler = node(3).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = tokio::spawn(async move {
            let (shown, other) = (TestCertificate::new(), TestCertificate::new());
            let (tcp, _) = listener.accept().await.unwrap();
            let mut raw = Raw::accept(tcp, &shown).await.unwrap();
            let named = if honest { &shown } else { &other };
            let mut responder = Responder::new(named.local_end(&key(4)), raw.connection(&shown));
            let admission = crate::harness::Door::default();
            admission.allowed.lock().unwrap().insert(NodeId::of(key(3).public()));
            let mut entropy = SeededEntropy::new(6);
            loop {
                let frame = raw.frame().await.unwrap();
                match responder.handle(&frame, &raw, &AnyDates, &admission, &mut entropy).unwrap() {
                    Step::Wait => {}
                    Step::Send(frames) => raw.send(&frames).await.unwrap(),
                    Step::Done { send, .. } => {
                        raw.send(&send).await.unwrap();
                        return raw;
                    }
                    Step::LoggedIn { .. } => panic!("no relay"),
                }
            }
        });
        let result = soon(dialler.link.dial(target(NodeId::of(key(4).public()), &[address]))).await;
        let _raw = soon(serve).await.unwrap();
        assert_eq!(result.is_ok(), honest, "{result:?}");
    }
}
