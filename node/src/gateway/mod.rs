//! What stands behind the gateway's door: signing keys with their ledger, and the registry, both in the node's store.

mod alerts;
mod bearers;
mod bumps;
mod changes;
mod desk;
mod events;
mod figures;
mod host;
mod key_file;
mod key_places;
mod last_good;
mod recovery;
mod registry;
mod releases;
mod sign_in_codes;
mod signals;
mod thread_state;
mod timelines;
mod tree;
mod tree_bumps;
mod watch;

pub use bearers::{Holders, add_bearer, add_passphrase, read_bearers};
pub use bumps::BumpRefused;
pub(crate) use changes::end_ms;
pub use changes::{KeysShown, OrderRefused, Ordered, ShownVersion};
pub use desk::{Desk, DeskSettings};
pub(crate) use events::Events;
pub use host::GatewayHost;
pub(crate) use key_places::parse_key_files;
pub(crate) use last_good::Named;
pub(crate) use recovery::{Prove, Replacement, replace_lost};
pub(crate) use sign_in_codes::{CODE_MS, SignInCodes};
pub use timelines::APP_KIND;
pub(crate) use timelines::ed25519_keys;
pub use tree::TreeRefused;
pub use tree_bumps::{Reverted, TreeBumped};
