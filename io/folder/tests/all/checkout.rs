//! What a check-out makes of a directory, and what it leaves alone.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::{Arc, Mutex};

use crate::fixture::*;
use sealtide_folder::{CheckOut, CheckOutReport, SkipReason};

/// From `before`, recorded, to `after` by a plan.
#[track_caller]
fn check(before: &Tree, after: &Tree) {
    check_moves(before, &[], after);
}

#[track_caller]
fn check_moves(before: &Tree, moves: &[(&str, &str)], after: &Tree) {
    let mut case = Case::with(before);
    let plan = case.plan(after, before, moves);
    let report = case.check_out(plan);
    assert!(is_clean(&report), "{:?} {:?} {:?}", report.dirty, report.skipped, report.rescued);
    case.expect(after);
    case = case.reopen();
    case.expect(after);
}

fn is_clean(report: &CheckOutReport) -> bool {
    report.dirty.is_empty() && report.skipped.is_empty() && report.rescued.is_empty()
}

fn everything() -> Tree {
    tree([
        ("empty", file("")),
        ("text", file("tide")),
        ("bin", file([0, 1])),
        ("run", program("#!")),
        ("link", link("../no/where")),
        ("d/e", Thing::Dir),
        ("ü 🦀/a^b", file("caret")),
        ("large", file(noise(1, 5 * 1024 * 1024))),
        ("a/b/c/d/e", file("deep")),
    ])
}

#[test]
fn makes_and_removes_everything() {
    check(&Tree::new(), &everything());
    check(&everything(), &Tree::new());
}

#[test]
fn sets_time_and_permissions() {
    let mut case = Case::new();
    let plan = case.plan(&everything(), &Tree::new(), &[]);
    let report = case.check_out(plan);
    for path in ["text", "run", "link", "large"] {
        let meta = case.at_path(path).symlink_metadata().expect("stat");
        assert_eq!(meta.mtime() * 1000, MTIME_MS, "{path}");
        let mode = meta.permissions().mode();
        assert!(path == "link" || mode & 0o600 == 0o600, "{path} {mode:o}");
    }
    let (_, placed) = report.done.iter().find(|(path, _)| path == "large").expect("done");
    assert_eq!(placed.content, sealtide_crypto::blake3(&noise(1, 5 * 1024 * 1024)));
    assert_eq!((placed.timeline, placed.stat.size), (timeline_of("large"), 5 * 1024 * 1024));
    assert_eq!(case.folder.known("large"), Some(placed));
}

#[test]
fn a_foreign_time_far_away_is_drawn_in() {
    let mut case = Case::new();
    for (path, time) in [("past", i64::MIN), ("future", i64::MAX)] {
        let mut wish = case.put_wish(path, &file("1"));
        if let CheckOut::Put { mtime_ms, .. } = &mut wish {
            *mtime_ms = time;
        }
        assert!(is_clean(&case.check_out(vec![wish])));
    }
    case.expect_settled();
    assert_eq!(case.at_path("past").metadata().expect("stat").mtime(), 0);
}

#[test]
fn replaces_and_keeps_the_permissions() {
    let mut case = Case::with(&tree([("a", file("1")), ("b", file("2"))]));
    std::fs::set_permissions(case.at_path("a"), PermissionsExt::from_mode(0o600)).expect("mode");
    case.record();
    let after = tree([("a", program("11")), ("b", file(noise(1, 700_000)))]);
    let plan = case.plan(&after, &Tree::new(), &[]);
    assert!(is_clean(&case.check_out(plan)));
    assert_eq!(case.at_path("a").metadata().expect("stat").permissions().mode() & 0o7777, 0o700);
    case.expect(&after);
}

#[test]
fn a_new_tip_with_equal_content_writes_nothing() {
    let before = tree([("a", file("1")), ("b", file(noise(1, 600_000)))]);
    let mut case = Case::with(&before);
    let inode = |case: &Case, path: &str| case.at_path(path).metadata().expect("stat").ino();
    let inodes = [inode(&case, "a"), inode(&case, "b")];
    let after = tree([("a", program("1")), ("b", file(noise(1, 600_000)))]);
    let plan = case.plan(&after, &Tree::new(), &[]);
    let report = case.check_out(plan);
    assert_eq!((report.done.len(), is_clean(&report)), (2, true));
    assert_eq!([inode(&case, "a"), inode(&case, "b")], inodes);
    case.expect(&after);
    assert_eq!(case.folder.known("b").expect("known").sid, sid_of(&[1; 32]));
}

#[test]
fn kinds_change() {
    let before = tree([
        ("dir to file/x", file("1")),
        ("dir to file/deep/y", file("2")),
        ("dir to link", Thing::Dir),
        ("dir to file 2", Thing::Dir),
        ("file to dir", file("3")),
        ("file to empty", file("4")),
        ("file to link", file("5")),
        ("link to file", link("t")),
        ("link to dir", link("t")),
        ("link to link", link("t")),
        ("empty to full", Thing::Dir),
    ]);
    let after = tree([
        ("dir to file", file("1")),
        ("dir to file 2", program("1")),
        ("dir to link", link("x")),
        ("file to dir/x", file("3")),
        ("file to empty", Thing::Dir),
        ("file to link", link("5")),
        ("link to file", file("t")),
        ("link to dir/a/b", file("t")),
        ("link to link", link("u")),
        ("empty to full/x", file("x")),
    ]);
    check(&before, &after);
    check(&after, &before);
}

#[test]
fn a_directory_that_stands_for_itself_stays() {
    let before = tree([("kept/x", file("1")), ("gone/x", file("2")), ("deep/a/b/x", file("3")), ("deep/y", file("4"))]);
    check(&before, &tree([("kept", Thing::Dir), ("deep/y", file("4"))]));
}

#[test]
fn moves_write_nothing() {
    let mut case = Case::with(&tree([("a", file("1")), ("d/b", file("2")), ("e", Thing::Dir), ("l", link("t"))]));
    let inode = case.at_path("d/b").metadata().expect("stat").ino();
    let after = tree([("x/y/a", file("1")), ("b", program("2")), ("f/e", Thing::Dir), ("d", link("t"))]);
    let moves = [("a", "x/y/a"), ("d/b", "b"), ("e", "f/e"), ("l", "d")];
    let plan = case.plan(&after, &Tree::new(), &moves);
    assert!(is_clean(&case.check_out(plan)));
    case.expect(&after);
    assert_eq!(case.at_path("b").metadata().expect("stat").ino(), inode);
}

#[test]
fn moves_in_each_others_way() {
    let before = tree([("a", file("1")), ("b", file("2")), ("c", file("3")), ("p/x", file("4")), ("q", file("5"))]);
    // A swap and a ring.
    check_moves(
        &before,
        &[("a", "b"), ("b", "c"), ("c", "a"), ("p/x", "q"), ("q", "p/x")],
        &tree([("b", file("1")), ("c", file("2")), ("a", file("3")), ("q", file("4")), ("p/x", file("5"))]),
    );
    // A file takes the place of its directory, another gets a directory at its old place.
    check_moves(
        &before,
        &[("p/x", "p"), ("q", "q/r/s"), ("a", "q/a")],
        &tree([("b", file("2")), ("c", file("3")), ("p", file("4")), ("q/r/s", file("5")), ("q/a", file("1"))]),
    );
}

#[test]
fn a_move_that_fails_takes_back_what_depends_on_it() {
    let before = tree([("a", file("1")), ("b", file("2")), ("c", file("3")), ("d", file("4"))]);
    let mut case = Case::with(&before);
    // The ring cannot close: c was edited. d moves without the others.
    case.put("c", &file("edited"));
    let moves = [("a", "b"), ("b", "c"), ("c", "a"), ("d", "d2")];
    let plan = moves.map(|(from, to)| case.move_wish(from, to, false)).to_vec();
    let report = case.check_out(plan);
    assert!(report.dirty.contains(&"c".to_owned()), "{:?}", report.dirty);
    let mut open = report.open;
    open.sort();
    assert_eq!(open, ["a", "a", "b", "b", "c", "c"], "both ends of each move");
    let after = tree([("a", file("1")), ("b", file("2")), ("c", file("edited")), ("d2", file("4"))]);
    assert_eq!(case.snapshot(), after);
    assert_eq!(shown(&case.scan()), ["c: text \"edited\""]);
}

#[test]
fn local_changes_are_never_touched() {
    let before = tree([
        ("edited", file("1")),
        ("edited and removed there", file("2")),
        ("edited and moved there", file("3")),
        ("removed", file("4")),
        ("removed on both sides", file("5")),
        ("became a dir", file("6")),
        ("exec", file("7")),
        ("swapped for a link", file("8")),
    ]);
    let mut case = Case::with(&before);
    case.put("edited", &file("x"));
    case.put("edited and removed there", &file("x"));
    case.put("edited and moved there", &file("x"));
    case.remove("removed");
    case.remove("removed on both sides");
    case.remove("became a dir");
    case.put("became a dir/x", &file("x"));
    case.put("exec", &program("7"));
    case.remove("swapped for a link");
    case.put("swapped for a link", &link("t"));
    case.put("new", &file("x"));
    case.put("parent", &file("x"));
    let local = case.snapshot();
    let mut plan = vec![
        CheckOut::Remove { path: "edited and removed there".into() },
        CheckOut::Remove { path: "removed on both sides".into() },
        case.move_wish("edited and moved there", "there", false),
    ];
    for path in ["edited", "removed", "exec", "swapped for a link", "new", "parent/below"] {
        plan.push(case.put_wish(path, &file("remote")));
    }
    let report = case.check_out(plan);
    let dirty: std::collections::BTreeSet<&str> = report.dirty.iter().map(String::as_str).collect();
    let expected = [
        "edited",
        "edited and moved there",
        "edited and removed there",
        "exec",
        "new",
        "parent",
        "removed",
        "swapped for a link",
    ];
    assert_eq!(dirty.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!((report.done.len(), report.removed.as_slice()), (0, &["removed on both sides".to_owned()][..]));
    assert_eq!(case.snapshot(), local);
    // The directory that took the place of a file: nothing is written over it.
    let wish = case.put_wish("became a dir", &file("remote"));
    let report = case.check_out(vec![wish]);
    assert_eq!(report.skipped, [("became a dir".to_owned(), SkipReason::DirectoryNotEmpty)]);
    assert_eq!(case.snapshot(), local);
}

/// Runs a check-out in which somebody acts at the first step with this name.
fn meanwhile(
    case: &mut Case,
    plan: Vec<CheckOut>,
    at: &'static str,
    act: impl FnOnce() + Send + 'static,
) -> CheckOutReport {
    let act = Mutex::new(Some(act));
    let met = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&met);
    case.folder.set_step_hook(Some(Box::new(move |step| {
        if step == at
            && let Some(act) = act.lock().expect("lock").take()
        {
            *seen.lock().expect("lock") = true;
            act();
        }
        true
    })));
    let report = case.check_out(plan);
    case.folder.set_step_hook(None);
    assert!(*met.lock().expect("lock"), "the step {at} was never taken");
    report
}

#[test]
fn an_edit_at_any_moment_of_a_replacement_survives() {
    for step in ["journal", "create", "write", "finish", "swap", "check_again"] {
        let mut case = Case::with(&tree([("a", file("1"))]));
        let plan = vec![case.put_wish("a", &file("remote"))];
        let at = case.at_path("a");
        let report = meanwhile(&mut case, plan, step, move || {
            // At the last of these moments the new file stands already, and it is that one which is edited.
            std::fs::write(&at, "edited").expect("write");
        });
        assert_eq!(case.snapshot(), tree([("a", file("edited"))]), "{step}");
        let known = case.folder.known("a").expect("known").sid;
        if step == "check_again" {
            assert_eq!((report.done.len(), known), (1, sid_of(&[1; 32])), "{step}");
        } else {
            assert_eq!((report.dirty.as_slice(), known == sid_of(&[1; 32])), (&["a".to_owned()][..], false), "{step}");
        }
        assert_eq!(shown(&case.record()), ["a: text \"edited\""], "{step}");
    }
}

#[test]
fn a_save_by_rename_at_any_moment_survives() {
    for step in ["create", "finish", "swap", "check_again", "sync", "settle", "sweep"] {
        let mut case = Case::with(&tree([("a", file("1"))]));
        let plan = vec![case.put_wish("a", &file("remote"))];
        let (at, beside) = (case.at_path("a"), case.at_path("b"));
        meanwhile(&mut case, plan, step, move || {
            std::fs::write(&beside, "saved").expect("write");
            std::fs::rename(&beside, &at).expect("rename");
        });
        assert_eq!(case.snapshot(), tree([("a", file("saved"))]), "{step}");
        assert_eq!(shown(&case.record()), ["a: text \"saved\""], "{step}");
    }
}

#[test]
fn a_program_that_still_writes_to_a_removed_file_loses_nothing() {
    use std::io::Write;
    for remote in [None, Some(file("remote"))] {
        let mut case = Case::with(&tree([("d/a.txt", file("1"))]));
        let plan = vec![match &remote {
            None => CheckOut::Remove { path: "d/a.txt".into() },
            Some(thing) => case.put_wish("d/a.txt", thing),
        }];
        let mut open = std::fs::File::options().append(true).open(case.at_path("d/a.txt")).expect("open");
        let report = meanwhile(&mut case, plan, "sync", move || open.write_all(b" and more").expect("write"));
        let [(path, saved)] = &report.rescued[..] else { panic!("{:?}", report.rescued) };
        assert!(path == "d/a.txt" && saved.starts_with("d/a (local 2") && saved.ends_with(").txt"), "{saved}");
        assert_eq!(case.snapshot().get(saved), Some(&file("1 and more")));
        assert_eq!(case.snapshot().get(path), remote.as_ref());
    }
}

#[test]
fn an_edit_before_a_file_is_put_aside_survives() {
    for step in ["journal", "lift", "check_again"] {
        let mut case = Case::with(&tree([("a", file("1"))]));
        let at = case.at_path("a");
        let plan = vec![CheckOut::Remove { path: "a".into() }];
        meanwhile(&mut case, plan, step, move || std::fs::write(at, "edited").expect("write"));
        assert_eq!(case.snapshot(), tree([("a", file("edited"))]), "{step}");
    }
    for step in ["journal", "rename"] {
        let mut case = Case::with(&tree([("a", file("1"))]));
        let at = case.at_path("a");
        let plan = vec![case.move_wish("a", "b", false)];
        let report = meanwhile(&mut case, plan, step, move || std::fs::write(at, "edited").expect("write"));
        assert_eq!((case.snapshot(), report.dirty), (tree([("a", file("edited"))]), vec!["a".to_owned()]), "{step}");
    }
}

#[test]
fn a_file_that_appears_meanwhile_is_left_alone() {
    for (step, wish) in [("create", file("remote")), ("create", link("remote")), ("make_dir", Thing::Dir)] {
        let mut case = Case::new();
        let plan = vec![case.put_wish("a", &wish)];
        let at = case.at_path("a");
        let report = meanwhile(&mut case, plan, step, move || std::fs::write(at, "local").expect("write"));
        assert_eq!((case.snapshot(), report.dirty), (tree([("a", file("local"))]), vec!["a".to_owned()]));
    }
}

/// Where the file system takes names of different case for one, what answers to a name is left alone when it is another path: nothing is
/// recorded twice, so nothing of it goes.
#[test]
fn a_path_that_differs_only_in_case_is_left_out() {
    let before = tree([("Makefile", file("1")), ("photos/a", file("2")), ("b", file("3"))]);
    let mut case = Case::with(&before);
    case.folder.set_one_case(true);
    let plan = vec![
        case.put_wish("makefile", &file("other")),
        case.put_wish("Photos/new", &file("new")),
        case.move_wish("photos/a", "Photos/a", false),
        case.put_wish("photos/new", &file("new")),
        case.put_wish("b", &file("33")),
    ];
    let report = case.check_out(plan);
    let skipped: Vec<_> = report.skipped.iter().map(|(path, reason)| (path.as_str(), reason)).collect();
    let other = ["Photos/a", "Photos/new", "makefile"].map(|path| (path, &SkipReason::OtherSpelling));
    assert_eq!((skipped, report.dirty.len()), (other.to_vec(), 0));
    assert_eq!(shown(&case.scan_only(Some(&["makefile", "Photos/a", "Photos", "Makefile"]))), [""; 0]);
    let mut after = before.clone();
    after.extend(tree([("photos/new", file("new")), ("b", file("33"))]));
    case.expect(&after);
    // A rename here is one.
    case.rename("Makefile", "makefile");
    assert_eq!(shown(&case.scan_only(Some(&["Makefile", "makefile"]))), ["makefile: text \"1\" from Makefile"]);
}

/// Two directories that differ only in case arrive together: what belongs in the second does not land in the first.
#[test]
fn directories_that_differ_only_in_case_are_not_made_one() {
    let mut case = Case::new();
    case.folder.set_one_case(true);
    let wishes = ["Docs/a", "Docs/readme", "docs/b", "docs/readme"];
    let mut plan: Vec<_> = wishes.iter().map(|path| case.put_wish(path, &file(path))).collect();
    plan.push(case.put_wish("Empty", &Thing::Dir));
    plan.push(case.put_wish("empty", &Thing::Dir));
    let report = case.check_out(plan);
    let skipped: Vec<_> = report.skipped.iter().map(|(path, reason)| (path.as_str(), reason)).collect();
    let other = ["docs/b", "docs/readme", "empty"].map(|path| (path, &SkipReason::OtherSpelling));
    assert_eq!((skipped, report.dirty.len()), (other.to_vec(), 0));
    case.expect(&tree([("Docs/a", file("Docs/a")), ("Docs/readme", file("Docs/readme")), ("Empty", Thing::Dir)]));
    assert_eq!(shown(&case.scan()), [""; 0], "and nothing looks new or gone");
}

#[test]
fn nothing_is_written_through_a_link() {
    let mut case = Case::with(&tree([("d/x", file("1")), ("e/x", file("2"))]));
    let other = case.outside().join("other");
    std::fs::create_dir(&other).expect("make");
    std::fs::write(other.join("x"), "not shared").expect("write");
    // The directory is swapped for a link out of the folder, before and in the middle of a check-out.
    case.remove("d");
    case.put("d", &link("../other"));
    let plan = vec![
        case.put_wish("d/x", &file("evil")),
        case.put_wish("d/new", &file("evil")),
        CheckOut::Remove { path: "d/x".into() },
        case.move_wish("e/x", "d/y", false),
    ];
    let report = case.check_out(plan);
    assert_eq!(report.done, []);
    let (root, away) = (case.root(), case.outside().join("away"));
    let plan = vec![case.put_wish("e/new", &file("evil")), case.put_wish("e/x", &file("evil"))];
    meanwhile(&mut case, plan, "journal", move || {
        std::fs::rename(root.join("e"), away).expect("rename");
        std::os::unix::fs::symlink("../other", root.join("e")).expect("link");
    });
    let names: Vec<_> =
        std::fs::read_dir(&other).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, ["x"]);
    assert_eq!(std::fs::read_to_string(other.join("x")).expect("read"), "not shared");
}

#[test]
fn a_link_in_the_space_is_no_way_out_either() {
    // Both come from the other side: a link, and a file below it.
    let mut case = Case::new();
    std::fs::create_dir(case.outside().join("other")).expect("make");
    let plan = vec![case.put_wish("d", &link("../other")), case.put_wish("d/x", &file("evil"))];
    let report = case.check_out(plan);
    assert_eq!(report.done.len() + report.skipped.len() + report.dirty.len(), 2);
    assert_eq!(std::fs::read_dir(case.outside().join("other")).expect("list").count(), 0);
    // Once the link is known, the reason is named.
    let mut case = Case::with(&tree([("d", link("../other"))]));
    let wish = case.put_wish("d/x", &file("evil"));
    assert_eq!(
        case.check_out(vec![wish]).skipped,
        [("d/x".to_owned(), SkipReason::ParentNotDirectory("d".to_owned()))]
    );
}

#[test]
fn paths_that_are_none_are_refused() {
    let mut case = Case::with(&tree([(".sealtideignore", file("*.o"))]));
    let bad = ["", "/etc/x", "../x", "a/../../x", "a//b", "a\0", ".sealtide-tmp-x", "a.o", &"n".repeat(256)];
    let mut plan: Vec<CheckOut> = bad.iter().map(|path| case.put_wish(path, &file("evil"))).collect();
    plan.extend(bad.iter().map(|path| CheckOut::Remove { path: (*path).to_owned() }));
    plan.extend(bad.iter().map(|path| case.move_wish(".sealtideignore", path, false)));
    plan.extend(bad.iter().filter(|path| **path != "a.o").map(|path| case.move_wish(path, "fine", false)));
    let count = plan.len();
    let report = case.check_out(plan);
    assert_eq!((report.skipped.len(), report.done.len(), report.dirty.len()), (count, 0, 0));
    case.expect(&tree([(".sealtideignore", file("*.o"))]));
}

#[test]
fn a_link_that_cannot_be_made_is_skipped() {
    let mut case = Case::new();
    let plan = ["", "a\0b"].map(|target| case.put_wish(&format!("l{}", target.len()), &link(target))).to_vec();
    assert_eq!(case.check_out(plan).skipped.len(), 2);
    case.expect(&Tree::new());
}

#[test]
fn content_that_cannot_be_loaded_leaves_no_trace() {
    let large = noise(1, 3 * 1024 * 1024);
    for known in [Tree::new(), tree([("d/a", file("1"))])] {
        let mut case = Case::with(&known);
        let plan = vec![case.put_wish("d/a", &file(&large)), case.put_wish("d/b", &file("fine"))];
        let last = *case.store.chunks.keys().next_back().expect("a chunk");
        case.store.chunks.remove(&last);
        let report = case.check_out(plan);
        assert!(
            matches!(&report.skipped[..], [(path, SkipReason::Content(_))] if path == "d/a"),
            "{:?}",
            report.skipped
        );
        let mut after = known.clone();
        after.insert("d/b".to_owned(), file("fine"));
        case.expect(&after);
        // A chunk of another length is no better.
        case.store.chunks.insert(last, bytes::Bytes::from_static(b"short"));
        let wish = case.put_wish("d/c", &file("x"));
        let CheckOut::Put { path, kind, exec, mtime_ms, timeline, sid, .. } = wish else { panic!("a put") };
        let content = case.store.binaries.keys().next().cloned().map(sealtide_ibgib::Content::Bin).expect("binary");
        let report = case.check_out(vec![CheckOut::Put { path, kind, exec, mtime_ms, content, timeline, sid }]);
        assert!(matches!(&report.skipped[..], [(_, SkipReason::Content(_))]), "{:?}", report.skipped);
        case.expect(&after);
    }
}

#[test]
fn content_must_fit_the_kind() {
    let mut case = Case::new();
    let mut wishes = [case.put_wish("a", &file("x")), case.put_wish("b", &link("x")), case.put_wish("c", &Thing::Dir)];
    use sealtide_ibgib::Content;
    for (wish, other) in wishes.iter_mut().zip([Content::None, Content::Text("x".into()), Content::Target("x".into())])
    {
        let CheckOut::Put { content, .. } = wish else { panic!("a put") };
        *content = other;
    }
    assert_eq!(case.check_out(wishes.to_vec()).skipped.len(), 3);
    case.expect(&Tree::new());
}

#[test]
fn a_folder_can_go_to_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Case::new().folder);
}

#[test]
fn setting_aside_makes_room() {
    let mut case = Case::with(&tree([("d/a.txt", file("1"))]));
    case.put("d/a.txt", &file("local"));
    let first = case.folder.set_aside("d/a.txt").expect("set aside");
    case.put("d/a.txt", &file("local 2"));
    let second = case.folder.set_aside("d/a.txt").expect("set aside");
    assert!(second.ends_with(") 2.txt"), "{second}");
    let wish = case.put_wish("d/a.txt", &file("remote"));
    assert!(is_clean(&case.check_out(vec![wish])));
    assert_eq!(
        shown(&case.scan()),
        [format!("{second}: text \"local 2\" new"), format!("{first}: text \"local\" new")]
    );
    assert!(case.folder.set_aside("../x").is_err() && case.folder.set_aside("nothing").is_err());
}

#[test]
fn ten_thousand_files_in_batches() {
    let count = 10_000 * scale();
    let mut case = Case::quick();
    let wanted: Tree = (0..count).map(|at| (format!("d{}/f{at}", at % 100), file(format!("content {at}")))).collect();
    let plan = case.plan(&wanted, &Tree::new(), &[]);
    let mut reports = 0;
    let report = case.folder.check_out(plan, &case.store, &mut |progress| {
        reports += 1;
        assert_eq!(progress.items, count as u64);
    });
    assert_eq!(report.expect("check out").done.len(), count);
    assert!(reports >= count / 8192);
    let scan = case.scan();
    assert_eq!((scan.changes.len(), scan.files), (0, count as u64));
    assert!(case.snapshot() == wanted);
    let plan = case.plan(&Tree::new(), &Tree::new(), &[]);
    assert_eq!(case.check_out(plan).removed.len(), count);
    case.expect(&Tree::new());
    println!("checked {count} files out and removed them");
}

#[test]
fn much_content_closes_a_batch_early() {
    let mut case = Case::quick();
    let thing = file(noise(1, 512 * 1024));
    let wanted: Tree = (0..600).map(|at| (format!("d{at}/f"), thing.clone())).collect();
    let plan = case.plan(&wanted, &Tree::new(), &[]);
    let mut seen = Vec::new();
    let report = case.folder.check_out(plan, &case.store, &mut |progress| seen.push(progress));
    assert_eq!(report.expect("check out").done.len(), 600);
    let [first, last] = seen[..] else { panic!("{seen:?}") };
    assert_eq!((first.items_done, last.items_done), (513, 600));
    assert_eq!(last.bytes_written, 600 * 512 * 1024);
    case.expect(&wanted);
}
