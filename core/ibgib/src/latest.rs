//! The tips of a timeline and the newest of them. Spec: ibgib §14.6, §16.
//!
//! One frame is an *ancestor* of another when a chain of `past` and `graftorphan` leads to it along which the frame
//! counter falls with every step. Honest frames always count down; asking for it makes the walk finite and its
//! result independent of arrival even when a dishonest peer invents counters.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::{Address, FrameFacts, Verified};

/// The newest frame of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latest {
    /// The winner W of ibgib §16.
    pub winner: Address,
    /// The other tips, sorted; empty unless the timeline is diverged. A caller reports them.
    pub diverged: Vec<Address>,
}

/// The tips of a timeline after more frames arrived: those of `known` (its tips so far) and `new` that are not an
/// ancestor (through `past` and `graftorphan`) of another. The result does not depend on the order of arrival;
/// it is sorted by address. `load` gives the facts of any frame of the timeline that the space holds. A tip that
/// cannot be loaded stays a tip: nothing is lost because something is missing.
pub fn settle_tips(
    known: &[Address],
    new: &[Address],
    load: &mut dyn FnMut(&Address) -> Option<FrameFacts>,
) -> Vec<Address> {
    let mut tips: BTreeSet<Address> = known.iter().chain(new).cloned().collect();
    if tips.len() < 2 {
        return tips.into_iter().collect();
    }
    // Frames to look behind, by counter. A frame is only ever added while one of greater counter is looked at, so
    // everything that leads to it has been seen when its turn comes, and it comes once.
    let mut queue: BTreeMap<(u64, Address), FrameFacts> = BTreeMap::new();
    for address in &tips {
        if let Some(facts) = load(address) {
            queue.insert((facts.n, address.clone()), facts);
        }
    }
    // How many candidates (tips so far) have which counter: below the least of them there is nothing to find.
    let mut counters: BTreeMap<u64, usize> = BTreeMap::new();
    queue.keys().for_each(|(n, _)| *counters.entry(*n).or_default() += 1);
    // A frame that is no find for one of greater counter is none for the others either: each is loaded once.
    let mut seen = BTreeSet::new();
    while let Some(((n, _), facts)) = queue.pop_last() {
        let Some(least) = counters.first_key_value().map(|(least, _)| *least).filter(|least| *least < n) else { break };
        for parent in facts.past.iter().chain(&facts.orphans) {
            if !seen.insert(parent.clone()) {
                continue;
            }
            let Some(found) = load(parent).filter(|found| found.n < n && found.n >= least) else { continue };
            if tips.remove(parent)
                && let Some(count) = counters.get_mut(&found.n)
            {
                *count -= 1;
                if *count == 0 {
                    counters.remove(&found.n);
                }
            }
            queue.insert((found.n, parent.clone()), found);
        }
    }
    tips.into_iter().collect()
}

/// Which of two frames of one timeline is the winner W: the greater one. Greater counter; then the later stamp (one
/// that cannot be read is before all others); then the smaller gib by bytes; then the smaller ib. Spec: ibgib §16.
pub fn winner_order(left: (&Address, &FrameFacts), right: (&Address, &FrameFacts)) -> Ordering {
    let ((left, left_facts), (right, right_facts)) = (left, right);
    (left_facts.n, left_facts.stamp)
        .cmp(&(right_facts.n, right_facts.stamp))
        .then_with(|| (right.gib(), right.ib()).cmp(&(left.gib(), left.ib())))
}

/// The winner W among the tips of one timeline; `None` when none of them is a frame of a timeline.
pub fn winner<'a>(tips: impl IntoIterator<Item = &'a Verified>) -> Option<&'a Verified> {
    tips.into_iter()
        .filter_map(|tip| tip.frame().map(|facts| (tip, facts)))
        .max_by(|(left, left_facts), (right, right_facts)| {
            winner_order((left.address(), left_facts), (right.address(), right_facts))
        })
        .map(|(tip, _)| tip)
}

/// The newest frame of a timeline among `frames` (tips, or any of its frames): the winner W of those that no other
/// frame has behind it, and the others of them as a divergence to report. The order of `frames` does not matter.
/// `None` when none of them can be loaded. Spec: SY-16.
pub fn latest(frames: &[Address], load: &mut dyn FnMut(&Address) -> Option<FrameFacts>) -> Option<Latest> {
    let mut tips = settle_tips(&[], frames, load);
    let facts: Vec<_> = tips.iter().filter_map(|tip| load(tip).map(|facts| (tip, facts))).collect();
    let (winner, _) = facts.iter().max_by(|left, right| winner_order((left.0, &left.1), (right.0, &right.1)))?;
    let winner = (*winner).clone();
    tips.retain(|tip| *tip != winner);
    Some(Latest { winner, diverged: tips })
}
