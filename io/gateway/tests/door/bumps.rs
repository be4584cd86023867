//! Bumps over HTTP and over WebSocket: one path, signed, told to all.

use sealtide_gateway::Code;
use sealtide_identity::keyring::Algorithm;
use serde_json::{Value, json};

use crate::client::{Client, Desk, ask, body, door, token};

async fn bump(at: std::net::SocketAddr, text: &str, lines: &[&str]) -> String {
    let token = format!("X-CSRF-Token: {}", token(at).await);
    let lines = [&["Content-Type: application/json", token.as_str()], lines].concat();
    ask(at, "POST /version/bump", &lines, text).await
}

fn version(registry: &Value, id: &str) -> String {
    let entity = registry["entities"].as_array().unwrap().iter().find(|entity| entity["id"] == id).unwrap();
    entity["currentVersion"].as_str().unwrap().to_owned()
}

// Proves: GW-33, GW-43
#[tokio::test]
async fn bump_shared_path() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let mut watching = Client::enter(at, "tes-ui-v1").await;
    let mut acting = Client::enter(at, "tes-ui-v1").await;

    let answer = bump(at, r#"{"scope":"minor","entityId":"component:sample"}"#, &[]).await;
    let told = body(&answer);
    // The signed bytes are cut out of the answer, not written anew.
    let text = answer.split_once("\"bumped\":").unwrap().1.split_once(",\"changes\":").unwrap().0;
    let signature = told["signature"].as_str().unwrap();
    assert!(desk.verifies(text, Algorithm::HmacSha256, "v1", signature));
    assert!(!desk.verifies(&text.replace("1.1.0", "1.2.0"), Algorithm::HmacSha256, "v1", signature));
    assert!(answer.contains(&format!("tes-sig: {signature}")) && answer.contains("tes-key-version: v1"), "{answer}");
    assert_eq!((&told["revision"], &told["changes"][1]["entityId"]), (&2.into(), &"api:sample".into()));
    for client in [&mut watching, &mut acting] {
        assert_eq!(client.json().await["type"], "version_changed");
    }

    let message = acting.ask(r#"{"type":"bump","id":"7","entityId":"component:sample","cascade":false}"#).await;
    assert_eq!((&message["id"], &message["data"]["revision"]), (&"7".into(), &3.into()));
    let other = watching.json().await;
    assert_eq!((&other["type"], &other["revision"]), (&"version_changed".into(), &3.into()));
    let refresh = acting.ask(r#"{"type":"refresh"}"#).await;
    assert_eq!(
        (refresh["type"].as_str(), version(&refresh, "component:sample")),
        (Some("refresh_response"), "1.1.1".into())
    );
    let rest = ask(at, "GET /version/registry", &[], "").await;
    assert_eq!(version(&body(&rest), "component:sample"), "1.1.1");
    assert!(rest.to_lowercase().contains("etag: \"3\""));
    assert!(ask(at, "GET /version/registry", &["If-None-Match: \"3\""], "").await.starts_with("HTTP/1.1 304"));
}

// Proves: GW-64
#[tokio::test]
async fn dry_run() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let before = body(&ask(at, "GET /version/registry", &[], "").await);
    let answer = bump(at, r#"{"dryRun":true}"#, &[]).await;
    assert!(!answer.contains("tes-sig") && body(&answer).get("signature").is_none());
    assert_eq!(body(&answer)["dryRun"], true);
    let mut client = Client::enter(at, "tes-ui-v1").await;
    let told = client.ask(r#"{"type":"bump","dryRun":true}"#).await;
    assert!(told["data"].get("signature").is_none() && told["data"]["dryRun"] == true);
    assert_eq!(body(&ask(at, "GET /version/registry", &[], "").await), before);
}

// Proves: GW-24, GW-25
#[tokio::test]
async fn the_rung_decides_how_an_answer_is_signed() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let carrier = format!("tes-ui-v2, tes-ui-v1, tes-token.{}", token(at).await);
    let early = Client::open(at, &[format!("Sec-WebSocket-Protocol: {carrier}")], b"").await.unwrap();
    assert!(early.head.to_lowercase().contains("sec-websocket-protocol: tes-ui-v1\r\n"), "{}", early.head);
    desk.rotate();
    let mut client = Client::enter(at, "tes-ui-v2,tes-ui-v1").await;
    assert!(client.head.to_lowercase().contains("sec-websocket-protocol: tes-ui-v2\r\n"));
    let told = client.ask(r#"{"type":"bump"}"#).await["data"].clone();
    assert_eq!((&told["alg"], &told["keyVersion"]), (&"Ed25519".into(), &"v2".into()));
    let text = told["bumped"].to_string();
    assert!(desk.verifies(&text, Algorithm::Ed25519, "v2", told["signature"].as_str().unwrap()));
    assert!(!desk.verifies(&text, Algorithm::Ed25519, "v1", told["signature"].as_str().unwrap()));
}

// Proves: GW-67, GW-68
#[tokio::test]
async fn bump_statuses() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let status = |answer: &str| {
        (answer[9..12].parse::<u16>().unwrap(), body(answer)["code"].as_str().unwrap_or_default().to_owned())
    };
    for (text, wanted, code) in [
        ("{", 400, "INVALID_JSON"),
        ("[]", 400, "INVALID_JSON"),
        ("{\"a\":1,\"a\":1}", 400, "INVALID_JSON"),
        (r#"{"scope":"huge"}"#, 400, "INVALID_SCOPE"),
        (r#"{"type":"patch","scope":"major"}"#, 400, "INVALID_FIELD"),
        (r#"{"extra":1}"#, 400, "INVALID_FIELD"),
        (r#"{"entityId":"component:none"}"#, 404, "ENTITY_NOT_FOUND"),
        (r#"{"keyVersion":"v9"}"#, 503, "KEY_UNAVAILABLE"),
    ] {
        assert_eq!(status(&bump(at, text, &[]).await), (wanted, code.to_owned()), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(40), "]".repeat(40));
    assert_eq!(status(&bump(at, &format!("{{\"a\":{deep}}}"), &[]).await).0, 400);
    assert_eq!(
        status(&bump(at, &json!({"entityId": "x".repeat(70_000)}).to_string(), &[]).await),
        (413, "PAYLOAD_TOO_LARGE".into())
    );
    assert_eq!(status(&bump(at, r#"{"keyVersion":"v1"}"#, &["X-Key-Version: v2"]).await).0, 400);
    assert_eq!(
        status(&ask(at, "POST /version/bump", &["Content-Type: text/plain"], "{}").await),
        (415, "UNSUPPORTED_MEDIA".into())
    );
    assert_eq!(
        status(&ask(at, "POST /version/bump", &["Content-Type: application/json"], "{}").await),
        (403, "CSRF_INVALID".into())
    );
    let evil =
        ask(at, "POST /version/bump", &["Content-Type: application/json", "Origin: http://evil.example"], "{}").await;
    assert_eq!(status(&evil), (403, "ORIGIN_DENIED".into()));
    // A token serves once, over HTTP as over WebSocket.
    let line = format!("X-CSRF-Token: {}", token(at).await);
    let lines = ["Content-Type: application/json; charset=utf-8", line.as_str()];
    assert_eq!(status(&ask(at, "POST /api/dev/bump-version", &lines, "{}").await).0, 200);
    assert_eq!(status(&ask(at, "POST /api/dev/bump-version", &lines, "{}").await).0, 403);
    assert_eq!(status(&ask(at, "PUT /version/bump", &lines, "{}").await).0, 405);
}

// Proves: GW-67, GW-69
#[tokio::test]
async fn bump_idempotent() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let mut watching = Client::enter(at, "tes-ui-v1").await;
    let key = ["Idempotency-Key: my-request-number-1"];
    let signature = |answer: &str| {
        answer
            .lines()
            .find(|line| line.starts_with("tes-sig: "))
            .map(str::to_owned)
            .unwrap_or_else(|| panic!("{answer}"))
    };
    let first = bump(at, r#"{"entityId":"api:sample"}"#, &key).await;
    let again = bump(at, r#"{"entityId":"api:sample"}"#, &key).await;
    assert_eq!((body(&first), signature(&first)), (body(&again), signature(&again)));
    assert_eq!(body(&first)["revision"], 2);
    let other = bump(at, r#"{"entityId":"component:sample"}"#, &key).await;
    assert!(other.starts_with("HTTP/1.1 409") && body(&other)["code"] == "STATE_CONFLICT", "{other}");
    assert!(bump(at, "{}", &["Idempotency-Key: short"]).await.starts_with("HTTP/1.1 400"));
    assert_eq!(body(&ask(at, "GET /version/registry", &[], "").await)["revision"], 2, "one change");
    let fresh = bump(at, r#"{"entityId":"api:sample"}"#, &["Idempotency-Key: my-request-number-2"]).await;
    assert_eq!(body(&fresh)["revision"], 3);
    // A failure is not kept: the next try may succeed.
    *desk.fail.lock().unwrap() = Some(Code::StorageError);
    let third = ["Idempotency-Key: my-request-number-3"];
    assert!(bump(at, "{}", &third).await.starts_with("HTTP/1.1 503"));
    *desk.fail.lock().unwrap() = None;
    assert_eq!(body(&bump(at, "{}", &third).await)["revision"], 4);
    for revision in 2..=4 {
        assert_eq!(watching.json().await["revision"], revision, "each change is told once");
    }
}

// Proves: GW-66
#[tokio::test]
async fn a_failure_leaves_nothing_changed() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    *desk.fail.lock().unwrap() = Some(Code::StorageError);
    assert!(bump(at, "{}", &[]).await.starts_with("HTTP/1.1 503"));
    let mut client = Client::enter(at, "tes-ui-v1").await;
    assert_eq!(client.ask(r#"{"type":"bump"}"#).await["code"], "STORAGE_ERROR");
    assert_eq!(body(&ask(at, "GET /version/registry", &[], "").await)["revision"], 1);
}

// Proves: GW-65
#[tokio::test(flavor = "multi_thread")]
async fn bump_serial() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn(async move {
                body(&bump(at, r#"{"entityId":"api:sample"}"#, &[]).await)["revision"].as_u64().unwrap()
            })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (2..=101).collect::<Vec<u64>>());
    assert_eq!(version(&body(&ask(at, "GET /version/registry", &[], "").await), "api:sample"), "1.0.100");
}
