//! A bundle that somebody put at the door: made elsewhere by the keys of this home, as on a build machine with the same secret,
//! or before this home was restored. Spec: gateway §1.2 E13.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sealtide_folder::release::check;
use sealtide_gateway::{Code, IntakeFile};
use sealtide_ibgib::uuid;
use sealtide_releases::bundle::{AppName, Manifest, Signed};

use super::app::App;
use super::file::OpenBundle;
use super::publish::{Payload, Source, blocking, bring_out, desk_of, own_line};
use super::tiers::Tiers;
use crate::audit::AuditEvent;
use crate::content::ContentWriter;
use crate::failure::{Exit, Failure};
use crate::gateway::Desk;
use crate::node::Node;
use crate::real::now;
use crate::world::OsEntropy;

/// Why a bundle is not taken.
enum Refused {
    /// It does not count: `BUNDLE_INVALID`, with the reason for the audit.
    Invalid(&'static str),
    /// What the caller is told otherwise.
    Told(Code),
    /// This machine does not do as it is told.
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        if failure.exit == Exit::Verification { Self::Invalid("payload") } else { Self::Failed(failure) }
    }
}

/// A file for a bundle that comes in.
///
/// # Errors
/// [`Code::StateConflict`] when a bundle of this name is in a tier, [`Code::Overload`] while another comes in.
pub(crate) fn intake_file(node: &Node, name: &str, version: &str) -> Result<IntakeFile, Code> {
    let held = node.intake().try_acquire_owned().map_err(|_| Code::Overload)?;
    let (name, tiers) = (AppName::parse(name).ok_or(Code::BundleInvalid)?, Tiers::of(node.home()));
    if tiers.named(&name, version).map_err(|_| Code::StorageError)?.is_some() {
        return Err(Code::StateConflict);
    }
    let made = || -> io::Result<(PathBuf, File)> {
        let dir = node.home().root().join("bundles/intake");
        fs::create_dir_all(&dir)?;
        // One at a time: what lies here was left by a crash.
        for entry in fs::read_dir(&dir)? {
            fs::remove_file(entry?.path())?;
        }
        let path = dir.join(uuid(&mut OsEntropy));
        Ok((path.clone(), File::create_new(&path)?))
    };
    let (path, file) = made().map_err(|_| Code::StorageError)?;
    Ok(IntakeFile { file, path, held: Box::new(held) })
}

/// Publishes a bundle file, durably. Returns its manifest.
///
/// # Errors
/// As the caller is told; the audit has the reason.
pub(crate) async fn take_in(node: &Node, name: &str, version: &str, path: &Path) -> Result<Signed<Manifest>, Code> {
    let refused = match checked(node, name, version, path).await {
        Ok(manifest) => return Ok(manifest),
        Err(refused) => refused,
    };
    match refused {
        Refused::Told(code) => Err(code),
        Refused::Invalid(reason) => {
            let event = AuditEvent::new("bundle:rejected", "#FF0000").member("name", name).member("version", version);
            node.audit().event(&event.member("reason", reason));
            Err(Code::BundleInvalid)
        }
        Refused::Failed(failure) => {
            tracing::warn!(%failure, name, version, "a bundle that was put could not be published");
            Err(Code::StorageError)
        }
    }
}

async fn checked(node: &Node, name: &str, version: &str, path: &Path) -> Result<Signed<Manifest>, Refused> {
    let _turn = node.publishing().lock().await;
    let desk = desk_of(node).await?;
    let (checking, path) = ((node.clone(), desk.clone()), path.to_owned());
    let bundle = blocking(move || OpenBundle::open(&path)).await.map_err(|_| Refused::Invalid("file"))?;
    let manifest = bundle.head.manifest.clone();
    let content = manifest.content();
    if content.name.as_str() != name || content.version.to_string() != version {
        return Err(Refused::Told(Code::InvalidField));
    }
    let (app, before) = admitted(&checking.0, &desk, &manifest)?;
    let (tar, records, bundle) = blocking(move || {
        let mut plain = ContentWriter::new(checking.0.store().clone());
        let kept = bundle.with_payload(|payload| {
            let mut both = Tee { payload, plain: &mut plain };
            check(&bundle.head.manifest.content().files, &mut both, &mut |_| ())
        });
        // A store that failed says why; the check only saw that nobody took its bytes.
        let records = plain.finish()?;
        kept?;
        let tar = records.last().map(|record| record.address().clone());
        let tar = tar.ok_or_else(|| Failure::failed("release", "the content was not stored"))?;
        Ok((tar, records, bundle))
    })
    .await?;
    let source = Source { payload: Payload::Bundle(Box::new(bundle)), tar, records };
    bring_out(node, &desk, app, before.last(), manifest.clone(), source).await?;
    Ok(manifest)
}

/// The app, and the entries of the channel that the manifest goes on from.
fn admitted(node: &Node, desk: &Desk, manifest: &Signed<Manifest>) -> Result<(App, Vec<super::app::Entry>), Refused> {
    let content = manifest.content();
    let own = node.id().to_string();
    let app = App::find(node, &content.name)?.filter(|app| app.is_by(&own) && app.registry == content.registry);
    let app = app.ok_or(Refused::Invalid("registry"))?;
    if !desk.counts(manifest) {
        return Err(Refused::Invalid("key"));
    }
    if content.expiry.is_some_and(|end| now().wall_ms >= end) {
        return Err(Refused::Invalid("expiry"));
    }
    let (line, earlier) = own_line(&app, &content.channel)?;
    if earlier.iter().any(|known| known.content().version == content.version) {
        return Err(Refused::Told(Code::StateConflict));
    }
    let newest = earlier.last();
    if content.seq != newest.map_or(1, |newest| newest.content().seq + 1) {
        return Err(Refused::Invalid("seq"));
    }
    if content.prev != newest.map(Signed::hash) {
        return Err(Refused::Invalid("prev"));
    }
    // Whoever means to go back says so on the command line.
    if newest.is_some_and(|newest| newest.content().version > content.version) {
        return Err(Refused::Invalid("version"));
    }
    Ok((app, line))
}

/// Reads the plain tar, and stores it on the way.
struct Tee<'a> {
    payload: &'a mut dyn Read,
    plain: &'a mut ContentWriter,
}

impl Read for Tee<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.payload.read(bytes)?;
        self.plain.write_all(&bytes[..read])?;
        Ok(read)
    }
}
