//! Connections that leave from the port where this node listens. A translator that keeps one outer port for one inner
//! port then shows the listener where it shows the connection: what a relay sees is where peers may knock.
//! Spec: link C.10.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use crate::connect::{connect, resolve};
use crate::eyeballs;
use crate::node::Node;

/// How long a relay is tried from the listening port. Something on the way may stop that port alone.
const PATIENCE: Duration = Duration::from_secs(3);

/// Lets connections leave from the port of a listener. Set after the port was taken: another process that wants to
/// listen there is still told that it is in use.
pub(crate) fn share(listener: &TcpListener) {
    // Without it everything works but punching.
    #[cfg(unix)]
    let _not_here = SockRef::from(listener).set_reuse_port(true);
}

/// From where a connection to `remote` leaves when it shall leave from a listening port; none where no listener is
/// reached from outside over that family.
pub(crate) fn place(listeners: &[SocketAddr], remote: IpAddr) -> Option<SocketAddr> {
    let remote = remote.to_canonical();
    listeners.iter().find_map(|bound| {
        let ip = bound.ip().to_canonical();
        let from = match (bound.ip().is_unspecified(), remote) {
            (true, IpAddr::V4(_)) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (true, IpAddr::V6(_)) if bound.is_ipv6() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            // No translator stands before loopback.
            (false, _) if !ip.is_loopback() && ip.is_ipv4() == remote.is_ipv4() => ip,
            _ => return None,
        };
        Some(SocketAddr::new(from, bound.port()))
    })
}

/// Connects to `remote` from the local address `from`, which a listener has.
pub(crate) async fn connect_from(from: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    #[cfg(unix)]
    socket.set_reuseport(true)?;
    #[cfg(not(unix))]
    return Err(io::ErrorKind::Unsupported.into());
    #[cfg(unix)]
    {
        socket.bind(from)?;
        socket.connect(remote).await
    }
}

/// Connects to the door of a relay: from the listening port where that is possible, which the second value tells, else
/// as to any other host.
pub(crate) async fn connect_to_relay(
    node: &Node,
    host: &str,
    port: u16,
    deadline: Instant,
) -> io::Result<(TcpStream, bool)> {
    // What is told instead of what relays see needs no such connection.
    let straight = node.announce.is_empty() && matches!(node.proxy.proxy_for(host, port), Ok(None));
    let listeners = node.listeners().clone();
    if straight && !listeners.is_empty() {
        let found = async { connect_from_listener(&listeners, resolve(host, port).await?).await };
        if let Ok(Ok(tcp)) = timeout_at(deadline.min(Instant::now() + PATIENCE), found).await {
            return Ok((tcp, true));
        }
    }
    connect(host, port, &node.proxy, deadline).await.map(|tcp| (tcp, false))
}

/// Connects to one of `found` from the port of a listener.
async fn connect_from_listener(listeners: &[SocketAddr], mut found: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let from = |remote: SocketAddr| place(listeners, remote.ip());
    found.retain(|remote| from(*remote).is_some());
    let dial = |remote| async move { connect_from(from(remote).ok_or(io::ErrorKind::AddrNotAvailable)?, remote).await };
    eyeballs::first(found, dial).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eyeballs::tests::black_hole;
    use crate::listen;

    #[test]
    fn a_connection_leaves_from_a_listener_of_its_family_that_is_reached_from_outside() {
        let (four, six): (IpAddr, IpAddr) = ("198.51.100.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let from = |bound: &str, remote| place(&[bound.parse().unwrap()], remote).map(|from| from.to_string());
        assert_eq!(from("[::]:7443", four), Some("0.0.0.0:7443".to_owned()));
        assert_eq!(from("[::]:7443", six), Some("[::]:7443".to_owned()));
        assert_eq!(from("0.0.0.0:7443", four), Some("0.0.0.0:7443".to_owned()));
        assert_eq!(from("0.0.0.0:7443", six), None);
        assert_eq!(from("192.0.2.7:7443", four), Some("192.0.2.7:7443".to_owned()));
        assert_eq!(from("192.0.2.7:7443", six), None);
        assert_eq!(from("127.0.0.1:7443", four), None);
        assert_eq!(place(&[], four), None);
    }

    #[tokio::test]
    async fn a_port_is_shared_with_own_connections_and_with_no_second_listener() {
        let (door, bound) = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let (_other, there) = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let tcp = connect_from(bound, there).await.unwrap();
        assert_eq!(tcp.local_addr().unwrap(), bound);
        assert!(listen::bind(bound).is_err(), "the port is taken");
        // The listener still takes what comes.
        let dialled = TcpStream::connect(bound).await.unwrap();
        let (_accepted, remote) = door.accept().await.unwrap();
        assert_eq!(remote, dialled.local_addr().unwrap());
    }

    /// A name with one address that swallows, as an IPv6 that is announced and broken: the next one is taken.
    #[tokio::test]
    async fn a_relay_is_reached_from_the_listening_port_at_an_address_that_answers() {
        let (_door, bound) = listen::bind("0.0.0.0:0".parse().unwrap()).unwrap();
        let (silent, _kept) = black_hole().await;
        let (_other, there) = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        // The system gives up after two minutes.
        let within = Instant::now() + Duration::from_secs(60);
        let tcp = timeout_at(within, connect_from_listener(&[bound], vec![silent, there])).await.unwrap().unwrap();
        assert_eq!((tcp.local_addr().unwrap().port(), tcp.peer_addr().unwrap()), (bound.port(), there));
    }
}
