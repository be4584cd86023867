//! One path of a session inside the session's task: its buffers, reading and writing. Reading never waits for
//! writing. Spec: link C.9.4.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use sealtide_crypto::Now;
use sealtide_wire::frame::{FrameType, Header, Notice, PAYLOAD_BYTES_MAX};
use sealtide_wire::padding::{CELL_BYTES, Pace, Padding, cell_padding, padding_frames};
use sealtide_wire::session::{PathId, Scope, SessionError, Transmit};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use crate::outgoing::Outgoing;
use crate::path::{Path, READ_BYTES};
use crate::session::{Core, Shared};
use crate::websocket::{MESSAGE_BYTES_MAX, Message};

/// Bytes handed to TLS in one go: the bounds between which the batch adapts to what the socket takes.
const BATCH_BYTES_MIN: usize = 64 * 1024;
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// WebSocket pings that wait for their answer; links send none, so more is an attack.
const PONGS_MAX: u32 = 16;
/// How long the last frames and the end of TLS may take.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// One attached path, owned by the task of its session.
pub(crate) struct Lane {
    pub(crate) id: PathId,
    path: Path,
    /// Encoded messages that TLS has not taken yet.
    out: Outgoing,
    /// Frames are gathered here before they become a message.
    gather: Vec<Transmit>,
    batch: usize,
    padding: Padding,
    pace: Option<Pace>,
    unflushed: bool,
    pongs_waiting: u32,
    /// Nothing of the peer is taken any more.
    pub(crate) deaf: bool,
    /// The peer broke a rule of the path: what is in `out` is the last.
    pub(crate) leaves: bool,
}

impl Lane {
    /// `first` are whole frames to write before those of the session.
    pub(crate) fn new(id: PathId, path: Path, first: &[Vec<u8>], padding: Padding, now: Now) -> Self {
        let pace = match padding {
            Padding::Constant(rate) => Some(Pace::new(rate, now.mono_ms)),
            Padding::Off | Padding::Padme => None,
        };
        let mut lane = Self {
            id,
            path,
            out: Outgoing::default(),
            gather: Vec::new(),
            batch: BATCH_BYTES_MIN,
            padding,
            pace,
            unflushed: false,
            pongs_waiting: 0,
            deaf: false,
            leaves: false,
        };
        if !first.is_empty() {
            lane.path.framing.frames(Bytes::from(first.concat()), lane.out.tail());
        }
        lane
    }

    /// Whether everything that was encoded has left.
    pub(crate) fn is_written(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// An idle session holds no buffers.
    pub(crate) fn rest(&mut self) {
        if self.path.received.is_empty() && self.out.is_empty() {
            self.path.calm();
            self.let_go();
        }
    }

    fn let_go(&mut self) {
        self.path.let_go();
        if self.out.is_empty() {
            (self.out, self.gather) = (Outgoing::default(), Vec::new());
        }
    }

    /// Gathers frames of the session into messages until a batch is full.
    pub(crate) fn fill(&mut self, core: &mut Core, now: Now) {
        if !self.is_written() || self.leaves {
            return;
        }
        if let Some(mut pace) = self.pace.filter(|_| !self.deaf) {
            self.fill_cells(core, now, &mut pace);
            self.pace = Some(pace);
            return;
        }
        let mut flush = 0;
        while self.out.len() < self.batch {
            let mut bytes = 0;
            while let Some(frame) = core.session.poll_transmit(now, self.id, MESSAGE_BYTES_MAX - bytes) {
                bytes += frame.frame_bytes();
                self.gather.push(frame);
                // Less room than this may stop a frame that a new message could take.
                if bytes + 32 > MESSAGE_BYTES_MAX {
                    break;
                }
            }
            if bytes == 0 {
                break;
            }
            flush += bytes;
            self.path.framing.gathered(&mut self.gather, bytes, &mut self.out);
        }
        for frame in padding_frames(self.padding.after(flush)) {
            self.path.framing.frames(frame.into(), self.out.tail());
        }
    }

    /// As [`Lane::fill`] at a constant rate: cells that are due, each with what fits and PADDING. A session that ends does
    /// not wait for them.
    fn fill_cells(&mut self, core: &mut Core, now: Now, pace: &mut Pace) {
        while self.out.len() < self.batch && pace.is_due(now.mono_ms) {
            let mut cells = BytesMut::new();
            while let Some(frame) = core.session.poll_transmit(now, self.id, CELL_BYTES - cells.len()) {
                cells.extend_from_slice(frame.head.as_ref());
                cells.extend_from_slice(&frame.payload);
            }
            if cells.is_empty()
                && let Some(long) = core.session.poll_transmit(now, self.id, MESSAGE_BYTES_MAX - 2 * CELL_BYTES)
            {
                cells.extend_from_slice(long.head.as_ref());
                cells.extend_from_slice(&long.payload);
            }
            for frame in padding_frames(cell_padding(cells.len())) {
                cells.extend_from_slice(&frame);
            }
            pace.left(cells.len() / CELL_BYTES);
            self.path.framing.frames(cells.freeze(), self.out.tail());
        }
    }

    /// When something is to leave whether there is anything to say or not, in ms.
    pub(crate) fn next_cell_ms(&self) -> u64 {
        self.pace.filter(|_| !self.deaf && self.is_written()).map_or(u64::MAX, |pace| pace.next_ms())
    }

    /// Writes and reads what is possible; true when anything moved.
    ///
    /// # Errors
    /// The path is lost.
    pub(crate) fn exchange(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>, now: Now) -> io::Result<bool> {
        let wrote = self.write(cx)?;
        let read = self.read(cx, shared, now)?;
        if self.path.is_calm() {
            // Sooner than a session rests: thousands that say a word now and then hold nothing in between.
            self.let_go();
        }
        Ok(wrote || read)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let before = self.out.len();
        self.unflushed |= before > 0;
        if self.out.poll_write(cx, &mut self.path.stream)?.is_pending() {
            self.batch = (self.batch / 2).max(BATCH_BYTES_MIN);
            return Ok(self.out.len() < before);
        }
        let mut moved = before > 0;
        if self.unflushed && Pin::new(&mut self.path.stream).poll_flush(cx)?.is_ready() {
            (moved, self.unflushed, self.pongs_waiting) = (true, false, 0);
            self.batch = (self.batch * 2).min(BATCH_BYTES_MAX);
        }
        Ok(moved)
    }

    fn read(&mut self, cx: &mut Context<'_>, shared: &Arc<Shared>, now: Now) -> io::Result<bool> {
        if self.deaf {
            return Ok(false);
        }
        // What the handshake left behind comes first.
        let mut moved = self.take_messages(shared, now)?;
        let mut ended = Ok(());
        while !self.deaf && self.path.received.len() < READ_BYTES {
            match self.path.poll_fill(cx, READ_BYTES) {
                Poll::Ready(Ok(0)) => {
                    ended = Err(io::ErrorKind::UnexpectedEof.into());
                    break;
                }
                Poll::Ready(Ok(_)) => moved = true,
                Poll::Ready(Err(error)) => {
                    ended = Err(error);
                    break;
                }
                Poll::Pending => break,
            }
        }
        if moved {
            shared.core().session.path_alive(now, self.id);
            self.take_messages(shared, now)?;
        }
        // The last words of a peer count, whatever comes behind them.
        if self.deaf { Ok(true) } else { ended.map(|()| moved) }
    }

    fn take_messages(&mut self, shared: &Arc<Shared>, now: Now) -> io::Result<bool> {
        let mut moved = false;
        let mut message = std::mem::take(&mut self.path.message);
        let mut core = shared.core();
        while !self.deaf {
            if !message.is_empty() {
                moved = true;
                self.take_frames(&mut core, now, &mut message)?;
                continue;
            }
            match self.path.framing.next(&mut self.path.received).map_err(io::Error::other)? {
                Some(Message::Frames(frames)) => message = frames,
                Some(Message::Ping(payload)) => {
                    self.pongs_waiting += 1;
                    if self.pongs_waiting > PONGS_MAX {
                        return Err(io::Error::other("more WebSocket pings than answers were taken"));
                    }
                    self.path.framing.pong(payload, self.out.tail());
                }
                Some(Message::Pong) => {}
                Some(Message::Close) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => break,
            }
        }
        Ok(moved)
    }

    fn take_frames(&mut self, core: &mut Core, now: Now, message: &mut Bytes) -> io::Result<()> {
        while !message.is_empty() && !self.deaf {
            let header = Header::parse(message, PAYLOAD_BYTES_MAX).map_err(io::Error::other)?;
            let header = header.filter(|header| header.frame_bytes() <= message.len());
            let header = header.ok_or_else(|| io::Error::other("a frame that is cut by the end of its message"))?;
            let mut frame = message.split_to(header.frame_bytes());
            frame.advance(header.bytes());
            match core.session.handle_frame(now, self.id, header, &frame) {
                // The listener of a re-handshake has committed.
                Ok(()) => core.ratchet.heard(self.id),
                Err(error) => self.offence(core, error),
            }
        }
        Ok(())
    }

    /// The peer broke a rule. ABORT comes out of the session by itself; ERROR is ours to write.
    fn offence(&mut self, core: &Core, error: SessionError) {
        self.deaf = true;
        // A path that the session has given up meanwhile, or a session that is over, is no offence.
        if matches!(error, SessionError::Over | SessionError::UnknownPath) {
            return;
        }
        tracing::info!(peer = core.peer.short(), "link: the peer broke a rule: {error}");
        if error.scope() == Scope::Path {
            let frame = Notice::new(error.code()).frame(FrameType::Error);
            self.path.framing.frames(Bytes::from(frame), self.out.tail());
            self.leaves = true;
        }
    }

    /// Writes what is left, and ends the connection in order, by `until` at the latest. A connection of a peer that
    /// was cut off (`aborted`) is reset when that did not succeed.
    pub(crate) async fn part(mut self, until: Instant, aborted: bool) {
        self.path.framing.close(self.out.tail());
        let last = async {
            std::future::poll_fn(|cx| self.poll_drain(cx)).await?;
            io::Result::Ok(self.path.hang_up().await)
        };
        let in_order = matches!(tokio::time::timeout_at(until, last).await, Ok(Ok(true)));
        // What the system still holds for a slow peer must not reach one that was cut off. Spec: LK-104
        if aborted && !in_order {
            self.path.stream.reset_on_drop();
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.out.poll_write(cx, &mut self.path.stream))?;
        Pin::new(&mut self.path.stream).poll_flush(cx)
    }
}
