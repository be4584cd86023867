//! A keeper of keystones whose frames are plain text: it keeps the order, the bindings and the counts, and signs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_crypto::sha256;
use sealtide_ibgib::{Address, Data, Object, Relations, Verified, stone};
use sealtide_identity::NodeId;
use sealtide_identity::keystone::{ConnectFacts, Side};
use sealtide_node::engine::keystones::{Checked, Connection, Keystones, Work};
use sealtide_sync::{Introduction, OwnIdentity, Proof, Refused};
use tokio::time::sleep;

use crate::guard;

/// What a node lies about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    /// Nothing.
    #[default]
    None,
    /// Its proof is bound to another session.
    Binding,
    /// Its proof answers another challenge.
    Challenge,
    /// Its proof says the other role.
    Role,
    /// It names the device keystone of another node.
    Device,
    /// Its signatures are of something else.
    Target,
}

/// The keystones of one node. Clones are the same.
#[derive(Clone)]
pub struct PlainKeystones {
    id: NodeId,
    lie: Arc<Mutex<Lie>>,
    /// Frames of the own device keystone behind the first.
    age: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Own session keystones by peer: frames by n.
    own: BTreeMap<NodeId, Vec<Verified>>,
    /// Those of peers.
    peers: BTreeMap<NodeId, BTreeMap<u64, Verified>>,
}

/// A signature, or the check of one, takes less than this.
const TAKES_MS: u64 = 48;

/// How far a signature may run ahead of its predecessor here.
const AHEAD: u64 = 64;

fn frame(by: &NodeId, to: &NodeId, n: u64, target: &str) -> Verified {
    let mut data = Object::new();
    data.insert("by".into(), by.to_string().into());
    data.insert("n".into(), n.into());
    data.insert("target".into(), target.into());
    data.insert("to".into(), to.to_string().into());
    stone("session", Data::Json(data.into()), Relations::new())
}

fn device(of: &NodeId) -> Verified {
    let mut data = Object::new();
    data.insert("by".into(), of.to_string().into());
    stone("device", Data::Json(data.into()), Relations::new())
}

/// The greatest n up to which all frames are there.
fn whole(frames: &BTreeMap<u64, Verified>) -> Option<u64> {
    frames.keys().zip(0..).take_while(|(n, place)| **n == *place).map(|(n, _)| *n).last()
}

fn done<T: Send + 'static>(value: T) -> Work<T> {
    Box::pin(ready(value))
}

impl PlainKeystones {
    /// Those of a node.
    pub fn new(id: NodeId) -> Self {
        Self::of_age(id, 0)
    }

    /// Those of a node whose device keystone has grown by so many frames, each as long as a part of it may be.
    pub fn of_age(id: NodeId, age: usize) -> Self {
        Self { id, lie: Arc::default(), age, state: Arc::default() }
    }

    /// From now on this node lies.
    pub fn lie(&self, lie: Lie) {
        *guard(&self.lie) = lie;
    }

    /// The greatest n of the own session keystone for a peer.
    pub fn own_n(&self, peer: &NodeId) -> Option<u64> {
        guard(&self.state).own.get(peer).map(|frames| frames.len() as u64 - 1)
    }

    /// The greatest n up to which all frames of a peer's session keystone are held.
    pub fn peer_n(&self, peer: &NodeId) -> Option<u64> {
        guard(&self.state).peers.get(peer).and_then(whole)
    }

    /// How long this node takes to sign or check something: a disk and many hashes, during which spaces move.
    fn takes(&self, target: &str) -> Duration {
        let digest = sha256(&[self.id.as_bytes(), target.as_bytes()].concat());
        Duration::from_millis(u64::from(digest[0]) % TAKES_MS)
    }

    fn says(&self, lie: Lie) -> bool {
        *guard(&self.lie) == lie
    }

    fn target(&self, connection: &Connection, introduction: &Introduction, own: bool) -> String {
        let (mut prover, mut verifier) = (&connection.own, &connection.peer);
        let (mut received, mut sent) = (introduction.peer_challenge, introduction.own_challenge);
        let (mut binding, mut by_initiator) = (connection.binding, connection.is_initiator);
        if own {
            binding[0] ^= u8::from(self.says(Lie::Binding));
            received[0] ^= u8::from(self.says(Lie::Challenge));
            by_initiator ^= self.says(Lie::Role);
        } else {
            std::mem::swap(&mut prover, &mut verifier);
            std::mem::swap(&mut received, &mut sent);
            by_initiator = !by_initiator;
        }
        ConnectFacts {
            side: if by_initiator { Side::Initiator } else { Side::Responder },
            binding: &binding,
            prover,
            verifier,
            prover_session: frame(prover, verifier, 0, "").address(),
            prover_device: device(prover).address(),
            verifier_device: device(verifier).address(),
            received: &received,
            sent: &sent,
        }
        .target()
        .expect("a session of the simulator has a binding")
    }

    fn make(&self, peer: &NodeId, target: &str) -> Verified {
        let mut state = guard(&self.state);
        let frames = state.own.entry(*peer).or_insert_with(|| vec![frame(&self.id, peer, 0, "")]);
        let made = frame(&self.id, peer, frames.len() as u64, target);
        frames.push(made.clone());
        made
    }

    fn check(&self, peer: &NodeId, target: &str, sig: &Verified) -> Result<Checked, Refused> {
        let mut state = guard(&self.state);
        let frames = state.peers.entry(*peer).or_default();
        let held = whole(frames).unwrap_or(0);
        match (0..=held + AHEAD).find(|n| frame(peer, &self.id, *n, target) == *sig) {
            None => Err(Refused::auth("a signature of something else")),
            Some(n) if n > held + 1 => {
                let first = frame(peer, &self.id, 0, "").address().clone();
                Ok(Checked::Waits { first, after: Some(held) })
            }
            Some(n) => {
                frames.insert(n, sig.clone());
                Ok(Checked::Good)
            }
        }
    }
}

impl Keystones for PlainKeystones {
    fn identity(&self, peer: &NodeId) -> Option<OwnIdentity> {
        let of = if self.says(Lie::Device) { peer } else { &self.id };
        Some(OwnIdentity { keystone: device(of).address().clone(), owner: None, known: None })
    }

    fn held(&self, _: Address) -> Work<Option<u64>> {
        done(None)
    }

    fn prove(&self, connection: Connection, introduction: Introduction) -> Work<Result<Proof, Refused>> {
        let target = self.target(&connection, &introduction, true);
        self.make(&connection.peer, &target);
        let session = guard(&self.state).own[&connection.peer].clone();
        let more = (0..self.age).map(|n| frame(&self.id, &self.id, n as u64, &"x".repeat(256 * 1024)));
        done(Ok(Proof { device: std::iter::once(device(&self.id)).chain(more).collect(), session }))
    }

    fn check_proof(
        &self,
        connection: Connection,
        frames: Vec<Verified>,
        introduction: Introduction,
    ) -> Work<Result<(), Refused>> {
        let peer = &connection.peer;
        if introduction.peer_keystone != *device(peer).address() {
            return done(Err(Refused::auth("the device keystone of another node")));
        }
        let target = self.target(&connection, &introduction, false);
        // The newest frames come; how many there were before is what was held, or nothing.
        let connect = frames.last().cloned();
        let good = (1..10_000).find(|n| Some(frame(peer, &self.id, *n, &target)) == connect);
        let Some(n) = good else { return done(Err(Refused::auth("a proof of something else"))) };
        let from = (n + 1).saturating_sub(frames.len() as u64);
        guard(&self.state).peers.entry(*peer).or_default().extend((from..).zip(frames));
        done(Ok(()))
    }

    fn frames(
        &self,
        connection: Connection,
        first: Address,
        after: Option<u64>,
        _: BTreeSet<Address>,
    ) -> Work<Vec<Verified>> {
        let state = guard(&self.state);
        let own = state.own.get(&connection.peer).filter(|frames| *frames[0].address() == first);
        let from = after.map_or(0, |n| n as usize + 1);
        done(own.and_then(|frames| frames.get(from..)).map(<[Verified]>::to_vec).unwrap_or_default())
    }

    fn keep(
        &self,
        connection: Connection,
        first: Address,
        frames: Vec<Verified>,
        _: bool,
    ) -> Work<Result<(), Refused>> {
        if first == *frame(&connection.peer, &self.id, 0, "").address() {
            let mut state = guard(&self.state);
            let kept = state.peers.entry(connection.peer).or_default();
            for frame in frames {
                let next = whole(kept).map_or(0, |n| n + 1);
                kept.insert(next, frame);
            }
        }
        done(Ok(()))
    }

    fn keep_unseen(&self, _: Connection, _: Verified) -> Work<()> {
        // Plain text does not tell its n; the next signature asks for it.
        done(())
    }

    fn sign(&self, connection: Connection, target: String) -> Work<Result<Verified, Refused>> {
        let this = self.clone();
        Box::pin(async move {
            let target = if this.says(Lie::Target) { "something else" } else { &target };
            sleep(this.takes(target)).await;
            Ok(this.make(&connection.peer, target))
        })
    }

    fn check_sig(&self, connection: Connection, target: String, sig: Verified) -> Work<Result<Checked, Refused>> {
        let this = self.clone();
        Box::pin(async move {
            sleep(this.takes(&target)).await;
            this.check(&connection.peer, &target, &sig)
        })
    }

    fn ended(&self, _: &Connection) {}
}
