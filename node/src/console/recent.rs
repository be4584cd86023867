//! What happened of late: sagas, how links went, which keys signed. In memory, bounded, from the start of the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sealtide_identity::{NodeId, SpaceId};
use sealtide_sync::{AbortCode, SagaOutcome};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::commands::rfc3339;
use crate::engine::{Event, SagaReport};
use crate::node::Node;
use crate::real::now;

/// Sagas that are kept.
const SAGAS_MAX: usize = 200;
/// Looks at a link that are kept: ten minutes.
const SAMPLES_MAX: usize = 600;
/// Changes of a link's path that are kept.
const SWITCHES_MAX: usize = 100;
/// Looks at the signatures that are kept: an hour.
const SIGNATURES_MAX: usize = 360;
/// How often links are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// Of these looks every how-many-eth is one at the signatures too.
const SIGNATURES_EVERY: u64 = 10;

/// What happened of late.
#[derive(Default)]
pub(crate) struct Recent(Mutex<State>);

#[derive(Default)]
struct State {
    /// The newest first.
    sagas: VecDeque<SagaRow>,
    links: BTreeMap<NodeId, LinkRow>,
    signatures: VecDeque<(u64, BTreeMap<String, u64>)>,
}

struct SagaRow {
    space: SpaceId,
    peer: NodeId,
    began_ms: u64,
    ended_ms: Option<u64>,
    items: (u64, u64),
    bytes: (u64, u64),
    end: Option<SagaOutcome>,
}

#[derive(Default)]
struct LinkRow {
    /// Second, round trip in ms, bytes in and out within the second.
    samples: VecDeque<(u64, Option<u32>, u64, u64)>,
    switches: VecDeque<(u64, Option<&'static str>)>,
    bytes: (u64, u64),
}

impl Recent {
    /// Looks at a node until it stops.
    pub(crate) fn watch(node: &Node) {
        let (node, mut stop) = (node.clone(), node.stopping());
        let mut events = node.engine().subscribe();
        tokio::spawn(async move {
            let mut every = tokio::time::interval(EVERY);
            every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            let mut looks = 0u64;
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Ok(event) => node.recent().take(&event),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    },
                    _ = every.tick() => {
                        node.recent().look(&node);
                        if looks.is_multiple_of(SIGNATURES_EVERY) {
                            node.recent().look_at_signatures(&node);
                        }
                        looks += 1;
                    }
                    _ = stop.wait_for(|stopped| *stopped) => return,
                }
            }
        });
    }

    fn take(&self, event: &Event) {
        let mut state = self.lock();
        match event {
            Event::SagaBegan { space, peer } => {
                let row = SagaRow {
                    space: *space,
                    peer: *peer,
                    began_ms: now().wall_ms,
                    ended_ms: None,
                    items: (0, 0),
                    bytes: (0, 0),
                    end: None,
                };
                state.sagas.push_front(row);
                state.sagas.truncate(SAGAS_MAX);
            }
            Event::Progress(told) => {
                if let Some(row) = state.running(&told.space, &told.peer) {
                    (row.items, row.bytes) = (told.items, told.bytes);
                }
            }
            Event::SagaEnded(report) => state.end(report),
            Event::PeerGone(peer) => {
                state.sagas.retain(|row| row.peer != *peer || row.end.is_some());
            }
            _ => {}
        }
    }

    fn look(&self, node: &Node) {
        let second = now().wall_ms / 1_000;
        let sessions = node.link().sessions();
        let mut state = self.lock();
        for info in &sessions {
            let row = state.links.entry(info.peer).or_default();
            let bytes = (info.bytes_in, info.bytes_out);
            // A new session counts from nothing.
            let since = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
            let sample = (second, info.rtt_ms, since(bytes.0, row.bytes.0), since(bytes.1, row.bytes.1));
            row.bytes = bytes;
            keep(&mut row.samples, sample, SAMPLES_MAX);
            if row.switches.back().is_none_or(|(_, path)| *path != info.path) {
                keep(&mut row.switches, (now().wall_ms, info.path), SWITCHES_MAX);
            }
        }
        for (peer, row) in &mut state.links {
            let is_gone = !sessions.iter().any(|info| info.peer == *peer);
            if is_gone && row.switches.back().is_some_and(|(_, path)| path.is_some()) {
                keep(&mut row.switches, (now().wall_ms, None), SWITCHES_MAX);
                row.bytes = (0, 0);
            }
        }
    }

    fn look_at_signatures(&self, node: &Node) {
        let Some(desk) = node.open_desk() else { return };
        let counts = desk.signatures().into_iter().map(|(version, count)| (version.to_string(), count)).collect();
        keep(&mut self.lock().signatures, (now().wall_ms / 1_000, counts), SIGNATURES_MAX);
    }

    /// How many bytes went over all links, and over which paths: what a look finds changed.
    pub(super) fn links_mark(&self) -> Vec<(u64, u64, usize, Option<u32>)> {
        let state = self.lock();
        let mark = |row: &LinkRow| {
            (row.bytes.0, row.bytes.1, row.switches.len(), row.samples.back().and_then(|sample| sample.1))
        };
        state.links.values().map(mark).collect()
    }

    /// All of it as a document.
    pub(crate) fn told(&self, node: &Node) -> Value {
        let name = |peer: &NodeId| node.known().peer(peer).map(|record| record.name);
        let state = self.lock();
        let sagas: Vec<Value> = state.sagas.iter().map(|row| row.told(node, name(&row.peer))).collect();
        let links = state.links.iter().map(|(peer, row)| {
            let samples: Vec<Value> =
                row.samples.iter().map(|(second, rtt, read, sent)| json!([second, rtt, read, sent])).collect();
            let switches: Vec<Value> =
                row.switches.iter().map(|(ms, path)| json!({"time": rfc3339(*ms), "path": path})).collect();
            (peer.to_string(), json!({"name": name(peer), "samples": samples, "switches": switches}))
        });
        let links: serde_json::Map<String, Value> = links.collect();
        let signatures: Vec<Value> = state.signatures.iter().map(|(second, counts)| json!([second, counts])).collect();
        json!({"schema": "sealtide/recent/1", "sagas": sagas, "links": links, "signatures": signatures})
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn running(&mut self, space: &SpaceId, peer: &NodeId) -> Option<&mut SagaRow> {
        self.sagas.iter_mut().find(|row| row.space == *space && row.peer == *peer && row.end.is_none())
    }

    fn end(&mut self, report: &SagaReport) {
        let is_dull = match &report.outcome {
            SagaOutcome::Committed { received, sent, .. } => received + sent == 0,
            SagaOutcome::Aborted { code, .. } => *code == AbortCode::Busy,
            SagaOutcome::Interrupted { .. } => false,
        };
        if is_dull {
            // Looked, and nothing was to do.
            let at = |row: &SagaRow| row.space == report.space && row.peer == report.peer && row.end.is_none();
            if let Some(at) = self.sagas.iter().position(at) {
                self.sagas.remove(at);
            }
        } else if let Some(row) = self.running(&report.space, &report.peer) {
            row.ended_ms = Some(now().wall_ms);
            row.end = Some(report.outcome.clone());
        }
    }
}

impl SagaRow {
    fn told(&self, node: &Node, peer_name: Option<String>) -> Value {
        let mut row = json!({
            "space": node.label(&self.space),
            "peer": self.peer.to_string(),
            "peer_name": peer_name,
            "began": rfc3339(self.began_ms),
            "ended": self.ended_ms.map(rfc3339),
            "items": [self.items.0, self.items.1],
            "bytes": self.bytes.0,
        });
        let members = match &self.end {
            None => json!({"state": "running", "received": 0, "sent": 0}),
            Some(SagaOutcome::Committed { mode, received, sent, .. }) => json!({
                "state": "committed", "mode": format!("{mode:?}").to_lowercase(), "received": received, "sent": sent,
            }),
            Some(SagaOutcome::Aborted { code, text, .. }) => json!({
                "state": "aborted", "code": format!("{code:?}").to_lowercase(), "text": text, "received": 0, "sent": 0,
            }),
            Some(SagaOutcome::Interrupted { .. }) => json!({
                "state": "aborted", "code": "interrupted", "text": "the link was lost; it is taken up again",
                "received": 0, "sent": 0,
            }),
        };
        row.as_object_mut().into_iter().for_each(|row| row.extend(members.as_object().cloned().unwrap_or_default()));
        row
    }
}

fn keep<T>(list: &mut VecDeque<T>, value: T, most: usize) {
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(value);
}
