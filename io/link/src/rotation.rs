//! The certificates of this node follow each other: the next is told to every session before it is shown to anybody.
//! Spec: link C.7.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::node::Node;
use crate::session::Session;
use crate::tls::Credentials;

/// How often the sessions are asked whether they have acknowledged.
const LOOK: Duration = Duration::from_millis(100);
/// How often the wall clock is looked at.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);
/// The wait after a certificate could not be made.
const RETRY: Duration = Duration::from_secs(60);

/// How old things grow before they are renewed. Spec: link C.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ages {
    /// The greatest age of a path; a successor is made after nine tenths of it.
    pub path: Duration,
    /// The age at which a certificate gets its successor …
    pub certificate: Duration,
    /// … earlier or later by at most this, so that the nodes of a group do not renew together.
    pub certificate_spread: Duration,
    /// How long sessions may take to acknowledge the next certificate before it is shown all the same; less where the use of the old one
    /// ends before.
    pub certificate_grace: Duration,
}

impl Default for Ages {
    /// 60 min, 16 h ± 1 h, 30 min.
    fn default() -> Self {
        Self {
            path: Duration::from_secs(3600),
            certificate: Duration::from_secs(16 * 3600),
            certificate_spread: Duration::from_secs(3600),
            certificate_grace: Duration::from_secs(1800),
        }
    }
}

/// Runs beside the node until it stops.
pub(crate) async fn rotate(node: Arc<Node>) {
    tokio::select! {
        () = node.stopped() => {}
        () = renew(&node) => {}
    }
}

// Spec: LK-47
async fn renew(node: &Arc<Node>) {
    loop {
        loop {
            let now = node.clock.now();
            let wait = Duration::from_millis(node.credentials.renew_ms(now).saturating_sub(now.mono_ms));
            if wait.is_zero() {
                break;
            }
            sleep(wait.min(LOOK_AT_CLOCK)).await;
        }
        let now = node.clock.now();
        let next = match node.credentials.prepare(now) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!("link: the certificate could not be renewed: {error}");
                sleep(RETRY).await;
                continue;
            }
        };
        node.counters.certificates.add(1);
        let epoch = next.certificate.epoch();
        let shown_ms = node.credentials.switch_ms(now);
        loop {
            for session in node.registry.sessions() {
                announce(node, &session, &next).await;
            }
            let known = node.registry.sessions().iter().all(|session| session.knows_certificate(epoch));
            let left_ms = shown_ms.saturating_sub(node.clock.now().mono_ms);
            if known || left_ms == 0 {
                break;
            }
            sleep(LOOK.min(Duration::from_millis(left_ms))).await;
        }
        node.credentials.switch();
        tracing::info!(epoch, "link: certificate renewed");
    }
}

/// Tells the peer of the certificate that comes next, if it has not been told. For sessions that begin meanwhile.
pub(crate) async fn announce_next(node: &Arc<Node>, session: &Session) {
    let newest = node.credentials.newest();
    announce(node, session, &newest).await;
}

async fn announce(node: &Arc<Node>, session: &Session, next: &Credentials) {
    let (node, session, certificate) = (node.clone(), session.clone(), next.certificate.clone());
    let signed = tokio::task::spawn_blocking(move || {
        let facts = certificate.facts();
        session.announce(certificate.epoch(), |talk| talk.announce(&node.key, certificate.epoch(), &facts));
    });
    // A panic of the signer is its own; the peer learns the certificate in a full handshake then.
    let _ = signed.await;
}
