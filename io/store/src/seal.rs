//! From memory to a run, when a pack was sealed. Spec: store, "Runs".

use std::io;

use crate::index::{Index, Txn};
use crate::run::{Run, RunWriter, Unreadable};
use crate::runs::{Scan, cover};
use crate::space::SpaceState;
use crate::state;
use crate::table::{
    Table, address_row, chunk_row, frame_row, head_row, member_row, record_row, reference_row, row_count, set_count,
    tip_place_row, tip_row,
};
use crate::tips::Head;

/// The rows of a table that no run has, sorted, one behind the other.
pub(crate) fn fresh_rows(index: &Index, table: Table) -> Vec<u8> {
    fn sorted<const N: usize>(rows: impl Iterator<Item = [u8; N]>) -> Vec<u8> {
        let mut rows: Vec<[u8; N]> = rows.collect();
        rows.sort_unstable();
        rows.into_flattened()
    }
    fn tips<const N: usize>(
        state: &SpaceState,
        row: impl Fn(u32, &Head, bool) -> [u8; N],
    ) -> impl Iterator<Item = [u8; N]> {
        state.tips.fresh.heads().map(move |(head, gone)| row(state.number, &head, gone))
    }
    let (last, records) = (index.runs.last_pack(), &index.records);
    let spaces = states(index);
    match table {
        Table::Records => {
            let fresh = records.list.iter().filter(|rec| rec.place.pack > last || rec.stored().is_erased());
            sorted(fresh.map(|rec| record_row(&rec.sid, &rec.stored())))
        }
        Table::Members => sorted(spaces.flat_map(|state| {
            let record = |id: u32| records.get(id);
            state.members.iter().map(move |(.., id)| member_row(state.number, &record(*id).sid, &record(*id).stored()))
        })),
        Table::Addresses => sorted(spaces.flat_map(|state| {
            let row = |(address, id): &_| address_row(state.number, address, &records.get(*id).sid);
            state.addresses.iter().map(row)
        })),
        Table::Frames => sorted(spaces.flat_map(|state| {
            state.frames.iter().map(|(timeline, n, id)| {
                frame_row(state.number, &index.timelines.get(*timeline), *n, &records.get(*id).sid)
            })
        })),
        Table::Chunks => sorted(index.chunks.iter().map(|(hash, info)| chunk_row(hash, info.place, info.len))),
        Table::References => sorted(
            spaces.flat_map(|state| state.chunks.iter().map(|(hash, count)| reference_row(state.number, hash, *count))),
        ),
        Table::Named => sorted(spaces.flat_map(|state| state.named.iter().copied())),
        Table::Makers => sorted(spaces.flat_map(|state| state.makers.iter().copied())),
        Table::Tips => sorted(spaces.flat_map(|state| tips(state, tip_row))),
        Table::Heads => sorted(spaces.flat_map(|state| tips(state, head_row))),
        Table::TipPlaces => sorted(spaces.flat_map(|state| tips(state, tip_place_row))),
        Table::Kinds => sorted(spaces.flat_map(|state| state.kinds.iter().copied())),
    }
}

/// The spaces, and the drafts.
fn states(index: &Index) -> impl Iterator<Item = &SpaceState> {
    index.spaces.values().chain(index.drafts().map(|draft| &draft.state))
}

/// Writes what is in memory as the run of the sealed packs up to `last`, durably. Summaries must be settled.
pub(crate) fn write_run(index: &Index, last: u32) -> io::Result<Run> {
    let (runs, first) = (&index.runs, index.runs.last_pack() + 1);
    let cover = cover(&index.packs, first, last)?.ok_or(io::ErrorKind::NotFound)?;
    let records = index.records.list.len() as u64;
    let members = states(index).map(|state| state.members.len() as u64).sum();
    let tips = states(index).map(|state| state.tips.fresh.heads().count() as u64).sum();
    let rows_max = Table::ALL.map(|table| match table {
        Table::Records => records,
        Table::Chunks => index.chunks.len() as u64,
        Table::Heads | Table::TipPlaces => tips,
        _ => members,
    });
    let mut writer = RunWriter::new(&runs.health, runs.folder, cover, rows_max)?;
    let name = writer.file_name().to_owned();
    let write = || {
        for table in Table::ALL {
            for row in fresh_rows(index, table).chunks_exact(table.shape().row) {
                writer.push(table, row)?;
            }
        }
        state::write(index, &mut |piece| writer.push_state(piece))?;
        writer.finish(&runs.cache)
    };
    let written = write();
    if written.is_err() {
        let _ = runs.health.disk().remove(&name);
    }
    written
}

impl Index {
    /// Whether a run now would let go of enough. What is staged and in no draft stays in memory and is written down and numbered anew
    /// each time: it waits until half as many are new as were there at the last run, or it would take the square of that.
    pub(crate) fn lets_go(&self) -> bool {
        let staged: u64 = self.txns.values().map(|txn| txn.records.len() as u64).sum();
        2 * self.fresh >= staged
    }

    /// Lets go of what the run of the newest sealed packs has. Records that are staged stay in memory.
    pub(crate) fn adopt_run(&mut self, run: Run) {
        let staged = self.txns.iter().filter(|(_, txn)| !txn.records.is_empty());
        let staged: Vec<(u64, Vec<_>)> =
            staged.map(|(number, txn)| (*number, txn.records.iter().map(|id| self.line_of(*id)).collect())).collect();
        self.runs.list.push(run.into());
        self.records = Default::default();
        self.timelines = Default::default();
        self.chunk_lists = Default::default();
        self.stones = Default::default();
        self.chunks = Default::default();
        self.fresh = 0;
        self.spaces.values_mut().for_each(|state| state.forget_sealed());
        for txn in self.txns.values_mut() {
            *txn = Txn { draft: txn.draft.take(), knows: txn.knows, stays: txn.stays, ..Txn::default() };
            if let Some(draft) = &mut txn.draft {
                draft.state.forget_sealed();
            }
        }
        for (number, lines) in staged {
            let ids = lines.into_iter().map(|(place, line, len)| self.add_record(place, line, len)).collect();
            self.txns.entry(number).or_default().records = ids;
        }
    }

    /// All rows of a table, those in memory too.
    pub(crate) fn rows(&self, table: Table) -> Rows {
        Rows { scan: self.runs.whole(table), ahead: None, fresh: fresh_rows(self, table), at: 0, table }
    }
}

/// The rows of a table in order, from runs and memory.
pub(crate) struct Rows {
    scan: Result<Scan, Unreadable>,
    /// The next row of the runs, once it was read.
    ahead: Option<Option<Vec<u8>>>,
    fresh: Vec<u8>,
    at: usize,
    table: Table,
}

impl Rows {
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        let counted = self.table.shape().counted;
        loop {
            match self.advance()? {
                // What came and went between two runs adds up to nothing.
                Some(row) if counted && row_count(&row) == 0 => {}
                row => return Ok(row),
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        let shape = self.table.shape();
        let ahead = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.scan.as_mut().map_err(|unreadable| *unreadable)?.next()?.map(<[u8]>::to_vec),
        };
        let fresh = self.fresh.get(self.at..self.at + shape.row);
        let (mut row, other) = match (ahead, fresh) {
            (Some(old), Some(new)) if old[..shape.key] < new[..shape.key] => return Ok(Some(old)),
            (Some(old), Some(new)) if old[..shape.key] == new[..shape.key] => (new.to_vec(), row_count(&old)),
            (ahead, Some(new)) => {
                let row = new.to_vec();
                self.at += shape.row;
                self.ahead = Some(ahead);
                return Ok(Some(row));
            }
            (ahead, None) => return Ok(ahead),
        };
        self.at += shape.row;
        if shape.counted {
            let count = row_count(&row).wrapping_add(other);
            set_count(&mut row, count);
        }
        Ok(Some(row))
    }
}
