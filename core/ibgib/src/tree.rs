//! Which timeline owns which path: the tips of a space seen as a directory tree.
//! Pure, so that every node computes the same owners, aliases and yields. Spec: DESIGN of folders, ibgib §12.7.

use std::collections::BTreeMap;

use crate::{Address, FileFrame, TimelineId, Verified};

/// One timeline of ib `file`, as input to [`Tree::build`].
#[derive(Clone, Debug)]
pub struct TipView {
    /// The timeline.
    pub timeline: TimelineId,
    /// The address of its first frame.
    pub first: Address,
    /// The stamp of its first frame, ms since 1970: decides who owns a path.
    pub first_ms: u64,
    /// The tips: one, or several while diverged; the first is the winner W of ibgib §16
    /// (greater n, then later stamp, then smaller gib).
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
    /// Path in the directory → what stands there. Live paths only. A path may be a placement while another live
    /// path lies below it (a file where others have a directory): then the shallower one is aliased.
    pub placements: BTreeMap<String, Placement>,
    /// Timelines to end because another one owns their path with equal content: (tip of the loser, owner's first frame).
    pub yields: Vec<(Verified, Address)>,
    /// Timelines that share a path with different content: (path, owner, the other, alias of the other).
    pub path_conflicts: Vec<(String, TimelineId, TimelineId, String)>,
    /// Timelines with more than one tip: (path, timeline).
    pub diverged: Vec<(String, TimelineId)>,
}

impl Tree {
    /// Places every live timeline. Of several on one path the owner is the one whose first frame has the smaller
    /// (time in ms, gib); one with equal content yields, one with different content stands at
    /// `stem (<8 characters of its author's node id> <yyyy-mm-dd of its tip>).ext`, counted up (` 2`, ` 3`) when taken.
    pub fn build(timelines: impl IntoIterator<Item = TipView>) -> Self {
        let _ = timelines.into_iter();
        todo!()
    }
}
