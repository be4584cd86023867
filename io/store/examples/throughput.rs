//! Prints how fast this machine fills, opens and reads a store: `cargo run --example throughput -- 200000`.

#![allow(clippy::print_stdout, reason = "this is what it is for")]
#![allow(clippy::unwrap_used, reason = "an example stops at the first error")]

use std::time::Instant;

use sealtide_ibgib::{Data, Object, Relations, Stamp, Verified, evolve, genesis, stone};
use sealtide_store::{Store, conformance};
use sealtide_sync::{SagaId, SpaceView};

fn rate(what: &str, count: usize, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    println!("{what:<42} {:>10.0}/s  {:>8.1} ms", count as f64 / seconds, seconds * 1000.0);
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn records(count: usize, kind: &str) -> Vec<Verified> {
    let mut out = Vec::with_capacity(count);
    let mut frame = None;
    for number in 0..count {
        let mut data = Object::new();
        data.insert("text".to_owned(), format!("{number:0400}").into());
        let stamp = Stamp { ms: 1_700_000_000_000 + number as u64 };
        let record = match (kind, &frame) {
            ("stones", _) => stone("note", Data::Json(data.into()), Relations::new()),
            ("timeline", Some(prev)) => evolve(prev, data, Relations::new(), stamp),
            _ => genesis("doc", data, Relations::new(), stamp, &format!("{number:064x}")),
        };
        frame = Some(record.clone());
        out.push(record);
    }
    out
}

fn main() {
    let count: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000);
    for kind in ["stones", "timelines", "timeline"] {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open_dir(home.path()).unwrap();
        let space = store.create_space(conformance::space_frame(1)).unwrap();
        let all = records(count, kind);
        let half = count / 2;
        println!("{count} records: {kind}, {} bytes each", all[count - 1].encoded().len());
        let before = resident_kib();

        let start = Instant::now();
        for batch in all[..half].chunks(1000) {
            store.commit(&space, &conformance::local(batch.to_vec())).unwrap();
        }
        rate("local commits of 1000, durable", half, start);

        let saga = SagaId([1; 32]);
        let start = Instant::now();
        for batch in all[half..].chunks(1000) {
            store.stage(&space, &saga, batch, &[]).unwrap();
            store.sync().unwrap();
        }
        rate("staged in batches of 1000, durable", count - half, start);
        let start = Instant::now();
        store.commit(&space, &conformance::of_saga(saga)).unwrap();
        rate("commit of the saga", count - half, start);
        println!("{:<42} {:>10} bytes a record", "memory of the index", (resident_kib() - before) * 1024 / count);

        let start = Instant::now();
        for number in 0..1000 {
            store.commit(&space, &conformance::local(vec![conformance::stone_of(&number.to_string())])).unwrap();
        }
        rate("single durable commits", 1000, start);
        let start = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..16 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..200 {
                        let record = conformance::stone_of(&format!("{thread} {number}"));
                        store.commit(&space, &conformance::local(vec![record])).unwrap();
                    }
                });
            }
        });
        rate("single durable commits, 16 writers", 3200, start);

        let view = store.view(&space).unwrap();
        let start = Instant::now();
        let found = all.iter().step_by(7).filter(|record| view.record(&record.sid()).is_some()).count();
        rate("reads", found, start);
        let start = Instant::now();
        view.snapshot();
        rate("snapshot", 1, start);
        drop((view, store));
        let start = Instant::now();
        let store = Store::open_dir(home.path()).unwrap();
        rate("open", count, start);
        drop(store);
    }
}
