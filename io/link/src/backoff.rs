//! How long to wait before the next dial after a cut. Spec: link C.9.3.

use std::time::Duration;

use sealtide_crypto::Entropy;

/// The waits between dials: 0.2, 0.5, 1, 2, 4 … 60 s, each ±25 %, so that nodes do not come back in step.
///
/// The node keeps one per peer, asks it after each failure and resets it when a session stands.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Starts at the shortest wait.
    pub fn new() -> Self {
        Self::default()
    }

    /// The wait before the next dial; longer each time, 75 s at most.
    pub fn next_wait(&mut self, entropy: &mut dyn Entropy) -> Duration {
        let base_ms = match self.failures {
            0 => 200,
            1 => 500,
            n => (1000u64 << (n - 2).min(6)).min(60_000),
        };
        self.failures = self.failures.saturating_add(1);
        let mut random = [0; 8];
        entropy.fill(&mut random);
        Duration::from_millis(base_ms * 3 / 4 + u64::from_be_bytes(random) % (base_ms / 2 + 1))
    }

    /// The peer was reached, its addresses changed or the network did: the next wait is the shortest again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use sealtide_crypto::SeededEntropy;

    use super::*;

    #[test]
    fn waits_grow_to_a_minute_and_spread_by_a_quarter() {
        let mut entropy = SeededEntropy::new(1);
        for _ in 0..200 {
            let mut backoff = Backoff::new();
            for base_ms in [200u64, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
                let found = backoff.next_wait(&mut entropy).as_millis() as u64;
                assert!((base_ms * 3 / 4..=base_ms * 5 / 4).contains(&found), "{found} for {base_ms}");
            }
            backoff.reset();
            assert!(backoff.next_wait(&mut entropy) <= Duration::from_millis(250));
        }
    }
}
