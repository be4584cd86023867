//! Where peers are: what they say of it is written down, so that they are found again. Spec: link C.10

use std::time::Duration;

use sealtide_link::Session;
use sealtide_store::Peer;
use tokio::time::timeout;

use super::Node;
use crate::known::Known;
use crate::real::now;

/// How often is looked whether a peer says that it moved.
const LOOK_EVERY: Duration = Duration::from_secs(60);

impl Node {
    /// Writes down a peer that a session was opened with, and where it is. `false`: it was thrown out.
    pub(super) fn note_met(&self, session: &Session) -> bool {
        let peer = session.peer();
        self.with_peers(|known| {
            let mut record = known.peer(&peer).unwrap_or_else(|| Peer::new(peer, now()));
            if record.name.is_empty() {
                record.name = peer.short();
            }
            note_whereabouts(known, record, session)
        })
    }

    /// Writes down where a peer is whenever it says that it moved, until its session ends, and then.
    pub(super) async fn follow(&self, session: &Session) {
        let told = || (session.peer_addresses(), session.peer_relays());
        let mut written = told();
        loop {
            let is_over = timeout(LOOK_EVERY, session.closed()).await.is_ok();
            // What a session said that another one has taken the place of is older than what that one says.
            let is_replaced =
                self.link().session(&session.peer()).is_some_and(|now| now.binding() != session.binding());
            if (is_over || told() != written) && !is_replaced {
                written = told();
                let (node, session) = (self.clone(), session.clone());
                let note = move || {
                    node.with_peers(|known| {
                        known.peer(&session.peer()).is_some_and(|record| note_whereabouts(known, record, &session))
                    })
                };
                // The store may wait for the disk.
                let _ = tokio::task::spawn_blocking(note).await;
            }
            if is_over {
                return;
            }
        }
    }
}

/// Puts into the row of a peer where its session says it is; what it does not say stays. `false`: it was thrown out.
fn note_whereabouts(known: &Known, mut record: Peer, session: &Session) -> bool {
    if record.revoked {
        return false;
    }
    let (addresses, relays) = (session.peer_addresses(), session.peer_relays());
    if !addresses.is_empty() {
        record.addresses = addresses;
    }
    if !relays.is_empty() {
        record.relays = relays;
    }
    record.last_seen_ms = now().wall_ms;
    if let Err(error) = known.put_peer(&record) {
        tracing::warn!(%error, "a peer could not be written down");
    }
    true
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use sealtide_identity::LinkAddress;
    use sealtide_link::DialTarget;

    use super::*;
    use crate::node::peers::tests::serving;
    use crate::node::tests::until;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    /// A peer that moves while its session stands is looked for at its new place after the session.
    #[tokio::test(flavor = "multi_thread")]
    async fn where_a_peer_went_is_remembered_after_its_session() {
        let dir = tempfile::tempdir().unwrap();
        let ((a, old), (b, _)) = (serving(dir.path(), "a").await, serving(dir.path(), "b").await);
        for (node, peer) in [(&a, &b), (&b, &a)] {
            node.with_peers(|known| known.put_peer(&Peer::new(peer.id(), now()))).unwrap();
        }
        let addresses = vec![LinkAddress { socket: old, source: LinkAddress::CONFIGURED }];
        let target = DialTarget { node: a.id(), addresses, relays: Vec::new(), invite: None };
        let session = b.link().dial(target).await.unwrap();
        b.welcome(session.clone());
        let new = a.listen(LOOPBACK).await.unwrap();
        let leads_to = |addresses: &[LinkAddress]| addresses.iter().any(|told| told.socket.port() == new.port());
        until("the peer says where else it is", || leads_to(&session.peer_addresses())).await;
        a.shutdown().await;
        until("that is written down", || leads_to(&b.known().peer(&a.id()).unwrap().addresses)).await;
        b.shutdown().await;
    }
}
