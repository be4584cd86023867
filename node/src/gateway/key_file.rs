//! `HOME/gateway.key`: the signing key that this node made for itself, and the greatest epoch of the ledger it has seen.
//!
//! ```text
//! sealtide gateway key 1
//! epoch 3
//! key <64 hex>             only when a key was made
//! ```
//!
//! Replaced whole (temporary, fsync, rename, fsync of the folder), mode 0600.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use crate::failure::{Exit, Failure};

const HEAD: &str = "sealtide gateway key 1";

/// What the file says.
#[derive(Default)]
pub(super) struct Keys {
    pub(super) epoch: u64,
    pub(super) made: Option<Zeroizing<[u8; 32]>>,
}

/// The file of a home.
pub(super) struct KeyFile(PathBuf);

impl KeyFile {
    pub(super) fn new(root: &Path) -> Self {
        Self(root.join("gateway.key"))
    }

    /// Nothing when there is no file.
    pub(super) fn read(&self) -> Result<Keys, Failure> {
        let path = self.0.display();
        let Ok(meta) = fs::metadata(&self.0) else { return Ok(Keys::default()) };
        if meta.permissions().mode() & 0o077 != 0 {
            let told = format!("{path} can be read by others (mode {:o})", meta.permissions().mode() & 0o777);
            return Err(Failure::new(Exit::Refused, "key_exposed", told).hint(format!("chmod 600 {path}")));
        }
        let text = Zeroizing::new(fs::read_to_string(&self.0)?);
        parse(&text).ok_or_else(|| Failure::failed("key_damaged", format!("{path} is damaged")))
    }

    pub(super) fn write(&self, keys: &Keys) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::failed("home", format!("{}: {error}", self.0.display()));
        let mut text = Zeroizing::new(String::with_capacity(256));
        text.push_str(&format!("{HEAD}\nepoch {}\n", keys.epoch));
        if let Some(made) = &keys.made {
            let hex = Zeroizing::new(HEXLOWER.encode(made.as_slice()));
            for part in ["key ", &hex, "\n"] {
                text.push_str(part);
            }
        }
        let temporary = self.0.with_extension("new");
        let _ = fs::remove_file(&temporary);
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&temporary, &self.0).map_err(failed)?;
        let folder = self.0.parent().unwrap_or(Path::new("."));
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
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
    use super::*;

    // Proves: GW-46
    #[test]
    fn a_key_file_comes_back_and_is_read_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let file = KeyFile::new(dir.path());
        assert_eq!(file.read().unwrap().epoch, 0);
        file.write(&Keys { epoch: 7, made: Some(Zeroizing::new([9; 32])) }).unwrap();
        let read = file.read().unwrap();
        assert_eq!((read.epoch, read.made.map(|key| *key)), (7, Some([9; 32])));
        for mode in [0o644, 0o640, 0o604] {
            fs::set_permissions(&file.0, fs::Permissions::from_mode(mode)).unwrap();
            assert!(file.read().is_err());
        }
        for bad in ["", HEAD, "sealtide gateway key 2\nepoch 1\n", "sealtide gateway key 1\nepoch x\n"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(&format!("{HEAD}\nepoch 1\nkey 00\n")).is_none());
    }
}
