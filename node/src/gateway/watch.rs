//! What happens to keys without anybody asking: their date comes, or the daily look finds them old. Spec: gateway §7.9,
//! §7.10.

use std::collections::BTreeSet;

use sealtide_identity::NodeId;
use sealtide_identity::keyring::{Deadline, KeyVersion, Order, VersionState, parse_time};

use super::alerts::Fact;
use super::changes::Ordered;
use super::desk::Desk;
use crate::audit::AuditEvent;
use crate::real::now;

const DAY_MS: u64 = 86_400_000;
/// How long before its end a version is said to be deprecated, in milliseconds.
const DEPRECATE_MS: u64 = 7 * DAY_MS;
const HSL_WARNING: &str = "#FF8C00";

/// What was told today already.
#[derive(Default)]
pub(super) struct Told {
    day: Option<u64>,
    /// Lines of the audit that were lost until then.
    lost: u64,
    /// Signals that were followed or could not be; only supervisors can add one, one for each change.
    pub(super) signals: BTreeSet<(NodeId, [u8; 16])>,
}

impl Desk {
    /// Looks at everything that time alone changes. Cheap: called every second.
    // Spec: GW-55
    pub fn tick(&self) {
        let wall_ms = now().wall_ms;
        let due = self.read().ring.due(wall_ms);
        for version in due {
            let order = Ordered { order: Order::Retire(version), expect: None, by: "policy", reason: "its date came" };
            if let Err(refused) = self.order(&order) {
                tracing::error!(%version, %refused, "a version whose date came was not written down as expired");
            }
        }
        let v1_ends = self.read().ring.ledger().not_after(KeyVersion::V1);
        self.alert(&Fact::V1Ends(v1_ends.map(super::end_ms)));
        let lost = self.audit().write_errors() + self.lost_events();
        if std::mem::replace(&mut self.told().lost, lost) != lost {
            self.alert(&Fact::AuditGap);
        }
        let is_new_day = {
            let mut told = self.told();
            told.day.replace(wall_ms / DAY_MS) != Some(wall_ms / DAY_MS)
        };
        if is_new_day {
            self.daily(wall_ms);
        }
    }

    /// The daily look: it nudges, and rotates by itself only where the operator says so.
    fn daily(&self, wall_ms: u64) {
        let (prepared, active, age_ms, ends) = {
            let seen = self.read();
            let (ledger, tip) = (seen.ring.ledger(), seen.ring.ledger().tip());
            let higher = |(version, state): &(KeyVersion, VersionState)| {
                *version > tip.active() && *state == VersionState::Prepared
            };
            let prepared = ledger.versions().find(higher).map(|(version, _)| version);
            let since = parse_time(&tip.rotation_timestamp).unwrap_or(wall_ms);
            let ending = |(version, state): (KeyVersion, VersionState)| match ledger.not_after(version) {
                Some(Deadline::At(at)) if state == VersionState::VerifyOnly && wall_ms + DEPRECATE_MS >= at => {
                    Some((version, at))
                }
                _ => None,
            };
            let ends: Vec<(KeyVersion, u64)> = ledger.versions().filter_map(ending).collect();
            (prepared, tip.active(), wall_ms.saturating_sub(since), ends)
        };
        for (version, at) in ends {
            self.note_event(
                AuditEvent::new("key:deprecate", HSL_WARNING).member("version", version).member("notAfter", at),
            );
        }
        let days = self.settings.rotate_after_days;
        let is_old = days > 0 && age_ms >= days * DAY_MS;
        let Some(version) = prepared.or(is_old.then_some(active)) else { return };
        let reason = if is_old { "the active version is old" } else { "a higher version is prepared" };
        self.note_event(
            AuditEvent::new("key:rotation_nudge", HSL_WARNING).member("version", version).member("reason", reason),
        );
        if self.settings.auto_rotate && is_old && prepared.is_some() {
            let order = Order::Rotate { to: None, keep_until: None };
            let order = Ordered { order, expect: Some(active), by: "policy", reason };
            if let Err(refused) = self.order(&order) {
                tracing::error!(%refused, "the keys were not rotated by themselves");
            }
        }
    }
}
