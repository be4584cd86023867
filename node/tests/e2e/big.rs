//! The whole story once, with the amounts that people have.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Dice, Machine, Pair, assert_same, snapshot, until_within, watch, write};

/// The amounts of the story, and patience enough for them on a machine that does other things too.
const SMALL_FILES: usize = 20_000;
const RENAMED_FILES: usize = 2_000;
const FILM_BYTES: usize = 300_000_000;
const PATIENCE: Duration = Duration::from_secs(600);

/// Prints how long each chapter took; nothing depends on it.
struct Chapters(Instant);

impl Chapters {
    fn done(&mut self, what: &str, pair: &Pair) {
        let mib = |bytes: u64| bytes >> 20;
        println!(
            "{:7.1} s  {what}; memory peak {} and {} MiB, {} and {} open files",
            self.0.elapsed().as_secs_f64(),
            mib(pair.node_a.memory().1),
            mib(pair.node_b.memory().1),
            pair.node_a.open_files(),
            pair.node_b.open_files()
        );
        self.0 = Instant::now();
    }
}

fn fill(notes: &Path) {
    let mut dice = Dice::new(1);
    for n in 0..SMALL_FILES {
        let below = if n < RENAMED_FILES { "album".to_owned() } else { format!("d{}/e{}", n % 20, n % 7) };
        write(notes, &format!("{below}/f{n}.txt"), dice.text());
    }
    write(notes, "empty.txt", "");
    fs::create_dir_all(notes.join("empty/dir")).unwrap();
    write(notes, "naïve/山と川/файл.txt", "unicode\n");
    write(notes, "with^caret", "caret\n");
    write(notes, "bin/run.sh", "#!/bin/sh\necho hi\n");
    fs::set_permissions(notes.join("bin/run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../bin/run.sh", notes.join("bin/link")).unwrap();
    symlink("/nowhere/at all", notes.join("dangling")).unwrap();
    write(notes, "one-mib.bin", dice.bytes(1 << 20));
}

#[track_caller]
fn in_step(machine: &Machine) {
    until_within(PATIENCE, "status --check", || {
        let done = machine.run(&["status", "--check"]);
        if done.code == 0 { Ok(()) } else { Err(machine.told()) }
    });
}

/// Waits until both sides say that they are in step, and looks whether that is true.
#[track_caller]
fn agree(pair: &Pair) {
    until_within(PATIENCE, "both folders are equal", || {
        in_step(&pair.a);
        in_step(&pair.b);
        let (left, right) = (snapshot(&pair.a.notes()), snapshot(&pair.b.notes()));
        left.difference(&right).map_or(Ok(()), |difference| Err(format!("{difference}\n{}", pair.b.told())))
    });
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, meta)| if meta.is_dir() { bytes_below(&path) } else { meta.len() })
        .sum()
}

fn store_bytes(machine: &Machine) -> u64 {
    bytes_below(&machine.home().join("store"))
}

/// Two real processes keep a real tree in step, through edits on both sides, a rename of thousands of files, deletes,
/// and kills in the middle of transfers.
// Proves: SY-48, SY-96, SY-99
#[test]
fn two_nodes_keep_a_real_tree_in_step() {
    let mut chapters = Chapters(Instant::now());
    let (a, b) = (Machine::new(), Machine::new());
    fill(&a.notes());
    println!("{:7.1} s  the tree is made: {SMALL_FILES} small files", chapters.0.elapsed().as_secs_f64());
    chapters.0 = Instant::now();
    let node_a = a.share();
    let joined = b.ok(&["join", node_a.ticket(), b.notes_text(), "--wait"]);
    assert_eq!(joined["in_step"], true);
    let node_b = b.up(&[]);
    let mut pair = Pair { a, b, node_a, node_b };
    agree(&pair);
    chapters.done("shared, joined, in step", &pair);

    // A large file arrives at the first; the second is killed in the middle of its transfer.
    let before = store_bytes(&pair.b);
    let mut dice = Dice::new(2);
    write(&pair.a.notes(), "film.bin", dice.bytes(FILM_BYTES));
    watch("a good part of the film is on its way", || store_bytes(&pair.b) > before + FILM_BYTES as u64 / 4);
    pair.node_b.kill_9();
    let staged = store_bytes(&pair.b) - before;
    assert!(!pair.b.notes().join("film.bin").exists(), "the film was there before the kill: {staged} bytes staged");
    pair.node_b = pair.b.up(&[]);
    agree(&pair);
    let grown = store_bytes(&pair.b) - before;
    println!(
        "           killed with {} of {} MB staged; the store grew by {} MB in all",
        staged / 1_000_000,
        FILM_BYTES / 1_000_000,
        grown / 1_000_000
    );
    // What was staged before the kill was not sent again.
    assert!(grown < FILM_BYTES as u64 + FILM_BYTES as u64 / 5, "{grown}");
    chapters.done("a film, a kill, a restart, in step", &pair);

    // Both sides edit while both run.
    for n in 0..100 {
        write(&pair.a.notes(), &format!("d1/e{}/f{n}.txt", n % 7), format!("edited by a {n}\n"));
        write(&pair.b.notes(), &format!("d2/new-{n}.txt"), format!("made by b {n}\n"));
    }
    fs::set_permissions(pair.b.notes().join("with^caret"), fs::Permissions::from_mode(0o755)).unwrap();
    agree(&pair);
    chapters.done("edits on both sides", &pair);

    // A directory of thousands gets another name at one side, others go at the other.
    fs::rename(pair.b.notes().join("album"), pair.b.notes().join("photo album")).unwrap();
    for place in ["d3", "d4"] {
        fs::remove_dir_all(pair.a.notes().join(place)).unwrap();
    }
    // The first is killed while that goes on.
    watch("the rename is on its way", || pair.a.notes().join("photo album").exists());
    pair.node_a.kill_9();
    pair.node_a = pair.a.up(&[]);
    agree(&pair);
    chapters.done("a rename of a directory, deletes, a kill, a restart", &pair);

    let (left, right) = (snapshot(&pair.a.notes()), snapshot(&pair.b.notes()));
    assert_same(&left, &right);
    let album = left.paths().iter().filter(|path| path.starts_with("photo album/")).count();
    assert_eq!(album, RENAMED_FILES);
    assert!(!left.paths().iter().any(|path| path.starts_with("d3/") || path.starts_with("album/")));
    assert!(left.0.contains_key("d2/new-99.txt") && left.0.contains_key("empty/dir"));
    for machine in [&pair.a, &pair.b] {
        machine.ok(&["status", "--check"]);
        machine.ok(&["verify"]);
        let listed = machine.ok(&["conflicts", "list"]);
        assert_eq!(listed["conflicts"].as_array().unwrap().len(), 0, "{listed}");
    }
    chapters.done("verified", &pair);
}
