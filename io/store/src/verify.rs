//! The check of a whole store: everything is read again and compared with what the index says.
//! Spec: SY-78, SY-79, SY-93.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use sealtide_crypto::blake3;
use sealtide_ibgib::{Address, FrameFacts, TimelineId, Verified, settle_tips};
use sealtide_identity::SpaceId;
use sealtide_sync::negentropy::Ranges;
use sealtide_sync::{RangeBound, SetSummary, SpaceView};

use crate::cache::Cache;
use crate::disk::Disk;
use crate::draft::Draft;
use crate::entry::{Entry, KIND_SEAL, UNKNOWN_ENTRY};
use crate::error::{Damage, OpenError, Unhealthy};
use crate::handle::SpaceHandle;
use crate::index::{Index, Sums, Txn};
use crate::log::Log;
use crate::open::open_packs;
use crate::pack::{FOLDER, Freed, PACK_HEAD_BYTES, Pack, Place, Scan, Step, io_error};
use crate::runs::{CHECK_FOLDER, RUNS_FOLDER, Runs};
use crate::seal::{Rows, write_run};
use crate::store::{Store, record_line};
use crate::table::{Table, frame_key, member_key, read_frame_row, read_member_key};
use crate::tips::Tips;
use crate::{guard, read};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Entries of all packs that were read.
    pub entries: u64,
    /// Bytes of all packs that were read.
    pub bytes: u64,
    /// Everything that is wrong.
    pub bad: Vec<Damage>,
}

/// Damages after which a check stops listing more.
const BAD_MAX: usize = 1000;

impl VerifyReport {
    fn add(&mut self, damage: Damage) {
        if self.bad.len() < BAD_MAX {
            self.bad.push(damage);
        }
    }
}

impl Store {
    /// Whether all that was read and written since the store was opened could be. Reads that come upon damage leave out what they
    /// cannot read, and say so here. Waits for a write that is at work. It looks at nothing by itself: [`Store::verify`] does.
    ///
    /// # Errors
    /// The first trouble.
    pub fn health(&self) -> Result<(), Unhealthy> {
        let has_failed = guard(&self.inner.log).failed || self.inner.durable.failed();
        let index = read(&self.inner.index);
        if index.runs.health.is_damaged() {
            return Err(Unhealthy::Index);
        }
        if has_failed {
            return Err(Unhealthy::Write);
        }
        let left_out = index.packs.values().find(|pack| pack.left_out.load(Ordering::Relaxed));
        left_out.map_or(Ok(()), |pack| Err(Unhealthy::Pack(pack.number)))
    }

    /// Reads every byte of the store again: checksums, records by strict acceptance, hashes of chunks, runs, and the
    /// index against a rebuilt one: members, tips, sums and digests. `progress` is told (bytes read, bytes in all).
    /// Writing goes on meanwhile, only the end of the check holds it up. The rebuilt index needs as much room on the
    /// disk as the runs, for as long as the check takes.
    ///
    /// # Errors
    /// [`OpenError::Io`] when the disk cannot be read at all; what is damaged is in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
        self.verify_while(&mut |done, all| {
            progress(done, all);
            true
        })
    }

    /// As [`Store::verify`], as long as `progress` says to go on.
    ///
    /// # Errors
    /// As [`Store::verify`]; [`OpenError::Io`] of the kind `Interrupted` when it was not to go on.
    pub fn verify_while(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<VerifyReport, OpenError> {
        let _checking = guard(&self.inner.checking);
        let cache = Arc::clone(&read(&self.inner.index).runs.cache);
        let packs = self.packs_with_ends(&guard(&self.inner.log))?;
        let mut check = Check::new(&self.inner.disk, cache, packs.iter().map(|(pack, _)| Arc::clone(pack)).collect());
        let all = packs.iter().map(|(_, end)| end).sum();
        for (pack, end) in &packs {
            check.pack(pack, *end, progress, all)?;
        }
        // What was written meanwhile, and nothing more: the index cannot move now.
        let log = guard(&self.inner.log);
        for (pack, end) in self.packs_with_ends(&log)? {
            check.pack(&pack, end, progress, all)?;
        }
        check.report.bad.extend(read(&self.inner.index).runs.check());
        if check.report.bad.is_empty() {
            check.compare(&read(&self.inner.index));
        }
        if check.report.bad.is_empty() {
            self.check_tips(&mut check.report);
        }
        drop(log);
        Ok(std::mem::take(&mut check.report))
    }

    /// The packs, and how far each goes: the file of the open one may be longer while somebody writes.
    fn packs_with_ends(&self, log: &Log) -> Result<Vec<(Arc<Pack>, u64)>, OpenError> {
        let end = |pack: &Arc<Pack>| if pack.number == log.active.number { Ok(log.len) } else { pack.file.len() };
        let with_end = |pack: &Arc<Pack>| Ok((Arc::clone(pack), end(pack).map_err(|source| io_error(pack, source))?));
        read(&self.inner.index).packs.values().map(with_end).collect()
    }

    /// Reads every byte of the packs of a store that is not open, also of one that cannot be opened.
    ///
    /// # Errors
    /// As [`Store::open`], as far as the files cannot be read at all.
    pub fn verify_files(disk: &Arc<dyn Disk>, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
        let locked = disk.lock().map_err(|source| OpenError::Io { file: disk.place(), source })?;
        let _lock = locked.ok_or_else(|| OpenError::Locked(disk.place()))?;
        let packs = open_packs(&**disk)?;
        let end = |pack: &Arc<Pack>| pack.file.len().map_err(|source| io_error(pack, source));
        let ends: Vec<u64> = packs.iter().map(end).collect::<Result<_, _>>()?;
        let all = ends.iter().sum();
        let mut check = Check::new(disk, Arc::default(), packs.clone());
        let mut told = |done, all| {
            progress(done, all);
            true
        };
        for (pack, end) in packs.iter().zip(ends) {
            check.pack(pack, end, &mut told, all)?;
        }
        // Runs that are not whole are built again by the next open; one that looks whole must be.
        let mut runs = Runs::new(disk, RUNS_FOLDER);
        let failed = |source| OpenError::Io { file: RUNS_FOLDER.to_owned(), source };
        runs.find(&**disk, &check.index.packs).map_err(failed)?;
        check.report.bad.extend(runs.check());
        Ok(std::mem::take(&mut check.report))
    }

    /// The first timeline with frames in the space behind `last`.
    fn next_timeline(
        &self,
        space: &SpaceId,
        fresh: &BTreeSet<TimelineId>,
        last: Option<TimelineId>,
    ) -> Option<TimelineId> {
        let index = read(&self.inner.index);
        let state = index.spaces.get(space)?;
        let fresh = fresh.range((last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)).next().copied();
        // Nothing has the greatest n: the first row behind it is of another timeline.
        let from = last
            .map_or(frame_key(state.number, &TimelineId([0; 32]), 0), |last| frame_key(state.number, &last, u64::MAX));
        let mut scan = index.runs.scan(Table::Frames, &from).ok()?;
        let older = scan.next_of(&state.number.to_be_bytes()).ok()?.map(|row| read_frame_row(row).0);
        fresh.into_iter().chain(older).min()
    }

    /// Settles the tips of every timeline anew from all its frames.
    fn check_tips(&self, report: &mut VerifyReport) {
        let spaces: Vec<_> = read(&self.inner.index).spaces.keys().copied().collect();
        for space in spaces {
            let view = SpaceHandle::new(Arc::clone(&self.inner), space);
            let fresh: BTreeSet<TimelineId> = {
                let index = read(&self.inner.index);
                let ids = index.spaces.get(&space).map(|state| state.timelines_with_frames()).unwrap_or_default();
                ids.into_iter().map(|id| index.timelines.get(id)).collect()
            };
            let mut last = None;
            while let Some(timeline) = self.next_timeline(&space, &fresh, last) {
                last = Some(timeline);
                let frames: Vec<(Address, FrameFacts)> = view
                    .frames(&timeline, 0, u64::MAX, usize::MAX)
                    .iter()
                    .filter_map(|sid| view.record(sid))
                    .filter_map(|record| Some((record.address().clone(), record.frame()?)))
                    .collect();
                let facts: BTreeMap<_, _> = frames.into_iter().collect();
                let all: Vec<Address> = facts.keys().cloned().collect();
                let settled = settle_tips(&[], &all, &mut |address| facts.get(address).cloned());
                let tips: Vec<Address> = view.tips(&timeline).into_iter().map(|tip| tip.tip).collect();
                if settled.iter().collect::<BTreeSet<_>>() != tips.iter().collect::<BTreeSet<_>>() {
                    let what = format!("space {space}: the tips of timeline {timeline} are not what its frames give");
                    report.add(Damage { file: FOLDER.to_owned(), offset: 0, what });
                }
            }
        }
    }
}

/// A check on its way through the packs.
struct Check {
    disk: Arc<dyn Disk>,
    report: VerifyReport,
    /// The index that the log gives.
    index: Index,
    /// All packs, and the chunks in them that were freed.
    all: Vec<Arc<Pack>>,
    freed: Freed,
    /// How far each pack was read.
    read_to: BTreeMap<u32, u64>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Check {
    fn new(disk: &Arc<dyn Disk>, cache: Arc<Cache>, packs: Vec<Arc<Pack>>) -> Self {
        let index = Index::new(Runs { cache, ..Runs::new(disk, CHECK_FOLDER) });
        let check = Self {
            disk: Arc::clone(disk),
            report: VerifyReport::default(),
            index,
            all: packs,
            freed: Freed::default(),
            read_to: BTreeMap::new(),
        };
        check.clear();
        check
    }

    /// Removes the runs of a check.
    fn clear(&self) {
        for name in self.disk.list(CHECK_FOLDER).unwrap_or_default() {
            let _ = self.disk.remove(&format!("{CHECK_FOLDER}/{name}"));
        }
    }

    /// Reads a pack up to `end`, behind what was read of it before.
    fn pack(
        &mut self,
        pack: &Arc<Pack>,
        end: u64,
        progress: &mut dyn FnMut(u64, u64) -> bool,
        all: u64,
    ) -> Result<(), OpenError> {
        let failed = |source| io_error(pack, source);
        let from = self.read_to.insert(pack.number, end).unwrap_or(PACK_HEAD_BYTES);
        self.index.packs.insert(pack.number, Arc::clone(pack));
        let mut scan = Scan::new(pack, from, end);
        let (mut told, mut sealed) = (0, false);
        loop {
            match scan.next().map_err(failed)? {
                Step::End => break,
                // Only sealed packs have holes.
                Step::Bad { offset, what } => match self.freed.at(&mut scan, self.all.iter()).map_err(failed)? {
                    Some((place, entry)) => {
                        self.report.entries += 1;
                        if let Err(what) = self.index.apply(place, entry, Sums::Keep) {
                            self.report.add(pack.damage(offset, what));
                        }
                    }
                    None => {
                        self.report.add(pack.damage(offset, what));
                        scan.resync().map_err(failed)?;
                    }
                },
                Step::Entry { offset, kind, body } => {
                    self.report.entries += 1;
                    sealed = kind == KIND_SEAL;
                    if let Err(what) = self.entry(pack.number, offset, kind, body) {
                        self.report.add(pack.damage(offset, what));
                    }
                }
            }
            if self.report.entries - told >= 1024 {
                told = self.report.entries;
                if !progress(self.report.bytes + (scan.at - from), all) {
                    return Err(failed(io::ErrorKind::Interrupted.into()));
                }
            }
        }
        if sealed && self.report.bad.is_empty() {
            let file = CHECK_FOLDER.to_owned();
            let run = write_run(&self.index, pack.number).map_err(|source| OpenError::Io { file, source })?;
            self.index.adopt_run(run);
        }
        self.report.bytes += end - from;
        if !progress(self.report.bytes, all.max(self.report.bytes)) {
            return Err(failed(io::ErrorKind::Interrupted.into()));
        }
        Ok(())
    }

    fn entry(&mut self, pack: u32, offset: u64, kind: u8, body: &[u8]) -> Result<(), String> {
        let entry = Entry::read(kind, body).ok_or(UNKNOWN_ENTRY)?;
        match &entry {
            Entry::Record { line, encoded, .. } => {
                let record = Verified::accept(Bytes::copy_from_slice(encoded));
                let record = record.map_err(|refusal| format!("the record is refused: {refusal}"))?;
                if record_line(&record, record.frame().as_ref()) != *line {
                    return Err("the record is not what its entry says".to_owned());
                }
            }
            Entry::Chunk { hash, stored, content_len } => {
                let content = stored.clone().content(*content_len as usize);
                if content.is_none_or(|content| blake3(&content) != hash.0) {
                    return Err(format!("chunk {hash} does not have its hash"));
                }
            }
            _ => {}
        }
        let place = Place { pack, offset: offset as u32, body_len: body.len() as u32 };
        let committed = if let Entry::Commit(commit) = &entry { Some(commit.space) } else { None };
        let applied = self.index.apply(place, entry, Sums::Keep);
        if !self.report.bad.is_empty() {
            // After a damage the entries behind it cannot fit: only the damage itself is worth a line.
            return Ok(());
        }
        applied?;
        match committed {
            Some(space) if !self.index.digests_fit(&space) => Err(format!("the digests of space {space} do not fit")),
            _ => Ok(()),
        }
    }

    /// The live index against the one that the log gives.
    fn compare(&mut self, live: &Index) {
        let logged = &self.index;
        let mut bad = Vec::new();
        let mut wrong = |what: String| bad.push(Damage { file: FOLDER.to_owned(), offset: 0, what });
        if live.spaces.keys().ne(logged.spaces.keys()) {
            wrong("the spaces are not those of the log".to_owned());
        }
        // Rows of spaces that were removed, and of what was given up, stay until a merge comes over them.
        let drafts = live.drafts().map(|draft| draft.state.number);
        let numbers: BTreeSet<u32> = live.spaces.values().map(|state| state.number).chain(drafts).collect();
        for table in Table::ALL {
            let next = |rows: &mut Rows| loop {
                match rows.next() {
                    Ok(Some(row)) if table.space_of(&row).is_some_and(|space| !numbers.contains(&space)) => {}
                    Ok(Some(row)) if table.is_given_up(&row) => {}
                    row => break row,
                }
            };
            let (mut left, mut right) = (live.rows(table), logged.rows(table));
            loop {
                match (next(&mut left), next(&mut right)) {
                    (Ok(None), Ok(None)) => break,
                    (Ok(left), Ok(right)) if left == right => {}
                    _ => {
                        wrong(format!("the rows of the table {table:?} are not those of the log"));
                        break;
                    }
                }
            }
        }
        let mut counted = recount(live, Table::Members);
        let mut counted_tips = recount(live, Table::Tips);
        for (space, state) in &live.spaces {
            let Some(logged) = logged.spaces.get(space) else { continue };
            let counts = |tips: &Tips| (tips.count, tips.timelines, Arc::clone(&tips.diverged));
            if counts(&state.tips) != counts(&logged.tips) {
                wrong(format!("space {space}: the tips in memory are not those of the log"));
            }
            if state.bytes != logged.bytes {
                wrong(format!("space {space}: its bytes are not those of the log"));
            }
            let items = counted.remove(&state.number).unwrap_or_default();
            let tips = counted_tips.remove(&state.number).unwrap_or_default();
            if items != state.item_summary || items.count != state.len() || tips != state.tip_summary {
                wrong(format!("space {space}: counts, sums or digests are not those of a recount"));
            }
            let (start, end) = (RangeBound::START, RangeBound::END);
            let key = |bound: &RangeBound| member_key(state.number, bound.order, &bound.id);
            let ranged = live.runs.sum(Table::Members, &key(&start), &key(&end)).map(|(count, mut sum)| {
                let (fresh, of_fresh) = state.sorted(&live.records).sum(&start, &end);
                sum.merge(&of_fresh);
                (count + fresh, sum)
            });
            let ranged_tips = state.tips.now(&live.runs, &live.packs, state.number).sum(&start, &end);
            if ranged != Ok((items.count, items.sum)) || ranged_tips != (tips.count, tips.sum) {
                wrong(format!("space {space}: the sums of the runs are not those of a recount"));
            }
        }
        for draft in live.drafts() {
            let Draft { space, state, .. } = draft;
            let items = counted.remove(&state.number).unwrap_or_default();
            let tips = counted_tips.remove(&state.number).unwrap_or_default();
            if items != state.item_summary || items.count != state.len() || tips != state.tip_summary {
                wrong(format!("space {space}: counts, sums or digests of a draft are not those of a recount"));
            }
        }
        let staged = |index: &Index| -> Vec<_> {
            let draft = |staged: &Txn| {
                let draft = staged.draft.as_deref()?;
                let Tips { count, timelines, diverged, .. } = &draft.state.tips;
                let unsettled = draft.unsettled.clone();
                Some((
                    draft.space,
                    draft.state.number,
                    draft.overlaps,
                    unsettled,
                    *count,
                    *timelines,
                    Arc::clone(diverged),
                ))
            };
            index.txns.iter().map(|(txn, staged)| (*txn, staged.records.len(), draft(staged))).collect()
        };
        if staged(live) != staged(logged) {
            wrong("what is staged in memory is not what is staged in the log".to_owned());
        }
        self.report.bad.extend(bad);
    }
}

/// Counts the members or tips of all spaces anew, by number of the space.
fn recount(index: &Index, table: Table) -> BTreeMap<u32, SetSummary> {
    let mut counted: BTreeMap<u32, SetSummary> = BTreeMap::new();
    let mut rows = index.rows(table);
    while let Ok(Some(row)) = rows.next() {
        if let Some(space) = table.space_of(&row) {
            counted.entry(space).or_default().add(&read_member_key(&row).1);
        }
    }
    counted
}
