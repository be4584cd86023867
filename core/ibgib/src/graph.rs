//! Dependency graphs: everything that some records reach through their relations, frozen or live. Spec: ibgib §4.
//!
//! The walk is depth first, without recursion, and holds no record but the one it visits: addresses still to visit
//! in packed form, and 24 bytes for each address met. One million records stay under 64 MiB. Content addressing
//! makes cycles impossible; a source that invents one is still walked once only, because an address met is never
//! met again.

use std::collections::{BTreeSet, VecDeque};

use sealtide_crypto::sha256;

use crate::{Address, Verified};

/// Where a walk finds records: a space, or anything that stands for one.
pub trait GraphSource {
    /// The record at an address, in the shape with relations ([`crate::Reader::Graph`]).
    fn load(&mut self, address: &Address) -> Option<Verified>;

    /// The newest frame of the timeline that begins with `first`; all its tips while it is diverged. Asked for once
    /// per timeline, and in live walks only.
    fn newest(&mut self, first: &Address) -> Vec<Address> {
        let _ = first;
        Vec::new()
    }
}

/// How a graph is walked.
#[derive(Clone, Debug, Default)]
pub struct GraphOptions {
    /// Follow each timeline that is met to its newest frame too.
    pub live: bool,
    /// Addresses left out; what is reached through them alone is left out as well.
    pub skip_addresses: BTreeSet<Address>,
    /// Relations that are not followed.
    pub skip_relations: BTreeSet<String>,
    /// When given, the only relations that are followed.
    pub only_relations: Option<BTreeSet<String>>,
    /// Records visited, at most; one more is an error. `None` is no limit.
    pub records_max: Option<u64>,
}

impl GraphOptions {
    fn follows(&self, relation: &str) -> bool {
        !self.skip_relations.contains(relation)
            && self.only_relations.as_ref().is_none_or(|only| only.contains(relation))
    }
}

/// Why a graph could not be walked to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// A primitive was asked for: it has no record.
    #[error("{0} is a primitive and has no dependencies")]
    Primitive(Address),
    /// A record that the graph needs is not there.
    #[error("{0} is not there")]
    Missing(Address),
    /// More records than [`GraphOptions::records_max`].
    #[error("the graph has more than {0} records")]
    TooMany(u64),
}

/// Visits `roots` and everything reachable from them, each record once; primitives are left out. Returns how many
/// were visited. The order is the same in every run over the same records. Spec: SY-15.
///
/// # Errors
/// [`GraphError`]; what was visited before stays visited.
pub fn dependency_graph(
    roots: &[Address],
    options: &GraphOptions,
    source: &mut dyn GraphSource,
    visit: &mut dyn FnMut(&Verified),
) -> Result<u64, GraphError> {
    let (mut met, mut timelines) = (DigestSet::new(), DigestSet::new());
    let mut pending = AddressStack::default();
    let mut visited = 0u64;
    for root in roots {
        if root.is_primitive() {
            return Err(GraphError::Primitive(root.clone()));
        }
        meet(root, options, &mut met, &mut pending);
        while let Some(address) = pending.pop() {
            let record = source.load(&address).ok_or(GraphError::Missing(address))?;
            if let Some(max) = options.records_max.filter(|max| visited >= *max) {
                return Err(GraphError::TooMany(max));
            }
            visited += 1;
            visit(&record);
            // The last one noted is visited first: content before the past, so that bins do not pile up.
            let followed = record.relations().iter().rev().filter(|(relation, _)| options.follows(relation));
            for link in followed.flat_map(|(_, links)| links.iter().rev()) {
                meet(link, options, &mut met, &mut pending);
            }
            if options.live
                && let Some(facts) = record.frame()
                && timelines.insert(&facts.tjp)
            {
                source.newest(&facts.tjp).iter().for_each(|tip| meet(tip, options, &mut met, &mut pending));
            }
        }
    }
    Ok(visited)
}

/// Notes an address for a visit unless it was met before, is a primitive, or is to be skipped.
fn meet(address: &Address, options: &GraphOptions, met: &mut DigestSet, pending: &mut AddressStack) {
    if !address.is_primitive() && !options.skip_addresses.contains(address) && met.insert(address) {
        pending.push(address);
    }
}

/// A set of addresses, each as the first 24 bytes of its SHA-256, in sorted buckets of a few hundred. A tree would
/// take half as much again, and a hash table twice as much while it grows.
struct DigestSet {
    buckets: Vec<Vec<[u8; 24]>>,
}

impl DigestSet {
    const BUCKETS: usize = 4096;

    fn new() -> Self {
        Self { buckets: vec![Vec::new(); Self::BUCKETS] }
    }

    /// Whether the address was new.
    fn insert(&mut self, address: &Address) -> bool {
        let digest = sha256(address.as_str().as_bytes());
        let digest: [u8; 24] = digest[..24].try_into().expect("24 of 32 bytes");
        let number = usize::from(u16::from_be_bytes([digest[0], digest[1]])) * Self::BUCKETS / 65_536;
        let bucket = &mut self.buckets[number];
        let Err(place) = bucket.binary_search(&digest) else { return false };
        if bucket.len() == bucket.capacity() {
            bucket.reserve_exact(bucket.len() / 8 + 4);
        }
        bucket.insert(place, digest);
        true
    }
}

/// A stack of addresses in packed form, in blocks so that it never holds twice its size while growing.
///
/// A stack may pile up: when every frame of a long timeline leaves a leaf behind, for instance. Over
/// [`BLOCKS_MAX`] blocks the oldest are emptied first, which is where such leaves are.
#[derive(Default)]
struct AddressStack {
    blocks: VecDeque<Vec<u8>>,
}

/// Stands for 64 upper-case hex digits, whose 32 bytes follow. Like the other it never occurs in UTF-8.
const PACKED_UPPER: u8 = 0xff;
/// Stands for 64 lower-case hex digits.
const PACKED_LOWER: u8 = 0xfe;
const BLOCK_BYTES: usize = 64 * 1024;
const BLOCKS_MAX: usize = 256;

impl AddressStack {
    fn push(&mut self, address: &Address) {
        if self.blocks.back().is_none_or(|block| block.len() >= BLOCK_BYTES) {
            self.blocks.push_back(Vec::with_capacity(BLOCK_BYTES + 256));
        }
        let block = self.blocks.back_mut().expect("a block was just made sure of");
        let start = block.len();
        pack(address.as_str().as_bytes(), block);
        let packed_bytes = (block.len() - start) as u32;
        block.extend_from_slice(&packed_bytes.to_le_bytes());
    }

    fn pop(&mut self) -> Option<Address> {
        let last = self.blocks.len().checked_sub(1)?;
        let at = if last < BLOCKS_MAX { last } else { 0 };
        let block = &mut self.blocks[at];
        let (rest, length) = block.split_last_chunk::<4>().expect("a block holds at least one entry");
        let start = rest.len() - u32::from_le_bytes(*length) as usize;
        let text = unpack(&rest[start..]);
        block.truncate(start);
        if block.is_empty() {
            self.blocks.remove(at);
        }
        Some(Address::parse(&text).expect("packing keeps an address as it was"))
    }
}

fn pack(mut text: &[u8], out: &mut Vec<u8>) {
    use data_encoding::{HEXLOWER, HEXUPPER};
    // A hash begins where one of these ends; looking nowhere else keeps this cheap.
    let mut before = b'^';
    while let Some((first, rest)) = text.split_first() {
        let mut hash = [0u8; 32];
        let digits = text.get(..64).filter(|_| matches!(before, b'^' | b'.' | b' '));
        let mark = [(PACKED_UPPER, HEXUPPER), (PACKED_LOWER, HEXLOWER)]
            .into_iter()
            .find(|(_, hex)| digits.is_some_and(|digits| hex.decode_mut(digits, &mut hash).is_ok()));
        if let Some((mark, _)) = mark {
            out.push(mark);
            out.extend_from_slice(&hash);
            text = &text[64..];
        } else {
            out.push(*first);
            text = rest;
        }
        before = *first;
    }
}

fn unpack(mut packed: &[u8]) -> String {
    use data_encoding::{HEXLOWER, HEXUPPER};
    let mut text = Vec::with_capacity(160);
    while let Some((first, rest)) = packed.split_first() {
        let hex = match *first {
            PACKED_UPPER => HEXUPPER,
            PACKED_LOWER => HEXLOWER,
            byte => {
                text.push(byte);
                packed = rest;
                continue;
            }
        };
        let (hash, rest) = rest.split_at(32);
        text.extend_from_slice(hex.encode(hash).as_bytes());
        packed = rest;
    }
    String::from_utf8(text).expect("packing keeps the bytes of a text")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packing_goes_round(texts in prop::collection::vec("([A-F0-9]{64}[.^]?|[a-f0-9]{64} |[A-Fa-f0-9]{1,70}|\\PC{0,4}){1,4}", 0..20)) {
            for text in &texts {
                let mut packed = Vec::new();
                pack(text.as_bytes(), &mut packed);
                prop_assert_eq!(&unpack(&packed), text);
                prop_assert!(packed.len() <= text.len());
            }
        }
    }

    #[test]
    fn a_stack_gives_back_in_reverse_over_blocks() {
        let address = |number: u32| {
            Address::parse(&format!("file {number}^{}", data_encoding::HEXUPPER.encode(&sha256(&number.to_le_bytes()))))
                .unwrap()
        };
        let mut stack = AddressStack::default();
        (0..5000).for_each(|number| stack.push(&address(number)));
        assert!(stack.blocks.len() > 2);
        (0..5000).rev().for_each(|number| assert_eq!(stack.pop(), Some(address(number))));
        assert_eq!(stack.pop(), None);
    }

    #[test]
    fn a_stack_that_piles_up_is_emptied_from_below() {
        let address = |number: u32| Address::parse(&format!("{number:0>4000}^gib")).unwrap();
        let many = (BLOCKS_MAX * BLOCK_BYTES / 4000 * 2) as u32;
        let mut stack = AddressStack::default();
        (0..many).for_each(|number| stack.push(&address(number)));
        assert!(stack.pop().unwrap() < address(100));
        let rest: BTreeSet<Address> = std::iter::from_fn(|| stack.pop()).collect();
        assert_eq!(rest.len() as u32, many - 1);
    }

    #[test]
    fn a_digest_set_tells_new_from_known() {
        let mut set = DigestSet::new();
        let address = |number: u32| Address::parse(&format!("{number}^gib")).unwrap();
        assert!((0..20_000).all(|number| set.insert(&address(number))));
        assert!((0..20_000).all(|number| !set.insert(&address(number))));
        assert!(set.insert(&address(20_000)));
    }
}
