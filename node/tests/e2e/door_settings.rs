//! The door as an operator sets it up: options, file, the older system's names, and what is written about it.

use std::fs;

use serde_json::Value;

use crate::gateway::{Gateway, refused, start};
use crate::support::{Machine, until};

fn lines_of(machine: &Machine, what: &str) -> Vec<Value> {
    // Read from the file: no command starts while the settings are at fault.
    let told = fs::read_to_string(machine.home().join("audit/0001.jsonl")).unwrap_or_default();
    let lines = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_default());
    lines.filter(|line| line["[TES_EVENT]"] == what).collect()
}

fn status(answer: &str) -> u16 {
    answer[9..12].parse().unwrap()
}

// Proves: GW-85
#[test]
fn config() {
    let machine = Machine::new();
    machine.ok(&["init"]);
    let file = machine.home().join("config.toml");
    fs::write(&file, "[gateway]\npublic_read = true\ntrusted_proxies = \"10.0.0.0/99\"\n").unwrap();
    let (code, told) = refused(&machine.home(), &[], &[]);
    assert!(code == 2 && told.contains("config.toml:3") && told.contains("10.0.0.0/99"), "{code} {told}");
    fs::write(&file, "[gateway]\nws_token_ttl_ms = 2000\n").unwrap();
    let expires = |gateway: &Gateway| gateway.get("/api/auth/csrf-token")["expiresIn"].clone();
    assert_eq!(expires(&start(&machine.home(), &[], &[])), 2);
    // Option before variable before file.
    let variable = [("SEALTIDE_GATEWAY_WS_TOKEN_TTL_MS", "3000")];
    assert_eq!(expires(&start(&machine.home(), &[], &variable)), 3);
    assert_eq!(expires(&start(&machine.home(), &["--ws-token-ttl-ms", "4000"], &variable)), 4);
    for args in [
        &["--ws-token-ttl-ms", "999"][..],
        &["--max-message-bytes", "1"],
        &["--auth", "none", "--trusted-proxy", "10.0.0.0/8", "--allowed-host", "a.example"],
    ] {
        assert_eq!(refused(&machine.home(), args, &[("VERSION_SIGNING_KEY", &"a1".repeat(32))]).0, 2, "{args:?}");
    }
    // Names of the older system hold where nobody said anything under ours.
    let spoken = |gateway: &Gateway| gateway.get("/version/health")["subprotocols"]["supported"].clone();
    let older = [("TES_SUPPORTED_SUBPROTOCOLS", "tes-ui-v2")];
    assert_eq!(spoken(&start(&machine.home(), &[], &older)), serde_json::json!(["tes-ui-v2"]));
    assert_eq!(
        spoken(&start(&machine.home(), &["--subprotocols", "tes-ui-v1"], &older)),
        serde_json::json!(["tes-ui-v1"])
    );
    assert_eq!(refused(&machine.home(), &[], &[("TES_PROXY_IPS", "nobody")]).0, 2);
}

// Proves: GW-48
#[test]
fn a_public_listener_needs_a_key_that_somebody_chose() {
    let machine = Machine::new();
    let (code, told) = refused(&machine.home(), &["--public-host", "a.example"], &[]);
    assert!(code == 2 && told.contains("no signing key"), "{code} {told}");
    let secret = "a1".repeat(32);
    let own = [("VERSION_SIGNING_KEY", secret.as_str())];
    let gateway = start(&machine.home(), &["--public-host", "a.example"], &own);
    assert_eq!(status(&gateway.ask("GET /version/registry", &[], "")), 401, "nobody reads without a bearer");
    drop(gateway);
    let (code, told) = refused(&machine.home(), &["--trusted-proxy", "10.0.0.0/8"], &own);
    assert!(code == 2 && told.contains("allowed_hosts"), "{code} {told}");
}

// Proves: GW-98
#[test]
fn compat_opens_reading_and_the_query() {
    let machine = Machine::new();
    let plain = start(&machine.home(), &[], &[]);
    let public = ["X-Real-IP: 9.9.9.9".to_owned()];
    assert_eq!(status(&plain.ask("GET /version/registry", &public, "")), 401);
    drop(plain);
    assert!(lines_of(&machine, "access:compat_enabled").is_empty());
    let gateway = start(&machine.home(), &["--compat"], &[]);
    assert_eq!(status(&gateway.ask("GET /version/registry", &public, "")), 200);
    assert_eq!(status(&gateway.ask("GET /api/dev/versions", &public, "")), 200);
    let upgrade = |path: &str, lines: &[String]| {
        let lines = [
            &[
                "Upgrade: websocket".to_owned(),
                "Sec-WebSocket-Version: 13".to_owned(),
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            ],
            lines,
        ]
        .concat();
        // The answer is read up to its head: what follows is a session.
        head_of(&gateway.at, path, &lines)
    };
    let token = || gateway.get("/api/auth/csrf-token")["token"].as_str().unwrap().to_owned();
    let offer = "Sec-WebSocket-Protocol: tes-ui-v1,tes-ui-v2".to_owned();
    let by_query = upgrade(&format!("/version/ws?csrf={}", token()), std::slice::from_ref(&offer));
    assert!(by_query.starts_with("HTTP/1.1 101") && by_query.to_lowercase().contains("tes-ui-v1"), "{by_query}");
    let by_header = upgrade("/api/dev/version-ws", &[offer, format!("x-tes-ws-csrf-token: {}", token())]);
    assert!(by_header.starts_with("HTTP/1.1 101"), "{by_header}");
    assert!(upgrade("/version/ws?csrf=used", &[]).starts_with("HTTP/1.1 403"));
    let bumped = gateway.bump(r#"{"type":"patch","entity":"component:sample"}"#);
    assert_eq!((&bumped["success"], &bumped["metaHybrid"]), (&true.into(), &true.into()));
    drop(gateway);
    let told = lines_of(&machine, "access:compat_enabled");
    assert_eq!((told.len(), &told[0]["settings"]), (1, &"public_read,allow_query_token".into()));
}

fn head_of(at: &str, path: &str, lines: &[String]) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(at).unwrap();
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let text = format!("GET {path} HTTP/1.1\r\nHost: {at}\r\nConnection: Upgrade\r\n{lines}\r\n");
    stream.write_all(text.as_bytes()).unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

// Proves: GW-50
#[test]
fn fallback_matrix() {
    let machine = Machine::new();
    let (first, second) = ("a1".repeat(32), "b2".repeat(32));
    let secrets = [("VERSION_SIGNING_KEY", first.as_str()), ("VERSION_SIGNING_KEY_V2", &second)];
    let wanted = r#"{"keyVersion":"v5"}"#;
    let never = start(&machine.home(), &[], &secrets);
    assert_eq!(never.bump(wanted)["code"], "KEY_UNAVAILABLE");
    assert_eq!(never.bump(r#"{"keyVersion":"v2"}"#)["keyVersion"], "v2", "a caller can raise");
    drop(never);
    let audited = start(&machine.home(), &["--key-fallback", "audited"], &secrets);
    let told = audited.bump(wanted);
    assert_eq!(
        (&told["keyVersion"], &told["requestedKeyVersion"], &told["fallback"]),
        (&"v1".into(), &"v5".into(), &true.into())
    );
    until("the fallback is counted and told", || {
        let figures = audited.ask("GET /metrics", &[], "");
        let counted = figures.contains(r#"sealtide_gw_key_fallback_total{from="other",to="v1"} 1"#);
        if counted && lines_of(&machine, "key:fallback_v5_to_v1").len() == 1 { Ok(()) } else { Err(figures) }
    });
    machine.ok(&["--yes", "keys", "force", "v2"]);
    assert_eq!(audited.bump(wanted)["code"], "KEY_UNAVAILABLE", "not after force");
}

// Proves: GW-81
#[test]
fn metrics() {
    let machine = Machine::new();
    let gateway = start(&machine.home(), &[], &[]);
    assert_eq!(gateway.get("/version/health")["lifecycle"], "CREATED");
    gateway.bump("{}");
    assert_eq!(gateway.bump(r#"{"entityId":"no:such"}"#)["code"], "ENTITY_NOT_FOUND");
    assert_eq!(gateway.get("/version/health")["lifecycle"], "RUNNING");
    let text = gateway.ask("GET /metrics", &[], "");
    for line in [
        r#"sealtide_gw_signatures_total{key_version="v1",alg="HMAC-SHA256"} 1"#,
        r#"sealtide_gw_bumps_total{scope="patch",result="done"} 1"#,
        r#"sealtide_gw_bumps_total{scope="patch",result="failed"} 1"#,
        "sealtide_gw_key_active_version 1",
        "sealtide_gw_key_age_seconds ",
        "sealtide_gw_audit_write_errors_total 0",
        r#"sealtide_gw_audit_events_total{event="signature:generated"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for line in ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "CF-Connecting-IP: 127.0.0.1"] {
        assert_eq!(status(&gateway.ask("GET /metrics", &[line.to_owned()], "")), 404, "{line}");
    }
    let registry = gateway.get("/version/registry");
    assert_eq!(registry["registrySignature"].as_str().unwrap().len(), 88);
}

/// Every figure of the specification is there once it can be, and no caller makes a label.
// Proves: GW-81
#[test]
fn metrics_complete_and_bounded() {
    let machine = Machine::new();
    let (first, second) = ("a1".repeat(32), "b2".repeat(32));
    let secrets = [("VERSION_SIGNING_KEY", first.as_str()), ("VERSION_SIGNING_KEY_V2", &second)];
    let gateway = start(&machine.home(), &["--key-fallback", "audited"], &secrets);
    for version in 5..45 {
        assert_eq!(gateway.bump(&format!(r#"{{"keyVersion":"v{version}"}}"#))["fallback"], true);
        gateway.bump(&format!(r#"{{"entityId":"api:none-{version}"}}"#));
        let odd = [format!("X-Real-IP: 192.0.2.{version}"), "Upgrade: websocket".to_owned()];
        gateway.ask(&format!("GET /version/ws?name-{version}"), &odd, "");
        gateway.ask(&format!("GET /no/such/path-{version}"), &[], "");
        gateway.ask(&format!("GET /api/auth/csrf-token?purpose=purpose-{version}"), &[], "");
    }
    let carrier = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
    let carrier: Vec<String> = carrier.iter().map(|line| (*line).to_owned()).collect();
    head_of(&gateway.at, "/version/ws", &carrier);
    machine.ok(&["--yes", "keys", "rotate"]);
    gateway.bump("{}");
    let text = gateway.ask("GET /metrics", &[], "");
    for name in [
        "upgrades",
        "sessions",
        "tokens_issued",
        "tokens_outstanding",
        "tokens_rejected",
        "signatures",
        "signature_seconds",
        "key_fallback",
        "key_active_version",
        "key_age_seconds",
        "rotations",
        "rotation_seconds",
        "deflate_ratio",
        "bumps",
        "bundles",
        "bundle_moves",
        "audit_events",
        "audit_write_errors",
        "forwarding_ignored",
    ] {
        assert!(text.contains(&format!("# TYPE sealtide_gw_{name} ")), "{name} in {text}");
    }
    for line in [
        r#"sealtide_gw_key_fallback_total{from="other",to="v1"} 40"#,
        r#"sealtide_gw_rotations_total{result="done"} 1"#,
        "sealtide_gw_rotation_seconds_count 1",
        r#"sealtide_gw_bundles{tier="STANDARD"} 0"#,
        r#"sealtide_gw_bundle_moves_total{result="failed"} 0"#,
        "sealtide_gw_key_active_version 2",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    for own in ["v44", "api:none", "path-", "purpose-", "192.0.2", "name-"] {
        assert!(!text.contains(own), "a caller made a label with {own}: {text}");
    }
    assert!(text.lines().count() < 400, "{text}");
}

// Proves: GW-85
#[test]
fn reload_keeps_the_old_settings_on_a_fault() {
    use rustix::process::{Pid, Signal, kill_process};

    let machine = Machine::new();
    machine.ok(&["init"]);
    let file = machine.home().join("config.toml");
    let gateway = start(&machine.home(), &[], &[]);
    let pid = Pid::from_child(gateway.child.as_ref().unwrap());
    let hangup = || kill_process(pid, Signal::HUP).unwrap();
    let reads = |host: &str| {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&gateway.at).unwrap();
        let text = format!("GET /version/registry HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        status(&answer) == 200
    };
    assert!(!reads("a.example"));
    fs::write(&file, "[gateway]\nallowed_hosts = \"a.example\"\n").unwrap();
    hangup();
    until("the new host is taken", || if reads("a.example") { Ok(()) } else { Err(String::new()) });
    let told = lines_of(&machine, "config:reloaded").len();
    assert_eq!(told, 1);
    fs::write(&file, "[gateway]\nallowed_hosts = \"a b\"\n").unwrap();
    hangup();
    until("the fault is told", || match lines_of(&machine, "config:refused").as_slice() {
        [line] if line["error"].as_str().unwrap().contains(":2") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(reads("a.example"), "the old settings hold");
}

/// Secrets are read again too: a new version joins, and one that is exchanged leaves everything as it was.
// Proves: GW-85
#[test]
fn reload_reads_secrets_again() {
    use std::os::unix::fs::PermissionsExt;

    use rustix::process::{Pid, Signal, kill_process};

    let machine = Machine::new();
    machine.ok(&["init"]);
    let file = machine.home().join("config.toml");
    let secret = |name: &str, word: &str| {
        let path = machine.home().with_file_name(name);
        fs::write(&path, word.repeat(32)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (first, second) = (secret("v1.key", "a1"), secret("v2.key", "b2"));
    let settings = |files: &str| fs::write(&file, format!("[gateway]\nkey_files = \"{files}\"\n")).unwrap();
    settings(&format!("v1={first}"));
    let gateway = start(&machine.home(), &[], &[]);
    let kid = gateway.bump("{}")["kid"].clone();
    let pid = Pid::from_child(gateway.child.as_ref().unwrap());
    let hangup = || kill_process(pid, Signal::HUP).unwrap();
    settings(&format!("v1={first},v2={second}"));
    hangup();
    until("v2 is prepared", || {
        let keys = machine.ok(&["keys", "status"]);
        let state = keys["versions"][1]["state"].clone();
        if state == "prepared" { Ok(()) } else { Err(keys.to_string()) }
    });
    assert_eq!(gateway.bump("{}")["kid"], kid, "the same key signs");
    // Another secret under the name of v1.
    secret("v1.key", "c3");
    hangup();
    until("the fault is told", || match lines_of(&machine, "config:refused").as_slice() {
        [line] if line["error"].as_str().unwrap().contains("v1") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(gateway.bump("{}")["kid"], kid, "the old one holds");
    secret("v1.key", "a1");
    machine.ok(&["--yes", "keys", "rotate"]);
    assert_eq!(gateway.bump("{}")["keyVersion"], "v2");
    hangup();
    until("it is read once more", || match lines_of(&machine, "config:reloaded").len() {
        2 => Ok(()),
        count => Err(count.to_string()),
    });
    assert_eq!(gateway.bump("{}")["keyVersion"], "v2", "what the ledger says holds");
}
