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
/// dropped when a session with the peer begins. Both ends compute the same answer.
pub fn tie_break(own: &NodeId, peer: &NodeId) -> Survivor {
    // Spec: LK-111
    if own < peer { Survivor::Dialled } else { Survivor::Accepted }
}

/// The session that a newly proven, accepted handshake meets at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOrigin {
    /// Whether this node initiated the handshake that made the session.
    pub dialled_here: bool,
    /// Whether this node had sent the CHALLENGE of the newcomer before that handshake was finished here.
    pub overlapped: bool,
}

/// Decides, when a RESPONSE has been verified, whether that handshake goes on although there is a session with the
/// peer. True: it goes on, and without extension 1 it replaces the session, since the peer has lost its state. False:
/// it is aborted with ERROR 8, the session stays.
///
/// The false case is a tie that the peer has decided already: it chose the handshake that this node dialled, while its
/// own RESPONSE was still on the way on another connection and arrives after the chosen one has finished.
pub fn replaces_session(own: &NodeId, peer: &NodeId, session: SessionOrigin) -> bool {
    // Spec: LK-111
    !(session.dialled_here && session.overlapped && tie_break(own, peer) == Survivor::Dialled)
}
