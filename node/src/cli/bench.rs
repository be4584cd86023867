//! `bench live`: how long an edit takes until the other folder shows it, between two real nodes on this machine.
//! The other benches are in files of their own.

mod bulk;
mod far_end;
mod identity;
mod link;
mod memory;
mod reconcile;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::Cx;
use crate::commands::{join, ticket};
use crate::config::Config;
use crate::failure::Failure;
use crate::home::Home;
use crate::node::Node;

/// How long an edit may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How large a bench is.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    /// Edits of `live`.
    pub(crate) edits: u32,
    /// Bytes of each file of `live`.
    pub(crate) bytes: usize,
    /// Records of `reconcile` and `bulk`.
    pub(crate) items: usize,
    /// Differences of `reconcile`.
    pub(crate) differences: usize,
    /// Idle sessions of `link`.
    pub(crate) sessions: usize,
    /// The most memory that each process of `reconcile` and `bulk` may have, in MiB.
    pub(crate) memory_mib: Option<u64>,
    /// Where the stores lie; a temporary folder when there is none.
    pub(crate) directory: Option<PathBuf>,
    /// Where `reconcile` keeps the store that it fills, and finds it again.
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
        "live" => live(&dir, sizes.edits.max(1), sizes.bytes).await,
        "link" => link::link(sizes.sessions).await,
        "reconcile" => reconcile::reconcile(&dir, &sizes),
        _ => Err(Failure::usage("bench", format!("there is no bench named {name}")).hint(
            "`live`, `link`, `reconcile`, `bulk` or `identity`; bench/sync.sh compares whole syncs with other tools",
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
    let order = join::JoinOrder { ticket: invite.text, dir: Some(there.clone()), wait: true, yes: true, timeout_s: 30 };
    let (progress, _told) = tokio::sync::mpsc::unbounded_channel();
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
