//! `status`, `down`, `pause`, `resume`, and the figures of the gateway door.

use sealtide_gateway::{Probe, Sample};
use sealtide_identity::{Grant, NodeId, SpaceId};
use serde_json::{Value, json};

use crate::commands::conflicts::of_documents_lately;
use crate::commands::{rfc3339, role_name};
use crate::failure::Failure;
use crate::node::Node;
use crate::real::now;
use crate::share::{Phase, ShareStatus};

/// The answer of `status`.
pub(crate) fn status(node: &Node) -> Result<Value, Failure> {
    let grants = node.engine().grants();
    let spaces: Vec<Value> = node.spaces().iter().map(|space| space_status(node, space, &grants)).collect();
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
        "links": links(node),
        "relays": relays(node),
        "quota": {"saga": bound(quota.saga), "peer": bound(quota.peer), "space": bound(quota.space)},
    }))
}

/// A bound in bytes; null where there is none.
pub(crate) fn bound(bytes: u64) -> Option<u64> {
    (bytes != u64::MAX).then_some(bytes)
}

fn space_status(node: &Node, space: &SpaceId, grants: &[Grant]) -> Value {
    let label = node.known().label(space).unwrap_or_default();
    let info = node.store().view(space).and_then(|view| view.info());
    let share = node.shares().get(space).cloned();
    let mut told = share.as_ref().map(|share| share.status()).unwrap_or_default();
    told.failed = told.failed.or_else(|| node.unopened(space));
    let conflicts = told.conflicts.len() + of_documents_lately(node, space).len();
    let peers: Vec<Value> = grants
        .iter()
        .filter(|grant| grant.space == *space && grant.node != node.id())
        .map(|grant| peer_status(node, space, grant.node, role_name(grant.role)))
        .collect();
    let mut document = json!({
        "name": label.name,
        "id": space.to_string(),
        "kind": label.kind,
        "role": node.engine().role(&node.id(), space).map(role_name),
        "items": info.as_ref().map_or(0, |info| info.records),
        "bytes": node.engine().space_bytes(space),
        "bytes_max": bound(node.engine().quota_limits().space),
        "files": told.files,
        "dir": label.dir,
        "state": state(node, space, &told, conflicts, grants),
        "phase": told.phase,
        "paused": node.engine().is_paused(space),
        "peers": peers,
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

fn peer_status(node: &Node, space: &SpaceId, peer: NodeId, role: &str) -> Value {
    let known = node.engine().peer_spaces(space).into_iter().find(|(id, _)| *id == peer).map(|(_, known)| known);
    let known = known.unwrap_or_default();
    let connected = node.engine().peers().iter().any(|(id, _)| *id == peer) && !is_suspended(node, &peer);
    json!({
        "peer": peer.to_string(),
        "name": node.known().peer(&peer).map(|record| record.name),
        "role": role,
        "connected": connected,
        "in_step": connected && known.in_step,
        "syncing": known.running,
        "synced": known.synced_ms.map(rfc3339),
        "staged_bytes": node.engine().staged_bytes(&peer, space),
        "error": node.engine().refusal(&peer).or(known.last_error),
    })
}

/// Whether the session with a peer has no connection at the moment.
fn is_suspended(node: &Node, peer: &NodeId) -> bool {
    node.link().session(peer).is_some_and(|session| session.is_suspended())
}

/// `held`, `conflict`, `syncing`, `behind` (a folder that cannot be synced is, too) or `in_step`.
fn state(node: &Node, space: &SpaceId, told: &ShareStatus, conflicts: usize, grants: &[Grant]) -> &'static str {
    let peers = node.engine().peer_spaces(space);
    let connected = node.engine().peers();
    let live = |peer: &NodeId| connected.iter().any(|(id, _)| id == peer) && !is_suspended(node, peer);
    let mut others = grants.iter().filter(|grant| grant.space == *space && grant.node != node.id());
    let in_step = |peer| peers.iter().any(|(id, known)| *id == peer && known.in_step && live(id));
    if told.held.is_some() || node.engine().holds(space) {
        "held"
    } else if conflicts > 0 {
        "conflict"
    } else if told.phase != Phase::Idle || peers.iter().any(|(_, known)| known.running) {
        "syncing"
    } else if told.failed.is_none() && others.all(|grant| in_step(grant.node)) {
        "in_step"
    } else {
        "behind"
    }
}

fn links(node: &Node) -> Vec<Value> {
    let sessions = node.link().sessions();
    let mut links: Vec<Value> = sessions
        .iter()
        .map(|info| {
            let mut link = json!({
                "peer": info.peer.to_string(),
                "name": node.known().peer(&info.peer).map(|record| record.name),
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
    for peer in node.known().peers() {
        if !peer.revoked && !sessions.iter().any(|info| info.peer == peer.node) {
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
