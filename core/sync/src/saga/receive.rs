//! The receiving half: from the peer's tips to everything below them, staged. Spec: ibgib §13.4, §14.1, §14.2
//!
//! ```text
//! WAITING (for the peer's tips) → WALKING (rounds of WANTs until no reference is missing) ┐
//!                                 STREAMING (bulk), then the same rounds ─────────────────┼→ COMPLETE
//! AWAITING ITEMS (level 1) → GATHERING (older answers) → LISTED, then the same rounds ────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, ChunkRef, Manifest, ManifestError, Sid, TimelineId, Verified};
use sealtide_identity::authorship::read_commit;

use super::index::{Index, Key};
use super::outbox::Outbox;
use super::salted::Salt;
use super::wants::{Piece, Wants};
use super::{Context, Fault};
use crate::cbor::Reader;
use crate::message::{ListedTip, ZSTD_RATIO_MAX};
use crate::scope::{Scoped, tips_signed};
use crate::{AbortCode, Message, SagaOutput, SetSummary, TipItem};

/// The receiving half of a saga.
#[derive(Debug)]
pub(super) struct Receive {
    step: Step,
    pub(super) wants: Wants,
    pub(super) index: Index,
    /// The peer's tips that this side did not have, by level-0 id.
    tips: BTreeMap<[u8; 32], ListedTip>,
    /// About as many bytes of memory do they take.
    tip_bytes: usize,
    /// The bulk stream, once it was asked for.
    stream: Option<Stream>,
    /// Ids that level 1 has named and that are not asked for yet.
    items: Vec<[u8; 32]>,
    /// Whether level 1 has named the peer's items: all of them are the peer's, reached by a tip or not.
    listed: bool,
    chunks: BTreeMap<ChunkHash, (u32, u8)>,
    /// Chunks that the peer does not have, and that may stay away.
    pub(super) lacking: BTreeSet<ChunkHash>,
    /// Stages that are not durable yet: ticket, bytes of credit, batch.
    tickets: VecDeque<(u64, u64, Option<u64>)>,
    ticket: u64,
    last_batch: u64,
    rounds: u32,
    addresses: usize,
    /// Chunks received.
    pub(super) chunk_items: u64,
    /// Bytes of records and chunks received.
    pub(super) bytes: u64,
    /// Records found in the view that were staged in an earlier run.
    pub(super) resumed: u64,
    /// Whether records that nothing refers to were left out at the end.
    pub(super) pruned: bool,
}

/// Where the bulk stream is another set than what was received.
#[derive(Debug, Default)]
struct Stream {
    /// What it held and was here, or had come, before.
    known: SetSummary,
    /// What was received, and not by it.
    beside: SetSummary,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is to be received in this direction.
    Idle,
    /// The peer's tips are not known yet.
    Waiting,
    /// From the tips down.
    Walking,
    /// The whole set.
    Streaming,
    /// Level 1 is under way; answers to what was asked before may still come.
    AwaitingItems,
    /// The result of level 1 is known, and answers to what was asked before still come.
    Gathering,
    /// The items that level 1 named, and whatever they refer to.
    Listed,
    /// Nothing is missing.
    Complete,
}

/// Rounds and addresses after which a walk gives way to level 1 or the bulk stream. Spec: ibgib §13.4 rule 5
const ROUNDS_MAX: u32 = 8;
const ADDRESSES_MAX: usize = 65_536;
/// How many times [`crate::Limits::named_bytes_max`] references may take, however much comes.
const NAMED_TIMES_MAX: u64 = 4;
/// How far down the frames of a timeline are asked for, step by step; then 1 024 each time.
const STEPS: [u64; 5] = [1, 4, 16, 64, 256];
const STEP_MAX: u64 = 1024;
/// How often something is asked for by name before it counts as missing at the peer. Spec: ibgib §14.2
const TRIES_MAX: u8 = 2;

impl Receive {
    /// `waits` for the peer's tips, or receives nothing.
    pub(super) fn new(waits: bool) -> Self {
        Self {
            step: if waits { Step::Waiting } else { Step::Idle },
            wants: Wants::default(),
            index: Index::default(),
            tips: BTreeMap::new(),
            tip_bytes: 0,
            stream: None,
            items: Vec::new(),
            listed: false,
            chunks: BTreeMap::new(),
            lacking: BTreeSet::new(),
            tickets: VecDeque::new(),
            ticket: 0,
            last_batch: 0,
            rounds: 0,
            addresses: 0,
            chunk_items: 0,
            bytes: 0,
            resumed: 0,
            pruned: false,
        }
    }

    /// Whether this side receives at all.
    pub(super) fn active(&self) -> bool {
        self.step != Step::Idle
    }

    /// Whether nothing is missing and everything staged is durable.
    pub(super) fn complete(&self) -> bool {
        self.step == Step::Complete && self.tickets.is_empty()
    }

    /// Whether the bulk stream was asked for.
    pub(super) fn streams(&self) -> bool {
        self.stream.is_some()
    }

    /// Everything the bulk stream held, present or not.
    pub(super) fn streamed(&self) -> Option<SetSummary> {
        self.stream.as_ref().map(|stream| {
            let mut held = self.index.summary.clone();
            held.remove_all(&stream.beside);
            held.add_all(&stream.known);
            held
        })
    }

    /// Items and bytes that are still to come, as far as known.
    pub(super) fn outstanding(&self, peer_items: u64) -> (u64, u64) {
        if self.step == Step::Streaming {
            let streamed = |stream: &Stream| self.index.summary.count + stream.known.count - stream.beside.count;
            return (peer_items.saturating_sub(self.stream.as_ref().map_or(0, streamed)), 0);
        }
        let (items, bytes) = self.wants.outstanding();
        (items + self.index.missing.len() as u64, bytes)
    }

    /// Whether a WANT is open and it is the peer's turn.
    pub(super) fn waits_for_answer(&self) -> bool {
        self.wants.any_open() && self.tickets.is_empty()
    }

    /// Whether the peer's tips are still to be named.
    pub(super) fn waiting(&self) -> bool {
        self.step == Step::Waiting
    }

    /// Takes in what an earlier run of this saga has staged. Spec: ibgib §13.7, SY-47
    pub(super) fn resume(&mut self, context: &Context<'_>, scoped: &mut Scoped, staged: &[Sid]) -> Result<(), Fault> {
        for sid in staged {
            if scoped.contains(context.view, sid) {
                continue;
            }
            if let Some(record) = context.view.staged_record(&context.config.saga, sid) {
                self.take_in(Key::of_record(&record), &record, context, scoped)?;
                self.resumed += 1;
            }
        }
        Ok(())
    }

    /// Nothing differs, or nothing can come.
    pub(super) fn nothing_to_receive(&mut self) {
        if self.active() {
            self.step = Step::Complete;
        }
    }

    /// Asks for the whole set of the peer, from the start or behind what was staged.
    pub(super) fn stream(&mut self, after: Option<(u64, Sid)>) {
        let beside = if after.is_some() { SetSummary::default() } else { self.index.summary.clone() };
        self.stream = Some(Stream { beside, ..Stream::default() });
        self.step = Step::Streaming;
        self.wants.ask_bulk(after);
    }

    /// Level 1 begins: its result tells what else to ask for.
    pub(super) fn await_items(&mut self) {
        if self.active() {
            self.step = Step::AwaitingItems;
        }
    }

    /// The result of level 1: what the peer has and this side had not at OPEN.
    pub(super) fn items_known(&mut self, need: Vec<[u8; 32]>) {
        if self.active() {
            self.listed = true;
            self.items = need;
            self.step = Step::Gathering;
        }
    }

    /// Asks for what level 1 has named and what neither came before nor was brought by another saga.
    fn ask_items(&mut self, context: &Context<'_>, scoped: &Scoped, salt: Option<Salt>) {
        let received = self.index.sids().into_iter().map(|sid| salt.map_or(sid.0, |salt| salt.of(&sid.0)));
        let received: BTreeSet<_> = received.collect();
        let mut items = std::mem::take(&mut self.items);
        let here = |id: &[u8; 32]| salt.is_none() && scoped.contains(context.view, &Sid(*id));
        items.retain(|id| !received.contains(id) && !here(id));
        self.wants.ask_sids(items, salt);
        self.step = Step::Listed;
    }

    /// Asks for roots, then for whatever they refer to. A root that the peer lacks too is nobody's fault.
    pub(super) fn walk_from<'a>(&mut self, roots: impl Iterator<Item = &'a Address>) {
        self.step = Step::Walking;
        self.rounds = 1;
        for root in roots.filter(|root| self.index.shapes(Key::of(root)).next().is_none()) {
            self.wants.ask_address(root.clone());
        }
    }

    /// Takes a tip of the peer. Spec: SY-53
    pub(super) fn tip(
        &mut self,
        tip: ListedTip,
        scoped: &Scoped,
        peer_items: u64,
        bytes_max: usize,
    ) -> Result<(), Fault> {
        if tip.id != TipItem::id_of(&tip.tjp, &tip.tip, &tip.sid) {
            return Err(Fault::protocol("a tip with another id"));
        }
        if tip.n >= peer_items {
            return Err(Fault::protocol("a tip that cannot be: it has a greater counter than the peer has records"));
        }
        if scoped.tip(&tip.id).is_some() {
            return Err(Fault::protocol("a tip that cannot be: both sides have it"));
        }
        self.tip_bytes += size_of::<ListedTip>() + tip.tjp.as_str().len() + tip.tip.as_str().len();
        if self.tip_bytes > bytes_max {
            return Err(Fault::new(AbortCode::Limit, "too many tips at once"));
        }
        if self.tips.insert(tip.id, tip).is_some() { Err(Fault::protocol("a tip twice")) } else { Ok(()) }
    }

    /// All tips are named: asks for the frames below them.
    pub(super) fn tips_known(&mut self, context: &Context<'_>, scoped: &Scoped) {
        if self.step != Step::Waiting {
            return;
        }
        self.step = Step::Walking;
        self.rounds = 1;
        let mut ranges: BTreeMap<TimelineId, (Address, u64, u64)> = BTreeMap::new();
        for tip in self.tips.values() {
            if scoped.contains(context.view, &tip.sid) || self.index.holds_tip(&tip.tip, &tip.sid) {
                continue;
            }
            self.index.need(&tip.tip);
            let own = scoped.tips_of(&tip.tjp.timeline_id()).iter().map(|own| own.n).max();
            let from = match own {
                _ if !scoped.follows("past") => tip.n,
                Some(own) if own < tip.n => own + 1,
                Some(_) => tip.n,
                None => 0,
            };
            let range = ranges.entry(tip.tjp.timeline_id()).or_insert((tip.tjp.clone(), from, tip.n));
            (range.1, range.2) = (range.1.min(from), range.2.max(tip.n));
        }
        let held = if self.resumed == 0 { BTreeMap::new() } else { self.held_counters(context) };
        for (timeline, (tjp, from, to)) in ranges {
            self.index.begin(&tjp, from);
            let mut next = from;
            for n in held.get(&timeline).into_iter().flatten().copied().filter(|n| (from..=to).contains(n)) {
                if next < n {
                    self.wants.ask_range(timeline, next, n - 1);
                }
                next = n + 1;
            }
            if next <= to {
                self.wants.ask_range(timeline, next, to);
            }
        }
    }

    /// The counters of staged frames, by timeline.
    fn held_counters(&self, context: &Context<'_>) -> BTreeMap<TimelineId, BTreeSet<u64>> {
        let mut held: BTreeMap<_, BTreeSet<u64>> = BTreeMap::new();
        for sid in self.index.sids() {
            let record = context.view.staged_record(&context.config.saga, &sid);
            if let Some(frame) = record.as_ref().and_then(Verified::frame_ref) {
                held.entry(frame.timeline).or_default().insert(frame.n);
            }
        }
        held
    }

    /// Takes a BATCH. `credit` is what its message took of the channel.
    pub(super) fn batch(
        &mut self,
        context: &mut Context<'_>,
        scoped: &mut Scoped,
        message: Batch,
        credit: u64,
    ) -> Result<(), Fault> {
        if message.number != self.last_batch + 1 {
            return Err(Fault::protocol("a BATCH out of order"));
        }
        self.wants.expects_records(message.want)?;
        self.last_batch = message.number;
        let streams = self.wants.streams(message.want);
        let mut kept = Vec::new();
        for encoded in unpack(&message)? {
            let record =
                Verified::accept(encoded).map_err(|refusal| Fault::new(AbortCode::BadRecord, refusal.to_string()))?;
            let goes_along = self.goes_along(&record, context, scoped);
            self.wants.admit(message.want, &record, goes_along)?;
            let key = Key::of_record(&record);
            if self.is_new(key, record.sid(), streams, context, scoped) {
                self.take_in(key, &record, context, scoped)?;
                self.bytes += record.encoded().len() as u64;
                kept.push(record);
            } else {
                self.index.found(key);
            }
        }
        if message.end {
            self.wants.answered(message.want)?;
        }
        context.clock.answered();
        if kept.is_empty() {
            context.out.release(credit);
            return Ok(());
        }
        self.stage(context, kept, Vec::new(), credit, Some(message.number))
    }

    /// Whether a record that was asked for is to be staged. In the stream records may be here already; in answers to
    /// other WANTs because another saga committed them meanwhile, or another WANT brought them.
    fn is_new(&mut self, key: Key, sid: Sid, streams: bool, context: &Context<'_>, scoped: &Scoped) -> bool {
        let new = !self.index.holds(key, sid) && !scoped.contains(context.view, &sid);
        if let Some(stream) = self.stream.as_mut().filter(|_| new != streams) {
            let apart = if streams { &mut stream.known } else { &mut stream.beside };
            apart.add(sid.as_bytes());
        }
        new
    }

    /// Whether a record is a commit stone of a frame that is here or came. Spec: SY-103
    fn goes_along(&self, record: &Verified, context: &Context<'_>, scoped: &Scoped) -> bool {
        let here = |tip: &Address| {
            self.index.shapes(Key::of(tip)).next().is_some() || !context.view.by_address(tip).is_empty()
        };
        scoped.is_whole() && tips_signed(record).iter().any(here)
    }

    fn take_in(
        &mut self,
        key: Key,
        record: &Verified,
        context: &Context<'_>,
        scoped: &mut Scoped,
    ) -> Result<(), Fault> {
        self.index.add(key, record, scoped, context.view)?;
        // In a stream in order of keys all that frames name comes behind the last of them: who sends much may name more, to a bound.
        let least = context.config.limits.named_bytes_max as u64;
        let named_max = (least + self.index.bytes).min(NAMED_TIMES_MAX * least);
        if self.index.missing_bytes as u64 > named_max {
            return Err(Fault::new(AbortCode::Limit, "too many references to what does not come"));
        }
        for chunk in Manifest::chunks_listed(record) {
            match self.chunks.get(&chunk.hash) {
                Some((length, _)) if *length == chunk.length => {}
                Some(_) => return Err(Fault::new(AbortCode::BadRecord, "one chunk with two lengths")),
                None if context.view.has_chunk(&chunk.hash) => {}
                None => {
                    self.chunks.insert(chunk.hash, (chunk.length, 0));
                    self.wants.ask_chunk(chunk);
                }
            }
        }
        Ok(())
    }

    /// Takes a piece of a chunk.
    pub(super) fn piece(&mut self, context: &mut Context<'_>, message: Message, credit: u64) -> Result<(), Fault> {
        let Message::Chunks { want, hash, offset, bytes, end } = message else { return Ok(()) };
        let piece = self.wants.admit_piece(want, hash, offset, &bytes, end)?;
        context.clock.answered();
        self.bytes += bytes.len() as u64;
        match piece {
            // Pieces wait in memory, a few chunks at most. Their credit goes back at once: a chunk is as large as
            // the whole window of the channel, so holding it would stop the chunk from ever becoming complete.
            Piece::More => context.out.release(credit),
            Piece::Whole(bytes) => {
                self.chunk_items += 1;
                self.stage(context, Vec::new(), vec![(hash, bytes.into())], credit, None)?;
            }
            Piece::Absent(chunk) => {
                context.out.release(credit);
                self.ask_chunk_again(chunk, context.config.may_lack)?;
            }
        }
        Ok(())
    }

    fn ask_chunk_again(&mut self, chunk: ChunkRef, may_lack: bool) -> Result<(), Fault> {
        let tries = self.chunks.get_mut(&chunk.hash).map(|(_, tries)| tries);
        match tries {
            Some(tries) if *tries + 1 < TRIES_MAX => {
                *tries += 1;
                self.wants.ask_chunk(chunk);
                Ok(())
            }
            _ if may_lack => {
                self.lacking.insert(chunk.hash);
                Ok(())
            }
            _ => Err(lacks(&chunk.hash)),
        }
    }

    fn stage(
        &mut self,
        context: &mut Context<'_>,
        records: Vec<Verified>,
        chunks: Vec<(ChunkHash, Bytes)>,
        credit: u64,
        batch: Option<u64>,
    ) -> Result<(), Fault> {
        if self.bytes > context.config.limits.staged_bytes_max {
            return Err(Fault::new(AbortCode::Limit, "more than a saga may stage"));
        }
        self.ticket += 1;
        self.tickets.push_back((self.ticket, credit, batch));
        context.out.push(SagaOutput::Stage { ticket: self.ticket, records, chunks });
        Ok(())
    }

    /// Everything up to `ticket` is durable: its credit goes back.
    pub(super) fn durable(&mut self, out: &mut Outbox, ticket: u64) {
        let mut stored = None;
        while let Some((_, credit, batch)) = self.tickets.pop_front_if(|(first, ..)| *first <= ticket) {
            out.release(credit);
            stored = batch.or(stored);
        }
        if let Some(batch) = stored {
            out.send(&Message::Stored { batch });
        }
    }

    /// When all WANTs are answered: completes, or asks for what is missing. `true` when the walk takes too long and
    /// level 1 is to take its place. `salt` is what level 1 has salted its ids with. Spec: ibgib §13.4 rule 4, SY-97
    pub(super) fn advance(
        &mut self,
        context: &Context<'_>,
        scoped: &Scoped,
        salt: Option<Salt>,
    ) -> Result<bool, Fault> {
        if self.step == Step::Gathering && self.wants.idle() {
            self.ask_items(context, scoped, salt);
        }
        if !matches!(self.step, Step::Walking | Step::Streaming | Step::Listed) || !self.wants.idle() {
            return Ok(false);
        }
        if self.index.missing.is_empty() {
            self.step = Step::Complete;
            return Ok(false);
        }
        if self.step == Step::Walking && (self.rounds >= ROUNDS_MAX || self.addresses > ADDRESSES_MAX) {
            if !context.config.recon {
                self.stream(None);
            }
            return Ok(context.config.recon);
        }
        self.rounds += 1;
        self.ask_missing().map(|()| false)
    }

    fn ask_missing(&mut self) -> Result<(), Fault> {
        let mut deeper = BTreeSet::new();
        for missing in self.index.missing.values_mut() {
            if let Some((timeline, n)) = missing.child
                && self.index.timelines.get(&timeline).is_some_and(|known| n <= known.low)
            {
                deeper.insert(timeline);
                continue;
            }
            if missing.tries >= TRIES_MAX {
                let text = format!("the peer lacks {}", missing.address);
                return Err(Fault::new(AbortCode::Incomplete, text));
            }
            missing.tries += 1;
            self.addresses += 1;
            self.wants.ask_address(missing.address.clone());
        }
        for id in deeper {
            let Some(timeline) = self.index.timelines.get_mut(&id).filter(|timeline| timeline.low > 0) else {
                continue;
            };
            let step = STEPS.get(usize::from(timeline.steps)).copied().unwrap_or(STEP_MAX);
            let to = timeline.low - 1;
            timeline.low = timeline.low.saturating_sub(step);
            timeline.steps = timeline.steps.saturating_add(1);
            self.wants.ask_range(id.1, timeline.low, to);
        }
        Ok(())
    }

    /// Last look before STAGED: manifests with pages add up, nothing came that the peer's tips do not reach, and chunks that
    /// the peer lacks are not needed.
    pub(super) fn close(&mut self, context: &Context<'_>, scoped: &mut Scoped) -> Result<(), Fault> {
        self.check_pages(context)?;
        // Another saga may have brought some meanwhile.
        self.lacking.retain(|chunk| !context.view.has_chunk(chunk));
        if let Some(chunk) = self.lacking.first()
            && !context.view.may_lack(&context.config.saga, &self.lacking)
        {
            return Err(lacks(chunk));
        }
        let stray = self.stream.is_none()
            && !self.listed
            && !self.tips.is_empty()
            && self
                .index
                .timelines
                .iter()
                .flat_map(|(_, timeline)| timeline.heads.iter())
                .any(|h| !self.tips.contains_key(&h.id));
        if stray { self.prune(context, scoped) } else { Ok(()) }
    }

    /// Spec: SY-107
    fn check_pages(&self, context: &Context<'_>) -> Result<(), Fault> {
        let (view, saga) = (context.view, &context.config.saga);
        for sid in &self.index.paged {
            let Some(record) = view.staged_record(saga, sid) else { continue };
            let mut page = |address: &Address| match self.index.pages.get(address) {
                Some(sid) => view.staged_record(saga, sid),
                None => view.by_address(address).iter().find_map(|sid| view.record(sid)),
            };
            match Manifest::read(&record, &mut page) {
                Ok(_) => {}
                Err(error @ ManifestError::PageMissing(_)) => {
                    return Err(Fault::new(AbortCode::Incomplete, error.to_string()));
                }
                Err(error) => return Err(Fault::new(AbortCode::BadRecord, error.to_string())),
            }
        }
        Ok(())
    }

    /// Keeps what the peer's tips reach. Frames that another saga brought to the peer meanwhile may have come with
    /// a range; they are not part of what both sides agree on.
    fn prune(&mut self, context: &Context<'_>, scoped: &mut Scoped) -> Result<(), Fault> {
        let mut open: Vec<Address> = self.tips.values().map(|tip| tip.tip.clone()).collect();
        let (mut kept, mut seen) = (Index::default(), BTreeSet::new());
        while let Some(address) = open.pop() {
            let key = Key::of(&address);
            if !seen.insert(key) {
                continue;
            }
            for (sid, _) in self.index.shapes(key) {
                let Some(record) = context.view.staged_record(&context.config.saga, &sid) else { continue };
                kept.add(key, &record, scoped, context.view)?;
                let links = record.relations().iter().filter(|(name, _)| scoped.follows(name));
                open.extend(links.flat_map(|(_, links)| links).filter(|link| !link.is_primitive()).cloned());
            }
        }
        self.keep_stones(context, scoped, &mut kept)?;
        self.pruned |= kept.len() < self.index.len();
        self.index = kept;
        Ok(())
    }

    /// Keeps the commit stones whose frames are all kept or here, and so is the stone before. A node's stones follow one
    /// another by `seq`, so one pass in that order finds all.
    fn keep_stones(&self, context: &Context<'_>, scoped: &mut Scoped, kept: &mut Index) -> Result<(), Fault> {
        let mut stones: Vec<(u64, Verified)> = Vec::new();
        for sid in self.index.sids() {
            let stone = context.view.staged_record(&context.config.saga, &sid);
            if let Some(stone) =
                stone.filter(|stone| !tips_signed(stone).is_empty() && !kept.holds(Key::of(stone.address()), sid))
            {
                stones.push((read_commit(&stone).map_or(u64::MAX, |commit| commit.seq), stone));
            }
        }
        stones.sort_by_key(|(seq, stone)| (*seq, stone.sid()));
        for (_, stone) in stones {
            let is_here = |address: &Address| kept.shapes(Key::of(address)).next().is_some();
            if stone.links().iter().all(|address| is_here(address) || !context.view.by_address(address).is_empty()) {
                kept.add(Key::of(stone.address()), &stone, scoped, context.view)?;
            }
        }
        Ok(())
    }
}

fn lacks(chunk: &ChunkHash) -> Fault {
    Fault::new(AbortCode::Incomplete, format!("the peer lacks chunk {chunk}"))
}

/// The members of [`Message::Batch`].
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) want: u64,
    pub(super) zstd: bool,
    pub(super) size: u64,
    pub(super) payload: Bytes,
    pub(super) end: bool,
}

/// The encoded records of a batch, each in a buffer of its own: a record may live longer than its batch.
/// Spec: SY-54
fn unpack(batch: &Batch) -> Result<Vec<Bytes>, Fault> {
    let raw = if batch.zstd {
        if batch.size > (batch.payload.len() * ZSTD_RATIO_MAX) as u64 {
            return Err(Fault::new(AbortCode::Limit, "a BATCH that unpacks to more than 100 times its size"));
        }
        // The decoder gets no more room than was announced and checked.
        let raw = zstd::bulk::decompress(&batch.payload, batch.size as usize)
            .map_err(|_| Fault::protocol("a BATCH that does not unpack to its size"))?;
        if raw.len() as u64 != batch.size {
            return Err(Fault::protocol("a BATCH that does not unpack to its size"));
        }
        Bytes::from(raw)
    } else {
        batch.payload.clone()
    };
    let mut reader = Reader::new(&raw);
    let count = reader.list(BATCH_RECORDS_MAX)?;
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        records.push(Bytes::copy_from_slice(reader.bytes()?));
    }
    reader.end()?;
    Ok(records)
}

/// Records of one BATCH, whatever the sender's own limit is.
const BATCH_RECORDS_MAX: usize = 16_384;
