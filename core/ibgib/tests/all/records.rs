//! Records made here are accepted everywhere, and their forms agree. Spec: ibgib §12.2.

use bytes::Bytes;
use sealtide_ibgib::{Address, Data, Relations, Verified};
use serde_json::json;

fn relations(lists: &[(&str, &[&str])]) -> Relations {
    let address = |text: &&str| Address::parse(text).unwrap();
    lists.iter().map(|(name, list)| ((*name).to_owned(), list.iter().map(address).collect())).collect()
}

fn check(record: &Verified) {
    let accepted = Verified::accept(record.encoded().clone()).unwrap();
    let trusted = Verified::from_own_log(record.encoded().clone()).unwrap();
    for other in [&accepted, &trusted] {
        assert_eq!(other.sid(), record.sid());
        assert_eq!(other.address(), record.address());
        assert_eq!(other.relations(), record.relations());
        assert_eq!(other.frame(), record.frame());
        assert_eq!(other.data(), record.data());
        assert_eq!(other.order_key(), record.order_key());
    }
}

// Proves: SY-94
#[test]
fn made_records_are_accepted() {
    let first = Verified::make(
        "note",
        Data::Json(json!({"isTjp": true, "n": 0, "uuid": "u", "timestamp": "Tue, 14 Nov 2023 22:13:20 GMT", "timestampMs": 123, "10": 1, "9": [{"b": 1, "a": 2}]})),
        relations(&[("ancestor", &["note^gib"])]),
    )
    .unwrap();
    check(&first);
    let facts = first.frame().unwrap();
    assert_eq!((facts.n, &facts.tjp, facts.stamp.unwrap().ms), (0, first.address(), 1_700_000_000_123));
    assert!(facts.past.is_empty());

    let tjp = first.address().as_str();
    let next = Verified::make(
        "note",
        Data::Json(json!({"n": 1})),
        relations(&[("past", &[tjp]), ("tjp", &[tjp]), ("x", &["a^gib"]), ("empty", &[])]),
    )
    .unwrap();
    check(&next);
    let facts = next.frame().unwrap();
    assert_eq!((facts.n, &facts.tjp, facts.past.len(), facts.stamp), (1, first.address(), 1, None));
    assert_eq!(facts.timeline, first.frame().unwrap().timeline);
    assert_eq!(next.order_key(), first.order_key());
    assert_eq!(next.links(), vec![first.address().clone()]);
    assert!(next.address().gib().ends_with(first.address().gib()));

    let stone = Verified::make("raw", Data::Bytes(Bytes::from_static(b"\x00\x01")), Relations::new()).unwrap();
    check(&stone);
    assert_eq!(stone.frame(), None);
    assert_eq!(stone.to_json()["data_base64"], json!("AAE="));
    for nothing in [Data::None, Data::Json(json!({})), Data::Json(json!(null)), Data::Json(json!(0))] {
        let empty = Verified::make("e", nothing, Relations::new()).unwrap();
        check(&empty);
        assert_eq!(empty.data(), Data::None);
    }
}
