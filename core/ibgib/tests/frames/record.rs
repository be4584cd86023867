//! genesis, evolve and stone.

use proptest::prelude::*;
use sealtide_ibgib::json::{Rules, parse};
use sealtide_ibgib::validate::{has_tjp, validate_record, validate_relations};
use sealtide_ibgib::{
    Data, Object, Refusal, Relations, Stamp, Verified, evolve, genesis, space_genesis, stone, try_evolve, yield_frame,
};
use serde_json::json;

use crate::{BASE_MS, accepted, address, node, property_cases, scale, stamp, text_file, uuid};

fn object(value: serde_json::Value) -> Object {
    value.as_object().unwrap().clone()
}

// Proves: SY-104
#[test]
fn genesis_adds_what_a_first_frame_has() {
    let first = genesis("doc", object(json!({"name": "n"})), Relations::new(), stamp(7), &uuid(1));
    assert_eq!(
        first.to_json(),
        json!({
            "ib": "doc",
            "gib": first.address().gib(),
            "data": {
                "isTjp": true, "n": 0, "name": "n", "timestamp": "Tue, 14 Nov 2023 22:13:20 GMT", "timestampMs": 7,
                "uuid": uuid(1),
            },
            "rel8ns": {"ancestor": ["ib^gib"]},
        })
    );
    assert_eq!(first.address().gib().len(), 64);
    let facts = first.frame().unwrap();
    assert_eq!((facts.n, &facts.tjp, facts.stamp), (0, first.address(), Some(stamp(7))));
    assert_eq!(accepted(&first), first);
}

// Proves: SY-104
#[test]
fn evolve_replaces_members_whole() {
    let mut relations = Relations::from([("bin".to_owned(), vec![address("bin x^gib")])]);
    let first = genesis("doc", object(json!({"a": 1, "b": 2})), relations.clone(), stamp(0), &uuid(1));
    relations.insert("past".to_owned(), vec![address("not this^gib")]);
    relations.remove("bin");
    let data = object(json!({"c": 3, "isTjp": true, "n": 77, "uuid": "mine", "timestamp": "mine"}));
    let second = evolve(&first, data, relations, stamp(1000));
    let gib = second.address().gib();
    assert_eq!(gib.split_once('.').unwrap().1, first.address().gib());
    assert_eq!(
        second.to_json(),
        json!({
            "ib": "doc",
            "gib": gib,
            "data": {
                "c": 3, "n": 1, "timestamp": "Tue, 14 Nov 2023 22:13:21 GMT", "timestampMs": 0, "uuid": uuid(1),
            },
            "rel8ns": {
                "ancestor": ["ib^gib"], "past": [first.address().as_str()], "tjp": [first.address().as_str()],
            },
        })
    );
    let third = evolve(&second, Object::new(), Relations::new(), stamp(2000));
    let facts = accepted(&third).frame().unwrap();
    assert_eq!((facts.n, facts.past, facts.tjp), (2, vec![second.address().clone()], first.address().clone()));
}

// Proves: SY-104
#[test]
fn graft_members_are_not_carried_on() {
    let first = genesis("doc", Object::new(), Relations::new(), stamp(0), &uuid(1));
    let left = evolve(&first, object(json!({"x": 1})), Relations::new(), stamp(1));
    let right = evolve(&first, object(json!({"x": 2})), Relations::new(), stamp(2));
    let graft = Relations::from([
        ("graftbase".to_owned(), vec![first.address().clone()]),
        ("graftorphan".to_owned(), vec![left.address().clone()]),
    ]);
    let merged = evolve(&right, object(json!({"graft": {"conflicts": 1}})), graft, stamp(2));
    assert_eq!(merged.frame().unwrap().orphans, [left.address().clone()]);
    let next = evolve(&merged, object(json!({"x": 3})), Relations::new(), stamp(3));
    assert_eq!(next.relations().keys().collect::<Vec<_>>(), ["ancestor", "past", "tjp"]);
    assert!(next.object().unwrap().get("graft").is_none());
}

/// What is named behind a frame and is in another timeline is not behind it, and what is named often is so once.
#[test]
fn only_its_own_timeline_is_behind_a_frame() {
    let first = genesis("doc", Object::new(), Relations::new(), stamp(0), &uuid(1));
    let other = genesis("doc", Object::new(), Relations::new(), stamp(0), &uuid(2));
    let named =
        vec![other.address().clone(), first.address().clone(), other.address().clone(), first.address().clone()];
    let graft = Relations::from([("graftorphan".to_owned(), named)]);
    let next = evolve(&first, Object::new(), graft, stamp(1));
    let facts = accepted(&next).frame().unwrap();
    assert_eq!((facts.past, facts.orphans), (vec![first.address().clone()], vec![first.address().clone()]));
}

#[test]
fn the_stamp_never_goes_back() {
    let first = genesis("doc", Object::new(), Relations::new(), stamp(5000), &uuid(1));
    let earlier = evolve(&first, Object::new(), Relations::new(), stamp(0));
    assert_eq!(earlier.frame().unwrap().stamp, Some(stamp(5000)));
    let far = evolve(&first, Object::new(), Relations::new(), Stamp { ms: u64::MAX });
    assert_eq!(accepted(&far).frame().unwrap().stamp, Some(Stamp { ms: Stamp::MS_MAX }));
}

#[test]
fn evolving_what_cannot_be_evolved_is_refused() {
    let lone = stone("note", Data::Json(json!({"a": 1})), Relations::new());
    assert_eq!(try_evolve(&lone, Object::new(), Relations::new(), stamp(0)), Err(Refusal::BadN));
    let first = genesis("doc", Object::new(), Relations::new(), stamp(0), &uuid(1));
    let large = object(json!({"text": "x".repeat(800_000)}));
    assert_eq!(try_evolve(&first, large, Relations::new(), stamp(0)), Err(Refusal::TooLarge));
}

#[test]
fn a_space_begins_with_its_maker() {
    let space = space_genesis("Notes", "folder", "stn1me", stamp(0), &uuid(3));
    assert_eq!(space.address().ib(), "space");
    let data = space.object().unwrap();
    assert_eq!((&data["name"], &data["kind"], &data["by"]), (&json!("Notes"), &json!("folder"), &json!("stn1me")));
    assert!(accepted(&space).frame().is_some());
}

// Proves: SY-104 (100 000 frames on one timeline: no record grows)
#[test]
fn a_long_timeline_does_not_grow() {
    let frames = u64::from(2000 * scale()).min(100_000);
    let first = text_file("notes/today.txt", "same").genesis(stamp(0), &uuid(1)).unwrap();
    let mut tip = first.clone();
    let mut third_bytes = None;
    for n in 1..=frames {
        tip = text_file("notes/today.txt", "same").evolve(&tip, stamp(n * 1000)).unwrap();
        // The second frame is shorter than all later ones: the address of a first frame has one hash, not two.
        if n > 1 {
            let bytes_without_n = tip.encoded().len() - n.to_string().len();
            assert_eq!(bytes_without_n, *third_bytes.get_or_insert(bytes_without_n), "frame {n} grew");
        }
        assert_eq!(tip.relations().values().map(Vec::len).max(), Some(1));
    }
    let facts = accepted(&tip).frame().unwrap();
    assert_eq!((facts.n, facts.tjp), (frames, first.address().clone()));
    assert_eq!(facts.stamp, Some(Stamp { ms: BASE_MS + frames * 1000 }));
}

/// The codes that record validation of the original gives, after a round trip through JSON text.
fn v1_codes(record: &Verified) -> Vec<&'static str> {
    let value = parse(&record.to_json().to_string(), Rules::Compat).unwrap();
    let object = value.as_object().unwrap();
    assert!(has_tjp(object));
    let mut codes = validate_record(object).unwrap();
    codes.extend(validate_relations(object.named("rel8ns")).unwrap());
    codes
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i32>().prop_map(|value| json!(value)),
        any::<f64>().prop_filter("JSON has none else", |value| value.is_finite()).prop_map(|value| json!(value)),
        "\\PC{0,6}[\n\"\u{0}\u{2028}]?".prop_map(|value| json!(value)),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::btree_map("[a-z0-9é]{0,3}", inner, 0..4).prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #![proptest_config(property_cases())]

    // Proves: SY-104 (what genesis and evolve make passes V1 record validation)
    #[test]
    fn frames_pass_v1_record_validation(
        ib in "[a-zé ]{1,8}",
        members in prop::collection::btree_map("[a-z0-9é]{1,4}", any_json(), 0..4),
        later in prop::collection::btree_map("[a-z0-9é]{1,4}", any_json(), 0..4),
        links in prop::collection::btree_map("[a-z0-9é]{1,4}", prop::collection::vec("[a-z]{1,4}\\^gib", 0..3), 0..3),
        first_ms in 0..=Stamp::MS_MAX,
        next_ms in 0..=Stamp::MS_MAX,
    ) {
        let relations: Relations =
            links.into_iter().map(|(name, links)| (name, links.iter().map(|link| address(link)).collect())).collect();
        let first = genesis(&ib, members.into_iter().collect(), relations.clone(), Stamp { ms: first_ms }, &uuid(1));
        let second = evolve(&first, later.into_iter().collect(), relations, Stamp { ms: next_ms });
        let third = evolve(&second, Object::new(), Relations::new(), Stamp { ms: 0 });
        for record in [&first, &second, &third] {
            prop_assert_eq!(v1_codes(record), Vec::<&str>::new());
            prop_assert_eq!(&accepted(record), record);
        }
        let facts = third.frame().unwrap();
        prop_assert_eq!((facts.n, facts.stamp), (2, Some(Stamp { ms: first_ms.max(next_ms) })));
    }
}

// Proves: SY-104 (frames of a folder pass V1 record validation)
#[test]
fn folder_frames_pass_v1_record_validation() {
    let first = text_file("a/ü.txt", "text\n\"\u{7f}").genesis(stamp(0), &uuid(1)).unwrap();
    let second = text_file("a/ü.txt", "").evolve(&first, stamp(1)).unwrap();
    let gone = text_file("a/ü.txt", "").deletion(5, &node('b')).evolve(&second, stamp(2)).unwrap();
    let ended = yield_frame(&second, first.address()).unwrap();
    let space = space_genesis("n", "folder", &node('a'), stamp(0), &uuid(2));
    for record in [first, second, gone, ended, space] {
        assert_eq!(v1_codes(&record), Vec::<&str>::new());
    }
}
