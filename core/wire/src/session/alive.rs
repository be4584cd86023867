//! Time: delayed ACKs, keep-alive, dead paths, suspension, idle sessions. Spec: link C.6, C.9.2, C.11.

use sealtide_crypto::Now;

use super::Session;
use super::event::{Event, PathFailure, PathId};
use super::path::Health;

impl Session {
    /// When `handle_timeout` is wanted, on the clock of `Now::mono_ms`. Changes with every call; may lie in the past.
    pub fn next_timeout(&self) -> Option<u64> {
        if self.over.is_some() {
            return None;
        }
        let limits = &self.config.limits;
        let paths = self.paths.values().map(|path| path.deadline(limits.pong_ms)).min();
        let suspended = self.suspended.map(|since| since.saturating_add(limits.suspend_ms));
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let ack = self.active.and(self.inbox.due());
        [paths, suspended, closing, ack, self.busy_deadline(), self.idle_deadline()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let wanted = self.next_timeout();
        self.now = now.mono_ms;
        if self.over.is_some() {
            return;
        }
        if wanted.is_some_and(|wanted| self.now.saturating_sub(wanted) > self.config.limits.sleep_jump_ms) {
            self.slept();
        }
        if self.inbox.due().is_some_and(|due| self.now >= due)
            && let Some(path) = self.inbox.last_path().or(self.active)
        {
            self.ack_on(path);
            self.inbox.left_to_path();
        }
        if self.busy_deadline().is_some_and(|deadline| self.now >= deadline) {
            self.busy_too_long();
        }
        let paths: Vec<PathId> = self.paths.keys().copied().collect();
        for path in paths {
            self.look_at(path);
        }
        self.expire();
    }

    /// The idle rule for one path.
    fn look_at(&mut self, id: PathId) {
        let (now, pong_ms) = (self.now, self.config.limits.pong_ms);
        let in_use = self.active == Some(id) || self.inbox.last_path() == Some(id);
        let interval = self.interval(in_use);
        let Some(path) = self.paths.get_mut(&id) else { return };
        if now < path.deadline(pong_ms) {
            return;
        }
        match path.health {
            Health::Alive => {
                path.health = Health::Asked(now);
                path.ping = true;
                path.interval = interval;
            }
            Health::Asked(_) => {
                path.suspect(now, now.saturating_add(pong_ms));
                self.events.push_back(Event::PathSuspect { path: id });
            }
            Health::Suspect { .. } => self.fail(id, PathFailure::Silent),
        }
    }

    /// When the active path, with frames outstanding, is judged next.
    fn busy_deadline(&self) -> Option<u64> {
        let path = self.paths.get(&self.active?).filter(|_| self.outbox.is_outstanding())?;
        let limits = &self.config.limits;
        match path.health {
            Health::Suspect { since, .. } => {
                let other = self.best_standby().and_then(|standby| self.paths.get(&standby));
                other.filter(|other| !other.is_suspect()).map(|_| since.saturating_add(limits.busy_ms))
            }
            Health::Alive | Health::Asked(_) => {
                let patience = limits.busy_ms.max(path.rtt_ms().unwrap_or(0).saturating_mul(3));
                let silent = path.heard.max(self.outstanding_since).saturating_add(patience);
                Some(silent.min(self.progress_since.saturating_add(limits.progress_ms)))
            }
        }
    }

    /// The busy rule and the progress check.
    fn busy_too_long(&mut self) {
        let Some(active) = self.active else { return };
        let (now, limits) = (self.now, self.config.limits);
        let standby = self.best_standby();
        let Some(path) = self.paths.get_mut(&active) else { return };
        if path.is_suspect() {
            // Spec: link C.11: 1.5 s more, then the standby. The path left goes on being asked until it fails.
            if let Some(standby) = standby {
                self.take(standby);
            }
        } else if now >= self.progress_since.saturating_add(limits.progress_ms) {
            self.fail(active, PathFailure::NoProgress);
        } else {
            // Alone, the path gets as long as an idle one to answer: a new one is not made faster than that.
            let until = now.saturating_add(limits.pong_ms.saturating_mul(2));
            path.suspect(now, until);
            self.events.push_back(Event::PathSuspect { path: active });
            if let Some(standby) = standby.and_then(|standby| self.paths.get_mut(&standby)) {
                standby.ping = true;
            }
        }
    }

    /// The clock jumped: nothing is known about any path.
    fn slept(&mut self) {
        let until = self.now.saturating_add(self.config.limits.pong_ms.saturating_mul(2));
        for (id, path) in &mut self.paths {
            path.suspect(self.now, until);
            self.events.push_back(Event::PathSuspect { path: *id });
        }
        self.progress_since = self.now;
    }

    fn fail(&mut self, path: PathId, why: PathFailure) {
        self.events.push_back(Event::PathFailed { path, why });
        self.detach(path);
    }

    fn idle_deadline(&self) -> Option<u64> {
        let wanted = !self.interest && self.closing.is_none();
        self.idle_since.filter(|_| wanted).map(|since| since.saturating_add(self.config.limits.idle_ms))
    }

    fn expire(&mut self) {
        if self.closing.as_ref().is_some_and(|closing| self.now >= closing.deadline) {
            // Not everything was acknowledged, and loss is never silent.
            self.lost();
        } else if let Some(since) = self.suspended
            && self.now >= since.saturating_add(self.config.limits.suspend_ms)
        {
            // Spec: LK-41
            self.lost();
        } else if self.idle_deadline().is_some_and(|deadline| self.now >= deadline) {
            self.close(Now { mono_ms: self.now, wall_ms: 0 }, 0);
        }
    }
}
