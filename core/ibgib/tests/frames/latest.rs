//! Tips and the newest of them: every order of arrival gives the same answer.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealtide_ibgib::{
    Address, Data, FrameFacts, Object, Relations, Stamp, Verified, evolve, genesis, latest, settle_tips, stone, winner,
};
use serde_json::json;

use crate::{permutations, property_cases, stamp, uuid};

type Known = BTreeMap<Address, FrameFacts>;

fn known(frames: &[Verified]) -> Known {
    frames.iter().map(|frame| (frame.address().clone(), frame.frame().unwrap())).collect()
}

/// The tips after `frames` arrived one by one in this order, each loadable only once it is there.
fn arrive(frames: &[Verified], order: &[usize]) -> Vec<Address> {
    let mut here = Known::new();
    order.iter().fold(Vec::new(), |tips, at| {
        let frame = &frames[*at];
        here.insert(frame.address().clone(), frame.frame().unwrap());
        settle_tips(&tips, &[frame.address().clone()], &mut |wanted| here.get(wanted).cloned())
    })
}

fn addresses(frames: &[&Verified]) -> Vec<Address> {
    let mut all: Vec<Address> = frames.iter().map(|frame| frame.address().clone()).collect();
    all.sort();
    all
}

/// Every order of arrival gives these tips and this winner.
fn check(frames: &[Verified], tips: &[&Verified], newest: &Verified) {
    let here = known(frames);
    for order in permutations(frames.len()) {
        assert_eq!(arrive(frames, &order), addresses(tips), "order {order:?}");
        let shuffled: Vec<Address> = order.iter().map(|at| frames[*at].address().clone()).collect();
        let found = latest(&shuffled, &mut |wanted| here.get(wanted).cloned()).unwrap();
        assert_eq!(&found.winner, newest.address());
        let others: Vec<&Verified> = tips.iter().copied().filter(|tip| *tip != newest).collect();
        assert_eq!(found.diverged, addresses(&others));
        let tips: Vec<&Verified> = order.iter().map(|at| &frames[*at]).filter(|frame| tips.contains(frame)).collect();
        assert_eq!(winner(tips), Some(newest));
    }
}

fn first() -> Verified {
    genesis("doc", Object::new(), Relations::new(), stamp(0), &uuid(1))
}

fn next(prev: &Verified, mark: u32, offset_ms: u64) -> Verified {
    evolve(prev, json!({"mark": mark}).as_object().unwrap().clone(), Relations::new(), stamp(offset_ms))
}

/// The first with everything of a merge frame.
fn merge(winner: &Verified, loser: &Verified, offset_ms: u64) -> Verified {
    let graft = Relations::from([("graftorphan".to_owned(), vec![loser.address().clone()])]);
    evolve(winner, Object::new(), graft, stamp(offset_ms))
}

fn smaller_gib<'a>(left: &'a Verified, right: &'a Verified) -> &'a Verified {
    if left.address().gib() < right.address().gib() { left } else { right }
}

// Proves: SY-16
#[test]
fn a_straight_timeline_has_one_tip() {
    let mut frames = vec![first()];
    for n in 1..6 {
        frames.push(next(&frames[n - 1], 0, n as u64));
    }
    check(&frames, &[&frames[5]], &frames[5]);
    check(&frames[..1], &[&frames[0]], &frames[0]);
}

// Proves: SY-16 (equal n)
#[test]
fn equal_counters_are_a_reported_divergence() {
    let first = first();
    let (left, right) = (next(&first, 1, 10), next(&first, 2, 20));
    check(&[first.clone(), left.clone(), right.clone()], &[&left, &right], &right);
    let same_time = next(&first, 3, 20);
    let newest = smaller_gib(&right, &same_time);
    check(&[first.clone(), right.clone(), same_time.clone()], &[&right, &same_time], newest);
    let shorter = next(&first, 4, 90_000);
    let longer = next(&left, 5, 10);
    check(&[first, left, longer.clone(), shorter.clone()], &[&longer, &shorter], &longer);
}

// Proves: SY-16 (n = 0)
#[test]
fn the_first_frame_counts_as_older_than_the_second() {
    let first = first();
    let second = next(&first, 1, 0);
    check(&[first, second.clone()], &[&second], &second);
}

// Proves: SY-16 (missing n, missing stamp)
#[test]
fn a_first_frame_without_counter_or_stamp_is_the_oldest() {
    let bare = stone("doc", Data::Json(json!({"isTjp": true, "uuid": "u"})), Relations::new());
    let facts = bare.frame().unwrap();
    assert_eq!((facts.n, facts.stamp), (0, None));
    let stamped = next(&bare, 1, 5);
    check(&[bare.clone(), stamped.clone()], &[&stamped], &stamped);
    let tjp = Relations::from([
        ("tjp".to_owned(), vec![bare.address().clone()]),
        ("past".to_owned(), vec![bare.address().clone()]),
    ]);
    let unstamped = stone("doc", Data::Json(json!({"n": 1, "timestamp": "yesterday"})), tjp);
    assert_eq!(unstamped.frame().unwrap().stamp, None);
    check(&[bare, stamped.clone(), unstamped.clone()], &[&stamped, &unstamped], &stamped);
}

// Proves: SY-16 (a merge joins)
#[test]
fn a_merge_frame_ends_both_branches() {
    let first = first();
    let (left, right) = (next(&first, 1, 10), next(&first, 2, 20));
    let merged = merge(&right, &left, 20);
    let frames = [first, left.clone(), right, merged.clone()];
    check(&frames, &[&merged], &merged);
    // A later frame of the merged branch is a tip of its own again.
    let late = next(&left, 3, 99);
    let frames = [frames[0].clone(), frames[1].clone(), frames[2].clone(), merged.clone(), late.clone()];
    assert_eq!(late.frame().unwrap().n, merged.frame().unwrap().n);
    check(&frames, &[&merged, &late], &late);
}

#[test]
fn an_unknown_tip_stays_a_tip() {
    let first = first();
    let second = next(&first, 1, 1);
    let tips = [first.address().clone(), second.address().clone()];
    assert_eq!(settle_tips(&tips[..1], &tips[1..], &mut |_| None), addresses(&[&first, &second]));
    assert_eq!(latest(&tips, &mut |_| None), None);
    assert_eq!(latest(&[], &mut |_| None), None);
    assert_eq!(winner([]), None);
}

/// A dishonest peer may say that an old frame is younger, or that two frames follow each other: the walk ends.
#[test]
fn invented_counters_and_circles_end() {
    let address = |number: u32| crate::address(&format!("doc^{number:064X}"));
    let facts = |n: u64, past: &[u32], orphans: &[u32]| FrameFacts {
        tjp: address(0),
        timeline: address(0).timeline_id(),
        n,
        past: past.iter().map(|number| address(*number)).collect(),
        orphans: orphans.iter().map(|number| address(*number)).collect(),
        stamp: Some(Stamp { ms: 0 }),
    };
    let frames: Known = [
        (address(1), facts(5, &[2], &[])),
        (address(2), facts(5, &[1], &[])),
        (address(3), facts(6, &[3, 4], &[1])),
        (address(4), facts(7, &[3], &[9])),
    ]
    .into();
    for order in permutations(4) {
        let all: Vec<Address> = order.iter().map(|at| address(*at as u32 + 1)).collect();
        let tips = settle_tips(&all[..2], &all[2..], &mut |wanted| frames.get(wanted).cloned());
        assert_eq!(tips, [address(2), address(4)]);
    }
}

/// Only what lies between the tips is looked at, not the whole past.
#[test]
fn a_long_past_is_not_walked() {
    let mut frames = vec![first()];
    for n in 1..300 {
        frames.push(next(&frames[n - 1], 0, n as u64));
    }
    let here = known(&frames);
    let mut loads = 0;
    let tips = settle_tips(&[frames[297].address().clone()], &[frames[299].address().clone()], &mut |wanted| {
        loads += 1;
        here.get(wanted).cloned()
    });
    assert_eq!(tips, [frames[299].address().clone()]);
    assert!(loads <= 6, "{loads} loads");
}

/// However many frames name one, it is loaded once: a hundred that all name the hundred before.
#[test]
fn wide_pasts_are_walked_once() {
    let first = first();
    let wide = |before: &[Verified], salt: u64| {
        let past: Vec<Address> = before.iter().map(|frame| frame.address().clone()).collect();
        let mut frame = next(&first, salt as u32, salt).frame().unwrap();
        (frame.n, frame.past) = (before.len() as u64 + salt, past);
        frame
    };
    let names: Vec<Verified> = (0..40).map(|number| next(&first, number + 1, 1)).collect();
    let facts: Known = (0..40).map(|at| (names[at].address().clone(), wide(&names[..at], 1))).collect();
    let mut loads = 0;
    let tips = settle_tips(&[names[0].address().clone()], &[names[39].address().clone()], &mut |wanted| {
        loads += 1;
        facts.get(wanted).cloned()
    });
    assert_eq!(tips, [names[39].address().clone()]);
    assert!(loads <= 42, "{loads} loads");
}

proptest! {
    #![proptest_config(property_cases())]

    // Proves: SY-16
    #[test]
    fn any_history_settles_alike_in_any_order(
        steps in prop::collection::vec((any::<prop::sample::Index>(), any::<Option<prop::sample::Index>>(), 0u64..4), 0..10),
        order in any::<u64>(),
    ) {
        let mut frames = vec![first()];
        for (number, (parent, orphan, time)) in steps.iter().enumerate() {
            let parent = frames[parent.index(frames.len())].clone();
            let frame = match orphan.map(|orphan| frames[orphan.index(frames.len())].clone()) {
                Some(orphan) if orphan.frame().unwrap().n <= parent.frame().unwrap().n && orphan != parent => {
                    merge(&parent, &orphan, *time)
                }
                _ => next(&parent, number as u32, *time),
            };
            if !frames.contains(&frame) {
                frames.push(frame);
            }
        }
        // A naive model: the frames that nobody names.
        let named: Vec<Address> = frames.iter().flat_map(|frame| {
            let facts = frame.frame().unwrap();
            facts.past.into_iter().chain(facts.orphans)
        }).collect();
        let expected: Vec<&Verified> = frames.iter().filter(|frame| !named.contains(frame.address())).collect();
        let mut shuffled: Vec<usize> = (0..frames.len()).collect();
        shuffled.sort_by_key(|at| sealtide_crypto::sha256(&(order ^ *at as u64).to_le_bytes()));
        prop_assert_eq!(arrive(&frames, &shuffled), addresses(&expected));
    }
}
