//! Why a handshake fails, and what the other side is told.

use sealtide_identity::NodeId;

use super::CertificateRejected;
use crate::frame::{ErrorCode, FrameType, Notice};

/// Why a handshake fails. The path is closed whatever the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// R: the knock is wrong (tag, version, kind, bind, or no HELLO at all): close without a byte.
    #[error("wrong knock")]
    WrongKnock,
    /// The peer's bytes break a layout.
    #[error("malformed {frame:?}: {rule}")]
    Malformed {
        /// The message.
        frame: FrameType,
        /// The rule.
        rule: &'static str,
    },
    /// I: the responder speaks another version.
    #[error("the peer speaks version {found} of the handshake, this node version 1")]
    Version {
        /// What CHALLENGE says.
        found: u8,
    },
    /// I: the responder holds another key than that of the id that was dialled.
    #[error("the node that answered is {found}, not {expected}")]
    WrongPeer {
        /// The id that was dialled.
        expected: NodeId,
        /// The id of the key that was shown.
        found: NodeId,
    },
    /// A signature does not verify over this connection and these messages.
    #[error("the signature in {frame:?} does not verify")]
    BadProof {
        /// The message.
        frame: FrameType,
    },
    /// R: not let in. The reason is for the own log only.
    #[error("refused: {reason}")]
    NotAdmitted {
        /// Who it was; `None` when the tag is wrong, which is a guess and counts against the source (link C.12).
        peer: Option<NodeId>,
        /// For the own log.
        reason: &'static str,
    },
    /// The certificate in ESTABLISHED breaks a rule.
    #[error(transparent)]
    Certificate(#[from] CertificateRejected),
    /// The peer, which has proved who it is, gave up and said so.
    #[error("the peer refused: {0}")]
    Peer(Notice),
    /// Whoever is at the other end gave up and said so before it proved who it is. That is nobody's word: a stranger at
    /// the address of the peer can say it.
    #[error("what answers there gave up with code {code} before it proved who it is")]
    Unproven {
        /// The code of its ERROR.
        code: u16,
    },
    /// A message out of turn.
    #[error("a {found:?} frame where {expected:?} was awaited")]
    Unexpected {
        /// What was awaited.
        expected: FrameType,
        /// What came.
        found: FrameType,
    },
    /// The handshake was over already.
    #[error("the handshake is over")]
    Over,
}

impl HandshakeError {
    /// The whole ERROR frame to write before closing; `None`: close without a byte.
    ///
    /// Nothing is written to a peer that guessed the knock, and nothing but HELLO to a responder that has not proved
    /// its id. Spec: LK-13, LK-14.
    pub fn reply(&self) -> Option<Vec<u8>> {
        let code = match self {
            Self::WrongKnock | Self::Peer(_) | Self::Unproven { .. } | Self::Over => return None,
            Self::Version { .. } | Self::WrongPeer { .. } => return None,
            Self::Malformed { frame: FrameType::Challenge, .. }
            | Self::BadProof { frame: FrameType::Challenge }
            | Self::Unexpected { expected: FrameType::Challenge, .. } => return None,
            Self::Malformed { .. } => ErrorCode::Malformed,
            Self::Unexpected { .. } => ErrorCode::Protocol,
            Self::BadProof { .. } | Self::NotAdmitted { .. } | Self::Certificate(_) => ErrorCode::Refused,
        };
        Some(Notice::new(code).frame(FrameType::Error))
    }
}
