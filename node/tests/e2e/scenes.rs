//! The scenarios over the real link, with cuts: two processes whose connection goes through a proxy that ends it after
//! one message, then after two, and so on, until a whole saga went through. Then all is as if nothing had been cut.
//! Spec: ibgib §10, §13.7
//!
//! Here are SC-1, SC-3 to SC-7, SC-9 and SC-10 with documents, and SC-2 and SC-8 with what a folder makes of them: the
//! stones are those of a large binary, and the new relation leads to such stones. That of SC-8 to a new timeline, which no
//! command makes, is in `core/sync/tests/merges.rs` (`sc8_divergence_with_a_new_relation`), as is that one bad record of
//! SC-6 leaves nothing behind in `core/sync/tests/scenarios.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Dice, Machine, Proxy, Running, agree, until, until_within, write};

/// Cuts come by the dozen, and the node waits longer after each that comes before the two have met.
const PATIENCE: Duration = Duration::from_secs(600);
/// Where nobody listens: the dialler tells this address, so that it is never dialled itself.
const NOWHERE: &str = "127.0.0.1:1";
/// As many cuts as any scene must have survived.
const CUTS_MIN: u32 = 6;

/// A machine with its running node, and how the shared space is called.
struct Place {
    machine: Machine,
    node: Running,
    space: &'static str,
}

impl Place {
    /// Starts a node that tells peers this address.
    fn new(machine: Machine, announce: &str, dirs: &[&str], space: &'static str) -> Self {
        let node = machine.up_in(&[("SEALTIDE_LINK_ANNOUNCE", announce)], dirs);
        Self { machine, node, space }
    }

    fn named(&self, name: &str) -> String {
        format!("{}:{name}", self.space)
    }

    #[track_caller]
    fn put(&self, name: &str, doc: &Value) -> u64 {
        let done = self.machine.run_with(&["put", self.space, name], &doc.to_string());
        assert_eq!(done.code, 0, "{done:?}");
        done.document()["n"].as_u64().unwrap()
    }

    #[track_caller]
    fn get(&self, name: &str) -> Value {
        self.machine.ok(&["get", &self.named(name)])["doc"].clone()
    }

    /// Every version in the space: what makes two histories equal.
    #[track_caller]
    fn history(&self) -> BTreeSet<String> {
        let log = self.machine.ok(&["log", self.space, "-n", "10000"]);
        let told =
            |entry: &Value| ["path", "n", "address", "what", "tip", "parents"].map(|member| entry[member].clone());
        log["entries"].as_array().unwrap().iter().map(|entry| json!(told(entry)).to_string()).collect()
    }

    /// The versions of one document, newest first.
    #[track_caller]
    fn log(&self, name: &str) -> Vec<Value> {
        self.machine.ok(&["log", &self.named(name), "-n", "10000"])["entries"].as_array().unwrap().clone()
    }
}

/// Nodes that all know the space `Data`; the first is reached through the proxy only, the others not at all.
struct Scene {
    name: &'static str,
    proxy: Proxy,
    places: Vec<Place>,
}

impl Scene {
    /// Two nodes in step, then apart.
    #[track_caller]
    fn new(name: &'static str, base: &[(&str, Value)]) -> Self {
        Self::of(name, 2, base)
    }

    #[track_caller]
    fn of(name: &'static str, count: usize, base: &[(&str, Value)]) -> Self {
        let proxy = Proxy::new();
        let first = Place::new(Machine::new(), &proxy.address().to_string(), &[], "Data");
        first.machine.ok(&["spaces", "create", "Data"]);
        for (name, doc) in base {
            first.put(name, doc);
        }
        Self::join(name, proxy, first, count, false)
    }

    /// Two nodes that share a folder, in step, then apart.
    #[track_caller]
    fn of_folders(name: &'static str, fill: impl FnOnce(&Path)) -> Self {
        let (proxy, machine) = (Proxy::new(), Machine::new());
        fill(&machine.notes());
        let dir = machine.notes_text().to_owned();
        let first = Place::new(machine, &proxy.address().to_string(), &[&dir], "Notes");
        Self::join(name, proxy, first, 2, true)
    }

    #[track_caller]
    fn join(name: &'static str, proxy: Proxy, first: Place, count: usize, with_folder: bool) -> Self {
        proxy.lead_to(first.node.link_address());
        proxy.open();
        let space = first.space;
        let mut places = vec![first];
        for _ in 1..count {
            let ticket = places[0].machine.ok(&["ticket", "new"])["ticket"].as_str().unwrap().to_owned();
            let other = Place::new(Machine::new(), NOWHERE, &[], space);
            let words = ["join", &ticket, other.machine.notes_text(), "--wait"];
            other.machine.ok(if with_folder { &words } else { &words[..2] });
            places.push(other);
        }
        let scene = Self { name, proxy, places };
        scene.agree();
        let known = scene.other().machine.ok(&["peers", "list"])["peers"][0]["addresses"].clone();
        assert_eq!(known, json!([scene.proxy.address().to_string()]), "there is a way around the proxy");
        scene.proxy.close();
        scene
    }

    /// The one that listens: the answerer.
    fn first(&self) -> &Place {
        &self.places[0]
    }

    /// The one that dials and so opens the sagas.
    fn other(&self) -> &Place {
        &self.places[1]
    }

    /// Syncs these (none of them the first) with the first, the connection being cut after each message in turn, until
    /// a whole saga of each went through.
    #[track_caller]
    fn meet_with(&self, others: &[usize], seed: u64) -> u32 {
        let before = self.proxy.cuts();
        self.proxy.cut_in_turn(seed);
        for other in others {
            let (machine, space) = (&self.places[*other].machine, self.places[*other].space);
            until_within(PATIENCE, "a whole saga goes through", || {
                let done = machine.run(&["sync", space, "--timeout", "1s"]);
                if is_over(done.code) { Ok(()) } else { Err(format!("{done:?}\n{}", machine.told())) }
            });
        }
        self.proxy.cuts() - before
    }

    /// As [`Scene::meet_with`], all of them; then everything is looked at.
    #[track_caller]
    fn meet(&self, seed: u64) {
        let others: Vec<usize> = (1..self.places.len()).collect();
        let bytes = self.proxy.bytes();
        let cuts = self.meet_with(&others, seed);
        println!("{}: {cuts} cuts, {} bytes with all handshakes", self.name, self.proxy.bytes() - bytes);
        assert!(cuts >= CUTS_MIN, "{}: only {cuts} cuts", self.name);
        self.proxy.open();
        self.agree();
    }

    /// All are in step, hold the same versions with the same tips, one for each document, and pass `verify`.
    #[track_caller]
    fn agree(&self) {
        let equal = || {
            let histories: Vec<_> = self.places.iter().map(Place::history).collect();
            if histories.iter().all(|history| *history == histories[0]) { Ok(histories) } else { Err(histories) }
        };
        until("all hold the same", || {
            for place in &self.places[1..] {
                let done = place.machine.run(&["sync", place.space, "--wait", "--timeout", "10s"]);
                if !is_over(done.code) {
                    return Err(format!("{done:?}\n{}", place.machine.told()));
                }
            }
            equal().map(drop).map_err(|histories| format!("{histories:?}"))
        });
        for place in &self.places {
            until("status --check", || match place.machine.run(&["status", "--check"]) {
                done if is_over(done.code) => Ok(()),
                done => Err(format!("{done:?}")),
            });
            place.machine.ok(&["verify"]);
            let items = |place: &Place| place.machine.space()["items"].clone();
            assert_eq!(items(place), items(self.first()), "{}", self.name);
        }
        let names = self.first().machine.ok(&["get", self.first().space])["names"].clone();
        for name in names.as_array().unwrap() {
            let tips = self.first().log(name.as_str().unwrap()).iter().filter(|entry| entry["tip"] == true).count();
            assert_eq!(tips, 1, "{name}");
        }
    }
}

/// Whether nothing is left to be synced; what was merged may need a person.
fn is_over(code: i32) -> bool {
    [0, 4].contains(&code)
}

fn rounds() -> u64 {
    crate::scale()
}

// Proves: SY-37, SY-38
#[test]
fn sc1_push() {
    for seed in 0..rounds() {
        let scene = Scene::new("SC-1", &[]);
        for n in 0..3 {
            assert_eq!(scene.other().put("a", &json!({"n": n})), n + 1);
        }
        scene.meet(seed);
        assert_eq!(scene.first().get("a"), json!({"n": 2}));
        assert_eq!(scene.first().log("a").len(), 3);
    }
}

/// The stones of a film are there: a copy of it costs none of them.
// Proves: SY-37, SY-38
#[test]
fn sc2_constants() {
    // Far more than all the handshakes of a scene, of which each has some 100 KB.
    const FILM: usize = 20_000_000;
    for seed in 0..rounds() {
        let film = Dice::new(seed).bytes(FILM);
        let scene = Scene::of_folders("SC-2", |notes| write(notes, "film.bin", &film));
        write(&scene.other().machine.notes(), "copy.bin", &film);
        let before = scene.proxy.bytes();
        scene.meet(seed);
        let bytes = scene.proxy.bytes() - before;
        assert!(bytes < FILM as u64, "{bytes}");
        let folder = agree(&scene.first().machine, &scene.other().machine);
        assert_eq!(folder.paths(), ["copy.bin", "film.bin"]);
    }
}

/// One side gives the file another content, which relates it to new stones; the other gives it another name.
// Proves: SY-37, SY-38
#[test]
fn sc8_divergence_with_a_new_relation() {
    for seed in 0..rounds() {
        let (old, new) = (Dice::new(seed).bytes(300_000), Dice::new(seed + 1).bytes(300_000));
        let scene = Scene::of_folders("SC-8", |notes| write(notes, "film.bin", &old));
        write(&scene.other().machine.notes(), "film.bin", &new);
        let notes = scene.first().machine.notes();
        fs::rename(notes.join("film.bin"), notes.join("movie.bin")).unwrap();
        for (place, name) in [(scene.first(), "movie.bin"), (scene.other(), "film.bin")] {
            until("the change is recorded", || {
                let done = place.machine.run(&["log", &place.named(name)]);
                let versions = if done.code == 0 { done.document()["entries"].as_array().unwrap().len() } else { 0 };
                if versions == 2 { Ok(()) } else { Err(format!("{done:?}")) }
            });
        }
        scene.meet(seed);
        let folder = agree(&scene.first().machine, &scene.other().machine);
        assert_eq!(folder.paths(), ["movie.bin"]);
        assert_eq!(fs::read(notes.join("movie.bin")).unwrap(), new);
        let log = scene.first().log("movie.bin");
        assert_eq!((&log[0]["what"], log.len()), (&json!("merged"), 4), "{log:?}");
    }
}

// Proves: SY-37, SY-38
#[test]
fn sc3_partial_history() {
    for seed in 0..rounds() {
        let scene = Scene::new("SC-3", &[("a", json!(0)), ("a", json!(1))]);
        assert_eq!(scene.other().put("a", &json!(2)), 3);
        scene.meet(seed);
        assert_eq!(scene.first().get("a"), json!(2));
        let counts: Vec<u64> = scene.first().log("a").iter().filter_map(|entry| entry["n"].as_u64()).collect();
        assert_eq!(counts, [3, 2, 1]);
    }
}

// Proves: SY-37, SY-38
#[test]
fn sc4_deep_history() {
    // More than are asked for in the first steps down: 1, 4, 16 and 64.
    const VERSIONS: u64 = 100;
    for seed in 0..rounds() {
        let scene = Scene::new("SC-4", &[("a", json!(0))]);
        for n in 1..=VERSIONS {
            assert_eq!(scene.other().put("a", &json!(n)), n + 1);
        }
        scene.meet(seed);
        let counts: Vec<u64> = scene.first().log("a").iter().filter_map(|entry| entry["n"].as_u64()).collect();
        assert_eq!(counts, (1..=VERSIONS + 1).rev().collect::<Vec<_>>());
    }
}

// Proves: SY-37, SY-38
#[test]
fn sc5_destination_ahead() {
    for seed in 0..rounds() {
        let scene = Scene::new("SC-5", &[("a", json!(0)), ("a", json!(1))]);
        assert_eq!(scene.first().put("a", &json!(2)), 3);
        scene.meet(seed);
        assert_eq!(scene.other().get("a"), json!(2));
        let log = scene.other().log("a");
        assert!(log.len() == 3 && log.iter().all(|entry| entry["what"] != "merged"), "{log:?}");
    }
}

// Proves: SY-37, SY-38
#[test]
fn sc6_several_timelines() {
    for seed in 0..rounds() {
        let base = ["a", "b", "c"].map(|name| (name, json!({"of": name, "n": 0})));
        let scene = Scene::new("SC-6", &base);
        for name in ["a", "b"] {
            for n in 1..3 {
                assert_eq!(scene.other().put(name, &json!({"of": name, "n": n})), n + 1);
            }
        }
        scene.meet(seed);
        for (name, n) in [("a", 2), ("b", 2), ("c", 0)] {
            assert_eq!(scene.first().get(name), json!({"of": name, "n": n}));
        }
    }
}

// Proves: SY-37, SY-38
#[test]
fn sc7_divergence() {
    for seed in 0..rounds() {
        let scene = Scene::new("SC-7", &[("a", json!({"a": 0, "b": 0}))]);
        scene.other().put("a", &json!({"a": 1, "b": 0}));
        scene.first().put("a", &json!({"a": 0, "b": 2}));
        let edits = [scene.other(), scene.first()].map(|place| place.log("a")[0]["hash"].clone());
        scene.meet(seed);
        for place in &scene.places {
            assert_eq!(place.get("a"), json!({"a": 1, "b": 2}));
            let log = place.log("a");
            let tip = &log[0];
            assert_eq!((&tip["what"], &tip["n"], &tip["tip"]), (&json!("merged"), &json!(3), &json!(true)), "{log:?}");
            let parents: BTreeSet<&str> = tip["parents"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert_eq!(parents, edits.iter().filter_map(Value::as_str).collect());
            // Both edits stay readable, the one that lost too.
            for (edit, doc) in edits.iter().zip([json!({"a": 1, "b": 0}), json!({"a": 0, "b": 2})]) {
                assert_eq!(place.get(&format!("a@{}", &edit.as_str().unwrap()[..16])), doc);
            }
        }
    }
}

// Proves: SY-37, SY-38
#[test]
fn sc9_text() {
    // (base, here, there, what may come of it): of one word changed twice the order is that of the versions.
    let cases: [(&str, &str, &str, &[&str]); 3] = [
        ("middle", "start middle", "middle end", &["start middle end"]),
        (
            "P one.\n\nP two.\n\nP three.\n",
            "P one changed.\n\nP two.\n\nP three.\n",
            "P one.\n\nP two.\n\nP three also changed.\n",
            &["P one changed.\n\nP two.\n\nP three also changed.\n"],
        ),
        ("the red fox", "the blue fox", "the green fox", &["the blue green fox", "the green blue fox"]),
    ];
    let doc = |text: &str| json!({"text": text});
    let names = ["m4", "m6", "m9"];
    for seed in 0..rounds() {
        let base: Vec<_> = names.iter().zip(&cases).map(|(name, case)| (*name, doc(case.0))).collect();
        let scene = Scene::new("SC-9", &base);
        for (name, case) in names.iter().zip(&cases) {
            scene.other().put(name, &doc(case.1));
            scene.first().put(name, &doc(case.2));
        }
        scene.meet(seed);
        for (name, case) in names.iter().zip(&cases) {
            let merged = scene.other().get(name)["text"].clone();
            assert!(case.3.iter().any(|text| merged == *text), "{name}: {merged}");
            assert_eq!(scene.other().log(name)[0]["what"], "merged");
        }
    }
}

/// Three nodes edit the same documents at the same time, round after round; two of them meet the third through cuts.
// Proves: SY-37, SY-38
#[test]
fn sc10_three_nodes_and_many_rounds() {
    let names = ["a", "b"];
    let base = names.map(|name| (name, json!({"text": "one two three four"})));
    let scene = Scene::of("SC-10", 3, &base);
    let mut dice = Dice::new(10);
    let (mut words, mut cuts) = (Vec::new(), 0);
    for round in 0..2 + rounds() {
        for (place, node) in scene.places.iter().zip(["x", "y", "z"]) {
            for _ in 0..1 + dice.below(2) {
                let name = names[dice.below(2) as usize];
                let doc = place.get(name);
                let mut text: Vec<&str> = doc["text"].as_str().unwrap().split(' ').collect();
                let word = format!("{node}{round}w{}", words.len());
                text.insert(dice.below(text.len() as u64 + 1) as usize, &word);
                place.put(name, &json!({"text": text.join(" ")}));
                words.push((name, word));
            }
        }
        // One of them, or both, meet the first; who does not keeps its edits for the next round.
        let others: &[usize] = [&[1][..], &[2], &[1, 2]][dice.below(3) as usize];
        cuts += scene.meet_with(others, dice.roll());
        scene.proxy.close();
    }
    println!("SC-10: {cuts} cuts in {} rounds, {} edits", 2 + rounds(), words.len());
    assert!(cuts >= CUTS_MIN, "only {cuts} cuts");
    scene.meet(dice.roll());
    for (name, word) in &words {
        let doc = scene.first().get(name);
        let text = doc["text"].as_str().unwrap();
        assert!(text.split(' ').any(|found| found == word), "{word} is lost in {name}: {text}");
    }
}
