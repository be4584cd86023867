//! A whole home in one file, with the real binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Machine, Pair, agree, until, write};

fn create(machine: &Machine, name: &str) -> PathBuf {
    let file = machine.root().join(name);
    let made = machine.ok(&["backup", "create", file.to_str().unwrap()]);
    assert_eq!(made["bytes"].as_u64().unwrap(), fs::metadata(&file).unwrap().len());
    file
}

/// What is left beside a home or a backup after something failed.
fn unfinished(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains("restoring") || name.contains("unfinished")).collect()
}

#[test]
fn a_backup_of_a_running_node_is_that_node_again() {
    let machine = Machine::new();
    let words = machine.root().join("words");
    machine.ok(&["init", "--recovery-out", words.to_str().unwrap()]);
    for at in 0..20 {
        write(&machine.notes(), &format!("note {at}"), format!("text {at}"));
    }
    write(&machine.notes(), "big", "0123456789abcdef".repeat(200_000));
    let node = machine.share();
    machine.recorded();
    let before = machine.ok(&["identity", "show"]);
    let space = machine.space()["name"].as_str().unwrap().to_owned();
    let file = create(&machine, "home.backup");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    machine.fails(&["backup", "create", file.to_str().unwrap()], 2, "exists");
    // The original goes on.
    write(&machine.notes(), "later", "later");
    machine.recorded();

    let place = machine.root().join("restored");
    let done = machine.run_at(&place, &["backup", "restore", file.to_str().unwrap()]);
    assert_eq!((done.code, &done.document()["node"]), (0, &before["node"]), "{done:?}");
    let again = machine.run_at(&place, &["backup", "restore", file.to_str().unwrap()]);
    assert_eq!((again.code, &again.document()["error"]["code"]), (8, &json!("home_exists")));
    drop(node);
    let at_place = |args: &[&str]| -> Value {
        let done = machine.run_at(&place, args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done.document()
    };
    let shown = at_place(&["identity", "show"]);
    for keystone in ["device", "owner"] {
        assert_eq!(shown[keystone]["keystone"], before[keystone]["keystone"]);
    }
    // It may be an old one: nothing is signed before a peer told otherwise.
    assert_eq!((&shown["signing"], &shown["doubt"]["code"]), (&json!("refused"), &json!("moved")));
    at_place(&["verify"]);
    at_place(&["audit", "verify"]);
    let notes = at_place(&["get", &space]).to_string();
    assert!(notes.contains("note 19") && notes.contains("big") && !notes.contains("later"), "{notes}");
    assert_eq!(unfinished(machine.root()), Vec::<String>::new());
}

#[test]
fn what_is_no_whole_backup_makes_no_home() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let file = create(&machine, "home.backup");
    let bytes = fs::read(&file).unwrap();
    let (odd, place) = (machine.root().join("odd"), machine.root().join("restored"));
    let restore = |bytes: &[u8]| {
        fs::write(&odd, bytes).unwrap();
        let done = machine.run_at(&place, &["backup", "restore", odd.to_str().unwrap()]);
        assert_eq!((done.code, &done.document()["error"]["code"]), (5, &json!("backup_damaged")), "{done:?}");
        assert!(!place.exists());
        assert_eq!(unfinished(machine.root()), Vec::<String>::new());
    };
    for at in [0, 25, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        restore(&changed);
        restore(&bytes[..at]);
    }
    restore(&[&bytes[..], b"more"].concat());
    // Killed before the place is taken: no home, and the next time it is made.
    let words = ["backup", "restore", file.to_str().unwrap()];
    let died = machine.run_at_in(&[("SEALTIDE_FAILPOINT", "restore_whole:1")], &place, &words);
    assert!(died.code < 0 && !place.exists(), "{died:?}");
    let done = machine.run_at(&place, &["backup", "restore", file.to_str().unwrap()]);
    assert!(done.code == 0 && place.join("node.key").is_file(), "{done:?}");
    let died = machine.run_in(
        &[("SEALTIDE_FAILPOINT", "backup_written:1")],
        &["backup", "create", machine.root().join("second").to_str().unwrap()],
    );
    assert!(died.code < 0 && !machine.root().join("second").exists(), "{died:?}");
    create(&machine, "second");
    assert_eq!(unfinished(machine.root()), Vec::<String>::new());
}

/// A stick with vfat or exFAT has no links.
#[test]
fn a_backup_is_made_where_there_are_no_links() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let file = machine.root().join("home.backup");
    let done = machine.run_in(&[("SEALTIDE_FAULT", "hard_link:1")], &["backup", "create", file.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        machine.run_at(&machine.root().join("restored"), &["backup", "restore", file.to_str().unwrap()]).code,
        0
    );
    assert_eq!(unfinished(machine.root()), Vec::<String>::new());
}

#[test]
fn a_sealed_home_makes_a_sealed_backup() {
    let machine = Machine::new();
    let words = machine.root().join("words");
    machine.ok(&["init", "--recovery-out", words.to_str().unwrap()]);
    let (right, wrong) = (machine.root().join("right"), machine.root().join("wrong"));
    fs::write(&right, "four random words here\n").unwrap();
    fs::write(&wrong, "four other words here\n").unwrap();
    assert_eq!(machine.run_with(&["identity", "passphrase"], "four random words here\n").code, 0);
    let with = |passphrase: &Path, home: &Path, args: &[&str]| {
        machine.run_at_in(&[("SEALTIDE_IDENTITY_PASSPHRASE_FILE", passphrase.to_str().unwrap())], home, args)
    };
    let file = machine.root().join("home.backup");
    let file = file.to_str().unwrap();
    let made = with(&right, &machine.home(), &["backup", "create", file]);
    assert_eq!((made.code, &made.document()["sealed"]), (0, &json!(true)), "{made:?}");
    let bytes = fs::read(file).unwrap();
    for secret in ["sealtide identity", "node.key", "store/packs"] {
        assert!(!bytes.windows(secret.len()).any(|found| found == secret.as_bytes()), "{secret} can be read");
    }
    let place = machine.root().join("restored");
    let words = ["backup", "restore", file];
    let refused = with(&wrong, &place, &words);
    assert_eq!((refused.code, &refused.document()["error"]["code"]), (12, &json!("wrong_passphrase")));
    assert!(!place.exists() && unfinished(machine.root()).is_empty());
    let done = with(&right, &place, &words);
    assert_eq!(done.code, 0, "{done:?}");
    let show = |passphrase: &Path| with(passphrase, &place, &["identity", "show"]).code;
    assert_eq!((show(&right), show(&wrong)), (0, 12));
}

/// The machine died. Its home comes back from the backup, asks the peer that saw more, and goes on.
// Proves: SY-77
#[test]
fn a_restored_node_goes_on_with_its_peers() {
    let mut pair = Pair::with(|dir| write(dir, "first", "first"));
    pair.agree();
    let file = create(&pair.a, "home.backup");
    write(&pair.a.notes(), "second", "second");
    pair.agree();
    pair.node_a.stop();
    fs::remove_dir_all(pair.a.home()).unwrap();
    // The machine is a new one: its folders are not there either.
    fs::remove_dir_all(pair.a.notes()).unwrap();
    pair.a.ok(&["backup", "restore", file.to_str().unwrap()]);
    pair.node_a = pair.a.up(&[]);
    until("the folder is filled", || {
        fs::read_to_string(pair.a.notes().join("first")).map_err(|error| error.to_string())
    });
    write(&pair.a.notes(), "third", "third");
    pair.agree();
    until("a peer vouched for the restored node", || {
        let shown = pair.a.ok(&["identity", "show"]);
        if shown["signing"] == "ready" { Ok(()) } else { Err(shown.to_string()) }
    });
}

/// The backup of one machine becomes a second one, beside it: keys of its own, all spaces, and both stay in step.
#[test]
fn a_backup_becomes_another_device_that_runs_beside_the_first() {
    let pair = Pair::with(|dir| {
        write(dir, "first", "first");
        write(dir, "big", "0123456789abcdef".repeat(200_000));
    });
    pair.agree();
    pair.a.ok(&["config", "set", "link.announce", "198.51.100.9:7443"]);
    let own_ticket = pair.a.ok(&["ticket", "new"]);
    let file = create(&pair.a, "home.backup");
    write(&pair.a.notes(), "second", "second");
    pair.agree();
    let first = pair.a.ok(&["identity", "show"]);

    let new = Machine::new();
    let done = new.ok(&["backup", "restore", file.to_str().unwrap(), "--as-new-device"]);
    assert_ne!(done["node"], first["node"]);
    assert_eq!((&done["spaces"][0]["name"], &done["spaces"][1]), (&json!("Notes"), &Value::Null));
    // Nothing of what makes the first one that node: its keys, its audit, its open tickets, its settings.
    let held = |name: &str| new.home().join(name).exists();
    assert!(!["identity.key", "gateway.key", "bearers", "config.toml", "restored"].into_iter().any(held));
    assert!(held("config.toml.of-backup"));
    assert_eq!(fs::read_dir(new.home().join("audit")).unwrap().count(), 0);
    assert_ne!(fs::read(new.home().join("node.key")).unwrap(), fs::read(pair.a.home().join("node.key")).unwrap());
    assert_eq!(new.ok(&["ticket", "list"])["tickets"], json!([]), "{own_ticket}");
    let shown = new.ok(&["identity", "show"]);
    assert_eq!(shown["signing"], "ready");
    assert_ne!(shown["device"]["keystone"], first["device"]["keystone"]);
    // It reads what the backup held before anybody lets it in.
    let notes = new.ok(&["get", "Notes"]).to_string();
    assert!(notes.contains("first") && notes.contains("big") && !notes.contains("second"), "{notes}");
    new.ok(&["verify"]);
    new.ok(&["audit", "verify"]);

    let ticket = pair.a.ok(&["ticket", "new"])["ticket"].as_str().unwrap().to_owned();
    let joined = new.ok(&["join", &ticket, new.notes_text(), "--wait"]);
    assert_eq!(
        (&joined["name"], &joined["role"], &joined["in_step"]),
        (&json!("Notes"), &json!("write"), &json!(true))
    );
    let node = new.up(&[]);
    agree(&pair.a, &new);
    write(&new.notes(), "third", "of the new one");
    write(&pair.a.notes(), "fourth", "of the first one");
    agree(&pair.a, &new);
    agree(&pair.b, &new);
    // Each is one node, and both sign.
    for machine in [&pair.a, &pair.b, &new] {
        machine.ok(&["verify"]);
        assert_eq!(machine.ok(&["identity", "show"])["signing"], "ready");
    }
    drop(node);
}

/// Spaces are made first as a rule, and the owner later: its words give them back all the same.
// Proves: SY-83
#[test]
fn words_give_back_spaces_that_were_made_before_the_owner() {
    let machine = Machine::new();
    write(&machine.notes(), "first", "first");
    let mut node = machine.up(&[machine.notes_text()]);
    machine.ok(&["spaces", "create", "Other"]);
    let words = machine.root().join("words");
    let made = machine.ok(&["identity", "new", "--recovery-out", words.to_str().unwrap()]);
    assert_eq!(made["spaces"], 2);
    let file = create(&machine, "home.backup");
    node.stop();

    let new = Machine::new();
    new.ok(&["backup", "restore", file.to_str().unwrap(), "--as-new-device"]);
    let roles = |machine: &Machine| {
        let shown = machine.ok(&["spaces", "list"]);
        let spaces = shown["spaces"].as_array().unwrap().clone();
        spaces.iter().map(|space| space["role"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(roles(&new), [None, None], "a copy of the data alone gives no rights");
    let done = new.run_with(&["identity", "recover"], &fs::read_to_string(&words).unwrap());
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(roles(&new), ["admin", "admin"].map(|role| Some(role.to_owned())));
    let node = new.up(&[]);
    new.ok(&["ticket", "new", "--space", "Notes"]);
    drop(node);
}

#[test]
fn another_device_out_of_a_sealed_backup_is_sealed_by_the_same_passphrase() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let right = machine.root().join("right");
    fs::write(&right, "four random words here\n").unwrap();
    assert_eq!(machine.run_with(&["identity", "passphrase"], "four random words here\n").code, 0);
    let with = |home: &Path, args: &[&str]| {
        machine.run_at_in(&[("SEALTIDE_IDENTITY_PASSPHRASE_FILE", right.to_str().unwrap())], home, args)
    };
    let file = machine.root().join("home.backup");
    assert_eq!(with(&machine.home(), &["backup", "create", file.to_str().unwrap()]).code, 0);
    let place = machine.root().join("restored");
    let done = with(&place, &["backup", "restore", file.to_str().unwrap(), "--as-new-device"]);
    assert_eq!((done.code, &done.document()["as_new_device"]), (0, &json!(true)), "{done:?}");
    assert_eq!(with(&place, &["identity", "show"]).code, 0);
    for name in ["node.key", "identity.key"] {
        assert!(fs::read_to_string(place.join(name)).unwrap().starts_with("sealtide sealed 1\n"), "{name}");
    }
}
