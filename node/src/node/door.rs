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
        // Nothing of the invite is spent: it lets in as soon as somebody was taken out. A device of an owner is the member that it is.
        let space = self.known.invite(id).filter(|_| !self.known.is_device_invite(id)).map(|invite| invite.space);
        if let Some(space) = space.filter(|space| !self.engine.has_room_for(space, Some(peer))) {
            tracing::warn!(peer = peer.short(), space = space.short(), "a space has as many members as it can have");
            return Err(Refused);
        }
        let granted = self.known.enrol(id, *peer).map_err(|error| {
            tracing::info!(peer = peer.short(), %error, "an invite let nobody in");
            Refused
        })?;
        if granted.is_none() {
            // A join that was cut after the grant was spent goes on as the member that it is; who was removed since does not.
            let space = self.known.invite(id).map(|invite| invite.space);
            let stays = space.is_some_and(|space| self.engine.role(peer, &space).is_some());
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

    use sealtide_ibgib::Address;
    use sealtide_identity::members::{MEMBER_COUNT_MAX, Member};
    use sealtide_identity::{Invite, Role};

    use super::*;
    use crate::commands::ticket;
    use crate::config::Config;
    use crate::home::Home;
    use crate::node::Node;
    use crate::real::now;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_full_space_has_no_tickets_and_spends_none() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        home.init().unwrap();
        let node = Node::open(home, Config::defaults()).unwrap();
        let space = node.create_space("Notes", "folder").unwrap();
        let (id, peer, known) = ([7; 16], NodeId::from_bytes([3; 32]), node.known());
        let (secret, expires_ms) = (InviteSecret::from_bytes([8; 32]), now().wall_ms + 3_600_000);
        let invite = Invite { id, secret, space, role: Role::Write, expires_ms, uses_left: 1, enrolled: Vec::new() };
        known.put_invite(&invite).unwrap();
        let stranger = |number: usize| Address::parse(&format!("keystone^{number:064X}")).unwrap();
        let filled = tokio::task::block_in_place(|| {
            node.engine().change_members(space, |list| {
                for number in 1..MEMBER_COUNT_MAX {
                    let (keystone, nodes) = (stranger(number), BTreeSet::new());
                    list.insert(Member { keystone, nodes, role: Role::Read, since_ms: 1 });
                }
                true
            })
        });
        assert!(filled.unwrap());
        let refused = ticket::new(&node, None, "write", 60, 1).await.unwrap_err();
        assert_eq!(refused.code, "members_full");
        assert!(node.0.door.enrol(&id, &peer).is_err());
        let left = || (known.invite(&id).unwrap().uses_left, known.grant(&space, &peer).is_some());
        assert_eq!(left(), (1, false));
        let gone = tokio::task::block_in_place(|| {
            node.engine().change_members(space, |list| list.remove(&stranger(1), BTreeSet::new()))
        });
        assert!(gone.unwrap());
        node.0.door.enrol(&id, &peer).unwrap();
        assert_eq!(left(), (0, true));
    }
}
