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

    /// Names the owner keystone that this node signs for.
    pub(super) fn take_owner(&self, first: Address, seed: Seed) -> io::Result<()> {
        self.change(|keys| keys.owner = Some((first, seed)))
    }
}
