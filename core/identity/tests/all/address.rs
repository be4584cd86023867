//! Addresses and which of them may be dialled. Spec: link C.10.

use proptest::prelude::*;
use sealtide_identity::{LearnedFrom, LinkAddress};

#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

const REMOTE: LearnedFrom = LearnedFrom::Peer { over_loopback: false };
const SAME_MACHINE: LearnedFrom = LearnedFrom::Peer { over_loopback: true };

fn may(socket: &str, source: u8, learned: LearnedFrom) -> bool {
    LinkAddress { source, socket: socket.parse().expect("an address") }.may_be_dialled(learned)
}

// Proves: LK-107
#[test]
fn loopback_addr() {
    for socket in ["127.0.0.1:7443", "127.9.9.9:7443", "[::1]:7443", "[::ffff:127.0.0.1]:7443"] {
        assert!(may(socket, 4, LearnedFrom::Ticket), "{socket} from a ticket");
        assert!(may(socket, 4, SAME_MACHINE), "{socket} from a peer on this machine");
        assert!(!may(socket, 4, REMOTE), "{socket} from a remote peer");
        assert!(!may(socket, 4, LearnedFrom::Punch), "{socket} in PUNCH");
    }
}

// Proves: LK-107
#[test]
fn low_ports_only_when_configured() {
    for learned in [LearnedFrom::Ticket, REMOTE, SAME_MACHINE, LearnedFrom::Punch] {
        for source in 1..=5 {
            assert_eq!(may("192.168.0.2:22", source, learned), source == 4, "port 22, source {source}");
            assert!(may("192.168.0.2:443", source, learned));
            assert!(may("192.168.0.2:1024", source, learned));
            assert!(!may("192.168.0.2:0", source, learned));
        }
    }
}

#[test]
fn only_unicast_is_dialled() {
    let learned = [LearnedFrom::Ticket, REMOTE, SAME_MACHINE, LearnedFrom::Punch];
    for good in [
        "8.8.8.8:7443",
        "10.1.2.3:7443",
        "172.16.0.1:7443",
        "192.168.1.1:7443",
        "100.64.0.1:7443",
        "[2001:db8::1]:7443",
        "[2a00::1]:7443",
        "[fd00::1]:7443",
        "[fc00::1]:7443",
        "[::ffff:10.0.0.1]:7443",
    ] {
        assert!(learned.iter().all(|learned| may(good, 1, *learned)), "{good} is refused");
    }
    for bad in [
        "0.0.0.0:7443",
        "0.1.2.3:7443",
        "169.254.1.1:7443",
        "224.0.0.1:7443",
        "239.1.1.1:7443",
        "240.0.0.1:7443",
        "255.255.255.255:7443",
        "[::]:7443",
        "[fe80::1]:7443",
        "[ff02::1]:7443",
        "[64:ff9b::1]:7443",
        "[::ffff:224.0.0.1]:7443",
    ] {
        assert!(learned.iter().all(|learned| !may(bad, 4, *learned)), "{bad} is accepted");
    }
}

#[test]
fn bytes_are_strict() {
    let v4 = LinkAddress { source: 1, socket: "10.0.0.1:7443".parse().unwrap() };
    let v6 = LinkAddress { source: 5, socket: "[2001:db8::1]:80".parse().unwrap() };
    let mapped = LinkAddress { source: 1, socket: "[::ffff:10.0.0.1]:7443".parse().unwrap() };
    assert_eq!(mapped.to_bytes(), v4.to_bytes(), "one address has one form");
    for address in [v4, v6] {
        let bytes = address.to_bytes();
        assert_eq!(LinkAddress::from_bytes(&bytes), Some(address));
        for (at, value) in [(0, 0), (0, 5), (0, bytes[0] ^ 2), (1, 0), (1, 6)] {
            let mut wrong = bytes;
            wrong[at] = value;
            assert_eq!(LinkAddress::from_bytes(&wrong), None, "byte {at} = {value}");
        }
    }
    // An IPv6 address that ends in 12 zero bytes stays IPv6.
    let tail = LinkAddress { source: 1, socket: "[2001:db8::]:7443".parse().unwrap() };
    assert_eq!(LinkAddress::from_bytes(&tail.to_bytes()), Some(tail));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000 * scale()))]

    // Proves: LK-28
    #[test]
    fn fuzz_address(random in any::<[u8; 20]>(), shape in 0u8..4) {
        let mut bytes = random;
        if shape > 0 {
            bytes[0] = if shape == 1 { 6 } else { 4 };
            bytes[1] = bytes[1] % 5 + 1;
        }
        if shape > 1 {
            bytes[2..12].fill(0);
            bytes[12..14].fill(0xFF);
        }
        if let Some(address) = LinkAddress::from_bytes(&bytes) {
            prop_assert_eq!(address.to_bytes(), bytes);
            let ticket = address.may_be_dialled(LearnedFrom::Ticket);
            let punch = address.may_be_dialled(LearnedFrom::Punch);
            prop_assert!(ticket || !punch, "a ticket may name whatever PUNCH may");
        } else {
            prop_assert!(shape < 2 || bytes[18..] == [0, 0], "a well-formed address is refused");
        }
    }
}
