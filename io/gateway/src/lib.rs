//! The gateway door: HTTP and WebSocket for browsers and apps ([`Server`]), and a small one with health and figures alone
//! ([`Gateway`]).
//!
//! It knows HTTP and nothing of spaces or links: what it tells comes in as a [`Probe`], an [`App`], a [`Console`].

mod admin;
mod app;
mod body;
mod bundles;
mod connection;
mod console;
mod counts;
mod dashboard;
mod deflate;
mod extensions;
mod frames;
pub mod fuzzing;
mod handshake;
mod hear;
mod key_routes;
mod ladder;
pub mod lifecycle;
mod metrics;
mod passphrase;
mod patience;
mod peer;
mod principal;
mod rates;
mod refusal;
mod routes;
mod server;
mod session;
mod settings;
mod sign_in;
mod sign_in_routes;
mod spoken;
mod standing;
mod text;
mod tls;
mod token;
mod told;
mod tunnel;
mod uploads;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use app::{
    App, Bumped, DoorEvent, KeyAction, KeyChange, KeyDesk, KeyList, KeyOrder, ListedVersion, Notice, Question, Way,
};
pub use bundles::{BundleShelf, PAGE_MAX, ServedBundle};
pub use console::{Attachment, Call, Called, Calling, Console, Wanted};
pub use extensions::Deflate;
pub use frames::{Class, CloseCode, Event, FrameLimits, Receiver, Sender};
pub use handshake::{Caller, Facts, Grant, Head, Refusal, judge};
pub use ladder::{KeyFacts, Mismatch, Offer, Rung, Selected};
pub use metrics::{Sample, SampleKind, Spread};
pub use passphrase::Verifier;
pub use peer::{Peer, TwoForwardings, forwarded_client};
pub use principal::{Bearer, PassphraseHolder, Principal, Role, Unauthenticated};
pub use rates::{Bucket, Rate};
pub use refusal::Code;
pub use server::{Behind, Server};
pub use settings::{Auth, Door, ForwardedBy, Settings, SettingsError, TOKEN_TTL_MS_MAX};
pub use sign_in::{Begun, Holder, KeptSignIn, SignIns, cookie_value, principal_of};
pub use tls::{TlsError, TlsFiles};
pub use token::{Admission, AdmissionLimits, AdmitRefusal, Binding, Full, Purpose, TokenDigest, TokenRefusal};
pub use tunnel::{TunnelStream, Tunnels};
pub use uploads::{BundleTaker, Upload, UploadPlace};

/// What the door asks the node when somebody asks the door.
pub trait Probe: Send + Sync + 'static {
    /// Whether the node can do its work now; the reason when not.
    fn ready(&self) -> Result<(), String>;
    /// All figures, in the order in which they are shown.
    fn samples(&self) -> Vec<Sample>;
}

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The door serves plain HTTP, which stays on this machine.
    #[error("{0} is not a loopback address; the gateway door speaks plain HTTP and stays on this machine")]
    NotLoopback(SocketAddr),
    /// Settings that do not go together.
    #[error("{0}")]
    Settings(SettingsError),
    /// Certificate or key cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// An open door with `/healthz`, `/readyz` and `/metrics`; it closes when dropped.
pub struct Gateway {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Gateway {
    /// Opens the door at a loopback address; port 0 takes a free one.
    ///
    /// # Errors
    /// [`GatewayError`].
    pub async fn open(address: SocketAddr, probe: Arc<dyn Probe>) -> Result<Self, GatewayError> {
        if !address.ip().is_loopback() {
            return Err(GatewayError::NotLoopback(address));
        }
        let listen = |source| GatewayError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let service = router(probe).into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move {
            let closed = async {
                let _ = stopped.await;
            };
            let _ = axum::serve(listener, service).with_graceful_shutdown(closed).await;
        });
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn router(probe: Arc<dyn Probe>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(figures))
        .with_state(probe)
}

async fn ready(State(probe): State<Arc<dyn Probe>>) -> Response {
    match probe.ready() {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

/// Spec: link C.12, loopback peers only.
async fn figures(State(probe): State<Arc<dyn Probe>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !peer.ip().is_loopback() {
        return StatusCode::NOT_FOUND.into_response();
    }
    match metrics::encode(probe.samples()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Fixed(bool);

    impl Probe for Fixed {
        fn ready(&self) -> Result<(), String> {
            if self.0 { Ok(()) } else { Err("the store is closed".to_owned()) }
        }

        fn samples(&self) -> Vec<Sample> {
            vec![
                Sample::gauge("sealtide_sessions", "Open sessions", 2),
                Sample::counter("sealtide_link_bytes", "Bytes over links", 10).label("direction", "in"),
                Sample::counter("sealtide_link_bytes", "Bytes over links", 20).label("direction", "out"),
            ]
        }
    }

    async fn ask(probe: Fixed, path: &str) -> String {
        let gateway = Gateway::open("127.0.0.1:0".parse().unwrap(), Arc::new(probe)).await.unwrap();
        let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_and_readiness() {
        assert!(ask(Fixed(false), "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(Fixed(true), "/readyz").await.starts_with("HTTP/1.1 200"));
        let closed = ask(Fixed(false), "/readyz").await;
        assert!(closed.starts_with("HTTP/1.1 503") && closed.contains("the store is closed"), "{closed}");
        assert!(ask(Fixed(true), "/other").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let text = ask(Fixed(true), "/metrics").await;
        assert!(text.contains("application/openmetrics-text"), "{text}");
        assert!(text.contains("sealtide_sessions 2\n"), "{text}");
        assert!(text.contains("sealtide_link_bytes_total{direction=\"in\"} 10\n"), "{text}");
        assert_eq!(text.matches("# TYPE sealtide_link_bytes counter").count(), 1, "{text}");
        assert!(text.trim_end().ends_with("# EOF"), "{text}");
    }

    #[tokio::test]
    async fn the_door_stays_on_this_machine() {
        let opened = Gateway::open("0.0.0.0:0".parse().unwrap(), Arc::new(Fixed(true))).await;
        assert!(matches!(opened, Err(GatewayError::NotLoopback(_))));
    }
}
