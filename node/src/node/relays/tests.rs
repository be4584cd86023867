use std::sync::Arc;
use std::time::Duration;

use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_identity::{Invite, InviteId, InviteSecret, Role};
use sealtide_link::{Admission, Admit, Link, LinkConfig, Refused, Relay, RelayConfig};

use super::*;
use crate::node::tests::until;

/// A node that serves, logged in at a relay which lets in nobody else by itself.
struct Rig {
    node: Node,
    relay: Relay,
    hint: RelayHint,
    _dir: tempfile::TempDir,
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        let admit = Admit::AllowList([node.id()].into());
        let relay = Relay::open(RelayConfig::new(key(1), admit), "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let hint = RelayHint { relay: relay.id(), url: format!("wss://{}", relay.address()) };
        node.use_relay(&RelayAddress { relay: hint.clone(), bind0: false, token: None }).unwrap();
        node.serve().unwrap();
        let rig = Self { node, relay, hint, _dir: dir };
        until("the node is logged in", || rig.node.link().relays()[0].up).await;
        rig
    }

    /// A stranger that tries to stay logged in at the same relay.
    fn visitor(&self, seed: u64) -> Link {
        let key = key(seed);
        let id = NodeId::of(key.public());
        let link = Link::new(LinkConfig::new(key, id), Arc::new(Nobody)).unwrap();
        link.use_relay(&self.hint, None);
        link
    }

    fn invite(&self, uses_left: u32) -> InviteId {
        let id = [7; 16];
        let space = self.node.create_space("Notes", "folder").unwrap();
        let (secret, role, expires_ms) = (InviteSecret::from_bytes([8; 32]), Role::Read, now().wall_ms + 3_600_000);
        let invite =
            Invite { id, secret, space, role, expires_ms, uses_left, enrolled: Vec::new(), refused: Vec::new() };
        self.node.known().put_invite(&invite).unwrap();
        id
    }
}

/// Lets in nobody.
struct Nobody;

impl Admission for Nobody {
    fn allowed(&self, _peer: &NodeId) -> bool {
        false
    }

    fn invite_secret(&self, _invite: &InviteId) -> Option<InviteSecret> {
        None
    }

    fn enrol(&self, _invite: &InviteId, _peer: &NodeId) -> Result<(), Refused> {
        Err(Refused)
    }
}

fn key(seed: u64) -> Arc<SigningKey> {
    Arc::new(SigningKey::from_seed(&Seed::generate(&mut SeededEntropy::new(seed))))
}

/// The last use of an invite ends the welcome of guests at once, though no session came of it.
// Proves: LK-108
#[tokio::test(flavor = "multi_thread")]
async fn an_invite_that_is_used_up_is_told_to_relays_at_once() {
    let rig = Rig::new().await;
    let invite = rig.invite(2);
    rig.node.tell_relays();
    let guest = rig.visitor(2);
    until("a guest is let in", || guest.relays()[0].up).await;
    rig.node.0.door.enrol(&invite, &NodeId::from_bytes([3; 32])).unwrap();
    rig.node.0.door.enrol(&invite, &NodeId::from_bytes([4; 32])).unwrap();
    until("the guest is sent away", || {
        guest.relays()[0].why_not.as_deref() == Some("the relay lets this node in no longer")
    })
    .await;
    assert_eq!(rig.relay.stats().guests, 0);
}

/// A peer that is thrown out is let in no longer by the relays of this node.
// Proves: LK-104
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_revoked_is_let_in_no_longer() {
    let rig = Rig::new().await;
    let id = NodeId::of(key(2).public());
    rig.node.with_peers(|known| known.put_peer(&Peer::new(id, now()))).unwrap();
    rig.node.tell_relays();
    let peer = rig.visitor(2);
    until("the peer is let in", || peer.relays()[0].up).await;
    crate::commands::peers::revoke(&rig.node, &peer.id().to_string()).await.unwrap();
    until("the peer is sent away", || {
        peer.relays()[0].why_not.as_deref() == Some("the relay lets this node in no longer")
    })
    .await;
    assert_eq!(rig.relay.stats().nodes, 1);
}

/// A relay that a ticket names and that is not this node's own is kept while the ticket holds, also after a restart.
// Proves: LK-101
#[test]
fn a_relay_of_others_that_a_ticket_names_is_kept_while_the_invite_lives() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (dir, there) = (tempfile::tempdir().unwrap(), runtime());
    let opened = Relay::open(RelayConfig::new(key(1), Admit::Open), "127.0.0.1:0".parse().unwrap());
    let relay = there.block_on(opened).unwrap();
    let hint = RelayHint { relay: relay.id(), url: format!("wss://{}", relay.address()) };
    let open = || {
        let node = Node::new_at(dir.path().join("home"));
        node.serve().unwrap();
        node
    };
    let is_met = |node: &Node| node.link().meeting_points().contains(&hint);
    // All of a node is gone with its runtime.
    let invite = runtime().block_on(async {
        let node = open();
        // As while a peer is met over it.
        node.link().hold_relays(std::slice::from_ref(&hint));
        until("the node is logged in", || is_met(&node)).await;
        let space = node.create_space("Notes", "folder").unwrap();
        let made = crate::commands::ticket::make(&node, space, Role::Read, 3600, 1).unwrap();
        assert_eq!(made.ticket.relays, std::slice::from_ref(&hint));
        // Nothing uses it any more.
        node.link().hold_relays(&[]);
        node.invites_changed();
        until("it is held for the invite", || is_met(&node)).await;
        node.shutdown().await;
        made.invite.id
    });
    runtime().block_on(async {
        let node = open();
        until("it is held after a start", || is_met(&node)).await;
        crate::commands::ticket::revoke(&node, &HEXLOWER.encode(&invite)).unwrap();
        until("it may go", || !is_met(&node)).await;
        node.shutdown().await;
    });
}

/// What relays were told runs out after 30 days; they are told again before, though nothing changed.
// Proves: LK-104
#[tokio::test(flavor = "multi_thread")]
async fn relays_are_told_again_and_again_who_is_let_in() {
    let rig = Rig::new().await;
    rig.node.keep_relays_told_each(Duration::from_millis(20));
    let peer = rig.visitor(2);
    until("the peer is not let in", || peer.relays()[0].why_not.is_some()).await;
    rig.node.with_peers(|known| known.put_peer(&Peer::new(peer.id(), now()))).unwrap();
    until("the peer is let in", || peer.relays()[0].up).await;
}

/// A relay takes 256 entries of one node: with more peers, those get one that are here or were last.
#[test]
fn of_many_peers_those_seen_last_are_let_in() {
    let id = |number: u16| NodeId::from_bytes([number.to_be_bytes(); 16].concat().try_into().unwrap());
    let peer = |number: u16| {
        let mut peer = Peer::new(id(number), now());
        (peer.last_seen_ms, peer.revoked) = (u64::from(number), number == 999);
        peer
    };
    let let_in = peers_let_in((0..1000).map(peer).collect(), |node| *node == id(3));
    assert_eq!(let_in.len(), ALLOWS);
    let last: Vec<u16> = (0..1000).filter(|number| let_in.contains_key(&id(*number))).collect();
    assert_eq!(last, [3].into_iter().chain(745..999).collect::<Vec<_>>());
}
