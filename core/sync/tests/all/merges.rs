//! Timelines that were changed on both sides: what a saga makes of them. Spec: merge §6
use std::collections::BTreeSet;

use crate::support::{Author, MemSpace, Pair, again, code_of, diverged, mode_of};
use sealtide_ibgib::{Relations, Verified, binary_record, evolve, genesis, uuid};
use sealtide_identity::Role;
use sealtide_sync::{AbortCode, Direction, Message, Mode, SagaOutcome, Scope, SpaceView, Strategy};
use serde_json::{Value, json};

/// The one tip of a space with one timeline.
fn tip(space: &MemSpace) -> Verified {
    let tips: Vec<_> = space.tips.values().flatten().collect();
    assert_eq!(tips.len(), 1, "{tips:?}");
    space.records[&space.addresses[tips[0]][0]].clone()
}

fn tip_count(space: &MemSpace) -> usize {
    space.tips.values().map(Vec::len).sum()
}

fn text(record: &Verified) -> Value {
    record.object().unwrap()["text"].clone()
}

/// V1 on both sides, then an edit on each.
struct Apart {
    base: Verified,
    left: Verified,
    right: Verified,
}

fn apart(base: Value, left: Value, right: Value) -> Apart {
    let object = |value: &Value| value.as_object().unwrap().clone();
    let stamp = |ms: u64| sealtide_ibgib::Stamp { ms: 1_700_000_000_000 + ms };
    let uuid = uuid(&mut sealtide_crypto::SeededEntropy::new(7));
    let base = genesis("note", object(&base), Relations::new(), stamp(0), &uuid);
    let edit = |data: &Value, ms| evolve(&base, object(data), Relations::new(), stamp(ms));
    let (left, right) = (edit(&left, 5), edit(&right, 9));
    Apart { base, left, right }
}

impl Apart {
    fn spaces(&self) -> (MemSpace, MemSpace) {
        let with = |edit: &Verified| MemSpace::with(&[self.base.clone(), edit.clone()]);
        (with(&self.left), with(&self.right))
    }
}

// Proves: SY-36, SY-58, SY-62
#[test]
fn sc7_divergence() {
    let apart = apart(json!({"a": 0, "b": 0}), json!({"a": 1, "b": 0}), json!({"a": 0, "b": 2}));
    let (left, right) = apart.spaces();
    let mut found = BTreeSet::new();
    for (a, b) in [(left.clone(), right.clone()), (right, left)] {
        let mut pair = Pair::new(a, b);
        pair.sync_ok();
        pair.assert_equal();
        assert!(!again(&pair.a.outcome) && !again(&pair.b.outcome));
        let merged = tip(&pair.a.space);
        let data = merged.object().unwrap();
        assert_eq!((&data["a"], &data["b"], &data["n"]), (&json!(1), &json!(2), &json!(2)));
        assert_eq!(merged.relations()["graftbase"], [apart.base.address().clone()]);
        assert_eq!(merged.relations()["graftorphan"], [apart.left.address().clone()]);
        let orphan = pair.b.space.by_address(apart.left.address());
        assert_eq!(orphan.len(), 1, "the orphan stays readable");
        // What both agreed on is what they have.
        let staged = |message: &Message| match message {
            Message::Staged(staged) => staged.after.clone(),
            _ => None,
        };
        let snapshot = pair.a.space.snapshot();
        let facts = sealtide_sync::Facts::of(&snapshot.tip_summary, &snapshot.item_summary);
        for end in [&pair.a, &pair.b] {
            assert_eq!(end.messages().iter().find_map(staged), Some(facts.clone()));
        }
        found.insert(merged.sid());
        pair.sync_ok();
        assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
        assert_eq!(pair.a.commits + pair.b.commits, 2, "nothing more to commit");
    }
    assert_eq!(found.len(), 1, "the same frame whoever opens");
}

// Proves: SY-36
#[test]
fn sc8_divergence_with_a_new_relation() {
    let mut author = Author::new(8);
    let base = author.first("base");
    let picture = binary_record(vec![1; 100].into());
    let other = author.first_with("doc", "beta", &[("bin", &picture)]);
    let newer = author.edit(&other, "beta 2");
    let left = author.edit_with(&base, "base", &[("beta", &other)]);
    let right = author.edit(&base, "changed");
    let a = MemSpace::with(&[base.clone(), picture, other.clone(), newer.clone(), left]);
    let mut pair = Pair::new(a, MemSpace::with(&[base.clone(), right]));
    pair.sync_ok();
    pair.assert_equal();
    let tips = &pair.b.space.tips;
    assert_eq!(tips[&other.frame().unwrap().timeline], [newer.address().clone()]);
    let merged = &tips[&base.frame().unwrap().timeline];
    let merged = &pair.b.space.records[&pair.b.space.addresses[&merged[0]][0]];
    assert_eq!(merged.relations()["beta"], [other.address().clone()]);
    assert_eq!(text(merged), json!("changed"));
}

// Proves: SY-36, SY-60
#[test]
fn sc9_text() {
    for (base, left, right, merged, conflicts) in [
        ("middle", "start middle", "middle end", "start middle end", 0),
        ("P one.\n\nP two.\n", "P one changed.\n\nP two.\n", "P one.\n\nP 2.\n", "P one changed.\n\nP 2.\n", 0),
        ("the red fox", "the blue fox", "the green fox", "the green blue fox", 1),
    ] {
        let apart = apart(json!({"text": base}), json!({"text": left}), json!({"text": right}));
        let (a, b) = apart.spaces();
        let mut pair = Pair::new(a, b);
        pair.sync_ok();
        pair.assert_equal();
        let found = tip(&pair.a.space);
        assert_eq!(text(&found), json!(merged));
        assert_eq!(found.object().unwrap()["graft"]["conflicts"], json!(conflicts));
    }
}

// Proves: SY-64
#[test]
fn table_of_strategies() {
    let mut author = Author::new(64);
    let (left, right) = diverged(&mut author, 2, 1, 2);
    for direction in [Direction::Both, Direction::Push, Direction::Pull] {
        for strategy in [Strategy::Abort, Strategy::Optimistic, Strategy::Ours, Strategy::Theirs] {
            for reversed in [false, true] {
                let (a, b) = if reversed { (&right, &left) } else { (&left, &right) };
                let mut pair = Pair::new(MemSpace::with(a), MemSpace::with(b));
                let outcomes = pair.run(Scope::All, direction, strategy);
                if strategy == Strategy::Abort {
                    outcomes.iter().for_each(|outcome| assert_eq!(code_of(outcome), AbortCode::Divergence));
                    assert_eq!((pair.a.space.records.len(), pair.b.space.records.len()), (a.len(), b.len()));
                    assert!(pair.a.space.staged.is_empty() && pair.b.space.staged.is_empty());
                    continue;
                }
                if direction != Direction::Both {
                    // Nothing is merged that could not be given back; the next saga both ways does it.
                    let receiver = if direction == Direction::Pull { &pair.a } else { &pair.b };
                    assert_eq!((tip_count(&receiver.space), again(&receiver.outcome)), (2, false));
                    pair.saga.0[0] += 1;
                    pair.sync_ok();
                    pair.assert_equal();
                    assert_eq!(tip_count(&pair.a.space), 1);
                    continue;
                }
                let merged = tip(&pair.a.space);
                let last = |frames: &[Verified]| text(frames.last().unwrap());
                match strategy {
                    Strategy::Ours => assert_eq!(text(&merged), last(a)),
                    Strategy::Theirs => assert_eq!(text(&merged), last(b)),
                    _ => assert_eq!(merged.object().unwrap()["graft"]["conflicts"], json!(1)),
                }
                let name = ["", "optimistic", "ours", "theirs"][strategy as usize];
                assert_eq!(merged.object().unwrap()["graft"]["strategy"], json!(name));
                assert_eq!(merged.frame().unwrap().n, 4);
                pair.assert_equal();
            }
        }
    }
}

/// A divergence that both sides have already, because a tip moved in an earlier saga: the next one merges it.
#[test]
fn a_divergence_that_both_have_is_merged_too() {
    let mut author = Author::new(65);
    let (left, right) = diverged(&mut author, 2, 1, 2);
    let both = MemSpace::with(&[left, right].concat());
    for more in [false, true] {
        let mut pair = Pair::new(both.clone(), both.clone());
        if more {
            let extra = author.first("other");
            pair.a.space.put(&[extra]);
        }
        // Who must not diverge keeps what is there.
        pair.run_ok(Scope::All, Direction::Both, Strategy::Abort);
        assert_eq!(tip_count(&pair.a.space), 2 + usize::from(more));
        pair.saga.0[0] += 1;
        pair.sync_ok();
        pair.assert_equal();
        assert_eq!(tip_count(&pair.a.space), 1 + usize::from(more));
        pair.saga.0[0] += 1;
        pair.sync_ok();
        assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
        assert_eq!(pair.a.space.records.len(), 6 + usize::from(more));
    }
}

#[test]
fn three_and_more_tips_become_one() {
    let mut author = Author::new(66);
    let base = author.first("base");
    let edits: Vec<_> = (0..5).map(|n| author.edit(&base, &format!("base {n}"))).collect();
    for split in 0..=5 {
        let side = |edits: &[Verified]| MemSpace::with(&[std::slice::from_ref(&base), edits].concat());
        let mut pair = Pair::new(side(&edits[..split]), side(&edits[split..]));
        pair.sync_ok();
        pair.assert_equal();
        let merged = tip(&pair.a.space);
        (0..5).for_each(|n| assert!(text(&merged).as_str().unwrap().contains(&n.to_string())));
        assert_eq!(pair.a.space.records.len(), 10);
    }
}

/// Both tips stay where no merge is possible, and the saga is as good as any.
#[test]
fn what_cannot_be_merged_keeps_both_tips() {
    let mut author = Author::new(67);
    let half = "x".repeat(400 * 1024);
    let large = author.first("");
    let keystone = sealtide_ibgib::Data::Json(json!({"isTjp": true, "n": 0}));
    let ancestor =
        Relations::from([("ancestor".to_owned(), vec![sealtide_ibgib::Address::parse("keystone^gib").unwrap()])]);
    let keystone = Verified::make("keystone", keystone, ancestor).unwrap();
    for (first, left, right) in [(large, format!("a {half}"), format!("{half} b")), (keystone, "a".into(), "b".into())]
    {
        let (left, right) = (author.edit(&first, &left), author.edit(&first, &right));
        let side = |edit: &Verified| MemSpace::with(&[first.clone(), edit.clone()]);
        let mut pair = Pair::new(side(&left), side(&right));
        for _ in 0..2 {
            pair.sync_ok();
            pair.assert_equal();
            assert!(!again(&pair.a.outcome));
            assert_eq!((tip_count(&pair.a.space), pair.a.space.records.len()), (2, 3));
            pair.saga.0[0] += 1;
        }
        assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
    }
}

/// The timelines that say who may do what are moved by an admin only; what both have already is merged by anybody.
// Proves: SY-101
#[test]
fn a_merge_needs_the_right_to_move_the_tip() {
    let mut author = Author::new(68);
    for (ib, role, allowed) in [("doc", Role::Write, true), ("space", Role::Write, false), ("space", Role::Admin, true)]
    {
        let base = author.first_with(ib, "base", &[]);
        let (left, right) = (author.edit(&base, "left base"), author.edit(&base, "base right"));
        let side = |edits: &[&Verified]| {
            let edits: Vec<Verified> = edits.iter().map(|edit| (*edit).clone()).collect();
            MemSpace::with(&[vec![base.clone()], edits].concat())
        };
        let mut pair = Pair::new(side(&[&left]), side(&[&right]));
        pair.b.role = Some(role);
        let outcomes = pair.run(Scope::All, Direction::Both, Strategy::Optimistic);
        if allowed {
            assert_eq!(text(&tip(&pair.b.space)), json!("left base right"));
        } else {
            assert_eq!(code_of(&outcomes[1]), AbortCode::NotAllowed);
            assert_eq!(text(&tip(&pair.b.space)), json!("base right"));
        }
        let mut pair = Pair::new(side(&[&left, &right]), side(&[&left, &right]));
        pair.b.role = Some(role);
        pair.sync_ok();
        pair.assert_equal();
        assert_eq!(tip_count(&pair.b.space), 1);
    }
    // A reader takes and keeps both; it could give no merge back.
    let (left, right) = diverged(&mut author, 2, 1, 2);
    let mut pair = Pair::new(MemSpace::with(&left), MemSpace::with(&right));
    pair.b.role = Some(Role::Read);
    for _ in 0..3 {
        pair.run_ok(Scope::All, Direction::Pull, Strategy::Optimistic);
        pair.saga.0[0] += 1;
        assert_eq!((pair.a.space.records.len(), tip_count(&pair.a.space)), (5, 2));
        assert_eq!(pair.b.space.records.len(), right.len());
    }
    assert!(!again(&pair.a.outcome));
}

// Proves: SY-108
#[test]
fn a_tip_that_moves_during_a_saga() {
    for (strategy, at) in (0..14).flat_map(|at| [(Strategy::Optimistic, at), (Strategy::Abort, at)]) {
        for apart in [false, true] {
            let mut author = Author::new(108);
            let frames = author.timeline(3);
            let local = author.edit(&frames[1], "v1 local");
            let known = if apart { vec![author.edit(&frames[1], "other v1")] } else { Vec::new() };
            let own = [&frames[..2], &known].concat();
            let mut pair = Pair::new(MemSpace::with(&frames), MemSpace::with(&own));
            pair.before = Some(Box::new(move |count, _, b| {
                if count == at {
                    b.space.put(std::slice::from_ref(&local));
                }
            }));
            let outcomes = pair.run(Scope::All, Direction::Both, strategy);
            pair.before = None;
            if let [Some(SagaOutcome::Aborted { code, .. }), _] = outcomes {
                assert_eq!(strategy, Strategy::Abort);
                assert!(matches!(code, AbortCode::TipMoved | AbortCode::Divergence), "{code} at {at}");
                assert!(pair.b.space.records.len() <= own.len() + 1, "nothing of the saga is visible");
                continue;
            }
            let same = pair.a.space.sids() == pair.b.space.sids() && tip_count(&pair.b.space) == 1;
            assert!(same || again(&pair.b.outcome), "{outcomes:?} at {at}");
            for _ in 0..2 {
                pair.saga.0[0] += 1;
                pair.sync_ok();
            }
            pair.assert_equal();
            assert_eq!(tip_count(&pair.a.space), 1);
            let merged = text(&tip(&pair.a.space));
            if pair.b.space.addresses.keys().len() > own.len() + 1 && strategy == Strategy::Optimistic {
                let words = merged.as_str().unwrap();
                assert!(words.contains("v2") && (!apart || words.contains("other")), "{words} at {at}");
            }
            pair.saga.0[0] += 1;
            pair.sync_ok();
            assert_eq!(mode_of(&pair.a.outcome), Mode::Equal);
        }
    }
}

/// A cut at any message, then the same saga again: one merge frame, the same as without a cut.
// Proves: SY-38, SY-62
#[test]
fn a_merge_survives_a_cut_after_each_message() {
    let mut author = Author::new(69);
    let (left, right) = diverged(&mut author, 3, 4, 5);
    let mut whole = Pair::new(MemSpace::with(&left), MemSpace::with(&right));
    whole.sync_ok();
    for cut in 0..whole.delivered {
        let mut pair = Pair::new(MemSpace::with(&left), MemSpace::with(&right));
        pair.cut_after = Some(cut);
        pair.sync();
        pair.cut_after = None;
        pair.sync_ok();
        pair.assert_equal();
        assert_eq!(pair.a.space.sids(), whole.a.space.sids(), "cut after {cut}");
    }
}

/// Three spaces, rounds of edits apart, random pairs that meet; in the end one tip for each timeline, the same in all.
// Proves: SY-36, SY-61
#[test]
fn sc10_three_nodes_and_many_rounds() {
    let seeds = 40 * crate::support::scale() as u64;
    let (mut edits, mut merges) = (0, 0);
    for seed in 0..seeds {
        let mut author = Author::new(seed);
        let firsts: Vec<Verified> = (0..4).map(|n| author.first(&format!("one two three four {n}"))).collect();
        let mut spaces = [MemSpace::with(&firsts), MemSpace::with(&firsts), MemSpace::with(&firsts)];
        let mut words = Vec::new();
        for round in 0..20 {
            for (node, space) in spaces.iter_mut().enumerate() {
                for (line, first) in firsts.iter().enumerate() {
                    for _ in 0..author.number(4) {
                        let prev = newest(space, first);
                        let other = newest(space, &firsts[(line + 1) % 4]);
                        let mut text: Vec<String> =
                            text(&prev).as_str().unwrap().split(' ').map(str::to_owned).collect();
                        let word = format!("r{round}n{node}w{}", words.len());
                        text.insert(author.number(text.len() + 1), word.clone());
                        words.push((line, word));
                        let next = author.edit_with(&prev, &text.join(" "), &[("to", &other)]);
                        space.put(&[next]);
                    }
                }
            }
            for _ in 0..author.number(3) {
                let from = author.number(3);
                meet(&mut spaces, from, (from + 1 + author.number(2)) % 3);
            }
        }
        (0..6).for_each(|turn| meet(&mut spaces, turn % 3, (turn + 1) % 3));
        for space in &spaces {
            assert_eq!(space.sids(), spaces[0].sids(), "seed {seed}");
            assert!(space.tips.values().all(|tips| tips.len() == 1), "seed {seed}");
        }
        for (line, word) in &words {
            let last = text(&newest(&spaces[0], &firsts[*line]));
            assert!(last.as_str().unwrap().split(' ').any(|found| found == word), "seed {seed}: {word} is lost");
        }
        edits += words.len();
        merges += spaces[0].records.len() - words.len() - 4;
    }
    println!("{seeds} seeds: {edits} edits, {merges} merge frames");
    assert!(merges > 10 * seeds as usize);
}

/// The winner of a timeline's tips.
fn newest(space: &MemSpace, first: &Verified) -> Verified {
    let tips: Vec<&Verified> = space.tips[&first.frame().unwrap().timeline]
        .iter()
        .map(|tip| &space.records[&space.addresses[tip][0]])
        .collect();
    sealtide_ibgib::winner(tips).unwrap().clone()
}

fn meet(spaces: &mut [MemSpace; 3], from: usize, to: usize) {
    let mut pair = Pair::new(std::mem::take(&mut spaces[from]), std::mem::take(&mut spaces[to]));
    pair.sync_ok();
    pair.assert_equal();
    (spaces[from], spaces[to]) = (pair.a.space, pair.b.space);
}
