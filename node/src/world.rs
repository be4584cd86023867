//! The world as the driver sees it: time, chance, the disk's sync, and sessions with channels.
//!
//! The node runs the driver on [`crate::real::RealWorld`]; the simulator runs the same driver on a world of its own, with virtual
//! time and faults.

use std::future::Future;

use bytes::Bytes;
use sealtide_crypto::{Entropy, Now};
use sealtide_ibgib::{ChunkHash, Verified};
use sealtide_identity::NodeId;
use sealtide_store::{CommitError, Store, StoreError};
use sealtide_sync::{CommitRequest, CommitResult, SagaId};

use sealtide_identity::{InviteId, SpaceId};

pub use sealtide_store::OsEntropy;

/// What a saga received, on its way into the store.
#[derive(Clone, Debug, Default)]
pub struct Staged {
    /// Accepted records.
    pub records: Vec<Verified>,
    /// Whole chunks.
    pub chunks: Vec<(ChunkHash, Bytes)>,
}

impl Staged {
    /// Bytes of records and chunks.
    pub fn bytes(&self) -> u64 {
        let records = self.records.iter().map(|record| record.encoded().len() as u64).sum::<u64>();
        records + self.chunks.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
    }
}

/// Everything outside the driver that is not the store's memory.
pub trait World: Clone + Send + Sync + 'static {
    /// Sessions of this world.
    type Session: PeerSession;

    /// The time.
    fn now(&self) -> Now;
    /// Chance.
    fn entropy(&self) -> Box<dyn Entropy>;
    /// Stages what a saga received: [`Store::stage`].
    fn stage(
        &self,
        store: &Store,
        space: SpaceId,
        saga: SagaId,
        staged: Staged,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Makes what was appended to the log durable.
    fn sync(&self, store: &Store) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Commits; returns when the commit is durable.
    fn commit(
        &self,
        store: &Store,
        space: SpaceId,
        request: CommitRequest,
    ) -> impl Future<Output = Result<CommitResult, CommitError>> + Send;
}

/// The channel or the session under it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel is gone")]
pub struct ChannelGone;

/// A session with one peer.
pub trait PeerSession: Clone + Send + Sync + 'static {
    /// Channels of the session.
    type Channel: PeerChannel;

    /// The peer, as the link proved it.
    fn peer(&self) -> NodeId;
    /// Whether this node dialled.
    fn is_initiator(&self) -> bool;
    /// The invite that was proved when the session opened.
    fn invite(&self) -> Option<InviteId> {
        None
    }
    /// The session binding: 32 bytes that both ends share and no other session has; `None` refuses keystones. Spec: link
    /// C.4.5
    fn binding(&self) -> Option<[u8; 32]> {
        None
    }
    /// Opens a channel.
    fn open(&self, class: u8, name: &str) -> impl Future<Output = Result<Self::Channel, ChannelGone>> + Send;
    /// The next channel that the peer opened; `None` when the session is over.
    fn accept(&self) -> impl Future<Output = Option<Self::Channel>> + Send;
    /// Ends the session in order.
    fn close(&self);
}

/// One message channel. Sending and receiving may go on at the same time; both futures may be dropped and made anew
/// without losing a message (cancel-safe), which the driver's `select!` relies on.
pub trait PeerChannel: Send + Sync + 'static {
    /// The name it was opened with.
    fn name(&self) -> &str;
    /// Hands a message over; waits while the channel is full. A future that is dropped before it ends has sent nothing.
    fn send(&self, message: Bytes) -> impl Future<Output = Result<(), ChannelGone>> + Send;
    /// The next whole message; `None` at the orderly end.
    fn recv(&self) -> impl Future<Output = Result<Option<Bytes>, ChannelGone>> + Send;
    /// Gives credit back.
    fn release(&self, bytes: u64);
    /// Ends the channel in order, after everything sent.
    fn finish(&self);
}
