//! Runs: few files, merged in steps, cut anywhere, and an open that does not read the log.

use std::sync::Arc;

use crate::support::scale;
use sealtide_ibgib::Verified;
use sealtide_identity::SpaceId;
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, Disk, Store, conformance};
use sealtide_sync::{CommitRequest, IdSum, RangeBound, SagaId, SpaceView};

fn config(pack_bytes: u64) -> Config {
    Config { pack_bytes, wall_ms: Arc::new(|| 1_700_000_000_000), ..Config::default() }
}

fn open(disk: &MemDisk, pack_bytes: u64) -> Store {
    Store::open(Arc::new(disk.clone()), config(pack_bytes)).unwrap()
}

fn runs(disk: &MemDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.starts_with("runs/")).collect()
}

/// Record `number`: frames of a few timelines, and stones.
fn record(number: u64) -> Verified {
    match number % 3 {
        0 => conformance::stone_of(&format!("stone {number}")),
        1 => conformance::first_frame(number),
        _ => conformance::next_frame(&conformance::first_frame(number - 1), "second"),
    }
}

/// Compares everything that `count` commits left.
fn check(store: &Store, space: &SpaceId, count: u64, what: &str) {
    let view = store.view(space).unwrap();
    let mut items: Vec<_> = (0..count).map(record).map(|record| (record.order_key(), record.sid())).collect();
    items.sort_unstable();
    assert_eq!(view.bulk(None, usize::MAX), items, "{what}");
    let mut sum = IdSum::default();
    items.iter().for_each(|(_, sid)| sum.add(&sid.0));
    let whole = view.range_sum(&RangeBound::START, &RangeBound::END);
    assert_eq!(whole, (count, sum), "{what}");
    assert_eq!(view.snapshot().item_summary.sum, sum, "{what}");
}

// Proves: SY-79
#[test]
fn many_packs_have_few_runs_and_the_sums_of_all_ranges() {
    let disk = MemDisk::new(1);
    let store = open(&disk, 100);
    let space = SpaceId::from_bytes([1; 32]);
    store.adopt_space(space).unwrap();
    let commits = 300 * scale();
    let mut most = 0;
    for number in 0..commits {
        store.commit(&space, &conformance::local(vec![record(number)])).unwrap();
        most = most.max(runs(&disk).len());
    }
    let packs = disk.names().iter().filter(|name| name.ends_with(".pack")).count();
    println!("{packs} packs had at most {most} runs");
    assert!(packs as u64 > commits && most <= 30);
    let view = store.view(&space).unwrap();
    let items = view.bulk(None, usize::MAX);
    assert_eq!(items.len() as u64, commits);
    for lo in (0..items.len()).step_by(items.len() / 20) {
        for hi in (lo..items.len()).step_by(items.len() / 20) {
            let bound = |at: usize| RangeBound { order: items[at].0, id: items[at].1.0 };
            let mut sum = IdSum::default();
            items[lo..hi].iter().for_each(|(_, sid)| sum.add(&sid.0));
            let found = view.range_sum(&bound(lo), &bound(hi));
            assert_eq!(found, ((hi - lo) as u64, sum), "{lo} to {hi}");
            let list = view.range_list(&bound(lo), &bound(hi), 7);
            let expect: Vec<_> = items[lo..hi].iter().take(7).map(|(order, sid)| (*order, sid.0)).collect();
            assert_eq!(list, expect);
        }
    }
    check(&store, &space, commits, "open");
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    assert!(!disk.names().iter().any(|name| name.starts_with("check/")), "the check cleans up");
    drop((view, store));
    check(&open(&disk, 100), &space, commits, "opened again");

    // As an older version wrote them: every pack is read again.
    for name in runs(&disk) {
        Disk::remove(&disk, &name).unwrap();
    }
    let store = open(&disk, 100);
    let rebuilt = runs(&disk).len();
    assert!((1..=30).contains(&rebuilt), "{rebuilt} runs");
    check(&store, &space, commits, "built again");
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    drop(store);
    check(&open(&disk, 100), &space, commits, "opened after that");
}

/// What is staged stays in memory and is written down with each run: a transaction over many packs has few of them.
// Proves: SY-79
#[test]
fn a_large_transaction_waits_for_runs_and_survives_a_crash() {
    let disk = MemDisk::new(1);
    let store = open(&disk, 2_000);
    let space = SpaceId::from_bytes([1; 32]);
    store.adopt_space(space).unwrap();
    let (saga, count) = (SagaId([7; 32]), 300);
    let mut made = std::collections::BTreeSet::new();
    for number in 0..count {
        store.stage(&space, &saga, &[record(number)], &[]).unwrap();
        made.extend(runs(&disk));
    }
    let packs = disk.names().iter().filter(|name| name.ends_with(".pack")).count();
    assert!(packs > 40 && made.len() < 10, "{packs} packs, runs {made:?}");
    store.sync().unwrap();
    // Packs that no run covers are read.
    let crashed = disk.crash(3);
    drop(store);
    let store = open(&crashed, 2_000);
    let view = store.view(&space).unwrap();
    assert_eq!(view.staged(&saga).len() as u64, count);
    let request = CommitRequest::of_saga(saga);
    assert_eq!(store.commit(&space, &request).unwrap().new_records, count);
    check(&store, &space, count, "committed");
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    // From here on it is like any other.
    for number in count..count + 20 {
        store.commit(&space, &conformance::local(vec![record(number)])).unwrap();
    }
    let number = |name: &str| name.rsplit(['/', '-']).next().and_then(|end| end[..8].parse::<u32>().ok()).unwrap();
    let last = crashed.names().iter().filter(|name| name.ends_with(".pack")).map(|name| number(name)).max().unwrap();
    let covered = runs(&crashed).iter().map(|name| number(name)).max().unwrap();
    assert_eq!(covered + 1, last, "the runs cover all packs but the open one");
    check(&store, &space, count + 20, "after it");
}

/// What a large saga stages is in runs before its commit, which moves none of it; from then on it is as if it had been moved one by one.
// Proves: SY-44 (open part), SY-48, SY-79
#[test]
fn a_large_saga_is_in_runs_before_its_commit() {
    let (space, saga, count) = (SpaceId::from_bytes([1; 32]), SagaId([7; 32]), 300);
    let request = CommitRequest::of_saga(saga);
    let begin = |draft_records: usize| {
        let disk = MemDisk::new(1);
        let store = Store::open(Arc::new(disk.clone()), Config { draft_records, ..config(2_000) }).unwrap();
        store.adopt_space(space).unwrap();
        // Every third first frame is here before, so of some timelines both have tips.
        let before = (0..count).filter(|number| number % 9 == 1).map(record).collect();
        store.commit(&space, &conformance::local(before)).unwrap();
        let mut staged: Vec<Verified> = (0..count).filter(|number| number % 9 != 1).map(record).collect();
        staged.reverse();
        staged.chunks(7).for_each(|some| store.stage(&space, &saga, some, &[]).unwrap());
        store.sync().unwrap();
        (disk, store, staged.len())
    };
    let number = |name: &str| name.rsplit(['/', '-']).next().and_then(|end| end[..8].parse::<u32>().ok()).unwrap();
    let last = |disk: &MemDisk, end: &str| {
        disk.names().iter().filter(|name| name.ends_with(end)).map(|name| number(name)).max().unwrap()
    };
    let (disk, store, _) = begin(20);
    assert_eq!(last(&disk, ".run") + 1, last(&disk, ".pack"), "the runs cover all packs but the open one");
    let (_, plain, staged) = begin(usize::MAX);
    let crashed = disk.crash(3);
    drop(store);
    let open = || Store::open(Arc::new(crashed.clone()), Config { draft_records: 20, ..config(2_000) }).unwrap();
    let store = open();
    let (view, of_plain) = (store.view(&space).unwrap(), plain.view(&space).unwrap());
    assert_eq!(view.staged(&saga), of_plain.staged(&saga));
    assert_eq!((view.staged(&saga).len(), store.staged_bytes(&saga)), (staged, plain.staged_bytes(&saga)));
    let one = record(5);
    assert!(view.staged_record(&saga, &one.sid()).is_some_and(|there| there == one) && !view.contains(&one.sid()));
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    let written = crashed.used();
    let (mut result, mut expected) = (store.commit(&space, &request).unwrap(), plain.commit(&space, &request).unwrap());
    assert!(crashed.used() - written < 30_000, "{} bytes", crashed.used() - written);
    result.moved.sort();
    expected.moved.sort();
    assert_eq!(result, expected);
    // Each once, also where the space and the draft began it.
    assert_eq!(view.timelines_of("doc"), of_plain.timelines_of("doc"));
    // Merges make them rows like all others.
    for more in count..count + 400 {
        let local = conformance::local(vec![record(more)]);
        for store in [&store, &plain] {
            store.commit(&space, &local).unwrap();
        }
        if more % 50 == 0 {
            check(&store, &space, more + 1, &format!("after {more}"));
        }
    }
    drop((view, store));
    let store = open();
    let view = store.view(&space).unwrap();
    check(&store, &space, count + 400, "at the end");
    assert_eq!(view.info(), of_plain.info());
    assert_eq!(view.snapshot().tip_summary, of_plain.snapshot().tip_summary);
    assert_eq!(view.timelines(), of_plain.timelines());
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
}

/// A commit that takes its draft apart and is cut in the middle leaves records both in the draft and out of it. The saga goes on from
/// there, and the store opens.
// Proves: SY-47, SY-48
#[test]
fn a_draft_that_is_half_taken_apart_goes_on() {
    let (space, saga, count) = (SpaceId::from_bytes([1; 32]), SagaId([7; 32]), 1_500);
    let open =
        |disk: &MemDisk| Store::open(Arc::new(disk.clone()), Config { draft_records: 200, ..config(1 << 28) }).unwrap();
    let disk = MemDisk::new(1);
    let store = open(&disk);
    store.adopt_space(space).unwrap();
    let records: Vec<Verified> = (0..count).map(record).collect();
    records.chunks(100).for_each(|some| store.stage(&space, &saga, some, &[]).unwrap());
    store.sync().unwrap();
    drop(store);
    let only = CommitRequest { staged: Some(vec![record(5).sid()]), ..conformance::of_saga(saga) };
    let mut halves = 0;
    for call in 1.. {
        let disk = disk.copy();
        let store = open(&disk);
        let (before, is_over) = (disk.used(), {
            disk.fail_from(Some(disk.calls() + call));
            store.commit(&space, &only).is_ok()
        });
        if is_over {
            break;
        }
        halves += u64::from(disk.used() > before + 10_000);
        // The process was killed, or the machine stopped.
        let (killed, cut) = (disk.copy(), disk.crash(call));
        drop(store);
        for disk in [killed, cut] {
            disk.fail_from(None);
            let store = open(&disk);
            let view = store.view(&space).unwrap();
            if view.staged(&saga).is_empty() {
                continue;
            }
            assert_eq!(view.staged(&saga).len() as u64, count);
            let more: Vec<Verified> = (count..count + 250).map(record).collect();
            store.stage(&space, &saga, &more, &[]).unwrap();
            assert_eq!(view.staged(&saga).len() as u64, count + 250);
            drop((view, store));
            let store = open(&disk);
            assert_eq!(store.commit(&space, &conformance::of_saga(saga)).unwrap().new_records, count + 250);
            drop(store);
            let store = open(&disk);
            check(&store, &space, count + 250, "committed");
            assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
        }
    }
    assert!(halves > 0, "no cut was between the entries");
}

/// The frames of one long timeline come by their sids, as in a bulk stream: its tips are settled once, at the commit.
// Proves: SY-15, SY-48
#[test]
fn a_long_timeline_in_no_order_is_settled_at_the_commit() {
    let (space, saga) = (SpaceId::from_bytes([1; 32]), SagaId([7; 32]));
    let count = 1_000 * scale();
    let mut frames = vec![conformance::first_frame(1)];
    (1..count).for_each(|_| {
        let next = conformance::next_frame(frames.last().unwrap(), "more");
        frames.push(next);
    });
    let tip = frames.last().unwrap().sid();
    // Two at its end are here before, with a tip of their own beside them.
    let aside = conformance::next_frame(&frames[0], "aside");
    frames.sort_unstable_by_key(Verified::sid);
    for (draft_records, before) in [(300, false), (300, true), (usize::MAX, true)] {
        let disk = MemDisk::new(1);
        let open = || Store::open(Arc::new(disk.clone()), Config { draft_records, ..config(100_000) }).unwrap();
        let store = open();
        store.adopt_space(space).unwrap();
        let local = if before { vec![conformance::first_frame(1), aside.clone()] } else { vec![] };
        store.commit(&space, &conformance::local(local.clone())).unwrap();
        let others: Vec<Verified> = (3..100).map(record).collect();
        let new = frames.iter().filter(|frame| !local.contains(frame)).chain(others.iter());
        let new: Vec<Verified> = new.cloned().collect();
        new.chunks(100).for_each(|some| store.stage(&space, &saga, some, &[]).unwrap());
        drop(store);
        let store = open();
        let result = store.commit(&space, &conformance::of_saga(saga)).unwrap();
        assert_eq!(result.new_records, new.len() as u64);
        let mut again = Some(store);
        for _ in 0..2 {
            let store = again.take().unwrap_or_else(open);
            let view = store.view(&space).unwrap();
            let mut tips: Vec<_> = view.tips(&frames[0].frame().unwrap().timeline).iter().map(|tip| tip.sid).collect();
            let mut expected = vec![tip];
            expected.extend(before.then(|| aside.sid()));
            tips.sort_unstable();
            expected.sort_unstable();
            assert_eq!(tips, expected, "{draft_records} {before}");
            assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
        }
    }
}

/// The bytes of a space are those of its records and chunks, each once, whichever way they came.
#[test]
fn chunks_of_a_draft_count_once() {
    let (space, saga) = (SpaceId::from_bytes([1; 32]), SagaId([7; 32]));
    let told = [1, usize::MAX].map(|draft_records| {
        let store = Store::open(Arc::new(MemDisk::new(1)), Config { draft_records, ..config(2_000) }).unwrap();
        store.adopt_space(space).unwrap();
        for seed in [3, 4] {
            let (chunks, manifest) = conformance::binary(seed);
            store.stage(&space, &saga, &[manifest, record(seed)], &chunks).unwrap();
        }
        let staged = store.staged_bytes(&saga);
        store.commit(&space, &conformance::of_saga(saga)).unwrap();
        assert_eq!(store.view(&space).unwrap().info().unwrap().bytes, staged);
        staged
    });
    assert_eq!(told[0], told[1]);
}

/// Two sagas that stage the same records each have them in a draft: the second to commit does not count them twice, also where all of
/// that was before the store was opened.
// Proves: SY-49, SY-79
#[test]
fn two_drafts_of_the_same_records_count_once() {
    let (space, other) = (SpaceId::from_bytes([1; 32]), SpaceId::from_bytes([2; 32]));
    let (first, second) = (SagaId([7; 32]), SagaId([8; 32]));
    for reopened in [false, true] {
        let disk = MemDisk::new(1);
        let open = || Store::open(Arc::new(disk.clone()), Config { draft_records: 5, ..config(2_000) }).unwrap();
        let store = open();
        store.adopt_space(space).unwrap();
        store.adopt_space(other).unwrap();
        let records: Vec<Verified> = (0..40).map(record).collect();
        for saga in [&first, &second] {
            records.chunks(4).for_each(|some| store.stage(&space, saga, some, &[]).unwrap());
        }
        // Others seal the packs in which all of it was said.
        (100..160).for_each(|number| {
            store.commit(&other, &conformance::local(vec![record(number)])).unwrap();
        });
        let store = if reopened {
            drop(store);
            open()
        } else {
            store
        };
        assert_eq!(store.commit(&space, &conformance::of_saga(first)).unwrap().new_records, 40);
        assert_eq!(store.commit(&space, &conformance::of_saga(second)).unwrap().new_records, 0);
        check(&store, &space, 40, "both committed");
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    }
}

/// The moves of a large commit are written part by part. One that fails or is cut at any call leaves all of the saga staged, and the
/// next try commits it, over whatever the first one wrote.
// Proves: SY-48
#[test]
fn a_commit_in_parts_counts_whole_or_not_at_all() {
    let (failed, written, left_staged) = try_at_every_call(usize::MAX);
    assert!(
        failed > 2 && written > 1 && left_staged > 4,
        "{failed} calls, {written} behind a part, {left_staged} staged"
    );
    // With most of it in a draft there is less to cut.
    let (failed, _, left_staged) = try_at_every_call(4_096);
    assert!(failed > 1 && left_staged > 1, "{failed} calls, {left_staged} staged");
}

/// How many calls failed, before how many something was written, and how often all was left staged.
fn try_at_every_call(draft_records: usize) -> (u64, u64, u64) {
    let open = |disk: &MemDisk, pack_bytes: u64| {
        Store::open(Arc::new(disk.clone()), Config { draft_records, ..config(pack_bytes) }).unwrap()
    };
    let (space, saga, count) = (SpaceId::from_bytes([1; 32]), SagaId([7; 32]), 15_000);
    let request = CommitRequest::of_saga(saga);
    let disk = MemDisk::new(1);
    let store = open(&disk, 1 << 28);
    store.adopt_space(space).unwrap();
    let records: Vec<Verified> = (0..count).map(record).collect();
    records.chunks(1_000).for_each(|part| store.stage(&space, &saga, part, &[]).unwrap());
    store.sync().unwrap();
    drop(store);
    let (mut failed, mut written, mut left_staged) = (0, 0, 0);
    for call in 1.. {
        let disk = disk.copy();
        let store = open(&disk, 1 << 28);
        let before = disk.used();
        disk.fail_from(Some(disk.calls() + call));
        if store.commit(&space, &request).is_ok() {
            break;
        }
        failed += 1;
        written += u64::from(disk.used() > before);
        // The disk works again, or it was a crash.
        let (same, crashed) = (disk.copy(), disk.crash(call));
        drop(store);
        for disk in [same, crashed] {
            disk.fail_from(None);
            let store = open(&disk, 1 << 28);
            let view = store.view(&space).unwrap();
            let (staged, members) = (view.staged(&saga).len() as u64, view.info().unwrap().records);
            // Where only the sync failed it may be there.
            assert!(
                (staged, members) == (count, 0) || (staged, members) == (0, count),
                "call {call}: {staged} {members}"
            );
            if staged > 0 {
                assert_eq!(store.commit(&space, &request).unwrap().new_records, count);
                left_staged += 1;
            }
            check(&store, &space, count, "committed");
            assert_eq!(view.info().unwrap().timelines, count / 3);
            assert_eq!(view.info().unwrap().tips, count / 3);
            drop((view, store));
            let store = open(&disk, 1 << 28);
            check(&store, &space, count, "opened again");
            assert_eq!(store.view(&space).unwrap().info().unwrap().tips, count / 3);
            assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
        }
    }
    (failed, written, left_staged)
}

// Proves: SY-48, SY-79
#[test]
fn a_cut_at_every_call_of_sealing_and_merging_leaves_a_good_store() {
    let commits = 18 * scale();
    let space = SpaceId::from_bytes([1; 32]);
    let (mut cuts, mut half_merged) = (0, 0);
    for call in 1.. {
        let disk = MemDisk::new(call);
        disk.fail_from(Some(call));
        let mut done = 0;
        let opened = Store::open(Arc::new(disk.clone()), config(100));
        let alive = opened.as_ref().is_ok_and(|store| store.adopt_space(space).is_ok());
        if let (Ok(store), true) = (&opened, alive) {
            while done < commits && store.commit(&space, &conformance::local(vec![record(done)])).is_ok() {
                done += 1;
            }
        }
        let crashed = disk.crash(call);
        drop(opened);
        if done == commits {
            break;
        }
        cuts += 1;
        // More packs than runs, and names that overlap, are what a cut merge leaves.
        half_merged += u64::from(overlapping(&runs(&crashed)));
        let store = open(&crashed, 100);
        store.adopt_space(space).unwrap();
        let there = store.view(&space).unwrap().info().unwrap().records;
        assert!(there == done || there == done + 1, "call {call}: {there} of {done}");
        check(&store, &space, there, &format!("call {call}"));
        for number in there..there + 10 {
            store.commit(&space, &conformance::local(vec![record(number)])).unwrap();
        }
        check(&store, &space, there + 10, &format!("after call {call}"));
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, [], "call {call}");
        assert!(!overlapping(&runs(&crashed)), "what a cut left is gone");
    }
    println!("{cuts} cuts, {half_merged} of them in a merge");
    assert!(half_merged > 0);
}

fn overlapping(runs: &[String]) -> bool {
    let mut covers: Vec<(u32, u32)> = runs
        .iter()
        .map(|name| {
            let (first, last) = name["runs/".len()..name.len() - ".run".len()].split_once('-').unwrap();
            (first.parse().unwrap(), last.parse().unwrap())
        })
        .collect();
    covers.sort_unstable();
    covers.windows(2).any(|pair| pair[0].1 >= pair[1].0)
}

// Proves: SY-44 (open part)
#[test]
fn opening_reads_neither_the_sealed_packs_nor_the_pages_of_runs() {
    let disk = MemDisk::new(1);
    let space = SpaceId::from_bytes([1; 32]);
    let store = open(&disk, 200_000);
    store.adopt_space(space).unwrap();
    let count = 4000 * scale();
    for batch in 0..count / 100 {
        let records = (0..100).map(|number| conformance::stone_of(&format!("{batch} {number} {:0300}", 7))).collect();
        store.commit(&space, &conformance::local(records)).unwrap();
    }
    drop(store);
    let size = |end: &str| -> u64 {
        let of_kind = disk.names().into_iter().filter(|name| name.ends_with(end));
        of_kind.map(|name| disk.content(&name).unwrap().len() as u64).sum()
    };
    let last = disk.names().into_iter().rfind(|name| name.ends_with(".pack")).unwrap();
    let open_pack = disk.content(&last).unwrap().len() as u64;
    let before = disk.bytes_read();
    let store = open(&disk, 200_000);
    let read = disk.bytes_read() - before;
    let (packs, of_runs) = (size(".pack"), size(".run"));
    println!("{packs} bytes of packs, {of_runs} of runs, {open_pack} in the open pack: {read} read at open");
    assert!(read < open_pack + of_runs / 8 + 100_000 && read < packs / 4);
    // A look-up reads a page or two of a run, not the run.
    let view = store.view(&space).unwrap();
    let before = disk.bytes_read();
    assert!(view.contains(&conformance::stone_of(&format!("0 0 {:0300}", 7)).sid()));
    assert!(disk.bytes_read() - before < 20_000);
    let before = disk.bytes_read();
    let middle = RangeBound { order: u64::MAX / 4 * 3, id: [0; 32] };
    assert!(view.range_sum(&RangeBound::START, &middle).0 > 0);
    assert!(disk.bytes_read() - before < 200_000);
}

#[test]
fn what_is_staged_outlives_its_pack() {
    let disk = MemDisk::new(1);
    let (space, saga) = (SpaceId::from_bytes([1; 32]), SagaId([1; 32]));
    let store = open(&disk, 100);
    store.adopt_space(space).unwrap();
    let staged: Vec<Verified> = (0..12).map(record).collect();
    let (chunks, manifest) = conformance::binary(3);
    for record in &staged {
        store.stage(&space, &saga, std::slice::from_ref(record), &[]).unwrap();
    }
    store.stage(&space, &saga, std::slice::from_ref(&manifest), &chunks).unwrap();
    store.sync().unwrap();
    // Other commits seal pack after pack meanwhile, also with one of the staged records.
    let other = SpaceId::from_bytes([2; 32]);
    store.adopt_space(other).unwrap();
    for number in 9..30 {
        store.commit(&other, &conformance::local(vec![record(number)])).unwrap();
    }
    drop(store);
    let store = open(&disk, 100);
    let view = store.view(&space).unwrap();
    assert_eq!(view.staged(&saga).len(), 13);
    assert!(view.staged_record(&saga, &manifest.sid()).is_some() && !view.contains(&staged[0].sid()));
    assert_eq!(view.chunk(&chunks[0].0, 0, 9), None, "no member lists it yet");
    assert!(store.unreferenced_chunks().is_empty(), "a staged record lists them");
    let result = store.commit(&space, &conformance::of_saga(saga)).unwrap();
    assert_eq!((result.new_records, result.moved.len()), (13, 4));
    for number in 30..50 {
        store.commit(&other, &conformance::local(vec![record(number)])).unwrap();
    }
    drop((view, store));
    for _ in 0..2 {
        let store = open(&disk, 100);
        let view = store.view(&space).unwrap();
        assert!(staged.iter().all(|record| view.record(&record.sid()).is_some_and(|read| read == *record)));
        assert_eq!(view.chunk(&chunks[0].0, 0, 9).map(|piece| piece.len()), Some(9));
        assert!(store.unreferenced_chunks().is_empty());
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    }
}

#[test]
fn a_space_that_comes_back_does_not_bring_its_old_members() {
    let disk = MemDisk::new(1);
    let space = SpaceId::from_bytes([1; 32]);
    let store = open(&disk, 100);
    for round in 0..3 {
        store.adopt_space(space).unwrap();
        for number in 0..20 {
            store.commit(&space, &conformance::local(vec![record(number)])).unwrap();
        }
        check(&store, &space, 20, &format!("round {round}"));
        store.remove_space(&space).unwrap();
        store.adopt_space(space).unwrap();
        check(&store, &space, 0, &format!("round {round}"));
        assert!(!store.view(&space).unwrap().contains(&record(1).sid()));
        assert!(store.view(&space).unwrap().by_address(record(1).address()).is_empty());
        store.remove_space(&space).unwrap();
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    }
}

/// A pack of its own for each write would end with no file that can be opened.
#[test]
fn where_no_run_can_be_written_packs_are_not_sealed_one_after_the_other() {
    let disk = MemDisk::new(1);
    let open = || Store::open(Arc::new(disk.clone()), Config { sealed_records: 50, ..config(1 << 28) }).unwrap();
    let packs = || disk.names().iter().filter(|name| name.ends_with(".pack")).count();
    let store = open();
    let space = SpaceId::from_bytes([1; 32]);
    store.adopt_space(space).unwrap();
    disk.refuse(Some("runs"));
    let commit = |number| store.commit(&space, &conformance::local(vec![record(number)])).unwrap();
    (0..120).for_each(|number| drop(commit(number)));
    assert_eq!((packs(), runs(&disk).len()), (3, 0));
    disk.refuse(None);
    (120..200).for_each(|number| drop(commit(number)));
    assert_eq!(runs(&disk).len(), 1);
    (200..260).for_each(|number| drop(commit(number)));
    assert_eq!(packs(), 6, "and from then on with each fifty again");
    check(&store, &space, 260, "open");
    drop(store);
    check(&open(), &space, 260, "opened again");
}

/// The move of a timeline with thousands of tips stands in many entries: each one would look at all of them.
#[test]
fn a_timeline_of_very_many_tips_moves_at_once() {
    let disk = MemDisk::new(1);
    let store = open(&disk, 1 << 28);
    let space = SpaceId::from_bytes([1; 32]);
    store.adopt_space(space).unwrap();
    let first = conformance::first_frame(1);
    let count = 8_000 * scale();
    let mut records: Vec<_> =
        (0..count).map(|number| conformance::next_frame(&first, &format!("side {number}"))).collect();
    let timeline = first.frame().unwrap().timeline;
    records.push(first);
    store.commit(&space, &conformance::local(records)).unwrap();
    assert_eq!(store.view(&space).unwrap().tips(&timeline).len() as u64, count);
    let crashed = disk.crash(1);
    drop(store);
    for disk in [disk, crashed] {
        let store = open(&disk, 1 << 28);
        assert_eq!(store.view(&space).unwrap().tips(&timeline).len() as u64, count);
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    }
}

/// As many tips go as come, and those that go lie in a run.
#[test]
fn very_many_tips_are_gone_at_once() {
    let disk = MemDisk::new(1);
    let open = || Store::open(Arc::new(disk.clone()), Config { sealed_records: 100, ..config(1 << 28) }).unwrap();
    let store = open();
    let space = SpaceId::from_bytes([1; 32]);
    store.adopt_space(space).unwrap();
    let first = conformance::first_frame(1);
    let timeline = first.frame().unwrap().timeline;
    let count = 2_000 * scale();
    let sides: Vec<_> = (0..count).map(|number| conformance::next_frame(&first, &format!("side {number}"))).collect();
    let kept = conformance::next_frame(&sides[0], "kept");
    store.commit(&space, &conformance::local([vec![first], sides.clone()].concat())).unwrap();
    // Seals the pack.
    store.commit(&space, &conformance::local(vec![record(1)])).unwrap();
    assert!(!runs(&disk).is_empty());
    let ends: Vec<_> = sides.chunks(1_000).map(|some| conformance::merging_frame(&kept, some)).collect();
    let last = ends.len() as u64;
    store.commit(&space, &conformance::local([vec![kept], ends].concat())).unwrap();
    let check = |store: Store| {
        assert_eq!(store.view(&space).unwrap().tips(&timeline).len() as u64, last);
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    };
    check(store);
    check(open());
}
