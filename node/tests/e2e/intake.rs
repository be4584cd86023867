//! A bundle that is put at the door: made elsewhere with the same keys.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

use sealtide_identity::keyring::{KeySecret, KeyVersion, Pair, VersionKeys};
use sealtide_releases::bundle::{BundleHead, Manifest, Signed};
use semver::Version;
use serde_json::Value;

use crate::releases::{Publisher, audited, opt, version_in};
use crate::support::{Machine, until};

/// The secret of v1, here and at the build machine.
const SECRET: &str = "5f1c0e7a9b3d48e6a2c4f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b";
const KEY: [(&str, &str); 2] = [("VERSION_SIGNING_KEY", SECRET), ("SEALTIDE_GATEWAY_APP", "yes")];

/// Sends a request and reads the answer; a door that answers early does not read the rest.
fn ask(gateway: &str, line: &str, heads: &[String], body: &[u8]) -> (u16, String) {
    let gateway = gateway.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(gateway).unwrap();
    let heads: String = heads.iter().map(|head| format!("{head}\r\n")).collect();
    let head = format!("{line} HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n{heads}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status.unwrap_or_else(|| panic!("{answer:?}")), body.unwrap_or_default())
}

/// Puts a bundle as programs do; the token is taken with it.
fn put(gateway: &str, place: &str, bundle: &[u8]) -> (u16, Value) {
    let (_, token) = ask(gateway, "GET /api/auth/csrf-token", &[], &[]);
    let token: Value = serde_json::from_str(&token).unwrap();
    let heads = [
        "Content-Type: application/vnd.sealtide.bundle".to_owned(),
        format!("Content-Length: {}", bundle.len()),
        format!("X-CSRF-Token: {}", token["token"].as_str().unwrap()),
    ];
    let (status, body) = ask(gateway, &format!("PUT /bundle/{place}"), &heads, bundle);
    (status, serde_json::from_str(&body).unwrap_or_default())
}

fn pair(secret: &str) -> VersionKeys {
    VersionKeys::derive(KeyVersion::V1, KeySecret::from_text(secret.as_bytes()).unwrap())
}

/// A bundle as a build machine makes one: the payload of `file`, another manifest.
fn made(file: &[u8], pair: &Pair, change: impl FnOnce(&Signed<Manifest>) -> Manifest) -> Vec<u8> {
    let (head, length) = BundleHead::read(file).unwrap();
    let manifest = Signed::sign(change(&head.manifest), pair);
    let head = BundleHead { manifest, ..head };
    [&head.encode().unwrap()[..], &file[length..]].concat()
}

fn next(before: &Signed<Manifest>, version: &str) -> Manifest {
    let content = before.content().clone();
    Manifest { version: Version::parse(version).unwrap(), seq: content.seq + 1, prev: Some(before.hash()), ..content }
}

#[test]
fn a_bundle_that_is_put_is_published() {
    let publisher = Publisher::new();
    let machine = &publisher.machine;
    publisher.changes("version", "1.0.0");
    let (out, dist) = (publisher.bundle("1.0.0"), machine.root().join("dist"));
    let words = ["release", "publish", "kiosk", dist.to_str().unwrap(), "--version", "1.0.0", "--out", &out];
    let published = machine.run_in(&KEY, &words);
    assert_eq!(published.code, 0, "{published:?}");
    let file = fs::read(&out).unwrap();
    let first = BundleHead::read(&file).unwrap().0.manifest;
    let node = machine.up_in(&KEY, &[]);
    let (gateway, keys) = (node.gateway(), pair(SECRET));
    let own = keys.pair().unwrap();
    let follower = Machine::new();
    let ticket =
        machine.ok(&["ticket", "new", "--space", "kiosk", "--role", "read"])["ticket"].as_str().unwrap().to_owned();
    follower.ok(&["join", &ticket]);
    let _node = follower.up(&[]);
    let to = opt(&follower);
    let follow = follower.stream(&["release", "install", "kiosk", "--to", to.to_str().unwrap(), "--follow"]);
    until("the follower has the first release", || {
        (version_in(&to).as_deref() == Some("1.0.0")).then_some(()).ok_or_else(|| format!("{:?}", follow.events()))
    });

    let good = made(&file, own, |before| next(before, "1.1.0"));
    // Nobody puts anything without a token, with a token twice, or as another kind of body.
    let heads = |more: &str| {
        vec![
            "Content-Type: application/vnd.sealtide.bundle".to_owned(),
            format!("Content-Length: {}\r\n{more}", good.len()),
        ]
    };
    let line = "PUT /bundle/kiosk/1.1.0";
    assert_eq!(ask(gateway, line, &heads("X-Nothing: here"), &good).0, 403);
    let wrong = vec!["Content-Type: text/plain".to_owned(), "Content-Length: 0".to_owned()];
    assert!(ask(gateway, line, &wrong, &[]).0 >= 400);
    // What does not count: every part that E13 names, and what is no bundle at all.
    let changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let stranger = pair(&SECRET.replace("5f1c", "5f1d"));
    let refused = [
        ("no bundle", b"not a bundle".to_vec()),
        ("nothing", Vec::new()),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("longer", [&good[..], b"x"].concat()),
        ("payload", changed(good.len() - 9)),
        ("signature", changed(good.len() - (file.len() - BundleHead::read(&file).unwrap().1) - 40)),
        ("key", made(&file, stranger.pair().unwrap(), |before| next(before, "1.1.0"))),
        ("seq", made(&file, own, |before| Manifest { seq: 7, ..next(before, "1.1.0") })),
        ("prev", made(&file, own, |before| Manifest { prev: Some([7; 32]), ..next(before, "1.1.0") })),
        (
            "registry",
            made(&file, own, |before| Manifest { registry: "releases^AB".to_owned(), ..next(before, "1.1.0") }),
        ),
        ("expired", made(&file, own, |before| Manifest { expiry: Some(1), ..next(before, "1.1.0") })),
    ];
    for (what, bytes) in &refused {
        let (status, told) = put(gateway, "kiosk/1.1.0", bytes);
        assert_eq!((status, &told["code"]), (422, &Value::from("BUNDLE_INVALID")), "{what}: {told}");
    }
    assert_eq!(put(gateway, "kiosk/2.0.0", &good).1["code"], "INVALID_FIELD");
    assert_eq!(put(gateway, "other/1.1.0", &good).1["code"], "INVALID_FIELD");
    assert_eq!(put(gateway, "kiosk/1.0.0", &file).1["code"], "STATE_CONFLICT");
    let left = fs::read_dir(machine.home().join("bundles/intake")).map_or(0, Iterator::count);
    assert_eq!((left, audited(machine, "bundle:rejected") > 8), (0, true));
    assert_eq!(machine.ok(&["release", "show", "kiosk"])["releases"].as_array().unwrap().len(), 1);

    // The right one: the manifest comes back, and whoever follows has it.
    let (status, told) = put(gateway, "kiosk/1.1.0", &good);
    assert_eq!((status, &told["version"], &told["seq"]), (201, &Value::from("1.1.0"), &Value::from(2)), "{told}");
    assert_eq!(put(gateway, "kiosk/1.1.0", &good).1["code"], "STATE_CONFLICT");
    until("the follower has the one that was put", || {
        let installed = follow.events().iter().any(|line| line["version"] == "1.1.0");
        installed.then_some(()).ok_or_else(|| format!("{:?}\n{}", follow.events(), follower.told()))
    });
    assert!(!follow.events().iter().any(|line| line["schema"] == "sealtide/release_refused/1"));
    drop(node);
    // It was durable when it was told, and the next one goes on from it.
    let node = machine.up_in(&KEY, &[]);
    let second = BundleHead::read(&good).unwrap().0.manifest;
    assert_eq!(second.content().prev, Some(first.hash()));
    let third = made(&good, own, |before| next(before, "1.2.0"));
    assert_eq!(put(node.gateway(), "kiosk/1.2.0", &third).0, 201);
}
