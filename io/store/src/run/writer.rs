//! Writing a run: rows in order, then the state, then the end that makes it count. Spec: store, "Runs".

use std::io;
use std::sync::Arc;

use super::{Cover, HEAD_BYTES, Health, Part, Run, Sum, TAIL_MAGIC, add_row};
use crate::cache::Cache;
use crate::disk::DiskFile;
use crate::filter::Filter;
use crate::table::{PAGE_ROWS, Table};
use sealtide_crypto::{Blake3, blake3};

/// Bytes that are appended at once.
const WRITE_BYTES: usize = 256 * 1024;
/// Bytes after which what was written is synced, so that no sync at the end takes long.
const SYNC_BYTES: u64 = 8 * 1024 * 1024;

/// Writes a run: the tables in order, each row above the one before.
pub(crate) struct RunWriter {
    cover: Cover,
    name: String,
    file: Arc<dyn DiskFile>,
    health: Arc<Health>,
    folder: String,
    parts: Vec<Part>,
    /// Rows of the table at work that wait for their page to be full.
    page: Vec<u8>,
    sum: Sum,
    buffer: Vec<u8>,
    /// Bytes of the file with those that wait.
    len: u64,
    synced: u64,
    rows_max: [u64; Table::ALL.len()],
    tables_done: bool,
    state_bytes: u64,
    state_hash: Blake3,
}

impl RunWriter {
    /// Begins a file; `rows_max` are the most rows that each table gets.
    pub(crate) fn new(
        health: &Arc<Health>,
        folder: &str,
        cover: Cover,
        rows_max: [u64; Table::ALL.len()],
    ) -> io::Result<Self> {
        let name = cover.name(folder);
        match health.disk.remove(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = health.disk.create(&name)?;
        let mut writer = Self {
            cover,
            name,
            file,
            health: Arc::clone(health),
            folder: folder.to_owned(),
            parts: Vec::new(),
            page: Vec::new(),
            sum: Sum::default(),
            buffer: cover.head(),
            len: HEAD_BYTES,
            synced: 0,
            rows_max,
            tables_done: false,
            state_bytes: 0,
            state_hash: Blake3::new(),
        };
        writer.begin();
        Ok(writer)
    }

    fn table(&self) -> Table {
        Table::ALL[self.parts.len() - 1]
    }

    fn begin(&mut self) {
        let table = Table::ALL[self.parts.len()];
        let filter = if table.shape().filter > 0 { self.rows_max[table as usize] } else { 0 };
        let part =
            Part { offset: self.len, rows: 0, fences: Vec::new(), sums: Vec::new(), filter: Filter::sized(filter) };
        self.parts.push(part);
        self.sum = Sum::default();
    }

    fn end(&mut self) -> io::Result<()> {
        self.flush_page()?;
        let (summed, sum) = (self.table().shape().summed, self.sum);
        if let Some(part) = self.parts.last_mut() {
            if summed {
                part.sums.push(sum);
            }
            part.fences.shrink_to_fit();
            part.sums.shrink_to_fit();
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, table: Table, row: &[u8]) -> io::Result<()> {
        while self.table() < table {
            self.end()?;
            self.begin();
        }
        let shape = table.shape();
        let Some(part) = self.parts.last_mut() else { return Ok(()) };
        if self.page.is_empty() {
            part.fences.extend_from_slice(&row[..shape.fence]);
            if shape.summed {
                part.sums.push(self.sum);
            }
        }
        if shape.filter > 0 {
            part.filter.add(&row[..shape.filter]);
        }
        if shape.summed {
            add_row(table, row, &mut self.sum);
        }
        part.rows += 1;
        self.page.extend_from_slice(row);
        if self.page.len() == PAGE_ROWS * shape.row { self.flush_page() } else { Ok(()) }
    }

    fn flush_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let table = self.table();
        let number = self.parts.last().map_or(0, |part| (part.rows - 1) / PAGE_ROWS as u64) as u32;
        let check = self.cover.page_check(table, number, &self.page);
        let page = std::mem::take(&mut self.page);
        self.write(&page)?;
        self.write(&check)?;
        self.page = page;
        self.page.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.len += bytes.len() as u64;
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.append(&self.buffer)?;
        self.buffer.clear();
        if self.len - self.synced >= SYNC_BYTES {
            self.health.sync(&*self.file)?;
            self.synced = self.len;
        }
        Ok(())
    }

    /// Writes some of the state, behind all rows.
    pub(crate) fn push_state(&mut self, bytes: &[u8]) -> io::Result<()> {
        while !self.tables_done {
            self.end()?;
            self.tables_done = self.parts.len() == Table::ALL.len();
            if !self.tables_done {
                self.begin();
            }
        }
        self.state_bytes += bytes.len() as u64;
        self.state_hash.update(bytes);
        self.write(bytes)
    }

    /// Ends the file. Pages and state are durable before the end of the file says that there is a run.
    pub(crate) fn finish(mut self, cache: &Cache) -> io::Result<Run> {
        self.push_state(&[])?;
        self.flush()?;
        self.health.sync(&*self.file)?;
        let state = (self.len - self.state_bytes, self.state_bytes, self.state_hash.finish());
        let footer = write_footer(&self.parts, &state);
        let mut tail = self.len.to_le_bytes().to_vec();
        tail.extend_from_slice(&blake3(&footer));
        let check = blake3(&tail);
        tail.extend_from_slice(&check[..16]);
        tail.extend_from_slice(TAIL_MAGIC);
        self.file.append(&footer)?;
        self.file.append(&tail)?;
        self.health.sync(&*self.file)?;
        if self.health.durable {
            self.health.disk.sync_folder(&self.folder)?;
        }
        let Self { cover, name, file, health, parts, .. } = self;
        Ok(Run { cover, name, file, serial: cache.serial(), parts, state, health })
    }

    /// Takes the unfinished file away.
    pub(crate) fn remove(self) {
        let _ = self.health.disk.remove(&self.name);
    }

    pub(crate) fn file_name(&self) -> &str {
        &self.name
    }

    pub(crate) fn health(&self) -> &Arc<Health> {
        &self.health
    }
}

fn write_footer(parts: &[Part], state: &(u64, u64, [u8; 32])) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(&state.0.to_le_bytes());
    out.extend_from_slice(&state.1.to_le_bytes());
    out.extend_from_slice(&state.2);
    for part in parts {
        out.extend_from_slice(&part.offset.to_le_bytes());
        out.extend_from_slice(&part.rows.to_le_bytes());
        out.extend_from_slice(&part.fences);
        for (count, sum) in &part.sums {
            out.extend_from_slice(&count.to_le_bytes());
            out.extend_from_slice(&sum.0);
        }
        part.filter.write(&mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use sealtide_sync::IdSum;

    use super::*;
    use crate::disk::Disk;
    use crate::mem::MemDisk;
    use crate::pack::Place;
    use crate::run::{Cursor, id_of};
    use crate::runs::{RUNS_FOLDER, Scan};
    use crate::table::{Stored, member_row};

    fn row(number: u32) -> [u8; 60] {
        let place = Place { pack: 1, offset: number, body_len: 9 };
        let stored = Stored { order: u64::from(number / 200), place, encoded_len: 8 };
        member_row(1 + number % 3, &sealtide_ibgib::Sid(sealtide_crypto::sha256(&number.to_be_bytes())), &stored)
    }

    fn run_of(disk: &MemDisk, rows: &BTreeSet<[u8; 60]>, cache: &Arc<Cache>) -> Arc<Run> {
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let health = Arc::new(Health::new(disk, true));
        let cover = Cover { first: 1, last: 1, print: [7; 32] };
        let mut writer = RunWriter::new(&health, RUNS_FOLDER, cover, [rows.len() as u64; Table::ALL.len()]).unwrap();
        rows.iter().for_each(|row| writer.push(Table::Members, row).unwrap());
        writer.push_state(b"state").unwrap();
        let written = writer.finish(cache).unwrap();
        let run = Run::open(&health, cache, RUNS_FOLDER, cover).unwrap().expect("it is whole");
        assert_eq!((run.state(), written.state()), (Ok(b"state".to_vec()), Ok(b"state".to_vec())));
        let other = Cover { print: [8; 32], ..cover };
        assert!(Run::open(&health, cache, RUNS_FOLDER, other).unwrap().is_none(), "of other packs");
        assert_eq!(run.check(RUNS_FOLDER, cache), None);
        Arc::new(run)
    }

    // Proves: SY-79
    #[test]
    fn a_run_finds_every_place_and_sums_every_range() {
        let cache = Arc::default();
        for count in [0, 1, 63, 64, 65, 1000] {
            let rows: BTreeSet<[u8; 60]> = (0..count).map(row).collect();
            let run = run_of(&MemDisk::new(1), &rows, &cache);
            assert_eq!(run.rows(Table::Members), u64::from(count));
            let strangers = (2000..2050).map(|number| row(number)[..44].to_vec());
            let fronts: Vec<Vec<u8>> =
                [vec![], vec![0], vec![0, 0, 0, 2], vec![255; 44]].into_iter().chain(strangers).collect();
            let keys = rows.iter().step_by(7).map(|row| row[..44].to_vec()).chain(fronts);
            for key in keys {
                let below: Vec<_> = rows.iter().filter(|row| row[..key.len()] < key[..]).collect();
                let mut sum = IdSum::default();
                below.iter().for_each(|row| sum.add(&id_of(*row, 44)));
                assert_eq!(run.sum_below(&cache, Table::Members, &key), Ok((below.len() as u64, sum)));
                let mut scan =
                    Scan::new(vec![Cursor::new(&run, &cache, Table::Members, &key).unwrap()], Table::Members);
                let rest = rows.iter().filter(|row| row[..key.len()] >= key[..]);
                rest.for_each(|row| assert_eq!(scan.next(), Ok(Some(&row[..]))));
                assert_eq!(scan.next(), Ok(None));
                let there = rows.iter().find(|row| row.starts_with(&key)).map(|row| row.to_vec());
                if key.len() == 44 {
                    assert_eq!(run.get(&cache, Table::Members, &key), Ok(there));
                }
            }
            assert_eq!(run.get(&cache, Table::Records, &[1; 32]), Ok(None), "an empty table");
        }
    }

    #[test]
    fn equal_keys_of_several_runs_come_once() {
        let cache = Arc::default();
        let halves = [(0..600).map(row).collect::<BTreeSet<_>>(), (400..1000).map(row).collect()];
        let runs: Vec<Arc<Run>> = halves.iter().map(|rows| run_of(&MemDisk::new(1), rows, &cache)).collect();
        let cursors = runs.iter().map(|run| Cursor::whole(run, Table::Members)).collect();
        let mut scan = Scan::new(cursors, Table::Members);
        let all: BTreeSet<[u8; 60]> = (0..1000).map(row).collect();
        all.iter().for_each(|row| assert_eq!(scan.next(), Ok(Some(&row[..]))));
        assert_eq!(scan.next(), Ok(None));
    }
}
