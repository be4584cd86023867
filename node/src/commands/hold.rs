//! `hold list|show|accept|reject`: check-outs that wait for a person because they would change most of a folder.

use serde_json::{Value, json};

use crate::commands::rfc3339;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::share::{Held, Share};

fn held(node: &Node, name: &str) -> Result<(Share, Held), Failure> {
    let space = node.find_space(name)?;
    let share = node.shares().get(&space).cloned();
    let share = share.ok_or_else(|| Failure::usage("no_folder", format!("{name} has no folder here")))?;
    let held = share.status().held;
    let held = held.ok_or_else(|| Failure::new(Exit::Failed, "nothing_held", format!("nothing is held in {name}")))?;
    Ok((share, held))
}

fn summary(name: &str, held: &Held) -> Value {
    json!({
        "space": name,
        "since": rfc3339(held.since_ms),
        "removed": held.removed.len(),
        "replaced": held.replaced.len(),
        "total": held.total,
    })
}

/// All held check-outs.
pub(crate) fn list(node: &Node) -> Result<Value, Failure> {
    let shares: Vec<Share> = node.shares().values().cloned().collect();
    let held: Vec<Value> = shares
        .iter()
        .filter_map(|share| {
            let label = node.label(&share.space());
            share.status().held.map(|held| summary(&label, &held))
        })
        .collect();
    Ok(json!({"schema": "sealtide/holds/1", "holds": held}))
}

/// What a held check-out would do.
pub(crate) fn show(node: &Node, name: &str) -> Result<Value, Failure> {
    let (_, held) = held(node, name)?;
    let mut shown = summary(name, &held);
    shown["schema"] = json!("sealtide/hold/1");
    shown["removed"] = json!(held.removed);
    shown["replaced"] = json!(held.replaced);
    Ok(shown)
}

/// Lets it happen, or records the folder as it stands over it.
pub(crate) async fn decide(node: &Node, name: &str, accept: bool) -> Result<Value, Failure> {
    let (share, held) = held(node, name)?;
    share.decide_hold(accept).await?;
    node.audit().note(if accept { "hold_accepted" } else { "hold_rejected" }, &[("space", &share.space().to_string())]);
    let mut done = summary(name, &held);
    done["schema"] = json!("sealtide/hold_decide/1");
    done["accepted"] = json!(accept);
    Ok(done)
}
