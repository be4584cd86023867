//! A check-out that is killed before any of its steps: what stands after the next open is what stood before the batch
//! or what the batch made, and the cache says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::fixture::*;
use proptest::prelude::*;
use sealtide_folder::{CheckOut, FolderError};

/// Runs the plan and stops before step `at`. Whether it was stopped.
fn stop_at(case: &mut Case, plan: Vec<CheckOut>, at: usize) -> bool {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    case.folder.set_step_hook(Some(Box::new(move |_| counted.fetch_add(1, Ordering::Relaxed) != at)));
    match case.try_check_out(plan) {
        Ok(report) => {
            assert!(report.dirty.is_empty() && report.skipped.is_empty(), "{report:?}");
            case.folder.set_step_hook(None);
            false
        }
        Err(FolderError::Stopped) => true,
        Err(problem) => panic!("{problem}"),
    }
}

/// Stops at every step in turn; each time the directory must be whole and the plan must still lead to `after`.
fn check_every_step(before: &Tree, moves: &[(&str, &str)], after: &Tree) -> usize {
    for at in 0.. {
        let mut case = Case::quick();
        case.make(before);
        case.record();
        let plan = case.plan(after, before, moves);
        let stopped = stop_at(&mut case, plan, at);
        if !stopped {
            case.expect(after);
            return at;
        }
        case = case.reopen();
        let stands = case.snapshot();
        for (path, thing) in &stands {
            let whole = before.get(path) == Some(thing) || after.get(path) == Some(thing) || *thing == Thing::Dir;
            assert!(whole, "step {at}: {path} is neither old nor new");
        }
        // Nothing that looks like a local change: nothing must be recorded after a crash.
        case.expect(&stands);
        let left: Vec<_> = moves.iter().copied().filter(|(from, _)| stands.contains_key(*from)).collect();
        let left = if left.len() == moves.len() { left } else { Vec::new() };
        let plan = case.plan(after, &stands, &left);
        let report = case.check_out(plan);
        assert!(report.dirty.is_empty() && report.skipped.is_empty(), "step {at}: {report:?}");
        case.expect(after);
    }
    unreachable!("the loop ends when nothing is stopped")
}

#[test]
fn killed_at_every_step_of_new_files() {
    let large = noise(1, 3 * 1024 * 1024);
    let after = tree([
        ("a", file("1")),
        ("d/e/f", program("2")),
        ("d/l", link("a")),
        ("d/large", file(large)),
        ("empty/dir", Thing::Dir),
    ]);
    let steps = check_every_step(&Tree::new(), &[], &after);
    println!("killed at {steps} steps");
    assert!(steps > 15);
}

#[test]
fn killed_at_every_step_of_replacements_and_removals() {
    let before = tree([
        ("a", file("1")),
        ("b", link("x")),
        ("c", file("3")),
        ("d/e", file("4")),
        ("f", Thing::Dir),
        ("g", file("6")),
        ("h/i", file("7")),
        ("k", file("8")),
    ]);
    let after = tree([
        ("a", file("new")),
        ("b", file("was a link")),
        ("c", link("was a file")),
        ("d", file("was a dir")),
        ("f", file("was empty")),
        ("g", Thing::Dir),
        ("k/l", file("below")),
    ]);
    let steps = check_every_step(&before, &[], &after) + check_every_step(&after, &[], &before);
    println!("killed at {steps} steps");
    assert!(steps > 60);
}

/// A disk that was full: the state file is opened again, and what the batch did that could not be noted is taken back. Nothing of it looks
/// like a deletion.
#[test]
fn a_full_disk_takes_nothing_and_is_got_over() {
    for full_at in ["journal", "settle"] {
        let Some((mut case, _mount)) = Case::on_a_disk_of(16) else {
            println!("SKIPPED: nothing can be mounted here");
            return;
        };
        let before = tree([("a", file("1")), ("b", file("2"))]);
        case.make(&before);
        case.record();
        let filler = case.outside().join("filler");
        let full = filler.clone();
        case.folder.set_step_hook(Some(Box::new(move |step| {
            if step == full_at {
                assert!(std::fs::write(&full, vec![1; 32 << 20]).is_err(), "it fits");
            }
            true
        })));
        // Names enough that noting them needs room.
        let names: Vec<String> = (0..3_000).map(|n| format!("{n:0>200}")).collect();
        let mut plan: Vec<_> = names.iter().map(|name| case.put_wish(name, &Thing::Dir)).collect();
        plan.push(CheckOut::Remove { path: "a".to_owned() });
        let failed = case.try_check_out(plan.clone());
        assert!(matches!(failed, Err(FolderError::State { .. })), "{full_at}: {failed:?}");
        assert!(case.folder.has_failed());
        case.folder.set_step_hook(None);
        std::fs::remove_file(filler).expect("remove");
        assert!(case.try_check_out(plan.clone()).is_err(), "{full_at}: the state file takes nothing more");
        case.folder.open_again().expect("open again");
        assert!(!case.folder.has_failed());
        case.expect(&before);
        let report = case.check_out(plan);
        assert_eq!((report.done.len(), report.removed.len()), (names.len(), 1), "{full_at}");
    }
}

/// Not every file system keeps permission bits: there half a file looks like a whole one, by them. None stays, after a crash or after content
/// that could not be written to its end.
#[test]
fn no_half_file_stays_where_permission_bits_are_not_kept() {
    use std::os::unix::fs::PermissionsExt;
    let before = tree([("old", file("1"))]);
    for (path, crash) in [("new", true), ("d/new", true), ("old", true), ("new", false), ("old", false)] {
        let mut case = Case::quick();
        case.make(&before);
        case.record();
        let plan = vec![case.put_wish(path, &file(noise(1, 6 * 1024 * 1024)))];
        if !crash {
            let last = *case.store.chunks.keys().next_back().expect("a chunk");
            case.store.chunks.remove(&last);
        }
        let root = case.root();
        let mut chunks = 0;
        case.folder.set_step_hook(Some(Box::new(move |step| {
            chunks += usize::from(step == "chunk");
            if step == "write" {
                let dirs = [root.clone(), root.join("d")];
                for entry in dirs.iter().filter_map(|dir| dir.read_dir().ok()).flatten().filter_map(Result::ok) {
                    std::fs::set_permissions(entry.path(), PermissionsExt::from_mode(0o755)).expect("mode");
                }
            }
            chunks < 2 || !crash
        })));
        let made = case.try_check_out(plan);
        assert_eq!(made.is_err(), crash, "{path}: {made:?}");
        if crash {
            case = case.reopen();
        }
        let names: Vec<String> = case.snapshot().into_keys().collect();
        assert_eq!(names, ["old"], "{path}, crash: {crash}");
        assert_eq!(std::fs::read(case.at_path("old")).expect("read"), b"1", "{path}, crash: {crash}");
    }
}

#[test]
fn killed_at_every_step_of_a_swap_by_hand() {
    let (before, after) = (tree([("a", file("1")), ("d/l", link("x"))]), tree([("a", file("2")), ("d/l", file("3"))]));
    for at in 0.. {
        let mut case = Case::quick();
        case.make(&before);
        case.record();
        case.folder.set_plain_renames(true);
        let plan = case.plan(&after, &before, &[]);
        if !stop_at(&mut case, plan, at) {
            assert!(at > 15, "{at} steps");
            return;
        }
        case = case.reopen();
        let stands = case.snapshot();
        assert!(stands == before || stands == after, "step {at}: {stands:?}");
        case.expect(&stands);
    }
}

#[test]
fn killed_at_every_step_of_moves() {
    let before = tree([("a", file("1")), ("b", file("2")), ("d/c", file("3")), ("e", file("5"))]);
    let after = tree([("x/a", file("1")), ("y", program("2")), ("d/z/c", file("3")), ("e", file("5"))]);
    check_every_step(&before, &[("a", "x/a"), ("b", "y"), ("d/c", "d/z/c")], &after);
    let after = tree([("b", file("1")), ("a", file("2")), ("d", file("3")), ("e/f", file("5"))]);
    check_every_step(&before, &[("a", "b"), ("b", "a"), ("d/c", "d"), ("e", "e/f")], &after);
}

#[test]
fn what_a_user_does_after_the_crash_survives() {
    let before = tree([("a", file("1")), ("b", file("2"))]);
    let after = tree([("a", file("new a")), ("c", file("new c"))]);
    for at in 0.. {
        let mut case = Case::quick();
        case.make(&before);
        case.record();
        let plan = case.plan(&after, &before, &[]);
        if !stop_at(&mut case, plan, at) {
            break;
        }
        // Before the node starts again, the user saves all three files.
        for path in ["a", "b", "c"] {
            case.put("saving", &file(format!("user's {path}")));
            case.rename("saving", path);
        }
        case = case.reopen();
        let stands: BTreeMap<_, _> = case.snapshot();
        for path in ["a", "b", "c"] {
            assert_eq!(stands.get(path), Some(&file(format!("user's {path}"))), "step {at}");
        }
        assert!(stands.keys().all(|path| !path.contains("sealtide-tmp")), "step {at}: {:?}", stands.keys());
        let scan = case.record();
        assert_eq!(
            scan.changes.len(),
            stands.len() + scan.changes.iter().filter(|change| !stands.contains_key(&change.path)).count()
        );
    }
}

#[test]
fn a_crash_while_a_crash_is_cleared_up_does_no_harm() {
    // The journal is played twice: the second time everything is back already.
    let before = tree([("a", file("1")), ("b", file("2")), ("d/c", file("3"))]);
    let after = tree([("a", file("new")), ("d", link("t")), ("e/f", file("4"))]);
    for at in 0.. {
        let mut case = Case::quick();
        case.make(&before);
        case.record();
        let plan = case.plan(&after, &before, &[]);
        if !stop_at(&mut case, plan, at) {
            break;
        }
        case = case.stop_with_state_kept();
        let stands = case.snapshot();
        case.expect(&stands);
    }
}

fn things() -> impl Strategy<Value = Tree> {
    let path =
        prop::collection::vec(prop::sample::select(vec!["a", "b", "c^ü"]), 1..4).prop_map(|names| names.join("/"));
    let thing = prop_oneof![
        4 => "[ab]{0,2}".prop_map(file),
        1 => "[ab]{0,2}".prop_map(program),
        1 => (1u64..4).prop_map(|seed| file(noise(seed, 3))),
        1 => prop::sample::select(vec!["a", "../x", "b/c"]).prop_map(link),
        1 => Just(Thing::Dir),
    ];
    prop::collection::btree_map(path, thing, 0..8).prop_map(|tree| {
        // Nothing stands below a file, link or empty directory.
        let blocked = |path: &str| tree.keys().any(|other| path.starts_with(&format!("{other}/")));
        tree.iter().filter(|(path, _)| !blocked(path)).map(|(path, thing)| (path.clone(), thing.clone())).collect()
    })
}

/// Pairs of paths with equal things, one of them only before and the other only after or changed.
fn moves_between(before: &Tree, after: &Tree) -> Vec<(String, String)> {
    let mut free: Vec<&String> = before.keys().filter(|path| after.get(*path) != before.get(*path)).collect();
    let mut moves = Vec::new();
    for (to, thing) in after.iter().filter(|(path, thing)| before.get(*path) != Some(thing)) {
        if let Some(at) = free.iter().position(|from| before[*from] == *thing && *from != to) {
            moves.push((free.remove(at).clone(), to.clone()));
        }
    }
    // A target that stays occupied by something that does not move is put, not moved.
    let sources: Vec<String> = moves.iter().map(|(from, _)| from.clone()).collect();
    moves.retain(|(_, to)| !before.contains_key(to) || sources.contains(to) || !after.contains_key(to));
    moves
}

proptest! {
    #![proptest_config(ProptestConfig { cases: u32::try_from(2000 * scale()).unwrap_or(u32::MAX), failure_persistence: None, .. ProptestConfig::default() })]

    /// From any directory to any other, with moves, killed at any step or not at all: it always arrives.
    #[test]
    fn any_directory_becomes_any_other(before in things(), after in things(), at in 0usize..60, plain: bool) {
        let mut case = Case::quick();
        case.folder.set_plain_renames(plain);
        case.make(&before);
        case.record();
        let moves = moves_between(&before, &after);
        let mut left: Vec<(&str, &str)> = moves.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        // Dropping one move may block the path of another.
        loop {
            let sources: Vec<&str> = left.iter().map(|(from, _)| *from).collect();
            let kept = left.len();
            left.retain(|(_, to)| !before.contains_key(*to) || sources.contains(to));
            if left.len() == kept { break }
        }
        let plan = case.plan(&after, &before, &left);
        if stop_at(&mut case, plan, at) {
            case = case.reopen();
            let stands = case.snapshot();
            case.expect(&stands);
            let plan = case.plan(&after, &stands, &[]);
            let report = case.check_out(plan);
            prop_assert!(report.dirty.is_empty() && report.skipped.is_empty(), "{:?}", report);
        }
        case.expect(&after);
    }
}
