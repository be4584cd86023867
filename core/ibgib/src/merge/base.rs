//! The common frame G of two tips. Spec: ibgib §16, merge §2.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::NoMerge;
use crate::{Address, FrameFacts, Verified};

/// Frames that one walk looks at, at most.
const FRAMES_MAX: usize = 1_000_000;

/// In the order in which frames are looked at, the last first: greatest n, then smallest gib.
type Place = (u64, Reverse<(String, String)>);

const LEFT: u8 = 1;
const RIGHT: u8 = 2;

/// The frame of greatest n (of several the one with the smallest gib) among those that are each of the two tips or
/// one of its ancestors. The walk goes down by n on both sides at once and stops there. As in
/// [`crate::settle_tips`] an ancestor is one along a falling counter.
///
/// # Errors
/// [`NoMerge::NoCommonFrame`], also when the walk would be longer than a million frames.
pub(super) fn common_frame(
    (left, left_facts): (&Verified, &FrameFacts),
    (right, right_facts): (&Verified, &FrameFacts),
    load: &mut dyn FnMut(&Address) -> Option<Verified>,
) -> Result<Verified, NoMerge> {
    let mut open: BTreeMap<Place, (Verified, u8)> = BTreeMap::new();
    open.insert(place(left.address(), left_facts.n), (left.clone(), LEFT));
    open.entry(place(right.address(), right_facts.n)).or_insert((right.clone(), 0)).1 |= RIGHT;
    let mut looked_at = 0;
    // A frame is only added while one of greater counter is looked at, so all that lead to it were before it.
    while let Some(((n, _), (frame, sides))) = open.pop_last() {
        if sides == LEFT | RIGHT {
            return Ok(frame);
        }
        looked_at += 1;
        if looked_at > FRAMES_MAX {
            break;
        }
        let Some(facts) = frame.frame_ref() else { continue };
        for parent in facts.past.iter().chain(&facts.orphans) {
            let Some(found) = load(parent) else { continue };
            let Some(parent_n) = found.frame_ref().map(|facts| facts.n).filter(|parent_n| *parent_n < n) else {
                continue;
            };
            open.entry(place(parent, parent_n)).or_insert((found, 0)).1 |= sides;
        }
    }
    Err(NoMerge::NoCommonFrame)
}

fn place(address: &Address, n: u64) -> Place {
    (n, Reverse((address.gib().to_owned(), address.ib().to_owned())))
}
