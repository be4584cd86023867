//! The receive side of the sequence: what is expected, and when it is acknowledged. Spec: link C.9.2 rules 2 and 4.

use super::event::PathId;

/// An ACK leaves after this many frames.
const ACK_FRAMES: u32 = 32;
/// An ACK leaves after this many bytes.
const ACK_BYTES: usize = 64 * 1024;
/// An ACK leaves this long after the first unacknowledged frame, in milliseconds.
const ACK_DELAY_MS: u64 = 25;

#[derive(Debug)]
pub(super) struct Inbox {
    next: u64,
    frames: u32,
    bytes: usize,
    due: Option<u64>,
    last_path: Option<PathId>,
}

/// Where a sequence number stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Duplicate,
    Next,
    Gap,
}

impl Inbox {
    pub(super) fn new() -> Self {
        Self { next: 1, frames: 0, bytes: 0, due: None, last_path: None }
    }

    pub(super) fn order(&self, seq: u64) -> Order {
        match seq.cmp(&self.next) {
            std::cmp::Ordering::Less => Order::Duplicate,
            std::cmp::Ordering::Equal => Order::Next,
            std::cmp::Ordering::Greater => Order::Gap,
        }
    }

    /// The next frame in order was put into the session.
    pub(super) fn deliver(&mut self) {
        self.next += 1;
    }

    /// Counts a sequenced frame towards the next ACK, duplicates too, since they show that an ACK was lost.
    /// Returns whether it is to leave now.
    pub(super) fn note(&mut self, now_ms: u64, path: PathId, wire_bytes: usize) -> bool {
        self.last_path = Some(path);
        self.frames += 1;
        self.bytes += wire_bytes;
        self.due.get_or_insert(now_ms + ACK_DELAY_MS);
        self.frames >= ACK_FRAMES || self.bytes >= ACK_BYTES
    }

    /// The ACK that was due waits for its path now.
    pub(super) fn left_to_path(&mut self) {
        self.due = None;
    }

    /// An ACK was written.
    pub(super) fn acknowledged(&mut self) {
        self.frames = 0;
        self.bytes = 0;
        self.due = None;
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn due(&self) -> Option<u64> {
        self.due
    }

    pub(super) fn last_path(&self) -> Option<PathId> {
        self.last_path
    }

    /// The path is gone; ACKs follow the active path until a frame arrives.
    pub(super) fn forget_path(&mut self, path: PathId) {
        if self.last_path == Some(path) {
            self.last_path = None;
        }
    }
}
