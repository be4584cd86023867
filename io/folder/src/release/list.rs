//! What a directory would ship.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sealtide_releases::bundle::{ReleaseFile, check_files};

use super::ReleaseError;

/// A file that is to be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Relative, `/` between names.
    pub path: String,
    /// Bytes when it was looked at.
    pub size: u64,
    /// Whether its owner may run it.
    pub executable: bool,
}

/// Lists every file below a directory, sorted by the bytes of its path. Empty directories are left out: a release has files.
///
/// # Errors
/// [`ReleaseError`]: links, devices, sockets, names that are not UTF-8, and paths that not every machine can write.
pub fn list_files(dir: &Path) -> Result<Vec<Listed>, ReleaseError> {
    let mut found = Vec::new();
    let mut open = vec![(PathBuf::from(dir), String::new())];
    while let Some((dir, prefix)) = open.pop() {
        for entry in fs::read_dir(&dir).map_err(ReleaseError::io(&dir))? {
            let entry = entry.map_err(ReleaseError::io(&dir))?;
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| ReleaseError::NotUtf8(path.clone()))?;
            let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let stat = fs::symlink_metadata(&path).map_err(ReleaseError::io(&path))?;
            match stat.file_type() {
                kind if kind.is_dir() => open.push((path, relative)),
                kind if kind.is_file() => found.push(Listed {
                    path: relative,
                    size: stat.len(),
                    executable: stat.permissions().mode() & 0o100 != 0,
                }),
                kind => return Err(ReleaseError::Kind { path, kind: name_of(kind) }),
            }
        }
    }
    found.sort_by(|left, right| left.path.as_bytes().cmp(right.path.as_bytes()));
    let unread = |file: &Listed| ReleaseFile {
        path: file.path.clone(),
        hash: [0; 32],
        size: file.size,
        executable: file.executable,
    };
    check_files(&found.iter().map(unread).collect::<Vec<_>>())?;
    Ok(found)
}

fn name_of(kind: fs::FileType) -> &'static str {
    match kind {
        kind if kind.is_symlink() => "symbolic link",
        kind if kind.is_fifo() => "pipe",
        kind if kind.is_socket() => "socket",
        kind if kind.is_block_device() || kind.is_char_device() => "device",
        _ => "special file",
    }
}
