//! Known answers that the binary made: files of format `sealtide-recovery-1` in the folder `releases` of `SEALTIDE_VECTORS`, else of
//! `vectors/`. `web/verify` reads the same ones.

use std::path::PathBuf;

use bytes::Bytes;
use data_encoding::BASE64;
use sealtide_ibgib::Verified;
use sealtide_identity::keyring::LedgerRecord;
use sealtide_releases::bundle::{BundleHead, ChannelHead, ReleaseRefused, Signed, Trust, TrustRefused};
use serde_json::{Value, json};

fn files() -> Vec<Value> {
    let default = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors"));
    #[expect(clippy::disallowed_methods, reason = "a test reads its vectors from disk")]
    let other = std::env::var("SEALTIDE_VECTORS").ok();
    let is_other = other.is_some();
    let folder = other.map_or(default, PathBuf::from).join("releases");
    let entries = std::fs::read_dir(&folder).into_iter().flatten();
    let files =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|it| it == "json"));
    let values = files.map(|path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).unwrap()).unwrap());
    let found: Vec<Value> = values.filter(|value| value["format"] == "sealtide-recovery-1").collect();
    println!("{} files of format sealtide-recovery-1 in {}", found.len(), folder.display());
    assert!(is_other || !found.is_empty(), "the repository has one");
    found
}

fn bytes(text: &Value) -> Vec<u8> {
    BASE64.decode(text.as_str().unwrap().as_bytes()).unwrap()
}

/// The items of a list that are named by number.
fn picked<T: Clone>(all: &[T], numbers: &Value) -> Vec<T> {
    let numbers = numbers.as_array().unwrap().iter().map(|number| number.as_u64().unwrap());
    numbers.map(|number| all[usize::try_from(number).unwrap()].clone()).collect()
}

/// The trust file of before, with another root where one is named; null leaves it out.
fn trust(file: &Value, root: Option<&Value>) -> Trust {
    let mut value = file["trust"].clone();
    match root {
        None => {}
        Some(Value::Null) => drop(value.as_object_mut().unwrap().remove("root")),
        Some(root) => value["root"] = root.clone(),
    }
    Trust::parse(value.to_string().as_bytes()).unwrap()
}

// Proves: GW-106
#[test]
fn who_follows_a_replaced_key() {
    for file in files() {
        let records = file["records"].as_array().unwrap().iter().map(|value| LedgerRecord::parse(value).unwrap());
        let frames =
            file["frames"].as_array().unwrap().iter().map(|text| Verified::accept(Bytes::from(bytes(text))).unwrap());
        let (records, frames): (Vec<_>, Vec<_>) = (records.collect(), frames.collect());
        let cases = file["cases"].as_array().unwrap();
        for case in cases {
            let name = &case["name"];
            let mut trust = trust(&file, case.get("root"));
            let mut done = Ok(0);
            for step in case["steps"].as_array().unwrap() {
                assert!(done.is_ok(), "{name}: {done:?}");
                done = trust.follow_proven(&picked(&records, &step["records"]), &picked(&frames, &step["frames"]));
            }
            let recovered = trust.recovered().map(|it| [it.epoch, it.frame]);
            let found = json!({ "epoch": trust.epoch(), "recovered": recovered, "refused": done.is_err() });
            assert_eq!(found, case["expect"], "{name}: {done:?}");
            assert_eq!(Trust::parse(trust.to_value().to_string().as_bytes()).unwrap(), trust, "{name}");
        }
        println!("{} cases", cases.len());
        assert!(!cases.is_empty());
    }
}

// Proves: GW-106
#[test]
fn bundles_and_heads_of_before_and_after() {
    for file in files() {
        let now = file["now_ms"].as_u64().unwrap();
        let bundle = |name: &str| {
            let pieces = file["bundles"][name].as_array().unwrap().iter();
            let frame = |piece: &Value| piece.as_u64().map(|number| &file["frames"][usize::try_from(number).unwrap()]);
            let bytes: Vec<u8> = pieces.flat_map(|piece| bytes(frame(piece).unwrap_or(piece))).collect();
            BundleHead::read(&bytes).unwrap().0
        };
        let head = |name: &str| Signed::<ChannelHead>::from_value(&file["heads"][name]).unwrap();
        let (before, after) = (bundle("before"), bundle("after"));
        let mut first = trust(&file, None);
        first.follow_proven(&before.chain, &before.proof).unwrap();
        assert!(first.manifest(&before.manifest, &[], now).is_ok() && first.head(&head("before"), now).is_ok());
        assert!(matches!(first.head(&head("after"), now), Err(ReleaseRefused::UnknownKey(_))));
        for mut trust in [first, trust(&file, None)] {
            trust.follow_proven(&after.chain, &after.proof).unwrap();
            assert!(trust.manifest(&after.manifest, &[], now).is_ok() && trust.head(&head("after"), now).is_ok());
            assert!(matches!(trust.head(&head("before"), now), Err(ReleaseRefused::HeadRetired)));
            assert!(trust.manifest(&before.manifest, &[], now).is_ok());
        }
        let mut rootless = trust(&file, Some(&Value::Null));
        assert_eq!(rootless.follow_proven(&after.chain, &after.proof), Err(TrustRefused::NoRoot(2)));
    }
}
