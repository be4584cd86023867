//! Which keys a table of a run cannot hold, in ten bits a key: spares most lookups of what is not there a read in
//! every run. Spec: store, "Runs".

use crate::entry::Cut;

const BITS_A_KEY: u64 = 10;
const PROBES: u64 = 5;

/// A Bloom filter over keys that end with 16 bytes of a hash. With ten bits a key one in a hundred is a wrong yes;
/// a peer that prepares ids can make more of them, which costs reads and nothing else.
#[derive(Debug)]
pub(crate) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// An empty filter for at most this many keys; for none, one that says yes to everything.
    pub(crate) fn sized(keys: u64) -> Self {
        Self { words: vec![0; (keys * BITS_A_KEY).div_ceil(64) as usize] }
    }

    fn bits(&self, key: &[u8]) -> impl Iterator<Item = (usize, u64)> + use<> {
        let half = |from: usize| key[from..from + 8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let tail = key.len() - 16;
        // What stands in front of the hash, a space number, is mixed in.
        let front =
            key[..tail].iter().fold(0u64, |number, byte| (number ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        let (start, step) = (half(tail) ^ front, half(tail + 8) | 1);
        let count = self.words.len() as u64 * 64;
        (0..PROBES).map(move |probe| {
            let bit = start.wrapping_add(step.wrapping_mul(probe)) % count;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    pub(crate) fn add(&mut self, key: &[u8]) {
        if !self.words.is_empty() {
            self.bits(key).for_each(|(word, bit)| self.words[word] |= bit);
        }
    }

    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.words.is_empty() || self.bits(key).all(|(word, bit)| self.words[word] & bit != 0)
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.words.len() as u32).to_le_bytes());
        self.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }

    pub(crate) fn read(cut: &mut Cut<'_>) -> Option<Self> {
        let count = cut.u32()? as usize;
        let bytes = cut.take(count.checked_mul(8)?)?;
        let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Some(Self { words: bytes.chunks_exact(8).map(word).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_little_else() {
        let key = |number: u32| sealtide_crypto::sha256(&number.to_be_bytes());
        let mut filter = Filter::sized(10_000);
        (0..10_000).for_each(|number| filter.add(&key(number)));
        let mut bytes = Vec::new();
        filter.write(&mut bytes);
        let filter = Filter::read(&mut Cut(&bytes)).unwrap();
        assert!((0..10_000).all(|number| filter.has(&key(number))));
        let wrong = (10_000..20_000).filter(|number| filter.has(&key(*number))).count();
        assert!(wrong < 300, "{wrong} wrong of 10 000");
        assert!(Filter::sized(0).has(&key(1)), "no filter excludes nothing");
    }
}
