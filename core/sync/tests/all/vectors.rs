//! Shared test vectors: `sealtide-reconcile-1` (fingerprints and sessions) and `sealtide-digest-1`.

#![allow(clippy::disallowed_methods, reason = "vector files are read from disk")]

use std::collections::BTreeSet;
use std::path::PathBuf;

use negentropy::{Id, Negentropy, NegentropyStorageVector, Storage};
use sealtide_crypto::sha256;
use sealtide_sync::SetSummary;
use sealtide_sync::negentropy::{Difference, Run, Splitter, fingerprint};
use serde_json::Value;

type Item = (u64, [u8; 32]);

/// Every file of this format. The repository has one of each; another folder may lack some.
fn files(format: &str) -> Vec<Value> {
    let other = std::env::var("SEALTIDE_VECTORS").ok();
    let may_lack = other.is_some();
    let folder = other.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors").to_owned());
    let folder = PathBuf::from(folder).join("ibgib");
    let paths = std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| -> Value {
        let text = std::fs::read(&path).unwrap();
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let json = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let found: Vec<Value> = json.map(read).filter(|value| value["format"] == format).collect();
    assert!(may_lack || !found.is_empty(), "no file of format {format} in {}", folder.display());
    found
}

/// What such a list of every file of a format holds.
fn cases(format: &str, member: &str) -> Vec<Value> {
    let all = files(format);
    let cases: Vec<Value> = all.iter().flat_map(|file| file[member].as_array().cloned().unwrap()).collect();
    assert!(!cases.is_empty() || all.is_empty(), "no {member} of format {format}");
    cases
}

#[test]
fn vectors_are_there() {
    let known = ["sealtide-reconcile-1", "sealtide-digest-1"];
    let absent: Vec<_> = known.into_iter().filter(|format| files(format).is_empty()).collect();
    absent.iter().for_each(|format| println!("no vectors of format {format}: skipped"));
    assert!(absent.len() < known.len(), "no vectors of any format this crate knows");
}

/// `tag:n:from`. Spec: vectors/ibgib/README.md
fn list(names: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    for name in names.as_array().unwrap() {
        let mut parts = name.as_str().unwrap().split(':');
        let tag = parts.next().unwrap();
        let [count, from] = [(); 2].map(|()| parts.next().unwrap().parse::<u64>().unwrap());
        items.extend((from..from + count).map(|number| {
            let id = sha256(format!("{tag}:{number}").as_bytes());
            (u64::from(u32::from_be_bytes([id[0], id[1], id[2], id[3]]) % 1000), id)
        }));
    }
    items
}

fn unhex(text: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_str().unwrap().as_bytes()).unwrap()
}

fn ids(list: &Value) -> BTreeSet<[u8; 32]> {
    list.as_array().unwrap().iter().map(|id| unhex(id).try_into().unwrap()).collect()
}

// Proves: SY-39
#[test]
fn vectors_fingerprints() {
    for case in cases("sealtide-reconcile-1", "fingerprints") {
        let mut summary = SetSummary::default();
        list(&case["list"]).iter().for_each(|(_, id)| summary.add(id));
        assert_eq!(fingerprint(&summary.sum, summary.count)[..], unhex(&case["fingerprint"])[..], "{}", case["list"]);
    }
}

fn check(found: &BTreeSet<[u8; 32]>, expect: &Value, name: &str, session: &Value) {
    assert_eq!(found.len() as u64, expect[format!("{name}_count")].as_u64().unwrap(), "{}", session["id"]);
    let digest = sha256(&found.iter().flatten().copied().collect::<Vec<u8>>());
    assert_eq!(digest[..], unhex(&expect[format!("{name}_sha256")])[..], "{}", session["id"]);
    if !expect[name].is_null() {
        assert_eq!(*found, ids(&expect[name]), "{}", session["id"]);
    }
}

// Proves: SY-39
#[test]
fn vectors_sessions() {
    for session in &cases("sealtide-reconcile-1", "sessions") {
        let (client, server) = (Run::new(list(&session["client"])), Run::new(list(&session["server"])));
        let expect = &session["expect"];
        let difference = ours(&client, &server);
        check(&difference.have, expect, "have", session);
        check(&difference.need, expect, "need", session);
        // Each side must be able to answer the reference's messages.
        for (place, message) in expect["messages"].as_array().into_iter().flatten().enumerate() {
            let Some(text) = message.as_str().filter(|text| text.len() % 2 == 0) else { continue };
            let Ok(bytes) = data_encoding::HEXLOWER.decode(text.as_bytes()) else { continue };
            if place % 2 == 0 {
                Splitter::default().server(&server, &bytes).unwrap();
            } else {
                Splitter::default().client(&client, &bytes, &mut Difference::default(), u64::MAX).unwrap();
            }
        }
    }
}

fn ours(client: &Run, server: &Run) -> Difference {
    let (splitter, mut difference) = (Splitter::default(), Difference::default());
    let mut message = Some(splitter.initiate(client));
    while let Some(query) = message {
        let answer = splitter.server(server, &query).unwrap();
        message = splitter.client(client, &answer, &mut difference, u64::MAX).unwrap();
    }
    difference
}

fn storage(items: &[Item]) -> NegentropyStorageVector {
    let mut storage = NegentropyStorageVector::new();
    items.iter().for_each(|(order, id)| storage.insert(*order, Id::from_byte_array(*id)).unwrap());
    storage.seal().unwrap();
    storage
}

/// The foreign implementation as server, then as client.
fn with_oracle(client: &[Item], server: &[Item], limit: u64) -> [Difference; 2] {
    let foreign = storage(server);
    let mut oracle = Negentropy::new(Storage::Borrowed(&foreign), limit).unwrap();
    let (splitter, run, mut first) = (Splitter::default(), Run::new(client.to_vec()), Difference::default());
    let mut message = Some(splitter.initiate(&run));
    while let Some(query) = message {
        let answer = oracle.reconcile(&query).unwrap();
        message = splitter.client(&run, &answer, &mut first, u64::MAX).unwrap();
    }
    let foreign = storage(client);
    let mut oracle = Negentropy::new(Storage::Borrowed(&foreign), limit).unwrap();
    let run = Run::new(server.to_vec());
    let (mut have, mut need) = (Vec::new(), Vec::new());
    let mut message = Some(oracle.initiate().unwrap());
    while let Some(query) = message {
        let answer = splitter.server(&run, &query).unwrap();
        message = oracle.reconcile_with_ids(&answer, &mut have, &mut need).unwrap();
    }
    let set = |ids: Vec<Id>| ids.into_iter().map(Id::to_bytes).collect();
    [first, Difference { have: set(have), need: set(need) }]
}

// Proves: SY-39
#[test]
fn the_foreign_implementation_agrees_in_both_roles() {
    let scale = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases: 200 * scale,
        failure_persistence: None,
        ..Default::default()
    });
    let parts = (0u32..400, 0u32..200, 0u32..200, 1u64..60, proptest::bool::ANY);
    let result = runner.run(&parts, |(common, left, right, orders, small)| {
        let item = |number: u32| {
            let id = sha256(&number.to_be_bytes());
            (u64::from(id[0]) % orders, id)
        };
        let client: Vec<_> = (0..common + left).map(item).collect();
        let server: Vec<_> = (0..common).chain(common + left..common + left + right).map(item).collect();
        let have: BTreeSet<_> = client[common as usize..].iter().map(|(_, id)| *id).collect();
        let need: BTreeSet<_> = server[common as usize..].iter().map(|(_, id)| *id).collect();
        for difference in with_oracle(&client, &server, if small { 4096 } else { 0 }) {
            proptest::prop_assert_eq!(&difference.have, &have);
            proptest::prop_assert_eq!(&difference.need, &need);
        }
        Ok(())
    });
    result.unwrap();
}

// Proves: SY-93
#[test]
fn vectors_set_digest() {
    for case in cases("sealtide-digest-1", "sets") {
        let mut summary = SetSummary::default();
        let items = list(&case["add"]);
        items.iter().for_each(|(_, id)| summary.add(id));
        list(&case["remove"]).iter().for_each(|(_, id)| summary.sub(id));
        let what = &case["add"];
        assert_eq!(summary.count, case["count"].as_u64().unwrap(), "{what}");
        assert_eq!(summary.sum.0[..], unhex(&case["sum"])[..], "{what}");
        assert_eq!(summary.lanes.to_bytes()[..16], unhex(&case["first_lanes"])[..], "{what}");
        assert_eq!(summary.lanes.digest()[..], unhex(&case["digest"])[..], "{what}");
    }
}

/// Bytes and rounds of one reconciliation.
#[derive(Debug, Default)]
struct Talk {
    bytes: usize,
    rounds: usize,
}

/// Cutting by key costs about what cutting by rank does, with items spread evenly as order keys are.
// Proves: SY-41
#[test]
fn as_short_as_the_foreign_implementation() {
    let scale = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let item = |number: u32| {
        let id = sha256(&number.to_be_bytes());
        (u64::from_be_bytes(id[8..16].try_into().unwrap()) >> 1, id)
    };
    let (common, own) = (20_000 * scale, 100 * scale);
    let client: Vec<_> = (0..common + own).map(item).collect();
    let server: Vec<_> = (0..common).chain(common + own..common + 2 * own).map(item).collect();
    let (runs, splitter) = ((Run::new(client.clone()), Run::new(server.clone())), Splitter::default());
    let (mut ours, mut theirs, mut difference) = (Talk::default(), Talk::default(), Difference::default());
    let mut message = Some(splitter.initiate(&runs.0));
    while let Some(query) = message {
        let answer = splitter.server(&runs.1, &query).unwrap();
        ours = Talk { bytes: ours.bytes + query.len() + answer.len(), rounds: ours.rounds + 1 };
        message = splitter.client(&runs.0, &answer, &mut difference, u64::MAX).unwrap();
    }
    assert_eq!([difference.have.len(), difference.need.len()], [own as usize; 2]);
    let stored = (storage(&client), storage(&server));
    let mut asks = Negentropy::new(Storage::Borrowed(&stored.0), 1_000_000).unwrap();
    let mut answers = Negentropy::new(Storage::Borrowed(&stored.1), 1_000_000).unwrap();
    let mut message = Some(asks.initiate().unwrap());
    while let Some(query) = message {
        let answer = answers.reconcile(&query).unwrap();
        theirs = Talk { bytes: theirs.bytes + query.len() + answer.len(), rounds: theirs.rounds + 1 };
        message = asks.reconcile_with_ids(&answer, &mut Vec::new(), &mut Vec::new()).unwrap();
    }
    println!("{common} items, {} differences: ours {ours:?}, the crate {theirs:?}", 2 * own);
    assert!(ours.bytes <= theirs.bytes * 5 / 4 && ours.rounds <= theirs.rounds, "{ours:?}, the crate {theirs:?}");
}
