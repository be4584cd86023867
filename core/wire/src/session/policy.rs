//! Which of several paths carries the session. Spec: link C.9.3.

use super::event::PathId;
use crate::handshake::PipeKind;

/// How much longer than over the relay a round trip over the direct path may take.
const DIRECT_RTT_ALLOWANCE_MS: u64 = 20;
/// PINGs in a row that a direct path must have answered.
const DIRECT_ANSWERS: u32 = 2;

/// Which paths a node uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// Direct when it works and is about as fast, else over a relay.
    #[default]
    Auto,
    /// Direct whenever it works, else over a relay.
    PreferDirect,
    /// Over relays only: the peer does not learn the address.
    RelayOnly,
    /// No byte of a session over a relay.
    DirectOnly,
}

impl PathPolicy {
    /// Every policy.
    pub const ALL: [Self; 4] = [Self::Auto, Self::PreferDirect, Self::RelayOnly, Self::DirectOnly];

    /// The word of settings.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::PreferDirect => "prefer-direct",
            Self::RelayOnly => "relay-only",
            Self::DirectOnly => "direct-only",
        }
    }

    /// The policy of a word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.word() == word)
    }

    /// Whether a path of this kind may be part of a session.
    // Spec: LK-69
    pub const fn permits(self, kind: PipeKind) -> bool {
        match self {
            Self::Auto | Self::PreferDirect => true,
            Self::RelayOnly => matches!(kind, PipeKind::Relay),
            Self::DirectOnly => !matches!(kind, PipeKind::Relay),
        }
    }
}

/// How a path does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathHealth {
    /// Least round-trip time in milliseconds, since a queue on one of two paths says nothing about the way; none before
    /// the first PONG.
    pub rtt_ms: Option<u64>,
    /// PINGs answered in a row.
    pub answered: u32,
    /// Nothing came for too long.
    pub suspect: bool,
}

/// A path as the choice sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Its number.
    pub path: PathId,
    /// What lies below it.
    pub kind: PipeKind,
    /// Its place in the order in which both ends made the paths: the epoch of its re-handshake.
    pub order: u32,
    /// How it does.
    pub health: PathHealth,
}

impl PathView {
    fn is_relayed(&self) -> bool {
        self.kind == PipeKind::Relay
    }
}

/// The path to carry the numbered frames of this end; the present one when nothing speaks for another.
///
/// Of each kind the newest counts, since it was made to take over. A path that is suspect is never chosen; leaving a
/// suspect one is the session's own rule (link C.11).
pub fn choose(policy: PathPolicy, active: Option<PathId>, paths: &[PathView]) -> Option<PathId> {
    let sound = |relayed: bool| {
        let of_kind = |view: &&PathView| view.is_relayed() == relayed && !view.health.suspect;
        paths.iter().filter(of_kind).filter(|view| policy.permits(view.kind)).max_by_key(|view| view.order)
    };
    let (direct, relay) = (sound(false), sound(true));
    let present = paths.iter().find(|view| Some(view.path) == active);
    let found = match (direct, relay) {
        (Some(direct), Some(relay)) => {
            // Once on a direct path the round trip decides nothing any more, so that paths do not take turns.
            let stays = present.is_some_and(|present| !present.is_relayed());
            if stays || is_good_enough(policy, direct, relay) { Some(direct) } else { Some(relay) }
        }
        (one, other) => one.or(other),
    };
    found.map(|view| view.path).or(active)
}

fn is_good_enough(policy: PathPolicy, direct: &PathView, relay: &PathView) -> bool {
    if direct.health.answered < DIRECT_ANSWERS {
        return false;
    }
    match (direct.health.rtt_ms, relay.health.rtt_ms) {
        _ if policy == PathPolicy::PreferDirect => true,
        (Some(direct), Some(relay)) => direct <= relay.saturating_add(DIRECT_RTT_ALLOWANCE_MS),
        (direct, _) => direct.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(path: u32, kind: PipeKind, rtt_ms: u64, answered: u32) -> PathView {
        let health = PathHealth { rtt_ms: Some(rtt_ms), answered, suspect: false };
        PathView { path: PathId(path), kind, order: path, health }
    }

    fn suspect(mut view: PathView) -> PathView {
        view.health.suspect = true;
        view
    }

    use PipeKind::{Direct, Relay};

    #[test]
    fn direct_is_taken_after_two_answers_when_it_is_about_as_fast() {
        let relay = view(0, Relay, 30, 5);
        let active = Some(PathId(0));
        let chosen = |policy, direct| choose(policy, active, &[relay, direct]).unwrap().0;
        assert_eq!(chosen(PathPolicy::Auto, view(1, Direct, 50, 2)), 1);
        assert_eq!(chosen(PathPolicy::Auto, view(1, Direct, 50, 1)), 0, "one answer");
        assert_eq!(chosen(PathPolicy::Auto, view(1, Direct, 51, 9)), 0, "20 ms slower at most");
        assert_eq!(chosen(PathPolicy::PreferDirect, view(1, Direct, 500, 2)), 1);
        assert_eq!(chosen(PathPolicy::PreferDirect, view(1, Direct, 500, 1)), 0);
        assert_eq!(chosen(PathPolicy::Auto, suspect(view(1, Direct, 5, 2))), 0);
        // Back only when the direct path fails, not when its round trip grows.
        let back = |direct| choose(PathPolicy::Auto, Some(PathId(1)), &[relay, direct]).unwrap().0;
        assert_eq!(back(view(1, Direct, 400, 3)), 1);
        assert_eq!(back(suspect(view(1, Direct, 1, 0))), 0);
    }

    #[test]
    fn of_one_kind_the_newest_takes_over() {
        let (old, new) = (view(2, Direct, 5, 9), view(7, Direct, 5, 0));
        assert_eq!(choose(PathPolicy::Auto, Some(PathId(2)), &[old, new]), Some(PathId(7)));
        assert_eq!(choose(PathPolicy::Auto, Some(PathId(2)), &[old, suspect(new)]), Some(PathId(2)));
        assert_eq!(choose(PathPolicy::Auto, Some(PathId(2)), &[suspect(old)]), Some(PathId(2)), "nothing else");
        assert_eq!(choose(PathPolicy::Auto, None, &[]), None);
    }

    // Proves: LK-69
    #[test]
    fn policy_is_about_kinds() {
        let permitted = |policy: PathPolicy| PipeKind::ALL.map(|kind| policy.permits(kind));
        assert_eq!(permitted(PathPolicy::RelayOnly), [true, false, false, false]);
        assert_eq!(permitted(PathPolicy::DirectOnly), [false, true, true, true]);
        assert_eq!(permitted(PathPolicy::Auto), [true; 4]);
        let both = [view(0, Relay, 5, 9), view(1, Direct, 5, 9)];
        assert_eq!(choose(PathPolicy::RelayOnly, Some(PathId(0)), &both), Some(PathId(0)));
        assert_eq!(choose(PathPolicy::DirectOnly, Some(PathId(0)), &both), Some(PathId(1)));
    }
}
