//! What the index keeps in memory beside its tables, as bytes at the end of a run: spaces with their summaries, sagas,
//! what is staged, and drafts. Spec: store, "Runs".

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use sealtide_ibgib::TimelineId;
use sealtide_sync::{SagaId, SagaState};

use crate::draft::Draft;
use crate::entry::{Cut, put_line, put_summary, put_timelines, put32, put64, read_line, read_summary};
use crate::index::{Index, SagaInfo, Txn};
use crate::pack::Place;
use crate::runs::Joined;
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
        let drafts: Vec<u32> = index.drafts().map(|draft| draft.state.number).collect();
        put32(out, (index.spaces.len() + drafts.len()) as u32);
        put32(out, index.runs.joined.len() as u32);
        index.spaces.values().map(|state| state.number).chain(drafts).for_each(|number| put32(out, number));
        for joined in &index.runs.joined {
            let Joined { number, space, first_pack, last_pack } = *joined;
            [number, space, first_pack, last_pack].into_iter().for_each(|part| put32(out, part));
        }
        put64(out, index.next_txn);
        put32(out, index.next_space);
        put32(out, index.next_draft);
        put32(out, index.spaces.len() as u32);
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
        // What a commit takes and moves stands in front of it in its own pack: here is none that a later one could need.
        out.put(|out| {
            put64(out, *number);
            put32(out, txn.records.len() as u32);
        })?;
        txn.records.iter().try_for_each(|id| out.put(|out| put_record(out, index, *id)))?;
        out.put(|out| {
            out.push(u8::from(txn.knows) | u8::from(txn.draft.is_some()) << 1);
            if let Some(Draft { space, state, first_pack, overlaps, unsettled }) = txn.draft.as_deref() {
                out.extend_from_slice(space.as_bytes());
                put32(out, *first_pack);
                out.push(u8::from(*overlaps) | u8::from(!unsettled.is_empty()) << 1);
                if !unsettled.is_empty() {
                    put_timelines(out, unsettled.iter());
                }
                put_space(out, state);
            }
        })?;
    }
    out.flush()
}

/// The front of a state: whose rows there are, as far as merges need it.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// The numbers of the spaces and drafts.
    pub(crate) there: BTreeSet<u32>,
    /// The drafts that became part of one of them.
    pub(crate) joined: Vec<Joined>,
}

impl Numbers {
    /// `front` gives the first bytes of a state.
    pub(crate) fn read(front: &mut dyn FnMut(usize) -> Option<Vec<u8>>) -> Option<Self> {
        let bytes = front(8)?;
        let mut cut = Cut(&bytes);
        let counts = [cut.u32()? as usize, cut.u32()? as usize];
        let len = counts[0].checked_mul(4)?.checked_add(counts[1].checked_mul(16)?)?.checked_add(8)?;
        Self::cut(&mut Cut(&front(len)?))
    }

    fn cut(cut: &mut Cut<'_>) -> Option<Self> {
        let (there, joined) = (cut.u32()?, cut.u32()?);
        let there = (0..there).map(|_| cut.u32()).collect::<Option<_>>()?;
        let mut one = || {
            let (number, space) = (cut.u32()?, cut.u32()?);
            Some(Joined { number, space, first_pack: cut.u32()?, last_pack: cut.u32()? })
        };
        let joined = (0..joined).map(|_| one()).collect::<Option<_>>()?;
        Some(Self { there, joined })
    }
}

/// Brings an index without entries to the state; `None` when the bytes are none.
pub(crate) fn read(bytes: &[u8], index: &mut Index) -> Option<()> {
    let mut cut = Cut(bytes);
    index.runs.joined = Numbers::cut(&mut cut)?.joined;
    index.runs.forget_joined();
    index.next_txn = cut.u64()?;
    index.next_space = cut.u32()?;
    index.next_draft = cut.u32()?;
    for _ in 0..cut.u32()? {
        let space = cut.space()?;
        let state = read_space(&mut cut)?;
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
    put32(out, state.number);
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

fn read_space(cut: &mut Cut<'_>) -> Option<SpaceState> {
    let mut state = SpaceState::new(cut.u32()?);
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
    let flags = cut.u8().filter(|flags| *flags < 4)?;
    txn.knows = flags & 1 != 0;
    if flags & 2 != 0 {
        let (space, first_pack) = (cut.space()?, cut.u32()?);
        let flags = cut.u8().filter(|flags| *flags < 4)?;
        let unsettled = if flags & 2 == 0 { BTreeSet::new() } else { cut.timelines()?.into_iter().collect() };
        let (state, overlaps) = (read_space(cut)?, flags & 1 != 0);
        txn.draft = Some(Box::new(Draft { space, state, first_pack, overlaps, unsettled }));
    }
    Some(txn)
}
