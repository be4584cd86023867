//! The golden vectors, through the plumbing that the command line uses. The folder is `SEALTIDE_VECTORS` or the
//! repository's `vectors/`; files are known by their `format` member.

#![allow(clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

use std::path::PathBuf;

use sealtide_ibgib::json::{Js, Rules, parse};
use sealtide_ibgib::plumbing::run;
use sealtide_ibgib::record::Encodable;
use sealtide_ibgib::{Refusal, Verified, merge_text};
use serde_json::{Value, json};

/// The formats that this file tests.
const KNOWN: [&str; 5] =
    ["ibgib-hashing-1", "ibgib-transforms-1", "ibgib-addresses-1", "sealtide-reconcile-1", "sealtide-textmerge-1"];

/// Another folder than that of the repository.
#[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
fn other() -> Option<String> {
    std::env::var("SEALTIDE_VECTORS").ok()
}

fn folder() -> PathBuf {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    other().map_or(default, PathBuf::from).join("ibgib")
}

/// Every file of this format. The repository has one of each; another folder may lack some.
fn files(format: &str) -> Vec<Value> {
    let entries = std::fs::read_dir(folder()).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let json = paths.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let found: Vec<Value> = json.map(read).filter(|value: &Value| value["format"] == format).collect();
    if found.is_empty() {
        assert!(other().is_some(), "no file of format {format} in {}", folder().display());
        println!("skipped: no file of format {format} in {}", folder().display());
    }
    found
}

fn cases(format: &str, member: &str) -> Vec<Value> {
    let cases: Vec<Value> =
        files(format).iter().flat_map(|file| file[member].as_array().cloned().unwrap_or_default()).collect();
    println!("{} {member} of format {format}", cases.len());
    assert!(!cases.is_empty() || other().is_some(), "no {member} of format {format}");
    cases
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

/// Every record of the vectors that strict acceptance takes: its encoding, its parts and its sid agree, and another
/// spelling of its texts is refused.
// Proves: SY-94
#[test]
fn vectors_encode_and_decode() {
    let mut records = Vec::new();
    for case in cases("ibgib-hashing-1", "cases") {
        // A text with the gib put in as its last member; the other cases have no gib of their own.
        if let (Some(json), Some(gib)) = (case["json"].as_str(), case["expect"]["gib"].as_str()) {
            records.push(format!("{},\"gib\":\"{gib}\"}}", json.strip_suffix('}').unwrap_or(json)));
        }
    }
    let transformed = cases("ibgib-transforms-1", "cases");
    for result in transformed.iter().flat_map(|case| case["expect"]["results"].as_array().cloned().unwrap_or_default())
    {
        let lists = ["dnas", "intermediate"].map(|list| result[list].as_array().cloned().unwrap_or_default());
        let shown = lists.into_iter().flatten().chain([result["new"].clone()]);
        records.extend(shown.filter_map(|shown| shown["json"].as_str().map(str::to_owned)));
    }
    let taken = records.iter().filter(|record| round_trip(record)).count();
    println!("{taken} of {} records pass strict acceptance", records.len());
    assert!(records.is_empty() || taken > 0);
}

/// Whether strict acceptance takes the record; then everything must agree.
fn round_trip(record: &str) -> bool {
    let Ok(Js::Object(record)) = parse(record, Rules::Compat) else { panic!("no object: {record}") };
    let Some(encodable) = Encodable::of(&record) else { return false };
    let Ok(verified) = Verified::accept(encodable.encode().into()) else { return false };
    assert_eq!(verified.sid(), encodable.sid());
    assert_eq!(verified.encoded(), &encodable.encode());
    let made = Verified::make(verified.address().ib(), verified.data(), verified.relations().clone()).unwrap();
    assert_eq!(made.encoded(), verified.encoded());
    let spell = |data: &str, relations: &str| {
        let mut encoder = minicbor::Encoder::new(Vec::new());
        let kind = u8::from(!data.is_empty());
        encoder.array(5).unwrap().str(verified.address().ib()).unwrap().str(verified.address().gib()).unwrap();
        encoder.u8(kind).unwrap().str(data).unwrap().str(relations).unwrap();
        Verified::accept(encoder.into_writer().into())
    };
    let (data, relations) = (verified.data_text().unwrap_or_default(), verified.relations_text());
    assert_eq!(spell(data, relations).as_ref(), Ok(&verified));
    for (has, data, relations) in [
        (!data.is_empty(), format!("{data} "), relations.to_owned()),
        (!relations.is_empty(), data.to_owned(), relations.replacen('{', "{ ", 1)),
    ] {
        assert!(!has || spell(&data, &relations) == Err(Refusal::NotCanonical), "{data} {relations}");
    }
    true
}

fn without(case: &Value, members: &[&str]) -> Value {
    let mut case = case.clone();
    if let Some(object) = case.as_object_mut() {
        object.retain(|name, _| !members.contains(&name.as_str()));
    }
    case
}

// Proves: SY-60
#[test]
fn vectors_text_merge() {
    for case in cases("sealtide-textmerge-1", "cases") {
        let text = |member: &str| case[member].as_str().unwrap();
        let merged = merge_text(text("base"), text("first"), text("second"));
        assert_eq!(json!({"text": merged.text, "conflicts": merged.conflicts}), case["expect"], "{}", case["id"]);
    }
}
