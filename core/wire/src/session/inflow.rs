//! The receive half of a channel: bytes, message ends, and who has asked for them. Spec: link C.9.3.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::credit::{Exceeded, Window};
use super::event::{Fragment, RecvError};

/// Payloads that wait are collected in pieces of at least this size where their message goes on …
const COLLECT_BYTES: usize = 16 * 1024;
/// … and of at most this size.
const COLLECT_BYTES_MAX: usize = 256 * 1024;

/// How the peer's direction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Finished,
    Reset(u16),
}

/// Equal message lengths in a row, so that a flood of empty messages costs one entry.
#[derive(Debug)]
struct Run {
    len: u64,
    count: u64,
}

/// What a reader got, and the bytes to give back to the session.
pub(super) struct Taken<T> {
    pub(super) value: T,
    pub(super) session_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Inflow {
    pub(super) window: Window,
    chunks: VecDeque<Bytes>,
    /// The bytes behind the chunks, still growing.
    tail: BytesMut,
    /// Bytes of the last whole message: the next one is likely to be as long.
    last_whole: usize,
    /// Whole messages at the front of the bytes.
    whole: VecDeque<Run>,
    /// Bytes of the message that has not ended.
    partial: u64,
    /// Bytes in chunks and tail.
    buffered: u64,
    /// The first of them that are given back to the session already, because a reader waits for their message.
    taken: u64,
    /// A reader waits for a whole message (`Some(false)`) or for any bytes (`Some(true)`).
    asked: Option<bool>,
    /// Readable was told and the reader has not come back since.
    told: bool,
    pub(super) end: Option<End>,
    /// The reader was told the end.
    pub(super) end_seen: bool,
    /// This end reset the channel: what still arrives is dropped.
    pub(super) discard: bool,
}

impl Inflow {
    pub(super) fn new(window: u64) -> Self {
        Self {
            window: Window::new(window),
            chunks: VecDeque::new(),
            tail: BytesMut::new(),
            last_whole: 0,
            whole: VecDeque::new(),
            partial: 0,
            buffered: 0,
            taken: 0,
            asked: None,
            told: false,
            end: None,
            end_seen: false,
            discard: false,
        }
    }

    /// Counts bytes against the window.
    pub(super) fn receive(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.window.receive(bytes)
    }

    /// Takes the bytes of a frame; `end` ends a message. Returns the bytes that the session gets back at once.
    pub(super) fn push(&mut self, payload: &[u8], end: bool) -> u64 {
        let len = payload.len() as u64;
        if self.discard {
            return len;
        }
        let belongs_to_head = self.whole.is_empty();
        self.append(payload, end);
        self.partial += len;
        if end {
            let len = std::mem::take(&mut self.partial);
            self.last_whole = usize::try_from(len).unwrap_or(usize::MAX);
            match self.whole.back_mut() {
                Some(run) if run.len == len => run.count += 1,
                _ => self.whole.push_back(Run { len, count: 1 }),
            }
        }
        if belongs_to_head && self.asked.is_some() {
            self.taken += len;
            len
        } else {
            0
        }
    }

    /// Whether Readable is to be told now; true once until the reader comes back.
    pub(super) fn tell(&mut self) -> bool {
        let ready = match self.asked {
            // A reader that was never here may want fragments, or learn that a message is too large.
            None | Some(true) => self.buffered > 0 || !self.whole.is_empty(),
            Some(false) => !self.whole.is_empty() || self.is_too_large(),
        };
        if !ready || self.told || self.discard {
            return false;
        }
        self.told = true;
        self.asked = None;
        true
    }

    /// The next whole message.
    pub(super) fn recv(&mut self) -> Result<Taken<Option<Bytes>>, RecvError> {
        if let Some(len) = self.pop_whole() {
            let value = self.take_bytes(len);
            return Ok(Taken { value: Some(value), session_bytes: self.count_out(len) });
        }
        if self.is_too_large() {
            return Err(RecvError::TooLarge { window: self.window.window() });
        }
        self.wait(false)
    }

    /// The next piece of a message.
    pub(super) fn recv_fragment(&mut self) -> Result<Taken<Option<Fragment>>, RecvError> {
        let (left, whole) = match self.pop_whole() {
            Some(len) => (len, true),
            None if self.partial > 0 => (self.partial, false),
            None => return self.wait(true),
        };
        let len = self.chunks.front().map_or(self.tail.len(), Bytes::len) as u64;
        let len = len.min(left);
        let bytes = self.take_bytes(len);
        let end = whole && len == left;
        if !whole {
            self.partial -= len;
        } else if !end {
            self.whole.push_front(Run { len: left - len, count: 1 });
        }
        Ok(Taken { value: Some(Fragment { bytes, end }), session_bytes: self.count_out(len) })
    }

    /// Drops everything unread; returns the bytes that the session gets back.
    pub(super) fn drop_unread(&mut self) -> u64 {
        let back = self.buffered - self.taken;
        self.chunks = VecDeque::new();
        self.tail = BytesMut::new();
        self.whole = VecDeque::new();
        (self.partial, self.buffered, self.taken) = (0, 0, 0);
        back
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_inside_message(&self) -> bool {
        self.partial > 0
    }

    pub(super) fn is_drained(&self) -> bool {
        self.buffered == 0 && self.whole.is_empty()
    }

    /// Bytes that no reader has taken.
    pub(super) fn unread(&self) -> u64 {
        self.buffered - self.taken
    }

    /// The head message fills the window and has not ended: no CREDIT will ever come for its rest.
    fn is_too_large(&self) -> bool {
        self.whole.is_empty() && self.partial >= self.window.window()
    }

    /// Nothing to hand out: the head message so far counts as taken, so that half a message holds no session credit.
    fn wait<T>(&mut self, any: bool) -> Result<Taken<Option<T>>, RecvError> {
        if let Some(end) = self.end {
            self.end_seen = true;
            return Err(match end {
                End::Finished => RecvError::Ended,
                End::Reset(code) => RecvError::Reset(code),
            });
        }
        self.asked = Some(any);
        self.told = false;
        let session_bytes = self.buffered - self.taken;
        self.taken = self.buffered;
        Ok(Taken { value: None, session_bytes })
    }

    /// Copies the payload behind what waits. A message that goes on gets a piece in which it is likely to fit whole, so
    /// that taking it copies nothing.
    fn append(&mut self, payload: &[u8], end: bool) {
        self.buffered += payload.len() as u64;
        if self.tail.len() + payload.len() > self.tail.capacity() {
            let likely = self.last_whole.clamp(COLLECT_BYTES, COLLECT_BYTES_MAX);
            if self.tail.len() + payload.len() > likely {
                self.flush_tail();
            }
            self.tail.reserve(if end {
                payload.len()
            } else {
                likely.saturating_sub(self.tail.len()).max(payload.len())
            });
        }
        self.tail.extend_from_slice(payload);
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.tail).freeze());
        }
    }

    fn pop_whole(&mut self) -> Option<u64> {
        let run = self.whole.front_mut()?;
        let len = run.len;
        run.count -= 1;
        if run.count == 0 {
            self.whole.pop_front();
        }
        Some(len)
    }

    /// The first `len` bytes, without a copy when one piece holds them.
    fn take_bytes(&mut self, len: u64) -> Bytes {
        let left = usize::try_from(len).expect("no more than what is in memory");
        self.buffered -= len;
        if self.chunks.front().map_or(self.tail.len(), Bytes::len) >= left {
            return self.take_piece(left);
        }
        let mut message = BytesMut::with_capacity(left);
        while message.len() < left {
            let piece = self.take_piece(left - message.len());
            message.extend_from_slice(&piece);
        }
        message.freeze()
    }

    /// At most `most` bytes of the first piece.
    fn take_piece(&mut self, most: usize) -> Bytes {
        let Some(chunk) = self.chunks.front_mut() else {
            let piece = self.tail.split_to(most.min(self.tail.len()));
            if self.tail.is_empty() {
                // A channel that waits holds no buffer.
                self.tail = BytesMut::new();
            }
            return piece.freeze();
        };
        let piece = chunk.split_to(most.min(chunk.len()));
        if chunk.is_empty() {
            self.chunks.pop_front();
        }
        piece
    }

    /// Bytes that were handed out; the part that the session has not got back yet.
    fn count_out(&mut self, len: u64) -> u64 {
        let before = self.taken.min(len);
        self.taken -= before;
        len - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize, value: u8) -> Bytes {
        Bytes::from(vec![value; len])
    }

    #[test]
    fn messages_keep_their_bounds_over_small_and_large_pieces() {
        let mut inflow = Inflow::new(1 << 20);
        let lens = [0, 1, 5_000, 0, 0, 3, 4_096, 20_000, 7];
        for (at, len) in lens.into_iter().enumerate() {
            let whole = bytes(len, at as u8);
            inflow.push(&whole[..len / 2], false);
            inflow.push(&whole[len / 2..], true);
        }
        for (at, len) in lens.into_iter().enumerate() {
            let taken = inflow.recv().unwrap();
            assert_eq!((taken.value, taken.session_bytes), (Some(bytes(len, at as u8)), len as u64));
        }
        assert!(inflow.recv().unwrap().value.is_none() && inflow.is_drained());
    }

    #[test]
    fn half_a_message_that_is_waited_for_holds_no_session_credit() {
        let mut inflow = Inflow::new(100);
        assert_eq!(inflow.push(&bytes(10, 0), false), 0);
        let taken = inflow.recv().unwrap();
        assert_eq!((taken.value, taken.session_bytes), (None, 10));
        assert_eq!(inflow.push(&bytes(20, 0), false), 20);
        assert_eq!(inflow.push(&bytes(5, 0), true), 5);
        assert_eq!(inflow.push(&bytes(7, 1), true), 0, "nobody waits for the second message");
        let taken = inflow.recv().unwrap();
        assert_eq!((taken.value, taken.session_bytes), (Some(bytes(35, 0)), 0));
        assert_eq!(inflow.recv().unwrap().session_bytes, 7);
    }

    #[test]
    fn a_message_above_the_window_is_an_error_and_can_be_read_by_fragments() {
        let mut inflow = Inflow::new(100);
        inflow.receive(100).unwrap();
        assert!(inflow.recv().unwrap().value.is_none());
        inflow.push(&bytes(100, 0), false);
        assert!(inflow.tell(), "the reader that waits is woken for the error");
        assert!(matches!(inflow.recv(), Err(RecvError::TooLarge { window: 100 })));
        let Fragment { bytes: piece, end } = inflow.recv_fragment().unwrap().value.unwrap();
        assert_eq!((piece.len(), end), (100, false));
        assert!(inflow.recv_fragment().unwrap().value.is_none());
        inflow.push(&[], true);
        assert!(inflow.tell());
        assert_eq!(inflow.recv_fragment().unwrap().value, Some(Fragment { bytes: Bytes::new(), end: true }));
    }
}
