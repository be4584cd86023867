//! The golden vectors, through the plumbing that the command line uses. The folder is `SEALTIDE_VECTORS` or the
//! repository's `vectors/`; files are known by their `format` member.

use std::path::PathBuf;

use sealtide_ibgib::plumbing::run;
use serde_json::{Value, json};

/// The formats that this file tests.
const KNOWN: [&str; 4] = ["ibgib-hashing-1", "ibgib-transforms-1", "ibgib-addresses-1", "sealtide-reconcile-1"];

fn folder() -> PathBuf {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    #[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
    std::env::var("SEALTIDE_VECTORS").map_or(default, PathBuf::from).join("ibgib")
}

/// Every file of this format.
fn files(format: &str) -> Vec<Value> {
    let Ok(entries) = std::fs::read_dir(folder()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    let json = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let values = json.filter_map(|path| serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok());
    let found: Vec<Value> = values.filter(|value: &Value| value["format"] == format).collect();
    if found.is_empty() {
        println!("skipped: no file of format {format} in {}", folder().display());
    }
    found
}

fn cases(format: &str, member: &str) -> Vec<Value> {
    files(format).iter().flat_map(|file| file[member].as_array().cloned().unwrap_or_default()).collect()
}

fn answer(op: &str, case: &Value) -> Value {
    serde_json::from_str(&run(op, &case.to_string())).unwrap()
}

#[test]
fn vectors_some_known_format_is_there() {
    assert!(KNOWN.iter().any(|format| !files(format).is_empty()), "no vectors at all in {}", folder().display());
}

// Proves: SY-1, SY-3, SY-4, SY-5
#[test]
fn vectors_hashing() {
    for case in cases("ibgib-hashing-1", "cases") {
        assert_eq!(answer("hash", &case), case["expect"], "{}", case["id"]);
    }
}

// Proves: SY-6, SY-7, SY-8
#[test]
fn vectors_transforms() {
    for case in cases("ibgib-transforms-1", "cases") {
        let answer = answer("fork", &case);
        let (results, expected) = (&answer["results"], &case["expect"]["results"]);
        assert_eq!(results.as_array().map(Vec::len), expected.as_array().map(Vec::len), "{}", case["id"]);
        for (at, expected) in expected.as_array().into_iter().flatten().enumerate() {
            assert_eq!(readable(&results[at]), readable(expected), "{} step {at}", case["id"]);
        }
    }
}

/// A result with its record texts parsed. Serde objects compare without regard to the order of members, arrays with.
fn readable(result: &Value) -> Value {
    let mut result = result.clone();
    let parse = |shown: &mut Value| {
        let text = shown["json"].as_str().unwrap_or_default().to_owned();
        shown["json"] = serde_json::from_str(&text).unwrap();
    };
    if let Some(new) = result.get_mut("new") {
        parse(new);
    }
    for list in ["dnas", "intermediate"] {
        result.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().for_each(parse);
    }
    result
}

// Proves: SY-9
#[test]
fn vectors_addresses() {
    for case in cases("ibgib-addresses-1", "addresses") {
        assert_eq!(answer("check", &json!({"addr": case["addr"]})), without(&case, &["addr"]), "{}", case["addr"]);
    }
    for (list, member) in [("intrinsic", "ibgib"), ("rel8ns", "rel8ns")] {
        for case in cases("ibgib-addresses-1", list) {
            let answer = answer("check", &json!({member: case[member]}));
            for (name, expected) in without(&case, &[member, "note", "id"]).as_object().unwrap() {
                assert_eq!(&answer[name], expected, "{name} of {}", case[member]);
            }
        }
    }
}

// Proves: SY-12
#[test]
fn vectors_reconcile_items() {
    for case in cases("sealtide-reconcile-1", "items") {
        let answer = answer("check", &json!({"ibgib": case["ibgib"]}));
        for name in ["timeline", "addr", "sid", "order"] {
            assert_eq!(answer[name], case[name], "{name} of {}", case["ibgib"]);
        }
    }
}

fn without(case: &Value, members: &[&str]) -> Value {
    let mut case = case.clone();
    if let Some(object) = case.as_object_mut() {
        object.retain(|name, _| !members.contains(&name.as_str()));
    }
    case
}
