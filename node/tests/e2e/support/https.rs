//! The HTTPS port of an operator: it ends TLS with a certificate of its own, passes the bytes on, and keeps what it read.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

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
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::<Mutex<State>>::default();
        runtime.spawn(serve(listener, acceptor(), state.clone()));
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

fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), state.clone());
        tokio::spawn(async move {
            let target = state.lock().unwrap().target?;
            let outer = acceptor.accept(tcp).await.ok()?;
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
