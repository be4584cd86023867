//! Both disks pass the list of promises.

use std::sync::Arc;

use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, FsDisk, Store, conformance};

#[test]
fn the_disk_in_memory_conforms() {
    conformance::run(&mut || {
        let disk = MemDisk::new(1);
        Box::new(move || Store::open(Arc::new(disk.clone()), Config::default()).unwrap())
    });
}

#[test]
fn the_disk_in_memory_conforms_with_tiny_packs() {
    conformance::run(&mut || {
        let disk = MemDisk::new(1);
        let config = Config { pack_bytes: 700, draft_records: 1, ..Config::default() };
        Box::new(move || Store::open(Arc::new(disk.clone()), config.clone()).unwrap())
    });
}

// Proves: SY-13, SY-66, SY-67, SY-70, SY-71, SY-73, SY-100, LK-4, LK-100
#[test]
fn the_file_system_conforms() {
    let root = tempfile::tempdir().unwrap();
    let mut homes = 0;
    conformance::run(&mut || {
        homes += 1;
        let home = root.path().join(format!("home {homes}"));
        let config =
            Config { pack_bytes: if homes % 2 == 0 { 2000 } else { 1 << 28 }, draft_records: 2, ..Config::default() };
        Box::new(move || Store::open(Arc::new(FsDisk::new(&home).unwrap()), config.clone()).unwrap())
    });
}
