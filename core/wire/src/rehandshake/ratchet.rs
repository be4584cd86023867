//! The secrets of one end of a session, and which re-handshake goes on. Spec: link C.8.
//!
//! ```text
//!            RESPONSE taken (dialler): e+1, keeps e                  first frame on the new path
//! [e] ─────────────────────────────────────────────▶ [e+1, before: e] ───────────────────────▶ [e+1]
//!  └── COMPLETE taken (listener): e+1, erases e ─────────────────────────────────────────────────▲
//! ```

use sealtide_identity::NodeId;

use super::StartError;
use crate::handshake::{Established, ResumeSecret};
use crate::session::PathId;

/// Numbers of paths stay below this; what lies above is free for paths that the driver numbers by itself.
const PATH_NUMBERS: u32 = 0x8000_0000;

/// Who the two ends of the session are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) session_id: [u8; 16],
    pub(super) own: NodeId,
    pub(super) peer: NodeId,
    pub(super) initiator: bool,
}

/// The secret before the present one, until it is known that the peer has followed.
#[derive(Clone, Debug)]
pub(super) struct Before {
    pub(super) secret: ResumeSecret,
    /// The first frame of the peer on this path shows it.
    pub(super) path: PathId,
}

/// What a listener commits to when COMPLETE comes.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) attempt: u32,
    pub(super) epoch: u32,
    pub(super) secret: ResumeSecret,
}

/// What one end of a session keeps for its further paths. In memory only; wiped when dropped.
#[derive(Clone, Debug)]
pub struct Ratchet {
    pub(super) ends: Ends,
    pub(super) epoch: u32,
    pub(super) secret: ResumeSecret,
    pub(super) before: Option<Before>,
    /// The own re-handshake between REQUEST and RESPONSE.
    pub(super) dialling: Option<u32>,
    pub(super) candidate: Option<Candidate>,
    pub(super) next_attempt: u32,
    pub(super) next_path: u32,
    /// The greatest path number of the peer so far.
    pub(super) peer_path: u32,
}

/// A path that both ends agree on: attach it to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The number of the path.
    pub path: PathId,
    /// The number that the peer expects next.
    pub peer_rx_next: u64,
    /// The epoch that it begins: both ends put their paths in one order by it.
    pub epoch: u32,
}

impl Ratchet {
    /// The ratchet of a session right after the full handshake that made it, at epoch 0; `own` is this node.
    pub fn new(own: NodeId, established: &Established) -> Self {
        let initiator = established.initiator;
        Self::at_start(
            Ends { session_id: established.session_id, own, peer: established.peer, initiator },
            established.resume_secret.clone(),
        )
    }

    pub(super) fn at_start(ends: Ends, secret: ResumeSecret) -> Self {
        let next_path = if ends.initiator { 1 } else { 2 };
        Self {
            ends,
            epoch: 0,
            secret,
            before: None,
            dialling: None,
            candidate: None,
            next_attempt: 0,
            next_path,
            peer_path: 0,
        }
    }

    /// The session goes on after a full handshake with extension 1: its `rs_0` is the secret of epoch 0 from now on.
    /// Path numbers go on, re-handshakes under way are over.
    pub fn restart(&mut self, established: &Established) {
        self.secret = established.resume_secret.clone();
        self.epoch = 0;
        (self.before, self.dialling, self.candidate) = (None, None, None);
    }

    /// The first frame of the peer came on `path`: it has committed to the present epoch.
    pub fn heard(&mut self, path: PathId) {
        if self.before.as_ref().is_some_and(|before| before.path == path) {
            self.before = None;
        }
    }

    /// The id of the session, as REQUEST names it.
    pub fn session_id(&self) -> [u8; 16] {
        self.ends.session_id
    }

    /// The present epoch.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether a re-handshake of either end goes on.
    pub fn is_busy(&self) -> bool {
        self.dialling.is_some() || self.candidate.is_some()
    }

    /// The secret of `epoch`, if this end still has it.
    pub(super) fn secret_of(&self, epoch: u32) -> Option<&ResumeSecret> {
        if epoch == self.epoch {
            return Some(&self.secret);
        }
        self.before.as_ref().filter(|_| epoch.checked_add(1) == Some(self.epoch)).map(|before| &before.secret)
    }

    pub(super) fn new_attempt(&mut self) -> u32 {
        self.next_attempt = self.next_attempt.wrapping_add(1);
        self.next_attempt
    }

    /// Takes the next path number of this end for a REQUEST that is announced before there is a connection (PUNCH).
    /// When another path came about meanwhile the peer does not take it any more: numbers grow.
    ///
    /// # Errors
    /// [`StartError::Exhausted`].
    pub fn reserve_path(&mut self) -> Result<PathId, StartError> {
        self.new_path()
    }

    /// The next path number of this end: odd from the initiator of the session, even from its responder.
    pub(super) fn new_path(&mut self) -> Result<PathId, StartError> {
        if self.next_path >= PATH_NUMBERS {
            return Err(StartError::Exhausted);
        }
        self.next_path += 2;
        Ok(PathId(self.next_path - 2))
    }

    /// Whether the peer may use this number for a new path.
    pub(super) fn fits_peer(&self, path: PathId) -> bool {
        let odd = path.0 % 2 == 1;
        path.0 > self.peer_path && path.0 < PATH_NUMBERS && odd != self.ends.initiator
    }

    /// The dialler has seen the listener agree to `epoch`: `next` is the present secret, and that of `epoch` is kept
    /// until the peer is heard on `path`.
    pub(super) fn follow(&mut self, epoch: u32, next: ResumeSecret, path: PathId) {
        self.dialling = None;
        if epoch == self.epoch {
            let secret = std::mem::replace(&mut self.secret, next);
            self.before = Some(Before { secret, path });
            self.epoch += 1;
        } else {
            // The peer never saw the last COMPLETE: the new secret takes the place of the one it has not.
            self.secret = next;
            if let Some(before) = &mut self.before {
                before.path = path;
            }
        }
    }

    /// The listener has seen COMPLETE: nothing before `candidate` is kept.
    pub(super) fn commit(&mut self, candidate: Candidate, path: PathId) {
        self.secret = candidate.secret;
        self.epoch = candidate.epoch;
        self.before = None;
        self.peer_path = path.0;
    }
}
