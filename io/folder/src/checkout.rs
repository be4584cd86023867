//! Makes the directory agree with a plan, in batches that each stand or are taken back as a whole.
//! The order of steps and what a crash leaves: `spec/checkout.md`.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::hands::{Fail, Hands, Rescued};
use crate::journal::{Journal, Step};
use crate::path::{ancestors, is_within};
use crate::plan::{Planner, Steps};
use crate::root::mode_with_exec;
use crate::rules::Rules;
use crate::spelling::Spelling;
use crate::stat::{Look, mtime_ns_of};
use crate::write::{Ready, Unsynced, mode_of_new};
use crate::{CheckOut, ContentSource, Folder, FolderError, Placed, SkipReason, Stat};

/// What a check-out did. The cache already agrees with it.
#[derive(Debug, Default)]
pub struct CheckOutReport {
    /// Paths that now stand as wished.
    pub done: Vec<(String, Placed)>,
    /// Paths where nothing stands any more: removals, and the old paths of moves.
    pub removed: Vec<String>,
    /// Paths that were changed locally meanwhile and left alone: scan them, then plan again.
    pub dirty: Vec<String>,
    /// Paths that cannot stand as wished here, and why.
    pub skipped: Vec<(String, SkipReason)>,
    /// All paths of every wish that was not carried out, of a move both ends: what `dirty` names may be none of them.
    pub open: Vec<String>,
    /// Local changes that came in the very moment of a replacement or removal: (path, where they were saved).
    pub rescued: Vec<(String, String)>,
}

/// How far a check-out is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckOutProgress {
    /// Items of the plan.
    pub items: u64,
    /// Items dealt with.
    pub items_done: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

impl Folder {
    /// Carries out a plan: removals, then moves, then everything else. An item whose path was changed locally since
    /// it was last recorded is left alone and reported as dirty. When this returns `Ok`, everything reported as done
    /// is on disk and in the cache.
    ///
    /// # Errors
    /// [`FolderError`] when the directory is not there, cannot be synced, or the state fails. What was begun is then
    /// taken back by the next operation, or the next [`Folder::open`].
    pub fn check_out(
        &mut self,
        plan: Vec<CheckOut>,
        source: &dyn ContentSource,
        progress: &mut dyn FnMut(CheckOutProgress),
    ) -> Result<CheckOutReport, FolderError> {
        self.check_root()?;
        self.root.refresh();
        let mut run = Run {
            report: CheckOutReport::default(),
            progress: CheckOutProgress { items: plan.len() as u64, ..CheckOutProgress::default() },
            rules: Rules::default(),
            unmounted: self.unmounted(),
            source,
            notify: progress,
        };
        let (mut removals, mut moves, mut puts) = (Vec::new(), Vec::new(), Vec::new());
        for wish in plan {
            match wish {
                CheckOut::Remove { .. } => removals.push(wish),
                CheckOut::Move { .. } => moves.push(wish),
                CheckOut::Put { .. } => puts.push(wish),
            }
        }
        // The deepest first, so that a directory that stands for itself is empty when its turn comes.
        removals.sort_by(|left, right| right.path().cmp(left.path()));
        puts.sort_by(|left, right| left.path().cmp(right.path()));
        self.in_batches(removals, &mut run)?;
        // Moves that stand in each other's way must be put aside together, so they are one batch.
        let lifted = entangled(&moves);
        if lifted.is_empty() {
            self.in_batches(moves, &mut run)?;
        } else {
            self.batch(moves, lifted, &mut run)?;
        }
        self.in_batches(puts, &mut run)?;
        self.state.clear_journal()?;
        self.root.refresh();
        Ok(run.report)
    }

    fn in_batches(&mut self, mut wishes: Vec<CheckOut>, run: &mut Run<'_>) -> Result<(), FolderError> {
        while !wishes.is_empty() {
            let later = wishes.split_off(wishes.len().min(BATCH_ITEMS_MAX));
            let left = self.batch(wishes, BTreeSet::new(), run)?;
            wishes = left.into_iter().chain(later).collect();
        }
        Ok(())
    }

    /// Carries out one batch; returns the wishes that would have made it too large.
    fn batch(
        &mut self,
        wishes: Vec<CheckOut>,
        lifted: BTreeSet<String>,
        run: &mut Run<'_>,
    ) -> Result<Vec<CheckOut>, FolderError> {
        self.root.refresh();
        self.batches += 1;
        let (mut items, missing) = self.plan(wishes, lifted, run);
        let dirs: Vec<Step> = missing.into_iter().map(|path| Step::MakeDir { path }).collect();
        let all = in_order(&items, &dirs);
        let has_steps = !all.is_empty();
        if has_steps {
            self.hook("journal")?;
            self.state.set_journal(Some(&Journal::Doing(all)))?;
        }
        let mut unsynced = Unsynced::default();
        let mut hands = Hands::new(&self.root, self.hook.as_mut());
        let mut work = Work { hands: &mut hands, dirs: &dirs, unsynced: &mut unsynced, run: &mut *run };
        let left = work.carry_out(&mut items)?;
        if has_steps {
            self.hook("sync")?;
            run.progress.bytes_written += unsynced.bytes;
            unsynced.sync(&self.root)?;
        }
        self.settle_batch(&items, dirs, run)?;
        run.progress.items_done += items.len() as u64;
        (run.notify)(run.progress);
        Ok(left)
    }

    /// Finds the steps of every wish. What cannot be done is reported here and drops out.
    fn plan(
        &self,
        wishes: Vec<CheckOut>,
        lifted: BTreeSet<String>,
        run: &mut Run<'_>,
    ) -> (Vec<Item>, BTreeSet<String>) {
        let mut planner = Planner {
            root: &self.root,
            cache: self.state.cache(),
            rules: &mut run.rules,
            unmounted: &run.unmounted,
            spelling: Spelling::default(),
            batch: self.batches,
            temps: 0,
            missing: BTreeSet::new(),
            lifted,
        };
        let mut items = Vec::with_capacity(wishes.len());
        let mut failed = Vec::new();
        for wish in wishes {
            match planner.steps(&wish) {
                Ok(steps) => {
                    let known = self.state.get(source_of(&wish)).copied();
                    items.push(Item { wish, steps, known, lifted: false, outcome: Outcome::Open });
                }
                Err(fail) => failed.push((wish, fail)),
            }
        }
        let missing = planner.missing;
        for (wish, fail) in failed {
            run.progress.items_done += 1;
            run.report.fail(&wish, fail);
        }
        (items, missing)
    }

    /// Notes in the cache what stands now, and removes what was put aside.
    fn settle_batch(&mut self, items: &[Item], dirs: Vec<Step>, run: &mut Run<'_>) -> Result<(), FolderError> {
        let now = SystemTime::now();
        let done = || items.iter().filter(|item| matches!(item.outcome, Outcome::Done { .. }));
        for item in done() {
            match &item.wish {
                CheckOut::Remove { path } | CheckOut::Move { from: path, .. } => {
                    self.state.set(path, None);
                    run.report.removed.push(path.clone());
                }
                CheckOut::Put { .. } => {}
            }
        }
        for item in done() {
            let (CheckOut::Put { path, timeline, sid, .. } | CheckOut::Move { to: path, timeline, sid, .. }) =
                &item.wish
            else {
                continue;
            };
            let Outcome::Done { stat, content } = item.outcome else { continue };
            // What was made is what is recorded. Where it already looks different, the next scan must see that.
            let stat = match self.root.look(path) {
                Ok(Look::Seen(seen, _)) if stat.is_same_but_moved(&seen) => seen.observed(now),
                _ => stat,
            };
            let placed = Placed { timeline: *timeline, sid: *sid, stat, content };
            self.state.set(path, Some(placed));
            run.report.done.push((path.clone(), placed));
        }
        let steps: Vec<Step> = dirs.into_iter().chain(done().flat_map(|item| item.steps.clone())).collect();
        self.hook("settle")?;
        if steps.is_empty() {
            self.state.clear_journal()?;
            return self.state.flush();
        }
        self.state.set_journal(Some(&Journal::Sweeping(steps.clone())))?;
        self.sweep(&steps, &mut run.report.rescued)
    }

    fn sweep(&mut self, steps: &[Step], rescued: &mut Rescued) -> Result<(), FolderError> {
        let cache = self.state.cache();
        let kept = |path: &str| cache.contains_key(path);
        Hands::new(&self.root, self.hook.as_mut()).sweep(steps, &kept, rescued)
    }

    /// Takes back or finishes what the journal says was under way.
    pub(crate) fn recover(&mut self, journal: &Journal) -> Result<(), FolderError> {
        self.root.refresh();
        let mut rescued = Rescued::new();
        match journal {
            Journal::Doing(steps) => {
                Hands::new(&self.root, None).undo_all(steps, &mut rescued);
                self.refresh_put_back(steps);
            }
            Journal::Sweeping(steps) => self.sweep(steps, &mut rescued)?,
        }
        for (path, saved) in rescued {
            tracing::warn!(path, saved, "a local change that met a check-out was saved beside");
        }
        self.state.set_journal(None)
    }

    /// Files that were moved away and back are what they were: only their ctime moved.
    fn refresh_put_back(&mut self, steps: &[Step]) {
        for step in steps {
            let (Step::Replace { path, .. } | Step::Lift { path, .. } | Step::Rename { from: path, .. }) = step else {
                continue;
            };
            let Some(placed) = self.state.get(path).copied() else { continue };
            if let Ok(Look::Seen(stat, _)) = self.root.look(path)
                && placed.stat.is_same_but_moved(&stat)
            {
                let stat = Stat { racy: placed.stat.racy, ..stat };
                self.state.set(path, Some(Placed { stat, ..placed }));
            }
        }
    }
}

/// What all batches of one check-out share.
struct Run<'a> {
    report: CheckOutReport,
    progress: CheckOutProgress,
    rules: Rules,
    unmounted: BTreeSet<String>,
    source: &'a dyn ContentSource,
    notify: &'a mut dyn FnMut(CheckOutProgress),
}

impl CheckOutReport {
    fn fail(&mut self, wish: &CheckOut, fail: Fail) {
        match fail {
            Fail::Dirty(changed) => self.dirty.push(changed),
            Fail::Skip(reason) => self.skipped.push((wish.path().to_owned(), reason)),
            Fail::Stopped => {}
        }
        self.leave_open(wish);
    }

    fn leave_open(&mut self, wish: &CheckOut) {
        self.open.push(wish.path().to_owned());
        if let CheckOut::Move { from, .. } = wish {
            self.open.push(from.clone());
        }
    }
}

/// One wish of a batch.
struct Item {
    wish: CheckOut,
    steps: Steps,
    /// What the cache knew at the path, or at the old path of a move.
    known: Option<Placed>,
    lifted: bool,
    outcome: Outcome,
}

#[derive(Clone, Copy)]
enum Outcome {
    Open,
    Failed,
    Done { stat: Stat, content: [u8; 32] },
}

/// The execution of one batch.
struct Work<'w, 'r, 'h> {
    hands: &'w mut Hands<'h>,
    dirs: &'w [Step],
    unsynced: &'w mut Unsynced,
    run: &'w mut Run<'r>,
}

impl Work<'_, '_, '_> {
    /// Everything that must be put aside, then the directories, then each item. Returns what is left when the batch
    /// has become large.
    fn carry_out(&mut self, items: &mut Vec<Item>) -> Result<Vec<CheckOut>, FolderError> {
        let is_move = |item: &Item| matches!(item.wish, CheckOut::Move { .. });
        for at in 0..items.len() {
            if is_move(&items[at])
                && let Some(Step::Lift { path, temp, old }) = items[at].steps.first().cloned()
            {
                match self.hands.lift(&path, &temp, &old) {
                    Ok(()) => items[at].lifted = true,
                    Err(fail) => self.fail(items, at, fail)?,
                }
            }
        }
        let mut misspelt = BTreeSet::new();
        for step in self.dirs {
            let Step::MakeDir { path } = step else { continue };
            match self.hands.make_dir(path) {
                Err(Fail::Stopped) => return Err(FolderError::Stopped),
                // What is to stand in it would land in the other one.
                Err(Fail::Skip(SkipReason::OtherSpelling)) => drop(misspelt.insert(path.as_str())),
                // A directory that cannot be made fails the items that need it.
                _ => {}
            }
        }
        for at in 0..items.len() {
            if self.unsynced.bytes > BATCH_BYTES_MAX {
                return Ok(items.split_off(at).into_iter().map(|item| item.wish).collect());
            }
            if matches!(items[at].outcome, Outcome::Failed) {
                continue;
            }
            let is_misspelt = ancestors(items[at].wish.path()).any(|dir| misspelt.contains(dir));
            let done = if is_misspelt { Err(Fail::Skip(SkipReason::OtherSpelling)) } else { self.item(&items[at]) };
            match done {
                Ok((stat, content)) => items[at].outcome = Outcome::Done { stat, content },
                Err(fail) => self.fail(items, at, fail)?,
            }
        }
        Ok(Vec::new())
    }

    fn item(&mut self, item: &Item) -> Result<(Stat, [u8; 32]), Fail> {
        let mut made = None;
        for step in &item.steps {
            match step {
                Step::MakeDir { path } => self.hands.make_dir(path)?,
                Step::LeaveDir { .. } => {}
                Step::RemoveDir { path, .. } => self.hands.remove_dir(path)?,
                Step::Create { path, temp, .. } => {
                    let temp = temp.as_ref().ok_or_else(|| Fail::Dirty(path.clone()))?;
                    made = Some(self.create(&item.wish, path, temp)?);
                }
                Step::Replace { path, temp, old, .. } => {
                    let known = item.known.as_ref().ok_or_else(|| Fail::Dirty(path.clone()))?;
                    made = Some(self.replace(&item.wish, path, temp, old, known)?);
                }
                Step::Lift { .. } if item.lifted => {}
                Step::Lift { path, temp, old } => self.hands.lift(path, temp, old)?,
                Step::Place { temp, path, .. } => self.hands.place(temp, path)?,
                Step::Rename { from, to, old } => self.hands.rename(from, to, old)?,
                Step::SetExec { path, exec, .. } => self.hands.set_exec(path, *exec)?,
            }
        }
        match made {
            Some(made) => Ok(made),
            None => self.outcome(item),
        }
    }

    /// How an item that wrote nothing stands now.
    fn outcome(&mut self, item: &Item) -> Result<(Stat, [u8; 32]), Fail> {
        let path = item.wish.path();
        let known = item.known.map_or([0; 32], |known| known.content);
        match &item.wish {
            CheckOut::Remove { .. } => {
                let stat = item.known.map(|known| known.stat);
                // Nothing stands there: the stat is of no use, only the outcome is.
                let stat = stat.or(self.hands.root.look("")?.stat()).ok_or_else(|| Fail::Dirty(path.to_owned()))?;
                self.unsynced.touch(path, stat.dev);
                Ok((stat, known))
            }
            CheckOut::Move { from, to, .. } => {
                let stat = self.look(to)?;
                self.unsynced.touch(from, stat.dev);
                self.unsynced.touch(to, stat.dev);
                Ok((stat, known))
            }
            CheckOut::Put { .. } => {
                let stat = self.look(path)?;
                self.unsynced.touch(path, stat.dev);
                Ok((stat, [0; 32]))
            }
        }
    }

    fn create(&mut self, wish: &CheckOut, path: &str, temp: &str) -> Result<(Stat, [u8; 32]), Fail> {
        let CheckOut::Put { kind, exec, mtime_ms, content, .. } = wish else {
            return Err(Fail::Dirty(path.to_owned()));
        };
        let ready = self.load(content, *kind)?;
        let (mode, mtime_ns) = (mode_of_new(*exec), mtime_ns_of(*mtime_ms));
        let stat = self.hands.write(temp, &ready, mode, mtime_ns, self.run.source, self.unsynced)?;
        self.hands.place(temp, path)?;
        Ok((stat, ready.hash()))
    }

    fn replace(
        &mut self,
        wish: &CheckOut,
        path: &str,
        temp: &str,
        old: &crate::journal::Old,
        known: &Placed,
    ) -> Result<(Stat, [u8; 32]), Fail> {
        let CheckOut::Put { kind, exec, mtime_ms, content, .. } = wish else {
            return Err(Fail::Dirty(path.to_owned()));
        };
        let ready = self.load(content, *kind)?;
        if known.stat.kind == *kind && ready.hash() == known.content {
            // Only the frame is new, or the permission: nothing is written.
            if *kind == sealtide_ibgib::FileKind::File && known.stat.exec != *exec {
                self.hands.set_exec(path, *exec)?;
            }
            let stat = self.look(path)?;
            let same = Stat { exec: stat.exec, ..known.stat }.is_same_but_moved(&stat);
            return if same { Ok((stat, known.content)) } else { Err(Fail::Dirty(path.to_owned())) };
        }
        let mode = match self.hands.root.look(path)? {
            Look::Seen(stat, mode) if stat.kind == *kind => mode_with_exec(mode, *exec),
            _ => mode_of_new(*exec),
        };
        let stat = self.hands.write(temp, &ready, mode, mtime_ns_of(*mtime_ms), self.run.source, self.unsynced)?;
        // Loading may have taken long: look once more before the swap, which disturbs a file that changed.
        if !matches!(self.hands.root.look(path)?, Look::Seen(now, _) if known.stat.is_same(&now)) {
            return Err(Fail::Dirty(path.to_owned()));
        }
        self.hands.swap_in(path, temp, old)?;
        self.unsynced.touch(path, stat.dev);
        Ok((stat, ready.hash()))
    }

    fn load(&self, content: &sealtide_ibgib::Content, kind: sealtide_ibgib::FileKind) -> Result<Ready, Fail> {
        let ready = Ready::load(content, self.run.source)?;
        let fits = ready.kind() == kind;
        if fits { Ok(ready) } else { Err(Fail::Skip(SkipReason::Content("it does not fit the kind".to_owned()))) }
    }

    fn look(&self, path: &str) -> Result<Stat, Fail> {
        self.hands.root.look(path)?.stat().ok_or_else(|| Fail::Dirty(path.to_owned()))
    }

    /// Takes an item back and reports it. What was placed where it stood before has to go back first.
    fn fail(&mut self, items: &mut [Item], at: usize, fail: Fail) -> Result<(), FolderError> {
        if matches!(fail, Fail::Stopped) {
            return Err(FolderError::Stopped);
        }
        let reason = match &fail {
            Fail::Dirty(path) => path.clone(),
            _ => items[at].wish.path().to_owned(),
        };
        self.run.report.fail(&items[at].wish, fail);
        items[at].outcome = Outcome::Failed;
        let mut chain = vec![at];
        let mut reached = 0;
        while let Some(&failed) = chain.get(reached) {
            reached += 1;
            let CheckOut::Move { from, .. } = &items[failed].wish else { continue };
            let from = from.clone();
            for (other, item) in items.iter_mut().enumerate() {
                let in_the_way = is_within(item.wish.path(), &from) || is_within(&from, item.wish.path());
                if matches!(item.outcome, Outcome::Done { .. }) && in_the_way && item.lifted {
                    item.outcome = Outcome::Failed;
                    self.run.report.dirty.push(reason.clone());
                    self.run.report.leave_open(&item.wish);
                    chain.push(other);
                }
            }
        }
        for failed in chain.into_iter().rev() {
            self.hands.undo_all(&items[failed].steps, &mut self.run.report.rescued);
        }
        Ok(())
    }
}

/// All steps in the order in which they are taken: what moves is put aside, directories are made, then item by item.
fn in_order(items: &[Item], dirs: &[Step]) -> Vec<Step> {
    let steps = |first: bool| {
        items.iter().flat_map(move |item| {
            let is_move = matches!(item.wish, CheckOut::Move { .. });
            item.steps.iter().filter(move |step| first == (is_move && matches!(step, Step::Lift { .. })))
        })
    };
    steps(true).chain(dirs).chain(steps(false)).cloned().collect()
}

fn source_of(wish: &CheckOut) -> &str {
    match wish {
        CheckOut::Move { from, .. } => from,
        CheckOut::Put { path, .. } | CheckOut::Remove { path } => path,
    }
}

/// All sources of the moves, when a target is a source too or stands above or below one; else nothing.
fn entangled(moves: &[CheckOut]) -> BTreeSet<String> {
    let sources: BTreeSet<String> = moves.iter().map(|wish| source_of(wish).to_owned()).collect();
    let above: BTreeSet<&str> = sources.iter().flat_map(|from| ancestors(from)).collect();
    let in_the_way = moves.iter().any(|wish| {
        let to = wish.path();
        sources.contains(to) || above.contains(to) || ancestors(to).any(|dir| sources.contains(dir))
    });
    if in_the_way { sources } else { BTreeSet::new() }
}

/// Items of one batch, at most.
const BATCH_ITEMS_MAX: usize = 8192;
/// Bytes after which a batch is closed.
const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
