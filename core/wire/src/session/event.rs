//! What a session tells its driver, and why it refuses.

use bytes::Bytes;

use crate::frame::{ErrorCode, FrameType, Header};

/// A path of a session, as numbered in the re-handshake. The session only compares
/// them; the driver never gives one number to two pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

/// A channel of a session: odd from the session's initiator, even from its responder, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u16);

/// Something the driver or the layer above should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The peer opened a channel.
    ChannelOpened {
        /// Its number.
        channel: ChannelId,
        /// 0 (control) to 7 (bulk).
        class: u8,
        /// Its name, 1 to 255 bytes.
        name: String,
    },
    /// `recv` or `recv_fragment` has something to say again after it returned `Ok(None)`: bytes, an end, an error.
    Readable {
        /// The channel.
        channel: ChannelId,
    },
    /// `send` takes a message again after it refused one with [`SendError::WouldBlock`].
    Writable {
        /// The channel.
        channel: ChannelId,
    },
    /// The peer sends no more on the channel. Without a code everything it sent can still be received; with a
    /// code (RESET) the unread rest is gone, and what waited to be sent too.
    ChannelEnded {
        /// The channel.
        channel: ChannelId,
        /// The code of a RESET; none for an orderly end.
        code: Option<u16>,
    },
    /// The peer closed the session after everything it had sent. Poll what is left to transmit (an ACK) and end the paths.
    PeerClosed {
        /// The code of CLOSE.
        code: u16,
    },
    /// Our own CLOSE was acknowledged: the peer has everything. End the paths.
    Closed,
    /// The session is over without an orderly end: the peer's ABORT, or our own after it broke a rule.
    Aborted {
        /// See [`ErrorCode`].
        code: u16,
        /// At most 120 bytes, foreign: escape before showing.
        text: String,
    },
    /// The session cannot go on: no path for too long, or the peer has forgotten it.
    Lost {
        /// The greatest sequence number of ours that the peer acknowledged; frames above it may be lost.
        acked: u64,
    },
    /// A frame 13–15 for the layer of certificates and addresses, in order, once.
    Control {
        /// CERT_UPDATE, ADDR_UPDATE or PUNCH.
        kind: FrameType,
        /// Its payload.
        payload: Bytes,
    },
    /// A path was silent too long and may be dead: a good moment to dial another one.
    PathSuspect {
        /// The path.
        path: PathId,
    },
    /// The session gave a path up: close its pipe. `path_lost` need not be called for it.
    PathFailed {
        /// The path.
        path: PathId,
        /// Why.
        why: PathFailure,
    },
    /// Sequenced frames go over another path from now on.
    Switched {
        /// The path left, none when the session was suspended.
        from: Option<PathId>,
        /// The path taken.
        to: PathId,
    },
    /// No usable path is left; the session waits for `attach`.
    Suspended,
}

/// Why a session gave up a path. Spec: link C.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathFailure {
    /// Nothing came, two PINGs were not answered.
    Silent,
    /// Bytes came, acknowledgements did not.
    NoProgress,
    /// The peer sent ERROR on it.
    PeerError(u16),
}

/// What the session is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// No path was attached yet.
    New,
    /// At least one path is usable.
    Open,
    /// No usable path.
    Suspended,
    /// Our CLOSE waits for its acknowledgement.
    Closing,
    /// Over: closed, aborted or lost.
    Closed,
}

/// The next frame of a path: `head` then `payload`, to be written without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Header, and the payload too when it is short.
    pub head: Head,
    /// The payload of a longer frame, a slice of the message it was cut from.
    pub payload: Bytes,
}

impl Transmit {
    /// Bytes of the frame on the wire.
    pub fn frame_bytes(&self) -> usize {
        self.head.as_ref().len() + self.payload.len()
    }
}

/// At most 32 bytes without an allocation; read them by `as_ref()`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; 32],
    len: u8,
}

impl Head {
    /// A header and a short payload, at most 32 bytes together.
    pub(super) fn of(header: &Header, payload: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[0] = header.kind.code();
        bytes[1] = header.flags;
        bytes[2..4].copy_from_slice(&header.channel.to_be_bytes());
        bytes[4..8].copy_from_slice(&header.len.to_be_bytes());
        if let Some(seq) = header.seq {
            bytes[8..16].copy_from_slice(&seq.to_be_bytes());
        }
        let start = header.bytes();
        bytes[start..start + payload.len()].copy_from_slice(payload);
        Self { bytes, len: u8::try_from(start + payload.len()).expect("a head has at most 32 bytes") }
    }
}

impl AsRef<[u8]> for Head {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// A piece of a message that is read as a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The bytes, possibly none at the end of a message.
    pub bytes: Bytes,
    /// Whether the message ends with them.
    pub end: bool,
}

/// How much dies when the peer breaks a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The path it came on; the session has detached it already. Send ERROR with the code on it if it still takes bytes.
    Path,
    /// The session; ABORT is the next thing `poll_transmit` gives for every path.
    Session,
}

/// The peer broke a rule, each by name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A sequence number came before its predecessor. Spec: LK-43.
    #[error("sequence number {found} on a path, expected at most {expected}")]
    SequenceGap {
        /// The next number in order.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// A payload has the wrong length or content for its type.
    #[error("malformed {0:?} frame")]
    Malformed(FrameType),
    /// A handshake frame inside a session, or the like.
    #[error("{0:?} frame has no place here")]
    Unexpected(FrameType),
    /// The path is not attached.
    #[error("no such path")]
    UnknownPath,
    /// An ACK, or the number in a re-handshake, names a frame that was never sent.
    #[error("acknowledges up to {next}, only frames below {sent} were sent")]
    AckOfUnsent {
        /// What the peer said.
        next: u64,
        /// The next number that would be sent.
        sent: u64,
    },
    /// More DATA than the credit allows. Spec: LK-109.
    #[error("channel {channel}: {received} bytes received, the limit is {limit}")]
    AboveCredit {
        /// The channel, 0 for the session.
        channel: u16,
        /// Bytes received with the frame.
        received: u64,
        /// The limit granted.
        limit: u64,
    },
    /// A channel frame that does not fit the state of its channel.
    #[error("channel {channel}: {rule}")]
    Channel {
        /// The channel.
        channel: u16,
        /// The rule broken.
        rule: &'static str,
    },
    /// More channels than agreed.
    #[error("more than {0} channels")]
    TooManyChannels(usize),
    /// The session is over already.
    #[error("the session is over")]
    Over,
}

impl SessionError {
    /// What dies.
    pub fn scope(&self) -> Scope {
        match self {
            Self::SequenceGap { .. } | Self::Unexpected(_) | Self::UnknownPath | Self::Over => Scope::Path,
            // What carries no number is lost with its path; a numbered frame would come again on the next one.
            Self::Malformed(kind) if !kind.is_sequenced() => Scope::Path,
            _ => Scope::Session,
        }
    }

    /// The code for ERROR or ABORT.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Malformed(_) => ErrorCode::Malformed,
            Self::TooManyChannels(_) => ErrorCode::Limit,
            _ => ErrorCode::Protocol,
        }
    }
}

/// Why a path cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// A path of this number is attached already.
    #[error("path {} is attached already", .0.0)]
    InUse(PathId),
    /// The peer claims to have frames that were never sent: it means another session.
    #[error("peer expects {next}, only frames below {sent} were sent")]
    OutOfRange {
        /// What the peer said.
        next: u64,
        /// The next number that would be sent.
        sent: u64,
    },
    /// The session is over.
    #[error("the session is over")]
    Over,
}

/// Why a channel cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The session is closing or over.
    #[error("the session is over")]
    Over,
    /// The name has 1 to 255 bytes, the class is 0 to 7.
    #[error("a channel has a name of 1 to 255 bytes and a class of 0 to 7")]
    BadName,
    /// All channels of this side are open.
    #[error("all {0} channels are open")]
    TooMany(usize),
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The channel's queue is full; `Event::Writable` follows. Gives the message back.
    #[error("the channel is full")]
    WouldBlock(Bytes),
    /// The channel was finished or reset, by either end, or never existed.
    #[error("the channel is closed")]
    Closed,
    /// The session is closing or over.
    #[error("the session is over")]
    Over,
}

/// Why nothing was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// The peer ended the channel and everything was read.
    #[error("end of channel")]
    Ended,
    /// The peer reset the channel.
    #[error("channel reset by the peer, code {0}")]
    Reset(u16),
    /// The message does not fit the channel's window: read it by fragments, or reset.
    #[error("the message is larger than the window of {window} bytes")]
    TooLarge {
        /// The window of the channel.
        window: u64,
    },
    /// No such channel, or this end reset it.
    #[error("the channel is closed")]
    Closed,
    /// The session is over and nothing is left to read.
    #[error("the session is over")]
    Over,
}

/// Why a control frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Only CERT_UPDATE, ADDR_UPDATE and PUNCH are sent by hand, with at most the peer's `max_payload` bytes.
    #[error("not a control frame that can be sent")]
    NotSendable,
    /// Too many wait already.
    #[error("too many control frames wait")]
    WouldBlock,
    /// The session is closing or over.
    #[error("the session is over")]
    Over,
}

/// Counters since the session began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Frames given to the driver, repeated ones included.
    pub frames_sent: u64,
    /// Bytes of them, headers included.
    pub bytes_sent: u64,
    /// Frames taken from the driver.
    pub frames_received: u64,
    /// Bytes of them, headers included.
    pub bytes_received: u64,
    /// Sequenced frames sent once more after a path was lost or left.
    pub frames_retransmitted: u64,
    /// Sequenced frames that had arrived before. Spec: LK-43.
    pub frames_duplicate: u64,
    /// Sequenced frames sent, each counted once however often it was sent again.
    pub frames_numbered: u64,
    /// Sequenced frames taken in, in order and each once. Once all is quiet it equals `frames_numbered` of the peer.
    pub frames_delivered: u64,
    /// Smoothed round-trip time of the active path in milliseconds; none before the first PONG.
    pub rtt_ms: Option<u32>,
    /// Frames sent and not acknowledged.
    pub unacked_frames: usize,
    /// Bytes of them as counted against the send buffer.
    pub unacked_bytes: usize,
    /// Received bytes that no reader has taken.
    pub unread_bytes: u64,
    /// Bytes that readers have taken and not released.
    pub unreleased_bytes: u64,
    /// Milliseconds since the session began, at the last call that had a time.
    pub age_ms: u64,
    /// Changes of the active path.
    pub switches: u64,
    /// Open channels of both sides.
    pub channels: usize,
}
