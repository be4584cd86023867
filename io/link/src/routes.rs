//! The paths of one session as this node knows them: what they are, how old, which carries, which may end.
//! Spec: link C.7, C.9.3.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use sealtide_crypto::Now;
use sealtide_identity::{LearnedFrom, LinkAddress, RelayHint};
use sealtide_wire::handshake::{Established, Pins, PipeKind};
use sealtide_wire::rehandshake::Attachment;
use sealtide_wire::session::{AttachError, PathId, PathPolicy, PathView, SessionState, choose};

use crate::address;
use crate::path::Path;
use crate::pipe::Remote;
use crate::session::Core;

/// How long until a direct path that is not good enough is asked again, first and doubled at most so many times.
const ASK_MS: u64 = 500;
const ASKS_DOUBLE: u32 = 7;
/// Between two changes that the peer tells, at least, until the second is a reason to be quick again.
const HEED_MS: u64 = 5_000;
/// How long a path that was left may take until nothing is under way on it.
const DRAIN_MS: u64 = 10_000;
/// Paths of full handshakes have numbers from here; those of re-handshakes stay below.
const OWN_NUMBERS: u32 = 0x8000_0000;
/// The first path of a session.
pub(crate) const FIRST_PATH: PathId = PathId(0);

/// What is known of an attached path.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) remote: Remote,
    pub(crate) suite: &'static str,
    /// The address of this machine that it uses; none over a relay.
    local: Option<IpAddr>,
    /// Whether this end dialled it: then it is this end that renews it.
    pub(crate) dialled: bool,
    pub(crate) since_ms: u64,
    /// No path lives longer: its age, its certificates. Spec: LK-49
    pub(crate) until_ms: u64,
    /// The epoch of its re-handshake.
    order: u32,
    /// When it stopped being wanted.
    left_ms: Option<u64>,
    /// When a direct path that waits is asked again whether it is good enough, in ms, and how often it was.
    ask_ms: u64,
    asked: u32,
}

impl Route {
    pub(crate) fn is_relayed(&self) -> bool {
        self.remote.kind() == PipeKind::Relay
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.remote.kind() == PipeKind::Direct
    }

    /// When a successor is to be made: at nine tenths of its time.
    pub(crate) fn renew_ms(&self) -> u64 {
        self.since_ms + (self.until_ms - self.since_ms) / 10 * 9
    }
}

/// Changes of addresses since they were last looked at. Those of this end count at once, those that the peer tells once in a while: it
/// could say continually where to dial next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct News {
    own: bool,
    told: bool,
    heeded_ms: Option<u64>,
}

impl News {
    /// When there is something to take, in ms.
    pub(crate) fn due_ms(&self) -> u64 {
        match self {
            Self { own: true, .. } => 0,
            Self { told: true, .. } => self.heeded_ms.map_or(0, |heeded| heeded + HEED_MS),
            _ => u64::MAX,
        }
    }

    fn take(&mut self, now: Now) -> bool {
        let is_due = now.mono_ms >= self.due_ms();
        if is_due && std::mem::take(&mut self.told) {
            self.heeded_ms = Some(now.mono_ms);
        }
        self.own = false;
        is_due
    }
}

/// A path on its way from a handshake to the task of the session.
pub(crate) struct Arrival {
    pub(crate) id: PathId,
    pub(crate) path: Path,
    /// Whole frames to write before those of the session.
    pub(crate) first: Vec<Vec<u8>>,
}

/// A path with what its handshake says about it.
pub(crate) struct NewPath {
    pub(crate) path: Path,
    pub(crate) dialled: bool,
    pub(crate) first: Vec<Vec<u8>>,
    /// How old it may grow, in ms.
    pub(crate) age_max_ms: u64,
}

impl Core {
    /// A path that a re-handshake has made; the task of the session must be woken.
    ///
    /// # Errors
    /// [`AttachError`]: close it.
    pub(crate) fn attach(&mut self, now: Now, made: Attachment, new: NewPath) -> Result<(), AttachError> {
        self.join(now, made.path, made.peer_rx_next, made.epoch, new)
    }

    /// The first path of a new session.
    pub(crate) fn attach_first(&mut self, now: Now, new: NewPath) {
        self.join(now, FIRST_PATH, 1, 0, new).expect("the first path of a new session is always taken");
    }

    /// The session goes on over the path of a full handshake with extension 1: its other paths end, its secrets and
    /// pins are those of the handshake.
    ///
    /// # Errors
    /// [`AttachError`]: close the path.
    pub(crate) fn resume(
        &mut self,
        now: Now,
        established: &Established,
        peer_rx_next: u64,
        new: NewPath,
    ) -> Result<(), AttachError> {
        let old: Vec<PathId> = self.paths.keys().copied().collect();
        let id = PathId(OWN_NUMBERS + self.resumed);
        let fingerprint_epoch = new.path.certificate.epoch();
        self.pins = Pins::renewed(now, established.pin);
        self.join(now, id, peer_rx_next, 0, new)?;
        self.resumed += 1;
        self.ratchet.restart(established);
        self.session.switch(now, id);
        for path in old {
            self.session.path_lost(now, path);
            self.leaving.push(path);
        }
        // An update that is still under way comes again by itself.
        if !self.session.has_unacknowledged(sealtide_wire::frame::FrameType::CertUpdate) {
            self.announced = fingerprint_epoch;
        }
        self.told(&established.addresses, established.relays.clone());
        Ok(())
    }

    fn join(&mut self, now: Now, id: PathId, peer_rx_next: u64, order: u32, new: NewPath) -> Result<(), AttachError> {
        let NewPath { path, dialled, first, age_max_ms } = new;
        self.session.attach(now, id, peer_rx_next)?;
        let pinned = path.stream.peer_fingerprint().and_then(|shown| self.pins.end_of(&shown));
        let until_ms = now
            .mono_ms
            .saturating_add(age_max_ms)
            .min(path.certificate.good_until_ms())
            .min(pinned.unwrap_or(now.mono_ms));
        let remote = path.remote.canonical();
        let route = Route {
            remote,
            suite: path.stream.suite(),
            local: path.stream.local_ip(),
            dialled,
            since_ms: now.mono_ms,
            until_ms: until_ms.max(now.mono_ms),
            order,
            left_ms: None,
            ask_ms: now.mono_ms,
            asked: 0,
        };
        if dialled && let Some(address) = remote.direct() {
            self.dialled = Some(address);
        }
        (self.last_remote, self.last_suite) = (remote, route.suite);
        self.paths.insert(id, route);
        self.arrivals.push(Arrival { id, path, first });
        Ok(())
    }

    /// The peer told where it is.
    pub(crate) fn told(&mut self, addresses: &[LinkAddress], relays: Vec<RelayHint>) {
        let met = self.last_remote.direct();
        let over_loopback = met.is_some_and(|met| met.ip().is_loopback());
        let learned = LearnedFrom::Peer { over_loopback };
        let told: Vec<_> = addresses.iter().filter(|told| told.may_be_dialled(learned)).copied().collect();
        let found = address::of_peer(&told, met);
        self.news.told |= found != self.addresses || relays != self.relays;
        self.addresses = found;
        self.relays = relays;
    }

    /// The addresses of this machine are these now: paths from another one are lost, the others are asked for a sign.
    pub(crate) fn network_changed(&mut self, now: Now, present: &BTreeSet<IpAddr>) {
        let paths: Vec<(PathId, Option<IpAddr>)> = self.paths.iter().map(|(id, route)| (*id, route.local)).collect();
        for (path, local) in paths {
            if local.is_some_and(|local| !local.is_loopback() && !present.contains(&local)) {
                self.session.path_lost(now, path);
                self.leaving.push(path);
            } else {
                self.session.probe(path);
            }
        }
        self.news.own = true;
    }

    /// Whether the addresses of either end have changed, so that what was tried before means nothing any more.
    pub(crate) fn take_news(&mut self, now: Now) -> bool {
        let news = self.news.take(now);
        if news {
            self.punched.forget();
        }
        news
    }

    /// Where the peer is dialled for a further path: where it was reached before, then what it told. At most 8.
    pub(crate) fn dial_list(&self) -> Vec<SocketAddr> {
        let mut list: Vec<SocketAddr> = self.dialled.into_iter().collect();
        list.extend(self.addresses.iter().map(|told| told.socket).filter(|told| Some(*told) != self.dialled));
        list.truncate(address::ADDRESSES_MAX);
        list
    }

    /// Whether a path of `kind` is dialled for. One over a relay or a tunnel is enough, a direct one is what is wanted then. With `renews`
    /// the one that carries the session grows old: what follows it is of its kind; one of another kind is made only where none lasts, so
    /// that the session goes on over that should nothing follow. A path that is suspect is as good as none.
    pub(crate) fn wants(&self, now: Now, kind: PipeKind, renews: bool) -> bool {
        let mut sound = self.paths.iter().filter(|(path, _)| !self.is_suspect(**path)).map(|(_, route)| route);
        if !renews {
            return kind == PipeKind::Direct || sound.all(Route::is_direct);
        }
        let is_renewed = self.active_route().is_none_or(|(_, active)| active.remote.kind() == kind);
        is_renewed || !sound.any(|route| route.remote.kind() == kind && now.mono_ms < route.renew_ms())
    }

    /// Whether nothing came on a path for too long.
    pub(crate) fn is_suspect(&self, path: PathId) -> bool {
        self.session.path_health(path).is_some_and(|health| health.suspect)
    }

    /// Whether the session has no usable path, and may get one.
    pub(crate) fn is_suspended(&self) -> bool {
        matches!(self.session.state(), SessionState::Suspended)
    }

    /// The route that carries the numbered frames of this end.
    pub(crate) fn active_route(&self) -> Option<(PathId, &Route)> {
        let active = self.session.active_path()?;
        self.paths.get(&active).map(|route| (active, route))
    }

    fn is_over_relay(&self) -> bool {
        self.active_route().is_some_and(|(_, route)| route.is_relayed())
    }

    fn has_answered(&self, path: PathId) -> bool {
        self.session.path_health(path).is_some_and(|health| health.answered > 0)
    }

    /// Whether a newer path of the kind is there to take over.
    pub(crate) fn has_successor(&self, route: &Route) -> bool {
        self.paths.values().any(|other| other.is_relayed() == route.is_relayed() && other.order > route.order)
    }

    /// Paths whose time is over.
    // Spec: LK-49
    pub(crate) fn old_paths(&self, now: Now) -> Vec<PathId> {
        self.paths.iter().filter(|(_, route)| now.mono_ms >= route.until_ms).map(|(id, _)| *id).collect()
    }

    /// When the paths are to be looked at next, in ms: one grows old, or is to be asked again.
    pub(crate) fn next_look(&self) -> u64 {
        let drained = |route: &Route| route.left_ms.map_or(u64::MAX, |left| left + DRAIN_MS);
        let over_relay = self.is_over_relay();
        let ask = |path: PathId, route: &Route| {
            let asks = over_relay && !route.is_relayed() && self.has_answered(path);
            if asks { route.ask_ms } else { u64::MAX }
        };
        let next = |(path, route): (&PathId, &Route)| route.until_ms.min(drained(route)).min(ask(*path, route));
        self.paths.iter().map(next).min().unwrap_or(u64::MAX)
    }

    /// Moves the numbered frames of this end to the path that should carry them.
    pub(crate) fn choose_path(&mut self, now: Now, policy: PathPolicy) {
        if self.paths.len() < 2 {
            return;
        }
        let active = self.session.active_path();
        let over_relay = self.is_over_relay();
        let mut views = Vec::with_capacity(self.paths.len());
        for (path, route) in &mut self.paths {
            let Some(health) = self.session.path_health(*path) else { continue };
            // A direct path is asked oftener than a standby, until it may take over: for the second answer at once, then
            // because a queue may have made the first answers late.
            if over_relay && !route.is_relayed() && health.answered > 0 && now.mono_ms >= route.ask_ms {
                self.session.probe(*path);
                route.ask_ms = now.mono_ms + (ASK_MS << route.asked.min(ASKS_DOUBLE));
                route.asked = route.asked.saturating_add(1);
            }
            views.push(PathView { path: *path, kind: route.remote.kind(), order: route.order, health });
        }
        let chosen = choose(policy, active, &views);
        if let Some(chosen) = chosen.filter(|_| chosen != active && active.is_some()) {
            self.session.switch(now, chosen);
        }
    }

    /// Paths that a newer one of their kind has replaced and that carry nothing any more, or were given up by a full
    /// handshake.
    pub(crate) fn spare_paths(&mut self, now: Now) -> Vec<PathId> {
        let mut spare = std::mem::take(&mut self.leaving);
        let active = self.session.active_path();
        let newest = |relayed| self.paths.values().filter(|r| r.is_relayed() == relayed).map(|r| r.order).max();
        let newest = [newest(false), newest(true)];
        for (path, route) in &mut self.paths {
            let outdated = newest[usize::from(route.is_relayed())].is_some_and(|newest| newest > route.order);
            if !outdated || active == Some(*path) || active.is_none() {
                route.left_ms = None;
                continue;
            }
            let left = *route.left_ms.get_or_insert(now.mono_ms);
            if self.session.is_drained(*path) || now.mono_ms >= left + DRAIN_MS {
                spare.push(*path);
            }
        }
        spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pump::tests::pair;
    use sealtide_identity::NodeId;

    const HOUR_MS: u64 = 3_600_000;

    /// Else a peer that tells continually of other places has this node dial them without a pause.
    #[tokio::test]
    async fn what_a_peer_tells_counts_once_in_five_seconds_and_only_when_it_is_new() {
        let (_a, _b, ours, _theirs) = pair().await;
        let mut core = ours.shared.core();
        let start_ms = ours.shared.clock.now().mono_ms;
        let at = |ms| Now { mono_ms: start_ms + ms, wall_ms: 0 };
        let relay = |id| vec![RelayHint { relay: NodeId::from_bytes([id; 32]), url: "wss://r.example".to_owned() }];
        (core.news, core.relays) = (News::default(), relay(1));
        let told = core.addresses.clone();
        core.told(&told, relay(1));
        assert!(!core.take_news(at(0)), "it was known");
        core.told(&told, relay(2));
        assert!(core.take_news(at(0)) && !core.take_news(at(0)), "once");
        core.told(&told, relay(3));
        assert!(!core.take_news(at(4_999)) && core.news.due_ms() == at(5_000).mono_ms, "kept for later");
        core.network_changed(at(4_999), &BTreeSet::new());
        assert!(core.take_news(at(4_999)), "what this node sees itself does not wait");
        core.told(&told, Vec::new());
        assert!(core.take_news(at(10_000)));
        core.told(&[], Vec::new());
        assert!(core.take_news(at(15_000)), "addresses likewise");
    }

    /// Else a renewal that a path of the other kind serves would be made again and again.
    #[tokio::test]
    async fn a_renewal_is_made_by_a_path_of_its_kind_and_one_of_another_at_most() {
        let (_a, _b, ours, _theirs) = pair().await;
        let mut core = ours.shared.core();
        let now = Now { mono_ms: ours.shared.clock.now().mono_ms + 55 * HOUR_MS / 60, wall_ms: 0 };
        let wanted = |core: &Core, now, renews| {
            [PipeKind::Direct, PipeKind::Relay, PipeKind::Tunnel].map(|kind| core.wants(now, kind, renews))
        };
        let direct = core.paths[&FIRST_PATH].clone();
        let relayed = Route { remote: Remote::Relay { relay: core.peer }, order: 1, ..direct.clone() };
        let fresh = |route: &Route| Route { since_ms: now.mono_ms, until_ms: now.mono_ms + HOUR_MS, ..route.clone() };

        assert_eq!(wanted(&core, now, true), [true, true, true], "nothing lasts");
        core.paths.insert(PathId(1), fresh(&relayed));
        assert!(!core.has_successor(&direct), "the need stays");
        assert_eq!(wanted(&core, now, true), [true, false, true], "a relay path is there to go on over");
        assert_eq!(wanted(&core, now, false), [true, false, false]);
        core.paths.insert(PathId(1), relayed.clone());
        assert_eq!(wanted(&core, now, true), [true, true, true], "it is as old");

        core.paths.insert(FIRST_PATH, relayed);
        core.paths.insert(PathId(1), fresh(&direct));
        assert_eq!(wanted(&core, now, true), [false, true, true], "the direct one lasts, and is not what carries");
    }
}
