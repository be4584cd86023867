//! What the listeners, dials and sessions of one link share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use sealtide_crypto::{Entropy, SigningKey};
use sealtide_identity::{LinkAddress, NodeId};
use sealtide_wire::handshake::{Admission, Terms};
use sealtide_wire::session::{self as wire, SessionConfig, SessionLimits};
use tokio::sync::{mpsc, watch};
use zeroize::Zeroizing;

use crate::address;
use crate::clock::{Clock, SystemEntropy};
use crate::limits::{Gate, Limits};
use crate::metrics::Counters;
use crate::proof::{self, ProofError, Proven, Workers};
use crate::proxy::ProxySettings;
use crate::pump::{FIRST_PATH, Pump};
use crate::quiet_log::QuietLog;
use crate::registry::Registry;
use crate::session::{Facts, Session};
use crate::tls::{self, LiveCredentials};

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
}

impl Node {
    /// What this node tells its peers about where it is reached, at most 8: what it was told to say, else where it
    /// listens. Nothing while it does not listen. Spec: link C.10.
    pub(crate) fn announce(&self) -> Vec<LinkAddress> {
        let listeners = self.listeners();
        let told = if self.announce.is_empty() || listeners.is_empty() { &*listeners } else { &self.announce };
        let mut all: Vec<_> = told.iter().flat_map(|bound| address::announced(*bound)).collect();
        address::in_dial_order(&mut all);
        all
    }

    pub(crate) fn listeners(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.listeners.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Completes when the link is shut down.
    pub(crate) async fn stopped(&self) {
        let mut stop = self.stop.subscribe();
        let _either_way = stop.wait_for(|stop| *stop).await;
    }

    /// Makes the session of a finished handshake and starts its task.
    ///
    /// # Errors
    /// [`ProofError::Yield`] when another handshake of the same pair goes first after all.
    pub(crate) async fn establish(self: &Arc<Self>, proven: Proven) -> Result<Session, ProofError> {
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
        let mut core = wire::Session::new(now, config);
        core.attach(now, FIRST_PATH, 1).expect("the first path of a new session is always taken");
        let facts = Facts {
            peer: established.peer,
            initiator: established.initiator,
            remote: path.remote.canonical(),
            suite: format!("{}/{}", path.stream.suite(), tls::GROUP_NAME),
            binding: Zeroizing::new(established.sb),
            invite: established.invite,
            observed: established.observed,
            relays: established.relays.clone(),
        };
        let addresses = address::of_peer(&established.addresses, path.remote.direct());
        // No path outlives the certificates that it was proved with. Spec: LK-49
        // Both ends of time are durations: no date is compared with a clock. Spec: LK-12
        let pin_ends_ms = now.mono_ms.saturating_add(established.pin.lifetime_seconds.saturating_mul(1000));
        let too_old_ms = path.certificate.good_until_ms().min(pin_ends_ms);

        let session = Session::new(facts, self.clock, core, addresses);
        match turn.finish(session.clone()) {
            Ok(Some(old)) => old.replace(),
            Ok(None) => {}
            Err(yielded) => return Err(proof::give_way(path, yielded).await),
        }
        let handshakes =
            if established.initiator { &self.counters.handshakes_dialled } else { &self.counters.handshakes_accepted };
        handshakes.add(1);
        self.counters.sessions.add(1);
        tracing::info!(
            peer = established.peer.short(),
            remote = self.log.remote(path.remote),
            initiator = established.initiator,
            "link: session open"
        );
        tokio::spawn(Pump::new(self.clone(), session.clone(), path, &send, too_old_ms).run());
        Ok(session)
    }
}

fn wire_terms(terms: &Terms) -> wire::Terms {
    wire::Terms {
        max_payload: terms.max_payload,
        session_credit: terms.session_credit,
        channel_credit: terms.channel_credit,
        ping_ms: terms.ping_ms,
    }
}
