//! All runs of an index: which packs they cover, and look-ups over all of them. Spec: store, "Runs".

use std::io;
use std::sync::Arc;

use sealtide_crypto::Blake3;
use sealtide_ibgib::Sid;
use sealtide_sync::IdSum;

use crate::cache::Cache;
use crate::disk::Disk;
use crate::error::Damage;
use crate::pack::Packs;
use crate::run::{Cover, Cursor, Health, Run, Unreadable};
use crate::table::{Stored, Table, read_record_row, row_count, set_count};

/// The folder of the runs of a store.
pub(crate) const RUNS_FOLDER: &str = "runs";
/// The folder of the runs that a check builds to compare.
pub(crate) const CHECK_FOLDER: &str = "check";

/// The runs of an index, oldest first, without gaps between their packs.
#[derive(Clone, Debug)]
pub(crate) struct Runs {
    pub(crate) health: Arc<Health>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) folder: &'static str,
    pub(crate) list: Vec<Arc<Run>>,
    /// Drafts that became part of a space, as long as runs know their rows by the number of the draft.
    pub(crate) joined: Vec<Joined>,
}

/// A draft that became part of a space: the rows of the draft are rows of the space. Runs that were written before say the
/// number of the draft; a later one, and what a merge makes of them with a later one, that of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The number of the draft.
    pub(crate) number: u32,
    /// The number of the space.
    pub(crate) space: u32,
    /// Runs whose last pack is one of these may have rows of the draft.
    pub(crate) first_pack: u32,
    pub(crate) last_pack: u32,
}

impl Joined {
    fn is_in(&self, run: &Run) -> bool {
        (self.first_pack..=self.last_pack).contains(&run.cover.last)
    }

    /// A key of the space as runs before the join have it.
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.number.to_be_bytes(), &key[4..]].concat()
    }
}

/// What binds a run to its packs; `None` when one of them is not there.
pub(crate) fn cover(packs: &Packs, first: u32, last: u32) -> io::Result<Option<Cover>> {
    let mut hasher = Blake3::new();
    hasher.update(b"sealtide run");
    for number in first..=last {
        let Some(pack) = packs.get(&number) else { return Ok(None) };
        hasher.update(&pack.key.0);
        hasher.update(&pack.file.len()?.to_le_bytes());
    }
    Ok(Some(Cover { first, last, print: hasher.finish() }))
}

impl Runs {
    /// No runs yet.
    pub(crate) fn new(disk: &Arc<dyn Disk>, folder: &'static str) -> Self {
        let health = Arc::new(Health::new(Arc::clone(disk), folder == RUNS_FOLDER));
        Self { health, cache: Arc::default(), folder, list: Vec::new(), joined: Vec::new() }
    }

    /// Opens the runs that cover the packs from the first on, and removes all other files: torn ones, those of merges
    /// that did not end, and those that a merge replaced.
    pub(crate) fn load(&mut self, disk: &dyn Disk, packs: &Packs) -> io::Result<()> {
        self.find(disk, packs)?;
        for name in disk.list(self.folder)? {
            let name = format!("{}/{name}", self.folder);
            if !self.list.iter().any(|run| run.name() == name)
                && let Err(error) = disk.remove(&name)
            {
                tracing::warn!(%error, name, "a file that is no run was not removed");
            }
        }
        Ok(())
    }

    /// Opens the runs that cover the packs from the first on; the larger ones where several do.
    pub(crate) fn find(&mut self, disk: &dyn Disk, packs: &Packs) -> io::Result<()> {
        let names = disk.list(self.folder)?;
        let mut there: Vec<(u32, u32)> = names.iter().filter_map(|name| Cover::parse(name)).collect();
        there.sort_by_key(|(first, last)| (*first, u32::MAX - last));
        for (first, last) in there {
            if first != self.last_pack() + 1 {
                continue;
            }
            let Some(cover) = cover(packs, first, last)? else { continue };
            match Run::open(&self.health, &self.cache, self.folder, cover) {
                Ok(Some(run)) => self.list.push(Arc::new(run)),
                Ok(None) => tracing::warn!(
                    first,
                    last,
                    "a run is torn, damaged or of another version: its packs are read again"
                ),
                Err(error) => tracing::warn!(%error, first, last, "a run cannot be read: its packs are read again"),
            }
        }
        Ok(())
    }

    /// The newest pack that is covered; 0 when none is.
    pub(crate) fn last_pack(&self) -> u32 {
        self.list.last().map_or(0, |run| run.cover.last)
    }

    /// Takes the runs away that a merged one replaces; gives the names of their files.
    pub(crate) fn replace(&mut self, merged: Run) -> Vec<String> {
        let inside = |run: &Run| run.cover.first >= merged.cover.first && run.cover.last <= merged.cover.last;
        let at = self.list.iter().position(|run| inside(run)).unwrap_or(self.list.len());
        let gone = self.list.iter().filter(|run| inside(run)).map(|run| run.name().to_owned()).collect();
        self.list.retain(|run| !inside(run));
        self.list.insert(at, Arc::new(merged));
        self.forget_joined();
        gone
    }

    /// Forgets the drafts whose rows no run has under their number any more.
    pub(crate) fn forget_joined(&mut self) {
        self.joined.retain(|joined| self.list.iter().any(|run| joined.is_in(run)));
    }

    /// The drafts that a key's space took over, with the runs that know their rows by their number.
    fn drafts_of(&self, table: Table, key: &[u8]) -> impl Iterator<Item = (&Joined, &Arc<Run>)> {
        let of_key = |joined: &&Joined| table.space_of(key) == Some(joined.space);
        let joined = self.joined.iter().filter(of_key).collect::<Vec<_>>().into_iter();
        joined.flat_map(|joined| self.list.iter().filter(|run| joined.is_in(run)).map(move |run| (joined, run)))
    }

    /// The row with exactly this key, of a table that holds each key once.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
        for run in self.list.iter().rev() {
            if let Some(row) = run.get(&self.cache, table, key)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Where a record lies.
    pub(crate) fn stored(&self, sid: &Sid) -> Result<Option<Stored>, Unreadable> {
        let newest = self.get(Table::Records, &sid.0)?.map(|row| read_record_row(&row));
        Ok(newest.filter(|stored| !stored.is_erased()))
    }

    /// Whether the key is in the table; nothing stands for it before pack `since`. Mostly it is in the run of that
    /// pack: a record becomes a member soon after it is stored.
    pub(crate) fn has_since(&self, table: Table, key: &[u8], since: u32) -> Result<bool, Unreadable> {
        for run in self.list.iter().filter(|run| run.cover.last >= since) {
            if run.get(&self.cache, table, key)?.is_some() {
                return Ok(true);
            }
        }
        for (joined, run) in self.drafts_of(table, key).filter(|(_, run)| run.cover.last >= since) {
            if run.get(&self.cache, table, &joined.key(key))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The row of a chunk.
    pub(crate) fn chunk(&self, hash: &[u8; 32]) -> Result<Option<Vec<u8>>, Unreadable> {
        self.get(Table::Chunks, hash)
    }

    /// The count of a key in a table of counts.
    pub(crate) fn count(&self, table: Table, key: &[u8]) -> Result<u64, Unreadable> {
        let mut count = 0;
        for run in &self.list {
            count += run.get(&self.cache, table, key)?.map_or(0, |row| u64::from(row_count(&row)));
        }
        for (joined, run) in self.drafts_of(table, key) {
            count += run.get(&self.cache, table, &joined.key(key))?.map_or(0, |row| u64::from(row_count(&row)));
        }
        Ok(count)
    }

    /// All rows from `from` on, those of the space that it names; `from` may be the front of a key.
    pub(crate) fn scan(&self, table: Table, from: &[u8]) -> Result<Scan, Unreadable> {
        let may_have = |run: &Run, from: &[u8]| from.len() != table.shape().filter || run.may_have(table, from);
        let cursors = self.list.iter().filter(|run| may_have(run, from));
        let mut cursors: Vec<_> =
            cursors.map(|run| Cursor::new(run, &self.cache, table, from)).collect::<Result<_, _>>()?;
        for (joined, run) in self.drafts_of(table, from) {
            let from = joined.key(from);
            if may_have(run, &from) {
                let cursor = Cursor::new(run, &self.cache, table, &from)?;
                cursors.push(cursor.renumbered(&self.cache, joined.number, joined.space)?);
            }
        }
        Ok(Scan::new(cursors, table))
    }

    /// All rows of a table, read past the cache.
    pub(crate) fn whole(&self, table: Table) -> Result<Scan, Unreadable> {
        whole(&self.list, &self.joined, &self.cache, table)
    }

    /// Count and sum of the ids of `lo ≤ key < hi`, where `lo ≤ hi`.
    pub(crate) fn sum(&self, table: Table, lo: &[u8], hi: &[u8]) -> Result<(u64, IdSum), Unreadable> {
        let (mut count, mut sum) = (0u64, IdSum::default());
        for run in &self.list {
            let (below, low) = run.sum_below(&self.cache, table, lo)?;
            let (upto, high) = run.sum_below(&self.cache, table, hi)?;
            count = count.wrapping_add(upto).wrapping_sub(below);
            sum.add(&high.0);
            sum.sub(&low.0);
        }
        for (joined, run) in self.drafts_of(table, lo) {
            let (below, low) = run.sum_below(&self.cache, table, &joined.key(lo))?;
            let (upto, high) = run.sum_below(&self.cache, table, &joined.key(hi))?;
            count = count.wrapping_add(upto).wrapping_sub(below);
            sum.add(&high.0);
            sum.sub(&low.0);
        }
        Ok((count, sum))
    }

    /// Reads every page of every run and says what is damaged.
    pub(crate) fn check(&self) -> Vec<Damage> {
        self.list.iter().filter_map(|run| run.check(self.folder, &self.cache)).collect()
    }
}

/// All rows of a table in some runs, read past the cache, those of drafts as rows of the spaces that they became part of.
pub(crate) fn whole(runs: &[Arc<Run>], joined: &[Joined], cache: &Cache, table: Table) -> Result<Scan, Unreadable> {
    let mut cursors = Vec::new();
    for run in runs {
        let mut there: Vec<&Joined> =
            joined.iter().filter(|joined| table.is_of_spaces() && joined.is_in(run)).collect();
        there.sort_unstable_by_key(|joined| joined.number);
        let plain = Cursor::whole(run, table);
        cursors.push(plain.without(cache, there.iter().map(|joined| joined.number))?);
        for joined in there {
            cursors.push(Cursor::whole_of(run, cache, table, (joined.number, joined.space))?);
        }
    }
    Ok(Scan::new(cursors, table))
}

/// The rows of one table over several runs, in order.
#[derive(Debug)]
pub(crate) struct Scan {
    cursors: Vec<Cursor>,
    table: Table,
    row: Vec<u8>,
}

impl Scan {
    pub(crate) fn new(cursors: Vec<Cursor>, table: Table) -> Self {
        Self { cursors, table, row: Vec::new() }
    }

    /// The next row. Rows with the same key come once: counts are added, and what adds up to nothing is left out; of
    /// chunks and records the newest row counts, other rows are equal.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, Unreadable> {
        while self.advance()? {
            if !self.table.shape().counted || row_count(&self.row) != 0 {
                return Ok(Some(&self.row));
            }
        }
        Ok(None)
    }

    /// Moves to the next key; `false` behind the last one.
    fn advance(&mut self) -> Result<bool, Unreadable> {
        let shape = self.table.shape();
        self.row.clear();
        for cursor in &mut self.cursors {
            if let Some(row) = cursor.peek()?
                && (self.row.is_empty() || row[..shape.key] <= self.row[..shape.key])
            {
                self.row.clear();
                self.row.extend_from_slice(row);
            }
        }
        if self.row.is_empty() {
            return Ok(false);
        }
        let mut count = 0u32;
        for cursor in &mut self.cursors {
            if let Some(row) = cursor.peek()?
                && row[..shape.key] == self.row[..shape.key]
            {
                if shape.counted {
                    count = count.wrapping_add(row_count(row));
                }
                cursor.step();
            }
        }
        if shape.counted {
            set_count(&mut self.row, count);
        }
        Ok(true)
    }

    /// The next row if it begins with `front`.
    pub(crate) fn next_of(&mut self, front: &[u8]) -> Result<Option<&[u8]>, Unreadable> {
        Ok(self.next()?.filter(|row| row.starts_with(front)))
    }
}
