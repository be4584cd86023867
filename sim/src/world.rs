//! The world of a simulated node: virtual time with a wall clock of its own, seeded chance, and a store whose writes
//! take time, fail and crash.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_crypto::{Entropy, Now};
use sealtide_ibgib::Sid;
use sealtide_identity::SpaceId;
use sealtide_node::world::{Staged, World};
use sealtide_store::mem::MemDisk;
use sealtide_store::{CommitError, Store, StoreError};
use sealtide_sync::{CommitRequest, CommitResult, SagaId, SpaceView};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::dice::Dice;
use crate::guard;
use crate::net::SimSession;
use crate::trace::Trace;

/// Wall time when a run begins: 2026-01-01.
const WALL_MS: u64 = 1_767_225_600_000;

/// When and how writes go wrong.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// Staging, a sync or a commit takes up to this many ms.
    pub delay_ms: u64,
    /// The power is cut at the n-th write from now.
    pub crash_in: Option<u64>,
}

/// What a node has promised, and what it was asked for without having promised anything yet.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// Members of a space that a commit has reported durable.
    pub durable: BTreeMap<SpaceId, BTreeSet<Sid>>,
    /// Commits that were asked for: all of it may be there after a crash, or nothing.
    pub asked: Vec<(SpaceId, BTreeSet<Sid>)>,
}

/// The world of one run of one node: from its start to its crash or end.
#[derive(Clone)]
pub struct SimWorld(Arc<Shared>);

struct Shared {
    name: String,
    disk: MemDisk,
    trace: Trace,
    start: Instant,
    /// Added to the wall clock, ms.
    skew_ms: u64,
    dice: Mutex<Dice>,
    faults: Mutex<Faults>,
    promises: Mutex<Promises>,
    /// What is left on the disk after the crash, once there was one.
    image: Mutex<Option<MemDisk>>,
    dead: AtomicBool,
    /// Tells of the crash, in the order of asking: a watch would wake its waiters in an order of its own.
    crashed: Notify,
    /// Writes that reached the store.
    writes: AtomicU64,
}

impl SimWorld {
    /// A world around a disk. `skew_ms` is added to the wall clock.
    pub fn new(name: &str, disk: MemDisk, skew_ms: u64, dice: Dice, trace: &Trace) -> Self {
        Self(Arc::new(Shared {
            name: name.to_owned(),
            disk,
            trace: trace.clone(),
            start: Instant::now(),
            skew_ms,
            dice: Mutex::new(dice),
            faults: Mutex::new(Faults { delay_ms: 0, crash_in: None }),
            promises: Mutex::default(),
            image: Mutex::default(),
            dead: AtomicBool::new(false),
            crashed: Notify::new(),
            writes: AtomicU64::new(0),
        }))
    }

    /// Decides how writes go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        *guard(&self.0.faults) = faults;
    }

    /// The disk below the store.
    pub fn disk(&self) -> &MemDisk {
        &self.0.disk
    }

    /// Waits for the crash.
    pub async fn crashed(&self) {
        let crashed = self.0.crashed.notified();
        if !self.is_dead() {
            crashed.await;
        }
    }

    /// Whether it has crashed.
    pub fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::Relaxed)
    }

    /// Cuts the power now.
    pub fn crash(&self, why: &str) {
        if self.is_dead() {
            return;
        }
        let seed = guard(&self.0.dice).word();
        *guard(&self.0.image) = Some(self.0.disk.crash(seed));
        self.0.trace.note(&self.0.name, format_args!("crashes {why}"));
        self.0.dead.store(true, Ordering::Relaxed);
        self.0.crashed.notify_waiters();
    }

    /// What the crash left on the disk.
    pub fn image(&self) -> Option<MemDisk> {
        guard(&self.0.image).clone()
    }

    /// What was promised until the crash.
    pub fn promises(&self) -> Promises {
        guard(&self.0.promises).clone()
    }

    /// Writes that reached the store.
    pub fn writes(&self) -> u64 {
        self.0.writes.load(Ordering::Relaxed)
    }

    /// Waits as long as a disk may, then says whether the power is cut at this write.
    async fn before_write(&self) -> bool {
        let delay = {
            let faults = guard(&self.0.faults);
            guard(&self.0.dice).below(faults.delay_ms + 1)
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if self.is_dead() {
            pending::<()>().await;
        }
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        let mut faults = guard(&self.0.faults);
        faults.crash_in = faults.crash_in.map(|left| left.saturating_sub(1));
        faults.crash_in == Some(0)
    }

    /// Performs a write, with the power cut before, within or after it when its time has come.
    async fn write<T, E>(&self, store: &Store, work: impl FnOnce(&Store) -> Result<T, E> + Send) -> Result<T, E>
    where
        T: Send,
        E: Send,
    {
        if !self.before_write().await {
            return work(store);
        }
        let (place, step) = {
            let mut dice = guard(&self.0.dice);
            (dice.below(3), dice.below(4))
        };
        let why = match place {
            0 => "before a write",
            1 => {
                self.0.disk.fail_from(Some(self.0.disk.calls() + 1 + step));
                let _ = work(store);
                "within a write"
            }
            _ => {
                let _ = work(store);
                "after a write"
            }
        };
        self.crash(why);
        pending().await
    }

    /// A store whose log cannot be trusted any more is opened anew.
    fn look_at(&self, error: &StoreError) {
        if matches!(error, StoreError::Failed | StoreError::Io(_)) {
            self.crash("because its disk failed");
        }
    }

    fn ask(&self, store: &Store, space: SpaceId, request: &CommitRequest) {
        let mut sids: BTreeSet<Sid> = request.records.iter().map(sealtide_ibgib::Verified::sid).collect();
        if let (Some(saga), Some(view)) = (request.saga, store.view(&space)) {
            sids.extend(request.staged.clone().unwrap_or_else(|| view.staged(&saga)));
        }
        guard(&self.0.promises).asked.push((space, sids));
    }

    /// Every member that a reader sees now is durable.
    fn promise(&self, store: &Store, space: SpaceId) {
        let members = members(store, &space);
        guard(&self.0.promises).durable.insert(space, members);
    }
}

/// The member records of a space.
pub fn members(store: &Store, space: &SpaceId) -> BTreeSet<Sid> {
    let all = store.view(space).map(|view| view.bulk(None, usize::MAX)).unwrap_or_default();
    all.into_iter().map(|(_, sid)| sid).collect()
}

impl World for SimWorld {
    type Session = SimSession;

    fn now(&self) -> Now {
        let passed = self.0.start.elapsed().as_millis() as u64;
        Now { mono_ms: 1_000_000 + passed, wall_ms: WALL_MS + self.0.skew_ms + self.0.trace.elapsed_ms() }
    }

    fn entropy(&self) -> Box<dyn Entropy> {
        Box::new(guard(&self.0.dice).split())
    }

    async fn stage(&self, store: &Store, space: SpaceId, saga: SagaId, staged: Staged) -> Result<(), StoreError> {
        let result = self.write(store, |store| store.stage(&space, &saga, &staged.records, &staged.chunks)).await;
        if let Err(error) = &result {
            self.0.trace.note(&self.0.name, format_args!("cannot stage: {error}"));
            self.look_at(error);
        }
        result
    }

    async fn sync(&self, store: &Store) -> Result<(), StoreError> {
        let result = self.write(store, Store::sync).await;
        if let Err(error) = &result {
            self.0.trace.note(&self.0.name, format_args!("cannot sync: {error}"));
            self.look_at(error);
        }
        result
    }

    async fn commit(&self, store: &Store, space: SpaceId, request: CommitRequest) -> Result<CommitResult, CommitError> {
        let result = self
            .write(store, |store| {
                self.ask(store, space, &request);
                store.commit(&space, &request)
            })
            .await;
        match &result {
            Ok(_) => self.promise(store, space),
            Err(error) => {
                self.0.trace.note(&self.0.name, format_args!("cannot commit: {error}"));
                if let CommitError::Store(error) = error {
                    self.look_at(error);
                }
            }
        }
        result
    }
}
