//! Giving back the room of chunks that nobody needs any more, and of records (`erase.rs`). Spec: SY-67; store,
//! "Collecting".
//!
//! A chunk is needed while a member of any space lists it, while a saga has staged a record that lists it, and for a
//! while after somebody stored it or was told that it is here, for the record that lists it may be on its way. Nothing
//! of the history of a space is ever collected: every frame of it is a member. But the caller may give up the contents of
//! members by name ([`GivenUp`]): the records stay, their chunks go unless others need them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, TryLockError};

use sealtide_ibgib::{ChunkHash, Manifest, Sid, Verified};
use sealtide_identity::SpaceId;
use sealtide_sync::SpaceView;

use crate::entry::Entry;
use crate::error::StoreError;
use crate::handle::SpaceHandle;
use crate::index::Index;
use crate::pack::{Place, punch};
use crate::run::Unreadable;
use crate::store::{Batch, Store};
use crate::table::{Table, read_chunk_row};
use crate::{guard, read, write};

/// How long a chunk that was stored, or told to be here, waits for a record that lists it. Longer than any file takes
/// to be read.
const TOUCHED_KEPT_MS: u64 = 24 * 3600 * 1000;
/// Chunks that are freed by one entry, while writers wait.
const FREED_AT_ONCE: usize = 256;

/// Chunks that were stored or told to be here in this process, and when, until a member lists them. Nothing of the
/// kind outlives a process: what a saga stages is in the log.
#[derive(Debug, Default)]
pub(crate) struct Touched(Mutex<HashMap<ChunkHash, u64>>);

impl Touched {
    /// To be called before the caller looks whether the chunks are there.
    pub(crate) fn touch(&self, chunks: impl IntoIterator<Item = ChunkHash>, now_ms: u64) {
        guard(&self.0).extend(chunks.into_iter().map(|chunk| (chunk, now_ms)));
    }

    /// Those of some chunks that were touched.
    pub(crate) fn among(&self, chunks: impl IntoIterator<Item = ChunkHash>) -> Vec<ChunkHash> {
        let touched = guard(&self.0);
        chunks.into_iter().filter(|chunk| touched.contains_key(chunk)).collect()
    }

    /// Members list these now.
    pub(crate) fn listed<'a>(&self, chunks: impl IntoIterator<Item = &'a ChunkHash>) {
        let mut touched = guard(&self.0);
        for chunk in chunks {
            touched.remove(chunk);
        }
    }
}

/// What a collection freed, or would free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Chunks.
    pub chunks: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Records that no space has any more: of spaces that were removed, and what sagas staged that were given up.
    pub records: u64,
    /// Bytes of these records, encoded.
    pub record_bytes: u64,
}

impl Collected {
    fn add(&mut self, len: u32) {
        self.chunks += 1;
        self.bytes += u64::from(len);
    }

    pub(crate) fn add_record(&mut self, len: u32) {
        self.records += 1;
        self.record_bytes += u64::from(len);
    }
}

/// A chunk that nobody needs.
type Unused = (ChunkHash, Place, u32);

/// Member records whose contents are given up at this node: what only they list is not needed.
#[derive(Clone, Debug, Default)]
pub struct GivenUp {
    named: BTreeSet<(SpaceId, Sid)>,
    /// How often they list each chunk, by space.
    lists: BTreeMap<ChunkHash, BTreeMap<SpaceId, u64>>,
}

impl GivenUp {
    /// Gives up what a member of a space lists. Naming one again, or what is no member, changes nothing.
    pub fn add(&mut self, view: &SpaceHandle, record: &Verified) {
        let (space, sid) = (view.id(), record.sid());
        if view.contains(&sid) && self.named.insert((space, sid)) {
            for chunk in Manifest::chunks_listed(record) {
                *self.lists.entry(chunk.hash).or_default().entry(space).or_default() += 1;
            }
        }
    }

    /// Whether a member that was not named lists a chunk.
    fn is_needed(&self, index: &Index, hash: &ChunkHash) -> Result<bool, Unreadable> {
        if index.is_drafted(hash)? {
            return Ok(true);
        }
        let Some(named) = self.lists.get(hash) else { return index.is_listed(hash) };
        for (space, state) in &index.spaces {
            if index.references(state, hash)? > named.get(space).copied().unwrap_or(0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// No backup and no check reads the packs while this is held.
#[derive(Debug)]
pub struct Collecting<'a> {
    _checking: MutexGuard<'a, ()>,
}

impl Store {
    /// Chunks that no member of any space and no staged record lists, with their lengths.
    pub fn unreferenced_chunks(&self) -> Vec<(ChunkHash, u32)> {
        self.unused(&GivenUp::default()).into_iter().map(|(hash, _, len)| (hash, len)).collect()
    }

    /// What [`Store::collect`] would free now.
    pub fn collectable(&self) -> Collected {
        let mut found = self.would_erase();
        self.would_free(&GivenUp::default()).into_iter().for_each(|(_, len)| found.add(len));
        found
    }

    /// The chunks that [`Store::collect_with`] would free now, with their lengths.
    pub fn would_free(&self, given_up: &GivenUp) -> Vec<(ChunkHash, u32)> {
        // Before the other lock: a commit looks at what was touched with the index in its hand.
        let unused = self.unused(given_up).into_iter();
        let touched = guard(&self.inner.touched.0);
        let from_ms = self.wall_ms().saturating_sub(TOUCHED_KEPT_MS);
        let waited = unused.filter(|(hash, ..)| touched.get(hash).is_none_or(|at| *at < from_ms));
        waited.map(|(hash, _, len)| (hash, len)).collect()
    }

    /// Whether the content of a chunk is here. Unlike [`SpaceView::has_chunk`] nobody is promised that it stays.
    pub fn holds_chunk(&self, hash: &ChunkHash) -> bool {
        matches!(read(&self.inner.index).chunk(hash), Ok(Some(_)))
    }

    /// Frees the chunks that nobody needs and the records that no space has, and gives their room back to the disk:
    /// what they said is on it no more. Writers wait for short whiles only.
    ///
    /// The free entry is durable before the room is given back, so a crash leaves what is whole and listed, or
    /// what is freed; at the next open the room of the last is given back again. Spec: SY-67
    ///
    /// # Errors
    /// [`StoreError::NoHoles`] where the file system cannot give back a part of a file; nothing was freed then. Other
    /// [`StoreError`]s may come after a part was freed.
    pub fn collect(&self) -> Result<Collected, StoreError> {
        self.collect_with(&GivenUp::default())
    }

    /// As [`Store::collect`], and also what only these members list. Who asks for such a chunk is told that it is not here; when it is
    /// stored again it is.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn collect_with(&self, given_up: &GivenUp) -> Result<Collected, StoreError> {
        self.collect_in(&self.begin_collecting(), given_up)
    }

    /// Waits until no backup and no check reads the packs: it must not find holes that it read nothing of. None begins while this is
    /// held. Who holds something that others wait for takes it before that.
    pub fn begin_collecting(&self) -> Collecting<'_> {
        Collecting { _checking: guard(&self.inner.checking) }
    }

    /// As [`Store::begin_collecting`], and none where one of them is under way.
    pub fn try_collecting(&self) -> Option<Collecting<'_>> {
        match self.inner.checking.try_lock() {
            Ok(checking) => Some(Collecting { _checking: checking }),
            Err(TryLockError::Poisoned(checking)) => Some(Collecting { _checking: checking.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// As [`Store::collect_with`], for who began before.
    ///
    /// # Errors
    /// As [`Store::collect`].
    pub fn collect_in(&self, _alone: &Collecting<'_>, given_up: &GivenUp) -> Result<Collected, StoreError> {
        // What was given up before, and could not be given back then. It was not for a sync that failed: a hole is made only for what
        // is durably free.
        if !read(&self.inner.index).freed.is_empty() {
            let _log = self.writer()?;
            self.inner.durable.wait(self.inner.durable.end())?;
            self.give_back()?;
        }
        let mut unused = self.unused(given_up);
        let nobodys = self.find_nobodys();
        if unused.is_empty() && nobodys.is_none() {
            return Ok(Collected::default());
        }
        self.can_punch()?;
        // Only sealed packs get holes: in the open one a hole is what a power cut leaves.
        let active = guard(&self.inner.log).active.number;
        let open_bytes: u64 =
            unused.iter().filter(|unused| unused.1.pack == active).map(|(.., len)| u64::from(*len)).sum();
        // Who removes a space may not wait until others have filled the pack.
        if open_bytes >= self.inner.config.garbage_bytes || nobodys.is_some_and(|found| found.in_open_pack) {
            let mut log = self.writer()?;
            // On a full disk there may be no room for a new pack: what the sealed ones hold is freed all the same.
            if log.active.number == active
                && let Err(error) = self.seal(&mut log)
            {
                tracing::warn!(%error, "the open pack was not sealed: what is unused in it waits");
            }
        }
        let active = guard(&self.inner.log).active.number;
        unused.retain(|unused| unused.1.pack < active);
        // By place, so that a pack is dealt with once.
        unused.sort_unstable_by_key(|unused| unused.1);
        let mut collected = Collected::default();
        for some in unused.chunks(FREED_AT_ONCE) {
            self.free(some, given_up, &mut collected)?;
        }
        if let Some(found) = nobodys {
            self.erase_nobodys(found, &mut collected)?;
        }
        self.forget_touched();
        Ok(collected)
    }

    /// Frees those of `unused` that are still so.
    fn free(&self, unused: &[Unused], given_up: &GivenUp, collected: &mut Collected) -> Result<(), StoreError> {
        let mut log = self.writer()?;
        let from_ms = self.wall_ms().saturating_sub(TOUCHED_KEPT_MS);
        // Held until the chunks are gone from the index: whoever touches one later finds it gone, and stores it again.
        let touched = guard(&self.inner.touched.0);
        let mut batch = Batch::new(&log);
        let mut freed = Collected::default();
        {
            let index = read(&self.inner.index);
            let staged = index.staged_chunks();
            let mut chunks = Vec::new();
            for (hash, place, len) in unused {
                let recent = touched.get(hash).is_some_and(|at| *at >= from_ms);
                let there = index.chunk(hash)?.is_some_and(|info| info.place == *place);
                if there && !recent && !staged.contains(hash) && !given_up.is_needed(&index, hash)? {
                    chunks.push((*hash, *place));
                    freed.add(*len);
                }
            }
            if chunks.is_empty() {
                return Ok(());
            }
            batch.push(Entry::Free { chunks });
        }
        let end = self.append(&mut log, batch)?;
        drop(touched);
        self.inner.durable.wait(end)?;
        // The log stays held: were the pack sealed now and the power cut, nobody would come back to these holes.
        self.give_back()?;
        collected.chunks += freed.chunks;
        collected.bytes += freed.bytes;
        Ok(())
    }

    /// Gives the room of what was freed durably back to the disk. What fails is tried again by the next collection, and before a run
    /// is written.
    pub(crate) fn give_back(&self) -> Result<(), StoreError> {
        let (packs, freed) = {
            let mut index = write(&self.inner.index);
            let freed = std::mem::take(&mut index.freed);
            (index.packs.clone(), freed)
        };
        punch(&packs, &freed).map_err(|error| {
            write(&self.inner.index).freed.extend(freed);
            error.into()
        })
    }

    /// Whether a run may be written of what is sealed and durable: none says which room is still to be given back, so nobody would
    /// come back to it.
    pub(crate) fn give_back_before_a_run(&self) -> bool {
        if read(&self.inner.index).freed.is_empty() {
            return true;
        }
        // A backup or a check that is under way must find no holes that it read nothing of.
        let Some(_alone) = self.try_collecting() else { return false };
        match self.give_back() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "the room of freed chunks was not given back: their packs stay in memory");
                false
            }
        }
    }

    fn can_punch(&self) -> Result<(), StoreError> {
        let active = guard(&self.inner.log).active.clone();
        // Behind the end there is nothing to lose.
        match active.file.len().and_then(|len| active.file.punch(len + (1 << 20), 1)) {
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Err(StoreError::NoHoles),
            tried => Ok(tried?),
        }
    }

    fn forget_touched(&self) {
        let from_ms = self.wall_ms().saturating_sub(TOUCHED_KEPT_MS);
        guard(&self.inner.touched.0).retain(|_, at| *at >= from_ms);
    }

    fn unused(&self, given_up: &GivenUp) -> Vec<Unused> {
        let (mut chunks, staged) = {
            let index = read(&self.inner.index);
            (index.rows(Table::Chunks), index.staged_chunks())
        };
        let mut unused = Vec::new();
        while let Ok(Some(row)) = chunks.next() {
            let mut hash = ChunkHash([0; 32]);
            hash.0.copy_from_slice(&row[..32]);
            let (place, len) = read_chunk_row(&row);
            let is_needed = || given_up.is_needed(&read(&self.inner.index), &hash);
            if len > 0 && !staged.contains(&hash) && is_needed() == Ok(false) {
                unused.push((hash, place, len));
            }
        }
        unused
    }
}
