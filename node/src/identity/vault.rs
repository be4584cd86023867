//! The keys in use: read once, raised with every signed frame, written before the frame is shown.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use sealtide_crypto::{Seed, SigningKey};
use sealtide_ibgib::Address;
use sealtide_identity::keystone::WorkingSecret;

use super::key_file::{KeyPlace, Keys};
use super::lock;

/// The key file, open.
pub(super) struct Vault {
    place: Box<dyn KeyPlace>,
    keys: Mutex<Keys>,
    working: WorkingSecret,
}

impl Vault {
    /// Takes over keys; `anew` writes them first.
    pub(super) fn open(place: Box<dyn KeyPlace>, keys: Keys, anew: bool) -> io::Result<Self> {
        if anew {
            place.write(&keys.text())?;
        }
        Ok(Self { place, working: keys.working.clone(), keys: Mutex::new(keys) })
    }

    pub(super) fn working(&self) -> &WorkingSecret {
        &self.working
    }

    pub(super) fn keys(&self) -> MutexGuard<'_, Keys> {
        lock(&self.keys)
    }

    /// First frame of the own device keystone.
    pub(super) fn device(&self) -> Option<Address> {
        self.keys().device.clone()
    }

    /// First frame of the own owner keystone.
    pub(super) fn owner(&self) -> Option<Address> {
        self.keys().owner.as_ref().map(|(first, _)| first.clone())
    }

    /// The key of the own owner keystone.
    pub(super) fn owner_key(&self) -> Option<Arc<SigningKey>> {
        self.keys().owner.as_ref().map(|(_, seed)| Arc::new(SigningKey::from_seed(seed)))
    }

    /// Changes the keys, durably. What could not be written is written with the next change.
    pub(super) fn change(&self, change: impl FnOnce(&mut Keys)) -> io::Result<()> {
        let mut keys = self.keys();
        change(&mut keys);
        self.place.write(&keys.text())
    }

    /// Counts own frames that are durable in the store now.
    // Spec: SY-26
    pub(super) fn raise(&self, frames: u64) -> io::Result<()> {
        self.change(|keys| keys.generation += frames)
    }

    /// As [`Vault::raise`], for frames of an owner keystone: those of another owner than the own one do not count.
    // Spec: SY-26
    pub(super) fn raise_owner(&self, owner: &Address, frames: u64) -> io::Result<()> {
        if self.owner().as_ref() == Some(owner) { self.raise(frames) } else { Ok(()) }
    }

    /// Names the owner keystone that this node signs for. The count goes by the frames of the own owner, so those that
    /// are `held` of the one before are taken off, and those of the new one added.
    // Spec: SY-26
    pub(super) fn take_owner(&self, first: Address, seed: Seed, held: impl Fn(&Address) -> u64) -> io::Result<()> {
        self.change(|keys| {
            let before = keys.owner.as_ref().map(|(first, _)| first);
            if before != Some(&first) {
                let (old, new) = (before.map_or(0, &held), held(&first));
                keys.generation = (keys.generation + new).saturating_sub(old);
            }
            keys.owner = Some((first, seed));
        })
    }
}
