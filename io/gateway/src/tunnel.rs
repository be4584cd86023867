//! `/st/v1/tunnel`: an upgrade for peers that reach this machine only over HTTPS. Who they are is proved inside; here
//! it is looked at what any request must be. Spec: link C.13, gateway §3 steps 1–7, 9 and 14.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderValue};
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
