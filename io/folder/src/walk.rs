//! The first half of a scan: lists the directory and looks at every path, reading nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use sealtide_ibgib::FileKind;

use crate::path::{PATH_BYTES_MAX, ancestors, check_path, is_within, join, split};
use crate::root::{Root, entries, is_mount_root, look_at, open_dir};
use crate::rules::{IGNORE_FILE, Rules};
use crate::spelling::Spelling;
use crate::stat::Look;
use crate::{PathProblem, Placed, SkipReason, Stat};

/// What a walk saw.
#[derive(Default)]
pub(crate) struct Walked {
    /// Files and links, and directories that count as empty.
    pub(crate) found: BTreeMap<String, Stat>,
    /// Paths that were not looked at well enough to say anything about them or what is below.
    pub(crate) unknown: BTreeSet<String>,
    /// Paths left out, for a person.
    pub(crate) skipped: Vec<(String, SkipReason)>,
    /// What was walked: a cached path in here that was not found has vanished.
    pub(crate) scopes: Scopes,
    /// Directories that something is mounted at, or that are on another file system than the one above them.
    pub(crate) mounts: BTreeSet<String>,
}

/// The parts of the directory that a walk covers.
#[derive(Default)]
pub(crate) struct Scopes {
    /// Whole subtrees, none inside another.
    pub(crate) trees: BTreeSet<String>,
    /// Single directories that were asked only whether they are empty.
    pub(crate) emptiness: BTreeSet<String>,
}

/// Walks the tree.
pub(crate) struct Walk<'a> {
    root: &'a Root,
    rules: &'a mut Rules,
    cache: &'a BTreeMap<String, Placed>,
    spelling: Spelling,
    walked: Walked,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(root: &'a Root, rules: &'a mut Rules, cache: &'a BTreeMap<String, Placed>) -> Self {
        Self { root, rules, cache, spelling: Spelling::default(), walked: Walked::default() }
    }

    /// Walks everything.
    pub(crate) fn everything(mut self) -> io::Result<Walked> {
        self.walked.scopes.trees.insert(String::new());
        let (dev, _) = self.root.identity()?;
        self.directory(self.root.top(), "", dev)?;
        Ok(self.walked)
    }

    /// Walks the named paths and what is below them.
    pub(crate) fn only(mut self, dirty: &[String]) -> io::Result<Walked> {
        // A rule file at the top says something about everything.
        if dirty.iter().any(|path| path.is_empty() || path == IGNORE_FILE) {
            return self.everything();
        }
        self.choose_scopes(dirty);
        for tree in self.walked.scopes.trees.clone() {
            self.subtree(&tree);
        }
        for dir in self.walked.scopes.emptiness.clone() {
            self.emptiness(&dir);
        }
        Ok(self.walked)
    }

    /// Of the dirty paths the topmost; a path whose parent is gone stands for the topmost parent that is gone.
    fn choose_scopes(&mut self, dirty: &[String]) {
        let mut trees = BTreeSet::new();
        for path in dirty.iter().filter(|path| check_path(path).is_ok()) {
            let gone = ancestors(path).filter(|dir| self.root.dir(dir).is_err()).last();
            trees.insert(gone.unwrap_or(path).to_owned());
        }
        let inner = |path: &String| ancestors(path).any(|dir| trees.contains(dir));
        let scopes = &mut self.walked.scopes;
        scopes.trees = trees.iter().filter(|path| !inner(path)).cloned().collect();
        // A rule file says something about everything beside and below it.
        for path in scopes.trees.clone() {
            if let Some(dir) = rule_file_dir(&path) {
                scopes.trees.insert(dir.to_owned());
            }
        }
        let all = scopes.trees.clone();
        scopes.trees.retain(|path| !ancestors(path).any(|dir| all.contains(dir)));
        let parents = scopes.trees.iter().filter_map(|path| ancestors(path).next());
        scopes.emptiness = parents.map(str::to_owned).collect();
    }

    fn subtree(&mut self, path: &str) {
        match self.look_exactly(path) {
            Ok(look) => {
                let is_dir = look.stat().is_some_and(|stat| stat.kind == FileKind::Dir);
                if self.rules.is_ignored(self.root, path, is_dir) {
                    self.walked.unknown.insert(path.to_owned());
                    return;
                }
                let above = self.root.dev_of(ancestors(path).next().unwrap_or_default()).ok().flatten();
                self.see(path.to_owned(), look, above, |walk| walk.root.dir(path));
            }
            Err(problem) => self.leave_out(path.to_owned(), SkipReason::Unreadable(problem.to_string())),
        }
    }

    /// What stands at a path by exactly this name.
    fn look_exactly(&mut self, path: &str) -> io::Result<Look> {
        let look = self.root.look(path)?;
        let (root, above) = (self.root, split(path).0);
        let is_it = matches!(look, Look::Nothing)
            || self.spelling.is_listed(root, path)? && self.spelling.is_exact(root, self.cache, above)?;
        Ok(if is_it { look } else { Look::Nothing })
    }

    /// Whether a directory above a change became empty, or stopped being empty.
    fn emptiness(&mut self, path: &str) {
        let Ok(dir) = self.root.dir(path) else { return };
        if self.rules.is_ignored(self.root, path, true) {
            self.walked.unknown.insert(path.to_owned());
            return;
        }
        let (Ok(names), Ok(look)) = (entries(&*dir), look_at(&*dir, c".")) else {
            self.walked.unknown.insert(path.to_owned());
            return;
        };
        let mut tracked = false;
        let mut bare = true;
        for (name, kind) in names {
            let below = name.to_str().map(|name| join(path, name));
            let is_dir = kind == FileType::Directory;
            bare &= below.as_ref().is_ok_and(|below| matches!(check_path(below), Err(PathProblem::Reserved)));
            let counts =
                matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Directory | FileType::Unknown);
            tracked |= counts && below.is_ok_and(|below| !self.rules.is_ignored_here(self.root, &below, is_dir));
        }
        if let Some(stat) = look.stat().filter(|_| self.counts_as_empty(path, tracked, bare)) {
            self.walked.found.insert(path.to_owned(), stat);
        }
    }

    /// Lists an open directory. Returns nothing: whether it is empty is noted at its own path.
    fn directory(&mut self, dir: &OwnedFd, path: &str, dev: u64) -> io::Result<()> {
        let names = entries(dir)?;
        if !names.iter().any(|(name, _)| name.as_bytes() == IGNORE_FILE.as_bytes()) {
            self.rules.has_none(path);
        }
        // All that is beside such a file counts as ignored; the file itself is left alone too.
        let problem = self.rules.problem(self.root, path);
        let unreadable = problem.is_some();
        if let Some(reason) = problem {
            self.leave_out(join(path, IGNORE_FILE), reason);
        }
        let mut tracked = false;
        let mut bare = true;
        for (name, kind) in names {
            let Ok(text) = name.to_str() else {
                bare = false;
                let shown = join(path, &name.to_string_lossy());
                self.walked.skipped.push((shown, SkipReason::NameNotUtf8));
                continue;
            };
            let below = join(path, text);
            match check_path(&below) {
                Err(PathProblem::Reserved) => continue,
                Err(problem) => {
                    (bare, tracked) = (false, true);
                    self.leave_out(below, problem.into());
                    continue;
                }
                Ok(()) => bare = false,
            }
            if unreadable && text == IGNORE_FILE {
                continue;
            }
            // The kind costs no look where the file system tells it with the name.
            if kind != FileType::Unknown && self.is_ignored(&below, kind == FileType::Directory) {
                continue;
            }
            let look = match look_at(dir, name.as_c_str()) {
                Ok(look) => look,
                Err(problem) => {
                    self.leave_out(below, SkipReason::Unreadable(problem.to_string()));
                    continue;
                }
            };
            if kind == FileType::Unknown {
                let is_dir = look.stat().is_some_and(|stat| stat.kind == FileKind::Dir);
                if self.is_ignored(&below, is_dir) {
                    continue;
                }
            }
            tracked |= matches!(look, Look::Seen(..));
            self.see(below, look, Some(dev), |_| Ok(open_dir(dir, text)?.into()));
        }
        if self.counts_as_empty(path, tracked, bare)
            && let Some(stat) = look_at(dir, c".")?.stat()
        {
            self.walked.found.insert(path.to_owned(), stat);
        }
        Ok(())
    }

    /// Takes what stands at a path in a directory of the file system `above`.
    fn see(
        &mut self,
        path: String,
        look: Look,
        above: Option<u64>,
        open: impl FnOnce(&Self) -> io::Result<std::sync::Arc<OwnedFd>>,
    ) {
        match look {
            Look::Nothing => {}
            Look::Special => self.leave_out(path, SkipReason::Special),
            Look::Seen(stat, _) if stat.kind == FileKind::Dir => {
                // Nothing below could have a path short enough.
                if path.len() + 2 > PATH_BYTES_MAX {
                    self.leave_out(path, PathProblem::PathTooLong.into());
                    return;
                }
                let is_other = above.is_some_and(|above| above != stat.dev);
                let listed = open(self).and_then(|dir| {
                    if is_other || is_mount_root(&*dir)? {
                        self.walked.mounts.insert(path.clone());
                    }
                    self.directory(&dir, &path, stat.dev)
                });
                if let Err(problem) = listed {
                    self.leave_out(path, SkipReason::Unreadable(problem.to_string()));
                }
            }
            Look::Seen(stat, _) => drop(self.walked.found.insert(path, stat)),
        }
    }

    /// A directory is new as an empty one only when truly nothing is in it. Once recorded it stays one as long as
    /// nothing shared is in it: an ignored file that appears must not delete it elsewhere.
    fn counts_as_empty(&self, path: &str, tracked: bool, bare: bool) -> bool {
        let recorded = || self.cache.get(path).is_some_and(|placed| placed.stat.kind == FileKind::Dir);
        !path.is_empty() && (bare || (!tracked && recorded()))
    }

    /// An ignored path is left alone: it is neither new nor changed nor gone.
    fn is_ignored(&mut self, path: &str, is_dir: bool) -> bool {
        let ignored = self.rules.is_ignored_here(self.root, path, is_dir);
        if ignored {
            self.walked.unknown.insert(path.to_owned());
        }
        ignored
    }

    fn leave_out(&mut self, path: String, reason: SkipReason) {
        self.walked.unknown.insert(path.clone());
        self.walked.skipped.push((path, reason));
    }
}

impl Walked {
    /// Leaves everything at a directory alone, and what is in it.
    pub(crate) fn leave_alone(&mut self, path: &str, reason: SkipReason) {
        self.found.retain(|found, _| !is_within(found, path));
        self.unknown.insert(path.to_owned());
        self.skipped.push((path.to_owned(), reason));
    }

    /// The cached paths that were covered and are not there any more.
    pub(crate) fn vanished<'c>(&self, cache: &'c BTreeMap<String, Placed>) -> Vec<(&'c str, &'c Placed)> {
        let covered: Vec<(&'c String, &'c Placed)> = if self.scopes.trees.contains("") {
            cache.iter().collect()
        } else {
            let trees = self.scopes.trees.iter().flat_map(|tree| within(cache, tree));
            let single = self.scopes.emptiness.iter().filter_map(|path| cache.get_key_value(path));
            // Only the entry of the directory itself was asked about, and only as a directory.
            trees.chain(single.filter(|(_, placed)| placed.stat.kind == FileKind::Dir)).collect()
        };
        covered
            .into_iter()
            .filter(|(path, _)| !self.found.contains_key(*path) && !self.is_unknown(path))
            .map(|(path, placed)| (path.as_str(), placed))
            .collect()
    }

    fn is_unknown(&self, path: &str) -> bool {
        self.unknown.contains(path) || ancestors(path).any(|dir| self.unknown.contains(dir))
    }
}

/// The entries at `tree` and below it.
pub(crate) fn within<'c, 't>(
    cache: &'c BTreeMap<String, Placed>,
    tree: &'t str,
) -> impl Iterator<Item = (&'c String, &'c Placed)> + use<'c, 't> {
    // Names that sort between `tree` and `tree/` (as `tree-2`) are not below it.
    cache
        .range(tree.to_owned()..)
        .take_while(move |(path, _)| path.starts_with(tree))
        .filter(move |(path, _)| is_within(path, tree))
}

fn rule_file_dir(path: &str) -> Option<&str> {
    let (dir, name) = crate::path::split(path);
    (name == IGNORE_FILE && !dir.is_empty()).then_some(dir)
}
