//! Recording: what changed in the directory becomes frames of the space.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use sealtide_folder::{Found, FoundContent, LocalChange, Scan, SkipReason};
use sealtide_ibgib::{
    Content, FileFrame, FileKind, Sid, Stamp, TimelineId, Verified, binary_record, merge_conflicts, uuid,
};
use sealtide_identity::Role;
use sealtide_sync::SpaceView;

use crate::content::ChunkKeeper;
use crate::failpoint;
use crate::failure::{Failure, whole};
use crate::share::claims::{agree, next_frame, tip_records, tips};
use crate::share::{Phase, Worker, is_passing};
use crate::world::{OsEntropy, World};

/// Changes that go into one commit, at most …
const COMMIT_CHANGES: usize = 2048;
/// … and bytes of their records, about.
const COMMIT_BYTES: usize = 16 * 1024 * 1024;

/// Frames of a timeline that are searched for a change recorded before a crash, and for the version that an unknown file is.
const LOOKED_BACK: u64 = 256;

/// A change that stands in a frame now.
struct Recorded {
    path: String,
    from: Option<String>,
    placed: Option<(TimelineId, Sid)>,
    change: LocalChange,
}

/// One commit in the making.
#[derive(Default)]
struct Batch {
    records: Vec<Verified>,
    recorded: Vec<Recorded>,
    /// The frames among the records, by sid.
    frames: BTreeMap<Sid, (Verified, FileFrame)>,
    bytes: usize,
}

impl Worker {
    /// Scans (all, or only these paths) and commits every change.
    pub(super) fn record(&mut self, only: Option<&[String]>) -> Result<(), Failure> {
        self.share.update(|status| {
            status.phase = Phase::Scanning;
            (status.items, status.bytes) = ((0, 0), (0, 0));
        });
        let may_record = self.own_role() >= Some(Role::Write);
        loop {
            self.go_on()?;
            let began = Instant::now();
            let scan = self.scan(only)?;
            self.note_busy(&scan.skipped, began.elapsed());
            self.note_skipped(only, scan.skipped);
            if !may_record {
                self.note_local_only(only, scan.changes);
                return Ok(());
            }
            self.share.update(|status| status.local_only.clear());
            self.commit_changes(scan.changes)?;
            // A scan holds only so much in memory; what it left out comes with the next.
            if !scan.more {
                self.folder.flush().map_err(|error| Failure::failed("folder_state", whole(&error)))?;
                self.notes_lag &= only.is_some();
                return Ok(());
            }
        }
    }

    fn scan(&mut self, only: Option<&[String]>) -> Result<Scan, Failure> {
        let share = self.share.clone();
        let mut keeper = ChunkKeeper::new(self.engine.store());
        let mut progress = |seen: sealtide_folder::ScanProgress| {
            share.update(|status| {
                status.items = (seen.files_read, seen.files_to_read);
                status.bytes = (seen.bytes_read, 0);
            });
        };
        let scanned = self.folder.scan(only, &mut |chunk| keeper.keep(chunk), &mut progress);
        // A store that failed says why; the scan only saw that nobody took its chunks.
        keeper.finish().map_err(|error| Failure::failed("scan", whole(&error)))?;
        scanned.map_err(|error| Failure::failed("scan", whole(&error)))
    }

    fn note_skipped(&mut self, only: Option<&[String]>, skipped: Vec<(String, SkipReason)>) {
        self.unlooked.extend(skipped.iter().filter(|(_, reason)| is_passing(reason)).map(|(path, _)| path.clone()));
        self.share.update(|status| {
            match only {
                None => status.skipped.clear(),
                Some(paths) => {
                    let roots = paths.iter().map(String::as_str).collect();
                    status.skipped.retain(|path, _| !is_covered(path, &roots));
                }
            }
            status.skipped.extend(skipped.into_iter().map(|(path, reason)| (path, reason.to_string())));
        });
    }

    /// In a space where the own role is read, changes stay here and are listed.
    fn note_local_only(&mut self, only: Option<&[String]>, changes: Vec<LocalChange>) {
        self.share.update(|status| {
            match only {
                None => status.local_only.clear(),
                Some(paths) => {
                    let roots = paths.iter().map(String::as_str).collect();
                    status.local_only.retain(|path| !is_covered(path, &roots));
                }
            }
            for change in changes {
                status.local_only.extend(change.from);
                status.local_only.insert(change.path);
            }
        });
    }

    fn commit_changes(&mut self, changes: Vec<LocalChange>) -> Result<(), Failure> {
        let all = changes.len() as u64;
        self.share.update(|status| (status.phase, status.items) = (Phase::Recording, (0, all)));
        let mut batch = Batch::default();
        for (done, change) in changes.into_iter().enumerate() {
            self.go_on()?;
            self.frame_change(change, &mut batch);
            if batch.recorded.len() >= COMMIT_CHANGES || batch.bytes >= COMMIT_BYTES {
                self.commit_batch(std::mem::take(&mut batch))?;
                self.share.update(|status| status.items = (done as u64 + 1, all));
            }
        }
        self.commit_batch(batch)
    }

    fn commit_batch(&mut self, batch: Batch) -> Result<(), Failure> {
        if !batch.records.is_empty() {
            failpoint::hit("record_commit");
            let result = self
                .engine
                .commit_in_thread(self.space, batch.records)
                .map_err(|error| Failure::failed("store", format!("a change could not be recorded: {error}")))?;
            failpoint::hit("record_committed");
            for (timeline, _, tips) in &result.moved {
                let made = match tips[..] {
                    [only] => batch.frames.get(&only),
                    _ => None,
                };
                match made {
                    Some(made) => {
                        let touched = self.claims().look(&self.view, *timeline, std::slice::from_ref(made));
                        self.stale.extend(touched);
                    }
                    None => self.refresh(&[*timeline]),
                }
            }
            self.engine.committed(self.space, None, &result);
        }
        for recorded in batch.recorded {
            self.stale.extend(recorded.from.clone());
            self.stale.insert(recorded.path.clone());
            let settled = match recorded.placed {
                Some((timeline, sid)) => {
                    let wall_ms = self.engine.world().now().wall_ms;
                    self.again.note(&recorded.change, Instant::now(), wall_ms);
                    self.folder.settle(&recorded.change, timeline, sid)
                }
                None => self.folder.forget(&recorded.path),
            };
            settled.map_err(|error| Failure::failed("folder_state", whole(&error)))?;
        }
        Ok(())
    }

    /// Turns one change into frames, or finds that the space holds it already.
    fn frame_change(&mut self, change: LocalChange, batch: &mut Batch) {
        let base = self.base(&change);
        let mut records = Vec::new();
        let Some(frame) = self.frame_of(&change, base.as_ref(), &mut records) else {
            batch.recorded.push(Recorded {
                path: change.path.clone(),
                from: change.from.clone(),
                placed: None,
                change,
            });
            return;
        };
        let (path, from) = (change.path.clone(), change.from.clone());
        let held = self.already_held(&frame, base.as_ref());
        if let Some(held) = held.or_else(|| self.brought_again(&change, &frame, base.as_ref())) {
            let placed = (!frame.deleted).then_some(held);
            batch.recorded.push(Recorded { path, from, placed, change });
            return;
        }
        let stamp = Stamp { ms: self.engine.world().now().wall_ms };
        let made = match &base {
            Some(base) => next_frame(&self.behind(base), &frame, stamp),
            None => frame.genesis(stamp, &uuid(&mut OsEntropy)).map_err(|error| error.to_string()),
        };
        match made {
            Ok(record) => {
                let timeline = record.frame().expect("a file frame is in a timeline").timeline;
                let placed = (!frame.deleted).then(|| (timeline, record.sid()));
                batch.frames.insert(record.sid(), (record.clone(), frame));
                records.push(record);
                batch.bytes += records.iter().map(|record| record.encoded().len()).sum::<usize>();
                batch.records.append(&mut records);
                batch.recorded.push(Recorded { path, from, placed, change });
            }
            Err(reason) => {
                self.share.update(|status| {
                    status.skipped.insert(path, reason);
                });
            }
        }
    }

    /// The frame that the change is made on: what stood at the path, or what the path continues.
    fn base(&self, change: &LocalChange) -> Option<(Verified, FileFrame)> {
        if let Some((_, sid)) = change.known {
            let record = self.view.record(&sid)?;
            let frame = FileFrame::read(&record).ok()?;
            let wanted = if change.from.is_some() { &change.path } else { &frame.path }.clone();
            let (record, frame) = self.caught_up((record, frame));
            if !self.notes_lag || !frame.deleted && (frame.path == wanted || change.from.is_some()) {
                return Some((record, frame));
            }
            // It had gone from this path when the notes ended: what is here now came later.
        }
        // A path that comes back continues the timeline that last held it.
        let claims = self.claims();
        if !claims.claimants(&change.path).is_empty() {
            return None;
        }
        let timeline = claims.last_holder(&change.path)?;
        drop(claims);
        tips(&self.view, &timeline).into_iter().next()
    }

    /// The newest frame that this node made of what stood in the directory, going on from the one that the notes name.
    /// A crash may lose the last notes, and the directory may change again before it is looked at: that change was made
    /// on what the lost notes said, not against it.
    fn caught_up(&self, noted: (Verified, FileFrame)) -> (Verified, FileFrame) {
        let mut newest = noted;
        while self.notes_lag
            && let Some(next) = self.own_next(&newest.0)
        {
            newest = next;
        }
        newest
    }

    /// The frame that this node made right behind `record`.
    fn own_next(&self, record: &Verified) -> Option<(Verified, FileFrame)> {
        let (facts, own) = (record.frame()?, self.engine.id().to_string());
        let sids = self.view.frames(&facts.timeline, facts.n + 1, facts.n + 1, usize::MAX);
        sids.iter().filter_map(|sid| self.view.record(sid)).find_map(|next| {
            let follows = next.frame().is_some_and(|next| next.past.last() == Some(record.address()));
            let frame = FileFrame::read(&next).ok().filter(|frame| follows && frame.by == own)?;
            (frame.yielded.is_none() && merge_conflicts(&next).is_none()).then_some((next, frame))
        })
    }

    /// The frame for what was found; `None` when a path that the space does not know is gone.
    fn frame_of(
        &self,
        change: &LocalChange,
        base: Option<&(Verified, FileFrame)>,
        records: &mut Vec<Verified>,
    ) -> Option<FileFrame> {
        // A file that stands under an alias keeps the path it wants, until it is renamed.
        let path = match base {
            Some((_, prev)) if change.from.is_none() && change.known.is_some() => prev.path.clone(),
            _ => change.path.clone(),
        };
        let by = self.engine.id().to_string();
        match &change.found {
            Found::Gone => base.map(|(_, prev)| FileFrame { path, ..prev.deletion(prev.mtime, &by) }),
            found => frame_of_found(path, by, found, records),
        }
    }

    /// The frames that the next one has behind it: what it is made on, and every tip of the timeline that says the
    /// same. Who changes a content has seen it, whichever of the equal tips it came from.
    fn behind(&self, (record, frame): &(Verified, FileFrame)) -> Vec<Verified> {
        let Some(timeline) = record.frame().map(|facts| facts.timeline) else { return vec![record.clone()] };
        let tips = tips(&self.view, &timeline);
        let is_tip = tips.iter().any(|(tip, _)| tip.sid() == record.sid());
        let mut behind: Vec<Verified> =
            tips.into_iter().filter(|(_, tip)| agree(frame, tip)).map(|(tip, _)| tip).collect();
        // What is no tip any more is behind some tip already; it is named only where nothing newer says the same.
        if !is_tip && behind.iter().all(|tip| n_of(tip) < n_of(record)) {
            behind.push(record.clone());
        }
        behind
    }

    /// The (timeline, frame) that says the same already, so that nothing needs to be recorded.
    fn already_held(&self, frame: &FileFrame, base: Option<&(Verified, FileFrame)>) -> Option<(TimelineId, Sid)> {
        let says_it = |held: &FileFrame| agree(held, frame) && held.path == frame.path;
        if let Some((record, standing)) = base {
            let facts = record.frame()?;
            // The newest frame of the timeline may say it too: the same edit was made elsewhere.
            let newest = tips(&self.view, &facts.timeline).into_iter().next();
            if let Some((tip, _)) = newest.filter(|(_, held)| says_it(held)) {
                return Some((facts.timeline, tip.sid()));
            }
            if says_it(standing) {
                return Some((facts.timeline, record.sid()));
            }
            return self.recorded_before(&facts.timeline, facts.n + 1, frame);
        }
        let live = self.claims().claimants(&frame.path);
        let newest = live.iter().find_map(|timeline| {
            let (tip, held) = tips(&self.view, timeline).into_iter().next()?;
            held.same_content(frame).then(|| (*timeline, tip.sid()))
        });
        newest.or_else(|| live.iter().find_map(|timeline| self.version_of(timeline, frame)))
    }

    /// The older version that a copy of the directory brings to a known path. The copy was taken for the directory before it was whole, or
    /// it is made once more: what it would have been there before is no edit of what was checked out meanwhile.
    fn brought_again(
        &self,
        change: &LocalChange,
        frame: &FileFrame,
        base: Option<&(Verified, FileFrame)>,
    ) -> Option<(TimelineId, Sid)> {
        let (brought_ms, (record, standing)) = (self.folder.brought_ms()?, base?);
        if change.known.is_none() || change.from.is_some() || frame.deleted {
            return None;
        }
        // What was recorded while the file came must not stand for the whole of it; nor is the own edit of somebody known from it.
        let is_new = i64::try_from(brought_ms).is_ok_and(|brought_ms| standing.mtime >= brought_ms);
        if is_new && standing.by == frame.by {
            return None;
        }
        let known = self.folder.known(&change.path)?;
        // A copy writes contents: the mode alone is changed by somebody who is here …
        let is_content = known.content != change.content || known.stat.kind != change.stat.kind;
        // … and what was here when the directory was taken, another name for it then, was renamed since.
        let brought_ns = i64::try_from(brought_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let was_here = change.stat.inode != known.stat.inode && (1..brought_ns).contains(&change.stat.born_ns);
        if !is_content || was_here {
            return None;
        }
        let held = self.version_of(&record.frame()?.timeline, frame)?;
        tracing::info!(path = change.path, "an older version came with the directory: the newest stands");
        Some(held)
    }

    /// The version of a timeline that a file is, if nothing was known of it: the same content from the same moment, as a copy of the
    /// directory or an old disk holds it. It is no edit, whoever made it.
    fn version_of(&self, timeline: &TimelineId, frame: &FileFrame) -> Option<(TimelineId, Sid)> {
        let newest = tip_records(&self.view, timeline).iter().map(n_of).max()?;
        let sids = self.view.frames(timeline, newest.saturating_sub(LOOKED_BACK), newest, usize::MAX);
        let is_this = |sid: &Sid| {
            let held = self.view.record(sid).and_then(|record| FileFrame::read(&record).ok());
            held.is_some_and(|held| held.path == frame.path && is_from(held.mtime, frame.mtime) && agree(&held, frame))
        };
        sids.into_iter().rev().find(is_this).map(|sid| (*timeline, sid))
    }

    /// The frame that this node made of this very change before. A crash may lose the last notes about the
    /// directory: the change is then seen again, and others may have gone on from its frame meanwhile.
    fn recorded_before(&self, timeline: &TimelineId, from: u64, frame: &FileFrame) -> Option<(TimelineId, Sid)> {
        let sids = self.view.frames(timeline, from, from.saturating_add(LOOKED_BACK), usize::MAX);
        let is_this = |sid: &Sid| {
            let held = self.view.record(sid).and_then(|record| FileFrame::read(&record).ok());
            held.is_some_and(|held| {
                (held.by == frame.by, held.path == frame.path, held.mtime == frame.mtime) == (true, true, true)
                    && agree(&held, frame)
            })
        };
        sids.into_iter().find(is_this).map(|sid| (*timeline, sid))
    }
}

/// Whether a file that was last changed at `mtime` is from the moment `held`, both in ms. Some archives and file systems keep every second
/// only, or every other one.
fn is_from(held: i64, mtime: i64) -> bool {
    held == mtime || mtime % 1000 == 0 && held.abs_diff(mtime) < 2000
}

fn n_of(frame: &Verified) -> u64 {
    frame.frame().map_or(0, |facts| facts.n)
}

/// The frame of what stands at a path; none of nothing. The records of its content come to `records`.
pub(crate) fn frame_of_found(
    path: String,
    by: String,
    found: &Found,
    records: &mut Vec<Verified>,
) -> Option<FileFrame> {
    let (kind, exec, mtime, content) = match found {
        Found::Gone => return None,
        Found::Dir { mtime_ms } => (FileKind::Dir, false, *mtime_ms, Content::None),
        Found::Symlink { target, mtime_ms } => (FileKind::Symlink, false, *mtime_ms, Content::Target(target.clone())),
        Found::File { content, exec, mtime_ms } => (FileKind::File, *exec, *mtime_ms, content_of(content, records)),
    };
    Some(FileFrame { path, kind, exec, mtime, by, content, deleted: false, yielded: None })
}

fn content_of(found: &FoundContent, records: &mut Vec<Verified>) -> Content {
    match found {
        FoundContent::Text(text) => Content::Text(text.clone()),
        FoundContent::Small(bytes) => {
            let record = binary_record(Bytes::clone(bytes));
            let address = record.address().clone();
            records.push(record);
            Content::Bin(address)
        }
        FoundContent::Large(manifest) => {
            let made = manifest.records();
            let address = made.last().expect("a manifest has a record").address().clone();
            records.extend(made);
            Content::Bin(address)
        }
    }
}

/// Whether a path is one of these or below one; the empty one is above all.
fn is_covered(path: &str, roots: &BTreeSet<&str>) -> bool {
    let above = std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(dir, _)| dir));
    above.chain([""]).any(|path| roots.contains(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_same_where_only_seconds_are_kept() {
        for (held, mtime, is_it) in
            [(5_500, 5_500, true), (5_500, 5_501, false), (5_500, 5_000, true), (5_500, 4_000, true)]
                .into_iter()
                .chain([(5_500, 3_000, false), (5_500, 6_000, true), (5_000, 5_500, false)])
        {
            assert_eq!(is_from(held, mtime), is_it, "{held} {mtime}");
        }
    }

    #[test]
    fn a_path_is_covered_by_itself_and_what_is_above() {
        let roots = BTreeSet::from(["a/b", "c"]);
        let covered = ["a/b", "a/b/c", "c", "c/d/e"].map(|path| is_covered(path, &roots));
        let free = ["a", "a/bb", "ab", "cc", "x/c"].map(|path| is_covered(path, &roots));
        assert_eq!((covered, free), ([true; 4], [false; 5]));
        assert!(is_covered("x", &BTreeSet::from([""])));
    }
}
