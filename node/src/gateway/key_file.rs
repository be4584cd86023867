//! `HOME/gateway.key`: the signing keys that this node made for itself, and the greatest epoch of the ledger it has seen.
//!
//! ```text
//! sealtide gateway key 1
//! epoch 3
//! key <64 hex>             v1, where one was made
//! key v2 <64 hex>          any other version that was made, in ascending order
//! ```
//!
//! A [`SecretFile`]: replaced whole, read by nobody else, sealed where a passphrase is set.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use sealtide_identity::keyring::KeyVersion;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::seal::SecretFile;

const HEAD: &str = "sealtide gateway key 1";

/// What the file says.
#[derive(Clone, Default)]
pub(super) struct Keys {
    pub(super) epoch: u64,
    pub(super) made: BTreeMap<KeyVersion, Zeroizing<[u8; 32]>>,
}

/// The file of a home.
pub(super) struct KeyFile {
    path: PathBuf,
    file: SecretFile,
}

impl KeyFile {
    /// The file of `home`; nothing is touched.
    pub(super) fn of(home: &Home) -> Result<Self, Failure> {
        let path = home.gateway_key_path();
        Ok(Self { file: SecretFile::new(path.clone(), home.seal()?), path })
    }

    /// Nothing when there is no file.
    // Spec: GW-46
    pub(super) fn read(&self) -> Result<Keys, Failure> {
        let path = self.path.display();
        let text = self.file.read().map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => {
                Failure::new(Exit::Refused, "key_exposed", format!("{path} {error}")).hint(format!("chmod 600 {path}"))
            }
            _ => Failure::failed("key_damaged", format!("{path} {error}")),
        })?;
        let Some(text) = text else { return Ok(Keys::default()) };
        parse(&text).ok_or_else(|| Failure::failed("key_damaged", format!("{path} is damaged")))
    }

    pub(super) fn write(&self, keys: &Keys) -> Result<(), Failure> {
        let mut text = Zeroizing::new(String::with_capacity(128 * (keys.made.len() + 1)));
        text.push_str(&format!("{HEAD}\nepoch {}\n", keys.epoch));
        for (version, made) in &keys.made {
            let hex = Zeroizing::new(HEXLOWER.encode(made.as_slice()));
            let name = if *version == KeyVersion::V1 { String::new() } else { format!("{version} ") };
            for part in ["key ", &name, &hex, "\n"] {
                text.push_str(part);
            }
        }
        let written = self.file.write(&text);
        written.map_err(|error| Failure::failed("home", format!("{}: {error}", self.path.display())))
    }
}

fn parse(text: &str) -> Option<Keys> {
    let mut lines = text.lines();
    let epoch = (lines.next()? == HEAD).then(|| lines.next()?.strip_prefix("epoch ")?.parse().ok())??;
    let mut keys = Keys { epoch, ..Keys::default() };
    for line in lines {
        let line = line.strip_prefix("key ")?;
        let (version, hex) = match line.split_once(' ') {
            Some((version, hex)) => (KeyVersion::parse(version).filter(|version| *version > KeyVersion::V1)?, hex),
            None => (KeyVersion::V1, line),
        };
        let bytes = Zeroizing::new(HEXLOWER.decode(hex.as_bytes()).ok()?);
        let made = Zeroizing::new(bytes.as_slice().try_into().ok()?);
        // One spelling for each file: ascending, each once.
        if keys.made.last_key_value().is_some_and(|(last, _)| *last >= version) {
            return None;
        }
        keys.made.insert(version, made);
    }
    Some(keys)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    // Proves: GW-46
    #[test]
    fn a_key_file_comes_back_and_is_read_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::of(&Home::new(dir.path().to_owned())).unwrap();
        assert_eq!(file.read().unwrap().epoch, 0);
        let version = |number| KeyVersion::new(number).unwrap();
        let made = [(1, [9; 32]), (2, [8; 32]), (10, [7; 32])];
        let made: BTreeMap<_, _> = made.into_iter().map(|(n, key)| (version(n), Zeroizing::new(key))).collect();
        file.write(&Keys { epoch: 7, made: made.clone() }).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.epoch, read.made), (7, made));
        for mode in [0o644, 0o640, 0o604] {
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(file.read().is_err());
        }
        for bad in ["", HEAD, "sealtide gateway key 2\nepoch 1\n", "sealtide gateway key 1\nepoch x\n"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        let (low, key) = ("sealtide gateway key 1\nepoch 1\n", "ab".repeat(32));
        assert!(parse(&format!("{low}key {key}\n")).is_some());
        for bad in ["key 00".to_owned(), format!("key v1 {key}"), format!("key v2 {key}\nkey {key}"), key.clone()] {
            assert!(parse(&format!("{low}{bad}\n")).is_none(), "{bad}");
        }
    }
}
