//! `gc`: gives the room of chunks that nobody needs, and of records of removed spaces, back to the disk. Spec: SY-67; releases §6

use sealtide_store::{Collected, Collecting, StoreError};
use serde_json::{Value, json};

use crate::commands::{blocking, store_failure};
use crate::failure::Failure;
use crate::known::{Absence, Absences};
use crate::node::Node;
use crate::releases::retired;

/// What went.
#[derive(Default)]
pub(crate) struct Freed {
    pub(crate) collected: Collected,
    /// Releases whose contents are not here any more: app, channel, version, chunks, bytes.
    pub(crate) releases: Vec<Value>,
}

/// Frees what is unused, or tells what would be freed.
pub(crate) async fn gc(node: &Node, dry_run: bool) -> Result<Value, Failure> {
    blocking("gc", node, move |node| {
        let freed = if dry_run {
            would_free(node)
        } else {
            let collecting = node.store().try_collecting().unwrap_or_else(|| {
                tracing::info!("gc waits for a backup or a check of the store");
                node.store().begin_collecting()
            });
            free(node, &collecting, OldStaged::Dropped)?
        };
        if !dry_run {
            let Collected { chunks, bytes, records, .. } = freed.collected;
            let members = [("chunks", chunks), ("bytes", bytes), ("records", records)];
            let members = members.map(|(name, count)| (name, count.to_string()));
            node.audit().note("gc", &members.each_ref().map(|(name, count)| (*name, count.as_str())));
        }
        Ok(json!({
            "schema": "sealtide/gc/1", "dry_run": dry_run, "chunks": freed.collected.chunks, "bytes": freed.collected.bytes,
            "records": freed.collected.records, "record_bytes": freed.collected.record_bytes, "releases": freed.releases,
        }))
    })
    .await
}

fn would_free(node: &Node) -> Freed {
    let retired = retired(node);
    let free = node.store().would_free(&retired.given_up);
    let bytes = free.iter().map(|(_, length)| u64::from(*length)).sum();
    let collected = Collected { chunks: free.len() as u64, bytes, ..node.store().would_erase() };
    Freed { collected, releases: retired.rows(&free) }
}

/// What becomes of what was staged too long ago by sagas that are not at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldStaged {
    Dropped,
    /// Right after a start nothing is at work yet, and the clock may not have been set.
    Kept,
}

/// Drops what was staged too long ago, frees what nobody needs, and tells the audit which releases went. Waits for the disk, and for
/// installs; nobody waits for it longer than that takes, so who calls waited for backups before.
///
/// # Errors
/// As the store reports; a part may have been freed then.
pub(crate) fn free(node: &Node, collecting: &Collecting<'_>, staged: OldStaged) -> Result<Freed, Failure> {
    let _alone = node.keep_contents_alone();
    let store = node.store();
    if staged == OldStaged::Dropped {
        store.expire(|saga| node.engine().is_at_work(saga)).map_err(failure)?;
    }
    let retired = retired(node);
    // Before it goes: nobody must take what was given up for damage.
    for (space, records) in &retired.records {
        let give_up = |absences: &mut Absences| {
            for sid in records {
                let before = absences.get(sid).copied();
                let uncounted = matches!(before, Some(Absence::NeverCame | Absence::CameLater));
                absences.insert(*sid, if uncounted { Absence::NeverCame } else { Absence::GivenUp });
            }
        };
        node.known().change_absences(space, give_up).map_err(store_failure)?;
    }
    crate::failpoint::hit("gc_planned");
    let mut gone = store.would_free(&retired.given_up);
    let collected = store.collect_in(collecting, &retired.given_up).map_err(failure)?;
    // Little that lies in the open pack waits.
    gone.retain(|(chunk, _)| !store.holds_chunk(chunk));
    let releases = retired.rows(&gone);
    for release in &releases {
        let word = |name: &str| release[name].as_str().map_or_else(|| release[name].to_string(), str::to_owned);
        let members = ["app", "channel", "version", "seq", "bytes"].map(|name| (name, word(name)));
        let members: Vec<(&str, &str)> = members.iter().map(|(name, text)| (*name, text.as_str())).collect();
        node.audit().note("release_given_up", &members);
    }
    Ok(Freed { collected, releases })
}

fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::NoHoles => Failure::failed("no_holes", error.to_string())
            .hint("move the home to a file system with sparse files, such as ext4, xfs, btrfs or tmpfs"),
        error => store_failure(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// How long something that must wait is watched: it does, or the test fails.
    const WATCHED: Duration = Duration::from_millis(300);

    /// Whoever unpacks or copies has looked what is there: it stays until the end of that.
    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_freed_while_contents_are_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        let (in_use, (tell, told)) = (node.use_contents(), channel());
        std::thread::scope(|scope| {
            let freed = scope.spawn(|| {
                let freed = free(&node, &node.store().begin_collecting(), OldStaged::Dropped);
                let _ = tell.send(());
                freed.map(drop).map_err(|failure| failure.code)
            });
            assert!(told.recv_timeout(WATCHED).is_err(), "it did not wait");
            drop(in_use);
            assert_eq!(freed.join().unwrap(), Ok(()));
        });
    }
}
