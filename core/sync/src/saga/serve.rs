//! Answers to the peer's WANTs, made only when the channel has room. Spec: ibgib §13.5, §13.6

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use sealtide_ibgib::{Address, ChunkHash, Sid, TimelineId, Verified};

use super::{Context, Fault, Limits};
use crate::cbor::{Writer, head_bytes};
use crate::message::{
    BATCH_BYTES_MAX, CHUNK_PIECE_BYTES_MAX, DIFF_IDS_MAX, ListedTip, TIP_LIST_MAX, Want, ZSTD_RATIO_MAX,
};
use crate::scope::{Scoped, tips_signed};
use crate::{AbortCode, BulkItem, Message, SpaceView};

/// The serving half.
#[derive(Debug, Default)]
pub(super) struct Serve {
    jobs: VecDeque<Job>,
    /// Commit stones that went along with frames.
    stones: BTreeSet<Sid>,
    last_want: u64,
    last_batch: u64,
    stored_batch: u64,
    /// Whether the peer has asked for the bulk stream.
    pub(super) streams: bool,
    /// Records and chunks sent.
    pub(super) items: u64,
    /// Records sent.
    pub(super) records: u64,
    /// Bytes of them, unpacked.
    pub(super) bytes: u64,
}

/// One WANT being answered.
#[derive(Debug)]
struct Job {
    want: u64,
    source: Source,
    /// A record that was read and did not fit into the batch before.
    held: Option<Bytes>,
    /// Commit stones that go along with frames of the answer, with the frame.
    stones: VecDeque<(Sid, Address)>,
}

/// Where the answer comes from; what was answered is taken off.
#[derive(Debug)]
enum Source {
    Sids(VecDeque<Sid>),
    Addresses(VecDeque<Address>, VecDeque<Sid>),
    Ranges(VecDeque<(TimelineId, u64, u64)>, VecDeque<Sid>),
    Bulk(Option<(u64, Sid)>, VecDeque<BulkItem>, bool),
    Tips(VecDeque<[u8; 32]>),
    /// DIFF: the run, what only the opener has, what only the answerer has.
    Diff(u64, VecDeque<[u8; 32]>, VecDeque<[u8; 32]>),
    Chunks(VecDeque<(ChunkHash, u32)>),
}

/// Entries that the bulk stream reads from the store at a time.
const BULK_READ: usize = 256;
/// Bytes of one TIPLIST at which it is closed.
const TIP_LIST_BYTES: usize = crate::MESSAGE_BYTES_MAX / 2;

impl Serve {
    /// Takes a WANT. Spec: SY-53
    pub(super) fn want(&mut self, limits: &Limits, number: u64, want: Want) -> Result<(), Fault> {
        if number != self.last_want + 1 {
            return Err(Fault::protocol("a WANT out of order"));
        }
        if self.jobs.iter().filter(|job| job.want != 0).count() >= limits.wants_open_max {
            return Err(Fault::new(AbortCode::Limit, "too many WANTs open"));
        }
        self.last_want = number;
        self.streams |= matches!(want, Want::Bulk(_));
        let source = match want {
            Want::Sids(sids) => Source::Sids(sids.into()),
            Want::Addresses(names) => Source::Addresses(names.into(), VecDeque::new()),
            Want::Ranges(ranges) => Source::Ranges(ranges.into(), VecDeque::new()),
            Want::Tips(ids) => Source::Tips(ids.into()),
            Want::Bulk(after) => Source::Bulk(after, VecDeque::new(), false),
            Want::Chunks(chunks) => Source::Chunks(chunks.into()),
        };
        self.jobs.push_back(Job { want: number, source, held: None, stones: VecDeque::new() });
        Ok(())
    }

    /// Queues the list of tips that only the opener has.
    pub(super) fn list_own_tips(&mut self, ids: BTreeSet<[u8; 32]>) {
        let source = Source::Tips(ids.into_iter().collect());
        self.jobs.push_back(Job { want: 0, source, held: None, stones: VecDeque::new() });
    }

    /// The next message of a list that nobody asked for, the result of a run of reconciliation: it must go out before
    /// another run begins. Such lists are as long as the difference, which is in memory anyway.
    pub(super) fn next_told(&mut self, scoped: &Scoped) -> Option<Message> {
        let place = self.jobs.iter().position(|job| job.want == 0)?;
        let (message, finished) = match &mut self.jobs[place].source {
            Source::Tips(ids) => list_tips(0, ids, scoped),
            Source::Diff(run, have, need) => list_diff(*run, have, need),
            _ => return None,
        };
        if finished {
            self.jobs.remove(place);
        }
        Some(message)
    }

    /// Queues the result of a run of level 1.
    pub(super) fn tell(&mut self, run: u64, have: BTreeSet<[u8; 32]>, need: BTreeSet<[u8; 32]>) {
        let source = Source::Diff(run, have.into_iter().collect(), need.into_iter().collect());
        self.jobs.push_back(Job { want: 0, source, held: None, stones: VecDeque::new() });
    }

    /// The peer says what is durable there.
    pub(super) fn stored(&mut self, batch: u64) -> Result<(), Fault> {
        if batch < self.stored_batch || batch > self.last_batch {
            return Err(Fault::protocol("STORED of a batch that was not sent"));
        }
        self.stored_batch = batch;
        Ok(())
    }

    /// The next message of an answer; reads the store.
    pub(super) fn next_message(&mut self, context: &Context<'_>, scoped: &Scoped) -> Option<Message> {
        let mut job = self.jobs.pop_front()?;
        let (message, finished) = match &mut job.source {
            Source::Tips(ids) => list_tips(job.want, ids, scoped),
            Source::Diff(run, have, need) => list_diff(*run, have, need),
            Source::Chunks(chunks) => self.piece(job.want, chunks, context, scoped),
            _ => self.batch(&mut job, context, scoped),
        };
        if !finished {
            self.jobs.push_front(job);
        }
        Some(message)
    }

    fn batch(&mut self, job: &mut Job, context: &Context<'_>, scoped: &Scoped) -> (Message, bool) {
        let limits = &context.config.limits;
        let bytes_max = limits.batch_bytes.min(BATCH_BYTES_MAX - 16);
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < limits.batch_records {
            let Some(record) = job.held.take().or_else(|| self.next_record(job, context, scoped)) else { break };
            let more = head_bytes(record.len()) + record.len();
            if !records.is_empty() && bytes + more > bytes_max {
                job.held = Some(record);
                break;
            }
            bytes += more;
            records.push(record);
        }
        if job.held.is_none() {
            job.held = self.next_record(job, context, scoped);
        }
        let end = job.held.is_none();
        self.last_batch += 1;
        self.records += records.len() as u64;
        self.items += records.len() as u64;
        self.bytes += bytes as u64;
        (pack(self.last_batch, job.want, &records, bytes, end, context.config.zstd), end)
    }

    /// The next record of an answer. A commit stone goes along with the first frame that it names, since nothing refers
    /// to it: whoever lacks the frame lacks the stone.
    // Spec: SY-103
    fn next_record(&mut self, job: &mut Job, context: &Context<'_>, scoped: &Scoped) -> Option<Bytes> {
        while let Some((sid, frame)) = job.stones.pop_front() {
            let stone = scoped.record(context.view, &sid);
            if let Some(stone) = stone.filter(|stone| tips_signed(stone).contains(&frame)) {
                return Some(stone.encoded().clone());
            }
        }
        loop {
            if !matches!(job.source, Source::Ranges(..) | Source::Addresses(..)) {
                return job.source.next_encoded(context.view, scoped);
            }
            let record = job.source.next_record(context.view, scoped)?;
            // One that a later stone names is asked for by its address, and may have gone along meanwhile.
            if !tips_signed(&record).is_empty() && !self.stones.insert(record.sid()) {
                continue;
            }
            if record.frame_ref().is_some() {
                for sid in scoped.stones_naming(context.view, record.address()) {
                    if self.stones.insert(sid) {
                        job.stones.push_back((sid, record.address().clone()));
                    }
                }
            }
            return Some(record.encoded().clone());
        }
    }

    fn piece(
        &mut self,
        want: u64,
        chunks: &mut VecDeque<(ChunkHash, u32)>,
        context: &Context<'_>,
        scoped: &Scoped,
    ) -> (Message, bool) {
        let Some((hash, offset)) = chunks.pop_front() else {
            // An empty WANT: answered by an empty batch.
            self.last_batch += 1;
            return (pack(self.last_batch, want, &[], 0, true, false), true);
        };
        // One byte more than fits tells whether the chunk ends here.
        let mut bytes = scoped.chunk(context.view, &hash, offset, CHUNK_PIECE_BYTES_MAX + 1).unwrap_or_default();
        let end = bytes.len() <= CHUNK_PIECE_BYTES_MAX;
        bytes.truncate(CHUNK_PIECE_BYTES_MAX);
        self.bytes += bytes.len() as u64;
        if end {
            self.items += u64::from(!bytes.is_empty());
        } else {
            chunks.push_front((hash, offset + bytes.len() as u32));
        }
        (Message::Chunks { want, hash, offset, bytes, end }, chunks.is_empty())
    }
}

impl Source {
    fn next_record(&mut self, view: &dyn SpaceView, scoped: &Scoped) -> Option<Verified> {
        loop {
            let sid = self.next_sid(view, scoped)?;
            if let Some(record) = scoped.record(view, &sid) {
                return Some(record);
            }
        }
    }

    /// As [`Source::next_record`], where nothing of the record has to be known: mostly so.
    fn next_encoded(&mut self, view: &dyn SpaceView, scoped: &Scoped) -> Option<Bytes> {
        loop {
            let item = match self.next_item(view, scoped) {
                Some(item) => item?,
                None => BulkItem::from((0, self.next_sid(view, scoped)?)),
            };
            let encoded = match self {
                Self::Bulk(..) if scoped.has_newer(view) => {
                    let record = scoped.record(view, &item.sid).filter(|record| !scoped.is_newer(view, record));
                    record.map(|record| record.encoded().clone())
                }
                _ => scoped.encoded_at(view, &item),
            };
            if encoded.is_some() {
                return encoded;
            }
        }
    }

    /// The next entry of the bulk stream; `None` where the answer comes from elsewhere.
    fn next_item(&mut self, view: &dyn SpaceView, scoped: &Scoped) -> Option<Option<BulkItem>> {
        let Self::Bulk(after, read, exhausted) = self else { return None };
        if read.is_empty() && !*exhausted {
            read.extend(scoped.bulk(view, *after, BULK_READ));
            *exhausted = read.len() < BULK_READ;
        }
        let item = read.pop_front();
        *after = item.as_ref().map(BulkItem::key).or(*after);
        Some(item)
    }

    fn next_sid(&mut self, view: &dyn SpaceView, scoped: &Scoped) -> Option<Sid> {
        match self {
            Self::Sids(sids) => sids.pop_front(),
            Self::Addresses(names, sids) => {
                while sids.is_empty() {
                    sids.extend(scoped.by_address(view, &names.pop_front()?));
                }
                sids.pop_front()
            }
            Self::Ranges(ranges, sids) => {
                while sids.is_empty() {
                    sids.extend(scoped.frames(view, ranges.pop_front()?));
                }
                sids.pop_front()
            }
            Self::Bulk(..) | Self::Tips(_) | Self::Diff(..) | Self::Chunks(_) => None,
        }
    }
}

fn list_tips(want: u64, ids: &mut VecDeque<[u8; 32]>, scoped: &Scoped) -> (Message, bool) {
    let (mut tips, mut bytes) = (Vec::new(), 0);
    while tips.len() < TIP_LIST_MAX
        && bytes < TIP_LIST_BYTES
        && let Some(id) = ids.pop_front()
    {
        if let Some(tip) = scoped.tip(&id) {
            bytes += tip.tjp.as_str().len() + tip.tip.as_str().len() + 100;
            tips.push(ListedTip { id, tjp: tip.tjp, tip: tip.tip, sid: tip.sid, n: tip.n });
        }
    }
    let last = ids.is_empty();
    (Message::TipList { want, tips, last }, last)
}

fn list_diff(run: u64, have: &mut VecDeque<[u8; 32]>, need: &mut VecDeque<[u8; 32]>) -> (Message, bool) {
    let only_opener: Vec<_> = have.drain(..have.len().min(DIFF_IDS_MAX)).collect();
    let only_answerer: Vec<_> = need.drain(..need.len().min(DIFF_IDS_MAX - only_opener.len())).collect();
    let last = have.is_empty() && need.is_empty();
    (Message::Diff { run, only_opener, only_answerer, last }, last)
}

fn pack(number: u64, want: u64, records: &[Bytes], bytes: usize, end: bool, zstd: bool) -> Message {
    let mut raw = Writer(Vec::with_capacity(bytes + 5));
    raw.array(records.len());
    records.iter().for_each(|record| _ = raw.bytes(record));
    let size = raw.0.len() as u64;
    if zstd
        && raw.0.len() > PACK_FROM_BYTES
        && let Ok(packed) = zstd::bulk::compress(&raw.0, PACK_LEVEL)
        && packed.len() < raw.0.len()
        && packed.len() * ZSTD_RATIO_MAX >= raw.0.len()
    {
        return Message::Batch { number, want, zstd: true, size, payload: packed.into(), end };
    }
    Message::Batch { number, want, zstd: false, size, payload: raw.0.into(), end }
}

/// Smaller batches are not worth packing.
const PACK_FROM_BYTES: usize = 256;
const PACK_LEVEL: i32 = 1;
