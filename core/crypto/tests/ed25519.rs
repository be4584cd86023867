//! Ed25519 from outside: known answers, and what must be refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use sealtide_crypto::{Ed25519PublicKey, Ed25519SigningKey, GatewayContext, Label, Seed};

fn key() -> Ed25519SigningKey {
    Ed25519SigningKey::from_seed(&Seed::from_bytes([7; 32]))
}

/// The order of the base point, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn the_public_key_of_rfc_8032_test_1() {
    let seed = hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60");
    let key = Ed25519SigningKey::from_seed(&Seed::from_bytes(seed.try_into().unwrap()));
    let public = hex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    assert_eq!(key.public().as_bytes().as_slice(), public);
}

// Proves: GW-102
#[test]
fn sig_domain_no_signature_counts_under_another_label_or_context() {
    let key = key();
    for label in Label::ALL {
        let signature = key.sign(label, b"content");
        for other in Label::ALL {
            assert_eq!(
                key.public().verify(other, b"content", &signature).is_ok(),
                other == label,
                "{label:?} {other:?}"
            );
        }
        for context in GatewayContext::ALL {
            assert!(key.public().verify_alone(context, b"content", &signature).is_err());
        }
    }
    for context in GatewayContext::ALL {
        let signature = key.sign_alone(context, b"content");
        for other in GatewayContext::ALL {
            let verdict = key.public().verify_alone(other, b"content", &signature);
            assert_eq!(verdict.is_ok(), other == context, "{context:?} {other:?}");
        }
        assert!(Label::ALL.iter().all(|label| key.public().verify(*label, b"content", &signature).is_err()));
    }
}

// Proves: GW-44
#[test]
fn ed25519_malleable_signatures_are_refused() {
    let key = key();
    let good = key.sign_alone(GatewayContext::Bump, b"[]");
    key.public().verify_alone(GatewayContext::Bump, b"[]", &good).unwrap();
    // S + L is the same scalar, in another encoding.
    let mut twin = good;
    let mut carry = 0u16;
    for (byte, order) in twin[32..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(order);
        *byte = carry as u8;
        carry >>= 8;
    }
    assert!(key.public().verify_alone(GatewayContext::Bump, b"[]", &twin).is_err());
    for length in [0, 32, 63] {
        assert!(key.public().verify_alone(GatewayContext::Bump, b"[]", &good[..length]).is_err());
    }
    for at in 0..64 {
        let mut bad = good;
        bad[at] ^= 1;
        assert!(key.public().verify_alone(GatewayContext::Bump, b"[]", &bad).is_err(), "byte {at}");
    }
}

// Proves: GW-44
#[test]
fn ed25519_keys_and_points_of_small_order_or_not_canonical_are_refused() {
    let refused = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ];
    let key = key();
    let good = key.sign_alone(GatewayContext::Bump, b"[]");
    for text in refused {
        assert!(Ed25519PublicKey::parse(&hex(text)).is_err(), "{text}");
        let mut signature = good;
        signature[..32].copy_from_slice(&hex(text));
        assert!(key.public().verify_alone(GatewayContext::Bump, b"[]", &signature).is_err(), "{text}");
    }
    assert!(Ed25519PublicKey::parse(&[9; 31]).is_err());
    assert!(Ed25519PublicKey::parse(key.public().as_bytes()).is_ok());
}
