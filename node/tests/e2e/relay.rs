//! Nodes that meet at a relay: three processes, no node reaches another one directly.

use std::fs;

use serde_json::Value;

use crate::support::{Machine, Running, agree, until, write};

/// Paths over relays only: nothing direct is tried.
const RELAYED: [(&str, &str); 1] = [("SEALTIDE_LINK_POLICY", "relay-only")];

fn id_of(machine: &Machine) -> String {
    machine.ok(&["init"])["node"].as_str().unwrap().to_owned()
}

/// A relay that lets in `machine`, and its address.
fn relay(at: &Machine, machine: &Machine) -> (Running, String) {
    let running = at.serve(&["relay", "run", "--listen", "127.0.0.1:0", "--allow", &id_of(machine)]);
    let address = running.ready()["relay"].as_str().unwrap().to_owned();
    (running, address)
}

fn path_of(machine: &Machine) -> Value {
    machine.ok(&["status"])["links"][0]["path"].clone()
}

/// What lets nodes into a relay stays the same, whatever becomes of the passphrase of its home, and is in a backup of it.
#[test]
fn the_token_of_a_relay_goes_with_its_home() {
    let vps = Machine::new();
    let said = vps.root().join("said");
    fs::write(&said, "correct horse battery\n").unwrap();
    let sealed = [("SEALTIDE_IDENTITY_PASSPHRASE_FILE", said.to_str().unwrap())];
    let words = ["relay", "run", "--listen", "127.0.0.1:0", "--url", "wss://relay.example", "--admit", "token"];
    let address = || vps.serve_in(&sealed, &words).ready()["relay"].as_str().unwrap().to_owned();
    let first = address();
    let token = fs::read(vps.home().join("relay.token")).unwrap();
    assert_eq!(vps.run_with(&["identity", "passphrase"], "correct horse battery\n").code, 0);
    let lies_open = || fs::read(vps.home().join("relay.token")).unwrap() == token;
    assert!(!lies_open(), "it is sealed at once");
    assert_eq!(address(), first);
    assert_eq!(vps.run_in(&sealed, &["identity", "passphrase", "--remove"]).code, 0);
    assert!(lies_open());
    assert_eq!(address(), first);

    let (file, place, other) = (vps.root().join("backup"), vps.root().join("restored"), vps.root().join("other"));
    let file = file.to_str().unwrap();
    vps.ok(&["backup", "create", file]);
    assert_eq!(vps.run_at(&place, &["backup", "restore", file]).code, 0);
    assert_eq!(fs::read(place.join("relay.token")).unwrap(), token);
    assert_eq!(vps.run_at(&other, &["backup", "restore", file, "--as-new-device"]).code, 0);
    assert!(!other.join("relay.token").exists(), "another machine is another relay");
    // What cannot be read is named.
    fs::write(vps.home().join("relay.token"), "sealtide sealed 1\n00\n").unwrap();
    let failed = vps.run(&words);
    assert!(failed.code == 1 && failed.document()["error"]["message"].as_str().unwrap().contains("relay.token"));
}

/// A folder is kept in step over a relay that lets in the first node only; the ticket brings the second one in. What they
/// write is nowhere in the memory of the relay.
// Proves: LK-20, LK-108
#[test]
fn a_folder_over_a_relay_that_reads_nothing() {
    let (vps, office, home) = (Machine::new(), Machine::new(), Machine::new());
    let (relay, address) = relay(&vps, &office);
    let marker = "MARKER-of-the-office-7261";
    write(&office.notes(), "plan.md", format!("{marker}\n"));
    let node = office.up_in(&RELAYED, &[office.notes_text(), "--relay", &address]);
    let joined = home.run_in(&RELAYED, &["join", node.ticket(), home.notes_text(), "--wait"]);
    assert_eq!(joined.code, 0, "{} {}", joined.stdout, joined.stderr);
    assert_eq!(fs::read_to_string(home.notes().join("plan.md")).unwrap(), format!("{marker}\n"));

    let _node = home.up_in(&RELAYED, &[]);
    until("both are connected over the relay", || {
        let paths = (path_of(&office), path_of(&home));
        if paths == ("relay".into(), "relay".into()) { Ok(()) } else { Err(format!("{paths:?}")) }
    });
    write(&home.notes(), "answer.md", format!("{marker} too\n"));
    until("the answer", || fs::read_to_string(office.notes().join("answer.md")).map_err(|error| error.to_string()));
    agree(&office, &home);
    let memory = relay.memory_bytes();
    assert!(memory.len() > 100_000, "the memory of the relay was read");
    let found = memory.windows(marker.len()).any(|window| window == marker.as_bytes());
    assert!(!found, "the relay holds what the nodes wrote");
}
