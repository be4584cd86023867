//! The client's side: which release, checked how, put where.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sealtide_folder::release::{self, Installed, ReleaseProgress, begin, identity, look, previous_of, switch};
use sealtide_ibgib::{Address, Verified};
use sealtide_releases::bundle::{
    AppName, ChannelHead, Manifest, ReleaseRefused, Seen, Signed, Trust, TrustRefused, Wanted,
};
use serde_json::{Value, json};

use super::app::{App, Entry};
use super::file::OpenBundle;
use super::from_peers::fetch_content;
use super::memory::{Begun, InstalledAt, Memory, installed_at, keep_install};
use super::{refused, unpacked, untrusted};
use crate::api::Progress;
use crate::audit::AuditEvent;
use crate::failure::{Exit, Failure};
use crate::known::Known;
use crate::node::Node;
use crate::real::now;

/// Looks at a space that changes all the time, at most.
const LOOKS_MAX: u32 = 4;

/// What is to be installed.
#[derive(Clone, Debug)]
pub(crate) struct InstallOrder {
    pub(crate) wanted: Wanted,
    /// `None`: the newest.
    pub(crate) version: Option<semver::Version>,
    pub(crate) to: PathBuf,
    /// Replace a directory that no release put there.
    pub(crate) yes: bool,
}

/// An install, as it ended.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    pub(crate) at: InstalledAt,
    /// Whether anything was put there; it may have been there already.
    pub(crate) changed: bool,
    /// Where the version before stands.
    pub(crate) previous: Option<PathBuf>,
    /// Whether the trust is of this first use.
    pub(crate) pinned: bool,
    pub(crate) key_version: String,
    pub(crate) fresh_until_ms: Option<u64>,
}

/// A release in a channel that was found to count.
pub(super) struct Candidate {
    entry: Entry,
    head: Signed<ChannelHead>,
    pub(super) manifest: Signed<Manifest>,
}

impl Install {
    /// Installs from the space of an app. A content that is not here is fetched from a peer that has it.
    ///
    /// # Errors
    /// Exit 5 for what does not verify, 6 without trust, 1 when no peer has the content; then what was installed stays.
    // Spec: GW-104, GW-106
    pub(crate) fn from_space(
        node: &Node,
        app: &App,
        order: &InstallOrder,
        trust: Option<Trust>,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        // Nothing of it is given up while it is unpacked.
        let _in_use = node.use_contents();
        let done = Self::of_space(node, app, order, trust, progress);
        done.inspect_err(|failure| {
            let newest =
                app.channel(&order.wanted.channel).iter().filter_map(|line| line.last()).map(|it| it.seq).max();
            tell_refused(node, &app.registry, &order.wanted, newest, failure);
        })
    }

    fn of_space(
        node: &Node,
        app: &App,
        order: &InstallOrder,
        trust: Option<Trust>,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let memory = Memory::of(node.known(), &app.registry);
        let remembering = node.remembering();
        // A commit that changes keys and heads at once may come between the look at the ones and at the others.
        let (mut looks, mut pinned) = (1, false);
        let (trust, candidate) = loop {
            let before = node.store().generation();
            let (trust, begun) = trusted(node, &memory, app, trust.clone())?;
            pinned |= begun;
            match choose(app, order, &trust, &memory.seen()?) {
                Err(_) if looks < LOOKS_MAX && node.store().generation() != before => looks += 1,
                chosen => break (trust, chosen?),
            }
        };
        let wall_ms = now().wall_ms;
        let what = title(candidate.manifest.content());
        let count = |error| refused(&what, &error);
        let head = trust.head(&candidate.head, wall_ms).map_err(count)?;
        // What was seen is remembered before anything is done with it.
        memory.change_seen(|seen| seen.see(&head, wall_ms))?;
        drop(remembering);
        let manifest = candidate.manifest.content();
        let put = |next: &Path, told: &mut dyn FnMut(ReleaseProgress)| {
            if !app.is_here(&candidate.entry) {
                fetch_content(node, app, &candidate.entry, &what, progress)?;
            }
            let mut tar = app.tar(&candidate.entry)?;
            release::unpack(&manifest.files, &mut tar, next, told).map_err(|error| unpacked(&what, &error))?;
            // An install elsewhere may have shown a newer one meanwhile.
            memory.seen()?.is_newest(&head, wall_ms).map_err(count)
        };
        let mut done = place(node, order, &candidate.manifest, put, progress)?;
        (done.pinned, done.fresh_until_ms) = (pinned, Some(candidate.head.content().not_after));
        Ok(done)
    }

    /// Installs from a file. Nobody can say whether it is the newest; nothing older than what was seen is taken.
    ///
    /// # Errors
    /// As [`Install::from_space`].
    pub(crate) fn from_file(
        node: &Node,
        bundle: &OpenBundle,
        order: &InstallOrder,
        trust: Option<Trust>,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let done = Self::of_file(node, bundle, order, trust, progress);
        let content = bundle.head.manifest.content();
        done.inspect_err(|failure| {
            tell_refused(node, &content.registry, &order.wanted, Some(content.seq), failure);
        })
    }

    fn of_file(
        node: &Node,
        bundle: &OpenBundle,
        order: &InstallOrder,
        trust: Option<Trust>,
        progress: &Progress,
    ) -> Result<Self, Failure> {
        let (content, what) = (bundle.head.manifest.content(), bundle.path.display().to_string());
        let memory = Memory::of(node.known(), &content.registry);
        let remembering = node.remembering();
        let mut trust = match merge(memory.trust()?, trust, &content.registry)? {
            Some(trust) => trust,
            None => return Err(no_trust(&what)),
        };
        let followed = trust.follow_proven(&bundle.head.chain, &proven(node, &trust, &bundle.head.proof));
        keep(node, &memory, &trust)?;
        drop(remembering);
        followed.map_err(|error| untrusted(&what, &error))?;
        let wall_ms = now().wall_ms;
        let count = |error| refused(&what, &error);
        let counts = trust.manifest(&bundle.head.manifest, &[], wall_ms).map_err(count)?;
        let admit = |seen: &Seen| seen.admit_alone(&counts, order.wanted.allow_downgrade, wall_ms).map_err(count);
        admit(&memory.seen()?)?;
        bundle.check_payload()?;
        // No older file goes over it from here on.
        memory.change_seen(|seen| seen.see_alone(&counts, wall_ms))?;
        let put = |next: &Path, told: &mut dyn FnMut(ReleaseProgress)| {
            bundle.with_payload(|plain| release::unpack(&content.files, plain, next, told))?;
            // An install elsewhere may have shown a newer one meanwhile.
            admit(&memory.seen()?)
        };
        place(node, order, &bundle.head.manifest, put, progress)
    }
}

/// The trust for an app: kept, given, or pinned by what its space shows at the first use; brought up to date and kept.
fn trusted(node: &Node, memory: &Memory, app: &App, given: Option<Trust>) -> Result<(Trust, bool), Failure> {
    let followed = Followed::of(node, memory, app, given)?;
    keep(node, memory, &followed.trust)?;
    let pinned = followed.pinned;
    followed.end(app).map(|trust| (trust, pinned))
}

/// The trust for an app as this node would have it. Nothing is pinned or kept.
///
/// # Errors
/// Exit 2 for an app that is not here, 5 when what is known of its keys does not go together, 6 when nothing is.
pub(crate) fn shown_trust(node: &Node, name: &AppName) -> Result<Trust, Failure> {
    let none = || Failure::usage("no_app", format!("no app named {name} here")).hint("`sealtide release list`");
    let app = App::find(node, name)?.ok_or_else(none)?;
    Followed::of(node, &Memory::of(node.known(), &app.registry), &app, None)?.end(&app)
}

/// A trust that followed what the space of its app shows.
struct Followed {
    trust: Trust,
    /// Whether it began with what the space shows.
    pinned: bool,
    /// Why a ledger was not followed.
    refused: Option<TrustRefused>,
    ledgers: usize,
}

impl Followed {
    fn of(node: &Node, memory: &Memory, app: &App, given: Option<Trust>) -> Result<Self, Failure> {
        let ledgers = app.ledgers();
        let known = merge(memory.trust()?, given, &app.registry)?;
        let pinned = known.is_none();
        let mut trust = match known {
            Some(trust) => trust,
            None => {
                let first = match ledgers.as_slice() {
                    [only] => only.records.first(),
                    _ => None,
                };
                let first = first.ok_or_else(|| no_trust(app.name.as_str()))?;
                let trust = Trust::of_publisher(&app.registry, first, app.root().as_deref());
                trust.map_err(|error| untrusted(&ledger_of(app), &error))?
            }
        };
        // Anybody who may write can begin a ledger; the one that is signed is the one that is followed.
        let mut refused: Option<TrustRefused> = None;
        for ledger in &ledgers {
            if let Err(error) = trust.follow_proven(&ledger.records, &proven(node, &trust, &ledger.proof)) {
                refused = Some(error);
            }
        }
        Ok(Self { trust, pinned, refused, ledgers: ledgers.len() })
    }

    fn end(self, app: &App) -> Result<Trust, Failure> {
        match (self.refused, self.trust.fork()) {
            // A recovery in another ledger may have decided it.
            (_, Some(fork)) => Err(untrusted(&ledger_of(app), &TrustRefused::Forked(fork))),
            (Some(error), None) if self.ledgers == 1 => Err(untrusted(&ledger_of(app), &error)),
            _ => Ok(self.trust),
        }
    }
}

fn ledger_of(app: &App) -> String {
    format!("the key ledger of {}", app.name)
}

/// What proves recoveries: frames that came with the ledger, and what this node knows of the root, a revocation for instance.
pub(super) fn proven(node: &Node, trust: &Trust, frames: &[Verified]) -> Vec<Verified> {
    let root = trust.root().and_then(|root| Address::parse(root).ok());
    let known = root.map(|root| node.identities().frames_of(&root)).unwrap_or_default();
    frames.iter().cloned().chain(known).collect()
}

/// Keeps a trust. After a recovery nothing that was seen of channels counts: a thief may have shown it, and what he signed is void.
fn keep(node: &Node, memory: &Memory, trust: &Trust) -> Result<(), Failure> {
    let known = memory.trust()?;
    if let Some(fork) = trust.fork().filter(|_| known.as_ref().is_none_or(|known| known.fork().is_none())) {
        let event = AuditEvent::new("ledger:forked", "#FF0000")
            .member("registry", trust.registry())
            .member("epoch", fork.epoch)
            .member("followed", HEXLOWER.encode(&fork.followed))
            .member("other", HEXLOWER.encode(&fork.other));
        node.audit().event(&event);
    }
    // It may have been followed to here, or stand in a trust file that was given.
    if trust.recovered().is_some() && trust.recovered() != known.and_then(|known| known.recovered()) {
        memory.forget_seen()?;
    }
    memory.keep_trust(trust)
}

/// A trust file that was given counts when there is none yet, when it is newer, or when what is known was forked.
fn merge(known: Option<Trust>, given: Option<Trust>, registry: &str) -> Result<Option<Trust>, Failure> {
    if let Some(given) = &given
        && given.registry() != registry
    {
        let text = format!("the trust file is for registry {}, and the release is of {registry}", given.registry());
        return Err(Failure::new(Exit::Verification, "other_registry", text)
            .hint("ask the publisher for the trust file of this app"));
    }
    Ok(match (known, given) {
        (Some(known), Some(given)) if given.epoch() > known.epoch() || known.fork().is_some() => Some(given),
        (Some(mut known), Some(given)) => {
            known.adopt_root(&given);
            Some(known)
        }
        (known, given) => known.or(given),
    })
}

fn no_trust(what: &str) -> Failure {
    Failure::new(Exit::Refused, "no_trust", format!("{what}: nothing says whose releases these are"))
        .hint("name the publisher's trust file with --trust FILE")
}

/// The newest release that counts, or the version that was asked for. The greatest head that counts decides, wherever it stands, and
/// it alone: whoever may write to the space can repeat older ones, and put any number beside them.
pub(super) fn choose(app: &App, order: &InstallOrder, trust: &Trust, seen: &Seen) -> Result<Candidate, Failure> {
    let lines = app.channel(&order.wanted.channel);
    if lines.is_empty() {
        let text = format!("{} has no channel {}", app.name, order.wanted.channel);
        return Err(Failure::usage("no_channel", text).hint(format!("`sealtide release show {}` lists them", app.name)));
    }
    let (channel, wall_ms) = (format!("channel {} of {}", order.wanted.channel, app.name), now().wall_ms);
    let signed = newest_head(&lines, trust, wall_ms).map_err(|error| refused(&channel, &error))?;
    let head = trust.head(&signed, wall_ms).map_err(|error| refused(&channel, &error))?;
    let told = head.content();
    // What the publisher wrote stands before what others wrote behind it.
    let entries: Vec<&Entry> = lines.iter().flatten().collect();
    let manifest_of = |entry: &Entry| app.bundle_head(entry).map(|found| found.manifest);
    let mut of_head = entries.iter().filter(|entry| entry.manifest_sha256 == told.manifest_sha256);
    let mut chosen = of_head.find_map(|entry| Some(((*entry).clone(), manifest_of(entry).ok()?)));
    let mut earlier: Vec<Signed<Manifest>> = Vec::new();
    // The manifests before are needed to find a version, and where the key that signed was given up.
    let counts = |manifest: &Signed<Manifest>, earlier: &[_]| trust.manifest(manifest, earlier, wall_ms).is_ok();
    if order.version.is_some() || chosen.as_ref().is_some_and(|(_, manifest)| !counts(manifest, &[])) {
        let mut known = BTreeSet::new();
        let new = entries.iter().filter(|entry| known.insert(entry.manifest_sha256));
        let all: Vec<(&Entry, Signed<Manifest>)> =
            new.filter_map(|entry| Some((*entry, manifest_of(entry).ok()?))).collect();
        earlier = all.iter().map(|(_, manifest)| manifest.clone()).collect();
        if let Some(version) = &order.version {
            let of_version = || all.iter().filter(|(_, manifest)| manifest.content().version == *version);
            let found = of_version().find(|(_, manifest)| counts(manifest, &earlier)).or_else(|| of_version().next());
            chosen = found.map(|(entry, manifest)| ((*entry).clone(), manifest.clone()));
        }
    }
    let Some((entry, manifest)) = chosen else {
        let version = order.version.as_ref().unwrap_or(&told.version);
        let text = format!("{channel} has no release {version}");
        return Err(Failure::usage("no_release", text).hint(format!("`sealtide release show {}` lists them", app.name)));
    };
    let what = title(manifest.content());
    let counts = trust.manifest(&manifest, &earlier, wall_ms);
    let admitted = counts.and_then(|it| seen.admit(&head, &it, &order.wanted, wall_ms));
    admitted.map_err(|error| {
        let mut failure = refused(&what, &error);
        if matches!(error, ReleaseRefused::NotOfHead) && manifest.content().seq < told.seq {
            failure.message = format!("{what}: {} is newer", told.version);
        }
        failure
    })?;
    Ok(Candidate { entry, head: signed, manifest })
}

/// The head that says most of all that count. Where none does, why the greatest that the publisher signed does not.
fn newest_head(lines: &[Vec<Entry>], trust: &Trust, wall_ms: u64) -> Result<Signed<ChannelHead>, ReleaseRefused> {
    let mut heads: Vec<&Signed<ChannelHead>> = lines.iter().flatten().map(|entry| &entry.head).collect();
    heads.sort_by_key(|head| std::cmp::Reverse((head.content().seq, head.content().issued_at)));
    let mut why: Option<ReleaseRefused> = None;
    for head in heads {
        let error = match trust.head(head, wall_ms) {
            Ok(_) => return Ok(head.clone()),
            Err(error) => error,
        };
        let is_anybodys = |error: &ReleaseRefused| {
            use ReleaseRefused::{Registry, Signature, UnknownKey};
            matches!(error, Registry { .. } | UnknownKey(_) | Signature(_))
        };
        if why.as_ref().is_none_or(|why| is_anybodys(why) && !is_anybodys(&error)) {
            why = Some(error);
        }
    }
    Err(why.unwrap_or(ReleaseRefused::NotOfHead))
}

/// Says in the audit that a release was not taken, when that is about the release and not about this machine.
// Spec: GW-78
fn tell_refused(node: &Node, registry: &str, wanted: &Wanted, seq: Option<u64>, failure: &Failure) {
    let (name, hsl) = match failure.code.as_str() {
        "head_retired" | "head_ahead" | "head_early" | "head_expired" | "other_channel" | "not_of_head"
        | "rollback" => ("release:head_refused", "#FF4500"),
        "equivocation" => ("release:equivocation", "#FF0000"),
        _ if failure.exit == Exit::Verification => ("bundle:rejected", "#FF0000"),
        _ => return,
    };
    let stored = Memory::of(node.known(), registry).seen().ok().and_then(|seen| seen.newest(&wanted.channel));
    let number = |seq: Option<u64>| seq.map_or_else(|| "none".to_owned(), |seq| seq.to_string());
    let event = AuditEvent::new(name, hsl)
        .member("registry", registry)
        .member("name", &wanted.name)
        .member("channel", &wanted.channel)
        .member("seq", number(seq))
        .member("storedSeq", number(stored.map(|(seq, _)| seq)))
        .member("reason", &failure.code);
    node.audit().event(&event);
}

pub(super) fn title(manifest: &Manifest) -> String {
    format!("{} {} ({})", manifest.name, manifest.version, manifest.channel)
}

/// Unpacks beside the target and switches. What is there already stays.
fn place(
    node: &Node,
    order: &InstallOrder,
    signed: &Signed<Manifest>,
    put: impl FnOnce(&Path, &mut dyn FnMut(ReleaseProgress)) -> Result<(), Failure>,
    progress: &Progress,
) -> Result<Install, Failure> {
    let (manifest, known, what) = (signed.content(), node.known(), title(signed.content()));
    let hash = HEXLOWER.encode(&signed.hash());
    let (before, is_ended_now) = installed(node, &order.to)?;
    let done = |at: InstalledAt, changed: bool, previous: Option<PathBuf>| Install {
        at,
        changed,
        previous,
        pinned: false,
        key_version: manifest.key_version.to_string(),
        fresh_until_ms: None,
    };
    if let Some(before) = &before
        && before.manifest == hash
        && order.to.is_dir()
    {
        let previous = previous_of(&order.to).ok().filter(|previous| is_ended_now && previous.is_dir());
        return Ok(done(before.clone(), is_ended_now, previous));
    }
    let failed = |error| unpacked(&what, &error);
    if look(&order.to).map_err(failed)? == Installed::Something && before.is_none() && !order.yes {
        let text = format!("{} is not empty, and no release put there what is in it", order.to.display());
        return Err(Failure::new(Exit::Held, "occupied", text)
            .hint("--yes puts the release in its place and keeps what is there beside it"));
    }
    let at = InstalledAt {
        dir: order.to.clone(),
        app: manifest.name.to_string(),
        channel: manifest.channel.to_string(),
        version: manifest.version.to_string(),
        seq: manifest.seq,
        previous: before.as_ref().and_then(|before| match before.manifest == hash {
            true => before.previous.clone(),
            false => Some(before.manifest.clone()),
        }),
        manifest: hash,
        at_ms: now().wall_ms,
    };
    let (next, aside) = begin(&order.to).map_err(failed)?;
    if let Some(aside) = aside {
        tracing::warn!(aside = %aside.display(), "something that no install here left stood where a release is unpacked; it is kept under this name");
    }
    let mut next = Next { known: known.clone(), target: order.to.clone(), path: next, took_its_place: false };
    let unpacked = identity(&next.path).map_err(failed)?;
    let mut begun = Begun { install: at.clone(), unpacked, was: None, is_whole: false };
    begun.keep(&known)?;
    let mut told = |now: ReleaseProgress| {
        let (files, bytes) = (manifest.files.len() as u64, manifest.unpacked_size);
        progress.tell(json!({"phase": "installing", "items": [now.files, files], "bytes": [now.bytes, bytes]}));
    };
    put(&next.path, &mut told)?;
    crate::failpoint::hit("release_unpacked");
    (begun.was, begun.is_whole) = (identity(&order.to).ok(), true);
    begun.keep(&known)?;
    switch(&next.path, &order.to).map_err(failed)?;
    // From here on it is installed: what goes wrong is gone on with, and nothing is taken back.
    next.took_its_place = true;
    crate::failpoint::hit("release_switched");
    installed_now(node, &begun)?;
    let is_downgrade = before.as_ref().is_some_and(|before| before.channel == at.channel && before.seq > at.seq);
    if is_downgrade {
        let stored = before.as_ref().map_or(0, |before| before.seq);
        let event = AuditEvent::new("release:downgrade", "#FF8C00")
            .member("registry", &manifest.registry)
            .member("channel", &at.channel)
            .member("seq", at.seq)
            .member("storedSeq", stored)
            .member("reason", if order.wanted.allow_downgrade { "allow_downgrade" } else { "recovery" });
        node.audit().event(&event);
    }
    let previous = previous_of(&order.to).ok().filter(|previous| previous.is_dir());
    Ok(done(at, true, previous))
}

/// What this node installed in a directory. What took its place when the node died, or the disk failed, before it was kept, is kept
/// now, and the second says so; what was half unpacked is gone.
fn installed(node: &Node, to: &Path) -> Result<(Option<InstalledAt>, bool), Failure> {
    let (known, mut is_ended_now) = (node.known(), false);
    if let Some(begun) = Begun::of(&known, to) {
        if begun.is_whole && identity(to).is_ok_and(|found| found == begun.unpacked) {
            installed_now(node, &begun)?;
            is_ended_now = true;
        } else {
            release::discard(to, begun.unpacked);
            Begun::end(&known, to)?;
        }
    }
    Ok((installed_at(&known, to), is_ended_now))
}

/// Remembers what was put there, keeps what stood there as the version before, and says so in the audit.
fn installed_now(node: &Node, begun: &Begun) -> Result<(), Failure> {
    let (known, at) = (node.known(), &begun.install);
    let what = || format!("{} {} ({})", at.app, at.version, at.channel);
    // Before the row that it is under way ends: after a power cut that one tells whether the exchange lasted.
    release::sync(&at.dir).map_err(|error| unpacked(&what(), &error))?;
    keep_install(&known, at.clone())?;
    if let Err(error) = release::keep_previous(&at.dir, begun.was) {
        tracing::warn!(%error, release = what(), "it is installed; what stood there before is not all tidied up");
    }
    Begun::end(&known, &at.dir)?;
    let (seq, dir) = (at.seq.to_string(), at.dir.display().to_string());
    let members: [(&str, &str); 6] = [
        ("app", &at.app),
        ("version", &at.version),
        ("channel", &at.channel),
        ("seq", &seq),
        ("manifest", &at.manifest),
        ("dir", &dir),
    ];
    node.audit().note("release_installed", &members);
    Ok(())
}

/// A directory that is being unpacked. It is gone when this is, and the row that it is under way, unless it took its place: what is
/// refused leaves nothing beside the target.
struct Next {
    known: Known,
    target: PathBuf,
    path: PathBuf,
    /// Then what has its name is the version before.
    took_its_place: bool,
}

impl Drop for Next {
    fn drop(&mut self) {
        // What cannot be removed stays known as half unpacked.
        if !self.took_its_place && std::fs::remove_dir_all(&self.path).is_ok() {
            let _ = Begun::end(&self.known, &self.target);
        }
    }
}

impl Install {
    /// As commands answer it.
    pub(crate) fn to_value(&self) -> Value {
        let at = &self.at;
        json!({
            "schema": "sealtide/release_install/1",
            "app": at.app,
            "version": at.version,
            "channel": at.channel,
            "seq": at.seq,
            "manifest": at.manifest,
            "key_version": self.key_version,
            "dir": at.dir,
            "changed": self.changed,
            "previous": self.previous,
            "trust": if self.pinned { "pinned on first use" } else { "known" },
            "fresh_until": self.fresh_until_ms.map(crate::commands::rfc3339),
        })
    }
}
