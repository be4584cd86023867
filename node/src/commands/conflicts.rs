//! `conflicts list|show|resolve`: versions that stand against each other until a person settles them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sealtide_ibgib::{FileFrame, Relations, Stamp, TimelineId, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::{SpaceHandle, TimelineInfo};
use serde_json::{Value, json};

use crate::commands::documents::may_write;
use crate::commands::history::text_of;
use crate::commands::target::{DOC_IB, Line, Target, by_of, n_of, name_of, own_members, parse_version, stamp_of};
use crate::commands::{blocking, rfc3339, store_failure};
use crate::failure::Failure;
use crate::node::{DocumentLook, Node};
use crate::real::now;
use crate::share::{Conflict, agree, join_tips, parents, tip_records, unsettled};

/// Everything that needs a person, in one space or all.
pub(crate) fn list(node: &Node, space: Option<&str>) -> Result<Value, Failure> {
    let wanted = space.map(|name| node.find_space(name)).transpose()?;
    let mut rows = Vec::new();
    for space in node.spaces() {
        if wanted.is_some_and(|wanted| wanted != space) {
            continue;
        }
        let share = node.shares().get(&space).cloned();
        let found: Vec<Value> = if let Some(share) = &share {
            let row = |conflict: Conflict| {
                json!({
                    "path": conflict.path, "kind": conflict.kind, "alias": conflict.alias, "versions": conflict.versions,
                })
            };
            // A folder knows its files, and no documents.
            let files = share.status().conflicts.into_iter().map(row);
            files.chain(of_documents(node, &space).iter().cloned()).collect()
        } else {
            let view = node.store().view(&space);
            view.iter().flat_map(|view| rows_of(view, view.timelines())).collect()
        };
        rows.extend(found.into_iter().map(|mut row| {
            row["space"] = json!(node.label(&space));
            row
        }));
    }
    Ok(json!({"schema": "sealtide/conflicts/1", "conflicts": rows}))
}

/// How long a look through the documents of a space may take before it is not made at will …
const DEAR: Duration = Duration::from_millis(20);
/// … but takes this part of the time at most.
const LOOK_PART: u32 = 20;

/// As [`of_documents`], for whoever looks again and again: where that takes long, what was found a while ago will do.
pub(crate) fn of_documents_lately(node: &Node, space: &SpaceId) -> Arc<[Value]> {
    let recent = |look: &&DocumentLook| is_recent((look.at, look.took), Instant::now());
    let known = node.document_conflicts().get(space).filter(recent).map(|look| look.found.clone());
    known.unwrap_or_else(|| of_documents(node, space))
}

/// Whether what was found at a time, by a look that took so long, still stands for what is there.
fn is_recent((at, took): (Instant, Duration), now: Instant) -> bool {
    took > DEAR && now.duration_since(at) < took * LOOK_PART
}

/// The documents of a space that need a person. Read again only where something came to the space since.
pub(crate) fn of_documents(node: &Node, space: &SpaceId) -> Arc<[Value]> {
    let Some(view) = node.store().view(space) else { return Arc::default() };
    // No tip moves without a new record.
    let Some(state) = view.info().map(|info| (info.created_ms, info.records)) else { return Arc::default() };
    if let Some(look) = node.document_conflicts().get(space).filter(|look| look.state == state) {
        return look.found.clone();
    }
    let began = Instant::now();
    let found: Arc<[Value]> = rows_of(&view, view.timelines_of(DOC_IB)).collect();
    let look = DocumentLook { state, found: found.clone(), at: Instant::now(), took: began.elapsed() };
    node.document_conflicts().insert(*space, look);
    found
}

fn rows_of(view: &SpaceHandle, timelines: Vec<TimelineInfo>) -> impl Iterator<Item = Value> {
    timelines.into_iter().filter_map(|timeline| row_of(view, &timeline.timeline))
}

/// What needs a person in a timeline that no folder looks after.
fn row_of(view: &SpaceHandle, timeline: &TimelineId) -> Option<Value> {
    let tips = tip_records(view, timeline);
    let (kind, versions) = if tips.len() > 1 {
        let files: Vec<FileFrame> = tips.iter().filter_map(|tip| FileFrame::read(tip).ok()).collect();
        if files.len() == tips.len() && files.iter().all(|other| agree(&files[0], other)) {
            return None;
        }
        ("diverged", tips.clone())
    } else {
        let merge = unsettled(view, tips.first()?)?;
        let parents = parents(view, &merge).into_iter().map(|(_, parent)| parent);
        ("merged", tips.iter().cloned().chain(parents).collect())
    };
    let path = tips.first().and_then(name_of).map(|(name, _)| name);
    let versions: Vec<&str> = versions.iter().map(|version| version.address().as_str()).collect();
    Some(json!({"path": path, "kind": kind, "versions": versions}))
}

/// The versions that stand against each other, the one that stands for the timeline first, and what each is.
fn versions_of(line: &Line) -> Vec<(&'static str, Verified)> {
    let tips = line.tips.iter().cloned();
    let [tip] = &line.tips[..] else { return tips.map(|tip| ("version", tip)).collect() };
    let Some(merge) = unsettled(&line.view, tip) else { return vec![("version", tip.clone())] };
    tips.map(|tip| ("merged", tip)).chain(parents(&line.view, &merge)).collect()
}

/// The versions of one conflict with their texts.
pub(crate) fn show(node: &Node, text: &str) -> Result<Value, Failure> {
    let target = Target::parse(text);
    let line = Line::find(node, &target)?;
    let mut versions = Vec::new();
    for (place, (what, record)) in versions_of(&line).into_iter().enumerate() {
        let file = FileFrame::read(&record).ok();
        versions.push(json!({
            "what": what,
            "path": file.as_ref().map(|file| &file.path),
            "deleted": file.as_ref().is_some_and(|file| file.deleted),
            "n": n_of(&record),
            "hash": record.address().gib().split('.').next().unwrap_or_default().to_lowercase(),
            "time": rfc3339(stamp_of(&record)),
            "by": by_of(&record).unwrap_or_default(),
            "in_folder": place == 0,
            "text": text_of(node, &line, &record)?,
        }));
    }
    Ok(json!({"schema": "sealtide/conflict/1", "path": target.path, "versions": versions}))
}

/// Joins the tips of a timeline, or settles a merge, with one frame that holds the version kept; the others stay in the
/// history.
pub(crate) async fn resolve(node: &Node, text: String, keep: Option<String>) -> Result<Value, Failure> {
    let target = Target::parse(&text);
    let path = target.path.clone();
    let find = move |node: &Node| {
        let line = Line::find(node, &target)?;
        may_write(node, &line.space)?;
        if line.tips.len() < 2 && unsettled(&line.view, &line.tips[0]).is_none() {
            return Err(Failure::usage("no_conflict", format!("{text} has one version only"))
                .hint("two files of one name are told apart by renaming one of them"));
        }
        let kept = match &keep {
            None => line.tips[0].clone(),
            Some(version) => {
                let version = version.trim_start_matches('@');
                let parsed = parse_version(version)
                    .ok_or_else(|| Failure::usage("version", format!("{version} is no version")).hint("@N or @HASH"))?;
                line.version(Some(&parsed))?
            }
        };
        Ok((line, kept))
    };
    let (line, kept) = blocking("conflicts", node, find).await?;
    let record = settled(node, &line, &kept)?;
    node.engine().commit_local(line.space, vec![record.clone()]).await.map_err(store_failure)?;
    // Whoever settled it sees that at once.
    node.document_conflicts().remove(&line.space);
    let share = node.shares().get(&line.space).cloned();
    if let Some(share) = share {
        share.flush().await;
    }
    Ok(json!({
        "schema": "sealtide/conflict_resolve/1", "path": path,
        "kept": kept.address().as_str(), "address": record.address().as_str(),
    }))
}

/// The next frame, with the content of `kept` and every tip behind it.
fn settled(node: &Node, line: &Line, kept: &Verified) -> Result<Verified, Failure> {
    let (data, relations) = match FileFrame::read(kept) {
        Ok(mut frame) => {
            frame.by = node.id().to_string();
            frame.parts().map_err(|error| Failure::failed("record", error.to_string()))?
        }
        Err(_) => (own_members(node, kept), Relations::new()),
    };
    let stamp = Stamp { ms: now().wall_ms };
    join_tips(&line.tips, data, relations, stamp).map_err(|error| Failure::failed("record", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_took_long_to_find_stands_for_a_while_and_what_is_cheap_never_does() {
        let (at, after) = (Instant::now(), Duration::from_millis);
        assert!(!is_recent((at, DEAR), at));
        let dear = (at, after(100));
        assert!(is_recent(dear, at + after(1_999)) && !is_recent(dear, at + after(2_000)));
    }
}
