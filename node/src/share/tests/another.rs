//! Another directory where the known one was.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use super::*;

impl Rig {
    /// Looks again and again, as the thread does, until the directory that stands there now is taken; then at all of it.
    fn look_until_taken(&mut self) {
        let mut round = Round { full: true, ..Round::default() };
        while self.worker.step(&mut round).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(self.worker.follow_root(&mut round), "another directory was taken");
        self.worker.step(&mut round).unwrap();
    }
}

/// A copy takes the place of the directory, in one step: the watch goes to it, and it is looked through.
#[test]
fn the_watch_follows_a_directory_that_takes_the_place_of_another() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    assert!(!rig.worker.follow_root(&mut Round::default()));
    let [copy, aside] = ["copy", "aside"].map(|name| rig.root.with_extension(name));
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(rig.root.join("a"), copy.join("a")).unwrap();
    std::fs::rename(&rig.root, &aside).unwrap();
    std::fs::rename(&copy, &rig.root).unwrap();
    let mut round = Round { full: true, ..Round::default() };
    assert!(rig.worker.step(&mut round).is_err(), "more may come to it");
    while rig.worker.step(&mut round).is_err() {
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut round = Round::default();
    assert!(rig.worker.follow_root(&mut round));
    assert!(round.full && rig.worker.watching.is_some());
    assert!(!rig.worker.follow_root(&mut Round::default()), "once");
    std::fs::remove_dir_all(&aside).unwrap();
}

/// `mv D D.old; cp -a D.old D`, of which more than half is made; and as for a reader, nothing of it is in anybody's way.
#[test]
fn what_a_copy_of_the_directory_lacks_comes_back_and_what_it_has_is_no_edit() {
    for role in [Role::Admin, Role::Read] {
        let mut rig = Rig::new(role);
        let files: Vec<String> = (0..6).map(|n| format!("f{n}")).collect();
        rig.arrives(
            files.iter().map(|path| frame(path, path).genesis(later(), &uuid(&mut OsEntropy)).unwrap()).collect(),
        );
        rig.look();
        assert_eq!(rig.names(), files);
        let records = rig.worker.view.info().unwrap().records;
        let aside = rig.root.with_extension("aside");
        std::fs::rename(&rig.root, &aside).unwrap();
        std::fs::create_dir(&rig.root).unwrap();
        for path in &files[..4] {
            std::fs::copy(aside.join(path), rig.root.join(path)).unwrap();
        }
        rig.look_until_taken();
        assert_eq!(rig.names(), files, "{role:?}");
        assert_eq!(rig.worker.view.info().unwrap().records, records, "nothing was deleted or edited: {role:?}");
        assert!(rig.status().local_only.is_empty(), "{role:?}");
        std::fs::remove_dir_all(&aside).unwrap();
    }
}

/// A disk with what the directory held some time ago is mounted over what was checked out below it.
#[test]
fn an_old_disk_that_is_mounted_edits_and_deletes_nothing() {
    let mut rig = Rig::new(Role::Admin);
    let first: Vec<Verified> = ["a", "b", "c"]
        .map(|path| frame(path, "old").genesis(Stamp { ms: 5_000 }, &uuid(&mut OsEntropy)).unwrap())
        .into();
    rig.arrives(first.clone());
    rig.write("mine", "old");
    let disk = rig.root.with_extension("disk");
    assert!(std::process::Command::new("cp").arg("-a").args([&rig.root, &disk]).status().unwrap().success());
    std::fs::write(disk.join("c"), "edited on the disk").unwrap();
    let newer = |first: &Verified| {
        let path = FileFrame::read(first).unwrap().path;
        FileFrame { mtime: 6_000, ..frame(&path, "new") }.evolve(first, Stamp { ms: 6_000 }).unwrap()
    };
    rig.arrives(first.iter().map(newer).collect());
    rig.arrives(vec![frame("added", "new").genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    rig.write("mine", "new");
    std::fs::rename(&rig.root, rig.root.with_extension("below")).unwrap();
    std::fs::rename(&disk, &rig.root).unwrap();
    rig.look_until_taken();
    for path in ["a", "b", "c", "mine", "added"] {
        assert_eq!(rig.text(path).as_deref(), Some("new"), "{path}");
    }
    assert!(
        ["a", "b", "mine", "added"].iter().all(|path| rig.at(path).1.len() == 1),
        "nothing was made on an old version"
    );
    let conflicts: Vec<_> = rig.status().conflicts.into_iter().map(|conflict| conflict.path).collect();
    assert_eq!(conflicts, ["c"], "what was edited on the disk is a second version");
    assert_eq!(rig.names().len(), 6, "{:?}", rig.names());
    std::fs::remove_dir_all(rig.root.with_extension("below")).unwrap();
}

/// `rsync -a` of last night's backup stood still for a while, and goes on when the rest was checked out: first with the times, then as an
/// archive that keeps seconds.
#[test]
fn what_a_backup_brings_after_the_directory_was_taken_is_no_edit() {
    let mut rig = Rig::new(Role::Admin);
    let old = |path: &str| FileFrame { mtime: 5_500, ..frame(path, "old") };
    let names = ["a", "b", "c", "d"];
    let first = names.map(|path| old(path).genesis(Stamp { ms: 5_500 }, &uuid(&mut OsEntropy)).unwrap());
    rig.arrives(first.to_vec());
    rig.look();
    let backup = rig.root.with_extension("backup");
    let copy = |from: &Path, to: &Path| {
        let copied = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    copy(&rig.root, &backup);
    let newer = |first: &Verified| {
        let path = FileFrame::read(first).unwrap().path;
        FileFrame { mtime: 6_500, ..frame(&path, "new") }.evolve(first, Stamp { ms: 6_500 }).unwrap()
    };
    rig.arrives(first.iter().map(newer).collect());
    rig.look();
    // What somebody puts back is an edit.
    copy(&backup.join("a"), &rig.root.join("a"));
    rig.look();
    assert_eq!(rig.text("a").as_deref(), Some("old"));
    rig.write("a", "new again");
    std::fs::remove_dir_all(&rig.root).unwrap();
    std::fs::create_dir(&rig.root).unwrap();
    ["a", "b"].iter().for_each(|name| copy(&backup.join(name), &rig.root.join(name)));
    rig.look_until_taken();
    let stand = |rig: &Rig| names.map(|name| rig.text(name).unwrap());
    assert_eq!(stand(&rig), ["new again", "new", "new", "new"]);
    let records = rig.worker.view.info().unwrap().records;
    ["b", "c", "d"].iter().for_each(|name| copy(&backup.join(name), &rig.root.join(name)));
    let seconds = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
    std::fs::File::options().write(true).open(rig.root.join("d")).unwrap().set_modified(seconds).unwrap();
    rig.look();
    assert_eq!(stand(&rig), ["new again", "new", "new", "new"]);
    assert_eq!(rig.worker.view.info().unwrap().records, records, "nothing was made of it");
    assert!(rig.status().conflicts.is_empty());
    rig.write("c", "edited");
    assert_eq!((rig.text("c").as_deref(), rig.at("c").1.len()), (Some("edited"), 1));
    // What was read while the file was written does not stand for the whole of it, whatever size it had by then.
    for half in ["ol", "xxx", "old and more"] {
        rig.write("d", half);
        copy(&backup.join("d"), &rig.root.join("d"));
        rig.look();
        assert_eq!((rig.text("d").as_deref(), rig.at("d").1.len()), (Some("old"), 1), "{half}");
    }
    std::fs::remove_dir_all(&backup).unwrap();
}

/// Right after a restore people go on working: a mode that is set back and a file that gets its old name again are no copies.
#[test]
fn what_people_take_back_after_the_directory_was_taken_stays_so() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("run", "script");
    rig.write("notes", "one");
    let (backup, root) = (rig.root.with_extension("backup"), rig.root.clone());
    let copied = std::process::Command::new("cp").arg("-a").args([&root, &backup]).status().unwrap();
    assert!(copied.success());
    std::fs::remove_dir_all(&root).unwrap();
    std::fs::rename(&backup, &root).unwrap();
    rig.look_until_taken();
    let set_mode = |mode| std::fs::set_permissions(root.join("run"), Permissions::from_mode(mode)).unwrap();
    let mode = || std::fs::metadata(root.join("run")).unwrap().permissions().mode() & 0o111;
    set_mode(0o755);
    rig.look();
    assert_eq!(mode(), 0o111);
    set_mode(0o644);
    rig.look();
    rig.look();
    assert_eq!(mode(), 0, "it was set back");

    std::fs::rename(root.join("notes"), root.join("notes.bak")).unwrap();
    std::fs::write(root.join("notes"), "two").unwrap();
    // As of a file that came from elsewhere with its time.
    std::fs::File::options()
        .write(true)
        .open(root.join("notes"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH)
        .unwrap();
    rig.look();
    std::fs::rename(root.join("notes.bak"), root.join("notes")).unwrap();
    rig.look();
    rig.look();
    assert_eq!((rig.text("notes").as_deref(), rig.text("notes.bak")), (Some("one"), None), "it has its name again");
}

/// Runs the thread of a folder until `ask` was answered.
fn with_its_thread<T>(rig: Rig, ask: impl FnOnce(&Sender<Order>, &Share) -> T) -> T {
    let Rig { worker, _places, _runtime, .. } = rig;
    let (share, (orders, inbox)) = (worker.share.clone(), channel());
    let thread = std::thread::spawn(move || worker.run(&inbox));
    let answer = ask(&orders, &share);
    orders.send(Order::Stop).unwrap();
    thread.join().unwrap();
    answer
}

/// A command with no running node ends when the folder says that all was looked through.
#[test]
fn whoever_waits_for_a_folder_waits_until_a_copy_of_it_is_taken() {
    let mut rig = Rig::new(Role::Admin);
    ["a", "b", "c"].iter().for_each(|path| rig.write(path, path));
    let (root, aside) = (rig.root.clone(), rig.root.with_extension("aside"));
    std::fs::rename(&root, &aside).unwrap();
    std::fs::create_dir(&root).unwrap();
    for path in ["a", "b"] {
        std::fs::copy(aside.join(path), root.join(path)).unwrap();
    }
    let (failed, came_back) = with_its_thread(rig, |orders, share| {
        let (done, flushed) = oneshot::channel();
        orders.send(Order::Flush(done)).unwrap();
        flushed.blocking_recv().unwrap();
        (share.status().failed, std::fs::read_to_string(root.join("c")).ok())
    });
    assert_eq!((failed, came_back.as_deref()), (None, Some("c")));
    std::fs::remove_dir_all(&aside).unwrap();
}

#[test]
fn a_decision_about_a_hold_is_answered_where_the_folder_fails() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    let aside = rig.root.with_extension("aside");
    std::fs::rename(&rig.root, &aside).unwrap();
    let answer = with_its_thread(rig, |orders, _| {
        let (done, mut decided) = oneshot::channel();
        orders.send(Order::Hold(true, done)).unwrap();
        (0..1_000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            decided.try_recv().ok()
        })
    });
    assert!(matches!(answer, Some(Err(_))), "{answer:?}");
    std::fs::remove_dir_all(&aside).unwrap();
}
