use super::*;

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn number(n: u32) -> CircuitNumber {
    CircuitNumber::new(n).unwrap()
}

fn limits(max_circuits: u16, credit: u32) -> RelayLimits {
    RelayLimits { max_circuits, credit, rate_bytes_s: 0, burst: 0, ping_ms: 15_000 }
}

fn say(client: &mut RelayClient, frame: &RelayFrame) -> Result<(), RelayViolation> {
    client.message(&frame.encode())
}

/// A client with the circuit 1, which stands.
fn with_a_circuit(granted: RelayLimits) -> RelayClient {
    let mut client = RelayClient::new(granted);
    assert_eq!(client.open(id(2)), Some(number(1)));
    say(&mut client, &RelayFrame::Accept { circuit: number(1) }).unwrap();
    while client.transmit().is_some() {}
    client
}

fn data(bytes: usize) -> RelayFrame {
    RelayFrame::Data { circuit: number(1), payload: vec![7; bytes].into() }
}

/// Whatever a relay grants, a circuit holds 2 MiB at most.
#[test]
fn credit_without_bound_is_cut_to_what_this_node_bears() {
    let mut client = with_a_circuit(limits(1024, u32::MAX));
    let mut taken = 0;
    let refused = loop {
        match say(&mut client, &data(16_384)) {
            Ok(()) => taken += 16_384,
            Err(violation) => break violation,
        }
    };
    assert_eq!((taken, refused), (CREDIT_MAX as usize, RelayViolation::Credit));
}

/// Whatever a relay grants, a login has 1,024 circuits of its own and as many offered ones at most.
#[test]
fn circuits_without_bound_are_cut_to_what_this_node_bears() {
    let mut client = RelayClient::new(limits(u16::MAX, 1));
    let opened = (0..2_000).filter(|_| client.open(id(2)).is_some()).count();
    assert_eq!(opened, usize::from(CIRCUITS_MAX));
    let mut offered = 0;
    let refused = loop {
        let circuit = number(2 * (offered + 1));
        match say(&mut client, &RelayFrame::Incoming { circuit, opener: id(3), address: None }) {
            Ok(()) => offered += 1,
            Err(violation) => break violation,
        }
    };
    assert_eq!((offered, refused), (u32::from(CIRCUITS_MAX), RelayViolation::TooMany));
}

/// A relay that asks for signs of life and reads none of them fills no memory.
#[test]
fn pings_that_nobody_reads_the_answers_of_end_the_login() {
    let mut client = RelayClient::new(limits(10, 1));
    let ping = RelayFrame::Ping([1; 8]);
    for _ in 0..ANSWERS_MAX {
        say(&mut client, &ping).unwrap();
    }
    assert_eq!(say(&mut client, &ping), Err(RelayViolation::Unread));
    assert_eq!(client.steering.len(), ANSWERS_MAX);
}

/// What a node says of its own accord is no fault of a relay that is slow.
#[test]
fn circuits_that_end_all_at_once_do_not_end_the_login() {
    let mut client = RelayClient::new(limits(1024, 256 << 10));
    let circuits: Vec<_> = (0..1024).map(|_| client.open(id(2)).unwrap()).collect();
    for circuit in circuits {
        say(&mut client, &RelayFrame::Accept { circuit }).unwrap();
        assert_eq!(client.write(circuit, &[IoSlice::new(&[7; 40_000])]), Some(40_000));
        client.close(circuit);
    }
    assert!(client.steering.len() > ANSWERS_MAX);
    say(&mut client, &RelayFrame::Ping([1; 8])).unwrap();
}

/// One that reads its answers may ask for ever.
#[test]
fn pings_whose_answers_are_read_are_answered() {
    let mut client = RelayClient::new(limits(10, 1));
    for n in 0..3 * ANSWERS_MAX as u64 {
        say(&mut client, &RelayFrame::Ping(n.to_be_bytes())).unwrap();
        assert_eq!(client.transmit(), Some(RelayFrame::Pong(n.to_be_bytes()).into_message()));
    }
}

/// The same for circuits that are offered, refused and offered again.
#[test]
fn offers_that_nobody_reads_the_refusals_of_end_the_login() {
    let mut client = RelayClient::new(limits(10, 1));
    let mut offers = 0;
    let end = loop {
        let circuit = number(2 * (offers + 1));
        match say(&mut client, &RelayFrame::Incoming { circuit, opener: id(3), address: None }) {
            Ok(()) => client.refuse(circuit),
            Err(violation) => break violation,
        }
        while client.poll_event().is_some() {}
        offers += 1;
    };
    assert_eq!((offers as usize, end), (ANSWERS_MAX + 1, RelayViolation::Unread));
}
