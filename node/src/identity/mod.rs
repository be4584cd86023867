//! The identities of this node: its device keystone, the owner keystone when it has one, and those of its peers.
//!
//! ```text
//! key file (secrets, counts)   key_file.rs, vault.rs     │ doubt.rs    may the store be an old one?
//! identity store (frames)      frames.rs                 │ signing.rs  one frame after each, durable before it is shown
//! owner.rs  new, recover, drill, revoke, delegate        │ show.rs     what there is, for people
//! sessions.rs, live.rs, foreign.rs, verdict.rs, witness.rs, members.rs → service.rs: what the engine asks for (its
//! `Keystones`)
//! ```
//!
//! A room of its own: it knows the store, the key file and `sealtide-identity`; nothing of folders or the command line.
//! Everything here waits for the disk. Spec: ibgib §12.3, §12.4; identity

mod doubt;
mod export;
mod foreign;
mod frames;
mod key_file;
mod live;
mod marker;
mod members;
mod owner;
mod peers;
mod service;
mod sessions;
mod show;
mod signing;
#[cfg(test)]
mod tests;
mod vault;
mod verdict;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sealtide_ibgib::{Address, Stamp};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Profile, WorkingSecret, device_genesis};
use sealtide_store::Store;
use tokio::sync::watch;

use crate::home::Identity;
use crate::world::OsEntropy;

use doubt::Doubts;
use frames::Frames;
use key_file::Keys;
use live::Connections;
use sessions::OwnSessions;
use vault::Vault;

pub use doubt::Doubt;
pub use export::{FrameFileError, read_frames, write_frames};
pub(crate) use export::{encode_frames, parse_frames};
pub use frames::{IDENTITY_KIND, StoreTrouble};
pub use key_file::KeyPlace;
pub use live::Brought;
pub use marker::{RESTORED_FILE, machine_marker};
pub use owner::{DelegationOrder, OwnerError, Recovered};
pub use peers::{PEER_SETTINGS, PeerIdentity};
pub use show::{KeystoneView, PoolView};
pub use signing::SignRefused;

/// Keystones of this node and of those it met. Clones are the same.
#[derive(Clone)]
pub struct Identities(Arc<Inner>);

struct Inner {
    node: Identity,
    store: Store,
    frames: Frames,
    vault: Vault,
    doubts: Mutex<Doubts>,
    clock: Clock,
    marker: [u8; 32],
    /// Held while a session keystone is looked for or made.
    making: Mutex<()>,
    sessions: Mutex<OwnSessions>,
    live: Mutex<Connections>,
    brought: Mutex<BTreeMap<NodeId, Brought>>,
    /// Device keystones of nodes whose proof has not come yet: the parts that are here need not come again.
    coming: Mutex<BTreeMap<NodeId, Address>>,
    /// Answers about own keystones that came to an end, by connection.
    answered: Mutex<BTreeSet<([u8; 32], Address)>>,
    /// Device keystones of third nodes that were asked for because they signed commits, by connection.
    signers: Mutex<BTreeSet<([u8; 32], Address)>>,
    /// Goes up when something was kept.
    news: watch::Sender<u64>,
}

/// The time that frames are stamped with.
pub type Clock = Arc<dyn Fn() -> Stamp + Send + Sync>;

/// What identities are made of.
pub struct Parts {
    /// The node and its key, which is the key of the device keystone too.
    pub node: Identity,
    /// Where the frames lie.
    pub store: Store,
    /// Where the key file lies.
    pub place: Box<dyn KeyPlace>,
    /// Where the home is now.
    pub marker: [u8; 32],
    /// The time.
    pub clock: Clock,
}

/// Why the identities cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The key file cannot be read or written, or is damaged.
    #[error("identity.key: {0}")]
    KeyFile(std::io::Error),
    /// The identity store does not take frames.
    #[error(transparent)]
    Store(#[from] StoreTrouble),
}

impl Identities {
    /// Opens the identities of a home. The device keystone is made when there is none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(parts: Parts) -> Result<Self, OpenError> {
        let Parts { node, store, place, marker, clock } = parts;
        let keys = match place.read().map_err(OpenError::KeyFile)? {
            Some(text) => Some(Keys::parse(&text).map_err(|damaged| {
                OpenError::KeyFile(std::io::Error::new(std::io::ErrorKind::InvalidData, damaged))
            })?),
            None => None,
        };
        let anew = keys.is_none();
        let keys = keys.unwrap_or_else(|| Keys {
            working: WorkingSecret::generate(&mut OsEntropy),
            device: None,
            owner: None,
            generation: 0,
            sessions_from: 0,
            marker,
        });
        let frames = Frames::open(store.clone());
        let vault = Vault::open(place, keys, anew).map_err(OpenError::KeyFile)?;
        let (news, _) = watch::channel(0);
        let inner = Inner {
            node,
            store,
            frames,
            vault,
            doubts: Mutex::default(),
            clock,
            marker,
            making: Mutex::default(),
            sessions: Mutex::default(),
            live: Mutex::default(),
            brought: Mutex::default(),
            coming: Mutex::default(),
            answered: Mutex::default(),
            signers: Mutex::default(),
            news,
        };
        let identities = Self(Arc::new(inner));
        identities.look_for_doubts(marker)?;
        identities.make_device(marker)?;
        let sessions = identities.find_sessions();
        *lock(&identities.0.sessions) = sessions;
        Ok(identities)
    }

    /// Compares the store and the key file. What a crash left uncounted is counted now, before anything is signed.
    fn look_for_doubts(&self, marker: [u8; 32]) -> Result<(), OpenError> {
        let held = self.own_frame_count();
        let (counted, same_place) = {
            let keys = self.0.vault.keys();
            (keys.generation, keys.marker == marker)
        };
        *lock(&self.0.doubts) = Doubts::look(held, counted, same_place);
        if held > counted {
            self.0.vault.raise(held - counted).map_err(OpenError::KeyFile)?;
        }
        Ok(())
    }

    /// Makes the device keystone. Its name is in the key file before its frame is in the store: a crash in between
    /// leaves a name without a frame and a count of nothing, and the next start makes another.
    fn make_device(&self, marker: [u8; 32]) -> Result<(), OpenError> {
        let (device, counted) = {
            let keys = self.0.vault.keys();
            (keys.device.clone(), keys.generation)
        };
        if device.is_some_and(|first| counted > 0 || self.0.frames.count(&first) > 0) {
            return Ok(());
        }
        let stamp = self.now();
        self.0.frames.prepare(self.0.node.id, stamp)?;
        let made = device_genesis(self.0.vault.working(), &self.0.node.key, Profile::Light, stamp, &mut OsEntropy);
        let first = made.first_address().clone();
        self.0
            .vault
            .change(|keys| {
                keys.device = Some(first.clone());
                keys.marker = marker;
            })
            .map_err(OpenError::KeyFile)?;
        self.reveal_after_commit(vec![made.frame().record().clone()], None)?;
        self.0.frames.with(&first, |_| ());
        Ok(())
    }

    /// First frame of the own device keystone: the name of this device.
    pub fn device(&self) -> Option<Address> {
        self.0.vault.device()
    }

    /// First frame of the own owner keystone.
    pub fn owner(&self) -> Option<Address> {
        self.0.vault.owner()
    }

    /// Why nothing may be signed now, if so.
    pub fn doubt(&self) -> Option<Doubt> {
        lock(&self.0.doubts).doubt()
    }

    /// A person says that this home is the only one and holds the newest frames, or that what may come of it is well.
    /// Sessions of the time before are not used any more. Spec: ibgib §12.3 "State" (`--offline-sign`)
    ///
    /// # Errors
    /// When the key file cannot be written.
    pub fn settle_doubt(&self, marker: [u8; 32]) -> Result<(), OpenError> {
        self.count_anew(marker)?;
        lock(&self.0.doubts).clear_by_hand();
        Ok(())
    }

    /// Sets count and place to what is; sessions of before are not used again.
    fn count_anew(&self, marker: [u8; 32]) -> Result<(), OpenError> {
        let held = self.own_frame_count();
        let sessions_from = self.device().map_or(0, |first| {
            self.0.frames.with(&first, |chain| chain.newest().map_or(0, |newest| newest.frame().facts().n + 1))
        });
        let settled = self.0.vault.change(|keys| {
            keys.generation = held;
            keys.sessions_from = sessions_from;
            keys.marker = marker;
        });
        settled.map_err(OpenError::KeyFile)
    }

    /// Own frames in the store: of the device, the owner, and the sessions that the device authorised.
    fn own_frame_count(&self) -> u64 {
        let own = [self.device(), self.owner()];
        let sessions = self.device().map(|first| self.0.frames.with(&first, |chain| sessions::all_sessions(chain)));
        let all = own.into_iter().flatten().chain(sessions.into_iter().flatten());
        all.map(|first| self.0.frames.count(&first)).sum()
    }

    /// Moves when something was kept.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    fn now(&self) -> Stamp {
        (self.0.clock)()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
