//! What strangers may cost: connections, rates and slow lanes per source. Spec: link C.12.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::clock::random_below;

/// Every limit of the link door. Spec: link C.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Accepted connections that are no session yet.
    pub unproven_total: usize,
    /// The same, of one source.
    pub unproven_per_source: usize,
    /// New connections of one source per second.
    pub accepts_per_second: u32,
    /// New connections of one source in one go.
    pub accepts_burst: u32,
    /// From the upgrade to HELLO.
    pub hello_deadline: Duration,
    /// From the TCP connection to the session.
    pub handshake_deadline: Duration,
    /// Wire bytes inside TLS, behind the HTTP head, that are taken before the knock.
    pub bytes_before_knock: usize,
    /// Bad knocks and proofs of one source per minute before it is slowed.
    pub failures_per_minute: u32,
    /// How late a slowed source is answered.
    pub slow_delay: Duration,
    /// ML-DSA operations at one time; 0 stands for the number of cores.
    pub proofs_at_once: usize,
    /// ML-DSA operations that wait.
    pub proofs_waiting: usize,
    /// Sessions of this node.
    pub sessions: usize,
    /// Received bytes of all sessions that readers have not released; above it no CREDIT is given.
    pub bytes_held: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unproven_total: 1024,
            unproven_per_source: 16,
            accepts_per_second: 10,
            accepts_burst: 50,
            hello_deadline: Duration::from_secs(3),
            handshake_deadline: Duration::from_secs(10),
            bytes_before_knock: 4096,
            failures_per_minute: 10,
            slow_delay: Duration::from_secs(2),
            proofs_at_once: 0,
            proofs_waiting: 256,
            sessions: 4096,
            bytes_held: 1 << 30,
        }
    }
}

/// Who is counted together: one IPv4 address, or one IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source {
    network: IpAddr,
    limited: bool,
}

impl Source {
    /// A source that only the totals apply to.
    pub(crate) fn unlimited(remote: SocketAddr) -> Self {
        Self { limited: false, ..Self::of(remote, false) }
    }

    /// The source of a remote address. Loopback is not limited per source unless `limits_loopback`.
    // Spec: LK-106
    pub(crate) fn of(remote: SocketAddr, limits_loopback: bool) -> Self {
        let ip = remote.ip().to_canonical();
        let network = match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(six) => {
                let [a, b, c, d, ..] = six.segments();
                IpAddr::from([a, b, c, d, 0, 0, 0, 0])
            }
        };
        Self { network, limited: limits_loopback || !ip.is_loopback() }
    }
}

/// Counts connections that have not proved anything, and remembers who failed lately.
///
/// Memory: one entry per unproven connection, and one record per source seen in the last minute, of which
/// [`SOURCES_PER_PLACE`] are kept for each place.
#[derive(Debug)]
pub(crate) struct Gate {
    limits: Limits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    waiting: BTreeMap<u64, Waiting>,
    sources: BTreeMap<Source, Record>,
}

#[derive(Debug)]
struct Waiting {
    source: Source,
    knocked: bool,
    evict: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Record {
    tokens: f64,
    filled: Instant,
    failures: VecDeque<Instant>,
}

/// A place among the unproven connections; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    id: u64,
    source: Source,
}

/// Why a connection is not let in at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Turned {
    #[error("too many new connections of one source")]
    Rate,
    #[error("all places for unproven connections are taken")]
    Full,
}

/// Sources remembered at one time, for each place of an unproven connection.
const SOURCES_PER_PLACE: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);

impl Gate {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, inner: Mutex::default() })
    }

    /// Takes a place for a new connection. The receiver fires when the place must go to a newer one.
    // Spec: LK-65
    pub(crate) fn enter(self: &Arc<Self>, source: Source) -> Result<(Place, oneshot::Receiver<()>), Turned> {
        let mut inner = self.lock();
        if source.limited {
            let now = Instant::now();
            let limits = self.limits;
            let record = inner.record(source, now, limits);
            let elapsed = now.duration_since(record.filled).as_secs_f64();
            record.tokens =
                (record.tokens + elapsed * f64::from(limits.accepts_per_second)).min(f64::from(limits.accepts_burst));
            record.filled = now;
            if record.tokens < 1.0 {
                return Err(Turned::Rate);
            }
            record.tokens -= 1.0;
            let of_source = inner.waiting.values().filter(|w| w.source == source).count();
            if of_source >= self.limits.unproven_per_source {
                inner.make_room(|w| w.source == source)?;
            }
        }
        if inner.waiting.len() >= self.limits.unproven_total {
            inner.make_room(|_| true)?;
        }
        let id = inner.next_id;
        inner.next_id += 1;
        let (evict, evicted) = oneshot::channel();
        inner.waiting.insert(id, Waiting { source, knocked: false, evict: Some(evict) });
        drop(inner);
        Ok((Place { gate: self.clone(), id, source }, evicted))
    }

    /// How many connections have no session yet.
    #[cfg(test)]
    fn unproven(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Inner {
    fn record(&mut self, source: Source, now: Instant, limits: Limits) -> &mut Record {
        let sources_max = SOURCES_PER_PLACE * limits.unproven_total.max(1);
        if !self.sources.contains_key(&source) && self.sources.len() >= sources_max {
            self.sources.retain(|_, r| now.duration_since(r.filled) < MINUTE);
            if self.sources.len() >= sources_max {
                // All are busy: forgetting one at random favours nobody.
                let index = random_below(self.sources.len() as u64) as usize;
                if let Some(victim) = self.sources.keys().nth(index).copied() {
                    self.sources.remove(&victim);
                }
            }
        }
        self.sources.entry(source).or_insert_with(|| Record {
            tokens: f64::from(limits.accepts_burst),
            filled: now,
            failures: VecDeque::new(),
        })
    }

    /// Ends the oldest connection among `which` that has not passed the knock.
    fn make_room(&mut self, which: impl Fn(&Waiting) -> bool) -> Result<(), Turned> {
        let oldest = self.waiting.iter().find(|(_, w)| !w.knocked && which(w)).map(|(id, _)| *id);
        let mut gone = oldest.and_then(|id| self.waiting.remove(&id)).ok_or(Turned::Full)?;
        if let Some(evict) = gone.evict.take() {
            let _already_over = evict.send(());
        }
        Ok(())
    }
}

impl Place {
    /// The connection knows who it wants to reach; it is not evicted any more. Says how late it is to be answered.
    // Spec: LK-105
    pub(crate) fn knocked(&self) -> Duration {
        let mut inner = self.gate.lock();
        if let Some(waiting) = inner.waiting.get_mut(&self.id) {
            waiting.knocked = true;
        }
        if !self.source.limited {
            return Duration::ZERO;
        }
        let now = Instant::now();
        let limits = self.gate.limits;
        let failures = &mut inner.record(self.source, now, limits).failures;
        forget_old(failures, now);
        let slow = failures.len() > limits.failures_per_minute as usize;
        if slow { limits.slow_delay } else { Duration::ZERO }
    }

    /// A wrong knock, a bad signature or a bad tag.
    pub(crate) fn failed(&self) {
        if self.source.limited {
            let mut inner = self.gate.lock();
            let now = Instant::now();
            let limits = self.gate.limits;
            let failures = &mut inner.record(self.source, now, limits).failures;
            forget_old(failures, now);
            if failures.len() <= limits.failures_per_minute as usize {
                failures.push_back(now);
            }
        }
    }

    /// A right knock followed by a valid signature: the source is answered at once again.
    pub(crate) fn proved(&self) {
        if let Some(record) = self.gate.lock().sources.get_mut(&self.source) {
            record.failures.clear();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.lock().waiting.remove(&self.id);
    }
}

fn forget_old(failures: &mut VecDeque<Instant>, now: Instant) {
    while failures.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
        failures.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap(), true)
    }

    #[test]
    fn sources_are_addresses_and_ipv6_networks() {
        assert_eq!(source("192.0.2.1:1"), source("[::ffff:192.0.2.1]:9"));
        assert_eq!(source("[2001:db8:1:2::1]:1"), source("[2001:db8:1:2:ffff::9]:1"));
        assert_ne!(source("[2001:db8:1:2::1]:1"), source("[2001:db8:1:3::1]:1"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert!(!Source::of("127.0.0.1:1".parse().unwrap(), false).limited);
        assert!(!Source::of("[::ffff:127.0.0.1]:1".parse().unwrap(), false).limited);
        assert!(Source::of("127.0.0.1:1".parse().unwrap(), true).limited);
    }

    // Proves: LK-65
    #[tokio::test(start_paused = true)]
    async fn a_newer_connection_replaces_the_oldest_of_its_source_that_has_not_knocked() {
        let gate = Gate::new(Limits { unproven_per_source: 3, accepts_burst: 100, ..Limits::default() });
        let (a, b) = (source("192.0.2.1:1"), source("192.0.2.2:1"));
        let (first, mut first_evicted) = gate.enter(a).unwrap();
        first.knocked();
        let (_second, mut second_evicted) = gate.enter(a).unwrap();
        let (_third, mut third_evicted) = gate.enter(a).unwrap();
        let (_other, mut other_evicted) = gate.enter(b).unwrap();
        let (fourth, _) = gate.enter(a).unwrap();
        assert!(first_evicted.try_recv().is_err(), "it passed the knock");
        assert!(second_evicted.try_recv().is_ok(), "the oldest without a knock");
        assert!(third_evicted.try_recv().is_err() && other_evicted.try_recv().is_err());
        assert_eq!(gate.unproven(), 4);
        fourth.knocked();
        _third.knocked();
        assert_eq!(gate.enter(a).unwrap_err(), Turned::Full, "all of them knocked");
        drop(first);
        assert!(gate.enter(a).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_are_counted_per_second_and_source() {
        let gate = Gate::new(Limits::default());
        let (a, b) = (source("192.0.2.1:1"), source("192.0.2.2:1"));
        for _ in 0..50 {
            drop(gate.enter(a).unwrap());
        }
        assert_eq!(gate.enter(a).unwrap_err(), Turned::Rate);
        assert!(gate.enter(b).is_ok());
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..10 {
            drop(gate.enter(a).unwrap());
        }
        assert_eq!(gate.enter(a).unwrap_err(), Turned::Rate);
        let loopback = Source::of("127.0.0.1:1".parse().unwrap(), false);
        for _ in 0..200 {
            drop(gate.enter(loopback).unwrap());
        }
    }

    // Proves: LK-105
    #[tokio::test(start_paused = true)]
    async fn failures_slow_a_source_and_a_proof_ends_it() {
        let gate = Gate::new(Limits { accepts_burst: 1000, ..Limits::default() });
        let a = source("192.0.2.1:1");
        for _ in 0..11 {
            let (place, _) = gate.enter(a).unwrap();
            assert_eq!(place.knocked(), Duration::ZERO);
            place.failed();
        }
        let (place, _) = gate.enter(a).unwrap();
        assert_eq!(place.knocked(), Duration::from_secs(2), "slowed, not banned");
        assert_eq!(gate.enter(source("192.0.2.2:1")).unwrap().0.knocked(), Duration::ZERO);
        place.proved();
        assert_eq!(gate.enter(a).unwrap().0.knocked(), Duration::ZERO);
        for _ in 0..20 {
            place.failed();
        }
        tokio::time::advance(MINUTE).await;
        assert_eq!(gate.enter(a).unwrap().0.knocked(), Duration::ZERO, "forgotten after a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_stays_bounded_with_many_sources() {
        let gate = Gate::new(Limits::default());
        for n in 0..10_000u32 {
            let ip = std::net::Ipv4Addr::from(0x0b00_0000 + n);
            let _turned = gate.enter(Source::of((ip, 1).into(), false)).map(|(place, _)| place.failed());
        }
        assert_eq!(gate.lock().sources.len(), SOURCES_PER_PLACE * 1024);
        assert_eq!(gate.unproven(), 0);
    }
}
