//! The common frames of two tips. Spec: ibgib §16, merge §2.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::NoMerge;
use crate::{Address, FrameFacts, Verified};

/// Frames that one walk looks at, at most.
const FRAMES_MAX: usize = 1_000_000;
/// The newest common frames that are looked for, at most …
const COMMON_MAX: usize = 8;
/// … and the frames that are looked at for more of them, once there is one.
const MORE_FRAMES_MAX: usize = 4096;

/// In the order in which frames are looked at, the last first: greatest n, then smallest gib.
type Place = (u64, Reverse<(String, String)>);

const LEFT: u8 = 1;
const RIGHT: u8 = 2;
/// Behind a common frame that was found.
const BEHIND: u8 = 4;

/// The newest common frames: those that are each of the two tips or one of its ancestors, and that none of the others has behind it. The
/// first has the greatest n (of several the smallest gib): that is G. There are more where each side merged what the other side made, at the
/// same time. The walk goes down by n on both sides at once. As in [`crate::settle_tips`] an ancestor is one along a falling counter.
///
/// # Errors
/// [`NoMerge::NoCommonFrame`], also when the walk to the first would be longer than a million frames.
pub(super) fn common_frames(
    (left, left_facts): (&Verified, &FrameFacts),
    (right, right_facts): (&Verified, &FrameFacts),
    load: &mut dyn FnMut(&Address) -> Option<Verified>,
) -> Result<Vec<Verified>, NoMerge> {
    let mut open: BTreeMap<Place, (Verified, u8)> = BTreeMap::new();
    open.insert(place(left.address(), left_facts.n), (left.clone(), LEFT));
    open.entry(place(right.address(), right_facts.n)).or_insert((right.clone(), 0)).1 |= RIGHT;
    let (mut common, mut looked_at, mut frames_max) = (Vec::new(), 0, FRAMES_MAX);
    // The counters of what was loaded, each once, however many name it.
    let mut counters: BTreeMap<Address, Option<u64>> = BTreeMap::new();
    // A frame is only added while one of greater counter is looked at, so all that lead to it were before it.
    while let Some(((n, _), (frame, mut sides))) = open.pop_last() {
        looked_at += 1;
        if sides == LEFT | RIGHT {
            common.push(frame.clone());
            sides |= BEHIND;
            frames_max = frames_max.min(looked_at + MORE_FRAMES_MAX);
        }
        // What is left is behind what was found.
        let is_done = sides & BEHIND != 0 && open.values().all(|(_, sides)| sides & BEHIND != 0);
        if is_done || looked_at > frames_max || common.len() == COMMON_MAX {
            break;
        }
        let Some(facts) = frame.frame_ref() else { continue };
        for parent in facts.past.iter().chain(&facts.orphans) {
            if let Some(known) = counters.get(parent) {
                if let Some((_, there)) = known.and_then(|known| open.get_mut(&place(parent, known))) {
                    *there |= sides;
                }
                continue;
            }
            let found = load(parent);
            let parent_n = found.as_ref().and_then(Verified::frame_ref).map(|facts| facts.n);
            counters.insert(parent.clone(), parent_n);
            if let Some((found, parent_n)) = found.zip(parent_n.filter(|parent_n| *parent_n < n)) {
                open.entry(place(parent, parent_n)).or_insert((found, 0)).1 |= sides;
            }
        }
    }
    if common.is_empty() { Err(NoMerge::NoCommonFrame) } else { Ok(common) }
}

fn place(address: &Address, n: u64) -> Place {
    (n, Reverse((address.gib().to_owned(), address.ib().to_owned())))
}
