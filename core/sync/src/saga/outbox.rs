//! Wishes that wait for the driver.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::{Message, SagaOutcome, SagaOutput};

/// Wishes in two lines: those that a driver can perform at once, and messages, which need room in the channel.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    local: VecDeque<SagaOutput>,
    sends: VecDeque<Bytes>,
    done: Option<SagaOutcome>,
    /// Messages handed to the driver; tells the clock that something moves.
    sent: u64,
    /// Set once the channel is gone.
    mute: bool,
}

impl Outbox {
    pub(super) fn push(&mut self, wish: SagaOutput) {
        self.local.push_back(wish);
    }

    /// Queues a message and gives its bytes.
    pub(super) fn send(&mut self, message: &Message) -> Bytes {
        let bytes = message.encode();
        if !self.mute {
            self.sends.push_back(bytes.clone());
        }
        bytes
    }

    pub(super) fn release(&mut self, bytes: u64) {
        match self.local.back_mut() {
            Some(SagaOutput::Release(sum)) => *sum += bytes,
            _ if bytes > 0 => self.local.push_back(SagaOutput::Release(bytes)),
            _ => {}
        }
    }

    /// Nothing but [`SagaOutput::Done`] follows.
    pub(super) fn finish(&mut self, outcome: SagaOutcome) {
        // What was received before a cut is kept, so that it need not be sent again.
        let cut = matches!(outcome, SagaOutcome::Interrupted { .. });
        self.local.retain(|wish| cut && matches!(wish, SagaOutput::Stage { .. }));
        self.done.get_or_insert(outcome);
    }

    /// Forgets messages that were not handed out.
    pub(super) fn drop_sends(&mut self) {
        self.sends.clear();
    }

    /// No more messages.
    pub(super) fn mute(&mut self) {
        self.sends.clear();
        self.mute = true;
    }

    pub(super) fn sent_count(&self) -> u64 {
        self.sent
    }

    /// Counts a message that was made just now.
    pub(super) fn sent(&mut self, bytes: Bytes) -> SagaOutput {
        self.sent += 1;
        SagaOutput::Send(bytes)
    }

    pub(super) fn poll_eager(&mut self) -> Option<SagaOutput> {
        if let Some(wish) = self.local.pop_front() {
            return Some(wish);
        }
        let bytes = self.sends.pop_front()?;
        Some(self.sent(bytes))
    }

    pub(super) fn poll_local(&mut self) -> Option<SagaOutput> {
        match self.local.pop_front() {
            None if self.sends.is_empty() => self.poll_done(),
            wish => wish,
        }
    }

    pub(super) fn poll_done(&mut self) -> Option<SagaOutput> {
        self.done.take().map(SagaOutput::Done)
    }
}
