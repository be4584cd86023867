//! Both nodes run: every kind of edit on either side shows on the other.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::{Machine, Pair, Written, agree, assert_same, snapshot, write};

fn start() -> Pair {
    Pair::with(|notes| {
        write(notes, "plan.md", "one\ntwo\nthree\n");
        write(notes, "run.sh", "#!/bin/sh\n");
        write(notes, "box/inside.txt", "in a box\n");
        symlink("plan.md", notes.join("link")).unwrap();
    })
}

/// What is done, and the doing of it.
type Change = (&'static str, fn(&Path));

/// One change after the other, each seen on the other side before the next, on either side in turn.
#[track_caller]
fn check(changes: &[Change]) {
    let pair = start();
    pair.agree();
    for (turn, (name, change)) in changes.iter().enumerate() {
        let here = if turn % 2 == 0 { &pair.a } else { &pair.b };
        change(&here.notes());
        let wanted = snapshot(&here.notes());
        let agreed = pair.agree();
        // It is the change that arrived at the other side, not its undoing that arrived here.
        assert!(wanted.difference(&agreed).is_none(), "{name}: {:?}", wanted.difference(&agreed));
    }
    pair.agree_and_verify();
}

// Proves: SY-104
#[test]
fn files_live() {
    check(&[
        ("create", |notes| write(notes, "new.md", "new\n")),
        ("create at the other side", |notes| write(notes, "deep/er/new.md", "new too\n")),
        ("edit", |notes| write(notes, "plan.md", "one\ntwo!\nthree\n")),
        ("edit at the other side", |notes| write(notes, "plan.md", "one\ntwo!\nthree!\n")),
        ("empty it", |notes| write(notes, "new.md", "")),
        ("text becomes binary", |notes| write(notes, "plan.md", [0u8, 159, 146, 150, 0])),
        ("binary becomes text", |notes| write(notes, "plan.md", "text again\n")),
        ("rename", |notes| fs::rename(notes.join("plan.md"), notes.join("plan-b.md")).unwrap()),
        ("rename into a directory", |notes| fs::rename(notes.join("plan-b.md"), notes.join("box/plan.md")).unwrap()),
        ("delete", |notes| fs::remove_file(notes.join("new.md")).unwrap()),
        ("come back", |notes| write(notes, "new.md", "back\n")),
        ("replace by a renamed file", |notes| {
            write(notes, ".new.md.swp", "saved by an editor\n");
            fs::rename(notes.join(".new.md.swp"), notes.join("new.md")).unwrap();
        }),
    ]);
}

// Proves: SY-104
#[test]
fn kinds_live() {
    check(&[
        ("an empty directory", |notes| fs::create_dir(notes.join("empty")).unwrap()),
        ("nested empty directories", |notes| fs::create_dir_all(notes.join("e/m/p/t/y")).unwrap()),
        ("the bit that makes it run", |notes| {
            fs::set_permissions(notes.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("and off", |notes| {
            fs::set_permissions(notes.join("run.sh"), fs::Permissions::from_mode(0o644)).unwrap();
        }),
        ("a link elsewhere", |notes| {
            fs::remove_file(notes.join("link")).unwrap();
            symlink("box/inside.txt", notes.join("link")).unwrap();
        }),
        ("a link to nothing", |notes| symlink("not/there", notes.join("dangling")).unwrap()),
        ("a link becomes a file", |notes| {
            fs::remove_file(notes.join("link")).unwrap();
            write(notes, "link", "no link any more\n");
        }),
        ("a file becomes a link", |notes| {
            fs::remove_file(notes.join("link")).unwrap();
            symlink("run.sh", notes.join("link")).unwrap();
        }),
        ("a file becomes a directory", |notes| {
            fs::remove_file(notes.join("plan.md")).unwrap();
            write(notes, "plan.md/part-1.md", "part\n");
        }),
        ("a directory becomes a file", |notes| {
            fs::remove_dir_all(notes.join("plan.md")).unwrap();
            write(notes, "plan.md", "whole\n");
        }),
        ("rename a directory", |notes| fs::rename(notes.join("box"), notes.join("crate")).unwrap()),
        ("fill an empty directory", |notes| write(notes, "empty/not.txt", "any more\n")),
        ("empty a directory", |notes| fs::remove_file(notes.join("crate/inside.txt")).unwrap()),
        ("delete a directory", |notes| fs::remove_dir_all(notes.join("e")).unwrap()),
    ]);
}

#[test]
fn odd_names_live() {
    check(&[
        ("unicode", |notes| write(notes, "naïve – 山.txt", "unicode\n")),
        ("a caret", |notes| write(notes, "a^b", "caret\n")),
        ("composed and not", |notes| {
            write(notes, "\u{e9}", "one\n");
            write(notes, "e\u{301}", "two\n");
        }),
        ("case", |notes| {
            write(notes, "README", "upper\n");
            write(notes, "readme", "lower\n");
        }),
        ("spaces and signs", |notes| write(notes, " a  b:c*d?\"e<f>g|h'.txt ", "signs\n")),
        ("a long name", |notes| write(notes, &"n".repeat(255), "long\n")),
        ("leading dots", |notes| write(notes, "...", "dots\n")),
        ("a newline", |notes| write(notes, "two\nlines", "newline\n")),
    ]);
}

/// What the node refuses is told, by name and reason, and the rest goes on; so ends `sync --wait` with exit 3.
#[test]
fn names_that_cannot_travel_are_told() {
    use std::os::unix::ffi::OsStrExt;

    let pair = start();
    pair.agree();
    let bad = std::ffi::OsStr::from_bytes(b"not-\xff-utf8");
    fs::write(pair.a.notes().join(bad), "x").unwrap();
    write(&pair.a.notes(), "good.md", "good\n");
    crate::support::until("the good file", || {
        fs::read_to_string(pair.b.notes().join("good.md")).map_err(|error| error.to_string())
    });
    let error = pair.a.fails(&["sync", "--wait"], 3, "skipped");
    assert!(error["message"].as_str().unwrap().contains("UTF-8"), "{error}");
    let skipped = pair.a.space()["skipped"].clone();
    assert_eq!(skipped.as_object().unwrap().len(), 1, "{skipped}");
    // A node that shares with nobody is in step but for that, and says so whether it runs or not.
    let alone = crate::support::Machine::new();
    fs::create_dir_all(alone.notes()).unwrap();
    write(&alone.notes(), "good.md", "good\n");
    fs::write(alone.notes().join(bad), "x").unwrap();
    let mut node = alone.share();
    crate::support::until("it is told", || {
        let done = alone.run(&["status", "--check"]);
        if done.code == 3 { Ok(()) } else { Err(format!("{done:?}")) }
    });
    node.stop();
    alone.fails(&["status", "--check"], 3, "skipped");
    assert_eq!(alone.space()["files"], 1);
    fs::remove_file(pair.a.notes().join(bad)).unwrap();
    let synced = pair.a.ok(&["sync", "--wait"]);
    assert_eq!(synced["schema"], "sealtide/sync/1");
    pair.agree_and_verify();
}

/// Where somebody writes all the time, `sync --wait` waits for what was there when it began.
#[test]
fn a_wait_ends_while_others_go_on_writing() {
    let pair = start();
    pair.agree();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                write(&pair.a.notes(), "log.txt", format!("{n}\n"));
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        write(&pair.a.notes(), "before.md", "before\n");
        let waited = [&pair.a, &pair.b].map(|machine| machine.run(&["sync", "--wait", "--timeout", "60s"]));
        let came = fs::read_to_string(pair.b.notes().join("before.md"));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(waited.iter().all(|done| done.code == 0), "{waited:?}");
        assert_eq!(came.unwrap(), "before\n");
    });
    pair.agree_and_verify();
}

/// Files that the rules name stay where they are.
#[test]
fn ignored_files_stay_here() {
    let pair = start();
    write(&pair.a.notes(), ".sealtideignore", "*.tmp\n/build/\n");
    pair.agree();
    write(&pair.a.notes(), "scratch.tmp", "mine\n");
    write(&pair.a.notes(), "build/out.bin", "mine\n");
    write(&pair.a.notes(), "seen.md", "shared\n");
    pair.a.ok(&["sync", "--wait"]);
    let there = snapshot(&pair.b.notes());
    assert!(there.0.contains_key("seen.md") && !there.0.contains_key("scratch.tmp"), "{:?}", there.paths());
    assert!(!there.0.contains_key("build/out.bin"), "{:?}", there.paths());
}

/// Three machines, each edits; the one in the middle passes on.
// Proves: SY-61
#[test]
fn three_machines_in_a_row() {
    let pair = start();
    let c = Machine::new();
    // The second machine may only write; the first invites the third as well.
    pair.b.fails(&["ticket", "new"], 6, "not_admin");
    let ticket = pair.a.ok(&["ticket", "new"])["ticket"].as_str().unwrap().to_owned();
    c.ok(&["join", &ticket, c.notes_text(), "--wait"]);
    let _node_c = c.up(&[]);
    for (turn, machine) in [&pair.a, &pair.b, &c].into_iter().enumerate() {
        write(&machine.notes(), &format!("from-{turn}.md"), format!("from {turn}\n"));
    }
    let agreed = crate::support::until("all three hold all", || {
        let all = snapshot(&c.notes());
        if (0..3).all(|turn| all.0.contains_key(&format!("from-{turn}.md"))) { Ok(all) } else { Err(c.told()) }
    });
    assert_same(&agreed, &agree(&pair.a, &c));
    assert_same(&agreed, &agree(&pair.b, &c));
}

/// `sync --wait` says "in step" only when that is true: the peer looks at its folder first, also at an edit that its
/// watcher has not told of yet.
#[test]
fn sync_wait_sees_an_edit_of_this_moment() {
    let pair = start();
    pair.agree();
    for round in 0..8 {
        let (here, there) = if round % 2 == 0 { (&pair.a, &pair.b) } else { (&pair.b, &pair.a) };
        let text = format!("round {round}\n");
        write(&here.notes(), "plan.md", &text);
        there.ok(&["sync", "--wait"]);
        assert_eq!(fs::read_to_string(there.notes().join("plan.md")).unwrap(), text);
    }
    pair.agree_and_verify();
}

/// Edits on both sides at once, faster than sagas run: both end with what was written last, and nothing is in conflict since each
/// side has files of its own.
// Proves: SY-95
#[test]
fn both_sides_write_at_once() {
    let pair = start();
    let mut written = Written::of(&pair.a.notes());
    let scale = crate::scale();
    for round in 0..40 * scale {
        written.write(&pair.a.notes(), &format!("a/{}.md", round % 17), format!("a {round}\n"));
        written.write(&pair.b.notes(), &format!("b/{}.md", round % 13), format!("b {round}\n"));
        std::thread::sleep(std::time::Duration::from_millis(round % 50));
    }
    written.assert_survived(&pair.agree_and_verify());
    let conflicts = pair.a.ok(&["conflicts", "list"]);
    assert_eq!(conflicts["conflicts"].as_array().unwrap().len(), 0, "{conflicts}");
}
