//! Tips in runs: moved many times over many packs, told alike however they are asked for, and kept by a snapshot as they
//! were, whatever is written, merged and removed behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::support::{Dice, check_ranges, check_tips, scale};
use sealtide_ibgib::{TimelineId, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, Store, conformance};
use sealtide_sync::{RangeBound, Snapshot, SpaceView, TipItem};

const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

fn open(disk: &MemDisk) -> Store {
    // Every commit fills a pack, so every commit writes a run, and every eighth begins a merge.
    let config =
        Config { pack_bytes: 100, draft_records: 1, wall_ms: Arc::new(|| 1_700_000_000_000), ..Config::default() };
    Store::open(Arc::new(disk.clone()), config).unwrap()
}

/// What a naive author knows of the tips.
#[derive(Clone, Default)]
struct Naive(BTreeMap<TimelineId, Vec<Verified>>);

impl Naive {
    /// A new timeline, a frame on a tip, or a frame beside one.
    fn frame(&mut self, dice: &mut Dice, number: u64) -> Verified {
        let known: Vec<TimelineId> = self.0.keys().copied().collect();
        if known.is_empty() || dice.below(4) == 0 {
            let first = conformance::first_frame(number);
            self.0.insert(first.frame().unwrap().timeline, vec![first.clone()]);
            return first;
        }
        let tips = self.0.get_mut(&known[dice.below(known.len())]).unwrap();
        let at = dice.below(tips.len());
        let next = conformance::next_frame(&tips[at], &format!("on {number}"));
        tips[at] = next.clone();
        next
    }

    /// Two frames on one tip.
    fn branch(&mut self, dice: &mut Dice, number: u64) -> Vec<Verified> {
        let known: Vec<TimelineId> = self.0.keys().copied().collect();
        let tips = self.0.get_mut(&known[dice.below(known.len())]).unwrap();
        let before = tips.swap_remove(dice.below(tips.len()));
        let both = ["left", "right"].map(|side| conformance::next_frame(&before, &format!("{side} {number}")));
        tips.extend(both.clone());
        both.to_vec()
    }

    fn items(&self) -> Vec<TipItem> {
        let mut items: Vec<TipItem> = self.0.values().flatten().filter_map(TipItem::of).collect();
        items.sort_by_key(|tip| (tip.order, tip.id));
        items
    }
}

fn check(snapshot: &Snapshot, naive: &Naive) {
    let items = naive.items();
    check_ranges(&*snapshot.tips, &items.iter().map(|tip| (tip.order, tip.id)).collect::<Vec<_>>());
    check_tips(&*snapshot.tips, &items);
    let (count, sum) = snapshot.tips.sum(&RangeBound::START, &RangeBound::END);
    assert_eq!((count, sum), (snapshot.tip_summary.count, snapshot.tip_summary.sum));
}

// Proves: SY-79
#[test]
fn tips_are_the_same_in_memory_in_runs_and_in_old_snapshots() {
    let (disk, mut dice) = (MemDisk::new(3), Dice::new(3));
    let mut store = open(&disk);
    store.adopt_space(SPACE).unwrap();
    let (mut naive, mut kept): (Naive, Vec<(Arc<Snapshot>, Naive)>) = Default::default();
    let commits = 150 * scale();
    for number in 0..commits {
        let records = match number {
            10.. if dice.below(6) == 0 => naive.branch(&mut dice, number),
            _ => vec![naive.frame(&mut dice, number)],
        };
        store.commit(&SPACE, &conformance::local(records)).unwrap();
        let view = store.view(&SPACE).unwrap();
        if number % 10 == 9 {
            check(&view.snapshot(), &naive);
            assert_eq!(view.tip_items(), naive.items());
            let info = view.info().unwrap();
            assert_eq!((info.timelines, info.tips), (naive.0.len() as u64, naive.items().len() as u64));
            kept.push((view.snapshot(), naive.clone()));
        }
        if number % 40 == 39 {
            drop(view);
            kept.clear();
            drop(store);
            store = open(&disk);
        }
        kept.iter().for_each(|(snapshot, then)| check(snapshot, then));
    }
    assert!(naive.0.values().any(|tips| tips.len() > 1) && naive.0.values().any(|tips| tips.len() == 1));
    let (snapshot, view) = (store.view(&SPACE).unwrap().snapshot(), store.view(&SPACE).unwrap());
    store.remove_space(&SPACE).unwrap();
    check(&snapshot, &naive);
    assert_eq!((view.tip_items(), view.snapshot().tip_summary.count), (Vec::new(), 0), "gone for who asks now");
    store.adopt_space(SPACE).unwrap();
    assert_eq!(store.view(&SPACE).unwrap().tip_items(), [], "another space under the same id");
    assert_eq!(store.verify(&mut |_, _| {}).unwrap().bad, []);
}

#[test]
fn timelines_are_found_by_the_ib_of_their_first_frame() {
    let disk = MemDisk::new(4);
    let store = open(&disk);
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let docs: Vec<Verified> = (0..20).map(conformance::first_frame).collect();
    for first in &docs {
        store.commit(&space, &conformance::local(vec![first.clone()])).unwrap();
    }
    store.commit(&space, &conformance::local(vec![conformance::next_frame(&docs[3], "newer")])).unwrap();
    for store in [store, open(&disk.crash(1))] {
        let view = store.view(&space).unwrap();
        let found = |ib: &str| -> BTreeSet<TimelineId> {
            view.timelines_of(ib).into_iter().map(|info| info.timeline).collect()
        };
        let all: BTreeSet<TimelineId> = docs.iter().map(|first| first.frame().unwrap().timeline).collect();
        assert_eq!(found(docs[0].address().ib()), all);
        assert_eq!((found("space").len(), found("nothing").len()), (1, 0));
        assert_eq!(view.timelines().len(), 21);
    }
}
