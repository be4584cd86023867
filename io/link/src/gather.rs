//! Looks where this node is, again and again: a network that changed is told to the peers and leaves no path on an
//! address that is gone. Spec: link C.10, C.11.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::address;
use crate::node::Node;

/// Between two looks. One costs some 50 µs: less than a hundredth of a percent of a core.
const LOOK: Duration = Duration::from_secs(2);

/// Runs beside the node until it stops.
pub(crate) async fn gather(node: Arc<Node>) {
    tokio::select! {
        () = node.stopped() => {}
        () = look(&node) => {}
    }
}

async fn look(node: &Arc<Node>) {
    let mut present = address::of_interfaces();
    let mut told = node.announce();
    loop {
        sleep(LOOK).await;
        let found = address::of_interfaces();
        if found != present {
            tracing::info!("link: the addresses of this machine have changed");
            moved(node, &found);
            present = found;
        }
        let announced = node.announce();
        if announced != told {
            node.tell_addresses();
            told = announced;
        }
    }
}

/// Paths from an address that is gone end at once; the others are asked whether they still live, and every need is
/// looked at anew.
// Spec: LK-57
fn moved(node: &Node, present: &BTreeSet<IpAddr>) {
    let now = node.clock.now();
    for session in node.registry.sessions() {
        session.shared.core().network_changed(now, present);
        session.shared.pump.wake();
        session.shared.keeper.notify_one();
    }
}
