//! The tips of a space at one moment, wherever they are kept: level 0 of the reconciliation. Spec: ibgib §13.3

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use sealtide_ibgib::TimelineId;

use crate::negentropy::{Ranges, Run};
use crate::{IdSum, RangeBound, TipItem};

/// All tips at one moment. What it tells stays as it was then, whatever moves later; its ranges are those of (order key
/// of the timeline, [`TipItem::id`]).
pub trait TipSet: Ranges + Debug + Send + Sync {
    /// The tips of a timeline, in ascending order of their ids.
    fn of(&self, timeline: &TimelineId) -> Vec<TipItem>;
    /// The tip with this level-0 id.
    fn with_id(&self, id: &[u8; 32]) -> Option<TipItem>;
    /// The timelines that have several tips.
    fn diverged(&self) -> BTreeSet<TimelineId>;
}

/// Tips in memory.
#[derive(Debug, Default)]
pub struct TipList {
    by_timeline: BTreeMap<TimelineId, Vec<TipItem>>,
    timelines: BTreeMap<[u8; 32], TimelineId>,
    run: Run,
}

impl TipList {
    /// Takes tips in any order.
    pub fn new(tips: Vec<TipItem>) -> Self {
        let run = Run::new(tips.iter().map(|tip| (tip.order, tip.id)).collect());
        let timelines = tips.iter().map(|tip| (tip.id, tip.timeline)).collect();
        let mut by_timeline: BTreeMap<TimelineId, Vec<TipItem>> = BTreeMap::new();
        tips.into_iter().for_each(|tip| by_timeline.entry(tip.timeline).or_default().push(tip));
        by_timeline.values_mut().for_each(|tips| tips.sort_by_key(|tip| tip.id));
        Self { by_timeline, timelines, run }
    }
}

impl Ranges for TipList {
    fn sum(&self, lo: &RangeBound, hi: &RangeBound) -> (u64, IdSum) {
        self.run.sum(lo, hi)
    }

    fn list(&self, lo: &RangeBound, hi: &RangeBound, limit: usize) -> Vec<(u64, [u8; 32])> {
        self.run.list(lo, hi, limit)
    }
}

impl TipSet for TipList {
    fn of(&self, timeline: &TimelineId) -> Vec<TipItem> {
        self.by_timeline.get(timeline).cloned().unwrap_or_default()
    }

    fn with_id(&self, id: &[u8; 32]) -> Option<TipItem> {
        let tips = self.by_timeline.get(self.timelines.get(id)?)?;
        tips.iter().find(|tip| tip.id == *id).cloned()
    }

    fn diverged(&self) -> BTreeSet<TimelineId> {
        self.by_timeline.iter().filter(|(_, tips)| tips.len() > 1).map(|(timeline, _)| *timeline).collect()
    }
}
