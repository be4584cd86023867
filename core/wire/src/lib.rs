//! The link protocol, pure: frames, the full handshake, the re-handshake, and a session with sequence numbers and channels.

pub mod frame;
pub mod fuzzing;
pub mod handshake;
pub mod padding;
pub mod rehandshake;
pub mod relay;
pub mod session;

// Tests inside the crate share the harness of those outside.
#[cfg(test)]
extern crate self as sealtide_wire;
