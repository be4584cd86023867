//! The clocks and the chance that the pure parts take as arguments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealtide_crypto::{Entropy, Now};
use tokio::time::Instant;

/// The clock of one [`crate::Link`]: starts at zero with it and goes on during sleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    slept_before: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now(), slept_before: slept() }
    }

    /// The present. The monotonic part is tokio's clock, which tests can pause, plus the time the machine slept.
    pub(crate) fn now(&self) -> Now {
        let awake = self.start.elapsed();
        let asleep = slept().saturating_sub(self.slept_before);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(awake + asleep), wall_ms: millis(wall) }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long the machine has slept since it started.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

/// Unknown here: the clock stands still during sleep, and connections are found dead by silence instead.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn slept() -> Duration {
    Duration::ZERO
}

/// The randomness of the operating system.
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        getrandom::fill(out).expect("the operating system gives random bytes once it is up");
    }
}

/// A random number below `bound`, for spreading times; not for secrets. 0 when `bound` is 0.
pub(crate) fn random_below(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes);
    u64::from_be_bytes(bytes).checked_rem(bound).unwrap_or(0)
}
