//! A release that was signed elsewhere with the keys of this publisher, brought as a file, and published here.
//! Spec: gateway §1.2 E13.
//!
//! All of it is verified before anything of it is kept, and it goes the way of a release that is made here: hot tier, then one
//! commit that names it.

use std::io::{self, Read, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use sealtide_folder::release::check;
use sealtide_gateway::Code;
use sealtide_ibgib::{Address, Verified};
use sealtide_releases::bundle::{AppName, Manifest, Signed};

use super::app::App;
use super::file::OpenBundle;
use super::own::OwnLine;
use super::publish::{Payload, Published, Source, blocking, bring_out, desk_of, own_line, refuse_in_doubt};
use crate::content::ContentWriter;
use crate::failure::Failure;
use crate::gateway::{Desk, ledger_nodes};
use crate::node::Node;
use crate::real::now;

/// Why a bundle was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum NotReceived {
    /// It was brought for another name or version than its manifest says.
    #[error("it was brought for {wanted}, and is {found}")]
    Named { wanted: String, found: String },
    /// A version is out once in a channel.
    #[error("{0} is out already")]
    Exists(String),
    /// Everybody who follows would go back; that is said at the publisher itself.
    #[error("{found} is older than {newest}, the newest of its channel")]
    Older { found: String, newest: String },
    /// No app of this publisher.
    #[error("it belongs to no app of this node")]
    Registry,
    /// Not signed by both keys of the version that signs now.
    #[error("it is not signed by the keys that sign now: {0}")]
    Key(String),
    /// Not the release that comes next.
    #[error("it is release {found} of its channel, and the next one is {next}")]
    Seq { found: u64, next: u64 },
    /// It follows another release than the newest.
    #[error("it names another release before it than {0}")]
    Prev(String),
    /// It would be served to nobody.
    #[error("it has expired")]
    Expired,
    /// No bundle, or another payload than its manifest says.
    #[error("{0}")]
    File(String),
    /// Store or disk.
    #[error("{0}")]
    Failed(String),
}

impl NotReceived {
    /// What the one who brought it is told.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Named { .. } => Code::InvalidField,
            Self::Exists(_) | Self::Older { .. } => Code::StateConflict,
            Self::Failed(_) => Code::StorageError,
            _ => Code::BundleInvalid,
        }
    }

    /// A failure of what was read, or of the machine.
    fn of(failure: &Failure) -> Self {
        match failure.exit {
            crate::failure::Exit::Verification => Self::File(failure.message.clone()),
            _ => Self::Failed(failure.message.clone()),
        }
    }
}

/// Verifies a bundle and publishes it. Durable, and on its way to whoever follows, when this returns.
///
/// # Errors
/// [`NotReceived`]; then nothing of it is visible to anybody.
// Spec: GW-72
pub(crate) async fn receive(node: &Node, name: &AppName, version: &str, file: &Path) -> Result<Published, NotReceived> {
    let failed = |failure: Failure| NotReceived::of(&failure);
    refuse_in_doubt(node).map_err(failed)?;
    let _turn = node.publishing().lock().await;
    let desk = desk_of(node).await.map_err(failed)?;
    let bundle = OpenBundle::open(file).map_err(failed)?;
    let manifest = bundle.head.manifest.clone();
    is_named(manifest.content(), name, version)?;
    let own = ledger_nodes(node.store(), node.id());
    let app = App::find(node, name).map_err(failed)?.filter(|app| app.is_by(&own));
    let app = app.filter(|app| app.registry == manifest.content().registry).ok_or(NotReceived::Registry)?;
    let line = own_line(&desk, &app, &manifest.content().channel).await.map_err(failed)?;
    is_next(&manifest, &line)?;
    is_signed_now(&desk, &manifest)?;
    if manifest.content().expiry.is_some_and(|end| now().wall_ms >= end) {
        return Err(NotReceived::Expired);
    }
    let store = node.store().clone();
    let (bundle, tar, records) = blocking(move || {
        // First the hash of all of it, then each file: nothing is stored of a payload that somebody changed.
        bundle.check_payload()?;
        let (tar, records) = store_tar(&bundle, ContentWriter::new(store))?;
        Ok((bundle, tar, records))
    })
    .await
    .map_err(failed)?;
    let source = Source { payload: Payload::Bundle(Box::new(bundle)), tar, records };
    bring_out(node, &desk, app, &line, manifest, source).await.map_err(failed)
}

/// Whether a manifest is the one of a path: `1.0.0`, or `1.0.0~stable`.
fn is_named(manifest: &Manifest, name: &AppName, version: &str) -> Result<(), NotReceived> {
    let plain = manifest.version.to_string();
    let is_it = version == plain || version.split_once('~') == Some((&plain, manifest.channel.as_str()));
    if is_it && manifest.name == *name {
        return Ok(());
    }
    Err(NotReceived::Named { wanted: format!("{name} {version}"), found: format!("{} {plain}", manifest.name) })
}

/// Whether a manifest comes right after those of its channel.
fn is_next(manifest: &Signed<Manifest>, line: &OwnLine) -> Result<(), NotReceived> {
    let earlier = &line.releases;
    let content = manifest.content();
    let found = format!("{} {} ({})", content.name, content.version, content.channel);
    if earlier.iter().any(|before| before.version == content.version) {
        return Err(NotReceived::Exists(found));
    }
    let newest = earlier.last();
    let next = line.next_seq().map_err(|failure| NotReceived::of(&failure))?;
    if content.seq != next {
        return Err(NotReceived::Seq { found: content.seq, next });
    }
    if content.prev != line.prev() {
        let newest = newest.map_or_else(String::new, |newest| HEXLOWER.encode(&newest.hash[..8]));
        return Err(NotReceived::Prev(newest));
    }
    match newest.map(|newest| &newest.version) {
        Some(newest) if *newest > content.version => Err(NotReceived::Older { found, newest: newest.to_string() }),
        _ => Ok(()),
    }
}

/// Whether both signatures are those of the version that signs now. One that was replaced signs nothing new, whoever has it.
fn is_signed_now(desk: &Desk, manifest: &Signed<Manifest>) -> Result<(), NotReceived> {
    let (active, pair) = desk.active_pair();
    let version = manifest.content().key_version;
    if version != active {
        return Err(NotReceived::Key(format!("it says {version}, and {active} signs")));
    }
    let pair = pair.ok_or_else(|| NotReceived::Key(format!("{active} has no key pair")))?;
    manifest.verify(&pair).map_err(|error| NotReceived::Key(error.to_string()))
}

/// Puts the plain tar of a bundle into the store, where every file of it is the one of the manifest.
fn store_tar(bundle: &OpenBundle, mut content: ContentWriter) -> Result<(Address, Vec<Verified>), Failure> {
    let files = &bundle.head.manifest.content().files;
    bundle.with_payload(|plain| check(files, &mut Copied { plain, to: &mut content }, &mut |_| ()))?;
    let records = content.finish().map_err(crate::commands::store_failure)?;
    let tar = records.last().map(|record| record.address().clone());
    let tar = tar.ok_or_else(|| Failure::failed("release", "the content was not stored"))?;
    Ok((tar, records))
}

/// What is read goes somewhere else too.
struct Copied<'a> {
    plain: &'a mut dyn Read,
    to: &'a mut dyn Write,
}

impl Read for Copied<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(bytes)?;
        self.to.write_all(&bytes[..read])?;
        Ok(read)
    }
}
