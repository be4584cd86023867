//! Connections that use the identities now, and how much each peer has brought.

use std::collections::BTreeMap;

use sealtide_ibgib::{Address, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::Chain;
use sealtide_sync::{AbortCode, Refused};

use super::sessions::OwnSession;
use super::verdict::refused;
use super::{Identities, PeerIdentity, lock};
use crate::engine::keystones::Connection;

/// New frames that one peer may bring in a day.
const FRAMES_MAX: u64 = 65_536;
/// Their bytes.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    /// First frame of the peer's device keystone.
    pub(super) peer_device: Address,
    /// First frame of the owner that the peer named.
    pub(super) peer_owner: Option<Address>,
    /// The own session keystone, once it proved the connection, and the n of that frame.
    pub(super) own_session: Option<(OwnSession, u64)>,
    /// First frame of the peer's session keystone, once its proof was good.
    pub(super) peer_session: Option<Address>,
}

/// Connections by their session binding.
pub(super) type Connections = BTreeMap<[u8; 32], Live>;

/// What a peer brought on the last day on which it brought anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// The day, counted from 1970.
    pub day: u64,
    /// Frames that were not here.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Identities {
    /// Changes what is known of a connection; it is made with what the peer said of itself.
    pub(super) fn note_live(
        &self,
        connection: &Connection,
        device: &Address,
        owner: Option<&Address>,
        change: impl FnOnce(&mut Live),
    ) {
        let mut live = lock(&self.0.live);
        change(live.entry(connection.binding).or_insert_with(|| Live {
            connection: connection.clone(),
            peer_device: device.clone(),
            peer_owner: owner.cloned(),
            own_session: None,
            peer_session: None,
        }));
    }

    /// What is known of a connection.
    pub(super) fn live(&self, connection: &Connection) -> Option<Live> {
        lock(&self.0.live).get(&connection.binding).cloned()
    }

    /// The connection is over.
    pub(super) fn forget_live(&self, connection: &Connection) {
        lock(&self.0.live).remove(&connection.binding);
        lock(&self.0.answered).retain(|(binding, _)| *binding != connection.binding);
        lock(&self.0.signers).retain(|(binding, _)| *binding != connection.binding);
        let brought = lock(&self.0.brought).get(&connection.peer).copied();
        if let (Some(row), Some(brought)) = (PeerIdentity::of(&self.0.store, &connection.peer), brought) {
            self.put_peer(&connection.peer, PeerIdentity { brought, ..row });
        }
        self.tell();
    }

    /// Writes the row of a peer when it changed.
    pub(super) fn put_peer(&self, node: &NodeId, row: PeerIdentity) {
        if PeerIdentity::of(&self.0.store, node).as_ref() != Some(&row)
            && let Err(error) = row.put(&self.0.store, node)
        {
            tracing::error!(%error, "what a peer proved could not be written down");
        }
    }

    /// Counts those frames of a peer that the chain they are for does not hold yet, and refuses what is too much for one
    /// day: a peer fills neither disk nor memory, and one that only goes on as it did is never shut out.
    pub(super) fn count_brought(&self, node: &NodeId, chain: &Chain, frames: &[Verified]) -> Result<(), Refused> {
        let day = self.now().ms / DAY_MS;
        let mut brought = lock(&self.0.brought);
        let entry = brought
            .entry(*node)
            .or_insert_with(|| PeerIdentity::of(&self.0.store, node).map_or_else(Brought::default, |row| row.brought));
        if entry.day != day {
            *entry = Brought { day, ..Brought::default() };
        }
        let new = || frames.iter().filter(|frame| !chain.holds(frame));
        let bytes: u64 = new().map(|frame| frame.encoded().len() as u64).sum();
        let sum = Brought { day, frames: entry.frames + new().count() as u64, bytes: entry.bytes + bytes };
        if sum.frames > FRAMES_MAX || sum.bytes > BYTES_MAX {
            return Err(refused(AbortCode::Limit, "too many keystone frames from this node in one day"));
        }
        *entry = sum;
        Ok(())
    }

    /// Something was kept: whoever waits looks again.
    pub(super) fn tell(&self) {
        self.0.news.send_modify(|count| *count += 1);
    }
}
