//! Which timelines want which path: a light index over the file timelines of a space, kept up to date as tips move.
//!
//! A path with one claimant and nothing in its way is placed at once. Only where timelines meet (two on one path, a file
//! where others need a directory) the whole rule of [`Tree::build`] is asked, over the timelines that meet.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{
    Address, FILE_IB, FileFrame, FileKind, Object, Relations, Sid, Stamp, TimelineId, TipView, Tree, Verified,
    try_evolve, winner_order,
};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;

use super::merges::unsettled;

/// What the index keeps of one timeline.
#[derive(Clone, Debug)]
struct Line {
    path: String,
    live: bool,
    kind: FileKind,
    yielded: bool,
    stamp_ms: u64,
    /// Its tips, in ascending order of sid.
    tips: Vec<Sid>,
}

/// What shall stand at a path.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) timeline: TimelineId,
    pub(crate) tip: Verified,
    pub(crate) frame: FileFrame,
}

/// A timeline that stands at an alias because another owns its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathConflict {
    pub(crate) owner: TimelineId,
    pub(crate) other: TimelineId,
    pub(crate) alias: String,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    lines: BTreeMap<TimelineId, Line>,
    live: BTreeMap<String, BTreeSet<TimelineId>>,
    dead: BTreeMap<String, BTreeSet<TimelineId>>,
    /// Timelines whose tips say different things.
    diverged: BTreeSet<TimelineId>,
    /// Timelines whose newest version is a merge with conflicts that nobody has settled.
    merged: BTreeSet<TimelineId>,
    /// Aliases in use: alias → (the path that is wanted, whose).
    aliases: BTreeMap<String, (String, TimelineId)>,
    /// The other way round, with who stands against whom: wanted path → its conflicts.
    conflicts: BTreeMap<String, Vec<PathConflict>>,
}

/// One name in a directory.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    /// Below it, for a directory.
    pub(crate) files: u64,
    /// Who stands there; none for a directory with something in it.
    pub(crate) timeline: Option<TimelineId>,
    pub(crate) conflict: bool,
}

impl Child {
    /// Whether it is a directory with something in it.
    pub(crate) fn is_dir(&self) -> bool {
        self.timeline.is_none()
    }
}

/// The outcome of [`Claims::place`].
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Path → what shall stand there; `None`: nothing.
    pub(crate) paths: BTreeMap<String, Option<Wanted>>,
    /// Timelines to end, by tip: (tip of the loser, first frame of the owner).
    pub(crate) yields: BTreeMap<Sid, (Verified, Address)>,
}

impl Claims {
    /// Reads every timeline of the space. Returns the index; all its paths are to be placed.
    pub(crate) fn read(view: &SpaceHandle) -> Self {
        let mut claims = Self::default();
        for timeline in view.timeline_ids() {
            claims.look(view, timeline, &tips(view, &timeline));
        }
        claims
    }

    /// Looks at a timeline again and returns the paths that this may change: none when its tips are those seen before.
    pub(crate) fn refresh(&mut self, view: &SpaceHandle, timeline: TimelineId) -> BTreeSet<String> {
        let is_seen = self.lines.get(&timeline).is_some_and(|line| line.tips == view.tip_sids(&timeline));
        if is_seen { BTreeSet::new() } else { self.look(view, timeline, &tips(view, &timeline)) }
    }

    /// As [`Claims::refresh`], with the tips at hand, the one that stands for the timeline first.
    pub(crate) fn look(
        &mut self,
        view: &SpaceHandle,
        timeline: TimelineId,
        tips: &[(Verified, FileFrame)],
    ) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        if let Some(old) = self.lines.remove(&timeline) {
            self.set(&old.path, timeline, old.live, false);
            // A directory that was there because of what lay in it may have to stand by itself now.
            touched.extend(self.dirs_above(&old.path));
            touched.insert(old.path);
        }
        self.diverged.remove(&timeline);
        self.merged.remove(&timeline);
        if let Some((tip, frame)) = tips.first() {
            let mut sids: Vec<Sid> = tips.iter().map(|(tip, _)| tip.sid()).collect();
            sids.sort_unstable();
            let line = Line {
                path: frame.path.clone(),
                live: !frame.deleted,
                kind: frame.kind,
                yielded: frame.yielded.is_some(),
                stamp_ms: tip.frame_ref().and_then(|facts| facts.stamp).map_or(0, |stamp| stamp.ms),
                tips: sids,
            };
            if !tips.iter().all(|(_, other)| agree(frame, other)) {
                self.diverged.insert(timeline);
            } else if line.live && unsettled(view, tip).is_some() {
                self.merged.insert(timeline);
            }
            self.set(&line.path, timeline, line.live, true);
            touched.insert(line.path.clone());
            self.lines.insert(timeline, line);
        }
        touched
    }

    fn set(&mut self, path: &str, timeline: TimelineId, live: bool, present: bool) {
        let map = if live { &mut self.live } else { &mut self.dead };
        if present {
            map.entry(path.to_owned()).or_default().insert(timeline);
        } else if let Some(set) = map.get_mut(path) {
            set.remove(&timeline);
            if set.is_empty() {
                map.remove(path);
            }
        }
    }

    /// How many live paths there are.
    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Every live path.
    pub(crate) fn live_paths(&self) -> BTreeSet<String> {
        self.live.keys().cloned().collect()
    }

    /// What stands in a directory (empty: at the top), in no order: names with a file, and directories with how many files
    /// are below them.
    pub(crate) fn children(&self, under: &str) -> Vec<Child> {
        let prefix = if under.is_empty() { String::new() } else { format!("{under}/") };
        let mut dirs: BTreeMap<&str, u64> = BTreeMap::new();
        let mut children = Vec::new();
        let aliases = self.aliases.iter().map(|(alias, (_, timeline))| (alias, Some(*timeline)));
        // Whoever asks holds up the folder: what is elsewhere must cost nothing.
        let aliased: BTreeSet<&TimelineId> = self.aliases.values().map(|(_, timeline)| timeline).collect();
        let below = self.live.range(prefix.clone()..).take_while(|(path, _)| path.starts_with(prefix.as_str()));
        let paths = below.map(|(path, lines)| (path, lines.iter().find(|line| !aliased.contains(line)).copied()));
        for (path, timeline) in paths.chain(aliases) {
            let Some(rest) = path.strip_prefix(prefix.as_str()) else { continue };
            match (rest.split_once('/'), timeline) {
                (Some((dir, _)), _) => *dirs.entry(dir).or_default() += 1,
                (None, Some(line)) => children.push(Child {
                    name: rest.to_owned(),
                    files: 0,
                    timeline: Some(line),
                    conflict: self.diverged.contains(&line)
                        || self.merged.contains(&line)
                        || self.conflicts.contains_key(path),
                }),
                (None, None) => {}
            }
        }
        children.extend(dirs.into_iter().map(|(name, files)| Child {
            name: name.to_owned(),
            files,
            timeline: None,
            conflict: false,
        }));
        children
    }

    /// The timelines with the newest versions, at most `limit`, and those whose tips say different things: their newest is
    /// not known here.
    pub(crate) fn newest(&self, limit: usize) -> Vec<TimelineId> {
        let mut lines: Vec<(u64, TimelineId)> = self.lines.iter().map(|(id, line)| (line.stamp_ms, *id)).collect();
        lines.sort_unstable_by(|left, right| right.cmp(left));
        lines.truncate(limit);
        let mut newest: Vec<TimelineId> = lines.into_iter().map(|(_, id)| id).collect();
        newest.extend(&self.diverged);
        newest.sort_unstable();
        newest.dedup();
        newest
    }

    /// The live timelines at a path.
    pub(crate) fn claimants(&self, path: &str) -> Vec<TimelineId> {
        self.live.get(path).into_iter().flatten().copied().collect()
    }

    /// The timelines that a person means by a path: the one that stands there under an alias, or else all that want
    /// or wanted it.
    pub(crate) fn named(&self, path: &str) -> Vec<TimelineId> {
        if let Some((_, timeline)) = self.aliases.get(path) {
            return vec![*timeline];
        }
        [&self.live, &self.dead].into_iter().filter_map(|map| map.get(path)).flatten().copied().collect()
    }

    /// The ended timeline that held the path last: one that comes back continues it.
    pub(crate) fn last_holder(&self, path: &str) -> Option<TimelineId> {
        let ended = self.dead.get(path)?.iter().filter_map(|id| Some((id, self.lines.get(id)?)));
        ended.filter(|(_, line)| !line.yielded).max_by_key(|(id, line)| (line.stamp_ms, **id)).map(|(id, _)| *id)
    }

    /// Timelines whose tips say different things: (path, timeline).
    pub(crate) fn diverged(&self) -> Vec<(String, TimelineId)> {
        self.diverged.iter().filter_map(|id| Some((self.lines.get(id)?.path.clone(), *id))).collect()
    }

    /// Timelines whose newest version is a merge with conflicts: (path, timeline).
    pub(crate) fn merged(&self) -> Vec<(String, TimelineId)> {
        self.merged.iter().filter_map(|id| Some((self.lines.get(id)?.path.clone(), *id))).collect()
    }

    /// Timelines that stand at an alias, as far as their paths were placed: (wanted path, conflict).
    pub(crate) fn conflicts(&self) -> impl Iterator<Item = (&String, &PathConflict)> {
        self.conflicts.iter().flat_map(|(path, conflicts)| conflicts.iter().map(move |conflict| (path, conflict)))
    }

    /// Decides what shall stand at these paths, and at others that hang together with them.
    pub(crate) fn place<'a>(&mut self, view: &SpaceHandle, paths: impl IntoIterator<Item = &'a String>) -> Placed {
        let mut placed = Placed::default();
        let mut done = BTreeSet::new();
        for path in paths {
            if !done.contains(path) {
                done.extend(self.place_group(view, path, &mut placed));
            }
        }
        placed
    }

    /// Whether what stands at a path of the directory (the timeline, and its frame) is what shall stand there, as far as that
    /// can be told without reading a record.
    pub(crate) fn stands(&self, path: &str, known: Option<(TimelineId, Sid)>) -> bool {
        match (self.alone(path), known) {
            (Some(None), None) => true,
            (Some(Some(only)), Some((timeline, sid))) => only == timeline && self.lines[&only].tips == [sid],
            _ => false,
        }
    }

    /// The one timeline that wants a path, or that none does, where nothing else shares its fate.
    fn alone(&self, path: &str) -> Option<Option<TimelineId>> {
        let set = self.live.get(path);
        let only = match set.map_or(0, BTreeSet::len) {
            0 => None,
            1 => set.and_then(BTreeSet::first).copied(),
            _ => return None,
        };
        let meets = self.conflicts.contains_key(path)
            || self.aliases.contains_key(path)
            || self.group([path.to_owned()]).len() > 1;
        (!meets).then_some(only)
    }

    /// All paths that share the fate of these: themselves, the path wanted by who stands there under an alias, files
    /// above them, and a live path below each that is claimed.
    fn group(&self, paths: impl IntoIterator<Item = String>) -> BTreeSet<String> {
        let mut group = BTreeSet::new();
        let mut open: Vec<String> = paths.into_iter().collect();
        while let Some(path) = open.pop() {
            if group.contains(&path) {
                continue;
            }
            open.extend(self.aliases.get(&path).map(|(wanted, _)| wanted.clone()));
            let mut top = path.as_str();
            while let Some((parent, _)) = top.rsplit_once('/') {
                top = parent;
                if self.live.get(top).is_some_and(|set| set.iter().any(|id| self.lines[id].kind != FileKind::Dir)) {
                    open.push(top.to_owned());
                }
            }
            if self.live.contains_key(&path) {
                // One path below is enough: it shows that `path` is needed as a directory.
                open.extend(self.first_below(&path));
            }
            group.insert(path);
        }
        group
    }

    /// The directories above a path that are claimed as such.
    fn dirs_above(&self, path: &str) -> Vec<String> {
        let is_dir = |set: &BTreeSet<TimelineId>| {
            set.iter().any(|id| self.lines.get(id).is_some_and(|line| line.kind == FileKind::Dir))
        };
        let above = std::iter::successors(path.rsplit_once('/'), |(parent, _)| parent.rsplit_once('/'));
        above.filter(|(parent, _)| self.live.get(*parent).is_some_and(is_dir)).map(|(dir, _)| dir.to_owned()).collect()
    }

    fn first_below(&self, path: &str) -> Option<String> {
        let below = format!("{path}/");
        self.live
            .range(below.clone()..)
            .next()
            .map(|(first, _)| first)
            .filter(|first| first.starts_with(&below))
            .cloned()
    }

    /// Places one group; returns its paths and the aliases given out.
    fn place_group(&mut self, view: &SpaceHandle, path: &str, placed: &mut Placed) -> BTreeSet<String> {
        if let Some(only) = self.alone(path) {
            let wanted = only.and_then(|timeline| {
                let (tip, frame) = tips(view, &timeline).into_iter().next()?;
                (!frame.deleted && frame.path == path).then_some(Wanted { timeline, tip, frame })
            });
            placed.paths.insert(path.to_owned(), wanted);
            return BTreeSet::from([path.to_owned()]);
        }
        let mut group = self.group([path.to_owned()]);
        let tree = loop {
            let ids: BTreeSet<TimelineId> = group.iter().flat_map(|path| self.claimants(path)).collect();
            let tree = Tree::build(ids.iter().filter_map(|id| tip_view(view, *id)));
            // An alias that somebody else wants, needs as a directory or has: those are looked at together.
            let clashes: Vec<String> = tree.path_conflicts.iter().flat_map(|(.., alias)| self.met_by(alias)).collect();
            let before = group.len();
            group.extend(self.group(clashes));
            if group.len() == before {
                break tree;
            }
        };
        for path in &group {
            for conflict in self.conflicts.remove(path).unwrap_or_default() {
                self.aliases.remove(&conflict.alias);
                placed.paths.insert(conflict.alias, None);
            }
            placed.paths.insert(path.clone(), None);
        }
        for (wanted, owner, other, alias) in tree.path_conflicts {
            group.insert(alias.clone());
            self.aliases.insert(alias.clone(), (wanted.clone(), other));
            self.conflicts.entry(wanted).or_default().push(PathConflict { owner, other, alias });
        }
        for (path, placement) in tree.placements {
            let wanted = Wanted { timeline: placement.timeline, tip: placement.tip, frame: placement.frame };
            placed.paths.insert(path, Some(wanted));
        }
        placed.yields.extend(tree.yields.into_iter().map(|end| (end.0.sid(), end)));
        group
    }

    /// The paths of others that an alias meets.
    fn met_by(&self, alias: &str) -> Vec<String> {
        let wanted = self.live.contains_key(alias).then(|| alias.to_owned());
        let given = self.aliases.get(alias).map(|(wanted, _)| wanted.clone());
        wanted.into_iter().chain(self.first_below(alias)).chain(given).collect()
    }
}

/// What stands at each path of a space, by path.
pub(crate) fn live_files(view: &SpaceHandle) -> Vec<(String, FileFrame)> {
    let mut claims = Claims::read(view);
    let paths = claims.live_paths();
    let placed = claims.place(view, &paths).paths;
    placed.into_iter().filter_map(|(path, wanted)| Some((path, wanted?.frame))).collect()
}

/// Whether two tips of one timeline say the same of the directory.
pub(crate) fn agree(left: &FileFrame, right: &FileFrame) -> bool {
    left.deleted == right.deleted && (left.deleted || left.path == right.path && left.same_content(right))
}

/// The tips of a file timeline, the one that stands for it first; empty when it holds no files.
pub(crate) fn tips(view: &SpaceHandle, timeline: &TimelineId) -> Vec<(Verified, FileFrame)> {
    let tips = tip_records(view, timeline).into_iter().filter(|tip| tip.address().ib() == FILE_IB);
    tips.filter_map(|tip| FileFrame::read(&tip).ok().map(|frame| (tip, frame))).collect()
}

/// The tips of any timeline, the one that stands for it first: the winner of ibgib §16, but the deletion of a file
/// only when every tip is one. Of a deletion and an edit, the edit stays.
pub(crate) fn tip_records(view: &SpaceHandle, timeline: &TimelineId) -> Vec<Verified> {
    let tips = view.tip_records(timeline).into_iter();
    let mut tips: Vec<_> = tips.filter_map(|tip| tip.frame().map(|facts| (tip, facts))).collect();
    tips.sort_by(|(left, left_facts), (right, right_facts)| {
        winner_order((right.address(), right_facts), (left.address(), left_facts))
    });
    if tips.len() > 1 {
        tips.sort_by_cached_key(|(tip, _)| FileFrame::read(tip).is_ok_and(|frame| frame.deleted));
    }
    tips.into_iter().map(|(tip, _)| tip).collect()
}

/// The next frame after a timeline's tips `behind` (one at least): the one with the greatest counter is its past, the
/// others count as its ancestors too.
pub(crate) fn next_frame(behind: &[Verified], frame: &FileFrame, stamp: Stamp) -> Result<Verified, String> {
    let (data, relations) = frame.parts().map_err(|error| error.to_string())?;
    join_tips(behind, data, relations, stamp)
}

/// As [`next_frame`], for a timeline of any kind.
pub(crate) fn join_tips(
    behind: &[Verified],
    data: Object,
    mut relations: Relations,
    stamp: Stamp,
) -> Result<Verified, String> {
    let counter = |tip: &Verified| tip.frame().map(|facts| facts.n);
    // The first of those with the greatest counter: `max_by_key` would take the last.
    let past = behind.iter().rev().max_by_key(|tip| counter(tip)).ok_or("no frame to go on from")?;
    let orphans: Vec<Address> =
        behind.iter().filter(|tip| tip.sid() != past.sid()).map(|tip| tip.address().clone()).collect();
    if !orphans.is_empty() {
        relations.insert("graftorphan".to_owned(), orphans);
    }
    try_evolve(past, data, relations, stamp).map_err(|error| error.to_string())
}

/// What [`Tree::build`] needs of a timeline.
pub(crate) fn tip_view(view: &SpaceHandle, timeline: TimelineId) -> Option<TipView> {
    let mut tips = tips(view, &timeline);
    let facts = tips.first()?.0.frame()?;
    if !tips[0].1.deleted {
        tips.retain(|(_, frame)| !frame.deleted);
    }
    let first = view.by_address(&facts.tjp).first().and_then(|sid| view.record(sid))?;
    let first_ms = first.frame().and_then(|facts| facts.stamp).map_or(0, |stamp| stamp.ms);
    Some(TipView { timeline, first: facts.tjp, first_ms, tips })
}
