//! `bench live`: how long an edit takes until the other folder shows it, between two real nodes on this machine.
//! The other benches are in files of their own.

mod bulk;
mod distance;
mod far_end;
mod gateway;
mod identity;
mod link;
mod memory;
mod reconcile;
mod relayed;
mod release;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::Progress;
use crate::cli::Cx;
use crate::commands::{join, ticket};
use crate::config::Config;
use crate::failure::Failure;
use crate::home::Home;
use crate::node::Node;

/// How long an edit may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

// No doc comment: clap would show it as the text of the command.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Sizes {
    /// Edits to measure
    #[arg(long, default_value_t = 100)]
    pub(crate) edits: u32,
    /// Bytes of each file
    #[arg(long, default_value_t = 65_536)]
    pub(crate) bytes: usize,
    /// Records of each space
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) items: usize,
    /// Records that differ, half of them on each side
    #[arg(long, default_value_t = 1_000)]
    pub(crate) differences: usize,
    /// Idle sessions to weigh, and most listeners of the gateway
    #[arg(long, default_value_t = 1_000)]
    pub(crate) sessions: usize,
    /// Folder with peers to compare with: node_modules with ws and Bun for the gateway, a Python environment with tuf for release
    #[arg(long, value_name = "DIR")]
    pub(crate) peers: Option<PathBuf>,
    /// A directory to release, instead of one that is made up
    #[arg(long)]
    pub(crate) source: Option<PathBuf>,
    /// The most memory of each process of reconcile and bulk, in MiB: whoever needs more fails
    #[arg(long)]
    pub(crate) memory_mib: Option<u64>,
    /// Where the stores of reconcile and bulk lie while it runs [default: a temporary folder]
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// Nodes that log in at a relay and stay
    #[arg(long, default_value_t = 200)]
    pub(crate) logins: usize,
    /// Sessions over that relay that echo once a second, for ten seconds
    #[arg(long, default_value_t = 50)]
    pub(crate) relayed: usize,
    /// Where reconcile keeps the store that it fills, for the next time with as many records or more
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

/// Runs a bench and prints its figures.
pub(crate) async fn bench(cx: &Cx, name: &str, sizes: Sizes) -> Result<u8, Failure> {
    if let (Some(dir), "far-end" | "bulk-end") = (&sizes.directory, name) {
        return end(cx, name, dir, sizes.memory_mib).await;
    }
    let parent = sizes.directory.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("sealtide-bench-{}", std::process::id()));
    let result = match name {
        "bulk" => bulk::bulk(&dir, &sizes).await,
        "identity" => identity::identity(&dir, sizes.edits.max(1)).await,
        "login-end" => relayed::login_end().await,
        "live" => live(&dir, sizes.edits.max(1), sizes.bytes).await,
        "gateway" => gateway::gateway(&dir, sizes.sessions, sizes.peers.as_deref()).await,
        "link" => link::link(&dir, sizes).await,
        "release" => release::release(&dir, &sizes).await,
        "reconcile" => reconcile::reconcile(&dir, &sizes),
        _ => Err(Failure::usage("bench", format!("there is no bench named {name}")).hint(
            "`live`, `link`, `gateway`, `reconcile`, `bulk`, `release` or `identity`; bench/sync.sh compares whole syncs with other tools",
        )),
    };
    let _ = std::fs::remove_dir_all(&dir);
    cx.out.answer(&result?);
    Ok(0)
}

/// The other process of a bench.
async fn end(cx: &Cx, name: &str, dir: &Path, memory_mib: Option<u64>) -> Result<u8, Failure> {
    if let Some(mib) = memory_mib {
        memory::limit(mib << 20)?;
    }
    match name {
        "far-end" => far_end::serve(dir)?,
        _ => cx.out.answer(&bulk::end(dir).await?),
    }
    Ok(0)
}

async fn live(dir: &Path, edits: u32, bytes: usize) -> Result<Value, Failure> {
    let (here, there) = (dir.join("a"), dir.join("b"));
    let a = node(&dir.join("home-a")).await?;
    let b = node(&dir.join("home-b")).await?;
    crate::commands::share::share(&a, std::slice::from_ref(&here)).await?;
    let space = a.space_or_only(None)?;
    let invite = ticket::make(&a, space, sealtide_identity::Role::Write, 600, 1)?;
    let order = join::JoinOrder {
        ticket: invite.ticket.encode(),
        dir: Some(there.clone()),
        wait: true,
        yes: true,
        device: false,
        timeout_s: 30,
    };
    let progress = Progress::none();
    join::join(&b, order, &progress).await?;
    let mut times = Vec::new();
    for edit in 0..edits {
        let (from, to) = if edit % 2 == 0 { (&here, &there) } else { (&there, &here) };
        let content = content(edit, bytes);
        let name = format!("edit-{}.txt", edit % 10);
        let started = Instant::now();
        std::fs::write(from.join(&name), &content)?;
        until(|| std::fs::read(to.join(&name)).is_ok_and(|found| found == content)).await?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    a.shutdown().await;
    b.shutdown().await;
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    Ok(json!({
        "schema": "sealtide/bench_live/1",
        "edits": edits,
        "bytes": bytes,
        "ms": {"min": times[0], "p50": at(0.5), "p95": at(0.95), "max": at(1.0)},
    }))
}

async fn node(root: &Path) -> Result<Node, Failure> {
    let home = Home::new(root.to_owned());
    home.init()?;
    let config = Config::load(&home.config_path(), false)?;
    let node = Node::open(home, config)?;
    node.listen(([127, 0, 0, 1], 0).into()).await?;
    node.serve()?;
    Ok(node)
}

/// Text that differs for every edit.
fn content(edit: u32, bytes: usize) -> Vec<u8> {
    let line = format!("edit {edit}: the quick brown fox jumps over the lazy dog\n");
    line.bytes().cycle().take(bytes).collect()
}

async fn until(done: impl Fn() -> bool) -> Result<(), Failure> {
    let started = Instant::now();
    while !done() {
        if started.elapsed() > PATIENCE {
            return Err(Failure::failed("bench", "an edit did not arrive within 30 s"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
