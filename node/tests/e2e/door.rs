//! What a running gateway lets out: tokens in nothing that it writes, and the two settings of `--compat`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// A gateway whose standard error goes to a file.
struct Door {
    child: std::process::Child,
    at: String,
}

impl Drop for Door {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Door {
    fn start(home: &Path, args: &[&str], log: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
        for (name, _) in std::env::vars() {
            if name.starts_with("SEALTIDE_") || name.starts_with("VERSION_SIGNING_KEY") {
                command.env_remove(name);
            }
        }
        command.env("SEALTIDE_LOG", "trace").arg("--home").arg(home).args(["--json", "gateway", "run"]);
        command.args(["--listen", "127.0.0.1:0"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(std::fs::File::create(log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self { child, at: ready["gateway"].as_str().unwrap().trim_start_matches("http://").to_owned() }
    }

    /// The head and the body of an answer.
    fn ask(&self, request: &str, lines: &[String], body: &str) -> String {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let text = format!("{request} HTTP/1.1\r\nHost: {}\r\n{length}Connection: close\r\n{lines}\r\n{body}", self.at);
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn token(&self) -> String {
        let answer = self.ask("GET /api/auth/csrf-token", &[], "");
        let told: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        told["token"].as_str().unwrap().to_owned()
    }

    /// Asks for a session; the head of the answer and, after a 101, the answers to some messages.
    fn upgrade(&self, query: &str, lines: &[String], messages: &[String]) -> String {
        let mut stream = TcpStream::connect(&self.at).unwrap();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!(
            "GET /version/ws{query} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n",
            self.at
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = read_head(&mut stream);
        if answer.starts_with(b"HTTP/1.1 101") {
            // Masked with zeros; the last says that this is all.
            for message in messages {
                stream.write_all(&text_frame(message)).unwrap();
            }
            stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
            stream.read_to_end(&mut answer).unwrap();
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// The head of an answer, and nothing of what follows.
pub(crate) fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    head
}

/// A short text of a client, masked with zeros.
pub(crate) fn text_frame(message: &str) -> Vec<u8> {
    let length = u8::try_from(message.len()).ok().filter(|length| *length < 126).expect("a short message");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], message.as_bytes()].concat()
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

fn carried(token: &str) -> Vec<String> {
    vec![format!("X-TES-WS-CSRF-Token: {token}")]
}

/// All bytes of all files below a folder.
fn everything(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            bytes.extend(everything(&entry.path()));
        } else if kind.is_file() {
            bytes.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    bytes
}

/// Every way in which a token comes in, taken and refused; then everything that went out, and all that was written.
// Proves: GW-14
#[test]
fn tokens_stand_in_nothing_that_a_gateway_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (home, log) = (dir.path().join("home"), dir.path().join("log"));
    let mut door = Door::start(&home, &["--compat"], &log);
    let tokens: Vec<String> = (0..6).map(|_| door.token()).collect();
    let [header, offer, query, bump, renew, twice] = [0, 1, 2, 3, 4, 5].map(|at| tokens[at].as_str());
    let json = "Content-Type: application/json".to_owned();
    let renewal = format!(r#"{{"type":"renew","token":"{renew}"}}"#);
    let ping = r#"{"type":"ping"}"#.to_owned();
    let mut told = vec![
        door.upgrade("", &carried(header), &[ping, renewal.clone(), renewal]),
        door.upgrade("", &[format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{offer}")], &[]),
        door.upgrade(&format!("?csrf={query}"), &[], &[]),
        door.ask("POST /version/bump", &[json.clone(), format!("X-CSRF-Token: {bump}")], "{}"),
    ];
    assert_eq!(told.iter().map(|answer| status(answer)).collect::<Vec<_>>(), [101, 101, 101, 200]);
    assert!(told[0].contains("renewed") && told[0].contains("CSRF_INVALID"), "{}", told[0]);
    // Used, sent twice, in the wrong place, in every field that an answer or a log might repeat.
    for token in [header, offer, query, bump, renew, twice] {
        let two = [carried(token), carried(token)].concat();
        told.push(door.upgrade("", &two, &[]));
        told.push(door.upgrade(&format!("/{token}"), &[], &[]));
        told.push(door.ask(&format!("GET /{token}"), &[], ""));
        told.push(door.ask("POST /version/bump", &[json.clone(), format!("X-CSRF-Token: {token}{token}")], "{}"));
        for name in ["Host", "Origin", "X-Request-ID", "X-Key-Version", "Idempotency-Key", "Authorization"] {
            let fields = [json.clone(), format!("X-CSRF-Token: {token}"), format!("{name}: +{token}")];
            told.push(door.ask("POST /version/bump", &fields, &format!(r#"{{"entityId":"{token}","{token}":1}}"#)));
        }
    }
    told.push(door.ask("GET /metrics", &[], ""));
    told.push(door.ask("GET /version/health", &[], ""));
    door.child.kill().unwrap();
    door.child.wait().unwrap();
    let (log, files) = (std::fs::read(&log).unwrap(), everything(&home));
    assert!(log.len() > 1_000 && files.len() > 1_000, "there is something to look at");
    let told: Vec<u8> = told.concat().into_bytes();
    for token in &tokens {
        for (what, bytes) in [("an answer", &told), ("the log", &log), ("a file of the home", &files)] {
            let found = bytes.windows(token.len()).any(|piece| piece == token.as_bytes());
            assert!(!found, "a token stands in {what}");
        }
    }
}

// Proves: GW-13
#[test]
fn token_carriers_with_and_without_compat() {
    for compat in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let args: &[&str] = if compat { &["--compat"] } else { &[] };
        let door = Door::start(&dir.path().join("home"), args, &dir.path().join("log"));
        let in_query = door.upgrade(&format!("?csrf={}", door.token()), &[], &[]);
        assert_eq!(status(&in_query), if compat { 101 } else { 403 });
        let both = door.upgrade(&format!("?csrf={}", door.token()), &carried(&door.token()), &[]);
        assert_eq!(status(&both), if compat { 403 } else { 101 }, "a query that is off is none");
        // A public caller reads only with it.
        let public = door.ask("GET /version/registry", &["X-Forwarded-For: 192.0.2.1".to_owned()], "");
        assert_eq!(status(&public), if compat { 200 } else { 401 });
    }
}

/// A certificate and its key, as PEM files in a folder.
fn certify(dir: &Path) -> Vec<String> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=tides.example", "-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    vec!["--tls-cert".into(), path("cert.pem"), "--tls-key".into(), path("key.pem")]
}

fn run(home: &Path, args: &[String], key: Option<&str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealtide"));
    for (name, _) in std::env::vars() {
        if name.starts_with("SEALTIDE_") || name.starts_with("VERSION_SIGNING_KEY") {
            command.env_remove(name);
        }
    }
    command.envs(key.map(|key| ("VERSION_SIGNING_KEY", key)));
    command.arg("--home").arg(home).args(["--json", "gateway", "run"]).args(args).stdin(Stdio::null());
    command
}

/// A listener that counts as public has a key that somebody configured, a host, and outside of loopback a certificate.
// Proves: GW-48
#[test]
fn a_public_listener_without_key_host_or_certificate_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let tls = certify(dir.path());
    let (everywhere, here) = (words(&["--listen", "0.0.0.0:0"]), words(&["--listen", "127.0.0.1:0"]));
    let host = words(&["--public-host", "tides.example"]);
    let key = "a1".repeat(32);
    let key = Some(key.as_str());
    for (why, args, key) in [
        ("no certificate", [everywhere.clone(), host.clone()].concat(), key),
        ("half of it", [everywhere.clone(), host.clone(), tls[..2].to_vec()].concat(), key),
        ("no host", [everywhere.clone(), tls.clone()].concat(), key),
        ("no key", [everywhere.clone(), host.clone(), tls.clone()].concat(), None),
        ("no key behind a proxy", [here.clone(), host.clone()].concat(), None),
        ("anybody bumps", [here, host.clone(), words(&["--auth", "none"])].concat(), key),
    ] {
        let done = run(&home, &args, key).output().unwrap();
        assert_eq!(done.status.code(), Some(2), "{why}: {}", String::from_utf8_lossy(&done.stdout));
    }
    let mut child = run(&home, &[everywhere, host, tls].concat(), key).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let url = ready["gateway"].as_str().unwrap().to_owned();
    let port = url.rsplit_once(':').unwrap().1;
    assert!(url.starts_with("https://"), "{url}");
    let at = format!("https://127.0.0.1:{port}/version/keys");
    let told = Command::new("curl")
        .args(["-sk", "--tlsv1.3", "-H", "Host: tides.example", "-w", "%{http_code}", &at])
        .output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(told.ends_with("200") && told.contains("Ed25519"), "{told}");
}
