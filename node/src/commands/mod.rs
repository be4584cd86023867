//! One function for each command: takes a node and arguments, gives the JSON document of the answer.

pub(crate) mod conflicts;
pub(crate) mod doctor;
pub(crate) mod documents;
pub(crate) mod export;
pub(crate) mod files;
pub(crate) mod gc;
pub(crate) mod history;
pub(crate) mod hold;
pub(crate) mod identity;
pub(crate) mod import;
pub(crate) mod join;
pub(crate) mod keys;
pub(crate) mod keys_recover;
pub(crate) mod peers;
pub(crate) mod registry;
pub(crate) mod release;
pub(crate) mod share;
pub(crate) mod spaces;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod target;
pub(crate) mod ticket;
pub(crate) mod verify;

use sealtide_identity::Role;
use sealtide_sync::AbortCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::engine::members::MembersRefused;
use crate::failure::{Exit, Failure};
use crate::node::Node;

/// RFC 3339 UTC, to the millisecond, of a time in ms since 1970.
pub(crate) fn rfc3339(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// The role of a word.
pub(crate) fn parse_role(text: &str) -> Result<Role, Failure> {
    match text {
        "read" => Ok(Role::Read),
        "write" => Ok(Role::Write),
        "admin" => Ok(Role::Admin),
        other => Err(Failure::usage("role", format!("{other} is no role")).hint("read, write or admin")),
    }
}

/// The word of a role.
pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Read => "read",
        Role::Write => "write",
        Role::Admin => "admin",
    }
}

/// A store that failed while a command ran.
pub(crate) fn store_failure(error: impl std::fmt::Display) -> Failure {
    Failure::failed("store", error.to_string())
}

/// Does work that waits for the disk. `what` names it, should it end badly.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    node: &Node,
    work: impl FnOnce(&Node) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let node = node.clone();
    let done = tokio::task::spawn_blocking(move || work(&node)).await;
    done.map_err(|error| Failure::failed(what, error.to_string()))?
}

/// Members that were not changed.
pub(crate) fn members_failure(error: MembersRefused) -> Failure {
    let text = error.to_string();
    match error {
        MembersRefused::NotAdmin => Failure::new(Exit::Refused, "not_admin", text).hint("ask who shared the space"),
        MembersRefused::Sign(refused) if refused.code == AbortCode::Disk => {
            Failure::failed("store", text).hint("nothing was signed: look at the disk of the home, and try again")
        }
        MembersRefused::Sign(_) => Failure::new(Exit::Refused, "not_signed", text)
            .hint("`sealtide identity show` tells why; --offline-sign signs at your own risk"),
        MembersRefused::LastAdmin => Failure::usage("last_admin", text),
        MembersRefused::NotCounted { .. } => Failure::new(Exit::Refused, "not_delegated", text).hint(
            "look at the clock here; then, where the owner's keys are: `sealtide identity delegate NODE --until TIME`, with a time \
             after that",
        ),
        error => Failure::failed("members", error.to_string()),
    }
}
