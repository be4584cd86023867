//! Checking out: tips that moved become files.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use sealtide_folder::{Binary, CheckOut, ContentSource, Placed, is_mass_change};
use sealtide_ibgib::{
    Address, ChunkHash, Content, FileFrame, FileKind, Manifest, Sid, Stamp, TimelineId, Verified, read_binary,
    yield_frame,
};
use sealtide_identity::{Role, SpaceId};
use sealtide_store::{SpaceHandle, Store};
use sealtide_sync::SpaceView;

use crate::commands::store_failure;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::share::claims::{Wanted, agree, next_frame};
use crate::share::lately::Lately;
use crate::share::{Conflict, Held, Phase, Worker, is_passing, may_go};
use crate::world::World;

/// Paths that one check-out writes before the cache learns of them.
const BATCH: usize = 2048;
/// Bytes of texts that a plan, or a batch of one, holds in memory, about.
pub(super) const TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where it is kept what the folder of a space lost lately.
pub(crate) fn lately_key(space: &SpaceId) -> String {
    format!("lately/{space}")
}

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
        self.try_again = false;
        let done = self.check_out_paths(&stale, accepted);
        if done.is_err() {
            // Nobody knows how far it came: all of them are looked at again.
            self.stale.extend(stale);
        }
        done
    }

    fn check_out_paths(&mut self, stale: &BTreeSet<String>, accepted: bool) -> Result<Vec<String>, Failure> {
        let mut plan = Plan::default();
        let paths: Vec<&String> = stale.iter().filter(|path| !self.is_in_place(path)).collect();
        for paths in paths.chunks(BATCH) {
            self.go_on()?;
            let placed = self.claims().place(&self.view, paths.iter().copied());
            self.end_yielded(placed.yields.into_values())?;
            self.plan(placed.paths, &mut plan)?;
        }
        self.list_conflicts();
        let plan = self.moves(plan.items.into_values().collect());
        self.lately.age(self.engine.world().now().wall_ms);
        let held = self.mass_change(&plan).filter(|_| !accepted);
        self.lately.held = held.is_some();
        if let Some(held) = held {
            self.keep_lately()?;
            self.stale.extend(stale.iter().cloned());
            self.share.update(|status| status.held = Some(held));
            return Ok(Vec::new());
        }
        self.share.update(|status| status.held = None);
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let before = self.folder.entries_count();
        let (mut came, mut gone) = self.comes_and_goes(&plan);
        // What was cut off in the middle counts as far as it came.
        let dirty = self.perform(plan);
        if !accepted {
            let now_ms = self.engine.world().now().wall_ms;
            gone.retain(|path| self.folder.known(path).is_none());
            came.retain(|path| self.folder.known(path).is_some());
            self.lately.note_gone(now_ms, &gone);
            self.lately.note_came(now_ms, before, came);
            self.keep_lately()?;
        }
        dirty
    }

    /// The files that a plan brings, and those that it takes away; what it moves is neither.
    fn comes_and_goes(&self, plan: &[CheckOut]) -> (Vec<String>, Vec<String>) {
        let stay = stays(plan);
        let (mut leaving, mut come, mut gone) = (BTreeSet::new(), Vec::new(), Vec::new());
        for item in plan {
            match (item, self.folder.known(item.path())) {
                (CheckOut::Put { path, timeline, .. }, None) => come.push((path.clone(), *timeline)),
                (CheckOut::Remove { .. }, Some(known)) if stay.contains(&known.timeline) => {
                    leaving.insert(known.timeline);
                }
                (CheckOut::Remove { path }, Some(_)) => gone.push(path.clone()),
                _ => {}
            }
        }
        let came = come.into_iter().filter(|(_, timeline)| !leaving.contains(timeline));
        (came.map(|(path, _)| path).collect(), gone)
    }

    /// Keeps what went lately over a restart, as what is held because of it.
    fn keep_lately(&self) -> Result<(), Failure> {
        let (key, text) = (lately_key(&self.space), self.lately.text());
        if text == self.engine.known().setting(&key) {
            return Ok(());
        }
        self.engine.known().put_setting(&key, text.as_deref()).map_err(store_failure)
    }

    /// Whether a path needs no look: most are stale because this node recorded what stands there.
    pub(super) fn is_in_place(&self, path: &str) -> bool {
        let known = self.folder.known(path).map(|known| (known.timeline, known.sid));
        self.claims().stands(path, known)
    }

    pub(super) fn plan(&mut self, paths: BTreeMap<String, Option<Wanted>>, plan: &mut Plan) -> Result<(), Failure> {
        let mut relabel = Vec::new();
        for (path, wanted) in paths {
            // A path may come up with others once more: what is found last counts.
            plan.items.remove(&path);
            let known = self.folder.known(&path).cloned();
            match (wanted, known) {
                (None, None) => {}
                // The store was put back to an earlier time, or lost its end: what stands here is nowhere else, and as good as new.
                (_, Some(known)) if !self.view.contains(&known.sid) => {
                    self.unlooked.insert(path.clone());
                    self.leave(&path)?;
                }
                // What was made of it here stays, as a file that the space does not know.
                (None, Some(_)) if self.is_local_only(&path) => self.leave(&path)?,
                (None, Some(known)) if known.stat.kind == FileKind::Dir && self.is_emptied(&path) => {}
                (None, Some(_)) => {
                    plan.items.insert(path.clone(), CheckOut::Remove { path });
                }
                (Some(wanted), Some(known)) if known.sid == wanted.tip.sid() => {
                    debug_assert_eq!(known.timeline, wanted.timeline);
                }
                (Some(wanted), Some(known)) if self.looks_alike(&known.sid, &wanted.frame) => {
                    let placed = Placed { timeline: wanted.timeline, sid: wanted.tip.sid(), ..known };
                    relabel.push((path, placed));
                }
                (Some(wanted), _) => {
                    self.clear_the_way(&path)?;
                    let item = plan.put(path.clone(), wanted);
                    plan.items.insert(path, item);
                }
            }
        }
        self.folder.placed_many(relabel).map_err(|error| Failure::failed("folder_state", crate::failure::whole(&error)))
    }

    /// Whether the frame that stands in the directory differs from `frame` in nothing that the directory shows.
    fn looks_alike(&self, sid: &Sid, frame: &FileFrame) -> bool {
        let standing = self.view.record(sid).and_then(|record| FileFrame::read(&record).ok());
        standing.is_some_and(|standing| standing.same_content(frame) && standing.mtime == frame.mtime)
    }

    /// Whether nothing is in a directory any more that stands for what was known below it: the next scan says what went, and
    /// whether the directory went with it. Were it forgotten now, it would come back once nothing is below it.
    fn is_emptied(&self, path: &str) -> bool {
        let is_empty = match self.folder.root().join(path).read_dir() {
            Ok(mut names) => names.next().is_none(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        is_empty && self.folder.has_known_below(path)
    }

    fn is_local_only(&self, path: &str) -> bool {
        self.share.status_of(|status| status.local_only.contains(path))
    }

    /// Where the own role is read, a local change is moved aside when a new version of that file arrives.
    fn clear_the_way(&mut self, path: &str) -> Result<(), Failure> {
        if !self.is_local_only(path) {
            return Ok(());
        }
        if !self.stands(path) {
            return self.leave(path);
        }
        match self.folder.set_aside(path) {
            Ok(aside) => self.share.update(|status| {
                status.local_only.remove(path);
                status.local_only.insert(aside);
            }),
            // It stays where it is, and the check-out finds it in its way.
            Err(error) => tracing::warn!(path, error = crate::failure::whole(&error), "could not be moved aside"),
        }
        Ok(())
    }

    /// Forgets what was known of a path.
    fn leave(&mut self, path: &str) -> Result<(), Failure> {
        if !self.stands(path) {
            self.share.update(|status| {
                status.local_only.remove(path);
            });
        }
        self.folder.forget(path).map_err(|error| Failure::failed("folder_state", crate::failure::whole(&error)))
    }

    /// Whether anything is at a path of the directory.
    pub(super) fn stands(&self, path: &str) -> bool {
        self.folder.root().join(path).symlink_metadata().is_ok()
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

    /// What of a plan waits for a person, with what went lately.
    fn mass_change(&self, plan: &[CheckOut]) -> Option<Held> {
        let (total, lost) = (self.folder.entries_count(), self.lately.gone());
        let (mut removed, mut replaced, mut edited, mut passing) = (Vec::new(), Vec::new(), 0, 0);
        let stay = stays(plan);
        for item in plan {
            match item {
                // It stands at another path, edited on the way.
                CheckOut::Remove { path }
                    if self.folder.known(path).is_some_and(|known| stay.contains(&known.timeline)) =>
                {
                    edited += 1;
                    replaced.push(path.clone());
                }
                CheckOut::Remove { path } => {
                    passing += usize::from(self.lately.came(path));
                    removed.push(path.clone());
                }
                CheckOut::Put { path, sid, timeline, .. } => match self.folder.known(path) {
                    // Where the content stays, nothing is replaced but a time.
                    Some(known) if !self.stands_same(path, sid) => {
                        edited += usize::from(known.timeline == *timeline);
                        replaced.push(path.clone());
                    }
                    _ => {}
                },
                CheckOut::Move { .. } => {}
            }
        }
        // Files that came a moment ago are none of those that were there, and count for nothing when they go again.
        let (newcomers, less) = (self.lately.newcomers(), removed.len() - passing);
        let at_once = is_mass_change(total, newcomers, less + replaced.len() - edited, edited);
        // Whoever deletes a folder, or most of it, sends that in many small changes: they count together.
        let in_steps = less > 0 && is_mass_change(total + lost, newcomers, less + lost, 0);
        let since_ms = self.share.status().held.map_or(self.engine.world().now().wall_ms, |held| held.since_ms);
        (at_once || in_steps).then_some(Held { since_ms, removed, replaced, total: total as u64, gone: lost as u64 })
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
            self.go_on()?;
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < BATCH
                && bytes < TEXT_BYTES_MAX
                && let Some(item) = rest.next()
            {
                let item = self.with_text(item)?;
                bytes += text_bytes(&item);
                batch.push(item);
            }
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
            self.stale.extend(report.open);
            self.try_again |= !report.dirty.is_empty() || report.skipped.iter().any(|(_, reason)| may_go(reason));
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

    /// An item with its content, where the plan left it out.
    fn with_text(&self, item: CheckOut) -> Result<CheckOut, Failure> {
        let CheckOut::Put { path, kind: FileKind::File, exec, mtime_ms, content: Content::None, timeline, sid } = item
        else {
            return Ok(item);
        };
        let frame = self.view.record(&sid).and_then(|record| FileFrame::read(&record).ok());
        let missing =
            || Failure::new(Exit::Verification, "missing", format!("the version of {path} is not in the store"));
        let content = frame.ok_or_else(missing)?.content;
        Ok(CheckOut::Put { path, kind: FileKind::File, exec, mtime_ms, content, timeline, sid })
    }

    /// Ends timelines whose path another one owns with equal content.
    fn end_yielded(&mut self, yields: impl Iterator<Item = (Verified, Address)>) -> Result<(), Failure> {
        if self.own_role() < Some(Role::Write) {
            return Ok(());
        }
        self.commit_frames(yields.filter_map(|(loser, owner)| yield_frame(&loser, &owner).ok()).collect())
    }

    fn commit_frames(&mut self, records: Vec<Verified>) -> Result<(), Failure> {
        if records.is_empty() {
            return Ok(());
        }
        let result = self
            .engine
            .commit_in_thread(self.space, records)
            .map_err(|error| Failure::failed("store", format!("frames could not be committed: {error}")))?;
        let moved: Vec<_> = result.moved.iter().map(|(timeline, ..)| *timeline).collect();
        self.refresh(&moved);
        self.engine.committed(self.space, None, &result);
        Ok(())
    }

    /// Lists what a person should look at: timelines whose tips differ, merges that are not clean, and paths that two
    /// timelines claim.
    fn list_conflicts(&mut self) {
        let addresses = |tips: Vec<(Verified, FileFrame)>| tips.into_iter().map(|(tip, _)| tip.address().to_string());
        let claims = self.claims();
        let mut conflicts = Vec::new();
        for (path, timeline) in claims.diverged() {
            let versions = addresses(super::tips(&self.view, &timeline)).collect();
            conflicts.push(Conflict { path, kind: "diverged".to_owned(), alias: None, versions });
        }
        for (path, timeline) in claims.merged() {
            let Some((tip, _)) = super::tips(&self.view, &timeline).into_iter().next() else { continue };
            let Some(merge) = super::unsettled(&self.view, &tip) else { continue };
            let parents = super::parents(&self.view, &merge).into_iter().map(|(_, parent)| parent);
            let versions = std::iter::once(tip).chain(parents).map(|version| version.address().to_string()).collect();
            conflicts.push(Conflict { path, kind: "merged".to_owned(), alias: None, versions });
        }
        for (path, found) in claims.conflicts() {
            let both = [found.owner, found.other].map(|id| super::tips(&self.view, &id).into_iter().take(1).collect());
            let versions = both.into_iter().flat_map(addresses).collect();
            let alias = Some(found.alias.clone());
            conflicts.push(Conflict { path: path.clone(), kind: "path".to_owned(), alias, versions });
        }
        drop(claims);
        conflicts.sort_by(|left, right| left.path.cmp(&right.path));
        self.share.update(|status| status.conflicts = conflicts);
    }

    /// A person decided about a held check-out: let it happen, or record the directory as it stands over it.
    pub(super) fn hold_decided(&mut self, accept: bool) -> Result<(), Failure> {
        if self.share.status().held.is_none() {
            return Err(Failure::new(Exit::Failed, "nothing_held", "nothing is held in this space"));
        }
        if accept {
            let dirty = self.check_out(true)?;
            self.lately = Lately::default();
            self.keep_lately()?;
            return self.record(Some(&dirty));
        }
        if self.own_role() < Some(Role::Write) {
            return Err(Failure::new(Exit::Refused, "read_only", "this node may only read this space")
                .hint("`sealtide hold accept`, or ask an admin of the space for a ticket with role write"));
        }
        let stale = std::mem::take(&mut self.stale);
        let put_back = self.put_back(&stale);
        // What is new in the space, and what could not be put back, is still to be checked out.
        self.stale.extend(stale);
        put_back?;
        self.lately = Lately::default();
        self.keep_lately()?;
        self.share.update(|status| status.held = None);
        Ok(())
    }

    /// Writes what stands in the directory as new versions over the tips that were held back.
    fn put_back(&mut self, stale: &BTreeSet<String>) -> Result<(), Failure> {
        let placed = self.claims().place(&self.view, stale);
        let stamp = Stamp { ms: self.engine.world().now().wall_ms };
        let mut records = Vec::new();
        for (path, wanted) in placed.paths {
            let Some(known) = self.folder.known(&path).cloned() else { continue };
            if wanted.as_ref().is_some_and(|wanted| wanted.tip.sid() == known.sid) {
                continue;
            }
            let Some(standing) = self.view.record(&known.sid) else { continue };
            let tips = super::tips(&self.view, &known.timeline);
            let Some((_, held)) = tips.first() else { continue };
            // Tips that say something else were not seen either: they stay beside it, listed as a conflict.
            let tips: Vec<Verified> =
                tips.iter().filter(|(_, tip)| agree(held, tip)).map(|(tip, _)| tip.clone()).collect();
            let Ok(mut frame) = FileFrame::read(&standing) else { continue };
            frame.by = self.engine.id().to_string();
            if let Ok(record) = next_frame(&tips, &frame, stamp) {
                records.push(record);
            }
        }
        self.commit_frames(records)
    }
}

fn text_bytes(item: &CheckOut) -> usize {
    match item {
        CheckOut::Put { content: Content::Text(text), .. } => text.len(),
        _ => 0,
    }
}

/// The timelines that a plan puts somewhere.
fn stays(plan: &[CheckOut]) -> BTreeSet<TimelineId> {
    let put = |item: &CheckOut| if let CheckOut::Put { timeline, .. } = item { Some(*timeline) } else { None };
    plan.iter().filter_map(put).collect()
}

/// What is to be done to the directory, by path.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) items: BTreeMap<String, CheckOut>,
    /// Bytes of the texts among them.
    pub(super) text_bytes: usize,
}

impl Plan {
    fn put(&mut self, path: String, wanted: Wanted) -> CheckOut {
        let frame = wanted.frame;
        let content = match frame.content {
            _ if frame.deleted => Content::None,
            // A file without a content: it is read when its turn comes.
            Content::Text(text) if self.text_bytes + text.len() > TEXT_BYTES_MAX => {
                debug_assert_eq!(frame.kind, FileKind::File);
                Content::None
            }
            content => content,
        };
        let item = CheckOut::Put {
            path,
            kind: frame.kind,
            exec: frame.exec,
            mtime_ms: frame.mtime,
            content,
            timeline: wanted.timeline,
            sid: wanted.tip.sid(),
        };
        self.text_bytes += text_bytes(&item);
        item
    }
}
