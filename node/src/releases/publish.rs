//! The publisher's side: release, promote, yank, renew.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keyring::{Action, LedgerRecord};
use sealtide_releases::bundle::{
    AppName, BundleHead, CHAIN_MAX, Channel, ChannelHead, HEAD_MS_DEFAULT, Manifest, Signed, Trust, YANKED_MAX,
};
use sealtide_store::Store;
use semver::Version;

use super::app::{App, Entry};
use super::archive::ArchiveSettings;
use super::draft::{Draft, Expected, Packing, write_whole};
use super::file::OpenBundle;
use super::memory::Made;
use super::own::{OwnKeys, OwnLine, Released};
use super::tiers::{ARCHIVE_AFTER_MS, Tier, Tiers};
use super::untrusted;
use crate::api::Progress;
use crate::audit::AuditEvent;
use crate::commands::{rfc3339, store_failure};
use crate::content::store_bytes;
use crate::engine::Engine;
use crate::failure::{Exit, Failure};
use crate::gateway::{Desk, ledger_nodes};
use crate::identity::Identities;
use crate::node::Node;
use crate::real::{RealWorld, now};

/// A head is renewed when it is this old: a day, in ms. Spec: gateway §9.6.
const RENEW_AFTER_MS: u64 = 86_400_000;

/// What is to be published.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) app: AppName,
    pub(crate) dir: PathBuf,
    pub(crate) channel: Channel,
    /// `None`: what the version registry says.
    pub(crate) version: Option<Version>,
    pub(crate) minimum_version: Option<Version>,
    /// From when on it is served no more, ms.
    pub(crate) expiry: Option<u64>,
    /// Ship it although the channel has a newer version: everybody who follows goes back to it.
    pub(crate) allow_downgrade: bool,
}

/// What is to stand in another channel too.
#[derive(Clone, Debug)]
pub(crate) struct Promotion {
    pub(crate) app: AppName,
    /// `None`: the newest of `from`.
    pub(crate) version: Option<Version>,
    pub(crate) from: Channel,
    pub(crate) to: Channel,
    /// As of a [`Publication`].
    pub(crate) allow_downgrade: bool,
}

/// A release that is out.
pub(crate) struct Published {
    pub(crate) app: App,
    pub(crate) manifest: Signed<Manifest>,
    /// The bundle in the hot tier.
    pub(crate) file: PathBuf,
    /// The trust of today, to be handed out.
    pub(crate) trust: Trust,
}

/// Publishes a directory. Durable, and on its way to whoever follows, when this returns.
///
/// # Errors
/// Exit 2 for what cannot be published, 6 without a key that signs releases.
// Spec: GW-72
pub(crate) async fn publish(node: &Node, order: Publication, progress: &Progress) -> Result<Published, Failure> {
    refuse_in_doubt(node)?;
    let _turn = node.publishing().lock().await;
    let desk = desk_of(node).await?;
    let known = App::find(node, &order.app)?;
    let (registered, registry_revision) = desk.app_version();
    let registered = registered.and_then(|version| Version::parse(&version.to_string()).ok());
    let version = order.version.clone().or(registered).ok_or_else(|| {
        Failure::usage("version", "the version registry has no entity global:main to take the version from")
            .hint("name one with --version")
    })?;
    let line = match &known {
        Some(app) => own_line(&desk, app, &order.channel).await?,
        None => OwnLine::default(),
    };
    refuse_known(&order.app, &order.channel, &version, &line.releases, order.allow_downgrade)?;
    refuse_over(order.expiry)?;
    if let Some(minimum) = order.minimum_version.as_ref().filter(|minimum| version.cmp_precedence(minimum).is_lt()) {
        let text = format!("{version} is below {minimum}, and versions below that one would count as yanked");
        return Err(Failure::usage("minimum_version", text));
    }
    let (seq, prev) = (line.next_seq()?, line.prev());
    let made = now().wall_ms;
    let (active, pair) = desk.active_pair();
    let manifest = Manifest {
        registry: known.as_ref().map_or_else(App::unmade_registry, |app| app.registry.clone()),
        name: order.app.clone(),
        version,
        channel: order.channel.clone(),
        seq,
        prev,
        minimum_version: order.minimum_version.clone(),
        key_version: active,
        created_at: made,
        expiry: order.expiry,
        archive_date: Some(made + ARCHIVE_AFTER_MS),
        hash: [0; 32],
        size: 0,
        unpacked_size: 0,
        files: Vec::new(),
        registry_revision,
        signed_at: made,
    };
    let (ledger, proof) = (desk_records(&desk).await?, node.identities().keyring_proof());
    let expected = Expected { manifest: manifest.clone(), pair, ledger, proof };
    let packing = Packing { node: node.clone(), dir: order.dir.clone(), progress: progress.clone(), expected };
    let packed = blocking(move || packing.pack()).await?;
    // What cannot be packed leaves no space behind.
    let app = match known {
        Some(app) => app,
        None => App::begin(node, &order.app).await?,
    };
    let made = now().wall_ms;
    let manifest = desk.sign_release(|key_version, _| Manifest {
        registry: app.registry.clone(),
        key_version,
        created_at: made,
        archive_date: Some(made + ARCHIVE_AFTER_MS),
        hash: packed.packed.hash,
        size: packed.packed.size,
        unpacked_size: packed.packed.unpacked_size,
        files: packed.packed.files,
        signed_at: made,
        ..manifest
    })?;
    let source = Source { payload: Payload::Packed(packed.payload), tar: packed.tar, records: packed.records };
    bring_out(node, &desk, app, &line, manifest, source).await
}

/// Puts a release of one channel into another, with the same payload.
///
/// # Errors
/// Exit 2 when there is no such release, or it stands there already.
pub(crate) async fn promote(node: &Node, order: Promotion) -> Result<Published, Failure> {
    refuse_in_doubt(node)?;
    let _turn = node.publishing().lock().await;
    let desk = desk_of(node).await?;
    let app = known_app(node, &order.app)?;
    let from = own_line(&desk, &app, &order.from).await?;
    // Whether one was taken back is not known of a channel that is not whole.
    from.is_whole(&app, &order.from)?;
    let yanked = from.yanked();
    let is_yanked = |release: &Released| yanked.contains(&release.seq);
    let wanted = |release: &&Released| match &order.version {
        Some(version) => *version == release.version,
        None => !is_yanked(release),
    };
    let source = from.releases.iter().rev().find(wanted).ok_or_else(|| no_release(&order.app, &order.from))?;
    if is_yanked(source) {
        let text = format!("{} {} was taken back in channel {}", order.app, source.version, order.from);
        return Err(Failure::usage("yanked", text).hint("publish what is to be shipped as a new version"));
    }
    let (source, entry) = whole(&app, source).await?;
    refuse_over(source.content().expiry)?;
    let line = own_line(&desk, &app, &order.to).await?;
    let (seq, prev) = (line.next_seq()?, line.prev());
    let content = source.content();
    refuse_known(&order.app, &order.to, &content.version, &line.releases, order.allow_downgrade)?;
    let (tiers, archive) = (Tiers::of(node.home()), ArchiveSettings::of(node.config()));
    let stored = tiers.find(content)?;
    let opened = blocking(move || OpenBundle::open(&tiers.file(&stored, &archive)?)).await?;
    let payload = Payload::Bundle(Box::new(opened));
    let made = now().wall_ms;
    let manifest = desk.sign_release(|key_version, _| Manifest {
        channel: order.to.clone(),
        seq,
        prev,
        key_version,
        created_at: made,
        archive_date: Some(made + ARCHIVE_AFTER_MS),
        signed_at: made,
        ..content.clone()
    })?;
    let source = Source { payload, tar: entry.tar.clone(), records: Vec::new() };
    bring_out(node, &desk, app, &line, manifest, source).await
}

/// Refuses a release that nobody could install.
fn refuse_over(expiry: Option<u64>) -> Result<(), Failure> {
    match expiry {
        Some(end) if end <= now().wall_ms => {
            let text = format!("it would be over since {}, and nobody could install it", rfc3339(end));
            Err(Failure::usage("expired", text))
        }
        _ => Ok(()),
    }
}

/// Takes a release back: nobody should install it.
///
/// # Errors
/// Exit 2 when there is no such release.
pub(crate) async fn yank(node: &Node, name: &AppName, channel: &Channel, version: &Version) -> Result<u64, Failure> {
    refuse_in_doubt(node)?;
    let _turn = node.publishing().lock().await;
    let desk = desk_of(node).await?;
    let app = known_app(node, name)?;
    let line = own_line(&desk, &app, channel).await?;
    line.is_whole(&app, channel)?;
    let of_version = |release: &&Released| release.version == *version;
    let seq = line.releases.iter().find(of_version).ok_or_else(|| no_release(name, channel))?.seq;
    let mut yanked = line.yanked();
    if yanked.contains(&seq) {
        return Ok(seq);
    }
    if yanked.len() >= YANKED_MAX {
        return Err(Failure::usage("yanked", format!("{YANKED_MAX} releases of {channel} are yanked; no more fit")));
    }
    yanked.push(seq);
    yanked.sort_unstable();
    let newest = line.releases.last().ok_or_else(|| no_release(name, channel))?;
    let (manifest, entry) = whole(&app, newest).await?;
    let head = sign_head(&desk, &manifest, &line, yanked)?;
    let mut records = app.next_keys(&desk_records(&desk).await?, &node.identities().keyring_proof())?;
    let frame = app.next_entry(line.tip.as_ref(), &head, entry.bin());
    let made = made(&head, &frame);
    records.push(frame);
    node.engine().commit_local(app.space, records).await.map_err(store_failure)?;
    remember(&app, &[made]);
    node.audit()
        .note("release_yanked", &[("app", name.as_str()), ("channel", channel.as_str()), ("seq", &seq.to_string())]);
    Ok(seq)
}

/// Signs the heads of the own channels anew where they are a day old, or the keys have changed since. Returns how many.
///
/// # Errors
/// As the store reports.
pub(crate) async fn renew(node: &Node) -> Result<usize, Failure> {
    if own_apps(node.store(), node.id()).is_empty() {
        return Ok(0);
    }
    let _turn = node.publishing().lock().await;
    let desk = desk_of(node).await?;
    renew_heads(node.engine(), node.identities(), &desk).await
}

fn own_apps(store: &Store, id: NodeId) -> Vec<App> {
    let own = ledger_nodes(store, id);
    App::all(store).into_iter().filter(|app| app.is_by(&own)).collect()
}

/// As [`renew`], for a process that holds the home and publishes nothing else meanwhile.
///
/// # Errors
/// As the store reports.
pub(crate) async fn renew_heads(
    engine: &Engine<RealWorld>,
    identities: &Identities,
    desk: &Arc<Desk>,
) -> Result<usize, Failure> {
    let apps = own_apps(engine.store(), engine.id());
    // In doubt whether this home is the only one heads wait, as releases do.
    if apps.is_empty() || identities.doubt().is_some() {
        return Ok(0);
    }
    let (mut renewed, mut failed) = (0, None);
    // What is wrong with one app or channel is no reason to let the others' heads end.
    for app in apps {
        let (desk, looked, proof) = (desk.clone(), app.clone(), identities.keyring_proof());
        let done = match blocking(move || renewals(&desk, &looked, &proof)).await {
            Ok(mut due) => {
                failed = failed.or(due.failed.take());
                commit_renewals(engine, &app, due).await
            }
            Err(failure) => Err(failure),
        };
        match done {
            Ok(heads) => renewed += heads,
            Err(failure) => {
                tracing::warn!(app = %app.name, %failure, "the heads of an app were not signed anew");
                failed.get_or_insert(failure);
            }
        }
    }
    failed.map_or(Ok(renewed), Err)
}

/// What brings an app up to date.
#[derive(Default)]
pub(super) struct Renewals {
    /// Frames of the copy of the ledger, and of the heads.
    pub(super) records: Vec<Verified>,
    pub(super) heads: usize,
    /// What is to be remembered once they are durable.
    made: Vec<(Channel, Made)>,
    /// Why the first channel was left out that was.
    pub(super) failed: Option<Failure>,
}

async fn commit_renewals(engine: &Engine<RealWorld>, app: &App, due: Renewals) -> Result<usize, Failure> {
    if !due.records.is_empty() {
        engine.commit_local(app.space, due.records).await.map_err(store_failure)?;
    }
    remember(app, &due.made);
    Ok(due.heads)
}

/// The frames that bring the copy of the ledger and the heads of an app up to date; none where this node released nothing. A channel of
/// which something is wrong is left out.
pub(super) fn renewals(desk: &Desk, app: &App, proof: &[Verified]) -> Result<Renewals, Failure> {
    let ledger = desk.ledger_records()?;
    let lines = OwnLine::all(app, &OwnKeys::of(&ledger))?;
    if lines.is_empty() {
        return Ok(Renewals::default());
    }
    let epoch = ledger.last().map_or(0, |record| record.epoch);
    let mut due = Renewals { records: app.next_keys(&ledger, proof)?, ..Renewals::default() };
    for (channel, line) in lines {
        match line.and_then(|line| Ok((renewal(desk, app, &channel, &line, epoch)?, line.unremembered))) {
            Ok((Some((frame, made)), _)) => {
                due.records.push(frame);
                due.made.push(made);
                due.heads += 1;
            }
            Ok((None, unremembered)) => due.made.extend(unremembered.map(|made| (channel, made))),
            Err(failure) => {
                tracing::warn!(app = %app.name, %channel, %failure, "the head of a channel was not signed anew");
                due.failed.get_or_insert(failure);
            }
        }
    }
    Ok(due)
}

/// A frame that renews the head of a channel, and what is to be remembered of it.
type Renewed = (Verified, (Channel, Made));

/// What renews the head of a channel, where that is due.
fn renewal(desk: &Desk, app: &App, channel: &Channel, line: &OwnLine, epoch: u64) -> Result<Option<Renewed>, Failure> {
    line.is_whole(app, channel)?;
    let Some(newest) = line.releases.last() else { return Ok(None) };
    let is_fresh = |head: &ChannelHead| {
        head.manifest_sha256 == newest.hash
            && head.epoch == epoch
            && head.yanked == line.yanked()
            && now().wall_ms < head.issued_at.saturating_add(RENEW_AFTER_MS)
    };
    if line.head_of(newest.seq).is_some_and(is_fresh) {
        return Ok(None);
    }
    let (manifest, entry) = newest.whole(app)?;
    let head = sign_head(desk, &manifest, line, line.yanked())?;
    let frame = app.next_entry(line.tip.as_ref(), &head, entry.bin());
    let made = made(&head, &frame);
    Ok(Some((frame, made)))
}

/// Remembers what is in a space now. Where that fails the next look finds it there.
fn remember(app: &App, made: &[(Channel, Made)]) {
    if let Err(failure) = app.memory().keep_made(made) {
        tracing::warn!(app = %app.name, %failure, "what was released last was not written down");
    }
}

/// What is remembered of a head that was put into a space.
fn made(head: &Signed<ChannelHead>, frame: &Verified) -> (Channel, Made) {
    (head.content().channel.clone(), Made { seq: head.content().seq, frame: frame.sid() })
}

/// What a release is made of.
pub(super) struct Source {
    pub(super) payload: Payload,
    /// The plain tar.
    pub(super) tar: Address,
    /// The records of the tar, where it is new.
    pub(super) records: Vec<Verified>,
}

pub(super) enum Payload {
    /// One that was made just now.
    Packed(Draft),
    /// The payload of another bundle.
    Bundle(Box<OpenBundle>),
}

/// The bundle goes to the hot tier, then the channel names it: durable before announced.
pub(super) async fn bring_out(
    node: &Node,
    desk: &Arc<Desk>,
    app: App,
    line: &OwnLine,
    manifest: Signed<Manifest>,
    source: Source,
) -> Result<Published, Failure> {
    let head = sign_head(desk, &manifest, line, line.yanked())?;
    let ledger = desk_records(desk).await?;
    let owner = node.identities().owner().map(|owner| owner.to_string());
    let proof = node.identities().keyring_proof();
    let trust = trust_of(&app.registry, &ledger, owner.as_deref(), &proof)?;
    let mut records = app.next_keys(&ledger, &proof)?;
    let (chain, proof) = chain_of(&ledger, proof);
    let bundle_head = BundleHead { manifest: manifest.clone(), chain, proof };
    let too_long = |error: sealtide_releases::bundle::NotABundle| Failure::usage("too_many_files", error.to_string());
    let bytes = bundle_head.encode().map_err(too_long)?;
    let (store, tiers) = (node.store().clone(), Tiers::of(node.home()));
    let Source { payload, tar, records: tar_records } = source;
    let signed = manifest.clone();
    let (file, head_records) = blocking(move || {
        let head_records = store_bytes(&store, &bytes)?;
        let file = match payload {
            Payload::Packed(draft) => tiers.put(&signed, |path| draft.put(&bytes, path))?,
            Payload::Bundle(bundle) => {
                let mut payload = bundle.payload()?;
                tiers.put(&signed, |path| write_whole(path, &bytes, &mut payload))?
            }
        };
        Ok((file, head_records))
    })
    .await?;
    let head_address = head_records.last().map(|record| record.address().clone());
    let head_address = head_address.ok_or_else(|| Failure::failed("release", "the bundle head was not stored"))?;
    records.extend(tar_records);
    records.extend(head_records);
    let frame = app.next_entry(line.tip.as_ref(), &head, [head_address, tar]);
    let made = made(&head, &frame);
    records.push(frame);
    crate::failpoint::hit("release_stored");
    node.engine().commit_local(app.space, records).await.map_err(store_failure)?;
    remember(&app, &[made]);
    crate::failpoint::hit("release_announced");
    let content = manifest.content();
    node.audit().note(
        "release_published",
        &[
            ("app", content.name.as_str()),
            ("version", &content.version.to_string()),
            ("channel", content.channel.as_str()),
            ("seq", &content.seq.to_string()),
            ("key_version", &content.key_version.to_string()),
        ],
    );
    let size = fs::metadata(&file).map_or(0, |found| found.len());
    let event = AuditEvent::normal("bundle:stored")
        .member("name", &content.name)
        .member("version", &content.version)
        .member("keyVersion", content.key_version)
        .member("storageClass", Tier::Hot.class())
        .member("bytes", size);
    node.audit().event(&event);
    Ok(Published { app, manifest, file, trust })
}

/// The trust that is handed out: that of the newest record of the ledger, with what was learned on the way there, so that whoever begins
/// with it verifies the releases that earlier keys signed as well.
fn trust_of(
    registry: &str,
    ledger: &[LedgerRecord],
    owner: Option<&str>,
    proof: &[Verified],
) -> Result<Trust, Failure> {
    let (Some(oldest), Some(newest)) = (ledger.first(), ledger.last()) else {
        return Err(Failure::failed("key_ledger", "the key ledger is empty"));
    };
    let of = |record| Trust::of_publisher(registry, record, owner).map_err(|error| untrusted("the key ledger", &error));
    let alone = of(newest)?;
    if ledger.iter().all(|record| record.active() == newest.active()) {
        return Ok(alone);
    }
    let mut learned = of(oldest)?;
    let is_followed = learned.follow_proven(ledger, proof).is_ok() && learned.fork().is_none();
    let is_same = learned.epoch() == alone.epoch() && learned.active() == alone.active();
    Ok(if is_followed && is_same { learned } else { alone })
}

/// The newest records of the ledger, as a bundle holds them, and what proves the recoveries among them.
pub(super) fn chain_of(ledger: &[LedgerRecord], proof: Vec<Verified>) -> (Vec<LedgerRecord>, Vec<Verified>) {
    let newest = |room: usize| &ledger[ledger.len().saturating_sub(room)..];
    let recovers = newest(CHAIN_MAX).iter().any(|record| record.action == Action::Recover);
    let proof = if recovers { proof } else { Vec::new() };
    (newest(CHAIN_MAX.saturating_sub(proof.len())).to_vec(), proof)
}

/// The head that names a manifest as the newest of its channel, from now on for seven days. It is later than the one before, whatever
/// the clock says: followers take the later of two of a release. One that is dated in the future they do not take.
fn sign_head(
    desk: &Desk,
    manifest: &Signed<Manifest>,
    line: &OwnLine,
    yanked: Vec<u64>,
) -> Result<Signed<ChannelHead>, Failure> {
    let (content, wall_ms) = (manifest.content(), now().wall_ms);
    let issued_at = line.head_of(content.seq).map_or(wall_ms, |before| wall_ms.max(before.issued_at + 1));
    desk.sign_release(|_, epoch| ChannelHead {
        registry: content.registry.clone(),
        channel: content.channel.clone(),
        seq: content.seq,
        manifest_sha256: manifest.hash(),
        version: content.version.clone(),
        epoch,
        issued_at,
        not_after: issued_at.max(wall_ms + HEAD_MS_DEFAULT),
        yanked,
    })
}

fn known_app(node: &Node, name: &AppName) -> Result<App, Failure> {
    let unknown = || Failure::usage("no_app", format!("no app {name} here")).hint("`sealtide release list` shows them");
    App::find(node, name)?.ok_or_else(unknown)
}

fn no_release(app: &AppName, channel: &Channel) -> Failure {
    Failure::usage("no_release", format!("channel {channel} of {app} has no such release"))
        .hint(format!("`sealtide release show {app}` lists them"))
}

/// A version is out once in a channel, and after lower ones only, unless somebody means to go back.
fn refuse_known(
    app: &AppName,
    channel: &Channel,
    version: &Version,
    earlier: &[Released],
    allow_downgrade: bool,
) -> Result<(), Failure> {
    if earlier.iter().any(|release| release.version == *version) {
        return Err(Failure::usage("exists", format!("{app} {version} is out in channel {channel} already"))
            .hint("a release is never replaced: `sealtide release bump`, or name another --version"));
    }
    match earlier.last().map(|newest| &newest.version) {
        Some(newest) if newest > version && !allow_downgrade => {
            let text = format!("{app} {version} is older than {newest}, the newest of channel {channel}");
            Err(Failure::usage("older", text)
                .hint("name a --version; --allow-downgrade ships it, and everybody who follows goes back to it"))
        }
        _ => Ok(()),
    }
}

/// A home that may be an old or a copied one makes no release: the other one may have made the next of the channel already, and
/// followers take neither of two. Spec: releases §5
pub(super) fn refuse_in_doubt(node: &Node) -> Result<(), Failure> {
    let Some(doubt) = node.identities().doubt() else { return Ok(()) };
    let text = format!("nothing is published here: {doubt}");
    Err(Failure::new(Exit::Refused, doubt.code(), text)
        .hint("let the node meet a peer first, which tells; or stop it and say --offline-sign with this command, on your word"))
}

pub(super) async fn desk_of(node: &Node) -> Result<Arc<Desk>, Failure> {
    let node = node.clone();
    blocking(move || node.desk(true)).await
}

/// What this node released in a channel. All that stands in the space is looked at, which may take a while.
pub(super) async fn own_line(desk: &Arc<Desk>, app: &App, channel: &Channel) -> Result<OwnLine, Failure> {
    let (desk, app, channel) = (desk.clone(), app.clone(), channel.clone());
    blocking(move || OwnLine::of(&app, &channel, &OwnKeys::of(&desk.ledger_records()?))).await
}

/// The manifest of a release, and the first entry that names it.
async fn whole(app: &App, release: &Released) -> Result<(Signed<Manifest>, Entry), Failure> {
    let (app, release) = (app.clone(), release.clone());
    blocking(move || release.whole(&app)).await
}

async fn desk_records(desk: &Arc<Desk>) -> Result<Vec<LedgerRecord>, Failure> {
    let desk = desk.clone();
    blocking(move || desk.ledger_records()).await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::failed("release", error.to_string()))?
}
