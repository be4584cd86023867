//! A naive space in memory, and two machines joined by queues.
#![allow(unreachable_pub, reason = "every file of these tests may use it")]
#![allow(clippy::disallowed_methods, reason = "test support, not a test by the lint's measure")]

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use sealtide_crypto::{Entropy, Now, SeededEntropy};
use sealtide_ibgib::{
    Address, ChunkHash, FrameFacts, Manifest, Object, Relations, Sid, Stamp, TimelineId, Verified, evolve, genesis,
    settle_tips, uuid,
};
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_sync::negentropy::Splitter;
use sealtide_sync::{
    AbortCode, Chain, CommitRequest, CommitResult, Contexts, Direction, IdSum, Ledger, Limits, Message, Mode,
    RangeBound, Refused, Saga, SagaConfig, SagaId, SagaInput, SagaOutcome, SagaOutput, Scope, Snapshot, SpaceView,
    Strategy, TipItem,
};

pub fn scale() -> usize {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// One space, kept the plainest way.
#[derive(Clone, Default)]
pub struct MemSpace {
    pub records: BTreeMap<Sid, Verified>,
    pub addresses: BTreeMap<Address, Vec<Sid>>,
    pub tips: BTreeMap<TimelineId, Vec<Address>>,
    pub staged: BTreeMap<SagaId, BTreeMap<Sid, Verified>>,
    pub chunks: BTreeMap<ChunkHash, Bytes>,
    pub member_chunks: BTreeSet<ChunkHash>,
    pub bulk: BTreeSet<(u64, Sid)>,
    /// Whether chunks that the peer lacks are gone without at first, and in the end.
    pub may_lack: Option<bool>,
    /// How often a member was read.
    pub reads: Cell<usize>,
    cache: RefCell<Option<Arc<Snapshot>>>,
}

impl MemSpace {
    pub fn with(records: &[Verified]) -> Self {
        let mut space = Self::default();
        space.put(records);
        space
    }

    /// A local change.
    pub fn put(&mut self, records: &[Verified]) {
        let request = CommitRequest::local(records.to_vec());
        self.commit(request).expect("a change that is not strict is never refused");
    }

    pub fn add_chunks(&mut self, chunks: &[(ChunkHash, Bytes)]) {
        self.chunks.extend(chunks.iter().cloned());
    }

    fn facts(&self, address: &Address) -> Option<FrameFacts> {
        self.addresses.get(address)?.iter().find_map(|sid| self.records[sid].frame())
    }

    pub fn tip_sids(&self, timeline: &TimelineId) -> Vec<Sid> {
        let tips = self.tips.get(timeline).into_iter().flatten();
        let mut sids: Vec<_> = tips
            .flat_map(|tip| self.addresses[tip].iter().filter(|sid| self.records[sid].frame().is_some()))
            .copied()
            .collect();
        sids.sort_unstable();
        sids
    }

    /// `None`: a tip moved.
    pub fn commit(&mut self, request: CommitRequest) -> Option<CommitResult> {
        if request.strict {
            for (timeline, expected) in &request.expected {
                let mut expected = expected.clone();
                expected.sort_unstable();
                if self.tip_sids(timeline) != expected {
                    return None;
                }
            }
        }
        let mut records = request.records;
        if let Some(saga) = request.saga {
            let mut staged = self.staged.remove(&saga).unwrap_or_default();
            if let Some(only) = request.staged {
                staged.retain(|sid, _| only.binary_search(sid).is_ok());
            }
            records.extend(staged.into_values());
        }
        let mut new: BTreeMap<TimelineId, Vec<Address>> = BTreeMap::new();
        let mut new_records = 0;
        for record in records {
            let sid = record.sid();
            if self.records.contains_key(&sid) {
                continue;
            }
            new_records += 1;
            if let Some(frame) = record.frame() {
                new.entry(frame.timeline).or_default().push(record.address().clone());
            }
            self.member_chunks.extend(Manifest::chunks_listed(&record).iter().map(|chunk| chunk.hash));
            self.addresses.entry(record.address().clone()).or_default().push(sid);
            self.bulk.insert((record.order_key(), sid));
            self.records.insert(sid, record);
        }
        let mut moved = Vec::new();
        for (timeline, frames) in new {
            let before = self.tip_sids(&timeline);
            let known = self.tips.get(&timeline).cloned().unwrap_or_default();
            let tips = settle_tips(&known, &frames, &mut |address| self.facts(address));
            self.tips.insert(timeline, tips);
            let after = self.tip_sids(&timeline);
            if before != after {
                moved.push((timeline, before, after));
            }
        }
        *self.cache.borrow_mut() = None;
        Some(CommitResult { moved, new_records })
    }

    pub fn sids(&self) -> Vec<Sid> {
        self.records.keys().copied().collect()
    }
}

impl SpaceView for MemSpace {
    fn may_lack(&self, _: &SagaId, _: &BTreeSet<ChunkHash>) -> bool {
        self.may_lack == Some(true)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut cache = self.cache.borrow_mut();
        cache
            .get_or_insert_with(|| {
                let sids = self.tips.values().flatten().flat_map(|tip| &self.addresses[tip]);
                let mut snapshot = Snapshot::of_tips(sids.filter_map(|sid| TipItem::of(&self.records[sid])).collect());
                self.records.keys().for_each(|sid| snapshot.item_summary.add(sid.as_bytes()));
                Arc::new(snapshot)
            })
            .clone()
    }

    fn contains(&self, sid: &Sid) -> bool {
        self.records.contains_key(sid)
    }

    fn record(&self, sid: &Sid) -> Option<Verified> {
        self.reads.set(self.reads.get() + 1);
        self.records.get(sid).cloned()
    }

    fn by_address(&self, address: &Address) -> Vec<Sid> {
        self.addresses.get(address).cloned().unwrap_or_default()
    }

    fn frames(&self, timeline: &TimelineId, from: u64, to: u64, limit: usize) -> Vec<Sid> {
        // One timeline is a neighbourhood, so only its part of the bulk order is looked at.
        let Some(tip) = self.tips.get(timeline).and_then(|tips| tips.first()) else { return Vec::new() };
        let order = self.records[&self.addresses[tip][0]].order_key();
        let here = self.bulk.range((order, Sid([0; 32]))..=(order, Sid([0xff; 32])));
        let mut found: Vec<_> = here
            .filter_map(|(_, sid)| Some((self.records[sid].frame_ref()?, *sid)))
            .filter(|(frame, _)| frame.timeline == *timeline && (from..=to).contains(&frame.n))
            .map(|(frame, sid)| (frame.n, sid))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, sid)| sid).take(limit).collect()
    }

    fn frame_facts(&self, address: &Address) -> Option<FrameFacts> {
        self.reads.set(self.reads.get() + 1);
        self.facts(address)
    }

    fn stones_naming(&self, address: &Address) -> Vec<Sid> {
        let stones = self.records.values().filter(|record| record.address().ib() == "commit");
        let naming = stones.filter(|stone| stone.relations().get("tip").is_some_and(|tips| tips.contains(address)));
        naming.map(Verified::sid).collect()
    }

    fn bulk(&self, after: Option<(u64, Sid)>, limit: usize) -> Vec<(u64, Sid)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.bulk.range((from, Unbounded)).take(limit).copied().collect()
    }

    fn range_sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        let mut sum = IdSum::default();
        let items = self.range_list(lo, hi, usize::MAX);
        items.iter().for_each(|(_, id)| sum.add(id));
        (items.len() as u64, sum)
    }

    fn range_list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        if hi <= lo {
            return Vec::new();
        }
        let here = self.bulk.range((lo.order, Sid(lo.id))..(hi.order, Sid(hi.id)));
        here.map(|(order, sid)| (*order, sid.0)).take(limit).collect()
    }

    fn has_chunk(&self, hash: &ChunkHash) -> bool {
        self.chunks.contains_key(hash)
    }

    fn chunk(&self, hash: &ChunkHash, offset: u32, limit: usize) -> Option<Bytes> {
        let chunk = self.chunks.get(hash).filter(|_| self.member_chunks.contains(hash))?;
        let from = (offset as usize).min(chunk.len());
        Some(chunk.slice(from..chunk.len().min(from + limit)))
    }

    fn staged(&self, saga: &SagaId) -> Vec<Sid> {
        self.staged.get(saga).into_iter().flat_map(BTreeMap::keys).copied().collect()
    }

    fn staged_record(&self, saga: &SagaId, sid: &Sid) -> Option<Verified> {
        self.staged.get(saga)?.get(sid).cloned()
    }
}

/// What stands for a frame of a session keystone: a stone that says what it signs.
pub fn signature(target: &str) -> Verified {
    let mut data = Object::new();
    data.insert("target".into(), target.into());
    sealtide_ibgib::stone("signature", sealtide_ibgib::Data::Json(data.into()), Relations::new())
}

/// One end of the pair.
pub struct End {
    pub space: MemSpace,
    pub role: Option<Role>,
    pub limits: Limits,
    pub saga: Option<Saga>,
    pub inbox: VecDeque<Bytes>,
    pub outcome: Option<SagaOutcome>,
    /// Chunks that the commit goes without.
    pub lacking: BTreeSet<ChunkHash>,
    pub sent: Vec<Bytes>,
    pub wake_ms: Option<u64>,
    pub released: u64,
    pub delivered: u64,
    pub progress: usize,
    pub unsynced: Option<u64>,
    /// Hold back durability.
    pub slow_disk: bool,
    /// Hold back what the store says of a commit.
    pub commits: usize,
    pub fail_stage_at: Option<u64>,
    /// With keystones: what is known of the sagas on this connection.
    pub ledger: Option<Ledger>,
    /// Whether BYE follows.
    pub last: bool,
    /// Targets that were signed.
    pub signed: Vec<String>,
    /// Hold signatures back; the one that waits.
    pub slow_signer: bool,
    pub to_sign: Option<String>,
    pub cannot_sign: bool,
    pub chain: Option<Chain>,
}

impl End {
    pub fn new(space: MemSpace) -> Self {
        Self {
            space,
            role: Some(Role::Admin),
            limits: Limits::default(),
            saga: None,
            inbox: VecDeque::new(),
            outcome: None,
            lacking: BTreeSet::new(),
            sent: Vec::new(),
            wake_ms: None,
            released: 0,
            delivered: 0,
            progress: 0,
            unsynced: None,
            slow_disk: false,
            commits: 0,
            fail_stage_at: None,
            ledger: None,
            last: false,
            signed: Vec::new(),
            slow_signer: false,
            to_sign: None,
            cannot_sign: false,
            chain: None,
        }
    }

    pub fn handle(&mut self, now: Now, input: SagaInput) {
        if let Some(saga) = &mut self.saga {
            saga.handle(now, input, &self.space);
        }
    }

    /// Signs what the saga asked for.
    pub fn sign(&mut self, now: Now, target: String) {
        let result = if self.cannot_sign { Err(Refused::auth("no key")) } else { Ok(signature(&target)) };
        self.signed.push(target);
        self.handle(now, SagaInput::Signed(result));
    }

    pub fn messages(&self) -> Vec<Message> {
        self.sent.iter().map(|bytes| Message::decode(bytes).expect("own messages decode")).collect()
    }

    pub fn sent_of(&self, kind: u8) -> usize {
        self.sent.iter().filter(|bytes| bytes[0] == kind).count()
    }

    pub fn records_sent(&self) -> usize {
        self.payload().len()
    }

    /// Encoded records that were sent, in order.
    pub fn payload(&self) -> Vec<Bytes> {
        self.messages().into_iter().flat_map(|message| batch_records(&message)).collect()
    }
}

pub fn batch_records(message: &Message) -> Vec<Bytes> {
    let Message::Batch { payload, zstd, size, .. } = message else { return Vec::new() };
    let raw = if *zstd { zstd::bulk::decompress(payload, *size as usize).unwrap() } else { payload.to_vec() };
    let mut decoder = minicbor::Decoder::new(&raw);
    let count = decoder.array().unwrap().unwrap();
    (0..count).map(|_| Bytes::copy_from_slice(decoder.bytes().unwrap())).collect()
}

type Tamper = Box<dyn FnMut(bool, Bytes) -> Option<Bytes>>;
type Before = Box<dyn FnMut(usize, &mut End, &mut End)>;

/// Two ends and a clock.
pub struct Pair {
    pub a: End,
    pub b: End,
    pub now: Now,
    pub zstd: bool,
    pub recon: bool,
    pub splitter: Splitter,
    pub saga: SagaId,
    pub chance: SeededEntropy,
    /// Messages delivered before the channel is cut.
    pub cut_after: Option<usize>,
    pub delivered: usize,
    pub cut: bool,
    /// Messages that the channel takes before it is full.
    pub window: usize,
    /// What was seen on the wire may be changed: (from the opener, message) → message.
    pub tamper: Option<Tamper>,
    /// Called before each delivery with the number delivered so far.
    pub before: Option<Before>,
}

pub fn space_id() -> SpaceId {
    SpaceId::from_bytes([7; 32])
}

impl Pair {
    pub fn new(a: MemSpace, b: MemSpace) -> Self {
        Self {
            a: End::new(a),
            b: End::new(b),
            now: Now { mono_ms: 1000, wall_ms: 1_700_000_000_000 },
            zstd: true,
            recon: true,
            splitter: Splitter::default(),
            saga: SagaId([1; 32]),
            chance: SeededEntropy::new(1),
            cut_after: None,
            delivered: 0,
            cut: false,
            window: usize::MAX,
            tamper: None,
            before: None,
        }
    }

    pub fn config(&self, opener: bool) -> SagaConfig {
        let end = if opener { &self.a } else { &self.b };
        SagaConfig {
            saga: self.saga,
            space: space_id(),
            peer: NodeId::from_bytes([if opener { 2 } else { 1 }; 32]),
            peer_role: end.role,
            zstd: self.zstd,
            recon: self.recon,
            splitter: self.splitter,
            limits: end.limits.clone(),
            contexts: end.ledger.map(|ledger| Contexts { ledger, members: None, last: end.last }),
            fresh: false,
            may_lack: end.space.may_lack.is_some(),
        }
    }

    pub fn open(&mut self, scope: Scope, direction: Direction, strategy: Strategy) {
        for end in [&mut self.a, &mut self.b] {
            end.inbox.clear();
            end.sent.clear();
            end.outcome = None;
            end.unsynced = None;
            end.wake_ms = None;
        }
        self.delivered = 0;
        self.cut = false;
        self.a.saga = Some(Saga::open(self.now, self.config(true), scope, direction, strategy, &self.a.space));
        self.b.saga = Some(Saga::answer(self.now, self.config(false), &self.b.space));
    }

    /// Opens and runs until nothing moves; the outcomes of both.
    pub fn run(&mut self, scope: Scope, direction: Direction, strategy: Strategy) -> [Option<SagaOutcome>; 2] {
        self.open(scope, direction, strategy);
        self.settle();
        [self.a.outcome.clone(), self.b.outcome.clone()]
    }

    pub fn sync(&mut self) -> [Option<SagaOutcome>; 2] {
        self.run(Scope::All, Direction::Both, Strategy::Optimistic)
    }

    /// Runs and expects both to have committed.
    pub fn sync_ok(&mut self) {
        self.run_ok(Scope::All, Direction::Both, Strategy::Optimistic);
    }

    pub fn run_ok(&mut self, scope: Scope, direction: Direction, strategy: Strategy) {
        let outcomes = self.run(scope, direction, strategy);
        for outcome in &outcomes {
            assert!(matches!(outcome, Some(SagaOutcome::Committed { .. })), "{outcomes:?}");
        }
    }

    /// Steps until nothing moves any more.
    pub fn settle(&mut self) {
        while self.step() {}
    }

    /// Performs the wishes of both ends and delivers one message, chosen by chance; `false` when nothing moved.
    pub fn step(&mut self) -> bool {
        let mut moved = self.perform(true) | self.perform(false);
        if self.cut {
            return moved;
        }
        if self.cut_after.is_some_and(|count| self.delivered >= count) {
            self.cut = true;
            for end in [&mut self.a, &mut self.b] {
                end.inbox.clear();
                end.handle(self.now, SagaInput::ChannelLost);
            }
            return true;
        }
        let mut byte = [0];
        self.chance.fill(&mut byte);
        for opener in [byte[0] & 1 == 0, byte[0] & 1 != 0] {
            let from = if opener { &mut self.a } else { &mut self.b };
            if let Some(message) = from.inbox.pop_front() {
                // The inbox of an end holds what the other one sent.
                if let Some(before) = &mut self.before {
                    before(self.delivered, &mut self.a, &mut self.b);
                }
                let message = match &mut self.tamper {
                    Some(tamper) => tamper(!opener, message),
                    None => Some(message),
                };
                self.delivered += 1;
                let to = if opener { &mut self.a } else { &mut self.b };
                if let Some(message) = message {
                    to.delivered += message.len() as u64;
                    to.handle(self.now, SagaInput::Message(message));
                }
                moved = true;
                break;
            }
        }
        moved
    }

    /// As [`Pair::step`], with a change to what is delivered in this step: (from the opener, message).
    pub fn step_with(&mut self, tamper: &mut dyn FnMut(bool, Bytes) -> Option<Bytes>) -> bool {
        let mut moved = self.perform(true) | self.perform(false);
        let mut byte = [0];
        self.chance.fill(&mut byte);
        for opener in [byte[0] & 1 == 0, byte[0] & 1 != 0] {
            let now = self.now;
            let to = if opener { &mut self.a } else { &mut self.b };
            if let Some(message) = to.inbox.pop_front() {
                if let Some(message) = tamper(!opener, message) {
                    to.handle(now, SagaInput::Message(message));
                }
                moved = true;
                break;
            }
        }
        moved
    }

    pub fn perform_only(&mut self, opener: bool) {
        self.perform(opener);
    }

    fn perform(&mut self, opener: bool) -> bool {
        let saga_id = self.saga;
        let now = self.now;
        let (me, other) = if opener { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
        let mut moved = false;
        loop {
            let Some(saga) = &mut me.saga else { return moved };
            // A full channel: only what needs no room in it.
            let full = other.inbox.len() >= self.window;
            let Some(wish) = (if full { saga.poll_local() } else { saga.poll(&me.space) }) else { break };
            moved = true;
            assert!(me.outcome.is_none(), "{wish:?} after Done");
            match wish {
                SagaOutput::Send(bytes) => {
                    assert!(bytes.len() <= sealtide_sync::MESSAGE_BYTES_MAX);
                    me.sent.push(bytes.clone());
                    if !self.cut {
                        other.inbox.push_back(bytes);
                    }
                }
                SagaOutput::Stage { ticket, records, chunks } => {
                    if me.fail_stage_at == Some(ticket) {
                        me.handle(now, SagaInput::StoreFailed("disk full".into()));
                        continue;
                    }
                    let staged = me.space.staged.entry(saga_id).or_default();
                    staged.extend(records.into_iter().map(|record| (record.sid(), record)));
                    me.space.chunks.extend(chunks);
                    me.unsynced = Some(ticket);
                }
                SagaOutput::Release(bytes) => me.released += bytes,
                SagaOutput::Lack(chunks) => me.lacking = chunks,
                SagaOutput::Commit(request) => {
                    me.commits += 1;
                    let input = match me.space.commit(request) {
                        Some(result) => SagaInput::Committed(result),
                        None => SagaInput::TipMoved,
                    };
                    me.handle(now, input);
                }
                SagaOutput::WakeAt(at) => me.wake_ms = Some(at),
                SagaOutput::Progress { .. } => me.progress += 1,
                SagaOutput::Sign { target, .. } if me.slow_signer => me.to_sign = Some(target),
                SagaOutput::Sign { target, .. } => me.sign(now, target),
                SagaOutput::CheckSig { target, sig, .. } => {
                    let good = sig == signature(&target);
                    let result = if good { Ok(()) } else { Err(Refused::auth("another target")) };
                    me.handle(now, SagaInput::SigChecked(result));
                }
                SagaOutput::Done(outcome) => {
                    let chain = me.saga.as_ref().map(Saga::chain);
                    if let (Some(_), Some(Chain::Completed(ledger))) = (me.ledger, chain) {
                        me.ledger = Some(ledger);
                    }
                    me.chain = chain;
                    if matches!(outcome, SagaOutcome::Aborted { .. }) {
                        me.space.staged.remove(&saga_id);
                    }
                    me.outcome = Some(outcome);
                }
            }
        }
        if !me.slow_disk
            && let Some(ticket) = me.unsynced.take()
        {
            me.handle(now, SagaInput::Durable(ticket));
            moved = true;
        }
        moved
    }

    pub fn assert_equal(&self) {
        assert_eq!(self.a.space.sids(), self.b.space.sids());
        assert_eq!(self.a.space.tips, self.b.space.tips);
        assert!(self.a.space.staged.is_empty() && self.b.space.staged.is_empty(), "something is still staged");
    }
}

/// Makes records.
pub struct Author {
    pub chance: SeededEntropy,
    pub clock_ms: u64,
}

impl Author {
    pub fn new(seed: u64) -> Self {
        Self { chance: SeededEntropy::new(seed), clock_ms: 1_700_000_000_000 + seed * 1_000_000 }
    }

    pub fn number(&mut self, below: usize) -> usize {
        let mut bytes = [0; 8];
        self.chance.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % below as u64) as usize
    }

    fn stamp(&mut self) -> Stamp {
        self.clock_ms += 1;
        Stamp { ms: self.clock_ms }
    }

    fn data(&mut self, text: &str) -> Object {
        let mut data = Object::new();
        data.insert("text".into(), text.into());
        data
    }

    pub fn first(&mut self, text: &str) -> Verified {
        self.first_with("doc", text, &[])
    }

    pub fn first_with(&mut self, ib: &str, text: &str, links: &[(&str, &Verified)]) -> Verified {
        let (data, stamp) = (self.data(text), self.stamp());
        let uuid = uuid(&mut self.chance);
        genesis(ib, data, relations(links), stamp, &uuid)
    }

    pub fn edit(&mut self, prev: &Verified, text: &str) -> Verified {
        self.edit_with(prev, text, &[])
    }

    pub fn edit_with(&mut self, prev: &Verified, text: &str, links: &[(&str, &Verified)]) -> Verified {
        let (data, stamp) = (self.data(text), self.stamp());
        evolve(prev, data, relations(links), stamp)
    }

    /// `count` frames: the first and its successors.
    pub fn timeline(&mut self, count: usize) -> Vec<Verified> {
        let mut frames = vec![self.first("v0")];
        for n in 1..count {
            let next = self.edit(&frames[n - 1], &format!("v{n}"));
            frames.push(next);
        }
        frames
    }
}

pub fn relations(links: &[(&str, &Verified)]) -> Relations {
    let mut relations = Relations::new();
    for (name, record) in links {
        relations.entry((*name).to_owned()).or_default().push(record.address().clone());
    }
    relations
}

/// A stone that relates to others.
pub fn stone(ib: &str, links: &[(&str, &Verified)]) -> Verified {
    let mut data = Object::new();
    data.insert("stone".into(), true.into());
    sealtide_ibgib::stone(ib, sealtide_ibgib::Data::Json(data.into()), relations(links))
}

pub fn mode_of(outcome: &Option<SagaOutcome>) -> Mode {
    match outcome {
        Some(SagaOutcome::Committed { mode, .. }) => *mode,
        other => panic!("{other:?}"),
    }
}

pub fn code_of(outcome: &Option<SagaOutcome>) -> AbortCode {
    match outcome {
        Some(SagaOutcome::Aborted { code, .. }) => *code,
        other => panic!("{other:?}"),
    }
}

pub fn again(outcome: &Option<SagaOutcome>) -> bool {
    match outcome {
        Some(SagaOutcome::Committed { again, .. }) => *again,
        other => panic!("{other:?}"),
    }
}

/// Two ends of a divergence `back` frames behind both tips.
pub fn diverged(author: &mut Author, common: usize, left: usize, right: usize) -> (Vec<Verified>, Vec<Verified>) {
    let base = author.timeline(common);
    let branch = |author: &mut Author, count: usize, name: &str| {
        let mut frames = base.clone();
        for n in 0..count {
            let next = author.edit(frames.last().unwrap(), &format!("{name}{n}"));
            frames.push(next);
        }
        frames
    };
    (branch(author, left, "left"), branch(author, right, "right"))
}
