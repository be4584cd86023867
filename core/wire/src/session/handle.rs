//! Frames in: order, meaning, and the rules the peer must keep. Spec: link C.9.1–C.9.4.

use bytes::{Buf, Bytes};
use sealtide_crypto::Now;

use super::channel::{CLASS_MAX, Channel};
use super::config::window_of;
use super::credit::Exceeded;
use super::event::{ChannelId, Event, PathFailure, PathId, Scope, SessionError};
use super::inbox::Order;
use super::inflow::{End, Inflow};
use super::outflow::{FLAG_CHANNEL_END, FLAG_MESSAGE_END, FLAG_OPEN, Outflow};
use super::path::PING_BYTES;
use super::{Over, Session};
use crate::frame::{FrameType, Header, Notice};

impl Session {
    /// Takes one frame. `payload` has `header.len` bytes; what readers have not taken is kept as a copy, so the driver's
    /// buffer is free again afterwards.
    ///
    /// # Errors
    /// [`SessionError`]: the peer broke a rule; [`SessionError::scope`] says what dies, and has been detached or
    /// aborted already.
    pub fn handle_frame(&mut self, now: Now, path: PathId, header: Header, payload: &[u8]) -> Result<(), SessionError> {
        self.now = now.mono_ms;
        if self.over.is_some() {
            return Err(SessionError::Over);
        }
        let in_use = self.active == Some(path) || self.inbox.last_path() == Some(path);
        let interval = self.interval(in_use);
        let Some(found) = self.paths.get_mut(&path) else { return Err(SessionError::UnknownPath) };
        found.interval = interval;
        found.hear(self.now);
        self.stats.frames_received += 1;
        self.stats.bytes_received += header.frame_bytes() as u64;
        let result = match header.seq {
            _ if payload.len() != header.len as usize || header.len > self.config.ours.max_payload => {
                Err(SessionError::Malformed(header.kind))
            }
            None => self.plain(path, header, payload),
            Some(seq) => self.sequenced(path, header, seq, payload),
        };
        if let Err(error) = &result {
            match error.scope() {
                Scope::Path => self.detach(path),
                Scope::Session => self.abort(error.code(), &error.to_string()),
            }
        }
        result
    }

    fn plain(&mut self, path: PathId, header: Header, payload: &[u8]) -> Result<(), SessionError> {
        let kind = header.kind;
        let malformed = SessionError::Malformed(kind);
        if header.flags != 0 || header.channel != 0 {
            return Err(malformed);
        }
        match kind {
            FrameType::Padding => {}
            FrameType::Ping => {
                let payload: [u8; PING_BYTES] = payload.try_into().map_err(|_| malformed)?;
                if let Some(path) = self.paths.get_mut(&path) {
                    path.queue_pong(payload);
                }
            }
            FrameType::Pong => {
                let payload: [u8; PING_BYTES] = payload.try_into().map_err(|_| malformed)?;
                let now = self.now;
                if let Some(path) = self.paths.get_mut(&path) {
                    path.pong(now, &payload);
                }
            }
            FrameType::Ack => {
                let next = u64::from_be_bytes(payload.try_into().map_err(|_| malformed)?);
                let sent = self.outbox.written();
                if next > sent {
                    return Err(SessionError::AckOfUnsent { next, sent });
                }
                self.acknowledged(next);
            }
            // What follows on this path is judged by its number alone; this only tells when the path may be closed.
            FrameType::PathEnd => {
                let _: [u8; 8] = payload.try_into().map_err(|_| malformed)?;
                if let Some(path) = self.paths.get_mut(&path) {
                    path.peer_ended = true;
                }
            }
            FrameType::Error => {
                let notice = Notice::parse(payload).ok_or(malformed)?;
                self.events.push_back(Event::PathFailed { path, why: PathFailure::PeerError(notice.code) });
                self.detach(path);
            }
            FrameType::Abort => {
                let Notice { code, text } = Notice::parse(payload).ok_or(malformed)?;
                self.end(Over::Silent, Event::Aborted { code, text });
            }
            _ => return Err(SessionError::Unexpected(kind)),
        }
        Ok(())
    }

    fn sequenced(&mut self, path: PathId, header: Header, seq: u64, payload: &[u8]) -> Result<(), SessionError> {
        // Spec: LK-43
        match self.inbox.order(seq) {
            Order::Gap => return Err(SessionError::SequenceGap { expected: self.inbox.next(), found: seq }),
            Order::Duplicate => self.stats.frames_duplicate += 1,
            Order::Next => {
                self.deliver(header, payload)?;
                self.inbox.deliver();
            }
        }
        if let Some(path) = self.paths.get_mut(&path) {
            path.peer_ended = false;
        }
        let at_once = self.inbox.note(self.now, path, header.frame_bytes());
        if at_once || matches!(self.over, Some(Over::ClosedByPeer)) {
            self.ack_on(path);
        }
        Ok(())
    }

    /// Lets an ACK leave on the path.
    pub(super) fn ack_on(&mut self, path: PathId) {
        if let Some(path) = self.paths.get_mut(&path) {
            path.ack = true;
        }
    }

    fn deliver(&mut self, header: Header, payload: &[u8]) -> Result<(), SessionError> {
        let Header { kind, flags, channel, .. } = header;
        if kind == FrameType::Data {
            return self.data(flags, channel, payload);
        }
        let has_channel = matches!(kind, FrameType::Credit | FrameType::Reset);
        if flags != 0 || (channel != 0 && !has_channel) {
            return Err(SessionError::Malformed(kind));
        }
        let malformed = SessionError::Malformed(kind);
        match kind {
            FrameType::Credit => {
                let limit = u64::from_be_bytes(payload.try_into().map_err(|_| malformed)?);
                if channel == 0 {
                    self.allowance.raise(limit);
                } else if let Some(found) = self.channels.get_mut(&channel) {
                    found.outflow.allowance.raise(limit);
                    self.list(channel);
                }
                // One for a channel that this end has forgotten crossed with its end.
            }
            FrameType::Reset => {
                let code = u16::from_be_bytes(payload.try_into().map_err(|_| malformed)?);
                if channel == 0 {
                    return Err(SessionError::Malformed(kind));
                }
                self.peer_reset(channel, code);
            }
            FrameType::Close => {
                let code = u16::from_be_bytes(payload.try_into().map_err(|_| malformed)?);
                self.end(Over::ClosedByPeer, Event::PeerClosed { code });
            }
            _ => self.events.push_back(Event::Control { kind, payload: Bytes::copy_from_slice(payload) }),
        }
        Ok(())
    }

    fn data(&mut self, flags: u8, id: u16, mut payload: &[u8]) -> Result<(), SessionError> {
        let broken = |rule| SessionError::Channel { channel: id, rule };
        if flags & !(FLAG_MESSAGE_END | FLAG_CHANNEL_END | FLAG_OPEN) != 0 || id == 0 {
            return Err(SessionError::Malformed(FrameType::Data));
        }
        let message_end = flags & FLAG_MESSAGE_END != 0;
        let len = payload.len() as u64;
        // Spec: LK-109
        let above =
            |channel| move |Exceeded { received, limit }| SessionError::AboveCredit { channel, received, limit };
        self.window.receive(len).map_err(above(0))?;
        if flags & FLAG_OPEN != 0 {
            self.opened(id, &mut payload)?;
        } else if payload.is_empty() && flags == 0 {
            return Err(broken("a frame that says nothing"));
        }
        let Some(channel) = self.channels.get_mut(&id) else {
            return Err(broken("DATA on a channel that is not open"));
        };
        let inflow = &mut channel.inflow;
        if inflow.end.is_some() {
            return Err(broken("DATA after the end of its channel"));
        }
        inflow.receive(len).map_err(above(id))?;
        // The opening part is used up as soon as it is read.
        let opening = len - payload.len() as u64;
        inflow.window.give_back(opening);
        self.window.give_back(opening);
        if message_end || !payload.is_empty() {
            self.window.give_back(inflow.push(payload, message_end));
        }
        if flags & FLAG_CHANNEL_END != 0 {
            if inflow.is_inside_message() && !inflow.discard {
                return Err(broken("ends inside a message"));
            }
            inflow.end = Some(End::Finished);
            if !inflow.discard {
                self.events.push_back(Event::ChannelEnded { channel: ChannelId(id), code: None });
            }
        }
        self.tell_reader(id);
        self.list_credit(id);
        self.settle(id);
        Ok(())
    }

    /// Reads the opening part off the payload and makes the channel.
    fn opened(&mut self, id: u16, payload: &mut &[u8]) -> Result<(), SessionError> {
        let broken = |rule| SessionError::Channel { channel: id, rule };
        let theirs_are_odd = !self.config.initiator;
        if (id % 2 == 1) != theirs_are_odd {
            return Err(broken("opened with a number of the other side"));
        }
        match self.channels.get(&id) {
            Some(old) if !old.over => return Err(broken("opened twice")),
            // Its reader has not come for the rest; the peer cannot know.
            Some(_) => self.forget(id),
            None => {}
        }
        if self.open_theirs >= self.config.limits.channels_per_side {
            return Err(SessionError::TooManyChannels(self.config.limits.channels_per_side));
        }
        if payload.len() < 2 {
            return Err(broken("opened without class and name"));
        }
        let (class, name_len) = (payload.get_u8(), usize::from(payload.get_u8()));
        if class > CLASS_MAX || name_len == 0 || payload.len() < name_len {
            return Err(broken("opened with a bad class or name"));
        }
        let (name, rest) = payload.split_at(name_len);
        *payload = rest;
        let name = std::str::from_utf8(name).map_err(|_| broken("opened with a name that is no UTF-8"))?;
        let mut inflow = Inflow::new(u64::from(self.config.ours.channel_credit));
        inflow.window.raise(window_of(name, self.config.ours.channel_credit));
        let outflow = Outflow::new(u64::from(self.config.theirs.channel_credit), None);
        self.events.push_back(Event::ChannelOpened { channel: ChannelId(id), class, name: name.to_owned() });
        self.channels.insert(id, Channel::new(false, class, inflow, outflow));
        self.open_theirs += 1;
        self.idle_since = None;
        Ok(())
    }

    fn forget(&mut self, id: u16) {
        if let Some(mut old) = self.channels.remove(&id) {
            self.window.give_back(old.inflow.drop_unread());
        }
    }

    /// The peer wants no more of a channel. It is answered by our end of it, so that its opener knows when it is over.
    fn peer_reset(&mut self, id: u16, code: u16) {
        let Some(channel) = self.channels.get_mut(&id).filter(|channel| !channel.outflow.is_unopened()) else { return };
        if channel.inflow.end.is_none() {
            channel.inflow.end = Some(End::Reset(code));
            let back = channel.inflow.drop_unread();
            self.window.give_back(back);
        }
        channel.outflow.clear();
        if !channel.outflow.ended && channel.outflow.reset.is_none() {
            channel.outflow.reset = Some(code);
            self.resets.push_back(id);
        }
        if !channel.inflow.discard {
            self.events.push_back(Event::ChannelEnded { channel: ChannelId(id), code: Some(code) });
        }
        self.settle(id);
    }
}
