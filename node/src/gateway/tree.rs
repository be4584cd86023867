//! Versions in the files of a source tree, changed all or not at all. Spec: gateway §8.4.
//!
//! ```text
//! prepare in memory ─▶ backups, temporaries, manifest `prepared` ─▶ renames ─▶ registry ─▶ manifest `committed`
//!                                          a crash here: put back ◀──────┘        │
//!                                                             a crash here: done ◀┘
//! ```
//!
//! `.bump_backups/<id>/` holds the originals by number and the manifest. The commit of the registry, whose frame names the
//! transaction, decides: with it a transaction that was cut is done, without it the originals come back.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sealtide_crypto::{Ed25519PublicKey, Entropy, GatewayContext, sha256};
use sealtide_ibgib::json::{Js, write_rfc8785};
use sealtide_identity::keyring::{Algorithm, KeyVersion, Keyring, PublicKeyEntry, decode_signature, write_time};
use sealtide_releases::{EditError, FileEdit};
use serde_json::{Value, json};

use crate::failpoint;
use crate::real::now;
use crate::world::OsEntropy;

/// Where the originals are.
pub(super) const BACKUPS: &str = ".bump_backups";
const MANIFEST: &str = ".manifest.json";
/// Bytes of a file whose version moves, at most.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Bytes of a manifest, at most.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Why the files of a tree stay as they are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeRefused {
    /// The root is no directory.
    #[error("{0} is no directory")]
    Root(PathBuf),
    /// A file that must be there is not.
    #[error("{0} is not there, and must be")]
    Missing(String),
    /// A path leaves the tree, or leads over a link.
    #[error("{0} leads out of the tree, or over a link")]
    Outside(String),
    /// A file is too large, or no text.
    #[error("{0} is no text of at most 16 MiB")]
    NotText(String),
    /// A pattern.
    #[error("{0}")]
    Edit(#[from] EditError),
    /// A file is another one than it was.
    #[error("{0} changed in the meantime")]
    Changed(String),
    /// There is no such transaction, or its name is none.
    #[error("{0} is no transaction of this tree")]
    Unknown(String),
    /// The manifest of a transaction is damaged, or not signed by a key that counts.
    #[error("the manifest of transaction {0} does not verify")]
    Manifest(String),
    /// Only what was done can be taken back.
    #[error("transaction {id} is {status}")]
    Status {
        /// Which.
        id: String,
        /// What became of it.
        status: String,
    },
    /// The registry went on since.
    #[error("{0} is at another version than the transaction left it at")]
    Moved(String),
    /// The disk.
    #[error("{path}: {error}")]
    Io {
        /// At which file.
        path: PathBuf,
        /// What.
        error: std::io::Error,
    },
}

/// One file, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TreeFile {
    pub(super) path: String,
    pub(super) before: Vec<u8>,
    pub(super) after: Vec<u8>,
    pub(super) matches: usize,
}

/// What a transaction is about, as its manifest says.
#[derive(Clone, Debug)]
pub(super) struct About {
    /// `targeted`, `global` or `revert`.
    pub(super) kind: &'static str,
    pub(super) entity: Option<String>,
    /// Entity, version before, version after.
    pub(super) versions: Vec<(String, String, String)>,
    /// The revision that the registry gets.
    pub(super) revision: u64,
}

/// A transaction whose files are known and not touched yet.
pub(super) struct Transaction {
    root: PathBuf,
    dir: PathBuf,
    pub(super) id: String,
    pub(super) files: Vec<TreeFile>,
    manifest: Value,
}

/// Works out what the files say afterwards; nothing is written.
///
/// # Errors
/// [`TreeRefused`].
// Spec: GW-70
pub(super) fn prepare(root: &Path, edits: &[FileEdit]) -> Result<Vec<TreeFile>, TreeRefused> {
    if !root.is_dir() {
        return Err(TreeRefused::Root(root.to_owned()));
    }
    let mut files = Vec::new();
    for edit in edits {
        let full = inside(root, &edit.path)?;
        let before = match read_file(&full, &edit.path) {
            Err(TreeRefused::Io { error, .. }) if error.kind() == std::io::ErrorKind::NotFound => {
                if edit.is_required {
                    return Err(TreeRefused::Missing(edit.path.clone()));
                }
                continue;
            }
            read => read?,
        };
        let text = std::str::from_utf8(&before).map_err(|_| TreeRefused::NotText(edit.path.clone()))?;
        let (after, matches) = edit.apply(text)?;
        if after.as_bytes() != before {
            files.push(TreeFile { path: edit.path.clone(), after: after.into_bytes(), before, matches });
        }
    }
    Ok(files)
}

impl Transaction {
    pub(super) fn new(root: &Path, files: Vec<TreeFile>, about: &About) -> Self {
        let id = new_uuid();
        let dir = root.join(BACKUPS).join(&id);
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let hash = |bytes: &[u8]| HEXLOWER.encode(&sha256(bytes));
        let change = |file: &TreeFile| json!({"path": file.path, "before": hash(&file.before), "after": hash(&file.after), "matches": file.matches});
        let version =
            |(entity, from, to): &(String, String, String)| json!({"entityId": entity, "from": from, "to": to});
        let entities: Vec<&str> = about.versions.iter().map(|(entity, ..)| entity.as_str()).collect();
        let mut manifest = json!({
            "transactionId": id,
            "type": about.kind,
            "timestamp": write_time(now().wall_ms),
            "status": "prepared",
            "affectedEntities": entities,
            "backedUpFiles": paths,
            "fileChanges": files.iter().map(change).collect::<Vec<_>>(),
            "versions": about.versions.iter().map(version).collect::<Vec<_>>(),
            "revision": about.revision,
        });
        if let Some(entity) = &about.entity {
            manifest["entityId"] = json!(entity);
        }
        Self { root: root.to_owned(), dir, id, files, manifest }
    }

    /// Writes backups, temporaries and the manifest; the files themselves stay.
    ///
    /// # Errors
    /// [`TreeRefused::Io`]; then only leftovers are there, which nobody reads.
    pub(super) fn stage(&mut self, ring: &Keyring) -> Result<(), TreeRefused> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(io(&self.dir))?;
        write_new(
            &self.dir.join(".timestamp"),
            self.manifest["timestamp"].as_str().unwrap_or_default().as_bytes(),
            0o600,
        )?;
        write_new(&self.dir.join(".transaction-id"), self.id.as_bytes(), 0o600)?;
        for (number, file) in self.files.iter().enumerate() {
            let full = inside(&self.root, &file.path)?;
            let mode = fs::metadata(&full).map_err(io(&full))?.permissions().mode();
            write_new(&self.dir.join(number.to_string()), &file.before, 0o600)?;
            write_new(&self.temporary(&full), &file.after, mode)?;
        }
        self.write_manifest("prepared", ring)
    }

    /// Puts the temporaries in the place of the files.
    ///
    /// # Errors
    /// [`TreeRefused`]; the caller restores.
    pub(super) fn swap(&self) -> Result<(), TreeRefused> {
        for file in &self.files {
            let full = inside(&self.root, &file.path)?;
            if read_file(&full, &file.path)? != file.before {
                return Err(TreeRefused::Changed(file.path.clone()));
            }
            rename(&self.temporary(&full), &full)?;
            failpoint::hit("tree_renamed");
        }
        Ok(())
    }

    /// Writes down that it is done.
    pub(super) fn commit(&mut self, ring: &Keyring) -> Result<(), TreeRefused> {
        self.write_manifest("committed", ring)
    }

    /// Brings the originals back.
    ///
    /// # Errors
    /// [`TreeRefused`] for a file that is neither the one before nor the one after: somebody else's work is left alone.
    pub(super) fn restore(&mut self, ring: &Keyring) -> Result<(), TreeRefused> {
        for file in &self.files {
            let full = inside(&self.root, &file.path)?;
            let now = read_file(&full, &file.path)?;
            let temporary = self.temporary(&full);
            let _ = fs::remove_file(&temporary);
            if now == file.after {
                let mode = fs::metadata(&full).map_err(io(&full))?.permissions().mode();
                write_new(&temporary, &file.before, mode)?;
                rename(&temporary, &full)?;
            } else if now != file.before {
                return Err(TreeRefused::Changed(file.path.clone()));
            }
        }
        self.write_manifest("rolled-back", ring)
    }

    fn temporary(&self, full: &Path) -> PathBuf {
        let name = full.file_name().unwrap_or_default().to_string_lossy();
        full.with_file_name(format!(".{name}.{}", &self.id[..8]))
    }

    /// The beginning of the manifest's signature, and when it was made.
    pub(super) fn signature(&self) -> Option<(String, &str)> {
        let text = self.manifest["signature"].as_str()?;
        Some((text.chars().take(16).collect(), self.manifest["signedAt"].as_str()?))
    }

    fn write_manifest(&mut self, status: &str, ring: &Keyring) -> Result<(), TreeRefused> {
        self.manifest["status"] = json!(status);
        self.manifest["signedAt"] = json!(write_time(now().wall_ms));
        sign(&mut self.manifest, ring);
        let path = self.dir.join(MANIFEST);
        let temporary = self.dir.join(".manifest.new");
        let _ = fs::remove_file(&temporary);
        write_new(&temporary, self.manifest.to_string().as_bytes(), 0o600)?;
        rename(&temporary, &path)
    }

    /// Reads a transaction of a tree that is to be taken back, with the originals and what the files said afterwards.
    ///
    /// # Errors
    /// [`TreeRefused`] for a name that is no UUID, a manifest that does not verify, a backup that is not what it names.
    // Spec: GW-71
    pub(super) fn read(root: &Path, id: &str, ring: &Keyring) -> Result<(Self, Value), TreeRefused> {
        let (dir, manifest) = read_manifest(root, id)?;
        if !verifies(&manifest, ring) {
            return Err(TreeRefused::Manifest(id.to_owned()));
        }
        Ok((Self::of(root, id, dir, manifest.clone())?, manifest))
    }

    /// A transaction with this manifest, which verifies.
    fn of(root: &Path, id: &str, dir: PathBuf, manifest: Value) -> Result<Self, TreeRefused> {
        let bad = || TreeRefused::Manifest(id.to_owned());
        let mut files = Vec::new();
        for (number, change) in manifest["fileChanges"].as_array().ok_or_else(bad)?.iter().enumerate() {
            let name = change["path"].as_str().ok_or_else(bad)?;
            let before = fs::read(dir.join(number.to_string())).map_err(|_| bad())?;
            if json!(HEXLOWER.encode(&sha256(&before))) != change["before"] {
                return Err(bad());
            }
            files.push(TreeFile { path: name.to_owned(), before, after: Vec::new(), matches: 0 });
        }
        Ok(Self { root: root.to_owned(), dir, id: id.to_owned(), files, manifest })
    }

    /// Finds out what the files say now, which must be what the manifest says they said afterwards or before.
    fn look(&mut self) -> Result<(), TreeRefused> {
        for (number, file) in self.files.iter_mut().enumerate() {
            let full = inside(&self.root, &file.path)?;
            let now = read_file(&full, &file.path)?;
            let after = &self.manifest["fileChanges"][number]["after"];
            if *after == json!(HEXLOWER.encode(&sha256(&now))) {
                file.after = now;
            } else if now != file.before {
                return Err(TreeRefused::Changed(file.path.clone()));
            }
        }
        Ok(())
    }

    /// The files of a transaction the other way round, for who takes it back: each must be as it was left.
    ///
    /// # Errors
    /// [`TreeRefused::Changed`].
    pub(super) fn reversed(mut self) -> Result<Vec<TreeFile>, TreeRefused> {
        self.look()?;
        let back = |file: TreeFile| {
            let TreeFile { path, before, after, matches } = file;
            // A version is never empty, so neither is a file that holds one.
            if after.is_empty() {
                return Err(TreeRefused::Changed(path));
            }
            Ok(TreeFile { path, before: after, after: before, matches })
        };
        self.files.into_iter().map(back).collect()
    }
}

/// Finishes what a crash cut: `is_done` says whether the registry names a transaction. Those that are over are not looked at: they may
/// be signed by a version that ended since.
///
/// # Errors
/// [`TreeRefused`]; a transaction that cannot be finished stops the next one. What `is_done` reports.
// Spec: GW-70
pub(super) fn recover<E: From<TreeRefused>>(
    root: &Path,
    ring: &Keyring,
    is_done: impl Fn(&str) -> Result<bool, E>,
) -> Result<Vec<String>, E> {
    let Ok(entries) = fs::read_dir(root.join(BACKUPS)) else { return Ok(Vec::new()) };
    let mut ids: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| is_uuid(name)).collect();
    ids.sort();
    let mut finished = Vec::new();
    for id in ids {
        // Without a manifest nothing was touched yet.
        if !root.join(BACKUPS).join(&id).join(MANIFEST).exists() {
            continue;
        }
        let (dir, manifest) = read_manifest(root, &id)?;
        if manifest["status"] != "prepared" {
            continue;
        }
        if !was_signed(&manifest, ring) {
            return Err(TreeRefused::Manifest(id).into());
        }
        let mut transaction = Transaction::of(root, &id, dir, manifest)?;
        if is_done(&id)? {
            transaction.commit(ring)?;
        } else {
            transaction.look()?;
            transaction.restore(ring)?;
        }
        finished.push(id);
    }
    Ok(finished)
}

/// Where a transaction is, and its manifest as it stands there: whether it verifies is not looked at.
fn read_manifest(root: &Path, id: &str) -> Result<(PathBuf, Value), TreeRefused> {
    if !is_uuid(id) {
        return Err(TreeRefused::Unknown(id.to_owned()));
    }
    let dir = root.join(BACKUPS).join(id);
    let unknown = || TreeRefused::Unknown(id.to_owned());
    let is_link = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let path = dir.join(MANIFEST);
    if is_link(&root.join(BACKUPS)) || is_link(&dir) || is_link(&path) {
        return Err(unknown());
    }
    let length = fs::metadata(&path).map_err(|_| unknown())?.len();
    let bad = || TreeRefused::Manifest(id.to_owned());
    let text = if length <= MANIFEST_BYTES_MAX { fs::read(&path).map_err(io(&path))? } else { return Err(bad()) };
    let manifest: Value = serde_json::from_slice(&text).map_err(|_| bad())?;
    if manifest["transactionId"] != id {
        return Err(bad());
    }
    Ok((dir, manifest))
}

/// Signs a manifest: Ed25519 of the active version, or HMAC where it has no pair.
fn sign(manifest: &mut Value, ring: &Keyring) {
    let version = ring.ledger().tip().active();
    let Some(keys) = ring.keys(version) else { return };
    let pair = keys.public_keys().pop();
    manifest["keyVersion"] = json!(version.to_string());
    manifest["alg"] = json!(if pair.is_some() { Algorithm::Ed25519.name() } else { Algorithm::HmacSha256.name() });
    manifest["kid"] = json!(pair.map_or_else(|| keys.hmac_kid(), |key| key.kid));
    let signed = signed_bytes(manifest);
    let text = keys.ed25519(GatewayContext::Manifest, &signed).unwrap_or_else(|| keys.hmac(&signed));
    manifest["signature"] = json!(text);
}

/// Whether the signature of a manifest counts now.
fn verifies(manifest: &Value, ring: &Keyring) -> bool {
    signature_in(manifest, ring).is_some_and(|(version, algorithm, signature)| {
        let signed = signed_bytes(manifest);
        ring.verify(&signed, GatewayContext::Manifest, algorithm, version, signature, now().wall_ms).valid
    })
}

/// Whether a version of this ledger signed a manifest, also one that ended since: what was begun in its time is finished after it.
fn was_signed(manifest: &Value, ring: &Keyring) -> bool {
    let Some((version, algorithm, signature)) = signature_in(manifest, ring) else { return false };
    let signed = signed_bytes(manifest);
    if algorithm != Algorithm::Ed25519 {
        return ring.keys(version).is_some_and(|keys| keys.hmac_verifies(&signed, signature));
    }
    let of_version = |key: &&PublicKeyEntry| key.version == version && key.algorithm == algorithm;
    let key =
        ring.ledger().keys().iter().find(of_version).and_then(|key| Ed25519PublicKey::parse(&key.public_key).ok());
    key.zip(decode_signature(algorithm, signature))
        .is_some_and(|(key, signature)| key.verify_alone(GatewayContext::Manifest, &signed, &signature).is_ok())
}

/// Which version signed a manifest and how, as it says itself. The version decides which algorithm counts, not the manifest.
fn signature_in<'a>(manifest: &'a Value, ring: &Keyring) -> Option<(KeyVersion, Algorithm, &'a str)> {
    let text = |name: &str| manifest[name].as_str();
    let version = text("keyVersion").and_then(KeyVersion::parse)?;
    let algorithm = text("alg").and_then(Algorithm::named)?;
    let has_pair = ring.ledger().keys().iter().any(|key| key.version == version);
    ((algorithm == Algorithm::Ed25519) == has_pair).then_some((
        version,
        algorithm,
        text("signature").unwrap_or_default(),
    ))
}

fn signed_bytes(manifest: &Value) -> Vec<u8> {
    let mut unsigned = manifest.clone();
    unsigned.as_object_mut().map(|object| object.shift_remove("signature"));
    write_rfc8785(&Js::from(&unsigned)).unwrap_or_default().into_bytes()
}

/// A path below the root that leads over no link.
fn inside(root: &Path, path: &str) -> Result<PathBuf, TreeRefused> {
    let outside = || TreeRefused::Outside(path.to_owned());
    let mut full = root.to_owned();
    for name in path.split('/') {
        if matches!(name, "" | "." | "..") || name.contains(['\\', '\0']) {
            return Err(outside());
        }
        full.push(name);
        if fs::symlink_metadata(&full).is_ok_and(|meta| meta.is_symlink()) {
            return Err(outside());
        }
    }
    Ok(full)
}

fn read_file(full: &Path, path: &str) -> Result<Vec<u8>, TreeRefused> {
    let meta = fs::metadata(full).map_err(io(full))?;
    if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
        return Err(TreeRefused::NotText(path.to_owned()));
    }
    fs::read(full).map_err(io(full))
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TreeRefused> {
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io(path))
}

fn rename(from: &Path, to: &Path) -> Result<(), TreeRefused> {
    fs::rename(from, to).map_err(io(to))?;
    let folder = to.parent().unwrap_or(to);
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io(folder))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> TreeRefused {
    let path = path.to_owned();
    move |error| TreeRefused::Io { path: path.clone(), error }
}

/// A random UUID (version 4).
fn new_uuid() -> String {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// `8-4-4-4-12` lower-case hex digits: nothing that could be a path.
fn is_uuid(text: &str) -> bool {
    let lengths = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'));
    parts.len() == lengths.len() && parts.iter().zip(lengths).all(|(part, length)| part.len() == length && hex(part))
}
