//! What both ends agreed on, and the limits of this node.

use crate::frame::PAYLOAD_BYTES_MAX;

/// Default payload of a DATA frame in bytes, so that a frame fills one TLS record. Spec: link C.9.4.
pub const DATA_PAYLOAD_BYTES: u32 = 16_320;
/// Weighted deficit round robin: bytes one class-7 channel may send before the next one's turn; class 1 has seven times as many. Spec: link C.9.4.
pub const QUANTUM_BYTES: i64 = 16 * 1024;

/// What one end announced in its ESTABLISHED. Spec: link C.4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The longest payload this end takes, in bytes.
    pub max_payload: u32,
    /// The first limit of DATA payload bytes over all channels.
    pub session_credit: u64,
    /// The first limit of DATA payload bytes of each channel.
    pub channel_credit: u32,
    /// How long this end lets a path be silent before it sends a PING, in milliseconds.
    pub ping_ms: u32,
}

impl Default for Terms {
    /// 64 KiB, 16 MiB, 256 KiB, 15 s.
    fn default() -> Self {
        Self { max_payload: PAYLOAD_BYTES_MAX, session_credit: 16 << 20, channel_credit: 256 << 10, ping_ms: 15_000 }
    }
}

/// The limits and times of this end. Spec: link C.9.3, C.11, C.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Bytes of sent frames kept until they are acknowledged; 64 KiB of them are for control frames. 256 KiB–64 MiB.
    pub send_buffer_bytes: usize,
    /// Small messages that wait in one channel, in bytes; a larger message waits alone.
    pub queue_bytes: usize,
    /// Channels that each end may have open at a time.
    pub channels_per_side: usize,
    /// Control frames (types 11–16) sent and not acknowledged.
    pub control_unacked_max: usize,
    /// Payload bytes of a DATA frame this end cuts; never above the peer's `max_payload`.
    pub data_payload_bytes: u32,
    /// How long a session without a usable path is kept, in milliseconds.
    pub suspend_ms: u64,
    /// Silence of a standby path before a PING, in milliseconds.
    pub standby_ping_ms: u64,
    /// How long the answer to a PING may take on an idle path, twice, in milliseconds.
    pub pong_ms: u64,
    /// Least silence of a busy path before it is suspect, and then before a standby takes over, in milliseconds.
    pub busy_ms: u64,
    /// How long unacknowledged frames may make no progress on a path that is not silent, in milliseconds.
    pub progress_ms: u64,
    /// How late a timeout may come before the machine is taken to have slept, in milliseconds.
    pub sleep_jump_ms: u64,
    /// How long a session without an open channel and without standing interest is kept, in milliseconds. Spec: link C.6.
    pub idle_ms: u64,
    /// How long an orderly close may take before the session ends anyway, in milliseconds.
    pub close_ms: u64,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            send_buffer_bytes: 4 << 20,
            queue_bytes: 256 << 10,
            channels_per_side: 256,
            control_unacked_max: 64,
            data_payload_bytes: DATA_PAYLOAD_BYTES,
            suspend_ms: 600_000,
            standby_ping_ms: 60_000,
            pong_ms: 5_000,
            busy_ms: 1_500,
            progress_ms: 10_000,
            sleep_jump_ms: 30_000,
            idle_ms: 300_000,
            close_ms: 10_000,
        }
    }
}

/// Everything a session is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Whether this end was the initiator of the full handshake: its channels have odd numbers.
    pub initiator: bool,
    /// What this end announced.
    pub ours: Terms,
    /// What the peer announced.
    pub theirs: Terms,
    /// The limits of this end.
    pub limits: SessionLimits,
    /// Seed of the ±20 % by which PINGs are spread; need not be secret. Draw it from the entropy of the driver.
    pub jitter_seed: u64,
}

/// The receive window of a channel by its name: some are raised right after opening. Spec: link C.9.3.
pub fn window_of(name: &str, channel_credit: u32) -> u64 {
    let raised = match name {
        "sts/1" => 4 << 20,
        "sts/1/control" => 1 << 20,
        _ => 0,
    };
    raised.max(u64::from(channel_credit))
}
