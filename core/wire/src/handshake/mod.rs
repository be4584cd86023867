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

mod ends;
mod error;
mod initiator;
mod responder;

pub use ends::{
    Admission, Binding, BindingError, CERTIFICATE_BYTES_MAX, CERTIFICATE_SECONDS_MAX, CertificateCheck,
    CertificateFacts, CertificateRejected, Connection, Continuation, Established, Exporter, LocalEnd, Pin, PipeKind,
    Refused, RelayLimits, RelayLogin, ResumeSecret, Step, Terms,
};
pub use error::HandshakeError;
pub use initiator::{Initiator, Proof};
pub use responder::{Operations, Responder};

/// The largest payload of a handshake frame that is read: pass it to the frame reader until the handshake is over.
pub const HANDSHAKE_PAYLOAD_BYTES_MAX: u32 = 16_384;
/// The largest payload that a responder reads before the knock: that of HELLO.
pub const HELLO_PAYLOAD_BYTES: u32 = 72;
