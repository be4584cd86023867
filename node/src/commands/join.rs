//! `join TICKET [DIR]`: enrol at the issuer of a ticket and take the space it lets into, or with one for a device every space.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sealtide_identity::{NodeId, Role, SpaceId, Ticket, TicketError};
use sealtide_link::{DialError, DialTarget, Session};
use sealtide_store::{Peer, SpaceLabel};
use sealtide_sync::SpaceOffer;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::api::Progress;
use crate::commands::share::existing;
use crate::commands::sync::{Watcher, wait_in_step};
use crate::commands::{role_name, store_failure};
use crate::engine::{Event, SyncOrder};
use crate::failure::{Exit, Failure};
use crate::node::{Node, dial_failure};
use crate::real::now;

/// Files in a directory above which joining it with a space that holds few of them needs `--yes`.
const SURVEY_FILES: usize = 20;

/// How long a dial of the other node may take to hear that it gives way.
const CROSSED: Duration = Duration::from_millis(100);
/// How often an invite is proven when the session ends before it is known what for.
const ENROLLED_MAX: u32 = 5;
/// How long it may take until the keys of a node say that it is a member.
const STRANGER: Duration = Duration::from_secs(5);
/// How long a session that stands may take to end.
const STANDING: Duration = Duration::from_secs(3);

/// What `join` was asked.
pub(crate) struct JoinOrder {
    pub(crate) ticket: String,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) wait: bool,
    pub(crate) yes: bool,
    pub(crate) timeout_s: u64,
    /// This node is another device of whoever made the ticket.
    pub(crate) device: bool,
}

/// Enrols, makes the space, pulls it, and joins it with the directory.
pub(crate) async fn join(node: &Node, order: JoinOrder, progress: &Progress) -> Result<Value, Failure> {
    let ticket = read_ticket(&order.ticket)?;
    let (invite, _) = ticket.invite.clone().ok_or_else(|| {
        Failure::usage("no_invite", "this ticket carries no invite, it only names a node")
            .hint("ask for a new ticket: `sealtide ticket new`")
    })?;
    if ticket.node == node.id() {
        return Err(Failure::usage("own_ticket", "this ticket was made by this very node")
            .hint("use it on the other machine, or with another --home"));
    }
    // An owner that anybody could foist on a node could also have it shut out.
    if ticket.device && !order.device {
        let text = "this ticket makes a node another device of whoever made it: it is let into every space, and speaks for that owner";
        return Err(Failure::usage("device_ticket", text)
            .hint("--device, when both machines are yours; else ask for a ticket for one space"));
    }
    if order.device && !ticket.device {
        return Err(Failure::usage(
            "not_for_a_device",
            "this ticket lets into one space, and makes no device of this node",
        )
        .hint("`sealtide ticket new --device` on the other machine"));
    }
    let dir = order.dir.as_deref().map(existing).transpose()?;
    // A directory that is shared with the node of the ticket may be that of the space it is for: access is given anew.
    let shared = dir.as_deref().and_then(|dir| node.space_of_dir(dir));
    if let Some(dir) = &dir {
        node.check_dir(dir)?;
        if let Some(space) = shared.filter(|space| node.engine().role(&ticket.node, space).is_none()) {
            return Err(node.shared_already(dir, &space));
        }
    }
    let mut events = node.engine().subscribe();
    let limit = Duration::from_secs(order.timeout_s.max(1));
    let mut offers = enrol(node, &ticket, &mut events, limit).await?;
    offers.sort_by(|left, right| left.name.cmp(&right.name));
    if !ticket.device {
        offers.truncate(1);
    }
    if dir.is_some() && offers.len() > 1 {
        let names: Vec<&str> = offers.iter().map(|offer| offer.name.as_str()).collect();
        let text =
            format!("this ticket lets into {} spaces ({}), and a directory holds one", offers.len(), names.join(", "));
        return Err(Failure::usage("several_spaces", text)
            .hint("the same ticket without the directory, then `sealtide spaces folder SPACE DIR` for each"));
    }
    if let (Some(dir), Some(space)) = (&dir, shared.filter(|space| offers.iter().all(|offer| offer.space != *space))) {
        return Err(node.shared_already(dir, &space));
    }
    if ticket.device {
        node.known().note_device_of(Some(&ticket.node)).map_err(store_failure)?;
        node.watch_for_owner();
    }
    let mut joined = Vec::new();
    for offer in &offers {
        joined.push(adopt(node, offer, ticket.node, dir.is_none() || shared.is_some())?);
        let noted = dir.as_deref().filter(|dir| shared.is_none() && is_empty(dir));
        if let Some(dir) = noted {
            node.note_dir(offer.space, dir).map_err(|failure| without_a_folder(node, offer, failure))?;
        }
        node.audit().note(
            "joined",
            &[
                ("space", &offer.space.to_string()),
                ("peer", &ticket.node.to_string()),
                ("invite", &data_encoding::HEXLOWER.encode(&invite)),
            ],
        );
        let pulled = pull(node, offer, ticket.node, limit, progress).await;
        if let (Err(failure), Some(dir)) = (&pulled, noted) {
            match failure.exit {
                // Nothing will come.
                Exit::Refused => node.unshare(&offer.space),
                // A node that runs goes on by itself, and what comes then has its place.
                _ => drop(node.open_share(offer.space, dir)),
            }
        }
        pulled?;
    }
    let (offer, label) = (&offers[0], &joined[0]);
    let absent: u64 = offers.iter().map(|offer| node.engine().absent_chunks(&offer.space)).sum();
    if let Some(dir) = &dir {
        if shared.is_none() {
            // It was empty, and may have been noted.
            survey(node, offer.space, dir, order.yes).await.inspect_err(|_| node.unshare(&offer.space))?;
            node.share_dir(offer.space, dir).map_err(|failure| without_a_folder(node, offer, failure))?;
        } else {
            // Noted by a join that did not come this far.
            node.open_share(offer.space, dir)?;
        }
        if order.wait {
            wait_in_step(node, &[offer.space], limit, progress).await?;
        }
    }
    Ok(json!({
        "schema": "sealtide/join/1",
        "space": offer.space.to_string(),
        "name": label,
        "role": role_name(offer.role),
        "peer": ticket.node.to_string(),
        "dir": dir,
        "in_step": order.wait || dir.is_none(),
        "absent": absent,
        "device": ticket.device,
        "spaces": joined,
    }))
}

/// Reads a ticket as typed.
pub(crate) fn read_ticket(text: &str) -> Result<Ticket, Failure> {
    Ticket::decode(text).map_err(|error| match error {
        TicketError::Text(_) => Failure::usage("ticket", format!("the ticket is mistyped: {error}"))
            .hint("copy it whole; it begins with stt1"),
        other => Failure::usage("ticket", other.to_string()),
    })
}

/// Proves the invite, and hears which spaces it lets into. The other node may end the session in between, because it has news of
/// its identities to tell in the next one: then the same invite is proven again, which takes no second use of it.
async fn enrol(
    node: &Node,
    ticket: &Ticket,
    events: &mut broadcast::Receiver<Event>,
    limit: Duration,
) -> Result<Vec<SpaceOffer>, Failure> {
    let mut why = None;
    for _ in 0..ENROLLED_MAX {
        let dialled = dial_and_welcome(node, ticket).await;
        // What it had against this node in the session before says more.
        dialled.map_err(|failure| match why.take().filter(|_| failure.code == "refused") {
            Some(why) => Failure { message: format!("node {} refused: {why}", ticket.node.short()), ..failure },
            None => failure,
        })?;
        match timeout(limit, wait_for_offers(node, events, ticket.node, &mut why)).await {
            Ok(Some(offers)) => return Ok(offers),
            Ok(None) => {}
            Err(_) => {
                let text = "the other node did not say which space the ticket is for";
                return Err(enrolled_not("timeout", text, why));
            }
        }
    }
    Err(enrolled_not("session_lost", "the session with the other node ended while enrolling, again and again", why))
}

fn enrolled_not(code: &str, text: &str, why: Option<String>) -> Failure {
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    Failure::failed(code, format!("{text}{why}")).hint(
        "what `sealtide up` prints there tells more; do the clocks of both differ by a day? (`sealtide doctor TICKET`)",
    )
}

async fn dial_and_welcome(node: &Node, ticket: &Ticket) -> Result<(), Failure> {
    let session = dial_with_invite(node, ticket).await?;
    let mut record = Peer::new(ticket.node, now());
    record.addresses.clone_from(&ticket.addresses);
    record.relays.clone_from(&ticket.relays);
    node.with_peers(|known| match known.peer(&ticket.node) {
        Some(peer) if !peer.revoked => Ok(()),
        _ => known.put_peer(&record),
    })
    .map_err(store_failure)?;
    node.welcome(session);
    Ok(())
}

/// Opens a session that proves the invite. One that stands already with that node has proved another, or none, and
/// gives way; meanwhile neither the own task that keeps a session open nor the other node opens one.
async fn dial_with_invite(node: &Node, ticket: &Ticket) -> Result<Session, Failure> {
    let _dialling = node.hold_dialling(&ticket.node).await;
    let _next = node.link().reserve(&ticket.node);
    if let Some(standing) = node.link().session(&ticket.node) {
        standing.close();
        let _ = timeout(STANDING, standing.closed()).await;
    }
    if ticket.relays_bind0 {
        node.use_relays_behind_proxies(&ticket.relays)?;
    }
    let target = DialTarget {
        node: ticket.node,
        addresses: ticket.addresses.clone(),
        relays: ticket.relays.clone(),
        invite: ticket.invite.clone(),
    };
    let mut dialled = node.link().dial(target.clone()).await;
    if matches!(dialled, Err(DialError::Busy)) {
        // A dial of the other node went first there, and has been turned away here since.
        tokio::time::sleep(CROSSED).await;
        dialled = node.link().dial(target).await;
    }
    let session = dialled.map_err(|error| dial_failure(&ticket.node, &error))?;
    if session.invite_used() == ticket.invite.as_ref().map(|(id, _)| *id) {
        return Ok(session);
    }
    Err(Failure::failed("session", format!("the session with node {} does not end", ticket.node.short()))
        .hint("try again, or stop the node that runs here first"))
}

/// The spaces that the invite lets into, as the issuer marks them, never none; `None` when the session ended before. `why` becomes what
/// one of the two nodes had against the other.
async fn wait_for_offers(
    node: &Node,
    events: &mut broadcast::Receiver<Event>,
    peer: NodeId,
    why: &mut Option<String>,
) -> Option<Vec<SpaceOffer>> {
    loop {
        match events.recv().await {
            Ok(Event::PeerSpaces(from, mut offers)) if from == peer => {
                offers.retain(|offer| offer.invited);
                if !offers.is_empty() {
                    return Some(offers);
                }
            }
            // Either of the two may have opened another session, without the invite, before this one is gone.
            Ok(Event::PeerFailed(from, text)) if from == peer => {
                *why = Some(text);
                return None;
            }
            // An older session with that node gives way to the one of the invite.
            Ok(Event::PeerGone(from)) if from == peer && node.link().session(&peer).is_none() => return None,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// Makes the space here: the issuer is its admin, the own role is what the invite gives. One that is kept in a directory already is
/// refused, unless it may be.
fn adopt(node: &Node, offer: &SpaceOffer, issuer: NodeId, may_be_kept: bool) -> Result<String, Failure> {
    if node.has_space(&offer.space) {
        let label = node.label(&offer.space);
        if !may_be_kept && node.shared_dirs().iter().any(|(space, _)| *space == offer.space) {
            return Err(Failure::usage("space_here", format!("the space is here already, as {label}"))
                .hint(format!("`sealtide spaces folder {label} DIR` keeps it in another directory")));
        }
        // Out of a backup of another machine: all of it is here, and this node is no member yet.
        if node.engine().role(&node.id(), &offer.space).is_none() {
            grant_both(node, offer, issuer)?;
        }
        return Ok(label);
    }
    let label = node.free_label(&offer.name);
    node.store().adopt_space(offer.space).map_err(store_failure)?;
    // A kind of the own spaces (`audit`) told by a peer would have them taken for each other.
    let kind = if offer.kind == "folder" { "folder" } else { "data" };
    let row = SpaceLabel { name: label.clone(), kind: kind.to_owned(), dir: None };
    node.known().put_label(&offer.space, Some(&row)).map_err(store_failure)?;
    grant_both(node, offer, issuer)?;
    Ok(label)
}

/// The directory went to another space while the join was under way: the one that was joined stays without a folder.
fn without_a_folder(node: &Node, offer: &SpaceOffer, failure: Failure) -> Failure {
    if failure.exit != Exit::Usage {
        return failure;
    }
    let label = node.label(&offer.space);
    let text = format!("{}; {label} is joined, and has no folder", failure.message);
    Failure { message: text, ..failure }
        .hint(format!("`sealtide spaces folder {label} DIR` keeps it in another directory"))
}

/// What counts until a members frame names both.
fn grant_both(node: &Node, offer: &SpaceOffer, issuer: NodeId) -> Result<(), Failure> {
    node.grant(offer.space, issuer, Role::Admin)?;
    node.grant(offer.space, node.id(), offer.role)
}

async fn pull(
    node: &Node,
    offer: &SpaceOffer,
    peer: NodeId,
    limit: Duration,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut watcher = Watcher::new(node, vec![offer.space], limit);
    let order = SyncOrder { fresh: true, ..SyncOrder::of_itself(offer.space) };
    let mut stranger_since = None;
    loop {
        let report = node.engine().sync(&peer, order);
        let report = watcher.until(progress, report).await?;
        match report {
            Ok(report) if report.in_step() => return Ok(()),
            Ok(report) => watcher.refuse_hopeless(&report)?,
            // The order was dropped: the session is gone or being replaced, or this node takes nothing from that one.
            Err(_) if node.engine().role(&peer, &offer.space).is_none() => {
                let since = *stranger_since.get_or_insert_with(Instant::now);
                if since.elapsed() > STRANGER {
                    return Err(stranger(node, offer, peer));
                }
            }
            Err(_) => {}
        }
        watcher.tick(progress).await?;
    }
}

/// The members of a space that is here already decide from whom it is taken, whoever makes tickets for it.
fn stranger(node: &Node, offer: &SpaceOffer, peer: NodeId) -> Failure {
    let (label, peer) = (node.label(&offer.space), peer.short());
    let text = format!("{label} is here already, and as far as this node has heard node {peer} is no member of it");
    Failure::new(Exit::Refused, "not_a_member", text).hint(
        "`sealtide up` here: a member that both know tells of it, then they sync by themselves; if there is none any more, `sealtide spaces remove` \
         and join anew",
    )
}

/// Whether nothing is in a directory, so that nothing of it could be recorded by mistake.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Compares the directory with the space before anything is recorded: many files of which few are in the space look
/// like the wrong directory.
pub(crate) async fn survey(node: &Node, space: SpaceId, dir: &Path, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let (looking, at) = (node.clone(), dir.to_owned());
    let looked = tokio::task::spawn_blocking(move || crate::share::survey(&looking, space, &at));
    let seen = looked.await.map_err(|error| Failure::failed("survey", error.to_string()))??;
    if seen.files <= SURVEY_FILES || seen.adopted * 2 >= seen.files {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Held,
        "not_empty",
        format!("{} holds {} files, of which only {} are in the space", dir.display(), seen.files, seen.adopted),
    )
    .hint("nothing was changed; repeat with --yes to keep both, or name an empty directory"))
}
