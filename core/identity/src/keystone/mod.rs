//! Keystone identities: who you are, proven by hashes and by ML-DSA-87. Spec: ibgib §6, §12.3, §12.4.
//!
//! ```text
//! secrets ──► genesis ──► Standing ──► Chain ──► sign / manage / revoke ──► Standing (make durable, then reveal)
//! foreign record ──► Frame::read ──► Standing::step (rules E1–E14) ──► Chain (rule E15)
//! ```
//!
//! A [`Frame`] is in our form, a [`Standing`] passed every rule back to its first frame, a [`Chain`] says what counts.
//! [`v1`] makes and checks frames as V1 does, for comparison only.

mod chain;
mod claim;
mod class;
mod delegation;
mod digest;
mod draft;
mod evolve;
mod frame;
mod genesis;
mod hybrid;
pub(crate) mod moment;
mod pool;
mod rules;
mod secrets;
mod session;
mod step;
mod strategy;
mod text;
pub mod v1;
mod words;

pub use chain::{Added, Chain, Place, State, WAITING_BYTES_MAX, WAITING_MAX};
pub use claim::{Claim, Verb};
pub use class::{Class, OwnerProfiles, POOL_CONNECT, POOL_DEFAULT, POOL_MANAGE, POOL_REVOKE, Profile};
pub use delegation::{Delegation, speaks_for};
pub use draft::MakeError;
pub use evolve::{Manage, SignError, Signer, drill, manage, manage_keyring, revoke, sign};
pub use frame::{Frame, KEYSTONE_IB, Proof, Solution};
pub use genesis::{device_genesis, owner_genesis, session_genesis};
pub use hybrid::{Block, kid};
pub use pool::{Challenge, ChallengeId, POOL_SIZE_MAX, Pool, PoolConfig, Replenish};
pub use rules::{Broken, Rule, read_first, read_next};
pub use secrets::{MasterSecret, RootSecret, SessionSecret, WorkingSecret};
pub use session::{
    ConnectFacts, SESSION_BINDING_BYTES, SessionRefused, SessionScope, Side, check_session, context_target,
};
pub use step::{Rank, Standing};
pub use strategy::{Algo, Derivation, v1_challenge_id};
pub use text::FormError;
pub use words::{WORD_COUNT, WordsError};
