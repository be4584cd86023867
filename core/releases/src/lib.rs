//! The version registry of an app: which entities there are, at which version, and how a bump moves them; and the
//! releases that are shipped ([`bundle`]). Spec: gateway §8, §9.
//!
//! ```text
//! Registry ──BumpRequest──▶ BumpPlan (after, changes, the bytes that are signed)
//!                              │ signed, made durable by the caller
//!                              ▼
//!                           Registry, one revision later; and the answer, with those bytes in it
//! ```
//!
//! Nothing here signs, stores or sends. A plan changes nothing until its registry is taken in place of the old one.

mod answer;
mod bump;
pub mod bundle;
mod entity;
mod files;
pub mod fuzzing;
mod idempotency;
mod legacy;
mod line;
mod registry;
mod request;
mod summary;
mod validate;
mod version;

pub use answer::{BumpAnswer, HSL_NORMAL, refresh_text};
pub use bump::{BumpError, BumpPlan, VersionChange, plan};
pub use entity::{Entity, EntityKind, FileRule, Strategy};
pub use files::{EditError, FileEdit};
pub use idempotency::{Earlier, Idempotency, IdempotencyKey};
pub use legacy::{LEGACY_BYTES_MAX, LegacyManifest, LegacyRefused};
pub use line::{LineRefused, RegistryFrame, Standing, Writer};
pub use registry::{ImportError, REGISTRY_BYTES_MAX, REGISTRY_TEXT_BYTES_MAX, Registry};
pub use request::{BumpRequest, Crypto, FieldError};
pub use summary::summary;
pub use validate::{Problem, Report, validate};
pub use version::{EntityVersion, InvalidVersion, Scope};
