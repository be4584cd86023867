//! Who a node is, and who may do what: node ids and text forms, tickets and invites, grants.

mod grants;
mod id;
mod text;
mod ticket;

pub use grants::{Action, Grant, Role, allows};
pub use id::{NodeId, SpaceId};
pub use text::{TextError, decode_text, encode_text};
pub use ticket::{
    Invite, InviteId, InviteRefused, InviteSecret, LinkAddress, RelayAddress, RelayHint, Ticket, TicketError,
};
