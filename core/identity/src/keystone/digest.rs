//! Digest demands: which challenges a frame must solve follows from what it says. Spec: ibgib §12.3.

use sealtide_crypto::{sha512, sha512_parts};
use sealtide_ibgib::Address;

use super::claim::Claim;
use super::class::SESSION_DEMANDS;
use super::hybrid::lp;
use super::pool::{ChallengeId, Pool};

/// The ids that a frame proven by a binding pool has to solve, in order.
///
/// `core` is the canonical data without what is made from the digest, `relations` the canonical relations.
// Spec: SY-23
pub(super) fn bound_ids(
    pool: &Pool,
    previous: &Address,
    claim: &Claim,
    core: &str,
    relations: &str,
) -> Vec<ChallengeId> {
    let mut bytes = b"sealtide/bind/1\0".to_vec();
    for part in [previous.as_str(), &claim.canonical(), core, relations] {
        lp(&mut bytes, part);
    }
    pick(pool, sha512(&bytes), pool.config.bind.unwrap_or_default() as usize)
}

/// The ids that a session's frame has to solve: they follow from the claim's target alone. Spec: ibgib §12.4.
pub(super) fn session_ids(pool: &Pool, target: &str) -> Vec<ChallengeId> {
    pick(pool, sha512_parts(&[b"sealtide/demand/1\0", target.as_bytes()]), SESSION_DEMANDS)
}

fn pick(pool: &Pool, digest: [u8; 64], count: usize) -> Vec<ChallengeId> {
    let positions = positions(&digest, pool.challenges.len(), count);
    positions.into_iter().map(|position| pool.challenges[position].id).collect()
}

/// The first `count` different positions below `size` that the digest names. `count` is cut to `size`.
pub(super) fn positions(digest: &[u8; 64], size: usize, count: usize) -> Vec<usize> {
    let mut positions = Vec::new();
    let mut seen = vec![false; size];
    let mut block = 0u32;
    while positions.len() < count.min(size) {
        let words = sha512_parts(&[digest, &block.to_be_bytes()]);
        for word in words.chunks_exact(2) {
            let position = usize::from(u16::from_be_bytes([word[0], word[1]])) % size;
            if positions.len() < count && !std::mem::replace(&mut seen[position], true) {
                positions.push(position);
            }
        }
        block += 1;
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-23
    #[test]
    fn positions_are_different_and_in_range() {
        for (size, count) in [(256, 32), (512, 32), (1_024, 64), (8, 2), (2, 32), (1, 1), (0, 3)] {
            for seed in 0..50u8 {
                let found = positions(&[seed; 64], size, count);
                let mut sorted = found.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!((sorted.len(), found.len()), (count.min(size), count.min(size)));
                assert!(sorted.last().is_none_or(|last| *last < size));
            }
        }
    }
}
