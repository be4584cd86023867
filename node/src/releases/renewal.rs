//! Heads that stay fresh while the publisher's node runs. Spec: gateway §9.6.

use std::time::Duration;

use tokio::time::Instant;

use super::renew;
use crate::node::Node;

/// How often the keys are looked at: after a change of keys, heads of the old pair are void.
const LOOK: Duration = Duration::from_secs(1);
/// How often the age of the heads is looked at.
const EVERY: Duration = Duration::from_secs(3600);

/// Signs the heads of the own channels anew, a day after they were signed and whenever the keys change.
pub(crate) fn keep_fresh(node: &Node) {
    let (node, mut stop) = (node.clone(), node.stopping());
    tokio::spawn(async move {
        let mut due: Option<(Instant, Option<u64>)> = None;
        loop {
            let epoch = node.open_desk().map(|desk| desk.epoch());
            if due.is_none_or(|(at, seen)| Instant::now() >= at || (epoch.is_some() && seen != epoch)) {
                match renew(&node).await {
                    Ok(0) => {}
                    Ok(renewed) => tracing::info!(renewed, "heads of release channels were signed anew"),
                    Err(failure) => tracing::warn!(%failure, "heads of release channels were not signed anew"),
                }
                // The keys may have been opened just now.
                due = Some((Instant::now() + EVERY, node.open_desk().map(|desk| desk.epoch()).or(epoch)));
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|stopped| *stopped) => return,
            }
        }
    });
}
