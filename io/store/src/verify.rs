//! The check of a whole store: everything is read again and compared with what the index says.
//! Spec: SY-78, SY-79, SY-93.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use sealtide_crypto::blake3;
use sealtide_ibgib::{Address, FrameFacts, Verified, settle_tips};
use sealtide_sync::SpaceView;

use crate::disk::Disk;
use crate::entry::Entry;
use crate::error::{Damage, OpenError};
use crate::handle::SpaceHandle;
use crate::index::{Index, Sums};
use crate::open::open_packs;
use crate::pack::{FOLDER, PACK_HEAD_BYTES, Pack, Place, Scan, SideIndex, Step, index_name, io_error};
use crate::store::{Store, record_line};
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
    /// Reads every byte of the store again: checksums, records by strict acceptance, hashes of chunks, side
    /// indexes, and the index against a rebuilt one: members, tips, sums and digests. `progress` is told (bytes
    /// read, bytes in all). Writing goes on meanwhile, only the end of the check holds it up.
    ///
    /// # Errors
    /// [`OpenError::Io`] when the disk cannot be read at all; what is damaged is in the report.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
        let mut check = Check::default();
        let packs: Vec<Arc<Pack>> = read(&self.inner.index).packs.values().cloned().collect();
        let mut all = 0;
        for pack in &packs {
            all += pack.file.len().map_err(|source| io_error(pack, source))?;
        }
        for pack in &packs {
            check.pack(pack, progress, all)?;
        }
        // What was written meanwhile, and nothing more: the index cannot move now.
        let log = guard(&self.inner.log);
        let packs: Vec<Arc<Pack>> = read(&self.inner.index).packs.values().cloned().collect();
        for pack in &packs {
            check.pack(pack, progress, all)?;
            if pack.number != log.active.number {
                check.side_index(&*self.inner.disk, pack)?;
            }
        }
        if check.report.bad.is_empty() {
            check.compare(self, &read(&self.inner.index));
        }
        if check.report.bad.is_empty() {
            self.check_tips(&mut check.report);
        }
        drop(log);
        Ok(check.report)
    }

    /// Reads every byte of the packs of a store that is not open, also of one that cannot be opened.
    ///
    /// # Errors
    /// As [`Store::open`], as far as the files cannot be read at all.
    pub fn verify_files(disk: &dyn Disk, progress: &mut dyn FnMut(u64, u64)) -> Result<VerifyReport, OpenError> {
        let locked = disk.lock().map_err(|source| OpenError::Io { file: disk.place(), source })?;
        let _lock = locked.ok_or_else(|| OpenError::Locked(disk.place()))?;
        let packs = open_packs(disk)?;
        let mut all = 0;
        for pack in &packs {
            all += pack.file.len().map_err(|source| io_error(pack, source))?;
        }
        let mut check = Check::default();
        for pack in &packs {
            check.pack(pack, progress, all)?;
        }
        Ok(check.report)
    }

    /// Settles the tips of every timeline anew from all its frames.
    fn check_tips(&self, report: &mut VerifyReport) {
        let spaces: Vec<_> = read(&self.inner.index).spaces.keys().copied().collect();
        for space in spaces {
            let view = SpaceHandle::new(Arc::clone(&self.inner), space);
            let timelines = {
                let index = read(&self.inner.index);
                let Some(state) = index.spaces.get(&space) else { continue };
                let ids = state.timelines_with_frames();
                ids.into_iter().map(|id| index.timelines.get(id)).collect::<Vec<_>>()
            };
            for timeline in timelines {
                let frames: Vec<(Address, FrameFacts)> = view
                    .frames(&timeline, 0, u64::MAX, usize::MAX)
                    .iter()
                    .filter_map(|sid| view.record(sid))
                    .filter_map(|record| Some((record.address().clone(), record.frame()?)))
                    .collect();
                let facts: std::collections::BTreeMap<_, _> = frames.into_iter().collect();
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
#[derive(Default)]
struct Check {
    report: VerifyReport,
    /// The index that the log gives.
    index: Index,
    /// How far each pack was read.
    read_to: std::collections::BTreeMap<u32, u64>,
}

impl Check {
    fn pack(&mut self, pack: &Arc<Pack>, progress: &mut dyn FnMut(u64, u64), all: u64) -> Result<(), OpenError> {
        let failed = |source| io_error(pack, source);
        let end = pack.file.len().map_err(failed)?;
        let from = self.read_to.insert(pack.number, end).unwrap_or(PACK_HEAD_BYTES);
        self.index.packs.insert(pack.number, Arc::clone(pack));
        let mut scan = Scan::new(pack, from, end);
        let mut told = 0;
        loop {
            match scan.next().map_err(failed)? {
                Step::End => break,
                Step::Bad { offset, what } => {
                    self.report.add(pack.damage(offset, what));
                    scan.resync().map_err(failed)?;
                }
                Step::Entry { offset, kind, body } => {
                    self.report.entries += 1;
                    if let Err(what) = self.entry(pack.number, offset, kind, body) {
                        self.report.add(pack.damage(offset, what));
                    }
                }
            }
            if self.report.entries - told >= 1024 {
                told = self.report.entries;
                progress(self.report.bytes + (scan.at - from), all);
            }
        }
        self.report.bytes += end - from;
        progress(self.report.bytes, all.max(self.report.bytes));
        Ok(())
    }

    fn entry(&mut self, pack: u32, offset: u64, kind: u8, body: &[u8]) -> Result<(), String> {
        let entry = Entry::read(kind, body).ok_or("unknown entry")?;
        match &entry {
            Entry::Record { line, encoded, .. } => {
                let record = Verified::accept(Bytes::copy_from_slice(encoded));
                let record = record.map_err(|refusal| format!("the record is refused: {refusal}"))?;
                if record_line(&record, record.frame().as_ref()) != *line {
                    return Err("the record is not what its entry says".to_owned());
                }
            }
            Entry::Chunk { hash, content, .. } if blake3(content) != hash.0 => {
                return Err(format!("chunk {hash} does not have its hash"));
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

    fn side_index(&mut self, disk: &dyn Disk, pack: &Pack) -> Result<(), OpenError> {
        let len = pack.file.len().map_err(|source| io_error(pack, source))?;
        let damage = |what: &str| Damage { file: index_name(pack.number), offset: 0, what: what.to_owned() };
        let Some(saved) = SideIndex::load(disk, pack, len) else {
            // One that is missing is built at the next open, and nothing is lost.
            if SideIndex::exists(disk, pack.number) {
                self.report
                    .add(damage("the side index does not have its checksum; it is built again at the next open"));
            }
            return Ok(());
        };
        match SideIndex::build(pack, len) {
            Ok(built) if built.entry_bytes() == saved.entry_bytes() => {}
            Ok(_) => self.report.add(damage("the side index is not that of its pack")),
            // Reported with its pack.
            Err(OpenError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The live index against the one that the log gives.
    fn compare(&mut self, store: &Store, live: &Index) {
        let mut wrong = |what: String| self.report.add(Damage { file: FOLDER.to_owned(), offset: 0, what });
        if live.spaces.keys().ne(self.index.spaces.keys()) {
            wrong("the spaces in memory are not those of the log".to_owned());
        }
        if live.records.len() != self.index.records.len() || live.chunks.len() != self.index.chunks.len() {
            wrong("the records or chunks in memory are not those of the log".to_owned());
        }
        for (space, state) in &live.spaces {
            let Some(logged) = self.index.spaces.get(space) else { continue };
            let sids = |index: &Index, state: &crate::space::SpaceState| -> BTreeSet<_> {
                state.member_ids().map(|id| index.records.get(id).sid).collect()
            };
            if sids(live, state) != sids(&self.index, logged) {
                wrong(format!("space {space}: the members in memory are not those of the log"));
            }
            if state.tips().ne(logged.tips()) {
                wrong(format!("space {space}: the tips in memory are not those of the log"));
            }
            let (items, tips) = state.recount(&live.records);
            if items != state.item_summary || tips != state.tip_summary {
                wrong(format!("space {space}: counts, sums or digests are not those of a recount"));
            }
            if state.chunks != logged.chunks {
                wrong(format!("space {space}: the references to chunks are not those of the log"));
            }
        }
        let staged =
            |index: &Index| -> Vec<_> { index.txns.iter().map(|(txn, staged)| (*txn, staged.records.len())).collect() };
        if staged(live) != staged(&self.index) {
            wrong("what is staged in memory is not what is staged in the log".to_owned());
        }
        tracing::debug!(?store, "index compared with the log");
    }
}
