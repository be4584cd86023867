//! `release registry show|share|follow|leave|hand-over`: the version registry of several nodes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::{blocking, role_name};
use crate::failure::Failure;
use crate::node::Node;

/// What a command asks about the registry that several nodes have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "registry", rename_all = "snake_case")]
pub enum RegistryRequest {
    /// `release registry show`
    Show,
    /// `release registry share`
    Share,
    /// `release registry follow SPACE`
    Follow {
        /// Its name or id.
        space: String,
    },
    /// `release registry leave`
    Leave,
    /// `release registry hand-over PEER`
    HandOver {
        /// Name or `stn1…`.
        peer: String,
    },
}

/// Does what is asked; the answer is what holds then.
///
/// # Errors
/// A [`Failure`] with the exit code of the command.
pub(crate) async fn execute(node: &Node, request: RegistryRequest) -> Result<Value, Failure> {
    match request {
        RegistryRequest::Show => {}
        RegistryRequest::Share => node.share_registry().await?,
        RegistryRequest::Follow { space } => node.follow_registry(node.find_space(&space)?).await?,
        RegistryRequest::Leave => node.leave_registry()?,
        RegistryRequest::HandOver { peer } => {
            let to = node.find_peer(&peer)?.node;
            node.hand_over_registry(to).await?;
        }
    }
    blocking("registry", node, |node| Ok(show(node))).await
}

fn show(node: &Node) -> Value {
    let mut told =
        json!({"schema": "sealtide/registry/1", "space": null, "writer": null, "own": false, "revision": null});
    if let Ok(desk) = node.desk(false) {
        told["writer"] = json!(desk.handed_to().unwrap_or(node.id()).to_string());
        told["own"] = json!(desk.handed_to().is_none());
        told["revision"] = json!(desk.registry_revision());
    }
    let Some(shared) = node.shared_registry() else { return told };
    told["space"] = json!(node.label(&shared.space()));
    told["first"] = json!(shared.first().as_str());
    told["role"] = json!(node.engine().role(&node.id(), &shared.space()).map(role_name));
    if let Some(state) = shared.state() {
        let (id, is_own) = (state.writer.node, state.writer.node == node.id());
        told["forked"] = json!(state.forked);
        told["writer_name"] = json!(node.known().peer_name(&id));
        // Of the own one what stands here counts: the copy may be a moment behind.
        if !is_own {
            told["writer"] = json!(id.to_string());
            told["own"] = json!(false);
            told["revision"] = json!(state.registry.revision());
            told["connected"] = json!(node.link().session(&id).is_some());
        }
    }
    told
}
