//! Erasing what records said that no space has any more: a small note is inside its record, and who removes its space
//! expects it to be gone. Spec: SY-67; store, "Collecting".

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sealtide_ibgib::Sid;

use crate::collect::Collected;
use crate::entry::{Entry, ErasedLine};
use crate::error::StoreError;
use crate::run::Unreadable;
use crate::seal::Rows;
use crate::store::{Batch, Store};
use crate::table::{Stored, Table, read_record_row};
use crate::{guard, read};

/// Records that are looked at under one lock, and erased by one entry while writers wait.
const ERASED_AT_ONCE: usize = 1024;

/// Some record may be nobody's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nobodys {
    /// Spaces that were removed until now.
    removed: u32,
    /// Whether one of them is in the open pack.
    pub(crate) in_open_pack: bool,
}

/// The records that no space has and nobody is staging, from the first sid on.
struct Search<'a> {
    store: &'a Store,
    rows: Rows,
}

impl Search<'_> {
    /// Some of them; `None` at the end, which a run that cannot be read brings about too.
    fn next(&mut self) -> Result<Option<Vec<(Sid, Stored)>>, Unreadable> {
        let mut some = Vec::with_capacity(ERASED_AT_ONCE);
        while some.len() < ERASED_AT_ONCE
            && let Some(row) = self.rows.next()?
        {
            let mut sid = Sid([0; 32]);
            sid.0.copy_from_slice(&row[..32]);
            let stored = read_record_row(&row);
            if !stored.is_erased() {
                some.push((sid, stored));
            }
        }
        if some.is_empty() {
            return Ok(None);
        }
        let index = read(&self.store.inner.index);
        let mut found = Vec::new();
        for (sid, stored) in some {
            if index.is_nobodys(&sid, &stored)? {
                found.push((sid, stored));
            }
        }
        Ok(Some(found))
    }
}

impl Store {
    /// Whether a space was removed since every record was looked at: the look takes a while where there are millions.
    fn has_new_removals(&self) -> Option<u32> {
        let removed = read(&self.inner.index).removed_spaces();
        (removed != self.inner.erased_to.load(Ordering::Relaxed)).then_some(removed)
    }

    fn search(&self) -> Search<'_> {
        Search { store: self, rows: read(&self.inner.index).rows(Table::Records) }
    }

    /// The records that [`Store::collect`] would erase now.
    pub fn would_erase(&self) -> Collected {
        let mut collected = Collected::default();
        if self.has_new_removals().is_some() {
            let mut search = self.search();
            while let Ok(Some(some)) = search.next() {
                some.iter().for_each(|(_, stored)| collected.add_record(stored.encoded_len));
            }
        }
        collected
    }

    /// `None` when there is surely no record to erase.
    pub(crate) fn find_nobodys(&self) -> Option<Nobodys> {
        let removed = self.has_new_removals()?;
        let active = guard(&self.inner.log).active.number;
        let (mut search, mut found) = (self.search(), None);
        while let Ok(Some(some)) = search.next() {
            let in_open_pack = some.iter().any(|(_, stored)| stored.place.pack >= active);
            if in_open_pack || (!some.is_empty() && found.is_none()) {
                found = Some(Nobodys { removed, in_open_pack });
            }
            if in_open_pack {
                break;
            }
        }
        if found.is_none() {
            self.inner.erased_to.store(removed, Ordering::Relaxed);
        }
        found
    }

    /// Erases all of them that lie in sealed packs.
    pub(crate) fn erase_nobodys(&self, found: Nobodys, collected: &mut Collected) -> Result<(), StoreError> {
        let active = guard(&self.inner.log).active.number;
        let (mut search, mut all) = (self.search(), true);
        while let Some(some) = search.next()? {
            let mut lines = Vec::new();
            for (sid, stored) in some {
                match self.erased_line(&sid, &stored)?.filter(|line| line.place.pack < active) {
                    Some(line) => lines.push(line),
                    None => all = false,
                }
            }
            self.erase(&lines, collected)?;
        }
        if all {
            self.inner.erased_to.store(found.removed, Ordering::Relaxed);
        }
        Ok(())
    }

    /// What is kept of a record; `None` where its entry is damaged, which a check tells.
    fn erased_line(&self, sid: &Sid, stored: &Stored) -> Result<Option<ErasedLine>, StoreError> {
        let Some(pack) = read(&self.inner.index).packs.get(&stored.place.pack).map(Arc::clone) else { return Ok(None) };
        let line = pack.record_line(stored)?.filter(|(line, _)| line.sid == *sid);
        Ok(line.map(|(_, line_check)| {
            let Stored { place, encoded_len, .. } = *stored;
            ErasedLine { sid: *sid, place, encoded_len, line_check }
        }))
    }

    /// Erases those of `lines` that are still nobody's.
    fn erase(&self, lines: &[ErasedLine], collected: &mut Collected) -> Result<(), StoreError> {
        let mut log = self.writer()?;
        let mut records = Vec::new();
        {
            let index = read(&self.inner.index);
            for line in lines {
                let there = index.stored(&line.sid)?.filter(|stored| stored.place == line.place);
                if let Some(stored) = there
                    && index.is_nobodys(&line.sid, &stored)?
                {
                    records.push(*line);
                }
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let lens: Vec<u32> = records.iter().map(|line| line.encoded_len).collect();
        let mut batch = Batch::new(&log);
        batch.push(Entry::Erase { records });
        let end = self.append(&mut log, batch)?;
        self.inner.durable.wait(end)?;
        // The log stays held, as for chunks.
        self.give_back()?;
        lens.into_iter().for_each(|len| collected.add_record(len));
        Ok(())
    }
}
