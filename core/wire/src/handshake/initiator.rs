//! The side that dialled: the TLS client.

use std::sync::Arc;

use sealtide_crypto::Entropy;
use sealtide_identity::{InviteId, InviteSecret, NodeId};

use super::{CertificateCheck, Connection, Continuation, Exporter, HandshakeError, LocalEnd, Step};

/// What the initiator proves besides its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: the responder knows the id.
    Key,
    /// It holds the secret of an invite.
    Invite(InviteId, InviteSecret),
    /// It holds the token of the relay; kind 3 only.
    RelayToken(InviteSecret),
}

/// The initiator of one handshake.
#[derive(Debug)]
pub struct Initiator {}

impl Initiator {
    /// Begins: gives the HELLO frame to write. `offer` names an older session of the same two nodes to go on with.
    pub fn start(
        local: Arc<LocalEnd>,
        peer: NodeId,
        proof: Proof,
        connection: Connection,
        offer: Option<Continuation>,
        entropy: &mut dyn Entropy,
    ) -> (Self, Vec<u8>) {
        let _ = (local, peer, proof, connection, offer, entropy);
        todo!()
    }

    /// Takes one whole frame.
    ///
    /// # Errors
    /// [`HandshakeError`]: write [`HandshakeError::reply`] and close.
    pub fn handle(
        &mut self,
        frame: &[u8],
        exporter: &dyn Exporter,
        certificates: &dyn CertificateCheck,
    ) -> Result<Step, HandshakeError> {
        let _ = (frame, exporter, certificates);
        todo!()
    }

    /// Whether the responder has proved its id. From then on this handshake takes part in the tie-break (link C.6).
    pub fn peer_is_proven(&self) -> bool {
        todo!()
    }
}
