//! Invites: who is enrolled, and what refusal looks like. Spec: link C.4.3.

use sealtide_crypto::SeededEntropy;
use sealtide_identity::InviteSecret;
use sealtide_wire::handshake::{HandshakeError, Initiator, Proof, Responder, Step};

use crate::world::{Scene, TestCertificates, node};

fn invited(id: u8, secret: u8) -> Scene {
    let mut scene = Scene::new();
    scene.book.allowed.borrow_mut().clear();
    scene.proof = Proof::Invite([id; 16], InviteSecret::from_bytes([secret; 32]));
    scene
}

// Proves: LK-4
#[test]
fn invite_lifecycle() {
    let mut scene = invited(1, 2);
    scene.book.invite(1, 2, 1);
    let played = scene.play();
    assert_eq!(played.responder.done().invite, Some([1; 16]));
    assert_eq!(played.initiator.done().invite, Some([1; 16]));
    assert!(scene.book.allowed.borrow().contains(&scene.initiator.id()));
    assert_eq!(scene.book.invites.borrow()[&[1; 16]].uses_left, 0);

    // The same id with the same, used up invite succeeds again; without the invite it is let in too.
    assert!(scene.play().initiator.is_done());
    assert_eq!(scene.book.invites.borrow()[&[1; 16]].enrolled.len(), 1);
    scene.proof = Proof::Key;
    assert!(scene.play().initiator.is_done());

    // Another id with the used up invite.
    let mut other = invited(1, 2);
    other.initiator = std::sync::Arc::new(node(3));
    other.book.invite(1, 2, 0);
    assert!(other.play().was_refused_uniformly());

    let mut expired = invited(1, 2);
    expired.book.invite(1, 2, 1);
    expired.book.now_ms = 1_000;
    assert!(expired.play().was_refused_uniformly());
    assert_eq!(expired.book.invites.borrow()[&[1; 16]].uses_left, 1);

    let unknown = invited(1, 2);
    assert!(unknown.play().was_refused_uniformly());

    let wrong = invited(1, 3);
    wrong.book.invite(1, 2, 1);
    let played = wrong.play();
    assert!(played.was_refused_uniformly());
    assert!(matches!(played.responder.error(), HandshakeError::NotAdmitted { peer: None, .. }), "counts as a guess");
    assert_eq!(wrong.book.invites.borrow()[&[1; 16]].uses_left, 1, "a wrong secret takes no use");
}

// Proves: LK-4
#[test]
fn invite_wrong_secret_of_an_allowed_id_is_refused() {
    let scene = invited(1, 3);
    scene.book.invite(1, 2, 1);
    scene.book.allowed.borrow_mut().insert(scene.initiator.id());
    assert!(scene.play().was_refused_uniformly());
}

// Proves: LK-100
#[test]
fn invite_race() {
    // Two holders of one use, both past RESPONSE: one is enrolled.
    let scene = invited(1, 2);
    scene.book.invite(1, 2, 1);
    let mut entropy = SeededEntropy::new(1);
    let mut halfway = Vec::new();
    for holder in [node(3), node(4)] {
        let local = std::sync::Arc::new(holder);
        let (proof, sees) = (scene.proof.clone(), scene.initiator_sees.clone());
        let (mut initiator, hello) = Initiator::start(local, scene.dialled, proof, sees, None, &mut entropy);
        let mut responder = Responder::new(scene.responder.clone(), scene.responder_sees.clone());
        let mut handle = |frame: &[u8]| {
            responder.handle(frame, &scene.responder_tls, &TestCertificates, &scene.book, &mut entropy).unwrap()
        };
        let Step::Send(challenge) = handle(&hello) else { panic!("no CHALLENGE") };
        let step = initiator.handle(&challenge[0], &scene.initiator_tls, &TestCertificates).unwrap();
        let Step::Send(frames) = step else { panic!("no RESPONSE") };
        assert_eq!(handle(&frames[0]), Step::Wait);
        assert!(initiator.peer_is_proven() && responder.proven_peer().is_some());
        halfway.push((responder, frames[1].clone()));
    }
    let finished: Vec<_> = halfway
        .into_iter()
        .map(|(mut responder, frame)| {
            let step = responder.handle(&frame, &scene.responder_tls, &TestCertificates, &scene.book, &mut entropy);
            step.map_err(|error| error.reply().unwrap())
        })
        .collect();
    assert!(matches!(finished[0], Ok(Step::Done { .. })));
    assert_eq!(finished[1], Err(vec![0x0E, 0, 0, 0, 0, 0, 0, 2, 0, 3]));
    assert_eq!(scene.book.allowed.borrow().len(), 1);
    assert_eq!(scene.book.invites.borrow()[&[1; 16]].uses_left, 0);
}

// Proves: LK-100
#[test]
fn invite_is_taken_after_all_other_checks() {
    // A broken certificate in ESTABLISHED costs no use.
    let scene = invited(1, 2);
    scene.book.invite(1, 2, 1);
    let played = scene.play_against(|at, frame| {
        if at == 3 {
            frame[8 + 62] ^= 1;
        }
    });
    assert!(!played.responder.is_done());
    assert_eq!(scene.book.invites.borrow()[&[1; 16]].uses_left, 1);
    assert!(scene.book.allowed.borrow().is_empty());
}
