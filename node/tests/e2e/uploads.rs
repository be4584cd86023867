//! Release bundles that are put through the door: signed elsewhere with the same keys, verified here, published or refused.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::releases::{Publisher, audited, get, opt, version_in};
use crate::support::{Machine, Running, copy, until};

/// A publisher with a release, a second machine with the same keys that made three more, and a node with a door.
struct Story {
    publisher: Publisher,
    builder: Publisher,
    node: Running,
}

const DOOR: [(&str, &str); 1] = [("SEALTIDE_GATEWAY_APP", "yes")];

impl Story {
    fn begin() -> Self {
        let publisher = Publisher::new();
        publisher.publish("1.0.0");
        let builder = Publisher::new();
        copy(&publisher.machine.home(), &builder.machine.home());
        // A copy makes no release before somebody says that it may.
        let dist = builder.dist();
        builder.machine.fails(
            &["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "1.1.0"],
            6,
            "moved",
        );
        builder.machine.ok(&["--offline-sign", "identity", "show"]);
        builder.changes("big.bin", &"0123456789abcdef".repeat(40_000));
        ["1.1.0", "1.2.0", "1.3.0"].iter().for_each(|version| drop(builder.publish(version)));
        let node = publisher.machine.up_in(&DOOR, &[]);
        Self { publisher, builder, node }
    }

    fn bundle(&self, version: &str) -> Vec<u8> {
        fs::read(self.builder.bundle(version)).unwrap()
    }

    fn put(&self, path: &str, body: &[u8]) -> (u16, Value) {
        put(self.node.gateway(), path, body)
    }

    /// The versions that the channel has.
    fn versions(&self) -> Vec<String> {
        let shown = self.publisher.machine.ok(&["release", "show", "kiosk"]);
        let rows = shown["releases"].as_array().unwrap().iter();
        let mut versions: Vec<String> = rows.map(|row| row["version"].as_str().unwrap().to_owned()).collect();
        versions.sort();
        versions
    }

    fn is_tidy(&self) -> bool {
        !self.publisher.machine.home().join("bundles/coming").exists()
    }
}

/// One request with a head of `lines` and a body; an answer that never came has status 0.
fn send(door: &str, path: &str, lines: &[String], body: &[u8]) -> (u16, Value) {
    let at = door.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(at).unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n{lines}\r\n").unwrap();
    // Whoever refuses does not read to the end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let Some((head, text)) = answer.split_once("\r\n\r\n") else { return (0, Value::Null) };
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(text).unwrap_or_default())
}

fn token(door: &str) -> String {
    let told: Value = serde_json::from_slice(&get(door, "/api/auth/csrf-token?purpose=http").2).unwrap();
    format!("X-CSRF-Token: {}", told["token"].as_str().unwrap())
}

fn put(door: &str, path: &str, body: &[u8]) -> (u16, Value) {
    send(door, path, &[token(door), format!("Content-Length: {}", body.len())], body)
}

/// A machine that installs whatever comes.
fn follower(publisher: &Publisher) -> (Machine, Running, Running) {
    let machine = Machine::new();
    machine.ok(&["join", &publisher.ticket()]);
    let node = machine.up(&[]);
    let (to, trust): (PathBuf, String) = (opt(&machine), publisher.trust("1.0.0"));
    let words = ["release", "install", "kiosk", "--to", to.to_str().unwrap(), "--follow", "--trust", &trust];
    let follow = machine.stream(&words);
    (machine, node, follow)
}

// Proves: GW-72
#[test]
fn a_bundle_that_is_put_is_published_to_everybody_who_follows() {
    let mut story = Story::begin();
    let (machine, _node, follow) = follower(&story.publisher);
    let until_version = |version: &str| {
        until("the follower has it", || match version_in(&opt(&machine)) {
            Some(found) if found == version => Ok(()),
            other => Err(format!("{other:?} {:?}", follow.events())),
        });
    };
    until_version("1.0.0");
    let (status, manifest) = story.put("/bundle/kiosk/1.1.0", &story.bundle("1.1.0"));
    assert_eq!((status, &manifest["version"], &manifest["seq"]), (201, &json!("1.1.0"), &json!(2)), "{manifest}");
    // What the answer says is what stands there.
    let told: Value = serde_json::from_slice(&get(story.node.gateway(), "/bundle/kiosk/1.1.0/manifest").2).unwrap();
    assert_eq!(told, manifest);
    until_version("1.1.0");
    assert!(story.is_tidy());
    // With its channel in its name it is the same.
    assert_eq!(story.put("/bundle/kiosk/1.2.0~stable", &story.bundle("1.2.0")).0, 201);
    until_version("1.2.0");
    // What is served has the payload that was signed, and verifies with the trust file of the first day.
    let served = story.publisher.file("served.stb");
    fs::write(&served, get(story.node.gateway(), "/bundle/kiosk/1.2.0").2).unwrap();
    let trust = story.publisher.trust("1.0.0");
    machine.ok(&["release", "verify", served.to_str().unwrap(), "--trust", &trust]);
    assert_eq!(audited(&story.publisher.machine, "bundle:received"), 2);
    // A process that ends in the middle has not published it, and the same is put again; one that ends behind the commit has.
    for (point, version, is_out) in [("release_stored", "1.3.0", false), ("release_announced", "1.3.0", true)] {
        story.node.stop();
        let dies = [DOOR[0], ("SEALTIDE_FAILPOINT", &format!("{point}:1"))];
        story.node = story.publisher.machine.up_in(&dies, &[]);
        assert_eq!(story.put("/bundle/kiosk/1.3.0", &story.bundle(version)).0, 0, "{point}");
        story.node.wait();
        story.node = story.publisher.machine.up_in(&DOOR, &[]);
        assert_eq!(story.versions().contains(&version.to_owned()), is_out, "{point}");
    }
    assert_eq!(story.put("/bundle/kiosk/1.3.0", &story.bundle("1.3.0")).0, 409);
    assert!(story.is_tidy(), "what a crash left is gone");
    until_version("1.3.0");
    story.publisher.machine.ok(&["verify"]);
}

// Proves: GW-72
#[test]
fn a_bundle_that_does_not_count_is_refused_and_changes_nothing() {
    let mut story = Story::begin();
    let whole = story.bundle("1.1.0");
    let at = |changed: usize| {
        let mut bytes = whole.clone();
        bytes[changed] ^= 1;
        bytes
    };
    let other = Publisher::new();
    other.publish("1.1.0");
    // Another 1.1.0 after the same 1.0.0, by a key that signs in the copy alone.
    let forked = Publisher::new();
    story.node.stop();
    copy(&story.publisher.machine.home(), &forked.machine.home());
    forked.machine.ok(&["--offline-sign", "identity", "show"]);
    story.node = story.publisher.machine.up_in(&DOOR, &[]);
    forked.machine.ok(&["keys", "new"]);
    forked.machine.ok(&["keys", "rotate"]);
    forked.publish("1.1.0");
    let first = "/bundle/kiosk/1.1.0";
    for (what, path, body, status) in [
        ("another payload", first, at(whole.len() - 1), 422),
        ("a byte of the manifest", first, at(60), 422),
        ("cut", first, whole[..whole.len() - 1].to_vec(), 422),
        ("longer", first, [&whole[..], b"x"].concat(), 422),
        ("no bundle", first, b"#!/bin/sh\n".to_vec(), 422),
        ("another publisher's", first, fs::read(other.bundle("1.1.0")).unwrap(), 422),
        ("a key that does not sign here", first, fs::read(forked.bundle("1.1.0")).unwrap(), 422),
        ("one is left out", "/bundle/kiosk/1.2.0", story.bundle("1.2.0"), 422),
        ("another version", "/bundle/kiosk/1.2.0", whole.clone(), 400),
        ("another channel", "/bundle/kiosk/1.1.0~lts", whole.clone(), 400),
        ("another app", "/bundle/other/1.1.0", whole.clone(), 400),
        ("no name", "/bundle/KIOSK/1.1.0", whole.clone(), 400),
        ("nothing", first, Vec::new(), 400),
    ] {
        let (found, told) = story.put(path, &body);
        assert_eq!(found, status, "{what}: {told}");
        assert!(status != 422 || told["code"] == "BUNDLE_INVALID", "{what}: {told}");
        assert!(story.is_tidy(), "{what}");
    }
    assert_eq!(story.put("/bundle/kiosk/1.0.0", &fs::read(story.publisher.bundle("1.0.0")).unwrap()).0, 409);
    // Signatures stand behind the manifest: each of the two is looked at.
    let find = |text: &[u8]| whole.windows(text.len()).position(|found| found == text).unwrap();
    let (ml_dsa, ed25519) = (find(b"ML-DSA-87"), find(b"Ed25519"));
    for changed in [60, 300, ml_dsa + 100, ml_dsa + 4_000, ed25519 + 20] {
        assert_eq!(story.put(first, &at(changed)).0, 422, "byte {changed}");
    }
    assert_eq!(story.versions(), ["1.0.0"]);
    // Rights: a token, a role, a place in the size.
    let door = story.node.gateway().to_owned();
    let length = |bytes: usize| format!("Content-Length: {bytes}");
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0", &[length(9)], b"").0, 403, "no token");
    let used = token(&door);
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0", &[used.clone(), length(9)], b"123456789").0, 422);
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0", &[used, length(9)], b"").0, 403, "a token is good once");
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0", &[token(&door), length(2 << 30)], b"").0, 413);
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0", &[token(&door)], b"").0, 400, "no length");
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0/manifest", &[token(&door), length(2)], b"xx").0, 405);
    assert!(audited(&story.publisher.machine, "bundle:rejected") >= 13);
    // A body in pieces has its bound too, and a reader brings nothing.
    story.node.stop();
    let machine = &story.publisher.machine;
    let small = [DOOR[0], ("SEALTIDE_GATEWAY_BUNDLE_BYTES_MAX", "1000")];
    story.node = machine.up_in(&small, &[]);
    let door = story.node.gateway().to_owned();
    let pieces = [b"7d0\r\n".to_vec(), vec![b'x'; 2000], b"\r\n0\r\n\r\n".to_vec()].concat();
    let chunked = "Transfer-Encoding: chunked".to_owned();
    assert_eq!(send(&door, "/bundle/kiosk/1.2.0", &[token(&door), chunked], &pieces).0, 413);
    story.node.stop();
    let reader = machine.ok(&["gateway", "bearer", "ada", "--role", "reader"])["token"].as_str().unwrap().to_owned();
    story.node = machine.up_in(&DOOR, &[]);
    let bearer = format!("Authorization: Bearer {reader}");
    let (status, told) = send(story.node.gateway(), first, &[bearer, length(9)], b"");
    assert_eq!((status, &told["code"]), (403, &json!("FORBIDDEN")));
    assert!(story.is_tidy());
}
