//! Owners, aliases, yields: a space seen as a directory.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sealtide_ibgib::{
    Address, Content, FileFrame, FileKind, TimelineId, TipView, Tree, Verified, check_path, winner, yield_frame,
};

use crate::{node, permutations, property_cases, stamp, text_file, uuid, view};

/// A timeline of one frame.
fn lone(frame: &FileFrame, number: u64, offset_ms: u64) -> Verified {
    frame.genesis(stamp(offset_ms), &uuid(number)).unwrap()
}

fn file(path: &str, text: &str, author: char) -> FileFrame {
    FileFrame { by: node(author), ..text_file(path, text) }
}

fn dir(path: &str) -> FileFrame {
    FileFrame { kind: FileKind::Dir, content: Content::None, ..text_file(path, "") }
}

/// Everything about a tree that could differ.
fn summary(tree: &Tree) -> String {
    let placements: Vec<_> = tree
        .placements
        .iter()
        .map(|(path, at)| format!("{path:?} {} {:?} {:?}", at.tip.address(), at.timeline, at.alias_of))
        .collect();
    let yields: Vec<_> = tree.yields.iter().map(|(tip, owner)| format!("{} {owner}", tip.address())).collect();
    format!("{placements:#?} {yields:#?} {:#?} {:#?}", tree.path_conflicts, tree.diverged)
}

/// Builds from every order of one-frame timelines; all must agree.
fn build(firsts: &[Verified]) -> Tree {
    let views: Vec<TipView> = firsts.iter().map(|first| view(first, std::slice::from_ref(first))).collect();
    let tree = Tree::build(views.clone());
    for order in permutations(views.len()) {
        let other = Tree::build(order.iter().map(|at| views[*at].clone()));
        assert_eq!(summary(&other), summary(&tree));
    }
    tree
}

/// Path and author's letter of every placement.
fn placed(tree: &Tree) -> Vec<(&str, char)> {
    tree.placements.iter().map(|(path, at)| (path.as_str(), at.frame.by.chars().last().unwrap())).collect()
}

#[test]
fn different_paths_do_not_meet() {
    let tree = build(&[lone(&file("a", "1", 'a'), 1, 0), lone(&file("b/c", "2", 'b'), 2, 0)]);
    assert_eq!(placed(&tree), [("a", 'a'), ("b/c", 'b')]);
    assert!(tree.path_conflicts.is_empty() && tree.yields.is_empty() && tree.diverged.is_empty());
}

#[test]
fn the_older_timeline_owns_the_path() {
    let owner = lone(&file("d/note.txt", "1", 'z'), 1, 0);
    let other = lone(&file("d/note.txt", "2", 'b'), 2, 1);
    let tree = build(&[other.clone(), owner.clone()]);
    let alias = "d/note (bbbbbbbb 2023-11-14).txt";
    assert_eq!(placed(&tree), [(alias, 'b'), ("d/note.txt", 'z')]);
    assert_eq!(tree.placements[alias].alias_of.as_deref(), Some("d/note.txt"));
    assert_eq!(tree.placements["d/note.txt"].alias_of, None);
    let (owner, other) = (owner.frame().unwrap().timeline, other.frame().unwrap().timeline);
    assert_eq!(tree.path_conflicts, [("d/note.txt".to_owned(), owner, other, alias.to_owned())]);
}

#[test]
fn with_equal_times_the_smaller_gib_owns() {
    let firsts = [lone(&file("a", "1", 'a'), 1, 0), lone(&file("a", "2", 'b'), 2, 0), lone(&file("a", "3", 'c'), 3, 0)];
    let owner = firsts.iter().min_by_key(|first| first.address().gib().to_owned()).unwrap();
    let tree = build(&firsts);
    assert_eq!(&tree.placements["a"].tip, owner);
    assert_eq!((tree.placements.len(), tree.path_conflicts.len()), (3, 2));
}

#[test]
fn the_date_is_the_tips_and_the_author_too() {
    let owner = lone(&file("a", "1", 'a'), 1, 0);
    let first = lone(&file("a", "2", 'b'), 2, 10);
    let tip = file("a", "3", 'c').evolve(&first, stamp(86_400_000)).unwrap();
    let tree = Tree::build([view(&owner, std::slice::from_ref(&owner)), view(&first, &[tip])]);
    assert_eq!(placed(&tree), [("a", 'a'), ("a (cccccccc 2023-11-15)", 'c')]);
}

#[test]
fn aliases_count_up_when_taken() {
    let firsts = [
        lone(&file("a.txt", "1", 'a'), 1, 0),
        lone(&file("a.txt", "2", 'b'), 2, 1),
        lone(&file("a.txt", "3", 'b'), 3, 2),
        lone(&file("a.txt", "4", 'b'), 4, 3),
        lone(&file("a (bbbbbbbb 2023-11-14) 2.txt", "5", 'e'), 5, 9),
    ];
    let tree = build(&firsts);
    assert_eq!(
        placed(&tree),
        [
            ("a (bbbbbbbb 2023-11-14) 2.txt", 'e'),
            ("a (bbbbbbbb 2023-11-14) 3.txt", 'b'),
            ("a (bbbbbbbb 2023-11-14) 4.txt", 'b'),
            ("a (bbbbbbbb 2023-11-14).txt", 'b'),
            ("a.txt", 'a'),
        ]
    );
    assert_eq!(tree.placements["a (bbbbbbbb 2023-11-14).txt"].tip, firsts[1]);
    assert_eq!(tree.placements["a (bbbbbbbb 2023-11-14) 3.txt"].tip, firsts[2]);
}

#[test]
fn an_alias_is_not_given_out_where_a_directory_is() {
    let firsts = [
        lone(&file("a", "1", 'a'), 1, 0),
        lone(&file("a", "2", 'b'), 2, 1),
        lone(&file("a (bbbbbbbb 2023-11-14)/x", "3", 'c'), 3, 2),
    ];
    assert_eq!(
        placed(&build(&firsts)),
        [("a", 'a'), ("a (bbbbbbbb 2023-11-14) 2", 'b'), ("a (bbbbbbbb 2023-11-14)/x", 'c')]
    );
}

#[test]
fn extensions_and_long_names() {
    let long = "é".repeat(125);
    let rows = [
        ("x/.bashrc", "x/.bashrc (bbbbbbbb 2023-11-14)".to_owned()),
        ("archive.tar.gz", "archive.tar (bbbbbbbb 2023-11-14).gz".to_owned()),
        ("plain", "plain (bbbbbbbb 2023-11-14)".to_owned()),
        ("v1.2/plain", "v1.2/plain (bbbbbbbb 2023-11-14)".to_owned()),
        (&format!("{long}.txt"), format!("{} (bbbbbbbb 2023-11-14).txt", "é".repeat(114))),
        (&format!("a.{}", "x".repeat(240)), format!("a.{} (bbbbbbbb 2023-11-14)", "x".repeat(231))),
    ];
    for (path, alias) in rows {
        let tree = build(&[lone(&file(path, "1", 'a'), 1, 0), lone(&file(path, "2", 'b'), 2, 1)]);
        assert_eq!(tree.path_conflicts[0].3, alias);
        assert_eq!(check_path(&alias), Ok(()));
    }
}

#[test]
fn equal_content_yields_and_is_not_placed() {
    let owner = lone(&file("a", "1", 'a'), 1, 0);
    let moved = file("a", "1", 'b');
    let twin = lone(&FileFrame { mtime: 1, ..moved.clone() }, 2, 1);
    let exec = lone(&FileFrame { exec: true, ..moved }, 3, 2);
    let tree = build(&[owner.clone(), twin.clone(), exec]);
    assert_eq!(tree.yields, [(twin, owner.address().clone())]);
    assert_eq!(placed(&tree), [("a", 'a'), ("a (bbbbbbbb 2023-11-14)", 'b')]);
}

#[test]
fn deleted_timelines_place_nothing_and_own_nothing() {
    let first = lone(&file("a", "1", 'a'), 1, 0);
    let gone = file("a", "1", 'a').deletion(0, &node('a')).evolve(&first, stamp(5)).unwrap();
    let other = lone(&file("a", "2", 'b'), 2, 1);
    let tree = Tree::build([view(&first, &[gone]), view(&other, std::slice::from_ref(&other))]);
    assert_eq!(placed(&tree), [("a", 'b')]);
    assert!(tree.path_conflicts.is_empty());
}

#[test]
fn a_file_where_others_have_a_directory_stands_at_an_alias() {
    let (shallow, deep) = (lone(&file("a", "1", 'a'), 1, 0), lone(&file("a/b/c", "2", 'b'), 2, 1));
    let tree = build(&[shallow.clone(), deep.clone(), lone(&file("a.x", "3", 'c'), 3, 0)]);
    assert_eq!(placed(&tree), [("a (aaaaaaaa 2023-11-14)", 'a'), ("a.x", 'c'), ("a/b/c", 'b')]);
    let (shallow, deep) = (shallow.frame().unwrap().timeline, deep.frame().unwrap().timeline);
    assert_eq!(tree.path_conflicts, [("a".to_owned(), deep, shallow, "a (aaaaaaaa 2023-11-14)".to_owned())]);
}

#[test]
fn a_directory_that_is_not_empty_any_more_is_no_conflict() {
    let link = FileFrame { kind: FileKind::Symlink, content: Content::Target("x".to_owned()), ..file("a", "", 'c') };
    let firsts = [lone(&dir("a"), 1, 0), lone(&dir("a"), 2, 1), lone(&file("a/b", "2", 'b'), 3, 2), lone(&link, 4, 3)];
    let tree = build(&firsts);
    assert_eq!(placed(&tree), [("a (cccccccc 2023-11-14)", 'c'), ("a/b", 'b')]);
    assert_eq!(tree.yields, [(firsts[1].clone(), firsts[0].address().clone())]);
    // Without anything below, the directory is an ordinary owner.
    let tree = build(&[firsts[0].clone(), firsts[3].clone()]);
    assert_eq!(placed(&tree), [("a", 'a'), ("a (cccccccc 2023-11-14)", 'c')]);
    // A younger directory beside an older file is placed beside it, as long as it is empty.
    let late = lone(&dir("a"), 5, 9);
    assert_eq!(placed(&build(&[firsts[3].clone(), late.clone()])), [("a", 'c'), ("a (aaaaaaaa 2023-11-14)", 'a')]);
    let tree = build(&[firsts[3].clone(), late, firsts[2].clone()]);
    assert_eq!(placed(&tree), [("a (cccccccc 2023-11-14)", 'c'), ("a/b", 'b')]);
}

#[test]
fn a_diverged_timeline_is_placed_by_its_winner_and_does_not_yield() {
    let owner = lone(&file("a", "1", 'a'), 1, 0);
    let first = lone(&file("a", "0", 'b'), 2, 1);
    let left = file("a", "1", 'b').evolve(&first, stamp(20)).unwrap();
    let right = file("a", "2", 'b').evolve(&first, stamp(10)).unwrap();
    let timeline = first.frame().unwrap().timeline;
    for tips in [[left.clone(), right.clone()], [right.clone(), left.clone()]] {
        let tree = Tree::build([view(&owner, std::slice::from_ref(&owner)), view(&first, &tips)]);
        assert_eq!(tree.diverged, [("a".to_owned(), timeline)]);
        assert_eq!((tree.placements.len(), tree.yields.len()), (1, 0));
        let alone = Tree::build([view(&first, &tips)]);
        assert_eq!(alone.placements["a"].tip, left);
    }
    assert!(Tree::build([TipView { tips: Vec::new(), ..view(&owner, &[]) }]).placements.is_empty());
}

/// Many timelines that want one alias must not take quadratic time.
#[test]
fn thousands_on_one_path() {
    let firsts: Vec<Verified> =
        (0..3000).map(|number| lone(&file("a", &number.to_string(), 'b'), number, number)).collect();
    let tree = Tree::build(firsts.iter().map(|first| view(first, std::slice::from_ref(first))));
    assert_eq!(tree.placements.len(), 3000);
    assert!(tree.placements.contains_key("a (bbbbbbbb 2023-11-14) 2999"));
}

const PATHS: [&str; 9] = [
    "a",
    "a/b",
    "a/b/c",
    "a/b.txt",
    "b.txt",
    "b.txt/x",
    "a (aaaaaaaa 2023-11-14)",
    "b (bbbbbbbb 2023-11-14).txt",
    "b (bbbbbbbb 2023-11-14).txt/y",
];

#[derive(Clone, Debug)]
struct Spec {
    path: &'static str,
    content: u8,
    author: char,
    time: u64,
    /// What happens after the first frame: nothing, a deletion, a second tip.
    fate: u8,
}

fn spec() -> impl Strategy<Value = Spec> {
    (prop::sample::select(PATHS.to_vec()), 0u8..5, prop::sample::select(vec!['a', 'b']), 0u64..3, 0u8..6)
        .prop_map(|(path, content, author, time, fate)| Spec { path, content, author, time, fate })
}

fn frame_of(spec: &Spec) -> FileFrame {
    let plain = file(spec.path, "text", spec.author);
    match spec.content {
        0 => FileFrame { kind: FileKind::Dir, content: Content::None, ..plain },
        1 => FileFrame { kind: FileKind::Symlink, content: Content::Target("t".to_owned()), ..plain },
        2 => FileFrame { exec: true, ..plain },
        other => FileFrame { content: Content::Text(other.to_string()), ..plain },
    }
}

/// First frame and tips of a timeline.
fn timeline(spec: &Spec, number: u64) -> (Verified, Vec<Verified>) {
    let frame = frame_of(spec);
    let first = lone(&frame, number, spec.time);
    let tips = match spec.fate {
        0 => vec![frame.deletion(0, &node(spec.author)).evolve(&first, stamp(100)).unwrap()],
        1 => {
            let edited = file(spec.path, "3", spec.author);
            vec![frame.evolve(&first, stamp(50)).unwrap(), edited.evolve(&first, stamp(60 + number)).unwrap()]
        }
        _ => vec![first.clone()],
    };
    (first, tips)
}

fn views(timelines: &[(Verified, Vec<Verified>)]) -> Vec<TipView> {
    timelines.iter().map(|(first, tips)| view(first, tips)).collect()
}

/// The rules again, as plainly as they can be said, for what must be placed under its own path.
fn owners(timelines: &[(Verified, Vec<Verified>)]) -> BTreeMap<String, Address> {
    let mut live: Vec<_> = timelines
        .iter()
        .filter_map(|(first, tips)| {
            let frame = FileFrame::read(winner(tips).unwrap()).unwrap();
            (!frame.deleted).then(|| (first.frame().unwrap().stamp, first.address().clone(), frame.path))
        })
        .collect();
    live.sort();
    let paths: BTreeSet<String> = live.iter().map(|(_, _, path)| path.clone()).collect();
    live.reverse();
    live.into_iter()
        .filter(|(_, _, path)| !paths.iter().any(|other| other.starts_with(&format!("{path}/"))))
        .map(|(_, first, path)| (path, first))
        .collect()
}

proptest! {
    #![proptest_config(property_cases())]

    // Proves: SY-105 (every node computes the same owners, aliases and yields)
    #[test]
    fn trees_do_not_depend_on_order_and_hold_everybody(specs in prop::collection::vec(spec(), 0..9), order in any::<u64>()) {
        let timelines: Vec<_> = specs.iter().zip(0..).map(|(spec, number)| timeline(spec, number)).collect();
        let tree = Tree::build(views(&timelines));

        let mut shuffled = views(&timelines);
        shuffled.iter_mut().for_each(|view| view.tips.reverse());
        shuffled.sort_by_key(|view| sealtide_crypto::sha256(&[view.timeline.as_bytes().as_slice(), &order.to_le_bytes()].concat()));
        prop_assert_eq!(summary(&Tree::build(shuffled)), summary(&tree));

        // The owners stand where they want to.
        let own: BTreeMap<String, Address> = tree
            .placements
            .iter()
            .filter(|(_, at)| at.alias_of.is_none())
            .map(|(path, at)| (path.clone(), at.tip.frame().unwrap().tjp))
            .collect();
        prop_assert_eq!(own, owners(&timelines));

        // Every live timeline is placed once, or ends, or says no more than another placement does.
        let mut places: BTreeMap<TimelineId, usize> = BTreeMap::new();
        tree.placements.values().for_each(|at| *places.entry(at.timeline).or_default() += 1);
        let ended: BTreeSet<TimelineId> = tree.yields.iter().map(|(tip, _)| tip.frame().unwrap().timeline).collect();
        for (first, tips) in &timelines {
            let id = first.frame().unwrap().timeline;
            let frame = FileFrame::read(winner(tips).unwrap()).unwrap();
            let count = places.get(&id).copied().unwrap_or(0) + usize::from(ended.contains(&id));
            let below = tree.placements.keys().any(|path| path.starts_with(&format!("{}/", frame.path)));
            let may_hide = tips.len() > 1 || (frame.kind == FileKind::Dir && below);
            prop_assert!(if frame.deleted { count == 0 } else { count == 1 || (count == 0 && may_hide) }, "{} {}", frame.path, count);
        }

        // The directory can be made: nothing lies below a placement, and every path is a path.
        for path in tree.placements.keys() {
            prop_assert_eq!(check_path(path), Ok(()));
            let directory = format!("{path}/");
            prop_assert!(!tree.placements.keys().any(|other| other.starts_with(&directory)), "{}", path);
        }
        let aliases: BTreeSet<&String> = tree.path_conflicts.iter().map(|(_, _, _, alias)| alias).collect();
        let aliased: BTreeSet<&String> = tree.placements.iter().filter(|(_, at)| at.alias_of.is_some()).map(|(path, _)| path).collect();
        prop_assert_eq!(aliases, aliased);

        // Once the yields are recorded, the directory is the same and nobody yields any more.
        let after: Vec<_> = timelines.iter().map(|(first, tips)| {
            let ending = tree.yields.iter().find(|(tip, _)| tips == std::slice::from_ref(tip));
            let tips = ending.map_or(tips.clone(), |(tip, owner)| vec![yield_frame(tip, owner).unwrap()]);
            (first.clone(), tips)
        }).collect();
        let mut expected = tree;
        expected.yields.clear();
        prop_assert_eq!(summary(&Tree::build(views(&after))), summary(&expected));
    }
}
