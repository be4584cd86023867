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

use crate::api::Progress;
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

/// The code of work that stopped since nobody waits for it any more.
pub(crate) const INTERRUPTED: &str = "interrupted";

/// Stops long work where nobody hears of its progress any more: who asked for it went away, or was interrupted.
///
/// # Errors
/// When that is so.
pub(crate) fn go_on(progress: &Progress) -> Result<(), Failure> {
    if progress.is_over() {
        return Err(Failure::new(Exit::Interrupted, INTERRUPTED, "interrupted; nothing was left behind"));
    }
    Ok(())
}

/// Does work that waits for the disk. `what` names it, should it end badly.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &str,
    node: &Node,
    work: impl FnOnce(&Node) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (node, at_work) = (node.clone(), node.at_work());
    let done = tokio::task::spawn_blocking(move || {
        let _at_work = at_work;
        work(&node)
    });
    done.await.map_err(|error| Failure::failed(what, error.to_string()))?
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
            .hint("`sealtide identity show` tells why; `sealtide down`, then the same with --offline-sign, signs at your own risk"),
        MembersRefused::LastAdmin => Failure::usage("last_admin", text),
        MembersRefused::Full => Failure::new(Exit::Refused, "members_full", format!("the space takes nobody in: {text}"))
            .hint("take somebody out first: `sealtide peers revoke PEER`"),
        MembersRefused::Worn => Failure::new(Exit::Refused, "members_worn", format!("the space stays as it is: {text}"))
            .hint("share the directory anew, as another space"),
        MembersRefused::NotCounted { .. } => Failure::new(Exit::Refused, "not_delegated", text).hint(
            "look at the clock here; then, where the owner's keys are: `sealtide identity delegate NODE --until TIME`, with a time \
             after that",
        ),
        error => Failure::failed("members", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{Request, execute};
    use crate::commands::export::ExportFormat;
    use crate::commands::release::ReleaseRequest;

    #[tokio::test(flavor = "multi_thread")]
    async fn work_that_nobody_waits_for_stops_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new_at(dir.path().join("home"));
        spaces::create(&node, "Data").await.unwrap();
        documents::put(&node, "Data", "plan", json!({"a": 1}), None).await.unwrap();
        let (out, dist) = (dir.path().join("out"), dir.path().join("dist"));
        std::fs::create_dir(&dist).unwrap();
        std::fs::write(dist.join("file"), "text").unwrap();
        let export = |format| Request::Export { space: "Data".to_owned(), format, out: out.clone() };
        let publish = ReleaseRequest::Publish {
            app: "kiosk".to_owned(),
            dir: dist.clone(),
            channel: "stable".to_owned(),
            version: Some("1.0.0".to_owned()),
            minimum_version: None,
            expires: None,
            allow_downgrade: false,
            out: Some(out.clone()),
            trust_out: None,
        };
        let (progress, told) = Progress::channel();
        drop(told);
        for request in [
            export(ExportFormat::Dir),
            export(ExportFormat::Tar),
            export(ExportFormat::Jsonl),
            Request::Verify { space: None },
            Request::BackupCreate { file: out.clone() },
            Request::Release(publish),
        ] {
            let what = format!("{request:?}");
            let ended = Box::pin(execute(&node, request, &progress)).await;
            assert_eq!(ended.unwrap_err().code, INTERRUPTED, "{what}");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "{what}");
        }
        assert_eq!(node.spaces().len(), 1, "no app was begun");
        // Whoever wants no lines waits all the same.
        let done = Box::pin(execute(&node, export(ExportFormat::Dir), &Progress::none())).await;
        assert_eq!(done.unwrap()["schema"], "sealtide/export_done/1");
        assert!(!node.is_at_work());
        node.shutdown().await;
    }
}
