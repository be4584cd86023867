//! A power cut at any call leaves all of a commit or nothing, and a store that works.

use crate::support::{Dice, Model, Op, Outcome, Player, random_op, scale};
use sealtide_store::{Config, OpenError, Store};
use std::sync::Arc;

/// Plays random operations until the disk dies at `call`, then looks at what a power cut leaves.
/// Gives whether the disk died at all.
fn cut_at(seed: u64, call: u64, image: u64) -> bool {
    let mut dice = Dice::new(seed);
    let pack_bytes = [100, 3000, 1 << 28][dice.below(3)];
    let mut player = Player::new(seed, pack_bytes);
    player.disk.fail_from(Some(call));
    let mut before = Model::default();
    let mut after = before.clone();
    let mut died = false;
    for _ in 0..25 {
        let op = random_op(&mut dice);
        after = before.clone();
        let good = after.apply(&op);
        match player.play(&op) {
            Outcome::Done => assert!(good, "{op:?}"),
            Outcome::Refused => assert!(!good, "{op:?}"),
            Outcome::Disk => {
                died = true;
                break;
            }
        }
        before = after.clone();
    }
    let disk = player.disk.crash(image);
    drop(player);
    let config = Config { draft_records: 1 + dice.below(3), ..Config::default() };
    let store = match Store::open(Arc::new(disk), config) {
        Ok(store) => store,
        Err(error) => panic!("seed {seed} call {call} image {image}: {error}"),
    };
    let report = store.verify(&mut |_, _| {}).unwrap();
    assert_eq!(report.bad, [], "seed {seed} call {call} image {image}");
    // What was acknowledged is there; the operation at work is there whole or not at all.
    let members: std::collections::BTreeMap<_, _> = store
        .spaces()
        .iter()
        .map(|info| {
            let view = store.view(&info.space).unwrap();
            let sids = sealtide_sync::SpaceView::bulk(&view, None, usize::MAX).into_iter().map(|(_, sid)| sid);
            (info.space, sids.collect())
        })
        .collect();
    let model = if members == before.members { before } else { after };
    assert_eq!(members, model.members, "seed {seed} call {call} image {image}");
    model.check_members(&store);
    // And it goes on: what is still staged can be committed, with more, also when a first try was cut in its middle.
    for (saga, (space, ..)) in &model.sagas {
        if store.view(space).is_some() && store.saga_state(saga) == sealtide_sync::SagaState::Staged {
            let more = sealtide_store::conformance::stone_of("staged after the crash");
            store.stage(space, saga, &[more], &[]).unwrap();
            store.commit(space, &sealtide_store::conformance::of_saga(*saga)).unwrap();
        }
    }
    let space = crate::support::spaces()[0];
    store.adopt_space(space).unwrap();
    let note = sealtide_store::conformance::stone_of("after the crash");
    store.commit(&space, &sealtide_store::conformance::local(vec![note])).unwrap();
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, [], "seed {seed} call {call} image {image}");
    died
}

// Proves: SY-48, SY-79
#[test]
fn a_cut_at_every_call_leaves_all_or_nothing() {
    let mut cuts = 0;
    for seed in 0..10 * scale() {
        for call in 1.. {
            if !cut_at(seed, call, call) {
                break;
            }
            cuts += 1;
        }
    }
    println!("{cuts} cuts, one at each call");
}

// Proves: SY-48, SY-79
#[test]
fn random_cuts_leave_all_or_nothing() {
    let runs = if scale() >= 10 { 1000 } else { 200 * scale() };
    let mut died = 0;
    for run in 0..runs {
        let seed = 1000 + run;
        let call = Dice::new(seed).below(150) as u64 + 1;
        for image in 0..4 {
            died += u64::from(cut_at(seed, call, image));
        }
    }
    println!("{runs} random cuts with 4 images each, {died} in the middle of something");
}

// Proves: SY-48
#[test]
fn staged_records_that_were_synced_survive_a_cut() {
    for image in 0..50 {
        let mut player = Player::new(image, 3000);
        let space = crate::support::spaces()[0];
        let saga = sealtide_sync::SagaId([1; 32]);
        let records = crate::support::POOL.records.clone();
        let (synced, late) = records.split_at(records.len() / 2);
        for op in [Op::Adopt(space), Op::Stage(space, saga, synced.to_vec()), Op::Sync] {
            assert!(matches!(player.play(&op), Outcome::Done));
        }
        assert!(matches!(player.play(&Op::Stage(space, saga, late.to_vec())), Outcome::Done));
        let store = Store::open(Arc::new(player.disk.crash(image)), Config::default()).unwrap();
        let staged = sealtide_sync::SpaceView::staged(&store.view(&space).unwrap(), &saga);
        assert!(synced.iter().all(|record| staged.contains(&record.sid())));
        let before = staged.len() as u64;
        let result = store.commit(&space, &sealtide_store::conformance::of_saga(saga)).unwrap();
        assert_eq!(result.new_records, before);
    }
}

// Proves: SY-48
#[test]
fn a_commit_that_was_cut_in_its_middle_can_be_tried_again() {
    let mut again = 0;
    for image in 0..300 {
        let mut player = Player::new(image, 1 << 28);
        let (space, saga) = (crate::support::spaces()[0], sealtide_sync::SagaId([1; 32]));
        for op in [Op::Adopt(space), Op::Stage(space, saga, crate::support::POOL.records.clone()), Op::Sync] {
            assert!(matches!(player.play(&op), Outcome::Done));
        }
        player.disk.fail_next_sync();
        assert!(matches!(player.play(&Op::CommitSaga(space, saga, Vec::new(), None)), Outcome::Disk));
        let disk = player.disk.crash(image);
        let store = Store::open(Arc::new(disk.clone()), Config::default()).unwrap();
        if store.saga_state(&saga) == sealtide_sync::SagaState::Staged {
            again += 1;
            store.commit(&space, &sealtide_store::conformance::of_saga(saga)).unwrap();
        }
        drop(store);
        let store = Store::open(Arc::new(disk), Config::default()).unwrap();
        assert_eq!(store.saga_state(&saga), sealtide_sync::SagaState::Committed);
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
    }
    println!("300 commits cut, {again} tried again");
    assert!(again > 10);
}

// Proves: SY-69
#[test]
fn a_full_disk_refuses_cleanly_and_the_store_goes_on() {
    for seed in 0..100 * scale() {
        let mut dice = Dice::new(seed);
        let mut player = Player::new(seed, [100, 3000, 1 << 28][dice.below(3)]);
        let store = player.open().unwrap();
        drop(store);
        let mut model = Model::default();
        let mut full = 0;
        for step in 0..40 {
            if step % 10 == 5 {
                let room = dice.below(3000) as u64;
                player.disk.set_capacity(Some(player.disk.used() + room));
            }
            if step % 10 == 9 {
                player.disk.set_capacity(None);
            }
            let mut op = random_op(&mut dice);
            if matches!(op, Op::Reopen) && step % 10 >= 5 {
                op = Op::Sync;
            }
            let mut after = model.clone();
            let good = after.apply(&op);
            match player.play(&op) {
                Outcome::Done => {
                    assert!(good);
                    model = after;
                }
                Outcome::Refused => assert!(!good),
                Outcome::Disk => full += 1,
            }
            model.check(&player.open().unwrap());
        }
        player.disk.set_capacity(None);
        let store = player.open().unwrap();
        assert!(full > 0 || seed > 0, "the disk was full at least once");
        assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
        drop(store);
        player.store = None;
        model.check(&player.open().unwrap());
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_until_the_store_is_opened_again() {
    let mut player = Player::new(1, 1 << 28);
    let space = crate::support::spaces()[0];
    assert!(matches!(player.play(&Op::Adopt(space)), Outcome::Done));
    let store = player.open().unwrap();
    let events = store.subscribe();
    player.disk.fail_next_sync();
    let records = vec![sealtide_store::conformance::first_frame(1)];
    assert!(matches!(player.play(&Op::Local(space, records.clone())), Outcome::Disk));
    assert!(events.try_recv().is_err(), "what may be lost is told to nobody");
    assert!(matches!(player.play(&Op::Sync), Outcome::Disk));
    assert!(matches!(player.play(&Op::Adopt(crate::support::spaces()[1])), Outcome::Disk));
    drop(store);
    player.store = None;
    assert!(matches!(player.play(&Op::Local(space, records)), Outcome::Done));
}

#[test]
fn what_a_reopened_store_shows_survives_a_cut() {
    // A commit whose sync failed is in the page cache: the next open shows it, so it must be durable by then.
    let mut player = Player::new(1, 1 << 28);
    let space = crate::support::spaces()[0];
    let record = sealtide_store::conformance::first_frame(1);
    assert!(matches!(player.play(&Op::Adopt(space)), Outcome::Done));
    player.disk.fail_next_sync();
    assert!(matches!(player.play(&Op::Local(space, vec![record.clone()])), Outcome::Disk));
    player.store = None;
    let shown = |store: &Store| sealtide_sync::SpaceView::contains(&store.view(&space).unwrap(), &record.sid());
    assert!(shown(&player.open().unwrap()));
    for image in 0..20 {
        assert!(shown(&Store::open(Arc::new(player.disk.crash(image)), Config::default()).unwrap()));
    }
}

/// The process is killed at any call, which leaves what it wrote in the page cache; the next one goes on, and then the power is cut.
#[test]
fn what_a_killed_process_left_survives_a_cut_after_the_next_one_wrote() {
    let space = crate::support::spaces()[0];
    let (mut at, mut sealed) = (1, 0);
    loop {
        let disk = sealtide_store::mem::MemDisk::new(at);
        let config = || Config { pack_bytes: 700, ..Config::default() };
        let open = |disk: &sealtide_store::mem::MemDisk| Store::open(Arc::new(disk.clone()), config()).unwrap();
        let store = open(&disk);
        store.adopt_space(space).unwrap();
        let before = disk.calls();
        disk.fail_from(Some(before + at));
        let commit = |store: &Store, number: u64| {
            store.commit(
                &space,
                &sealtide_store::conformance::local(vec![sealtide_store::conformance::first_frame(number)]),
            )
        };
        let done = (0..6).take_while(|number| commit(&store, *number).is_ok()).count();
        drop(store);
        if done == 6 {
            break;
        }
        disk.fail_from(None);
        let packs = disk.names().iter().filter(|name| name.ends_with(".pack")).count();
        let store = open(&disk);
        commit(&store, 100).unwrap();
        let members = |store: &Store| sealtide_sync::SpaceView::bulk(&store.view(&space).unwrap(), None, usize::MAX);
        let shown = members(&store);
        assert!(shown.len() > done);
        sealed += usize::from(packs > 1);
        for image in 0..10 {
            // While the process goes on: it never closes.
            assert_eq!(members(&open(&disk.crash(image))), shown, "killed at call {at}, image {image}");
        }
        at += 1;
    }
    assert!(sealed > 5, "some were killed about the sealing of a pack");
}

/// Killed while it is made, gone on with by the next process, and then a power cut.
#[test]
fn a_store_that_was_killed_while_it_was_made_survives_a_cut() {
    let space = crate::support::spaces()[0];
    let mut at = 1;
    loop {
        let disk = sealtide_store::mem::MemDisk::new(at);
        disk.fail_from(Some(at));
        let open = |disk: &sealtide_store::mem::MemDisk| Store::open(Arc::new(disk.clone()), Config::default());
        let made = open(&disk).is_ok();
        disk.fail_from(None);
        if made {
            break;
        }
        let store = open(&disk).unwrap();
        store.adopt_space(space).unwrap();
        store
            .commit(&space, &sealtide_store::conformance::local(vec![sealtide_store::conformance::first_frame(1)]))
            .unwrap();
        for image in 0..10 {
            // While the process goes on: it never closes.
            let crashed = open(&disk.crash(image)).unwrap();
            let view = crashed.view(&space).unwrap_or_else(|| panic!("killed at call {at}, image {image}: no space"));
            assert_eq!(view.info().unwrap().records, 1, "killed at call {at}, image {image}");
        }
        at += 1;
    }
    assert!(at > 5);
}

#[test]
fn one_store_at_a_time() {
    let mut player = Player::new(1, 1 << 28);
    let store = player.open().unwrap();
    let second = Store::open(Arc::new(player.disk.clone()), Config::default());
    assert!(matches!(second, Err(OpenError::Locked(_))));
    player.store = None;
    drop(store);
    player.open().unwrap();
}
