//! The defects of the older system, by their numbers in the specification (gateway §13), and what fails when one is put
//! back. Each line names the tests that stand for it; which were put back and what failed then stands below; and the door's own lines are
//! asserted here once more, in one breath.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

#[path = "handshake/rig.rs"]
#[allow(dead_code, reason = "the tests of the handshake use the rest of it")]
mod rig;

use std::path::Path;

use sealtide_gateway::{Code, KeyFacts, Purpose, TokenRefusal};

use crate::rig::{Request, Rig};

/// Number, defect, folder, tests. An empty list: what it was a defect of is not built here.
const DEFECTS: [(&str, &str, &str, &[&str]); 33] = [
    (
        "D1",
        "the first X-Forwarded-For of anybody is the client",
        "io/gateway",
        &["forged_forwarding", "xff_walk", "behind_a_trusted_nginx"],
    ),
    (
        "D2",
        "the expected host is the one that was sent",
        "io/gateway",
        &["host_rules", "foreign_hosts_and_odd_requests"],
    ),
    (
        "D3",
        "no origin is looked at, and every site gets a token",
        "io/gateway",
        &["origin_rules", "the_token_endpoint", "chromium"],
    ),
    ("D4", "a key of 22 equals signs passes", "io/gateway", &["ws_key_rules"]),
    (
        "D5",
        "version, method and Connection are not looked at",
        "io/gateway",
        &["versions_methods_and_tokens_of_the_upgrade", "order"],
    ),
    (
        "D6",
        "a token is tested and marked in two steps, before the other checks",
        "io/gateway",
        &["token_race", "order", "of_many_upgrades_at_once_one_gets_in"],
    ),
    ("D7", "used tokens are kept for ever", "io/gateway", &["outstanding_tokens_are_bounded_and_the_first_stay"]),
    ("D8", "a token is bound to nothing", "io/gateway", &["token_binding", "token_refusal_uniform"]),
    (
        "D9",
        "secrets that were published are taken",
        "core/identity",
        &["key_loading_knows_published_secrets_by_their_digest"],
    ),
    (
        "D10",
        "the upgrade can never succeed, and refusals count as success",
        "io/gateway",
        &["upgrade_ok", "six_points_and_their_counterparts", "npm_ws"],
    ),
    (
        "D11",
        "one side sends the token in the query, the other reads the header",
        "io/gateway",
        &["token_carriers", "token_carriers_over_a_socket"],
    ),
    ("D12", "a name that was not offered is answered", "io/gateway", &["ladder_rfc", "offers"]),
    (
        "D13",
        "a lower key signs without a word",
        "core/identity",
        &["fallback_matrix", "key_choice_a_caller_raises_and_never_lowers"],
    ),
    (
        "D14",
        "bumps, registry and health are for everybody, as often as they like",
        "io/gateway",
        &["access_matrix", "bump_statuses", "rates_are_counted_by_source"],
    ),
    (
        "D15",
        "no message is ever delivered, unknown ones are not answered",
        "io/gateway",
        &["messages", "message_faults", "npm_ws", "bun", "python_websockets"],
    ),
    (
        "D16",
        "bumps over WebSocket are signed and not stored, dry runs are stored, every fault is a 500",
        "io/gateway",
        &["bump_shared_path", "dry_run", "bump_statuses"],
    ),
    ("D17", "a generated key does not survive a restart", "node", &["bumps_and_the_key_that_was_made_survive_a_kill"]),
    (
        "D18",
        "sessions are named by the time of day and never forgotten",
        "io/gateway",
        &["sessions_are_bounded_and_places_come_back", "a_healthy_client_gets_its_pongs_beside_everything_hostile"],
    ),
    ("D19", "the signature of a manifest cannot verify: the time was added after signing", "node", &["revert"]),
    (
        "D20",
        "the first run signs with other bytes of the key than the next",
        "core/identity",
        &["hmac_vectors", "pair_seeds"],
    ),
    (
        "D21",
        "of several patterns of one file the last wins",
        "core/releases",
        &["all_places_of_a_file_move_in_one_buffer_and_only_group_1"],
    ),
    ("D22", "an atomic commit that rewrites files in place", "node", &["file_bump_cut_at_every_step"]),
    (
        "D23",
        "a dry run throws, and an unconfirmed change answers success",
        "core/releases",
        &["dry_run_has_no_signature"],
    ),
    ("D24", "a revert joins a caller's path and checks no signature", "node", &["revert"]),
    (
        "D25",
        "events overwrite each other and their envelope",
        "node",
        &["lines_and_checkpoints_verify_over_restarts_and_files"],
    ),
    ("D26", "a date is compared as text with a number", "core/identity", &["expiry", "unreadable_dates_are_over"]),
    ("D27", "browsers are shown signatures that they cannot check", "io/gateway", &["chromium"]),
    ("D28", "whoever is a trusted proxy may rotate keys", "io/gateway", &["rotate_authz"]),
    ("D29", "secrets are printed and kept in plain copies", "core/identity", &["no_leak_in_debug_output"]),
    (
        "D30",
        "a signature is the base64 of a list of numbers",
        "core/identity",
        &["one_spelling_for_each_signature", "ed25519_vectors"],
    ),
    (
        "D31",
        "everything is compressed, in one context, and inflated without end",
        "io/gateway",
        &["deflate_policy", "deflate_negotiation", "inflate_bomb"],
    ),
    ("D32", "errors repeat what parsers said and what was sent", "io/gateway", &["bodies_show_no_insides"]),
    (
        "D33",
        "checks take a 404 or a broken socket for a pass",
        "io/gateway",
        &["six_points_and_their_counterparts", "the_refusals_of_the_door_in_one_breath"],
    ),
];

/// What was changed to put a defect back, and the tests of the list above that failed then: by hand, each of them built and run. Whoever
/// changes the code of a line tries it again; a line that is not here was read and not run.
const PUT_BACK: [(&str, &str, &[&str]); 17] = [
    (
        "D1",
        "of trusted peers the first X-Forwarded-For instead of the walk from the right (peer.rs)",
        &["xff_walk", "behind_a_trusted_nginx"],
    ),
    (
        "D2",
        "the host that was sent counts as matched (handshake.rs)",
        &["host_rules", "foreign_hosts_and_odd_requests"],
    ),
    ("D3", "every origin is allowed (handshake.rs)", &["origin_rules", "the_token_endpoint"]),
    ("D4", "22 to 24 characters of the alphabet are a key (handshake.rs)", &["ws_key_rules"]),
    (
        "D5",
        "method, version and Connection are not looked at (handshake.rs)",
        &["versions_methods_and_tokens_of_the_upgrade", "order"],
    ),
    (
        "D6",
        "a token is looked at and marked in two steps, before the other checks (token.rs, handshake.rs)",
        &["token_race", "order", "of_many_upgrades_at_once_one_gets_in"],
    ),
    ("D7", "a used token leaves an entry behind (token.rs)", &["outstanding_tokens_are_bounded_and_the_first_stay"]),
    ("D8", "purpose and binding are not compared (token.rs)", &["token_binding", "token_refusal_uniform"]),
    ("D10", "every token is unknown (token.rs)", &["upgrade_ok", "six_points_and_their_counterparts"]),
    (
        "D11",
        "the query carries a token whatever the setting says (handshake.rs)",
        &["token_carriers", "token_carriers_over_a_socket"],
    ),
    ("D12", "the own first name where none fits or none is offered (ladder.rs)", &["ladder_rfc", "offers"]),
    ("D14", "every role may do everything (principal.rs)", &["access_matrix"]),
    ("D15", "an unknown message is not answered (session.rs)", &["message_faults"]),
    (
        "D18",
        "a session that ends keeps its place (token.rs)",
        &["a_healthy_client_gets_its_pongs_beside_everything_hostile"],
    ),
    ("D28", "whoever is a trusted proxy is an admin's address (settings.rs)", &["rotate_authz"]),
    ("D31", "inflation has no bound (deflate.rs); the test does not end", &["inflate_bomb"]),
    ("D32", "a backtrace in the body of an error (routes.rs)", &["bodies_show_no_insides"]),
];

/// Every name of a function behind a test attribute below a folder.
fn tests_below(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() && !["target", "node_modules", "venv"].contains(&entry.file_name().to_str().unwrap()) {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
                if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
                    found.push(name.split('(').next().unwrap().to_owned());
                    is_test = false;
                }
            }
        }
    }
}

// Proves: GW-90
#[test]
fn every_defect_has_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let mut not_built = Vec::new();
    for (number, (id, defect, folder, tests)) in DEFECTS.into_iter().enumerate() {
        assert_eq!(id, format!("D{}", number + 1));
        if tests.is_empty() {
            not_built.push(id);
            continue;
        }
        let mut found = Vec::new();
        tests_below(&root.join(folder), &mut found);
        for test in tests {
            assert!(found.iter().any(|name| name == test), "{id} ({defect}): no test {test} below {folder}");
        }
    }
    println!("{} defects have tests; not built: {not_built:?}", DEFECTS.len() - not_built.len());
    for (id, change, failed) in PUT_BACK {
        let (.., tests) = DEFECTS.into_iter().find(|(number, ..)| *number == id).unwrap();
        assert!(!failed.is_empty() && failed.iter().all(|test| tests.contains(test)), "{id} ({change}): {failed:?}");
    }
    println!("{} of them were put back by hand, and found", PUT_BACK.len());
}

// Proves: GW-90
#[test]
fn the_refusals_of_the_door_in_one_breath() {
    let rig = Rig::new(|_| {});
    let fresh = || rig.fresh();
    assert!(rig.judge(&fresh()).is_ok(), "D10: what is right gets in");
    let forged = fresh().with("x-forwarded-for", "192.0.2.9");
    assert_eq!(rig.judge(&forged).unwrap().peer.client.to_string(), "127.0.0.1", "D1");
    let code = |request: &Request| rig.code(request);
    assert_eq!(code(&fresh().with("host", "evil.example")), Some(Code::HostMismatch), "D2");
    assert_eq!(code(&fresh().with("origin", "http://evil.example")), Some(Code::OriginDenied), "D3");
    for key in ["======================", "aaaaaaaaaaaaaaaaaaaaaaaa", "AAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(code(&fresh().with("sec-websocket-key", key)), Some(Code::WsKey), "D4: {key}");
    }
    assert_eq!(code(&fresh().without("sec-websocket-key")), Some(Code::WsKey), "D4");
    assert_eq!(code(&Request { method: http::Method::POST, ..fresh() }), Some(Code::Method), "D5");
    assert_eq!(code(&fresh().without("connection")), Some(Code::UpgradeRequired), "D5");
    assert_eq!(code(&fresh().with("sec-websocket-version", "8")), Some(Code::WsVersion), "D5");
    // D6: a refusal takes nothing, a success takes it once.
    let once = fresh();
    assert_eq!(code(&once.clone().with("sec-websocket-protocol", "other")), Some(Code::Subprotocol), "D6");
    assert!(rig.enter(&once).is_ok() && rig.enter(&once).is_err(), "D6");
    let empty = Rig::new(|_| {});
    assert!(empty.enter(&empty.fresh()).is_ok() && empty.admission.counts().0 == 0, "D7: a used one is forgotten");
    let http = rig.token_for(&Request::upgrade(), Purpose::Http).unwrap();
    let reason = rig.judge(&Request::upgrade().with("x-tes-ws-csrf-token", &http)).unwrap_err().token;
    assert_eq!(reason, Some(TokenRefusal::Purpose), "D8");
    let elsewhere = rig.token_for(&Request::upgrade().with("host", "localhost:8443"), Purpose::Ws).unwrap();
    let reason = rig.judge(&Request::upgrade().with("x-tes-ws-csrf-token", &elsewhere)).unwrap_err().token;
    assert_eq!(reason, Some(TokenRefusal::Binding), "D8");
    let in_query = rig.token_for(&Request::upgrade(), Purpose::Ws).unwrap();
    let in_query = Request { target: format!("/version/ws?csrf={in_query}"), ..Request::upgrade() };
    assert_eq!(rig.judge(&in_query).unwrap_err().token, Some(TokenRefusal::Missing), "D11");
    assert_eq!(code(&fresh().with("sec-websocket-protocol", "other")), Some(Code::Subprotocol), "D12");
    let nothing = rig.judge(&fresh().without("sec-websocket-protocol")).unwrap().selected.name;
    assert_eq!(nothing, None, "D12");
    // D13: the second rung is not spoken by a ledger at v1.
    let mut young = Rig::new(|_| {});
    young.keys = KeyFacts { ledger: 1, loaded: 2, v1_counts: true };
    assert_eq!(young.code(&young.fresh().with("sec-websocket-protocol", "tes-ui-v2")), Some(Code::Deprecated), "D13");
    let offered = "permessage-deflate; client_max_window_bits";
    let deflate = rig.judge(&fresh().with("sec-websocket-extensions", offered)).unwrap().deflate.unwrap();
    assert!(deflate.answer().contains("server_no_context_takeover; client_no_context_takeover"), "D31");
}
