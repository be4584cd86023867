//! The way of tip moves into the log. Spec: store, "Writing"

use std::sync::atomic::Ordering;

use crate::entry::{Entry, Move};
use crate::error::StoreError;
use crate::index::TipMove;
use crate::log::Log;
use crate::space::pieces;
use crate::store::Inner;
use crate::write;

/// Bytes of one entry with tip moves, about.
const MOVES_BYTES_MAX: usize = 512 * 1024;

/// The tip moves of a commit on their way into the log. What a saga moves is written part by part, but for the last, which goes with
/// the commit entry: a large one would be as long as all that it stages. Without a commit behind them they mean nothing.
pub(crate) struct Moving<'a> {
    log: &'a mut Log,
    inner: &'a Inner,
    /// The transaction of the saga; `None` for a local change, which is written in one go with its records.
    pub(crate) ahead: Option<u64>,
    /// The newest part, cut into entries.
    part: Vec<Vec<(Move, TipMove)>>,
    /// All so far, as they stand in entries.
    count: u64,
    /// What was written, as the index needs it.
    written: Vec<TipMove>,
}

impl<'a> Moving<'a> {
    pub(crate) fn new(log: &'a mut Log, inner: &'a Inner, ahead: Option<u64>) -> Self {
        Self { log, inner, ahead, part: Vec::new(), count: 0, written: Vec::new() }
    }

    /// What is left to be written, right in front of what the moves are for; and how many moves there are in all.
    pub(crate) fn end(self, txn: u64) -> (&'a mut Log, Vec<Vec<(Move, TipMove)>>, u64) {
        let Self { log, inner, part, count, written, .. } = self;
        if !written.is_empty() {
            write(&inner.index).txns.entry(txn).or_default().moves.extend(written);
        }
        (log, part, count)
    }

    /// Takes the next part, and writes the one before where that may be.
    pub(crate) fn take(&mut self, moves: Vec<(Move, TipMove)>) -> Result<(), StoreError> {
        if let Some(txn) = self.ahead {
            self.write(txn)?;
        }
        let entries = pieces(moves, MOVES_BYTES_MAX);
        self.count += entries.iter().map(|entry| entry.len() as u64).sum::<u64>();
        self.part.extend(entries);
        Ok(())
    }

    /// Writes what was taken and not written yet.
    pub(crate) fn write(&mut self, txn: u64) -> Result<(), StoreError> {
        if self.part.is_empty() {
            return Ok(());
        }
        let mut builder = self.log.builder();
        for entry in std::mem::take(&mut self.part) {
            let (moves, plain): (Vec<_>, Vec<_>) = entry.into_iter().unzip();
            self.written.extend(plain);
            builder.push(&Entry::Moves { txn, moves });
        }
        self.log.append(&builder)?;
        self.inner.dirty.store(true, Ordering::Relaxed);
        Ok(())
    }
}
