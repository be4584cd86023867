//! The session of a link: what two nodes share over all their paths. Spec: link C.9, C.11.

mod config;
mod event;

use bytes::Bytes;
use sealtide_crypto::Now;

pub use config::{DATA_PAYLOAD_BYTES, QUANTUM_BYTES, SessionConfig, SessionLimits, Terms, window_of};
pub use event::{
    AttachError, ChannelId, ControlError, Event, Fragment, Head, OpenError, PathFailure, PathId, RecvError, Scope,
    SendError, SessionError, SessionState, SessionStats, Transmit,
};

use crate::frame::{ErrorCode, FrameType, Header};

/// One end of a session.
#[derive(Debug)]
pub struct Session {}

#[expect(unused_variables, clippy::todo, reason = "the public shape, bodies follow")]
impl Session {
    /// A session right after the full handshake; `attach` its first path next.
    pub fn new(now: Now, config: SessionConfig) -> Self {
        todo!()
    }

    /// Adds a path that finished its handshake. `peer_rx_next` is the peer's next expected number: 1 in a new session,
    /// else from the re-handshake or extension 1. The first path, and any path of a suspended session, becomes
    /// active; else it is a standby until `switch`.
    ///
    /// # Errors
    /// [`AttachError`]: close the path; the session is unchanged.
    pub fn attach(&mut self, now: Now, path: PathId, peer_rx_next: u64) -> Result<(), AttachError> {
        todo!()
    }

    /// The pipe of a path reported an error or its end: it is never used again, what it held is repeated elsewhere.
    pub fn path_lost(&mut self, now: Now, path: PathId) {
        todo!()
    }

    /// Sends sequenced frames over `path` from now on. `false` when it is not attached.
    pub fn switch(&mut self, now: Now, path: PathId) -> bool {
        todo!()
    }

    /// Takes one frame. `payload` has `header.len` bytes; slices of it are kept until readers take them.
    ///
    /// # Errors
    /// [`SessionError`]: the peer broke a rule; [`SessionError::scope`] says what dies.
    pub fn handle_frame(&mut self, now: Now, path: PathId, header: Header, payload: Bytes) -> Result<(), SessionError> {
        todo!()
    }

    /// The next frame for `path`, of at most `bytes_max` bytes; none when there is nothing to send now.
    /// A batch of 16 + 65,536 bytes always has room for a frame.
    pub fn poll_transmit(&mut self, now: Now, path: PathId, bytes_max: usize) -> Option<Transmit> {
        todo!()
    }

    /// The next thing to tell; poll until none after each call that changes the session.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    /// Opens a channel; messages can be sent at once.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&mut self, class: u8, name: &str) -> Result<ChannelId, OpenError> {
        todo!()
    }

    /// Queues one message, of any length, zero included. It is cut into frames without copying.
    ///
    /// # Errors
    /// [`SendError`]; `WouldBlock` gives the message back.
    pub fn send(&mut self, channel: ChannelId, message: Bytes) -> Result<(), SendError> {
        todo!()
    }

    /// The next whole message; `Ok(None)`: not there yet, `Event::Readable` follows. Call `release` with its length
    /// when its bytes are no longer held.
    ///
    /// # Errors
    /// [`RecvError`].
    pub fn recv(&mut self, channel: ChannelId) -> Result<Option<Bytes>, RecvError> {
        todo!()
    }

    /// The next piece of a message, for messages above the window. Call `release` as for `recv`.
    ///
    /// # Errors
    /// [`RecvError`], never `TooLarge`.
    pub fn recv_fragment(&mut self, channel: ChannelId) -> Result<Option<Fragment>, RecvError> {
        todo!()
    }

    /// Gives `bytes` that were received on the channel back to its window.
    pub fn release(&mut self, channel: ChannelId, bytes: u64) {
        todo!()
    }

    /// Ends our direction of the channel after everything queued.
    pub fn finish(&mut self, channel: ChannelId) {
        todo!()
    }

    /// Ends both directions of the channel now: drops what is queued and what is unread. Also the way to forget a
    /// channel that ended.
    pub fn reset(&mut self, channel: ChannelId, code: u16) {
        todo!()
    }

    /// Sends a CERT_UPDATE, ADDR_UPDATE or PUNCH, in order with everything else, once.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn send_control(&mut self, kind: FrameType, payload: Bytes) -> Result<(), ControlError> {
        todo!()
    }

    /// When `handle_timeout` is wanted, on the clock of `Now::mono_ms`.
    pub fn next_timeout(&self) -> Option<u64> {
        todo!()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        todo!()
    }

    /// Ends the session in order: CLOSE follows everything queued.
    pub fn close(&mut self, now: Now, code: u16) {
        todo!()
    }

    /// Ends the session now; ABORT is the next thing `poll_transmit` gives for every path.
    pub fn abort(&mut self, code: ErrorCode, text: &str) {
        todo!()
    }

    /// The peer does not know the session any more: reports `Event::Lost`.
    pub fn lost(&mut self) {
        todo!()
    }

    /// Withholds CREDIT while `hold`, for the node-wide limit of received bytes.
    pub fn hold_credit(&mut self, hold: bool) {
        todo!()
    }

    /// The next sequence number expected from the peer, for a re-handshake.
    pub fn rx_next(&self) -> u64 {
        todo!()
    }

    /// The path that carries our sequenced frames.
    pub fn active_path(&self) -> Option<PathId> {
        todo!()
    }

    /// What the session is up to.
    pub fn state(&self) -> SessionState {
        todo!()
    }

    /// Counters.
    pub fn stats(&self) -> SessionStats {
        todo!()
    }
}
