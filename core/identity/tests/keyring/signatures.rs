//! Every signature that the keys make, with the keys and the label it must have, and none besides. Spec: gateway §7.11.

use data_encoding::BASE64;
use sealtide_crypto::{Ed25519PublicKey, GatewayContext, Label, PublicKey, sha256};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Order, PublicKeyEntry};
use serde_json::Value;

use super::support::{Rig, at, v};

const PAYLOAD: &[u8] = br#"[{"id":"api:sample"}]"#;

fn keys_of(rig: &Rig, version: KeyVersion) -> Vec<PublicKeyEntry> {
    rig.ring.ledger().keys().iter().filter(|key| key.version == version).cloned().collect()
}

fn ed25519_of(rig: &Rig, version: KeyVersion) -> Ed25519PublicKey {
    let keys = keys_of(rig, version);
    let key = keys.iter().find(|key| key.algorithm == Algorithm::Ed25519).unwrap();
    Ed25519PublicKey::parse(&key.public_key).unwrap()
}

/// The contexts under which a classical signature holds, and the labels: what it may be taken for.
fn holds_as(key: &Ed25519PublicKey, content: &[u8], signature: &[u8]) -> (Vec<GatewayContext>, Vec<Label>) {
    let contexts = GatewayContext::ALL.into_iter();
    let contexts = contexts.filter(|context| key.verify_alone(*context, content, signature).is_ok());
    let labels = Label::ALL.into_iter().filter(|label| key.verify(*label, content, signature).is_ok());
    (contexts.collect(), labels.collect())
}

/// The signed bytes of a record: its RFC 8785 form without its signatures.
fn signed_bytes(record: &Value) -> Vec<u8> {
    let mut object = record.clone();
    object.as_object_mut().unwrap().remove("signatures").unwrap();
    let parsed = sealtide_ibgib::json::parse(&object.to_string(), sealtide_ibgib::json::Rules::Strict).unwrap();
    sealtide_ibgib::json::write_rfc8785(&parsed).unwrap().into_bytes()
}

// Proves: GW-102
#[test]
fn signature_table() {
    let mut rig = Rig::new(&[1, 2]);
    let now = at(0).wall_ms;
    // Bumps on v1: symmetric, by the version that is used.
    let hmac = rig.ring.sign(PAYLOAD, GatewayContext::Bump, Algorithm::HmacSha256, None, true, now).unwrap();
    assert_eq!((hmac.algorithm, hmac.version, hmac.text.len()), (Algorithm::HmacSha256, v(1), 64));
    for context in GatewayContext::ALL {
        let as_other = rig.ring.verify(PAYLOAD, context, Algorithm::Ed25519, v(1), &hmac.text, now);
        assert!(!as_other.valid, "never taken for a classical one");
    }
    rig.order(Order::Rotate { to: None, keep_until: None }, at(1)).unwrap();
    // Bumps on v2, and the registry: classical, alone, each under its own context.
    let public = ed25519_of(&rig, v(2));
    let bump = rig.ring.sign(PAYLOAD, GatewayContext::Bump, Algorithm::Ed25519, None, true, now).unwrap();
    let registry = rig.ring.sign_registry(PAYLOAD).unwrap();
    for (signed, context) in [(bump, GatewayContext::Bump), (registry, GatewayContext::Registry)] {
        assert_eq!((signed.algorithm, signed.version), (Algorithm::Ed25519, v(2)));
        let bytes = BASE64.decode(signed.text.as_bytes()).unwrap();
        assert_eq!(holds_as(&public, PAYLOAD, &bytes), (vec![context], vec![]));
        let kid = &data_encoding::HEXLOWER.encode(&sha256(public.as_bytes()))[..16];
        assert_eq!(signed.kid, kid);
    }
    // Nothing asks a pair to sign an answer after quantum computers: that is for records and releases.
    assert!(rig.ring.sign(PAYLOAD, GatewayContext::Bump, Algorithm::MlDsa87, None, true, now).is_err());
    // Records: the node, the pair before and the pair after, all under one label.
    for (record, pairs) in rig.records.iter().zip([vec![v(1)], vec![v(1), v(2)]]) {
        let value = record.to_value();
        let content = signed_bytes(&value);
        assert_eq!(content, record.signed_bytes());
        let mut expected = vec![("ML-DSA-87", rig.node.public().as_bytes().to_vec())];
        for version in pairs {
            let keys = keys_of(&rig, version);
            let of = |algorithm| keys.iter().find(|key| key.algorithm == algorithm).unwrap().public_key.clone();
            expected.push(("ML-DSA-87", of(Algorithm::MlDsa87)));
            expected.push(("Ed25519", of(Algorithm::Ed25519)));
        }
        let signatures = value["signatures"].as_array().unwrap();
        assert_eq!(signatures.len(), expected.len());
        for (signature, (algorithm, key)) in signatures.iter().zip(expected) {
            let kid = &data_encoding::HEXLOWER.encode(&sha256(&key))[..16];
            assert_eq!((&signature["alg"], &signature["kid"]), (&algorithm.into(), &kid.into()));
            let bytes = BASE64.decode(signature["sig"].as_str().unwrap().as_bytes()).unwrap();
            let labels: Vec<Label> = match algorithm {
                "Ed25519" => {
                    let (contexts, labels) = holds_as(&Ed25519PublicKey::parse(&key).unwrap(), &content, &bytes);
                    assert_eq!(contexts, []);
                    labels
                }
                _ => {
                    let key = PublicKey::parse(&key).unwrap();
                    Label::ALL.into_iter().filter(|label| key.verify(*label, &content, &bytes).is_ok()).collect()
                }
            };
            assert_eq!(labels, [Label::KeysRotate]);
        }
    }
}
