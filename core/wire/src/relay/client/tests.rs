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

const FIRST: usize = 256 << 10;

/// What the other end may send comes, and is read when so many ms have passed; gives what it is granted for it.
fn comes_and_is_read(client: &mut RelayClient, circuit: u32, bytes: usize, now_ms: u64) -> usize {
    for from in (0..bytes).step_by(16_384) {
        let payload = vec![7; 16_384.min(bytes - from)].into();
        say(client, &RelayFrame::Data { circuit: number(circuit), payload }).unwrap();
    }
    while let ReadOutcome::Bytes(_) = client.read(now_ms, number(circuit), usize::MAX) {}
    let frames =
        std::iter::from_fn(|| client.transmit()).map(|message| RelayFrame::decode(&message.to_bytes()).unwrap());
    let increment =
        |frame| if let RelayFrame::Credit { increment, .. } = frame { Some(increment as usize) } else { None };
    frames.filter_map(increment).sum()
}

/// A peer that runs out of credit while the next is on its way gets more; one that does not keeps what it has.
#[test]
fn the_window_grows_while_the_peer_runs_out() {
    let mut client = with_a_circuit(limits(10, FIRST as u32));
    let (mut allowed, mut sizes) = (FIRST, Vec::new());
    for turn in 0..6 {
        // All that it may send comes before it can have seen what is granted for it.
        allowed = comes_and_is_read(&mut client, 1, allowed, turn);
        let circuit = &client.circuits[&number(1)];
        assert_eq!((circuit.window, circuit.window + circuit.read), (allowed as u64, circuit.window_size));
        sizes.push(circuit.window_size as usize / FIRST);
    }
    assert_eq!(sizes, [1, 2, 3, 3, 3, 3]);
    assert_eq!(3 * FIRST as u64, GROWN_CREDIT_BYTES);

    let mut calm = with_a_circuit(limits(10, FIRST as u32));
    for turn in 0..100 {
        comes_and_is_read(&mut calm, 1, FIRST / 2 + 1, turn);
        assert_eq!(calm.circuits[&number(1)].window_size, FIRST as u64);
    }
}

/// Over a long way a reader that keeps up grants before the peer has used up the rest, and that is all it has while the grant travels.
#[test]
fn the_window_grows_while_grants_are_on_their_way() {
    let mut client = with_a_circuit(limits(10, FIRST as u32));
    let (mut allowed, mut sizes) = (FIRST, Vec::new());
    for turn in 0..8 {
        let mut granted = 0;
        while allowed > 0 {
            let bytes = allowed.min(16_384);
            granted += comes_and_is_read(&mut client, 1, bytes, turn);
            assert!(client.circuits[&number(1)].window > 0);
            allowed -= bytes;
        }
        sizes.push(client.circuits[&number(1)].window_size as usize / FIRST);
        allowed = granted;
    }
    assert_eq!(sizes.last(), Some(&3), "{sizes:?}");
}

/// The relay ends circuits of whom reads less than half of what waits in ten seconds: a slow reader lets no more come than at first.
#[test]
fn the_window_of_a_slow_reader_stays_as_it_is() {
    for (pause_ms, grows) in [(250, true), (251, false), (60_000, false)] {
        let mut client = with_a_circuit(limits(10, FIRST as u32));
        let mut allowed = FIRST;
        for turn in 0..3 {
            allowed = comes_and_is_read(&mut client, 1, allowed, turn * pause_ms);
        }
        assert_eq!(client.circuits[&number(1)].window_size > FIRST as u64, grows, "{pause_ms} ms");
    }
}

/// What waits for a node at the relay is for all of its circuits.
#[test]
fn windows_grow_by_no_more_than_is_for_all_of_them() {
    let mut client = with_a_circuit(limits(10, FIRST as u32));
    for circuit in [3, 5, 7] {
        assert_eq!(client.open(id(2)), Some(number(circuit)));
        say(&mut client, &RelayFrame::Accept { circuit: number(circuit) }).unwrap();
    }
    let together = |client: &RelayClient| client.circuits.values().map(|one| one.window_size).sum::<u64>();
    for turn in 0..10 {
        for circuit in [1, 3, 5, 7] {
            let allowed = client.circuits[&number(circuit)].window as usize;
            comes_and_is_read(&mut client, circuit, allowed, turn);
        }
    }
    assert_eq!(together(&client), 4 * FIRST as u64 + GROWN_TOGETHER_BYTES);
    // What one had that has ended is there for the others.
    let largest = *client.circuits.iter().max_by_key(|(_, one)| one.window_size).unwrap().0;
    client.close(largest);
    for turn in 10..20 {
        for circuit in [1, 3, 5, 7].map(number).into_iter().filter(|number| *number != largest) {
            let allowed = client.circuits[&circuit].window as usize;
            comes_and_is_read(&mut client, circuit.as_u32(), allowed, turn);
        }
    }
    assert_eq!(together(&client), 3 * FIRST as u64 + GROWN_TOGETHER_BYTES);
}
