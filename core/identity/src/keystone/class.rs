//! The three classes of keystones, their pools and the profiles of these. Spec: ibgib §12.3.

use super::pool::{PoolConfig, Replenish};
use super::strategy::Algo;

/// What a keystone is for; read from the pools of its first frame, and never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A person or firm.
    Owner,
    /// One node.
    Device,
    /// One side of a session.
    Session,
}

/// How large a binding pool is and how much a frame reveals of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// 256 challenges, 32 revealed: 135 bits.
    Light,
    /// 512 challenges, 32 revealed: 169 bits.
    Standard,
    /// 1 024 challenges, 64 revealed: over 256 bits.
    Strong,
}

impl Profile {
    /// Challenges of the pool.
    pub const fn size(self) -> u32 {
        match self {
            Self::Light => 256,
            Self::Standard => 512,
            Self::Strong => 1_024,
        }
    }

    /// Challenges that one frame reveals.
    pub const fn bind(self) -> u32 {
        match self {
            Self::Light | Self::Standard => 32,
            Self::Strong => 64,
        }
    }
}

/// The profiles of an owner keystone's pools; `manage` is at least standard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerProfiles {
    /// Pool `default`.
    pub default: Profile,
    /// Pool `manage`.
    pub manage: Profile,
    /// Pool `revoke`.
    pub revoke: Profile,
}

impl Default for OwnerProfiles {
    fn default() -> Self {
        Self { default: Profile::Light, manage: Profile::Standard, revoke: Profile::Light }
    }
}

/// The pool of ordinary frames.
pub const POOL_DEFAULT: &str = "default";
/// The pool that replaces pools and keys.
pub const POOL_MANAGE: &str = "manage";
/// The pool that ends an identity.
pub const POOL_REVOKE: &str = "revoke";
/// The pool of session keystones.
pub const POOL_CONNECT: &str = "connect";

/// Challenges of a session's pool.
pub(super) const SESSION_SIZE: u32 = 8;
/// Challenges that a session's frame reveals.
pub(super) const SESSION_DEMANDS: usize = 2;
/// The fewest and the most that a binding pool may demand. Below, a forged frame is too cheap; above, too much of a
/// small pool is revealed at once.
pub(super) const BIND_RANGE: std::ops::RangeInclusive<u32> = 32..=64;

impl Class {
    /// The ids of its pools, in their order.
    pub const fn pool_ids(self) -> &'static [&'static str] {
        match self {
            Self::Owner => &[POOL_DEFAULT, POOL_MANAGE, POOL_REVOKE],
            Self::Device => &[POOL_DEFAULT],
            Self::Session => &[POOL_CONNECT],
        }
    }

    /// The class with exactly these pools.
    pub(super) fn of<'a>(ids: impl Iterator<Item = &'a str>) -> Option<Self> {
        let ids: Vec<&str> = ids.collect();
        [Self::Owner, Self::Device, Self::Session].into_iter().find(|class| class.pool_ids() == ids)
    }

    /// The verbs that a pool of this class lists.
    pub(super) fn verbs(self, pool: &str) -> &'static [&'static str] {
        match (self, pool) {
            (Self::Owner, POOL_DEFAULT) => &["sync", "post", "delegate", "undelegate"],
            (Self::Device, POOL_DEFAULT) => &["sync", "post"],
            (_, POOL_MANAGE) => &["manage"],
            (_, POOL_REVOKE) => &["revoke"],
            _ => &[],
        }
    }

    /// The fewest challenges of a binding pool.
    pub(super) fn size_min(self, pool: &str) -> u32 {
        if pool == POOL_MANAGE { Profile::Standard.size() } else { Profile::Light.size() }
    }

    /// The config of a pool that we make.
    pub(super) fn config(self, pool: &str, profile: Profile) -> PoolConfig {
        let session = self == Self::Session;
        let replenish = match pool {
            POOL_REVOKE => Replenish::ScorchedEarth,
            POOL_CONNECT => Replenish::TopUp,
            _ => Replenish::ReplaceAll,
        };
        PoolConfig {
            salt: pool.to_owned(),
            verbs: self.verbs(pool).iter().map(|verb| (*verb).to_owned()).collect(),
            size: if session { SESSION_SIZE } else { profile.size() },
            replenish,
            select_sequentially: 0,
            select_randomly: 0,
            target_binding_chars: 0,
            algo: Algo::Sha256,
            rounds: 1,
            bind: (!session).then(|| profile.bind()),
        }
    }
}
