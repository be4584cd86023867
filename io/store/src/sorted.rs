//! Items in order with stored sums, so that the sum of any range costs at most 128 additions: what a run is on disk,
//! for the items that no run covers. Spec: ibgib §13.3.

use sealtide_sync::{IdSum, RangeBound};

/// Items between two stored sums.
const STRIDE: usize = 64;

/// (order key, id) in ascending order.
#[derive(Debug)]
pub(crate) struct Sorted {
    items: Vec<(u64, [u8; 32])>,
    /// `sums[i]` is the sum of the first `i * STRIDE` ids.
    sums: Vec<IdSum>,
}

impl Sorted {
    /// Takes items that are nearly in order already.
    pub(crate) fn new(mut items: Vec<(u64, [u8; 32])>) -> Self {
        items.sort();
        let mut sum = IdSum::default();
        let mut sums = vec![sum];
        for stride in items.chunks(STRIDE) {
            stride.iter().for_each(|(_, id)| sum.add(id));
            sums.push(sum);
        }
        Self { items, sums }
    }

    /// The items of `lo ≤ item < hi`.
    pub(crate) fn range(&self, lo: &RangeBound, hi: &RangeBound) -> &[(u64, [u8; 32])] {
        let (from, to) = (self.position(lo), self.position(hi));
        self.items.get(from..to).unwrap_or_default()
    }

    /// Count and sum of the ids of `lo ≤ item < hi`.
    pub(crate) fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        let (from, to) = (self.position(lo), self.position(hi));
        if from >= to {
            return (0, IdSum::default());
        }
        let mut sum = self.sum_below(to);
        sum.sub(&self.sum_below(from).0);
        ((to - from) as u64, sum)
    }

    fn position(&self, bound: &RangeBound) -> usize {
        self.items.partition_point(|item| *item < (bound.order, bound.id))
    }

    fn sum_below(&self, end: usize) -> IdSum {
        let stored = end / STRIDE;
        let mut sum = self.sums[stored];
        self.items[stored * STRIDE..end].iter().for_each(|(_, id)| sum.add(id));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_ranges_are_those_of_their_items() {
        let item = |number: u32| (u64::from(number % 7), sealtide_crypto::sha256(&number.to_be_bytes()));
        let sorted = Sorted::new((0..300).map(item).collect());
        for (from, to) in [(0, 300), (0, 64), (63, 65), (10, 290), (128, 192), (200, 200), (201, 200)] {
            let bound = |at: usize| {
                sorted.items.get(at).map_or(RangeBound::END, |(order, id)| RangeBound { order: *order, id: *id })
            };
            let mut sum = IdSum::default();
            let inside = sorted.items.get(from..to).unwrap_or_default();
            inside.iter().for_each(|(_, id)| sum.add(id));
            assert_eq!(sorted.range(&bound(from), &bound(to)), inside);
            assert_eq!(sorted.sum(&bound(from), &bound(to)), (inside.len() as u64, sum));
        }
    }
}
