//! The login at a relay, both ends of it: TLS, upgrade, the handshake of kind 3. Spec: link C.4, C.5.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rustls_pki_types::ServerName;
use sealtide_identity::{InviteSecret, NodeId, RelayHint};
use sealtide_wire::handshake::{
    Admission, Binding, CertificateCheck, CertificateFacts, CertificateRejected, Connection,
    HANDSHAKE_PAYLOAD_BYTES_MAX, HELLO_PAYLOAD_BYTES, HandshakeError, Initiator, LocalEnd, Proof, RelayLimits,
    RelayLogin, Responder, Step,
};
use tokio::time::{Instant, timeout};

use super::RELAY_PATH;
use super::proxies::Proxies;
use crate::clock::SystemEntropy;
use crate::framing::Framing;
use crate::http;
use crate::limits::{Gate, Limits, Place, Source};
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::{Pipe, Remote};
use crate::port::connect_to_relay;
use crate::proof::{ProofError, Workers};
use crate::stream::SecureStream;
use crate::tls;
use crate::websocket::End;

/// Stands for the port of a node behind a proxy, which tells none: an address needs one, and nobody dials this.
const UNKNOWN_PORT: u16 = 1;
/// What one handshake message may hold: RESPONSE and ESTABLISHED come together.
const MESSAGE_BYTES_MAX: usize = 40_000;

/// A relay shows any certificate: who it is, its node key proves. None is carried in a login.
struct NoCertificate;

impl CertificateCheck for NoCertificate {
    fn dates(&self, _der: &[u8]) -> Result<(u64, u64), CertificateRejected> {
        Err(CertificateRejected("a login carries none"))
    }
}

/// Where a `wss://` URL leads: host, port, HTTP path, which is `default_path` when the URL has none.
pub(crate) fn place_of(url: &str, default_path: &str) -> Option<(String, u16, String)> {
    let rest = url.strip_prefix("wss://")?;
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, format!("/{path}")),
        None => (rest, default_path.to_owned()),
    };
    let path = if path == "/" { default_path.to_owned() } else { path };
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, port) = bracketed.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map_or(Some(443), |port| port.parse().ok())?;
    Some((host.to_owned(), port, path))
}

/// Logs in at a relay, from the listening port where that is possible: the last value tells. Spec: link C.10.
/// With `bind0` the TLS ends in a proxy, whose certificate must be good for the name of the relay by an authority that this
/// node was told; there is no way from one bind to the other. Spec: link C.4.1.
// Spec: LK-19, LK-101
pub(crate) async fn log_in(
    node: &Arc<Node>,
    relay: &RelayHint,
    bind0: bool,
    token: Option<InviteSecret>,
) -> Result<(Path, RelayLogin, bool), ProofError> {
    let bad = |text: &str| PathError::Io(std::io::Error::other(text.to_owned()));
    let (host, port, http_path) =
        place_of(&relay.url, RELAY_PATH).ok_or_else(|| bad("the URL of the relay is malformed"))?;
    let deadline = Instant::now() + node.limits.handshake_deadline;
    let (tcp, listens) = connect_to_relay(node, &host, port, deadline).await.map_err(PathError::Connect)?;
    let address = tcp.peer_addr().map_err(PathError::Io)?;
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::IpAddress(ip.into()),
        Err(_) => ServerName::try_from(host.clone()).map_err(|_| bad("the host of the relay is no name"))?,
    };
    let mut stream = if bind0 {
        let roots = node.relay_roots.as_ref();
        let roots = roots.ok_or_else(|| bad("no authority is named that could vouch for the proxy of the relay"))?;
        let config = tls::outer_client_config(roots).map_err(|error| bad(&error.to_string()))?;
        SecureStream::connect_outer(Pipe::from(tcp), config, name).await.map_err(PathError::from)?
    } else {
        let config = tls::relay_client_config().map_err(|error| bad(&error.to_string()))?;
        SecureStream::connect_to(Pipe::from(tcp), config, name).await.map_err(PathError::from)?
    };
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let early = http::request_upgrade_at(&mut stream, &http_path, &authority).await.map_err(PathError::from)?;
    let connection = if bind0 { unbound(None) } else { stream.login_connection([0; 32], address)? };
    let own = node.credentials.current(node.clock.now()).certificate;
    let mut path = Path::over(stream, Remote::Direct(address), own, Framing::messages(End::Client), &early);

    // Nothing of this node is told to a relay but its id and what it can see anyway. Spec: LK-102
    let local = Arc::new(LocalEnd::new(node.key.clone(), CertificateFacts::new(Vec::new(), 0, 0)));
    let proof = token.map_or(Proof::Key, Proof::RelayToken);
    let (mut initiator, hello) = Initiator::start(local, relay.relay, proof, connection, None, &mut SystemEntropy);
    path.send(&[hello]).await?;
    loop {
        let next = path.frame(HANDSHAKE_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX);
        let frame = timeout(node.limits.hello_deadline, next).await.map_err(|_| ProofError::Silent)??;
        match initiator.handle(&frame, &path.stream, &NoCertificate)? {
            Step::Wait => {}
            Step::Send(frames) => path.send(&frames).await?,
            Step::LoggedIn { send, login } => {
                if !send.is_empty() {
                    path.send(&send).await?;
                }
                return Ok((path, *login, listens));
            }
            Step::Done { .. } => return Err(ProofError::NoAnswer),
        }
    }
}

/// What the door of a relay needs to let somebody in.
pub(super) struct Desk<'a> {
    pub(super) local: Arc<LocalEnd>,
    pub(super) granted: RelayLimits,
    pub(super) admission: &'a (dyn Admission + Send + Sync),
    pub(super) workers: &'a Workers,
    pub(super) limits: &'a Limits,
    /// Whether nodes come through a proxy that ends their TLS.
    pub(super) bind0: bool,
    pub(super) proxies: &'a Proxies,
    pub(super) gate: &'a Arc<Gate>,
    pub(super) limits_loopback: bool,
}

/// What a login with bind 0 is bound to.
fn unbound(remote: Option<SocketAddr>) -> Connection {
    Connection { binding: Binding::relay_without_channel(), remote }
}

/// The relay's end, from the TCP connection on.
pub(super) async fn answer(
    desk: &Desk<'_>,
    pipe: Pipe,
    address: SocketAddr,
    shown: crate::tls::Credentials,
    place: &Place,
) -> Result<(Path, RelayLogin, SocketAddr), ProofError> {
    let refused = |error| PathError::Io(std::io::Error::other(error));
    let mut stream = if desk.bind0 {
        let config = tls::outer_server_config(&shown.certificate).map_err(refused)?;
        SecureStream::accept_outer(pipe, config).await.map_err(PathError::from)?
    } else {
        let config = tls::relay_server_config(&shown.certificate).map_err(refused)?;
        SecureStream::accept(pipe, config).await.map_err(PathError::from)?
    };
    let answered = http::answer_with_headers(&mut stream, RELAY_PATH, true).await;
    let (headers, early) = answered.map_err(PathError::from)?;
    // Behind a proxy the source is whom the proxy speaks for: it has a place of its own from here on.
    let client = desk.proxies.client(address.ip(), &headers);
    let own_place =
        client.map(|client| desk.gate.enter(Source::of((client, UNKNOWN_PORT).into(), desk.limits_loopback)));
    let own_place = own_place.transpose().map_err(|_| ProofError::Busy)?;
    let (place, _until_evicted) = match &own_place {
        Some((place, evicted)) => (place, Some(evicted)),
        None => (place, None),
    };
    let address = client.map_or(address, |client| (client, UNKNOWN_PORT).into());
    let connection = if desk.bind0 {
        unbound(Some(address))
    } else {
        stream.login_connection(shown.certificate.fingerprint(), address)?
    };
    let framing = Framing::messages(End::Server);
    let mut path = Path::over(stream, Remote::Direct(address), shown.certificate, framing, &early);
    let mut responder = Responder::relay(desk.local.clone(), connection, desk.granted);
    let hello = path.frame(HELLO_PAYLOAD_BYTES, desk.limits.bytes_before_knock);
    let mut frame = timeout(desk.limits.hello_deadline, hello).await.map_err(|_| ProofError::Silent)??;
    if !responder.is_knock(&frame) {
        place.failed();
        return Err(HandshakeError::WrongKnock.into());
    }
    let late = place.knocked();
    tokio::time::sleep(late).await;
    loop {
        let turn = desk.workers.turn().await.ok_or(ProofError::Busy)?;
        let step = responder.handle(&frame, &path.stream, &NoCertificate, desk.admission, &mut SystemEntropy);
        drop(turn);
        match step {
            Ok(Step::Wait) => {}
            Ok(Step::Send(frames)) => path.send(&frames).await?,
            Ok(Step::LoggedIn { send, login }) => {
                place.proved();
                path.send(&send).await?;
                return Ok((path, *login, address));
            }
            Ok(Step::Done { .. }) => return Err(ProofError::NoAnswer),
            Err(error) => {
                if matches!(error, HandshakeError::BadProof { .. }) {
                    place.failed();
                }
                if let Some(reply) = error.reply() {
                    path.send(&[reply]).await?;
                    path.hang_up().await;
                }
                return Err(error.into());
            }
        }
        frame = path.frame(HANDSHAKE_PAYLOAD_BYTES_MAX, MESSAGE_BYTES_MAX).await?;
    }
}

/// Stands in for the id of the opener of a circuit where sources are counted.
pub(crate) fn source_address(opener: &NodeId) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&opener.as_bytes()[..8]);
    // Unique local: never the address of a host that dials.
    octets[0] = 0xfd;
    (IpAddr::from(octets), 1).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_host_port_and_path() {
        let place = |url| place_of(url, RELAY_PATH).unwrap();
        assert_eq!(place("wss://r.example"), ("r.example".to_owned(), 443, RELAY_PATH.to_owned()));
        assert_eq!(place("wss://r.example:8443/"), ("r.example".to_owned(), 8443, RELAY_PATH.to_owned()));
        assert_eq!(place("wss://[::1]:99/a/b"), ("::1".to_owned(), 99, "/a/b".to_owned()));
        assert_eq!(place_of("https://r.example", RELAY_PATH), None);
    }
}
