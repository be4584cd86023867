//! The rows of peers, changed one at a time, and how a peer is thrown out. Spec: link C.6

use sealtide_identity::{NodeId, SpaceId};

use super::{Node, lock, off};
use crate::commands::{members_failure, store_failure};
use crate::failure::Failure;
use crate::known::Known;

impl Node {
    /// Reads and writes what is known of peers, one at a time, so that a row written anew takes no revocation back.
    pub(crate) fn with_peers<T>(&self, change: impl FnOnce(&Known) -> T) -> T {
        let _alone = lock(&self.0.peers);
        change(&self.known())
    }

    /// Throws a peer out: its grants and invites go, its sessions and sagas end at once, relays hear of it, and where this node
    /// administers members, it is none any more, which every node of these spaces hears. Gives those spaces. Audited. A node that
    /// was never met may be a member too.
    ///
    /// # Errors
    /// When the store cannot be written, or the members of a space could not be changed; the peer is cut off all the same in the
    /// latter case, and asking again tries the members again.
    pub async fn revoke_peer(&self, peer: NodeId) -> Result<Vec<SpaceId>, Failure> {
        let node = self.clone();
        off(move || node.revoke_now(&peer)).await
    }

    fn revoke_now(&self, peer: &NodeId) -> Result<Vec<SpaceId>, Failure> {
        self.with_peers(|known| known.revoke_peer(peer)).map_err(store_failure)?;
        // Who holds a ticket for several could come back with it under another key.
        for mut invite in self.known().invites() {
            if invite.uses_left > 0 && invite.was_proved_by(peer) {
                invite.uses_left = 0;
                self.known().put_invite(&invite).map_err(store_failure)?;
            }
        }
        self.audit().note("peer_revoked", &[("peer", &peer.to_string())]);
        self.engine().grants_changed();
        self.tell_relays();
        self.link().revoke(peer);
        let removed = self.engine().remove_member(peer).map_err(members_failure)?;
        for space in &removed {
            self.audit().note("member_removed", &[("space", &space.to_string()), ("node", &peer.to_string())]);
        }
        Ok(removed)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use sealtide_ibgib::Address;
    use sealtide_identity::members::Member;
    use sealtide_identity::{LinkAddress, Role};
    use sealtide_link::DialTarget;
    use sealtide_store::Peer;

    use super::*;
    use crate::node::tests::until;
    use crate::real::now;

    /// A node of its own that listens on this machine and serves, and where it listens.
    pub(in crate::node) async fn serving(dir: &std::path::Path, name: &str) -> (Node, SocketAddr) {
        let node = Node::new_at(dir.join(name));
        let address = node.listen(SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), 0)).await.unwrap();
        node.serve().unwrap();
        (node, address)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_peer_that_is_thrown_out_is_out_of_everything() {
        let dir = tempfile::tempdir().unwrap();
        let ((a, at), (b, _)) = (serving(dir.path(), "a").await, serving(dir.path(), "b").await);
        for (node, peer) in [(&a, &b), (&b, &a)] {
            node.with_peers(|known| known.put_peer(&Peer::new(peer.id(), now()))).unwrap();
        }
        let (listing, peer) = (a.clone(), b.id());
        let space = off(move || {
            let space = listing.create_space("Notes", "data")?;
            let keystone = Address::parse(&format!("keystone^{:064X}", 7)).unwrap();
            let member = Member { keystone, nodes: BTreeSet::from([peer]), role: Role::Write, since_ms: 1 };
            let listed = listing.engine().change_members(space, |list| {
                list.insert(member);
                true
            });
            listed.map(|_| space).map_err(members_failure)
        });
        let space = space.await.unwrap();
        let addresses = vec![LinkAddress { socket: at, source: LinkAddress::CONFIGURED }];
        let target = DialTarget { node: a.id(), addresses, relays: Vec::new(), invite: None };
        b.welcome(b.link().dial(target).await.unwrap());
        until("the session stands", || a.link().session(&peer).is_some()).await;
        assert_eq!(a.revoke_peer(peer).await.unwrap(), [space]);
        until("the session is over", || b.link().session(&a.id()).is_none()).await;
        assert!(a.known().peer(&peer).unwrap().revoked);
        let members = a.engine().members(&space).unwrap();
        assert!(!members.newest.members.members.values().any(|member| member.nodes.contains(&peer)));
        assert_eq!(a.revoke_peer(peer).await.unwrap(), [], "once is enough");
        a.shutdown().await;
        b.shutdown().await;
    }
}
