//! The machine marker: tells a home that was copied to another machine or another place. Spec: ibgib §12.3 "State"

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sealtide_crypto::sha256_parts;

/// Files that name the machine on the systems we know; one that has none is told by the home alone.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// In a home that came out of a backup: random bytes. The system may give the folder the inode of the one before.
pub const RESTORED_FILE: &str = "restored";

/// SHA-256 over the machine's id, the device and inode of the home, and what a restore left in it.
///
/// # Errors
/// When the home cannot be looked at.
pub fn machine_marker(home: &Path) -> io::Result<[u8; 32]> {
    let meta = fs::metadata(home)?;
    let machine = MACHINE_IDS.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    let length = (machine.len() as u64).to_be_bytes();
    let restored = match fs::read(home.join(RESTORED_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    Ok(sha256_parts(&[
        b"sealtide/machine/1\0",
        &length,
        &machine,
        &meta.dev().to_be_bytes(),
        &meta.ino().to_be_bytes(),
        &restored,
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_folder_is_another_home() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let marker = |dir: &tempfile::TempDir| machine_marker(dir.path()).unwrap();
        assert_eq!(marker(&one), marker(&one));
        assert_ne!(marker(&one), marker(&two));
        let before = marker(&one);
        fs::write(one.path().join(RESTORED_FILE), [7; 32]).unwrap();
        assert_ne!(marker(&one), before, "the same folder, restored");
    }
}
