//! What version management does right now, in the words of the older system. Spec: gateway §11.4.
//!
//! ```text
//! CREATED ──session, bump──▶ RUNNING ──5 minutes without either──▶ TERMINATED ──session, bump──▶ RUNNING
//! a write that takes longer than 5 s: BLOCKED until it ends; a failure: ERROR until something succeeds
//! ```

/// Without a session or a bump for so long, it is idle, in milliseconds.
const IDLE_MS: u64 = 300_000;
/// A write that takes longer blocks, in milliseconds.
const BLOCKED_MS: u64 = 5_000;

/// What is known of it; all times are of one clock that never steps.
#[derive(Clone, Debug, Default)]
pub(super) struct ThreadState {
    active_mono_ms: Option<u64>,
    /// When each write that is under way began.
    writes_mono_ms: Vec<u64>,
    failed: bool,
}

impl ThreadState {
    /// A session began, or somebody bumped.
    pub(super) fn active(&mut self, mono_ms: u64) {
        self.active_mono_ms = Some(mono_ms);
    }

    /// A rotation or a write to the store begins.
    pub(super) fn begin(&mut self, mono_ms: u64) {
        self.writes_mono_ms.push(mono_ms);
    }

    /// The one that began then ended.
    pub(super) fn end(&mut self, began_mono_ms: u64, done: bool) {
        if let Some(at) = self.writes_mono_ms.iter().position(|began| *began == began_mono_ms) {
            self.writes_mono_ms.swap_remove(at);
        }
        self.failed = !done;
    }

    /// Something else failed that only a success makes good.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// The word for it.
    // Spec: GW-84
    pub(super) fn word(&self, mono_ms: u64) -> &'static str {
        let since = |at: u64| mono_ms.saturating_sub(at);
        if self.writes_mono_ms.iter().any(|at| since(*at) > BLOCKED_MS) {
            return "BLOCKED";
        }
        if self.failed {
            return "ERROR";
        }
        match self.active_mono_ms {
            None => "CREATED",
            Some(at) if since(at) < IDLE_MS => "RUNNING",
            Some(_) => "TERMINATED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: GW-84
    #[test]
    fn thread_state() {
        let mut state = ThreadState::default();
        assert_eq!(state.word(1_000_000), "CREATED", "however long nobody comes");
        state.active(10);
        assert_eq!(
            (state.word(10), state.word(10 + IDLE_MS - 1), state.word(10 + IDLE_MS)),
            ("RUNNING", "RUNNING", "TERMINATED")
        );
        state.active(IDLE_MS * 3);
        assert_eq!(state.word(IDLE_MS * 3), "RUNNING");
        let now = IDLE_MS * 3;
        state.begin(now);
        assert_eq!((state.word(now + BLOCKED_MS), state.word(now + BLOCKED_MS + 1)), ("RUNNING", "BLOCKED"));
        state.begin(now + BLOCKED_MS);
        state.end(now, true);
        assert_eq!(state.word(now + BLOCKED_MS + 1), "RUNNING", "the other one is young");
        state.end(now + BLOCKED_MS, true);
        state.begin(now);
        state.end(now, false);
        assert_eq!((state.word(now), state.word(now + 2 * IDLE_MS)), ("ERROR", "ERROR"), "until something succeeds");
        state.begin(now);
        assert_eq!(state.word(now), "ERROR");
        state.end(now, true);
        assert_eq!(state.word(now), "RUNNING");
    }
}
