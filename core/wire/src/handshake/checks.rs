//! Tests that need to see inside: single wrong fields under a right signature, contents, layouts, fuzz twins.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sealtide_crypto::{Label, SeededEntropy, Signature};
use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};

use super::certificate::CertificatePart;
use super::established::Message;
use super::message::{Challenge, Claim, Hello, Response};
use super::signed::{CertificateScope, Side, initiator_content, invite_tag, responder_content, to_tag};
use super::world::{Scene, TestCertificates, certificate, connection, node, scale};
use super::*;
use crate::frame::{Frame, FrameType, Header};

/// What is wrong, and how to make it so.
type Edits<T, const N: usize> = [(&'static str, fn(&mut T)); N];

fn scope() -> CertificateScope {
    CertificateScope {
        session_id: [1; 16],
        side: Side::Initiator,
        signer: node(1).id(),
        audience: node(2).id(),
        sb: [3; 32],
    }
}

// Proves: LK-16
#[test]
fn established_negative() {
    let good = scope();
    let local = node(1);
    let key = local.key().public().clone();
    let verify = |message: &Message| message.verify(&good, &key, 0, &TestCertificates);
    let message = |local: &LocalEnd, scope: &CertificateScope| Message::between_nodes(local, scope, None, None);
    assert!(verify(&message(&local, &good)).is_ok());

    // Signed for something else: everything in the message is as it should be, the signature covers another value.
    let bad_proof = Err(HandshakeError::BadProof { frame: FrameType::Established });
    let other_scopes = [
        ("session", CertificateScope { session_id: [9; 16], ..good.clone() }),
        ("role", CertificateScope { side: Side::Responder, ..good.clone() }),
        ("signer", CertificateScope { signer: node(3).id(), ..good.clone() }),
        ("audience", CertificateScope { audience: node(3).id(), ..good.clone() }),
        ("binding", CertificateScope { sb: [9; 32], ..good.clone() }),
    ];
    for (what, scope) in other_scopes {
        let mut wrong = message(&local, &scope);
        (wrong.session_id, wrong.role) = (good.session_id, good.side as u8);
        assert_eq!(verify(&wrong), bad_proof, "signed for another {what}");
    }
    let edits: Edits<CertificatePart, 3> = [
        ("epoch", |part| part.epoch += 1),
        ("signature", |part| part.signature[4_000] ^= 1),
        ("no signature", |part| part.signature.clear()),
    ];
    for (what, edit) in edits {
        let mut wrong = message(&local, &good);
        edit(&mut wrong.certificate);
        assert_eq!(verify(&wrong), bad_proof, "{what}");
    }
    let stranger = message(&node(3), &good);
    assert_eq!(verify(&stranger), bad_proof, "another key");

    // Rightly signed, but breaking a rule.
    let signed_with = |edit: fn(&mut CertificateFacts)| {
        let mut local = node(1);
        edit(&mut local.certificate);
        verify(&message(&local, &good))
    };
    let rules: Edits<CertificateFacts, 8> = [
        ("fingerprint", |facts| facts.fingerprint[0] ^= 1),
        ("not_before unlike the DER", |facts| facts.not_before += 1),
        ("not_after unlike the DER", |facts| facts.not_after -= 1),
        ("longer than 24 h 10 min", |facts| *facts = certificate(1, 5, 5 + 87_001)),
        ("no life", |facts| *facts = certificate(1, 5, 5)),
        ("ends before it begins", |facts| *facts = certificate(1, 5, 4)),
        ("no certificate", |facts| *facts = CertificateFacts::new(Vec::new(), 0, 1)),
        ("form", |facts| *facts = CertificateFacts::new(b"PEM".to_vec(), 0, 1)),
    ];
    for (what, edit) in rules {
        assert!(matches!(signed_with(edit), Err(HandshakeError::Certificate(_))), "{what}");
    }
    assert!(signed_with(|facts| *facts = certificate(1, 5, 5 + 87_000)).is_ok(), "24 h 10 min exactly");

    // The frame around the certificate.
    let frames: Edits<Message, 4> = [
        ("session id", |message| message.session_id[0] ^= 1),
        ("role", |message| message.role = 2),
        ("capabilities", |message| message.terms.caps = 1),
        ("relay limits", |message| {
            message.limits =
                Some(RelayLimits { max_circuits: 1, credit: 1, rate_bytes_s: 1, burst: 1, ping_ms: 15_000 });
        }),
    ];
    for (what, edit) in frames {
        let mut wrong = message(&local, &good);
        edit(&mut wrong);
        assert!(matches!(verify(&wrong), Err(HandshakeError::Malformed { .. })), "{what}");
    }
}

// Proves: LK-10
#[test]
fn misbinding_every_input_is_signed() {
    let binding = |kind, cb, client, server| {
        let (cb, client, server) = ([cb; 32], [client; 32], [server; 32]);
        Binding::channel(kind, cb, client, server).unwrap()
    };
    let base = binding(PipeKind::Direct, 1, 2, 3);
    let bindings = [
        base.clone(),
        binding(PipeKind::Relay, 1, 2, 3),
        binding(PipeKind::Direct, 9, 2, 3),
        binding(PipeKind::Direct, 1, 9, 3),
        binding(PipeKind::Direct, 1, 2, 9),
        binding(PipeKind::Direct, 1, 3, 2),
        Binding::relay_without_channel(),
    ];
    let [a, b, c] = [1, 2, 3].map(|byte| NodeId::from_bytes([byte; 32]));
    let mut contents = BTreeSet::new();
    for binding in &bindings {
        contents.insert(responder_content(binding, &a, b"hello", b"part"));
        contents.insert(initiator_content(binding, &a, &b, b"hello", b"challenge", b"part"));
    }
    for (id, hello, part) in [(&b, "hello", "part"), (&a, "hellp", "part"), (&a, "hello", "parT")] {
        contents.insert(responder_content(&base, id, hello.as_bytes(), part.as_bytes()));
    }
    for (i, r, hello, challenge, part) in [
        (&c, &b, "hello", "challenge", "part"),
        (&a, &c, "hello", "challenge", "part"),
        (&b, &a, "hello", "challenge", "part"),
        (&a, &b, "hellp", "challenge", "part"),
        (&a, &b, "hello", "challengf", "part"),
        (&a, &b, "hello", "challenge", "parT"),
    ] {
        let (hello, challenge, part) = (hello.as_bytes(), challenge.as_bytes(), part.as_bytes());
        contents.insert(initiator_content(&base, i, r, hello, challenge, part));
    }
    assert_eq!(contents.len(), 2 * bindings.len() + 3 + 6, "two different inputs have one content");
    assert_eq!(responder_content(&base, &a, b"", b"").len(), 4 + 3 * 32 + 32 + 2 * 64);
    assert_eq!(initiator_content(&base, &a, &b, b"", b"", b"").len(), 4 + 3 * 32 + 2 * 32 + 3 * 64);
    assert_eq!(scope().content(1, 2, 3, &[4; 32]).len(), 16 + 1 + 64 + 4 + 16 + 32 + 32);
}

// Proves: LK-99
#[test]
fn invite_grief() {
    let mut scene = Scene::new();
    scene.book.allowed.borrow_mut().clear();
    scene.book.invite(1, 2, 1);
    scene.proof = Proof::Invite([1; 16], InviteSecret::from_bytes([2; 32]));
    let (mut entropy, tls) = (SeededEntropy::new(1), scene.responder_tls);
    let (mut initiator, hello) = scene.start(&mut entropy);
    let mut responder = scene.answer();
    let step = responder.handle(&hello, &tls, &TestCertificates, &scene.book, &mut entropy).unwrap();
    let Step::Send(challenge) = step else { panic!("no CHALLENGE") };
    let Step::Send(frames) = initiator.handle(&challenge[0], &tls, &TestCertificates).unwrap() else {
        panic!("no RESPONSE")
    };
    // The griefer is as good as it gets: it holds a right signature and tries tag after tag.
    let tag_at = frames[0].len() - 32;
    for round in 0..10_000u32 {
        let mut wrong = frames[0].clone();
        wrong[tag_at + (round % 32) as usize] ^= 1 << (round / 32 % 8);
        wrong[tag_at] ^= (round >> 8) as u8 | 1;
        if wrong == frames[0] {
            continue;
        }
        let attempt = responder.clone().handle(&wrong, &tls, &TestCertificates, &scene.book, &mut entropy);
        assert!(matches!(attempt, Err(HandshakeError::NotAdmitted { .. })), "round {round}");
    }
    assert_eq!(scene.book.invites.borrow()[&[1; 16]].uses_left, 1);
    let step = responder.handle(&frames[0], &tls, &TestCertificates, &scene.book, &mut entropy);
    assert_eq!(step, Ok(Step::Wait));
    let step = responder.handle(&frames[1], &tls, &TestCertificates, &scene.book, &mut entropy);
    assert!(matches!(step, Ok(Step::Done { .. })), "the right one still works");
}

// Proves: LK-6
#[test]
fn layouts_by_offset() {
    let scene = Scene::new();
    let sent = scene.play().sent;
    let field = |number: usize, at: usize, bytes: usize| &sent[number][8 + at..8 + at + bytes];
    for (number, code) in [1u8, 2, 3, 4, 4].into_iter().enumerate() {
        let length = u32::try_from(sent[number].len() - 8).unwrap().to_be_bytes();
        assert_eq!(sent[number][..8], [&[code, 0, 0, 0], &length[..]].concat());
    }
    assert_eq!(field(0, 0, 4), [1, 2, 0, 0]);
    assert_eq!(
        field(0, 36, 32),
        to_tag(&scene.dialled, &scene.responder_sees.binding, field(0, 4, 32).try_into().unwrap())
    );
    assert_eq!(field(1, 0, 4), [1, 0, 0, 0]);
    assert_eq!(field(1, 56, 3), [1, 0x0A, 0x20], "alg, length of the key");
    assert_eq!(field(1, 59, 2_592), scene.responder.key().public().as_bytes());
    assert_eq!(field(1, 2_651, 2), [0x12, 0x13], "length of the signature");
    assert_eq!(field(2, 0, 2), [0, 0]);
    assert_eq!(field(2, 18, 3), [1, 0x0A, 0x20]);
    assert_eq!(field(2, 21, 2_592), scene.initiator.key().public().as_bytes());
    assert_eq!(field(2, 2_613, 2), [0x12, 0x13]);
    assert_eq!(field(2, 7_242, 32), [0; 32], "no tag without a flag");
    for (number, role, local) in [(3, 1, &scene.initiator), (4, 2, &scene.responder)] {
        assert_eq!(field(number, 0, 16), field(1, 36, 16), "the session id of CHALLENGE");
        assert_eq!(field(number, 16, 2), [role, 1]);
        assert_eq!(field(number, 22, 4), 15_000u32.to_be_bytes());
        assert_eq!(field(number, 26, 4), 65_536u32.to_be_bytes());
        assert_eq!(field(number, 30, 8), (16u64 << 20).to_be_bytes());
        assert_eq!(field(number, 38, 4), (256u32 << 10).to_be_bytes());
        assert_eq!(field(number, 42, 4), 1u32.to_be_bytes());
        assert_eq!(field(number, 46, 8), local.certificate.not_before.to_be_bytes());
        assert_eq!(field(number, 54, 8), local.certificate.not_after.to_be_bytes());
        assert_eq!(field(number, 62, 32), local.certificate.fingerprint);
        assert_eq!(field(number, 94, 2), 355u16.to_be_bytes());
        assert_eq!(field(number, 94 + 2 + 355, 2), [0x12, 0x13]);
        assert_eq!(field(number, 94 + 2 + 355 + 2 + 4_627, 5), [0; 5], "no addresses, observed, relays, extensions");
        assert_eq!(sent[number].len(), 8 + 94 + 2 + 355 + 2 + 4_627 + 5);
    }
}

#[test]
fn extensions_known_unknown_critical() {
    let message = Message::between_nodes(&node(1), &scope(), None, None);
    let frame = message.frame();
    let with = |extensions: &[u8]| {
        let mut payload = frame[8..frame.len() - 2].to_vec();
        payload.extend_from_slice(&(extensions.len() as u16).to_be_bytes());
        payload.extend_from_slice(extensions);
        Message::parse(&crate::frame::plain_frame(FrameType::Established, &payload))
    };
    assert_eq!(with(&[]), Ok(message.clone()));
    assert_eq!(with(&[0x7F, 0, 0, 2, 9, 9]), Ok(message.clone()), "unknown and not critical: passed over");
    let ours = [&[0, 1, 0, 24][..], &[7; 16], &5u64.to_be_bytes()].concat();
    let continuation = Some(Continuation { session_id: [7; 16], rx_next: 5 });
    assert_eq!(with(&ours).unwrap().continuation, continuation);
    assert_eq!(with(&[&[0x7F, 0, 0, 0], &ours[..]].concat()).unwrap().continuation, continuation);
    for (what, wrong) in [
        ("critical", vec![0x80, 0, 0, 0]),
        ("twice", [&ours[..], &ours].concat()),
        ("short value", vec![0, 1, 0, 2, 9, 9]),
        ("cut", vec![0, 1, 0]),
        ("long value", [&[0, 1, 0, 25][..], &[0; 25]].concat()),
    ] {
        assert!(with(&wrong).is_err(), "{what}");
    }
}

#[test]
fn terms_out_of_range() {
    let edits: Edits<Terms, 3> = [
        ("payload limit", |terms| terms.max_payload = 8_191),
        ("ping too often", |terms| terms.ping_ms = 999),
        ("ping too seldom", |terms| terms.ping_ms = 3_600_001),
    ];
    for (what, edit) in edits {
        let mut local = node(1);
        edit(&mut local.terms);
        let frame = Message::between_nodes(&local, &scope(), None, None).frame();
        assert!(Message::parse(&frame).is_err(), "{what}");
    }
    let mut local = node(1);
    local.terms.max_payload = u32::MAX;
    let frame = Message::between_nodes(&local, &scope(), None, None).frame();
    assert_eq!(Message::parse(&frame).unwrap().terms.max_payload, 65_536, "more than this node ever sends");
}

#[test]
fn response_flags_fit_the_kind() {
    let key = node(1);
    let sign = |part: &[u8]| key.key().sign(Label::LinkInitiator, part);
    let frame = |claim| Response::build(claim, key.key().public(), sign, |_| Some([1; 32]));
    let invite = frame(Claim::Invite([1; 16]));
    let token = frame(Claim::RelayToken);
    assert!(Response::parse(&invite, PipeKind::Direct).is_ok());
    assert!(Response::parse(&invite, PipeKind::RelayControl).is_err());
    assert!(Response::parse(&token, PipeKind::RelayControl).is_ok());
    assert!(Response::parse(&token, PipeKind::Direct).is_err());
    assert!(Response::parse(&frame(Claim::Key), PipeKind::Direct).is_err(), "a tag without its flag");
    let edits: [(&str, usize, u8); 4] =
        [("both flags", 9, 3), ("invite id without flag", 9, 0), ("high flag", 8, 0x80), ("algorithm", 8 + 18, 2)];
    for (what, at, value) in edits {
        let mut wrong = invite.clone();
        wrong[at] = value;
        assert!(Response::parse(&wrong, PipeKind::Direct).is_err(), "{what}");
    }
    let tag = |secret: u8, response: &[u8]| invite_tag(&InviteSecret::from_bytes([secret; 32]), b"h", b"c", response);
    assert_ne!(tag(1, b"r"), tag(2, b"r"));
    assert_ne!(tag(1, b"r"), tag(1, b"s"));
}

/// One good frame of each message, as they come.
fn samples() -> Vec<Vec<u8>> {
    let mut scene = Scene::new();
    scene.proof = Proof::Invite([1; 16], InviteSecret::from_bytes([2; 32]));
    scene.book.invite(1, 2, 1);
    scene.offer = Some(Continuation { session_id: [4; 16], rx_next: 5 });
    scene.edit_initiator(|local| {
        local.addresses = vec![LinkAddress { source: 1, socket: "[2001:db8::1]:7443".parse().unwrap() }; 3];
        local.relays = vec![RelayHint { relay: NodeId::from_bytes([5; 32]), url: "wss://relay.example/x".into() }; 2];
    });
    scene.initiator_sees =
        Connection { remote: Some("10.0.0.1:7443".parse().unwrap()), ..connection(PipeKind::Direct, 7) };
    scene.play().sent
}

/// Reads a frame as what it says it is and writes it again; `None` when it is refused. The builders take the place of
/// a signer; `stand_in` is overwritten by the signature that was read.
fn read_and_write(frame: &[u8], stand_in: &Signature) -> Option<Vec<u8>> {
    let sign = |_: &[u8]| stand_in.clone();
    let put_back = |mut out: Vec<u8>, signature: &[u8], at: usize| {
        out[at..at + signature.len()].copy_from_slice(signature);
        out
    };
    match frame.first()? {
        1 => Hello::parse(frame).map(|hello| hello.frame()),
        2 => Challenge::parse(frame).ok().map(|read| {
            let out = Challenge::build(read.bind, &read.nonce, &read.session_id, read.caps, &read.key, sign);
            put_back(out, &read.signature, 8 + 2_653)
        }),
        3 => Response::parse(frame, PipeKind::Direct).ok().map(|read| {
            let out = Response::build(read.claim, &read.key, sign, |_| Some(read.tag));
            put_back(out, &read.signature, 8 + 2_615)
        }),
        4 => Message::parse(frame).ok().map(|message| message.frame()),
        _ => None,
    }
}

/// Whether a changed byte is one that a reader looks through: the wish for padding, unknown extensions, a payload
/// limit above ours.
fn may_differ(number: usize, before: &[u8], after: &[u8]) -> bool {
    if before.len() != after.len() {
        return number == 3;
    }
    let mut differs = (0..before.len()).filter(|at| before[*at] != after[*at]);
    match number {
        0 | 1 => differs.all(|at| at == 8 + 3),
        3 => differs.all(|at| (8 + 26..8 + 30).contains(&at)),
        _ => false,
    }
}

fn twin(number: usize) {
    let sample = samples()[number].clone();
    let stand_in = node(1).key().sign(Label::LinkInitiator, b"");
    assert_eq!(read_and_write(&sample, &stand_in).as_ref(), Some(&sample), "a good frame reads back");
    let mut config = ProptestConfig::with_cases(20_000 * scale() as u32);
    config.failure_persistence = None;
    let mut taken = 0;
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..4);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let taken_frames = std::cell::RefCell::new(&mut taken);
    let check = |(changes, cut, random): (Vec<(prop::sample::Index, u8, u8)>, prop::sample::Index, Vec<u8>)| {
        let mut frame = sample.clone();
        for (at, byte, how) in changes {
            let at = at.index(frame.len());
            match how {
                0 => frame[at] = byte,
                1 => frame[at] ^= 1 << (byte % 8),
                // Near the front and the back, where the fields are.
                2 => {
                    let at = at % 128.min(frame.len());
                    frame[at] = byte;
                }
                _ => {
                    let at = frame.len() - 1 - at % 128.min(frame.len());
                    frame[at] = byte;
                }
            }
        }
        if cut.index(8) == 0 {
            frame.truncate(cut.index(frame.len()));
        }
        if cut.index(8) == 1 {
            frame.splice(8.min(frame.len()).., random);
        }
        // A right length in the header gets the bytes past the first check.
        if cut.index(2) == 0 && frame.len() >= 8 {
            let length = u32::try_from(frame.len() - 8).unwrap();
            frame[4..8].copy_from_slice(&length.to_be_bytes());
        }
        for kind in PipeKind::ALL {
            let _ = check_layout(&frame, kind);
        }
        if let Some(again) = read_and_write(&frame, &stand_in) {
            **taken_frames.borrow_mut() += 1;
            prop_assert!(again == frame || may_differ(number, &frame, &again), "reads as something else");
        }
        Ok(())
    };
    let input = (changes, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..300));
    runner.run(&input, check).unwrap();
    println!("twin of message {number}: {taken} changed frames still fit the layout");
    assert!(taken > 0, "no changed frame was taken: the twin tests nothing");
}

// Proves: LK-28
#[test]
fn fuzz_hello() {
    twin(0);
}

// Proves: LK-28
#[test]
fn fuzz_challenge() {
    twin(1);
}

// Proves: LK-28
#[test]
fn fuzz_response() {
    twin(2);
}

// Proves: LK-28
#[test]
fn fuzz_established() {
    twin(3);
}

#[test]
fn errors_and_their_frames() {
    let reply = |error: HandshakeError| error.reply().map(|frame| frame[8..].to_vec());
    let at = |frame| HandshakeError::Malformed { frame, rule: "" };
    let (a, b) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    for silent in [
        HandshakeError::WrongKnock,
        HandshakeError::Over,
        HandshakeError::Version { found: 2 },
        HandshakeError::WrongPeer { expected: a, found: b },
        HandshakeError::Peer(crate::frame::Notice::new(crate::frame::ErrorCode::Busy)),
        HandshakeError::Unproven { code: 3 },
        at(FrameType::Challenge),
        HandshakeError::BadProof { frame: FrameType::Challenge },
        HandshakeError::Unexpected { expected: FrameType::Challenge, found: FrameType::Data },
    ] {
        assert_eq!(reply(silent.clone()), None, "{silent}");
    }
    assert_eq!(reply(at(FrameType::Response)), Some(vec![0, 2]));
    assert_eq!(reply(at(FrameType::Established)), Some(vec![0, 2]));
    assert_eq!(reply(HandshakeError::BadProof { frame: FrameType::Response }), Some(vec![0, 3]));
    assert_eq!(reply(CertificateRejected("x").into()), Some(vec![0, 3]));
    assert_eq!(reply(HandshakeError::NotAdmitted { peer: None, reason: "x" }), Some(vec![0, 3]));
    let unexpected = HandshakeError::Unexpected { expected: FrameType::Response, found: FrameType::Data };
    assert_eq!(reply(unexpected), Some(vec![0, 10]));
    // A frame as large as they come is refused by its header alone.
    let header = Header::plain(FrameType::Response, HANDSHAKE_PAYLOAD_BYTES_MAX + 1);
    let mut bytes = Vec::new();
    header.write(&mut bytes);
    assert!(Frame::split(&bytes, HANDSHAKE_PAYLOAD_BYTES_MAX).is_err());
}
