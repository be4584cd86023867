//! A small proxy that harms: it forwards bytes between two nodes until told to cut, stall or swallow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to the bytes of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// They are forwarded.
    Fair,
    /// They stay where they are: writers fill up.
    Stalled,
    /// They are taken and lost, in the direction to the listener, or to the dialler.
    Swallowed { to_listener: bool, to_dialler: bool },
}

/// The proxy; it ends when this is dropped.
pub struct Chaos {
    pub address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    /// The weather, and the first connection that it does not concern.
    weather: watch::Sender<(Weather, u64)>,
    /// Connections with a smaller number than this are over, others may live.
    cut: watch::Sender<u64>,
    open: Arc<watch::Sender<bool>>,
    count: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Chaos {
    /// Leads nowhere yet.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, cut) = (watch::Sender::new((Weather::Fair, 0)), watch::Sender::new(0));
        let target = watch::Sender::new(None);
        let target_of = target.clone();
        let open = Arc::new(watch::Sender::new(true));
        let (count, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (weather_of, cut_of, open_of) = (weather.clone(), cut.clone(), open.clone());
        let (count_of, bytes_of) = (count.clone(), bytes.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if !*open_of.borrow() {
                    continue;
                }
                let Some(target) = *target_of.borrow() else { continue };
                let Ok(far) = TcpStream::connect(target).await else { continue };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let number = count_of.fetch_add(1, Ordering::Relaxed);
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                for (read, write, to_listener) in [(near_read, far_write, true), (far_read, near_write, false)] {
                    let (weather, mut cut) = (weather_of.subscribe(), cut_of.subscribe());
                    let bytes = bytes_of.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = forward(read, write, weather, number, to_listener, bytes) => {}
                            _ = cut.wait_for(|cut| *cut > number) => {}
                        }
                    });
                }
            }
        });
        Self { address, target, weather, cut, open, count, bytes, task }
    }

    /// Where connections lead to from now on.
    pub fn lead_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// For the connections that are there; later ones are in fair weather.
    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace((weather, self.connections()));
    }

    /// Ends every connection that is there.
    pub fn cut(&self) {
        self.cut.send_replace(self.count.load(Ordering::Relaxed));
    }

    /// Takes no connection while it is closed; those that are there stay.
    pub fn open(&self, open: bool) {
        self.open.send_replace(open);
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes forwarded so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
        self.cut.send_replace(u64::MAX);
    }
}

async fn forward(
    mut read: OwnedReadHalf,
    mut write: OwnedWriteHalf,
    mut weather: watch::Receiver<(Weather, u64)>,
    number: u64,
    to_listener: bool,
    count: Arc<AtomicU64>,
) {
    let mut buffer = vec![0; 64 * 1024];
    let moves = move |(weather, below): &(Weather, u64)| *weather != Weather::Stalled || number >= *below;
    loop {
        if weather.wait_for(moves).await.is_err() {
            return;
        }
        let Ok(length @ 1..) = read.read(&mut buffer).await else { return };
        if weather.wait_for(moves).await.is_err() {
            return;
        }
        let swallowed = match *weather.borrow() {
            (_, below) if number >= below => false,
            (Weather::Swallowed { to_listener: lost, .. }, _) if to_listener => lost,
            (Weather::Swallowed { to_dialler: lost, .. }, _) => lost,
            _ => false,
        };
        if !swallowed && write.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}
