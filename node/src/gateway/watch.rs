//! What happens to keys without anybody asking: their date comes, or the daily look finds them old. Spec: gateway §7.9,
//! §7.10.

use std::collections::{BTreeMap, BTreeSet};

use sealtide_crypto::Now;
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

/// How far the clock may move otherwise than time passes, from one look to the next.
const STEADY_MS: u64 = 10_000;
/// How long a date is over before that is written down for good, where it did not come by the passing of time.
const SURE_MS: u64 = 3_600_000;

/// Dates that came. A clock that is ahead for a while, at a start or because somebody set it, must end no version for good; what
/// it signed counts no more as long as the clock says so.
#[derive(Default)]
struct Dates {
    /// The look before.
    seen: Option<Now>,
    /// Versions whose date is over, and from when on that is sure, on the monotonic clock.
    over: BTreeMap<KeyVersion, u64>,
}

impl Dates {
    /// Those of the versions whose date is over that are written down as expired.
    fn sure(&mut self, now: Now, due: &[KeyVersion]) -> Vec<KeyVersion> {
        let steady = |before: Now| {
            let (wall, mono) = (now.wall_ms.checked_sub(before.wall_ms), now.mono_ms - before.mono_ms);
            wall.is_some_and(|wall| wall.abs_diff(mono) <= STEADY_MS)
        };
        let is_steady = self.seen.replace(now).is_some_and(steady);
        self.over.retain(|version, _| due.contains(version));
        for version in due {
            self.over.entry(*version).or_insert(now.mono_ms + if is_steady { 0 } else { SURE_MS });
        }
        self.over.iter().filter(|(_, from_ms)| **from_ms <= now.mono_ms).map(|(version, _)| *version).collect()
    }
}

/// What was told today already.
#[derive(Default)]
pub(super) struct Told {
    dates: Dates,
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
        let sure = self.told().dates.sure(now(), &due);
        for version in sure {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A date that comes while the node looks on is written down at once; one that a clock says at a start, or after it was set, when
    /// it still says so an hour later.
    #[test]
    fn a_clock_that_is_ahead_for_a_while_ends_no_version() {
        let at = |mono_ms, wall_ms| Now { mono_ms, wall_ms };
        let (v1, v2) = (KeyVersion::V1, KeyVersion::new(2).unwrap());
        let mut dates = Dates::default();
        assert_eq!(dates.sure(at(1_000, 50_000), &[]), []);
        assert_eq!(dates.sure(at(2_000, 51_000), &[v1]), [v1], "time passed");
        // Set ahead, and back before the hour is over.
        let year = 365 * DAY_MS;
        assert_eq!(dates.sure(at(3_000, year), &[v1, v2]), [v1]);
        assert_eq!(dates.sure(at(4_000, year + 1_000), &[v2]), []);
        assert_eq!(dates.sure(at(3_000_000, 3_050_000), &[]), []);
        assert_eq!(dates.sure(at(3_700_000, year), &[v2]), [], "its hour begins anew");
        assert_eq!(dates.sure(at(7_299_999, year + 3_599_999), &[v2]), []);
        assert_eq!(dates.sure(at(7_300_000, year + 3_600_000), &[v2]), [v2]);
        // At a start nobody knows.
        assert_eq!(Dates::default().sure(at(5, year), &[v1]), []);
    }
}
