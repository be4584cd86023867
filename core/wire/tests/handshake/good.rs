//! Handshakes that succeed, and what comes out of them.

use sealtide_identity::{InviteSecret, LinkAddress, NodeId, RelayHint};
use sealtide_wire::frame::FrameType;
use sealtide_wire::handshake::{
    Binding, BindingError, Connection, Continuation, HandshakeError, PipeKind, Proof, RelayLimits, Responder, Terms,
};

use crate::world::{End, Scene, Tls, connection, node};

// Proves: LK-6
#[test]
fn both_ends_agree() {
    for kind in [PipeKind::Relay, PipeKind::Direct, PipeKind::Tunnel] {
        let mut scene = Scene::new();
        scene.initiator_sees = connection(kind, 7);
        scene.responder_sees = connection(kind, 7);
        let played = scene.play();
        let (i, r) = (played.initiator.done(), played.responder.done());
        assert_eq!((i.peer, r.peer), (scene.responder.id(), scene.initiator.id()));
        assert_eq!((i.initiator, r.initiator), (true, false));
        assert_eq!((i.kind, r.kind), (kind, kind));
        assert_eq!((i.session_id, i.sb), (r.session_id, r.sb));
        assert_eq!(i.resume_secret, r.resume_secret);
        assert_ne!(i.sb, *i.resume_secret.expose());
        assert_eq!((i.invite, r.invite, i.continued, r.continued), (None, None, None, None));
        assert_eq!(i.pin.fingerprint, scene.responder.certificate.fingerprint);
        assert_eq!(r.pin.fingerprint, scene.initiator.certificate.fingerprint);
        assert_eq!((i.pin.epoch, i.pin.lifetime_seconds), (1, 86_700));
        let sizes: Vec<_> = played.sent.iter().map(|frame| frame.len() - 8).collect();
        assert_eq!(sizes[..3], [72, 7_280, 7_274]);
        assert_eq!(played.sent.len(), 5);
        assert_eq!(played.operations.signed, 2);
        assert_eq!(played.operations.verified, 2);
    }
}

#[test]
fn terms_addresses_and_relays_arrive() {
    let mut scene = Scene::new();
    let terms = Terms {
        caps: 0x8000_0001,
        ping_ms: 20_000,
        max_payload: 8_192,
        session_credit: 1 << 40,
        channel_credit: 77,
        accepts_direct: false,
        keeps_relay: true,
    };
    let public = LinkAddress { source: 2, socket: "203.0.113.9:7443".parse().unwrap() };
    let relay = RelayHint { relay: NodeId::from_bytes([5; 32]), url: "wss://relay.example".into() };
    scene.edit_initiator(|local| {
        local.terms = terms;
        local.cert_epoch = 9;
        local.addresses = vec![public; 12];
        local.relays = vec![relay.clone(); 6];
    });
    scene.initiator_sees.remote = Some("198.51.100.1:443".parse().unwrap());
    let played = scene.play();
    let (i, r) = (played.initiator.done(), played.responder.done());
    assert_eq!(r.peer_terms, terms);
    assert_eq!(i.peer_terms, Terms::default());
    assert_eq!(r.pin.epoch, 9);
    assert_eq!(r.addresses, vec![public; 8]);
    assert_eq!(r.relays, vec![relay; 4]);
    assert_eq!(r.observed, Some(LinkAddress { source: 5, socket: "198.51.100.1:443".parse().unwrap() }));
    assert_eq!(i.observed, None);
}

// Proves: LK-107
#[test]
fn loopback_addr_only_over_loopback() {
    let loopback = LinkAddress { source: 4, socket: "127.0.0.1:7443".parse().unwrap() };
    let taken = |kind, remote: Option<&str>| {
        let mut scene = Scene::new();
        scene.edit_initiator(|local| local.addresses = vec![loopback]);
        scene.initiator_sees = connection(kind, 7);
        scene.responder_sees = Connection { remote: remote.map(|text| text.parse().unwrap()), ..connection(kind, 7) };
        scene.play().responder.done().addresses.clone()
    };
    assert_eq!(taken(PipeKind::Direct, Some("127.0.0.1:50000")), [loopback]);
    assert_eq!(taken(PipeKind::Direct, Some("[::ffff:127.0.0.1]:50000")), [loopback]);
    assert_eq!(taken(PipeKind::Direct, Some("192.168.1.2:50000")), []);
    assert_eq!(taken(PipeKind::Direct, None), []);
    assert_eq!(taken(PipeKind::Relay, Some("127.0.0.1:50000")), [], "a relay on this machine proves nothing");
    assert_eq!(taken(PipeKind::Tunnel, Some("127.0.0.1:50000")), []);
}

// Proves: LK-12
#[test]
fn clock_skew() {
    // The handshake has no clock: certificates of ends that are a year apart either way are taken, and a pin is a
    // duration.
    const YEAR: u64 = 31_536_000;
    for start in [1_800_000_000 - YEAR, 1_800_000_000 + YEAR, 0, u64::MAX - 86_700] {
        let mut scene = Scene::new();
        scene.edit_initiator(|local| local.certificate = crate::world::certificate(3, start, start + 86_700));
        let played = scene.play();
        assert_eq!(played.responder.done().pin.lifetime_seconds, 86_700);
        assert!(played.initiator.is_done());
    }
}

// Proves: LK-96
#[test]
fn session_binding() {
    let mut scene = Scene::new();
    let first = scene.play();
    assert_eq!(first.initiator.done().sb, first.responder.done().sb);
    scene.seed = 2;
    let second = scene.play();
    assert_ne!(first.initiator.done().sb, second.initiator.done().sb, "another handshake on the same connection");
    scene.seed = 1;
    (scene.initiator_tls, scene.responder_tls) = (Tls([8; 32]), Tls([8; 32]));
    let third = scene.play();
    assert_ne!(first.initiator.done().sb, third.initiator.done().sb, "the same nonces on another connection");
}

// Proves: LK-96
#[test]
fn session_binding_extension_1() {
    let mut scene = Scene::new();
    let offer = Continuation { session_id: [0xAA; 16], rx_next: 41 };
    scene.offer = Some(offer);
    // Unknown: a new session, nothing goes on.
    let played = scene.play();
    assert_eq!(played.initiator.done().continued, None);
    assert_eq!(played.responder.done().continued, None);
    // Known: each end learns the number that the other expects.
    scene.book.session = Some((offer.session_id, 17));
    let played = scene.play();
    assert_eq!(played.initiator.done().continued, Some(Continuation { rx_next: 17, ..offer }));
    assert_eq!(played.responder.done().continued, Some(offer));
    assert_eq!(played.initiator.done().resume_secret, played.responder.done().resume_secret);
}

fn limits() -> RelayLimits {
    RelayLimits { max_circuits: 8, credit: 262_144, rate_bytes_s: 6_250_000, burst: 4 << 20, ping_ms: 15_000 }
}

fn relay_scene(binding: &Binding) -> Scene {
    let mut scene = Scene::new();
    scene.initiator_sees.binding = binding.clone();
    scene.responder_sees =
        Connection { binding: binding.clone(), remote: Some("198.51.100.7:7443".parse().expect("an address")) };
    scene.edit_initiator(|local| {
        local.addresses = vec![LinkAddress { source: 1, socket: "10.0.0.7:7443".parse().expect("an address") }];
    });
    scene
}

// Proves: LK-96, LK-19
#[test]
fn relay_login_has_no_session() {
    let bound = Binding::channel(PipeKind::RelayControl, [7; 32], [0; 32], [0x51; 32]).unwrap();
    for binding in [bound, Binding::relay_without_channel()] {
        for token in [None, Some(InviteSecret::from_bytes([3; 32]))] {
            let mut scene = relay_scene(&binding);
            if let Some(token) = &token {
                scene.book.allowed.borrow_mut().clear();
                scene.book.token = Some(token.clone());
                scene.proof = Proof::RelayToken(token.clone());
            }
            let relay = Responder::relay(scene.responder.clone(), scene.responder_sees.clone(), limits());
            let played = scene.play_with(relay, |_, _| {});
            let (End::LoggedIn(node), End::LoggedIn(relay)) = (&played.initiator, &played.responder) else {
                panic!("no login: {played:?}")
            };
            assert_eq!((node.limits, relay.limits), (Some(limits()), None));
            assert_eq!(node.session_id, relay.session_id);
            assert_eq!((node.token, relay.token), (token.is_some(), token.is_some()));
            let seen = LinkAddress { source: 2, socket: "198.51.100.7:7443".parse().unwrap() };
            assert_eq!((node.observed, relay.observed), (Some(seen), None));
            // Nothing of the node's certificate or network reaches the relay.
            let sent = played.sent.concat();
            assert!(!contains(&sent, &scene.initiator.certificate.der[..40]));
            assert!(!contains(&sent, &[10, 0, 0, 7]));
            assert!(!contains(&sent, &[3; 32]), "the token is proved, not sent");
        }
    }
}

#[test]
fn relay_token_wrong_or_none() {
    let bound = Binding::channel(PipeKind::RelayControl, [7; 32], [0; 32], [0x51; 32]).unwrap();
    for known in [None, Some(InviteSecret::from_bytes([4; 32]))] {
        let mut scene = relay_scene(&bound);
        scene.book.token = known;
        scene.proof = Proof::RelayToken(InviteSecret::from_bytes([3; 32]));
        let relay = Responder::relay(scene.responder.clone(), scene.responder_sees.clone(), limits());
        assert!(scene.play_with(relay, |_, _| {}).was_refused_uniformly());
    }
}

// Proves: LK-19
#[test]
fn bind_policy() {
    // Bind 0 exists for kind 3 only: the other kinds cannot be made without a channel.
    for kind in [PipeKind::Relay, PipeKind::Direct, PipeKind::Tunnel] {
        let missing = Err(BindingError::MissingCertificate(kind));
        assert_eq!(Binding::channel(kind, [0; 32], [0; 32], [1; 32]), missing);
        assert_eq!(Binding::channel(kind, [0; 32], [1; 32], [0; 32]), missing);
    }
    let bound = Binding::channel(PipeKind::RelayControl, [7; 32], [0; 32], [0x51; 32]).unwrap();
    let unbound = Binding::relay_without_channel();
    // A listener takes the bind it is configured for and answers the other with silence.
    for (initiator, responder) in [(&bound, &unbound), (&unbound, &bound)] {
        let mut scene = relay_scene(responder);
        scene.initiator_sees.binding = initiator.clone();
        let relay = Responder::relay(scene.responder.clone(), scene.responder_sees.clone(), limits());
        let played = scene.play_with(relay, |_, _| {});
        assert!(matches!(played.initiator, End::Waiting), "{played:?}");
        assert_eq!(played.operations.signed, 0);
    }
    // The bind flag is not the sender's to choose, nor is it the middleman's, in either message.
    for number in [0, 1] {
        let scene = relay_scene(&bound);
        let relay = Responder::relay(scene.responder.clone(), scene.responder_sees.clone(), limits());
        let played = scene.play_with(relay, |at, frame| {
            if at == number {
                frame[8 + 3] ^= 2;
            }
        });
        let (end, expected) = if number == 0 {
            (played.responder, HandshakeError::WrongKnock)
        } else {
            (played.initiator, HandshakeError::Malformed { frame: FrameType::Challenge, rule: "the other bind" })
        };
        assert_eq!(*end.error(), expected, "seen before any signature is made or checked");
        assert_eq!(played.initiator_error_frame, None);
    }
    // A door is for its kinds: a node's is no relay's and the other way round.
    let scene = relay_scene(&bound);
    assert!(matches!(scene.play().initiator, End::Waiting));
    let scene = Scene::new();
    let relay = Responder::relay(scene.responder.clone(), scene.responder_sees.clone(), limits());
    assert!(matches!(scene.play_with(relay, |_, _| {}).initiator, End::Waiting));
}

#[test]
fn secrets_are_not_printed() {
    let mut scene = Scene::new();
    scene.proof = Proof::Invite([1; 16], InviteSecret::from_bytes([0x5A; 32]));
    scene.book.invite(1, 0x5A, 1);
    let played = scene.play();
    let printed = format!("{:?} {:?}", scene.proof, played.initiator);
    assert!(printed.contains("ResumeSecret(…)") && !printed.contains("90, 90, 90"), "{printed}");
    assert!(format!("{:?}", node(1)).contains("SigningKey(secret)"));
}

pub(crate) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
