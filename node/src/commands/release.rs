//! `release publish|promote|list|show|install|verify|yank`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use sealtide_folder::release::ReleaseProgress;
use sealtide_identity::SpaceId;
use sealtide_identity::keyring::{KeySecret, KeyVersion, VersionKeys, parse_time};
use sealtide_releases::bundle::{AppName, Channel, Content, Manifest, Signed, Trust, Wanted};
use sealtide_releases::{LEGACY_BYTES_MAX, LegacyManifest, LegacyRefused};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::api::Progress;
use crate::beside::Beside;
use crate::commands::registry::{self, RegistryRequest};
use crate::commands::{blocking, rfc3339};
use crate::control;
use crate::engine::Event;
use crate::failpoint;
use crate::failure::{Exit, Failure};
use crate::gateway::ledger_nodes;
use crate::node::Node;
use crate::real::now;
use crate::releases::{
    self, App, ArchiveSettings, Due, Install, InstallOrder, Memory, OpenBundle, Promotion, Publication, Published,
    Tier, Tiers, installs,
};

/// What a piece of work is called that ends badly.
const WHAT: &str = "release";

/// What a command asks about releases.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "release", rename_all = "snake_case")]
pub enum ReleaseRequest {
    /// `release publish APP DIR`
    Publish {
        /// The app.
        app: String,
        /// Absolute path of what is shipped.
        dir: PathBuf,
        /// The channel.
        channel: String,
        /// `None`: what the version registry says.
        version: Option<String>,
        /// Versions below it count as yanked.
        minimum_version: Option<String>,
        /// RFC 3339: from then on it is served no more.
        expires: Option<String>,
        /// Ship it although the channel has a newer version.
        allow_downgrade: bool,
        /// Absolute path of a copy of the bundle.
        out: Option<PathBuf>,
        /// Absolute path of the trust file.
        trust_out: Option<PathBuf>,
    },
    /// `release promote APP`
    Promote {
        /// The app.
        app: String,
        /// `None`: the newest.
        version: Option<String>,
        /// Out of this channel.
        from: String,
        /// Into this one.
        to: String,
        /// Ship it although that one has a newer version.
        allow_downgrade: bool,
    },
    /// `release yank APP VERSION`
    Yank {
        /// The app.
        app: String,
        /// The version.
        version: String,
        /// In which channel.
        channel: String,
    },
    /// `release archive`
    Archive {
        /// One app, or all.
        app: Option<String>,
        /// Of this age and older, in seconds.
        older_s: u64,
    },
    /// `release registry …`
    Registry(RegistryRequest),
    /// Whom this node trusts for a registry, for `release verify` beside it.
    Trust {
        /// Which.
        registry: String,
    },
    /// `release list`
    List,
    /// `release show APP`
    Show {
        /// The app.
        app: String,
        /// Only this channel.
        channel: Option<String>,
        /// The files of this version.
        version: Option<String>,
    },
    /// `release install APP`
    Install {
        /// The app; or, with a `/` or ending with `.stb`, the absolute path of a bundle.
        app: String,
        /// The channel.
        channel: String,
        /// `None`: the newest.
        version: Option<String>,
        /// Absolute path.
        to: PathBuf,
        /// A trust file, as text.
        trust: Option<String>,
        /// Go on when others come.
        follow: bool,
        /// Take an older or yanked release.
        allow_downgrade: bool,
        /// Replace what no release put there.
        yes: bool,
    },
}

/// Does what is asked.
///
/// # Errors
/// A [`Failure`] with the exit code of the command.
pub(crate) async fn execute(node: &Node, request: ReleaseRequest, progress: &Progress) -> Result<Value, Failure> {
    // Once packed it goes on to its end: what is out was not interrupted.
    let ships = matches!(
        request,
        ReleaseRequest::Publish { .. } | ReleaseRequest::Promote { .. } | ReleaseRequest::Yank { .. }
    );
    let _at_work = ships.then(|| node.at_work());
    match request {
        ReleaseRequest::Publish {
            app,
            dir,
            channel,
            version,
            minimum_version,
            expires,
            allow_downgrade,
            out,
            trust_out,
        } => {
            let (app, channel) = names(&app, &channel)?;
            let version = version.as_deref().map(read_version).transpose()?;
            let minimum_version = minimum_version.as_deref().map(read_version).transpose()?;
            let expiry = expires.as_deref().map(read_time).transpose()?;
            let order = Publication { app, dir, channel, version, minimum_version, expiry, allow_downgrade };
            let copies = Copies { bundle: out, trust: trust_out };
            copies.check()?;
            let published = releases::publish(node, order, progress).await?;
            published_answer(node, published, copies).await
        }
        ReleaseRequest::Promote { app, version, from, to, allow_downgrade } => {
            let ((app, from), (_, to)) = (names(&app, &from)?, names(&app, &to)?);
            let version = version.as_deref().map(read_version).transpose()?;
            let published = releases::promote(node, Promotion { app, version, from, to, allow_downgrade }).await?;
            published_answer(node, published, Copies::default()).await
        }
        ReleaseRequest::Yank { app, version, channel } => {
            let (app, channel) = names(&app, &channel)?;
            let version = read_version(&version)?;
            let seq = releases::yank(node, &app, &channel, &version).await?;
            Ok(json!({
                "schema": "sealtide/release_yank/1", "app": app.as_str(), "channel": channel.as_str(),
                "version": version.to_string(), "seq": seq,
            }))
        }
        ReleaseRequest::Archive { app, older_s } => {
            let app = app.map(|app| names(&app, "stable").map(|(app, _)| app)).transpose()?;
            blocking(WHAT, node, move |node| {
                let due = Due::Aged(older_s.saturating_mul(1000));
                let desk = node.open_desk();
                let settings = ArchiveSettings::of(node.config());
                let done = releases::archive(node.home(), node.audit(), desk.as_deref(), &settings, due, app.as_ref())?;
                let left = Tiers::of(node.home()).list(Tier::Hot, app.as_ref())?.len();
                Ok(json!({
                    "schema": "sealtide/release_archive/1", "tier": Tier::Cold.class(), "moved": done.moved,
                    "failed": done.failed, "bytes": done.bytes, "left": left,
                }))
            })
            .await
        }
        ReleaseRequest::Registry(request) => registry::execute(node, request).await,
        ReleaseRequest::Trust { registry } => {
            let trust = Memory::of(node.known(), &registry).trust()?;
            Ok(json!({"schema": "sealtide/release_trust/1", "trust": trust.map(|trust| trust.to_value())}))
        }
        ReleaseRequest::List => blocking(WHAT, node, list).await,
        ReleaseRequest::Show { app, channel, version } => {
            blocking(WHAT, node, move |node| show(node, &app, channel.as_deref(), version.as_deref())).await
        }
        ReleaseRequest::Install { app, channel, version, to, trust, follow, allow_downgrade, yes } => {
            let trust = trust.map(|text| read_trust(&text)).transpose()?;
            let version = version.as_deref().map(read_version).transpose()?;
            if app.contains('/') || app.ends_with(".stb") {
                if follow {
                    return Err(Failure::usage("follow", "a file never changes: --follow needs the name of an app"));
                }
                let progress = progress.clone();
                let turn = node.installing(&to).lock_owned().await;
                let installed = blocking(WHAT, node, move |node| {
                    let _turn = turn;
                    let bundle = OpenBundle::open(Path::new(&app))?;
                    let content = bundle.head.manifest.content();
                    let (name, channel) = (content.name.clone(), content.channel.clone());
                    let wanted = Wanted { name, channel, allow_downgrade };
                    let order = InstallOrder { wanted, version: None, to, yes };
                    Install::from_file(node, &bundle, &order, trust, &progress)
                });
                return Ok(installed.await?.to_value());
            }
            let (name, channel) = names(&app, &channel)?;
            let order = InstallOrder { wanted: Wanted { name, channel, allow_downgrade }, version, to, yes };
            install(node, order, trust, follow, progress).await
        }
    }
}

/// How long to wait before what went wrong is tried again: a disk that was full may have room.
pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(10);

/// The same for a release that does not count: what counts again brings a change of the space, or a clock.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// How long to wait after a failure, where nothing changes meanwhile.
fn pause_after(failure: &Failure) -> Duration {
    if failure.exit == Exit::Verification { LOOK_AGAIN } else { TRY_AGAIN }
}

/// Installs, and again whenever the space changes. What goes wrong later is told and tried again.
async fn install(
    node: &Node,
    order: InstallOrder,
    trust: Option<Trust>,
    follow: bool,
    progress: &Progress,
) -> Result<Value, Failure> {
    let mut events = node.engine().subscribe();
    let once = async |order: InstallOrder, trust: Option<Trust>| {
        let progress = progress.clone();
        // The work goes on when who asked goes away, and so does its turn.
        let turn = node.installing(&order.to).lock_owned().await;
        blocking(WHAT, node, move |node| {
            let _turn = turn;
            let app = App::find(node, &order.wanted.name)?.ok_or_else(|| {
                let text = format!("no space here has an app {}", order.wanted.name);
                Failure::new(Exit::Refused, "no_app", text)
                    .hint("`sealtide join TICKET` with a ticket of the publisher, or name a .stb file")
            })?;
            let installed = Install::from_space(node, &app, &order, trust, &progress)?;
            Ok((app.space, installed))
        })
        .await
    };
    let (space, first) = once(order.clone(), trust).await?;
    if !follow {
        return Ok(first.to_value());
    }
    progress.tell(json!({"event": first.to_value()}));
    let (mut told, mut again) = (None, None);
    loop {
        until_due(&mut events, space, again).await?;
        let done = once(order.clone(), None).await;
        again = done.as_ref().err().map(|failure| Instant::now() + pause_after(failure));
        match done {
            Ok((_, installed)) if installed.changed => {
                told = None;
                progress.tell(json!({"event": installed.to_value()}));
            }
            Ok(_) => told = None,
            Err(failure) if told.as_ref() == Some(&failure) => {}
            Err(failure) => {
                node.audit().note("release_refused", &[("app", order.wanted.name.as_str()), ("reason", &failure.code)]);
                progress.tell(json!({"event": refused_event(&failure)}));
                told = Some(failure);
            }
        }
    }
}

/// Waits until there is something to look at: the space changed, perhaps, or what failed is due `again`, whatever happens meanwhile.
async fn until_due(
    events: &mut broadcast::Receiver<Event>,
    space: SpaceId,
    again: Option<Instant>,
) -> Result<(), Failure> {
    let due = async {
        match again {
            Some(again) => tokio::time::sleep_until(again).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(due);
    loop {
        tokio::select! {
            biased;
            () = &mut due => return Ok(()),
            event = events.recv() => match event {
                Err(RecvError::Lagged(_)) => return Ok(()),
                Ok(Event::Changed { space: changed, .. }) if changed == space => return Ok(()),
                Ok(_) => {}
                Err(RecvError::Closed) => return Err(Failure::failed(control::LOST, "the node is stopping")),
            },
        }
    }
}

/// What who follows is told of a release that was not installed.
pub(crate) fn refused_event(failure: &Failure) -> Value {
    let error = json!({"code": failure.code, "message": failure.message, "hint": failure.hint});
    json!({"schema": "sealtide/release_refused/1", "error": error})
}

/// Where a release is written to besides.
#[derive(Default)]
struct Copies {
    bundle: Option<PathBuf>,
    trust: Option<PathBuf>,
}

impl Copies {
    /// Refuses places that cannot be written to, while nothing has happened. What is tried leaves nothing: a place may be in the directory
    /// that is shipped.
    fn check(&self) -> Result<(), Failure> {
        if self.bundle.is_some() && self.bundle == self.trust {
            return Err(Failure::usage("out", "--out and --trust-out name the same file"));
        }
        let begun =
            |path: &PathBuf| Beside::over(path, 0o666).map(drop).map_err(|error| Failure::from(error).about(path));
        self.bundle.iter().chain(&self.trust).try_for_each(begun)
    }

    /// Writes each that can be. Waits for the disk.
    fn write(&self, published: &Published) -> Result<(), Failure> {
        let text = format!("{:#}\n", published.trust.to_value());
        let bundle = |file: &mut File| io::copy(&mut File::open(&published.file)?, file).map(drop);
        let bundle = self.bundle.as_ref().map_or(Ok(()), |path| write_copy(path, bundle));
        let trust = |file: &mut File| file.write_all(text.as_bytes());
        let trust = self.trust.as_ref().map_or(Ok(()), |path| write_copy(path, trust));
        bundle.and(trust)
    }
}

/// Writes a file whole, over the one that stands there.
fn write_copy(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Failure> {
    let written = Beside::over(path, 0o666).and_then(|(beside, mut file)| {
        write(&mut file)?;
        if failpoint::fails("release_copy") {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.sync_all()?;
        beside.replace()
    });
    written.map_err(|error| Failure::from(error).about(path))
}

async fn published_answer(node: &Node, published: Published, copies: Copies) -> Result<Value, Failure> {
    let (out, trust_out) = (copies.bundle.clone(), copies.trust.clone());
    let published = blocking(WHAT, node, move |_| match copies.write(&published) {
        Ok(()) => Ok(published),
        Err(failure) => {
            let manifest = published.manifest.content();
            let (app, version, channel) = (&manifest.name, &manifest.version, &manifest.channel);
            let text =
                format!("{app} {version} is out in channel {channel}, but not all was written: {}", failure.message);
            Err(Failure { message: text, ..failure }.hint(format!(
                "the bundle is {}; the next `release publish --trust-out` writes the trust file",
                published.file.display()
            )))
        }
    })
    .await?;
    let manifest = published.manifest.content();
    Ok(json!({
        "schema": "sealtide/release_publish/1",
        "app": manifest.name.as_str(),
        "version": manifest.version.to_string(),
        "channel": manifest.channel.as_str(),
        "seq": manifest.seq,
        "registry": manifest.registry,
        "manifest": HEXLOWER.encode(&published.manifest.hash()),
        "key_version": manifest.key_version.to_string(),
        "files": manifest.files.len(),
        "bytes": manifest.unpacked_size,
        "payload_bytes": manifest.size,
        "space": node.label(&published.app.space),
        "bundle": published.file,
        "out": out,
        "trust_out": trust_out,
    }))
}

/// Every channel of every app, by its newest head, and what is installed.
fn list(node: &Node) -> Result<Value, Failure> {
    let (own, wall_ms) = (ledger_nodes(node.store(), node.id()), now().wall_ms);
    let mut channels = Vec::new();
    let tiers = Tiers::of(node.home());
    let mut stored = tiers.list(Tier::Hot, None)?;
    stored.extend(tiers.list(Tier::Cold, None)?);
    for app in App::all(node.store()) {
        for channel in app.channels() {
            for line in app.channel(&channel) {
                let Some(newest) = line.last() else { continue };
                let head = newest.head.content();
                let tier = stored.iter().find(|stored| stored.manifest.hash() == head.manifest_sha256);
                channels.push(json!({
                    "app": app.name.as_str(),
                    "channel": channel.as_str(),
                    "version": head.version.to_string(),
                    "seq": head.seq,
                    "issued": rfc3339(head.issued_at),
                    "fresh_until": rfc3339(head.not_after),
                    "fresh": wall_ms < head.not_after,
                    "yanked": head.yanked,
                    "own": app.is_by(&own),
                    "tier": tier.map(|stored| stored.tier.class()),
                    "space": node.label(&app.space),
                }));
            }
        }
    }
    let installed: Vec<Value> = installs(&node.known()).iter().map(releases::InstalledAt::to_value).collect();
    Ok(json!({"schema": "sealtide/releases/1", "channels": channels, "installed": installed}))
}

/// The releases of an app, or the files of one.
fn show(node: &Node, app: &str, channel: Option<&str>, version: Option<&str>) -> Result<Value, Failure> {
    let (name, _) = names(app, "stable")?;
    let wanted = channel.map(|channel| names(app, channel).map(|(_, channel)| channel)).transpose()?;
    let version = version.map(read_version).transpose()?;
    let unknown = || Failure::usage("no_app", format!("no app {name} here")).hint("`sealtide release list` shows them");
    let app = App::find(node, &name)?.ok_or_else(unknown)?;
    let memory = Memory::of(node.known(), &app.registry);
    let trust = memory.trust()?;
    let tiers = Tiers::of(node.home());
    let mut stored = tiers.list(Tier::Cold, Some(&name))?;
    // One that moves right now stands in both.
    stored.extend(tiers.list(Tier::Hot, Some(&name))?);
    let mut rows = Vec::new();
    for channel in app.channels().into_iter().filter(|channel| wanted.as_ref().is_none_or(|wanted| wanted == channel)) {
        for line in app.channel(&channel) {
            let newest = line.last();
            let yanked = newest.map(|newest| newest.head.content().yanked.clone()).unwrap_or_default();
            let least = newest.map(|newest| app.bundle_head(newest)).transpose()?;
            let least = least.and_then(|head| head.manifest.content().minimum_version.clone());
            let mut last = None;
            for entry in &line {
                if last.replace(entry.manifest_sha256) == Some(entry.manifest_sha256) {
                    continue;
                }
                let manifest = app.bundle_head(entry)?.manifest;
                if version.as_ref().is_none_or(|version| *version == manifest.content().version) {
                    let mut row = release_row(&manifest, &yanked, trust.as_ref(), version.is_some());
                    if least.as_ref().is_some_and(|least| manifest.content().version.cmp_precedence(least).is_lt()) {
                        row["yanked"] = json!(true);
                    }
                    let tier = stored.iter().rev().find(|stored| stored.manifest.bytes() == manifest.bytes());
                    row["here"] = json!(app.is_here(entry));
                    row["tier"] = json!(tier.map(|stored| stored.tier.class()));
                    row["place"] = json!(tier.and_then(|stored| stored.place.as_ref()).map(|place| &place.url));
                    rows.push(row);
                }
            }
        }
    }
    if rows.is_empty() && version.is_some() {
        return Err(Failure::usage("no_release", format!("{name} has no such release")));
    }
    let trusted = trust.map(|trust| json!({"epoch": trust.epoch(), "forked": trust.fork().is_some()}));
    let (space, registry) = (node.label(&app.space), &app.registry);
    Ok(json!({
        "schema": "sealtide/release/1", "app": name.as_str(), "space": space, "registry": registry, "trust": trusted,
        "releases": rows,
    }))
}

fn release_row(manifest: &Signed<Manifest>, yanked: &[u64], trust: Option<&Trust>, with_files: bool) -> Value {
    let content = manifest.content();
    let verified = trust.map(|trust| match trust.manifest(manifest, &[], now().wall_ms) {
        Ok(_) => "authentic".to_owned(),
        Err(reason) => reason.to_string(),
    });
    let mut row = json!({
        "channel": content.channel.as_str(),
        "version": content.version.to_string(),
        "seq": content.seq,
        "key_version": content.key_version.to_string(),
        "created": rfc3339(content.created_at),
        "expires": content.expiry.map(rfc3339),
        "minimum_version": content.minimum_version.as_ref().map(Version::to_string),
        "files": content.files.len(),
        "bytes": content.unpacked_size,
        "payload_bytes": content.size,
        "yanked": yanked.contains(&content.seq),
        "manifest": HEXLOWER.encode(&manifest.hash()),
        "verified": verified,
    });
    if with_files {
        row["list"] = content.to_value()["files"].clone();
    }
    row
}

/// `release verify FILE`: with nothing but the file and a trust; `known` is what a node here trusts.
///
/// # Errors
/// Exit 5 for what does not verify, 6 without trust.
// Spec: GW-110
pub(crate) fn verify(
    file: &Path,
    trust: Option<&str>,
    known: impl FnOnce(&str) -> Result<Option<Trust>, Failure>,
    progress: &mut dyn FnMut(ReleaseProgress, &Manifest),
) -> Result<Value, Failure> {
    if let Some(answer) = verify_legacy(file)? {
        return Ok(answer);
    }
    let bundle = OpenBundle::open(file)?;
    let content = bundle.head.manifest.content();
    let trust = match trust {
        Some(text) => Some(read_trust(text)?),
        None => known(&content.registry)?,
    };
    let mut trust = trust.ok_or_else(|| {
        Failure::new(Exit::Refused, "no_trust", format!("{}: nothing says whose releases these are", file.display()))
            .hint("name the publisher's trust file with --trust FILE")
    })?;
    let wall_ms = now().wall_ms;
    releases::verify_file(&bundle, &mut trust, wall_ms, &mut |told| progress(told, content))?;
    Ok(json!({
        "schema": "sealtide/release_verify/1",
        "file": file,
        "app": content.name.as_str(),
        "version": content.version.to_string(),
        "channel": content.channel.as_str(),
        "seq": content.seq,
        "key_version": content.key_version.to_string(),
        "epoch": trust.epoch(),
        "created": rfc3339(content.created_at),
        "expires": content.expiry.map(rfc3339),
        "expired": content.expiry.is_some_and(|end| wall_ms >= end),
        "files": content.files.len(),
        "bytes": content.unpacked_size,
        "authentic": true,
        "freshness": "not checked",
    }))
}

/// A transaction manifest of the older system, where a file is one. It is `verified` for whoever has its secret in the variable
/// `VERSION_SIGNING_KEY`; HMAC proves nothing to others.
///
/// # Errors
/// Exit 5 for one that does not verify, and for a bundle manifest that HMAC signed; exit 6 where the secret is not told: nothing is proven then.
// Spec: GW-73
fn verify_legacy(file: &Path) -> Result<Option<Value>, Failure> {
    let named = |error: io::Error| Failure::from(error).about(file);
    let mut opened = BufReader::new(File::open(file).map_err(named)?);
    // A bundle begins with the head of an array of CBOR, and may be large.
    let begin = opened.fill_buf().map_err(named)?.iter().find(|byte| !byte.is_ascii_whitespace());
    if begin != Some(&b'{') {
        return Ok(None);
    }
    let mut text = String::new();
    // One byte more than may be is refused by its length.
    opened.take(LEGACY_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(named)?;
    let refused =
        |error: LegacyRefused| Failure::new(Exit::Verification, error.code(), format!("{}: {error}", file.display()));
    let manifest = LegacyManifest::read(&text).map_err(refused)?;
    let secret = std::env::var_os("VERSION_SIGNING_KEY").map(|text| Zeroizing::new(text.into_encoded_bytes()));
    let secret = secret.map(|text| KeySecret::from_text(&text)).transpose();
    let secret = secret.map_err(|error| Failure::usage("signing_key", format!("VERSION_SIGNING_KEY: {error}")))?;
    let Some(secret) = secret else {
        manifest.signed().map_err(refused)?;
        let text = format!("{}: it is signed by HMAC, and nothing says with which key", file.display());
        let hint = "set VERSION_SIGNING_KEY to the secret of the version that signed";
        return Err(Failure::new(Exit::Refused, "no_signing_key", text).hint(hint));
    };
    manifest.verify(&VersionKeys::derive(KeyVersion::V1, secret)).map_err(refused)?;
    let content: Value = serde_json::from_str(manifest.content()).unwrap_or_default();
    Ok(Some(json!({
        "schema": "sealtide/legacy_manifest/1",
        "file": file,
        "transaction": manifest.id(),
        "state": "verified",
        "content": content,
    })))
}

/// The text of a trust file.
pub(crate) fn read_trust(text: &str) -> Result<Trust, Failure> {
    Trust::parse(text.as_bytes()).map_err(|error| Failure::usage("trust", error.to_string()))
}

fn read_version(text: &str) -> Result<Version, Failure> {
    Version::parse(text).map_err(|error| Failure::usage("version", format!("{text:?} is no version: {error}")))
}

fn read_time(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::usage("time", format!("{text:?} is no time of the form 2026-11-28T12:00:00Z"));
    parse_time(text).ok_or_else(wrong)
}

/// What an app is called on the command line.
pub(crate) fn app_name(text: &str) -> Result<AppName, Failure> {
    AppName::parse(text).ok_or_else(|| unnamed("an app", text))
}

/// What an app and a channel are called on the command line.
fn names(app: &str, channel: &str) -> Result<(AppName, Channel), Failure> {
    Ok((app_name(app)?, Channel::parse(channel).ok_or_else(|| unnamed("a channel", channel))?))
}

fn unnamed(what: &str, text: &str) -> Failure {
    const FORM: &str = "1 to 64 lower-case letters, digits, `.`, `_` or `-`, beginning with a letter or digit";
    Failure::usage("name", format!("{text:?} is no name of {what}: {FORM}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a node where something else happens every second.
    #[tokio::test(start_paused = true)]
    async fn what_failed_is_tried_again_however_busy_the_node_is() {
        let (events, mut seen) = broadcast::channel(64);
        let changed = |space| Event::Changed { space, origin: None, timelines: [].into() };
        let (own, other) = (SpaceId::from_bytes([1; 32]), SpaceId::from_bytes([2; 32]));
        let busy = async {
            for _ in 0..60 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = events.send(changed(other));
            }
        };
        let again = Instant::now() + pause_after(&Failure::failed("full", "a disk"));
        tokio::select! {
            due = until_due(&mut seen, own, Some(again)) => assert!(due.is_ok() && Instant::now() >= again),
            () = busy => panic!("it never comes"),
        }
        let _ = events.send(changed(own));
        assert_eq!(until_due(&mut seen, own, None).await, Ok(()), "what changed is looked at at once");
        // Each look at a release that does not count is a line of the audit.
        let refused = Failure::new(Exit::Verification, "yanked", "it was taken back");
        assert_eq!(pause_after(&refused), LOOK_AGAIN);
        drop(events);
        let ended = until_due(&mut seen, own, None).await;
        assert_eq!(ended.unwrap_err().code, control::LOST);
    }
}
