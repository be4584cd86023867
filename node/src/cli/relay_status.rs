//! `relay status`: what the relay of a home does now. The relay answers at a socket beside its home, to its own user only.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use sealtide_link::Relay;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::cli::Cx;
use crate::control::next_client;
use crate::failure::{Exit, Failure};
use crate::home::Home;

/// Bytes of one answer, at most.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// How long an answer may take: the relay has it in memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// The open socket; its file goes when this is dropped. Whoever connects is told everything and hung up on.
pub(super) struct StatusSocket {
    path: PathBuf,
}

impl StatusSocket {
    /// Opens the socket of `relay`; `facts` are what does not change while it runs.
    ///
    /// # Errors
    /// When the socket cannot be made, or when a relay runs on this home already.
    pub(super) fn open(home: &Home, relay: Relay, facts: Value) -> Result<Self, Failure> {
        let path = home.relay_socket();
        let failed = |error: std::io::Error| Failure::failed("relay_socket", format!("{}: {error}", path.display()));
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(Failure::failed("relay_runs", "a relay runs on this home already")
                .hint("`sealtide relay status` shows it"));
        }
        // Nobody answers there: it is left over.
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
        tokio::spawn(async move {
            loop {
                let mut stream = next_client(&listener).await;
                let _gone = stream.write_all(document(&facts, &relay).to_string().as_bytes()).await;
            }
        });
        Ok(Self { path })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn document(facts: &Value, relay: &Relay) -> Value {
    let stats = relay.stats();
    let mut document = json!({
        "schema": "sealtide/relay_status/1",
        "nodes": stats.nodes,
        "guests": stats.guests,
        "circuits": stats.circuits,
        "circuits_opened": stats.circuits_opened,
        "refused": stats.refused,
        "bytes_in": stats.bytes_in,
        "bytes_out": stats.bytes_out,
        "waiting_bytes": stats.waiting_bytes,
        "logins": stats.logins,
        "replaced": stats.replaced,
        "rate_delays": stats.rate_delays,
        "blocked": stats.blocked,
    });
    if let (Some(all), Some(facts)) = (document.as_object_mut(), facts.as_object()) {
        all.extend(facts.clone());
    }
    document
}

/// Asks the relay that runs on this home.
pub(super) async fn status(cx: &Cx) -> Result<u8, Failure> {
    let none = || {
        Failure::new(Exit::NoRoute, "no_relay", "no relay runs on this home").hint("`sealtide relay run` starts one")
    };
    let stream = UnixStream::connect(cx.home.relay_socket()).await.map_err(|_| none())?;
    let mut answer = Vec::new();
    let whole = timeout(PATIENCE, stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)).await;
    whole.map_err(|_| Failure::failed("relay_status", "the relay does not answer"))??;
    let shown = serde_json::from_slice(&answer)
        .map_err(|_| Failure::failed("relay_status", "what answers is no relay of this version"))?;
    cx.out.answer(&shown);
    Ok(0)
}
