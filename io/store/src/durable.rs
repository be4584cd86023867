//! Group commit: whoever waits first syncs for everybody that has appended by then.

use std::sync::{Arc, Condvar, Mutex};

use crate::error::{StoreError, write_error};
use crate::guard;
use crate::pack::Pack;

/// A place in the whole log that only grows: pack number and offset.
pub(crate) fn position(pack: u32, offset: u64) -> u64 {
    u64::from(pack) << 32 | offset
}

/// Which part of the log is durable.
pub(crate) struct Durable {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The end of the log and the pack it is in. All packs before that one are durable.
    head: (u64, Arc<Pack>),
    durable: u64,
    syncing: bool,
    failed: bool,
}

impl Durable {
    /// The log as it was opened: all of it durable.
    pub(crate) fn new(pack: Arc<Pack>, len: u64) -> Self {
        let durable = position(pack.number, len);
        let state = State { head: (durable, pack), durable, syncing: false, failed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The log grew.
    pub(crate) fn set_head(&self, pack: &Arc<Pack>, len: u64) {
        guard(&self.state).head = (position(pack.number, len), Arc::clone(pack));
    }

    /// Everything in packs before `number` is durable: that pack was just opened.
    pub(crate) fn rolled(&self, number: u32) {
        let mut state = guard(&self.state);
        state.durable = state.durable.max(position(number, 0));
        self.changed.notify_all();
    }

    /// Durable bytes of pack `number`.
    pub(crate) fn durable_in(&self, number: u32) -> u64 {
        let durable = guard(&self.state).durable;
        if durable >> 32 == u64::from(number) { durable & u64::from(u32::MAX) } else { 0 }
    }

    /// How far the log is durable.
    pub(crate) fn durable(&self) -> u64 {
        guard(&self.state).durable
    }

    /// Whether a sync failed.
    pub(crate) fn failed(&self) -> bool {
        guard(&self.state).failed
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> u64 {
        guard(&self.state).head.0
    }

    /// Returns when the log is durable up to `target`; one sync serves all that wait.
    pub(crate) fn wait(&self, target: u64) -> Result<(), StoreError> {
        let mut state = guard(&self.state);
        loop {
            if state.durable >= target {
                return Ok(());
            }
            if state.failed {
                return Err(StoreError::Failed);
            }
            if state.syncing {
                state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let (end, pack) = state.head.clone();
            drop(state);
            let synced = pack.file.sync();
            state = guard(&self.state);
            state.syncing = false;
            self.changed.notify_all();
            match synced {
                Ok(()) => state.durable = state.durable.max(end),
                Err(error) => {
                    // What a failed sync left on the disk is unknown, and a second one may claim success.
                    state.failed = true;
                    return Err(write_error(error));
                }
            }
        }
    }
}
