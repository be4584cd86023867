//! A space leaves in forms that need nothing of ours, and comes back with all its history.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Machine, until, write};

/// A space with everything in it, and two versions of one file.
pub(crate) fn filled() -> Machine {
    fill(Machine::new())
}

/// As [`filled`], beside what the folder holds.
pub(crate) fn fill(machine: Machine) -> Machine {
    let notes = machine.notes();
    write(&notes, "plan.md", "one\n");
    write(&notes, "run.sh", "#!/bin/sh\n");
    write(&notes, "deep/ly/nested \u{fc}.txt", "there\n");
    fs::set_permissions(notes.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let noise: Vec<u8> = (0..700_000u32).flat_map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::write(notes.join("big.bin"), &noise).unwrap();
    fs::write(notes.join("small.bin"), &noise[..1000]).unwrap();
    std::os::unix::fs::symlink("plan.md", notes.join("to plan")).unwrap();
    fs::create_dir(notes.join("bare")).unwrap();
    let mut node = machine.share();
    machine.recorded();
    write(&notes, "plan.md", "two\n");
    until("the second version is recorded", || {
        let log = machine.ok(&["log", "Notes:plan.md"]);
        if log["entries"].as_array().unwrap().len() == 2 { Ok(()) } else { Err(log.to_string()) }
    });
    let put = machine.run_with(&["put", "Notes", "to do/1"], r#"{"buy":["milk"]}"#);
    assert_eq!(put.code, 0, "{put:?}");
    node.stop();
    machine
}

pub(crate) fn out(machine: &Machine, name: &str) -> String {
    machine.root().join(name).to_str().unwrap().to_owned()
}

fn same_files(left: &Path, right: &Path) {
    let done = Command::new("diff").args(["--recursive", "--no-dereference"]).args([left, right]).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
fn a_directory_and_a_tar_hold_what_stands_in_the_space() {
    let machine = filled();
    let dir = out(&machine, "out");
    let done = machine.ok(&["export", "Notes", "--out", &dir]);
    assert_eq!(done["format"], "dir");
    same_files(&machine.notes(), &Path::new(&dir).join("files"));
    let script = fs::metadata(Path::new(&dir).join("files/run.sh")).unwrap();
    assert_eq!(script.permissions().mode() & 0o777, 0o755);
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let (there, here) = (time(&machine.notes().join("plan.md")), time(&Path::new(&dir).join("files/plan.md")));
    let apart = there.duration_since(here).unwrap_or_default();
    assert!(apart.as_millis() <= 1, "{apart:?}");
    let doc = fs::read_to_string(Path::new(&dir).join("documents/to%20do%2F1.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&doc).unwrap(), serde_json::json!({"buy": ["milk"]}));
    machine.fails(&["export", "Notes", "--out", &dir], 2, "exists");
    let tar = out(&machine, "out.tar");
    machine.ok(&["export", "Notes", "--format", "tar", "--out", &tar]);
    let unpacked = machine.root().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    assert!(Command::new("tar").arg("xf").arg(&tar).arg("-C").arg(&unpacked).status().unwrap().success());
    same_files(Path::new(&dir), &unpacked);
    machine.fails(&["export", "Nothing", "--out", &out(&machine, "x")], 2, "no_space");
}

#[test]
fn lines_bring_the_whole_history_back() {
    let machine = filled();
    let lines = out(&machine, "out.jsonl");
    machine.ok(&["export", "Notes", "--format", "jsonl", "--out", &lines]);
    let text = fs::read_to_string(&lines).unwrap();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    let other = Machine::new();
    other.ok(&["init"]);
    let taken = other.ok(&["import", &lines]);
    assert_eq!(taken["name"], "Notes");
    assert_eq!(
        taken["records"].as_u64().unwrap() as usize,
        text.lines().filter(|line| line.starts_with("{\"ib\"")).count()
    );
    let history = |machine: &Machine| -> Vec<Value> {
        let log = machine.ok(&["log", "Notes:plan.md"]);
        log["entries"].as_array().unwrap().iter().map(|entry| entry["address"].clone()).collect()
    };
    assert_eq!(history(&other), history(&machine));
    assert_eq!(history(&machine).len(), 2);
    other.ok(&["verify", "Notes"]);
    let dir = out(&other, "back");
    other.ok(&["export", "Notes", "--out", &dir]);
    same_files(&machine.notes(), &Path::new(&dir).join("files"));
    other.fails(&["import", &lines], 2, "space_here");
    // And once more, byte for byte.
    let again = out(&other, "again.jsonl");
    other.ok(&["export", "Notes", "--format", "jsonl", "--out", &again]);
    assert!(fs::read_to_string(&again).unwrap() == text);
}

#[test]
fn lines_that_were_changed_are_refused_and_nothing_of_them_stays() {
    let machine = filled();
    let lines = out(&machine, "out.jsonl");
    machine.ok(&["export", "Notes", "--format", "jsonl", "--out", &lines]);
    let text = fs::read_to_string(&lines).unwrap();
    let other = Machine::new();
    other.ok(&["init"]);
    let chunk = text.lines().find(|line| line.starts_with("{\"chunk\"")).unwrap();
    let named = text.lines().find(|line| line.starts_with("{\"ib\":\"file\"")).unwrap();
    let odd_chunk = chunk.replacen("\"base64\":\"", "\"base64\":\"AAAA", 1);
    for (what, changed) in [
        ("another text", text.replace("two\\n", "six\\n")),
        ("another chunk", text.replace(chunk, &odd_chunk)),
        ("no record that others name", text.replace(&format!("{named}\n"), "")),
        ("no JSON", text.replacen("{\"ib\"", "{\"ib", 1)),
        ("another schema", text.replacen("sealtide/export/1", "sealtide/export/9", 1)),
        ("nothing", String::new()),
    ] {
        assert!(changed != text, "{what}");
        fs::write(&lines, &changed).unwrap();
        other.fails(&["import", &lines], 5, "import");
        assert_eq!(other.ok(&["spaces", "list"])["spaces"], serde_json::json!([]), "{what}");
    }
    fs::write(&lines, &text).unwrap();
    other.ok(&["import", &lines]);
}
