//! Sequenced frames on their way: numbered, kept until acknowledged, repeated on another path. Spec: link C.9.2.

use std::collections::VecDeque;

use bytes::Bytes;

use super::event::Head;
use crate::frame::{FrameType, HEADER_BYTES, Header, SEQ_BYTES};

/// What a kept frame costs beside its payload.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// A sequenced frame without its number, which is its place in the outbox.
#[derive(Clone, Debug)]
pub(super) struct Sequenced {
    pub(super) kind: FrameType,
    pub(super) flags: u8,
    pub(super) channel: u16,
    pub(super) payload: Bytes,
}

impl Sequenced {
    pub(super) fn new(kind: FrameType, channel: u16, payload: Bytes) -> Self {
        Self { kind, flags: 0, channel, payload }
    }

    /// Bytes on the wire.
    pub(super) fn wire_bytes(&self) -> usize {
        HEADER_BYTES + SEQ_BYTES + self.payload.len()
    }

    /// Bytes counted against the send buffer.
    fn cost(&self) -> usize {
        FRAME_OVERHEAD_BYTES + self.payload.len()
    }

    fn is_control(&self) -> bool {
        self.kind != FrameType::Data
    }

    /// The header with its number.
    pub(super) fn head(&self, seq: u64) -> Head {
        let len = u32::try_from(self.payload.len()).expect("payloads are cut to at most max_payload, a u32");
        Head::of(&Header { kind: self.kind, flags: self.flags, channel: self.channel, len, seq: Some(seq) }, &[])
    }
}

/// The send side of the sequence. `base ≤ cursor ≤ end`: below `base` acknowledged, below `cursor` written to the
/// active path, below `end` numbered.
#[derive(Debug)]
pub(super) struct Outbox {
    base: u64,
    cursor: u64,
    /// One above the greatest number ever written to any path.
    written: u64,
    frames: VecDeque<Sequenced>,
    bytes: usize,
    control: usize,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { base: 1, cursor: 1, written: 1, frames: VecDeque::new(), bytes: 0, control: 0 }
    }

    /// Numbers a frame.
    pub(super) fn push(&mut self, frame: Sequenced) {
        self.bytes += frame.cost();
        self.control += usize::from(frame.is_control());
        self.frames.push_back(frame);
    }

    /// The frame to write next on the active path, and its number.
    pub(super) fn peek(&self) -> Option<(u64, &Sequenced)> {
        let index = usize::try_from(self.cursor - self.base).ok()?;
        Some((self.cursor, self.frames.get(index)?))
    }

    /// The frame of `peek` was written; returns whether it had been written before.
    pub(super) fn advance(&mut self) -> bool {
        self.cursor += 1;
        let again = self.cursor <= self.written;
        self.written = self.written.max(self.cursor);
        again
    }

    /// Everything below `next` has arrived; returns whether that is news. `next` is at most `end`.
    pub(super) fn acknowledge(&mut self, next: u64) -> bool {
        debug_assert!(next <= self.end());
        let news = next > self.base;
        while self.base < next {
            let Some(frame) = self.frames.pop_front() else { break };
            self.bytes -= frame.cost();
            self.control -= usize::from(frame.is_control());
            self.base += 1;
        }
        self.cursor = self.cursor.max(self.base);
        if self.frames.is_empty() {
            // An idle session holds no buffers.
            self.frames.shrink_to(16);
        }
        news
    }

    /// Nothing of it will be sent any more; the numbers stay for the counters.
    pub(super) fn discard(&mut self) {
        *self = Self { base: self.base, cursor: self.base, written: self.written, ..Self::new() };
    }

    /// Starts a run on another path at the last known `next` of the peer.
    pub(super) fn rewind(&mut self) {
        self.cursor = self.base;
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The number that the next new frame gets.
    pub(super) fn end(&self) -> u64 {
        self.base + self.frames.len() as u64
    }

    /// The frames given to some path so far end here; no honest peer acknowledges more.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Whether frames written to the active path are unacknowledged.
    pub(super) fn is_outstanding(&self) -> bool {
        self.cursor > self.base
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether a frame of this kind is kept.
    pub(super) fn holds(&self, kind: FrameType) -> bool {
        self.frames.iter().any(|frame| frame.kind == kind)
    }

    /// Control frames kept.
    pub(super) fn control(&self) -> usize {
        self.control
    }
}
