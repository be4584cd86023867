//! What every store must do, whatever it is built on: a list of cases, each on a fresh store. A backend's tests call
//! [`run`]; a broken promise panics with the case in its message.

use std::collections::BTreeSet;

use bytes::Bytes;
use sealtide_crypto::{Entropy, Now, SeededEntropy, blake3};
use sealtide_ibgib::{
    Address, ChunkHash, ChunkRef, Data, Manifest, Object, Relations, Sid, Stamp, Verified, evolve, genesis,
    space_genesis, stone,
};
use sealtide_identity::{Invite, InviteSecret, NodeId, Role, SpaceId};
use sealtide_sync::{CommitRequest, SagaId, SagaState, SpaceView};

use crate::{Collected, CommitError, CreateError, EnrolError, SpaceHandle, Store, StoreError};

/// Opens one store, again and again: each call after the store of the call before was dropped.
pub type Reopen = Box<dyn Fn() -> Store>;

/// Runs all cases; `fresh` gives a place where no store was yet.
///
/// # Panics
/// When the store breaks a promise.
pub fn run(fresh: &mut dyn FnMut() -> Reopen) {
    let cases: &[fn(&Reopen)] = &[
        spaces_come_and_go,
        a_commit_survives_reopening,
        staged_records_are_seen_by_their_saga_only,
        a_saga_ends_once,
        some_of_the_staged_records_can_be_taken,
        all_shapes_of_an_address_are_kept,
        tips_do_not_depend_on_the_order,
        a_strict_commit_sees_moved_tips,
        members_come_in_order,
        chunks_need_their_hash_and_a_member,
        records_of_removed_spaces_are_erased,
        events_follow_commits,
        invites_enrol_once,
    ];
    for case in cases {
        let open = fresh();
        case(&open);
        let report = open().verify(&mut |_, _| {}).expect("the store can be checked");
        assert_eq!(report.bad, [], "after each case the check finds nothing");
    }
}

/// A local change.
pub fn local(records: Vec<Verified>) -> CommitRequest {
    CommitRequest::local(records)
}

/// The commit of all that a saga staged.
pub fn of_saga(saga: SagaId) -> CommitRequest {
    CommitRequest::of_saga(saga)
}

/// The first frame of a space.
pub fn space_frame(number: u8) -> Verified {
    space_genesis("Notes", "folder", "stn1test", Stamp { ms: 1_700_000_000_000 }, &format!("{number:064x}"))
}

/// The first frame of a document.
pub fn first_frame(number: u64) -> Verified {
    let mut data = Object::new();
    data.insert("name".to_owned(), format!("doc {number}").into());
    genesis("doc", data, Relations::new(), Stamp { ms: 1_700_000_000_000 + number }, &format!("{number:064x}"))
}

/// A frame behind `prev`; `text` tells siblings apart.
pub fn next_frame(prev: &Verified, text: &str) -> Verified {
    let mut data = Object::new();
    data.insert("text".to_owned(), text.into());
    evolve(prev, data, Relations::new(), Stamp { ms: 1_700_000_100_000 })
}

/// A frame behind `prev` that takes the place of `orphans` too.
pub fn merging_frame(prev: &Verified, orphans: &[Verified]) -> Verified {
    let orphans = orphans.iter().map(|orphan| orphan.address().clone()).collect();
    evolve(prev, Object::new(), Relations::from([("graftorphan".to_owned(), orphans)]), Stamp { ms: 1_700_000_200_000 })
}

/// A record in no timeline.
pub fn stone_of(text: &str) -> Verified {
    let mut data = Object::new();
    data.insert("text".to_owned(), text.into());
    stone("stone", Data::Json(data.into()), Relations::new())
}

/// Two records with one address: relations only, and data only.
pub fn two_shapes() -> [Verified; 2] {
    let target = Address::parse("a^gib").expect("a valid address");
    let mut data = Object::new();
    data.insert("x".to_owned(), vec!["a^gib"].into());
    let relations = Relations::from([("x".to_owned(), vec![target])]);
    let shapes = [stone("same", Data::None, relations), stone("same", Data::Json(data.into()), Relations::new())];
    assert_eq!(shapes[0].address(), shapes[1].address(), "the shapes collide");
    assert_ne!(shapes[0].sid(), shapes[1].sid(), "their sids differ");
    shapes
}

/// A binary of two chunks, as its chunks and the record that lists them. The second can be compressed to about half.
pub fn binary(seed: u64) -> (Vec<(ChunkHash, Bytes)>, Verified) {
    let mut content = vec![0; 600 * 1024];
    SeededEntropy::new(seed).fill(&mut content);
    content[300 * 1024..].iter_mut().for_each(|byte| *byte &= 0x0f);
    let chunks: Vec<(ChunkHash, Bytes)> =
        content.chunks(300 * 1024).map(|chunk| (ChunkHash(blake3(chunk)), Bytes::copy_from_slice(chunk))).collect();
    let list = chunks.iter().map(|(hash, chunk)| ChunkRef { length: chunk.len() as u32, hash: *hash }).collect();
    let manifest = Manifest { size: content.len() as u64, hash: blake3(&content), chunks: list };
    let record = manifest.records().pop().expect("a manifest has a record");
    (chunks, record)
}

fn sids(records: &[Verified]) -> Vec<Sid> {
    records.iter().map(Verified::sid).collect()
}

fn with_space(store: &Store) -> (SpaceId, SpaceHandle) {
    let space = store.create_space(space_frame(1)).expect("a new space");
    (space, store.view(&space).expect("it is there"))
}

// Proves: SY-71, SY-100
fn spaces_come_and_go(open: &Reopen) {
    let store = open();
    assert!(store.spaces().is_empty(), "a new store is empty");
    let first = space_frame(1);
    let space = store.create_space(first.clone()).expect("a new space");
    assert!(first.address().gib().eq_ignore_ascii_case(&hex(space.as_bytes())), "the id is the hash");
    assert!(matches!(store.create_space(first.clone()), Err(CreateError::Exists(there)) if there == space));
    for record in [first_frame(1), stone_of("x"), next_frame(&first, "second")] {
        assert!(matches!(store.create_space(record), Err(CreateError::NotSpace(_))), "no first frame of a space");
    }
    let adopted = SpaceId::from_bytes([9; 32]);
    assert!(store.view(&adopted).is_none(), "an unknown space has no view");
    assert!(matches!(
        store.commit(&adopted, &local(vec![first_frame(1)])),
        Err(CommitError::Store(StoreError::NoSpace(_)))
    ));
    assert!(matches!(store.stage(&adopted, &SagaId([1; 32]), &[first_frame(1)], &[]), Err(StoreError::NoSpace(_))));
    assert!(store.adopt_space(adopted).expect("adopting"), "new");
    assert!(!store.adopt_space(adopted).expect("adopting again"), "nothing new");
    let view = store.view(&adopted).expect("it is there");
    assert_eq!((view.info().map(|info| info.records), view.tip_items().len()), (Some(0), 0), "and empty");
    let generation = store.generation();
    store.commit(&adopted, &local(vec![first_frame(1)])).expect("a commit");
    assert!(store.generation() > generation, "a commit counts");
    drop((store, view));

    let store = open();
    let infos: Vec<_> = store.spaces().into_iter().map(|info| (info.space, info.records, info.tips)).collect();
    assert_eq!(infos.len(), 2);
    assert!(infos.contains(&(space, 1, 1)) && infos.contains(&(adopted, 1, 1)), "both came back: {infos:?}");
    let view = store.view(&adopted).expect("it is there");
    assert!(store.remove_space(&adopted).expect("removing"));
    assert!(!store.remove_space(&adopted).expect("removing again"), "nothing to remove");
    assert!(!view.contains(&first_frame(1).sid()) && view.tip_items().is_empty(), "an old view is empty");
    drop((store, view));

    let store = open();
    assert_eq!(store.spaces().len(), 1, "gone for good");
    assert!(store.adopt_space(adopted).expect("adopting anew"));
    assert_eq!(store.view(&adopted).and_then(|view| view.info()).map(|info| info.records), Some(0), "and empty again");
    store.commit(&adopted, &local(vec![first_frame(1)])).expect("records of the log become members again");
    assert!(store.view(&adopted).is_some_and(|view| view.contains(&first_frame(1).sid())));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn a_commit_survives_reopening(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let first = first_frame(1);
    let second = next_frame(&first, "two");
    let records = vec![first.clone(), second.clone(), stone_of("note")];
    let result = store.commit(&space, &local(records.clone())).expect("a commit");
    let timeline = first.frame().expect("a frame").timeline;
    assert_eq!(result.new_records, 3);
    assert_eq!(result.moved, [(timeline, vec![], vec![second.sid()])]);
    let again = store.commit(&space, &local(records.clone())).expect("the same again");
    assert_eq!((again.new_records, again.moved.len()), (0, 0), "nothing new");
    let before = (view.snapshot(), view.info(), view.tip_items());
    drop((store, view));

    let store = open();
    let view = store.view(&space).expect("the space");
    assert_eq!((view.tip_items(), view.info()), (before.2, before.1));
    assert_eq!(view.snapshot().item_summary, before.0.item_summary);
    assert_eq!(view.snapshot().tip_summary, before.0.tip_summary);
    for record in &records {
        let read = view.record(&record.sid()).expect("a member");
        assert_eq!((read.encoded(), read.address()), (record.encoded(), record.address()));
        assert_eq!(view.by_address(record.address()), [record.sid()]);
    }
    assert_eq!(view.frame_facts(second.address()), second.frame());
    assert_eq!(view.frame_facts(records[2].address()), None, "a stone is no frame");
    assert_eq!(view.frames(&timeline, 0, 9, 9), [first.sid(), second.sid()]);
    assert_eq!(view.frames(&timeline, 1, 1, 9), [second.sid()]);
    assert_eq!(view.frames(&timeline, 0, 9, 1), [first.sid()]);
    assert_eq!(view.frames(&timeline, 2, 1, 9), []);
    assert_eq!(view.tips(&timeline).iter().map(|tip| tip.sid).collect::<Vec<_>>(), [second.sid()]);
    assert_eq!(view.orphans(&timeline), []);
}

// Proves: SY-73
fn staged_records_are_seen_by_their_saga_only(open: &Reopen) {
    let (saga, other) = (SagaId([1; 32]), SagaId([2; 32]));
    let (first, note) = (first_frame(1), stone_of("note"));
    let mut staged = sids(&[first.clone(), note.clone()]);
    staged.sort_unstable();
    let check = |store: &Store, space: &SpaceId| {
        let view = store.view(space).expect("the space");
        assert_eq!(view.staged(&saga), staged);
        assert!(view.staged_record(&saga, &note.sid()).is_some_and(|record| record == note));
        assert!(view.staged(&other).is_empty() && view.staged_record(&other, &note.sid()).is_none());
        assert!(!view.contains(&note.sid()) && view.record(&note.sid()).is_none());
        assert!(view.by_address(note.address()).is_empty() && view.frame_facts(first.address()).is_none());
        assert_eq!((view.bulk(None, 9).len(), view.tip_items().len()), (1, 1), "the frame of the space alone");
        assert_eq!(store.saga_state(&saga), SagaState::Staged);
        assert_eq!(store.saga_state(&other), SagaState::Unknown);
    };
    let store = open();
    let (space, _) = with_space(&store);
    store.stage(&space, &saga, &[first.clone(), note.clone(), note.clone()], &[]).expect("staging");
    store.stage(&space, &saga, std::slice::from_ref(&note), &[]).expect("staging again");
    store.sync().expect("durable");
    check(&store, &space);
    drop(store);

    let store = open();
    check(&store, &space);
    let second_space = store.create_space(space_frame(2)).expect("a second space");
    let elsewhere = store.view(&second_space).expect("it is there");
    assert!(elsewhere.staged(&saga).is_empty(), "a saga belongs to its space");
    assert!(matches!(store.stage(&second_space, &saga, &[], &[]), Err(StoreError::SagaEnded(_))));
    // Another space may have the record at once, and still the first one does not.
    store.commit(&second_space, &local(vec![note.clone()])).expect("a commit elsewhere");
    check(&store, &space);
    let result = store.commit(&space, &of_saga(saga)).expect("the commit");
    assert_eq!((result.new_records, result.moved.len()), (2, 1));
    let view = store.view(&space).expect("the space");
    assert!(view.contains(&note.sid()) && view.contains(&first.sid()));
    assert!(!elsewhere.contains(&first.sid()) && elsewhere.record(&first.sid()).is_none());
    assert!(view.staged(&saga).is_empty(), "nothing is left over");
}

fn a_saga_ends_once(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let (saga, dropped) = (SagaId([1; 32]), SagaId([2; 32]));
    store.stage(&space, &saga, &[stone_of("a")], &[]).expect("staging");
    store.stage(&space, &dropped, &[stone_of("b")], &[]).expect("staging");
    store.commit(&space, &of_saga(saga)).expect("the commit");
    store.abort(&dropped).expect("the abort");
    store.abort(&saga).expect("an abort after the commit changes nothing");
    store.sync().expect("durable");
    for again in [saga, dropped] {
        assert!(matches!(store.commit(&space, &of_saga(again)), Err(CommitError::Store(StoreError::SagaEnded(_)))));
        assert!(matches!(store.stage(&space, &again, &[stone_of("c")], &[]), Err(StoreError::SagaEnded(_))));
    }
    assert!(view.contains(&stone_of("a").sid()) && !view.contains(&stone_of("b").sid()));
    // A saga that had nothing to stage is remembered too.
    let empty = SagaId([3; 32]);
    assert_eq!(store.commit(&space, &of_saga(empty)).expect("nothing to do").new_records, 0);
    drop((store, view));

    let store = open();
    let states = [saga, dropped, empty].map(|saga| store.saga_state(&saga));
    assert_eq!(states, [SagaState::Committed, SagaState::Aborted, SagaState::Committed]);
    let result = store.commit(&space, &local(vec![stone_of("b")])).expect("the dropped record by another way");
    assert_eq!(result.new_records, 1);
}

fn some_of_the_staged_records_can_be_taken(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let saga = SagaId([1; 32]);
    let (taken, left, both, merge) = (stone_of("taken"), stone_of("left"), stone_of("both"), first_frame(7));
    store.stage(&space, &saga, &[taken.clone(), left.clone(), both.clone()], &[]).expect("staging");
    let wrong = CommitRequest { staged: Some(vec![stone_of("never").sid()]), ..of_saga(saga) };
    assert!(matches!(store.commit(&space, &wrong), Err(CommitError::NotStaged(_))));
    let request =
        CommitRequest { staged: Some(vec![taken.sid()]), records: vec![merge.clone(), both.clone()], ..of_saga(saga) };
    assert_eq!(store.commit(&space, &request).expect("the commit").new_records, 3);
    drop(view);
    drop(store);
    let view = open().view(&space).expect("the space");
    assert_eq!([&taken, &merge, &both, &left].map(|record| view.contains(&record.sid())), [true, true, true, false]);
}

// Proves: SY-13
fn all_shapes_of_an_address_are_kept(open: &Reopen) {
    let store = open();
    let [relations, data] = two_shapes();
    let mut both = sids(&[relations.clone(), data.clone()]);
    both.sort_unstable();
    for (number, order) in [[&relations, &data], [&data, &relations]].into_iter().enumerate() {
        let number = number as u8;
        let by_api = store.create_space(space_frame(10 + number)).expect("a space");
        let by_saga = store.create_space(space_frame(20 + number)).expect("a space");
        let alone = store.create_space(space_frame(30 + number)).expect("a space");
        for record in order {
            let saga = SagaId(record.sid().0.map(|byte| byte ^ number));
            store.commit(&by_api, &local(vec![record.clone()])).expect("a commit");
            store.stage(&by_saga, &saga, std::slice::from_ref(record), &[]).expect("staging");
            store.commit(&by_saga, &of_saga(saga)).expect("a commit");
        }
        store.commit(&alone, &local(vec![order[0].clone()])).expect("a commit");
        for space in [by_api, by_saga] {
            let view = store.view(&space).expect("the space");
            assert_eq!(view.by_address(relations.address()), both, "whatever came first");
            assert_eq!(view.records_at(relations.address()).len(), 2);
        }
        let view = store.view(&alone).expect("the space");
        assert_eq!(view.by_address(relations.address()), [order[0].sid()], "a space keeps to itself");
        assert!(view.record(&order[1].sid()).is_none());
    }
}

fn tips_do_not_depend_on_the_order(open: &Reopen) {
    let store = open();
    let first = first_frame(1);
    let second = next_frame(&first, "two");
    let (left, right) = (next_frame(&second, "left"), next_frame(&second, "right"));
    let longer = next_frame(&left, "longer");
    let frames = [&first, &second, &left, &right, &longer];
    let timeline = first.frame().expect("a frame").timeline;
    let mut expected = vec![longer.sid(), right.sid()];
    expected.sort_unstable();
    let mut summaries = BTreeSet::new();
    let orders = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [4, 0, 2, 3, 1], [3, 4, 0, 1, 2], [2, 0, 4, 1, 3]];
    for (number, order) in orders.into_iter().enumerate() {
        let space = SpaceId::from_bytes([number as u8; 32]);
        store.adopt_space(space).expect("a space");
        for at in order {
            store.commit(&space, &local(vec![frames[at].clone()])).expect("a commit");
        }
        let view = store.view(&space).expect("the space");
        let mut tips: Vec<Sid> = view.tips(&timeline).iter().map(|tip| tip.sid).collect();
        tips.sort_unstable();
        assert_eq!(tips, expected, "order {order:?}");
        assert_eq!(view.timelines().len(), 1);
        summaries.insert((view.snapshot().tip_summary.lanes.digest(), view.snapshot().item_summary.lanes.digest()));
    }
    assert_eq!(summaries.len(), 1, "equal sets have equal digests");
}

fn a_strict_commit_sees_moved_tips(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let first = first_frame(1);
    let timeline = first.frame().expect("a frame").timeline;
    let expect = |tips: Vec<Sid>, records: Vec<Verified>| CommitRequest {
        expected: vec![(timeline, tips)],
        strict: true,
        ..local(records)
    };
    store.commit(&space, &expect(vec![], vec![first.clone()])).expect("there was none");
    let (left, right) = (next_frame(&first, "left"), next_frame(&first, "right"));
    store.commit(&space, &expect(vec![first.sid()], vec![left.clone()])).expect("as expected");
    let late = expect(vec![first.sid()], vec![right.clone()]);
    assert!(matches!(store.commit(&space, &late), Err(CommitError::TipMoved(moved)) if moved == timeline));
    assert!(!view.contains(&right.sid()), "nothing happened");
    let result = store.commit(&space, &CommitRequest { strict: false, ..late }).expect("both are kept");
    assert_eq!(result.moved.len(), 1);
    assert_eq!((result.moved[0].1.clone(), result.moved[0].2.len()), (vec![left.sid()], 2));
    assert_eq!(view.tip_items().len(), 3, "two tips and the space");
}

fn members_come_in_order(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let mut records: Vec<Verified> = (0..40).map(|number| stone_of(&format!("stone {number}"))).collect();
    let mut frame = first_frame(1);
    for number in 0..40 {
        records.push(frame.clone());
        frame = next_frame(&frame, &format!("{number}"));
    }
    store.commit(&space, &local(records.clone())).expect("a commit");
    records.push(space_frame(1));
    let mut expected: Vec<(u64, Sid)> = records.iter().map(|record| (record.order_key(), record.sid())).collect();
    expected.sort_unstable();
    for limit in [1, 7, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = view.bulk(after, limit);
            assert!(page.len() <= limit);
            after = page.last().copied();
            if after.is_none() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    assert_eq!(view.bulk(None, 0), []);
}

// Proves: SY-66, SY-67 (counting), SY-73
fn chunks_need_their_hash_and_a_member(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let other = store.create_space(space_frame(2)).expect("a space");
    let (chunks, record) = binary(1);
    let (hash, content) = chunks[0].clone();
    let wrong = ChunkHash([1; 32]);
    assert!(matches!(store.put_chunk(wrong, &content), Err(StoreError::BadChunk(_))));
    assert!(matches!(store.put_chunk(hash, &content[1..]), Err(StoreError::BadChunk(_))));
    let empty = (ChunkHash(blake3(&[])), Bytes::new());
    let saga = SagaId([1; 32]);
    for bad in [(wrong, content.clone()), empty] {
        let staged = store.stage(&space, &saga, std::slice::from_ref(&record), &[bad]);
        assert!(matches!(staged, Err(StoreError::BadChunk(_))));
        assert!(view.staged(&saga).is_empty(), "all or nothing");
    }
    assert!(!view.has_chunk(&hash) && store.read_chunk(&hash).is_none());
    store.put_chunk(hash, &content).expect("local content");
    store.put_chunk(hash, &content).expect("again");
    assert!(view.has_chunk(&hash));
    assert_eq!(view.chunk(&hash, 0, 9), None, "no member lists it");
    assert_eq!(store.unreferenced_chunks(), [(hash, content.len() as u32)]);
    store.stage(&space, &saga, std::slice::from_ref(&record), &chunks).expect("staging");
    assert_eq!(view.chunk(&hash, 0, 9), None, "still no member");
    store.commit(&space, &of_saga(saga)).expect("the commit");
    assert!(store.unreferenced_chunks().is_empty());
    drop((store, view));

    let store = open();
    let view = store.view(&space).expect("the space");
    assert_eq!(view.chunk(&hash, 0, usize::MAX), Some(content.clone()));
    assert_eq!(view.chunk(&hash, 5, 9), Some(content.slice(5..14)));
    assert_eq!(view.chunk(&hash, content.len() as u32 - 2, 9).map(|piece| piece.len()), Some(2));
    assert_eq!(view.chunk(&hash, content.len() as u32 + 1, 9), None);
    assert_eq!(store.read_chunk(&hash), Some(content));
    let elsewhere = store.view(&other).expect("the space");
    assert!(elsewhere.has_chunk(&hash), "stored on this node");
    assert_eq!(elsewhere.chunk(&hash, 0, 9), None, "but not for this space");
    store.commit(&other, &local(vec![record])).expect("a commit");
    assert!(elsewhere.chunk(&hash, 0, 9).is_some());
    store.remove_space(&space).expect("removing");
    assert!(store.unreferenced_chunks().is_empty(), "the other space still lists it");
    store.remove_space(&other).expect("removing");
    assert_eq!(store.unreferenced_chunks().len(), 2);
}

// Proves: SY-67
fn records_of_removed_spaces_are_erased(open: &Reopen) {
    let store = open();
    let (space, view) = with_space(&store);
    let other = store.create_space(space_frame(2)).expect("a space");
    let (own, shared) = (stone_of("of one space"), stone_of("of two spaces"));
    store.commit(&space, &local(vec![own.clone(), shared.clone()])).expect("a commit");
    store.commit(&other, &local(vec![shared.clone()])).expect("a commit");
    assert_eq!(store.collect().expect("a collection").records, 0, "every record is in a space");
    store.remove_space(&space).expect("removing");
    let erased = [space_frame(1), own.clone()];
    let record_bytes = erased.iter().map(|record| record.encoded().len() as u64).sum();
    let expected = Collected { records: 2, record_bytes, ..Collected::default() };
    assert_eq!(store.collectable(), expected);
    let collected = match store.collect() {
        // Nothing is erased where files have no holes.
        Err(StoreError::NoHoles) => return,
        collected => collected.expect("a collection"),
    };
    assert_eq!(collected, expected);
    assert_eq!(store.collectable(), Collected::default());
    drop((store, view));

    let store = open();
    let view = store.view(&other).expect("the space");
    assert_eq!(view.record(&shared.sid()).as_ref().map(Verified::encoded), Some(shared.encoded()));
    store.commit(&other, &local(vec![own.clone()])).expect("it comes again");
    assert_eq!(view.record(&own.sid()).as_ref().map(Verified::encoded), Some(own.encoded()));
}

// Proves: SY-70
fn events_follow_commits(open: &Reopen) {
    let store = open();
    let (space, _) = with_space(&store);
    let events = store.subscribe();
    let first = first_frame(1);
    let second = next_frame(&first, "two");
    let saga = SagaId([1; 32]);
    store.stage(&space, &saga, &[first.clone(), first_frame(2)], &[]).expect("staging");
    assert!(events.try_recv().is_err(), "staging tells nobody");
    store.commit(&space, &of_saga(saga)).expect("a commit");
    store.commit(&space, &local(vec![second.clone()])).expect("a commit");
    store.commit(&space, &local(vec![stone_of("no tip")])).expect("a commit");
    store.commit(&space, &local(vec![second.clone()])).expect("nothing new");
    let told: Vec<_> = events.try_iter().collect();
    assert_eq!(told.len(), 3, "once for each tip that moved");
    assert!(told.iter().all(|event| event.space == space));
    let timeline = first.frame().expect("a frame").timeline;
    let of_first: Vec<_> = told.iter().filter(|event| event.timeline == timeline).map(|event| &event.tips).collect();
    assert_eq!(of_first, [&vec![first.sid()], &vec![second.sid()]], "in order");
    drop(store);
    let store = open();
    assert!(store.subscribe().try_recv().is_err(), "reopening repeats nothing");
}

// Proves: LK-4 (durable part), LK-100
fn invites_enrol_once(open: &Reopen) {
    let now = |wall_ms| Now { mono_ms: 0, wall_ms };
    let node = |number: u8| NodeId::from_bytes([number; 32]);
    let space = SpaceId::from_bytes([5; 32]);
    let invite = Invite {
        id: [7; 16],
        secret: InviteSecret::from_bytes([8; 32]),
        space,
        role: Role::Write,
        expires_ms: 1000,
        uses_left: 1,
        enrolled: Vec::new(),
        refused: Vec::new(),
    };
    let store = open();
    let facts = store.facts();
    assert!(matches!(facts.enrol(&invite.id, node(1), now(1)), Err(EnrolError::Unknown)));
    facts.put_invite(&invite).expect("a new invite");
    assert_eq!(facts.invite(&invite.id).expect("readable"), Some(invite.clone()));
    assert!(matches!(facts.enrol(&invite.id, node(1), now(2000)), Err(EnrolError::Refused(_))), "expired");
    let grant = facts.enrol(&invite.id, node(1), now(10)).expect("the first use").expect("a grant");
    assert_eq!((grant.space, grant.node, grant.role, grant.invite), (space, node(1), Role::Write, Some(invite.id)));
    assert!(matches!(facts.enrol(&invite.id, node(2), now(11)), Err(EnrolError::Refused(_))), "used up");
    drop(store);

    let store = open();
    let facts = store.facts();
    assert_eq!(facts.enrol(&invite.id, node(1), now(12)).expect("the same node again"), Some(grant.clone()));
    assert_eq!(facts.invite(&invite.id).expect("readable").map(|invite| invite.uses_left), Some(0));
    assert_eq!(facts.grants().expect("readable").len(), 1);
    assert_eq!(facts.peer(&node(1)).expect("readable").map(|peer| (peer.added_ms, peer.revoked)), Some((10, false)));
    assert!(facts.peer(&node(2)).expect("readable").is_none(), "who was refused left no trace");
    assert!(facts.remove_grant(&space, &node(1)).expect("spending"));
    assert!(matches!(facts.enrol(&invite.id, node(1), now(12)), Ok(None)), "nothing is granted a second time");
    assert!(facts.grants().expect("readable").is_empty());
    // Who could be made no member may come again, and so may another.
    facts.unenrol(&grant).expect("taking it back");
    let again = facts.enrol(&invite.id, node(1), now(12)).expect("the use is there again").expect("a grant");
    assert_eq!(
        (again.since_ms, facts.invite(&invite.id).expect("readable").map(|invite| invite.uses_left)),
        (12, Some(0))
    );
    facts.unenrol(&again).expect("taking it back");
    assert_eq!(facts.grants().expect("readable").len(), 0);
    let other = facts.enrol(&invite.id, node(2), now(12)).expect("the use is there again").expect("a grant");
    assert!(facts.revoke_peer(&node(1)).expect("revoking"));
    assert!(matches!(facts.enrol(&invite.id, node(1), now(13)), Err(EnrolError::Revoked)));
    facts.unenrol(&other).expect("taking it back");
    let uses = facts.invite(&invite.id).expect("readable").map(|invite| invite.uses_left);
    assert_eq!(uses, Some(0), "a node that was thrown out has the secret");
    assert!(facts.revoke_peer(&node(2)).expect("revoking"));
    assert!(facts.grants().expect("readable").is_empty());
    assert!(matches!(facts.enrol(&invite.id, node(2), now(13)), Err(EnrolError::Revoked)));
    assert!(facts.remove_invite(&invite.id).expect("removing"));
    assert!(matches!(facts.enrol(&invite.id, node(1), now(14)), Err(EnrolError::Unknown)));
}
