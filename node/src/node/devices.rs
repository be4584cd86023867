//! Other devices of the same owner: what a ticket for one opens, and the owner that speaks through it. Spec: `spec/backup.md` §4

use sealtide_identity::keystone::Verb;
use sealtide_identity::{Grant, InviteId, NodeId, Role};

use super::Node;
use crate::commands::identity::ask_peers;
use crate::identity::DelegationOrder;
use crate::real::now;

impl Node {
    /// A node came with a ticket for a device: it is let into all that this node administers. The engine makes it a member there once
    /// it proved its keystones, as any other that an invite let in. Once: what was taken from it since, the same ticket does not
    /// give back.
    pub(super) fn let_device_in(&self, peer: NodeId, invite: InviteId) {
        let granted = self.known().grants();
        let space = self.known().invite(&invite).map(|invite| invite.space);
        // What the invite itself granted is spent when the device has proved its keystones.
        let is_new = granted.iter().any(|grant| grant.node == peer && Some(grant.space) == space);
        if !is_new || self.known().was_device_let_in(&invite, &peer) {
            return;
        }
        for space in self.administered() {
            if granted.iter().any(|grant| grant.space == space && grant.node == peer && grant.role == Role::Admin) {
                continue;
            }
            let grant = Grant { space, node: peer, role: Role::Admin, since_ms: now().wall_ms, invite: Some(invite) };
            if let Err(error) = self.known().put_grant(&grant) {
                tracing::error!(%error, space = space.short(), "a device was not let into a space");
            }
        }
        if self.identities().owner().is_some()
            && let Err(error) = self.known().note_awaits_owner(&peer, true)
        {
            tracing::error!(%error, "a device is not delegated by the owner; `sealtide identity delegate` does it");
        }
        if let Err(error) = self.known().note_device_let_in(&invite, &peer) {
            tracing::error!(%error, "the same ticket lets this device in once more");
        }
    }

    /// A peer proved its keystones: where it is a device that waits for it, the owner delegates it. One that could not, in doubt for
    /// instance, does so when the two meet again.
    pub(super) fn delegate_to_device(&self, peer: NodeId) {
        if !self.known().awaits_owner(&peer) {
            return;
        }
        let node = self.clone();
        tokio::spawn(async move {
            ask_peers(&node).await;
            let delegating = tokio::task::spawn_blocking(move || {
                // It may have been done while the others were asked.
                if !node.known().awaits_owner(&peer) {
                    return;
                }
                let verbs = vec![Verb::Connect, Verb::Sync, Verb::Post];
                match node.identities().delegate(&DelegationOrder { node: peer, verbs, until: None }) {
                    Ok(delegation) => {
                        let scope = delegation.scope();
                        node.audit().note("identity_delegated", &[("node", &peer.to_string()), ("scope", &scope)]);
                        if let Err(error) = node.known().note_awaits_owner(&peer, false) {
                            tracing::error!(%error, "a device that was delegated will be so once more");
                        }
                        node.identities_changed();
                    }
                    Err(error) => {
                        tracing::warn!(peer = peer.short(), %error, "the owner did not delegate a device yet");
                    }
                }
            });
            let _ = delegating.await;
        });
    }

    /// The owner whose keys are here becomes an admin of the spaces that were made before it; gives how many those are. Waits for the disk.
    pub(crate) fn enter_owner(&self) -> usize {
        if self.identities().owner().is_none() {
            return 0;
        }
        let entered = self.engine().enter_owner();
        for space in &entered {
            self.audit().note("owner_entered", &[("space", &space.to_string())]);
        }
        entered.len()
    }

    /// What [`Node::enter_owner`] did not come to when the owner was made.
    pub(super) fn enter_owner_late(&self) {
        let node = self.clone();
        tokio::task::spawn_blocking(move || node.enter_owner());
    }

    /// Where this device came in with a ticket for a device, it speaks for the owner of that node as soon as that one delegates it.
    pub(crate) fn watch_for_owner(&self) {
        if self.known().device_of().is_none() {
            return;
        }
        let (node, mut news, mut stop) = (self.clone(), self.identities().watch(), self.stopping());
        tokio::spawn(async move {
            loop {
                let asked = node.clone();
                let settled = tokio::task::spawn_blocking(move || asked.speak_for_issuer()).await;
                if settled.unwrap_or(true) {
                    return;
                }
                tokio::select! {
                    told = news.changed() => if told.is_err() { return },
                    _ = stop.wait_for(|stopped| *stopped) => return,
                }
            }
        });
    }

    /// Whether nothing is waited for any more.
    fn speak_for_issuer(&self) -> bool {
        let Some(issuer) = self.known().device_of() else { return true };
        if self.identities().owner().is_none() {
            match self.identities().speak_for(Some(&issuer)) {
                Ok(owner) => {
                    let named = owner.as_ref().map_or("none", |owner| owner.as_str());
                    self.audit().note("identity_speaks_for", &[("keystone", named)]);
                }
                // Its owner is not known yet, or has not delegated this device yet; perhaps it has none.
                Err(_) => return false,
            }
        }
        if let Err(error) = self.known().note_device_of(None) {
            tracing::warn!(%error, "that a device speaks for its owner will be written down once more");
        }
        self.identities_changed();
        true
    }
}

#[cfg(test)]
mod tests {
    use sealtide_identity::{Invite, InviteSecret};

    use super::*;

    /// A ticket for a device lets it in once: what was spent or taken away since stays so.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_is_let_in_once() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        let spaces = [node.create_space("Notes", "folder").unwrap(), node.create_space("docs", "folder").unwrap()];
        let (id, device, known) = ([7; 16], NodeId::from_bytes([3; 32]), node.known());
        let (secret, expires_ms) = (InviteSecret::from_bytes([8; 32]), now().wall_ms + 3_600_000);
        let invite = Invite {
            id,
            secret,
            space: spaces[0],
            role: Role::Admin,
            expires_ms,
            uses_left: 1,
            enrolled: Vec::new(),
            refused: Vec::new(),
        };
        known.put_invite(&invite).unwrap();
        known.note_device_invite(&id).unwrap();
        let granted = || known.grants().iter().filter(|grant| grant.node == device).count();
        // A join that is cut begins again.
        for _ in 0..2 {
            assert!(known.enrol(&id, device).unwrap().is_some());
            node.let_device_in(device, id);
            assert_eq!(granted(), 2);
        }
        // The issuer administers one of the spaces no more, so that the grant there is not spent.
        for taken in [spaces[1], spaces[0]] {
            node.store().facts().remove_grant(&taken, &device).unwrap();
            let left = granted();
            let _ = known.enrol(&id, device).unwrap();
            node.let_device_in(device, id);
            assert_eq!(granted(), left);
        }
        assert!(known.is_device_invite(&id));
    }
}
