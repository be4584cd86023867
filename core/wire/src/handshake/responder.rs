//! The side that was dialled: the TLS server.

use std::sync::Arc;

use sealtide_crypto::Entropy;
use sealtide_identity::NodeId;

use super::{Admission, CertificateCheck, Connection, Exporter, HandshakeError, LocalEnd, RelayLimits, Step};

/// How often a responder did costly work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Operations {
    /// ML-DSA signatures made.
    pub signed: u32,
    /// ML-DSA signatures checked.
    pub verified: u32,
    /// HMACs computed.
    pub macs: u32,
}

/// The responder of one handshake.
#[derive(Debug)]
pub struct Responder {}

impl Responder {
    /// Awaits HELLO.
    pub fn new(local: Arc<LocalEnd>, connection: Connection) -> Self {
        let _ = (local, connection);
        todo!()
    }

    /// Awaits HELLO at a relay, kind 3, which grants `limits` to every node that it lets in.
    pub fn relay(local: Arc<LocalEnd>, connection: Connection, limits: RelayLimits) -> Self {
        let _ = (local, connection, limits);
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
        admission: &dyn Admission,
        entropy: &mut dyn Entropy,
    ) -> Result<Step, HandshakeError> {
        let _ = (frame, exporter, certificates, admission, entropy);
        todo!()
    }

    /// The initiator, once RESPONSE has been verified. From then on this handshake takes part in the tie-break
    /// (link C.6).
    pub fn proven_peer(&self) -> Option<NodeId> {
        todo!()
    }

    /// What this handshake has cost so far.
    pub fn operations(&self) -> Operations {
        todo!()
    }
}
