//! The direct link between two nodes: listen, dial, TLS 1.3, WebSocket, and the task that keeps a session alive.
//!
//! ```text
//! Link ── listen ──▶ limits ─▶ stream (TLS) ─▶ path (upgrade, messages) ─▶ proof (handshake) ─▶ pump (session)
//!      └─ dial ──▶ many addresses up to the upgrade, one HELLO at a time ─▶ proof ─▶ pump
//! ```
//!
//! The protocol itself is pure and lives in `sealtide-wire`; here are its sockets, clocks and tasks. Each session has
//! one task, the only one that touches its sockets (`pump`, a `lane` for each path); handles share its state under a
//! mutex that is never held over a wait. Beside it runs the session's keeper, which has further paths dialled
//! (`attach`), and beside the node the rotation of its certificates. Nothing here touches a disk: whom to let in is asked through [`Admission`].

mod address;
mod attach;
mod backoff;
mod certificate;
mod channel;
mod clock;
mod connect;
mod dial;
mod eyeballs;
mod framing;
mod gather;
mod http;
mod inspection;
mod keeper;
mod lane;
mod limits;
mod link;
mod listen;
mod metrics;
mod node;
mod outgoing;
mod path;
mod pipe;
mod port;
mod probe;
mod proof;
mod proxy;
mod pump;
mod punch;
mod quiet_log;
mod registry;
mod relay;
mod roots;
mod rotation;
mod routes;
mod session;
mod stream;
mod tls;
mod tls_stream;
mod tunnel;
mod websocket;
mod yardstick;

pub use sealtide_wire::frame::ErrorCode;
pub use sealtide_wire::handshake::{Admission, Refused, Terms};
pub use sealtide_wire::padding::{Padding, padme};
pub use sealtide_wire::relay::{Admit, RelaySettings, RelayStats};
pub use sealtide_wire::session::{Fragment, PathPolicy, SessionLimits};

pub use address::ADDRESSES_MAX;
pub use backoff::Backoff;
pub use certificate::CertificateError;
pub use channel::{Channel, ChannelClosed, TrySendError};
pub use connect::{ConnectError, connect};
pub use dial::{DialError, DialTarget};
pub use http::{HEAD_BYTES_MAX, HEADERS_MAX, LINK_PATH};
pub use limits::Limits;
pub use link::{Link, LinkConfig};
pub use listen::ListenError;
pub use metrics::{LinkMetrics, LinkSample};
pub use pipe::Remote;
pub use probe::{Probe, ProbeFailure};
pub use proxy::{Credentials, Proxy, ProxyKind, ProxySettings, ProxyUrlError};
pub use registry::Reservation;
pub use relay::{Proxies, RELAY_PATH, Relay, RelayCheck, RelayConfig, RelayError, RelayState};
pub use roots::{Roots, RootsError};
pub use rotation::Ages;
pub use session::{ChannelOpenError, Session, SessionEnd, SessionInfo, WhyNotDirect};
pub use tls::{GROUP, GROUP_NAME};
pub use tls_stream::TlsStream;
pub use tunnel::TUNNEL_PATH;
pub use websocket::MESSAGE_BYTES_MAX;
pub use yardstick::PlainTls;
