//! Dependency graphs, frozen and live.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use sealtide_ibgib::{
    Address, Data, GraphError, GraphOptions, GraphSource, Relations, Verified, binary_record, dependency_graph, evolve,
    genesis, stone,
};
use serde_json::json;

use crate::{address, property_cases, stamp, uuid};

/// A small space.
#[derive(Default)]
struct Space {
    records: BTreeMap<Address, Verified>,
    newest: BTreeMap<Address, Vec<Address>>,
    asked: Vec<Address>,
}

impl Space {
    fn put(&mut self, record: Verified) -> Address {
        let address = record.address().clone();
        self.records.insert(address.clone(), record);
        address
    }
}

impl GraphSource for Space {
    fn load(&mut self, address: &Address) -> Option<Verified> {
        self.asked.push(address.clone());
        self.records.get(address).cloned()
    }

    fn newest(&mut self, first: &Address) -> Vec<Address> {
        self.newest.get(first).cloned().unwrap_or_default()
    }
}

fn walk(space: &mut Space, roots: &[&Address], options: &GraphOptions) -> Result<Vec<Address>, GraphError> {
    space.asked.clear();
    let roots: Vec<Address> = roots.iter().map(|root| (*root).clone()).collect();
    let mut seen = Vec::new();
    let count = dependency_graph(&roots, options, space, &mut |record| seen.push(record.address().clone()))?;
    assert_eq!(count, seen.len() as u64);
    let distinct: BTreeSet<&Address> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a record was visited twice");
    assert_eq!(space.asked, seen, "each record is loaded once");
    seen.sort();
    Ok(seen)
}

fn sorted(addresses: &[&Address]) -> Vec<Address> {
    let mut all: Vec<Address> = addresses.iter().map(|address| (*address).clone()).collect();
    all.sort();
    all
}

fn note(text: &str, relations: &[(&str, &[&Address])]) -> Verified {
    let relations =
        relations.iter().map(|(name, links)| ((*name).to_owned(), links.iter().map(|link| (*link).clone()).collect()));
    stone("note", Data::Json(json!(text)), relations.collect())
}

// Proves: SY-15 (frozen)
#[test]
fn a_graph_holds_what_is_reached_but_no_primitives() {
    let mut space = Space::default();
    let leaf = space.put(binary_record(vec![1, 2].into()));
    let left = space.put(note("left", &[("bin", &[&leaf]), ("tag", &[&address("tag^gib")])]));
    let right = space.put(note("right", &[("bin", &[&leaf])]));
    let top = space.put(note("top", &[("x", &[&left]), ("y", &[&right, &leaf])]));
    let elsewhere = space.put(note("elsewhere", &[]));
    let all = GraphOptions::default();
    assert_eq!(walk(&mut space, &[&top], &all).unwrap(), sorted(&[&top, &left, &right, &leaf]));
    assert_eq!(walk(&mut space, &[&right, &left, &right], &all).unwrap(), sorted(&[&left, &right, &leaf]));
    assert_eq!(walk(&mut space, &[&elsewhere], &all).unwrap(), [elsewhere]);
    assert_eq!(walk(&mut space, &[], &all).unwrap(), []);
}

// Proves: SY-15 (options)
#[test]
fn skipping_cuts_what_hangs_below() {
    let mut space = Space::default();
    let leaf = space.put(note("leaf", &[]));
    let middle = space.put(note("middle", &[("x", &[&leaf])]));
    let other = space.put(note("other", &[("z", &[&leaf])]));
    let top = space.put(note("top", &[("x", &[&middle]), ("y", &[&other])]));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
    let skip_middle = GraphOptions { skip_addresses: [middle.clone()].into(), ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&top], &skip_middle).unwrap(), sorted(&[&top, &other, &leaf]));
    assert_eq!(walk(&mut space, &[&middle], &skip_middle).unwrap(), []);
    let skip_both = GraphOptions { skip_addresses: [middle.clone(), other.clone()].into(), ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&top], &skip_both).unwrap(), sorted(&[&top]));
    let skip_x = GraphOptions { skip_relations: names(&["x"]), ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&top], &skip_x).unwrap(), sorted(&[&top, &other, &leaf]));
    let only_x = GraphOptions { only_relations: Some(names(&["x"])), ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&top], &only_x).unwrap(), sorted(&[&top, &middle, &leaf]));
    let none = GraphOptions { only_relations: Some(names(&["x"])), skip_relations: names(&["x"]), ..only_x };
    assert_eq!(walk(&mut space, &[&top], &none).unwrap(), sorted(&[&top]));
}

// Proves: SY-15 (errors)
#[test]
fn what_is_not_there_fails_the_whole_call() {
    let mut space = Space::default();
    let missing = note("missing", &[]).address().clone();
    let top = space.put(note("top", &[("x", &[&missing])]));
    let all = GraphOptions::default();
    assert_eq!(walk(&mut space, &[&top], &all), Err(GraphError::Missing(missing.clone())));
    assert_eq!(walk(&mut space, &[&missing], &all), Err(GraphError::Missing(missing)));
    let primitive = address("tag^gib");
    assert_eq!(walk(&mut space, &[&primitive], &all), Err(GraphError::Primitive(primitive)));
    let leaf = space.put(note("leaf", &[]));
    let pair = space.put(note("pair", &[("x", &[&leaf])]));
    let max = |records_max| GraphOptions { records_max: Some(records_max), ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&pair], &max(2)).unwrap().len(), 2);
    assert_eq!(walk(&mut space, &[&pair], &max(1)), Err(GraphError::TooMany(1)));
}

// Proves: SY-15 (live)
#[test]
fn a_live_graph_follows_timelines_to_their_newest_frame() {
    let mut space = Space::default();
    let child = |number: u64| genesis("doc", Default::default(), Relations::new(), stamp(number), &uuid(number));
    let grow = |space: &mut Space, first: &Verified, link: Option<&Address>| {
        let relations = link.map(|link| ("link".to_owned(), vec![link.clone()])).into_iter().collect();
        let next = evolve(first, Default::default(), relations, stamp(100));
        space.newest.insert(first.address().clone(), vec![next.address().clone()]);
        (space.put(first.clone()), space.put(next))
    };
    // The newest frame of one timeline links the first of a second, whose newest links a stone and, in a circle, the first.
    let leaf = space.put(note("leaf", &[]));
    let (one, two, three) = (child(1), child(2), child(3));
    let (first3, newest3) = grow(&mut space, &three, Some(one.address()));
    let (first2, newest2) = grow(&mut space, &two, Some(&leaf));
    let (first1, newest1) = grow(&mut space, &one, Some(&first2));
    let top = space.put(note("top", &[("x", &[&first1])]));
    let frozen = GraphOptions::default();
    let live = GraphOptions { live: true, ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&top], &frozen).unwrap(), sorted(&[&top, &first1]));
    let reached = sorted(&[&top, &first1, &newest1, &first2, &newest2, &leaf]);
    assert_eq!(walk(&mut space, &[&top], &live).unwrap(), reached);
    let all = sorted(&[&first1, &newest1, &first2, &newest2, &leaf, &first3, &newest3]);
    assert_eq!(walk(&mut space, &[&newest3], &live).unwrap(), all);
    // While diverged, all tips are followed; and a skipped newest frame is cut like any other.
    let rival = space.put(note("rival", &[]));
    space.newest.insert(first1.clone(), vec![newest1.clone(), rival.clone()]);
    assert!(walk(&mut space, &[&top], &live).unwrap().contains(&rival));
    let cut = GraphOptions { skip_addresses: [newest1].into(), ..live };
    assert_eq!(walk(&mut space, &[&top], &cut).unwrap(), sorted(&[&top, &first1, &rival]));
    let no_tjp =
        GraphOptions { only_relations: Some(["link".to_owned()].into()), live: true, ..GraphOptions::default() };
    assert_eq!(walk(&mut space, &[&newest2], &no_tjp).unwrap(), sorted(&[&newest2, &leaf]));
}

// Proves: SY-15 (cycles impossible, and if one is claimed the walk ends)
#[test]
fn a_source_that_invents_a_circle_is_walked_once() {
    struct Circle(Vec<Verified>);
    impl GraphSource for Circle {
        /// Answers with a record that links the next one in the circle.
        fn load(&mut self, address: &Address) -> Option<Verified> {
            self.0.iter().find(|record| record.relations()["claims"][0] == *address).cloned()
        }
    }
    let names: Vec<Address> = (0..50).map(|number| address(&format!("n{number}^{:064X}", 7))).collect();
    let records = (0..50)
        .map(|number| {
            note("circle", &[("claims", &[&names[number]]), ("next", &[&names[(number + 1) % 50], &names[number]])])
        })
        .collect();
    let count = dependency_graph(&names[..1], &GraphOptions::default(), &mut Circle(records), &mut |_| {});
    assert_eq!(count, Ok(50));
}

proptest! {
    #![proptest_config(property_cases())]

    // Proves: SY-15 (generated graphs)
    #[test]
    fn any_graph_is_the_naive_closure(links in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..4), 1..25)) {
        let mut space = Space::default();
        let mut all: Vec<Address> = Vec::new();
        for (number, links) in links.iter().enumerate() {
            let below: Vec<&Address> = if all.is_empty() { Vec::new() } else { links.iter().map(|link| link.get(&all)).collect() };
            let record = note(&number.to_string(), &[("x", &below)]);
            all.push(space.put(record));
        }
        let top = all[all.len() - 1].clone();
        let mut closure = BTreeSet::from([top.clone()]);
        // Links point at earlier records only, so one pass from the newest to the oldest finds everything.
        for address in all.iter().rev() {
            if closure.contains(address) {
                closure.extend(space.records[address].links());
            }
        }
        prop_assert_eq!(walk(&mut space, &[&top], &GraphOptions::default()).unwrap(), closure.into_iter().collect::<Vec<_>>());
    }
}
