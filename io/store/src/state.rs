//! What the index keeps in memory beside its tables, as bytes at the end of a run: spaces with their summaries and
//! tips, sagas, and what is staged. Spec: store, "Runs".

use std::collections::BTreeSet;

use sealtide_ibgib::{Address, Sid, TimelineId};
use sealtide_sync::{SagaId, SagaState, TipItem};

use crate::entry::{Cut, put_line, put_move, put_sids, put_summary, put_text, put32, put64};
use crate::entry::{read_line, read_move, read_summary};
use crate::index::{Index, SagaInfo, Txn};
use crate::pack::Place;
use crate::space::SpaceState;

/// The state of an index whose summaries are settled.
pub(crate) fn write(index: &Index) -> Vec<u8> {
    let mut out = Vec::new();
    put64(&mut out, index.next_txn);
    put32(&mut out, index.next_space);
    put32(&mut out, index.spaces.len() as u32);
    index.spaces.values().for_each(|state| put32(&mut out, state.number));
    for (space, state) in &index.spaces {
        out.extend_from_slice(space.as_bytes());
        put_space(&mut out, state);
    }
    put32(&mut out, index.sagas.len() as u32);
    for (saga, info) in &index.sagas {
        out.extend_from_slice(&saga.0);
        out.extend_from_slice(info.space.as_bytes());
        put64(&mut out, info.txn);
        put64(&mut out, info.wall_ms);
        out.push(state_byte(info.state));
    }
    put32(&mut out, index.txns.len() as u32);
    for (number, txn) in &index.txns {
        put64(&mut out, *number);
        put_txn(&mut out, index, txn);
    }
    out
}

/// The numbers of the spaces, from the front of the state.
pub(crate) fn space_numbers(bytes: &[u8]) -> Option<BTreeSet<u32>> {
    let mut cut = Cut(bytes);
    let (_, _, count) = (cut.u64()?, cut.u32()?, cut.u32()?);
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
    put64(out, state.tip_count());
    for tip in state.tips() {
        put64(out, tip.order);
        out.extend_from_slice(&tip.id);
        out.extend_from_slice(&tip.timeline.0);
        out.extend_from_slice(&tip.sid.0);
        put64(out, tip.n);
        put_text(out, tip.tjp.as_str());
        // The first frame is its own: no second text.
        put_text(out, if tip.tip == tip.tjp { "" } else { tip.tip.as_str() });
    }
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
    for _ in 0..cut.u64()? {
        let (order, id, timeline, sid) = (cut.u64()?, cut.id()?, TimelineId(cut.id()?), Sid(cut.id()?));
        let n = cut.u64()?;
        let tjp = Address::parse(&cut.text()?).ok()?;
        let text = cut.text()?;
        let tip = if text.is_empty() { tjp.clone() } else { Address::parse(&text).ok()? };
        state.restore_tip(TipItem { order, id, timeline, tjp, tip, sid, n });
    }
    state.restore_len(members);
    Some(state)
}

fn put_txn(out: &mut Vec<u8>, index: &Index, txn: &Txn) {
    put32(out, txn.records.len() as u32);
    for id in &txn.records {
        let (place, line, encoded_len) = index.line_of(*id);
        for number in [place.pack, place.offset, place.body_len, encoded_len] {
            put32(out, number);
        }
        put_line(out, &line);
    }
    put_sids(out, &txn.taken);
    put32(out, txn.moves.len() as u32);
    txn.moves.iter().for_each(|change| put_move(out, change));
}

fn read_txn(cut: &mut Cut<'_>, index: &mut Index) -> Option<Txn> {
    let mut txn = Txn::default();
    for _ in 0..cut.u32()? {
        let place = Place { pack: cut.u32()?, offset: cut.u32()?, body_len: cut.u32()? };
        let encoded_len = cut.u32()?;
        let line = read_line(cut)?;
        txn.records.insert(index.add_record(place, line, encoded_len));
    }
    txn.taken = cut.sids()?;
    let count = cut.u32()?;
    txn.moves = (0..count).map(|_| read_move(cut)).collect::<Option<_>>()?;
    Some(txn)
}
