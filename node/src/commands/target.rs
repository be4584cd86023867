//! What a person types to name a thing: `SPACE[:PATH|NAME][@VERSION]`.

use sealtide_ibgib::{Address, FILE_IB, FileFrame, Object, Sid, TimelineId, Verified};
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

    /// All versions, the newest first: by n, then by address. One is read when it is asked for: a history may be larger than the memory.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Verified> {
        let last = self.tips.iter().map(n_of).max().unwrap_or(0);
        versions_of(&self.view, self.timeline, last)
    }

    /// The frame of a version; without one the winner of the tips.
    ///
    /// # Errors
    /// Exit 2 when no frame fits, or several do.
    pub(crate) fn version(&self, version: Option<&Version>) -> Result<Verified, Failure> {
        let Some(version) = version else { return Ok(self.tips[0].clone()) };
        let fits = |frame: &Verified| match version {
            Version::Counter(n) => n_of(frame) == *n,
            Version::Hash(hash) => frame.address().gib().starts_with(hash.as_str()),
            Version::Before(ms) => stamp_of(frame) <= *ms,
        };
        let fitting: Vec<Verified> = match version {
            Version::Counter(n) => at(&self.view, &self.timeline, *n).filter(fits).take(2).collect(),
            Version::Hash(_) => self.versions().filter(fits).take(2).collect(),
            Version::Before(_) => self.versions().find(fits).into_iter().collect(),
        };
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

/// Counters whose versions are listed at first.
const LISTED_FIRST: u64 = if cfg!(test) { 2 } else { 64 };

/// The versions of a timeline up to a counter, the newest first; one is read when it is asked for, and what is held of the others is which they
/// are. Counters may be left out: a saga of a part of a space brings frames without those before them.
pub(crate) fn versions_of(view: &SpaceHandle, timeline: TimelineId, last: u64) -> impl Iterator<Item = Verified> {
    // They are listed in stretches that get longer: whoever wants some of a million does not wait for the list of all.
    let (mut sids, mut above, mut stretch) = (Vec::new(), last.saturating_add(1), LISTED_FIRST);
    let listed = view.clone();
    let mut older = move || loop {
        if let Some(sid) = sids.pop() {
            return Some(sid);
        }
        let to = above.checked_sub(1)?;
        above = above.saturating_sub(stretch);
        stretch = stretch.saturating_mul(2);
        sids = listed.frames(&timeline, above, to, usize::MAX);
    };
    let view = view.clone();
    let mut ahead: Option<Verified> = None;
    let mut same: Vec<(Address, Sid)> = Vec::new();
    std::iter::from_fn(move || {
        let mut next = || std::iter::from_fn(|| Some(view.record(&older()?))).flatten().next();
        if same.is_empty() {
            // All with the next counter, by address: nearly always one, which is not read twice.
            let first = ahead.take().or_else(&mut next)?;
            ahead = next();
            if ahead.as_ref().is_none_or(|frame| n_of(frame) != n_of(&first)) {
                return Some(first);
            }
            same.push((first.address().clone(), first.sid()));
            while let Some(frame) = ahead.take_if(|frame| n_of(frame) == n_of(&first)) {
                same.push((frame.address().clone(), frame.sid()));
                ahead = next();
            }
            same.sort_unstable();
        }
        std::iter::from_fn(|| Some(view.record(&same.pop()?.1))).flatten().next()
    })
    .filter(|frame| !is_root(frame))
}

/// The versions with one counter, by address downwards.
fn at(view: &SpaceHandle, timeline: &TimelineId, n: u64) -> impl Iterator<Item = Verified> + use<> {
    let mut frames: Vec<Verified> =
        view.frames(timeline, n, n, usize::MAX).iter().filter_map(|sid| view.record(sid)).collect();
    frames.sort_by(|one, other| other.address().cmp(one.address()));
    frames.into_iter().filter(|frame| !is_root(frame))
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
    use sealtide_ibgib::{Relations, Stamp, evolve};

    use super::*;
    use crate::commands::{documents, history, spaces};

    /// A history may be larger than the memory.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_version_is_read_when_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        spaces::create(&node, "Data").await.unwrap();
        for number in 1..=5 {
            documents::put(&node, "Data", "plan", json!({"number": number}), None).await.unwrap();
        }
        let line = || Line::find(&node, &Target::parse("Data:plan")).unwrap();
        // Two versions with the greatest counter.
        let tip = line().tips[0].clone();
        for number in [6, 7] {
            let mut data = own_members(&node, &tip);
            data.insert("doc".to_owned(), json!({"number": number}));
            let other = evolve(&tip, data, Relations::new(), Stamp { ms: stamp_of(&tip) + number });
            node.engine().commit_local(line().space, vec![other]).await.unwrap();
        }
        let line = line();
        let all: Vec<Verified> = line.versions().collect();
        assert_eq!(all.iter().map(n_of).collect::<Vec<_>>(), [6, 6, 5, 4, 3, 2, 1]);
        assert!(all[0].address() > all[1].address());
        let found = |text: &str| line.version(Some(&parse_version(text).unwrap())).map_err(|failure| failure.code);
        assert_eq!(found("3").unwrap().sid(), all[4].sid());
        assert_eq!(found(&all[4].address().gib()[..12]).unwrap().sid(), all[4].sid());
        assert_eq!(found("2999-01-01T00:00:00Z").unwrap().sid(), all[0].sid());
        for (text, code) in
            [("6", "many_versions"), ("7", "no_version"), ("0", "no_version"), ("00000000", "no_version")]
        {
            assert_eq!(found(text).unwrap_err(), code, "{text}");
        }
        assert_eq!(found("2000-01-01T00:00:00Z").unwrap_err(), "no_version");
        for target in [Some("Data:plan"), Some("Data"), None] {
            let told = history::log(&node, target, 4).unwrap();
            let told: Vec<u64> =
                told["entries"].as_array().unwrap().iter().map(|it| it["n"].as_u64().unwrap()).collect();
            assert_eq!(told, [6, 6, 5, 4], "{target:?}");
        }
        let mut versions = line.versions();
        assert!(versions.next().is_some());
        // What was not asked for yet is not there any more.
        node.store().remove_space(&line.space).unwrap();
        assert!(versions.next().is_none());
        node.shutdown().await;
    }

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
