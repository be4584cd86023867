//! A TCP proxy between two links that misbehaves by script: it delays, stalls, cuts, ends one direction, resets or
//! swallows, after so many bytes of one direction.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealtide_crypto::{Entropy, SeededEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// From whom bytes come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    Dialler,
    Listener,
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is read any more from this side, the connection stays.
    Stall(From),
    /// What comes from this side is taken and thrown away, the connection stays.
    Swallow(From),
    /// This side's direction ends in order, the other goes on.
    HalfClose(From),
    /// Both connections end in order.
    Cut,
    /// Both connections are reset.
    Reset,
}

/// When what happens: after `bytes` from `counted` have passed.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    pub counted: From,
    pub bytes: u64,
    pub fault: Fault,
}

impl Script {
    /// A fault after up to `bytes_max` bytes, chosen by the seed.
    pub fn seeded(seed: u64, bytes_max: u64) -> Self {
        let mut random = [0; 16];
        SeededEntropy::new(seed).fill(&mut random);
        let number = |at: usize| u64::from_be_bytes(random[at..at + 8].try_into().unwrap());
        let side = |bit: u64| if bit & 1 == 0 { From::Dialler } else { From::Listener };
        let kind = number(0);
        let fault = match kind % 5 {
            0 => Fault::Stall(side(kind >> 8)),
            1 => Fault::Swallow(side(kind >> 8)),
            2 => Fault::HalfClose(side(kind >> 8)),
            3 => Fault::Cut,
            _ => Fault::Reset,
        };
        Self { counted: side(kind >> 16), bytes: number(8) % bytes_max, fault }
    }
}

/// How a proxy treats its connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// One way; the bytes of a direction keep their order.
    pub delay: Duration,
    /// Of each socket; the system's own size when it is `None`.
    pub buffer_bytes: Option<u32>,
    /// What happens to the first connection; the later ones are left alone.
    pub script: Option<Script>,
}

/// A proxy on a port of loopback.
pub struct Chaos {
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
}

impl Chaos {
    pub async fn start(leads_to: SocketAddr, manner: Manner) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        small(&socket, manner);
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (passed, faults) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counters = (passed.clone(), faults.clone());
        tokio::spawn(async move {
            let mut script = manner.script;
            while let Ok((near, _)) = listener.accept().await {
                let socket = TcpSocket::new_v4().unwrap();
                small(&socket, manner);
                let Ok(far) = socket.connect(leads_to).await else { continue };
                between(near, far, manner.delay, script.take(), counters.clone());
            }
        });
        Self { address, passed, faults }
    }

    /// Bytes that went through, both ways.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Faults that have happened.
    pub fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }
}

fn small(socket: &TcpSocket, manner: Manner) {
    if let Some(bytes) = manner.buffer_bytes {
        socket.set_send_buffer_size(bytes).unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
    }
}

/// What the two directions of a connection share.
struct Shared {
    script: Mutex<Option<Script>>,
    /// The fault, once it has happened.
    happened: watch::Sender<Option<Fault>>,
    passed: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
}

impl Shared {
    /// Counts what came from a side; the fault, when it is time for it.
    fn count(&self, from: From, bytes: u64) {
        self.passed.fetch_add(bytes, Ordering::Relaxed);
        let mut script = self.script.lock().unwrap();
        let Some(waiting) = &mut *script else { return };
        if waiting.counted != from {
            return;
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        if waiting.bytes == 0 {
            self.faults.fetch_add(1, Ordering::Relaxed);
            self.happened.send_replace(script.take().map(|script| script.fault));
        }
    }
}

fn between(
    near: TcpStream,
    far: TcpStream,
    delay: Duration,
    script: Option<Script>,
    counters: (Arc<AtomicU64>, Arc<AtomicU64>),
) {
    for tcp in [&near, &far] {
        tcp.set_nodelay(true).unwrap();
    }
    let shared = Arc::new(Shared {
        script: Mutex::new(script),
        happened: watch::Sender::new(None),
        passed: counters.0,
        faults: counters.1,
    });
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::spawn(direction(From::Dialler, near_read, far_write, delay, shared.clone()));
    tokio::spawn(direction(From::Listener, far_read, near_write, delay, shared));
}

/// Forwards one direction until it, or the connection, ends.
async fn direction(
    from: From,
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    delay: Duration,
    shared: Arc<Shared>,
) {
    let (queue, mut waiting) = tokio::sync::mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let writing = tokio::spawn(async move {
        while let Some((when, bytes)) = waiting.recv().await {
            sleep_until(when).await;
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        write
    });
    let mut happened = shared.happened.subscribe();
    let mut bytes = vec![0; 16 * 1024];
    let mut swallows = false;
    loop {
        tokio::select! {
            biased;
            changed = happened.changed() => {
                let fault = *happened.borrow_and_update();
                match fault {
                    Some(Fault::Swallow(side)) if side == from => swallows = true,
                    Some(Fault::Stall(side)) if side == from => {
                        // For as long as the test runs.
                        std::future::pending::<()>().await;
                    }
                    Some(Fault::HalfClose(side)) if side == from => break,
                    Some(Fault::Cut) => break,
                    Some(Fault::Reset) => {
                        let _gone = read.as_ref().set_zero_linger();
                        writing.abort();
                        return;
                    }
                    _ if changed.is_err() => return,
                    _ => {}
                }
            }
            count = read.read(&mut bytes) => {
                let Ok(count) = count else { break };
                if count == 0 {
                    break;
                }
                if !swallows && queue.send((Instant::now() + delay, bytes[..count].to_vec())).await.is_err() {
                    break;
                }
                shared.count(from, count as u64);
            }
        }
    }
    drop(queue);
    if let Ok(mut write) = writing.await {
        let _gone = write.shutdown().await;
    }
}
