//! Secrets that an operator or a service manager puts into files. Spec: gateway §7.1.
//!
//! A key file is named in the configuration and is for its owner alone. A credential stands in the directory that the
//! service manager names in `CREDENTIALS_DIRECTORY`, under the name of the variable that it takes the place of; who may
//! read it there is the service manager's affair.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sealtide_identity::keyring::{KeyVersion, environment_name};

use crate::failure::{Exit, Failure};

/// Bytes of a secret, at most.
const SECRET_BYTES_MAX: u64 = 4_096;
/// Entries of a credentials directory that are looked at, at most.
const CREDENTIALS_MAX: usize = 1_024;

/// Key files by version, from `v1=PATH` entries; none when an entry is no such pair or a version stands there twice.
pub(crate) fn parse_key_files(entries: &[String]) -> Option<BTreeMap<KeyVersion, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in entries {
        let (version, path) = entry.split_once('=')?;
        let path = PathBuf::from(path.trim());
        let version = KeyVersion::parse(version.trim())?;
        if !path.is_absolute() || files.insert(version, path).is_some() {
            return None;
        }
    }
    Some(files)
}

/// Reads the key files.
///
/// # Errors
/// Exit 6 for a file that others can read or that somebody else owns, 2 for one that cannot be read.
// Spec: GW-46, GW-47
pub(super) fn read_key_files(files: &BTreeMap<KeyVersion, PathBuf>) -> Result<BTreeMap<KeyVersion, Vec<u8>>, Failure> {
    files.iter().map(|(version, path)| Ok((*version, read_secret_file(path, "signing_key")?))).collect()
}

/// Reads a file that is for its owner alone; `code` tells whose secret it is.
///
/// # Errors
/// As [`read_key_files`].
pub(crate) fn read_secret_file(path: &Path, code: &str) -> Result<Vec<u8>, Failure> {
    let failed = |what: String| Failure::usage(code, format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    // Of what was opened: a path can mean another file a moment later.
    let meta = file.metadata().map_err(|error| failed(error.to_string()))?;
    let exposed = |what: String| {
        Failure::new(Exit::Refused, "key_exposed", format!("{}: {what}", path.display()))
            .hint(format!("chmod 600 {}", path.display()))
    };
    if !meta.is_file() {
        return Err(failed("it is no file".to_owned()));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(exposed(format!("others may use it (mode {:o})", meta.mode() & 0o777)));
    }
    let own = rustix::process::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err(exposed(format!("it belongs to user {}", meta.uid())));
    }
    read_bounded(file).map_err(failed)
}

/// Reads the credentials that are named as the variables are; others are none of ours.
///
/// # Errors
/// Exit 2 for a directory or a credential that cannot be read: a start without a key that somebody meant is refused.
// Spec: GW-47
pub(super) fn read_credentials(directory: Option<&Path>) -> Result<BTreeMap<KeyVersion, Vec<u8>>, Failure> {
    let mut found = BTreeMap::new();
    let Some(directory) = directory else { return Ok(found) };
    let failed =
        |path: &Path, what: String| Failure::usage("signing_key", format!("credential {}: {what}", path.display()));
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(failed(directory, error.to_string())),
    };
    for entry in entries.take(CREDENTIALS_MAX) {
        let path = entry.map_err(|error| failed(directory, error.to_string()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(version) = environment_name(name) else { continue };
        let file = File::open(&path).map_err(|error| failed(&path, error.to_string()))?;
        let bytes = read_bounded(file).map_err(|what| failed(&path, what))?;
        // v1 has two names.
        if found.get(&version).is_some_and(|other| *other != bytes) {
            return Err(failed(&path, format!("{version} has another credential, and they differ")));
        }
        found.insert(version, bytes);
    }
    Ok(found)
}

fn read_bounded(file: File) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SECRET_BYTES_MAX { Err("it is too long for a secret".to_owned()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn version(number: u16) -> KeyVersion {
        KeyVersion::new(number).unwrap()
    }

    // Proves: GW-46
    #[test]
    fn key_files_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v1.key");
        fs::write(&path, "a secret\n").unwrap();
        let files = BTreeMap::from([(version(1), path.clone())]);
        for (mode, is_taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_key_files(&files).is_ok(), is_taken, "mode {mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_key_files(&files).unwrap()[&version(1)], b"a secret\n");
        fs::write(&path, vec![b'x'; 4_097]).unwrap();
        assert!(read_key_files(&files).is_err(), "too long");
        let missing = BTreeMap::from([(version(1), dir.path().join("nowhere"))]);
        assert!(read_key_files(&missing).is_err());
        assert!(read_key_files(&BTreeMap::from([(version(1), dir.path().to_owned())])).is_err(), "a directory");
    }

    // Proves: GW-47
    #[test]
    fn credentials_have_the_names_of_the_variables() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_credentials(None).unwrap().is_empty());
        assert!(read_credentials(Some(&dir.path().join("nowhere"))).unwrap().is_empty());
        fs::write(dir.path().join("VERSION_SIGNING_KEY"), "one").unwrap();
        fs::write(dir.path().join("VERSION_SIGNING_KEY_V2"), "two").unwrap();
        fs::write(dir.path().join("other"), "none of ours").unwrap();
        let found = read_credentials(Some(dir.path())).unwrap();
        assert_eq!(found, BTreeMap::from([(version(1), b"one".to_vec()), (version(2), b"two".to_vec())]));
        fs::write(dir.path().join("VERSION_SIGNING_KEY_V1"), "one").unwrap();
        assert!(read_credentials(Some(dir.path())).is_ok(), "both names, one secret");
        fs::write(dir.path().join("VERSION_SIGNING_KEY_V1"), "another").unwrap();
        assert!(read_credentials(Some(dir.path())).is_err());
    }

    #[test]
    fn entries_are_pairs_of_version_and_absolute_path() {
        let read = |entries: &[&str]| parse_key_files(&entries.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(read(&["v1=/a", "v2 = /b"]).unwrap().len(), 2);
        for bad in [&["v1"][..], &["1=/a"], &["v1=a"], &["v1=/a", "v1=/b"], &["v0=/a"]] {
            assert!(read(bad).is_none(), "{bad:?}");
        }
    }
}
