//! Two nodes in one program: a plan is written at one, changed at the other, and read again at the first.
//!
//! ```text
//! cargo run -p sealtide-node --example notes
//! ```
//!
//! A program of your own holds one of them; the other runs in another process, on another machine.

#![allow(clippy::print_stdout, reason = "it shows what it read")]
#![allow(unreachable_pub, reason = "a test runs it too")]

use std::path::Path;
use std::time::Duration;

use sealtide_identity::Role;
use sealtide_node::config::Config;
use sealtide_node::failure::Failure;
use sealtide_node::home::Home;
use sealtide_node::node::Node;
use serde::{Deserialize, Serialize};

/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(30);

/// What this program keeps: anything that is JSON.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What for.
    pub title: String,
    /// Whether it came to be.
    pub done: bool,
}

// `Node::serve` begins tasks, so there is a runtime before there is a node.
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    println!("{:?}", share_a_plan(dir.path()).await?);
    Ok(())
}

/// Everything; gives the plan as the first node reads it in the end.
pub async fn share_a_plan(dir: &Path) -> Result<Plan, Box<dyn std::error::Error>> {
    let alice = open(&dir.join("alice")).await?;
    let bob = open(&dir.join("bob")).await?;

    // A space is what is shared as a whole. Making one waits for the disk, which a task must not.
    let maker = alice.clone();
    let space = tokio::task::spawn_blocking(move || maker.create_space("Notes", "data")).await??;
    alice.put_document(&space, "plan", &Plan { title: "sail".to_owned(), done: false }).await?;

    // The ticket goes to the other person by a way that both trust. It says where Alice is, and who.
    let ticket = alice.new_ticket(&space, Role::Write, Duration::from_secs(600), 1)?;

    // Bob is let in, and has all of the space when this returns.
    let joined = bob.join(&ticket, PATIENCE).await?;
    let mut plan: Plan = bob.document(&joined, "plan")?.ok_or("there is no plan")?.read()?;
    plan.done = true;
    bob.put_document(&joined, "plan", &plan).await?;

    // Nodes that serve tell each other of every change; this only waits until it is there.
    alice.sync(&space, PATIENCE).await?;
    let plan = alice.document(&space, "plan")?.ok_or("there is no plan")?.read()?;

    // Ends sessions in order and makes durable what is under way. A node that is only dropped goes on: its tasks hold it.
    bob.shutdown().await;
    alice.shutdown().await;
    Ok(plan)
}

/// Opens the node of a home, and begins to serve: on this machine alone, at a free port.
async fn open(dir: &Path) -> Result<Node, Failure> {
    // A home holds the key, the store and the settings of one node. One process at a time has it open.
    let home = Home::new(dir.to_owned());
    home.init()?;
    let node = Node::open(home, Config::defaults())?;
    node.listen(([127, 0, 0, 1], 0).into()).await?;
    node.serve()?;
    Ok(node)
}
