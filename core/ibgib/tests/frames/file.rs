//! The table of ibgib §12.7, as frames that are accepted and frames that are not; yield frames.

use sealtide_ibgib::{
    Address, Content, FILE_IB, FileFrame, FileKind, Relations, Stamp, Tree, Verified, binary_record, evolve, genesis,
    inline_text, settle_tips, stone, yield_frame,
};
use serde_json::{Value, json};

use crate::{accepted, address, node, permutations, stamp, text_file, uuid, view};

/// A record with ib `file` and these members, made without asking the table.
fn raw(data: Value, bins: &[&Address]) -> Verified {
    let mut relations = Relations::new();
    if !bins.is_empty() {
        relations.insert("bin".to_owned(), bins.iter().map(|bin| (*bin).clone()).collect());
    }
    genesis(FILE_IB, data.as_object().unwrap().clone(), relations, stamp(0), &uuid(1))
}

/// The members of a plain text file, with some of them replaced; `null` takes one away.
fn members(changes: Value) -> Value {
    let mut data = json!({"path": "a/b.txt", "kind": "file", "mtime": 5, "by": node('a'), "text": "hello"});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => data.as_object_mut().unwrap().shift_remove(name),
            value => data.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    data
}

fn bin() -> Address {
    binary_record(vec![0, 1, 2].into()).address().clone()
}

// Proves: SY-104
#[test]
fn frames_that_the_table_accepts() {
    let no_text = json!({"text": null});
    let with = |more: Value| {
        let mut all = no_text.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        members(all)
    };
    let first = address(&format!("file^{}", "A".repeat(64)));
    let rows = [
        (members(json!({})), vec![]),
        (members(json!({"text": ""})), vec![]),
        (members(json!({"exec": true})), vec![]),
        (members(json!({"mtime": -5})), vec![]),
        (members(json!({"mtime": 9_007_199_254_740_991_i64})), vec![]),
        (members(json!({"path": "x".repeat(255)})), vec![]),
        (members(json!({"graft": {"conflicts": 1}, "other": 1})), vec![]),
        (with(json!({})), vec![bin()]),
        (with(json!({"kind": "symlink", "target": "../elsewhere"})), vec![]),
        (with(json!({"kind": "dir"})), vec![]),
        (with(json!({"deleted": true})), vec![]),
        (with(json!({"deleted": true, "kind": "dir"})), vec![]),
        (with(json!({"deleted": true, "yielded": first.as_str()})), vec![]),
    ];
    for (data, bins) in rows {
        let record = raw(data.clone(), &bins.iter().collect::<Vec<_>>());
        let frame = FileFrame::read(&accepted(&record)).unwrap_or_else(|error| panic!("{data}: {error}"));
        // What was read makes the same record again, but for members that the table does not name.
        if data.get("graft").is_none() {
            assert_eq!(frame.genesis(stamp(0), &uuid(1)).unwrap(), record, "{data}");
        }
    }
}

// Proves: SY-104
#[test]
fn frames_that_the_table_refuses() {
    let bin = bin();
    let none: &[&Address] = &[];
    let odd_bin = address(&format!("bin {} txt^{}", "a".repeat(64), "A".repeat(64)));
    let rows: &[(&str, Value, &[&Address])] = &[
        ("data.path", json!({"path": null}), none),
        ("data.path", json!({"path": 1}), none),
        ("data.path", json!({"path": ""}), none),
        ("data.path", json!({"path": "/etc/passwd"}), none),
        ("data.path", json!({"path": "a/../b"}), none),
        ("data.path", json!({"path": "./a"}), none),
        ("data.path", json!({"path": "a//b"}), none),
        ("data.path", json!({"path": "a\0b"}), none),
        ("data.path", json!({"path": "x".repeat(256)}), none),
        ("data.path", json!({"path": format!("{}a", "x/".repeat(512))}), none),
        ("data.kind", json!({"kind": null}), none),
        ("data.kind", json!({"kind": "fifo"}), none),
        ("data.exec", json!({"exec": false}), none),
        ("data.exec", json!({"exec": 1}), none),
        ("data.mtime", json!({"mtime": null}), none),
        ("data.mtime", json!({"mtime": 1.5}), none),
        ("data.mtime", json!({"mtime": "1"}), none),
        ("data.mtime", json!({"mtime": 9_007_199_254_740_992_i64}), none),
        ("data.by", json!({"by": null}), none),
        ("data.by", json!({"by": "somebody"}), none),
        ("data.by", json!({"by": node('A')}), none),
        ("data.by", json!({"by": format!("{}a", node('a'))}), none),
        ("data.by", json!({"by": node('a').replace("aaa", "../")}), none),
        ("content", json!({"text": null}), none),
        ("content", json!({"target": "b"}), none),
        ("content", json!({}), &[&bin]),
        ("content", json!({"kind": "symlink"}), none),
        ("content", json!({"kind": "dir"}), none),
        ("content", json!({"kind": "symlink", "text": null}), &[&bin]),
        ("content", json!({"kind": "dir", "text": null}), &[&bin]),
        ("content", json!({"text": null, "target": "b"}), none),
        ("data.text", json!({"text": 1}), none),
        ("data.text", json!({"text": "a\u{0}"}), none),
        ("data.text", json!({"text": "a\u{1b}"}), none),
        ("data.target", json!({"kind": "symlink", "text": null, "target": ""}), none),
        ("data.target", json!({"kind": "symlink", "text": null, "target": "a\0"}), none),
        ("data.target", json!({"kind": "symlink", "text": null, "target": "a".repeat(4097)}), none),
        ("data.target", json!({"kind": "symlink", "text": null, "target": 7}), none),
        ("rel8ns.bin", json!({"text": null}), &[&bin, &bin]),
        ("rel8ns.bin", json!({"text": null}), &[&odd_bin]),
        ("data.deleted", json!({"deleted": false}), none),
        ("content", json!({"deleted": true}), none),
        ("content", json!({"deleted": true, "text": null}), &[&bin]),
        ("data.exec", json!({"deleted": true, "text": null, "exec": true}), none),
        ("data.yielded", json!({"yielded": format!("file^{}", "A".repeat(64))}), none),
        ("data.yielded", json!({"deleted": true, "text": null, "yielded": "nonsense"}), none),
        ("data.yielded", json!({"deleted": true, "text": null, "yielded": "file^gib"}), none),
        ("data.yielded", json!({"deleted": true, "text": null, "yielded": format!("doc^{}", "A".repeat(64))}), none),
        (
            "data.yielded",
            json!({"deleted": true, "text": null, "yielded": format!("file^{0}.{0}", "A".repeat(64))}),
            none,
        ),
    ];
    for (member, changes, bins) in rows {
        let error = FileFrame::read(&raw(members(changes.clone()), bins)).expect_err(&changes.to_string());
        assert_eq!(error.member, *member, "{changes}: {error}");
    }
    let doc = genesis("doc", members(json!({})).as_object().unwrap().clone(), Relations::new(), stamp(0), &uuid(1));
    assert_eq!(FileFrame::read(&doc).unwrap_err().member, "ib");
    let lone = stone(FILE_IB, sealtide_ibgib::Data::Json(members(json!({}))), Relations::new());
    assert_eq!(FileFrame::read(&lone).unwrap_err().member, "tjp");
}

// Proves: SY-104
#[test]
fn makers_refuse_what_readers_refuse() {
    let good = text_file("a", "b");
    assert!(good.parts().is_ok());
    let wrong = [
        FileFrame { path: "../a".to_owned(), ..good.clone() },
        FileFrame { by: "me".to_owned(), ..good.clone() },
        FileFrame { mtime: i64::MAX, ..good.clone() },
        FileFrame { mtime: i64::MIN, ..good.clone() },
        FileFrame { kind: FileKind::Dir, ..good.clone() },
        FileFrame { content: Content::None, ..good.clone() },
        FileFrame { deleted: true, ..good.clone() },
        FileFrame { content: Content::Text("\0".repeat(200 * 1024)), ..good.clone() },
        FileFrame { content: Content::Text("x".repeat(256 * 1024 - 1)), ..good.clone() },
        FileFrame { content: Content::Bin(address("bin^gib")), ..good.clone() },
    ];
    for frame in wrong {
        assert!(frame.parts().is_err() && frame.genesis(stamp(0), &uuid(1)).is_err(), "{:.200}", format!("{frame:?}"));
    }
    let largest = FileFrame { content: Content::Text("x".repeat(256 * 1024 - 2)), ..good.clone() };
    let first = largest.genesis(stamp(0), &uuid(1)).unwrap();
    assert_eq!(FileFrame::read(&accepted(&first)).unwrap(), largest);
    let doc = genesis("doc", Default::default(), Relations::new(), stamp(0), &uuid(1));
    assert_eq!(good.evolve(&doc, stamp(0)).unwrap_err().member, "ib");
}

/// A merge may leave a longer text than one that is put into a frame.
#[test]
fn a_text_that_grew_in_a_merge_is_read() {
    let text = "x".repeat(300 * 1024);
    assert_eq!(inline_text(text.as_bytes()), None);
    let frame = FileFrame::read(&raw(members(json!({"text": text})), &[])).unwrap();
    assert!(frame.parts().is_err());
}

#[test]
fn a_foreign_frame_that_leaves_no_room_is_an_error() {
    let ancestors: Vec<Address> =
        (0..9000).map(|number| address(&format!("ancestor {number}^{}", "A".repeat(64)))).collect();
    let data = members(json!({"isTjp": true, "n": 0, "uuid": "u"}));
    let relations = Relations::from([("ancestor".to_owned(), ancestors)]);
    let foreign = stone(FILE_IB, sealtide_ibgib::Data::Json(data), relations);
    let frame = FileFrame::read(&foreign).unwrap();
    assert!(frame.evolve(&foreign, stamp(0)).is_ok());
    let long = FileFrame { content: Content::Text("x".repeat(200 * 1024)), ..frame };
    assert_eq!(long.evolve(&foreign, stamp(0)).unwrap_err().member, "record");
}

#[test]
fn same_content_looks_at_kind_exec_and_content() {
    let one = text_file("a", "b");
    let moved = FileFrame { path: "c".to_owned(), mtime: 9, by: node('z'), ..one.clone() };
    assert!(one.same_content(&moved));
    assert!(!one.same_content(&FileFrame { exec: true, ..one.clone() }));
    assert!(!one.same_content(&text_file("a", "B")));
    assert!(!one.same_content(&FileFrame { content: Content::Bin(bin()), ..one.clone() }));
    let dir = FileFrame { kind: FileKind::Dir, content: Content::None, ..one.clone() };
    assert!(!dir.same_content(&dir.deletion(1, &node('a'))));
}

/// Two timelines with one path and equal content, the owner first.
fn twins() -> (Verified, Verified) {
    let owner = text_file("a.txt", "same").genesis(stamp(10), &uuid(1)).unwrap();
    let frame = FileFrame { by: node('b'), mtime: 77, ..text_file("a.txt", "same") };
    (owner, frame.genesis(stamp(20), &uuid(2)).unwrap())
}

// Proves: SY-105
#[test]
fn a_yield_frame_keeps_everything_but_the_content() {
    let (owner, loser) = twins();
    let ended = accepted(&yield_frame(&loser, owner.address()).unwrap());
    let frame = FileFrame::read(&ended).unwrap();
    assert_eq!(frame.yielded.as_ref(), Some(owner.address()));
    assert!(frame.deleted && frame.content == Content::None && !frame.exec);
    assert_eq!((frame.path.as_str(), frame.mtime, frame.by), ("a.txt", 77, node('b')));
    let facts = ended.frame().unwrap();
    assert_eq!((facts.n, facts.past, facts.stamp), (1, vec![loser.address().clone()], Some(stamp(20))));
    assert_eq!(yield_frame(&ended, owner.address()).unwrap_err().member, "data.deleted");
    assert!(yield_frame(&loser, &address("a^gib")).is_err());
}

// Proves: SY-105
#[test]
fn every_node_computes_the_same_yield_and_an_edit_afterwards_is_no_conflict() {
    let (owner, loser) = twins();
    let copy = text_file("a.txt", "same").genesis(stamp(30), &uuid(3)).unwrap();
    let firsts = [owner, loser, copy];
    let results: Vec<Vec<Verified>> = permutations(3)
        .into_iter()
        .map(|order| {
            // One node for each order in which the three may have arrived; none of them looks at a clock.
            let tree = Tree::build(order.iter().map(|at| view(&firsts[*at], &firsts[*at..=*at])));
            assert_eq!(tree.placements.len(), 1);
            assert_eq!(tree.placements["a.txt"].tip, firsts[0]);
            tree.yields.iter().map(|(tip, first)| yield_frame(tip, first).unwrap()).collect()
        })
        .collect();
    let (ended, rest) = (&results[0], &results[1..]);
    assert_eq!(ended.len(), 2);
    assert!(rest.iter().all(|other| other == ended));

    // The two nodes' frames are one frame, so there is one tip; and an edit of the owner meets nobody.
    let tips = settle_tips(&[firsts[1].address().clone()], &[ended[0].address().clone()], &mut |wanted| {
        [&firsts[1], &ended[0]].into_iter().find(|record| record.address() == wanted).and_then(|record| record.frame())
    });
    assert_eq!(tips, [ended[0].address().clone()]);
    let edited = text_file("a.txt", "changed").evolve(&firsts[0], stamp(40)).unwrap();
    let views = || {
        [view(&firsts[0], std::slice::from_ref(&edited)), view(&firsts[1], &ended[..1]), view(&firsts[2], &ended[1..])]
    };
    let tree = Tree::build(views());
    assert!(tree.yields.is_empty() && tree.path_conflicts.is_empty() && tree.diverged.is_empty());
    assert_eq!(tree.placements["a.txt"].tip, edited);
}

#[test]
fn the_yield_of_a_frame_without_a_stamp_is_still_one_frame() {
    let (owner, loser) = twins();
    let mut data = loser.object().unwrap();
    data.shift_remove("timestamp");
    let bare = stone(FILE_IB, sealtide_ibgib::Data::Json(Value::Object(data)), loser.relations().clone());
    assert_eq!(bare.frame().unwrap().stamp, None);
    let ended = yield_frame(&bare, owner.address()).unwrap();
    assert_eq!(ended.frame().unwrap().stamp, Some(Stamp { ms: 0 }));
    assert_eq!(ended, yield_frame(&accepted(&bare), owner.address()).unwrap());
}

#[test]
fn a_path_that_comes_back_continues_its_timeline() {
    let first = text_file("a", "1").genesis(stamp(0), &uuid(1)).unwrap();
    let gone = text_file("a", "1").deletion(9, &node('b')).evolve(&first, stamp(1)).unwrap();
    assert!(Tree::build([view(&first, std::slice::from_ref(&gone))]).placements.is_empty());
    let back = text_file("a", "2").evolve(&gone, stamp(2)).unwrap();
    assert_eq!(Tree::build([view(&first, std::slice::from_ref(&back))]).placements["a"].tip, back);
    let other = evolve(&gone, Default::default(), Relations::new(), stamp(2));
    assert!(FileFrame::read(&other).is_err());
}
