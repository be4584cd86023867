//! Signing secrets: in nothing that comes out of a gateway, in no core of it, and out of its memory when they are destroyed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;

use data_encoding::{BASE64, HEXLOWER};
use rustix::process::{Pid, Signal, kill_process};

use crate::gateway::{command, refused};
use crate::support::Machine;

/// A secret, and the spellings in which it could come out.
struct Secret {
    text: String,
    spellings: Vec<(&'static str, Vec<u8>)>,
}

impl Secret {
    fn new(word: &str) -> Self {
        // No byte of it comes twice in a row, so that no run of zeros or of the like is taken for it.
        let raw: Vec<u8> = (0..32).map(|at: u8| at.wrapping_mul(37).wrapping_add(word.as_bytes()[0])).collect();
        let text = HEXLOWER.encode(&raw);
        let spellings = vec![
            ("as text", text.clone().into_bytes()),
            ("as bytes", raw.clone()),
            ("in base64", BASE64.encode(&raw).into_bytes()),
            ("in capitals", text.to_uppercase().into_bytes()),
            ("its first half", text.as_bytes()[..32].to_vec()),
        ];
        Self { text, spellings }
    }

    #[track_caller]
    fn is_not_in(&self, what: &str, bytes: &[u8]) {
        for (how, spelling) in &self.spellings {
            assert!(!holds(bytes, spelling), "a secret stands in {what} {how}");
        }
    }
}

fn holds(bytes: &[u8], piece: &[u8]) -> bool {
    bytes.windows(piece.len()).any(|window| window == piece)
}

fn everything(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            bytes.extend(everything(&entry.path()));
        } else if kind.is_file() {
            bytes.extend(fs::read(entry.path()).unwrap());
        }
    }
    bytes
}

/// A file that only its owner reads.
fn key_file(machine: &Machine, name: &str, secret: &Secret) -> String {
    let path = machine.home().with_file_name(name);
    fs::write(&path, &secret.text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

// Proves: GW-60
#[test]
fn no_leak() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let boss = machine.ok(&["gateway", "bearer", "boss", "--role", "admin"])["token"].as_str().unwrap().to_owned();
    let (first, second) = (Secret::new("a"), Secret::new("m"));
    let files = format!("v1={}", key_file(&machine, "v1.key", &first));
    let variables = [("VERSION_SIGNING_KEY_V2", second.text.as_str()), ("SEALTIDE_LOG", "trace")];
    let log = machine.root().join("trace");
    let mut running = command(&machine.home(), &["--key-files", &files], &variables);
    running.stderr(fs::File::create(&log).unwrap());
    let mut child = running.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    let at = ready["gateway"].as_str().unwrap().trim_start_matches("http://").to_owned();
    let gateway = crate::gateway::Gateway { child: Some(child), at };

    let mut told = vec![line];
    let admin = vec![format!("Authorization: Bearer {boss}")];
    for path in [
        "/health",
        "/version/health",
        "/version/registry",
        "/api/dev/versions",
        "/version/keys",
        "/version/keys/ledger?since=0",
        "/metrics",
        "/api/lifecycle/export",
        "/admin/audit?since=0&limit=1000",
    ] {
        told.push(gateway.ask(&format!("GET {path}"), &admin, ""));
    }
    for body in ["{}", r#"{"crypto":"ed25519","keyVersion":"v2"}"#, r#"{"keyVersion":"v9"}"#, "{"] {
        told.push(gateway.bump(body).to_string());
    }
    for words in [
        &["keys", "status"][..],
        &["keys", "ledger"],
        &["keys", "rotate"],
        &["keys", "rollback"],
        &["audit", "verify"],
        &["config", "show"],
        &["doctor"],
        &["status"],
    ] {
        let done = machine.run(&[&["--yes"], words].concat());
        told.extend([done.stdout, done.stderr]);
    }
    machine.ok(&["down"]);
    drop(gateway);
    told.push(machine.plain(&["audit", "export"]).stdout);
    // A start that is refused for its secrets shows none.
    told.push(refused(&machine.home(), &["--key-files", &files], &[("VERSION_SIGNING_KEY_V2", &first.text)]).1);
    let (told, log, home) = (told.concat().into_bytes(), fs::read(&log).unwrap(), everything(&machine.home()));
    assert!(told.len() > 10_000 && log.len() > 1_000 && home.len() > 10_000, "there is something to look at");
    for secret in [&first, &second] {
        secret.is_not_in("what was told", &told);
        secret.is_not_in("the log", &log);
        // It stays where the operator put it; no copy is made of it.
        secret.is_not_in("the home", &home);
    }
}

/// The limit of the process is nothing, whatever its parent had, and it leaves no core.
// Proves: GW-60
#[test]
fn no_core_is_left() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let place = machine.root().join("place");
    fs::create_dir(&place).unwrap();
    let plain = command(&machine.home(), &[], &[]);
    let mut words = std::process::Command::new("sh");
    words.args(["-c", "ulimit -c unlimited; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    words.current_dir(&place).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = words.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert!(line.contains("sealtide/ready/1"), "{line}");
    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    kill_process(Pid::from_child(&child), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(6) && !status.core_dumped(), "{status:?}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0, "nothing is left behind");
}

/// A secret that is destroyed is not in the memory of the process any more; one that signs is, which shows that it would be
/// found.
// Proves: GW-60
#[test]
fn what_is_destroyed_is_gone_from_memory() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let (first, second) = (Secret::new("c"), Secret::new("t"));
    let files = format!("v1={},v2={}", key_file(&machine, "v1.key", &first), key_file(&machine, "v2.key", &second));
    let variables = [("SEALTIDE_GATEWAY_APP", "yes"), ("SEALTIDE_GATEWAY_KEY_FILES", files.as_str())];
    let node = machine.up_in(&variables, &[]);
    let door = crate::gateway::Gateway { child: None, at: node.gateway().trim_start_matches("http://").to_owned() };
    assert_eq!(door.bump("{}")["keyVersion"], "v1");
    assert!(holds(&node.memory_bytes(), first.text.as_bytes()), "what signs is there");
    machine.ok(&["--yes", "keys", "rotate"]);
    assert_eq!(door.bump("{}")["keyVersion"], "v2");
    machine.ok(&["--yes", "keys", "retire", "v1"]);
    machine.ok(&["--yes", "keys", "destroy", "v1"]);
    // What the allocator moves while it is read may be missing in a picture of the memory: one counts that has the other secret.
    let memory = (0..10).map(|_| node.memory_bytes()).find(|memory| holds(memory, second.text.as_bytes()));
    first.is_not_in("the memory of the process", &memory.expect("the other still signs"));
}
