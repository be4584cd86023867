//! The gateway as a process of its own: a bare start, bumps that survive a kill, keys that are added and kept.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Machine, write};

/// A running gateway; it is killed when dropped.
pub(crate) struct Gateway {
    /// None for the door of a node.
    pub(crate) child: Option<Child>,
    pub(crate) at: String,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn command(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
    for (name, _) in std::env::vars() {
        if name.starts_with("SEALTIDE_") || name.starts_with("VERSION_SIGNING_KEY") {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied()).arg("--home").arg(home).args(["--json", "gateway", "run"]);
    if !args.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn start(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Gateway {
    let mut child = command(home, args, variables).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
        let mut told = String::new();
        child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        panic!("{line:?} {told}")
    });
    assert_eq!(ready["schema"], "sealtide/ready/1");
    Gateway { child: Some(child), at: ready["gateway"].as_str().unwrap().trim_start_matches("http://").to_owned() }
}

/// The exit status of a gateway that does not start, and what it said.
pub(crate) fn refused(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let done = command(home, args, variables).output().unwrap();
    let told = [done.stdout, done.stderr].concat();
    (done.status.code().unwrap(), String::from_utf8(told).unwrap())
}

impl Gateway {
    pub(crate) fn ask(&self, request: &str, lines: &[String], body: &str) -> String {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{request} HTTP/1.1\r\nHost: {}\r\n{length}Connection: close\r\n{lines}\r\n{body}", self.at);
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let answer = self.ask(&format!("GET {path}"), &[], "");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|_| panic!("{answer}"))
    }

    pub(crate) fn bump(&self, body: &str) -> Value {
        let token = self.get("/api/auth/csrf-token")["token"].as_str().unwrap().to_owned();
        let lines = ["Content-Type: application/json".to_owned(), format!("X-CSRF-Token: {token}")];
        let answer = self.ask("POST /version/bump", &lines, body);
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap_or_else(|_| panic!("{answer}"))
    }
}

// Proves: GW-97
#[test]
fn bare_start() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let gateway = start(&home, &[], &[]);
    assert_eq!(gateway.get("/health")["status"], "ok");
    assert_eq!(gateway.get("/version/health")["keyVersion"], "1");
    assert_eq!(gateway.get("/version/registry")["entities"].as_array().unwrap().len(), 3);
    assert_eq!(gateway.get("/api/dev/versions")["validation"]["valid"], true);
    let told = gateway.bump(r#"{"scope":"minor","entityId":"component:sample"}"#);
    assert_eq!(
        (&told["revision"], &told["keyVersion"], &told["alg"]),
        (&2.into(), &"v1".into(), &"HMAC-SHA256".into())
    );
    assert_eq!(gateway.bump(r#"{"entityId":"api:sample","crypto":"ed25519"}"#)["code"], "INVALID_FIELD");
    assert_eq!(gateway.bump(r#"{"dryRun":true}"#)["revision"], 2);
    // The home is one node's at a time.
    assert_eq!(refused(&home, &[], &[]).0, 11);
}

/// The node itself has the whole door where the setting says so: `gateway run` cannot share its home.
// Proves: GW-97
#[test]
fn the_door_of_a_running_node() {
    let machine = Machine::new();
    write(&machine.notes(), "plan.md", "plan\n");
    let mut revision = Value::Null;
    for _ in 0..2 {
        let mut node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[machine.notes_text()]);
        let at = node.gateway().trim_start_matches("http://").to_owned();
        let door = Gateway { child: None, at };
        assert_eq!(door.get("/health")["status"], "ok");
        assert!(door.ask("GET /metrics", &[], "").contains("sealtide_link_sessions 0"));
        let registry = door.get("/version/registry");
        if !revision.is_null() {
            assert_eq!(registry["revision"], revision, "{registry}");
        }
        revision = door.bump(r#"{"scope":"minor","entityId":"component:sample"}"#)["revision"].clone();
        assert!(revision.is_u64(), "{revision}");
        assert_eq!(machine.ok(&["spaces", "list"])["spaces"].as_array().unwrap().len(), 1, "no space of an app");
        assert_eq!(refused(&machine.home(), &[], &[]).0, 11, "the home is in use");
        node.stop();
    }
    machine.ok(&["verify"]);
}

// Proves: GW-47, GW-65
#[test]
fn bumps_and_the_key_that_was_made_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let (mut kid, mut revision) = (None, 1);
    for _ in 0..3 {
        let gateway = start(&home, &[], &[]);
        for _ in 0..3 {
            let told = gateway.bump(r#"{"entityId":"api:sample","cascade":false}"#);
            revision += 1;
            assert_eq!(told["revision"], revision, "nothing is lost or counted twice");
            assert_eq!(*kid.get_or_insert(told["kid"].clone()), told["kid"], "the same key signs");
        }
        // Dropped: killed without a word.
    }
    let gateway = start(&home, &[], &[]);
    assert_eq!(gateway.get("/version/registry")["revision"], revision);
    assert_eq!(gateway.get("/version/health")["lastSigVersion"], "v1");
    drop(gateway);
    let done = Command::new(env!("CARGO_BIN_EXE_sealtide"))
        .arg("--home")
        .arg(&home)
        .args(["--json", "verify"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

// Proves: GW-65
#[test]
fn bump_serial() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = start(&dir.path().join("home"), &[], &[]);
    let patch = || gateway.bump(r#"{"entityId":"api:sample"}"#)["revision"].as_u64().unwrap();
    let mut revisions: Vec<u64> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..10).map(|_| scope.spawn(|| (0..10).map(|_| patch()).collect::<Vec<_>>())).collect();
        tasks.into_iter().flat_map(|task| task.join().unwrap()).collect()
    });
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=101).collect::<Vec<u64>>());
    let registry = gateway.get("/version/registry");
    assert_eq!(registry["entities"][2]["currentVersion"], "1.0.100");
}

// Proves: GW-97
#[test]
fn registry_import() {
    let dir = tempfile::tempdir().unwrap();
    let (home, file) = (dir.path().join("home"), dir.path().join("registry.json"));
    let entity = |id: &str| {
        format!(
            r#"{{"id":"{id}","type":"global","currentVersion":"v2.1.02","displayName":"é","updateStrategy":"independent","displayInUi":true,"files":[],"kept":[1.5,{{"b":1,"a":2}}]}}"#
        )
    };
    std::fs::write(&file, "[{\"id\":1}]").unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(refused(&home, &["--registry", path], &[]).0, 2);
    std::fs::write(&file, format!("[{}]", entity("global:main"))).unwrap();
    let gateway = start(&home, &["--registry", path], &[]);
    let answer = gateway.ask("GET /version/registry", &[], "");
    assert!(answer.contains(&entity("global:main")), "members keep their order and bytes: {answer}");
    assert_eq!(gateway.bump("{}")["changes"][0]["newVersion"], "2.1.3");
    drop(gateway);
    std::fs::write(&file, format!("[{}]", entity("global:other"))).unwrap();
    let gateway = start(&home, &["--registry", path], &[]);
    assert_eq!(gateway.get("/version/registry")["entities"][0]["id"], "global:main", "what is stored counts");
}

// Proves: GW-45, GW-101
#[test]
fn secrets_that_are_refused_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let (first, second) = ("a1".repeat(32), "b2".repeat(32));
    let refusals: [&[(&str, &str)]; 4] = [
        &[("VERSION_SIGNING_KEY", "tiny-secret")],
        &[("VERSION_SIGNING_KEY", &first), ("VERSION_SIGNING_KEY_V1", &second)],
        &[("VERSION_SIGNING_KEY", &first), ("VERSION_SIGNING_KEY_V2", &first)],
        &[("VERSION_SIGNING_KEY_V2", "a passphrase that is long enough")],
    ];
    for variables in refusals {
        let (code, told) = refused(&home, &[], variables);
        assert_eq!(code, 2, "{told}");
        assert!(variables.iter().all(|(_, secret)| !told.contains(secret)), "{told}");
    }
    let gateway = start(&home, &[], &[("VERSION_SIGNING_KEY", &first)]);
    gateway.bump("{}");
    drop(gateway);
    // Another secret under the same name is not the key that the ledger knows.
    let (code, told) = refused(&home, &[], &[("VERSION_SIGNING_KEY", &second)]);
    assert!(code == 5 && told.contains("v1"), "{code} {told}");
    assert!(start(&home, &[], &[("VERSION_SIGNING_KEY", &first)]).bump("{}")["revision"] == 3);
}

// Proves: GW-96
#[test]
fn the_echo_needs_no_home_and_no_other_machine() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let gateway = start(&home, &["--echo"], &[]);
    assert!(gateway.ask("GET /version/registry", &[], "").starts_with("HTTP/1.1 404"));
    assert!(!home.exists());
    for args in
        [&["--echo", "--public-host", "a.example"][..], &["--trusted-proxy", "10.0.0.0/8"], &["--listen", "0.0.0.0:0"]]
    {
        let words: Vec<&str> = args.to_vec();
        assert_eq!(refused(&home, &words, &[]).0, 2, "{args:?}");
    }
}
