//! The versioned signing keys of the gateway: v1 … vN, which of them signs, and the ledger that says so.
//! Spec: gateway §7.
//!
//! ```text
//! secrets ──load──▶ Keys (v1 … vN) ─┐
//!                                   ├─▶ Keyring ── choose, sign, verify
//! records ──open──▶ Ledger ─────────┘      │
//!                                          └─ rotate, roll back, … ──▶ Change ──(made durable)──▶ apply
//!
//!           add           rotate, force         rotate, roll back      its date, retire       destroy
//!   (none) ────▶ prepared ─────────────▶ active ─────────────────▶ verify-only ─────────▶ expired ─────▶ destroyed
//!                    └──────────────────────┴───────────────────────────┴──── retire --compromised ──▶ compromised
//! recover: a new version is active, whatever became of the secrets before it
//! ```
//!
//! A change is made in two steps: the keyring proposes a signed record, the caller makes it durable, then the keyring
//! takes it over. Between the two the old key signs; a crash leaves either the old state or the new one.

mod change;
mod choice;
mod keys;
mod ledger;
mod load;
mod moment;
mod pair;
mod probation;
mod record;
mod recovery;
mod ring;
mod secret;
mod signal;
mod signature;
mod version;

pub use change::{Change, ChangeRefused, ChangeRequest, Order};
pub use choice::{Choice, ChoiceRefused, Fallback, KeyPolicy};
pub use keys::{Pair, PublicKeyEntry, VersionKeys};
pub use ledger::{Ledger, LedgerError, VersionState};
pub use load::{KeyOffers, KeySource, LoadError, LoadWarning, LoadedKeys, environment_name};
pub use moment::{parse_time, write_time};
pub use pair::{PairRefused, PublicPair};
pub use probation::{Probation, ProbationVerdict};
pub use record::{Action, Deadline, LastGood, LedgerRecord, RecordError, RecordSignature};
pub use recovery::{KeyringRecovery, RecoveryRefused};
pub use ring::{Keyring, KeyringError, LedgerRow, SignError, Signed, Verdict};
pub use secret::{KeySecret, SecretRefused};
pub use signal::{RotationSignal, SignalAction, SignalIgnored};
pub use signature::{Algorithm, decode_hmac, decode_signature, encode_hmac, encode_signature};
pub use version::KeyVersion;
