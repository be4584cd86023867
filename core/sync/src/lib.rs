//! The sync saga `sts/1`: what two nodes say to each other to make two spaces agree. Spec: `spec/ibgib.md` §13–14,
//! as built: `spec/sync.md`.
//!
//! Pure: a [`Control`] machine for each session and a [`Saga`] machine for each run. Facts come in by `handle`,
//! wishes leave by `poll`; records are read through [`SpaceView`], which a store implements.

mod cbor;
mod control;
mod fitting;
#[doc(hidden)]
pub mod fuzzing;
pub mod message;
pub mod negentropy;
mod saga;
mod scope;
mod space;
mod summary;
mod tips;

pub use control::{Control, ControlInput, ControlOutput, Introduction, OwnIdentity, Proof, SagaState, SpaceOffer};
pub use fitting::{Fitting, Misfit};
pub use message::{AbortCode, CHUNK_PIECE_BYTES_MAX, Facts, MESSAGE_BYTES_MAX, Message, MessageError, Refused};
pub use saga::{
    Chain, ContextKind, Contexts, Direction, Ledger, Limits, Mode, OpenHead, Saga, SagaConfig, SagaId, SagaInput,
    SagaOutcome, SagaOutput, Scope, Strategy,
};
pub(crate) use space::Level;
pub use space::{BulkItem, CommitRequest, CommitResult, RangeBound, Snapshot, SpaceView, TipItem};
pub use summary::{IdSum, LtHash, SetSummary};
pub use tips::{TipList, TipSet};
