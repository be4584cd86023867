//! One login: who it is, what waits for it, how fast it may send.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sealtide_identity::{LinkAddress, NodeId};

use super::super::frame::CircuitNumber;
use super::super::guest_list::Standing;
use super::super::outbox::Outbox;
use super::super::settings::RelaySettings;
use super::LoginId;
use super::circuits::CircuitKey;

/// Between two probes of one login, ms.
const PROBE_MS: u64 = 10_000;
/// Replacements are counted over this time, ms.
const MINUTE_MS: u64 = 60_000;

/// Why a login is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// This receiver has no room for what it sends.
    By(LoginId),
    /// The relay has no room, whoever the receiver is.
    Total,
}

#[derive(Debug)]
pub(super) struct Login {
    pub(super) node: NodeId,
    pub(super) standing: Standing,
    /// Where the relay sees it.
    pub(super) address: Option<LinkAddress>,
    pub(super) outbox: Outbox,
    /// The circuits by the number that this node knows.
    pub(super) circuits: BTreeMap<CircuitNumber, CircuitKey>,
    /// What holds this node up, if anything does.
    pub(super) held: Option<Held>,
    /// Whom this node holds up.
    pub(super) blocks: BTreeSet<LoginId>,
    /// When those are set free, at what time the login counts as without a sign of life, and when a guest has had its time: the timers of
    /// this login, on the monotonic clock, ms.
    pub(super) unblock_at_ms: Option<u64>,
    pub(super) idle_at_ms: Option<u64>,
    pub(super) guest_over_at_ms: Option<u64>,
    pub(super) alive_at_ms: u64,
    /// When it last took bytes, or got the first ones that wait.
    pub(super) took_at_ms: u64,
    leaving: bool,
    next_even: u32,
    bucket: Bucket,
    opens: Bucket,
    probed_at_ms: Option<u64>,
}

/// A token bucket: `level` in thousandths of a token, so that no time is lost to rounding. May go below 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    level: i128,
    filled_at_ms: u64,
}

impl Bucket {
    const fn full(burst: u32, now_ms: u64) -> Self {
        Self { level: burst as i128 * 1000, filled_at_ms: now_ms }
    }

    fn fill(&mut self, now_ms: u64, per_second: u64, burst: u32) {
        let passed = now_ms.saturating_sub(self.filled_at_ms);
        self.filled_at_ms = self.filled_at_ms.max(now_ms);
        self.level = (self.level + i128::from(passed) * i128::from(per_second)).min(i128::from(burst) * 1000);
    }

    fn take(&mut self, tokens: u64) {
        self.level -= i128::from(tokens) * 1000;
    }
}

impl Login {
    pub(super) fn new(
        now_ms: u64,
        node: NodeId,
        standing: Standing,
        address: Option<LinkAddress>,
        settings: &RelaySettings,
    ) -> Self {
        Self {
            node,
            standing,
            address,
            outbox: Outbox::default(),
            circuits: BTreeMap::new(),
            held: None,
            blocks: BTreeSet::new(),
            unblock_at_ms: None,
            idle_at_ms: None,
            guest_over_at_ms: None,
            alive_at_ms: now_ms,
            took_at_ms: now_ms,
            leaving: false,
            next_even: 2,
            bucket: Bucket::full(settings.burst, now_ms),
            opens: Bucket::full(settings.opens_burst, now_ms),
            probed_at_ms: None,
        }
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// A new login of a node does not get a new burst.
    pub(super) const fn bucket(&self) -> Bucket {
        self.bucket
    }

    pub(super) fn set_bucket(&mut self, bucket: Bucket) {
        self.bucket = bucket;
    }

    /// Takes `bytes` out of the rate.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.bucket.take(bytes as u64);
    }

    /// When this node may be read again, on the monotonic clock; `None`: now.
    pub(super) fn ready_at(&mut self, now_ms: u64, settings: &RelaySettings) -> Option<u64> {
        if settings.rate_bytes_s == 0 {
            return None;
        }
        self.bucket.fill(now_ms, settings.rate_bytes_s, settings.burst);
        let missing = u128::try_from(-self.bucket.level).ok().filter(|missing| *missing > 0)?;
        let wait = missing.div_ceil(u128::from(settings.rate_bytes_s));
        Some(now_ms.saturating_add(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    /// Whether it may open one more circuit now, by its own rate.
    pub(super) fn may_open(&mut self, now_ms: u64, settings: &RelaySettings) -> bool {
        self.opens.fill(now_ms, u64::from(settings.opens_per_second), settings.opens_burst);
        let may = self.opens.level >= 1000;
        if may {
            self.opens.take(1);
        }
        may
    }

    pub(super) fn may_probe(&mut self, now_ms: u64) -> bool {
        let may = self.probed_at_ms.is_none_or(|at| now_ms >= at + PROBE_MS);
        if may {
            self.probed_at_ms = Some(now_ms);
        }
        may
    }

    /// A free even number.
    pub(super) fn even_number(&mut self) -> CircuitNumber {
        loop {
            let number = CircuitNumber::new(self.next_even);
            self.next_even = self.next_even.checked_add(2).unwrap_or(2);
            if let Some(number) = number.filter(|number| !self.circuits.contains_key(number)) {
                return number;
            }
        }
    }
}

/// All logins. One of each node counts; older ones only say their last words.
#[derive(Debug, Default)]
pub(super) struct Logins {
    all: BTreeMap<LoginId, Login>,
    of_nodes: BTreeMap<NodeId, LoginId>,
    /// Those of `of_nodes` that are guests.
    guests: BTreeSet<LoginId>,
    replaced: BTreeMap<NodeId, VecDeque<u64>>,
}

impl Logins {
    pub(super) fn insert(&mut self, id: LoginId, login: Login) {
        let (node, standing) = (login.node, login.standing);
        self.all.insert(id, login);
        if let Some(old) = self.of_nodes.insert(node, id) {
            self.guests.remove(&old);
        }
        self.set_standing(id, standing);
    }

    /// How the login `id` stands from now on.
    pub(super) fn set_standing(&mut self, id: LoginId, standing: Standing) {
        let Some(login) = self.all.get_mut(&id) else { return };
        login.standing = standing;
        if standing == Standing::Guest && self.of_nodes.get(&login.node) == Some(&id) {
            self.guests.insert(id);
        } else {
            self.guests.remove(&id);
        }
    }

    /// The login no longer stands for its node.
    pub(super) fn forget(&mut self, id: LoginId) {
        if let Some(login) = self.all.get(&id)
            && self.of_nodes.get(&login.node) == Some(&id)
        {
            self.of_nodes.remove(&login.node);
            self.guests.remove(&id);
        }
    }

    pub(super) fn remove(&mut self, id: LoginId) -> Option<Login> {
        self.forget(id);
        self.all.remove(&id)
    }

    pub(super) fn get(&self, id: LoginId) -> Option<&Login> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: LoginId) -> Option<&mut Login> {
        self.all.get_mut(&id)
    }

    /// The login that stands for `node`.
    pub(super) fn of(&self, node: &NodeId) -> Option<LoginId> {
        self.of_nodes.get(node).copied()
    }

    /// Counts a replacement; gives those of the last minute.
    pub(super) fn replaced(&mut self, now_ms: u64, node: NodeId) -> usize {
        let recent = |at: &u64| now_ms < *at + MINUTE_MS;
        self.replaced.retain(|_, times| times.back().is_some_and(recent));
        let times = self.replaced.entry(node).or_default();
        times.retain(recent);
        times.push_back(now_ms);
        times.len()
    }

    pub(super) fn ids(&self) -> Vec<LoginId> {
        self.of_nodes.values().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.of_nodes.len()
    }

    pub(super) fn guests(&self) -> usize {
        self.guests.len()
    }

    pub(super) fn guest_ids(&self) -> Vec<LoginId> {
        self.guests.iter().copied().collect()
    }
}
