//! Cuts and resumption. Spec: ibgib §13.7

use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Author, MemSpace, Pair};
use sealtide_ibgib::{Verified, binary_record};
use sealtide_sync::{Direction, SagaId, SagaOutcome, Scope, SpaceView, Strategy};

/// A source and targets: empty, behind, and with changes of its own.
fn cases() -> Vec<(MemSpace, MemSpace)> {
    let mut author = Author::new(47);
    let mut records = Vec::new();
    for _ in 0..12 {
        let stone = binary_record(vec![author.number(250) as u8; 800].into());
        let first = author.first("a");
        let second = author.edit_with(&first, "b", &[("bin", &stone)]);
        let third = author.edit(&second, "c");
        records.push([first, second, third, stone]);
    }
    let flat: Vec<Verified> = records.iter().flatten().cloned().collect();
    let behind: Vec<Verified> = records.iter().map(|set| set[0].clone()).collect();
    let own: Vec<Verified> = records.iter().map(|set| author.edit(&set[0], "own")).collect();
    let full = MemSpace::with(&flat);
    vec![
        (full.clone(), MemSpace::default()),
        (MemSpace::default(), full.clone()),
        (full.clone(), MemSpace::with(&behind)),
        (full, MemSpace::with(&[behind, own].concat())),
    ]
}

fn batches(pair: &mut Pair) {
    for end in [&mut pair.a, &mut pair.b] {
        end.limits.batch_records = 3;
    }
}

/// Cuts the channel after message number `at`, then runs the saga again with the same id.
// Proves: SY-38, SY-47
#[test]
fn a_cut_after_every_message_in_turn_sends_one_batch_twice_at_most() {
    let (mut cuts, mut staged) = (0, 0);
    for (a, b) in cases() {
        let mut whole = Pair::new(a.clone(), b.clone());
        batches(&mut whole);
        whole.sync_ok();
        let messages = whole.delivered;
        for at in 0..messages {
            let mut pair = Pair::new(a.clone(), b.clone());
            batches(&mut pair);
            pair.cut_after = Some(at);
            let outcomes = pair.sync();
            cuts += 1;
            for outcome in &outcomes {
                assert!(matches!(outcome, Some(SagaOutcome::Interrupted { .. } | SagaOutcome::Committed { .. })));
            }
            let kept: Vec<BTreeSet<_>> =
                [&pair.a, &pair.b].map(|end| end.space.staged(&pair.saga).into_iter().collect()).into();
            pair.cut_after = None;
            pair.sync_ok();
            pair.assert_equal();
            assert_eq!(pair.a.space.sids(), whole.a.space.sids());
            for (kept, sender) in kept.iter().zip([&pair.b, &pair.a]) {
                let twice = sender
                    .payload()
                    .into_iter()
                    .filter(|bytes| kept.contains(&Verified::accept(bytes.clone()).unwrap().sid()));
                assert_eq!(twice.count(), 0, "cut at {at}: something staged was sent again");
            }
            staged += kept.iter().map(BTreeSet::len).sum::<usize>();
        }
    }
    assert!(staged > 500, "{cuts} cuts, {staged} records staged at them");
    println!("{cuts} cuts, {staged} records staged at them");
}

/// With one batch in flight at a time (the channel's credit), fifty cuts cost at most fifty batches.
// Proves: SY-47
#[test]
fn fifty_cuts_in_one_saga() {
    let mut author = Author::new(50);
    let records: Vec<_> = (0..400).map(|n| author.first(&format!("file {n}"))).collect();
    for target in [MemSpace::default(), MemSpace::with(&[author.first("other")])] {
        let mut pair = Pair::new(MemSpace::with(&records), target);
        batches(&mut pair);
        pair.window = 1;
        let mut sent: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        let mut cuts = 0;
        loop {
            pair.cut_after = (cuts < 50).then_some(24);
            pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
            pair.settle();
            for payload in pair.a.payload() {
                *sent.entry(payload.to_vec()).or_default() += 1;
            }
            if matches!(pair.a.outcome, Some(SagaOutcome::Committed { .. })) {
                break;
            }
            cuts += 1;
            assert!(cuts <= 50);
            assert!(!pair.b.space.staged.is_empty() || cuts < 3, "nothing was kept");
        }
        assert!(cuts > 5, "{cuts} cuts");
        assert!(pair.b.space.records.len() >= 400);
        let total = sent.values().sum::<usize>();
        assert!(total <= records.len() + 3 * cuts, "{cuts} cuts, {total} records sent for {}", records.len());
        println!("{cuts} cuts, {} records sent for {}", sent.values().sum::<usize>(), records.len());
    }
}

// Proves: SY-38
#[test]
fn a_cut_behind_the_commit_is_told_apart_and_finished_by_the_next_saga() {
    let frames = Author::new(51).timeline(4);
    let mut seen = [false; 2];
    for at in 0..16 {
        let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::with(&frames[..1]));
        pair.cut_after = Some(at);
        let [a, b] = pair.sync();
        match (&a, &b) {
            (Some(SagaOutcome::Interrupted { commit_sent }), Some(SagaOutcome::Interrupted { .. })) => {
                // COMMIT was lost: nothing is visible at the answerer.
                assert_eq!(*commit_sent, pair.a.sent_of(0x21) > 0);
                assert_eq!(pair.b.space.records.len(), 1);
                seen[0] |= *commit_sent;
            }
            (Some(SagaOutcome::Interrupted { commit_sent: true }), Some(SagaOutcome::Committed { .. })) => {
                assert_eq!(pair.b.space.records.len(), 4);
                seen[1] = true;
            }
            (Some(SagaOutcome::Committed { .. }), Some(SagaOutcome::Committed { .. })) => {}
            other => panic!("{other:?}"),
        }
        pair.cut_after = None;
        pair.sync_ok();
        pair.assert_equal();
    }
    assert_eq!(seen, [true; 2], "both kinds of cut happened");
}

// Proves: SY-99
#[test]
fn a_bulk_stream_goes_on_behind_the_last_record() {
    let mut author = Author::new(52);
    let records: Vec<_> = (0..300).map(|n| author.first(&format!("{n}"))).collect();
    let mut pair = Pair::new(MemSpace::with(&records), MemSpace::default());
    batches(&mut pair);
    pair.cut_after = Some(40);
    pair.sync();
    let kept = pair.b.space.staged[&SagaId([1; 32])].len();
    assert!(kept > 30, "{kept} staged");
    // The source changes meanwhile: what is new goes into a stream that begins anew, and all of it arrives.
    for change in [false, true] {
        let mut again = Pair::new(pair.a.space.clone(), pair.b.space.clone());
        batches(&mut again);
        if change {
            (0..20).for_each(|n| again.a.space.put(&[author.first(&format!("late {n}"))]));
        }
        again.sync_ok();
        again.assert_equal();
        if !change {
            assert_eq!(again.a.records_sent(), 300 - kept, "nothing twice");
        }
    }
}
