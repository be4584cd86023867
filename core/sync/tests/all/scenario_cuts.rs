//! The scenarios with a cut after each message in turn, each followed by resumption; cuts by the dozen; a slow reader.
//! Spec: ibgib §10, §13.6, §13.7
use crate::support::{Author, MemSpace, Pair, stone};
use sealtide_ibgib::{ChunkHash, Manifest, Verified};
use sealtide_sync::{Direction, Message, SagaInput, SagaOutcome, Scope, SpaceView, Strategy};

/// Runs the saga whole, then with a cut behind each of its messages and once more: the result is the same, and what was
/// durable at the cut is not sent again.
fn cut_everywhere(a: &MemSpace, b: &MemSpace, scope: &Scope, direction: Direction) {
    let fresh = || {
        let mut pair = Pair::new(a.clone(), b.clone());
        (pair.a.limits.batch_records, pair.b.limits.batch_records) = (2, 2);
        pair
    };
    let mut whole = fresh();
    whole.run_ok(scope.clone(), direction, Strategy::Optimistic);
    for at in 0..whole.delivered {
        let mut pair = fresh();
        pair.cut_after = Some(at);
        pair.run(scope.clone(), direction, Strategy::Optimistic);
        assert!(pair.cut, "the cut at {at} came too late");
        let kept = [&pair.a, &pair.b].map(|end| end.space.staged(&pair.saga));
        for (end, before) in [(&pair.a, a), (&pair.b, b)] {
            let committed = matches!(end.outcome, Some(SagaOutcome::Committed { .. }));
            assert!(committed || end.space.sids() == before.sids(), "half a saga is visible after a cut at {at}");
        }
        pair.cut_after = None;
        pair.run_ok(scope.clone(), direction, Strategy::Optimistic);
        for (end, expected) in [(&pair.a, &whole.a), (&pair.b, &whole.b)] {
            assert_eq!(end.space.sids(), expected.space.sids(), "cut at {at}");
            assert_eq!(end.space.tips, expected.space.tips, "cut at {at}");
            assert!(end.space.staged.is_empty(), "something is still staged after a cut at {at}");
        }
        for (kept, sender) in kept.iter().zip([&pair.b, &pair.a]) {
            let again = sender.payload().into_iter().map(|bytes| Verified::accept(bytes).unwrap().sid());
            assert_eq!(again.filter(|sid| kept.contains(sid)).count(), 0, "sent twice after a cut at {at}");
        }
    }
}

// Proves: SY-38
#[test]
fn sc1_push_with_a_cut_after_each_message() {
    let frames = Author::new(1).timeline(3);
    cut_everywhere(&MemSpace::with(&frames), &MemSpace::default(), &Scope::All, Direction::Push);
}

// Proves: SY-38
#[test]
fn sc2_constants_with_a_cut_after_each_message() {
    let z = stone("z", &[]);
    let y = stone("y", &[("next", &z)]);
    let x = stone("x", &[("next", &y)]);
    let scope = Scope::Roots { roots: vec![x.address().clone()], live: false, skipped: Vec::new() };
    let (a, b) = (MemSpace::with(&[x, y, z.clone()]), MemSpace::with(&[z]));
    cut_everywhere(&a, &b, &scope, Direction::Both);
}

// Proves: SY-38
#[test]
fn sc3_partial_history_with_a_cut_after_each_message() {
    let frames = Author::new(3).timeline(3);
    cut_everywhere(&MemSpace::with(&frames), &MemSpace::with(&frames[..2]), &Scope::All, Direction::Both);
}

// Proves: SY-38
#[test]
fn sc4_deep_history_with_a_cut_after_each_message() {
    let frames = Author::new(4).timeline(61);
    cut_everywhere(&MemSpace::with(&frames), &MemSpace::with(&frames[..1]), &Scope::All, Direction::Both);
}

// Proves: SY-38
#[test]
fn sc5_destination_ahead_with_a_cut_after_each_message() {
    let frames = Author::new(5).timeline(3);
    cut_everywhere(&MemSpace::with(&frames[..2]), &MemSpace::with(&frames), &Scope::All, Direction::Both);
}

// Proves: SY-38
#[test]
fn sc6_several_timelines_with_a_cut_after_each_message() {
    let mut author = Author::new(6);
    let (a, b, c) = (author.timeline(3), author.timeline(3), author.timeline(2));
    let source = MemSpace::with(&[a.clone(), b.clone(), c.clone()].concat());
    cut_everywhere(&source, &MemSpace::with(&[&a[..1], &b[..1], &c[..]].concat()), &Scope::All, Direction::Both);
}

/// Fifty cuts in one saga over records and chunks: what goes over the wire in all is at most one batch and one chunk
/// more for each cut.
// Proves: SY-47
#[test]
fn fifty_cuts_cost_fifty_batches_and_fifty_chunks_at_most() {
    let mut author = Author::new(47);
    let mut content = vec![0; 80_000_000];
    sealtide_crypto::Entropy::fill(&mut author.chance, &mut content);
    let mut chunks: Vec<(ChunkHash, bytes::Bytes)> = Vec::new();
    let manifest = Manifest::cut(&mut &content[..], &mut |cut| {
        chunks.push((cut.chunk().hash, cut.bytes().clone()));
        Ok(())
    });
    let manifest = manifest.unwrap().records();
    let file = author.first_with("doc", "large", &[("bin", manifest.last().unwrap())]);
    let records: Vec<_> = (0..300).map(|n| author.first(&"x".repeat(n))).collect();
    let mut source = MemSpace::with(&[manifest, vec![file], records].concat());
    source.add_chunks(&chunks);
    let (mut sent, mut batch_max, mut cuts) = (0, 0, 0);
    let mut pair = Pair::new(source.clone(), MemSpace::with(&[author.first("other")]));
    (pair.a.limits.batch_records, pair.window, pair.zstd) = (3, 1, false);
    loop {
        pair.cut_after = (cuts < 50).then_some(if cuts % 2 == 0 { 17 } else { 23 });
        pair.run(Scope::All, Direction::Both, Strategy::Optimistic);
        for message in pair.a.messages() {
            match message {
                Message::Batch { size, .. } => {
                    sent += size as usize;
                    batch_max = batch_max.max(size as usize);
                }
                Message::Chunks { bytes, .. } => sent += bytes.len(),
                _ => {}
            }
        }
        if matches!(pair.a.outcome, Some(SagaOutcome::Committed { .. })) {
            break;
        }
        cuts += 1;
    }
    pair.assert_equal();
    assert_eq!(pair.b.space.chunks, source.chunks);
    let payload: usize = source.records.values().map(|record| record.encoded().len() + 5).sum();
    let whole = payload + content.len();
    let chunk_max = chunks.iter().map(|(_, bytes)| bytes.len()).max().unwrap();
    println!("{cuts} cuts, {sent} bytes sent for {whole}; a batch has {batch_max}, a chunk {chunk_max} at most");
    assert_eq!(cuts, 50, "the saga ended too early to be cut 50 times");
    assert!(sent <= whole + cuts * (batch_max + chunk_max));
}

/// A reader that takes a message now and then: the sender reads from its store only what the channel has room for.
// Proves: SY-46
#[test]
fn a_slow_reader_makes_the_sender_wait_and_hold_nothing() {
    let mut author = Author::new(46);
    let records: Vec<_> = (0..600).map(|n| author.first(&format!("{n}{}", "x".repeat(4000)))).collect();
    for target in [MemSpace::default(), MemSpace::with(&[author.first("other")])] {
        let mut pair = Pair::new(MemSpace::with(&records), target);
        (pair.a.limits.batch_records, pair.window) = (8, 1);
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        let before = pair.a.space.reads.get();
        let mut ahead = 0;
        loop {
            // Only the opener and time move while the reader sleeps.
            for _ in 0..5 {
                pair.perform_only(true);
                pair.now.mono_ms += 100;
                let now = pair.now;
                pair.a.handle(now, SagaInput::Tick);
            }
            let read = pair.a.space.reads.get() - before;
            ahead = ahead.max(read - pair.a.records_sent());
            if !pair.step() {
                break;
            }
        }
        pair.assert_equal();
        assert!(ahead <= 9, "{ahead} records were read before there was room for them");
    }
}
