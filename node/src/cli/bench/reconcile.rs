//! `bench reconcile`: what two large spaces must say to each other to find a small difference, and how much memory that
//! takes. Two stores on disk, both ends of real sagas, a channel that counts. Spec: SY-40, SY-41, SY-42, SY-44

use std::collections::VecDeque;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use sealtide_crypto::Now;
use sealtide_ibgib::{Data, Object, Relations, Stamp, Verified, evolve, genesis, stone};
use sealtide_identity::{NodeId, Role, SpaceId};
use sealtide_store::{SpaceHandle, Store};
use sealtide_sync::negentropy::Splitter;
use sealtide_sync::{
    CommitRequest, Direction, Limits, Mode, Saga, SagaConfig, SagaId, SagaInput, SagaOutcome, SagaOutput, Scope,
    SpaceView, Strategy,
};
use serde_json::{Value, json};

use super::Sizes;
use super::far_end::{Far, Order, Remote, Reply};
use super::memory::{self, Watch};
use crate::failure::Failure;

const SPACE: SpaceId = SpaceId::from_bytes([7; 32]);
/// The store that both ends are copies of.
const FILLED: &str = "filled";
/// Records of one local commit while the stores are filled.
const FILL: usize = 5_000;

/// What one saga cost.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) mode: Mode,
    /// RECON, TIPLIST and DIFF, both ways.
    pub(super) reconciliation_bytes: usize,
    /// BATCH.
    pub(super) payload_bytes: usize,
    /// Everything else.
    pub(super) other_bytes: usize,
    /// Questions of the reconciliation, each with an answer.
    pub(super) rounds: usize,
    /// Turns of the whole saga: all that one side has to say, then all that the other has.
    pub(super) round_trips: usize,
    /// Records that arrived on both sides.
    pub(super) records: u64,
    pub(super) seconds: f64,
}

impl Cost {
    fn json(&self) -> Value {
        json!({
            "mode": format!("{:?}", self.mode).to_lowercase(),
            "reconciliation_bytes": self.reconciliation_bytes,
            "payload_bytes": self.payload_bytes,
            "other_bytes": self.other_bytes,
            "rounds": self.rounds,
            "round_trips": self.round_trips,
            "records": self.records,
            "seconds": (self.seconds * 1000.0).round() / 1000.0,
        })
    }
}

/// The sagas that are measured, in order.
#[derive(Debug)]
pub(super) struct Costs {
    /// Both sides have the same.
    pub(super) equal: Cost,
    /// Each side has half of the differences, as records that no tip refers to: level 1.
    pub(super) items: Cost,
    /// Each side has half of the differences, as new timelines: level 0.
    pub(super) tips: Cost,
    /// One side has one new frame of an old timeline.
    pub(super) frame: Cost,
    /// Seconds of sixteen sagas at once, that find as many differences as there were before.
    pub(super) sixteen: f64,
}

/// Fills two stores below `dir` and measures. With a limit of memory the other end is a process of its own, and each of
/// the two has the limit.
pub(super) fn reconcile(dir: &Path, sizes: &Sizes) -> Result<Value, Failure> {
    let (items, differences) = (sizes.items, sizes.differences);
    if let Some(mib) = sizes.memory_mib {
        memory::limit(mib << 20)?;
    }
    let watch = Watch::start();
    let started = Instant::now();
    let kept = sizes.keep.as_deref().unwrap_or(dir);
    fill(kept, items)?;
    copy_both(&kept.join(FILLED), dir).map_err(|error| failed(&error))?;
    let (filled, filling) = (started.elapsed().as_secs_f64(), watch.peak());
    drop(watch);
    let started = Instant::now();
    let remote = Remote::start(&dir.join("b"), sizes.memory_mib)?;
    let watch = Watch::start();
    let mut bench = Bench::open(&dir.join("a"), Box::new(remote))?;
    let (opened, open_seconds) = (memory::anonymous(), started.elapsed().as_secs_f64());
    let costs = bench.measure(differences)?;
    let far = bench.far.ask(Order::Memory)?;
    let Reply::Memory(far_opened, far_peak) = far else { return Err(Failure::failed("bench", "no memory")) };
    let mib = |bytes: u64| (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0;
    let seconds = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
    Ok(json!({
        "schema": "sealtide/bench_reconcile/2",
        "items": items,
        "differences": differences,
        "fill_seconds": seconds(filled),
        "open_seconds": seconds(open_seconds),
        "equal": costs.equal.json(),
        "scattered_items": costs.items.json(),
        "scattered_tips": costs.tips.json(),
        "one_frame": costs.frame.json(),
        "sixteen_at_once_seconds": seconds(costs.sixteen),
        "anonymous_mib": {
            "limit": sizes.memory_mib,
            "peak_while_filling": mib(filling),
            "opened": [mib(opened), mib(far_opened)],
            "peak": [mib(watch.peak()), mib(far_peak)],
        },
    }))
}

/// Records that one side has and the other has not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Stones that nothing refers to.
    Items,
    /// First frames.
    Tips,
}

/// These records, different for every name.
pub(super) fn differences(kind: Kind, name: &str, count: usize) -> Vec<Verified> {
    let record = |number| match kind {
        Kind::Items => loose(name, number),
        Kind::Tips => frame(name, number),
    };
    (0..count).map(record).collect()
}

fn text(name: &str, number: usize) -> Object {
    let mut data = Object::new();
    data.insert("text".to_owned(), format!("{name} {number}").into());
    data
}

fn frame(name: &str, number: usize) -> Verified {
    let stamp = Stamp { ms: 1_700_000_000_000 + number as u64 };
    let uuid = sealtide_crypto::sha256(format!("{name}{number}").as_bytes());
    let uuid: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    genesis("doc", text(name, number), Relations::new(), stamp, &uuid)
}

fn loose(name: &str, number: usize) -> Verified {
    stone("note", Data::Json(text(name, number).into()), Relations::new())
}

pub(super) fn put(store: &Store, records: Vec<Verified>) -> Result<(), Failure> {
    let request = CommitRequest::local(records);
    store.commit(&SPACE, &request).map_err(|error| failed(&error))?;
    Ok(())
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::failed("bench", error.to_string())
}

/// Fills a store below `dir`, or goes on where it was left. Half of the records are first frames, half are stones.
pub(super) fn fill(dir: &Path, items: usize) -> Result<(), Failure> {
    let store = Store::open_dir(dir.join(FILLED)).map_err(|error| failed(&error))?;
    store.adopt_space(SPACE).map_err(|error| failed(&error))?;
    let there = store.view(&SPACE).and_then(|view| view.info()).map_or(0, |info| info.records as usize);
    let record = |number| if number % 2 == 0 { frame("shared", number) } else { loose("shared", number) };
    // One thread makes records while the other commits those before.
    std::thread::scope(|scope| {
        let (made, ready) = std::sync::mpsc::sync_channel(1);
        scope.spawn(move || {
            let batches = (there..items).step_by(FILL).map(|from| (from..items.min(from + FILL)).map(record).collect());
            batches.map(|records: Vec<Verified>| made.send(records)).take_while(Result::is_ok).for_each(drop);
        });
        ready.into_iter().try_for_each(|records| put(&store, records))
    })
}

/// Copies the store for both ends. Where it is kept another process may fill it further, and a copy made meanwhile would
/// hold what is half written, and share it: so it is locked, as an open store is.
fn copy_both(filled: &Path, dir: &Path) -> std::io::Result<()> {
    let lock = std::fs::File::options().write(true).open(filled.join("lock"))?;
    lock.try_lock()?;
    ["a", "b"].iter().try_for_each(|end| copy(filled, &dir.join(end)))
}

/// Copies a store. Sealed packs and runs are never written to again, so both stores may have the same file.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    let entries = std::fs::read_dir(from)?.collect::<std::io::Result<Vec<_>>>()?;
    let packs =
        entries.iter().map(std::fs::DirEntry::file_name).filter(|name| name.to_string_lossy().ends_with(".pack"));
    let newest = packs.max();
    for entry in &entries {
        let name = to.join(entry.file_name());
        let shared = match entry.path().extension().and_then(|end| end.to_str()) {
            Some("pack") => newest.as_ref() != Some(&entry.file_name()),
            Some("run") => true,
            _ => false,
        };
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &name)?;
        } else if !shared || std::fs::hard_link(entry.path(), &name).is_err() {
            std::fs::copy(entry.path(), name)?;
        }
    }
    Ok(())
}

/// A store with the same records as the far end.
pub(super) struct Bench {
    store: Store,
    far: Box<dyn Far>,
}

/// A saga under way, and what was said in it.
struct Running {
    saga: u8,
    near: End,
    started: Instant,
    /// Bytes of reconciliation, payload and everything else.
    bytes: [usize; 3],
    rounds: usize,
    turns: usize,
    over: bool,
}

impl Running {
    fn count(&mut self, messages: &[Bytes]) {
        self.turns += usize::from(!messages.is_empty());
        for message in messages {
            let kind = match message.first() {
                Some(0x12 | 0x1a | 0x1b) => 0,
                Some(0x14) => 1,
                _ => 2,
            };
            self.bytes[kind] += message.len();
        }
    }

    /// All that this side has to say, then all that the other has.
    fn round(&mut self, far: &mut dyn Far, inbox: Vec<Bytes>) -> Result<Vec<Bytes>, Failure> {
        let out = self.near.turn(inbox)?;
        self.rounds += out.iter().filter(|message| message.first() == Some(&0x12)).count();
        self.count(&out);
        let quiet = out.is_empty();
        let Reply::Said(answer) = far.ask(Order::Turn(self.saga, out))? else {
            return Err(failed(&"an answer of another kind"));
        };
        self.count(&answer);
        self.over = quiet && answer.is_empty();
        Ok(answer)
    }

    fn cost(self, far: &mut dyn Far) -> Result<Cost, Failure> {
        let seconds = self.started.elapsed().as_secs_f64();
        let (left, mode) = self.near.received()?;
        let Reply::Received(right) = far.ask(Order::Outcome(self.saga))? else {
            return Err(failed(&"an answer of another kind"));
        };
        let [reconciliation_bytes, payload_bytes, other_bytes] = self.bytes;
        let (rounds, round_trips) = (self.rounds, self.turns.div_ceil(2));
        let records = left + right;
        Ok(Cost { mode, reconciliation_bytes, payload_bytes, other_bytes, rounds, round_trips, records, seconds })
    }
}

impl Bench {
    pub(super) fn open(dir: &Path, far: Box<dyn Far>) -> Result<Self, Failure> {
        Ok(Self { store: Store::open_dir(dir).map_err(|error| failed(&error))?, far })
    }

    pub(super) fn measure(&mut self, differences: usize) -> Result<Costs, Failure> {
        let half = differences / 2;
        let equal = self.saga(1)?;
        self.differ(Kind::Items, "left", half)?;
        let items = self.saga(2)?;
        self.differ(Kind::Tips, "left", half)?;
        let tips = self.saga(3)?;
        let next = evolve(&frame("shared", 0), text("new", 0), Relations::new(), Stamp { ms: 1_800_000_000_000 });
        put(&self.store, vec![next])?;
        let frame = self.saga(4)?;
        // Only this side: what the far end makes would be what it made before.
        put(&self.store, self::differences(Kind::Tips, "more", half))?;
        put(&self.store, self::differences(Kind::Items, "more", half))?;
        let started = Instant::now();
        self.sagas(10..26)?;
        Ok(Costs { equal, items, tips, frame, sixteen: started.elapsed().as_secs_f64() })
    }

    fn differ(&mut self, kind: Kind, name: &str, count: usize) -> Result<(), Failure> {
        put(&self.store, differences(kind, name, count))?;
        self.far.ask(Order::Put(kind, count as u32)).map(|_| ())
    }

    /// Runs one saga to its end.
    fn saga(&mut self, saga: u8) -> Result<Cost, Failure> {
        let mut running = self.begin(saga)?;
        let mut inbox = Vec::new();
        while !running.over {
            inbox = running.round(&mut *self.far, inbox)?;
        }
        running.cost(&mut *self.far)
    }

    fn begin(&mut self, saga: u8) -> Result<Running, Failure> {
        self.far.ask(Order::Begin(saga))?;
        let started = Instant::now();
        let near = End::open(&self.store, saga)?;
        Ok(Running { saga, near, started, bytes: [0; 3], rounds: 0, turns: 0, over: false })
    }

    /// Runs sagas at the same time, one turn of each after the other.
    fn sagas(&mut self, sagas: std::ops::Range<u8>) -> Result<(), Failure> {
        let running = sagas.map(|saga| self.begin(saga)).collect::<Result<Vec<_>, _>>()?;
        let mut running: Vec<(Running, Vec<Bytes>)> = running.into_iter().map(|saga| (saga, Vec::new())).collect();
        while running.iter().any(|(saga, _)| !saga.over) {
            for (saga, inbox) in running.iter_mut().filter(|(saga, _)| !saga.over) {
                *inbox = saga.round(&mut *self.far, std::mem::take(inbox))?;
            }
        }
        running.into_iter().try_for_each(|(saga, _)| saga.cost(&mut *self.far).map(|_| ()))
    }
}

const NOW: Now = Now { mono_ms: 0, wall_ms: 1_700_000_000_000 };

/// One end of a saga.
pub(super) struct End {
    id: SagaId,
    store: Store,
    view: SpaceHandle,
    saga: Saga,
    outcome: Option<SagaOutcome>,
}

impl End {
    fn open(store: &Store, number: u8) -> Result<Self, Failure> {
        let begin = |view: &SpaceHandle| {
            Saga::open(NOW, config(number, 2), Scope::All, Direction::Both, Strategy::Optimistic, view)
        };
        Self::with(store, number, begin)
    }

    pub(super) fn answer(store: &Store, number: u8) -> Result<Self, Failure> {
        Self::with(store, number, |view| Saga::answer(NOW, config(number, 1), view))
    }

    fn with(store: &Store, number: u8, begin: impl FnOnce(&SpaceHandle) -> Saga) -> Result<Self, Failure> {
        let view = store.view(&SPACE).ok_or_else(|| failed(&"the space is gone"))?;
        Ok(Self { id: SagaId([number; 32]), store: store.clone(), saga: begin(&view), view, outcome: None })
    }

    /// How many records came, and in which mode.
    pub(super) fn received(&self) -> Result<(u64, Mode), Failure> {
        match &self.outcome {
            Some(SagaOutcome::Committed { received, mode, .. }) => Ok((*received, *mode)),
            other => Err(failed(&format!("a saga did not end well: {other:?}"))),
        }
    }

    /// Takes what the other end said and performs every wish that follows; gives what is to be sent.
    pub(super) fn turn(&mut self, inbox: Vec<Bytes>) -> Result<Vec<Bytes>, Failure> {
        let mut inputs: VecDeque<SagaInput> = inbox.into_iter().map(SagaInput::Message).collect();
        let mut out = Vec::new();
        loop {
            let mut durable = None;
            while let Some(wish) = self.saga.poll(&self.view as &dyn SpaceView) {
                match wish {
                    SagaOutput::Send(message) => out.push(message),
                    SagaOutput::Stage { ticket, records, chunks } => {
                        self.store.stage(&SPACE, &self.id, &records, &chunks).map_err(|error| failed(&error))?;
                        durable = Some(ticket);
                    }
                    SagaOutput::Commit(request) => {
                        let result = self.store.commit(&SPACE, &request).map_err(|error| failed(&error))?;
                        inputs.push_front(SagaInput::Committed(result));
                    }
                    SagaOutput::Done(outcome) => self.outcome = Some(outcome),
                    SagaOutput::Sign { .. } | SagaOutput::CheckSig { .. } => unreachable!("nothing is signed here"),
                    SagaOutput::Lack(_) => unreachable!("nothing may be lacking here"),
                    SagaOutput::Release(_) | SagaOutput::WakeAt(_) | SagaOutput::Progress { .. } => {}
                }
            }
            if let Some(ticket) = durable {
                self.store.sync().map_err(|error| failed(&error))?;
                inputs.push_front(SagaInput::Durable(ticket));
            }
            match inputs.pop_front() {
                Some(input) => self.saga.handle(NOW, input, &self.view),
                None => return Ok(out),
            }
        }
    }
}

fn config(saga: u8, peer: u8) -> SagaConfig {
    SagaConfig {
        saga: SagaId([saga; 32]),
        space: SPACE,
        peer: NodeId::from_bytes([peer; 32]),
        peer_role: Some(Role::Admin),
        zstd: true,
        recon: true,
        splitter: Splitter::default(),
        limits: Limits::default(),
        contexts: None,
        fresh: false,
        may_lack: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::far_end::FarEnd;

    #[test]
    fn a_store_that_somebody_has_open_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let filled = dir.path().join(FILLED);
        fill(dir.path(), 10).unwrap();
        let writer = Store::open_dir(&filled).unwrap();
        copy_both(&filled, dir.path()).unwrap_err();
        assert!(!dir.path().join("a").exists());
        drop(writer);
        copy_both(&filled, dir.path()).unwrap();
        let records = |name: &str| Store::open_dir(dir.path().join(name)).unwrap().view(&SPACE).unwrap().info();
        assert_eq!([records("a"), records("b")].map(|info| info.map(|info| info.records)), [Some(10); 2]);
    }

    // Proves: SY-40, SY-41, SY-42
    #[test]
    fn small_differences_of_large_spaces_cost_little() {
        let dir = tempfile::tempdir().unwrap();
        let scale: usize = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let (items, differences) = (20_000 * scale, 200 * scale.min(5));
        fill(dir.path(), items).unwrap();
        copy_both(&dir.path().join(FILLED), dir.path()).unwrap();
        let far = Box::new(FarEnd::open(&dir.path().join("b")).unwrap());
        let costs = Bench::open(&dir.path().join("a"), far).unwrap().measure(differences).unwrap();
        println!("{items} items, {differences} differences: {costs:#?}");
        let Costs { equal, items, tips, frame, .. } = &costs;
        assert_eq!([equal.mode, items.mode, tips.mode, frame.mode], [Mode::Equal, Mode::Recon, Mode::Walk, Mode::Walk]);
        assert_eq!((equal.records, equal.reconciliation_bytes, equal.payload_bytes), (0, 0, 0));
        assert!(equal.other_bytes < 4096);
        for cost in [items, tips] {
            assert_eq!(cost.records, differences as u64);
            // 2 MiB for 1,000 differences in 10 million.
            assert!(cost.reconciliation_bytes < differences * 2 * 1024 * 1024 / 1000);
            assert!(cost.rounds <= 6);
        }
        assert_eq!(frame.records, 1);
        assert!(frame.reconciliation_bytes + frame.other_bytes < 8 * 1024);
        assert!(frame.rounds <= 3);
    }
}
