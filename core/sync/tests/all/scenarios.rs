//! Whole sagas between two spaces in memory.
use crate::support::{Author, MemSpace, Pair, again, code_of, diverged, mode_of, stone};
use sealtide_ibgib::{Manifest, Verified, binary_record};
use sealtide_identity::Role;
use sealtide_sync::{AbortCode, Direction, Message, Mode, SagaInput, SagaOutcome, Scope, Strategy};

fn frozen(roots: &[&Verified]) -> Scope {
    let roots = roots.iter().map(|root| root.address().clone()).collect();
    Scope::Roots { roots, live: false, skipped: Vec::new() }
}

// Proves: SY-36
#[test]
fn sc1_push_into_an_empty_space() {
    let frames = Author::new(1).timeline(3);
    let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::default());
    pair.run_ok(Scope::All, Direction::Push, Strategy::Optimistic);
    pair.assert_equal();
    assert_eq!(pair.a.records_sent(), 3);
    assert_eq!(pair.b.records_sent(), 0);
    assert_eq!(mode_of(&pair.a.outcome), Mode::Bulk);
}

// Proves: SY-36
#[test]
fn sc2_constants() {
    let z = stone("z", &[]);
    let y = stone("y", &[("next", &z)]);
    let x = stone("x", &[("next", &y)]);
    let mut pair = Pair::new(MemSpace::with(&[x.clone(), y.clone(), z.clone()]), MemSpace::with(&[z]));
    pair.run_ok(frozen(&[&x]), Direction::Both, Strategy::Optimistic);
    pair.assert_equal();
    assert_eq!(pair.a.payload(), [x.encoded().clone(), y.encoded().clone()]);
    assert!(pair.b.space.tips.is_empty());
    pair.run_ok(frozen(&[&x]), Direction::Both, Strategy::Optimistic);
    assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
    assert_eq!(pair.a.records_sent() + pair.b.records_sent(), 0);
}

// Proves: SY-36
#[test]
fn sc3_partial_history() {
    let frames = Author::new(3).timeline(3);
    let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::with(&frames[..2]));
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(pair.a.payload(), [frames[2].encoded().clone()]);
    let bytes: usize = pair.a.sent.iter().chain(&pair.b.sent).map(bytes::Bytes::len).sum();
    assert!(bytes < 2 * frames[2].encoded().len() + 4096, "{bytes} bytes");
    assert!(pair.b.sent.len() + pair.a.sent.len() <= 16, "{} messages", pair.b.sent.len() + pair.a.sent.len());
}

// Proves: SY-36
#[test]
fn sc4_deep_history() {
    let frames = Author::new(4).timeline(201);
    let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::with(&frames[..1]));
    pair.sync_ok();
    pair.assert_equal();
    assert!(pair.b.sent_of(0x13) <= 6, "{} WANTs", pair.b.sent_of(0x13));
}

// Proves: SY-36, SY-63
#[test]
fn sc5_destination_ahead() {
    let frames = Author::new(5).timeline(3);
    let mut pair = Pair::new(MemSpace::with(&frames[..2]), MemSpace::with(&frames));
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(pair.a.records_sent(), 0);
    assert_eq!(pair.b.records_sent(), 1);
    assert_eq!(pair.a.space.records.len(), 3, "no merge frame");
}

// Proves: SY-36, SY-48
#[test]
fn sc6_several_timelines_all_or_nothing() {
    let mut author = Author::new(6);
    let (a, b, c) = (author.timeline(3), author.timeline(3), author.timeline(2));
    let source = MemSpace::with(&[a.clone(), b.clone(), c.clone()].concat());
    let target = MemSpace::with(&[&a[..1], &b[..1], &c[..]].concat());
    for fail in [true, false] {
        let mut pair = Pair::new(source.clone(), target.clone());
        pair.b.limits.wants_open_max = 16;
        pair.a.limits.batch_records = 1;
        pair.b.fail_stage_at = fail.then_some(3);
        pair.sync();
        if fail {
            assert_eq!(code_of(&pair.b.outcome), AbortCode::Disk);
            assert_eq!(code_of(&pair.a.outcome), AbortCode::Disk);
            assert_eq!(pair.b.space.sids(), target.sids());
            assert_eq!(pair.b.space.tips, target.tips);
        } else {
            pair.assert_equal();
            assert_eq!(pair.a.records_sent(), 4, "the equal timeline costs no payload");
        }
    }
}

#[test]
fn equal_spaces_send_no_payload() {
    let frames = Author::new(7).timeline(5);
    for direction in [Direction::Push, Direction::Pull, Direction::Both] {
        for space in [MemSpace::default(), MemSpace::with(&frames)] {
            let mut pair = Pair::new(space.clone(), space);
            pair.run_ok(Scope::All, direction, Strategy::Abort);
            assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
            assert_eq!(pair.a.records_sent() + pair.b.records_sent(), 0);
            assert_eq!(pair.a.commits + pair.b.commits, 0);
            assert!(pair.a.sent.len() + pair.b.sent.len() <= 6);
        }
    }
}

// Proves: SY-97
#[test]
fn a_walk_finds_a_deep_common_frame() {
    for back in [1, 10, 1000] {
        let mut author = Author::new(97);
        let (left, right) = diverged(&mut author, 3, back, back + 1);
        let mut pair = Pair::new(MemSpace::with(&left), MemSpace::with(&right));
        pair.sync_ok();
        pair.assert_equal();
        assert_eq!(mode_of(&pair.a.outcome), Mode::Walk);
        // The steps down overshoot the common frame, by less than what they had to cross.
        for (sent, new) in [(pair.a.records_sent(), back), (pair.b.records_sent(), back + 1)] {
            assert!((new..2 * new + 2).contains(&sent), "{sent} frames for {new}");
        }
        for end in [&pair.a, &pair.b] {
            assert!(end.sent_of(0x13) <= 9, "{} WANTs with the one for tips", end.sent_of(0x13));
            let tips: Vec<_> = end.space.tips.values().map(Vec::len).collect();
            assert_eq!(tips, [1], "both tips are merged");
        }
    }
}

// Proves: SY-97
#[test]
fn merge_frames_in_the_past_bring_both_branches() {
    let mut author = Author::new(98);
    let (left, right) = diverged(&mut author, 2, 20, 30);
    let (last, other) = (right.last().unwrap(), left.last().unwrap());
    let merged = author.edit_with(last, "merged", &[("graftorphan", other)]);
    let mut all = [left.clone(), right.clone(), vec![merged]].concat();
    all.sort_by_key(Verified::sid);
    all.dedup_by_key(|record| record.sid());
    for known in [&left[..2], &left[..10], &right[..25], &left[..]] {
        let mut pair = Pair::new(MemSpace::with(known), MemSpace::with(&all));
        pair.sync_ok();
        pair.assert_equal();
        assert!((all.len() - known.len()..=all.len()).contains(&pair.b.records_sent()));
        assert_eq!(pair.a.space.tips.values().next().unwrap().len(), 1);
    }
}

// Proves: SY-99
#[test]
fn bulk_in_both_directions() {
    let mut author = Author::new(99);
    let mut records = Vec::new();
    for _ in 0..100 {
        let stone = binary_record(vec![author.number(250) as u8; 1000 + author.number(1000)].into());
        let first = author.first_with("doc", "a", &[("bin", &stone)]);
        records.extend([author.edit(&first, "b"), first, stone]);
    }
    let full = MemSpace::with(&records);
    for (a, b) in [(MemSpace::default(), full.clone()), (full.clone(), MemSpace::default())] {
        for zstd in [false, true] {
            let mut pair = Pair::new(a.clone(), b.clone());
            pair.zstd = zstd;
            (pair.a.limits.batch_bytes, pair.b.limits.batch_bytes) = (10_000, 10_000);
            pair.sync_ok();
            pair.assert_equal();
            assert_eq!(mode_of(&pair.a.outcome), Mode::Bulk);
            let packed = pair.a.messages().iter().chain(&pair.b.messages()).any(is_packed);
            assert_eq!(packed, zstd);
        }
    }
}

/// The bulk stream brings the frames of a timeline in the order of their sids: most of them have parents and children that are still to
/// come.
// Proves: SY-99, SY-15
#[test]
fn a_long_timeline_in_the_bulk_stream() {
    let mut author = Author::new(98);
    let mut frames = vec![author.first("doc")];
    for _ in 1..400 * crate::support::scale() {
        let next = author.edit(frames.last().unwrap(), "more");
        frames.push(next);
    }
    let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::default());
    (pair.a.limits.batch_bytes, pair.b.limits.batch_bytes) = (10_000, 10_000);
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(mode_of(&pair.b.outcome), Mode::Bulk);
    let tips: Vec<_> = pair.b.space.tips.values().flatten().collect();
    assert_eq!(tips, [frames.last().unwrap().address()]);
}

/// A frame that says it has the first frame of another timeline behind it, and comes before that: the other timeline has its tip
/// at both ends all the same.
#[test]
fn a_frame_is_behind_none_of_another_timeline() {
    let mut author = Author::new(99);
    let (early, late) = loop {
        let (early, late) = (author.first("a"), author.first("b"));
        if early.order_key() < late.order_key() {
            break (early, late);
        }
    };
    let orphan = [("graftorphan".to_owned(), vec![late.address().clone()])].into();
    let claims = sealtide_ibgib::evolve(&early, Default::default(), orphan, sealtide_ibgib::Stamp { ms: 5_000 });
    let mut pair = Pair::new(MemSpace::with(&[early, late, claims]), MemSpace::default());
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(pair.b.space.tips.len(), 2);
}

fn is_packed(message: &Message) -> bool {
    matches!(message, Message::Batch { zstd: true, .. })
}

// Proves: SY-96
#[test]
fn many_tips_in_one_saga() {
    let count = 2000 * crate::support::scale().min(10);
    let mut author = Author::new(96);
    let old: Vec<_> = (0..count / 10).map(|n| author.first(&format!("old{n}"))).collect();
    let renamed: Vec<_> = old.iter().map(|frame| author.edit(frame, "renamed")).collect();
    let new: Vec<_> = (0..count).map(|n| author.first(&format!("new{n}"))).collect();
    let mut pair = Pair::new(MemSpace::with(&[old.clone(), renamed, new].concat()), MemSpace::with(&old));
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(mode_of(&pair.a.outcome), Mode::Walk);
    let staged = pair.b.messages().into_iter().find_map(|message| match message {
        Message::Staged(staged) => Some(staged),
        _ => None,
    });
    assert_eq!(staged.unwrap().move_count as usize, count + count / 10);
    assert_eq!(pair.a.records_sent(), count + count / 10);
    println!("{count} new tips, {} messages", pair.a.sent.len() + pair.b.sent.len());
}

// Proves: SY-72
#[test]
fn scope_of_roots_frozen_live_and_with_skipped_relations() {
    let mut author = Author::new(72);
    let picture = binary_record(vec![1; 100].into());
    let note = stone("note", &[]);
    let first = author.first_with("doc", "a", &[("bin", &picture), ("note", &note)]);
    let second = author.edit(&first, "b");
    let other = author.first("not in scope");
    let full = MemSpace::with(&[picture.clone(), note.clone(), first.clone(), second.clone(), other]);
    let roots = vec![first.address().clone()];
    for (live, skipped, expected) in [
        (false, vec![], vec![&picture, &note, &first]),
        (false, vec!["bin".to_owned()], vec![&note, &first]),
        (true, vec![], vec![&picture, &note, &first, &second]),
        (true, vec!["bin".to_owned(), "note".to_owned()], vec![&first, &second]),
    ] {
        for reversed in [false, true] {
            let (a, b) = (full.clone(), MemSpace::default());
            let mut pair = if reversed { Pair::new(b, a) } else { Pair::new(a, b) };
            let scope = Scope::Roots { roots: roots.clone(), live, skipped: skipped.clone() };
            pair.run_ok(scope.clone(), Direction::Both, Strategy::Optimistic);
            let target = if reversed { &pair.a.space } else { &pair.b.space };
            let mut sids: Vec<_> = expected.iter().map(|record| record.sid()).collect();
            sids.sort_unstable();
            assert_eq!(target.sids(), sids, "live {live}, skipped {skipped:?}");
            pair.run_ok(scope, Direction::Both, Strategy::Optimistic);
            assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
        }
    }
}

#[test]
fn records_that_another_saga_commits_meanwhile_do_no_harm() {
    let mut author = Author::new(109);
    let picture = binary_record(vec![3; 5000].into());
    let first = author.first("a");
    let second = author.edit_with(&first, "b", &[("bin", &picture)]);
    let all = [picture, first.clone(), second];
    for at in 0..14 {
        let mut pair = Pair::new(MemSpace::with(&all), MemSpace::with(std::slice::from_ref(&first)));
        let records = all.to_vec();
        pair.before = Some(Box::new(move |count, _, b| {
            if count == at {
                b.space.put(&records);
            }
        }));
        pair.sync_ok();
        pair.assert_equal();
    }
}

// Proves: SY-101
#[test]
fn roles_at_open_and_at_commit() {
    let mut author = Author::new(101);
    let doc = author.timeline(2);
    let space = [author.first_with("space", "s", &[])];
    let members = [author.first_with("members", "m", &[])];
    let table = [
        (Some(Role::Read), &doc[..], Direction::Push, false),
        (Some(Role::Read), &doc[..], Direction::Both, false),
        (Some(Role::Read), &doc[..], Direction::Pull, true),
        (Some(Role::Write), &doc[..], Direction::Push, true),
        (Some(Role::Write), &space[..], Direction::Push, false),
        (Some(Role::Write), &members[..], Direction::Both, false),
        (Some(Role::Admin), &space[..], Direction::Push, true),
        (Some(Role::Admin), &members[..], Direction::Both, true),
        (None, &doc[..], Direction::Pull, false),
    ];
    for (role, records, direction, allowed) in table {
        let mut pair = Pair::new(MemSpace::with(records), MemSpace::default());
        pair.b.role = role;
        let outcomes = pair.run(Scope::All, direction, Strategy::Optimistic);
        match allowed {
            true => assert!(matches!(outcomes[1], Some(SagaOutcome::Committed { .. })), "{role:?} {outcomes:?}"),
            false => {
                assert_eq!(code_of(&outcomes[1]), AbortCode::NotAllowed, "{role:?} {direction:?}");
                assert_eq!(code_of(&outcomes[0]), AbortCode::NotAllowed);
                assert!(pair.b.space.records.is_empty());
            }
        }
    }
    // The role is asked for again at the commit.
    for role in [Some(Role::Read), None] {
        let mut pair = Pair::new(MemSpace::with(&doc), MemSpace::default());
        let now = pair.now;
        let mut told = false;
        pair.before = Some(Box::new(move |_, a, b| {
            if !told && a.sent_of(0x21) == 1 {
                told = true;
                b.handle(now, SagaInput::PeerRole(role));
            }
        }));
        pair.sync();
        let expected = if role.is_some() { AbortCode::NotAllowed } else { AbortCode::Revoked };
        assert_eq!(code_of(&pair.b.outcome), expected);
        assert!(pair.b.space.records.is_empty());
    }
}

#[test]
fn a_role_taken_back_ends_a_saga_at_any_point() {
    let frames = Author::new(102).timeline(20);
    for at in 0..8 {
        let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::with(&frames[..3]));
        let now = pair.now;
        pair.before = Some(Box::new(move |count, _, b| {
            if count == at {
                b.handle(now, SagaInput::PeerRole(None));
            }
        }));
        pair.sync();
        assert_eq!(code_of(&pair.b.outcome), AbortCode::Revoked, "at {at}");
        assert_eq!(pair.b.space.records.len(), 3);
    }
}

fn large_binary(length: usize, seed: u64) -> (Vec<Verified>, Vec<(sealtide_ibgib::ChunkHash, bytes::Bytes)>) {
    let mut bytes = vec![0; length];
    sealtide_crypto::Entropy::fill(&mut sealtide_crypto::SeededEntropy::new(seed), &mut bytes);
    let mut chunks = Vec::new();
    let manifest = Manifest::cut(&mut &bytes[..], &mut |cut| {
        chunks.push((cut.chunk().hash, cut.bytes().clone()));
        Ok(())
    });
    (manifest.unwrap().records(), chunks)
}

// Proves: SY-65, SY-66
#[test]
fn large_binaries_come_with_their_chunks() {
    let (records, chunks) = large_binary(9_000_000, 1);
    let mut author = Author::new(65);
    let first = author.first("empty");
    let frame = author.edit_with(&first, "with content", &[("bin", records.last().unwrap())]);
    let mut source = MemSpace::with(&[records, vec![first.clone(), frame]].concat());
    source.add_chunks(&chunks);
    for target in [MemSpace::default(), MemSpace::with(&[first])] {
        let mut pair = Pair::new(source.clone(), target.clone());
        pair.sync_ok();
        pair.assert_equal();
        assert_eq!(pair.b.space.chunks, source.chunks);
        // A chunk that is there is not sent again.
        let mut pair = Pair::new(source.clone(), target);
        pair.b.space.add_chunks(&chunks[1..]);
        pair.sync_ok();
        let sent: usize = pair.a.messages().iter().map(piece_bytes).sum();
        assert_eq!(sent, chunks[0].1.len());
    }
    // A source without the chunk: incomplete, unless the receiver can do without it.
    let missing = chunks[2].0;
    source.chunks.remove(&missing);
    for may_lack in [None, Some(false)] {
        let mut pair = Pair::new(source.clone(), MemSpace::default());
        pair.b.space.may_lack = may_lack;
        pair.sync();
        assert_eq!(code_of(&pair.b.outcome), AbortCode::Incomplete);
        assert!(pair.b.space.records.is_empty() && pair.b.lacking.is_empty());
    }
    let mut pair = Pair::new(source.clone(), MemSpace::default());
    pair.b.space.may_lack = Some(true);
    pair.sync_ok();
    pair.assert_equal();
    assert_eq!(pair.b.lacking, [missing].into());
    assert_eq!(pair.b.space.chunks, source.chunks, "all others came");
}

/// A cut between the chunks of a file: the resumed saga asks for chunks before the tips are named, and ends all the
/// same, with every chunk sent once.
// Proves: SY-47
#[test]
fn chunks_go_on_after_a_cut() {
    // More chunks than may be asked for at once.
    let (records, chunks) = large_binary(100_000_000, 7);
    assert!(chunks.len() > 70, "{} chunks", chunks.len());
    let mut author = Author::new(8);
    let first = author.first("file");
    let second = author.edit_with(&first, "large", &[("bin", records.last().unwrap())]);
    let mut source = MemSpace::with(&[records, vec![first.clone(), second]].concat());
    source.add_chunks(&chunks);
    let target = MemSpace::with(std::slice::from_ref(&first));
    for (a, b) in [(&source, &target), (&target, &source)] {
        let mut whole = Pair::new(a.clone(), b.clone());
        whole.sync_ok();
        for at in [whole.delivered / 20, whole.delivered / 2] {
            let mut pair = Pair::new(a.clone(), b.clone());
            pair.cut_after = Some(at);
            pair.sync();
            pair.cut_after = None;
            pair.sync_ok();
            pair.assert_equal();
            assert_eq!(pair.a.space.chunks, pair.b.space.chunks, "cut at {at}");
        }
    }
}

fn piece_bytes(message: &Message) -> usize {
    match message {
        Message::Chunks { bytes, .. } => bytes.len(),
        _ => 0,
    }
}

// Proves: SY-74
#[test]
fn progress_is_reported_and_cancel_takes_effect_at_once() {
    let frames = Author::new(74).timeline(50);
    let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::default());
    pair.a.limits.batch_records = 5;
    pair.sync_ok();
    assert!(pair.b.progress >= 1 && pair.a.progress >= 1);
    let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::default());
    pair.a.limits.batch_records = 5;
    let now = pair.now;
    pair.before = Some(Box::new(move |count, _, b| {
        if count == 5 {
            b.handle(now, SagaInput::Cancel);
        }
    }));
    pair.sync();
    assert_eq!(code_of(&pair.b.outcome), AbortCode::Cancelled);
    assert_eq!(code_of(&pair.a.outcome), AbortCode::Cancelled);
    assert!(pair.b.space.records.is_empty() && pair.b.space.staged.is_empty());
}

#[test]
fn one_way_sagas_move_nothing_the_other_way() {
    let mut author = Author::new(110);
    let (left, right) = (author.timeline(3), author.timeline(4));
    let common = author.timeline(2);
    let a = MemSpace::with(&[common.clone(), left.clone()].concat());
    let b = MemSpace::with(&[common, right.clone()].concat());
    // Level 1 tells what the receiver alone has; without it the receiver has more, and nothing is compared.
    let ways = [Direction::Push, Direction::Pull].into_iter().flat_map(|way| [(way, true), (way, false)]);
    for (direction, recon) in ways {
        let mut pair = Pair::new(a.clone(), b.clone());
        pair.recon = recon;
        pair.run_ok(Scope::All, direction, Strategy::Optimistic);
        let (sent_a, sent_b) = (pair.a.records_sent(), pair.b.records_sent());
        assert_eq!((sent_a, sent_b), if direction == Direction::Push { (3, 0) } else { (0, 4) });
        assert_eq!(mode_of(&pair.a.outcome), if recon { Mode::Recon } else { Mode::Walk });
    }
}

/// The reconciliation says that nothing differs, as it would with a prepared collision of sums.
// Proves: SY-52, SY-92
#[test]
fn what_a_wrong_reconciliation_hides_is_found_by_the_digests() {
    let mut author = Author::new(52);
    let common = author.timeline(2);
    let (left, right) = (author.timeline(3), author.timeline(4));
    let a = MemSpace::with(&[common.clone(), left].concat());
    let b = MemSpace::with(&[common, right].concat());
    for direction in [Direction::Push, Direction::Pull, Direction::Both] {
        // One way, the receiver must hold nothing else for the sums to tell (spec/sync.md §4).
        let (a, b) = match direction {
            Direction::Push => (a.clone(), MemSpace::with(&author.timeline(1))),
            Direction::Pull => (MemSpace::with(&author.timeline(1)), b.clone()),
            Direction::Both => (a.clone(), b.clone()),
        };
        // Level 1 has tests of its own in recon.rs.
        let mut pair = Pair::new(a, b);
        pair.recon = false;
        pair.tamper = Some(Box::new(|opener, message| match Message::decode(&message).unwrap() {
            Message::Recon { level, run, salted, .. } if !opener => {
                let payload = bytes::Bytes::from_static(&[0x61]);
                Some(Message::Recon { level, run, salted, payload }.encode())
            }
            _ => Some(message),
        }));
        let wanted: Vec<_> = match direction {
            Direction::Pull => pair.b.space.sids(),
            _ => pair.a.space.sids(),
        };
        pair.run_ok(Scope::All, direction, Strategy::Optimistic);
        assert_eq!(mode_of(&pair.a.outcome), Mode::Bulk, "{direction:?}");
        let receiver = if direction == Direction::Pull { &pair.a } else { &pair.b };
        assert!(wanted.iter().all(|sid| receiver.space.records.contains_key(sid)), "{direction:?}");
        if direction == Direction::Both {
            pair.assert_equal();
        }
    }
}

/// Many small random histories, both ways, in all directions and interleavings.
#[test]
fn random_spaces_agree_after_one_saga() {
    let seeds = 150 * crate::support::scale() as u64;
    for seed in 0..seeds {
        let mut author = Author::new(seed);
        let mut ends = [Vec::<Verified>::new(), Vec::new()];
        let mut tips: Vec<[Verified; 2]> = Vec::new();
        for _ in 0..author.number(30) {
            if tips.is_empty() || author.number(3) == 0 {
                let first = author.first("first");
                if author.number(2) == 0 {
                    ends.iter_mut().for_each(|end| end.push(first.clone()));
                    tips.push([first.clone(), first]);
                } else {
                    let side = author.number(2);
                    ends[side].push(first);
                }
            } else {
                let (at, side) = (author.number(tips.len()), author.number(2));
                let size = author.number(300);
                let link = binary_record(vec![side as u8; size].into());
                let next = author.edit_with(&tips[at][side], "edit", &[("bin", &link)]);
                ends[side].extend([next.clone(), link]);
                tips[at][side] = next;
            }
        }
        let mut pair = Pair::new(MemSpace::with(&ends[0]), MemSpace::with(&ends[1]));
        pair.chance = sealtide_crypto::SeededEntropy::new(seed);
        let expected: std::collections::BTreeSet<_> = ends.concat().iter().map(Verified::sid).collect();
        pair.sync_ok();
        pair.assert_equal();
        let (made, merged): (Vec<_>, Vec<_>) = pair.a.space.sids().into_iter().partition(|sid| expected.contains(sid));
        assert_eq!(made, expected.into_iter().collect::<Vec<_>>(), "seed {seed}");
        let is_merge = |sid| pair.a.space.records[sid].relations().contains_key("graftorphan");
        assert!(merged.iter().all(is_merge), "seed {seed}");
        assert!(pair.a.space.tips.values().all(|tips| tips.len() == 1), "seed {seed}");
        assert!(!again(&pair.a.outcome) && !again(&pair.b.outcome), "seed {seed}");
    }
    println!("{seeds} seeds");
}
