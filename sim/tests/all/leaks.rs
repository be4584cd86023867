//! Sessions that are cut twice while sagas run and commit leave no task and no session behind.

use std::time::Duration;

use sealtide_node::world::{PeerSession, World};
use sealtide_sim::author::Author;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::seeds::{in_virtual_time, scale};
use sealtide_sim::world::{Faults, members};
use tokio::runtime::Handle;
use tokio::time::sleep;

/// A commit at the receiver takes up to this long.
const COMMIT_MS: u64 = 40;
/// Longer than anything of a session that is over may go on.
const AFTERWARDS: Duration = Duration::from_secs(60);

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// The sockets of this are in `io/link/tests/leaks.rs`.
// Proves: SY-56
#[test]
fn sessions_that_are_cut_while_they_commit_leak_nothing() {
    let sessions = 1000 * scale();
    in_virtual_time(async move {
        let cluster = Cluster::new(2, 56, false);
        let space = cluster.space(1);
        let slow = Faults { delay_ms: COMMIT_MS, crash_in: None };
        cluster.nodes[1].set_faults(slow, 0);
        let (ours, theirs) = (cluster.engine(0), cluster.engine(1));
        let mut author = Author::new(Dice::new(1), cluster.nodes[0].id());
        let mut dice = Dice::new(2);
        let count = || members(theirs.store(), &space).len();
        let (mut before, mut within_a_commit) = (0, 0);
        for number in 0..sessions + 20 {
            if number == 20 {
                sleep(AFTERWARDS).await;
                before = tasks();
            }
            let record = author.document(sealtide_ibgib::Stamp { ms: ours.world().now().wall_ms });
            ours.commit_local(space, vec![record]).await.unwrap_or_else(|error| panic!("a local commit: {error}"));
            let [near, far] = cluster.connect(0, 1).unwrap_or_else(|| panic!("both nodes are up"));
            sleep(Duration::from_millis(dice.below(3 * COMMIT_MS))).await;
            let had = count();
            near.cut();
            far.cut();
            near.over().await;
            far.over().await;
            near.close();
            sleep(Duration::from_millis(2 * COMMIT_MS)).await;
            within_a_commit += u64::from(count() > had);
        }
        assert!(within_a_commit > sessions / 20, "{within_a_commit} of {sessions} cuts fell into a commit");
        sleep(AFTERWARDS).await;
        assert!(tasks() <= before, "{} tasks, {before} before {sessions} sessions", tasks());
        assert!(ours.peers().is_empty() && theirs.peers().is_empty());
        assert!(cluster.nodes.iter().all(|node| node.sessions().is_empty()));

        // And they still work: the next session brings them into step.
        let _session = cluster.connect(0, 1);
        sleep(AFTERWARDS).await;
        cluster.check_agreement(&space).unwrap_or_else(|what| panic!("{what}"));
        // What was committed counts as the space, and not as staged too.
        assert_eq!([ours, theirs].map(|engine| engine.staged_in(&space).len()), [0, 0]);
        cluster.verify().unwrap_or_else(|what| panic!("{what}"));
    });
}
