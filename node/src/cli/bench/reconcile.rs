//! `bench reconcile`: what two large spaces must say to each other to find a small difference. Two stores on disk, both
//! ends of real sagas, a channel in memory that counts. Spec: SY-40, SY-41, SY-42

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

use crate::failure::Failure;

const SPACE: SpaceId = SpaceId::from_bytes([7; 32]);
/// Records of one local commit while the stores are filled.
const FILL: usize = 10_000;

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
}

/// Fills two stores below `dir` and measures.
pub(super) fn reconcile(dir: &Path, items: usize, differences: usize) -> Result<Value, Failure> {
    let started = Instant::now();
    let bench = Bench::fill(dir, items)?;
    let filled = started.elapsed().as_secs_f64();
    let costs = bench.measure(differences)?;
    Ok(json!({
        "schema": "sealtide/bench_reconcile/1",
        "items": items,
        "differences": differences,
        "fill_seconds": filled.round(),
        "equal": costs.equal.json(),
        "scattered_items": costs.items.json(),
        "scattered_tips": costs.tips.json(),
        "one_frame": costs.frame.json(),
    }))
}

/// Two stores with the same records.
pub(super) struct Bench {
    ends: [Store; 2],
    first: Verified,
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

fn put(store: &Store, records: Vec<Verified>) -> Result<(), Failure> {
    let request = CommitRequest { saga: None, staged: None, records, expected: Vec::new(), strict: false };
    store.commit(&SPACE, &request).map_err(|error| Failure::failed("bench", error.to_string()))?;
    Ok(())
}

impl Bench {
    /// Half of the records are first frames, half are stones.
    pub(super) fn fill(dir: &Path, items: usize) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed("bench", error.to_string());
        let open = |name: &str| Store::open_dir(dir.join(name)).map_err(|error| failed(&error));
        let ends = [open("a")?, open("b")?];
        for store in &ends {
            store.adopt_space(SPACE).map_err(|error| failed(&error))?;
        }
        for from in (0..items).step_by(FILL) {
            let some = from..items.min(from + FILL);
            let record = |number| if number % 2 == 0 { frame("shared", number) } else { loose("shared", number) };
            let records: Vec<_> = some.map(record).collect();
            ends.iter().try_for_each(|store| put(store, records.clone()))?;
        }
        Ok(Self { ends, first: frame("shared", 0) })
    }

    pub(super) fn measure(&self, differences: usize) -> Result<Costs, Failure> {
        let equal = self.saga(1)?;
        let half = differences / 2;
        for (store, name) in self.ends.iter().zip(["left", "right"]) {
            put(store, (0..half).map(|number| loose(name, number)).collect())?;
        }
        let items = self.saga(2)?;
        for (store, name) in self.ends.iter().zip(["left", "right"]) {
            put(store, (0..half).map(|number| frame(name, number)).collect())?;
        }
        let tips = self.saga(3)?;
        let next = evolve(&self.first, text("new", 0), Relations::new(), Stamp { ms: 1_800_000_000_000 });
        put(&self.ends[0], vec![next])?;
        let frame = self.saga(4)?;
        Ok(Costs { equal, items, tips, frame })
    }

    /// Runs one saga to its end.
    fn saga(&self, number: u8) -> Result<Cost, Failure> {
        let removed = || Failure::failed("bench", "the space is gone");
        let views = [self.ends[0].view(&SPACE).ok_or_else(removed)?, self.ends[1].view(&SPACE).ok_or_else(removed)?];
        let started = Instant::now();
        let now = Now { mono_ms: 0, wall_ms: 1_700_000_000_000 };
        let config = |peer: u8| SagaConfig {
            saga: SagaId([number; 32]),
            space: SPACE,
            peer: NodeId::from_bytes([peer; 32]),
            peer_role: Some(Role::Admin),
            zstd: true,
            recon: true,
            splitter: Splitter::default(),
            limits: Limits::default(),
            contexts: None,
            fresh: false,
        };
        let opener = Saga::open(now, config(2), Scope::All, Direction::Both, Strategy::Optimistic, &views[0]);
        let mut ends = [opener, Saga::answer(now, config(1), &views[1])].map(|saga| End { saga, outcome: None });
        let mut sent: [Vec<Bytes>; 2] = Default::default();
        let (mut inbox, mut turn, mut quiet, mut turns) = (VecDeque::new(), 0, 0, 0usize);
        while quiet < 2 {
            let mut out = Vec::new();
            let id = SagaId([number; 32]);
            ends[turn].turn(now, inbox, (&self.ends[turn], &views[turn], id), &mut out)?;
            quiet = if out.is_empty() { quiet + 1 } else { 0 };
            turns += usize::from(!out.is_empty());
            sent[turn].extend(out.iter().cloned());
            (inbox, turn) = (out.into(), 1 - turn);
        }
        let seconds = started.elapsed().as_secs_f64();
        let received = |end: &End| match &end.outcome {
            Some(SagaOutcome::Committed { received, mode, .. }) => Ok((*received, *mode)),
            other => Err(Failure::failed("bench", format!("a saga did not end well: {other:?}"))),
        };
        let ((left, mode), (right, _)) = (received(&ends[0])?, received(&ends[1])?);
        let bytes_of = |kinds: &[u8]| {
            let messages = sent.iter().flatten().filter(|message| kinds.contains(&message[0]));
            messages.map(Bytes::len).sum::<usize>()
        };
        let (reconciliation_bytes, payload_bytes) = (bytes_of(&[0x12, 0x1a, 0x1b]), bytes_of(&[0x14]));
        let all: usize = sent.iter().flatten().map(Bytes::len).sum();
        Ok(Cost {
            mode,
            reconciliation_bytes,
            payload_bytes,
            other_bytes: all - reconciliation_bytes - payload_bytes,
            rounds: sent[0].iter().filter(|message| message[0] == 0x12).count(),
            round_trips: turns.div_ceil(2),
            records: left + right,
            seconds,
        })
    }
}

/// One end of a saga.
struct End {
    saga: Saga,
    outcome: Option<SagaOutcome>,
}

impl End {
    /// Takes what the other end said and performs every wish that follows; what is to be sent goes to `out`.
    fn turn(
        &mut self,
        now: Now,
        inbox: VecDeque<Bytes>,
        (store, view, id): (&Store, &SpaceHandle, SagaId),
        out: &mut Vec<Bytes>,
    ) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::failed("bench", error.to_string());
        let mut inputs: VecDeque<SagaInput> = inbox.into_iter().map(SagaInput::Message).collect();
        loop {
            let mut durable = None;
            while let Some(wish) = self.saga.poll(view as &dyn SpaceView) {
                match wish {
                    SagaOutput::Send(message) => out.push(message),
                    SagaOutput::Stage { ticket, records, chunks } => {
                        store.stage(&SPACE, &id, &records, &chunks).map_err(|error| failed(&error))?;
                        durable = Some(ticket);
                    }
                    SagaOutput::Commit(request) => {
                        let result = store.commit(&SPACE, &request).map_err(|error| failed(&error))?;
                        inputs.push_front(SagaInput::Committed(result));
                    }
                    SagaOutput::Done(outcome) => self.outcome = Some(outcome),
                    SagaOutput::Sign { .. } | SagaOutput::CheckSig { .. } => unreachable!("nothing is signed here"),
                    SagaOutput::Release(_) | SagaOutput::WakeAt(_) | SagaOutput::Progress { .. } => {}
                }
            }
            if let Some(ticket) = durable {
                store.sync().map_err(|error| failed(&error))?;
                inputs.push_front(SagaInput::Durable(ticket));
            }
            match inputs.pop_front() {
                Some(input) => self.saga.handle(now, input, view),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-40, SY-41, SY-42
    #[test]
    fn small_differences_of_large_spaces_cost_little() {
        let dir = tempfile::tempdir().unwrap();
        let scale: usize = std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
        let (items, differences) = (20_000 * scale, 200 * scale.min(5));
        let costs = Bench::fill(dir.path(), items).unwrap().measure(differences).unwrap();
        println!("{items} items, {differences} differences: {costs:#?}");
        let Costs { equal, items, tips, frame } = &costs;
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
