//! Bumps and reverts that change the registry and the files of a source tree together. Spec: gateway §8.4.

use std::path::Path;

use sealtide_gateway::{Bumped, Notice, Way};
use sealtide_ibgib::Verified;
use sealtide_identity::keyring::{Algorithm, KeyVersion};
use sealtide_releases::{BumpRequest, Registry};
use serde_json::{Value, json};

use super::bumps::{BumpRefused, is_writer, not_stored, plan_of};
use super::desk::{Desk, Turn};
use super::timelines::{Frames, member};
use super::tree::{self, About, Transaction, TreeFile, TreeRefused};
use crate::audit::AuditEvent;
use crate::failpoint;

/// A bump of a tree that is done, or that was only tried.
#[derive(Clone, Debug)]
pub struct TreeBumped {
    /// What became of the registry.
    pub bumped: Bumped,
    /// Path and number of places of each file that changed, or would.
    pub files: Vec<(String, usize)>,
    /// Its name, for `release revert`; none when it was only tried.
    pub transaction: Option<String>,
}

/// A transaction that was taken back.
#[derive(Clone, Debug)]
pub struct Reverted {
    /// The revision of the registry now.
    pub revision: u64,
    /// The files that are as they were.
    pub files: Vec<String>,
    /// The name of the transaction that did it.
    pub transaction: String,
}

impl Desk {
    /// Bumps the registry and the files of a tree.
    ///
    /// # Errors
    /// [`BumpRefused`]; then neither registry nor files changed.
    // Spec: GW-70
    pub fn bump_tree(
        &self,
        request: &BumpRequest,
        expect: Option<u64>,
        root: &Path,
    ) -> Result<TreeBumped, BumpRefused> {
        let mut turn = self.turn();
        is_writer(&turn)?;
        self.recover_tree(root)?;
        let target = request.entity.as_deref().unwrap_or_default();
        self.note_event(
            AuditEvent::normal("VALIDATION_START")
                .member("entity", target)
                .member("timestamp", sealtide_gateway::App::wall_ms(self)),
        );
        let prepared = plan_of(&turn.ahead, request, expect).and_then(|plan| {
            let files = tree::prepare(root, &plan.file_edits().map_err(TreeRefused::from)?)?;
            Ok((plan, files))
        });
        let (plan, files) = prepared.inspect_err(|refused| {
            self.note_event(
                AuditEvent::new("bump:transaction:validation_failed", "#FF0000")
                    .member("[ENTITY_ID]", target)
                    .member("[ERROR_DETAILS]", refused),
            );
        })?;
        let told: Vec<(String, usize)> = files.iter().map(|file| (file.path.clone(), file.matches)).collect();
        let kind = if request.entity.is_some() { "targeted" } else { "global" };
        if request.dry_run {
            let (bumped, _) = self.bump_in(&mut turn, request, Way::Rest, expect)?;
            return Ok(TreeBumped { bumped, files: told, transaction: None });
        }
        let algorithm = Algorithm::HmacSha256;
        let signed = self.sign(&mut turn, &plan, request.key_version, algorithm, false)?;
        let changes = plan.changes.iter();
        let about = About {
            kind,
            entity: request.entity.clone(),
            versions: changes
                .map(|change| (change.entity_id.clone(), change.old_version.clone(), change.new_version.clone()))
                .collect(),
            revision: plan.after.revision(),
        };
        let transaction = self.transact(&mut turn, root, files, &about, &plan.after, signed.version)?;
        self.note_signed(&signed);
        let timestamp = sealtide_gateway::App::wall_ms(self);
        let (key_version, revision) = (signed.version, plan.after.revision());
        let bumped = Bumped { plan, signed: Some(signed), key_version, timestamp, revision };
        self.notify(Notice::VersionChanged(bumped.answer().broadcast().into()));
        Ok(TreeBumped { bumped, files: told, transaction: Some(transaction) })
    }

    /// Takes a transaction of a tree back: the files are as they were, and so are the versions, one revision later.
    ///
    /// # Errors
    /// [`BumpRefused`]; then neither registry nor files changed.
    // Spec: GW-71
    pub fn revert_tree(&self, id: &str, root: &Path) -> Result<Reverted, BumpRefused> {
        let mut turn = self.turn();
        is_writer(&turn)?;
        self.recover_tree(root)?;
        let (versions, files, after) = {
            let state = self.read();
            let (transaction, manifest) = Transaction::read(root, id, &state.ring)?;
            if manifest["status"] != "committed" {
                let status = manifest["status"].as_str().unwrap_or("damaged").to_owned();
                return Err(TreeRefused::Status { id: id.to_owned(), status }.into());
            }
            let versions = versions_back(&manifest).ok_or_else(|| TreeRefused::Manifest(id.to_owned()))?;
            for (entity, now, _) in &versions {
                let found = turn.ahead.entity(entity).map(|entity| entity.current_version().to_owned());
                if found.as_ref() != Some(now) {
                    return Err(TreeRefused::Moved(entity.clone()).into());
                }
            }
            let files = transaction.reversed()?;
            let back: Vec<(String, String)> =
                versions.iter().map(|(entity, _, to)| (entity.clone(), to.clone())).collect();
            let after = turn.ahead.with_versions(&back).ok_or(BumpRefused::Store)?;
            (versions, files, after)
        };
        let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
        let about = About { kind: "revert", entity: None, versions, revision: after.revision() };
        let version = self.read().ring.ledger().tip().active();
        let transaction = self.transact(&mut turn, root, files, &about, &after, version)?;
        self.note_event(
            AuditEvent::normal("bump:revert:success")
                .member("[BUMP_TRANSACTION_ID]", id)
                .member("[BUMP_TYPE]", "REVERT")
                .member("[BACKUP_DIR]", format!("{}/{id}", tree::BACKUPS))
                .member("[FILES_RESTORED]", paths.len())
                .member("[STATUS]", "SUCCESS"),
        );
        Ok(Reverted { revision: after.revision(), files: paths, transaction })
    }

    /// Files and registry together.
    fn transact(
        &self,
        turn: &mut Turn,
        root: &Path,
        files: Vec<TreeFile>,
        about: &About,
        after: &Registry,
        version: KeyVersion,
    ) -> Result<String, BumpRefused> {
        let (count, matches) = (files.len(), files.iter().map(|file| file.matches).sum::<usize>());
        let mut transaction = Transaction::new(root, files, about);
        let id = transaction.id.clone();
        let event = |name: &str, hsl: &'static str| {
            AuditEvent::new(name, hsl)
                .member("[BUMP_TRANSACTION_ID]", &id)
                .member("[BUMP_TYPE]", about.kind)
                .member("[TARGET_TYPE]", if about.entity.is_some() { "targeted" } else { "global" })
                .member("[ENTITY_ID]", about.entity.as_deref().unwrap_or_default())
                .member("[AFFECTED_ENTITIES]", about.versions.len())
                .member("[TOTAL_MATCHES]", matches)
        };
        self.note_event(event("bump:transaction:start", "#9D4EDD"));
        self.note_event(event("bump:transaction:preparation_start", "#9D4EDD"));
        let staged = transaction.stage(&self.read().ring);
        failpoint::hit("tree_staged");
        let done = staged.map_err(BumpRefused::from).and_then(|()| {
            transaction.swap()?;
            failpoint::hit("tree_swapped");
            self.commit_revision(turn, after, version, Some(&id))
        });
        if let Err(refused) = done {
            if let Err(error) = transaction.restore(&self.read().ring) {
                tracing::error!(%error, "files of a bump that failed were not all put back");
            }
            self.note_event(
                event("bump:transaction:failed", "#FF0000")
                    .member("[STATUS]", "FAILURE")
                    .member("[ERROR_DETAILS]", &refused),
            );
            return Err(refused);
        }
        failpoint::hit("tree_committed");
        if let Some((prefix, at)) = transaction.signature() {
            self.note_event(
                AuditEvent::normal("bump:manifest:signed")
                    .member("[BUMP_TRANSACTION_ID]", &id)
                    .member("[SIGNATURE_PREFIX]", prefix)
                    .member("[SIGNED_AT]", at),
            );
        }
        // The registry names the transaction: it is done, even if this cannot be written down.
        if let Err(error) = transaction.commit(&self.read().ring) {
            tracing::error!(%error, "the manifest of a bump was not written; the next one does it");
        }
        self.note_event(
            event("bump:transaction:committed", "#9D4EDD")
                .member("[FILES_CHANGED]", count)
                .member("[STATUS]", "SUCCESS"),
        );
        Ok(id)
    }

    fn recover_tree(&self, root: &Path) -> Result<(), BumpRefused> {
        let frames = Frames { store: self.store(), space: self.space(), ib: "registry" };
        // A registry that cannot be read says neither yes nor no.
        let is_done = |id: &str| {
            let names_it = |frame: &Verified| member(frame, "transaction") == json!(id);
            frames.any_back(names_it).map_err(|failure| not_stored(&failure))
        };
        for id in tree::recover(root, &self.read().ring, is_done)? {
            tracing::warn!(id, "a bump of a source tree that was cut is finished or taken back");
        }
        Ok(())
    }
}

/// Entity, its version now, its version before.
fn versions_back(manifest: &Value) -> Option<Vec<(String, String, String)>> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let back = |row: &Value| Some((text(&row["entityId"])?, text(&row["to"])?, text(&row["from"])?));
    manifest["versions"].as_array()?.iter().map(back).collect()
}
