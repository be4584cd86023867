//! The re-handshake: one more path for a session that stands, in three messages without a signature.
//!
//! ```text
//! dialler (TLS client)                          listener (TLS server)
//! REQUEST 30       ─────────────────────────▶  pinned certificate, session, epoch, tag; candidate for e+1
//!                  ◀─────────────────────────  RESPONSE 31, or REJECT 33
//! commits to e+1, keeps e
//! COMPLETE 32      ─────────────────────────▶  commits to e+1, erases e; the path is attached
//!                  ◀─────────────────────────  ACK; its arrival erases e at the dialler
//! ```
//!
//! Both ends of a session keep one [`Ratchet`]: the secret of the present epoch and, while it is not known whether the
//! peer has followed, the one before. [`Dialler`] and [`Listener`] are the machines of one connection; they borrow the
//! ratchet for each message. Whether the certificates seen are pinned, and whether the peer is still let in, the
//! driver checks first; deadlines (3 s to REQUEST, 10 s in all) are the driver's too. Spec: link C.8.

mod dialler;
mod error;
mod listener;
mod message;
mod punch;
mod ratchet;
mod tags;

#[cfg(test)]
mod checks;
#[cfg(test)]
mod vectors;

use crate::frame::FrameType;

pub use dialler::{DialStep, Dialler};
pub use error::{RehandshakeError, RejectCode, StartError};
pub use listener::Listener;
pub use message::{REQUEST_PAYLOAD_BYTES, Request};
pub use punch::Punch;
pub use ratchet::{Attachment, Ratchet};

/// Checks the layout of one re-handshake frame, and nothing else. For tools that look at traffic, and for fuzzing.
///
/// # Errors
/// What the awaiting end would say about the bytes.
pub fn check_layout(frame: &[u8]) -> Result<FrameType, RehandshakeError> {
    match frame.first().copied().and_then(FrameType::from_code) {
        Some(FrameType::RehandshakeResponse) => message::Response::read(frame).map(|_| FrameType::RehandshakeResponse),
        Some(FrameType::RehandshakeComplete) => message::Complete::read(frame).map(|_| FrameType::RehandshakeComplete),
        Some(FrameType::RehandshakeReject) => message::Reject::read(frame).map(|_| FrameType::RehandshakeReject),
        _ => Request::read(frame).map(|_| FrameType::RehandshakeRequest),
    }
}
