//! Directories: made from a seed, and compared whole.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A small generator of numbers: the same seed gives the same numbers everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// Bytes that no compression makes smaller.
    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.roll().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }

    /// A text of a few lines.
    pub(crate) fn text(&mut self) -> String {
        (0..1 + self.below(6)).map(|line| format!("line {line}: {:016x}\n", self.roll())).collect()
    }
}

/// Writes a file with every directory above it.
#[track_caller]
pub(crate) fn write(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// What stands at one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    File { bytes: u64, digest: String, exec: bool, mtime_ms: i64 },
    Symlink { target: String },
    EmptyDir,
}

/// A directory as a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot(pub(crate) BTreeMap<String, Entry>);

impl Snapshot {
    /// The first few paths that differ, in words; nothing when the two are equal.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        let paths = self.0.keys().chain(other.0.keys()).collect::<std::collections::BTreeSet<_>>();
        let differing: Vec<_> = paths.into_iter().filter(|path| self.0.get(*path) != other.0.get(*path)).collect();
        let line = |path: &&String| format!("{path}: {:?} against {:?}", self.0.get(*path), other.0.get(*path));
        let shown: Vec<String> = differing.iter().take(5).map(line).collect();
        (!differing.is_empty()).then(|| format!("{} paths differ: {}", differing.len(), shown.join("; ")))
    }

    pub(crate) fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

#[track_caller]
pub(crate) fn assert_same(left: &Snapshot, right: &Snapshot) {
    if let Some(difference) = left.difference(right) {
        panic!("{difference}");
    }
}

/// Reads a directory whole: kinds, contents, executable bits, targets of links and mtimes of files.
pub(crate) fn snapshot(root: &Path) -> Snapshot {
    let mut table = BTreeMap::new();
    read_dir(root, "", &mut table);
    Snapshot(table)
}

fn read_dir(root: &Path, below: &str, table: &mut BTreeMap<String, Entry>) {
    // While a node works, a directory may vanish between two looks; the next look sees what became of it.
    let Ok(entries) = fs::read_dir(root.join(below)) else { return };
    let mut empty = true;
    for entry in entries.filter_map(Result::ok) {
        empty = false;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let full = root.join(&path);
        let Ok(meta) = full.symlink_metadata() else { continue };
        if meta.is_dir() {
            read_dir(root, &path, table);
        } else if meta.is_symlink() {
            let target = fs::read_link(&full).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
            table.insert(path, Entry::Symlink { target });
        } else if let Some(digest) = digest(&full) {
            let mtime_ms = meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000;
            let exec = meta.permissions().mode() & 0o100 != 0;
            table.insert(path, Entry::File { bytes: meta.len(), digest, exec, mtime_ms });
        }
    }
    if empty && !below.is_empty() {
        table.insert(below.to_owned(), Entry::EmptyDir);
    }
}

fn digest(path: &Path) -> Option<String> {
    Some(digest_of(&fs::read(path).ok()?))
}

fn digest_of(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&sealtide_crypto::sha256(bytes)[..16])
}

/// The content that was written last at each path, with renames applied: what must stand there in the end, and nothing else.
pub(crate) struct Written(BTreeMap<String, String>);

impl Written {
    /// What stands in a directory.
    pub(crate) fn of(root: &Path) -> Self {
        Self(contents(&snapshot(root)))
    }

    #[track_caller]
    pub(crate) fn write(&mut self, root: &Path, path: &str, content: impl AsRef<[u8]>) {
        write(root, path, content.as_ref());
        self.0.insert(path.to_owned(), digest_of(content.as_ref()));
    }

    /// Gives a directory another name.
    #[track_caller]
    pub(crate) fn rename(&mut self, root: &Path, from: &str, to: &str) {
        fs::rename(root.join(from), root.join(to)).unwrap();
        let moved = self.0.extract_if(.., |path, _| path.strip_prefix(from).is_some_and(|rest| rest.starts_with('/')));
        let moved: Vec<_> = moved.map(|(path, digest)| (format!("{to}{}", &path[from.len()..]), digest)).collect();
        self.0.extend(moved);
    }

    /// All of it stands in a directory, and nothing else.
    #[track_caller]
    pub(crate) fn assert_survived(&self, agreed: &Snapshot) {
        let stands = contents(agreed);
        let differ = |path: &&String| self.0.get(*path) != stands.get(*path);
        let paths: std::collections::BTreeSet<&String> = self.0.keys().chain(stands.keys()).filter(differ).collect();
        assert!(paths.is_empty(), "{} paths are not as they were written last: {paths:?}", paths.len());
    }
}

/// The content of each file and the target of each link, by digest.
fn contents(of: &Snapshot) -> BTreeMap<String, String> {
    let content = |entry: &Entry| match entry {
        Entry::File { digest, .. } => Some(digest.clone()),
        Entry::Symlink { target } => Some(digest_of(target.as_bytes())),
        Entry::EmptyDir => None,
    };
    of.0.iter().filter_map(|(path, entry)| Some((path.clone(), content(entry)?))).collect()
}

/// Copies all files and folders below a folder; sockets are left out.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&path, &target);
        } else if kind.is_file() {
            fs::copy(&path, &target).unwrap();
        }
    }
}
