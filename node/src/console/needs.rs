//! Which commands a door passes on, and who may ask them. Everything else is for the command line: what names paths of
//! this machine, holds secrets, or ends the node.

use sealtide_gateway::Role;
use serde_json::Value;

use crate::api::Request;
use crate::commands::keys::KeysRequest;
use crate::commands::registry::RegistryRequest;
use crate::commands::release::ReleaseRequest;

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    pub(super) role: Role,
    pub(super) is_change: bool,
}

const READS: Need = Need { role: Role::Reader, is_change: false };
const LOOKS: Need = Need { role: Role::Admin, is_change: false };
const WRITES: Need = Need { role: Role::Bumper, is_change: true };
const RULES: Need = Need { role: Role::Admin, is_change: true };

/// What a request needs; `None`: no door passes it on.
pub(super) fn of(request: &Request) -> Option<Need> {
    Some(match request {
        Request::Status
        | Request::PeersList
        | Request::PeersShow { .. }
        | Request::SpacesList
        | Request::Get { .. }
        | Request::Log { .. }
        | Request::Diff { .. }
        | Request::ConflictsList { .. }
        | Request::ConflictsShow { .. }
        | Request::HoldList
        | Request::HoldShow { .. }
        | Request::Files { .. }
        | Request::Recent
        | Request::AuditLines { .. }
        | Request::AuditVerify
        | Request::IdentityShow { .. }
        | Request::Doctor { .. } => READS,
        Request::TicketList => LOOKS,
        Request::Sync { wait: false, .. }
        | Request::Pause { .. }
        | Request::Resume { .. }
        | Request::Restore { to: None, .. }
        | Request::ConflictsResolve { .. } => WRITES,
        Request::TicketNew { device: false, .. }
        | Request::TicketRevoke { .. }
        | Request::PeersRename { .. }
        | Request::PeersRevoke { .. }
        | Request::HoldDecide { .. } => RULES,
        Request::Gc { dry_run } => {
            if *dry_run {
                LOOKS
            } else {
                RULES
            }
        }
        Request::Keys(KeysRequest::Status | KeysRequest::Ledger { .. }) => READS,
        Request::Keys(KeysRequest::Change { dry_run, .. }) => {
            if *dry_run {
                READS
            } else {
                RULES
            }
        }
        Request::Keys(KeysRequest::Bump { tree: None, request, .. }) => {
            Need { is_change: request["dryRun"] != true, ..WRITES }
        }
        Request::Release(
            ReleaseRequest::List | ReleaseRequest::Show { .. } | ReleaseRequest::Registry(RegistryRequest::Show),
        ) => READS,
        Request::Release(
            ReleaseRequest::Promote { .. } | ReleaseRequest::Yank { .. } | ReleaseRequest::Archive { .. },
        ) => RULES,
        _ => return None,
    })
}

/// What the audit is told of a change: the command, and what it is done to. No document, no secret: none is in these
/// members of a request that is passed on.
pub(super) fn words(request: &Request) -> Vec<(&'static str, String)> {
    const MEMBERS: [&str; 14] = [
        "command", "keys", "release", "change", "space", "spaces", "target", "keep", "peer", "name", "id", "app",
        "version", "role",
    ];
    let value = serde_json::to_value(request).unwrap_or_default();
    let member = |name: &'static str| {
        let found = value.get(name).or_else(|| value.get("change").and_then(|change| change.get(name)))?;
        let text = match found {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Object(object) => object.get("change")?.as_str()?.to_owned(),
            other => other.to_string(),
        };
        Some((name, text))
    };
    MEMBERS.into_iter().filter_map(member).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn need(request: Value) -> Option<Need> {
        of(&serde_json::from_value(request).unwrap())
    }

    #[test]
    fn doors_pass_on_what_has_no_path_and_no_secret() {
        assert_eq!(need(json!({"command": "status"})), Some(READS));
        let restore = |to: Value| json!({"command": "restore", "target": "Notes:plan.md@1", "to": to});
        assert_eq!(need(restore(Value::Null)), Some(WRITES));
        assert_eq!(need(restore(json!("/tmp/x"))), None, "a path of this machine");
        let rollback = |dry_run: bool| json!({"command": "keys", "keys": "change", "change": {"change": "rollback"}, "expect": null, "reason": "", "dry_run": dry_run});
        assert_eq!((need(rollback(true)), need(rollback(false))), (Some(READS), Some(RULES)));
        for never in [
            json!({"command": "down"}),
            json!({"command": "share", "dirs": ["/etc"]}),
            json!({"command": "export", "space": "Notes", "format": "dir", "out": "/tmp/x"}),
            json!({"command": "keys", "keys": "sign_in_code"}),
            json!({"command": "ticket_new", "space": null, "role": "write", "ttl_s": 1, "uses": 1, "device": true}),
            json!({"command": "join", "ticket": "stt1", "dir": null, "wait": false, "yes": false, "timeout_s": 1}),
        ] {
            assert_eq!(need(never.clone()), None, "{never}");
        }
    }

    #[test]
    fn the_audit_is_told_what_was_done_to_what() {
        let told = |request: Value| words(&serde_json::from_value(request).unwrap());
        let of = |name, value: &str| (name, value.to_owned());
        assert_eq!(
            told(json!({"command": "conflicts_resolve", "target": "Notes:a.md", "keep": "@AB"})),
            [of("command", "conflicts_resolve"), of("target", "Notes:a.md"), of("keep", "@AB")]
        );
        let change = json!({"change": "retire", "version": "v1", "compromised": false});
        let request = json!({"command": "keys", "keys": "change", "change": change, "expect": null, "reason": "", "dry_run": false});
        assert_eq!(
            told(request),
            [of("command", "keys"), of("keys", "change"), of("change", "retire"), of("version", "v1")]
        );
    }
}
