//! What the index keeps in memory beside its tables, as bytes at the end of a run: spaces with their summaries, sagas,
//! and what is staged. Spec: store, "Runs".

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use sealtide_ibgib::TimelineId;
use sealtide_sync::{SagaId, SagaState};

use crate::entry::{Cut, put_line, put_sids, put_summary, put32, put64};
use crate::entry::{read_line, read_move, read_summary};
use crate::index::{Index, SagaInfo, Txn};
use crate::pack::Place;
use crate::space::SpaceState;

/// Bytes that are handed on at once, about.
const PIECE_BYTES: usize = 64 * 1024;

/// Where the bytes go, piece by piece: what is staged need not be in memory twice.
struct Out<'a> {
    bytes: Vec<u8>,
    take: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Out<'_> {
    /// Adds what `put` writes.
    fn put(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        put(&mut self.bytes);
        if self.bytes.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        (self.take)(&self.bytes)?;
        self.bytes.clear();
        Ok(())
    }
}

/// Hands out the state of an index whose summaries are settled.
pub(crate) fn write(index: &Index, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut out = Out { bytes: Vec::new(), take };
    out.put(|out| {
        put64(out, index.next_txn);
        put32(out, index.next_space);
        put32(out, index.spaces.len() as u32);
        index.spaces.values().for_each(|state| put32(out, state.number));
    })?;
    for (space, state) in &index.spaces {
        out.put(|out| {
            out.extend_from_slice(space.as_bytes());
            put_space(out, state);
        })?;
    }
    out.put(|out| put32(out, index.sagas.len() as u32))?;
    for (saga, info) in &index.sagas {
        out.put(|out| {
            out.extend_from_slice(&saga.0);
            out.extend_from_slice(info.space.as_bytes());
            put64(out, info.txn);
            put64(out, info.wall_ms);
            out.push(state_byte(info.state));
        })?;
    }
    out.put(|out| put32(out, index.txns.len() as u32))?;
    for (number, txn) in &index.txns {
        out.put(|out| {
            put64(out, *number);
            put32(out, txn.records.len() as u32);
        })?;
        txn.records.iter().try_for_each(|id| out.put(|out| put_record(out, index, *id)))?;
        // What a commit takes and moves stands in front of it in its own pack: here is none that a later one could need.
        out.put(|out| {
            put_sids(out, &[]);
            put32(out, 0);
        })?;
    }
    out.flush()
}

/// The numbers of the spaces; `front` gives the first bytes of the state.
pub(crate) fn space_numbers(front: &mut dyn FnMut(usize) -> Option<Vec<u8>>) -> Option<BTreeSet<u32>> {
    const COUNT_AT: usize = 12;
    let count = Cut(front(COUNT_AT + 4)?.get(COUNT_AT..)?).u32()? as usize;
    let bytes = front(COUNT_AT + 4 + count.checked_mul(4)?)?;
    let mut cut = Cut(bytes.get(COUNT_AT + 4..)?);
    (0..count).map(|_| cut.u32()).collect()
}

/// Brings an index without entries to the state; `None` when the bytes are none.
pub(crate) fn read(bytes: &[u8], index: &mut Index) -> Option<()> {
    let mut cut = Cut(bytes);
    index.next_txn = cut.u64()?;
    index.next_space = cut.u32()?;
    let count = cut.u32()?;
    let numbers: Vec<u32> = (0..count).map(|_| cut.u32()).collect::<Option<_>>()?;
    for number in numbers {
        let space = cut.space()?;
        let state = read_space(&mut cut, number)?;
        index.spaces.insert(space, state);
    }
    for _ in 0..cut.u32()? {
        let (saga, space) = (SagaId(cut.id()?), cut.space()?);
        let (txn, wall_ms, state) = (cut.u64()?, cut.u64()?, byte_state(cut.u8()?)?);
        if state == SagaState::Staged {
            index.spaces.get_mut(&space)?.staging.insert(saga);
        }
        index.sagas.insert(saga, SagaInfo { space, txn, state, wall_ms });
    }
    for _ in 0..cut.u32()? {
        let number = cut.u64()?;
        let txn = read_txn(&mut cut, index)?;
        index.txns.insert(number, txn);
    }
    cut.0.is_empty().then_some(())
}

fn state_byte(state: SagaState) -> u8 {
    match state {
        SagaState::Staged => 2,
        SagaState::Committed => 3,
        SagaState::Aborted => 4,
        _ => 0,
    }
}

fn byte_state(byte: u8) -> Option<SagaState> {
    Some(match byte {
        2 => SagaState::Staged,
        3 => SagaState::Committed,
        4 => SagaState::Aborted,
        0 => SagaState::Unknown,
        _ => return None,
    })
}

fn put_space(out: &mut Vec<u8>, state: &SpaceState) {
    for number in [state.created_ms, state.bytes, state.len(), state.since_sums] {
        put64(out, number);
    }
    out.push(u8::from(state.stated.is_some()));
    if let Some((items, tips)) = state.stated {
        out.extend_from_slice(&items);
        out.extend_from_slice(&tips);
    }
    put_summary(out, &state.item_summary);
    put_summary(out, &state.tip_summary);
    put64(out, state.tips.count);
    put64(out, state.tips.timelines);
    put32(out, state.tips.diverged.len() as u32);
    state.tips.diverged.iter().for_each(|timeline| out.extend_from_slice(&timeline.0));
}

fn read_space(cut: &mut Cut<'_>, number: u32) -> Option<SpaceState> {
    let mut state = SpaceState::new(number);
    state.created_ms = cut.u64()?;
    state.bytes = cut.u64()?;
    let members = cut.u64()?;
    state.since_sums = cut.u64()?;
    if cut.u8()? == 1 {
        state.stated = Some((cut.id()?, cut.id()?));
    }
    state.item_summary = read_summary(cut)?;
    state.tip_summary = read_summary(cut)?;
    (state.tips.count, state.tips.timelines) = (cut.u64()?, cut.u64()?);
    state.tips.diverged = Arc::new((0..cut.u32()?).map(|_| cut.id().map(TimelineId)).collect::<Option<_>>()?);
    state.restore_len(members);
    Some(state)
}

fn put_record(out: &mut Vec<u8>, index: &Index, id: u32) {
    let (place, line, encoded_len) = index.line_of(id);
    for number in [place.pack, place.offset, place.body_len, encoded_len] {
        put32(out, number);
    }
    put_line(out, &line);
}

fn read_txn(cut: &mut Cut<'_>, index: &mut Index) -> Option<Txn> {
    let mut txn = Txn::default();
    for _ in 0..cut.u32()? {
        let place = Place { pack: cut.u32()?, offset: cut.u32()?, body_len: cut.u32()? };
        let encoded_len = cut.u32()?;
        let line = read_line(cut)?;
        txn.records.insert(index.add_record(place, line, encoded_len));
    }
    let _ = cut.sids()?;
    for _ in 0..cut.u32()? {
        read_move(cut)?;
    }
    Some(txn)
}
