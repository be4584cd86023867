//! Who may come in: the invites and grants in the store, and the members of a space that an invite lets into.

use sealtide_identity::{InviteId, InviteSecret, NodeId};
use sealtide_link::{Admission, Refused};
use tokio::sync::Notify;

use crate::engine::Engine;
use crate::known::Known;
use crate::real::RealWorld;

/// Who may come in.
pub(super) struct Door {
    pub(super) known: Known,
    pub(super) engine: Engine<RealWorld>,
    /// An invite enrolled somebody: relays may have to be told.
    pub(super) enrolled: Notify,
}

impl Admission for Door {
    fn allowed(&self, peer: &NodeId) -> bool {
        self.known.peer(peer).is_some_and(|peer| !peer.revoked)
    }

    fn invite_secret(&self, id: &InviteId) -> Option<InviteSecret> {
        self.known.invite(id).map(|invite| invite.secret)
    }

    fn enrol(&self, id: &InviteId, peer: &NodeId) -> Result<(), Refused> {
        // Nothing of the invite is spent: it lets in as soon as somebody was taken out. One for a device may let in elsewhere.
        let space = self.known.invite(id).filter(|_| !self.known.is_device_invite(id)).map(|invite| invite.space);
        if let Some(space) = space
            && let Err(error) = self.engine.room_for(&space, Some(peer))
        {
            tracing::warn!(peer = peer.short(), space = space.short(), %error, "a space takes nobody in");
            return Err(Refused);
        }
        let granted = self.known.enrol(id, *peer).map_err(|error| {
            tracing::info!(peer = peer.short(), %error, "an invite let nobody in");
            Refused
        })?;
        if granted.is_none() {
            // A join that was cut after the grant was spent goes on as the member that it is; who was removed since does not.
            let stays = self.known.invite(id).is_some_and(|invite| self.engine.is_in_by(&invite, peer));
            if !stays {
                tracing::info!(peer = peer.short(), "an invite lets nobody in again who was removed since");
            }
            return if stays { Ok(()) } else { Err(Refused) };
        }
        // Whether a session comes of it or not.
        self.enrolled.notify_one();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use sealtide_ibgib::Address;
    use sealtide_identity::keystone::RootSecret;
    use sealtide_identity::members::{MEMBER_COUNT_MAX, Member};
    use sealtide_identity::{Role, SpaceId};
    use serde_json::{Value, json};

    use super::*;
    use crate::api::Progress;
    use crate::commands::join::{JoinOrder, join};
    use crate::commands::{members_failure, ticket};
    use crate::failure::Failure;
    use crate::node::peers::tests::serving;
    use crate::node::tests::until;
    use crate::node::{Node, off};

    fn stranger(number: usize) -> Address {
        Address::parse(&format!("keystone^{number:064X}")).unwrap()
    }

    /// As many members as a space can have.
    async fn fill(node: &Node, space: SpaceId) {
        let node = node.clone();
        let filled = off(move || {
            let filled = node.engine().change_members(space, |list| {
                for number in 1..=MEMBER_COUNT_MAX - list.members.len() {
                    let (keystone, nodes) = (stranger(number), BTreeSet::new());
                    list.insert(Member { keystone, nodes, role: Role::Read, since_ms: 1 });
                }
                true
            });
            filled.map_err(members_failure)
        });
        assert!(filled.await.unwrap());
    }

    async fn take_one_out(node: &Node, space: SpaceId) {
        let node = node.clone();
        let gone = off(move || {
            let gone = node.engine().change_members(space, |list| list.remove(&stranger(1), BTreeSet::new()));
            gone.map_err(members_failure)
        });
        assert!(gone.await.unwrap());
    }

    async fn create(node: &Node, name: &'static str) -> SpaceId {
        let node = node.clone();
        off(move || node.create_space(name, "data")).await.unwrap()
    }

    async fn joins(node: &Node, ticket: &str, device: bool) -> Result<Value, Failure> {
        let order = JoinOrder { ticket: ticket.to_owned(), dir: None, wait: false, yes: false, timeout_s: 60, device };
        join(node, order, &Progress::none()).await
    }

    /// Who can be made no member is told so and costs nothing, and comes in by the same ticket as soon as somebody is taken out.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_space_has_no_tickets_and_spends_none() {
        let dir = tempfile::tempdir().unwrap();
        let ((a, _), (b, _)) = (serving(dir.path(), "a").await, serving(dir.path(), "b").await);
        let (space, known) = (create(&a, "Notes").await, a.known());
        let [made, other] = [1, 2].map(|uses| ticket::make(&a, space, Role::Write, 3600, uses).unwrap());
        fill(&a, space).await;
        let refused = ticket::new(&a, None, "write", 60, 1).await.unwrap_err();
        assert_eq!(refused.code, "members_full");
        let refused = a.new_ticket(&space, Role::Write, Duration::from_secs(60), 1).unwrap_err();
        assert_eq!(refused.code, "members_full", "a program's");
        let refused = joins(&b, &made.ticket.encode(), false).await.unwrap_err();
        assert!(refused.code == "refused" && refused.message.contains("512 members"), "{refused:?}");
        let left = || {
            let invite = known.invite(&made.invite.id).unwrap();
            (invite.uses_left, invite.refused.len(), known.grant(&space, &b.id()).is_some())
        };
        assert_eq!(left(), (1, 1, false));
        assert!(a.0.door.enrol(&made.invite.id, &b.id()).is_err(), "whose keystones are known");
        assert_eq!(left(), (1, 1, false));
        // A ticket that a node proved in vain has its secret: when that one is thrown out, it is closed.
        let thrown_out = NodeId::from_bytes([3; 32]);
        let grant = known.enrol(&other.invite.id, thrown_out).unwrap().unwrap();
        known.unenrol(&grant).unwrap();
        a.revoke_peer(thrown_out).await.unwrap();
        assert_eq!(known.invite(&other.invite.id).unwrap().uses_left, 0);
        take_one_out(&a, space).await;
        joins(&b, &made.ticket.encode(), false).await.unwrap();
        assert_eq!(a.engine().role(&b.id(), &space), Some(Role::Write));
        assert_eq!(left(), (0, 1, false));
        a.shutdown().await;
        b.shutdown().await;
    }

    /// A device comes into the spaces that have room for it; and where its owner is a member, it needs none.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_comes_in_while_a_space_is_full() {
        for has_owner in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let ((a, _), (b, _)) = (serving(dir.path(), "a").await, serving(dir.path(), "b").await);
            if has_owner {
                let making = a.clone();
                off(move || Ok(making.identities().make_owner(&RootSecret::from_bytes([9; 32]))))
                    .await
                    .unwrap()
                    .unwrap();
            }
            let (docs, notes) = (create(&a, "docs").await, create(&a, "Notes").await);
            assert_eq!(a.administered(), [notes, docs]);
            let all_spent = || a.known().grants().iter().all(|grant| grant.node == a.id());
            let ticket = |made: Value| made["ticket"].as_str().unwrap().to_owned();
            let (first, other) =
                (ticket(ticket::new_for_device(&a, 3600).unwrap()), ticket(ticket::new_for_device(&a, 3600).unwrap()));
            fill(&a, notes).await;
            let expected = if has_owner { json!(["Notes", "docs"]) } else { json!(["docs"]) };
            assert_eq!(ticket::new_for_device(&a, 3600).unwrap()["spaces"], expected);
            // The second time as after a cut.
            for _ in 0..2 {
                assert_eq!(joins(&b, &first, true).await.unwrap()["spaces"], expected, "an owner: {has_owner}");
            }
            if has_owner {
                until("the owner speaks through the device", || {
                    let owner = a.identities().owner().unwrap();
                    a.identities().acts_as(&b.id()).contains(&owner) && all_spent()
                })
                .await;
            } else {
                fill(&a, docs).await;
                assert_eq!(ticket::new_for_device(&a, 3600).unwrap_err().code, "members_full");
                let (c, _) = serving(dir.path(), "c").await;
                let refused = joins(&c, &other, true).await.unwrap_err();
                assert!(refused.message.contains("512 members"), "{refused:?}");
                take_one_out(&a, docs).await;
                assert_eq!(joins(&c, &other, true).await.unwrap()["spaces"], expected);
                c.shutdown().await;
            }
            let roles = [notes, docs].map(|space| a.engine().role(&b.id(), &space));
            assert_eq!(roles, [has_owner.then_some(Role::Admin), Some(Role::Admin)]);
            assert_eq!(a.engine().members(&notes).unwrap().newest.members.members.len(), MEMBER_COUNT_MAX);
            assert!(all_spent());
            a.shutdown().await;
            b.shutdown().await;
        }
    }
}
