//! Chunks that nobody needs: counted, freed, their room given back, through crashes at every call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sealtide_ibgib::{ChunkHash, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::mem::MemDisk;
use sealtide_store::{Collected, CommitError, Config, Disk, GivenUp, Store, StoreError, conformance};
use sealtide_sync::{SagaId, SpaceView};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// A binary of two chunks of 300 KiB.
type Binary = (Vec<(ChunkHash, Bytes)>, Verified);

pub(crate) struct Home {
    pub(crate) disk: MemDisk,
    pub(crate) clock: Arc<AtomicU64>,
    pub(crate) pack_bytes: u64,
}

impl Home {
    pub(crate) fn new(seed: u64) -> Self {
        Self { disk: MemDisk::new(seed), clock: Arc::new(AtomicU64::new(1_700_000_000_000)), pack_bytes: 1 << 20 }
    }

    fn config(&self) -> Config {
        let clock = Arc::clone(&self.clock);
        let wall_ms = Arc::new(move || clock.load(Ordering::Relaxed));
        Config { pack_bytes: self.pack_bytes, garbage_bytes: 1, draft_records: 1, wall_ms, ..Config::default() }
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(Arc::new(self.disk.clone()), self.config()).unwrap()
    }

    /// The home as a power cut leaves it.
    pub(crate) fn crash(&self, image: u64) -> Self {
        Self { disk: self.disk.crash(image), clock: Arc::clone(&self.clock), pack_bytes: self.pack_bytes }
    }

    /// Takes the index away: it is built again from the packs.
    pub(crate) fn remove_runs(&self) {
        for name in self.disk.names().iter().filter(|name| name.ends_with(".run")) {
            Disk::remove(&self.disk, name).unwrap();
        }
    }

    /// Lets everything that was stored a moment ago be old.
    fn a_day_later(&self) {
        self.clock.fetch_add(DAY_MS + 1, Ordering::Relaxed);
    }
}

pub(crate) fn space(number: u8) -> SpaceId {
    SpaceId::from_bytes([number; 32])
}

fn put(store: &Store, space: &SpaceId, (chunks, record): &Binary) {
    store.adopt_space(*space).unwrap();
    chunks.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
    store.commit(space, &conformance::local(vec![record.clone()])).unwrap();
}

fn record(binary: &Binary) -> u64 {
    binary.1.encoded().len() as u64
}

/// Some chunks are freed and no record.
fn chunks(chunks: u64) -> Collected {
    Collected { chunks, bytes: chunks * 300 * 1024, ..Collected::default() }
}

fn is_whole(store: &Store, (chunks, _): &Binary) -> bool {
    chunks.iter().all(|(hash, content)| store.read_chunk(hash).as_ref() == Some(content))
}

pub(crate) fn assert_sound(store: &Store, what: &str) {
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, [], "{what}");
}

// Proves: SY-67
#[test]
fn a_chunk_is_stored_once_counted_by_reference_and_freed_with_the_last() {
    let home = Home::new(1);
    let store = home.open();
    let shared = conformance::binary(1);
    let other = conformance::binary(2);
    put(&store, &space(1), &shared);
    let once = home.disk.used();
    put(&store, &space(2), &shared);
    assert!(home.disk.used() < once + 64 * 1024, "the second space brought no chunk");
    put(&store, &space(2), &other);
    let bytes = |number| store.view(&space(number)).unwrap().info().unwrap().bytes;
    assert_eq!(bytes(1), 600 * 1024 + record(&shared), "the chunks of a space count");
    assert_eq!(bytes(2), 1200 * 1024 + record(&shared) + record(&other));

    home.a_day_later();
    assert_eq!(store.collect().unwrap(), Collected::default(), "everything is listed");
    store.remove_space(&space(1)).unwrap();
    assert_eq!(store.collectable(), Collected::default());
    assert_eq!(store.collect().unwrap(), Collected::default(), "the second space lists it still");
    let before = home.disk.used();
    store.remove_space(&space(2)).unwrap();
    let record_bytes = record(&shared) + record(&other);
    let freed = Collected { chunks: 4, bytes: 1200 * 1024, records: 2, record_bytes };
    assert_eq!(store.collectable(), freed);
    assert_eq!(store.collect().unwrap(), freed);
    assert!(home.disk.used() + 850 * 1024 < before, "the disk has the room back");
    assert!(store.unreferenced_chunks().is_empty() && store.collectable() == Collected::default());
    assert!(!is_whole(&store, &shared) && store.read_chunk(&other.0[0].0).is_none());
    assert_sound(&store, "after the collection");

    put(&store, &space(3), &shared);
    assert!(is_whole(&store, &shared), "what was freed can be stored again");
    drop(store);
    let store = home.open();
    assert!(is_whole(&store, &shared) && !is_whole(&store, &other));
    assert_eq!(store.view(&space(3)).unwrap().info().unwrap().bytes, 600 * 1024 + record(&shared));
    assert_sound(&store, "after the next open");
}

// Proves: SY-67
#[test]
fn what_is_on_its_way_is_kept() {
    let home = Home::new(2);
    let store = home.open();
    let (local, told, staged) = (conformance::binary(1), conformance::binary(2), conformance::binary(3));
    put(&store, &space(1), &told);
    store.remove_space(&space(1)).unwrap();
    store.adopt_space(space(2)).unwrap();
    let saga = SagaId([1; 32]);
    store.stage(&space(2), &saga, std::slice::from_ref(&staged.1), &staged.0).unwrap();
    home.a_day_later();
    // A saga hears that the chunks of a space that is gone are here, and does not bring them.
    assert!(told.0.iter().all(|(hash, _)| store.view(&space(2)).unwrap().has_chunk(hash)));
    local.0.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
    let only_the_record = Collected { records: 1, record_bytes: record(&told), ..Collected::default() };
    assert_eq!(store.collect().unwrap(), only_the_record);
    assert!([&local, &told, &staged].into_iter().all(|binary| is_whole(&store, binary)));
    store.commit(&space(2), &conformance::of_saga(saga)).unwrap();
    store.commit(&space(2), &conformance::local(vec![local.1.clone(), told.1.clone()])).unwrap();
    home.a_day_later();
    assert_eq!(store.collect().unwrap(), Collected::default());

    let dropped = conformance::binary(4);
    let saga = SagaId([2; 32]);
    store.stage(&space(2), &saga, std::slice::from_ref(&dropped.1), &dropped.0).unwrap();
    home.a_day_later();
    assert_eq!(store.collect().unwrap(), Collected::default(), "the saga may go on for a week");
    store.abort(&saga).unwrap();
    assert_eq!(store.collect().unwrap(), chunks(2));
    let late = store.commit(&space(2), &conformance::local(vec![dropped.1.clone()]));
    assert!(matches!(late, Err(CommitError::NoChunk(_))), "no binary without its chunks");
    assert_sound(&store, "at the end");
}

// Proves: SY-67
#[test]
fn nothing_waits_in_a_process_that_is_gone() {
    let home = Home::new(3);
    let store = home.open();
    conformance::binary(1).0.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
    store.sync().unwrap();
    assert_eq!(store.collect().unwrap(), Collected::default());
    drop(store);
    assert_eq!(home.open().collect().unwrap(), chunks(2));
}

/// A home with three binaries, one of them in a space that is gone.
fn with_garbage(seed: u64) -> (Home, [Binary; 3]) {
    let home = Home::new(seed);
    let binaries = [1, 2, 3].map(conformance::binary);
    let store = home.open();
    for (number, binary) in (1..).zip(&binaries) {
        put(&store, &space(number), binary);
    }
    store.remove_space(&space(2)).unwrap();
    store.sync().unwrap();
    home.a_day_later();
    (home, binaries)
}

// Proves: SY-67
#[test]
fn a_cut_at_every_call_of_a_collection_frees_a_chunk_or_keeps_it() {
    let (mut cuts, mut died) = (0, true);
    while died {
        cuts += 1;
        for image in 0..4 {
            let (home, [first, gone, last]) = with_garbage(cuts);
            let store = home.open();
            home.disk.fail_from(Some(home.disk.calls() + cuts));
            died = store.collect().is_err();
            let crashed = home.crash(image);
            let what = format!("cut {cuts} image {image}");
            let room = crashed.disk.used();
            let store = crashed.open();
            assert!(is_whole(&store, &first) && is_whole(&store, &last), "{what}");
            let listed = store.unreferenced_chunks().len();
            assert!(listed == 2 && is_whole(&store, &gone) || listed == 0 && !is_whole(&store, &gone), "{what}");
            assert_sound(&store, &what);
            store.collect().unwrap();
            assert!(store.unreferenced_chunks().is_empty(), "{what}");
            assert!(room < 1100 * 1024 || crashed.disk.used() + 400 * 1024 < room, "{what}: the room comes back");
            assert_sound(&store, &what);
            // The index is built again from packs with holes.
            drop(store);
            crashed.remove_runs();
            let store = crashed.open();
            assert!(is_whole(&store, &first) && is_whole(&store, &last) && !is_whole(&store, &gone), "{what}");
            assert_sound(&store, &what);
            put(&store, &space(2), &gone);
            assert!(is_whole(&store, &gone), "{what}");
        }
    }
    println!("{cuts} cuts with 4 images each");
    assert!(cuts > 5);
}

// Proves: SY-67
#[test]
fn holes_that_the_disk_refused_are_made_by_the_next_collection() {
    let (home, [_, gone, _]) = with_garbage(1);
    let store = home.open();
    let before = home.disk.used();
    home.disk.fail_next_punch();
    assert!(store.collect().is_err());
    assert!(!is_whole(&store, &gone), "it is given up");
    store.collect().unwrap();
    assert!(home.disk.used() + 400 * 1024 < before, "the disk has the room back");
    assert_sound(&store, "after the second");
}

/// What is freed is so only when that is durable: after a sync that failed nobody knows.
#[test]
fn a_collection_after_a_failed_one_makes_no_holes() {
    for image in 0..20 {
        let (home, [first, gone, last]) = with_garbage(1);
        let store = home.open();
        home.disk.fail_next_sync();
        assert!(store.collect().is_err());
        assert!(store.collect().is_err(), "the store must be opened again first");
        let crashed = home.crash(image);
        let store = crashed.open();
        assert!(is_whole(&store, &first) && is_whole(&store, &last));
        let listed = store.unreferenced_chunks().len();
        assert!(listed == 2 && is_whole(&store, &gone) || listed == 0 && !is_whole(&store, &gone), "image {image}");
        put(&store, &space(2), &gone);
        assert!(is_whole(&store, &gone), "what is said to be here is");
        assert_sound(&store, &format!("image {image}"));
    }
}

/// A run does not say which room is to be given back: none is written before it is.
#[test]
fn holes_that_the_disk_refused_are_not_forgotten_with_a_restart() {
    let (home, [_, gone, _]) = with_garbage(1);
    let store = home.open();
    let before = home.disk.used();
    home.disk.fail_next_punch();
    assert!(store.collect().is_err());
    let alone = home.disk.used();
    put(&store, &space(1), &conformance::binary(6));
    let each = home.disk.used() - alone;
    [7, 8, 9, 10, 11].map(conformance::binary).iter().for_each(|binary| put(&store, &space(1), binary));
    drop(store);
    let store = home.open();
    store.collect().unwrap();
    assert!(home.disk.used() + 300 * 1024 < before + 6 * each, "the disk has the room back");
    assert!(!is_whole(&store, &gone));
    assert_sound(&store, "after the restart");
}

/// A home that comes to a file system without holes goes on: nothing waits for room that does not come back there.
#[test]
fn a_home_that_comes_where_no_holes_are_writes_its_runs() {
    let (home, [first, gone, _]) = with_garbage(1);
    let store = home.open();
    home.disk.fail_next_punch();
    assert!(store.collect().is_err());
    drop(store);
    home.disk.forbid_holes();
    home.remove_runs();
    let store = home.open();
    let runs = || home.disk.names().iter().filter(|name| name.ends_with(".run")).count();
    [7, 8, 9, 10].map(conformance::binary).iter().for_each(|binary| put(&store, &space(1), binary));
    let before = runs();
    [11, 12, 13, 14].map(conformance::binary).iter().for_each(|binary| put(&store, &space(1), binary));
    assert!(runs() > before, "what is sealed leaves the memory");
    assert!(matches!(store.collect(), Ok(_) | Err(StoreError::NoHoles)));
    assert!(is_whole(&store, &first) && !is_whole(&store, &gone));
    assert_sound(&store, "without holes");
}

/// A look at what could be freed, commits and snapshots at the same time: each wants two of three locks.
#[test]
fn looking_for_what_can_be_freed_stops_nobody() {
    let (home, _) = with_garbage(1);
    let store = home.open();
    (10..60).for_each(|number| {
        conformance::binary(number).0.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap())
    });
    let (done, all) = std::sync::mpsc::channel();
    type Work = Box<dyn Fn(&Store, u64) + Send>;
    let run = |work: Work| {
        let (store, done) = (store.clone(), done.clone());
        std::thread::spawn(move || {
            (0..400).for_each(|round| work(&store, round));
            let _ = done.send(());
        });
    };
    run(Box::new(|store, _| drop(store.would_free(&GivenUp::default()))));
    run(Box::new(|store, round| {
        store.commit(&space(1), &conformance::local(vec![conformance::first_frame(round)])).unwrap();
    }));
    run(Box::new(|store, _| drop(store.view(&space(1)).unwrap().snapshot())));
    for _ in 0..3 {
        all.recv_timeout(std::time::Duration::from_secs(120)).expect("nobody waits for ever");
    }
}

/// A home where one binary is given up although its member stays.
fn with_given_up(seed: u64) -> (Home, [Binary; 3], GivenUp) {
    let home = Home::new(seed);
    let binaries = [1, 2, 3].map(conformance::binary);
    let store = home.open();
    binaries.iter().for_each(|binary| put(&store, &space(1), binary));
    store.sync().unwrap();
    home.a_day_later();
    let mut given_up = GivenUp::default();
    given_up.add(&store.view(&space(1)).unwrap(), &binaries[1].1);
    (home, binaries, given_up)
}

// Proves: SY-67
#[test]
fn what_is_given_up_goes_unless_another_lists_it() {
    let (home, [first, old, last], mut given_up) = with_given_up(1);
    let store = home.open();
    let view = store.view(&space(1)).unwrap();
    let bytes = view.info().unwrap().bytes;
    let whole = || is_whole(&store, &first) && is_whole(&store, &last);
    // A record that is no member anywhere gives nothing up, and naming one twice is naming it once.
    let (stranger, mut nothing) = (conformance::binary(9), GivenUp::default());
    nothing.add(&view, &stranger.1);
    assert_eq!(store.would_free(&nothing), []);
    given_up.add(&view, &old.1);
    drop(view);
    put(&store, &space(2), &old);
    home.a_day_later();
    assert_eq!(store.would_free(&given_up), [], "another space lists it");
    assert_eq!(store.collect_with(&given_up).unwrap(), Collected::default());
    store.remove_space(&space(2)).unwrap();
    assert_eq!(store.collect().unwrap(), Collected::default(), "its member stands");
    assert_eq!(store.would_free(&given_up).len(), 2);
    assert_eq!(store.collect_with(&given_up).unwrap(), chunks(2));
    assert!(whole() && store.would_free(&given_up).is_empty() && !store.holds_chunk(&old.0[0].0));
    let view = store.view(&space(1)).unwrap();
    assert!(view.contains(&old.1.sid()) && !view.has_chunk(&old.0[0].0) && view.chunk(&old.0[0].0, 0, 1).is_none());
    assert_eq!(view.info().unwrap().bytes, bytes, "what a space was given counts still");
    assert_sound(&store, "without it");

    // A saga that brings a record with one of its chunks brings the chunk too.
    let again = conformance::binary(2);
    let saga = SagaId([7; 32]);
    store.stage(&space(1), &saga, &[], &again.0[..1]).unwrap();
    store.abort(&saga).unwrap();
    assert!(store.holds_chunk(&old.0[0].0));
    assert_eq!(store.collect().unwrap(), Collected::default(), "it is listed");
    drop((store, view));
    let store = home.open();
    assert!(store.holds_chunk(&old.0[0].0) && !store.holds_chunk(&old.0[1].0));
    assert_eq!(store.view(&space(1)).unwrap().info().unwrap().bytes, bytes);
    assert_sound(&store, "after the next open");
}

// Proves: SY-67
#[test]
fn a_cut_at_every_call_gives_a_content_up_or_keeps_it() {
    let (mut cuts, mut died) = (0, true);
    while died {
        cuts += 1;
        for image in 0..4 {
            let (home, [first, old, last], given_up) = with_given_up(cuts);
            let store = home.open();
            let bytes = store.view(&space(1)).unwrap().info().unwrap().bytes;
            home.disk.fail_from(Some(home.disk.calls() + cuts));
            died = store.collect_with(&given_up).is_err();
            let crashed = home.crash(image);
            let what = format!("cut {cuts} image {image}");
            let store = crashed.open();
            assert!(is_whole(&store, &first) && is_whole(&store, &last), "{what}");
            let here = old.0.iter().filter(|(hash, _)| store.holds_chunk(hash)).count();
            assert!(here == 2 && is_whole(&store, &old) || here == 0, "{what}: {here}");
            assert_sound(&store, &what);
            store.collect_with(&given_up).unwrap();
            assert!(!store.holds_chunk(&old.0[0].0) && !store.holds_chunk(&old.0[1].0), "{what}");
            drop(store);
            crashed.remove_runs();
            let store = crashed.open();
            assert_eq!(store.view(&space(1)).unwrap().info().unwrap().bytes, bytes, "{what}");
            assert!(is_whole(&store, &first) && is_whole(&store, &last) && !is_whole(&store, &old), "{what}");
            assert_sound(&store, &what);
            old.0.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
            assert!(is_whole(&store, &old), "{what}");
            assert_sound(&store, &what);
        }
    }
    assert!(cuts > 5);
}

// Proves: SY-67, SY-69
#[test]
fn a_full_disk_gets_room_again() {
    let (home, [first, gone, _]) = with_garbage(1);
    let store = home.open();
    let more = conformance::binary(4);
    home.disk.set_capacity(Some(home.disk.used() + 1000));
    assert!(store.put_chunk(more.0[0].0, &more.0[0].1).is_err(), "the disk is full");
    let freed = Collected { records: 1, record_bytes: record(&gone), ..chunks(2) };
    assert_eq!(store.collect().unwrap(), freed);
    // A bit less than what was freed, for the log grew.
    store.put_chunk(more.0[0].0, &more.0[0].1).unwrap();
    assert!(is_whole(&store, &first));
    assert_sound(&store, "after the full disk");
}

#[test]
fn a_hole_that_nobody_made_is_damage() {
    let (home, [first, ..]) = with_garbage(1);
    let store = home.open();
    store.collect().unwrap();
    let wanted = first.0[0].0;
    let names = home.disk.names().into_iter().filter(|name| name.ends_with(".pack"));
    let mut places = names.filter_map(|name| {
        let content = home.disk.content(&name)?;
        let at = content.windows(32).position(|bytes| bytes == wanted.0)?;
        Some((name, at + 32))
    });
    let (name, offset) = places.next().unwrap();
    let file = Disk::open(&home.disk, &name).unwrap();
    file.punch(offset as u64, 300 * 1024).unwrap();
    let bad = store.verify(&mut |_, _| {}).unwrap().bad;
    assert_eq!(bad.len(), 1);
    assert_eq!(bad[0].file, name);
}

// Proves: SY-67
#[test]
fn many_binaries_come_and_go_while_runs_are_merged() {
    let home = Home::new(5);
    let store = home.open();
    let keep = conformance::binary(0);
    put(&store, &space(9), &keep);
    let mut peak = 0;
    for number in 1..=30u64 {
        put(&store, &space(1), &conformance::binary(number));
        peak = peak.max(home.disk.used());
        store.remove_space(&space(1)).unwrap();
        home.a_day_later();
        assert_eq!(store.collect().unwrap().chunks, 2, "binary {number}");
        // As long as runs are merged in steps, what was freed must stay so.
        for note in 0..20 {
            let note = conformance::stone_of(&format!("note {number} {note}"));
            store.commit(&space(9), &conformance::local(vec![note])).unwrap();
        }
    }
    assert!(peak < 3 << 20, "{peak} bytes at most for 18 MiB of binaries");
    assert!(is_whole(&store, &keep) && store.read_chunk(&conformance::binary(7).0[0].0).is_none());
    assert_sound(&store, "after thirty collections");
    drop(store);
    assert_sound(&home.open(), "after the next open");
}

#[test]
fn on_a_real_disk_the_blocks_come_back() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_dir(dir.path()).unwrap();
    let (gone, kept, on_its_way) = (conformance::binary(1), conformance::binary(2), conformance::binary(3));
    put(&store, &space(1), &gone);
    put(&store, &space(2), &kept);
    on_its_way.0.iter().for_each(|(hash, content)| store.put_chunk(*hash, content).unwrap());
    drop(store);
    let blocks = || std::fs::metadata(dir.path().join("packs/00000001.pack")).unwrap().blocks() * 512;
    let store = Store::open_dir(dir.path()).unwrap();
    match store.collect() {
        Err(StoreError::NoHoles) => println!("the file system of the test cannot free parts of files"),
        collected => assert_eq!(collected.unwrap(), chunks(0), "less than what a pack is sealed for"),
    }
    let before = blocks();
    store.remove_space(&space(1)).unwrap();
    match store.collect() {
        Err(StoreError::NoHoles) => assert!(is_whole(&store, &kept)),
        collected => {
            assert_eq!(collected.unwrap(), Collected { records: 1, record_bytes: record(&gone), ..chunks(4) });
            assert!(blocks() < before, "{} of {before} bytes", blocks());
        }
    }
    assert!(is_whole(&store, &kept));
    assert_sound(&store, "on a real disk");
}

/// A copy and a check read what was there when they began: nothing is given back meanwhile.
#[test]
fn nothing_is_given_back_while_a_moment_is_copied_or_checked() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Store::open_dir(one.path()).unwrap();
    let (gone, kept) = (conformance::binary(1), conformance::binary(2));
    put(&store, &space(1), &gone);
    put(&store, &space(2), &kept);
    let snapshot = store.snapshot().unwrap();
    store.remove_space(&space(1)).unwrap();
    assert!(store.try_collecting().is_none(), "a moment is held");
    std::thread::scope(|scope| {
        let collected = scope.spawn(|| store.collect());
        for pack in snapshot.packs() {
            let mut bytes = vec![0; usize::try_from(pack.size()).unwrap()];
            pack.read_at(0, &mut bytes).unwrap();
            let path = two.path().join(pack.name());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        Store::restore_dir(two.path(), snapshot.facts()).unwrap();
        drop(snapshot);
        assert!(matches!(collected.join().unwrap(), Ok(Collected { records: 1, .. }) | Err(StoreError::NoHoles)));
    });
    let copy = Store::open_dir(two.path()).unwrap();
    assert_sound(&copy, "the copy");
    assert!(is_whole(&copy, &gone) && is_whole(&copy, &kept));
    assert_eq!(copy.spaces().len(), 2);

    let mut told = 0;
    store
        .verify(&mut |_, _| {
            told += 1;
            assert!(store.try_collecting().is_none(), "while it is checked");
        })
        .unwrap();
    assert!(told > 0 && store.try_collecting().is_some());
}
