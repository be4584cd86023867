//! The control channel between two machines. Spec: ibgib §13.2

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_identity::{Role, SpaceId};
use sealtide_sync::message::HelloIdentity;
use sealtide_sync::{AbortCode, Control, ControlInput, ControlOutput, Message, SagaId, SagaState, SpaceOffer};

const START: Now = Now { mono_ms: 5000, wall_ms: 0 };

fn drain(control: &mut Control) -> Vec<ControlOutput> {
    std::iter::from_fn(|| control.poll()).collect()
}

fn sends(wishes: &[ControlOutput]) -> Vec<Bytes> {
    wishes
        .iter()
        .filter_map(|wish| match wish {
            ControlOutput::Send(bytes) => Some(bytes.clone()),
            _ => None,
        })
        .collect()
}

fn hello(versions: Vec<u64>, features: u64) -> Bytes {
    Message::Hello { versions, features, max_sagas: 16, identity: HelloIdentity::default() }.encode()
}

fn started() -> Control {
    let mut control = Control::new(16);
    control.handle(START, ControlInput::Start);
    drain(&mut control);
    control
}

fn ready() -> Control {
    let mut control = started();
    control.handle(START, ControlInput::Message(hello(vec![1], 2)));
    drain(&mut control);
    control
}

fn offer(number: u32) -> SpaceOffer {
    SpaceOffer {
        space: SpaceId::from_bytes(sealtide_crypto::sha256(&number.to_be_bytes())),
        name: format!("Notes {number}"),
        kind: "folder".into(),
        role: [Role::Read, Role::Write, Role::Admin][number as usize % 3],
        invited: number == 3,
        tip_count: u64::from(number),
        tip_fingerprint: [number as u8; 16],
    }
}

/// Two machines that talk until both are silent; what else they wished for.
fn talk(a: &mut Control, b: &mut Control) -> [Vec<ControlOutput>; 2] {
    let mut seen = [Vec::new(), Vec::new()];
    loop {
        let wishes = [drain(a), drain(b)];
        if wishes.iter().all(Vec::is_empty) {
            return seen;
        }
        for bytes in sends(&wishes[0]) {
            b.handle(START, ControlInput::Message(bytes));
        }
        for bytes in sends(&wishes[1]) {
            a.handle(START, ControlInput::Message(bytes));
        }
        for (seen, wishes) in seen.iter_mut().zip(wishes) {
            seen.extend(wishes.into_iter().filter(|wish| !matches!(wish, ControlOutput::Send(_))));
        }
    }
}

// Proves: SY-100
#[test]
fn hello_spaces_status_and_bye() {
    let (mut a, mut b) = (Control::new(7), Control::new(9));
    a.handle(START, ControlInput::Start);
    b.handle(START, ControlInput::Start);
    // Given before the peer's HELLO: held back until then.
    let offers: Vec<_> = (0..600).map(offer).collect();
    a.handle(START, ControlInput::Spaces(offers.clone()));
    b.handle(START, ControlInput::Spaces(Vec::new()));
    let [at_a, at_b] = talk(&mut a, &mut b);
    let wake = ControlOutput::WakeAt(START.mono_ms + 10_000);
    assert_eq!(at_a, [wake, ControlOutput::Ready(9), ControlOutput::PeerSpaces(Vec::new())]);
    assert!(at_b.contains(&ControlOutput::Ready(7)) && at_b.contains(&ControlOutput::PeerSpaces(offers)));
    assert!(a.zstd() && b.zstd() && a.recon() && b.recon());
    // A new list replaces the one before, whole.
    a.handle(START, ControlInput::Spaces(vec![offer(3)]));
    let [_, at_b] = talk(&mut a, &mut b);
    assert_eq!(at_b, [ControlOutput::PeerSpaces(vec![offer(3)])]);
    // STATUS there and back.
    let sagas = [SagaId([1; 32]), SagaId([2; 32])];
    a.handle(START, ControlInput::AskStatus(sagas.to_vec()));
    let [_, at_b] = talk(&mut a, &mut b);
    assert_eq!(at_b, [ControlOutput::StatusWanted(sagas.to_vec())]);
    let answer = vec![(sagas[0], SagaState::Committed), (sagas[1], SagaState::Unknown)];
    b.handle(START, ControlInput::Status(answer.clone()));
    let [at_a, _] = talk(&mut a, &mut b);
    assert_eq!(at_a, [ControlOutput::PeerStatus(answer)]);
    a.handle(START, ControlInput::Bye);
    let [_, at_b] = talk(&mut a, &mut b);
    assert_eq!(at_b, [ControlOutput::Bye]);
    b.handle(START, ControlInput::Spaces(vec![offer(1)]));
    assert!(drain(&mut b).is_empty(), "nothing after BYE");
}

// Proves: SY-75
#[test]
fn versions_features_and_types_of_other_releases() {
    for (message, accepted) in [
        (hello(vec![1], 0), true),
        (hello(vec![0, 1, 2], 0), true),
        (hello(vec![1], 1 << 40), true),
        (hello(vec![2], 0), false),
        (hello(vec![0], 0), false),
        (hello(vec![], 0), false),
    ] {
        let mut control = started();
        control.handle(START, ControlInput::Message(message));
        let wishes = drain(&mut control);
        assert_eq!(wishes.contains(&ControlOutput::Ready(16)), accepted, "{wishes:?}");
        assert_eq!(matches!(wishes.last(), Some(ControlOutput::Failed(AbortCode::Protocol, _))), !accepted);
    }
    // zstd is used when both offer it.
    let mut control = started();
    control.handle(START, ControlInput::Message(hello(vec![1], 0)));
    assert!(!control.zstd() && !control.recon());
    // Level 1 alike.
    let mut control = started();
    control.handle(START, ControlInput::Message(hello(vec![1], 4)));
    assert!(!control.zstd() && control.recon());
    // Unknown types from 0x80 are ignored, also before HELLO.
    for mut control in [started(), ready()] {
        control.handle(START, ControlInput::Message(Bytes::from_static(&[0x90, 1])));
        assert!(drain(&mut control).is_empty());
    }
}

// Proves: SY-53
#[test]
fn broken_rules_on_the_control_channel() {
    let spaces = |count: u32, last| Message::Spaces { list: (0..count).map(offer).collect(), last }.encode();
    let state = Message::Status { ask: vec![], answer: vec![(SagaId([1; 32]), SagaState::Open)] }.encode();
    let rows: Vec<(&str, Control, Vec<Bytes>, AbortCode)> = vec![
        ("before HELLO", started(), vec![spaces(1, true)], AbortCode::Protocol),
        ("HELLO twice", ready(), vec![hello(vec![1], 0)], AbortCode::Protocol),
        ("an answer to no question", ready(), vec![state], AbortCode::Protocol),
        ("a saga message", ready(), vec![Message::Stored { batch: 0 }.encode()], AbortCode::Protocol),
        ("CHALLENGE", ready(), vec![Bytes::from_static(&[2, 0x80])], AbortCode::Protocol),
        ("nothing at all", ready(), vec![Bytes::new()], AbortCode::Protocol),
        ("an empty part", ready(), vec![spaces(0, false)], AbortCode::Protocol),
        ("too many spaces", ready(), vec![spaces(256, false); 17], AbortCode::Limit),
        ("keystones without the feature", started(), vec![keystone_hello()], AbortCode::Protocol),
    ];
    for (name, mut control, messages, code) in rows {
        messages.into_iter().for_each(|message| control.handle(START, ControlInput::Message(message)));
        let wishes = drain(&mut control);
        assert!(matches!(wishes.last(), Some(ControlOutput::Failed(found, _)) if *found == code), "{name}: {wishes:?}");
        assert_eq!(sends(&wishes).last().map(|bytes| bytes[0]), Some(0x30), "{name}: ABORT is said");
        control.handle(START, ControlInput::Message(hello(vec![1], 0)));
        assert!(drain(&mut control).is_empty(), "{name}: nothing afterwards");
    }
}

fn keystone_hello() -> Bytes {
    let mut bytes = hello(vec![1], 0).to_vec();
    let at = bytes.len() - 3;
    bytes.splice(at..at + 1, [&[0x65][..], b"a^gib"].concat());
    bytes.into()
}

// Proves: SY-55
#[test]
fn a_peer_that_says_no_hello() {
    let mut control = started();
    control.handle(Now { mono_ms: 14_999, wall_ms: 0 }, ControlInput::Tick);
    assert_eq!(drain(&mut control), [ControlOutput::WakeAt(15_000)]);
    control.handle(Now { mono_ms: 15_000, wall_ms: 0 }, ControlInput::Tick);
    assert!(matches!(drain(&mut control).last(), Some(ControlOutput::Failed(AbortCode::Timeout, _))));
    let mut control = ready();
    control.handle(Now { mono_ms: 99_000, wall_ms: 0 }, ControlInput::Tick);
    assert!(drain(&mut control).is_empty());
}

// Proves: SY-76
#[test]
fn every_abort_code_has_its_text_and_is_explained() {
    let spec = include_str!("../../../../spec/sync.md");
    for code in AbortCode::ALL {
        assert_eq!(AbortCode::parse(code.as_str()), code);
        assert!(code.explain().len() > 8);
        let row = spec.lines().find(|line| line.starts_with(&format!("| `{}` | ", code.as_str())));
        assert!(row.is_some_and(|row| row.len() > 30), "{code:?} has a documented cause");
    }
    assert_eq!(AbortCode::parse("something new"), AbortCode::Protocol);
}
