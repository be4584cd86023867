//! Whether the identities behind a connection hold: asked when it opens, and again whenever a keystone changes.
//! Spec: ibgib §12.3 "State", "Delegation"

use sealtide_ibgib::Address;
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Chain, Class, State, Verb};
use sealtide_sync::{AbortCode, Refused};

use super::peers::OWNERS_MAX;
use super::{Identities, PeerIdentity, lock};

pub(super) fn refused(code: AbortCode, text: &str) -> Refused {
    Refused { code, text: text.to_owned() }
}

/// What the state of a keystone alone stands against.
fn standing(state: State) -> Result<(), Refused> {
    match state {
        State::Revoked => Err(refused(AbortCode::Revoked, "the identity is revoked")),
        State::Forked | State::ManagedTwice => Err(refused(AbortCode::IdentityForked, "the identity is forked")),
        State::Empty | State::Live => Ok(()),
    }
}

impl Identities {
    /// Whether a device may speak: it is whole, and so is every owner that its node ever named and that delegated it. They
    /// are remembered: a node that leaves one out, names another or makes itself a new device does not escape its end.
    // Spec: SY-27 SY-28 SY-29
    pub(super) fn device_stands(
        &self,
        node: &NodeId,
        device: &Address,
        named_owner: Option<&Address>,
    ) -> Result<(), Refused> {
        standing(self.state_of(device))?;
        let owners = PeerIdentity::of(&self.0.store, node).map(|row| row.owners).unwrap_or_default();
        for (owner, with) in &owners {
            standing(self.state_of(owner))?;
            let delegates = |chain: &mut Chain| [device, with].iter().any(|one| !chain.delegations(one).is_empty());
            if !self.0.frames.with(owner, delegates) {
                return Err(refused(AbortCode::Revoked, "the owner took back what this device may do"));
            }
        }
        if owners.len() >= OWNERS_MAX && named_owner.is_some_and(|owner| !owners.contains_key(owner)) {
            return Err(Refused::auth("this node has named too many owners; let it in under a new node key"));
        }
        let Some(owner) = named_owner else { return Ok(()) };
        standing(self.state_of(owner))?;
        let now = self.now();
        let speaks = self.0.frames.with(owner, |chain| {
            is_owner(chain) && chain.delegations(device).iter().any(|given| given.allows(Verb::Connect, now))
        });
        if speaks { Ok(()) } else { Err(Refused::auth("the owner named does not speak through this device")) }
    }

    /// The owner to name to peers: the one whose device this is, or was. One that ended is named still, so that peers
    /// hear of the end; one whose delegation only ran out is not.
    pub(super) fn owner_to_name(&self) -> Option<Address> {
        let (device, owner) = (self.device()?, self.speaks_for()?);
        let now = self.now();
        let named = self.0.frames.with(&owner, |chain| {
            let given = chain.delegations(&device);
            let speaks = given.iter().any(|given| given.allows(Verb::Connect, now));
            let ended = given.is_empty() && chain.frames().any(|frame| names(frame.claim(), &device));
            chain.state() != State::Empty && (speaks || ended || !chain.is_live())
        });
        named.then_some(owner)
    }

    /// Ends every connection whose identities do not hold any more.
    // Spec: SY-27 SY-28
    pub fn enforce(&self) {
        let live: Vec<_> = lock(&self.0.live).values().cloned().collect();
        for one in live {
            let sessions = one.peer_session.iter().map(|first| standing(self.state_of(first)));
            // Before its proof is checked the frames of its owner may be on their way; the check asks then.
            let peer = match one.peer_session {
                Some(_) => self.device_stands(&one.connection.peer, &one.peer_device, one.peer_owner.as_ref()),
                None => Ok(()),
            };
            let own = self.own_stands();
            if let Some(Err(refused)) = sessions.chain([peer, own]).find(Result::is_err) {
                tracing::warn!(peer = one.connection.peer.short(), code = ?refused.code, "{}", refused.text);
                one.connection.end(refused);
            }
        }
    }

    /// Whether the own identities may speak.
    pub(super) fn own_stands(&self) -> Result<(), Refused> {
        let Some(device) = self.device() else { return Ok(()) };
        standing(self.state_of(&device))?;
        let Some(owner) = self.speaks_for() else { return Ok(()) };
        standing(self.state_of(&owner))?;
        let ended = self.0.frames.with(&owner, |chain| {
            chain.delegations(&device).is_empty() && chain.frames().any(|frame| names(frame.claim(), &device))
        });
        if ended { Err(refused(AbortCode::Revoked, "the owner took back what this device may do")) } else { Ok(()) }
    }
}

fn is_owner(chain: &Chain) -> bool {
    chain.newest().is_some_and(|newest| newest.class() == Class::Owner)
}

/// Whether a claim takes something back from a device.
fn names(claim: Option<&sealtide_identity::keystone::Claim>, device: &Address) -> bool {
    claim.is_some_and(|claim| claim.known_verb() == Some(Verb::Undelegate) && claim.target == device.as_str())
}
