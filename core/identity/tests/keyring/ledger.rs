//! The ledger in the hands of somebody who wants it to say something else.

use data_encoding::BASE64;
use sealtide_crypto::{Seed, SigningKey};
use sealtide_identity::keyring::{
    KeyPolicy, Keyring, KeyringError, LastGood, Ledger, LedgerError, LedgerRecord, LedgerRow, Order,
};
use serde_json::{Value, json};

use super::support::{LEDGER, Rig, at, load, v};

fn busy() -> Rig {
    let mut rig = Rig::new(&[1, 2]);
    rig.rotate(2, at(1)).unwrap();
    rig.order(Order::Rollback, at(2)).unwrap();
    rig.rotate(2, at(3)).unwrap();
    let good = LastGood { registry: "registry^1".into(), channel: "stable".into(), seq: 4, manifest_sha256: [9; 32] };
    rig.order(Order::Compromise(v(1), vec![good]), at(4)).unwrap();
    rig
}

fn open(rig: &Rig, records: &[LedgerRecord]) -> Result<Ledger, LedgerError> {
    Ledger::open(LEDGER, records, rig.node.public())
}

fn reread(record: &LedgerRecord) -> LedgerRecord {
    let text = record.to_value().to_string();
    LedgerRecord::parse(&serde_json::from_str(&text).unwrap()).unwrap()
}

#[test]
fn records_survive_their_text() {
    let rig = busy();
    let again: Vec<LedgerRecord> = rig.records.iter().map(reread).collect();
    assert_eq!(again, rig.records);
    assert_eq!(open(&rig, &again).unwrap().tip().epoch, 5);
}

// Proves: GW-56
#[test]
fn ledger_integrity_a_ledger_that_was_cut_turned_or_taken_from_elsewhere_is_refused() {
    let rig = busy();
    let all = &rig.records;
    assert!(open(&rig, all).is_ok());
    assert_eq!(open(&rig, &[]).unwrap_err(), LedgerError::Empty);
    assert!(matches!(open(&rig, &all[1..]), Err(LedgerError::Chain { .. })));
    let mut swapped = all.clone();
    swapped.swap(2, 3);
    assert!(matches!(open(&rig, &swapped), Err(LedgerError::Chain { .. })));
    let mut gap = all.clone();
    gap.remove(2);
    assert!(matches!(open(&rig, &gap), Err(LedgerError::Chain { .. })));
    let mut twice = all.clone();
    twice.insert(1, all[1].clone());
    assert!(matches!(open(&rig, &twice), Err(LedgerError::Chain { .. })));
    assert!(matches!(Ledger::open("keyring^other", all, rig.node.public()), Err(LedgerError::Chain { .. })));
    let stranger = SigningKey::from_seed(&Seed::from_bytes([8; 32]));
    assert!(matches!(Ledger::open(LEDGER, all, stranger.public()), Err(LedgerError::Chain { .. })));
    // A ledger that ends earlier is whole, but the key file remembers.
    let row = LedgerRow::of(&all[2], "tip", None);
    let opened = Keyring::open(load(&[1, 2]), LEDGER, &all[..3], &row, 5, rig.node.public(), KeyPolicy::default());
    assert_eq!(opened.unwrap_err(), KeyringError::Shortened { found: 3, seen: 5 });
    assert!(Keyring::open(load(&[1, 2]), LEDGER, &all[..3], &row, 3, rig.node.public(), KeyPolicy::default()).is_ok());
}

// Proves: GW-56
#[test]
fn ledger_integrity_two_records_of_one_epoch_do_not_both_fit() {
    let mut rig = Rig::new(&[1, 2, 3]);
    let other = rig.propose(Order::Rotate { to: Some(v(3)), keep_until: None }, at(1)).unwrap().unwrap();
    rig.rotate(2, at(1)).unwrap();
    rig.order(Order::Rollback, at(2)).unwrap();
    let mut forked = rig.records.clone();
    forked[1] = other.record;
    assert!(matches!(open(&rig, &forked), Err(LedgerError::Chain { .. })));
}

// Proves: GW-56
#[test]
fn ledger_integrity_a_row_that_was_edited_is_refused() {
    let rig = busy();
    let good = LedgerRow::of(rig.records.last().unwrap(), "tip", None);
    let open = |row: &LedgerRow| {
        Keyring::open(load(&[1, 2]), LEDGER, &rig.records, row, 5, rig.node.public(), KeyPolicy::default())
    };
    assert!(open(&good).is_ok());
    for bad in [
        LedgerRow { key_version: "1".into(), ..good.clone() },
        LedgerRow { epoch: 4, ..good.clone() },
        LedgerRow { epoch: 6, ..good.clone() },
        LedgerRow { rotation_timestamp: "2023-11-14T22:13:20.001Z".into(), ..good.clone() },
    ] {
        assert_eq!(open(&bad).unwrap_err(), KeyringError::Row, "{bad:?}");
    }
}

/// Every member of a record, changed, and every signature: no change is taken.
// Proves: GW-56
#[test]
fn ledger_integrity_no_member_can_be_changed() {
    let rig = busy();
    let mut tried = 0;
    for at in 0..rig.records.len() {
        let value = rig.records[at].to_value();
        for changed in mutations(&value) {
            let Ok(record) = LedgerRecord::parse(&changed) else {
                tried += 1;
                continue;
            };
            let mut records = rig.records.clone();
            records[at] = record;
            assert!(open(&rig, &records[..=at]).is_err(), "record {at}: {changed}");
            tried += 1;
        }
    }
    println!("{tried} changed records");
    assert!(tried > 100);
}

fn mutations(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    for (name, member) in value.as_object().unwrap() {
        let mut put = |changed: Value| {
            let mut copy = value.clone();
            copy[name] = changed;
            all.push(copy);
        };
        let others = match member {
            Value::Null => vec![json!("x"), json!("1"), json!("00".repeat(32))],
            Value::Bool(it) => vec![json!(!it), json!(0)],
            Value::Number(it) => vec![json!(it.as_u64().unwrap() + 1), json!(0)],
            Value::String(it) => {
                vec![json!(format!("{it}1")), json!("1"), json!("2"), json!("rotate"), json!("recover"), Value::Null]
            }
            Value::Array(it) => vec![json!([]), json!([it, it]), json!(it.iter().rev().collect::<Vec<_>>())],
            _ => vec![json!({}), json!({"v1": "active"}), json!({"v9": 1}), json!({"v2": "soon"})],
        };
        others.into_iter().filter(|other| other != member).for_each(&mut put);
        let mut copy = value.clone();
        copy.as_object_mut().unwrap().shift_remove(name);
        all.push(copy);
    }
    let mut extra = value.clone();
    extra["extra"] = json!(1);
    all.push(extra);
    let signatures = value["signatures"].as_array().unwrap();
    for at in 0..signatures.len() {
        let mut missing = value.clone();
        missing["signatures"].as_array_mut().unwrap().remove(at);
        let mut doubled = value.clone();
        doubled["signatures"].as_array_mut().unwrap().insert(at, signatures[at].clone());
        let mut other = value.clone();
        other["signatures"][at]["alg"] =
            json!(if signatures[at]["alg"] == "Ed25519" { "ML-DSA-87" } else { "Ed25519" });
        let mut broken = value.clone();
        let mut bytes = BASE64.decode(signatures[at]["sig"].as_str().unwrap().as_bytes()).unwrap();
        bytes[20] ^= 1;
        broken["signatures"][at]["sig"] = json!(BASE64.encode(&bytes));
        let mut hmac = value.clone();
        hmac["signatures"][at]["alg"] = json!("HMAC-SHA256");
        all.extend([missing, doubled, other, broken, hmac]);
    }
    if signatures.len() > 2 {
        let mut swapped = value.clone();
        swapped["signatures"].as_array_mut().unwrap().swap(1, 2);
        all.push(swapped);
    }
    all
}

// Proves: GW-56, GW-102
#[test]
fn a_record_of_the_node_alone_is_not_enough() {
    // What somebody could make who holds the node key, but not the pair before: the right bytes, too few signatures.
    let mut rig = Rig::new(&[1, 2]);
    rig.rotate(2, at(1)).unwrap();
    let whole = rig.records[1].to_value();
    assert_eq!(whole["signatures"].as_array().unwrap().len(), 5, "node, v1's pair, v2's pair");
    for keep in [vec![0], vec![0, 1, 2], vec![0, 3, 4], vec![1, 2, 3, 4]] {
        let mut fewer = whole.clone();
        fewer["signatures"] = keep.iter().map(|at| whole["signatures"][*at].clone()).collect();
        let record = LedgerRecord::parse(&fewer).unwrap();
        let records = [rig.records[0].clone(), record];
        assert_eq!(open(&rig, &records).unwrap_err(), LedgerError::Signatures { epoch: 2 }, "{keep:?}");
    }
}

#[test]
fn unreadable_dates_are_over() {
    let mut rig = Rig::new(&[1, 2]);
    rig.rotate(2, at(1)).unwrap();
    let mut value = rig.records[1].to_value();
    for (date, is_over) in
        [(json!("soon"), true), (json!(1.5), true), (json!(-1), true), (json!("2999-01-01T00:00:00Z"), false)]
    {
        value["notAfter"]["v1"] = date;
        let record = LedgerRecord::parse(&value).unwrap();
        // It is not signed; what counts here is only how the date is read.
        assert_eq!(record.not_after(v(1)).unwrap().is_over(at(0).wall_ms), is_over);
    }
}
