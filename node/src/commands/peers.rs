//! `peers list|show|rename|revoke`.

use serde_json::{Value, json};

use crate::commands::{rfc3339, role_name, store_failure};
use crate::failure::Failure;
use crate::node::Node;
use sealtide_identity::{Grant, NodeId};
use sealtide_store::Peer;

/// `grants`: all of this node.
fn document(node: &Node, peer: &Peer, grants: &[Grant]) -> Value {
    let spaces: Vec<Value> = grants
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
    let grants = node.engine().grants();
    let peers: Vec<Value> = node.known().peers().iter().map(|peer| document(node, peer, &grants)).collect();
    Ok(json!({"schema": "sealtide/peers/1", "peers": peers}))
}

/// One peer.
pub(crate) fn show(node: &Node, name: &str) -> Result<Value, Failure> {
    let mut shown = document(node, &node.find_peer(name)?, &node.engine().grants());
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

/// Throws a peer out ([`Node::revoke_peer`]). A member that this node never met is named by its id.
pub(crate) async fn revoke(node: &Node, name: &str) -> Result<Value, Failure> {
    let record = match (node.find_peer(name), name.parse()) {
        (Ok(record), _) => record,
        (Err(_), Ok(id)) if is_member(node, &id) => Peer::new(id, crate::real::now()),
        (Err(failure), _) => return Err(failure),
    };
    let removed = node.revoke_peer(record.node).await?;
    let removed: Vec<String> = removed.iter().map(|space| node.label(space)).collect();
    Ok(json!({
        "schema": "sealtide/peer_revoke/1", "node": record.node.to_string(), "name": record.name,
        "no_member_of": removed,
    }))
}

fn is_member(node: &Node, id: &NodeId) -> bool {
    let lists = node.spaces().into_iter().filter_map(|space| node.engine().members(&space));
    lists.into_iter().any(|list| list.newest.members.members.values().any(|member| member.nodes.contains(id)))
}
