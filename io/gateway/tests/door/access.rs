//! Who may do what: every endpoint and every message under every role.

use std::net::SocketAddr;

use sealtide_crypto::sha256;
use sealtide_gateway::{Auth, Bearer, Role, Settings};

use crate::client::{Client, Desk, ask, body, door, status};

/// Callers by the name of their credential, least first; the last has one that nobody knows.
const CALLERS: [&str; 5] = ["", "reader", "bumper", "admin", "stranger"];

fn with_bearers(settings: &mut Settings) {
    let bearer = |name: &str, role| Bearer { digest: sha256(name.as_bytes()), id: name.into(), role };
    settings.bearers =
        vec![bearer("reader", Role::Reader), bearer("bumper", Role::Bumper), bearer("admin", Role::Admin)];
    settings.auth = Some(Auth::Bearer);
}

fn credential(caller: &str) -> Vec<String> {
    if caller.is_empty() { Vec::new() } else { vec![format!("Authorization: Bearer {caller}")] }
}

async fn told(at: SocketAddr, caller: &str, request: &str, more: &[&str], text: &str) -> u16 {
    let own = credential(caller);
    let lines: Vec<&str> = own.iter().map(String::as_str).chain(more.iter().copied()).collect();
    status(&ask(at, request, &lines, text).await)
}

async fn fetched(at: SocketAddr, caller: &str, purpose: &str) -> String {
    let own = credential(caller);
    let lines: Vec<&str> = own.iter().map(String::as_str).collect();
    let answer = ask(at, &format!("GET /api/auth/csrf-token?purpose={purpose}"), &lines, "").await;
    body(&answer)["token"].as_str().unwrap().to_owned()
}

// Proves: GW-92
#[tokio::test]
async fn access_matrix() {
    let server = door(&Desk::new(), with_bearers).await;
    let at = server.address();
    // In the order of CALLERS; the figures are for this machine whoever asks there, and health is for everybody.
    let rows = [
        ("GET /health", [200; 5]),
        ("GET /healthz", [200; 5]),
        ("GET /readyz", [200; 5]),
        ("GET /version/health", [200, 200, 200, 200, 401]),
        ("GET /api/auth/csrf-token", [200, 200, 200, 200, 401]),
        ("GET /api/auth/csrf-token?purpose=ws", [200, 200, 200, 200, 401]),
        ("GET /api/auth/csrf-token?purpose=admin", [401, 401, 401, 200, 401]),
        ("GET /version/registry", [401, 200, 200, 200, 401]),
        ("GET /api/dev/versions", [401, 200, 200, 200, 401]),
        ("POST /version/bump", [401, 403, 200, 200, 401]),
        ("POST /api/dev/bump-version", [401, 403, 200, 200, 401]),
    ];
    for (request, wanted) in rows {
        for (caller, wanted) in CALLERS.into_iter().zip(wanted) {
            // Each has the token that its role may have; without one a bumper is refused for that.
            let token = if caller == "stranger" { "A".repeat(43) } else { fetched(at, caller, "http").await };
            let lines = ["Content-Type: application/json", &format!("X-CSRF-Token: {token}")];
            let (lines, text): (&[&str], &str) =
                if request.starts_with("POST") { (&lines, r#"{"dryRun":true}"#) } else { (&[], "") };
            assert_eq!(told(at, caller, request, lines, text).await, wanted, "{request} as {caller:?}");
        }
    }
    // Keys, sessions and audit. Only an admin gets a token for an admin's changes, and an address of this machine may.
    let verify = r#"{"payload":"W10=","signature":"00","keyVersion":"v1","alg":"HMAC-SHA256"}"#;
    let rows = [
        ("GET /version/keys", "", [200, 200, 200, 200, 401]),
        ("GET /version/keys/ledger", "", [200, 200, 200, 200, 401]),
        ("GET /version/keys/ledger?since=1", "", [200, 200, 200, 200, 401]),
        ("POST /version/verify", verify, [401, 200, 200, 200, 401]),
        ("GET /api/lifecycle/export", "", [401, 200, 200, 200, 401]),
        ("GET /admin/audit", "", [401, 403, 403, 200, 401]),
        ("POST /admin/rotate", "{}", [401, 403, 403, 200, 401]),
        ("POST /admin/rollback", "{}", [401, 403, 403, 200, 401]),
        ("POST /admin/force", r#"{"to":"v2"}"#, [401, 403, 403, 200, 401]),
        ("GET /api/auth/session", "", [200, 200, 200, 200, 401]),
        ("POST /api/auth/session", "{}", [400, 200, 200, 200, 401]),
        ("GET /metrics", "", [200, 200, 200, 200, 401]),
    ];
    for (request, text, wanted) in rows {
        for (caller, wanted) in CALLERS.into_iter().zip(wanted) {
            let token = if caller == "admin" { fetched(at, caller, "admin").await } else { "A".repeat(43) };
            let lines = ["Content-Type: application/json", &format!("X-CSRF-Token: {token}")];
            let lines: &[&str] = if request.starts_with("POST") { &lines } else { &[] };
            assert_eq!(told(at, caller, request, lines, text).await, wanted, "{request} as {caller:?}");
        }
    }
    for caller in ["bumper", "admin"] {
        let lines = ["Content-Type: application/json"];
        assert_eq!(told(at, caller, "POST /version/bump", &lines, "{}").await, 403, "no token");
    }
    // The token of another holder is none.
    let lines = ["Content-Type: application/json", &format!("X-CSRF-Token: {}", fetched(at, "admin", "http").await)];
    assert_eq!(told(at, "bumper", "POST /version/bump", &lines, "{}").await, 403);
}

// Proves: GW-92
#[tokio::test]
async fn messages_need_the_role_of_the_tokens_holder() {
    for public_read in [false, true] {
        let server = door(&Desk::new(), |settings| {
            with_bearers(settings);
            settings.public_read = public_read;
            settings.allow_missing_origin = Some(true);
        })
        .await;
        let at = server.address();
        let reads = [public_read, true, true, true];
        for (caller, (reads, bumps)) in CALLERS.into_iter().zip(reads.into_iter().zip([false, false, true, true])) {
            let token = fetched(at, caller, "ws").await;
            let lines = [format!("X-TES-WS-CSRF-Token: {token}")];
            // The session shows no credential: it has the role of the token's principal.
            let mut client = Client::open(at, &lines, b"").await.unwrap();
            assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong", "{caller:?}");
            let refreshed = client.ask(r#"{"type":"refresh"}"#).await;
            assert_eq!(refreshed["type"] == "refresh_response", reads, "{caller:?}: {refreshed}");
            let bumped = client.ask(r#"{"type":"bump","dryRun":true}"#).await;
            assert_eq!(bumped["type"] == "bump_response", bumps, "{caller:?}: {bumped}");
            for refused in [(reads, &refreshed), (bumps, &bumped)].iter().filter(|(may, _)| !may) {
                assert_eq!(refused.1["code"], "FORBIDDEN");
            }
            // A renewal takes the role of the new token's principal, whoever the session was.
            let token = fetched(at, "reader", "ws").await;
            let renewed = client.ask(&format!(r#"{{"type":"renew","token":"{token}"}}"#)).await;
            assert_eq!(renewed["type"], "renewed", "{caller:?}: {renewed}");
            assert_eq!(client.ask(r#"{"type":"refresh"}"#).await["type"], "refresh_response");
            assert_eq!(client.ask(r#"{"type":"bump"}"#).await["code"], "FORBIDDEN");
        }
        // A credential that nobody knows is never taken for none.
        let token = fetched(at, "", "ws").await;
        let lines = [format!("X-TES-WS-CSRF-Token: {token}"), "Authorization: Bearer stranger".to_owned()];
        assert!(Client::open(at, &lines, b"").await.err().unwrap().starts_with("HTTP/1.1 401"));
    }
}

/// What a public request may hear of others: nothing, unless anybody may read.
// Proves: GW-92
#[tokio::test]
async fn changes_are_told_to_readers_only() {
    for public_read in [false, true] {
        let server = door(&Desk::new(), |settings| {
            with_bearers(settings);
            settings.public_read = public_read;
            settings.allow_missing_origin = Some(true);
        })
        .await;
        let at = server.address();
        let enter = async |caller| {
            let lines = [format!("X-TES-WS-CSRF-Token: {}", fetched(at, caller, "ws").await)];
            Client::open(at, &lines, b"").await.unwrap()
        };
        let (mut public, mut reader, mut bumper) = (enter("").await, enter("reader").await, enter("bumper").await);
        assert_eq!(bumper.ask(r#"{"type":"bump"}"#).await["type"], "bump_response");
        assert_eq!(reader.json().await["type"], "version_changed");
        // The pong comes behind whatever was told before it was asked for.
        let heard = public.ask(r#"{"type":"ping"}"#).await["type"].clone();
        assert_eq!(heard, if public_read { "version_changed" } else { "pong" });
    }
}
