//! The side that dialled: the TLS client.
//!
//! ```text
//! start ──REQUEST──▶ await ──RESPONSE──▶ COMPLETE, attached
//!                     ▲ └──REJECT 2, once, when an older secret is kept──┐
//!                     └──────────────────REQUEST─────────────────────────┘
//! ```

use sealtide_crypto::{Entropy, ct_eq};

use super::message::{Complete, Reject, Request, Response};
use super::ratchet::{Attachment, Ratchet};
use super::tags::{Context, dialler_key, listener_key, next_secret};
use super::{RehandshakeError, RejectCode, StartError};
use crate::frame::{FrameType, plain_frame};
use crate::handshake::{Binding, Exporter};
use crate::session::PathId;

/// The dialler of one re-handshake. At its end without success call [`Dialler::abandon`].
#[derive(Debug)]
pub struct Dialler {
    context: Context,
    attempt: u32,
    request: Request,
    retried: bool,
}

/// What to do after a frame was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialStep {
    /// Write this frame; the next answer is awaited.
    Send(Vec<u8>),
    /// Write `complete`, then the frames of the session.
    Done {
        /// COMPLETE.
        complete: Vec<u8>,
        /// The path.
        attachment: Attachment,
    },
}

impl Dialler {
    /// Begins: gives the REQUEST frame to write. `rx_next` is the number that this end expects next.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(
        ratchet: &mut Ratchet,
        binding: &Binding,
        rx_next: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), StartError> {
        if ratchet.is_busy() {
            return Err(StartError::Busy);
        }
        let path = ratchet.new_path()?;
        Self::start_on(ratchet, binding, path, rx_next, entropy)
    }

    /// As [`Dialler::start`], with a number that [`Ratchet::reserve_path`] gave before.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start_on(
        ratchet: &mut Ratchet,
        binding: &Binding,
        path: PathId,
        rx_next: u64,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Vec<u8>), StartError> {
        if ratchet.is_busy() {
            return Err(StartError::Busy);
        }
        if ratchet.epoch == u32::MAX {
            return Err(StartError::Exhausted);
        }
        let attempt = ratchet.new_attempt();
        ratchet.dialling = Some(attempt);
        let context = Context::new(binding, &ratchet.ends.own, &ratchet.ends.peer);
        let request = Request {
            session_id: ratchet.ends.session_id,
            epoch: ratchet.epoch,
            path,
            kind: binding.kind(),
            nonce: [0; 32],
            rx_next,
            tag: [0; 32],
        };
        let mut dialler = Self { context, attempt, request, retried: false };
        let frame = dialler.ask(ratchet, entropy);
        Ok((dialler, frame))
    }

    /// Takes one whole frame. `tx_from` gives the first number that this end will send on the path, from the one that
    /// the peer expects next: [`crate::session::Session::tx_from`].
    ///
    /// # Errors
    /// [`RehandshakeError`]: close.
    pub fn handle(
        &mut self,
        ratchet: &mut Ratchet,
        frame: &[u8],
        exporter: &dyn Exporter,
        tx_from: &dyn Fn(u64) -> u64,
        entropy: &mut dyn Entropy,
    ) -> Result<DialStep, RehandshakeError> {
        if ratchet.dialling != Some(self.attempt) {
            return Err(RehandshakeError::Yielded);
        }
        let result = if frame.first() == Some(&FrameType::RehandshakeReject.code()) {
            Reject::read(frame).and_then(|reject| self.rejected(ratchet, reject, entropy))
        } else {
            Response::read(frame).and_then(|response| self.agreed(ratchet, &response, exporter, tx_from))
        };
        if result.is_err() {
            self.abandon(ratchet);
        }
        result
    }

    /// The connection broke or took too long: another attempt may begin.
    pub fn abandon(&self, ratchet: &mut Ratchet) {
        if ratchet.dialling == Some(self.attempt) {
            ratchet.dialling = None;
        }
    }

    /// The number of the path.
    pub fn path(&self) -> PathId {
        self.request.path
    }

    /// REQUEST with a new nonce for the epoch in `self.request`.
    fn ask(&mut self, ratchet: &Ratchet, entropy: &mut dyn Entropy) -> Vec<u8> {
        entropy.fill(&mut self.request.nonce);
        let secret = ratchet.secret_of(self.request.epoch).expect("the epoch offered is one whose secret is kept");
        self.request.tag = self.context.request(&dialler_key(secret), &self.request.untagged());
        plain_frame(FrameType::RehandshakeRequest, &self.request.payload())
    }

    fn rejected(
        &mut self,
        ratchet: &Ratchet,
        reject: Reject,
        entropy: &mut dyn Entropy,
    ) -> Result<DialStep, RehandshakeError> {
        let older = RejectCode::from_code(reject.code) == Some(RejectCode::Epoch) && ratchet.before.is_some();
        if !older || self.retried {
            return Err(RehandshakeError::Rejected { code: reject.code, retry_ms: reject.retry_ms });
        }
        // The last COMPLETE may never have arrived: the secret before is offered, once.
        self.retried = true;
        self.request.epoch = ratchet.epoch - 1;
        Ok(DialStep::Send(self.ask(ratchet, entropy)))
    }

    fn agreed(
        &self,
        ratchet: &mut Ratchet,
        response: &Response,
        exporter: &dyn Exporter,
        tx_from: &dyn Fn(u64) -> u64,
    ) -> Result<DialStep, RehandshakeError> {
        let request = &self.request;
        let secret = ratchet.secret_of(request.epoch).ok_or(RehandshakeError::Yielded)?;
        let request_bytes = request.payload();
        let expected = self.context.response(&listener_key(secret), &request_bytes, &response.untagged());
        let same =
            (response.session_id, response.epoch, response.path) == (request.session_id, request.epoch, request.path);
        if !same || !ct_eq(&expected, &response.tag) {
            return Err(RehandshakeError::BadTag { frame: FrameType::RehandshakeResponse });
        }
        let response_bytes = response.payload();
        let key = dialler_key(secret);
        let next = next_secret(secret, exporter, &request_bytes, &response_bytes);
        let role = if ratchet.ends.initiator { 1 } else { 2 };
        let tx_from = tx_from(response.rx_next);
        let mut complete = Complete { session_id: request.session_id, path: request.path, role, tx_from, tag: [0; 32] };
        complete.tag = self.context.complete(&key, &request_bytes, &response_bytes, &complete.untagged());
        ratchet.follow(request.epoch, next, request.path);
        let attachment = Attachment { path: request.path, peer_rx_next: response.rx_next, epoch: ratchet.epoch };
        Ok(DialStep::Done { complete: complete.frame(), attachment })
    }
}
