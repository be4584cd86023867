//! What was put in place stands there after a power cut: it was on the disk before it got its name, and the name is on the disk after.
//! Only the system calls tell.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::releases::Publisher;
use crate::support::Machine;

/// One call that succeeded.
#[derive(Debug)]
enum Call {
    /// A file or directory was brought to the disk.
    Synced(PathBuf),
    /// A whole file system was.
    AllSynced,
    /// Something got this name.
    Named { from: PathBuf, to: PathBuf },
}

const CALLS: &str = "fsync,fdatasync,syncfs,rename,renameat,renameat2,link,linkat";

/// The calls in the order in which they ended.
fn calls(trace: &str) -> Vec<Call> {
    let mut begun = std::collections::BTreeMap::new();
    let mut calls = Vec::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            begun.insert(thread, begin.trim_end().to_owned());
            continue;
        }
        let whole = match rest.split_once(" resumed>") {
            Some((_, end)) => begun.remove(thread).unwrap_or_default() + end,
            None => rest.to_owned(),
        };
        let Some((call, told)) = whole.rsplit_once(" = ") else { continue };
        let Some((name, words)) = call.trim_end().split_once('(') else { continue };
        if told.trim() != "0" {
            continue;
        }
        // Of a descriptor `5</its/path>`, of a path `"/path"`, below a directory `7</dir>, "name"`.
        let mut paths = Vec::new();
        let mut dir = PathBuf::new();
        for word in words.trim_end_matches(')').split(", ") {
            if let Some(path) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) {
                paths.push(dir.join(path));
            } else if let Some((_, path)) = word.split_once('<') {
                dir = PathBuf::from(path.trim_end_matches('>'));
            }
        }
        calls.push(match name {
            "fsync" | "fdatasync" => Call::Synced(dir),
            "syncfs" => Call::AllSynced,
            _ => {
                let [from, to] = <[PathBuf; 2]>::try_from(paths).unwrap();
                Call::Named { from, to }
            }
        });
    }
    calls
}

/// What got a name below a place without being on the disk, and the names that are not.
fn unsynced(calls: &[Call], below: &Path) -> (usize, Vec<String>) {
    let (mut names, mut found) = (0, Vec::new());
    let synced = |calls: &[Call], path: &Path| {
        calls.iter().any(|call| match call {
            Call::Synced(synced) => synced == path,
            Call::AllSynced => true,
            Call::Named { .. } => false,
        })
    };
    for (at, call) in calls.iter().enumerate() {
        let Call::Named { from, to } = call else { continue };
        if !to.starts_with(below) {
            continue;
        }
        names += 1;
        if !synced(&calls[..at], from) {
            found.push(format!("{} before it became {}", from.display(), to.display()));
        }
        if !synced(&calls[at..], to.parent().unwrap()) {
            found.push(format!("the name {}", to.display()));
        }
    }
    (names, found)
}

#[test]
fn what_gets_a_name_is_on_the_disk() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed; `make setup` does it");
        return;
    }
    let publisher = Publisher::new();
    publisher.machine.ok(&["init"]);
    publisher.publish("1.0.0");
    let (bundle, trust) = (publisher.bundle("1.0.0"), publisher.trust("1.0.0"));
    let machine = Machine::new();
    let (home, to) = (machine.home(), machine.root().join("opt"));
    let (copy, restored) = (machine.root().join("copy.stb"), machine.root().join("restored"));
    std::fs::create_dir(&to).unwrap();
    let to = to.join("kiosk");
    let (copy, to_text) = (copy.to_str().unwrap(), to.to_str().unwrap());
    let install = ["release", "install", &bundle, "--to", to_text, "--trust", &trust];
    for (home, args, input) in [
        (&home, &["init"][..], None),
        (&home, &["spaces", "create", "Data"], None),
        (&home, &["put", "Data", "settings"], Some("{\"a\": 1}")),
        (&home, &["backup", "create", copy], None),
        (&restored, &["backup", "restore", copy], None),
        (&home, &install, None),
    ] {
        let file = machine.root().join("trace");
        machine.traced(CALLS, &file, home, args, input);
        let calls = calls(&std::fs::read_to_string(file).unwrap());
        let (names, found) = unsynced(&calls, machine.root());
        assert!(found.is_empty(), "{args:?}: not on the disk: {found:#?}\n{calls:#?}");
        println!("{args:?}: {} calls, {names} names", calls.len());
        let puts_in_place = ["init", "restore", "install"].iter().any(|word| args.contains(word));
        assert!(names > 0 || !puts_in_place, "{args:?}: nothing got a name: {calls:#?}");
        assert!(calls.iter().any(|call| !matches!(call, Call::Named { .. })), "{args:?}: nothing was synced");
    }
}
