//! What a check-out is asked to do, and the steps that each item needs as the directory stands now.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sealtide_crypto::blake3;
use sealtide_ibgib::{Address, ChunkHash, Content, FileKind, Manifest, Sid, TimelineId};

use crate::hands::Fail;
use crate::journal::{New, Old, Step};
use crate::path::{TEMP_PREFIX, ancestors, check_path, join, split};
use crate::root::Root;
use crate::rules::Rules;
use crate::spelling::Spelling;
use crate::stat::{Look, mtime_ns_of};
use crate::{Placed, SkipReason, Stat, content};

/// One wish for the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOut {
    /// This content stands at `path`, whatever was known to stand there before.
    Put {
        /// Where.
        path: String,
        /// File, link, or empty directory.
        kind: FileKind,
        /// Whether the owner may execute the file.
        exec: bool,
        /// Modification time to set, ms since 1970; times before 1970 or after 2255 are drawn in.
        mtime_ms: i64,
        /// Text, target, the address of a binary, or nothing for a directory.
        content: Content,
        /// The timeline that owns the path.
        timeline: TimelineId,
        /// The tip of it.
        sid: Sid,
    },
    /// What stands at `from` stands at `to`, with the same content: a rename, nothing is written.
    Move {
        /// Where it stands.
        from: String,
        /// Where it shall stand.
        to: String,
        /// Whether the owner may execute the file.
        exec: bool,
        /// The timeline that owns the path.
        timeline: TimelineId,
        /// The new tip of it.
        sid: Sid,
    },
    /// Nothing stands at `path`.
    Remove {
        /// Where.
        path: String,
    },
}

impl CheckOut {
    /// The path that the wish is about; of a move the new one.
    pub fn path(&self) -> &str {
        match self {
            Self::Put { path, .. } | Self::Remove { path } | Self::Move { to: path, .. } => path,
        }
    }
}

/// Where a check-out gets the content of binaries.
pub trait ContentSource: Sync {
    /// The binary that stands under an address.
    ///
    /// # Errors
    /// Whatever keeps it from being loaded; the item is skipped.
    fn binary(&self, address: &Address) -> std::io::Result<Binary>;

    /// The bytes of a chunk. They must have been checked against the hash: a check-out checks only the length.
    ///
    /// # Errors
    /// Whatever keeps it from being loaded; the item is skipped.
    fn chunk(&self, hash: &ChunkHash) -> std::io::Result<Bytes>;
}

/// A binary, as a store holds it. Spec: ibgib §15.
#[derive(Clone, Debug)]
pub enum Binary {
    /// One record.
    Bytes(Bytes),
    /// A manifest of chunks.
    Chunks(Manifest),
}

/// The steps of one item; none when it already stands so.
pub(crate) type Steps = Vec<Step>;

/// Looks at the directory and the cache, and says which steps a wish needs.
pub(crate) struct Planner<'a> {
    pub(crate) root: &'a Root,
    pub(crate) cache: &'a BTreeMap<String, Placed>,
    pub(crate) rules: &'a mut Rules,
    /// Directories where something was mounted and is not now.
    pub(crate) unmounted: &'a BTreeSet<String>,
    pub(crate) spelling: Spelling,
    /// Names the temporary files of this batch.
    pub(crate) batch: u64,
    pub(crate) temps: u64,
    /// Directories that must be made before anything else.
    pub(crate) missing: BTreeSet<String>,
    /// Paths that are put aside before anything is placed: moves that stand in each other's way.
    pub(crate) lifted: BTreeSet<String>,
}

impl Planner<'_> {
    pub(crate) fn steps(&mut self, wish: &CheckOut) -> Result<Steps, Fail> {
        match wish {
            CheckOut::Put { path, kind, exec, mtime_ms, content, .. } => {
                self.check_target(path, *kind == FileKind::Dir)?;
                self.check_spelling(path)?;
                let link = match (kind, content) {
                    (FileKind::File, Content::Text(_) | Content::Bin(_)) | (FileKind::Dir, Content::None) => None,
                    (FileKind::Symlink, Content::Target(target)) => Some(blake3(target.as_bytes())),
                    _ => return Err(Fail::Skip(SkipReason::Content("it does not fit the kind".to_owned()))),
                };
                self.put(path, *kind, New { mtime_ns: mtime_ns_of(*mtime_ms), link, exec: *exec })
            }
            CheckOut::Move { from, to, exec, .. } => {
                check_path(from).map_err(SkipReason::from).map_err(Fail::Skip)?;
                self.check_mounted(from)?;
                self.check_target(to, false)?;
                self.check_spelling(to)?;
                self.rename(from, to, *exec)
            }
            CheckOut::Remove { path } => {
                self.check_target(path, false)?;
                self.remove(path)
            }
        }
    }

    fn check_target(&mut self, path: &str, is_dir: bool) -> Result<(), Fail> {
        check_path(path).map_err(SkipReason::from).map_err(Fail::Skip)?;
        self.check_mounted(path)?;
        if self.rules.is_ignored(self.root, path, is_dir) {
            return Err(Fail::Skip(self.rules.reason(self.root, path)));
        }
        Ok(())
    }

    /// What is done below a mount point while nothing is mounted there would be undone for everybody once something is.
    fn check_mounted(&self, path: &str) -> Result<(), Fail> {
        let is_away = std::iter::once(path).chain(ancestors(path)).any(|at| self.unmounted.contains(at));
        if is_away { Err(Fail::Skip(SkipReason::NotMounted)) } else { Ok(()) }
    }

    /// What answers to a name that the directory does not list is another path: it must not be taken for this one.
    fn check_spelling(&mut self, path: &str) -> Result<(), Fail> {
        let is_exact = self.spelling.is_exact(self.root, self.cache, path)?;
        if is_exact { Ok(()) } else { Err(Fail::Skip(SkipReason::OtherSpelling)) }
    }

    fn put(&mut self, path: &str, kind: FileKind, new: New) -> Result<Steps, Fail> {
        let path = path.to_owned();
        match self.root.look(&path)? {
            Look::Special => Err(Fail::Skip(SkipReason::Special)),
            Look::Nothing if self.cache.contains_key(&path) => Err(Fail::Dirty(path)),
            Look::Nothing => {
                self.need_parents(&path)?;
                Ok(vec![if kind == FileKind::Dir { Step::MakeDir { path } } else { self.create(path, new) }])
            }
            Look::Seen(stat, _) if stat.kind == FileKind::Dir => Ok(match kind {
                FileKind::Dir => Vec::new(),
                _ => {
                    let mut steps = self.clear_dir(&path)?;
                    steps.push(self.create(path, new));
                    steps
                }
            }),
            Look::Seen(stat, _) => {
                let old = self.expect_known(&path, &stat)?;
                let temp = self.temp(&path, &stat);
                Ok(match kind {
                    FileKind::Dir => vec![Step::Lift { path: path.clone(), temp, old }, Step::MakeDir { path }],
                    _ => vec![Step::Replace { path, temp, new, old }],
                })
            }
        }
    }

    /// A new file is made beside the place where it will stand, so that it takes the group and the access list that a directory hands on.
    fn create(&mut self, path: String, new: New) -> Step {
        let temp = Some(join(split(&path).0, &self.temp_name()));
        Step::Create { path, new, temp }
    }

    fn remove(&mut self, path: &str) -> Result<Steps, Fail> {
        let known = self.cache.get(path);
        match self.root.look(path)? {
            Look::Nothing => Ok(Vec::new()),
            Look::Special => Err(Fail::Skip(SkipReason::Special)),
            // A directory that is no placement, or is one but not empty, is there for what is in it.
            Look::Seen(stat, _) if stat.kind == FileKind::Dir => match known {
                Some(placed) if placed.stat.kind != FileKind::Dir => Err(Fail::Dirty(path.to_owned())),
                Some(_) if self.root.dir(path).and_then(crate::root::entries)?.is_empty() => self.clear_dir(path),
                _ => Ok(Vec::new()),
            },
            Look::Seen(stat, _) => {
                let old = self.expect_known(path, &stat)?;
                Ok(vec![Step::Lift { path: path.to_owned(), temp: self.temp(path, &stat), old }])
            }
        }
    }

    fn rename(&mut self, from: &str, to: &str, exec: bool) -> Result<Steps, Fail> {
        let stat = match self.root.look(from)? {
            Look::Seen(stat, _) if stat.kind != FileKind::Dir => stat,
            Look::Seen(..) if self.cache.get(from).is_some_and(|placed| placed.stat.kind == FileKind::Dir) => {
                return self.rename_dir(from, to);
            }
            _ => return Err(Fail::Dirty(from.to_owned())),
        };
        let old = self.expect_known(from, &stat)?;
        let mut steps = Vec::new();
        match self.root.look(to)? {
            Look::Nothing => self.need_parents(to)?,
            Look::Special => return Err(Fail::Skip(SkipReason::Special)),
            Look::Seen(stat, _) if stat.kind == FileKind::Dir => steps = self.clear_dir(to)?,
            Look::Seen(..) if self.lifted.contains(to) => {}
            Look::Seen(..) => return Err(Fail::Dirty(to.to_owned())),
        }
        if self.lifted.is_empty() {
            steps.push(Step::Rename { from: from.to_owned(), to: to.to_owned(), old: old.clone() });
        } else {
            let temp = self.temp(from, &stat);
            steps.insert(0, Step::Lift { path: from.to_owned(), temp: temp.clone(), old: old.clone() });
            steps.push(Step::Place { temp, path: to.to_owned(), old: old.clone() });
        }
        if stat.kind == FileKind::File && stat.exec != exec {
            steps.push(Step::SetExec { path: to.to_owned(), exec, old });
        }
        Ok(steps)
    }

    /// An empty directory is not moved: it is made there and removed here.
    fn rename_dir(&mut self, from: &str, to: &str) -> Result<Steps, Fail> {
        let mut steps = vec![Step::LeaveDir { path: from.to_owned() }];
        match self.root.look(to)? {
            Look::Nothing => {
                self.need_parents(to)?;
                steps.push(Step::MakeDir { path: to.to_owned() });
                Ok(steps)
            }
            Look::Seen(stat, _) if stat.kind == FileKind::Dir => Ok(steps),
            Look::Seen(..) if self.lifted.contains(to) => {
                steps.push(Step::MakeDir { path: to.to_owned() });
                Ok(steps)
            }
            _ => Err(Fail::Dirty(to.to_owned())),
        }
    }

    /// Removes a directory in which nothing but empty directories will be left by then. Those that stand for
    /// themselves are named, so that they can be made again; one that is to stay is in the way.
    fn clear_dir(&self, path: &str) -> Result<Steps, Fail> {
        let mut steps = Vec::new();
        for (kept, _) in crate::walk::within(self.cache, path).filter(|(_, placed)| placed.stat.kind == FileKind::Dir) {
            if kept != path && !self.lifted.contains(kept) {
                return Err(Fail::Skip(SkipReason::DirectoryNotEmpty));
            }
            steps.push(Step::RemoveDir { path: kept.clone(), kept: true });
        }
        // Deeper directories sort after the ones above them.
        steps.reverse();
        if steps.last() != Some(&Step::RemoveDir { path: path.to_owned(), kept: true }) {
            steps.push(Step::RemoveDir { path: path.to_owned(), kept: false });
        }
        Ok(steps)
    }

    /// What stands at `path` must be what the cache knows.
    fn expect_known(&self, path: &str, stat: &Stat) -> Result<Old, Fail> {
        let known = match self.cache.get(path) {
            Some(placed) if placed.stat.is_same(stat) => {
                // The times say nothing about the moment after the entry was made: only the content does.
                !placed.stat.racy || content::hash(self.root, path, stat.kind)? == placed.content
            }
            _ => false,
        };
        if known { Ok(Old::of(stat)) } else { Err(Fail::Dirty(path.to_owned())) }
    }

    /// Notes which directories above `path` must be made.
    fn need_parents(&mut self, path: &str) -> Result<(), Fail> {
        let (parent, _) = split(path);
        if self.missing.contains(parent) || self.root.dir(parent).is_ok() {
            return Ok(());
        }
        for dir in ancestors(path) {
            match self.root.look(dir)? {
                Look::Seen(stat, _) if stat.kind == FileKind::Dir => break,
                Look::Nothing => {}
                Look::Seen(..) if self.lifted.contains(dir) => {}
                Look::Seen(stat, _) => {
                    self.expect_known(dir, &stat)?;
                    return Err(Fail::Skip(SkipReason::ParentNotDirectory(dir.to_owned())));
                }
                Look::Special => return Err(Fail::Skip(SkipReason::ParentNotDirectory(dir.to_owned()))),
            }
            self.missing.insert(dir.to_owned());
        }
        Ok(())
    }

    /// A new name for what is put aside: at the top of the folder, so that it keeps no directory from becoming
    /// empty; on another file system mounted below, beside the file.
    fn temp(&mut self, path: &str, stat: &Stat) -> String {
        let name = self.temp_name();
        let here = self.root.identity().is_ok_and(|(dev, _)| dev == stat.dev);
        if here { name } else { join(split(path).0, &name) }
    }

    fn temp_name(&mut self) -> String {
        self.temps += 1;
        format!("{TEMP_PREFIX}{:016x}-{}", self.batch, self.temps)
    }
}
