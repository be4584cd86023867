//! The time limits of a saga. Spec: ibgib §13.8, SY-55

use sealtide_crypto::Now;

use super::Limits;
use super::outbox::Outbox;
use crate::SagaOutput;

/// When something last moved.
#[derive(Debug)]
pub(super) struct Clock {
    pub(super) now: Now,
    progress_ms: u64,
    answer_ms: u64,
    /// What [`Outbox::sent_count`] was when last looked at.
    sent_seen: u64,
    /// The wake-up that the driver has been asked for.
    armed_ms: Option<u64>,
    reported_ms: Option<u64>,
}

/// Milliseconds between two progress reports.
const REPORT_MS: u64 = 500;
/// How often within the idle limit movement is looked for.
const LOOKS: u64 = 8;

impl Clock {
    pub(super) fn new(now: Now) -> Self {
        Self { now, progress_ms: now.mono_ms, answer_ms: now.mono_ms, sent_seen: 0, armed_ms: None, reported_ms: None }
    }

    /// Something moved.
    pub(super) fn progress(&mut self) {
        self.progress_ms = self.now.mono_ms;
    }

    /// A WANT was answered in part, or became the only thing to wait for.
    pub(super) fn answered(&mut self) {
        self.answer_ms = self.now.mono_ms;
    }

    pub(super) fn idle_deadline(&self, limits: &Limits) -> u64 {
        self.progress_ms.saturating_add(limits.idle_ms)
    }

    pub(super) fn answer_deadline(&self, limits: &Limits) -> u64 {
        self.answer_ms.saturating_add(limits.want_wait_ms)
    }

    /// Takes a new time. Messages that the channel took since the last one count as movement: at the old time, since
    /// nobody knows when it was. Wake-ups are frequent enough for that not to matter.
    pub(super) fn step(&mut self, now: Now, out: &Outbox) {
        if out.sent_count() != self.sent_seen {
            self.sent_seen = out.sent_count();
            self.progress();
            self.answered();
        }
        self.now = now;
    }

    /// Whether nothing moved for too long.
    pub(super) fn idle_over(&self, limits: &Limits) -> Option<&'static str> {
        (self.now.mono_ms >= self.idle_deadline(limits)).then_some("no progress")
    }

    /// When to look next while the channel may be taking messages.
    pub(super) fn next_look(&self, limits: &Limits) -> u64 {
        self.now.mono_ms.saturating_add((limits.idle_ms / LOOKS).max(1)).min(self.idle_deadline(limits))
    }

    /// The driver called at the time it was asked to, or earlier.
    pub(super) fn fired(&mut self) {
        if self.armed_ms.is_some_and(|armed| armed <= self.now.mono_ms) {
            self.armed_ms = None;
        }
    }

    /// Asks for a wake-up, unless an earlier one is on its way: that one will look again.
    pub(super) fn arm(&mut self, deadline_ms: u64, out: &mut Outbox) {
        if self.armed_ms.is_none_or(|armed| armed > deadline_ms) {
            self.armed_ms = Some(deadline_ms);
            out.push(SagaOutput::WakeAt(deadline_ms));
        }
    }

    /// Whether a progress report is due: at most two a second. Spec: SY-74
    pub(super) fn report_due(&mut self) -> bool {
        let due = self.reported_ms.is_none_or(|last| self.now.mono_ms >= last + REPORT_MS);
        if due {
            self.reported_ms = Some(self.now.mono_ms);
        }
        due
    }
}
