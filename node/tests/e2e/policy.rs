//! What a node does not do without a person: mass changes, strange directories, and what is paused.

use std::fs;

use crate::support::{Machine, Pair, agree, snapshot, until, write};

fn hundred() -> Pair {
    Pair::with(|notes| (0..100).for_each(|n| write(notes, &format!("{n}.md"), format!("{n}\n"))))
}

fn delete_sixty(pair: &Pair) {
    (0..60).for_each(|n| fs::remove_file(pair.a.notes().join(format!("{n}.md"))).unwrap());
    until("the other side holds it", || {
        let state = pair.b.space()["state"].clone();
        if state == "held" { Ok(()) } else { Err(pair.b.told()) }
    });
}

/// Sixty of a hundred files are deleted at one side: at the other they stay until a person says so.
#[test]
fn a_mass_change_waits_and_is_accepted() {
    let pair = hundred();
    pair.agree();
    assert_eq!(pair.b.ok(&["hold", "list"])["holds"].as_array().unwrap().len(), 0);
    pair.b.fails(&["hold", "accept", "Notes"], 1, "nothing_held");
    delete_sixty(&pair);
    assert_eq!(snapshot(&pair.b.notes()).0.len(), 100);
    let held = pair.b.ok(&["hold", "list"]);
    assert_eq!((&held["holds"][0]["removed"], &held["holds"][0]["total"]), (&60.into(), &100.into()), "{held}");
    let shown = pair.b.ok(&["hold", "show", "Notes"]);
    assert_eq!(shown["removed"].as_array().unwrap().len(), 60);
    pair.b.fails(&["status", "--check"], 8, "held");
    pair.b.fails(&["sync", "--wait"], 8, "held");
    let accepted = pair.b.ok(&["hold", "accept", "Notes"]);
    assert_eq!(accepted["accepted"], true);
    assert_eq!(pair.agree_and_verify().0.len(), 40);
    assert_eq!(pair.b.ok(&["hold", "list"])["holds"].as_array().unwrap().len(), 0);
}

/// The same, rejected: the files come back at the side that deleted them.
#[test]
fn a_mass_change_waits_and_is_rejected() {
    let pair = hundred();
    pair.agree();
    delete_sixty(&pair);
    // What comes meanwhile waits with it.
    write(&pair.a.notes(), "meanwhile.md", "meanwhile\n");
    let rejected = pair.b.ok(&["hold", "reject", "Notes"]);
    assert_eq!(rejected["accepted"], false);
    until("all is there again", || {
        let agreed = agree(&pair.a, &pair.b);
        if agreed.0.len() == 101 { Ok(()) } else { Err(format!("{} files; {}", agreed.0.len(), pair.b.told())) }
    });
    assert_eq!(fs::read_to_string(pair.a.notes().join("7.md")).unwrap(), "7\n");
    pair.agree_and_verify();
}

/// A folder that is emptied file by file is held as one that is emptied at once, also where the node starts again in between.
#[test]
fn many_small_removals_count_together() {
    let mut pair = Pair::with(|notes| (0..30).for_each(|n| write(notes, &format!("{n}.md"), format!("{n}\n"))));
    pair.agree();
    let remove = |pair: &Pair, n: usize| fs::remove_file(pair.a.notes().join(format!("{n}.md"))).unwrap();
    for n in 0..15 {
        // A rename takes nothing away.
        let (from, to) = (format!("{}.md", n + 15), format!("kept/{n}.md"));
        fs::create_dir_all(pair.a.notes().join("kept")).unwrap();
        fs::rename(pair.a.notes().join(from), pair.a.notes().join(to)).unwrap();
        remove(&pair, n);
        until("it is gone at the other side", || {
            if pair.b.notes().join(format!("{n}.md")).exists() { Err(pair.b.told()) } else { Ok(()) }
        });
    }
    pair.node_b.kill_9();
    pair.node_b = pair.b.up(&[]);
    pair.agree();
    fs::remove_file(pair.a.notes().join("kept/0.md")).unwrap();
    until("it is held", || if pair.b.space()["state"] == "held" { Ok(()) } else { Err(pair.b.told()) });
    assert_eq!(snapshot(&pair.b.notes()).0.len(), 15);
    let held = pair.b.ok(&["hold", "list"]);
    assert_eq!((&held["holds"][0]["removed"], &held["holds"][0]["gone"]), (&1.into(), &15.into()), "{held}");
    // Who agrees is not asked again for a while.
    pair.b.ok(&["hold", "accept", "Notes"]);
    fs::remove_file(pair.a.notes().join("kept/1.md")).unwrap();
    assert_eq!(pair.agree_and_verify().0.len(), 13);
}

/// Files that come and go, as tools make them, are asked about by nobody; others that go beside them are.
#[test]
fn files_that_come_and_go_are_no_mass_change() {
    let pair = Pair::with(|notes| (0..30).for_each(|n| write(notes, &format!("{n}.md"), format!("{n}\n"))));
    pair.agree();
    let object = |pair: &Pair, n: usize| pair.a.notes().join(format!("object {n}"));
    (0..40).for_each(|n| fs::write(object(&pair, n), format!("object {n}\n")).unwrap());
    assert_eq!(pair.agree().0.len(), 70);
    for part in [0..19, 19..40] {
        part.for_each(|n| fs::remove_file(object(&pair, n)).unwrap());
        pair.agree_and_verify();
    }
    // As something does that locks everything up: a new file for each, and the old one goes, a few at a time.
    for n in 0..16 {
        let (plain, locked) = (format!("{n}.md"), format!("{n}.md.locked"));
        write(&pair.a.notes(), &locked, format!("locked {n}\n"));
        fs::remove_file(pair.a.notes().join(&plain)).unwrap();
        until("it came", || {
            let came = pair.b.notes().join(&locked).exists() || pair.b.space()["state"] == "held";
            if came { Ok(()) } else { Err(pair.b.told()) }
        });
    }
    until("it is held", || if pair.b.space()["state"] == "held" { Ok(()) } else { Err(pair.b.told()) });
    assert!(pair.b.notes().join("15.md").exists());
}

/// Somebody who works on most files of a small folder while another is away is no mass change.
#[test]
fn edits_of_a_small_folder_wait_for_nobody() {
    let mut pair = Pair::with(|notes| (0..22).for_each(|n| write(notes, &format!("{n}.md"), format!("{n}\n"))));
    pair.agree();
    pair.node_b.kill_9();
    (0..20).for_each(|n| write(&pair.a.notes(), &format!("{n}.md"), format!("{n}, edited\n")));
    pair.node_b = pair.b.up(&[]);
    pair.agree_and_verify();
}

/// A hold outlives the process, and is shown without one.
#[test]
fn a_hold_outlives_the_process() {
    let mut pair = hundred();
    pair.agree();
    delete_sixty(&pair);
    pair.node_b.kill_9();
    let held = pair.b.ok(&["hold", "list"]);
    assert_eq!(held["holds"][0]["removed"], 60, "{held}");
    assert_eq!(snapshot(&pair.b.notes()).0.len(), 100);
    pair.node_b = pair.b.up(&[]);
    until("it is held again", || if pair.b.space()["state"] == "held" { Ok(()) } else { Err(pair.b.told()) });
    assert_eq!(snapshot(&pair.b.notes()).0.len(), 100);
    pair.b.ok(&["hold", "accept", "Notes"]);
    assert_eq!(pair.agree_and_verify().0.len(), 40);
}

#[test]
fn pause_and_resume() {
    let pair = Pair::with(|notes| write(notes, "plan.md", "plan\n"));
    pair.agree();
    pair.b.ok(&["pause", "Notes"]);
    assert_eq!(pair.b.space()["paused"], true);
    write(&pair.a.notes(), "while-paused-a.md", "a\n");
    write(&pair.b.notes(), "while-paused-b.md", "b\n");
    pair.a.recorded();
    // Nothing is waited for that must not come: the other side was asked and said no.
    until("the pause is felt at the other side", || {
        let peer = pair.a.space()["peers"][0].clone();
        if peer["in_step"] == false && peer["syncing"] == false { Ok(()) } else { Err(peer.to_string()) }
    });
    assert!(!pair.b.notes().join("while-paused-a.md").exists());
    pair.b.ok(&["resume"]);
    assert_eq!(pair.b.space()["paused"], false);
    until("both changes are on both sides", || {
        let agreed = agree(&pair.a, &pair.b);
        if agreed.0.len() == 3 { Ok(()) } else { Err(pair.a.told()) }
    });
    pair.agree_and_verify();
}

/// Joining a directory that holds something: what is equal is taken as it is, everything else is kept.
#[test]
fn joining_a_directory_that_is_not_empty() {
    let (a, b) = (Machine::new(), Machine::new());
    for n in 0..30 {
        write(&a.notes(), &format!("both/{n}.md"), format!("{n}\n"));
        write(&b.notes(), &format!("both/{n}.md"), format!("{n}\n"));
        // A copy that kept its time: a time alone is no change, so another one would stay as it is on both sides.
        let time = fs::metadata(a.notes().join(format!("both/{n}.md"))).unwrap().modified().unwrap();
        fs::File::options()
            .write(true)
            .open(b.notes().join(format!("both/{n}.md")))
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    write(&a.notes(), "only-a.md", "a\n");
    write(&b.notes(), "only-b.md", "b\n");
    write(&a.notes(), "differs.md", "as a has it\n");
    write(&b.notes(), "differs.md", "as b has it\n");
    let node_a = a.share();
    b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    let _node_b = b.up(&[]);
    let agreed = until("all of both is on both sides", || {
        let agreed = agree(&a, &b);
        if agreed.0.len() == 34 { Ok(agreed) } else { Err(format!("{:?} {}", agreed.paths(), b.told())) }
    });
    let alias = agreed.paths().into_iter().find(|path| path.starts_with("differs (")).expect("both kept");
    let mut texts = [alias, "differs.md"].map(|path| fs::read_to_string(a.notes().join(path)).unwrap());
    texts.sort();
    assert_eq!(texts, ["as a has it\n", "as b has it\n"]);
    a.ok(&["verify"]);
    b.ok(&["verify"]);
}

/// A directory of many files of which few are in the space is most likely the wrong one: nothing is changed without
/// `--yes`.
#[test]
fn joining_the_wrong_directory() {
    let (a, b) = (Machine::new(), Machine::new());
    (0..30).for_each(|n| write(&a.notes(), &format!("a{n}.md"), "a\n"));
    (0..30).for_each(|n| write(&b.notes(), &format!("b{n}.md"), "b\n"));
    let node_a = a.share();
    let before = snapshot(&b.notes());
    b.fails(&["join", node_a.ticket(), b.notes_text(), "--wait"], 8, "not_empty");
    assert!(before.difference(&snapshot(&b.notes())).is_none(), "nothing was changed");
    assert_eq!(snapshot(&a.notes()).0.len(), 30);
    // The same ticket again: it was this node that used it.
    b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait", "--yes"]);
    let _node_b = b.up(&[]);
    until("all of both", || {
        let agreed = agree(&a, &b);
        if agreed.0.len() == 60 { Ok(()) } else { Err(format!("{} files", agreed.0.len())) }
    });
}

/// Directories that lie inside each other, or around the home, cannot be shared.
#[test]
fn directories_inside_each_other() {
    let machine = Machine::new();
    fs::create_dir(machine.notes().join("sub")).unwrap();
    let mut node = machine.share();
    let inside = machine.notes().join("sub");
    let around = machine.root().to_str().unwrap();
    for dir in [inside.to_str().unwrap(), around] {
        machine.fails(&["up", dir], 2, "dir");
    }
    let in_home = machine.home().join("store");
    machine.fails(&["up", in_home.to_str().unwrap()], 2, "dir");
    // The same by another name, through a link.
    let link = machine.root().join("link");
    std::os::unix::fs::symlink(machine.notes(), &link).unwrap();
    let same = machine.ok(&["up", link.to_str().unwrap()]);
    assert_eq!(same["shared"][0]["name"], "Notes", "{same}");
    assert_eq!(machine.ok(&["spaces", "list"])["spaces"].as_array().unwrap().len(), 1);
    // And when no node runs: nothing is made of it.
    node.stop();
    let other = Machine::new();
    write(&other.notes(), "plan.md", "plan\n");
    let issuer = other.share();
    machine.fails(&["join", issuer.ticket(), inside.to_str().unwrap()], 2, "dir");
    machine.fails(&["join", issuer.ticket(), machine.notes_text()], 2, "dir_shared");
    let mut refused = machine.spawn(&[], &[around]);
    assert!(refused.wait_ready().is_err());
    let file = machine.root().join("file");
    fs::write(&file, "x").unwrap();
    machine.fails(&["join", issuer.ticket(), file.to_str().unwrap()], 2, "dir");
}
