//! Additive summaries of sets of 32-byte ids. Spec: ibgib §13.3.

use sealtide_crypto::{DeriveContext, sha256};

/// Sum of ids as little-endian integers modulo 2²⁵⁶.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdSum(pub [u8; 32]);

impl IdSum {
    /// Adds an id.
    pub fn add(&mut self, id: &[u8; 32]) {
        let mut carry = 0u128;
        for (sum, other) in self.0.chunks_exact_mut(8).zip(id.chunks_exact(8)) {
            carry += u128::from(word(sum)) + u128::from(word(other));
            sum.copy_from_slice(&(carry as u64).to_le_bytes());
            carry >>= 64;
        }
    }

    /// Adds the sum of another set.
    pub fn merge(&mut self, other: &Self) {
        self.add(&other.0);
    }

    /// Takes an id away.
    pub fn sub(&mut self, id: &[u8; 32]) {
        let mut borrow = false;
        for (sum, other) in self.0.chunks_exact_mut(8).zip(id.chunks_exact(8)) {
            let (difference, first) = word(sum).overflowing_sub(word(other));
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            sum.copy_from_slice(&difference.to_le_bytes());
            borrow = first || second;
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// LtHash16: 1 024 lanes of u16, added modulo 2¹⁶. Its SHA-256 decides whether two sets are equal. Spec: ibgib §13.3.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash(Box<[u16; LANES]>);

const LANES: usize = 1024;

/// The context `sealtide set digest v1`, hashed: it would cost as much as the lanes of an id.
const CONTEXT: DeriveContext = DeriveContext::from_bytes([
    84, 206, 186, 182, 20, 171, 130, 250, 13, 253, 74, 133, 108, 45, 74, 162, 169, 252, 93, 241, 50, 10, 236, 237, 126,
    53, 78, 162, 221, 198, 155, 66,
]);

impl LtHash {
    /// The lanes of one id: BLAKE3 in derive-key mode.
    fn lanes(id: &[u8; 32]) -> [u8; 2 * LANES] {
        let mut out = [0; 2 * LANES];
        CONTEXT.derive(id, &mut out);
        out
    }

    /// Adds an id.
    pub fn add(&mut self, id: &[u8; 32]) {
        for (lane, pair) in self.0.iter_mut().zip(Self::lanes(id).chunks_exact(2)) {
            *lane = lane.wrapping_add(u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    /// Takes an id away.
    pub fn sub(&mut self, id: &[u8; 32]) {
        for (lane, pair) in self.0.iter_mut().zip(Self::lanes(id).chunks_exact(2)) {
            *lane = lane.wrapping_sub(u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    /// Adds another set.
    fn add_all(&mut self, other: &Self) {
        for (lane, other) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_add(*other);
        }
    }

    /// Takes away another set.
    fn remove_all(&mut self, other: &Self) {
        for (lane, other) in self.0.iter_mut().zip(other.0.iter()) {
            *lane = lane.wrapping_sub(*other);
        }
    }

    /// The 2 048 bytes of lanes, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Takes back the bytes of [`LtHash::to_bytes`]; `None` for another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != 2 * LANES {
            return None;
        }
        let mut hash = Self::default();
        for (lane, pair) in hash.0.iter_mut().zip(bytes.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(hash)
    }

    /// SHA-256 of the lanes: what `facts` carry.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.to_bytes())
    }
}

impl Default for LtHash {
    fn default() -> Self {
        Self(Box::new([0; LANES]))
    }
}

impl std::fmt::Debug for LtHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LtHash({:02x?}…)", &self.digest()[..4])
    }
}

/// Count, sum and lanes of one set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetSummary {
    /// How many ids.
    pub count: u64,
    /// Their sum.
    pub sum: IdSum,
    /// Their lanes.
    pub lanes: LtHash,
}

impl SetSummary {
    /// Adds an id that is not in the set.
    pub fn add(&mut self, id: &[u8; 32]) {
        self.count += 1;
        self.sum.add(id);
        self.lanes.add(id);
    }

    /// First 16 bytes of the negentropy fingerprint: equal for equal sets. Spec: ibgib §13.3.
    pub fn fingerprint(&self) -> [u8; 16] {
        crate::negentropy::fingerprint(&self.sum, self.count)
    }

    /// Adds another set that has nothing in common with this one.
    pub fn add_all(&mut self, other: &Self) {
        self.count += other.count;
        self.sum.merge(&other.sum);
        self.lanes.add_all(&other.lanes);
    }

    /// Takes away another set. When it is no subset, what is left equals no set.
    pub fn remove_all(&mut self, other: &Self) {
        self.count = self.count.saturating_sub(other.count);
        self.sum.sub(&other.sum.0);
        self.lanes.remove_all(&other.lanes);
    }

    /// Takes away an id that is in the set.
    pub fn sub(&mut self, id: &[u8; 32]) {
        self.count -= 1;
        self.sum.sub(id);
        self.lanes.sub(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> [u8; 32] {
        sha256(&number.to_be_bytes())
    }

    #[test]
    fn the_context_is_the_one_it_is_said_to_be() {
        assert_eq!(CONTEXT, DeriveContext::of("sealtide set digest v1"));
    }

    #[test]
    fn carries_run_through_all_bytes_and_wrap() {
        let mut sum = IdSum([0xff; 32]);
        let mut one = [0; 32];
        one[0] = 1;
        sum.add(&one);
        assert_eq!(sum, IdSum::default());
        sum.sub(&one);
        assert_eq!(sum, IdSum([0xff; 32]));
    }

    // Proves: SY-93
    #[test]
    fn a_summary_changed_step_by_step_equals_a_recount() {
        let mut summary = SetSummary::default();
        (0..300).for_each(|number| summary.add(&id(number)));
        (100..200).for_each(|number| summary.sub(&id(number)));
        let mut recount = SetSummary::default();
        (200..300).rev().chain(0..100).for_each(|number| recount.add(&id(number)));
        assert_eq!(summary, recount);
        assert_eq!(summary.lanes.digest(), recount.lanes.digest());
        let (mut part, mut rest) = (SetSummary::default(), summary.clone());
        (200..300).for_each(|number| part.add(&id(number)));
        rest.remove_all(&part);
        let mut hundred = SetSummary::default();
        (0..100).for_each(|number| hundred.add(&id(number)));
        assert_eq!(rest, hundred);
        rest.add_all(&part);
        assert_eq!(rest, summary);
        assert_eq!(LtHash::from_bytes(&summary.lanes.to_bytes()), Some(recount.lanes));
    }
}
