//! Witnesses: peers that hold frames of the own keystones and say so. Spec: ibgib §12.3 "State"

use std::time::Duration;

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::keystone::{Chain, Place};
use sealtide_sync::Refused;
use tokio::time::{Instant, timeout_at};

use super::{Identities, lock};
use crate::engine::keystones::Connection;

/// How long peers are waited for.
pub(super) const WITNESS_WAIT: Duration = Duration::from_secs(5);

impl Identities {
    /// Before the device keystone signs for a peer: what the peer named is fetched when it is not here, and in doubt it
    /// must be a witness, it or another one. Others are waited for, since one of them may have seen more.
    // Spec: SY-26 SY-87
    pub(super) async fn hear_witness(
        &self,
        connection: &Connection,
        known: Option<(Address, u64)>,
    ) -> Result<(), Refused> {
        let Some(device) = self.device() else { return Ok(()) };
        let until = Instant::now() + WITNESS_WAIT;
        if let Some((named, _)) = &known {
            self.fetch(connection, &device, named, until).await?;
        }
        if lock(&self.0.doubts).of(&device).is_none() {
            return Ok(());
        }
        if self.known_peers() > 1 {
            tokio::time::sleep_until(until).await;
        }
        let identities = self.clone();
        let heard = tokio::task::spawn_blocking(move || identities.weigh(&device, known.as_ref())).await;
        heard.unwrap_or_else(|_| Err(Refused::auth("the identities failed without a word")))?;
        if let Some(owner) = self.owner() {
            let last = self.newest_n(&owner).and_then(|n| n.checked_sub(1));
            connection.ask(owner, last);
        }
        Ok(())
    }

    /// Gets a frame of an own keystone that a peer named, and what leads to it.
    async fn fetch(
        &self,
        connection: &Connection,
        keystone: &Address,
        named: &Address,
        until: Instant,
    ) -> Result<(), Refused> {
        let mut news = self.0.news.subscribe();
        let mut asked = false;
        loop {
            news.borrow_and_update();
            let held = self.0.frames.with(keystone, |chain| chain.standing(named).is_some());
            lock(&self.0.doubts).named(keystone, named, held);
            if held {
                let identities = self.clone();
                let _ = tokio::task::spawn_blocking(move || identities.end_doubt()).await;
                return Ok(());
            }
            if !asked {
                asked = true;
                let from = self.newest_n(keystone);
                tracing::warn!(
                    peer = connection.peer.short(),
                    "a peer holds newer frames of this device; they are fetched"
                );
                connection.ask(keystone.clone(), from);
            }
            if timeout_at(until, news.changed()).await.is_err() {
                lock(&self.0.doubts).did_not_come(keystone, named);
                return Err(Refused::auth(
                    "this node's store is older than what a peer holds, and the rest did not come",
                ));
            }
        }
    }

    /// In doubt: whether this peer knows the newest frame there is, or another one did. It is none that counts while
    /// another one named a frame that is not here.
    fn weigh(&self, device: &Address, known: Option<&(Address, u64)>) -> Result<(), Refused> {
        let newest = self.0.frames.with(device, |chain| is_newest(chain, known));
        if newest {
            self.vouch(device);
        }
        match lock(&self.0.doubts).of(device) {
            None => Ok(()),
            Some(doubt) => Err(Refused::auth(doubt.to_string())),
        }
    }

    /// Frames of the own owner keystone that came from a peer: one that holds the newest is a witness. Of the device a
    /// peer is one only when the others were waited for, since what it brings may be older than what they are about to.
    pub(super) fn heard(&self, keystone: &Address, frames: &[Verified]) {
        if self.device().as_ref() == Some(keystone) {
            return;
        }
        let newest = self.0.frames.with(keystone, |chain| {
            let newest = chain.newest().map(|newest| newest.frame().address().clone());
            frames.iter().any(|frame| Some(frame.address()) == newest.as_ref())
        });
        if newest && lock(&self.0.doubts).of(keystone).is_some() {
            self.vouch(keystone);
        }
    }

    fn vouch(&self, keystone: &Address) {
        if lock(&self.0.doubts).vouched(keystone) {
            tracing::info!(%keystone, "a witness knows the newest frame");
            self.end_doubt();
        }
    }

    /// Writes down that nothing is doubted any more, when it is so: witnesses vouched for all, and what peers named is here.
    fn end_doubt(&self) {
        let own: Vec<Address> = [self.device(), self.owner()].into_iter().flatten().collect();
        if !lock(&self.0.doubts).is_over(&own) {
            return;
        }
        match self.count_anew(self.0.marker) {
            Ok(()) => lock(&self.0.doubts).clear(),
            Err(error) => tracing::error!(%error, "the key file could not be written"),
        }
    }

    /// Asks every peer that is there for newer frames of an own keystone, and waits for the answers, at most 5 s.
    pub async fn ask_witnesses(&self, keystone: &Address) {
        let after = self.newest_n(keystone).and_then(|n| n.checked_sub(1));
        let mut news = self.0.news.subscribe();
        let asked: Vec<[u8; 32]> = {
            let live = lock(&self.0.live);
            live.values().for_each(|live| live.connection.ask(keystone.clone(), after));
            live.keys().copied().collect()
        };
        let until = Instant::now() + WITNESS_WAIT;
        loop {
            news.borrow_and_update();
            let open = {
                let answered = lock(&self.0.answered);
                let live = lock(&self.0.live);
                asked.iter().any(|one| live.contains_key(one) && !answered.contains(&(*one, keystone.clone())))
            };
            if !open || timeout_at(until, news.changed()).await.is_err() {
                break;
            }
        }
        lock(&self.0.answered).retain(|(_, first)| first != keystone);
    }

    pub(super) fn newest_n(&self, keystone: &Address) -> Option<u64> {
        self.0.frames.with(keystone, |chain| chain.newest().map(|newest| newest.frame().facts().n))
    }

    fn known_peers(&self) -> usize {
        self.0.store.facts().peers().map_or(0, |peers| peers.iter().filter(|peer| !peer.revoked).count())
    }
}

fn is_newest(chain: &Chain, known: Option<&(Address, u64)>) -> bool {
    let Some((address, n)) = known else { return false };
    let newest = chain.newest().map_or(0, |newest| newest.frame().facts().n);
    chain.place(address) == Some(Place::Valid) && *n >= newest
}
