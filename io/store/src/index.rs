//! The index: what came since the last sealed pack is in memory, what lies before in runs. The same code applies an
//! entry that was just written and one that is read back, so both give the same state. Spec: store, "Index".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use sealtide_ibgib::{Address, ChunkHash, Sid, TimelineId};
use sealtide_identity::SpaceId;
use sealtide_sync::{SagaId, SagaState};
use smallvec::SmallVec;

use crate::draft::Draft;
use crate::entry::{
    CHUNK_LINE_BYTES, CommitLine, DraftStep, Entry, ErasedLine, HEAD_BYTES, Move, RecordLine, StoneLine,
};
use crate::pack::{Hole, Packs, Place};
use crate::run::{Run, Unreadable};
use crate::runs::{Joined, Runs};
use crate::space::{Moved, SpaceState, tip_id};
use crate::table::{KindHash, Stored, Table, kind_hash, member_key, read_chunk_row, read_reference, reference_key};
use crate::tips::Head;

/// What is kept in memory of one record: 96 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Rec {
    pub(crate) sid: Sid,
    pub(crate) address: [u8; 16],
    pub(crate) order: u64,
    /// Timeline and n of a frame.
    pub(crate) frame: Option<(u32, u64)>,
    pub(crate) place: Place,
    /// 0 once the record was erased.
    pub(crate) encoded_len: u32,
}

impl Rec {
    pub(crate) fn stored(&self) -> Stored {
        Stored { order: self.order, place: self.place, encoded_len: self.encoded_len }
    }
}

/// The records of packs that no run covers, and older ones that a transaction at work staged again, numbered in the
/// order they came. The numbers are given anew when a run takes the records over.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) list: Vec<Rec>,
    by_sid: HashTable<u32>,
    hasher: RandomState,
}

impl Records {
    pub(crate) fn find(&self, sid: &Sid) -> Option<u32> {
        let hash = self.hasher.hash_one(sid.0);
        self.by_sid.find(hash, |id| self.list[*id as usize].sid == *sid).copied()
    }

    pub(crate) fn get(&self, id: u32) -> &Rec {
        &self.list[id as usize]
    }

    /// As [`Records::find`], but for those that were erased.
    fn find_whole(&self, sid: &Sid) -> Option<u32> {
        self.find(sid).filter(|id| !self.get(*id).stored().is_erased())
    }

    /// Remembers that a record was erased, until a run has it.
    fn erase(&mut self, sid: Sid, stored: Stored) {
        match self.find(&sid) {
            Some(id) => self.list[id as usize].encoded_len = 0,
            None => {
                let Stored { order, place, .. } = stored;
                self.add(Rec { sid, address: [0; 16], order, frame: None, place, encoded_len: 0 });
            }
        }
    }

    fn add(&mut self, rec: Rec) -> u32 {
        let id = self.list.len() as u32;
        let hash = self.hasher.hash_one(rec.sid.0);
        self.list.push(rec);
        let (list, hasher) = (&self.list, &self.hasher);
        self.by_sid.insert_unique(hash, id, |id| hasher.hash_one(list[*id as usize].sid.0));
        id
    }
}

/// The timelines of these records by number.
#[derive(Debug, Default)]
pub(crate) struct Timelines {
    list: Vec<TimelineId>,
    by_id: HashTable<u32>,
    hasher: RandomState,
}

impl Timelines {
    pub(crate) fn find(&self, timeline: &TimelineId) -> Option<u32> {
        let hash = self.hasher.hash_one(timeline.0);
        self.by_id.find(hash, |id| self.list[*id as usize] == *timeline).copied()
    }

    pub(crate) fn get(&self, id: u32) -> TimelineId {
        self.list[id as usize]
    }

    fn find_or_add(&mut self, timeline: &TimelineId) -> u32 {
        if let Some(id) = self.find(timeline) {
            return id;
        }
        let id = self.list.len() as u32;
        self.list.push(*timeline);
        let (list, hasher) = (&self.list, &self.hasher);
        let hash = hasher.hash_one(timeline.0);
        self.by_id.insert_unique(hash, id, |id| hasher.hash_one(list[*id as usize].0));
        id
    }
}

/// A chunk that is stored whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkInfo {
    pub(crate) place: Place,
    /// Bytes of the content; 0 once it was freed.
    pub(crate) len: u32,
}

impl ChunkInfo {
    pub(crate) fn of_row(row: &[u8]) -> Self {
        let (place, len) = read_chunk_row(row);
        Self { place, len }
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.len == 0
    }

    /// Offset in the pack of what is stored.
    pub(crate) fn start(&self) -> u64 {
        u64::from(self.place.offset) + (HEAD_BYTES + CHUNK_LINE_BYTES) as u64
    }

    /// Bytes of what is stored.
    pub(crate) fn stored_len(&self) -> u32 {
        self.place.body_len.saturating_sub(CHUNK_LINE_BYTES as u32)
    }

    /// Only a form that is shorter is written.
    pub(crate) fn is_compressed(&self) -> bool {
        self.stored_len() < self.len
    }
}

/// Records waiting for a commit.
#[derive(Debug, Default)]
pub(crate) struct Txn {
    /// Those that are in no draft.
    pub(crate) records: BTreeSet<u32>,
    pub(crate) taken: Vec<Sid>,
    pub(crate) moves: Vec<TipMove>,
    /// Whether some of it was stored before it was staged.
    pub(crate) knows: bool,
    /// Whether it stays in memory, since it could not be put into a draft.
    pub(crate) stays: bool,
    pub(crate) draft: Option<Box<Draft>>,
}

impl Txn {
    fn draft_for(&self, space: &SpaceId) -> Option<&Draft> {
        self.draft.as_deref().filter(|draft| draft.space == *space)
    }
}

/// A [`Move`] as the index needs it: what a large commit moves waits in memory until the commit counts, so no texts.
#[derive(Debug)]
pub(crate) struct TipMove {
    pub(crate) timeline: TimelineId,
    order: u64,
    /// What tells the timelines of one kind.
    pub(crate) kind: KindHash,
    /// Whether it is known that the timeline has no tips: whoever worked the move out a moment ago, and holds the log, has looked.
    pub(crate) begins: bool,
    pub(crate) removed: Box<[Sid]>,
    /// The tips that come, with their level-0 ids.
    pub(crate) added: SmallVec<[(Sid, [u8; 32]); 1]>,
}

impl TipMove {
    pub(crate) fn of(change: &Move) -> Self {
        let Move { timeline, order, tjp, removed, added } = change;
        let ib = tjp.rsplit_once('^').map_or("", |(ib, _)| ib);
        Self {
            timeline: *timeline,
            order: *order,
            kind: kind_hash(ib),
            begins: false,
            removed: removed.as_slice().into(),
            added: added.iter().map(|tip| (tip.sid, tip_id(tjp, &tip.address, &tip.sid))).collect(),
        }
    }
}

/// What is known of a saga.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SagaInfo {
    pub(crate) space: SpaceId,
    pub(crate) txn: u64,
    pub(crate) state: SagaState,
    /// When it began to stage, or ended.
    pub(crate) wall_ms: u64,
}

/// Whether summaries are kept up while entries are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sums {
    /// Every member and tip is added to the summaries at once.
    Keep,
    /// What was added is remembered, and forgotten when the log brings the summaries.
    Later,
    /// The caller brings them.
    Given,
}

/// The whole index.
#[derive(Debug)]
pub(crate) struct Index {
    pub(crate) packs: Packs,
    /// The packs before the newest: everything below is about the ones that no run covers.
    pub(crate) runs: Runs,
    pub(crate) records: Records,
    /// How many of them came since the last run.
    pub(crate) fresh: u64,
    pub(crate) timelines: Timelines,
    pub(crate) chunks: HashMap<ChunkHash, ChunkInfo>,
    /// What was given up and whose room was not given back yet.
    pub(crate) freed: Vec<Hole>,
    /// The chunks that a record lists, for the few that do.
    pub(crate) chunk_lists: HashMap<u32, Vec<ChunkHash>>,
    /// What commit stones say.
    pub(crate) stones: HashMap<u32, StoneLine>,
    pub(crate) spaces: BTreeMap<SpaceId, SpaceState>,
    pub(crate) txns: BTreeMap<u64, Txn>,
    pub(crate) sagas: BTreeMap<SagaId, SagaInfo>,
    pub(crate) next_txn: u64,
    /// The newest number of a space. A space that is removed and made again gets another one, so the rows of the old
    /// one are nobody's.
    pub(crate) next_space: u32,
    /// How many drafts there were. Their numbers go down from the greatest.
    pub(crate) next_draft: u32,
    /// Counts every change that readers can see.
    pub(crate) generation: u64,
}

/// What an index of stones keeps of the address of a tip: first 8 bytes of its SHA-256.
pub(crate) fn tip_hash(address: &Address) -> u64 {
    let mut out = [0; 8];
    out.copy_from_slice(&address.timeline_id().0[..8]);
    u64::from_be_bytes(out)
}

/// First 16 bytes of SHA-256 of an address.
pub(crate) fn address_hash(address: &Address) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&address.timeline_id().0[..16]);
    out
}

/// Joins the pieces of large moves: each one looks at all tips of its timeline.
fn whole(mut moves: Vec<TipMove>) -> Vec<TipMove> {
    // What the later pieces of a move take away, until its last one: to join a piece is to copy all before it.
    let mut removed: Vec<Sid> = Vec::new();
    let complete = |first: &mut TipMove, removed: &mut Vec<Sid>| {
        if !removed.is_empty() {
            first.removed = [&*first.removed, removed].concat().into();
            removed.clear();
        }
    };
    moves.dedup_by(|later, first| {
        let is_piece = later.timeline == first.timeline && (later.removed.is_empty() || first.added.is_empty());
        if is_piece {
            removed.extend_from_slice(&later.removed);
            first.added.append(&mut later.added);
        } else {
            complete(first, &mut removed);
        }
        is_piece
    });
    if let Some(last) = moves.last_mut() {
        complete(last, &mut removed);
    }
    moves
}

impl Index {
    /// An empty index over runs.
    pub(crate) fn new(runs: Runs) -> Self {
        Self {
            packs: Packs::new(),
            runs,
            records: Records::default(),
            fresh: 0,
            timelines: Timelines::default(),
            chunks: HashMap::new(),
            freed: Vec::new(),
            chunk_lists: HashMap::new(),
            stones: HashMap::new(),
            spaces: BTreeMap::new(),
            txns: BTreeMap::new(),
            sagas: BTreeMap::new(),
            next_txn: 0,
            next_space: 0,
            next_draft: 0,
            generation: 0,
        }
    }

    /// Where a record lies.
    pub(crate) fn stored(&self, sid: &Sid) -> Result<Option<Stored>, Unreadable> {
        match self.records.find(sid) {
            Some(id) => Ok(Some(self.records.get(id).stored()).filter(|stored| !stored.is_erased())),
            None => self.runs.stored(sid),
        }
    }

    /// Whether a record that lies at `stored` is in no space, and nobody is staging it.
    pub(crate) fn is_nobodys(&self, sid: &Sid, stored: &Stored) -> Result<bool, Unreadable> {
        let id = self.records.find_whole(sid);
        if id.is_some_and(|id| self.txns.values().any(|txn| txn.records.contains(&id))) {
            return Ok(false);
        }
        for state in self.spaces.values().chain(self.drafts().map(|draft| &draft.state)) {
            let is_fresh = id.is_some_and(|id| state.is_member(self.records.get(id), id));
            if is_fresh || self.is_member_in_runs(state, sid, stored)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What large sagas have put together ahead of their commits.
    pub(crate) fn drafts(&self) -> impl Iterator<Item = &Draft> {
        self.txns.values().filter_map(|txn| txn.draft.as_deref())
    }

    /// How many spaces were removed since the log began.
    pub(crate) fn removed_spaces(&self) -> u32 {
        self.next_space.saturating_sub(self.spaces.len() as u32)
    }

    /// Whether a record is a member of a space.
    pub(crate) fn is_member(&self, state: &SpaceState, sid: &Sid) -> Result<bool, Unreadable> {
        match self.records.find(sid) {
            Some(id) => self.is_member_record(state, id),
            None => Ok(self.member(state, sid)?.is_some()),
        }
    }

    /// Where a member of a space lies.
    pub(crate) fn member(&self, state: &SpaceState, sid: &Sid) -> Result<Option<Stored>, Unreadable> {
        let (stored, is_member) = match self.records.find(sid) {
            Some(id) => (Some(self.records.get(id).stored()), self.is_member_record(state, id)?),
            None => match self.runs.stored(sid)? {
                Some(stored) => (Some(stored), self.is_member_in_runs(state, sid, &stored)?),
                None => (None, false),
            },
        };
        Ok(stored.filter(|stored| is_member && !stored.is_erased()))
    }

    /// As [`Index::is_member`], for a record in memory.
    pub(crate) fn is_member_record(&self, state: &SpaceState, id: u32) -> Result<bool, Unreadable> {
        let rec = self.records.get(id);
        Ok(state.is_member(rec, id) || self.is_member_in_runs(state, &rec.sid, &rec.stored())?)
    }

    fn is_member_in_runs(&self, state: &SpaceState, sid: &Sid, stored: &Stored) -> Result<bool, Unreadable> {
        // A record that no run knows is in no run as a member either.
        if stored.place.pack > self.runs.last_pack() {
            return Ok(false);
        }
        self.runs.has_since(Table::Members, &member_key(state.number, stored.order, &sid.0), stored.place.pack)
    }

    /// Where a chunk lies.
    pub(crate) fn chunk(&self, hash: &ChunkHash) -> Result<Option<ChunkInfo>, Unreadable> {
        let info = match self.chunks.get(hash) {
            Some(info) => Some(*info),
            None => self.runs.chunk(&hash.0)?.map(|row| ChunkInfo::of_row(&row)),
        };
        Ok(info.filter(|info| !info.is_freed()))
    }

    /// How many members of a space list a chunk.
    pub(crate) fn references(&self, state: &SpaceState, hash: &ChunkHash) -> Result<u64, Unreadable> {
        let fresh = state.chunks.get(hash).copied().unwrap_or(0);
        Ok(u64::from(fresh) + self.runs.count(Table::References, &reference_key(state.number, hash))?)
    }

    /// Applies one entry; the error says what does not fit.
    pub(crate) fn apply(&mut self, place: Place, entry: Entry<'_>, sums: Sums) -> Result<(), &'static str> {
        match entry {
            Entry::Space { space, wall_ms } => {
                self.space(space).created_ms = wall_ms;
                self.generation += 1;
            }
            Entry::Remove { space } => self.remove_space(&space),
            Entry::Saga { txn, space, saga, wall_ms } => {
                let state = self.spaces.get_mut(&space).ok_or("a saga of a space that is not there")?;
                state.staging.insert(saga);
                self.txns.entry(txn).or_default();
                self.next_txn = self.next_txn.max(txn + 1);
                self.sagas.insert(saga, SagaInfo { space, txn, state: SagaState::Staged, wall_ms });
            }
            Entry::Record { txn, line, encoded_len, .. } => {
                // The first entry of a record counts, also when a run has it, unless it was erased since. Nobody appends one that is here.
                let place = match sums {
                    Sums::Given => place,
                    _ => self.stored(&line.sid)?.map_or(place, |stored| stored.place),
                };
                let id = self.add_record(place, line, encoded_len);
                self.fresh += 1;
                self.next_txn = self.next_txn.max(txn + 1);
                self.txns.entry(txn).or_default().records.insert(id);
            }
            Entry::Known { txn, sids } => {
                self.next_txn = self.next_txn.max(txn + 1);
                self.txns.entry(txn).or_default().knows |= !sids.is_empty();
                for sid in sids {
                    let id = match self.records.find_whole(&sid) {
                        Some(id) => id,
                        None => {
                            // It waits in memory for the next run, as a new one does.
                            self.fresh += 1;
                            self.recall(&sid, sums)?
                        }
                    };
                    self.txns.entry(txn).or_default().records.insert(id);
                }
            }
            Entry::Chunk { hash, content_len, .. } => {
                let info = ChunkInfo { place, len: content_len };
                let there = self.chunks.entry(hash).or_insert(info);
                if there.is_freed() {
                    *there = info;
                }
            }
            Entry::Free { chunks } => {
                for (hash, place) in chunks {
                    if self.chunk(&hash)?.map(|info| info.place) != Some(place) {
                        return Err("a chunk that is freed is not there");
                    }
                    self.chunks.insert(hash, ChunkInfo { place, len: 0 });
                    self.freed.push(place.hole(place.body_len.saturating_sub(CHUNK_LINE_BYTES as u32)));
                }
            }
            Entry::Erase { records } => {
                for ErasedLine { sid, place, encoded_len, .. } in records {
                    let stored =
                        self.stored(&sid)?.filter(|stored| (stored.place, stored.encoded_len) == (place, encoded_len));
                    self.records.erase(sid, stored.ok_or("a record that is erased is not there")?);
                    // They wait in memory for the next run, as new ones do.
                    self.fresh += 1;
                    self.freed.push(place.hole(encoded_len));
                }
            }
            Entry::Draft { txn, space, step } => match step {
                DraftStep::Grow { moves, later } => {
                    self.apply_draft(txn, &space, moves, sums)?.unsettled.extend(later);
                }
                DraftStep::Settle { moves } => self.apply_draft(txn, &space, moves, sums)?.unsettled.clear(),
                DraftStep::Drop => self.txns.entry(txn).or_default().draft = None,
            },
            Entry::Take { txn, sids } => self.txns.entry(txn).or_default().taken.extend(sids),
            Entry::Moves { txn, moves } => {
                self.txns.entry(txn).or_default().moves.extend(moves.iter().map(TipMove::of));
            }
            Entry::Commit(commit) => return self.apply_commit(&commit, sums),
            Entry::Abort { txn, space, saga, wall_ms } => {
                self.txns.remove(&txn);
                self.end_saga(&space, saga, txn, SagaState::Aborted, wall_ms);
            }
            Entry::Sums { space, items, tips } => {
                let state = self.spaces.get_mut(&space).ok_or("the sums of a space that is not there")?;
                if !state.take_sums(sums, items, tips) {
                    return Err("sums that are not those of the members and tips");
                }
            }
            Entry::Mark { .. } | Entry::Seal => {}
        }
        Ok(())
    }

    /// A space, made when it is not there.
    fn space(&mut self, space: SpaceId) -> &mut SpaceState {
        let next = &mut self.next_space;
        self.spaces.entry(space).or_insert_with(|| {
            *next += 1;
            SpaceState::new(*next)
        })
    }

    pub(crate) fn add_record(&mut self, place: Place, line: RecordLine, encoded_len: u32) -> u32 {
        let known = self.records.find(&line.sid);
        if let Some(id) = known.filter(|id| !self.records.get(*id).stored().is_erased()) {
            return id;
        }
        let frame = line.frame.map(|(timeline, n)| (self.timelines.find_or_add(&timeline), n));
        let rec = Rec { sid: line.sid, address: line.address, order: line.order, frame, place, encoded_len };
        let id = match known {
            Some(id) => {
                self.records.list[id as usize] = rec;
                id
            }
            None => self.records.add(rec),
        };
        if !line.chunks.is_empty() {
            self.chunk_lists.insert(id, line.chunks);
        }
        if let Some(stone) = line.stone {
            self.stones.insert(id, stone);
        }
        id
    }

    /// Takes a record that a run knows back into memory: its entry in the pack has the line. Where the log is read back
    /// it may have been erased later on, so the line must do; who stages it now finds all of it.
    fn recall(&mut self, sid: &Sid, sums: Sums) -> Result<u32, &'static str> {
        const MISSING: &str = "a record that is not there";
        const BAD: &str = "a record that cannot be read";
        let stored = self.stored(sid)?.ok_or(MISSING)?;
        let pack = self.packs.get(&stored.place.pack).ok_or(MISSING)?;
        if sums == Sums::Given {
            let read = pack.entry(u64::from(stored.place.offset), stored.place.body_len as usize);
            read.ok().and_then(Result::ok).ok_or(BAD)?;
        }
        match pack.record_line(&stored) {
            Ok(Some((line, _))) if line.sid == *sid => Ok(self.add_record(stored.place, line, stored.encoded_len)),
            Ok(_) => Err(MISSING),
            Err(_) => Err(BAD),
        }
    }

    /// What the entry of a record said in front of it.
    pub(crate) fn line_of(&self, id: u32) -> (Place, RecordLine, u32) {
        let rec = self.records.get(id);
        let line = RecordLine {
            sid: rec.sid,
            order: rec.order,
            frame: rec.frame.map(|(timeline, n)| (self.timelines.get(timeline), n)),
            address: rec.address,
            chunks: self.chunk_lists.get(&id).cloned().unwrap_or_default(),
            stone: self.stones.get(&id).cloned(),
        };
        (rec.place, line, rec.encoded_len)
    }

    fn end_saga(&mut self, space: &SpaceId, saga: SagaId, txn: u64, state: SagaState, wall_ms: u64) {
        if let Some(state) = self.spaces.get_mut(space) {
            state.staging.remove(&saga);
        }
        self.sagas.insert(saga, SagaInfo { space: *space, txn, state, wall_ms });
    }

    fn apply_commit(&mut self, commit: &CommitLine, sums: Sums) -> Result<(), &'static str> {
        const MISSING: &str = "a commit whose records or moves are not all there";
        let mut txn = self.txns.remove(&commit.txn).unwrap_or_default();
        self.next_txn = self.next_txn.max(commit.txn + 1);
        let draft = txn.draft.take();
        if txn.records.len() as u64 != commit.staged {
            return Err(MISSING);
        }
        // The entries right in front of the commit are its own. Those before them belong to an earlier try, of which
        // a power cut left all but the commit entry.
        txn.taken = last(txn.taken, commit.taken).ok_or(MISSING)?;
        txn.moves = last(txn.moves, commit.moves).ok_or(MISSING)?;
        let members: Vec<u32> = if commit.only_taken {
            let find = |sid: &Sid| self.records.find(sid).filter(|id| txn.records.contains(id));
            txn.taken
                .iter()
                .map(|sid| find(sid).ok_or("a commit of a record that was not staged"))
                .collect::<Result<_, _>>()?
        } else {
            txn.records.into_iter().collect()
        };
        if commit.creates {
            self.space(commit.space).created_ms = commit.wall_ms;
        }
        const NO_SPACE: &str = "a commit to a space that is not there";
        if commit.joins {
            self.join(&commit.space, *draft.ok_or("a commit of a draft that is not there")?, &txn.moves)?;
            // A record that two transactions stage was known to one of them.
            let others = self.txns.values_mut().map(|other| (txn.knows || other.knows, other.draft.as_mut()));
            for draft in others.filter_map(|(known, draft)| draft.filter(|draft| known && draft.space == commit.space))
            {
                draft.overlaps = true;
            }
        }
        let state = self.spaces.get(&commit.space).ok_or(NO_SPACE)?;
        let mut fresh = Vec::with_capacity(members.len());
        let (mut new_chunks, mut chunk_bytes) = (BTreeSet::new(), 0);
        for id in members {
            if self.is_member_record(state, id)? {
                continue;
            }
            fresh.push(id);
            for chunk in self.chunk_lists.get(&id).into_iter().flatten() {
                if new_chunks.insert(*chunk) && self.references(state, chunk)? == 0 {
                    chunk_bytes += self.chunk(chunk)?.map_or(0, |info| u64::from(info.len));
                }
            }
        }
        self.mark_overlaps(&commit.space, &fresh)?;
        let state = self.spaces.get_mut(&commit.space).ok_or(NO_SPACE)?;
        add_members(state, &self.records, (&self.chunk_lists, &self.stones), fresh, sums);
        state.bytes += chunk_bytes;
        // Taken one by one: a large commit moves as much as it adds to the index.
        for change in whole(txn.moves) {
            let state = self.spaces.get(&commit.space).ok_or(NO_SPACE)?;
            let moved = self.moved(state, &change)?;
            let state = self.spaces.get_mut(&commit.space).ok_or(NO_SPACE)?;
            state.apply_move(&change, moved, sums);
        }
        let state = self.spaces.get_mut(&commit.space).ok_or(NO_SPACE)?;
        state.touch();
        if state.len() != commit.items || state.tips.count != commit.tips {
            return Err("a commit whose counts do not fit");
        }
        state.stated = Some((commit.item_digest, commit.tip_digest));
        if let Some(saga) = commit.saga {
            self.end_saga(&commit.space, saga, commit.txn, SagaState::Committed, commit.wall_ms);
        }
        self.generation += 1;
        Ok(())
    }

    /// What was staged so far becomes part of the draft. Some of it may be in there already: a cut between the entries that take a draft
    /// apart leaves both.
    fn apply_draft(&mut self, txn: u64, space: &SpaceId, moves: u64, sums: Sums) -> Result<&mut Draft, &'static str> {
        const MISFIT: &str = "a draft that does not fit";
        let staged = self.txns.get_mut(&txn).ok_or(MISFIT)?;
        let moves = last(std::mem::take(&mut staged.moves), moves).ok_or(MISFIT)?;
        let ids = std::mem::take(&mut staged.records);
        let mut draft = staged.draft.take().unwrap_or_else(|| {
            self.next_draft += 1;
            let state = SpaceState::new(u32::MAX - self.next_draft);
            let first_pack = self.runs.last_pack() + 1;
            Box::new(Draft { space: *space, state, first_pack, overlaps: false, unsettled: BTreeSet::new() })
        });
        let target = self.spaces.get(space).filter(|_| draft.space == *space).ok_or(MISFIT)?;
        let mut fresh = Vec::with_capacity(ids.len());
        for id in ids {
            if !self.is_member_record(&draft.state, id)? {
                draft.overlaps = draft.overlaps || self.is_member_record(target, id)?;
                fresh.push(id);
            }
        }
        add_members(&mut draft.state, &self.records, (&self.chunk_lists, &self.stones), fresh, sums);
        for change in whole(moves) {
            let moved = self.moved(&draft.state, &change)?;
            draft.state.apply_move(&change, moved, sums);
        }
        Ok(self.txns.entry(txn).or_default().draft.insert(draft))
    }

    /// A draft becomes part of its space: nothing of it is a member yet. A timeline that both have is among the moves.
    fn join(&mut self, space: &SpaceId, draft: Draft, moves: &[TipMove]) -> Result<(), &'static str> {
        const MISFIT: &str = "a draft that does not fit its space";
        let state = self.spaces.get(space).filter(|_| draft.space == *space && !draft.overlaps).ok_or(MISFIT)?;
        let mut common = BTreeSet::new();
        for TipMove { timeline, .. } in moves {
            let both = || Ok::<_, Unreadable>([self.tips_of(state, timeline)?, self.tips_of(&draft.state, timeline)?]);
            if !common.contains(timeline) && both()?.iter().all(|tips| !tips.is_empty()) {
                common.insert(*timeline);
            }
        }
        let mut chunk_bytes = 0;
        self.each_chunk(&draft.state, |chunk| {
            if self.references(state, &chunk)? == 0 {
                chunk_bytes += self.chunk(&chunk)?.map_or(0, |info| u64::from(info.len));
            }
            Ok(())
        })?;
        let (number, space_number) = (draft.state.number, state.number);
        let (first_pack, last_pack) = (draft.first_pack, self.runs.last_pack());
        if first_pack <= last_pack {
            self.runs.joined.push(Joined { number, space: space_number, first_pack, last_pack });
        }
        let state = self.spaces.get_mut(space).ok_or(MISFIT)?;
        state.join(draft.state, &common);
        state.bytes += chunk_bytes;
        Ok(())
    }

    /// Goes through the chunks that the members of a space or draft list, each once, in no order that means something.
    pub(crate) fn each_chunk(
        &self,
        state: &SpaceState,
        mut take: impl FnMut(ChunkHash) -> Result<(), Unreadable>,
    ) -> Result<(), Unreadable> {
        state.chunks.keys().try_for_each(|chunk| take(*chunk))?;
        let front = state.number.to_be_bytes();
        let mut scan = self.runs.scan(Table::References, &front)?;
        let mut last = None;
        while let Some(row) = scan.next_of(&front)? {
            let chunk = read_reference(row);
            // Several runs may have one, one behind the other.
            if last.replace(chunk) != Some(chunk) && !state.chunks.contains_key(&chunk) {
                take(chunk)?;
            }
        }
        Ok(())
    }

    /// Notes which drafts for a space have some of its new members.
    fn mark_overlaps(&mut self, space: &SpaceId, ids: &[u32]) -> Result<(), Unreadable> {
        let mut overlapping = Vec::new();
        for (number, txn) in &self.txns {
            let Some(draft) = txn.draft_for(space).filter(|draft| !draft.overlaps) else { continue };
            for id in ids {
                if self.is_member_record(&draft.state, *id)? {
                    overlapping.push(*number);
                    break;
                }
            }
        }
        let drafts = self.txns.iter_mut().filter(|(number, _)| overlapping.contains(number));
        drafts.filter_map(|(_, txn)| txn.draft.as_mut()).for_each(|draft| draft.overlaps = true);
        Ok(())
    }

    /// What a move makes of the tips of its timeline: how many there were, those that go, and those that come. What goes must be a
    /// tip, what comes a record that is here and none.
    fn moved(&self, state: &SpaceState, change: &TipMove) -> Result<Moved, &'static str> {
        const MISFIT: &str = "a tip move that does not fit";
        let tips = if change.begins { Vec::new() } else { self.tips_of(state, &change.timeline)? };
        debug_assert!(!change.begins || self.tips_of(state, &change.timeline).is_ok_and(|tips| tips.is_empty()));
        let before = tips.len();
        let mut left: BTreeMap<Sid, Head> = tips.into_iter().map(|head| (head.sid, head)).collect();
        let mut gone = Vec::with_capacity(change.removed.len());
        for sid in &change.removed {
            gone.push(left.remove(sid).ok_or(MISFIT)?);
        }
        let (mut added, mut came) = (Vec::with_capacity(change.added.len()), BTreeSet::new());
        for (sid, id) in &change.added {
            if left.contains_key(sid) || !came.insert(*sid) {
                return Err(MISFIT);
            }
            let stored = Stored { order: change.order, ..self.stored(sid)?.ok_or(MISFIT)? };
            added.push(Head { timeline: change.timeline, sid: *sid, id: *id, stored });
        }
        Ok(Moved { before, gone, added })
    }

    /// The tips of a timeline, in ascending order of sid.
    pub(crate) fn tips_of(&self, state: &SpaceState, timeline: &TimelineId) -> Result<Vec<Head>, Unreadable> {
        state.tips.of(&self.runs, state.number, timeline)
    }

    /// A merged run takes the place of its inputs; gives the names of their files.
    pub(crate) fn replace_runs(&mut self, merged: Run) -> Vec<String> {
        // Snapshots hold the runs that they were made over.
        self.spaces.values_mut().for_each(SpaceState::touch);
        self.runs.replace(merged)
    }

    fn remove_space(&mut self, space: &SpaceId) {
        let Some(state) = self.spaces.remove(space) else { return };
        for saga in state.staging {
            if let Some(info) = self.sagas.get_mut(&saga) {
                info.state = SagaState::Aborted;
                self.txns.remove(&info.txn);
            }
        }
        self.generation += 1;
    }

    /// Brings the summaries up to date after entries were applied with [`Sums::Later`].
    pub(crate) fn settle_sums(&mut self) {
        let drafts = self.txns.values_mut().filter_map(|txn| txn.draft.as_mut());
        self.spaces.values_mut().chain(drafts.map(|draft| &mut draft.state)).for_each(SpaceState::settle_sums);
    }

    /// Whether the summaries of a space have the digests that its newest commit states.
    pub(crate) fn digests_fit(&self, space: &SpaceId) -> bool {
        self.spaces.get(space).is_none_or(|state| {
            state
                .stated
                .is_none_or(|stated| stated == (state.item_summary.lanes.digest(), state.tip_summary.lanes.digest()))
        })
    }

    /// Drops what is over: outcomes that ended before `outcomes_from_ms`. Staged sagas are the caller's.
    pub(crate) fn forget_outcomes(&mut self, outcomes_from_ms: u64) {
        self.sagas.retain(|_, saga| saga.state == SagaState::Staged || saga.wall_ms >= outcomes_from_ms);
    }

    /// Whether something that is in a draft lists a chunk.
    pub(crate) fn is_drafted(&self, hash: &ChunkHash) -> Result<bool, Unreadable> {
        for draft in self.drafts() {
            if self.references(&draft.state, hash)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a member of any space lists a chunk.
    pub(crate) fn is_listed(&self, hash: &ChunkHash) -> Result<bool, Unreadable> {
        for state in self.spaces.values() {
            if self.references(state, hash)? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The chunks that records list which sagas have staged and not committed yet, but for those in drafts.
    pub(crate) fn staged_chunks(&self) -> BTreeSet<ChunkHash> {
        let staged = self.sagas.values().filter(|saga| saga.state == SagaState::Staged);
        let records = staged.filter_map(|saga| self.txns.get(&saga.txn)).flat_map(|txn| &txn.records);
        records.filter_map(|id| self.chunk_lists.get(id)).flatten().copied().collect()
    }
}

/// Makes records members that are none yet.
fn add_members(
    state: &mut SpaceState,
    records: &Records,
    (chunk_lists, stones): (&HashMap<u32, Vec<ChunkHash>>, &HashMap<u32, StoneLine>),
    mut ids: Vec<u32>,
    sums: Sums,
) {
    ids.sort_unstable();
    ids.dedup();
    state.add_members(records, &ids);
    let mut said = Vec::new();
    for id in ids {
        let sid = &records.get(id).sid;
        state.add_chunks(chunk_lists.get(&id).map(Vec::as_slice).unwrap_or_default());
        said.extend(stones.get(&id).map(|stone| (*sid, stone)));
        state.item_changed(sums, sid);
    }
    state.add_stones(&said);
}

/// The last `count` of a list; `None` when there are fewer.
fn last<T>(mut list: Vec<T>, count: u64) -> Option<Vec<T>> {
    let from = list.len().checked_sub(usize::try_from(count).ok()?)?;
    // Nearly always all of it, which is not copied.
    list.drain(..from);
    Some(list)
}
