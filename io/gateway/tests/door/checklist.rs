//! The six points that the older system checks of itself. There a refusal counted as success whatever its reason; here each
//! point also has its good counterpart.

use crate::client::{Client, Desk, ask, body, door, head_of, status, token};

// Proves: GW-89
#[tokio::test]
async fn six_points_and_their_counterparts() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let upgrade = |host: &str, key: &str, more: &str| {
        format!(
            "GET /version/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{more}\r\n"
        )
    };
    let (own, key) = (at.to_string(), "dGhlIHNhbXBsZSBub25jZQ==");
    let carrier = async || format!("X-TES-WS-CSRF-Token: {}\r\n", token(at).await);

    // 1: health.
    assert_eq!(status(&ask(at, "GET /health", &[], "").await), 200);
    assert_eq!(status(&ask(at, "POST /health", &[], "").await), 405);
    // 2: a token; not for pages of others.
    assert_eq!(body(&ask(at, "GET /api/auth/csrf-token", &[], "").await)["token"].as_str().unwrap().len(), 43);
    let foreign = ask(at, "GET /api/auth/csrf-token", &["Origin: https://evil.example"], "").await;
    assert_eq!(status(&foreign), 403);
    // 3: the registry; not for the world.
    let registry = body(&ask(at, "GET /version/registry", &[], "").await);
    assert!(registry["entities"].as_array().is_some_and(|entities| !entities.is_empty()), "{registry}");
    assert_eq!(status(&ask(at, "GET /version/registry", &["X-Forwarded-For: 192.0.2.1"], "").await), 401);
    // 4: a foreign host, without and with a good token; the own one with it.
    for more in ["", &carrier().await] {
        assert_eq!(status(&head_of(at, &upgrade("evil.example", key, more)).await), 400);
    }
    assert_eq!(status(&head_of(at, &upgrade(&own, key, &carrier().await)).await), 101);
    // 5: a malformed key, without and with a good token.
    for bad in ["=".repeat(22), "a".repeat(24), "short".to_owned()] {
        for more in ["", &carrier().await] {
            assert_eq!(status(&head_of(at, &upgrade(&own, &bad, more)).await), 400, "{bad}");
        }
    }
    // 6: no token, and one that is used up; a fresh one gives a session that answers.
    assert_eq!(status(&head_of(at, &upgrade(&own, key, "")).await), 403);
    let used = carrier().await;
    assert_eq!(status(&head_of(at, &upgrade(&own, key, &used)).await), 101);
    assert_eq!(status(&head_of(at, &upgrade(&own, key, &used)).await), 403);
    let mut client = Client::enter(at, "tes-ui-v1").await;
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
}
