//! `spaces list|create|remove`.

use sealtide_sync::SpaceView;
use serde_json::{Value, json};

use crate::commands::{role_name, store_failure};
use crate::failure::Failure;
use crate::node::Node;

/// All spaces.
pub(crate) fn list(node: &Node) -> Result<Value, Failure> {
    let dirs = node.shared_dirs();
    let spaces: Vec<Value> = node
        .store()
        .spaces()
        .iter()
        .map(|space| {
            let view = node.store().view(&space.id);
            json!({
                "name": space.label,
                "id": space.id.to_string(),
                "kind": space.kind,
                "role": node.engine().role(&node.id(), &space.id).map(role_name),
                "items": view.as_ref().map_or(0, |view| view.snapshot().item_summary.count),
                "bytes": view.as_ref().map_or(0, |view| view.bytes()),
                "dir": dirs.iter().find(|(id, _)| *id == space.id).map(|(_, dir)| dir),
            })
        })
        .collect();
    Ok(json!({"schema": "sealtide/spaces/1", "spaces": spaces}))
}

/// A space without a folder.
pub(crate) async fn create(node: &Node, name: &str) -> Result<Value, Failure> {
    let space = node.create_space(name, "data")?;
    let label = node.store().space_info(&space).map(|info| info.label);
    Ok(json!({"schema": "sealtide/space/1", "id": space.to_string(), "name": label}))
}

/// This node forgets a space; the files in its folder stay.
pub(crate) fn remove(node: &Node, name: &str) -> Result<Value, Failure> {
    let space = node.find_space(name)?;
    node.unshare(&space);
    node.engine().cancel(space);
    node.store().facts().remove_grants_in(&space).map_err(store_failure)?;
    node.store().remove_space(&space).map_err(store_failure)?;
    node.engine().grants_changed();
    node.audit().note("space_removed", &[("space", &space.to_string())]);
    Ok(json!({"schema": "sealtide/space_remove/1", "id": space.to_string(), "name": name}))
}
