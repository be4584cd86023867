//! How often one source may ask: a bucket for each, and a bounded number of buckets. Spec: gateway §12.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Sources that are remembered, at most. When all are taken, the full buckets go first: they say nothing.
const SOURCES_MAX: usize = 65_536;
/// A token in thousandths, so that slow rates fill evenly.
const WHOLE: u64 = 1_000;

/// Buckets that fill at one rate and hold twice what a second brings.
pub struct Rate {
    per_second: u32,
    buckets: Mutex<HashMap<[u8; 9], Bucket>>,
}

/// What one source, or one session, has left.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    thousandths: u64,
    since_mono_ms: u64,
}

impl Bucket {
    /// A full one.
    pub fn full(per_second: u32, mono_ms: u64) -> Self {
        Self { thousandths: capacity(per_second), since_mono_ms: mono_ms }
    }

    /// Takes one; false when there is none. A rate of 0 bounds nothing.
    pub fn take(&mut self, per_second: u32, mono_ms: u64) -> bool {
        self.fill(per_second, mono_ms);
        let has = self.thousandths >= WHOLE;
        self.thousandths -= if has { WHOLE } else { 0 };
        has || per_second == 0
    }

    fn fill(&mut self, per_second: u32, mono_ms: u64) {
        let passed = mono_ms.saturating_sub(self.since_mono_ms);
        let more = passed.saturating_mul(u64::from(per_second));
        self.thousandths = self.thousandths.saturating_add(more).min(capacity(per_second));
        self.since_mono_ms = mono_ms;
    }
}

impl Rate {
    /// So many per second and source; 0: any number.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, buckets: Mutex::default() }
    }

    /// Takes one for a source; false when it has asked too often.
    pub fn take(&self, source: [u8; 9], mono_ms: u64) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SOURCES_MAX && !buckets.contains_key(&source) {
            buckets.retain(|_, bucket| {
                bucket.fill(self.per_second, mono_ms);
                bucket.thousandths < capacity(self.per_second)
            });
            if buckets.len() >= SOURCES_MAX {
                return false;
            }
        }
        buckets.entry(source).or_insert_with(|| Bucket::full(self.per_second, mono_ms)).take(self.per_second, mono_ms)
    }
}

fn capacity(per_second: u32) -> u64 {
    2 * WHOLE * u64::from(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_twice_the_rate_and_then_the_rate() {
        let rate = Rate::new(10);
        let taken = |source: u8, ms| (0..100).filter(|_| rate.take([source; 9], ms)).count();
        assert_eq!((taken(1, 0), taken(1, 0), taken(2, 0)), (20, 0, 20));
        assert_eq!((taken(1, 99), taken(1, 100), taken(1, 1_100)), (0, 1, 10));
        assert_eq!(taken(1, 1_000_000), 20);
        assert!((0..1_000).all(|_| Rate::new(0).take([1; 9], 0)));
    }

    #[test]
    fn sources_are_bounded_and_idle_ones_make_room() {
        let rate = Rate::new(1);
        let source = |number: usize| {
            let mut bytes = [0; 9];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            bytes
        };
        assert!((0..SOURCES_MAX).all(|number| rate.take(source(number), 0)));
        assert!(!rate.take(source(SOURCES_MAX), 0), "all places are in use");
        assert!(rate.take(source(SOURCES_MAX), 10_000), "the others have been quiet");
        assert_eq!(rate.buckets.lock().unwrap().len(), 1);
    }
}
