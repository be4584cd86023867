//! What the engine needs of keystones: whoever keeps them proves, signs and checks behind this seam. Spec: ibgib §12.4

use std::collections::BTreeSet;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;

use sealtide_crypto::PublicKey;
use sealtide_ibgib::{Address, Verified};
use sealtide_identity::{NodeId, members};
use sealtide_sync::{Introduction, OwnIdentity, Proof, Refused};
use tokio::sync::mpsc;

use super::authorship::CommitKey;

/// Work that waits for a disk or a peer. It may be dropped at any time, so what must not be left half done belongs into
/// a task of its own.
pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One connection with a peer: what a proof is bound to. Clones are the same connection.
#[derive(Clone)]
pub struct Connection {
    /// This node.
    pub own: NodeId,
    /// The peer, as the link proved it.
    pub peer: NodeId,
    /// Whether this node opened the session.
    pub is_initiator: bool,
    /// The session binding of the link. Spec: link C.4.5
    pub binding: [u8; 32],
    asks: mpsc::UnboundedSender<Ask>,
}

/// What is wished of the task that owns the control channel.
pub(crate) enum Ask {
    /// Ask the peer for frames.
    Keystone(Address, Option<u64>),
    /// The two ends may count different sagas, or a session's time is over: end the connection.
    Broken,
    /// The identities do not hold any more: refuse the connection.
    End(Refused),
}

impl Connection {
    pub(crate) fn new(own: NodeId, peer: NodeId, is_initiator: bool, binding: [u8; 32]) -> (Self, Asks) {
        let (asks, inbox) = mpsc::unbounded_channel();
        (Self { own, peer, is_initiator, binding, asks }, inbox)
    }

    /// A connection without a control channel behind it: what it asks for nobody hears. For keepers driven by hand.
    pub fn unattended(own: NodeId, peer: NodeId, is_initiator: bool, binding: [u8; 32]) -> Self {
        Self::new(own, peer, is_initiator, binding).0
    }

    /// Asks the peer for the frames of a keystone, those after `n = after`. They come by [`Keystones::keep`].
    pub fn ask(&self, first: Address, after: Option<u64>) {
        let _ = self.asks.send(Ask::Keystone(first, after));
    }

    /// Refuses the connection from now on: its sagas end, and the peer hears why.
    pub(crate) fn end(&self, refused: Refused) {
        let _ = self.asks.send(Ask::End(refused));
    }

    /// Ends the connection.
    pub(crate) fn broken(&self) {
        let _ = self.asks.send(Ask::Broken);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer.short())
    }
}

pub(crate) type Asks = mpsc::UnboundedReceiver<Ask>;

/// What a look at a signature says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is the next frame of the peer's session keystone, with the right target; it was kept.
    Good,
    /// It may be good, but frames before it are not here yet: it travels on another channel than they.
    Waits {
        /// First frame of the session keystone.
        first: Address,
        /// The greatest n that is held.
        after: Option<u64>,
    },
}

/// The keeper of keystones: the own ones and those of others. Every answer that reveals a frame comes after the frame is
/// durable. There is one session keystone for a peer, whatever the number of sagas; `sign` is called by many at once.
pub trait Keystones: Send + Sync + 'static {
    /// Who this node is to this peer; `None` while there are no identities here. Then nothing else is called.
    fn identity(&self, peer: &NodeId) -> Option<OwnIdentity>;
    /// The greatest n held of a keystone.
    fn held(&self, first: Address) -> Work<Option<u64>>;
    /// Makes the connect frame (and, where there is none yet, the session keystone and the frame that authorises it).
    fn prove(&self, connection: Connection, introduction: Introduction) -> Work<Result<Proof, Refused>>;
    /// Checks the peer's proof. Its device and owner keystones were kept before.
    fn check_proof(
        &self,
        connection: Connection,
        frames: Vec<Verified>,
        introduction: Introduction,
    ) -> Work<Result<(), Refused>>;
    /// The frames of a keystone that the peer may have, with n over `after`, in order; none where it may not.
    /// Members of spaces that the peer shares name the keystones `named`.
    fn frames(
        &self,
        connection: Connection,
        first: Address,
        after: Option<u64>,
        named: BTreeSet<Address>,
    ) -> Work<Vec<Verified>>;
    /// Validates and keeps frames that came from the peer; `last` ends an answer.
    fn keep(
        &self,
        connection: Connection,
        first: Address,
        frames: Vec<Verified>,
        last: bool,
    ) -> Work<Result<(), Refused>>;
    /// Keeps the frame that signed a context which nobody looked at: the next one builds on it.
    fn keep_unseen(&self, connection: Connection, sig: Verified) -> Work<()>;
    /// Signs a context: claim verb `sync`, this target. Spec: ibgib §12.4
    fn sign(&self, connection: Connection, target: String) -> Work<Result<Verified, Refused>>;
    /// Checks and keeps the signature of a context.
    fn check_sig(&self, connection: Connection, target: String, sig: Verified) -> Work<Result<Checked, Refused>>;
    /// The connection is over.
    fn ended(&self, connection: &Connection);
    /// The peer refused the connection because it sees a fork in the identities of this node.
    fn refused_as_forked(&self, connection: &Connection) {
        let _ = connection;
    }
    /// What signs the commits of this node; `None` while there are no identities here. Spec: ibgib §12.6
    fn commit_key(&self) -> Option<CommitKey> {
        None
    }
    /// The node key that a device keystone carries, when its first frame is held and in order.
    fn node_key(&self, keystone: &Address) -> Option<PublicKey> {
        let _ = keystone;
        None
    }
    /// A device keystone signed commits that came from this peer, and it is not held: asks for its first frame.
    fn ask_for_signer(&self, connection: &Connection, keystone: &Address) {
        let _ = (connection, keystone);
    }
    /// The chains in which claims on members frames stand; `None` in a node that goes by no members.
    fn chains(&self) -> Option<&dyn members::Keystones> {
        None
    }
    /// Another number when another answer about keystones may be given.
    fn news(&self) -> u64 {
        0
    }
    /// The keystones that a node acts as, as it proved them last: its owner's, then its device's.
    fn acts_as(&self, node: &NodeId) -> Vec<Address> {
        let _ = node;
        Vec::new()
    }
    /// Whether an owner lets a device `sync` now.
    fn delegates(&self, owner: &Address, device: &Address) -> bool {
        let _ = (owner, device);
        false
    }
    /// Claims a record with the own device keystone. Waits for the disk.
    ///
    /// # Errors
    /// Why nothing was signed.
    fn post(&self, target: &Address) -> Result<(), Refused> {
        let _ = target;
        Err(Refused::auth("this node has no identity"))
    }
    /// Asks a peer for newer frames of keystones of others, and waits for the answers a few seconds at most.
    fn fetch(&self, connection: Connection, wanted: Vec<Address>) -> Work<()> {
        let _ = (connection, wanted);
        Box::pin(ready(()))
    }
}

/// A node without identities.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeystones;

fn none<T: Send + 'static>() -> Work<Result<T, Refused>> {
    Box::pin(ready(Err(Refused::auth("this node has no identity"))))
}

impl Keystones for NoKeystones {
    fn identity(&self, _: &NodeId) -> Option<OwnIdentity> {
        None
    }

    fn held(&self, _: Address) -> Work<Option<u64>> {
        Box::pin(ready(None))
    }

    fn prove(&self, _: Connection, _: Introduction) -> Work<Result<Proof, Refused>> {
        none()
    }

    fn check_proof(&self, _: Connection, _: Vec<Verified>, _: Introduction) -> Work<Result<(), Refused>> {
        none()
    }

    fn frames(&self, _: Connection, _: Address, _: Option<u64>, _: BTreeSet<Address>) -> Work<Vec<Verified>> {
        Box::pin(ready(Vec::new()))
    }

    fn keep(&self, _: Connection, _: Address, _: Vec<Verified>, _: bool) -> Work<Result<(), Refused>> {
        none()
    }

    fn keep_unseen(&self, _: Connection, _: Verified) -> Work<()> {
        Box::pin(ready(()))
    }

    fn sign(&self, _: Connection, _: String) -> Work<Result<Verified, Refused>> {
        none()
    }

    fn check_sig(&self, _: Connection, _: String, _: Verified) -> Work<Result<Checked, Refused>> {
        none()
    }

    fn ended(&self, _: &Connection) {}
}
