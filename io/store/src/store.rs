//! The store: open, stage, commit, tell. Spec: ibgib §14, store.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sealtide_crypto::blake3;
use sealtide_ibgib::{CHUNK_BYTES_MAX, ChunkHash, CutChunk, FrameFacts, Manifest, Sid, TimelineId, Verified};
use sealtide_identity::SpaceId;
use sealtide_identity::authorship::{COMMIT_IB, read_commit};
use sealtide_sync::{CommitRequest, CommitResult, SagaId, SagaState};

use crate::collect::Touched;
use crate::compress::Expanded;
use crate::disk::{Disk, FACTS_FILE, FsDisk};
use crate::durable::{Durable, position};
use crate::entry::{Builder, CommitLine, Entry, Move, RecordLine, StoneLine};
use crate::error::{CommitError, CreateError, OpenError, StoreError};
use crate::facts::{Facts, FactsError};
use crate::handle::{SpaceHandle, SpaceInfo};
use crate::index::{Index, Sums, TipMove, Txn, address_hash, tip_hash};
use crate::log::Log;
use crate::merge::{Merge, MergeError};
use crate::moving::Moving;
use crate::open::{Closed, remove_merged};
use crate::pack::{Place, io_error};
use crate::plan::{Asked, FrameOf, Plan, Settle, StagedFacts, txn_of};
use crate::seal::write_run;
use crate::space::SpaceState;
use crate::{guard, open, read, write};

/// Sids in one list entry.
const LIST_SIDS_MAX: usize = 8192;
/// Bytes of what stands in front of a record in its entry, about.
const RECORD_FRONT_BYTES: usize = 160;
/// Frames of staged records whose facts are kept in memory until they go into a draft or are committed; others are read again.
const STAGED_FACTS_MAX: usize = 200_000;
/// Changes of a space after which the log gets its summaries: what an open after a crash has to count at most.
const SUMS_CHANGES: u64 = 16 * 1024;
/// The setting that says how far the log went when the store was closed.
const CLOSED: &str = "store/closed";
/// How long staged records wait for their saga to go on.
const STAGED_KEPT_MS: u64 = 7 * DAY_MS;
/// How far the time of a saga lies back, or ahead, when it is written anew with what is staged next.
const RENEWED_MS: u64 = DAY_MS;
const DAY_MS: u64 = 24 * 3600 * 1000;
/// How long the outcome of a saga is remembered.
const OUTCOMES_KEPT_MS: u64 = 30 * DAY_MS;

/// Rows that are merged for each entry that is written. A record has four rows, the first frame of a timeline eight, and
/// each is merged about three times until there are ten million.
const MERGED_ROWS: usize = 32;
/// Rows that are merged with each append besides.
const MERGED_ROWS_MIN: usize = 256;

/// Settings of a store.
#[derive(Clone)]
pub struct Config {
    /// Bytes after which a pack is sealed and the next one begun.
    pub pack_bytes: u64,
    /// Bytes of unused chunks in the open pack for which a collection seals it.
    pub garbage_bytes: u64,
    /// From how many new records on a pack is sealed also when it is small: what the index keeps in memory at most, apart from what
    /// transactions at work bring.
    pub sealed_records: u64,
    /// From how many records on what a saga stages is put together ahead of its commit, so that it need not stay in memory.
    pub draft_records: usize,
    /// Milliseconds since 1970-01-01 UTC: stamps the outcomes of sagas. Simulations hand in their own.
    pub wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for Config {
    fn default() -> Self {
        let wall_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Self {
            pack_bytes: 256 * 1024 * 1024,
            garbage_bytes: 1024 * 1024,
            sealed_records: 64 * 1024,
            draft_records: 4096,
            wall_ms: Arc::new(wall_ms),
        }
    }
}

/// A timeline moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Where.
    pub space: SpaceId,
    /// Which timeline.
    pub timeline: TimelineId,
    /// Its tips after the commit; several while it is diverged.
    pub tips: Vec<Sid>,
}

/// An open store. Clones are the same store; all methods may be called from any thread.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

/// A commit that was begun; nobody outside may be told of it before it is durable.
#[must_use = "a commit is told of when it is durable"]
pub struct Underway {
    store: Store,
    result: CommitResult,
    end: u64,
}

impl Underway {
    /// Waits until it is durable, and everything before it.
    ///
    /// # Errors
    /// [`StoreError`]: the disk failed, and the store takes no more commits until it is opened again.
    pub fn durable(self) -> Result<CommitResult, StoreError> {
        self.store.finish(self.end)?;
        Ok(self.result)
    }
}

pub(crate) struct Inner {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log: Mutex<Log>,
    pub(crate) index: RwLock<Index>,
    pub(crate) durable: Durable,
    events: Mutex<Events>,
    pub(crate) staged_facts: Mutex<StagedFacts>,
    facts: Facts,
    pub(crate) touched: Touched,
    pub(crate) expanded: Expanded,
    pub(crate) config: Config,
    /// Whether something was appended since the last mark.
    pub(crate) dirty: AtomicBool,
    /// How many spaces had been removed when every record was last looked at for one that nobody has.
    pub(crate) erased_to: AtomicU32,
    /// Held by a check: there is one at a time.
    pub(crate) checking: Mutex<()>,
    _lock: Box<dyn Send + Sync>,
}

#[derive(Default)]
struct Events {
    subscribers: Vec<Sender<Event>>,
    /// Events that become true when the log is durable up to the position.
    pending: VecDeque<(u64, Event)>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.inner.disk.place())
    }
}

/// What a record entry says in front of the record.
pub(crate) fn record_line(record: &Verified, frame: Option<&FrameFacts>) -> RecordLine {
    RecordLine {
        sid: record.sid(),
        order: record.order_key(),
        frame: frame.map(|frame| (frame.timeline, frame.n)),
        address: address_hash(record.address()),
        chunks: Manifest::chunks_listed(record).into_iter().map(|chunk| chunk.hash).collect(),
        // Other records are not read as JSON for this: it would take as long as the rest of staging.
        stone: (record.address().ib() == COMMIT_IB).then(|| read_commit(record)).flatten().map(|commit| StoneLine {
            by: commit.by,
            seq: commit.seq,
            tips: commit.tips.iter().map(tip_hash).collect(),
        }),
    }
}

/// Entries on their way into the log and the index.
pub(crate) struct Batch<'a> {
    builder: Builder,
    pack: u32,
    entries: Vec<(Place, Entry<'a>)>,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(log: &Log) -> Self {
        Self { builder: log.builder(), pack: log.active.number, entries: Vec::new() }
    }

    /// Makes room for this many records of so many bytes together.
    fn reserve(&mut self, records: usize, bytes: usize) {
        self.builder.bytes.reserve(bytes + records * RECORD_FRONT_BYTES);
        self.entries.reserve(records);
    }

    pub(crate) fn push(&mut self, entry: Entry<'a>) {
        let (offset, body_len) = self.builder.push(&entry);
        let place = Place { pack: self.pack, offset: offset as u32, body_len: body_len as u32 };
        self.entries.push((place, entry));
    }

    fn record(&mut self, txn: u64, record: &'a Verified, frame: Option<&FrameFacts>) {
        let encoded: &[u8] = record.encoded();
        let line = record_line(record, frame);
        self.push(Entry::Record { txn, line, encoded, encoded_len: encoded.len() as u32 });
    }

    pub(crate) fn moves(&mut self, txn: u64, entries: Vec<Vec<(Move, TipMove)>>) {
        for entry in entries {
            self.push(Entry::Moves { txn, moves: entry.into_iter().map(|(change, _)| change).collect() });
        }
    }

    /// The summaries of the spaces that changed at least `least` times since the log has them.
    fn sums(&mut self, index: &Index, least: u64) {
        for (space, state) in index.spaces.iter().filter(|(_, state)| state.since_sums >= least) {
            let (items, tips) = (state.item_summary.clone(), state.tip_summary.clone());
            self.push(Entry::Sums { space: *space, items, tips });
        }
    }

    pub(crate) fn lists(&mut self, sids: &[Sid], entry: impl Fn(Vec<Sid>) -> Entry<'a>) {
        sids.chunks(LIST_SIDS_MAX).for_each(|sids| self.push(entry(sids.to_vec())));
    }
}

impl Store {
    /// Opens the store in a directory, and makes it when there is none.
    ///
    /// # Errors
    /// [`OpenError`]; a store in use is [`OpenError::Locked`].
    pub fn open_dir(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        let path = path.as_ref();
        let place = path.display().to_string();
        let disk = FsDisk::new(path).map_err(|source| place_error(place, source))?;
        Self::open(Arc::new(disk), Config::default())
    }

    /// Opens the store on a disk, and makes it when there is none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(disk: Arc<dyn Disk>, config: Config) -> Result<Self, OpenError> {
        let lock = disk.lock().map_err(|source| place_error(disk.place(), source))?;
        let lock = lock.ok_or_else(|| OpenError::Locked(disk.place()))?;
        let facts = if open::has_format(&*disk)? {
            Facts::open(Arc::clone(&disk), false)?
        } else {
            let facts = Facts::open(Arc::clone(&disk), true)?;
            open::write_format(&*disk)?;
            facts
        };
        let failed = |error: FactsError| OpenError::Facts { file: FACTS_FILE, what: error.to_string() };
        let closed = facts.setting(CLOSED).map_err(failed)?;
        let (mut index, log) = open::rebuild(&disk, config.pack_bytes, closed.as_deref().and_then(Closed::read))?;
        index.packs.insert(log.active.number, Arc::clone(&log.active));
        // What a killed process left in the page cache counts from now on, so it must be durable first.
        log.active.file.sync().map_err(|source| io_error(&log.active, source))?;
        index.forget_outcomes((config.wall_ms)().saturating_sub(OUTCOMES_KEPT_MS));
        let inner = Inner {
            durable: Durable::new(Arc::clone(&log.active), log.len),
            disk,
            log: Mutex::new(log),
            index: RwLock::new(index),
            events: Mutex::default(),
            staged_facts: Mutex::default(),
            facts,
            touched: Touched::default(),
            expanded: Expanded::default(),
            config,
            dirty: AtomicBool::new(false),
            erased_to: AtomicU32::new(0),
            checking: Mutex::default(),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        // A crash may have come between a free entry and the holes that it allows.
        if let Err(error) = store.give_back() {
            tracing::warn!(%error, "the room of freed chunks was not given back");
        }
        Ok(store)
    }

    /// Peers, grants, invites, settings and local names.
    pub fn facts(&self) -> &Facts {
        &self.inner.facts
    }

    /// Counts every change that readers can see; equal numbers mean nothing changed in between.
    pub fn generation(&self) -> u64 {
        read(&self.inner.index).generation
    }

    /// All spaces, in order of their ids.
    pub fn spaces(&self) -> Vec<SpaceInfo> {
        let index = read(&self.inner.index);
        index.spaces.iter().map(|(space, state)| SpaceInfo::of(*space, state)).collect()
    }

    /// Read access to a space.
    pub fn view(&self, space: &SpaceId) -> Option<SpaceHandle> {
        let there = read(&self.inner.index).spaces.contains_key(space);
        there.then(|| SpaceHandle::new(Arc::clone(&self.inner), *space))
    }

    /// Makes a space from the first frame of its timeline, durably.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_space(&self, first: Verified) -> Result<SpaceId, CreateError> {
        self.create_space_with(first, Vec::new())
    }

    /// As [`Store::create_space`], with further records in the same commit.
    ///
    /// # Errors
    /// [`CreateError`].
    pub fn create_space_with(&self, first: Verified, more: Vec<Verified>) -> Result<SpaceId, CreateError> {
        let space = space_of(&first).ok_or_else(|| CreateError::NotSpace(first.address().to_string()))?;
        let records = std::iter::once(first).chain(more).collect();
        let request = CommitRequest::local(records);
        let mut log = self.writer()?;
        if read(&self.inner.index).spaces.contains_key(&space) {
            return Err(CreateError::Exists(space));
        }
        let (_, end) = self.commit_locked(&mut log, &space, &request, true)?;
        drop(log);
        self.finish(end)?;
        Ok(space)
    }

    /// Makes an empty space with the id that its owner gave it, durably; `false` when it was there. Its records
    /// come with the first saga. Spec: SY-100.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn adopt_space(&self, space: SpaceId) -> Result<bool, StoreError> {
        let mut log = self.writer()?;
        let new = !read(&self.inner.index).spaces.contains_key(&space);
        let mut batch = Batch::new(&log);
        if new {
            batch.push(Entry::Space { space, wall_ms: self.wall_ms() });
        }
        let end = self.append(&mut log, batch)?;
        drop(log);
        self.finish(end)?;
        Ok(new)
    }

    /// Takes a space and its membership away, durably; `false` when there is none. Its records stay in the log,
    /// where no reader finds them, until [`Store::collect`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove_space(&self, space: &SpaceId) -> Result<bool, StoreError> {
        let mut log = self.writer()?;
        if !read(&self.inner.index).spaces.contains_key(space) {
            return Ok(false);
        }
        let mut batch = Batch::new(&log);
        batch.push(Entry::Remove { space: *space });
        let end = self.append(&mut log, batch)?;
        {
            let index = read(&self.inner.index);
            guard(&self.inner.staged_facts).retain(|txn, _| index.txns.contains_key(txn));
        }
        drop(log);
        self.finish(end)?;
        Ok(true)
    }

    /// Appends records and chunks that a saga received; durable after [`Store::sync`]. Nobody but the saga sees
    /// the records before the commit. Spec: ibgib §14.1.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing of this call is stored.
    pub fn stage(
        &self,
        space: &SpaceId,
        saga: &SagaId,
        records: &[Verified],
        chunks: &[(ChunkHash, Bytes)],
    ) -> Result<(), StoreError> {
        chunks.iter().try_for_each(|(hash, content)| check_chunk(hash, content))?;
        self.inner.touched.touch(chunks.iter().map(|(hash, _)| *hash), self.wall_ms());
        let frames: Vec<Option<FrameOf>> = records.iter().map(FrameOf::of).collect();
        // What is here now stays, since it was touched; the others are compressed while nobody waits for the log.
        let mut new_chunks = BTreeMap::new();
        for (hash, content) in chunks {
            if !new_chunks.contains_key(hash) && read(&self.inner.index).chunk(hash)?.is_none() {
                new_chunks.insert(*hash, Entry::chunk(*hash, content));
            }
        }
        let mut log = self.writer()?;
        let mut batch = Batch::new(&log);
        batch.reserve(records.len(), records.iter().map(|record| record.encoded().len()).sum());
        let txn;
        {
            let index = read(&self.inner.index);
            if !index.spaces.contains_key(space) {
                return Err(StoreError::NoSpace(*space));
            }
            let now = self.wall_ms();
            let is_due;
            (txn, is_due) = match index.sagas.get(saga) {
                None => (index.next_txn, true),
                Some(info) if info.state == SagaState::Staged && info.space == *space => {
                    (info.txn, info.wall_ms.abs_diff(now) >= RENEWED_MS)
                }
                Some(info) => return Err(StoreError::SagaEnded(info.state)),
            };
            if is_due {
                batch.push(Entry::Saga { txn, space: *space, saga: *saga, wall_ms: now });
            }
            for (hash, entry) in new_chunks {
                // Another may have brought it meanwhile.
                if index.chunk(&hash)?.is_none() {
                    batch.push(entry);
                }
            }
            let staged = index.txns.get(&txn);
            let mut seen = BTreeSet::new();
            let mut known = Vec::new();
            for (record, frame) in records.iter().zip(&frames) {
                let sid = record.sid();
                if !seen.insert(sid) {
                    continue;
                }
                let known_here = index.records.find(&sid);
                if known_here.is_some_and(|id| staged.is_some_and(|staged| staged.records.contains(&id))) {
                    continue;
                }
                let draft = staged.and_then(|staged| staged.draft.as_deref());
                match index.stored(&sid)? {
                    None => batch.record(txn, record, frame.as_ref().map(|frame| &frame.facts)),
                    Some(_) if draft.map_or(Ok(false), |draft| index.is_member(&draft.state, &sid))? => {}
                    Some(_) => known.push(sid),
                }
            }
            batch.lists(&known, |sids| Entry::Known { txn, sids });
        }
        self.append(&mut log, batch)?;
        let mut staged_facts = guard(&self.inner.staged_facts);
        if staged_facts.values().map(HashMap::len).sum::<usize>() < STAGED_FACTS_MAX {
            let facts = staged_facts.entry(txn).or_default();
            facts.extend(frames.into_iter().flatten().map(|frame| (frame.sid, Box::new(frame))));
        }
        drop(staged_facts);
        let many = self.inner.config.draft_records.max(1);
        let is_due = |staged: &Txn| staged.records.len() >= many && !staged.stays;
        let is_due = read(&self.inner.index).txns.get(&txn).is_some_and(is_due);
        if is_due && let Err(error) = self.draft(&mut log, txn, space, false) {
            if log.failed {
                return Err(error);
            }
            tracing::warn!(%error, "what a saga has staged stays in memory");
            if let Some(staged) = write(&self.inner.index).txns.get_mut(&txn) {
                staged.stays = true;
            }
        }
        Ok(())
    }

    /// Returns when everything appended so far is durable.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn sync(&self) -> Result<(), StoreError> {
        self.finish(self.inner.durable.end())
    }

    /// Stores a chunk of local content; durable with the following commit. One that is stored already is not
    /// written again. Spec: SY-66.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_chunk(&self, hash: ChunkHash, content: &[u8]) -> Result<(), StoreError> {
        check_chunk(&hash, content)?;
        self.put(hash, content)
    }

    /// As [`Store::put_chunk`], for one that was cut here: its hash is not worked out again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_cut(&self, cut: &CutChunk) -> Result<(), StoreError> {
        self.put(cut.chunk().hash, cut.bytes())
    }

    fn put(&self, hash: ChunkHash, content: &[u8]) -> Result<(), StoreError> {
        self.inner.touched.touch([hash], self.wall_ms());
        if read(&self.inner.index).chunk(&hash)?.is_some() {
            return Ok(());
        }
        let entry = Entry::chunk(hash, content);
        let mut log = self.writer()?;
        if read(&self.inner.index).chunk(&hash)?.is_some() {
            return Ok(());
        }
        let mut batch = Batch::new(&log);
        batch.push(entry);
        self.append(&mut log, batch)?;
        Ok(())
    }

    /// The bytes of a chunk, hash checked; `None` when it is not here or damaged. For check-outs: no membership is
    /// asked.
    pub fn read_chunk(&self, hash: &ChunkHash) -> Option<Bytes> {
        let bytes = self.inner.chunk_content(hash)?;
        if blake3(&bytes) != hash.0 {
            tracing::error!(chunk = %hash, "the chunk on disk does not have its hash");
            return None;
        }
        Some(bytes)
    }

    /// Makes everything a saga staged, or the records of a local change, visible at once and durably.
    /// Spec: ibgib §14.3.
    ///
    /// This is the log and no more: nothing is signed, it is not looked whether a peer would take the space afterwards, and no peer
    /// hears of it. In a node that is the engine's: `Engine::commit_local`, `Engine::commit_local_if`.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing of it is visible. After [`StoreError::Failed`] the store must be opened again
    /// to learn whether it happened.
    pub fn commit(&self, space: &SpaceId, request: &CommitRequest) -> Result<CommitResult, CommitError> {
        Ok(self.begin_commit(space, request)?.durable()?)
    }

    /// As [`Store::commit`], but for the wait: what is committed is in the log and visible, and not on the disk yet. Commits
    /// of several callers that wait at once are made durable by one write of the disk; none is durable before one that was
    /// begun earlier.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing changed.
    pub fn begin_commit(&self, space: &SpaceId, request: &CommitRequest) -> Result<Underway, CommitError> {
        let mut log = self.writer()?;
        let (result, end) = self.commit_locked(&mut log, space, request, false)?;
        drop(log);
        Ok(Underway { store: self.clone(), result, end })
    }

    /// Drops what a saga staged. A saga that is unknown or over stays as it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn abort(&self, saga: &SagaId) -> Result<(), StoreError> {
        let mut log = self.writer()?;
        let info = read(&self.inner.index).sagas.get(saga).copied();
        let Some(info) = info.filter(|info| info.state == SagaState::Staged) else { return Ok(()) };
        let mut batch = Batch::new(&log);
        batch.push(Entry::Abort { txn: info.txn, space: info.space, saga: *saga, wall_ms: self.wall_ms() });
        self.append(&mut log, batch)?;
        guard(&self.inner.staged_facts).remove(&info.txn);
        Ok(())
    }

    /// What became of a saga. Outcomes are kept 30 days.
    pub fn saga_state(&self, saga: &SagaId) -> SagaState {
        read(&self.inner.index).sagas.get(saga).map_or(SagaState::Unknown, |info| info.state)
    }

    /// Aborts sagas that have staged nothing for 7 days (by the clock, to a day) and are not `at_work`, and forgets outcomes
    /// older than 30 days. Call it at start and now and then. Spec: ibgib §13.7, §14.4.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn expire(&self, at_work: impl Fn(&SagaId) -> bool) -> Result<(), StoreError> {
        let now = self.wall_ms();
        let old: Vec<SagaId> = {
            let index = read(&self.inner.index);
            let staged = index.sagas.iter().filter(|(_, info)| info.state == SagaState::Staged);
            staged
                .filter(|(_, info)| info.wall_ms.saturating_add(STAGED_KEPT_MS) < now)
                .map(|(saga, _)| *saga)
                .collect()
        };
        old.iter().filter(|saga| !at_work(saga)).try_for_each(|saga| self.abort(saga))?;
        write(&self.inner.index).forget_outcomes(now.saturating_sub(OUTCOMES_KEPT_MS));
        Ok(())
    }

    /// Events from now on: one for each timeline that a commit moved, in the order of commits, after the commit is
    /// durable. Spec: SY-70.
    pub fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = channel();
        guard(&self.inner.events).subscribers.push(sender);
        receiver
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        (self.inner.config.wall_ms)()
    }

    /// Takes the writing end; seals the open pack first when it is full.
    pub(crate) fn writer(&self) -> Result<std::sync::MutexGuard<'_, Log>, StoreError> {
        let mut log = guard(&self.inner.log);
        let (damaged, is_due) = {
            let index = read(&self.inner.index);
            // Where a run could not be written the next try waits: each one takes a pack.
            let due_from = log.run_failed_at + self.inner.config.sealed_records;
            (index.runs.health.is_damaged(), index.fresh >= due_from && index.lets_go())
        };
        if log.failed || self.inner.durable.failed() || damaged {
            return Err(StoreError::Failed);
        }
        if log.is_full() || is_due {
            match self.seal(&mut log) {
                Err(error) if log.failed => return Err(error),
                Err(error) => tracing::warn!(%error, "no new pack could be begun: the open one grows on"),
                Ok(()) => {}
            }
        }
        Ok(log)
    }

    /// Seals the open pack and begins the next one.
    pub(crate) fn seal(&self, log: &mut Log) -> Result<(), StoreError> {
        let mut batch = Batch::new(log);
        batch.sums(&read(&self.inner.index), 1);
        let pack = self.append(log, batch).and_then(|_| log.roll())?;
        self.inner.durable.rolled(pack.number);
        self.inner.durable.set_head(&pack, log.len);
        if read(&self.inner.index).lets_go() {
            match self.give_back_before_a_run() {
                true => self.seal_run(log, pack.number - 1),
                // The next try waits, as behind a run that could not be written.
                false => log.run_failed_at = read(&self.inner.index).fresh,
            }
        }
        write(&self.inner.index).packs.insert(pack.number, pack);
        Ok(())
    }

    /// Writes the run of the sealed packs up to `last`. Readers go on meanwhile. When it cannot be written, the packs
    /// stay in memory until the next one is sealed.
    fn seal_run(&self, log: &mut Log, last: u32) {
        let written = write_run(&read(&self.inner.index), last);
        match written {
            Ok(run) => {
                write(&self.inner.index).adopt_run(run);
                log.merge_due = true;
                log.run_failed_at = 0;
            }
            Err(error) => {
                log.run_failed_at = read(&self.inner.index).fresh;
                tracing::warn!(%error, pack = last, "no run was written: its packs stay in memory");
            }
        }
    }

    /// Merges runs for a while, after `entries` entries were written.
    fn merge_some(&self, log: &mut Log, entries: usize) {
        let merge = match log.merge.take() {
            Some(merge) => Ok(Some(merge)),
            None if std::mem::take(&mut log.merge_due) => {
                let index = read(&self.inner.index);
                Merge::begin(&index.runs, &index.packs)
            }
            None => return,
        };
        let failed = |error: MergeError| tracing::warn!(%error, "the runs were not merged");
        let mut merge = match merge {
            Ok(Some(merge)) => merge,
            Ok(None) => return,
            Err(error) => return failed(error),
        };
        match merge.step(MERGED_ROWS_MIN + MERGED_ROWS * entries) {
            Ok(false) => log.merge = Some(merge),
            Ok(true) => {
                log.merge_due = true;
                let cache = Arc::clone(&read(&self.inner.index).runs.cache);
                match merge.finish(&cache) {
                    Ok(run) => {
                        let gone = write(&self.inner.index).replace_runs(run);
                        remove_merged(&*self.inner.disk, gone);
                    }
                    Err(error) => failed(error),
                }
            }
            Err(error) => {
                merge.remove();
                failed(error);
            }
        }
    }

    /// Appends a batch and applies it; gives the position behind it.
    pub(crate) fn append(&self, log: &mut Log, batch: Batch<'_>) -> Result<u64, StoreError> {
        self.append_with(log, batch, |_| ())
    }

    pub(crate) fn append_with(
        &self,
        log: &mut Log,
        batch: Batch<'_>,
        after: impl FnOnce(&mut Index),
    ) -> Result<u64, StoreError> {
        let Batch { builder, entries: batch, .. } = batch;
        if !batch.is_empty() {
            let entries = batch.len();
            log.append(&builder)?;
            // As long as everything that a large commit moves, and not needed while that is applied.
            drop(builder);
            self.inner.dirty.store(true, Ordering::Relaxed);
            let mut index = write(&self.inner.index);
            for (place, entry) in batch {
                // The commit brings its own sums.
                if let Err(what) = index.apply(place, entry, Sums::Given) {
                    log.failed = true;
                    tracing::error!(what, "an entry that was just written does not fit: this is a bug");
                    return Err(StoreError::Failed);
                }
            }
            after(&mut index);
            drop(index);
            self.inner.durable.set_head(&log.active, log.len);
            self.merge_some(log, entries);
        }
        Ok(position(log.active.number, log.len))
    }

    /// Waits until the log is durable up to `end`, then tells subscribers what became true.
    fn finish(&self, end: u64) -> Result<(), StoreError> {
        self.inner.durable.wait(end)?;
        let durable = self.inner.durable.durable();
        let mut events = guard(&self.inner.events);
        while events.pending.front().is_some_and(|(position, _)| *position <= durable) {
            let Some((_, event)) = events.pending.pop_front() else { break };
            events.subscribers.retain(|subscriber| subscriber.send(event.clone()).is_ok());
        }
        Ok(())
    }

    fn commit_locked(
        &self,
        log: &mut Log,
        space: &SpaceId,
        request: &CommitRequest,
        create: bool,
    ) -> Result<(CommitResult, u64), CommitError> {
        let frames: Vec<Option<FrameOf>> = request.records.iter().map(FrameOf::of).collect();
        let joins = self.ready_draft(log, space, request)?;
        let mut moving = Moving::new(log, &self.inner, None);
        let plan = {
            let index = read(&self.inner.index);
            let empty = SpaceState::default();
            let state = match index.spaces.get(space) {
                Some(state) => state,
                None if create => &empty,
                None => return Err(StoreError::NoSpace(*space).into()),
            };
            // Spec: SY-67: what was freed since it was stored must be stored again.
            for chunk in request.records.iter().flat_map(Manifest::chunks_listed) {
                if index.chunk(&chunk.hash)?.is_none() {
                    return Err(CommitError::NoChunk(chunk.hash));
                }
            }
            moving.ahead = request.saga.and_then(|saga| index.sagas.get(&saga)).map(|info| info.txn);
            // Where nothing comes of it the next try reads them.
            let facts = moving.ahead.and_then(|txn| guard(&self.inner.staged_facts).remove(&txn)).unwrap_or_default();
            let txn = txn_of(&index, space, request)?;
            let draft = index.txns.get(&txn).and_then(|staged| staged.draft.as_deref()).filter(|_| joins);
            let draft = draft.map(|draft| &draft.state);
            let settle = Settle::Moved;
            let asked = Asked { index: &index, txn, state, draft, request, frames: &frames, facts, settle };
            let plan = Plan::of(asked, &mut |part| moving.take(part))?;
            // Where tips are settled a frame that cannot be read counts as missing; then the plan is not to be trusted.
            if index.runs.health.is_damaged() {
                return Err(StoreError::Failed.into());
            }
            plan
        };
        let txn = plan.txn;
        let (log, tips_moved, moves) = moving.end(txn);
        if request.saga.is_none() && !create && plan.result.new_records == 0 {
            return Ok((plan.result, position(log.active.number, log.len)));
        }
        let mut batch = Batch::new(log);
        let wall_ms = self.wall_ms();
        for at in &plan.append {
            batch.record(txn, &request.records[*at], frames[*at].as_ref().map(|frame| &frame.facts));
        }
        batch.lists(&plan.known, |sids| Entry::Known { txn, sids });
        if let Some(taken) = &plan.taken {
            batch.lists(taken, |sids| Entry::Take { txn, sids });
        }
        batch.moves(txn, tips_moved);
        batch.push(Entry::Commit(CommitLine {
            txn,
            space: *space,
            saga: request.saga,
            wall_ms,
            durable: self.inner.durable.durable_in(log.active.number),
            creates: create,
            joins,
            staged: plan.staged,
            only_taken: plan.taken.is_some(),
            taken: plan.taken.as_ref().map_or(0, |taken| taken.len() as u64),
            moves,
            items: plan.items.count,
            tips: plan.tips.count,
            item_digest: plan.items.lanes.digest(),
            tip_digest: plan.tips.lanes.digest(),
        }));
        let (items, tips) = (plan.items, plan.tips);
        let since = read(&self.inner.index).spaces.get(space).map_or(0, |state| state.since_sums);
        if since + plan.result.new_records + moves >= SUMS_CHANGES {
            batch.push(Entry::Sums { space: *space, items: items.clone(), tips: tips.clone() });
        }
        let listed: Vec<ChunkHash> = {
            let index = read(&self.inner.index);
            let touched = &self.inner.touched;
            let staged = index.txns.get(&txn);
            let records = staged.into_iter().flat_map(|staged| &staged.records);
            let records = records.filter_map(|id| index.chunk_lists.get(id)).flatten().copied();
            let new = request.records.iter().flat_map(Manifest::chunks_listed).map(|chunk| chunk.hash);
            let mut listed = touched.among(records.chain(new));
            if let Some(draft) = staged.and_then(|staged| staged.draft.as_deref()) {
                index.each_chunk(&draft.state, |chunk| {
                    listed.extend(touched.among([chunk]));
                    Ok(())
                })?;
            }
            listed
        };
        let end = self.append_with(log, batch, |index| {
            if let Some(state) = index.spaces.get_mut(space) {
                (state.item_summary, state.tip_summary) = (items, tips);
            }
        })?;
        self.inner.touched.listed(&listed);
        let mut events = guard(&self.inner.events);
        if !events.subscribers.is_empty() {
            let moved = plan.result.moved.iter();
            let new = moved.map(|(timeline, _, tips)| Event { space: *space, timeline: *timeline, tips: tips.clone() });
            events.pending.extend(new.map(|event| (end, event)));
        }
        Ok((plan.result, end))
    }
}

fn check_chunk(hash: &ChunkHash, content: &[u8]) -> Result<(), StoreError> {
    let good = !content.is_empty() && content.len() <= CHUNK_BYTES_MAX as usize && blake3(content) == hash.0;
    if good { Ok(()) } else { Err(StoreError::BadChunk(*hash)) }
}

/// The id of the space whose first frame this is.
fn space_of(first: &Verified) -> Option<SpaceId> {
    let facts = first.frame()?;
    let address = first.address();
    if address.ib() != "space" || facts.n != 0 || facts.tjp != *address || address.gib().len() != 64 {
        return None;
    }
    let mut id = [0; 32];
    for (byte, pair) in id.iter_mut().zip(address.gib().as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(SpaceId::from_bytes(id))
}

fn place_error(place: String, source: std::io::Error) -> OpenError {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::ReadOnly { place, source }
        }
        _ => OpenError::Io { file: place, source },
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.dirty.get_mut() || self.durable.failed() {
            return;
        }
        let log = self.log.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log.failed {
            return;
        }
        let mut sums = Batch::new(log);
        sums.sums(self.index.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner), 1);
        if log.append(&sums.builder).is_err() || log.active.file.sync().is_err() {
            return;
        }
        // Proves to the next open that all of this was durable: what is missing then is damage, not a torn tail.
        let closed = Closed { pack: log.active.number, len: log.len };
        let mut mark = log.builder();
        mark.push(&Entry::Mark { durable: log.len });
        let _ = log.append(&mark);
        // The mark goes with the end of the log, where that is lost.
        if let Err(error) = self.facts.put_setting(CLOSED, Some(&closed.bytes())) {
            tracing::warn!(%error, "how far the log goes could not be noted: a later loss of its end would not be noticed");
        }
    }
}
