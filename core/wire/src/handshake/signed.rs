//! What the signatures, the tags and the exporters cover. Spec: link C.4.2 to C.4.5.

use sealtide_crypto::{hmac_sha256, sha512};
use sealtide_identity::{InviteSecret, NodeId};

use super::{Binding, Exporter, ResumeSecret};

/// The version byte in front of what both sides sign.
const VERSION: u8 = 1;
/// The label of the session binding.
const LABEL_SESSION: &str = "EXPORTER-sealtide-session-v1";
/// The label of the first resumption secret.
const LABEL_RESUME: &str = "EXPORTER-sealtide-resume-v1";

/// Which end a byte string speaks of; also the role byte of ESTABLISHED and of all signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Side {
    Initiator = 1,
    Responder = 2,
}

/// The knock: shows that the sender knows the id of the node it wants.
pub(super) fn to_tag(responder: &NodeId, binding: &Binding, nonce: &[u8; 32]) -> [u8; 32] {
    hmac_sha256(responder.as_bytes(), &[b"sealtide-link-v1 to", binding.cb(), nonce])
}

/// The proof of an invite's secret or of a relay's token.
pub(super) fn invite_tag(secret: &InviteSecret, hello: &[u8], challenge: &[u8], response_part: &[u8]) -> [u8; 32] {
    let transcript = sha512(&[hello, challenge, response_part].concat());
    hmac_sha256(secret.expose(), &[b"sealtide-link-v1 invite", &transcript])
}

/// Content of `link1 responder`.
pub(super) fn responder_content(binding: &Binding, responder: &NodeId, hello: &[u8], challenge_part: &[u8]) -> Vec<u8> {
    let mut content = channel(binding, Side::Responder);
    content.extend_from_slice(responder.as_bytes());
    content.extend_from_slice(&sha512(hello));
    content.extend_from_slice(&sha512(challenge_part));
    content
}

/// Content of `link1 initiator`.
pub(super) fn initiator_content(
    binding: &Binding,
    initiator: &NodeId,
    responder: &NodeId,
    hello: &[u8],
    challenge: &[u8],
    response_part: &[u8],
) -> Vec<u8> {
    let mut content = channel(binding, Side::Initiator);
    content.extend_from_slice(initiator.as_bytes());
    content.extend_from_slice(responder.as_bytes());
    content.extend_from_slice(&sha512(hello));
    content.extend_from_slice(&sha512(challenge));
    content.extend_from_slice(&sha512(response_part));
    content
}

fn channel(binding: &Binding, role: Side) -> Vec<u8> {
    let mut content = vec![VERSION, binding.kind().code(), role as u8, u8::from(binding.is_bound())];
    content.extend_from_slice(binding.cb());
    content.extend_from_slice(binding.fp_client());
    content.extend_from_slice(binding.fp_server());
    content
}

/// What a certificate is bound to: one side of one session, for one audience.
#[derive(Clone, Debug)]
pub(crate) struct CertificateScope {
    pub(crate) session_id: [u8; 16],
    pub(crate) side: Side,
    pub(crate) signer: NodeId,
    pub(crate) audience: NodeId,
    pub(crate) sb: [u8; 32],
}

impl CertificateScope {
    /// Content of `link1 tls-cert`.
    pub(crate) fn content(&self, epoch: u32, not_before: u64, not_after: u64, fingerprint: &[u8; 32]) -> Vec<u8> {
        let mut content = self.session_id.to_vec();
        content.push(self.side as u8);
        content.extend_from_slice(self.signer.as_bytes());
        content.extend_from_slice(self.audience.as_bytes());
        content.extend_from_slice(&epoch.to_be_bytes());
        content.extend_from_slice(&not_before.to_be_bytes());
        content.extend_from_slice(&not_after.to_be_bytes());
        content.extend_from_slice(fingerprint);
        content.extend_from_slice(&self.sb);
        content
    }
}

/// The session binding; `frames` are HELLO, CHALLENGE and RESPONSE as sent.
pub(super) fn session_binding(exporter: &dyn Exporter, frames: &[u8]) -> [u8; 32] {
    exporter.export(LABEL_SESSION, &sha512(frames))
}

/// The secret of epoch 0; `frames` are all five as sent.
pub(super) fn resume_secret(exporter: &dyn Exporter, frames: &[u8]) -> ResumeSecret {
    ResumeSecret::new(exporter.export(LABEL_RESUME, &sha512(frames)))
}
