//! The registry from outside: validation, cascades, answers, and bytes that do not change.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

use std::path::PathBuf;

use proptest::prelude::*;
use sealtide_ibgib::json::{Js, JsObject, Rules, parse, write};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Signed};
use sealtide_releases::{
    BumpAnswer, BumpError, BumpRequest, Crypto, Entity, FieldError, ImportError, REGISTRY_BYTES_MAX, Registry, Scope,
    plan, refresh_text, summary, validate,
};
use serde_json::{Value, json};

/// An entity with every member that must be there.
fn entity(id: &str, parent: Option<&str>, strategy: &str) -> Value {
    let mut value = json!({
        "id": id, "type": if id.starts_with("global") { "global" } else { "component" }, "currentVersion": "1.0.0",
        "displayName": id, "updateStrategy": strategy, "displayInUi": true, "files": []
    });
    if let Some(parent) = parent {
        value["parentVersionId"] = json!(parent);
    }
    value
}

fn entities(list: &[Value]) -> Vec<Entity> {
    let read = |value: &Value| Entity::new(parse(&value.to_string(), Rules::Compat).unwrap()).unwrap();
    list.iter().map(read).collect()
}

fn registry(list: &[Value]) -> Registry {
    Registry::read(Value::from(list).to_string().as_bytes(), 1).unwrap()
}

fn object(text: &str) -> JsObject {
    match parse(text, Rules::Compat).unwrap() {
        Js::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn moved(registry: &Registry, request: &BumpRequest) -> Vec<String> {
    plan(registry, request, "global:main").unwrap().changes.into_iter().map(|change| change.entity_id).collect()
}

fn of(id: &str) -> BumpRequest {
    BumpRequest { entity: Some(id.to_owned()), ..BumpRequest::default() }
}

/// The tree of these tests: a linked branch, an independent one with something linked below it, and a second head.
fn tree() -> Registry {
    registry(&[
        entity("global:main", None, "independent"),
        entity("component:b", Some("component:a"), "linked-to-parent"),
        entity("component:a", Some("global:main"), "linked-to-parent"),
        entity("component:free", Some("global:main"), "independent"),
        entity("component:below", Some("component:free"), "linked-to-parent"),
        entity("component:c", Some("global:main"), "linked-to-parent"),
        entity("global:other", None, "independent"),
    ])
}

/// What makes an entity wrong.
type Change<'a> = &'a dyn Fn(&mut Value);

// Proves: GW-61
#[test]
fn registry_validation() {
    assert!(validate(Registry::sample().entities()).is_valid());
    let with = |change: &dyn Fn(&mut Value)| {
        let mut list = vec![
            entity("global:main", None, "independent"),
            entity("component:a", Some("global:main"), "linked-to-parent"),
        ];
        change(&mut list[1]);
        validate(&entities(&list))
    };
    assert!(with(&|_| {}).is_valid());
    let file =
        |path: &str, pattern: &str| json!([{"path": path, "pattern": pattern, "replacement": "$1", "description": ""}]);
    assert!(with(&|it| it["files"] = file("docs/a.md", r"v(\d+\.\d+\.\d+)")).is_valid());
    let wrong: [(&str, Change<'_>); 19] = [
        ("two entities have this id", &|it| it["id"] = json!("global:main")),
        ("its parent does not exist", &|it| it["parentVersionId"] = json!("global:none")),
        ("its chain of parents is a circle", &|it| it["parentVersionId"] = json!("component:a")),
        ("its id is not of the form type:name", &|it| it["id"] = json!("component")),
        ("its id is not of the form type:name", &|it| it["id"] = json!("component:A")),
        ("its id is not of the form type:name", &|it| it["id"] = json!("component:-a")),
        ("its type is unknown", &|it| it["type"] = json!("thing")),
        ("its updateStrategy is unknown", &|it| it["updateStrategy"] = json!("sometimes")),
        ("its currentVersion is no version", &|it| it["currentVersion"] = json!("1.x")),
        ("its currentVersion is no version", &|it| it["currentVersion"] = json!(1)),
        ("it has no displayName", &|it| it["displayName"] = Value::Null),
        ("its files are no list of rules with path and pattern", &|it| it["files"] = json!({})),
        ("a path of its files leaves the root", &|it| it["files"] = file("/etc/passwd", "(a)")),
        ("a path of its files leaves the root", &|it| it["files"] = file("a/../../b", "(a)")),
        ("a path of its files leaves the root", &|it| it["files"] = file("C:/b", "(a)")),
        ("a path of its files leaves the root", &|it| it["files"] = file("a\\b", "(a)")),
        ("a pattern of its files does not compile", &|it| it["files"] = file("a", "(a")),
        ("a pattern of its files does not compile", &|it| it["files"] = file("a", "(a{1000}{1000})")),
        ("a pattern of its files has no group 1", &|it| it["files"] = file("a", r"v\d+")),
    ];
    for (what, change) in wrong {
        let report = with(change);
        assert!(report.errors.iter().any(|problem| problem.what == what), "{what}: {report:?}");
    }
    let warned: [(&str, Change<'_>); 4] = [
        ("linked to a parent, but names none", &|it| {
            it.as_object_mut().unwrap().shift_remove("parentVersionId");
        }),
        ("an api-scope without apiEndpointPrefix", &|it| it["type"] = json!("api-scope")),
        ("a cli-tool without cliCommandName", &|it| it["type"] = json!("cli-tool")),
        ("its chain of parents does not end at a global", &|it| {
            it.as_object_mut().unwrap().shift_remove("parentVersionId");
            it["updateStrategy"] = json!("independent");
        }),
    ];
    for (what, change) in warned {
        let report = with(change);
        assert!(report.is_valid() && report.warnings.iter().any(|problem| problem.what == what), "{what}: {report:?}");
    }
}

/// What is kept in one record does not grow beyond it.
// Proves: GW-64
#[test]
fn a_bump_that_makes_the_registry_too_long_is_refused() {
    let with = |version: &str, bytes: usize| {
        let mut value = entity("global:main", None, "independent");
        value["currentVersion"] = json!(version);
        let length = registry(std::slice::from_ref(&value)).text().len();
        value["more"] = json!("x".repeat(bytes - length - r#","more":"""#.len()));
        registry(&[value])
    };
    let full = with("1.0.8", REGISTRY_BYTES_MAX);
    assert_eq!(full.text().len(), REGISTRY_BYTES_MAX);
    assert_eq!(plan(&full, &BumpRequest::default(), "global:main").unwrap().after.text().len(), REGISTRY_BYTES_MAX);
    let longer = plan(&with("1.0.9", REGISTRY_BYTES_MAX), &BumpRequest::default(), "global:main");
    assert_eq!(longer.unwrap_err(), BumpError::Long);
}

// Proves: GW-61
#[test]
fn long_circles_and_long_chains_are_told_apart() {
    let chain = |ends: bool| {
        let mut list: Vec<Value> = (1..300)
            .map(|at| entity(&format!("component:c{at}"), Some(&format!("component:c{}", at - 1)), "linked-to-parent"))
            .collect();
        let parent = if ends { None } else { Some("component:c299") };
        list.push(entity("component:c0", parent, "linked-to-parent"));
        validate(&entities(&list))
    };
    assert!(chain(true).is_valid());
    assert_eq!(chain(false).errors.len(), 300);
}

#[test]
fn what_is_no_registry_is_refused() {
    let read = |text: &str| Registry::read(text.as_bytes(), 1);
    assert!(read("[]").is_ok());
    assert_eq!(read("{}").unwrap_err(), ImportError::Form);
    assert_eq!(read("[1]").unwrap_err(), ImportError::Form);
    assert_eq!(read("[{}]").unwrap_err(), ImportError::Form);
    assert_eq!(read("[").unwrap_err(), ImportError::Json);
    assert_eq!(Registry::read(&[b'[', 0xff, b']'], 1).unwrap_err(), ImportError::Json);
    assert_eq!(read(&"[".repeat(100_000)).unwrap_err(), ImportError::Json);
    assert_eq!(Registry::read(&vec![b' '; (4 << 20) + 1], 1).unwrap_err(), ImportError::Long);
    assert!(matches!(read(r#"[{"id":"a:b"}]"#), Err(ImportError::Invalid(_))));
}

// Proves: GW-63
#[test]
fn cascade() {
    let tree = tree();
    assert_eq!(moved(&tree, &BumpRequest::default()), ["global:main", "component:a", "component:b", "component:c"]);
    assert_eq!(moved(&tree, &of("component:a")), ["component:a", "component:b"]);
    assert_eq!(moved(&tree, &of("component:free")), ["component:free", "component:below"]);
    assert_eq!(moved(&tree, &BumpRequest { cascade: false, ..of("component:a") }), ["component:a"]);
    assert_eq!(moved(&tree, &of("global:other")), ["global:other"]);
    let all = moved(&tree, &BumpRequest { all: true, ..BumpRequest::default() });
    let wanted: Vec<&str> = tree.entities().iter().map(Entity::id).collect();
    assert_eq!(all, wanted);
    assert_eq!(plan(&tree, &of("component:none"), "global:main"), Err(BumpError::NotFound("component:none".into())));
    assert!(plan(&tree, &BumpRequest::default(), "global:gone").is_err());
}

// Proves: GW-63
#[test]
fn each_moves_by_its_own_number_and_nothing_else_changes() {
    let mut list = vec![
        entity("global:main", None, "independent"),
        entity("component:a", Some("global:main"), "linked-to-parent"),
    ];
    list[1]["currentVersion"] = json!("v2.1.02");
    list[1]["unknown"] = json!({"kept": [1.5, "é\u{1}"]});
    let before = registry(&list);
    let request = BumpRequest { scope: Scope::Minor, ..BumpRequest::default() };
    let outcome = plan(&before, &request, "global:main").unwrap();
    assert_eq!((outcome.after.revision(), before.revision()), (2, 1));
    assert_eq!(
        (outcome.changes[1].old_version.as_str(), outcome.changes[1].new_version.as_str()),
        ("v2.1.02", "2.2.0")
    );
    let mut wanted = list.clone();
    wanted[0]["currentVersion"] = json!("1.1.0");
    wanted[1]["currentVersion"] = json!("2.2.0");
    assert_eq!(outcome.bumped, Value::from(wanted).to_string());
    assert_eq!(outcome.after.text(), outcome.bumped);
    assert_eq!(before.text(), Value::from(list).to_string(), "a plan changes nothing");
}

// Proves: GW-65
#[test]
fn a_hundred_patches_are_a_hundred_revisions() {
    let mut registry = Registry::sample();
    let mut revisions = Vec::new();
    for _ in 0..100 {
        registry = plan(&registry, &of("component:sample"), "global:main").unwrap().after;
        revisions.push(registry.revision());
    }
    assert_eq!(registry.entity("component:sample").unwrap().current_version(), "1.0.100");
    assert!(revisions.is_sorted_by(|left, right| left < right));
}

#[test]
fn a_version_at_its_end_stops_the_whole_bump() {
    let mut list = vec![
        entity("global:main", None, "independent"),
        entity("component:a", Some("global:main"), "linked-to-parent"),
    ];
    list[1]["currentVersion"] = json!("1.0.9007199254740991");
    let outcome = plan(&registry(&list), &BumpRequest::default(), "global:main");
    assert_eq!(outcome, Err(BumpError::Version("component:a".into())));
}

// Proves: GW-68
#[test]
fn bump_fields() {
    let rest = |text: &str| BumpRequest::read(&object(text), &[], None);
    assert_eq!(rest("{}").unwrap(), BumpRequest::default());
    let new = rest(
        r#"{"scope":"minor","entityId":"a:b","cascade":false,"dryRun":true,"keyVersion":"v2","crypto":"ed25519"}"#,
    );
    let wanted = BumpRequest {
        scope: Scope::Minor,
        entity: Some("a:b".into()),
        cascade: false,
        dry_run: true,
        all: false,
        key_version: KeyVersion::parse("v2"),
        crypto: Some(Crypto::Ed25519),
    };
    assert_eq!(new.unwrap(), wanted);
    assert_eq!(
        rest(r#"{"type":"major","entity":"a:b"}"#).unwrap(),
        rest(r#"{"scope":"major","entityId":"a:b"}"#).unwrap()
    );
    assert_eq!(rest(r#"{"type":"major","scope":"major"}"#).unwrap().scope, Scope::Major);
    for bad in [r#"{"scope":"huge"}"#, r#"{"type":"huge"}"#, r#"{"scope":""}"#] {
        assert_eq!(rest(bad), Err(FieldError::Scope), "{bad}");
    }
    let refused = [
        r#"{"type":"major","scope":"minor"}"#,
        r#"{"entity":"a:b","entityId":"a:c"}"#,
        r#"{"cascade":"true"}"#,
        r#"{"cascade":1}"#,
        r#"{"dryRun":"yes"}"#,
        r#"{"dryRun":null}"#,
        r#"{"scope":1}"#,
        r#"{"entityId":["a:b"]}"#,
        r#"{"keyVersion":2}"#,
        r#"{"keyVersion":"2"}"#,
        r#"{"keyVersion":"v0"}"#,
        r#"{"crypto":"none"}"#,
        r#"{"extra":1}"#,
        r#"{"__proto__":{}}"#,
        r#"{"0":1}"#,
        r#"{"all":true,"entityId":"a:b"}"#,
        r#"{"entityId":"\ud800"}"#,
    ];
    for bad in refused {
        assert!(matches!(rest(bad), Err(FieldError::Field(_))), "{bad}");
    }
    assert!(rest(&json!({"entityId": "a".repeat(257)}).to_string()).is_err());
    // The header names the version too, and may not contradict.
    let header = |text: &str, header: &str| BumpRequest::read(&object(text), &[], Some(header));
    assert_eq!(header("{}", "v3").unwrap().key_version, KeyVersion::parse("v3"));
    assert!(header(r#"{"keyVersion":"v2"}"#, "v3").is_err());
    // In a message `type` is the message's own.
    let message = |text: &str| BumpRequest::read(&object(text), &["type", "id"], None);
    assert_eq!(message(r#"{"type":"bump","id":"x","scope":"major"}"#).unwrap().scope, Scope::Major);
    assert!(message(r#"{"type":"bump","id":"x","sope":"major"}"#).is_err());
}

fn signed(instead_of: Option<KeyVersion>) -> Signed {
    Signed {
        text: "5f68".into(),
        version: KeyVersion::V1,
        instead_of,
        algorithm: Algorithm::HmacSha256,
        kid: "0011".into(),
    }
}

// Proves: GW-43
#[test]
fn the_signed_bytes_stand_in_the_answer_and_members_have_their_order() {
    let outcome = plan(&Registry::sample(), &of("api:sample"), "global:main").unwrap();
    let signature = signed(None);
    let answer =
        BumpAnswer { plan: &outcome, signed: Some(&signature), key_version: KeyVersion::V1, timestamp: 7, revision: 2 };
    let body = answer.body();
    let cut = body.strip_prefix(r#"{"success":true,"bumped":"#).unwrap();
    assert!(cut.starts_with(&format!("{},\"changes\":", outcome.bumped)));
    let value: Value = serde_json::from_str(&body).unwrap();
    let names: Vec<&String> = value.as_object().unwrap().keys().collect();
    let order = "success bumped changes signature keyVersion alg kid timestamp hsl metaHybrid revision dryRun";
    assert_eq!(names, order.split(' ').collect::<Vec<_>>());
    assert_eq!(
        value["changes"],
        json!([{"entityId": "api:sample", "oldVersion": "1.0.0", "newVersion": "1.0.1", "displayName": "Sample API"}])
    );

    // Proves: GW-31
    let message: Value = serde_json::from_str(&answer.message(Some("q\"1"))).unwrap();
    assert_eq!(
        (&message["id"], &message["status"], &message["type"]),
        (&json!("q\"1"), &json!("BUMPED"), &json!("bump_response"))
    );
    let names: Vec<&String> = message["data"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        "bumped changes signature keyVersion alg kid timestamp revision dryRun".split(' ').collect::<Vec<_>>()
    );
    let told: Value = serde_json::from_str(&answer.broadcast()).unwrap();
    assert_eq!((&told["revision"], &told["keyVersion"]), (&json!(2), &json!("v1")));
    let refresh: Value = serde_json::from_str(&refresh_text(&Registry::sample(), "RUNNING", None)).unwrap();
    assert_eq!((refresh["entities"].as_array().unwrap().len(), &refresh["revision"]), (3, &json!(1)));
}

// Proves: GW-64
#[test]
fn dry_run_has_no_signature() {
    let outcome =
        plan(&Registry::sample(), &BumpRequest { dry_run: true, ..BumpRequest::default() }, "global:main").unwrap();
    let answer = BumpAnswer { plan: &outcome, signed: None, key_version: KeyVersion::V1, timestamp: 7, revision: 1 };
    let value: Value = serde_json::from_str(&answer.body()).unwrap();
    assert_eq!((&value["dryRun"], &value["revision"]), (&json!(true), &json!(1)));
    assert!(["signature", "kid", "alg"].iter().all(|name| value.get(name).is_none()), "{value}");
    assert!(!answer.message(None).contains("signature"));
}

// Proves: GW-50
#[test]
fn a_fallback_is_labelled() {
    let outcome = plan(&Registry::sample(), &BumpRequest::default(), "global:main").unwrap();
    let signature = signed(KeyVersion::parse("v2"));
    let answer =
        BumpAnswer { plan: &outcome, signed: Some(&signature), key_version: KeyVersion::V1, timestamp: 7, revision: 2 };
    let value: Value = serde_json::from_str(&answer.body()).unwrap();
    assert_eq!(
        (&value["keyVersion"], &value["requestedKeyVersion"], &value["fallback"]),
        (&json!("v1"), &json!("v2"), &json!(true))
    );
}

#[test]
fn the_summary_keeps_places_in_files_from_readers() {
    let mut list = vec![entity("global:main", None, "independent")];
    list[0]["files"] = json!([{"path": "package.json", "pattern": "(1)", "replacement": "", "description": ""}]);
    let registry = registry(&list);
    assert!(summary(&registry, true).contains("package.json"));
    let told = summary(&registry, false);
    assert!(!told.contains("package.json"));
    let value: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&value["package"]["version"], &value["validation"]["valid"]), (&json!("1.0.0"), &json!(true)));
}

#[test]
fn the_envelope_is_canonical_and_holds_the_revision() {
    let text = Registry::sample().envelope("default", "stn1x", "keyring^1").unwrap();
    assert!(
        text.starts_with(r#"{"app":"default","entities":[{"currentVersion":"1.0.0","displayInUi":true,"#),
        "{text}"
    );
    assert!(text.ends_with(r#""ledger":"keyring^1","revision":1,"writer":"stn1x"}"#), "{text}");
}

// Proves: GW-42
#[test]
fn hmac_vectors_entities_are_written_as_they_were_read() {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    #[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
    let folder = std::env::var("SEALTIDE_VECTORS").map_or(default, PathBuf::from).join("gateway");
    let files = std::fs::read_dir(&folder).into_iter().flatten();
    let texts = files.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
    let values = texts.map(|path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
    let mut count = 0;
    for file in values.filter(|value| value["algorithm"] == "HMAC-SHA256") {
        for case in file["vectors"].as_array().unwrap() {
            let payload = case["payload_utf8"].as_str().unwrap();
            let Js::Array(list) = parse(payload, Rules::Compat).unwrap() else { continue };
            let list: Vec<Js> =
                list.into_iter().map(|it| Js::Object(Entity::new(it).unwrap().object().clone())).collect();
            assert_eq!(write(&Js::Array(list)).unwrap(), payload, "{}", case["id"]);
            count += 1;
        }
    }
    println!("{count} arrays of entities");
    assert!(count > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000 * scale()))]

    #[test]
    fn nothing_foreign_panics(text in ".{0,200}", members in "\\PC{0,80}") {
        let _ = Registry::read(text.as_bytes(), 1);
        if let Ok(Js::Object(object)) = parse(&format!("{{{members}}}"), Rules::Compat) {
            let _ = BumpRequest::read(&object, &[], Some(&text));
        }
    }

    /// Whatever the tree: a bump moves each entity once, parents before children, and never an independent one below.
    #[test]
    fn cascades_hold_in_any_tree(parents in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..40)) {
        let mut list = vec![entity("global:main", None, "independent")];
        for (at, (parent, linked)) in parents.iter().enumerate() {
            let parent = list[parent.index(list.len())]["id"].as_str().unwrap().to_owned();
            let strategy = if *linked { "linked-to-parent" } else { "independent" };
            list.push(entity(&format!("component:c{at}"), Some(&parent), strategy));
        }
        let registry = registry(&list);
        let order = moved(&registry, &BumpRequest::default());
        let place = |id: &str| order.iter().position(|moved| moved == id);
        for entity in registry.entities() {
            let parent = entity.parent().map(place);
            let is_linked = entity.text("updateStrategy") == Some("linked-to-parent");
            let wanted = entity.id() == "global:main" || is_linked && parent.flatten().is_some();
            prop_assert_eq!(place(entity.id()).is_some(), wanted);
            if let (Some(own), Some(Some(parent))) = (place(entity.id()), parent) {
                prop_assert!(parent < own);
            }
        }
        prop_assert_eq!(order.iter().collect::<std::collections::BTreeSet<_>>().len(), order.len());
    }
}

fn scale() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
