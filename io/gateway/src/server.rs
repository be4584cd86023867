//! The whole door: a listener, one task for each connection, what they share. Spec: gateway §3.
//!
//! hyper reads heads, within their bounds; what a head means is [`crate::judge`]'s and [`crate::routes`]'s.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sealtide_releases::Idempotency;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::body::DownloadPlace;
use crate::connection::{Connection, Silence, Tally, Times, stopped};
use crate::console::{self, Console};
use crate::counts::{Counted, Counts};
use crate::frames::{FrameLimits, Receiver, Sender};
use crate::handshake::Grant;
use crate::hear::{Hearing, Listener};
use crate::lifecycle::{Lives, Load, Phase};
use crate::patience::Patient;
use crate::rates::Rate;
use crate::refusal::Code;
use crate::session::{Broadcast, Echo, Session};
use crate::settings::{Door, Settings, SettingsError};
use crate::standing::Standing;
use crate::tls::Tls;
use crate::token::{Admission, AdmissionLimits};
use crate::told::{self, Seen};
use crate::tunnel::{TunnelDoor, Tunnels};
use crate::{GatewayError, Probe, routes};

/// Bytes of a request head. Spec: gateway §3 step 2.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of a request head.
const HEADERS_MAX: usize = 64;
/// TCP connections beyond the sessions: requests that are on their way.
const SPARE_CONNECTIONS: usize = 1_024;
/// Messages of others that wait for one session; a session that is further behind loses the oldest.
const BROADCASTS: usize = 256;
/// Bundles and files that are sent at once: each holds two pieces in memory while its reader takes its time.
const DOWNLOADS_MAX: usize = 512;
/// Tries of one source to sign in, each second.
const SIGN_IN_TRIES: u32 = 1;
/// How often tokens whose time is over are forgotten.
const SWEEP: Duration = Duration::from_secs(30);

/// What all requests share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) door: Arc<Door>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) probe: Arc<dyn Probe>,
    /// None for the echo.
    pub(crate) app: Option<Arc<dyn App>>,
    /// The node, for whoever signed in.
    pub(crate) console: Option<Arc<dyn Console>>,
    /// Sessions that watch the node.
    pub(crate) watchers: Arc<watch::Sender<usize>>,
    pub(crate) upgrades: Arc<Rate>,
    pub(crate) tokens: Arc<Rate>,
    pub(crate) requests: Arc<Rate>,
    pub(crate) sign_in_tries: Arc<Rate>,
    /// Places for bodies that are read from the disk as they are sent.
    downloads: Arc<Semaphore>,
    /// The one passphrase that is tried.
    pub(crate) passphrases: Arc<Semaphore>,
    pub(crate) others: broadcast::Sender<Broadcast>,
    /// Answers to bumps that had a key.
    pub(crate) answers: Arc<Mutex<Idempotency>>,
    /// The tunnel of a node, beside everything else.
    pub(crate) tunnel: Option<Arc<TunnelDoor>>,
    tls: Option<Arc<Tls>>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) lives: Arc<Lives>,
    /// The settings of now, for sessions that began under others.
    doors: watch::Receiver<Arc<Door>>,
    epoch: Instant,
    sessions: Arc<AtomicU64>,
    stop: watch::Receiver<bool>,
}

/// What stands behind a door.
#[derive(Clone, Default)]
pub struct Behind {
    /// Registry and keys; needed for everything but the echo.
    pub app: Option<Arc<dyn App>>,
    /// The node, for whoever signed in, with the pages of the dashboard.
    pub console: Option<Arc<dyn Console>>,
    /// `/st/v1/tunnel`, for whoever knows one of the hosts in these settings. Spec: link C.13.
    pub tunnels: Option<(Settings, Arc<dyn Tunnels>)>,
}

/// An open door; it closes when dropped, and its sessions with it.
pub struct Server {
    address: SocketAddr,
    has_tls: bool,
    admission: Arc<Admission>,
    current: watch::Sender<Arc<Shared>>,
    doors: watch::Sender<Arc<Door>>,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens the door, outside of loopback with TLS only; port 0 takes a free one. `app` is needed for everything but the
    /// echo.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn open(
        settings: Settings,
        address: SocketAddr,
        probe: Arc<dyn Probe>,
        app: Option<Arc<dyn App>>,
    ) -> Result<Self, GatewayError> {
        Self::open_with(settings, address, probe, Behind { app, ..Behind::default() }).await
    }

    /// As [`Server::open`], with all that may stand behind it.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn open_with(
        settings: Settings,
        address: SocketAddr,
        probe: Arc<dyn Probe>,
        behind: Behind,
    ) -> Result<Self, GatewayError> {
        let Behind { app, console, tunnels } = behind;
        // What the address forbids is said before anything listens on it.
        Door::new(settings.clone(), address)?;
        let tls = settings.tls.clone().map(Tls::open).transpose()?;
        let listen = |source| GatewayError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let tunnel = match tunnels {
            Some((own, tunnels)) => {
                Some(TunnelDoor::new(Settings { tls: settings.tls.clone(), ..own }, address, tunnels)?)
            }
            None => None,
        };
        let door = Arc::new(Door::new(settings, address)?);
        let limits = AdmissionLimits {
            token_ttl_ms: door.settings.ws_token_ttl_ms,
            tokens: door.settings.tokens_max,
            tokens_per_source: door.tokens_per_source(),
            sessions: door.settings.max_sessions,
            sessions_per_source: door.sessions_per_source(),
        };
        let (stop, stopped) = watch::channel(false);
        let (doors, door_of_now) = watch::channel(door.clone());
        let shared = Arc::new(Shared {
            admission: Arc::new(Admission::new(limits)),
            probe,
            app,
            console,
            watchers: Arc::new(watch::Sender::new(0)),
            upgrades: Arc::new(Rate::new(door.settings.upgrades_per_second)),
            tokens: Arc::new(Rate::new(door.settings.tokens_per_second)),
            requests: Arc::new(Rate::new(door.settings.requests_per_second)),
            sign_in_tries: Arc::new(Rate::new(SIGN_IN_TRIES)),
            downloads: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            passphrases: Arc::new(Semaphore::new(1)),
            others: broadcast::Sender::new(BROADCASTS),
            tunnel,
            tls: tls.map(Arc::new),
            answers: Arc::default(),
            counts: Arc::default(),
            seen: Arc::default(),
            lives: Arc::new(Lives::new(&mut routes::OsEntropy)),
            doors: door_of_now,
            epoch: Instant::now(),
            sessions: Arc::default(),
            stop: stopped,
            door,
        });
        let (admission, has_tls) = (shared.admission.clone(), shared.tls.is_some());
        if let Some(app) = shared.app.clone() {
            let kept = tokio::task::spawn_blocking(move || (app.kept_sign_ins(), app.wall_ms())).await;
            let (kept, wall_ms) = kept.unwrap_or_default();
            admission.sign_ins.restore(kept, shared.mono_ms(), wall_ms, shared.door.settings.sign_in_ttl_ms);
        }
        if let Some(notices) = shared.app.as_ref().and_then(|app| app.notices()) {
            tokio::spawn(crate::hear::pass_on(notices, shared.others.clone(), shared.stop.clone()));
        }
        if let Some(console) = shared.console.clone() {
            let watchers = shared.watchers.subscribe();
            tokio::spawn(console::pass_on(console, shared.others.clone(), watchers, shared.stop.clone()));
        }
        let (current, held) = watch::channel(shared.clone());
        tokio::spawn(accept(listener, held));
        tokio::spawn(sweep(shared));
        Ok(Self { address, has_tls, admission, current, doors, stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base of every address of it.
    pub fn url(&self) -> String {
        format!("{}://{}", if self.has_tls { "https" } else { "http" }, self.address)
    }

    /// Tokens that wait to be used, and open sessions.
    pub fn counts(&self) -> (usize, usize) {
        self.admission.counts()
    }

    /// Takes other settings for requests that come from here on, also on connections that are open: hosts, origins, proxies, bearers,
    /// times, sizes. A session keeps the times and sizes that it began with, as long as its holder is known. Bounds and rates stay
    /// as they were at the start, for they count over all connections.
    ///
    /// # Errors
    /// [`SettingsError`]; then the old ones stay.
    // Spec: GW-85
    pub fn reload(&self, settings: Settings) -> Result<(), SettingsError> {
        let door = Arc::new(Door::new(settings, self.address)?);
        self.current
            .send_modify(|current| *current = Arc::new(Shared { door: door.clone(), ..Shared::clone(current) }));
        // First for who comes, then for who is there: whoever is checked in between is checked by the new ones.
        self.doors.send_replace(door.clone());
        let _ = self.current.borrow().others.send(Broadcast::Settings(door));
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

impl From<SettingsError> for GatewayError {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::NotLoopback(address) => Self::NotLoopback(address),
            other => Self::Settings(other),
        }
    }
}

async fn accept(listener: TcpListener, current: watch::Receiver<Arc<Shared>>) {
    let (most, mut stop) = {
        let shared = current.borrow();
        (shared.door.settings.max_sessions, shared.stop.clone())
    };
    let places = Arc::new(Semaphore::new(most + SPARE_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&mut stop) => return,
        };
        let Ok((stream, peer)) = accepted else {
            // No descriptors left, most likely: others have to close first.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let current = current.clone();
        tokio::spawn(async move {
            serve(stream, peer, current, Arc::new(place)).await;
        });
    }
}

/// A place among the connections; an upgraded one keeps it.
pub(crate) type Place = Arc<tokio::sync::OwnedSemaphorePermit>;

/// The handshake, where there is TLS, and the requests behind it.
async fn serve(stream: TcpStream, peer: SocketAddr, current: watch::Receiver<Arc<Shared>>, place: Place) {
    let _ = stream.set_nodelay(true);
    let shared = current.borrow().clone();
    let patience = Duration::from_millis(shared.door.settings.idle_timeout_ms.max(1));
    let stream = Patient::new(stream, patience);
    let Some(config) = shared.tls.as_ref().map(|tls| tls.config()) else {
        return converse(stream, peer, current, place).await;
    };
    // Boxed: what a handshake needs is not kept by the connection.
    let shaken = Box::pin(TlsAcceptor::from(config).accept(stream));
    match timeout(shared.head_time(), shaken).await {
        Ok(Ok(stream)) => converse(stream, peer, current, place).await,
        Ok(Err(error)) => tracing::debug!(%peer, %error, "no TLS"),
        Err(_) => tracing::debug!(%peer, "the TLS handshake took too long"),
    }
}

/// The requests of a connection, each by the settings of its time.
async fn converse<S>(stream: S, peer: SocketAddr, current: watch::Receiver<Arc<Shared>>, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut stop, head_time) = {
        let shared = current.borrow();
        (shared.stop.clone(), shared.head_time())
    };
    let service = service_fn(move |request| {
        let shared = current.borrow().clone();
        routes::answer(shared, peer, request, place.clone())
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(head_time, connection).await;
        }
    }
}

/// Spec: gateway §4, "Bounds".
async fn sweep(shared: Arc<Shared>) {
    let mut stop = shared.stop.clone();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => shared.admission.sweep(shared.mono_ms()),
            () = stopped(&mut stop) => return,
        }
    }
}

impl Shared {
    /// How long a head may take to come, and a TLS handshake before it.
    fn head_time(&self) -> Duration {
        Duration::from_millis(self.door.settings.handshake_timeout_ms)
    }

    /// A place for one more body that is read from the disk.
    pub(crate) fn download(&self) -> Result<DownloadPlace, Code> {
        self.downloads.clone().try_acquire_owned().map_err(|_| Code::Overload)
    }

    /// Milliseconds of a clock that never steps.
    pub(crate) fn mono_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Serves a WebSocket whose token and place were taken.
    pub(crate) async fn talk(self: Arc<Self>, grant: Grant, upgraded: hyper::upgrade::Upgraded) {
        let (door, source) = (&self.door, grant.peer.source());
        let settings = &door.settings;
        let limits = FrameLimits {
            message_bytes: door.message_bytes_max(),
            fragments: door.fragments_max(),
            ratio: if settings.echo { usize::MAX } else { settings.inflate_max_ratio },
        };
        let limited = door.limits(grant.peer.client, grant.peer.is_public);
        let times = Times {
            ping: Duration::from_millis(settings.ping_interval_ms.max(1)),
            idle: Duration::from_millis(settings.idle_timeout_ms.max(1)),
            messages_per_second: if limited { settings.messages_per_second } else { 0 },
            epoch: self.epoch,
        };
        let (stream, stop) = (TokioIo::new(upgraded), self.stop.clone());
        let receiver = Receiver::new(limits, grant.deflate.is_some());
        match &self.app {
            None => {
                let sender = Sender::for_echo(grant.deflate);
                let tally = Tally::default();
                Connection { stream, receiver, sender, talk: Echo, times, hear: Silence, stop, tally }.run().await;
            }
            Some(app) => {
                let number = self.sessions.fetch_add(1, Ordering::Relaxed);
                self.lives.begin(number);
                let (began, protocol) = (self.mono_ms(), grant.selected.rung.to_string());
                let watchers = self.console.is_some().then(|| self.watchers.clone());
                let standing = Arc::new(Standing::new(door, &grant.principal, began, watchers));
                let talk = Session {
                    number,
                    counts: self.counts.clone(),
                    lives: self.lives.clone(),
                    door: door.clone(),
                    doors: self.doors.clone(),
                    app: app.clone(),
                    admission: self.admission.clone(),
                    others: self.others.clone(),
                    principal: grant.principal.clone(),
                    standing: standing.clone(),
                    binding: grant.binding.clone(),
                    rung: grant.selected.rung,
                    faults: Default::default(),
                    is_tense: false,
                };
                let listener = Listener {
                    number,
                    rung: grant.selected.rung,
                    standing,
                    lives: self.lives.clone(),
                    epoch: self.epoch,
                    app: app.clone(),
                    admission: self.admission.clone(),
                    grace: Duration::from_millis(settings.withdraw_grace_ms),
                };
                let hear = {
                    let others = self.others.subscribe();
                    Hearing::begin(listener, others, &self.doors.borrow().clone())
                };
                let sender =
                    Sender::new(grant.deflate, settings.compress_min_bytes).counting(self.counts.deflate.clone());
                let tally = Tally::default();
                let tally = Connection { stream, receiver, sender, talk, times, hear, stop, tally }.run().await;
                let now = self.mono_ms();
                self.lives.step(number, Phase::Evict, &Load::default(), now);
                if tally.is_bomb {
                    self.counts.add(Counted::InflateRejected, &[]);
                }
                if tally.is_fault {
                    app.note(told::broken(&protocol, &tally));
                }
                app.note(told::closed(&protocol, now.saturating_sub(began), &tally));
            }
        }
        self.admission.leave(source);
    }
}
