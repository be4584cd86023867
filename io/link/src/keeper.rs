//! Looks after the paths of one session: dials when there is none, renews in time, looks for a direct one.
//! Spec: link C.7, C.9.3.

use std::sync::Arc;
use std::time::Duration;

use sealtide_crypto::Now;
use sealtide_wire::handshake::PipeKind;
use sealtide_wire::session::{PathPolicy, SessionState};
use tokio::time::{Instant, sleep_until};

use crate::attach::{self, Failure};
use crate::backoff::Backoff;
use crate::clock::SystemEntropy;
use crate::node::Node;
use crate::punch;
use crate::routes::Route;
use crate::session::{Core, Session};

/// A path that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// There is none that works.
    Path,
    /// The one in use grows old.
    Renewal,
    /// The one in use leads over a relay.
    Direct,
}

/// Runs beside the session until it is over.
pub(crate) async fn keep(node: Arc<Node>, session: Session) {
    tokio::select! {
        _ = session.closed() => {}
        () = node.stopped() => {}
        () = look_after(&node, &session) => {}
    }
}

async fn look_after(node: &Arc<Node>, session: &Session) {
    let shared = &session.shared;
    let mut backoff = Backoff::new();
    let mut present: Option<Need> = None;
    let mut not_before = Instant::now();
    loop {
        let now = shared.clock.now();
        let (need, next_ms) = {
            let mut core = shared.core();
            let need = core.need(now, node.policy);
            // A new address, or a need of another kind, is a reason to be quick again.
            if core.take_news(now) && need.is_some() || need != present {
                backoff.reset();
                let wait =
                    if need == Some(Need::Path) { backoff.next_wait(&mut SystemEntropy) } else { Duration::ZERO };
                not_before = Instant::now() + wait;
            }
            (need, core.next_need(now).min(core.news.due_ms()))
        };
        present = need;
        if need.is_some() && Instant::now() >= not_before {
            let dialled = tokio::select! {
                // Boxed: what a dial needs is not kept by a session that has none to make. Spec: LK-89
                dialled = Box::pin(further_path(node, session, need)) => Some(dialled),
                () = until_served(session, need, node.policy) => None,
            };
            match dialled {
                Some(Ok(())) => {
                    let mut core = shared.core();
                    core.why_not_direct = None;
                    core.punched.forget();
                    // Should it not serve what is needed, the next one waits as after a failure.
                    not_before = Instant::now() + backoff.next_wait(&mut SystemEntropy);
                }
                Some(Err(failure)) => {
                    tracing::debug!(peer = session.peer().short(), ?need, ?failure, "link: no further path");
                    shared.core().why_not_direct = Some(failure.why());
                    not_before = Instant::now() + backoff.next_wait(&mut SystemEntropy).max(failure.wait());
                }
                None => {}
            }
            continue;
        }
        let mut until = Instant::now() + Duration::from_millis(next_ms.saturating_sub(now.mono_ms).min(3_600_000) + 1);
        if need.is_some() {
            until = until.min(not_before);
        }
        tokio::select! {
            () = shared.keeper.notified() => {}
            () = sleep_until(until) => {}
        }
    }
}

/// A dial; beside it, where a direct path is wanted and both ends may be behind translators, an attempt to meet through
/// them.
async fn further_path(node: &Arc<Node>, session: &Session, need: Option<Need>) -> Result<(), Failure> {
    let dial = attach::dial(node, session, need == Some(Need::Renewal));
    if need != Some(Need::Direct) || !punch::is_due(node, session) {
        let failed = dial.await;
        let through = session.shared.core().punched.has_failed();
        return failed.map_err(|why| if through && matches!(why, Failure::Unreachable) { Failure::Nat } else { why });
    }
    let punch = punch::lead(node, session);
    tokio::pin!(dial, punch);
    tokio::select! {
        dialled = &mut dial => match dialled {
            Err(Failure::Unreachable | Failure::Busy(_) | Failure::NotAgreed(_)) => punch.await,
            decided => decided,
        },
        punched = &mut punch => match punched {
            Ok(()) => Ok(()),
            Err(why) => dial.await.map_err(|dialled| match dialled {
                Failure::Unreachable => why,
                other => other,
            }),
        },
    }
}

/// Completes when the path that is being dialled for is no longer wanted: the peer was quicker.
async fn until_served(session: &Session, need: Option<Need>, policy: PathPolicy) {
    loop {
        session.shared.keeper.notified().await;
        if session.shared.core().need(session.shared.clock.now(), policy) != need {
            return;
        }
    }
}

impl Core {
    fn need(&self, now: Now, policy: PathPolicy) -> Option<Need> {
        match self.session.state() {
            SessionState::Suspended => return Some(Need::Path),
            // What was queued before the end is still to be delivered.
            SessionState::Closing if self.paths.is_empty() => return Some(Need::Path),
            SessionState::Open => {}
            _ => return None,
        }
        let (_, route) = self.active_route()?;
        if self.paths.keys().all(|path| self.is_suspect(*path)) {
            return Some(Need::Path);
        }
        if now.mono_ms >= renewal_ms(route) && !self.has_successor(route) {
            return Some(Need::Renewal);
        }
        let has_direct = self.paths.values().any(Route::is_direct);
        let wants_direct = !has_direct && policy.permits(PipeKind::Direct) && !self.dial_list().is_empty();
        wants_direct.then_some(Need::Direct)
    }

    /// When time alone makes a need, in ms.
    fn next_need(&self, now: Now) -> u64 {
        let renewal = self.active_route().map_or(u64::MAX, |(_, route)| renewal_ms(route));
        if renewal <= now.mono_ms { u64::MAX } else { renewal }
    }
}

/// The end that dialled a path renews it; the other one later, should that have failed.
fn renewal_ms(route: &Route) -> u64 {
    let due = route.renew_ms();
    if route.dialled { due } else { due + (route.until_ms - due) / 2 }
}

#[cfg(test)]
mod tests {
    use sealtide_wire::session::PathId;

    use super::*;
    use crate::pipe::Remote;
    use crate::pump::tests::pair;
    use crate::routes::FIRST_PATH;

    /// Else a session over a relay that has fallen silent stands still until the path has failed for good.
    #[tokio::test]
    async fn a_path_over_a_relay_that_is_suspect_is_replaced_by_another_over_a_relay() {
        let (_a, _b, ours, _theirs) = pair().await;
        let mut core = ours.shared.core();
        let mut relayed = core.paths[&FIRST_PATH].clone();
        relayed.remote = Remote::Relay { relay: core.peer };
        core.paths.insert(FIRST_PATH, relayed.clone());
        let wants = |core: &Core, now| {
            let need = core.need(now, PathPolicy::RelayOnly);
            (need, [PipeKind::Relay, PipeKind::Tunnel].map(|kind| core.wants(now, kind, false)))
        };
        let now = ours.shared.clock.now();
        assert_eq!(wants(&core, now), (None, [false, false]));
        // As after a sleep: nothing is known about any path.
        let now = Now { mono_ms: now.mono_ms + 120_000, ..now };
        core.session.handle_timeout(now);
        assert_eq!(wants(&core, now), (Some(Need::Path), [true, true]));
        core.paths.insert(PathId(1), relayed);
        assert_eq!(wants(&core, now), (None, [false, false]), "another one is there");
    }
}
