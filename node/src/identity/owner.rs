//! The owner keystone: new, drill, recover, revoke, and what it delegates. Spec: ibgib §12.3

use sealtide_crypto::{Seed, SigningKey};
use sealtide_ibgib::{Address, Stamp, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{
    self, Added, Chain, Claim, Class, Delegation, Manage, OwnerProfiles, RootSecret, SignError, Signer, Standing,
    State, Verb, owner_genesis,
};

use super::frames::StoreTrouble;
use super::{Identities, SignRefused};
use crate::world::OsEntropy;

/// How long a delegation lives when nobody says: ten years.
const DELEGATION_MS: u64 = 10 * 365 * 24 * 3600 * 1000;

/// Why an owner keystone is not made or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// There is one already.
    #[error("this node has an owner already: {0}")]
    Exists(Address),
    /// There is none.
    #[error("this node has no owner")]
    NoOwner,
    /// The words are those of no owner that is known here.
    #[error("these words are those of no owner whose frames are here")]
    NotTheWords,
    /// The owner was revoked, which is final.
    #[error("this owner was revoked")]
    Revoked,
    /// Two frames of rank `manage` stand against each other.
    #[error("this owner was recovered twice from one frame; only `revoke` ends that")]
    ManagedTwice,
    /// The device keystone of that node is not known here.
    #[error("the identity of that node is not known here")]
    NoDevice,
    /// Nothing is delegated to that node.
    #[error("nothing is delegated to that node")]
    NotDelegated,
    /// Verbs or a time that cannot be delegated.
    #[error("only connect, sync and post can be delegated, until a time to come")]
    Order,
    /// Nothing was signed.
    #[error(transparent)]
    Refused(#[from] SignRefused),
    /// The key file cannot be written.
    #[error("identity.key: {0}")]
    KeyFile(std::io::Error),
}

impl From<SignError> for OwnerError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Revoked => Self::Revoked,
            SignError::Forked => Self::ManagedTwice,
            SignError::WrongSecret => Self::NotTheWords,
            SignError::Unknown => Self::NoOwner,
            other => Self::Refused(other.into()),
        }
    }
}

impl OwnerError {
    /// In the words of owners where there are some.
    fn of(refused: SignRefused) -> Self {
        match refused {
            SignRefused::Sign(error) => error.into(),
            other => Self::Refused(other),
        }
    }
}

impl From<StoreTrouble> for OwnerError {
    fn from(error: StoreTrouble) -> Self {
        Self::Refused(error.into())
    }
}

/// What is delegated, and to whom.
#[derive(Clone, Debug)]
pub struct DelegationOrder {
    /// The node of the device.
    pub node: NodeId,
    /// Some of `connect`, `sync`, `post`.
    pub verbs: Vec<Verb>,
    /// Until when; `None`: ten years.
    pub until: Option<Stamp>,
}

/// An owner that came back.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Its name.
    pub owner: Address,
    /// Frames that do not count any more.
    pub voided: usize,
}

impl Identities {
    /// Makes an owner keystone from a root secret, and delegates this device. The caller shows the words first: when
    /// this returns they are needed.
    ///
    /// # Errors
    /// [`OwnerError::Exists`] while there is one that is not revoked.
    pub fn make_owner(&self, root: &RootSecret) -> Result<Address, OwnerError> {
        if let Some(first) = self.owner()
            && !matches!(self.state_of(&first), State::Revoked | State::Empty)
        {
            return Err(OwnerError::Exists(first));
        }
        let device = self.device().ok_or(OwnerError::NoDevice)?;
        self.check_doubts(&device)?;
        let (seed, stamp) = (Seed::generate(&mut OsEntropy), self.now());
        let key = SigningKey::from_seed(&seed);
        let working = self.0.vault.working();
        let genesis = owner_genesis(root, working, &key, OwnerProfiles::default(), stamp, &mut OsEntropy);
        let first = genesis.first_address().clone();
        let delegation = self.sign_delegation(&Chain::begun(genesis.clone()), &key, &device)?;
        self.0
            .vault
            .take_owner(first.clone(), seed, |first| self.0.frames.count(first))
            .map_err(OwnerError::KeyFile)?;
        self.evolve(&first, |_| Ok(vec![genesis, delegation]))?;
        Ok(first)
    }

    fn sign_delegation(&self, chain: &Chain, key: &SigningKey, device: &Address) -> Result<Standing, SignError> {
        let until = Stamp { ms: self.now().ms + DELEGATION_MS };
        let delegation = Delegation::new(&[Verb::Connect, Verb::Sync, Verb::Post], until);
        let claim = delegation.ok_or(SignError::Target)?.claim(device.as_str());
        keystone::sign(chain, Signer::Working(self.0.vault.working()), key, &claim, self.now(), &mut OsEntropy)
    }

    /// Whether the words are those of the own owner; nothing is revealed and nothing changes.
    ///
    /// # Errors
    /// [`OwnerError::NotTheWords`], [`OwnerError::NoOwner`].
    pub fn drill(&self, root: &RootSecret) -> Result<Address, OwnerError> {
        let first = self.owner().ok_or(OwnerError::NoOwner)?;
        self.0.frames.with(&first, |chain| keystone::drill(chain, root))?;
        Ok(first)
    }

    /// Takes an owner back with its words: a frame of rank `manage` replaces its pools and its key, and this device is
    /// delegated. `frames` are a copy of the owner's frames, beside those that are here. Needs no witness.
    ///
    /// # Errors
    /// [`OwnerError`].
    // Spec: SY-82
    pub fn recover(&self, root: &RootSecret, frames: &[Verified]) -> Result<Recovered, OwnerError> {
        self.take_back(root, frames, None)
    }

    /// As [`Identities::recover`], of the own owner; the frame lets a record of a key ledger count.
    ///
    /// # Errors
    /// [`OwnerError`].
    // Spec: GW-106
    pub fn recover_keyring(&self, root: &RootSecret, record: &[u8; 32]) -> Result<Recovered, OwnerError> {
        let own = self.owner().ok_or(OwnerError::NoOwner)?;
        self.0.frames.with(&own, |chain| keystone::drill(chain, root))?;
        self.take_back(root, &[], Some(record))
    }

    /// What proves the recoveries of key ledgers that the own owner made, oldest first.
    pub fn keyring_proof(&self) -> Vec<Verified> {
        self.owner().map(|first| self.0.frames.with(&first, |chain| chain.keyring_proof())).unwrap_or_default()
    }

    fn take_back(
        &self,
        root: &RootSecret,
        frames: &[Verified],
        keyring: Option<&[u8; 32]>,
    ) -> Result<Recovered, OwnerError> {
        let device = self.device().ok_or(OwnerError::NoDevice)?;
        let first = self.owner_of_words(root, frames)?;
        self.import(&first, frames)?;
        let (seed, stamp) = (Seed::generate(&mut OsEntropy), self.now());
        let key = SigningKey::from_seed(&seed);
        let new =
            Manage { root, working: self.0.vault.working(), key: &key, profiles: OwnerProfiles::default(), from: None };
        let made = self.evolve(&first, |chain| {
            let managed = match keyring {
                Some(record) => keystone::manage_keyring(chain, &new, record, stamp, &mut OsEntropy)?,
                None => keystone::manage(chain, &new, stamp, &mut OsEntropy)?,
            };
            let mut then = chain.clone();
            let _ = then.extend(managed.clone());
            let delegation = self.sign_delegation(&then, &key, &device)?;
            // Named before the frames are there: keys that no frame names are worth nothing, frames without keys are.
            self.0
                .vault
                .take_owner(first.clone(), seed, |first| self.0.frames.count(first))
                .map_err(StoreTrouble::of)?;
            Ok(vec![managed, delegation])
        });
        made.map_err(OwnerError::of)?;
        let voided = self.0.frames.with(&first, |chain| chain.voided().count());
        Ok(Recovered { owner: first, voided })
    }

    /// Ends the owner whose words these are, for good. Needs no key and no witness.
    ///
    /// # Errors
    /// [`OwnerError`].
    // Spec: SY-82
    pub fn revoke(&self, root: &RootSecret, reason: &str, frames: &[Verified]) -> Result<Address, OwnerError> {
        let first = self.owner_of_words(root, frames)?;
        self.import(&first, frames)?;
        let stamp = self.now();
        let made = self.evolve(&first, |chain| Ok(vec![keystone::revoke(chain, root, reason, None, stamp)?]));
        made.map_err(OwnerError::of)?;
        Ok(first)
    }

    /// The owner that the words belong to: of the own one, those in the file and those of others that are here.
    fn owner_of_words(&self, root: &RootSecret, frames: &[Verified]) -> Result<Address, OwnerError> {
        let of_file = frames.iter().filter_map(|frame| frame.frame_ref().map(|facts| facts.tjp.clone()));
        let mut firsts: Vec<Address> = self.owner().into_iter().chain(of_file).collect();
        firsts.extend(self.0.frames.keystones());
        firsts.dedup();
        let mut revoked = false;
        for first in firsts {
            let chain = self.joined(&first, frames);
            if chain.newest().is_none_or(|newest| newest.class() != Class::Owner) {
                continue;
            }
            match keystone::drill(&chain, root) {
                Ok(()) => return Ok(first),
                // A revoked keystone has no challenges left to compare with.
                Err(SignError::Revoked) if self.owner().as_ref() == Some(&first) => revoked = true,
                Err(_) => {}
            }
        }
        Err(if revoked { OwnerError::Revoked } else { OwnerError::NotTheWords })
    }

    /// The chain of what is here and what the file brings.
    fn joined(&self, first: &Address, frames: &[Verified]) -> Chain {
        let mut chain = self.0.frames.with(first, |chain| chain.clone());
        for frame in frames.iter().filter(|frame| frame.frame_ref().is_some_and(|facts| facts.tjp == *first)) {
            let _ = chain.add(frame);
        }
        chain
    }

    /// Keeps the frames of a keystone that follow the rules.
    pub(super) fn import(&self, first: &Address, frames: &[Verified]) -> Result<usize, StoreTrouble> {
        self.0.frames.prepare(self.0.node.id, self.now())?;
        let slot = self.0.frames.slot(first);
        let mut guard = super::lock(&slot);
        let chain = guard.get_or_insert_with(|| self.0.frames.load(first));
        let before = chain.frames().count();
        let of_it = frames.iter().filter(|frame| frame.frame_ref().is_some_and(|facts| facts.tjp == *first));
        let mut after = chain.clone();
        for frame in of_it {
            if let Added::Broken(broken) = after.add(frame) {
                tracing::warn!(keystone = %first, ?broken, "a frame breaks rules and is left out");
            }
        }
        let new = after.frames().skip(before).map(|frame| frame.record());
        let new: Vec<Verified> = new.filter(|record| !self.0.frames.holds(record)).cloned().collect();
        let count = new.len();
        let newest_n = after.newest().map_or(0, |newest| newest.frame().facts().n);
        if count > 0
            && let Err(trouble) = self.commit_imported(first, new, newest_n)
        {
            // Whether it was written is told by the disk alone.
            *guard = None;
            return Err(trouble);
        }
        *chain = after;
        Ok(count)
    }

    /// Writes frames that came from elsewhere, and counts them where they are own ones.
    fn commit_imported(&self, first: &Address, new: Vec<Verified>, newest_n: u64) -> Result<(), StoreTrouble> {
        let count = new.len() as u64;
        self.0.frames.commit(new)?;
        let counted = match self.device().as_ref() == Some(first) {
            true => self.0.vault.raise(count).and_then(|()| self.let_go_of_sessions(newest_n)),
            false => self.0.vault.raise_owner(first, count),
        };
        counted.map_err(StoreTrouble::of)
    }

    /// Lets a device speak for the owner.
    ///
    /// # Errors
    /// [`OwnerError`].
    pub fn delegate(&self, order: &DelegationOrder) -> Result<Delegation, OwnerError> {
        let device = self.device_of(&order.node)?;
        let now = self.now();
        let until = order.until.unwrap_or(Stamp { ms: now.ms + DELEGATION_MS });
        let delegation = Delegation::new(&order.verbs, until).filter(|made| made.until() > now);
        let delegation = delegation.ok_or(OwnerError::Order)?;
        self.owned()?;
        self.sign_owner(&delegation.claim(device.as_str())).map_err(OwnerError::of)?;
        Ok(delegation)
    }

    /// Ends what a device may do for the owner, at once. It need not be known here: the owner's frames name it. Spec: SY-29
    ///
    /// # Errors
    /// [`OwnerError`].
    pub fn undelegate(&self, device: &Address) -> Result<(), OwnerError> {
        let owner = self.owned()?;
        if self.0.frames.with(&owner, |chain| chain.delegations(device).is_empty()) {
            return Err(OwnerError::NotDelegated);
        }
        self.sign_owner(&Claim::new(Verb::Undelegate, device.as_str())).map_err(OwnerError::of)?;
        Ok(())
    }

    /// The frames of a keystone that are here, in the order they were checked: for a file.
    pub fn frames_of(&self, first: &Address) -> Vec<Verified> {
        self.0.frames.with(first, |chain| chain.frames().map(|frame| frame.record().clone()).collect())
    }

    fn owned(&self) -> Result<Address, OwnerError> {
        let first = self.owner().ok_or(OwnerError::NoOwner)?;
        match self.state_of(&first) {
            State::Revoked => Err(OwnerError::Revoked),
            State::Empty => Err(OwnerError::NoOwner),
            State::ManagedTwice => Err(OwnerError::ManagedTwice),
            State::Live | State::Forked => Ok(first),
        }
    }

    /// The device keystone of this node or of a peer.
    ///
    /// # Errors
    /// [`OwnerError::NoDevice`] when they have not met.
    pub fn device_of(&self, node: &NodeId) -> Result<Address, OwnerError> {
        if *node == self.0.node.id {
            return self.device().ok_or(OwnerError::NoDevice);
        }
        self.peer(node).map(|peer| peer.device).ok_or(OwnerError::NoDevice)
    }

    pub(super) fn state_of(&self, first: &Address) -> State {
        self.0.frames.with(first, |chain| chain.state())
    }
}
