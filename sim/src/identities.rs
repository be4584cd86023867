//! The real identities of a simulated node: frames in its store, a key file that lives through crashes and restores.
//!
//! Keys and challenges are made with the system's chance, so runs with them are not the same twice.

use std::io;
use std::sync::{Arc, Mutex};

use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_ibgib::{Address, Stamp, Verified};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{Added, Chain, Frame, State};
use sealtide_node::engine::keystones::Keystones;
use sealtide_node::home::Identity;
use sealtide_node::identity::{Identities, KeyPlace, Parts};
use sealtide_store::Store;
use zeroize::Zeroizing;

use crate::guard;
use crate::node::{Keeper, WallClock};

/// Where the home of every node is.
const MARKER: [u8; 32] = [1; 32];

/// The keeper of a node's identities. Clones are the same.
#[derive(Clone)]
pub struct RealKeeper {
    node: Identity,
    file: KeyFile,
    /// Those of the run that goes on.
    opened: Arc<Mutex<Option<Identities>>>,
}

/// A key file in memory.
#[derive(Clone, Default)]
struct KeyFile(Arc<Mutex<Option<String>>>);

impl KeyPlace for KeyFile {
    fn read(&self) -> io::Result<Option<Zeroizing<String>>> {
        Ok(guard(&self.0).clone().map(Zeroizing::new))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        *guard(&self.0) = Some(text.to_owned());
        Ok(())
    }
}

impl RealKeeper {
    /// That of a node whose key follows from a seed.
    pub fn new(seed: u64) -> Self {
        let key = SigningKey::from_seed(&Seed::generate(&mut SeededEntropy::new(seed)));
        let node = Identity { id: NodeId::of(key.public()), key: Arc::new(key) };
        Self { node, file: KeyFile::default(), opened: Arc::default() }
    }

    /// The id of the node.
    pub fn id(&self) -> NodeId {
        self.node.id
    }

    /// The identities of the run that goes on, or of the last one.
    ///
    /// # Panics
    /// When the node never started.
    pub fn identities(&self) -> Identities {
        guard(&self.opened).clone().expect("the node has started")
    }

    /// A person says that this home is the only one, as with `--offline-sign`; `false` when there was no doubt.
    pub fn settle_doubt(&self) -> bool {
        let identities = self.identities();
        identities.doubt().is_some() && identities.settle_doubt(MARKER).is_ok()
    }
}

impl Keeper for RealKeeper {
    fn open(&self, store: &Store, clock: WallClock) -> Result<Arc<dyn Keystones>, String> {
        let parts = Parts {
            node: self.node.clone(),
            store: store.clone(),
            place: Box::new(self.file.clone()),
            marker: MARKER,
            clock: Arc::new(move || Stamp { ms: clock() }),
        };
        let identities = Identities::open(parts).map_err(|error| format!("cannot open its identities: {error}"))?;
        *guard(&self.opened) = Some(identities.clone());
        Ok(Arc::new(identities))
    }
}

/// A keystone as a node holds it: every frame, in order, by the plainest reading. Follows all rules anew.
///
/// # Errors
/// What is missing, broken or double.
pub fn whole_chain(held: &Identities, first: &Address) -> Result<Vec<Frame>, String> {
    let records: Vec<Verified> = held.frames_of(first);
    let mut chain = Chain::new(first.clone());
    for record in &records {
        if let Added::Broken(broken) = chain.add(record) {
            return Err(format!("{}: {broken:?}", record.address()));
        }
    }
    let frames: Vec<Frame> =
        records.iter().map(Frame::read).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let numbers: Vec<u64> = frames.iter().map(|frame| frame.facts().n).collect();
    if chain.state() != State::Live || chain.missing().next().is_some() {
        return Err(format!("{first} is {:?}", chain.state()));
    }
    if numbers != (0..numbers.len() as u64).collect::<Vec<_>>() {
        return Err(format!("{first} has the frames {numbers:?}"));
    }
    Ok(frames)
}
