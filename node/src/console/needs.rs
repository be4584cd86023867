//! Which commands a door passes on, and who may ask them. Everything else is for the command line: what names paths of
//! this machine, holds secrets, or ends the node.

use sealtide_gateway::Role;
use sealtide_identity::NodeId;
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
        | Request::IdentityShow { .. } => READS,
        // Of peers alone: with an address or a ticket whoever reads here would make this node knock wherever he likes.
        Request::Doctor { target } if target.as_deref().is_none_or(|it| it.parse::<NodeId>().is_ok()) => READS,
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

    /// Role and whether it is a change, in words, so that nothing here follows a change there.
    #[test]
    fn readers_look_bumpers_write_and_admins_rule() {
        let rollback = |dry_run: bool| json!({"command": "keys", "keys": "change", "change": {"change": "rollback"}, "expect": null, "reason": "", "dry_run": dry_run});
        let bump = |request: Value| json!({"command": "keys", "keys": "bump", "request": request, "expect": null, "tree": null});
        let sync = |dry_run: bool| json!({"command": "sync", "spaces": [], "with": null, "strategy": "optimistic", "wait": false, "timeout_s": 1, "dry_run": dry_run, "cancel": null});
        let filter = json!({});
        let node = NodeId::from_bytes([7; 32]).to_string();
        for (role, is_change, request) in [
            (Role::Reader, false, json!({"command": "status"})),
            (Role::Reader, false, json!({"command": "peers_list"})),
            (Role::Reader, false, json!({"command": "peers_show", "peer": "p"})),
            (Role::Reader, false, json!({"command": "spaces_list"})),
            (Role::Reader, false, json!({"command": "get", "target": "N"})),
            (Role::Reader, false, json!({"command": "log", "target": null, "limit": 1})),
            (Role::Reader, false, json!({"command": "diff", "a": "N", "b": null})),
            (Role::Reader, false, json!({"command": "conflicts_list", "space": null})),
            (Role::Reader, false, json!({"command": "conflicts_show", "target": "N:a"})),
            (Role::Reader, false, json!({"command": "hold_list"})),
            (Role::Reader, false, json!({"command": "hold_show", "space": "N"})),
            (Role::Reader, false, json!({"command": "files", "space": "N", "under": "", "after": null, "limit": 1})),
            (Role::Reader, false, json!({"command": "recent"})),
            (
                Role::Reader,
                false,
                json!({"command": "audit_lines", "before": null, "since": null, "limit": 1, "filter": filter}),
            ),
            (Role::Reader, false, json!({"command": "audit_verify"})),
            (Role::Reader, false, json!({"command": "identity_show", "keystone": null})),
            (Role::Reader, false, json!({"command": "doctor", "target": null})),
            (Role::Reader, false, json!({"command": "doctor", "target": node})),
            (Role::Reader, false, json!({"command": "keys", "keys": "status"})),
            (Role::Reader, false, json!({"command": "keys", "keys": "ledger", "since": 0})),
            (Role::Reader, false, rollback(true)),
            (Role::Reader, false, json!({"command": "release", "release": "list"})),
            (
                Role::Reader,
                false,
                json!({"command": "release", "release": "show", "app": "k", "channel": null, "version": null}),
            ),
            (Role::Reader, false, json!({"command": "release", "release": "registry", "registry": "show"})),
            (Role::Bumper, true, sync(false)),
            (Role::Bumper, true, sync(true)),
            (Role::Bumper, true, json!({"command": "pause", "space": null})),
            (Role::Bumper, true, json!({"command": "resume", "space": null})),
            (Role::Bumper, true, json!({"command": "restore", "target": "N:a@1", "to": null})),
            (Role::Bumper, true, json!({"command": "conflicts_resolve", "target": "N:a", "keep": null})),
            (Role::Bumper, true, bump(json!({}))),
            (Role::Bumper, false, bump(json!({"dryRun": true}))),
            (Role::Admin, false, json!({"command": "ticket_list"})),
            (Role::Admin, false, json!({"command": "gc", "dry_run": true})),
            (Role::Admin, true, json!({"command": "gc", "dry_run": false})),
            (Role::Admin, true, json!({"command": "ticket_new", "space": null, "role": "read", "ttl_s": 1, "uses": 1})),
            (Role::Admin, true, json!({"command": "ticket_revoke", "id": "x"})),
            (Role::Admin, true, json!({"command": "peers_rename", "peer": "p", "name": "q"})),
            (Role::Admin, true, json!({"command": "peers_revoke", "peer": "p"})),
            (Role::Admin, true, json!({"command": "hold_decide", "space": "N", "accept": true})),
            (Role::Admin, true, rollback(false)),
            (
                Role::Admin,
                true,
                json!({"command": "release", "release": "promote", "app": "k", "version": null, "from": "a", "to": "b", "allow_downgrade": false}),
            ),
            (
                Role::Admin,
                true,
                json!({"command": "release", "release": "yank", "app": "k", "version": "1.0.0", "channel": "a"}),
            ),
            (Role::Admin, true, json!({"command": "release", "release": "archive", "app": null, "older_s": 1})),
        ] {
            assert_eq!(need(request.clone()), Some(Need { role, is_change }), "{request}");
        }
    }

    #[test]
    fn doors_pass_on_what_has_no_path_and_no_secret() {
        for never in [
            json!({"command": "restore", "target": "Notes:plan.md@1", "to": "/tmp/x"}),
            json!({"command": "doctor", "target": "10.0.0.1:22"}),
            json!({"command": "doctor", "target": "stt1abcdef"}),
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
