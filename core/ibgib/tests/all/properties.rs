//! Property tests: the twins of the fuzz targets, and a corpus that is replayed.

#![allow(clippy::print_stdout, reason = "a test fails by panicking and says what it ran")]

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::select;
use sealtide_ibgib::hash::{gib_of, sha256v1};
use sealtide_ibgib::json::{Js, Rules, parse, write};
use sealtide_ibgib::record::Encodable;
use sealtide_ibgib::{fuzzing, plumbing};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases: cases * crate::support::scale(), failure_persistence: None, ..ProptestConfig::default() }
}

const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Scalars that are or once were trouble.
fn scalar() -> impl Strategy<Value = String> {
    let odd = [
        "0",
        "-0",
        "1",
        "1.0",
        "1e21",
        "1e400",
        "1e-7",
        "0.1",
        "9007199254740993",
        "null",
        "true",
        "false",
        "\"\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"\\u001f\"",
        "\"\\/\"",
        "\"a^gib\"",
        "\"ib^gib\"",
        "\"x^\"",
        "{}",
        "[]",
        "{\"$u\":1}",
        "{\"$n\":\"NaN\"}",
        "{\"$b\":\"00ff\"}",
        "\"Tue, 14 Nov 2023 22:13:20 GMT\"",
    ];
    prop_oneof![
        select(odd.map(str::to_owned).to_vec()),
        any::<f64>().prop_map(|number| write(&Js::Number(number)).unwrap()),
        any::<String>().prop_map(|text| write(&Js::text(text)).unwrap()),
        Just(format!("\"x^{HASH}\"")),
        Just(format!("\"x^{HASH}.{HASH}\"")),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known = [
        "ib",
        "gib",
        "data",
        "rel8ns",
        "isTjp",
        "n",
        "tjp",
        "past",
        "ancestor",
        "dna",
        "length",
        "timestamp",
        "timestampMs",
        "__proto__",
        "constructor",
        "0",
        "9",
        "10",
        "01",
        "4294967294",
        "4294967295",
        "src",
        "srcAddr",
        "a",
        "b",
    ];
    prop_oneof![8 => select(known.map(str::to_owned).to_vec()), 1 => any::<String>()]
        .prop_map(|key| write(&Js::text(key)).unwrap())
}

fn json_text() -> impl Strategy<Value = String> {
    scalar().prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|list| format!("[{}]", list.join(","))),
            prop::collection::vec((key(), inner), 0..6).prop_map(|members| {
                let members: Vec<String> = members.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

fn list_of_addresses() -> impl Strategy<Value = String> {
    let address = select(vec![
        "\"a^gib\"".to_owned(),
        format!("\"x^{HASH}\""),
        format!("\"x^{HASH}.{HASH}\""),
        "\"broken\"".to_owned(),
    ]);
    prop::collection::vec(address, 0..4).prop_map(|list| format!("[{}]", list.join(",")))
}

/// Record texts that are nearly right, so that many pass.
fn record_text() -> impl Strategy<Value = String> {
    let relation = select(vec!["tjp", "past", "ancestor", "x", "9", "page"]);
    let relations = prop::collection::btree_map(relation, list_of_addresses(), 0..4);
    let ib = select(vec!["x", "note 1", "bin a ", "binpage", "é", "fork"]);
    (ib, json_text(), relations, any::<bool>(), 0u32..4).prop_map(|(ib, data, relations, is_tjp, n)| {
        let relations: Vec<String> = relations.iter().map(|(name, list)| format!("\"{name}\":{list}")).collect();
        let data = match n {
            0 => data,
            _ => format!("{{\"n\":{n},\"isTjp\":{is_tjp},\"inner\":{data}}}"),
        };
        format!("{{\"ib\":\"{ib}\",\"data\":{data},\"rel8ns\":{{{}}}}}", relations.join(","))
    })
}

/// The encoding of a record text with its right gib, then a few bytes changed.
fn encoding() -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (record_text(), edits, any::<bool>()).prop_map(|(text, edits, damage)| {
        let Ok(Js::Object(mut record)) = parse(&text, Rules::Compat) else { return text.into_bytes() };
        let gib = gib_of(&record, false).unwrap_or_else(|_| sha256v1(&record, "").hash);
        record.set("gib", Js::text(gib));
        let mut bytes = Encodable::of(&record).map(|record| record.encode()).unwrap_or_default();
        let damage = damage && !bytes.is_empty();
        for (at, byte) in edits.into_iter().filter(|_| damage) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn damaged(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let edits =
        prop::collection::vec((any::<prop::sample::Index>(), select(b"{}[]\",:\\u0e-. \x00\xff".to_vec())), 0..3);
    (text, edits).prop_map(|(text, edits)| {
        let mut bytes = text.into_bytes();
        let empty = bytes.is_empty();
        for (at, byte) in edits.into_iter().filter(|_| !empty) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

/// One transform step with options of every kind.
fn step() -> impl Strategy<Value = String> {
    let option = select(vec![
        "type",
        "destIb",
        "uuid",
        "tjp",
        "cloneRel8ns",
        "cloneData",
        "nCounter",
        "dna",
        "linkedRel8ns",
        "noTimestamp",
        "dataToRename",
        "dataToRemove",
        "dataToAddOrPatch",
        "mut8Ib",
        "srcAddr",
        "rel8nsToAddByAddr",
        "rel8nsToRemoveByAddr",
        "ib",
        "data",
        "rel8ns",
    ]);
    let value = prop_oneof![
        4 => json_text(),
        2 => Just("true".to_owned()),
        1 => Just("[\"past\",\"dna\",\"x\",\"ancestor\"]".to_owned()),
        2 => list_of_addresses().prop_map(|list| format!("{{\"x\":{list},\"y\":{list}}}")),
    ];
    let op = select(vec!["fork", "mut8", "rel8", "firstGen"]);
    let options = prop::collection::btree_map(option, value, 0..6);
    (op, record_text(), options, any::<u64>(), any::<bool>()).prop_map(|(op, src, options, clock, gib)| {
        let options: Vec<String> = options.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        let gib = if gib { format!("\"gib\":\"{HASH}\"") } else { "\"gib\":\"gib\"".to_owned() };
        let src = write(&Js::text(src.replacen('{', &format!("{{{gib},"), 1))).unwrap();
        let opts = options.join(",");
        format!("{{\"op\":\"{op}\",\"src\":{src},\"opts\":{{{opts}}},\"clock_ms\":{clock}}}")
    })
}

proptest! {
    #![proptest_config(config(20_000))]

    // Proves: SY-10
    #[test]
    fn fuzz_twin_record_nearly_right(bytes in encoding()) {
        fuzzing::record(&bytes);
    }

    // Proves: SY-10
    #[test]
    fn fuzz_twin_record_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzzing::record(&bytes);
    }

    // Proves: SY-10, SY-3
    #[test]
    fn fuzz_twin_json_grammar(text in json_text()) {
        fuzzing::json(text.as_bytes());
    }

    // Proves: SY-10
    #[test]
    fn fuzz_twin_json_damaged(bytes in damaged(record_text())) {
        fuzzing::json(&bytes);
    }
}

proptest! {
    #![proptest_config(config(20_000))]

    // Proves: SY-10, SY-7: a transform answers with a record that validates, or with an error and nothing else.
    #[test]
    fn fuzz_twin_transforms(case in step()) {
        let Ok(Js::Object(answer)) = parse(&plumbing::run("", &case), Rules::Compat) else { panic!("no answer") };
        match answer.named("error") {
            Js::Undefined => {
                prop_assert!(answer.named("new").as_object().is_some());
                prop_assert!(matches!(answer.named("intrinsic_valid"), Js::Bool(_)));
            }
            error => {
                prop_assert!(*error != Js::text("bad_case"), "{}", case);
                prop_assert_eq!(answer.len(), 1);
            }
        }
    }

    // Proves: SY-10
    #[test]
    fn fuzz_twin_cases(text in json_text()) {
        fuzzing::case(&text);
    }
}

proptest! {
    #![proptest_config(config(2_000))]

    // Writing a record and reading it again changes neither its hash nor its encoding.
    #[test]
    fn record_texts_survive_encoding(text in record_text()) {
        let Ok(Js::Object(mut record)) = parse(&text, Rules::Compat) else { return Ok(()) };
        // An infinity as the whole data counts as data, and is `null` once it is written: JavaScript's own loss.
        prop_assume!(!matches!(record.named("data"), Js::Number(number) if number.is_infinite()));
        let Ok(gib) = gib_of(&record, false) else { return Ok(()) };
        record.set("gib", Js::text(gib));
        let written = write(&Js::Object(record.clone())).unwrap();
        let Ok(Js::Object(again)) = parse(&written, Rules::Compat) else { panic!("written {written}") };
        prop_assert_eq!(sha256v1(&again, "").hash, sha256v1(&record, "").hash);
        prop_assert_eq!(Encodable::of(&again), Encodable::of(&record));
    }
}

#[expect(clippy::disallowed_methods, reason = "a test reads its corpus from disk")]
fn read(path: PathBuf) -> std::io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// Every file of the committed corpus through every body. A saved crash becomes a file there.
// Proves: SY-10
#[test]
fn corpus_is_replayed() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus"));
    let mut count = 0;
    for target in ["record", "json"] {
        for entry in std::fs::read_dir(folder.join(target)).unwrap() {
            let bytes = read(entry.unwrap().path()).unwrap();
            fuzzing::record(&bytes);
            fuzzing::json(&bytes);
            if let Ok(text) = std::str::from_utf8(&bytes) {
                fuzzing::case(text);
            }
            count += 1;
        }
    }
    println!("replayed {count} inputs");
    assert!(count >= 10, "the corpus is gone");
}
