//! A flipped bit anywhere is found: the store does not open, or the check names the file and the place.

use std::sync::Arc;

use crate::support::{Dice, Model, Op, Player, random_op, scale};
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, Damage, Disk, OpenError, Store, Unhealthy, conformance};
use sealtide_sync::{CommitRequest, SpaceView};

/// A store that was closed in order, with several packs or one, and what it must hold.
fn filled(seed: u64, pack_bytes: u64) -> (Player, Model) {
    let mut dice = Dice::new(seed);
    let mut player = Player::new(seed, pack_bytes);
    let mut model = Model::default();
    let space = crate::support::spaces()[0];
    // At the end a commit with chunks, so that blobs are flipped too.
    let last = Op::Local(space, crate::support::POOL.records.clone());
    let ops = (0..15).map(|_| random_op(&mut dice)).chain([Op::Adopt(space), last]).collect::<Vec<_>>();
    for op in ops {
        model.apply(&op);
        player.play(&op);
    }
    player.store = None;
    (player, model)
}

fn reopen(disk: &MemDisk) -> Result<Store, OpenError> {
    let config = Config { wall_ms: Arc::new(|| 1_700_000_000_000), ..Config::default() };
    Store::open(Arc::new(disk.clone()), config)
}

// Proves: SY-78
#[test]
fn a_flipped_bit_in_a_pack_is_found() {
    let (mut refused, mut reported, mut harmless) = (0, 0, 0);
    for seed in 0..4 * scale() {
        let (player, model) = filled(seed, if seed % 2 == 0 { 1 << 28 } else { 200_000 });
        let packs: Vec<String> = player.disk.names().into_iter().filter(|name| name.ends_with(".pack")).collect();
        for name in packs {
            let len = player.disk.content(&name).unwrap().len();
            let mut dice = Dice::new(seed);
            // Every byte of the ends, and a sample of the rest.
            let ends = (0..100.min(len)).chain(len.saturating_sub(60)..len);
            let places: Vec<usize> = ends.chain((0..40).map(|_| dice.below(len))).collect();
            for at in places {
                let disk = player.disk.copy();
                let bit = dice.below(8) as u8;
                assert!(disk.flip_bit(&name, at, bit));
                match reopen(&disk) {
                    Err(OpenError::Damaged(Damage { file, offset, .. })) => {
                        assert_eq!(file, name);
                        assert!(offset <= at as u64, "the place at or in front of the flip");
                        refused += 1;
                        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
                        let report = Store::verify_files(&disk, &mut |_, _| {});
                        match report {
                            Ok(report) => assert!(report.bad.iter().any(|damage| damage.file == name)),
                            Err(OpenError::Damaged(damage)) => assert_eq!(damage.file, name),
                            Err(error) => panic!("{error}"),
                        }
                    }
                    Err(error) => panic!("{name} byte {at}: {error}"),
                    Ok(store) => {
                        let report = store.verify(&mut |_, _| {}).unwrap();
                        if report.bad.is_empty() {
                            // The last mark, which proves nothing but what is there, or what nobody needs.
                            model.check(&store);
                            assert!(at + 28 >= len || disk.is_hole(&name, at), "{name} byte {at} of {len}");
                            harmless += 1;
                        } else {
                            assert!(report.bad.iter().any(|damage| damage.file == name));
                            reported += 1;
                        }
                    }
                }
            }
        }
    }
    println!("{refused} stores did not open, {reported} damages reported, {harmless} marks lost");
    assert!(refused > 0 && reported > 0);
}

/// A store that was closed in order knows how far it went: an end that is lost is damage, wherever it was cut, and nothing of what
/// is left is touched.
// Proves: SY-78
#[test]
fn a_lost_end_of_a_store_that_was_closed_is_found() {
    for seed in 0..4 * scale() {
        let (player, model) = filled(seed, if seed % 2 == 0 { 1 << 28 } else { 200_000 });
        let packs: Vec<String> = player.disk.names().into_iter().filter(|name| name.ends_with(".pack")).collect();
        let last = packs.last().unwrap();
        let len = player.disk.content(last).unwrap().len();
        let mut dice = Dice::new(seed);
        // The last entry is the mark, which proves nothing but what is there.
        let mark = 28;
        for left in (0..30).map(|_| dice.below(len - mark)).chain([0, 64, len - mark - 1]) {
            let disk = player.disk.copy();
            disk.open(last).unwrap().truncate(left as u64).unwrap();
            assert!(matches!(reopen(&disk), Err(OpenError::Damaged(_))), "seed {seed}: {left} of {len} bytes left");
            let is_whole = disk.content(last).is_none_or(|content| content.len() == left);
            assert!(is_whole, "seed {seed}: cut further");
        }
        let disk = player.disk.copy();
        disk.remove(last).unwrap();
        assert!(matches!(reopen(&disk), Err(OpenError::Damaged(_))), "seed {seed}: the last pack is gone");
        let disk = player.disk.copy();
        disk.open(last).unwrap().truncate((len - mark) as u64).unwrap();
        model.check(&reopen(&disk).unwrap());
    }
}

// Proves: SY-78
#[test]
fn a_flipped_bit_under_an_open_store_is_found_and_never_read() {
    for seed in 0..40 * scale() {
        let (mut player, _) = filled(seed, [1 << 28, 200_000][seed as usize % 2]);
        let store = player.open().unwrap();
        let space = crate::support::spaces()[0];
        let view = store.view(&space).unwrap();
        let name = "packs/00000001.pack";
        let len = player.disk.content(name).unwrap().len();
        let mut dice = Dice::new(seed);
        let at = 64 + dice.below(len - 64);
        player.disk.flip_bit(name, at, 3);
        let report = store.verify(&mut |_, _| {}).unwrap();
        let found = report.bad.iter().any(|damage| damage.file == name && damage.offset <= at as u64);
        assert!(found || player.disk.is_hole(name, at), "seed {seed} at {at}");
        for record in &crate::support::POOL.records {
            if let Some(read) = sealtide_sync::SpaceView::record(&view, &record.sid()) {
                assert_eq!(read.encoded(), record.encoded());
            }
        }
        for (hash, content) in &crate::support::POOL.chunks {
            if let Some(read) = store.read_chunk(hash) {
                assert_eq!(read, content);
            }
        }
    }
}

/// A record and a chunk that cannot be read are left out, and the store says that it left something out.
// Proves: SY-78
#[test]
fn what_cannot_be_read_is_left_out_and_told() {
    let disk = MemDisk::new(7);
    let store = reopen(&disk).unwrap();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let record = conformance::first_frame(1);
    store.commit(&space, &CommitRequest::local(vec![record.clone()])).unwrap();
    let (view, name) = (store.view(&space).unwrap(), "packs/00000001.pack");
    assert_eq!((view.record(&record.sid()).as_ref(), store.health()), (Some(&record), Ok(())));
    let place =
        |bytes: &[u8]| disk.content(name).unwrap().windows(bytes.len()).position(|there| there == bytes).unwrap();
    let at = place(record.encoded());
    disk.flip_bit(name, at, 1);
    assert_eq!((view.record(&record.sid()), store.health()), (None, Err(Unhealthy::Pack(1))));
    disk.flip_bit(name, at, 1);
    drop((store, view));
    let store = reopen(&disk).unwrap();
    assert_eq!(store.health(), Ok(()), "what is read from now on counts");
}

fn runs_of(disk: &MemDisk) -> Vec<String> {
    disk.names().into_iter().filter(|name| name.ends_with(".run")).collect()
}

// Proves: SY-78, SY-79
#[test]
fn a_flipped_bit_in_a_run_is_found_and_the_run_built_again() {
    for seed in 0..2 * scale() {
        let (player, model) = filled(seed, 3000);
        let runs = runs_of(&player.disk);
        assert!(!runs.is_empty(), "there are sealed packs");
        let mut dice = Dice::new(seed);
        for name in &runs {
            let good = player.disk.content(name).unwrap();
            let ends = [0, 20, 63, 64, good.len() - 1, good.len() - 60];
            for at in ends.into_iter().chain((0..6).map(|_| dice.below(good.len()))) {
                // Under an open store: the check names the file, and it is gone.
                let disk = player.disk.copy();
                let store = reopen(&disk).unwrap();
                disk.flip_bit(name, at, 1);
                let report = store.verify(&mut |_, _| {}).unwrap();
                assert_eq!(report.bad.iter().map(|damage| &damage.file).collect::<Vec<_>>(), [name], "byte {at}");
                let space = crate::support::spaces()[0];
                let stone = sealtide_store::conformance::stone_of("more");
                let refused = store.commit(&space, &sealtide_store::conformance::local(vec![stone]));
                assert!(refused.is_err(), "nothing is written on top of an index that is not to be trusted");
                assert_eq!(store.health(), Err(Unhealthy::Index));
                drop(store);
                let store = reopen(&disk).unwrap();
                assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
                model.check(&store);
                drop(store);
                // Before the store is opened: it opens, and answers right or says that it cannot.
                let disk = player.disk.copy();
                disk.flip_bit(name, at, 1);
                let store = reopen(&disk).unwrap();
                if !store.verify(&mut |_, _| {}).unwrap().bad.is_empty() {
                    drop(store);
                    let store = reopen(&disk).unwrap();
                    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, [], "byte {at}");
                    model.check(&store);
                } else {
                    model.check(&store);
                }
            }
        }
    }
}

// Proves: SY-79
#[test]
fn missing_and_torn_runs_are_built_again() {
    for seed in 0..4 * scale() {
        let (player, model) = filled(seed, 3000);
        let mut dice = Dice::new(seed);
        for name in runs_of(&player.disk) {
            let len = player.disk.content(&name).unwrap().len();
            for kept in [None, Some(0), Some(64), Some(dice.below(len)), Some(len - 1)] {
                let disk = player.disk.copy();
                match kept {
                    None => disk.remove(&name).unwrap(),
                    Some(kept) => disk.open(&name).unwrap().truncate(kept as u64).unwrap(),
                }
                let store = reopen(&disk).unwrap();
                model.check(&store);
                assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
            }
        }
        // Runs of another store, or none at all, do not count.
        let disk = player.disk.copy();
        let (other, _) = filled(seed + 100, 3000);
        for name in runs_of(&disk) {
            disk.remove(&name).unwrap();
            let foreign = other.disk.content(&name).unwrap_or_else(|| vec![7; 5000]);
            disk.create(&name).unwrap().append(&foreign).unwrap();
        }
        disk.create("runs/notes.txt").unwrap().append(b"what is this").unwrap();
        let store = reopen(&disk).unwrap();
        model.check(&store);
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
        assert!(!disk.names().contains(&"runs/notes.txt".to_owned()), "the folder is the store's alone");
    }
}

#[test]
fn missing_packs_and_foreign_formats_are_named() {
    let (player, _) = filled(1, 200_000);
    let packs: Vec<String> = player.disk.names().into_iter().filter(|name| name.ends_with(".pack")).collect();
    assert!(packs.len() >= 3, "{packs:?}");
    for gone in &packs[..packs.len() - 1] {
        let disk = player.disk.copy();
        disk.remove(gone).unwrap();
        assert!(matches!(reopen(&disk), Err(OpenError::Damaged(_))), "{gone} is missing");
    }
    let disk = player.disk.copy();
    disk.remove("format").unwrap();
    assert!(matches!(reopen(&disk), Err(OpenError::Damaged(damage)) if damage.file == "format"));
    let disk = player.disk.copy();
    disk.flip_bit("format", 15, 1);
    assert!(matches!(reopen(&disk), Err(OpenError::Version { file, .. }) if file == "format"));
}
