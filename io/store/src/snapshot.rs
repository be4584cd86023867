//! The store as it is at one moment, to be copied while it goes on being used. Spec: store, "Copies"
//!
//! Packs are only appended to, so a copy needs no more than how long each was. Two things would change what lies before that
//! length: freed chunks, which wait until the copy is made, and the small facts, which are read at that moment.

use std::io;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use crate::disk::{DiskFile, FsDisk};
use crate::error::{OpenError, StoreError};
use crate::facts::Facts;
use crate::guard;
use crate::open::write_format;
use crate::pack::{FOLDER, pack_name};
use crate::store::Store;

/// A moment of a store. While it is held nothing is freed.
pub struct Snapshot<'a> {
    packs: Vec<SnapshotPack>,
    facts: Vec<u8>,
    _checking: MutexGuard<'a, ()>,
}

/// One pack, as long as it was.
pub struct SnapshotPack {
    name: String,
    len: u64,
    file: Arc<dyn DiskFile>,
}

impl Snapshot<'_> {
    /// The packs, oldest first.
    pub fn packs(&self) -> &[SnapshotPack] {
        &self.packs
    }

    /// Every small fact, as [`Store::restore_dir`] takes them.
    pub fn facts(&self) -> &[u8] {
        &self.facts
    }
}

impl SnapshotPack {
    /// Its path in the folder of the store.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Fills `out` from `offset`; both lie within its bytes.
    ///
    /// # Errors
    /// As the system reports.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_at(offset, out)
    }
}

impl Store {
    /// Holds this moment: all that was committed before, nothing that comes after. Durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn snapshot(&self) -> Result<Snapshot<'_>, StoreError> {
        let checking = guard(&self.inner.checking);
        let (packs, facts) = {
            let log = self.writer()?;
            let disk = &self.inner.disk;
            let mut packs = Vec::new();
            for name in disk.list(FOLDER)? {
                let name = format!("{FOLDER}/{name}");
                let is_open = name == pack_name(log.active.number);
                let file = disk.open(&name)?;
                packs.push(SnapshotPack { len: if is_open { log.len } else { file.len()? }, name, file });
            }
            (packs, self.facts().dump().map_err(io::Error::other)?)
        };
        self.sync()?;
        Ok(Snapshot { packs, facts, _checking: checking })
    }

    /// Makes a store of packs that were put into `dir` under their names, and of the facts that belong to them. When this returns it
    /// can be opened; before, nothing there counts.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn restore_dir(dir: impl AsRef<Path>, facts: &[u8]) -> Result<(), OpenError> {
        let dir = dir.as_ref();
        let disk = FsDisk::new(dir).map_err(|source| OpenError::Io { file: dir.display().to_string(), source })?;
        let disk = Arc::new(disk);
        let made = Facts::open(disk.clone(), true)?;
        let failed =
            |error: &dyn std::fmt::Display| OpenError::Facts { file: crate::FACTS_FILE, what: error.to_string() };
        made.load(facts).map_err(|error| failed(&error))?;
        drop(made);
        write_format(&*disk)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sealtide_identity::NodeId;

    use super::*;
    use crate::Peer;

    fn copy(snapshot: &Snapshot<'_>, to: &Path) {
        for pack in snapshot.packs() {
            let mut bytes = vec![0; pack.size() as usize];
            pack.read_at(0, &mut bytes).unwrap();
            let path = to.join(pack.name());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    #[test]
    fn a_moment_is_copied_while_the_store_goes_on() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open_dir(one.path()).unwrap();
        let node = NodeId::from_bytes([7; 32]);
        let first = sealtide_identity::SpaceId::from_bytes([1; 32]);
        let later = sealtide_identity::SpaceId::from_bytes([2; 32]);
        store.adopt_space(first).unwrap();
        store.facts().put_setting("a", Some(b"then")).unwrap();
        store.facts().put_peer(&Peer::new(node, sealtide_crypto::Now { mono_ms: 0, wall_ms: 5 })).unwrap();
        let snapshot = store.snapshot().unwrap();
        store.adopt_space(later).unwrap();
        store.facts().put_setting("a", Some(b"later")).unwrap();
        copy(&snapshot, two.path());
        Store::restore_dir(two.path(), snapshot.facts()).unwrap();
        let copy = Store::open_dir(two.path()).unwrap();
        assert_eq!(copy.spaces().iter().map(|info| info.space).collect::<Vec<_>>(), [first]);
        assert_eq!(copy.facts().setting("a").unwrap().as_deref(), Some(&b"then"[..]));
        assert_eq!(copy.facts().peers().unwrap(), store.facts().peers().unwrap());
        assert_eq!(store.spaces().len(), 2);
    }

    #[test]
    fn facts_that_are_none_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [&b"\x09\0\0\0\x01a\0\0\0\x01b"[..], b"\x03\0\0\0\x09a", b"\x00\0\0\0\x01a\0\0\0\x01b", b"\x03"] {
            assert!(Store::restore_dir(dir.path(), bad).is_err(), "{bad:?}");
            assert!(!dir.path().join("format").exists());
        }
    }
}
