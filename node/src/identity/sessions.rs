//! Own session keystones: one for each peer and month, authorised by a frame of the device. Spec: ibgib §12.4
//!
//! Nothing is written down of them but their frames: the session id stands in the device frame that authorises them, and
//! their secrets follow from it and from the working secret, so a crash orphans none.

use std::collections::BTreeMap;

use sealtide_crypto::Entropy;
use sealtide_ibgib::{Address, Stamp, Verified};
use sealtide_identity::keystone::{Chain, Claim, Frame, SessionScope, Signer, Standing, State, session_genesis, sign};

use super::signing::SignRefused;
use super::{Identities, lock};
use crate::engine::keystones::Connection;
use crate::world::OsEntropy;

/// How long a session keystone is used. Each costs a frame of the device, which is four times as large as one of a session
/// and which every peer holds: a device chain that is full is refused everywhere.
const SESSION_MS: u64 = 30 * 24 * 3600 * 1000;
/// A session that ends sooner is not begun with.
const SPARE_MS: u64 = 60 * 1000;
/// Frames of a session, after which the next one begins: a quarter of what a peer takes of one keystone.
const SESSION_FRAMES_MAX: u64 = 4_096;
/// A session that has room for fewer is not begun with.
const SPARE_FRAMES: u64 = 64;

/// A session that is younger is not given up because a peer calls it forked: each costs a frame of the device.
const KEPT_MS: u64 = 3600 * 1000;

/// A session keystone of this node.
#[derive(Clone, Debug)]
pub(super) struct OwnSession {
    /// Its first frame.
    pub(super) first: Address,
    /// Its id: what its secret follows from.
    pub(super) id: [u8; 32],
    /// When it ends.
    pub(super) until: Stamp,
    /// Frames up to this n were seen by the peer.
    pub(super) shown: Option<u64>,
}

/// By first frame of the peer's device keystone.
pub(super) type OwnSessions = BTreeMap<Address, OwnSession>;

/// The session that a device frame authorises, if it does.
fn authorised(frame: &Frame) -> Option<(Address, SessionScope)> {
    let claim = frame.claim()?;
    let scope = SessionScope::parse(claim.scope.as_deref()?)?;
    Some((claim.target_address()?, scope))
}

/// Every session keystone that a device authorised, on whatever branch.
pub(super) fn all_sessions(device: &Chain) -> Vec<Address> {
    device.frames().filter_map(|frame| authorised(frame).map(|(first, _)| first)).collect()
}

impl Identities {
    /// Finds the sessions of before that may go on: not from the time before a restore.
    pub(super) fn find_sessions(&self) -> OwnSessions {
        let Some(device) = self.device().filter(|_| self.doubt().is_none()) else { return OwnSessions::new() };
        let (from, now) = (self.0.vault.keys().sessions_from, self.now());
        self.0.frames.with(&device, |chain| {
            let mut found = OwnSessions::new();
            let recent = chain.valid_backwards().map(Standing::frame).take_while(|frame| frame.facts().n >= from);
            for (first, scope) in recent.filter_map(authorised).filter(|(_, scope)| now < scope.until) {
                // What a peer lacks of it all the same, it asks for.
                let shown = self.0.frames.only_tip(&first).map(|(_, n)| n);
                let session = OwnSession { first, id: scope.session, until: scope.until, shown };
                found.entry(scope.peer).or_insert(session);
            }
            found
        })
    }

    /// The session for a peer's device: the one there is, or a new one with the frame that authorises it.
    pub(super) fn session_for(&self, peer_device: &Address) -> Result<OwnSession, SignRefused> {
        let _alone = lock(&self.0.making);
        let found = lock(&self.0.sessions).get(peer_device).cloned();
        let spare = Stamp { ms: self.now().ms + SPARE_MS };
        if let Some(session) = found.filter(|session| spare < session.until)
            && self.state_of(&session.first) == State::Live
            && !self.is_used_up(&session, SPARE_FRAMES)
        {
            return Ok(session);
        }
        let session = self.make_session(peer_device)?;
        lock(&self.0.sessions).insert(peer_device.clone(), session.clone());
        Ok(session)
    }

    /// Whether a session has fewer frames left than this.
    pub(super) fn is_used_up(&self, session: &OwnSession, spare: u64) -> bool {
        self.newest_n(&session.first).is_some_and(|n| n + spare >= SESSION_FRAMES_MAX)
    }

    fn make_session(&self, peer_device: &Address) -> Result<OwnSession, SignRefused> {
        let device = self.device().ok_or(SignRefused::NoKeys)?;
        self.check_doubts(&device)?;
        let stamp = self.now();
        let mut id = [0; 32];
        OsEntropy.fill(&mut id);
        let begun = session_genesis(&self.0.vault.working().session(&id), stamp, &mut OsEntropy);
        let first = begun.first_address().clone();
        // Whole seconds, as the scope has them.
        let until = Stamp { ms: (stamp.ms + SESSION_MS) / 1000 * 1000 };
        let scope = SessionScope { peer: peer_device.clone(), session: id, until };
        let claim = scope.claim(&first);
        let (key, working) = (self.0.node.key.clone(), self.0.vault.working());
        self.evolve_beside(&device, vec![begun.frame().record().clone()], |chain| {
            Ok(vec![sign(chain, Signer::Working(working), &key, &claim, stamp, &mut OsEntropy)?])
        })?;
        Ok(OwnSession { first, id, until, shown: None })
    }

    /// A peer sees two frames after one in what this node proves with: its store and key file were set back together, as by
    /// a snapshot of the machine, so nothing here can tell. The next connection begins a new session.
    pub(super) fn let_go_of_session(&self, connection: &Connection) {
        let Some(live) = self.live(connection) else { return };
        let Some((session, _)) = live.own_session else { return };
        if session.until.ms.saturating_sub(SESSION_MS) + KEPT_MS > self.now().ms {
            return;
        }
        let mut sessions = lock(&self.0.sessions);
        if sessions.get(&live.peer_device).is_some_and(|there| there.first == session.first) {
            tracing::warn!(
                peer = connection.peer.short(),
                "a peer calls the session with it forked; a new one is begun"
            );
            sessions.remove(&live.peer_device);
        }
    }

    /// Frames of the own device came from a peer: this home was set back, and the sessions of before may go on elsewhere
    /// than here. None is used again.
    pub(super) fn let_go_of_sessions(&self, newest_n: u64) -> std::io::Result<()> {
        lock(&self.0.sessions).clear();
        self.0.vault.change(|keys| keys.sessions_from = newest_n + 1)
    }

    /// Signs a claim with an own session.
    pub(super) fn sign_with(&self, session: &OwnSession, claim: &Claim) -> Result<Verified, SignRefused> {
        self.sign_session(&session.first, &self.0.vault.working().session(&session.id), claim)
    }
}
