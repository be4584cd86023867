//! What holds for a session until it is renewed: how long it lives, and whether it hears what readers hear.
//!
//! One half of a session answers, the other one speaks up by itself; both look here.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::principal::{Principal, Role};
use crate::settings::Door;

/// A session without end.
const NEVER: u64 = u64::MAX;

/// Shared by both halves of a session.
#[derive(Debug)]
pub(crate) struct Standing {
    /// How many sessions watch the node; none where there is no node.
    watchers: Option<Arc<watch::Sender<usize>>>,
    watches: AtomicBool,
    began_mono_ms: AtomicU64,
    ends_mono_ms: AtomicU64,
    may_read: AtomicBool,
    /// Whose it is: who began it, or who renewed it last.
    principal: Mutex<Principal>,
}

impl Standing {
    /// Of a session that begins now.
    pub(crate) fn new(
        door: &Door,
        principal: &Principal,
        mono_ms: u64,
        watchers: Option<Arc<watch::Sender<usize>>>,
    ) -> Self {
        let standing = Self {
            watchers,
            watches: AtomicBool::new(false),
            began_mono_ms: AtomicU64::new(0),
            ends_mono_ms: AtomicU64::new(NEVER),
            may_read: AtomicBool::new(false),
            principal: Mutex::new(principal.clone()),
        };
        standing.renew(door, principal, mono_ms);
        standing
    }

    /// From here on it holds for this principal. A session of nobody has no end: there is nothing that could run out. That
    /// of a credential's holder ends after the time that is set, and not after what the holder showed.
    // Spec: GW-30
    pub(crate) fn renew(&self, door: &Door, principal: &Principal, mono_ms: u64) {
        let life = door.settings.session_ttl_ms;
        let has_end = principal.id.is_some() && life > 0;
        let ends = if has_end { mono_ms.saturating_add(life) } else { NEVER };
        self.began_mono_ms.store(mono_ms, Ordering::Relaxed);
        self.ends_mono_ms.store(ends.min(principal.ends_mono_ms.unwrap_or(NEVER)), Ordering::Relaxed);
        self.may_read.store(principal.may(door, Role::Reader), Ordering::Relaxed);
        *self.holder() = principal.clone();
    }

    /// Whose session it is now.
    pub(crate) fn principal(&self) -> Principal {
        self.holder().clone()
    }

    fn holder(&self) -> MutexGuard<'_, Principal> {
        self.principal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it ends; none for never.
    pub(crate) fn ends_mono_ms(&self) -> Option<u64> {
        Some(self.ends_mono_ms.load(Ordering::Relaxed)).filter(|ends| *ends != NEVER)
    }

    /// When four fifths of it are over and somebody should renew it.
    pub(crate) fn renew_at_mono_ms(&self) -> Option<u64> {
        let began = self.began_mono_ms.load(Ordering::Relaxed);
        self.ends_mono_ms().map(|ends| began + ends.saturating_sub(began) / 5 * 4)
    }

    /// From here on it hears what changes at the node; false where there is none.
    pub(crate) fn watch(&self) -> bool {
        let Some(watchers) = &self.watchers else { return false };
        if !self.watches.swap(true, Ordering::Relaxed) {
            watchers.send_modify(|watchers| *watchers += 1);
        }
        true
    }

    /// Whether it hears what changes at the node.
    pub(crate) fn watches(&self) -> bool {
        self.watches.load(Ordering::Relaxed)
    }

    /// Whether it hears what readers hear.
    pub(crate) fn may_read(&self) -> bool {
        self.may_read.load(Ordering::Relaxed)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if let Some(watchers) = self.watchers.as_ref().filter(|_| *self.watches.get_mut()) {
            watchers.send_modify(|watchers| *watchers -= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn a_session_ends_with_its_time_and_with_what_was_shown() {
        let door = |session_ttl_ms| {
            let settings = Settings { session_ttl_ms, ..Settings::default() };
            Door::new(settings, "127.0.0.1:7480".parse().unwrap()).unwrap()
        };
        let who = |id: Option<&str>, ends_mono_ms| Principal {
            id: id.map(str::to_owned),
            ends_mono_ms,
            ..Principal::nobody(Role::Reader)
        };
        let ends = |door: &Door, who: &Principal| Standing::new(door, who, 1_000, None).ends_mono_ms();
        assert_eq!(ends(&door(500), &who(None, None)), None, "nobody: nothing runs out");
        assert_eq!(ends(&door(0), &who(Some("a"), None)), None);
        assert_eq!(ends(&door(500), &who(Some("a"), None)), Some(1_500));
        assert_eq!(ends(&door(500), &who(Some("a"), Some(1_200))), Some(1_200), "the sign-in ends first");
        assert_eq!(ends(&door(0), &who(Some("a"), Some(1_200))), Some(1_200));
        let standing = Standing::new(&door(500), &who(Some("a"), None), 1_000, None);
        assert_eq!(standing.renew_at_mono_ms(), Some(1_400));
        standing.renew(&door(500), &who(Some("a"), None), 1_450);
        assert_eq!((standing.ends_mono_ms(), standing.renew_at_mono_ms()), (Some(1_950), Some(1_850)));
    }
}
