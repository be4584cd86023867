//! The tables of the index on disk: rows of a fixed size, sorted as bytes. Spec: store, "Runs".

use sealtide_crypto::sha256;
use sealtide_ibgib::{ChunkHash, Sid, TimelineId};
use sealtide_identity::NodeId;

use crate::pack::Place;
use crate::tips::Head;

/// Rows of one page: between two of them lie a first key, a sum and a checksum.
pub(crate) const PAGE_ROWS: usize = 64;

/// One table. The order is that of the pages in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    /// sid 32, order key u64, place 12, encoded length u32.
    Records,
    /// space number u32, order key u64, sid 32, place 12, encoded length u32: the members, with sums of their sids. Where they lie saves who
    /// reads them in order a look-up of each.
    Members,
    /// space number u32, address hash 16, sid 32.
    Addresses,
    /// space number u32, timeline 32, n u64, sid 32.
    Frames,
    /// chunk hash 32, place 12, length u32.
    Chunks,
    /// space number u32, chunk hash 32, count u32: how many members list the chunk. Counts of several runs add up.
    References,
    /// space number u32, first 8 bytes of SHA-256 of an address, sid 32: the commit stones that name the address.
    Named,
    /// space number u32, node 32, u64::MAX − seq, sid 32: the commit stones of each node, the greatest seq first.
    Makers,
    /// space number u32, order key u64, level-0 id 32, count i32: the tips, with sums of their ids. A tip that is none
    /// any more is a row with the count −1.
    Tips,
    /// space number u32, timeline 32, sid 32, level-0 id 32, order key u64, place 12, encoded length u32, count i32: the
    /// tips of each timeline.
    Heads,
    /// space number u32, level-0 id 32, order key u64, place 12, encoded length u32, count i32: where the tips lie.
    TipPlaces,
    /// space number u32, first 8 bytes of SHA-256 of the ib of a first frame, timeline 32.
    Kinds,
}

/// Bytes of a row of [`Table::Named`].
pub(crate) const NAMED_BYTES: usize = 44;
/// Bytes of a row of [`Table::Makers`].
pub(crate) const MAKER_BYTES: usize = 76;

/// Bytes of a row of [`Table::Kinds`].
pub(crate) const KIND_BYTES: usize = 44;

/// The sizes of a table's rows, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) row: usize,
    /// The front of the row, by which it is told from others.
    pub(crate) key: usize,
    /// How much of the first key of each page is kept in memory.
    pub(crate) fence: usize,
    /// How much of the key goes into the filter; 0 for a table without one.
    pub(crate) filter: usize,
    /// Whether the 32 bytes at the end of the key are summed up.
    pub(crate) summed: bool,
    /// Whether the row ends with a count that adds up; rows that add up to 0 are none.
    pub(crate) counted: bool,
}

impl Table {
    pub(crate) const ALL: [Self; 12] = [
        Self::Records,
        Self::Members,
        Self::Addresses,
        Self::Frames,
        Self::Chunks,
        Self::References,
        Self::Named,
        Self::Makers,
        Self::Tips,
        Self::Heads,
        Self::TipPlaces,
        Self::Kinds,
    ];

    pub(crate) const fn shape(self) -> Shape {
        let plain = Shape { row: 0, key: 0, fence: 0, filter: 0, summed: false, counted: false };
        match self {
            Self::Records => Shape { row: 56, key: 32, fence: 16, filter: 32, ..plain },
            Self::Members => Shape { row: 60, key: 44, fence: 24, summed: true, ..plain },
            Self::Addresses => Shape { row: 52, key: 52, fence: 20, filter: 20, ..plain },
            Self::Frames => Shape { row: 76, key: 76, fence: 44, ..plain },
            Self::Chunks => Shape { row: 48, key: 32, fence: 16, filter: 32, ..plain },
            Self::References => Shape { row: 40, key: 36, fence: 20, counted: true, ..plain },
            Self::Named => Shape { row: NAMED_BYTES, key: NAMED_BYTES, fence: 20, ..plain },
            Self::Makers => Shape { row: MAKER_BYTES, key: MAKER_BYTES, fence: 44, ..plain },
            Self::Tips => Shape { row: 48, key: 44, fence: 24, summed: true, counted: true, ..plain },
            Self::Heads => Shape { row: 128, key: 68, fence: 20, filter: 36, counted: true, ..plain },
            Self::TipPlaces => Shape { row: 64, key: 36, fence: 20, filter: 36, counted: true, ..plain },
            Self::Kinds => Shape { row: KIND_BYTES, key: KIND_BYTES, fence: 20, ..plain },
        }
    }

    /// Whether the row says that a chunk was freed, or a record erased.
    pub(crate) fn is_given_up(self, row: &[u8]) -> bool {
        match self {
            Self::Records => read_record_row(row).is_erased(),
            Self::Chunks => read_chunk_row(row).1 == 0,
            _ => false,
        }
    }

    /// Whether the rows begin with the number of a space: all but those of two tables do.
    pub(crate) fn is_of_spaces(self) -> bool {
        !matches!(self, Self::Records | Self::Chunks)
    }

    /// The number of the space that a row, or the front of one, is about.
    pub(crate) fn space_of(self, row: &[u8]) -> Option<u32> {
        row.first_chunk().filter(|_| self.is_of_spaces()).map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// Joins the parts of a row or key of exactly `N` bytes.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    let mut at = 0;
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, N, "the parts of a row fill it");
    out
}

fn place_bytes(place: Place) -> [u8; 12] {
    join(&[&place.pack.to_be_bytes(), &place.offset.to_be_bytes(), &place.body_len.to_be_bytes()])
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

fn read_place(bytes: &[u8]) -> Place {
    Place { pack: number(&bytes[..4]), offset: number(&bytes[4..8]), body_len: number(&bytes[8..12]) }
}

/// What the index knows of a stored record without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) order: u64,
    pub(crate) place: Place,
    /// 0 once the record was erased.
    pub(crate) encoded_len: u32,
}

impl Stored {
    pub(crate) fn is_erased(&self) -> bool {
        self.encoded_len == 0
    }
}

fn stored_bytes(stored: &Stored) -> [u8; 24] {
    let order = stored.order.to_be_bytes();
    join(&[&order, &place_bytes(stored.place), &stored.encoded_len.to_be_bytes()])
}

fn read_stored(bytes: &[u8]) -> Stored {
    let mut order = [0; 8];
    order.copy_from_slice(&bytes[..8]);
    Stored { order: u64::from_be_bytes(order), place: read_place(&bytes[8..20]), encoded_len: number(&bytes[20..24]) }
}

pub(crate) fn record_row(sid: &Sid, stored: &Stored) -> [u8; 56] {
    join(&[&sid.0, &stored_bytes(stored)])
}

pub(crate) fn read_record_row(row: &[u8]) -> Stored {
    read_stored(&row[32..56])
}

pub(crate) fn member_key(space: u32, order: u64, sid: &[u8; 32]) -> [u8; 44] {
    join(&[&space.to_be_bytes(), &order.to_be_bytes(), sid])
}

pub(crate) fn member_row(space: u32, sid: &Sid, stored: &Stored) -> [u8; 60] {
    let key = member_key(space, stored.order, &sid.0);
    join(&[&key, &place_bytes(stored.place), &stored.encoded_len.to_be_bytes()])
}

/// Sid and place of a member row.
pub(crate) fn read_member_row(row: &[u8]) -> (Sid, Stored) {
    let (order, sid) = read_member_key(row);
    (Sid(sid), Stored { order, place: read_place(&row[44..56]), encoded_len: number(&row[56..60]) })
}

/// Order key and id of a row of members or tips.
pub(crate) fn read_member_key(row: &[u8]) -> (u64, [u8; 32]) {
    let mut order = [0; 8];
    order.copy_from_slice(&row[4..12]);
    (u64::from_be_bytes(order), id_at(row, 12))
}

fn id_at(row: &[u8], at: usize) -> [u8; 32] {
    let mut id = [0; 32];
    id.copy_from_slice(&row[at..at + 32]);
    id
}

/// The sid that ends the rows of addresses and frames.
pub(crate) fn last_sid(row: &[u8]) -> Sid {
    let mut sid = [0; 32];
    sid.copy_from_slice(&row[row.len() - 32..]);
    Sid(sid)
}

pub(crate) fn address_key(space: u32, address: &[u8; 16]) -> [u8; 20] {
    join(&[&space.to_be_bytes(), address])
}

pub(crate) fn address_row(space: u32, address: &[u8; 16], sid: &Sid) -> [u8; 52] {
    join(&[&space.to_be_bytes(), address, &sid.0])
}

pub(crate) fn frame_key(space: u32, timeline: &TimelineId, n: u64) -> [u8; 44] {
    join(&[&space.to_be_bytes(), &timeline.0, &n.to_be_bytes()])
}

pub(crate) fn frame_row(space: u32, timeline: &TimelineId, n: u64, sid: &Sid) -> [u8; 76] {
    join(&[&frame_key(space, timeline, n), &sid.0])
}

/// Timeline and n of a frame row.
pub(crate) fn read_frame_row(row: &[u8]) -> (TimelineId, u64) {
    let (mut timeline, mut n) = ([0; 32], [0; 8]);
    timeline.copy_from_slice(&row[4..36]);
    n.copy_from_slice(&row[36..44]);
    (TimelineId(timeline), u64::from_be_bytes(n))
}

pub(crate) fn chunk_row(hash: &ChunkHash, place: Place, len: u32) -> [u8; 48] {
    join(&[&hash.0, &place_bytes(place), &len.to_be_bytes()])
}

/// Place and length of a chunk row.
pub(crate) fn read_chunk_row(row: &[u8]) -> (Place, u32) {
    (read_place(&row[32..44]), number(&row[44..48]))
}

pub(crate) fn reference_key(space: u32, hash: &ChunkHash) -> [u8; 36] {
    join(&[&space.to_be_bytes(), &hash.0])
}

pub(crate) fn reference_row(space: u32, hash: &ChunkHash, count: u32) -> [u8; 40] {
    join(&[&reference_key(space, hash), &count.to_be_bytes()])
}

/// The chunk of a reference row.
pub(crate) fn read_reference(row: &[u8]) -> ChunkHash {
    ChunkHash(id_at(row, 4))
}

pub(crate) fn named_key(space: u32, tip: u64) -> [u8; 12] {
    join(&[&space.to_be_bytes(), &tip.to_be_bytes()])
}

pub(crate) fn named_row(space: u32, tip: u64, sid: &Sid) -> [u8; NAMED_BYTES] {
    join(&[&named_key(space, tip), &sid.0])
}

pub(crate) fn maker_key(space: u32, node: &NodeId) -> [u8; 36] {
    join(&[&space.to_be_bytes(), node.as_bytes()])
}

pub(crate) fn maker_row(space: u32, node: &NodeId, seq: u64, sid: &Sid) -> [u8; MAKER_BYTES] {
    join(&[&maker_key(space, node), &(u64::MAX - seq).to_be_bytes(), &sid.0])
}

/// The node of a maker row.
pub(crate) fn read_maker(row: &[u8]) -> NodeId {
    let mut node = [0; 32];
    node.copy_from_slice(&row[4..36]);
    NodeId::from_bytes(node)
}

pub(crate) fn tip_key(space: u32, order: u64, id: &[u8; 32]) -> [u8; 44] {
    member_key(space, order, id)
}

/// 1 for a tip, −1 for one of another run that is none any more.
fn sign(gone: bool) -> [u8; 4] {
    if gone { (-1i32).to_be_bytes() } else { 1i32.to_be_bytes() }
}

pub(crate) fn tip_row(space: u32, head: &Head, gone: bool) -> [u8; 48] {
    join(&[&tip_key(space, head.stored.order, &head.id), &sign(gone)])
}

pub(crate) fn head_key(space: u32, timeline: &TimelineId) -> [u8; 36] {
    join(&[&space.to_be_bytes(), &timeline.0])
}

pub(crate) fn head_row(space: u32, head: &Head, gone: bool) -> [u8; 128] {
    let key = head_key(space, &head.timeline);
    join(&[&key, &head.sid.0, &head.id, &stored_bytes(&head.stored), &sign(gone)])
}

pub(crate) fn read_head_row(row: &[u8]) -> Head {
    let (timeline, sid) = (TimelineId(id_at(row, 4)), Sid(id_at(row, 36)));
    Head { timeline, sid, id: id_at(row, 68), stored: read_stored(&row[100..124]) }
}

pub(crate) fn tip_place_key(space: u32, id: &[u8; 32]) -> [u8; 36] {
    join(&[&space.to_be_bytes(), id])
}

pub(crate) fn tip_place_row(space: u32, head: &Head, gone: bool) -> [u8; 64] {
    join(&[&tip_place_key(space, &head.id), &stored_bytes(&head.stored), &sign(gone)])
}

pub(crate) fn read_tip_place(row: &[u8]) -> Stored {
    read_stored(&row[36..60])
}

/// First 8 bytes of SHA-256 of the ib of a first frame.
pub(crate) type KindHash = [u8; 8];

pub(crate) fn kind_hash(ib: &str) -> KindHash {
    let mut hash = [0; 8];
    hash.copy_from_slice(&sha256(ib.as_bytes())[..8]);
    hash
}

pub(crate) fn kind_key(space: u32, kind: &KindHash) -> [u8; 12] {
    join(&[&space.to_be_bytes(), kind])
}

pub(crate) fn kind_row(space: u32, kind: &KindHash, timeline: &TimelineId) -> [u8; KIND_BYTES] {
    join(&[&kind_key(space, kind), &timeline.0])
}

/// The count that ends a row of a counted table, as a number modulo 2³².
pub(crate) fn row_count(row: &[u8]) -> u32 {
    number(&row[row.len() - 4..])
}

pub(crate) fn set_count(row: &mut [u8], count: u32) {
    let at = row.len() - 4;
    row[at..].copy_from_slice(&count.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_and_have_their_size() {
        let place = Place { pack: 1, offset: 2, body_len: 0xffff_fff0 };
        let (sid, hash, timeline) = (Sid([1; 32]), ChunkHash([2; 32]), TimelineId([3; 32]));
        let stored = Stored { order: 1 << 63, place, encoded_len: 9 };
        assert_eq!(read_record_row(&record_row(&sid, &stored)), stored);
        assert_eq!(read_member_row(&member_row(7, &sid, &stored)), (sid, stored));
        assert_eq!(last_sid(&address_row(7, &[4; 16], &sid)), sid);
        assert_eq!(read_frame_row(&frame_row(7, &timeline, 5, &sid)), (timeline, 5));
        assert_eq!(read_chunk_row(&chunk_row(&hash, place, 6)), (place, 6));
        assert_eq!(row_count(&reference_row(7, &hash, 70_000)), 70_000);
        assert_eq!(last_sid(&named_row(7, 8, &sid)), sid);
        let node = NodeId::from_bytes([5; 32]);
        assert_eq!(read_maker(&maker_row(7, &node, 8, &sid)), node);
        assert!(maker_row(7, &node, 9, &sid) < maker_row(7, &node, 8, &sid), "the greatest seq first");
        let head = Head { timeline, sid, id: [4; 32], stored };
        assert_eq!(read_head_row(&head_row(7, &head, true)), head);
        assert_eq!(read_tip_place(&tip_place_row(7, &head, false)), stored);
        assert_eq!(read_member_key(&tip_row(7, &head, false)), (stored.order, head.id));
        assert_eq!(row_count(&tip_row(7, &head, false)).wrapping_add(row_count(&tip_row(7, &head, true))), 0);
        assert_eq!(kind_row(7, &kind_hash("doc"), &timeline)[12..], timeline.0);
        let sizes = [56, 60, 52, 76, 48, 40, 44, 76, 48, 128, 64, 44];
        assert_eq!(Table::ALL.map(|table| table.shape().row), sizes);
        assert_eq!(Table::Frames.space_of(&frame_row(7, &timeline, 5, &sid)), Some(7));
        assert_eq!(Table::Records.space_of(&record_row(&sid, &stored)), None);
    }

    #[test]
    fn rows_sort_as_their_parts_do() {
        let sid = [9; 32];
        assert!(member_key(1, u64::MAX, &sid) < member_key(2, 0, &[0; 32]));
        assert!(member_key(1, 255, &sid) < member_key(1, 256, &[0; 32]));
        assert!(frame_row(1, &TimelineId([1; 32]), 300, &Sid(sid)) > frame_row(1, &TimelineId([1; 32]), 2, &Sid(sid)));
    }
}
