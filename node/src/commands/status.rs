//! `status`, `down`, `pause`, `resume`, and the figures of the gateway door.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_gateway::{Probe, Sample};
use sealtide_identity::{Grant, NodeId, SpaceId};
use sealtide_store::{Peer, SpaceLabel};
use serde_json::{Value, json};

use crate::commands::conflicts::of_documents_lately;
use crate::commands::{rfc3339, role_name};
use crate::engine::PeerSpace;
use crate::failure::Failure;
use crate::node::Node;
use crate::real::now;
use crate::share::Phase;

/// What is told of every space at every peer, read once for all of them.
struct Look {
    labels: BTreeMap<SpaceId, SpaceLabel>,
    /// What is granted in each space: to this node and to peers.
    grants: BTreeMap<SpaceId, Vec<Grant>>,
    peers: Vec<Peer>,
    names: BTreeMap<NodeId, String>,
    /// The peers whose session has a connection at the moment.
    connected: BTreeSet<NodeId>,
}

impl Look {
    fn of(node: &Node) -> Self {
        let mut grants: BTreeMap<SpaceId, Vec<Grant>> = BTreeMap::new();
        for grant in node.engine().grants() {
            grants.entry(grant.space).or_default().push(grant);
        }
        let peers = node.known().peers();
        let sessions = node.engine().peers().into_iter().map(|(peer, _)| peer);
        let is_suspended = |peer: &NodeId| node.link().session(peer).is_some_and(|session| session.is_suspended());
        Self {
            labels: node.known().labels().into_iter().collect(),
            grants,
            names: peers.iter().map(|peer| (peer.node, peer.name.clone())).collect(),
            peers,
            connected: sessions.filter(|peer| !is_suspended(peer)).collect(),
        }
    }
}

/// The answer of `status`.
pub(crate) fn status(node: &Node) -> Result<Value, Failure> {
    let look = Look::of(node);
    let spaces: Vec<Value> = node.spaces().iter().map(|space| space_status(node, space, &look)).collect();
    let quota = node.engine().quota_limits();
    let listen: Vec<String> = node.listening().iter().map(ToString::to_string).collect();
    Ok(json!({
        "schema": "sealtide/status/1",
        "node": node.id().to_string(),
        "name": node.known().setting("name"),
        "home": node.home().root(),
        "version": env!("CARGO_PKG_VERSION"),
        "running": !listen.is_empty(),
        "since": rfc3339(node.started_ms()),
        "listen": listen,
        "certificate_ends": rfc3339(node.link().certificate_ends_s() * 1_000),
        "gateway": node.gateway_url(),
        "spaces": spaces,
        "links": links(node, &look),
        "relays": relays(node),
        "quota": {"saga": bound(quota.saga), "peer": bound(quota.peer), "space": bound(quota.space)},
    }))
}

/// A bound in bytes; null where there is none.
pub(crate) fn bound(bytes: u64) -> Option<u64> {
    (bytes != u64::MAX).then_some(bytes)
}

fn space_status(node: &Node, space: &SpaceId, look: &Look) -> Value {
    let label = look.labels.get(space).cloned().unwrap_or_default();
    let info = node.store().view(space).and_then(|view| view.info());
    let share = node.shares().get(space).cloned();
    let mut told = share.as_ref().map(|share| share.status()).unwrap_or_default();
    told.failed = told.failed.or_else(|| node.unopened(space));
    let conflicts = told.conflicts.len() + of_documents_lately(node, space).len();
    let grants = look.grants.get(space).map(Vec::as_slice).unwrap_or_default();
    let (own, others): (Vec<&Grant>, Vec<&Grant>) = grants.iter().partition(|grant| grant.node == node.id());
    let known: BTreeMap<NodeId, PeerSpace> = node.engine().peer_spaces(space).into_iter().collect();
    let staged = node.engine().staged_in(space);
    let peer = |grant: &&Grant| {
        let (peer, known) = (grant.node, known.get(&grant.node).cloned().unwrap_or_default());
        let connected = look.connected.contains(&peer);
        json!({
            "peer": peer.to_string(),
            "name": look.names.get(&peer),
            "role": role_name(grant.role),
            "connected": connected,
            "in_step": connected && known.in_step,
            "syncing": known.running,
            "synced": known.synced_ms.map(rfc3339),
            "staged_bytes": staged.get(&peer).copied().unwrap_or(0),
            "error": node.engine().refusal(&peer).or(known.last_error),
        })
    };
    let in_step = |grant: &&Grant| {
        known.get(&grant.node).is_some_and(|known| known.in_step) && look.connected.contains(&grant.node)
    };
    // `held`, `conflict`, `syncing`, `behind` (a folder that cannot be synced is, too) or `in_step`.
    let state = if told.held.is_some() || node.engine().holds(space) {
        "held"
    } else if conflicts > 0 {
        "conflict"
    } else if told.phase != Phase::Idle || known.values().any(|known| known.running) {
        "syncing"
    } else if told.failed.is_none() && others.iter().all(in_step) {
        "in_step"
    } else {
        "behind"
    };
    let mut document = json!({
        "name": label.name,
        "id": space.to_string(),
        "kind": label.kind,
        "role": own.iter().map(|grant| grant.role).min().map(role_name),
        "items": info.as_ref().map_or(0, |info| info.records),
        "bytes": node.engine().space_bytes(space),
        "bytes_max": bound(node.engine().quota_limits().space),
        "files": told.files,
        "dir": label.dir,
        "state": state,
        "phase": told.phase,
        "paused": node.engine().is_paused(space),
        "peers": others.iter().map(peer).collect::<Vec<Value>>(),
    });
    if told.phase != Phase::Idle {
        document["progress"] = json!({"items": told.items, "bytes": told.bytes});
    }
    if !told.skipped.is_empty() {
        document["skipped"] = json!(told.skipped);
    }
    if let Some(reason) = told.unwatched {
        document["unwatched"] = json!(reason);
    }
    if !told.local_only.is_empty() {
        document["local_only"] = json!(told.local_only);
    }
    if conflicts > 0 {
        document["conflicts"] = json!(conflicts);
    }
    if let Some(failed) = told.failed {
        document["error"] = json!(failed);
    }
    document
}

fn links(node: &Node, look: &Look) -> Vec<Value> {
    let sessions = node.link().sessions();
    let met: BTreeSet<NodeId> = sessions.iter().map(|info| info.peer).collect();
    let mut links: Vec<Value> = sessions
        .iter()
        .map(|info| {
            let mut link = json!({
                "peer": info.peer.to_string(),
                "name": look.names.get(&info.peer),
                "path": info.path,
                "remote": info.remote.to_string(),
                "suite": info.suite,
                "rtt_ms": info.rtt_ms,
                "age_s": info.age_s,
                "bytes_in": info.bytes_in,
                "bytes_out": info.bytes_out,
            });
            if let Some(why) = info.why_not_direct {
                link["why_not_direct"] = json!(why.word());
                link["punches"] = json!(info.punches);
            }
            link
        })
        .collect();
    for peer in &look.peers {
        if !peer.revoked && !met.contains(&peer.node) {
            // Between two sessions nothing has failed yet.
            let none_yet = match !peer.addresses.is_empty() || !peer.relays.is_empty() {
                true if node.listening().is_empty() => "not_running",
                true => "trying",
                false => "no_address",
            };
            let why = node.why_not_direct(&peer.node).unwrap_or_else(|| none_yet.to_owned());
            let mut link = json!({
                "peer": peer.node.to_string(), "name": peer.name, "path": null, "why_not_direct": why,
            });
            if let Some(why) = node.engine().refusal(&peer.node) {
                link["refused"] = json!(why);
            }
            links.push(link);
        }
    }
    links
}

/// The logins at relays. Spec: link C.12.
fn relays(node: &Node) -> Vec<Value> {
    let login = |login: sealtide_link::RelayState| {
        json!({
            "relay": login.relay.relay.to_string(),
            "url": login.relay.url,
            "up": login.up,
            "why_not": login.why_not,
            "observed": login.observed.map(|seen| seen.socket.to_string()),
            "bind": login.bind,
        })
    };
    node.link().relays().into_iter().map(login).collect()
}

/// Asks the running node to stop. Who asked gets the answer at once, and the end of the connection when it has.
pub(crate) fn down(node: &Node) -> Result<Value, Failure> {
    node.audit().note("down", &[]);
    node.stop();
    Ok(json!({"schema": "sealtide/down/1", "stopped": true}))
}

/// Stops syncing one space or all, or goes on. Lasts until the node stops.
pub(crate) fn pause(node: &Node, space: Option<&str>, paused: bool) -> Result<Value, Failure> {
    let spaces: Vec<SpaceId> = match space {
        Some(name) => vec![node.find_space(name)?],
        None => node.spaces(),
    };
    for space in &spaces {
        node.engine().pause(*space, paused);
        if let Some(share) = node.shares().get(space) {
            share.pause(paused);
        }
    }
    Ok(json!({"schema": "sealtide/pause/1", "paused": paused, "spaces": spaces.len()}))
}

/// What the gateway door asks. It holds the node until the door closes, which [`Node::shutdown`] sees to.
pub(crate) struct NodeProbe(pub(crate) Node);

impl Probe for NodeProbe {
    fn ready(&self) -> Result<(), String> {
        self.0.readiness()
    }

    fn samples(&self) -> Vec<Sample> {
        let node = &self.0;
        let uptime = (now().wall_ms - node.started_ms()) / 1000;
        let mut samples = vec![Sample::gauge("sealtide_uptime_seconds", "Seconds since start", uptime)];
        samples.extend(node.link().metrics().samples().into_iter().map(|link| {
            let sample = if link.goes_down { Sample::gauge } else { Sample::counter };
            sample(link.name, link.help, link.value)
        }));
        for space in node.spaces() {
            let Some(info) = node.store().view(&space).and_then(|view| view.info()) else { continue };
            let label = node.label(&space);
            samples.push(
                Sample::gauge("sealtide_space_records", "Records of a space", info.records).label("space", &label),
            );
            samples.push(
                Sample::gauge(
                    "sealtide_space_bytes",
                    "Bytes of the records and chunks of a space",
                    node.engine().space_bytes(&space),
                )
                .label("space", &label),
            );
        }
        samples.extend(node.open_desk().map(|desk| desk.samples()).unwrap_or_default());
        samples
    }
}
