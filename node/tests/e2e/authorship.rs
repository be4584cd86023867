//! Who wrote a version, as `log` tells it on another machine.

use sealtide_crypto::{Seed, SigningKey};
use sealtide_ibgib::{Data, FileFrame, Stamp, Verified};
use sealtide_identity::authorship::{Author, Commit, Tip, commit_stones, read_commit};
use sealtide_store::Store;
use sealtide_sync::{CommitRequest, SpaceView};
use serde_json::{Value, json};

use crate::support::{Machine, Pair, until, write};

fn newest(machine: &Machine) -> Value {
    machine.ok(&["log", "Notes:plan.md"])["entries"][0].clone()
}

/// Waits until a machine has a version, and returns what it says of it.
fn version(machine: &Machine, n: u64) -> Value {
    until("the version is in the log", || match newest(machine) {
        entry if entry["n"] == n => Ok(entry),
        entry => Err(entry.to_string()),
    })
}

fn by(entry: &Value) -> (&str, &Value) {
    (entry["authorship"].as_str().unwrap(), &entry["verified_by"])
}

/// Each machine shows what the other wrote as proven, and what a forger wrote in its name as a claim.
// Proves: SY-103
#[test]
fn the_log_tells_who_wrote_and_what_is_only_claimed() {
    let mut pair = Pair::with(|notes| write(notes, "plan.md", "first\n"));
    let id = |machine: &Machine| machine.ok(&["status"])["node"].clone();
    let (a, b) = (id(&pair.a), id(&pair.b));
    let first = version(&pair.b, 0);
    assert_eq!(by(&first), ("verified", &a), "{first}");
    write(&pair.b.notes(), "plan.md", "second\n");
    for machine in [&pair.a, &pair.b] {
        let second = version(machine, 1);
        assert_eq!(by(&second), ("verified", &b), "{second}");
        let text = machine.plain(&["log", "Notes:plan.md"]).stdout;
        assert_eq!(text.matches('✔').count(), 2, "{text}");
    }
    pair.a.in_step();
    pair.b.in_step();
    let sound = pair.a.ok(&["verify"])["commits"].clone();
    assert_eq!((sound["verified"].as_u64() > Some(2), &sound["unknown"], &sound["bad"]), (true, &json!(0), &json!([])));

    // Somebody who may write to the first store forges a version of the second machine.
    pair.node_a.stop();
    forge(&pair.a, b.as_str().unwrap());
    pair.node_a = pair.a.up(&[]);
    let forged = version(&pair.a, 2);
    assert_eq!((by(&forged), &forged["by"]), (("claimed", &Value::Null), &b), "{forged}");
    let text = pair.a.plain(&["log", "Notes:plan.md"]).stdout;
    assert_eq!((text.matches('✔').count(), text.matches("(claimed)").count()), (2, 1), "{text}");
    let checked = pair.a.ok(&["verify"])["commits"].clone();
    assert_eq!(checked["bad"].as_array().map(Vec::len), Some(1), "{checked}");
    // Nobody vouches for it, so the second machine holds it.
    until("the forged version is held", || {
        let holds = pair.b.ok(&["hold", "list"])["holds"].clone();
        if holds[0]["kind"] == "writer" { Ok(()) } else { Err(format!("{holds}\n{}", pair.b.told())) }
    });
    assert_eq!(version(&pair.b, 1)["n"], 1);
    pair.b.fails(&["hold", "accept", "Notes"], 6, "not_admin");
}

/// Two machines that share a space with a third and not with each other: the third gives the key of one to the other.
// Proves: SY-103
#[test]
fn what_a_node_wrote_that_one_never_met_is_proven_too() {
    let pair = Pair::with(|notes| write(notes, "plan.md", "first\n"));
    let third = Machine::new();
    let ticket = pair.a.ok(&["ticket", "new", "--space", "Notes"])["ticket"].as_str().unwrap().to_owned();
    third.ok(&["join", &ticket, third.notes_text(), "--wait"]);
    let _node = third.up(&[]);
    write(&pair.b.notes(), "plan.md", "second\n");
    let b = pair.b.ok(&["status"])["node"].clone();
    until("the key of a node that was never met", || match newest(&third) {
        entry if by(&entry) == ("verified", &b) => Ok(()),
        entry => Err(entry.to_string()),
    });
    assert_eq!(newest(&third)["n"], 1);
    assert_eq!(third.ok(&["verify"])["commits"]["unknown"], 0);
}

fn forge(machine: &Machine, victim: &str) {
    let store = Store::open_dir(machine.home().join("store")).unwrap();
    let tip_of = |view: &sealtide_store::SpaceHandle| -> Option<Verified> {
        view.tip_items().iter().filter_map(|tip| view.record(&tip.sid)).find(|tip| FileFrame::read(tip).is_ok())
    };
    let view = store.spaces().iter().filter_map(|info| store.view(&info.space)).find(|view| tip_of(view).is_some());
    let view = view.unwrap();
    let tip = tip_of(&view).unwrap();
    let mut frame = FileFrame::read(&tip).unwrap();
    frame.by = victim.to_owned();
    frame.content = sealtide_ibgib::Content::Text("forged\n".to_owned());
    let stamp = Stamp { ms: tip.frame().unwrap().stamp.unwrap().ms + 1 };
    let forged = frame.evolve(&tip, stamp).unwrap();
    let stones = view.stones();
    let commits: Vec<Commit> = stones.iter().filter_map(|sid| read_commit(&view.record(sid)?)).collect();
    let genuine = commits.iter().find(|commit| commit.by.to_string() == victim).expect("the victim wrote something");
    let key = SigningKey::from_seed(&Seed::from_bytes([5; 32]));
    let author = Author { key: &key, keystone: &genuine.keystone };
    let tips = vec![Tip { sid: forged.sid(), address: forged.address().clone() }];
    let stone = commit_stones(&author, tips, genuine.at_ms + 1, None).unwrap().remove(0);
    let mut data = Value::Object(stone.object().unwrap());
    data["by"] = json!(victim);
    let stone = Verified::make("commit", Data::Json(data), stone.relations().clone()).unwrap();
    let records = vec![forged, stone];
    let request = CommitRequest::local(records);
    store.commit(&view.id(), &request).unwrap();
}
