//! Proxies that stand in front of a relay, and for whom they speak.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

/// Tells for whom a TCP peer speaks, given its address and the lines of `X-Forwarded-For`; `None` when it is no proxy that is
/// trusted.
type Client = dyn Fn(IpAddr, &[&str]) -> Option<IpAddr> + Send + Sync;

/// Which proxies are believed. By default none.
#[derive(Clone, Default)]
pub struct Proxies(Option<Arc<Client>>);

impl Proxies {
    /// `client` decides, given the address of a TCP peer and the lines of `X-Forwarded-For` that came over it.
    pub fn new(client: impl Fn(IpAddr, &[&str]) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(client)))
    }

    /// For whom `peer` speaks.
    // Spec: LK-51
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        let told = self.0.as_ref()?;
        let lines: Vec<_> =
            headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or("?")).collect();
        told(peer.to_canonical(), &lines)
    }

    /// Whether `peer` is a proxy that is believed.
    pub(super) fn trust(&self, peer: IpAddr) -> bool {
        self.0.as_ref().is_some_and(|told| told(peer.to_canonical(), &[]).is_some())
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Proxies(some)" } else { "Proxies(none)" })
    }
}
