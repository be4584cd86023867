//! Connect between two control machines, with plain stones for frames of keystones. Spec: ibgib §12.4, §13.2
use crate::support::signature;
use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_ibgib::{Address, Verified};
use sealtide_sync::message::HelloIdentity;
use sealtide_sync::{
    AbortCode, Control, ControlInput, ControlOutput, Introduction, Message, OwnIdentity, Proof, Refused,
};

const START: Now = Now { mono_ms: 5000, wall_ms: 0 };

fn own(name: &str) -> OwnIdentity {
    let owner = (name == "b").then(|| signature("owner of b").address().clone());
    OwnIdentity { keystone: signature(name).address().clone(), owner, known: None }
}

fn machine(name: &str) -> Control {
    let mut control = Control::with_identity(16, own(name), [name.as_bytes()[0]; 32]);
    control.handle(START, ControlInput::Start);
    control
}

fn drain(control: &mut Control) -> Vec<ControlOutput> {
    std::iter::from_fn(|| control.poll()).collect()
}

/// What a driver answers, when it has nothing against anything; the proof says both challenges.
fn answer(name: &str, wish: &ControlOutput) -> Option<ControlInput> {
    let word = |introduction: &Introduction, of_peer: bool| {
        let (received, sent) = match of_peer {
            false => (introduction.peer_challenge, introduction.own_challenge),
            true => (introduction.own_challenge, introduction.peer_challenge),
        };
        signature(&format!("{received:?}{sent:?}"))
    };
    Some(match wish {
        ControlOutput::ProofWanted(introduction) => ControlInput::Proved(Ok(Proof {
            device: vec![signature(name), signature(&format!("{name} 1"))],
            session: vec![signature(&format!("session of {name}")), word(introduction, false)],
        })),
        ControlOutput::CheckProof { frames, introduction } => {
            let good = frames.last() == Some(&word(introduction, true));
            ControlInput::ProofChecked(if good { Ok(()) } else { Err(Refused::auth("another proof")) })
        }
        ControlOutput::PeerOwner(first) => ControlInput::AskKeystone { first: first.clone(), after: Some(3) },
        ControlOutput::KeystoneWanted { first, .. } => {
            ControlInput::Keystone { first: first.clone(), frames: vec![signature("owner of b")] }
        }
        ControlOutput::PeerKeystone { .. } => ControlInput::Kept(Ok(())),
        _ => return None,
    })
}

/// Two machines and their drivers, until nothing moves; what each sent (types) and wished for.
fn talk(ends: &mut [Control; 2]) -> [(Vec<u8>, Vec<ControlOutput>); 2] {
    let mut seen = [(Vec::new(), Vec::new()), (Vec::new(), Vec::new())];
    loop {
        let mut moved = false;
        for place in 0..2 {
            for wish in drain(&mut ends[place]) {
                moved = true;
                if let ControlOutput::Send(bytes) = wish {
                    seen[place].0.push(bytes[0]);
                    ends[1 - place].handle(START, ControlInput::Message(bytes));
                } else {
                    if let Some(input) = answer(["a", "b"][place], &wish) {
                        ends[place].handle(START, input);
                    }
                    seen[place].1.push(wish);
                }
            }
        }
        if !moved {
            return seen;
        }
    }
}

// Proves: SY-32
#[test]
fn both_prove_then_both_accept_then_sagas() {
    let mut ends = [machine("a"), machine("b")];
    assert!(ends[0].has_keystones() && !ends[0].peer_is_proved());
    for end in &mut ends {
        end.handle(START, ControlInput::Spaces(Vec::new()));
    }
    let [(sent_a, wishes_a), (sent_b, wishes_b)] = talk(&mut ends);
    // The one whose peer names an owner asks for it before it accepts; spaces come after both ACCEPTs.
    assert_eq!(sent_a, [1, 2, 6, 7, 3, 4, 5], "the opener");
    assert_eq!(sent_b, [1, 2, 7, 3, 7, 4, 5], "the other");
    for wishes in [&wishes_a, &wishes_b] {
        let place = |wanted: fn(&ControlOutput) -> bool| wishes.iter().position(wanted);
        let checked = place(|wish| matches!(wish, ControlOutput::CheckProof { .. }));
        assert!(place(|wish| matches!(wish, ControlOutput::PeerKeystone { last: true, .. })) < checked);
        assert!(checked < place(|wish| matches!(wish, ControlOutput::Ready(16))));
    }
    assert!(ends.iter().all(Control::peer_is_proved));
    // A keystone may be asked for at any time.
    let first = signature("s").address().clone();
    ends[0].handle(START, ControlInput::AskKeystone { first: first.clone(), after: None });
    let [_, (sent_b, wishes_b)] = talk(&mut ends);
    assert_eq!(sent_b, [7]);
    assert_eq!(wishes_b, [ControlOutput::KeystoneWanted { first, after: None }]);
    // No time limit is left.
    ends[0].handle(Now { mono_ms: 99_000, wall_ms: 0 }, ControlInput::Tick);
    assert!(drain(&mut ends[0]).is_empty());
}

fn hello(features: u64, keystone: Option<Address>) -> Bytes {
    let identity = HelloIdentity { keystone, ..HelloIdentity::default() };
    Message::Hello { versions: vec![1], features, max_sagas: 16, identity }.encode()
}

fn keystone(name: &str, frames: Vec<Verified>, last: bool) -> Bytes {
    Message::Keystone { first: signature(name).address().clone(), frames, last }.encode()
}

// Proves: SY-32, SY-91
#[test]
fn broken_rules_of_connect() {
    use AbortCode::{Auth, BadRecord, Limit, Protocol};
    let peer = || hello(3, Some(signature("p").address().clone()));
    let challenge = || Message::Challenge([9; 32]).encode();
    let frames = || keystone("p", vec![signature("p")], true);
    let proof = || Message::Proof(vec![signature("x")]).encode();
    let accept = || Message::Accept.encode();
    let ask = || Message::AskKeystone { first: signature("q").address().clone(), after: None }.encode();
    let spaces = || Message::Spaces { list: Vec::new(), last: true }.encode();
    let mut bad_record = Message::Proof(vec![signature("x")]).encode().to_vec();
    *bad_record.last_mut().unwrap() ^= 1;
    let rows: Vec<(&str, Vec<Bytes>, AbortCode)> = vec![
        ("a peer without identities", vec![hello(2, None)], Auth),
        ("no keystone named", vec![hello(3, None)], Protocol),
        ("something before CHALLENGE", vec![peer(), frames()], Protocol),
        ("CHALLENGE twice", vec![peer(), challenge(), challenge()], Protocol),
        ("PROOF before the keystone", vec![peer(), challenge(), proof()], Protocol),
        (
            "PROOF before the last part",
            vec![peer(), challenge(), keystone("p", vec![signature("p")], false), proof()],
            Protocol,
        ),
        ("PROOF of nothing", vec![peer(), challenge(), frames(), Message::Proof(Vec::new()).encode()], Protocol),
        ("PROOF twice", vec![peer(), challenge(), frames(), proof(), proof()], Protocol),
        ("ACCEPT before the own PROOF", vec![peer(), challenge(), accept()], Protocol),
        ("SPACES before ACCEPT", vec![peer(), challenge(), frames(), proof(), spaces()], Protocol),
        ("a KEYSTONE nobody asked for", vec![peer(), challenge(), keystone("q", Vec::new(), true)], Protocol),
        ("the device twice", vec![peer(), challenge(), frames(), frames()], Protocol),
        ("an empty part", vec![peer(), challenge(), keystone("p", Vec::new(), false)], Protocol),
        ("questions without end", [vec![peer(), challenge()], vec![ask(); 17]].concat(), Limit),
        ("a record that acceptance refuses", vec![peer(), challenge(), frames(), bad_record.into()], BadRecord),
    ];
    for (name, messages, code) in rows {
        let mut control = machine("a");
        messages.into_iter().for_each(|message| control.handle(START, ControlInput::Message(message)));
        let wishes = drain(&mut control);
        assert!(matches!(wishes.last(), Some(ControlOutput::Failed(found, _)) if *found == code), "{name}: {wishes:?}");
    }
}

/// A control channel whose peer said who it is; neither has proved it.
fn met() -> Control {
    let mut control = machine("a");
    control.handle(START, ControlInput::Message(hello(3, Some(signature("p").address().clone()))));
    control.handle(START, ControlInput::Message(Message::Challenge([9; 32]).encode()));
    drain(&mut control);
    control
}

// Proves: SY-32, SY-55
#[test]
fn a_refusal_of_the_driver_and_the_end_of_time() {
    let refused = || Refused { code: AbortCode::Revoked, text: "no".into() };
    let rows: [(ControlInput, AbortCode); 4] = [
        (ControlInput::Proved(Err(refused())), AbortCode::Revoked),
        (ControlInput::ProofChecked(Err(refused())), AbortCode::Revoked),
        (ControlInput::Kept(Err(refused())), AbortCode::Revoked),
        (ControlInput::Tick, AbortCode::Timeout),
    ];
    for (input, code) in rows {
        let mut control = met();
        control.handle(Now { mono_ms: 15_000, wall_ms: 0 }, input);
        let wishes = drain(&mut control);
        assert!(matches!(wishes.last(), Some(ControlOutput::Failed(found, _)) if *found == code), "{wishes:?}");
    }
    let mut control = met();
    control.handle(Now { mono_ms: 14_999, wall_ms: 0 }, ControlInput::Tick);
    assert_eq!(drain(&mut control), [ControlOutput::WakeAt(15_000)]);
}

/// Keystones of years take longer than a handshake: time begins anew with each part of them, to a bound, and whoever sends
/// them waits longer for the ACCEPT.
// Proves: SY-55
#[test]
fn long_keystones_get_more_time() {
    let at = |mono_ms| Now { mono_ms, wall_ms: 0 };
    let ends_at = |control: &mut Control, mono_ms| {
        control.handle(at(mono_ms - 1), ControlInput::Tick);
        assert_eq!(drain(control), [ControlOutput::WakeAt(mono_ms)]);
        control.handle(at(mono_ms), ControlInput::Tick);
        matches!(drain(control).last(), Some(ControlOutput::Failed(AbortCode::Timeout, _)))
    };
    let mut control = met();
    let part = |control: &mut Control, mono_ms: u64, frames: Vec<Verified>, last| {
        control.handle(at(mono_ms), ControlInput::Message(keystone("p", frames, last)));
        control.handle(at(mono_ms), ControlInput::Kept(Ok(())));
        drain(control);
    };
    let mut now = START.mono_ms;
    for number in 0..100 {
        now += 9_000;
        part(&mut control, now, vec![signature(&format!("p {number}"))], false);
        if now + 10_000 > 605_000 {
            break;
        }
        control.handle(at(now + 9_999), ControlInput::Tick);
        assert_eq!(drain(&mut control), [ControlOutput::WakeAt(now + 10_000)], "part {number}");
    }
    assert!(ends_at(&mut control, 605_000), "not for ever");
    let mut control = met();
    part(&mut control, 9_000, Vec::new(), true);
    assert!(ends_at(&mut control, 15_000), "an empty part brings nothing");
    let mut control = met();
    let device: Vec<Verified> = (0..64).map(|n| signature(&format!("{n} {}", "x".repeat(3000)))).collect();
    let session = vec![signature(&format!("session {}", "x".repeat(3000)))];
    let takes_ms = |frames: &[Verified]| frames.iter().map(|frame| frame.encoded().len() as u64).sum::<u64>() / 64;
    let (owner, takes) = (device.clone(), [takes_ms(&device), takes_ms(&session)]);
    control.handle(at(6_000), ControlInput::Proved(Ok(Proof { device, session })));
    // The owner is asked for right behind that.
    let first = owner[0].address().clone();
    control
        .handle(at(6_000), ControlInput::Message(Message::AskKeystone { first: first.clone(), after: None }.encode()));
    control.handle(at(6_000), ControlInput::Keystone { first, frames: owner });
    drain(&mut control);
    assert!(takes[0] > 3_000 && ends_at(&mut control, 16_000 + 2 * takes[0] + takes[1]), "the peer has to read it");
    let mut control = machine("a");
    drain(&mut control);
    control.handle(at(14_000), ControlInput::Message(hello(3, Some(signature("p").address().clone()))));
    control.handle(at(14_500), ControlInput::Message(Message::Challenge([9; 32]).encode()));
    drain(&mut control);
    assert!(ends_at(&mut control, 24_500), "the frames come behind it");
}

/// All that a peer sends to prove itself comes at 64 kB/s: no message of it takes as long as the time for it.
// Proves: SY-55
#[test]
fn a_long_keystone_comes_over_a_slow_line() {
    let frames =
        |count, name: &str| (0..count).map(|n| signature(&format!("{name} {n} {}", "x".repeat(3000)))).collect();
    let mut peer = Control::with_identity(16, own("p"), [9; 32]);
    peer.handle(START, ControlInput::Start);
    peer.handle(START, ControlInput::Message(hello(3, Some(signature("a").address().clone()))));
    peer.handle(START, ControlInput::Message(Message::Challenge([1; 32]).encode()));
    peer.handle(START, ControlInput::Proved(Ok(Proof { device: frames(700, "p"), session: frames(200, "s") })));
    let sent = drain(&mut peer);
    let mut control = machine("a");
    let (mut now, mut is_checked, mut parts) = (START, false, 0);
    for wish in sent {
        let ControlOutput::Send(bytes) = wish else { continue };
        now.mono_ms += bytes.len() as u64 / 64;
        control.handle(now, ControlInput::Tick);
        control.handle(now, ControlInput::Message(bytes));
        for wish in drain(&mut control) {
            assert!(!matches!(wish, ControlOutput::Failed(..)), "{wish:?} after {} ms", now.mono_ms);
            is_checked |= matches!(wish, ControlOutput::CheckProof { .. });
            if let ControlOutput::PeerKeystone { .. } = wish {
                parts += 1;
                control.handle(now, ControlInput::Kept(Ok(())));
            }
        }
        for wish in drain(&mut control) {
            is_checked |= matches!(wish, ControlOutput::CheckProof { .. });
        }
    }
    assert!(is_checked && parts > 2, "{parts}");
}

/// The connect frame goes along, however large it is.
#[test]
fn a_proof_holds_the_connect_frame() {
    let mut control = met();
    let session = vec![signature("older"), signature(&"x".repeat(300 * 1024))];
    control.handle(START, ControlInput::Proved(Ok(Proof { device: Vec::new(), session: session.clone() })));
    let proof = Message::Proof(session[1..].to_vec()).encode();
    assert!(drain(&mut control).last() == Some(&ControlOutput::Send(proof)));
}

/// Without identities a node takes the CHALLENGE of a peer that has them, and then its refusal.
// Proves: SY-91
#[test]
fn the_refusal_of_a_peer_with_identities_is_heard() {
    let mut control = Control::new(16);
    control.handle(START, ControlInput::Start);
    control.handle(START, ControlInput::Message(hello(3, Some(signature("p").address().clone()))));
    control.handle(START, ControlInput::Message(Message::Challenge([9; 32]).encode()));
    assert!(!drain(&mut control).iter().any(|wish| matches!(wish, ControlOutput::Failed(..))));
    let abort = Message::Abort { code: AbortCode::Auth, text: "no".into(), retry_after_ms: 0 };
    control.handle(START, ControlInput::Message(abort.encode()));
    assert_eq!(drain(&mut control), [ControlOutput::Failed(AbortCode::Auth, "no".into())]);
}

/// Long keystones go in parts, and the driver is asked for one part at a time.
#[test]
fn a_keystone_of_many_frames() {
    let frames: Vec<Verified> = (0..700).map(|n| signature(&format!("{n} {}", "x".repeat(3000)))).collect();
    let mut ends = [machine("a"), machine("b")];
    talk(&mut ends);
    let first = signature("s").address().clone();
    ends[0].handle(START, ControlInput::AskKeystone { first: first.clone(), after: None });
    for wish in drain(&mut ends[0]) {
        let ControlOutput::Send(bytes) = wish else { continue };
        ends[1].handle(START, ControlInput::Message(bytes));
    }
    drain(&mut ends[1]);
    ends[1].handle(START, ControlInput::Keystone { first, frames: frames.clone() });
    let mut parts = 0;
    for wish in drain(&mut ends[1]) {
        let ControlOutput::Send(bytes) = wish else { continue };
        parts += 1;
        ends[0].handle(START, ControlInput::Message(bytes));
    }
    assert!(parts > 2, "{parts}");
    let mut came = Vec::new();
    loop {
        let wishes = drain(&mut ends[0]);
        assert!(wishes.len() <= 1, "one at a time");
        let Some(ControlOutput::PeerKeystone { frames, .. }) = wishes.into_iter().next() else { break };
        came.extend(frames);
        ends[0].handle(START, ControlInput::Kept(Ok(())));
    }
    assert!(came == frames);
}
