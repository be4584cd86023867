//! What there is of a keystone, for people and for scripts.

use sealtide_ibgib::{Address, Stamp};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Chain, Class, Delegation, Place, State, Verb, kid, speaks_for};

use super::Identities;

/// A keystone as it stands.
#[derive(Clone, Debug)]
pub struct KeystoneView {
    /// First frame: its name.
    pub first: Address,
    /// Newest frame of the valid chain.
    pub newest: Address,
    /// What it is for.
    pub class: Class,
    /// Whether it may authorise anything.
    pub state: State,
    /// n of the newest frame.
    pub n: u64,
    /// When it was made.
    pub made: Option<Stamp>,
    /// When it was last evolved.
    pub evolved: Option<Stamp>,
    /// Frames held, voided ones too.
    pub frames: usize,
    /// Their bytes.
    pub bytes: usize,
    /// First 32 hex digits of the hash of the key in force.
    pub kid: String,
    /// The hash of the key in force; for a device the node id.
    pub node: NodeId,
    /// Its pools in the newest frame.
    pub pools: Vec<PoolView>,
    /// Devices, and what is delegated to each.
    pub delegations: Vec<(Address, Vec<Delegation>)>,
    /// Frames that never count.
    pub voided: Vec<Address>,
    /// Frames of a fork that is not decided.
    pub undecided: Vec<Address>,
}

/// A pool of challenges.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// Its id.
    pub id: String,
    /// Challenges that are there.
    pub challenges: usize,
    /// Challenges that a frame reveals of a binding pool.
    pub bind: Option<u32>,
    /// The verbs it proves; none: any.
    pub verbs: Vec<String>,
}

impl KeystoneView {
    fn of(chain: &Chain) -> Option<Self> {
        let (newest, genesis) = (chain.newest()?, chain.genesis()?);
        let frame = newest.frame();
        let pools = frame.pools.iter().map(|pool| PoolView {
            id: pool.id.clone(),
            challenges: pool.challenges.len(),
            bind: pool.config.bind,
            verbs: pool.config.verbs.clone(),
        });
        let at = |wanted: Place| {
            let frames = chain.frames().map(|frame| frame.address());
            frames.filter(|address| chain.place(address) == Some(wanted)).cloned().collect()
        };
        Some(Self {
            first: chain.first_address().clone(),
            newest: frame.address().clone(),
            class: newest.class(),
            state: chain.state(),
            n: frame.facts().n,
            made: genesis.frame().facts().stamp,
            evolved: frame.facts().stamp,
            frames: chain.frames().count(),
            bytes: chain.frames().map(|frame| frame.record().encoded().len()).sum(),
            kid: kid(newest.key()),
            node: NodeId::of(newest.key()),
            pools: pools.collect(),
            delegations: chain.delegated().map(|(device, list)| (device.clone(), list.to_vec())).collect(),
            voided: at(Place::Voided),
            undecided: at(Place::Undecided),
        })
    }
}

impl Identities {
    /// A keystone that frames are held of.
    pub fn view(&self, first: &Address) -> Option<KeystoneView> {
        self.0.frames.with(first, |chain| KeystoneView::of(chain))
    }

    /// First frames of all keystones that frames are held of, sessions too.
    pub fn keystones(&self) -> Vec<Address> {
        self.0.frames.keystones()
    }

    /// Reads every keystone from the disk again and checks it by all rules. Gives how many there are, and those that do
    /// not hold, in words.
    pub fn verify(&self) -> (usize, Vec<String>) {
        let firsts = self.keystones();
        let broken = firsts.iter().filter_map(|first| {
            let (held, good) = (self.0.frames.count(first), self.0.frames.load(first).frames().count() as u64);
            (held != good).then(|| format!("{} of {held} frames of {first} break rules", held - good))
        });
        (firsts.len(), broken.collect())
    }

    /// Whether the device of a peer speaks for its owner now.
    pub fn speaks_for_owner(&self, peer: &super::PeerIdentity) -> bool {
        let Some(owner) = &peer.owner else { return false };
        let owner = self.0.frames.with(owner, |chain| chain.clone());
        let now = self.now();
        self.0.frames.with(&peer.device, |device| speaks_for(&owner, device, Verb::Sync, now))
    }

    /// What a peer proved to be.
    pub fn peer(&self, node: &NodeId) -> Option<super::PeerIdentity> {
        super::PeerIdentity::of(&self.0.store, node)
    }
}
