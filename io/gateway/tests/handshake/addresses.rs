//! Hosts, origins, and who is at the other end.

use std::net::IpAddr;

use sealtide_gateway::{Code, ForwardedBy, Purpose, Role};

use crate::rig::{Request, Rig};

// Proves: GW-15, GW-94
#[test]
fn host_rules() {
    let rig = Rig::new(|_| {});
    for good in ["127.0.0.1:8443", "localhost:8443", "LOCALHOST:8443", "[::1]:8443"] {
        let request = Request::upgrade().with("host", good);
        let token = rig.token_for(&request, Purpose::Ws).unwrap();
        assert!(rig.judge(&request.with("x-tes-ws-csrf-token", &token)).is_ok(), "{good}");
    }
    for bad in [
        "evil.example",
        "127.0.0.1",
        "localhost:80",
        "localhost:8443.evil.example",
        "localhost:8443@evil",
        "",
        "::1",
        "127.0.0.1:08443x",
        "localhost.:8443",
        "127.0.0.2:8443",
    ] {
        assert_eq!(rig.code(&Request::upgrade().with("host", bad)), Some(Code::HostMismatch), "{bad}");
    }
    assert_eq!(rig.code(&Request::upgrade().without("host")), Some(Code::HostMismatch));
    assert_eq!(rig.code(&Request::upgrade().and("host", "127.0.0.1:8443")), Some(Code::HostMismatch));
    let absolute = Request { target: "http://127.0.0.1:8443/version/ws".into(), ..Request::upgrade() };
    assert_eq!(rig.code(&absolute), Some(Code::HostMismatch));

    let public = Rig::new(|settings| {
        settings.public_host = Some("App.Example.org".into());
        settings.allowed_hosts = vec!["api.example.org:444".into()];
    });
    for (host, matched) in [
        ("app.example.org", Some("app.example.org")),
        ("APP.example.org:443", Some("app.example.org")),
        ("app.example.org:80", None),
        ("api.example.org:444", Some("api.example.org:444")),
        ("api.example.org", None),
        ("app.example.org.evil.example", None),
    ] {
        assert_eq!(public.door.matched_host(host).as_deref(), matched, "{host}");
    }
}

// Proves: GW-18
#[test]
fn origin_rules() {
    let rig = Rig::new(|settings| {
        settings.allowed_origins = vec!["https://App.example.org".into(), "https://b.example:444".into()]
    });
    let allowed = |origin: &str| {
        let request = Request::upgrade().with("origin", origin);
        rig.code(&request) != Some(Code::OriginDenied)
    };
    for good in ["https://app.example.org", "https://b.example:444", "http://localhost:8443", "http://[::1]:8443"] {
        assert!(allowed(good), "{good}");
    }
    for bad in [
        "null",
        "",
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://app.example.org.evil.example",
        "https://evilapp.example.org",
        "https://app.example.org@evil.example",
        "https://app.example.org/",
        "https://App.example.org",
        "https://b.example",
        "http://localhost:8444",
        "http://localhost",
        "https://localhost:8443",
        "https://аpp.example.org",
    ] {
        // A header holds bytes; the look-alike arrives as its UTF-8.
        let Ok(value) = http::HeaderValue::from_bytes(bad.as_bytes()) else { continue };
        let mut request = Request::upgrade();
        request.headers.insert("origin", value);
        assert_eq!(rig.code(&request), Some(Code::OriginDenied), "{bad}");
    }
    let twice = Request::upgrade().with("origin", "https://app.example.org").and("origin", "https://app.example.org");
    assert_eq!(rig.code(&twice), Some(Code::OriginDenied));
    // Without one: only where the operator, or a good credential, says so.
    let strict = Rig::new(|settings| settings.allow_missing_origin = Some(false));
    assert_eq!(strict.code(&Request::upgrade()), Some(Code::OriginDenied));
    assert_eq!(strict.code(&Request::upgrade().with("authorization", "Bearer x")), Some(Code::Unauthenticated));
    assert_eq!(rig.code(&Request::upgrade()), Some(Code::CsrfInvalid), "past the origin, for want of a token");
}

fn client(rig: &Rig, request: &Request) -> (IpAddr, bool) {
    let token = rig.token_for(request, Purpose::Ws).unwrap();
    let peer = rig.judge(&request.clone().with("x-tes-ws-csrf-token", &token)).unwrap().peer;
    (peer.client, peer.is_public)
}

// Proves: GW-16, GW-93
#[test]
fn forged_forwarding() {
    let rig = Rig::new(|_| {});
    let plain = Request::upgrade();
    assert_eq!(client(&rig, &plain), ("127.0.0.1".parse().unwrap(), false));
    let token = rig.token_for(&plain, Purpose::Ws).unwrap();
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.1"),
        ("cf-connecting-ip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("x-forwarded-host", "evil.example"),
        ("x-real-ip", "10.0.0.1"),
        ("x-forwarded-anything", "1"),
    ] {
        let forged = plain.clone().with(name, value);
        assert_eq!(client(&rig, &forged), ("127.0.0.1".parse().unwrap(), true), "{name}");
        // Neither address nor host changed, so the binding holds; but its rights are those of the world.
        let grant = rig.judge(&forged.clone().with("x-tes-ws-csrf-token", &token)).unwrap();
        assert!(grant.peer.ignored.is_some());
        let own = rig.token_for(&forged, Purpose::Ws).unwrap();
        assert_eq!(rig.judge(&forged.with("x-tes-ws-csrf-token", &own)).unwrap().principal.role, Role::Public);
    }
    assert_eq!(rig.judge(&plain.with("x-tes-ws-csrf-token", &token)).unwrap().principal.role, Role::Bumper);
}

fn proxied() -> Rig {
    let mut rig = Rig::new(|settings| {
        settings.trusted_proxies = ["10.0.0.0/8", "fd00::/8", "127.0.0.9"]
            .map(|net| net.parse().or_else(|_| net.parse::<IpAddr>().map(Into::into)).unwrap())
            .into();
        settings.public_host = Some("app.example.org".into());
        settings.allow_missing_origin = Some(true);
    });
    rig.tcp = "10.1.2.3:5".parse().unwrap();
    rig
}

// Proves: GW-17
#[test]
fn xff_walk() {
    let rig = proxied();
    let request = || Request::upgrade().with("host", "app.example.org");
    let table = [
        ("203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7, 10.9.9.9", "203.0.113.7"),
        ("203.0.113.7,10.9.9.9 ,\t10.8.8.8", "203.0.113.7"),
        ("2001:db8::5, fd00::1", "2001:db8::5"),
        ("[2001:db8::5]:443", "2001:db8::5"),
        ("203.0.113.7:5000", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::ffff:10.9.9.9", "10.9.9.9"),
        ("203.0.113.7, garbage, 10.9.9.9", "10.9.9.9"),
        ("203.0.113.7, unknown", "10.1.2.3"),
        ("203.0.113.7,", "10.1.2.3"),
        ("10.7.7.7", "10.7.7.7"),
        ("", "10.1.2.3"),
    ];
    for (value, wanted) in table {
        let found = client(&rig, &request().with("x-forwarded-for", value));
        assert_eq!(found, (wanted.parse().unwrap(), true), "{value}");
    }
    let two_lines = request().with("x-forwarded-for", "1.1.1.1").and("x-forwarded-for", "203.0.113.7, 10.9.9.9");
    assert_eq!(client(&rig, &two_lines).0, "203.0.113.7".parse::<IpAddr>().unwrap());
    let both = request().with("x-forwarded-for", "1.1.1.1").with("forwarded", "for=1.1.1.1");
    assert_eq!(rig.code(&both), Some(Code::HostMismatch));
    // Somebody who is not a proxy, and v4 in v6 clothes that is one.
    let mut other = proxied();
    other.tcp = "192.0.2.1:5".parse().unwrap();
    assert_eq!(client(&other, &request().with("x-forwarded-for", "1.1.1.1")).0, "192.0.2.1".parse::<IpAddr>().unwrap());
    other.tcp = "[::ffff:10.1.2.3]:5".parse().unwrap();
    assert_eq!(client(&other, &request().with("x-forwarded-for", "1.1.1.1")).0, "1.1.1.1".parse::<IpAddr>().unwrap());
}

// Proves: GW-17
#[test]
fn the_other_headers_of_proxies() {
    let request = || Request::upgrade().with("host", "app.example.org");
    let mut rig = proxied();
    rig.door.settings.forwarded_by = ForwardedBy::Forwarded;
    for (value, wanted) in [
        ("for=203.0.113.7", "203.0.113.7"),
        ("For=\"[2001:db8::5]:99\";proto=https, for=10.9.9.9", "2001:db8::5"),
        ("for=_hidden, for=10.9.9.9", "10.9.9.9"),
        ("proto=https", "10.1.2.3"),
    ] {
        assert_eq!(client(&rig, &request().with("forwarded", value)).0, wanted.parse::<IpAddr>().unwrap(), "{value}");
    }
    assert_eq!(client(&rig, &request().with("x-forwarded-for", "1.1.1.1")).0, "10.1.2.3".parse::<IpAddr>().unwrap());
    rig.door.settings.forwarded_by = ForwardedBy::CfConnectingIp;
    assert_eq!(client(&rig, &request().with("cf-connecting-ip", "1.1.1.1")).0, "1.1.1.1".parse::<IpAddr>().unwrap());
    let twice = request().with("cf-connecting-ip", "1.1.1.1").and("cf-connecting-ip", "2.2.2.2");
    assert_eq!(client(&rig, &twice).0, "10.1.2.3".parse::<IpAddr>().unwrap());
    // The host of a proxy counts only when that is switched on, and only if it is ours.
    let host = |rig: &Rig, value: &str| {
        rig.code(&Request::upgrade().with("host", "app.example.org").with("x-forwarded-host", value))
    };
    assert_eq!(host(&rig, "evil.example"), Some(Code::CsrfInvalid), "not looked at");
    rig.door.settings.use_forwarded_host = true;
    assert_eq!(host(&rig, "evil.example"), Some(Code::HostMismatch));
    assert_eq!(host(&rig, "app.example.org"), Some(Code::CsrfInvalid));
}
