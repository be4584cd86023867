//! Another directory where the known one was: whether it is taken for it, and what is still known of it then.
//! The rules: `spec/checkout.md` §2.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use sealtide_ibgib::FileKind;

use crate::path::{PATH_BYTES_MAX, ancestors};
use crate::root::{Root, entries, look_at, look_fd, open_dir};
use crate::{Folder, FolderError, Placed, Stat, content};

/// How long nothing at all may change in a directory before it is taken: a copy that is being made is not met halfway.
const STANDS_STILL: Duration = Duration::from_secs(5);
/// One that never stands still is worked in. It is taken this long after the last known path came to it or got the size that is known of
/// it, where none is missing and most have that size …
const WORKED_IN: Duration = Duration::from_secs(60);
/// … and this long elsewhere: it may be one large file of a copy that grows, and what is missing would be checked out in its way.
const MISSES: Duration = Duration::from_secs(60 * 60);
/// How long whoever asked waits for that.
const AWAITED: Duration = Duration::from_secs(2 * 60);
/// A look at a large directory takes a while; they take at most this part of the time.
const LOOK_PART: u32 = 4;
/// How long, after a directory was taken, an older version that comes to it is no edit: whoever copied it may not have been done, or does it
/// once more.
const BROUGHT: Duration = Duration::from_secs(24 * 60 * 60);

/// What is in a directory, and how much of it is known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The (file system, inode) of the directory.
    identity: (u64, u64),
    /// Known paths at which something stands …
    there: usize,
    /// … those of them where something of the known kind and size stands: some copies make all names before they fill the first …
    filled: usize,
    /// … and those where the very thing stands that was known.
    same: usize,
    /// All that is in it, known or not: a copy may write under other names, and into files that have their size already.
    all: Tally,
}

impl Seen {
    /// How much of a copy came: it grows until all of it is there.
    fn brought(&self) -> usize {
        self.there + self.filled
    }
}

/// What a tree is made of: equal as long as nothing comes to it, goes from it or changes in it.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    entries: u64,
    bytes: u64,
    /// The sum of the times of all last changes.
    times: i64,
}

impl Tally {
    fn of(root: &Root) -> Self {
        let mut tally = Self::default();
        if let Ok(look) = look_fd(root.top()) {
            tally.add(look.stat());
        }
        tally.add_below(root.top(), 0);
        tally
    }

    fn add(&mut self, stat: Option<Stat>) {
        self.entries += 1;
        if let Some(stat) = stat {
            self.bytes = self.bytes.wrapping_add(stat.size);
            self.times = self.times.wrapping_add(stat.ctime_ns).wrapping_add(stat.mtime_ns);
        }
    }

    /// What cannot be looked at counts as nothing: nor can it be recorded.
    fn add_below(&mut self, dir: &OwnedFd, depth: usize) {
        for (name, _) in entries(dir).unwrap_or_default() {
            let stat = look_at(dir, name.as_c_str()).ok().and_then(|look| look.stat());
            self.add(stat);
            if stat.is_some_and(|stat| stat.kind == FileKind::Dir)
                && depth < PATH_BYTES_MAX / 2
                && let Ok(below) = open_dir(dir, name.as_c_str())
            {
                self.add_below(&below, depth + 1);
            }
        }
    }
}

/// A directory that may be taken, and how it came to look as it does.
pub(crate) struct Another {
    seen: Seen,
    /// Since when it looks like this.
    since: Instant,
    /// The most known paths that were ever in it and filled …
    most: usize,
    /// … and since when they are so many.
    came: Instant,
    met: Instant,
    /// Until when it need not be looked at again.
    pause: Instant,
}

impl Another {
    /// What is known of a directory after one more look at it, which took this long.
    fn looked(before: Option<&Self>, seen: Seen, now: Instant, took: Duration) -> Self {
        let pause = now + took * LOOK_PART;
        let Some(before) = before.filter(|another| another.seen.identity == seen.identity) else {
            return Self { seen, since: now, most: seen.brought(), came: now, met: now, pause };
        };
        let since = if before.seen == seen { before.since } else { now };
        let came = if seen.brought() <= before.most { before.came } else { now };
        Self { seen, since, most: before.most.max(seen.brought()), came, met: before.met, pause }
    }

    /// Whether a look may take it soon. Where something else fails, as the state file, nobody knows when.
    pub(crate) fn is_awaited(&self) -> bool {
        self.met.elapsed() < AWAITED
    }

    /// Whether it may be taken now, where so many paths are known.
    fn is_settled(&self, now: Instant, known: usize) -> bool {
        let is_whole = self.seen.there == known && self.seen.filled * 2 > known;
        let enough = if is_whole { WORKED_IN } else { MISSES };
        now.duration_since(self.since) >= STANDS_STILL || now.duration_since(self.came) >= enough
    }
}

impl Folder {
    /// Takes the directory that stands where the known one was, or says why not; then all is as before.
    pub(crate) fn take_another(&mut self) -> Result<(), FolderError> {
        let path = self.root.path().to_owned();
        if self.another.as_ref().is_some_and(|another| Instant::now() < another.pause) {
            return Err(FolderError::RootUnsettled { path });
        }
        let Ok(mut other) = Root::open(&path) else {
            self.another = None;
            return Err(FolderError::RootReplaced { path });
        };
        (other.plain_renames, other.one_case) = (self.root.plain_renames, self.root.one_case);
        let before = std::mem::replace(&mut self.root, other);
        let taken = self.judge_root();
        match taken {
            Ok(()) => self.took_another = true,
            Err(_) => self.root = before,
        }
        taken
    }

    /// Whether the open directory may stand for the one that was known. The same tree under another number of its file system, as after a
    /// start of the machine, is that one. Any other, a copy or the old contents of a disk, must hold half of the known files and stand
    /// still for a while; then what is known of it is only what is in it unchanged, so that nothing looks deleted or edited.
    pub(crate) fn judge_root(&mut self) -> Result<(), FolderError> {
        let failed = |source| FolderError::Root { path: self.root.path().to_owned(), source };
        let identity = self.root.identity().map_err(failed)?;
        let born_ns = self.root.born_ns().map_err(failed)?;
        let (known, known_born_ns) = (self.state.identity()?, self.state.born_ns()?);
        // A directory that is made where one was removed may get the same inode; only the birth tells the two apart.
        let is_itself = known == Some(identity) && is_one(known_born_ns, born_ns, true);
        // Where nothing is known nothing can look deleted.
        let is_known = is_itself || known.is_none() || self.entries_count() == 0;
        if is_known {
            self.another = None;
            let is_noted = known == Some(identity) && known_born_ns == born_ns;
            return if is_noted { Ok(()) } else { self.state.set_identity(identity, born_ns) };
        }
        let began = Instant::now();
        let seen = self.look_for_known(identity);
        let shows_the_known = seen.same * 2 > seen.there;
        // exFAT gives its top the time of the mount as birth; what is in it keeps its own.
        if known == Some(identity) && shows_the_known {
            self.another = None;
            return self.state.set_identity(identity, born_ns);
        }
        // Where a disk is not mounted, what lies in the directory below it is not what was known.
        if seen.there * 2 < self.entries_count() {
            self.another = None;
            return Err(FolderError::RootReplaced { path: self.root.path().to_owned() });
        }
        // The number of its file system says nothing, and of exFAT neither does the birth.
        let is_same_top = known.is_some_and(|(_, inode)| inode == identity.1 || is_one(known_born_ns, born_ns, false));
        if is_same_top && shows_the_known {
            self.another = None;
            return self.state.set_identity(identity, born_ns);
        }
        let now = Instant::now();
        let another = Another::looked(self.another.as_ref(), seen, now, now - began);
        let is_settled = another.is_settled(now, self.entries_count());
        self.another = Some(another);
        if !is_settled {
            return Err(FolderError::RootUnsettled { path: self.root.path().to_owned() });
        }
        if let Some(journal) = self.state.take_open_journal()? {
            self.recover(&journal)?;
        }
        self.keep_what_is_unchanged()?;
        self.state.set_taken(identity, born_ns, ms_of(SystemTime::now()))?;
        self.another = None;
        Ok(())
    }

    fn look_for_known(&self, identity: (u64, u64)) -> Seen {
        self.root.refresh();
        let mut seen = Seen { identity, there: 0, filled: 0, same: 0, all: Tally::of(&self.root) };
        for (path, known) in self.state.cache() {
            if let Some(stat) = self.root.look(path).ok().and_then(|look| look.stat()) {
                seen.there += 1;
                seen.filled += usize::from((stat.kind, stat.size) == (known.stat.kind, known.stat.size));
                seen.same += usize::from(is_same_thing(&known.stat, &stat));
            }
        }
        seen
    }

    /// When another directory was taken, ms since 1970, if that was within the last day: an older version that comes to a known path may be of
    /// the same copy, which was met halfway after all, or is made once more.
    pub fn brought_ms(&self) -> Option<u64> {
        let now_ms = ms_of(SystemTime::now());
        self.state.taken_ms().filter(|taken_ms| u128::from(taken_ms.abs_diff(now_ms)) < BROUGHT.as_millis())
    }

    /// Forgets every path at which something else stands than was known, or nothing: what it is, whoever records finds out as for a path
    /// that was never known. A directory that a disk was mounted at, and that holds half of what was known of that, is one like any other
    /// from now on: all was copied to one disk.
    fn keep_what_is_unchanged(&mut self) -> Result<(), FolderError> {
        let kept: Vec<_> =
            self.state.cache().iter().map(|(path, known)| (path.clone(), self.unchanged(path, known))).collect();
        let is_away = |dir: &str| matches!(self.root.is_mount(dir), Ok(Some(false)));
        let is_copied = |dir: &str| {
            let (mut known, mut same) = (0, 0);
            for (_, placed) in kept.iter().filter(|(path, _)| ancestors(path).any(|above| above == dir)) {
                known += 1;
                same += usize::from(placed.is_some());
            }
            same > 0 && same * 2 >= known
        };
        let mounts = self.state.mounts().iter().filter(|dir| !(is_away(dir) && is_copied(dir))).cloned().collect();
        for (path, placed) in kept {
            self.state.set(&path, placed);
        }
        self.state.set_mounts(mounts)
    }

    /// What is known at a path, as it looks here, where its content is that.
    fn unchanged(&self, path: &str, known: &Placed) -> Option<Placed> {
        let now = SystemTime::now();
        let stat = self.root.look(path).ok()?.stat()?;
        let may_be = (stat.kind, stat.exec, stat.size) == (known.stat.kind, known.stat.exec, known.stat.size);
        let is_it = may_be && content::hash(&self.root, path, stat.kind).ok()? == known.content;
        is_it.then(|| Placed { stat: stat.observed(now), ..*known })
    }
}

fn ms_of(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a path shows the thing that was known there, changed or not, whatever number its file system has now.
fn is_same_thing(known: &Stat, now: &Stat) -> bool {
    let same_inode = known.inode == now.inode && known.ctime_ns == now.ctime_ns;
    known.kind == now.kind && is_one(known.born_ns, now.born_ns, same_inode)
}

/// Whether two looks show one thing: by its birth, which no copy has. New file systems give the same numbers to inodes again, and some
/// (vfat, exFAT) make them up anew with each mount, so they count only where no birth is kept.
fn is_one(known_born_ns: i64, born_ns: i64, same_inode: bool) -> bool {
    if known_born_ns != 0 && born_ns != 0 { known_born_ns == born_ns } else { same_inode }
}

#[cfg(test)]
mod tests {
    use sealtide_ibgib::{Sid, TimelineId};

    use super::*;
    use crate::Found;

    fn scan(folder: &mut Folder) -> Vec<crate::LocalChange> {
        folder.scan(None, &mut |_| Ok(()), &mut |_| {}).expect("scan").changes
    }

    fn scan_when_taken(folder: &mut Folder) -> crate::Scan {
        loop {
            match folder.scan(None, &mut |_| Ok(()), &mut |_| {}) {
                Err(FolderError::RootUnsettled { .. }) => std::thread::sleep(Duration::from_millis(100)),
                other => break other.expect("scan"),
            }
        }
    }

    /// A directory with these files in it, all of them recorded, and its state file.
    fn recorded(dir: &std::path::Path, state: &std::path::Path, names: &[&str]) -> Folder {
        for name in names {
            std::fs::write(dir.join(name), name).expect("write");
        }
        let mut folder = Folder::open(dir, state).expect("open");
        for change in scan(&mut folder) {
            folder.settle(&change, TimelineId([1; 32]), Sid(change.content)).expect("settle");
        }
        folder
    }

    /// As if the directory had another birth.
    fn top_made_anew(folder: &mut Folder) {
        let (identity, born_ns) = (folder.root.identity().expect("identity"), folder.root.born_ns().expect("birth"));
        assert_ne!(born_ns, 0, "this file system keeps no births");
        folder.state.set_identity(identity, born_ns - 1).expect("note");
    }

    /// As if the directory had been removed and copied back, and got the same inode.
    fn made_anew(folder: &mut Folder) {
        top_made_anew(folder);
        for (path, placed) in folder.state.cache().clone() {
            let stat = Stat { born_ns: placed.stat.born_ns - 1, ..placed.stat };
            folder.state.set(&path, Some(Placed { stat, ..placed }));
        }
    }

    #[test]
    fn a_copy_with_the_inode_of_the_known_directory_is_a_copy() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        made_anew(&mut recorded(dir.path(), &state, &["a", "b", "c", "d"]));
        std::fs::remove_file(dir.path().join("a")).expect("remove");
        let mut folder = Folder::open(dir.path(), &state).expect("open");
        assert!(folder.is_settling());
        // What the copy lacks was not deleted.
        assert_eq!(scan_when_taken(&mut folder).changes.len(), 0);
        assert!(folder.known("a").is_none() && folder.known("b").is_some());
        assert!(folder.took_another() && !folder.is_settling() && folder.brought_ms().is_some());
    }

    #[test]
    fn what_was_copied_from_two_disks_to_one_waits_for_no_disk() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        for name in ["copied", "away"] {
            std::fs::create_dir(dir.path().join(name)).expect("make");
        }
        let mut folder = recorded(dir.path(), &state, &["a", "b", "c", "copied/d", "away/e"]);
        folder.state.set_mounts(["away", "copied"].map(str::to_owned).into()).expect("note");
        made_anew(&mut folder);
        drop(folder);
        std::fs::remove_file(dir.path().join("away/e")).expect("remove");
        let mut folder = Folder::open(dir.path(), &state).expect("open");
        let skipped = scan_when_taken(&mut folder).skipped;
        let skipped: Vec<_> = skipped.iter().map(|(path, reason)| (path.as_str(), reason)).collect();
        assert_eq!(skipped, [("away", &crate::SkipReason::NotMounted)]);
        assert!(folder.known("copied/d").is_some());
    }

    /// What is seen of a directory, and what comes of it when that is looked at once more.
    struct Looks {
        seen: Seen,
        another: Another,
        now: Instant,
    }

    impl Looks {
        const KNOWN: usize = 10;

        fn at(there: usize) -> Self {
            Self::filled(there, there)
        }

        fn filled(there: usize, filled: usize) -> Self {
            let (now, all) = (Instant::now(), Tally::default());
            let seen = Seen { identity: (1, 1), there, filled, same: 0, all };
            Self { seen, another: Another::looked(None, seen, now, Duration::ZERO), now }
        }

        /// Looks again, so much later.
        fn after(&mut self, pause: Duration) -> bool {
            self.now += pause;
            self.another = Another::looked(Some(&self.another), self.seen, self.now, Duration::ZERO);
            self.another.is_settled(self.now, Self::KNOWN)
        }

        /// How long it is not taken while something in it changes all the time.
        fn taken_after(&mut self) -> Duration {
            let (from, second) = (self.now, Duration::from_secs(1));
            while !self.after(second) {
                self.seen.all.bytes += 1;
            }
            self.now - from
        }
    }

    /// A restore of hours, in which a file takes minutes, then one that takes half an hour.
    #[test]
    fn a_directory_to_which_something_comes_is_not_taken() {
        let mut looks = Looks::at(5);
        for there in 5..8 {
            looks.seen.there = there;
            for _ in 0..MISSES.as_secs() / 4 {
                looks.seen.all.times += 1;
                assert!(!looks.after(Duration::from_secs(2)), "{there}");
            }
        }
        // What is there already goes and comes back, as where somebody works: that is no known path more.
        (looks.seen.there, looks.seen.all.entries) = (6, 1);
        assert!(!looks.after(Duration::from_secs(2)));
        looks.seen.there = 7;
        assert!(looks.taken_after() < MISSES);
        // It ends: all has to stand still.
        let mut looks = Looks::at(9);
        let still = Duration::from_millis(1);
        assert!(!looks.after(STANDS_STILL - still) && looks.after(still));
    }

    /// A log in it, say, or a data base: nobody could sync any more.
    #[test]
    fn a_directory_that_never_stands_still_is_taken_after_a_while() {
        assert_eq!(Looks::at(Looks::KNOWN).taken_after(), WORKED_IN);
        assert_eq!(Looks::at(Looks::KNOWN - 1).taken_after(), MISSES);
        // Restic makes all files of a directory before it fills them.
        assert_eq!(Looks::filled(Looks::KNOWN, Looks::KNOWN / 2).taken_after(), MISSES);
        let mut looks = Looks::filled(Looks::KNOWN, 0);
        for filled in 1..=Looks::KNOWN {
            looks.seen.filled = filled;
            looks.seen.all.bytes += 1;
            assert!(!looks.after(WORKED_IN - Duration::from_secs(1)), "{filled} files came one by one");
        }
        // Another one is waited for anew.
        let mut looks = Looks::at(Looks::KNOWN);
        looks.seen.identity = (1, 2);
        assert!(!looks.after(MISSES));
    }

    /// rsync writes under names of its own, others make room for a file before they fill it.
    #[test]
    fn a_look_sees_whatever_moves_in_a_directory() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let folder = recorded(dir.path(), &state.path().join("state"), &["a", "b"]);
        std::fs::create_dir_all(dir.path().join("deep/er")).expect("make");
        let temp = dir.path().join("deep/er/.b.Xy12Zq");
        let mut before = folder.look_for_known((1, 1));
        let mut moved = |what: &str| {
            let now = folder.look_for_known((1, 1));
            assert!(now != before, "{what}");
            assert!(now == folder.look_for_known((1, 1)), "only what moves is seen to: {what}");
            before = now;
        };
        std::fs::write(&temp, "").expect("write");
        moved("a name that nothing is known of");
        std::fs::File::options().write(true).open(&temp).expect("open").set_len(4096).expect("make room");
        moved("its size");
        // The clock of the file system may stand for a tick.
        std::thread::sleep(Duration::from_millis(20));
        let file = std::fs::File::options().write(true).open(&temp).expect("open");
        std::io::Write::write_all(&mut &file, b"filled").expect("write");
        moved("what is written into it");
        std::fs::rename(&temp, dir.path().join("deep/er/b")).expect("rename");
        moved("its name");
    }

    /// exFAT gives its top a new birth with each mount; the files keep theirs.
    #[test]
    fn a_disk_whose_top_is_born_with_each_mount_is_the_known_one() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        top_made_anew(&mut recorded(dir.path(), &state, &["a", "b", "c", "d"]));
        ["a", "b", "c"].iter().for_each(|name| std::fs::remove_file(dir.path().join(name)).expect("remove"));
        let mut folder = Folder::open(dir.path(), &state).expect("open");
        assert!(!folder.is_settling() && folder.brought_ms().is_none());
        let gone: Vec<_> = scan(&mut folder).into_iter().map(|change| (change.path, change.found)).collect();
        assert_eq!(gone, ["a", "b", "c"].map(|name| (name.to_owned(), Found::Gone)));
        assert_eq!(folder.state.born_ns().expect("note"), folder.root.born_ns().expect("birth"));
    }

    /// It is plugged in once more, and gets another number too.
    #[test]
    fn a_disk_that_is_plugged_in_again_is_the_known_one() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        let mut folder = recorded(dir.path(), &state, &["a", "b", "c", "d"]);
        top_made_anew(&mut folder);
        other_device(&mut folder);
        drop(folder);
        edited(dir.path());
        let mut folder = Folder::open(dir.path(), &state).expect("open");
        assert!(!folder.is_settling() && folder.brought_ms().is_none());
        assert_eq!(what_changed(&mut folder), EDITED);
    }

    /// As if the disk had another number then.
    fn other_device(folder: &mut Folder) {
        for (path, placed) in folder.state.cache().clone() {
            let stat = Stat { dev: placed.stat.dev + 1, ..placed.stat };
            folder.state.set(&path, Some(Placed { stat, ..placed }));
        }
        let ((dev, inode), born_ns) =
            (folder.root.identity().expect("identity"), folder.state.born_ns().expect("birth"));
        folder.state.set_identity((dev + 1, inode), born_ns).expect("note");
    }

    fn edited(dir: &std::path::Path) {
        std::fs::remove_file(dir.join("a")).expect("remove");
        std::fs::write(dir.join("b"), "edited").expect("write");
    }

    /// Path, whether it is gone, whether it is known.
    type Changed<'a> = (&'a str, bool, bool);
    const EDITED: [Changed<'_>; 2] = [("a", true, true), ("b", false, true)];

    fn what_changed(folder: &mut Folder) -> Vec<Changed<'static>> {
        let changes = scan(folder).into_iter();
        let seen = changes.map(|it| (&*it.path.leak(), it.found == Found::Gone, it.known.is_some()));
        seen.collect()
    }

    #[test]
    fn it_is_remembered_for_a_day_that_another_directory_was_taken() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        let mut folder = recorded(dir.path(), &state, &["a"]);
        assert!(folder.brought_ms().is_none());
        let (identity, day_ms, now_ms) = ((1, 1), 86_400_000, ms_of(SystemTime::now()));
        folder.state.set_taken(identity, 1, now_ms - day_ms - 1).expect("note");
        assert!(folder.brought_ms().is_none());
        folder.state.set_taken(identity, 1, now_ms - day_ms / 2).expect("note");
        drop(folder);
        let (state, _) = crate::state::State::open(&state).expect("open");
        assert_eq!(state.taken_ms(), Some(now_ms - day_ms / 2));
    }

    /// A disk gets another number with every start of some machines: what was deleted and edited meanwhile is that.
    #[test]
    fn the_same_tree_on_a_disk_with_another_number_is_the_known_one() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        let mut folder = recorded(dir.path(), &state, &["a", "b", "c", "d"]);
        other_device(&mut folder);
        drop(folder);
        edited(dir.path());
        let mut folder = Folder::open(dir.path(), &state).expect("open");
        assert_eq!(what_changed(&mut folder), EDITED);
        assert_eq!(folder.state.identity().expect("identity"), Some(folder.root.identity().expect("identity")));
    }
}
