//! A store in a directory: one process, readable errors, many writers, expiry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealtide_ibgib::Sid;
use sealtide_store::mem::MemDisk;
use sealtide_store::{CommitError, Config, Disk, DiskFile, OpenError, Store, conformance};
use sealtide_sync::{CommitRequest, SagaId, SagaState, SpaceView};

#[test]
fn a_second_opener_is_told_that_the_store_is_locked() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open_dir(home.path()).unwrap();
    assert!(
        matches!(Store::open_dir(home.path()), Err(OpenError::Locked(place)) if place.contains(home.path().to_str().unwrap()))
    );
    drop(store);
    Store::open_dir(home.path()).unwrap();
}

#[test]
fn damaged_and_foreign_files_are_named() {
    let home = tempfile::tempdir().unwrap();
    drop(Store::open_dir(home.path()).unwrap());
    std::fs::write(home.path().join("format"), "sealtide store 9\nmore").unwrap();
    let error = Store::open_dir(home.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Version { found, .. } if found == "sealtide store 9"), "{error}");
    std::fs::write(home.path().join("format"), "sealtide store 1\n").unwrap();
    let facts = home.path().join("facts.redb");
    let bytes = std::fs::read(&facts).unwrap();
    std::fs::write(&facts, "no database").unwrap();
    assert!(matches!(Store::open_dir(home.path()), Err(OpenError::Facts { file: "facts.redb", .. })));
    std::fs::remove_file(&facts).unwrap();
    assert!(
        matches!(Store::open_dir(home.path()), Err(OpenError::Facts { file: "facts.redb", .. })),
        "never made anew silently"
    );
    std::fs::write(&facts, bytes).unwrap();
    Store::open_dir(home.path()).unwrap();
}

/// A disk that may not be written to.
#[derive(Debug)]
struct ReadOnly(MemDisk);

impl Disk for ReadOnly {
    fn place(&self) -> String {
        "/mnt/cdrom".to_owned()
    }
    fn lock(&self) -> std::io::Result<Option<Box<dyn Send + Sync>>> {
        Err(std::io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn list(&self, folder: &str) -> std::io::Result<Vec<String>> {
        self.0.list(folder)
    }
    fn create(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.0.create(name)
    }
    fn open(&self, name: &str) -> std::io::Result<Arc<dyn DiskFile>> {
        self.0.open(name)
    }
    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name)
    }
    fn sync_folder(&self, folder: &str) -> std::io::Result<()> {
        self.0.sync_folder(folder)
    }
    fn random(&self) -> std::io::Result<[u8; 32]> {
        self.0.random()
    }
    fn facts(&self, anew: bool) -> std::io::Result<Box<dyn redb::StorageBackend>> {
        self.0.facts(anew)
    }
}

#[test]
fn a_read_only_home_is_said_to_be_one() {
    let error = Store::open(Arc::new(ReadOnly(MemDisk::new(1))), Config::default()).unwrap_err();
    assert!(matches!(&error, OpenError::ReadOnly { place, .. } if place == "/mnt/cdrom"), "{error}");
}

// Proves: SY-49 (store part), SY-70 (in order)
#[test]
fn eight_writers_on_one_timeline_lose_nothing() {
    let store = Store::open(Arc::new(MemDisk::new(1)), Config { pack_bytes: 5000, ..Config::default() }).unwrap();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let first = conformance::first_frame(1);
    let timeline = first.frame().unwrap().timeline;
    store.commit(&space, &conformance::local(vec![first.clone()])).unwrap();
    let events = store.subscribe();
    let per_writer = 25;
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let view = store.view(&space).unwrap();
                let mut written = 0;
                while written < per_writer {
                    let tips = view.tips(&timeline);
                    let tip = view.record(&tips[0].sid).unwrap();
                    let next = conformance::next_frame(&tip, &format!("{writer} {written}"));
                    let request = CommitRequest {
                        expected: vec![(timeline, vec![tip.sid()])],
                        strict: true,
                        ..conformance::local(vec![next])
                    };
                    match store.commit(&space, &request) {
                        Ok(_) => written += 1,
                        Err(CommitError::TipMoved(_)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let view = store.view(&space).unwrap();
    let tips = view.tips(&timeline);
    assert_eq!((tips.len(), tips[0].n), (1, 8 * per_writer));
    let frames = view.frames(&timeline, 0, u64::MAX, usize::MAX);
    assert_eq!(frames.len() as u64, 8 * per_writer + 1, "one frame for each n");
    let told: Vec<Sid> = events.try_iter().map(|event| event.tips[0]).collect();
    assert_eq!(told, frames[1..], "each tip once, in order");
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
}

#[test]
fn waiting_commits_share_a_sync_and_readers_go_on() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open_dir(home.path()).unwrap();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..20 {
                    let record = conformance::stone_of(&format!("{writer} {number}"));
                    store.commit(&space, &conformance::local(vec![record.clone()])).unwrap();
                    assert!(store.view(&space).unwrap().contains(&record.sid()), "one's own write is seen");
                }
            });
        }
        let report = store.verify(&mut |_, _| {}).unwrap();
        assert_eq!(report.bad, [], "a check while others write");
    });
    drop(store);
    let store = Store::open_dir(home.path()).unwrap();
    assert_eq!(store.view(&space).unwrap().info().unwrap().records, 321);
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
}

/// A store on a disk in memory with a clock that the test sets.
fn with_clock() -> (Arc<AtomicU64>, impl Fn() -> Store) {
    let clock = Arc::new(AtomicU64::new(1_700_000_000_000));
    let shown = Arc::clone(&clock);
    let config = Config { wall_ms: Arc::new(move || shown.load(Ordering::Relaxed)), ..Config::default() };
    let disk = Arc::new(MemDisk::new(1));
    (clock, move || Store::open(Arc::<MemDisk>::clone(&disk), config.clone()).unwrap())
}

#[test]
fn staged_records_expire_after_a_week_and_outcomes_after_a_month() {
    let (clock, open) = with_clock();
    let day = 24 * 3600 * 1000;
    let store = open();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let (committed, left) = (SagaId([1; 32]), SagaId([2; 32]));
    store.stage(&space, &committed, &[conformance::stone_of("a")], &[]).unwrap();
    store.commit(&space, &conformance::of_saga(committed)).unwrap();
    store.stage(&space, &left, &[conformance::stone_of("b")], &[]).unwrap();
    clock.fetch_add(6 * day, Ordering::Relaxed);
    store.expire(|_| false).unwrap();
    assert_eq!(store.saga_state(&left), SagaState::Staged);
    clock.fetch_add(2 * day, Ordering::Relaxed);
    store.expire(|_| false).unwrap();
    assert_eq!([committed, left].map(|saga| store.saga_state(&saga)), [SagaState::Committed, SagaState::Aborted]);
    assert!(store.view(&space).unwrap().staged(&left).is_empty());
    drop(store);
    let store = open();
    assert_eq!([committed, left].map(|saga| store.saga_state(&saga)), [SagaState::Committed, SagaState::Aborted]);
    clock.fetch_add(23 * day, Ordering::Relaxed);
    store.expire(|_| false).unwrap();
    assert_eq!([committed, left].map(|saga| store.saga_state(&saga)), [SagaState::Unknown, SagaState::Aborted]);
    drop(store);
    clock.fetch_add(30 * day, Ordering::Relaxed);
    assert_eq!(open().saga_state(&left), SagaState::Unknown, "the same after reopening");
}

/// A sync may take longer than a week; what it brought is dropped only when it does not go on.
#[test]
fn a_saga_that_goes_on_or_is_at_work_does_not_expire() {
    let (clock, open) = with_clock();
    let day = 24 * 3600 * 1000;
    let mut store = open();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let saga = SagaId([1; 32]);
    // A part every five days, over restarts.
    for part in 0..4 {
        store.stage(&space, &saga, &[conformance::stone_of(&format!("part {part}"))], &[]).unwrap();
        store.sync().unwrap();
        clock.fetch_add(5 * day, Ordering::Relaxed);
        drop(store);
        store = open();
        store.expire(|_| false).unwrap();
        assert_eq!(store.saga_state(&saga), SagaState::Staged, "after part {part}");
    }
    // At work, and nothing came for long: by the clock, which may have been set meanwhile.
    clock.fetch_add(400 * day, Ordering::Relaxed);
    store.expire(|at_work| *at_work == saga).unwrap();
    assert_eq!(store.saga_state(&saga), SagaState::Staged);
    // Begun by a clock that was ahead: when it is set right the time of the saga is, too.
    store.stage(&space, &saga, &[conformance::stone_of("ahead")], &[]).unwrap();
    clock.fetch_sub(400 * day, Ordering::Relaxed);
    store.stage(&space, &saga, &[conformance::stone_of("set right")], &[]).unwrap();
    assert_eq!(store.view(&space).unwrap().staged(&saga).len(), 6, "nothing was lost");
    clock.fetch_add(8 * day, Ordering::Relaxed);
    store.expire(|_| false).unwrap();
    assert_eq!(store.saga_state(&saga), SagaState::Aborted, "what does not go on is dropped");
}
