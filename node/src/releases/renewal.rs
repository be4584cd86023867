//! What a publisher's node does by itself: heads stay fresh, old bundles go to the archive. Spec: gateway §9.3, §9.4, §9.6.

use std::time::Duration;

use tokio::time::Instant;

use sealtide_releases::bundle::AppName;

use super::archive::{Archive, ArchiveSettings};
use super::renew;
use super::tiers::{ARCHIVE_AFTER_MS, Archived, Due, Tier, Tiers};
use crate::audit::AuditEvent;
use crate::failure::Failure;
use crate::node::Node;
use crate::real::now;

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
                let looked = node.clone();
                let archived = tokio::task::spawn_blocking(move || archive_what_is_due(&looked)).await;
                if let Ok(Err(failure)) = archived {
                    let hint = failure.hint.as_deref().unwrap_or_default();
                    tracing::warn!(%failure, hint, "bundles were not archived");
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

/// The bundles of versions that were replaced, and those that are old.
fn archive_what_is_due(node: &Node) -> Result<(), Failure> {
    let replaced = node.open_desk().map(|desk| desk.replaced()).unwrap_or_default();
    let due = replaced.into_iter().map(Due::Replaced).chain([Due::Aged(ARCHIVE_AFTER_MS)]);
    // What fails of one version keeps no other back.
    let done: Vec<Result<Archived, Failure>> = due.map(|due| archive(node, due, None)).collect();
    done.into_iter().try_for_each(|done| done.map(drop))
}

/// Moves what is due to the archive, and says so in the audit. Waits for disk and network.
///
/// # Errors
/// When the hot tier cannot be listed, the archive not be opened, or every bundle that is due failed: why the first did.
pub(crate) fn archive(node: &Node, due: Due, app: Option<&AppName>) -> Result<Archived, Failure> {
    let settings = ArchiveSettings::of(node.config());
    let archive = Archive::open(&settings)?;
    let mut first = None;
    let mut told = |stored: &super::Stored, moved: Result<(), Failure>| {
        if let Err(failure) = moved {
            first.get_or_insert(failure);
            return;
        }
        let manifest = stored.manifest.content();
        let event = AuditEvent::normal("bundle:archived")
            .member("name", &manifest.name)
            .member("version", &manifest.version)
            .member("channel", &manifest.channel)
            .member("keyVersion", manifest.key_version)
            .member("storageClass", Tier::Cold.class())
            .member("bytes", manifest.size);
        node.audit().event(&event);
    };
    let done = Tiers::of(node.home()).archive(&archive, due, app, now().wall_ms, &mut told)?;
    if let Some(desk) = node.open_desk() {
        desk.note_moves(done.moved, done.failed);
    }
    if done != Archived::default() {
        let event = AuditEvent::normal("bundle:archive:done")
            .member("moved", done.moved)
            .member("failed", done.failed)
            .member("bytes", done.bytes);
        node.audit().event(&event);
    }
    if let Some(failure) = first.filter(|_| done.moved == 0) {
        return Err(failure);
    }
    Ok(done)
}
