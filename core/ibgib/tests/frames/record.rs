//! genesis, evolve and stone.

use sealtide_ibgib::{Data, Object, Refusal, Relations, Stamp, evolve, genesis, space_genesis, stone, try_evolve};
use serde_json::json;

use crate::{BASE_MS, accepted, address, scale, stamp, text_file, uuid};

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
    let mut second_bytes = None;
    for n in 1..=frames {
        tip = text_file("notes/today.txt", "same").evolve(&tip, stamp(n * 1000)).unwrap();
        let bytes_without_n = tip.encoded().len() - n.to_string().len();
        let expected = *second_bytes.get_or_insert(bytes_without_n);
        assert_eq!(bytes_without_n, expected, "frame {n} grew");
        assert_eq!(tip.relations().values().map(Vec::len).max(), Some(1));
    }
    let facts = accepted(&tip).frame().unwrap();
    assert_eq!((facts.n, facts.tjp), (frames, first.address().clone()));
    assert_eq!(facts.stamp, Some(Stamp { ms: BASE_MS + frames * 1000 }));
}
