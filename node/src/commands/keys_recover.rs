//! `keys recover`: the owner's recovery words replace a signing key that was lost or stolen.

use serde_json::{Value, json};

use crate::commands::blocking;
use crate::commands::identity::{ask_peers, failure, root};
use crate::failure::Failure;
use crate::gateway::{Named, Replacement};
use crate::node::Node;
use crate::recovery::RecoveryWords;

/// Makes a new version sign, whatever became of the secret before it. Who has a trust file with this owner as its root follows.
pub(crate) async fn recover(
    node: &Node,
    words: RecoveryWords,
    compromised: bool,
    last_good: Vec<String>,
    reason: String,
) -> Result<Value, Failure> {
    let named: Option<Vec<Named>> = last_good.iter().map(|text| Named::parse(text)).collect();
    let named = named.ok_or_else(|| Failure::usage("last_good", "a last good release is CHANNEL=SEQ"))?;
    let order = Replacement { compromised, last_good: named, by: "command", reason };
    // The owner's newest frames, so that none of them forks.
    ask_peers(node).await;
    let work = move |node: &Node| {
        let root = root(&words)?;
        // Nothing is made for words that are those of nobody.
        node.identities().drill(&root).map_err(failure)?;
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
