//! The frames of `sts/1` as bytes. Spec: ibgib §13.2.

/// Bytes of one sync message, type included, at most.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one piece of a chunk.
pub const CHUNK_PIECE_BYTES_MAX: usize = 256 * 1024;

/// What both sides tell about a scope. Spec: ibgib §13.2 `facts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How many tips.
    pub tip_count: u64,
    /// First 16 bytes of the negentropy fingerprint over the tip ids.
    pub tip_fingerprint: [u8; 16],
    /// Set digest of the tips.
    pub tip_digest: [u8; 32],
    /// How many records.
    pub item_count: u64,
    /// Fingerprint over the sids.
    pub item_fingerprint: [u8; 16],
    /// Set digest of the records.
    pub item_digest: [u8; 32],
}

/// Why a saga ended without a commit. Spec: ibgib §13.2 "Abort codes".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCode {
    /// Identity proof missing or wrong.
    Auth,
    /// A message broke the protocol.
    Protocol,
    /// A limit was exceeded.
    Limit,
    /// No progress in time.
    Timeout,
    /// Too many sagas, or another one of this space is running.
    Busy,
    /// Tips diverged and the strategy is abort.
    Divergence,
    /// A tip moved during the saga and the strategy is abort.
    TipMoved,
    /// A reference or an item is missing.
    Incomplete,
    /// A record was refused.
    BadRecord,
    /// The identity is forked.
    IdentityForked,
    /// The identity or grant was revoked.
    Revoked,
    /// The grants do not allow it, or there is no such space.
    NotAllowed,
    /// The disk failed or is full.
    Disk,
    /// Cancelled by the user.
    Cancelled,
}

/// Bytes that are no message of `sts/1`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad sync message: {0}")]
pub struct MessageError(pub &'static str);
