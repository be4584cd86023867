//! The send half of a channel: queued messages, cut into DATA frames as credit allows. Spec: link C.9.3, C.9.4.

use std::collections::VecDeque;

use bytes::Bytes;

use super::credit::Allowance;
use super::outbox::Sequenced;
use crate::frame::FrameType;

/// DATA flag: end of a message.
pub(super) const FLAG_MESSAGE_END: u8 = 1;
/// DATA flag: end of the channel, in this direction.
pub(super) const FLAG_CHANNEL_END: u8 = 2;
/// DATA flag: opens the channel.
pub(super) const FLAG_OPEN: u8 = 4;
/// Messages that wait in one channel, however small.
const QUEUE_MESSAGES: usize = 256;

#[derive(Debug)]
pub(super) struct Outflow {
    pub(super) allowance: Allowance,
    /// The payload of the opening frame until it is framed.
    opening: Option<Bytes>,
    queue: VecDeque<Bytes>,
    queued: usize,
    finish: bool,
    /// The frame that ends this direction was numbered.
    pub(super) ended: bool,
    /// A RESET waits to be framed.
    pub(super) reset: Option<u16>,
    blocked: bool,
}

impl Outflow {
    pub(super) fn new(allowance: u64, opening: Option<Bytes>) -> Self {
        Self {
            allowance: Allowance::new(allowance),
            opening,
            queue: VecDeque::new(),
            queued: 0,
            finish: false,
            ended: false,
            reset: None,
            blocked: false,
        }
    }

    /// Queues a message: one of any length, or several that together stay within `queue_bytes`.
    pub(super) fn push(&mut self, message: Bytes, queue_bytes: usize) -> Result<(), Bytes> {
        let fits = self.queued + message.len() <= queue_bytes && self.queue.len() < QUEUE_MESSAGES;
        if !self.queue.is_empty() && !fits {
            self.blocked = true;
            return Err(message);
        }
        self.queued += message.len();
        self.queue.push_back(message);
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        self.finish = true;
    }

    /// Whether messages may still be queued.
    pub(super) fn is_writable(&self) -> bool {
        !self.finish && !self.ended && self.reset.is_none()
    }

    /// The peer does not know of the channel yet.
    pub(super) fn is_unopened(&self) -> bool {
        self.opening.is_some()
    }

    /// Drops what is queued.
    pub(super) fn clear(&mut self) {
        self.queue = VecDeque::new();
        self.queued = 0;
        self.finish = false;
    }

    /// Bytes of the next frame's payload; none when there is nothing, or no credit of the channel.
    /// `most` bounds a piece of a message.
    pub(super) fn next_len(&self, most: u64) -> Option<usize> {
        if self.ended || self.reset.is_some() {
            return None;
        }
        let left = self.allowance.left();
        if let Some(opening) = &self.opening {
            return (opening.len() as u64 <= left.min(most)).then_some(opening.len());
        }
        match self.queue.front() {
            Some(message) if message.is_empty() => Some(0),
            Some(message) => {
                let len = (message.len() as u64).min(left).min(most);
                (len > 0).then_some(usize::try_from(len).expect("at most the length of a message in memory"))
            }
            None => self.finish.then_some(0),
        }
    }

    /// Whether there is a frame to send as far as the channel is concerned.
    pub(super) fn is_sendable(&self) -> bool {
        self.next_len(u64::MAX).is_some()
    }

    /// Cuts the frame of `next_len`.
    pub(super) fn cut(&mut self, channel: u16, len: usize) -> Sequenced {
        self.allowance.spend(len as u64);
        if let Some(payload) = self.opening.take() {
            return Sequenced { kind: FrameType::Data, flags: FLAG_OPEN, channel, payload };
        }
        let mut frame = Sequenced::new(FrameType::Data, channel, Bytes::new());
        if let Some(message) = self.queue.front_mut() {
            frame.payload = message.split_to(len);
            self.queued -= len;
            if message.is_empty() {
                frame.flags = FLAG_MESSAGE_END;
                self.queue.pop_front();
            }
        }
        if self.finish && self.queue.is_empty() {
            frame.flags |= FLAG_CHANNEL_END;
            self.ended = true;
            self.queue = VecDeque::new();
        }
        frame
    }

    /// Whether a writer that was refused can go on; true once. Waking it at half a queue keeps the frames coming.
    pub(super) fn tell_writable(&mut self, queue_bytes: usize) -> bool {
        let room = self.queue.is_empty() || (self.queued <= queue_bytes / 2 && self.queue.len() <= QUEUE_MESSAGES / 2);
        let tell = self.blocked && room && self.is_writable();
        if tell {
            self.blocked = false;
        }
        tell
    }

    pub(super) fn queue_is_empty(&self) -> bool {
        self.queue.is_empty() && self.opening.is_none() && (!self.finish || self.ended)
    }
}
