//! One session per pair of nodes: who goes first when two handshakes cross, and what replaces what. Spec: link C.6.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sealtide_identity::NodeId;
use sealtide_wire::handshake::{SessionOrigin, Survivor, replaces_session, tie_break};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::session::Session;

/// The sessions of a node and the handshakes that have proved their peer but are not finished.
#[derive(Debug)]
pub(crate) struct Registry {
    own: NodeId,
    sessions_max: usize,
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    next_id: u64,
    sessions: BTreeMap<NodeId, Standing>,
    unfinished: BTreeMap<u64, Unfinished>,
    /// Peers whose next session is one that this node dials, and how many wait for that.
    reserved: BTreeMap<NodeId, usize>,
}

#[derive(Debug)]
struct Standing {
    session: Session,
    dialled: bool,
    since: Instant,
}

#[derive(Debug)]
struct Unfinished {
    peer: NodeId,
    dialled: bool,
    stop: Option<oneshot::Sender<()>>,
}

/// A handshake that takes part in the tie-break; dropping it ends that.
#[derive(Debug)]
pub(crate) struct Turn {
    registry: Arc<Registry>,
    id: u64,
    peer: NodeId,
    dialled: bool,
}

/// While it lives, no session begins that the peer dialled: the next one is this node's own.
#[derive(Debug)]
pub struct Reservation {
    registry: Arc<Registry>,
    peer: NodeId,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut inner = self.registry.lock();
        if let Some(count) = inner.reserved.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                inner.reserved.remove(&self.peer);
            }
        }
    }
}

/// Why a handshake does not lead to a session of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Yield {
    /// Another handshake or session of the same pair goes first.
    #[error("another handshake with this peer goes first")]
    Duplicate,
    /// All places for sessions are taken.
    #[error("this node has as many sessions as it may have")]
    Full,
    /// The link was shut down.
    #[error("the link is shut down")]
    Closed,
}

impl Registry {
    pub(crate) fn new(own: NodeId, sessions_max: usize) -> Arc<Self> {
        Arc::new(Self { own, sessions_max, inner: Mutex::default(), changed: Notify::new() })
    }

    /// A handshake with `peer` has proved the other end: at the dialler a verified CHALLENGE, at the listener a
    /// verified RESPONSE. `began` is when its first frame was sent or taken; a dial may go on with the session that
    /// `continues` names. The receiver fires when it must give way.
    // Spec: LK-111
    pub(crate) fn begin(
        self: &Arc<Self>,
        peer: NodeId,
        dialled: bool,
        began: Instant,
        continues: Option<&Session>,
    ) -> Result<(Turn, oneshot::Receiver<()>), Yield> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Yield::Closed);
        }
        if !dialled && inner.reserved.contains_key(&peer) {
            return Err(Yield::Duplicate);
        }
        if let Some(standing) = inner.sessions.get(&peer) {
            // A node that has a session drops its own dials, but for those that go on with it.
            let goes_on = continues.is_some_and(|session| session.is_same(&standing.session));
            let origin = SessionOrigin { dialled_here: standing.dialled, overlapped: began < standing.since };
            if dialled && !goes_on || !dialled && !replaces_session(&self.own, &peer, origin) {
                return Err(Yield::Duplicate);
            }
        }
        let survives = (tie_break(&self.own, &peer) == Survivor::Dialled) == dialled;
        let crossing = inner.unfinished.values().any(|u| u.peer == peer && u.dialled != dialled);
        let doubled = inner.unfinished.values().any(|u| u.peer == peer && u.dialled == dialled);
        if crossing && !survives || doubled && dialled {
            return Err(Yield::Duplicate);
        }
        for other in inner.unfinished.values_mut().filter(|u| u.peer == peer) {
            if let Some(stop) = other.stop.take() {
                let _already_over = stop.send(());
            }
        }
        inner.unfinished.retain(|_, u| u.stop.is_some());
        let id = inner.next_id;
        inner.next_id += 1;
        let (stop, stopped) = oneshot::channel();
        inner.unfinished.insert(id, Unfinished { peer, dialled, stop: Some(stop) });
        drop(inner);
        Ok((Turn { registry: self.clone(), id, peer, dialled }, stopped))
    }

    /// The session with `peer`, if one stands.
    pub(crate) fn session(&self, peer: &NodeId) -> Option<Session> {
        self.lock().sessions.get(peer).map(|standing| standing.session.clone())
    }

    /// Every session.
    pub(crate) fn sessions(&self) -> Vec<Session> {
        self.lock().sessions.values().map(|standing| standing.session.clone()).collect()
    }

    /// The session with this id, if it stands.
    pub(crate) fn by_id(&self, id: &[u8; 16]) -> Option<Session> {
        self.lock().sessions.values().map(|standing| &standing.session).find(|session| session.id() == *id).cloned()
    }

    /// Waits until a session with `peer` stands.
    pub(crate) async fn wait_for(&self, peer: &NodeId) -> Session {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(session) = self.session(peer) {
                return session;
            }
            changed.await;
        }
    }

    /// Forgets `session`, unless a newer one took its place.
    pub(crate) fn remove(&self, session: &Session) {
        let mut inner = self.lock();
        if inner.sessions.get(&session.peer()).is_some_and(|standing| standing.session.is_same(session)) {
            inner.sessions.remove(&session.peer());
        }
    }

    /// Keeps the next session with `peer` for a dial of this node. What `peer` dials meanwhile gives way, also what is
    /// not finished.
    pub(crate) fn reserve(self: &Arc<Self>, peer: &NodeId) -> Reservation {
        let mut inner = self.lock();
        *inner.reserved.entry(*peer).or_default() += 1;
        inner.unfinished.retain(|_, unfinished| unfinished.peer != *peer);
        Reservation { registry: self.clone(), peer: *peer }
    }

    /// Whether the next session with `peer` is kept for a dial of this node.
    pub(crate) fn is_reserved(&self, peer: &NodeId) -> bool {
        self.lock().reserved.contains_key(peer)
    }

    /// Stops the unfinished handshakes with `peer`.
    pub(crate) fn stop_handshakes(&self, peer: &NodeId) {
        self.lock().unfinished.retain(|_, unfinished| unfinished.peer != *peer);
    }

    /// Nothing begins any more; gives the sessions that stand.
    pub(crate) fn close(&self) -> Vec<Session> {
        let mut inner = self.lock();
        inner.closed = true;
        inner.unfinished.clear();
        drop(inner);
        self.sessions()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Turn {
    /// The handshake finished: `session` stands from now on. Gives the older session that it replaces.
    ///
    /// # Errors
    /// [`Yield`] when it had to give way after all.
    pub(crate) fn finish(self, session: Session) -> Result<Option<Session>, Yield> {
        let registry = self.registry.clone();
        let mut inner = registry.lock();
        if inner.closed {
            return Err(Yield::Closed);
        }
        if inner.unfinished.remove(&self.id).is_none() {
            return Err(Yield::Duplicate);
        }
        if inner.sessions.len() >= registry.sessions_max && !inner.sessions.contains_key(&self.peer) {
            return Err(Yield::Full);
        }
        let standing = Standing { session, dialled: self.dialled, since: Instant::now() };
        let replaced = inner.sessions.insert(self.peer, standing).map(|old| old.session);
        drop(inner);
        registry.changed.notify_waiters();
        drop(self);
        Ok(replaced)
    }
}

impl Turn {
    /// The handshake finished, and goes on with the session that stands.
    ///
    /// # Errors
    /// [`Yield`] when it had to give way, or the session ended meanwhile.
    pub(crate) fn resume(self, session_id: &[u8; 16]) -> Result<Session, Yield> {
        let mut inner = self.registry.lock();
        if inner.closed {
            return Err(Yield::Closed);
        }
        if inner.unfinished.remove(&self.id).is_none() {
            return Err(Yield::Duplicate);
        }
        let standing = inner.sessions.get(&self.peer).map(|standing| standing.session.clone());
        drop(inner);
        standing.filter(|session| session.id() == *session_id).ok_or(Yield::Duplicate)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.registry.lock().unfinished.remove(&self.id);
    }
}
