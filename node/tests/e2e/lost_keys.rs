//! A signing key that is lost or stolen, with the real binary: the owner's words replace it, and old trust files go on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::releases::{Publisher, audited, opt, version_in};
use crate::support::{Machine, copy, until};

fn lose(machine: &Machine) {
    fs::remove_file(machine.home().join("gateway.key")).unwrap();
}

fn signs(machine: &Machine) -> Value {
    machine.ok(&["keys", "status"])["active"].clone()
}

// Proves: GW-106, GW-107
#[test]
fn a_stolen_key_is_replaced_and_what_the_thief_shipped_is_taken_no_more() {
    let (publisher, words) = Publisher::with_owner();
    publisher.publish("1.0.0");
    let trust = publisher.trust("1.0.0");
    // The thief has the whole home, and ships a release of his own with it.
    let thief = Publisher::new();
    copy(&publisher.machine.home(), &thief.machine.home());
    // He does not heed that a copy should not sign.
    thief.machine.ok(&["--offline-sign", "identity", "show"]);
    thief.publish("6.6.6");
    let client = Machine::new();
    let to = opt(&client);
    let install =
        |bundle: &str| client.run(&["release", "install", bundle, "--to", to.to_str().unwrap(), "--trust", &trust]);
    assert_eq!(install(&thief.bundle("6.6.6")).code, 0);
    assert_eq!(version_in(&to).as_deref(), Some("6.6.6"), "that is what a stolen key can do");
    // He goes on with keys of his own. What he lacks are the words.
    thief.machine.ok(&["keys", "new"]);
    thief.machine.ok(&["keys", "rotate"]);
    let other = Publisher::with_owner().1;
    let refused = thief.machine.run_with(&["keys", "recover"], &other);
    assert_eq!((refused.code, &refused.document()["error"]["code"]), (6, &Value::from("wrong_words")));
    thief.publish("6.6.7");
    assert_eq!(install(&thief.bundle("6.6.7")).code, 0);

    let done = publisher.machine.run_with(&["keys", "recover", "--compromised", "--last-good", "stable=1"], &words);
    assert_eq!((done.code, &done.document()["to"]), (0, &Value::from("v2")), "{done:?}");
    publisher.publish("1.0.1");
    let installed = install(&publisher.bundle("1.0.1"));
    assert_eq!(installed.code, 0, "{installed:?}");
    assert_eq!(version_in(&to).as_deref(), Some("1.0.1"));
    for version in ["6.6.6", "6.6.7"] {
        let refused = install(&thief.bundle(version));
        assert_eq!(refused.code, 5, "{version}: {refused:?}");
    }
    assert_eq!(version_in(&to).as_deref(), Some("1.0.1"));
    let verify = |bundle: &str| client.run(&["release", "verify", bundle, "--trust", &trust]).code;
    assert_eq!((verify(&publisher.bundle("1.0.0")), verify(&publisher.bundle("1.0.1"))), (0, 0));
    // The key signs on as any other does.
    publisher.machine.ok(&["keys", "new"]);
    publisher.machine.ok(&["keys", "rotate"]);
    publisher.publish("1.1.0");
    assert_eq!(install(&publisher.bundle("1.1.0")).code, 0);
}

/// Who follows with a trust file that names no owner needs a new one after a recovery. With it nothing counts that the thief showed.
// Proves: GW-106, GW-107
#[test]
fn a_new_trust_file_after_a_recovery_forgets_what_a_thief_showed() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let thief = Publisher::new();
    copy(&publisher.machine.home(), &thief.machine.home());
    thief.machine.ok(&["--offline-sign", "identity", "show"]);
    thief.publish("6.6.6");
    thief.publish("6.6.7");
    let client = Machine::new();
    let to = opt(&client);
    let install = |bundle: &str, trust: &str| {
        client.run(&["release", "install", bundle, "--to", to.to_str().unwrap(), "--trust", trust])
    };
    for bundle in [publisher.bundle("1.0.0"), thief.bundle("6.6.6"), thief.bundle("6.6.7")] {
        assert_eq!(install(&bundle, &publisher.trust("1.0.0")).code, 0, "{bundle}");
    }
    let words = publisher.file("words");
    publisher.machine.ok(&["identity", "new", "--recovery-out", words.to_str().unwrap()]);
    let words = fs::read_to_string(words).unwrap();
    let done = publisher.machine.run_with(&["keys", "recover", "--compromised", "--last-good", "stable=1"], &words);
    assert_eq!(done.code, 0, "{done:?}");
    publisher.publish("1.1.0");
    assert_eq!(install(&publisher.bundle("1.1.0"), &publisher.trust("1.0.0")).code, 5, "its trust file names no owner");
    let installed = install(&publisher.bundle("1.1.0"), &publisher.trust("1.1.0"));
    assert_eq!(installed.code, 0, "{installed:?}");
    assert_eq!(version_in(&to).as_deref(), Some("1.1.0"));
    assert_eq!(install(&thief.bundle("6.6.7"), &publisher.trust("1.1.0")).code, 5);
    // From here on nothing older goes over it, as ever.
    publisher.publish("1.2.0");
    assert_eq!(install(&publisher.bundle("1.2.0"), &publisher.trust("1.2.0")).code, 0);
    assert_eq!(install(&publisher.bundle("1.1.0"), &publisher.trust("1.2.0")).code, 5);
}

// Proves: GW-106
#[test]
fn a_recovery_that_is_cut_off_is_done_again() {
    let (publisher, words) = Publisher::with_owner();
    publisher.publish("1.0.0");
    let (machine, trust) = (&publisher.machine, publisher.trust("1.0.0"));
    for (at, point) in ["recover_made", "recover_proven", "recover_committed"].into_iter().enumerate() {
        lose(machine);
        let failpoint = format!("{point}:1");
        let died = machine.run_with_in(&[("SEALTIDE_FAILPOINT", &failpoint)], &["keys", "recover"], &words);
        assert!(died.code < 0, "{point}: {died:?}");
        let is_done = point == "recover_committed";
        if !is_done {
            machine.fails(&["keys", "status"], 6, "key_lost");
            let done = machine.run_with(&["keys", "recover"], &words);
            assert_eq!(done.code, 0, "{point}: {done:?}");
        }
        let version = format!("1.{}.0", at + 1);
        assert_eq!(signs(machine), format!("v{}", at + 2), "{point}");
        publisher.publish(&version);
        machine.ok(&["release", "verify", &publisher.bundle(&version), "--trust", &trust]);
    }
    assert_eq!(audited(machine, "key:recovered"), 3, "each is told once");
}

/// What is lost is a file that the settings of the running node still name. Nothing is read again once the recovery holds, and the
/// version that it made is still there when keys change after it.
// Proves: GW-106
#[test]
fn a_key_whose_file_is_gone_is_replaced_while_the_node_runs() {
    let (publisher, words) = Publisher::with_owner();
    let (machine, file) = (&publisher.machine, publisher.file("v1.key"));
    fs::write(&file, "a1".repeat(32)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let named = format!("v1={}", file.display());
    let node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes"), ("SEALTIDE_GATEWAY_KEY_FILES", &named)], &[]);
    assert_eq!(signs(machine), "v1");
    fs::remove_file(&file).unwrap();
    let done = machine.run_with(&["keys", "recover"], &words);
    assert_eq!((done.code, &done.document()["to"]), (0, &Value::from("v2")), "{done:?}");
    assert_eq!(signs(machine), "v2");
    machine.ok(&["keys", "new"]);
    drop(node);
    assert_eq!(signs(machine), "v2", "its secret is in the key file");
    machine.ok(&["keys", "rotate"]);
    assert_eq!(signs(machine), "v3");
}

/// Without an owner, or with the words of another, nothing changes; a trust file from before the owner asks for a new one.
// Proves: GW-106
#[test]
fn trust_recover_without_root() {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let machine = &publisher.machine;
    let (_, strange) = Publisher::with_owner();
    let refused = machine.run_with(&["keys", "recover"], &strange);
    assert_eq!((refused.code, &refused.document()["error"]["code"]), (2, &Value::from("no_owner")));
    let words = publisher.file("words");
    machine.ok(&["identity", "new", "--recovery-out", words.to_str().unwrap()]);
    let words = fs::read_to_string(words).unwrap();
    publisher.publish("1.1.0");
    // It is replaced while the node runs, too.
    let node = machine.up(&[]);
    let refused = machine.run_with(&["keys", "recover"], &strange);
    assert_eq!((refused.code, &refused.document()["error"]["code"]), (6, &Value::from("wrong_words")));
    assert_eq!(signs(machine), "v1");
    assert_eq!(machine.run_with(&["keys", "recover"], &words).code, 0);
    assert_eq!(signs(machine), "v2");
    publisher.publish("1.2.0");
    drop(node);
    let verify = |trust: &str| {
        let done = machine.run(&["release", "verify", &publisher.bundle("1.2.0"), "--trust", &publisher.trust(trust)]);
        (done.code, done.document()["error"]["message"].as_str().unwrap_or_default().to_owned())
    };
    let (code, told) = verify("1.0.0");
    assert!(code == 5 && told.contains("names no root"), "{code} {told}");
    assert_eq!(verify("1.1.0").0, 0);
    assert_eq!(verify("1.2.0").0, 0);
}

/// The machine is gone, with node key, ledger and all. What is left are the words, and what a machine has that followed.
// Proves: GW-106
#[test]
fn a_lost_home_is_gone_on_from_with_the_words_and_a_copy_of_the_space() {
    let (publisher, words) = Publisher::with_owner();
    publisher.publish("1.0.0");
    publisher.machine.ok(&["keys", "new"]);
    publisher.machine.ok(&["keys", "rotate"]);
    publisher.publish("1.0.1");
    let trust = publisher.trust("1.0.0");
    let mut node = publisher.machine.up(&[]);
    let lost = publisher.machine.ok(&["status"])["node"].as_str().unwrap().to_owned();
    let ticket = |machine: &Machine| {
        machine.ok(&["ticket", "new", "--space", "kiosk", "--role", "read"])["ticket"].as_str().unwrap().to_owned()
    };
    // One that follows through the space, and pinned its trust; one that gets files, and has the trust file of the first day.
    let (site, by_hand) = (Machine::new(), Machine::new());
    site.ok(&["join", &ticket(&publisher.machine)]);
    let follow = || {
        let done = site.run(&["release", "install", "kiosk", "--to", opt(&site).to_str().unwrap()]);
        (done.code, version_in(&opt(&site)), done)
    };
    let carry = |bundle: &str| {
        let to = opt(&by_hand);
        by_hand.run(&["release", "install", bundle, "--to", to.to_str().unwrap(), "--trust", &trust]).code
    };
    let followed = follow();
    assert_eq!((followed.0, followed.1.as_deref()), (0, Some("1.0.1")), "{:?}", followed.2);
    assert_eq!(carry(&publisher.bundle("1.0.0")), 0);
    let text = |name: &str| site.root().join(name).to_str().unwrap().to_owned();
    let (frames, copy) = (text("owner.frames"), text("kiosk.jsonl"));
    node.kill_9();
    fs::remove_dir_all(publisher.machine.home()).unwrap();
    site.ok(&["identity", "export", &frames, "--of", &lost]);
    site.ok(&["export", "kiosk", "--format", "jsonl", "--out", &copy]);

    let new = Publisher::new();
    new.machine.ok(&["init"]);
    let recover = |home: &Machine, words: &str| home.run_with(&["keys", "recover", "--app", "kiosk"], words);
    let code = |done: &crate::support::Done| (done.code, done.document()["error"]["code"].clone());
    assert_eq!(code(&recover(&new.machine, &words)), (2, "no_owner".into()));
    let back = new.machine.run_with(&["identity", "recover", "--frames", &frames], &words);
    assert_eq!(back.code, 0, "{back:?}");
    assert_eq!(code(&recover(&new.machine, &words)), (2, "no_app".into()));
    new.machine.ok(&["import", &copy]);
    let alone = new.machine.run_with(&["keys", "recover"], &words);
    assert_eq!(code(&alone), (1, "no_keys".into()));
    // Words of another owner, here and on a machine where they are the right ones, take nothing over.
    let (stranger, strange) = Publisher::with_owner();
    assert_eq!(code(&recover(&new.machine, &strange)), (6, "wrong_words".into()));
    stranger.machine.ok(&["import", &copy]);
    assert_eq!(code(&recover(&stranger.machine, &strange)), (6, "other_root".into()));
    // Nor does a home that has keys of its own.
    let busy = Publisher::new();
    busy.machine.ok(&["init"]);
    assert_eq!(busy.machine.run_with(&["identity", "recover", "--frames", &frames], &words).code, 0);
    busy.machine.ok(&["keys", "new"]);
    busy.machine.ok(&["import", &copy]);
    assert_eq!(code(&recover(&busy.machine, &words)), (2, "keys_here".into()));
    assert_eq!(signs(&busy.machine), "v1");
    for point in ["recover_taken:1", "recover_taken:2", "recover_made:1", "recover_proven:1"] {
        let words_of = ["keys", "recover", "--app", "kiosk"];
        let died = new.machine.run_with_in(&[("SEALTIDE_FAILPOINT", point)], &words_of, &words);
        assert!(died.code < 0, "{point}: {died:?}");
    }
    new.machine.fails(&["keys", "status"], 6, "key_lost");
    let done = recover(&new.machine, &words);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(signs(&new.machine), "v3");
    let refused =
        new.machine.run(&["release", "publish", "kiosk", new.file("dist").to_str().unwrap(), "--version", "1.0.0"]);
    assert_eq!(code(&refused), (2, "exists".into()), "the channel goes on where it was: {refused:?}");
    let published = new.publish("1.1.0");
    assert_eq!(
        (&published["seq"], &new.machine.ok(&["release", "list"])["channels"][0]["own"]),
        (&3.into(), &true.into())
    );
    assert_eq!(carry(&new.bundle("1.1.0")), 0);
    assert_eq!(version_in(&opt(&by_hand)).as_deref(), Some("1.1.0"));
    let node = new.machine.up(&[]);
    site.ok(&["join", &ticket(&new.machine)]);
    until("the old follower has the release", || {
        site.run(&["sync", "kiosk", "--wait"]);
        let followed = follow();
        if followed.1.as_deref() == Some("1.1.0") { Ok(()) } else { Err(format!("{:?}", followed.2)) }
    });
    // From here on it is the publisher like any other.
    new.machine.ok(&["keys", "new"]);
    new.machine.ok(&["keys", "rotate"]);
    new.publish("1.2.0");
    until("the old follower has the next one", || {
        site.run(&["sync", "kiosk", "--wait"]);
        let followed = follow();
        if followed.1.as_deref() == Some("1.2.0") { Ok(()) } else { Err(format!("{:?}", followed.2)) }
    });
    assert_eq!(carry(&new.bundle("1.2.0")), 0);
    drop(node);
    new.machine.ok(&["verify"]);
}
