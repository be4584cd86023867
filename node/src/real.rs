//! The real world: the machine's clock and chance, the disk, and sessions of `sealtide-link`.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sealtide_crypto::{Entropy, Now};
use sealtide_identity::{InviteId, NodeId, SpaceId};
use sealtide_store::{CommitError, Store, StoreError};
use sealtide_sync::{CommitRequest, CommitResult, SagaId};

use crate::world::{ChannelGone, OsEntropy, PeerChannel, PeerSession, Staged, World};

/// The world of a running node.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealWorld;

/// The machine's time.
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono_ms = START.get_or_init(Instant::now).elapsed().as_millis() as u64;
    let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    // Zero is left free, so that a `mono_ms` in the past can always be named.
    Now { mono_ms: mono_ms + 1_000_000, wall_ms }
}

/// Runs `work` on a thread that may wait for the disk. A panic of it goes on in the caller.
///
/// A runtime that ends drops the work it has not begun. Whoever waits for that is about to be dropped too, and never
/// hears of a result: there is none, and a made-up one might be announced.
async fn off_the_workers<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_dropped) => std::future::pending().await,
        },
    }
}

impl World for RealWorld {
    type Session = sealtide_link::Session;

    fn now(&self) -> Now {
        now()
    }

    fn entropy(&self) -> Box<dyn Entropy> {
        Box::new(OsEntropy)
    }

    async fn stage(&self, store: &Store, space: SpaceId, saga: SagaId, staged: Staged) -> Result<(), StoreError> {
        let store = store.clone();
        off_the_workers(move || store.stage(&space, &saga, &staged.records, &staged.chunks)).await
    }

    async fn sync(&self, store: &Store) -> Result<(), StoreError> {
        let store = store.clone();
        off_the_workers(move || store.sync()).await
    }

    async fn commit(&self, store: &Store, space: SpaceId, request: CommitRequest) -> Result<CommitResult, CommitError> {
        let store = store.clone();
        off_the_workers(move || store.commit(&space, &request)).await
    }
}

impl PeerSession for sealtide_link::Session {
    type Channel = sealtide_link::Channel;

    fn peer(&self) -> NodeId {
        sealtide_link::Session::peer(self)
    }

    fn is_initiator(&self) -> bool {
        sealtide_link::Session::is_initiator(self)
    }

    fn invite(&self) -> Option<InviteId> {
        self.invite_used()
    }

    fn binding(&self) -> Option<[u8; 32]> {
        Some(sealtide_link::Session::binding(self))
    }

    async fn open(&self, class: u8, name: &str) -> Result<Self::Channel, ChannelGone> {
        sealtide_link::Session::open(self, class, name).map_err(|_| ChannelGone)
    }

    async fn accept(&self) -> Option<Self::Channel> {
        self.accept_channel().await
    }

    fn close(&self) {
        sealtide_link::Session::close(self);
    }
}

impl PeerChannel for sealtide_link::Channel {
    fn name(&self) -> &str {
        sealtide_link::Channel::name(self)
    }

    async fn send(&self, message: Bytes) -> Result<(), ChannelGone> {
        sealtide_link::Channel::send(self, message).await.map_err(|_| ChannelGone)
    }

    async fn recv(&self) -> Result<Option<Bytes>, ChannelGone> {
        sealtide_link::Channel::recv(self).await.map_err(|_| ChannelGone)
    }

    fn release(&self, bytes: u64) {
        sealtide_link::Channel::release(self, bytes);
    }

    fn finish(&self) {
        sealtide_link::Channel::finish(self);
    }
}
