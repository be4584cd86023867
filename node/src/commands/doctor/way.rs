//! The way to one place, step by step: name, proxy, TCP, TLS, inspection, upgrade, clock.

use std::net::IpAddr;
use std::time::Duration;

use sealtide_link::{GROUP_NAME, Probe, ProbeFailure};

use super::findings::{Findings, Verdict};
use crate::node::Node;
use crate::real;

/// How long a name may take to resolve.
const RESOLVING: Duration = Duration::from_secs(5);
/// A certificate begins this long before it was made.
const BEGINS_BEFORE_S: u64 = 300;

const NO_SERVER: &str = "is `sealtide up` running there? is the port open in the firewall?";
pub(super) const ASK_PROXY: &str = "ask who runs the proxy, or exempt this target with NO_PROXY or proxy.bypass";
const SWALLOWED: &str = "a firewall drops the connection, or the address is wrong";
const INSPECTED: &str = "a proxy opens TLS on the way; have this address exempted from inspection, or meet through a \
                         relay, which it cannot read";

/// A place to reach: a name or an address without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Place {
    /// `HOST:PORT`, `[V6]:PORT`; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = host.strip_prefix('[').map_or(Some(host), |rest| rest.strip_suffix(']'))?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let is_name = |host: &str| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        };
        (is_name(host) || host.parse::<IpAddr>().is_ok()).then(|| Self { host: host.to_owned(), port })
    }

    /// The host and port of a `wss://host[:port][/path]` URL.
    pub(super) fn of_url(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("wss://")?;
        let authority = rest.split('/').next()?;
        Self::parse(authority).or_else(|| Self::parse(&format!("{authority}:443")))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Looks at the way to a place as far as the upgrade; true when it was reached.
pub(super) async fn look(node: &Node, place: &Place, findings: &mut Findings) -> bool {
    if !named(node, place, findings).await {
        return false;
    }
    let probe = node.link().probe(&place.host, place.port).await;
    steps(place, &probe, real::now().wall_ms / 1000, findings);
    probe.upgraded.is_some()
}

/// Name and proxy; false when the name leads nowhere.
pub(super) async fn named(node: &Node, place: &Place, findings: &mut Findings) -> bool {
    let proxied = match node.link().proxy().proxy_for(&place.host, place.port) {
        Ok(Some(proxy)) => {
            let text = format!("{place} is dialled through {proxy} ({})", node.link().proxy().named_by());
            findings.ok("proxy", text);
            true
        }
        Ok(None) => false,
        Err(error) => {
            let text = format!("{} {error}", node.link().proxy().named_by());
            findings.add("proxy", Verdict::Fail, text, Some("correct it, or unset it to dial without a proxy"));
            return false;
        }
    };
    if proxied || place.host.parse::<IpAddr>().is_ok() {
        return true;
    }
    resolve(&place.host, findings).await
}

async fn resolve(host: &str, findings: &mut Findings) -> bool {
    let todo = Some("check the spelling, and that this machine has a working name server");
    match tokio::time::timeout(RESOLVING, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => {
            let found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
            findings.ok("dns", format!("{host} is {}", found.join(", ")));
            return true;
        }
        Ok(Err(error)) => findings.add("dns", Verdict::Fail, format!("{host} has no address: {error}"), todo),
        Err(_) => findings.add("dns", Verdict::Fail, format!("no answer about {host}"), todo),
    }
    false
}

/// The findings of a probe; `now_s` is the own clock, Unix seconds.
fn steps(place: &Place, probe: &Probe, now_s: u64, findings: &mut Findings) {
    let ms = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1000.0);
    match (probe.connected, &probe.failure) {
        (Some(took), _) => findings.ok("tcp", format!("{place} answers in {}", ms(took))),
        (None, Some(ProbeFailure::Proxy(text))) => {
            return findings.add("proxy", Verdict::Fail, text, Some(ASK_PROXY));
        }
        (None, Some(ProbeFailure::Connect(text))) => {
            let todo = if text.contains("in time") { SWALLOWED } else { NO_SERVER };
            return findings.add("tcp", Verdict::Fail, format!("{place}: {text}"), Some(todo));
        }
        (None, _) => {
            return findings.add("tcp", Verdict::Fail, format!("{place} does not answer"), Some(SWALLOWED));
        }
    }
    if let Some(ProbeFailure::Inspected { issuer }) = &probe.failure {
        let text = format!("TLS to {place} is opened on the way: its certificate was issued by {issuer:?}");
        return findings.add("inspection", Verdict::Fail, text, Some(INSPECTED));
    }
    let Some(took) = probe.secured else { return no_tls(place, probe, findings) };
    findings.ok("tls", format!("TLS 1.3 with {GROUP_NAME} in {}", ms(took)));
    findings.ok("inspection", "nobody opens TLS on the way: the certificate is the other end's own");
    clock(probe, now_s, findings);
    match (probe.upgraded, &probe.failure) {
        (Some(took), _) => findings.ok("upgrade", format!("a link door answers in {}", ms(took))),
        (None, failure) => {
            let text = failure.as_ref().map(ToString::to_string).unwrap_or_default();
            let todo = "something else than a link door answers there, or something on the way took this node's \
                        certificate away";
            findings.add("upgrade", Verdict::Fail, format!("{place}: {text}"), Some(todo));
        }
    }
}

fn no_tls(place: &Place, probe: &Probe, findings: &mut Findings) {
    let (text, todo) = match &probe.failure {
        Some(ProbeFailure::Group) => (
            format!("{place}: the key exchange there is not {GROUP_NAME}"),
            "update sealtide there, or something on the way opens TLS",
        ),
        Some(ProbeFailure::Silent) => (
            format!("{place} takes the connection and then says nothing"),
            "something on the way swallows what is not plain HTTPS, or another kind of server answers there",
        ),
        other => (
            format!("{place}: {}", other.as_ref().map(ToString::to_string).unwrap_or_default()),
            "no node answers there, or something on the way opens TLS and lacks its key exchange",
        ),
    };
    findings.add("tls", Verdict::Fail, text, Some(todo));
}

/// The other clock stands between 5 min after the begin of its certificate and its end.
fn clock(probe: &Probe, now_s: u64, findings: &mut Findings) {
    let Some((begins, ends)) = probe.valid_s else { return };
    let todo =
        Some("a day apart, two nodes sync no more, and stamps in records are wrong: set the clock that is wrong");
    let made = begins + BEGINS_BEFORE_S;
    if now_s + BEGINS_BEFORE_S < made {
        let text = format!("the clock here is at least {} s behind the one there", made - now_s);
        findings.add("clock", Verdict::Warn, text, todo);
    } else if now_s > ends {
        let text = format!("the clock here is at least {} s ahead of the one there", now_s - ends);
        findings.add("clock", Verdict::Warn, text, todo);
    } else {
        findings.ok("clock", "agrees with the certificate there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = |host: &str, port| Some(Place { host: host.to_owned(), port });
        assert_eq!(Place::parse("example.com:443"), place("example.com", 443));
        assert_eq!(Place::parse("[2001:db8::1]:7443"), place("2001:db8::1", 7443));
        assert_eq!(Place::of_url("wss://relay.example/st"), place("relay.example", 443));
        assert_eq!(Place::of_url("wss://[::1]:7444"), place("::1", 7444));
        for bad in ["", "peer", "a:0", "a:x", "a b:1", ":1", "2001:db8::1", "[::1:1"] {
            assert!(Place::parse(bad).is_none() || bad == "2001:db8::1", "{bad}");
        }
        assert_eq!(Place::of_url("https://relay.example"), None);
    }

    #[test]
    fn clocks_that_differ_are_seen_in_the_certificate() {
        let told = |now_s: u64| {
            let mut probe = Probe::default();
            probe.valid_s = Some((1_000_000, 1_086_700));
            let mut findings = Findings::default();
            clock(&probe, now_s, &mut findings);
            findings.document()["findings"][0]["result"].clone()
        };
        for (now_s, result) in
            [(0, "warn"), (999_999, "warn"), (1_000_000, "ok"), (1_086_700, "ok"), (1_086_701, "warn")]
        {
            assert_eq!(told(now_s), result, "{now_s}");
        }
    }
}
