//! What a person types to name a thing: `SPACE[:PATH|NAME][@VERSION]`.

use sealtide_ibgib::{FILE_IB, FileFrame, Object, Sid, TimelineId, Verified};
use sealtide_identity::SpaceId;
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::commands::documents::is_root;
use crate::failure::Failure;
use crate::node::Node;
use crate::share::tip_records;

/// The ib of a document.
pub(crate) const DOC_IB: &str = "doc";

/// Which frame of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// `@N`: the frame counter.
    Counter(u64),
    /// `@` and at least 8 hex digits of the frame's hash.
    Hash(String),
    /// `@` and an RFC 3339 time: the newest frame not after it.
    Before(u64),
}

/// A parsed target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) space: String,
    pub(crate) path: Option<String>,
    pub(crate) version: Option<Version>,
}

impl Target {
    /// The first `:` ends the space; the last `@` that is followed by a version begins it.
    pub(crate) fn parse(text: &str) -> Self {
        let (space, rest) = match text.split_once(':') {
            Some((space, rest)) => (space.to_owned(), Some(rest)),
            None => (text.to_owned(), None),
        };
        let Some(rest) = rest else {
            // `SPACE@VERSION` names a version of the whole space, which only `log` could take; keep it in the name.
            return Self { space, path: None, version: None };
        };
        let (path, version) = match rest.rsplit_once('@').and_then(|(path, text)| Some((path, parse_version(text)?))) {
            Some((path, version)) => (path, Some(version)),
            None => (rest, None),
        };
        let path = path.trim_start_matches("./").trim_end_matches('/');
        Self { space, path: (!path.is_empty()).then(|| path.to_owned()), version }
    }
}

/// A version as typed after `@`; `None` when it is none.
pub(crate) fn parse_version(text: &str) -> Option<Version> {
    // Eight or more digits could be a counter too; no timeline has that many frames with that few bytes of hash.
    if text.len() < 8 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Version::Counter);
    }
    if text.len() >= 8 && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some(Version::Hash(text.to_ascii_uppercase()));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok().map(Version::Before)
}

/// A timeline that a target names, with its tips, the winner first.
pub(crate) struct Line {
    pub(crate) space: SpaceId,
    pub(crate) view: SpaceHandle,
    pub(crate) timeline: TimelineId,
    pub(crate) tips: Vec<Verified>,
}

impl Line {
    /// Finds the timeline of a file path or document name. Of several the live one, then the newest.
    ///
    /// # Errors
    /// Exit 2 when nothing has that name.
    pub(crate) fn find(node: &Node, target: &Target) -> Result<Self, Failure> {
        Self::find_of(node, target, None)
    }

    /// As [`Line::find`], among timelines of one ib.
    ///
    /// # Errors
    /// As [`Line::find`].
    pub(crate) fn find_of(node: &Node, target: &Target, ib: Option<&str>) -> Result<Self, Failure> {
        let space = node.find_space(&target.space)?;
        let wanted = target.path.as_deref().ok_or_else(|| {
            Failure::usage("no_path", format!("{} names no file or document", target.space))
                .hint("write SPACE:PATH, as in Notes:plan.md")
        })?;
        let view = node.store().view(&space).ok_or_else(|| Failure::failed("no_space", "the space is gone"))?;
        // An open folder knows who stands at a path, under an alias too; without it every tip is read.
        let share = node.shares().get(&space).cloned();
        let placed = share.and_then(|share| share.timelines_at(wanted)).unwrap_or_default();
        let mut timelines = if placed.is_empty() {
            view.timelines()
        } else {
            let files = placed.iter().filter_map(|timeline| view.timeline(*timeline));
            files.chain(view.timelines_of(DOC_IB)).collect()
        };
        timelines.retain(|info| info.tips.iter().any(|tip| ib.is_none_or(|ib| tip.tip.ib() == ib)));
        let mut best: Option<(bool, u64, TimelineId, Vec<Verified>)> = None;
        for timeline in timelines.into_iter().map(|info| info.timeline) {
            let tips = tip_records(&view, &timeline);
            let Some(tip) = tips.first() else { continue };
            let Some((name, live)) = name_of(tip) else { continue };
            if name != wanted && !placed.contains(&timeline) {
                continue;
            }
            let stamp = stamp_of(tip);
            if best.as_ref().is_none_or(|(was_live, was, ..)| (*was_live, *was) < (live, stamp)) {
                best = Some((live, stamp, timeline, tips));
            }
        }
        let (_, _, timeline, tips) = best.ok_or_else(|| {
            Failure::usage("not_found", format!("{} holds nothing named {wanted}", target.space))
                .hint(format!("`sealtide get {}` lists what there is", target.space))
        })?;
        Ok(Self { space, view, timeline, tips })
    }

    /// All frames, the newest first: by n, then by address.
    pub(crate) fn frames(&self) -> Vec<Verified> {
        let last = self.tips.iter().filter_map(|tip| tip.frame()).map(|facts| facts.n).max().unwrap_or(0);
        let sids: Vec<Sid> = self.view.frames(&self.timeline, 0, last, usize::MAX);
        let mut frames: Vec<Verified> = sids.iter().filter_map(|sid| self.view.record(sid)).collect();
        frames.retain(|frame| !is_root(frame));
        frames.sort_by_key(|frame| std::cmp::Reverse((n_of(frame), frame.address().clone())));
        frames
    }

    /// The frame of a version; without one the winner of the tips.
    ///
    /// # Errors
    /// Exit 2 when no frame fits, or several do.
    pub(crate) fn version(&self, version: Option<&Version>) -> Result<Verified, Failure> {
        let Some(version) = version else { return Ok(self.tips[0].clone()) };
        let mut fitting: Vec<Verified> = self.frames();
        match version {
            Version::Counter(n) => fitting.retain(|frame| n_of(frame) == *n),
            Version::Hash(hash) => fitting.retain(|frame| frame.address().gib().starts_with(hash.as_str())),
            Version::Before(ms) => {
                fitting.retain(|frame| stamp_of(frame) <= *ms);
                fitting.truncate(1);
            }
        }
        match fitting.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                Err(Failure::usage("no_version", "there is no such version").hint("`sealtide log` lists the versions"))
            }
            _ => Err(Failure::usage("many_versions", "several versions fit; name one by its hash")
                .hint("`sealtide log` shows the hashes")),
        }
    }
}

/// The path of a file frame or the name of a document, and whether it is live.
pub(crate) fn name_of(record: &Verified) -> Option<(String, bool)> {
    match record.address().ib() {
        FILE_IB => FileFrame::read(record).ok().map(|frame| (frame.path, !frame.deleted)),
        DOC_IB => {
            let object = record.object()?;
            Some((object.get("name")?.as_str()?.to_owned(), true))
        }
        _ => None,
    }
}

/// The members of a document for its next frame, by this node.
pub(crate) fn own_members(node: &Node, record: &Verified) -> Object {
    let mut data = record.object().unwrap_or_default();
    for reserved in ["isTjp", "n", "uuid", "timestamp", "timestampMs", "graft"] {
        data.remove(reserved);
    }
    data.insert("by".to_owned(), json!(node.id().to_string()));
    data
}

/// The node that a file or document says made it.
pub(crate) fn by_of(frame: &Verified) -> Option<String> {
    let of_document = || frame.object()?.get("by")?.as_str().map(str::to_owned);
    FileFrame::read(frame).map_or_else(|_| of_document(), |file| Some(file.by))
}

pub(crate) fn n_of(frame: &Verified) -> u64 {
    frame.frame().map_or(0, |facts| facts.n)
}

pub(crate) fn stamp_of(frame: &Verified) -> u64 {
    frame.frame().and_then(|facts| facts.stamp).map_or(0, |stamp| stamp.ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, space: &str, path: Option<&str>, version: Option<Version>) {
        let expected = Target { space: space.to_owned(), path: path.map(str::to_owned), version };
        assert_eq!(Target::parse(text), expected, "{text}");
    }

    #[test]
    fn targets() {
        check("Notes", "Notes", None, None);
        check("Notes:plan.md", "Notes", Some("plan.md"), None);
        check("Notes:a:b", "Notes", Some("a:b"), None);
        check("Notes:plan.md@3", "Notes", Some("plan.md"), Some(Version::Counter(3)));
        check("Notes:me@home", "Notes", Some("me@home"), None);
        check("Notes:me@home@0", "Notes", Some("me@home"), Some(Version::Counter(0)));
        check("Notes:p@abcdef01", "Notes", Some("p"), Some(Version::Hash("ABCDEF01".to_owned())));
        check("Notes:p@abcdef0", "Notes", Some("p@abcdef0"), None);
        check("Notes:p@2026-11-20T00:00:00Z", "Notes", Some("p"), Some(Version::Before(1_795_132_800_000)));
        check("Notes:dir/", "Notes", Some("dir"), None);
    }
}
