//! Merging runs in small steps, so that no writer waits for the whole of it. Spec: store, "Runs".

use std::io;
use std::sync::Arc;

use crate::cache::Cache;
use crate::pack::Packs;
use crate::run::{Run, RunWriter, Unreadable};
use crate::runs::{Runs, Scan, cover, whole};
use crate::state::Numbers;
use crate::table::Table;

/// How many runs of about one size are merged into one.
const FACTOR: usize = 8;
/// With more runs than this any neighbours are merged.
const RUNS_MAX: usize = 30;

/// Some neighbouring runs on their way into one.
pub(crate) struct Merge {
    inputs: Vec<Arc<Run>>,
    writer: RunWriter,
    first_pack: u32,
    /// The table at work.
    table: usize,
    scan: Option<Scan>,
    /// The spaces and drafts that were there when the newest of the packs was sealed: rows of others are left out.
    numbers: Numbers,
    cache: Arc<Cache>,
}

/// Why a merge ended without a result. The runs are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("a run cannot be read")]
    Unreadable,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Unreadable> for MergeError {
    fn from(_: Unreadable) -> Self {
        Self::Unreadable
    }
}

/// Which neighbours should be merged: eight whose numbers of packs have the same logarithm to the base eight, the
/// newest such; when there are too many runs, the eight with the fewest packs.
fn choose(packs: &[u32]) -> Option<std::ops::Range<usize>> {
    let level = |count: u32| count.max(1).ilog(FACTOR as u32);
    let mut windows = packs.windows(FACTOR).enumerate().rev();
    let even = windows.find(|(_, window)| window.iter().all(|count| level(*count) == level(window[0])));
    let any = || {
        let windows = packs.windows(FACTOR).enumerate().filter(|_| packs.len() > RUNS_MAX);
        windows.min_by_key(|(_, window)| window.iter().sum::<u32>())
    };
    even.or_else(any).map(|(at, _)| at..at + FACTOR)
}

impl Merge {
    /// Begins a merge if one is due.
    pub(crate) fn begin(runs: &Runs, packs: &Packs) -> Result<Option<Self>, MergeError> {
        let counts: Vec<u32> = runs.list.iter().map(|run| run.packs()).collect();
        let Some(range) = choose(&counts) else { return Ok(None) };
        let inputs = runs.list[range].to_vec();
        let (Some(first), Some(last)) = (inputs.first(), inputs.last()) else { return Ok(None) };
        let Some(cover) = cover(packs, first.cover.first, last.cover.last)? else { return Ok(None) };
        // Checked when the state is copied, before the merged run counts.
        let numbers = Numbers::read(&mut |len| last.state_front(len).ok()).ok_or(MergeError::Unreadable)?;
        let rows = Table::ALL.map(|table| inputs.iter().map(|run| run.rows(table)).sum());
        let writer = RunWriter::new(&runs.health, runs.folder, cover, rows)?;
        let cache = Arc::clone(&runs.cache);
        Ok(Some(Self { inputs, writer, first_pack: cover.first, table: 0, scan: None, numbers, cache }))
    }

    /// Merges about `rows` rows; `true` when only [`Merge::finish`] is left.
    pub(crate) fn step(&mut self, rows: usize) -> Result<bool, MergeError> {
        for _ in 0..rows {
            let Some(table) = Table::ALL.get(self.table).copied() else { return Ok(true) };
            let scan = match &mut self.scan {
                Some(scan) => scan,
                None => self.scan.insert(whole(&self.inputs, &self.numbers.joined, &self.cache, table)?),
            };
            match scan.next()? {
                Some(row) => {
                    // In front of the first pack there is nothing that they could have to hide.
                    let gone = || self.first_pack == 1 && table.is_given_up(row);
                    if table.space_of(row).is_none_or(|space| self.numbers.there.contains(&space)) && !gone() {
                        self.writer.push(table, row)?;
                    }
                }
                None => {
                    self.scan = None;
                    self.table += 1;
                }
            }
        }
        Ok(false)
    }

    /// Merges all that is left at once; gives what [`Merge::finish`] gives.
    pub(crate) fn complete(mut self, cache: &Cache) -> Result<Run, MergeError> {
        loop {
            match self.step(usize::MAX) {
                Ok(false) => {}
                Ok(true) => return self.finish(cache),
                Err(error) => {
                    self.remove();
                    return Err(error);
                }
            }
        }
    }

    /// The run in place of its inputs, durable.
    pub(crate) fn finish(self, cache: &Cache) -> Result<Run, MergeError> {
        let name = self.writer.file_name().to_owned();
        let health = Arc::clone(self.writer.health());
        let Self { inputs, mut writer, .. } = self;
        let write = || {
            if let Some(last) = inputs.last() {
                last.copy_state(&mut |piece| writer.push_state(piece))?;
            }
            Ok(writer.finish(cache)?)
        };
        let written = write();
        if written.is_err() {
            let _ = health.disk().remove(&name);
        }
        written
    }

    /// Gives up.
    pub(crate) fn remove(self) {
        self.writer.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_stay_few_and_are_merged_seldom() {
        let (mut packs, mut written) = (Vec::new(), 0);
        for sealed in 1..=4096u32 {
            packs.push(1);
            while let Some(range) = choose(&packs) {
                let merged: u32 = packs[range.clone()].iter().sum();
                written += merged;
                packs.splice(range, [merged]);
            }
            assert!(packs.len() <= RUNS_MAX, "{packs:?}");
            assert_eq!(packs.iter().sum::<u32>(), sealed);
        }
        assert_eq!(packs, [4096]);
        assert_eq!(written, 4 * 4096, "each pack was merged once for each power of eight");
    }

    #[test]
    fn uneven_runs_are_merged_when_there_are_too_many() {
        let packs: Vec<u32> = (0..31).map(|number| if number % 2 == 0 { 1 } else { 9 }).collect();
        assert!(choose(&packs[..30]).is_none());
        assert!(choose(&packs).is_some());
    }
}
