//! Connections that end at every possible moment leave nothing behind. Alone in its program: it counts what the whole
//! process holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::harness::raw::{AnyDates, Raw, TestCertificate};
use crate::harness::{Node, key, node, node_with, soon};
use bytes::Bytes;
use sealtide_crypto::SeededEntropy;
use sealtide_identity::{InviteId, InviteSecret, NodeId};
use sealtide_link::{ErrorCode, Session};
use sealtide_wire::handshake::{Initiator, Proof, Step};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Connections at a time.
const LANES: u64 = 16;
const INVITE: InviteId = [7; 16];

/// Where a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    /// TCP only.
    Tcp,
    /// In the middle of the TLS handshake.
    Tls,
    /// After the upgrade.
    Upgrade,
    /// With HELLO on its way.
    Hello,
    /// In the middle of RESPONSE.
    Response,
    /// While the door writes down that an invite was used.
    Commit,
    /// In a session, under transfer, by closing twice.
    CloseTwice,
    /// In a session, under transfer, by aborting at both ends at once, twice.
    AbortTwice,
}

const MOMENTS: [Moment; 8] = [
    Moment::Tcp,
    Moment::Tls,
    Moment::Upgrade,
    Moment::Hello,
    Moment::Response,
    Moment::Commit,
    Moment::CloseTwice,
    Moment::AbortTwice,
];

fn secret() -> InviteSecret {
    InviteSecret::from_bytes([8; 32])
}

/// What the process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    files: usize,
    tasks: usize,
}

impl Held {
    fn now() -> Self {
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { files, tasks: Handle::current().metrics().num_alive_tasks() }
    }

    /// Waits until no more is held than in `before`; the last count when that takes too long.
    async fn back_to(before: Self) -> Self {
        let mut now = Self::now();
        for _ in 0..1500 {
            if now.files <= before.files && now.tasks <= before.tasks {
                break;
            }
            sleep(Duration::from_millis(10)).await;
            now = Self::now();
        }
        now
    }
}

/// Takes the sessions of `door` and everything that comes in them.
fn serve(door: &Node) {
    let link = door.link.clone();
    tokio::spawn(async move {
        while let Some(session) = link.accept().await {
            tokio::spawn(async move {
                while let Some(channel) = session.accept_channel().await {
                    tokio::spawn(async move {
                        while let Ok(Some(message)) = channel.recv().await {
                            channel.release(message.len() as u64);
                        }
                    });
                }
            });
        }
    });
}

/// One lane: connections one after the other, with a node of its own and a certificate of its own.
struct Lane {
    door: Node,
    dialler: Node,
    number: u64,
    shown: TestCertificate,
}

impl Lane {
    async fn new(door: &Node, number: u64) -> Self {
        let dialler = node(1000 + number).await;
        door.allow(&dialler);
        Self { door: door.clone(), dialler, number, shown: TestCertificate::new() }
    }

    async fn end_at(&self, moment: Moment) {
        match moment {
            Moment::Tcp => drop(TcpStream::connect(self.door.address).await.unwrap()),
            Moment::Tls => {
                let mut tcp = TcpStream::connect(self.door.address).await.unwrap();
                // The beginning of a ClientHello that never ends.
                tcp.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await.unwrap();
            }
            Moment::Upgrade => drop(Raw::dial(self.door.address, &self.shown).await.unwrap()),
            Moment::Hello | Moment::Response | Moment::Commit => self.by_hand(moment).await,
            Moment::CloseTwice => {
                let session = self.transfer().await;
                session.close();
                session.close();
                session.closed().await;
                session.close();
            }
            Moment::AbortTwice => {
                let session = self.transfer().await;
                self.door.link.revoke(&self.dialler.id());
                session.abort(ErrorCode::GoingAway);
                self.door.link.revoke(&self.dialler.id());
                session.abort(ErrorCode::GoingAway);
                session.closed().await;
            }
        }
    }

    async fn by_hand(&self, moment: Moment) {
        let mut raw = Raw::dial(self.door.address, &self.shown).await.unwrap();
        let local = self.shown.local_end(&key(2000 + self.number));
        let connection = raw.connection(&self.shown);
        let proof = if moment == Moment::Commit { Proof::Invite(INVITE, secret()) } else { Proof::Key };
        let mut entropy = SeededEntropy::new(self.number);
        let (mut initiator, hello) = Initiator::start(local, self.door.id(), proof, connection, None, &mut entropy);
        raw.send(&[hello]).await.unwrap();
        if moment == Moment::Hello {
            return;
        }
        let challenge = raw.frame().await.unwrap();
        let Step::Send(frames) = initiator.handle(&challenge, &raw, &AnyDates).unwrap() else { panic!("RESPONSE") };
        if moment == Moment::Response {
            raw.send_bytes(frames[0][..4000].to_vec()).await.unwrap();
            return;
        }
        let used = self.door.door.enrolled();
        raw.send(&frames).await.unwrap();
        // Gone at the moment at which the use of the invite is written down.
        soon(async {
            while self.door.door.enrolled() == used {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// A session with messages on their way.
    async fn transfer(&self) -> Session {
        let session = self.dialler.dial(&self.door).await;
        let channel = session.open(7, "bulk").unwrap();
        for _ in 0..4 {
            channel.send(Bytes::from(vec![5; 100_000])).await.unwrap();
        }
        session
    }
}

async fn run(lanes: &[Arc<Lane>], connections: u64) {
    let mut tasks = tokio::task::JoinSet::new();
    for lane in lanes {
        let lane = lane.clone();
        tasks.spawn(async move {
            for number in (lane.number..connections).step_by(LANES as usize) {
                // Each lane goes through all of them.
                let moment = MOMENTS[(number / LANES + number) as usize % MOMENTS.len()];
                tokio::time::timeout(Duration::from_secs(30), lane.end_at(moment)).await.unwrap_or_else(|_| {
                    panic!("connection {number} hangs at {moment:?}");
                });
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

fn connections() -> u64 {
    std::env::var("SEALTIDE_TEST_SCALE").ok().and_then(|scale| scale.parse().ok()).unwrap_or(1u64).max(1) * 1000
}

// Proves: SY-56
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_end_at_any_moment_leak_nothing() {
    // A peer that is gone for good is waited for as long as a session may be suspended.
    let door = node_with(1, |config| config.session.suspend_ms = 300).await;
    door.door.invites.lock().unwrap().insert(INVITE, (secret(), u32::MAX));
    serve(&door);
    let mut lanes = Vec::new();
    for number in 0..LANES {
        lanes.push(Arc::new(Lane::new(&door, number).await));
    }
    // Everything that is made once has been made.
    let fresh = Held::now();
    run(&lanes, LANES * MOMENTS.len() as u64).await;
    let before = Held::back_to(fresh).await;
    assert!(before.tasks <= fresh.tasks, "{before:?} after the first round, {fresh:?} before");

    run(&lanes, connections()).await;
    let after = Held::back_to(before).await;
    assert!(after.files <= before.files && after.tasks <= before.tasks, "{before:?} before, {after:?} after");

    let metrics = door.link.metrics();
    assert_eq!((metrics.sessions, metrics.bytes_held), (0, 0), "{metrics:?}");
    let seen: BTreeMap<&str, u64> = [
        ("accepted", metrics.accepted),
        ("sessions", metrics.handshakes_accepted),
        ("broken off", metrics.handshakes_failed + metrics.tls_failed),
    ]
    .into();
    assert_eq!(seen["accepted"], connections() + LANES * MOMENTS.len() as u64, "{seen:?}");
    assert!(seen["sessions"] >= connections() / 4 && seen["broken off"] >= connections() / 2, "{seen:?}");
    // All places are free again: the door lets in as many as ever.
    for lane in &lanes {
        assert_eq!(lane.dialler.link.metrics().sessions, 0);
        assert_eq!(soon(lane.dialler.link.dial(door.target())).await.unwrap().peer(), NodeId::of(door.key.public()));
    }
}
