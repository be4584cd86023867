//! Sagas of one space with several peers at once. Mostly they do not touch each other; where several nodes write one
//! timeline, each would merge what it sees with something that another one is merging already, and merges would breed
//! merges for ever. So while a space is contended, a node runs its sagas one after another, each to its end.
//! Spec: sync §5, SY-49

use std::collections::BTreeMap;

use sealtide_identity::{NodeId, SpaceId};

/// A saga that goes on for longer than this does not keep others waiting: its peer may be slow, or the saga large; ms.
const TURN_MS: u64 = 1_000;
/// Where sagas that got into each other's way took longer, a turn is so many times as long …
const TURN_OF_SAGA: u64 = 4;
/// … and never longer than this, so that a peer that stalls holds up nobody for long; ms.
const TURN_MAX_MS: u64 = 60_000;
/// So many turns long a space counts as contended after a saga left a timeline with several tips.
const CONTENDED_TURNS: u64 = 5;
/// How long who finds no turn waits before it asks again: from this …
const WAIT_MS: u64 = 40;
/// … and up to so much more, ms, or this part of a turn, so that on slow lines not all ask at once again.
const WAIT_SPREAD_MS: u64 = 160;
const WAIT_OF_TURN: u64 = 16;

/// Who runs a saga of which space, and which spaces are contended. All times are this node's `mono_ms`.
#[derive(Debug, Default)]
pub(super) struct Turns {
    contended: BTreeMap<SpaceId, Contended>,
    began: BTreeMap<SpaceId, BTreeMap<NodeId, u64>>,
}

/// A space whose sagas take turns.
#[derive(Clone, Copy, Debug)]
struct Contended {
    until: u64,
    /// How long a saga keeps others waiting. A turn that ends before its saga protects nothing: the next one merges
    /// beside it, and so on without end.
    turn_ms: u64,
}

impl Turns {
    /// A saga with a peer left a timeline with several tips.
    pub(super) fn contended(&mut self, space: SpaceId, peer: &NodeId, now: u64) {
        let began = self.began.get(&space).and_then(|running| running.get(peer));
        let took = began.map_or(0, |began| now.saturating_sub(*began));
        let turn_ms = took.saturating_mul(TURN_OF_SAGA).clamp(TURN_MS, TURN_MAX_MS);
        let turn_ms = self.find(&space, now).map_or(turn_ms, |before| before.turn_ms.max(turn_ms));
        self.contended.insert(space, Contended { until: now + CONTENDED_TURNS * turn_ms, turn_ms });
    }

    /// Begins a saga with a peer, unless it has to wait for one with another peer.
    ///
    /// # Errors
    /// Within how many ms it should ask again, besides [`wait_ms`]' least.
    pub(super) fn take(&mut self, space: SpaceId, peer: NodeId, now: u64) -> Result<(), u64> {
        if let Some(Contended { turn_ms, .. }) = self.find(&space, now) {
            let running = self.began.get(&space).into_iter().flatten();
            let mut others = running.filter(|(other, _)| **other != peer);
            if others.any(|(_, began)| now < began + turn_ms) {
                return Err(WAIT_SPREAD_MS.max(turn_ms / WAIT_OF_TURN));
            }
        }
        self.begin(space, peer, now);
        Ok(())
    }

    /// Begins a saga with a peer whoever else runs one: a person asked for it.
    pub(super) fn begin(&mut self, space: SpaceId, peer: NodeId, now: u64) {
        self.began.entry(space).or_default().insert(peer, now);
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

    fn find(&mut self, space: &SpaceId, now: u64) -> Option<Contended> {
        if self.contended.get(space).is_some_and(|contended| contended.until <= now) {
            self.contended.remove(space);
        }
        self.contended.get(space).copied()
    }
}

/// How long to wait for the next turn, ms; `chance` is any number. Different for each, so that two do not meet again and
/// again.
pub(super) fn wait_ms(chance: u64, spread_ms: u64) -> u64 {
    WAIT_MS + chance % (spread_ms + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
    const OTHER: SpaceId = SpaceId::from_bytes([2; 32]);

    fn peer(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn took(turns: &mut Turns, number: u8, now: u64) -> bool {
        turns.take(SPACE, peer(number), now).is_ok()
    }

    #[test]
    fn only_a_contended_space_is_served_one_after_another() {
        let mut turns = Turns::default();
        assert!(took(&mut turns, 1, 0) && took(&mut turns, 2, 0), "sagas do not wait for each other");
        turns.contended(SPACE, &peer(1), 100);
        assert!(!took(&mut turns, 3, 200), "now they do");
        assert_eq!(turns.take(OTHER, peer(3), 200), Ok(()), "other spaces go on");
        turns.end(&SPACE, &peer(1));
        assert!(!took(&mut turns, 3, 201));
        turns.end_all(&peer(2));
        assert!(took(&mut turns, 3, 202));
        assert!(took(&mut turns, 3, 203), "a peer's own saga is not in its way");
        assert!(!took(&mut turns, 1, 204));
        assert!(took(&mut turns, 1, 203 + TURN_MS), "a slow peer holds up nobody for long");
        assert!(!took(&mut turns, 2, 204 + TURN_MS));
        assert!(took(&mut turns, 2, 100 + CONTENDED_TURNS * TURN_MS), "and it passes");
    }

    #[test]
    fn a_turn_is_as_long_as_the_sagas_that_collide() {
        let mut turns = Turns::default();
        assert!(took(&mut turns, 1, 0) && took(&mut turns, 2, 0));
        turns.contended(SPACE, &peer(1), 2_500);
        turns.end(&SPACE, &peer(1));
        assert_eq!(turns.take(SPACE, peer(1), 9_999), Err(10_000 / WAIT_OF_TURN), "who waits long asks seldom");
        assert!(took(&mut turns, 1, 10_000), "four times as long as the saga took");
        turns.end_all(&peer(2));
        turns.contended(SPACE, &peer(1), 10_010);
        assert!(!took(&mut turns, 2, 19_999), "a short one does not make it shorter");
        turns.contended(SPACE, &peer(1), 59_000);
        turns.begin(SPACE, peer(2), 59_000);
        assert!(!took(&mut turns, 3, 58_999 + TURN_MAX_MS) && took(&mut turns, 3, 59_000 + TURN_MAX_MS));
    }

    #[test]
    fn waits_differ_and_are_bounded() {
        let waits: std::collections::BTreeSet<u64> = (0..1000).map(|chance| wait_ms(chance, WAIT_SPREAD_MS)).collect();
        assert!(waits.len() > 100 && waits.first() == Some(&40) && waits.last() == Some(&200));
    }
}
