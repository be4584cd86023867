//! `log`, `diff`, `restore`.

use std::cmp::Reverse;
use std::path::{Path, PathBuf};

use sealtide_ibgib::{Address, Content, FILE_IB, FileFrame, FileKind, Sid, Stamp, Verified};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;
use serde_json::{Value, json};
use similar::TextDiff;

use crate::beside::Beside;
use crate::commands::documents::{content, is_root, may_write};
use crate::commands::target::{DOC_IB, Line, Target, by_of, n_of, name_of, own_members, stamp_of, versions_of};
use crate::commands::{blocking, rfc3339, store_failure};
use crate::content::ContentReader;
use crate::engine::authorship::Authorship;
use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::real::now;

/// Versions of one file or document, or the newest changes of a space or of all.
pub(crate) fn log(node: &Node, target: Option<&str>, limit: usize) -> Result<Value, Failure> {
    let target = target.map(Target::parse);
    let entries = match &target {
        Some(target) if target.path.is_some() => {
            let line = Line::find(node, target)?;
            let tips: Vec<_> = line.tips.iter().map(Verified::sid).collect();
            line.versions()
                .take(limit)
                .map(|frame| entry(node, (&target.space, &line.view), &frame, tips.contains(&frame.sid())))
                .collect()
        }
        Some(target) => {
            let space = node.find_space(&target.space)?;
            changes(node, &[(target.space.clone(), space)], limit)
        }
        None => {
            let spaces: Vec<_> = node.spaces().into_iter().map(|space| (node.label(&space), space)).collect();
            changes(node, &spaces, limit)
        }
    };
    Ok(json!({"schema": "sealtide/log/1", "entries": entries}))
}

/// A change: when it was made and its counter, the place of its space, its frame, and whether that is a tip.
type Change = (Reverse<(u64, u64)>, usize, Sid, bool);

/// The newest changes, newest first. No frame is later than the newest tip of its timeline, so the newest changes are in
/// the timelines with the newest tips; only of those more than the tips is read. An open folder knows them without
/// reading.
fn changes(node: &Node, spaces: &[(String, sealtide_identity::SpaceId)], limit: usize) -> Vec<Value> {
    let mut newest = Vec::new();
    let spaces: Vec<_> = spaces.iter().filter_map(|(label, id)| Some((label, *id, node.store().view(id)?))).collect();
    for (place, (_, id, view)) in spaces.iter().enumerate() {
        let share = node.shares().get(id).cloned();
        let timelines = match share.and_then(|share| share.newest(limit)) {
            Some(files) => {
                let files = files.iter().filter_map(|timeline| view.timeline(*timeline));
                files.chain(view.timelines_of(DOC_IB)).collect()
            }
            None => view.timelines(),
        };
        for info in timelines {
            let tips = info.tips.iter().filter(|tip| [FILE_IB, DOC_IB].contains(&tip.tip.ib()));
            if let Some(stamp) = tips.filter_map(|tip| view.record(&tip.sid)).map(|tip| stamp_of(&tip)).max() {
                newest.push((stamp, place, info));
            }
        }
    }
    newest.sort_by_key(|(stamp, ..)| std::cmp::Reverse(*stamp));
    newest.truncate(limit);
    // Of what is not told in the end nothing is held but its place.
    let mut all: Vec<Change> = Vec::new();
    for (_, place, info) in newest {
        let last = info.tips.iter().map(|tip| tip.n).max().unwrap_or(0);
        for frame in
            versions_of(&spaces[place].2, info.timeline, last).filter(|frame| name_of(frame).is_some()).take(limit)
        {
            let is_tip = info.tips.iter().any(|tip| tip.sid == frame.sid());
            all.push((Reverse((stamp_of(&frame), n_of(&frame))), place, frame.sid(), is_tip));
        }
    }
    all.sort_by_key(|(newest, ..)| *newest);
    all.truncate(limit);
    let told = all.iter().filter_map(|(_, place, sid, tip)| {
        let (label, _, view) = &spaces[*place];
        Some(entry(node, (label, view), &view.record(sid)?, *tip))
    });
    told.collect()
}

/// The versions that a version was made of.
fn parents_of(view: &SpaceHandle, frame: &Verified) -> Vec<Address> {
    let mut parents: Vec<Address> =
        frame.frame().into_iter().flat_map(|facts| facts.past.into_iter().chain(facts.orphans)).collect();
    if frame.address().ib() == DOC_IB && n_of(frame) == 1 {
        let record = |address: &Address| view.by_address(address).first().and_then(|sid| view.record(sid));
        parents.retain(|parent| !record(parent).is_some_and(|parent| is_root(&parent)));
    }
    parents
}

fn entry(node: &Node, (space, view): (&str, &SpaceHandle), frame: &Verified, tip: bool) -> Value {
    let (name, live) = name_of(frame).unwrap_or_default();
    let file = FileFrame::read(frame).ok();
    let by = by_of(frame);
    let before = parents_of(view, frame);
    let (authorship, verified_by) = match node.engine().authorship(view, frame) {
        Authorship::Verified(by) => ("verified", Some(by.to_string())),
        Authorship::Claimed => ("claimed", None),
        Authorship::Merged => ("merged", None),
    };
    let what = match &file {
        Some(file) if file.yielded.is_some() => "yielded",
        Some(file) if file.deleted => "deleted",
        _ if authorship == "merged" => "merged",
        _ if before.is_empty() => "created",
        _ => "changed",
    };
    let parents: Vec<String> = before.iter().map(hash_of).collect();
    json!({
        "space": space,
        "path": name,
        "n": n_of(frame),
        "hash": hash_of(frame.address()),
        "address": frame.address().as_str(),
        "time": rfc3339(stamp_of(frame)),
        "what": what,
        "live": live,
        "tip": tip,
        "by": by,
        "by_name": by.as_deref().and_then(|by| name_of_node(node, by)),
        "authorship": authorship,
        "verified_by": verified_by,
        "verified_name": verified_by.as_deref().and_then(|by| name_of_node(node, by)),
        "parents": parents,
    })
}

/// The hash by which a version is named.
fn hash_of(address: &Address) -> String {
    address.gib().split('.').next().unwrap_or_default().to_lowercase()
}

pub(crate) fn name_of_node(node: &Node, by: &str) -> Option<String> {
    let id = by.parse().ok()?;
    if id == node.id() {
        return Some("this node".to_owned());
    }
    node.known().peer(&id).map(|peer| peer.name)
}

/// What changed between two versions; without the second, between the version before and this one.
pub(crate) fn diff(node: &Node, a: &str, b: Option<&str>) -> Result<Value, Failure> {
    let target = Target::parse(a);
    let line = Line::find(node, &target)?;
    let first = line.version(target.version.as_ref())?;
    let (old, new) = match b {
        Some(b) => {
            let target = Target::parse(b);
            let other = Line::find(node, &target)?;
            (Some(first), other.version(target.version.as_ref())?)
        }
        None => {
            let past = first.frame().and_then(|facts| facts.past.last().cloned());
            let before =
                past.and_then(|address| line.view.by_address(&address).first().and_then(|sid| line.view.record(sid)));
            (before.filter(|before| !is_root(before)), first)
        }
    };
    let (old_text, new_text) =
        (old.as_ref().map_or(Ok(String::new()), |old| text_of(node, &line, old))?, text_of(node, &line, &new)?);
    let label = |frame: &Verified| {
        let name = name_of(frame).map(|(name, _)| name).unwrap_or_default();
        format!("{name}@{}", n_of(frame))
    };
    let old_label = old.as_ref().map_or_else(|| "/dev/null".to_owned(), label);
    let unified =
        TextDiff::from_lines(&old_text, &new_text).unified_diff().header(&old_label, &label(&new)).to_string();
    Ok(json!({
        "schema": "sealtide/diff/1",
        "old": old_label,
        "new": label(&new),
        "equal": old_text == new_text,
        "diff": unified,
    }))
}

/// The text of a version for a diff; a binary is shown as one line that names it.
pub(crate) fn text_of(node: &Node, line: &Line, record: &Verified) -> Result<String, Failure> {
    let Ok(frame) = FileFrame::read(record) else {
        let doc = record.object().and_then(|object| object.get("doc").cloned()).unwrap_or_default();
        return Ok(serde_json::to_string_pretty(&doc).unwrap_or_default() + "\n");
    };
    let named = match &frame.content {
        Content::Bin(address) => address.ib().trim().to_owned(),
        _ => String::new(),
    };
    match content(node, &line.view, &frame) {
        Ok(bytes) => Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| format!("binary, {} bytes, {named}\n", error.as_bytes().len()))),
        Err(_) if !named.is_empty() => Ok(format!("large binary, {named}\n")),
        Err(failure) => Err(failure),
    }
}

/// Makes an old version the newest, or writes it to a directory.
pub(crate) async fn restore(node: &Node, text: String, to: Option<PathBuf>) -> Result<Value, Failure> {
    let find = move |node: &Node| {
        let target = Target::parse(&text);
        let line = Line::find(node, &target)?;
        let wanted = line.version(target.version.as_ref())?;
        if let Ok(frame) = FileFrame::read(&wanted)
            && frame.deleted
        {
            return Err(Failure::usage("deleted", format!("{} is deleted in this version", frame.path))
                .hint("name an earlier version"));
        }
        let Some(dir) = to else { return Ok((line, wanted, None)) };
        let frame = FileFrame::read(&wanted).map_err(|error| Failure::usage("not_a_file", error.to_string()))?;
        let written = write_out(node, &line, &frame, &dir)?;
        Ok((line, wanted, Some((frame.path, written))))
    };
    let (line, wanted, written) = blocking("restore", node, find).await?;
    if let Some((path, written)) = written {
        return Ok(json!({"schema": "sealtide/restore/1", "path": path, "n": n_of(&wanted), "written": written}));
    }
    may_write(node, &line.space)?;
    let tip = &line.tips[0];
    let stamp = Stamp { ms: now().wall_ms };
    let record = match FileFrame::read(&wanted) {
        Ok(mut frame) => {
            frame.by = node.id().to_string();
            frame.evolve(tip, stamp).map_err(|error| Failure::failed("record", error.to_string()))?
        }
        Err(_) => {
            let data = own_members(node, &wanted);
            sealtide_ibgib::evolve(tip, data, sealtide_ibgib::Relations::new(), stamp)
        }
    };
    node.engine().commit_local(line.space, vec![record.clone()]).await.map_err(store_failure)?;
    let share = node.shares().get(&line.space).cloned();
    if let Some(share) = share {
        share.flush().await;
    }
    let path = name_of(&record).map(|(name, _)| name);
    Ok(json!({"schema": "sealtide/restore/1", "path": path, "n": n_of(&wanted), "new_n": n_of(&record)}))
}

/// Writes one version under its own name into a directory outside the space.
fn write_out(node: &Node, line: &Line, frame: &FileFrame, dir: &Path) -> Result<std::path::PathBuf, Failure> {
    use std::io::Write;

    let name = frame.path.rsplit('/').next().unwrap_or(&frame.path);
    std::fs::create_dir_all(dir)?;
    let path = dir.join(name);
    let exists =
        || Failure::usage("exists", format!("{} exists already", path.display())).hint("name another --to DIR");
    if path.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let named = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(),
        _ => Failure::from(error).about(&path),
    };
    // A file is there when it is whole: what is wrong on the way leaves nothing that the next try would meet.
    let write_whole = |write: &mut dyn FnMut(&mut std::fs::File) -> Result<(), Failure>| {
        let (beside, mut file) = Beside::begin(&path, 0o666).map_err(named)?;
        write(&mut file)?;
        file.sync_all().and_then(|()| beside.place()).map_err(named)
    };
    match (&frame.content, frame.kind) {
        (Content::Target(target), _) => std::os::unix::fs::symlink(target, &path)?,
        (_, FileKind::Dir) => std::fs::create_dir(&path)?,
        (Content::Bin(address), _) => {
            // A content that is not whole fails this command; what is wrong with the store is for `verify` to say.
            let failed = |failure: Failure| Failure { exit: Exit::Failed, ..failure };
            let mut content = ContentReader::open(node.store(), &line.view, address).map_err(failed)?;
            write_whole(&mut |file| {
                while let Some(piece) = content.next_piece().map_err(failed)? {
                    file.write_all(&piece).map_err(named)?;
                }
                Ok(())
            })?;
        }
        _ => {
            let bytes = content(node, &line.view, frame)?;
            write_whole(&mut |file| file.write_all(&bytes).map_err(named))?;
        }
    }
    Ok(path)
}
