//! The HTTPS port of an operator: it ends TLS with a certificate of its own, passes the bytes on, and keeps what it read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use sealtide_crypto::Now;
use sealtide_link::PlainTls;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

#[derive(Default)]
struct State {
    target: Option<SocketAddr>,
    /// Everything that passed, as it lay inside the TLS, both ways.
    read: Vec<u8>,
}

/// It ends with its connections when this is dropped.
pub(crate) struct Https {
    port: u16,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

impl Https {
    /// Opens a free port; where it leads is said by [`Https::lead_to`].
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let wall_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
        let now = Now { mono_ms: 0, wall_ms: u64::try_from(wall_ms).unwrap() };
        let door = runtime.block_on(PlainTls::new(now)).unwrap();
        let port = door.address().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        runtime.spawn(serve(door, state.clone()));
        Self { port, state, _runtime: runtime }
    }

    /// Where new connections lead.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.state.lock().unwrap().target = Some(target);
    }

    /// The URL of a tunnel behind it.
    pub(crate) fn url(&self) -> String {
        format!("wss://localhost:{}", self.port)
    }

    /// Everything that passed, without the TLS that ends here.
    pub(crate) fn read(&self) -> Vec<u8> {
        self.state.lock().unwrap().read.clone()
    }
}

async fn serve(door: PlainTls, state: Arc<Mutex<State>>) {
    loop {
        // Who speaks no TLS is not served.
        let Ok(outer) = door.accept().await else { continue };
        let state = state.clone();
        tokio::spawn(async move {
            let target = state.lock().unwrap().target?;
            let inner = TcpStream::connect(target).await.ok()?;
            let ((from_client, to_client), (from_door, to_door)) = (tokio::io::split(outer), tokio::io::split(inner));
            // Both directions end with the first that does.
            tokio::select! {
                _ = pass(from_client, to_door, &state) => {}
                _ = pass(from_door, to_client, &state) => {}
            }
            Some(())
        });
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &Mutex<State>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        state.lock().unwrap().read.extend_from_slice(&bytes[..read]);
        to.write_all(&bytes[..read]).await?;
        to.flush().await?;
    }
}
