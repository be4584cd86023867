//! Which keys a table of a run cannot hold, in ten bits a key: spares most lookups of what is not there a read in
//! every run. Spec: store, "Runs".

use crate::entry::Cut;

const BITS_A_KEY: u64 = 10;
const PROBES: u32 = 5;
/// Words of a block: a line of the processor's cache.
const BLOCK_WORDS: usize = 8;
/// Bits that name one bit of a block.
const PLACE_BITS: u32 = 9;

/// A blocked Bloom filter (Putze, Sanders and Singler, 2007) over keys that end with 16 bytes of a hash: all bits of a key are in one block,
/// so a look costs one read of memory and not five. With ten bits a key about one in sixty is a wrong yes; a peer that prepares ids can make
/// more of them, which costs reads and nothing else.
#[derive(Debug)]
pub(crate) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// An empty filter for at most this many keys; for none, one that says yes to everything.
    pub(crate) fn sized(keys: u64) -> Self {
        let blocks = (keys * BITS_A_KEY).div_ceil(64 * BLOCK_WORDS as u64);
        Self { words: vec![0; blocks as usize * BLOCK_WORDS] }
    }

    /// The words and the bits in them that stand for a key.
    fn bits(&self, key: &[u8]) -> impl Iterator<Item = (usize, u64)> + use<> {
        let half = |from: usize| key[from..from + 8].iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let tail = key.len() - 16;
        // What stands in front of the hash, a space number, is mixed in.
        let front = key[..tail]
            .iter()
            .fold(0u64, |number, byte| (number ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let blocks = (self.words.len() / BLOCK_WORDS) as u64;
        let block = ((u128::from(half(tail) ^ front) * u128::from(blocks)) >> 64) as usize;
        let places = half(tail + 8) ^ front;
        (0..PROBES).map(move |probe| {
            let place = (places >> (probe * PLACE_BITS)) as usize % (64 * BLOCK_WORDS);
            (block * BLOCK_WORDS + place / 64, 1 << (place % 64))
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
        let words: Vec<u64> = bytes.chunks_exact(8).map(word).collect();
        words.len().is_multiple_of(BLOCK_WORDS).then_some(Self { words })
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
