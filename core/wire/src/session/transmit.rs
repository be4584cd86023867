//! Frames out: what a path carries next, and which channel's turn it is. Spec: link C.9.2–C.9.4.

use bytes::Bytes;
use sealtide_crypto::Now;

use super::event::{Event, Head, PathId, Transmit};
use super::outbox::Sequenced;
use super::path::PING_BYTES;
use super::{ChannelId, Over, Session};
use crate::frame::{FrameType, HEADER_BYTES, Header, Notice, SEQ_BYTES};

/// Part of the send buffer that DATA leaves to control frames, so that a full buffer cannot hold back the CREDIT that
/// would empty the peer's.
const CONTROL_RESERVE_BYTES: usize = 64 * 1024;

impl Session {
    /// The next frame for `path`, of at most `bytes_max` bytes; none when there is nothing to send now.
    /// A batch of 16 + 65,536 bytes always has room for a frame.
    pub fn poll_transmit(&mut self, now: Now, path: PathId, bytes_max: usize) -> Option<Transmit> {
        self.now = now.mono_ms;
        let transmit = match &self.over {
            Some(Over::Silent) => None,
            Some(Over::Aborting(notice)) => abort_frame(self.paths.get_mut(&path)?, notice, bytes_max),
            Some(Over::ClosedByPeer) => self.plain_frame(path, bytes_max),
            None => self.plain_frame(path, bytes_max).or_else(|| self.sequenced_frame(path, bytes_max)),
        }?;
        self.stats.frames_sent += 1;
        self.stats.bytes_sent += transmit.frame_bytes() as u64;
        Some(transmit)
    }

    /// PONG, PATH_END, PING and ACK.
    fn plain_frame(&mut self, id: PathId, bytes_max: usize) -> Option<Transmit> {
        if bytes_max < HEADER_BYTES + PING_BYTES {
            return None;
        }
        let (now, next) = (self.now, self.inbox.next());
        let path = self.paths.get_mut(&id)?;
        let plain = |kind, payload: &[u8]| {
            let len = u32::try_from(payload.len()).expect("8 or 16 bytes");
            Some(Transmit { head: Head::of(&Header::plain(kind, len), payload), payload: Bytes::new() })
        };
        if let Some(payload) = path.pongs.pop_front() {
            path.ack = true;
            return plain(FrameType::Pong, &payload);
        }
        if let Some(next) = path.end.take() {
            return plain(FrameType::PathEnd, &next.to_be_bytes());
        }
        if std::mem::take(&mut path.ping) {
            let payload = path.ping(now);
            return plain(FrameType::Ping, &payload);
        }
        if std::mem::take(&mut path.ack) {
            self.inbox.acknowledged();
            return plain(FrameType::Ack, &next.to_be_bytes());
        }
        None
    }

    /// Repeats a frame, or numbers a new one.
    fn sequenced_frame(&mut self, path: PathId, bytes_max: usize) -> Option<Transmit> {
        if self.active != Some(path) {
            return None;
        }
        if self.outbox.peek().is_none() {
            let frame = self.next_frame(bytes_max)?;
            self.outbox.push(frame);
        }
        let (seq, frame) = self.outbox.peek()?;
        if frame.wire_bytes() > bytes_max {
            return None;
        }
        let transmit = Transmit { head: frame.head(seq), payload: frame.payload.clone() };
        if !self.outbox.is_outstanding() {
            self.outstanding_since = self.now;
            self.progress_since = self.now;
        }
        if self.outbox.advance() {
            self.stats.frames_retransmitted += 1;
        }
        let now = self.now;
        if let Some(path) = self.paths.get_mut(&path).filter(|path| path.wants_sample(now)) {
            path.ping = true;
        }
        Some(transmit)
    }

    fn next_frame(&mut self, bytes_max: usize) -> Option<Sequenced> {
        if self.outbox.control() < self.config.limits.control_unacked_max
            && let Some(frame) = self.next_control()
        {
            return Some(frame);
        }
        // Spec: LK-42
        let data_limit = self.config.limits.send_buffer_bytes.saturating_sub(CONTROL_RESERVE_BYTES);
        if self.outbox.bytes() < data_limit
            && let Some(frame) = self.next_data(bytes_max)
        {
            return Some(frame);
        }
        self.next_close()
    }

    /// RESET, CREDIT, then the frames of the layer above.
    fn next_control(&mut self) -> Option<Sequenced> {
        while let Some(id) = self.resets.pop_front() {
            if let Some(channel) = self.channels.get_mut(&id)
                && let Some(code) = channel.outflow.reset
                && !channel.over
            {
                channel.outflow.ended = true;
                self.settle(id);
                return Some(Sequenced::new(FrameType::Reset, id, Bytes::copy_from_slice(&code.to_be_bytes())));
            }
        }
        if !self.hold_credit {
            if let Some(limit) = self.window.due() {
                self.window.announced(limit);
                return Some(credit_frame(0, limit));
            }
            while let Some(id) = self.credits.pop_front() {
                let Some(channel) = self.channels.get_mut(&id) else { continue };
                channel.credit_listed = false;
                if channel.inflow.end.is_none()
                    && !channel.inflow.discard
                    && !channel.outflow.is_unopened()
                    && let Some(limit) = channel.inflow.window.due()
                {
                    channel.inflow.window.announced(limit);
                    return Some(credit_frame(id, limit));
                }
            }
        }
        self.control.pop_front()
    }

    /// Class 0 first, one frame per channel in turn; then weighted deficit round robin. Spec: LK-46
    fn next_data(&mut self, bytes_max: usize) -> Option<Sequenced> {
        let room = bytes_max.checked_sub(HEADER_BYTES + SEQ_BYTES)?;
        while let Some(&id) = self.urgent.front() {
            match self.offer(id, room) {
                Offer::Nothing => {
                    self.urgent.pop_front();
                }
                Offer::Wait => return None,
                Offer::Bytes(len) => {
                    self.urgent.rotate_left(1);
                    return self.cut(id, len);
                }
            }
        }
        while let Some(&id) = self.ring.front() {
            match self.offer(id, room) {
                Offer::Nothing => {
                    self.ring.pop_front();
                }
                Offer::Wait => return None,
                Offer::Bytes(len) => {
                    let channel = self.channels.get_mut(&id)?;
                    if channel.deficit <= 0 {
                        channel.deficit += channel.turn_bytes();
                        self.ring.rotate_left(1);
                        continue;
                    }
                    // A frame without payload has a price too, or a flood of empty messages would keep the turn.
                    channel.deficit -= i64::try_from(len + HEADER_BYTES + SEQ_BYTES).unwrap_or(i64::MAX);
                    return self.cut(id, len);
                }
            }
        }
        None
    }

    /// What the channel at the front could send; one that has nothing leaves the list.
    fn offer(&mut self, id: u16, room: usize) -> Offer {
        let limits = &self.config.limits;
        let most = u64::from(limits.data_payload_bytes.min(self.config.theirs.max_payload).max(1));
        let Some(channel) = self.channels.get_mut(&id) else { return Offer::Nothing };
        let most = if channel.outflow.is_unopened() { u64::MAX } else { most };
        let Some(len) = channel.outflow.next_len(most) else {
            channel.listed = false;
            channel.deficit = channel.deficit.min(0);
            return Offer::Nothing;
        };
        let left = self.allowance.left();
        let len = match usize::try_from(left) {
            // An opening part cannot be cut, nor can a piece when nothing is left.
            Ok(left) if len > left && (left == 0 || channel.outflow.is_unopened()) => return Offer::Wait,
            Ok(left) => len.min(left),
            Err(_) => len,
        };
        if len > room { Offer::Wait } else { Offer::Bytes(len) }
    }

    fn cut(&mut self, id: u16, len: usize) -> Option<Sequenced> {
        self.allowance.spend(len as u64);
        let channel = self.channels.get_mut(&id)?;
        let frame = channel.outflow.cut(id, len);
        if channel.outflow.tell_writable(self.config.limits.queue_bytes) {
            self.events.push_back(Event::Writable { channel: ChannelId(id) });
        }
        // The raise of a channel that we opened can leave now that the peer will know of it.
        self.list_credit(id);
        self.settle(id);
        Some(frame)
    }

    /// CLOSE, once everything queued has its number.
    fn next_close(&mut self) -> Option<Sequenced> {
        let end = self.outbox.end();
        let closing = self.closing.as_mut().filter(|closing| closing.seq.is_none())?;
        let waiting = !self.control.is_empty()
            || !self.resets.is_empty()
            || self.channels.values().any(|channel| !channel.outflow.queue_is_empty());
        if waiting {
            return None;
        }
        closing.seq = Some(end);
        Some(Sequenced::new(FrameType::Close, 0, Bytes::copy_from_slice(&closing.code.to_be_bytes())))
    }
}

enum Offer {
    /// The channel leaves the list.
    Nothing,
    /// Nothing can leave now: no session credit, or no room in the batch.
    Wait,
    /// A frame with this many bytes of payload.
    Bytes(usize),
}

fn credit_frame(channel: u16, limit: u64) -> Sequenced {
    Sequenced::new(FrameType::Credit, channel, Bytes::copy_from_slice(&limit.to_be_bytes()))
}

fn abort_frame(path: &mut super::path::Path, notice: &Notice, bytes_max: usize) -> Option<Transmit> {
    let frame = Bytes::from(notice.frame(FrameType::Abort));
    if path.abort_sent || frame.len() > bytes_max {
        return None;
    }
    path.abort_sent = true;
    let payload = frame.slice(HEADER_BYTES..);
    let len = u32::try_from(payload.len()).expect("at most 122 bytes");
    Some(Transmit { head: Head::of(&Header::plain(FrameType::Abort, len), &[]), payload })
}
