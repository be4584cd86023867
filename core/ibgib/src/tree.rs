//! Which timeline owns which path: the tips of a space seen as a directory tree.
//! Pure, so that every node computes the same owners, aliases and yields. Spec: folders §5, ibgib §12.7.

use std::collections::BTreeMap;

use crate::file::NAME_BYTES_MAX;
use crate::latest::winner_order;
use crate::{Address, FileFrame, FileKind, Stamp, TimelineId, Verified};

/// One timeline of ib `file`, as input to [`Tree::build`].
#[derive(Clone, Debug)]
pub struct TipView {
    /// The timeline.
    pub timeline: TimelineId,
    /// The address of its first frame.
    pub first: Address,
    /// The stamp of its first frame, ms since 1970: decides who owns a path.
    pub first_ms: u64,
    /// The tips: one, or several while diverged, in any order.
    pub tips: Vec<(Verified, FileFrame)>,
}

/// What stands at one path of the directory.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The timeline whose tip stands here.
    pub timeline: TimelineId,
    /// That tip.
    pub tip: Verified,
    /// Its content.
    pub frame: FileFrame,
    /// The path the timeline wanted, when this placement is an alias.
    pub alias_of: Option<String>,
}

/// A space seen as a directory tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Path in the directory → what stands there. Live paths only. No placement lies below another one: a file where
    /// others have a directory stands at an alias, and a `dir` that is not empty any more is left out.
    pub placements: BTreeMap<String, Placement>,
    /// Timelines to end because another one owns their path with equal content: (tip of the loser, owner's first frame).
    pub yields: Vec<(Verified, Address)>,
    /// Timelines that share a path with different content: (path, owner, the other, alias of the other). For a file
    /// where others have a directory, the owner is the timeline of the first live path below.
    pub path_conflicts: Vec<(String, TimelineId, TimelineId, String)>,
    /// Timelines with more than one tip: (path of the winner, timeline).
    pub diverged: Vec<(String, TimelineId)>,
}

impl Tree {
    /// Places every live timeline. Of several on one path the owner is the one whose first frame has the smaller
    /// (time in ms, gib); one with equal content yields, one with different content stands at
    /// `stem (<8 characters of its author's node id> <yyyy-mm-dd of its tip>).ext`, counted up (` 2`, ` 3`) when taken.
    ///
    /// The result does not depend on the order of `timelines` nor on that of their tips. A diverged timeline is
    /// placed by its winner W and never yields: its other tips would be lost from sight.
    pub fn build(timelines: impl IntoIterator<Item = TipView>) -> Self {
        let mut tree = Self::default();
        let mut wanted: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for claim in timelines.into_iter().filter_map(Claim::of) {
            if claim.diverged {
                tree.diverged.push((claim.frame.path.clone(), claim.timeline));
            }
            if !claim.frame.deleted {
                wanted.entry(claim.frame.path.clone()).or_default().push(claim);
            }
        }
        tree.diverged.sort();
        wanted.values_mut().for_each(|claims| claims.sort_by(|left, right| left.rank().cmp(&right.rank())));

        // Owners first: every wanted path is taken before the first alias is given out.
        let paths: BTreeMap<String, TimelineId> =
            wanted.iter().map(|(path, claims)| (path.clone(), claims[0].timeline)).collect();
        let mut aliased: Vec<(Claim, TimelineId)> = Vec::new();
        for (path, claims) in wanted {
            let below = first_below(&paths, &path).map(|(_, timeline)| *timeline);
            tree.settle_path(path, claims, below, &mut aliased);
        }
        let mut counts = BTreeMap::new();
        for (claim, owner) in aliased {
            let alias = tree.free_alias(&claim, &paths, &mut counts);
            tree.path_conflicts.push((claim.frame.path.clone(), owner, claim.timeline, alias.clone()));
            let wanted = claim.frame.path.clone();
            tree.placements.insert(alias, claim.placed(Some(wanted)));
        }
        tree
    }

    /// Settles the claims on one path, the owner's first. `below` is the owner of a live path below this one.
    fn settle_path(
        &mut self,
        path: String,
        claims: Vec<Claim>,
        below: Option<TimelineId>,
        aliased: &mut Vec<(Claim, TimelineId)>,
    ) {
        let mut claims = claims.into_iter();
        let Some(owner) = claims.next() else { return };
        for other in claims {
            if other.frame.same_content(&owner.frame) {
                if !other.diverged {
                    self.yields.push((other.tip, owner.first.clone()));
                }
            } else if below.is_none() || other.frame.kind != FileKind::Dir {
                aliased.push((other, below.unwrap_or(owner.timeline)));
            }
        }
        match below {
            None => {
                self.placements.insert(path, owner.placed(None));
            }
            // It says that the directory is there, and it is.
            Some(_) if owner.frame.kind == FileKind::Dir => {}
            Some(below) => aliased.push((owner, below)),
        }
    }

    /// The first alias for `claim` that nobody wants, nobody has and nobody needs as a directory. `counts` holds for
    /// each alias without a number the number it has come to, so that many claims on one path stay cheap.
    fn free_alias(
        &self,
        claim: &Claim,
        paths: &BTreeMap<String, TimelineId>,
        counts: &mut BTreeMap<String, u32>,
    ) -> String {
        let count = counts.entry(claim.alias(1)).or_default();
        loop {
            *count += 1;
            let alias = claim.alias(*count);
            let taken = paths.contains_key(&alias)
                || self.placements.contains_key(&alias)
                || first_below(paths, &alias).is_some();
            if !taken {
                return alias;
            }
        }
    }
}

/// Of the timelines that want one path the one with the smallest owns it: by the stamp of its first frame, ms since 1970, and the gib of
/// its address. The timeline comes last only to make the order total.
pub fn path_rank(first_ms: u64, first: &Address, timeline: TimelineId) -> (u64, &str, TimelineId) {
    (first_ms, first.gib(), timeline)
}

/// One timeline by its winner.
struct Claim {
    timeline: TimelineId,
    first: Address,
    first_ms: u64,
    tip: Verified,
    frame: FileFrame,
    stamp: Option<Stamp>,
    diverged: bool,
}

impl Claim {
    fn of(view: TipView) -> Option<Self> {
        let TipView { timeline, first, first_ms, tips } = view;
        let diverged = tips.len() > 1;
        let facts = tips.into_iter().filter_map(|(tip, frame)| tip.frame().map(|facts| (tip, frame, facts)));
        let (tip, frame, facts) = facts.max_by(|(left, _, left_facts), (right, _, right_facts)| {
            winner_order((left.address(), left_facts), (right.address(), right_facts))
        })?;
        Some(Self { timeline, first, first_ms, tip, frame, stamp: facts.stamp, diverged })
    }

    fn rank(&self) -> (u64, &str, TimelineId) {
        path_rank(self.first_ms, &self.first, self.timeline)
    }

    fn placed(self, alias_of: Option<String>) -> Placement {
        Placement { timeline: self.timeline, tip: self.tip, frame: self.frame, alias_of }
    }

    /// The `count`-th alias, from 1. A stem too long for one name is cut at the end.
    fn alias(&self, count: u32) -> String {
        let (directory, name) = match self.frame.path.rsplit_once('/') {
            Some((directory, name)) => (format!("{directory}/"), name),
            None => (String::new(), self.frame.path.as_str()),
        };
        let author = self.frame.by.chars().filter(char::is_ascii_alphanumeric).skip("stn1".len()).take(8);
        let author: String = author.collect();
        let date = self.stamp.unwrap_or(Stamp { ms: 0 }).date();
        let mut mark = format!(" ({author} {date})");
        if count > 1 {
            mark.push_str(&format!(" {count}"));
        }
        let (stem, extension) = match name.rfind('.') {
            Some(dot) if dot > 0 && name.len() - dot + mark.len() < NAME_BYTES_MAX => name.split_at(dot),
            _ => (name, ""),
        };
        let room = NAME_BYTES_MAX - mark.len() - extension.len();
        let stem = &stem[..stem.floor_char_boundary(room)];
        format!("{directory}{stem}{mark}{extension}")
    }
}

/// The first path strictly below `path` as a directory.
fn first_below<'a, T>(paths: &'a BTreeMap<String, T>, path: &str) -> Option<(&'a String, &'a T)> {
    let directory = format!("{path}/");
    paths.range(directory.clone()..).next().filter(|(below, _)| below.starts_with(&directory))
}
