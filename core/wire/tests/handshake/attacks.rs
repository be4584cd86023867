//! Everything that must fail, and how loudly.

use std::sync::Arc;

use sealtide_crypto::{Entropy, SeededEntropy, hmac_sha256};
use sealtide_identity::{InviteSecret, NodeId};
use sealtide_wire::frame::{ErrorCode, FrameType, Notice};
use sealtide_wire::handshake::{Binding, HandshakeError, Initiator, PipeKind, Proof, Responder, Step};

use crate::good::contains;
use crate::world::{End, Scene, TestCertificates, Tls, connection, node, scale};

/// Puts a right knock for `responder` on a HELLO frame: what anybody can do who knows the id.
fn knock_again(hello: &mut [u8], responder: &NodeId, cb: u8) {
    let nonce = hello[12..44].to_vec();
    let tag = hmac_sha256(responder.as_bytes(), &[b"sealtide-link-v1 to", &[cb; 32], &nonce]);
    hello[44..76].copy_from_slice(&tag);
}

/// A middleman with own certificates: what each end sees of its TLS connection differs.
fn with_middleman() -> Scene {
    let mut scene = Scene::new();
    scene.initiator_sees.binding =
        Binding::channel(PipeKind::Direct, [7; 32], [0xC1; 32], [0xEE; 32]).expect("both certificates");
    scene.responder_sees.binding =
        Binding::channel(PipeKind::Direct, [8; 32], [0xEF; 32], [0x51; 32]).expect("both certificates");
    scene.responder_tls = Tls([8; 32]);
    scene
}

// Proves: LK-8
#[test]
fn mitm_forward() {
    let scene = with_middleman();
    let played = scene.play();
    assert!(matches!(played.responder, End::Failed(HandshakeError::WrongKnock)), "a forwarded HELLO is no knock");

    let played = scene.play_against(|at, frame| {
        if at == 0 {
            knock_again(frame, &scene.responder.id(), 8);
        }
    });
    assert_eq!(*played.initiator.error(), HandshakeError::BadProof { frame: FrameType::Challenge });
    assert_eq!(played.initiator_error_frame, None, "the initiator stays silent");

    // RESPONSE of a genuine handshake, carried into the middleman's own.
    let genuine = Scene::new();
    let captured = genuine.play().sent;
    let mut entropy = SeededEntropy::new(5);
    let mut responder = scene.answer();
    let mut hello = captured[0].clone();
    knock_again(&mut hello, &scene.responder.id(), 8);
    let tls = scene.responder_tls;
    responder.handle(&hello, &tls, &TestCertificates, &scene.book, &mut entropy).unwrap();
    let error = responder.handle(&captured[2], &tls, &TestCertificates, &scene.book, &mut entropy).unwrap_err();
    assert_eq!(error, HandshakeError::BadProof { frame: FrameType::Response });
    assert_eq!(error.reply().unwrap()[8..], [0, 3]);
}

// Proves: LK-8
#[test]
fn replay_on_the_same_connection() {
    // Even with the same exporter, fresh nonces make old messages worthless.
    let scene = Scene::new();
    let captured = scene.play().sent;
    let mut entropy = SeededEntropy::new(99);
    let mut responder = scene.answer();
    let tls = scene.responder_tls;
    responder.handle(&captured[0], &tls, &TestCertificates, &scene.book, &mut entropy).unwrap();
    let error = responder.handle(&captured[2], &tls, &TestCertificates, &scene.book, &mut entropy).unwrap_err();
    assert_eq!(error, HandshakeError::BadProof { frame: FrameType::Response });
    let (mut initiator, _) = scene.start(&mut entropy);
    let error = initiator.handle(&captured[1], &tls, &TestCertificates).unwrap_err();
    assert_eq!(error, HandshakeError::BadProof { frame: FrameType::Challenge });
}

// Proves: LK-9
#[test]
fn reflect() {
    let scene = Scene::new();
    let tls = scene.initiator_tls;
    let mut entropy = SeededEntropy::new(3);

    // HELLO back to its sender: the knock is for another id; with a new knock the answer comes from the wrong node.
    let own_door = || Responder::new(scene.initiator.clone(), scene.responder_sees.clone());
    let (mut initiator, mut hello) = scene.start(&mut entropy);
    let error = own_door().handle(&hello, &tls, &TestCertificates, &scene.book, &mut entropy).unwrap_err();
    assert_eq!(error, HandshakeError::WrongKnock);
    knock_again(&mut hello, &scene.initiator.id(), 7);
    let step = own_door().handle(&hello, &tls, &TestCertificates, &scene.book, &mut entropy).unwrap();
    let Step::Send(frames) = step else { panic!("{step:?}") };
    let error = initiator.handle(&frames[0], &tls, &TestCertificates).unwrap_err();
    assert_eq!(error, HandshakeError::WrongPeer { expected: scene.dialled, found: scene.initiator.id() });

    // Each later message back to its sender.
    let captured = scene.play().sent;
    for reflected in [2, 3] {
        let played = scene.play_against(|at, frame| {
            if at == 4 {
                frame.clone_from(&captured[reflected]);
            }
        });
        assert!(!played.initiator.is_done(), "frame {reflected} is taken back");
    }
    let played = scene.play_against(|at, frame| {
        if at == 2 {
            frame.clone_from(&captured[1]);
        }
    });
    assert!(matches!(played.responder.error(), HandshakeError::Unexpected { .. }));

    // A node that dials itself.
    let itself = Scene::between(node(1), node(1));
    assert!(itself.play().was_refused_uniformly());
}

// Proves: LK-9
#[test]
fn reflected_established_is_refused() {
    let scene = Scene::new();
    let mut own = Vec::new();
    let played = scene.play_against(|at, frame| match at {
        3 => own.clone_from(frame),
        4 => frame.clone_from(&own),
        _ => {}
    });
    let expected = HandshakeError::Malformed { frame: FrameType::Established, rule: "the other role" };
    assert_eq!(*played.initiator.error(), expected);
}

// Proves: LK-10
#[test]
fn misbinding() {
    let make = |kind, cb, client, server| Binding::channel(kind, [cb; 32], [client; 32], [server; 32]).unwrap();
    let swaps = [
        ("kind", make(PipeKind::Relay, 7, 0xC1, 0x51)),
        ("cb", make(PipeKind::Direct, 6, 0xC1, 0x51)),
        ("client fingerprint", make(PipeKind::Direct, 7, 0xC2, 0x51)),
        ("server fingerprint", make(PipeKind::Direct, 7, 0xC1, 0x52)),
        ("both fingerprints", make(PipeKind::Direct, 7, 0x51, 0xC1)),
    ];
    for (what, binding) in swaps {
        let mut scene = Scene::new();
        scene.initiator_sees.binding = binding.clone();
        assert!(!scene.play().initiator.is_done(), "{what} at the initiator");
        let mut scene = Scene::new();
        scene.responder_sees.binding = binding;
        assert!(!scene.play().initiator.is_done(), "{what} at the responder");
    }
    // Another node answers for the dialled one.
    let mut scene = Scene::new();
    let other = node(3);
    scene.responder = Arc::new(other);
    let played = scene.play_against(|at, frame| {
        if at == 0 {
            knock_again(frame, &node(3).id(), 7);
        }
    });
    let found = node(3).id();
    assert_eq!(*played.initiator.error(), HandshakeError::WrongPeer { expected: scene.dialled, found });
    // Exporters that differ below an equal channel binding: the certificates do not verify.
    let mut scene = Scene::new();
    scene.responder_tls = Tls([9; 32]);
    assert_eq!(*scene.play().responder.error(), HandshakeError::BadProof { frame: FrameType::Established });
}

/// The bytes of a frame whose bits are flipped: every one of the fixed fields, one in 64 of keys and signatures.
fn flipped_bytes(number: usize, frame: &[u8]) -> Vec<usize> {
    let long: Vec<std::ops::Range<usize>> = match number {
        1 => vec![8 + 59..8 + 59 + 2_592, 8 + 2_653..8 + 2_653 + 4_627],
        2 => vec![8 + 21..8 + 21 + 2_592, 8 + 2_615..8 + 2_615 + 4_627],
        3 | 4 => vec![8 + 96..8 + 96 + 355, 8 + 453..8 + 453 + 4_627],
        _ => vec![],
    };
    let is_fixed = |at: &usize| !long.iter().any(|range| range.contains(at)) || at.is_multiple_of(64) || scale() >= 64;
    (0..frame.len()).filter(is_fixed).collect()
}

// Proves: LK-11
#[test]
fn bitflip_all() {
    let mut scene = Scene::new();
    scene.proof = Proof::Invite([1; 16], InviteSecret::from_bytes([2; 32]));
    scene.book.invite(1, 2, u32::MAX);
    let sample = scene.play();
    assert!(sample.initiator.is_done());
    let mut flips = 0;
    for number in 0..5 {
        for at in flipped_bytes(number, &sample.sent[number]) {
            let bit = 1 << (at % 8);
            let played = scene.play_against(|frame_number, frame| {
                if frame_number == number {
                    frame[at] ^= bit;
                }
            });
            // ESTABLISHED has fields that no signature covers; a change there shows in the secret, which both ends
            // must share for every further path.
            let agreed = match (&played.initiator, &played.responder) {
                (End::Done(i), End::Done(r)) => i.resume_secret == r.resume_secret,
                _ => false,
            };
            assert!(!agreed, "bit {bit} of byte {at} of frame {number} goes unseen");
            let certificate_done = number < 3 && played.initiator.is_done();
            assert!(!certificate_done, "byte {at} of frame {number} reaches an established initiator");
            flips += 1;
        }
    }
    println!("bitflip_all: {flips} bits");
    assert!(flips > 800);
}

// Proves: LK-11
#[test]
fn capability_stripping() {
    // (frame, offset of caps behind the header)
    for (number, offset) in [(0, 68), (1, 52), (3, 18), (4, 18)] {
        let mut scene = Scene::new();
        scene.edit_initiator(|local| local.terms.caps = 1);
        scene.edit_responder(|local| local.terms.caps = 1);
        let played = scene.play_against(|at, frame| {
            if at == number {
                assert_eq!(frame[8 + offset + 3], 1);
                frame[8 + offset + 3] = 0;
            }
        });
        assert!(!played.initiator.is_done(), "stripped from frame {number}");
    }
}

// Proves: LK-13
#[test]
fn knock_scan() {
    let scene = Scene::new();
    let mut entropy = SeededEntropy::new(4);
    let (_, right) = scene.start(&mut entropy);
    let mut random = vec![0; 80];
    for round in 0..10_000 {
        entropy.fill(&mut random);
        let mut hello = right.clone();
        match round % 8 {
            0 => hello[44..76].copy_from_slice(&random[..32]),
            1 => hello[12..44].copy_from_slice(&random[..32]),
            2 => hello[8] = 2 + random[0] % 250,
            3 => hello[9] = [0, 1, 3, 4, 5, 200][usize::from(random[0]) % 6],
            4 => hello[10..12].copy_from_slice(&(1u16 << (random[0] % 2 * 3)).to_be_bytes()),
            5 => hello.truncate(usize::from(random[0]) % 80),
            6 => hello = random[..usize::from(random[0]) % 80].to_vec(),
            _ => {
                hello[8..].copy_from_slice(&random[..72]);
            }
        }
        let mut responder = scene.answer();
        let error = responder
            .handle(&hello, &scene.responder_tls, &TestCertificates, &scene.book, &mut entropy)
            .expect_err("a wrong knock");
        assert_eq!(error, HandshakeError::WrongKnock, "round {round}");
        assert_eq!(error.reply(), None, "not a byte");
        let cost = responder.operations();
        assert_eq!((cost.signed, cost.verified, cost.lookups), (0, 0, 0));
        assert!(cost.macs <= 1);
        let again = responder.handle(&right, &scene.responder_tls, &TestCertificates, &scene.book, &mut entropy);
        assert_eq!(again, Err(HandshakeError::Over), "one knock for each connection");
    }
}

// Proves: LK-14
#[test]
fn initiator_privacy() {
    let mut entropy = SeededEntropy::new(6);
    let ends = [Arc::new(node(1)), Arc::new(node(2)), Arc::new(node(3))];
    let mut nonces = std::collections::BTreeSet::new();
    let mut fixed = std::collections::BTreeSet::new();
    for round in 0..1_000 {
        let local = &ends[round % 3];
        let peer = ends[(round + 1) % 3].id();
        let secret = InviteSecret::from_bytes([0x77; 32]);
        let proof = if round % 2 == 0 { Proof::Key } else { Proof::Invite([0x66; 16], secret) };
        let sees = connection(PipeKind::Direct, (round % 256) as u8);
        let (_, hello) = Initiator::start(local.clone(), peer, proof, sees, None, &mut entropy);
        assert_eq!(hello.len(), 80);
        fixed.insert([&hello[..12], &hello[76..]].concat());
        nonces.insert(hello[12..44].to_vec());
        for end in &ends {
            assert!(!contains(&hello, end.id().as_bytes()), "an id in the clear");
        }
    }
    assert_eq!(nonces.len(), 1_000);
    assert_eq!(fixed.len(), 1, "HELLO is uniform except nonce and tag");
}

// Proves: LK-14, LK-98
#[test]
fn invite_not_in_hello() {
    // A fake responder that answers with all it has: another key, a broken signature, rubbish, an error.
    let mut scene = Scene::new();
    scene.proof = Proof::Invite([0x66; 16], InviteSecret::from_bytes([0x77; 32]));
    let genuine = Scene::new().play().sent[1].clone();
    let fakes: [fn(&mut Vec<u8>); 8] = [
        |frame| *frame.last_mut().unwrap() ^= 1,
        |frame| frame[8 + 59] ^= 1,
        |frame| frame[8] = 2,
        |frame| frame[9] = 1,
        |frame| frame.truncate(100),
        |frame| frame[0] = 4,
        |frame| *frame = vec![0x0E, 0, 0, 0, 0, 0, 0, 2, 0, 3],
        |frame| frame.clear(),
    ];
    for (index, fake) in fakes.into_iter().enumerate() {
        let mut entropy = SeededEntropy::new(7);
        let (mut initiator, mut logged) = scene.start(&mut entropy);
        let mut answer = genuine.clone();
        fake(&mut answer);
        let error = initiator.handle(&answer, &scene.initiator_tls, &TestCertificates).unwrap_err();
        logged.extend(error.reply().unwrap_or_default());
        assert_eq!(logged.len(), 80, "fake {index}: only HELLO leaves ({error:?})");
        assert!(!contains(&logged, &[0x66; 16]) && !contains(&logged, &[0x77; 32]));
        assert!(!initiator.peer_is_proven());
    }
}

/// What a stranger at the address of the peer says is told from the word of the peer. (That of the peer, behind its
/// CHALLENGE: `unknown_peer`.)
#[test]
fn an_error_before_the_proof_is_not_the_word_of_the_peer() {
    let scene = Scene::new();
    for code in [ErrorCode::Refused, ErrorCode::Busy, ErrorCode::Duplicate] {
        let (mut initiator, _) = scene.start(&mut SeededEntropy::new(7));
        let said = Notice::with_text(code, "this ticket is used up").frame(FrameType::Error);
        let found = initiator.handle(&said, &scene.initiator_tls, &TestCertificates).unwrap_err();
        assert_eq!(found, HandshakeError::Unproven { code: code.code() });
        assert_eq!(found.reply(), None);
    }
}

// Proves: LK-15
#[test]
fn unknown_peer() {
    let scene = Scene::new();
    scene.book.allowed.borrow_mut().clear();
    let played = scene.play();
    assert!(played.was_refused_uniformly());
    let expected =
        HandshakeError::NotAdmitted { peer: Some(scene.initiator.id()), reason: "neither allowed nor invited" };
    assert_eq!(*played.responder.error(), expected);
}

// Proves: LK-15
#[test]
fn membership_oracle() {
    // Every refusal of RESPONSE costs the same operations and says the same.
    let flip_signature = |at: usize, frame: &mut Vec<u8>| {
        if at == 2 {
            frame[8 + 3_000] ^= 1;
        }
    };
    let flip_tag = |at: usize, frame: &mut Vec<u8>| {
        if at == 2 {
            *frame.last_mut().unwrap() ^= 1;
        }
    };
    let honest = |_: usize, _: &mut Vec<u8>| {};
    let invite = || Proof::Invite([1; 16], InviteSecret::from_bytes([2; 32]));
    type Tamper = fn(usize, &mut Vec<u8>);
    let cases: [(&str, bool, bool, Proof, Tamper); 7] = [
        ("unknown id", false, false, Proof::Key, honest),
        ("unknown id, bad signature", false, false, Proof::Key, flip_signature),
        ("allowed id, bad signature", true, false, Proof::Key, flip_signature),
        ("unknown invite", false, false, invite(), honest),
        ("unknown invite, allowed id", true, false, invite(), honest),
        ("known invite, wrong tag", false, true, invite(), flip_tag),
        ("known invite, wrong tag, allowed id", true, true, invite(), flip_tag),
    ];
    let mut costs = std::collections::BTreeSet::new();
    for (what, allowed, invited, proof, tamper) in cases {
        let mut scene = Scene::new();
        if !allowed {
            scene.book.allowed.borrow_mut().clear();
        }
        if invited {
            scene.book.invite(1, 2, 1);
        }
        scene.proof = proof;
        let played = scene.play_against(tamper);
        assert!(played.was_refused_uniformly(), "{what}: {:?}", played.initiator);
        costs.insert(format!("{:?}", played.operations));
    }
    assert_eq!(costs.len(), 1, "{costs:?}");
}

// Proves: LK-16
#[test]
fn established_negative_no_longer_allowed() {
    // Revoked between RESPONSE and ESTABLISHED.
    let scene = Scene::new();
    let played = scene.play_against(|at, _| {
        if at == 3 {
            scene.book.allowed.borrow_mut().clear();
        }
    });
    assert!(played.was_refused_uniformly());
    assert!(matches!(played.responder.error(), HandshakeError::NotAdmitted { reason: "no longer allowed", .. }));
}

#[test]
fn out_of_turn() {
    let scene = Scene::new();
    let captured = scene.play().sent;
    // Any message in any place but its own.
    for place in 0..5 {
        for (number, other) in captured.iter().enumerate() {
            if number == place {
                continue;
            }
            let played = scene.play_against(|at, frame| {
                if at == place {
                    frame.clone_from(other);
                }
            });
            assert!(!played.initiator.is_done(), "frame {number} in place {place}");
        }
    }
    // Two frames where one is awaited.
    let played = scene.play_against(|at, frame| {
        if at == 2 {
            frame.extend_from_slice(&captured[3]);
        }
    });
    assert!(matches!(played.responder.error(), HandshakeError::Malformed { .. }));
}
