//! Releases of this node: published into a space of their own, followed and installed from one, or from a file.
//!
//! ```text
//! directory ─publish─▶ payload (.stb, hot tier) and channel frame (space) ─sync─▶ other nodes
//!                                                                                   │ trust, head, memory
//! directory ◀─switch─ unpack ◀─ plain tar ◀──────────────────────── install ◀───────┘
//! ```
//!
//! Knows no socket or command. What may be installed is decided by [`sealtide_releases::bundle`].

mod app;
mod archive;
mod bucket;
mod draft;
mod fetched;
mod file;
mod from_peers;
mod install;
mod memory;
mod mirror;
mod own;
mod publish;
mod receive;
mod renewal;
mod retention;
mod takeover;
mod tiers;

#[cfg(test)]
mod tests;

use sealtide_folder::release::ReleaseError;
use sealtide_releases::bundle::{ReleaseRefused, TrustRefused};

pub(crate) use app::App;
pub(crate) use archive::{ArchiveSettings, BucketPlace, is_class, is_endpoint, is_region};
pub(crate) use file::{OpenBundle, verify_file};
pub(crate) use install::{Install, InstallOrder, shown_trust};
pub(crate) use memory::{InstalledAt, MEMORY_SETTINGS, Memory, installs};
pub(crate) use mirror::keep_complete;
pub(crate) use own::OwnKeys;
pub(crate) use publish::{Promotion, Publication, Published, promote, publish, renew, yank};
pub(crate) use receive::{NotReceived, receive};
pub(crate) use renewal::{archive, keep_fresh, keep_fresh_alone};
pub(crate) use retention::{is_kept, retired};
pub(crate) use takeover::ledger_of_app;
pub(crate) use tiers::{Due, Stored, Tier, Tiers};

use crate::failure::{Exit, Failure};

/// A release that does not count: exit 5, with the thing and the reason.
pub(crate) fn refused(what: &str, reason: &ReleaseRefused) -> Failure {
    let failure = Failure::new(Exit::Verification, reason.code(), format!("{what}: {reason}"));
    match reason {
        ReleaseRefused::Rollback { .. } | ReleaseRefused::Yanked { .. } | ReleaseRefused::NotOfHead => {
            failure.hint("what is installed stays; --allow-downgrade installs it all the same, and the audit says so")
        }
        ReleaseRefused::HeadExpired { .. } => failure.hint(
            "what is installed stays; the publisher renews the head while its node runs, and this node must reach it",
        ),
        ReleaseRefused::HeadEarly { .. } => failure.hint(
            "what is installed stays; is the clock here right? if it is, the publisher's was not, and its node signs another head \
             when it is",
        ),
        ReleaseRefused::UnknownKey(_) | ReleaseRefused::HeadAhead { .. } => {
            failure.hint("ask the publisher for a new trust file, and name it with --trust")
        }
        _ => failure.hint("what is installed stays"),
    }
}

/// A key ledger that is not followed: exit 5.
pub(crate) fn untrusted(what: &str, reason: &TrustRefused) -> Failure {
    let failure = Failure::new(Exit::Verification, "trust", format!("{what}: {reason}"));
    match reason {
        TrustRefused::NoRoot(_) => failure.hint(
            "name a trust file with --trust that the publisher wrote after that (`release publish --trust-out`): an older one says no more than what is known",
        ),
        _ => failure,
    }
}

/// A payload that is not what its manifest says, or a disk that does not do as it is told.
pub(crate) fn unpacked(what: &str, error: &ReleaseError) -> Failure {
    let text = format!("{what}: {error}");
    match error {
        ReleaseError::Io { .. } => Failure::failed("io", text),
        ReleaseError::Occupied(_) | ReleaseError::NoExchange(_) => Failure::usage("target", text),
        _ => Failure::new(Exit::Verification, "payload", text).hint("what is installed stays"),
    }
}

/// A directory that cannot be published: exit 2.
pub(crate) fn unpublished(error: &ReleaseError) -> Failure {
    match error {
        ReleaseError::Io { .. } => Failure::failed("io", error.to_string()),
        _ => Failure::usage("directory", error.to_string()),
    }
}
