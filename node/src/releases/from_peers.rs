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
use crate::engine::contents::{CHANNEL, CHUNKS_MAX, ask};
use crate::failure::Failure;
use crate::known::Absence;
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
    let mut absences = node.known().absences(&app.space);
    for sid in app.content_records(entry).iter().map(Verified::sid) {
        match absences.get_mut(&sid) {
            Some(Absence::GivenUp) => drop(absences.remove(&sid)),
            Some(absence) => *absence = Absence::CameLater,
            None => {}
        }
    }
    node.known().put_absences(&app.space, &absences).map_err(store_failure)?;
    node.audit().note("release_fetched", &[("release", what), ("bytes", &bytes_all.to_string())]);
    Ok(())
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
        let until = Instant::now() + REACHING;
        loop {
            while let Some(peer) = self.next_peer() {
                self.asked.insert(peer);
                self.ask(peer, bytes_all, progress).await;
                if self.wanted.is_empty() {
                    return Ok(());
                }
            }
            if others.is_subset(&self.asked) {
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
        let engine = self.node.engine();
        let ready = engine.peers().into_iter().filter(|(peer, ready)| *ready && !self.asked.contains(peer));
        let shares = |peer: &NodeId| engine.offers(peer).iter().any(|offer| offer.space == self.space);
        ready.map(|(peer, _)| peer).find(shares)
    }

    async fn ask(&mut self, peer: NodeId, bytes_all: u64, progress: &Progress) {
        let store = self.node.store();
        let parts: Vec<Vec<ChunkRef>> = self.wanted.chunks(CHUNKS_MAX).map(<[ChunkRef]>::to_vec).collect();
        for part in parts {
            let Some(session) = self.node.link().session(&peer) else { break };
            let Ok(channel) = session.open(CLASS, CHANNEL) else { break };
            let keep = |hash, bytes: bytes::Bytes| {
                let store = store.clone();
                async move {
                    let kept = tokio::task::spawn_blocking(move || store.put_chunk(hash, &bytes)).await;
                    if !matches!(kept, Ok(Ok(()))) {
                        tracing::warn!(chunk = %hash, ?kept, "a chunk that came was not kept");
                    }
                }
            };
            let asked = ask(&channel, &self.space, &part, keep).await;
            self.wanted.retain(|chunk| !store.holds_chunk(&chunk.hash));
            let bytes = bytes_all.saturating_sub(bytes_of(&self.wanted));
            let _ = progress.send(json!({"phase": "fetching", "items": [0, 0], "bytes": [bytes, bytes_all]}));
            if let Err(error) = asked {
                tracing::info!(peer = peer.short(), %error, "a peer did not send all that it was asked for");
                break;
            }
        }
    }
}

fn bytes_of(chunks: &[ChunkRef]) -> u64 {
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
