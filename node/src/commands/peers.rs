//! `peers list|show|rename|revoke`.

use serde_json::{Value, json};

use crate::commands::{rfc3339, role_name, store_failure};
use crate::failure::Failure;
use crate::node::Node;
use sealtide_store::Peer;

fn document(node: &Node, peer: &Peer) -> Value {
    let facts = node.known();
    let spaces: Vec<Value> = facts
        .grants()
        .iter()
        .filter(|grant| grant.node == peer.node)
        .map(|grant| {
            let name = node.label(&grant.space);
            json!({"space": name, "role": role_name(grant.role), "since": rfc3339(grant.since_ms)})
        })
        .collect();
    let connected = node.engine().peers().iter().any(|(id, _)| *id == peer.node);
    json!({
        "node": peer.node.to_string(),
        "name": peer.name,
        "connected": connected,
        "revoked": peer.revoked,
        "last_seen": (peer.last_seen_ms > 0).then(|| rfc3339(peer.last_seen_ms)),
        "addresses": peer.addresses.iter().map(|address| address.socket.to_string()).collect::<Vec<_>>(),
        "spaces": spaces,
    })
}

/// All peers.
pub(crate) fn list(node: &Node) -> Result<Value, Failure> {
    let peers: Vec<Value> = node.known().peers().iter().map(|peer| document(node, peer)).collect();
    Ok(json!({"schema": "sealtide/peers/1", "peers": peers}))
}

/// One peer.
pub(crate) fn show(node: &Node, name: &str) -> Result<Value, Failure> {
    let mut shown = document(node, &node.find_peer(name)?);
    shown["schema"] = json!("sealtide/peer/1");
    Ok(shown)
}

/// Gives a peer another name.
pub(crate) fn rename(node: &Node, peer: &str, name: &str) -> Result<Value, Failure> {
    node.with_peers(|known| {
        let mut record = node.find_peer(peer)?;
        let taken = known.peers().iter().any(|other| other.name == name && other.node != record.node);
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) || taken {
            return Err(Failure::usage("name", format!("{name:?} is empty, too long, unprintable or taken")));
        }
        record.name = name.to_owned();
        known.put_peer(&record).map_err(store_failure)
    })?;
    show(node, name)
}

/// Takes every grant from a peer and ends its sessions and sagas at once. Spec: link C.6.
pub(crate) fn revoke(node: &Node, name: &str) -> Result<Value, Failure> {
    let record = node.find_peer(name)?;
    node.with_peers(|known| known.revoke_peer(&record.node)).map_err(store_failure)?;
    // Who holds a ticket for several could come back with it under another key.
    for mut invite in node.known().invites() {
        if invite.uses_left > 0 && invite.enrolled.contains(&record.node) {
            invite.uses_left = 0;
            node.known().put_invite(&invite).map_err(store_failure)?;
        }
    }
    node.audit().note("peer_revoked", &[("peer", &record.node.to_string())]);
    node.engine().grants_changed();
    node.link().revoke(&record.node);
    Ok(json!({"schema": "sealtide/peer_revoke/1", "node": record.node.to_string(), "name": record.name}))
}
