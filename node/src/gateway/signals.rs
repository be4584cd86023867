//! Changes of keys that another node asks for, in a document of a space that both share. Spec: gateway §7.10.
//!
//! The signal is the document itself, under any name: `sealtide keys signal rotate … | sealtide put SPACE NAME` on the
//! supervisor's node. Everything else in a space is passed over.

use sealtide_identity::keyring::{KeyVersion, Order, RotationSignal, SignalAction, SignalIgnored};
use serde_json::Value;

use super::changes::Ordered;
use super::desk::Desk;
use crate::audit::AuditEvent;

/// The schema by which a signal is told from other documents.
pub(crate) const SIGNAL_SCHEMA: &str = "sealtide/rotation-signal/1";

impl Desk {
    /// Follows a signal of a supervisor; what it comes to, or why it is ignored, stands in the audit. Once: a change makes
    /// another epoch, and a signal that could not be followed is not tried again.
    // Spec: GW-58
    pub fn honour(&self, signal: &Value) {
        if self.settings.supervisors.is_empty() || signal["schema"] != SIGNAL_SCHEMA {
            return;
        }
        let read = {
            let state = self.read();
            RotationSignal::read(signal, state.ring.ledger(), &self.settings.supervisors)
                .map(|signal| (signal, state.ring.ledger().tip().active()))
        };
        match read {
            Ok((signal, active)) if self.is_fresh(&signal) => self.follow_signal(&signal, active),
            Ok(_) => {}
            // Those of before stay where they are, and are met again at each start.
            Err(SignalIgnored::Epoch { .. }) => {}
            Err(ignored) => self.note_event(
                AuditEvent::new("admin:denied", "#FF4500")
                    .member("action", "rotation-signal")
                    .member("reason", ignored),
            ),
        }
    }

    fn follow_signal(&self, signal: &RotationSignal, active: KeyVersion) {
        let order = match signal.action {
            SignalAction::Rotate => Order::Rotate { to: None, keep_until: None },
            SignalAction::Rollback => Order::Rollback,
        };
        let by = format!("signal:{}", signal.node);
        let ordered = Ordered { order, expect: Some(active), by: &by, reason: "" };
        if let Err(refused) = self.order(&ordered) {
            tracing::warn!(%refused, "the signal of a supervisor could not be followed");
        }
    }

    fn is_fresh(&self, signal: &RotationSignal) -> bool {
        self.told().signals.insert((signal.node, signal.nonce))
    }
}
