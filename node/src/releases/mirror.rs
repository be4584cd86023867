//! A node completes itself: contents of releases that stay here by its settings, and that whoever brought the records did not have
//! or that were given up before, are fetched from members of the space as they connect. Spec: releases §6
//!
//! Only what `gc` keeps is asked for, so nothing is fetched to be given up again. One transfer at a time, in small parts, so that an
//! install that waits for its content has its turn soon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealtide_ibgib::{ChunkRef, Sid, Verified};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::Store;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until};

use super::app::{App, Entry};
use super::from_peers::{ask_peer, bytes_of, came, note_fetched, sharers};
use super::install::title;
use super::retention::{is_syncing, kept, with_newest};
use crate::commands::store_failure;
use crate::engine::Event;
use crate::failure::Failure;
use crate::known::{Absence, Known};
use crate::node::Node;

/// How long after something happened it is looked again: more may happen at once.
const SETTLING: Duration = Duration::from_millis(500);
/// How long a peer that was asked, and had something, is left alone.
const PAUSE: Duration = Duration::from_secs(5);
/// How long one is left alone that has had nothing many times.
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);
/// Chunks that are asked for at once.
const PART: usize = 16;

/// Fetches what should be here and is not, whenever a peer connects or a space changes, and again after growing pauses.
pub(crate) fn keep_complete(node: &Node) {
    let (mut events, mut stop) = (node.engine().subscribe(), node.stopping());
    let mut mirror = Mirror { node: node.clone(), pauses: BTreeMap::new() };
    let keep = async move {
        loop {
            let again = mirror.round().await;
            let due = async {
                match again {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                there = occasion(&mut events) => if !there { return },
                () = due => {}
            }
            sleep(SETTLING).await;
        }
    };
    tokio::spawn(async move {
        tokio::select! {
            () = keep => {}
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
    });
}

/// Waits until something happened that may bring contents closer; false when nothing more will.
async fn occasion(events: &mut Receiver<Event>) -> bool {
    loop {
        match events.recv().await {
            Ok(Event::PeerSpaces(..) | Event::SagaEnded(_) | Event::Changed { origin: Some(_), .. })
            | Err(RecvError::Lagged(_)) => return true,
            Ok(_) => {}
            Err(RecvError::Closed) => return false,
        }
    }
}

struct Mirror {
    node: Node,
    /// Peers that were asked for contents of a space, and when they may be asked again.
    pauses: BTreeMap<(NodeId, SpaceId), Pause>,
}

#[derive(Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
}

impl Pause {
    /// The pause after an answer: longer each time that there was nothing in it.
    fn after(before: Option<Self>, has_brought: bool, now: Instant) -> Self {
        let longer = before.map_or(PAUSE, |before| (before.length * 2).min(PAUSE_MAX));
        let length = if has_brought { PAUSE } else { longer };
        Self { until: now + length, length }
    }
}

/// What a space lacks, the newest releases of each channel first.
struct Lacking {
    space: SpaceId,
    releases: Vec<(App, Entry)>,
}

impl Mirror {
    /// Asks each peer that may be asked once. Gives when to look again: `None` where nothing is lacking, or nobody could be asked.
    async fn round(&mut self) -> Option<Instant> {
        let now = Instant::now();
        self.pauses.retain(|_, pause| pause.until + PAUSE_MAX > now);
        for Lacking { space, releases } in off(&self.node, |node| Ok(lacking(node))).await.unwrap_or_default() {
            for peer in sharers(&self.node, &space) {
                let before = self.pauses.get(&(peer, space)).copied();
                if before.is_some_and(|pause| pause.until > Instant::now()) {
                    continue;
                }
                let has_brought = self.take(&peer, &space, &releases).await;
                self.pauses.insert((peer, space), Pause::after(before, has_brought, Instant::now()));
            }
        }
        let still = off(&self.node, |node| Ok(lacking(node))).await.unwrap_or_default();
        let asked = |lacking: &Lacking| {
            let peers = sharers(&self.node, &lacking.space).into_iter();
            let until = |peer| self.pauses.get(&(peer, lacking.space)).map_or(now + PAUSE, |pause| pause.until);
            peers.map(until).min()
        };
        still.iter().filter_map(asked).min()
    }

    /// Takes from a peer what it has of these releases; whether anything came.
    async fn take(&self, peer: &NodeId, space: &SpaceId, releases: &[(App, Entry)]) -> bool {
        let mut has_brought = false;
        for release in releases {
            match self.take_release(peer, space, release).await {
                Ok(0) => {}
                Ok(_) => has_brought = true,
                Err(Ended { bytes, why }) => {
                    tracing::debug!(peer = peer.short(), bytes, why, "contents of releases are fetched later");
                    return has_brought || bytes > 0;
                }
            }
        }
        has_brought
    }

    /// Takes what a peer has of one release; gives the bytes that came.
    async fn take_release(&self, peer: &NodeId, space: &SpaceId, release: &(App, Entry)) -> Result<u64, Ended> {
        let node = &self.node;
        let of = release.clone();
        let missing = off(node, move |_| Ok(of.0.absent_chunks(&of.1))).await.unwrap_or_default();
        let (all, left) = (bytes_of(&missing), node.engine().space_left(space));
        // Spec: SY-68
        if all > left {
            let (app, seq) = (release.0.name.as_str(), release.1.seq);
            tracing::warn!(app, seq, bytes = all, left, "the content of a release is not fetched: quota.space is full");
            return Ok(0);
        }
        let mut bytes = 0;
        for part in missing.chunks(PART) {
            let may = !node.engine().is_paused(space) && !is_syncing(node, space);
            let asked = match may {
                true => {
                    let _alone = node.fetch_alone().await;
                    ask_peer(node, peer, space, part).await.map_err(|error| error.to_string())
                }
                false => Err("the space is paused, or being synced".to_owned()),
            };
            let here: Vec<ChunkRef> =
                part.iter().filter(|chunk| node.store().holds_chunk(&chunk.hash)).copied().collect();
            bytes += bytes_of(&here);
            asked.map_err(|why| Ended { bytes, why })?;
            if here.is_empty() {
                break;
            }
        }
        let of = release.clone();
        let settled = off(node, move |node| settle(node, &of, bytes)).await;
        settled.map_err(|failure| Ended { bytes, why: failure.to_string() })?;
        Ok(bytes)
    }
}

/// A transfer that did not go on.
struct Ended {
    bytes: u64,
    why: String,
}

/// Writes down that a release is whole, where it is. `bytes` came of it just now.
pub(super) fn settle(node: &Node, (app, entry): &(App, Entry), bytes: u64) -> Result<(), Failure> {
    // Nothing of it is given up between the look and the row.
    let _in_use = node.use_contents();
    if !app.is_here(entry) {
        return Ok(());
    }
    node.store().sync().map_err(store_failure)?;
    came(node, app, entry)?;
    if bytes > 0 {
        let what = app.bundle_head(entry).map(|head| title(head.manifest.content()));
        let what = what.unwrap_or_else(|_| format!("{} {}", app.name, entry.seq));
        tracing::info!(release = what, bytes, "the content of a release was fetched: it is whole here");
        note_fetched(node, &what, bytes);
    }
    Ok(())
}

/// The releases whose contents should be here, and of which some are known not to be.
fn lacking(node: &Node) -> Vec<Lacking> {
    let store = node.store();
    let away = away(store);
    if away.is_empty() {
        return Vec::new();
    }
    let keep = kept(node.config());
    let mut lacking: BTreeMap<SpaceId, Vec<(App, Entry)>> = BTreeMap::new();
    for app in App::all(store) {
        let Some(away) = away.get(&app.space) else { continue };
        let is_away =
            |entry: &Entry| app.content_records(entry).iter().map(Verified::sid).any(|sid| away.contains(&sid));
        for line in app.channels().iter().flat_map(|channel| app.channel(channel)) {
            let mut wanted: Vec<&Entry> =
                with_newest(&line, keep).filter(|(entry, stays)| *stays && is_away(entry)).map(|(it, _)| it).collect();
            wanted.reverse();
            lacking.entry(app.space).or_default().extend(wanted.into_iter().map(|entry| (app.clone(), entry.clone())));
        }
    }
    lacking.retain(|_, releases| !releases.is_empty());
    lacking.into_iter().map(|(space, releases)| Lacking { space, releases }).collect()
}

/// Records whose contents are not here, by space.
fn away(store: &Store) -> BTreeMap<SpaceId, BTreeSet<Sid>> {
    let known = Known::of(store);
    let of_space = |space: SpaceId| {
        let away = known.absences(&space).into_iter().filter(|(_, absence): &(Sid, Absence)| absence.is_away());
        (space, away.map(|(sid, _)| sid).collect::<BTreeSet<_>>())
    };
    let spaces = known.labels().into_iter().map(|(space, _)| of_space(space));
    spaces.filter(|(_, away)| !away.is_empty()).collect()
}

/// Does what reads or waits for the disk on a thread that may.
async fn off<T: Send + 'static>(
    node: &Node,
    work: impl FnOnce(&Node) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    crate::commands::blocking("release", node, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_has_nothing_is_asked_more_and_more_rarely() {
        let now = Instant::now();
        let mut pause = Pause::after(None, false, now);
        let mut lengths = vec![pause.length];
        for _ in 0..20 {
            pause = Pause::after(Some(pause), false, now);
            lengths.push(pause.length);
        }
        assert_eq!(lengths[..3], [PAUSE, PAUSE * 2, PAUSE * 4]);
        assert_eq!((lengths[20], pause.until), (PAUSE_MAX, now + PAUSE_MAX));
        assert_eq!(Pause::after(Some(pause), true, now).length, PAUSE, "one that had something is asked soon");
    }
}
