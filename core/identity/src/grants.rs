//! Grants: (space, node id) → role, facts of the node that enforces them. Spec: ibgib §12.5.

use crate::{NodeId, SpaceId};

/// What a node may do in a space; each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// May pull.
    Read,
    /// May also move tips.
    Write,
    /// May also change the space frame, make tickets and change grants.
    Admin,
}

/// What somebody wants to do in a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Receive records.
    Pull,
    /// Move tips of ordinary timelines.
    MoveTips,
    /// Move tips of the `space` and `members` timelines.
    ChangeSpace,
    /// Make tickets and change grants.
    Invite,
}

/// One grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Where.
    pub space: SpaceId,
    /// Who.
    pub node: NodeId,
    /// What.
    pub role: Role,
    /// Since when, ms since 1970.
    pub since_ms: u64,
    /// By which invite, if any.
    pub invite: Option<[u8; 16]>,
}

impl Action {
    /// The least role that may do this.
    pub const fn least_role(self) -> Role {
        match self {
            Self::Pull => Role::Read,
            Self::MoveTips => Role::Write,
            Self::ChangeSpace | Self::Invite => Role::Admin,
        }
    }
}

/// Whether `peer` may do `action` in `space`: the one decision, called at OPEN and again at commit.
///
/// Stores keep one grant for each space and node; should two meet here, the lesser role counts. No grant, no access,
/// and a space that does not exist is answered like one that is not granted. Spec: ibgib §12.5, SY-101.
pub fn allows(grants: &[Grant], peer: &NodeId, space: &SpaceId, action: Action) -> bool {
    // Spec: SY-101
    let roles = grants.iter().filter(|grant| grant.space == *space && grant.node == *peer).map(|grant| grant.role);
    roles.min().is_some_and(|role| role >= action.least_role())
}
