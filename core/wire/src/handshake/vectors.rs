//! The checked-in handshake: fixed keys, nonces, channel bindings and exporters. Every byte is compared except the
//! signatures, which must verify. `SEALTIDE_WRITE_VECTORS=1` writes the file anew. Spec: LK-6.

use sealtide_crypto::{Label, SIGNATURE_BYTES, SeededEntropy, hmac_sha256, sha512, signed_message};
use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};
use serde_json::{Value, json};

use super::message::{Challenge, Response};
use super::signed::{CertificateScope, Side, initiator_content, responder_content};
use super::world::{Book, Played, Scene, TestCertificates};
use super::{Connection, Initiator, Proof, Responder, Step, initiator, responder};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors/link/handshake.json");
/// The scene's [`SeededEntropy`]: HELLO's nonce, CHALLENGE's nonce and session id, the random secret of RESPONSE.
const ENTROPY_SEED: u64 = 42;

fn scene() -> Scene {
    let mut scene = Scene::new();
    scene.seed = ENTROPY_SEED;
    scene.book.allowed.borrow_mut().clear();
    scene.book.invite(0x11, 0x22, 1);
    scene.proof = Proof::Invite([0x11; 16], InviteSecret::from_bytes([0x22; 32]));
    let address = |text: &str| LinkAddress { source: 4, socket: text.parse().unwrap() };
    scene.edit_initiator(|local| local.addresses = vec![address("192.168.1.20:7443"), address("[2001:db8::7]:7443")]);
    scene.edit_responder(|local| {
        local.cert_epoch = 3;
        local.relays = vec![RelayHint { relay: NodeId::from_bytes([4; 32]), url: "wss://relay.example".into() }];
    });
    scene.responder_sees =
        Connection { remote: Some("198.51.100.1:50123".parse().unwrap()), ..scene.responder_sees.clone() };
    scene
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("a string of hex digits");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Where the signature is in each frame, header included; none in HELLO.
const SIGNATURE_AT: [Option<usize>; 5] = [None, Some(8 + 2_653), Some(8 + 2_615), Some(8 + 453), Some(8 + 453)];
const NAMES: [&str; 5] = ["hello", "challenge", "response", "established_i", "established_r"];

/// The 112 bytes that each signature covers, from the frames alone.
fn signed(frames: &[Vec<u8>]) -> [Vec<u8>; 4] {
    let scene = scene();
    let binding = &scene.initiator_sees.binding;
    let (i, r) = (scene.initiator.id(), scene.responder.id());
    let session_id: [u8; 16] = frames[1][8 + 36..8 + 52].try_into().unwrap();
    let sb = super::signed::session_binding(&scene.initiator_tls, &frames[..3].concat());
    let responder = responder_content(binding, &r, &frames[0], Challenge::signed_part(&frames[1]));
    let initiator = initiator_content(binding, &i, &r, &frames[0], &frames[1], Response::signed_part(&frames[2]));
    let certificate = |local: &super::LocalEnd, side, audience| {
        let facts = &local.certificate;
        let scope = CertificateScope { session_id, side, signer: local.id(), audience, sb };
        scope.content(local.cert_epoch, facts.not_before, facts.not_after, &facts.fingerprint)
    };
    let of_i = certificate(&scene.initiator, Side::Initiator, r);
    let of_r = certificate(&scene.responder, Side::Responder, i);
    [
        signed_message(Label::LinkResponder, &responder).to_vec(),
        signed_message(Label::LinkInitiator, &initiator).to_vec(),
        signed_message(Label::LinkTlsCert, &of_i).to_vec(),
        signed_message(Label::LinkTlsCert, &of_r).to_vec(),
    ]
}

fn write(played: &Played) {
    let scene = scene();
    let established = played.initiator.done();
    let messages = signed(&played.sent);
    let frames: Vec<_> = (0..5)
        .map(|number| {
            let mut entry = json!({"name": NAMES[number], "frame": hex(&played.sent[number])});
            if let Some(at) = SIGNATURE_AT[number] {
                entry["signature_at"] = json!(at);
                entry["signed"] = json!(hex(&messages[number - 1]));
            }
            entry
        })
        .collect();
    let file = json!({
        "format": "sealtide-link-handshake-1",
        "note": "exporter(label, context) = HMAC-SHA256(tls_secret, label | 00 | context); signatures are hedged: they must verify, their bytes mean nothing",
        "initiator": {"seed": hex(&[1; 32]), "node_id": hex(scene.initiator.id().as_bytes()), "certificate": hex(&scene.initiator.certificate.der)},
        "responder": {"seed": hex(&[2; 32]), "node_id": hex(scene.responder.id().as_bytes()), "certificate": hex(&scene.responder.certificate.der)},
        "kind": 2,
        "bind": 1,
        "cb": hex(&[7; 32]),
        "fp_client": hex(&[0xC1; 32]),
        "fp_server": hex(&[0x51; 32]),
        "tls_secret": hex(&[7; 32]),
        "invite": {"id": hex(&[0x11; 16]), "secret": hex(&[0x22; 32])},
        "frames": frames,
        "sb": hex(&established.sb),
        "rs_0": hex(established.resume_secret.expose()),
    });
    let text = serde_json::to_string_pretty(&file).unwrap() + "\n";
    #[expect(clippy::disallowed_methods, reason = "the test writes its own vector when asked")]
    std::fs::write(PATH, text).unwrap();
}

fn assert_same_but_signature(ours: &[u8], vector: &[u8], number: usize) {
    assert_eq!(ours.len(), vector.len(), "{}", NAMES[number]);
    let signature = SIGNATURE_AT[number].map_or(0..0, |at| at..at + SIGNATURE_BYTES);
    for at in (0..ours.len()).filter(|at| !signature.contains(at)) {
        assert_eq!(ours[at], vector[at], "byte {at} of {}", NAMES[number]);
    }
}

// Proves: LK-6
#[test]
fn handshake_vectors() {
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment to write their vector")]
    if std::env::var("SEALTIDE_WRITE_VECTORS").is_ok() {
        write(&scene().play());
    }
    #[expect(clippy::disallowed_methods, reason = "a test reads its vector")]
    let text = std::fs::read(PATH).expect("vectors/link/handshake.json");
    let file: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(file["format"], "sealtide-link-handshake-1");
    let vector: Vec<_> = (0..5).map(|number| bytes(&file["frames"][number]["frame"])).collect();
    let scene = scene();
    assert_eq!(hex(scene.initiator.id().as_bytes()), file["initiator"]["node_id"]);
    assert_eq!(hex(scene.responder.id().as_bytes()), file["responder"]["node_id"]);
    assert_eq!(vector[..3].iter().map(|frame| frame.len() - 8).collect::<Vec<_>>(), [72, 7_280, 7_274]);

    // What was signed, byte for byte; and the tag, from the words of the specification.
    for (number, message) in signed(&vector).iter().enumerate() {
        assert_eq!(hex(message), file["frames"][number + 1]["signed"], "{}", NAMES[number + 1]);
    }
    let (body, tag) = vector[2].split_at(vector[2].len() - 32);
    let transcript = sha512(&[&vector[0], &vector[1], &body[8..]].concat());
    assert_eq!(hmac_sha256(&[0x22; 32], &[b"sealtide-link-v1 invite", &transcript]), tag);

    // The initiator says what the vector says; the signatures of the vector verify.
    let mut entropy = SeededEntropy::new(ENTROPY_SEED);
    let tls = scene.initiator_tls;
    let (mut i, hello) = scene.start(&mut entropy);
    assert_eq!(hello, vector[0]);
    let Step::Send(sent) = i.handle(&vector[1], &tls, &TestCertificates).unwrap() else { panic!("no RESPONSE") };
    // The tag covers the fresh signature, so it is compared without.
    assert_same_but_signature(&sent[0][..sent[0].len() - 32], &vector[2][..vector[2].len() - 32], 2);
    assert_same_but_signature(&sent[1], &vector[3], 3);
    let i = finish_initiator(&scene, i, &vector);

    let mut r = scene.answer();
    let Step::Send(sent) = r.handle(&hello, &tls, &TestCertificates, &scene.book, &mut entropy).unwrap() else {
        panic!("no CHALLENGE")
    };
    assert_same_but_signature(&sent[0], &vector[1], 1);
    let r = finish_responder(&scene.book, r, &vector);
    for established in [&i, &r] {
        assert_eq!(hex(&established.sb), file["sb"]);
        assert_eq!(established.session_id[..], vector[1][8 + 36..8 + 52]);
    }
    assert_eq!(hex(i.resume_secret.expose()), file["rs_0"]);
}

/// Goes on from the frames of the vector instead of the own ones, whose signatures differ.
fn finish_initiator(scene: &Scene, mut i: Initiator, vector: &[Vec<u8>]) -> Box<super::Established> {
    let initiator::State::AwaitEstablished { caps, session_id, key, .. } =
        std::mem::replace(&mut i.state, initiator::State::Over)
    else {
        panic!("CHALLENGE of the vector was not taken")
    };
    let sb = Some(super::signed::session_binding(&scene.initiator_tls, &vector[..3].concat()));
    i.state = initiator::State::AwaitEstablished { transcript: vector[..4].concat(), caps, session_id, key, sb };
    match i.handle(&vector[4], &scene.initiator_tls, &TestCertificates).unwrap() {
        Step::Done { established, .. } => established,
        other => panic!("{other:?}"),
    }
}

fn finish_responder(book: &Book, mut r: Responder, vector: &[Vec<u8>]) -> Box<super::Established> {
    let tls = super::world::Tls([7; 32]);
    let mut entropy = SeededEntropy::new(0);
    let responder::State::AwaitResponse { caps, .. } = r.state else { panic!("HELLO of the vector was not taken") };
    let session_id = vector[1][8 + 36..8 + 52].try_into().unwrap();
    let (hello, challenge) = (vector[0].clone(), vector[1].clone());
    r.state = responder::State::AwaitResponse { hello, challenge, caps, session_id };
    assert_eq!(r.handle(&vector[2], &tls, &TestCertificates, book, &mut entropy), Ok(Step::Wait));
    match r.handle(&vector[3], &tls, &TestCertificates, book, &mut entropy).unwrap() {
        Step::Done { send, established } => {
            assert_same_but_signature(&send[0], &vector[4], 4);
            established
        }
        other => panic!("{other:?}"),
    }
}
