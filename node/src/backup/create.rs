//! Making a backup, while the node goes on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sealtide_store::Store;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::stream::BackupWriter;
use super::{AUDIT, BUNDLES, FACTS, FILES, STORE};
use crate::api::Progress;
use crate::beside::Beside;
use crate::commands::{go_on, store_failure};
use crate::failure::Failure;
use crate::home::Home;

/// Bytes that are read at once.
const PIECE: usize = 1024 * 1024;
/// Bytes of a file with secrets or settings, at most.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How often the secrets may change while the store is looked at.
const TRIES: usize = 16;

/// A file of the home with what it held at that moment.
type Small = (&'static str, Zeroizing<Vec<u8>>);

/// Writes a backup of `home` into a new file. Gives its bytes, and how many files it holds.
///
/// # Errors
/// Exit 2 when the file is there already; as the disk reports.
pub(crate) fn create(home: &Home, store: &Store, file: &Path, progress: &Progress) -> Result<Value, Failure> {
    let named = |error: io::Error| Failure::from(error).about(file);
    if file.symlink_metadata().is_ok() {
        let text = format!("{} is there already", file.display());
        return Err(Failure::usage("exists", text).hint("name a new file; an old backup is never written over"));
    }
    let (beside, out) = Beside::begin(file, 0o600).map_err(named)?;
    let seal = home.seal()?;
    let seal = match seal {
        Some(seal) => Some((seal, fs::read_to_string(home.root().join("seal.key"))?)),
        None => None,
    };
    let is_sealed = seal.is_some();
    let mut writer = BackupWriter::begin(BufWriter::with_capacity(PIECE, out), seal).map_err(named)?;
    let items = write_home(home, store, &mut writer, progress).map_err(|failure| failure.about(file))?;
    let out = writer.finish().map_err(named)?.into_inner().map_err(io::IntoInnerError::into_error).map_err(named)?;
    out.sync_all().map_err(named)?;
    let bytes = out.metadata().map_err(named)?.len();
    crate::failpoint::hit("backup_written");
    beside.place().map_err(named)?;
    Ok(json!({"schema": "sealtide/backup_create/1", "file": file, "bytes": bytes, "files": items, "sealed": is_sealed}))
}

fn write_home<W: Write>(
    home: &Home,
    store: &Store,
    writer: &mut BackupWriter<W>,
    progress: &Progress,
) -> Result<u64, Failure> {
    // The secrets and the store must be of one moment: a key that the store speaks of, and that is not there, would be lost.
    let mut before = small_files(home)?;
    let mut tries = 0;
    let snapshot = loop {
        let snapshot = store.snapshot().map_err(store_failure)?;
        let after = small_files(home)?;
        tries += 1;
        if after == before || tries == TRIES {
            break snapshot;
        }
        before = after;
    };
    let audit = files_of(home, AUDIT)?;
    let total: u64 = snapshot.packs().iter().map(|pack| pack.size()).sum::<u64>()
        + audit.iter().chain(&files_of(home, BUNDLES)?).map(|(_, _, size)| size).sum::<u64>();
    let (mut done, mut items) = (0, 0);
    let mut told = |bytes: u64| {
        done += bytes;
        progress.tell(json!({"phase": "backup", "bytes": [done, total.max(done)]}));
    };
    for (name, bytes) in &before {
        writer.item(name, bytes.len() as u64)?;
        writer.write_all(bytes)?;
        items += 1;
    }
    writer.item(FACTS, snapshot.facts().len() as u64)?;
    writer.write_all(snapshot.facts())?;
    let mut piece = vec![0; PIECE];
    for pack in snapshot.packs() {
        writer.item(&format!("{STORE}/{}", pack.name()), pack.size())?;
        let mut at = 0;
        while at < pack.size() {
            go_on(progress)?;
            let most = piece.len().min(usize::try_from(pack.size() - at).unwrap_or(usize::MAX));
            pack.read_at(at, &mut piece[..most])?;
            writer.write_all(&piece[..most])?;
            at += most as u64;
            told(most as u64);
        }
        items += 1;
    }
    for file in &audit {
        go_on(progress)?;
        items += u64::from(write_file(writer, file, &mut told)?);
    }
    // A bundle may move between the tiers while the packs are written.
    let bundles = write_all(&mut || files_of(home, BUNDLES), &mut |file| {
        go_on(progress)?;
        write_file(writer, file, &mut told)
    })?;
    Ok(items + bundles + 1)
}

/// Writes all files of a folder in which some may move meanwhile: looks for them until a look behind the last of them finds nothing new.
/// Gives how many.
fn write_all(
    list: &mut dyn FnMut() -> Result<Vec<Listed>, Failure>,
    write: &mut dyn FnMut(&Listed) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    let (mut written, mut looks) = (BTreeSet::new(), 0);
    loop {
        let mut new = list()?;
        new.retain(|(name, ..)| !written.contains(name));
        looks += 1;
        // One look alone may miss what moves while it is taken.
        if new.is_empty() && looks > 1 {
            return Ok(written.len() as u64);
        }
        for file in new {
            if write(&file)? {
                written.insert(file.0);
            }
        }
    }
}

/// A file of a folder: its name in the backup, where it is, its bytes now.
type Listed = (String, PathBuf, u64);

/// Writes a file as it was when it was listed; whether it was there still.
fn write_file<W: Write>(
    writer: &mut BackupWriter<W>,
    (name, path, size): &Listed,
    told: &mut impl FnMut(u64),
) -> Result<bool, Failure> {
    let Some(file) = open_whole(path, *size)? else { return Ok(false) };
    writer.item(name, *size)?;
    let copied = io::copy(&mut file.take(*size), writer)?;
    if copied != *size {
        return Err(Failure::failed("io", format!("{} became shorter while it was read", path.display())));
    }
    told(*size);
    Ok(true)
}

fn small_files(home: &Home) -> Result<Vec<Small>, Failure> {
    let read = |name: &'static str| -> Option<io::Result<Small>> {
        let file = match File::open(home.root().join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            file => file,
        };
        let mut bytes = Zeroizing::new(Vec::new());
        let read = file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
        Some(read.map(|_| (name, bytes)))
    };
    Ok(FILES.into_iter().filter_map(read).collect::<io::Result<Vec<Small>>>()?)
}

/// Every file of a folder. Lines that are written later are left out.
fn files_of(home: &Home, folder: &str) -> Result<Vec<Listed>, Failure> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = match fs::read_dir(home.root().join(&folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let name = format!("{folder}/{name}");
            if kind.is_dir() && name != "bundles/scratch" {
                open.push(name);
            } else if kind.is_file()
                && name != "bundles/coming"
                && let Ok(meta) = entry.metadata()
            {
                found.push((name, entry.path(), meta.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The file, at least as long as it was when it was listed; nothing when it is gone since, as a bundle that moved to another tier.
fn open_whole(path: &Path, size: u64) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) if file.metadata()?.len() >= size => Ok(Some(file)),
        Ok(_) => Err(io::Error::other(format!("{} became shorter while it was read", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bundle moves to the archive, and a note of one that went into a bucket comes, while another bundle is written.
    #[test]
    fn what_moves_while_it_is_written_is_written_where_it_is_then() {
        let place = tempfile::tempdir().unwrap();
        let home = Home::new(place.path().to_owned());
        let at = |name: &str| place.path().join(BUNDLES).join(name);
        fs::create_dir_all(at("cold")).unwrap();
        for name in ["a", "b", "cold/x"] {
            fs::write(at(name), name).unwrap();
        }
        let mut names = Vec::new();
        let written = write_all(&mut || files_of(&home, BUNDLES), &mut |(name, path, size)| {
            if name == "bundles/a" {
                fs::rename(at("b"), at("cold/b")).unwrap();
                fs::write(at("c.stub"), "c").unwrap();
            }
            let is_there = open_whole(path, *size)?.is_some();
            names.extend(is_there.then(|| name.clone()));
            Ok(is_there)
        });
        names.sort();
        assert_eq!(names, ["a", "c.stub", "cold/b", "cold/x"].map(|name| format!("{BUNDLES}/{name}")));
        assert_eq!(written.unwrap(), 4);
    }
}
