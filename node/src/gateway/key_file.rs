//! `HOME/gateway.key`: the signing key that this node made for itself, and the greatest epoch of the ledger it has seen.
//!
//! ```text
//! sealtide gateway key 1
//! epoch 3
//! key <64 hex>             only when a key was made
//! ```
//!
//! A [`SecretFile`]: replaced whole, read by nobody else, sealed where a passphrase is set.

use std::io::ErrorKind;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::seal::SecretFile;

const HEAD: &str = "sealtide gateway key 1";

/// What the file says.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) epoch: u64,
    pub(super) made: Option<Zeroizing<[u8; 32]>>,
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
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str(&format!("{HEAD}\nepoch {}\n", keys.epoch));
        if let Some(made) = &keys.made {
            let hex = Zeroizing::new(HEXLOWER.encode(made.as_slice()));
            for part in ["key ", &hex, "\n"] {
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
    let made = match lines.next() {
        None => None,
        Some(line) => {
            let bytes = Zeroizing::new(HEXLOWER.decode(line.strip_prefix("key ")?.as_bytes()).ok()?);
            Some(Zeroizing::new(bytes.as_slice().try_into().ok()?))
        }
    };
    lines.next().is_none().then_some(Keys { epoch, made })
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
        file.write(&Keys { epoch: 7, made: Some(Zeroizing::new([9; 32])) }).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.epoch, read.made.map(|key| *key)), (7, Some([9; 32])));
        for mode in [0o644, 0o640, 0o604] {
            fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(file.read().is_err());
        }
        for bad in ["", HEAD, "sealtide gateway key 2\nepoch 1\n", "sealtide gateway key 1\nepoch x\n"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(&format!("{HEAD}\nepoch 1\nkey 00\n")).is_none());
    }
}
