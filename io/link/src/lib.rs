//! The direct link between two nodes: listen, dial, TLS 1.3, WebSocket, and the task that keeps a session alive.
mod address;
mod backoff;
mod certificate;
mod clock;
mod http;
mod limits;
mod metrics;
mod quiet_log;
mod tls;
mod websocket;
