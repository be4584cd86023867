//! Changes made while the nodes are apart, and what becomes of those that meet.

use std::fs;

use serde_json::Value;

use crate::support::{Machine, Pair, agree, until, write};

fn text(machine: &Machine, path: &str) -> String {
    fs::read_to_string(machine.notes().join(path)).unwrap_or_else(|error| format!("<{error}>"))
}

/// Both stop, both change, both start.
#[track_caller]
fn part_and_meet(
    fill: impl FnOnce(&std::path::Path),
    change_a: impl FnOnce(&Pair),
    change_b: impl FnOnce(&Pair),
) -> Pair {
    let mut pair = Pair::with(fill);
    pair.agree();
    stop_both(&mut pair);
    change_a(&pair);
    change_b(&pair);
    start_both(&mut pair);
    pair
}

fn stop_both(pair: &mut Pair) {
    assert_eq!(pair.a.ok(&["down"])["stopped"], true);
    // It has really stopped: the store is free.
    pair.a.ok(&["verify"]);
    assert_eq!(pair.node_a.wait(), 0);
    pair.b.ok(&["down"]);
    assert_eq!(pair.node_b.wait(), 0);
}

fn start_both(pair: &mut Pair) {
    pair.node_a = pair.a.up(&[]);
    pair.node_b = pair.b.up(&[]);
}

#[test]
fn changes_on_both_sides_while_down() {
    let pair = part_and_meet(
        |notes| (0..20).for_each(|n| write(notes, &format!("f{n}.md"), format!("{n}\n"))),
        |pair| {
            let notes = pair.a.notes();
            write(&notes, "f0.md", "changed by a\n");
            write(&notes, "new-a.md", "a\n");
            fs::remove_file(notes.join("f1.md")).unwrap();
            fs::rename(notes.join("f2.md"), notes.join("renamed-a.md")).unwrap();
        },
        |pair| {
            let notes = pair.b.notes();
            write(&notes, "f3.md", "changed by b\n");
            write(&notes, "dir/new-b.md", "b\n");
            fs::remove_file(notes.join("f4.md")).unwrap();
            fs::rename(notes.join("f5.md"), notes.join("renamed-b.md")).unwrap();
        },
    );
    let agreed = until("both changes are on both sides", || {
        let agreed = agree(&pair.a, &pair.b);
        let wanted = ["new-a.md", "dir/new-b.md", "renamed-a.md", "renamed-b.md"];
        let all = wanted.iter().all(|path| agreed.0.contains_key(*path));
        if all { Ok(agreed) } else { Err(format!("{:?}", agreed.paths())) }
    });
    for gone in ["f1.md", "f2.md", "f4.md", "f5.md"] {
        assert!(!agreed.0.contains_key(gone), "{gone}");
    }
    assert_eq!(text(&pair.b, "f0.md"), "changed by a\n");
    assert_eq!(text(&pair.a, "f3.md"), "changed by b\n");
    pair.agree_and_verify();
}

/// Different paragraphs of one file: both edits are in one version, which both compute, and nobody is asked.
// Proves: SY-106
#[test]
fn different_paragraphs_are_merged() {
    let pair = part_and_meet(
        |notes| write(notes, "plan.md", "first\n\nsecond\n\nthird\n"),
        |pair| write(&pair.a.notes(), "plan.md", "first, by a\n\nsecond\n\nthird\n"),
        |pair| write(&pair.b.notes(), "plan.md", "first\n\nsecond\n\nthird, by b\n"),
    );
    let merged = "first, by a\n\nsecond\n\nthird, by b\n";
    for machine in [&pair.a, &pair.b] {
        until("both edits are there", || if text(machine, "plan.md") == merged { Ok(()) } else { Err(machine.told()) });
        assert!(listed(machine).is_empty());
    }
    pair.agree_and_verify();
    let logs = [&pair.a, &pair.b].map(|machine| machine.ok(&["log", "Notes:plan.md"])["entries"].clone());
    assert_eq!(logs[0][0]["hash"], logs[1][0]["hash"], "one frame, made on both sides");
    let entries = logs[0].as_array().unwrap();
    assert_eq!(entries.len(), 4, "{entries:?}");
    assert_eq!((&entries[0]["what"], &entries[0]["tip"]), (&Value::from("merged"), &Value::from(true)));
    let mut parents: Vec<&str> = entries[0]["parents"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut edits: Vec<&str> = entries[1..3].iter().filter_map(|entry| entry["hash"].as_str()).collect();
    parents.sort_unstable();
    edits.sort_unstable();
    assert_eq!(parents, edits);
    pair.b.ok(&["sync", "--wait"]);
    until("nobody is asked for anything", || match pair.a.run(&["status", "--check"]).code {
        0 => Ok(()),
        _ => Err(pair.a.told()),
    });
}

/// The same word changed twice: both are in the text, it is listed, and a person settles it.
// Proves: SY-106
#[test]
fn the_same_word_changed_twice() {
    let pair = part_and_meet(
        |notes| write(notes, "plan.md", "the red fox\n"),
        |pair| write(&pair.a.notes(), "plan.md", "the blue fox\n"),
        |pair| write(&pair.b.notes(), "plan.md", "the green fox\n"),
    );
    let both = ["the blue green fox\n", "the green blue fox\n"];
    for machine in [&pair.a, &pair.b] {
        until("it is listed", || match listed(machine).as_slice() {
            [one] if one["path"] == "plan.md" && one["kind"] == "merged" => Ok(()),
            other => Err(format!("{other:?} {}", machine.told())),
        });
        until("both words are there", || {
            if both.contains(&text(machine, "plan.md").as_str()) { Ok(()) } else { Err(machine.told()) }
        });
    }
    agree(&pair.a, &pair.b);
    pair.a.fails(&["sync", "--wait"], 4, "conflicts");
    pair.b.fails(&["status", "--check"], 4, "conflict");
    let shown = pair.a.ok(&["conflicts", "show", "Notes:plan.md"])["versions"].clone();
    let whats: Vec<&str> = shown.as_array().unwrap().iter().filter_map(|version| version["what"].as_str()).collect();
    assert_eq!(whats, ["merged", "one side", "other side", "before"]);
    let mut texts: Vec<&str> =
        shown.as_array().unwrap().iter().filter_map(|version| version["text"].as_str()).collect();
    texts[1..3].sort_unstable();
    assert_eq!(texts[1..], ["the blue fox\n", "the green fox\n", "the red fox\n"]);
    // One side is chosen; its text stands on both machines.
    let chosen = shown.as_array().unwrap().iter().find(|version| version["text"] == "the blue fox\n").unwrap();
    let version = format!("@{}", &chosen["hash"].as_str().unwrap()[..12]);
    pair.b.ok(&["conflicts", "resolve", "Notes:plan.md", "--keep", &version]);
    for machine in [&pair.a, &pair.b] {
        until("it is settled", || {
            let settled = listed(machine).is_empty() && text(machine, "plan.md") == "the blue fox\n";
            if settled { Ok(()) } else { Err(machine.told()) }
        });
    }
    pair.agree_and_verify();
    pair.b.fails(&["conflicts", "resolve", "Notes:plan.md"], 2, "no_conflict");
}

/// One edits, the other deletes: the edit stands in the folders, and that the two met is listed.
// Proves: SY-106
#[test]
fn an_edit_wins_over_a_delete() {
    let pair = part_and_meet(
        |notes| write(notes, "plan.md", "one\n"),
        |pair| fs::remove_file(pair.a.notes().join("plan.md")).unwrap(),
        |pair| write(&pair.b.notes(), "plan.md", "one\ntwo\n"),
    );
    until("the edit is on both sides", || {
        if text(&pair.a, "plan.md") == "one\ntwo\n" { Ok(()) } else { Err(pair.a.told()) }
    });
    settle_one(&pair, "plan.md");
    assert_eq!(pair.agree_and_verify().paths(), ["plan.md"]);
}

/// A document of a space with a folder, put on both sides while apart: what cannot be merged is listed beside the files and counted,
/// until a person settles it.
#[test]
fn a_document_of_a_shared_folder_put_twice() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    pair.agree();
    stop_both(&mut pair);
    for (machine, doc) in [(&pair.a, r#"{"k": "a"}"#), (&pair.b, r#"{"k": "b"}"#)] {
        assert_eq!(machine.run_with(&["put", "Notes", "settings"], doc).code, 0);
    }
    start_both(&mut pair);
    for machine in [&pair.a, &pair.b] {
        until("the document is listed", || match listed(machine).as_slice() {
            [one] if (&one["space"], &one["path"]) == (&"Notes".into(), &"settings".into()) => Ok(()),
            other => Err(format!("{other:?} {}", machine.told())),
        });
    }
    pair.a.fails(&["sync", "--wait"], 4, "conflicts");
    pair.b.fails(&["status", "--check"], 4, "conflict");
    assert_eq!(pair.b.space()["conflicts"], 1);
    pair.b.ok(&["conflicts", "resolve", "Notes:settings"]);
    for machine in [&pair.a, &pair.b] {
        machine.in_step();
        until("nothing is listed", || match listed(machine).as_slice() {
            [] => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    pair.a.ok(&["sync", "--wait"]);
}

/// One conflict, at this path, is listed on both sides; it is resolved on the second, and gone on both.
#[track_caller]
fn settle_one(pair: &Pair, path: &str) {
    for machine in [&pair.a, &pair.b] {
        until("the conflict is listed", || match listed(machine).as_slice() {
            [one] if one["path"] == path => Ok(()),
            other => Err(format!("{other:?} {}", machine.told())),
        });
    }
    pair.b.ok(&["conflicts", "resolve", &format!("Notes:{path}")]);
    for machine in [&pair.a, &pair.b] {
        until("the conflict is gone", || match listed(machine).as_slice() {
            [] => Ok(()),
            other => Err(format!("{other:?} {}", machine.told())),
        });
    }
}

fn listed(machine: &Machine) -> Vec<Value> {
    machine.ok(&["conflicts", "list"])["conflicts"].as_array().unwrap().clone()
}

/// One photo changed on both sides: one version stands in the folders, both are kept and listed, the exit codes say so,
/// a person settles it on one side and it is settled on the other.
// Proves: SY-62, SY-106
#[test]
fn a_conflict_is_kept_listed_and_settled() {
    let pair = part_and_meet(
        |notes| write(notes, "photo.bin", [0, 1, 2]),
        |pair| write(&pair.a.notes(), "photo.bin", [0, 1, 3]),
        |pair| write(&pair.b.notes(), "photo.bin", [0, 1, 4]),
    );
    for machine in [&pair.a, &pair.b] {
        until("the conflict is listed", || match listed(machine).as_slice() {
            [one] if one["path"] == "photo.bin" => Ok(()),
            other => Err(format!("{other:?} {}", machine.told())),
        });
    }
    agree(&pair.a, &pair.b);
    pair.a.fails(&["sync", "--wait"], 4, "conflicts");
    pair.b.fails(&["status", "--check"], 4, "conflict");
    assert_eq!(listed(&pair.a)[0]["kind"], "merged");
    let shown = pair.a.ok(&["conflicts", "show", "Notes:photo.bin"]);
    let versions = shown["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 4, "{shown}");
    // Both versions are in the history, whichever won.
    let log = pair.b.ok(&["log", "Notes:photo.bin"]);
    let hashes: Vec<String> =
        log["entries"].as_array().unwrap().iter().map(|entry| entry["hash"].as_str().unwrap().to_owned()).collect();
    let contents: Vec<String> = hashes
        .iter()
        .map(|hash| pair.b.ok(&["get", &format!("Notes:photo.bin@{}", &hash[..12])]))
        .filter_map(|got| got["base64"].as_str().or(got["text"].as_str()).map(str::to_owned))
        .collect();
    // What both started from, both edits, and the merge, which holds the content of one.
    assert_eq!(contents.len(), 4, "{contents:?}");
    assert_eq!(contents.iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "{contents:?}");
    let kept = pair.a.ok(&["conflicts", "resolve", "Notes:photo.bin"]);
    assert_eq!(kept["schema"], "sealtide/conflict_resolve/1");
    for machine in [&pair.a, &pair.b] {
        until("the conflict is gone", || match listed(machine).as_slice() {
            [] => Ok(()),
            other => Err(format!("{other:?} {}", machine.told())),
        });
    }
    pair.agree_and_verify();
    pair.a.ok(&["sync", "--wait"]);
    pair.a.fails(&["conflicts", "resolve", "Notes:photo.bin"], 2, "no_conflict");
}

/// A file of one name made on both sides with different content: both stay, one under another name.
#[test]
fn two_files_of_one_name_both_stay() {
    let pair = part_and_meet(
        |notes| write(notes, "other.md", "other\n"),
        |pair| write(&pair.a.notes(), "plan.md", "plan of a\n"),
        |pair| write(&pair.b.notes(), "plan.md", "plan of b\n"),
    );
    let agreed = until("both files are on both sides", || {
        let agreed = agree(&pair.a, &pair.b);
        if agreed.0.len() == 3 { Ok(agreed) } else { Err(format!("{:?} {}", agreed.paths(), pair.a.told())) }
    });
    let alias = agreed.paths().into_iter().find(|path| path.starts_with("plan (")).expect("an alias").to_owned();
    assert!(alias.ends_with(").md"), "{alias}");
    let mut texts = [text(&pair.a, "plan.md"), text(&pair.a, &alias)];
    texts.sort();
    assert_eq!(texts, ["plan of a\n", "plan of b\n"]);
    for machine in [&pair.a, &pair.b] {
        until("it is listed", || {
            let listed = machine.ok(&["conflicts", "list"])["conflicts"].clone();
            if listed[0]["kind"] == "path" && listed[0]["alias"] == alias.as_str() {
                Ok(())
            } else {
                Err(listed.to_string())
            }
        });
    }
    // The file under the alias is that timeline: editing it works, and renaming it settles the matter.
    write(&pair.b.notes(), &alias, "edited under its alias\n");
    until("the edit arrives", || {
        if text(&pair.a, &alias) == "edited under its alias\n" { Ok(()) } else { Err(pair.a.told()) }
    });
    fs::rename(pair.a.notes().join(&alias), pair.a.notes().join("plan-2.md")).unwrap();
    until("no conflict is left", || {
        let listed = pair.b.ok(&["conflicts", "list"])["conflicts"].clone();
        if listed.as_array().unwrap().is_empty() { Ok(()) } else { Err(listed.to_string()) }
    });
    let agreed = pair.agree_and_verify();
    assert_eq!(agreed.paths(), ["other.md", "plan-2.md", "plan.md"]);
}

/// A file of one name and the same content made on both sides is one file.
// Proves: SY-105
#[test]
fn equal_files_of_one_name_are_one() {
    let pair = part_and_meet(
        |notes| write(notes, "other.md", "other\n"),
        |pair| write(&pair.a.notes(), "plan.md", "the same plan\n"),
        |pair| write(&pair.b.notes(), "plan.md", "the same plan\n"),
    );
    until("one file of that name", || {
        let agreed = agree(&pair.a, &pair.b);
        let settled = [&pair.a, &pair.b].iter().all(|machine| machine.run(&["status", "--check"]).code == 0);
        if agreed.paths() == ["other.md", "plan.md"] && settled { Ok(()) } else { Err(pair.a.told()) }
    });
    assert_eq!(pair.a.ok(&["conflicts", "list"])["conflicts"].as_array().unwrap().len(), 0);
    // An edit afterwards is an edit, no conflict.
    write(&pair.b.notes(), "plan.md", "a better plan\n");
    until(
        "the edit arrives",
        || {
            if text(&pair.a, "plan.md") == "a better plan\n" { Ok(()) } else { Err(pair.a.told()) }
        },
    );
    pair.agree_and_verify();
    assert_eq!(pair.b.ok(&["conflicts", "list"])["conflicts"].as_array().unwrap().len(), 0);
}

/// One deletes a directory, the other works in it.
#[test]
fn work_in_a_directory_that_the_other_deletes() {
    let pair = part_and_meet(
        |notes| (0..5).for_each(|n| write(notes, &format!("dir/f{n}.md"), format!("{n}\n"))),
        |pair| fs::remove_dir_all(pair.a.notes().join("dir")).unwrap(),
        |pair| {
            write(&pair.b.notes(), "dir/f0.md", "edited\n");
            write(&pair.b.notes(), "dir/sub/new.md", "new\n");
        },
    );
    until("what was worked on stays", || {
        let agreed = agree(&pair.a, &pair.b);
        let paths = agreed.paths();
        if paths == ["dir/f0.md", "dir/sub/new.md"] { Ok(()) } else { Err(format!("{paths:?} {}", pair.a.told())) }
    });
    settle_one(&pair, "dir/f0.md");
    pair.agree_and_verify();
}

/// One makes a file, the other a directory of that name.
#[test]
fn a_file_against_a_directory() {
    let pair = part_and_meet(
        |notes| write(notes, "other.md", "other\n"),
        |pair| write(&pair.a.notes(), "thing", "a file\n"),
        |pair| write(&pair.b.notes(), "thing/inside.md", "in a directory\n"),
    );
    until("both are kept", || {
        let agreed = agree(&pair.a, &pair.b);
        let alias = agreed.paths().iter().any(|path| path.starts_with("thing ("));
        if alias && agreed.0.contains_key("thing/inside.md") { Ok(()) } else { Err(format!("{:?}", agreed.paths())) }
    });
    // Two files stand against each other, so `status --check` says conflict; the stores are sound.
    for machine in [&pair.a, &pair.b] {
        machine.ok(&["verify"]);
    }
}
