//! The index in memory: rebuilt from the log at open, one entry after the other. The same code applies an entry that
//! was just written and one that is read back, so both give the same state. Spec: store, "Index".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use sealtide_ibgib::{Address, ChunkHash, Sid, TimelineId};
use sealtide_identity::SpaceId;
use sealtide_sync::{SagaId, SagaState};

use crate::entry::{CommitLine, Entry, Move, RecordLine, StoneLine};
use crate::pack::{Pack, Place};
use crate::space::SpaceState;

/// What the index keeps of one record: 96 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Rec {
    pub(crate) sid: Sid,
    pub(crate) address: [u8; 16],
    pub(crate) order: u64,
    /// Timeline and n of a frame.
    pub(crate) frame: Option<(u32, u64)>,
    pub(crate) place: Place,
    pub(crate) encoded_len: u32,
}

/// All records of the log, numbered in the order they were first stored.
#[derive(Debug, Default)]
pub(crate) struct Records {
    list: Vec<Rec>,
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

    fn add(&mut self, rec: Rec) -> u32 {
        let id = self.list.len() as u32;
        let hash = self.hasher.hash_one(rec.sid.0);
        self.list.push(rec);
        let (list, hasher) = (&self.list, &self.hasher);
        self.by_sid.insert_unique(hash, id, |id| hasher.hash_one(list[*id as usize].sid.0));
        id
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }
}

/// Timelines by number.
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkInfo {
    pub(crate) place: Place,
    pub(crate) len: u32,
}

/// Records waiting for a commit.
#[derive(Debug, Default)]
pub(crate) struct Txn {
    pub(crate) records: BTreeSet<u32>,
    taken: Vec<Sid>,
    moves: Vec<Move>,
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
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub(crate) packs: BTreeMap<u32, Arc<Pack>>,
    pub(crate) records: Records,
    pub(crate) timelines: Timelines,
    pub(crate) chunks: HashMap<ChunkHash, ChunkInfo>,
    /// The chunks that a record lists, for the few that do.
    chunk_lists: HashMap<u32, Vec<ChunkHash>>,
    /// What commit stones say.
    stones: HashMap<u32, StoneLine>,
    pub(crate) spaces: BTreeMap<SpaceId, SpaceState>,
    pub(crate) txns: BTreeMap<u64, Txn>,
    pub(crate) sagas: BTreeMap<SagaId, SagaInfo>,
    pub(crate) next_txn: u64,
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

impl Index {
    /// Applies one entry; the error says what does not fit.
    pub(crate) fn apply(&mut self, place: Place, entry: Entry<'_>, sums: Sums) -> Result<(), &'static str> {
        match entry {
            Entry::Space { space, wall_ms } => {
                let state = self.spaces.entry(space).or_default();
                state.created_ms = wall_ms;
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
                let id = self.add_record(place, line, encoded_len);
                self.next_txn = self.next_txn.max(txn + 1);
                self.txns.entry(txn).or_default().records.insert(id);
            }
            Entry::Known { txn, sids } => {
                self.next_txn = self.next_txn.max(txn + 1);
                for sid in sids {
                    let id = self.records.find(&sid).ok_or("a record that is not there")?;
                    self.txns.entry(txn).or_default().records.insert(id);
                }
            }
            Entry::Chunk { hash, content_len, .. } => {
                self.chunks.entry(hash).or_insert(ChunkInfo { place, len: content_len });
            }
            Entry::Take { txn, sids } => self.txns.entry(txn).or_default().taken.extend(sids),
            Entry::Moves { txn, moves } => self.txns.entry(txn).or_default().moves.extend(moves),
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

    fn add_record(&mut self, place: Place, line: RecordLine, encoded_len: u32) -> u32 {
        if let Some(id) = self.records.find(&line.sid) {
            return id;
        }
        let frame = line.frame.map(|(timeline, n)| (self.timelines.find_or_add(&timeline), n));
        let rec = Rec { sid: line.sid, address: line.address, order: line.order, frame, place, encoded_len };
        let id = self.records.add(rec);
        if !line.chunks.is_empty() {
            self.chunk_lists.insert(id, line.chunks);
        }
        if let Some(stone) = line.stone {
            self.stones.insert(id, stone);
        }
        id
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
            self.spaces.entry(commit.space).or_default().created_ms = commit.wall_ms;
        }
        let state = self.spaces.get_mut(&commit.space).ok_or("a commit to a space that is not there")?;
        for id in members {
            let rec = self.records.get(id);
            if !state.is_member(rec, id) {
                let chunks = self.chunk_lists.get(&id).map(Vec::as_slice).unwrap_or_default();
                state.add_member(id, rec, chunks);
                if let Some(stone) = self.stones.get(&id) {
                    state.add_stone(id, stone);
                }
                state.item_changed(sums, &rec.sid);
            }
        }
        for change in &txn.moves {
            let timeline = self.timelines.find(&change.timeline).ok_or("a tip of a timeline without frames")?;
            if !state.apply_move(timeline, change, sums) {
                return Err("a tip move that does not fit");
            }
        }
        state.touch();
        if state.len() != commit.items || state.tip_count() != commit.tips {
            return Err("a commit whose counts do not fit");
        }
        state.stated = Some((commit.item_digest, commit.tip_digest));
        if let Some(saga) = commit.saga {
            self.end_saga(&commit.space, saga, commit.txn, SagaState::Committed, commit.wall_ms);
        }
        self.generation += 1;
        Ok(())
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
        self.spaces.values_mut().for_each(SpaceState::settle_sums);
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

    /// How many members of all spaces list a chunk.
    pub(crate) fn chunk_references(&self, hash: &ChunkHash) -> u64 {
        self.spaces.values().map(|state| u64::from(state.chunks.get(hash).copied().unwrap_or(0))).sum()
    }
}

/// The last `count` of a list; `None` when there are fewer.
fn last<T>(mut list: Vec<T>, count: u64) -> Option<Vec<T>> {
    let from = list.len().checked_sub(usize::try_from(count).ok()?)?;
    Some(list.split_off(from))
}
