//! Events as they stand in the audit: each can be provoked, and has its fields and its colour.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bumps::Tree;
use crate::gateway::{Gateway, refused, start};
use crate::releases::{Publisher, opt};
use crate::support::{Machine, until, write};

/// Those that stories here provoke: name, fields beside the envelope, colour.
const HERE: [(&str, &[&str], &str); 38] = [
    (
        "signature:generated",
        &["keyVersion", "signaturePreview", "[META:KEY-VERSION]", "alg", "kid", "context"],
        "#9D4EDD",
    ),
    ("signature:rejected", &["keyVersion", "reason"], "#FF0000"),
    ("key_rotate", &["from", "to", "threadId", "channel", "epoch", "by", "trigger", "reason"], "#9D4EDD"),
    ("key_rollback", &["from", "to", "auto", "epoch", "reason"], "#FF8C00"),
    ("key:loaded", &["version", "reason"], "#9D4EDD"),
    ("key:generated", &["version", "source"], "#FF8C00"),
    ("key:refused", &["source", "reason"], "#FF0000"),
    ("key:rotate_failed", &["by", "reason"], "#FF0000"),
    ("key:forced", &["version", "reason"], "#FF8C00"),
    ("key:expired", &["version", "reason"], "#FF8C00"),
    ("key:deprecate", &["version", "notAfter"], "#FF8C00"),
    ("key:rotation_nudge", &["version", "reason"], "#FF8C00"),
    ("key:compromised", &["version", "epoch"], "#FF0000"),
    ("admin:denied", &["action", "source"], "#FF4500"),
    ("CHANNEL_NOTIFY", &["channel", "payload", "threadId"], "#FF0000"),
    ("version_bump_success", &["scope", "entityId", "duration", "entitiesBumped"], "#9D4EDD"),
    ("version_bump_failed", &["scope", "entityId", "duration", "error"], "#FF0000"),
    ("access:public_request", &["source", "header"], "#FF8C00"),
    ("bump:transaction:dry_run", &["scope", "entityId", "[AFFECTED_ENTITIES]"], "#9D4EDD"),
    ("VALIDATION_START", &["entity", "timestamp"], "#9D4EDD"),
    ("bump:transaction:start", &["[BUMP_TRANSACTION_ID]", "[BUMP_TYPE]", "[ENTITY_ID]", "[TARGET_TYPE]"], "#9D4EDD"),
    ("bump:transaction:preparation_start", &["[BUMP_TRANSACTION_ID]", "[AFFECTED_ENTITIES]"], "#9D4EDD"),
    ("bump:transaction:validation_failed", &["[ENTITY_ID]", "[ERROR_DETAILS]"], "#FF0000"),
    ("bump:transaction:committed", &["[BUMP_TRANSACTION_ID]", "[FILES_CHANGED]", "[STATUS]"], "#9D4EDD"),
    ("bump:transaction:failed", &["[BUMP_TRANSACTION_ID]", "[ERROR_DETAILS]", "[STATUS]"], "#FF0000"),
    ("bump:manifest:signed", &["[BUMP_TRANSACTION_ID]", "[SIGNATURE_PREFIX]", "[SIGNED_AT]"], "#9D4EDD"),
    ("bump:revert:success", &["[BUMP_TRANSACTION_ID]", "[BACKUP_DIR]", "[FILES_RESTORED]", "[STATUS]"], "#9D4EDD"),
    ("bundle:stored", &["name", "version", "keyVersion", "storageClass", "bytes"], "#9D4EDD"),
    ("bundle:archived", &["name", "version", "keyVersion", "storageClass", "bytes"], "#9D4EDD"),
    ("bundle:archive:done", &["moved", "failed", "bytes"], "#9D4EDD"),
    ("bundle:expired", &["name", "version", "keyVersion", "storageClass", "bytes"], "#FF8C00"),
    ("bundle:rejected", &["name", "version", "keyVersion", "storageClass", "bytes", "reason"], "#FF0000"),
    ("release:head_refused", &["registry", "channel", "seq", "storedSeq", "reason"], "#FF4500"),
    ("release:equivocation", &["registry", "channel", "seq", "storedSeq", "reason"], "#FF0000"),
    ("release:downgrade", &["registry", "channel", "seq", "storedSeq", "reason"], "#FF8C00"),
    ("ledger:forked", &["registry", "epoch", "followed", "other"], "#FF0000"),
    ("ws:upgrade:csrf_invalid", &["reason", "clientIP"], "#FF4500"),
    ("csrf:issued", &["purpose", "nonceHash", "source"], "#9D4EDD"),
];

/// The others, and the test that provokes each and looks at its fields.
const ELSEWHERE: [(&str, &str, &str); 21] = [
    ("ws:upgrade:host_mismatch", "io/gateway/tests/door/events.rs", "events_complete"),
    ("ws:upgrade:invalid_key", "io/gateway/tests/door/events.rs", "events_complete"),
    ("ws:upgrade:headers_validated", "io/gateway/tests/door/events.rs", "events_complete"),
    ("ws:upgrade:origin_denied", "io/gateway/tests/door/events.rs", "events_complete"),
    ("ws:upgrade:version_mismatch", "io/gateway/tests/door/events.rs", "events_complete"),
    ("ws:upgrade:rate_limited", "io/gateway/tests/door/events.rs", "upgrades_that_come_too_often"),
    ("ws:upgrade:forwarding_ignored", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("ws:subproto:skipped", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("ws:subproto:mismatch", "io/gateway/tests/door/events.rs", "events_complete"),
    ("ws:subproto:withdrawn", "io/gateway/tests/door/keys.rs", "withdraw"),
    ("ws:error", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("ws:close", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("csrf:capacity", "io/gateway/tests/door/events.rs", "events_complete"),
    ("TENSION_SPIKE", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("FORECAST_ALERT", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("LIFECYCLE_TRANSITION", "io/gateway/tests/door/events.rs", "lifecycle"),
    ("CSRF_VERIFY", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("CSRF_FAILURE", "io/gateway/tests/door/events.rs", "events_of_sessions_and_of_tokens_over_http"),
    ("access:compat_enabled", "node/tests/e2e/door_settings.rs", "compat_opens_reading_and_the_query"),
    ("config:reloaded", "node/tests/e2e/door_settings.rs", "reload_keeps_the_old_settings_on_a_fault"),
    ("audit:gap", "node/src/gateway/events.rs", "what_does_not_fit_is_counted_and_told"),
];

/// The lines of an audit, by the names of their events.
#[derive(Default)]
struct Lines(BTreeMap<String, Vec<Value>>);

impl Lines {
    fn read(&mut self, home: &Path) {
        for entry in fs::read_dir(home.join("audit")).unwrap().map(Result::unwrap) {
            for line in fs::read_to_string(entry.path()).unwrap().lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                self.0.entry(line["[TES_EVENT]"].as_str().unwrap().to_owned()).or_default().push(line);
            }
        }
    }

    /// What is wrong with the lines of an event.
    fn check(&self, name: &str, fields: &[&str], hsl: &str) -> Option<String> {
        let Some(lines) = self.0.get(name) else { return Some(format!("{name} is nowhere")) };
        let fits = |line: &&Value| fields.iter().all(|field| line[field].is_string()) && line["hsl"] == hsl;
        if !lines.iter().any(|line| fits(&line)) {
            return Some(format!("{name} with {fields:?} in {hsl}: {lines:?}"));
        }
        let envelope =
            ["[TIMESTAMP]", "[ISO_TIME]", "[USER]", "[THREAD_ID]", "[CHANNEL]", "[HSL]", "[SIGNED]", "[SEQ]", "[PREV]"];
        let is_whole = |line: &Value| envelope.iter().all(|member| !line[member].is_null());
        lines.iter().find(|line| !is_whole(line)).map(|line| format!("{name} without its envelope: {line}"))
    }
}

/// Ends a gateway in order, so that all that waits is written.
fn end(machine: &Machine, mut gateway: Gateway) {
    machine.ok(&["down"]);
    assert!(gateway.child.as_mut().unwrap().wait().unwrap().success());
}

/// Until the audit has a line with this event; some come with a clock of their own.
#[track_caller]
fn until_told(machine: &Machine, name: &str) {
    until(name, || {
        let mut lines = Lines::default();
        lines.read(&machine.home());
        if lines.0.contains_key(name) { Ok(()) } else { Err(format!("{:?}", lines.0.keys())) }
    });
}

/// Keys from the first to one that somebody else may have, and bumps in between.
fn of_keys(found: &mut Lines) {
    let machine = Machine::new();
    machine.ok(&["init"]);
    assert_eq!(refused(&machine.home(), &[], &[("VERSION_SIGNING_KEY", "tiny")]).0, 2);
    let gateway = start(&machine.home(), &[], &[]);
    gateway.bump("{}");
    gateway.bump(r#"{"entityId":"api:none"}"#);
    gateway.bump(r#"{"dryRun":true}"#);
    gateway.ask("GET /version/registry", &["X-Real-IP: 9.9.9.9".to_owned()], "");
    gateway.ask("POST /admin/rotate", &["Content-Type: application/json".to_owned()], "{}");
    let upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
    let upgrade: Vec<String> =
        upgrade.iter().map(|line| (*line).to_owned()).chain(["Connection: Upgrade".to_owned()]).collect();
    gateway.ask("GET /version/ws", &upgrade, "");
    end(&machine, gateway);
    let second = "b2".repeat(32);
    // A new version that makes a signature that does not verify is taken back; then it is let in for good.
    let variables = [("VERSION_SIGNING_KEY_V2", second.as_str()), ("SEALTIDE_FAULT", "probation:1")];
    let gateway = start(&machine.home(), &["--v1-grace-days", "5"], &variables);
    until_told(&machine, "key:rotation_nudge");
    assert_ne!(machine.run(&["--yes", "keys", "rotate", "--to", "v9"]).code, 0);
    machine.ok(&["--yes", "keys", "rotate"]);
    assert_eq!(gateway.bump("{}")["keyVersion"], "v1");
    machine.ok(&["--yes", "keys", "rotate"]);
    end(&machine, gateway);
    let gateway = start(&machine.home(), &["--v1-grace-days", "5"], &variables[..1]);
    until_told(&machine, "key:deprecate");
    machine.ok(&["--yes", "keys", "retire", "v1", "--compromised"]);
    end(&machine, gateway);
    found.read(&machine.home());

    let machine = Machine::new();
    let first = "a1".repeat(32);
    let variables = [("VERSION_SIGNING_KEY", first.as_str()), ("VERSION_SIGNING_KEY_V2", second.as_str())];
    let gateway = start(&machine.home(), &["--v1-grace-days", "0"], &variables);
    machine.ok(&["--yes", "keys", "force", "v2"]);
    until_told(&machine, "key:expired");
    end(&machine, gateway);
    found.read(&machine.home());
}

/// A source tree: changed, refused, taken back, and one whose backups cannot be kept.
fn of_trees(found: &mut Lines) {
    let tree = Tree::new();
    let machine = &tree.machine;
    let id = machine.ok(&tree.words(&["release", "bump", "minor", "--confirm"]))["transaction"].clone();
    machine.ok(&tree.words(&["release", "revert", id.as_str().unwrap()]));
    machine.ok(&tree.words(&["release", "bump", "--entity", "component:page", "--confirm"]));
    let page = tree.root.join("web/index.html");
    fs::rename(&page, tree.root.join("away")).unwrap();
    assert_eq!(machine.run(&tree.words(&["release", "bump", "--confirm"])).code, 1);
    fs::rename(tree.root.join("away"), &page).unwrap();
    fs::remove_dir_all(tree.root.join(".bump_backups")).unwrap();
    fs::write(tree.root.join(".bump_backups"), "no directory").unwrap();
    assert_ne!(machine.run(&tree.words(&["release", "bump", "--confirm"])).code, 0);
    found.read(&machine.home());
}

/// A publisher, a copy of it that goes its own way, and a machine that sees both.
fn of_releases(found: &mut Lines) {
    let publisher = Publisher::new();
    publisher.publish("1.0.0");
    let machine = &publisher.machine;
    let copy = machine.root().join("copy");
    let copied = std::process::Command::new("cp").args(["-a"]).arg(machine.home()).arg(&copy).status().unwrap();
    assert!(copied.success());
    publisher.publish("1.1.0");
    machine.ok(&["keys", "new"]);

    // What the copy says: another 1.1.0, then another second key.
    let dist = machine.root().join("other");
    write(&dist, "version", "another 1.1.0");
    let bundle = |name: &str| machine.root().join(name).to_str().unwrap().to_owned();
    let ship = |version: &str, name: &str| {
        let words = ["--offline-sign", "release", "publish", "kiosk", dist.to_str().unwrap(), "--version", version];
        let done = machine.run_at(&copy, &[&words[..], &["--out", &bundle(name)]].concat());
        assert_eq!(done.code, 0, "{done:?}");
    };
    ship("1.1.0", "twin.stb");
    assert_eq!(machine.run_at(&copy, &["--offline-sign", "keys", "new"]).code, 0);
    assert_eq!(machine.run_at(&copy, &["--offline-sign", "--yes", "keys", "rotate"]).code, 0);
    ship("1.2.0", "fork.stb");

    // Seen as the newest of the channel, and then its twin; an older one only for who insists.
    let mut node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[]);
    let ticket = machine.ok(&["ticket", "new", "--space", "kiosk", "--role", "read"])["ticket"].clone();
    let reader = Machine::new();
    reader.ok(&["join", ticket.as_str().unwrap()]);
    let to = opt(&reader);
    let install = ["release", "install", "kiosk", "--to", to.to_str().unwrap()];
    assert_eq!(reader.ok(&install)["version"], "1.1.0");
    let elsewhere = reader.root().join("elsewhere");
    let by_hand = |file: &str| reader.run(&["release", "install", file, "--to", elsewhere.to_str().unwrap()]);
    let twin = by_hand(&bundle("twin.stb"));
    assert_eq!(twin.document()["error"]["code"], "equivocation", "{twin:?}");
    reader.fails(&[&install[..], &["--version", "1.0.0"]].concat(), 5, "not_of_head");
    reader.ok(&[&install[..], &["--version", "1.0.0", "--allow-downgrade"]].concat());
    // The keys of the publisher, and then those that the copy made in their place.
    machine.ok(&["--yes", "keys", "rotate"]);
    publisher.publish("1.2.0");
    assert_eq!(by_hand(&publisher.bundle("1.2.0")).code, 0);
    let forked = by_hand(&bundle("fork.stb"));
    assert_eq!((forked.code, &forked.document()["error"]["code"]), (5, &"trust".into()), "{forked:?}");
    found.read(&reader.home());

    // Bundles at the door: archived, rotten, past their date.
    machine.ok(&["release", "archive", "--older", "0s"]);
    let ask = |path: &str| crate::releases::get(node.gateway(), path).0;
    let cold = machine.home().join("bundles/cold/archive/v1/kiosk/1.0.0.stb");
    fs::write(&cold, "rotten").unwrap();
    assert_ne!(ask("/bundle/kiosk/1.0.0"), 200);
    let dist = machine.root().join("dist");
    let words = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "1.3.0"];
    machine.ok(&[&words[..], &["--expires", &crate::releases::soon()]].concat());
    crate::releases::until_over(&node, "/bundle/kiosk/1.3.0");
    node.stop();
    found.read(&machine.home());
}

// Proves: GW-78
#[test]
fn events_complete() {
    let mut found = Lines::default();
    of_keys(&mut found);
    of_trees(&mut found);
    of_releases(&mut found);
    let wrong: Vec<String> = HERE.iter().filter_map(|(name, fields, hsl)| found.check(name, fields, hsl)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (name, file, test) in ELSEWHERE {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(
            text.contains(&format!("\"{name}\"")) && text.contains(&format!("fn {test}(")),
            "{name}: {file} {test}"
        );
    }
    println!("{} events here, {} elsewhere", HERE.len(), ELSEWHERE.len());
}
