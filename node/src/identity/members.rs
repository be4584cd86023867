//! What the members of a space ask of identities: whom a node speaks for, claims on members frames, and the keystones of
//! others that such claims stand in. Spec: ibgib §12.5

use std::collections::BTreeSet;

use sealtide_ibgib::Address;
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Chain, Claim, Class, Signer, Verb};
use sealtide_identity::members::{Keystones, devices_of};
use tokio::time::{Instant, timeout_at};

use super::witness::WITNESS_WAIT;
use super::{Identities, OwnerError, PeerIdentity, SignRefused, StoreTrouble, lock};
use crate::engine::keystones::Connection;

/// The owner of another node that this device speaks for, because a person said so.
const SPEAKS_FOR: &str = "identity/speaks-for";
/// Keystones that a peer is asked for at once.
const ASKED_AT_ONCE: usize = 8;

impl Keystones for Identities {
    fn look(&self, first: &Address, look: &mut dyn FnMut(&Chain)) {
        self.0.frames.with(first, |chain| {
            if chain.genesis().is_some() {
                look(chain);
            }
        });
    }
}

impl Identities {
    /// The keystones that a node acts as, as it proved them last: the owner that delegates `sync` to its device, then the
    /// device. Spec: ibgib §12.3
    pub fn acts_as(&self, node: &NodeId) -> Vec<Address> {
        let (device, owner) = if *node == self.0.node.id {
            (self.device(), self.speaks_for())
        } else {
            PeerIdentity::of(&self.0.store, node).map_or((None, None), |row| (Some(row.device), row.owner))
        };
        let Some(device) = device.filter(|device| self.0.frames.with(device, |chain| chain.is_live())) else {
            return Vec::new();
        };
        let owner = owner.filter(|owner| self.delegates_now(owner, &device, Verb::Sync));
        owner.into_iter().chain([device]).collect()
    }

    /// Whether an owner lets a device do this now.
    pub fn delegates_now(&self, owner: &Address, device: &Address, verb: Verb) -> bool {
        let now = self.now();
        self.0.frames.with(owner, |chain| {
            let is_owner = chain.newest().is_some_and(|newest| newest.class() == Class::Owner);
            is_owner && chain.is_live() && chain.delegations(device).iter().any(|given| given.allows(verb, now))
        })
    }

    /// The owner whose device this is: the one whose keys are here, or that of another node which a person named and which
    /// delegates this device.
    pub fn speaks_for(&self) -> Option<Address> {
        self.owner().or_else(|| {
            let text = self.0.store.facts().setting(SPEAKS_FOR).ok().flatten()?;
            Address::parse(std::str::from_utf8(&text).ok()?).ok()
        })
    }

    /// From now on this device speaks for the owner of a peer; `None`: for nobody but itself.
    ///
    /// # Errors
    /// [`OwnerError::Exists`] with an owner of its own, [`OwnerError::NotDelegated`] while that owner does not let it.
    pub fn speak_for(&self, peer: Option<&NodeId>) -> Result<Option<Address>, OwnerError> {
        if let Some(owner) = self.owner() {
            return Err(OwnerError::Exists(owner));
        }
        let device = self.device().ok_or(OwnerError::NoDevice)?;
        let owner = match peer {
            None => None,
            Some(peer) => {
                let owner = self.peer(peer).and_then(|row| row.owner).ok_or(OwnerError::NoOwner)?;
                let given = self.delegates_now(&owner, &device, Verb::Connect);
                Some(Some(owner).filter(|_| given).ok_or(OwnerError::NotDelegated)?)
            }
        };
        let row = owner.as_ref().map(|owner| owner.as_str().as_bytes());
        self.0.store.facts().put_setting(SPEAKS_FOR, row).map_err(StoreTrouble::of)?;
        Ok(owner)
    }

    /// Claims a record: the device keystone posts its address. Durable when this returns.
    ///
    /// # Errors
    /// [`SignRefused`].
    pub fn post(&self, target: &Address) -> Result<(), SignRefused> {
        let device = self.device().ok_or(SignRefused::NoKeys)?;
        self.check_doubts(&device)?;
        let (key, working) = (self.0.node.key.clone(), self.0.vault.working());
        let claim = Claim::new(Verb::Post, target.as_str());
        self.sign_ordinary(&device, Signer::Working(working), &key, &claim)?;
        self.tell();
        Ok(())
    }

    /// Whether a keystone is one of these, or the device of one.
    pub(super) fn belongs_to(&self, first: &Address, named: &BTreeSet<Address>) -> bool {
        named.contains(first) || named.iter().any(|owner| devices_of(owner, self).contains(first))
    }

    /// Asks a peer for newer frames of keystones, and waits until it answered, 5 s at most.
    pub(super) async fn fetch_all(&self, connection: &Connection, wanted: Vec<Address>) {
        let mut news = self.0.news.subscribe();
        let until = Instant::now() + WITNESS_WAIT;
        for some in wanted.chunks(ASKED_AT_ONCE) {
            let key = |first: &Address| (connection.binding, first.clone());
            for first in some {
                lock(&self.0.signers).insert(key(first));
                lock(&self.0.answered).remove(&key(first));
                let (identities, keystone) = (self.clone(), first.clone());
                let held = tokio::task::spawn_blocking(move || identities.newest_held(&keystone)).await;
                connection.ask(first.clone(), held.ok().flatten());
            }
            while !some.iter().all(|first| lock(&self.0.answered).contains(&key(first))) {
                if timeout_at(until, news.changed()).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The greatest n up to which frames of a keystone are here without a gap.
    fn newest_held(&self, first: &Address) -> Option<u64> {
        self.0.frames.with(first, |chain| chain.newest().map(|newest| newest.frame().facts().n))
    }
}
