//! The relay protocol, pure: frames, the relay itself ([`Hub`]), and the node's side of a login ([`RelayClient`]).
//!
//! A relay passes on the bytes of circuits between nodes that logged in. The bytes are those of a TLS connection that
//! ends in the two nodes, so it can delay, cut or refuse, and nothing else. It never drops or reorders what it has
//! taken: it stops reading instead. Spec: link C.5.

mod client;
mod frame;
mod guest_list;
mod hub;
mod outbox;
mod round_robin;
mod settings;

pub use client::{CircuitState, ClientEvent, ReadOutcome, RelayClient, RelayViolation};
pub use frame::{
    ALLOW_SECONDS_MAX, CircuitEnd, CircuitNumber, GoAwayCode, RELAY_DATA_BYTES_MAX, RELAY_HEAD_BYTES, RelayFrame,
    RelayFrameError, RelayMessage,
};
pub use guest_list::{Admit, Standing};
pub use hub::{Gate, Hub, LoginId, Output, RelayStats, Violation};
pub use settings::RelaySettings;
