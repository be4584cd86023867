//! Contents of the store apart from sagas: the room of those that nobody needs is given back now and every few hours, and
//! peers get what they ask for by name. Spec: store, "Collecting"; releases §6; sync §14

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use sealtide_identity::NodeId;

use super::{Node, lock};
use crate::commands::gc::{self, OldStaged};
use crate::engine::contents::{CHANNEL, answer};

/// How often the store is looked through for what nobody needs.
const TIDY_EVERY: Duration = Duration::from_secs(6 * 3600);
/// From a start to the first time that old staged records are dropped: peers come back meanwhile, and their sagas go on.
const TIDY_FIRST: Duration = Duration::from_secs(15 * 60);
/// Peers that are answered at once.
const ANSWERED_AT_ONCE: usize = 16;

/// The turns of those who install.
#[derive(Default)]
pub(super) struct Installing {
    /// One for each directory that somebody installs into.
    dirs: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
    /// Held while whom this node trusts for releases is read, brought up to date and kept.
    remembering: Mutex<()>,
}

impl Node {
    /// No content of a release is given up while this is held.
    pub(crate) fn use_contents(&self) -> RwLockReadGuard<'_, ()> {
        self.0.contents.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// No content of a release is unpacked while this is held.
    pub(crate) fn keep_contents_alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.0.contents.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody unpacks or copies contents now.
    #[cfg(test)]
    pub(crate) fn gives_up_nothing(&self) -> bool {
        self.0.contents.try_write().is_err()
    }

    /// One install at a time into a directory, however its path is spelled. Held to the end of the work, also when nobody waits for
    /// it any more.
    pub(crate) fn installing(&self, dir: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = lock(&self.0.installing.dirs);
        all.retain(|_, turn| Arc::strong_count(turn) > 1);
        all.entry(dir.components().collect()).or_default().clone()
    }

    /// Whom this node trusts for releases changes in one step: what one install learned, a fork for instance, no other forgets.
    pub(crate) fn remembering(&self) -> MutexGuard<'_, ()> {
        lock(&self.0.installing.remembering)
    }

    /// Contents come over one channel at a time: a peer answers this node over one.
    pub(crate) async fn fetch_alone(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.fetching.lock().await
    }

    /// Frees what nobody needs, now and every few hours, and drops what was staged too long ago, not right now.
    // Spec: SY-67
    pub(super) fn tidy_store(&self) {
        let (node, mut stop) = (self.clone(), self.stopping());
        tokio::spawn(async move {
            let (mut staged, mut wait) = (OldStaged::Kept, TIDY_FIRST);
            loop {
                let tidied = node.clone();
                // While a backup or a check reads the packs this round is left out: installs must not wait for it.
                let free =
                    move || tidied.store().try_collecting().map(|collecting| gc::free(&tidied, &collecting, staged));
                let tidying = tokio::task::spawn_blocking(move || match free().unwrap_or(Ok(gc::Freed::default())) {
                    Ok(freed) if freed.collected.chunks > 0 || freed.collected.records > 0 => {
                        tracing::info!(collected = ?freed.collected, releases = freed.releases.len(), "what is unused was freed");
                    }
                    Ok(_) => {}
                    Err(failure) => tracing::warn!(%failure, "what is unused was not freed"),
                });
                let _ = tidying.await;
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stop.changed() => return,
                }
                (staged, wait) = (OldStaged::Dropped, TIDY_EVERY);
            }
        });
    }

    /// Sends peers the chunks that they ask for, of spaces that they may read: to each over one channel at a time.
    // Spec: SY-73
    pub(super) fn answer_contents(&self) {
        let (node, mut stop) = (self.clone(), self.stopping());
        let mut channels = self.engine().serve_channels(CHANNEL);
        let answered: Arc<Mutex<BTreeSet<NodeId>>> = Arc::default();
        tokio::spawn(async move {
            loop {
                let (peer, channel) = tokio::select! {
                    Some(opened) = channels.recv() => opened,
                    _ = stop.wait_for(|stopped| *stopped) => return,
                };
                let has_room = {
                    let mut answered = lock(&answered);
                    answered.len() < ANSWERED_AT_ONCE && answered.insert(peer)
                };
                // Without an answer the channel ends, and the peer asks another node, or again.
                if !has_room {
                    continue;
                }
                let (node, answered) = (node.clone(), answered.clone());
                tokio::spawn(async move {
                    answer(&channel, |space| node.engine().contents_for(&peer, space)).await;
                    lock(&answered).remove(&peer);
                });
            }
        });
    }
}
