//! The index of one space: summaries, and of what no run covers members, addresses, frames, tips and chunk references. Spec: ibgib §12.2, §13.3.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use sealtide_crypto::sha256_parts;
use sealtide_ibgib::{ChunkHash, Sid, TimelineId};
use sealtide_sync::{SagaId, SetSummary, Snapshot, negentropy};

use crate::entry::{Move, StoneLine};
use crate::index::{Rec, Records, Sums, TipMove};
use crate::pack::Packs;
use crate::runs::Runs;
use crate::table::{KIND_BYTES, MAKER_BYTES, NAMED_BYTES, Stored, kind_row, maker_row, named_row};
use crate::tips::{Head, Tips};

/// One change of a summary.
#[derive(Clone, Copy, Debug)]
enum Change {
    Item([u8; 32]),
    Tip([u8; 32]),
    NoTip([u8; 32]),
}

/// The index of one space.
#[derive(Debug, Default)]
pub(crate) struct SpaceState {
    /// Stands for the space in the tables; never used for another.
    pub(crate) number: u32,
    pub(crate) created_ms: u64,
    /// Members, those in runs too.
    count: u64,
    /// (order key, first 8 bytes of the sid, record).
    pub(crate) members: BTreeSet<(u64, u64, u32)>,
    /// (hash of the address, record).
    pub(crate) addresses: BTreeSet<([u8; 16], u32)>,
    /// (timeline, n, record).
    pub(crate) frames: BTreeSet<(u32, u64, u32)>,
    /// Rows of the tips that commit stones name.
    pub(crate) named: BTreeSet<[u8; NAMED_BYTES]>,
    /// Rows of commit stones by the node that they name.
    pub(crate) makers: BTreeSet<[u8; MAKER_BYTES]>,
    pub(crate) tips: Tips,
    /// Rows of the timelines that began since the last run.
    pub(crate) kinds: BTreeSet<[u8; KIND_BYTES]>,
    /// Chunks that these members list, with the number of members that do.
    pub(crate) chunks: HashMap<ChunkHash, u32>,
    pub(crate) item_summary: SetSummary,
    pub(crate) tip_summary: SetSummary,
    /// Encoded bytes of all members, and bytes of the chunks that they list, each once.
    pub(crate) bytes: u64,
    /// Sagas with staged records.
    pub(crate) staging: BTreeSet<SagaId>,
    snapshot: OnceLock<Arc<Snapshot>>,
    /// The members with sums, made when a range is first asked for after a change.
    sorted: OnceLock<negentropy::Run>,
    /// Changes that are not in the summaries yet.
    later: Vec<Change>,
    /// Changes since the log last brought the summaries.
    pub(crate) since_sums: u64,
    /// Digests that the newest commit entry states: (items, tips).
    pub(crate) stated: Option<([u8; 32], [u8; 32])>,
}

/// What a move makes of the tips of one timeline.
#[derive(Debug)]
pub(crate) struct Moved {
    /// How many it had.
    pub(crate) before: usize,
    /// Those of them that go.
    pub(crate) gone: Vec<Head>,
    pub(crate) added: Vec<Head>,
}

fn prefix(sid: &Sid) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&sid.0[..8]);
    u64::from_be_bytes(bytes)
}

/// The level-0 id of a tip. Spec: ibgib §13.3.
pub(crate) fn tip_id(tjp: &str, tip: &str, sid: &Sid) -> [u8; 32] {
    let (tjp_len, tip_len) = ((tjp.len() as u64).to_be_bytes(), (tip.len() as u64).to_be_bytes());
    sha256_parts(&[b"sealtide/tip/1\0", &tjp_len, tjp.as_bytes(), &tip_len, tip.as_bytes(), &sid.0])
}

/// Adds many entries. A set that grows much is built anew, which costs less than finding the place of each.
fn insert<T: Ord>(set: &mut BTreeSet<T>, new: Vec<T>) {
    if new.len() > set.len() / 4 {
        set.append(&mut new.into_iter().collect());
    } else {
        set.extend(new);
    }
}

impl SpaceState {
    pub(crate) fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Takes back the number of members.
    pub(crate) fn restore_len(&mut self, members: u64) {
        self.count = members;
    }

    /// Forgets what a run has now.
    pub(crate) fn forget_sealed(&mut self) {
        self.members.clear();
        self.addresses.clear();
        self.frames.clear();
        self.named.clear();
        self.makers.clear();
        self.kinds.clear();
        self.chunks.clear();
        self.tips.forget_sealed();
        self.snapshot.take();
        self.sorted.take();
    }

    /// Whether the record is a member that no run covers.
    pub(crate) fn is_member(&self, rec: &Rec, id: u32) -> bool {
        self.members.contains(&(rec.order, prefix(&rec.sid), id))
    }

    pub(crate) fn len(&self) -> u64 {
        self.count
    }

    /// Adds members that are none yet. Summary, chunks and stones are the caller's.
    pub(crate) fn add_members(&mut self, records: &Records, ids: &[u32]) {
        self.count += ids.len() as u64;
        self.sorted.take();
        let all = || ids.iter().map(|id| (*id, records.get(*id)));
        insert(&mut self.members, all().map(|(id, rec)| (rec.order, prefix(&rec.sid), id)).collect());
        insert(&mut self.addresses, all().map(|(id, rec)| (rec.address, id)).collect());
        let frames = all().filter_map(|(id, rec)| rec.frame.map(|(timeline, n)| (timeline, n, id)));
        insert(&mut self.frames, frames.collect());
        self.bytes += all().map(|(_, rec)| u64::from(rec.encoded_len)).sum::<u64>();
    }

    /// Counts the chunks that a new member lists.
    pub(crate) fn add_chunks(&mut self, chunks: &[ChunkHash]) {
        for chunk in chunks {
            *self.chunks.entry(*chunk).or_default() += 1;
        }
    }

    /// Adds what members say that are commit stones.
    pub(crate) fn add_stones(&mut self, stones: &[(Sid, &StoneLine)]) {
        let number = self.number;
        let named = stones.iter().flat_map(|(sid, stone)| stone.tips.iter().map(|tip| named_row(number, *tip, sid)));
        insert(&mut self.named, named.collect());
        let makers = stones.iter().map(|(sid, stone)| maker_row(number, &stone.by, stone.seq, sid));
        insert(&mut self.makers, makers.collect());
    }

    /// Changes the tips of one timeline.
    pub(crate) fn apply_move(&mut self, change: &TipMove, moved: Moved, sums: Sums) {
        let Moved { before, gone, added } = moved;
        self.snapshot.take();
        if before == 0 {
            self.kinds.insert(kind_row(self.number, &change.kind, &change.timeline));
        }
        self.tips.change(&change.timeline, before, &gone, &added);
        gone.iter().for_each(|head| self.changed(sums, Change::NoTip(head.id)));
        added.iter().for_each(|head| self.changed(sums, Change::Tip(head.id)));
    }

    /// Takes over all of a draft, no record of which is a member. `common` are the timelines of which both have tips: they have those
    /// of both now. Bytes of chunks are the caller's.
    pub(crate) fn join(&mut self, draft: Self, common: &BTreeSet<TimelineId>) {
        let number = self.number;
        self.snapshot.take();
        self.sorted.take();
        self.count += draft.count;
        self.bytes += draft.bytes;
        self.since_sums += draft.since_sums;
        take_over(&mut self.members, draft.members);
        take_over(&mut self.addresses, draft.addresses);
        take_over(&mut self.frames, draft.frames);
        take_over(&mut self.named, renumbered(draft.named, number));
        take_over(&mut self.makers, renumbered(draft.makers, number));
        take_over(&mut self.kinds, renumbered(draft.kinds, number));
        for (chunk, count) in draft.chunks {
            *self.chunks.entry(chunk).or_default() += count;
        }
        self.tips.join(draft.tips, common);
        self.item_summary.add_all(&draft.item_summary);
        self.tip_summary.add_all(&draft.tip_summary);
        self.later.extend(draft.later);
    }

    /// A member came.
    pub(crate) fn item_changed(&mut self, sums: Sums, sid: &Sid) {
        self.changed(sums, Change::Item(sid.0));
    }

    fn changed(&mut self, sums: Sums, change: Change) {
        self.since_sums += 1;
        match sums {
            Sums::Keep => self.count(change),
            Sums::Later => self.later.push(change),
            Sums::Given => {}
        }
    }

    fn count(&mut self, change: Change) {
        match change {
            Change::Item(id) => self.item_summary.add(&id),
            Change::Tip(id) => self.tip_summary.add(&id),
            Change::NoTip(id) => self.tip_summary.sub(&id),
        }
    }

    /// The log brings the summaries; `false` when they are not the ones that were counted here.
    pub(crate) fn take_sums(&mut self, sums: Sums, items: SetSummary, tips: SetSummary) -> bool {
        self.since_sums = 0;
        self.later.clear();
        let good = match sums {
            Sums::Keep => items == self.item_summary && tips == self.tip_summary,
            Sums::Later | Sums::Given => items.count == self.len() && tips.count == self.tips.count,
        };
        (self.item_summary, self.tip_summary) = (items, tips);
        good
    }

    /// Counts what waits.
    pub(crate) fn settle_sums(&mut self) {
        std::mem::take(&mut self.later).into_iter().for_each(|change| self.count(change));
    }

    /// Every timeline that has a frame in memory.
    pub(crate) fn timelines_with_frames(&self) -> BTreeSet<u32> {
        self.frames.iter().map(|(timeline, ..)| *timeline).collect()
    }

    /// Forgets the snapshot: something changed.
    pub(crate) fn touch(&mut self) {
        self.snapshot.take();
    }

    /// Whoever asks first makes it, for all who only read: a reader that wanted to write here would stop all others behind a long look.
    pub(crate) fn snapshot(&self, runs: &Runs, packs: &Packs) -> Arc<Snapshot> {
        let snapshot = self.snapshot.get_or_init(|| {
            Arc::new(Snapshot {
                tips: Arc::new(self.tips.now(runs, packs, self.number)),
                tip_summary: self.tip_summary.clone(),
                item_summary: self.item_summary.clone(),
            })
        });
        Arc::clone(snapshot)
    }

    /// Members in memory with this address hash.
    pub(crate) fn by_address(&self, hash: &[u8; 16]) -> impl Iterator<Item = u32> {
        self.addresses.range((*hash, 0)..=(*hash, u32::MAX)).map(|(_, id)| *id)
    }

    /// Member frames in memory with `from ≤ n ≤ to`, in order of (n, sid); `from ≤ to`.
    pub(crate) fn frames(
        &self,
        records: &Records,
        timeline: u32,
        (from, to): (u64, u64),
        limit: usize,
    ) -> Vec<(u64, Sid)> {
        let mut found: Vec<(u64, Sid)> = Vec::new();
        for (_, n, id) in self.frames.range((timeline, from, 0)..=(timeline, to, u32::MAX)) {
            // A whole group of equal n is taken before the cut, so that the cut does not depend on arrival.
            if found.len() >= limit && found.last().is_some_and(|(last, _)| last != n) {
                break;
            }
            found.push((*n, records.get(*id).sid));
        }
        found.sort_unstable();
        found.truncate(limit);
        found
    }

    /// Members in memory behind `after` by (order key, sid).
    pub(crate) fn bulk(&self, records: &Records, after: Option<(u64, Sid)>, limit: usize) -> Vec<(Sid, Stored)> {
        let start = after.map_or((0, 0, 0), |(order, sid)| (order, prefix(&sid), 0));
        let mut found: Vec<(Sid, Stored)> = Vec::new();
        for (order, short, id) in self.members.range(start..) {
            let record = records.get(*id);
            let sid = record.sid;
            if after.is_some_and(|after| (*order, sid) <= after) {
                continue;
            }
            // Sids that share their first bytes are sorted together.
            let is_behind = |(sid, stored): &(Sid, Stored)| (stored.order, prefix(sid)) != (*order, *short);
            if found.len() >= limit && found.last().is_some_and(is_behind) {
                break;
            }
            found.push((sid, record.stored()));
        }
        found.sort_unstable_by_key(|(sid, stored)| (stored.order, *sid));
        found.truncate(limit);
        found
    }

    /// The members in memory, with sums.
    pub(crate) fn sorted(&self, records: &Records) -> &negentropy::Run {
        self.sorted.get_or_init(|| {
            let item = |(order, _, id): &(u64, u64, u32)| (*order, records.get(*id).sid.0);
            negentropy::Run::new(self.members.iter().map(item).collect())
        })
    }
}

/// Rows of a draft as those of the space with this number.
fn renumbered<const N: usize>(rows: BTreeSet<[u8; N]>, number: u32) -> BTreeSet<[u8; N]> {
    let row = |mut row: [u8; N]| {
        row[..4].copy_from_slice(&number.to_be_bytes());
        row
    };
    rows.into_iter().map(row).collect()
}

/// Adds all of another set.
fn take_over<T: Ord>(set: &mut BTreeSet<T>, mut other: BTreeSet<T>) {
    if set.is_empty() { *set = other } else { set.append(&mut other) }
}

/// Whether two lists hold the same ids.
pub(crate) fn same_set(left: &BTreeSet<Sid>, right: &[Sid]) -> bool {
    let right: BTreeSet<Sid> = right.iter().copied().collect();
    *left == right
}

/// Packs of tip moves that stay well under the largest entry; a large change is cut into several moves.
pub(crate) fn pieces(moves: Vec<(Move, TipMove)>, bytes_max: usize) -> Vec<Vec<(Move, TipMove)>> {
    let mut out = vec![Vec::new()];
    let mut size = 0;
    let mut put = |piece: (Move, TipMove), weight: usize| {
        if size + weight > bytes_max && size > 0 {
            out.push(Vec::new());
            size = 0;
        }
        size += weight;
        if let Some(last) = out.last_mut() {
            last.push(piece);
        }
    };
    for (change, plain) in moves {
        let head = 64 + change.tjp.len();
        let weight =
            head + change.removed.len() * 32 + change.added.iter().map(|tip| 48 + tip.address.len()).sum::<usize>();
        if weight <= bytes_max {
            put((change, plain), weight);
            continue;
        }
        let empty = Move { removed: Vec::new(), added: Vec::new(), ..change.clone() };
        let both = |piece: Move| {
            let plain = TipMove::of(&piece);
            (piece, plain)
        };
        for removed in change.removed.chunks(1024) {
            put(both(Move { removed: removed.to_vec(), ..empty.clone() }), head + removed.len() * 32);
        }
        for added in change.added.chunks(64) {
            let weight = head + added.iter().map(|tip| 48 + tip.address.len()).sum::<usize>();
            put(both(Move { added: added.to_vec(), ..empty.clone() }), weight);
        }
    }
    out.retain(|piece| !piece.is_empty());
    out
}
