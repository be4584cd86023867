//! Releases: signed manifests, channel heads, the file they travel in, and whom a verifier trusts. Spec: gateway §9.
//!
//! ```text
//! .stb ──BundleHead::read──▶ Signed<Manifest>, chain
//!                               │ Trust::follow(chain): the key ledger, epoch by epoch
//!                               ▼
//!                            Trust::manifest, Trust::head ──▶ Trusted ──Seen::admit──▶ may be unpacked
//! ```
//!
//! Nothing here reads a file or knows the time.

mod admit;
mod file;
mod head;
mod manifest;
mod name;
mod signed;
mod trust;

pub use admit::{ReleaseRefused, Seen, Trusted, Wanted};
pub use file::{BundleHead, CHAIN_MAX, HEAD_BYTES_MAX, NotABundle};
pub use head::{ChannelHead, HEAD_MS_DEFAULT, HEAD_MS_MAX, YANKED_MAX};
pub use manifest::{FILES_MAX, FilesRefused, Manifest, ReleaseFile, check_files};
pub use name::{AppName, Channel};
pub use signed::{Content, INTEGER_MAX, Members, NotSigned, Signed};
pub use trust::{Fork, Recovered, TRUST_BYTES_MAX, Trust, TrustRefused};
