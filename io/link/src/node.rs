//! What the listeners, dials and sessions of one link share.

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use futures_util::future::BoxFuture;
use sealtide_crypto::{Entropy, SigningKey};
use sealtide_identity::{LinkAddress, NodeId, RelayHint};
use sealtide_wire::handshake::{AddressUpdate, Admission, CertificateTalk, Continuation, Pins, Terms};
use sealtide_wire::padding::Padding;
use sealtide_wire::rehandshake::Ratchet;
use sealtide_wire::session::{self as wire, PathPolicy, SessionConfig, SessionLimits};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::address;
use crate::clock::{Clock, SystemEntropy};
use crate::gather;
use crate::keeper;
use crate::limits::{Gate, Limits};
use crate::metrics::Counters;
use crate::proof::{self, ProofError, Proven, Workers};
use crate::proxy::ProxySettings;
use crate::pump::Pump;
use crate::punch::Punches;
use crate::quiet_log::QuietLog;
use crate::registry::Registry;
use crate::relay::Accounts;
use crate::roots::Roots;
use crate::rotation::{self, Ages};
use crate::routes::NewPath;
use crate::session::{Facts, Session, Start};
use crate::tls::LiveCredentials;

pub(crate) struct Node {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) id: NodeId,
    pub(crate) limits: Limits,
    pub(crate) limits_loopback: bool,
    pub(crate) terms: Terms,
    pub(crate) session_limits: SessionLimits,
    pub(crate) admission: Arc<dyn Admission + Send + Sync>,
    pub(crate) credentials: LiveCredentials,
    pub(crate) clock: Clock,
    pub(crate) gate: Arc<Gate>,
    pub(crate) workers: Workers,
    pub(crate) registry: Arc<Registry>,
    pub(crate) counters: Counters,
    pub(crate) log: QuietLog,
    pub(crate) accepted: mpsc::Sender<Session>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) listeners: Mutex<Vec<SocketAddr>>,
    pub(crate) announce: Vec<SocketAddr>,
    pub(crate) proxy: ProxySettings,
    pub(crate) relays: Accounts,
    /// Who vouches for proxies in front of relays.
    pub(crate) relay_roots: Option<Roots>,
    pub(crate) punches: Punches,
    pub(crate) policy: PathPolicy,
    pub(crate) padding: Padding,
    pub(crate) tunnel: Option<String>,
    pub(crate) ages: Ages,
    /// Whether the tasks beside the node run.
    pub(crate) tended: AtomicBool,
}

impl Node {
    /// What this node tells its peers about where it is reached, at most 8: what it was told to say, else where it
    /// listens. Nothing while it does not listen. Spec: link C.10.
    pub(crate) fn announce(&self) -> Vec<LinkAddress> {
        let listeners = self.listeners();
        let told = if self.announce.is_empty() || listeners.is_empty() { &*listeners } else { &self.announce };
        let mut all: Vec<_> = told.iter().flat_map(|bound| address::announced(*bound)).collect();
        all.extend(self.mapped());
        address::in_dial_order(&mut all);
        all
    }

    /// Over what peers reach this node without its address: its tunnel, which is told as a relay with its own id, and the
    /// relays that it is logged in at, but for those behind proxies. Spec: link C.13.
    pub(crate) fn told_relays(&self) -> Vec<RelayHint> {
        let tunnel = self.tunnel.iter().map(|url| RelayHint { relay: self.id, url: url.clone() });
        tunnel.chain(self.relays.told()).collect()
    }

    /// Adds to the relays that are known of a peer those behind proxies that this node is logged in at: the peer may be
    /// there, and does not say so.
    pub(crate) fn with_relays_behind_proxies(&self, mut relays: Vec<RelayHint>) -> Vec<RelayHint> {
        for own in self.relays.behind_proxies() {
            if relays.iter().all(|known| known.relay != own.relay) {
                relays.push(own);
            }
        }
        relays
    }

    /// Where relays see the listening port of this node; nothing where the settings say what is told instead.
    pub(crate) fn mapped(&self) -> Vec<LinkAddress> {
        if self.announce.is_empty() { self.relays.mapped() } else { Vec::new() }
    }

    /// Tells every peer where this node is now.
    pub(crate) fn tell_addresses(&self) {
        let told = AddressUpdate { addresses: self.announce(), relays: self.told_relays() }.payload();
        for session in self.registry.sessions() {
            session.tell_addresses(told.clone());
        }
    }

    pub(crate) fn listeners(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.listeners.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Completes when the link is shut down.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        let _either_way = stop.wait_for(|stop| *stop).await;
    }

    /// How old a path may grow, in ms.
    pub(crate) fn path_age_ms(&self) -> u64 {
        u64::try_from(self.ages.path.as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts what runs beside the node; does nothing the second time.
    pub(crate) fn tend(self: &Arc<Self>) {
        if !self.tended.swap(true, std::sync::atomic::Ordering::Relaxed) {
            tokio::spawn(rotation::rotate(self.clone()));
            tokio::spawn(gather::gather(self.clone()));
        }
    }

    /// Hands a session to whoever accepts them.
    pub(crate) fn hand_over(&self, session: Session) {
        // A full queue means that nobody accepts; the session stands all the same and is found by its peer.
        if self.accepted.try_send(session).is_err() {
            tracing::warn!("link: sessions arrive faster than they are accepted");
        }
    }

    /// Makes the session of a finished handshake and starts its tasks, or lets the one that stands go on.
    ///
    /// # Errors
    /// [`ProofError::Yield`] when another handshake of the same pair goes first after all.
    // A boxed future: the keeper of the session, which is spawned here, calls this in its turn.
    pub(crate) fn establish(self: &Arc<Self>, proven: Proven) -> BoxFuture<'_, Result<Opened, ProofError>> {
        match proven.established.continued {
            Some(continued) => Box::pin(self.resume(proven, continued)),
            None => Box::pin(self.begin(proven)),
        }
    }

    async fn begin(self: &Arc<Self>, proven: Proven) -> Result<Opened, ProofError> {
        let Proven { path, established, turn, send } = proven;
        let now = self.clock.now();
        let mut seed = [0; 8];
        SystemEntropy.fill(&mut seed);
        let config = SessionConfig {
            initiator: established.initiator,
            ours: wire_terms(&self.terms),
            theirs: wire_terms(&established.peer_terms),
            limits: self.session_limits,
            jitter_seed: u64::from_be_bytes(seed),
        };
        let remote = path.remote;
        let facts = Facts {
            session_id: established.session_id,
            peer: established.peer,
            initiator: established.initiator,
            binding: Zeroizing::new(established.sb),
            invite: established.invite,
            observed: established.observed,
            certificates: CertificateTalk::new(self.id, &established),
        };
        let start = Start {
            session: wire::Session::new(now, config),
            ratchet: Ratchet::new(self.id, &established),
            pins: Pins::new(now, established.pin),
            addresses: address::of_peer(&established.addresses, remote.direct()),
            relays: established.relays.clone(),
            announced: path.certificate.epoch(),
            remote: remote.canonical(),
            suite: path.stream.suite(),
        };
        let session = Session::new(facts, self.clock, start);
        match turn.finish(session.clone()) {
            Ok(Some(old)) => old.replace(),
            Ok(None) => {}
            Err(yielded) => return Err(proof::give_way(path, yielded).await),
        }
        let new = NewPath { path, dialled: established.initiator, first: send, age_max_ms: self.path_age_ms() };
        session.shared.core().attach_first(now, new);
        let handshakes =
            if established.initiator { &self.counters.handshakes_dialled } else { &self.counters.handshakes_accepted };
        handshakes.add(1);
        self.counters.sessions.add(1);
        tracing::info!(
            peer = established.peer.short(),
            remote = self.log.remote(remote),
            initiator = established.initiator,
            "link: session open"
        );
        tokio::spawn(Pump::new(self.clone(), session.clone()).run());
        tokio::spawn(keeper::keep(self.clone(), session.clone()));
        self.tend();
        rotation::announce_next(self, &session).await;
        Ok(Opened { session, is_new: true })
    }

    /// The session that stands goes on over the path of a full handshake. Spec: link C.4.5, extension 1.
    async fn resume(self: &Arc<Self>, proven: Proven, continued: Continuation) -> Result<Opened, ProofError> {
        let Proven { path, established, turn, send } = proven;
        let session = match turn.resume(&continued.session_id) {
            Ok(session) => session,
            Err(yielded) => return Err(proof::give_way(path, yielded).await),
        };
        let new = NewPath { path, dialled: established.initiator, first: send, age_max_ms: self.path_age_ms() };
        let now = self.clock.now();
        let resumed = session.shared.core().resume(now, &established, continued.rx_next, new);
        resumed.map_err(|_| ProofError::NoAnswer)?;
        self.counters.sessions_continued.add(1);
        tracing::info!(peer = established.peer.short(), "link: session goes on after a full handshake");
        session.shared.pump.wake();
        session.shared.keeper.notify_one();
        rotation::announce_next(self, &session).await;
        Ok(Opened { session, is_new: false })
    }
}

/// What a full handshake led to.
pub(crate) struct Opened {
    pub(crate) session: Session,
    /// False when an older session went on.
    pub(crate) is_new: bool,
}

fn wire_terms(terms: &Terms) -> wire::Terms {
    wire::Terms {
        max_payload: terms.max_payload,
        session_credit: terms.session_credit,
        channel_credit: terms.channel_credit,
        ping_ms: terms.ping_ms,
    }
}
