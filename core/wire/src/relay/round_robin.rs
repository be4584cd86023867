//! Deficit round robin: who has waited longest for its share of bytes goes first. Spec: link C.5 "Fairness".

use std::collections::VecDeque;

/// Bytes that each may send before the next one's turn.
const QUANTUM: usize = 16 * 1024;

/// Those that have something to send, in the order of their turns. Nobody is in it twice.
#[derive(Debug)]
pub(super) struct RoundRobin<K> {
    ring: VecDeque<Turn<K>>,
}

#[derive(Debug)]
struct Turn<K> {
    key: K,
    /// Bytes that it may send before it goes to the back.
    deficit: usize,
}

impl<K> Default for RoundRobin<K> {
    fn default() -> Self {
        Self { ring: VecDeque::new() }
    }
}

impl<K: Copy + PartialEq> RoundRobin<K> {
    /// `key`, which is not in it, has something to send.
    pub(super) fn add(&mut self, key: K) {
        debug_assert!(self.ring.iter().all(|turn| turn.key != key), "one turn each");
        self.ring.push_back(Turn { key, deficit: QUANTUM });
    }

    /// Whose turn it is, given what the first message of each costs. Calling it again changes nothing.
    pub(super) fn front(&mut self, mut cost: impl FnMut(K) -> usize) -> Option<K> {
        loop {
            let first = self.ring.front_mut()?;
            if cost(first.key) <= first.deficit {
                return Some(first.key);
            }
            first.deficit += QUANTUM;
            self.ring.rotate_left(1);
        }
    }

    /// The one at the front has sent `bytes`; `more`: it has still something to send.
    pub(super) fn sent(&mut self, bytes: usize, more: bool) {
        if let Some(first) = self.ring.front_mut() {
            first.deficit = first.deficit.saturating_sub(bytes);
            if !more {
                self.ring.pop_front();
            }
        }
    }

    /// `key` has nothing to send any more.
    pub(super) fn remove(&mut self, key: K) {
        self.ring.retain(|turn| turn.key != key);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shared_evenly_whatever_the_sizes_of_messages() {
        let costs = [16_640usize, 100, 5_000];
        let mut robin = RoundRobin::default();
        (0..3).for_each(|key| robin.add(key));
        let mut sent = [0; 3];
        for _ in 0..20_000 {
            let key = robin.front(|key| costs[key]).unwrap();
            sent[key] += costs[key];
            robin.sent(costs[key], true);
        }
        let (least, most) = (sent.iter().min().unwrap(), sent.iter().max().unwrap());
        assert!(most - least <= 3 * (QUANTUM + 16_640), "{sent:?}");
    }

    #[test]
    fn who_has_nothing_more_leaves() {
        let mut robin = RoundRobin::default();
        robin.add('a');
        robin.add('b');
        assert_eq!(robin.front(|_| 10), Some('a'));
        robin.sent(10, false);
        assert_eq!(robin.front(|_| 10), Some('b'));
        robin.remove('b');
        assert!(robin.is_empty() && robin.front(|_| 10).is_none());
    }
}
