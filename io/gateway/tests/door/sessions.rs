//! WebSocket sessions of the real door: messages, faults, tokens over a socket.

use crate::client::{Client, Desk, ask, door, frame, token};

// Proves: GW-5, GW-6, GW-13
#[tokio::test]
async fn a_token_opens_one_session() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let token = token(at).await;
    let lines = [format!("X-TES-WS-CSRF-Token: {token}"), "Sec-WebSocket-Protocol: tes-ui-v1".to_owned()];
    let first = Client::open(at, &lines, b"").await.unwrap();
    assert!(first.head.to_lowercase().contains("sec-websocket-protocol: tes-ui-v1\r\n"));
    let again = Client::open(at, &lines, b"").await.err().unwrap();
    assert!(again.starts_with("HTTP/1.1 403") && again.to_lowercase().contains("x-tes-error: csrf_invalid"), "{again}");
    let page = ask(at, "GET /version/ws", &["Upgrade: websocket"], "").await;
    assert!(page.starts_with("HTTP/1.1 426") && page.to_lowercase().contains("upgrade: websocket"), "{page}");
}

// Proves: GW-7
#[tokio::test(flavor = "multi_thread")]
async fn of_many_upgrades_at_once_one_gets_in() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    for _ in 0..5 {
        let token = token(at).await;
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let lines = [format!("X-TES-WS-CSRF-Token: {token}")];
                tokio::spawn(async move { Client::open(at, &lines, b"").await.is_ok() })
            })
            .collect();
        let mut opened = 0;
        for task in tasks {
            opened += usize::from(task.await.unwrap());
        }
        assert_eq!(opened, 1);
    }
}

// Proves: GW-30, GW-31
#[tokio::test]
async fn messages() {
    let server = door(&Desk::new(), |_| {}).await;
    let mut client = Client::enter(server.address(), "tes-ui-v1").await;
    client.send(r#"{"type":"ping"}"#).await;
    assert_eq!(client.frame().await.unwrap(), (0x81, br##"{"type":"pong","hsl":"#9D4EDD"}"##.to_vec()));
    assert_eq!(client.ask(r#"{"type":"ping","id":"x"}"#).await["id"], "x");
    // Binary JSON is JSON.
    client.raw(&frame(0x82, br#"{"type":"ping"}"#)).await;
    assert_eq!(client.json().await["type"], "pong");
    let told = client.ask(r#"{"type":"refresh"}"#).await;
    let members = ["entities", "lifecycle", "hsl", "threadId", "channel", "revision"];
    assert!(members.iter().all(|name| told.get(name).is_some()), "{told}");
    assert_eq!((&told["threadId"], &told["channel"]), (&"0x6001".into(), &"COMMAND_CHANNEL".into()));
}

// Proves: GW-32
#[tokio::test]
async fn message_faults() {
    let server = door(&Desk::new(), |_| {}).await;
    let mut client = Client::enter(server.address(), "tes-ui-v1").await;
    let cases = [
        ("{", "INVALID_JSON"),
        (r#"{"type":"unheard"}"#, "UNKNOWN_TYPE"),
        (r#"{"type":"bump","scope":"huge"}"#, "INVALID_SCOPE"),
        (r#"{"type":"bump","cascade":"no"}"#, "INVALID_FIELD"),
    ];
    for (text, code) in cases {
        let told = client.ask(text).await;
        assert_eq!(
            (&told["type"], &told["code"], &told["hsl"]),
            (&"error".into(), &code.into(), &"#FF0000".into()),
            "{text}"
        );
    }
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    assert_eq!(client.ask(r#"{"id":5,"type":"ping"}"#).await["code"], "INVALID_FIELD");
    assert_eq!(client.closed().await, Some(1008), "the fifth is the last");
}

// Proves: GW-100
#[tokio::test]
async fn message_bombs() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let deep = format!("{}1{}", r#"{"a":"#.repeat(5_000), "}".repeat(5_000));
    let many = format!("{{{}}}", (0..5_000).map(|at| format!(r#""k{at}":1"#)).collect::<Vec<_>>().join(","));
    for text in [deep, many, "[".repeat(60_000), format!(r#"{{"type":"bump","entityId":"{}"}}"#, "x".repeat(60_000))] {
        let mut client = Client::enter(at, "tes-ui-v1").await;
        let told = client.ask(&text).await;
        assert_eq!(told["type"], "error", "{}", &text[..20]);
        assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    }
    let mut claimed = Client::enter(at, "tes-ui-v1").await;
    claimed.raw(&[0x82, 0xff, 0, 0, 0, 0x7f, 0, 0, 0, 0, 1, 2, 3, 4]).await;
    assert_eq!(claimed.closed().await, Some(1009));
    let mut fragments = Client::enter(at, "tes-ui-v1").await;
    fragments.raw(&frame(0x01, b"")).await;
    fragments.raw(&frame(0x00, b"").repeat(1_024)).await;
    assert_eq!(fragments.closed().await, Some(1008));
}

// Proves: GW-92
#[tokio::test]
async fn what_the_world_may_say() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let public = "X-Real-IP: 9.9.9.9";
    let answer = ask(at, "GET /api/auth/csrf-token", &[public], "").await;
    let token = crate::client::body(&answer)["token"].as_str().unwrap().to_owned();
    let mut client =
        Client::open(at, &[format!("X-TES-WS-CSRF-Token: {token}"), public.to_owned()], b"").await.unwrap();
    assert_eq!(client.ask(r#"{"type":"ping"}"#).await["type"], "pong");
    for _ in 0..6 {
        // Less than the role needs is no fault, however often.
        assert_eq!(client.ask(r#"{"type":"refresh"}"#).await["code"], "FORBIDDEN");
        assert_eq!(client.ask(r#"{"type":"bump"}"#).await["code"], "FORBIDDEN");
    }
    // A fresh token of this machine does not help: it was issued to the same source, but a renewal takes its role.
    let own = crate::client::token(at).await;
    client.raw(&frame(0x82, &[b"\x01", own.as_bytes()].concat())).await;
    assert_eq!(client.json().await["type"], "renewed");
    assert_eq!(client.ask(r#"{"type":"refresh"}"#).await["type"], "refresh_response");
    client.raw(&frame(0x82, &[b"\x01", own.as_bytes()].concat())).await;
    assert_eq!(client.json().await["code"], "CSRF_INVALID", "a token serves once");
}

// Proves: GW-86
#[tokio::test]
async fn sessions_are_bounded_and_places_come_back() {
    let server = door(&Desk::new(), |settings| settings.sessions_per_source = Some(2)).await;
    let at = server.address();
    let first = Client::enter(at, "tes-ui-v1").await;
    let mut second = Client::enter(at, "tes-ui-v1").await;
    let lines = [format!("X-TES-WS-CSRF-Token: {}", token(at).await)];
    let refused = Client::open(at, &lines, b"").await.err().unwrap();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.to_lowercase().contains("retry-after"), "{refused}");
    second.raw(&frame(0x88, &[0x03, 0xe8])).await;
    assert_eq!(second.closed().await, Some(1000));
    drop((first, second));
    // The token was not taken by the refusal; the place comes back when the connection has ended.
    loop {
        if Client::open(at, &lines, b"").await.is_ok() {
            break;
        }
    }
}
