//! Relays: the door of one ([`Relay`]), and the logins of a node at some. Spec: link C.5.
//!
//! ```text
//! server: TCP ─▶ TLS without client certificate ─▶ upgrade at /st/v1/relay ─▶ handshake of kind 3 ─▶ Hub (sealtide-wire)
//! client: the same from the other end ─▶ RelayClient ─▶ circuits, each a pipe below the TLS of a path
//! ```

mod check;
mod circuit;
mod client;
mod live;
mod login;
mod proxies;
mod pump;
mod server;

pub use check::RelayCheck;
pub(crate) use check::check;
pub use client::RelayState;
pub(crate) use client::{Accounts, reach};
pub(crate) use login::place_of;
pub use proxies::Proxies;
pub use server::{Relay, RelayConfig, RelayError};

/// The path of the relay door.
pub const RELAY_PATH: &str = "/st/v1/relay";
