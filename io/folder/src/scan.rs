//! Compares the directory with the cache: what is new, changed, renamed or gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use sealtide_ibgib::{BIN_INLINE_BYTES_MAX, CutChunk, FileKind, Sid, TimelineId};

use crate::content::{self, ReadProblem, Taken};
use crate::path::ancestors;
use crate::root::Root;
use crate::rules::Rules;
use crate::walk::{Walk, Walked};
use crate::{Folder, FolderError, Found, Placed, SkipReason, Stat};

/// What a scan found out.
#[derive(Debug, Default)]
pub struct Scan {
    /// Everything that differs from what is known, in order of paths.
    pub changes: Vec<LocalChange>,
    /// Paths left alone, and why. [`SkipReason::Changing`] asks for another scan.
    pub skipped: Vec<(String, SkipReason)>,
    /// There was more than one scan may hold in memory: record these changes, then scan again.
    pub more: bool,
    /// Files, links and empty directories that stand in the scanned part.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Files that had to be read.
    pub files_read: u64,
}

/// One difference between the directory and what is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalChange {
    /// The path.
    pub path: String,
    /// The path it had before, when it was renamed.
    pub from: Option<String>,
    /// What stood at `from`, or else at `path`.
    pub known: Option<(TimelineId, Sid)>,
    /// What stands there now.
    pub found: Found,
    /// BLAKE3-256 of the content, as in [`Placed`].
    pub content: [u8; 32],
    /// How the path looked; for [`Found::Gone`] how it looked when it was last known.
    pub stat: Stat,
}

impl LocalChange {
    /// The cache entry that says: `sid` of `timeline` stands here.
    pub fn placed(&self, timeline: TimelineId, sid: Sid) -> Placed {
        Placed { timeline, sid, stat: self.stat, content: self.content }
    }
}

/// How far a scan is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// Files that must be read.
    pub files_to_read: u64,
    /// Files read.
    pub files_read: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

impl Folder {
    /// Compares the directory, or the named paths with all below them, with what is known. Nothing is recorded: the
    /// caller makes frames of the changes and says with [`Folder::settle`] or [`Folder::placed`] what now stands
    /// where; until then the next scan reports the same again. `keep` receives the chunks of large files.
    ///
    /// # Errors
    /// [`FolderError`] when the directory is not there or the state fails. Unreadable paths are only skipped.
    pub fn scan(
        &mut self,
        only: Option<&[String]>,
        keep: &mut dyn FnMut(CutChunk) -> io::Result<()>,
        progress: &mut dyn FnMut(ScanProgress),
    ) -> Result<Scan, FolderError> {
        self.check_root()?;
        self.root.refresh();
        let mut rules = Rules::unless(self.unruled);
        let walk = Walk::new(&self.root, &mut rules, self.state.cache());
        let mut walked = match only {
            None => walk.everything(),
            Some(dirty) => walk.only(dirty),
        }
        .map_err(|source| FolderError::Root { path: self.root.path().to_owned(), source })?;

        self.look_for_mounts(&mut walked)?;
        let mut scan = Scan { skipped: std::mem::take(&mut walked.skipped), ..Scan::default() };
        scan.files = walked.found.len() as u64;
        scan.bytes = walked.found.values().map(|stat| stat.size).sum();
        let (known, new) = self.candidates(&walked);
        let mut vanished = walked.vanished(self.state.cache());
        // What an ignore rule covers is left alone, also when it goes.
        vanished.retain(|(path, placed)| !rules.is_ignored(&self.root, path, placed.stat.kind == FileKind::Dir));
        let (suspects, fresh) = split_suspects(new, &vanished);

        // Possible targets of renames first: whether something is gone depends on them.
        let mut reader = Reader::new(&self.root, keep, progress, known.len() + suspects.len() + fresh.len());
        let suspects_left = reader.read(suspects)?;
        let left = suspects_left | reader.read(known)? | reader.read(fresh)?;
        scan.more = left;
        scan.files_read = reader.progress.files_read;
        scan.skipped.append(&mut reader.skipped);
        let taken = std::mem::take(&mut reader.taken);
        let (changes, untouched) = compare(taken, &vanished, self.state.cache(), !suspects_left);
        scan.changes = changes;
        for (path, placed) in untouched {
            self.state.set(&path, Some(placed));
        }
        self.state.flush_if_full()?;
        // A disk below may be taken out while nothing goes on.
        self.root.refresh();
        scan.skipped.sort_by(|left, right| left.0.cmp(&right.0));
        Ok(scan)
    }

    /// Leaves directories alone where a file system was mounted and is not now: what was on it did not go, and what lies below it is not
    /// of the folder.
    fn look_for_mounts(&mut self, walked: &mut Walked) -> Result<(), FolderError> {
        let mut mounts = walked.mounts.clone();
        for path in self.state.mounts() {
            match self.root.is_mount(path) {
                Ok(Some(false)) => {
                    walked.leave_alone(path, SkipReason::NotMounted);
                    mounts.insert(path.clone());
                }
                // It is mounted, or nobody can say.
                Ok(Some(true)) | Err(_) => drop(mounts.insert(path.clone())),
                // A disk that is mounted inside another one stands in nothing while that is away.
                Ok(None) if self.is_away_above(path) => drop(mounts.insert(path.clone())),
                // The directory is gone: so is what was in it.
                Ok(None) => {}
            }
        }
        self.state.set_mounts(mounts)
    }

    /// Whether something was mounted above a path, and is not now.
    fn is_away_above(&self, path: &str) -> bool {
        let is_away =
            |dir: &str| self.state.mounts().contains(dir) && matches!(self.root.is_mount(dir), Ok(Some(false)));
        ancestors(path).any(is_away)
    }

    /// The directories where something was mounted and is not now.
    pub(crate) fn unmounted(&self) -> BTreeSet<String> {
        let is_away = |path: &&String| matches!(self.root.is_mount(path), Ok(Some(false)));
        self.state.mounts().iter().filter(is_away).cloned().collect()
    }

    /// The paths to read: those known that look different, and those not known.
    fn candidates(&self, walked: &Walked) -> (Vec<Candidate>, Vec<Candidate>) {
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for (path, stat) in &walked.found {
            let candidate = || Candidate { path: path.clone(), stat: *stat };
            match self.state.get(path) {
                None => new.push(candidate()),
                Some(placed) if placed.stat.racy || !placed.stat.is_same(stat) && !both_dirs(&placed.stat, stat) => {
                    known.push(candidate());
                }
                Some(_) => {}
            }
        }
        (known, new)
    }
}

/// A path that may have changed.
struct Candidate {
    path: String,
    stat: Stat,
}

fn both_dirs(left: &Stat, right: &Stat) -> bool {
    left.kind == FileKind::Dir && right.kind == FileKind::Dir
}

/// New paths that could be a vanished one under a new name, and the others.
fn split_suspects(new: Vec<Candidate>, vanished: &[(&str, &Placed)]) -> (Vec<Candidate>, Vec<Candidate>) {
    let inodes: BTreeSet<_> = vanished.iter().map(|(_, placed)| (placed.stat.dev, placed.stat.inode)).collect();
    let sizes: BTreeSet<_> = vanished.iter().map(|(_, placed)| placed.stat.size).collect();
    new.into_iter().partition(|candidate| {
        inodes.contains(&(candidate.stat.dev, candidate.stat.inode)) || sizes.contains(&candidate.stat.size)
    })
}

/// Reads candidates until as much is held as one scan may hold: small files on a few threads, large ones here.
struct Reader<'a, 'k> {
    root: &'a Root,
    keep: content::Keep<'k>,
    report: &'a mut dyn FnMut(ScanProgress),
    progress: ScanProgress,
    held: usize,
    taken: Vec<(String, Taken)>,
    skipped: Vec<(String, SkipReason)>,
}

impl<'a, 'k> Reader<'a, 'k> {
    fn new(
        root: &'a Root,
        keep: content::Keep<'k>,
        report: &'a mut dyn FnMut(ScanProgress),
        files_to_read: usize,
    ) -> Self {
        let progress = ScanProgress { files_to_read: files_to_read as u64, ..ScanProgress::default() };
        Self { root, keep, report, progress, held: 0, taken: Vec::new(), skipped: Vec::new() }
    }

    /// Whether some were left for the next scan.
    fn read(&mut self, candidates: Vec<Candidate>) -> Result<bool, FolderError> {
        let (small, large): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|candidate| candidate.stat.size <= BIN_INLINE_BYTES_MAX as u64);
        let left = if small.len() < THREADS_FROM { self.read_here(&small)? } else { self.read_on_threads(&small)? };
        Ok(self.read_here(&large)? || left)
    }

    fn read_here(&mut self, candidates: &[Candidate]) -> Result<bool, FolderError> {
        for candidate in candidates {
            if self.held > HELD_BYTES_MAX {
                return Ok(true);
            }
            let read = content::read(self.root, &candidate.path, &candidate.stat, self.keep);
            self.take(candidate, read)?;
        }
        Ok(false)
    }

    fn read_on_threads(&mut self, candidates: &[Candidate]) -> Result<bool, FolderError> {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX);
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            // Bounded, so that the threads never run far ahead of what may be held.
            let (sender, receiver) = mpsc::sync_channel(2 * THREADS_FROM);
            for _ in 0..threads {
                let (root, sender, next) = (self.root.twin(), sender.clone(), &next);
                scope.spawn(move || {
                    while let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let no_chunks: content::Keep<'_> = &mut |_| Err(io::Error::other("a small file has none"));
                        let read = content::read(&root, &candidate.path, &candidate.stat, no_chunks);
                        if sender.send((candidate, read)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (candidate, read) in &receiver {
                self.take(candidate, read)?;
                if self.held > HELD_BYTES_MAX {
                    // No further paths are begun; what is under way still arrives.
                    next.fetch_max(candidates.len(), Ordering::Relaxed);
                }
            }
            Ok(())
        })
        .map(|()| self.held > HELD_BYTES_MAX)
    }

    fn take(&mut self, candidate: &Candidate, read: Result<Taken, ReadProblem>) -> Result<(), FolderError> {
        let path = candidate.path.clone();
        match read {
            Ok(taken) => {
                self.held += CHANGE_BYTES + taken.found.bytes_held();
                self.taken.push((path, taken));
            }
            Err(ReadProblem::Skip(reason)) => self.skipped.push((path, reason)),
            Err(ReadProblem::Keep(source)) => return Err(FolderError::Keep { path, source }),
        }
        self.progress.files_read += 1;
        self.progress.bytes_read += candidate.stat.size;
        (self.report)(self.progress);
        Ok(())
    }
}

/// Sorts what was read into changes and entries that were only touched. When `settled` is false some possible rename
/// targets are still unread, so what vanished without a partner waits for the next scan.
fn compare(
    taken: Vec<(String, Taken)>,
    vanished: &[(&str, &Placed)],
    cache: &BTreeMap<String, Placed>,
    settled: bool,
) -> (Vec<LocalChange>, Vec<(String, Placed)>) {
    let (mut changes, mut untouched, mut new) = (Vec::new(), Vec::new(), Vec::new());
    for (path, taken) in taken {
        let Some(placed) = cache.get(&path) else {
            new.push((path, taken));
            continue;
        };
        let same_kind = placed.stat.kind == taken.stat.kind && placed.stat.exec == taken.stat.exec;
        if same_kind && placed.content == taken.content {
            untouched.push((path, Placed { stat: taken.stat, ..*placed }));
        } else {
            changes.push(change(path, taken, None, Some(placed)));
        }
    }
    let sources = rename_sources(&new, vanished);
    let mut used = BTreeSet::new();
    for (at, (path, taken)) in new.into_iter().enumerate() {
        let source = sources.get(&at).map(|source| vanished[*source]);
        used.extend(source.map(|(from, _)| from));
        changes.push(change(path, taken, source.map(|(from, _)| from.to_owned()), source.map(|(_, placed)| placed)));
    }
    let gone = vanished.iter().filter(|(path, _)| settled && !used.contains(path));
    changes.extend(gone.map(|(path, placed)| LocalChange {
        path: (*path).to_owned(),
        from: None,
        known: Some((placed.timeline, placed.sid)),
        found: Found::Gone,
        content: [0; 32],
        stat: placed.stat,
    }));
    changes.sort_by(|left, right| left.path.cmp(&right.path));
    (changes, untouched)
}

fn change(path: String, taken: Taken, from: Option<String>, before: Option<&Placed>) -> LocalChange {
    let Taken { found, content, stat } = taken;
    LocalChange { path, from, known: before.map(|placed| (placed.timeline, placed.sid)), found, content, stat }
}

/// Which new path (index) continues which vanished one (index): first by inode, then by content where exactly one
/// candidate is left on each side. A freed inode is used again at once by most file systems, so an equal number
/// counts only with an equal birth or equal content.
fn rename_sources(new: &[(String, Taken)], vanished: &[(&str, &Placed)]) -> BTreeMap<usize, usize> {
    let mut sources = BTreeMap::new();
    let mut used = BTreeSet::new();
    let by_inode: BTreeMap<_, _> = vanished
        .iter()
        .enumerate()
        .filter(|(_, (_, placed))| placed.stat.kind != FileKind::Dir)
        .map(|(at, (_, placed))| ((placed.stat.dev, placed.stat.inode), at))
        .collect();
    for (at, (_, taken)) in new.iter().enumerate() {
        let Some(&source) = by_inode.get(&(taken.stat.dev, taken.stat.inode)) else { continue };
        let before = vanished[source].1;
        let same_birth = before.stat.born_ns != 0 && before.stat.born_ns == taken.stat.born_ns;
        let same_file = same_birth || before.content == taken.content;
        if before.stat.kind == taken.stat.kind && same_file && used.insert(source) {
            sources.insert(at, source);
        }
    }
    let mut by_content: BTreeMap<_, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (at, (_, taken)) in new.iter().enumerate().filter(|(at, _)| !sources.contains_key(at)) {
        by_content.entry((taken.stat.kind, taken.content)).or_default().0.push(at);
    }
    for (at, (_, placed)) in vanished.iter().enumerate().filter(|(at, _)| !used.contains(at)) {
        by_content.entry((placed.stat.kind, placed.content)).or_default().1.push(at);
    }
    for ((kind, _), candidates) in by_content {
        if let (FileKind::File | FileKind::Symlink, ([target], [source])) =
            (kind, (&candidates.0[..], &candidates.1[..]))
        {
            sources.insert(*target, *source);
        }
    }
    sources
}

/// Bytes of contents that one scan holds before it stops with `more`.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// What one change weighs beside its content.
const CHANGE_BYTES: usize = 512;
/// Small files from which on threads pay.
const THREADS_FROM: usize = 64;
const THREADS_MAX: usize = 4;
