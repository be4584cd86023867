//! Who a node is, and who may do what: node ids and text forms, tickets and invites, grants.

mod address;
pub mod authorship;
pub mod fuzzing;
mod grants;
mod id;
mod invite;
pub mod keyring;
pub mod keystone;
pub mod members;
mod read;
mod relay;
mod text;
mod ticket;

pub use address::{ADDRESS_BYTES, ADDRESS_COUNT_MAX, LearnedFrom, LinkAddress};
pub use grants::{Action, Grant, Role, allows};
pub use id::{NodeId, SpaceId};
pub use invite::{Invite, InviteId, InviteRefused, InviteSecret};
pub use read::{ReadError, Reader};
pub use relay::{RELAY_COUNT_MAX, RELAY_URL_BYTES_MAX, RelayAddress, RelayHint};
pub use text::{TextError, decode_text, encode_text};
pub use ticket::{Ticket, TicketError, read_address, read_addresses, read_relays};
