//! `files`: one directory of a space, some names at a time.

use sealtide_ibgib::{Content, FileFrame, FileKind, TimelineId};
use sealtide_store::SpaceHandle;
use serde_json::{Value, json};

use crate::commands::history::name_of_node;
use crate::commands::rfc3339;
use crate::commands::target::{DOC_IB, by_of, n_of, name_of, stamp_of};
use crate::content::ContentReader;
use crate::failure::Failure;
use crate::node::Node;
use crate::share::{Child, Claims, tip_records};

/// Names in one answer, at most.
const LIMIT_MAX: usize = 1_000;

/// What a directory holds: directories first, then by name.
pub(crate) fn files(
    node: &Node,
    space: &str,
    under: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Value, Failure> {
    let id = node.find_space(space)?;
    let view = node.store().view(&id).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
    let under = under.trim_matches('/');
    let share = node.shares().get(&id).cloned();
    // A folder that has looked knows its paths; without one every tip is read.
    let placed = share.and_then(|share| share.children(under));
    let mut children = placed.unwrap_or_else(|| Claims::read(&view).children(under));
    if under.is_empty() {
        children.extend(documents(&view));
    }
    children.sort_by(|left, right| (!left.is_dir(), &left.name).cmp(&(!right.is_dir(), &right.name)));
    let from = after.and_then(|after| children.iter().position(|child| child.name == after)).map_or(0, |at| at + 1);
    let limit = limit.clamp(1, LIMIT_MAX);
    let entries: Vec<Value> = children.iter().skip(from).take(limit).map(|child| entry(node, &view, child)).collect();
    Ok(json!({
        "schema": "sealtide/files/1",
        "space": space,
        "under": under,
        "total": children.len(),
        "more": from + entries.len() < children.len(),
        "entries": entries,
    }))
}

fn documents(view: &SpaceHandle) -> Vec<Child> {
    let named = view.timelines_of(DOC_IB).into_iter().filter_map(|line| {
        let tips = tip_records(view, &line.timeline);
        let (name, _) = name_of(tips.first()?)?;
        Some(Child { name, files: 0, timeline: Some(line.timeline), conflict: tips.len() > 1 })
    });
    named.collect()
}

fn entry(node: &Node, view: &SpaceHandle, child: &Child) -> Value {
    let mut entry = json!({"name": child.name});
    let Some(timeline) = &child.timeline else {
        entry["kind"] = json!("dir");
        entry["files"] = json!(child.files);
        return entry;
    };
    entry["conflict"] = json!(child.conflict);
    describe(node, view, timeline, &mut entry);
    entry
}

fn describe(node: &Node, view: &SpaceHandle, timeline: &TimelineId, entry: &mut Value) {
    let tips = tip_records(view, timeline);
    let Some(tip) = tips.first() else { return };
    entry["n"] = json!(n_of(tip));
    entry["time"] = json!(rfc3339(stamp_of(tip)));
    match FileFrame::read(tip) {
        Ok(frame) => {
            entry["kind"] = json!(match frame.kind {
                FileKind::Dir => "dir",
                FileKind::Symlink => "link",
                _ => "file",
            });
            entry["bytes"] = json!(match &frame.content {
                Content::Text(text) | Content::Target(text) => Some(text.len() as u64),
                Content::Bin(address) => ContentReader::open(node.store(), view, address).ok().map(|it| it.size()),
                Content::None => None,
            });
        }
        Err(_) => entry["kind"] = json!("doc"),
    }
    let by = by_of(tip);
    entry["by_name"] = json!(by.as_deref().and_then(|by| name_of_node(node, by)));
    entry["by"] = json!(by);
}
