//! `/st/v1/tunnel`: an upgrade for peers that reach this machine only over HTTPS. Who they are is proved inside; here
//! it is looked at what any request must be. Spec: link C.13, gateway §3 steps 1–7, 9 and 14.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::handshake::{Caller, Head, check_request, upgrade_key};
use crate::rates::Rate;
use crate::refusal::Code;
use crate::routes::accept_of;
use crate::settings::{Door, Settings, SettingsError};

/// The path of the tunnel.
pub(crate) const TUNNEL_PATH: &str = "/st/v1/tunnel";

/// The bytes behind the 101: WebSocket frames of the client.
pub type TunnelStream = TokioIo<Upgraded>;

/// Whoever takes tunnels.
pub trait Tunnels: Send + Sync + 'static {
    /// Takes one that was upgraded, of a client at this address, as far as the proxies in between can be trusted. Must
    /// not wait.
    fn open(&self, stream: TunnelStream, client: SocketAddr);
}

/// What every request for a tunnel shares.
pub(crate) struct TunnelDoor {
    door: Door,
    tunnels: Arc<dyn Tunnels>,
    upgrades: Rate,
    /// Upgrades under way; those that are done are counted by whoever takes them.
    places: Arc<Semaphore>,
    epoch: Instant,
}

impl TunnelDoor {
    pub(crate) fn new(
        settings: Settings,
        address: SocketAddr,
        tunnels: Arc<dyn Tunnels>,
    ) -> Result<Arc<Self>, SettingsError> {
        let (upgrades, places) = (Rate::new(settings.upgrades_per_second), Semaphore::new(settings.max_sessions));
        let door = Door::new(settings, address)?;
        Ok(Arc::new(Self { door, tunnels, upgrades, places: Arc::new(places), epoch: Instant::now() }))
    }

    /// Steps 1 to 7 and 9, and the origin of a page.
    fn judge(&self, tcp: SocketAddr, head: &Head<'_>) -> Result<(IpAddr, String), Code> {
        check_request(head)?;
        let caller = Caller::of(&self.door, tcp, head)?;
        let key = upgrade_key(head)?;
        if caller.origin.is_some() && !caller.origin_allowed {
            return Err(Code::OriginDenied);
        }
        let mono_ms = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let limited = self.door.limits(caller.peer.client, caller.peer.is_public);
        if limited && !self.upgrades.take(caller.peer.source(), mono_ms) {
            return Err(Code::RateLimited);
        }
        Ok((caller.peer.client, key))
    }
}

/// Answers one request for a tunnel at the door that has little else.
pub(crate) async fn tunnel(
    State(door): State<Arc<TunnelDoor>>,
    ConnectInfo(tcp): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    open(door, tcp, &mut request).map_or_else(
        |code| {
            let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            (status, [(header::CACHE_CONTROL, "no-store")], code.line()).into_response()
        },
        |answer| answer.map(|()| axum::body::Body::empty()),
    )
}

/// The 101 for a request for a tunnel; what follows it goes to whoever takes tunnels.
pub(crate) fn open<B>(
    door: Arc<TunnelDoor>,
    tcp: SocketAddr,
    request: &mut http::Request<B>,
) -> Result<http::Response<()>, Code> {
    let head =
        Head { method: request.method(), version: request.version(), uri: request.uri(), headers: request.headers() };
    let (client, key) = door.judge(tcp, &head)?;
    let accept = accept_of(&key).and_then(|accept| HeaderValue::from_str(&accept).ok()).ok_or(Code::WsKey)?;
    let place = door.places.clone().try_acquire_owned().map_err(|_| Code::Overload)?;
    let upgraded = hyper::upgrade::on(request);
    // The port of a client behind a proxy is not known.
    let client = if client == tcp.ip().to_canonical() { tcp } else { SocketAddr::new(client, 0) };
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            door.tunnels.open(TokioIo::new(upgraded), client);
        }
        drop(place);
    });
    let mut answer = http::Response::new(());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert("sec-websocket-accept", accept);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::{Gateway, Probe, Sample};

    struct Nothing;

    impl Probe for Nothing {
        fn ready(&self) -> Result<(), String> {
            Ok(())
        }

        fn samples(&self) -> Vec<Sample> {
            Vec::new()
        }
    }

    /// Sends back what comes.
    struct Mirror;

    impl Tunnels for Mirror {
        fn open(&self, stream: TunnelStream, _client: SocketAddr) {
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(stream);
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    }

    async fn door(tunnel: bool) -> Gateway {
        let settings = Settings { public_host: Some("tides.example".to_owned()), ..Settings::default() };
        let tunnels = tunnel.then(|| (settings, Arc::new(Mirror) as Arc<dyn Tunnels>));
        Gateway::open_with("127.0.0.1:0".parse().unwrap(), Arc::new(Nothing), tunnels).await.unwrap()
    }

    async fn ask(gateway: &Gateway, host: &str, more: &str) -> (u16, TcpStream) {
        let mut stream = TcpStream::connect(gateway.address()).await.unwrap();
        let request = format!("GET /st/v1/tunnel HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let status = std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap();
        (status, stream)
    }

    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

    #[tokio::test]
    async fn an_upgrade_gives_the_bytes_behind_it_to_whoever_takes_tunnels() {
        let gateway = door(true).await;
        for more in [UPGRADE.to_owned(), format!("{UPGRADE}Origin: https://tides.example\r\n")] {
            let (status, mut stream) = ask(&gateway, "tides.example", &more).await;
            assert_eq!(status, 101);
            stream.write_all(b"hello").await.unwrap();
            let mut back = [0; 5];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"hello");
        }
    }

    /// Keeps where tunnels come from.
    struct Book(tokio::sync::mpsc::UnboundedSender<SocketAddr>);

    impl Tunnels for Book {
        fn open(&self, _stream: TunnelStream, client: SocketAddr) {
            let _ = self.0.send(client);
        }
    }

    // Proves: LK-51
    #[tokio::test]
    async fn observed_addr_behind_a_proxy_is_what_a_trusted_one_says() {
        for (trusted, client) in [("127.0.0.1/32", "203.0.113.9"), ("198.51.100.7/32", "127.0.0.1")] {
            let mut settings = Settings { public_host: Some("tides.example".to_owned()), ..Settings::default() };
            settings.trusted_proxies.push(trusted.parse().unwrap());
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            let tunnels = Some((settings, Arc::new(Book(tell)) as Arc<dyn Tunnels>));
            let gateway = Gateway::open_with("127.0.0.1:0".parse().unwrap(), Arc::new(Nothing), tunnels).await.unwrap();
            let forwarded = format!("{UPGRADE}X-Forwarded-For: 203.0.113.9\r\n");
            let (status, _stream) = ask(&gateway, "tides.example", &forwarded).await;
            assert_eq!(status, 101);
            assert_eq!(told.recv().await.unwrap().ip().to_string(), client, "{trusted}");
        }
    }

    #[tokio::test]
    async fn other_hosts_pages_and_requests_are_refused() {
        let gateway = door(true).await;
        let foreign = format!("{UPGRADE}Origin: https://evil.example\r\n");
        assert_eq!(ask(&gateway, "evil.example", UPGRADE).await.0, Code::HostMismatch.status());
        assert_eq!(ask(&gateway, "tides.example", &foreign).await.0, Code::OriginDenied.status());
        assert_eq!(ask(&gateway, "tides.example", "").await.0, Code::UpgradeRequired.status());
        let short = UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=");
        assert_eq!(ask(&gateway, "tides.example", &short).await.0, Code::WsKey.status());
        let old = UPGRADE.replace("13", "8");
        assert_eq!(ask(&gateway, "tides.example", &old).await.0, Code::WsVersion.status());
        let body = format!("{UPGRADE}Content-Length: 1\r\n");
        assert_eq!(ask(&gateway, "tides.example", &body).await.0, Code::Body.status());
        assert_eq!(ask(&door(false).await, "tides.example", UPGRADE).await.0, 404, "no tunnel without its setting");
    }
}
