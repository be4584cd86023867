//! The steps one by one, and in their order.

use http::{Method, Version};
use sealtide_gateway::{Code, Door, Settings, SettingsError};

use crate::rig::{DOOR, Request, Rig};

// Proves: GW-5
#[test]
fn upgrade_ok() {
    let rig = Rig::new(|_| {});
    let grant = rig.enter(&rig.fresh()).unwrap();
    assert_eq!(grant.selected.name.as_deref(), Some("tes-ui-v1"));
    assert_eq!(rig.admission.counts(), (0, 1));
}

type Fault = (Code, fn(Request) -> Request);

/// One way to fail each step, in the order of the steps.
fn faults() -> Vec<Fault> {
    vec![
        (Code::Method, |it| Request { method: Method::POST, ..it }),
        (Code::HttpVersion, |it| Request { version: Version::HTTP_10, ..it }),
        (Code::Body, |it| it.with("content-length", "4")),
        (Code::HostMismatch, |it| it.with("host", "evil.example")),
        (Code::UpgradeRequired, |it| it.with("upgrade", "h2c")),
        (Code::WsVersion, |it| it.with("sec-websocket-version", "8")),
        (Code::WsKey, |it| it.with("sec-websocket-key", "short")),
        (Code::OriginDenied, |it| it.with("origin", "http://evil.example")),
        (Code::Unauthenticated, |it| it.with("authorization", "Bearer nobody")),
        (Code::Subprotocol, |it| it.with("sec-websocket-protocol", "chat")),
        (Code::CsrfInvalid, |it| it.with("x-tes-ws-csrf-token", "wrong")),
    ]
}

// Proves: GW-22, GW-10
#[test]
fn order() {
    let rig = Rig::new(|_| {});
    let good = rig.fresh();
    let faults = faults();
    let mut pairs = 0;
    for (at, (code, fault)) in faults.iter().enumerate() {
        assert_eq!(rig.code(&fault(good.clone())), Some(*code));
        for (_, later) in &faults[at + 1..] {
            assert_eq!(rig.code(&later(fault(good.clone()))), Some(*code), "an earlier fault answers");
            assert_eq!(rig.code(&fault(later(good.clone()))), Some(*code), "whatever came first");
            pairs += 1;
        }
    }
    println!("{pairs} pairs of faults");
    // All of that left the token usable.
    assert!(rig.enter(&good).is_ok());
    assert_eq!(rig.enter(&good).unwrap_err().code, Code::CsrfInvalid);
}

// Proves: GW-22
#[test]
fn rates_and_places_come_before_the_subprotocol_and_after_the_origin() {
    let mut rig = Rig::new(|settings| {
        settings.limits_loopback = true;
        settings.max_sessions = 1;
    });
    let (good, other) = (rig.fresh(), rig.fresh());
    rig.rate_left = false;
    assert_eq!(rig.code(&good.clone().with("sec-websocket-protocol", "chat")), Some(Code::RateLimited));
    assert_eq!(rig.code(&good.clone().with("origin", "null")), Some(Code::OriginDenied));
    rig.rate_left = true;
    rig.enter(&good).unwrap();
    assert_eq!(rig.code(&other.clone().with("sec-websocket-protocol", "chat")), Some(Code::Overload));
    rig.admission.leave([0, 127, 0, 0, 1, 0, 0, 0, 0]);
    assert!(rig.enter(&other).is_ok());
}

// Proves: GW-95
#[test]
fn loopback_rates() {
    let mut rig = Rig::new(|_| {});
    rig.rate_left = false;
    assert!(rig.judge(&rig.fresh()).is_ok(), "no rates for this machine");
    let forwarded = rig.fresh().with("x-real-ip", "9.9.9.9");
    assert_eq!(rig.code(&forwarded), Some(Code::RateLimited), "but for what comes through a proxy");
    let mut limited = Rig::new(|settings| settings.limits_loopback = true);
    limited.rate_left = false;
    assert_eq!(limited.code(&limited.fresh()), Some(Code::RateLimited));
}

// Proves: GW-19
#[test]
fn ws_key_rules() {
    let rig = Rig::new(|_| {});
    let good = rig.fresh();
    let b64 = |bytes: usize| data_encoding::BASE64.encode(&vec![7; bytes]);
    for bad in [
        String::new(),
        "=".repeat(22),
        "=".repeat(24),
        "a".repeat(24),
        b64(15),
        b64(17),
        b64(18),
        "dGhlIHNhbXBsZSBub25jZR==".to_owned(),
        "dGhlIHNhbXBsZSBub25jZQ".to_owned(),
        "dGhlIHNhbXBsZSBub25j-_==".to_owned(),
    ] {
        assert_eq!(rig.code(&good.clone().with("sec-websocket-key", &bad)), Some(Code::WsKey), "{bad}");
    }
    assert_eq!(rig.code(&good.clone().without("sec-websocket-key")), Some(Code::WsKey));
    let twice = good.clone().and("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(rig.code(&twice), Some(Code::WsKey));
    assert!(rig.judge(&good.with("sec-websocket-key", &b64(16))).is_ok());
}

// Proves: GW-20, GW-21
#[test]
fn versions_methods_and_tokens_of_the_upgrade() {
    let rig = Rig::new(|_| {});
    let good = rig.fresh();
    for version in ["8", "0", "013", "13, 8", ""] {
        assert_eq!(rig.code(&good.clone().with("sec-websocket-version", version)), Some(Code::WsVersion), "{version}");
    }
    assert_eq!(rig.code(&good.clone().and("sec-websocket-version", "13")), Some(Code::WsVersion));
    assert_eq!((Code::WsVersion.status(), Code::WsVersion.hint()), (426, Some(("sec-websocket-version", "13"))));
    assert_eq!((Code::UpgradeRequired.status(), Code::UpgradeRequired.hint()), (426, Some(("upgrade", "websocket"))));
    for name in ["upgrade", "connection"] {
        assert_eq!(rig.code(&good.clone().without(name)), Some(Code::UpgradeRequired));
    }
    for (upgrade, connection) in [("WebSocket", "keep-alive, Upgrade"), ("h2c, websocket", "UPGRADE")] {
        assert!(rig.judge(&good.clone().with("upgrade", upgrade).with("connection", connection)).is_ok());
    }
    assert_eq!(rig.code(&good.clone().with("upgrade", "websocketx")), Some(Code::UpgradeRequired));
}

// Proves: GW-99
#[test]
fn an_upgrade_has_no_body() {
    let rig = Rig::new(|_| {});
    let good = rig.fresh();
    for (name, value) in [
        ("content-length", "1"),
        ("content-length", "00"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
    ] {
        assert_eq!(rig.code(&good.clone().with(name, value)), Some(Code::Body), "{name}: {value}");
    }
    assert!(rig.judge(&good.with("content-length", "0")).is_ok());
}

// Proves: GW-96
#[test]
fn echo_refused() {
    let door = |settings: Settings| Door::new(settings, DOOR.parse().unwrap());
    let public = |echo| Settings { echo, public_host: Some("app.example.org".into()), ..Settings::default() };
    assert_eq!(door(public(true)).unwrap_err(), SettingsError::PublicEcho);
    assert!(door(public(false)).is_ok());
    let rig = Rig::new(|settings| settings.echo = true);
    let bare = Request::upgrade()
        .with("host", "anything.example")
        .with("origin", "http://evil.example")
        .with("sec-websocket-protocol", "chat");
    let grant = rig.enter(&bare).unwrap();
    assert_eq!((grant.token, grant.selected.name), (None, None));
    assert_eq!(rig.code(&bare.with("sec-websocket-key", "short")), Some(Code::WsKey));
}

// Proves: GW-48, GW-93
#[test]
fn public_listener() {
    let door = |settings: Settings| Door::new(settings, DOOR.parse().unwrap());
    let proxy = || vec!["10.0.0.0/8".parse().unwrap()];
    assert_eq!(door(Settings { trusted_proxies: proxy(), ..Settings::default() }).unwrap_err(), SettingsError::NoHost);
    let open = Settings {
        public_host: Some("a.example".into()),
        auth: Some(sealtide_gateway::Auth::None),
        ..Settings::default()
    };
    assert_eq!(door(open).unwrap_err(), SettingsError::OpenToAll);
    let named = Settings { trusted_proxies: proxy(), allowed_hosts: vec!["a.example".into()], ..Settings::default() };
    let named = door(named).unwrap();
    assert_eq!(
        (named.auth, named.is_public, named.allow_missing_origin),
        (sealtide_gateway::Auth::Bearer, true, false)
    );
    assert!(Door::new(Settings::default(), "192.0.2.1:80".parse().unwrap()).is_err());
    let plain = door(Settings::default()).unwrap();
    assert_eq!((plain.auth, plain.is_public, plain.allow_missing_origin), (sealtide_gateway::Auth::None, false, true));
    for bad in ["app example", "", "a:b:c", "[::1", "a:99999"] {
        let settings = Settings { public_host: Some(bad.into()), ..Settings::default() };
        assert!(matches!(door(settings), Err(SettingsError::Name(_))), "{bad}");
    }
    for bad in ["https://", "ftp://a.example", "a.example", "https://a.example/", "null"] {
        let settings = Settings { allowed_origins: vec![bad.into()], ..Settings::default() };
        assert!(matches!(door(settings), Err(SettingsError::Name(_))), "{bad}");
    }
}
