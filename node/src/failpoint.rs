//! Named points where a crash test can end the process, or make something fail. Without feature `failpoints` they are
//! nothing.

/// Marks a named point. `SEALTIDE_FAILPOINT=<name>:<n>` aborts the process when it is passed the n-th time.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn hit(_name: &str) {}

/// Whether a named thing is to fail.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn fails(_name: &str) -> bool {
    false
}

/// Marks a named point. `SEALTIDE_FAILPOINT=<name>:<n>` aborts the process when it is passed the n-th time.
#[cfg(feature = "failpoints")]
pub fn hit(name: &str) {
    static WANTED: wanted::Wanted = wanted::Wanted::new("SEALTIDE_FAILPOINT");
    if WANTED.count(name).is_some_and(|(passed, wanted)| passed >= wanted) {
        std::process::abort();
    }
}

/// Whether a named thing is to fail: `SEALTIDE_FAULT=<name>:<n>` lets it fail the n-th time, once.
#[cfg(feature = "failpoints")]
pub fn fails(name: &str) -> bool {
    static WANTED: wanted::Wanted = wanted::Wanted::new("SEALTIDE_FAULT");
    WANTED.count(name).is_some_and(|(passed, wanted)| passed == wanted)
}

#[cfg(feature = "failpoints")]
mod wanted {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// What a variable names, and how often it was passed.
    pub(super) struct Wanted {
        variable: &'static str,
        named: OnceLock<Option<(String, u64)>>,
        passed: AtomicU64,
    }

    impl Wanted {
        pub(super) const fn new(variable: &'static str) -> Self {
            Self { variable, named: OnceLock::new(), passed: AtomicU64::new(0) }
        }

        /// How often the point was passed with this time, and at which time something is to happen.
        pub(super) fn count(&self, name: &str) -> Option<(u64, u64)> {
            let named = self.named.get_or_init(|| {
                let text = std::env::var(self.variable).ok()?;
                let (name, count) = text.split_once(':')?;
                Some((name.to_owned(), count.parse().ok()?))
            });
            let (wanted, count) = named.as_ref()?;
            (wanted == name).then(|| (self.passed.fetch_add(1, Ordering::Relaxed) + 1, *count))
        }
    }
}
