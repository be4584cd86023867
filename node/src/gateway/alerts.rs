//! What is worth waking somebody: rules over what happened, without a clock of their own. Spec: gateway §11.2.

use std::collections::{BTreeMap, VecDeque};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Window of the fallback rate.
const FALLBACK_MS: u64 = 5 * MINUTE_MS;
/// Refused tokens of one source within a minute, above which somebody guesses.
const REFUSALS_MAX: usize = 10;
/// Sources whose refusals are counted, at most; the one that was quiet longest goes first.
const SOURCES_MAX: usize = 4_096;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact<'a> {
    /// A signature was made.
    Signed {
        /// By which version.
        version: u16,
        /// By a lower version than was wanted.
        fallback: bool,
    },
    /// Another version signs.
    Rotated {
        /// Signed before.
        from: u16,
        /// Signs now.
        to: u16,
    },
    /// A rotation failed.
    RotationFailed,
    /// A token was refused as unknown or replayed.
    TokenRefused(&'a str),
    /// Lines of the audit were lost.
    AuditGap,
    /// Time passed; the end of v1, when it is set. Told every so often.
    V1Ends(Option<u64>),
}

/// A rule that fired. Its word stands in the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Alert {
    NewVersionUnused,
    PreviousVersionInUse,
    Fallbacks,
    RotationFailed,
    TokensGuessed,
    AuditGap,
    V1EndsInUse,
}

impl Alert {
    /// The words for it, and its colour.
    pub(super) fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NewVersionUnused => ("the new key version made less than 10 % of the signatures of a day", "#FF8C00"),
            Self::PreviousVersionInUse => {
                ("the previous key version still makes more than 90 % of the signatures after a week", "#FF8C00")
            }
            Self::Fallbacks => ("more than 5 % of the signatures of five minutes are fallbacks", "#FF0000"),
            Self::RotationFailed => ("a rotation failed", "#FF0000"),
            Self::TokensGuessed => ("one source has more than 10 tokens refused in a minute", "#FF0000"),
            Self::AuditGap => ("lines of the audit were lost", "#FF0000"),
            Self::V1EndsInUse => ("v1 ends within a week and is still in use", "#FF8C00"),
        }
    }
}

/// What the rules remember. Counts by minute; nothing grows with traffic.
#[derive(Default)]
pub(super) struct Alerts {
    /// Signatures by version, and fallbacks, of each of the last minutes.
    minutes: VecDeque<(u64, BTreeMap<u16, u64>, u64)>,
    rotation: Option<Rotation>,
    refusals: BTreeMap<String, VecDeque<u64>>,
    /// When a rule fired last, so that it does not fire all the time.
    fired: BTreeMap<Alert, u64>,
}

/// The last rotation, and the signatures since.
struct Rotation {
    at_ms: u64,
    from: u16,
    to: u16,
    since: BTreeMap<u16, u64>,
    day_seen: bool,
    week_seen: bool,
}

impl Alerts {
    /// Takes a fact in; the rules that fire. A rule that fired is silent for an hour.
    // Spec: GW-82
    pub(super) fn take(&mut self, fact: &Fact<'_>, wall_ms: u64) -> Vec<Alert> {
        let mut found = Vec::new();
        match fact {
            Fact::Signed { version, fallback } => {
                self.count(*version, *fallback, wall_ms);
                found.extend(self.fallbacks(wall_ms));
            }
            Fact::Rotated { from, to } => {
                let (from, to) = (*from, *to);
                let since = BTreeMap::new();
                self.rotation = Some(Rotation { at_ms: wall_ms, from, to, since, day_seen: false, week_seen: false });
            }
            Fact::RotationFailed => found.push(Alert::RotationFailed),
            Fact::TokenRefused(source) => found.extend(self.refused(source, wall_ms)),
            Fact::AuditGap => found.push(Alert::AuditGap),
            Fact::V1Ends(ends) => {
                let is_near = ends.is_some_and(|at| wall_ms < at && wall_ms + 7 * DAY_MS >= at);
                let is_used = self.minutes.iter().any(|(_, counts, _)| counts.get(&1).is_some_and(|count| *count > 0));
                found.extend((is_near && is_used).then_some(Alert::V1EndsInUse));
            }
        }
        found.extend(self.shares(wall_ms));
        found.retain(|alert| match (alert, self.fired.get(alert)) {
            // These are told each time: each is another event.
            (Alert::RotationFailed | Alert::AuditGap, _) | (_, None) => true,
            (_, Some(at)) => wall_ms.saturating_sub(*at) >= HOUR_MS,
        });
        self.fired.extend(found.iter().map(|alert| (*alert, wall_ms)));
        found
    }

    fn count(&mut self, version: u16, fallback: bool, wall_ms: u64) {
        let minute = wall_ms / MINUTE_MS;
        if self.minutes.back().is_none_or(|(at, ..)| *at != minute) {
            self.minutes.push_back((minute, BTreeMap::new(), 0));
        }
        if let Some((_, counts, fallbacks)) = self.minutes.back_mut() {
            *counts.entry(version).or_default() += 1;
            *fallbacks += u64::from(fallback);
        }
        while self.minutes.len() > 1 && self.minutes.front().is_some_and(|(at, ..)| at + 60 < minute) {
            self.minutes.pop_front();
        }
        if let Some(rotation) = &mut self.rotation {
            *rotation.since.entry(version).or_default() += 1;
        }
    }

    fn fallbacks(&self, wall_ms: u64) -> Option<Alert> {
        let first = wall_ms.saturating_sub(FALLBACK_MS) / MINUTE_MS;
        let recent = self.minutes.iter().filter(|(at, ..)| *at > first);
        let (all, fallen) = recent.fold((0, 0), |(all, fallen), (_, counts, fallbacks)| {
            (all + counts.values().sum::<u64>(), fallen + fallbacks)
        });
        (fallen * 20 > all).then_some(Alert::Fallbacks)
    }

    /// Shares after a rotation, each looked at once, when its time has come.
    fn shares(&mut self, wall_ms: u64) -> Vec<Alert> {
        let Some(rotation) = &mut self.rotation else { return Vec::new() };
        let passed = wall_ms.saturating_sub(rotation.at_ms);
        let all: u64 = rotation.since.values().sum();
        let of = |version: u16| rotation.since.get(&version).copied().unwrap_or(0);
        let (new, previous) = (of(rotation.to), of(rotation.from));
        let mut found = Vec::new();
        if passed >= DAY_MS && !rotation.day_seen {
            rotation.day_seen = true;
            found.extend((all > 0 && new * 10 < all).then_some(Alert::NewVersionUnused));
        }
        if passed >= 7 * DAY_MS && !rotation.week_seen {
            rotation.week_seen = true;
            found.extend((previous * 10 > all * 9).then_some(Alert::PreviousVersionInUse));
        }
        found
    }

    fn refused(&mut self, source: &str, wall_ms: u64) -> Option<Alert> {
        if self.refusals.len() >= SOURCES_MAX && !self.refusals.contains_key(source) {
            let quiet = self.refusals.iter().min_by_key(|(_, times)| times.back().copied().unwrap_or(0));
            let quiet = quiet.map(|(source, _)| source.clone());
            quiet.map(|source| self.refusals.remove(&source));
        }
        let times = self.refusals.entry(source.to_owned()).or_default();
        times.push_back(wall_ms);
        while times.len() > REFUSALS_MAX + 1 || times.front().is_some_and(|at| at + MINUTE_MS <= wall_ms) {
            times.pop_front();
        }
        (times.len() > REFUSALS_MAX).then_some(Alert::TokensGuessed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000_000;

    fn sign(alerts: &mut Alerts, version: u16, fallback: bool, count: u64, at: u64) -> Vec<Alert> {
        (0..count).flat_map(|_| alerts.take(&Fact::Signed { version, fallback }, at)).collect()
    }

    // Proves: GW-82
    #[test]
    fn alerts_about_shares_after_a_rotation() {
        for (new, previous, day, week) in [
            (9, 91, vec![Alert::NewVersionUnused], vec![Alert::PreviousVersionInUse]),
            (10, 90, vec![], vec![]),
            (0, 100, vec![Alert::NewVersionUnused], vec![Alert::PreviousVersionInUse]),
            (0, 0, vec![], vec![]),
        ] {
            let mut alerts = Alerts::default();
            alerts.take(&Fact::Rotated { from: 1, to: 2 }, START);
            sign(&mut alerts, 2, false, new, START + 1);
            sign(&mut alerts, 1, false, previous, START + 1);
            assert!(alerts.take(&Fact::V1Ends(None), START + DAY_MS - 1).is_empty());
            assert_eq!(alerts.take(&Fact::V1Ends(None), START + DAY_MS), day, "{new} of {}", new + previous);
            assert!(alerts.take(&Fact::V1Ends(None), START + DAY_MS + 1).is_empty(), "once");
            assert!(alerts.take(&Fact::V1Ends(None), START + 7 * DAY_MS - 1).is_empty());
            assert_eq!(alerts.take(&Fact::V1Ends(None), START + 7 * DAY_MS), week);
        }
    }

    // Proves: GW-82
    #[test]
    fn alerts_about_fallbacks() {
        let mut alerts = Alerts::default();
        assert!(sign(&mut alerts, 2, false, 95, START).is_empty());
        assert!(sign(&mut alerts, 1, true, 5, START).is_empty(), "5 % is not above 5 %");
        assert_eq!(sign(&mut alerts, 1, true, 1, START), [Alert::Fallbacks]);
        assert!(sign(&mut alerts, 1, true, 1, START + 1).is_empty(), "silent for an hour");
        assert_eq!(sign(&mut alerts, 1, true, 1, START + HOUR_MS), [Alert::Fallbacks]);
        let mut alerts = Alerts::default();
        sign(&mut alerts, 1, true, 1, START);
        assert!(sign(&mut alerts, 2, false, 1, START + FALLBACK_MS + MINUTE_MS).is_empty(), "old ones do not count");
    }

    // Proves: GW-82
    #[test]
    fn alerts_about_tokens_failures_and_the_end_of_v1() {
        let mut alerts = Alerts::default();
        for number in 0..10 {
            assert!(alerts.take(&Fact::TokenRefused("192.0.2.1"), START + number).is_empty());
            assert!(alerts.take(&Fact::TokenRefused("192.0.2.2"), START + number * 6_100).is_empty());
        }
        assert_eq!(alerts.take(&Fact::TokenRefused("192.0.2.1"), START + 10), [Alert::TokensGuessed]);
        assert!(alerts.take(&Fact::TokenRefused("192.0.2.2"), START + 61_000).is_empty(), "ten in a minute");
        for number in 0..2 * SOURCES_MAX {
            alerts.take(&Fact::TokenRefused(&number.to_string()), START);
        }
        assert!(alerts.refusals.len() <= SOURCES_MAX);
        for _ in 0..2 {
            assert_eq!(alerts.take(&Fact::RotationFailed, START), [Alert::RotationFailed]);
            assert_eq!(alerts.take(&Fact::AuditGap, START), [Alert::AuditGap]);
        }
        let ends = |at: u64| Fact::V1Ends(Some(at));
        assert!(alerts.take(&ends(START + DAY_MS), START).is_empty(), "nobody uses it");
        sign(&mut alerts, 1, false, 1, START);
        assert!(alerts.take(&ends(START + 7 * DAY_MS + 1), START).is_empty());
        assert!(alerts.take(&Fact::V1Ends(None), START).is_empty());
        assert_eq!(alerts.take(&ends(START + 7 * DAY_MS), START), [Alert::V1EndsInUse]);
    }
}
