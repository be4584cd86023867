//! Text forms and ids. Spec: link C.3.

use proptest::prelude::*;
use sealtide_crypto::{Seed, SigningKey, sha256_parts};
use sealtide_identity::{NodeId, SpaceId, TextError, decode_text, encode_text};

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

fn cases() -> u32 {
    #[expect(clippy::disallowed_methods, reason = "tests take their size from the environment")]
    let scale = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1);
    2_000 * scale
}

/// The node id of a seed, computed by the other library from the words of the specification.
fn id_by_oracle(seed: [u8; 32]) -> (Vec<u8>, [u8; 32]) {
    let key = ml_dsa::ExpandedSigningKey::<ml_dsa::MlDsa87>::from_seed(&seed.into());
    let public = key.verifying_key().encode().to_vec();
    let id = sha256_parts(&[b"sealtide-node-id-v1\x00\x01", &public]);
    (public, id)
}

// Proves: LK-1
#[test]
fn identity_vectors() {
    let fixed = [([0u8; 32], NODE_ID_OF_ZEROS), ([7u8; 32], NODE_ID_OF_SEVENS)];
    for (seed, text) in fixed {
        let key = SigningKey::from_seed(&Seed::from_bytes(seed));
        assert_eq!(key.public().as_bytes().len(), 2_592);
        let (public, id) = id_by_oracle(seed);
        assert_eq!(key.public().as_bytes(), public, "both libraries expand the seed alike");
        assert_eq!(NodeId::of(key.public()).as_bytes(), &id);
        assert_eq!(NodeId::of(key.public()).to_string(), text);
        assert_eq!(text.parse(), Ok(NodeId::of(key.public())));
        assert_eq!(text.len(), 62);
    }
}

const NODE_ID_OF_ZEROS: &str = "stn1nip2c2sq53bkq4rqiruas5vr7pq2telye2s44k4iaoiukvcjp7pybypxea";
const NODE_ID_OF_SEVENS: &str = "stn1kzthbqoz3qhqde6lkud7iczo27rhq4w7ueweiuwalb7m7fkppwcben6v6u";

#[test]
fn short_form_is_no_input() {
    let id = NodeId::from_bytes([9; 32]);
    assert_eq!(id.short().len(), 8);
    assert!(id.short().parse::<NodeId>().is_err());
    assert!(format!("stn1{}", id.short()).parse::<NodeId>().is_err());
}

#[test]
fn kinds_do_not_mix() {
    let node = NodeId::from_bytes([9; 32]);
    let space = SpaceId::from_bytes([9; 32]);
    assert_eq!(node.to_string().parse::<SpaceId>(), Err(TextError::Prefix { expected: "sts1" }));
    let swapped = space.to_string().replacen("sts1", "stn1", 1);
    assert_eq!(swapped.parse::<NodeId>(), Err(TextError::Typing { expected: "stn1" }), "the check covers the prefix");
}

// Proves: LK-2
#[test]
fn text_forms_every_position_and_symbol() {
    let text = NodeId::from_bytes(*b"0123456789abcdef0123456789ABCDEF").to_string();
    let mut tried = 0;
    for position in 0..text.len() {
        for symbol in ALPHABET {
            let mut wrong = text.clone().into_bytes();
            if wrong[position] == *symbol {
                continue;
            }
            wrong[position] = *symbol;
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(wrong.parse::<NodeId>().is_err(), "{wrong} is accepted");
            tried += 1;
        }
    }
    // The 62 characters, less the one right symbol of each; `1` of the prefix is none of the 32.
    assert_eq!(tried, 61 * 31 + 32);
}

// Proves: LK-2
#[test]
fn text_too_long_is_refused() {
    let text = encode_text("stt1", &[5; 3_000]);
    assert_eq!(decode_text("stt1", &text), Err(TextError::Typing { expected: "stt1" }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    // Proves: LK-2
    #[test]
    fn text_forms(payload in prop::collection::vec(any::<u8>(), 0..300), marks in any::<u64>(), at in any::<prop::sample::Index>(), symbol in 0usize..32) {
        let text = encode_text("stt1", &payload);
        prop_assert_eq!(decode_text("stt1", &text), Ok(payload.clone()));
        // Case, spaces and hyphens as people write them.
        let mut sloppy = String::new();
        for (index, letter) in text.chars().enumerate() {
            match marks.rotate_left(index as u32) & 7 {
                0 => sloppy.push(' '),
                1 => sloppy.push('-'),
                2 => sloppy.push('\n'),
                _ => {}
            }
            sloppy.push(if marks.rotate_left(index as u32) & 8 == 0 { letter } else { letter.to_ascii_uppercase() });
        }
        prop_assert_eq!(decode_text("stt1", &sloppy), Ok(payload));
        let mut wrong = text.clone().into_bytes();
        let position = at.index(wrong.len());
        if wrong[position] != ALPHABET[symbol] {
            wrong[position] = ALPHABET[symbol];
            let wrong = String::from_utf8(wrong).unwrap();
            prop_assert!(decode_text("stt1", &wrong).is_err());
        }
    }

    #[test]
    fn text_foreign(text in "\\PC{0,200}") {
        if let Ok(payload) = decode_text("stn1", &text) {
            let clean: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
            prop_assert_eq!(encode_text("stn1", &payload), clean.to_ascii_lowercase());
        }
    }
}
