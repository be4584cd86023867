//! The one message format of every signature, against a second library. Spec: link C.4.4.

use ml_dsa::{EncodedSignature, EncodedVerifyingKey, ExpandedSigningKey, MlDsa87, VerifyingKey};
use sealtide_crypto::{
    Label, PUBLIC_KEY_BYTES, PublicKey, SEED_BYTES, SIGNATURE_BYTES, Seed, SigningKey, sha512, signed_message,
};

fn pair(seed: u8) -> (SigningKey, ExpandedSigningKey<MlDsa87>) {
    let bytes = [seed; SEED_BYTES];
    (SigningKey::from_seed(&Seed::from_bytes(bytes)), ExpandedSigningKey::from_seed(&bytes.into()))
}

// Proves: LK-1
#[test]
fn identity_sizes() {
    let (ours, oracle) = pair(1);
    assert_eq!((PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SEED_BYTES), (2_592, 4_627, 32));
    assert_eq!(ours.public().as_bytes().len(), PUBLIC_KEY_BYTES);
    assert_eq!(ours.public().as_bytes(), oracle.verifying_key().encode().as_slice());
    assert_eq!(ours.sign(Label::CommitStone, b"x").as_bytes().len(), SIGNATURE_BYTES);
    assert!(PublicKey::parse(&ours.public().as_bytes()[1..]).is_err());
    assert!(PublicKey::parse(&[ours.public().as_bytes(), &[0]].concat()).is_err());
}

// Proves: LK-7
#[test]
fn sig_domain() {
    let (key, oracle) = pair(2);
    let content = b"the same content under every label";
    for label in Label::ALL {
        let signature = key.sign(label, content);
        for other in Label::ALL {
            let verified = key.public().verify(other, content, signature.as_bytes()).is_ok();
            assert_eq!(verified, other == label, "signed as {label:?}, checked as {other:?}");
        }
        // Neither the bare content nor the bare hash is what was signed.
        let decoded = ml_dsa::Signature::decode(&EncodedSignature::<MlDsa87>::try_from(signature.as_bytes()).unwrap());
        let decoded = decoded.expect("a signature of the other library");
        let public = oracle.verifying_key();
        assert!(public.verify_with_context(&signed_message(label, content), b"", &decoded));
        assert!(!public.verify_with_context(content, b"", &decoded));
        assert!(!public.verify_with_context(&sha512(content), b"", &decoded));
        assert!(!public.verify_with_context(&signed_message(label, content), b"x", &decoded), "the context is empty");
    }
}

// Proves: LK-7, LK-1
#[test]
fn sig_domain_cross_check_both_directions() {
    let (key, oracle) = pair(3);
    let theirs = VerifyingKey::<MlDsa87>::decode(
        &EncodedVerifyingKey::<MlDsa87>::try_from(key.public().as_bytes()).expect("2 592 bytes"),
    );
    for (index, label) in Label::ALL.into_iter().enumerate() {
        let content = vec![index as u8; index * 100];
        let message = signed_message(label, &content);

        let by_us = key.sign(label, &content);
        let decoded = ml_dsa::Signature::decode(&EncodedSignature::<MlDsa87>::try_from(by_us.as_bytes()).unwrap());
        assert!(theirs.verify_with_context(&message, b"", &decoded.unwrap()), "{label:?} signed here");

        let by_them = oracle.sign_deterministic(&message, b"").unwrap().encode();
        assert_eq!(key.public().verify(label, &content, &by_them), Ok(()), "{label:?} signed there");
        let with_context = oracle.sign_deterministic(&message, b"sealtide").unwrap().encode();
        assert!(key.public().verify(label, &content, &with_context).is_err(), "{label:?} under another context");
    }
}

// Proves: LK-7
#[test]
fn sig_table() {
    let table = [
        "link1 responder",
        "link1 initiator",
        "link1 tls-cert",
        "keystone1 frame",
        "commit1 stone",
        "release1 manifest",
        "release1 head",
        "keys1 rotate",
        "audit1 checkpoint",
    ];
    assert_eq!(Label::ALL.map(Label::text), table);
    for label in Label::ALL {
        let text = label.text().as_bytes();
        let mut expected = b"sealtide-sig-v1\0".to_vec();
        expected.extend_from_slice(text);
        expected.resize(48, 0);
        expected.extend_from_slice(&sha512(b"content"));
        assert_eq!(signed_message(label, b"content").as_slice(), expected);
        assert!(text.is_ascii() && text.len() <= 32);
    }
}

// Proves: LK-7
#[test]
fn signatures_are_hedged_and_strict() {
    let (key, _) = pair(4);
    let (first, second) = (key.sign(Label::KeysRotate, b"x"), key.sign(Label::KeysRotate, b"x"));
    assert_ne!(first, second, "two signatures of one content differ");
    let bytes = first.as_bytes();
    let check = |signature: &[u8]| key.public().verify(Label::KeysRotate, b"x", signature);
    assert_eq!(check(bytes), Ok(()));
    assert!(check(&bytes[1..]).is_err());
    assert!(check(&[bytes, &[0]].concat()).is_err());
    assert!(check(&[]).is_err());
    for at in [0, 63, 64, 2_000, 4_626] {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1;
        assert!(check(&flipped).is_err(), "byte {at}");
    }
    assert!(pair(5).0.public().verify(Label::KeysRotate, b"x", bytes).is_err(), "another key");
}
