//! Real nodes behind real routers: two households in network namespaces. Skipped, with a line that says so, where
//! tests may not make namespaces.

use crate::scale;
use crate::support::{Dice, Gate, Machine, Net, Running, Side, agree, until, until_within, write};

/// A machine in each household.
fn machines(net: &Net) -> (Machine, Machine) {
    (Machine::within(net.machine(Side::A)), Machine::within(net.machine(Side::B)))
}

/// The first shares, the second joins by its ticket; both nodes run then.
fn joined(a: &Machine, b: &Machine) -> (Running, Running) {
    write(&a.notes(), "plan.md", "the plan\n");
    let node_a = a.share();
    let joined = b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    let node_b = b.up(&[]);
    (node_a, node_b)
}

/// The way that the only link of a machine takes, once there is one.
fn remote_of(machine: &Machine) -> String {
    until("a direct link", || {
        let status = machine.ok(&["status"]);
        let link = &status["links"][0];
        if link["path"] == "direct" {
            Ok(link["remote"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(status.to_string())
        }
    })
}

#[test]
fn one_household_is_open_and_the_other_behind_a_translating_gate() {
    let Some(net) = Net::new(Gate::Open, Gate::Translating) else { return };
    let (a, b) = machines(&net);
    let (_node_a, _node_b) = joined(&a, &b);
    write(&b.notes(), "answer.md", "from behind the gate\n");
    agree(&a, &b);
    write(&a.notes(), "plan.md", "the plan, again\n");
    agree(&a, &b);
    // What the open side sees is the gate, not the machine behind it.
    let remote = remote_of(&a);
    assert!(remote.starts_with("203.0.113.2:"), "{remote}");
    // The doctor of the one behind sees that somebody translates.
    let peer = b.ok(&["peers", "list"])["peers"][0]["node"].as_str().unwrap().to_owned();
    let found = b.ok(&["doctor", &peer]);
    let findings = found["findings"].as_array().unwrap();
    let nat = findings.iter().find(|finding| finding["check"] == "nat").unwrap_or_else(|| panic!("{found}"));
    assert_eq!(nat["result"], "warn", "{nat}");
    assert!(nat["text"].as_str().unwrap().contains("203.0.113.2"), "{nat}");
}

// Proves: LK-52
#[test]
fn households_with_one_family_only_meet_a_dual_stack_node() {
    for lost in ["-4", "-6"] {
        let Some(net) = Net::new(Gate::Open, Gate::Open) else { return };
        let (a, b) = machines(&net);
        net.at_machine(Side::B, &format!("ip {lost} address flush dev eth0 scope global"));
        let (_node_a, _node_b) = joined(&a, &b);
        agree(&a, &b);
        let remote = remote_of(&b);
        assert_eq!(remote.starts_with("[2001:db8:1::2]:"), lost == "-4", "{remote}");
    }
}

/// What happens to the wire in the middle of a transfer, and how it is mended.
struct Fault {
    name: &'static str,
    /// At the gate of B.
    gate: &'static str,
    mend_gate: &'static str,
    /// At the machine B.
    machine: &'static str,
}

const FAULTS: [Fault; 7] = [
    Fault {
        name: "cut cable",
        gate: "ip link set outside down",
        mend_gate: "ip link set outside up && ip route add default via 203.0.113.1",
        machine: "",
    },
    Fault {
        name: "black hole",
        gate: "iptables -I FORWARD -j DROP",
        mend_gate: "iptables -D FORWARD -j DROP",
        machine: "",
    },
    Fault {
        name: "black hole inwards",
        gate: "iptables -I FORWARD -i outside -j DROP",
        mend_gate: "iptables -D FORWARD -i outside -j DROP",
        machine: "",
    },
    Fault {
        name: "black hole outwards",
        gate: "iptables -I FORWARD -o outside -j DROP",
        mend_gate: "iptables -D FORWARD -o outside -j DROP",
        machine: "",
    },
    Fault {
        name: "resets",
        gate: "iptables -I FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        mend_gate: "iptables -D FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        machine: "",
    },
    Fault { name: "rebinding", gate: "conntrack -F 2>/dev/null", mend_gate: "true", machine: "" },
    Fault {
        name: "renumbering",
        gate: "true",
        mend_gate: "true",
        machine: "ip address del 10.2.0.2/26 dev eth0 && ip address add 10.2.0.9/26 dev eth0 && ip route replace default via 10.2.0.1",
    },
];

/// A transfer goes on after each of them, in the session that it began in: its frames are intact.
// Proves: LK-56, LK-57
#[test]
fn transfers_survive_what_happens_to_the_wire() {
    let Some(net) = Net::new(Gate::Open, Gate::Translating) else { return };
    let (a, b) = machines(&net);
    let (_node_a, _node_b) = joined(&a, &b);
    // The session of the join is over; the one that is meant comes with the node.
    [&a, &b].into_iter().for_each(|machine| drop(remote_of(machine)));
    let began = std::time::Instant::now();
    // Slow enough that every fault falls into the transfer.
    net.slow(Side::B, "40mbit");
    let mut dice = Dice::new(36);
    let bytes = 6 * 1024 * 1024 * usize::try_from(scale().min(4)).unwrap();
    for (round, fault) in FAULTS.iter().enumerate() {
        let before = net.received(Side::B);
        write(&a.notes(), &format!("film-{round}.bin"), dice.bytes(bytes));
        write(&b.notes(), &format!("note-{round}.md"), format!("during the {}\n", fault.name));
        until("the transfer runs", || {
            let moved = net.received(Side::B) - before;
            if moved > 1024 * 1024 { Ok(()) } else { Err(format!("{}: {moved} bytes", fault.name)) }
        });
        net.at_gate(Side::B, fault.gate);
        if !fault.machine.is_empty() {
            net.at_machine(Side::B, fault.machine);
        }
        if fault.mend_gate != "true" {
            stopped(&net, fault.name);
            net.at_gate(Side::B, fault.mend_gate);
        }
        let pause = moves_again(&net, fault.name, before + bytes as u64);
        agree(&a, &b);
        let moved = net.received(Side::B) - before;
        println!("netns: {} of {bytes} bytes: {moved} mended, moves after {pause:.2?}, both trees equal", fault.name);
    }
    for machine in [&a, &b] {
        machine.in_step();
        machine.ok(&["verify"]);
        // No session took the place of the one of the begin.
        let link = machine.ok(&["status"])["links"][0].clone();
        let lasted = began.elapsed().as_secs();
        assert!(link["age_s"].as_u64().is_some_and(|age| age + 1 >= lasted), "{lasted} s: {link}");
    }
}

/// How long it takes from now until a good part more of the transfer has arrived, or all of it: `whole` bytes. Told, not judged:
/// it is the machine's doing too.
fn moves_again(net: &Net, fault: &str, whole: u64) -> std::time::Duration {
    let (began, before) = (std::time::Instant::now(), net.received(Side::B));
    until("the transfer goes on", || {
        let now = net.received(Side::B);
        let moved = now.saturating_sub(before);
        if moved > 512 * 1024 || now >= whole { Ok(()) } else { Err(format!("{fault}: {moved} bytes")) }
    });
    began.elapsed()
}

/// Waits until nothing of the transfer arrives any more.
fn stopped(net: &Net, fault: &str) {
    let mut last = 0;
    until_within(std::time::Duration::from_secs(60), "the transfer stands still", || {
        let now = net.received(Side::B);
        let moved = now - std::mem::replace(&mut last, now);
        // What probes the way is small.
        if moved < 4096 { Ok(()) } else { Err(format!("{fault}: {moved} bytes")) }
    });
}

/// A relay between the households, at both families.
fn relay(net: &Net) -> (Machine, Running, String) {
    let vps = Machine::within(net.internet());
    let words = ["relay", "run", "--listen", "[::]:7444", "--url", "wss://198.51.100.1:7444", "--admit", "open"];
    let running = vps.serve(&words);
    let address = running.ready()["relay"].as_str().unwrap().to_owned();
    (vps, running, address)
}

/// Both run and share a folder; they met over the relay.
fn met_over(relay: &str, a: &Machine, b: &Machine) -> (Running, Running) {
    write(&a.notes(), "plan.md", "the plan\n");
    let node_a = a.up(&[a.notes_text(), "--relay", relay]);
    let joined = b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    let node_b = b.up(&["--relay", relay]);
    (node_a, node_b)
}

/// Where the relay sees a machine.
fn seen(machine: &Machine) -> String {
    until("a login at the relay", || {
        let status = machine.ok(&["status"]);
        let seen = status["relays"][0]["observed"].as_str().map(str::to_owned);
        seen.ok_or_else(|| status.to_string())
    })
}

/// The link of each machine, once both are direct.
fn direct(a: &Machine, b: &Machine) -> (String, String) {
    (remote_of(a), remote_of(b))
}

/// What a relay sees is the gate, with the port that the machine listens on; the peer is told, and IPv4 over a door for
/// both families is IPv4.
// Proves: LK-51
#[test]
fn observed_addr_is_that_of_the_gate_and_the_listening_port() {
    let Some(net) = Net::new(Gate::Open, Gate::TranslatingSilently) else { return };
    let (a, b) = machines(&net);
    let (_vps, _relay, address) = relay(&net);
    let (_node_a, _node_b) = met_over(&address, &a, &b);
    assert_eq!(seen(&a), "192.0.2.66:7443");
    assert_eq!(seen(&b), "203.0.113.2:7443");
    agree(&a, &b);
}

/// The ticket comes from behind the gate, so the two meet over the relay; then the one behind the gate dials the open one,
/// while a transfer goes on.
// Proves: LK-35, LK-53
#[test]
fn one_side_behind_a_gate_is_met_over_a_relay_and_dials_back() {
    let Some(net) = Net::new(Gate::TranslatingSilently, Gate::Open) else { return };
    let (a, b) = machines(&net);
    let (_vps, _relay, address) = relay(&net);
    let (_node_a, mut node_b) = met_over(&address, &a, &b);
    // The next session begins over the relay as well: the gate lets in nothing, and B is not known to be open at once.
    node_b.stop();
    net.slow(Side::B, "40mbit");
    write(&a.notes(), "film.bin", Dice::new(53).bytes(6 * 1024 * 1024));
    a.recorded();
    let _node_b = b.up(&["--relay", &address]);
    let (from_a, from_b) = direct(&a, &b);
    agree(&a, &b);
    assert!(from_b.starts_with("198.51.100.2:"), "B sees the gate of A: {from_b}");
    assert!(from_a.contains(":7443"), "A dialled the door of B: {from_a}");
    write(&b.notes(), "answer.md", "straight\n");
    agree(&a, &b);
}

/// Both behind gates that keep ports: a direct path through both. Rounds in the default: one of each kind.
// Proves: LK-54
#[test]
fn punch_through_two_gates_that_keep_ports() {
    for gate in [Gate::TranslatingSilently, Gate::TranslatingWithResets] {
        // Without delay on the wire the two first packets rarely cross, so resets may win the race: best effort.
        let least = if gate == Gate::TranslatingSilently { 19 } else { 0 };
        punch_rounds(gate, 0, least);
    }
}

/// Gates that answer by resets, far apart: the packets of both are under way at once, so neither meets a gate that knows nothing of it.
// Proves: LK-54
#[test]
fn punch_through_two_gates_that_reset_far_apart() {
    punch_rounds(Gate::TranslatingWithResets, 10, 15);
}

/// Meets over a relay and looks for a direct path; of 20 rounds so many must find one.
fn punch_rounds(gate: Gate, delay_ms: u32, least: u64) {
    let rounds = scale().min(20);
    let (mut direct_ones, mut soon) = (0, 0);
    for round in 0..rounds {
        let Some(net) = Net::apart(gate, gate, delay_ms) else { return };
        let (a, b) = machines(&net);
        let (_vps, _relay, address) = relay(&net);
        let (_node_a, _node_b) = met_over(&address, &a, &b);
        let patience = std::time::Duration::from_secs(if least > 0 { 90 } else { 30 });
        let began = std::time::Instant::now();
        let both = reached_directly(&a, &b, patience);
        direct_ones += u64::from(both);
        soon += u64::from(both && began.elapsed() <= std::time::Duration::from_secs(6));
        println!(
            "netns: punch {gate:?}, {delay_ms} ms, round {round}: {}, {:?}",
            if both { "direct" } else { "relay" },
            began.elapsed()
        );
        write(&b.notes(), "answer.md", "through both gates\n");
        agree(&a, &b);
        if both {
            assert_eq!(remote_of(&a), "203.0.113.2:7443");
            assert_eq!(remote_of(&b), "198.51.100.2:7443");
        }
    }
    println!("netns: punch {gate:?}, {delay_ms} ms: {direct_ones} of {rounds} direct, {soon} within 6 s");
    assert!(direct_ones * 20 >= rounds * least, "{direct_ones} of {rounds}");
}

/// Whether both ends have a direct path before patience ends.
fn reached_directly(a: &Machine, b: &Machine, patience: std::time::Duration) -> bool {
    let started = std::time::Instant::now();
    while started.elapsed() < patience {
        if [a, b].iter().all(|machine| machine.ok(&["status"])["links"][0]["path"] == "direct") {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    println!("netns: {}\n{}", a.told(), b.told());
    false
}

/// Gates that give every destination another port: three attempts, then the relay stays, and carries on.
// Proves: LK-55
#[test]
fn punch_through_gates_with_random_ports_stays_on_the_relay() {
    let gate = Gate::TranslatingAtRandom;
    let Some(net) = Net::new(gate, gate) else { return };
    let (a, b) = machines(&net);
    let (_vps, _relay, address) = relay(&net);
    let (_node_a, _node_b) = met_over(&address, &a, &b);
    let mut round = 0;
    until("the attempts are over", || {
        // Traffic goes on all the while.
        round += 1;
        write(&a.notes(), "plan.md", format!("the plan, round {round}\n"));
        let status = b.ok(&["status"]);
        let link = &status["links"][0];
        assert_ne!(link["path"], "direct", "{link}");
        if link["punches"] == 3 && link["why_not_direct"] == "nat" { Ok(()) } else { Err(status.to_string()) }
    });
    agree(&a, &b);
    // Another dial of the addresses has failed by the time that this is said, and no attempt was added.
    for machine in [&a, &b] {
        until("why not", || {
            let link = machine.ok(&["status"])["links"][0].clone();
            assert_eq!((&link["path"], &link["punches"]), (&"relay".into(), &3.into()), "{link}");
            if link["why_not_direct"] == "nat" { Ok(()) } else { Err(link.to_string()) }
        });
    }
}
