//! Which subprotocol, and which compression.

use http::HeaderMap;
use sealtide_gateway::{Code, Deflate, KeyFacts, Rung};

use crate::rig::{Request, Rig};

const LEDGER_1: KeyFacts = KeyFacts { ledger: 1, loaded: 2, v1_counts: true };
const LEDGER_2: KeyFacts = KeyFacts { ledger: 2, loaded: 2, v1_counts: true };
const V1_GONE: KeyFacts = KeyFacts { ledger: 2, loaded: 2, v1_counts: false };

/// The name that is answered, or the refusal.
fn select(rig: &mut Rig, keys: KeyFacts, offer: &str) -> Result<Option<String>, Code> {
    rig.keys = keys;
    let request = rig.fresh();
    let request = if offer.is_empty() {
        request.without("sec-websocket-protocol")
    } else {
        request.with("sec-websocket-protocol", offer)
    };
    rig.judge(&request).map(|grant| grant.selected.name).map_err(|refusal| refusal.code)
}

fn name(text: &str) -> Result<Option<String>, Code> {
    Ok(Some(text.to_owned()))
}

// Proves: GW-24
#[test]
fn the_client_chooses_among_what_can_be_kept() {
    let rig = &mut Rig::new(|_| {});
    assert_eq!(select(rig, LEDGER_2, "tes-ui-v1, tes-ui-v2"), name("tes-ui-v1"));
    assert_eq!(select(rig, LEDGER_2, "tes-ui-v2,tes-ui-v1"), name("tes-ui-v2"));
}

// Proves: GW-25
#[test]
fn ladder_mandate() {
    let rig = &mut Rig::new(|_| {});
    assert_eq!(select(rig, LEDGER_1, "tes-ui-v2, tes-ui-v1"), name("tes-ui-v1"));
    assert_eq!(select(rig, LEDGER_1, "tes-ui-v2"), Err(Code::Deprecated));
    assert_eq!(select(rig, V1_GONE, "tes-ui-v1"), Err(Code::Deprecated));
    assert_eq!(select(rig, V1_GONE, "tes-ui-v1, tes-ui-v2"), name("tes-ui-v2"));
    assert_eq!(select(rig, KeyFacts { ledger: 2, loaded: 1, v1_counts: true }, "tes-ui-v2"), Err(Code::Deprecated));
    assert_eq!((Code::Deprecated.status(), Code::Deprecated.line()), (403, "Deprecate V1 [HSL:#FF4500]"));
}

// Proves: GW-26
#[test]
fn ladder_rfc() {
    let rig = &mut Rig::new(|_| {});
    assert_eq!(select(rig, LEDGER_2, "chat, tes-ui-v9"), Err(Code::Subprotocol));
    assert_eq!(select(rig, LEDGER_2, "Tes-UI-v1"), Err(Code::Subprotocol), "names are case-sensitive");
    assert_eq!(select(rig, LEDGER_2, "chat, tes-ui-v2"), name("tes-ui-v2"));
    assert_eq!(select(rig, LEDGER_2, ""), Ok(None), "nothing offered, nothing answered");
    assert_eq!(select(rig, LEDGER_2, "tes-subproto-v1"), Err(Code::Subprotocol));
    let legacy = &mut Rig::new(|settings| settings.legacy_alias = true);
    assert_eq!(select(legacy, LEDGER_2, "tes-subproto-v1"), name("tes-subproto-v1"));
}

// Proves: GW-27
#[test]
fn ladder_min() {
    let rig = &mut Rig::new(|settings| settings.min_subprotocol = Rung::V2);
    assert_eq!(select(rig, LEDGER_2, "tes-ui-v1"), Err(Code::Subprotocol));
    assert_eq!(select(rig, LEDGER_2, "tes-ui-v1, tes-ui-v2"), name("tes-ui-v2"));
    assert_eq!(select(rig, LEDGER_2, ""), Err(Code::Subprotocol));
}

// Proves: GW-28
#[test]
fn ladder_parse() {
    let rig = &mut Rig::new(|_| {});
    let many = |count: usize| {
        (0..count).map(|at| format!("x{at}")).chain(["tes-ui-v1".to_owned()]).collect::<Vec<_>>().join(",")
    };
    assert_eq!(select(rig, LEDGER_2, &many(15)), name("tes-ui-v1"));
    for bad in [
        many(16).as_str(),
        "tes-ui-v1,",
        ",tes-ui-v1",
        "tes-ui-v1,,x",
        "tes-ui-v1, tes-ui-v1",
        "tes ui",
        "tes-ui-v1;q=1",
        "\"tes-ui-v1\"",
        " ",
        &"x".repeat(5_000),
    ] {
        assert_eq!(select(rig, LEDGER_2, bad), Err(Code::Subprotocol), "{bad}");
    }
    // Several lines are one list.
    let lines = rig.fresh().with("sec-websocket-protocol", "chat").and("sec-websocket-protocol", "tes-ui-v2");
    assert_eq!(rig.judge(&lines).unwrap().selected.rung, Rung::V2);
    let doubled = rig.fresh().and("sec-websocket-protocol", "tes-ui-v1");
    assert_eq!(rig.code(&doubled), Some(Code::Subprotocol));
}

// Proves: GW-59
#[test]
fn further_rungs_are_spoken_when_they_are_declared() {
    let v3 = Rung::parse("tes-ui-v3").unwrap();
    let keys = KeyFacts { ledger: 3, loaded: 3, v1_counts: true };
    assert_eq!(select(&mut Rig::new(|_| {}), keys, "tes-ui-v3"), Err(Code::Subprotocol));
    let rig = &mut Rig::new(|settings| {
        settings.subprotocols.insert(v3);
    });
    assert_eq!(select(rig, keys, "tes-ui-v3"), name("tes-ui-v3"));
    assert_eq!(select(rig, LEDGER_2, "tes-ui-v3"), Err(Code::Deprecated));
    for bad in ["tes-ui-v0", "tes-ui-v01", "tes-ui-v", "tes-ui-v1 ", "tes-ui-v99999", "tes-ui-v-1"] {
        assert_eq!(Rung::parse(bad), None, "{bad}");
    }
}

// Proves: GW-37
#[test]
fn deflate_negotiation() {
    let agree = |lines: &[&str]| {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("sec-websocket-extensions", line.parse().unwrap());
        }
        Deflate::negotiate(&headers).map(|agreed| agreed.answer())
    };
    let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for good in [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate;client_no_context_takeover ; server_no_context_takeover",
        "x-webkit-deflate-frame, permessage-deflate",
        "permessage-deflate; server_max_window_bits=8, permessage-deflate",
        "permessage-deflate; future=1, permessage-deflate; client_max_window_bits",
    ] {
        assert_eq!(agree(&[good]).as_deref(), Some(plain), "{good}");
    }
    assert_eq!(agree(&["x", "permessage-deflate"]).as_deref(), Some(plain));
    for bits in 9..=15 {
        let wanted = format!("{plain}; server_max_window_bits={bits}");
        assert_eq!(agree(&[&format!("permessage-deflate; server_max_window_bits={bits}")]), Some(wanted.clone()));
        assert_eq!(agree(&[&format!("permessage-deflate; server_max_window_bits=\"{bits}\"")]), Some(wanted));
    }
    for declined in [
        "",
        "permessage-deflat",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=09",
        "permessage-deflate; server_max_window_bits=\"9",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=015",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=9",
        "permessage-deflate; unknown",
        "permessage-deflate;",
    ] {
        assert_eq!(agree(&[declined]), None, "{declined}");
    }
    assert_eq!(agree(&[&"x,".repeat(20), "permessage-deflate"]), None, "nobody reads offers without end");
    let rig = Rig::new(|settings| settings.compression = false);
    assert!(rig.judge(&rig.fresh().with("sec-websocket-extensions", "permessage-deflate")).unwrap().deflate.is_none());
    // An offer that cannot be used is no reason to refuse.
    let other = Rig::new(|_| {});
    let request = Request::upgrade();
    let token = other.token_for(&request, sealtide_gateway::Purpose::Ws).unwrap();
    let request =
        request.with("x-tes-ws-csrf-token", &token).with("sec-websocket-extensions", "permessage-deflate; unknown");
    assert!(other.judge(&request).unwrap().deflate.is_none());
}
