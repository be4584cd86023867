//! The content of a release that is not here, brought from a peer that has it: it was given up, or never came. Spec: releases §6

use std::collections::BTreeSet;
use std::time::Duration;

use sealtide_ibgib::{ChunkRef, Verified};
use sealtide_identity::{NodeId, SpaceId};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};

use super::app::{App, Entry};
use crate::api::Progress;
use crate::commands::store_failure;
use crate::engine::contents::{CHANNEL, CHUNKS_MAX, NoContents, ask};
use crate::failure::Failure;
use crate::known::{Absence, Absences};
use crate::node::Node;

/// How long peers that have the space are waited for.
const REACHING: Duration = Duration::from_secs(15);
/// The class of the channel: that of sagas.
const CLASS: u8 = 3;

/// Brings what is not here of the content of a release. Waits for the network, on a thread that may. `what` names the release.
///
/// # Errors
/// When no peer that can be reached has all of it; what came stays.
pub(super) fn fetch_content(
    node: &Node,
    app: &App,
    entry: &Entry,
    what: &str,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut fetch = Fetch { node, space: app.space, wanted: app.absent_chunks(entry), asked: BTreeSet::new() };
    let bytes_all = bytes_of(&fetch.wanted);
    tokio::runtime::Handle::current().block_on(fetch.run(bytes_all, progress))?;
    node.store().sync().map_err(store_failure)?;
    if !fetch.wanted.is_empty() {
        return Err(given_up(what, &fetch.asked));
    }
    came(node, app, entry)?;
    note_fetched(node, what, bytes_all);
    Ok(())
}

/// Writes down that the content of a release is here. Nothing of it may be given up meanwhile.
///
/// # Errors
/// As the store reports.
pub(super) fn came(node: &Node, app: &App, entry: &Entry) -> Result<(), Failure> {
    let records = app.content_records(entry);
    let settle = |absences: &mut Absences| {
        for sid in records.iter().map(Verified::sid) {
            match absences.get_mut(&sid) {
                Some(Absence::GivenUp) => drop(absences.remove(&sid)),
                Some(absence) => *absence = Absence::CameLater,
                None => {}
            }
        }
    };
    node.known().change_absences(&app.space, settle).map_err(store_failure)
}

/// Tells the audit.
pub(super) fn note_fetched(node: &Node, what: &str, bytes: u64) {
    node.audit().note("release_fetched", &[("release", what), ("bytes", &bytes.to_string())]);
}

/// Connected peers that share a space.
pub(super) fn sharers(node: &Node, space: &SpaceId) -> Vec<NodeId> {
    let engine = node.engine();
    let ready = engine.peers().into_iter().filter(|(_, ready)| *ready).map(|(peer, _)| peer);
    ready.filter(|peer| engine.offers(peer).iter().any(|offer| offer.space == *space)).collect()
}

/// Asks a peer for chunks of a space, [`CHUNKS_MAX`] at most, and stores those that come.
///
/// # Errors
/// [`NoContents`]: the peer went away, or did not do as it should. What came until then is here.
pub(super) async fn ask_peer(
    node: &Node,
    peer: &NodeId,
    space: &SpaceId,
    chunks: &[ChunkRef],
) -> Result<(), NoContents> {
    let session = node.link().session(peer).ok_or(NoContents::Gone)?;
    let channel = session.open(CLASS, CHANNEL).map_err(|_| NoContents::Gone)?;
    let keep = |hash, bytes: bytes::Bytes| {
        let store = node.store().clone();
        async move {
            let kept = tokio::task::spawn_blocking(move || store.put_chunk(hash, &bytes)).await;
            if !matches!(kept, Ok(Ok(()))) {
                tracing::warn!(chunk = %hash, ?kept, "a chunk that came was not kept");
            }
        }
    };
    ask(&channel, space, chunks, keep).await
}

struct Fetch<'a> {
    node: &'a Node,
    space: SpaceId,
    /// Chunks that are not here yet.
    wanted: Vec<ChunkRef>,
    asked: BTreeSet<NodeId>,
}

impl Fetch<'_> {
    /// Asks every peer that shares the space, as they come, until all is here.
    async fn run(&mut self, bytes_all: u64, progress: &Progress) -> Result<(), Failure> {
        let mut events = self.node.engine().subscribe();
        self.node.serve()?;
        let members = self.node.engine().grants().into_iter().filter(|grant| grant.space == self.space);
        let others: BTreeSet<NodeId> = members.map(|grant| grant.node).filter(|peer| *peer != self.node.id()).collect();
        others.iter().for_each(|peer| self.node.nudge(peer));
        let _alone = self.node.fetch_alone().await;
        let until = Instant::now() + REACHING;
        loop {
            // What somebody else waits for may have come meanwhile.
            self.wanted.retain(|chunk| !self.node.store().holds_chunk(&chunk.hash));
            while let Some(peer) = self.next_peer().filter(|_| !self.wanted.is_empty()) {
                self.asked.insert(peer);
                self.ask(peer, bytes_all, progress).await;
                if self.wanted.is_empty() {
                    return Ok(());
                }
            }
            if self.wanted.is_empty() || others.is_subset(&self.asked) {
                return Ok(());
            }
            match timeout_at(until, events.recv()).await {
                Ok(Ok(_) | Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => return Ok(()),
            }
        }
    }

    /// A connected peer that shares the space and was not asked yet.
    fn next_peer(&self) -> Option<NodeId> {
        sharers(self.node, &self.space).into_iter().find(|peer| !self.asked.contains(peer))
    }

    async fn ask(&mut self, peer: NodeId, bytes_all: u64, progress: &Progress) {
        let parts: Vec<Vec<ChunkRef>> = self.wanted.chunks(CHUNKS_MAX).map(<[ChunkRef]>::to_vec).collect();
        for part in parts {
            let asked = ask_peer(self.node, &peer, &self.space, &part).await;
            self.wanted.retain(|chunk| !self.node.store().holds_chunk(&chunk.hash));
            let bytes = bytes_all.saturating_sub(bytes_of(&self.wanted));
            progress.tell(json!({"phase": "fetching", "items": [0, 0], "bytes": [bytes, bytes_all]}));
            if let Err(error) = asked {
                tracing::info!(peer = peer.short(), %error, "a peer did not send all that it was asked for");
                break;
            }
        }
    }
}

pub(super) fn bytes_of(chunks: &[ChunkRef]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.length)).sum()
}

fn given_up(what: &str, asked: &BTreeSet<NodeId>) -> Failure {
    let asked: Vec<String> = asked.iter().map(NodeId::short).collect();
    let nobody = match asked.is_empty() {
        true => "no node that has it can be reached".to_owned(),
        false => format!("nor at {}", asked.join(", ")),
    };
    let text = format!("{what}: its content is not here, it was given up to make room or never came; {nobody}");
    Failure::failed("given_up", text).hint(
        "try again while the publisher is connected, or install the bundle file: `sealtide release install FILE.stb`; \
         `release.keep` says how many releases stay",
    )
}
