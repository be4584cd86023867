//! Eight threads write one timeline of one store at once. What they were told is checked against one order of all writes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use crate::support::scale;
use sealtide_ibgib::{Sid, TimelineId};
use sealtide_identity::SpaceId;
use sealtide_store::mem::MemDisk;
use sealtide_store::{CommitError, Config, Store, conformance};
use sealtide_sync::{CommitRequest, CommitResult, SagaId, SpaceView};

const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
const WRITERS: usize = 8;

fn request(records: Vec<sealtide_ibgib::Verified>) -> CommitRequest {
    CommitRequest::local(records)
}

/// The moves of the timeline that all writers were told of. Each names what was before and what is after, so if the store
/// takes one write after another, they form one chain from the first value to the last, whatever order they are told in.
fn check_chain(moves: &[(Vec<Sid>, Vec<Sid>)], first: &[Sid], last: &[Sid]) {
    let set = |sids: &[Sid]| sids.iter().copied().collect::<BTreeSet<_>>();
    let mut left: Vec<_> = moves.iter().map(|(before, after)| (set(before), set(after))).collect();
    let mut at = set(first);
    while !left.is_empty() {
        let next = left.iter().position(|(before, _)| *before == at);
        let next = next.unwrap_or_else(|| panic!("{} moves begin at none of the values that were there", left.len()));
        let (_, after) = left.swap_remove(next);
        assert_ne!(after, at, "a move that moves nothing");
        at = after;
    }
    assert_eq!(at, set(last), "the chain ends where the store is");
}

fn moves_of(result: &CommitResult, timeline: &TimelineId) -> Vec<(Vec<Sid>, Vec<Sid>)> {
    let of = result.moved.iter().filter(|(moved, ..)| moved == timeline);
    of.map(|(_, before, after)| (before.clone(), after.clone())).collect()
}

/// Compare-and-set: whoever names the tips that it saw gets exactly one place in one line of frames, or is refused.
// Proves: SY-49
#[test]
fn strict_writers_form_one_line() {
    let rounds = 40 * scale();
    let (store, first) = store_with_first();
    let timeline = first.frame().unwrap().timeline;
    let told = Mutex::new(Vec::new());
    let refused = Mutex::new(0u64);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, told, refused) = (&store, &told, &refused);
            scope.spawn(move || {
                let view = store.view(&SPACE).unwrap();
                let mut number = 0;
                while number < rounds {
                    let tips = view.tips(&timeline);
                    let [tip] = &tips[..] else { panic!("one line has one tip, not {tips:?}") };
                    let next = conformance::next_frame(&view.record(&tip.sid).unwrap(), &format!("{writer} {number}"));
                    let expected = vec![(timeline, vec![tip.sid])];
                    match store.commit(&SPACE, &CommitRequest { expected, strict: true, ..request(vec![next.clone()]) })
                    {
                        Ok(result) => {
                            assert_eq!(moves_of(&result, &timeline), [(vec![tip.sid], vec![next.sid()])]);
                            told.lock().unwrap().extend(moves_of(&result, &timeline));
                            number += 1;
                        }
                        Err(CommitError::TipMoved { .. }) => *refused.lock().unwrap() += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let view = store.view(&SPACE).unwrap();
    let tips = view.tips(&timeline);
    assert_eq!(tips.len(), 1);
    assert_eq!(tips[0].n, WRITERS as u64 * rounds, "each write has a place of its own");
    check_chain(&told.lock().unwrap(), &[first.sid()], &[tips[0].sid]);
    println!("{} writes of {WRITERS} threads, {} refused", WRITERS as u64 * rounds, refused.lock().unwrap());
}

/// Sagas stage and commit onto whatever tip each saw; a tip that moved meanwhile stays beside. No frame is lost, every
/// look shows a value of the one chain, and each thread sees what it wrote.
// Proves: SY-49
#[test]
fn sagas_of_eight_threads_lose_no_frame() {
    let rounds = 25 * scale();
    let (store, first) = store_with_first();
    let timeline = first.frame().unwrap().timeline;
    let (told, made) = (Mutex::new(Vec::new()), Mutex::new(BTreeSet::from([first.sid()])));
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, told, made) = (&store, &told, &made);
            scope.spawn(move || {
                let view = store.view(&SPACE).unwrap();
                for number in 0..rounds {
                    let tips = view.tips(&timeline);
                    let tip = &tips[(number as usize + writer) % tips.len()];
                    let next = conformance::next_frame(&view.record(&tip.sid).unwrap(), &format!("{writer} {number}"));
                    let mut saga = [writer as u8; 32];
                    saga[..8].copy_from_slice(&number.to_le_bytes());
                    store.stage(&SPACE, &SagaId(saga), std::slice::from_ref(&next), &[]).unwrap();
                    store.sync().unwrap();
                    let seen = vec![(timeline, tips.iter().map(|tip| tip.sid).collect())];
                    let commit = CommitRequest { saga: Some(SagaId(saga)), expected: seen, ..request(Vec::new()) };
                    let result = store.commit(&SPACE, &commit).unwrap();
                    assert_eq!(result.new_records, 1);
                    assert!(view.contains(&next.sid()), "what was written is there");
                    told.lock().unwrap().extend(moves_of(&result, &timeline));
                    made.lock().unwrap().insert(next.sid());
                }
            });
        }
    });
    let view = store.view(&SPACE).unwrap();
    let frames: BTreeSet<Sid> = view.frames(&timeline, 0, u64::MAX, usize::MAX).into_iter().collect();
    assert_eq!(frames, *made.lock().unwrap(), "no frame is lost");
    let last: Vec<Sid> = view.tips(&timeline).into_iter().map(|tip| tip.sid).collect();
    let count = told.lock().unwrap().len();
    assert_eq!(count as u64, WRITERS as u64 * rounds, "each commit moved the timeline");
    check_chain(&told.lock().unwrap(), &[first.sid()], &last);
    println!("{count} sagas of {WRITERS} threads, {} tips in the end", last.len());
}

fn store_with_first() -> (Store, sealtide_ibgib::Verified) {
    let store = Store::open(Arc::new(MemDisk::new(49)), Config::default()).unwrap();
    store.adopt_space(SPACE).unwrap();
    let first = conformance::first_frame(49);
    store.commit(&SPACE, &request(vec![first.clone()])).unwrap();
    (store, first)
}
