//! The direct link between two nodes: listen, dial, TLS 1.3, WebSocket, and the task that keeps a session alive.
mod certificate;
mod http;
mod tls;
mod websocket;
