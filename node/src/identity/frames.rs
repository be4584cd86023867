//! The identity store: frames of own and foreign keystones, in one space of kind `identity` that is never shared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use sealtide_ibgib::{Address, Stamp, Verified, space_genesis, uuid};
use sealtide_identity::keystone::{Added, Chain, KEYSTONE_IB};
use sealtide_identity::{NodeId, SpaceId};
use sealtide_store::{SpaceHandle, SpaceLabel, Store};
use sealtide_sync::{CommitRequest, SpaceView};

use super::lock;
use crate::known::Known;
use crate::world::OsEntropy;

/// The kind of the space that holds the frames.
pub const IDENTITY_KIND: &str = "identity";
/// Its local name: no folder can be called so.
const LABEL: &str = "identity store";
/// Chains that are kept ready, and their bytes: beyond, those not in use are let go, first the one that was used longest ago.
const CHAINS_MAX: usize = 256;
const CHAINS_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The identity store cannot do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the identity store: {0}")]
pub struct StoreTrouble(pub(super) String);

impl StoreTrouble {
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// One keystone's frames, or nothing while they were not read. Its lock is the lock of the keystone.
pub(super) type Slot = Arc<Mutex<Option<Chain>>>;

/// The chains that are kept ready.
#[derive(Default)]
pub(super) struct Slots {
    /// By first frame, with the number of the last use.
    by_first: BTreeMap<Address, (u64, Slot)>,
    uses: u64,
}

impl Slots {
    fn slot(&mut self, first: &Address) -> Slot {
        self.uses += 1;
        if !self.by_first.contains_key(first) {
            self.let_go(CHAINS_MAX - 1, CHAINS_BYTES_MAX);
        }
        let (used, slot) = self.by_first.entry(first.clone()).or_default();
        *used = self.uses;
        slot.clone()
    }

    /// Lets go of chains that nobody uses, until so many and so many bytes are left.
    pub(super) fn let_go(&mut self, count_max: usize, bytes_max: usize) {
        let idle = self.by_first.iter().filter(|(_, (_, slot))| Arc::strong_count(slot) == 1);
        let mut idle: Vec<(u64, Address, usize)> =
            idle.map(|(first, (used, slot))| (*used, first.clone(), bytes_of(slot))).collect();
        idle.sort_unstable();
        let (mut count, mut bytes) = (self.by_first.len(), idle.iter().map(|(.., bytes)| bytes).sum::<usize>());
        for (_, first, size) in idle {
            if count <= count_max && bytes <= bytes_max {
                break;
            }
            self.by_first.remove(&first);
            (count, bytes) = (count - 1, bytes - size);
        }
    }

    #[cfg(test)]
    pub(super) fn ready(&self) -> Vec<&Address> {
        self.by_first.keys().collect()
    }
}

fn bytes_of(slot: &Slot) -> usize {
    let chain = lock(slot);
    chain.as_ref().map_or(0, |chain| chain.frames().map(|frame| frame.record().encoded().len()).sum())
}

/// The frames of all keystones.
pub(super) struct Frames {
    store: Store,
    space: OnceLock<SpaceId>,
    pub(super) slots: Mutex<Slots>,
}

impl Frames {
    /// Looks for the space; it is made with the first frame.
    pub(super) fn open(store: Store) -> Self {
        let space = OnceLock::new();
        let labels = Known::of(&store).labels();
        if let Some((found, _)) = labels.iter().find(|(id, label)| is_ours(label) && store.view(id).is_some()) {
            let _ = space.set(*found);
        }
        Self { store, space, slots: Mutex::default() }
    }

    /// Makes the space when there is none.
    pub(super) fn prepare(&self, node: NodeId, stamp: Stamp) -> Result<(), StoreTrouble> {
        if self.space.get().is_some() {
            return Ok(());
        }
        let first = space_genesis(IDENTITY_KIND, IDENTITY_KIND, &node.to_string(), stamp, &uuid(&mut OsEntropy));
        let space = self.store.create_space(first).map_err(StoreTrouble::of)?;
        let label = SpaceLabel { name: LABEL.to_owned(), kind: IDENTITY_KIND.to_owned(), dir: None };
        Known::of(&self.store).put_label(&space, Some(&label)).map_err(StoreTrouble::of)?;
        let _ = self.space.set(space);
        Ok(())
    }

    fn view(&self) -> Option<SpaceHandle> {
        self.store.view(self.space.get()?)
    }

    /// Writes frames, all or none, durably.
    pub(super) fn commit(&self, records: Vec<Verified>) -> Result<(), StoreTrouble> {
        let space = self.space.get().ok_or_else(|| StoreTrouble("there is none".to_owned()))?;
        let request = CommitRequest::local(records);
        self.store.commit(space, &request).map(drop).map_err(StoreTrouble::of)
    }

    /// The frames of a keystone, checked. The slot is locked by whoever looks or signs.
    pub(super) fn slot(&self, first: &Address) -> Slot {
        lock(&self.slots).slot(first)
    }

    /// Looks at the chain of a keystone under its lock.
    pub(super) fn with<T>(&self, first: &Address, look: impl FnOnce(&mut Chain) -> T) -> T {
        let slot = self.slot(first);
        let mut chain = lock(&slot);
        look(chain.get_or_insert_with(|| self.load(first)))
    }

    /// Looks at the chains of two keystones at once; `None` when they are one. A peer names them: they are locked in one order whoever
    /// asks, or two that name each other would wait for ever.
    pub(super) fn with_two<T>(
        &self,
        one: &Address,
        other: &Address,
        look: impl FnOnce(&mut Chain, &mut Chain) -> T,
    ) -> Option<T> {
        if one == other {
            return None;
        }
        let slots = (self.slot(one), self.slot(other));
        let (mut of_one, mut of_other);
        if one < other {
            of_one = lock(&slots.0);
            of_other = lock(&slots.1);
        } else {
            of_other = lock(&slots.1);
            of_one = lock(&slots.0);
        }
        let of_one = of_one.get_or_insert_with(|| self.load(one));
        Some(look(of_one, of_other.get_or_insert_with(|| self.load(other))))
    }

    /// Reads the frames of a keystone from the disk and checks them anew.
    pub(super) fn load(&self, first: &Address) -> Chain {
        let mut chain = Chain::new(first.clone());
        for record in self.records(first) {
            if let Added::Broken(broken) = chain.add(&record) {
                tracing::error!(keystone = %first, ?broken, "a stored keystone frame breaks rules");
            }
        }
        chain
    }

    /// Every frame held of a keystone, in order of n.
    fn records(&self, first: &Address) -> Vec<Verified> {
        let Some(view) = self.view() else { return Vec::new() };
        let sids = view.frames(&first.timeline_id(), 0, u64::MAX, usize::MAX);
        sids.iter().filter_map(|sid| view.record(sid)).collect()
    }

    /// Whether a record is in the store.
    pub(super) fn holds(&self, record: &Verified) -> bool {
        self.view().is_some_and(|view| view.contains(&record.sid()))
    }

    /// How many frames are held of a keystone.
    pub(super) fn count(&self, first: &Address) -> u64 {
        let view = self.view();
        view.map_or(0, |view| view.frames(&first.timeline_id(), 0, u64::MAX, usize::MAX).len() as u64)
    }

    /// A frame that follows `previous`, if one is held.
    pub(super) fn successor(&self, first: &Address, previous: &Address, n: u64) -> Option<Verified> {
        let view = self.view()?;
        let sids = view.frames(&first.timeline_id(), n + 1, n + 1, usize::MAX);
        let records = sids.iter().filter_map(|sid| view.record(sid));
        records.into_iter().find(|record| record.frame_ref().is_some_and(|facts| facts.past.last() == Some(previous)))
    }

    /// The newest frame held of a keystone and its n, when no rule has to decide which that is.
    pub(super) fn only_tip(&self, first: &Address) -> Option<(Address, u64)> {
        match self.view()?.tips(&first.timeline_id()).as_slice() {
            [tip] => Some((tip.tip.clone(), tip.n)),
            _ => None,
        }
    }

    /// The first frames of all keystones here.
    pub(super) fn keystones(&self) -> Vec<Address> {
        let timelines = self.view().map(|view| view.timelines_of(KEYSTONE_IB)).unwrap_or_default();
        timelines.into_iter().map(|info| info.tjp).collect()
    }
}

fn is_ours(label: &SpaceLabel) -> bool {
    label.kind == IDENTITY_KIND
}
