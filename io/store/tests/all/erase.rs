//! Records of spaces that are gone: what they said is on the disk no more, through crashes at every call.

use sealtide_ibgib::Verified;
use sealtide_store::mem::MemDisk;
use sealtide_store::{Collected, OpenError, Store, conformance};
use sealtide_sync::{SagaId, SpaceView};

use crate::collect::{Home, assert_sound, space};

/// A note whose record holds a word that nothing else holds.
fn note(word: &str) -> Verified {
    conformance::stone_of(&format!("a note about {word}"))
}

fn notes(words: &[&str]) -> Vec<Verified> {
    words.iter().map(|word| note(word)).collect()
}

fn says(disk: &MemDisk, word: &str) -> bool {
    let says = |content: Vec<u8>| content.windows(word.len()).any(|bytes| bytes == word.as_bytes());
    disk.names().iter().any(|name| disk.content(name).is_some_and(says))
}

fn put(store: &Store, number: u8, words: &[&str]) {
    store.adopt_space(space(number)).unwrap();
    store.commit(&space(number), &conformance::local(notes(words))).unwrap();
}

fn has(store: &Store, number: u8, word: &str) -> bool {
    let (view, note) = (store.view(&space(number)).unwrap(), note(word));
    view.contains(&note.sid()) && view.record(&note.sid()).is_some_and(|there| there.encoded() == note.encoded())
}

/// Words that nobody has any more in [`with_removed`].
const GONE: [&str; 4] = ["albatross", "bittern", "cormorant", "dotterel"];

/// A home of tiny packs where two spaces are gone. A note of the first came to the second later on, one is in a third
/// that stays, and one was staged and never committed.
fn with_removed(seed: u64) -> Home {
    let home = Home { pack_bytes: 1500, ..Home::new(seed) };
    let store = home.open();
    put(&store, 1, &["albatross", "bittern", "shearwater"]);
    put(&store, 3, &["fulmar", "shearwater"]);
    put(&store, 2, &["bittern", "cormorant"]);
    let saga = SagaId([7; 32]);
    store.stage(&space(2), &saga, &notes(&["bittern", "dotterel"]), &[]).unwrap();
    store.remove_space(&space(1)).unwrap();
    store.remove_space(&space(2)).unwrap();
    store.sync().unwrap();
    home
}

// Proves: SY-67
#[test]
fn what_a_removed_space_said_is_on_the_disk_no_more() {
    let home = with_removed(1);
    let store = home.open();
    let kept = |store: &Store, what: &str| {
        assert!(["fulmar", "shearwater"].iter().all(|word| has(store, 3, word) && says(&home.disk, word)), "{what}");
        assert_sound(store, what);
    };
    assert!(GONE.iter().all(|word| says(&home.disk, word)), "until it is collected");
    let record_bytes = notes(&GONE).iter().map(|note| note.encoded().len() as u64).sum();
    let erased = Collected { records: 4, record_bytes, ..Collected::default() };
    assert_eq!(store.collectable(), erased);
    assert_eq!(store.collect().unwrap(), erased);
    assert!(!GONE.iter().any(|word| says(&home.disk, word)));
    kept(&store, "after the collection");
    assert_eq!((store.collectable(), store.collect().unwrap()), Default::default(), "once");
    drop(store);
    let store = home.open();
    kept(&store, "after the next open");
    assert_eq!(store.collect().unwrap(), Collected::default());
    // Without runs the index is built from packs with holes, one of them under a note that came to a second space.
    drop(store);
    home.remove_runs();
    let store = home.open();
    kept(&store, "from the packs alone");

    // What was erased can come again, by a change and by a saga, and go again.
    put(&store, 1, &["albatross"]);
    let saga = SagaId([8; 32]);
    store.stage(&space(3), &saga, &notes(&["bittern", "fulmar"]), &[]).unwrap();
    store.commit(&space(3), &conformance::of_saga(saga)).unwrap();
    assert!(has(&store, 1, "albatross") && has(&store, 3, "bittern"));
    kept(&store, "with what came again");
    drop(store);
    home.remove_runs();
    let store = home.open();
    assert!(has(&store, 1, "albatross") && has(&store, 3, "bittern"));
    kept(&store, "built from the packs with what came again");
    store.remove_space(&space(1)).unwrap();
    assert_eq!(store.collect().unwrap().records, 1);
    assert!(!says(&home.disk, "albatross") && has(&store, 3, "bittern"));
    kept(&store, "after it went again");
}

// Proves: SY-67
#[test]
fn a_cut_at_every_call_erases_a_record_or_keeps_it() {
    let (mut cuts, mut died) = (0, true);
    while died {
        cuts += 1;
        for image in 0..4 {
            let home = with_removed(cuts);
            let store = home.open();
            home.disk.fail_from(Some(home.disk.calls() + cuts));
            died = store.collect().is_err();
            let crashed = home.crash(image);
            let what = format!("cut {cuts} image {image}");
            let store = crashed.open();
            let kept = |store: &Store| {
                assert!(has(store, 3, "fulmar") && has(store, 3, "shearwater"), "{what}");
                assert_sound(store, &what);
            };
            kept(&store);
            let left = store.collectable().records as usize;
            let said = GONE.iter().filter(|word| says(&crashed.disk, word)).count();
            assert_eq!(left, said, "{what}: what is erased is gone, at the latest at the next open");
            store.collect().unwrap();
            assert!(!GONE.iter().any(|word| says(&crashed.disk, word)), "{what}");
            kept(&store);
            drop(store);
            crashed.remove_runs();
            let store = crashed.open();
            kept(&store);
            put(&store, 1, &GONE);
            assert!(GONE.iter().all(|word| has(&store, 1, word)), "{what}");
            assert_sound(&store, &what);
        }
    }
    println!("{cuts} cuts with 4 images each");
    assert!(cuts > 5);
}

// Proves: SY-78
#[test]
fn what_stands_in_front_of_an_erased_record_is_checked_still() {
    let home = with_removed(1);
    let store = home.open();
    store.collect().unwrap();
    drop(store);
    let (pack, mut in_holes) = ("packs/00000001.pack", 0);
    for at in 0..home.disk.content(pack).unwrap().len() {
        let flipped = Home { disk: home.disk.copy(), ..Home::new(1) };
        assert!(flipped.disk.flip_bit(pack, at, (at % 8) as u8));
        if home.disk.is_hole(pack, at) {
            in_holes += 1;
            continue;
        }
        match Store::open(std::sync::Arc::new(flipped.disk.clone()), sealtide_store::Config::default()) {
            Err(OpenError::Damaged(damage)) => assert_eq!(damage.file, pack),
            Err(error) => panic!("byte {at}: {error}"),
            Ok(store) => {
                let bad = store.verify(&mut |_, _| {}).unwrap().bad;
                assert!(bad.iter().any(|damage| damage.file == pack), "byte {at}: {bad:?}");
            }
        }
    }
    assert!(in_holes > 100);
}

// Proves: SY-67
#[test]
fn notes_come_and_go_while_runs_are_merged() {
    let home = Home { pack_bytes: 1500, ..Home::new(5) };
    let store = home.open();
    put(&store, 9, &["fulmar"]);
    for round in 1..=40u64 {
        let own = format!("gannet{round:04}");
        // One note comes again each time: its sid is erased, stored and erased.
        put(&store, 1, &["albatross", "fulmar", &own]);
        store.remove_space(&space(1)).unwrap();
        assert_eq!(store.collect().unwrap().records, 2, "round {round}");
        assert!(!says(&home.disk, "albatross") && !says(&home.disk, &own), "round {round}");
        put(&store, 9, &[&format!("petrel{round:04}")]);
    }
    assert!(has(&store, 9, "fulmar") && has(&store, 9, "petrel0001"));
    assert_sound(&store, "after forty rounds");
    drop(store);
    let store = home.open();
    assert!(has(&store, 9, "fulmar") && has(&store, 9, "petrel0040"));
    assert_sound(&store, "after the next open");
}
