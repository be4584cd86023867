//! Bundles as files: the hot tier, and the archive. Spec: gateway §9.2 to §9.4.
//!
//! ```text
//! HOME/bundles/hot/bundle/vK/NAME/VERSION.stb            K signed it
//!                                /VERSION.manifest.json  with its signatures
//! HOME/bundles/cold/archive/vK/NAME/VERSION.stb          the same, later
//!                                  /VERSION.manifest.json
//!                                  /VERSION.meta.json    when it was archived, what it is
//! HOME/bundles/scratch/                                  half-made; emptied when the next release is made
//! HOME/bundles/coming                                    what somebody is bringing; nothing of it is verified
//! ```
//!
//! Where the archive is a bucket, the bundle is not in `cold`: the manifest stands there, and a meta file whose `place` says
//! where the bundle is.
//!
//! A version that stands in a second channel too is `VERSION~CHANNEL`. There is no index: a bundle is where its file is, and
//! while it moves it is in both places, so it is served throughout.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use sealtide_crypto::Blake3;
use sealtide_identity::keyring::KeyVersion;
use sealtide_releases::bundle::{AppName, Manifest, Signed};
use serde_json::{Value, json};

use super::archive::{Archive, ArchiveSettings};
use super::bucket::{Bucket, UNREACHABLE};
use super::fetched::fetch;
use crate::commands::rfc3339;
use crate::failpoint;
use crate::failure::Failure;
use crate::home::Home;

/// What a bundle's name ends with.
const SUFFIX: &str = ".stb";
/// What the name of the manifest beside it ends with.
const MANIFEST_SUFFIX: &str = ".manifest.json";
/// What the name of what is known of an archived one ends with.
const META_SUFFIX: &str = ".meta.json";
/// From this age on a bundle is archived: 30 days, in ms. Spec: gateway §9.3.
pub(crate) const ARCHIVE_AFTER_MS: u64 = 30 * 86_400_000;
/// A bundle that expires within this time is not moved any more: a day, in ms. Spec: gateway §9.3.
const NOT_WORTH_MS: u64 = 86_400_000;
/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;

/// The bundles of a home.
#[derive(Clone, Debug)]
pub(crate) struct Tiers {
    root: PathBuf,
}

/// Where a bundle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tier {
    /// `STANDARD`.
    Hot,
    /// `INFREQUENT_ACCESS`.
    Cold,
}

impl Tier {
    /// The name of its class. Spec: gateway §9.3.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Hot => "STANDARD",
            Self::Cold => "INFREQUENT_ACCESS",
        }
    }

    fn dir(self) -> &'static str {
        match self {
            Self::Hot => "hot/bundle",
            Self::Cold => "cold/archive",
        }
    }
}

/// A bundle in a tier.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) path: PathBuf,
    pub(crate) tier: Tier,
    pub(crate) manifest: Signed<Manifest>,
    /// In which bucket it is; none: it is at `path`.
    pub(crate) place: Option<Place>,
}

/// Where the bundle is that a stub stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `s3://BUCKET/PREFIX/archive/vK/NAME/VERSION.stb`.
    pub(crate) url: String,
    /// The last four words of it.
    pub(super) name: String,
    /// BLAKE3-256 of the file.
    pub(super) hash: [u8; 32],
    /// Bytes of the file.
    pub(super) size: u64,
}

/// Which bundles go to the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Those of this age, in ms, and older.
    Aged(u64),
    /// Those of a version that does not sign any more.
    Replaced(KeyVersion),
}

impl Due {
    /// Whether a bundle is due, at a time.
    // Spec: GW-74
    fn takes(self, manifest: &Manifest, wall_ms: u64) -> bool {
        let is_due = match self {
            Self::Aged(age) => wall_ms.saturating_sub(manifest.created_at) >= age,
            Self::Replaced(version) => manifest.key_version == version,
        };
        // The class bills a minimum: what is served no more tomorrow is not moved.
        is_due && manifest.expiry.is_none_or(|end| end >= wall_ms.saturating_add(NOT_WORTH_MS))
    }
}

/// What an archive job did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Archived {
    pub(crate) moved: u64,
    pub(crate) failed: u64,
    pub(crate) bytes: u64,
}

/// A file that is half-made, and is removed with this value where it is still there.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "a file that is not needed any more stays");
            }
            _ => {}
        }
    }
}

impl Tiers {
    pub(crate) fn of(home: &Home) -> Self {
        Self { root: home.root().join("bundles") }
    }

    /// The place of a new file that nobody else uses, and that goes with what is returned.
    pub(crate) fn scratch(&self) -> io::Result<Scratch> {
        let dir = self.root.join("scratch");
        fs::create_dir_all(&dir)?;
        // One publication at a time: what lies here was left by a crash.
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Scratch(dir.join("payload")))
    }

    /// Where the bundle that somebody brings is written; one comes at a time.
    pub(crate) fn coming(&self) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.root)?;
        Ok(self.root.join("coming"))
    }

    /// Puts a bundle into the hot tier, as `write` makes the file at the path it is given, on the disk; all of it is when this returns.
    pub(crate) fn put(
        &self,
        manifest: &Signed<Manifest>,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<PathBuf> {
        let path = self.new_path(manifest);
        let dir = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(dir)?;
        write(&path)?;
        write_durably(&manifest_of(&path), &manifest.to_value())?;
        File::open(dir)?.sync_all()?;
        Ok(path)
    }

    /// The bundle of a release.
    ///
    /// # Errors
    /// Exit 1 when it is in no tier.
    pub(crate) fn find(&self, manifest: &Manifest) -> Result<Stored, Failure> {
        let names = [plain_name(manifest), channel_name(manifest)];
        let places = [Tier::Hot, Tier::Cold].into_iter().flat_map(|tier| names.iter().map(move |name| (tier, name)));
        let mut paths = places.map(|(tier, name)| (tier, self.dir(tier, manifest).join(format!("{name}{SUFFIX}"))));
        let gone = || {
            let text =
                format!("the bundle of {} {} ({}) is in no tier", manifest.name, manifest.version, manifest.channel);
            Failure::failed("no_bundle", text)
        };
        let found =
            paths.find_map(|(tier, path)| read_stored(path, tier).filter(|it| it.manifest.content() == manifest));
        found.ok_or_else(gone)
    }

    /// The file of a bundle: where it stands, or a copy of it out of the bucket. May wait for the network.
    ///
    /// # Errors
    /// As [`fetch`].
    pub(crate) fn file(&self, stored: &Stored, archive: &ArchiveSettings) -> Result<PathBuf, Failure> {
        match &stored.place {
            None => Ok(stored.path.clone()),
            Some(place) => fetch(&self.root.join("scratch/fetched"), place, archive),
        }
    }

    /// The bundle with a name as it stands in a path, hot or archived: `1.0.0`, `1.0.0~lts`.
    pub(crate) fn named(&self, app: &AppName, version: &str) -> io::Result<Option<Stored>> {
        for tier in [Tier::Hot, Tier::Cold] {
            let found = self.list(tier, Some(app))?.into_iter();
            let is_it =
                |stored: &Stored| stored.path.file_name().is_some_and(|name| *name == *format!("{version}{SUFFIX}"));
            if let Some(stored) = found.rev().find(is_it) {
                return Ok(Some(stored));
            }
        }
        Ok(None)
    }

    /// The key of a bundle: `v1/kiosk/1.0.0`.
    pub(crate) fn key(stored: &Stored) -> String {
        let manifest = stored.manifest.content();
        let name = stored.path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        format!("{}/{}/{name}", manifest.key_version, manifest.name)
    }

    /// Every bundle, of one app or of all, sorted by place.
    pub(crate) fn list(&self, tier: Tier, app: Option<&AppName>) -> io::Result<Vec<Stored>> {
        let mut found = Vec::new();
        for version in entries(&self.root.join(tier.dir()))? {
            for dir in entries(&version)? {
                let is_wanted = app.is_none_or(|app| dir.file_name().is_some_and(|name| name == app.as_str()));
                let files = if is_wanted { entries(&dir)? } else { Vec::new() };
                found.extend(bundles_of(&files, tier).filter_map(|path| read_stored(path, tier)));
            }
        }
        Ok(found)
    }

    /// How many bundles are in a tier. Reads directories, no bundle.
    pub(crate) fn count(&self, tier: Tier) -> io::Result<u64> {
        let mut count = 0;
        for version in entries(&self.root.join(tier.dir()))? {
            for dir in entries(&version)? {
                count += bundles_of(&entries(&dir)?, tier).count() as u64;
            }
        }
        Ok(count)
    }

    /// Moves what is due to the archive. One that fails is counted and told, and the others go on, unless the place is away;
    /// the next job tries it again. May wait for the network.
    ///
    /// # Errors
    /// When the hot tier cannot be listed.
    // Spec: GW-75
    pub(crate) fn archive(
        &self,
        archive: &Archive,
        due: Due,
        app: Option<&AppName>,
        wall_ms: u64,
        told: &mut dyn FnMut(&Stored, Result<(), Failure>),
    ) -> io::Result<Archived> {
        let mut done = Archived::default();
        for stored in self.list(Tier::Hot, app)? {
            if !due.takes(stored.manifest.content(), wall_ms) {
                continue;
            }
            let moved = match archive {
                Archive::Directory => self.move_to_directory(&stored, wall_ms).map_err(Failure::from),
                Archive::Bucket(bucket) => self.move_to_bucket(&stored, bucket, wall_ms),
            };
            match moved {
                Ok(bytes) => {
                    done.moved += 1;
                    done.bytes += bytes;
                    told(&stored, Ok(()));
                }
                Err(failure) => {
                    let (bundle, hint) = (stored.path.display(), failure.hint.as_deref().unwrap_or_default());
                    tracing::warn!(%bundle, %failure, hint, "a bundle was not archived");
                    done.failed += 1;
                    let is_away = failure.code == UNREACHABLE;
                    told(&stored, Err(failure));
                    if is_away {
                        break;
                    }
                }
            }
        }
        Ok(done)
    }

    /// Copy, read back and compare, then delete: at every moment a whole bundle is in one tier at least.
    fn move_to_directory(&self, stored: &Stored, wall_ms: u64) -> io::Result<u64> {
        let manifest = stored.manifest.content();
        let name = stored.path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        let dir = self.dir(Tier::Cold, manifest);
        fs::create_dir_all(&dir)?;
        let path = dir.join(name);
        let beside = path.with_extension("new");
        let (wanted, bytes) = copy(&stored.path, &beside)?;
        failpoint::hit("archive_copied");
        let mut file = File::open(&beside)?;
        if hash(&mut file, &mut io::sink())?.0 != wanted {
            return Err(io::Error::other("the copy is not the bundle"));
        }
        fs::rename(&beside, &path)?;
        write_durably(&manifest_of(&path), &stored.manifest.to_value())?;
        write_durably(&beside_of(&path, META_SUFFIX), &meta_of(&stored.manifest, wall_ms))?;
        leave_hot(stored, &dir)?;
        Ok(bytes)
    }

    /// The same into a bucket: the name is claimed by the manifest, the bundle follows and is read back, a stub says where
    /// it is, and then the hot one goes. Cut off anywhere, it is done again from the begin and finds what it made.
    // Spec: GW-75
    fn move_to_bucket(&self, stored: &Stored, bucket: &Bucket, wall_ms: u64) -> Result<u64, Failure> {
        let key = Self::key(stored);
        let name = |suffix: &str| format!("{key}{suffix}");
        let (wanted, size) = hash(&mut File::open(&stored.path)?, &mut io::sink())?;
        bucket.claim(&name(MANIFEST_SUFFIX), &stored.manifest.to_value().to_string())?;
        failpoint::hit("archive_claimed");
        bucket.put_file(&name(SUFFIX), &stored.path, wanted, size)?;
        let mut meta = meta_of(&stored.manifest, wall_ms);
        meta["place"] = json!({
            "url": bucket.url(&name(SUFFIX)), "name": name(SUFFIX), "class": bucket.class(),
            "blake3": HEXLOWER.encode(&wanted), "bytes": size,
        });
        bucket.put_meta(&name(META_SUFFIX), &meta.to_string())?;
        let dir = self.dir(Tier::Cold, stored.manifest.content());
        fs::create_dir_all(&dir)?;
        let path = dir.join(stored.path.file_name().ok_or(io::Error::from(io::ErrorKind::InvalidFilename))?);
        write_durably(&manifest_of(&path), &stored.manifest.to_value())?;
        write_durably(&beside_of(&path, META_SUFFIX), &meta)?;
        leave_hot(stored, &dir)?;
        Ok(size)
    }

    fn dir(&self, tier: Tier, manifest: &Manifest) -> PathBuf {
        self.root.join(tier.dir()).join(manifest.key_version.to_string()).join(manifest.name.as_str())
    }

    /// The plain name, unless another channel has it, hot or archived.
    fn new_path(&self, manifest: &Signed<Manifest>) -> PathBuf {
        let content = manifest.content();
        let plain = format!("{}{SUFFIX}", plain_name(content));
        let is_taken = [Tier::Hot, Tier::Cold].into_iter().any(|tier| {
            let other = read_manifest(&self.dir(tier, content).join(&plain));
            other.is_some_and(|other| other.content().channel != content.channel)
        });
        let name = if is_taken { format!("{}{SUFFIX}", channel_name(content)) } else { plain };
        self.dir(Tier::Hot, content).join(name)
    }
}

/// What is known of an archived bundle.
fn meta_of(signed: &Signed<Manifest>, wall_ms: u64) -> Value {
    let manifest = signed.content();
    let kids: Vec<&str> = signed.signatures().iter().map(|entry| entry.kid.as_str()).collect();
    json!({
        "keyVersion": manifest.key_version.to_string(),
        "hash": HEXLOWER.encode(&manifest.hash),
        "manifestSha256": HEXLOWER.encode(&signed.hash()),
        "kids": kids,
        "createdAt": rfc3339(manifest.created_at),
        "expiry": manifest.expiry.map(rfc3339),
        "archiveDate": rfc3339(wall_ms),
        "storageClass": Tier::Cold.class(),
    })
}

/// The bundle is in the archive, and what stands in `dir` says so: the hot one goes.
fn leave_hot(stored: &Stored, dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()?;
    failpoint::hit("archive_moved");
    fs::remove_file(&stored.path)?;
    fs::remove_file(manifest_of(&stored.path))
}

/// The paths of bundles among sorted files: those that are there, and in the archive those that a meta file stands for.
fn bundles_of(files: &[PathBuf], tier: Tier) -> impl Iterator<Item = PathBuf> {
    let bundle_of = |file: &PathBuf| {
        let name = file.file_name()?.to_str()?;
        let begin = match tier {
            Tier::Hot => name.strip_suffix(SUFFIX)?,
            Tier::Cold => name.strip_suffix(META_SUFFIX).or_else(|| name.strip_suffix(SUFFIX))?,
        };
        Some(file.with_file_name(format!("{begin}{SUFFIX}")))
    };
    let mut paths: Vec<PathBuf> = files.iter().filter_map(bundle_of).collect();
    paths.sort();
    paths.dedup();
    paths.into_iter()
}

/// The bundle at a path, or the one that a stub beside it stands for.
fn read_stored(path: PathBuf, tier: Tier) -> Option<Stored> {
    let manifest = read_manifest(&path)?;
    let place = if path.exists() { None } else { Some(read_place(&path)?) };
    Some(Stored { path, tier, manifest, place })
}

fn read_place(bundle: &Path) -> Option<Place> {
    let meta: Value = serde_json::from_str(&fs::read_to_string(beside_of(bundle, META_SUFFIX)).ok()?).ok()?;
    let word = |name: &str| meta["place"][name].as_str();
    let hash = HEXLOWER.decode(word("blake3")?.as_bytes()).ok()?.try_into().ok()?;
    let size = meta["place"]["bytes"].as_u64()?;
    Some(Place { url: word("url")?.to_owned(), name: word("name")?.to_owned(), hash, size })
}

fn plain_name(manifest: &Manifest) -> String {
    manifest.version.to_string()
}

fn channel_name(manifest: &Manifest) -> String {
    format!("{}~{}", manifest.version, manifest.channel)
}

fn manifest_of(bundle: &Path) -> PathBuf {
    beside_of(bundle, MANIFEST_SUFFIX)
}

fn beside_of(bundle: &Path, suffix: &str) -> PathBuf {
    let name = bundle.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    bundle.with_file_name(format!("{}{suffix}", name.trim_end_matches(SUFFIX)))
}

/// The manifest beside a bundle.
fn read_manifest(bundle: &Path) -> Option<Signed<Manifest>> {
    let text = fs::read_to_string(manifest_of(bundle)).ok()?;
    Signed::from_value(&serde_json::from_str(&text).ok()?).ok()
}

/// What stands in a directory, sorted; nothing where there is none.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    found.sort();
    Ok(found)
}

fn write_durably(path: &Path, value: &Value) -> io::Result<()> {
    let beside = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    file.write_all(value.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Copies a file, on disk when this returns: the hash of what was read, and its bytes.
fn copy(from: &Path, to: &Path) -> io::Result<([u8; 32], u64)> {
    let mut out = File::create(to)?;
    let copied = hash(&mut File::open(from)?, &mut out)?;
    out.sync_all()?;
    Ok(copied)
}

/// BLAKE3-256 of what is read, and its bytes.
pub(super) fn hash(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<([u8; 32], u64)> {
    let (mut hash, mut bytes, mut piece) = (Blake3::new(), 0, vec![0; PIECE]);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            return Ok((hash.finish(), bytes));
        }
        hash.update(&piece[..read]);
        to.write_all(&piece[..read])?;
        bytes += read as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use sealtide_crypto::{Ed25519SigningKey, Seed, SigningKey};
    use sealtide_identity::keyring::Pair;
    use sealtide_releases::bundle::Channel;
    use semver::Version;

    use super::super::draft::write_whole;
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn manifest(version: u64, key: u16, channel: &str) -> Signed<Manifest> {
        let pair = Pair {
            ml_dsa: SigningKey::from_seed(&Seed::from_bytes([1; 32])),
            ed25519: Ed25519SigningKey::from_seed(&Seed::from_bytes([2; 32])),
        };
        let content = Manifest {
            registry: "releases^AAAA".to_owned(),
            name: AppName::parse("kiosk").unwrap(),
            version: Version::new(version, 0, 0),
            channel: Channel::parse(channel).unwrap(),
            seq: 1,
            prev: None,
            minimum_version: None,
            key_version: KeyVersion::new(key).unwrap(),
            created_at: NOW,
            expiry: None,
            archive_date: None,
            hash: [0; 32],
            size: 7,
            unpacked_size: 0,
            files: Vec::new(),
            registry_revision: 0,
            signed_at: NOW,
        };
        Signed::sign(content, &pair)
    }

    fn tiers() -> (tempfile::TempDir, Tiers) {
        let dir = tempfile::TempDir::new().unwrap();
        let tiers = Tiers { root: dir.path().to_owned() };
        (dir, tiers)
    }

    fn put(tiers: &Tiers, manifest: &Signed<Manifest>, head: &[u8]) -> PathBuf {
        tiers.put(manifest, |path| write_whole(path, head, &mut &b"payload"[..])).unwrap()
    }

    fn counts(tiers: &Tiers) -> (usize, usize) {
        (tiers.list(Tier::Hot, None).unwrap().len(), tiers.list(Tier::Cold, None).unwrap().len())
    }

    fn archive(tiers: &Tiers, due: Due, at: u64) -> Archived {
        tiers.archive(&Archive::Directory, due, None, at, &mut |_, _| ()).unwrap()
    }

    // Proves: GW-74
    #[test]
    fn tiering() {
        let (_dir, tiers) = tiers();
        let put = |manifest: &Signed<Manifest>| put(&tiers, manifest, b"head");
        put(&manifest(1, 1, "stable"));
        let month = 30 * 86_400_000;
        assert_eq!(archive(&tiers, Due::Aged(ARCHIVE_AFTER_MS), NOW + month - 1000), Archived::default());
        let done = archive(&tiers, Due::Aged(ARCHIVE_AFTER_MS), NOW + month);
        assert_eq!((done, counts(&tiers)), (Archived { moved: 1, failed: 0, bytes: 11 }, (0, 1)));
        let found = tiers.find(manifest(1, 1, "stable").content()).unwrap().path;
        assert!(found.starts_with(tiers.root.join("cold/archive/v1/kiosk")), "{}", found.display());
        assert_eq!(fs::read(&found).unwrap(), b"headpayload");
        let meta: Value = serde_json::from_slice(&fs::read(beside_of(&found, META_SUFFIX)).unwrap()).unwrap();
        assert_eq!(meta["storageClass"], "INFREQUENT_ACCESS");
        assert_eq!(archive(&tiers, Due::Aged(0), NOW + 2 * month), Archived::default(), "nothing moves twice");
        // What ends within a day stays where it is.
        let mut ending = manifest(2, 1, "stable").content().clone();
        ending.expiry = Some(NOW + month + NOT_WORTH_MS - 1);
        assert!(!Due::Aged(0).takes(&ending, NOW + month));
        ending.expiry = Some(NOW + month + NOT_WORTH_MS);
        assert!(Due::Aged(0).takes(&ending, NOW + month));
    }

    // Proves: GW-75
    #[test]
    fn archive_on_rotate() {
        let (_dir, tiers) = tiers();
        for (version, key) in [(1, 1), (2, 1), (3, 2)] {
            put(&tiers, &manifest(version, key, "stable"), b"head");
        }
        let replaced = Due::Replaced(KeyVersion::new(1).unwrap());
        // A place in the archive that cannot be written: that one is counted, the other goes on.
        let blocked = tiers.root.join("cold/archive/v1/kiosk/2.0.0.new");
        fs::create_dir_all(&blocked).unwrap();
        assert_eq!(archive(&tiers, replaced, NOW), Archived { moved: 1, failed: 1, bytes: 11 });
        assert_eq!(counts(&tiers), (2, 1));
        fs::remove_dir(&blocked).unwrap();
        // What a crash left half copied is copied again.
        fs::write(&blocked, b"hal").unwrap();
        assert_eq!(archive(&tiers, replaced, NOW), Archived { moved: 1, failed: 0, bytes: 11 });
        assert_eq!(counts(&tiers), (1, 2));
        for version in [1, 2] {
            let found = tiers.find(manifest(version, 1, "stable").content()).unwrap();
            assert_eq!(fs::read(found.path).unwrap(), b"headpayload");
        }
    }

    #[test]
    fn a_version_in_two_channels_is_two_files() {
        let (_dir, tiers) = tiers();
        let (beta, stable) = (manifest(1, 1, "beta"), manifest(1, 1, "stable"));
        let first = put(&tiers, &beta, b"beta");
        let second = put(&tiers, &stable, b"stable");
        assert_eq!(second.file_name().unwrap(), "1.0.0~stable.stb");
        assert_eq!(tiers.find(beta.content()).unwrap().path, first);
        assert_eq!(tiers.find(stable.content()).unwrap().path, second);
        // Also where the other one is archived.
        archive(&tiers, Due::Aged(0), NOW);
        let third = put(&tiers, &manifest(1, 1, "lts"), b"lts");
        assert_eq!(third.file_name().unwrap(), "1.0.0~lts.stb");
    }
}
