//! A disk in memory that remembers what was synced. It can run full, fail at a chosen call and show what a power cut
//! at this moment would leave. Used by tests and simulations; thousands of them are cheap.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use sealtide_crypto::{Entropy, SeededEntropy};

use crate::disk::{Disk, DiskFile};
use crate::guard;

/// Bytes that a disk writes as one: within the unsynced part, a power cut may lose any of these blocks.
const BLOCK: usize = 512;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    files: BTreeMap<String, FileState>,
    /// Removed, but the folder was not synced since.
    removed: BTreeMap<String, FileState>,
    /// Removed for good. Whoever holds such a file open reads it as before, as on any Unix.
    unlinked: BTreeMap<String, FileState>,
    facts: FactsState,
    locked: bool,
    chance: SeededEntropy,
    calls: u64,
    bytes_read: u64,
    fail_from: Option<u64>,
    fail_next_sync: bool,
    no_holes: bool,
    fail_next_punch: bool,
    /// The folder in which no file can be made.
    refused: Option<String>,
    capacity: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    data: Vec<u8>,
    /// This many leading bytes survive a power cut.
    synced: usize,
    /// Durable bytes behind the place of an unsynced truncation.
    cut: Option<(usize, Vec<u8>)>,
    /// Whether the name survives a power cut.
    named: bool,
    /// Where room was given back: offset and length.
    holes: BTreeMap<usize, usize>,
    /// What stood in holes that are not synced yet.
    filled: Vec<(usize, Vec<u8>)>,
}

/// The random-access file of redb: content and the writes since the last sync.
#[derive(Clone, Debug, Default)]
struct FactsState {
    data: Vec<u8>,
    pending: Vec<FactsWrite>,
}

#[derive(Clone, Debug)]
enum FactsWrite {
    Bytes { offset: usize, old: Vec<u8>, new: Vec<u8> },
    Len { old_tail: Vec<u8>, old: usize, new: usize },
}

impl Default for MemDisk {
    fn default() -> Self {
        Self::new(0)
    }
}

impl MemDisk {
    /// An empty disk; `seed` decides its random bytes.
    pub fn new(seed: u64) -> Self {
        Self::from_state(BTreeMap::new(), FactsState::default(), seed)
    }

    fn from_state(files: BTreeMap<String, FileState>, facts: FactsState, seed: u64) -> Self {
        let state = State {
            files,
            removed: BTreeMap::new(),
            unlinked: BTreeMap::new(),
            facts,
            locked: false,
            chance: SeededEntropy::new(seed),
            calls: 0,
            bytes_read: 0,
            fail_from: None,
            fail_next_sync: false,
            fail_next_punch: false,
            no_holes: false,
            refused: None,
            capacity: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many calls have changed or synced something so far.
    pub fn calls(&self) -> u64 {
        guard(&self.state).calls
    }

    /// Bytes that were read from the append-only files so far: how far a reader has gone ahead.
    pub fn bytes_read(&self) -> u64 {
        guard(&self.state).bytes_read
    }

    /// Lets every changing call from number `call` on fail, as if the power were cut there: the failing append
    /// writes half of its bytes. `None` heals the disk.
    pub fn fail_from(&self, call: Option<u64>) {
        guard(&self.state).fail_from = call;
    }

    /// Lets the next sync of a file fail.
    pub fn fail_next_sync(&self) {
        guard(&self.state).fail_next_sync = true;
    }

    /// Lets no file be made in this folder, as where the disk has no room for what goes there.
    pub fn refuse(&self, folder: Option<&str>) {
        guard(&self.state).refused = folder.map(str::to_owned);
    }

    /// Lets the next hole fail, as a file system does that has no room to note it.
    pub fn fail_next_punch(&self) {
        guard(&self.state).fail_next_punch = true;
    }

    /// From now on files cannot have holes, as on a file system without them.
    pub fn forbid_holes(&self) {
        guard(&self.state).no_holes = true;
    }

    /// Bounds the bytes of all append-only files; `None` lifts the bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        guard(&self.state).capacity = bytes;
    }

    /// Bytes in all append-only files, without holes.
    pub fn used(&self) -> u64 {
        guard(&self.state).used()
    }

    /// What a power cut right now could leave; each `seed` is one possibility. Synced bytes always survive, of the
    /// others any blocks may be missing.
    pub fn crash(&self, seed: u64) -> Self {
        let state = guard(&self.state);
        let mut chance = SeededEntropy::new(seed);
        let mut files = BTreeMap::new();
        for (name, file) in &state.files {
            if file.named || flip(&mut chance) {
                files.insert(name.clone(), file.after_crash(&mut chance));
            }
        }
        for (name, file) in &state.removed {
            if file.named && !files.contains_key(name) && flip(&mut chance) {
                files.insert(name.clone(), file.after_crash(&mut chance));
            }
        }
        let facts = state.facts.after_crash(&mut chance);
        Self::from_state(files, facts, seed.wrapping_add(1))
    }

    /// A disk of its own with the same bytes, all of them durable: what an orderly shutdown leaves.
    pub fn copy(&self) -> Self {
        let state = guard(&self.state);
        let whole = |file: &FileState| FileState {
            synced: file.data.len(),
            cut: None,
            named: true,
            filled: Vec::new(),
            ..file.clone()
        };
        let files = state.files.iter().map(|(name, file)| (name.clone(), whole(file))).collect();
        let facts = FactsState { pending: Vec::new(), ..state.facts.clone() };
        Self::from_state(files, facts, 0)
    }

    /// Flips one bit of a file, past the cache and all syncs; `false` when there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut state = guard(&self.state);
        match state.files.get_mut(name).and_then(|file| file.data.get_mut(offset)) {
            Some(byte) => {
                *byte ^= 1 << (bit & 7);
                true
            }
            None => false,
        }
    }

    /// Whether the room of this byte was given back: what it says is nobody's.
    pub fn is_hole(&self, name: &str, offset: usize) -> bool {
        let state = guard(&self.state);
        let holes = state.files.get(name).map(|file| &file.holes).into_iter().flatten();
        holes.into_iter().any(|(start, len)| (*start..start + len).contains(&offset))
    }

    /// The bytes of a file.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        guard(&self.state).files.get(name).map(|file| file.data.clone())
    }

    /// The names of all append-only files.
    pub fn names(&self) -> Vec<String> {
        guard(&self.state).files.keys().cloned().collect()
    }
}

fn flip(chance: &mut SeededEntropy) -> bool {
    below(chance, 2) == 1
}

fn below(chance: &mut SeededEntropy, bound: usize) -> usize {
    let mut bytes = [0; 8];
    chance.fill(&mut bytes);
    (u64::from_le_bytes(bytes) % bound.max(1) as u64) as usize
}

fn dead() -> io::Error {
    io::Error::other("the disk is dead")
}

impl State {
    fn used(&self) -> u64 {
        self.files.values().map(|file| (file.data.len() - file.holes.values().sum::<usize>()) as u64).sum()
    }

    /// Counts a changing call.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.fail_from {
            Some(from) if self.calls >= from => Err(dead()),
            _ => Ok(()),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut FileState> {
        self.files.get_mut(name).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// A file that a handle may read, although it has no name any more.
    fn file_to_read(&self, name: &str) -> io::Result<&FileState> {
        let nameless = || self.removed.get(name).or_else(|| self.unlinked.get(name));
        self.files.get(name).or_else(nameless).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl FileState {
    fn after_crash(&self, chance: &mut SeededEntropy) -> Self {
        let mut data = self.data[..self.synced].to_vec();
        match &self.cut {
            Some((at, tail)) if flip(chance) => {
                data.truncate(*at);
                data.extend_from_slice(tail);
            }
            _ => {
                // The length may have grown further than the blocks that were written: holes read as zeros.
                let pending = &self.data[self.synced..];
                let kept = below(chance, pending.len() + 1);
                let holes = flip(chance);
                for block in pending[..kept].chunks(BLOCK) {
                    if holes && below(chance, 4) == 0 {
                        data.resize(data.len() + block.len(), 0);
                    } else {
                        data.extend_from_slice(block);
                    }
                }
            }
        }
        let mut holes = self.holes.clone();
        for (offset, old) in &self.filled {
            for (at, block) in old.chunks(BLOCK).enumerate() {
                let start = offset + at * BLOCK;
                if let Some(place) = data.get_mut(start..start + block.len())
                    && flip(chance)
                {
                    place.copy_from_slice(block);
                    holes.remove(offset);
                }
            }
        }
        Self { synced: data.len(), data, cut: None, named: true, holes, filled: Vec::new() }
    }
}

impl FactsState {
    fn after_crash(&self, chance: &mut SeededEntropy) -> Self {
        let mut data = self.data.clone();
        for write in self.pending.iter().rev() {
            match write {
                FactsWrite::Bytes { offset, old, .. } => data[*offset..offset + old.len()].copy_from_slice(old),
                FactsWrite::Len { old_tail, old, new } => {
                    data.truncate(*old.min(new));
                    data.extend_from_slice(old_tail);
                    data.resize(*old, 0);
                }
            }
        }
        for write in &self.pending {
            if !flip(chance) {
                continue;
            }
            match write {
                FactsWrite::Len { new, .. } => data.resize(*new, 0),
                FactsWrite::Bytes { offset, new, .. } => {
                    let kept = if below(chance, 4) == 0 { below(chance, new.len()) } else { new.len() };
                    if data.len() < offset + kept {
                        data.resize(offset + kept, 0);
                    }
                    data[*offset..offset + kept].copy_from_slice(&new[..kept]);
                }
            }
        }
        Self { data, pending: Vec::new() }
    }
}

struct LockGuard(Arc<Mutex<State>>);

impl Drop for LockGuard {
    fn drop(&mut self) {
        guard(&self.0).locked = false;
    }
}

impl Disk for MemDisk {
    fn place(&self) -> String {
        "memory".to_owned()
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Send + Sync>>> {
        let mut state = guard(&self.state);
        if std::mem::replace(&mut state.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(LockGuard(Arc::clone(&self.state)))))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let state = guard(&self.state);
        let names = state.files.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = guard(&self.state);
        state.call()?;
        if state
            .refused
            .as_ref()
            .is_some_and(|folder| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.files.insert(name.to_owned(), FileState::default());
        Ok(Arc::new(MemFile { state: Arc::clone(&self.state), name: name.to_owned() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        guard(&self.state).file(name)?;
        Ok(Arc::new(MemFile { state: Arc::clone(&self.state), name: name.to_owned() }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = guard(&self.state);
        state.call()?;
        let file = state.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.removed.insert(name.to_owned(), file);
        Ok(())
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = guard(&self.state);
        state.call()?;
        let inside = |name: &str| name.rsplit_once('/').map_or("", |(parent, _)| parent) == folder;
        state.files.iter_mut().filter(|(name, _)| inside(name)).for_each(|(_, file)| file.named = true);
        let gone: Vec<String> = state.removed.keys().filter(|name| inside(name)).cloned().collect();
        for name in gone {
            let file = state.removed.remove(&name);
            state.unlinked.extend(file.map(|file| (name, file)));
        }
        Ok(())
    }

    fn random(&self) -> io::Result<[u8; 32]> {
        let mut out = [0; 32];
        guard(&self.state).chance.fill(&mut out);
        Ok(out)
    }

    fn facts(&self, anew: bool) -> io::Result<Box<dyn redb::StorageBackend>> {
        if anew {
            redb::StorageBackend::set_len(&MemFacts(Arc::clone(&self.state)), 0)?;
        }
        Ok(Box::new(MemFacts(Arc::clone(&self.state))))
    }
}

#[derive(Debug)]
struct MemFile {
    state: Arc<Mutex<State>>,
    name: String,
}

impl DiskFile for MemFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut state = guard(&self.state);
        let alive = state.call();
        let used = state.used();
        let room = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(used));
        let file = state.file(&self.name)?;
        if let Err(error) = alive {
            file.data.extend_from_slice(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        let fits = (bytes.len() as u64).min(room) as usize;
        file.data.extend_from_slice(&bytes[..fits]);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = guard(&self.state);
        state.bytes_read += out.len() as u64;
        let file = state.file_to_read(&self.name)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start.checked_add(out.len()).and_then(|end| file.data.get(start..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(guard(&self.state).file(&self.name)?.data.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = guard(&self.state);
        state.call()?;
        if std::mem::take(&mut state.fail_next_sync) {
            return Err(io::Error::other("sync failed"));
        }
        let file = state.file(&self.name)?;
        file.synced = file.data.len();
        file.cut = None;
        file.filled.clear();
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = guard(&self.state);
        state.call()?;
        let file = state.file(&self.name)?;
        let len = usize::try_from(len).map_err(io::Error::other)?.min(file.data.len());
        if len < file.synced {
            let tail = file.data[len..file.synced].to_vec();
            file.cut.get_or_insert((len, tail));
            file.synced = len;
        }
        file.data.truncate(len);
        Ok(())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = guard(&self.state);
        state.call()?;
        if state.no_holes {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let fails = state.fail_next_punch;
        let file = state.file(&self.name)?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?.min(file.data.len());
        let end = offset.saturating_add(usize::try_from(len).map_err(io::Error::other)?).min(file.data.len());
        if offset < end {
            if fails {
                state.fail_next_punch = false;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let old = file.data[offset..end].to_vec();
            file.data[offset..end].fill(0);
            file.holes.insert(offset, end - offset);
            file.filled.push((offset, old));
        }
        Ok(())
    }
}

/// The facts file of a [`MemDisk`].
#[derive(Debug)]
struct MemFacts(Arc<Mutex<State>>);

impl redb::StorageBackend for MemFacts {
    fn len(&self) -> io::Result<u64> {
        Ok(guard(&self.0).facts.data.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = guard(&self.0);
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = start.checked_add(out.len()).and_then(|end| state.facts.data.get(start..end));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = guard(&self.0);
        state.call()?;
        let facts = &mut state.facts;
        let (old, new) = (facts.data.len(), usize::try_from(len).map_err(io::Error::other)?);
        let old_tail = facts.data.get(new..).unwrap_or_default().to_vec();
        facts.data.resize(new, 0);
        facts.pending.push(FactsWrite::Len { old_tail, old, new });
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = guard(&self.0);
        state.call()?;
        state.facts.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = guard(&self.0);
        let alive = state.call();
        let data = if alive.is_err() { &data[..data.len() / 2] } else { data };
        let facts = &mut state.facts;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let end = start.checked_add(data.len()).filter(|end| *end <= facts.data.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let old = facts.data[start..end].to_vec();
        facts.data[start..end].copy_from_slice(data);
        facts.pending.push(FactsWrite::Bytes { offset: start, old, new: data.to_vec() });
        alive
    }
}
