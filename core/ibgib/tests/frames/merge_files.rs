//! The merge table of file frames. Spec: ibgib §16.1.

use sealtide_ibgib::{Content, FileFrame, FileKind, NoMerge, Verified, evolve, merge_tips, yield_frame};
use serde_json::json;

use crate::merge::{Held, object};
use crate::{BASE_MS, address, node, stamp, text_file, uuid};

fn bin(digit: char) -> Content {
    Content::Bin(address(&format!("bin {} ^{}", digit.to_string().repeat(64), "A".repeat(64))))
}

fn file(content: Content) -> FileFrame {
    FileFrame { content, ..text_file("a.txt", "") }
}

/// The merge of two changes of `base`; the left one is the winner. Authors and times differ, as they do.
fn merge(base: &FileFrame, left: &FileFrame, right: &FileFrame) -> (FileFrame, u64) {
    let first = base.genesis(stamp(0), &uuid(1)).unwrap();
    let left = FileFrame { by: node('l'), mtime: BASE_MS as i64 + 5, ..left.clone() };
    let right = FileFrame { by: node('r'), mtime: BASE_MS as i64 + 9, ..right.clone() };
    let (left, right) = (left.evolve(&first, stamp(20)).unwrap(), right.evolve(&first, stamp(10)).unwrap());
    let merged = Held::of(&[&first, &left, &right]).merge(&left, &right).unwrap();
    let frame = FileFrame::read(&merged).unwrap();
    // Rule 1.
    assert_eq!((frame.mtime, frame.by.as_str()), (BASE_MS as i64 + 9, node('l').as_str()));
    (frame, merged.object().unwrap()["graft"]["conflicts"].as_u64().unwrap())
}

/// Compares what the rules settle besides `mtime` and `by`.
fn check(base: &FileFrame, left: &FileFrame, right: &FileFrame, expected: &FileFrame, conflicts: u64) {
    let (found, counted) = merge(base, left, right);
    let expected = FileFrame { by: found.by.clone(), mtime: found.mtime, ..expected.clone() };
    assert_eq!((&found, counted), (&expected, conflicts), "{base:?}\n{left:?}\n{right:?}");
}

// Proves: SY-106 (a clean text merge lists no conflict although mtime and author differ)
#[test]
fn texts() {
    let text = |text: &str| text_file("a.txt", text);
    let paragraphs = "one\n\ntwo\n\nthree\n";
    check(
        &text(paragraphs),
        &text("ONE\n\ntwo\n\nthree\n"),
        &text("one\n\ntwo\n\nTHREE\n"),
        &text("ONE\n\ntwo\n\nTHREE\n"),
        0,
    );
    check(&text("the red fox"), &text("the blue fox"), &text("the green fox"), &text("the blue green fox"), 1);
    let run = FileFrame { exec: true, ..text("a b") };
    check(&text("a b"), &run, &text("a b c"), &FileFrame { exec: true, ..text("a b c") }, 0);
    check(&run, &text("a b"), &FileFrame { exec: true, ..text("a b c") }, &text("a b c"), 0);
    check(&text("a"), &text("a"), &text("a"), &text("a"), 0);
}

// Proves: SY-106 (rule 2)
#[test]
fn paths() {
    let at = |path: &str| text_file(path, "x");
    check(&at("a"), &at("b"), &at("a"), &at("b"), 0);
    check(&at("a"), &at("a"), &at("b"), &at("b"), 0);
    check(&at("a"), &at("b"), &at("b"), &at("b"), 0);
    check(&at("a"), &at("b"), &at("c"), &at("b"), 1);
    // Renamed by one, edited by the other.
    check(&at("a"), &at("b"), &text_file("a", "x y"), &text_file("b", "x y"), 0);
}

// Proves: SY-106 (rule 3)
#[test]
fn contents_that_cannot_be_merged() {
    let run = |content: Content| FileFrame { exec: true, ..file(content) };
    let text = |text: &str| file(Content::Text(text.to_owned()));
    let (one, two, three) = (file(bin('1')), file(bin('2')), file(bin('3')));
    check(&one, &two, &one, &two, 0);
    check(&one, &one, &two, &two, 0);
    check(&one, &two, &two, &two, 0);
    check(&one, &two, &three, &two, 1);
    check(&one, &text("x"), &two, &text("x"), 1);
    check(&one, &two, &text("x"), &two, 1);
    check(&one, &text("x"), &text("y"), &text("x"), 1);
    check(&text("x"), &text("x"), &one, &one, 0);
    // Whether it may run is a change of its own.
    check(&one, &run(bin('1')), &two, &run(bin('2')), 0);
    check(&one, &two, &run(bin('3')), &run(bin('2')), 1);

    let link = |target: &str| FileFrame { kind: FileKind::Symlink, ..file(Content::Target(target.to_owned())) };
    let dir = FileFrame { kind: FileKind::Dir, ..file(Content::None) };
    check(&link("a"), &link("a"), &link("b"), &link("b"), 0);
    check(&link("a"), &link("c"), &link("b"), &link("c"), 1);
    check(&text("x"), &text("x"), &link("b"), &link("b"), 0);
    check(&text("x"), &link("b"), &text("x y"), &link("b"), 1);
    check(&text("x"), &text("x y"), &link("b"), &text("x y"), 1);
    check(&dir, &dir, &text("x"), &text("x"), 0);
    check(&dir, &dir, &dir, &dir, 0);
}

// Proves: SY-106 (rule 4)
#[test]
fn deletions() {
    let text = |text: &str| text_file("a.txt", text);
    let gone = text("").deletion(BASE_MS as i64, &node('a'));
    let gone_at = |path: &str| FileFrame { path: path.to_owned(), ..gone.clone() };
    // Nothing happened on the other side but a touch.
    check(&text("x"), &gone, &text("x"), &gone, 0);
    check(&text("x"), &text("x"), &gone, &gone, 0);
    // What was changed outlives the deletion.
    check(&text("x"), &gone, &text("x y"), &text("x y"), 1);
    check(&text("x"), &text("x y"), &gone, &text("x y"), 1);
    check(&text("x"), &gone, &text_file("b.txt", "x"), &text_file("b.txt", "x"), 1);
    check(&text("x"), &gone, &FileFrame { exec: true, ..text("x") }, &FileFrame { exec: true, ..text("x") }, 1);
    check(&text("x"), &gone_at("b.txt"), &text("x"), &gone_at("b.txt"), 0);
    // Gone on both sides.
    check(&text("x"), &gone, &gone, &gone, 0);
    check(&text("x"), &gone_at("b.txt"), &gone_at("c.txt"), &gone_at("b.txt"), 1);
    // Gone before.
    check(&gone, &text("x"), &gone, &text("x"), 0);
    check(&gone, &gone, &text("x"), &text("x"), 0);
    check(&gone, &text("x"), &text("y"), &text("x"), 1);
    check(&gone, &text("x"), &text("x"), &text("x"), 0);
    check(&gone, &gone, &gone, &gone, 0);
}

// Proves: SY-105, SY-106 (a yield against an edit)
#[test]
fn yields() {
    let owner = address(&format!("file^{}", "B".repeat(64)));
    let first = text_file("a.txt", "same").genesis(stamp(0), &uuid(1)).unwrap();
    let ended = yield_frame(&first, &owner).unwrap();
    let edit = |text: &str| text_file("a.txt", text).evolve(&first, stamp(5)).unwrap();
    let merge = |other: &Verified| {
        let merged = Held::of(&[&first, &ended, other]).merge(&ended, other).unwrap();
        (FileFrame::read(&merged).unwrap(), merged.object().unwrap()["graft"]["conflicts"].clone())
    };
    let (kept, conflicts) = merge(&edit("other"));
    assert_eq!((kept.deleted, kept.yielded, kept.content), (false, None, Content::Text("other".to_owned())));
    assert_eq!(conflicts, json!(1));
    let (gone, conflicts) = merge(&edit("same"));
    assert_eq!((gone.deleted, gone.yielded.as_ref(), conflicts), (true, Some(&owner), json!(0)));
    // Deleted on both sides: the winner says whether it yielded.
    let deleted = text_file("a.txt", "").deletion(1, &node('a')).evolve(&first, stamp(5)).unwrap();
    let (gone, conflicts) = merge(&deleted);
    assert_eq!((gone.deleted, gone.yielded, conflicts), (true, None, json!(0)));
    // An edit behind the yield frame is a step like any other.
    let after = text_file("a.txt", "new").evolve(&ended, stamp(9)).unwrap();
    let held = Held::of(&[&first, &ended, &after]);
    assert_eq!(held.merge(&ended, &after), Err(NoMerge::FastForward));
}

#[test]
fn members_that_the_table_does_not_name_follow_the_general_rule() {
    let first = text_file("a.txt", "x").genesis(stamp(0), &uuid(1)).unwrap();
    let tagged = |tag: &str, offset_ms: u64| {
        let (mut data, relations) = text_file("a.txt", "x").parts().unwrap();
        data.insert(tag.to_owned(), json!(1));
        evolve(&first, data, relations, stamp(offset_ms))
    };
    let (left, right) = (tagged("left", 1), tagged("right", 2));
    let data = Held::of(&[&first, &left, &right]).merge(&left, &right).unwrap().object().unwrap();
    assert_eq!((&data["left"], &data["right"], &data["graft"]["conflicts"]), (&json!(1), &json!(1), &json!(0)));
}

#[test]
fn what_a_folder_cannot_read_is_not_merged() {
    let first = text_file("a.txt", "x").genesis(stamp(0), &uuid(1)).unwrap();
    let good = text_file("a.txt", "y").evolve(&first, stamp(1)).unwrap();
    let odd = evolve(&first, object(json!({"path": "../a"})), Default::default(), stamp(2));
    assert_eq!(Held::of(&[&first, &good, &odd]).merge(&good, &odd), Err(NoMerge::NotAFile));
}

/// A merge may grow a text past what is taken in from a directory, up to the size of a record.
#[test]
fn a_text_may_grow_in_a_merge() {
    let half = "x".repeat(150 * 1024);
    let base = text_file("a.txt", "middle");
    let (left, right) = (format!("{half} middle"), format!("middle {half}"));
    let (merged, conflicts) = merge(&base, &text_file("a.txt", &left), &text_file("a.txt", &right));
    assert_eq!((merged.content, conflicts), (Content::Text(format!("{half} middle {half}")), 0));
    let most = "y".repeat(255 * 1024);
    let first = base.genesis(stamp(0), &uuid(1)).unwrap();
    let grow = |text: String, ms: u64| text_file("a.txt", &text).evolve(&first, stamp(ms)).unwrap();
    let (left, right) = (grow(format!("{most} middle"), 1), grow(format!("middle {most}"), 2));
    let held = Held::of(&[&first, &left, &right]);
    let merged = merge_tips((&left, &right), &sealtide_ibgib::MergeStrategy::Optimistic, &mut |address| {
        held.0.get(address).cloned()
    });
    assert!(FileFrame::read(&merged.unwrap()).is_ok());
}
