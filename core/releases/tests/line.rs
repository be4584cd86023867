//! Which frames of a registry count for those who did not write it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use sealtide_crypto::{Ed25519PublicKey, GatewayContext};
use sealtide_ibgib::Object;
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{KeySecret, KeyVersion, VersionKeys};
use sealtide_releases::{LineRefused, Registry, RegistryFrame, Standing, Writer};
use serde_json::json;

/// A node with one key.
struct Someone {
    writer: Writer,
    keys: VersionKeys,
}

impl Someone {
    fn new(number: u8) -> Self {
        let secret = KeySecret::from_text(format!("{number:02x}").repeat(32).as_bytes()).unwrap();
        let writer = Writer { node: NodeId::from_bytes([number; 32]), ledger: format!("keyring^{number}") };
        Self { writer, keys: VersionKeys::derive(KeyVersion::V1, secret) }
    }

    fn public(&self) -> Ed25519PublicKey {
        Ed25519PublicKey::parse(&self.keys.public_keys()[1].public_key).unwrap()
    }

    /// A frame that this node signs and that names `next`.
    fn frame(&self, registry: &Registry, next: &Writer) -> Object {
        let envelope = registry.envelope("default", &next.node.to_string(), &next.ledger).unwrap();
        let entities: serde_json::Value = serde_json::from_str(&registry.text()).unwrap();
        let data = json!({
            "app": "default", "writer": next.node.to_string(), "ledger": next.ledger, "revision": registry.revision(),
            "entities": entities, "signedBy": "v1",
            "registrySignature": self.keys.ed25519(GatewayContext::Registry, envelope.as_bytes()),
        });
        data.as_object().unwrap().clone()
    }
}

fn key_of<'a>(all: &'a [&'a Someone]) -> impl Fn(&Writer, KeyVersion) -> Option<Ed25519PublicKey> + 'a {
    |writer, version| {
        let one = all.iter().find(|one| one.writer == *writer).filter(|_| version == KeyVersion::V1);
        one.map(|one| one.public())
    }
}

// Proves: GW-108
#[test]
fn one_writer_and_whoever_it_names_next() {
    let (a, b, c) = (Someone::new(1), Someone::new(2), Someone::new(3));
    let all = [&a, &b, &c];
    let first = Registry::sample();
    let second = first.with_versions(&[("api:sample".to_owned(), "1.0.1".to_owned())]).unwrap();
    let third = second.with_versions(&[]).unwrap();
    let read = |data: &Object| RegistryFrame::read(data).unwrap();
    let begun = read(&a.frame(&first, &a.writer)).begin(key_of(&all)).unwrap();
    assert_eq!(begun, Standing { app: "default".to_owned(), writer: a.writer.clone(), revision: 1 });

    // Somebody else signs; signs and names itself; signs in the name of the writer.
    for foreign in [b.frame(&second, &a.writer), b.frame(&second, &b.writer)] {
        assert_eq!(read(&foreign).after(&begun, key_of(&all)), Err(LineRefused::Signature));
    }
    assert_eq!(read(&a.frame(&second, &a.writer)).after(&begun, key_of(&[&b])), Err(LineRefused::Key(KeyVersion::V1)));
    // The right writer at a wrong place.
    for wrong in [&first, &third] {
        let refused = read(&a.frame(wrong, &a.writer)).after(&begun, key_of(&all));
        assert!(matches!(refused, Err(LineRefused::Revision { wanted: 2, .. })), "{refused:?}");
    }
    let bumped = read(&a.frame(&second, &a.writer)).after(&begun, key_of(&all)).unwrap();
    // The hand-over is signed by the one who gives, and from there on only the other counts.
    let handed = read(&a.frame(&third, &b.writer)).after(&bumped, key_of(&all)).unwrap();
    assert_eq!(handed.writer, b.writer);
    let fourth = third.with_versions(&[("api:sample".to_owned(), "1.0.2".to_owned())]).unwrap();
    assert_eq!(read(&a.frame(&fourth, &a.writer)).after(&handed, key_of(&all)), Err(LineRefused::Signature));
    assert_eq!(read(&b.frame(&fourth, &b.writer)).after(&handed, key_of(&all)).unwrap().revision, 4);
}

// Proves: GW-108
#[test]
fn every_signed_member_is_covered() {
    let a = Someone::new(1);
    let all = [&a];
    let good = a.frame(&Registry::sample(), &a.writer);
    assert!(RegistryFrame::read(&good).unwrap().begin(key_of(&all)).is_ok());
    let other = Registry::sample().with_versions(&[("api:sample".to_owned(), "9.9.9".to_owned())]).unwrap();
    let other: serde_json::Value = serde_json::from_str(&other.text()).unwrap();
    for (name, value) in [
        ("app", json!("other")),
        ("writer", json!(NodeId::from_bytes([9; 32]).to_string())),
        ("ledger", json!("keyring^9")),
        ("revision", json!(2)),
        ("entities", other),
        ("signedBy", json!("v2")),
        ("registrySignature", json!("AAAA")),
        ("registrySignature", json!(null)),
        ("entities", json!([{"id": "x"}])),
        ("revision", json!("1")),
    ] {
        let mut changed = good.clone();
        changed.insert(name.to_owned(), value);
        let counts = RegistryFrame::read(&changed).and_then(|frame| frame.begin(key_of(&all)));
        assert!(counts.is_err(), "{name}");
    }
    for name in good.keys() {
        let mut cut = good.clone();
        cut.shift_remove(name);
        assert!(RegistryFrame::read(&cut).is_err(), "{name}");
    }
}
