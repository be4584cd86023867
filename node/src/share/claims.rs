//! Which timelines want which path: a light index over the file timelines of a space, kept up to date as tips move.
//!
//! A path with one claimant and nothing in its way is placed at once. Only where timelines meet (two on one path, a file
//! where others need a directory) the whole rule of [`Tree::build`] is asked, over the timelines that meet.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_ibgib::{Address, FILE_IB, FileFrame, FileKind, TimelineId, TipView, Tree, Verified, winner_order};
use sealtide_store::SpaceHandle;
use sealtide_sync::SpaceView;

/// What the index keeps of one timeline.
#[derive(Clone, Debug)]
struct Line {
    path: String,
    live: bool,
    kind: FileKind,
    yielded: bool,
    diverged: bool,
    stamp_ms: u64,
}

/// What shall stand at a path.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) timeline: TimelineId,
    pub(crate) tip: Verified,
    pub(crate) frame: FileFrame,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    lines: BTreeMap<TimelineId, Line>,
    live: BTreeMap<String, BTreeSet<TimelineId>>,
    dead: BTreeMap<String, BTreeSet<TimelineId>>,
    /// Aliases in use: wanted path → alias paths, so that they are looked at again with it.
    aliases: BTreeMap<String, BTreeSet<String>>,
}

/// The outcome of [`Claims::place`].
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Path → what shall stand there; `None`: nothing.
    pub(crate) paths: BTreeMap<String, Option<Wanted>>,
    /// Timelines to end: (tip of the loser, first frame of the owner).
    pub(crate) yields: Vec<(Verified, Address)>,
    /// (path, owner, other, alias of the other).
    pub(crate) conflicts: Vec<(String, TimelineId, TimelineId, String)>,
}

impl Claims {
    /// Reads every timeline of the space. Returns the index; all its paths are to be placed.
    pub(crate) fn read(view: &SpaceHandle) -> Self {
        let mut claims = Self::default();
        for info in view.timelines() {
            claims.refresh(view, info.timeline);
        }
        claims
    }

    /// Looks at a timeline again and returns the paths that this may change.
    pub(crate) fn refresh(&mut self, view: &SpaceHandle, timeline: TimelineId) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        if let Some(old) = self.lines.remove(&timeline) {
            self.set(&old.path, timeline, old.live, false);
            touched.insert(old.path);
        }
        if let Some(line) = read_line(view, timeline) {
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

    /// The live timelines at a path.
    pub(crate) fn claimants(&self, path: &str) -> Vec<TimelineId> {
        self.live.get(path).into_iter().flatten().copied().collect()
    }

    /// The ended timeline that held the path last: one that comes back continues it.
    pub(crate) fn last_holder(&self, path: &str) -> Option<TimelineId> {
        let ended = self.dead.get(path)?.iter().filter_map(|id| Some((id, self.lines.get(id)?)));
        ended.filter(|(_, line)| !line.yielded).max_by_key(|(id, line)| (line.stamp_ms, **id)).map(|(id, _)| *id)
    }

    /// Timelines with more than one tip: (path, timeline).
    pub(crate) fn diverged(&self) -> Vec<(String, TimelineId)> {
        let diverged = self.lines.iter().filter(|(_, line)| line.diverged);
        diverged.map(|(id, line)| (line.path.clone(), *id)).collect()
    }

    /// Decides what shall stand at these paths, and at others that hang together with them.
    pub(crate) fn place(&mut self, view: &SpaceHandle, paths: &BTreeSet<String>) -> Placed {
        let mut placed = Placed::default();
        let mut done = BTreeSet::new();
        for path in paths {
            if done.contains(path) {
                continue;
            }
            let group = self.group(path);
            done.extend(group.iter().cloned());
            self.place_group(view, &group, &mut placed);
        }
        placed
    }

    /// All paths that share the fate of this one: itself, files above it, live paths below it when it is claimed.
    fn group(&self, path: &str) -> BTreeSet<String> {
        let mut group = BTreeSet::from([path.to_owned()]);
        let mut top = path;
        while let Some((parent, _)) = top.rsplit_once('/') {
            top = parent;
            if self.live.get(top).is_some_and(|set| set.iter().any(|id| self.lines[id].kind != FileKind::Dir)) {
                group.insert(top.to_owned());
            }
        }
        for root in group.clone() {
            let blocks = self.live.contains_key(&root);
            let below = format!("{root}/");
            if blocks
                && let Some((first, _)) = self.live.range(below.clone()..).next()
                && first.starts_with(&below)
            {
                // One path below is enough: it shows that `root` is needed as a directory.
                group.insert(first.clone());
            }
        }
        group
    }

    fn place_group(&mut self, view: &SpaceHandle, group: &BTreeSet<String>, placed: &mut Placed) {
        let mut ids = BTreeSet::new();
        for path in group {
            ids.extend(self.claimants(path));
            for alias in self.aliases.remove(path).unwrap_or_default() {
                placed.paths.entry(alias).or_insert(None);
            }
            placed.paths.insert(path.clone(), None);
        }
        if ids.is_empty() {
            return;
        }
        let tree = Tree::build(ids.iter().filter_map(|id| tip_view(view, *id)));
        for (path, placement) in tree.placements {
            if let Some(wanted) = placement.alias_of {
                self.aliases.entry(wanted).or_default().insert(path.clone());
            }
            let wanted = Wanted { timeline: placement.timeline, tip: placement.tip, frame: placement.frame };
            placed.paths.insert(path, Some(wanted));
        }
        placed.yields.extend(tree.yields);
        placed.conflicts.extend(tree.path_conflicts);
    }

    /// Every path that more than one live timeline claims, and files that stand in the way of directories.
    pub(crate) fn contested(&self) -> BTreeSet<String> {
        self.live.iter().filter(|(_, set)| set.len() > 1).map(|(path, _)| path.clone()).collect()
    }
}

fn read_line(view: &SpaceHandle, timeline: TimelineId) -> Option<Line> {
    let tips = tips(view, &timeline);
    let (tip, frame) = tips.first()?;
    Some(Line {
        path: frame.path.clone(),
        live: !frame.deleted,
        kind: frame.kind,
        yielded: frame.yielded.is_some(),
        diverged: tips.len() > 1,
        stamp_ms: tip.frame().and_then(|facts| facts.stamp).map_or(0, |stamp| stamp.ms),
    })
}

/// The tips of a file timeline, the winner first; empty when it holds no files.
pub(crate) fn tips(view: &SpaceHandle, timeline: &TimelineId) -> Vec<(Verified, FileFrame)> {
    let tips = tip_records(view, timeline).into_iter().filter(|tip| tip.address().ib() == FILE_IB);
    tips.filter_map(|tip| FileFrame::read(&tip).ok().map(|frame| (tip, frame))).collect()
}

/// The tips of any timeline, the winner first.
pub(crate) fn tip_records(view: &SpaceHandle, timeline: &TimelineId) -> Vec<Verified> {
    let mut tips: Vec<_> = view
        .tips(timeline)
        .iter()
        .filter_map(|tip| view.record(&tip.sid))
        .filter_map(|tip| tip.frame().map(|facts| (tip, facts)))
        .collect();
    tips.sort_by(|(left, left_facts), (right, right_facts)| {
        winner_order((right.address(), right_facts), (left.address(), left_facts))
    });
    tips.into_iter().map(|(tip, _)| tip).collect()
}

/// What [`Tree::build`] needs of a timeline.
pub(crate) fn tip_view(view: &SpaceHandle, timeline: TimelineId) -> Option<TipView> {
    let tips = tips(view, &timeline);
    let facts = tips.first()?.0.frame()?;
    let first = view.by_address(&facts.tjp).first().and_then(|sid| view.record(sid))?;
    let first_ms = first.frame().and_then(|facts| facts.stamp).map_or(0, |stamp| stamp.ms);
    Some(TipView { timeline, first: facts.tjp, first_ms, tips })
}
