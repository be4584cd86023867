//! Addresses of link listeners: 20 bytes, and which of them may be dialled. Spec: link C.10.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an address on the wire and in tickets.
pub const ADDRESS_BYTES: usize = 20;
/// The most addresses of one node in a ticket, ESTABLISHED or ADDR_UPDATE.
pub const ADDRESS_COUNT_MAX: usize = 8;

/// An address of a link listener, 20 bytes on the wire: family, source, IPv4-mapped ip, port. Spec: link C.10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddress {
    /// Where it is known from: 1 interface, 2 relay-observed, 3 port mapping, 4 configured, 5 peer-observed.
    pub source: u8,
    /// The socket address; IPv4 stays IPv4 here.
    pub socket: SocketAddr,
}

/// How an address came to this node, which decides whether it may be dialled. Spec: LK-107.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnedFrom {
    /// A ticket that the user pasted.
    Ticket,
    /// ESTABLISHED or ADDR_UPDATE of a peer.
    Peer {
        /// Whether it came over a direct path whose remote address is itself loopback.
        over_loopback: bool,
    },
    /// A PUNCH frame.
    Punch,
}

impl LinkAddress {
    /// Known from an interface.
    pub const INTERFACE: u8 = 1;
    /// Known from a relay that saw it.
    pub const RELAY_OBSERVED: u8 = 2;
    /// Known from a port mapping.
    pub const PORT_MAPPING: u8 = 3;
    /// Configured: the listener is bound to it, or the user named it.
    pub const CONFIGURED: u8 = 4;
    /// Known from a peer that saw it.
    pub const PEER_OBSERVED: u8 = 5;

    /// The 20 bytes. An IPv4-mapped IPv6 address is written as the IPv4 address it stands for.
    pub fn to_bytes(&self) -> [u8; ADDRESS_BYTES] {
        let ip = self.socket.ip().to_canonical();
        let (family, octets) = match ip {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => (6, v6.octets()),
        };
        let mut bytes = [0; ADDRESS_BYTES];
        bytes[0] = family;
        bytes[1] = self.source;
        bytes[2..18].copy_from_slice(&octets);
        bytes[18..].copy_from_slice(&self.socket.port().to_be_bytes());
        bytes
    }

    /// Reads the 20 bytes strictly; `None` when malformed: unknown family or source, an IPv4 address that is not
    /// mapped, a mapped one that calls itself IPv6, or port 0.
    pub fn from_bytes(bytes: &[u8; ADDRESS_BYTES]) -> Option<Self> {
        let [family, source, rest @ ..] = *bytes;
        let (octets, port) = rest.split_first_chunk::<16>()?;
        let ip = Ipv6Addr::from(*octets);
        let ip = match (family, ip.to_ipv4_mapped()) {
            (4, Some(v4)) => IpAddr::V4(v4),
            (6, None) => IpAddr::V6(ip),
            _ => return None,
        };
        let port = u16::from_be_bytes(port.try_into().ok()?);
        if !(Self::INTERFACE..=Self::PEER_OBSERVED).contains(&source) || port == 0 {
            return None;
        }
        Some(Self { source, socket: SocketAddr::new(ip, port) })
    }

    /// Whether this node may dial the address. Public, private and unique-local addresses may be dialled; loopback
    /// only from a ticket or from a peer that is itself on this machine; ports below 1024 except 443 only when
    /// somebody configured them. Spec: link C.10, LK-107.
    pub fn may_be_dialled(&self, learned: LearnedFrom) -> bool {
        // Spec: LK-107
        let port = self.socket.port();
        if port == 0 || (port < 1024 && port != 443 && self.source != Self::CONFIGURED) {
            return false;
        }
        let ip = self.socket.ip().to_canonical();
        if ip.is_loopback() {
            return matches!(learned, LearnedFrom::Ticket | LearnedFrom::Peer { over_loopback: true });
        }
        match ip {
            IpAddr::V4(v4) => is_unicast_v4(v4),
            IpAddr::V6(v6) => is_unicast_v6(v6),
        }
    }
}

/// Everything but "this network", link-local, multicast, the reserved block and broadcast.
fn is_unicast_v4(ip: Ipv4Addr) -> bool {
    ip.octets()[0] != 0 && !ip.is_link_local() && ip.octets()[0] < 224
}

/// Global unicast 2000::/3 and unique local fc00::/7. Link-local needs a scope, which 20 bytes do not carry.
fn is_unicast_v6(ip: Ipv6Addr) -> bool {
    let first = ip.octets()[0];
    first & 0xE0 == 0x20 || first & 0xFE == 0xFC
}
