//! What a publisher's node does by itself: heads stay fresh, old bundles go to the archive. Spec: gateway §9.3, §9.4, §9.6.

use std::sync::Arc;
use std::time::Duration;

use sealtide_releases::bundle::AppName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::archive::{Archive, ArchiveSettings};
use super::publish::renew_heads;
use super::renew;
use super::tiers::{ARCHIVE_AFTER_MS, Archived, Due, Tier, Tiers};
use crate::audit::{Audit, AuditEvent};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::gateway::Desk;
use crate::home::Home;
use crate::identity::Identities;
use crate::node::Node;
use crate::real::{RealWorld, now};

/// How often the keys are looked at: after a change of keys, heads of the old pair are void.
const LOOK: Duration = Duration::from_secs(1);
/// How often the age of the heads is looked at.
const EVERY: Duration = Duration::from_secs(3600);

/// Signs the heads of the own channels anew, a day after they were signed and whenever the keys change.
pub(crate) fn keep_fresh(node: &Node) {
    let stop = node.stopping();
    let (renewed, looked, opened) = (node.clone(), node.clone(), node.clone());
    let renew = move || {
        let node = renewed.clone();
        async move { renew(&node).await }
    };
    let settings = ArchiveSettings::of(node.config());
    let archive = move || archive_what_is_due(looked.home(), looked.audit(), looked.open_desk().as_deref(), &settings);
    tokio::spawn(keep(move || opened.open_desk(), renew, archive, stop));
}

/// As [`keep_fresh`], for a gateway that runs alone on its home.
pub(crate) fn keep_fresh_alone(
    home: Home,
    engine: Engine<RealWorld>,
    identities: Identities,
    desk: Arc<Desk>,
    stop: watch::Receiver<bool>,
) {
    let (renewing, looking) = (desk.clone(), desk.clone());
    let renew = move || {
        let (engine, identities, desk) = (engine.clone(), identities.clone(), renewing.clone());
        async move { renew_heads(&engine, &identities, &desk).await }
    };
    let archive = move || archive_what_is_due(&home, looking.audit(), Some(&looking), looking.archive_settings());
    tokio::spawn(keep(move || Some(desk.clone()), renew, archive, stop));
}

async fn keep<R>(
    desk: impl Fn() -> Option<Arc<Desk>>,
    renew: impl Fn() -> R,
    archive: impl Fn() -> Result<(), Failure> + Clone + Send + 'static,
    mut stop: watch::Receiver<bool>,
) where
    R: Future<Output = Result<usize, Failure>>,
{
    let mut due: Option<(Instant, Option<u64>)> = None;
    loop {
        let epoch = desk().map(|desk| desk.epoch());
        if due.is_none_or(|(at, seen)| Instant::now() >= at || (epoch.is_some() && seen != epoch)) {
            match renew().await {
                Ok(0) => {}
                Ok(renewed) => tracing::info!(renewed, "heads of release channels were signed anew"),
                Err(failure) => tracing::warn!(%failure, "heads of release channels were not signed anew"),
            }
            if let Ok(Err(failure)) = tokio::task::spawn_blocking(archive.clone()).await {
                let hint = failure.hint.as_deref().unwrap_or_default();
                tracing::warn!(%failure, hint, "bundles were not archived");
            }
            // The keys may have been opened just now.
            due = Some((Instant::now() + EVERY, desk().map(|desk| desk.epoch()).or(epoch)));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stop.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// The bundles of versions that were replaced, and those that are old.
fn archive_what_is_due(
    home: &Home,
    audit: &Audit,
    desk: Option<&Desk>,
    settings: &ArchiveSettings,
) -> Result<(), Failure> {
    let replaced = desk.map(Desk::replaced).unwrap_or_default();
    let due = replaced.into_iter().map(Due::Replaced).chain([Due::Aged(ARCHIVE_AFTER_MS)]);
    // What fails of one version keeps no other back.
    let done: Vec<_> = due.map(|due| archive(home, audit, desk, settings, due, None)).collect();
    done.into_iter().try_for_each(|done| done.map(drop))
}

/// Moves what is due to the archive, and says so in the audit. Waits for disk and network.
///
/// # Errors
/// When the hot tier cannot be listed, the archive not be opened, or every bundle that is due failed: why the first did.
pub(crate) fn archive(
    home: &Home,
    audit: &Audit,
    desk: Option<&Desk>,
    settings: &ArchiveSettings,
    due: Due,
    app: Option<&AppName>,
) -> Result<Archived, Failure> {
    let archive = Archive::open(settings)?;
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
        audit.event(&event);
    };
    let done = Tiers::of(home).archive(&archive, due, app, now().wall_ms, &mut told)?;
    if let Some(desk) = desk {
        desk.note_moves(done.moved, done.failed);
    }
    if done != Archived::default() {
        let event = AuditEvent::normal("bundle:archive:done")
            .member("moved", done.moved)
            .member("failed", done.failed)
            .member("bytes", done.bytes);
        audit.event(&event);
    }
    if let Some(failure) = first.filter(|_| done.moved == 0) {
        return Err(failure);
    }
    Ok(done)
}
