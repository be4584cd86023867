//! A sorted run in memory: tips, the graph of a scope, salted ids, and what a store has not on disk yet.

use super::Ranges;
use crate::{IdSum, RangeBound};

/// Entries between two stored sums.
const STRIDE: usize = 64;

/// A sorted run of items with stored sums, so that a range's sum costs at most 128 additions. 41 bytes an item.
#[derive(Clone, Debug)]
pub struct Run {
    items: Vec<(u64, [u8; 32])>,
    /// `sums[i]` is the sum of the first `i * STRIDE` ids.
    sums: Vec<IdSum>,
}

impl Run {
    /// Takes items in any order; equal items count once.
    pub fn new(mut items: Vec<(u64, [u8; 32])>) -> Self {
        items.sort_unstable();
        items.dedup();
        let mut sum = IdSum::default();
        let mut sums = vec![sum];
        for stride in items.chunks(STRIDE) {
            stride.iter().for_each(|(_, id)| sum.add(id));
            sums.push(sum);
        }
        Self { items, sums }
    }

    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All items, sorted.
    pub fn items(&self) -> &[(u64, [u8; 32])] {
        &self.items
    }

    fn sum_below(&self, end: usize) -> IdSum {
        let stored = end / STRIDE;
        let mut sum = self.sums[stored];
        self.items[stored * STRIDE..end].iter().for_each(|(_, id)| sum.add(id));
        sum
    }

    /// How many items are below the bound.
    fn position(&self, bound: &RangeBound) -> usize {
        self.items.partition_point(|item| *item < (bound.order, bound.id))
    }
}

impl Ranges for Run {
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        let (from, to) = (self.position(lo), self.position(hi));
        if to <= from {
            return (0, IdSum::default());
        }
        let mut sum = self.sum_below(to);
        sum.sub(&self.sum_below(from).0);
        ((to - from) as u64, sum)
    }

    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        let (from, to) = (self.position(lo), self.position(hi));
        self.items.get(from..to).unwrap_or_default().iter().take(limit).copied().collect()
    }
}

impl Default for Run {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_ranges_are_those_of_their_items() {
        let item = |number: u32| (u64::from(number % 7), sealtide_crypto::sha256(&number.to_be_bytes()));
        let run = Run::new((0..300).map(item).collect());
        for (from, to) in [(0, 300), (0, 64), (63, 65), (10, 290), (128, 192), (200, 200), (201, 200)] {
            let bound = |at: usize| {
                run.items.get(at).map_or(RangeBound::END, |(order, id)| RangeBound { order: *order, id: *id })
            };
            let mut sum = IdSum::default();
            let inside = run.items.get(from..to).unwrap_or_default();
            inside.iter().for_each(|(_, id)| sum.add(id));
            assert_eq!(run.sum(&bound(from), &bound(to)), (inside.len() as u64, sum));
            assert_eq!(run.list(&bound(from), &bound(to), usize::MAX), inside);
        }
    }
}
