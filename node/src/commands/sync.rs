//! `sync`: bring spaces in step now, and wait until they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sealtide_folder::SkipReason;
use sealtide_identity::{NodeId, SpaceId};
use sealtide_sync::{AbortCode, SagaOutcome, SpaceView, Strategy};
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};

use crate::api::Progress;
use crate::commands::conflicts::of_documents;
use crate::engine::{Event, NOT_SHARED, PeerSpace, SagaReport, SyncOrder};
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::share::{Phase, Share, ShareStatus};

/// How often waiting looks around and tells progress.
const TICK: Duration = Duration::from_millis(100);

/// How long a wait hopes for a moment in which nobody writes.
const QUIET_WAIT: Duration = Duration::from_secs(5);

/// What `sync` was asked.
pub(crate) struct SyncCommand {
    pub(crate) spaces: Vec<String>,
    pub(crate) with: Option<String>,
    pub(crate) strategy: String,
    pub(crate) wait: bool,
    pub(crate) timeout_s: u64,
    pub(crate) dry_run: bool,
    pub(crate) cancel: Option<String>,
}

/// Syncs spaces with their peers.
pub(crate) async fn sync(node: &Node, order: SyncCommand, progress: &Progress) -> Result<Value, Failure> {
    if let Some(name) = &order.cancel {
        let space = node.find_space(name)?;
        node.engine().cancel(space);
        return Ok(json!({"schema": "sealtide/sync/1", "cancelled": name}));
    }
    let strategy = parse_strategy(&order.strategy)?;
    let spaces: Vec<SpaceId> = match order.spaces.as_slice() {
        [] => node.spaces(),
        names => names.iter().map(|name| node.find_space(name)).collect::<Result<_, _>>()?,
    };
    let with = order.with.as_deref().map(|name| node.find_peer(name)).transpose()?.map(|peer| peer.node);
    let limit = Duration::from_secs(order.timeout_s.max(1));
    connect(node, &spaces, with, limit).await?;
    if order.dry_run {
        return dry_run(node, &spaces, with);
    }
    flush(node, &spaces).await;
    let mut done = Vec::new();
    for space in &spaces {
        for peer in peers_of(node, space, with) {
            let sync = SyncOrder { space: *space, direction: None, strategy, fresh: true };
            done.push(one(node, peer, sync, limit, progress).await?);
        }
    }
    if order.wait {
        wait_in_step(node, &spaces, limit, progress).await?;
    } else {
        flush(node, &spaces).await;
        shares_of(node, &spaces).iter().try_for_each(|share| refuse_failed(&share.status()))?;
    }
    conflicts(node, &spaces)?;
    Ok(json!({"schema": "sealtide/sync/1", "sagas": done}))
}

fn parse_strategy(text: &str) -> Result<Strategy, Failure> {
    match text {
        "optimistic" => Ok(Strategy::Optimistic),
        "abort" => Ok(Strategy::Abort),
        "ours" => Ok(Strategy::Ours),
        "theirs" => Ok(Strategy::Theirs),
        other => {
            Err(Failure::usage("strategy", format!("{other} is no strategy")).hint("optimistic, abort, ours or theirs"))
        }
    }
}

/// The open folders of these spaces.
fn shares_of(node: &Node, spaces: &[SpaceId]) -> Vec<Share> {
    node.shares().values().filter(|share| spaces.contains(&share.space())).cloned().collect()
}

/// An error when a folder was neither looked through nor checked out.
fn refuse_failed(status: &ShareStatus) -> Result<(), Failure> {
    status.failed.as_ref().map_or(Ok(()), |failed| Err(Failure::failed("folder", failed.clone())))
}

/// Scans the folders of these spaces whole, and checks out what came.
async fn flush(node: &Node, spaces: &[SpaceId]) {
    for share in shares_of(node, spaces) {
        share.flush().await;
    }
}

/// Waits until a session with at least one peer of the spaces is ready.
async fn connect(node: &Node, spaces: &[SpaceId], with: Option<NodeId>, limit: Duration) -> Result<(), Failure> {
    node.serve()?;
    let wanted: BTreeSet<NodeId> = spaces.iter().flat_map(|space| granted(node, space, with)).collect();
    if wanted.is_empty() {
        return Err(Failure::new(Exit::NoRoute, "no_peers", "nobody else has these spaces yet")
            .hint("`sealtide ticket new` invites another node"));
    }
    for peer in &wanted {
        node.nudge(peer);
    }
    let started = Instant::now();
    while !node.engine().peers().iter().any(|(peer, ready)| *ready && wanted.contains(peer)) {
        if started.elapsed() > limit.min(Duration::from_secs(15)) {
            let names: Vec<String> = wanted.iter().map(NodeId::short).collect();
            return Err(Failure::new(
                Exit::NoRoute,
                "no_route",
                format!("no peer can be reached: {}", names.join(", ")),
            )
            .hint("is `sealtide up` running there? `sealtide doctor` looks"));
        }
        tokio::time::sleep(TICK).await;
    }
    // The list of spaces follows the HELLO at once.
    tokio::time::sleep(TICK).await;
    Ok(())
}

fn granted(node: &Node, space: &SpaceId, with: Option<NodeId>) -> Vec<NodeId> {
    let grants = node.engine().grants().into_iter();
    let others = grants.filter(|grant| grant.space == *space && grant.node != node.id()).map(|grant| grant.node);
    others.filter(|peer| with.is_none_or(|with| with == *peer)).collect()
}

fn peers_of(node: &Node, space: &SpaceId, with: Option<NodeId>) -> Vec<NodeId> {
    let ready: BTreeSet<NodeId> =
        node.engine().peers().into_iter().filter(|(_, ready)| *ready).map(|(peer, _)| peer).collect();
    let (sharing, others): (Vec<NodeId>, Vec<NodeId>) = granted(node, space, with)
        .into_iter()
        .filter(|peer| ready.contains(peer))
        .partition(|peer| shares(node, peer, space));
    // Who left the space is waited for where nobody else is.
    if sharing.is_empty() { others } else { sharing }
}

/// Whether a connected peer offers a space.
fn shares(node: &Node, peer: &NodeId, space: &SpaceId) -> bool {
    node.engine().offers(peer).iter().any(|offer| offer.space == *space)
}

async fn one(
    node: &Node,
    peer: NodeId,
    order: SyncOrder,
    limit: Duration,
    progress: &Progress,
) -> Result<Value, Failure> {
    let mut watcher = Watcher::new(node, vec![order.space], limit);
    for _ in 0..20 {
        let report = node.engine().sync(&peer, order);
        match watcher.until(progress, report).await? {
            Ok(report) => {
                if let SagaOutcome::Committed { mode, received, sent, .. } = report.outcome {
                    let mode = format!("{mode:?}").to_lowercase();
                    let label = node.label(&order.space);
                    return Ok(json!({
                        "space": label, "peer": peer.to_string(), "mode": mode, "received": received, "sent": sent,
                    }));
                }
                watcher.refuse_hopeless(&report)?;
            }
            Err(_) => {
                if !node.engine().peers().iter().any(|(id, _)| *id == peer) {
                    return Err(Failure::new(
                        Exit::NoRoute,
                        "session_lost",
                        format!("node {} went away", peer.short()),
                    ));
                }
            }
        }
        tokio::time::sleep(TICK).await;
    }
    if !shares(node, &peer, &order.space) {
        return Err(Failure::new(Exit::Refused, "not_shared", format!("node {}: {NOT_SHARED}", peer.short()))
            .hint("this node may have lost its access: `sealtide join` with a new ticket of an admin gives it back"));
    }
    Err(Failure::failed("sync", format!("node {} does not finish a sync of this space", peer.short())))
}

fn dry_run(node: &Node, spaces: &[SpaceId], with: Option<NodeId>) -> Result<Value, Failure> {
    let mut rows = Vec::new();
    for space in spaces {
        let Some(view) = node.store().view(space) else { continue };
        let snapshot = view.snapshot();
        let fingerprint = snapshot.tip_summary.fingerprint();
        for peer in peers_of(node, space, with) {
            let offer = node.engine().offers(&peer).into_iter().find(|offer| offer.space == *space);
            let same = offer.as_ref().is_some_and(|offer| {
                offer.tip_count == snapshot.tip_summary.count && offer.tip_fingerprint == fingerprint
            });
            rows.push(json!({
                "space": node.label(space),
                "peer": peer.to_string(),
                "equal": same,
                "tips_here": snapshot.tip_summary.count,
                "tips_there": offer.map(|offer| offer.tip_count),
            }));
        }
    }
    Ok(json!({"schema": "sealtide/sync_dry_run/1", "spaces": rows}))
}

fn conflicts(node: &Node, spaces: &[SpaceId]) -> Result<(), Failure> {
    let files: usize = shares_of(node, spaces).iter().map(|share| share.status().conflicts.len()).sum();
    let documents: usize = spaces.iter().map(|space| of_documents(node, space).len()).sum();
    let count = files + documents;
    if count == 0 {
        return Ok(());
    }
    Err(Failure::new(Exit::Conflict, "conflicts", format!("in step, but {count} conflicts need a person"))
        .hint("`sealtide conflicts list`"))
}

/// Waits until every space is in step with every connected peer and its folder is checked out. Where somebody writes all the time,
/// what was here and there when the wait began is enough.
pub(crate) async fn wait_in_step(
    node: &Node,
    spaces: &[SpaceId],
    limit: Duration,
    progress: &Progress,
) -> Result<(), Failure> {
    flush(node, spaces).await;
    let (mut watcher, began) = (Watcher::new(node, spaces.to_vec(), limit), Instant::now());
    let goes_on = loop {
        if spaces.iter().all(|space| settled(node, space)) {
            // A check-out may have found local changes and recorded them: only a quiet second look counts.
            flush(node, spaces).await;
            if spaces.iter().all(|space| settled(node, space)) {
                break false;
            }
        }
        if began.elapsed() > QUIET_WAIT && spaces.iter().all(|space| watcher.caught_up(space)) {
            // What came is checked out; what is written meanwhile is somebody else's wait.
            flush(node, spaces).await;
            break true;
        }
        watcher.tick(progress).await?;
    };
    // A file that is being written is what somebody else waits for.
    let is_written = |reason: &str| goes_on && reason == SkipReason::Changing.to_string();
    for share in shares_of(node, spaces) {
        let status = share.status();
        if status.held.is_some() {
            return Err(Failure::new(Exit::Held, "held", "the change is too large to be made without a person")
                .hint("`sealtide hold list`, then `sealtide hold accept|reject SPACE`"));
        }
        refuse_failed(&status)?;
        let mut skipped = status.skipped.iter().filter(|(_, reason)| !is_written(reason));
        if let Some((path, reason)) = skipped.next() {
            let more = skipped.count();
            let text = format!(
                "{path} was skipped: {reason}{}",
                if more > 0 { format!(" (and {more} more)") } else { String::new() }
            );
            return Err(Failure::new(Exit::Skipped, "skipped", text).hint("`sealtide status` lists what was skipped"));
        }
    }
    Ok(())
}

fn settled(node: &Node, space: &SpaceId) -> bool {
    let idle = node.shares().get(space).is_none_or(|share| {
        let status = share.status();
        // What changed while it was read is read again in a moment.
        let is_read = status.skipped.values().all(|reason| *reason != SkipReason::Changing.to_string());
        status.phase == Phase::Idle && is_read || status.held.is_some() || status.failed.is_some()
    });
    let live = live_peers(node, space);
    idle && !live.is_empty() && live.iter().all(|(_, known)| known.in_step && !known.running)
}

/// The connected peers that share a space and that sagas were seen with.
fn live_peers(node: &Node, space: &SpaceId) -> Vec<(NodeId, PeerSpace)> {
    let connected = node.engine().peers();
    let known = node.engine().peer_spaces(space).into_iter();
    known.filter(|(peer, _)| connected.iter().any(|(id, _)| id == peer) && shares(node, peer, space)).collect()
}

/// Watches spaces while a command waits: tells progress, and gives up after a time without any.
pub(crate) struct Watcher {
    node: Node,
    spaces: Vec<SpaceId>,
    events: broadcast::Receiver<Event>,
    limit: Duration,
    moved: Instant,
    last: Option<Value>,
    /// Sagas that ended well since it began.
    done: BTreeMap<(SpaceId, NodeId), u32>,
}

impl Watcher {
    /// Begins to watch.
    pub(crate) fn new(node: &Node, spaces: Vec<SpaceId>, limit: Duration) -> Self {
        let events = node.engine().subscribe();
        Self { node: node.clone(), spaces, events, limit, moved: Instant::now(), last: None, done: BTreeMap::new() }
    }

    /// Whether all that a space was here and at each connected peer when the watch began is at both: the second saga that ends since
    /// then began since then.
    fn caught_up(&self, space: &SpaceId) -> bool {
        let live = live_peers(&self.node, space);
        !live.is_empty() && live.iter().all(|(peer, _)| self.done.get(&(*space, *peer)).is_some_and(|done| *done > 1))
    }

    /// Waits for a report, telling progress.
    pub(crate) async fn until(
        &mut self,
        progress: &Progress,
        mut report: oneshot::Receiver<SagaReport>,
    ) -> Result<Result<SagaReport, oneshot::error::RecvError>, Failure> {
        loop {
            tokio::select! {
                report = &mut report => return Ok(report),
                ticked = self.tick(progress) => ticked?,
            }
        }
    }

    /// Waits a moment; an error when nothing moved for too long.
    pub(crate) async fn tick(&mut self, progress: &Progress) -> Result<(), Failure> {
        let _ = tokio::time::timeout(TICK, async {
            loop {
                match self.events.recv().await {
                    Ok(Event::Progress(told)) if self.spaces.contains(&told.space) => {
                        self.moved = Instant::now();
                        progress.tell(json!({"phase": "transfer", "items": told.items, "bytes": told.bytes}));
                    }
                    Ok(Event::SagaEnded(report)) if self.spaces.contains(&report.space) => {
                        // One that is refused again and again moves nothing.
                        if matches!(report.outcome, SagaOutcome::Committed { .. }) {
                            self.moved = Instant::now();
                            *self.done.entry((report.space, report.peer)).or_default() += 1;
                        }
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        })
        .await;
        for share in self.node.shares().values().filter(|share| self.spaces.contains(&share.space())) {
            let status = share.status();
            let line = json!({"phase": status.phase, "items": status.items, "bytes": status.bytes});
            if status.phase != Phase::Idle && self.last.as_ref() != Some(&line) {
                self.moved = Instant::now();
                progress.tell(line.clone());
                self.last = Some(line);
            }
        }
        if self.moved.elapsed() > self.limit {
            let seconds = self.limit.as_secs();
            return Err(Failure::failed("timeout", format!("nothing moved for {seconds} s"))
                .hint("`sealtide status` tells what is waited for; --timeout sets the patience"));
        }
        Ok(())
    }

    /// An error when trying again cannot help.
    pub(crate) fn refuse_hopeless(&self, report: &SagaReport) -> Result<(), Failure> {
        let SagaOutcome::Aborted { code, by_peer, text, .. } = &report.outcome else { return Ok(()) };
        let (exit, name) = match code {
            AbortCode::Busy | AbortCode::TipMoved | AbortCode::Timeout => return Ok(()),
            AbortCode::NotAllowed => (Exit::Refused, "not_allowed"),
            AbortCode::Revoked => (Exit::Refused, "revoked"),
            AbortCode::Auth => (Exit::Refused, "auth"),
            AbortCode::Divergence => (Exit::Conflict, "divergence"),
            AbortCode::Cancelled => (Exit::Failed, "cancelled"),
            AbortCode::Disk => (Exit::Failed, "disk"),
            AbortCode::Limit => (Exit::Failed, "limit"),
            _ => (Exit::Failed, "saga"),
        };
        let who = if *by_peer { "there" } else { "here" };
        let message = format!("the sync with node {} was aborted {who}: {text}", report.peer.short());
        Err(Failure::new(exit, name, message).hint(code.explain()))
    }
}
