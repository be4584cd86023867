//! How far a dial to one place gets, step by step, without saying who dials: for `doctor`.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::certificate::CertificateFacts;
use crate::connect::{ConnectError, connect};
use crate::http::{self, UpgradeError};
use crate::inspection::ForeignCertificate;
use crate::node::Node;
use crate::proxy::host_text;
use crate::stream::{SecureError, SecureStream};

/// How long the steps may take together.
const PATIENCE: Duration = Duration::from_secs(8);

/// How far it got. What is `None` was not reached, or failed: then `failure` says why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// How long TCP took, the proxy included.
    pub connected: Option<Duration>,
    /// How long TLS took.
    pub secured: Option<Duration>,
    /// How long the upgrade took.
    pub upgraded: Option<Duration>,
    /// From when to when the certificate there is valid, Unix seconds, by the clock of the other end.
    pub valid_s: Option<(u64, u64)>,
    /// Why the next step was not reached.
    pub failure: Option<ProbeFailure>,
}

/// Why a step failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// No TCP connection, for the reason in the text.
    #[error("{0}")]
    Connect(String),
    /// The proxy stands in the way.
    #[error("{0}")]
    Proxy(String),
    /// The certificate there was issued by somebody, which no node's is.
    #[error("the certificate there was issued by {issuer:?}, and a node's own never is")]
    Inspected {
        /// Who issued it; foreign text.
        issuer: String,
    },
    /// TLS came about in no way that links accept.
    #[error("{0}")]
    Tls(String),
    /// TLS came about with another key exchange.
    #[error("the key exchange there is not {}", crate::tls::GROUP_NAME)]
    Group,
    /// The upgrade was answered with this status.
    #[error("the upgrade was answered with status {status}")]
    Status {
        /// The HTTP status.
        status: u16,
    },
    /// The upgrade failed otherwise.
    #[error("{0}")]
    Upgrade(String),
    /// The time was up at this step.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
}

pub(crate) async fn probe(node: &Node, host: &str, port: u16) -> Probe {
    let mut probe = Probe::default();
    let deadline = Instant::now() + PATIENCE;
    let failure = timeout_at(deadline, steps(node, host, port, deadline, &mut probe)).await;
    probe.failure = failure.unwrap_or(Err(ProbeFailure::Silent)).err();
    probe
}

async fn steps(node: &Node, host: &str, port: u16, until: Instant, probe: &mut Probe) -> Result<(), ProbeFailure> {
    let began = Instant::now();
    let connected = connect(host, port, &node.proxy, until).await;
    let tcp = connected.map_err(|error| match ConnectError::of(&error) {
        Some(reason) if reason.is_of_the_proxy() => ProbeFailure::Proxy(error.to_string()),
        _ => ProbeFailure::Connect(error.to_string()),
    })?;
    probe.connected = Some(began.elapsed());

    let began = Instant::now();
    let shown = node.credentials.current(node.clock.now());
    let secured = SecureStream::connect(tcp.into(), shown.client).await;
    let mut stream = secured.map_err(|error| match error {
        SecureError::Group => ProbeFailure::Group,
        SecureError::Io(error) => match ForeignCertificate::issuer_in(&error) {
            Some(issuer) => ProbeFailure::Inspected { issuer },
            None => ProbeFailure::Tls(error.to_string()),
        },
    })?;
    probe.secured = Some(began.elapsed());
    let facts = stream.peer_certificate().and_then(|der| CertificateFacts::read(der).ok());
    probe.valid_s = facts.map(|facts| (facts.not_before_s, facts.not_after_s));

    let began = Instant::now();
    let upgraded = http::request_upgrade(&mut stream, &format!("{}:{port}", host_text(host))).await;
    upgraded.map_err(|error| match error {
        UpgradeError::Status { status } => ProbeFailure::Status { status },
        other => ProbeFailure::Upgrade(other.to_string()),
    })?;
    probe.upgraded = Some(began.elapsed());
    Ok(())
}
