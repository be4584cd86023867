//! Two members frames become one.

use sealtide_ibgib::{Relations, Verified, evolve, genesis, merge_conflicts};
use serde_json::{Value, json};

use crate::merge::{Held, object};
use crate::{stamp, uuid};

fn member(role: &str, since: u64, nodes: &[&str]) -> Value {
    json!({"keystone": "keystone^X", "nodes": nodes, "role": role, "since": since})
}

fn next(prev: &Verified, data: Value, offset_ms: u64) -> Verified {
    evolve(prev, object(data), Relations::new(), stamp(offset_ms))
}

/// Merges the data of two sides; the two orders of the call, and which side wins, must not matter.
#[track_caller]
fn merged(base: Value, left: Value, right: Value) -> Value {
    let first = genesis("members", object(base), Relations::new(), stamp(0), &uuid(7));
    let merge = |left_ms: u64, right_ms: u64| {
        let (left, right) = (next(&first, left.clone(), left_ms), next(&first, right.clone(), right_ms));
        let frame = Held::of(&[&first, &left, &right]).merge(&left, &right).unwrap();
        assert_eq!(merge_conflicts(&frame), Some(0), "nothing is left to people");
        let data = Value::Object(frame.object().unwrap());
        json!({"members": data["members"], "last": data.get("last"), "space": data["space"]})
    };
    let (one, other) = (merge(1, 2), merge(2, 1));
    assert_eq!(one, other, "whoever wins");
    one
}

// Proves: SY-102
#[test]
fn a_removal_wins_and_of_two_roles_the_lesser() {
    let (a, b, c) = (member("admin", 1, &["n1"]), member("write", 2, &["n2"]), member("write", 3, &["n3"]));
    let base = json!({"space": "s", "members": {"A": a, "B": b, "C": c}});
    // Left removes B, makes C admin and adds D; right raises B, lets C read only and adds D and E.
    let left = json!({
        "space": "s",
        "members": {"A": a, "C": member("admin", 3, &["n3"]), "D": member("write", 9, &["n4"])},
        "last": {"B": ["commit^1"]},
    });
    let right = json!({
        "space": "s",
        "members": {
            "A": a, "B": member("admin", 2, &["n2"]), "C": member("read", 3, &["n3"]), "D": member("read", 8, &["n5"]),
            "E": member("admin", 10, &[]),
        },
        "last": {"C": ["commit^2"]},
    });
    let expected = json!({
        "space": "s",
        "members": {
            "A": a, "C": member("read", 3, &["n3"]), "D": member("read", 8, &["n4", "n5"]), "E": member("admin", 10, &[]),
        },
        "last": {"B": ["commit^1"], "C": ["commit^2"]},
    });
    assert_eq!(merged(base, left, right), expected);
}

// Proves: SY-102
#[test]
fn what_one_side_alone_changed_is_that() {
    let (low, high) = (member("write", 1, &["n1", "n2"]), member("admin", 1, &["n1", "n2"]));
    let data = |member: &Value| json!({"space": "s", "members": {"A": member}});
    let role = |merged: &Value| merged["members"]["A"]["role"].clone();
    assert_eq!(role(&merged(data(&low), data(&high), data(&low))), "admin", "raised");
    assert_eq!(role(&merged(data(&high), data(&low), data(&high))), "write", "lowered");
    let (less, more) = (member("write", 1, &["n2"]), member("write", 1, &["n1", "n2", "n3"]));
    assert_eq!(merged(data(&low), data(&less), data(&more))["members"]["A"]["nodes"], json!(["n2", "n3"]));
}

/// Removed by both, and added again by one of them: the last commits are those of both, and then of nobody.
#[test]
fn how_far_former_writers_count() {
    let base = json!({"space": "s", "members": {"A": member("admin", 1, &[]), "B": member("write", 1, &[])}});
    let gone = |last: Value| json!({"space": "s", "members": {"A": member("admin", 1, &[])}, "last": last});
    let both = merged(base.clone(), gone(json!({"B": ["commit^2"]})), gone(json!({"B": ["commit^1", "commit^2"]})));
    assert_eq!(both["last"], json!({"B": ["commit^1", "commit^2"]}));
    let again = json!({"space": "s", "members": {"A": member("admin", 1, &[]), "B": member("write", 5, &[])}});
    let merged = merged(gone(json!({"B": ["commit^1"]})), again.clone(), gone(json!({"B": ["commit^1"]})));
    assert_eq!((&merged["members"], &merged["last"]), (&again["members"], &Value::Null));
}

/// What has not the shape is taken as it stands, and nothing panics.
#[test]
fn other_shapes() {
    for odd in [json!(1), json!([]), json!({"A": 1}), json!({"A": {"role": 7, "nodes": {"x": 1}}})] {
        let base = json!({"space": "s", "members": {"A": member("admin", 1, &[])}});
        let with = json!({"space": "s", "members": odd, "last": odd});
        for (first, left, right) in [(&base, &with, &base), (&with, &base, &with), (&base, &with, &with)] {
            let first = genesis("members", object(first.clone()), Relations::new(), stamp(0), &uuid(8));
            let (left, right) = (next(&first, left.clone(), 1), next(&first, right.clone(), 2));
            let frame = Held::of(&[&first, &left, &right]).merge(&left, &right).unwrap();
            assert!(frame.object().unwrap()["members"].is_object());
        }
    }
}
