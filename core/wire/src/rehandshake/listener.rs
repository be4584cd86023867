//! The side that was dialled: the TLS server.
//!
//! ```text
//! answer ──RESPONSE──▶ await ──COMPLETE──▶ attached
//!    └──REJECT
//! ```

use sealtide_crypto::{Entropy, ct_eq};

use super::message::{Complete, Request, Response};
use super::ratchet::{Attachment, Candidate, Ratchet};
use super::tags::{Context, TagKey, dialler_key, listener_key, next_secret};
use super::{RehandshakeError, RejectCode};
use crate::frame::{FrameType, plain_frame};
use crate::handshake::{Binding, Exporter};

/// The listener of one re-handshake after its RESPONSE. At its end without success call [`Listener::abandon`].
#[derive(Debug)]
pub struct Listener {
    context: Context,
    attempt: u32,
    key: TagKey,
    request: Vec<u8>,
    response: Vec<u8>,
    attachment: Attachment,
    /// The role that COMPLETE must name.
    role: u8,
}

impl Listener {
    /// Answers REQUEST: gives the RESPONSE frame to write. `rx_next` is the number that this end expects next. The
    /// driver has found the session by [`Request::session_id`], the certificate seen among its pins, and the peer let
    /// in.
    ///
    /// # Errors
    /// [`RehandshakeError`]: write [`RehandshakeError::reply`]. After code 2 the dialler may send another REQUEST on
    /// the same connection, after anything else close.
    pub fn answer(
        ratchet: &mut Ratchet,
        binding: &Binding,
        request: &Request,
        rx_next: u64,
        exporter: &dyn Exporter,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), RehandshakeError> {
        let refused = |code| Err(RehandshakeError::Refused(code));
        if request.session_id != ratchet.ends.session_id {
            return refused(RejectCode::Unknown);
        }
        let Some(secret) = ratchet.secret_of(request.epoch) else { return refused(RejectCode::Epoch) };
        let context = Context::new(binding, &ratchet.ends.peer, &ratchet.ends.own);
        let key = dialler_key(secret);
        if !ct_eq(&context.request(&key, &request.untagged()), &request.tag) {
            // Two ends that each lost the other's COMPLETE have different secrets of one epoch; the one before is
            // common.
            let unsure = request.epoch == ratchet.epoch && ratchet.before.is_some();
            return refused(if unsure { RejectCode::Epoch } else { RejectCode::BadTag });
        }
        let malformed = |rule| Err(RehandshakeError::Malformed { frame: FrameType::RehandshakeRequest, rule });
        if request.kind != binding.kind() {
            return malformed("another kind of path");
        }
        if !ratchet.fits_peer(request.path) {
            return malformed("a path number that was used, or of the other end");
        }
        let Some(epoch) = request.epoch.checked_add(1) else { return Err(RehandshakeError::Exhausted) };
        // Spec: LK-33
        if ratchet.dialling.is_some() && ratchet.ends.own < ratchet.ends.peer {
            return refused(RejectCode::Simultaneous);
        }
        ratchet.dialling = None;

        let mut nonce = [0; 32];
        entropy.fill(&mut nonce);
        let mut response = Response {
            session_id: request.session_id,
            epoch: request.epoch,
            path: request.path,
            nonce,
            rx_next,
            tag: [0; 32],
        };
        let secret = ratchet.secret_of(request.epoch).expect("looked up above");
        let request_bytes = request.payload();
        response.tag = context.response(&listener_key(secret), &request_bytes, &response.untagged());
        let response_bytes = response.payload();
        let next = next_secret(secret, exporter, &request_bytes, &response_bytes);
        let attempt = ratchet.new_attempt();
        ratchet.candidate = Some(Candidate { attempt, epoch, secret: next });
        let role = if ratchet.ends.initiator { 2 } else { 1 };
        let attachment = Attachment { path: request.path, peer_rx_next: request.rx_next, epoch };
        let frame = plain_frame(FrameType::RehandshakeResponse, &response_bytes);
        Ok((Self { context, attempt, key, request: request_bytes, response: response_bytes, attachment, role }, frame))
    }

    /// Takes COMPLETE: the path is to be attached.
    ///
    /// # Errors
    /// [`RehandshakeError`]: close.
    pub fn complete(self, ratchet: &mut Ratchet, frame: &[u8]) -> Result<Attachment, RehandshakeError> {
        let result = self.check(frame);
        let candidate = ratchet.candidate.take_if(|candidate| candidate.attempt == self.attempt);
        result?;
        ratchet.commit(candidate.ok_or(RehandshakeError::Yielded)?, self.attachment.path);
        Ok(self.attachment)
    }

    /// The connection broke or took too long: another attempt may begin.
    pub fn abandon(&self, ratchet: &mut Ratchet) {
        ratchet.candidate.take_if(|candidate| candidate.attempt == self.attempt);
    }

    fn check(&self, frame: &[u8]) -> Result<(), RehandshakeError> {
        let complete = Complete::read(frame)?;
        let expected = self.context.complete(&self.key, &self.request, &self.response, &complete.untagged());
        let same = complete.session_id == self.request[..16]
            && complete.path == self.attachment.path
            && complete.role == self.role;
        if same && ct_eq(&expected, &complete.tag) {
            Ok(())
        } else {
            Err(RehandshakeError::BadTag { frame: FrameType::RehandshakeComplete })
        }
    }
}
