//! Three nodes that edit one timeline apart and meet in any order: all end with one tip, and no edit is lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sealtide_ibgib::{Address, Object, Relations, Verified, evolve, genesis, merge_all, settle_tips};
use serde_json::json;

use crate::merge::Held;
use crate::{property_cases, stamp, uuid};

const NODES: usize = 3;

/// What happens: a node edits, or two of them sync.
#[derive(Clone, Debug)]
enum Event {
    Edit {
        node: usize,
        member: u8,
        offset_ms: u64,
    },
    Sync {
        from: usize,
        to: usize,
    },
    /// Frames arrive without a merge: a tip moved while a saga ran.
    Take {
        from: usize,
        to: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..NODES, 0u8..4, 0u64..4).prop_map(|(node, member, offset_ms)| Event::Edit { node, member, offset_ms }),
        2 => (0..NODES, 1..NODES).prop_map(|(from, step)| Event::Sync { from, to: (from + step) % NODES }),
        1 => (0..NODES, 1..NODES).prop_map(|(from, step)| Event::Take { from, to: (from + step) % NODES }),
    ]
}

#[derive(Clone, Default)]
struct Node {
    held: Held,
    tips: Vec<Address>,
}

impl Node {
    fn take(&mut self, frames: impl IntoIterator<Item = Verified>) {
        let mut new = Vec::new();
        for frame in frames {
            new.push(frame.address().clone());
            self.held.0.insert(frame.address().clone(), frame);
        }
        let held = &self.held.0;
        self.tips = settle_tips(&self.tips, &new, &mut |address| held.get(address)?.frame());
    }

    /// As a local write does: on the winner, the others left for a merge.
    fn edit(&mut self, member: u8, mark: usize, offset_ms: u64) -> Verified {
        let held = &self.held.0;
        let tips: Vec<&Verified> = self.tips.iter().map(|tip| &held[tip]).collect();
        let before = sealtide_ibgib::winner(tips).unwrap();
        let mut data = before.object().unwrap();
        data.insert(format!("member {member}"), json!(mark));
        let seen = data.entry("marks").or_insert_with(|| json!([]));
        seen.as_array_mut().unwrap().push(json!(mark.to_string()));
        data.shift_remove("graft");
        let frame = evolve(before, data, Relations::new(), stamp(offset_ms));
        self.take([frame.clone()]);
        frame
    }

    fn settle(&mut self) {
        let held = &self.held.0;
        let tips = self.tips.iter().map(|tip| held[tip].clone()).collect();
        let merged = merge_all(tips, &mut |address| held.get(address).cloned());
        self.take(merged.frames);
    }

    fn frames(&self) -> Vec<Verified> {
        self.held.0.values().cloned().collect()
    }
}

fn exchange(nodes: &mut [Node], left: usize, right: usize, merge: bool) {
    let (from_left, from_right) = (nodes[left].frames(), nodes[right].frames());
    nodes[left].take(from_right);
    nodes[right].take(from_left);
    if merge {
        nodes[left].settle();
        nodes[right].settle();
        assert_eq!(nodes[left].held.0, nodes[right].held.0, "both sides of a saga make the same frames");
        assert_eq!(nodes[left].tips, nodes[right].tips);
        assert_eq!(nodes[left].tips.len(), 1);
    }
}

/// Everything behind a frame, through `past` and `graftorphan`.
fn behind(held: &Held, tip: &Address) -> BTreeSet<Address> {
    let (mut met, mut open) = (BTreeSet::new(), vec![tip.clone()]);
    while let Some(address) = open.pop() {
        if met.insert(address.clone()) {
            let facts = held.0[&address].frame().unwrap();
            open.extend(facts.past.into_iter().chain(facts.orphans));
        }
    }
    met
}

proptest! {
    #![proptest_config(property_cases())]

    // Proves: SY-58, SY-59, SY-61, SY-62
    #[test]
    fn three_nodes_end_alike_and_no_edit_is_lost(events in prop::collection::vec(event(), 1..24)) {
        let first = genesis("note", Object::new(), Relations::new(), stamp(0), &uuid(1));
        let mut nodes = vec![Node::default(); NODES];
        nodes.iter_mut().for_each(|node| node.take([first.clone()]));
        let mut edits: BTreeMap<usize, Verified> = BTreeMap::new();
        for (mark, event) in events.into_iter().enumerate() {
            match event {
                Event::Edit { node, member, offset_ms } => {
                    edits.insert(mark, nodes[node].edit(member, mark, offset_ms));
                }
                Event::Sync { from, to } => exchange(&mut nodes, from, to, true),
                Event::Take { from, to } => exchange(&mut nodes, from, to, false),
            }
        }
        for turn in 0..2 * NODES {
            exchange(&mut nodes, turn % NODES, (turn + 1) % NODES, true);
        }
        let (tip, held) = (nodes[0].tips[0].clone(), nodes[0].held.clone());
        for node in &nodes {
            prop_assert_eq!(&node.tips, std::slice::from_ref(&tip));
            prop_assert_eq!(&node.held.0, &held.0);
        }
        let history = behind(&held, &tip);
        let last = held.0[&tip].object().unwrap();
        for (mark, frame) in edits {
            prop_assert!(history.contains(frame.address()), "edit {mark} is not behind the tip");
            // Lists are united, so each edit is in the tip itself, however often it was merged: once.
            let marks = last["marks"].as_array().unwrap();
            prop_assert_eq!(marks.iter().filter(|seen| **seen == json!(mark.to_string())).count(), 1);
        }
    }
}
