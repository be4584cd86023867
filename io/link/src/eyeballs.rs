//! A connection to one of several addresses: of a name that has some of each family, and a network that swallows one of
//! them. RFC 8305, "happy eyeballs".

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::sleep;

/// How long the address before has for itself.
const HEAD_START: Duration = Duration::from_millis(250);

/// Dials `addresses`, the families in turn: the next one when the one before has failed, or has not answered for a while.
/// The first that connects is taken, the others are dropped. Only the caller's deadline ends the wait for silent ones.
///
/// # Errors
/// The last failure, when all have failed.
pub(crate) async fn first<T, F>(addresses: Vec<SocketAddr>, dial: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut waiting = families_in_turn(addresses).into_iter();
    let mut dials = FuturesUnordered::new();
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no address to connect to");
    loop {
        match waiting.next() {
            Some(address) => dials.push(dial(address)),
            None if dials.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some(dialled) = dials.next() => match dialled {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = error,
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
        }
    }
}

/// In the order of the resolver, which knows what this machine prefers, but no two of one family while there is another.
fn families_in_turn(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let Some(preferred) = addresses.first().map(SocketAddr::is_ipv6) else { return addresses };
    let count = addresses.len();
    let (near, far): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let (mut near, mut far) = (near.into_iter(), far.into_iter());
    let mut turns = Vec::with_capacity(count);
    while turns.len() < count {
        turns.extend(near.next().into_iter().chain(far.next()));
    }
    turns
}

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::RefCell;
    use std::future::pending;

    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    /// An address of loopback that swallows: who connects hears nothing, as behind a broken IPv6. As long as the sockets live.
    pub(crate) async fn black_hole() -> (SocketAddr, (Socket, Vec<TcpStream>)) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // Nobody accepts: with a full queue the system drops what comes.
        let mut queue = Vec::new();
        while let Ok(connected) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            queue.push(connected.unwrap());
        }
        (address, (listener, queue))
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:1").parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_resolver_says_which_is_first() {
        let in_turn = |texts: &[&str]| families_in_turn(addresses(texts));
        assert_eq!(
            in_turn(&["[2001:db8::1]", "[2001:db8::2]", "[2001:db8::3]", "192.0.2.1"]),
            addresses(&["[2001:db8::1]", "192.0.2.1", "[2001:db8::2]", "[2001:db8::3]"])
        );
        assert_eq!(
            in_turn(&["192.0.2.1", "192.0.2.2", "[2001:db8::1]"]),
            addresses(&["192.0.2.1", "[2001:db8::1]", "192.0.2.2"])
        );
        assert_eq!(in_turn(&[]), []);
    }

    /// What comes of a dial is in the port: 1 swallows, 2 fails, 3 connects.
    #[tokio::test(start_paused = true)]
    async fn a_silent_address_holds_up_the_next_for_a_moment_and_a_failed_one_not_at_all() {
        let race = async |ports: &[u16]| {
            let began = tokio::time::Instant::now();
            let dialled = RefCell::new(Vec::new());
            let addresses = ports.iter().map(|port| SocketAddr::from(([192, 0, 2, 1], *port))).collect();
            let won = first(addresses, |address| {
                dialled.borrow_mut().push((address.port(), began.elapsed()));
                async move {
                    match address.port() {
                        1 => pending().await,
                        2 => Err(io::ErrorKind::ConnectionRefused.into()),
                        port => Ok(port),
                    }
                }
            });
            (won.await.map_err(|error| error.kind()), dialled.take())
        };
        let at = Duration::from_millis;
        assert_eq!(race(&[1, 3, 3]).await, (Ok(3), vec![(1, at(0)), (3, at(250))]));
        assert_eq!(race(&[2, 3]).await, (Ok(3), vec![(2, at(0)), (3, at(0))]));
        assert_eq!(race(&[1, 2, 3]).await, (Ok(3), vec![(1, at(0)), (2, at(250)), (3, at(250))]));
        assert_eq!(race(&[2, 2]).await.0, Err(io::ErrorKind::ConnectionRefused));
        assert_eq!(race(&[]).await.0, Err(io::ErrorKind::AddrNotAvailable));
    }
}
