//! Identities with the real binary: words, recovery, revocation, restored and copied homes, two nodes that prove.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Machine, Pair, agree, copy, until, write};

/// A home with an owner, and the file with its words.
fn with_owner(machine: &Machine) -> (Value, PathBuf) {
    let words = machine.root().join("words");
    let made = machine.ok(&["init", "--recovery-out", words.to_str().unwrap()]);
    (made, words)
}

fn words_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// A command with words on its standard input.
#[track_caller]
fn with_words(machine: &Machine, args: &[&str], words: &str) -> (i32, Value) {
    let done = machine.run_with(args, words);
    (done.code, done.document())
}

fn every_file(dir: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            every_file(&path, found);
        } else if kind.is_file() {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
}

/// The lower-case hex secrets of a key file.
fn secrets_of(home: &Path) -> Vec<String> {
    let text = fs::read_to_string(home.join("identity.key")).unwrap();
    let secret = |line: &str| {
        (line.starts_with("working") || line.starts_with("owner")).then(|| line.rsplit(' ').next().unwrap().to_owned())
    };
    text.lines().filter_map(secret).collect()
}

/// Every home gets a device identity; the owner comes only where its words have a place to go.
#[test]
fn a_device_always_and_an_owner_where_words_have_a_place() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let shown = machine.ok(&["identity", "show"]);
    assert_eq!((&shown["owner"], &shown["signing"]), (&Value::Null, &json!("ready")));
    let device = &shown["device"];
    assert_eq!((&device["class"], &device["state"], &device["n"]), (&json!("device"), &json!("live"), &json!(0)));
    assert_eq!((&device["node"], &device["pools"][0]["size"]), (&shown["node"], &json!(256)));
    assert_eq!(machine.ok(&["identity", "show"])["device"]["keystone"], device["keystone"]);
    machine.fails(&["identity", "new"], 2, "no_place_for_words");
    machine.fails(&["identity", "export", "frames"], 2, "no_owner");
    let words = machine.root().join("words");
    let made = machine.ok(&["identity", "new", "--recovery-out", words.to_str().unwrap()]);
    let shown = machine.ok(&["identity", "show"]);
    assert_eq!(shown["owner"]["keystone"], made["owner"]);
    let sizes: Vec<u64> =
        shown["owner"]["pools"].as_array().unwrap().iter().map(|pool| pool["size"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [256, 512, 256]);
    let delegation = &shown["owner"]["delegations"][0];
    assert_eq!((&delegation["this_node"], &delegation["verbs"]), (&json!(true), &json!(["connect", "sync", "post"])));
    let other = machine.root().join("other");
    machine.fails(&["identity", "new", "--recovery-out", other.to_str().unwrap()], 2, "owner_exists");
    assert!(!other.exists(), "no words of nobody are left behind");
    machine.fails(&["init", "--recovery-out", other.to_str().unwrap()], 2, "home_exists");
    let text = machine.plain(&["identity", "show"]).stdout;
    assert!(text.contains("owner") && text.contains("device") && !text.starts_with('{'), "{text}");
    machine.ok(&["verify"]);
}

/// The words are in one file and nowhere else; the drill knows them from others.
// Proves: SY-83 SY-30
#[test]
fn backup_has_no_secret() {
    let machine = Machine::new();
    let (_, file) = with_owner(&machine);
    let words = words_of(&file);
    assert_eq!(words.split_whitespace().count(), 24);
    let node = machine.up_in(&[("SEALTIDE_LOG", "trace")], &[machine.notes_text()]);
    assert_eq!(with_words(&machine, &["identity", "drill"], &words).0, 0);
    let other = Machine::new();
    let (_, wrong) = with_owner(&other);
    let (code, answer) = with_words(&machine, &["identity", "drill"], &words_of(&wrong));
    assert_eq!((code, &answer["error"]["code"]), (6, &json!("wrong_words")));
    let swapped: Vec<&str> = words.split_whitespace().rev().collect();
    let (code, answer) = with_words(&machine, &["identity", "drill"], &swapped[1..].join(" "));
    assert_eq!((code, &answer["error"]["code"]), (2, &json!("words")));
    assert!(swapped.iter().all(|word| !answer.to_string().contains(&format!(" {word} "))), "{answer}");
    drop(node);
    let secrets = secrets_of(&machine.home());
    assert_eq!(secrets.len(), 2);
    let root = sealtide_identity::keystone::RootSecret::from_words(&words).unwrap();
    let root_hex: String = root.expose().iter().map(|byte| format!("{byte:02x}")).collect();
    let pair: Vec<&str> = words.split_whitespace().collect();
    let mut files = Vec::new();
    every_file(&machine.home(), &mut files);
    every_file(machine.root(), &mut files);
    let mut looked = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| *path != file) {
        looked += 1;
        let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        for two in pair.windows(2) {
            assert!(!holds(two.join(" ").as_bytes()), "{} holds recovery words", path.display());
        }
        assert!(!holds(root.expose()) && !holds(root_hex.as_bytes()), "{} holds the root secret", path.display());
        if !path.ends_with("identity.key") {
            for secret in &secrets {
                let raw: Vec<u8> =
                    (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
                assert!(!holds(secret.as_bytes()) && !holds(&raw), "{} holds a secret", path.display());
            }
        }
    }
    assert!(looked > 5, "{looked} files");
}

/// The owner comes back on another machine with words and frames, without its key; the old machine is out.
// Proves: SY-82
#[test]
fn recover_without_mldsa_key() {
    let (a, b) = (Machine::new(), Machine::new());
    let (_, file) = with_owner(&a);
    let words = words_of(&file);
    let frames = a.root().join("owner.frames");
    let frames = frames.to_str().unwrap();
    let exported = a.ok(&["identity", "export", frames]);
    assert_eq!(exported["frames"], 2);
    fs::remove_file(a.home().join("identity.key")).unwrap();
    b.ok(&["init"]);
    let (code, answer) = with_words(&b, &["identity", "recover"], &words);
    assert_eq!(
        (code, &answer["error"]["code"]),
        (6, &json!("wrong_words")),
        "without frames there is nothing to recover"
    );
    let (code, recovered) = with_words(&b, &["identity", "recover", "--frames", frames], &words);
    assert_eq!(code, 0, "{recovered}");
    assert_eq!(recovered["owner"], exported["owner"]);
    let shown = b.ok(&["identity", "show"]);
    assert_eq!((&shown["owner"]["keystone"], &shown["owner"]["n"]), (&exported["owner"], &json!(3)));
    let mine = shown["owner"]["delegations"].as_array().unwrap().iter().filter(|row| row["this_node"] == true).count();
    assert_eq!(mine, 1);
    // The lost machine is named, and taken back by the name of its keystone: this one has never met it.
    let lost = recovered["others"].as_array().unwrap();
    assert_eq!((lost.len(), &lost[0]["node"]), (1, &Value::Null), "{recovered}");
    let lost = lost[0]["device"].as_str().unwrap();
    let taken = b.ok(&["identity", "undelegate", lost]);
    assert_eq!((&taken["device"], &taken["node"]), (&json!(lost), &Value::Null));
    b.fails(&["identity", "undelegate", lost], 2, "not_delegated");
    let (code, again) = with_words(&b, &["identity", "recover"], &words);
    assert_eq!((code, &again["others"]), (0, &json!([])));
    let shown = b.ok(&["identity", "show"]);
    assert_eq!(shown["owner"]["delegations"].as_array().map(Vec::len), Some(1), "listed once: {shown}");
    // The machine whose key file was lost gets a new device and takes the same owner back, from what is in its store.
    let (code, again) = with_words(&a, &["identity", "recover"], &words);
    assert_eq!((code, &again["owner"]), (0, &exported["owner"]));
    // Ended with the words alone.
    let (code, revoked) = with_words(&b, &["identity", "revoke", "--reason", "stolen"], &words);
    assert_eq!((code, &revoked["revoked"]), (0, &json!(true)));
    assert_eq!(b.ok(&["identity", "show"])["owner"]["state"], "revoked");
    let (code, answer) = with_words(&b, &["identity", "recover"], &words);
    assert_eq!((code, &answer["error"]["code"]), (6, &json!("revoked")));
    b.fails(&["identity", "undelegate", shown["node"].as_str().unwrap()], 6, "revoked");
    // What was revoked stays so, and another owner takes its place.
    let other = b.root().join("other");
    let made = b.ok(&["identity", "new", "--recovery-out", other.to_str().unwrap()]);
    assert_ne!(made["owner"], exported["owner"]);
    assert_eq!(b.ok(&["identity", "show"])["owner"]["state"], "live");
}

/// A full copy of a home can neither manage nor revoke.
// Proves: SY-83
#[test]
fn stolen_home() {
    let machine = Machine::new();
    with_owner(&machine);
    let stolen = machine.root().join("stolen");
    copy(&machine.home(), &stolen);
    for secret in secrets_of(&stolen) {
        let bytes: Vec<u8> = (0..32).map(|at| u8::from_str_radix(&secret[2 * at..2 * at + 2], 16).unwrap()).collect();
        let root = sealtide_identity::keystone::RootSecret::from_bytes(bytes.try_into().unwrap());
        for args in [&["identity", "recover"][..], &["identity", "revoke"]] {
            let done = machine.run_with(args, &root.words());
            assert_eq!((done.code, &done.document()["error"]["code"]), (6, &json!("wrong_words")), "{args:?}");
        }
    }
}

/// A restored store and a moved home sign nothing until somebody says so, and that is audited.
// Proves: SY-26
#[test]
fn a_restored_and_a_moved_home_refuse_to_sign() {
    let machine = Machine::new();
    let (made, _) = with_owner(&machine);
    let node = made["node"].as_str().unwrap();
    let old = machine.root().join("old-store");
    copy(&machine.home().join("store"), &old);
    machine.ok(&["identity", "delegate", node, "--verbs", "sync"]);
    let store = machine.home().join("store");
    fs::remove_dir_all(&store).unwrap();
    copy(&old, &store);
    assert_eq!(machine.ok(&["identity", "show"])["signing"], "refused");
    machine.fails(&["identity", "delegate", node], 6, "restored");
    machine.ok(&["--offline-sign", "identity", "delegate", node]);
    assert_eq!(machine.ok(&["identity", "show"])["signing"], "ready");
    let moved = machine.root().join("moved");
    copy(&machine.home(), &moved);
    let done = machine.run_at(&moved, &["identity", "delegate", node]);
    assert_eq!((done.code, &done.document()["error"]["code"]), (6, &json!("moved")), "{done:?}");
    assert_eq!(machine.run_at(&moved, &["--offline-sign", "identity", "delegate", node]).code, 0);
    let audit = fs::read_to_string(moved.join("audit/0001.jsonl")).unwrap();
    assert_eq!(audit.matches("node:offline_sign").count(), 2, "{audit}");
}

/// A crash between any two writes of a signature leaves a home that goes on without signing twice.
// Proves: SY-25
#[test]
fn a_crash_while_signing() {
    let machine = Machine::new();
    let (made, _) = with_owner(&machine);
    let node = made["node"].as_str().unwrap();
    let mut n = machine.ok(&["identity", "show"])["owner"]["n"].as_u64().unwrap();
    for (point, signed) in [("identity.made", 0), ("identity.committed", 1), ("identity.counted", 1)] {
        let done = machine.run_in(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))], &["identity", "delegate", node]);
        assert_ne!(done.code, 0, "{point}");
        let shown = machine.ok(&["identity", "show"]);
        n += signed;
        assert_eq!((&shown["signing"], &shown["owner"]["n"]), (&json!("ready"), &json!(n)), "{point}");
        machine.ok(&["identity", "delegate", node]);
        n += 1;
        let shown = machine.ok(&["identity", "show"]);
        assert_eq!((&shown["owner"]["state"], &shown["owner"]["n"]), (&json!("live"), &json!(n)), "{point}");
    }
}

/// Two nodes prove to each other whose devices they are, keep each other's keystones, and use one session again.
// Proves: SY-32
#[test]
fn two_nodes_prove_who_they_are() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    pair.agree_and_verify();
    let known = |machine: &Machine| machine.ok(&["identity", "show"])["peers"][0]["device"].clone();
    let own = |machine: &Machine| machine.ok(&["identity", "show"])["device"].clone();
    until("both know the other's device", || {
        let both = [(&pair.a, &pair.b), (&pair.b, &pair.a)];
        match both.iter().find(|(here, there)| known(here)["keystone"] != own(there)["keystone"]) {
            None => Ok(()),
            Some((here, _)) => Err(here.told()),
        }
    });
    let before = own(&pair.a)["n"].clone();
    for round in 0..2 {
        pair.node_a.stop();
        write(&pair.a.notes(), "plan.md", format!("plan {round}\n"));
        pair.node_a = pair.a.up(&[]);
        agree(&pair.a, &pair.b);
    }
    // The session of the first connection serves the later ones: the device signed nothing more.
    assert_eq!(own(&pair.a)["n"], before);
    for machine in [&pair.a, &pair.b] {
        machine.ok(&["verify"]);
    }
}

/// A revoked owner is shut out at once, and for good.
// Proves: SY-28
#[test]
fn a_revoked_owner_is_shut_out() {
    let (a, b) = (Machine::new(), Machine::new());
    write(&a.notes(), "plan.md", "plan\n");
    let node_a = a.share();
    let words = b.root().join("words");
    b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait", "--recovery-out", words.to_str().unwrap()]);
    let _node_b = b.up(&[]);
    until("the first node knows the owner of the second", || {
        let shown = a.ok(&["identity", "show"])["peers"][0].clone();
        if shown["owner"]["state"] == "live" && shown["speaks_for_owner"] == true {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
    let (code, _) = with_words(&b, &["identity", "revoke"], &words_of(&words));
    assert_eq!(code, 0);
    until("the first node heard of the end", || {
        let shown = a.ok(&["identity", "show"])["peers"][0].clone();
        if shown["owner"]["state"] == "revoked" { Ok(()) } else { Err(format!("{shown}\n{}", a.told())) }
    });
    write(&b.notes(), "after.md", "too late\n");
    write(&a.notes(), "here.md", "stays\n");
    b.recorded();
    a.recorded();
    a.run(&["sync", "--timeout", "2s"]);
    assert!(!a.notes().join("after.md").exists());
    assert!(!b.notes().join("here.md").exists());
}

/// A copy of a whole home that is older than what the original signed since: it signs nothing, fetches what a peer holds,
/// and goes on without a fork.
// Proves: SY-87 SY-26
#[test]
fn restore_whole_home() {
    let (a, b) = (Machine::new(), Machine::new());
    write(&a.notes(), "plan.md", "plan\n");
    let (made, _) = with_owner(&a);
    let node = made["node"].as_str().unwrap();
    let mut node_a = a.share();
    b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    let _node_b = b.up(&[]);
    agree(&a, &b);
    node_a.stop();
    let old = a.root().join("old");
    copy(&a.home(), &old);
    let mut node_a = a.up(&[]);
    for verbs in ["sync", "post"] {
        a.ok(&["identity", "delegate", node, "--verbs", verbs]);
    }
    let newest = a.ok(&["identity", "show"])["owner"]["n"].clone();
    until("the peer holds the newest frame", || {
        let n = b.ok(&["identity", "show"])["peers"][0]["owner"]["n"].clone();
        if n == newest { Ok(()) } else { Err(format!("{n} of {newest}\n{}", b.told())) }
    });
    node_a.stop();
    fs::rename(a.home(), a.root().join("original")).unwrap();
    copy(&old, &a.home());
    a.fails(&["identity", "delegate", node], 6, "moved");
    let _node_a = a.up(&[]);
    until("the witness was heard", || {
        let shown = a.ok(&["identity", "show"]);
        if shown["signing"] == "ready" { Ok(()) } else { Err(format!("{shown}\n{}", a.told())) }
    });
    let shown = a.ok(&["identity", "show"]);
    assert_eq!((&shown["owner"]["n"], &shown["owner"]["state"]), (&newest, &json!("live")), "{shown}");
    a.ok(&["identity", "delegate", node]);
    let shown = a.ok(&["identity", "show"]);
    assert_eq!(
        (shown["owner"]["n"].as_u64(), &shown["owner"]["state"]),
        (newest.as_u64().map(|n| n + 1), &json!("live"))
    );
    write(&a.notes(), "again.md", "again\n");
    agree(&a, &b);
}

/// A passphrase seals every secret of a home: the node serves with it, refuses without it (exit 12), a new one takes the
/// place of the old one, and it can be taken away again. The identity stays the same through all of it.
// Proves: SY-30
#[test]
fn a_passphrase_seals_the_home() {
    let machine = Machine::new();
    let (made, _) = with_owner(&machine);
    let id = made["node"].as_str().unwrap().to_owned();
    let secrets = secrets_of(&machine.home());
    let node_secret = fs::read_to_string(machine.home().join("node.key")).unwrap().trim().to_owned();
    let (code, short) = with_words(&machine, &["identity", "passphrase"], "short\n");
    assert_eq!((code, short["error"]["code"].as_str()), (2, Some("passphrase")), "{short}");
    let (code, set) = with_words(&machine, &["identity", "passphrase"], "correct horse battery\n");
    assert_eq!((code, &set["sealed"]), (0, &json!(true)), "{set}");

    let holds_a_secret = || {
        let mut files = Vec::new();
        every_file(&machine.home(), &mut files);
        files.into_iter().find_map(|(path, bytes)| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            secrets.iter().chain([&node_secret]).any(|secret| text.contains(secret)).then_some(path)
        })
    };
    assert_eq!(holds_a_secret(), None);

    let said = machine.root().join("said");
    let say = |text: &str| fs::write(&said, text).unwrap();
    let with = [("SEALTIDE_IDENTITY_PASSPHRASE_FILE", said.to_str().unwrap())];
    machine.fails(&["identity", "show"], 12, "passphrase_needed");
    say("correct horse bakery\n");
    let wrong = machine.run_in(&with, &["identity", "show"]);
    assert_eq!((wrong.code, wrong.document()["error"]["code"].as_str()), (12, Some("wrong_passphrase")));
    say("correct horse battery\n");
    assert_eq!(machine.run_in(&with, &["identity", "show"]).code, 0);

    // A node that serves writes its secrets sealed, and needs nobody at a terminal. Commands ask it, not the files.
    fs::create_dir_all(machine.notes()).unwrap();
    let mut node = machine.up_in(&with, &[machine.notes_text()]);
    assert_eq!(node.ready()["node"], id.as_str());
    assert_eq!(machine.ok(&["status"])["node"], id.as_str());
    write(&machine.notes(), "plan.md", "one\n");
    machine.recorded();
    machine.fails(&["identity", "passphrase", "--remove"], 11, "store_locked");
    node.stop();
    assert_eq!(holds_a_secret(), None);

    // A new passphrase, then none.
    let again = machine.run_with_in(&with, &["identity", "passphrase"], "another horse battery\n");
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert_eq!(machine.run_in(&with, &["identity", "show"]).code, 12, "the old one opens nothing");
    say("another horse battery");
    assert_eq!(machine.run_in(&with, &["identity", "passphrase", "--remove"]).code, 0);
    assert_eq!(machine.ok(&["identity", "show"])["node"], id.as_str());
    assert_eq!(secrets_of(&machine.home()), secrets);
}

/// Words that were written down belong to somebody: a home that may be a copied one makes no owner, and gives out no words.
#[test]
fn a_copied_home_gives_out_no_words() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let (file, place) = (machine.root().join("backup"), machine.root().join("restored"));
    machine.ok(&["backup", "create", file.to_str().unwrap()]);
    assert_eq!(machine.run_at(&place, &["backup", "restore", file.to_str().unwrap()]).code, 0);
    let words = machine.root().join("words");
    let new = ["identity", "new", "--recovery-out", words.to_str().unwrap()];
    let refused = machine.run_at(&place, &new);
    assert_eq!((refused.code, &refused.document()["error"]["code"]), (6, &json!("moved")), "{refused:?}");
    assert!(!words.exists());
    assert_eq!(machine.run_at(&place, &[&["--offline-sign"], &new[..]].concat()).code, 0);
    assert!(words.exists());
}

/// A second device of one person: the owner lets it speak for it, and a person at the device says so.
// Proves: SY-101
#[test]
fn a_second_device_speaks_for_the_owner() {
    let (a, b) = (Machine::new(), Machine::new());
    write(&a.notes(), "plan.md", "plan\n");
    let words = a.root().join("words");
    let node_a = a.up(&[a.notes_text(), "--recovery-out", words.to_str().unwrap()]);
    b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    let mut node_b = b.up(&[]);
    let owner = a.ok(&["identity", "show"])["owner"]["keystone"].clone();
    let [id_a, id_b] = [&a, &b].map(|machine| machine.ok(&["identity", "show"])["node"].as_str().unwrap().to_owned());
    until("the second knows the owner", || {
        let shown = b.ok(&["identity", "show"])["peers"][0].clone();
        if shown["owner"]["keystone"] == owner { Ok(()) } else { Err(shown.to_string()) }
    });
    // Nobody speaks for an owner that did not say so.
    b.fails(&["identity", "speak-for", &id_a], 2, "not_delegated");
    assert_eq!(b.ok(&["identity", "show"])["speaks_for"], Value::Null);
    a.ok(&["identity", "delegate", &id_b]);
    let speaks = |wanted: &Value| {
        until("the first knows whom the second speaks for", || {
            let shown = a.ok(&["identity", "show"])["peers"][0].clone();
            let known = if shown["speaks_for_owner"] == true { &shown["owner"]["keystone"] } else { &Value::Null };
            if known == wanted { Ok(()) } else { Err(format!("{shown}\n{}", b.told())) }
        });
    };
    until("the delegation came", || {
        let done = b.run(&["identity", "speak-for", &id_a]);
        if done.code == 0 { Ok(()) } else { Err(format!("{done:?}")) }
    });
    assert_eq!(b.ok(&["identity", "show"])["speaks_for"], owner);
    // From the next connection on, also after a restart.
    node_b.stop();
    let mut node_b = b.up(&[]);
    speaks(&owner);
    write(&b.notes(), "second.md", "from the second device\n");
    agree(&a, &b);
    let told = b.ok(&["identity", "speak-for", "--nobody"]);
    assert_eq!(told["owner"], Value::Null);
    assert_eq!(b.ok(&["identity", "show"])["speaks_for"], Value::Null);
    node_b.stop();
    let _node_b = b.up(&[]);
    write(&b.notes(), "third.md", "by itself again\n");
    agree(&a, &b);
    a.ok(&["verify"]);
    b.ok(&["verify"]);
}
