//! Two tips become one: the general rules, through the public API.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sealtide_ibgib::{
    Address, Data, MergeStrategy, NoMerge, Object, Refusal, Relations, Verified, evolve, genesis, merge_all,
    merge_tips, stone,
};
use serde_json::{Value, json};

use crate::{accepted, address, property_cases, stamp, uuid};

/// Records by address: what a node holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held(pub(crate) BTreeMap<Address, Verified>);

impl Held {
    pub(crate) fn of(frames: &[&Verified]) -> Self {
        Self(frames.iter().map(|frame| (frame.address().clone(), (*frame).clone())).collect())
    }

    pub(crate) fn merge(&self, left: &Verified, right: &Verified) -> Result<Verified, NoMerge> {
        self.merge_by(left, right, &MergeStrategy::Optimistic)
    }

    /// Both call orders must say the same.
    pub(crate) fn merge_by(
        &self,
        left: &Verified,
        right: &Verified,
        strategy: &MergeStrategy,
    ) -> Result<Verified, NoMerge> {
        let mut load = |address: &Address| self.0.get(address).cloned();
        let merged = merge_tips((left, right), strategy, &mut load);
        assert_eq!(merged, merge_tips((right, left), strategy, &mut load));
        if let Ok(merged) = &merged {
            assert_eq!(accepted(merged).sid(), merged.sid());
        }
        merged
    }
}

pub(crate) fn object(value: Value) -> Object {
    value.as_object().unwrap().clone()
}

fn first(data: Value) -> Verified {
    genesis("note", object(data), Relations::new(), stamp(0), &uuid(1))
}

fn next(prev: &Verified, data: Value, offset_ms: u64) -> Verified {
    evolve(prev, object(data), Relations::new(), stamp(offset_ms))
}

fn related(prev: &Verified, name: &str, to: &[&Address], offset_ms: u64) -> Verified {
    let relations = Relations::from([(name.to_owned(), to.iter().map(|to| (*to).clone()).collect())]);
    evolve(prev, object(json!({"a": 0, "b": 0})), relations, stamp(offset_ms))
}

// Proves: SY-58, SY-59, SY-62 (the record of scenario SC-7)
#[test]
fn both_edits_are_in_the_frame_and_both_parents_are_named() {
    let base = first(json!({"a": 0, "b": 0}));
    let (left, right) = (next(&base, json!({"a": 1, "b": 0}), 10), next(&base, json!({"a": 0, "b": 2}), 20));
    let merged = Held::of(&[&base, &left, &right]).merge(&left, &right).unwrap();
    assert_eq!(
        merged.to_json(),
        json!({
            "ib": "note",
            "gib": merged.address().gib(),
            "data": {
                "a": 1, "b": 2, "graft": {"conflicts": 0, "strategy": "optimistic"}, "n": 2, "uuid": uuid(1),
                "timestamp": "Tue, 14 Nov 2023 22:13:20 GMT", "timestampMs": 20,
            },
            "rel8ns": {
                "ancestor": ["ib^gib"], "past": [right.address().as_str()], "tjp": [base.address().as_str()],
                "graftbase": [base.address().as_str()], "graftorphan": [left.address().as_str()],
            },
        })
    );
    let facts = merged.frame().unwrap();
    assert_eq!((facts.n, facts.past, facts.orphans), (2, vec![right.address().clone()], vec![left.address().clone()]));
}

// Proves: SY-58 (the winner: greater n, then the later stamp, then the smaller gib)
#[test]
fn the_winner_has_the_last_word_where_both_changed() {
    let base = first(json!({"a": 0}));
    let early = next(&base, json!({"a": 1}), 10);
    let late = next(&base, json!({"a": 2}), 20);
    let longer = next(&early, json!({"a": 3}), 10);
    let held = Held::of(&[&base, &early, &late, &longer]);
    let value = |merged: Result<Verified, NoMerge>| {
        let data = merged.unwrap().object().unwrap();
        (data["a"].clone(), data["graft"]["conflicts"].clone(), data["n"].clone())
    };
    assert_eq!(value(held.merge(&early, &late)), (json!(2), json!(1), json!(2)));
    assert_eq!(value(held.merge(&longer, &late)), (json!(3), json!(1), json!(3)));
    // The stamp is the later one although the winner has the earlier.
    assert_eq!(held.merge(&longer, &late).unwrap().frame().unwrap().stamp, Some(stamp(20)));
    let same = next(&base, json!({"a": 4}), 20);
    let smaller = [&late, &same].into_iter().min_by_key(|frame| frame.address().gib().to_owned()).unwrap();
    let merged = Held::of(&[&base, &late, &same]).merge(&late, &same).unwrap();
    assert_eq!(merged.frame().unwrap().past, [smaller.address().clone()]);
}

// Proves: SY-59 (relations)
#[test]
fn relations_are_merged_as_lists() {
    let [x, y, z] = ["x", "y", "z"].map(|ib| stone(ib, Data::Json(json!(ib)), Relations::new()));
    let base = first(json!({"a": 0, "b": 0}));
    let start = related(&base, "to", &[x.address(), y.address()], 1);
    let left = related(&start, "to", &[y.address(), z.address()], 2);
    let right = related(&start, "other", &[x.address()], 3);
    let held = Held::of(&[&base, &start, &left, &right]);
    let merged = held.merge(&left, &right).unwrap();
    assert_eq!(merged.relations().get("to"), Some(&vec![z.address().clone()]));
    assert_eq!(merged.relations().get("other"), Some(&vec![x.address().clone()]));
    assert!(!merged.relations().contains_key("dna"));

    let [left, right] = [[&x, &y], [&z, &y]].map(|dna| related(&base, "dna", &dna.map(Verified::address), 5));
    let merged = Held::of(&[&base, &left, &right]).merge(&left, &right).unwrap();
    let winner = merged.frame().unwrap().past.remove(0);
    let (winner, loser) = if winner == *left.address() { (&left, &right) } else { (&right, &left) };
    let mut dna = winner.relations()["dna"].clone();
    dna.push(loser.relations()["dna"][0].clone());
    assert_eq!(merged.relations()["dna"], dna);
}

#[test]
fn the_ib_is_merged_too() {
    let base = first(json!({"a": 0}));
    let renamed = |ib: &str, offset_ms: u64| {
        let frame = next(&base, json!({"a": 0}), offset_ms);
        Verified::make(ib, frame.data(), frame.relations().clone()).unwrap()
    };
    let (kept, left, right) = (next(&base, json!({"a": 1}), 30), renamed("left", 10), renamed("right", 20));
    let held = Held::of(&[&base, &kept, &left, &right]);
    let merged = held.merge(&kept, &left).unwrap();
    assert_eq!((merged.address().ib(), &merged.object().unwrap()["graft"]["conflicts"]), ("left", &json!(0)));
    let merged = held.merge(&left, &right).unwrap();
    assert_eq!((merged.address().ib(), &merged.object().unwrap()["graft"]["conflicts"]), ("right", &json!(1)));
}

#[test]
fn the_author_of_a_document_is_no_conflict() {
    for (ib, conflicts) in [("doc", 0), ("space", 0), ("note", 1)] {
        let base = genesis(ib, object(json!({"by": "x", "doc": {}})), Relations::new(), stamp(0), &uuid(1));
        let left = next(&base, json!({"by": "l", "doc": {"a": 1}}), 1);
        let right = next(&base, json!({"by": "r", "doc": {"b": 2}}), 2);
        let data = Held::of(&[&base, &left, &right]).merge(&left, &right).unwrap().object().unwrap();
        assert_eq!((&data["by"], &data["doc"]), (&json!("r"), &json!({"a": 1, "b": 2})));
        assert_eq!(data["graft"]["conflicts"], json!(conflicts), "{ib}");
    }
}

// Proves: SY-63
#[test]
fn a_tip_behind_the_other_is_never_merged() {
    let base = first(json!({"a": 0}));
    let (left, right) = (next(&base, json!({"a": 1}), 1), next(&base, json!({"a": 2}), 2));
    let held = Held::of(&[&base, &left, &right]);
    assert_eq!(held.merge(&base, &left), Err(NoMerge::FastForward));
    assert_eq!(held.merge(&left, &left), Err(NoMerge::FastForward));
    let merged = held.merge(&left, &right).unwrap();
    let held = Held::of(&[&base, &left, &right, &merged]);
    for older in [&base, &left, &right] {
        assert_eq!(held.merge(&merged, older), Err(NoMerge::FastForward));
    }
}

// Proves: SY-98
#[test]
fn a_late_child_of_the_loser_meets_the_merged_tip() {
    let base = first(json!({"text": "one two three", "seen": []}));
    let left = next(&base, json!({"text": "zero one two three", "seen": ["left"]}), 1);
    let right = next(&base, json!({"text": "one two three four", "seen": ["right"]}), 2);
    let merged = Held::of(&[&base, &left, &right]).merge(&left, &right).unwrap();
    let late = next(&left, json!({"text": "zero one 2 three", "seen": ["left", "late"]}), 3);
    let again = Held::of(&[&base, &left, &right, &merged, &late]).merge(&merged, &late).unwrap();
    let data = again.object().unwrap();
    assert_eq!(data["text"], json!("zero one 2 three four"));
    let mut seen: Vec<&str> = data["seen"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["late", "left", "right"]);
    assert_eq!(data["graft"]["conflicts"], json!(0));
    assert_eq!(again.relations()["graftbase"], [left.address().clone()]);
}

#[test]
fn of_two_common_frames_with_one_counter_the_smaller_gib_is_taken() {
    let base = first(json!({"v": 0}));
    let (left, right) = (next(&base, json!({"v": 1}), 1), next(&base, json!({"v": 2}), 2));
    // Two nodes that each made their own frame of both: neither is behind the other.
    let cross = |winner: &Verified, loser: &Verified, mark: u32| {
        let graft = Relations::from([("graftorphan".to_owned(), vec![loser.address().clone()])]);
        evolve(winner, object(json!({"v": 3, "mark": mark})), graft, stamp(5))
    };
    let (one, two) = (cross(&left, &right, 1), cross(&right, &left, 2));
    let merged = Held::of(&[&base, &left, &right, &one, &two]).merge(&one, &two).unwrap();
    let smaller = [&left, &right].into_iter().min_by_key(|frame| frame.address().gib().to_owned()).unwrap();
    assert_eq!(merged.relations()["graftbase"], [smaller.address().clone()]);
}

// Proves: SY-64
#[test]
fn table_of_strategies() {
    let base = first(json!({"a": 0, "b": 0}));
    let short = next(&base, json!({"a": 1, "b": 0}), 90);
    let middle = next(&base, json!({"a": 0, "b": 1}), 10);
    let long = next(&middle, json!({"a": 0, "b": 2}), 20);
    let held = Held::of(&[&base, &short, &middle, &long]);
    let (ours, theirs) = (MergeStrategy::Ours, MergeStrategy::Theirs);
    for (strategy, winner, name) in [
        (ours(short.address().clone()), &short, "ours"),
        (ours(long.address().clone()), &long, "ours"),
        (theirs(short.address().clone()), &short, "theirs"),
        (theirs(long.address().clone()), &long, "theirs"),
    ] {
        let merged = held.merge_by(&short, &long, &strategy).unwrap();
        let (data, expected) = (merged.object().unwrap(), winner.object().unwrap());
        assert_eq!((&data["a"], &data["b"]), (&expected["a"], &expected["b"]), "{name}");
        assert_eq!(data["graft"], json!({"conflicts": 0, "strategy": name}));
        // The counter and the past go by the longer side, whoever wins, and the stamp is the later one.
        let facts = merged.frame().unwrap();
        assert_eq!((facts.n, facts.stamp), (3, Some(stamp(90))));
        assert_eq!((facts.past, facts.orphans), (vec![long.address().clone()], vec![short.address().clone()]));
    }
    assert_eq!(held.merge_by(&short, &long, &ours(base.address().clone())), Err(NoMerge::NoSuchTip));
}

#[test]
fn what_is_never_merged() {
    let base = first(json!({"a": 0}));
    let (left, right) = (next(&base, json!({"a": 1}), 1), next(&base, json!({"a": 2}), 2));
    // Nothing behind both that is here.
    assert_eq!(Held::of(&[&left, &right]).merge(&left, &right), Err(NoMerge::NoCommonFrame));

    let other = genesis("note", object(json!({"a": 0})), Relations::new(), stamp(0), &uuid(2));
    assert_eq!(Held::of(&[&base, &other]).merge(&base, &other), Err(NoMerge::OtherTimeline));
    let loose = stone("note", Data::Json(json!(1)), Relations::new());
    assert_eq!(Held::of(&[&base, &loose]).merge(&base, &loose), Err(NoMerge::OtherTimeline));

    let keystone = Relations::from([("ancestor".to_owned(), vec![address("keystone^gib")])]);
    let key = stone("keystone", Data::Json(json!({"isTjp": true, "n": 0})), keystone);
    let (left, right) = (next(&key, json!({"a": 1}), 1), next(&key, json!({"a": 2}), 2));
    assert_eq!(Held::of(&[&key, &left, &right]).merge(&left, &right), Err(NoMerge::StoneTimeline));

    let members = genesis("members", object(json!({"members": {}})), Relations::new(), stamp(0), &uuid(3));
    let (left, right) = (next(&members, json!({"a": 1}), 1), next(&members, json!({"a": 2}), 2));
    let held = Held::of(&[&members, &left, &right]);
    for whole in [MergeStrategy::Ours(left.address().clone()), MergeStrategy::Theirs(left.address().clone())] {
        assert_eq!(held.merge_by(&left, &right, &whole), Err(NoMerge::Members));
    }
}

#[test]
fn a_merge_that_nobody_would_accept_is_none() {
    let base = first(json!({}));
    let half = "x".repeat(400 * 1024);
    let (left, right) = (next(&base, json!({"l": half}), 1), next(&base, json!({"r": half}), 2));
    let held = Held::of(&[&base, &left, &right]);
    assert_eq!(held.merge(&left, &right), Err(NoMerge::Refused(Refusal::TooLarge)));
    let all = merge_all(vec![left.clone(), right.clone()], &mut |address| held.0.get(address).cloned());
    assert_eq!((all.frames.len(), all.tips.len()), (0, 2));
}

// Proves: SY-58 (three and more tips, one of which merges with nothing)
#[test]
fn many_tips_are_merged_one_by_one() {
    let base = first(json!({}));
    let members = ["a", "b", "c", "d", "e"];
    let mut tips: Vec<Verified> = members.iter().map(|name| next(&base, json!({*name: 1}), 1)).collect();
    let stranger = genesis("note", Object::new(), Relations::new(), stamp(0), &uuid(9));
    tips.push(stranger.clone());
    let held = Held::of(&tips.iter().chain([&base]).collect::<Vec<_>>());
    let merge = |tips: Vec<Verified>| merge_all(tips, &mut |address| held.0.get(address).cloned());
    let all = merge(tips.clone());
    assert_eq!((all.frames.len(), all.tips.len()), (4, 2));
    let tip = all.tips.iter().find(|tip| **tip != stranger).unwrap().object().unwrap();
    assert!(members.iter().all(|name| tip[*name] == json!(1)));
    assert_eq!(tip["graft"]["conflicts"], json!(0));
    let mut sorted: Vec<&Verified> = tips.iter().filter(|tip| **tip != stranger).collect();
    sorted.sort_by_key(|tip| tip.address().gib().to_owned());
    let pair = all.frames[0].frame().unwrap();
    let mut pair = vec![pair.past[0].clone(), pair.orphans[0].clone()];
    pair.sort();
    let mut smallest: Vec<Address> = sorted[..2].iter().map(|tip| tip.address().clone()).collect();
    smallest.sort();
    assert_eq!(pair, smallest);
    tips.reverse();
    assert_eq!(merge(tips), all);
}

/// A small tree of members, so that sides often touch the same one.
fn members() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        (0..3).prop_map(|number| json!(number)),
        Just(json!(null)),
        Just(json!(true)),
        "[ab ]{0,4}".prop_map(|text| json!(text)),
        prop::collection::vec("[abc]", 0..4).prop_map(|list| json!(list)),
        prop::collection::vec(0..3, 0..3).prop_map(|list| json!(list)),
    ];
    let member = scalar.prop_recursive(2, 6, 3, |inner| {
        prop::collection::btree_map("[xyz]|text", inner, 0..3).prop_map(|object| json!(object))
    });
    prop::collection::btree_map("[abc]|text|n|uuid|graft|isTjp|timestamp", member, 0..5)
        .prop_map(|object| json!(object))
}

proptest! {
    #![proptest_config(property_cases())]

    // Proves: SY-58
    #[test]
    fn a_merge_is_the_same_from_both_sides(
        base in members(),
        left in prop::collection::vec((members(), 0u64..3), 1..3),
        right in prop::collection::vec((members(), 0u64..3), 1..3),
    ) {
        let base = first(base);
        let grow = |steps: Vec<(Value, u64)>| {
            let mut frames = vec![base.clone()];
            for (data, offset) in steps {
                frames.push(next(&frames[frames.len() - 1], data, offset));
            }
            frames
        };
        let (left, right) = (grow(left), grow(right));
        let held = Held::of(&left.iter().chain(&right).collect::<Vec<_>>());
        let (left_tip, right_tip) = (&left[left.len() - 1], &right[right.len() - 1]);
        match held.merge(left_tip, right_tip) {
            Ok(merged) => {
                let n = left_tip.frame().unwrap().n.max(right_tip.frame().unwrap().n);
                prop_assert_eq!(merged.frame().unwrap().n, n + 1);
            }
            Err(reason) => prop_assert!(matches!(reason, NoMerge::FastForward), "{reason}"),
        }
    }

    // Proves: SY-59
    #[test]
    fn every_edit_of_one_side_is_kept(
        base in prop::collection::btree_map("[a-h]", members(), 4..8),
        edits in prop::collection::btree_map("[a-h]", (any::<bool>(), prop::option::of(members())), 1..6),
    ) {
        // Each member is changed, added or removed by one side at most.
        let mut sides = [base.clone(), base.clone()];
        let mut expected = base.clone();
        for (name, (right, value)) in edits {
            for side in [&mut sides[usize::from(right)], &mut expected] {
                match &value {
                    Some(value) => _ = side.insert(name.clone(), value.clone()),
                    None => _ = side.remove(&name),
                }
            }
        }
        let base = first(json!(base));
        let [left, right] = sides.map(|side| next(&base, json!(side), 1));
        prop_assume!(left != right);
        let merged = Held::of(&[&base, &left, &right]).merge(&left, &right).unwrap().object().unwrap();
        prop_assert_eq!(&merged["graft"]["conflicts"], &json!(0));
        let named = merged.into_iter().filter(|(name, _)| name.len() == 1 && name != "n");
        let found: BTreeMap<String, Value> = named.collect();
        prop_assert_eq!(found, expected);
    }
}

/// Two writers, each in a paragraph of its own, who merge what they hear of each other while they go on writing.
struct Writers {
    held: Held,
    tips: [Verified; 2],
    /// What each has stood at, the newest last.
    past: [Vec<Verified>; 2],
    words: [usize; 2],
    clock: u64,
}

impl Writers {
    fn new() -> Self {
        let text = "zero\n\nfirst\n\ntwo\n\nthree\n\nsecond\n\nfive\n";
        let tip = first(json!({"text": text}));
        let past = [vec![tip.clone()], vec![tip.clone()]];
        Self { held: Held::of(&[&tip]), tips: [tip.clone(), tip], past, words: [0, 0], clock: 0 }
    }

    fn stand(&mut self, who: usize, tip: Verified) {
        self.held.0.insert(tip.address().clone(), tip.clone());
        self.tips[who] = tip.clone();
        self.past[who].push(tip);
    }

    /// One more word at the end of the own paragraph.
    fn write(&mut self, who: usize) {
        self.clock += 1;
        let text = text_of(&self.tips[who]);
        let begin = text.find(["first", "second"][who]).unwrap();
        let end = begin + text[begin..].find('\n').unwrap();
        let text = format!("{} {}{}{}", &text[..end], ["a", "b"][who], self.words[who], &text[end..]);
        self.words[who] += 1;
        let tip = next(&self.tips[who], json!({"text": text}), 1_000 * self.clock);
        self.stand(who, tip);
    }

    /// Hears where the other stood so many steps ago.
    fn hear(&mut self, who: usize, ago: usize) {
        let other = &self.past[1 - who];
        let told = other[other.len().saturating_sub(1 + ago)].clone();
        match self.held.merge(&self.tips[who], &told) {
            Ok(merged) => self.stand(who, merged),
            Err(NoMerge::FastForward) => {
                // The newer one is the tip.
                let is_behind = self.held.reaches(&told, self.tips[who].address());
                if is_behind {
                    self.stand(who, told);
                }
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn wanted(&self) -> String {
        let all =
            |who: usize| (0..self.words[who]).map(|word| format!(" {}{word}", ["a", "b"][who])).collect::<String>();
        format!("zero\n\nfirst{}\n\ntwo\n\nthree\n\nsecond{}\n\nfive\n", all(0), all(1))
    }
}

impl Held {
    /// Whether `address` is `tip` or behind it.
    fn reaches(&self, tip: &Verified, address: &Address) -> bool {
        let (mut open, mut seen) = (vec![tip.address().clone()], std::collections::BTreeSet::new());
        while let Some(next) = open.pop() {
            if next == *address {
                return true;
            }
            if seen.insert(next.clone())
                && let Some(facts) = self.0.get(&next).and_then(Verified::frame_ref)
            {
                open.extend(facts.past.iter().chain(&facts.orphans).cloned());
            }
        }
        false
    }
}

fn text_of(frame: &Verified) -> String {
    frame.object().unwrap()["text"].as_str().unwrap().to_owned()
}

/// Each merges what the other merged at the same time: there are several newest common frames then, and one alone lacks what the others have.
// Proves: SY-58, SY-60
#[test]
fn writers_apart_who_merge_while_they_write_double_nothing() {
    let mut dice = 7u64;
    let mut throw = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % sides
    };
    let mut several = 0;
    for _ in 0..60 {
        let mut writers = Writers::new();
        for _ in 0..60 {
            let who = throw(2) as usize;
            match throw(5) {
                0 | 1 => writers.write(who),
                _ => writers.hear(who, throw(4) as usize),
            }
        }
        for who in [0, 1, 0] {
            writers.hear(who, 0);
        }
        assert_eq!(writers.tips[0].address(), writers.tips[1].address());
        assert_eq!(text_of(&writers.tips[0]), writers.wanted());
        let one_base = |frame: &Verified| {
            let facts = frame.frame_ref().unwrap();
            let ([past], [orphan]) = (&facts.past[..], &facts.orphans[..]) else { return false };
            let (left, right) = (&writers.held.0[past], &writers.held.0[orphan]);
            writers.held.merge_by(left, right, &MergeStrategy::OneBase).unwrap().sid() != frame.sid()
        };
        several += writers.past.iter().flatten().filter(|frame| one_base(frame)).count();
    }
    assert!(several > 100, "G alone would have done in all but {several} merges");
}
