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
