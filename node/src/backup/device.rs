//! Another device out of a backup: the spaces of the home that was, and keys of its own. Spec: `spec/backup.md` §4
//!
//! Whatever makes a home *that* node, lets it sign, or says what only that machine did, stays behind. So both may run at once.

use sealtide_store::{SpaceLabel, Store};
use serde_json::{Value, json};

use crate::audit::AUDIT_KIND;
use crate::commands::store_failure;
use crate::failure::Failure;
use crate::gateway::APP_KIND;
use crate::identity::PEER_SETTINGS;
use crate::known::ABSENT_SETTINGS;
use crate::node::BEHIND_PROXIES;
use crate::releases::MEMORY_SETTINGS;

/// The settings of the other machine, to be looked through by a person: they name its addresses, its folders and its secrets.
pub(super) const OTHER_CONFIG: &str = "config.toml.of-backup";

/// Whether an item of a backup belongs to the machine that made it: secrets, what it alone signed, what it alone published.
pub(super) fn stays_behind(name: &str) -> bool {
    let secrets = ["node.key", "identity.key", "gateway.key", "relay.token", "bearers"];
    secrets.contains(&name) || name.starts_with("audit/") || name.starts_with("bundles/")
}

/// Takes out of a store what was only that machine's: open invites, unfinished sagas, its audit and its app, where its folders
/// and installs were. Peers, members, whom it trusts, every space and what of it is
/// not here stay. Gives the spaces, as people see them.
///
/// # Errors
/// As the store reports.
pub(super) fn make_another(store: &Store) -> Result<Vec<Value>, Failure> {
    let facts = store.facts();
    for invite in facts.invites().map_err(store_failure)? {
        facts.remove_invite(&invite.id).map_err(store_failure)?;
    }
    let kept = |name: &String| {
        let begins =
            [PEER_SETTINGS, ABSENT_SETTINGS].into_iter().chain(MEMORY_SETTINGS).any(|kept| name.starts_with(kept));
        begins || name == BEHIND_PROXIES
    };
    for name in facts.setting_names().map_err(store_failure)?.iter().filter(|name| !kept(name)) {
        facts.put_setting(name, None).map_err(store_failure)?;
    }
    let mut spaces = Vec::new();
    for (space, label) in facts.labels().map_err(store_failure)? {
        if [AUDIT_KIND, APP_KIND].contains(&label.kind.as_str()) {
            store.remove_space(&space).map_err(store_failure)?;
            facts.put_label(&space, None).map_err(store_failure)?;
            continue;
        }
        if ["folder", "data"].contains(&label.kind.as_str()) {
            spaces.push(json!({"space": space.to_string(), "name": label.name, "kind": label.kind}));
        }
        facts.put_label(&space, Some(&SpaceLabel { dir: None, ..label })).map_err(store_failure)?;
    }
    Ok(spaces)
}
