//! A folder as a space: joins one directory and one space of the store.
//!
//! One thread for each folder. Two movements, never mixed: *record* turns what changed in the directory into frames and
//! commits them; *check out* turns tips that moved into files. The rules of both are in `spec/folders.md`.

mod checkout;
mod claims;
mod lately;
mod merges;
mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use sealtide_folder::{Dirty, Folder, FolderError, Found, FoundContent, LocalChange, SkipReason};
use sealtide_ibgib::{Content, FileKind, TimelineId, binary_record};
use sealtide_identity::{Role, SpaceId};
use sealtide_store::SpaceHandle;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use crate::engine::{Engine, Event};
use crate::failure::{Exit, Failure};
use crate::real::RealWorld;

use lately::Lately;

pub(crate) use checkout::lately_key;
pub(crate) use claims::{Child, Claims, agree, join_tips, live_files, tip_records, tips};
pub(crate) use merges::{parents, unsettled};
pub(crate) use record::frame_of_found;

/// How long a path that could not be read or written is left alone before it is tried again.
const AGAIN: Duration = Duration::from_secs(40);
/// Files that wait to be read again, at most …
const AGAIN_FILES: usize = 4096;
/// … and bytes of them.
const AGAIN_BYTES: u64 = 256 * 1024 * 1024;
const RETRY: Duration = Duration::from_secs(2);
/// How often all of a directory is looked through, whatever the watch says: a file system that was mounted below, or changes on a network one,
/// it does not tell of …
const LOOK: Duration = Duration::from_secs(10 * 60);
/// … and where it is not watched, or a part of it is not.
const LOOK_UNWATCHED: Duration = Duration::from_secs(20);
/// Looking takes at most this part of the time.
const LOOK_PART: u32 = 20;
/// How long a folder that is to stop may take for the step it is in. What is cut off then is what a crash cuts off.
const STOP: Duration = Duration::from_secs(3);

/// What a folder is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing to do.
    #[default]
    Idle,
    /// Looking at the directory.
    Scanning,
    /// Committing what changed.
    Recording,
    /// Writing what came.
    CheckingOut,
}

/// What a folder tells of itself.
#[derive(Clone, Debug, Default)]
pub struct ShareStatus {
    /// What it is busy with.
    pub phase: Phase,
    /// How far it is: items done and known.
    pub items: (u64, u64),
    /// Bytes done and known.
    pub bytes: (u64, u64),
    /// Live paths in the space.
    pub files: u64,
    /// Paths that were not synced, and why.
    pub skipped: BTreeMap<String, String>,
    /// Changes that stay here because the own role is read.
    pub local_only: BTreeSet<String>,
    /// A check-out that waits for a person.
    pub held: Option<Held>,
    /// (path, what kind of conflict, alias or nothing).
    pub conflicts: Vec<Conflict>,
    /// What stopped the folder altogether.
    pub failed: Option<String>,
    /// Why changes in the directory, or in a part of it, are seen only by looking through all of it now and then.
    pub unwatched: Option<String>,
}

/// A check-out that waits for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when, ms since 1970.
    pub since_ms: u64,
    /// Files that would be removed.
    pub removed: Vec<String>,
    /// Files that would be replaced.
    pub replaced: Vec<String>,
    /// Files in the folder.
    pub total: u64,
    /// Files that went within the ten minutes before, without a hold, and that nothing came for.
    pub gone: u64,
}

/// Two versions that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The path in the folder.
    pub path: String,
    /// `merged`: a merge that counts conflicts; `diverged`: one timeline with several tips; `path`: two timelines on one
    /// path.
    pub kind: String,
    /// Where the other version stands in the folder, for kind `path`.
    pub alias: Option<String>,
    /// The addresses that stand against each other, the winner first; of a merge the merged version, then the two that
    /// met in it and what both were made of.
    pub versions: Vec<String>,
}

enum Order {
    Dirty(Vec<String>),
    FullScan,
    /// Tips moved, or grants: look at the events.
    News,
    Flush(oneshot::Sender<()>),
    Hold(bool, oneshot::Sender<Result<(), Failure>>),
    Pause(bool),
    Stop,
}

/// A shared folder. Cheap to clone.
#[derive(Clone)]
pub struct Share(Arc<Shared>);

struct Shared {
    space: SpaceId,
    dir: PathBuf,
    orders: Sender<Order>,
    status: Mutex<ShareStatus>,
    /// Which timelines want which path. The worker writes it; commands look paths up in it.
    claims: Mutex<Claims>,
    /// Whether the worker has read the claims.
    looked: AtomicBool,
    /// Whether the worker is to end as soon as it can.
    stopping: AtomicBool,
    stopped: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// What a directory holds compared with a space, before anything is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Survey {
    /// Files, links and empty directories in it.
    pub(crate) files: usize,
    /// Of these, how many the space holds at the same path with the same content.
    pub(crate) adopted: usize,
}

/// Compares a directory with a space. Nothing is recorded, and no state is left behind.
pub(crate) fn survey(node: &crate::node::Node, space: SpaceId, dir: &Path) -> Result<Survey, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed("survey", format!("{}: {error}", dir.display()));
    let view = node.store().view(&space).ok_or_else(|| failed(&"the space is gone"))?;
    let claims = Claims::read(&view);
    let state = node.home().folder_state(&space).with_extension("survey");
    let _ = std::fs::remove_file(&state);
    let mut folder = Folder::open(dir, &state).map_err(|error| failed(&error))?;
    let mut survey = Survey::default();
    loop {
        let scan = folder.scan(None, &mut |_| Ok(()), &mut |_| {}).map_err(|error| failed(&error))?;
        for change in &scan.changes {
            survey.files += 1;
            survey.adopted += usize::from(holds_already(&view, &claims, change));
            let none = (TimelineId([0; 32]), sealtide_ibgib::Sid([0; 32]));
            folder.settle(change, none.0, none.1).map_err(|error| failed(&error))?;
        }
        if !scan.more {
            break;
        }
    }
    drop(folder);
    let _ = std::fs::remove_file(&state);
    Ok(survey)
}

fn holds_already(view: &SpaceHandle, claims: &Claims, change: &sealtide_folder::LocalChange) -> bool {
    let tips = claims.claimants(&change.path).into_iter().filter_map(|id| tips(view, &id).into_iter().next());
    tips.into_iter().any(|(_, held)| match (&change.found, &held.content) {
        (Found::File { content: FoundContent::Text(found), .. }, Content::Text(text)) => found == text,
        (Found::File { content: FoundContent::Small(bytes), .. }, Content::Bin(address)) => {
            binary_record(bytes.clone()).address() == address
        }
        (Found::File { content: FoundContent::Large(manifest), .. }, Content::Bin(address)) => {
            manifest.records().last().is_some_and(|record| record.address() == address)
        }
        (Found::Symlink { target: found, .. }, Content::Target(target)) => found == target,
        (Found::Dir { .. }, Content::None) => held.kind == FileKind::Dir,
        _ => false,
    })
}

impl Share {
    /// Opens the directory and starts its thread; the first scan and check-out begin at once.
    ///
    /// # Errors
    /// When the directory or its state cannot be opened.
    pub fn start(engine: Engine<RealWorld>, space: SpaceId, dir: &Path, state: &Path) -> Result<Self, Failure> {
        let folder = Folder::open(dir, state).map_err(|error| {
            let failure = Failure::failed("folder", crate::failure::whole(&error));
            match error {
                FolderError::RootReplaced { .. } => failure.hint(
                    "mount it; where this is the directory all the same, `sealtide spaces folder SPACE DIR --yes` compares it anew, and what it lacks comes back",
                ),
                _ => failure,
            }
        })?;
        let view =
            engine.store().view(&space).ok_or_else(|| Failure::failed("no_space", format!("no space {space}")))?;
        let (orders, inbox) = channel();
        let shared = Shared {
            space,
            dir: dir.to_owned(),
            orders: orders.clone(),
            status: Mutex::default(),
            claims: Mutex::default(),
            looked: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: Mutex::new(None),
        };
        let share = Self(Arc::new(shared));
        let tasks = Handle::current();
        let watching = share.watch(&tasks);
        let events = engine.subscribe();
        let lately = Lately::read(engine.known().setting(&lately_key(&space)).as_deref());
        forward_news(&engine, space, orders);
        let worker = Worker {
            share: share.clone(),
            engine,
            space,
            view,
            folder,
            events,
            stale: BTreeSet::new(),
            try_again: false,
            paused: false,
            unlooked: BTreeSet::new(),
            busy: BTreeMap::new(),
            may_record: None,
            notes_lag: true,
            again: Again::default(),
            lately,
            look_at: Instant::now() + LOOK,
            tasks,
            watching,
        };
        // Until the first scan is recorded nobody may be told that the space is in step.
        worker.engine.reading(space, true);
        let name = format!("folder {}", space.short());
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run(&inbox))?;
        *lock(&share.0.stopped) = Some(thread);
        Ok(share)
    }

    /// Which space.
    pub fn space(&self) -> SpaceId {
        self.0.space
    }

    /// Which directory.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The timelines that a person means by a path of the directory, aliases included; `None` while the folder has not
    /// looked yet.
    pub(crate) fn timelines_at(&self, path: &str) -> Option<Vec<TimelineId>> {
        self.0.looked.load(Ordering::Acquire).then(|| lock(&self.0.claims).named(path))
    }

    /// The timelines with the newest versions, at most `limit`, and some more; `None` while the folder has not looked yet.
    pub(crate) fn newest(&self, limit: usize) -> Option<Vec<TimelineId>> {
        self.0.looked.load(Ordering::Acquire).then(|| lock(&self.0.claims).newest(limit))
    }

    /// What stands in a directory of it; `None` while the folder has not looked yet.
    pub(crate) fn children(&self, under: &str) -> Option<Vec<Child>> {
        self.0.looked.load(Ordering::Acquire).then(|| lock(&self.0.claims).children(under))
    }

    /// What it tells of itself.
    pub fn status(&self) -> ShareStatus {
        lock(&self.0.status).clone()
    }

    /// Waits until the directory was scanned whole and everything recorded and checked out, or until that failed, which the status tells.
    /// Another directory where the known one was is waited for until it is taken or refused.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        let _ = self.0.orders.send(Order::Flush(done));
        let _ = flushed.await;
    }

    /// Lets a held check-out happen, or records the directory as it stands over it.
    ///
    /// # Errors
    /// When nothing is held.
    pub async fn decide_hold(&self, accept: bool) -> Result<(), Failure> {
        let (done, decided) = oneshot::channel();
        let _ = self.0.orders.send(Order::Hold(accept, done));
        decided.await.unwrap_or_else(|_| Err(Failure::failed("stopped", "the folder has stopped")))
    }

    /// Leaves the directory alone, or goes on.
    pub fn pause(&self, paused: bool) {
        let _ = self.0.orders.send(Order::Pause(paused));
    }

    /// Ends the thread after the step it is in. A step that takes longer than a few seconds (a scan of very many files)
    /// is left to itself: it changes nothing that a crash would not leave in order.
    pub fn stop(&self) {
        self.0.stopping.store(true, Ordering::Release);
        let _ = self.0.orders.send(Order::Stop);
        let Some(thread) = lock(&self.0.stopped).take() else { return };
        let until = Instant::now() + STOP;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            let _ = thread.join();
        } else {
            tracing::info!(dir = %self.dir().display(), "the folder is left in the middle of a step");
        }
    }

    /// Watches the directory from now on, or says why not.
    fn watch(&self, tasks: &Handle) -> Option<JoinHandle<()>> {
        let watcher = sealtide_folder::watch(self.dir());
        let unwatched = match &watcher {
            Ok(watcher) => watcher.denied().map(|dir| format!("{} cannot be read", dir.display())),
            Err(error) => Some(crate::failure::whole(error)),
        };
        if let Some(reason) = &unwatched {
            tracing::warn!(dir = %self.dir().display(), reason, "changes are found by looking for them");
        }
        self.update(|status| status.unwatched = unwatched);
        let mut watcher = watcher.ok()?;
        let share = self.clone();
        Some(tasks.spawn(async move {
            while let Some(seen) = watcher.next().await {
                let order = match seen {
                    Dirty::Paths(paths) => Order::Dirty(paths),
                    Dirty::Overflow => Order::FullScan,
                    Dirty::Blind(reason) => {
                        tracing::warn!(dir = %share.dir().display(), reason, "changes are found by looking for them from now on");
                        share.update(|status| status.unwatched = Some(reason));
                        Order::FullScan
                    }
                };
                if share.0.orders.send(order).is_err() {
                    break;
                }
            }
        }))
    }

    fn status_of<T>(&self, look: impl FnOnce(&ShareStatus) -> T) -> T {
        look(&lock(&self.0.status))
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut ShareStatus)) {
        change(&mut lock(&self.0.status));
    }
}

/// Wakes the worker when something happened in the engine; it reads the events itself, so that a `flush` sees all that
/// happened before it.
fn forward_news(engine: &Engine<RealWorld>, space: SpaceId, orders: Sender<Order>) {
    let mut events = engine.subscribe();
    let mut grants = engine.grants_watch();
    let mut wishes = engine.keep_folder(space);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(done) = wishes.recv() => {
                    if orders.send(Order::Flush(done)).is_err() {
                        break;
                    }
                    continue;
                }
                event = events.recv() => match event {
                    Ok(Event::Changed { space: changed, .. }) if changed == space => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break,
                    Ok(_) => continue,
                },
                changed = grants.changed() => if changed.is_err() { break },
            }
            if orders.send(Order::News).is_err() {
                break;
            }
        }
    });
}

/// The thread of one folder.
struct Worker {
    share: Share,
    engine: Engine<RealWorld>,
    space: SpaceId,
    view: SpaceHandle,
    folder: Folder,
    events: broadcast::Receiver<Event>,
    /// Paths whose placement must be looked at.
    stale: BTreeSet<String>,
    /// Whether some of them may be placed later with nothing told of by the watch or the engine.
    try_again: bool,
    paused: bool,
    /// Paths to scan again a little later.
    unlooked: BTreeSet<String>,
    /// Files that changed while they were read, and until when they are left alone.
    busy: BTreeMap<String, Instant>,
    /// Whether the own role let changes be recorded when it was last looked at.
    may_record: Option<bool>,
    /// Whether the notes about the directory may be older than the frames made of it, as a crash leaves them: until the
    /// first scan after the start is recorded.
    notes_lag: bool,
    /// What is read a second time.
    again: Again,
    /// What check-outs removed lately.
    lately: Lately,
    /// When to look through all of the directory, whatever the watch says.
    look_at: Instant,
    /// Where the watch runs …
    tasks: Handle,
    /// … which is this task.
    watching: Option<JoinHandle<()>>,
}

/// Files that are read a second time, once no write can hide any more. A program that writes through a shared memory map leaves the
/// times as they are while the page waits for the disk, which takes half a minute.
#[derive(Default)]
struct Again {
    /// By the time when they are due.
    paths: VecDeque<(Instant, String, u64)>,
    bytes: u64,
}

impl Again {
    /// Notes a file that was recorded, if it had changed a moment before. At most so many and so large, since this reads all of them.
    fn note(&mut self, change: &LocalChange, now: Instant, wall_ms: u64) {
        let size = change.stat.size;
        let is_young =
            wall_ms.saturating_sub(u64::try_from(change.stat.mtime_ms()).unwrap_or(0)) < AGAIN.as_millis() as u64;
        let fits = self.paths.len() < AGAIN_FILES && self.bytes + size <= AGAIN_BYTES;
        if change.found != Found::Gone && change.stat.kind == FileKind::File && is_young && fits {
            self.bytes += size;
            self.paths.push_back((now + AGAIN, change.path.clone(), size));
        }
    }

    /// Those that are due.
    fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due = Vec::new();
        while let Some((_, path, size)) = self.paths.pop_front_if(|(at, ..)| *at <= now) {
            self.bytes -= size;
            due.push(path);
        }
        due
    }

    fn next(&self) -> Option<Instant> {
        self.paths.front().map(|(at, ..)| *at)
    }
}

/// What a round has to do.
#[derive(Default)]
struct Round {
    full: bool,
    dirty: BTreeSet<String>,
    flushed: Vec<oneshot::Sender<()>>,
    hold: Option<(bool, oneshot::Sender<Result<(), Failure>>)>,
    stop: bool,
}

impl Worker {
    fn run(mut self, inbox: &Receiver<Order>) {
        self.is_at_work(Phase::Scanning);
        self.read_claims();
        let mut round = Round { full: true, ..Round::default() };
        let mut retry_at: Option<Instant> = None;
        let (mut unread, mut failed, mut settling) = (true, false, false);
        loop {
            self.read_news(&mut round);
            if self.paused {
                if let Some((_, done)) = round.hold.take() {
                    let paused = Failure::failed("paused", "the space is paused").hint("`sealtide resume` goes on");
                    let _ = done.send(Err(paused));
                }
            } else {
                if retry_at.is_some_and(|at| at <= Instant::now()) {
                    retry_at = None;
                    round.dirty.append(&mut self.unlooked);
                }
                self.look_now_and_then(&mut round);
                self.look_again(&mut round, Instant::now());
                let began = Instant::now();
                let outcome = self.step(&mut round);
                if let Err(failure) = &outcome
                    && let Some((_, done)) = round.hold.take()
                {
                    // Nobody waits for an answer that the next try may give.
                    let _ = done.send(Err(failure.clone()));
                }
                if std::mem::take(&mut unread) {
                    self.engine.reading(self.space, false);
                }
                if self.share.0.stopping.load(Ordering::Acquire) {
                    return;
                }
                // Another directory may stand there now.
                let came_back = std::mem::replace(&mut failed, outcome.is_err()) && outcome.is_ok();
                settling = self.folder.is_settling();
                if self.follow_root(&mut round) {
                    // It was taken, and what it lacks is not checked out yet.
                    (retry_at, settling) = (Some(Instant::now()), true);
                } else if came_back {
                    self.watch_anew();
                }
                if let Err(failure) = &outcome {
                    let dir = self.share.dir();
                    // A copy that is still being made is waited for.
                    if self.folder.is_settling() {
                        tracing::info!(dir = %dir.display(), %failure, "the folder waits");
                    } else {
                        tracing::warn!(dir = %dir.display(), error = %failure, "the folder could not be synced");
                    }
                    round.full = true;
                }
                if outcome.is_err() && self.folder.has_failed() {
                    self.open_notes_again();
                }
                if settling {
                    let soon = Instant::now() + RETRY;
                    retry_at = Some(retry_at.map_or(soon, |at| at.min(soon)));
                } else if retry_at.is_none() && (outcome.is_err() || !self.unlooked.is_empty()) {
                    // What takes long and fails, as a file that fills the disk, is not done over and over.
                    retry_at = Some(Instant::now() + RETRY.max((began.elapsed() * LOOK_PART).min(LOOK)));
                } else if retry_at.is_none() && self.waits_for_a_place() {
                    retry_at = Some(Instant::now() + RETRY.max(began.elapsed() * LOOK_PART));
                }
                let files = self.claims().live_count() as u64;
                self.share.update(|status| {
                    (status.phase, status.files) = (Phase::Idle, files);
                    status.failed = outcome.err().map(|failure| failure.message);
                });
            }
            // Whoever waits until all was looked through waits until it is known whether this directory is the one.
            if self.paused || !settling {
                for done in round.flushed.drain(..) {
                    let _ = done.send(());
                }
            }
            let others = retry_at.into_iter().chain(self.again.next());
            let next = others.fold(self.look_at, Instant::min);
            let wait = if self.paused { LOOK } else { next.saturating_duration_since(Instant::now()) };
            match inbox.recv_timeout(wait) {
                Ok(order) => self.take(order, &mut round),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while let Ok(order) = inbox.try_recv() {
                self.take(order, &mut round);
            }
            if round.stop {
                return;
            }
        }
    }

    /// Whether a check-out left something that may be placed later, and nobody has to decide about it.
    fn waits_for_a_place(&self) -> bool {
        self.try_again && !self.stale.is_empty() && self.share.status_of(|status| status.held.is_none())
    }

    /// Looks through all of the directory when it is time to; where it is not watched, tries to watch it again.
    fn look_now_and_then(&mut self, round: &mut Round) {
        if Instant::now() < self.look_at {
            return;
        }
        round.full = true;
        self.look_at = Instant::now() + LOOK_UNWATCHED;
        if self.share.status_of(|status| status.unwatched.is_some()) {
            self.watch_anew();
        }
    }

    fn look_again(&mut self, round: &mut Round, now: Instant) {
        for path in self.again.due(now) {
            self.folder.doubt(&path);
            round.dirty.insert(path);
        }
    }

    /// Where another directory took the place of the one that was known, that one is watched from now on, and looked through at once: what
    /// happened in it before, nobody told of. What it lacks is checked out.
    fn follow_root(&mut self, round: &mut Round) -> bool {
        let took = self.folder.took_another();
        if took {
            self.watch_anew();
            self.read_claims();
            round.full = true;
        }
        took
    }

    fn watch_anew(&mut self) {
        self.watching.take().inspect(JoinHandle::abort);
        self.watching = self.share.watch(&self.tasks);
    }

    /// All of the directory was looked through, which took this long.
    fn looked(&mut self, took: Duration) {
        let unwatched = self.share.status_of(|status| status.unwatched.is_some());
        let pause = if unwatched { LOOK_UNWATCHED } else { LOOK };
        self.look_at = Instant::now() + pause.max(took * LOOK_PART);
    }

    /// The notes about the directory failed, as on a full disk. They are opened again, as after a crash: the last of them may be lost.
    fn open_notes_again(&mut self) {
        match self.folder.open_again() {
            Ok(()) => {
                tracing::warn!(dir = %self.share.dir().display(), "the notes about the folder were opened again");
                self.notes_lag = true;
                self.read_claims();
            }
            Err(error) => tracing::warn!(
                error = crate::failure::whole(&error),
                "the notes about a folder cannot be opened again yet"
            ),
        }
    }

    fn read_claims(&mut self) {
        let claims = Claims::read(&self.view);
        self.stale = claims.live_paths();
        self.stale.extend(self.folder.entries().map(|(path, _)| path.to_owned()));
        *self.claims() = claims;
        self.share.0.looked.store(true, Ordering::Release);
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        lock(&self.share.0.claims)
    }

    /// Whoever asks should not take the folder for done while this finds out what is to be done: thousands of timelines take a while.
    fn is_at_work(&self, phase: Phase) {
        if !self.paused {
            self.share.update(|status| status.phase = phase);
        }
    }

    /// Takes in what happened in the engine.
    fn read_news(&mut self, round: &mut Round) {
        loop {
            match self.events.try_recv() {
                Ok(Event::Changed { space, timelines, .. }) if space == self.space => {
                    self.is_at_work(Phase::CheckingOut);
                    self.refresh(&timelines);
                }
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.is_at_work(Phase::CheckingOut);
                    self.read_claims();
                }
                Err(_) => break,
            }
        }
        // Changes that were only listed may be recorded now.
        let may_record = self.own_role() >= Some(Role::Write);
        round.full |= may_record && self.may_record == Some(false);
        self.may_record = Some(may_record);
    }

    /// An error when the folder is to stop.
    fn go_on(&self) -> Result<(), Failure> {
        match self.share.0.stopping.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(Failure::new(Exit::Interrupted, "stopping", "the folder is stopping")),
        }
    }

    fn take(&mut self, order: Order, round: &mut Round) {
        match order {
            Order::Dirty(paths) => round.dirty.extend(paths),
            Order::FullScan => round.full = true,
            Order::News => {}
            Order::Flush(done) => {
                round.full = true;
                round.flushed.push(done);
            }
            Order::Hold(accept, done) => round.hold = Some((accept, done)),
            Order::Pause(paused) => {
                round.full |= self.paused && !paused;
                self.paused = paused;
            }
            Order::Stop => round.stop = true,
        }
    }

    /// Looks again at timelines whose tips moved; their paths become stale.
    fn refresh(&mut self, timelines: &[TimelineId]) {
        for timeline in timelines {
            let touched = self.claims().refresh(&self.view, *timeline);
            self.stale.extend(touched);
        }
    }

    /// Puts off what changed while it was last read: a file that is written all the time would be read all the time.
    fn put_off_busy(&mut self, round: &mut Round, now: Instant) {
        self.busy.retain(|_, until| *until > now);
        self.unlooked.extend(round.dirty.extract_if(.., |path| self.busy.contains_key(path)));
    }

    /// Notes files that changed while they were read, in a scan that took this long.
    fn note_busy(&mut self, skipped: &[(String, SkipReason)], took: Duration) {
        let until = Instant::now() + (took * LOOK_PART).min(LOOK);
        let changing = skipped.iter().filter(|(_, reason)| *reason == SkipReason::Changing);
        self.busy.extend(changing.map(|(path, _)| (path.clone(), until)));
    }

    fn step(&mut self, round: &mut Round) -> Result<(), Failure> {
        self.put_off_busy(round, Instant::now());
        if round.full || !round.dirty.is_empty() {
            let only: Option<Vec<String>> = (!round.full).then(|| round.dirty.iter().cloned().collect());
            let began = Instant::now();
            self.record(only.as_deref())?;
            if round.full {
                self.looked(began.elapsed());
            }
            round.full = false;
            round.dirty.clear();
        }
        if let Some((accept, done)) = round.hold.take() {
            let _ = done.send(self.hold_decided(accept));
        }
        // A check-out may find local changes in its way: they are recorded, then it goes on.
        for _ in 0..3 {
            if self.stale.is_empty() {
                break;
            }
            let dirty = self.check_out(false)?;
            // What is written all the time is put off here too.
            let (busy, dirty): (Vec<_>, Vec<_>) = dirty.into_iter().partition(|path| self.busy.contains_key(path));
            self.unlooked.extend(busy);
            if dirty.is_empty() {
                break;
            }
            // What is gone may stand under another name, and only together are the two a rename.
            let is_gone = dirty.iter().any(|path| !self.stands(path));
            self.record((!is_gone).then_some(&dirty[..]))?;
        }
        Ok(())
    }

    fn own_role(&self) -> Option<Role> {
        self.engine.role(&self.engine.id(), &self.space)
    }
}

/// Whether placing it later may go, with nothing said by the watch: a mount, say, or what was in the way is gone already.
fn may_go(reason: &SkipReason) -> bool {
    !matches!(reason, SkipReason::Ignored | SkipReason::BadPath(_))
}

/// Whether trying again later, with nothing changed here, may help.
fn is_passing(reason: &SkipReason) -> bool {
    matches!(reason, SkipReason::Changing | SkipReason::System(_) | SkipReason::Content(_))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
