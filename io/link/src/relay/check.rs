//! Whether a login at a relay is possible, for whoever looks for what is wrong.

use std::sync::Arc;
use std::time::Duration;

use sealtide_identity::{InviteSecret, LinkAddress, RelayHint};
use tokio::time::{Instant, timeout};

use super::login::log_in;
use crate::node::Node;

/// A login that came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayCheck {
    /// From the first byte to the end of the handshake; zero for one that stood already.
    pub took: Duration,
    /// Where the relay sees this node.
    pub observed: Option<LinkAddress>,
}

/// Looks at the login that is kept at `relay`, else logs in once.
pub(crate) async fn check(
    node: &Arc<Node>,
    relay: &RelayHint,
    bind0: bool,
    token: Option<InviteSecret>,
) -> Result<RelayCheck, String> {
    let mut kept = node.relays.states();
    // One by another URL, which a peer may have named, says nothing about this one unless it is logged in.
    kept.retain(|state| state.relay == *relay || (state.up && state.relay.relay == relay.relay));
    if let Some(kept) = kept.into_iter().max_by_key(|state| state.up) {
        if kept.up {
            return Ok(RelayCheck { took: Duration::ZERO, observed: kept.observed });
        }
        return Err(kept.why_not.unwrap_or_else(|| "the login is under way".to_owned()));
    }
    let began = Instant::now();
    let login = timeout(node.limits.handshake_deadline, log_in(node, relay, bind0, token)).await;
    let (mut path, login, _) = login.map_err(|_| "it did not answer in time")?.map_err(|error| error.to_string())?;
    let took = began.elapsed().max(Duration::from_nanos(1));
    path.hang_up().await;
    Ok(RelayCheck { took, observed: login.observed })
}
