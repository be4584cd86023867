//! A peer that is revoked while it is sent to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::harness::{Node, node, soon, target};
use bytes::Bytes;
use sealtide_link::{DialError, Session, SessionEnd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Bytes that may stand in the receive buffer of the wire: they had arrived before.
const IN_FLIGHT_BYTES: u64 = 64 * 1024;

/// Forwards between a dialler and `to`, and counts what comes back from there. It stops taking that while told to.
struct Wire {
    address: SocketAddr,
    came_back: Arc<AtomicU64>,
    stopped: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    async fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (came_back, (stopped, mut still)) = (Arc::new(AtomicU64::new(0)), watch::channel(false));
        let counter = came_back.clone();
        let task = tokio::spawn(async move {
            let (near, _) = listener.accept().await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(16 * 1024).unwrap();
            let far: TcpStream = socket.connect(to).await.unwrap();
            let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
                (near.into_split(), far.into_split());
            let there = tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
            let mut buffer = vec![0; 16 * 1024];
            loop {
                still.wait_for(|stopped| !*stopped).await.unwrap();
                match far_read.read(&mut buffer).await {
                    Ok(length) if length > 0 => {
                        counter.fetch_add(length as u64, Ordering::Relaxed);
                        let _gone_already = near_write.write_all(&buffer[..length]).await;
                    }
                    _ => break,
                }
            }
            there.abort();
        });
        Self { address, came_back, stopped, task }
    }

    fn came_back(&self) -> u64 {
        self.came_back.load(Ordering::Relaxed)
    }
}

/// Sends without end, until the session is over.
fn flood(session: &Session) {
    let channel = session.open(7, "bulk").unwrap();
    tokio::spawn(async move { while channel.send(Bytes::from(vec![9; 200_000])).await.is_ok() {} });
}

/// Takes whatever comes.
fn take(session: &Session) {
    let session = session.clone();
    tokio::spawn(async move {
        let channel = session.accept_channel().await.unwrap();
        while let Ok(Some(message)) = channel.recv().await {
            channel.release(message.len() as u64);
        }
    });
}

async fn transfer() -> (Node, Node, Wire, Session, Session) {
    let (peer, revoker) = (node(1).await, node(2).await);
    peer.allow(&revoker);
    revoker.allow(&peer);
    let wire = Wire::to(revoker.address).await;
    let theirs = soon(peer.link.dial(target(revoker.id(), &[wire.address]))).await.unwrap();
    let ours = soon(revoker.link.accept()).await.unwrap();
    flood(&ours);
    take(&theirs);
    soon(async {
        while wire.came_back() < 4 << 20 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    (peer, revoker, wire, theirs, ours)
}

/// No byte to the peer after a second; a re-handshake is answered by REJECT 1, a full handshake by ERROR 3.
// Proves: LK-104
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_live() {
    for stubborn in [false, true] {
        let (peer, revoker, wire, theirs, ours) = transfer().await;
        // A stubborn peer takes nothing for a while, so that as much as possible waits for it.
        wire.stopped.send_replace(stubborn);
        if stubborn {
            sleep(Duration::from_millis(300)).await;
        }
        revoker.door.allowed.lock().unwrap().remove(&peer.id());
        revoker.link.revoke(&peer.id());
        let second = Instant::now() + Duration::from_secs(1);
        assert!(matches!(soon(ours.closed()).await, SessionEnd::Aborted { code: 3, .. }), "stubborn: {stubborn}");
        sleep_until(second + Duration::from_millis(50)).await;

        let (sent, came) = (revoker.link.metrics().bytes_sent, wire.came_back());
        wire.stopped.send_replace(false);
        soon(wire.task).await.unwrap();
        let late = wire.came_back.load(Ordering::Relaxed) - came;
        assert!(late <= if stubborn { IN_FLIGHT_BYTES } else { 0 }, "{late} bytes came after a second");
        assert_eq!(revoker.link.metrics().bytes_sent, sent);
        assert_eq!(revoker.link.metrics().sessions, 0);
        soon(theirs.closed()).await;
        let again = soon(peer.link.dial(revoker.target())).await.unwrap_err();
        assert_eq!(again, DialError::Refused, "stubborn: {stubborn}");
        // Cut off before it could read why, the peer tried to go on: REJECT 1, then ERROR 3.
        let metrics = revoker.link.metrics();
        assert_eq!(metrics.refused, 1 + metrics.rehandshakes_rejected, "each after its proof");
        assert!(!stubborn || metrics.rehandshakes_rejected == 1);
        assert_eq!(metrics.rehandshakes_accepted, 0);
    }
}
