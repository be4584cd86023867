//! Which addresses this node tells, and in which order those of a peer are tried. Spec: link C.10.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sealtide_identity::{LearnedFrom, LinkAddress, RelayHint};
use sealtide_wire::handshake::AddressUpdate;

/// Addresses of one peer that are kept and dialled.
pub const ADDRESSES_MAX: usize = 8;

/// Known from an interface of this machine.
const SOURCE_INTERFACE: u8 = 1;
/// Named by whoever bound the listener.
const SOURCE_CONFIGURED: u8 = 4;
/// Seen as the remote address of a connection.
pub(crate) const SOURCE_OBSERVED: u8 = 5;

/// What a listener bound to `bound` tells its peers: a given address as it is, loopback included; the unspecified
/// address as those of the interfaces, without loopback and link-local ones.
// Spec: LK-107
pub(crate) fn announced(bound: SocketAddr) -> Vec<LinkAddress> {
    let ip = bound.ip().to_canonical();
    if !bound.ip().is_unspecified() {
        return vec![LinkAddress { source: SOURCE_CONFIGURED, socket: SocketAddr::new(ip, bound.port()) }];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<_> = interfaces
        .into_iter()
        .map(|interface| interface.ip())
        .filter(|ip| is_tellable(ip) && (ip.is_ipv4() || bound.is_ipv6()))
        .map(|ip| LinkAddress { source: SOURCE_INTERFACE, socket: SocketAddr::new(ip, bound.port()) })
        .collect();
    in_dial_order(&mut found);
    found
}

/// The addresses of the interfaces of this machine, loopback left out.
pub(crate) fn of_interfaces() -> BTreeSet<IpAddr> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().map(|interface| interface.ip()).filter(|ip| !ip.is_loopback()).collect()
}

/// Where a relay at `relay` says that it sees the listening port of this node, if that can be told to peers: nothing that
/// a peer would not dial, and a private address only from a relay in a private network.
// Spec: LK-24
pub(crate) fn observed_by_relay(observed: LinkAddress, relay: IpAddr) -> Option<LinkAddress> {
    let socket = SocketAddr::new(observed.socket.ip().to_canonical(), observed.socket.port());
    let seen = LinkAddress { source: LinkAddress::RELAY_OBSERVED, socket };
    let believed = is_local(relay) || !is_local(socket.ip());
    (believed && seen.may_be_dialled(LearnedFrom::Punch)).then_some(seen)
}

/// Sorts as dialled: local networks before the internet, in each IPv6 before IPv4; drops doubles, what cannot be
/// dialled, and what exceeds [`ADDRESSES_MAX`]. Equal ranks keep their order.
// Spec: LK-110
pub(crate) fn in_dial_order(addresses: &mut Vec<LinkAddress>) {
    let mut seen = BTreeSet::new();
    addresses.retain(|address| is_dialable(&address.socket) && seen.insert(address.socket));
    addresses.sort_by_key(|address| (!is_local(address.socket.ip()), address.socket.is_ipv4()));
    addresses.truncate(ADDRESSES_MAX);
}

/// The addresses of a peer after a handshake: those it told, then where it was met, if directly, with the port it
/// listens on.
pub(crate) fn of_peer(told: &[LinkAddress], met: Option<SocketAddr>) -> Vec<LinkAddress> {
    let mut all = told.to_vec();
    if let (Some(first), Some(met)) = (told.first(), met) {
        let socket = SocketAddr::new(met.ip().to_canonical(), first.socket.port());
        all.push(LinkAddress { source: SOURCE_OBSERVED, socket });
    }
    in_dial_order(&mut all);
    all
}

/// What ADDR_UPDATE says.
pub(crate) fn read_update(payload: &[u8]) -> Result<(Vec<LinkAddress>, Vec<RelayHint>), &'static str> {
    AddressUpdate::read(payload).map(|update| (update.addresses, update.relays))
}

fn is_dialable(socket: &SocketAddr) -> bool {
    socket.port() != 0 && !socket.ip().is_unspecified() && !socket.ip().is_multicast() && !is_broadcast(socket.ip())
}

fn is_broadcast(ip: IpAddr) -> bool {
    ip == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// An interface address that means something to others. Link-local ones need a scope that the format has not.
fn is_tellable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(four) => !four.is_loopback() && !four.is_link_local() && !four.is_unspecified(),
        IpAddr::V6(six) => !six.is_loopback() && !six.is_unicast_link_local() && !six.is_unspecified(),
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(four) => four.is_private() || four.is_loopback() || four.is_link_local(),
        IpAddr::V6(six) => six == Ipv6Addr::LOCALHOST || six.is_unique_local() || six.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> LinkAddress {
        LinkAddress { source: SOURCE_CONFIGURED, socket: text.parse().unwrap() }
    }

    // Proves: LK-107
    #[test]
    fn loopback_addr_of_a_bound_listener_is_told_as_bound() {
        assert_eq!(announced("127.0.0.1:7443".parse().unwrap()), [told("127.0.0.1:7443")]);
        assert_eq!(announced("[::1]:7443".parse().unwrap()), [told("[::1]:7443")]);
    }

    #[test]
    fn unspecified_listener_tells_interfaces_without_loopback() {
        for bound in ["0.0.0.0:99", "[::]:99"] {
            for address in announced(bound.parse().unwrap()) {
                assert_eq!(address.source, SOURCE_INTERFACE);
                assert_eq!(address.socket.port(), 99);
                assert!(is_tellable(&address.socket.ip()), "{address:?}");
            }
        }
    }

    // Proves: LK-52, LK-110
    #[test]
    fn dial_order_is_local_first_then_ipv6_and_bounded() {
        let mut all: Vec<_> = [
            "203.0.113.5:1",
            "[2001:db8::5]:1",
            "192.168.1.2:1",
            "[fd00::2]:1",
            "203.0.113.5:1",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "198.51.100.1:0",
        ]
        .map(told)
        .to_vec();
        in_dial_order(&mut all);
        assert_eq!(all, ["[fd00::2]:1", "192.168.1.2:1", "[2001:db8::5]:1", "203.0.113.5:1"].map(told));
        let mut many: Vec<_> = (1..40).map(|n| told(&format!("203.0.113.{n}:1"))).collect();
        in_dial_order(&mut many);
        assert_eq!(many.len(), ADDRESSES_MAX);
    }

    // Proves: LK-24
    #[test]
    fn evil_observed_addresses_are_not_told() {
        let seen = |observed: &str, relay: &str| {
            let observed = LinkAddress { source: LinkAddress::RELAY_OBSERVED, socket: observed.parse().unwrap() };
            observed_by_relay(observed, relay.parse().unwrap()).map(|told| told.socket.to_string())
        };
        let (public, private) = ("198.51.100.1", "10.0.0.1");
        // Proves: LK-51
        assert_eq!(seen("203.0.113.2:7443", public), Some("203.0.113.2:7443".to_owned()));
        assert_eq!(seen("[::ffff:203.0.113.2]:7443", public), Some("203.0.113.2:7443".to_owned()));
        assert_eq!(seen("[2001:db8::2]:7443", public), Some("[2001:db8::2]:7443".to_owned()));
        assert_eq!(seen("10.0.0.9:7443", private), Some("10.0.0.9:7443".to_owned()), "both in one network");
        for bad in ["127.0.0.1:7443", "[::1]:7443", "224.0.0.1:7443", "10.0.0.9:7443", "203.0.113.2:25"] {
            assert_eq!(seen(bad, public), None, "{bad}");
        }
        assert_eq!(seen("127.0.0.1:7443", private), None, "never loopback");
    }

    #[test]
    fn where_a_peer_was_met_joins_what_it_told() {
        let found = of_peer(&[told("203.0.113.5:7443")], "[::ffff:198.51.100.9]:50000".parse().ok());
        let met = LinkAddress { source: SOURCE_OBSERVED, socket: "198.51.100.9:7443".parse().unwrap() };
        assert_eq!(found, [told("203.0.113.5:7443"), met]);
        assert!(of_peer(&[], "198.51.100.9:50000".parse().ok()).is_empty(), "no port is known");
        assert_eq!(of_peer(&[told("203.0.113.5:7443")], None), [told("203.0.113.5:7443")], "met through a relay");
    }
}
