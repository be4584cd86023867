use sealtide_crypto::SeededEntropy;

use super::*;

const A: LoginId = LoginId(1);
const B: LoginId = LoginId(2);

fn id(n: u8) -> NodeId {
    NodeId::from_bytes([n; 32])
}

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: 0 }
}

fn number(n: u32) -> CircuitNumber {
    CircuitNumber::new(n).unwrap()
}

struct Relay {
    hub: Hub,
    entropy: SeededEntropy,
}

impl Relay {
    fn new(settings: RelaySettings, admit: Admit) -> Self {
        Self { hub: Hub::new(settings, admit), entropy: SeededEntropy::new(1) }
    }

    fn login(&mut self, now_ms: u64, login: LoginId, node: u8) -> bool {
        self.hub.logged_in(at(now_ms), login, id(node), None, false, &mut self.entropy)
    }

    fn say(&mut self, now_ms: u64, login: LoginId, frame: &RelayFrame) -> Result<(), Violation> {
        self.hub.message(at(now_ms), login, &frame.encode())
    }

    fn heard(&mut self, now_ms: u64, login: LoginId) -> Vec<RelayFrame> {
        std::iter::from_fn(|| self.hub.transmit(at(now_ms), login))
            .map(|message| RelayFrame::decode(&message).unwrap())
            .collect()
    }

    /// A and B logged in with a circuit between them; 1 at A, 2 at B.
    fn pair(settings: RelaySettings) -> Self {
        let mut relay = Self::new(settings, Admit::Open);
        assert!(relay.login(0, A, 1) && relay.login(0, B, 2));
        relay.say(0, A, &RelayFrame::Open { circuit: number(1), target: id(2), show_address: false }).unwrap();
        let offered = RelayFrame::Incoming { circuit: number(2), opener: id(1), address: None };
        assert_eq!(relay.heard(0, B), [offered]);
        relay.say(0, B, &RelayFrame::Accept { circuit: number(2) }).unwrap();
        assert_eq!(relay.heard(0, A), [RelayFrame::Accept { circuit: number(1) }]);
        relay
    }
}

fn data(circuit: u32, bytes: usize) -> RelayFrame {
    RelayFrame::Data { circuit: number(circuit), payload: vec![7; bytes].into() }
}

#[test]
fn bytes_go_through_in_order_and_the_end_comes_last() {
    let mut relay = Relay::pair(RelaySettings::default());
    for n in 1..=5 {
        relay.say(1, A, &data(1, n)).unwrap();
    }
    relay.say(1, A, &RelayFrame::Close { circuit: number(1), why: CircuitEnd::Done }).unwrap();
    let mut expected: Vec<_> = (1..=5).map(|n| data(2, n)).collect();
    expected.push(RelayFrame::Close { circuit: number(2), why: CircuitEnd::Done });
    assert_eq!(relay.heard(2, B), expected);
    assert_eq!(relay.hub.stats().circuits, 0);
    assert_eq!(relay.hub.stats().waiting_bytes, 0);
}

// Proves: LK-60
#[test]
fn relay_backpressure() {
    let settings = RelaySettings { waiting_per_node: 100_000, ..RelaySettings::default() };
    let mut relay = Relay::pair(settings);
    let mut sent = 0;
    while relay.hub.gate(at(1), A) == Gate::Open {
        relay.say(1, A, &data(1, 10_000)).unwrap();
        sent += 1;
    }
    assert!(relay.hub.stats().waiting_bytes <= 100_000, "the sender is not read any more");
    assert_eq!(relay.hub.gate(at(1), A), Gate::Closed);
    assert_eq!(relay.heard(2, B).len(), sent, "and nothing was dropped");
    assert_eq!(relay.hub.gate(at(2), A), Gate::Open);
    // One credit window and not a byte more.
    for _ in sent..26 {
        relay.say(3, A, &data(1, 10_000)).unwrap();
        relay.heard(3, B);
    }
    assert_eq!(relay.say(3, A, &data(1, 10_000)), Err(Violation::Credit));
}

#[test]
fn who_reads_nothing_does_not_stop_others_for_long() {
    let settings = RelaySettings { waiting_per_node: 100_000, ..RelaySettings::default() };
    let mut relay = Relay::pair(settings);
    while relay.hub.gate(at(1), A) == Gate::Open {
        relay.say(1, A, &data(1, 10_000)).unwrap();
    }
    relay.hub.handle_timeout(at(1 + settings.blocked_ms));
    assert_eq!(relay.hub.gate(at(10_002), A), Gate::Open);
    assert!(relay.heard(10_002, A).contains(&RelayFrame::Close { circuit: number(1), why: CircuitEnd::Busy }));
}

/// A timer stays in nobody's way once what it is of is gone: what is taken out is exactly what was put in.
#[test]
fn no_timer_outlives_what_it_is_of() {
    let settings = RelaySettings { waiting_per_node: 100_000, ..RelaySettings::default() };
    let mut relay = two_pairs(settings);
    let idle: Vec<_> = relay.hub.timers.iter().copied().collect();
    assert!(idle.len() == 4 && idle.iter().all(|(_, timer)| matches!(timer, Timer::Idle(_))), "{idle:?}");
    relay.say(1, A, &RelayFrame::Open { circuit: number(3), target: id(9), show_address: false }).unwrap();
    relay.say(2, A, &RelayFrame::Open { circuit: number(5), target: id(9), show_address: false }).unwrap();
    relay.say(3, A, &RelayFrame::Close { circuit: number(3), why: CircuitEnd::Done }).unwrap();
    assert_eq!(relay.hub.next_timeout(), Some(2 + settings.refusal_ms), "the other one is answered");
    relay.hub.handle_timeout(at(2 + settings.refusal_ms));
    while relay.hub.gate(at(5_000), A) == Gate::Open {
        relay.say(5_000, A, &data(1, 10_000)).unwrap();
    }
    assert_eq!(relay.hub.next_timeout(), Some(5_000 + settings.blocked_ms));
    relay.heard(5_001, B);
    assert_eq!(relay.hub.timers.iter().copied().collect::<Vec<_>>(), idle, "nobody is held up any more");

    // A login that shows a sign of life has its timer later, once.
    relay.hub.handle_timeout(at(settings.idle_ms));
    assert_eq!(relay.hub.timers.len(), 1, "who said nothing has had its time");
    relay.hub.drain(at(settings.idle_ms), &mut SeededEntropy::new(2));
    let logins: Vec<_> = relay.hub.logins.ids();
    logins.into_iter().for_each(|login| relay.hub.lost(login));
    assert_eq!(relay.hub.timers.iter().collect::<Vec<_>>(), Vec::<&(u64, Timer)>::new());
}

// Proves: LK-62
#[test]
fn relay_rate() {
    let settings = RelaySettings { rate_bytes_s: 1_000_000, burst: 50_000, ..RelaySettings::default() };
    let mut relay = Relay::pair(settings);
    let (mut now_ms, mut sent) = (0, 0u64);
    while now_ms < 10_000 {
        match relay.hub.gate(at(now_ms), A) {
            Gate::Open => {
                relay.say(now_ms, A, &data(1, 16_000)).unwrap();
                relay.heard(now_ms, B);
                relay.say(now_ms, B, &RelayFrame::Credit { circuit: number(2), increment: 16_000 }).unwrap();
                relay.heard(now_ms, A);
                sent += 16_000;
            }
            Gate::Until(at_ms) => now_ms = at_ms,
            Gate::Closed => panic!("only the rate stops it"),
        }
    }
    assert!((9_000_000..=11_000_000).contains(&sent), "{sent} bytes in 10 s at 1 MB/s");
}

// Proves: LK-61
#[test]
fn relay_fairness() {
    let mut relay = Relay::pair(RelaySettings::default());
    let c = LoginId(3);
    assert!(relay.login(0, c, 3));
    relay.say(0, c, &RelayFrame::Open { circuit: number(1), target: id(2), show_address: false }).unwrap();
    relay.heard(0, B);
    relay.say(0, B, &RelayFrame::Accept { circuit: number(4) }).unwrap();
    for _ in 0..15 {
        relay.say(0, A, &data(1, 16_384)).unwrap();
    }
    relay.say(0, c, &data(1, 64)).unwrap();
    let heard = relay.heard(1, B);
    let place = heard.iter().position(|frame| *frame == data(4, 64)).unwrap();
    assert!(place <= 2, "behind {place} large frames of another node");
}

// Proves: LK-27
#[test]
fn relay_oracle() {
    let answer = |target_is_there: bool, refuses_at: Option<u64>| {
        let mut relay = Relay::new(RelaySettings::default(), Admit::Open);
        relay.login(0, A, 1);
        if target_is_there {
            relay.login(0, B, 2);
        }
        relay.say(5, A, &RelayFrame::Open { circuit: number(1), target: id(2), show_address: true }).unwrap();
        let mut heard = Vec::new();
        for now_ms in 5..3_000 {
            if refuses_at == Some(now_ms) {
                relay.say(now_ms, B, &RelayFrame::Refuse { circuit: number(2), why: CircuitEnd::Busy }).unwrap();
            }
            relay.hub.handle_timeout(at(now_ms));
            heard.extend(relay.heard(now_ms, A).into_iter().map(|frame| (now_ms, frame)));
        }
        heard
    };
    let absent = answer(false, None);
    let refusal = RelayFrame::Refuse { circuit: number(1), why: CircuitEnd::Unreachable };
    assert_eq!(absent, [(1_005, refusal)]);
    assert_eq!(answer(true, Some(6)), absent, "refused at once");
    assert_eq!(answer(true, Some(900)), absent, "refused late");
    assert_eq!(answer(true, None), absent, "not answered");
}

// Proves: LK-26, LK-108
#[test]
fn relay_guest() {
    let mut relay = Relay::new(RelaySettings::default(), Admit::AllowList([id(1), id(4)].into()));
    assert!(relay.login(0, A, 1) && relay.login(0, LoginId(4), 4));
    let guest = LoginId(9);
    assert!(!relay.hub.admits(at(1), &id(9)) && !relay.login(1, guest, 9), "nobody expects guests");
    relay.say(2, A, &RelayFrame::Allow { node: id(0), seconds: 600 }).unwrap();
    assert!(relay.login(3, guest, 9));
    relay.say(4, guest, &RelayFrame::Open { circuit: number(1), target: id(4), show_address: false }).unwrap();
    assert!(relay.heard(4, LoginId(4)).is_empty(), "it expects no guest");
    relay.hub.handle_timeout(at(2_000));
    let refusal = RelayFrame::Refuse { circuit: number(1), why: CircuitEnd::Unreachable };
    assert_eq!(relay.heard(2_000, guest), [refusal]);
    relay.say(2_001, guest, &RelayFrame::Open { circuit: number(3), target: id(1), show_address: false }).unwrap();
    assert_eq!(relay.heard(2_001, A).len(), 1, "whoever expects guests is offered the circuit");
    relay.say(2_001, A, &RelayFrame::Accept { circuit: number(2) }).unwrap();
    relay.heard(2_001, guest);
    relay.say(2_002, guest, &RelayFrame::Open { circuit: number(5), target: id(1), show_address: false }).unwrap();
    let second = RelayFrame::Refuse { circuit: number(5), why: CircuitEnd::NotAllowed };
    assert_eq!(relay.heard(2_002, guest), [second], "one circuit each");
    relay.say(2_003, LoginId(4), &RelayFrame::Open { circuit: number(1), target: id(9), show_address: false }).unwrap();
    assert!(relay.heard(2_003, guest).is_empty(), "guests are offered none");
    // Guests let in nobody; friends neither.
    relay.say(2_004, guest, &RelayFrame::Allow { node: id(8), seconds: 600 }).unwrap();
    assert_eq!(relay.hub.guest_list.standing(2_004, &id(8)), Some(Standing::Guest));
    // Enrolled: in for good.
    relay.say(2_005, A, &RelayFrame::Allow { node: id(9), seconds: 86_400 }).unwrap();
    relay.say(2_005, A, &RelayFrame::Allow { node: id(0), seconds: 0 }).unwrap();
    assert_eq!(relay.hub.guest_list.standing(2_006, &id(9)), Some(Standing::Friend));
    assert!(!relay.hub.admits(at(2_006), &id(8)));
    assert!(!relay.hub.is_over(guest));
    // Entries end with the admission of their maker.
    relay.hub.set_admit(at(2_007), Admit::AllowList([id(4)].into()));
    assert!(relay.heard(2_007, guest).iter().any(|frame| matches!(frame, RelayFrame::GoAway { .. })));
    assert!(relay.hub.is_over(guest));
}

#[test]
fn a_guest_goes_when_its_time_is_over() {
    let settings = RelaySettings { idle_ms: u64::MAX / 2, ..RelaySettings::default() };
    let mut relay = Relay::new(settings, Admit::AllowList([id(1)].into()));
    relay.login(0, A, 1);
    relay.say(0, A, &RelayFrame::Allow { node: id(0), seconds: 86_400 }).unwrap();
    assert!(relay.login(0, B, 2));
    relay.hub.handle_timeout(at(599_999));
    assert!(!relay.hub.is_over(B));
    relay.hub.handle_timeout(at(600_000));
    let code = GoAwayCode::NotAdmitted;
    assert_eq!(relay.heard(600_000, B), [RelayFrame::GoAway { code, reconnect_ms: 0, relays: Vec::new() }]);
}

// Proves: LK-25
#[test]
fn relay_duplicate() {
    let mut relay = Relay::new(RelaySettings::default(), Admit::Open);
    let goaway = |frames: Vec<RelayFrame>| match frames.as_slice() {
        [RelayFrame::GoAway { code, .. }] => Some(*code),
        _ => None,
    };
    for n in 0..4 {
        assert!(relay.login(n, LoginId(n), 1));
    }
    for n in 0..3 {
        assert_eq!(goaway(relay.heard(9, LoginId(n))), Some(GoAwayCode::Replaced));
        assert!(relay.hub.is_over(LoginId(n)));
    }
    assert!(!relay.hub.is_over(LoginId(3)));
    assert!(relay.login(10, LoginId(4), 1));
    for n in 3..5 {
        assert_eq!(goaway(relay.heard(11, LoginId(n))), Some(GoAwayCode::DuplicateIdentity));
    }
    let outputs: Vec<_> = std::iter::from_fn(|| relay.hub.poll()).collect();
    assert!(outputs.contains(&Output::DuplicateIdentity(id(1))));
}

// Proves: LK-63
#[test]
fn drained_nodes_come_back_one_after_the_other() {
    let mut relay = Relay::new(RelaySettings::default(), Admit::Open);
    for n in 0..1_000u64 {
        let node = NodeId::from_bytes(sealtide_crypto::sha256(&n.to_be_bytes()));
        let entropy = &mut relay.entropy;
        assert!(relay.hub.logged_in(at(0), LoginId(n), node, None, false, entropy));
    }
    relay.hub.drain(at(1), &mut relay.entropy);
    let mut when: Vec<_> = (0..1_000)
        .map(|n| match &relay.heard(1, LoginId(n))[..] {
            [RelayFrame::GoAway { code: GoAwayCode::Draining, reconnect_ms, .. }] => *reconnect_ms,
            other => panic!("{other:?}"),
        })
        .collect();
    when.sort_unstable();
    assert!(when[999] - when[0] >= 5_000);
    let busiest = when.iter().map(|at| when.iter().filter(|b| (*at..*at + 100).contains(b)).count()).max().unwrap();
    assert!(busiest < 50, "{busiest} within 100 ms");
}

#[test]
fn frames_of_the_wrong_side_or_circuit_end_the_login() {
    let mut relay = Relay::pair(RelaySettings::default());
    let go_away = RelayFrame::GoAway { code: GoAwayCode::Draining, reconnect_ms: 0, relays: Vec::new() };
    assert_eq!(relay.say(1, A, &go_away), Err(Violation::Direction));
    let open = |n| RelayFrame::Open { circuit: number(n), target: id(2), show_address: false };
    assert_eq!(relay.say(1, A, &open(2)), Err(Violation::Number), "even");
    assert_eq!(relay.say(1, A, &open(1)), Err(Violation::Number), "taken");
    let credit = RelayFrame::Credit { circuit: number(1), increment: u32::MAX };
    assert_eq!(relay.say(1, A, &credit), Err(Violation::Credit));
    assert_eq!(relay.say(1, A, &data(77, 1)), Ok(()), "a circuit that is over already");
}

/// A relay whose memory for all nodes holds ten messages and a half, with one bulk circuit 1 → 2 and another 3 → 4.
fn two_pairs(settings: RelaySettings) -> Relay {
    let mut relay = Relay::pair(RelaySettings { waiting_total: 10 * 16_648 + 8_000, ..settings });
    assert!(relay.login(0, LoginId(3), 3) && relay.login(0, LoginId(4), 4));
    relay.say(0, LoginId(3), &RelayFrame::Open { circuit: number(1), target: id(4), show_address: false }).unwrap();
    relay.heard(0, LoginId(4));
    relay.say(0, LoginId(4), &RelayFrame::Accept { circuit: number(2) }).unwrap();
    relay.heard(0, LoginId(3));
    relay
}

/// Who is held back because the relay is full goes on when anybody takes something, not only its own receiver.
#[test]
fn whoever_reads_makes_room_for_everybody() {
    let mut relay = two_pairs(RelaySettings::default());
    let (c, d) = (LoginId(3), LoginId(4));
    while relay.hub.gate(at(1), A) == Gate::Open {
        relay.say(1, A, &data(1, 16_640)).unwrap();
    }
    assert_eq!(relay.hub.gate(at(1), A), Gate::Closed, "full");
    relay.say(1, c, &data(1, 16_640)).unwrap();
    assert_eq!(relay.hub.gate(at(1), c), Gate::Closed, "for everybody");
    relay.hub.transmit(at(2), B).unwrap();
    assert_eq!(relay.hub.gate(at(2), A), Gate::Closed, "not room enough yet");
    while relay.hub.poll().is_some() {}
    // The receiver of C takes its message: now one message has room, and A has waited longest.
    relay.hub.transmit(at(2), d).unwrap();
    assert_eq!((relay.hub.gate(at(2), A), relay.hub.gate(at(2), c)), (Gate::Open, Gate::Closed));
    assert!(std::iter::from_fn(|| relay.hub.poll()).any(|output| output == Output::Wake(A)), "it is told");
    relay.say(2, A, &data(1, 16_640)).unwrap();
    assert_eq!(relay.hub.gate(at(2), A), Gate::Closed);
    // B takes one: the turn of C, though nothing waits for its own receiver.
    relay.hub.transmit(at(3), B).unwrap();
    assert_eq!((relay.hub.gate(at(3), A), relay.hub.gate(at(3), c)), (Gate::Closed, Gate::Open));
    assert!(relay.hub.stats().waiting_bytes <= 10 * 16_648);
}

/// A full relay ends the circuits of who does not read, and nobody else's.
#[test]
fn a_full_relay_ends_the_circuits_of_who_does_not_read() {
    let settings = RelaySettings::default();
    let mut relay = two_pairs(settings);
    let (c, d) = (LoginId(3), LoginId(4));
    while relay.hub.gate(at(1), A) == Gate::Open {
        relay.say(1, A, &data(1, 16_640)).unwrap();
    }
    relay.say(1, c, &data(1, 100)).unwrap();
    let due = 1 + settings.blocked_ms;
    assert_eq!(relay.heard(due - 5, d).len(), 1, "the receiver of C reads");
    relay.say(due - 5, A, &data(1, 16_640)).unwrap();
    relay.say(due - 5, c, &data(1, 100)).unwrap();
    relay.hub.handle_timeout(at(due));
    let busy = RelayFrame::Close { circuit: number(1), why: CircuitEnd::Busy };
    assert!(relay.heard(due, A).contains(&busy), "nothing was taken at the other end");
    assert_eq!(relay.hub.gate(at(due), c), Gate::Open);
    assert!(!relay.heard(due, c).contains(&busy), "whose receiver reads");
    assert_eq!(relay.heard(due, d), [data(2, 100)], "and nothing of it is lost");
    assert_eq!(relay.heard(due, B), [RelayFrame::Close { circuit: number(2), why: CircuitEnd::Busy }]);
    assert_eq!(relay.hub.stats().waiting_bytes, 0);
}

/// A node that neither reads nor speaks is given up, and what waited for it counts no longer.
#[test]
fn what_waited_for_a_silent_node_counts_no_longer() {
    let settings = RelaySettings { waiting_total: 60_000, ..RelaySettings::default() };
    let mut relay = Relay::pair(settings);
    while relay.hub.gate(at(1), A) == Gate::Open {
        relay.say(1, A, &data(1, 10_000)).unwrap();
    }
    assert!(relay.hub.stats().waiting_bytes > 40_000);
    // A is held up, which is no silence; B is silent.
    relay.hub.handle_timeout(at(settings.idle_ms));
    assert!(relay.hub.is_over(B) && !relay.hub.is_over(A));
    assert_eq!(relay.hub.stats().waiting_bytes, 0);
    assert_eq!(relay.hub.gate(at(settings.idle_ms), A), Gate::Open, "the room is free for others");
    relay.hub.lost(B);
    assert_eq!((relay.hub.stats().waiting_bytes, relay.hub.stats().nodes), (0, 1));
}

/// The last words of a relay that stops are written before its logins are over.
#[test]
fn dismissed_logins_end_after_their_last_words() {
    let mut relay = Relay::pair(RelaySettings::default());
    relay.hub.drain(at(1), &mut SeededEntropy::new(2));
    assert!(!relay.hub.is_over(A), "circuits live on");
    relay.hub.dismiss();
    assert!(!relay.hub.is_over(A) && !relay.hub.is_over(B), "not everything is written");
    assert!(!relay.login(2, LoginId(3), 3), "nobody comes in any more");
    let go_away = |frame: &RelayFrame| matches!(frame, RelayFrame::GoAway { code: GoAwayCode::Draining, .. });
    let (a, b) = (relay.heard(2, A), relay.heard(2, B));
    assert!(go_away(&a[0]) && go_away(&b[0]), "{a:?} {b:?}");
    assert_eq!(b[1..], [RelayFrame::Close { circuit: number(2), why: CircuitEnd::Draining }]);
    assert!(relay.hub.is_over(A) && relay.hub.is_over(B));
}

/// A member has a bounded number of entries, and each counts until its end.
#[test]
fn entries_of_a_member_are_counted_until_they_end() {
    let mut list = GuestList::new(Admit::AllowList([id(1)].into()), 2);
    assert!(list.allow(0, id(1), id(5), 10) && list.allow(0, id(1), id(6), 20));
    assert!(!list.allow(0, id(1), id(7), 10), "two at most");
    assert!(list.allow(5_000, id(1), id(6), 30), "renewed");
    assert_eq!(list.next_end(), Some(10_000));
    assert!(!list.expire(9_999) && list.expire(10_000));
    assert_eq!(list.standing(10_000, &id(5)), None);
    assert_eq!(list.standing(30_000, &id(6)), Some(Standing::Friend));
    assert!(list.allow(10_000, id(1), id(7), 10), "the place of the first is free");
    list.set_admit(Admit::AllowList([id(2)].into()));
    assert_eq!((list.next_end(), list.standing(10_001, &id(6))), (None, None));
}

/// A node hears where it is seen, and an opener decides whether its target does.
// Proves: LK-51
#[test]
fn nodes_are_told_where_they_are_seen() {
    let mut relay = Relay::new(RelaySettings::default(), Admit::Open);
    let address = LinkAddress { source: LinkAddress::RELAY_OBSERVED, socket: "203.0.113.7:50000".parse().unwrap() };
    let entropy = &mut SeededEntropy::new(3);
    assert!(relay.hub.logged_in(at(0), A, id(1), Some(address), false, entropy));
    assert!(relay.login(0, B, 2));
    assert_eq!(relay.heard(0, A), [RelayFrame::Observed { address }]);
    assert_eq!(relay.heard(0, B), [], "nothing is known");
    for (circuit, show_address, shown) in [(1, true, Some(address)), (3, false, None)] {
        let open = RelayFrame::Open { circuit: number(circuit), target: id(2), show_address };
        relay.say(0, A, &open).unwrap();
        let offered = RelayFrame::Incoming { circuit: number(circuit + 1), opener: id(1), address: shown };
        assert_eq!(relay.heard(0, B), [offered]);
    }
}
