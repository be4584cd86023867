//! What a release is: which files at which version, in which channel, after which other. Spec: gateway §9.1.

use data_encoding::HEXLOWER;
use sealtide_crypto::Label;
use sealtide_ibgib::check_path;
use sealtide_identity::keyring::{KeyVersion, write_time};
use semver::Version;
use serde_json::{Value, json};

use super::signed::{Content, INTEGER_MAX, Members, address, hex32, integer, time};
use super::{AppName, Channel};

/// Files of one release, at most.
pub const FILES_MAX: usize = 100_000;
/// Bytes of a version as text, at most.
const VERSION_BYTES_MAX: usize = 64;

/// One file of a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseFile {
    /// Relative, `/` between names; as [`check_path`] takes it, and without control characters.
    pub path: String,
    /// BLAKE3-256 of its bytes.
    pub hash: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// Whether it may be run: mode `0755` instead of `0644`.
    pub executable: bool,
}

/// A release, as its manifest says.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Address of the first frame of the release timeline.
    pub registry: String,
    /// The app.
    pub name: AppName,
    /// Its version.
    pub version: Version,
    /// The channel.
    pub channel: Channel,
    /// Its number in the channel, from 1.
    pub seq: u64,
    /// The manifest before it in the channel: SHA-256 of its signed bytes; none at 1.
    pub prev: Option<[u8; 32]>,
    /// Versions below it count as yanked.
    pub minimum_version: Option<Version>,
    /// The key version that signs.
    pub key_version: KeyVersion,
    /// When it was made, ms.
    pub created_at: u64,
    /// From when on it is served no more, ms.
    pub expiry: Option<u64>,
    /// When it goes to the archive, ms.
    pub archive_date: Option<u64>,
    /// BLAKE3-256 of the payload as it stands in the file.
    pub hash: [u8; 32],
    /// Bytes of the payload.
    pub size: u64,
    /// Bytes of all files.
    pub unpacked_size: u64,
    /// The files, sorted by the bytes of their paths.
    pub files: Vec<ReleaseFile>,
    /// Revision of the version registry at that time.
    pub registry_revision: u64,
    /// When it was signed, ms.
    pub signed_at: u64,
}

impl Manifest {
    /// Whether its own version is one of those that it says count as yanked.
    pub fn is_below_its_minimum(&self) -> bool {
        self.minimum_version.as_ref().is_some_and(|minimum| self.version.cmp_precedence(minimum).is_lt())
    }
}

impl Content for Manifest {
    const WHAT: &'static str = "no release manifest";
    const LABEL: Label = Label::ReleaseManifest;

    fn to_value(&self) -> Value {
        let file = |file: &ReleaseFile| {
            let mode = if file.executable { "0755" } else { "0644" };
            json!({"path": file.path, "hash": HEXLOWER.encode(&file.hash), "size": file.size, "mode": mode})
        };
        json!({
            "manifestVersion": 1,
            "registry": self.registry,
            "name": self.name.as_str(),
            "version": self.version.to_string(),
            "channel": self.channel.as_str(),
            "seq": self.seq,
            "prev": self.prev.map(|hash| HEXLOWER.encode(&hash)),
            "minimumVersion": self.minimum_version.as_ref().map(Version::to_string),
            "keyVersion": self.key_version.to_string(),
            "createdAt": write_time(self.created_at),
            "expiry": self.expiry.map(write_time),
            "archiveDate": self.archive_date.map(write_time),
            "hash": HEXLOWER.encode(&self.hash),
            "size": self.size,
            "unpackedSize": self.unpacked_size,
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
            "registryRevision": self.registry_revision,
            "signedAt": write_time(self.signed_at),
        })
    }

    fn read(members: &mut Members) -> Result<Self, &'static str> {
        members.read("manifestVersion", |value| (value.as_u64() == Some(1)).then_some(()))?;
        let manifest = Self {
            registry: members.read("registry", address)?,
            name: members.read("name", |value| AppName::parse(value.as_str()?))?,
            version: members.read("version", version)?,
            channel: members.read("channel", |value| Channel::parse(value.as_str()?))?,
            seq: members.read("seq", |value| integer(value).filter(|seq| *seq > 0))?,
            prev: members.optional("prev", hex32)?,
            minimum_version: members.optional("minimumVersion", version)?,
            key_version: members.read("keyVersion", |value| KeyVersion::parse(value.as_str()?))?,
            created_at: members.read("createdAt", time)?,
            expiry: members.optional("expiry", time)?,
            archive_date: members.optional("archiveDate", time)?,
            hash: members.read("hash", hex32)?,
            size: members.read("size", integer)?,
            unpacked_size: members.read("unpackedSize", integer)?,
            files: members.read("files", files)?,
            registry_revision: members.read("registryRevision", integer)?,
            signed_at: members.read("signedAt", time)?,
        };
        if manifest.prev.is_some() != (manifest.seq > 1) {
            return Err("prev");
        }
        check_files(&manifest.files).map_err(|_| "files")?;
        let total = manifest.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
        if total != Some(manifest.unpacked_size) {
            return Err("unpackedSize");
        }
        Ok(manifest)
    }
}

/// A list of files that cannot be released, by the path that is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilesRefused {
    /// More files, or more bytes, than a release can have.
    #[error("a release has at most {FILES_MAX} files and 2^53 bytes")]
    TooMany,
    /// A path that is no relative path of plain names.
    #[error("{0:?} is no path that every machine can write")]
    Path(String),
    /// Not sorted, twice the same, or a file where another path needs a directory.
    #[error("{0:?} is listed twice, out of order, or is a file and a directory at once")]
    Order(String),
}

/// Checks that a list can be unpacked into one directory without a path meeting another.
///
/// # Errors
/// [`FilesRefused`].
// Spec: GW-77
pub fn check_files(files: &[ReleaseFile]) -> Result<(), FilesRefused> {
    let bytes = files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size)).filter(|sum| *sum <= INTEGER_MAX);
    if files.len() > FILES_MAX || bytes.is_none() {
        return Err(FilesRefused::TooMany);
    }
    let paths: std::collections::BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    for (at, file) in files.iter().enumerate() {
        let path = file.path.as_str();
        if check_path(path).is_err() || path.contains(|c: char| c.is_control() || c == '\\') {
            return Err(FilesRefused::Path(path.to_owned()));
        }
        let ascends = at == 0 || files[at - 1].path.as_bytes() < path.as_bytes();
        let mut parents = path.match_indices('/').map(|(slash, _)| &path[..slash]);
        if !ascends || parents.any(|parent| paths.contains(parent)) {
            return Err(FilesRefused::Order(path.to_owned()));
        }
    }
    Ok(())
}

pub(super) fn version(value: &Value) -> Option<Version> {
    let text = value.as_str().filter(|text| text.len() <= VERSION_BYTES_MAX)?;
    Version::parse(text).ok()
}

fn files(value: &Value) -> Option<Vec<ReleaseFile>> {
    value.as_array().filter(|list| list.len() <= FILES_MAX)?.iter().map(file).collect()
}

fn file(value: &Value) -> Option<ReleaseFile> {
    let object = value.as_object().filter(|object| object.len() == 4)?;
    let executable = match object.get("mode")?.as_str()? {
        "0644" => false,
        "0755" => true,
        _ => return None,
    };
    Some(ReleaseFile {
        path: object.get("path")?.as_str()?.to_owned(),
        hash: hex32(object.get("hash")?)?,
        size: integer(object.get("size")?)?,
        executable,
    })
}
