//! The rules for frames with ib `file`. Spec: ibgib §16.1, merge §4.

use serde_json::{Value, json};

use super::text::merge_placed;
use super::value::{Choice, choose};
use super::{NoMerge, Tally};
use crate::{Content, FileFrame, Object, Relations, Verified};

/// The members that these rules settle; all others follow the general rule.
pub(super) const MEMBERS: [&str; 9] = ["path", "kind", "exec", "mtime", "by", "text", "target", "deleted", "yielded"];
/// The relation that these rules settle.
pub(super) const RELATION: &str = "bin";

/// Merges the members of [`MEMBERS`] and the relation [`RELATION`] into `data` and `relations`.
///
/// # Errors
/// [`NoMerge::NotAFile`] when one of the three breaks the table of folders §2: a folder could not read the result.
// Spec: SY-106
pub(super) fn merge_files(
    [base, winner, loser]: [&Verified; 3],
    data: &mut Object,
    relations: &mut Relations,
    tally: &mut Tally,
) -> Result<(), NoMerge> {
    let read = |record| FileFrame::read(record).map_err(|_| NoMerge::NotAFile);
    let merged = merged(&read(base)?, &read(winner)?, &read(loser)?, tally);
    write(&merged, data, relations);
    Ok(())
}

fn merged(base: &FileFrame, winner: &FileFrame, loser: &FileFrame, tally: &mut Tally) -> FileFrame {
    let mut merged = match (winner.deleted, loser.deleted) {
        (false, false) => both_live(base, winner, loser, tally),
        (true, true) => FileFrame { path: path(base, winner, loser, tally), ..winner.clone() },
        (true, false) => deletion_or_edit(base, winner, loser, tally),
        (false, true) => deletion_or_edit(base, loser, winner, tally),
    };
    merged.mtime = winner.mtime.max(loser.mtime);
    merged.by.clone_from(&winner.by);
    merged
}

/// Rule 4: what was changed outlives a deletion. A path that was gone before and lives again on one side only is no
/// conflict: nobody deleted anything meanwhile.
fn deletion_or_edit(base: &FileFrame, deletion: &FileFrame, edit: &FileFrame, tally: &mut Tally) -> FileFrame {
    if edit.same_content(base) && edit.path == base.path {
        return deletion.clone();
    }
    tally.conflicts += u64::from(!base.deleted);
    edit.clone()
}

/// Rules 2 and 3.
fn both_live(base: &FileFrame, winner: &FileFrame, loser: &FileFrame, tally: &mut Tally) -> FileFrame {
    let path = path(base, winner, loser, tally);
    if let (Content::Text(in_base), Content::Text(in_winner), Content::Text(in_loser)) =
        (&base.content, &winner.content, &loser.content)
    {
        let text = merge_placed(tally.places, in_base, in_winner, in_loser);
        tally.conflicts += text.conflicts;
        return FileFrame {
            path,
            exec: exec(base, winner, loser),
            content: Content::Text(text.text),
            ..winner.clone()
        };
    }
    if winner.kind == loser.kind {
        // Whether a file may run and what it holds are two changes, and either is kept.
        let sides = [base, winner, loser].map(|frame| (frame.deleted, frame.kind, &frame.content));
        let content = match choose(&sides[0], &sides[1], &sides[2]) {
            Choice::Winner => &winner.content,
            Choice::Loser => &loser.content,
            Choice::Both => {
                tally.conflicts += 1;
                &winner.content
            }
        };
        return FileFrame { path, exec: exec(base, winner, loser), content: content.clone(), ..winner.clone() };
    }
    let whole = match (winner.same_content(base), loser.same_content(base)) {
        (true, _) => loser,
        (_, true) => winner,
        _ => {
            tally.conflicts += 1;
            winner
        }
    };
    FileFrame { path, ..whole.clone() }
}

fn path(base: &FileFrame, winner: &FileFrame, loser: &FileFrame, tally: &mut Tally) -> String {
    let path = match choose(&base.path, &winner.path, &loser.path) {
        Choice::Winner => &winner.path,
        Choice::Loser => &loser.path,
        Choice::Both => {
            tally.conflicts += 1;
            &winner.path
        }
    };
    path.clone()
}

/// Two values: whoever changed it has it.
fn exec(base: &FileFrame, winner: &FileFrame, loser: &FileFrame) -> bool {
    if winner.exec == base.exec { loser.exec } else { winner.exec }
}

/// Not [`FileFrame::parts`]: a merged text may be longer than one that is taken in from a directory.
fn write(frame: &FileFrame, data: &mut Object, relations: &mut Relations) {
    let mut set = |name: &str, value: Value| _ = data.insert(name.to_owned(), value);
    set("path", json!(frame.path));
    set("kind", json!(frame.kind.as_str()));
    set("mtime", json!(frame.mtime));
    set("by", json!(frame.by));
    if frame.exec {
        set("exec", json!(true));
    }
    if frame.deleted {
        set("deleted", json!(true));
    }
    if let Some(owner) = &frame.yielded {
        set("yielded", json!(owner.as_str()));
    }
    match &frame.content {
        Content::Text(text) => set("text", json!(text)),
        Content::Target(target) => set("target", json!(target)),
        Content::Bin(address) => _ = relations.insert(RELATION.to_owned(), vec![address.clone()]),
        Content::None => {}
    }
}
