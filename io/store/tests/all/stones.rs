//! The index of commit stones: by the frames that they name, by the node that they name, over packs and starts.

use std::collections::BTreeMap;
use std::sync::Arc;

use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::{Address, Object, Relations, Sid, Stamp, Verified, genesis, uuid};
use sealtide_identity::NodeId;
use sealtide_identity::authorship::{Author, Tip, commit_stones, read_commit};
use sealtide_store::mem::MemDisk;
use sealtide_store::{Config, SpaceHandle, Store, conformance};
use sealtide_sync::{CommitRequest, SpaceView};

fn config() -> Config {
    Config { pack_bytes: 32 * 1024, ..Config::default() }
}

// Proves: SY-103
#[test]
fn stones_are_found_by_tip_and_by_node_and_after_a_start() {
    let disk = MemDisk::new(1);
    let store = Store::open(Arc::new(disk.clone()), config()).unwrap();
    let space = store.create_space(conformance::space_frame(1)).unwrap();
    let keys = [1, 2].map(|number| SigningKey::from_seed(&Seed::from_bytes([number; 32])));
    let keystone = Address::parse(&format!("keystone^{:064X}", 1)).unwrap();
    let mut chance = SeededEntropy::new(1);
    let mut all: Vec<(Verified, Verified)> = Vec::new();
    let mut last: [Option<(Address, u64)>; 2] = [None, None];
    for number in 0..12 {
        let frame = genesis("doc", Object::new(), Relations::new(), Stamp { ms: 5 + number }, &uuid(&mut chance));
        let (place, tip) = (number as usize % 2, Tip { sid: frame.sid(), address: frame.address().clone() });
        let author = Author { key: &keys[place], keystone: &keystone };
        let before = last[place].as_ref().map(|(address, seq)| (address, *seq));
        let stone = commit_stones(&author, vec![tip], number, before).unwrap().remove(0);
        last[place] = Some((stone.address().clone(), number / 2));
        let records = vec![frame.clone(), stone.clone()];
        let request = CommitRequest::local(records);
        store.commit(&space, &request).unwrap();
        all.push((frame, stone));
    }
    let check = |view: &SpaceHandle| {
        for (frame, stone) in &all {
            assert_eq!(view.stones_naming(frame.address()), [stone.sid()]);
            assert!(view.stones_naming(stone.address()).is_empty());
        }
        assert_eq!(view.stones().len(), 12);
        let makers: BTreeMap<NodeId, Sid> = view.stone_makers(4).into_iter().collect();
        let newest = keys.iter().map(|key| NodeId::of(key.public())).zip([all[10].1.sid(), all[11].1.sid()]);
        assert_eq!(makers, newest.collect());
        assert_eq!(view.stone_makers(1).len(), 1);
        for (place, key) in keys.iter().enumerate() {
            let found = view.stones_by(&NodeId::of(key.public()), 4);
            let seqs: Vec<u64> = found.iter().map(|sid| read_commit(&view.record(sid).unwrap()).unwrap().seq).collect();
            assert_eq!(seqs, [5, 4, 3, 2], "node {place}");
        }
        assert!(view.stones_by(&NodeId::from_bytes([0; 32]), 4).is_empty());
    };
    check(&store.view(&space).unwrap());
    drop(store);
    let store = Store::open(Arc::new(disk), config()).unwrap();
    check(&store.view(&space).unwrap());
}
