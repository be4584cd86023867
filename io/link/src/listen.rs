//! The link door: accepts TCP, and lets through what proves itself. Spec: link C.2, C.12, C.13.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sealtide_wire::frame::FrameType;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::attach;
use crate::http::UpgradeError;
use crate::limits::{Place, Source, Turned};
use crate::node::Node;
use crate::path::{Path, PathError};
use crate::pipe::{Pipe, Remote};
use crate::port;
use crate::proof::{self, ProofError};
use crate::registry::Yield;
use crate::stream::SecureStream;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;
/// The pause after a failed accept, when the process is out of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why no listener could be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address is in use, not of this machine, or not permitted.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The link was shut down.
    #[error("the link is shut down")]
    Closed,
}

/// Opens the listener; `[::]` takes IPv4 too. Port 0 takes a free one.
pub(crate) fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        // Elsewhere this option lets another process take the port away.
        #[cfg(unix)]
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        port::share(&listener);
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    open().map_err(|source| ListenError::Bind { address, source })
}

/// Accepts until the link is shut down.
pub(crate) async fn serve(node: Arc<Node>, listener: TcpListener) {
    let mut stop = node.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((tcp, remote)) => {
                // The other half of a connection that this node makes at the same moment is not a stranger.
                if let Some(tcp) = node.punches.claim(tcp, remote) {
                    admit(&node, tcp, remote);
                }
            }
            Err(error) => {
                tracing::warn!("link: accepting a connection failed: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Gives the connection a place and a task, or drops it.
fn admit(node: &Arc<Node>, tcp: TcpStream, remote: SocketAddr) {
    node.counters.accepted.add(1);
    let source = Source::of(remote, node.limits_loopback);
    match node.gate.enter(source) {
        Ok((place, evicted)) => {
            tokio::spawn(greet(node.clone(), tcp.into(), Remote::Direct(remote), place, evicted));
        }
        Err(turned) => {
            node.counters.rejected_rate.add(1);
            let cause = match turned {
                Turned::Rate => "rate",
                Turned::Full => "full",
            };
            node.log.failure(cause, Remote::Direct(remote), &turned);
        }
    }
}

/// One pipe that a peer opened, from its begin to the session, within its deadline.
pub(crate) async fn greet(node: Arc<Node>, pipe: Pipe, remote: Remote, place: Place, evicted: oneshot::Receiver<()>) {
    let whole = timeout(node.limits.handshake_deadline, handshake(&node, pipe, remote, &place));
    tokio::select! {
        result = whole => match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed(&node, remote, &error),
            Err(_) => failed(&node, remote, &ProofError::Silent),
        },
        Ok(()) = evicted => node.counters.evicted.add(1),
        () = node.stopped() => {}
    }
}

async fn handshake(node: &Arc<Node>, pipe: Pipe, remote: Remote, place: &Place) -> Result<(), ProofError> {
    // Spec: LK-69
    if !node.policy.permits(remote.kind()) {
        return Err(ProofError::Policy);
    }
    let shown = node.credentials.current(node.clock.now());
    let stream = SecureStream::accept(pipe, shown.server.clone()).await.map_err(PathError::from)?;
    node.counters.tls_pq.add(1);
    let path = Path::answer(stream, remote, shown.certificate).await?;
    let (path, frame) = proof::first_frame(node, path).await?;
    if frame.first() == Some(&FrameType::RehandshakeRequest.code()) {
        return attach::respond(node, path, frame, place).await;
    }
    let proven = proof::respond(node, path, frame, place).await?;
    let opened = node.establish(proven).await?;
    if opened.is_new {
        node.hand_over(opened.session);
    }
    Ok(())
}

/// Counts and logs, one line per cause and second.
fn failed(node: &Node, remote: Remote, error: &ProofError) {
    let counters = &node.counters;
    let cause = match error {
        ProofError::Path(PathError::Upgrade(UpgradeError::NotFound)) => {
            counters.not_found.add(1);
            "not_found"
        }
        ProofError::Path(PathError::Secure(_)) => {
            counters.tls_failed.add(1);
            "tls"
        }
        ProofError::Busy => {
            counters.busy.add(1);
            "busy"
        }
        ProofError::Yield(Yield::Duplicate) => {
            counters.duplicates.add(1);
            "duplicate"
        }
        ProofError::Handshake(_) => {
            counters.handshakes_failed.add(1);
            "handshake"
        }
        ProofError::Rehandshake(_) => "rehandshake",
        _ => {
            counters.handshakes_failed.add(1);
            "other"
        }
    };
    node.log.failure(cause, remote, error);
}
