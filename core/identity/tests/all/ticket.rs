//! Tickets and relay addresses. Spec: link C.3, C.10.

use std::net::SocketAddr;

use proptest::prelude::*;
use sealtide_identity::{
    InviteSecret, LinkAddress, NodeId, RelayAddress, RelayHint, TextError, Ticket, TicketError, decode_text,
    encode_text,
};

#[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// A URL of 30 characters, as in the example of link C.3.
const URL_30: &str = "wss://relay.example.org/st/123";

fn example() -> Ticket {
    Ticket {
        node: NodeId::from_bytes([1; 32]),
        expires: 1_800_000_000,
        invite: Some(([2; 16], InviteSecret::from_bytes([3; 32]))),
        single_use: true,
        relay_only: false,
        relays_bind0: false,
        device: false,
        relays: vec![RelayHint { relay: NodeId::from_bytes([4; 32]), url: URL_30.to_owned() }],
        addresses: vec![LinkAddress { source: 4, socket: "192.168.1.20:7443".parse().expect("an address") }],
    }
}

// Proves: LK-3
#[test]
fn ticket_example_has_291_characters() {
    assert_eq!(URL_30.len(), 30);
    let text = example().encode();
    assert_eq!(decode_text("stt1", &text).unwrap().len(), 175);
    assert_eq!(text.len(), 291);
    assert_eq!(Ticket::decode(&text), Ok(example()));
}

// Proves: LK-3
#[test]
fn ticket_layout_byte_for_byte() {
    let mut expected = vec![1, 1 | 2];
    expected.extend([1; 32]);
    expected.extend(1_800_000_000u64.to_be_bytes());
    expected.extend([2; 16]);
    expected.extend([3; 32]);
    expected.push(1);
    expected.extend([4; 32]);
    expected.push(30);
    expected.extend(URL_30.as_bytes());
    expected.push(1);
    expected.extend([4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 192, 168, 1, 20, 0x1D, 0x13]);
    assert_eq!(decode_text("stt1", &example().encode()), Ok(expected));
}

type Change = fn(&mut Vec<u8>);

/// Changes the payload of the example and reads it again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Ticket, TicketError> {
    let mut bytes = decode_text("stt1", &example().encode()).expect("a text form");
    change(&mut bytes);
    Ticket::decode(&encode_text("stt1", &bytes))
}

// Proves: LK-3
#[test]
fn ticket_strict() {
    assert_eq!(changed(|bytes| bytes[0] = 2), Err(TicketError::Version(2)));
    let malformed: [(&str, Change); 11] = [
        ("unknown flag", |bytes| bytes[1] |= 32),
        ("flag 1 without the invite", |bytes| drop(bytes.drain(42..90))),
        ("invite without flag 1", |bytes| bytes[1] = 0),
        ("single use without invite", |bytes| {
            bytes[1] = 2;
            bytes.drain(42..90);
        }),
        ("for a device without invite", |bytes| {
            bytes[1] = 16;
            bytes.drain(42..90);
        }),
        ("invite without an end", |bytes| bytes[34..42].fill(0)),
        ("5 relays", |bytes| bytes[90] = 5),
        ("9 addresses", |bytes| bytes[154] = 9),
        ("URL without wss", |bytes| bytes[124] = b'x'),
        ("surplus byte", |bytes| bytes.push(0)),
        ("port 0", |bytes| bytes[173..175].fill(0)),
    ];
    for (what, change) in malformed {
        assert!(matches!(changed(change), Err(TicketError::Malformed(_))), "{what} is accepted");
    }
    let whole = decode_text("stt1", &example().encode()).unwrap();
    for length in 0..whole.len() {
        let text = encode_text("stt1", &whole[..length]);
        assert!(matches!(Ticket::decode(&text), Err(TicketError::Malformed(_))), "{length} bytes are accepted");
    }
}

// Proves: LK-3
#[test]
fn ticket_typing_error_is_named() {
    let mut text = example().encode();
    text.replace_range(20..21, if &text[20..21] == "a" { "b" } else { "a" });
    assert_eq!(Ticket::decode(&text), Err(TicketError::Text(TextError::Typing { expected: "stt1" })));
}

// Proves: LK-3
#[test]
fn ticket_hints_are_for_show() {
    // Long expired and single use: still read, for the issuer to decide.
    let old = Ticket { expires: 1, ..example() };
    assert_eq!(Ticket::decode(&old.encode()), Ok(old));
}

// Proves: LK-3
#[test]
fn ticket_leaves_out_what_no_reader_takes() {
    let address = example().addresses[0];
    let mut wide = example();
    wide.relays =
        (0..6).map(|index| RelayHint { relay: NodeId::from_bytes([index; 32]), url: URL_30.into() }).collect();
    wide.relays[1].url = "http://plain.example".into();
    wide.addresses = vec![address; 12];
    wide.addresses[0].source = 9;
    let read = Ticket::decode(&wide.encode()).unwrap();
    assert_eq!(read.relays.iter().map(|relay| relay.relay.as_bytes()[0]).collect::<Vec<_>>(), [0, 2, 3, 4]);
    assert_eq!(read.addresses, vec![address; 8]);
}

#[test]
fn ticket_secret_is_not_printed() {
    assert!(format!("{:?}", example()).contains("InviteSecret(…)"));
}

// Proves: LK-3
#[test]
fn relay_addr_sizes() {
    let relay = RelayHint { relay: NodeId::from_bytes([4; 32]), url: URL_30.to_owned() };
    let open = RelayAddress { relay: relay.clone(), bind0: false, token: None };
    let token = RelayAddress { relay, bind0: true, token: Some(InviteSecret::from_bytes([9; 32])) };
    for (address, bytes, characters) in [(open, 65, 115), (token, 97, 166)] {
        let text = address.encode();
        assert_eq!(decode_text("str1", &text).unwrap().len(), bytes);
        assert_eq!(text.len(), characters);
        assert_eq!(RelayAddress::decode(&text), Ok(address));
    }
}

// Proves: LK-3
#[test]
fn relay_addr_strict() {
    let relay = RelayHint { relay: NodeId::from_bytes([4; 32]), url: URL_30.to_owned() };
    let whole = decode_text("str1", &RelayAddress { relay, bind0: false, token: None }.encode()).unwrap();
    let read = |bytes: &[u8]| RelayAddress::decode(&encode_text("str1", bytes));
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "{length} bytes are accepted");
    }
    assert!(read(&[&whole[..], &[0]].concat()).is_err(), "a surplus byte is accepted");
    assert!(read(&[&[1, 1], &whole[2..]].concat()).is_err(), "a missing token is accepted");
    assert!(read(&[&[1, 4], &whole[2..]].concat()).is_err(), "an unknown flag is accepted");
    assert_eq!(read(&[&[2, 0], &whole[2..]].concat()), Err(TicketError::Version(2)));
    assert!(RelayAddress::decode(URL_30).is_err(), "a bare URL has no identity to check");
}

#[test]
fn relay_addr_urls() {
    let hint = |url: &str| RelayHint { relay: NodeId::from_bytes([4; 32]), url: url.to_owned() };
    for good in ["wss://a", "wss://relay.example:7444", "wss://[2001:db8::1]:443/st/v1/relay", "wss://10.0.0.1/x/y"] {
        assert!(hint(good).has_valid_url(), "{good} is refused");
    }
    let long = format!("wss://{}", "a".repeat(195));
    for bad in [
        "",
        "wss://",
        "ws://a",
        "WSS://a",
        "https://a",
        "wss://a:0",
        "wss://a:",
        "wss://a:65536",
        "wss://a:+1",
        "wss://u@a",
        "wss://a?x",
        "wss://a#x",
        "wss://a b",
        "wss://ä",
        "wss://[::1",
        "wss://[x]",
        "wss://:1",
        "wss:///x",
        long.as_str(),
    ] {
        assert!(!hint(bad).has_valid_url(), "{bad} is accepted");
    }
}

fn any_address() -> impl Strategy<Value = LinkAddress> {
    (1u8..=5, any::<std::net::IpAddr>(), 1u16..)
        .prop_map(|(source, ip, port)| LinkAddress { source, socket: SocketAddr::new(ip.to_canonical(), port) })
}

fn any_relay() -> impl Strategy<Value = RelayHint> {
    (any::<[u8; 32]>(), "wss://[a-z]{1,20}(:[1-9][0-9]{0,3})?(/[a-z0-9/]{0,150})?")
        .prop_map(|(relay, url)| RelayHint { relay: NodeId::from_bytes(relay), url })
}

prop_compose! {
    fn any_ticket()(
        node in any::<[u8; 32]>(),
        expires in 1u64..,
        invite in any::<Option<([u8; 16], [u8; 32])>>(),
        flags in any::<[bool; 4]>(),
        relays in prop::collection::vec(any_relay(), 0..=4),
        addresses in prop::collection::vec(any_address(), 0..=8),
    ) -> Ticket {
        Ticket {
            node: NodeId::from_bytes(node),
            expires,
            single_use: invite.is_some() && flags[0],
            device: invite.is_some() && flags[3],
            invite: invite.map(|(id, secret)| (id, InviteSecret::from_bytes(secret))),
            relay_only: flags[1],
            relays_bind0: flags[2],
            relays,
            addresses,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000 * scale()))]

    // Proves: LK-3
    #[test]
    fn ticket_round_trip(ticket in any_ticket()) {
        prop_assert_eq!(Ticket::decode(&ticket.encode()), Ok(ticket));
    }

    // Proves: LK-3, LK-28
    #[test]
    fn ticket_changed_reads_back_or_fails(ticket in any_ticket(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = decode_text("stt1", &ticket.encode()).unwrap();
        let position = at.index(bytes.len());
        bytes[position] = byte;
        let text = encode_text("stt1", &bytes);
        if let Ok(read) = Ticket::decode(&text) {
            prop_assert_eq!(read.encode(), text, "one ticket has one text");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000 * scale()))]

    // Proves: LK-28
    #[test]
    fn fuzz_ticket(bytes in prop::collection::vec(any::<u8>(), 0..400), plausible in any::<bool>()) {
        let mut bytes = bytes;
        if plausible && bytes.len() > 1 {
            bytes[0] = 1;
            bytes[1] &= 15;
        }
        for (prefix, again) in [
            ("stt1", Ticket::decode(&encode_text("stt1", &bytes)).map(|read| read.encode())),
            ("str1", RelayAddress::decode(&encode_text("str1", &bytes)).map(|read| read.encode())),
        ] {
            if let Ok(again) = again {
                prop_assert_eq!(again, encode_text(prefix, &bytes));
            }
        }
    }
}
