//! First frames of the three classes. Spec: ibgib §12.3, §12.4.

use std::collections::BTreeSet;

use sealtide_crypto::{Entropy, SigningKey};
use sealtide_ibgib::{Stamp, uuid};

use super::class::{Class, OwnerProfiles, POOL_CONNECT, POOL_DEFAULT, POOL_MANAGE, POOL_REVOKE, Profile};
use super::draft::Draft;
use super::frame::Frame;
use super::hybrid::Block;
use super::pool::{ChallengeId, PoolConfig, fresh_pool};
use super::secrets::{MasterSecret, RootSecret, SessionSecret, WorkingSecret};
use super::step::Standing;

/// Makes the first frame of an owner keystone.
pub fn owner_genesis(
    root: &RootSecret,
    working: &WorkingSecret,
    key: &SigningKey,
    profiles: OwnerProfiles,
    stamp: Stamp,
    entropy: &mut dyn Entropy,
) -> Standing {
    let uuid = uuid(entropy);
    let masters = OwnerMasters { root: root.master(&uuid), working: working.master(&uuid) };
    let pools = owner_pools(&masters, profiles, &mut |_| false, entropy);
    first(pools, &uuid, key, stamp)
}

/// Makes the first frame of a device keystone; `key` is the node key.
pub fn device_genesis(
    working: &WorkingSecret,
    key: &SigningKey,
    profile: Profile,
    stamp: Stamp,
    entropy: &mut dyn Entropy,
) -> Standing {
    let uuid = uuid(entropy);
    let config = Class::Device.config(POOL_DEFAULT, profile);
    let pool = new_pool(&config, &working.master(&uuid), &mut |_| false, entropy);
    first(vec![pool], &uuid, key, stamp)
}

/// Makes the first frame of a session keystone; its key comes from the secret.
pub fn session_genesis(secret: &SessionSecret, stamp: Stamp, entropy: &mut dyn Entropy) -> Standing {
    let uuid = uuid(entropy);
    let config = Class::Session.config(POOL_CONNECT, Profile::Light);
    let pool = new_pool(&config, &secret.master(), &mut |_| false, entropy);
    first(vec![pool], &uuid, &SigningKey::from_seed(&secret.key_seed()), stamp)
}

fn first(pools: Vec<String>, uuid: &str, key: &SigningKey, stamp: Stamp) -> Standing {
    let block = Some(Block::unsigned_for(key.public(), true));
    let draft = Draft { previous: None, first: None, pools, n: 0, uuid, stamp, block, reason: None, keyring: None };
    let frame: Frame = draft.finish(None, key).expect("pools of our own configs fit into a record");
    Standing::first(frame).expect("the genesis that we make keeps its own rules")
}

/// The master secrets of an owner's pools.
pub(super) struct OwnerMasters {
    pub(super) root: MasterSecret,
    pub(super) working: MasterSecret,
}

/// New pools for an owner.
pub(super) fn owner_pools(
    masters: &OwnerMasters,
    profiles: OwnerProfiles,
    used: &mut dyn FnMut(ChallengeId) -> bool,
    entropy: &mut dyn Entropy,
) -> Vec<String> {
    let manage = profiles.manage.max(Profile::Standard);
    [
        (POOL_DEFAULT, profiles.default, &masters.working),
        (POOL_MANAGE, manage, &masters.root),
        (POOL_REVOKE, profiles.revoke, &masters.root),
    ]
    .into_iter()
    .map(|(pool, profile, master)| new_pool(&Class::Owner.config(pool, profile), master, used, entropy))
    .collect()
}

/// A full new pool.
pub(super) fn new_pool(
    config: &PoolConfig,
    master: &MasterSecret,
    used: &mut dyn FnMut(ChallengeId) -> bool,
    entropy: &mut dyn Entropy,
) -> String {
    fresh_pool(config, master.expose(), &draw_ids(config.size as usize, used, entropy))
}

/// New ids: by chance, and none that was used before. Spec: ibgib §12.3 "Secrets".
// Spec: SY-22
pub(super) fn draw_ids(
    count: usize,
    used: &mut dyn FnMut(ChallengeId) -> bool,
    entropy: &mut dyn Entropy,
) -> Vec<ChallengeId> {
    let mut seen = BTreeSet::new();
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let id = ChallengeId::draw(entropy);
        if !used(id) && seen.insert(id) {
            ids.push(id);
        }
    }
    ids
}
