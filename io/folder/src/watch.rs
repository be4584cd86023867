//! Watches a directory and says which paths may have changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use notify::{Config, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::path::{TEMP_PREFIX, check_path};

/// What a watcher says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dirty {
    /// These paths, and what is below them, may have changed. The empty path is the whole folder.
    Paths(Vec<String>),
    /// Too much happened, or the system lost track: scan everything.
    Overflow,
    /// The watcher misses changes from now on, for the reason given: scan everything at intervals.
    Blind(String),
}

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}", path.display())]
pub struct WatchError {
    path: PathBuf,
    source: notify::Error,
}

/// A running watch; it ends when this is dropped.
pub struct Watcher {
    events: tokio::sync::mpsc::Receiver<Dirty>,
    /// A directory that the system lets nobody look into, where there is one.
    denied: Option<PathBuf>,
    _watcher: RecommendedWatcher,
}

impl Watcher {
    /// A directory that is not watched, nor what is below it, where there is one: this process may not read it. There may be more.
    pub fn denied(&self) -> Option<&Path> {
        self.denied.as_deref()
    }

    /// The next report; `None` when the watch has ended. Changes that a check-out or scan made itself are reported
    /// too: a scan of them finds nothing.
    pub async fn next(&mut self) -> Option<Dirty> {
        self.events.recv().await
    }

    /// As [`Watcher::next`], for a thread.
    pub fn blocking_next(&mut self) -> Option<Dirty> {
        self.events.blocking_recv()
    }
}

/// Watches the directory `root` with everything below it. Reports come when nothing happened for 200 ms, at the
/// latest 1 s after the first change.
///
/// # Errors
/// [`WatchError`] when the system refuses, for instance because no more directories can be watched.
pub fn watch(root: &Path) -> Result<Watcher, WatchError> {
    let failed = |source| WatchError { path: root.to_owned(), source };
    // Events carry the path that was watched, so the prefix must be the real one.
    let real = root.canonicalize().map_err(|problem| failed(problem.into()))?;
    let (sender, raw) = mpsc::channel();
    let config = Config::default().with_follow_symlinks(false);
    let mut watcher = RecommendedWatcher::new(sender, config).map_err(failed)?;
    let mut denied = None;
    add(&mut watcher, &real, &mut denied).map_err(failed)?;
    if denied.as_ref() == Some(&real) {
        return Err(failed(notify::Error::io(std::io::ErrorKind::PermissionDenied.into())));
    }
    let (out, events) = tokio::sync::mpsc::channel(QUEUE);
    let gather = Gather { root: real, out, pending: Pending::default() };
    std::thread::Builder::new()
        .name("folder-watch".to_owned())
        .spawn(move || gather.run(&raw))
        .map_err(|problem| failed(problem.into()))?;
    Ok(Watcher { events, denied, _watcher: watcher })
}

/// Watches a directory with everything below it that may be read. The system refuses the whole of it for one directory (the
/// `lost+found` of a disk): what came before that one is watched by then, and each of its neighbours is watched for itself.
fn add(watcher: &mut RecommendedWatcher, dir: &Path, denied: &mut Option<PathBuf>) -> notify::Result<()> {
    match watcher.watch(dir, RecursiveMode::Recursive) {
        Err(error) if is_denied(&error) => {}
        // It went meanwhile, which whoever watches the directory above is told.
        Err(error) if matches!(error.kind, notify::ErrorKind::PathNotFound) => return Ok(()),
        other => return other,
    }
    let Ok(entries) = dir.read_dir() else {
        denied.get_or_insert_with(|| dir.to_owned());
        return Ok(());
    };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            add(watcher, &entry.path(), denied)?;
        }
    }
    Ok(())
}

fn is_denied(error: &notify::Error) -> bool {
    matches!(&error.kind, notify::ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// What happened since the last report.
#[derive(Default)]
struct Pending {
    paths: BTreeSet<String>,
    overflow: bool,
    blind: Option<String>,
    first: Option<Instant>,
}

/// Gathers events until they pause.
struct Gather {
    root: PathBuf,
    out: tokio::sync::mpsc::Sender<Dirty>,
    pending: Pending,
}

impl Gather {
    fn run(mut self, raw: &mpsc::Receiver<notify::Result<Event>>) {
        loop {
            let event = match self.pending.first {
                None => raw.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(first) => raw.recv_timeout(QUIET.min(LATEST.saturating_sub(first.elapsed()))),
            };
            match event {
                Ok(Ok(event)) => self.take(&event),
                Ok(Err(problem)) => {
                    self.pending.blind = Some(problem.to_string());
                    self.pending.first.get_or_insert_with(Instant::now);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !self.report() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, event: &Event) {
        if event.need_rescan() {
            self.pending.overflow = true;
        } else if matches!(event.kind, EventKind::Access(_)) {
            return;
        }
        for path in &event.paths {
            self.pending.paths.extend(relative(&self.root, path));
        }
        if self.pending.paths.len() > PATHS_MAX {
            self.pending.overflow = true;
            self.pending.paths.clear();
        }
        if self.pending.overflow || !self.pending.paths.is_empty() {
            self.pending.first.get_or_insert_with(Instant::now);
        }
    }

    /// False when nobody listens any more. What finds no room waits and is joined with what follows.
    fn report(&mut self) -> bool {
        let Pending { paths, overflow, blind, .. } = &self.pending;
        let report = match (blind, overflow) {
            (Some(problem), _) => Dirty::Blind(problem.clone()),
            (None, true) => Dirty::Overflow,
            (None, false) => Dirty::Paths(paths.iter().cloned().collect()),
        };
        match self.out.try_send(report) {
            Ok(()) => self.pending = Pending::default(),
            Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => self.pending.first = Some(Instant::now()),
            Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => return false,
        }
        true
    }
}

/// The path in the folder; for a name that cannot be shared the directory that it is in; nothing for our own
/// temporary files.
fn relative(root: &Path, path: &Path) -> Option<String> {
    let below = path.strip_prefix(root).ok()?;
    if below.iter().any(|name| name.as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())) {
        return None;
    }
    below.ancestors().find_map(|path| {
        let text = path.to_str()?;
        (text.is_empty() || check_path(text).is_ok()).then(|| text.to_owned())
    })
}

/// Silence after which a report is made.
const QUIET: Duration = Duration::from_millis(200);
/// Time after the first change at which a report is made at the latest.
const LATEST: Duration = Duration::from_secs(1);
/// Paths of one report; more are an overflow.
const PATHS_MAX: usize = 20_000;
/// Reports that wait for the listener.
const QUEUE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_relative() {
        let root = Path::new("/r");
        let below = |path: &str| relative(root, Path::new(path));
        assert_eq!(below("/r/a/b").as_deref(), Some("a/b"));
        assert_eq!(below("/r").as_deref(), Some(""));
        assert_eq!(below("/r/.sealtide-tmp-1"), None);
        assert_eq!(below("/other/a"), None);
    }
}
