//! What stands behind the gateway's door: signing keys with their ledger, and the registry, both in the node's store.

mod desk;
mod key_file;

pub use desk::{APP_KIND, Desk};
