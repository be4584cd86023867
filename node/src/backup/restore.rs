//! A home from a backup: all of it or nothing.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sealtide_crypto::Entropy;
use sealtide_store::Store;
use serde_json::{Value, json};

use super::device::{OTHER_CONFIG, make_another, stays_behind};
use super::stream::{BackupHead, BackupReader};
use super::{FACTS, FILES, FOLDERS, STORE, damaged};
use crate::api::Progress;
use crate::failure::{Exit, Failure};
use crate::home::Home;
use crate::identity::RESTORED_FILE;
use crate::seal;
use crate::world::OsEntropy;

const PIECE: usize = 1024 * 1024;
/// Bytes of the small facts, at most: they are held in memory.
const FACTS_BYTES_MAX: u64 = 1 << 30;
/// Files of one backup, at most.
const ITEMS_MAX: u64 = 1_000_000;

/// What is to be restored.
#[derive(Clone, Debug)]
pub(crate) struct RestoreOrder {
    pub(crate) file: PathBuf,
    /// Names a file with the passphrase; without one a person is asked.
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Not that node again, but another one with its spaces.
    pub(crate) as_new_device: bool,
}

/// Makes `home` from a backup. It must not be there yet, or be empty.
///
/// # Errors
/// Exit 8 for a home that is there, 5 for a file that is no whole backup, 12 for a wrong passphrase; then there is no home.
pub(crate) fn restore(home: &Home, order: &RestoreOrder, progress: &Progress) -> Result<Value, Failure> {
    let RestoreOrder { file, passphrase_file, as_new_device } = order;
    let root = std::path::absolute(home.root())?;
    check_empty(&root)?;
    let named = |error: io::Error| Failure::from(error).about(file);
    let from = File::open(file).map_err(named)?;
    let total = from.metadata().map_err(named)?.len();
    let mut from = BufReader::with_capacity(PIECE, from);
    let head = BackupHead::read(&mut from)?;
    let next = Next::of(&root)?;
    let seal = open_seal(&head, &next.0, passphrase_file.as_deref())?;
    let mut reader = BackupReader::new(from, &head, seal.clone());
    let mut unpacking =
        Unpacking { root: &next.0, another: *as_new_device, known: BTreeSet::new(), facts: None, done: 0 };
    while let Some((name, size)) = reader.item()? {
        unpacking.take(&mut reader, &name, size)?;
        progress.tell(json!({"phase": "restoring", "bytes": [unpacking.done, total]}));
    }
    let Unpacking { known, facts, done, .. } = unpacking;
    if !known.contains("node.key") {
        return Err(damaged("holds no node"));
    }
    let facts = facts.ok_or_else(|| damaged("holds no store"))?;
    let failed = |error: &dyn std::fmt::Display| Failure::failed("home", error.to_string());
    Store::restore_dir(next.0.join(STORE), &facts).map_err(|error| failed(&error))?;
    // It opens, or it is not given out.
    let store = Store::open_dir(next.0.join(STORE)).map_err(damaged)?;
    let restored = Home::new(next.0.clone()).with_seal(seal);
    for folder in FOLDERS.into_iter().chain(["folders"]) {
        DirBuilder::new().recursive(true).mode(0o700).create(next.0.join(folder))?;
    }
    let (node, spaces) = if *as_new_device {
        (restored.init_over()?.0, Some(make_another(&store)?))
    } else {
        // What it holds may be old: it is another home than the one before, even where the system gives it the same inode.
        let mut drawn = [0; 32];
        OsEntropy.fill(&mut drawn);
        fs::write(next.0.join(RESTORED_FILE), drawn)?;
        (restored.identity()?, None)
    };
    drop(store);
    sync_tree(&next.0)?;
    crate::failpoint::hit("restore_whole");
    fs::rename(&next.0, &root)?;
    File::open(parent(&root))?.sync_all()?;
    Ok(json!({
        "schema": "sealtide/backup_restore/1", "home": root, "node": node.id.to_string(), "files": known.len(), "bytes": done,
        "as_new_device": as_new_device, "spaces": spaces,
    }))
}

fn check_empty(root: &Path) -> Result<(), Failure> {
    let is_empty = match fs::read_dir(root) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        Err(error) => return Err(Failure::failed("home", format!("{}: {error}", root.display()))),
    };
    if is_empty {
        return Ok(());
    }
    let text = format!("{} is not empty, and a backup is restored into an empty home only", root.display());
    Err(Failure::new(Exit::Held, "home_exists", text).hint("name another place with --home DIR, or move that one away"))
}

/// A home that is being made, beside its place. It is gone when this is, unless it took its place.
struct Next(PathBuf);

impl Next {
    fn of(root: &Path) -> Result<Self, Failure> {
        let name = root.file_name().ok_or_else(|| Failure::usage("home", "that is no place for a home"))?;
        let next = root.with_file_name(format!(".{}.restoring", name.to_string_lossy()));
        match fs::remove_dir_all(&next) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let folder = parent(root);
        DirBuilder::new().recursive(true).create(folder)?;
        DirBuilder::new().mode(0o700).create(&next)?;
        Ok(Self(next))
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn parent(root: &Path) -> &Path {
    root.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The key behind the passphrase, where the home had one.
fn open_seal(
    head: &BackupHead,
    next: &Path,
    passphrase_file: Option<&Path>,
) -> Result<Option<sealtide_crypto::SealingKey>, Failure> {
    if head.seal.is_empty() {
        return Ok(None);
    }
    let path = next.join("seal.key");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(head.seal.as_bytes())?;
    let opened = seal::open(&path, passphrase_file)?;
    fs::remove_file(&path)?;
    Ok(opened)
}

struct Unpacking<'a> {
    root: &'a Path,
    /// Without what belongs to the machine that made the backup.
    another: bool,
    known: BTreeSet<String>,
    facts: Option<Vec<u8>>,
    done: u64,
}

impl Unpacking<'_> {
    fn take<R: io::Read>(&mut self, reader: &mut BackupReader<R>, name: &str, size: u64) -> Result<(), Failure> {
        if !is_name(name) || self.known.len() as u64 >= ITEMS_MAX || !self.known.insert(name.to_owned()) {
            return Err(damaged(format!("names a file that a home does not have: {name:?}")));
        }
        self.done += size;
        if name == FACTS {
            if size > FACTS_BYTES_MAX {
                return Err(damaged("has more facts than a home can"));
            }
            let mut facts = Vec::new();
            reader.bytes(size, |bytes| {
                facts.extend_from_slice(bytes);
                Ok(())
            })?;
            self.facts = Some(facts);
            return Ok(());
        }
        if self.another && stays_behind(name) {
            // Read all the same: what was changed on the way is found.
            return reader.bytes(size, |_| Ok(()));
        }
        let place = if self.another && name == "config.toml" { OTHER_CONFIG } else { name };
        let path = self.root.join(place);
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        reader.bytes(size, |bytes| file.write_all(bytes))
    }
}

/// One of the files of a home, or a file in one of its folders; nothing that leads out of it.
fn is_name(name: &str) -> bool {
    let mut parts = name.split('/');
    let is_plain = name.split('/').all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\0'));
    let first = parts.next().unwrap_or_default();
    let is_pack = name.strip_prefix("store/packs/").is_some_and(|rest| !rest.contains('/'));
    let in_folder = FOLDERS.contains(&first) && parts.next().is_some();
    is_plain && (FILES.contains(&name) || name == FACTS || is_pack || in_folder)
}

/// Everything on disk before the place is taken.
fn sync_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_names_nothing_outside_of_a_home() {
        for good in [
            "node.key",
            "store/facts",
            "store/packs/00000001.pack",
            "audit/0001.jsonl",
            "bundles/hot/bundle/v1/a/1.stb",
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "other",
            "audit",
            "../node.key",
            "audit/../../x",
            "/node.key",
            "audit//x",
            "store/format",
            "store/packs/a/b",
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
