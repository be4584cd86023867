//! Fills a store with many small records and prints time and memory of filling, opening and looking up:
//! `cargo run --release -p sealtide-store --example scale -- 1000000 100 [DIRECTORY]`: records, frames of each
//! timeline, and where. A directory that holds such a store already is opened only.

#![allow(clippy::print_stdout, reason = "this is what it is for")]
#![allow(clippy::unwrap_used, reason = "an example stops at the first error")]

use std::path::Path;
use std::time::{Duration, Instant};

use sealtide_ibgib::{Object, Relations, Sid, Stamp, Verified, evolve, genesis};
use sealtide_store::{Store, conformance};
use sealtide_sync::{RangeBound, SpaceView};

/// Records of one commit.
const BATCH: usize = 10_000;

fn memory(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(name));
    let kib: f64 = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

fn print(what: &str, count: usize, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    let each = seconds * 1e6 / count as f64;
    let (now, peak) = (memory("VmRSS"), memory("VmHWM"));
    println!("{what:<34} {seconds:>9.3} s {each:>9.2} us each   {now:>6.0} MiB now {peak:>6.0} MiB peak");
}

fn timeline(number: usize, frames: usize) -> Vec<Verified> {
    let data = |text: usize| Object::from_iter([("text".to_owned(), format!("{text:060}").into())]);
    let stamp = |n: usize| Stamp { ms: 1_700_000_000_000 + n as u64 };
    let mut out = vec![genesis("doc", data(number), Relations::new(), stamp(0), &format!("{number:064x}"))];
    for n in 1..frames {
        out.push(evolve(&out[n - 1], data(n), Relations::new(), stamp(n)));
    }
    out
}

fn fill(home: &Path, count: usize, frames: usize) {
    let store = Store::open_dir(home).unwrap();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let (mut made, mut number, mut inside, mut longest) = (0, 0, Duration::ZERO, Duration::ZERO);
    let start = Instant::now();
    while made < count {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            batch.extend(timeline(number, frames));
            number += 1;
        }
        made += batch.len();
        let committing = Instant::now();
        store.commit(&space, &conformance::local(batch)).unwrap();
        inside += committing.elapsed();
        longest = longest.max(committing.elapsed());
        if made % 500_000 < BATCH {
            print(&format!("  {made} made and committed"), made, start);
        }
    }
    println!("{:<34} {:>9.3} s", "  of that, in commit", inside.as_secs_f64());
    println!("{:<34} {:>9.3} s", "  longest commit", longest.as_secs_f64());
    print("fill", made, start);
    let start = Instant::now();
    drop(store);
    print("close", 1, start);
}

/// Every so many sids of the space.
fn sample(view: &impl SpaceView, count: usize) -> Vec<(u64, Sid)> {
    let step = u64::MAX / 2 / count as u64;
    (0..count as u64).filter_map(|part| view.bulk(Some((part * step, Sid([0; 32]))), 1).pop()).collect()
}

fn look(home: &Path) {
    let start = Instant::now();
    let store = Store::open_dir(home).unwrap();
    print("open", 1, start);
    let space = store.spaces().remove(0);
    let view = store.view(&space.space).unwrap();
    println!("{} records, {} tips", space.records, space.tips);
    let count = 20_000;
    let start = Instant::now();
    let items = sample(&view, count);
    print("places of the bulk stream", items.len(), start);
    for round in ["cold", "again"] {
        let start = Instant::now();
        assert!(items.iter().all(|(_, sid)| view.contains(sid)));
        print(&format!("contains, there, {round}"), items.len(), start);
    }
    let start = Instant::now();
    let strangers = (0..count as u64).filter(|n| view.contains(&Sid(conformance_hash(*n)))).count();
    print("contains, not there", count, start);
    assert_eq!(strangers, 0);
    let start = Instant::now();
    let records: Vec<Verified> = items.iter().filter_map(|(_, sid)| view.record(sid)).collect();
    print("records read", records.len(), start);
    let start = Instant::now();
    assert!(records.iter().all(|record| !view.by_address(record.address()).is_empty()));
    print("by address", records.len(), start);
    let start = Instant::now();
    for record in &records {
        let facts = record.frame_ref().unwrap();
        assert_eq!(view.frames(&facts.timeline, facts.n, facts.n, 2).len(), 1);
    }
    print("frames of a timeline by n", records.len(), start);
    let start = Instant::now();
    let whole = view.range_sum(&RangeBound::START, &RangeBound::END);
    assert_eq!(whole.0, space.records);
    print("sum of all", 1, start);
    for parts in [16u64, 4096, 65_536] {
        let start = Instant::now();
        let bound = |part: u64| RangeBound { order: (u64::MAX / parts).saturating_mul(part), id: [0; 32] };
        let sum = (0..parts).map(|part| {
            let end = if part + 1 == parts { RangeBound::END } else { bound(part + 1) };
            view.range_sum(&bound(part), &end).0
        });
        assert_eq!(sum.sum::<u64>(), space.records);
        print(&format!("sums of {parts} ranges"), parts as usize, start);
    }
    let start = Instant::now();
    let listed: usize = items
        .iter()
        .map(|(order, sid)| view.range_list(&RangeBound { order: *order, id: sid.0 }, &RangeBound::END, 32).len())
        .sum();
    print("lists of 32", listed / 32, start);
    let start = Instant::now();
    for record in records.iter().take(1000) {
        let next = conformance::next_frame(record, "one more");
        store.commit(&space.space, &conformance::local(vec![next])).unwrap();
    }
    print("single durable commits", 1000, start);
    let start = Instant::now();
    view.snapshot();
    print("snapshot", 1, start);
    drop((view, store));
}

fn conformance_hash(number: u64) -> [u8; 32] {
    sealtide_crypto::sha256(&number.to_be_bytes())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().and_then(|count| count.parse().ok()).unwrap_or(default);
    let (count, frames) = (number(1_000_000), number(100));
    let given = arguments.next();
    let temporary = tempfile::tempdir().unwrap();
    let home = given.as_ref().map_or(temporary.path(), Path::new);
    if home.join("format").exists() {
        return look(home);
    }
    fill(home, count, frames);
    // A process of its own, so that its memory is that of the open store alone.
    let again = std::env::current_exe().unwrap();
    let arguments = [count.to_string(), frames.to_string(), home.display().to_string()];
    assert!(std::process::Command::new(again).args(arguments).status().unwrap().success());
}
