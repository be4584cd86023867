//! What the audit is told of the door, and what the figures count.

use sealtide_gateway::{DoorEvent, Rung, Settings};

use crate::client::{Client, Desk, ask, door, token};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

fn told(desk: &Desk, name: &str) -> Vec<DoorEvent> {
    desk.events.lock().unwrap().iter().filter(|event| event.name == name).cloned().collect()
}

fn member(event: &DoorEvent, name: &str) -> String {
    let found = event.members.iter().find(|(own, _)| *own == name);
    found.unwrap_or_else(|| panic!("{name} in {event:?}")).1.clone()
}

/// An upgrade with these lines in place of the good ones.
async fn upgrade(at: std::net::SocketAddr, version: &str, key: &str, lines: &[&str]) -> String {
    let all = [&["Upgrade: websocket", version, key, "Accept: application/json"], lines].concat();
    let all: Vec<String> = all.iter().map(|line| (*line).to_owned()).collect();
    let text: Vec<&str> = all.iter().map(String::as_str).collect();
    ask_upgrade(at, &text).await
}

async fn ask_upgrade(at: std::net::SocketAddr, lines: &[&str]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let has_host = lines.iter().any(|line| line.starts_with("Host:"));
    let host = if has_host { String::new() } else { format!("Host: {at}\r\n") };
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("GET /version/ws?secret=in-the-query HTTP/1.1\r\n{host}Connection: Upgrade\r\n{lines}\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

// Proves: GW-78
// The events of the door; those behind it are in the stories of the binary.
#[tokio::test]
async fn events_complete() {
    let desk = Desk::new();
    let server = door(&desk, |settings: &mut Settings| {
        settings.tokens_per_source = Some(4);
        settings.min_subprotocol = Rung::V1;
    })
    .await;
    let (at, version) = (server.address(), "Sec-WebSocket-Version: 13");
    for (name, lines, version, key, wanted) in [
        ("ws:upgrade:host_mismatch", vec!["Host: evil.example"], version, KEY, ("declaredHost", "evil.example")),
        (
            "ws:upgrade:invalid_key",
            vec![],
            version,
            "Sec-WebSocket-Key: AAAABBBBCCCCDDDD",
            ("wsKeyPreview", "AAAABBBB..."),
        ),
        ("ws:upgrade:version_mismatch", vec![], "Sec-WebSocket-Version: 8", KEY, ("version", "8")),
        (
            "ws:upgrade:origin_denied",
            vec!["Origin: https://evil.example"],
            version,
            KEY,
            ("origin", "https://evil.example"),
        ),
        ("ws:subproto:mismatch", vec!["Sec-WebSocket-Protocol: other"], version, KEY, ("offered", "other")),
        ("ws:upgrade:csrf_invalid", vec![], version, KEY, ("reason", "missing")),
    ] {
        upgrade(at, version, key, &lines).await;
        let events = told(&desk, name);
        assert_eq!(events.len(), 1, "{name}: {:?}", desk.events.lock().unwrap());
        assert_eq!(member(&events[0], wanted.0), wanted.1, "{name}");
        assert_eq!(member(&events[0], "clientIP"), "127.0.0.1", "{name}");
        assert!(events[0].request_id.as_ref().is_some_and(|id| id.len() == 36), "{name}");
    }
    // Tokens: what is wrong with one is for the audit alone.
    let good = token(at).await;
    let unknown = "A".repeat(43);
    let carrier = format!("Sec-WebSocket-Protocol: tes-ui-v1, tes-token.{good}");
    for (lines, reason) in [
        (vec![format!("X-TES-WS-CSRF-Token: {unknown}")], "unknown"),
        (vec!["X-TES-WS-CSRF-Token: short".to_owned()], "malformed"),
        (vec![format!("X-TES-WS-CSRF-Token: {good}"), carrier.clone()], "carrier"),
        (vec![format!("X-TES-WS-CSRF-Token: {good}"), "X-Real-IP: 9.9.9.9".to_owned()], "taken"),
    ] {
        let before = told(&desk, "ws:upgrade:csrf_invalid").len();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        upgrade(at, version, KEY, &lines).await;
        let events = told(&desk, "ws:upgrade:csrf_invalid");
        match reason {
            "taken" => assert_eq!(events.len(), before),
            reason => assert_eq!(member(events.last().unwrap(), "reason"), reason),
        }
    }
    assert_eq!(told(&desk, "access:public_request").len(), 1);
    assert_eq!(member(&told(&desk, "access:public_request")[0], "header"), "x-real-ip");
    let client = Client::enter(at, "tes-ui-v1").await;
    let taken = told(&desk, "ws:upgrade:headers_validated").pop().unwrap();
    assert_eq!(
        (member(&taken, "selectedProtocol"), member(&taken, "proxyTrusted")),
        ("tes-ui-v1".into(), "false".into())
    );
    assert_eq!(member(&taken, "wsKey"), "dGhlIHNh...");
    drop(client);
    while told(&desk, "ws:close").len() < 2 {
        tokio::task::yield_now().await;
    }
    let issued = told(&desk, "csrf:issued");
    assert_eq!((issued.len(), member(&issued[0], "nonceHash").len()), (2, 8));
    for _ in 0..5 {
        ask(at, "GET /api/auth/csrf-token", &[], "").await;
    }
    assert_eq!(told(&desk, "csrf:capacity").len(), 1, "four tokens wait");
    // Nothing that is secret, and nothing of a query, is in any of it.
    let everything = format!("{:?}", desk.events.lock().unwrap());
    for secret in [good.as_str(), &unknown, "in-the-query", "dGhlIHNhbXBsZSBub25jZQ", "tes-token"] {
        assert!(!everything.contains(secret), "{secret}");
    }
}

// Of GW-78: what sessions and changes over HTTP leave behind.
#[tokio::test]
async fn events_of_sessions_and_of_tokens_over_http() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    // The first name offered is spoken here, and the keys do not keep it while v1 signs.
    let mut client = Client::enter(at, "tes-ui-v2, tes-ui-v1").await;
    assert_eq!(member(&told(&desk, "ws:subproto:skipped")[0], "offered"), "tes-ui-v2");
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    // Three faults, and a renewal, in which the weight is twice as much.
    for _ in 0..3 {
        assert_eq!(client.ask("nonsense").await["type"], "error");
    }
    assert!(told(&desk, "TENSION_SPIKE").is_empty());
    let renewal = token(at).await;
    assert_eq!(client.ask(&format!(r#"{{"type":"renew","token":"{renewal}"}}"#)).await["type"], "renewed");
    for name in ["TENSION_SPIKE", "FORECAST_ALERT"] {
        assert_eq!(member(&told(&desk, name)[0], "phase"), "RENEW", "{name}");
    }
    // A frame without a mask breaks the protocol.
    client.raw(&[0x81, 0x01, b'x']).await;
    while told(&desk, "ws:close").is_empty() {
        tokio::task::yield_now().await;
    }
    let (broken, closed) = (told(&desk, "ws:error"), told(&desk, "ws:close"));
    assert_eq!((member(&broken[0], "protocol"), member(&broken[0], "code")), ("tes-ui-v1".into(), "1002".into()));
    assert_eq!(member(&closed[0], "code"), "1002");
    let bytes = |name: &str| member(&closed[0], name).parse::<u64>().unwrap();
    assert!(bytes("bytesIn") > 100 && bytes("bytesOut") > 100, "{closed:?}");
    // A forwarding header that nobody trusts, on an upgrade that is taken.
    let lines = [format!("X-TES-WS-CSRF-Token: {}", token(at).await), "X-Real-IP: 9.9.9.9".to_owned()];
    let lines = [lines.as_slice(), &[format!("Origin: http://{at}")]].concat();
    let client = Client::open(at, &lines, b"").await.unwrap();
    assert_eq!(member(&told(&desk, "ws:upgrade:forwarding_ignored")[0], "header"), "x-real-ip");
    drop(client);
    // A change over HTTP takes its token or finds none.
    let json = "Content-Type: application/json";
    ask(at, "POST /version/bump", &[json], "{}").await;
    assert_eq!(member(&told(&desk, "CSRF_FAILURE")[0], "ref"), "");
    let line = format!("X-CSRF-Token: {}", token(at).await);
    ask(at, "POST /version/bump", &[json, &line], "{}").await;
    assert_eq!(member(&told(&desk, "CSRF_VERIFY")[0], "type"), "http");
    ask(at, "POST /version/bump", &[json, &line], "{}").await;
    let again = told(&desk, "CSRF_FAILURE");
    assert_eq!((again.len(), member(&again[1], "ref").len()), (2, 8), "used before");
}

// Of GW-78: a source that comes too often.
#[tokio::test]
async fn upgrades_that_come_too_often() {
    let desk = Desk::new();
    let server = door(&desk, |settings: &mut Settings| {
        settings.limits_loopback = true;
        settings.upgrades_per_second = 1;
    })
    .await;
    for _ in 0..8 {
        upgrade(server.address(), "Sec-WebSocket-Version: 13", KEY, &[]).await;
    }
    let limited = told(&desk, "ws:upgrade:rate_limited");
    assert!(!limited.is_empty());
    assert_eq!((member(&limited[0], "source"), limited[0].hsl), ("127.0.0.1".into(), "#FF4500"));
}

// Proves: GW-81
#[tokio::test]
async fn metrics() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let mut client = Client::enter(at, "tes-ui-v1").await;
    client.ask(r#"{"type":"ping"}"#).await;
    client.ask(r#"{"type":"no such thing"}"#).await;
    upgrade(at, "Sec-WebSocket-Version: 13", KEY, &["X-Real-IP: 9.9.9.9"]).await;
    let text = ask(at, "GET /metrics", &[], "").await;
    for line in [
        r#"sealtide_gw_upgrades_total{code="none",result="taken",subprotocol="tes-ui-v1"} 1"#,
        r#"sealtide_gw_upgrades_total{code="CSRF_INVALID",result="refused",subprotocol="none"} 1"#,
        r#"sealtide_gw_tokens_issued_total{purpose="general"} 1"#,
        r#"sealtide_gw_tokens_rejected_total{reason="missing"} 1"#,
        r#"sealtide_gw_messages_total{dir="in",type="ping"} 1"#,
        r#"sealtide_gw_messages_total{dir="in",type="other"} 1"#,
        r#"sealtide_gw_messages_total{dir="out",type="answer"} 2"#,
        r#"sealtide_gw_forwarding_ignored_total 1"#,
        "sealtide_gw_deflate_ratio_count 0",
        "sealtide_gw_sessions 1",
        "sealtide_gw_tokens_outstanding 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

// Proves: GW-83
#[tokio::test]
async fn lifecycle() {
    let desk = Desk::new();
    let server = door(&desk, |_| {}).await;
    let at = server.address();
    let export = || async { crate::client::body(&ask(at, "GET /api/lifecycle/export", &[], "").await) };
    assert_eq!(export().await["count"], 0);
    let mut client = Client::enter(at, "tes-ui-v1").await;
    client.ask(r#"{"type":"ping"}"#).await;
    let told_now = export().await;
    assert_eq!((&told_now["count"], &told_now["data"][0]["phase"]), (&1.into(), &"ACTIVE".into()));
    let name = told_now["data"][0]["sessionID"].as_str().unwrap().to_owned();
    assert_eq!(name.len(), 32);
    let renewal = format!(r#"{{"type":"renew","token":"{}"}}"#, token(at).await);
    assert_eq!(client.ask(&renewal).await["type"], "renewed");
    for _ in 0..3 {
        assert_eq!(client.ask("{").await["code"], "INVALID_JSON");
    }
    client.ask(r#"{"type":"ping"}"#).await;
    let tense = export().await["data"][0]["tension"].as_f64().unwrap();
    assert!((tense - 0.36).abs() < 1e-9, "three of five faults: {tense}");
    let phases: Vec<String> = told(&desk, "LIFECYCLE_TRANSITION").iter().map(|event| member(event, "phase")).collect();
    assert_eq!(phases, ["ACTIVE", "RENEW", "ACTIVE"]);
    drop(client);
    while export().await["data"][0]["phase"] != "EVICT" {
        tokio::task::yield_now().await;
    }
    let refused = ask(at, "GET /api/lifecycle/export", &["X-Real-IP: 9.9.9.9"], "").await;
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
}
