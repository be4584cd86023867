//! What `export` wrote, or any other tool, becomes a space: all of it or nothing, whatever stands in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::export::{fill, filled, out};
use crate::support::{Machine, assert_same, snapshot, until, write};

/// A home without spaces.
fn fresh() -> Machine {
    let machine = Machine::new();
    machine.ok(&["init"]);
    machine
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn has_no_space(machine: &Machine, what: &str) {
    assert_eq!(machine.ok(&["spaces", "list"])["spaces"], json!([]), "{what}");
}

/// The time of a path itself, in ms.
fn mtime_ms(path: &Path) -> i64 {
    use std::os::unix::fs::MetadataExt;
    let stat = fs::symlink_metadata(path).unwrap();
    stat.mtime() * 1000 + stat.mtime_nsec() / 1_000_000
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn an_export_comes_back_and_goes_out_the_same() {
    let machine = Machine::new();
    let notes = machine.notes();
    fs::create_dir(notes.join("empty")).unwrap();
    std::os::unix::fs::symlink("/nowhere/at all", notes.join("link")).unwrap();
    write(&notes, "old.txt", "before 1970\n");
    write(&notes, &format!("{}/{}.txt", "d".repeat(90), "long".repeat(50)), "a long name\n");
    set_mtime(&notes.join("empty"), 1_600_000_000, 123_000_000);
    set_mtime(&notes.join("link"), 1_500_000_000, 456_000_000);
    set_mtime(&notes.join("old.txt"), -2, 250_000_000);
    let machine = fill(machine);
    let dir = out(&machine, "out");
    machine.ok(&["export", "Notes", "--out", &dir]);
    let dir = PathBuf::from(dir);
    assert_eq!(mtime_ms(&dir.join("files/empty")), 1_600_000_000_123);
    assert_eq!(mtime_ms(&dir.join("files/link")), 1_500_000_000_456);
    assert_eq!(mtime_ms(&dir.join("files/old.txt")), -1750);
    let tar = out(&machine, "out.tar");
    machine.ok(&["export", "Notes", "--format", "tar", "--out", &tar]);
    // What other tools read in it.
    let unpacked = machine.root().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    assert!(Command::new("tar").arg("xf").arg(&tar).arg("-C").arg(&unpacked).status().unwrap().success());
    for path in ["files/empty", "files/link", "files/old.txt", "files/plan.md"] {
        assert_eq!(mtime_ms(&unpacked.join(path)), mtime_ms(&dir.join(path)), "{path}");
    }

    let other = fresh();
    let taken = other.ok(&["import", text(&dir)]);
    assert_eq!((&taken["name"], &taken["form"], &taken["documents"]), (&json!("out"), &json!("dir"), &json!(1)));
    let taken = other.ok(&["import", &tar, "--name", "From tar"]);
    assert_eq!((&taken["name"], &taken["form"], &taken["documents"]), (&json!("From-tar"), &json!("tar"), &json!(1)));
    assert_eq!(taken["files"].as_u64().unwrap() as usize, snapshot(&notes).0.len());
    for name in ["out", "From-tar"] {
        let back = out(&other, &format!("{name}-back"));
        other.ok(&["export", name, "--out", &back]);
        assert_same(&snapshot(&dir), &snapshot(Path::new(&back)));
        for path in ["files/empty", "files/link"] {
            assert_eq!(mtime_ms(&Path::new(&back).join(path)), mtime_ms(&dir.join(path)), "{name}, {path}");
        }
        let back = out(&other, &format!("{name}-back.tar"));
        other.ok(&["export", name, "--format", "tar", "--out", &back]);
        assert!(fs::read(&back).unwrap() == fs::read(&tar).unwrap(), "{name}: another tar");
        let doc = other.ok(&["get", &format!("{name}:to do/1")]);
        assert_eq!(doc["doc"], json!({"buy": ["milk"]}));
    }
    other.ok(&["verify"]);
}

/// A document whose name takes three bytes in the name of a file for each of its own, and a path of the 1,024 bytes that one may have.
#[test]
fn long_names_go_out_and_come_back() {
    let machine = Machine::new();
    let long = "d".repeat(255);
    let path = format!("{long}/{long}/{long}/{}/f.md", "d".repeat(251));
    assert_eq!(path.len(), 1024);
    write(&machine.notes(), &path, "deep\n");
    set_mtime(&machine.notes().join(&path), 1_600_000_000, 0);
    let mut node = machine.share();
    machine.recorded();
    let name = "план ".repeat(28);
    let put = machine.run_with(&["put", "Notes", &name], r#"{"buy":["milk"]}"#);
    assert_eq!(put.code, 0, "{put:?}");
    node.stop();
    let (dir, tar, unpacked) = (out(&machine, "out"), out(&machine, "out.tar"), out(&machine, "unpacked"));
    machine.ok(&["export", "Notes", "--out", &dir]);
    machine.ok(&["export", "Notes", "--format", "tar", "--out", &tar]);
    fs::create_dir(&unpacked).unwrap();
    assert!(Command::new("tar").args(["xf", &tar, "-C", &unpacked]).status().unwrap().success());
    let packed = out(&machine, "packed.tar");
    assert!(
        Command::new("tar").args(["cf", &packed, "-C", &unpacked, "files", "documents"]).status().unwrap().success()
    );
    let other = fresh();
    for (number, from) in [&dir, &tar, &unpacked, &packed].into_iter().enumerate() {
        let space = format!("s{number}");
        let taken = other.ok(&["import", from, "--name", &space]);
        assert_eq!((&taken["files"], &taken["documents"]), (&json!(1), &json!(1)), "{from}");
        assert_eq!(other.ok(&["get", &format!("{space}:{name}")])["doc"], json!({"buy": ["milk"]}), "{from}");
        let back = out(&other, &space);
        other.ok(&["export", &space, "--out", &back]);
        assert_same(&snapshot(Path::new(&dir)), &snapshot(Path::new(&back)));
    }
}

#[test]
fn an_imported_space_is_kept_in_a_directory() {
    let machine = filled();
    let dir = out(&machine, "out");
    machine.ok(&["export", "Notes", "--out", &dir]);
    let other = fresh();
    other.ok(&["import", &dir, "--name", "Notes"]);
    let listed = other.ok(&["spaces", "list"])["spaces"][0].clone();
    assert_eq!((&listed["kind"], &listed["role"], &listed["dir"]), (&json!("folder"), &json!("admin"), &Value::Null));
    let home = other.home();
    other.fails(&["spaces", "folder", "Notes", text(&home.join("in it"))], 2, "dir");
    other.fails(&["spaces", "folder", "Nothing", other.notes_text()], 2, "no_space");
    other.ok(&["spaces", "folder", "Notes", other.notes_text()]);
    assert_same(&snapshot(&machine.notes()), &snapshot(&other.notes()));
    // Twice is once, and a second directory is none.
    other.ok(&["spaces", "folder", "Notes", other.notes_text()]);
    other.fails(&["spaces", "folder", "Notes", &out(&other, "elsewhere")], 2, "has_folder");
    // From here on it is a shared folder like any other: what another node joins.
    let node = other.up(&[]);
    let third = Machine::new();
    let ticket = other.ok(&["ticket", "new", "--space", "Notes"])["ticket"].as_str().unwrap().to_owned();
    third.ok(&["join", &ticket, third.notes_text(), "--wait"]);
    let third_node = third.up(&[]);
    write(&other.notes(), "new.md", "written after the import\n");
    crate::support::agree(&other, &third);
    drop((node, third_node));
    // A directory with many other files waits for a person.
    let full = fresh();
    full.ok(&["import", &dir, "--name", "Notes"]);
    for n in 0..30 {
        write(&full.notes(), &format!("other/{n}"), format!("{n}\n"));
    }
    full.fails(&["spaces", "folder", "Notes", full.notes_text()], 8, "not_empty");
    full.ok(&["--yes", "spaces", "folder", "Notes", full.notes_text()]);
    assert!(full.notes().join("plan.md").is_file() && full.notes().join("other/29").is_file());
}

#[test]
fn what_other_tools_made_is_taken() {
    let machine = fresh();
    let tree = machine.root().join("tree");
    write(&tree, "a/b.txt", "b\n");
    write(&tree, &format!("{}/{}.txt", "deep/".repeat(40).trim_end_matches('/'), "long".repeat(60)), "long\n");
    write(&tree, "files/c.txt", "a directory that is only called so\n");
    write(&tree, "bytes", [0, 1, 2]);
    write(&tree, ".sealtideignore", "*.log\n");
    write(&tree, "out.log", "ignored in a folder\n");
    fs::create_dir(tree.join("none")).unwrap();
    std::os::unix::fs::symlink("a/b.txt", tree.join("link")).unwrap();
    machine.ok(&["import", text(&tree)]);
    let there = snapshot(&tree);
    let back = |name: &str| {
        let back = out(&machine, &format!("{name}-back"));
        machine.ok(&["export", name, "--out", &back]);
        snapshot(&Path::new(&back).join("files"))
    };
    assert_same(&there, &back("tree"));
    for format in ["gnu", "pax"] {
        let tar = machine.root().join(format!("{format}.tar"));
        let made =
            Command::new("tar").args(["--format", format, "-cf"]).arg(&tar).arg("-C").arg(&tree).arg(".").status();
        assert!(made.unwrap().success());
        let taken = machine.ok(&["import", text(&tar)]);
        assert_eq!(taken["name"], *format);
        let mut expected = there.clone();
        if format == "gnu" {
            // Its headers have whole seconds.
            for entry in expected.0.values_mut() {
                if let crate::support::Entry::File { mtime_ms, .. } = entry {
                    *mtime_ms -= mtime_ms.rem_euclid(1000);
                }
            }
        }
        assert_same(&expected, &back(format));
    }
    // Nothing is a space too.
    let none = machine.root().join("nothing.tar");
    Builder::new(File::create(&none).unwrap()).finish().unwrap();
    assert_eq!(machine.ok(&["import", text(&none)])["files"], 0);
    machine.ok(&["verify"]);
}

/// A header with this name as it stands, whatever it is.
fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    header
}

type Tar<'a> = &'a mut Builder<Vec<u8>>;

fn file(tar: Tar<'_>, name: &[u8], content: &[u8]) {
    tar.append(&header(name, EntryType::Regular, content.len() as u64), content).unwrap();
}

fn link(tar: Tar<'_>, name: &[u8], kind: EntryType, to: &str) {
    let mut header = header(name, kind, 0);
    header.set_link_name_literal(to).unwrap();
    header.set_cksum();
    tar.append(&header, &[][..]).unwrap();
}

/// What a hostile tar holds, and what the refusal names.
#[expect(clippy::type_complexity, reason = "a table")]
fn hostile() -> Vec<(&'static str, &'static str, Box<dyn Fn(Tar<'_>)>)> {
    vec![
        ("up", "../out", Box::new(|tar| file(tar, b"../out", b"x"))),
        ("up within", "a/../../b", Box::new(|tar| file(tar, b"a/../../b", b"x"))),
        ("absolute", "/etc/passwd", Box::new(|tar| file(tar, b"/etc/passwd", b"x"))),
        ("absolute behind a dot", ".//etc/passwd", Box::new(|tar| file(tar, b".//etc/passwd", b"x"))),
        ("no UTF-8", "\u{fffd}", Box::new(|tar| file(tar, b"\xff", b"x"))),
        ("reserved", ".sealtide-tmp-1", Box::new(|tar| file(tar, b".sealtide-tmp-1", b"x"))),
        (
            "twice",
            "a",
            Box::new(|tar| {
                file(tar, b"a", b"x");
                file(tar, b"./a", b"y");
            }),
        ),
        (
            "through a link",
            "out/passwd",
            Box::new(|tar| {
                link(tar, b"out", EntryType::Symlink, "/etc");
                file(tar, b"out/passwd", b"x");
            }),
        ),
        (
            "through a link that comes later",
            "out/passwd",
            Box::new(|tar| {
                file(tar, b"out/passwd", b"x");
                link(tar, b"out", EntryType::Symlink, "/etc");
            }),
        ),
        (
            "below a file",
            "a/b",
            Box::new(|tar| {
                file(tar, b"a", b"x");
                file(tar, b"a/b", b"x");
            }),
        ),
        ("hard link", "hard", Box::new(|tar| link(tar, b"hard", EntryType::Link, "/etc/passwd"))),
        ("link to nothing", "empty", Box::new(|tar| link(tar, b"empty", EntryType::Symlink, ""))),
        ("device", "dev", Box::new(|tar| tar.append(&header(b"dev", EntryType::Char, 0), &[][..]).unwrap())),
        ("pipe", "pipe", Box::new(|tar| tar.append(&header(b"pipe", EntryType::Fifo, 0), &[][..]).unwrap())),
        (
            "sparse",
            "holes",
            Box::new(|tar| {
                let mut header = header(b"holes", EntryType::GNUSparse, 0);
                header.as_gnu_mut().unwrap().set_real_size(0);
                header.set_cksum();
                tar.append(&header, &[][..]).unwrap();
            }),
        ),
        (
            "sparse by a note",
            "holes",
            Box::new(|tar| {
                tar.append_pax_extensions([("GNU.sparse.major", &b"1"[..])]).unwrap();
                file(tar, b"holes", b"x");
            }),
        ),
        (
            "a note with an escape",
            "../out",
            Box::new(|tar| {
                tar.append_pax_extensions([("path", &b"../out"[..])]).unwrap();
                file(tar, b"fine", b"x");
            }),
        ),
        (
            "a long name with a NUL",
            "a\\0b",
            Box::new(|tar| {
                tar.append(&header(b"././@LongLink", EntryType::GNULongName, 4), &b"a\0b\0"[..]).unwrap();
                file(tar, b"fine", b"x");
            }),
        ),
        (
            "a name without end",
            "behind good",
            Box::new(|tar| {
                let name = vec![b'n'; 8 << 20];
                tar.append(&header(b"././@LongLink", EntryType::GNULongName, 8 << 20), &name[..]).unwrap();
                file(tar, b"fine", b"x");
            }),
        ),
        (
            "too long a name",
            "nnnn",
            Box::new(|tar| {
                tar.append(&header(b"././@LongLink", EntryType::GNULongName, 300), &[b'n'; 300][..]).unwrap();
                file(tar, b"fine", b"x");
            }),
        ),
        (
            "notes for all",
            "pax_global_header",
            Box::new(|tar| {
                let note = b"13 path=evil\n";
                tar.append(&header(b"pax_global_header", EntryType::XGlobalHeader, note.len() as u64), &note[..])
                    .unwrap();
                file(tar, b"fine", b"x");
            }),
        ),
        ("another kind", "odd", Box::new(|tar| tar.append(&header(b"odd", EntryType::new(b'M'), 0), &[][..]).unwrap())),
        (
            "more than there is",
            "huge",
            Box::new(|tar| {
                tar.append(&header(b"huge", EntryType::Regular, 1 << 60), &b"x"[..]).unwrap();
            }),
        ),
        (
            "no document",
            "documents/a.txt",
            Box::new(|tar| {
                file(tar, b"files/a", b"x");
                file(tar, b"documents/a.txt", b"{}");
            }),
        ),
        (
            "a document that is a link",
            "documents/a.json",
            Box::new(|tar| {
                link(tar, b"documents/a.json", EntryType::Symlink, "/etc/passwd");
            }),
        ),
        ("no JSON", "documents/a.json", Box::new(|tar| file(tar, b"documents/a.json", b"{"))),
        (
            "two documents of one name",
            "documents/ab.json",
            Box::new(|tar| {
                file(tar, b"documents/%61b.json", b"{}");
                file(tar, b"documents/ab.json", b"{}");
            }),
        ),
        ("an empty name", "documents/.json", Box::new(|tar| file(tar, b"documents/.json", b"{}"))),
    ]
}

#[test]
fn hostile_tars_are_refused_by_name_and_nothing_of_them_stays() {
    let machine = fresh();
    let path = machine.root().join("hostile.tar");
    for (what, named, make) in hostile() {
        let mut tar = Builder::new(Vec::new());
        // Something good first: it must not stay either.
        file(&mut tar, if named.starts_with("documents/") { b"files/good" } else { b"good" }, b"good\n");
        make(&mut tar);
        fs::write(&path, tar.into_inner().unwrap()).unwrap();
        let refused = machine.fails(&["import", text(&path)], 5, "import");
        let message = refused["message"].as_str().unwrap();
        assert!(message.contains(named), "{what}: {message}");
        has_no_space(&machine, what);
    }
    // One that was cut, anywhere.
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, b"first", &[1; 3000]);
    file(&mut tar, b"second", b"x");
    let whole = tar.into_inner().unwrap();
    for length in [512, 600, 512 + 3072, 512 + 3072 + 100, 512 + 3072 + 512, 512 + 3072 + 513, whole.len() - 1024] {
        fs::write(&path, &whole[..length]).unwrap();
        machine.fails(&["import", text(&path)], 5, "import");
        has_no_space(&machine, &format!("cut at {length}"));
    }
    fs::write(&path, &whole).unwrap();
    machine.ok(&["import", text(&path)]);
    // What is no tar, no lines and no directory says what it is.
    let packed = machine.root().join("packed.tar.gz");
    fs::write(&packed, [&b"\x1f\x8b\x08"[..], &[0; 600]].concat()).unwrap();
    let refused = machine.fails(&["import", text(&packed)], 5, "import");
    assert!(refused["hint"].as_str().unwrap().contains("gunzip"), "{refused}");
    machine.fails(&["import", text(&machine.root().join("nothing"))], 2, "import");
}

#[test]
fn hostile_directories_are_refused_by_name_and_nothing_of_them_stays() {
    let machine = fresh();
    let refuses = |what: &str, named: &str, make: &dyn Fn(&Path)| {
        let dir = machine.root().join(what);
        fs::create_dir(&dir).unwrap();
        write(&dir, "files/good", "good\n");
        make(&dir);
        let refused = machine.fails(&["import", text(&dir)], 5, "import");
        assert!(refused["message"].as_str().unwrap().contains(named), "{what}: {refused}");
        has_no_space(&machine, what);
    };
    let pipe = |path: PathBuf| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    refuses("pipe", "tube", &|dir| pipe(dir.join("files/tube")));
    refuses("document that is a pipe", "documents/a.json", &|dir| {
        fs::create_dir(dir.join("documents")).unwrap();
        pipe(dir.join("documents/a.json"));
    });
    refuses("document that is a link", "documents/a.json", &|dir| {
        fs::create_dir(dir.join("documents")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.join("documents/a.json")).unwrap();
    });
    refuses("no document", "documents/a", &|dir| write(dir, "documents/a/b.json", "{}"));
    refuses("no JSON", "documents/a.json", &|dir| write(dir, "documents/a.json", "{"));
    refuses("too large", "documents/a.json", &|dir| {
        write(dir, "documents/a.json", format!("\"{}\"", "n".repeat(800_000)));
    });
    let home = machine.home();
    machine.fails(&["import", text(&home)], 2, "dir");
    machine.fails(&["import", text(machine.root())], 2, "dir");
    has_no_space(&machine, "the home");
}

#[test]
fn an_import_that_is_killed_leaves_nothing_and_works_the_next_time() {
    let source = fresh();
    let tree = source.root().join("Many");
    for n in 0..2500 {
        write(&tree, &format!("{}/{n}.md", n % 7), format!("{n}\n"));
    }
    write(&tree, "film.bin", crate::support::Dice::new(7).bytes(3_000_000));
    let tar = source.root().join("Many.tar");
    let made = Command::new("tar").args(["--format", "pax", "-cf"]).arg(&tar).arg("-C").arg(&tree).arg(".").status();
    assert!(made.unwrap().success());
    source.ok(&["import", text(&tree)]);
    let lines = source.root().join("Many.jsonl");
    source.ok(&["export", "Many", "--format", "jsonl", "--out", text(&lines)]);
    for form in [&tree, &tar, &lines] {
        let machine = fresh();
        for point in ["import_commit:1", "import_commit:2", "import_filled:1"] {
            let died = machine.run_in(&[("SEALTIDE_FAILPOINT", point)], &["import", text(form)]);
            assert_eq!(died.code, -6, "{form:?}, {point}: {died:?}");
            has_no_space(&machine, point);
        }
        // The name is free again, and the space of the lines is not taken for one that is here.
        assert_eq!(machine.ok(&["import", text(form)])["name"], "Many", "{form:?}");
        machine.ok(&["spaces", "folder", "Many", machine.notes_text()]);
        assert_same(&snapshot(&tree), &snapshot(&machine.notes()));
        machine.ok(&["verify"]);
        let spaces = machine.ok(&["spaces", "list"])["spaces"].as_array().unwrap().len();
        assert_eq!(spaces, 1, "{form:?}");
    }
}

#[test]
fn a_running_node_imports_and_shows_it() {
    let machine = fresh();
    let tree = machine.root().join("tree");
    write(&tree, "a.md", "a\n");
    let mut node = machine.up(&[]);
    machine.ok(&["import", text(&tree)]);
    until("the space is there", || {
        let status = machine.ok(&["status"]);
        if status["spaces"][0]["name"] == "tree" { Ok(()) } else { Err(status.to_string()) }
    });
    let dir = machine.notes();
    machine.ok(&["spaces", "folder", "tree", text(&dir)]);
    write(&dir, "b.md", "b\n");
    until("the change is recorded", || {
        let listed = machine.ok(&["get", "tree"]);
        if listed["names"] == json!(["a.md", "b.md"]) { Ok(()) } else { Err(listed.to_string()) }
    });
    node.stop();
    // And the folder is opened again by the next start.
    let node = machine.up(&[]);
    write(&dir, "c.md", "c\n");
    until("the change is recorded", || {
        let listed = machine.ok(&["get", "tree"]);
        if listed["names"] == json!(["a.md", "b.md", "c.md"]) { Ok(()) } else { Err(listed.to_string()) }
    });
    drop(node);
}
