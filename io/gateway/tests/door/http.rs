//! The endpoints of the seed: who gets what.

use crate::client::{Desk, ask, body, door, status, token};

// Proves: GW-1, GW-2, GW-109
#[tokio::test]
async fn health() {
    let server = door(&Desk::new(), |_| {}).await;
    let short = body(&ask(server.address(), "GET /health", &[], "").await);
    assert_eq!((&short["status"], short["timestamp"].is_u64()), (&"ok".into(), true));
    let long = body(&ask(server.address(), "GET /version/health", &[], "").await);
    assert_eq!(
        (&long["threadId"], &long["keyVersion"], &long["hsl"]),
        (&"0x6001".into(), &"1".into(), &"#9D4EDD".into())
    );
    let public = body(&ask(server.address(), "GET /version/health", &["X-Real-IP: 9.9.9.9"], "").await);
    assert_eq!(public.as_object().unwrap().len(), 1);
    assert_eq!(status(&ask(server.address(), "POST /health", &[], "").await), 405);
}

// Proves: GW-3, GW-4
#[tokio::test]
async fn the_token_endpoint() {
    let server = door(&Desk::new(), |settings| settings.allowed_origins = vec!["https://app.example".into()]).await;
    let at = server.address();
    let answer = ask(at, "GET /api/auth/csrf-token", &[], "").await;
    assert!(answer.to_lowercase().contains("cache-control: no-store"), "{answer}");
    let told = body(&answer);
    assert_eq!(
        (&told["purpose"], &told["expiresIn"], told["token"].as_str().unwrap().len()),
        (&"general".into(), &300.into(), 43)
    );
    let post = ask(at, "POST /api/auth/csrf-token", &[], "").await;
    assert!(status(&post) == 405 && post.to_lowercase().contains("allow: "));
    for line in
        ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"]
    {
        let refused = ask(at, "GET /api/auth/csrf-token", &[line], "").await;
        assert_eq!(status(&refused), 403, "{line}");
        assert!(!refused.to_lowercase().contains("access-control"), "{refused}");
        assert_eq!(body(&refused)["code"], "ORIGIN_DENIED");
    }
    let page =
        ask(at, "GET /api/auth/csrf-token", &["Origin: https://app.example", "Sec-Fetch-Site: cross-site"], "").await;
    let page = page.to_lowercase();
    assert!(
        page.starts_with("http/1.1 200")
            && page.contains("access-control-allow-origin: https://app.example")
            && page.contains("vary: origin")
    );
    // What is refused such a page it can read, a name that is not there as much as a limit.
    for path in ["/bundle/nothing/1.0.0", "/version/bump", "/nowhere"] {
        let refused = ask(at, &format!("GET {path}"), &["Origin: https://app.example"], "").await.to_lowercase();
        assert!(!refused.starts_with("http/1.1 200"), "{path}");
        assert!(refused.contains("access-control-allow-origin: https://app.example"), "{path}: {refused}");
    }
    for (query, wanted) in [("purpose=ws", 200), ("purpose=admin", 401), ("purpose=all", 400)] {
        assert_eq!(status(&ask(at, &format!("GET /api/auth/csrf-token?{query}"), &[], "").await), wanted, "{query}");
    }
}

// Proves: GW-15, GW-87
#[tokio::test]
async fn foreign_hosts_and_odd_requests() {
    let server = door(&Desk::new(), |_| {}).await;
    let at = server.address();
    let foreign = ask(at, "GET /version/registry", &["Host: evil.example"], "").await;
    assert_eq!((status(&foreign), &body(&foreign)["code"]), (400, &"HOST_MISMATCH".into()));
    let twice = ask(at, "GET /version/registry", &[&format!("Host: {at}"), &format!("Host: {at}")], "").await;
    assert_eq!(status(&twice), 400);
    for path in ["/", "/version", "/version/bump/x", "/../etc/passwd", "/version/registry/"] {
        assert_eq!(status(&ask(at, &format!("GET {path}"), &[], "").await), 404, "{path}");
    }
    let own_id = ask(at, "GET /health", &["X-Request-ID: my-request-1"], "").await;
    assert!(own_id.contains("my-request-1") && own_id.to_lowercase().contains("x-content-type-options: nosniff"));
    assert!(!ask(at, "GET /health", &["X-Request-ID: <script>alert</script>"], "").await.contains("script"));
}

// Proves: GW-86
#[tokio::test]
async fn heads_that_are_too_long_or_have_too_many_lines() {
    let server = door(&Desk::new(), |_| {}).await;
    let long = format!("X: {}", "a".repeat(17_000));
    assert_eq!(status(&ask(server.address(), "GET /health", &[&long], "").await), 431);
    let fits = format!("X: {}", "a".repeat(12_000));
    assert_eq!(status(&ask(server.address(), "GET /health", &[&fits], "").await), 200);
    assert_eq!(status(&ask(server.address(), "GET /health", &["X: y"; 80], "").await), 431);
}

// Proves: GW-16, GW-93
#[tokio::test]
async fn on_a_listener_of_this_machine_everybody_bumps_but_for_what_comes_through_a_proxy() {
    let desk = Desk::new();
    let open = door(&desk, |_| {}).await;
    assert_eq!(status(&ask(open.address(), "GET /version/registry", &[], "").await), 200);
    for line in [
        "X-Forwarded-For: 127.0.0.1",
        "Forwarded: for=127.0.0.1",
        "CF-Connecting-IP: 127.0.0.1",
        "X-Forwarded-Proto: https",
    ] {
        assert_eq!(status(&ask(open.address(), "GET /version/registry", &[line], "").await), 401, "{line}");
    }
    let reading = door(&desk, |settings| settings.public_read = true).await;
    assert_eq!(status(&ask(reading.address(), "GET /version/registry", &["X-Real-IP: 9.9.9.9"], "").await), 200);
}

// Proves: GW-81
#[tokio::test]
async fn figures_are_for_this_machine() {
    let server = door(&Desk::new(), |_| {}).await;
    assert!(ask(server.address(), "GET /metrics", &[], "").await.contains("sealtide_sessions 2"));
    assert_eq!(status(&ask(server.address(), "GET /metrics", &["X-Real-IP: 127.0.0.1"], "").await), 404);
}

// Proves: GW-95
#[tokio::test]
async fn rates_of_requests() {
    let server = door(&Desk::new(), |settings| {
        settings.limits_loopback = true;
        settings.tokens_per_second = 2;
    })
    .await;
    let mut refused = 0;
    for _ in 0..12 {
        let answer = ask(server.address(), "GET /api/auth/csrf-token", &[], "").await;
        if status(&answer) == 429 {
            assert!(answer.to_lowercase().contains("retry-after: "));
            refused += 1;
        }
    }
    assert!(refused > 0);
    let free = door(&Desk::new(), |settings| settings.tokens_per_second = 2).await;
    for _ in 0..12 {
        token(free.address()).await;
    }
}
