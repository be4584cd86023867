//! Many nodes in one thread: the real driver ([`sealtide_node::engine::Engine`]) on virtual time, over stores on disks
//! in memory, with seeded faults on channels and disks, compared with a naive model.
//!
//! * [`net`] is a session with latency, credit windows and cuts;
//! * [`world`] is what a driver sees, with delays, clock skew and crashes;
//! * [`node`] starts, crashes and starts again one node; [`cluster`] joins several by diallers;
//! * [`keystones`] stands for a keeper of keystones, with plain text for signatures; [`signers`] sign commits only;
//!   [`identities`] are the real ones, over the node's store;
//! * [`control_end`] is one end of a control channel without an engine;
//! * [`author`] makes random changes; [`model`] knows what must be there in the end;
//! * [`scenario`] is the whole run of one seed.
//!
//! One seed gives one run: nothing here or in the driver asks a clock or chance that the seed does not decide.

pub mod author;
pub mod cluster;
pub mod control_end;
pub mod dice;
pub mod identities;
pub mod keystones;
pub mod model;
pub mod net;
pub mod node;
pub mod scenario;
pub mod seeds;
pub mod signers;
pub mod trace;
pub mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; nothing here panics while it holds a lock, but for a failing check, and then the run is over.
pub(crate) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
