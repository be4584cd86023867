//! The full handshake: two nodes inside a finished TLS connection prove their node keys to each other.
//!
//! ```text
//! I (TLS client)                                R (TLS server)
//! HELLO            ─────────────────────────▶  knock check (one HMAC); wrong: silent close
//!                  ◀─────────────────────────  CHALLENGE  (R's key and signature)
//! RESPONSE, ESTABLISHED_i ──────────────────▶  verify, authorise
//!                  ◀─────────────────────────  ESTABLISHED_r
//! ```
//!
//! R proves itself first, and only to someone who already knows its id; I shows its id only to the proven R.
//! The driver hands whole frames to [`Initiator::handle`] or [`Responder::handle`] and writes what the [`Step`]
//! says; on an error it writes [`HandshakeError::reply`], if any, and closes. Deadlines (3 s for HELLO, 10 s in
//! all) are the driver's. Spec: link C.4.

mod address_update;
mod certificate;
mod ends;
mod error;
mod established;
mod initiator;
mod message;
mod responder;
mod signed;
mod tie_break;

#[cfg(test)]
mod checks;
#[cfg(test)]
mod vectors;
#[cfg(test)]
#[path = "../../tests/handshake/world.rs"]
#[allow(dead_code, reason = "the tests outside use the rest")]
mod world;

use crate::frame::FrameType;

pub use address_update::AddressUpdate;
pub use certificate::{CertificateTalk, PinError, Pins, check_update_layout};
pub use ends::{
    Admission, Binding, BindingError, CERTIFICATE_BYTES_MAX, CERTIFICATE_SECONDS_MAX, CertificateCheck,
    CertificateFacts, CertificateRejected, Connection, Continuation, Established, Exporter, LocalEnd, Pin, PipeKind,
    Refused, RelayLimits, RelayLogin, ResumeSecret, Step, Terms,
};
pub use error::HandshakeError;
pub use initiator::{Initiator, Proof};
pub use responder::{Operations, Responder};
pub use tie_break::{SessionOrigin, Survivor, replaces_session, tie_break};

/// The largest payload of a handshake frame that is read: pass it to the frame reader until the handshake is over.
pub const HANDSHAKE_PAYLOAD_BYTES_MAX: u32 = 16_384;
/// The largest payload that a responder reads before the knock: that of HELLO.
pub const HELLO_PAYLOAD_BYTES: u32 = 72;

/// Checks the layout of one handshake frame as it would arrive on a pipe of `kind`, and nothing else: no tag, no
/// signature, no context. For tools that look at traffic, and for fuzzing.
///
/// # Errors
/// What the awaiting end would say about the bytes.
pub fn check_layout(frame: &[u8], kind: PipeKind) -> Result<FrameType, HandshakeError> {
    let found = frame.first().copied().and_then(FrameType::from_code).unwrap_or(FrameType::Hello);
    match found {
        FrameType::Challenge => message::Challenge::parse(frame).map(|_| found),
        FrameType::Response => message::Response::parse(frame, kind).map(|_| found),
        FrameType::Established => established::Message::parse(frame).map(|_| found),
        _ => message::Hello::parse(frame).map(|_| FrameType::Hello).ok_or(HandshakeError::WrongKnock),
    }
}
