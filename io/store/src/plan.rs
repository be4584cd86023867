//! A commit, worked out before anything of it counts: which records become members, which tips move, and what the
//! summaries are afterwards. Spec: ibgib §14.3.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use sealtide_ibgib::{Address, FrameFacts, Sid, TimelineId, Verified, settle_tips};
use sealtide_identity::SpaceId;
use sealtide_sync::{CommitRequest, CommitResult, SagaState, SetSummary};

use crate::entry::{Move, TipLine};
use crate::error::{CommitError, StoreError};
use crate::handle::{join, load_record, load_record_as};
use crate::index::{Index, TipMove, address_hash};
use crate::run::Unreadable;
use crate::space::{SpaceState, same_set};
use crate::table::{Stored, Table, address_key, frame_key, last_sid, read_frame_row};
use crate::tips::Head;

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

/// A commit, worked out before anything of it counts.
pub(crate) struct Plan {
    pub(crate) txn: u64,
    /// Records to append, by their place in the request.
    pub(crate) append: Vec<usize>,
    pub(crate) known: Vec<Sid>,
    pub(crate) taken: Option<Vec<Sid>>,
    pub(crate) staged: u64,
    pub(crate) items: SetSummary,
    pub(crate) tips: SetSummary,
    /// The timelines whose tips were left as they are: see [`Settle::NotThese`].
    pub(crate) later: Vec<TimelineId>,
    pub(crate) result: CommitResult,
}

/// What a commit is worked out from.
pub(crate) struct Asked<'a> {
    pub(crate) index: &'a Index,
    /// The transaction: see [`txn_of`].
    pub(crate) txn: u64,
    /// What gets the records: a space, or a draft.
    pub(crate) state: &'a SpaceState,
    /// A draft that becomes part of it.
    pub(crate) draft: Option<&'a SpaceState>,
    pub(crate) request: &'a CommitRequest,
    /// Of the records of the request.
    pub(crate) frames: &'a [Option<FrameOf>],
    /// Of staged records, as far as they were kept.
    pub(crate) facts: HashMap<Sid, Box<FrameOf>>,
    pub(crate) settle: Settle<'a>,
}

/// Of which timelines the tips are settled.
#[derive(Clone, Copy)]
pub(crate) enum Settle<'a> {
    /// Of all that get a frame.
    Moved,
    /// As `Moved`, but for these and those that have more than so many tips: a bulk stream brings the frames of a timeline in no order, and looking
    /// at what is here with each step would take the square of their number.
    NotThese(&'a BTreeSet<TimelineId>, usize),
    /// As `Moved`, and of these, from all their frames.
    AlsoThese(&'a BTreeSet<TimelineId>),
}

/// The transaction of a commit: that of its saga, or a new one.
pub(crate) fn txn_of(index: &Index, space: &SpaceId, request: &CommitRequest) -> Result<u64, CommitError> {
    match request.saga.and_then(|saga| index.sagas.get(&saga)) {
        None => Ok(index.next_txn),
        Some(info) if info.state == SagaState::Staged && info.space == *space => Ok(info.txn),
        Some(info) => Err(StoreError::SagaEnded(info.state).into()),
    }
}

/// A space as it will be: with the draft that becomes part of it.
#[derive(Clone, Copy)]
struct Union<'a> {
    index: &'a Index,
    state: &'a SpaceState,
    draft: Option<&'a SpaceState>,
}

impl<'a> Union<'a> {
    fn states(self) -> impl Iterator<Item = &'a SpaceState> {
        [Some(self.state), self.draft].into_iter().flatten()
    }

    fn is_member_record(self, id: u32) -> Result<bool, Unreadable> {
        Ok(self.index.is_member_record(self.state, id)?
            || self.draft.map_or(Ok(false), |draft| self.index.is_member_record(draft, id))?)
    }

    fn is_member(self, sid: &Sid) -> Result<bool, Unreadable> {
        Ok(self.index.is_member(self.state, sid)?
            || self.draft.map_or(Ok(false), |draft| self.index.is_member(draft, sid))?)
    }

    /// The tips of a timeline, those of the space first.
    fn heads(self, timeline: &TimelineId) -> Result<Vec<Head>, Unreadable> {
        let mut heads = Vec::new();
        for state in self.states() {
            heads.extend(self.index.tips_of(state, timeline)?);
        }
        Ok(heads)
    }

    fn frame(self, address: &Address) -> Option<FrameFacts> {
        self.states().find_map(|state| member_frame(self.index, state, address)).map(|(_, facts)| facts)
    }

    /// The timelines of which space and draft both have tips, sorted.
    fn common(self) -> Result<Vec<TimelineId>, Unreadable> {
        let Some(draft) = self.draft else { return Ok(Vec::new()) };
        let (few, many) =
            if draft.tips.timelines <= self.state.tips.timelines { (draft, self.state) } else { (self.state, draft) };
        let mut common = self.timelines(few)?;
        if many.tips.timelines == 0 {
            return Ok(Vec::new());
        }
        let mut failed = false;
        common.retain(|timeline| match self.index.tips_of(many, timeline) {
            Ok(tips) => !tips.is_empty(),
            Err(Unreadable) => {
                failed = true;
                false
            }
        });
        if failed { Err(Unreadable) } else { Ok(common) }
    }

    /// The timelines of one of the two, sorted.
    fn timelines(self, state: &SpaceState) -> Result<Vec<TimelineId>, Unreadable> {
        let mut timelines = Vec::with_capacity(state.tips.timelines as usize);
        state.tips.each(&self.index.runs, state.number, |head| timelines.push(head.timeline))?;
        timelines.dedup();
        Ok(timelines)
    }

    /// The tips of the draft's timelines that are settled already, as those that a commit moves.
    fn drafted(self, settled: &BTreeSet<TimelineId>) -> Result<Vec<Moved>, Unreadable> {
        let Some(draft) = self.draft else { return Ok(Vec::new()) };
        let mut moved: Vec<Moved> = Vec::with_capacity(draft.tips.timelines as usize);
        draft.tips.each(&self.index.runs, draft.number, |head| match moved.last_mut() {
            _ if settled.contains(&head.timeline) => {}
            Some((timeline, _, after)) if *timeline == head.timeline => after.push(head.sid),
            _ => moved.push((head.timeline, Vec::new(), vec![head.sid])),
        })?;
        Ok(moved)
    }
}

impl Plan {
    /// Works out a commit: which records become members, and which tips move. `take` gets the moves in the order in which they are
    /// written, a part at a time, so that those of a large commit need not be in memory together.
    pub(crate) fn of(
        asked: Asked<'_>,
        take: &mut dyn FnMut(Vec<(Move, TipMove)>) -> Result<(), StoreError>,
    ) -> Result<Plan, CommitError> {
        let Asked { index, txn, state, draft, request, frames, facts, settle } = asked;
        let union = Union { index, state, draft };
        for (timeline, expected) in request.expected.iter().filter(|_| request.strict) {
            let heads = index.tips_of(state, timeline)?;
            if !same_set(&heads.iter().map(|head| head.sid).collect(), expected) {
                return Err(CommitError::TipMoved(*timeline));
            }
        }
        let no_records = BTreeSet::new();
        let staged = index.txns.get(&txn).map_or(&no_records, |staged| &staged.records);
        let (mut new_staged, mut new_items) = (Vec::new(), Vec::new());
        let mut taken = request.staged.clone();
        let mut add_staged = |id: u32| {
            if !union.is_member_record(id)? {
                new_staged.push(id);
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
        let (mut append, mut known, mut seen, mut given) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
        for (at, record) in request.records.iter().enumerate() {
            let sid = record.sid();
            if !seen.insert(sid) || union.is_member(&sid)? {
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
            given.extend(frames[at].clone());
        }
        if let Some(taken) = &mut taken {
            let appended = append.iter().map(|at| request.records[*at].sid());
            let in_staged = seen.iter().filter(|sid| index.records.find(sid).is_some_and(|id| staged.contains(&id)));
            let more: BTreeSet<Sid> = appended.chain(known.iter().copied()).chain(in_staged.copied()).collect();
            taken.extend(more);
            taken.sort_unstable();
            taken.dedup();
        }
        let staged_count = (staged.len() + append.len() + known.len()) as u64;
        let drafted = draft.map_or(0, SpaceState::len);
        let new_records = (new_staged.len() + new_items.len()) as u64 + drafted;
        let items = added_by_halves(state.item_summary.clone(), &new_staged, |id| index.records.get(*id).sid.0);
        let mut items = added(items, &new_items, |id| *id);
        let mut tips = state.tip_summary.clone();
        if let Some(draft) = draft {
            items.add_all(&draft.item_summary);
            tips.add_all(&draft.tip_summary);
        }
        let mut fresh = Fresh::new(union, new_staged, given, facts, settle)?;
        let (mut moved, mut touched, mut later) = (Vec::new(), BTreeSet::new(), Vec::new());
        while let Some(part) = fresh.next(FRAMES_AT_ONCE)? {
            if draft.is_some() {
                touched.extend(part.common.iter().chain(part.frames.iter().map(|frame| &frame.facts.timeline)));
            }
            let settled = fresh.settle(part)?;
            tips.remove_all(&settled.gone);
            tips.add_all(&settled.came);
            moved.extend(settled.moved);
            later.extend(settled.later);
            take(settled.moves)?;
        }
        // Nearly all of a large one, so it is not copied.
        let mut all_moved = union.drafted(&touched)?;
        all_moved.extend(moved);
        let result = CommitResult { moved: all_moved, new_records };
        Ok(Plan { txn, append, known, taken, staged: staged_count, items, tips, later, result })
    }
}

/// From how many ids or frames on two threads share the work.
const ALONE_FROM: usize = 2048;
/// Frames whose tips are settled at one time, about: timelines stay whole.
const FRAMES_AT_ONCE: usize = 4 * 1024;

/// A summary with these ids more.
fn added<T>(mut summary: SetSummary, of: &[T], id: impl Fn(&T) -> [u8; 32]) -> SetSummary {
    of.iter().for_each(|one| summary.add(&id(one)));
    summary
}

/// As [`added`]; two threads share the work when there is much of it. Summaries add up, so the result is the same.
fn added_by_halves<T: Sync>(summary: SetSummary, of: &[T], id: impl Fn(&T) -> [u8; 32] + Sync) -> SetSummary {
    if of.len() < ALONE_FROM {
        return added(summary, of, id);
    }
    let (left, right) = of.split_at(of.len() / 2);
    std::thread::scope(|scope| {
        let right = scope.spawn(|| added(SetSummary::default(), right, &id));
        let mut sum = added(summary, left, &id);
        sum.add_all(&right.join().expect("adding does not panic"));
        sum
    })
}

/// Frames that a commit makes members, by timeline. A large commit brings millions: of those that are staged the list has a
/// number each, and what they say is kept or read when their turn comes.
struct Fresh<'a> {
    union: Union<'a>,
    index: &'a Index,
    /// Timelines of which both space and draft have tips, sorted.
    common: VecDeque<TimelineId>,
    /// Timelines of which all frames count, sorted.
    whole: VecDeque<TimelineId>,
    /// Timelines to be left as they are.
    not_these: Option<(&'a BTreeSet<TimelineId>, usize)>,
    /// In the order of their timelines.
    staged: VecDeque<u32>,
    /// Those of the request, sorted.
    given: VecDeque<FrameOf>,
    facts: HashMap<Sid, Box<FrameOf>>,
}

/// Frames of some timelines, whole.
#[derive(Default)]
struct Part {
    common: Vec<TimelineId>,
    frames: Vec<FrameOf>,
    unread: Vec<(Sid, Stored)>,
}

type Moved = (TimelineId, Vec<Sid>, Vec<Sid>);

/// What a part of the frames does to the tips.
#[derive(Default)]
struct Settled {
    moves: Vec<(Move, TipMove)>,
    moved: Vec<Moved>,
    came: SetSummary,
    gone: SetSummary,
    later: Vec<TimelineId>,
}

impl<'a> Fresh<'a> {
    fn new(
        union: Union<'a>,
        mut staged: Vec<u32>,
        mut given: Vec<FrameOf>,
        facts: HashMap<Sid, Box<FrameOf>>,
        settle: Settle<'a>,
    ) -> Result<Self, Unreadable> {
        let (index, common) = (union.index, union.common()?.into());
        staged.retain(|id| index.records.get(*id).frame.is_some());
        let (whole, not_these) = match settle {
            Settle::Moved => (VecDeque::new(), None),
            Settle::NotThese(these, tips_max) => (VecDeque::new(), Some((these, tips_max))),
            Settle::AlsoThese(these) => (these.iter().copied().collect(), None),
        };
        let (none, no_frames) = (VecDeque::new(), VecDeque::new());
        let mut fresh = Self { union, index, common, whole, not_these, staged: none, given: no_frames, facts };
        staged.sort_unstable_by_key(|id| fresh.timeline(*id));
        given.sort_unstable_by(|left, right| left.place().cmp(&right.place()));
        (fresh.staged, fresh.given) = (staged.into(), given.into());
        Ok(fresh)
    }

    fn timeline(&self, id: u32) -> Option<TimelineId> {
        self.index.records.get(id).frame.map(|(timeline, _)| self.index.timelines.get(timeline))
    }

    /// The frames of the next timelines, `least` of them unless there are fewer left; `None` behind the last.
    fn next(&mut self, least: usize) -> Result<Option<Part>, Unreadable> {
        let mut part = Part::default();
        while part.len() < least {
            let staged = self.staged.front().and_then(|id| self.timeline(*id));
            let given = self.given.front().map(|frame| frame.facts.timeline);
            let listed = [&self.common, &self.whole].into_iter().filter_map(|list| list.front().copied());
            let Some(next) = staged.into_iter().chain(given).chain(listed).min() else { break };
            part.common.extend(self.common.pop_front_if(|timeline| *timeline == next));
            if self.whole.pop_front_if(|timeline| *timeline == next).is_some() {
                for (_, sid) in frames_of(self.index, self.union.state, &next, (0, u64::MAX), usize::MAX)? {
                    part.unread.push((sid, self.index.stored(&sid)?.ok_or(Unreadable)?));
                }
            }
            while let Some(id) = self.staged.front().copied().filter(|id| self.timeline(*id) == Some(next)) {
                self.staged.pop_front();
                let rec = self.index.records.get(id);
                match self.facts.remove(&rec.sid) {
                    Some(frame) => part.frames.push(*frame),
                    None => part.unread.push((rec.sid, rec.stored())),
                }
            }
            while let Some(frame) = self.given.pop_front_if(|frame| frame.facts.timeline == next) {
                part.frames.push(frame);
            }
        }
        Ok((part.len() > 0).then_some(part))
    }

    /// The tip moves that these frames cause.
    fn settle(&self, part: Part) -> Result<Settled, CommitError> {
        let Part { common, mut frames, unread } = part;
        frames.extend(by_halves(&unread, &|unread| unread.iter().map(|one| self.read(one)).collect())?);
        frames.sort_unstable_by(|left, right| left.place().cmp(&right.place()));
        // Of two shapes of one address the smaller counts: the order of arrival must not decide.
        frames.dedup_by(|later, first| later.address == first.address && later.facts.timeline == first.facts.timeline);
        let with_frames = frames.chunk_by(|left, right| left.facts.timeline == right.facts.timeline);
        let mut timelines: Vec<(TimelineId, &[FrameOf])> =
            with_frames.filter_map(|frames| Some((frames.first()?.facts.timeline, frames))).collect();
        let without =
            common.into_iter().filter(|timeline| timelines.binary_search_by_key(timeline, |one| one.0).is_err());
        let without: Vec<TimelineId> = without.collect();
        timelines.extend(without.into_iter().map(|timeline| (timeline, &[][..])));
        let settled = by_halves(&timelines, &|timelines| {
            let mut settled = Settled::default();
            for (timeline, frames) in timelines {
                let heads = self.index.tips_of(self.union.state, timeline)?;
                if self.is_for_later(timeline, &heads) {
                    settled.later.push(*timeline);
                } else {
                    settled.add(self.union, timeline, frames, &heads)?;
                }
            }
            Ok(vec![settled])
        })?;
        let mut all = Settled::default();
        for Settled { moves, moved, came, gone, later } in settled {
            all.moves.extend(moves);
            all.moved.extend(moved);
            all.later.extend(later);
            all.came.add_all(&came);
            all.gone.add_all(&gone);
        }
        Ok(all)
    }

    fn is_for_later(&self, timeline: &TimelineId, heads: &[Head]) -> bool {
        self.not_these.is_some_and(|(these, tips_max)| these.contains(timeline) || heads.len() > tips_max)
    }

    /// Reads a staged frame.
    fn read(&self, (sid, stored): &(Sid, Stored)) -> Result<FrameOf, CommitError> {
        let record = load_record_as(self.index, stored, *sid).map_err(StoreError::Io)?;
        record.as_ref().and_then(FrameOf::of).ok_or(CommitError::NotStaged(*sid))
    }
}

type Work<'a, T, R> = dyn Fn(&[T]) -> Result<Vec<R>, CommitError> + Sync + 'a;

/// What `work` makes of all of a list, in order; two threads share it when there is much.
fn by_halves<T: Sync, R: Send>(all: &[T], work: &Work<'_, T, R>) -> Result<Vec<R>, CommitError> {
    if all.len() < ALONE_FROM {
        return work(all);
    }
    let (left, right) = all.split_at(all.len() / 2);
    std::thread::scope(|scope| {
        let right = scope.spawn(|| work(right));
        let mut done = work(left)?;
        done.extend(right.join().expect("working out a commit does not panic")?);
        Ok(done)
    })
}

impl Part {
    fn len(&self) -> usize {
        self.common.len() + self.frames.len() + self.unread.len()
    }
}

impl Settled {
    /// Adds the move of one timeline, whose tips in the space are `heads`.
    fn add(
        &mut self,
        union: Union<'_>,
        timeline: &TimelineId,
        frames: &[FrameOf],
        heads: &[Head],
    ) -> Result<(), StoreError> {
        let Some((change, moved)) = settle_timeline(union, timeline, frames, heads)? else { return Ok(()) };
        if !change.removed.is_empty() {
            let (known, removed) = (union.heads(timeline)?, change.removed.iter().collect::<BTreeSet<_>>());
            let gone = known.iter().filter(|tip| removed.contains(&tip.sid));
            gone.for_each(|tip| self.gone.add(&tip.id));
        }
        let mut plain = TipMove::of(&change);
        plain.begins = union.draft.is_none() && heads.is_empty();
        plain.added.iter().for_each(|(_, id)| self.came.add(id));
        self.moves.push((change, plain));
        if moved.1 != moved.2 {
            self.moved.push(moved);
        }
        Ok(())
    }
}

/// The move that new frames of one timeline cause, sorted by address; `None` when its tips stay what they are. Where the
/// draft has tips there is always one.
fn settle_timeline(
    union: Union<'_>,
    timeline: &TimelineId,
    frames: &[FrameOf],
    heads: &[Head],
) -> Result<Option<(Move, Moved)>, StoreError> {
    let mut before = tips_of(union.index, heads)?;
    let seen: Vec<Sid> = before.iter().map(|tip| tip.sid).collect();
    let drafted = union.draft.map_or(Ok(Vec::new()), |draft| union.index.tips_of(draft, timeline))?;
    let drafted = tips_of(union.index, &drafted)?;
    let is_drafted = !drafted.is_empty();
    let at = |tips: &[FrameOf], address: &Address| tips.binary_search_by(|tip| tip.address.cmp(address)).ok();
    // Of two shapes of one address that of the space stays.
    let (other_shapes, drafted): (Vec<FrameOf>, Vec<FrameOf>) =
        drafted.into_iter().partition(|tip| at(&before, &tip.address).is_some());
    before.extend(drafted);
    before.sort_by(|left, right| left.address.cmp(&right.address));
    if let ([], [frame]) = (&before[..], frames) {
        return Ok(Some(begin(frame)));
    }
    let Some(FrameOf { order, facts: FrameFacts { tjp, .. }, .. }) = frames.first().or(before.first()) else {
        return Ok(None);
    };
    let known: Vec<Address> = before.iter().map(|tip| tip.address.clone()).collect();
    let new = frames.iter().map(|frame| frame.address.clone()).filter(|address| at(&before, address).is_none());
    let mut load = |address: &Address| {
        let loaded = [frames, &before].into_iter().find_map(|some| Some(some[at(some, address)?].facts.clone()));
        loaded.or_else(|| union.frame(address))
    };
    let after: BTreeSet<Address> = settle_tips(&known, &new.collect::<Vec<_>>(), &mut load).into_iter().collect();
    let (kept, gone): (Vec<&FrameOf>, Vec<&FrameOf>) = before.iter().partition(|tip| after.contains(&tip.address));
    let is_new = |frame: &&FrameOf| after.contains(&frame.address) && at(&before, &frame.address).is_none();
    let added: Vec<&FrameOf> = frames.iter().filter(is_new).collect();
    if gone.is_empty() && added.is_empty() && !is_drafted {
        return Ok(None);
    }
    let line = |frame: &&FrameOf| TipLine { sid: frame.sid, n: frame.facts.n, address: frame.address.to_string() };
    let change = Move {
        timeline: *timeline,
        order: *order,
        tjp: tjp.to_string(),
        removed: gone.iter().copied().chain(&other_shapes).map(|tip| tip.sid).collect(),
        added: added.iter().map(line).collect(),
    };
    let mut tips: Vec<_> = kept.iter().chain(&added).map(|frame| (&frame.address, frame.sid)).collect();
    tips.sort_unstable();
    let after = tips.into_iter().map(|(_, sid)| sid).collect();
    Ok(Some((change, (*timeline, seen, after))))
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

/// Tips as their records say, sorted by address.
fn tips_of(index: &Index, heads: &[Head]) -> Result<Vec<FrameOf>, StoreError> {
    let mut tips = Vec::new();
    for head in heads {
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

/// The front of a frame row that names space and timeline.
const TIMELINE_BYTES: usize = 36;

/// Member frames of a timeline with `from ≤ n ≤ to`, in order of (n, sid), at most `limit`; `from ≤ to`.
pub(crate) fn frames_of(
    index: &Index,
    state: &SpaceState,
    timeline: &TimelineId,
    (from, to): (u64, u64),
    limit: usize,
) -> Result<Vec<(u64, Sid)>, Unreadable> {
    let known = index.timelines.find(timeline);
    let fresh = known.map(|id| state.frames(&index.records, id, (from, to), limit)).unwrap_or_default();
    let mut scan = index.runs.scan(Table::Frames, &frame_key(state.number, timeline, from))?;
    let front = frame_key(state.number, timeline, 0);
    let older = || match scan.next_of(&front[..TIMELINE_BYTES])? {
        Some(row) => Ok(Some((read_frame_row(row).1, last_sid(row))).filter(|(n, _)| *n <= to)),
        None => Ok(None),
    };
    join(fresh, older, limit)
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
