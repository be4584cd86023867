//! Random operations on a store, and a naive model of what they must do.

#![allow(unreachable_pub, reason = "every file of these tests may use it")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use sealtide_crypto::{Entropy, SeededEntropy};
use sealtide_ibgib::{Address, ChunkHash, Manifest, Sid, TimelineId, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::SpaceHandle;
use sealtide_store::mem::MemDisk;
use sealtide_store::{CommitError, Config, OpenError, Store, StoreError, conformance};
use sealtide_sync::negentropy::Ranges;
use sealtide_sync::{CommitRequest, IdSum, RangeBound, SagaId, SagaState, SetSummary, SpaceView, TipItem, TipSet};

/// The size of long tests.
pub fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1)
}

/// Records to play with: branching timelines, stones, colliding shapes, binaries of chunks.
pub struct Pool {
    pub records: Vec<Verified>,
    pub chunks: BTreeMap<ChunkHash, Bytes>,
}

pub static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let mut records = Vec::new();
    for timeline in 0..3 {
        let mut frames = vec![conformance::first_frame(timeline)];
        for number in 0..9usize {
            // Mostly on top, now and then a branch.
            let parent = if number % 3 == 2 { frames.len() / 2 } else { frames.len() - 1 };
            frames.push(conformance::next_frame(&frames[parent], &format!("{number}")));
        }
        records.extend(frames);
    }
    records.extend((0..6).map(|number| conformance::stone_of(&format!("stone {number}"))));
    records.extend(conformance::two_shapes());
    let mut chunks = BTreeMap::new();
    for seed in 0..2 {
        let (content, record) = conformance::binary(seed);
        chunks.extend(content);
        records.push(record);
    }
    Pool { records, chunks }
});

/// Chance for tests.
pub struct Dice(SeededEntropy);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SeededEntropy::new(seed))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % bound as u64) as usize
    }

    fn records(&mut self, most: usize) -> Vec<Verified> {
        let count = self.below(most) + 1;
        (0..count).map(|_| POOL.records[self.below(POOL.records.len())].clone()).collect()
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub enum Op {
    Create(u8),
    Adopt(SpaceId),
    Remove(SpaceId),
    Stage(SpaceId, SagaId, Vec<Verified>),
    Local(SpaceId, Vec<Verified>),
    CommitSaga(SpaceId, SagaId, Vec<Verified>, Option<usize>),
    Abort(SagaId),
    Sync,
    Reopen,
    /// A day and an hour later.
    Collect,
}

const SAGAS: usize = 4;

pub fn spaces() -> Vec<SpaceId> {
    vec![SpaceId::from_bytes([1; 32]), SpaceId::from_bytes([2; 32])]
}

pub fn random_op(dice: &mut Dice) -> Op {
    let all = spaces();
    let space = all[dice.below(all.len())];
    let saga = SagaId([dice.below(SAGAS) as u8 + 1; 32]);
    match dice.below(21) {
        0 => Op::Create(dice.below(2) as u8),
        1 => Op::Adopt(space),
        2 if dice.below(3) == 0 => Op::Remove(space),
        2..=8 => Op::Stage(space, saga, dice.records(6)),
        9..=12 => Op::Local(space, dice.records(4)),
        13..=16 => {
            let records = if dice.below(3) == 0 { dice.records(2) } else { Vec::new() };
            let some = (dice.below(4) == 0).then(|| dice.below(4));
            Op::CommitSaga(space, saga, records, some)
        }
        17 => Op::Abort(saga),
        18 => Op::Sync,
        19 => Op::Collect,
        _ => Op::Reopen,
    }
}

/// What a store must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub members: BTreeMap<SpaceId, BTreeSet<Sid>>,
    pub sagas: BTreeMap<SagaId, (SpaceId, SagaState, BTreeSet<Sid>)>,
    known: BTreeMap<Sid, usize>,
}

impl Model {
    fn take(&mut self, records: &[Verified]) -> BTreeSet<Sid> {
        records.iter().map(Verified::sid).collect()
    }

    /// What the operation must do; `false` when it must be refused.
    pub fn apply(&mut self, op: &Op) -> bool {
        match op {
            Op::Create(number) => {
                let first = conformance::space_frame(*number);
                let space = space_id(&first);
                let new = !self.members.contains_key(&space);
                if new {
                    self.members.insert(space, BTreeSet::from([first.sid()]));
                }
                new
            }
            Op::Adopt(space) => {
                self.members.entry(*space).or_default();
                true
            }
            Op::Remove(space) => {
                self.members.remove(space);
                for (of, state, staged) in self.sagas.values_mut() {
                    if of == space && *state == SagaState::Staged {
                        *state = SagaState::Aborted;
                        staged.clear();
                    }
                }
                true
            }
            Op::Stage(space, saga, records) => {
                let sids = self.take(records);
                if !self.members.contains_key(space) {
                    return false;
                }
                let (of, state, staged) =
                    self.sagas.entry(*saga).or_insert((*space, SagaState::Staged, BTreeSet::new()));
                let good = of == space && *state == SagaState::Staged;
                if good {
                    staged.extend(sids);
                }
                good
            }
            Op::Local(space, records) => {
                let sids = self.take(records);
                self.members.get_mut(space).map(|members| members.extend(sids)).is_some()
            }
            Op::CommitSaga(space, saga, records, some) => {
                let sids = self.take(records);
                let Some(members) = self.members.get_mut(space) else { return false };
                let (of, state, staged) =
                    self.sagas.entry(*saga).or_insert((*space, SagaState::Staged, BTreeSet::new()));
                if of != space || *state != SagaState::Staged {
                    return false;
                }
                members.extend(staged.iter().take(some.unwrap_or(usize::MAX)));
                members.extend(sids);
                *state = SagaState::Committed;
                staged.clear();
                true
            }
            Op::Abort(saga) => {
                if let Some((_, state, staged)) = self.sagas.get_mut(saga)
                    && *state == SagaState::Staged
                {
                    *state = SagaState::Aborted;
                    staged.clear();
                }
                true
            }
            Op::Sync | Op::Reopen | Op::Collect => true,
        }
    }

    /// Compares everything that a reader can ask.
    pub fn check(&self, store: &Store) {
        self.check_members(store);
        for (saga, (space, state, staged)) in &self.sagas {
            assert_eq!(store.saga_state(saga), *state);
            if let Some(view) = store.view(space) {
                assert_eq!(view.staged(saga), staged.iter().copied().collect::<Vec<_>>());
            }
        }
    }

    /// Compares what is committed.
    pub fn check_members(&self, store: &Store) {
        let there: Vec<SpaceId> = store.spaces().iter().map(|info| info.space).collect();
        assert_eq!(there, self.members.keys().copied().collect::<Vec<_>>());
        for (space, members) in &self.members {
            self.check_space(store, space, members);
        }
    }

    fn check_space(&self, store: &Store, space: &SpaceId, members: &BTreeSet<Sid>) {
        let view = store.view(space).unwrap();
        let mut records: Vec<Verified> = POOL.records.clone();
        records.extend((0..2).map(conformance::space_frame));
        let (inside, outside): (Vec<_>, Vec<_>) = records.iter().partition(|record| members.contains(&record.sid()));
        for record in outside {
            assert!(!view.contains(&record.sid()) && view.record(&record.sid()).is_none());
            assert!(!view.by_address(record.address()).contains(&record.sid()));
        }
        for record in &inside {
            assert_eq!(view.record(&record.sid()).unwrap().encoded(), record.encoded());
            for chunk in Manifest::chunks_listed(record) {
                assert_eq!(view.chunk(&chunk.hash, 0, usize::MAX).as_ref(), Some(&POOL.chunks[&chunk.hash]));
                assert_eq!(store.read_chunk(&chunk.hash).as_ref(), Some(&POOL.chunks[&chunk.hash]));
            }
        }
        let mut by_address: BTreeMap<&Address, BTreeSet<Sid>> = BTreeMap::new();
        for record in &inside {
            by_address.entry(record.address()).or_default().insert(record.sid());
        }
        for (address, sids) in by_address {
            assert_eq!(view.by_address(address), sids.into_iter().collect::<Vec<_>>());
        }
        let mut bulk: Vec<(u64, Sid)> = inside.iter().map(|record| (record.order_key(), record.sid())).collect();
        bulk.sort_unstable();
        assert_eq!(view.bulk(None, usize::MAX), bulk);
        let snapshot = view.snapshot();
        let mut items = SetSummary::default();
        members.iter().for_each(|sid| items.add(&sid.0));
        assert_eq!(snapshot.item_summary, items);
        let mut tips = SetSummary::default();
        let all = view.tip_items();
        all.iter().for_each(|tip| tips.add(&tip.id));
        assert_eq!(snapshot.tip_summary, tips);
        assert_eq!(all.iter().map(|tip| tip.sid).collect::<BTreeSet<_>>(), naive_tips(&inside));
        assert!(all.is_sorted_by_key(|tip| (tip.order, tip.id)));
        check_ranges(&Members(&view), &bulk.iter().map(|(order, sid)| (*order, sid.0)).collect::<Vec<_>>());
        check_ranges(&*snapshot.tips, &all.iter().map(|tip| (tip.order, tip.id)).collect::<Vec<_>>());
        check_tips(&*snapshot.tips, &all);
        self.check_frames(&view, &inside);
    }

    fn check_frames(&self, view: &impl SpaceView, inside: &[&Verified]) {
        let mut frames: BTreeMap<TimelineId, Vec<(u64, Sid)>> = BTreeMap::new();
        for record in inside {
            assert_eq!(view.frame_facts(record.address()), record.frame());
            if let Some(facts) = record.frame() {
                frames.entry(facts.timeline).or_default().push((facts.n, record.sid()));
            }
        }
        for (timeline, mut frames) in frames {
            frames.sort_unstable();
            let sids: Vec<Sid> = frames.iter().map(|(_, sid)| *sid).collect();
            assert_eq!(view.frames(&timeline, 0, u64::MAX, usize::MAX), sids);
            assert_eq!(view.frames(&timeline, 0, u64::MAX, 2), sids[..sids.len().min(2)]);
        }
    }
}

struct Members<'a>(&'a SpaceHandle);

impl Ranges for Members<'_> {
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        self.0.range_sum(lo, hi)
    }

    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        self.0.range_list(lo, hi, limit)
    }
}

/// Every way to find a tip gives the same.
pub fn check_tips(set: &dyn TipSet, all: &[TipItem]) {
    let mut by_timeline: BTreeMap<TimelineId, Vec<TipItem>> = BTreeMap::new();
    for tip in all {
        assert_eq!(set.with_id(&tip.id).as_ref(), Some(tip));
        by_timeline.entry(tip.timeline).or_default().push(tip.clone());
    }
    let diverged = by_timeline.iter().filter(|(_, tips)| tips.len() > 1).map(|(timeline, _)| *timeline);
    assert_eq!(set.diverged(), diverged.collect());
    for (timeline, mut tips) in by_timeline {
        tips.sort_by_key(|tip| tip.id);
        assert_eq!(set.of(&timeline), tips);
    }
    assert_eq!(set.with_id(&[0; 32]), None);
}

/// Compares sums and lists of ranges that begin and end at, before and behind some of the items.
pub fn check_ranges(set: &(impl Ranges + ?Sized), items: &[(u64, [u8; 32])]) {
    let mut bounds = vec![RangeBound::START, RangeBound::END];
    for (order, id) in items.iter().step_by(items.len() / 6 + 1) {
        bounds.extend([*id, [0; 32], [0xff; 32]].map(|id| RangeBound { order: *order, id }));
    }
    for (lo, hi) in bounds.iter().flat_map(|lo| bounds.iter().map(move |hi| (lo, hi))) {
        let inside = |item: &&(u64, [u8; 32])| (lo.order, lo.id) <= **item && **item < (hi.order, hi.id);
        let expect: Vec<_> = items.iter().filter(inside).copied().collect();
        let mut sum = IdSum::default();
        expect.iter().for_each(|(_, id)| sum.add(id));
        assert_eq!(set.sum(lo, hi), (expect.len() as u64, sum));
        assert_eq!(set.list(lo, hi, usize::MAX), expect);
        assert_eq!(set.list(lo, hi, 2), expect[..expect.len().min(2)]);
    }
}

/// The frames that no other frame has as ancestor, by looking at every pair.
fn naive_tips(members: &[&Verified]) -> BTreeSet<Sid> {
    let frames: BTreeMap<&Address, _> =
        members.iter().filter_map(|record| Some((record.address(), (record.sid(), record.frame()?)))).collect();
    let mut tips: BTreeSet<Sid> = frames.values().map(|(sid, _)| *sid).collect();
    for (_, facts) in frames.values() {
        let mut behind: Vec<&Address> = facts.past.iter().collect();
        while let Some(address) = behind.pop() {
            if let Some((sid, facts)) = frames.get(address) {
                tips.remove(sid);
                behind.extend(&facts.past);
            }
        }
    }
    tips
}

fn space_id(first: &Verified) -> SpaceId {
    let gib = first.address().gib().as_bytes();
    let mut id = [0; 32];
    for (byte, pair) in id.iter_mut().zip(gib.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    }
    SpaceId::from_bytes(id)
}

/// A store on a disk, operated step by step.
pub struct Player {
    pub disk: MemDisk,
    pub store: Option<Store>,
    pub config: Config,
    clock: Arc<AtomicU64>,
}

/// Why an operation did not happen.
#[derive(Debug)]
pub enum Outcome {
    Done,
    /// As the model must say too.
    Refused,
    /// The disk failed.
    Disk,
}

impl Player {
    pub fn new(seed: u64, pack_bytes: u64) -> Self {
        let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
        let shown = Arc::clone(&clock);
        let wall_ms = Arc::new(move || shown.load(Ordering::Relaxed));
        // Mostly all that is staged when a pack is sealed goes into a draft, now and then nothing.
        let draft_records = if seed % 4 == 3 { 4096 } else { 1 + (seed % 4) as usize };
        let config = Config { pack_bytes, garbage_bytes: 1, draft_records, wall_ms, ..Config::default() };
        Self { disk: MemDisk::new(seed), store: None, config, clock }
    }

    pub fn open(&mut self) -> Result<Store, OpenError> {
        if self.store.is_none() {
            self.store = Some(Store::open(Arc::new(self.disk.clone()), self.config.clone())?);
        }
        Ok(self.store.clone().unwrap())
    }

    pub fn play(&mut self, op: &Op) -> Outcome {
        let Ok(store) = self.open() else { return Outcome::Disk };
        match op {
            Op::Create(number) => match store.create_space(conformance::space_frame(*number)) {
                Ok(_) => Outcome::Done,
                Err(sealtide_store::CreateError::Commit(error)) => refused(error),
                Err(_) => Outcome::Refused,
            },
            Op::Adopt(space) => done(store.adopt_space(*space)),
            Op::Remove(space) => done(store.remove_space(space)),
            Op::Stage(space, saga, records) => {
                let lists = records.iter().flat_map(Manifest::chunks_listed);
                let chunks: Vec<_> = lists.map(|chunk| (chunk.hash, POOL.chunks[&chunk.hash].clone())).collect();
                done(store.stage(space, saga, records, &chunks))
            }
            Op::Local(space, records) => {
                for chunk in records.iter().flat_map(Manifest::chunks_listed) {
                    if let Err(error) = store.put_chunk(chunk.hash, &POOL.chunks[&chunk.hash]) {
                        return refused(error.into());
                    }
                }
                done(store.commit(space, &conformance::local(records.clone())))
            }
            Op::CommitSaga(space, saga, records, some) => {
                for chunk in records.iter().flat_map(Manifest::chunks_listed) {
                    if let Err(error) = store.put_chunk(chunk.hash, &POOL.chunks[&chunk.hash]) {
                        return refused(error.into());
                    }
                }
                let staged = store.view(space).map(|view| view.staged(saga)).unwrap_or_default();
                let staged = some.map(|some| staged.into_iter().take(some).collect());
                let request = CommitRequest { staged, records: records.clone(), ..conformance::of_saga(*saga) };
                done(store.commit(space, &request))
            }
            Op::Abort(saga) => done(store.abort(saga)),
            Op::Sync => done(store.sync()),
            Op::Collect => {
                self.clock.fetch_add(25 * 3600 * 1000, Ordering::Relaxed);
                done(store.collect())
            }
            Op::Reopen => {
                drop(store);
                self.store = None;
                self.open().map_or(Outcome::Disk, |_| Outcome::Done)
            }
        }
    }
}

fn done<T, E: Into<CommitError>>(result: Result<T, E>) -> Outcome {
    result.map_or_else(|error| refused(error.into()), |_| Outcome::Done)
}

fn refused(error: CommitError) -> Outcome {
    match error {
        CommitError::Store(StoreError::Io(_) | StoreError::Failed | StoreError::DiskFull) => Outcome::Disk,
        CommitError::Store(StoreError::NoSpace(_) | StoreError::SagaEnded(_)) => Outcome::Refused,
        error => panic!("unexpected refusal: {error}"),
    }
}
