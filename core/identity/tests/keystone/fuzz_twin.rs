//! Twins of the fuzz target: arbitrary and mutated frames.

use proptest::prelude::*;
use sealtide_ibgib::Verified;
use sealtide_identity::fuzzing;

use crate::support::{Holder, scale};

fn corpus() -> Vec<Verified> {
    let mut device = Holder::device(110);
    let next = device.post(1);
    vec![device.first_record(), next]
}

fn config() -> ProptestConfig {
    ProptestConfig { cases: 2_000 * scale(), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    // Proves: SY-10 (keystone frames)
    #[test]
    fn any_bytes(input in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzzing::keystone(&input);
    }
}

// Proves: SY-10 (keystone frames)
#[test]
fn mutated_frames() {
    let corpus = corpus();
    let cases = 1_500 * scale();
    let mut entropy = sealtide_crypto::SeededEntropy::new(7);
    let alphabet = b"{}[],:\"\\0a9zn-.";
    for case in 0..cases {
        let record = &corpus[case as usize % 2];
        // The interesting parts are at the ends of the long list of challenges.
        let text = record.data_text().unwrap();
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..=case % 3 {
            let span = bytes.len().min(3_000);
            let offset = crate::support::rand(&mut entropy, span);
            let at = if case % 2 == 0 { offset } else { bytes.len() - 1 - offset };
            match crate::support::rand(&mut entropy, 3) {
                0 => bytes[at] = alphabet[crate::support::rand(&mut entropy, alphabet.len())],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, alphabet[crate::support::rand(&mut entropy, alphabet.len())]),
            }
        }
        if let Ok(text) = String::from_utf8(bytes) {
            fuzzing::keystone_data(&corpus, &text);
        }
        let mut encoded = record.encoded().to_vec();
        let at = crate::support::rand(&mut entropy, encoded.len());
        encoded[at] ^= 1 << (case % 8);
        fuzzing::keystone(&encoded);
    }
    println!("{cases} mutated frames");
}
