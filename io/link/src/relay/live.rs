//! A login that stands, as its task and its circuits share it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;
use sealtide_wire::relay::{CircuitNumber, CircuitState, RelayClient};
use tokio::time::Instant;

use crate::path::PathError;

/// Tasks that wait for one direction of a circuit.
const WAITING_MAX: usize = 4;

/// A login that stands.
pub(super) struct Live {
    core: Mutex<LiveCore>,
    pub(super) pump: AtomicWaker,
    began: Instant,
}

pub(super) struct LiveCore {
    pub(super) client: RelayClient,
    pub(super) wakers: BTreeMap<CircuitNumber, Wakers>,
    pub(super) gone: bool,
}

/// Who waits for a circuit.
#[derive(Default)]
pub(super) struct Wakers {
    pub(super) read: Waiting,
    pub(super) write: Waiting,
}

/// Tasks that wait for one direction of a circuit. The TLS above reads while it writes and the other way round, so the task
/// of the last poll is not always the only one: each is kept until something happens.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<Waker>);

impl Waiting {
    /// Has the task of `waker` woken at the next change.
    pub(super) fn add(&mut self, waker: &Waker) {
        if self.0.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        // Woken too early it polls again, and is kept again.
        if self.0.len() >= WAITING_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.wake();
        }
        self.0.push_back(waker.clone());
    }

    fn wake(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl LiveCore {
    /// Something happened to the circuit `number`.
    pub(super) fn wake(&mut self, number: CircuitNumber) {
        if let Some(wakers) = self.wakers.get_mut(&number) {
            wakers.wake();
        }
    }
}

impl Wakers {
    pub(super) fn wake(&mut self) {
        self.read.wake();
        self.write.wake();
    }
}

impl Live {
    pub(super) fn new(client: RelayClient) -> Self {
        let core = LiveCore { client, wakers: BTreeMap::new(), gone: false };
        Self { core: Mutex::new(core), pump: AtomicWaker::new(), began: Instant::now() }
    }

    /// The clock of its circuits, ms.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn core(&self) -> MutexGuard<'_, LiveCore> {
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Live {
    pub(super) fn poll_open(&self, cx: &mut Context<'_>, number: CircuitNumber) -> Poll<Result<(), PathError>> {
        let mut core = self.core();
        match core.client.state(number) {
            Some(CircuitState::Open) => Poll::Ready(Ok(())),
            Some(CircuitState::Opening) if !core.gone => {
                core.wakers.entry(number).or_default().read.add(cx.waker());
                Poll::Pending
            }
            Some(CircuitState::Over(why)) => {
                Poll::Ready(Err(PathError::Io(io::Error::other(format!("the relay says: {why:?}")))))
            }
            _ => Poll::Ready(Err(PathError::Closed)),
        }
    }
}
