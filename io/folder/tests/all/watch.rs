//! What a watcher reports. These tests wait for the system to tell, with a generous limit, never for a time to pass.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::Duration;

use crate::fixture::*;
use sealtide_folder::{Dirty, watch};

/// The reports of a watcher, read on a thread.
struct Reports(mpsc::Receiver<Dirty>);

impl Reports {
    fn of(case: &Case) -> Self {
        let mut watcher = watch(&case.root()).expect("watch");
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            while let Some(dirty) = watcher.blocking_next() {
                if sender.send(dirty).is_err() {
                    break;
                }
            }
        });
        Self(receiver)
    }

    /// Scans what is reported until the scans have found all of `expected`.
    fn scan_until(&self, case: &mut Case, expected: &[&str]) {
        let mut missing: BTreeSet<&str> = expected.iter().copied().collect();
        while !missing.is_empty() {
            let dirty = self.0.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("never reported: {missing:?}"));
            let scan = match dirty {
                Dirty::Paths(paths) => {
                    assert!(paths.iter().all(|path| !path.contains("sealtide-tmp")), "{paths:?}");
                    case.scan_only(Some(&paths.iter().map(String::as_str).collect::<Vec<_>>()))
                }
                other => panic!("{other:?}"),
            };
            for line in shown(&scan) {
                missing.remove(line.as_str());
            }
            for change in &scan.changes {
                case.folder.settle(change, timeline_of(&change.path), sid_of(&change.content)).expect("settle");
            }
        }
    }
}

#[test]
fn changes_of_every_kind_are_reported() {
    let mut case = Case::with(&tree([("a", file("1")), ("b", file("2")), ("c/d", file("3")), ("e", file("5"))]));
    let reports = Reports::of(&case);
    case.put("a", &file("11"));
    case.remove("b");
    case.rename("c", "c2");
    case.put("e", &program("5"));
    let expected = ["a: text \"11\"", "b: gone", "c2/d: text \"3\" from c/d", "e: text \"5\" exec"];
    reports.scan_until(&mut case, &expected);
    // Below a directory that was not there when the watch began.
    case.put("new/deep/er/x", &file("x"));
    reports.scan_until(&mut case, &["new/deep/er/x: text \"x\" new"]);
    case.put("new/deep/er/x", &file("y"));
    reports.scan_until(&mut case, &["new/deep/er/x: text \"y\""]);
    case.expect_settled();
}

#[test]
fn the_echo_of_a_check_out_is_no_change() {
    let mut case = Case::with(&tree([("a", file("1")), ("b", file("2")), ("c", file("3"))]));
    let reports = Reports::of(&case);
    let after = tree([("a", file("new")), ("d/e", file("4")), ("f", file("3"))]);
    let plan = case.plan(&after, &Tree::new(), &[("c", "f")]);
    let report = case.check_out(plan);
    assert_eq!((report.dirty.len(), report.skipped.len()), (0, 0));
    // The end of the echo: a change of somebody else, made after it.
    case.put("marker", &file("m"));
    let mut seen = false;
    while !seen {
        let Dirty::Paths(paths) = reports.0.recv_timeout(LIMIT).expect("a report") else { panic!("paths") };
        let scan = case.scan_only(Some(&paths.iter().map(String::as_str).collect::<Vec<_>>()));
        seen = paths.contains(&"marker".to_owned());
        let expected: &[&str] = if seen { &["marker: text \"m\" new"] } else { &[] };
        assert_eq!(shown(&scan), expected);
    }
}

#[test]
fn links_are_not_watched_through() {
    let case = Case::new();
    let other = case.outside().join("other");
    std::fs::create_dir(&other).expect("make");
    case.put("link", &link("../other"));
    let reports = Reports::of(&case);
    std::fs::write(other.join("x"), "1").expect("write");
    case.put("marker", &file("m"));
    let Dirty::Paths(paths) = reports.0.recv_timeout(LIMIT).expect("a report") else { panic!("paths") };
    assert_eq!(paths, ["marker"]);
}

#[test]
fn a_directory_that_is_not_there_cannot_be_watched() {
    let case = Case::new();
    assert!(watch(&case.at_path("nothing")).is_err());
}

const LIMIT: Duration = Duration::from_secs(30);

/// Root may read everything, so the test runs as somebody else.
fn is_nobody(test: &str) -> bool {
    const NOBODY: u32 = 65_534;
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let mut again = std::process::Command::new(std::env::current_exe().expect("its own path"));
    let again = std::os::unix::process::CommandExt::uid(&mut again, NOBODY);
    let status = again.args([test, "--exact"]).current_dir("/").status();
    assert!(status.expect("it runs again").success(), "as nobody");
    false
}

#[test]
fn a_directory_that_may_not_be_read_leaves_the_rest_watched() {
    if !is_nobody("watch::a_directory_that_may_not_be_read_leaves_the_rest_watched") {
        return;
    }
    let things = [("a/x", file("1")), ("locked/y", file("2")), ("z/deep/er", file("3"))];
    let mut case = Case::with(&tree(things));
    let locked = case.at_path("locked");
    let set_mode = |mode| {
        std::fs::set_permissions(&locked, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
    };
    set_mode(0);
    let denied = watch(&case.root()).expect("watch").denied().map(std::path::Path::to_owned);
    assert_eq!(denied, Some(locked.clone()));
    let reports = Reports::of(&case);
    case.put("a/x", &file("11"));
    case.put("z/deep/er", &file("33"));
    reports.scan_until(&mut case, &["a/x: text \"11\"", "z/deep/er: text \"33\""]);
    case.put("new/dir", &file("n"));
    reports.scan_until(&mut case, &["new/dir: text \"n\" new"]);
    set_mode(0o755);
}
