//! Invites, records at the issuer: only such a record decides who is let in. Spec: link C.3, C.4.3.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{NodeId, Role, SpaceId};

/// Which invite: 16 random bytes.
pub type InviteId = [u8; 16];

/// The secret of an invite, 32 random bytes; wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InviteSecret([u8; 32]);

impl InviteSecret {
    /// Takes the bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// An invite, a record at the issuer: only this record decides. Spec: link C.3, C.4.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Which one.
    pub id: InviteId,
    /// Its secret.
    pub secret: InviteSecret,
    /// The space it lets into.
    pub space: SpaceId,
    /// The role it gives.
    pub role: Role,
    /// End, ms since 1970.
    pub expires_ms: u64,
    /// Uses left; 0 = used up (the record stays as long as a node that it enrolled).
    pub uses_left: u32,
    /// Who was enrolled by it.
    pub enrolled: Vec<NodeId>,
    /// Who was enrolled by it once and could be made no member: their uses are there again.
    pub refused: Vec<NodeId>,
}

impl Invite {
    /// Nodes of which one invite gets its use back, at most.
    pub const REFUSED_MAX: usize = 64;

    /// Takes one use for `node` and enrols it; the same node again succeeds without a second use, also when used up
    /// or expired.
    ///
    /// # Errors
    /// [`InviteRefused`]; on the wire all of them are ERROR 3.
    pub fn enrol(&mut self, node: NodeId, now_ms: u64) -> Result<(), InviteRefused> {
        // Spec: LK-4
        if self.enrolled.contains(&node) {
            return Ok(());
        }
        if now_ms >= self.expires_ms {
            return Err(InviteRefused::Expired);
        }
        self.uses_left = self.uses_left.checked_sub(1).ok_or(InviteRefused::UsedUp)?;
        self.enrolled.push(node);
        Ok(())
    }

    /// A node that it enrolled could be made no member: the use is there again, for that node too. That many nodes are enough; those
    /// behind them stay enrolled, so that one ticket does not bring any number of strangers as far as that.
    pub fn refuse(&mut self, node: &NodeId) {
        let again = self.refused.contains(node);
        if !self.enrolled.contains(node) || !again && self.refused.len() >= Self::REFUSED_MAX {
            return;
        }
        self.enrolled.retain(|enrolled| enrolled != node);
        self.uses_left = self.uses_left.saturating_add(1);
        if !again {
            self.refused.push(*node);
        }
    }

    /// Whether a node has proved it, whatever came of that.
    pub fn was_proved_by(&self, node: &NodeId) -> bool {
        self.enrolled.contains(node) || self.refused.contains(node)
    }
}

/// Why an invite lets nobody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteRefused {
    /// Its time is over.
    #[error("the invite has expired")]
    Expired,
    /// No uses left.
    #[error("the invite is used up")]
    UsedUp,
}
