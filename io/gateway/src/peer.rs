//! Who is at the other end, behind proxies that are trusted and those that are not. Spec: gateway §3.1.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

use crate::settings::{Door, ForwardedBy};

/// Every header with which a proxy says for whom it asks.
const FORWARDING: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-by",
    "x-real-ip",
    "cf-connecting-ip",
];

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address that counts: for rates, bindings, the audit.
    pub client: IpAddr,
    /// Whether the TCP peer is a trusted proxy.
    pub is_proxy: bool,
    /// Whether rights that only this machine has are taken away.
    pub is_public: bool,
    /// A forwarding header of a peer that is not trusted: it said nothing.
    pub ignored: Option<&'static str>,
}

/// `Forwarded` and `X-Forwarded-For` at once from a trusted proxy: nobody can tell which is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoForwardings;

impl Peer {
    /// Classifies a request by the address of its TCP peer alone; only what a trusted one says is looked at.
    ///
    /// # Errors
    /// [`TwoForwardings`].
    // Spec: GW-16, GW-17
    pub fn of(door: &Door, tcp: SocketAddr, headers: &HeaderMap) -> Result<Self, TwoForwardings> {
        let tcp = plain(tcp.ip());
        let header = FORWARDING.into_iter().find(|name| headers.contains_key(*name)).or_else(|| {
            let other = headers.keys().any(|name: &HeaderName| name.as_str().starts_with("x-forwarded-"));
            other.then_some("x-forwarded-*")
        });
        let is_proxy = is_trusted(&door.settings.trusted_proxies, tcp);
        let is_public = door.is_public || header.is_some();
        if !is_proxy {
            return Ok(Self { client: tcp, is_proxy, is_public, ignored: header });
        }
        if headers.contains_key("forwarded") && headers.contains_key("x-forwarded-for") {
            return Err(TwoForwardings);
        }
        let trusted = &door.settings.trusted_proxies;
        let client = match door.settings.forwarded_by {
            ForwardedBy::XForwardedFor => walk(trusted, tcp, &lines(headers, "x-forwarded-for"), address),
            ForwardedBy::Forwarded => walk(trusted, tcp, &lines(headers, "forwarded"), forwarded_for),
            ForwardedBy::CfConnectingIp => {
                let mut values = headers.get_all("cf-connecting-ip").iter();
                let value = values.next().filter(|_| values.next().is_none());
                value.and_then(|value| address(value.to_str().ok()?.trim())).unwrap_or(tcp)
            }
        };
        Ok(Self { client, is_proxy, is_public, ignored: None })
    }

    /// What rates and bounds count by: a v4 address, or the /64 of a v6 one, of which anybody has 2^64 addresses.
    pub fn source(&self) -> [u8; 9] {
        source_of(self.client)
    }
}

/// As [`Peer::source`], of an address.
pub(crate) fn source_of(client: IpAddr) -> [u8; 9] {
    let mut source = [0; 9];
    match client {
        IpAddr::V4(v4) => source[1..5].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => {
            source[0] = 6;
            source[1..].copy_from_slice(&v6.octets()[..8]);
        }
    }
    source
}

/// For whom the TCP peer `tcp` speaks, by the lines of `X-Forwarded-For` that came over it; `None` when it is none of the
/// `trusted` proxies, whose word alone counts. For doors that are not this crate's.
pub fn forwarded_client(trusted: &[IpNet], tcp: IpAddr, lines: &[&str]) -> Option<IpAddr> {
    let tcp = plain(tcp);
    is_trusted(trusted, tcp).then(|| walk(trusted, tcp, lines, address))
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?")).collect()
}

/// From the right, over trusted hops, to the first address that is not; an entry that is none ends the walk.
fn walk(trusted: &[IpNet], tcp: IpAddr, lines: &[&str], read: fn(&str) -> Option<IpAddr>) -> IpAddr {
    let mut last_good = tcp;
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Some(found) = read(entry.trim()) else { return last_good };
        last_good = found;
        if !is_trusted(trusted, found) {
            return found;
        }
    }
    last_good
}

/// An address, v6 with or without brackets, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|found| found.ip());
    parsed.or_else(bracketed).or_else(with_port).map(plain)
}

/// The `for` of one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pair = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let value = pair.filter(|(name, _)| name.eq_ignore_ascii_case("for")).map(|(_, value)| value).next()?;
    address(value.strip_prefix('"').map_or(Some(value), |inner| inner.strip_suffix('"'))?)
}

fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// IPv4 in IPv6 clothes is IPv4.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}
