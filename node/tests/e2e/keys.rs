//! Keys of a gateway as an operator and as callers see them: rotated, rolled back, killed on the way, under traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use data_encoding::BASE64;
use sealtide_crypto::{Ed25519PublicKey, GatewayContext};
use sealtide_identity::keyring::{Algorithm, KeySecret, KeyVersion, LedgerRecord, VersionKeys, decode_signature};
use serde_json::{Value, json};

use crate::gateway::{Gateway, start};
use crate::scale;
use crate::support::{Machine, until};

/// Where a change of keys can be cut, in order; the record is durable from the second on.
const POINTS: [&str; 5] = ["keys_proposed", "keys_committed", "keys_epoch", "keys_audited", "keys_told"];

/// A home with secrets for v1 and v2, and an admin.
struct Keyed {
    machine: Machine,
    secrets: Vec<(String, String)>,
    admin: String,
}

/// One answer to a bump, as it was sent.
struct Answer {
    bumped: String,
    signature: String,
    version: String,
    algorithm: String,
    revision: u64,
}

impl Keyed {
    fn new(versions: u16) -> Self {
        let machine = Machine::new();
        machine.ok(&["init"]);
        let admin = machine.ok(&["gateway", "bearer", "boss", "--role", "admin"])["token"].as_str().unwrap().to_owned();
        let name = |number: u16| match number {
            1 => "VERSION_SIGNING_KEY".to_owned(),
            number => format!("VERSION_SIGNING_KEY_V{number}"),
        };
        let secrets = (1..=versions).map(|number| (name(number), format!("{number:04x}").repeat(16))).collect();
        Self { machine, secrets, admin }
    }

    fn home(&self) -> PathBuf {
        self.machine.home()
    }

    fn start_with(&self, more: &[(&str, &str)]) -> Gateway {
        let own = self.secrets.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        start(&self.home(), &[], &own.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    fn start(&self) -> Gateway {
        self.start_with(&[])
    }

    fn keys(&self, version: &str) -> VersionKeys {
        let number = KeyVersion::parse(version).unwrap();
        let (_, secret) = &self.secrets[usize::from(number.number()) - 1];
        VersionKeys::derive(number, KeySecret::from_text(secret.as_bytes()).unwrap())
    }

    /// Whether a signature is one of the version that it says, and of no other.
    fn check(&self, answer: &Answer) -> Result<(), String> {
        let holds = |version: &str| {
            let (keys, payload) = (self.keys(version), answer.bumped.as_bytes());
            match answer.algorithm.as_str() {
                "HMAC-SHA256" => keys.hmac_verifies(payload, &answer.signature),
                "Ed25519" => {
                    let key = Ed25519PublicKey::parse(&keys.public_keys()[1].public_key).unwrap();
                    let signature = decode_signature(Algorithm::Ed25519, &answer.signature);
                    signature.is_some_and(|it| key.verify_alone(GatewayContext::Bump, payload, &it).is_ok())
                }
                other => panic!("{other}"),
            }
        };
        if !holds(&answer.version) {
            return Err(format!("revision {} does not verify under {}", answer.revision, answer.version));
        }
        let others = (1..=self.secrets.len()).map(|number| format!("v{number}")).filter(|it| *it != answer.version);
        match others.into_iter().find(|other| holds(other)) {
            Some(other) => Err(format!("revision {} verifies under {other} too", answer.revision)),
            None => Ok(()),
        }
    }

    fn admin_order(&self, gateway: &Gateway, path: &str, body: &str) -> Option<Value> {
        let boss = format!("Authorization: Bearer {}", self.admin);
        let token = try_ask(&gateway.at, "GET /api/auth/csrf-token?purpose=admin", std::slice::from_ref(&boss), "")?;
        let token = body_of(&token)["token"].as_str()?.to_owned();
        let lines = [boss, "Content-Type: application/json".to_owned(), format!("X-CSRF-Token: {token}")];
        let answer = try_ask(&gateway.at, &format!("POST /admin/{path}"), &lines, body)?;
        Some(body_of(&answer))
    }

    /// What the audit says about changes of keys: event and epoch.
    fn told(&self) -> Vec<(String, u64)> {
        let lines = self.machine.plain(&["audit", "tail", "-n", "100000"]).stdout;
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let of_keys = lines.filter(|line| line["ledger"].is_string() && line["epoch"].is_string());
        of_keys
            .map(|line| {
                let event = line["[TES_EVENT]"].as_str().unwrap().to_owned();
                (event, line["epoch"].as_str().unwrap().parse().unwrap())
            })
            .collect()
    }
}

/// Sends a request; none when nobody answers, or not to the end.
fn try_ask(at: &str, request: &str, lines: &[String], body: &str) -> Option<String> {
    let mut stream = TcpStream::connect(at).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let text = format!("{request} HTTP/1.1\r\nHost: {at}\r\n{length}Connection: close\r\n{lines}\r\n{body}");
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, got) = answer.split_once("\r\n\r\n")?;
    let wanted = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (Some(got.len()) == wanted).then_some(answer)
}

fn body_of(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|_| panic!("{answer}"))
}

/// A bump that must be done.
fn bump(gateway: &Gateway, body: &str) -> Answer {
    try_bump(&gateway.at, body).unwrap().unwrap_or_else(|code| panic!("{code}"))
}

/// A bump, or the code of its refusal; none when the gateway went away before it answered.
fn try_bump(at: &str, body: &str) -> Option<Result<Answer, String>> {
    let token = body_of(&try_ask(at, "GET /api/auth/csrf-token", &[], "")?)["token"].as_str()?.to_owned();
    let lines = ["Content-Type: application/json".to_owned(), format!("X-CSRF-Token: {token}")];
    let answer = try_ask(at, "POST /version/bump", &lines, body)?;
    let told = body_of(&answer);
    if !answer.starts_with("HTTP/1.1 200") {
        return Some(Err(told["code"].as_str().unwrap_or("none").to_owned()));
    }
    // The signed bytes are cut out of the answer.
    let bumped = answer.split_once("\"bumped\":").unwrap().1.split_once(",\"changes\":").unwrap().0;
    let text = |name: &str| told[name].as_str().unwrap().to_owned();
    Some(Ok(Answer {
        bumped: bumped.to_owned(),
        signature: text("signature"),
        version: text("keyVersion"),
        algorithm: text("alg"),
        revision: told["revision"].as_u64().unwrap(),
    }))
}

// Proves: GW-51, GW-54, GW-59
#[test]
fn keys_as_an_operator_moves_them() {
    let mut keyed = Keyed::new(2);
    let machine = &keyed.machine;
    assert_eq!(machine.run(&["keys", "status"]).document()["error"]["code"], "no_keys");
    let gateway = keyed.start();
    let status = machine.ok(&["keys", "status"]);
    assert_eq!((&status["active"], &status["epoch"]), (&"v1".into(), &1.into()));
    assert_eq!(
        (&status["versions"][1]["state"], &status["versions"][1]["source"]),
        (&"prepared".into(), &"environment".into())
    );
    let preview = machine.ok(&["keys", "rotate", "--dry-run"]);
    assert_eq!(preview["states"], json!({"v1": "verify-only", "v2": "active"}));
    assert_eq!(machine.run(&["keys", "rotate", "--expect", "v2"]).document()["error"]["code"], "key_conflict");

    let moved = machine.ok(&["keys", "rotate", "--reason", "a test"]);
    assert_eq!((&moved["from"], &moved["to"], &moved["epoch"]), (&"v1".into(), &"v2".into(), &2.into()));
    assert_eq!(machine.ok(&["keys", "rotate", "--to", "v2"])["changed"], false);
    assert_eq!(gateway.get("/version/health")["keyVersion"], "2");
    assert_eq!(bump(&gateway, "{}").version, "v2");
    // Who brings secrets brings the next one too.
    assert_eq!(machine.run(&["keys", "rotate"]).document()["error"]["code"], "key_unavailable");
    assert_eq!(machine.run(&["keys", "rotate", "--dry-run"]).document()["error"]["code"], "key_unavailable");
    let ledger = machine.ok(&["keys", "ledger"]);
    assert_eq!(ledger["records"][1]["reason"], "a test");
    assert_eq!(gateway.get("/version/keys/ledger?since=1")[0], ledger["records"][1]["record"]);
    assert_eq!(machine.ok(&["keys", "rollback"])["to"], "v1");
    assert_eq!(machine.run(&["keys", "rollback"]).code, 1);

    // What nothing brings back asks a person, and nobody is there.
    let held = machine.run(&["keys", "force", "v2"]);
    assert_eq!((held.code, &held.document()["error"]["code"]), (8, &"not_confirmed".into()));
    assert_eq!(machine.ok(&["keys", "status"])["epoch"], 3, "nothing changed");
    machine.ok(&["--yes", "keys", "force", "v2"]);
    assert_eq!(machine.run(&["keys", "rollback"]).document()["error"]["code"], "key_state");
    assert_eq!(machine.run(&["--yes", "keys", "retire", "v2"]).document()["error"]["code"], "key_active");

    // A version of its own, and the end of the one that came before.
    assert_eq!(machine.ok(&["keys", "new"])["version"], "v3");
    machine.ok(&["keys", "rotate"]);
    machine.ok(&["--yes", "keys", "retire", "v1"]);
    let named = ["--yes", "keys", "retire", "v2", "--compromised", "--last-good", "stable=7"];
    assert_eq!(machine.run(&named).code, 2, "v2 signed nothing in that channel");
    machine.ok(&["--yes", "keys", "retire", "v2", "--compromised"]);
    machine.ok(&["--yes", "keys", "destroy", "v1"]);
    let told = gateway.bump("{}");
    assert_eq!(told["keyVersion"], "v3");
    drop(gateway);
    // Alone, under the lock of the store, without the secrets that are not needed any more.
    let secrets = std::mem::take(&mut keyed.secrets);
    let status = keyed.machine.ok(&["keys", "status"]);
    let states: Vec<&str> =
        status["versions"].as_array().unwrap().iter().map(|version| version["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["destroyed", "compromised", "active"]);
    assert_eq!(status["versions"][2]["source"], "stored");
    let events: Vec<(String, u64)> = keyed.told();
    let wanted = [
        "key:loaded",
        "key_rotate",
        "key_rollback",
        "key:forced",
        "key:loaded",
        "key_rotate",
        "key:retired",
        "key:compromised",
        "key:destroyed",
    ];
    assert_eq!(events.iter().map(|(event, _)| event.as_str()).collect::<Vec<_>>(), wanted);
    assert_eq!(events.iter().map(|(_, epoch)| *epoch).collect::<Vec<_>>(), (1..=9).collect::<Vec<u64>>());
    keyed.machine.ok(&["audit", "verify"]);
    for (_, secret) in secrets {
        let lines = keyed.machine.plain(&["audit", "tail", "-n", "100000"]).stdout;
        assert!(!lines.contains(&secret));
    }
}

// Proves: GW-51, GW-57
#[test]
fn a_home_that_made_its_key_makes_the_next_one_when_it_rotates() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let first = machine.ok(&["keys", "new"]);
    assert_eq!(first["to"], "v1");
    machine.ok(&["keys", "rotate", "--to", first["version"].as_str().unwrap()]);
    let status = || machine.ok(&["keys", "status"]);
    let (active, epoch) = (status()["active"].clone(), status()["epoch"].clone());
    assert_eq!(active, "v2", "the one that `new` made was there to rotate to");

    let preview = machine.ok(&["keys", "rotate", "--dry-run"]);
    assert_eq!((&preview["would_make"], &preview["would_be"]), (&"v3".into(), &"v3".into()));
    assert_eq!(preview["states"], json!({"v2": "verify-only", "v3": "active"}));
    assert_eq!(status()["epoch"], epoch, "nothing changed");
    assert_eq!(machine.run(&["keys", "rotate", "--expect", "v1"]).document()["error"]["code"], "key_conflict");
    assert_eq!(status()["epoch"], epoch, "nothing was made");

    let moved = machine.ok(&["keys", "rotate"]);
    assert_eq!((&moved["made"], &moved["from"], &moved["to"]), (&"v3".into(), &"v2".into(), &"v3".into()));
    // One that is there is taken, and none is made.
    machine.ok(&["keys", "new"]);
    let moved = machine.ok(&["keys", "rotate"]);
    assert_eq!((&moved["made"], &moved["to"]), (&Value::Null, &"v4".into()));
    let states = status()["versions"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect::<Vec<_>>();
    assert_eq!(states, ["verify-only", "verify-only", "verify-only", "active"]);
    machine.ok(&["audit", "verify"]);
}

#[test]
fn keys_over_the_door() {
    let keyed = Keyed::new(2);
    let gateway = keyed.start();
    let done = keyed.admin_order(&gateway, "rotate", r#"{"to":"v2","expect":"v1","reason":"over the door"}"#).unwrap();
    assert_eq!((&done["keyVersion"], &done["epoch"], &done["hsl"]), (&"2".into(), &2.into(), &"#9D4EDD".into()));
    let conflict = keyed.admin_order(&gateway, "rotate", r#"{"expect":"v1"}"#).unwrap();
    assert_eq!(conflict["code"], "STATE_CONFLICT");
    assert_eq!(keyed.admin_order(&gateway, "rotate", "{}").unwrap()["code"], "KEY_UNAVAILABLE", "nothing higher");
    let keys = gateway.get("/version/keys");
    assert_eq!((&keys["active"], &keys["accepted"][0]["state"]), (&"v2".into(), &"verify-only".into()));
    let answer = bump(&gateway, r#"{"crypto":"ed25519"}"#);
    keyed.check(&answer).unwrap();
    let question = json!({
        "payload": BASE64.encode(answer.bumped.as_bytes()), "signature": answer.signature,
        "keyVersion": "v2", "alg": "Ed25519", "context": "bump",
    });
    let told =
        gateway.ask("POST /version/verify", &["Content-Type: application/json".to_owned()], &question.to_string());
    assert_eq!(body_of(&told), json!({"valid": true, "keyVersion": "v2", "state": "active"}));
    let denied = gateway.ask("POST /admin/rollback", &["Content-Type: application/json".to_owned()], "{}");
    assert!(denied.starts_with("HTTP/1.1 403"), "{denied}");
    let boss = format!("Authorization: Bearer {}", keyed.admin);
    until("the refusal stands in the audit", || {
        let lines = gateway.ask("GET /admin/audit?limit=1000", std::slice::from_ref(&boss), "");
        let denied = lines.contains("admin:denied") && lines.contains("over the door") && lines.contains("door:boss");
        if denied { Ok(()) } else { Err(lines) }
    });
}

// Proves: GW-53
#[test]
fn rotate_crash() {
    for (at, point) in POINTS.into_iter().enumerate() {
        let keyed = Keyed::new(2);
        drop(keyed.start());
        let mut gateway = keyed.start_with(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))]);
        assert!(keyed.admin_order(&gateway, "rotate", "{}").is_none(), "{point}");
        assert!(!gateway.child.take().unwrap().wait().unwrap().success());
        let gateway = keyed.start();
        let wanted = if at == 0 { "1" } else { "2" };
        assert_eq!(gateway.get("/version/health")["keyVersion"], wanted, "{point}");
        keyed.check(&bump(&gateway, "{}")).unwrap();
        drop(gateway);
        // A second start has nothing left to finish.
        drop(keyed.start());
        let told = keyed.told();
        let rotations = if at == 0 {
            vec![("key:loaded".to_owned(), 1)]
        } else {
            vec![("key:loaded".to_owned(), 1), ("key_rotate".to_owned(), 2)]
        };
        assert_eq!(told, rotations, "{point}: told once");
        keyed.machine.ok(&["audit", "verify"]);
    }
}

// Proves: GW-54
#[test]
fn a_new_version_whose_signature_fails_is_left_by_itself() {
    let keyed = Keyed::new(2);
    let gateway = keyed.start_with(&[("SEALTIDE_FAULT", "probation:3")]);
    keyed.admin_order(&gateway, "rotate", "{}").unwrap();
    let versions: Vec<String> = (0..5)
        .map(|_| {
            let answer = bump(&gateway, "{}");
            keyed.check(&answer).unwrap();
            answer.version
        })
        .collect();
    assert_eq!(versions, ["v2", "v2", "v1", "v1", "v1"], "nobody got the signature that failed");
    let back = keyed.machine.ok(&["keys", "ledger"])["records"][2].clone();
    assert_eq!((&back["action"], &back["auto"], &back["by"]), (&"rollback".into(), &true.into(), &"probation".into()));
    drop(gateway);
    assert!(keyed.told().contains(&("key_rollback".to_owned(), 3)));
    assert_eq!(keyed.start().get("/version/health")["keyVersion"], "1", "the record without the new pair is taken");
}

// Proves: GW-59
#[test]
fn vn_comes_by_configuration() {
    let mut keyed = Keyed::new(1);
    let first = {
        let gateway = keyed.start();
        bump(&gateway, "{}")
    };
    for number in 2..=3 {
        keyed.secrets.push((format!("VERSION_SIGNING_KEY_V{number}"), format!("{number:04x}").repeat(16)));
        let gateway = keyed.start();
        assert_eq!(gateway.get("/version/health")["keyVersion"], (number - 1).to_string(), "prepared, not used");
        keyed.machine.ok(&["keys", "rotate"]);
        let answer = bump(&gateway, r#"{"crypto":"ed25519"}"#);
        assert_eq!(answer.version, format!("v{number}"));
        keyed.check(&answer).unwrap();
        let question = json!({
            "payload": BASE64.encode(first.bumped.as_bytes()), "signature": first.signature,
            "keyVersion": "v1", "alg": first.algorithm,
        });
        let lines = ["Content-Type: application/json".to_owned()];
        let told = body_of(&gateway.ask("POST /version/verify", &lines, &question.to_string()));
        assert_eq!(told, json!({"valid": true, "keyVersion": "v1", "state": "verify-only"}));
    }
    // The active version is not given up because its secret is away.
    keyed.secrets.pop();
    let own: Vec<_> = keyed.secrets.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(crate::gateway::refused(&keyed.home(), &[], &own).0, 6);
}

/// Rotates, rolls back and rotates again, cut at every point, while callers bump all the time. Every answer that anybody
/// got is verified under its label, and under no other.
// Proves: GW-52, GW-53
#[test]
fn rotate_under_load() {
    let keyed = Keyed::new(2);
    // Each start of the gateway has a number, so that what was lost with one is not counted for the next.
    let door: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let (stop, answers) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let lost: Mutex<BTreeMap<u64, u64>> = Mutex::default();
    let call = |number: usize| {
        let mut round = number;
        while !stop.load(Ordering::Relaxed) {
            let at = door.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let Some((start, at)) = at else {
                std::thread::yield_now();
                continue;
            };
            round += 1;
            let bodies = [r#"{"entityId":"api:sample"}"#, r#"{"keyVersion":"v1"}"#, r#"{"crypto":"ed25519"}"#];
            match try_bump(&at, bodies[round % bodies.len()]) {
                Some(Ok(answer)) => answers.lock().unwrap().push(answer),
                // v1 makes no Ed25519 signatures, and says so.
                Some(Err(code)) => assert!(round % bodies.len() == 2 && code == "INVALID_FIELD", "{code}"),
                None => *lost.lock().unwrap().entry(start).or_default() += 1,
            }
        }
    };
    let call = &call;
    let seen = || answers.lock().unwrap().len();
    let traffic = |what: &str| {
        let before = seen();
        until(what, || if seen() >= before + 6 { Ok(()) } else { Err(format!("{} answers", seen())) });
    };
    let starts = AtomicU64::new(0);
    let open = |gateway: &Gateway| {
        let start = starts.fetch_add(1, Ordering::Relaxed);
        *door.lock().unwrap() = Some((start, gateway.at.clone()));
        start
    };
    let (mut cuts, mut changes) = (0, 0);
    std::thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _stop = Stop(&stop);
        for number in 0..4 {
            scope.spawn(move || call(number));
        }
        drop(keyed.start());
        for _ in 0..scale() {
            for (path, wanted) in [("rotate", "2"), ("rollback", "1"), ("rotate", "2")] {
                // Without a cut nobody is turned away.
                let gateway = keyed.start();
                let from = gateway.get("/version/health")["keyVersion"].clone();
                let start = open(&gateway);
                traffic("callers before the change");
                keyed.admin_order(&gateway, path, "{}").unwrap();
                traffic("callers after the change");
                assert_eq!(lost.lock().unwrap().get(&start), None, "a change turns nobody away");
                assert_eq!(gateway.get("/version/health")["keyVersion"], wanted);
                changes += 1;
                *door.lock().unwrap() = None;
                // Back to where it was, to be cut on the way.
                let back = if path == "rotate" { "rollback" } else { "rotate" };
                keyed.admin_order(&gateway, back, "{}").unwrap();
                assert_eq!(gateway.get("/version/health")["keyVersion"], from);
                drop(gateway);
                for (number, point) in POINTS.into_iter().enumerate() {
                    let mut gateway = keyed.start_with(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))]);
                    open(&gateway);
                    traffic("callers before the cut");
                    assert!(keyed.admin_order(&gateway, path, "{}").is_none(), "{point}");
                    gateway.child.take().unwrap().wait().unwrap();
                    *door.lock().unwrap() = None;
                    cuts += 1;
                    let gateway = keyed.start();
                    let holds = gateway.get("/version/health")["keyVersion"].clone();
                    assert_eq!(holds, if number == 0 { from.clone() } else { wanted.into() }, "{path} cut at {point}");
                    open(&gateway);
                    traffic("callers after the cut");
                    // The next point starts from where this one did; the last one leaves the change done.
                    let is_last = number + 1 == POINTS.len();
                    if holds == wanted && !is_last {
                        keyed.admin_order(&gateway, back, "{}").unwrap();
                    }
                    *door.lock().unwrap() = None;
                }
            }
        }
    });
    let answers = answers.into_inner().unwrap();
    let faults: Vec<String> = answers.iter().filter_map(|answer| keyed.check(answer).err()).collect();
    assert!(
        faults.is_empty(),
        "{} of {} signatures: {:?}",
        faults.len(),
        answers.len(),
        &faults[..faults.len().min(3)]
    );
    let revisions: BTreeSet<u64> = answers.iter().map(|answer| answer.revision).collect();
    assert_eq!(revisions.len(), answers.len(), "no revision was given twice");
    let mut by: BTreeMap<&str, usize> = BTreeMap::new();
    answers.iter().for_each(|answer| *by.entry(&answer.version).or_default() += 1);
    assert!(by.len() == 2, "both versions signed: {by:?}");
    println!(
        "{} signatures verified under their label ({by:?}), 0 rejected, 0 mislabelled; {changes} changes, {cuts} cuts; \
         {} requests met a gateway that was gone",
        answers.len(),
        lost.lock().unwrap().values().sum::<u64>()
    );
    keyed.machine.ok(&["audit", "verify"]);
    let told = keyed.told();
    let epochs: Vec<u64> = told.iter().map(|(_, epoch)| *epoch).collect();
    assert_eq!(epochs, (1..=epochs.len() as u64).collect::<Vec<u64>>(), "each change was told once, in order");
}

// Proves: GW-58
#[test]
fn rotate_signal() {
    let (a, b) = (Machine::new(), Machine::new());
    let supervisor = b.ok(&["init"])["node"].as_str().unwrap().to_owned();
    let (first, second) = ("a1".repeat(32), "b2".repeat(32));
    let variables = [
        ("VERSION_SIGNING_KEY", first.as_str()),
        ("VERSION_SIGNING_KEY_V2", &second),
        ("SEALTIDE_GATEWAY_APP", "yes"),
        ("SEALTIDE_GATEWAY_SUPERVISORS", &supervisor),
    ];
    crate::support::write(&a.notes(), "plan.md", "plan\n");
    let mut node = a.up_in(&variables, &[a.notes_text()]);
    let joined = b.ok(&["join", node.ticket(), b.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    let mut other = b.up(&[]);
    let status = a.ok(&["keys", "status"]);
    let ledger = status["ledger"].as_str().unwrap().to_owned();
    let signal = |machine: &Machine, action: &str, epoch: &str| {
        machine.plain(&["keys", "signal", action, "--ledger", &ledger, "--epoch", epoch]).stdout
    };
    let put = |name: &str, text: &str| {
        let done = b.run_with(&["put", "Notes", name], text);
        assert_eq!(done.code, 0, "{done:?}");
    };
    let active = || a.ok(&["keys", "status"])["active"].as_str().unwrap().to_owned();
    let audit = |what: &str| {
        let lines = a.plain(&["audit", "tail", "-n", "100000"]).stdout;
        lines.lines().filter(|line| line.contains(what)).count()
    };
    // Of a node that is not listed, and of another epoch: nothing happens.
    put("stranger", &signal(&a, "rotate", "1"));
    until("the signal of a stranger is in the audit", || {
        if audit("no supervisor") == 1 { Ok(()) } else { Err(String::new()) }
    });
    put("early", &signal(&b, "rotate", "2"));
    let good = signal(&b, "rotate", "1");
    put("rotate", &good);
    until("the signal is followed", || if active() == "v2" { Ok(()) } else { Err(active()) });
    let record = a.ok(&["keys", "ledger"])["records"][1].clone();
    assert_eq!(record["by"], format!("signal:{supervisor}"));
    // The same signal again, and then one that counts: only that one is followed.
    put("again", &good);
    put("back", &signal(&b, "rollback", "2"));
    until("the second signal is followed", || if active() == "v1" { Ok(()) } else { Err(active()) });
    put("once more", &good);
    put("back again", &signal(&b, "rotate", "3"));
    until("the third signal is followed", || if active() == "v2" { Ok(()) } else { Err(active()) });
    assert_eq!(a.ok(&["keys", "status"])["epoch"], 4, "three signals, three changes");
    other.stop();
    node.stop();
}

/// Pages of 256 records, oldest first; what was paged is the whole ledger.
// Proves: GW-109
#[test]
fn ledger_endpoint() {
    let keyed = Keyed::new(2);
    let gateway = keyed.start();
    for epoch in 2..=300_u64 {
        let order = if epoch.is_multiple_of(2) { "rotate" } else { "rollback" };
        let told = keyed.admin_order(&gateway, order, "{}").unwrap();
        assert_eq!(told["epoch"], epoch, "{told}");
    }
    let page = |since: u64| {
        let page = gateway.get(&format!("/version/keys/ledger?since={since}"));
        let records: Vec<LedgerRecord> =
            page.as_array().unwrap().iter().map(|record| LedgerRecord::parse(record).unwrap()).collect();
        records
    };
    let epochs = |since| page(since).iter().map(|record| record.epoch).collect::<Vec<_>>();
    assert_eq!(epochs(0), (1..=256).collect::<Vec<_>>());
    assert_eq!(epochs(256), (257..=300).collect::<Vec<_>>());
    assert_eq!(epochs(44), (45..=300).collect::<Vec<_>>(), "a page that is just full");
    assert_eq!(epochs(43), (44..=299).collect::<Vec<_>>(), "and one that is cut");
    assert!(epochs(300).is_empty() && epochs(1 << 40).is_empty());
    let whole = [page(0), page(256)].concat();
    assert!(whole.windows(2).all(|pair| pair[1].prev == Some(pair[0].hash())), "no record is missing between pages");
    // It is for anybody.
    let from_afar = gateway.ask("GET /version/keys/ledger?since=299", &["X-Real-IP: 9.9.9.9".to_owned()], "");
    assert!(from_afar.starts_with("HTTP/1.1 200"), "{from_afar}");
}
