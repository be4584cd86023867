//! How a trust follows the ledger of keys.

use sealtide_identity::keyring::{LedgerRecord, Order};
use sealtide_releases::bundle::{Trust, TrustRefused};
use serde_json::{Value, json};

use crate::support::{Publisher, REGISTRY};

/// A publisher that did everything that needs no stolen key.
fn busy() -> Publisher {
    let mut publisher = Publisher::new(&[1, 2, 3]);
    publisher.rotate(2);
    publisher.order(Order::Rollback);
    publisher.rotate(2);
    publisher.rotate(3);
    publisher
}

fn first_trust(publisher: &Publisher) -> Trust {
    Trust::of_publisher(REGISTRY, &publisher.records[0], None).unwrap()
}

fn edited(record: &LedgerRecord, edit: impl Fn(&mut Value)) -> LedgerRecord {
    let mut value = record.to_value();
    edit(&mut value);
    LedgerRecord::parse(&value).unwrap()
}

// Proves: GW-106
#[test]
fn trust_chain() {
    let publisher = busy();
    let records = &publisher.records;
    let mut trust = first_trust(&publisher);
    assert_eq!(trust.follow(records), Ok(4));
    assert_eq!(trust.epoch(), 5);
    assert_eq!(trust.follow(records), Ok(0), "again");
    let text = trust.to_value().to_string();
    assert_eq!(Trust::parse(text.as_bytes()).unwrap(), trust, "what was learned is kept");

    // One by one is the same.
    let mut slowly = first_trust(&publisher);
    for record in records {
        slowly.follow(std::slice::from_ref(record)).unwrap();
    }
    assert_eq!(slowly, trust);

    // A trust file of today follows from today; earlier records tell it nothing.
    let mut late = publisher.trust();
    assert_eq!((late.epoch(), late.follow(records)), (5, Ok(0)));
    assert_eq!(late.active(), trust.active());

    let mut skipping = first_trust(&publisher);
    assert_eq!(skipping.follow(&records[2..]), Err(TrustRefused::Gap { trusted: 1, found: 3 }));
    let mut turned = first_trust(&publisher);
    let order = [records[0].clone(), records[2].clone(), records[1].clone()];
    assert_eq!(turned.follow(&order), Err(TrustRefused::Gap { trusted: 1, found: 3 }));
}

// Proves: GW-106
#[test]
fn a_record_that_one_pair_alone_signed_is_refused() {
    let publisher = busy();
    // Rotation v1 → v2: node, ML-DSA and Ed25519 of v1, of v2.
    let rotation = &publisher.records[1];
    assert_eq!(rotation.signatures.len(), 5);
    for missing in 1..5 {
        let odd = edited(rotation, |value| drop(value["signatures"].as_array_mut().unwrap().remove(missing)));
        let mut trust = first_trust(&publisher);
        let refused = trust.follow(&[publisher.records[0].clone(), odd]);
        assert!(matches!(refused, Err(TrustRefused::Signature { epoch: 2, .. })), "{missing}: {refused:?}");
        assert_eq!(trust.epoch(), 1);
    }
    // The node's own signature is for the node.
    let without_node = edited(rotation, |value| drop(value["signatures"].as_array_mut().unwrap().remove(0)));
    assert_eq!(first_trust(&publisher).follow(&[publisher.records[0].clone(), without_node]), Ok(1));
    // Any member that is changed breaks the signatures, or the chain.
    for member in ["rotationTimestamp", "by", "reason", "prev"] {
        let odd = edited(rotation, |value| {
            value[member] = match member {
                "rotationTimestamp" => json!("2000-01-01T00:00:00.000Z"),
                "prev" => json!("00".repeat(32)),
                _ => json!("somebody"),
            };
        });
        assert!(first_trust(&publisher).follow(&[publisher.records[0].clone(), odd]).is_err(), "{member}");
    }
}

// Proves: GW-106
#[test]
fn a_fork_stops_everything() {
    let mut publisher = Publisher::new(&[1, 2, 3]);
    publisher.rotate(2);
    let mut trust = first_trust(&publisher);
    trust.follow(&publisher.records).unwrap();
    // The same keys, and another history.
    let mut twin = Publisher::new(&[1, 2, 3]);
    twin.now += 1;
    twin.rotate(3);
    twin.order(Order::Rollback);
    let unsigned = edited(&twin.records[1], |value| value["by"] = json!("nobody"));
    assert!(matches!(trust.follow(&[unsigned]), Err(TrustRefused::Signature { .. })), "anybody can write this");
    assert_eq!(trust.fork(), None);
    let Err(TrustRefused::Forked(fork)) = trust.follow(&twin.records) else { panic!("not noticed") };
    assert_eq!((fork.epoch, fork.followed, fork.other), (2, publisher.records[1].hash(), twin.records[1].hash()));
    // Nothing newer is taken, of either; and that is remembered.
    publisher.rotate(3);
    let mut kept = Trust::parse(trust.to_value().to_string().as_bytes()).unwrap();
    assert_eq!(kept, trust);
    assert_eq!(kept.follow(&publisher.records), Err(TrustRefused::Forked(fork)));
    assert_eq!(kept.epoch(), 2);
}

// Proves: GW-106
#[test]
fn another_publisher_is_not_followed() {
    let publisher = Publisher::new(&[1, 2]);
    let mut other = Publisher::seeded(&[1, 2], 100);
    other.rotate(2);
    let mut trust = first_trust(&publisher);
    assert_eq!(trust.follow(&other.records), Err(TrustRefused::Chain(1)));
    let refused = trust.follow(&other.records[1..]);
    assert!(matches!(refused, Err(TrustRefused::Signature { epoch: 2, .. })), "{refused:?}");
}

#[test]
fn trust_files_are_read_strictly() {
    let value = Publisher::new(&[1, 2]).trust().to_value();
    let refused = |edit: &dyn Fn(&mut Value)| {
        let mut odd = value.clone();
        edit(&mut odd);
        match Trust::parse(odd.to_string().as_bytes()) {
            Err(TrustRefused::File(why)) => Some(why),
            _ => None,
        }
    };
    assert_eq!(refused(&|_| ()), None);
    assert_eq!(refused(&|odd| odd["schema"] = json!("sealtide/trust/2")), Some("schema"));
    assert_eq!(refused(&|odd| odd["epoch"] = json!(0)), Some("epoch"));
    assert_eq!(refused(&|odd| odd["more"] = json!(1)), Some("an unknown member"));
    assert_eq!(refused(&|odd| odd["keys"].as_array_mut().unwrap().reverse()), Some("keys"));
    assert_eq!(refused(&|odd| drop(odd["keys"].as_array_mut().unwrap().pop())), Some("keys"));
    assert_eq!(refused(&|odd| odd["keys"][0]["kid"] = json!("0".repeat(16))), Some("keys"));
    assert_eq!(refused(&|odd| odd["keys"][1]["alg"] = json!("HMAC-SHA256")), Some("keys"));
    assert_eq!(refused(&|odd| odd["root"] = json!(1)), Some("root"));
    assert_eq!(refused(&|odd| odd["learned"] = json!({})), Some("learned"));
    assert!(Trust::parse(b"{").is_err() && Trust::parse(&vec![b' '; 9 << 20]).is_err());
}
