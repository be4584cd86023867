//! `spaces list|create|remove`.

use std::path::Path;

use sealtide_identity::SpaceId;
use serde_json::{Value, json};

use crate::commands::join::survey;
use crate::commands::share::existing;
use crate::commands::status::bound;
use crate::commands::{rfc3339, role_name, store_failure};
use crate::failure::Failure;
use crate::known::Absences;
use crate::node::Node;
use crate::share::lately_key;

/// All spaces.
pub(crate) fn list(node: &Node) -> Result<Value, Failure> {
    let spaces: Vec<Value> = node
        .spaces()
        .iter()
        .map(|space| {
            let info = node.store().view(space).and_then(|view| view.info());
            let label = node.known().label(space).unwrap_or_default();
            json!({
                "name": label.name,
                "id": space.to_string(),
                "kind": label.kind,
                "role": node.engine().role(&node.id(), space).map(role_name),
                "items": info.as_ref().map_or(0, |info| info.records),
                "bytes": node.engine().space_bytes(space),
                "bytes_max": bound(node.engine().quota_limits().space),
                "dir": label.dir,
                "members": members(node, space),
            })
        })
        .collect();
    Ok(json!({"schema": "sealtide/spaces/1", "spaces": spaces}))
}

/// Who may do what, where a list of members says so.
fn members(node: &Node, space: &SpaceId) -> Option<Vec<Value>> {
    let list = node.engine().members(space)?;
    let own = node.identities().acts_as(&node.id());
    let rows = list.newest.members.members.values().map(|member| {
        json!({
            "keystone": member.keystone.to_string(),
            "nodes": member.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "role": role_name(member.role),
            "since": rfc3339(member.since_ms),
            "own": own.contains(&member.keystone),
        })
    });
    Some(rows.collect())
}

/// A space without a folder.
pub(crate) async fn create(node: &Node, name: &str) -> Result<Value, Failure> {
    let space = node.create_space(name, "data")?;
    let label = node.label(&space);
    Ok(json!({"schema": "sealtide/space/1", "id": space.to_string(), "name": label}))
}

/// Keeps a space in a directory from now on; returns when its files are there.
///
/// # Errors
/// Exit 2 for a space that has a folder, or a directory that cannot be one; 8 when it holds many other files.
pub(crate) async fn folder(node: &Node, name: &str, dir: &Path, yes: bool) -> Result<Value, Failure> {
    let space = node.find_space(name)?;
    let label = node.known().label(&space).filter(|_| node.spaces().contains(&space));
    let mut label = label.ok_or_else(|| Failure::usage("no_folder", format!("{name} is a space without files")))?;
    let dir = existing(dir)?;
    // A person says that a directory which does not look like it is the one: it is compared like any other, so nothing is taken for
    // deleted.
    if yes && label.dir.as_deref().map(Path::new) == Some(&dir) && node.unopened(&space).is_some() {
        node.unshare(&space);
        label.dir = None;
    }
    match (&label.dir, node.space_of_dir(&dir)) {
        (Some(kept), there) if there != Some(space) => {
            return Err(Failure::usage("has_folder", format!("{} is kept in {kept} already", label.name)));
        }
        (None, Some(there)) => {
            return Err(node.shared_already(&dir, &there));
        }
        _ => {}
    }
    node.check_dir(&dir)?;
    if label.dir.is_none() {
        survey(node, space, &dir, yes).await?;
    }
    let share = node.share_dir(space, &dir)?;
    share.flush().await;
    if let Some(problem) = share.status().failed {
        return Err(Failure::failed("folder", problem));
    }
    node.audit().note("folder_kept", &[("space", &space.to_string()), ("dir", &dir.display().to_string())]);
    Ok(json!({"schema": "sealtide/space_folder/1", "space": space.to_string(), "name": label.name, "dir": dir}))
}

/// This node forgets a space; the files in its folder stay.
pub(crate) fn remove(node: &Node, name: &str) -> Result<Value, Failure> {
    let space = node.find_space_to_forget(name)?;
    forget(node, &space)?;
    Ok(json!({"schema": "sealtide/space_remove/1", "id": space.to_string(), "name": name}))
}

/// Takes a space out of this node, with its grants and invites.
pub(crate) fn forget(node: &Node, space: &SpaceId) -> Result<(), Failure> {
    node.unshare(space);
    node.engine().cancel(*space);
    for invite in node.known().invites().iter().filter(|invite| invite.space == *space) {
        node.known().remove_invite(&invite.id).map_err(store_failure)?;
    }
    node.known().remove_grants_in(space).map_err(store_failure)?;
    node.store().remove_space(space).map_err(store_failure)?;
    node.engine().forget_members(space);
    // Behind that nothing is put aside for it any more.
    node.engine().drop_held(space).map_err(store_failure)?;
    node.known().change_absences(space, Absences::clear).map_err(store_failure)?;
    node.known().put_setting(&lately_key(space), None).map_err(store_failure)?;
    // Last, so that whatever a crash leaves of a space has a name by which it can be forgotten again.
    node.known().put_label(space, None).map_err(store_failure)?;
    node.engine().grants_changed();
    node.audit().note("space_removed", &[("space", &space.to_string())]);
    Ok(())
}
