//! What the door asks of the application behind it: a registry, keys, and bumps that are durable when they are told.

use std::sync::Arc;

use sealtide_identity::keyring::{KeyVersion, Signed};
use sealtide_releases::{BumpPlan, BumpRequest, Registry};

use crate::ladder::{KeyFacts, Rung};
use crate::refusal::Code;

/// Over which way a bump came: it decides about the algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A request over HTTP.
    Rest,
    /// A message on a session of this rung.
    Rung(Rung),
}

/// A bump that is durable, or that was only tried.
#[derive(Clone, Debug)]
pub struct Bumped {
    /// What came out.
    pub plan: BumpPlan,
    /// The signature; none for a dry run.
    pub signed: Option<Signed>,
    /// The version that signed, or would have.
    pub key_version: KeyVersion,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// The revision that holds now.
    pub revision: u64,
}

/// The application behind the door.
pub trait App: Send + Sync + 'static {
    /// What the keys say about the rungs.
    fn keys(&self) -> KeyFacts;
    /// The active version, its epoch, and what signed last: for the long health.
    fn key_status(&self) -> (KeyVersion, u64, Option<KeyVersion>);
    /// The registry as it stands.
    fn registry(&self) -> Arc<Registry>;
    /// What version management does right now.
    fn lifecycle(&self) -> &'static str;
    /// Plans, signs, and makes durable; one at a time. A failure leaves nothing changed.
    ///
    /// # Errors
    /// What the caller is told.
    fn bump(&self, request: &BumpRequest, way: Way) -> Result<Bumped, Code>;
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> u64;
}
