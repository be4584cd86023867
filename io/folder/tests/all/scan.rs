//! What a scan finds, by kind of change.

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;

use crate::fixture::*;
use sealtide_folder::{CheckOut, Folder, FolderError, Found, FoundContent, SkipReason};

/// From `before`, recorded, through `change` to the expected lines.
#[track_caller]
fn check(before: &Tree, change: impl FnOnce(&Case), expected: &[&str]) {
    let mut case = Case::with(before);
    change(&case);
    let scan = case.scan();
    assert_eq!(shown(&scan), expected);
    assert_eq!(scan.skipped, []);
    // Nothing was recorded, so the same is found again; once it is recorded, nothing is.
    assert_eq!(shown(&case.record()), expected);
    case.expect_settled();
    case = case.reopen();
    case.expect_settled();
}

#[test]
fn finds_every_kind_of_thing() {
    let things = tree([
        ("empty", file("")),
        ("text", file("tide\r\n\t")),
        ("bin", file([0, 1])),
        ("run", program("#!")),
        ("link", link("../no/where")),
        ("d/e", Thing::Dir),
        ("ü 🦀/a^b", file("caret")),
    ]);
    let expected = [
        "bin: small 2 new",
        "d/e: dir new",
        "empty: text \"\" new",
        "link: link ../no/where new",
        "run: text \"#!\" exec new",
        "text: text \"tide\\r\\n\\t\" new",
        "ü 🦀/a^b: text \"caret\" new",
    ];
    check(&Tree::new(), |case| case.make(&things), &expected);
}

#[test]
fn sorts_contents_by_size() {
    let mut case = Case::new();
    case.put("text", &file("a".repeat(256 * 1024 - 2)));
    case.put("text too long", &file("a".repeat(256 * 1024 - 1)));
    case.put("small", &file(noise(1, 512 * 1024)));
    let large = noise(2, 6 * 1024 * 1024 + 1);
    case.put("large", &file(&large));
    let scan = case.scan();
    let expected = [
        "large: large 6291457 new",
        "small: small 524288 new",
        "text: text 262142 new",
        "text too long: small 262143 new",
    ];
    assert_eq!(shown(&scan), expected);
    let Found::File { content: FoundContent::Large(manifest), .. } = &scan.changes[0].found else { panic!("large") };
    let kept: Vec<u8> = manifest.chunks.iter().flat_map(|chunk| case.store.chunks[&chunk.hash].to_vec()).collect();
    assert!(kept == large, "the chunks are the file");
    assert_eq!(scan.changes[0].content, sealtide_crypto::blake3(&large));
}

#[test]
fn finds_edits_and_removals() {
    let before = tree([("a", file("1")), ("b", file("2")), ("d/c", file("3")), ("d/l", link("x"))]);
    check(
        &before,
        |case| {
            case.put("a", &file("11"));
            case.remove("b");
            case.put("d/c", &program("3"));
            case.put("d/l", &link("y"));
        },
        &["a: text \"11\"", "b: gone", "d/c: text \"3\" exec", "d/l: link y"],
    );
}

#[test]
fn a_touch_is_no_change() {
    check(&tree([("a", file("1"))]), |case| case.put("a", &file("1")), &[]);
}

#[test]
fn directories_count_only_while_empty() {
    let before = tree([("d", Thing::Dir), ("e", Thing::Dir), ("f/x", file("x"))]);
    check(
        &before,
        |case| {
            case.put("d/new", &file("n"));
            case.remove("e");
            case.remove("f/x");
        },
        &["d: gone", "d/new: text \"n\" new", "e: gone", "f: dir new", "f/x: gone"],
    );
}

#[test]
fn kinds_change() {
    let before = tree([
        ("dir to file/x", file("1")),
        ("dir to file/y", file("2")),
        ("empty to link", Thing::Dir),
        ("file to dir", file("3")),
        ("file to empty", file("4")),
        ("file to link", file("5")),
        ("link to file", link("t")),
    ]);
    check(
        &before,
        |case| {
            for path in before.keys().filter(|path| !path.starts_with("dir")) {
                case.remove(path);
            }
            case.remove("dir to file");
            case.put("dir to file", &file("6"));
            case.put("empty to link", &link("a"));
            case.put("file to dir/in", &file("7"));
            case.put("file to empty", &Thing::Dir);
            case.put("file to link", &link("b"));
            case.put("link to file", &file("8"));
        },
        &[
            "dir to file: text \"6\" new",
            "dir to file/x: gone",
            "dir to file/y: gone",
            "empty to link: link a",
            "file to dir: gone",
            "file to dir/in: text \"7\" new",
            "file to empty: dir",
            "file to link: link b",
            "link to file: text \"8\"",
        ],
    );
}

#[test]
fn follows_renames() {
    let before = tree([("a", file("1")), ("b", file("22")), ("c", link("t")), ("d", file("4444"))]);
    check(
        &before,
        |case| {
            case.rename("a", "sub/a2");
            // Renamed and edited in place: the inode is the same.
            case.rename("b", "b2");
            case.put("b2", &file("edited"));
            case.rename("c", "c2");
            // Copied and removed: the content is the same.
            case.put("d2", &file("4444"));
            case.remove("d");
        },
        &["b2: text \"edited\" from b", "c2: link t from c", "d2: text \"4444\" from d", "sub/a2: text \"1\" from a"],
    );
}

#[test]
fn equal_contents_are_no_rename_when_it_is_not_clear_which() {
    let before = tree([("a", file("same")), ("b", file("same"))]);
    check(
        &before,
        |case| {
            // New inodes first, so that none of the old ones is used again.
            case.put("c", &file("same"));
            case.remove("a");
            case.remove("b");
        },
        &["a: gone", "b: gone", "c: text \"same\" new"],
    );
}

#[test]
fn an_inode_used_again_is_no_rename() {
    let before = tree([("a", file("old content"))]);
    check(
        &before,
        |case| {
            case.remove("a");
            case.put("b", &file("other"));
        },
        &["a: gone", "b: text \"other\" new"],
    );
}

#[test]
fn a_save_by_rename_is_an_edit() {
    let before = tree([("a", file("1"))]);
    check(
        &before,
        |case| {
            case.put("a.tmp", &file("2"));
            case.rename("a", "a~");
            case.rename("a.tmp", "a");
        },
        &["a: text \"2\"", "a~: text \"1\" new"],
    );
}

#[test]
fn two_thousand_files_move_with_their_directory() {
    let mut case = Case::quick();
    for at in 0..2000 {
        // Half of them have a twin with the same content: only the inode tells them apart.
        case.put(&format!("old/{}/{at}", at % 7), &file(format!("content {}", at / 2)));
    }
    case.record();
    case.rename("old", "new/place");
    let scan = case.record();
    assert_eq!(scan.changes.len(), 2000);
    for change in &scan.changes {
        let from = change.from.as_deref().expect("a rename");
        assert_eq!(change.path.strip_prefix("new/place"), from.strip_prefix("old"));
        assert_eq!(change.known, Some((timeline_of(from), sid_of(&change.content))));
    }
    case.expect_settled();
    assert_eq!(case.folder.entries_count(), 2000);
}

#[test]
fn a_second_scan_reads_nothing() {
    let count = 20_000 * scale();
    let mut case = Case::quick();
    for dir in 0..count / 100 {
        std::fs::create_dir_all(case.at_path(&format!("d{dir}"))).expect("make");
        for at in 0..100 {
            std::fs::write(case.at_path(&format!("d{dir}/{at}")), format!("{dir} {at}")).expect("write");
        }
    }
    let first = case.record();
    assert_eq!((first.changes.len(), first.files_read, first.files), (count, count as u64, count as u64));
    // What was written in the last instants before the first scan may be read once more.
    let second = case.scan();
    assert_eq!(second.changes, []);
    assert!(second.files_read < count as u64 / 10, "{} read again", second.files_read);
    case = case.reopen();
    let third = case.scan();
    assert_eq!((third.changes.len(), third.files_read, third.files), (0, 0, count as u64));
    println!("scanned {count} files three times");
}

#[test]
fn only_dirty_paths_are_looked_at() {
    let before =
        tree([("a/x", file("1")), ("a/y", file("2")), ("a-z", file("0")), ("b/x", file("3")), ("c/d/x", file("4"))]);
    let mut case = Case::with(&before);
    case.put("a/x", &file("11"));
    case.put("a-z", &file("00"));
    case.remove("b/x");
    case.remove("c");
    assert_eq!(shown(&case.scan_only(Some(&["a/x"]))), ["a/x: text \"11\""]);
    assert_eq!(shown(&case.scan_only(Some(&["a", "a/x"]))), ["a/x: text \"11\""]);
    assert_eq!(shown(&case.scan_only(Some(&["b/x"]))), ["b: dir new", "b/x: gone"]);
    assert_eq!(shown(&case.scan_only(Some(&["c/d/x"]))), ["c/d/x: gone"]);
    assert_eq!(shown(&case.scan_only(Some(&["nothing", "../x", "/etc", "c/../a"]))), [""; 0]);
    assert_eq!(case.scan_only(Some(&[""])).changes.len(), 5);
}

#[test]
fn a_directory_stops_being_empty_in_a_scan_of_its_file() {
    let mut case = Case::with(&tree([("d", Thing::Dir)]));
    case.put("d/x", &file("1"));
    assert_eq!(shown(&case.scan_only(Some(&["d/x"]))), ["d: gone", "d/x: text \"1\" new"]);
}

#[test]
fn a_rename_across_dirty_paths_is_followed() {
    let mut case = Case::with(&tree([("a/x", file("1")), ("b/y", file("2"))]));
    case.rename("a/x", "b/x");
    assert_eq!(shown(&case.scan_only(Some(&["a/x", "b/x"]))), ["a: dir new", "b/x: text \"1\" from a/x"]);
}

#[test]
fn ignore_rules_hold() {
    let mut case = Case::new();
    case.make(&tree([
        (".sealtideignore", file("*.o\n/build/\n!keep.o\n# comment\nsecret\n")),
        ("a.o", file("1")),
        ("keep.o", file("2")),
        ("build/x", file("3")),
        ("src/build/x", file("4")),
        ("src/.sealtideignore", file("!a.o\nlocal\n")),
        ("src/a.o", file("5")),
        ("src/local", file("6")),
        ("src/deep/local", file("7")),
        ("secret/x", file("8")),
        (".sealtide-tmp-1", file("9")),
    ]));
    let paths =
        |scan: &sealtide_folder::Scan| scan.changes.iter().map(|change| change.path.clone()).collect::<Vec<_>>();
    let expected = [".sealtideignore", "keep.o", "src/.sealtideignore", "src/a.o", "src/build/x"];
    assert_eq!(paths(&case.record()), expected);
    for path in ["a.o", "build/x", "build", "src/local", "src/deep", "secret/x", ".sealtide-tmp-1"] {
        assert_eq!(shown(&case.scan_only(Some(&[path]))), [""; 0], "{path}");
    }
    // A path that is ignored later is left alone: neither changed nor gone, here and so everywhere.
    case.put(".sealtideignore", &file("*\n"));
    case.remove("keep.o");
    case.put("src/a.o", &file("55"));
    assert_eq!(case.scan().changes, []);
    // Without the rule the changes show.
    case.remove(".sealtideignore");
    let expected = [".sealtideignore", "a.o", "build/x", "keep.o", "secret/x", "src/a.o"];
    assert_eq!(paths(&case.scan()), expected);
}

/// Rules that cannot be read may cover anything: nothing beside or below them is recorded, taken for gone, or written, until they can.
#[test]
fn unreadable_ignore_rules_keep_everything_private() {
    let rules = "d/.sealtideignore";
    let mut case = Case::with(&tree([("a", file("1")), (rules, file("*.key\n")), ("d/e/b", file("2"))]));
    case.put("d/private.key", &file("secret"));
    let large = format!("*.key\n{}", "# \n".repeat(400_000));
    let wide: Vec<u8> = "\u{feff}*.key\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bad in [link("../rules"), Thing::Dir, file(large), file(wide)] {
        case.remove(rules);
        case.put(rules, &bad);
        case.put("d/e/b", &file("edited"));
        for only in [None, Some(&["d/private.key"][..]), Some(&[rules][..])] {
            let scan = case.scan_only(only);
            assert_eq!(shown(&scan), [""; 0], "{only:?}");
            let told =
                scan.skipped.iter().map(|(path, reason)| (path.as_str(), reason.to_string())).collect::<Vec<_>>();
            let is_told = matches!(&told[..], [(path, reason)] if *path == rules && reason.contains(rules));
            assert!(is_told || only == Some(&["d/private.key"]), "{told:?}");
        }
        let plan = vec![CheckOut::Remove { path: "d/e/b".to_owned() }, case.put_wish("d/new", &file("new"))];
        let report = case.check_out(plan);
        let skipped: Vec<_> = report.skipped.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(skipped, ["d/e/b", "d/new"]);
        assert!(matches!(&report.skipped[0].1, SkipReason::RulesUnreadable { path, .. } if path == rules));
    }
    // They can be read again: another encoding in a comment, and a mark before the first line, take nothing from them.
    case.remove(rules);
    case.put(rules, &file(b"\xef\xbb\xbf*.key\n# gel\xf6scht\n"));
    let scan = case.scan();
    assert_eq!(scan.changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), [rules, "d/e/b"]);
    assert_eq!(scan.skipped, []);
}

#[test]
fn a_directory_of_ignored_files_is_nothing_new_and_stays_what_it_was() {
    let mut case = Case::with(&tree([(".sealtideignore", file("*.o")), ("kept", Thing::Dir)]));
    case.put("kept/a.o", &file("1"));
    case.put("new/a.o", &file("1"));
    case.expect_settled();
}

#[test]
fn what_cannot_be_shared_is_skipped_with_a_reason() {
    let mut case = Case::new();
    let pipe = case.at_path("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("pipe");
    let _socket = std::os::unix::net::UnixListener::bind(case.at_path("socket")).expect("socket");
    let wrong = std::ffi::OsString::from_vec(vec![b'x', 0xff]);
    std::fs::write(case.root().join(&wrong), "1").expect("write");
    std::os::unix::fs::symlink(&wrong, case.at_path("link")).expect("link");
    case.put("fine", &file("1"));
    let scan = case.scan();
    assert_eq!(shown(&scan), ["fine: text \"1\" new"]);
    let expected = [
        ("link", SkipReason::TargetNotUtf8),
        ("pipe", SkipReason::Special),
        ("socket", SkipReason::Special),
        ("x\u{fffd}", SkipReason::NameNotUtf8),
    ];
    assert_eq!(scan.skipped, expected.map(|(path, reason)| (path.to_owned(), reason)));
}

#[test]
fn a_known_file_that_becomes_a_pipe_is_not_gone() {
    let mut case = Case::with(&tree([("a", file("1"))]));
    case.remove("a");
    let at = case.at_path("a");
    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("pipe");
    let scan = case.scan();
    assert_eq!((scan.changes.len(), scan.skipped.len()), (0, 1));
}

#[test]
fn very_long_names_and_paths() {
    let mut case = Case::new();
    let name = "ü".repeat(127);
    case.put(&name, &file("254 bytes"));
    let long = vec!["n".repeat(254); 4].join("/");
    case.put(&long, &file("1019 bytes"));
    // One level more than a path may have.
    let dir = rustix::fs::open(case.at_path(&long[..764]), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
    let dir = dir.expect("open");
    rustix::fs::mkdirat(&dir, "m".repeat(250), rustix::fs::Mode::RWXU).expect("make");
    let dir =
        rustix::fs::openat(&dir, "m".repeat(250), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).expect("open");
    rustix::fs::mkdirat(&dir, "too long", rustix::fs::Mode::RWXU).expect("make");
    let scan = case.record();
    assert_eq!(scan.changes.iter().map(|change| change.path.as_str()).collect::<Vec<_>>(), [&long, &name]);
    assert_eq!(scan.skipped.len(), 1, "{:?}", scan.skipped);
    assert_eq!(scan.skipped[0].1.to_string(), "the path is longer than 1024 bytes");
    case = case.reopen();
    assert_eq!(case.scan().changes, []);
}

#[test]
fn links_are_never_followed() {
    let mut case = Case::with(&tree([("d/x", file("1"))]));
    std::fs::create_dir(case.outside().join("other")).expect("make");
    std::fs::write(case.outside().join("other/x"), "not shared").expect("write");
    case.remove("d");
    case.put("d", &link("../other"));
    case.put("loop", &link("."));
    assert_eq!(shown(&case.scan()), ["d: link ../other new", "d/x: gone", "loop: link . new"]);
    assert_eq!(shown(&case.scan_only(Some(&["d/x"]))), ["d: link ../other new", "d/x: gone"]);
}

#[test]
fn an_unreadable_directory_loses_nothing() {
    if rustix::process::geteuid().is_root() {
        // Nothing is unreadable for root; the same path is taken by a pipe above.
        println!("skipped: runs as root");
        return;
    }
    let mut case = Case::with(&tree([("d/x", file("1"))]));
    std::fs::set_permissions(case.at_path("d"), PermissionsExt::from_mode(0o000)).expect("mode");
    let scan = case.scan();
    std::fs::set_permissions(case.at_path("d"), PermissionsExt::from_mode(0o755)).expect("mode");
    assert_eq!((scan.changes.len(), scan.skipped.len()), (0, 1));
}

#[test]
fn a_file_that_changes_while_it_is_read_waits() {
    let mut case = Case::new();
    case.put("large", &file(noise(3, 3 * 1024 * 1024)));
    let at = case.at_path("large");
    let mut touched = false;
    let mut keep = |_: sealtide_ibgib::CutChunk| {
        if !std::mem::replace(&mut touched, true) {
            std::fs::write(&at, noise(4, 3 * 1024 * 1024)).expect("write");
        }
        Ok(())
    };
    let scan = case.folder.scan(None, &mut keep, &mut |_| {}).expect("scan");
    assert_eq!(scan.changes, []);
    assert_eq!(scan.skipped, [("large".to_owned(), SkipReason::Changing)]);
    assert_eq!(shown(&case.scan()), ["large: large 3145728 new"]);
}

/// A file that is written all the time is not read to an end that moves on, and its chunks are not kept for nothing.
#[test]
fn no_more_of_a_file_is_kept_once_it_changed() {
    let mut case = Case::new();
    case.put("large", &file(noise(3, 6 * 1024 * 1024)));
    let at = case.at_path("large");
    let mut kept = 0;
    let mut keep = |_: sealtide_ibgib::CutChunk| {
        kept += 1;
        if kept == 2 {
            let mut log = std::fs::File::options().append(true).open(&at).expect("open");
            std::io::Write::write_all(&mut log, b"more").expect("write");
        }
        Ok(())
    };
    let scan = case.folder.scan(None, &mut keep, &mut |_| {}).expect("scan");
    assert_eq!(scan.skipped, [("large".to_owned(), SkipReason::Changing)]);
    assert_eq!(kept, 2);
}

#[test]
fn a_chunk_that_cannot_be_kept_fails_the_scan() {
    let mut case = Case::new();
    case.put("large", &file(noise(3, 1024 * 1024)));
    let mut keep = |_: sealtide_ibgib::CutChunk| Err(std::io::Error::from(std::io::ErrorKind::StorageFull));
    match case.folder.scan(None, &mut keep, &mut |_| {}) {
        Err(FolderError::Keep { path, source }) => {
            assert_eq!((path.as_str(), source.kind()), ("large", std::io::ErrorKind::StorageFull));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_unmounted_disk_deletes_nothing() {
    let mut case = Case::with(&tree([("a", file("1"))]));
    let (root, aside) = (case.root(), case.outside().join("aside"));
    std::fs::rename(&root, &aside).expect("rename");
    let no_chunks = &mut |_: sealtide_ibgib::CutChunk| Ok(());
    assert!(matches!(case.folder.scan(None, no_chunks, &mut |_| {}), Err(FolderError::RootReplaced { .. })));
    std::fs::create_dir(&root).expect("make");
    assert!(matches!(case.folder.scan(None, no_chunks, &mut |_| {}), Err(FolderError::RootReplaced { .. })));
    let state = case.outside().join("state");
    let Case { folder, .. } = &mut case;
    let other = tempfile::tempdir().expect("temp dir");
    let elsewhere = Folder::open(other.path(), &other.path().join("state")).expect("open");
    drop(std::mem::replace(folder, elsewhere));
    assert!(matches!(Folder::open(&root, &state), Err(FolderError::RootReplaced { .. })));
    std::fs::remove_dir(&root).expect("remove");
    std::fs::rename(&aside, &root).expect("rename");
    assert_eq!(Folder::open(&root, &state).expect("open").entries_count(), 1);
}

#[test]
fn a_directory_that_lacks_most_of_it_is_another_one() {
    let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
    let mut case = Case::new();
    names.iter().for_each(|name| case.put(name, &file(name.as_str())));
    case.record();
    let (root, state, aside) = (case.root(), case.outside().join("state"), case.outside().join("aside"));
    let other = tempfile::tempdir().expect("temp dir");
    let elsewhere = Folder::open(other.path(), &other.path().join("state")).expect("open");
    drop(std::mem::replace(&mut case.folder, elsewhere));
    std::fs::rename(&root, &aside).expect("rename");
    // What lies under a disk that is not mounted.
    std::fs::create_dir(&root).expect("make");
    let copy = |name: &String| assert!(std::fs::copy(aside.join(name), root.join(name)).is_ok());
    std::fs::write(root.join("service.log"), "started").expect("write");
    names[..4].iter().for_each(copy);
    assert!(matches!(Folder::open(&root, &state), Err(FolderError::RootReplaced { .. })));
    // A copy on another disk, in which some are gone: those are not known any more, and one that differs is as good as new.
    names[4..7].iter().for_each(copy);
    std::fs::write(root.join("f0"), "another").expect("write");
    case.folder = Folder::open(&root, &state).expect("open");
    assert!(!case.folder.took_another(), "not yet");
    assert_eq!(shown(&case.scan_when_taken()), ["f0: text \"another\" new", "service.log: text \"started\" new"]);
    let known: Vec<_> = case.folder.entries().map(|(path, placed)| (path.to_owned(), placed.sid)).collect();
    let kept = names[1..7].iter().map(|name| (name.clone(), sid_of(&sealtide_crypto::blake3(name.as_bytes()))));
    assert_eq!(known, kept.collect::<Vec<_>>());
    assert_eq!([case.folder.took_another(), case.folder.took_another()], [true, false]);
    // The first one comes back while nothing was opened anew.
    case.record();
    std::fs::remove_dir_all(&root).expect("remove");
    std::fs::create_dir(&root).expect("make");
    let no_chunks = &mut |_: sealtide_ibgib::CutChunk| Ok(());
    assert!(matches!(case.folder.scan(None, no_chunks, &mut |_| {}), Err(FolderError::RootReplaced { .. })));
    std::fs::remove_dir(&root).expect("remove");
    std::fs::rename(&aside, &root).expect("rename");
    assert!(case.scan_when_taken().changes.iter().all(|change| change.found != Found::Gone));
    assert_eq!([case.folder.took_another(), case.folder.took_another()], [true, false]);
}

/// `mv D D.old; cp -a D.old D` while the node runs.
#[test]
fn a_copy_that_grows_is_not_taken() {
    let names: Vec<String> = (0..10).map(|n| format!("f{n}")).collect();
    let mut case = Case::new();
    names.iter().for_each(|name| case.put(name, &file(name.as_str())));
    case.record();
    let (root, aside) = (case.root(), case.outside().join("aside"));
    std::fs::rename(&root, &aside).expect("rename");
    std::fs::create_dir(&root).expect("make");
    let copy = |name: &String| assert!(std::fs::copy(aside.join(name), root.join(name)).is_ok());
    names[..6].iter().for_each(copy);
    let is_unsettled = |case: &mut Case| {
        let scanned = case.folder.scan(None, &mut |_: sealtide_ibgib::CutChunk| Ok(()), &mut |_| {});
        let checked_out = case.try_check_out(Vec::new());
        let unsettled = |error: Option<FolderError>| matches!(error, Some(FolderError::RootUnsettled { .. }));
        unsettled(scanned.err()) && unsettled(checked_out.err())
    };
    assert!(is_unsettled(&mut case));
    // Longer than it has to stand still, and still more comes: a file under another name, then the rest of it.
    let pause = || std::thread::sleep(std::time::Duration::from_secs(6));
    pause();
    std::fs::write(root.join(".f6.x9Yz"), "f").expect("write");
    assert!(is_unsettled(&mut case));
    pause();
    std::fs::write(root.join(".f6.x9Yz"), "6").expect("write");
    assert!(is_unsettled(&mut case));
    std::fs::rename(root.join(".f6.x9Yz"), root.join("f6")).expect("rename");
    names[6..].iter().for_each(copy);
    assert_eq!(shown(&case.scan_when_taken()), [""; 0]);
    case.expect_settled();
    assert_eq!(case.folder.entries_count(), 10);
}

/// What moved away and back is what it was.
#[test]
fn a_directory_that_comes_back_before_another_was_taken_is_the_known_one() {
    let mut case = Case::with(&tree([("a", file("1")), ("b", file("2"))]));
    let (root, aside) = (case.root(), case.outside().join("aside"));
    std::fs::rename(&root, &aside).expect("rename");
    std::fs::create_dir(&root).expect("make");
    std::fs::copy(aside.join("a"), root.join("a")).expect("copy");
    let no_chunks = &mut |_: sealtide_ibgib::CutChunk| Ok(());
    assert!(matches!(case.folder.scan(None, no_chunks, &mut |_| {}), Err(FolderError::RootUnsettled { .. })));
    std::fs::remove_dir_all(&root).expect("remove");
    std::fs::rename(&aside, &root).expect("rename");
    case.remove("b");
    assert_eq!(shown(&case.scan()), ["b: gone"]);
}

#[test]
fn a_rule_file_at_the_top_says_something_about_everything() {
    let mut case = Case::with(&tree([("deep/a.txt", file("1")), (".sealtideignore", file("*.log\n"))]));
    case.put("deep/q.log", &file("q"));
    assert_eq!(shown(&case.scan_only(Some(&["deep/q.log"]))), [""; 0]);
    case.remove(".sealtideignore");
    let expected = [".sealtideignore: gone", "deep/q.log: text \"q\" new"];
    assert_eq!(shown(&case.scan_only(Some(&[".sealtideignore"]))), expected);
}

/// Runs a command as root; false where that cannot be.
fn as_root(program: &str, args: &[&str]) -> bool {
    std::process::Command::new(program).args(args).status().is_ok_and(|status| status.success())
}

#[test]
fn what_was_mounted_below_does_not_look_deleted() {
    let mut case = Case::with(&tree([("a", file("1")), ("usb/under", file("2"))]));
    let usb = case.at_path("usb");
    let mount = || as_root("mount", &["-t", "tmpfs", "-o", "size=1m", "none", usb.to_str().expect("UTF-8")]);
    let unmount = || assert!(as_root("umount", &[usb.to_str().expect("UTF-8")]));
    if !mount() {
        println!("SKIPPED: nothing can be mounted here");
        return;
    }
    case.put("usb/x", &file("x"));
    case.put("usb/y", &file("y"));
    assert_eq!(shown(&case.scan()), ["usb/under: gone", "usb/x: text \"x\" new", "usb/y: text \"y\" new"]);
    case.record();
    unmount();
    for only in [None, Some(&["usb/x"][..]), Some(&["usb"][..])] {
        let scan = case.scan_only(only);
        assert_eq!(
            (shown(&scan), scan.skipped),
            (vec![], vec![("usb".to_owned(), SkipReason::NotMounted)]),
            "{only:?}"
        );
    }
    case = case.reopen();
    assert_eq!(shown(&case.scan()), [""; 0], "after a restart");
    assert!(mount());
    case.put("usb/y", &file("y"));
    assert_eq!(shown(&case.scan()), ["usb/x: gone"], "it is mounted, and what is not on it went");
    case.record();
    unmount();
    case.remove("usb/under");
    std::fs::remove_dir(&usb).expect("remove");
    assert_eq!(shown(&case.scan()), ["usb/y: gone"], "a directory that goes takes all with it");
}

/// Of two disks, one mounted in the other, the outer one comes back alone.
#[test]
fn what_is_mounted_in_a_disk_that_is_away_does_not_look_deleted() {
    let mut case = Case::with(&tree([("a/under", file("1"))]));
    let (outer, inner) = (case.at_path("a"), case.at_path("a/b"));
    let disk = case.outside().join("disk");
    std::fs::create_dir_all(disk.join("b")).expect("make");
    std::fs::write(disk.join("x"), "x").expect("write");
    let [outer, inner, disk] = [&outer, &inner, &disk].map(|path| path.to_str().expect("UTF-8"));
    if !as_root("mount", &["--bind", disk, outer]) {
        println!("SKIPPED: nothing can be mounted here");
        return;
    }
    assert!(as_root("mount", &["-t", "tmpfs", "-o", "size=1m", "none", inner]));
    case.put("a/b/y", &file("y"));
    assert_eq!(shown(&case.scan()), ["a/b/y: text \"y\" new", "a/under: gone", "a/x: text \"x\" new"]);
    case.record();
    assert!(as_root("umount", &[inner]) && as_root("umount", &[outer]));
    let away = ["a", "a/b"].map(|path| (path.to_owned(), SkipReason::NotMounted));
    assert_eq!(case.scan().skipped, away[..1]);
    assert!(as_root("mount", &["--bind", disk, outer]));
    let scan = case.scan();
    let told = (shown(&scan), scan.skipped);
    assert!(as_root("umount", &[outer]));
    assert_eq!(told, (vec![], away[1..].to_vec()), "the inner one is away still");
}

/// Nothing is written or counted as removed below a mount point while nothing is mounted there: it would be undone for everybody with the
/// next mount.
#[test]
fn below_a_disk_that_is_not_mounted_nothing_is_checked_out() {
    let mut case = Case::with(&tree([("a", file("1")), ("b", file("2"))]));
    let (usb, disk) = (case.at_path("usb"), case.outside().join("disk"));
    std::fs::create_dir(&usb).expect("make");
    std::fs::create_dir(&disk).expect("make");
    let [at, disk] = [&usb, &disk].map(|path| path.to_str().expect("UTF-8"));
    // A disk, and another place of the same file system.
    for mount in [["-t", "tmpfs", "-o", "size=1m", "none", at].as_slice(), &["--bind", disk, at]] {
        if !as_root("mount", mount) {
            println!("SKIPPED: nothing can be mounted here");
            return;
        }
        case.put("usb/old", &file("old"));
        case.record();
        assert!(as_root("umount", &[at]));
        let remove = CheckOut::Remove { path: "usb/old".to_owned() };
        let plan = vec![case.put_wish("usb/new", &file("new")), case.move_wish("a", "usb/a", false), remove];
        let report = case.check_out(plan);
        let skipped: Vec<_> = report.skipped.iter().map(|(path, reason)| (path.as_str(), reason)).collect();
        let away = ["usb/old", "usb/a", "usb/new"].map(|path| (path, &SkipReason::NotMounted));
        assert_eq!(skipped, away, "{mount:?}");
        assert_eq!(report.open, ["usb/old", "usb/a", "a", "usb/new"].map(str::to_owned).as_slice(), "{mount:?}");
        assert_eq!(std::fs::read_dir(&usb).expect("list").count(), 0, "{mount:?}");
        assert!(case.folder.known("usb/old").is_some(), "{mount:?}");
        std::fs::remove_dir(&usb).expect("remove");
        case.record();
        std::fs::create_dir(&usb).expect("make");
        case.record();
    }
}

#[test]
fn one_scan_holds_no_more_than_it_may() {
    let mut case = Case::quick();
    // 300 MiB of files that were never seen, and one that went: it must not look gone before all are read.
    case.put("away", &file(noise(0, 300 * 1024)));
    case.record();
    case.remove("away");
    for at in 0..1024u64 {
        case.put(&format!("f{at}"), &file(noise(at + 1, 300 * 1024)));
    }
    let first = case.record();
    assert!(first.more);
    assert!(first.changes.iter().all(|change| change.found != Found::Gone), "gone too early");
    let second = case.record();
    assert!(!second.more);
    assert_eq!(first.changes.len() + second.changes.len(), 1025);
    case.expect_settled();
}
