//! Twins of the fuzz targets: arbitrary and mutated messages, alone and in the middle of a saga.

use crate::support::{Author, MemSpace, Pair};
use bytes::Bytes;
use proptest::prelude::*;
use sealtide_crypto::SeededEntropy;
use sealtide_sync::negentropy::{Run, Splitter};
use sealtide_sync::{Direction, Ledger, Message, SagaOutcome, Scope};

/// Every message of a few sagas.
fn corpus() -> Vec<Bytes> {
    let mut author = Author::new(5);
    let common = author.timeline(4);
    let left = [common.clone(), author.timeline(3)].concat();
    let right = [common, author.timeline(2)].concat();
    let mut all = Vec::new();
    for (a, b) in [(left.clone(), right), (left, Vec::new())] {
        let mut pair = Pair::new(MemSpace::with(&a), MemSpace::with(&b));
        // With signatures, so that they are mutated too.
        (pair.a.ledger, pair.b.ledger) = (Some(Ledger::new()), Some(Ledger::new()));
        pair.sync_ok();
        all.extend(pair.a.sent.iter().chain(&pair.b.sent).cloned());
    }
    all.push(Message::Hello { versions: vec![1], features: 2, max_sagas: 3, identity: Default::default() }.encode());
    let frame = crate::support::signature("x");
    let first = frame.address().clone();
    all.push(Message::Challenge([7; 32]).encode());
    all.push(Message::Proof(vec![frame.clone(), frame.clone()]).encode());
    all.push(Message::Accept.encode());
    all.push(Message::AskKeystone { first: first.clone(), after: Some(3) }.encode());
    all.push(Message::Keystone { first, frames: vec![frame], last: true }.encode());
    all.push(Message::Status { ask: vec![], answer: vec![] }.encode());
    all
}

#[derive(Clone, Debug)]
enum Mutation {
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<usize>(), 1u8..).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        any::<usize>().prop_map(Mutation::Cut),
        (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(at, more)| Mutation::Insert(at, more)),
        (any::<usize>(), 1usize..9).prop_map(|(at, count)| Mutation::Remove(at, count)),
    ]
}

fn apply(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let place = |at: usize| if bytes.is_empty() { 0 } else { at % bytes.len() };
    match mutation {
        Mutation::Flip(at, bits) => {
            let at = place(*at);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= bits;
            }
        }
        Mutation::Cut(at) => bytes.truncate(place(*at)),
        Mutation::Insert(at, more) => {
            let at = place(*at);
            bytes.splice(at..at, more.iter().copied());
        }
        Mutation::Remove(at, count) => {
            let at = place(*at);
            let end = (at + count).min(bytes.len());
            bytes.drain(at..end);
        }
    }
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases: cases * crate::support::scale() as u32, failure_persistence: None, ..Default::default() }
}

// Proves: SY-53
#[test]
fn a_message_that_decodes_has_exactly_these_bytes() {
    let corpus = corpus();
    let mut runner = proptest::test_runner::TestRunner::new(config(20_000));
    let input = (any::<prop::sample::Index>(), proptest::collection::vec(mutation(), 0..4), any::<Vec<u8>>());
    let result = runner.run(&input, |(pick, mutations, random)| {
        let mut bytes = pick.get(&corpus).to_vec();
        if mutations.is_empty() {
            bytes = random;
        }
        mutations.iter().for_each(|mutation| apply(&mut bytes, mutation));
        sealtide_sync::fuzzing::message(&bytes);
        Ok(())
    });
    result.unwrap();
}

// Proves: SY-53
#[test]
fn negentropy_takes_any_bytes() {
    let run = Run::new((0u64..200).map(|n| (n % 7, sealtide_crypto::sha256(&n.to_be_bytes()))).collect());
    let splitter = Splitter::default();
    let first = splitter.initiate(&run);
    let valid = [first.clone(), splitter.server(&Run::default(), &first).unwrap()];
    let mut runner = proptest::test_runner::TestRunner::new(config(20_000));
    let input = (0usize..3, proptest::collection::vec(mutation(), 1..4), any::<Vec<u8>>());
    let result = runner.run(&input, |(pick, mutations, random)| {
        let mut bytes = valid.get(pick).cloned().unwrap_or([vec![0x61], random].concat());
        mutations.iter().for_each(|mutation| apply(&mut bytes, mutation));
        sealtide_sync::fuzzing::negentropy(&bytes);
        Ok(())
    });
    result.unwrap();
}

/// One message of a saga is mutated: both ends come to an end, and nothing but the truth becomes visible.
// Proves: SY-53
#[test]
fn a_mutated_message_in_the_middle_of_a_saga() {
    let mut author = Author::new(6);
    let common = author.timeline(4);
    let left = [common.clone(), author.timeline(3)].concat();
    let right = [common, author.timeline(2)].concat();
    let known: std::collections::BTreeSet<_> = left.iter().chain(&right).map(|record| record.sid()).collect();
    let mut runner = proptest::test_runner::TestRunner::new(config(2_000));
    let input = (0usize..24, proptest::collection::vec(mutation(), 1..3), any::<u64>());
    let result = runner.run(&input, |(place, mutations, seed)| {
        let mut pair = Pair::new(MemSpace::with(&left), MemSpace::with(&right));
        pair.chance = SeededEntropy::new(seed);
        pair.zstd = false;
        let mut count = 0;
        pair.open(Scope::All, Direction::Both, sealtide_sync::Strategy::Optimistic);
        while pair.step_with(&mut |_, message| {
            count += 1;
            if count != place + 1 {
                return Some(message);
            }
            let mut bytes = message.to_vec();
            mutations.iter().for_each(|mutation| apply(&mut bytes, mutation));
            Some(bytes.into())
        }) {}
        for end in [&pair.a, &pair.b] {
            prop_assert!(end.space.records.keys().all(|sid| known.contains(sid)));
            if let Some(SagaOutcome::Committed { .. }) = end.outcome {
                prop_assert_eq!(end.space.records.len(), known.len());
            } else {
                prop_assert!(end.space.records.len() < known.len());
            }
        }
        Ok(())
    });
    result.unwrap();
}
