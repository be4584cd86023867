//! One log line per cause and second, with the number of those left out. Spec: link C.12.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::pipe::Remote;

/// Lets one line per cause and second through. Causes are literals of ours, so the map is small.
#[derive(Debug, Default)]
pub(crate) struct QuietLog {
    causes: Mutex<BTreeMap<&'static str, (Instant, u64)>>,
    show_addresses: bool,
}

impl QuietLog {
    pub(crate) fn new(show_addresses: bool) -> Self {
        Self { show_addresses, ..Self::default() }
    }

    /// Logs that a connection failed, unless this cause was logged within the last second.
    pub(crate) fn failure(&self, cause: &'static str, remote: Remote, error: &dyn std::fmt::Display) {
        if let Some(left_out) = self.turn(cause) {
            let remote = self.remote(remote);
            tracing::info!(cause, remote, left_out, "link: {error}");
        }
    }

    /// The end of a path as logs may show it.
    pub(crate) fn remote(&self, remote: Remote) -> String {
        match remote {
            Remote::Direct(address) | Remote::Tunnel(address) => self.address(address),
            Remote::Relay { .. } => remote.to_string(),
        }
    }

    /// The address as logs may show it.
    pub(crate) fn address(&self, address: SocketAddr) -> String {
        if self.show_addresses { address.to_string() } else { masked(address) }
    }

    /// `Some(number left out)` when a line of this cause may be written now.
    fn turn(&self, cause: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut causes = self.causes.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match causes.get_mut(cause) {
            Some((last, left_out)) if now.duration_since(*last) < Duration::from_secs(1) => {
                *left_out += 1;
                None
            }
            Some((last, left_out)) => {
                *last = now;
                Some(std::mem::take(left_out))
            }
            None => {
                causes.insert(cause, (now, 0));
                Some(0)
            }
        }
    }
}

/// Family and first part only: enough to tell a home network from the internet.
fn masked(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) if ip.is_loopback() => "127.x.x.x".to_owned(),
        std::net::IpAddr::V4(ip) => format!("{}.x.x.x", ip.octets()[0]),
        std::net::IpAddr::V6(ip) => format!("{:x}:…", ip.segments()[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_per_cause_and_second() {
        let log = QuietLog::new(false);
        assert_eq!(log.turn("knock"), Some(0));
        assert_eq!(log.turn("knock"), None);
        assert_eq!(log.turn("knock"), None);
        assert_eq!(log.turn("tls"), Some(0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(log.turn("knock"), Some(2));
    }

    #[test]
    fn addresses_are_masked_unless_asked_for() {
        let address = "192.0.2.7:4040".parse().unwrap();
        assert_eq!(QuietLog::new(false).address(address), "192.x.x.x");
        assert_eq!(QuietLog::new(true).address(address), "192.0.2.7:4040");
        assert_eq!(masked("[::ffff:10.1.2.3]:1".parse().unwrap()), "10.x.x.x");
    }
}
