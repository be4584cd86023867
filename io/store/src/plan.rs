//! A commit, worked out before anything is written: which records become members, which tips move, and what the
//! summaries are afterwards. Spec: ibgib §14.3.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sealtide_ibgib::{Address, FrameFacts, Sid, TimelineId, Verified, settle_tips};
use sealtide_identity::SpaceId;
use sealtide_sync::{CommitRequest, CommitResult, SagaState, SetSummary};

use crate::entry::{Move, TipLine};
use crate::error::{CommitError, StoreError};
use crate::handle::{load_record, load_record_as};
use crate::index::{Index, address_hash};
use crate::run::Unreadable;
use crate::space::{SpaceState, same_set, tip_id};
use crate::table::{Stored, Table, address_key, last_sid};

/// A frame as the tips need it.
#[derive(Clone, Debug)]
pub(crate) struct FrameOf {
    pub(crate) sid: Sid,
    order: u64,
    address: Address,
    pub(crate) facts: FrameFacts,
}

impl FrameOf {
    pub(crate) fn of(record: &Verified) -> Option<Self> {
        let facts = record.frame()?;
        Some(Self { sid: record.sid(), order: record.order_key(), address: record.address().clone(), facts })
    }

    /// What sorts frames.
    fn place(&self) -> (&TimelineId, &Address, &Sid) {
        (&self.facts.timeline, &self.address, &self.sid)
    }
}

/// Facts of staged frames, by transaction: spares the commit a read of each.
pub(crate) type StagedFacts = BTreeMap<u64, HashMap<Sid, Box<FrameOf>>>;

/// A commit, worked out before anything is written.
pub(crate) struct Plan {
    pub(crate) txn: u64,
    /// Records to append, by their place in the request.
    pub(crate) append: Vec<usize>,
    pub(crate) known: Vec<Sid>,
    pub(crate) taken: Option<Vec<Sid>>,
    pub(crate) staged: u64,
    pub(crate) moves: Vec<Move>,
    pub(crate) items: SetSummary,
    pub(crate) tips: SetSummary,
    pub(crate) result: CommitResult,
}

impl Plan {
    /// Works out a commit: which records become members, and which tips move.
    pub(crate) fn of(
        index: &Index,
        space: &SpaceId,
        state: &SpaceState,
        request: &CommitRequest,
        frames: &[Option<FrameOf>],
        mut staged_facts: HashMap<Sid, Box<FrameOf>>,
    ) -> Result<Plan, CommitError> {
        let txn = match request.saga.and_then(|saga| index.sagas.get(&saga)) {
            None => index.next_txn,
            Some(info) if info.state == SagaState::Staged && info.space == *space => info.txn,
            Some(info) => return Err(StoreError::SagaEnded(info.state).into()),
        };
        for (timeline, expected) in request.expected.iter().filter(|_| request.strict) {
            let heads = index.tips_of(state, timeline)?;
            if !same_set(&heads.iter().map(|head| head.sid).collect(), expected) {
                return Err(CommitError::TipMoved(*timeline));
            }
        }
        let no_records = BTreeSet::new();
        let staged = index.txns.get(&txn).map_or(&no_records, |staged| &staged.records);
        let mut new_items = Vec::new();
        let (mut fresh, mut unread) = (Fresh::default(), Vec::new());
        let mut taken = request.staged.clone();
        let mut add_staged = |id: u32| {
            let rec = index.records.get(id);
            if index.is_member_record(state, id)? {
                return Ok(());
            }
            new_items.push(rec.sid.0);
            if rec.frame.is_some() {
                match staged_facts.remove(&rec.sid) {
                    Some(frame) => fresh.0.push(*frame),
                    None => unread.push((rec.sid, rec.stored())),
                }
            }
            Ok::<_, CommitError>(())
        };
        match &mut taken {
            Some(taken) => {
                taken.sort_unstable();
                taken.dedup();
                for sid in taken {
                    let id = index.records.find(sid).filter(|id| staged.contains(id));
                    add_staged(id.ok_or(CommitError::NotStaged(*sid))?)?;
                }
            }
            None => staged.iter().try_for_each(|id| add_staged(*id))?,
        }
        fresh.read(index, &unread)?;
        let (mut append, mut known, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (at, record) in request.records.iter().enumerate() {
            let sid = record.sid();
            if !seen.insert(sid) || index.is_member(state, &sid)? {
                continue;
            }
            let in_staged = index.records.find(&sid).is_some_and(|id| staged.contains(&id));
            let already_taken = in_staged && taken.as_ref().is_none_or(|taken| taken.binary_search(&sid).is_ok());
            if already_taken {
                continue;
            }
            match index.stored(&sid)? {
                None => append.push(at),
                Some(_) if in_staged => {}
                Some(_) => known.push(sid),
            }
            new_items.push(sid.0);
            if let Some(frame) = &frames[at] {
                fresh.0.push(frame.clone());
            }
        }
        if let Some(taken) = &mut taken {
            let appended = append.iter().map(|at| request.records[*at].sid());
            let in_staged = seen.iter().filter(|sid| index.records.find(sid).is_some_and(|id| staged.contains(&id)));
            let more: BTreeSet<Sid> = appended.chain(known.iter().copied()).chain(in_staged.copied()).collect();
            taken.extend(more);
            taken.sort_unstable();
            taken.dedup();
        }
        let staged_count = staged.len() + append.len() + known.len();
        let new_records = new_items.len() as u64;
        let ((moves, moved), items) = std::thread::scope(|scope| {
            let sum = move || added(state.item_summary.clone(), &new_items);
            // The sums of many records take as long as everything else.
            if new_records < ALONE_FROM {
                return Ok((fresh.settle(index, state)?, sum()));
            }
            let sum = scope.spawn(sum);
            let settled = fresh.settle(index, state);
            Ok::<_, StoreError>((settled?, sum.join().expect("adding does not panic")))
        })?;
        let mut tips = state.tip_summary.clone();
        let mut new_tips = Vec::new();
        for change in &moves {
            if !change.removed.is_empty() {
                let known = index.tips_of(state, &change.timeline)?;
                known.iter().filter(|tip| change.removed.contains(&tip.sid)).for_each(|tip| tips.sub(&tip.id));
            }
            new_tips.extend(change.added.iter().map(|tip| tip_id(&change.tjp, &tip.address, &tip.sid)));
        }
        let tips = added_by_halves(tips, &new_tips);
        let result = CommitResult { moved, new_records };
        Ok(Plan { txn, append, known, taken, staged: staged_count as u64, moves, items, tips, result })
    }
}

/// From how many ids on a summary has a thread of its own, and from how many frames on they are read by two.
const ALONE_FROM: u64 = 2048;

/// A summary with these ids more.
fn added(mut summary: SetSummary, ids: &[[u8; 32]]) -> SetSummary {
    ids.iter().for_each(|id| summary.add(id));
    summary
}

/// As [`added`]; two threads share the work when there is much of it. Summaries add up, so the result is the same.
fn added_by_halves(summary: SetSummary, ids: &[[u8; 32]]) -> SetSummary {
    if (ids.len() as u64) < ALONE_FROM {
        return added(summary, ids);
    }
    let (left, right) = ids.split_at(ids.len() / 2);
    std::thread::scope(|scope| {
        let right = scope.spawn(|| added(SetSummary::default(), right));
        let mut sum = added(summary, left);
        sum.add_all(&right.join().expect("adding does not panic"));
        sum
    })
}

/// Frames that a commit makes members. A large commit brings millions: one list, sorted once.
#[derive(Default)]
struct Fresh(Vec<FrameOf>);

type Moved = (TimelineId, Vec<Sid>, Vec<Sid>);

impl Fresh {
    /// Reads staged frames; two threads share the work when there is much of it.
    fn read(&mut self, index: &Index, unread: &[(Sid, Stored)]) -> Result<(), CommitError> {
        let frame = |(sid, stored): &(Sid, Stored)| {
            let record = load_record_as(index, stored, *sid).map_err(StoreError::Io)?;
            record.as_ref().and_then(FrameOf::of).ok_or(CommitError::NotStaged(*sid))
        };
        let read = |part: &[(Sid, Stored)]| part.iter().map(frame).collect::<Result<Vec<_>, _>>();
        let half = if (unread.len() as u64) < ALONE_FROM { unread.len() } else { unread.len() / 2 };
        let (left, right) = unread.split_at(half);
        std::thread::scope(|scope| {
            let right = (!right.is_empty()).then(|| scope.spawn(|| read(right)));
            self.0.extend(read(left)?);
            if let Some(right) = right {
                self.0.extend(right.join().expect("reading does not panic")?);
            }
            Ok(())
        })
    }

    /// The tip moves that these frames cause.
    fn settle(mut self, index: &Index, state: &SpaceState) -> Result<(Vec<Move>, Vec<Moved>), StoreError> {
        self.0.sort_unstable_by(|left, right| left.place().cmp(&right.place()));
        // Of two shapes of one address the smaller counts: the order of arrival must not decide.
        self.0.dedup_by(|later, first| later.address == first.address && later.facts.timeline == first.facts.timeline);
        let (mut moves, mut results) = (Vec::new(), Vec::new());
        for frames in self.0.chunk_by(|left, right| left.facts.timeline == right.facts.timeline) {
            if let Some((change, moved)) = settle_timeline(index, state, frames)? {
                moves.push(change);
                results.push(moved);
            }
        }
        Ok((moves, results))
    }
}

/// The move that new frames of one timeline cause, sorted by address; `None` when its tips stay what they are.
fn settle_timeline(index: &Index, state: &SpaceState, frames: &[FrameOf]) -> Result<Option<(Move, Moved)>, StoreError> {
    let Some(FrameOf { order, facts: FrameFacts { timeline, tjp, .. }, .. }) = frames.first() else { return Ok(None) };
    let before = tips_of(index, state, timeline)?;
    if let ([], [frame]) = (&before[..], frames) {
        return Ok(Some(begin(frame)));
    }
    let find = |frames: &[FrameOf], address: &Address| -> Option<FrameOf> {
        frames.iter().find(|frame| frame.address == *address).cloned()
    };
    let known: Vec<Address> = before.iter().map(|tip| tip.address.clone()).collect();
    let new = frames.iter().map(|frame| frame.address.clone()).filter(|address| !known.contains(address));
    let mut load = |address: &Address| match frames.binary_search_by(|frame| frame.address.cmp(address)) {
        Ok(at) => Some(frames[at].facts.clone()),
        Err(_) => match find(&before, address) {
            Some(tip) => Some(tip.facts),
            None => member_frame(index, state, address).map(|(_, facts)| facts),
        },
    };
    let after: BTreeSet<Address> = settle_tips(&known, &new.collect::<Vec<_>>(), &mut load).into_iter().collect();
    let (kept, gone): (Vec<&FrameOf>, Vec<&FrameOf>) = before.iter().partition(|tip| after.contains(&tip.address));
    let is_new = |frame: &&FrameOf| after.contains(&frame.address) && !known.contains(&frame.address);
    let added: Vec<&FrameOf> = frames.iter().filter(is_new).collect();
    if gone.is_empty() && added.is_empty() {
        return Ok(None);
    }
    let line = |frame: &&FrameOf| TipLine { sid: frame.sid, n: frame.facts.n, address: frame.address.to_string() };
    let change = Move {
        timeline: *timeline,
        order: *order,
        tjp: tjp.to_string(),
        removed: gone.iter().map(|tip| tip.sid).collect(),
        added: added.iter().map(line).collect(),
    };
    let mut tips: Vec<_> = kept.iter().chain(&added).map(|frame| (&frame.address, frame.sid)).collect();
    tips.sort_unstable();
    let after = tips.into_iter().map(|(_, sid)| sid).collect();
    Ok(Some((change, (*timeline, before.iter().map(|tip| tip.sid).collect(), after))))
}

/// The move of a timeline of which nothing was here before this frame.
fn begin(frame: &FrameOf) -> (Move, Moved) {
    let FrameFacts { timeline, tjp, n, .. } = &frame.facts;
    let change = Move {
        timeline: *timeline,
        order: frame.order,
        tjp: tjp.to_string(),
        removed: Vec::new(),
        added: vec![TipLine { sid: frame.sid, n: *n, address: frame.address.to_string() }],
    };
    (change, (*timeline, Vec::new(), vec![frame.sid]))
}

/// The tips of a timeline as their records say, sorted by address.
fn tips_of(index: &Index, state: &SpaceState, timeline: &TimelineId) -> Result<Vec<FrameOf>, StoreError> {
    let mut tips = Vec::new();
    for head in index.tips_of(state, timeline)? {
        let record = load_record(index, &head.stored)?;
        // Without it the tips would come out wrong: nothing may be written over a tip that cannot be read.
        tips.push(record.as_ref().and_then(FrameOf::of).ok_or(StoreError::Failed)?);
    }
    tips.sort_by(|a, b| (&a.address, a.sid).cmp(&(&b.address, b.sid)));
    Ok(tips)
}

/// The member with this address that is a frame, and its facts.
pub(crate) fn member_frame(index: &Index, state: &SpaceState, address: &Address) -> Option<(Sid, FrameFacts)> {
    for sid in by_address(index, state, address).unwrap_or_default() {
        let known = index.records.find(&sid).map(|id| index.records.get(id));
        if known.is_some_and(|rec| rec.frame.is_none()) {
            continue;
        }
        let stored = index.stored(&sid).ok()??;
        let record = match load_record(index, &stored) {
            Ok(record) => record?,
            Err(error) => {
                tracing::error!(%error, %address, "a member cannot be read");
                return None;
            }
        };
        if record.address() == address
            && let Some(facts) = record.frame()
        {
            return Some((record.sid(), facts));
        }
    }
    None
}

/// Members with this address, in ascending order of sid.
pub(crate) fn by_address(index: &Index, state: &SpaceState, address: &Address) -> Result<Vec<Sid>, Unreadable> {
    let hash = address_hash(address);
    let mut found: Vec<Sid> = state.by_address(&hash).map(|id| index.records.get(id).sid).collect();
    let key = address_key(state.number, &hash);
    let mut scan = index.runs.scan(Table::Addresses, &key)?;
    while let Some(row) = scan.next_of(&key)? {
        found.push(last_sid(row));
    }
    found.sort_unstable();
    Ok(found)
}
