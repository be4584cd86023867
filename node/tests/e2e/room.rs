//! How much room is taken: quotas of what peers bring, and what nobody needs any more.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::support::{Machine, Running, until, write};

/// Bytes that no compression makes smaller.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next()).take(bytes).collect()
}

/// Bytes that the packs of a machine take on the disk.
fn pack_bytes(machine: &Machine) -> u64 {
    let packs = std::fs::read_dir(machine.home().join("store/packs")).unwrap().map(Result::unwrap);
    packs.map(|pack| pack.metadata().unwrap().blocks() * 512).sum()
}

fn space<'a>(status: &'a Value, name: &str) -> &'a Value {
    let spaces = status["spaces"].as_array().unwrap();
    spaces.iter().find(|space| space["name"] == name).unwrap_or_else(|| panic!("no {name} in {status}"))
}

/// A machine that shares `Notes` with 3 MiB of noise in it, and `Small` with one line.
fn sharing() -> (Machine, Running, [String; 2]) {
    let a = Machine::new();
    write(&a.notes(), "large.bin", noise(1, 3 << 20));
    let small = a.root().join("Small");
    write(&small, "plan.md", "plan\n");
    let node = a.up(&[a.notes_text(), small.to_str().unwrap()]);
    let tickets = ["Notes", "Small"].map(|name| node.ready()["tickets"][name].as_str().unwrap().to_owned());
    (a, node, tickets)
}

/// What does not fit is refused whole, and everything else goes on; with room it comes.
// Proves: SY-68
#[test]
fn what_a_quota_does_not_allow_is_refused_whole() {
    for (setting, word) in [("saga", "one saga"), ("peer", "waits from one peer"), ("space", "the space would be")] {
        let (a, _node_a, [large, small]) = sharing();
        let b = Machine::new();
        b.ok(&["init"]);
        let key = format!("quota.{setting}");
        b.ok(&["config", "set", &key, "2MiB"]);
        let node_b = b.up(&[]);
        let folder = b.root().join("B");
        let refused = b.fails(&["join", &large, b.notes_text(), "--wait"], 1, "limit");
        let message = refused["message"].as_str().unwrap();
        for part in ["space Notes", word, "2097152", key.as_str(), "config set"] {
            assert!(message.contains(part), "{setting}: {message}");
        }
        // Nothing of it is here: no record, no file.
        let status = b.ok(&["status"]);
        assert_eq!(space(&status, "Notes")["items"], 0, "{status}");
        assert_eq!(std::fs::read_dir(b.notes()).unwrap().count(), 0);
        assert_eq!(status["quota"][setting], json!(2 << 20), "{status}");
        let told = space(&status, "Notes")["peers"][0]["error"].as_str().unwrap_or_default().to_owned();
        assert!(told.contains(&key), "{status}");
        let listed = b.ok(&["spaces", "list"]);
        let bytes_max = if setting == "space" { 2 << 20 } else { 1u64 << 40 };
        assert_eq!(space(&listed, "Notes")["bytes_max"], json!(bytes_max), "{listed}");
        // Another saga of the same peer goes on.
        std::fs::create_dir(&folder).unwrap();
        b.ok(&["join", &small, folder.to_str().unwrap(), "--wait"]);
        assert_eq!(std::fs::read_to_string(folder.join("plan.md")).unwrap(), "plan\n");
        drop(node_b);
        b.ok(&["config", "set", &key, "1GiB"]);
        b.ok(&["join", &large, b.notes_text(), "--wait"]);
        let arrived = std::fs::read(b.notes().join("large.bin")).unwrap();
        assert!(arrived == noise(1, 3 << 20), "{setting}: it comes whole when there is room");
        let status = b.ok(&["status"]);
        let bytes = space(&status, "Notes")["bytes"].as_u64().unwrap();
        assert!((3 << 20..4 << 20).contains(&bytes), "the chunks of a space count: {bytes}");
        b.ok(&["verify"]);
        a.ok(&["verify"]);
    }
}

/// A binary in two spaces is stored once; its room comes back when both are gone.
// Proves: SY-67
#[test]
fn the_room_of_removed_spaces_comes_back() {
    let machine = Machine::new();
    let other = machine.root().join("Other");
    write(&machine.notes(), "large.bin", noise(2, 6 << 20));
    write(&other, "same.bin", noise(2, 6 << 20));
    write(&other, "more.bin", noise(3, 4 << 20));
    let mut node = machine.up(&[machine.notes_text(), other.to_str().unwrap()]);
    until("all is recorded", || {
        let status = machine.ok(&["status"]);
        let files = ["Notes", "Other"].map(|name| space(&status, name)["files"].clone());
        if files == [json!(1), json!(2)] { Ok(()) } else { Err(status.to_string()) }
    });
    let bytes = pack_bytes(&machine);
    assert!((10 << 20..13 << 20).contains(&bytes), "6 + 4 MiB once: {bytes}");
    assert_eq!(machine.ok(&["gc"])["chunks"], 0, "all of it is needed");
    machine.ok(&["spaces", "remove", "Other"]);
    let would = machine.ok(&["gc", "--dry-run"]);
    assert_eq!((&would["dry_run"], &would["bytes"]), (&json!(true), &json!(4 << 20)), "what Notes has too stays");
    let freed = machine.ok(&["gc"]);
    assert_eq!((&freed["dry_run"], &freed["bytes"]), (&json!(false), &json!(4 << 20)));
    let left = pack_bytes(&machine);
    assert!(left + (3 << 20) < bytes, "{left} of {bytes}");
    machine.ok(&["verify"]);
    node.stop();
    // Without a node, and the text for people.
    machine.ok(&["spaces", "remove", "Notes"]);
    let text = machine.plain(&["gc", "--dry-run"]).stdout;
    assert!(text.starts_with("would free ") && text.contains("6.00 MiB"), "{text}");
    // A node does it by itself when it starts.
    let _node = machine.up(&[]);
    until("the room is back", || {
        let bytes = pack_bytes(&machine);
        if bytes < 4 << 20 { Ok(()) } else { Err(format!("{bytes} bytes\n{}", machine.told())) }
    });
    machine.ok(&["verify"]);
    assert_eq!(std::fs::read(machine.notes().join("large.bin")).unwrap().len(), 6 << 20, "the folder stays");
}

/// Every file below `dir` that holds these bytes.
fn holding(dir: &std::path::Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&entry.path(), bytes));
        } else if kind.is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            found.extend(content.windows(bytes.len()).any(|some| some == bytes).then(|| entry.path()));
        }
    }
    found
}

/// A small note is inside its record: removed, it is in no file of the home; a copy in another space stays whole.
// Proves: SY-67
#[test]
fn what_a_removed_space_said_is_in_no_file_of_the_home() {
    let machine = Machine::new();
    let other = machine.root().join("Other");
    let (secret, shared) = ("the word is xylographoriol", "both know zinziberaceous");
    write(&machine.notes(), "shared.md", shared);
    write(&other, "shared.md", shared);
    write(&other, "secret.md", secret);
    let mut node = machine.up(&[machine.notes_text(), other.to_str().unwrap()]);
    until("all is recorded", || {
        let status = machine.ok(&["status"]);
        let files = ["Notes", "Other"].map(|name| space(&status, name)["files"].clone());
        if files == [json!(1), json!(2)] { Ok(()) } else { Err(status.to_string()) }
    });
    let home = machine.home();
    assert!(!holding(&home, secret.as_bytes()).is_empty(), "it is inline and plain");
    assert_eq!(machine.ok(&["gc"])["records"], 0, "all of it is in a space");
    machine.ok(&["spaces", "remove", "Other"]);
    let would = machine.ok(&["gc", "--dry-run"]);
    assert!(would["records"].as_u64().unwrap() > 0 && !holding(&home, secret.as_bytes()).is_empty(), "{would}");
    let text = machine.plain(&["gc", "--dry-run"]).stdout;
    assert!(text.contains(" records that no space has any more"), "{text}");
    let done = machine.ok(&["gc"]);
    assert_eq!((&done["records"], &done["record_bytes"]), (&would["records"], &would["record_bytes"]));
    assert_eq!(holding(&home, secret.as_bytes()), Vec::<std::path::PathBuf>::new());
    assert_eq!(machine.ok(&["get", "Notes:shared.md"])["text"], shared);
    machine.ok(&["verify"]);
    assert_eq!(machine.ok(&["gc"])["records"], 0, "once");
    node.stop();
    assert_eq!(holding(&home, secret.as_bytes()), Vec::<std::path::PathBuf>::new(), "nor does the end bring it back");
    machine.ok(&["verify"]);
    assert_eq!(std::fs::read(other.join("secret.md")).unwrap(), secret.as_bytes(), "the folder stays");
}

/// A join that ends early has noted its directory: with what it lacked the next start goes on, and fills it.
#[test]
fn a_join_that_was_refused_goes_on_at_the_next_start() {
    let (_a, _node_a, [large, _]) = sharing();
    let b = Machine::new();
    b.ok(&["init"]);
    b.ok(&["config", "set", "quota.saga", "2MiB"]);
    b.fails(&["join", &large, b.notes_text(), "--wait"], 1, "limit");
    assert_eq!(space(&b.ok(&["status"]), "Notes")["dir"], b.notes_text());
    b.ok(&["config", "set", "quota.saga", "1GiB"]);
    let _node = b.up(&[]);
    until("the directory is filled", || match std::fs::read(b.notes().join("large.bin")) {
        Ok(found) if found == noise(1, 3 << 20) => Ok(()),
        found => Err(format!("{:?}", found.map(|bytes| bytes.len()))),
    });
}
