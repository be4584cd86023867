//! The steps of a check-out on the file system, how each is taken back, and how a finished batch is swept.
//!
//! A file that is being written has the permission bits [`HALF_WRITTEN`] until its last byte stands; then it gets its
//! own bits and its modification time. By that, and by the inodes of what stood there before, every half-done state is
//! told from a file that somebody else put there meanwhile.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use sealtide_crypto::blake3;
use sealtide_ibgib::FileKind;

use crate::aside;
use crate::journal::{New, Old, Step};
use crate::path::ancestors;
use crate::root::Root;
use crate::spelling::Spelling;
use crate::stat::Look;
use crate::{FolderError, SkipReason};

/// Called with the name of each step before it is taken; false stops there as a crash would.
pub type StepHook = Box<dyn FnMut(&'static str) -> bool + Send>;

/// Why one item of a plan was not carried out.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Something stands there that is not what the cache knows.
    Dirty(String),
    /// It cannot be done here.
    Skip(SkipReason),
    /// The step hook stopped everything.
    Stopped,
}

impl From<io::Error> for Fail {
    fn from(problem: io::Error) -> Self {
        Self::Skip(SkipReason::System(problem.to_string()))
    }
}

/// What a sweep could not throw away because it was changed meanwhile: (path it stood at, path it was saved to).
pub(crate) type Rescued = Vec<(String, String)>;

/// Carries out steps.
pub(crate) struct Hands<'a> {
    pub(crate) root: &'a Root,
    pub(crate) hook: Option<&'a mut StepHook>,
    /// The names in the directories that steps are taken back in, each of them listed once.
    spelling: RefCell<Spelling>,
}

impl<'a> Hands<'a> {
    pub(crate) fn new(root: &'a Root, hook: Option<&'a mut StepHook>) -> Self {
        Self { root, hook, spelling: RefCell::default() }
    }
}

impl Hands<'_> {
    /// Announces a step.
    pub(crate) fn step(&mut self, name: &'static str) -> Result<(), Fail> {
        let goes_on = self.hook.as_mut().is_none_or(|hook| hook(name));
        if goes_on { Ok(()) } else { Err(Fail::Stopped) }
    }

    /// Makes a directory; one that is there already will do, by this very name.
    pub(crate) fn make_dir(&mut self, path: &str) -> Result<(), Fail> {
        self.step("make_dir")?;
        match self.root.make_dir(path) {
            Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => match self.root.look(path)? {
                // Another of the same batch may have been made under a name that differs only in case.
                Look::Seen(stat, _) if stat.kind == FileKind::Dir => {
                    match Spelling::default().is_listed(self.root, path)? {
                        true => Ok(()),
                        false => Err(Fail::Skip(SkipReason::OtherSpelling)),
                    }
                }
                _ => Err(Fail::Dirty(path.to_owned())),
            },
            other => Ok(other?),
        }
    }

    /// Removes a directory that holds nothing but empty directories.
    pub(crate) fn remove_dir(&mut self, path: &str) -> Result<(), Fail> {
        self.step("remove_dir")?;
        match self.root.remove_empty_tree(path) {
            Err(problem) if problem.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(Fail::Skip(SkipReason::DirectoryNotEmpty))
            }
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Puts a file aside and checks again that it is the one that was known.
    pub(crate) fn lift(&mut self, path: &str, temp: &str, old: &Old) -> Result<(), Fail> {
        self.step("lift")?;
        self.rename_known(path, temp, old, path)
    }

    /// Renames in one step, and checks again.
    pub(crate) fn rename(&mut self, from: &str, to: &str, old: &Old) -> Result<(), Fail> {
        self.step("rename")?;
        let renamed = self.rename_known(from, to, old, from);
        if matches!(&renamed, Err(Fail::Dirty(path)) if path == from) {
            // Somebody put another file there between the look and the rename: it goes back at once.
            match self.root.rename_new(to, from) {
                Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem.into()),
                _ => {}
            }
        }
        renamed
    }

    /// Places what was lifted.
    pub(crate) fn place(&mut self, temp: &str, path: &str) -> Result<(), Fail> {
        self.step("place")?;
        self.root.rename_new(temp, path).map_err(|problem| taken_is_dirty(problem, path))
    }

    /// Swaps the finished `temp` with `path`, and checks that what came out is what was known.
    pub(crate) fn swap_in(&mut self, path: &str, temp: &str, old: &Old) -> Result<(), Fail> {
        self.step("swap")?;
        if !self.root.exchange(temp, path)? {
            self.swap_by_hand(path, temp)?;
        }
        self.expect_known(temp, old, path)
    }

    /// The swap where the file system has none: for a moment nothing stands at `path`.
    fn swap_by_hand(&mut self, path: &str, temp: &str) -> Result<(), Fail> {
        let aside = old_name(temp);
        self.root.rename_new(path, &aside)?;
        self.step("swap_aside")?;
        self.root.rename_new(temp, path).map_err(|problem| taken_is_dirty(problem, path))?;
        self.step("swap_placed")?;
        Ok(self.root.rename_new(&aside, temp)?)
    }

    /// Makes a file executable or not.
    pub(crate) fn set_exec(&mut self, path: &str, exec: bool) -> Result<(), Fail> {
        self.step("set_exec")?;
        Ok(self.root.set_exec(path, exec)?)
    }

    fn rename_known(&mut self, from: &str, to: &str, old: &Old, known: &str) -> Result<(), Fail> {
        if let Err(problem) = self.root.rename_new(from, to) {
            return Err(match problem.kind() {
                io::ErrorKind::NotFound => Fail::Dirty(known.to_owned()),
                _ => taken_is_dirty(problem, to),
            });
        }
        self.expect_known(to, old, known)
    }

    fn expect_known(&mut self, at: &str, old: &Old, path: &str) -> Result<(), Fail> {
        self.step("check_again")?;
        match self.root.look(at)? {
            Look::Seen(stat, _) if old.is_unchanged(&stat) => Ok(()),
            _ => Err(Fail::Dirty(path.to_owned())),
        }
    }

    /// Takes one step back, whether it was taken, half taken or not taken. Doing it twice does no harm.
    pub(crate) fn undo(&self, step: &Step, rescued: &mut Rescued) -> io::Result<()> {
        let root = self.root;
        match step {
            Step::MakeDir { path } if self.is_exact(path)? => {
                self.spelling.borrow_mut().forget(path);
                ignore_in_use(root.remove_dir(path))
            }
            Step::MakeDir { .. } => Ok(()),
            // Nobody else gives a file that name, and while it stands nothing stands at `path` yet.
            Step::Create { temp: Some(temp), .. } if !matches!(root.look(temp)?, Look::Nothing) => {
                root.remove_file(temp)
            }
            // Directories are listed only for what may be ours.
            Step::Create { path, new, .. } if self.is_ours(path, new, None)? && self.is_exact(path)? => {
                self.spelling.borrow_mut().forget(path);
                root.remove_file(path)
            }
            Step::Create { .. } => Ok(()),
            Step::Replace { path, temp, new, old } => self.undo_replace(path, temp, new, old, rescued),
            Step::Lift { path, temp, old } => match root.look(temp)? {
                Look::Nothing => Ok(()),
                _ => self.put_back(temp, path, old, rescued),
            },
            Step::Place { temp, path, old } => match root.look(path)? {
                Look::Seen(stat, _) if old.is_inode(&stat) => {
                    self.spelling.borrow_mut().forget(path);
                    root.rename_new(path, temp)
                }
                _ => Ok(()),
            },
            Step::Rename { from, to, old } => match root.look(to)? {
                Look::Seen(stat, _) if old.is_inode(&stat) => self.put_back(to, from, old, rescued),
                _ => Ok(()),
            },
            Step::RemoveDir { path, kept: true } => {
                root.make_parents(path)?;
                match root.make_dir(path) {
                    Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                    other => other,
                }
            }
            Step::RemoveDir { kept: false, .. } | Step::LeaveDir { .. } => Ok(()),
            Step::SetExec { path, exec, old } => self.undo_exec(path, *exec, old),
        }
    }

    /// Whether a path is that of what answers to it: where names of different case are one, that may be another of the same batch.
    fn is_exact(&self, path: &str) -> io::Result<bool> {
        self.spelling.borrow_mut().is_exact(self.root, &BTreeMap::new(), path)
    }

    fn undo_exec(&self, path: &str, exec: bool, old: &Old) -> io::Result<()> {
        match self.root.look(path)? {
            Look::Seen(stat, _) if old.is_inode(&stat) && stat.exec == exec && exec != old.exec() => {
                self.root.set_exec(path, old.exec())
            }
            _ => Ok(()),
        }
    }

    fn undo_replace(&self, path: &str, temp: &str, new: &New, old: &Old, rescued: &mut Rescued) -> io::Result<()> {
        let aside = old_name(temp);
        let at = match self.root.look(&aside)? {
            // Only a swap by hand leaves this: what stood at `path` before.
            Look::Seen(..) => {
                if self.is_ours(temp, new, Some(old))? {
                    self.root.remove_file(temp)?;
                }
                aside.as_str()
            }
            // Nothing was swapped. Where only the permission was new, that may have been set in place.
            _ if matches!(self.root.look(temp)?, Look::Nothing) => return self.undo_exec(path, new.exec, old),
            // While the old file is at `path`, `temp` is ours, whatever the file system made of its permission bits.
            _ if self.is_ours(temp, new, Some(old))? || self.holds(path, old)? => return self.root.remove_file(temp),
            _ => temp,
        };
        if self.is_ours(path, new, Some(old))? {
            return self.root.rename_over(at, path);
        }
        self.put_back(at, path, old, rescued)
    }

    /// Whether the file that was known stands at a path, changed or not.
    fn holds(&self, path: &str, old: &Old) -> io::Result<bool> {
        Ok(self.root.look(path)?.stat().is_some_and(|stat| old.is_inode(&stat)))
    }

    /// Moves what stands at `at` back to `path`. Where somebody else put something meanwhile, that stays, and what
    /// is at `at` is dropped when it is a version that was recorded, else saved beside.
    fn put_back(&self, at: &str, path: &str, old: &Old, rescued: &mut Rescued) -> io::Result<()> {
        self.root.make_parents(path)?;
        if matches!(self.root.look(path)?, Look::Seen(stat, _) if stat.kind == FileKind::Dir) {
            // A directory of this batch: what was to stand in it has gone back already.
            ignore_in_use(self.root.remove_empty_tree(path))?;
        }
        self.spelling.borrow_mut().forget(at);
        match self.root.rename_new(at, path) {
            Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => self.drop_known(at, path, old, rescued),
            other => other,
        }
    }

    /// Removes what was put aside when it is still what was recorded, else saves it beside `path`.
    fn drop_known(&self, at: &str, path: &str, old: &Old, rescued: &mut Rescued) -> io::Result<()> {
        match self.root.look(at)? {
            Look::Nothing => Ok(()),
            Look::Seen(stat, _) if old.is_unchanged(&stat) => self.root.remove_file(at),
            _ => {
                self.root.make_parents(path)?;
                let saved = aside::rename(self.root, at, path)?;
                rescued.push((path.to_owned(), saved));
                Ok(())
            }
        }
    }

    /// Whether what stands at a path was made by this batch: a file half written, a file with exactly the time
    /// that the batch gives, or a link with its target; and never the inode that stood there before.
    fn is_ours(&self, path: &str, new: &New, old: Option<&Old>) -> io::Result<bool> {
        let Look::Seen(stat, mode) = self.root.look(path)? else { return Ok(false) };
        if old.is_some_and(|old| old.is_inode(&stat)) {
            return Ok(false);
        }
        Ok(match (stat.kind, new.link) {
            (FileKind::File, None) => mode == HALF_WRITTEN || stat.mtime_ns == new.mtime_ns,
            (FileKind::Symlink, Some(target)) => blake3(&self.root.read_link(path)?) == target,
            _ => false,
        })
    }

    /// Takes all steps back, last first. One that fails does not keep the others from being taken back.
    pub(crate) fn undo_all(&self, steps: &[Step], rescued: &mut Rescued) {
        for step in steps.iter().rev() {
            if let Err(problem) = self.undo(step, rescued) {
                tracing::warn!(?step, %problem, "a step of a check-out could not be taken back");
            }
        }
    }

    /// Removes what a finished batch put aside, then the directories that it emptied. `kept` says which directories
    /// stand for themselves.
    pub(crate) fn sweep(
        &mut self,
        steps: &[Step],
        kept: &dyn Fn(&str) -> bool,
        rescued: &mut Rescued,
    ) -> Result<(), FolderError> {
        let mut emptied = std::collections::BTreeSet::new();
        for step in steps {
            let left = match step {
                Step::Lift { path, temp, old } => {
                    self.step("sweep").map_err(|_| FolderError::Stopped)?;
                    self.drop_known(temp, path, old, rescued).map(|()| Some(path))
                }
                Step::Replace { path, temp, old, .. } => {
                    self.step("sweep").map_err(|_| FolderError::Stopped)?;
                    self.drop_known(temp, path, old, rescued).map(|()| None)
                }
                Step::Rename { from, .. } => Ok(Some(from)),
                Step::RemoveDir { path, .. } => Ok(Some(path)),
                // A directory that was made may have been for something that was not made after all.
                Step::MakeDir { path } => {
                    emptied.insert(path.as_str());
                    Ok(None)
                }
                Step::LeaveDir { path } => {
                    emptied.insert(path.as_str());
                    Ok(Some(path))
                }
                Step::Create { .. } | Step::Place { .. } | Step::SetExec { .. } => Ok(None),
            };
            match left {
                Ok(left) => emptied.extend(left.into_iter().flat_map(|path| ancestors(path))),
                Err(problem) => tracing::warn!(?step, %problem, "what was put aside could not be removed"),
            }
        }
        // Deeper directories sort after the ones above them.
        for dir in emptied.into_iter().rev().filter(|dir| !kept(dir)) {
            if let Err(problem) = ignore_in_use(self.root.remove_dir(dir)) {
                tracing::warn!(dir, %problem, "an empty directory could not be removed");
            }
        }
        Ok(())
    }
}

fn taken_is_dirty(problem: io::Error, path: &str) -> Fail {
    match problem.kind() {
        io::ErrorKind::AlreadyExists => Fail::Dirty(path.to_owned()),
        _ => problem.into(),
    }
}

/// A directory that is in use, gone, or no directory any more is not ours to remove.
fn ignore_in_use(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(problem)
            if matches!(
                problem.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn old_name(temp: &str) -> String {
    format!("{temp}.old")
}

/// Permission bits of a file that is being written: nobody but its writer sees half a file.
pub(crate) const HALF_WRITTEN: u32 = 0o200;

#[cfg(test)]
mod tests {
    use super::*;

    /// A recovery takes back thousands of steps in one directory.
    #[test]
    fn a_directory_is_listed_once_and_only_for_what_may_be_ours() {
        let dir = tempfile::tempdir().expect("temp dir");
        let root = Root::open(dir.path()).expect("open");
        let (new, paths) = (New { mtime_ns: 5, link: None, exec: false }, ["one", "two", "theirs"]);
        for path in paths {
            let file = std::fs::File::create(dir.path().join(path)).expect("make");
            crate::root::finish_file(&file, 0o600, if path == "theirs" { 6 } else { 5 }).expect("finish");
        }
        let hands = Hands::new(&root, None);
        let undo = |path: &str| {
            let step = Step::Create { path: path.to_owned(), new: new.clone(), temp: None };
            hands.undo(&step, &mut Rescued::new()).expect("undo");
            hands.spelling.borrow().listings()
        };
        assert_eq!(["theirs", "one", "two"].map(undo), [0, 1, 1]);
        assert_eq!(paths.map(|path| dir.path().join(path).exists()), [false, false, true]);
    }
}
