//! `hold list|show|accept|reject`: what waits for a person. Check-outs that would change most of a folder (kind `change`),
//! and what came of somebody who may not write any more (kind `writer`).

use sealtide_ibgib::{FileFrame, Relations, Stamp, Verified};
use sealtide_identity::{Role, SpaceId};
use serde_json::{Value, json};

use crate::commands::target::{n_of, name_of, own_members};
use crate::commands::{members_failure, rfc3339};
use crate::engine::holds::HeldFrom;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::real::now;
use crate::share::{Held, Share, join_tips};

fn held(node: &Node, name: &str) -> Result<(Share, Held), Failure> {
    let space = node.find_space(name)?;
    let nothing = || Failure::new(Exit::Failed, "nothing_held", format!("nothing is held in {name}"));
    let share = node.shares().get(&space).cloned();
    let share = share.ok_or_else(|| match node.known().label(&space) {
        Some(label) if label.kind == "folder" => Failure::usage("no_folder", format!("{name} has no folder here")),
        _ => nothing(),
    })?;
    let held = share.status().held.ok_or_else(nothing)?;
    Ok((share, held))
}

fn summary(name: &str, held: &Held) -> Value {
    json!({
        "space": name,
        "kind": "change",
        "since": rfc3339(held.since_ms),
        "removed": held.removed.len(),
        "replaced": held.replaced.len(),
        "total": held.total,
        "gone": held.gone,
    })
}

fn writer_summary(node: &Node, space: &SpaceId, held: &[HeldFrom]) -> Value {
    json!({
        "space": node.label(space),
        "kind": "writer",
        "peers": held.iter().map(|from| from.peer.to_string()).collect::<Vec<_>>(),
        "frames": versions(held).count(),
        "decides": node.engine().role(&node.id(), space) == Some(Role::Admin),
    })
}

/// The versions that are held and need a person, each once.
pub(crate) fn versions(held: &[HeldFrom]) -> impl Iterator<Item = (&HeldFrom, &Verified)> {
    let mut seen = std::collections::BTreeSet::new();
    let all = held.iter().flat_map(|from| from.frames.iter().map(move |frame| (from, frame)));
    all.filter(move |(_, frame)| seen.insert(frame.sid()))
}

/// Everything that is held.
pub(crate) fn list(node: &Node) -> Result<Value, Failure> {
    let shares: Vec<Share> = node.shares().values().cloned().collect();
    let mut held: Vec<Value> = shares
        .iter()
        .filter_map(|share| {
            let label = node.label(&share.space());
            share.status().held.map(|held| summary(&label, &held))
        })
        .collect();
    let spaces = node.spaces().into_iter().filter(|space| node.engine().holds(space));
    held.extend(spaces.map(|space| writer_summary(node, &space, &node.engine().held(&space))));
    Ok(json!({"schema": "sealtide/holds/1", "holds": held}))
}

/// What is held of one space.
pub(crate) fn show(node: &Node, name: &str) -> Result<Value, Failure> {
    let space = node.find_space(name)?;
    if node.engine().holds(&space) {
        let held = node.engine().held(&space);
        let mut shown = writer_summary(node, &space, &held);
        shown["schema"] = json!("sealtide/hold/1");
        shown["versions"] = versions(&held).map(|(from, frame)| version(from, frame)).collect();
        return Ok(shown);
    }
    let (_, held) = held(node, name)?;
    let mut shown = summary(name, &held);
    shown["schema"] = json!("sealtide/hold/1");
    shown["removed"] = json!(held.removed);
    shown["replaced"] = json!(held.replaced);
    Ok(shown)
}

fn version(from: &HeldFrom, frame: &Verified) -> Value {
    let (name, lives) = name_of(frame).unwrap_or_else(|| (frame.address().ib().to_owned(), true));
    json!({
        "path": name,
        "deleted": !lives,
        "n": n_of(frame),
        "address": frame.address().as_str(),
        "by": frame.object().and_then(|data| Some(data.get("by")?.as_str()?.to_owned())),
        "peer": from.peer.to_string(),
    })
}

/// Lets it happen, or puts what stands here over it.
pub(crate) async fn decide(node: &Node, name: &str, accept: bool) -> Result<Value, Failure> {
    let space = node.find_space(name)?;
    let note = if accept { "hold_accepted" } else { "hold_rejected" };
    if node.engine().holds(&space) {
        let deciding = node.clone();
        let taken = tokio::task::spawn_blocking(move || decide_writer(&deciding, &space, accept)).await;
        let frames = taken.map_err(|error| Failure::failed("hold", error.to_string()))??;
        node.audit().note(note, &[("space", &space.to_string()), ("frames", &frames.to_string())]);
        let share = node.shares().get(&space).cloned();
        if let Some(share) = share {
            share.flush().await;
        }
        return Ok(json!({
            "schema": "sealtide/hold_decide/1", "space": name, "kind": "writer", "frames": frames, "accepted": accept,
        }));
    }
    let (share, held) = held(node, name)?;
    share.decide_hold(accept).await?;
    node.audit().note(note, &[("space", &share.space().to_string())]);
    let mut done = summary(name, &held);
    done["schema"] = json!("sealtide/hold_decide/1");
    done["accepted"] = json!(accept);
    Ok(done)
}

fn decide_writer(node: &Node, space: &SpaceId, accept: bool) -> Result<usize, Failure> {
    let supersede = |before: &[Verified], after: &[Verified]| supersede(node, before, after);
    let taken =
        if accept { node.engine().take_held(space, None) } else { node.engine().take_held(space, Some(&supersede)) };
    taken.map_err(members_failure)
}

/// The frame that keeps what stood here: what it said before, or the end of what was not there.
fn supersede(node: &Node, before: &[Verified], after: &[Verified]) -> Option<Verified> {
    let (data, relations) = match sealtide_ibgib::winner(before) {
        Some(kept) => match FileFrame::read(kept) {
            Ok(frame) => FileFrame { by: node.id().to_string(), ..frame }.parts().ok()?,
            Err(_) => (own_members(node, kept), Relations::new()),
        },
        None => {
            let last = FileFrame::read(sealtide_ibgib::winner(after)?).ok().filter(|frame| !frame.deleted)?;
            last.deletion(last.mtime, &node.id().to_string()).parts().ok()?
        }
    };
    match join_tips(after, data, relations, Stamp { ms: now().wall_ms }) {
        Ok(frame) => Some(frame),
        Err(error) => {
            tracing::warn!(%error, "a version that was rejected stands, since none could be put over it");
            None
        }
    }
}
