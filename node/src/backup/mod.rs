//! A whole home in one file: made while the node runs, restored into an empty place. Spec: `spec/backup.md`
//!
//! ```text
//! home ─▶ items (name, size, bytes) ─▶ pieces of 1 MiB ─▶ sealed as the secrets of the home are ─▶ file
//! file ─▶ opened, each piece checked ─▶ PLACE beside the home ─▶ synced ─▶ renamed: there is a home, or none
//! ```
//!
//! Knows no socket or command.

mod create;
mod device;
mod restore;
mod stream;

pub(crate) use create::create;
pub(crate) use restore::{RestoreOrder, restore};

use crate::failure::{Exit, Failure};

/// The files with secrets, and settings, by their names in a home.
const FILES: [&str; 7] =
    ["node.key", "identity.key", "gateway.key", "relay.token", "seal.key", "bearers", "config.toml"];
/// The folders of a home that are copied as they are. `folders` has caches only, which are made again.
const FOLDERS: [&str; 2] = [AUDIT, BUNDLES];
const AUDIT: &str = "audit";
const BUNDLES: &str = "bundles";
/// The folder of the store.
const STORE: &str = "store";
/// The name of the small facts of the store.
const FACTS: &str = "store/facts";

/// A file that is no backup, or not what was written.
fn damaged(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Verification, "backup_damaged", format!("the backup {what}"))
        .hint("nothing was restored; another copy of it may be whole")
}
