//! Nodes for tests: a key, an admission in memory, and links over loopback.
#![allow(unreachable_pub, reason = "every file of these tests may use it")]

pub mod chaos;
pub mod inspector;
pub mod proxies;
pub mod raw;
pub mod relay;
pub mod scripted;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::chaos::Chaos;
use bytes::Bytes;
use sealtide_crypto::{Entropy, Seed, SeededEntropy, SigningKey};
use sealtide_identity::{InviteId, InviteSecret, LinkAddress, NodeId};
pub use sealtide_link::DialTarget;
use sealtide_link::{Admission, Channel, Link, LinkConfig, Refused, Session};

/// Lets in whom it was told to, and enrols by invites with counted uses.
#[derive(Default)]
pub struct Door {
    pub allowed: Mutex<BTreeSet<NodeId>>,
    pub invites: Mutex<BTreeMap<InviteId, (InviteSecret, u32)>>,
    /// While it is set, every question about a peer waits, as on a disk that hangs.
    pub hangs: AtomicBool,
    enrolled: AtomicU64,
}

impl Door {
    /// How many uses of invites were taken, or are being taken.
    pub fn enrolled(&self) -> u64 {
        self.enrolled.load(Ordering::Relaxed)
    }

    fn wait_for_disk(&self) {
        while self.hangs.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Admission for Door {
    fn allowed(&self, peer: &NodeId) -> bool {
        self.wait_for_disk();
        self.allowed.lock().unwrap().contains(peer)
    }

    fn invite_secret(&self, invite: &InviteId) -> Option<InviteSecret> {
        self.invites.lock().unwrap().get(invite).map(|(secret, _)| secret.clone())
    }

    fn enrol(&self, invite: &InviteId, peer: &NodeId) -> Result<(), Refused> {
        self.enrolled.fetch_add(1, Ordering::Relaxed);
        self.wait_for_disk();
        let mut invites = self.invites.lock().unwrap();
        let (_, uses) = invites.get_mut(invite).ok_or(Refused)?;
        *uses = uses.checked_sub(1).ok_or(Refused)?;
        self.allowed.lock().unwrap().insert(*peer);
        Ok(())
    }
}

/// A node of a test.
#[derive(Clone)]
pub struct Node {
    pub link: Link,
    pub door: Arc<Door>,
    pub key: Arc<SigningKey>,
    pub address: SocketAddr,
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.link.id()
    }

    pub fn allow(&self, other: &Node) {
        self.door.allowed.lock().unwrap().insert(other.id());
    }

    pub fn target(&self) -> DialTarget {
        target(self.id(), &[self.address])
    }

    pub async fn dial(&self, other: &Node) -> Session {
        self.link.dial(other.target()).await.unwrap()
    }
}

pub fn key(seed: u64) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&Seed::generate(&mut SeededEntropy::new(seed))))
}

pub fn target(node: NodeId, addresses: &[SocketAddr]) -> DialTarget {
    let addresses = addresses.iter().map(|socket| LinkAddress { source: 4, socket: *socket }).collect();
    DialTarget { node, addresses, relays: Vec::new(), invite: None }
}

/// A node that listens on a free port of loopback; `change` adapts its configuration.
pub async fn node_with(seed: u64, change: impl FnOnce(&mut LinkConfig)) -> Node {
    let key = key(seed);
    let mut config = LinkConfig::new(key.clone(), NodeId::of(key.public()));
    change(&mut config);
    let door = Arc::new(Door::default());
    let link = Link::new(config, door.clone()).unwrap();
    let address = link.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    Node { link, door, key, address }
}

/// A node without a door: nobody can dial it.
pub fn doorless(seed: u64, change: impl FnOnce(&mut LinkConfig)) -> Node {
    let key = key(seed);
    let mut config = LinkConfig::new(key.clone(), NodeId::of(key.public()));
    change(&mut config);
    let door = Arc::new(Door::default());
    let link = Link::new(config, door.clone()).unwrap();
    Node { link, door, key, address: "192.0.2.1:1".parse().unwrap() }
}

/// Two nodes with a session, the dialler's end first. The only way between them leads through the proxy, and only the
/// first can dial.
pub async fn wired(seed: u64, change: impl Fn(&mut LinkConfig)) -> (Node, Node, Chaos, Session, Session) {
    let chaos = Chaos::new().await;
    let a = doorless(seed, &change);
    let b = node_with(seed + 1, |config| {
        config.announce = vec![chaos.address];
        change(config);
    })
    .await;
    a.allow(&b);
    b.allow(&a);
    chaos.lead_to(b.address);
    let ours = soon(a.link.dial(target(b.id(), &[chaos.address]))).await.unwrap();
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, chaos, ours, theirs)
}

/// Waits until something holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..6000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// Frames intact: numbered messages of random size on `channels` channels in both directions, each exactly once, in
/// order, with equal bytes.
pub async fn talk(ours: &Session, theirs: &Session, channels: u64, count: u64, bytes_max: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..channels {
        let channel = ours.open((number % 8) as u8, &format!("talk {number}")).unwrap();
        tasks.spawn(send_all(channel.clone(), number, count, bytes_max));
        tasks.spawn(async move {
            check_all(channel, 1000 + number, count, bytes_max).await;
        });
    }
    for _ in 0..channels {
        let channel = soon(theirs.accept_channel()).await.unwrap();
        let number: u64 = channel.name().strip_prefix("talk ").unwrap().parse().unwrap();
        tasks.spawn(send_all(channel.clone(), 1000 + number, count, bytes_max));
        tasks.spawn(async move {
            check_all(channel, number, count, bytes_max).await;
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

pub async fn node(seed: u64) -> Node {
    node_with(seed, |_| {}).await
}

/// Two nodes that allow each other, with a session: the dialler's end first.
pub async fn pair() -> (Node, Node, Session, Session) {
    let (a, b) = (node(1).await, node(2).await);
    a.allow(&b);
    b.allow(&a);
    let ours = a.dial(&b).await;
    let theirs = soon(b.link.accept()).await.unwrap();
    (a, b, ours, theirs)
}

/// Fails the test when something takes far too long; no claim about speed.
pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("did not happen within 30 s")
}

/// Numbered messages of random size.
pub struct Generator {
    entropy: SeededEntropy,
    number: u64,
    bytes_max: u64,
}

impl Generator {
    pub fn new(seed: u64, bytes_max: u64) -> Self {
        Self { entropy: SeededEntropy::new(seed), number: 0, bytes_max }
    }

    pub fn next_message(&mut self) -> Bytes {
        let mut random = [0; 8];
        self.entropy.fill(&mut random);
        let length = (u64::from_be_bytes(random) % self.bytes_max) as usize;
        let mut message = self.number.to_be_bytes().to_vec();
        message.resize(8 + length, (self.number % 251) as u8);
        self.number += 1;
        message.into()
    }
}

/// Sends `count` messages and ends the direction.
pub async fn send_all(channel: Channel, seed: u64, count: u64, bytes_max: u64) {
    let mut generator = Generator::new(seed, bytes_max);
    for _ in 0..count {
        channel.send(generator.next_message()).await.unwrap();
    }
    channel.finish();
}

/// Demands exactly the messages of `send_all`, in order; gives the bytes received.
pub async fn check_all(channel: Channel, seed: u64, count: u64, bytes_max: u64) -> u64 {
    let mut generator = Generator::new(seed, bytes_max);
    let mut bytes = 0;
    for number in 0..count {
        let message = channel.recv().await.unwrap().unwrap_or_else(|| panic!("ended before message {number}"));
        assert_eq!(message, generator.next_message(), "message {number}");
        bytes += message.len() as u64;
        channel.release(message.len() as u64);
    }
    assert_eq!(channel.recv().await, Ok(None));
    bytes
}
