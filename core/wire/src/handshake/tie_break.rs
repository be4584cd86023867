//! Two nodes that dial each other at the same time. Spec: link C.6.

use sealtide_identity::NodeId;

/// Which of two handshakes of one pair of nodes goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivor {
    /// The one that this node initiated; the other is aborted with ERROR 8 (`Duplicate`).
    Dialled,
    /// The one that the peer initiated; the own is aborted with ERROR 8 (`Duplicate`).
    Accepted,
}

/// Decides between two **unfinished** handshakes: the one initiated by the smaller id survives.
///
/// A handshake takes part while [`Initiator::peer_is_proven`](super::Initiator::peer_is_proven) or
/// [`Responder::proven_peer`](super::Responder::proven_peer) says so. A dial that does not take part yet is simply
/// dropped when a session with the peer begins; a finished handshake without extension 1 replaces an older session.
/// Both ends compute the same answer.
pub fn tie_break(own: &NodeId, peer: &NodeId) -> Survivor {
    // Spec: LK-111
    if own < peer { Survivor::Dialled } else { Survivor::Accepted }
}
