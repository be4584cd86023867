//! Another device of the same owner, with the real binary: let in by one ticket, beside the first one, made of a backup or new.

use serde_json::{Value, json};

use crate::support::{Machine, agree, until, write};

/// A second machine, restored from what the first one backs up.
fn second_device(machine: &Machine) -> (Machine, Value) {
    let file = machine.root().join("home.backup");
    machine.ok(&["backup", "create", file.to_str().unwrap()]);
    let device = Machine::new();
    let made = device.ok(&["backup", "restore", file.to_str().unwrap(), "--as-new-device"]);
    (device, made)
}

fn device_ticket(machine: &Machine) -> String {
    machine.ok(&["ticket", "new", "--device"])["ticket"].as_str().unwrap().to_owned()
}

/// A machine with an owner.
fn owned() -> Machine {
    let machine = Machine::new();
    let words = machine.root().join("words");
    machine.ok(&["init", "--recovery-out", words.to_str().unwrap()]);
    machine
}

/// Waits until the owner speaks through the device, and the first machine knows.
#[track_caller]
fn until_speaks_for(device: &Machine, first: &Machine, owner: &Value) {
    until("the owner speaks through the device", || {
        let (own, seen) = (device.ok(&["identity", "show"]), first.ok(&["identity", "show"]));
        let peers = seen["peers"].as_array().unwrap();
        let speaks = peers.iter().any(|peer| peer["node"] == own["node"] && peer["speaks_for_owner"] == true);
        if speaks && own["speaks_for"] == *owner { Ok(()) } else { Err(format!("{own}\n{seen}\n{}", device.told())) }
    });
}

/// The second laptop: out of a backup, let in with one ticket, edits go both ways, each signed by its own key.
#[test]
fn one_ticket_lets_a_backup_in_as_a_device_of_the_owner() {
    let a = owned();
    for at in 0..5 {
        write(&a.notes(), &format!("note {at}"), format!("text {at}"));
    }
    let node_a = a.share();
    a.recorded();
    a.ok(&["spaces", "create", "docs"]);
    let (b, made) = second_device(&a);
    let owner = a.ok(&["identity", "show"])["owner"]["keystone"].clone();
    write(&a.notes(), "later", "later");
    a.recorded();
    let joined = b.ok(&["join", "--device", &device_ticket(&a)]);
    assert_eq!((&joined["spaces"], &joined["role"]), (&json!(["Notes", "docs"]), &json!("admin")), "{joined}");
    b.ok(&["spaces", "folder", "Notes", b.notes_text()]);
    let node_b = b.up(&[]);
    let both = agree(&a, &b);
    assert!(both.0.contains_key("later") && both.0.contains_key("note 0"));
    until_speaks_for(&b, &a, &owner);
    write(&a.notes(), "by a", "by a");
    write(&b.notes(), "by b", "by b");
    let both = agree(&a, &b);
    assert!(both.0.contains_key("by a") && both.0.contains_key("by b"));
    until("the second device's edit is proven at the first", || {
        let log = a.ok(&["log", "Notes:by b"]);
        if log["entries"][0]["verified_by"] == made["node"] { Ok(()) } else { Err(log.to_string()) }
    });
    // Both are who they were after a restart, and go on.
    drop((node_a, node_b));
    let (_a, _b) = (a.up(&[]), b.up(&[]));
    write(&b.notes(), "again", "again");
    assert!(agree(&a, &b).0.contains_key("again"));
    for machine in [&a, &b] {
        assert_eq!(machine.ok(&["identity", "show"])["signing"], "ready");
        machine.ok(&["verify"]);
        machine.ok(&["audit", "verify"]);
    }
    // What the owner takes back ends it.
    let device = made["node"].as_str().unwrap();
    a.ok(&["identity", "undelegate", device]);
    until("the owner does not speak through the device any more", || {
        let seen = a.ok(&["identity", "show"]);
        let speaks = |peer: &Value| peer["node"] == made["node"] && peer["speaks_for_owner"] == true;
        if seen["peers"].as_array().unwrap().iter().any(speaks) { Err(seen.to_string()) } else { Ok(()) }
    });
}

/// One ticket lets a device into every space that this node administers, once; a home that is new gets them all too.
#[test]
fn a_ticket_for_a_device_opens_every_space_once() {
    let a = Machine::new();
    write(&a.notes(), "plan.md", "plan\n");
    let _node = a.share();
    a.ok(&["spaces", "create", "docs"]);
    let ticket = a.ok(&["ticket", "new", "--device"]);
    assert_eq!((&ticket["spaces"], &ticket["device"]), (&json!(["Notes", "docs"]), &json!(true)));
    assert_eq!(a.run(&["ticket", "new", "--device", "--space", "docs"]).code, 2);
    let text = a.plain(&["ticket", "new", "--device"]).stdout;
    assert!(text.contains("for a device of yours, into Notes, docs"), "{text}");
    assert!(a.ok(&["ticket", "list"])["tickets"].as_array().unwrap().iter().any(|row| row["device"] == true));
    let ticket = ticket["ticket"].as_str().unwrap();
    let b = Machine::new();
    // Nobody becomes the device of another by a ticket that looks like any.
    b.fails(&["join", ticket], 2, "device_ticket");
    b.fails(&["join", "--device", ticket, b.notes_text()], 2, "several_spaces");
    // The same node again, as it was told.
    let joined = b.ok(&["join", "--device", ticket]);
    assert_eq!(joined["spaces"].as_array().map(Vec::len), Some(2), "{joined}");
    b.ok(&["spaces", "folder", "Notes", b.notes_text()]);
    let _node_b = b.up(&[]);
    write(&b.notes(), "more.md", "more\n");
    agree(&a, &b);
    let names = b.ok(&["spaces", "list"]);
    let roles: Vec<&Value> = names["spaces"].as_array().unwrap().iter().map(|space| &space["role"]).collect();
    assert_eq!(roles, ["admin", "admin"], "{names}");
    // Nobody has an owner here, and so nobody speaks for one.
    assert_eq!(b.ok(&["identity", "show"])["speaks_for"], Value::Null);
    Machine::new().fails(&["join", "--device", ticket], 6, "refused");
}

/// Who reads a ticket for one space gets that one, whatever else the issuer lets it into.
#[test]
fn a_plain_ticket_lets_into_its_space_alone() {
    let a = Machine::new();
    write(&a.notes(), "plan.md", "plan\n");
    let _node = a.share();
    a.ok(&["spaces", "create", "docs"]);
    let b = Machine::new();
    let ticket = |space: &str| a.ok(&["ticket", "new", "--space", space])["ticket"].as_str().unwrap().to_owned();
    b.fails(&["join", "--device", &ticket("docs")], 2, "not_for_a_device");
    assert_eq!(b.ok(&["join", &ticket("docs")])["spaces"], json!(["docs"]));
    assert_eq!(b.ok(&["join", &ticket("Notes"), b.notes_text()])["spaces"], json!(["Notes"]));
    assert_eq!(b.ok(&["spaces", "list"])["spaces"].as_array().map(Vec::len), Some(2));
}
