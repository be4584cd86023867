//! Sagas of one space with several peers at once. Mostly they do not touch each other; where several nodes write one
//! timeline, each would merge what it sees with something that another one is merging already, and merges would breed
//! merges for ever. So while a space is contended, a node runs its sagas one after another. Spec: sync §5, SY-49

use std::collections::BTreeMap;

use sealtide_identity::{NodeId, SpaceId};

/// How long a space counts as contended after a saga left a timeline with several tips, ms.
const CONTENDED_MS: u64 = 5_000;
/// A saga that goes on for longer does not keep others waiting: its peer may be slow, or the saga large; ms.
const TURN_MS: u64 = 1_000;
/// How long who finds no turn waits before it asks again: from this …
const WAIT_MS: u64 = 40;
/// … and up to so much more, ms.
const WAIT_SPREAD_MS: u64 = 160;

/// Who runs a saga of which space, and which spaces are contended. All times are this node's `mono_ms`.
#[derive(Debug, Default)]
pub(super) struct Turns {
    contended_until: BTreeMap<SpaceId, u64>,
    began: BTreeMap<SpaceId, BTreeMap<NodeId, u64>>,
}

impl Turns {
    /// A saga found that the tips had moved under it.
    pub(super) fn contended(&mut self, space: SpaceId, now: u64) {
        self.contended_until.insert(space, now + CONTENDED_MS);
    }

    /// Begins a saga with a peer; `false` when it has to wait for one with another peer.
    pub(super) fn take(&mut self, space: SpaceId, peer: NodeId, now: u64) -> bool {
        if self.contended_until.get(&space).is_some_and(|until| *until <= now) {
            self.contended_until.remove(&space);
        }
        let running = self.began.entry(space).or_default();
        let mut others = running.iter().filter(|(other, _)| **other != peer);
        if self.contended_until.contains_key(&space) && others.any(|(_, began)| now < began + TURN_MS) {
            return false;
        }
        running.insert(peer, now);
        true
    }

    /// The saga with a peer is over.
    pub(super) fn end(&mut self, space: &SpaceId, peer: &NodeId) {
        if let Some(running) = self.began.get_mut(space) {
            running.remove(peer);
            if running.is_empty() {
                self.began.remove(space);
            }
        }
    }

    /// All sagas with a peer are over.
    pub(super) fn end_all(&mut self, peer: &NodeId) {
        self.began.retain(|_, running| {
            running.remove(peer);
            !running.is_empty()
        });
    }
}

/// How long to wait for the next turn, ms; `chance` is any number. Different for each, so that two do not meet again and
/// again.
pub(super) fn wait_ms(chance: u64) -> u64 {
    WAIT_MS + chance % (WAIT_SPREAD_MS + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
    const OTHER: SpaceId = SpaceId::from_bytes([2; 32]);

    fn peer(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    #[test]
    fn only_a_contended_space_is_served_one_after_another() {
        let mut turns = Turns::default();
        assert!(turns.take(SPACE, peer(1), 0) && turns.take(SPACE, peer(2), 0), "sagas do not wait for each other");
        turns.contended(SPACE, 100);
        assert!(!turns.take(SPACE, peer(3), 200), "now they do");
        assert!(turns.take(OTHER, peer(3), 200), "other spaces go on");
        turns.end(&SPACE, &peer(1));
        assert!(!turns.take(SPACE, peer(3), 201));
        turns.end_all(&peer(2));
        assert!(turns.take(SPACE, peer(3), 202));
        assert!(turns.take(SPACE, peer(3), 203), "a peer's own saga is not in its way");
        assert!(!turns.take(SPACE, peer(1), 204));
        assert!(turns.take(SPACE, peer(1), 203 + TURN_MS), "a slow peer holds up nobody for long");
        assert!(!turns.take(SPACE, peer(2), 204 + TURN_MS));
        assert!(turns.take(SPACE, peer(2), 100 + CONTENDED_MS), "and it passes");
    }

    #[test]
    fn waits_differ_and_are_bounded() {
        let waits: std::collections::BTreeSet<u64> = (0..1000).map(wait_ms).collect();
        assert!(waits.len() > 100 && waits.first() == Some(&40) && waits.last() == Some(&200));
    }
}
