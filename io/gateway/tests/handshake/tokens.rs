//! One-time tokens: one use, for whom, how long, how many.

use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use sealtide_crypto::sha256;
use sealtide_gateway::{Bearer, Code, Door, Purpose, Role, Settings, TokenDigest, TokenRefusal};

use crate::rig::{DOOR, Request, Rig};

fn with(request: Request, token: &str) -> Request {
    request.with("x-tes-ws-csrf-token", token)
}

fn reason(rig: &Rig, request: &Request) -> Option<TokenRefusal> {
    rig.judge(request).err().and_then(|refusal| refusal.token)
}

// Proves: GW-6
#[test]
fn token_replay() {
    let rig = Rig::new(|_| {});
    let request = rig.fresh();
    rig.enter(&request).unwrap();
    let again = rig.enter(&request).unwrap_err();
    assert_eq!((again.code, again.token), (Code::CsrfInvalid, Some(TokenRefusal::Unknown)));
    assert_eq!((again.code.status(), again.code.line()), (403, "WS CSRF Invalid [HSL:#FF4500]"));
}

// Proves: GW-7
#[test]
fn token_race() {
    let rig = Rig::new(|_| {});
    for _ in 0..100 {
        let request = rig.fresh();
        let (judged, won) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // All look before any takes: the moment between is where a check without a lock fails.
                    let grants: Vec<_> = (0..8).map(|_| rig.judge(&request).unwrap()).collect();
                    judged.fetch_add(1, Ordering::SeqCst);
                    while judged.load(Ordering::SeqCst) < 8 {
                        std::thread::yield_now();
                    }
                    for grant in grants {
                        let entered = rig.admission.admit(grant.token.as_ref(), grant.peer.source()).is_ok();
                        won.fetch_add(usize::from(entered), Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(won.load(Ordering::SeqCst), 1);
    }
    assert_eq!(rig.admission.counts(), (0, 100));
}

// Proves: GW-8
#[test]
fn token_expiry() {
    for ttl in [1_000, 3_000, 300_000] {
        let mut rig = Rig::new(|settings| settings.ws_token_ttl_ms = ttl);
        rig.mono_ms = 77;
        let request = rig.fresh();
        rig.mono_ms = 77 + ttl - 1;
        assert!(rig.judge(&request).is_ok());
        rig.mono_ms = 77 + ttl;
        assert_eq!(reason(&rig, &request), Some(TokenRefusal::Expired));
        rig.admission.sweep(rig.mono_ms);
        assert_eq!(reason(&rig, &request), Some(TokenRefusal::Unknown));
        assert_eq!(rig.admission.counts().0, 0);
    }
    for ttl in [0, 999, 300_001] {
        let settings = Settings { ws_token_ttl_ms: ttl, ..Settings::default() };
        assert!(Door::new(settings, DOOR.parse().unwrap()).is_err(), "{ttl}");
    }
}

// Proves: GW-9
#[test]
fn token_binding() {
    let own = format!("http://{DOOR}");
    let rig = Rig::new(|settings| settings.allowed_origins = vec!["https://app.example".into()]);
    let origins = [None, Some(own.as_str()), Some("https://app.example"), Some("http://evil.example")];
    let of = |origin: Option<&str>| match origin {
        Some(origin) => Request::upgrade().with("origin", origin),
        None => Request::upgrade(),
    };
    let effective = |origin: Option<&str>| origin.unwrap_or(own.as_str()).to_owned();
    for issued in origins {
        for used in origins {
            let token = rig.token_for(&of(issued), Purpose::General).unwrap();
            let outcome = rig.judge(&with(of(used), &token));
            let code = outcome.as_ref().err().map(|refusal| refusal.code);
            let wanted = match used {
                Some("http://evil.example") => Some(Code::OriginDenied),
                _ if effective(issued) == effective(used) => None,
                _ => Some(Code::CsrfInvalid),
            };
            assert_eq!(code, wanted, "issued to {issued:?}, used by {used:?}");
        }
    }
    // Each other input once: host, client, purpose.
    let token = rig.token_for(&Request::upgrade(), Purpose::Ws).unwrap();
    let other_host = with(Request::upgrade().with("host", "localhost:8443"), &token);
    assert_eq!(reason(&rig, &other_host), Some(TokenRefusal::Binding));
    let mut elsewhere = Rig::new(|_| {});
    let request = elsewhere.fresh();
    elsewhere.tcp = "127.0.0.2:50000".parse().unwrap();
    assert_eq!(reason(&elsewhere, &request), Some(TokenRefusal::Binding));
    for (purpose, serves) in
        [(Purpose::General, true), (Purpose::Ws, true), (Purpose::Http, false), (Purpose::Admin, false)]
    {
        let token = rig.token_for(&Request::upgrade(), purpose).unwrap();
        let refused = reason(&rig, &with(Request::upgrade(), &token));
        assert_eq!(refused, (!serves).then_some(TokenRefusal::Purpose));
    }
}

// Proves: GW-9
#[test]
fn inputs_that_look_alike_when_joined_are_told_apart() {
    let rig = Rig::new(|settings| settings.allowed_hosts = vec!["ab".into(), "b".into()]);
    // Origin "x" with host "ab", and origin "xa" with host "b": joined without lengths they are one text.
    let first = Request::upgrade().with("host", "ab").with("origin", "x");
    let second = Request::upgrade().with("host", "b").with("origin", "xa");
    let token = rig.token_for(&first, Purpose::Ws).unwrap();
    let digest = TokenDigest::of(&token).unwrap();
    let binding = |request: &Request| {
        let uri = request.target.parse().unwrap();
        let head = sealtide_gateway::Head {
            method: &request.method,
            version: request.version,
            uri: &uri,
            headers: &request.headers,
        };
        let caller = sealtide_gateway::Caller::of(&rig.door, rig.tcp, &head).unwrap();
        let principal = sealtide_gateway::Principal::of(&rig.door, &caller.peer, &request.headers).unwrap();
        sealtide_gateway::Binding::new(&principal, &caller.peer, &caller.effective_origin(&rig.door), &caller.host)
    };
    assert!(rig.admission.check(&digest, Purpose::Ws, &binding(&first), 0).is_ok());
    assert_eq!(rig.admission.check(&digest, Purpose::Ws, &binding(&second), 0), Err(TokenRefusal::Binding));
}

// Proves: GW-92
#[test]
fn a_session_has_the_role_of_whoever_fetched_the_token() {
    let bearer = |token: &str, id: &str, role| Bearer { digest: sha256(token.as_bytes()), id: id.into(), role };
    let rig = Rig::new(|settings| {
        settings.public_host = Some("app.example.org".into());
        settings.bearers = vec![bearer("r", "reader", Role::Reader), bearer("b", "bumper", Role::Bumper)];
    });
    let page = || Request::upgrade().with("host", "app.example.org").with("origin", "https://app.example.org");
    let token = rig.token_for(&page().with("authorization", "Bearer b"), Purpose::General).unwrap();
    // A page cannot show its credential on the upgrade; a machine can, and then it must be the same.
    assert_eq!(rig.judge(&with(page(), &token)).unwrap().principal.role, Role::Bumper);
    assert_eq!(
        rig.judge(&with(page().with("authorization", "bearer b"), &token)).unwrap().principal.role,
        Role::Bumper
    );
    assert_eq!(reason(&rig, &with(page().with("authorization", "Bearer r"), &token)), Some(TokenRefusal::Binding));
    let public = rig.token_for(&page(), Purpose::General).unwrap();
    assert_eq!(rig.judge(&with(page(), &public)).unwrap().principal.role, Role::Public);
    assert_eq!(reason(&rig, &with(page().with("authorization", "Bearer b"), &public)), Some(TokenRefusal::Binding));
    for bad in ["Bearer x", "Bearer", "Basic b", "b", "Bearer b, Bearer b"] {
        assert_eq!(rig.code(&with(page().with("authorization", bad), &token)), Some(Code::Unauthenticated), "{bad}");
    }
    let twice = with(page().with("authorization", "Bearer b").and("authorization", "Bearer b"), &token);
    assert_eq!(rig.code(&twice), Some(Code::Unauthenticated));
}

// Proves: GW-12
#[test]
fn outstanding_tokens_are_bounded_and_the_first_stay() {
    let few = Rig::new(|settings| settings.tokens_per_source = Some(32));
    let tokens: Vec<Option<String>> = (0..33).map(|_| few.token_for(&Request::upgrade(), Purpose::Ws)).collect();
    assert!(tokens[..32].iter().all(Option::is_some) && tokens[32].is_none());
    few.enter(&with(Request::upgrade(), tokens[0].as_ref().unwrap())).unwrap();
    assert!(few.token_for(&Request::upgrade(), Purpose::Ws).is_some(), "a used one makes room");
    let many = Rig::new(|_| {});
    assert!((0..1_000).all(|_| many.token_for(&Request::upgrade(), Purpose::Ws).is_some()));
    let mut total = Rig::new(|settings| settings.tokens_max = 10);
    assert_eq!((0..20).filter(|_| total.token_for(&Request::upgrade(), Purpose::Ws).is_some()).count(), 10);
    total.mono_ms = 300_000;
    assert!(total.token_for(&Request::upgrade(), Purpose::Ws).is_some(), "the old ones are over");
}

// Proves: GW-13
#[test]
fn token_carriers() {
    let rig = Rig::new(|_| {});
    let token = || rig.token_for(&Request::upgrade(), Purpose::Ws).unwrap();
    let query = |request: Request, token: &str| Request { target: format!("/version/ws?csrf={token}"), ..request };
    let offered = |request: Request, token: &str| {
        request.with("sec-websocket-protocol", &format!("tes-ui-v1, tes-token.{token}"))
    };
    let one = token();
    let grant = rig.judge(&offered(Request::upgrade(), &one)).unwrap();
    assert_eq!(grant.selected.name.as_deref(), Some("tes-ui-v1"), "the carrier is not echoed");
    assert_eq!(reason(&rig, &Request::upgrade()), Some(TokenRefusal::Missing));
    assert_eq!(reason(&rig, &query(Request::upgrade(), &one)), Some(TokenRefusal::Missing), "not looked at");
    for doubled in [
        with(offered(Request::upgrade(), &one), &one),
        with(Request::upgrade(), &one).and("x-tes-ws-csrf-token", &one),
        Request::upgrade().with("sec-websocket-protocol", &format!("tes-token.{one}, tes-token.{}", token())),
    ] {
        assert_eq!(reason(&rig, &doubled), Some(TokenRefusal::Carrier));
    }
    assert!(rig.judge(&query(with(Request::upgrade(), &one), &token())).is_ok(), "a query that is off is none");
    let open = Rig::new(|settings| settings.allow_query_token = true);
    let one = open.token_for(&Request::upgrade(), Purpose::Ws).unwrap();
    assert!(open.judge(&query(Request::upgrade(), &one)).is_ok());
    assert_eq!(reason(&open, &query(with(Request::upgrade(), &one), &one)), Some(TokenRefusal::Carrier));
    assert_eq!(reason(&open, &query(Request::upgrade(), &format!("{one}&csrf={one}"))), Some(TokenRefusal::Carrier));
    // Alone, a carrier is no offer.
    let alone = Request::upgrade().with("sec-websocket-protocol", &format!("tes-token.{}", token()));
    assert_eq!(rig.judge(&alone).unwrap().selected.name, None);
}

// Proves: GW-91
#[test]
fn token_form() {
    let rig = Rig::new(|_| {});
    let token = rig.token_for(&Request::upgrade(), Purpose::Ws).unwrap();
    assert_eq!((token.len(), BASE64URL_NOPAD.decode(token.as_bytes()).unwrap().len()), (43, 32));
    let mut odd = token.clone().into_bytes();
    let last = odd.len() - 1;
    odd[last] = if odd[last] == b'B' { b'F' } else { b'B' };
    let odd = String::from_utf8(odd).unwrap();
    for bad in [&token[..42], &format!("{token}A"), &format!("{token}="), &format!("+{}", &token[1..]), &odd, "x"] {
        assert_eq!(reason(&rig, &with(Request::upgrade(), bad)), Some(TokenRefusal::Malformed), "{bad}");
    }
    let others: std::collections::BTreeSet<String> =
        (0..100).map(|_| rig.token_for(&Request::upgrade(), Purpose::Ws).unwrap()).collect();
    assert_eq!(others.len(), 100);
}

// Proves: GW-23
#[test]
fn token_refusal_uniform() {
    let mut rig = Rig::new(|_| {});
    let http = rig.token_for(&Request::upgrade(), Purpose::Http).unwrap();
    let bound = rig.token_for(&Request::upgrade().with("host", "localhost:8443"), Purpose::Ws).unwrap();
    let late = rig.fresh();
    let never = BASE64URL_NOPAD.encode(&[9; 32]);
    let codes: Vec<_> = [
        Request::upgrade(),
        with(Request::upgrade(), "x"),
        with(Request::upgrade(), &never),
        with(Request::upgrade(), &http),
        with(Request::upgrade(), &bound),
    ]
    .iter()
    .map(|request| (rig.judge(request).unwrap_err(), 0))
    .collect();
    rig.mono_ms = 400_000;
    let last = rig.judge(&late).unwrap_err();
    let reasons: std::collections::BTreeSet<String> =
        codes.iter().map(|(refusal, _)| format!("{:?}", refusal.token)).chain([format!("{:?}", last.token)]).collect();
    assert_eq!(reasons.len(), 6, "the audit tells them apart: {reasons:?}");
    assert!(codes.iter().all(|(refusal, _)| refusal.code == Code::CsrfInvalid) && last.code == Code::CsrfInvalid);
}

// Proves: GW-11
#[test]
fn a_restart_voids_tokens() {
    let rig = Rig::new(|_| {});
    let request = rig.fresh();
    assert_eq!(reason(&Rig::new(|_| {}), &request), Some(TokenRefusal::Unknown));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000 * scale()))]

    /// Whatever stands in a head: no panic, no token taken, and nobody enters without one.
    #[test]
    fn nothing_foreign_enters(
        lines in prop::collection::vec((0usize..14, "[ -~]{0,60}"), 0..8),
        target in "/[!-~&&[^#?]]{0,30}(\\?[!-~&&[^#]]{0,40})?",
        compat in any::<bool>(),
    ) {
        const NAMES: [&str; 14] = ["host", "origin", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol", "sec-websocket-extensions", "x-tes-ws-csrf-token", "x-forwarded-for", "forwarded", "authorization", "content-length", "x-forwarded-host"];
        let rig = Rig::new(|settings| {
            settings.allow_query_token = compat;
            settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
            settings.public_host = Some("localhost:8443".into());
        });
        let mut request = Request::upgrade();
        if target.parse::<http::Uri>().is_ok() {
            request.target = target;
        }
        for (name, value) in lines {
            request = if value.len() % 2 == 0 { request.with(NAMES[name], &value) } else { request.and(NAMES[name], &value) };
        }
        prop_assert!(rig.judge(&request).is_err());
    }
}

fn scale() -> u32 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
