//! `ticket new|list|revoke`: invites, and the texts that carry them.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use sealtide_crypto::Entropy;
use sealtide_identity::{Invite, InviteSecret, RelayHint, Role, SpaceId, Ticket};
use serde_json::{Value, json};

use crate::commands::{members_failure, parse_role, rfc3339, role_name, store_failure};
use crate::failure::{Exit, Failure};
use crate::node::{Node, ticket_addresses};
use crate::real::now;
use crate::world::OsEntropy;

/// Makes an invite and the ticket for it.
pub(crate) async fn new(node: &Node, space: Option<&str>, role: &str, ttl_s: u64, uses: u32) -> Result<Value, Failure> {
    let space = node.space_or_only(space)?;
    let made = make(node, space, parse_role(role)?, ttl_s, uses)?;
    Ok(json!({
        "schema": "sealtide/ticket/1",
        "ticket": made.ticket.encode(),
        "id": HEXLOWER.encode(&made.invite.id),
        "space": node.label(&space),
        "role": role,
        "expires": rfc3339(made.invite.expires_ms),
        "uses": uses,
    }))
}

/// Makes an invite for another device of the same owner: into all that this node administers, once.
pub(crate) fn new_for_device(node: &Node, ttl_s: u64) -> Result<Value, Failure> {
    let (mut spaces, owner) = (node.administered(), node.identities().owner());
    let mut failure =
        Failure::new(Exit::Refused, "not_admin", "this node administers no space that a device could be let into")
            .hint("`sealtide up DIR` shares a directory; an admin of a space makes tickets for that one");
    // Where its owner is a member the device needs no place.
    let is_member = |space: &SpaceId| {
        let members = node.engine().members(space).map(|members| members.newest.members.clone());
        owner.as_ref().zip(members).is_some_and(|(owner, members)| members.member(owner).is_some())
    };
    spaces.retain(|space| match node.engine().room_for(space, None) {
        Err(error) if !is_member(space) => {
            failure = members_failure(error);
            false
        }
        _ => true,
    });
    let first = spaces.first().ok_or(failure)?;
    let mut made = make_anyway(node, *first, Role::Admin, ttl_s, 1)?;
    // Until this is written it is an invite into one space, and nobody has its secret.
    node.known().note_device_invite(&made.invite.id).map_err(store_failure)?;
    made.ticket.device = true;
    Ok(json!({
        "schema": "sealtide/ticket/1",
        "ticket": made.ticket.encode(),
        "id": HEXLOWER.encode(&made.invite.id),
        "device": true,
        "spaces": spaces.iter().map(|space| node.label(space)).collect::<Vec<_>>(),
        "owner": owner.map(|owner| owner.to_string()),
        "role": role_name(Role::Admin),
        "expires": rfc3339(made.invite.expires_ms),
        "uses": 1,
    }))
}

/// An invite and the ticket for it.
pub(crate) struct Made {
    pub(crate) invite: Invite,
    pub(crate) ticket: Ticket,
}

/// Makes an invite into a space where the own role is admin, and which has room.
pub(crate) fn make(node: &Node, space: SpaceId, role: Role, ttl_s: u64, uses: u32) -> Result<Made, Failure> {
    node.engine().room_for(&space, None).map_err(members_failure)?;
    make_anyway(node, space, role, ttl_s, uses)
}

/// The same, whether it has room or not.
fn make_anyway(node: &Node, space: SpaceId, role: Role, ttl_s: u64, uses: u32) -> Result<Made, Failure> {
    if node.engine().role(&node.id(), &space) != Some(Role::Admin) {
        return Err(Failure::new(Exit::Refused, "not_admin", "only an admin of the space can make tickets for it")
            .hint("ask the node that shared it: `sealtide ticket new` there"));
    }
    if uses == 0 || ttl_s == 0 {
        return Err(Failure::usage("ticket", "a ticket needs at least one use and one second"));
    }
    let addresses = ticket_addresses(node);
    let (relays, relays_bind0) = ticket_relays(node);
    if addresses.is_empty() && relays.is_empty() {
        return Err(Failure::failed(
            "not_listening",
            "this node does not listen, so a ticket could not say where it is",
        )
        .hint("`sealtide up` first, then `sealtide ticket new`"));
    }
    let (mut id, mut secret) = ([0; 16], [0; 32]);
    OsEntropy.fill(&mut id);
    OsEntropy.fill(&mut secret);
    let expires_ms = now().wall_ms.saturating_add(ttl_s.saturating_mul(1000));
    let secret = InviteSecret::from_bytes(secret);
    let invite = Invite {
        id,
        secret: secret.clone(),
        space,
        role,
        expires_ms,
        uses_left: uses,
        enrolled: Vec::new(),
        refused: Vec::new(),
    };
    node.known().put_invite(&invite).map_err(store_failure)?;
    if !relays_bind0 {
        node.name_in_ticket(&id, &relays)?;
    }
    node.tell_relays();
    node.audit().note(
        "ticket_made",
        &[("invite", &HEXLOWER.encode(&id)), ("space", &space.to_string()), ("role", role_name(role))],
    );
    let ticket = Ticket {
        node: node.id(),
        expires: expires_ms / 1000,
        invite: Some((id, secret)),
        single_use: uses == 1,
        relay_only: false,
        relays_bind0,
        device: false,
        relays,
        addresses,
    };
    Ok(Made { invite, ticket })
}

/// Over what a holder reaches this node without its address. One flag of a ticket says of all its relays whether their TLS
/// ends in a proxy, so those where it does are named only when there are no others.
fn ticket_relays(node: &Node) -> (Vec<RelayHint>, bool) {
    let behind: BTreeSet<_> =
        node.link().relays().into_iter().filter(|relay| relay.bind == 0).map(|relay| relay.relay.relay).collect();
    let all = node.link().meeting_points();
    let (behind, straight): (Vec<_>, Vec<_>) = all.into_iter().partition(|hint| behind.contains(&hint.relay));
    let bind0 = straight.is_empty() && !behind.is_empty();
    let named = if bind0 { behind } else { straight };
    (named.into_iter().take(4).collect(), bind0)
}

/// All invites.
pub(crate) fn list(node: &Node) -> Result<Value, Failure> {
    let now_ms = now().wall_ms;
    let invites: Vec<Value> = node
        .known()
        .invites()
        .iter()
        .map(|invite| {
            let state = match (invite.uses_left, invite.expires_ms > now_ms) {
                (0, _) => "used_up",
                (_, false) => "expired",
                _ => "open",
            };
            json!({
                "id": HEXLOWER.encode(&invite.id),
                "space": node.label(&invite.space),
                "device": node.known().is_device_invite(&invite.id),
                "role": role_name(invite.role),
                "expires": rfc3339(invite.expires_ms),
                "uses_left": invite.uses_left,
                "enrolled": invite.enrolled.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "state": state,
            })
        })
        .collect();
    Ok(json!({"schema": "sealtide/tickets/1", "tickets": invites}))
}

/// Takes an invite back. Nodes that it enrolled stay; `peers revoke` ends those.
pub(crate) fn revoke(node: &Node, id: &str) -> Result<Value, Failure> {
    let id = id.to_ascii_lowercase();
    let all = node.known().invites();
    let found: Vec<_> = all.iter().filter(|i| id.len() >= 8 && HEXLOWER.encode(&i.id).starts_with(&id)).collect();
    let [invite] = found.as_slice() else {
        return Err(Failure::usage("no_ticket", format!("{} tickets have an id that begins with {id}", found.len()))
            .hint("`sealtide ticket list` shows the ids"));
    };
    node.known().remove_invite(&invite.id).map_err(store_failure)?;
    node.tell_relays();
    node.invites_changed();
    node.audit().note("ticket_revoked", &[("invite", &HEXLOWER.encode(&invite.id))]);
    Ok(json!({"schema": "sealtide/ticket_revoke/1", "id": HEXLOWER.encode(&invite.id)}))
}
