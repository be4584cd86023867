//! What the door asks of the application behind it: a registry, keys, and bumps that are durable when they are told.

use std::sync::Arc;

use sealtide_crypto::GatewayContext;
use sealtide_identity::keyring::{Algorithm, KeyVersion, PublicKeyEntry, Signed, Verdict, VersionState};
use sealtide_releases::{BumpAnswer, BumpPlan, BumpRequest, Registry};
use tokio::sync::broadcast;

use crate::bundles::BundleShelf;
use crate::ladder::{KeyFacts, Rung};
use crate::refusal::Code;
use crate::sign_in::KeptSignIn;
use crate::uploads::BundleTaker;

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

impl Bumped {
    /// What is told of it.
    pub fn answer(&self) -> BumpAnswer<'_> {
        BumpAnswer {
            plan: &self.plan,
            signed: self.signed.as_ref(),
            key_version: self.key_version,
            timestamp: self.timestamp,
            revision: self.revision,
        }
    }
}

/// The application behind the door.
pub trait App: Send + Sync + 'static {
    /// What the keys say about the rungs.
    fn keys(&self) -> KeyFacts;
    /// The active version, its epoch, and what signed last: for the long health.
    fn key_status(&self) -> (KeyVersion, u64, Option<KeyVersion>);
    /// The registry as it stands.
    fn registry(&self) -> Arc<Registry>;
    /// The Ed25519 signature of the registry as it stands, over its envelope; none without a pair. Spec: gateway §8.1.
    fn registry_signature(&self) -> Option<String> {
        None
    }
    /// What version management does right now.
    fn lifecycle(&self) -> &'static str;
    /// Plans, signs, and makes durable; one at a time. A failure leaves nothing changed.
    ///
    /// # Errors
    /// What the caller is told.
    fn bump(&self, request: &BumpRequest, way: Way) -> Result<Bumped, Code>;
    /// Milliseconds since 1970.
    fn wall_ms(&self) -> u64;
    /// Keys that can be asked about and changed; none: those paths are not there.
    fn key_desk(&self) -> Option<&dyn KeyDesk> {
        None
    }
    /// Release bundles; none: those paths are not there.
    fn bundles(&self) -> Option<&dyn BundleShelf> {
        None
    }
    /// Who takes release bundles that somebody brings; none: nobody does.
    fn bundle_taker(&self) -> Option<&dyn BundleTaker> {
        None
    }
    /// What happens behind the door and has to be said in front of it; none: nothing does.
    fn notices(&self) -> Option<broadcast::Receiver<Notice>> {
        None
    }
    /// The sign-ins of before this start. May wait for the disk.
    fn kept_sign_ins(&self) -> Vec<KeptSignIn> {
        Vec::new()
    }
    /// Keeps all sign-ins, in place of those kept before. May wait for the disk.
    fn keep_sign_ins(&self, _all: &[KeptSignIn]) {}
    /// Takes a code that was drawn on this machine for whoever may use its commands: true exactly once for each.
    fn take_sign_in_code(&self, _code: &str) -> bool {
        false
    }
    /// Takes what happened at the door, for the audit and the figures. It must not wait for the disk.
    fn note(&self, _event: DoorEvent) {}
}

/// The keys behind the door, as far as they are told and changed through it. Spec: gateway §7.
pub trait KeyDesk: Send + Sync {
    /// The active version, the epoch of the ledger, and every version whose signatures count.
    fn list(&self) -> KeyList;
    /// Whether a signature counts now.
    fn verify(&self, question: &Question<'_>) -> Verdict;
    /// Changes which version signs, durably; what was told to others by then is a [`Notice`].
    ///
    /// # Errors
    /// What the caller is told.
    fn change(&self, order: &KeyOrder) -> Result<KeyChange, Code>;
    /// Ledger records with an epoch above `since`, oldest first, at most `limit`, each as JSON text.
    ///
    /// # Errors
    /// [`Code::StorageError`].
    fn ledger(&self, since: u64, limit: usize) -> Result<Vec<String>, Code>;
    /// Lines of the audit with a number above `since`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`Code::StorageError`].
    fn audit(&self, since: u64, limit: usize) -> Result<Vec<String>, Code>;
}

/// All keys that count.
#[derive(Clone, Debug)]
pub struct KeyList {
    /// Signs.
    pub active: KeyVersion,
    /// Of the ledger.
    pub epoch: u64,
    /// Lowest first.
    pub versions: Vec<ListedVersion>,
}

/// One version of a [`KeyList`].
#[derive(Clone, Debug)]
pub struct ListedVersion {
    /// Which.
    pub version: KeyVersion,
    /// What it may do.
    pub state: VersionState,
    /// Until when its signatures count, milliseconds since 1970; none: no end is set.
    pub not_after: Option<u64>,
    /// Its public keys; empty for a version without a pair.
    pub keys: Vec<PublicKeyEntry>,
    /// The name of its HMAC key, when its secret is here.
    pub hmac_kid: Option<String>,
}

/// A signature somebody asks about.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// The signed bytes.
    pub payload: &'a [u8],
    /// What an Ed25519 signature was made for.
    pub context: GatewayContext,
    /// How it was made.
    pub algorithm: Algorithm,
    /// By which version.
    pub version: KeyVersion,
    /// As it was sent.
    pub signature: &'a str,
}

/// Which version shall sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAction {
    /// This version, or the next one that is loaded.
    Rotate(Option<KeyVersion>),
    /// The one before.
    Rollback,
    /// This version, and there is no way back.
    Force(KeyVersion),
}

/// A change of keys, and who asks for it.
#[derive(Clone, Debug)]
pub struct KeyOrder {
    /// What.
    pub action: KeyAction,
    /// The version that must be active.
    pub expect: Option<KeyVersion>,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// What a change came to; `from` equals `to` when it was so already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// Signed before.
    pub from: KeyVersion,
    /// Signs now.
    pub to: KeyVersion,
    /// Of the ledger now.
    pub epoch: u64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
}

/// What happens behind the door and has to be said in front of it.
#[derive(Clone, Debug)]
pub enum Notice {
    /// Another version signs.
    KeyRotated(KeyChange),
    /// Some version is in another state: rungs may not be kept any more.
    KeysMoved,
    /// The registry moved, and nobody at the door did it; the message for readers.
    VersionChanged(Arc<str>),
}

/// Something that happened at the door. Spec: gateway §10.3.
#[derive(Clone, Debug)]
pub struct DoorEvent {
    /// Its name, such as `ws:upgrade:csrf_invalid`.
    pub name: &'static str,
    /// Its colour.
    pub hsl: &'static str,
    /// Fields beyond the envelope; never a token, a key or a query.
    pub members: Vec<(&'static str, String)>,
    /// The id of the request, as the caller was told it.
    pub request_id: Option<String>,
}
