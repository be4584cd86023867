//! `gateway run` as the one process of a home: which commands it answers. A node answers all of them.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Desk;
use crate::api::Request;
use crate::audit::Audit;
use crate::commands;
use crate::failure::Failure;

/// The running gateway, as commands see it.
#[derive(Clone)]
pub struct GatewayHost {
    desk: Arc<Desk>,
    audit: Arc<Audit>,
    stop: watch::Sender<bool>,
}

impl GatewayHost {
    /// Of a desk whose audit this is; `stop` turns true when the gateway is asked to end.
    pub fn new(desk: Arc<Desk>, audit: Arc<Audit>, stop: watch::Sender<bool>) -> Self {
        Self { desk, audit, stop }
    }

    /// Keys and registry.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }

    /// The audit.
    pub fn audit(&self) -> &Arc<Audit> {
        &self.audit
    }

    /// Turns true when the gateway stops.
    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// Does what a request asks.
    ///
    /// # Errors
    /// A [`Failure`] with the exit code of the command; for commands that need a whole node, too.
    pub async fn execute(&self, request: Request) -> Result<Value, Failure> {
        match request {
            Request::Keys(request) => commands::keys::execute(self.desk.clone(), request).await,
            Request::AuditVerify => {
                let audit = self.audit.clone();
                let checked = tokio::task::spawn_blocking(move || commands::verify::audit_report(&audit)).await;
                checked.map_err(|error| Failure::failed("verify", error.to_string()))?
            }
            Request::AuditLines { before, since, limit, filter } => {
                let audit = self.audit.clone();
                let look = move || commands::verify::audit_lines(&audit, before, since, limit, &filter);
                let looked = tokio::task::spawn_blocking(look).await;
                looked.map_err(|error| Failure::failed("audit", error.to_string()))?
            }
            Request::AuditCheckpoints { since } => commands::verify::audit_checkpoints(&self.audit, since),
            Request::Down => {
                self.audit.note("down", &[]);
                self.stop.send_replace(true);
                Ok(json!({"schema": "sealtide/down/1", "stopped": true}))
            }
            _ => Err(Failure::failed(
                "gateway_only",
                "the gateway runs alone on this home and does not know this command",
            )
            .hint("`sealtide down` ends it; `sealtide up` does both")),
        }
    }
}
