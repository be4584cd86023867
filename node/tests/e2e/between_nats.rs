//! A folder moves between two machines behind translators while its path is switched and cut. Skipped, with a line that
//! says so, where tests may not make namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::scale;
use crate::support::{Dice, Gate, Machine, Net, PATIENCE, Running, Side, agree, until, until_within, write};

/// Where the relay is met from both sides, and where gate A passes a port on to machine A, when it does.
const RELAY: &str = "198.51.100.1:443";
const DOOR: &str = "198.51.100.2:7443";
/// What gate A does to pass the port on, and to stop it. A gate that forgets a connection takes it up again with the
/// next frame from within, so this is refused too.
const OPEN: &str = "iptables -t nat -A PREROUTING -i outside -p tcp --dport 7443 -j DNAT --to 10.1.0.2:7443 \
    && iptables -I FORWARD -i outside -p tcp --dport 7443 -j ACCEPT \
    && iptables -D FORWARD -p tcp --sport 7443 -j REJECT --reject-with tcp-reset || true";
const SHUT: &str = "iptables -t nat -F PREROUTING && iptables -D FORWARD -i outside -p tcp --dport 7443 -j ACCEPT \
    && iptables -I FORWARD -p tcp --sport 7443 -j REJECT --reject-with tcp-reset && conntrack -F 2>/dev/null";

/// One thing that happens in the middle of the transfer, and where the session is to be found after it.
struct Turn {
    name: &'static str,
    side: Side,
    line: &'static str,
    /// Undoes it once the transfer stands still; empty when it lasts.
    mend: &'static str,
    then: &'static str,
}

const TURNS: [Turn; 10] = [
    Turn { name: "the port is passed on", side: Side::A, line: OPEN, mend: "", then: "direct" },
    Turn { name: "the port is shut", side: Side::A, line: SHUT, mend: "", then: "relay" },
    Turn {
        name: "the relay is cut",
        side: Side::B,
        line: "iptables -I FORWARD -p tcp --dport 443 -j REJECT --reject-with tcp-reset",
        mend: "iptables -D FORWARD -p tcp --dport 443 -j REJECT --reject-with tcp-reset",
        then: "relay",
    },
    Turn { name: "the port is passed on again", side: Side::A, line: OPEN, mend: "", then: "direct" },
    Turn {
        name: "the direct path becomes a black hole",
        side: Side::B,
        line: "iptables -I FORWARD -p tcp --dport 7443 -j DROP && iptables -I FORWARD -i outside -p tcp --sport 7443 -j DROP",
        mend: "",
        then: "relay",
    },
    Turn {
        name: "the black hole is gone",
        side: Side::B,
        line: "iptables -D FORWARD -p tcp --dport 7443 -j DROP && iptables -D FORWARD -i outside -p tcp --sport 7443 -j DROP",
        mend: "",
        then: "direct",
    },
    Turn {
        name: "the cable is pulled",
        side: Side::B,
        line: "ip link set outside down",
        mend: "ip link set outside up && ip route add default via 203.0.113.1",
        then: "direct",
    },
    Turn {
        name: "the gate forgets its connections",
        side: Side::B,
        line: "conntrack -F 2>/dev/null",
        mend: "",
        then: "direct",
    },
    Turn {
        name: "everything is reset",
        side: Side::B,
        line: "iptables -I FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        mend: "iptables -D FORWARD -p tcp -j REJECT --reject-with tcp-reset",
        then: "direct",
    },
    Turn { name: "the port is shut for good", side: Side::A, line: SHUT, mend: "", then: "relay" },
];

/// The path of the only link of a machine; empty while there is none.
fn path_of(machine: &Machine) -> String {
    machine.ok(&["status"])["links"][0]["path"].as_str().unwrap_or_default().to_owned()
}

/// The figures of the link of a node, by name without `sealtide_link_` and `_total`.
fn figures(net: &Net, side: Side, node: &Running) -> BTreeMap<String, u64> {
    let door = node.gateway().strip_prefix("http://").unwrap().replace(':', "/");
    let host = door.replace('/', ":");
    let get = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let line = format!("bash -c 'exec 3<>/dev/tcp/{door}; printf \"{get}\" >&3; cat <&3'");
    let answer = net.at_machine(side, &line);
    let mut figures = BTreeMap::new();
    for line in answer.lines().filter_map(|line| line.strip_prefix("sealtide_link_")) {
        let (name, value) = line.split_once(' ').unwrap();
        figures.insert(name.trim_end_matches("_total").to_owned(), value.trim().parse().unwrap());
    }
    assert!(figures.len() > 20, "{answer}");
    figures
}

/// 100 MiB and ten turns at scale 1, 1 GiB and fifty turns at scale 10. No session ends, no frame is lost or doubled:
/// what one end has numbered the other end has taken in, each once and in order.
// Proves: LK-36, LK-37, LK-42, LK-43
#[test]
fn a_folder_moves_while_its_path_is_switched_and_cut() {
    let Some(net) = Net::new(Gate::Translating, Gate::Translating) else { return };
    let (a, b) = (Machine::within(net.machine(Side::A)), Machine::within(net.machine(Side::B)));
    let vps = Machine::within(net.internet());
    let id = a.ok(&["init"])["node"].as_str().unwrap().to_owned();
    let url = format!("wss://{RELAY}");
    let relay = vps.serve(&["relay", "run", "--listen", "0.0.0.0:443", "--url", &url, "--allow", &id]);
    let address = relay.ready()["relay"].as_str().unwrap().to_owned();

    let announce = [("SEALTIDE_LINK_ANNOUNCE", DOOR)];
    write(&a.notes(), "plan.md", "the plan\n");
    let mut node_a = a.up_in(&announce, &[a.notes_text(), "--relay", &address]);
    let joined = b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    // Both start again, so that what they count begins with the same session.
    node_a.stop();
    let node_a = a.up_in(&announce, &["--relay", &address]);
    let node_b = b.up(&[]);
    until("connected over the relay", || match path_of(&b).as_str() {
        "relay" => Ok(()),
        _ => Err(format!("{}\n{}", a.told(), b.told())),
    });

    let turns = if scale() < 10 { 10 } else { 50 };
    let megabytes = if scale() < 10 { 100 * scale() } else { 1024 };
    net.slow(Side::B, "40mbit");
    let mut dice = Dice::new(40);
    let started = net.received(Side::B);
    for number in 0..turns {
        let turn = &TURNS[usize::try_from(number % 10).unwrap()];
        let before = net.received(Side::B);
        for film in 0..megabytes.div_ceil(turns) / 2 {
            write(&a.notes(), &format!("films/{number}-{film}.bin"), dice.bytes(2 * 1024 * 1024));
        }
        until("the transfer runs", || {
            let moved = net.received(Side::B) - before;
            if moved > 1024 * 1024 { Ok(()) } else { Err(format!("{}: {moved} bytes\n{}", turn.name, b.told())) }
        });
        net.at_gate(turn.side, turn.line);
        write(&b.notes(), &format!("notes/{number}.md"), format!("{}\n", turn.name));
        if !turn.mend.is_empty() {
            stands_still(&net);
            net.at_gate(turn.side, turn.mend);
        }
        until(turn.name, || match (path_of(&a), path_of(&b)) {
            (near, far) if near == turn.then && far == turn.then => Ok(()),
            paths => Err(format!("{paths:?}, not {}\n{}\n{}", turn.then, a.told(), b.told())),
        });
        let moved = (net.received(Side::B) - started) >> 20;
        println!("after {moved} MiB: {}, now {}", turn.name, turn.then);
    }
    // The turns do not wait for what they interrupt, and the line takes a second for 5 MB.
    let films = |machine: &Machine| fs::read_dir(machine.notes().join("films")).map_or(0, Iterator::count);
    until_within(PATIENCE + Duration::from_secs(megabytes), "the rest has come", || match (films(&a), films(&b)) {
        (sent, come) if sent == come => Ok(()),
        (sent, come) => Err(format!("{come} of {sent} files\n{}\n{}", a.told(), b.told())),
    });
    agree(&a, &b);
    for machine in [&a, &b] {
        machine.in_step();
        machine.ok(&["verify"]);
    }
    let (near, far) = until("both have taken in what the other has numbered", || {
        let (near, far) = (figures(&net, Side::A, &node_a), figures(&net, Side::B, &node_b));
        let arrived =
            near["frames_numbered"] == far["frames_delivered"] && far["frames_numbered"] == near["frames_delivered"];
        if arrived { Ok((near, far)) } else { Err(format!("{near:?}\n{far:?}")) }
    });
    for name in [
        "frames_numbered",
        "frames_delivered",
        "frames_retransmitted",
        "frames_duplicate",
        "path_switches",
        "suspensions",
    ] {
        println!("{name}: {} and {}", near[name], far[name]);
    }
    for figures in [&near, &far] {
        assert_eq!(
            (figures["sessions"], figures["sessions_lost"], figures["sessions_replaced"]),
            (1, 0, 0),
            "{figures:?}"
        );
    }
    assert_eq!(
        near["handshakes_dialled"] + far["handshakes_dialled"],
        1,
        "one session from the first frame to the last"
    );
    // Cuts of a gate end in frames that were under way, and those are sent again.
    assert!(near["frames_retransmitted"] > 0 && near["path_switches"] >= turns / 2, "{near:?}");
}

/// Waits until nothing of the transfer arrives at B any more.
fn stands_still(net: &Net) {
    let mut last = 0;
    until_within(Duration::from_secs(60), "the transfer stands still", || {
        let now = net.received(Side::B);
        let moved = now - std::mem::replace(&mut last, now);
        if moved < 4096 { Ok(()) } else { Err(format!("{moved} bytes")) }
    });
}
