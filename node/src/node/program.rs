//! What a program that holds a node asks for most, in its own types. Each is a command (`commands/`) without its words; what is not
//! here is asked with [`crate::api::execute`].

use std::time::Duration;

use sealtide_ibgib::Address;
use sealtide_identity::{Role, SpaceId, Ticket};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Node;
use crate::api::Progress;
use crate::commands::sync::SyncCommand;
use crate::commands::target::{DOC_IB, Line, Target, n_of};
use crate::commands::{documents, join, sync, ticket};
use crate::failure::Failure;

/// The newest version of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its content.
    pub doc: Value,
    /// The address of the version.
    pub address: Address,
    /// Its number in the history of the document.
    pub n: u64,
}

impl Document {
    /// The content as a type of the caller.
    ///
    /// # Errors
    /// What does not fit: another program may have written it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.doc)
    }
}

impl Node {
    /// Makes or changes a document of a space, signed, durable, and told to peers. What two nodes put before they heard of each other is
    /// merged. `Put` with a `base` ([`crate::api::Request`]) refuses to overwrite what came since that version was read.
    ///
    /// # Errors
    /// Exit 2 for what cannot be a document (of more than 700 KiB, for instance), exit 6 where the own role is to read.
    pub async fn put_document(&self, space: &SpaceId, name: &str, doc: &impl Serialize) -> Result<(), Failure> {
        let doc = serde_json::to_value(doc).map_err(|error| Failure::usage("document", error.to_string()))?;
        documents::put(self, &space.to_string(), name, doc, None).await.map(drop)
    }

    /// A document of a space; nothing when there is none of that name.
    ///
    /// # Errors
    /// Exit 2 when the space is not here.
    pub fn document(&self, space: &SpaceId, name: &str) -> Result<Option<Document>, Failure> {
        let target = Target { space: space.to_string(), path: Some(name.to_owned()), version: None };
        let line = match Line::find_of(self, &target, Some(DOC_IB)) {
            Ok(line) => line,
            Err(failure) if failure.code == "not_found" => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let document = |tip: &sealtide_ibgib::Verified| {
            let doc = tip.object()?.get("doc")?.clone();
            Some(Document { doc, address: tip.address().clone(), n: n_of(tip) })
        };
        Ok(line.tips.first().and_then(document))
    }

    /// Makes a ticket that lets other nodes into a space, `uses` of them within `lives`. This node listens already
    /// ([`Node::listen`]): the ticket says where it is. It carries a secret: treat it like a password.
    ///
    /// # Errors
    /// Exit 6 where the own role is not admin, or where the space can have no more members; when this node does not listen.
    pub fn new_ticket(&self, space: &SpaceId, role: Role, lives: Duration, uses: u32) -> Result<Ticket, Failure> {
        ticket::make(self, *space, role, lives.as_secs(), uses).map(|made| made.ticket)
    }

    /// Takes the space that a ticket lets into, without a folder, and returns when all of it is here. `patience`: how long nothing may
    /// move. The node serves ([`Node::serve`]).
    ///
    /// # Errors
    /// As `join` of the command line: exit 6 for a ticket that is used up, expired or revoked, exit 7 when its node cannot be reached.
    pub async fn join(&self, ticket: &Ticket, patience: Duration) -> Result<SpaceId, Failure> {
        let (ticket, timeout_s) = (ticket.encode(), patience.as_secs());
        let order = join::JoinOrder { ticket, dir: None, wait: true, yes: false, timeout_s, device: false };
        let joined = join::join(self, order, &Progress::none()).await?;
        let space = joined["space"].as_str().and_then(|space| space.parse().ok());
        space.ok_or_else(|| Failure::failed("join", "the space that was joined has no id"))
    }

    /// Brings a space in step with the peers that are there, now; a node that serves does so by itself, soon after each change.
    /// `patience`: how long nothing may move.
    ///
    /// # Errors
    /// As `sync` of the command line: exit 7 when nobody can be reached, exit 4 where a conflict needs a person.
    pub async fn sync(&self, space: &SpaceId, patience: Duration) -> Result<(), Failure> {
        let order = SyncCommand {
            spaces: vec![space.to_string()],
            with: None,
            strategy: "optimistic".to_owned(),
            wait: true,
            timeout_s: patience.as_secs(),
            dry_run: false,
            cancel: None,
        };
        sync::sync(self, order, &Progress::none()).await.map(drop)
    }
}
