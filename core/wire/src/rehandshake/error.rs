//! Why a re-handshake does not lead to a path, and what the other side is told.

use super::message::Reject;
use crate::frame::FrameType;

/// What a dialler is told that waits its turn, in milliseconds.
const RETRY_SIMULTANEOUS_MS: u32 = 200;
const RETRY_BUSY_MS: u32 = 1_000;

/// Why a listener does not agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RejectCode {
    /// No such session, or the peer is no longer let in, or its certificate is not pinned: only a full handshake helps.
    Unknown = 1,
    /// Another epoch.
    Epoch = 2,
    /// The listener dials too, and goes first.
    Simultaneous = 3,
    /// The tag does not fit.
    BadTag = 4,
    /// Too much to do.
    Busy = 5,
}

impl RejectCode {
    /// Every code, in the order of the numbers.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Epoch, Self::Simultaneous, Self::BadTag, Self::Busy];

    /// The meaning of a number; `None` when this node knows none.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|known| *known as u16 == code)
    }

    /// The whole REJECT frame.
    pub fn frame(self) -> Vec<u8> {
        let retry_ms = match self {
            Self::Simultaneous => RETRY_SIMULTANEOUS_MS,
            Self::Busy => RETRY_BUSY_MS,
            Self::Unknown | Self::Epoch | Self::BadTag => 0,
        };
        Reject { code: self as u16, retry_ms }.frame()
    }
}

/// Why a re-handshake fails. The connection is closed whatever the reason; the session is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RehandshakeError {
    /// The bytes break a layout, or a rule that only a peer with the secret can break.
    #[error("malformed {frame:?}: {rule}")]
    Malformed {
        /// The message.
        frame: FrameType,
        /// The rule.
        rule: &'static str,
    },
    /// A message out of turn.
    #[error("a {found:?} frame where {expected:?} was awaited")]
    Unexpected {
        /// What was awaited.
        expected: FrameType,
        /// What came.
        found: FrameType,
    },
    /// The tag of RESPONSE or COMPLETE does not fit.
    #[error("the tag of {frame:?} does not fit")]
    BadTag {
        /// The message.
        frame: FrameType,
    },
    /// Listener: this end does not agree.
    #[error("not agreed to: {0:?}")]
    Refused(RejectCode),
    /// Dialler: the peer does not agree.
    #[error("the peer does not agree, code {code}")]
    Rejected {
        /// See [`RejectCode::from_code`].
        code: u16,
        /// When to try again, in milliseconds; 0 says nothing.
        retry_ms: u32,
    },
    /// Another re-handshake of this session took the place of this one.
    #[error("another re-handshake of this session goes first")]
    Yielded,
    /// No epoch is left.
    #[error("all epochs of this session are used up")]
    Exhausted,
}

impl RehandshakeError {
    /// The whole frame to write before closing; `None`: close without a byte.
    pub fn reply(&self) -> Option<Vec<u8>> {
        match self {
            Self::Refused(code) => Some(code.frame()),
            _ => None,
        }
    }
}

/// Why a dialler does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// One re-handshake of this session is between REQUEST and COMPLETE already, at this end or begun by the peer.
    #[error("another re-handshake of this session goes on")]
    Busy,
    /// No epoch or path number is left.
    #[error("all epochs or path numbers of this session are used up")]
    Exhausted,
}
