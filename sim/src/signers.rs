//! Keepers of keys that sign commits and nothing else: sessions stay without keystones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use sealtide_crypto::{PublicKey, Seed, SigningKey};
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::NodeId;
use sealtide_node::engine::authorship::{Authorship, CommitKey};
use sealtide_node::engine::keystones::{Checked, Connection, Keystones, NoKeystones, Work};
use sealtide_store::SpaceHandle;
use sealtide_sync::{Introduction, OwnIdentity, Proof, Refused, SpaceView};

use crate::cluster::Cluster;
use crate::guard;

/// The keys of all nodes of a run: everybody holds those of all.
#[derive(Clone, Default)]
pub struct Signers {
    keys: Arc<Mutex<BTreeMap<Address, PublicKey>>>,
    /// Which key a simulated node has, by the id that it goes by.
    by_node: Arc<Mutex<BTreeMap<String, NodeId>>>,
}

/// The keeper of one node.
struct Keeper {
    own: CommitKey,
    all: Signers,
}

impl Signers {
    /// Makes the key of a node and its keeper. Signatures are made with chance of their own, so runs with stones are not
    /// the same twice.
    pub fn keeper(&self, id: NodeId) -> Arc<dyn Keystones> {
        let key = Arc::new(SigningKey::from_seed(&Seed::from_bytes(*id.as_bytes())));
        let name = format!("keystone^{}", upper_hex(id.as_bytes()));
        let keystone = Address::parse(&name).expect("64 hex digits are a gib");
        guard(&self.keys).insert(keystone.clone(), key.public().clone());
        guard(&self.by_node).insert(id.to_string(), NodeId::of(key.public()));
        Arc::new(Keeper { own: CommitKey { key, keystone }, all: self.clone() })
    }

    /// Looks at every frame of a space that names its maker: how many are proven to be by it. Nothing may be proven to be
    /// by somebody else.
    ///
    /// # Errors
    /// The frame that is.
    pub fn check(&self, cluster: &Cluster, view: &SpaceHandle) -> Result<(u64, u64), String> {
        let (mut proven, mut all) = (0, 0);
        for (_, sid) in view.bulk(None, usize::MAX) {
            let Some(record) = view.record(&sid).filter(|record| record.frame_ref().is_some()) else { continue };
            let Some(by) = record.object().and_then(|data| Some(data.get("by")?.as_str()?.to_owned())) else {
                continue;
            };
            let maker = guard(&self.by_node).get(&by).copied();
            match cluster.engine(0).authorship(view, &record) {
                Authorship::Verified(node) if Some(node) != maker => {
                    return Err(format!("{} is by {by} and proven to be by {node}", record.address()));
                }
                Authorship::Verified(_) => (proven, all) = (proven + 1, all + 1),
                Authorship::Claimed => all += 1,
                Authorship::Merged => {}
            }
        }
        Ok((proven, all))
    }
}

fn upper_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

impl Keystones for Keeper {
    fn identity(&self, peer: &NodeId) -> Option<OwnIdentity> {
        NoKeystones.identity(peer)
    }
    fn held(&self, first: Address) -> Work<Option<u64>> {
        NoKeystones.held(first)
    }
    fn prove(&self, connection: Connection, introduction: Introduction) -> Work<Result<Proof, Refused>> {
        NoKeystones.prove(connection, introduction)
    }
    fn check_proof(&self, on: Connection, frames: Vec<Verified>, by: Introduction) -> Work<Result<(), Refused>> {
        NoKeystones.check_proof(on, frames, by)
    }
    fn frames(
        &self,
        connection: Connection,
        first: Address,
        after: Option<u64>,
        named: BTreeSet<Address>,
    ) -> Work<Vec<Verified>> {
        NoKeystones.frames(connection, first, after, named)
    }
    fn keep(&self, on: Connection, first: Address, frames: Vec<Verified>, last: bool) -> Work<Result<(), Refused>> {
        NoKeystones.keep(on, first, frames, last)
    }
    fn keep_unseen(&self, connection: Connection, sig: Verified) -> Work<()> {
        NoKeystones.keep_unseen(connection, sig)
    }
    fn sign(&self, connection: Connection, target: String) -> Work<Result<Verified, Refused>> {
        NoKeystones.sign(connection, target)
    }
    fn check_sig(&self, on: Connection, target: String, sig: Verified) -> Work<Result<Checked, Refused>> {
        NoKeystones.check_sig(on, target, sig)
    }
    fn ended(&self, connection: &Connection) {
        NoKeystones.ended(connection);
    }
    fn commit_key(&self) -> Option<CommitKey> {
        Some(self.own.clone())
    }
    fn node_key(&self, keystone: &Address) -> Option<PublicKey> {
        guard(&self.all.keys).get(keystone).cloned()
    }
}
