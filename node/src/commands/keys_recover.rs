//! `keys recover`: the owner's recovery words replace a signing key that was lost or stolen, in its home or, with the space of
//! an app, in a fresh one.

use sealtide_releases::bundle::Trust;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::blocking;
use crate::commands::identity::{ask_peers, failure, root};
use crate::commands::release::app_name;
use crate::failure::Failure;
use crate::gateway::{Named, Replacement};
use crate::node::Node;
use crate::recovery::RecoveryWords;
use crate::releases::{ledger_of_app, untrusted};

/// What `keys recover` was asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecoverOrder {
    /// Somebody else may have the secrets of before.
    pub compromised: bool,
    /// `CHANNEL=SEQ` entries.
    pub last_good: Vec<String>,
    /// Why.
    pub reason: String,
    /// The app whose space has the ledger of a home that is lost.
    pub app: Option<String>,
    /// The text of a trust file of that app.
    pub trust: Option<String>,
}

/// Makes a new version sign, whatever became of the secret before it. Who has a trust file with this owner as its root follows.
pub(crate) async fn recover(node: &Node, words: RecoveryWords, asked: RecoverOrder) -> Result<Value, Failure> {
    let named: Option<Vec<Named>> = asked.last_good.iter().map(|text| Named::parse(text)).collect();
    let named = named.ok_or_else(|| Failure::usage("last_good", "a last good release is CHANNEL=SEQ"))?;
    let app = asked.app.as_deref().map(app_name).transpose()?;
    let trust = asked.trust.map(|text| Trust::parse(text.as_bytes())).transpose();
    let trust = trust.map_err(|error| untrusted("the trust file", &error))?;
    let mut order = Replacement {
        compromised: asked.compromised,
        last_good: named,
        by: "command",
        reason: asked.reason,
        taken: None,
    };
    // The owner's newest frames, so that none of them forks.
    ask_peers(node).await;
    let work = move |node: &Node| {
        let root = root(&words)?;
        // Nothing is made for words that are those of nobody.
        let own = node.identities().drill(&root).map_err(failure)?;
        order.taken = app.map(|app| ledger_of_app(node, &app, trust, &own)).transpose()?;
        let mut owner = None;
        let mut prove = |record: &[u8; 32]| {
            let recovered = node.identities().recover_keyring(&root, record).map_err(failure)?;
            owner = Some(recovered.owner.to_string());
            Ok(())
        };
        let done = node.replace_key(&order, &mut prove)?;
        node.identities_changed();
        // Opens what could not be opened, and tells the audit.
        node.desk(false)?;
        Ok((done, owner))
    };
    let (done, owner) = blocking("keys", node, work).await?;
    // Heads of the pair before are void from here on. The change holds whatever becomes of them.
    if let Err(failure) = crate::releases::renew(node).await {
        tracing::warn!(%failure, "heads of release channels were not signed anew; a running node tries again");
    }
    Ok(json!({
        "schema": "sealtide/keys_change/1", "change": "recover", "changed": true,
        "from": done.from.to_string(), "to": done.to.to_string(), "epoch": done.epoch, "owner": owner,
    }))
}
