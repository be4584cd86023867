//! A client of the older system, as it was scripted then, at a gateway with `--compat`: its endpoints, its two ways to bring a
//! token, its two rungs, the shapes of its messages.

use std::io::{Read, Write};
use std::net::TcpStream;

use data_encoding::BASE64;
use sealtide_crypto::{Ed25519PublicKey, GatewayContext};
use sealtide_identity::keyring::{KeySecret, KeyVersion, VersionKeys};
use serde_json::{Value, json};

use crate::door::{read_head, text_frame};
use crate::gateway::{Gateway, start};
use crate::support::Machine;

/// How the client brings its token.
#[derive(Clone, Copy, Debug)]
enum Carrier {
    Header,
    Query,
}

/// A session, frame by frame: masked with zeros, and nothing compressed.
struct Session {
    stream: TcpStream,
}

impl Session {
    /// Fetches a token and upgrades; the protocol that was answered.
    fn open(gateway: &Gateway, path: &str, offer: &str, carrier: Carrier) -> (Self, String) {
        let token = gateway.get("/api/auth/csrf-token")["token"].as_str().unwrap().to_owned();
        let (target, line) = match carrier {
            Carrier::Header => (path.to_owned(), format!("x-tes-ws-csrf-token: {token}\r\n")),
            Carrier::Query => (format!("{path}?csrf={token}"), String::new()),
        };
        let mut stream = TcpStream::connect(&gateway.at).unwrap();
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {offer}\r\n{line}\r\n",
            gateway.at
        );
        stream.write_all(head.as_bytes()).unwrap();
        let answer = String::from_utf8(read_head(&mut stream)).unwrap().to_lowercase();
        assert!(answer.starts_with("http/1.1 101"), "{offer} {carrier:?}: {answer}");
        let accepted = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-accept: "));
        assert_eq!(accepted, Some("s3pplmbitxaq9kygzzhzrbk+xoo="));
        let chosen = answer.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: ")).unwrap_or_default();
        (Self { stream }, chosen.to_owned())
    }

    fn ask(&mut self, message: &str) -> String {
        self.stream.write_all(&text_frame(message)).unwrap();
        self.next()
    }

    fn next(&mut self) -> String {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81, "a whole text");
        let length = match head[1] {
            126 => {
                let mut more = [0; 2];
                self.stream.read_exact(&mut more).unwrap();
                usize::from(u16::from_be_bytes(more))
            }
            short => usize::from(short),
        };
        let mut text = vec![0; length];
        self.stream.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

/// The names of the members of an object, in their order.
fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Cuts the signed bytes out of an answer, as a client does that never writes them again.
fn bumped_of(answer: &str) -> &str {
    let from = answer.find(r#""bumped":"#).unwrap() + 9;
    let to = answer.find(r#","changes":"#).unwrap();
    &answer[from..to]
}

struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn new() -> Self {
        Self(vec![("VERSION_SIGNING_KEY", "a1".repeat(32)), ("VERSION_SIGNING_KEY_V2", "b2".repeat(32))])
    }

    fn keys(&self, version: &str) -> VersionKeys {
        let version = KeyVersion::parse(version).unwrap();
        let secret = &self.0[usize::from(version.number()) - 1].1;
        VersionKeys::derive(version, KeySecret::from_text(secret.as_bytes()).unwrap())
    }
}

/// The endpoints, by both of their names.
fn endpoints(gateway: &Gateway) {
    let health = gateway.get("/health");
    assert!(health["status"] == "ok" && health["timestamp"].is_u64() && health["version"].is_string(), "{health}");
    for path in ["/version/health", "/api/dev/version-ws/health"] {
        let health = gateway.get(path);
        assert_eq!((&health["status"], &health["hsl"]), (&json!("ok"), &json!("#9D4EDD")));
        assert!(health["threadId"] == "0x6001" && health["lifecycle"].is_string(), "{health}");
    }
    let registry = gateway.get("/version/registry");
    assert!(registry["entities"].is_array() && registry["lifecycle"].is_string(), "{registry}");
    assert_eq!(registry["hsl"], "#9D4EDD");
    let versions = gateway.get("/api/dev/versions");
    assert_eq!(names(&versions)[..5], ["package", "api", "components", "entities", "validation"]);
    let export = gateway.get("/api/lifecycle/export");
    assert!(export["data"].is_array() && export["count"].is_u64() && export["timestamp"].is_u64(), "{export}");
    for (path, body) in [
        ("/version/bump", r#"{"scope":"patch","entityId":"api:sample"}"#),
        ("/api/dev/bump-version", r#"{"type":"patch","entity":"api:sample"}"#),
    ] {
        let token = gateway.get("/api/auth/csrf-token")["token"].as_str().unwrap().to_owned();
        let lines = ["Content-Type: application/json".to_owned(), format!("X-CSRF-Token: {token}")];
        let answer = gateway.ask(&format!("POST {path}"), &lines, body);
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        let told: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{answer}"));
        let wanted =
            ["success", "bumped", "changes", "signature", "keyVersion", "alg", "kid", "timestamp", "hsl", "metaHybrid"];
        assert_eq!(names(&told)[..10], wanted, "in this order");
        assert_eq!(names(&told["changes"][0]), ["entityId", "oldVersion", "newVersion", "displayName"]);
        assert!(head.to_lowercase().contains(&format!("tes-sig: {}", told["signature"].as_str().unwrap())), "{head}");
    }
}

/// Everything that was ever said in a session; the answer to the bump.
fn talk(session: &mut Session) -> String {
    assert_eq!(session.ask(r#"{"type":"ping"}"#), r##"{"type":"pong","hsl":"#9D4EDD"}"##);
    let refreshed: Value = serde_json::from_str(&session.ask(r#"{"type":"refresh"}"#)).unwrap();
    let wanted = ["type", "entities", "lifecycle", "hsl", "threadId", "channel", "revision"];
    assert_eq!(names(&refreshed), wanted, "{refreshed}");
    assert_eq!(
        (&refreshed["type"], &refreshed["threadId"], &refreshed["channel"]),
        (&json!("refresh_response"), &json!("0x6001"), &json!("COMMAND_CHANNEL"))
    );
    let odd: Value = serde_json::from_str(&session.ask(r#"{"type":"nothing"}"#)).unwrap();
    assert_eq!((&odd["type"], &odd["status"], &odd["hsl"]), (&json!("error"), &json!("ERROR"), &json!("#FF0000")));
    let answer = session.ask(r#"{"type":"bump","scope":"patch","entityId":"api:sample"}"#);
    let told: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(names(&told), ["type", "status", "data", "hsl", "threadId", "channel"], "{told}");
    assert_eq!((&told["type"], &told["status"]), (&json!("bump_response"), &json!("BUMPED")));
    assert_eq!(
        names(&told["data"]),
        ["bumped", "changes", "signature", "keyVersion", "alg", "kid", "timestamp", "revision", "dryRun"]
    );
    answer
}

// Proves: GW-98
#[test]
fn compat_client() {
    let (machine, secrets) = (Machine::new(), Secrets::new());
    let variables: Vec<(&str, &str)> = secrets.0.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let gateway = start(&machine.home(), &["--compat"], &variables);
    endpoints(&gateway);

    // While v1 signs: the first rung, whatever stands beside it, and by the secret.
    for (path, carrier) in [("/version/ws", Carrier::Header), ("/api/dev/version-ws", Carrier::Query)] {
        for offer in ["tes-ui-v1", "tes-ui-v1, tes-ui-v2", "tes-ui-v2, tes-ui-v1"] {
            let (mut session, chosen) = Session::open(&gateway, path, offer, carrier);
            assert_eq!(chosen, "tes-ui-v1", "{offer}");
            let answer = talk(&mut session);
            let told: Value = serde_json::from_str(&answer).unwrap();
            let signature = told["data"]["signature"].as_str().unwrap();
            assert_eq!((&told["data"]["keyVersion"], &told["data"]["alg"]), (&json!("v1"), &json!("HMAC-SHA256")));
            assert!(
                signature.len() == 64 && secrets.keys("v1").hmac_verifies(bumped_of(&answer).as_bytes(), signature)
            );
        }
    }
    machine.ok(&["--yes", "keys", "rotate"]);

    // From here on the second: by a key that the gateway tells, and as the client orders them.
    let keys = gateway.get("/version/keys");
    let active = keys["accepted"].as_array().unwrap().iter().find(|listed| listed["keyVersion"] == "v2").unwrap();
    let key = active["keys"].as_array().unwrap().iter().find(|key| key["alg"] == "Ed25519").unwrap();
    let public = BASE64.decode(key["publicKey"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(public, secrets.keys("v2").public_keys()[1].public_key);
    let public = Ed25519PublicKey::parse(&public).unwrap();
    for (path, carrier) in [("/version/ws", Carrier::Query), ("/api/dev/version-ws", Carrier::Header)] {
        for (offer, wanted) in
            [("tes-ui-v2", "tes-ui-v2"), ("tes-ui-v2, tes-ui-v1", "tes-ui-v2"), ("tes-ui-v1, tes-ui-v2", "tes-ui-v1")]
        {
            let (mut session, chosen) = Session::open(&gateway, path, offer, carrier);
            assert_eq!(chosen, wanted, "{offer}");
            let answer = talk(&mut session);
            let told: Value = serde_json::from_str(&answer).unwrap();
            let (signature, payload) = (told["data"]["signature"].as_str().unwrap(), bumped_of(&answer).as_bytes());
            assert_eq!(told["data"]["keyVersion"], "v2", "{offer}");
            if wanted == "tes-ui-v1" {
                assert!(secrets.keys("v2").hmac_verifies(payload, signature));
                continue;
            }
            assert_eq!((&told["data"]["alg"], &told["data"]["kid"]), (&json!("Ed25519"), &key["kid"]));
            assert_eq!(signature.len(), 88);
            let bytes = BASE64.decode(signature.as_bytes()).unwrap();
            assert!(public.verify_alone(GatewayContext::Bump, payload, &bytes).is_ok());
            assert!(public.verify_alone(GatewayContext::Bump, &payload[1..], &bytes).is_err());
        }
    }
}
