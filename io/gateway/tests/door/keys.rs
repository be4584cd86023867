//! Keys over the door: who is told what, who may change them, and what sessions hear.

use std::net::SocketAddr;
use std::sync::Arc;

use data_encoding::BASE64;
use sealtide_crypto::sha256;
use sealtide_gateway::{
    Bearer, Code, DoorEvent, KeyAction, KeyChange, KeyDesk, KeyList, KeyOrder, ListedVersion, Notice, Question, Role,
    Server, Settings,
};
use sealtide_identity::keyring::{ChangeRefused, Deadline, KeyVersion, Order, Verdict, VersionState};
use serde_json::{Value, json};

use crate::client::{Client, Desk, WALL_MS, ask, body, door, token};

impl KeyDesk for Desk {
    fn list(&self) -> KeyList {
        let inner = self.inner.lock().unwrap();
        let ledger = inner.0.ledger();
        let listed = |(version, state): (KeyVersion, VersionState)| ListedVersion {
            version,
            state,
            not_after: ledger.not_after(version).map(|end| match end {
                Deadline::At(ms) => ms,
                Deadline::Unreadable => 0,
            }),
            keys: ledger.keys().iter().filter(|key| key.version == version).cloned().collect(),
            hmac_kid: inner.0.keys(version).map(|keys| keys.hmac_kid()),
        };
        let versions = ledger.versions().map(listed).collect();
        KeyList { active: ledger.tip().active(), epoch: ledger.tip().epoch, versions }
    }

    fn verify(&self, question: &Question<'_>) -> Verdict {
        let Question { payload, context, algorithm, version, signature } = question;
        self.inner.lock().unwrap().0.verify(payload, *context, *algorithm, *version, signature, WALL_MS)
    }

    fn change(&self, order: &KeyOrder) -> Result<KeyChange, Code> {
        let wanted = match order.action {
            KeyAction::Rotate(to) => Order::Rotate { to, keep_until: None },
            KeyAction::Rollback => Order::Rollback,
            KeyAction::Force(to) => Order::Force { to },
        };
        let done = self.order(wanted, order.expect).map_err(|refused| match refused {
            ChangeRefused::NothingHigher(_) | ChangeRefused::State { state: None, .. } => Code::KeyUnavailable,
            _ => Code::StateConflict,
        })?;
        let list = self.list();
        let so_already = KeyChange { from: list.active, to: list.active, epoch: list.epoch, at_ms: WALL_MS };
        if let Some(change) = done {
            let _ = self.notices.send(Notice::KeyRotated(change));
        }
        Ok(done.unwrap_or(so_already))
    }

    fn ledger(&self, since: u64, limit: usize) -> Result<Vec<String>, Code> {
        let record = self.inner.lock().unwrap().0.ledger().tip().to_value().to_string();
        Ok(if since == 0 { vec![record].into_iter().take(limit).collect() } else { Vec::new() })
    }

    fn audit(&self, since: u64, limit: usize) -> Result<Vec<String>, Code> {
        Ok((since + 1..=5).take(limit).map(|number| json!({"[SEQ]": number}).to_string()).collect())
    }
}

fn with_admin(settings: &mut Settings) {
    let bearer = |token: &str, role| Bearer { digest: sha256(token.as_bytes()), id: token.into(), role };
    settings.bearers = vec![bearer("boss", Role::Admin), bearer("hand", Role::Bumper), bearer("eye", Role::Reader)];
    settings.withdraw_grace_ms = 1;
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

async fn admin_token(at: SocketAddr) -> String {
    let answer = ask(at, "GET /api/auth/csrf-token?purpose=admin", &["Authorization: Bearer boss"], "").await;
    body(&answer)["token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

async fn admin(at: SocketAddr, path: &str, text: &str) -> String {
    let token = format!("X-CSRF-Token: {}", admin_token(at).await);
    let lines = ["Authorization: Bearer boss", "Content-Type: application/json", token.as_str()];
    ask(at, &format!("POST /admin/{path}"), &lines, text).await
}

/// A session that hears what is said from here on.
async fn enter(at: SocketAddr, protocol: &str) -> Client {
    let mut client = Client::enter(at, protocol).await;
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    client
}

async fn rig() -> (Arc<Desk>, Server, SocketAddr) {
    let desk = Desk::new();
    let server = door(&desk, with_admin).await;
    let at = server.address();
    (desk, server, at)
}

// Proves: GW-51
#[tokio::test]
async fn rotate() {
    let (_desk, _server, at) = rig().await;
    let mut watching = enter(at, "tes-ui-v1").await;
    let conflict = admin(at, "rotate", r#"{"to":"v2","expect":"v2"}"#).await;
    assert_eq!((status(&conflict), &body(&conflict)["code"]), (409, &"STATE_CONFLICT".into()));
    let missing = admin(at, "rotate", r#"{"to":"v3"}"#).await;
    assert_eq!((status(&missing), &body(&missing)["code"]), (503, &"KEY_UNAVAILABLE".into()));
    let done = admin(at, "rotate", r#"{"to":"v2","expect":"v1","reason":"a test"}"#).await;
    assert!(done.to_lowercase().contains("cache-control: no-store"), "{done}");
    let told = body(&done);
    let wanted = json!({
        "success": true, "message": "Rotated to v2", "keyVersion": "2", "from": "v1", "to": "v2", "epoch": 2,
        "rotationTimestamp": "2023-11-14T22:13:20.000Z", "hsl": "#9D4EDD",
    });
    assert_eq!(told, wanted);
    let heard = watching.json().await;
    assert_eq!(heard, json!({"type": "key_rotated", "from": "v1", "to": "v2", "epoch": 2, "hsl": "#9D4EDD"}));
    let again = body(&admin(at, "rotate", r#"{"to":"v2"}"#).await);
    assert_eq!((&again["epoch"], &again["from"], &again["success"]), (&2.into(), &"v2".into(), &true.into()));
    let back = body(&admin(at, "rollback", "").await);
    assert_eq!((&back["hsl"], &back["to"], &back["epoch"]), (&"#FF8C00".into(), &"v1".into(), &3.into()));
    assert_eq!(status(&admin(at, "rollback", "{}").await), 409, "there is nothing before v1");
    assert_eq!(status(&admin(at, "force", "{}").await), 400, "force names its version");
    assert_eq!(body(&admin(at, "force", r#"{"to":"v2"}"#).await)["epoch"], 4);
    assert_eq!(status(&admin(at, "rollback", "{}").await), 409, "forced");
    for bad in [r#"{"to":2}"#, r#"{"to":"2"}"#, r#"{"more":1}"#, r#"{"reason":1}"#] {
        assert_eq!(body(&admin(at, "rotate", bad).await)["code"], "INVALID_FIELD", "{bad}");
    }
    assert_eq!(status(&ask(at, "GET /admin/rotate", &["Authorization: Bearer boss"], "").await), 405);
}

fn denials(desk: &Desk) -> Vec<DoorEvent> {
    desk.events.lock().unwrap().iter().filter(|event| event.name == "admin:denied").cloned().collect()
}

// Proves: GW-57
#[tokio::test]
async fn rotate_authz() {
    let (desk, _server, at) = rig().await;
    let json_type = "Content-Type: application/json";
    let fresh = format!("X-CSRF-Token: {}", admin_token(at).await);
    let general = format!("X-CSRF-Token: {}", token(at).await);
    let boss = "Authorization: Bearer boss";
    let denied: [(&[&str], u16); 7] = [
        (&["X-Real-IP: 9.9.9.9"], 401),
        (&[], 403),
        (&["Authorization: Bearer hand"], 403),
        (&["Authorization: Bearer eye"], 403),
        (&[boss], 403),
        (&[boss, &general], 403),
        (&[boss, &fresh, "Origin: http://evil.example"], 403),
    ];
    for (number, (lines, wanted)) in denied.into_iter().enumerate() {
        let lines = [lines, &[json_type]].concat();
        let answer = ask(at, "POST /admin/rotate", &lines, "{}").await;
        assert_eq!(status(&answer), wanted, "{lines:?} {answer}");
        let denied = denials(&desk);
        assert_eq!(denied.len(), number + 1, "each refusal is an event");
        assert!(denied[number].members.contains(&("action", "rotate".to_owned())));
    }
    assert_eq!(status(&ask(at, "POST /admin/rotate", &["Authorization: Bearer who", json_type], "{}").await), 401);
    assert_eq!(desk.list().epoch, 1, "nothing changed");
    let lines = [boss, json_type, fresh.as_str()];
    assert_eq!(status(&ask(at, "POST /admin/rotate", &lines, "{}").await), 200, "the token was left usable");
    assert_eq!(status(&ask(at, "POST /admin/rotate", &lines, "{}").await), 403, "once");

    let elsewhere = door(&desk, |settings| {
        with_admin(settings);
        settings.admin_allow_from = vec!["127.0.0.2/32".parse().unwrap()];
    })
    .await;
    assert_eq!(status(&admin(elsewhere.address(), "rollback", "{}").await), 403, "from 127.0.0.1");
    assert_eq!(desk.list().epoch, 2);
}

// Proves: GW-29
#[tokio::test]
async fn withdraw() {
    let (desk, _server, at) = rig().await;
    let mut old = enter(at, "tes-ui-v1").await;
    assert_eq!(status(&admin(at, "rotate", "{}").await), 200);
    let mut new = enter(at, "tes-ui-v2").await;
    assert_eq!(old.json().await["type"], "key_rotated", "v1 counts on: nothing is withdrawn");
    assert_eq!(old.ask(r#"{"type":"ping"}"#).await["type"], "pong");

    assert_eq!(status(&admin(at, "rollback", "{}").await), 200);
    assert_eq!(new.json().await["type"], "key_rotated");
    let notice = new.json().await;
    assert_eq!((&notice["type"], &notice["code"]), (&"notice".into(), &"KEY_DEPRECATE".into()));
    assert_eq!((&notice["message"], &notice["hsl"]), (&"Key Deprecate [HSL:#FF8C00]".into(), &"#FF8C00".into()));
    assert!(notice["notAfter"].is_u64());
    assert_eq!(new.closed().await, Some(4409), "v2 is not kept any more");

    assert_eq!(old.json().await["type"], "key_rotated");
    assert_eq!(old.ask(r#"{"type":"ping"}"#).await["type"], "pong", "v1 is");
    assert_eq!(status(&admin(at, "force", r#"{"to":"v2"}"#).await), 200);
    assert_eq!(old.json().await["type"], "key_rotated");
    assert_eq!(old.json().await["code"], "KEY_DEPRECATE");
    assert_eq!(old.closed().await, Some(4409));
    let names: Vec<&str> = desk.events.lock().unwrap().iter().map(|event| event.name).collect();
    assert_eq!(names.iter().filter(|name| **name == "ws:subproto:withdrawn").count(), 2, "{names:?}");
    // A state that moved without a rotation is looked at too.
    let mut last = enter(at, "tes-ui-v2").await;
    desk.notices.send(Notice::KeysMoved).unwrap();
    assert_eq!(last.ask(r#"{"type":"ping"}"#).await["type"], "pong");
}

// Proves: GW-29
#[tokio::test]
async fn a_rung_that_is_kept_again_in_time_ends_nothing() {
    let desk = Desk::new();
    let server = door(&desk, |settings| {
        with_admin(settings);
        settings.withdraw_grace_ms = 3_600_000;
    })
    .await;
    let at = server.address();
    admin(at, "rotate", "{}").await;
    let mut client = enter(at, "tes-ui-v2").await;
    admin(at, "rollback", "{}").await;
    assert_eq!(client.json().await["type"], "key_rotated");
    assert_eq!(client.json().await["type"], "notice");
    // What v2 promises cannot be kept: nothing is signed in its place.
    assert_eq!(client.ask(r#"{"type":"bump"}"#).await["code"], "KEY_UNAVAILABLE");
    admin(at, "rotate", "{}").await;
    assert_eq!(client.json().await["type"], "key_rotated");
    assert_eq!(client.ask(r#"{"type":"bump"}"#).await["data"]["keyVersion"], "v2");
}

// Proves: GW-55
#[tokio::test]
async fn keys_and_what_they_verify() {
    let (desk, _server, at) = rig().await;
    let open = body(&ask(at, "GET /version/keys", &["X-Real-IP: 9.9.9.9"], "").await);
    assert_eq!((&open["active"], &open["epoch"]), (&"v1".into(), &1.into()));
    let algorithms = |listed: &Value| -> Vec<String> {
        let keys = listed["keys"].as_array().unwrap().iter();
        keys.map(|key| format!("{}{}", key["alg"].as_str().unwrap(), key.get("publicKey").is_some())).collect()
    };
    assert_eq!(algorithms(&open["accepted"][0]), ["ML-DSA-87true", "Ed25519true"], "no HMAC for everybody");
    let known = body(&ask(at, "GET /version/keys", &[], "").await);
    assert_eq!(algorithms(&known["accepted"][1]), ["HMAC-SHA256false", "ML-DSA-87true", "Ed25519true"]);
    assert_eq!(known["accepted"][1]["state"], "prepared");

    let mac = desk.inner.lock().unwrap().0.keys(KeyVersion::V1).unwrap().hmac(b"[]");
    let question = |payload: &[u8], signature: &str, version: &str| json!({"payload": BASE64.encode(payload), "signature": signature, "keyVersion": version, "alg": "HMAC-SHA256"});
    let verify = |question: Value| async move {
        ask(at, "POST /version/verify", &["Content-Type: application/json"], &question.to_string()).await
    };
    let wanted = json!({"valid": true, "keyVersion": "v1", "state": "active"});
    assert_eq!(body(&verify(question(b"[]", &mac, "v1")).await), wanted);
    for (payload, signature, version, state) in [
        (&b"[ ]"[..], mac.clone(), "v1", "active"),
        (b"[]", mac.to_uppercase(), "v1", "active"),
        (b"[]", mac.clone(), "v2", "prepared"),
        (b"[]", mac.clone(), "v7", "unknown"),
    ] {
        let told = body(&verify(question(payload, &signature, version)).await);
        assert_eq!((&told["valid"], &told["state"]), (&false.into(), &state.into()), "{version}");
    }
    let mut odd = question(b"[]", &mac, "v1");
    odd["more"] = json!(1);
    let mut context = question(b"[]", &mac, "v1");
    context["context"] = json!("release1 manifest");
    for bad in [odd, context, json!({}), question(b"[]", &mac, "1")] {
        assert_eq!(body(&verify(bad).await)["code"], "INVALID_FIELD");
    }
    let large = format!(r#"{{"payload":"{}"}}"#, "A".repeat(6 << 20));
    assert_eq!(status(&ask(at, "POST /version/verify", &["Content-Type: application/json"], &large).await), 413);
    let far = ask(at, "POST /version/verify", &["X-Real-IP: 9.9.9.9", "Content-Type: application/json"], "{}").await;
    assert_eq!(status(&far), 401);
    desk.order(Order::Rotate { to: None, keep_until: None }, None).unwrap();
    desk.order(Order::Compromise(KeyVersion::V1, Vec::new()), None).unwrap();
    let told = body(&verify(question(b"[]", &mac, "v1")).await);
    assert_eq!((&told["valid"], &told["state"]), (&false.into(), &"compromised".into()));
}

// Proves: GW-109
#[tokio::test]
async fn ledger_endpoint() {
    let (_desk, _server, at) = rig().await;
    let all = body(&ask(at, "GET /version/keys/ledger", &["X-Real-IP: 9.9.9.9"], "").await);
    assert_eq!((all.as_array().unwrap().len(), &all[0]["action"]), (1, &"init".into()));
    assert_eq!(body(&ask(at, "GET /version/keys/ledger?since=1", &[], "").await), json!([]));
    for bad in ["since=", "since=-1", "since=x", "since=1&since=2", "since=99999999999999999999"] {
        assert_eq!(status(&ask(at, &format!("GET /version/keys/ledger?{bad}"), &[], "").await), 400, "{bad}");
    }
}

#[tokio::test]
async fn the_audit_is_for_admins() {
    let (desk, _server, at) = rig().await;
    for (lines, wanted) in [
        (&["X-Real-IP: 9.9.9.9"][..], 401),
        (&[], 403),
        (&["Authorization: Bearer hand"], 403),
        (&["Authorization: Bearer boss"], 200),
    ] {
        assert_eq!(status(&ask(at, "GET /admin/audit", lines, "").await), wanted, "{lines:?}");
    }
    assert_eq!(denials(&desk).len(), 3);
    let boss = ["Authorization: Bearer boss"];
    let answer = ask(at, "GET /admin/audit?since=2&limit=2", &boss, "").await;
    let lines: Vec<Value> =
        answer.split_once("\r\n\r\n").unwrap().1.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [json!({"[SEQ]": 3}), json!({"[SEQ]": 4})]);
    assert_eq!(status(&ask(at, "GET /admin/audit?limit=x", &boss, "").await), 400);
    assert_eq!(status(&ask(at, "POST /admin/audit", &boss, "").await), 405);
    assert_eq!(status(&ask(at, "GET /admin/other", &boss, "").await), 404);
}
