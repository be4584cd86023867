//! The link beside plain TLS: the same suite and group, the same machine, in turns. Prints figures and their ratio.
//!
//! `cargo bench -p sealtide-bench --profile dev --bench link [-- FILTER]`. Everything runs in one process over
//! loopback, both ends on the same cores, with the limits of a loopback listener.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark prints, or ends")]

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sealtide_bench::{median, processor_time, quantile, rate};
use sealtide_crypto::{Seed, SeededEntropy, SigningKey};
use sealtide_identity::{InviteId, InviteSecret, LinkAddress, NodeId};
use sealtide_link::{Admission, Channel, DialTarget, Link, LinkConfig, Refused, Session, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Bytes of one round, and rounds of each kind.
const ROUND_BYTES: u64 = 192 << 20;
const ROUNDS: usize = 7;
const HANDSHAKES: usize = 200;

fn main() {
    // `cargo test` runs benchmarks too; it wants no figures.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with("--")).cloned().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("link: one process, loopback, limits of a loopback listener, {ROUNDS} rounds in turns, medians");
    if "stream".contains(&filter) {
        runtime.block_on(streams());
    }
    if "throughput".contains(&filter) {
        runtime.block_on(throughput());
    }
    if "handshake".contains(&filter) {
        runtime.block_on(handshakes());
    }
}

// --- plain TLS ---

/// Configurations of a client and a server that trust each other, with the suite and the group of links.
fn configs() -> &'static (Arc<ClientConfig>, Arc<ServerConfig>) {
    static CONFIGS: OnceLock<(Arc<ClientConfig>, Arc<ServerConfig>)> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384],
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            ..aws_lc_rs::default_provider()
        });
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        (Arc::new(client), Arc::new(server))
    })
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await.unwrap().0 });
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    (client, server)
}

async fn plain_pair() -> (tokio_rustls::client::TlsStream<TcpStream>, tokio_rustls::server::TlsStream<TcpStream>) {
    let (client_config, server_config) = configs();
    let (client, server) = tcp_pair().await;
    let name = ServerName::try_from("localhost").unwrap();
    let (client, server) = tokio::join!(
        TlsConnector::from(client_config.clone()).connect(name, client),
        TlsAcceptor::from(server_config.clone()).accept(server)
    );
    (client.unwrap(), server.unwrap())
}

async fn our_pair() -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
    let (client, server) = plain_pair().await;
    let ((client, client_tls), (server, server_tls)) = (client.into_inner(), server.into_inner());
    (TlsStream::new(client, client_tls.into()), TlsStream::new(server, server_tls.into()))
}

/// What one round cost.
#[derive(Clone, Copy)]
struct Figure {
    mib_per_s: f64,
    /// Of both ends.
    processor_ms_per_gib: f64,
}

/// Measures from here to `end`.
struct Start(Instant, Duration);

impl Start {
    fn now() -> Self {
        Self(Instant::now(), processor_time())
    }

    fn end(&self, bytes: u64) -> Figure {
        let used = processor_time() - self.1;
        let gib = bytes as f64 / f64::from(1 << 30);
        Figure { mib_per_s: rate(bytes, self.0.elapsed()), processor_ms_per_gib: used.as_secs_f64() * 1000.0 / gib }
    }
}

/// The figure of writes of `size` bytes from `from` to `to`, each end a task.
async fn stream_rate<W, R>(mut from: W, mut to: R, size: usize) -> Figure
where
    W: AsyncWrite + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    let data = vec![7; size];
    let began = Start::now();
    let writer = tokio::spawn(async move {
        for _ in 0..ROUND_BYTES / size as u64 {
            from.write_all(&data).await.unwrap();
        }
        from.flush().await.unwrap();
        from
    });
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 256 * 1024];
        let mut left = ROUND_BYTES / size as u64 * size as u64;
        while left > 0 {
            left -= to.read(&mut buffer).await.unwrap() as u64;
        }
    });
    reader.await.unwrap();
    let figure = began.end(ROUND_BYTES);
    drop(writer.await.unwrap());
    figure
}

// Spec: LK-112
async fn streams() {
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (client, server) = plain_pair().await;
        plain.push(stream_rate(client, server, 64 * 1024).await);
        let (client, server) = our_pair().await;
        ours.push(stream_rate(client, server, 64 * 1024).await);
    }
    tell("TlsStream, writes of 64 KiB", &ours, "tokio-rustls", &plain);
}

/// The processor's ratio counts on a machine that has other things to do.
fn tell(what: &str, ours: &[Figure], other: &str, theirs: &[Figure]) {
    let speed = |figures: &[Figure]| median(&figures.iter().map(|figure| figure.mib_per_s).collect::<Vec<_>>());
    let cost = |figures: &[Figure]| median(&figures.iter().map(|f| f.processor_ms_per_gib).collect::<Vec<_>>());
    let ((a, b), (c, d)) = ((speed(ours), speed(theirs)), (cost(ours), cost(theirs)));
    println!("{what:<40} {a:6.0} MiB/s, {other} {b:6.0}: ratio {:.2}", a / b);
    println!("{:<40} {c:6.0} ms of processor per GiB, {other} {d:6.0}: ratio {:.2}", "", d / c);
}

// --- the link ---

struct Everyone;

impl Admission for Everyone {
    fn allowed(&self, _: &NodeId) -> bool {
        true
    }

    fn invite_secret(&self, _: &InviteId) -> Option<InviteSecret> {
        None
    }

    fn enrol(&self, _: &InviteId, _: &NodeId) -> Result<(), Refused> {
        Err(Refused)
    }
}

async fn node(seed: u64) -> (Link, SocketAddr) {
    let key = Arc::new(SigningKey::from_seed(&Seed::generate(&mut SeededEntropy::new(seed))));
    let id = NodeId::of(key.public());
    let link = Link::new(LinkConfig::new(key, id), Arc::new(Everyone)).unwrap();
    let address = link.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    (link, address)
}

async fn session(seed: u64) -> (Link, Link, Session, Session) {
    let ((a, _), (b, address)) = (node(seed).await, node(seed + 1).await);
    let addresses = vec![LinkAddress { source: 4, socket: address }];
    let ours = a.dial(DialTarget { node: b.id(), addresses, relays: Vec::new(), invite: None }).await.unwrap();
    let theirs = b.accept().await.unwrap();
    (a, b, ours, theirs)
}

/// The figure of messages of `size` bytes through one channel.
async fn link_rate(from: &Session, to: &Session, size: usize) -> Figure {
    let channel = from.open(7, "sts/1").unwrap();
    let message = Bytes::from(vec![7; size]);
    let count = ROUND_BYTES / size as u64;
    let began = Start::now();
    let sender = tokio::spawn(async move {
        for _ in 0..count {
            channel.send(message.clone()).await.unwrap();
        }
        channel.finish();
        channel
    });
    let other = to.accept_channel().await.unwrap();
    let receiver = tokio::spawn(async move {
        for _ in 0..count {
            take(&other).await;
        }
        other
    });
    let other = receiver.await.unwrap();
    let figure = began.end(count * size as u64);
    other.finish();
    drop(sender.await.unwrap());
    figure
}

async fn take(channel: &Channel) {
    let message = channel.recv().await.unwrap().unwrap();
    channel.release(message.len() as u64);
}

// Spec: LK-87
async fn throughput() {
    for (name, size) in [("64 KiB", 64 * 1024), ("1 MiB", 1 << 20)] {
        let (mut plain, mut up, mut down) = (Vec::new(), Vec::new(), Vec::new());
        let (_a, _b, ours, theirs) = session(1).await;
        for _ in 0..ROUNDS {
            let (client, server) = plain_pair().await;
            plain.push(stream_rate(client, server, size).await);
            up.push(link_rate(&ours, &theirs, size).await);
            down.push(link_rate(&theirs, &ours, size).await);
        }
        tell(&format!("session, dialler to listener, {name}"), &up, "tokio-rustls", &plain);
        tell(&format!("session, listener to dialler, {name}"), &down, "tokio-rustls", &plain);
    }
}

// Spec: LK-80, p50 at most 8 ms and p99 at most 20 ms
async fn handshakes() {
    let (door, address) = node(10).await;
    let addresses = vec![LinkAddress { source: 4, socket: address }];
    let (mut full, mut tls) = (Vec::new(), Vec::new());
    for round in 0..HANDSHAKES as u64 {
        let (dialler, _) = node(100 + round).await;
        let began = Instant::now();
        let session = dialler
            .dial(DialTarget { node: door.id(), addresses: addresses.clone(), relays: Vec::new(), invite: None })
            .await
            .unwrap();
        full.push(began.elapsed());
        session.close();
        dialler.shutdown().await;
        let began = Instant::now();
        drop(plain_pair().await);
        tls.push(began.elapsed());
    }
    for (what, times) in [("full handshake, TCP to session", full), ("plain TLS handshake", tls)] {
        let ms: Vec<f64> = times.iter().map(|time: &Duration| time.as_secs_f64() * 1000.0).collect();
        println!("{what:<44} p50 {:.2} ms   p99 {:.2} ms", median(&ms), quantile(&ms, 0.99));
    }
}
