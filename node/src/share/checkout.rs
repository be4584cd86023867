//! Checking out: tips that moved become files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use sealtide_folder::{Binary, CheckOut, ContentSource, Placed, is_mass_change};
use sealtide_ibgib::{
    Address, ChunkHash, Content, FileFrame, Manifest, Sid, Stamp, Verified, read_binary, yield_frame,
};
use sealtide_identity::Role;
use sealtide_store::{SpaceHandle, Store};
use sealtide_sync::{CommitRequest, SpaceView};

use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::share::claims::Wanted;
use crate::share::{Conflict, Held, Phase, Worker, is_passing};
use crate::world::World;

/// Paths that one check-out writes before the cache learns of them.
const BATCH: usize = 2048;

/// The contents of a space, for the folder.
struct SpaceContents {
    store: Store,
    view: SpaceHandle,
}

impl SpaceContents {
    fn record(&self, address: &Address) -> Option<Verified> {
        self.view.by_address(address).iter().find_map(|sid| self.view.record(sid))
    }
}

impl ContentSource for SpaceContents {
    fn binary(&self, address: &Address) -> io::Result<Binary> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{address} is not in the space"));
        let record = self.record(address).ok_or_else(missing)?;
        if let Some(bytes) = read_binary(&record) {
            return Ok(Binary::Bytes(bytes));
        }
        let manifest = Manifest::read(&record, &mut |page| self.record(page)).map_err(io::Error::other)?;
        Ok(Binary::Chunks(manifest))
    }

    fn chunk(&self, hash: &ChunkHash) -> io::Result<Bytes> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("chunk {hash} is not in the store"));
        self.store.read_chunk(hash).ok_or_else(missing)
    }
}

impl Worker {
    /// Brings the stale paths of the directory in step with the space. Returns paths with local changes in the way.
    pub(super) fn check_out(&mut self, accepted: bool) -> Result<Vec<String>, Failure> {
        let stale = std::mem::take(&mut self.stale);
        let placed = self.claims.place(&self.view, &stale);
        self.end_yielded(&placed.yields);
        self.list_conflicts();
        let plan = self.plan(placed.paths)?;
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        if !accepted && let Some(held) = self.mass_change(&plan) {
            self.stale = stale;
            self.share.update(|status| status.held = Some(held));
            return Ok(Vec::new());
        }
        self.share.update(|status| status.held = None);
        self.perform(plan)
    }

    fn plan(&mut self, paths: BTreeMap<String, Option<Wanted>>) -> Result<Vec<CheckOut>, Failure> {
        let mut plan = Vec::new();
        let mut relabel = Vec::new();
        for (path, wanted) in paths {
            let known = self.folder.known(&path).cloned();
            match (wanted, known) {
                (None, None) => {}
                (None, Some(_)) => plan.push(CheckOut::Remove { path }),
                (Some(wanted), Some(known)) if known.sid == wanted.tip.sid() => {
                    debug_assert_eq!(known.timeline, wanted.timeline);
                }
                (Some(wanted), Some(known)) if self.looks_alike(&known.sid, &wanted.frame) => {
                    let placed = Placed { timeline: wanted.timeline, sid: wanted.tip.sid(), ..known };
                    relabel.push((path, placed));
                }
                (Some(wanted), _) => {
                    self.clear_the_way(&path)?;
                    plan.push(put(path, wanted));
                }
            }
        }
        self.folder
            .placed_many(relabel)
            .map_err(|error| Failure::failed("folder_state", crate::failure::whole(&error)))?;
        Ok(self.moves(plan))
    }

    /// Whether the frame that stands in the directory differs from `frame` in nothing that the directory shows.
    fn looks_alike(&self, sid: &Sid, frame: &FileFrame) -> bool {
        let standing = self.view.record(sid).and_then(|record| FileFrame::read(&record).ok());
        standing.is_some_and(|standing| standing.same_content(frame) && standing.mtime == frame.mtime)
    }

    /// Where the own role is read, a local change is moved aside when a new version of that file arrives.
    fn clear_the_way(&mut self, path: &str) -> Result<(), Failure> {
        if !self.share.status().local_only.contains(path) {
            return Ok(());
        }
        let aside =
            self.folder.set_aside(path).map_err(|error| Failure::failed("set_aside", crate::failure::whole(&error)))?;
        self.share.update(|status| {
            status.local_only.remove(path);
            status.local_only.insert(aside);
        });
        Ok(())
    }

    /// Turns a removal and a put of one timeline into a move where the content is the same: a rename writes nothing.
    fn moves(&self, plan: Vec<CheckOut>) -> Vec<CheckOut> {
        let mut leaving = BTreeMap::new();
        for item in &plan {
            if let CheckOut::Remove { path } = item
                && let Some(known) = self.folder.known(path)
            {
                leaving.insert(known.timeline, path.clone());
            }
        }
        let mut moved = BTreeSet::new();
        let mut turned = Vec::with_capacity(plan.len());
        for item in plan {
            if let CheckOut::Put { path, exec, timeline, sid, .. } = &item
                && let Some(from) = leaving.get(timeline)
                && self.folder.known(path).is_none()
                && self.stands_same(from, sid)
            {
                moved.insert(from.clone());
                let (from, to) = (from.clone(), path.clone());
                turned.push(CheckOut::Move { from, to, exec: *exec, timeline: *timeline, sid: *sid });
            } else {
                turned.push(item);
            }
        }
        turned.retain(|item| !matches!(item, CheckOut::Remove { path } if moved.contains(path)));
        turned
    }

    /// Whether what stands at `path` has the content of the frame `sid`.
    fn stands_same(&self, path: &str, sid: &Sid) -> bool {
        let frame = |sid: &Sid| self.view.record(sid).and_then(|record| FileFrame::read(&record).ok());
        let standing = self.folder.known(path).and_then(|known| frame(&known.sid));
        standing.zip(frame(sid)).is_some_and(|(standing, wanted)| standing.same_content(&wanted))
    }

    fn mass_change(&self, plan: &[CheckOut]) -> Option<Held> {
        let total = self.folder.entries_count();
        let (mut removed, mut replaced) = (Vec::new(), Vec::new());
        for item in plan {
            match item {
                CheckOut::Remove { path } => removed.push(path.clone()),
                CheckOut::Put { path, .. } if self.folder.known(path).is_some() => replaced.push(path.clone()),
                _ => {}
            }
        }
        let since_ms = self.share.status().held.map_or(self.engine.world().now().wall_ms, |held| held.since_ms);
        is_mass_change(total, removed.len() + replaced.len()).then_some(Held {
            since_ms,
            removed,
            replaced,
            total: total as u64,
        })
    }

    fn perform(&mut self, plan: Vec<CheckOut>) -> Result<Vec<String>, Failure> {
        let source = SpaceContents { store: self.engine.store().clone(), view: self.view.clone() };
        let all = plan.len() as u64;
        let mut done = 0u64;
        let mut dirty = Vec::new();
        self.share.update(|status| {
            (status.phase, status.items, status.bytes) = (Phase::CheckingOut, (0, all), (0, 0));
        });
        let mut rest = plan.into_iter().peekable();
        while rest.peek().is_some() {
            let batch: Vec<CheckOut> = rest.by_ref().take(BATCH).collect();
            failpoint::hit("checkout_batch");
            let share = self.share.clone();
            let mut progress = |seen: sealtide_folder::CheckOutProgress| {
                share.update(|status| {
                    status.items = (done + seen.items_done, all);
                    status.bytes = (seen.bytes_written, 0);
                });
            };
            let paths: Vec<String> = batch.iter().map(|item| item.path().to_owned()).collect();
            let report = self
                .folder
                .check_out(batch, &source, &mut progress)
                .map_err(|error| Failure::failed("check_out", crate::failure::whole(&error)))?;
            done += paths.len() as u64;
            // What could not be placed stays stale, so that the next round tries again.
            let open: BTreeSet<&String> =
                report.dirty.iter().chain(report.skipped.iter().map(|(path, _)| path)).collect();
            self.stale.extend(open.into_iter().cloned());
            self.share.update(|status| {
                for path in &paths {
                    status.skipped.remove(path);
                }
                status.skipped.extend(report.skipped.iter().map(|(path, reason)| (path.clone(), reason.to_string())));
            });
            self.unlooked
                .extend(report.skipped.into_iter().filter(|(_, reason)| is_passing(reason)).map(|(path, _)| path));
            dirty.extend(report.dirty);
        }
        Ok(dirty)
    }

    /// Ends timelines whose path another one owns with equal content.
    fn end_yielded(&mut self, yields: &[(Verified, Address)]) {
        if yields.is_empty() || self.own_role() < Some(Role::Write) {
            return;
        }
        let records = yields.iter().filter_map(|(loser, owner)| yield_frame(loser, owner).ok()).collect();
        self.commit_frames(records);
    }

    fn commit_frames(&mut self, records: Vec<Verified>) {
        let request = CommitRequest { saga: None, staged: None, records, expected: Vec::new(), strict: false };
        match self.engine.store().commit(&self.space, &request) {
            Ok(result) => {
                let moved: Vec<_> = result.moved.iter().map(|(timeline, ..)| *timeline).collect();
                self.refresh(&moved);
                self.engine.committed(self.space, None, &result);
            }
            Err(error) => tracing::warn!(%error, "frames could not be committed"),
        }
    }

    /// Lists what a person should look at: timelines with several tips, and paths that two timelines claim.
    fn list_conflicts(&mut self) {
        let mut conflicts = Vec::new();
        for (path, timeline) in self.claims.diverged() {
            let versions =
                super::tips(&self.view, &timeline).iter().map(|(tip, _)| tip.address().to_string()).collect();
            conflicts.push(Conflict { path, kind: "diverged".to_owned(), alias: None, versions });
        }
        let contested = self.claims.contested();
        if !contested.is_empty() {
            for (path, owner, other, alias) in self.claims.place(&self.view, &contested).conflicts {
                let tips = [owner, other].into_iter().filter_map(|id| super::tips(&self.view, &id).into_iter().next());
                let versions = tips.map(|(tip, _)| tip.address().to_string()).collect();
                conflicts.push(Conflict { path, kind: "path".to_owned(), alias: Some(alias), versions });
            }
        }
        self.share.update(|status| status.conflicts = conflicts);
    }

    /// A person decided about a held check-out: let it happen, or record the directory as it stands over it.
    pub(super) fn hold_decided(&mut self, accept: bool) -> Result<(), Failure> {
        if self.share.status().held.is_none() {
            return Err(Failure::new(Exit::Failed, "nothing_held", "nothing is held in this space"));
        }
        if accept {
            let dirty = self.check_out(true)?;
            return self.record(Some(&dirty));
        }
        self.put_back()?;
        self.share.update(|status| status.held = None);
        Ok(())
    }

    /// Writes what stands in the directory as new versions over the tips that were held back.
    fn put_back(&mut self) -> Result<(), Failure> {
        let stale = std::mem::take(&mut self.stale);
        let placed = self.claims.place(&self.view, &stale);
        let stamp = Stamp { ms: self.engine.world().now().wall_ms };
        let mut records = Vec::new();
        for (path, wanted) in placed.paths {
            let Some(known) = self.folder.known(&path).cloned() else { continue };
            if wanted.as_ref().is_some_and(|wanted| wanted.tip.sid() == known.sid) {
                continue;
            }
            let Some(standing) = self.view.record(&known.sid) else { continue };
            let Some((tip, _)) = super::tips(&self.view, &known.timeline).into_iter().next() else { continue };
            let Ok(mut frame) = FileFrame::read(&standing) else { continue };
            frame.by = self.engine.id().to_string();
            if let Ok(record) = frame.evolve(&tip, stamp) {
                records.push(record);
            }
        }
        self.commit_frames(records);
        Ok(())
    }
}

fn put(path: String, wanted: Wanted) -> CheckOut {
    CheckOut::Put {
        path,
        kind: wanted.frame.kind,
        exec: wanted.frame.exec,
        mtime_ms: wanted.frame.mtime,
        content: if wanted.frame.deleted { Content::None } else { wanted.frame.content },
        timeline: wanted.timeline,
        sid: wanted.tip.sid(),
    }
}
