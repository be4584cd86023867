//! One directory and what is known about it.

use std::path::Path;
use std::time::SystemTime;

use sealtide_ibgib::{Sid, TimelineId};

use crate::another::Another;
use crate::hands::StepHook;
use crate::root::Root;
use crate::state::State;
use crate::{FolderError, Found, LocalChange, PathProblem, Placed, aside, check_path};

/// A directory and what is known about it. One value per directory and state file; the state file is locked.
pub struct Folder {
    pub(crate) root: Root,
    pub(crate) state: State,
    pub(crate) hook: Option<StepHook>,
    /// Names temporary files; begins at the time of opening, so that names of a lost state are not met again.
    pub(crate) batches: u64,
    /// Scans take what ignore rules cover too.
    pub(crate) unruled: bool,
    /// Another directory stands where the known one was, and is not taken yet.
    pub(crate) another: Option<Another>,
    /// Another directory was taken for the one that was known, and nobody was told yet.
    pub(crate) took_another: bool,
}

impl Folder {
    /// Opens the directory `root` with the state file `state`, which is made when it is missing and must not lie in
    /// the directory. What a crash left half written is finished or taken back. Another directory than the one that was known is opened,
    /// but every operation fails with [`FolderError::RootUnsettled`] until it has stood still for a while.
    ///
    /// # Errors
    /// [`FolderError::Root`] when the directory cannot be opened, [`FolderError::RootReplaced`] when it is another
    /// one and fewer than half of the files are there that were known, [`FolderError::State`] and [`FolderError::Damaged`] for the state.
    pub fn open(root: &Path, state: &Path) -> Result<Self, FolderError> {
        let failed = |source| FolderError::Root { path: root.to_owned(), source };
        let opened = Root::open(root).map_err(failed)?;
        let (state, journal) = State::open(state)?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let batches = u64::try_from(since.as_nanos()).unwrap_or(0);
        let (another, took_another) = (None, false);
        let mut folder = Self { root: opened, state, hook: None, batches, unruled: false, another, took_another };
        match folder.judge_root() {
            // The first operation looks again.
            Err(FolderError::RootUnsettled { .. }) => return Ok(folder),
            other => other?,
        }
        if let Some(journal) = journal {
            folder.recover(&journal)?;
        }
        Ok(folder)
    }

    /// Whether the state file failed, as on a full disk: nothing can be noted until [`Folder::open_again`] succeeds.
    pub fn has_failed(&self) -> bool {
        self.state.has_failed()
    }

    /// Opens the state file again after it failed. As after a crash the last notes may be lost, and what a check-out had begun is finished
    /// or taken back.
    ///
    /// # Errors
    /// [`FolderError::State`] as long as it cannot be opened, [`FolderError::Damaged`].
    pub fn open_again(&mut self) -> Result<(), FolderError> {
        match self.state.open_again()? {
            Some(journal) if self.another.is_none() => self.recover(&journal),
            _ => Ok(()),
        }
    }

    /// Whether another directory has taken the place of the one that was known since this was last asked: a watch is still on the old one,
    /// and what it lacks is not known any more.
    pub fn took_another(&mut self) -> bool {
        std::mem::take(&mut self.took_another)
    }

    /// Whether another directory stands where the known one was, and it is worth while to wait until it is taken or refused.
    pub fn is_settling(&self) -> bool {
        self.another.as_ref().is_some_and(Another::is_awaited)
    }

    /// From here on scans take everything, whatever files with ignore rules say: for a directory that is a copy.
    pub fn take_ignored_too(&mut self) {
        self.unruled = true;
    }

    /// The next scan of a path reads it, whatever its times say.
    pub fn doubt(&mut self, path: &str) {
        if let Some(mut placed) = self.state.get(path).copied() {
            placed.stat.racy = true;
            self.state.set(path, Some(placed));
        }
    }

    /// Whether anything is known to stand below a path.
    pub fn has_known_below(&self, path: &str) -> bool {
        crate::walk::within(self.state.cache(), path).any(|(below, _)| below != path)
    }

    /// Notes that a tip stands at a path, as it was when it was scanned.
    ///
    /// # Errors
    /// [`FolderError::State`] when many notes had to be written and could not be.
    pub fn placed(&mut self, path: &str, placed: Placed) -> Result<(), FolderError> {
        self.state.set(path, Some(placed));
        self.state.flush_if_full()
    }

    /// Notes many paths at once and writes them durably.
    ///
    /// # Errors
    /// [`FolderError::State`] when they cannot be written.
    pub fn placed_many(&mut self, placed: impl IntoIterator<Item = (String, Placed)>) -> Result<(), FolderError> {
        for (path, placed) in placed {
            self.state.set(&path, Some(placed));
        }
        self.state.flush()
    }

    /// Notes that a change was recorded as `sid` of `timeline`: the new path stands, the old one is forgotten.
    ///
    /// # Errors
    /// As [`Folder::placed`].
    pub fn settle(&mut self, change: &LocalChange, timeline: TimelineId, sid: Sid) -> Result<(), FolderError> {
        if let Some(from) = &change.from {
            self.state.set(from, None);
        }
        let gone = change.found == Found::Gone;
        self.state.set(&change.path, (!gone).then(|| change.placed(timeline, sid)));
        self.state.flush_if_full()
    }

    /// Notes that nothing known stands at a path.
    ///
    /// # Errors
    /// As [`Folder::placed`].
    pub fn forget(&mut self, path: &str) -> Result<(), FolderError> {
        self.state.set(path, None);
        self.state.flush_if_full()
    }

    /// Writes all notes durably. Without it a crash may lose the last ones: the next scan then reports changes again
    /// that were recorded already.
    ///
    /// # Errors
    /// [`FolderError::State`] when they cannot be written.
    pub fn flush(&mut self) -> Result<(), FolderError> {
        self.state.flush()
    }

    /// Renames the local file at `path` to the first free `stem (local yyyy-mm-dd).ext` beside it and forgets the
    /// path. Returns the new path, which the next scan finds as a new file.
    ///
    /// # Errors
    /// [`FolderError::Path`] when the path is not one of a folder or cannot be renamed.
    pub fn set_aside(&mut self, path: &str) -> Result<String, FolderError> {
        let failed = |source| FolderError::Path { path: path.to_owned(), source };
        let wrong = |problem: PathProblem| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, problem));
        check_path(path).map_err(wrong)?;
        self.root.refresh();
        let to = aside::rename(&self.root, path, path).map_err(failed)?;
        self.state.set(path, None);
        self.state.flush()?;
        Ok(to)
    }

    /// Calls `hook` before every step of every check-out; where it returns false the check-out stops as by a crash:
    /// it returns [`FolderError::Stopped`], takes nothing back, and the folder must be opened again.
    #[doc(hidden)]
    pub fn set_step_hook(&mut self, hook: Option<StepHook>) {
        self.hook = hook;
    }

    /// Acts as on a file system that can neither swap two paths nor refuse to replace, as some network ones.
    #[doc(hidden)]
    pub fn set_plain_renames(&mut self, plain: bool) {
        self.root.plain_renames = plain;
    }

    /// Acts as on a file system that takes names of different case for one.
    #[doc(hidden)]
    pub fn set_one_case(&mut self, one: bool) {
        self.root.one_case = one;
    }

    /// What is known to stand at a path.
    pub fn known(&self, path: &str) -> Option<&Placed> {
        self.state.get(path)
    }

    /// Everything known, in order of paths.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Placed)> {
        self.state.cache().iter().map(|(path, placed)| (path.as_str(), placed))
    }

    /// The number of paths known.
    pub fn entries_count(&self) -> usize {
        self.state.cache().len()
    }

    /// The directory, as it was opened.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// The directory must still be where it was, or one that is taken for it; what an earlier failure left under way is taken back.
    pub(crate) fn check_root(&mut self) -> Result<(), FolderError> {
        match self.root.is_in_place() {
            Ok(true) if self.another.is_none() => {}
            Ok(_) => self.take_another()?,
            Err(source) => return Err(FolderError::Root { path: self.root.path().to_owned(), source }),
        }
        match self.state.take_open_journal()? {
            Some(journal) => self.recover(&journal),
            None => Ok(()),
        }
    }

    pub(crate) fn hook(&mut self, name: &'static str) -> Result<(), FolderError> {
        let goes_on = self.hook.as_mut().is_none_or(|hook| hook(name));
        if goes_on { Ok(()) } else { Err(FolderError::Stopped) }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The notes only spare work; a check-out that was stopped must stay as it is.
        if let Err(problem) = self.state.flush_if_idle() {
            tracing::warn!(%problem, "the last notes about a folder could not be written");
        }
    }
}
