//! The fuzz targets of this crate in the normal run: good inputs, changed here and there.

use sealtide_crypto::{Entropy, SeededEntropy};
use sealtide_releases::{LegacyManifest, fuzzing};

use crate::support::Publisher;

/// A transaction manifest of the older system, with every member.
const LEGACY: &str = include_str!("../../../../fuzz/corpus/release_legacy/bump");

/// Inputs at scale 1.
const INPUTS: usize = 20_000;

struct Chance(SeededEntropy);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % limit.max(1) as u64) as usize
    }

    /// One good input with a few bytes replaced, taken out or put in, or cut.
    fn changed(&mut self, good: &[u8]) -> Vec<u8> {
        let mut input = good.to_vec();
        for _ in 0..1 + self.below(3) {
            let at = self.below(input.len());
            match self.below(5) {
                0 => input.truncate(at),
                1 if !input.is_empty() => drop(input.remove(at)),
                2 => input.insert(at, self.below(256) as u8),
                _ if !input.is_empty() => input[at] = self.below(256) as u8,
                _ => {}
            }
        }
        input
    }
}

fn inputs() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a test takes its size from the environment")]
    let scale = std::env::var("SEALTIDE_TEST_SCALE");
    INPUTS * scale.ok().and_then(|text| text.parse::<usize>().ok()).unwrap_or(1)
}

#[test]
fn bundles_and_documents() {
    let mut publisher = Publisher::new(&[1, 2]);
    let manifest = publisher.publish("stable", "1.0.0");
    publisher.rotate(2);
    let mut trust = publisher.trust();
    trust.follow(&publisher.records).unwrap();
    // Signatures are as long as everything else is interesting: a head without a chain is tried more often.
    let whole = publisher.bundle(&manifest).encode().unwrap();
    let mut short = publisher.bundle(&manifest);
    short.chain.clear();
    let short = short.encode().unwrap();
    let documents = [trust.to_value(), manifest.to_value(), publisher.head(&manifest).to_value()];
    let documents = documents.map(|value| value.to_string().into_bytes());
    let mut chance = Chance(SeededEntropy::new(7));
    for number in 0..inputs() {
        let good = if number % 8 == 0 { &whole } else { &short };
        fuzzing::bundle(&chance.changed(good));
        let good = &documents[number % documents.len()];
        fuzzing::documents(&chance.changed(good));
    }
    fuzzing::bundle(&whole);
    documents.iter().for_each(|good| fuzzing::documents(good));
    println!("{} inputs each", inputs());
}

// Proves: GW-73
#[test]
fn legacy_manifests() {
    let mut chance = Chance(SeededEntropy::new(8));
    (0..inputs()).for_each(|_| fuzzing::legacy(&chance.changed(LEGACY.as_bytes())));
    assert!(LegacyManifest::read(LEGACY).is_ok_and(|manifest| manifest.signed().is_ok()));
    fuzzing::legacy(LEGACY.as_bytes());
}
