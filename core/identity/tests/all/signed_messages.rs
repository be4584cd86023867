//! What is signed: one layout, a closed table of labels, the empty context; by two libraries. Spec: link C.4.4

use ml_dsa::{EncodedSignature, EncodedVerifyingKey, MlDsa87, Signature, VerifyingKey};
use sealtide_crypto::{Label, Seed, SigningKey, sha512, signed_message};

const CONTENT: &[u8] = b"content";
const SEED: [u8; 32] = [7; 32];

/// The key of the second library.
fn second() -> ml_dsa::SigningKey<MlDsa87> {
    ml_dsa::SigningKey::from_seed(&SEED.into())
}

fn second_takes(key: &SigningKey, message: &[u8], context: &[u8], signature: &[u8]) -> bool {
    let key = EncodedVerifyingKey::<MlDsa87>::try_from(key.public().as_bytes()).unwrap();
    let encoded = EncodedSignature::<MlDsa87>::try_from(signature).unwrap();
    let signature = Signature::<MlDsa87>::decode(&encoded).unwrap();
    VerifyingKey::<MlDsa87>::decode(&key).verify_with_context(message, context, &signature)
}

/// The table, by hand.
const TABLE: [(Label, &str); 9] = [
    (Label::LinkResponder, "link1 responder"),
    (Label::LinkInitiator, "link1 initiator"),
    (Label::LinkTlsCert, "link1 tls-cert"),
    (Label::KeystoneFrame, "keystone1 frame"),
    (Label::CommitStone, "commit1 stone"),
    (Label::ReleaseManifest, "release1 manifest"),
    (Label::ReleaseHead, "release1 head"),
    (Label::KeysRotate, "keys1 rotate"),
    (Label::AuditCheckpoint, "audit1 checkpoint"),
];

fn by_hand(label: &str, content: &[u8]) -> Vec<u8> {
    let mut message = b"sealtide-sig-v1\0".to_vec();
    message.extend_from_slice(label.as_bytes());
    message.resize(48, 0);
    message.extend_from_slice(&sha512(content));
    message
}

// Proves: SY-86
#[test]
fn a_signature_holds_under_its_label_and_no_other_in_both_libraries() {
    assert_eq!(Label::ALL, TABLE.map(|(label, _)| label), "the table is closed");
    let key = SigningKey::from_seed(&Seed::from_bytes(SEED));
    for (label, text) in TABLE {
        let message = by_hand(text, CONTENT);
        assert_eq!((message.len(), &signed_message(label, CONTENT)[..]), (112, &message[..]));
        let signature = key.sign(label, CONTENT);
        assert!(second_takes(&key, &message, b"", signature.as_bytes()), "{text}");
        assert!(!second_takes(&key, &message, b"sealtide", signature.as_bytes()), "{text}: under a context");
        for (other, _) in TABLE {
            let verified = key.public().verify(other, CONTENT, signature.as_bytes());
            assert_eq!(verified.is_ok(), other == label, "{text} as {}", other.text());
        }
        assert!(key.public().verify(label, b"other", signature.as_bytes()).is_err());
    }
}

// Proves: SY-86
#[test]
fn another_context_or_layout_never_verifies() {
    let (key, foreign) = (SigningKey::from_seed(&Seed::from_bytes(SEED)), second());
    let sign = |message: &[u8], context: &[u8]| {
        foreign.expanded_key().sign_deterministic(message, context).unwrap().encode().to_vec()
    };
    for (label, text) in TABLE {
        let good = by_hand(text, CONTENT);
        let takes = |signature: &[u8]| key.public().verify(label, CONTENT, signature).is_ok();
        assert!(takes(&sign(&good, b"")), "{text}: what the second library signs is taken");
        assert!(!takes(&sign(&good, b"sealtide-sig-v1")), "{text}: a context string");
        let hash = sha512(CONTENT);
        let layouts: [Vec<u8>; 6] = [
            CONTENT.to_vec(),
            hash.to_vec(),
            [text.as_bytes(), &hash].concat(),
            [&good[..48], CONTENT].concat(),
            [&good[..], &[0]].concat(),
            [b"sealtide-sig-v2\0", &good[16..]].concat(),
        ];
        for (number, layout) in layouts.iter().enumerate() {
            assert!(!takes(&sign(layout, b"")), "{text}: layout {number}");
        }
    }
}
