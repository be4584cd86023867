//! Time and chance as arguments.

/// The time an input arrived, as the driver read it once.
///
/// Deadlines use `mono_ms`, stamps in records use `wall_ms`; a core never reads a clock itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never steps back and goes on during sleep; its zero has no meaning.
    pub mono_ms: u64,
    /// Milliseconds since 1970-01-01 UTC, as the machine believes.
    pub wall_ms: u64,
}

/// A source of unpredictable bytes. The driver hands in the operating system's; simulations a seeded one.
pub trait Entropy: Send {
    /// Fills the whole of `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// A reproducible [`Entropy`] for simulations and tests. Never use it for keys that protect anything.
///
/// The stream is SHA-256 over (seed, counter), so one seed gives one run on every platform.
#[derive(Clone, Debug)]
pub struct SeededEntropy {
    seed: u64,
    counter: u64,
}

impl SeededEntropy {
    /// Starts the stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: 0 }
    }
}

impl Entropy for SeededEntropy {
    fn fill(&mut self, out: &mut [u8]) {
        for block in out.chunks_mut(32) {
            let digest = crate::sha256_parts(&[&self.seed.to_be_bytes(), &self.counter.to_be_bytes()]);
            self.counter += 1;
            block.copy_from_slice(&digest[..block.len()]);
        }
    }
}
