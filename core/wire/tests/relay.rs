//! Bytes from bad nodes and bad relays: any of them, in any order, are an answer or an end and never a panic.

use proptest::prelude::*;
use sealtide_identity::{LinkAddress, NodeId, RelayHint};
use sealtide_wire::fuzzing;
use sealtide_wire::relay::{CircuitEnd, CircuitNumber, GoAwayCode, RelayFrame};

#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment, the core takes nothing")]
fn cases() -> u32 {
    let scale = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1);
    20_000 * std::cmp::max(1u32, scale)
}

fn circuit() -> impl Strategy<Value = CircuitNumber> {
    let near = (1u32..9).prop_filter_map("not 0", CircuitNumber::new);
    prop_oneof![20 => near, 1 => any::<u32>().prop_filter_map("not 0", CircuitNumber::new)]
}

fn node() -> impl Strategy<Value = NodeId> {
    // The nodes of the script, and guests.
    (0u8..5).prop_map(|n| NodeId::from_bytes([n; 32]))
}

fn frame() -> impl Strategy<Value = RelayFrame> {
    let end = prop::sample::select(CircuitEnd::ALL.to_vec());
    let refusal = prop::sample::select(CircuitEnd::ALL[1..].to_vec());
    let code = prop::sample::select(GoAwayCode::ALL.to_vec());
    let payload = prop::collection::vec(any::<u8>(), 1..200);
    let address = LinkAddress { source: 2, socket: "203.0.113.1:7443".parse().expect("an address") };
    let hint = RelayHint { relay: NodeId::from_bytes([4; 32]), url: "wss://r.example".to_owned() };
    prop_oneof![
        4 => (circuit(), node(), any::<bool>())
            .prop_map(|(circuit, target, show_address)| RelayFrame::Open { circuit, target, show_address }),
        2 => (circuit(), node(), prop::option::of(Just(address)))
            .prop_map(|(circuit, opener, address)| RelayFrame::Incoming { circuit, opener, address }),
        4 => circuit().prop_map(|circuit| RelayFrame::Accept { circuit }),
        1 => (circuit(), refusal).prop_map(|(circuit, why)| RelayFrame::Refuse { circuit, why }),
        6 => (circuit(), payload).prop_map(|(circuit, payload)| RelayFrame::Data { circuit, payload: payload.into() }),
        2 => (circuit(), 1u32..400).prop_map(|(circuit, increment)| RelayFrame::Credit { circuit, increment }),
        1 => (circuit(), end).prop_map(|(circuit, why)| RelayFrame::Close { circuit, why }),
        1 => Just(RelayFrame::Observed { address }),
        1 => any::<u16>().prop_map(|port| RelayFrame::Probe { port }),
        1 => (any::<u16>(), any::<bool>(), any::<u16>())
            .prop_map(|(port, open, ms)| RelayFrame::ProbeResult { port, open, ms }),
        1 => any::<[u8; 8]>().prop_map(RelayFrame::Ping),
        1 => any::<[u8; 8]>().prop_map(RelayFrame::Pong),
        2 => (node(), 0u32..100).prop_map(|(node, seconds)| RelayFrame::Allow { node, seconds }),
        1 => (code, any::<u32>(), 0usize..4).prop_map(move |(code, reconnect_ms, relays)| {
            RelayFrame::GoAway { code, reconnect_ms, relays: vec![hint.clone(); relays] }
        }),
    ]
}

/// A frame, now and then with a byte changed, cut, or none at all.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let changed = (frame(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(frame, at, byte)| {
        let mut bytes = frame.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= byte;
        bytes
    });
    let cut = (frame(), any::<prop::sample::Index>()).prop_map(|(frame, at)| {
        let mut bytes = frame.encode().to_vec();
        bytes.truncate(at.index(bytes.len()));
        bytes
    });
    prop_oneof![
        40 => frame().prop_map(|frame| frame.encode().to_vec()),
        3 => changed,
        1 => cut,
        1 => prop::collection::vec(any::<u8>(), 0..60)
    ]
}

fn script() -> impl Strategy<Value = Vec<u8>> {
    let step = (any::<u8>(), message()).prop_map(|(what, message)| {
        let length = message.len().min(255) as u8;
        [&[what, length][..], &message[..usize::from(length)]].concat()
    });
    prop::collection::vec(step, 0..40).prop_map(|steps| steps.concat())
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) }
}

/// The twin of the fuzz target `relay`, frames.
// Proves: LK-28
#[test]
fn relay_frame_twin() {
    let runner = &mut proptest::test_runner::TestRunner::new(config());
    let kept = std::cell::Cell::new(0u64);
    let ran = runner.run(&message(), |message| {
        fuzzing::relay_frame(&message);
        kept.set(kept.get() + u64::from(RelayFrame::decode(&message.into()).is_ok()));
        Ok(())
    });
    ran.expect("no message panics");
    println!("{} messages, {} of them frames", cases(), kept.get());
    assert!(kept.get() > u64::from(cases()) / 2);
}

/// The twin of the fuzz target `relay`, whole scripts: three nodes that do anything at a relay, and a relay that does anything
/// to a node.
// Proves: LK-28
#[test]
fn relay_twin() {
    let runner = &mut proptest::test_runner::TestRunner::new(config());
    let taken = std::cell::Cell::new((0, 0));
    let ran = runner.run(&script(), |script| {
        let (by_relay, by_node) = fuzzing::relay(&script);
        taken.set((taken.get().0 + by_relay, taken.get().1 + by_node));
        Ok(())
    });
    ran.expect("no script panics");
    println!("{} scripts; messages taken by the relay and by the node: {:?}", cases(), taken.get());
    assert!(taken.get().0 > cases() as usize && taken.get().1 > cases() as usize / 10);
}
