//! Level 1: mode recon, the way from a walk to it, the check, salted runs, peers that lie.
use std::collections::{BTreeMap, BTreeSet};

use crate::support::{Author, MemSpace, Pair, stone};
use bytes::Bytes;
use sealtide_ibgib::{Sid, Verified};
use sealtide_sync::negentropy::{Ranges, Run, Splitter, fingerprint};
use sealtide_sync::{
    AbortCode, Direction, IdSum, Message, Mode, RangeBound, SagaInput, SagaOutcome, Scope, SpaceView, Strategy, TipItem,
};

const ALL_WAYS: [Direction; 3] = [Direction::Push, Direction::Pull, Direction::Both];

fn mode_of(pair: &Pair) -> Mode {
    match &pair.a.outcome {
        Some(SagaOutcome::Committed { mode, .. }) => *mode,
        other => panic!("{other:?}"),
    }
}

fn codes(pair: &Pair) -> [AbortCode; 2] {
    [&pair.a, &pair.b].map(|end| match &end.outcome {
        Some(SagaOutcome::Aborted { code, .. }) => *code,
        other => panic!("{other:?}"),
    })
}

fn stones(count: usize, name: &str) -> Vec<Verified> {
    (0..count).map(|n| stone(&format!("{name}{n}"), &[])).collect()
}

/// Both sides have the same tips, and stones that no tip refers to.
fn islands(common: usize, left: usize, right: usize) -> (MemSpace, MemSpace) {
    let shared = [Author::new(41).timeline(5), stones(common, "common")].concat();
    let a = MemSpace::with(&[shared.clone(), stones(left, "left")].concat());
    (a, MemSpace::with(&[shared, stones(right, "right")].concat()))
}

fn holds_all(space: &MemSpace, other: &MemSpace) -> bool {
    other.records.keys().all(|sid| space.records.contains_key(sid))
}

fn check_direction(pair: &Pair, direction: Direction, before: &[MemSpace; 2]) {
    let [a, b] = before;
    assert_eq!(holds_all(&pair.b.space, a), direction != Direction::Pull, "{direction:?}");
    assert_eq!(holds_all(&pair.a.space, b), direction != Direction::Push, "{direction:?}");
}

// Proves: SY-39, SY-41
#[test]
fn records_that_no_tip_reaches_are_found_by_level_1() {
    let (a, b) = islands(2000, 7, 9);
    for direction in ALL_WAYS {
        for recon in [true, false] {
            let mut pair = Pair::new(a.clone(), b.clone());
            pair.recon = recon;
            pair.run_ok(Scope::All, direction, Strategy::Optimistic);
            check_direction(&pair, direction, &[a.clone(), b.clone()]);
            assert_eq!(mode_of(&pair), if recon { Mode::Recon } else { Mode::Bulk });
            let sent = pair.a.records_sent() + pair.b.records_sent();
            if recon {
                let new = [7, 9, 16][direction as usize];
                assert_eq!(sent, new, "{direction:?}: only what is new");
                assert_eq!(pair.a.sent_of(0x1b), 1, "one DIFF");
                let bytes: usize =
                    pair.a.sent.iter().chain(&pair.b.sent).filter(|m| m[0] == 0x12).map(Bytes::len).sum();
                assert!(bytes < 30_000, "{bytes} bytes of reconciliation");
                assert!(pair.a.sent_of(0x12) <= 4, "{} rounds", pair.a.sent_of(0x12));
            }
        }
    }
}

/// A chain of stones is one more round for each stone of it.
// Proves: SY-97
#[test]
fn a_walk_that_takes_too_long_goes_over_to_level_1() {
    let mut author = Author::new(40);
    let common = [author.timeline(3), stones(500, "common")].concat();
    let mut chain = vec![stone("s0", &[])];
    for n in 1..40 {
        let next = stone(&format!("s{n}"), &[("next", &chain[n - 1])]);
        chain.push(next);
    }
    let top = author.first_with("doc", "top", &[("chain", chain.last().unwrap())]);
    let deep = MemSpace::with(&[common.clone(), chain, vec![top]].concat());
    let flat = MemSpace::with(&[common, author.timeline(2)].concat());
    for (a, b) in [(&deep, &flat), (&flat, &deep)] {
        for (direction, recon) in ALL_WAYS.into_iter().flat_map(|way| [(way, true), (way, false)]) {
            let mut pair = Pair::new(a.clone(), b.clone());
            pair.recon = recon;
            pair.run_ok(Scope::All, direction, Strategy::Optimistic);
            check_direction(&pair, direction, &[a.clone(), b.clone()]);
            let sent = pair.a.records_sent() + pair.b.records_sent();
            assert_eq!(sent <= 43, recon || sent < 500, "{sent} records, recon {recon}");
        }
    }
    let mut pair = Pair::new(deep, flat);
    pair.sync_ok();
    assert_eq!(mode_of(&pair), Mode::Recon);
}

/// The answerer says of some levels that everything is equal: (level, salted) → whether it lies.
fn lie(pair: &mut Pair, levels: &'static [(u64, bool)]) {
    pair.tamper = Some(Box::new(|opener, message| match Message::decode(&message).unwrap() {
        Message::Recon { level, run, salted, payload }
            if !opener && !payload.is_empty() && levels.contains(&(level, salted)) =>
        {
            Some(Message::Recon { level, run, salted, payload: Bytes::from_static(&[0x61]) }.encode())
        }
        _ => Some(message),
    }));
}

/// A peer that claims equal ranges is found out at the next level, and at the last one the saga ends. Also one way, and
/// with records that only the receiver has.
// Proves: SY-52
#[test]
fn a_peer_that_lies_in_recon_is_found_by_the_digests() {
    let mut author = Author::new(52);
    let common = author.timeline(2);
    let a = MemSpace::with(&[common.clone(), author.timeline(3)].concat());
    let b = MemSpace::with(&[common, author.timeline(4)].concat());
    let lies: [(&[(u64, bool)], bool); 3] =
        [(&[(0, false)], true), (&[(0, false), (1, false)], true), (&[(0, false), (1, false), (1, true)], false)];
    for (direction, (levels, ends_well)) in ALL_WAYS.into_iter().flat_map(|way| lies.map(|lie| (way, lie))) {
        let mut pair = Pair::new(a.clone(), b.clone());
        lie(&mut pair, levels);
        pair.run(Scope::All, direction, Strategy::Optimistic);
        if ends_well {
            check_direction(&pair, direction, &[a.clone(), b.clone()]);
            assert_eq!(mode_of(&pair), Mode::Recon);
        } else {
            assert_eq!(codes(&pair), [AbortCode::Incomplete; 2], "{direction:?}");
            assert_eq!([pair.a.space.sids(), pair.b.space.sids()], [a.sids(), b.sids()]);
        }
    }
    // The same where the tips are equal: mode recon begins with level 1.
    let (a, b) = islands(100, 3, 4);
    for (direction, (levels, ends_well)) in ALL_WAYS.into_iter().flat_map(|way| lies.map(|lie| (way, lie))) {
        let mut pair = Pair::new(a.clone(), b.clone());
        lie(&mut pair, levels);
        pair.run(Scope::All, direction, Strategy::Optimistic);
        match ends_well {
            true => check_direction(&pair, direction, &[a.clone(), b.clone()]),
            false => assert_eq!(codes(&pair), [AbortCode::Incomplete; 2]),
        }
    }
}

/// Four bytes of the fingerprint, so that a collision can be searched for.
fn short_fingerprint(sum: &IdSum, count: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&fingerprint(sum, count)[..4]);
    out
}

/// The first part of the first cut that holds enough of the items.
fn crowded_part(items: &[(u64, [u8; 32])]) -> (RangeBound, RangeBound) {
    let at = |part: u64| RangeBound { order: (u128::from(u64::MAX) * u128::from(part) / 16) as u64, id: [0; 32] };
    let run = Run::new(items.to_vec());
    let part = (0..16).find(|part| run.sum(&at(*part), &at(part + 1)).0 > 1200).unwrap();
    (at(part), at(part + 1))
}

/// Two disjoint pairs of items inside one part such that each pair, added to `base`, gives the same short fingerprint.
fn collision(candidates: &[[u8; 32]], base: &IdSum, count: u64) -> [[usize; 2]; 2] {
    let mut seen: BTreeMap<[u8; 16], [usize; 2]> = BTreeMap::new();
    for first in 0..candidates.len() {
        for second in 0..first {
            let mut sum = *base;
            sum.add(&candidates[first]);
            sum.add(&candidates[second]);
            let pair = [first, second];
            if let Some(other) = seen.insert(short_fingerprint(&sum, count + 2), pair)
                && other.iter().all(|place| !pair.contains(place))
            {
                return [other, pair];
            }
        }
    }
    panic!("no collision among {} items", candidates.len());
}

/// Two sides with 80 records in common, half of them inside the part, and two each of their own, whose sums collide in 32 bits at `level`.
fn colliding(all: Vec<Verified>, key: impl Fn(&Verified) -> (u64, [u8; 32])) -> (MemSpace, MemSpace) {
    let (lo, hi) = crowded_part(&all.iter().map(&key).collect::<Vec<_>>());
    let (inside, outside): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|record| (lo.order..hi.order).contains(&key(record).0));
    let (shared, rest) = inside.split_at(40);
    let mut base = IdSum::default();
    shared.iter().for_each(|record| base.add(&key(record).1));
    let candidates: Vec<_> = rest.iter().map(|record| key(record).1).collect();
    let [left, right] = collision(&candidates, &base, 40);
    let with = |places: [usize; 2]| {
        MemSpace::with(&[shared, &outside[..40], &places.map(|place| rest[place].clone())].concat())
    };
    (with(left), with(right))
}

/// A prepared collision hides two records of each side from the run that compares them; the next one finds them.
// Proves: SY-92, SY-52
#[test]
fn sum_collision() {
    let mut author = Author::new(92);
    let tips = (0..12_000).map(|n| author.first(&format!("{n}"))).collect();
    let tip_key = |record: &Verified| TipItem::of(record).map(|tip| (tip.order, tip.id)).unwrap();
    let items = stones(12_000, "s");
    let item_key = |record: &Verified| (record.order_key(), record.sid().0);
    for (level, (a, b)) in [(0, colliding(tips, tip_key)), (1, colliding(items, item_key))] {
        for (direction, short) in ALL_WAYS.into_iter().flat_map(|way| [(way, true), (way, false)]) {
            let mut pair = Pair::new(a.clone(), b.clone());
            if short {
                pair.splitter = Splitter::with_fingerprint(short_fingerprint);
            }
            pair.run_ok(Scope::All, direction, Strategy::Optimistic);
            check_direction(&pair, direction, &[a.clone(), b.clone()]);
            // One run more than with the whole fingerprint. One way, level 1 follows level 0 anyway, for what the
            // receiver alone has.
            let runs: BTreeSet<_> = pair.a.messages().into_iter().filter_map(run_of).collect();
            let honest = if level == 0 && direction != Direction::Both { 2 } else { 1 };
            let expected = if short && !(level == 0 && honest == 2) { honest + 1 } else { honest };
            assert_eq!(runs.len(), expected, "level {level} {direction:?} {short}: {runs:?}");
            assert_eq!(runs.iter().any(|run| run.2), short && level == 1);
        }
    }
}

fn run_of(message: Message) -> Option<(u64, u64, bool)> {
    match message {
        Message::Recon { level, run, salted, .. } => Some((run, level, salted)),
        _ => None,
    }
}

/// Another saga or a person changes either side in the middle of level 1.
#[test]
fn a_space_that_changes_during_level_1() {
    let mut author = Author::new(108);
    let (local, loose) = (author.first("local"), stone("loose", &[]));
    let (a, b) = islands(300, 3, 4);
    for (direction, at) in ALL_WAYS.into_iter().flat_map(|way| (0..14).map(move |at| (way, at))) {
        for (left, lies) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut pair = Pair::new(a.clone(), b.clone());
            if lies {
                lie(&mut pair, &[(1, false)]);
            }
            let change = [local.clone(), loose.clone()];
            pair.before = Some(Box::new(move |count, a, b| {
                if count == at {
                    if left { &mut *a } else { &mut *b }.space.put(&change);
                }
            }));
            pair.run_ok(Scope::All, direction, Strategy::Optimistic);
            if lies {
                // What a liar hides from a side that moved is found by the next saga.
                continue;
            }
            check_direction(&pair, direction, &[a.clone(), b.clone()]);
            (pair.before, pair.saga.0[0]) = (None, 9);
            pair.sync_ok();
            pair.assert_equal();
        }
    }
}

// Proves: SY-38, SY-47
#[test]
fn a_cut_after_every_message_of_level_1() {
    let (a, b) = islands(200, 5, 6);
    let mut cuts = 0;
    for (salted, at) in [false, true].into_iter().flat_map(|salted| (0..60).map(move |at| (salted, at))) {
        let mut pair = Pair::new(a.clone(), b.clone());
        (pair.a.limits.batch_records, pair.b.limits.batch_records) = (2, 2);
        if salted {
            lie(&mut pair, &[(1, false)]);
        }
        pair.cut_after = Some(at);
        pair.sync();
        if !pair.cut {
            break;
        }
        cuts += 1;
        let kept = [&pair.a, &pair.b].map(|end| end.space.staged(&pair.saga));
        pair.cut_after = None;
        pair.sync_ok();
        pair.assert_equal();
        for (kept, sender) in kept.iter().zip([&pair.b, &pair.a]) {
            let sent: BTreeSet<Sid> =
                sender.payload().into_iter().map(|bytes| Verified::accept(bytes).unwrap().sid()).collect();
            assert!(kept.iter().all(|sid| !sent.contains(sid)), "cut at {at}: something staged was sent again");
        }
    }
    assert!(cuts > 20, "{cuts} cuts");
}

// Proves: SY-72
#[test]
fn level_1_keeps_to_its_scope() {
    let picture = stone("picture", &[]);
    let (x, y) = (stone("x", &[]), stone("y", &[]));
    let mut author = Author::new(72);
    let first = author.first_with("doc", "a", &[("bin", &picture), ("note", &x), ("note", &y)]);
    let outside = stones(50, "outside");
    let full = MemSpace::with(&[vec![picture, x.clone(), y.clone(), first.clone()], outside].concat());
    // The target has the tip but not what it refers to: only an interrupted import could leave that.
    let holed = MemSpace::with(&[first.clone(), y]);
    for (skipped, expected) in [(vec!["bin".to_owned()], 3), (vec![], 4)] {
        for reversed in [false, true] {
            let (a, b) = if reversed { (holed.clone(), full.clone()) } else { (full.clone(), holed.clone()) };
            let mut pair = Pair::new(a, b);
            let roots = vec![first.address().clone()];
            pair.run_ok(Scope::Roots { roots, live: true, skipped: skipped.clone() }, Direction::Both, Strategy::Abort);
            assert_eq!(mode_of(&pair), Mode::Recon);
            let target = if reversed { &pair.a.space } else { &pair.b.space };
            assert_eq!(target.records.len(), expected, "{skipped:?}");
        }
    }
}

/// Changes the first message that `pick` picks; what came of it.
fn broken(pair: &mut Pair, mut pick: impl FnMut(bool, Message) -> Option<Vec<Message>> + 'static) -> [AbortCode; 2] {
    let mut more: Vec<(bool, Bytes)> = Vec::new();
    let mut done = false;
    pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
    loop {
        let moved = pair.step_with(&mut |opener, message| {
            if done {
                return Some(message);
            }
            match pick(opener, Message::decode(&message).unwrap()) {
                None => Some(message),
                Some(changed) => {
                    done = true;
                    more = changed.iter().map(|message| (opener, message.encode())).collect();
                    (!more.is_empty()).then(|| more.remove(0).1)
                }
            }
        });
        for (opener, message) in more.drain(..) {
            let now = pair.now;
            let victim = if opener { &mut pair.b } else { &mut pair.a };
            victim.handle(now, SagaInput::Message(message));
        }
        if !moved {
            break;
        }
    }
    assert!(done, "nothing was changed");
    codes(pair)
}

type Pick = fn(bool, Message) -> Option<Vec<Message>>;

// Proves: SY-53
#[test]
fn each_broken_rule_of_level_1_has_its_code() {
    let cases: [(&str, AbortCode, Pick); 13] = [
        ("DIFF out of order", AbortCode::Protocol, |_, message| match message {
            Message::Diff { run, mut only_opener, only_answerer, last } => {
                only_opener.reverse();
                Some(vec![Message::Diff { run, only_opener, only_answerer, last }])
            }
            _ => None,
        }),
        ("DIFF with an id twice", AbortCode::Protocol, |_, message| match message {
            Message::Diff { run, only_opener, mut only_answerer, last } => {
                only_answerer.push(*only_answerer.last().unwrap());
                Some(vec![Message::Diff { run, only_opener, only_answerer, last }])
            }
            _ => None,
        }),
        ("DIFF that gives the answerer what it has not", AbortCode::Protocol, |_, message| match message {
            Message::Diff { run, only_opener, last, .. } => {
                Some(vec![Message::Diff { run, only_answerer: only_opener.clone(), only_opener, last }])
            }
            _ => None,
        }),
        ("DIFF of another run", AbortCode::Protocol, |_, message| match message {
            Message::Diff { run, only_opener, only_answerer, last } => {
                Some(vec![Message::Diff { run: run + 1, only_opener, only_answerer, last }])
            }
            _ => None,
        }),
        ("DIFF twice", AbortCode::Protocol, |_, message| match message {
            Message::Diff { .. } => Some(vec![message.clone(), message]),
            _ => None,
        }),
        ("an empty part of a DIFF", AbortCode::Protocol, |_, message| match message {
            Message::Diff { run, .. } => {
                Some(vec![Message::Diff { run, only_opener: vec![], only_answerer: vec![], last: false }])
            }
            _ => None,
        }),
        ("DIFF of the answerer", AbortCode::Protocol, |opener, message| match message {
            Message::Recon { .. } if !opener => {
                Some(vec![Message::Diff { run: 1, only_opener: vec![], only_answerer: vec![], last: true }])
            }
            _ => None,
        }),
        ("a DIFF that names what the opener has not", AbortCode::Incomplete, |_, message| match message {
            Message::Diff { run, mut only_opener, only_answerer, last } => {
                only_opener.push([0xff; 32]);
                Some(vec![Message::Diff { run, only_opener, only_answerer, last }])
            }
            _ => None,
        }),
        ("level 0 where level 1 is due", AbortCode::Protocol, |opener, message| match message {
            Message::Recon { run, salted, payload, .. } if opener => {
                Some(vec![Message::Recon { level: 0, run, salted, payload }])
            }
            _ => None,
        }),
        ("salted before level 1", AbortCode::Protocol, |opener, message| match message {
            Message::Recon { level, run, payload, .. } if opener => {
                Some(vec![Message::Recon { level, run, salted: true, payload }])
            }
            _ => None,
        }),
        ("a run that jumps ahead", AbortCode::Protocol, |opener, message| match message {
            Message::Recon { level, salted, payload, .. } if opener => {
                Some(vec![Message::Recon { level, run: 2, salted, payload }])
            }
            _ => None,
        }),
        ("an empty RECON of the opener", AbortCode::Protocol, |opener, message| match message {
            Message::Recon { level, run, salted, .. } if opener => {
                Some(vec![Message::Recon { level, run, salted, payload: Bytes::new() }])
            }
            _ => None,
        }),
        ("level 2", AbortCode::Protocol, |opener, message| match message {
            Message::Recon { run, salted, payload, .. } if opener => {
                Some(vec![Message::Recon { level: 2, run, salted, payload }])
            }
            _ => None,
        }),
    ];
    for (name, code, pick) in cases {
        let (a, b) = islands(100, 5, 6);
        let mut pair = Pair::new(a.clone(), b.clone());
        assert_eq!(broken(&mut pair, pick), [code; 2], "{name}");
        assert_eq!([pair.a.space.sids(), pair.b.space.sids()], [a.sids(), b.sids()], "{name}");
    }
    // Without the feature on both sides none of it is taken.
    for pick in [
        |opener, message| match message {
            Message::Recon { run, salted, payload, .. } if opener => {
                Some(vec![Message::Recon { level: 1, run, salted, payload }])
            }
            _ => None,
        },
        |opener, message| match message {
            Message::Recon { .. } if !opener => {
                Some(vec![Message::Recon { level: 1, run: 2, salted: false, payload: Bytes::new() }])
            }
            _ => None,
        },
    ] as [Pick; 2]
    {
        let mut author = Author::new(5);
        let mut pair = Pair::new(MemSpace::with(&author.timeline(2)), MemSpace::with(&author.timeline(3)));
        pair.recon = false;
        assert_eq!(broken(&mut pair, pick), [AbortCode::Protocol; 2]);
    }
}

/// A third run, whoever calls for it.
// Proves: SY-53
#[test]
fn level_1_runs_twice_at_most() {
    for salted in [false, true] {
        let (a, b) = islands(100, 5, 6);
        let mut pair = Pair::new(a, b);
        lie(&mut pair, if salted { &[(1, false)] } else { &[] });
        pair.open(Scope::All, Direction::Both, Strategy::Optimistic);
        let kind = if salted { 3 } else { 2 };
        let mut asked = false;
        while pair.step() {
            // The answerer asks for a run that is not due.
            if pair.a.sent_of(0x1b) > usize::from(salted) && !asked {
                asked = true;
                let ask = Message::Recon { level: 1, run: kind, salted: false, payload: Bytes::new() };
                pair.a.handle(pair.now, SagaInput::Message(ask.encode()));
            }
        }
        assert!(asked);
        assert!(matches!(pair.a.outcome, Some(SagaOutcome::Aborted { code: AbortCode::Protocol, .. })));
    }
}

/// A reader with a change of its own gets everything, and a record that the sender hides is missed.
// Proves: SY-52
#[test]
fn what_only_the_receiver_has_is_no_difference() {
    let mut author = Author::new(53);
    let shared = [author.timeline(4), stones(60, "shared")].concat();
    let own = [author.timeline(2), stones(3, "own")].concat();
    let new = [author.timeline(3), stones(2, "new")].concat();
    let reader = MemSpace::with(&[shared.clone(), own].concat());
    let source = MemSpace::with(&[shared, new].concat());
    for direction in [Direction::Push, Direction::Pull] {
        let (a, b) = if direction == Direction::Push { (&source, &reader) } else { (&reader, &source) };
        let mut pair = Pair::new(a.clone(), b.clone());
        pair.run_ok(Scope::All, direction, Strategy::Optimistic);
        check_direction(&pair, direction, &[a.clone(), b.clone()]);
        assert_eq!(pair.a.records_sent() + pair.b.records_sent(), 5);
        // Again: nothing differs but the reader's own.
        pair.saga.0[0] += 1;
        pair.run_ok(Scope::All, direction, Strategy::Optimistic);
        assert_eq!(pair.a.records_sent() + pair.b.records_sent(), 0);
    }
}
