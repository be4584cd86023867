//! The link protocol, pure: frames, the full handshake, and a session with sequence numbers and channels.

pub mod frame;
pub mod handshake;
