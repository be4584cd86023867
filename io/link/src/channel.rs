//! The handle of a channel: messages in both directions, usable from several tasks at once. Spec: link C.9.4.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use sealtide_wire::session::{ChannelId, Fragment, RecvError, SendError, SessionState};
use tokio::sync::Notify;

use crate::session::{Core, Shared};

/// One channel of a session. Clones share it; sending and receiving do not get in each other's way.
///
/// Dropping the last clone gives the channel up: with a reset, or, after [`Channel::finish`], once everything sent is
/// delivered.
#[derive(Clone, Debug)]
pub struct Channel {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    waiters: Arc<ChannelWaiters>,
    id: ChannelId,
    class: u8,
    name: String,
    finished: AtomicBool,
}

/// Who waits for the task of the session.
#[derive(Debug, Default)]
pub(crate) struct ChannelWaiters {
    pub(crate) readable: Notify,
    pub(crate) writable: Notify,
}

impl ChannelWaiters {
    pub(crate) fn wake_all(&self) {
        self.readable.notify_waiters();
        self.writable.notify_waiters();
    }
}

/// Why a channel takes or gives nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelClosed {
    /// The peer reset it.
    #[error("the peer reset the channel, code {0}")]
    Reset(u16),
    /// This end finished or reset it, or, when sending, the peer did.
    #[error("the channel is closed")]
    Closed,
    /// The session is over.
    #[error("the session is over")]
    SessionOver,
    /// The message is larger than the window; read it by [`Channel::recv_fragment`].
    #[error("the message is larger than the window of {window} bytes")]
    TooLarge {
        /// Bytes of the window.
        window: u64,
    },
}

/// Released bytes that the node's count of held bytes may not know of yet.
const UNCOUNTED_BYTES: u64 = 256 * 1024;

/// Why a message was not taken at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// An earlier message waits. Gives this one back.
    #[error("the channel is full")]
    Full(Bytes),
    /// The channel takes nothing more.
    #[error(transparent)]
    Closed(ChannelClosed),
}

fn closed(error: &SendError) -> ChannelClosed {
    match error {
        SendError::Over => ChannelClosed::SessionOver,
        _ => ChannelClosed::Closed,
    }
}

impl Channel {
    pub(crate) fn new(shared: Arc<Shared>, waiters: Arc<ChannelWaiters>, id: ChannelId, class: u8, name: &str) -> Self {
        let finished = AtomicBool::new(false);
        Self { inner: Arc::new(Inner { shared, waiters, id, class, name: name.to_owned(), finished }) }
    }

    /// 0 (control) to 7 (bulk).
    pub fn class(&self) -> u8 {
        self.inner.class
    }

    /// What its opener called it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Sends one message, of any length; waits while the channel is full.
    ///
    /// # Errors
    /// [`ChannelClosed`].
    pub async fn send(&self, message: Bytes) -> Result<(), ChannelClosed> {
        let mut message = message;
        loop {
            let writable = self.inner.waiters.writable.notified();
            tokio::pin!(writable);
            writable.as_mut().enable();
            let sent = self.inner.with(|core| core.send(self.inner.id, message));
            match sent.ok_or(ChannelClosed::Closed)? {
                Ok(()) => {
                    self.inner.shared.pump.wake();
                    return Ok(());
                }
                Err(SendError::WouldBlock(back)) => message = back,
                Err(error) => return Err(closed(&error)),
            }
            writable.await;
        }
    }

    /// Waits until [`Channel::try_send`] takes a message, of any length. Nothing is lost when the wait is dropped.
    ///
    /// # Errors
    /// [`ChannelClosed`].
    pub async fn ready(&self) -> Result<(), ChannelClosed> {
        loop {
            let writable = self.inner.waiters.writable.notified();
            tokio::pin!(writable);
            writable.as_mut().enable();
            let (parked, over) = self
                .inner
                .with(|core| (core.parked.contains_key(&self.inner.id), core.session.state() == SessionState::Closed))
                .ok_or(ChannelClosed::Closed)?;
            if over {
                return Err(ChannelClosed::SessionOver);
            }
            if !parked {
                return Ok(());
            }
            writable.await;
        }
    }

    /// Sends one message, of any length, at once: also when the channel is full, then it is the one that waits.
    ///
    /// # Errors
    /// [`TrySendError`]; `Full` while an earlier message waits, see [`Channel::ready`].
    pub fn try_send(&self, message: Bytes) -> Result<(), TrySendError> {
        let closed_before = TrySendError::Closed(ChannelClosed::Closed);
        let sent = self.inner.with(|core| {
            if core.parked.contains_key(&self.inner.id) {
                return Err(TrySendError::Full(message));
            }
            match core.session.send(self.inner.id, message) {
                Ok(()) => Ok(()),
                Err(SendError::WouldBlock(message)) => {
                    core.parked.insert(self.inner.id, Parked { message, finish: false });
                    Ok(())
                }
                Err(error) => Err(TrySendError::Closed(closed(&error))),
            }
        });
        self.inner.shared.pump.wake();
        sent.unwrap_or(Err(closed_before))
    }

    /// The next whole message; `None` after the last. Call [`Channel::release`] with its length when it is dealt with.
    ///
    /// # Errors
    /// [`ChannelClosed`].
    pub async fn recv(&self) -> Result<Option<Bytes>, ChannelClosed> {
        self.read(|core, id| core.session.recv(id)).await
    }

    /// The next piece of a message, for messages above the window; `None` after the last.
    ///
    /// # Errors
    /// [`ChannelClosed`], never `TooLarge`.
    pub async fn recv_fragment(&self) -> Result<Option<Fragment>, ChannelClosed> {
        self.read(|core, id| core.session.recv_fragment(id)).await
    }

    /// Gives `bytes` that were received back to the channel's window: its peer may send as many more.
    pub fn release(&self, bytes: u64) {
        let wake = self.inner.with(|core| {
            core.session.release(self.inner.id, bytes);
            core.uncounted += bytes;
            core.has_news()
        });
        if wake == Some(true) {
            self.inner.shared.pump.wake();
        }
    }

    /// Ends our direction after everything sent; receiving goes on.
    pub fn finish(&self) {
        self.inner.finished.store(true, Ordering::Relaxed);
        self.inner.with(|core| match core.parked.get_mut(&self.inner.id) {
            Some(parked) => parked.finish = true,
            None => core.session.finish(self.inner.id),
        });
        self.inner.shared.pump.wake();
    }

    /// Ends both directions now: what waits is dropped.
    pub fn reset(&self, code: u16) {
        self.inner.with(|core| {
            core.parked.remove(&self.inner.id);
            core.session.reset(self.inner.id, code);
        });
        self.inner.waiters.wake_all();
        self.inner.shared.pump.wake();
    }

    async fn read<T>(
        &self,
        mut take: impl FnMut(&mut Core, ChannelId) -> Result<Option<T>, RecvError>,
    ) -> Result<Option<T>, ChannelClosed> {
        loop {
            let readable = self.inner.waiters.readable.notified();
            tokio::pin!(readable);
            readable.as_mut().enable();
            let taken = self.inner.with(|core| (take(core, self.inner.id), core.has_news()));
            let (taken, has_news) = taken.ok_or(ChannelClosed::Closed)?;
            if has_news {
                self.inner.shared.pump.wake();
            }
            match taken {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(RecvError::Ended) => return Ok(None),
                Err(RecvError::Reset(code)) => return Err(ChannelClosed::Reset(code)),
                Err(RecvError::TooLarge { window }) => return Err(ChannelClosed::TooLarge { window }),
                Err(RecvError::Over) => return Err(ChannelClosed::SessionOver),
                Err(_) => return Err(ChannelClosed::Closed),
            }
            readable.await;
        }
    }
}

impl Inner {
    /// Runs `work` unless the session has given the number to a later channel.
    fn with<T>(&self, work: impl FnOnce(&mut Core) -> T) -> Option<T> {
        let mut core = self.shared.core();
        let own = core.waiters.get(&self.id).is_some_and(|waiters| Arc::ptr_eq(waiters, &self.waiters));
        own.then(|| work(&mut core))
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("id", &self.id.0).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let (id, finished) = (self.id, self.finished.load(Ordering::Relaxed));
        self.with(|core| {
            core.waiters.remove(&id);
            if finished {
                core.orphans.insert(id);
                core.drain_orphan(id);
            } else {
                core.parked.remove(&id);
                core.session.reset(id, 0);
            }
        });
        self.shared.pump.wake();
    }
}

/// A message that was taken although the channel was full, with what follows it.
#[derive(Debug)]
pub(crate) struct Parked {
    message: Bytes,
    finish: bool,
}

impl Core {
    /// Whether reading or releasing made something for the session's task to do: a CREDIT to write, or enough bytes to
    /// count that others may be waiting for.
    fn has_news(&self) -> bool {
        self.session.credit_is_due() || self.session.holds_credit() || self.uncounted >= UNCOUNTED_BYTES
    }

    /// Sends, but never past a message that waits.
    fn send(&mut self, id: ChannelId, message: Bytes) -> Result<(), SendError> {
        if self.parked.contains_key(&id) { Err(SendError::WouldBlock(message)) } else { self.session.send(id, message) }
    }

    /// The channel takes messages again: first the one that waits.
    pub(crate) fn unpark(&mut self, id: ChannelId) {
        let Some(Parked { message, finish }) = self.parked.remove(&id) else { return };
        match self.session.send(id, message) {
            Ok(()) if finish => self.session.finish(id),
            Err(SendError::WouldBlock(message)) => {
                self.parked.insert(id, Parked { message, finish });
            }
            _ => {}
        }
    }

    /// Drops what came for a channel that nobody holds any more.
    pub(crate) fn drain_orphan(&mut self, id: ChannelId) {
        loop {
            match self.session.recv_fragment(id) {
                Ok(Some(fragment)) => self.session.release(id, fragment.bytes.len() as u64),
                Ok(None) => return,
                Err(_) => {
                    self.orphans.remove(&id);
                    return;
                }
            }
        }
    }
}
