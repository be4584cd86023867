//! Runs seeds: each on a runtime of its own, with one thread and virtual time.

use std::any::Any;
use std::cell::Cell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::scenario::{Keys, Outcome, play};
use crate::signers::Signers;
use crate::trace::Trace;

thread_local! {
    /// Panics on this thread: the runtime swallows those of its tasks.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

fn count_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
}

/// Runs `work` in virtual time on one thread.
///
/// # Panics
/// When `work` panics, or any task that it started.
pub fn in_virtual_time<T>(work: impl Future<Output = T>) -> T {
    count_panics();
    let before = PANICS.get();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without sockets needs nothing of the system");
    let result = runtime.block_on(work);
    assert_eq!(PANICS.get(), before, "a task panicked");
    result
}

/// The number that `SEALTIDE_TEST_SCALE` gives, 1 without.
pub fn scale() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// The one seed that `SEALTIDE_SIM_SEED` asks for.
pub fn only_seed() -> Option<u64> {
    std::env::var("SEALTIDE_SIM_SEED").ok().and_then(|text| text.parse().ok())
}

/// Plays one seed.
///
/// # Errors
/// What went wrong, the seed, and what happened before.
pub fn run_seed(seed: u64, whole_trace: bool) -> Result<(Outcome, String), String> {
    run_with(seed, whole_trace, Keys::None)
}

/// Plays one seed with signed commits.
///
/// # Errors
/// As [`run_seed`].
pub fn run_signed(seed: u64, whole_trace: bool) -> Result<(Outcome, String), String> {
    run_with(seed, whole_trace, Keys::Signers(&Signers::default()))
}

/// Plays one seed with identities and a node that is put back to earlier copies of its store.
///
/// # Errors
/// As [`run_seed`].
pub fn run_restored(seed: u64, whole_trace: bool) -> Result<(Outcome, String), String> {
    run_with(seed, whole_trace, Keys::Restored)
}

fn run_with(seed: u64, whole_trace: bool, keys: Keys<'_>) -> Result<(Outcome, String), String> {
    let mut trace: Option<Trace> = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        in_virtual_time(async { play(seed, whole_trace, keys, |cluster| trace = Some(cluster.trace.clone())).await })
    }));
    let lines = trace.map(|trace| trace.text()).unwrap_or_default();
    let what = match played {
        Ok(Ok(outcome)) => return Ok((outcome, lines)),
        Ok(Err(what)) => what,
        Err(panic) => format!("panic: {}", text_of(&*panic)),
    };
    Err(format!("seed {seed}: {what}\n{lines}run it again with SEALTIDE_SIM_SEED={seed}"))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
