//! The relays of a node: where it logs in, and whom they let in for it. Spec: link C.5.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use data_encoding::HEXLOWER;
use sealtide_identity::{Invite, InviteId, NodeId, RelayAddress, RelayHint};
use sealtide_store::Peer;

use super::{Node, lock};
use crate::commands::store_failure;
use crate::failure::Failure;
use crate::real::now;

/// Peers that a relay is asked to let in, and for how long: 30 days. One entry is left for guests.
const ALLOWS: usize = 255;
const ALLOW_SECONDS: u32 = 30 * 86_400;
/// How often they are asked anew, also when nothing changes: long before what they were told runs out.
const TOLD_EVERY: Duration = Duration::from_secs(86_400);
/// The setting that keeps the relays of tickets whose TLS ends in a proxy, and how many of them.
pub(crate) const BEHIND_PROXIES: &str = "relays_behind_proxies";
const BEHIND_PROXIES_MAX: usize = 8;
/// The setting that keeps which relays of others the own tickets named, each in a line behind its invite, and how many of them.
const IN_TICKETS: &str = "relays_in_tickets";
const IN_TICKETS_MAX: usize = 256;
/// After this time it is looked at least whether the invites still live: an hour, ms.
const LOOK_MS: u64 = 3_600_000;

impl Node {
    /// Logs in at a relay and stays so.
    ///
    /// # Errors
    /// Exit 2 for one whose TLS ends in a proxy, while nobody is named who could vouch for the proxy.
    // Spec: LK-101
    pub fn use_relay(&self, relay: &RelayAddress) -> Result<(), Failure> {
        if !relay.bind0 {
            self.link().use_relay(&relay.relay, relay.token.clone());
            return Ok(());
        }
        if self.config().text("link", "relay_authorities").is_empty() {
            let why = "the TLS of this relay ends in a proxy, and nobody is named who may vouch for that proxy";
            return Err(Failure::usage("relay_authorities", why).hint(
                "sealtide config set link.relay_authorities FILE, the certificates of its authority; on Debian those of \
                 the web are in /etc/ssl/certs/ca-certificates.crt",
            ));
        }
        self.link().use_relay_behind_proxy(&relay.relay, relay.token.clone());
        Ok(())
    }

    /// Uses the relays of a ticket that says that their TLS ends in proxies, now and after every start: what peers say later
    /// does not tell it. Spec: link C.3, flag 8.
    ///
    /// # Errors
    /// As [`Node::use_relay`]; when the store cannot be written.
    pub(crate) fn use_relays_behind_proxies(&self, relays: &[RelayHint]) -> Result<(), Failure> {
        let mut all = self.relays_behind_proxies();
        for hint in relays {
            let relay = RelayAddress { relay: hint.clone(), bind0: true, token: None };
            self.use_relay(&relay)?;
            all.retain(|known| known.relay.relay != hint.relay);
            all.push(relay);
        }
        let kept = all.iter().rev().take(BEHIND_PROXIES_MAX).map(RelayAddress::encode).collect::<Vec<_>>().join(",");
        self.known().put_setting(BEHIND_PROXIES, Some(&kept)).map_err(store_failure)
    }

    fn relays_behind_proxies(&self) -> Vec<RelayAddress> {
        let kept = self.known().setting(BEHIND_PROXIES).unwrap_or_default();
        kept.split(',').filter_map(|text| RelayAddress::decode(text).ok()).collect()
    }

    /// Logs in at the relays that tickets brought.
    pub(super) fn use_relays_of_tickets(&self) {
        for relay in self.relays_behind_proxies() {
            if let Err(failure) = self.use_relay(&relay) {
                tracing::warn!(
                    relay = relay.relay.relay.short(),
                    "a relay of a ticket is not used: {}",
                    failure.message
                );
            }
        }
    }

    /// Whom the relays are to let in for this node: its peers, and guests while an invite lives.
    pub(crate) fn tell_relays(&self) {
        let _one_after_the_other = lock(&self.0.relays_told);
        let mut allows = peers_let_in(self.known().peers(), |peer| self.link().session(peer).is_some());
        let now_ms = now().wall_ms;
        if let Some(end_ms) = self.live_invites(now_ms).iter().map(|invite| invite.expires_ms).max() {
            let seconds = u32::try_from((end_ms - now_ms).div_ceil(1000)).unwrap_or(u32::MAX).min(ALLOW_SECONDS);
            allows.insert(NodeId::from_bytes([0; 32]), seconds);
        }
        self.link().relay_allows(allows);
    }

    fn live_invites(&self, now_ms: u64) -> Vec<Invite> {
        let mut invites = self.known().invites();
        invites.retain(|invite| invite.uses_left > 0 && invite.expires_ms > now_ms);
        invites
    }

    /// A ticket for this invite names these relays: where one is not this node's own, it stays logged in there while the invite lives.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(crate) fn name_in_ticket(&self, invite: &InviteId, relays: &[RelayHint]) -> Result<(), Failure> {
        let one_after_the_other = lock(&self.0.relays_told);
        let borrowed = self.link().borrowed_relays();
        let live = self.live_invites(now().wall_ms);
        let mut rows = self.in_tickets();
        rows.retain(|(id, _)| live.iter().any(|invite| invite.id == *id));
        rows.extend(relays.iter().filter(|relay| borrowed.contains(relay)).map(|relay| (*invite, relay.clone())));
        let row = |(id, relay): &(InviteId, RelayHint)| {
            let relay = RelayAddress { relay: relay.clone(), bind0: false, token: None };
            format!("{} {}", HEXLOWER.encode(id), relay.encode())
        };
        let older = rows.len().saturating_sub(IN_TICKETS_MAX);
        let text = rows[older..].iter().map(row).collect::<Vec<_>>().join("\n");
        self.known().put_setting(IN_TICKETS, Some(&text)).map_err(store_failure)?;
        drop(one_after_the_other);
        self.invites_changed();
        Ok(())
    }

    fn in_tickets(&self) -> Vec<(InviteId, RelayHint)> {
        let row = |line: &str| {
            let (id, relay) = line.split_once(' ')?;
            let id = HEXLOWER.decode(id.as_bytes()).ok()?.try_into().ok()?;
            Some((id, RelayAddress::decode(relay).ok()?.relay))
        };
        self.known().setting(IN_TICKETS).unwrap_or_default().lines().filter_map(row).collect()
    }

    /// Stays logged in where living invites say that this node is met, the newest first. Returns how long the first of them lives.
    fn hold_relays_of_invites(&self) -> Duration {
        let now_ms = now().wall_ms;
        let live = self.live_invites(now_ms);
        let end_of = |id: &InviteId| live.iter().find(|invite| invite.id == *id).map(|invite| invite.expires_ms);
        let (mut held, mut first_ms) = (Vec::new(), LOOK_MS);
        for (id, relay) in self.in_tickets().into_iter().rev() {
            let Some(end_ms) = end_of(&id) else { continue };
            first_ms = first_ms.min(end_ms - now_ms);
            if !held.contains(&relay) {
                held.push(relay);
            }
        }
        self.link().hold_relays(&held);
        Duration::from_millis(first_ms)
    }

    /// An invite was made, used or taken back: who keeps the relays told looks again.
    pub(crate) fn invites_changed(&self) {
        self.0.door.enrolled.notify_one();
    }

    /// Tells them now, once a day, and whenever an invite has enrolled somebody: it may be used up, whether a session came of it or
    /// not. And stays logged in where tickets say that this node is met.
    pub(super) fn keep_relays_told(&self) {
        self.keep_relays_told_each(TOLD_EVERY);
    }

    fn keep_relays_told_each(&self, time: Duration) {
        self.tell_relays();
        let mut wait = self.hold_relays_of_invites();
        let (node, mut stop) = (self.clone(), self.0.stop.subscribe());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = node.0.door.enrolled.notified() => {}
                    () = tokio::time::sleep(wait.min(time)) => {}
                    _ = stop.wait_for(|stopped| *stopped) => return,
                }
                let told = node.clone();
                // The store is read, which may wait for the disk.
                let looked = tokio::task::spawn_blocking(move || {
                    told.tell_relays();
                    told.hold_relays_of_invites()
                });
                wait = looked.await.unwrap_or(Duration::from_millis(LOOK_MS));
            }
        });
    }
}

/// The peers that relays are asked to let in: where there are more than a relay takes of one node, those that are here and
/// those that were last.
fn peers_let_in(mut peers: Vec<Peer>, is_here: impl Fn(&NodeId) -> bool) -> BTreeMap<NodeId, u32> {
    peers.retain(|peer| !peer.revoked);
    if peers.len() > ALLOWS {
        tracing::warn!(
            peers = peers.len(),
            let_in = ALLOWS,
            "a relay lets in no more peers for one node: those that were not seen for longest reach it over no relay"
        );
        peers.sort_by_cached_key(|peer| Reverse((is_here(&peer.node), peer.last_seen_ms)));
        peers.truncate(ALLOWS);
    }
    peers.into_iter().map(|peer| (peer.node, ALLOW_SECONDS)).collect()
}

#[cfg(test)]
mod tests;
