//! What this side has asked for and may therefore receive. Spec: ibgib §13.2 WANT, SY-53

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealtide_ibgib::{Address, CHUNK_BYTES_MAX, ChunkHash, ChunkRef, Sid, TimelineId, Verified};

use super::Fault;
use super::salted::Salt;
use crate::message::{WANT_FRAMES_MAX, WANT_IDS_MAX, WANT_NAMES_MAX, WANT_RANGES_MAX, Want};

/// Chunk WANTs open at once: each may have one chunk in memory.
const CHUNK_WANTS_MAX: usize = 4;
/// Chunks in one WANT.
const CHUNKS_PER_WANT: usize = 16;
/// Shapes of one address.
const SHAPES_MAX: u8 = 3;

/// Questions that wait and questions that are open.
#[derive(Debug, Default)]
pub(super) struct Wants {
    number: u64,
    open: BTreeMap<u64, Asked>,
    tips: VecDeque<[u8; 32]>,
    sids: VecDeque<[u8; 32]>,
    /// What the ids in `sids` are salted with.
    salt: Option<Salt>,
    ranges: VecDeque<(TimelineId, u64, u64)>,
    addresses: VecDeque<Address>,
    chunks: VecDeque<ChunkRef>,
    bulk: Option<Option<(u64, Sid)>>,
    /// What has come for each open WANT of ranges or addresses.
    came: BTreeMap<u64, BTreeSet<Sid>>,
}

/// An open WANT: what may still come.
#[derive(Debug)]
pub(super) enum Asked {
    /// Sids, salted or not, and what they are salted with.
    Sids(BTreeSet<[u8; 32]>, Option<Salt>),
    /// Addresses, and how many shapes of each have come.
    Addresses(BTreeMap<Address, u8>),
    /// Ranges, and whether any frame has come.
    Ranges(Vec<(TimelineId, u64, u64)>, bool),
    /// Ids of level 0.
    Tips(BTreeSet<[u8; 32]>),
    /// The bulk stream, and where it stands.
    Bulk(Option<(u64, Sid)>),
    /// Chunks in the order asked; the first is being put together.
    Chunks(VecDeque<ChunkRef>, Vec<u8>),
}

impl Wants {
    pub(super) fn ask_tips(&mut self, ids: impl IntoIterator<Item = [u8; 32]>) {
        self.tips.extend(ids);
    }

    /// Asks for records by sid, or by salted sid.
    pub(super) fn ask_sids(&mut self, ids: impl IntoIterator<Item = [u8; 32]>, salt: Option<Salt>) {
        self.sids.extend(ids);
        self.salt = salt;
    }

    pub(super) fn ask_range(&mut self, timeline: TimelineId, from: u64, to: u64) {
        self.ranges.push_back((timeline, from, to));
    }

    pub(super) fn ask_address(&mut self, address: Address) {
        self.addresses.push_back(address);
    }

    pub(super) fn ask_chunk(&mut self, chunk: ChunkRef) {
        self.chunks.push_back(chunk);
    }

    pub(super) fn ask_bulk(&mut self, after: Option<(u64, Sid)>) {
        self.bulk = Some(after);
    }

    /// Whether everything was answered.
    pub(super) fn idle(&self) -> bool {
        self.open.is_empty() && !self.waiting()
    }

    /// Whether every tip that was asked for is named. Chunks that an earlier run left out may be under way already.
    pub(super) fn tips_named(&self) -> bool {
        self.tips.is_empty() && !self.open.values().any(|asked| matches!(asked, Asked::Tips(_)))
    }

    pub(super) fn any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether the WANT is the bulk stream.
    pub(super) fn streams(&self, number: u64) -> bool {
        matches!(self.open.get(&number), Some(Asked::Bulk(_)))
    }

    /// Items and bytes that wait to be asked for.
    pub(super) fn outstanding(&self) -> (u64, u64) {
        let frames = self.ranges.iter().fold(0u64, |sum, (_, from, to)| sum.saturating_add(to - from + 1));
        let bytes = self.chunks.iter().map(|chunk| u64::from(chunk.length)).sum();
        (frames.saturating_add((self.sids.len() + self.chunks.len()) as u64), bytes)
    }

    fn waiting(&self) -> bool {
        self.bulk.is_some()
            || !(self.tips.is_empty()
                && self.sids.is_empty()
                && self.ranges.is_empty()
                && self.addresses.is_empty()
                && self.chunks.is_empty())
    }

    /// The next WANT to send, if fewer than `open_max` are open.
    pub(super) fn next(&mut self, open_max: usize) -> Option<(u64, Want)> {
        if self.open.len() >= open_max {
            return None;
        }
        let (want, asked) = self.cut()?;
        self.number += 1;
        self.open.insert(self.number, asked);
        Some((self.number, want))
    }

    fn cut(&mut self) -> Option<(Want, Asked)> {
        if !self.tips.is_empty() {
            let ids: Vec<_> = self.tips.drain(..self.tips.len().min(WANT_IDS_MAX)).collect();
            return Some((Want::Tips(ids.clone()), Asked::Tips(ids.into_iter().collect())));
        }
        if !self.sids.is_empty() {
            let ids: Vec<_> = self.sids.drain(..self.sids.len().min(WANT_IDS_MAX)).collect();
            let want = Want::Sids(ids.iter().map(|id| Sid(*id)).collect());
            return Some((want, Asked::Sids(ids.into_iter().collect(), self.salt)));
        }
        if !self.ranges.is_empty() {
            let ranges = self.cut_ranges();
            return Some((Want::Ranges(ranges.clone()), Asked::Ranges(ranges, false)));
        }
        if !self.addresses.is_empty() {
            let names = self.cut_addresses();
            let asked = names.iter().map(|name| (name.clone(), 0)).collect();
            return Some((Want::Addresses(names), Asked::Addresses(asked)));
        }
        if let Some(after) = self.bulk.take() {
            return Some((Want::Bulk(after), Asked::Bulk(after)));
        }
        let chunk_wants = self.open.values().filter(|asked| matches!(asked, Asked::Chunks(..))).count();
        if self.chunks.is_empty() || chunk_wants >= CHUNK_WANTS_MAX {
            return None;
        }
        let chunks: VecDeque<_> = self.chunks.drain(..self.chunks.len().min(CHUNKS_PER_WANT)).collect();
        let list = chunks.iter().map(|chunk| (chunk.hash, 0)).collect();
        Some((Want::Chunks(list), Asked::Chunks(chunks, Vec::new())))
    }

    fn cut_ranges(&mut self) -> Vec<(TimelineId, u64, u64)> {
        let (mut ranges, mut room) = (Vec::new(), WANT_FRAMES_MAX);
        while room > 0
            && ranges.len() < WANT_RANGES_MAX
            && let Some((timeline, from, to)) = self.ranges.pop_front()
        {
            let end = to.min(from.saturating_add(room - 1));
            ranges.push((timeline, from, end));
            room -= end - from + 1;
            if end < to {
                self.ranges.push_front((timeline, end + 1, to));
            }
        }
        ranges
    }

    /// As many addresses as the count and half a message allow.
    fn cut_addresses(&mut self) -> Vec<Address> {
        let (mut names, mut room) = (Vec::new(), crate::MESSAGE_BYTES_MAX / 2);
        while names.len() < WANT_NAMES_MAX
            && let Some(address) = self.addresses.pop_front()
        {
            room = room.saturating_sub(address.as_str().len() + 9);
            names.push(address);
            if room == 0 {
                break;
            }
        }
        names
    }

    /// Whether a BATCH may answer this WANT at all.
    pub(super) fn expects_records(&self, number: u64) -> Result<(), Fault> {
        match self.open.get(&number) {
            Some(Asked::Sids(..) | Asked::Addresses(_) | Asked::Ranges(..) | Asked::Bulk(_)) => Ok(()),
            _ => Err(Fault::protocol("a BATCH for no open WANT")),
        }
    }

    /// Whether a record was asked for by this WANT. `goes_along` tells that it is a commit stone of a frame that came: such
    /// ones come with the frames of ranges and addresses.
    pub(super) fn admit(&mut self, number: u64, record: &Verified, goes_along: bool) -> Result<(), Fault> {
        let fits = match self.open.get_mut(&number) {
            Some(Asked::Sids(ids, salt)) => {
                let sid = record.sid().0;
                ids.remove(&salt.map_or(sid, |salt| salt.of(&sid)))
            }
            Some(Asked::Addresses(names)) => match names.get_mut(record.address()) {
                Some(shapes) if *shapes < SHAPES_MAX => {
                    *shapes += 1;
                    true
                }
                _ => goes_along,
            },
            Some(Asked::Ranges(..)) if goes_along => true,
            Some(Asked::Ranges(ranges, any)) => {
                *any = true;
                record.frame_ref().is_some_and(|frame| {
                    ranges
                        .iter()
                        .any(|(timeline, from, to)| *timeline == frame.timeline && (*from..=*to).contains(&frame.n))
                })
            }
            Some(Asked::Bulk(last)) => {
                let here = (record.order_key(), record.sid());
                last.replace(here).is_none_or(|before| before < here)
            }
            _ => false,
        };
        if !fits {
            return Err(Fault::protocol("a record that was not asked for"));
        }
        // Two WANTs may name one frame: an orphan by its address, and its neighbours by their counters. Within one
        // WANT a record comes once.
        match self.streams(number) || self.came.entry(number).or_default().insert(record.sid()) {
            true => Ok(()),
            false => Err(Fault::protocol("a record sent twice")),
        }
    }

    /// The WANT of records is answered.
    pub(super) fn answered(&mut self, number: u64) -> Result<(), Fault> {
        self.came.remove(&number);
        match self.open.remove(&number) {
            // A frame exists for each n up to the tip, so an honest answer is never empty. Without this rule a peer
            // could name a tip with a huge counter and have this side ask for ever.
            Some(Asked::Ranges(_, false)) => {
                Err(Fault::new(super::AbortCode::Incomplete, "no frame in a range that must hold some"))
            }
            Some(Asked::Sids(ids, _)) if !ids.is_empty() => {
                Err(Fault::new(super::AbortCode::Incomplete, "records that the peer named and does not have"))
            }
            Some(_) => Ok(()),
            None => Err(Fault::protocol("an answer to no open WANT")),
        }
    }

    /// Takes an id off a WANT of tips.
    pub(super) fn admit_tip(&mut self, number: u64, id: &[u8; 32]) -> Result<(), Fault> {
        let asked = match self.open.get_mut(&number) {
            Some(Asked::Tips(ids)) => ids.remove(id),
            _ => false,
        };
        if asked { Ok(()) } else { Err(Fault::protocol("a tip that was not asked for")) }
    }

    /// The WANT of tips is answered: all must have come, since the peer's facts counted them.
    pub(super) fn tips_answered(&mut self, number: u64) -> Result<(), Fault> {
        match self.open.remove(&number) {
            Some(Asked::Tips(ids)) if ids.is_empty() => Ok(()),
            Some(Asked::Tips(_)) => Err(Fault::new(super::AbortCode::Incomplete, "tips that the peer does not name")),
            _ => Err(Fault::protocol("a TIPLIST for no open WANT")),
        }
    }

    /// Takes a piece of a chunk. Spec: SY-66
    pub(super) fn admit_piece(
        &mut self,
        number: u64,
        hash: ChunkHash,
        offset: u32,
        piece: &[u8],
        end: bool,
    ) -> Result<Piece, Fault> {
        let Some(Asked::Chunks(chunks, have)) = self.open.get_mut(&number) else {
            return Err(Fault::protocol("CHUNKS for no open WANT"));
        };
        let Some(chunk) = chunks.front().copied().filter(|chunk| chunk.hash == hash) else {
            return Err(Fault::protocol("a chunk that was not asked for, or out of order"));
        };
        if offset as usize != have.len() {
            return Err(Fault::protocol("a piece of a chunk out of order"));
        }
        let absent = end && have.is_empty() && piece.is_empty();
        let length = chunk.length.min(CHUNK_BYTES_MAX) as usize;
        if have.len() + piece.len() > length || end && !absent && have.len() + piece.len() != length {
            return Err(Fault::new(super::AbortCode::BadRecord, "a chunk of another length than its manifest says"));
        }
        have.extend_from_slice(piece);
        if !end {
            return Ok(Piece::More);
        }
        let bytes = std::mem::take(have);
        chunks.pop_front();
        if chunks.is_empty() {
            self.open.remove(&number);
        }
        if absent {
            return Ok(Piece::Absent(chunk));
        }
        if sealtide_crypto::blake3(&bytes) != hash.0 {
            return Err(Fault::new(super::AbortCode::BadRecord, "a chunk with another hash"));
        }
        Ok(Piece::Whole(bytes))
    }
}

/// What a piece of a chunk did.
#[derive(Debug)]
pub(super) enum Piece {
    /// More must come.
    More,
    /// The chunk is complete and its hash is right.
    Whole(Vec<u8>),
    /// The peer does not have it.
    Absent(ChunkRef),
}
