//! The state file of a folder: the scan cache in memory and on disk, and the journal. One redb file, outside the
//! directory.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use sealtide_ibgib::{FileKind, Sid, TimelineId};

use crate::journal::Journal;
use crate::{FolderError, Placed, Stat};

/// The state of one folder. Reads are from memory; writes are gathered and go to disk together.
pub(crate) struct State {
    path: PathBuf,
    /// None when it could not be opened again.
    db: Option<Database>,
    /// Whether the database failed: it takes no more writes until it is opened again.
    failed: Cell<bool>,
    cache: BTreeMap<String, Placed>,
    pending: BTreeMap<String, Option<Placed>>,
    mounts: BTreeSet<String>,
    /// When another directory was last taken, ms since 1970.
    taken_ms: Option<u64>,
    /// Whether the journal on disk says something.
    journal_open: bool,
}

impl State {
    /// Opens or makes the state file and reads the cache and the journal.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Journal>), FolderError> {
        let failed = |source: redb::Error| FolderError::State { path: path.to_owned(), source: Box::new(source) };
        let damaged = |problem| FolderError::Damaged { path: path.to_owned(), problem };
        let db = Database::builder()
            .set_cache_size(PAGE_CACHE_BYTES)
            .create(path)
            .map_err(|problem| failed(problem.into()))?;
        let (cache, pending, mounts) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (db, failed) = (Some(db), Cell::new(false));
        let (taken_ms, journal_open) = (None, false);
        let mut state = Self { path: path.to_owned(), db, failed, cache, pending, mounts, taken_ms, journal_open };
        match state.fact(VERSION_KEY)? {
            None => state.write(|state, txn| state.put_fact(txn, VERSION_KEY, &[VERSION]))?,
            Some(version) if version == [VERSION] => {}
            Some(_) => return Err(damaged("it was written by another version")),
        }
        state.cache = state.read_cache()?;
        state.mounts = state.read_mounts()?;
        state.taken_ms = state.fact(TAKEN_KEY)?.and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
        state.journal_open = true;
        let journal = state.take_open_journal()?;
        Ok((state, journal))
    }

    /// Whether the database failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Opens the file again and reads everything anew, as after a crash: what was pending is lost, and what only memory says of a batch that
    /// the file knows nothing of.
    pub(crate) fn open_again(&mut self) -> Result<Option<Journal>, FolderError> {
        // The file is locked as long as it is open.
        self.db = None;
        let (state, journal) = Self::open(&self.path)?;
        *self = state;
        Ok(journal)
    }

    /// The journal, when something in it waits to be taken back or finished.
    pub(crate) fn take_open_journal(&mut self) -> Result<Option<Journal>, FolderError> {
        if !self.journal_open {
            return Ok(None);
        }
        let Some(bytes) = self.fact(JOURNAL_KEY)? else {
            self.journal_open = false;
            return Ok(None);
        };
        let damaged = |_| FolderError::Damaged { path: self.path.clone(), problem: "the journal" };
        Ok(Some(minicbor::decode(&bytes).map_err(damaged)?))
    }

    pub(crate) fn cache(&self) -> &BTreeMap<String, Placed> {
        &self.cache
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Placed> {
        self.cache.get(path)
    }

    /// Notes what stands at a path, or with `None` that nothing known does.
    pub(crate) fn set(&mut self, path: &str, placed: Option<Placed>) {
        match placed {
            Some(placed) => drop(self.cache.insert(path.to_owned(), placed)),
            None if self.cache.remove(path).is_none() => return,
            None => {}
        }
        self.pending.insert(path.to_owned(), placed);
    }

    /// Writes what is pending, durably.
    pub(crate) fn flush(&mut self) -> Result<(), FolderError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write(|_, _| Ok(()))
    }

    /// Writes what is pending once it is much.
    pub(crate) fn flush_if_full(&mut self) -> Result<(), FolderError> {
        if self.pending.len() >= PENDING_MAX { self.flush() } else { Ok(()) }
    }

    /// Writes the journal and what is pending in one durable transaction.
    pub(crate) fn set_journal(&mut self, journal: Option<&Journal>) -> Result<(), FolderError> {
        // Also when the write fails half way: then the next operation looks.
        self.journal_open = true;
        let bytes = journal.map(|journal| minicbor::to_vec(journal).expect("a Vec takes every byte"));
        self.write(|state, txn| match bytes {
            Some(bytes) => state.put_fact(txn, JOURNAL_KEY, &bytes),
            None => {
                let mut facts = state.db(txn.open_table(FACTS))?;
                state.db(facts.remove(JOURNAL_KEY)).map(drop)
            }
        })?;
        self.journal_open = journal.is_some();
        Ok(())
    }

    /// Clears the journal where it says something.
    pub(crate) fn clear_journal(&mut self) -> Result<(), FolderError> {
        if self.journal_open { self.set_journal(None) } else { Ok(()) }
    }

    /// Writes what is pending, except while a batch is under way.
    pub(crate) fn flush_if_idle(&mut self) -> Result<(), FolderError> {
        if self.journal_open { Ok(()) } else { self.flush() }
    }

    /// The (file system, inode) of the directory when it was last opened.
    pub(crate) fn identity(&self) -> Result<Option<(u64, u64)>, FolderError> {
        let bytes = self.fact(IDENTITY_KEY)?;
        Ok(bytes.and_then(|bytes| {
            let (dev, inode) = bytes.split_first_chunk::<8>()?;
            Some((u64::from_le_bytes(*dev), u64::from_le_bytes(inode.try_into().ok()?)))
        }))
    }

    /// When that directory was made, ns since 1970; 0 where nobody knows.
    pub(crate) fn born_ns(&self) -> Result<i64, FolderError> {
        let bytes = self.fact(BORN_KEY)?.and_then(|bytes| bytes.try_into().ok());
        Ok(bytes.map_or(0, i64::from_le_bytes))
    }

    pub(crate) fn set_identity(&mut self, identity: (u64, u64), born_ns: i64) -> Result<(), FolderError> {
        self.write(|state, txn| state.put_identity(txn, identity, born_ns))
    }

    /// Notes another directory that is taken for the one that was known, now.
    pub(crate) fn set_taken(&mut self, identity: (u64, u64), born_ns: i64, now_ms: u64) -> Result<(), FolderError> {
        self.write(|state, txn| {
            state.put_identity(txn, identity, born_ns)?;
            state.put_fact(txn, TAKEN_KEY, &now_ms.to_le_bytes())
        })?;
        self.taken_ms = Some(now_ms);
        Ok(())
    }

    /// When another directory took the place of the one that was known, ms since 1970.
    pub(crate) fn taken_ms(&self) -> Option<u64> {
        self.taken_ms
    }

    /// The directories that other file systems were mounted at when they were last seen.
    pub(crate) fn mounts(&self) -> &BTreeSet<String> {
        &self.mounts
    }

    /// Notes these.
    pub(crate) fn set_mounts(&mut self, mounts: BTreeSet<String>) -> Result<(), FolderError> {
        if mounts == self.mounts {
            return Ok(());
        }
        // No path has a NUL in it.
        let bytes = mounts.iter().map(String::as_str).collect::<Vec<_>>().join("\0");
        self.mounts = mounts;
        self.write(|state, txn| state.put_fact(txn, MOUNTS_KEY, bytes.as_bytes()))
    }

    fn read_mounts(&self) -> Result<BTreeSet<String>, FolderError> {
        let bytes = self.fact(MOUNTS_KEY)?.unwrap_or_default();
        let damaged = |_| FolderError::Damaged { path: self.path.clone(), problem: "the list of mounts" };
        let text = String::from_utf8(bytes).map_err(damaged)?;
        Ok(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
    }

    fn write(
        &mut self,
        more: impl FnOnce(&Self, &WriteTransaction) -> Result<(), FolderError>,
    ) -> Result<(), FolderError> {
        let txn = self.db(self.database()?.begin_write())?;
        {
            let mut table = self.db(txn.open_table(CACHE))?;
            for (path, placed) in &self.pending {
                match placed {
                    Some(placed) => self.db(table.insert(path.as_str(), encode(placed).as_slice())).map(drop)?,
                    None => self.db(table.remove(path.as_str())).map(drop)?,
                }
            }
        }
        more(self, &txn)?;
        self.db(txn.commit())?;
        self.pending.clear();
        Ok(())
    }

    fn put_identity(&self, txn: &WriteTransaction, (dev, inode): (u64, u64), born_ns: i64) -> Result<(), FolderError> {
        self.put_fact(txn, IDENTITY_KEY, &[dev.to_le_bytes(), inode.to_le_bytes()].concat())?;
        self.put_fact(txn, BORN_KEY, &born_ns.to_le_bytes())
    }

    fn put_fact(&self, txn: &WriteTransaction, key: &str, value: &[u8]) -> Result<(), FolderError> {
        let mut facts = self.db(txn.open_table(FACTS))?;
        self.db(facts.insert(key, value)).map(drop)
    }

    fn fact(&self, key: &str) -> Result<Option<Vec<u8>>, FolderError> {
        let txn = self.db(self.database()?.begin_read())?;
        let facts = match txn.open_table(FACTS) {
            Ok(facts) => facts,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(problem) => return self.db(Err(problem)),
        };
        Ok(self.db(facts.get(key))?.map(|value| value.value().to_vec()))
    }

    fn read_cache(&self) -> Result<BTreeMap<String, Placed>, FolderError> {
        let txn = self.db(self.database()?.begin_read())?;
        let table = match txn.open_table(CACHE) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(BTreeMap::new()),
            Err(problem) => return self.db(Err(problem)),
        };
        let mut cache = BTreeMap::new();
        for row in self.db(table.iter())? {
            let (path, value) = self.db(row)?;
            let placed = decode(value.value())
                .ok_or_else(|| FolderError::Damaged { path: self.path.clone(), problem: "a cache entry" })?;
            cache.insert(path.value().to_owned(), placed);
        }
        Ok(cache)
    }

    fn database(&self) -> Result<&Database, FolderError> {
        self.db(self.db.as_ref().ok_or(redb::Error::DatabaseClosed))
    }

    fn db<T>(&self, result: Result<T, impl Into<redb::Error>>) -> Result<T, FolderError> {
        result.map_err(|problem| {
            self.failed.set(true);
            FolderError::State { path: self.path.clone(), source: Box::new(problem.into()) }
        })
    }
}

/// timeline 32 · sid 32 · content 32 · kind 1 · exec 1 · racy 1 · size, mtime, ctime, born, inode, dev 8 each, LE.
fn encode(placed: &Placed) -> Vec<u8> {
    let stat = &placed.stat;
    let mut bytes = Vec::with_capacity(ENTRY_BYTES);
    bytes.extend_from_slice(&placed.timeline.0);
    bytes.extend_from_slice(&placed.sid.0);
    bytes.extend_from_slice(&placed.content);
    bytes.push(match stat.kind {
        FileKind::File => 0,
        FileKind::Symlink => 1,
        FileKind::Dir => 2,
    });
    bytes.extend_from_slice(&[u8::from(stat.exec), u8::from(stat.racy)]);
    for number in [
        stat.size.to_le_bytes(),
        stat.mtime_ns.to_le_bytes(),
        stat.ctime_ns.to_le_bytes(),
        stat.born_ns.to_le_bytes(),
        stat.inode.to_le_bytes(),
        stat.dev.to_le_bytes(),
    ] {
        bytes.extend_from_slice(&number);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Placed> {
    if bytes.len() != ENTRY_BYTES {
        return None;
    }
    let hash = |at: usize| <[u8; 32]>::try_from(&bytes[at..at + 32]).ok();
    let number = |at: usize| <[u8; 8]>::try_from(&bytes[99 + 8 * at..107 + 8 * at]).ok();
    let kind = match bytes[96] {
        0 => FileKind::File,
        1 => FileKind::Symlink,
        2 => FileKind::Dir,
        _ => return None,
    };
    let stat = Stat {
        kind,
        exec: bytes[97] == 1,
        racy: bytes[98] == 1,
        size: u64::from_le_bytes(number(0)?),
        mtime_ns: i64::from_le_bytes(number(1)?),
        ctime_ns: i64::from_le_bytes(number(2)?),
        born_ns: i64::from_le_bytes(number(3)?),
        inode: u64::from_le_bytes(number(4)?),
        dev: u64::from_le_bytes(number(5)?),
    };
    Some(Placed { timeline: TimelineId(hash(0)?), sid: Sid(hash(32)?), stat, content: hash(64)? })
}

const CACHE: TableDefinition<&str, &[u8]> = TableDefinition::new("cache");
const FACTS: TableDefinition<&str, &[u8]> = TableDefinition::new("facts");
const VERSION_KEY: &str = "version";
const JOURNAL_KEY: &str = "journal";
const IDENTITY_KEY: &str = "identity";
const BORN_KEY: &str = "born";
const MOUNTS_KEY: &str = "mounts";
const TAKEN_KEY: &str = "taken";
const VERSION: u8 = 1;
const ENTRY_BYTES: usize = 3 * 32 + 3 + 6 * 8;
/// Memory for pages of the state file. The cache itself is in memory anyway.
const PAGE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Entries that wait for a flush, at most.
const PENDING_MAX: usize = 4096;
