//! Additive summaries of sets of 32-byte ids. Spec: ibgib §13.3.

use sealtide_crypto::sha256;

/// Sum of ids as little-endian integers modulo 2²⁵⁶.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdSum(pub [u8; 32]);

impl IdSum {
    /// Adds an id.
    pub fn add(&mut self, id: &[u8; 32]) {
        let mut carry = 0u16;
        for (sum, byte) in self.0.iter_mut().zip(id) {
            carry += u16::from(*sum) + u16::from(*byte);
            *sum = carry as u8;
            carry >>= 8;
        }
    }

    /// Takes an id away.
    pub fn sub(&mut self, id: &[u8; 32]) {
        let mut borrow = 0i16;
        for (sum, byte) in self.0.iter_mut().zip(id) {
            let difference = i16::from(*sum) - i16::from(*byte) - borrow;
            borrow = i16::from(difference < 0);
            *sum = (difference & 0xff) as u8;
        }
    }
}

/// LtHash16: 1 024 lanes of u16, added modulo 2¹⁶. Its SHA-256 decides whether two sets are equal. Spec: ibgib §13.3.
#[derive(Clone, PartialEq, Eq)]
pub struct LtHash(Box<[u16; LANES]>);

const LANES: usize = 1024;

impl LtHash {
    /// The lanes of one id: BLAKE3 in derive-key mode, context `sealtide set digest v1`.
    fn lanes(id: &[u8; 32]) -> [u8; 2 * LANES] {
        let mut out = [0; 2 * LANES];
        sealtide_crypto::blake3_derive("sealtide set digest v1", id, &mut out);
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

    /// Takes away an id that is in the set.
    pub fn sub(&mut self, id: &[u8; 32]) {
        self.count -= 1;
        self.sum.sub(id);
        self.lanes.sub(id);
    }
}
