//! Where a range is cut: by key, so that nothing need be counted. The interval of order keys is cut into 16 equal
//! parts; inside one order key the interval of ids is, by the bytes behind the prefix that all of them share.
//! Spec: ibgib §13.3.

use super::PARTS;
use crate::RangeBound;

/// At most 15 bounds strictly between `lo` and `hi`, ascending; none when at most one item fits between them.
pub(super) fn inside(lo: &RangeBound, hi: &RangeBound) -> Vec<RangeBound> {
    if hi <= lo {
        return Vec::new();
    }
    // The greatest order key that an item below `hi` can have.
    let last = if hi.id == [0; 32] { hi.order - 1 } else { hi.order };
    if lo.order < last {
        return steps(lo.order, last).map(|order| RangeBound { order, id: [0; 32] }).collect();
    }
    let last_id = if hi.order == lo.order { before(&hi.id) } else { [0xff; 32] };
    let shared = lo.id.iter().zip(&last_id).take_while(|(low, high)| low == high).count();
    let window = shared..(shared + 8).min(32);
    let number = |id: &[u8; 32]| id[window.clone()].iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let bound = |value: u64| {
        let mut id = [0; 32];
        id[..shared].copy_from_slice(&lo.id[..shared]);
        id[window.clone()].copy_from_slice(&value.to_be_bytes()[8 - window.len()..]);
        RangeBound { order: lo.order, id }
    };
    steps(number(&lo.id), number(&last_id)).map(bound).collect()
}

/// The numbers above `first`, up to `last`, that cut `first..=last` into equal parts.
fn steps(first: u64, last: u64) -> impl Iterator<Item = u64> {
    let width = u128::from(last - first) + 1;
    let mut before = first;
    (1..PARTS as u128).map(move |part| first + (width * part / PARTS as u128) as u64).filter(move |step| {
        let new = *step > before;
        before = *step;
        new
    })
}

/// The id below this one, which is not all zeros.
fn before(id: &[u8; 32]) -> [u8; 32] {
    let mut out = *id;
    for byte in out.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(lo: RangeBound, hi: RangeBound) -> Vec<RangeBound> {
        let cuts = inside(&lo, &hi);
        assert!(cuts.len() < PARTS);
        let all: Vec<_> = [lo].into_iter().chain(cuts.clone()).chain([hi]).collect();
        assert!(all.is_sorted_by(|left, right| left < right), "{all:?}");
        cuts
    }

    fn at(order: u64, id: &[u8]) -> RangeBound {
        let mut bound = RangeBound { order, id: [0; 32] };
        bound.id[..id.len()].copy_from_slice(id);
        bound
    }

    #[test]
    fn order_keys_first_then_ids() {
        let cuts = check(RangeBound::START, RangeBound::END);
        assert_eq!(cuts.len(), 15);
        assert_eq!(cuts[7].order, u64::MAX / 2);
        assert_eq!(check(at(5, &[]), at(8, &[])), [at(6, &[]), at(7, &[])]);
        assert_eq!(check(at(5, &[]), at(6, &[]))[7], at(5, &[0x80]));
        assert_eq!(check(at(5, &[9]), at(6, &[0]))[14].id[0], 0xf0);
        assert_eq!(check(at(5, &[9]), at(6, &[1])), [at(6, &[])]);
    }

    #[test]
    fn every_cut_ends_at_single_ids() {
        let mut last = at(5, &[]);
        last.id[31] = 1;
        assert!(check(at(5, &[]), last).is_empty());
        last.id[31] = 3;
        assert_eq!(check(at(5, &[]), last).len(), 2);
        assert!(check(at(5, &[0xff; 32]), at(6, &[])).is_empty());
        assert_eq!(check(at(5, &[1, 0xff]), at(5, &[2, 0, 1])).len(), 15);
        assert!(inside(&at(5, &[]), &at(5, &[])).is_empty());
        assert!(inside(&at(6, &[]), &at(5, &[])).is_empty());
        // Following any one part leads to a single id in a bounded number of steps.
        for pick in 0..PARTS {
            let (mut lo, mut hi, mut depth) = (RangeBound::START, RangeBound::END, 0);
            loop {
                let cuts = check(lo, hi);
                if cuts.is_empty() {
                    break;
                }
                let ends: Vec<_> = [lo].into_iter().chain(cuts).chain([hi]).collect();
                let part = pick.min(ends.len() - 2);
                (lo, hi, depth) = (ends[part], ends[part + 1], depth + 1);
                assert!(depth < 120, "no end");
            }
        }
    }
}
