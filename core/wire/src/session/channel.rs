//! Channels as the layer above uses them: open, send, receive, release, finish, reset. Spec: link C.9.3, C.9.4.

use bytes::Bytes;

use super::config::window_of;
use super::event::{ChannelId, Event, Fragment, OpenError, RecvError, SendError};
use super::inflow::{End, Inflow, Taken};
use super::outflow::Outflow;
use super::{QUANTUM_BYTES, Session};

/// Longest name of a channel in bytes, by its length field.
const NAME_BYTES_MAX: usize = 255;
/// Classes are 0 to this.
pub(super) const CLASS_MAX: u8 = 7;

/// One channel, both directions.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) ours: bool,
    pub(super) class: u8,
    pub(super) inflow: Inflow,
    pub(super) outflow: Outflow,
    /// Bytes it may still send in this turn.
    pub(super) deficit: i64,
    /// It stands in the scheduler's list, in the list of due CREDITs, of due RESETs.
    pub(super) listed: bool,
    pub(super) credit_listed: bool,
    /// Ended in both directions, as far as its opener can know.
    pub(super) over: bool,
}

impl Channel {
    pub(super) fn new(ours: bool, class: u8, inflow: Inflow, outflow: Outflow) -> Self {
        Self { ours, class, inflow, outflow, deficit: 0, listed: false, credit_listed: false, over: false }
    }

    /// Bytes per turn: class 1 gets seven quanta, class 7 one.
    pub(super) fn turn_bytes(&self) -> i64 {
        QUANTUM_BYTES * i64::from((CLASS_MAX + 1).saturating_sub(self.class).max(1))
    }
}

impl Session {
    /// Opens a channel; messages can be sent at once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&mut self, class: u8, name: &str) -> Result<ChannelId, OpenError> {
        if self.is_ending() {
            return Err(OpenError::Over);
        }
        let name_bytes_max = NAME_BYTES_MAX.min((self.config.theirs.max_payload as usize).saturating_sub(2));
        if class > CLASS_MAX || name.is_empty() || name.len() > name_bytes_max {
            return Err(OpenError::BadName);
        }
        let most = self.config.limits.channels_per_side;
        if self.open_ours >= most {
            return Err(OpenError::TooMany(most));
        }
        let id = self.free_number().ok_or(OpenError::TooMany(most))?;
        let mut opening = Vec::with_capacity(2 + name.len());
        opening.push(class);
        opening.push(u8::try_from(name.len()).expect("checked above"));
        opening.extend_from_slice(name.as_bytes());
        let outflow = Outflow::new(u64::from(self.config.theirs.channel_credit), Some(opening.into()));
        let mut inflow = Inflow::new(u64::from(self.config.ours.channel_credit));
        inflow.window.raise(window_of(name, self.config.ours.channel_credit));
        self.channels.insert(id, Channel::new(true, class, inflow, outflow));
        self.open_ours += 1;
        self.idle_since = None;
        self.list(id);
        Ok(ChannelId(id))
    }

    /// Queues one message, of any length, zero included. It is cut into frames without copying.
    ///
    /// # Errors
    /// [`SendError`]; `WouldBlock` gives the message back.
    pub fn send(&mut self, channel: ChannelId, message: Bytes) -> Result<(), SendError> {
        if self.is_ending() {
            return Err(SendError::Over);
        }
        let queue_bytes = self.config.limits.queue_bytes;
        let found = self.channels.get_mut(&channel.0).ok_or(SendError::Closed)?;
        if !found.outflow.is_writable() {
            return Err(SendError::Closed);
        }
        found.outflow.push(message, queue_bytes).map_err(SendError::WouldBlock)?;
        self.list(channel.0);
        Ok(())
    }

    /// The next whole message; `Ok(None)`: not there yet, `Event::Readable` or `Event::ChannelEnded` follows. Call
    /// `release` with its length when its bytes are no longer held: held bytes count against the channel's window.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn recv(&mut self, channel: ChannelId) -> Result<Option<Bytes>, RecvError> {
        self.read(channel, Inflow::recv)
    }

    /// The next piece of a message, for messages above the window. Call `release` as for `recv`. After pieces of a
    /// message, `recv` gives its rest.
    ///
    /// # Errors
    /// [`RecvError`], never `TooLarge`.
    pub fn recv_fragment(&mut self, channel: ChannelId) -> Result<Option<Fragment>, RecvError> {
        self.read(channel, Inflow::recv_fragment)
    }

    /// Gives `bytes` that were received on the channel back to its window.
    pub fn release(&mut self, channel: ChannelId, bytes: u64) {
        if let Some(found) = self.channels.get_mut(&channel.0) {
            found.inflow.window.give_back(bytes.min(found.inflow.window.held() - found.inflow.unread()));
            self.list_credit(channel.0);
        }
    }

    /// Ends our direction of the channel after everything queued.
    pub fn finish(&mut self, channel: ChannelId) {
        if self.is_ending() {
            return;
        }
        if let Some(found) = self.channels.get_mut(&channel.0)
            && found.outflow.is_writable()
        {
            found.outflow.finish();
            self.list(channel.0);
        }
    }

    /// Ends both directions of the channel now: drops what is queued and what is unread. Also the way to forget a
    /// channel that ended, so call it whenever the last handle of a channel goes.
    pub fn reset(&mut self, channel: ChannelId, code: u16) {
        let Some(found) = self.channels.get_mut(&channel.0) else { return };
        let back = found.inflow.drop_unread();
        found.inflow.discard = true;
        let queue_reset = !found.over && found.outflow.reset.is_none();
        found.outflow.clear();
        let never_opened = found.outflow.is_unopened();
        if queue_reset && !never_opened {
            found.outflow.reset = Some(code);
            self.resets.push_back(channel.0);
        }
        self.window.give_back(back);
        if never_opened {
            self.channels.remove(&channel.0);
            self.open_ours -= 1;
            self.note_idle();
        } else {
            self.settle(channel.0);
        }
    }

    fn read<T>(
        &mut self,
        channel: ChannelId,
        take: fn(&mut Inflow) -> Result<Taken<Option<T>>, RecvError>,
    ) -> Result<Option<T>, RecvError> {
        let over = self.over.is_some();
        let Some(found) = self.channels.get_mut(&channel.0).filter(|found| !found.inflow.discard) else {
            return Err(if over { RecvError::Over } else { RecvError::Closed });
        };
        match take(&mut found.inflow) {
            Ok(taken) => {
                self.window.give_back(taken.session_bytes);
                if over && taken.value.is_none() { Err(RecvError::Over) } else { Ok(taken.value) }
            }
            Err(error) => {
                self.settle(channel.0);
                Err(error)
            }
        }
    }

    /// Puts a channel with something to send into the scheduler's list.
    pub(super) fn list(&mut self, id: u16) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.listed || self.over.is_some() || !channel.outflow.is_sendable() {
            return;
        }
        channel.listed = true;
        if channel.class == 0 {
            self.urgent.push_back(id);
        } else {
            if channel.deficit <= 0 {
                channel.deficit += channel.turn_bytes();
            }
            self.ring.push_back(id);
        }
    }

    /// Notes a CREDIT that is due. One that the peer cannot use any more is never sent.
    pub(super) fn list_credit(&mut self, id: u16) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let wanted = channel.inflow.end.is_none() && !channel.inflow.discard && !channel.outflow.is_unopened();
        if wanted && !channel.credit_listed && channel.inflow.window.due().is_some() {
            channel.credit_listed = true;
            self.credits.push_back(id);
        }
    }

    /// Counts a channel that has ended in both directions, and forgets it when nothing in it can be read any more.
    pub(super) fn settle(&mut self, id: u16) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if !(channel.outflow.ended && channel.inflow.end.is_some()) {
            return;
        }
        if !std::mem::replace(&mut channel.over, true) {
            let open = if channel.ours { &mut self.open_ours } else { &mut self.open_theirs };
            *open -= 1;
        }
        let gone = channel.inflow.discard
            || matches!(channel.inflow.end, Some(End::Reset(_)))
            || (channel.inflow.end_seen && channel.inflow.is_drained());
        if gone {
            let back = channel.inflow.drop_unread();
            self.channels.remove(&id);
            self.window.give_back(back);
        }
        self.note_idle();
    }

    /// Tells the reader of a channel when there is something for it.
    pub(super) fn tell_reader(&mut self, id: u16) {
        if let Some(channel) = self.channels.get_mut(&id)
            && channel.inflow.tell()
        {
            self.events.push_back(Event::Readable { channel: ChannelId(id) });
        }
    }

    fn note_idle(&mut self) {
        if self.open_ours + self.open_theirs == 0 {
            self.idle_since.get_or_insert(self.now);
        }
    }

    /// Numbers go round, so a frame about an earlier channel of the same number cannot still be under way: between the
    /// two uses thousands of later channels were opened and, but for 256, ended by the peer, in its order of frames.
    fn free_number(&mut self) -> Option<u16> {
        for _ in 0..=u16::MAX / 2 {
            let id = self.next_channel;
            self.next_channel = match id.wrapping_add(2) {
                // 0 is the session.
                0 => 2,
                next => next,
            };
            if !self.channels.contains_key(&id) {
                return Some(id);
            }
        }
        None
    }
}
