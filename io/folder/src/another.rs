//! Another directory where the known one was: whether it is taken for it, and what is still known of it then.
//! The rules: `spec/checkout.md` §2.

use std::time::{Duration, Instant, SystemTime};

use crate::path::ancestors;
use crate::root::Root;
use crate::{Folder, FolderError, Placed, Stat, content};

/// How long nothing may come to a directory or grow in it before it is taken: a copy that is being made is not met halfway.
const STANDS_STILL: Duration = Duration::from_millis(1500);
/// How long that is waited for at most: a file that grows all the time, as a log, would keep the directory away for good. Nothing looks
/// deleted in one that is taken early.
const GROWS: Duration = Duration::from_secs(60);

/// How much of what is known is in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The (file system, inode) of the directory.
    identity: (u64, u64),
    /// Known paths at which something stands …
    there: usize,
    /// … those of them where the very thing stands that was known …
    same: usize,
    /// … and the bytes of all.
    bytes: u64,
}

/// A directory that may be taken, since when it looks like this, and when it was met.
pub(crate) struct Another {
    seen: Seen,
    since: Instant,
    met: Instant,
}

impl Another {
    /// What is known of a directory after one more look at it.
    fn looked(before: Option<&Self>, seen: Seen, now: Instant) -> Self {
        let since = before.filter(|another| another.seen == seen).map_or(now, |another| another.since);
        let met = before.filter(|another| another.seen.identity == seen.identity).map_or(now, |another| another.met);
        Self { seen, since, met }
    }

    /// Whether a look may take it soon. Where something else fails, as the state file, nobody knows when.
    pub(crate) fn is_awaited(&self) -> bool {
        self.met.elapsed() < GROWS * 2
    }

    /// Whether it may be taken now.
    fn is_settled(&self, now: Instant) -> bool {
        now.duration_since(self.since) >= STANDS_STILL || now.duration_since(self.met) >= GROWS
    }
}

impl Folder {
    /// Takes the directory that stands where the known one was, or says why not; then all is as before.
    pub(crate) fn take_another(&mut self) -> Result<(), FolderError> {
        let path = self.root.path().to_owned();
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
        let seen = self.look_for_known(identity);
        // Where a disk is not mounted, what lies in the directory below it is not what was known.
        if seen.there * 2 < self.entries_count() {
            self.another = None;
            return Err(FolderError::RootReplaced { path: self.root.path().to_owned() });
        }
        let is_same_top = known.is_some_and(|(_, inode)| is_one(known_born_ns, born_ns, inode == identity.1));
        if is_same_top && seen.same * 2 > seen.there {
            self.another = None;
            return self.state.set_identity(identity, born_ns);
        }
        let now = Instant::now();
        let another = Another::looked(self.another.as_ref(), seen, now);
        let is_settled = another.is_settled(now);
        self.another = Some(another);
        if !is_settled {
            return Err(FolderError::RootUnsettled { path: self.root.path().to_owned() });
        }
        if let Some(journal) = self.state.take_open_journal()? {
            self.recover(&journal)?;
        }
        self.keep_what_is_unchanged()?;
        self.state.set_identity(identity, born_ns)?;
        self.another = None;
        Ok(())
    }

    fn look_for_known(&self, identity: (u64, u64)) -> Seen {
        self.root.refresh();
        let mut seen = Seen { identity, there: 0, same: 0, bytes: 0 };
        for (path, known) in self.state.cache() {
            if let Some(stat) = self.root.look(path).ok().and_then(|look| look.stat()) {
                seen.there += 1;
                seen.same += usize::from(is_same_thing(&known.stat, &stat));
                seen.bytes = seen.bytes.saturating_add(stat.size);
            }
        }
        seen
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

    /// As if the directory had been removed and copied back, and got the same inode.
    fn made_anew(folder: &mut Folder) {
        let (identity, born_ns) = (folder.root.identity().expect("identity"), folder.root.born_ns().expect("birth"));
        assert_ne!(born_ns, 0, "this file system keeps no births");
        folder.state.set_identity(identity, born_ns - 1).expect("note");
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
        assert!(folder.took_another() && !folder.is_settling());
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

    #[test]
    fn a_directory_in_which_a_file_grows_all_the_time_is_taken_after_a_while() {
        let (now, still) = (Instant::now(), Duration::from_millis(100));
        let seen = |inode, bytes| Seen { identity: (1, inode), there: 2, same: 2, bytes };
        let mut another = Another::looked(None, seen(1, 0), now);
        let mut at = now;
        while at + STANDS_STILL < now + GROWS {
            at += STANDS_STILL;
            another = Another::looked(Some(&another), seen(1, another.seen.bytes + 1), at);
            assert!(!another.is_settled(at + still));
        }
        let quiet = Another::looked(Some(&another), another.seen, at + STANDS_STILL - still);
        assert!(!quiet.is_settled(at + STANDS_STILL - still) && quiet.is_settled(at + STANDS_STILL));
        let grown = seen(1, another.seen.bytes + 1);
        assert!(Another::looked(Some(&another), grown, now + GROWS).is_settled(now + GROWS));
        // Another one is waited for anew.
        assert!(!Another::looked(Some(&another), seen(2, 0), now + GROWS).is_settled(now + GROWS));
    }

    /// A disk gets another number with every start of some machines: what was deleted and edited meanwhile is that.
    #[test]
    fn the_same_tree_on_a_disk_with_another_number_is_the_known_one() {
        let (dir, state) = (tempfile::tempdir().expect("temp dir"), tempfile::tempdir().expect("temp dir"));
        let state = state.path().join("state");
        let mut folder = recorded(dir.path(), &state, &["a", "b", "c", "d"]);
        for (path, placed) in folder.state.cache().clone() {
            let stat = Stat { dev: placed.stat.dev + 1, ..placed.stat };
            folder.state.set(&path, Some(Placed { stat, ..placed }));
        }
        let (dev, inode) = folder.root.identity().expect("identity");
        let born_ns = folder.root.born_ns().expect("birth");
        folder.state.set_identity((dev + 1, inode), born_ns).expect("note");
        drop(folder);
        std::fs::remove_file(dir.path().join("a")).expect("remove");
        std::fs::write(dir.path().join("b"), "edited").expect("write");
        let mut folder = Folder::open(dir.path(), &state).expect("open");
        let changes = scan(&mut folder);
        let seen: Vec<_> =
            changes.iter().map(|it| (it.path.as_str(), it.found == Found::Gone, it.known.is_some())).collect();
        assert_eq!(seen, [("a", true, true), ("b", false, true)]);
        assert_eq!(folder.state.identity().expect("identity"), Some((dev, inode)));
    }
}
