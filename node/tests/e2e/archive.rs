//! Archived bundles in a bucket: with a simulator of S3 (moto), which knows classes and conditions and looks at no signature,
//! with one that checks every signature and keeps objects in a directory (s3s-fs),
//! and with servers that refuse one thing each. None of them is S3 itself.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::releases::{Publisher, audited, get};
use crate::support::Machine;

/// The secret of the access key; nothing may ever print it.
const SECRET: &str = "sesame0sesame1sesame2sesame3";

/// A running simulator with an empty bucket `tides`; it ends with this.
struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// `None`, said aloud, where it is not installed.
    fn start() -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/moto/venv/bin/moto_server");
        if !program.exists() {
            println!("skipped: moto is not installed; `make setup` does it");
            return None;
        }
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.find_map(|line| line.split_once("Running on ").map(|(_, url)| url.trim().to_owned())).unwrap();
        // It tells every request; somebody must read.
        std::thread::spawn(move || lines.for_each(drop));
        let moto = Self { child, url };
        assert_eq!(moto.ask("PUT", "/tides", "").0, 200);
        Some(moto)
    }

    /// One request: status, head.
    fn ask(&self, method: &str, path: &str, more: &str) -> (u16, String) {
        let at = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(at).unwrap();
        // Somebody must sign; whether the signature is right is not looked at.
        let key = "Credential=me/20261128/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {at}\r\nAuthorization: AWS4-HMAC-SHA256 {key}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let head = String::from_utf8_lossy(&answer).split("\r\n\r\n").next().unwrap().to_lowercase();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that answers every request with the same: a status, an XML code.
fn refusing(status: &'static str, code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer_alike(stream, status, code));
        }
    });
    url
}

fn answer_alike(stream: TcpStream, status: &str, code: &str) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let _ = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink());
    let body = if code.is_empty() { String::new() } else { format!("<Error><Code>{code}</Code></Error>") };
    let _ = write!(
        reader.get_mut(),
        "HTTP/1.1 {status}\r\nETag: \"x\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

/// A publisher whose archive is bucket `tides` of a server, with the key in a file for its owner alone.
fn publisher_at(url: &str) -> Publisher {
    let publisher = Publisher::new();
    let keys = publisher.file("s3.keys");
    fs::write(&keys, format!("aws_access_key_id = me\naws_secret_access_key = {SECRET}\n")).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    publisher.machine.ok(&["init"]);
    for (key, value) in [("url", "s3://tides/apps"), ("endpoint", url), ("credentials_file", keys.to_str().unwrap())] {
        publisher.machine.ok(&["config", "set", &format!("archive.{key}"), value]);
    }
    publisher
}

const ARCHIVE: [&str; 4] = ["release", "archive", "--older", "0s"];

/// Tier and place of each release.
fn places(machine: &Machine) -> Vec<(String, Option<String>)> {
    let shown = machine.ok(&["release", "show", "kiosk"]);
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let rows = shown["releases"].as_array().unwrap().iter();
    rows.map(|row| (word(&row["tier"]).unwrap_or_else(|| "gone".to_owned()), word(&row["place"]))).collect()
}

/// What the server refused, in the machine's words: nothing was lost, and no secret is in it.
#[track_caller]
fn refused(publisher: &Publisher, exit: i32, code: &str) -> Value {
    let error = publisher.machine.fails(&ARCHIVE, exit, code);
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
    assert!(!error.to_string().contains(SECRET), "{error}");
    assert_eq!(places(&publisher.machine), [("STANDARD".to_owned(), None)], "the bundle stays hot");
    error
}

/// Bytes that do not shrink.
fn noise(bytes: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[(state % 64) as usize])
    };
    (0..bytes).map(|_| next()).collect()
}

// Proves: GW-74, GW-75
#[test]
fn bundles_are_archived_in_a_bucket_and_served_from_there() {
    let Some(moto) = Moto::start() else { return };
    let publisher = publisher_at(&moto.url);
    publisher.publish("1.0.0");
    // This one is larger than what goes in one piece.
    publisher.changes("big.bin", &noise(24 << 20));
    publisher.publish("1.1.0");
    let machine = &publisher.machine;
    let file = |version: &str| fs::read(publisher.bundle(version)).unwrap();
    assert!(file("1.0.0").len() < 16 << 20 && file("1.1.0").len() > 16 << 20);
    let done = machine.ok(&ARCHIVE);
    assert_eq!((&done["moved"], &done["failed"], &done["left"]), (&Value::from(2), &Value::from(0), &Value::from(0)));
    let place = |version: &str| {
        ("INFREQUENT_ACCESS".to_owned(), Some(format!("s3://tides/apps/archive/v1/kiosk/{version}.stb")))
    };
    assert_eq!(places(machine), [place("1.0.0"), place("1.1.0")]);
    for version in ["1.0.0", "1.1.0"] {
        for end in ["stb", "manifest.json", "meta.json"] {
            let path = format!("/tides/apps/archive/v1/kiosk/{version}.{end}");
            let (status, head) = moto.ask("HEAD", &path, "");
            assert!(status == 200 && head.contains("x-amz-storage-class: standard_ia"), "{path}: {head}");
            // The condition that the node puts is one that this server looks at.
            assert_eq!(moto.ask("PUT", &path, "If-None-Match: *\r\n").0, 412, "{path}");
        }
        assert!(!machine.home().join(format!("bundles/hot/bundle/v1/kiosk/{version}.stb")).exists());
        assert!(!machine.home().join(format!("bundles/cold/archive/v1/kiosk/{version}.stb")).exists());
    }
    assert_eq!(audited(machine, "bundle:archived"), 2);
    assert_eq!(machine.ok(&ARCHIVE)["moved"], 0, "nothing moves twice");
    // An archived one is promoted as any other, out of the bucket.
    let words = ["release", "promote", "kiosk", "--from", "stable", "--to", "lts", "--version", "1.0.0"];
    assert_eq!(machine.ok(&words)["version"], "1.0.0");
    let scratch = machine.home().join("bundles/scratch/fetched");
    assert_eq!(fs::read_dir(&scratch).unwrap().count(), 1);
    let node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[]);
    let ask = |path: &str| get(node.gateway(), path);
    for version in ["1.0.0", "1.1.0"] {
        let (status, head, body) = ask(&format!("/bundle/kiosk/{version}"));
        assert!(status == 200 && head.contains("tes-storage-class: infrequent_access\r\n"), "{head}");
        assert!(body == file(version), "{version}");
    }
    // A copy that rotted is fetched again.
    for copy in fs::read_dir(&scratch).unwrap().map(|entry| entry.unwrap().path()) {
        fs::write(copy, b"rotten").unwrap();
    }
    assert!(ask("/bundle/kiosk/1.0.0").2 == file("1.0.0"));
    // The server is away: what is archived and not here cannot be served, what is hot goes on.
    drop(moto);
    fs::remove_dir_all(&scratch).unwrap();
    assert_eq!(ask("/bundle/kiosk/1.1.0").0, 503);
    assert_eq!(ask("/bundle/kiosk/1.0.0~lts").0, 200);
    let words = ["release", "promote", "kiosk", "--from", "stable", "--to", "lts", "--version", "1.1.0"];
    let error = machine.fails(&words, 1, "archive_unreachable");
    assert!(error["message"].as_str().unwrap().contains("s3://tides/apps"), "{error}");
    machine.fails(&ARCHIVE, 1, "archive_unreachable");
    assert_eq!(ask("/bundle/kiosk/1.0.0~lts").0, 200);
}

// Proves: GW-75
#[test]
fn an_archive_job_that_is_cut_goes_on_where_it_was() {
    let Some(moto) = Moto::start() else { return };
    let publisher = publisher_at(&moto.url);
    publisher.changes("big.bin", &noise(24 << 20));
    publisher.publish("1.0.0");
    let machine = &publisher.machine;
    for point in ["archive_claimed", "archive_part", "archive_copied", "archive_moved"] {
        let died = machine.run_in(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))], &ARCHIVE);
        assert!(died.code < 0, "{point}: {died:?}");
        assert_eq!(places(machine)[0].0, "STANDARD", "{point}: the hot one is there");
    }
    assert_eq!(machine.ok(&ARCHIVE)["moved"], 1);
    let place = "s3://tides/apps/archive/v1/kiosk/1.0.0.stb";
    assert_eq!(places(machine), [("INFREQUENT_ACCESS".to_owned(), Some(place.to_owned()))]);
    // A name that another release has is left alone.
    let other = publisher_at(&moto.url);
    other.publish("1.0.0");
    refused(&other, 5, "archive_conflict");
}

// Proves: GW-75
#[test]
fn what_a_server_refuses_is_told_and_nothing_is_lost() {
    if let Some(moto) = Moto::start() {
        let publisher = publisher_at(&moto.url);
        publisher.publish("1.0.0");
        publisher.machine.ok(&["config", "set", "archive.class", "SEALTIDE"]);
        let error = refused(&publisher, 1, "archive_class");
        assert!(error["message"].as_str().unwrap().contains("SEALTIDE"), "{error}");
        publisher.machine.ok(&["config", "set", "archive.class", "STANDARD_IA"]);
        publisher.machine.ok(&["config", "set", "archive.url", "s3://nowhere"]);
        refused(&publisher, 1, "archive_no_bucket");
        // Once it is put right, the same bundle moves.
        publisher.machine.ok(&["config", "set", "archive.url", "s3://tides"]);
        assert_eq!(publisher.machine.ok(&ARCHIVE)["moved"], 1);
    }
    let publisher = publisher_at("http://127.0.0.1:9");
    publisher.publish("1.0.0");
    for (status, xml, exit, code) in [
        ("403 Forbidden", "SignatureDoesNotMatch", 6, "archive_refused"),
        ("400 Bad Request", "InvalidStorageClass", 1, "archive_class"),
        ("501 Not Implemented", "NotImplemented", 1, "archive_unable"),
        // One that makes everything, whatever the condition says.
        ("200 OK", "", 1, "archive_unconditional"),
        ("503 Service Unavailable", "SlowDown", 1, "archive_unreachable"),
    ] {
        publisher.machine.ok(&["config", "set", "archive.endpoint", &refusing(status, xml)]);
        refused(&publisher, exit, code);
    }
    // The proxy on the way is the one of everything else that is dialled: not for this machine, unless it is said, and no
    // variable is looked at where the settings say that there is none.
    let set = |key: &str, value: &str| publisher.machine.ok(&["config", "set", key, value]);
    set("archive.endpoint", &refusing("403 Forbidden", "AccessDenied"));
    set("proxy.url", &refusing("501 Not Implemented", "NotImplemented"));
    refused(&publisher, 6, "archive_refused");
    set("proxy.through", "127.0.0.1");
    refused(&publisher, 1, "archive_unable");
    set("proxy.url", "none");
    let nowhere = [("HTTP_PROXY", "http://127.0.0.1:9"), ("http_proxy", "http://127.0.0.1:9")];
    let done = publisher.machine.run_in(&nowhere, &ARCHIVE);
    assert_eq!(done.document()["error"]["code"], "archive_refused", "{done:?}");
    // Settings that fit nobody.
    set("archive.endpoint", "http://s3.example");
    refused(&publisher, 2, "archive_http");
    set("archive.endpoint", "https://127.0.0.1:9");
    refused(&publisher, 1, "archive_unreachable");
    fs::set_permissions(publisher.file("s3.keys"), fs::Permissions::from_mode(0o644)).unwrap();
    refused(&publisher, 6, "key_exposed");
    set("archive.credentials_file", "");
    let keys = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")];
    let done = publisher.machine.run_in(&keys, &ARCHIVE);
    assert_eq!((done.code, &done.document()["error"]["code"]), (6, &Value::from("archive_credentials")), "{done:?}");
    publisher.machine.fails(&["config", "set", "archive.url", "tides"], 2, "config");
    let shown = publisher.machine.ok(&["config", "show"]).to_string();
    assert!(shown.contains("archive.class") && !shown.contains(SECRET));
}

/// A server that checks the signature of every request, keeps objects in a directory and has the classes `STANDARD` and
/// `REDUCED_REDUNDANCY`. It ends with this.
struct Signed {
    url: String,
    runtime: tokio::runtime::Runtime,
}

impl Signed {
    fn start(root: &Path) -> Self {
        let mut service = s3s::service::S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
        service.set_auth(s3s::auth::SimpleAuth::from_single("me", SECRET));
        let service = service.build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (stream, service) = (hyper_util::rt::TokioIo::new(stream), service.clone());
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = server.serve_connection(stream, service).await;
                });
            }
        });
        Self { url, runtime }
    }
}

// Proves: GW-74, GW-75
#[test]
fn every_request_is_signed_and_what_is_archived_lasts() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("tides")).unwrap();
    let server = Signed::start(root.path());
    let publisher = publisher_at(&server.url);
    publisher.changes("big.bin", &noise(24 << 20));
    publisher.publish("1.0.0");
    let machine = &publisher.machine;
    let file = fs::read(publisher.bundle("1.0.0")).unwrap();
    let set = |key: &str, value: &str| machine.ok(&["config", "set", &format!("archive.{key}"), value]);
    // It does not have the class that is asked for first.
    refused(&publisher, 1, "archive_class");
    set("class", "STANDARD");
    // A wrong secret makes wrong signatures; a wrong id is nobody.
    let keys = publisher.file("s3.keys");
    let right = fs::read_to_string(&keys).unwrap();
    for wrong in [right.replace(SECRET, "sesame"), right.replace("= me", "= you")] {
        fs::write(&keys, wrong).unwrap();
        refused(&publisher, 6, "archive_refused");
    }
    fs::write(&keys, right).unwrap();
    for point in ["archive_claimed", "archive_part", "archive_copied", "archive_moved"] {
        let died = machine.run_in(&[("SEALTIDE_FAILPOINT", &format!("{point}:1"))], &ARCHIVE);
        assert!(died.code < 0, "{point}: {died:?}");
        assert_eq!(places(machine)[0].0, "STANDARD", "{point}: the hot one is there");
    }
    assert_eq!(machine.ok(&ARCHIVE)["moved"], 1);
    let object = root.path().join("tides/apps/archive/v1/kiosk/1.0.0.stb");
    assert!(fs::read(&object).unwrap() == file);
    // Another server over the same directory: nothing was in the memory of the first one alone.
    server.runtime.shutdown_background();
    let server = Signed::start(root.path());
    set("endpoint", &server.url);
    let node = machine.up_in(&[("SEALTIDE_GATEWAY_APP", "yes")], &[]);
    let (status, _, body) = get(node.gateway(), "/bundle/kiosk/1.0.0");
    assert!(status == 200 && body == file);
    // What rotted there is served to nobody.
    fs::remove_dir_all(machine.home().join("bundles/scratch/fetched")).unwrap();
    fs::write(&object, [&file[1..], b"x"].concat()).unwrap();
    assert_eq!(get(node.gateway(), "/bundle/kiosk/1.0.0").0, 503);
}
