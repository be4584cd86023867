//! The home directory of a node: its key, its store and what belongs to them.
//!
//! ```text
//! HOME/
//!   node.key        32-byte ML-DSA-87 seed as hex, mode 0600
//!   identity.key    secrets of the own keystones, mode 0600 (spec/identity.md)
//!   gateway.key     the gateway's own signing key and the epoch of its ledger, mode 0600 (spec/gateway.md)
//!   relay.token     lets nodes into the relay that runs here with `--admit token`, mode 0600
//!   seal.key        where a passphrase is set: what seals the four files above
//!   bearers         digests of the bearer tokens that the gateway takes, optional
//!   config.toml     settings, optional
//!   store/          packs and facts (spec/store.md), locked by one process
//!   folders/        one scan cache for each shared folder
//!   audit/          what happened, hash-chained lines
//!   control.sock    the door of the running node for commands of the same user
//! ```

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use sealtide_crypto::{Passphrase, SealingKey, Seed, SigningKey};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::{OpenError, Store};
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};
use crate::seal::{self, SecretFile};
use crate::world::OsEntropy;

/// What to do where a home cannot be used as it is.
const RESCUE: &str = "`sealtide backup restore` where there is a backup; or move this home away and `sealtide join` anew, a peer that is in \
    step holds good copies (an owner whose words are at hand is an admin again by `sealtide identity recover`)";
/// How long to wait for whoever uses the store: a command that looks something up is done by then, a node that stops too …
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// … and how often to look.
const LOCK_LOOK: Duration = Duration::from_millis(20);

/// Bytes of a Unix socket path that every system takes.
const SOCKET_PATH_MAX: usize = 100;

/// The home directory of a node.
#[derive(Clone, Debug)]
pub struct Home {
    root: PathBuf,
    /// Names a file with the passphrase; without one a person is asked.
    passphrase_file: Option<PathBuf>,
    /// The open seal, so that a person is asked once.
    seal: Arc<Mutex<Option<SealingKey>>>,
}

/// Who this node is.
#[derive(Clone)]
pub struct Identity {
    /// The node key.
    pub key: Arc<SigningKey>,
    /// Its hash.
    pub id: NodeId,
}

impl Home {
    /// A home at `root`; nothing is touched.
    pub fn new(root: PathBuf) -> Self {
        Self { root, passphrase_file: None, seal: Arc::default() }
    }

    /// Takes the passphrase from a file instead of asking for it.
    #[must_use]
    pub fn with_passphrase_file(self, file: Option<PathBuf>) -> Self {
        Self { passphrase_file: file, ..self }
    }

    /// Takes the open seal: nobody is asked for the passphrase again.
    #[must_use]
    pub(crate) fn with_seal(self, seal: Option<SealingKey>) -> Self {
        Self { seal: Arc::new(Mutex::new(seal)), ..self }
    }

    /// The key that seals the secret files; `None` where no passphrase is set.
    ///
    /// # Errors
    /// Exit 12 when the passphrase is wrong or cannot be asked for.
    pub fn seal(&self) -> Result<Option<SealingKey>, Failure> {
        let mut open = self.seal.lock().unwrap_or_else(PoisonError::into_inner);
        if !seal::is_sealed(&self.seal_path()) {
            *open = None;
        } else if open.is_none() {
            *open = seal::open(&self.seal_path(), self.passphrase_file.as_deref())?;
        }
        Ok(open.clone())
    }

    /// Seals the secrets of this home by a new passphrase, or by a new one instead of the old one. The caller holds the
    /// lock of the store: no node runs.
    ///
    /// # Errors
    /// As [`Home::seal`], and when a file cannot be written.
    pub fn set_passphrase(&self, passphrase: &Passphrase) -> Result<(), Failure> {
        let key = self.seal()?.unwrap_or_else(|| SealingKey::generate(&mut OsEntropy));
        seal::write(&self.seal_path(), &key, passphrase)?;
        *self.seal.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        // Reading seals what still lies open; after a crash the next start does.
        self.secrets(Some(&key)).try_for_each(|file| file.read().map(drop).map_err(|error| file.failure(error)))
    }

    /// Takes the passphrase away: the secrets lie open, for this user only. The caller holds the lock of the store.
    ///
    /// # Errors
    /// As [`Home::seal`], and when a file cannot be written.
    pub fn remove_passphrase(&self) -> Result<(), Failure> {
        let Some(key) = self.seal()? else { return Ok(()) };
        for (sealed, open) in self.secrets(Some(&key)).zip(self.secrets(None)) {
            if let Some(text) = sealed.read().map_err(|error| sealed.failure(error))? {
                open.write(&text).map_err(|error| open.failure(error))?;
            }
        }
        fs::remove_file(self.seal_path())?;
        *self.seal.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(fs::File::open(&self.root).and_then(|dir| dir.sync_all())?)
    }

    fn secrets(&self, seal: Option<&SealingKey>) -> impl Iterator<Item = SecretFile> {
        let seal = seal.cloned();
        [self.key_path(), self.identity_key_path(), self.gateway_key_path(), self.relay_token_path()]
            .into_iter()
            .map(move |path| SecretFile::new(path, seal.clone()))
    }

    fn seal_path(&self) -> PathBuf {
        self.root.join("seal.key")
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a node was made here.
    pub fn exists(&self) -> bool {
        self.key_path().exists()
    }

    fn has_lost_its_key(&self) -> bool {
        // In this order: whoever makes both at this moment makes the key first.
        self.root.join("store").join("format").exists() && !self.exists()
    }

    fn key_path(&self) -> PathBuf {
        self.root.join("node.key")
    }

    /// Where the secrets of the own keystones are.
    pub fn identity_key_path(&self) -> PathBuf {
        self.root.join("identity.key")
    }

    /// Where the gateway's own signing key is.
    pub fn gateway_key_path(&self) -> PathBuf {
        self.root.join("gateway.key")
    }

    /// Where the token of the relay that runs here is.
    pub(crate) fn relay_token_path(&self) -> PathBuf {
        self.root.join("relay.token")
    }

    /// Digests of the bearer tokens that the gateway takes.
    pub fn bearers_path(&self) -> PathBuf {
        self.root.join("bearers")
    }

    /// Where the audit lines are.
    pub fn audit_dir(&self) -> PathBuf {
        self.root.join("audit")
    }

    /// The default place of the settings.
    pub fn config_path(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The scan cache of the folder of a space. Whoever makes an id chooses how it begins, so all of it is in the name.
    pub fn folder_state(&self, space: &SpaceId) -> PathBuf {
        self.root.join("folders").join(format!("{space}.redb"))
    }

    /// Gives the scan caches of earlier versions, which were named by the beginning of the id, their name of now. One that may be that of
    /// several of these spaces is removed: then their folders are compared anew, and nothing looks deleted.
    pub(crate) fn rename_folder_states(&self, kept: &[SpaceId]) {
        for space in kept {
            let old = self.root.join("folders").join(format!("{}.redb", space.short()));
            let is_its_own = kept.iter().filter(|other| other.short() == space.short()).count() == 1;
            let new = self.folder_state(space);
            let done = match is_its_own && !new.exists() {
                true => fs::rename(&old, &new),
                false => fs::remove_file(&old),
            };
            if let Err(error) =
                done.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
            {
                tracing::warn!(file = %old.display(), %error, "the notes about a folder could not be renamed");
            }
        }
    }

    /// The control socket: in the home, or in the runtime directory when that path is too long for a socket.
    pub fn control_socket(&self) -> PathBuf {
        self.socket("control.sock", "")
    }

    /// The socket of a relay that runs on this home, in the same places.
    pub fn relay_socket(&self) -> PathBuf {
        self.socket("relay.sock", "relay-")
    }

    fn socket(&self, name: &str, kind: &str) -> PathBuf {
        let path = self.root.join(name);
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return path;
        }
        let digest = sealtide_crypto::sha256(self.root.as_os_str().as_encoded_bytes());
        let base = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        base.join(format!("sealtide-{kind}{}.sock", HEXLOWER.encode(&digest[..8])))
    }

    /// Makes the node key if there is none. Returns the identity, and whether it is new.
    ///
    /// # Errors
    /// When the home cannot be written or the key file is damaged or readable by others, or when there is a store without its key.
    pub fn init(&self) -> Result<(Identity, bool), Failure> {
        if self.has_lost_its_key() {
            // A new one would be another node, over the data of this one.
            return Err(self.no_store());
        }
        self.init_over()
    }

    /// As [`Home::init`], over the store of another node where there is one.
    ///
    /// # Errors
    /// As [`Home::init`].
    pub(crate) fn init_over(&self) -> Result<(Identity, bool), Failure> {
        let mut made = !self.exists();
        if made {
            self.make_root()?;
            // Another process may come first: then its key is that of the node.
            made = self.make_key(&Seed::generate(&mut OsEntropy))?;
        }
        for dir in ["folders", "audit", "store"] {
            self.make_dir(&self.root.join(dir))?;
        }
        Ok((self.identity()?, made))
    }

    /// Makes the directory, for this user alone. One that holds settings and nothing else was made for them, and is this user's alone from
    /// now on, unless it is somebody else's.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn make_root(&self) -> Result<(), Failure> {
        self.make_dir(&self.root)?;
        let (mut entries, settings) = (fs::read_dir(&self.root)?, self.config_path());
        if settings.exists() && entries.all(|entry| entry.is_ok_and(|entry| entry.path() == settings)) {
            // A volume of a container may be of root, and let this user in by its group.
            if let Err(problem) = fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700)) {
                tracing::warn!(dir = %self.root.display(), %problem, "the home stays open to others: it could not be closed to them");
            }
        }
        Ok(())
    }

    fn make_dir(&self, dir: &Path) -> Result<(), Failure> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
            Failure::failed("home", format!("{} could not be made: {error}", dir.display()))
                .hint("choose another place with --home DIR or SEALTIDE_HOME")
        })
    }

    /// Whether this is the key of the node now, and no other is.
    fn make_key(&self, seed: &Seed) -> Result<bool, Failure> {
        let path = self.key_path();
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(HEXLOWER.encode(seed.expose()))));
        let written = SecretFile::new(path.clone(), self.seal()?).create(&text);
        written.map_err(|error| Failure::failed("home", format!("{}: {error}", path.display())))
    }

    /// Reads who this node is.
    ///
    /// # Errors
    /// Exit 10 when no node was made here; exit 6 when others can read the key file; exit 12 as [`Home::seal`].
    pub fn identity(&self) -> Result<Identity, Failure> {
        let path = self.key_path();
        if !path.exists() {
            return Err(self.no_store());
        }
        let text = SecretFile::new(path.clone(), self.seal()?).read().map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => {
                Failure::new(Exit::Refused, "key_exposed", format!("{} {error}", path.display()))
                    .hint(format!("chmod 600 {}", path.display()))
            }
            _ => Failure::failed("key_damaged", format!("{} {error}", path.display())),
        })?;
        let text = text.ok_or_else(|| self.no_store())?;
        let damaged = || Failure::failed("key_damaged", format!("{} is damaged", path.display()));
        let bytes = Zeroizing::new(HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| damaged())?);
        let seed: [u8; 32] = bytes.as_slice().try_into().map_err(|_| damaged())?;
        let key = SigningKey::from_seed(&Seed::from_bytes(seed));
        let id = NodeId::of(key.public());
        Ok(Identity { key: Arc::new(key), id })
    }

    /// Opens the store and takes its lock; waits for it for a moment. Blocks.
    ///
    /// # Errors
    /// Exit 10 without a store, 11 when another process holds it, 1 when it is damaged or cannot be written.
    pub fn open_store(&self) -> Result<Store, Failure> {
        if !self.exists() {
            return Err(self.no_store());
        }
        let until = Instant::now() + LOCK_WAIT;
        loop {
            match Store::open_dir(self.root.join("store")) {
                Err(OpenError::Locked { .. }) if Instant::now() < until => std::thread::sleep(LOCK_LOOK),
                opened => return opened.map_err(|error| self.open_failure(error)),
            }
        }
    }

    fn open_failure(&self, error: OpenError) -> Failure {
        match error {
            OpenError::Locked { .. } => Failure::new(
                Exit::Locked,
                "store_locked",
                format!("another process uses the store in {}", self.root.display()),
            )
            .hint(
                "a command that works on this home alone, such as a `join` in its first sync, answers nobody until it ends; where a node \
                 runs, `sealtide down` stops it",
            ),
            OpenError::Damaged(damage) => {
                Failure::new(Exit::Verification, "store_damaged", damage.to_string()).hint(RESCUE)
            }
            OpenError::Facts { .. } => Failure::failed("store", error.to_string()).hint(format!(
                "it holds peers, grants, tickets and local names, and cannot be made again from the rest: {RESCUE}"
            )),
            other => Failure::failed("store", other.to_string()),
        }
    }

    fn no_store(&self) -> Failure {
        if self.has_lost_its_key() {
            let path = self.key_path();
            let text = format!(
                "the key of this node is missing: there is no {}, though the rest of the node is there",
                path.display()
            );
            return Failure::failed("key_missing", text).hint(format!("put the file back; else {RESCUE}"));
        }
        Failure::new(Exit::NoStore, "no_store", format!("no sealtide node in {}", self.root.display()))
            .hint("`sealtide up DIR` or `sealtide join TICKET DIR` makes one; --home DIR names another place")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Ids that differ in their last byte alone have files of their own; of the old names one that is clear is taken over.
    #[test]
    fn every_space_has_its_own_scan_cache() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().to_owned());
        fs::create_dir(dir.path().join("folders")).unwrap();
        let id =
            |first: u8, last: u8| SpaceId::from_bytes(std::array::from_fn(|at| if at == 31 { last } else { first }));
        let [own, one, other] = [id(1, 0), id(2, 1), id(2, 2)];
        assert_ne!(home.folder_state(&one), home.folder_state(&other));
        let old = |space: &SpaceId| dir.path().join("folders").join(format!("{}.redb", space.short()));
        let states = || [own, one, other].map(|space| fs::read(home.folder_state(&space)).ok());
        for space in [own, one] {
            fs::write(old(&space), "old").unwrap();
        }
        home.rename_folder_states(&[own, one, other]);
        assert_eq!(states(), [Some(b"old".to_vec()), None, None]);
        assert!(!old(&own).exists() && !old(&one).exists());
        // A file of today is never written over.
        fs::write(old(&own), "older").unwrap();
        home.rename_folder_states(&[own]);
        assert_eq!(states(), [Some(b"old".to_vec()), None, None]);
    }

    /// Settings may be there before the node, with the password of a proxy.
    #[test]
    fn a_directory_of_settings_alone_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |dir: &Path| fs::metadata(dir).unwrap().permissions().mode() & 0o777;
        for (name, other, wanted) in
            [("made", None, 0o700), ("settings", None, 0o700), ("shared", Some("other"), 0o755)]
        {
            let home = Home::new(dir.path().join(name));
            if name != "made" {
                fs::create_dir(home.root()).unwrap();
                fs::set_permissions(home.root(), fs::Permissions::from_mode(0o755)).unwrap();
                fs::write(home.config_path(), "").unwrap();
            }
            other.into_iter().for_each(|other| fs::write(home.root().join(other), "").unwrap());
            home.init().unwrap();
            assert_eq!(mode(home.root()), wanted, "{name}");
        }
    }

    /// Commands that make one home at the same time make one node.
    #[test]
    fn who_begins_at_once_makes_one_node() {
        for _ in 0..16 {
            let dir = tempfile::tempdir().unwrap();
            let (home, start) = (Home::new(dir.path().join("home")), Barrier::new(8));
            let begin = || {
                start.wait();
                let (identity, made) = home.init().unwrap();
                (identity.id, made)
            };
            let begun: Vec<(NodeId, bool)> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(begun.iter().filter(|(_, made)| *made).count(), 1);
            assert!(begun.iter().all(|(id, _)| *id == home.identity().unwrap().id));
        }
    }
}
