//! Whether the identity store may be an old one: a restored backup, or a home that was copied. Spec: ibgib §12.3 "State"
//!
//! Signing from an old store would make a second frame after one that others hold already. So in doubt nothing is signed
//! until a witness, a peer that holds frames of the keystone, named a frame that is as new as the newest here or newer,
//! and the newer ones were fetched; or until a person said so (`--offline-sign`).

use std::collections::BTreeSet;

use sealtide_ibgib::Address;

/// Why the store may be an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The key file counts more own frames than the store holds.
    #[error("the store holds {store} signed frames and the key file counts {key_file}: it may come from a backup")]
    Restored {
        /// Own frames in the store.
        store: u64,
        /// Own frames by the key file.
        key_file: u64,
    },
    /// The home is not where the key file was written.
    #[error("this home was moved or copied: another node may sign with its keys")]
    Moved,
}

impl Doubt {
    /// For scripts.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Restored { .. } => "restored",
            Self::Moved => "moved",
        }
    }
}

/// What is doubted still.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    doubt: Option<Doubt>,
    /// Keystones that a witness vouched for.
    witnessed: BTreeSet<Address>,
    /// Frames that peers named and that are not here, by keystone: what one peer names and brings says nothing of what
    /// another one named.
    behind: BTreeSet<(Address, Address)>,
}

impl Doubts {
    /// Compares the store and the key file. No frame in the key file's count: nothing can be doubted.
    // Spec: SY-26
    pub(super) fn look(store: u64, key_file: u64, same_place: bool) -> Self {
        let doubt = match (store < key_file, same_place || key_file == 0) {
            (true, _) => Some(Doubt::Restored { store, key_file }),
            (false, false) => Some(Doubt::Moved),
            (false, true) => None,
        };
        Self { doubt, ..Self::default() }
    }

    /// What stands against signing with this keystone.
    pub(super) fn of(&self, keystone: &Address) -> Option<Doubt> {
        self.doubt.filter(|_| !self.witnessed.contains(keystone))
    }

    /// Whether a peer named a frame of it that is not here.
    pub(super) fn is_behind(&self, keystone: &Address) -> bool {
        self.behind.iter().any(|(behind, _)| behind == keystone)
    }

    /// A peer named a frame; `held` whether it is here.
    pub(super) fn named(&mut self, keystone: &Address, frame: &Address, held: bool) {
        let named = (keystone.clone(), frame.clone());
        if held {
            self.behind.remove(&named);
        } else {
            self.behind.insert(named);
        }
    }

    /// A frame that was named did not come. In doubt it is waited for, whoever brings it; without doubt the store is
    /// complete by its count, and a peer that names what there is not does not stop the others.
    pub(super) fn did_not_come(&mut self, keystone: &Address, frame: &Address) {
        if self.of(keystone).is_none() {
            self.named(keystone, frame, true);
        }
    }

    /// A witness vouches for a keystone. It counts unless another peer named a frame of it that is not here. Returns
    /// whether it does.
    // Spec: SY-26
    pub(super) fn vouched(&mut self, keystone: &Address) -> bool {
        let counts = !self.is_behind(keystone);
        if counts {
            self.witnessed.insert(keystone.clone());
        }
        counts
    }

    /// Whether nothing is doubted any more of these, and it is still to be written down.
    pub(super) fn is_over(&self, own: &[Address]) -> bool {
        let known = |first| self.witnessed.contains(first) && !self.is_behind(first);
        self.doubt.is_some() && own.iter().all(known)
    }

    /// The doubt is over. What a peer named and is not here is still waited for.
    pub(super) fn clear(&mut self) {
        self.doubt = None;
    }

    /// A person says that the newest frames are here, whatever peers name.
    pub(super) fn clear_by_hand(&mut self) {
        self.doubt = None;
        self.behind.clear();
    }

    /// What is doubted.
    pub(super) fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: SY-26
    #[test]
    fn doubts() {
        let first = Address::parse(&format!("keystone^{}", "A".repeat(64))).unwrap();
        let second = Address::parse(&format!("keystone^{}", "B".repeat(64))).unwrap();
        let doubt = |store, key_file, same| Doubts::look(store, key_file, same).of(&first);
        assert_eq!(doubt(3, 3, true), None);
        // A crash between the two writes: the frame was not shown.
        assert_eq!(doubt(4, 3, true), None);
        assert_eq!(doubt(2, 3, true), Some(Doubt::Restored { store: 2, key_file: 3 }));
        assert_eq!(doubt(3, 3, false), Some(Doubt::Moved));
        assert_eq!(doubt(0, 0, false), None);
        let mut doubts = Doubts::look(3, 3, false);
        let own = [first.clone(), second.clone()];
        assert!(doubts.vouched(&first) && !doubts.is_over(&own));
        assert_eq!((doubts.of(&first), doubts.of(&second)), (None, Some(Doubt::Moved)));
        assert!(doubts.vouched(&second) && doubts.is_over(&own));
        doubts.clear();
        assert!(!doubts.is_over(&own));
        assert_eq!(doubts.doubt(), None);
    }

    // Proves: SY-26
    #[test]
    fn what_one_peer_brings_does_not_stand_for_what_another_one_named() {
        let address = |letter: &str| Address::parse(&format!("keystone^{}", letter.repeat(64))).unwrap();
        let (device, near, far) = (address("A"), address("B"), address("C"));
        for in_doubt in [true, false] {
            let mut doubts = Doubts::look(2, if in_doubt { 3 } else { 2 }, true);
            doubts.named(&device, &near, false);
            doubts.named(&device, &far, false);
            doubts.named(&device, &near, true);
            assert!(doubts.is_behind(&device) && !doubts.is_behind(&near));
            doubts.did_not_come(&device, &far);
            assert_eq!(doubts.is_behind(&device), in_doubt);
            doubts.clear_by_hand();
            assert!(!doubts.is_behind(&device), "a person's word");
        }
        // Who knows the newest frame here is no witness while another one named a newer frame.
        let mut doubts = Doubts::look(2, 3, true);
        doubts.named(&device, &far, false);
        assert!(!doubts.vouched(&device) && doubts.of(&device).is_some());
        doubts.named(&device, &far, true);
        assert!(doubts.vouched(&device) && doubts.is_over(std::slice::from_ref(&device)));
        // Nor does the end of the doubt stand for what was named meanwhile.
        doubts.named(&device, &near, false);
        assert!(!doubts.is_over(std::slice::from_ref(&device)));
        doubts.clear();
        assert!(doubts.is_behind(&device));
    }
}
