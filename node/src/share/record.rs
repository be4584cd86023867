//! Recording: what changed in the directory becomes frames of the space.

use bytes::Bytes;
use sealtide_folder::{Found, FoundContent, LocalChange, Scan, SkipReason};
use sealtide_ibgib::{Content, FileFrame, FileKind, Sid, Stamp, TimelineId, Verified, binary_record, uuid};
use sealtide_identity::Role;
use sealtide_sync::{CommitRequest, SpaceView};

use crate::failpoint;
use crate::failure::{Failure, whole};
use crate::share::claims::tips;
use crate::share::{Phase, Worker, is_passing};
use crate::world::{OsEntropy, World};

/// Changes that go into one commit, at most …
const COMMIT_CHANGES: usize = 2048;
/// … and bytes of their records, about.
const COMMIT_BYTES: usize = 16 * 1024 * 1024;

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
            let scan = self.scan(only)?;
            self.note_skipped(only, scan.skipped);
            if !may_record {
                self.note_local_only(only, scan.changes);
                return Ok(());
            }
            self.share.update(|status| status.local_only.clear());
            self.commit_changes(scan.changes)?;
            // A scan holds only so much in memory; what it left out comes with the next.
            if !scan.more {
                return self.folder.flush().map_err(|error| Failure::failed("folder_state", whole(&error)));
            }
        }
    }

    fn scan(&mut self, only: Option<&[String]>) -> Result<Scan, Failure> {
        let store = self.engine.store().clone();
        let share = self.share.clone();
        let mut keep = |chunk: sealtide_ibgib::ChunkRef, bytes: &[u8]| {
            store.put_chunk(chunk.hash, bytes).map_err(std::io::Error::other)
        };
        let mut progress = |seen: sealtide_folder::ScanProgress| {
            share.update(|status| {
                status.items = (seen.files_read, seen.files_to_read);
                status.bytes = (seen.bytes_read, 0);
            });
        };
        let scanned = self.folder.scan(only, &mut keep, &mut progress);
        scanned.map_err(|error| Failure::failed("scan", whole(&error)))
    }

    fn note_skipped(&mut self, only: Option<&[String]>, skipped: Vec<(String, SkipReason)>) {
        self.unlooked.extend(skipped.iter().filter(|(_, reason)| is_passing(reason)).map(|(path, _)| path.clone()));
        self.share.update(|status| {
            match only {
                None => status.skipped.clear(),
                Some(paths) => status.skipped.retain(|path, _| !paths.iter().any(|root| inside(path, root))),
            }
            status.skipped.extend(skipped.into_iter().map(|(path, reason)| (path, reason.to_string())));
        });
    }

    /// In a space where the own role is read, changes stay here and are listed.
    fn note_local_only(&mut self, only: Option<&[String]>, changes: Vec<LocalChange>) {
        self.share.update(|status| {
            match only {
                None => status.local_only.clear(),
                Some(paths) => status.local_only.retain(|path| !paths.iter().any(|root| inside(path, root))),
            }
            status.local_only.extend(changes.into_iter().map(|change| change.path));
        });
    }

    fn commit_changes(&mut self, changes: Vec<LocalChange>) -> Result<(), Failure> {
        let all = changes.len() as u64;
        self.share.update(|status| (status.phase, status.items) = (Phase::Recording, (0, all)));
        let mut batch = Batch::default();
        for (done, change) in changes.into_iter().enumerate() {
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
            let request =
                CommitRequest { saga: None, staged: None, records: batch.records, expected: Vec::new(), strict: false };
            let result = self
                .engine
                .store()
                .commit(&self.space, &request)
                .map_err(|error| Failure::failed("store", format!("a change could not be recorded: {error}")))?;
            failpoint::hit("record_committed");
            let moved: Vec<TimelineId> = result.moved.iter().map(|(timeline, ..)| *timeline).collect();
            self.refresh(&moved);
            self.engine.committed(self.space, None, &result);
        }
        for recorded in batch.recorded {
            self.stale.extend(recorded.from.clone());
            self.stale.insert(recorded.path.clone());
            let settled = match recorded.placed {
                Some((timeline, sid)) => self.folder.settle(&recorded.change, timeline, sid),
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
        if let Some(held) = self.already_held(&frame, base.as_ref(), change.from.is_some()) {
            let placed = (!frame.deleted).then_some(held);
            batch.recorded.push(Recorded { path, from, placed, change });
            return;
        }
        let stamp = Stamp { ms: self.engine.world().now().wall_ms };
        let made = match &base {
            Some((prev, _)) => frame.evolve(prev, stamp),
            None => frame.genesis(stamp, &uuid(&mut OsEntropy)),
        };
        match made {
            Ok(record) => {
                let timeline = record.frame().expect("a file frame is in a timeline").timeline;
                let placed = (!frame.deleted).then(|| (timeline, record.sid()));
                records.push(record);
                batch.bytes += records.iter().map(|record| record.encoded().len()).sum::<usize>();
                batch.records.append(&mut records);
                batch.recorded.push(Recorded { path, from, placed, change });
            }
            Err(error) => {
                let reason = error.to_string();
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
            return Some((record, frame));
        }
        // A path that comes back continues the timeline that last held it.
        let live = self.claims.claimants(&change.path);
        if !live.is_empty() {
            return None;
        }
        let timeline = self.claims.last_holder(&change.path)?;
        tips(&self.view, &timeline).into_iter().next()
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
        let mut frame = FileFrame {
            path,
            kind: FileKind::File,
            exec: false,
            mtime: 0,
            by,
            content: Content::None,
            deleted: false,
            yielded: None,
        };
        match &change.found {
            Found::Gone => {
                let (_, prev) = base?;
                frame.kind = prev.kind;
                frame.mtime = prev.mtime;
                frame.deleted = true;
            }
            Found::Dir { mtime_ms } => {
                frame.kind = FileKind::Dir;
                frame.mtime = *mtime_ms;
            }
            Found::Symlink { target, mtime_ms } => {
                frame.kind = FileKind::Symlink;
                frame.mtime = *mtime_ms;
                frame.content = Content::Target(target.clone());
            }
            Found::File { content, exec, mtime_ms } => {
                frame.exec = *exec;
                frame.mtime = *mtime_ms;
                frame.content = content_of(content, records);
            }
        }
        Some(frame)
    }

    /// The (timeline, tip) that says the same already, so that nothing needs to be recorded.
    fn already_held(
        &self,
        frame: &FileFrame,
        base: Option<&(Verified, FileFrame)>,
        renamed: bool,
    ) -> Option<(TimelineId, Sid)> {
        if let Some((record, prev)) = base {
            let timeline = record.frame()?.timeline;
            // The newest frame of the timeline may say it too: the same edit was made elsewhere.
            let newest = tips(&self.view, &timeline).into_iter().next();
            let candidates = newest.iter().chain(std::iter::once(base?));
            let mut same = candidates.filter(|(_, held)| {
                held.path == frame.path && held.deleted == frame.deleted && (frame.deleted || held.same_content(frame))
            });
            return match same.next() {
                Some((tip, _)) if !renamed || prev.path == frame.path => Some((timeline, tip.sid())),
                _ => None,
            };
        }
        self.claims.claimants(&frame.path).into_iter().find_map(|timeline| {
            let (tip, held) = tips(&self.view, &timeline).into_iter().next()?;
            held.same_content(frame).then(|| (timeline, tip.sid()))
        })
    }
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

fn inside(path: &str, root: &str) -> bool {
    root.is_empty() || path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}
