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

/// A transfer goes on after each of them. What it takes until then is the matter of sessions over several paths.
#[test]
fn transfers_survive_what_happens_to_the_wire() {
    let Some(net) = Net::new(Gate::Open, Gate::Translating) else { return };
    let (a, b) = machines(&net);
    let (_node_a, _node_b) = joined(&a, &b);
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
        agree(&a, &b);
        println!("netns: {} of {bytes} bytes: {} mended, both trees equal", fault.name, net.received(Side::B) - before);
    }
    for machine in [&a, &b] {
        machine.in_step();
        machine.ok(&["verify"]);
    }
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
