//! What a folder does when changes here and changes from elsewhere meet. One worker without its thread; the other node
//! is played by committing frames of its making.

mod another;

use std::collections::BTreeSet;

use sealtide_folder::Folder;
use sealtide_ibgib::{
    Content, FileFrame, FileKind, MergeStrategy, Sid, Stamp, TimelineId, Verified, merge_tips, space_genesis, uuid,
};
use sealtide_identity::{Grant, NodeId, Role, SpaceId};
use sealtide_store::Store;
use sealtide_sync::{CommitRequest, SpaceView};

use super::checkout::{Plan, TEXT_BYTES_MAX};
use super::*;
use crate::engine::Engine;
use crate::real::{RealWorld, now};
use crate::world::OsEntropy;

const OTHER: NodeId = NodeId::from_bytes([9; 32]);

struct Rig {
    worker: Worker,
    space: SpaceId,
    root: PathBuf,
    _places: [tempfile::TempDir; 2],
    _runtime: tokio::runtime::Runtime,
}

impl Rig {
    fn new(role: Role) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (home, root) = (places[0].path(), places[1].path().canonicalize().unwrap());
        let store = Store::open_dir(home.join("store")).unwrap();
        let id = NodeId::from_bytes([1; 32]);
        let first = space_genesis("t", "folder", &id.to_string(), Stamp { ms: 1 }, &uuid(&mut OsEntropy));
        let space = store.create_space(first).unwrap();
        let engine = Engine::new(RealWorld, store.clone(), id);
        for (node, role) in [(id, role), (OTHER, Role::Admin)] {
            engine.known().put_grant(&Grant { space, node, role, since_ms: 1, invite: None }).unwrap();
        }
        let (orders, _) = channel();
        let shared = Shared {
            space,
            dir: root.clone(),
            orders,
            status: Mutex::default(),
            claims: Mutex::default(),
            looked: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            stopped: Mutex::new(None),
        };
        let mut worker = Worker {
            share: Share(Arc::new(shared)),
            events: engine.subscribe(),
            view: store.view(&space).unwrap(),
            folder: Folder::open(&root, &home.join("folder.redb")).unwrap(),
            engine,
            space,
            again: Again::default(),
            stale: BTreeSet::new(),
            try_again: false,
            paused: false,
            unlooked: BTreeSet::new(),
            busy: BTreeMap::new(),
            may_record: None,
            notes_lag: true,
            lately: Lately::default(),
            look_at: Instant::now() + LOOK,
            tasks: runtime.handle().clone(),
            watching: None,
        };
        worker.read_claims();
        Self { worker, space, root, _places: places, _runtime: runtime }
    }

    /// Looks at the whole directory, records, and checks out.
    fn look(&mut self) {
        let mut round = Round { full: true, ..Round::default() };
        self.worker.read_news(&mut round);
        self.worker.step(&mut round).unwrap();
    }

    /// The watch has told of these paths.
    fn dirty(&mut self, paths: &[&str]) {
        let dirty = paths.iter().map(|path| (*path).to_owned()).collect();
        let mut round = Round { dirty, ..Round::default() };
        self.worker.read_news(&mut round);
        self.worker.step(&mut round).unwrap();
    }

    /// Checks out what came; the watch has told of nothing yet.
    fn check_out(&mut self) {
        let mut round = Round::default();
        self.worker.read_news(&mut round);
        self.worker.step(&mut round).unwrap();
    }

    /// Starts anew, as after a restart of the node.
    fn restart(&mut self) {
        self.worker.read_claims();
        self.worker.notes_lag = true;
        self.look();
    }

    fn write(&mut self, path: &str, text: &str) {
        std::fs::write(self.root.join(path), text).unwrap();
        self.look();
    }

    fn remove(&mut self, path: &str) {
        std::fs::remove_file(self.root.join(path)).unwrap();
        self.look();
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn status(&self) -> ShareStatus {
        self.worker.share.status()
    }

    /// The timelines of files there are.
    fn timelines(&self) -> Vec<TimelineId> {
        let all = self.worker.view.timelines().into_iter().map(|info| info.timeline);
        all.filter(|timeline| !tips(&self.worker.view, timeline).is_empty()).collect()
    }

    /// The only timeline at a path, and its tips.
    fn at(&self, path: &str) -> (TimelineId, Vec<(Verified, FileFrame)>) {
        let found = self.worker.claims().named(path);
        assert_eq!(found.len(), 1, "{path}");
        (found[0], tips(&self.worker.view, &found[0]))
    }

    fn tip(&self, path: &str) -> Verified {
        self.at(path).1.remove(0).0
    }

    /// Commits frames as a saga with the other node does; the folder has not looked yet.
    fn arrives(&self, records: Vec<Verified>) {
        let request = CommitRequest::local(records);
        let result = self.worker.engine.store().commit(&self.space, &request).unwrap();
        self.worker.engine.committed(self.space, Some(OTHER), &result);
    }
}

/// A frame of the other node; its mtime is its own.
fn frame(path: &str, text: &str) -> FileFrame {
    FileFrame {
        path: path.to_owned(),
        kind: FileKind::File,
        exec: false,
        mtime: 5_000,
        by: OTHER.to_string(),
        content: Content::Text(text.to_owned()),
        deleted: false,
        yielded: None,
    }
}

fn gone(path: &str) -> FileFrame {
    FileFrame { deleted: true, content: Content::None, ..frame(path, "") }
}

fn later() -> Stamp {
    Stamp { ms: now().wall_ms + 3_600_000 }
}

#[test]
fn of_a_deletion_and_an_edit_the_edit_stays_whichever_is_later() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("edited-here", "one");
    rig.write("deleted-here", "one");
    let (here, there) = (rig.tip("edited-here"), rig.tip("deleted-here"));

    // The deletion from elsewhere has the later stamp, so by ibgib §16 alone it would win.
    std::fs::write(rig.root.join("edited-here"), "two").unwrap();
    rig.arrives(vec![gone("edited-here").evolve(&here, later()).unwrap()]);
    rig.look();
    assert_eq!(rig.text("edited-here").as_deref(), Some("two"));

    std::fs::remove_file(rig.root.join("deleted-here")).unwrap();
    rig.arrives(vec![frame("deleted-here", "two").evolve(&there, Stamp { ms: 1 }).unwrap()]);
    rig.look();
    assert_eq!(rig.text("deleted-here").as_deref(), Some("two"));

    let listed: Vec<String> = rig.status().conflicts.into_iter().map(|conflict| conflict.path).collect();
    assert_eq!(listed, ["deleted-here", "edited-here"], "both are for a person to look at");
    rig.restart();
    assert_eq!(rig.names(), ["deleted-here", "edited-here"]);
}

#[test]
fn a_file_deleted_on_both_sides_is_no_conflict_and_comes_back_as_one() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    let first = rig.tip("a");
    std::fs::remove_file(rig.root.join("a")).unwrap();
    rig.arrives(vec![gone("a").evolve(&first, later()).unwrap()]);
    // Recorded before the deletion from elsewhere was seen.
    rig.worker.record(None).unwrap();
    rig.look();
    assert!(rig.names().is_empty());
    assert!(rig.status().conflicts.is_empty());

    rig.write("a", "again");
    let (timeline, tips) = rig.at("a");
    assert_eq!((timeline, tips.len()), (first.frame().unwrap().timeline, 1), "one timeline, one tip");
    assert!(rig.status().conflicts.is_empty());
}

#[test]
fn equal_edits_apart_are_no_conflict_and_the_next_edit_joins_them() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    let first = rig.tip("a");
    rig.write("a", "two");
    rig.arrives(vec![frame("a", "two").evolve(&first, Stamp { ms: 1 }).unwrap()]);
    rig.look();
    assert_eq!(rig.at("a").1.len(), 2);
    assert!(rig.status().conflicts.is_empty());

    rig.write("a", "three");
    assert_eq!(rig.at("a").1.len(), 1);
    assert!(rig.status().conflicts.is_empty());
    assert_eq!(rig.text("a").as_deref(), Some("three"));
}

/// The merge of two tips, as a saga makes it.
fn merge(rig: &Rig, left: &Verified, right: &Verified) -> Verified {
    let view = &rig.worker.view;
    let mut load = |address: &sealtide_ibgib::Address| view.by_address(address).iter().find_map(|sid| view.record(sid));
    merge_tips((left, right), &MergeStrategy::Optimistic, &mut load).unwrap()
}

#[test]
fn a_merge_that_is_not_clean_is_listed_until_somebody_makes_a_newer_version() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "the red fox");
    let first = rig.tip("a");
    let edit = |text: &str, ms| frame("a", text).evolve(&first, Stamp { ms: later().ms + ms }).unwrap();
    let (blue, green, end) = (edit("the blue fox", 1), edit("the green fox", 2), edit("the red fox runs", 3));
    rig.arrives(vec![blue.clone(), green.clone()]);
    let merged = merge(&rig, &blue, &green);
    rig.arrives(vec![merged.clone()]);
    rig.look();
    assert_eq!(rig.text("a").as_deref(), Some("the green blue fox"));
    let listed = |rig: &Rig| -> Vec<(String, Vec<String>)> {
        let conflicts = rig.status().conflicts.into_iter();
        conflicts.map(|conflict| (conflict.kind, conflict.versions)).collect()
    };
    let versions = |tip: &Verified| -> Vec<String> {
        [tip, &green, &blue, &first].iter().map(|version| version.address().to_string()).collect()
    };
    assert_eq!(listed(&rig), [("merged".to_owned(), versions(&merged))]);

    // A clean merge on top settles nothing.
    rig.arrives(vec![end.clone()]);
    let again = merge(&rig, &merged, &end);
    rig.arrives(vec![again.clone()]);
    rig.look();
    assert_eq!(rig.text("a").as_deref(), Some("the green blue fox runs"));
    assert_eq!(listed(&rig), [("merged".to_owned(), versions(&again))]);
    rig.restart();
    assert_eq!(listed(&rig), [("merged".to_owned(), versions(&again))]);

    rig.write("a", "the blue fox runs");
    assert!(listed(&rig).is_empty());
    assert_eq!(rig.at("a").1.len(), 1);
}

/// Two timelines on one path with different contents; the name has no extension, so the alias sorts behind it.
fn contested() -> (Rig, String) {
    let mut rig = Rig::new(Role::Admin);
    rig.write("Makefile", "mine");
    rig.arrives(vec![frame("Makefile", "theirs").genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    rig.look();
    let names = rig.names();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(rig.text("Makefile").as_deref(), Some("mine"), "the older owns the path");
    assert_eq!(rig.text(&names[1]).as_deref(), Some("theirs"));
    (rig, names[1].clone())
}

#[test]
fn a_file_at_an_alias_survives_edits_and_restarts() {
    let (mut rig, alias) = contested();
    let theirs = rig.worker.claims().named(&alias);
    rig.write(&alias, "theirs, edited");
    // The alias names the author of the tip, which is this node now.
    let alias = rig.names()[1].clone();
    assert_eq!(rig.text(&alias).as_deref(), Some("theirs, edited"));
    rig.restart();
    assert_eq!(rig.text(&alias).as_deref(), Some("theirs, edited"));
    assert_eq!(rig.worker.claims().named(&alias), theirs, "an edit of the alias is an edit of its timeline");
    assert_eq!(rig.timelines().len(), 2);

    // Looking at the alias alone must not take it for a path that nobody claims.
    rig.worker.stale.insert(alias.clone());
    rig.look();
    assert_eq!(rig.names().len(), 2);
    assert_eq!(rig.status().conflicts.len(), 1);
}

#[test]
fn an_alias_moves_back_when_the_owner_goes() {
    let (mut rig, alias) = contested();
    rig.restart();
    rig.remove("Makefile");
    assert_eq!(rig.names(), ["Makefile"], "was {alias}");
    assert_eq!(rig.text("Makefile").as_deref(), Some("theirs"));
    assert!(rig.status().conflicts.is_empty());
}

#[test]
fn renaming_an_alias_settles_the_conflict_and_deleting_it_ends_its_timeline() {
    let (mut rig, alias) = contested();
    std::fs::rename(rig.root.join(&alias), rig.root.join("Makefile.theirs")).unwrap();
    rig.look();
    assert_eq!(rig.names(), ["Makefile", "Makefile.theirs"]);
    assert!(rig.status().conflicts.is_empty());
    assert_eq!(rig.timelines().len(), 2);

    let (mut rig, alias) = contested();
    rig.remove(&alias);
    assert_eq!(rig.names(), ["Makefile"]);
    assert!(rig.status().conflicts.is_empty());
    assert_eq!(rig.text("Makefile").as_deref(), Some("mine"));
}

#[test]
fn an_alias_gives_way_to_a_timeline_that_wants_just_that_path() {
    let (mut rig, alias) = contested();
    rig.arrives(vec![frame(&alias, "a copy of elsewhere").genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    rig.look();
    rig.restart();
    assert_eq!(rig.text(&alias).as_deref(), Some("a copy of elsewhere"));
    let mut texts: Vec<_> = rig.names().iter().filter_map(|name| rig.text(name)).collect();
    texts.sort();
    assert_eq!(texts, ["a copy of elsewhere", "mine", "theirs"], "nothing hides another");
}

#[test]
fn a_file_where_others_need_a_directory_is_listed() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "a file");
    rig.arrives(vec![frame("a/b", "below").genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    rig.look();
    assert_eq!(rig.text("a/b").as_deref(), Some("below"));
    let conflicts = rig.status().conflicts;
    assert_eq!(conflicts.len(), 1);
    assert_eq!(rig.text(conflicts[0].alias.as_deref().unwrap()).as_deref(), Some("a file"));
}

#[test]
fn what_was_recorded_before_a_crash_is_not_recorded_twice() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("new", "mine");
    rig.write("old", "one");
    let old = rig.worker.folder.known("old").copied().unwrap();
    rig.write("old", "mine");
    let (new_tip, old_tip) = (rig.tip("new"), rig.tip("old"));

    // The notes about both are lost, and the other node has gone on from both frames.
    rig.worker.folder.forget("new").unwrap();
    rig.worker.folder.placed("old", old).unwrap();
    let theirs = [("new", &new_tip), ("old", &old_tip)];
    rig.arrives(theirs.iter().map(|(path, tip)| frame(path, "theirs").evolve(tip, later()).unwrap()).collect());
    rig.look();
    assert_eq!(rig.timelines().len(), 2);
    assert_eq!((rig.at("new").1.len(), rig.at("old").1.len()), (1, 1));
    assert!(rig.status().conflicts.is_empty());
    assert_eq!((rig.text("new").as_deref(), rig.text("old").as_deref()), (Some("theirs"), Some("theirs")));
}

#[test]
fn a_check_out_that_fails_is_taken_up_again() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    rig.arrives(vec![frame("b", "two").genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    let moved = rig.root.with_extension("away");
    std::fs::rename(&rig.root, &moved).unwrap();
    let mut round = Round::default();
    rig.worker.read_news(&mut round);
    assert!(rig.worker.step(&mut round).is_err(), "the directory is gone");
    std::fs::rename(&moved, &rig.root).unwrap();
    rig.worker.step(&mut round).unwrap();
    assert_eq!(rig.text("b").as_deref(), Some("two"));
}

/// A file that only looks different is in the way of its move until it was looked at; the path that it moves to must not be forgotten
/// over that.
#[test]
fn a_move_that_meets_a_touched_file_is_made_once_that_was_looked_at() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    let moved = frame("b", "one").evolve(&rig.tip("a"), later()).unwrap();
    // Late enough that the entry counts by its times.
    std::thread::sleep(Duration::from_millis(60));
    rig.look();
    std::fs::hard_link(rig.root.join("a"), rig.root.with_extension("link")).unwrap();
    rig.arrives(vec![moved]);
    rig.check_out();
    std::fs::remove_file(rig.root.with_extension("link")).unwrap();
    assert_eq!(rig.names(), ["b"]);
    assert_eq!(rig.text("b").as_deref(), Some("one"));
    assert!(rig.worker.stale.is_empty(), "{:?}", rig.worker.stale);
}

#[test]
fn all_of_a_directory_arrives_where_a_new_file_was_in_the_way() {
    let mut rig = Rig::new(Role::Admin);
    std::fs::write(rig.root.join("notes"), "mine").unwrap();
    let paths: Vec<String> = (1..=5).map(|n| format!("notes/{n}")).collect();
    let genesis = |path: &String| frame(path, "theirs").genesis(later(), &uuid(&mut OsEntropy)).unwrap();
    rig.arrives(paths.iter().map(genesis).collect());
    rig.check_out();
    assert!(paths.iter().all(|path| rig.text(path).as_deref() == Some("theirs")), "{:?}", rig.names());
    assert!(rig.names().iter().any(|name| rig.text(name).as_deref() == Some("mine")), "{:?}", rig.names());
}

/// What cannot be placed stays stale at both ends of a move, and is tried again without a word of the watch.
#[test]
fn what_is_in_the_way_of_a_move_leaves_nothing_forgotten() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    let moved = frame("d", "one").evolve(&rig.tip("a"), later()).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(rig.root.join("d")).status().unwrap();
    assert!(pipe.success());
    rig.arrives(vec![moved]);
    rig.check_out();
    assert_eq!(rig.names(), ["a", "d"]);
    assert_eq!(rig.worker.stale, BTreeSet::from(["a", "d"].map(str::to_owned)));
    assert!(rig.worker.waits_for_a_place());
    std::fs::remove_file(rig.root.join("d")).unwrap();
    rig.check_out();
    assert_eq!((rig.names(), rig.text("d").as_deref()), (vec!["d".to_owned()], Some("one")));
    assert!(!rig.worker.waits_for_a_place());
}

/// A file that changed while it was read waits as long as that took, many times over, and at most as long as all waits for a look.
#[test]
fn a_file_that_is_written_all_the_time_is_not_read_all_the_time() {
    let mut rig = Rig::new(Role::Admin);
    for path in ["busy", "quiet"] {
        std::fs::write(rig.root.join(path), "one").unwrap();
    }
    let skipped = ["busy", "odd"].map(str::to_owned).into_iter().zip([SkipReason::Changing, SkipReason::Special]);
    rig.worker.note_busy(&skipped.collect::<Vec<_>>(), Duration::from_secs(3_600));
    assert_eq!(rig.worker.busy.keys().collect::<Vec<_>>(), ["busy"]);
    rig.dirty(&["busy", "quiet"]);
    assert_eq!(rig.worker.folder.entries().map(|(path, _)| path).collect::<Vec<_>>(), ["quiet"]);
    assert_eq!(rig.worker.unlooked, BTreeSet::from(["busy".to_owned()]));
    let mut round = Round { dirty: std::mem::take(&mut rig.worker.unlooked), ..Round::default() };
    rig.worker.put_off_busy(&mut round, Instant::now() + LOOK);
    assert_eq!((round.dirty.len(), rig.worker.busy.len()), (1, 0));
}

/// 30 files here; a saga deletes 20 of them and brings a new one.
fn held() -> (Rig, Vec<Verified>) {
    let mut rig = Rig::new(Role::Admin);
    for n in 0..30 {
        std::fs::write(rig.root.join(format!("f{n}")), format!("text {n}")).unwrap();
    }
    rig.look();
    let paths: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
    let ends: Vec<_> = paths.iter().map(|path| gone(path).evolve(&rig.tip(path), later()).unwrap()).collect::<Vec<_>>();
    let mut all = ends.clone();
    all.push(frame("new", "from elsewhere").genesis(later(), &uuid(&mut OsEntropy)).unwrap());
    rig.arrives(all);
    rig.look();
    assert_eq!(rig.status().held.as_ref().map(|held| held.removed.len()), Some(20));
    assert_eq!(rig.names().len(), 30);
    (rig, ends)
}

#[test]
fn a_hold_ends_when_nothing_is_left_to_hold() {
    let (mut rig, ends) = held();
    rig.restart();
    assert!(rig.status().held.is_some(), "a restart does not forget it");
    let back = ends.iter().enumerate().map(|(n, end)| {
        let path = format!("f{n}");
        frame(&path, &format!("text {n}")).evolve(end, later()).unwrap()
    });
    rig.arrives(back.collect());
    rig.look();
    assert!(rig.status().held.is_none());
    assert_eq!(rig.names().len(), 31);
}

#[test]
fn a_rejected_hold_keeps_the_folder_and_still_brings_what_is_new() {
    let (mut rig, _) = held();
    rig.worker.hold_decided(false).unwrap();
    rig.look();
    assert!(rig.status().held.is_none());
    assert_eq!(rig.names().len(), 31);
    assert_eq!(rig.text("new").as_deref(), Some("from elsewhere"));
    assert_eq!(rig.at("f3").1.len(), 1, "the newer version has the deletion behind it");
    assert!(rig.status().conflicts.is_empty());

    let (mut rig, _) = held();
    rig.worker.hold_decided(true).unwrap();
    rig.look();
    assert_eq!(rig.names().len(), 11);
}

#[test]
fn with_role_read_what_comes_is_checked_out_and_local_changes_stay_beside_it() {
    let mut rig = Rig::new(Role::Read);
    let made: Vec<_> = ["deleted", "edited", "ended"]
        .iter()
        .map(|path| frame(path, "one").genesis(Stamp { ms: 1_000 }, &uuid(&mut OsEntropy)).unwrap())
        .collect();
    rig.arrives(made.clone());
    rig.look();
    std::fs::remove_file(rig.root.join("deleted")).unwrap();
    std::fs::write(rig.root.join("edited"), "local").unwrap();
    std::fs::write(rig.root.join("ended"), "local too").unwrap();
    rig.look();
    assert_eq!(rig.status().local_only.len(), 3);

    rig.arrives(vec![
        frame("deleted", "two").evolve(&made[0], later()).unwrap(),
        frame("edited", "two").evolve(&made[1], later()).unwrap(),
        gone("ended").evolve(&made[2], later()).unwrap(),
    ]);
    rig.look();
    rig.look();
    assert_eq!(rig.text("deleted").as_deref(), Some("two"));
    assert_eq!(rig.text("edited").as_deref(), Some("two"));
    assert_eq!(rig.text("ended").as_deref(), Some("local too"), "what was made of it here is not lost");
    let local: Vec<String> = rig.status().local_only.into_iter().collect();
    assert_eq!(local.len(), 2, "{local:?}");
    assert_eq!(rig.text(&local[0]).as_deref(), Some("local"));
    assert_eq!(local[1], "ended");
    let sids: Vec<Sid> =
        rig.timelines().iter().flat_map(|id| tips(&rig.worker.view, id)).map(|(tip, _)| tip.sid()).collect();
    assert_eq!(sids.len(), 3, "nothing was recorded");

    // Given the role write, what was only listed is recorded at once.
    let id = rig.worker.engine.id();
    let grant = Grant { space: rig.space, node: id, role: Role::Write, since_ms: 2, invite: None };
    rig.worker.engine.known().put_grant(&grant).unwrap();
    let mut round = Round::default();
    rig.worker.read_news(&mut round);
    assert!(round.full);
    rig.worker.step(&mut round).unwrap();
    assert!(rig.status().local_only.is_empty());
    assert!(rig.timelines().len() >= 4);
}

#[test]
fn the_same_rename_made_elsewhere_is_adopted() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("a", "one");
    let tip = rig.tip("a");
    std::fs::rename(rig.root.join("a"), rig.root.join("b")).unwrap();
    rig.arrives(vec![frame("b", "one").evolve(&tip, later()).unwrap()]);
    rig.look();
    assert_eq!(rig.names(), ["b"]);
    assert_eq!(rig.at("b").1.len(), 1);
    assert!(rig.status().conflicts.is_empty());
}

/// A directory that others keep, empty, and that only this folder had something in: it stands by itself once that moved away.
#[test]
fn a_directory_that_is_kept_stands_when_what_was_in_it_moves_away() {
    let mut rig = Rig::new(Role::Admin);
    std::fs::create_dir(rig.root.join("k")).unwrap();
    rig.write("k/f", "one\n");
    let dir = FileFrame { kind: FileKind::Dir, content: Content::None, ..frame("k", "") };
    rig.arrives(vec![dir.genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    rig.look();
    std::fs::rename(rig.root.join("k"), rig.root.join("l")).unwrap();
    rig.look();
    assert_eq!(rig.names(), ["k", "l"]);
    assert_eq!(rig.text("l/f").as_deref(), Some("one\n"));
    std::fs::remove_dir(rig.root.join("k")).unwrap();
    rig.look();
    assert_eq!(rig.names(), ["l"], "and it goes when it is removed");
    rig.restart();
    assert_eq!(rig.names(), ["l"]);
}

/// `rm -r` takes its time: scans meet a directory that is empty while files are known to be in it, then find it gone. Nothing of it
/// comes back.
#[test]
fn a_directory_that_is_being_removed_does_not_come_back() {
    let mut rig = Rig::new(Role::Admin);
    std::fs::create_dir_all(rig.root.join("d/e")).unwrap();
    rig.write("d/e/a", "one\n");
    rig.write("d/e/b", "two\n");
    rig.look();
    std::fs::remove_file(rig.root.join("d/e/a")).unwrap();
    std::fs::remove_file(rig.root.join("d/e/b")).unwrap();
    // The watch told of one of the two so far.
    rig.dirty(&["d/e/a"]);
    std::fs::remove_dir_all(rig.root.join("d")).unwrap();
    rig.dirty(&["d/e/b"]);
    assert_eq!(rig.names(), Vec::<String>::new());
    rig.dirty(&["d/e"]);
    rig.look();
    assert_eq!(rig.names(), Vec::<String>::new());
    assert_eq!(rig.worker.folder.entries_count(), 0);
    let tips = rig.timelines().into_iter().flat_map(|timeline| tips(&rig.worker.view, &timeline));
    assert!(tips.into_iter().all(|(_, tip)| tip.deleted));
}

/// A store that was put back to an earlier time, or lost its end: what the notes say stands in the directory is in no space. It may be
/// the only copy, so it is recorded as new, and neither removed nor replaced.
#[test]
fn what_the_space_has_no_version_of_stays_and_is_recorded() {
    let mut rig = Rig::new(Role::Admin);
    rig.write("g", "two\n");
    rig.write("h", "four\n");
    let (g, h) = (rig.tip("g"), rig.tip("h"));
    for path in ["g", "h"] {
        std::fs::write(rig.root.join(path), format!("lost {path}\n")).unwrap();
    }
    let scan = rig.worker.folder.scan(None, &mut |_| Ok(()), &mut |_| ()).unwrap();
    assert_eq!(scan.changes.len(), 2);
    for change in scan.changes {
        let lost = change.placed(TimelineId([9; 32]), sealtide_ibgib::Sid([9; 32]));
        rig.worker.folder.placed(&change.path, lost).unwrap();
    }
    let edited = frame("g", "three\n").evolve(&g, later()).unwrap();
    let gone = FileFrame::read(&h).unwrap().deletion(1, &OTHER.to_string()).evolve(&h, later()).unwrap();
    rig.arrives(vec![edited, gone]);
    rig.check_out();
    assert_eq!([rig.text("g"), rig.text("h")].map(Option::unwrap), ["lost g\n", "lost h\n"], "nothing is touched");
    rig.look();
    let texts: BTreeSet<String> = rig.names().iter().filter_map(|name| rig.text(name)).collect();
    assert_eq!(texts, BTreeSet::from(["three\n", "lost g\n", "lost h\n"].map(str::to_owned)), "{:?}", rig.names());
    let recorded = rig.timelines().into_iter().filter_map(|timeline| {
        let (_, frame) = tips(&rig.worker.view, &timeline).into_iter().next()?;
        if let Content::Text(text) = frame.content { (!frame.deleted).then_some(text) } else { None }
    });
    assert_eq!(recorded.collect::<BTreeSet<_>>(), texts, "all of it is in the space");
}

/// A program that writes through a shared memory map leaves the times of the file alone while the page waits for the disk: what it
/// writes then is found by the second look.
#[test]
fn what_is_written_through_a_map_is_found_later() {
    const WRITER: &str = "import mmap, sys\nf = open(sys.argv[1], 'r+b')\nm = mmap.mmap(f.fileno(), 0)\n\
        for at in (0, 100):\n    m[at:at + 1] = b'x'\n    print(at, flush=True)\n    sys.stdin.readline()\n";
    let mut rig = Rig::new(Role::Admin);
    rig.write("mapped", &".".repeat(5_000));
    let mut command = std::process::Command::new("python3");
    command.args(["-c", WRITER]).arg(rig.root.join("mapped"));
    let pipe = std::process::Stdio::piped;
    let mut writer = command.stdin(pipe()).stdout(pipe()).spawn().unwrap();
    let (mut to, mut from) = (writer.stdin.take().unwrap(), std::io::BufReader::new(writer.stdout.take().unwrap()));
    let mut said = String::new();
    let recorded = |rig: &Rig| {
        let timeline = rig.timelines()[0];
        let Content::Text(text) = &tips(&rig.worker.view, &timeline)[0].1.content else { panic!("a text") };
        text.matches('x').count()
    };
    std::io::BufRead::read_line(&mut from, &mut said).unwrap();
    // Late enough that nothing hides behind the grain of the clock.
    std::thread::sleep(Duration::from_millis(60));
    rig.look();
    assert_eq!(recorded(&rig), 1);
    std::io::Write::write_all(&mut to, b"\n").unwrap();
    std::io::BufRead::read_line(&mut from, &mut said).unwrap();
    rig.look();
    println!("{} of 2 are seen by the times", recorded(&rig));
    let mut round = Round::default();
    rig.worker.look_again(&mut round, Instant::now() + AGAIN / 2);
    assert!(round.dirty.is_empty());
    rig.worker.look_again(&mut round, Instant::now() + AGAIN);
    assert_eq!(round.dirty.iter().collect::<Vec<_>>(), ["mapped"]);
    rig.worker.step(&mut round).unwrap();
    assert_eq!(recorded(&rig), 2);
    drop(to);
    writer.wait().unwrap();
}

/// What came is checked out before the watch tells of a rename: the path is gone, and where it went must be looked for before that
/// counts as a deletion.
#[test]
fn a_rename_that_a_check_out_meets_first_is_one() {
    let mut rig = Rig::new(Role::Admin);
    std::fs::create_dir(rig.root.join("w")).unwrap();
    rig.write("w/a", "one\n");
    rig.write("w/b", "two\n");
    let (a, b) = (rig.tip("w/a"), rig.tip("w/b"));
    let edited = frame("w/a", "one\nedited\n").evolve(&a, later()).unwrap();
    let moved = frame("elsewhere", "two\n").evolve(&b, later()).unwrap();
    std::fs::rename(rig.root.join("w"), rig.root.join("x")).unwrap();
    rig.arrives(vec![edited.clone(), moved.clone()]);
    rig.check_out();
    assert_eq!(rig.timelines().len(), 2, "nothing new began");
    for (before, other) in [(&a, &edited), (&b, &moved)] {
        let tips = tips(&rig.worker.view, &before.frame().unwrap().timeline);
        assert_eq!(tips.len(), 2);
        assert!(tips.iter().all(|(_, tip)| !tip.deleted), "nothing was deleted");
        let own = tips.iter().find(|(tip, _)| tip.sid() != other.sid()).unwrap();
        assert!(own.1.path.starts_with("x/"), "{}", own.1.path);
        let merged = merge(&rig, &own.0, other);
        rig.arrives(vec![merged]);
    }
    rig.look();
    assert_eq!(rig.text("x/a").as_deref(), Some("one\nedited\n"));
    assert!(!rig.root.join("w").exists());
    let others = rig.timelines().into_iter().flat_map(|timeline| tips(&rig.worker.view, &timeline));
    let paths: BTreeSet<String> = others.map(|(_, tip)| tip.path).collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert_eq!(rig.worker.folder.entries_count(), 2);
}

#[test]
fn a_change_on_top_of_one_that_a_crash_forgot_is_the_next_version() {
    let mut rig = Rig::new(Role::Write);
    rig.write("a.md", "first");
    let noted = rig.worker.folder.known("a.md").copied().unwrap();
    rig.write("a.md", "second");
    rig.worker.folder.placed("a.md", noted).unwrap();
    std::fs::write(rig.root.join("a.md"), "third").unwrap();
    rig.restart();
    let (_, tips) = rig.at("a.md");
    assert_eq!(tips.iter().map(|(tip, _)| tip.frame().unwrap().n).collect::<Vec<_>>(), [2]);
    assert_eq!(rig.status().conflicts, []);
    assert_eq!(rig.text("a.md").as_deref(), Some("third"));
}

#[test]
fn a_version_of_somebody_else_is_not_one_that_a_crash_forgot() {
    let mut rig = Rig::new(Role::Write);
    rig.write("a.md", "first");
    rig.arrives(vec![frame("a.md", "theirs").evolve(&rig.tip("a.md"), later()).unwrap()]);
    std::fs::write(rig.root.join("a.md"), "mine").unwrap();
    rig.restart();
    assert_eq!(rig.at("a.md").1.len(), 2, "both were made of the first version");
}

#[test]
fn once_the_directory_was_read_the_notes_are_right() {
    let mut rig = Rig::new(Role::Write);
    rig.write("a.md", "first");
    let noted = rig.worker.folder.known("a.md").copied().unwrap();
    rig.write("a.md", "second");
    rig.worker.folder.placed("a.md", noted).unwrap();
    rig.write("a.md", "third");
    assert_eq!(rig.at("a.md").1.len(), 2);
}

#[test]
fn a_new_file_at_a_path_whose_move_a_crash_forgot_is_another_file() {
    let mut rig = Rig::new(Role::Write);
    rig.write("a.md", "first");
    let (timeline, _) = rig.at("a.md");
    let noted = rig.worker.folder.known("a.md").copied().unwrap();
    std::fs::rename(rig.root.join("a.md"), rig.root.join("b.md")).unwrap();
    rig.look();
    rig.worker.folder.forget("b.md").unwrap();
    rig.worker.folder.placed("a.md", noted).unwrap();
    std::fs::write(rig.root.join("a.md"), "new").unwrap();
    rig.restart();
    assert_eq!(rig.status().conflicts, []);
    let (moved, tips) = rig.at("b.md");
    assert_eq!((moved, tips.len()), (timeline, 1));
    assert_ne!(rig.at("a.md").0, timeline);
    assert_eq!((rig.text("a.md").as_deref(), rig.text("b.md").as_deref()), (Some("new"), Some("first")));
}

#[test]
fn a_file_that_comes_back_where_a_crash_forgot_its_removal_goes_on() {
    let mut rig = Rig::new(Role::Write);
    rig.write("a.md", "first");
    let (timeline, _) = rig.at("a.md");
    let noted = rig.worker.folder.known("a.md").copied().unwrap();
    rig.remove("a.md");
    rig.worker.folder.placed("a.md", noted).unwrap();
    std::fs::write(rig.root.join("a.md"), "again").unwrap();
    rig.restart();
    let (same, tips) = rig.at("a.md");
    assert_eq!((same, tips.len(), tips[0].0.frame().unwrap().n), (timeline, 1, 2));
    assert_eq!(rig.status().conflicts, []);
}

#[test]
fn what_this_node_recorded_needs_no_look_until_somebody_changes_it() {
    let mut rig = Rig::new(Role::Admin);
    std::fs::write(rig.root.join("a"), "mine").unwrap();
    rig.worker.record(None).unwrap();
    assert!(rig.worker.stale.contains("a") && rig.worker.is_in_place("a"));
    let next = frame("a", "theirs").evolve(&rig.tip("a"), later()).unwrap();
    rig.arrives(vec![next]);
    rig.worker.read_news(&mut Round::default());
    assert!(rig.worker.stale.contains("a") && !rig.worker.is_in_place("a"), "another version");
    rig.look();
    assert_eq!(rig.text("a").as_deref(), Some("theirs"));
    // Nothing there and nothing wanted is in place; a file that only the space has is not.
    assert!(rig.worker.is_in_place("nowhere"));
    rig.arrives(vec![frame("b", "new").genesis(later(), &uuid(&mut OsEntropy)).unwrap()]);
    rig.worker.read_news(&mut Round::default());
    assert!(!rig.worker.is_in_place("b"));
    // And nobody takes the folder for done from here on.
    assert_eq!(rig.status().phase, Phase::CheckingOut);
    // Where two want one path, both are looked at each time.
    let (rig, alias) = contested();
    assert!(rig.names().contains(&alias) && rig.names().len() == 2);
    assert!(rig.names().iter().all(|path| !rig.worker.is_in_place(path)), "{:?}", rig.names());
}

#[test]
fn a_plan_holds_so_many_texts_and_reads_the_others_when_their_turn_comes() {
    let mut rig = Rig::new(Role::Admin);
    let text = |n: usize| format!("{n} ").repeat(60_000);
    let count = TEXT_BYTES_MAX / text(100).len() + 20;
    let new = |n: usize| frame(&format!("f{n}"), &text(100 + n)).genesis(later(), &uuid(&mut OsEntropy)).unwrap();
    rig.arrives((0..count).map(new).collect());
    rig.worker.read_news(&mut Round::default());
    let stale = rig.worker.stale.clone();
    let paths = rig.worker.claims().place(&rig.worker.view, &stale).paths;
    let mut plan = Plan::default();
    rig.worker.plan(paths, &mut plan).unwrap();
    let is_later = |item: &&sealtide_folder::CheckOut| {
        matches!(item, sealtide_folder::CheckOut::Put { content: Content::None, .. })
    };
    let later = plan.items.values().filter(is_later).count();
    assert!(later > 0 && plan.text_bytes <= TEXT_BYTES_MAX, "{later} of {count}, {} bytes", plan.text_bytes);
    rig.look();
    assert_eq!(rig.names().len(), count);
    for n in 0..count {
        assert_eq!(rig.text(&format!("f{n}")), Some(text(100 + n)), "f{n}");
    }
}
